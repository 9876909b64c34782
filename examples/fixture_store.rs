//! Writes the store archive `tests/data/store-v1.tar.gz` and its expected answers again.
//!
//! ```sh
//! cargo run --example fixture_store
//! ```
//!
//! Run this program only for a format that has not been released yet. The archive of a released format never changes,
//! and a newer format gets an archive of its own.

#[path = "../tests/it/fixture/mod.rs"]
mod fixture;

use std::fs::{self, File};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use silkrate::store::Store;
use tar::{Builder, HeaderMode};

use fixture::FixtureError;

fn main() -> Result<(), FixtureError> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir()?;
    fixture::write(directory.path())?;
    // The lock file names the process that had the store open. The next process that opens the store creates the file
    // again.
    fs::remove_file(directory.path().join("LOCK"))?;
    let archive = GzBuilder::new().write(File::create(project.join(fixture::ARCHIVE))?, Compression::best());
    let mut archive = Builder::new(archive);
    archive.mode(HeaderMode::Deterministic);
    archive.append_dir_all(".", directory.path())?;
    archive.into_inner()?.finish()?;

    let store = Store::open(fixture::options(directory.path()), fixture::opened())?;
    let lines = fixture::answers(&store)?;
    fs::write(project.join(fixture::ANSWERS), lines.join("\n") + "\n")?;
    let bytes = fs::metadata(project.join(fixture::ARCHIVE))?.len();
    println!("{}: {bytes} bytes; {}: {} lines", fixture::ARCHIVE, fixture::ANSWERS, lines.len());
    Ok(())
}
