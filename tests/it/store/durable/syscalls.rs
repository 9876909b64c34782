//! Replays the system calls that strace recorded, and builds the files as a power cut may leave them.
//!
//! A write is durable after an fsync or fdatasync of its file has returned, if the write finished before that call
//! began. Names become durable in the order in which they were created, removed or renamed, at least up to the last
//! fsync of their directory. Everything else is lost or kept, per write or per sector, as [`Loss`] defines.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::store::durable::{Ack, Random};

const SECTOR_BYTES: usize = 512;

/// The system calls that [`Recording`] understands, for the strace option `-e trace=`.
pub(crate) const TRACED: &str = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,mkdir,\
    writev,pwritev,pwritev2,fallocate,renameat,renameat2,unlinkat,mkdirat,rmdir,truncate,creat,open,link,linkat";

/// An action of a process, between two lines of the strace log.
struct Event {
    begin: usize,
    end: usize,
    action: Action,
}

type FileId = usize;

enum Action {
    Write { file: FileId, offset: usize, bytes: Vec<u8> },
    Truncate { file: FileId, length: usize },
    Sync { file: FileId },
    SyncDirectory { path: PathBuf },
    MakeDirectory { path: PathBuf },
    Create { path: PathBuf, file: FileId },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    Acknowledge(Ack),
}

impl Action {
    /// Returns the directory whose entries this action changes.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::MakeDirectory { path } | Self::Create { path, .. } | Self::Unlink { path } => path.parent(),
            Self::Rename { from, .. } => from.parent(),
            Self::Write { .. }
            | Self::Truncate { .. }
            | Self::Sync { .. }
            | Self::SyncDirectory { .. }
            | Self::Acknowledge(_) => None,
        }
    }
}

/// All recorded actions of successive processes below one directory.
pub(crate) struct Recording {
    root: PathBuf,
    events: Vec<Event>,
    names: BTreeMap<PathBuf, FileId>,
    file_count: usize,
    line_count: usize,
}

/// What happens to writes that are not durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// All are lost.
    All,
    /// Each write is lost or kept at random.
    SomeWrites,
    /// Each sector is lost or kept at random.
    SomeSectors,
    /// All but a few sectors are kept.
    FewSectors,
    /// All but the oldest are kept.
    Oldest,
    /// All are kept, as after a kill.
    Nothing,
}

impl Loss {
    pub(crate) const ALL: [Self; 6] =
        [Self::All, Self::SomeWrites, Self::SomeSectors, Self::FewSectors, Self::Oldest, Self::Nothing];
}

impl Recording {
    /// Creates an empty recording of processes that use files below `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), events: Vec::new(), names: BTreeMap::new(), file_count: 0, line_count: 0 }
    }

    /// Adds the log of one more process, made by `strace -f -y -xx -e trace=`[`TRACED`].
    pub(crate) fn add(&mut self, log: &str) {
        let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
        let mut positions: HashMap<u64, usize> = HashMap::new();
        for line in log.lines() {
            let at = self.line_count;
            self.line_count += 1;
            let Some((process, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            if let Some(start) = rest.strip_suffix("<unfinished ...>") {
                unfinished.insert(process, (at, start));
            } else if let Some((_, end)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
                if let Some((begin, start)) = unfinished.remove(process) {
                    self.call(begin, at, &format!("{start}{end}"), &mut positions);
                }
            } else {
                self.call(at, at, rest, &mut positions);
            }
        }
        for (begin, start) in unfinished.into_values() {
            self.call(begin, usize::MAX, &format!("{start}) = ?"), &mut positions);
        }
        self.events.sort_by_key(|event| event.begin);
    }

    fn call(&mut self, begin: usize, end: usize, text: &str, positions: &mut HashMap<u64, usize>) {
        let Some((name, rest)) = text.split_once('(') else { return };
        let Some((arguments, result)) = rest.rsplit_once(") ") else { return };
        let result = result.trim_start_matches([' ', '=']);
        let arguments: Vec<&str> = arguments.split(", ").map(str::trim_end).collect();
        if result.starts_with('-') {
            return;
        }
        // A process that ended during a call may have completed it, or a part of it.
        let end = if result.starts_with('?') { usize::MAX } else { end };
        let push = |events: &mut Vec<Event>, action: Action| events.push(Event { begin, end, action });
        let descriptor = Descriptor::parse(arguments[0]);
        let file = descriptor.as_ref().and_then(|open| self.names.get(&open.path).copied());
        let path = |at: usize| -> Option<PathBuf> {
            let path = PathBuf::from(String::from_utf8(text_bytes(arguments.get(at)?)?).ok()?);
            path.starts_with(&self.root).then_some(path)
        };
        match (name, descriptor) {
            ("openat", _) => {
                let Some(path) = path(1) else { return };
                if let Some(opened) = Descriptor::parse(result) {
                    positions.insert(opened.number, 0);
                }
                match self.names.get(&path) {
                    Some(file) if arguments[2].contains("O_TRUNC") => {
                        push(&mut self.events, Action::Truncate { file: *file, length: 0 });
                    }
                    None if arguments[2].contains("O_CREAT") => {
                        let file = self.file_count;
                        self.file_count += 1;
                        self.names.insert(path.clone(), file);
                        push(&mut self.events, Action::Create { path, file });
                    }
                    _ => {}
                }
            }
            ("write", Some(open)) if open.number == 1 => {
                let line = text_bytes(arguments[1]).and_then(|bytes| String::from_utf8(bytes).ok());
                if let Some(ack) = line.as_deref().and_then(Ack::parse) {
                    push(&mut self.events, Action::Acknowledge(ack));
                }
            }
            ("write" | "pwrite64", Some(open)) => {
                let (Some(file), Some(bytes)) = (file, text_bytes(arguments[1])) else { return };
                let position = positions.entry(open.number).or_default();
                let offset = match arguments.get(3) {
                    Some(offset) => offset.parse().unwrap(),
                    None => std::mem::replace(position, *position + bytes.len()),
                };
                push(&mut self.events, Action::Write { file, offset, bytes });
            }
            ("ftruncate", Some(_)) => {
                let Some(file) = file else { return };
                push(&mut self.events, Action::Truncate { file, length: arguments[1].parse().unwrap() });
            }
            ("fsync" | "fdatasync", Some(open)) => match file {
                Some(file) => push(&mut self.events, Action::Sync { file }),
                None => push(&mut self.events, Action::SyncDirectory { path: open.path }),
            },
            ("mkdir", _) => {
                let Some(path) = path(0) else { return };
                push(&mut self.events, Action::MakeDirectory { path });
            }
            ("rename", _) => {
                let (Some(from), Some(to)) = (path(0), path(1)) else { return };
                rename(&mut self.names, &from, &to);
                push(&mut self.events, Action::Rename { from, to });
            }
            ("unlink", _) => {
                let Some(path) = path(0) else { return };
                self.names.remove(&path);
                push(&mut self.events, Action::Unlink { path });
            }
            (other, open) => {
                let is_below_root = open.is_some_and(|open| open.path.starts_with(&self.root)) || path(0).is_some();
                assert!(!is_below_root, "this test does not understand the system call {other}");
            }
        }
    }

    /// Returns the number of system calls that changed or synced something.
    pub(crate) fn event_count(&self) -> usize {
        self.events.len()
    }

    /// Returns the number of bytes written.
    pub(crate) fn byte_count(&self) -> usize {
        let bytes = |event: &Event| if let Action::Write { bytes, .. } = &event.action { bytes.len() } else { 0 };
        self.events.iter().map(bytes).sum()
    }

    /// Picks a random point for the power cut: often just before or after a sync or an acknowledgement.
    pub(crate) fn cut(&self, random: &mut Random) -> usize {
        let event = &self.events[random.below(self.events.len() as u64) as usize];
        match (&event.action, random.below(2)) {
            (Action::Sync { .. } | Action::SyncDirectory { .. } | Action::Acknowledge(_), 0) => {
                event.begin + random.below(3) as usize
            }
            _ => random.below(self.line_count as u64) as usize,
        }
    }

    /// Returns the acknowledgements printed before the power cut.
    pub(crate) fn acks_before(&self, cut: usize) -> Vec<Ack> {
        let ack =
            |event: &Event| if let Action::Acknowledge(ack) = &event.action { Some((event.begin, *ack)) } else { None };
        self.events.iter().filter_map(ack).filter(|(begin, _)| *begin < cut).map(|(_, ack)| ack).collect()
    }

    /// Writes below `image` the files that the power cut may have left.
    pub(crate) fn restore(&self, cut: usize, loss: Loss, random: &mut Random, image: &Path) {
        let before = || self.events.iter().filter(|event| event.begin < cut);
        let mut synced_from = vec![0; self.file_count];
        for event in before().filter(|event| event.end < cut) {
            if let Action::Sync { file } = event.action {
                synced_from[file] = synced_from[file].max(event.begin);
            }
        }
        let mut contents = vec![Vec::new(); self.file_count];
        let mut oldest = true;
        for event in before() {
            let durable = |file: FileId| event.end < synced_from[file];
            match &event.action {
                Action::Write { file, offset, bytes } if durable(*file) => {
                    put(&mut contents[*file], *offset, bytes, |_| true);
                }
                Action::Write { file, offset, bytes } => {
                    let first = std::mem::take(&mut oldest);
                    let whole = random.below(2) == 0;
                    put(&mut contents[*file], *offset, bytes, |_| match loss {
                        Loss::All => false,
                        Loss::SomeWrites => whole,
                        Loss::SomeSectors => random.below(2) == 0,
                        Loss::FewSectors => random.below(16) > 0,
                        Loss::Oldest => !first,
                        Loss::Nothing => true,
                    });
                }
                Action::Truncate { file, length }
                    if durable(*file) || matches!(loss, Loss::Nothing) || random.below(2) == 0 =>
                {
                    contents[*file].resize(*length, 0);
                }
                Action::Truncate { .. }
                | Action::Sync { .. }
                | Action::SyncDirectory { .. }
                | Action::MakeDirectory { .. }
                | Action::Create { .. }
                | Action::Rename { .. }
                | Action::Unlink { .. }
                | Action::Acknowledge(_) => {}
            }
        }
        for (path, file) in self.names_at(cut, loss, random) {
            let path = image.join(path.strip_prefix(&self.root).unwrap());
            match file {
                None => fs::create_dir(path).unwrap(),
                Some(file) => fs::write(path, &contents[file]).unwrap(),
            }
        }
    }

    /// Returns the directories (`None`) and files that exist after the cut.
    fn names_at(&self, cut: usize, loss: Loss, random: &mut Random) -> BTreeMap<PathBuf, Option<FileId>> {
        let changes: Vec<&Event> =
            self.events.iter().filter(|event| event.begin < cut && event.action.directory().is_some()).collect();
        let mut durable = 0;
        for event in self.events.iter().filter(|event| event.end < cut) {
            if let Action::SyncDirectory { path } = &event.action {
                let covered = |change: &&Event| change.end < event.begin && change.action.directory() == Some(path);
                let count = changes.iter().rposition(covered).map_or(0, |last| last + 1);
                durable = durable.max(count);
            }
        }
        let open = (changes.len() - durable) as u64;
        let count = match loss {
            Loss::All => durable,
            Loss::Nothing => changes.len(),
            Loss::SomeWrites | Loss::SomeSectors | Loss::FewSectors | Loss::Oldest => {
                durable + random.below(open + 1) as usize
            }
        };
        let mut names: BTreeMap<PathBuf, Option<FileId>> = BTreeMap::new();
        for change in &changes[..count] {
            match &change.action {
                Action::MakeDirectory { path } => drop(names.insert(path.clone(), None)),
                Action::Create { path, file } => drop(names.insert(path.clone(), Some(*file))),
                Action::Unlink { path } => drop(names.remove(path)),
                Action::Rename { from, to } => rename(&mut names, from, to),
                Action::Write { .. }
                | Action::Truncate { .. }
                | Action::Sync { .. }
                | Action::SyncDirectory { .. }
                | Action::Acknowledge(_) => {}
            }
        }
        names
    }
}

/// Renames a file, or a directory with all its content.
fn rename<V>(names: &mut BTreeMap<PathBuf, V>, from: &Path, to: &Path) {
    for (path, value) in std::mem::take(names) {
        let path = match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path,
        };
        names.insert(path, value);
    }
}

/// Writes the sectors of `bytes` that `keep` selects.
fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8], mut keep: impl FnMut(usize) -> bool) {
    let mut at = 0;
    while at < bytes.len() {
        let sector_end = (offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
        let end = bytes.len().min(sector_end - offset);
        if keep(at) {
            if content.len() < offset + end {
                content.resize(offset + end, 0);
            }
            content[offset + at..offset + end].copy_from_slice(&bytes[at..end]);
        }
        at = end;
    }
}

/// A file descriptor in the format of the strace option `-y`: `4</path>`.
struct Descriptor {
    number: u64,
    path: PathBuf,
}

impl Descriptor {
    fn parse(text: &str) -> Option<Self> {
        let (number, path) = text.split_once('<')?;
        let path = path.split_once('>')?.0;
        Some(Self { number: number.parse().ok()?, path: String::from_utf8(unescape(path)?).ok()?.into() })
    }
}

/// Decodes a complete string of the form `"\x2f..."`.
fn text_bytes(text: &str) -> Option<Vec<u8>> {
    unescape(text.strip_prefix('"')?.strip_suffix('"')?)
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |piece: &[u8]| match piece {
        [b'\\', b'x', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(4).map(byte).collect()
}
