//! Opening: from what is on disk to the store as of its newest commit.
//!
//! **Invariant**: a store either opens as every commit that was answered for left it, or says why
//! not; block values are not read.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use super::block::{BlockKind, BlockMeta};
use super::checkpoint::put_meta;
use super::digest::Digest;
use super::engine::Engine;
use super::error::StoreError;
use super::high_water_mark::HighWaterMark;
use super::keys::{self, SealError};
use super::log::{Log, LogEntry};
use super::polls::{ChunkRecord, Polls};
use super::quarantine::{HeldRecord, Keeper};
use super::records::{Meta, SeriesRecord, series_key};
use super::segments::{Opened, Segments};
use super::series::{self, Recent};
use super::{COMMITS_ID, Commit, Store, StoreOptions};
use crate::catch_panic::catch_panic;
use crate::domain::{SeriesKey, Timestamp};
use crate::latest_quotes::StateRules;

/// Blocks of one series and kind.
type BlockLists = HashMap<(u32, BlockKind), Vec<Arc<BlockMeta>>>;

impl Store {
    /// Opens a store, or makes it. Blocks.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub fn open(options: StoreOptions, now: Timestamp) -> Result<Self, StoreError> {
        let mut store = Self::load(options)?;
        store.check_windows(now)?;
        Ok(store)
    }

    /// Opens a store whatever its settings were.
    pub(super) fn load(options: StoreOptions) -> Result<Self, StoreError> {
        let engine = Engine::open(&options.directory, options.reserve_bytes, options.disk_fault.clone())?;
        let name = engine.name();
        // A damaged page can make sled panic while it is read.
        catch_panic(|| Self::recover(engine, options)).unwrap_or_else(|said| {
            Err(StoreError::Damaged {
                path: name,
                problem: format!("the engine gave up while reading its files: {said}"),
            })
        })
    }

    fn recover(engine: Engine, options: StoreOptions) -> Result<Self, StoreError> {
        let meta = match engine.get(&keys::META)? {
            Some(value) => {
                let what = "its own record";
                let (payload, _) = unseal_payload(&engine, &keys::META, &value, what)?;
                Meta::decode(payload).ok_or_else(|| undecodable(&engine, what))?
            }
            None => create(&engine)?,
        };
        let (mut store, logged) = Self::empty(engine, options, &meta)?;
        let mut digest = Digest::default();
        store.load_series(&mut digest)?;
        store.load_quarantine(&mut digest)?;
        let mut blocks = store.load_index(&mut digest)?;
        store.load_polls(&mut digest)?;
        if digest != meta.digest {
            return Err(store.damaged("entries of its index are missing or foreign"));
        }
        store.attach(&mut blocks)?;
        store.remove_leftovers(&blocks)?;
        for entry in logged {
            store.apply(&entry)?;
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

    /// Finds states by other rules from the next commit on, which tells the log so. What a quote says is what the newest
    /// commit made it say, until that one.
    fn set_rules(&mut self, rules: StateRules) {
        if self.rules == rules {
            return;
        }
        self.rules = rules;
        for id in (1_u32..).take(self.series.len()) {
            self.refresh_due(id);
        }
    }

    /// The store without its series, and what its log holds.
    fn empty(engine: Engine, options: StoreOptions, meta: &Meta) -> Result<(Self, Vec<LogEntry>), StoreError> {
        let path = engine.path();
        let (log, logged, chain, high_water_mark) = match HighWaterMark::open(path, meta.store_id)? {
            Some(high_water_mark) => {
                let (log, replay) = Log::open(path, meta.store_id, meta.sequence, meta.chain)?;
                (log, replay.entries, replay.chain, high_water_mark)
            }
            // A process may end between making the store and making its high-water mark, which comes last.
            None if meta.sequence == 0 => {
                let log = Log::create(path, meta.store_id)?;
                (log, Vec::new(), meta.chain, HighWaterMark::create(path, meta.store_id)?)
            }
            None => {
                return Err(StoreError::Damaged {
                    path: engine.name(),
                    problem: "its witness file is missing".to_owned(),
                });
            }
        };
        let logged_rules = match &meta.rules {
            None => None,
            Some(record) => Some(record.rules().ok_or_else(|| StoreError::Damaged {
                path: engine.name(),
                problem: "its rules of states make no sense".to_owned(),
            })?),
        };
        let store = Self {
            rules: logged_rules.clone().unwrap_or_else(|| options.state_rules.clone()),
            logged_rules,
            reader: engine.reader(),
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
            quarantine: Keeper::default(),
            record_crcs: Vec::new(),
            changed: Vec::new(),
            replaced: Opened::default(),
            retired: Vec::new(),
            entries: HashMap::new(),
            log,
            polls: Polls::default(),
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
            let (record, crc) = unseal::<SeriesRecord>(&self.engine, &key, &value, "a series record")?;
            digest.add(crc);
            let expected = self.series.len() + 1;
            let series = record.series().filter(|series| series.id as usize == expected);
            let Some(series) = series else {
                return Err(self.damaged(format!("the record of series {} makes no sense", record.id())));
            };
            self.ids.insert((*series.key).clone(), series.id);
            self.series.push(series);
            self.record_crcs.push(Some(crc));
            self.changed.push(false);
            self.due.push(None);
        }
        Ok(())
    }

    fn load_quarantine(&mut self, digest: &mut Digest) -> Result<(), StoreError> {
        for entry in self.engine.scan(&[keys::QUARANTINE]) {
            let (key, value) = entry?;
            let (record, crc) = unseal::<HeldRecord>(&self.engine, &key, &value, "a held tick")?;
            digest.add(crc);
            if self.quarantine.load(&key, &record, crc, &|id| key_of(&self.series, id)).is_none() {
                return Err(self.damaged("the record of a held tick makes no sense"));
            }
        }
        Ok(())
    }

    fn load_index(&mut self, digest: &mut Digest) -> Result<BlockLists, StoreError> {
        let mut blocks = BlockLists::new();
        for entry in self.engine.scan(&[keys::INDEX]) {
            let (key, value) = entry?;
            let (meta, crc) = unseal::<BlockMeta>(&self.engine, &key, &value, "an index entry")?;
            digest.add(crc);
            let place = <[u8; 14]>::try_from(&*key).ok().and_then(|key| {
                let series = u32::from_be_bytes(*key[1..].first_chunk()?);
                Some((key, series, BlockKind::from_number(key[5])?))
            });
            let Some((key, series, kind)) = place else {
                return Err(self.damaged("the key of an index entry makes no sense"));
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
            let (chunk, crc) = unseal::<ChunkRecord>(&self.engine, &key, &value, "a chunk of polls")?;
            digest.add(crc);
            if self.polls.load(&key, &chunk, crc).is_none() {
                return Err(self.damaged("its record of polls makes no sense"));
            }
        }
        Ok(())
    }

    /// Gives every series its blocks, and checks that they fit what its record says.
    fn attach(&mut self, blocks: &mut BlockLists) -> Result<(), StoreError> {
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
                    problem: format!("the blocks of {} overlap", series.key),
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
                    problem: format!("the blocks of {} do not add up to its counts", series.key),
                });
            }
            series.runs = Segments::of_blocks(runs);
            series.instants = Segments::of_blocks(instants);
            series.revisions = Segments::of_blocks(revisions);
        }
        let commits = take(COMMITS_ID, BlockKind::Instants).unwrap_or_default();
        if items(&commits) != self.commit.sequence {
            return Err(self.damaged("its list of commits does not add up to its sequence"));
        }
        self.commits = Segments::of_blocks(commits);
        for id in (1_u32..).take(self.series.len()) {
            self.refresh_due(id);
            self.refresh_view(id);
        }
        Ok(())
    }

    /// Removes blocks that nothing names: retired ones, and those of a checkpoint that did not come
    /// to its end.
    fn remove_leftovers(&mut self, blocks: &BlockLists) -> Result<(), StoreError> {
        const BATCH_KEYS_MAX: usize = 10_000;
        let newest = blocks.values().flatten().map(|meta| meta.id).max();
        if newest.is_some_and(|newest| newest >= self.next_block_id) {
            return Err(self.damaged("its index names a block from the future"));
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

    /// Does again what a commit did.
    fn apply(&mut self, entry: &LogEntry) -> Result<(), StoreError> {
        let recorded_time = Timestamp::from_micros(entry.recorded_us);
        let nonsense = |store: &Self| store.damaged(format!("commit {} of its log makes no sense", entry.sequence));
        if let Some(record) = &entry.rules {
            let Some(rules) = record.rules() else { return Err(nonsense(self)) };
            self.set_rules(rules);
            self.logged_rules = Some(self.rules.clone());
        }
        for new in &entry.new_series {
            let Some(key) = series_key(&new.pair, &new.source) else { return Err(nonsense(self)) };
            if self.add_series(key, new.collapse_window_us) != Some(new.id) {
                return Err(nonsense(self));
            }
        }
        let mut commits = Vec::with_capacity(entry.changes.len());
        for change in &entry.changes {
            let known = (1..=self.series.len()).contains(&(change.series as usize));
            let Some(values) = change.values().filter(|_| known) else { return Err(nonsense(self)) };
            let mut commit = series::Commit::default();
            for (time, value) in values {
                self.upsert_logged(change.series, time, value, recorded_time, &mut commit)?;
            }
            commits.push((change.series, commit));
        }
        for (id, window_us) in &entry.recollapsed {
            if !(1..=self.series.len()).contains(&(*id as usize)) {
                return Err(nonsense(self));
            }
            commits.push((*id, self.recollapse(*id, *window_us, recorded_time)?));
        }
        for poll in &entry.polls {
            let recorded = poll.poll().is_some_and(|poll| self.polls.record(&poll).is_ok());
            if !recorded {
                return Err(nonsense(self));
            }
        }
        for change in &entry.quarantine {
            if self.quarantine.apply(change, recorded_time, &|id| key_of(&self.series, id)).is_none() {
                return Err(nonsense(self));
            }
        }
        self.finish(entry, commits);
        Ok(())
    }
}

fn key_of(series: &[series::Series], id: u32) -> Option<Arc<SeriesKey>> {
    series.get((id as usize).checked_sub(1)?).map(|series| Arc::clone(&series.key))
}

/// Makes a new store.
fn create(engine: &Engine) -> Result<Meta, StoreError> {
    if engine.path().join("witness").exists() || engine.scan(&[]).next().is_some() {
        return Err(StoreError::Damaged { path: engine.name(), problem: "its own record is missing".to_owned() });
    }
    let meta = Meta { store_id: RandomState::new().build_hasher().finish(), next_block_id: 1, ..Meta::default() };
    let mut batch = sled::Batch::default();
    put_meta(&mut batch, &meta)?;
    engine.apply(batch)?;
    engine.sync()?;
    Ok(meta)
}

fn unseal<R: serde::de::DeserializeOwned>(
    engine: &Engine,
    key: &[u8],
    value: &[u8],
    what: &str,
) -> Result<(R, u32), StoreError> {
    let (payload, crc) = unseal_payload(engine, key, value, what)?;
    let record = postcard::from_bytes(payload).map_err(|_| undecodable(engine, what))?;
    Ok((record, crc))
}

fn unseal_payload<'v>(engine: &Engine, key: &[u8], value: &'v [u8], what: &str) -> Result<(&'v [u8], u32), StoreError> {
    keys::unseal(key, value).map_err(|error| match error {
        SealError::Newer(found) => StoreError::NewerFormat { path: engine.name(), found, supported: keys::FORMAT },
        SealError::Broken(problem) => {
            StoreError::Damaged { path: engine.name(), problem: format!("{what}: {problem}") }
        }
    })
}

fn undecodable(engine: &Engine, what: &str) -> StoreError {
    StoreError::Damaged { path: engine.name(), problem: format!("{what}: it does not decode") }
}

fn in_order(list: &[Arc<BlockMeta>], kind: BlockKind) -> bool {
    list.iter().all(|meta| meta.item_count > 0 && meta.first_key_us <= meta.last_key_us)
        && list.is_sorted_by(|a, b| match kind {
            BlockKind::Runs | BlockKind::Instants => a.end_us < b.first_key_us,
            BlockKind::Revisions => a.last_key_us <= b.first_key_us,
        })
}
