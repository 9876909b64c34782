//! Writing a backup: packs as blocks arrive, then the records, and the manifest last.
//!
//! **Invariants**:
//!
//! - Each block matches the checksums of its index entry before it is written.
//! - The manifest is written after all objects that it names, and only if all of them are still there.

use std::collections::BTreeMap;
use std::ops::Range;

use tokio::task::spawn_blocking;

use super::destination::Destination;
use super::error::BackupError;
use super::manifest::{FORMAT, Manifest, ObjectRef, PackRef, sha256};
use super::messages::BASES_MAX;
use super::names::{self, ObjectName, StoreId};
use super::pack::{PackBuilder, kept_packs};
use super::produce::{Base, End, Header, Piece, RawBlock};
use crate::domain::Timestamp;
use crate::store::{Commit, IndexedBlock, RecordSet};

/// zstd level of the records. They are small, so the level hardly matters.
const RECORDS_LEVEL: i32 = 3;

/// The newest backup of a store, and the packs of it that a new backup names again.
struct KnownBase {
    manifest: Manifest,
    packs: Vec<PackRef>,
}

/// A backup that is being written. If the stream of pieces breaks, [`Writer::resume`] keeps what was written, and a new stream
/// continues. If the writer is dropped before [`Writer::finish`], the objects that it wrote are not part of
/// any backup.
pub struct Writer {
    destination: Destination,
    taken_time: Timestamp,
    bases: Vec<KnownBase>,
    /// The packs that earlier streams of this backup wrote, and those that they named again.
    resumed: Option<Resumed>,
    state: State,
    sent_bytes: u64,
    sent_blocks: u64,
    /// Blocks of the present stream.
    stream_blocks: u64,
}

/// What broken streams of a backup left: as a base for the next stream, it is the backup of their commit without a manifest.
struct Resumed {
    store: StoreId,
    commit: Commit,
    base_sequence: Option<u64>,
    packs: Vec<PackRef>,
}

enum State {
    /// Nothing has arrived.
    Begin,
    /// The header has arrived, and a part of the records.
    Records { header: Header, bytes: Vec<u8> },
    /// All records have arrived, and some blocks.
    Blocks(Box<Receiving>),
    /// The end has arrived.
    End(Box<Receiving>),
}

struct Receiving {
    header: Header,
    record_bytes: Vec<u8>,
    records: RecordSet,
    /// The sequence of the earlier backup whose packs are named again.
    base_sequence: Option<u64>,
    /// The packs of the base, sorted.
    kept: Vec<PackRef>,
    pack: PackBuilder,
    /// The new packs, sorted.
    new: Vec<PackRef>,
}

/// A completed backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The manifest.
    pub manifest: Manifest,
    /// The number of blocks that were sent.
    pub sent_blocks: u64,
}

impl Writer {
    /// Begins a backup at `now`: reads the newest manifest of each store in the destination.
    ///
    /// # Errors
    /// `Object` if the destination cannot be read.
    pub async fn begin(destination: Destination, now: Timestamp) -> Result<Self, BackupError> {
        let bases = known_bases(&destination).await?;
        let (state, resumed) = (State::Begin, None);
        Ok(Self {
            destination,
            taken_time: now,
            bases,
            resumed,
            state,
            sent_bytes: 0,
            sent_blocks: 0,
            stream_blocks: 0,
        })
    }

    /// The earlier backups that the server may take as a base.
    pub fn bases(&self) -> Vec<Base> {
        let base = |known: &KnownBase| Base {
            store_id: known.manifest.store_id,
            commit: known.manifest.commit(),
            blocks: ranges(&known.packs),
        };
        let resumed = self.resumed.as_ref().map(|resumed| Base {
            store_id: resumed.store,
            commit: resumed.commit,
            blocks: ranges(&resumed.packs),
        });
        let is_same = |known: &Base, other: &Base| (known.store_id, known.commit) == (other.store_id, other.commit);
        let mut bases: Vec<Base> = self.bases.iter().map(base).collect();
        // A broken stream of the commit of an earlier backup has more blocks than that backup.
        bases.retain(|known| resumed.as_ref().is_none_or(|resumed| !is_same(known, resumed)));
        bases.extend(resumed);
        bases
    }

    /// Keeps what a broken stream wrote, so that the next stream sends only the other blocks. The bases change. Returns false
    /// if the stream wrote nothing.
    ///
    /// # Errors
    /// `Object` if the destination cannot be written.
    pub async fn resume(&mut self) -> Result<bool, BackupError> {
        let state = std::mem::replace(&mut self.state, State::Begin);
        self.stream_blocks = 0;
        let (State::Blocks(mut receiving) | State::End(mut receiving)) = state else { return Ok(false) };
        let last = receiving.pack.take(receiving.header.store_id);
        self.state = State::Blocks(receiving);
        if let Some((pack, bytes)) = last {
            self.put_pack(pack, bytes).await?;
        }
        let State::Blocks(receiving) = std::mem::replace(&mut self.state, State::Begin) else { return Ok(false) };
        let Receiving { header, base_sequence, kept, new, .. } = *receiving;
        let has_written = !new.is_empty();
        let mut packs = [kept, new].concat();
        packs.sort_unstable_by_key(|pack| pack.first_block);
        self.resumed = Some(Resumed { store: header.store_id, commit: header.commit, base_sequence, packs });
        Ok(has_written)
    }

    /// Accepts the next piece.
    ///
    /// # Errors
    /// `Pieces` or `Records` if the piece is invalid or out of order; `Object` if the destination cannot be written.
    pub async fn accept(&mut self, piece: Piece) -> Result<(), BackupError> {
        let unexpected = |what: &str| BackupError::Pieces(format!("{what} is out of order"));
        match (std::mem::replace(&mut self.state, State::Begin), piece) {
            (State::Begin, Piece::Header(header)) => self.state = State::Records { header, bytes: Vec::new() },
            (State::Records { header, mut bytes }, Piece::Records(more)) => {
                bytes.extend_from_slice(&more);
                self.state = State::Records { header, bytes };
            }
            (State::Records { header, bytes }, Piece::Blocks(blocks)) => {
                let receiving = self.receiving(header, bytes).await?;
                self.state = State::Blocks(receiving);
                self.accept_blocks(blocks).await?;
            }
            (State::Records { header, bytes }, Piece::End(end)) => {
                let receiving = self.receiving(header, bytes).await?;
                self.accept_end(receiving, &end).await?;
            }
            (State::Blocks(receiving), Piece::Blocks(blocks)) => {
                self.state = State::Blocks(receiving);
                self.accept_blocks(blocks).await?;
            }
            (State::Blocks(receiving), Piece::End(end)) => self.accept_end(receiving, &end).await?,
            (_, Piece::Header(_)) => return Err(unexpected("the header")),
            (_, Piece::Records(_)) => return Err(unexpected("a part of the records")),
            (_, Piece::Blocks(_)) => return Err(unexpected("a block")),
            (_, Piece::End(_)) => return Err(unexpected("the end")),
        }
        Ok(())
    }

    /// Checks the records when all of them have arrived, and chooses the base that the server accepted.
    async fn receiving(&self, header: Header, record_bytes: Vec<u8>) -> Result<Box<Receiving>, BackupError> {
        let (record_bytes, records) = spawn_blocking(move || {
            let records = RecordSet::decode(&record_bytes);
            (record_bytes, records)
        })
        .await?;
        let records = records?;
        if (StoreId(records.store_id()), records.commit()) != (header.store_id, header.commit) {
            return Err(BackupError::Pieces("the records are of another commit than the header".to_owned()));
        }
        let (base_sequence, kept) = self.base_of(&header)?;
        let (pack, new) = (PackBuilder::default(), Vec::new());
        Ok(Box::new(Receiving { header, record_bytes, records, base_sequence, kept, pack, new }))
    }

    /// Returns the sequence and the packs of the base that the server accepted.
    fn base_of(&self, header: &Header) -> Result<(Option<u64>, Vec<PackRef>), BackupError> {
        let Some(sequence) = header.base_sequence else { return Ok((None, Vec::new())) };
        let is_base = |store: StoreId, found: u64| (store, found) == (header.store_id, sequence);
        if let Some(resumed) = &self.resumed
            && is_base(resumed.store, resumed.commit.sequence)
        {
            return Ok((resumed.base_sequence, resumed.packs.clone()));
        }
        let known = self.bases.iter().find(|known| is_base(known.manifest.store_id, known.manifest.sequence));
        let known =
            known.ok_or_else(|| BackupError::Pieces(format!("there is no earlier backup of commit {sequence}")))?;
        Ok((Some(sequence), known.packs.clone()))
    }

    async fn accept_blocks(&mut self, blocks: Vec<RawBlock>) -> Result<(), BackupError> {
        for block in blocks {
            let State::Blocks(receiving) = &mut self.state else {
                return Err(BackupError::Pieces("a block is out of order".to_owned()));
            };
            let ended = receiving.push(&block)?;
            self.sent_blocks += 1;
            self.stream_blocks += 1;
            for (pack, bytes) in ended {
                self.put_pack(pack, bytes).await?;
            }
        }
        Ok(())
    }

    async fn accept_end(&mut self, mut receiving: Box<Receiving>, end: &End) -> Result<(), BackupError> {
        let last = receiving.pack.take(receiving.header.store_id);
        let found = (self.stream_blocks, receiving.record_bytes.len() as u64, sha256(&receiving.record_bytes));
        if found != (end.block_count, end.record_bytes, end.records_sha256.clone()) {
            return Err(BackupError::Pieces("blocks or records are missing".to_owned()));
        }
        self.state = State::Blocks(receiving);
        if let Some((pack, bytes)) = last {
            self.put_pack(pack, bytes).await?;
        }
        if let State::Blocks(receiving) = std::mem::replace(&mut self.state, State::Begin) {
            self.state = State::End(receiving);
        }
        Ok(())
    }

    async fn put_pack(&mut self, pack: PackRef, bytes: Vec<u8>) -> Result<(), BackupError> {
        self.sent_bytes += pack.object.bytes;
        self.destination.put(&pack.object.name, bytes).await?;
        if let State::Blocks(receiving) = &mut self.state {
            receiving.new.push(pack);
        }
        Ok(())
    }

    /// Writes the records and the manifest after the end has arrived.
    ///
    /// # Errors
    /// `Pieces` if the end is missing or a block is in no pack; `Removed` if an object disappeared; `Object` if the
    /// destination cannot be written.
    pub async fn finish(self) -> Result<Written, BackupError> {
        let Self { destination, taken_time, state, mut sent_bytes, sent_blocks, .. } = self;
        let State::End(receiving) = state else {
            return Err(BackupError::Pieces("it ends early".to_owned()));
        };
        let Receiving { header, record_bytes, records, base_sequence, kept, new, .. } = *receiving;
        let (packed, records, content_sha256) = spawn_blocking(move || {
            let packed = zstd::bulk::compress(&record_bytes, RECORDS_LEVEL);
            let content = sha256(&records.encode_content());
            (packed, records, content)
        })
        .await?;
        let packed = packed.map_err(|error| BackupError::Task(format!("cannot compress the records: {error}")))?;
        let sequence = header.commit.sequence;
        let object = ObjectRef::new(&packed, |sha256| names::records(sequence, header.store_id, sha256));
        sent_bytes += object.bytes;
        let mut manifest = Manifest {
            format: FORMAT,
            silkrate_version: header.silkrate_version,
            store_id: header.store_id,
            sequence,
            recorded_time: header.commit.recorded_time,
            taken_time,
            base_sequence,
            next_block_id: records.next_block_id(),
            chain: records.chain(),
            content_sha256,
            series_count: records.series_count() as u64,
            block_count: records.blocks().len() as u64,
            block_bytes: records.blocks().iter().map(IndexedBlock::bytes).sum(),
            sent_bytes,
            records: object,
            packs: Vec::new(),
        };
        manifest.packs = used_packs(&records, [kept, new].concat())?;
        destination.put(&manifest.records.name, packed).await?;
        check_present(&destination, &manifest).await?;
        let bytes =
            manifest.encode().map_err(|error| BackupError::Task(format!("cannot write the manifest: {error}")))?;
        destination.put(&manifest.name(), bytes).await?;
        Ok(Written { manifest, sent_blocks })
    }
}

impl Receiving {
    /// Adds a block. Returns the packs that ended, at most two.
    fn push(&mut self, block: &RawBlock) -> Result<Vec<(PackRef, Vec<u8>)>, BackupError> {
        let invalid = |problem: String| BackupError::Pieces(problem);
        let entry =
            self.records.block(block.id).ok_or_else(|| invalid(format!("no record names block {}", block.id)))?;
        entry
            .check(&block.columns)
            .map_err(|problem| invalid(format!("{}: {problem}", self.records.describe(entry))))?;
        let before = self.pack.last().or_else(|| self.new.last().map(|pack| pack.end_block - 1));
        if before.is_some_and(|before| before >= block.id) {
            return Err(invalid(format!("block {} is out of order", block.id)));
        }
        let mut ended = Vec::new();
        // The range of a pack must not contain that of a kept pack.
        let is_between =
            |kept: &PackRef| before.is_some_and(|before| before < kept.first_block) && kept.first_block <= block.id;
        if self.kept.iter().any(is_between) {
            ended.extend(self.pack.take(self.header.store_id));
        }
        self.pack.push(block.id, &block.columns);
        if self.pack.is_full() {
            ended.extend(self.pack.take(self.header.store_id));
        }
        Ok(ended)
    }
}

/// The ranges of block ids of packs.
fn ranges(packs: &[PackRef]) -> Vec<Range<u64>> {
    packs.iter().map(|pack| pack.first_block..pack.end_block).collect()
}

/// Returns the packs that have blocks of the records, sorted, with the size of these blocks.
fn used_packs(records: &RecordSet, mut packs: Vec<PackRef>) -> Result<Vec<PackRef>, BackupError> {
    packs.sort_unstable_by_key(|pack| pack.first_block);
    for pack in &mut packs {
        pack.live_bytes = 0;
    }
    let mut used = vec![false; packs.len()];
    for block in records.blocks() {
        let at = packs.partition_point(|pack| pack.end_block <= block.id());
        let Some(pack) = packs.get_mut(at).filter(|pack| pack.first_block <= block.id()) else {
            let what = records.describe(block);
            return Err(BackupError::Pieces(format!("{what} (block {}) were not sent", block.id())));
        };
        pack.live_bytes += block.bytes();
        used[at] = true;
    }
    Ok(packs.into_iter().zip(used).filter_map(|(pack, used)| used.then_some(pack)).collect())
}

/// The sequence of a manifest, when it was written, and its name.
type NamedManifest = (u64, Timestamp, String);

/// Reads the newest manifest of each store, and lists which of its packs are complete.
async fn known_bases(destination: &Destination) -> Result<Vec<KnownBase>, BackupError> {
    let mut newest: BTreeMap<StoreId, Vec<NamedManifest>> = BTreeMap::new();
    for object in destination.list(names::MANIFESTS).await? {
        if let Some(ObjectName::Manifest { sequence, store }) = names::parse(&object.name) {
            newest.entry(store).or_default().push((sequence, object.modified, object.name));
        }
    }
    let mut stores: Vec<(StoreId, Vec<NamedManifest>)> = newest.into_iter().collect();
    // The stores that were backed up last.
    stores.sort_by_key(|(_, manifests)| std::cmp::Reverse(manifests.iter().map(|manifest| manifest.1).max()));
    let mut bases = Vec::new();
    for (store, mut manifests) in stores.into_iter().take(BASES_MAX) {
        manifests.sort_unstable();
        let present = present_packs(destination, store).await?;
        for (_, _, name) in manifests.iter().rev() {
            // A backup must not fail because an earlier one is damaged: it is then simply larger.
            let Ok(manifest) = Manifest::decode(&destination.get(name).await?) else {
                tracing::warn!("{} is damaged and is not used", destination.describe(name));
                continue;
            };
            let is_present = |pack: &PackRef| present.get(&pack.object.name) == Some(&pack.object.bytes);
            let packs = kept_packs(&manifest.packs).into_iter().filter(is_present).collect();
            bases.push(KnownBase { manifest, packs });
            break;
        }
    }
    Ok(bases)
}

/// Lists the packs of a store with their sizes.
async fn present_packs(destination: &Destination, store: StoreId) -> Result<BTreeMap<String, u64>, BackupError> {
    let objects = destination.list(&format!("{}/{store}", names::PACKS)).await?;
    Ok(objects.into_iter().map(|object| (object.name, object.bytes)).collect())
}

/// Checks that all packs of a manifest are still there.
async fn check_present(destination: &Destination, manifest: &Manifest) -> Result<(), BackupError> {
    let present = present_packs(destination, manifest.store_id).await?;
    match manifest.packs.iter().find(|pack| present.get(&pack.object.name) != Some(&pack.object.bytes)) {
        Some(pack) => Err(BackupError::Removed { object: destination.describe(&pack.object.name) }),
        None => Ok(()),
    }
}

impl Written {
    /// The commit of the backup.
    pub fn commit(&self) -> Commit {
        self.manifest.commit()
    }
}
