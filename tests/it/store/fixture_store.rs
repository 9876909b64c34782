//! A store that an earlier build wrote. These tests fail if a change of the format makes old stores unreadable.
//!
//! If the format changed on purpose before its first release, write the archive again with `cargo run --example
//! fixture_store`. After a release, keep the archive and add another one.

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
fn fixture_store_gives_the_recorded_answers() -> Result<(), FixtureError> {
    let directory = unpack()?;
    let store = Store::open(fixture::options(directory.path()), fixture::opened())?;
    assert_same(&fixture::answers(&store)?, &expected()?);
    assert_eq!(store.verify().problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn fixture_store_accepts_new_commits() -> Result<(), FixtureError> {
    let directory = unpack()?;
    let mut store = Store::open(fixture::options(directory.path()), fixture::opened())?;
    fixture::add_more_commits(&mut store)?;
    store.checkpoint()?;
    let before = fixture::answers(&store)?;
    drop(store);
    assert_eq!(verify(directory.path())?.problems, Vec::<String>::new());
    let store = Store::open(fixture::options(directory.path()), fixture::opened())?;
    assert_same(&fixture::answers(&store)?, &before);
    Ok(())
}

/// Checks that the archive contains every kind of record.
#[test]
fn fixture_store_contains_every_kind_of_record() -> Result<(), FixtureError> {
    let lines = expected()?;
    for (what, at_least) in
        [("commit", 8), ("run,", 250), ("revision,", 4), ("latest", 3), ("instant,", 700), ("polls ", 150), ("held", 5)]
    {
        let count = lines.iter().filter(|line| line.starts_with(what)).count();
        assert!(count >= at_least, "only {count} lines start with {what:?}");
    }
    for part in [",UZS/USD from timesca,", ",0.00008,-0,", ",1234567890.123456789012345678,", ",87.4500,"] {
        assert!(lines.iter().any(|line| line.contains(part)), "no line contains {part}");
    }
    let directory = unpack()?;
    let log = fs::metadata(directory.path().join("log"))?.len();
    assert!(log > 16, "the log has no commits after the checkpoint");
    Ok(())
}
