//! A store that an earlier build wrote: a change of the format that cannot read it shows here.
//!
//! If the format changed on purpose before it was ever released, write it anew with
//! `cargo run --example fixture_store`; afterwards, keep the archive and add another.

use std::fs::{self, File};
use std::path::Path;

use flate2::read::GzDecoder;
use silkrate::store::{Store, verify};
use tar::Archive;
use tempfile::TempDir;

use crate::fixture;
use crate::fixture::FixtureError;

fn unpack() -> Result<TempDir, FixtureError> {
    let directory = tempfile::tempdir()?;
    let archive = File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture::ARCHIVE))?;
    Archive::new(GzDecoder::new(archive)).unpack(directory.path())?;
    Ok(directory)
}

fn expected() -> Result<Vec<String>, FixtureError> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture::ANSWERS))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[track_caller]
fn assert_same(found: &[String], expected: &[String]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn it_answers_as_it_did() -> Result<(), FixtureError> {
    let directory = unpack()?;
    let store = Store::open(fixture::options(directory.path()), fixture::opened())?;
    assert_same(&fixture::answers(&store)?, &expected()?);
    assert_eq!(store.verify().problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn it_goes_on() -> Result<(), FixtureError> {
    let directory = unpack()?;
    let mut store = Store::open(fixture::options(directory.path()), fixture::opened())?;
    fixture::go_on(&mut store)?;
    store.checkpoint()?;
    let before = fixture::answers(&store)?;
    drop(store);
    assert_eq!(verify(directory.path())?.problems, Vec::<String>::new());
    let store = Store::open(fixture::options(directory.path()), fixture::opened())?;
    assert_same(&fixture::answers(&store)?, &before);
    Ok(())
}

/// What the archive is there for is really in it.
#[test]
fn it_has_a_bit_of_everything() -> Result<(), FixtureError> {
    let lines = expected()?;
    for (what, at_least) in
        [("commit", 8), ("run,", 250), ("revision,", 4), ("latest", 3), ("instant,", 700), ("polls ", 150), ("held", 5)]
    {
        let count = lines.iter().filter(|line| line.starts_with(what)).count();
        assert!(count >= at_least, "{count} of {what}");
    }
    for part in [",UZS/USD from timesca,", ",0.00008,-0,", ",1234567890.123456789012345678,", ",87.4500,"] {
        assert!(lines.iter().any(|line| line.contains(part)), "nothing has {part}");
    }
    let directory = unpack()?;
    let log = fs::metadata(directory.path().join("log"))?.len();
    assert!(log > 16, "nothing is in the log alone");
    Ok(())
}
