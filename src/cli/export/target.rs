//! Where an export goes, and what may be replaced by it.
//!
//! **Invariant**: nothing stands under the target's name before all of it is there, checked and durable.

use std::fs::{self, File};
use std::io::{self, Stdout, Write as _};
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;

use super::error::ExportError;
use crate::cli::CliError;
use crate::cli::unfinished::Unfinished;
use crate::export::{
    CountError, Format, MANIFEST_NAME, PartFile, PartitionKey, PartitionWriter, StreamCounter, StreamError, count_rows,
    manifest_json,
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
    /// `Exists`, or `NotReplaced` where something else stands there than an export of this kind would be.
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
            Kind::Full if !is_full(&self.path).map_err(|problem| self.failed(problem))? => {
                refuse("is a directory without the manifest of an export, and is not replaced by one")
            }
            Kind::Tree(_) if !is_tree(&self.path).map_err(|problem| self.failed(problem))? => {
                refuse("holds other things than directories like pair=..., and is not replaced by a tree")
            }
            Kind::Stdout(_) | Kind::File(_) | Kind::Full | Kind::Tree(_) => Ok(()),
        }
    }

    pub(super) fn failed(&self, problem: io::Error) -> ExportError {
        ExportError::Write { path: self.path.clone(), problem }
    }

    /// Begins to write beside the target.
    ///
    /// # Errors
    /// `Write`.
    pub(super) fn begin(self) -> Result<Writing, ExportError> {
        let failed = |problem| self.failed(problem);
        let place = match &self.kind {
            Kind::Stdout(format) => Place::Stdout { out: io::stdout(), counter: StreamCounter::new(*format) },
            Kind::File(format) => {
                let (unfinished, file) = Unfinished::file(&self.path).map_err(failed)?;
                Place::File { unfinished, file, format: *format }
            }
            Kind::Full => Place::Full { unfinished: Unfinished::directory(&self.path).map_err(failed)?, part: None },
            Kind::Tree(keys) => {
                let unfinished = Unfinished::directory(&self.path).map_err(failed)?;
                let writer = PartitionWriter::new(unfinished.path(), keys.clone());
                Place::Tree { unfinished, writer: Box::new(writer) }
            }
        };
        Ok(Writing { target: self, place })
    }
}

/// An empty directory, or one with our manifest.
fn is_full(path: &Path) -> io::Result<bool> {
    Ok(path.join(MANIFEST_NAME).is_file() || fs::read_dir(path)?.next().is_none())
}

/// Whether all that is in it, if anything, are directories that a tree could have.
fn is_tree(path: &Path) -> io::Result<bool> {
    const KEYS: [PartitionKey; 3] = [PartitionKey::Pair, PartitionKey::Source, PartitionKey::Month];
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let key = name.to_str().and_then(|name| name.split_once('=')).map(|(key, _)| key);
        if !entry.file_type()?.is_dir() || !KEYS.iter().any(|known| Some(known.name()) == key) {
            return Ok(false);
        }
    }
    Ok(true)
}

enum Place {
    Stdout { out: Stdout, counter: StreamCounter },
    File { unfinished: Unfinished, file: File, format: Format },
    Full { unfinished: Unfinished, part: Option<(PathBuf, File)> },
    Tree { unfinished: Unfinished, writer: Box<PartitionWriter> },
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
    /// `Write` and `Tree`; of standard output, `Output`.
    pub(super) fn write(&mut self, name: &str, bytes: Bytes) -> Result<(), CliError> {
        let written = match &mut self.place {
            Place::Stdout { out, counter } => {
                out.write_all(&bytes)?;
                return Ok(counter.add(bytes).map_err(|problem| uncounted(name, problem))?);
            }
            Place::Tree { writer, .. } => return Ok(writer.write(bytes).map_err(ExportError::from)?),
            Place::File { file, .. } => file.write_all(&bytes),
            Place::Full { unfinished, part } => write_part(unfinished.path(), part, name, &bytes),
        };
        Ok(written.map_err(|problem| self.target.failed(problem))?)
    }

    /// The present part is whole: makes it durable and reads its rows back.
    ///
    /// # Errors
    /// `Write`, `Count`, and `Stream` where rows are missing.
    pub(super) fn end_part(&mut self, ended: &PartFile) -> Result<(), CliError> {
        let failed = |problem| self.target.failed(problem);
        match &mut self.place {
            Place::Stdout { out, counter } => {
                out.flush()?;
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

    /// All parts are whole: gives the export its name.
    ///
    /// # Errors
    /// `Write`, `Tree`, `Exists` where somebody was faster, and `Stream` where rows are missing.
    pub(super) fn finish(self, manifest: &v1::ExportManifest, parts: &[PartFile]) -> Result<(), ExportError> {
        let Self { target, place } = self;
        let failed = |problem| target.failed(problem);
        let unfinished = match place {
            Place::Stdout { .. } => return Ok(()),
            Place::File { unfinished, .. } => unfinished,
            Place::Full { unfinished, .. } => {
                write_manifest(unfinished.path(), manifest, parts).map_err(failed)?;
                unfinished
            }
            Place::Tree { unfinished, writer } => {
                let found = writer.finish()?;
                let said = parts.iter().map(|part| part.row_count).sum();
                if found != said {
                    return Err(StreamError::RowCount { what: "the tree".to_owned(), said, found }.into());
                }
                unfinished
            }
        };
        // Somebody may have put something there meanwhile.
        target.check()?;
        unfinished.finish(&target.path).map_err(failed)
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

    #[test]
    fn force_replaces_exports_only() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), "x").unwrap();
        for directory in ["empty", "full", "tree/pair=KGS%2FUSD", "home/documents", "mixed/month=2025-12"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        fs::write(at("full").join(MANIFEST_NAME), "{}").unwrap();
        fs::write(at("mixed").join("thesis.txt"), "x").unwrap();
        let check = |name: &str, kind: &Kind, expect: &str| {
            let target = |force| Target { path: at(name), kind: kind.clone(), force };
            let said = |force| target(force).check().map_or_else(|error| error.to_string(), |()| "goes".to_owned());
            assert!(said(true).contains(expect), "{name} {kind:?}: {}", said(true));
            let expect_unforced = if at(name).exists() { "exists; choose another name" } else { "goes" };
            assert!(said(false).contains(expect_unforced), "{name} {kind:?}: {}", said(false));
        };
        let (file, tree) = (Kind::File(Format::Csv), Kind::Tree(vec![PartitionKey::Pair]));
        for kind in [&file, &Kind::Full, &tree] {
            check("absent", kind, "goes");
        }
        check("file", &file, "goes");
        check("full", &file, "no regular file");
        check("full", &Kind::Full, "goes");
        check("empty", &Kind::Full, "goes");
        check("home", &Kind::Full, "without the manifest");
        check("file", &Kind::Full, "is no directory");
        check("tree", &tree, "goes");
        check("empty", &tree, "goes");
        check("home", &tree, "other things");
        check("mixed", &tree, "other things");
        check("full", &tree, "other things");
    }
}
