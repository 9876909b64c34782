//! The target of an export: checks whether it may be replaced, and writes the bytes of the export.
//!
//! **Invariant**: the target appears under its name only after the export is complete, verified and durable.

use std::fs::{self, File};
use std::io::{self, Stdout, Write as _};
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;

use super::error::ExportError;
use super::ownership::{foreign_in_full_export, foreign_in_partitions};
use crate::cli::atomic_write::AtomicWrite;
use crate::export::{
    CountError, Format, MANIFEST_NAME, PartFile, PartitionKey, PartitionTotals, PartitionWriter, StreamCounter,
    StreamError, count_rows, manifest_json,
};
use crate::proto::v1;

/// The kind of target, and what the export writes to the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Standard output, which receives the only part of the export.
    Stdout(Format),
    /// A file, which receives the only part of the export.
    File(Format),
    /// A directory with all parts and the manifest of a full export.
    Full,
    /// A directory with a dataset that is partitioned by these keys.
    Partitioned(Vec<PartitionKey>),
}

/// The target of an export.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// True if an existing export at the target may be replaced.
    pub(super) force: bool,
}

impl Target {
    /// Checks that the export may be written to the target.
    ///
    /// # Errors
    /// `Exists` if the target exists and `force` is false; `NotReplaced` or `Foreign` if the target is not an export of
    /// this kind.
    pub(super) fn check(&self) -> Result<(), ExportError> {
        if matches!(self.kind, Kind::Stdout(_)) {
            return Ok(());
        }
        let found = match fs::symlink_metadata(&self.path) {
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|problem| self.failed(problem))?,
        };
        if !self.force {
            return Err(ExportError::Exists(self.path.clone()));
        }
        let refuse = |what| Err(ExportError::NotReplaced { path: self.path.clone(), what });
        match self.kind {
            Kind::File(_) if !found.is_file() => refuse("is not a regular file and cannot be replaced by one"),
            Kind::Full | Kind::Partitioned(_) if !found.is_dir() => {
                refuse("is not a directory and cannot be replaced by one")
            }
            Kind::Full => self.refuse_foreign(foreign_in_full_export, "a full export"),
            Kind::Partitioned(_) => self.refuse_foreign(foreign_in_partitions, "a partitioned dataset"),
            Kind::Stdout(_) | Kind::File(_) => Ok(()),
        }
    }

    fn refuse_foreign(
        &self,
        find: fn(&Path) -> io::Result<Option<PathBuf>>,
        what: &'static str,
    ) -> Result<(), ExportError> {
        match find(&self.path).map_err(|problem| self.failed(problem))? {
            Some(foreign) => Err(ExportError::Foreign { path: self.path.clone(), foreign, what }),
            None => Ok(()),
        }
    }

    pub(super) fn failed(&self, problem: io::Error) -> ExportError {
        ExportError::Write { path: self.path.clone(), problem }
    }

    /// Begins to write an export under a temporary name beside the target.
    ///
    /// # Errors
    /// `Write` if the file or directory cannot be created.
    pub(super) fn begin(self) -> Result<Writing, ExportError> {
        let failed = |problem| self.failed(problem);
        let output = match &self.kind {
            Kind::Stdout(format) => Output::Stdout { out: io::stdout(), counter: StreamCounter::new(*format) },
            Kind::File(format) => {
                let (unfinished, file) = AtomicWrite::file(&self.path).map_err(failed)?;
                Output::File { unfinished, file, format: *format }
            }
            Kind::Full => Output::Full { unfinished: AtomicWrite::directory(&self.path).map_err(failed)?, part: None },
            Kind::Partitioned(keys) => {
                let unfinished = AtomicWrite::directory(&self.path).map_err(failed)?;
                let writer = PartitionWriter::new(unfinished.path(), keys.clone());
                Output::Partitioned { unfinished, writer: Box::new(writer) }
            }
        };
        Ok(Writing { target: self, output })
    }
}

/// Where the bytes are written.
enum Output {
    Stdout { out: Stdout, counter: StreamCounter },
    File { unfinished: AtomicWrite, file: File, format: Format },
    Full { unfinished: AtomicWrite, part: Option<(PathBuf, File)> },
    Partitioned { unfinished: AtomicWrite, writer: Box<PartitionWriter> },
}

/// An export that is being written. Dropping it removes its temporary files.
pub(super) struct Writing {
    target: Target,
    output: Output,
}

impl Writing {
    /// Writes bytes of the part `name`.
    ///
    /// # Errors
    /// `Write` for a file or a full export; `Partition` for a partitioned dataset; `WriteStdout` or `Count` for
    /// standard output.
    pub(super) fn write(&mut self, name: &str, bytes: &Bytes) -> Result<(), ExportError> {
        let written = match &mut self.output {
            Output::Stdout { out, counter } => {
                out.write_all(bytes).map_err(ExportError::WriteStdout)?;
                return counter.add(bytes).map_err(|problem| count_error(name, problem));
            }
            Output::Partitioned { writer, .. } => return Ok(writer.write(bytes)?),
            Output::File { file, .. } => file.write_all(bytes),
            Output::Full { unfinished, part } => write_part(unfinished.path(), part, name, bytes),
        };
        written.map_err(|problem| self.target.failed(problem))
    }

    /// Syncs the completed part and reads its rows back.
    ///
    /// # Errors
    /// `Write` or `WriteStdout` if the part cannot be synced; `Count` if it cannot be read back; `Stream` if its row
    /// count differs from the server's.
    pub(super) fn end_part(&mut self, ended: &PartFile) -> Result<(), ExportError> {
        let failed = |problem| self.target.failed(problem);
        match &mut self.output {
            Output::Stdout { out, counter } => {
                out.flush().map_err(ExportError::WriteStdout)?;
                if let Some(found) = counter.finish().map_err(|problem| count_error(&ended.name, problem))? {
                    compare_rows(found, ended)?;
                }
            }
            Output::File { unfinished, file, format } => {
                file.sync_all().map_err(failed)?;
                check_rows(unfinished.path(), *format, ended)?;
            }
            Output::Full { part, .. } => {
                if let Some((path, file)) = part.take() {
                    file.sync_all().map_err(failed)?;
                    check_rows(&path, Format::Parquet, ended)?;
                }
            }
            // `PartitionWriter::finish` syncs and counts the files.
            Output::Partitioned { .. } => {}
        }
        Ok(())
    }

    /// Completes the export and moves it to the target. Returns the bytes on disk, without the manifest.
    ///
    /// # Errors
    /// `Write` or `Partition` if writing fails; `Exists`, `NotReplaced` or `Foreign` if another process created the
    /// target meanwhile; `Stream` if rows are missing.
    pub(super) fn finish(self, manifest: &v1::ExportManifest, parts: &[PartFile]) -> Result<u64, ExportError> {
        let mut byte_count = parts.iter().map(|part| part.byte_count).sum();
        let Self { target, output } = self;
        let failed = |problem| target.failed(problem);
        let unfinished = match output {
            Output::Stdout { .. } => return Ok(byte_count),
            Output::File { unfinished, .. } => unfinished,
            Output::Full { unfinished, .. } => {
                write_manifest(unfinished.path(), manifest, parts).map_err(failed)?;
                unfinished
            }
            Output::Partitioned { unfinished, writer } => {
                let PartitionTotals { row_count: found, byte_count: on_disk } = writer.finish()?;
                // The received bytes were an Arrow stream, so their number is not the size on disk.
                byte_count = on_disk;
                let expected = parts.iter().map(|part| part.row_count).sum();
                if found != expected {
                    return Err(StreamError::RowCount { what: "the dataset".to_owned(), expected, found }.into());
                }
                unfinished
            }
        };
        // Another process may have created the target meanwhile.
        target.check()?;
        unfinished.finish(&target.path).map_err(failed)?;
        Ok(byte_count)
    }
}

fn write_part(directory: &Path, part: &mut Option<(PathBuf, File)>, name: &str, bytes: &[u8]) -> io::Result<()> {
    if part.is_none() {
        let path = directory.join(name);
        let file = File::options().write(true).create_new(true).open(&path)?;
        *part = Some((path, file));
    }
    part.as_mut().map_or(Ok(()), |(_, file)| file.write_all(bytes))
}

fn check_rows(path: &Path, format: Format, ended: &PartFile) -> Result<(), ExportError> {
    compare_rows(count_rows(path, format).map_err(|problem| count_error(&ended.name, problem))?, ended)
}

fn compare_rows(found: u64, ended: &PartFile) -> Result<(), ExportError> {
    if found != ended.row_count {
        return Err(StreamError::RowCount { what: ended.name.clone(), expected: ended.row_count, found }.into());
    }
    Ok(())
}

fn count_error(part: &str, problem: CountError) -> ExportError {
    ExportError::Count { part: part.to_owned(), problem }
}

/// Writes the manifest as the last file and syncs the directory.
fn write_manifest(directory: &Path, manifest: &v1::ExportManifest, parts: &[PartFile]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(directory.join(MANIFEST_NAME))?;
    writeln!(file, "{:#}", manifest_json(manifest, parts))?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest of a full export with these parts.
    fn manifest(parts: &[&str]) -> String {
        let part = |name: &&str| format!(r#"{{"name":"{name}","row_count":0,"sha256":""}}"#);
        let parts = parts.iter().map(part).collect::<Vec<_>>().join(",");
        format!(r#"{{"schema_version":1,"sequence":1,"recorded_time":"","product_version":"","parts":[{parts}]}}"#)
    }

    /// Writes a file with the checksum trailer of silkrate.
    fn write_part(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"PAR1SILKSEAL\0\0\0\0\0\0\0\0PAR1").unwrap();
    }

    #[test]
    fn force_replaces_only_exports() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
        };
        let check = |name: &str, kind: &Kind, expect: &str| {
            let target = |force| Target { path: at(name), kind: kind.clone(), force };
            let found = |force| target(force).check().map_or_else(|error| error.to_string(), |()| "allowed".to_owned());
            assert!(found(true).contains(expect), "{name} {kind:?}: {}", found(true));
            let expect_unforced = if at(name).exists() { "exists; choose another name" } else { "allowed" };
            assert!(found(false).contains(expect_unforced), "{name} {kind:?}: {}", found(false));
        };
        let (file, partitioned) = (Kind::File(Format::Csv), Kind::Partitioned(vec![PartitionKey::Pair]));
        write("file", "x");
        fs::create_dir(at("empty")).unwrap();
        for kind in [&file, &Kind::Full, &partitioned] {
            check("absent", kind, "allowed");
        }
        check("file", &file, "allowed");
        check("empty", &file, "is not a regular file");
        check("file", &Kind::Full, "is not a directory");
        check("empty", &Kind::Full, "allowed");
        check("empty", &partitioned, "allowed");

        write("full/manifest.json", &manifest(&["runs.parquet"]));
        write("full/runs.parquet", "x");
        check("full", &Kind::Full, "allowed");
        check("full", &partitioned, "manifest.json is not part of a partitioned dataset");
        write("full/zz.ipynb", "x");
        check("full", &Kind::Full, "zz.ipynb is not part of a full export");
        // The manifest.json of a web project is not a manifest of an export.
        write("web/manifest.json", r#"{"name":"shop","parts":[]}"#);
        check("web", &Kind::Full, "manifest.json is not part of a full export");
        write("home/thesis.txt", "x");
        check("home", &Kind::Full, "thesis.txt is not part of a full export");
        write("nested/manifest.json", &manifest(&["runs.parquet"]));
        write("nested/runs.parquet/thesis.txt", "x");
        check("nested", &Kind::Full, "runs.parquet is not part of a full export");
    }

    #[test]
    fn force_replaces_only_partitioned_datasets_of_silkrate() {
        let root = tempfile::tempdir().unwrap();
        let check = |parts: &[&str], other: &str, expect: Option<&str>| {
            let path = root.path().join("rates");
            for part in parts {
                write_part(&path.join(part));
            }
            if !other.is_empty() {
                fs::create_dir_all(path.join(other).parent().unwrap()).unwrap();
                fs::write(path.join(other), "x").unwrap();
            }
            let target = Target { path: path.clone(), kind: Kind::Partitioned(vec![PartitionKey::Pair]), force: true };
            let checked = target.check().map_err(|error| error.to_string());
            match expect {
                None => assert_eq!(checked, Ok(()), "{parts:?}"),
                Some(foreign) => {
                    let error = checked.unwrap_err();
                    let expect = format!("{foreign} is not part of a partitioned dataset");
                    assert!(error.contains(&expect), "{parts:?}: {error}");
                }
            }
            fs::remove_dir_all(path).unwrap();
        };
        let (november, december) = ("pair=A/month=2025-11/part-0.parquet", "pair=A/month=2025-12/part-10.parquet");
        check(&["pair=A/part-0.parquet", "pair=B/part-1.parquet"], "", None);
        check(&[november, december, "pair=B/month=2025-12/part-0.parquet"], "", None);
        check(&["month=2025-12/source=cbu/pair=A/part-0.parquet"], "", None);
        check(&[november], "notes.txt", Some("notes.txt"));
        check(&[november], "pair=A/notes.txt", Some("pair=A/notes.txt"));
        check(&[november], "pair=A/month=2025-11/notes.txt", Some("month=2025-11/notes.txt"));
        check(&[november], ".git/config", Some(".git"));
        // Files of another program under a part name, and parts at the wrong depth.
        check(&[december], "pair=A/month=2025-12/part-0.parquet", Some("part-0.parquet"));
        check(&[november, "pair=A/part-0.parquet"], "", Some("pair=A/part-0.parquet"));
        check(&["part-0.parquet"], "", Some("part-0.parquet"));
        check(&["pair=A/part-00.parquet"], "", Some("part-00.parquet"));
        check(&["pair=A/data_0.parquet"], "", Some("data_0.parquet"));
        check(&["pair=A/part-0.parquet", "source=cbu/part-0.parquet"], "", Some("source=cbu"));
        check(&["pair=A/pair=B/part-0.parquet"], "", Some("pair=A/pair=B"));
        check(&["year=2025/part-0.parquet"], "", Some("year=2025"));
    }
}
