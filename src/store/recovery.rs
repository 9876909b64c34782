//! Opening of a store: loads the last checkpoint from disk and replays the log up to the newest commit.
//!
//! **Invariant**: an opened store contains every acknowledged commit; otherwise opening fails with an error that names
//! the problem. Opening does not read the columns of blocks.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use super::archive::{Archive, ArchiveRecord};
use super::block::{BlockKind, BlockMeta};
use super::checkpoint::put_meta;
use super::digest::Digest;
use super::engine::Engine;
use super::error::StoreError;
use super::high_water_mark::HighWaterMark;
use super::keys::{self, ValueError};
use super::log::Log;
use super::log_entry::LogEntry;
use super::polls::{ChunkRecord, Polls};
use super::quarantine::{HeldRecord, QuarantineIndex};
use super::records::{Meta, SeriesRecord, series_key};
use super::segments::{ReplacedBlocks, Segments};
use super::series::{self, Recent};
use super::series_count::CountedSeries;
use super::slices::UnindexedBlocks;
use super::{COMMITS_ID, Commit, Store, StoreOptions};
use crate::catch_panic::catch_panic;
use crate::domain::{SeriesKey, Timestamp};
use crate::latest_quotes::{LatestQuote, StateRules};

/// Index entries of blocks, by series id and kind.
type BlockLists = HashMap<(u32, BlockKind), Vec<Arc<BlockMeta>>>;

impl Store {
    /// Opens the store in a directory, or creates it. `now` is the current time. If a series is recollapsed, the
    /// recorded time of the commit is computed from `now`. The call blocks on disk I/O.
    ///
    /// # Errors
    /// Returns any [`StoreError`].
    pub fn open(options: StoreOptions, now: Timestamp) -> Result<Self, StoreError> {
        let mut store = Self::load(options)?;
        store.check_windows(now)?;
        Ok(store)
    }

    /// Opens a store without comparing its collapse windows with the configured ones.
    pub(super) fn load(options: StoreOptions) -> Result<Self, StoreError> {
        let engine = Engine::open(&options.directory, options.reserve_bytes, options.disk_fault.clone())?;
        Self::load_opened(engine, options)
    }

    /// Opens a store as [`Store::load`] does. The caller has locked the directory and passes the lock file. A mark of an
    /// unfinished import or restore is ignored.
    pub(super) fn load_locked(options: StoreOptions, lock: File) -> Result<Self, StoreError> {
        let engine = Engine::open_locked(&options.directory, lock, options.reserve_bytes, None)?;
        Self::load_opened(engine, options)
    }

    fn load_opened(engine: Engine, options: StoreOptions) -> Result<Self, StoreError> {
        let name = engine.name();
        // sled can panic while it reads a damaged page.
        catch_panic(|| Self::recover(engine, options)).unwrap_or_else(|panic| {
            Err(StoreError::Damaged { path: name, problem: format!("sled panicked while it read its files: {panic}") })
        })
    }

    fn recover(engine: Engine, options: StoreOptions) -> Result<Self, StoreError> {
        let meta = match engine.get(&keys::META)? {
            Some(value) => {
                let what = "the meta record";
                let (payload, _) = payload_of(&engine, &keys::META, &value, what)?;
                Meta::decode(payload).ok_or_else(|| undecodable(&engine, what))?
            }
            None => create_meta(&engine)?,
        };
        let (mut store, logged) = Self::without_series(engine, options, &meta)?;
        let mut digest = Digest::default();
        store.load_archive(&mut digest)?;
        store.load_series(&mut digest)?;
        store.load_quarantine(&mut digest)?;
        let mut blocks = store.load_index(&mut digest)?;
        store.load_polls(&mut digest)?;
        if digest != meta.digest {
            return Err(store.damaged("its index has missing or unexpected entries"));
        }
        store.attach_blocks(&mut blocks)?;
        store.remove_leftovers(&blocks)?;
        for entry in logged {
            store.replay(&entry)?;
        }
        if store.commit.sequence < store.high_water_mark.newest() {
            return Err(StoreError::Behind {
                path: store.engine.name(),
                sequence: store.commit.sequence,
                high_water_mark: store.high_water_mark.newest(),
            });
        }
        store.set_rules(store.options.state_rules.clone());
        Ok(store)
    }

    /// Changes the state rules from the next commit on; that commit logs the new rules. Until then the quotes keep the
    /// states that the newest commit gave them.
    fn set_rules(&mut self, rules: StateRules) {
        if self.rules == rules {
            return;
        }
        self.rules = rules;
        for id in (1_u32..).take(self.series.len()) {
            self.refresh_due(id);
        }
    }

    /// Makes the store without its series. Returns the store and the log entries to replay.
    fn without_series(engine: Engine, options: StoreOptions, meta: &Meta) -> Result<(Self, Vec<LogEntry>), StoreError> {
        let path = engine.path();
        let (log, logged, chain, high_water_mark) = match HighWaterMark::open(path, meta.store_id)? {
            Some(high_water_mark) => {
                let (log, replay) = Log::open(path, meta.store_id, meta.sequence, meta.chain)?;
                (log, replay.entries, replay.chain, high_water_mark)
            }
            // A process may have ended after it created the store and before it created the high-water mark.
            None if meta.sequence == 0 => {
                let log = Log::create(path, meta.store_id)?;
                (log, Vec::new(), meta.chain, HighWaterMark::create(path, meta.store_id)?)
            }
            None => {
                return Err(StoreError::Damaged {
                    path: engine.name(),
                    problem: "the high-water mark (file 'witness') is missing".to_owned(),
                });
            }
        };
        let logged_rules = match &meta.rules {
            None => None,
            Some(record) => Some(record.rules().ok_or_else(|| StoreError::Damaged {
                path: engine.name(),
                problem: "the state rules in the meta record are invalid".to_owned(),
            })?),
        };
        let store = Self {
            rules: logged_rules.clone().unwrap_or_else(|| options.state_rules.clone()),
            logged_rules,
            reader: engine.reader(options.cache_bytes),
            engine,
            options,
            recent: Recent::default(),
            high_water_mark,
            store_id: meta.store_id,
            series: Vec::new(),
            ids: HashMap::new(),
            commits: Segments::default(),
            commit: Commit { sequence: meta.sequence, recorded_time: Timestamp::from_micros(meta.recorded_us) },
            last_ingest_time: meta.last_ingest_us.map(Timestamp::from_micros),
            chain,
            next_block_id: meta.next_block_id,
            digest: meta.digest,
            quarantine: QuarantineIndex::default(),
            record_crcs: Vec::new(),
            changed: Vec::new(),
            replaced: ReplacedBlocks::default(),
            unindexed: UnindexedBlocks::default(),
            retired: Vec::new(),
            entries: HashMap::new(),
            log,
            frame_tail: None,
            polls: Polls::default(),
            archive: Archive::default(),
            counted: CountedSeries::default(),
            due: Vec::new(),
            views: Vec::new(),
            indexes: Arc::default(),
        };
        Ok((store, logged))
    }

    fn damaged(&self, problem: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.engine.name(), problem: problem.into() }
    }

    fn load_series(&mut self, digest: &mut Digest) -> Result<(), StoreError> {
        let records: Vec<_> = self.engine.scan(&[keys::SERIES]).collect::<Result<_, _>>()?;
        for (key, value) in records {
            let (record, crc) = decode_record::<SeriesRecord>(&self.engine, &key, &value, "a series record")?;
            digest.add(crc);
            let expected = self.series.len() + 1;
            let series = record.series().filter(|series| series.id as usize == expected);
            let Some(mut series) = series else {
                return Err(self.damaged(format!("the record of series {} is invalid", record.id())));
            };
            if let Some(quote) = &mut series.quote {
                let is_archived = self.archive.sources().is_archived(&series.key.source, Timestamp::MAX);
                *quote = Arc::new(LatestQuote { is_archived, ..(**quote).clone() });
            }
            self.ids.insert((*series.key).clone(), series.id);
            self.series.push(series);
            self.record_crcs.push(Some(crc));
            self.changed.push(false);
            self.due.push(None);
        }
        Ok(())
    }

    fn load_archive(&mut self, digest: &mut Digest) -> Result<(), StoreError> {
        for entry in self.engine.scan(&[keys::ARCHIVE]) {
            let (key, value) = entry?;
            let what = "a decision to archive a source";
            let (record, crc) = decode_record::<ArchiveRecord>(&self.engine, &key, &value, what)?;
            digest.add(crc);
            if self.archive.load(&key, &record).is_none() {
                return Err(self.damaged(format!("{what} is invalid")));
            }
        }
        Ok(())
    }

    fn load_quarantine(&mut self, digest: &mut Digest) -> Result<(), StoreError> {
        for entry in self.engine.scan(&[keys::QUARANTINE]) {
            let (key, value) = entry?;
            let (record, crc) = decode_record::<HeldRecord>(&self.engine, &key, &value, "the record of a held tick")?;
            digest.add(crc);
            if self.quarantine.load(&key, &record, crc, &|id| key_of(&self.series, id)).is_none() {
                return Err(self.damaged("the record of a held tick is invalid"));
            }
        }
        Ok(())
    }

    fn load_index(&mut self, digest: &mut Digest) -> Result<BlockLists, StoreError> {
        let mut blocks = BlockLists::new();
        for entry in self.engine.scan(&[keys::INDEX]) {
            let (key, value) = entry?;
            let (meta, crc) = decode_record::<BlockMeta>(&self.engine, &key, &value, "an index entry")?;
            digest.add(crc);
            let parts = <[u8; 14]>::try_from(&*key).ok().and_then(|key| {
                let series = u32::from_be_bytes(*key[1..].first_chunk()?);
                Some((key, series, BlockKind::from_number(key[5])?))
            });
            let Some((key, series, kind)) = parts else {
                return Err(self.damaged("the key of an index entry is invalid"));
            };
            self.entries.insert(meta.id, (key, crc));
            blocks.entry((series, kind)).or_default().push(Arc::new(meta));
        }
        for list in blocks.values_mut() {
            list.sort_unstable_by_key(|meta| (meta.first_key_us, meta.last_key_us, meta.id));
        }
        Ok(blocks)
    }

    fn load_polls(&mut self, digest: &mut Digest) -> Result<(), StoreError> {
        for entry in self.engine.scan(&[keys::POLLS]) {
            let (key, value) = entry?;
            let (chunk, crc) = decode_record::<ChunkRecord>(&self.engine, &key, &value, "a chunk of polls")?;
            digest.add(crc);
            if self.polls.load(&key, &chunk, crc).is_none() {
                return Err(self.damaged("its record of polls is invalid"));
            }
        }
        Ok(())
    }

    /// Assigns the blocks to their series, and checks them against the counts in the series records.
    fn attach_blocks(&mut self, blocks: &mut BlockLists) -> Result<(), StoreError> {
        let take = |series: u32, kind: BlockKind| {
            let list = blocks.get(&(series, kind)).cloned().unwrap_or_default();
            in_order(&list, kind).then_some(list)
        };
        let items = |list: &[Arc<BlockMeta>]| list.iter().map(|meta| u64::from(meta.item_count)).sum::<u64>();
        let observations = |list: &[Arc<BlockMeta>]| list.iter().map(|meta| meta.observation_count).sum::<u64>();
        for series in &mut self.series {
            let lists = (
                take(series.id, BlockKind::Runs),
                take(series.id, BlockKind::Instants),
                take(series.id, BlockKind::Revisions),
            );
            let (Some(runs), Some(instants), Some(revisions)) = lists else {
                return Err(StoreError::Damaged {
                    path: self.engine.name(),
                    problem: format!("the blocks of {} overlap or are out of order", series.key),
                });
            };
            let totals = series.totals;
            if items(&runs) != totals.run_count
                || observations(&runs) != totals.observation_count
                || items(&instants) != totals.observation_count
                || items(&revisions) != totals.revision_count
            {
                return Err(StoreError::Damaged {
                    path: self.engine.name(),
                    problem: format!("the items in the blocks of {} do not match the counts in its record", series.key),
                });
            }
            series.runs = Segments::of_blocks(runs);
            series.instants = Segments::of_blocks(instants);
            series.revisions = Segments::of_blocks(revisions);
        }
        let commits = take(COMMITS_ID, BlockKind::Instants).unwrap_or_default();
        if items(&commits) != self.commit.sequence {
            return Err(self.damaged("the length of its list of commits differs from its sequence"));
        }
        self.commits = Segments::of_blocks(commits);
        for id in (1_u32..).take(self.series.len()) {
            self.refresh_due(id);
            self.refresh_view(id);
        }
        Ok(())
    }

    /// Removes blocks without an index entry: retired blocks, and blocks of an interrupted checkpoint.
    fn remove_leftovers(&mut self, blocks: &BlockLists) -> Result<(), StoreError> {
        const BATCH_KEYS_MAX: usize = 10_000;
        let newest = blocks.values().flatten().map(|meta| meta.id).max();
        if newest.is_some_and(|newest| newest >= self.next_block_id) {
            return Err(self.damaged("its index refers to a block id that was not assigned yet"));
        }
        let mut leftovers: Vec<sled::IVec> = Vec::new();
        for entry in self.engine.scan(&[keys::RETIRED]) {
            let (key, _) = entry?;
            if let Some(block) = keys::u64_at(&key, 1) {
                let columns = (0..super::block::COLUMNS_MAX).filter_map(|number| u8::try_from(number).ok());
                leftovers.extend(columns.map(|number| sled::IVec::from(&keys::column(block, number))));
            }
            leftovers.push(key);
        }
        leftovers.extend(self.engine.block_keys_from(self.next_block_id)?);
        for piece in leftovers.chunks(BATCH_KEYS_MAX) {
            let mut batch = sled::Batch::default();
            for key in piece {
                batch.remove(key);
            }
            self.engine.apply(batch)?;
        }
        Ok(())
    }

    /// Replays the commit of a log entry.
    fn replay(&mut self, entry: &LogEntry) -> Result<(), StoreError> {
        let recorded_time = Timestamp::from_micros(entry.recorded_us);
        let invalid = |store: &Self| store.damaged(format!("commit {} in its log is invalid", entry.sequence));
        if let Some(record) = &entry.rules {
            let Some(rules) = record.rules() else { return Err(invalid(self)) };
            self.set_rules(rules);
            self.logged_rules = Some(self.rules.clone());
        }
        for new in &entry.new_series {
            let Some(key) = series_key(&new.pair, &new.source) else { return Err(invalid(self)) };
            if self.add_series(key, new.collapse_window_us) != Some(new.id) {
                return Err(invalid(self));
            }
        }
        let mut commits = Vec::with_capacity(entry.changes.len());
        for change in &entry.changes {
            let exists = (1..=self.series.len()).contains(&(change.series as usize));
            let Some(values) = change.values().filter(|_| exists) else { return Err(invalid(self)) };
            let mut commit = series::SeriesCommit::default();
            for (time, value) in values {
                self.upsert_logged(change.series, time, value, recorded_time, &mut commit)?;
            }
            commits.push((change.series, commit));
        }
        for (id, window_us) in &entry.recollapsed {
            if !(1..=self.series.len()).contains(&(*id as usize)) {
                return Err(invalid(self));
            }
            commits.push((*id, self.recollapse(*id, *window_us, recorded_time)?));
        }
        for poll in &entry.polls {
            let recorded = poll.poll().is_some_and(|poll| self.polls.record(&poll).is_ok());
            if !recorded {
                return Err(invalid(self));
            }
        }
        for change in &entry.quarantine {
            if self.quarantine.apply(change, recorded_time, &|id| key_of(&self.series, id)).is_none() {
                return Err(invalid(self));
            }
        }
        for change in &entry.archive {
            let is_added = change.decision(recorded_time).is_some_and(|decision| self.archive.add(decision));
            if !is_added {
                return Err(invalid(self));
            }
        }
        self.finish(entry, commits);
        Ok(())
    }
}

fn key_of(series: &[series::Series], id: u32) -> Option<Arc<SeriesKey>> {
    series.get((id as usize).checked_sub(1)?).map(|series| Arc::clone(&series.key))
}

/// Creates the meta record of a new store.
fn create_meta(engine: &Engine) -> Result<Meta, StoreError> {
    if engine.path().join("witness").exists() || engine.scan(&[]).next().is_some() {
        return Err(StoreError::Damaged { path: engine.name(), problem: "its meta record is missing".to_owned() });
    }
    let meta = Meta { store_id: RandomState::new().build_hasher().finish(), next_block_id: 1, ..Meta::default() };
    let mut batch = sled::Batch::default();
    put_meta(&mut batch, &meta)?;
    engine.apply(batch)?;
    engine.sync()?;
    Ok(meta)
}

/// Decodes a checksummed record. `what` names the record in errors.
fn decode_record<R: serde::de::DeserializeOwned>(
    engine: &Engine,
    key: &[u8],
    value: &[u8],
    what: &str,
) -> Result<(R, u32), StoreError> {
    let (payload, crc) = payload_of(engine, key, value, what)?;
    let record = postcard::from_bytes(payload).map_err(|_| undecodable(engine, what))?;
    Ok((record, crc))
}

/// Verifies the checksum of a value, and returns the payload and the checksum. `what` names the value in errors.
fn payload_of<'v>(engine: &Engine, key: &[u8], value: &'v [u8], what: &str) -> Result<(&'v [u8], u32), StoreError> {
    keys::verify_checksum(key, value).map_err(|error| match error {
        ValueError::NewerFormat(found) => {
            StoreError::NewerFormat { path: engine.name(), found, supported: keys::FORMAT }
        }
        ValueError::Damaged(problem) => {
            StoreError::Damaged { path: engine.name(), problem: format!("{what} {problem}") }
        }
    })
}

fn undecodable(engine: &Engine, what: &str) -> StoreError {
    StoreError::Damaged { path: engine.name(), problem: format!("{what} cannot be decoded") }
}

/// Returns true if the blocks are not empty, are sorted by key, and do not overlap.
fn in_order(list: &[Arc<BlockMeta>], kind: BlockKind) -> bool {
    list.iter().all(|meta| meta.item_count > 0 && meta.first_key_us <= meta.last_key_us)
        && list.is_sorted_by(|a, b| match kind {
            BlockKind::Runs | BlockKind::Instants => a.end_us < b.first_key_us,
            BlockKind::Revisions => a.last_key_us <= b.first_key_us,
        })
}
