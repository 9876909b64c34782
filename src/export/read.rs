//! Reads exports back: a full export into a new store, and a file of runs as ticks.
//!
//! **Invariant**: a store restored from a full export becomes usable only after every file has matched the schema, row
//! count and checksum of the manifest and all rows are consistent. Memory is bounded by one row group of each file,
//! whatever the size of the files.

mod archive;
mod cells;
mod error;
mod frame;
mod held_ticks;
mod manifest;
mod row_groups;
mod rows;
mod schema_adapter;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use self::cells::{CommitRow, Instant, NamedPollSpan, NamedRun, NamedSeries, Row};
pub use self::error::{CellProblem, ReadError};
pub use self::manifest::{Manifest, Part};
use self::rows::Rows;
use super::checksum_trailer::{self, TrailerState};
pub use super::manifest::MANIFEST_NAME;
pub use super::schema::{SCHEMA_VERSION, SCHEMA_VERSION_OLDEST};
use crate::domain::{ArchiveDecision, HeldTick, PublishedValue, Revision, Run, Timestamp};
use crate::latest_quotes::StateRules;
use crate::store::{Commit, Restore};

/// File name of the series in a full export.
pub const SERIES_NAME: &str = "series.parquet";
/// File name of the runs in a full export.
pub const RUNS_NAME: &str = "runs.parquet";
/// File name of the observed instants in a full export.
pub const TIMELINE_NAME: &str = "timeline.parquet";
/// File name of the revisions in a full export.
pub const REVISIONS_NAME: &str = "revisions.parquet";
/// File name of the commits in a full export.
pub const COMMITS_NAME: &str = "commits.parquet";
/// File name of the held ticks in a full export.
pub const QUARANTINE_NAME: &str = "quarantine.parquet";
/// File name of the poll spans in a full export.
pub const POLLS_NAME: &str = "polls.parquet";
/// File name of the decisions to archive and unarchive sources in a full export. Exports of schema version 1 lack it.
pub const ARCHIVE_NAME: &str = "archive.parquet";

/// The Parquet files that every full export has.
const PART_NAMES: [&str; 7] =
    [SERIES_NAME, RUNS_NAME, TIMELINE_NAME, REVISIONS_NAME, COMMITS_NAME, POLLS_NAME, QUARANTINE_NAME];

/// The first bytes of every Parquet file.
pub const PARQUET_MAGIC: &[u8; 4] = b"PAR1";

/// Buffer size for hashing a file.
const HASH_BYTES: usize = 1 << 20;

/// Progress of reading an export. Another thread can observe it.
#[derive(Debug, Default)]
pub struct ReadProgress {
    checked_bytes: AtomicU64,
    rows: AtomicU64,
}

impl ReadProgress {
    /// Bytes hashed for the checksum comparison so far.
    pub fn checked_bytes(&self) -> u64 {
        self.checked_bytes.load(Ordering::Relaxed)
    }

    /// Rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

/// A full export with a valid manifest, valid schemas and matching row counts.
#[derive(Debug)]
pub struct FullExport {
    directory: PathBuf,
    manifest: Manifest,
    commit: Commit,
    last_ingest_time: Option<Timestamp>,
    total_bytes: u64,
}

impl FullExport {
    /// Opens the full export in a directory and checks everything that does not require reading its rows.
    ///
    /// # Errors
    /// Any [`ReadError`] except those about a row.
    pub fn open(directory: &Path) -> Result<Self, ReadError> {
        let path = directory.join(MANIFEST_NAME);
        let file = path.display().to_string();
        let text = fs::read(&path).map_err(|problem| {
            if problem.kind() == io::ErrorKind::NotFound {
                return ReadError::NotAnExport { directory: directory.display().to_string() };
            }
            ReadError::Io { file: file.clone(), problem }
        })?;
        let manifest: Manifest =
            Manifest::parse(&text).map_err(|problem| ReadError::Manifest { file: file.clone(), problem })?;
        if !(SCHEMA_VERSION_OLDEST..=SCHEMA_VERSION).contains(&manifest.schema_version) {
            let (found, product_version) = (manifest.schema_version.to_string(), manifest.product_version);
            return Err(ReadError::SchemaVersion { file, found, product_version });
        }
        let time = |field, text: &str| {
            let bad = |problem| ReadError::ManifestTime { file: file.clone(), field, problem };
            Timestamp::parse_rfc3339(text).map_err(bad)
        };
        let commit =
            Commit { sequence: manifest.sequence, recorded_time: time("recorded_time", &manifest.recorded_time)? };
        let last_ingest_time =
            manifest.last_ingest_time.as_deref().map(|text| time("last_ingest_time", text)).transpose()?;
        let mut export = Self { directory: directory.to_owned(), manifest, commit, last_ingest_time, total_bytes: 0 };
        export.check_parts()?;
        Ok(export)
    }

    fn check_parts(&mut self) -> Result<(), ReadError> {
        let unread = AtomicU64::new(0);
        self.rows::<NamedSeries>(SERIES_NAME, &unread)?;
        self.rows::<Run>(RUNS_NAME, &unread)?;
        self.rows::<Instant>(TIMELINE_NAME, &unread)?;
        self.rows::<Revision>(REVISIONS_NAME, &unread)?;
        self.rows::<CommitRow>(COMMITS_NAME, &unread)?;
        self.rows::<NamedPollSpan>(POLLS_NAME, &unread)?;
        self.rows::<HeldTick>(QUARANTINE_NAME, &unread)?;
        if self.has_archive() {
            self.rows::<ArchiveDecision>(ARCHIVE_NAME, &unread)?;
        }
        for part in self.part_names() {
            let path = self.directory.join(part);
            let failed = |problem| ReadError::Io { file: path.display().to_string(), problem };
            self.total_bytes += fs::metadata(&path).map_err(failed)?.len();
        }
        Ok(())
    }

    /// Whether the export has the decisions to archive sources. Version 1 has none.
    fn has_archive(&self) -> bool {
        self.manifest.schema_version > 1
    }

    /// The names of the Parquet files.
    fn part_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        PART_NAMES.into_iter().chain(self.has_archive().then_some(ARCHIVE_NAME))
    }

    fn part(&self, name: &'static str) -> Result<&Part, ReadError> {
        let missing =
            || ReadError::MissingPart { file: self.directory.join(MANIFEST_NAME).display().to_string(), part: name };
        self.manifest.parts.iter().find(|part| part.name == name).ok_or_else(missing)
    }

    /// Opens a file and checks its schema and its row count.
    fn rows<'a, T: Row>(&self, name: &'static str, read: &'a AtomicU64) -> Result<Rows<'a, T>, ReadError> {
        let expected = self.part(name)?.row_count;
        let rows = Rows::open(&self.directory.join(name), read)?;
        if rows.total() != expected {
            return Err(ReadError::RowCount { file: rows.file().to_owned(), expected, found: rows.total() });
        }
        Ok(rows)
    }

    /// The manifest of the export.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Total size of the Parquet files in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Total number of rows in the files, according to the manifest.
    pub fn total_rows(&self) -> u64 {
        self.manifest.parts.iter().map(|part| part.row_count).sum()
    }

    /// Reads all files once and compares their checksums with the manifest.
    ///
    /// # Errors
    /// `Io` if a file cannot be read; `Checksum` if a file differs.
    pub fn verify_checksums(&self, progress: &ReadProgress) -> Result<(), ReadError> {
        let mut buffer = vec![0; HASH_BYTES];
        for name in self.part_names() {
            let path = self.directory.join(name);
            let file = || path.display().to_string();
            let failed = |problem| ReadError::Io { file: file(), problem };
            let mut input = File::open(&path).map_err(failed)?;
            let mut hash = Sha256::new();
            loop {
                let read = input.read(&mut buffer).map_err(failed)?;
                if read == 0 {
                    break;
                }
                hash.update(&buffer[..read]);
                progress.checked_bytes.fetch_add(read as u64, Ordering::Relaxed);
            }
            let found = HEXLOWER.encode(&hash.finalize());
            let expected = &self.part(name)?.sha256;
            if !expected.eq_ignore_ascii_case(&found) {
                return Err(ReadError::Checksum { file: file(), expected: expected.clone(), found });
            }
        }
        Ok(())
    }

    /// Rebuilds the exported store in the directory `into`. The directory must be absent, empty, or hold an unfinished
    /// import. The latest quotes count as changed at the imported commit, and their states follow `rules`. Everything
    /// else equals the exported store. Blocks the thread.
    ///
    /// # Errors
    /// Any [`ReadError`]; then no server accepts the directory as a store.
    pub fn restore(&self, into: &Path, rules: StateRules, progress: &ReadProgress) -> Result<Commit, ReadError> {
        let read = &progress.rows;
        let mut commits = self.rows::<CommitRow>(COMMITS_NAME, read)?;
        let mut series = self.rows::<NamedSeries>(SERIES_NAME, read)?;
        let mut instants = self.rows::<Instant>(TIMELINE_NAME, read)?;
        let mut runs = self.rows::<Run>(RUNS_NAME, read)?;
        let mut revisions = self.rows::<Revision>(REVISIONS_NAME, read)?;
        let mut held = self.rows::<HeldTick>(QUARANTINE_NAME, read)?;
        let mut store = Restore::begin(into, rules, self.commit)?;
        store.set_last_ingest_time(self.last_ingest_time);
        let mut expected = 0;
        store.commits(std::iter::from_fn(|| {
            expected += 1;
            rows::next_commit(&mut commits, expected).transpose()
        }))?;
        if self.has_archive() {
            let mut decisions = self.rows::<ArchiveDecision>(ARCHIVE_NAME, read)?;
            while let Some(decision) = decisions.next_row()? {
                store.archive_decision(decision)?;
            }
        }
        while let Some(NamedSeries { pair, source, key, collapse_window_us }) = series.next_row()? {
            store.series(
                &key,
                collapse_window_us,
                instants.of_series(&pair, &source).map(|row| row.map(|Instant(time)| time)),
                runs.of_series(&pair, &source),
                revisions.of_series(&pair, &source),
            )?;
        }
        instants.expect_end()?;
        runs.expect_end()?;
        revisions.expect_end()?;
        let mut polls = self.rows::<NamedPollSpan>(POLLS_NAME, read)?;
        while let Some(NamedPollSpan { source, span }) = polls.next_row()? {
            store.poll_span(&source, span)?;
        }
        store.quarantine(std::iter::from_fn(|| held.next_row().transpose()))?;
        Ok(store.finish()?)
    }
}

/// One observation from a file of runs. Pair and source are unparsed text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunTick {
    /// Row number of the run in its file, from 1.
    pub row: u64,
    /// The pair, as in the file.
    pub pair: String,
    /// The source, as in the file.
    pub source: String,
    /// When the source showed the value.
    pub observed_time: Timestamp,
    /// The published value.
    pub value: PublishedValue,
}

/// The ticks that a file of runs contains: the first and the last observation of each run. Only the timeline of a full
/// export has the observations between them. A run longer than the collapse window of the receiving store becomes two
/// runs there.
pub struct RunTicks {
    rows: Rows<'static, NamedRun>,
    file_bytes: u64,
    /// The last tick of the current run, if it is still to be returned.
    last: Option<RunTick>,
}

/// The body of the fuzz target of imports: the bytes as a Parquet file of runs. Its checksum trailer is not compared,
/// because a fuzzer does not find it.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    let Ok(file) = rustix::fs::memfd_create("silkrate-fuzz", rustix::fs::MemfdFlags::CLOEXEC) else { return };
    let mut file = File::from(file);
    if file.write_all(bytes).is_err() {
        return;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let Ok(mut rows) = Rows::<'_, NamedRun>::open(Path::new(&path), &UNCOUNTED) else { return };
    while let Ok(Some(_)) = rows.next_row() {}
}

/// A row counter that nothing reads.
static UNCOUNTED: AtomicU64 = AtomicU64::new(0);

impl RunTicks {
    /// Opens a file of runs and checks its schema. If silkrate wrote the file, reads it once and verifies its checksum
    /// trailer.
    ///
    /// # Errors
    /// `Io`, `ChecksumTrailer`, `Parquet`, `SchemaVersion`, `RowGroup`, `RowGroupBytes`, `Codec`, `MissingColumn` or
    /// `ColumnType`.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = || path.display().to_string();
        let failed = |problem| ReadError::Io { file: file(), problem };
        let input = File::open(path).map_err(failed)?;
        let trailer = checksum_trailer::verify(&input).map_err(failed)?;
        if trailer == TrailerState::Invalid {
            return Err(ReadError::ChecksumTrailer { file: file() });
        }
        let rows: Rows<'_, NamedRun> = Rows::open(path, &UNCOUNTED)?;
        if trailer == TrailerState::Absent && rows.is_written_by_silkrate() {
            return Err(ReadError::ChecksumTrailer { file: file() });
        }
        Ok(Self { rows, file_bytes: input.metadata().map_err(failed)?.len(), last: None })
    }

    /// Approximate bytes of the file read so far, assuming rows of equal length.
    pub fn bytes(&self) -> u64 {
        let (done, total) = (u128::from(self.rows.next_number() - 1), u128::from(self.rows.total().max(1)));
        u64::try_from(u128::from(self.file_bytes) * done / total).unwrap_or(self.file_bytes)
    }

    /// Returns the next tick; `None` at the end of the file.
    ///
    /// # Errors
    /// `Parquet` if the file is damaged; `Cell` if a value is invalid.
    pub fn next_tick(&mut self) -> Result<Option<RunTick>, ReadError> {
        if let Some(last) = self.last.take() {
            return Ok(Some(last));
        }
        let row = self.rows.next_number();
        let Some(NamedRun { pair, source, run }) = self.rows.next_row()? else { return Ok(None) };
        let tick = RunTick { row, pair, source, observed_time: run.first_observed_time, value: run.value };
        if run.last_observed_time > run.first_observed_time {
            self.last = Some(RunTick { observed_time: run.last_observed_time, ..tick.clone() });
        }
        Ok(Some(tick))
    }
}
