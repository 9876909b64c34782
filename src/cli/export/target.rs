//! Where an export goes, and what may be replaced by it.
//!
//! **Invariant**: nothing stands under the target's name before all of it is there, checked and durable.

use std::fs::{self, File};
use std::io::{self, Stdout, Write as _};
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;

use super::error::ExportError;
use super::ownership::{foreign_in_full, foreign_in_tree};
use crate::cli::atomic_write::AtomicWrite;
use crate::export::{
    CountError, Format, MANIFEST_NAME, PartFile, PartitionKey, PartitionTotals, PartitionWriter, StreamCounter,
    StreamError, count_rows, manifest_json,
};
use crate::proto::v1;

/// What is to stand at the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Nothing: the one part goes to standard output.
    Stdout(Format),
    /// The one part.
    File(Format),
    /// A directory with all parts and the manifest.
    Full,
    /// A directory of directories named after these.
    Tree(Vec<PartitionKey>),
}

/// A target, and whether what is there may be replaced.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) force: bool,
}

impl Target {
    /// Whether the export may stand there.
    ///
    /// # Errors
    /// `Exists`; `NotReplaced` or `Foreign` where something else stands there than an export of this kind would be.
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
            Kind::File(_) if !found.is_file() => refuse("is no regular file, and is not replaced by one"),
            Kind::Full | Kind::Tree(_) if !found.is_dir() => refuse("is no directory, and is not replaced by one"),
            Kind::Full => self.refuse_foreign(foreign_in_full, "a full export"),
            Kind::Tree(_) => self.refuse_foreign(foreign_in_tree, "a tree of partitions"),
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

    /// Begins to write beside the target what a manifest announces.
    ///
    /// # Errors
    /// `Write`.
    pub(super) fn begin(self, manifest: &v1::ExportManifest) -> Result<Writing, ExportError> {
        let failed = |problem| self.failed(problem);
        let place = match &self.kind {
            Kind::Stdout(format) => Place::Stdout { out: io::stdout(), counter: StreamCounter::new(*format) },
            Kind::File(format) => {
                let (unfinished, file) = AtomicWrite::file(&self.path).map_err(failed)?;
                Place::File { unfinished, file, format: *format }
            }
            Kind::Full => Place::Full { unfinished: AtomicWrite::directory(&self.path).map_err(failed)?, part: None },
            Kind::Tree(keys) => {
                let unfinished = AtomicWrite::directory(&self.path).map_err(failed)?;
                let writer = PartitionWriter::new(unfinished.path(), keys.clone(), manifest);
                Place::Tree { unfinished, writer: Box::new(writer) }
            }
        };
        Ok(Writing { target: self, place })
    }
}

enum Place {
    Stdout { out: Stdout, counter: StreamCounter },
    File { unfinished: AtomicWrite, file: File, format: Format },
    Full { unfinished: AtomicWrite, part: Option<(PathBuf, File)> },
    Tree { unfinished: AtomicWrite, writer: Box<PartitionWriter> },
}

/// An export on its way to its target; dropped, it leaves nothing.
pub(super) struct Writing {
    target: Target,
    place: Place,
}

impl Writing {
    /// Takes bytes of the part `name`.
    ///
    /// # Errors
    /// `Write` and `Tree`; of standard output, `Standard` and `Count`.
    pub(super) fn write(&mut self, name: &str, bytes: &Bytes) -> Result<(), ExportError> {
        let written = match &mut self.place {
            Place::Stdout { out, counter } => {
                out.write_all(bytes).map_err(ExportError::Standard)?;
                return counter.add(bytes).map_err(|problem| uncounted(name, problem));
            }
            Place::Tree { writer, .. } => return Ok(writer.write(bytes)?),
            Place::File { file, .. } => file.write_all(bytes),
            Place::Full { unfinished, part } => write_part(unfinished.path(), part, name, bytes),
        };
        written.map_err(|problem| self.target.failed(problem))
    }

    /// The present part is whole: makes it durable and reads its rows back.
    ///
    /// # Errors
    /// `Write`, `Count`, and `Stream` where rows are missing.
    pub(super) fn end_part(&mut self, ended: &PartFile) -> Result<(), ExportError> {
        let failed = |problem| self.target.failed(problem);
        match &mut self.place {
            Place::Stdout { out, counter } => {
                out.flush().map_err(ExportError::Standard)?;
                if let Some(found) = counter.finish().map_err(|problem| uncounted(&ended.name, problem))? {
                    compare_rows(found, ended)?;
                }
            }
            Place::File { unfinished, file, format } => {
                file.sync_all().map_err(failed)?;
                check_rows(unfinished.path(), *format, ended)?;
            }
            Place::Full { part, .. } => {
                if let Some((path, file)) = part.take() {
                    file.sync_all().map_err(failed)?;
                    check_rows(&path, Format::Parquet, ended)?;
                }
            }
            // Its files are made durable and counted when it ends.
            Place::Tree { .. } => {}
        }
        Ok(())
    }

    /// All parts are whole: gives the export its name. Says how many bytes of them are on disk.
    ///
    /// # Errors
    /// `Write`, `Tree`, `Exists` where somebody was faster, and `Stream` where rows are missing.
    pub(super) fn finish(self, manifest: &v1::ExportManifest, parts: &[PartFile]) -> Result<u64, ExportError> {
        let mut byte_count = parts.iter().map(|part| part.byte_count).sum();
        let Self { target, place } = self;
        let failed = |problem| target.failed(problem);
        let unfinished = match place {
            Place::Stdout { .. } => return Ok(byte_count),
            Place::File { unfinished, .. } => unfinished,
            Place::Full { unfinished, .. } => {
                write_manifest(unfinished.path(), manifest, parts).map_err(failed)?;
                unfinished
            }
            Place::Tree { unfinished, writer } => {
                let PartitionTotals { row_count: found, byte_count: on_disk } = writer.finish()?;
                // What came was a stream of another format.
                byte_count = on_disk;
                let said = parts.iter().map(|part| part.row_count).sum();
                if found != said {
                    return Err(StreamError::RowCount { what: "the tree".to_owned(), said, found }.into());
                }
                unfinished
            }
        };
        // Somebody may have put something there meanwhile.
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
    compare_rows(count_rows(path, format).map_err(|problem| uncounted(&ended.name, problem))?, ended)
}

fn compare_rows(found: u64, ended: &PartFile) -> Result<(), ExportError> {
    if found != ended.row_count {
        return Err(StreamError::RowCount { what: ended.name.clone(), said: ended.row_count, found }.into());
    }
    Ok(())
}

fn uncounted(part: &str, problem: CountError) -> ExportError {
    ExportError::Count { part: part.to_owned(), problem }
}

/// The last file of the directory, which is durable then but for its name.
fn write_manifest(directory: &Path, manifest: &v1::ExportManifest, parts: &[PartFile]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(directory.join(MANIFEST_NAME))?;
    writeln!(file, "{:#}", manifest_json(manifest, parts))?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest of a full export of these parts.
    fn manifest(parts: &[&str]) -> String {
        let part = |name: &&str| format!(r#"{{"name":"{name}","row_count":0,"sha256":""}}"#);
        let parts = parts.iter().map(part).collect::<Vec<_>>().join(",");
        format!(r#"{{"schema_version":1,"sequence":1,"recorded_time":"","product_version":"","parts":[{parts}]}}"#)
    }

    /// A file that bears the seal of ours.
    fn write_part(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"PAR1SILKSEAL\0\0\0\0\0\0\0\0PAR1").unwrap();
    }

    #[test]
    fn force_replaces_exports_only() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
        };
        let check = |name: &str, kind: &Kind, expect: &str| {
            let target = |force| Target { path: at(name), kind: kind.clone(), force };
            let said = |force| target(force).check().map_or_else(|error| error.to_string(), |()| "goes".to_owned());
            assert!(said(true).contains(expect), "{name} {kind:?}: {}", said(true));
            let expect_unforced = if at(name).exists() { "exists; choose another name" } else { "goes" };
            assert!(said(false).contains(expect_unforced), "{name} {kind:?}: {}", said(false));
        };
        let (file, tree) = (Kind::File(Format::Csv), Kind::Tree(vec![PartitionKey::Pair]));
        write("file", "x");
        fs::create_dir(at("empty")).unwrap();
        for kind in [&file, &Kind::Full, &tree] {
            check("absent", kind, "goes");
        }
        check("file", &file, "goes");
        check("empty", &file, "no regular file");
        check("file", &Kind::Full, "is no directory");
        check("empty", &Kind::Full, "goes");
        check("empty", &tree, "goes");

        write("full/manifest.json", &manifest(&["runs.parquet"]));
        write("full/runs.parquet", "x");
        check("full", &Kind::Full, "goes");
        check("full", &tree, "manifest.json is not of a tree of partitions");
        write("full/zz.ipynb", "x");
        check("full", &Kind::Full, "zz.ipynb is not of a full export");
        // A web project has a manifest.json too.
        write("web/manifest.json", r#"{"name":"shop","parts":[]}"#);
        check("web", &Kind::Full, "manifest.json is not of a full export");
        write("home/thesis.txt", "x");
        check("home", &Kind::Full, "thesis.txt is not of a full export");
        write("nested/manifest.json", &manifest(&["runs.parquet"]));
        write("nested/runs.parquet/thesis.txt", "x");
        check("nested", &Kind::Full, "runs.parquet is not of a full export");
    }

    #[test]
    fn force_replaces_trees_of_ours_only() {
        let root = tempfile::tempdir().unwrap();
        let check = |parts: &[&str], other: &str, expect: Option<&str>| {
            let path = root.path().join("tree");
            for part in parts {
                write_part(&path.join(part));
            }
            if !other.is_empty() {
                fs::create_dir_all(path.join(other).parent().unwrap()).unwrap();
                fs::write(path.join(other), "x").unwrap();
            }
            let target = Target { path: path.clone(), kind: Kind::Tree(vec![PartitionKey::Pair]), force: true };
            let said = target.check().map_err(|error| error.to_string());
            match expect {
                None => assert_eq!(said, Ok(()), "{parts:?}"),
                Some(foreign) => {
                    let said = said.unwrap_err();
                    assert!(said.contains(&format!("{foreign} is not of a tree")), "{parts:?}: {said}");
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
        // Files of another program under the very name, and in the wrong place.
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
