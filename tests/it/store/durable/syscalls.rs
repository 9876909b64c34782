//! What a process did to its files, as strace saw it, and what a power cut may have left of that.
//!
//! What is durable: writes that were over before an fsync or fdatasync of their file began, once that
//! has returned. Names are durable in the order in which they were made, removed or changed, at least
//! up to the last fsync of their directory. All else is lost or not, write by write or sector by
//! sector, as [`Loss`] says.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::store::durable::{Ack, Random};

const SECTOR_BYTES: usize = 512;

/// The system calls that [`Recording`] understands, for strace's `-e trace=`.
pub(crate) const TRACED: &str = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,mkdir,\
    writev,pwritev,pwritev2,fallocate,renameat,renameat2,unlinkat,mkdirat,rmdir,truncate,creat,open,link,linkat";

/// Something that a process did, from one line of the log to another.
struct Event {
    begin: usize,
    end: usize,
    act: Act,
}

type FileId = usize;

enum Act {
    Write { file: FileId, offset: usize, bytes: Vec<u8> },
    Truncate { file: FileId, length: usize },
    Sync { file: FileId },
    SyncDirectory { path: PathBuf },
    MakeDirectory { path: PathBuf },
    Create { path: PathBuf, file: FileId },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    Tell(Ack),
}

impl Act {
    /// The directory whose entries this changes.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::MakeDirectory { path } | Self::Create { path, .. } | Self::Unlink { path } => path.parent(),
            Self::Rename { from, .. } => from.parent(),
            Self::Write { .. }
            | Self::Truncate { .. }
            | Self::Sync { .. }
            | Self::SyncDirectory { .. }
            | Self::Tell(_) => None,
        }
    }
}

/// Everything that some processes, one after the other, did below one directory.
pub(crate) struct Recording {
    root: PathBuf,
    events: Vec<Event>,
    names: BTreeMap<PathBuf, FileId>,
    file_count: usize,
    line_count: usize,
}

/// What becomes of writes that nothing had made durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// None reached the disk.
    All,
    /// Each did or did not.
    SomeWrites,
    /// Each sector did or did not.
    SomeSectors,
    /// All but a few sectors did.
    FewSectors,
    /// All but the oldest did.
    Oldest,
    /// All did: what a kill leaves.
    Nothing,
}

impl Loss {
    pub(crate) const ALL: [Self; 6] =
        [Self::All, Self::SomeWrites, Self::SomeSectors, Self::FewSectors, Self::Oldest, Self::Nothing];
}

impl Recording {
    /// Of processes that work below `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), events: Vec::new(), names: BTreeMap::new(), file_count: 0, line_count: 0 }
    }

    /// Takes in the log of one more process, made by `strace -f -y -xx -e trace=`[`TRACED`].
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
        // A process that ended amid a call may have made it, or a part of it.
        let end = if result.starts_with('?') { usize::MAX } else { end };
        let push = |events: &mut Vec<Event>, act: Act| events.push(Event { begin, end, act });
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
                        push(&mut self.events, Act::Truncate { file: *file, length: 0 });
                    }
                    None if arguments[2].contains("O_CREAT") => {
                        let file = self.file_count;
                        self.file_count += 1;
                        self.names.insert(path.clone(), file);
                        push(&mut self.events, Act::Create { path, file });
                    }
                    _ => {}
                }
            }
            ("write", Some(open)) if open.number == 1 => {
                let line = text_bytes(arguments[1]).and_then(|bytes| String::from_utf8(bytes).ok());
                if let Some(ack) = line.as_deref().and_then(Ack::parse) {
                    push(&mut self.events, Act::Tell(ack));
                }
            }
            ("write" | "pwrite64", Some(open)) => {
                let (Some(file), Some(bytes)) = (file, text_bytes(arguments[1])) else { return };
                let position = positions.entry(open.number).or_default();
                let offset = match arguments.get(3) {
                    Some(offset) => offset.parse().unwrap(),
                    None => std::mem::replace(position, *position + bytes.len()),
                };
                push(&mut self.events, Act::Write { file, offset, bytes });
            }
            ("ftruncate", Some(_)) => {
                let Some(file) = file else { return };
                push(&mut self.events, Act::Truncate { file, length: arguments[1].parse().unwrap() });
            }
            ("fsync" | "fdatasync", Some(open)) => match file {
                Some(file) => push(&mut self.events, Act::Sync { file }),
                None => push(&mut self.events, Act::SyncDirectory { path: open.path }),
            },
            ("mkdir", _) => {
                let Some(path) = path(0) else { return };
                push(&mut self.events, Act::MakeDirectory { path });
            }
            ("rename", _) => {
                let (Some(from), Some(to)) = (path(0), path(1)) else { return };
                rename(&mut self.names, &from, &to);
                push(&mut self.events, Act::Rename { from, to });
            }
            ("unlink", _) => {
                let Some(path) = path(0) else { return };
                self.names.remove(&path);
                push(&mut self.events, Act::Unlink { path });
            }
            (other, open) => {
                let ours = open.is_some_and(|open| open.path.starts_with(&self.root)) || path(0).is_some();
                assert!(!ours, "this test does not know what {other} does");
            }
        }
    }

    /// System calls that changed or synced something.
    pub(crate) fn event_count(&self) -> usize {
        self.events.len()
    }

    /// Bytes written.
    pub(crate) fn byte_count(&self) -> usize {
        let bytes = |event: &Event| if let Act::Write { bytes, .. } = &event.act { bytes.len() } else { 0 };
        self.events.iter().map(bytes).sum()
    }

    /// A moment just before or after something was synced or told, now and then; else any.
    pub(crate) fn cut(&self, random: &mut Random) -> usize {
        let event = &self.events[random.below(self.events.len() as u64) as usize];
        match (&event.act, random.below(2)) {
            (Act::Sync { .. } | Act::SyncDirectory { .. } | Act::Tell(_), 0) => event.begin + random.below(3) as usize,
            _ => random.below(self.line_count as u64) as usize,
        }
    }

    /// What had been told before the power was cut.
    pub(crate) fn told_before(&self, cut: usize) -> Vec<Ack> {
        let told = |event: &Event| if let Act::Tell(ack) = &event.act { Some((event.begin, *ack)) } else { None };
        self.events.iter().filter_map(told).filter(|(begin, _)| *begin < cut).map(|(_, ack)| ack).collect()
    }

    /// Puts what the power cut may have left below `image`.
    pub(crate) fn restore(&self, cut: usize, loss: Loss, random: &mut Random, image: &Path) {
        let before = || self.events.iter().filter(|event| event.begin < cut);
        let mut synced_from = vec![0; self.file_count];
        for event in before().filter(|event| event.end < cut) {
            if let Act::Sync { file } = event.act {
                synced_from[file] = synced_from[file].max(event.begin);
            }
        }
        let mut contents = vec![Vec::new(); self.file_count];
        let mut oldest = true;
        for event in before() {
            let durable = |file: FileId| event.end < synced_from[file];
            match &event.act {
                Act::Write { file, offset, bytes } if durable(*file) => {
                    put(&mut contents[*file], *offset, bytes, |_| true);
                }
                Act::Write { file, offset, bytes } => {
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
                Act::Truncate { file, length }
                    if durable(*file) || matches!(loss, Loss::Nothing) || random.below(2) == 0 =>
                {
                    contents[*file].resize(*length, 0);
                }
                Act::Truncate { .. }
                | Act::Sync { .. }
                | Act::SyncDirectory { .. }
                | Act::MakeDirectory { .. }
                | Act::Create { .. }
                | Act::Rename { .. }
                | Act::Unlink { .. }
                | Act::Tell(_) => {}
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

    /// Directories (`None`) and files.
    fn names_at(&self, cut: usize, loss: Loss, random: &mut Random) -> BTreeMap<PathBuf, Option<FileId>> {
        let changes: Vec<&Event> =
            self.events.iter().filter(|event| event.begin < cut && event.act.directory().is_some()).collect();
        let mut durable = 0;
        for event in self.events.iter().filter(|event| event.end < cut) {
            if let Act::SyncDirectory { path } = &event.act {
                let covered = |change: &&Event| change.end < event.begin && change.act.directory() == Some(path);
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
            match &change.act {
                Act::MakeDirectory { path } => drop(names.insert(path.clone(), None)),
                Act::Create { path, file } => drop(names.insert(path.clone(), Some(*file))),
                Act::Unlink { path } => drop(names.remove(path)),
                Act::Rename { from, to } => rename(&mut names, from, to),
                Act::Write { .. }
                | Act::Truncate { .. }
                | Act::Sync { .. }
                | Act::SyncDirectory { .. }
                | Act::Tell(_) => {}
            }
        }
        names
    }
}

/// Moves a file, or a directory with all that is in it.
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

/// Writes the sectors of `bytes` that are kept.
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

/// A file descriptor as `-y` shows it: `4</path>`.
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

/// The bytes of `"\x2f..."`; nothing may be left out.
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
