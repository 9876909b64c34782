//! A second implementation of the full export: the content of a store as plain rows, and a writer that shares only the
//! schema with the writer under test.

#![allow(dead_code, reason = "each user needs only a part")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{Float64Type, Int32Type};
use arrow_array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Int64Array, PrimitiveArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use data_encoding::HEXLOWER;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use silkrate::domain::{
    ArchiveDecision, HeldTick, PollSpan, Rate, ReportedChange, Revision, Run, ScanOrder, Timestamp,
};
use silkrate::store::{Commit, View};

/// The rows of a part, each with the pair and source of its series.
pub(crate) type Rows<T> = Vec<((String, String), T)>;

/// The content of a store.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Parts {
    pub(crate) commit: Commit,
    pub(crate) last_ingest_time: Option<Timestamp>,
    pub(crate) series: Rows<i64>,
    pub(crate) runs: Rows<Run>,
    pub(crate) instants: Rows<Timestamp>,
    pub(crate) revisions: Rows<Revision>,
    pub(crate) commits: Vec<(u64, Timestamp)>,
    /// Sorted by source.
    pub(crate) polls: Vec<(String, PollSpan)>,
    pub(crate) held: Vec<HeldTick>,
    /// Sorted by source, then by time.
    pub(crate) archive: Vec<ArchiveDecision>,
}

impl Parts {
    pub(crate) fn of(view: &View) -> Self {
        let mut parts = Self {
            commit: view.commit,
            last_ingest_time: view.latest_quotes.last_ingest_time,
            series: Vec::new(),
            runs: Vec::new(),
            instants: Vec::new(),
            revisions: Vec::new(),
            commits: Vec::new(),
            polls: Vec::new(),
            held: view.quarantine().after(0).cloned().collect(),
            archive: view.archived().decisions().cloned().collect(),
        };
        for record in view.all_polls() {
            parts.polls.extend(record.spans().map(|span| (record.source().to_string(), *span)));
        }
        parts.polls.sort_by(|one, other| one.0.cmp(&other.0));
        let all = (Timestamp::MIN, Timestamp::MAX);
        for series in view.series() {
            let key = (series.key().pair.to_string(), series.key().source.to_string());
            parts.series.push((key.clone(), series.collapse_window_us()));
            let runs = series.runs(all.0, all.1, all.1, ScanOrder::Ascending).expect("undamaged blocks");
            parts.runs.extend(runs.flat_map(|piece| piece.expect("undamaged blocks")).map(|run| (key.clone(), run)));
            let instants =
                series.instants(all.0, all.1, ScanOrder::Ascending).flat_map(|piece| piece.expect("undamaged blocks"));
            parts.instants.extend(instants.map(|time| (key.clone(), time)));
            let revisions = series
                .revisions(all.0, all.1, all.1, ScanOrder::Ascending)
                .flat_map(|piece| piece.expect("undamaged blocks"));
            parts.revisions.extend(revisions.map(|revision| (key.clone(), revision)));
        }
        let mut next = (view.commit.sequence > 0).then_some(view.commit);
        while let Some(commit) = next {
            parts.commits.push((commit.sequence, commit.recorded_time));
            next = view.commit_at(commit.recorded_time.saturating_add_us(-1)).expect("undamaged blocks");
        }
        parts.commits.reverse();
        parts
    }

    /// Writes the directory of a full export.
    pub(crate) fn write(&self, directory: &Path) {
        fs::create_dir_all(directory).expect("a directory");
        let windows: ArrayRef = Arc::new(Int64Array::from_iter_values(self.series.iter().map(|(_, us)| *us)));
        let mut columns = names(&self.series);
        columns.push(("collapse_window_us", windows));
        write(&directory.join("series.parquet"), columns);
        let runs: Vec<&Run> = self.runs.iter().map(|(_, run)| run).collect();
        write(&directory.join("runs.parquet"), [names(&self.runs), run_columns(&runs)].concat());
        let instants = self.instants.iter().map(|(_, time)| *time);
        write(
            &directory.join("timeline.parquet"),
            [names(&self.instants), vec![("observed_time", times(instants))]].concat(),
        );
        let revised: Vec<&Run> = self.revisions.iter().map(|(_, revision)| &revision.run).collect();
        let superseded = times(self.revisions.iter().map(|(_, revision)| revision.superseded_time));
        write(
            &directory.join("revisions.parquet"),
            [names(&self.revisions), run_columns(&revised), vec![("superseded_time", superseded)]].concat(),
        );
        let sequences: ArrayRef = Arc::new(UInt64Array::from_iter_values(self.commits.iter().map(|(at, _)| *at)));
        let recorded = times(self.commits.iter().map(|(_, time)| *time));
        write(&directory.join("commits.parquet"), vec![("sequence", sequences), ("recorded_time", recorded)]);
        let text =
            |texts: Vec<&str>| -> ArrayRef { Arc::new(texts.into_iter().collect::<DictionaryArray<Int32Type>>()) };
        let poll_times = |time: fn(&PollSpan) -> Timestamp| times(self.polls.iter().map(move |(_, span)| time(span)));
        let counts = UInt64Array::from_iter_values(self.polls.iter().map(|(_, span)| span.poll_count));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("source", text(self.polls.iter().map(|(source, _)| source.as_str()).collect())),
            ("first_poll_time", poll_times(|span| span.first_poll_time)),
            ("last_poll_time", poll_times(|span| span.last_poll_time)),
            ("covered_until_time", poll_times(|span| span.covered_until)),
            ("poll_count", Arc::new(counts)),
            ("health", text(self.polls.iter().map(|(_, span)| span.health.name()).collect())),
        ];
        write(&directory.join("polls.parquet"), columns);
        write(&directory.join("quarantine.parquet"), held_columns(&self.held));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("source", text(self.archive.iter().map(|decision| decision.source.as_str()).collect())),
            ("recorded_time", times(self.archive.iter().map(|decision| decision.recorded_time))),
            (
                "archived",
                Arc::new(self.archive.iter().map(|decision| Some(decision.is_archived)).collect::<BooleanArray>()),
            ),
            (
                "note",
                Arc::new(
                    self.archive
                        .iter()
                        .map(|decision| decision.note.as_ref().map(ToString::to_string))
                        .collect::<StringArray>(),
                ),
            ),
        ];
        write(&directory.join("archive.parquet"), columns);
        self.write_manifest(directory);
    }

    /// Writes a manifest of the files as they are on disk.
    pub(crate) fn write_manifest(&self, directory: &Path) {
        let counts = BTreeMap::from([
            ("series.parquet", self.series.len()),
            ("runs.parquet", self.runs.len()),
            ("timeline.parquet", self.instants.len()),
            ("revisions.parquet", self.revisions.len()),
            ("commits.parquet", self.commits.len()),
            ("polls.parquet", self.polls.len()),
            ("quarantine.parquet", self.held.len()),
            ("archive.parquet", self.archive.len()),
        ]);
        let parts: Vec<Value> = counts
            .into_iter()
            .map(|(name, rows)| {
                let bytes = fs::read(directory.join(name)).expect("a file just written");
                json!({ "name": name, "row_count": rows, "byte_count": bytes.len(), "sha256": sha256(&bytes) })
            })
            .collect();
        let mut manifest = json!({
            "schema_version": 2,
            "sequence": self.commit.sequence,
            "recorded_time": self.commit.recorded_time.to_string(),
            "product_version": "0.1.0",
            "filter": {},
            "parts": parts,
        });
        if let Some(time) = self.last_ingest_time {
            manifest["last_ingest_time"] = json!(time.to_string());
        }
        fs::write(directory.join("manifest.json"), manifest.to_string()).expect("a manifest");
    }
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// A named column.
pub(crate) type Named = (&'static str, ArrayRef);

pub(crate) fn names<T>(rows: &[((String, String), T)]) -> Vec<Named> {
    let pairs: DictionaryArray<Int32Type> = rows.iter().map(|((pair, _), _)| pair.as_str()).collect();
    let sources: DictionaryArray<Int32Type> = rows.iter().map(|((_, source), _)| source.as_str()).collect();
    vec![("pair", Arc::new(pairs)), ("source", Arc::new(sources))]
}

fn times(times: impl Iterator<Item = Timestamp>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(times.map(Timestamp::micros)).with_timezone("UTC"))
}

pub(crate) fn run_columns(runs: &[&Run]) -> Vec<Named> {
    let change = |run: &Run| run.value.reported_change;
    let rates = runs.iter().map(|run| {
        let rate = run.value.rate;
        rate.mantissa().cast_signed() * 10_i128.pow(18 - u32::from(rate.places()))
    });
    let changes = runs.iter().map(|run| {
        change(run).map(|change| {
            let magnitude = i128::from(change.mantissa()) * 10_i128.pow(12 - u32::from(change.places()));
            if change.is_negative() { -magnitude } else { magnitude }
        })
    });
    let rates = Decimal128Array::from_iter_values(rates).with_precision_and_scale(38, 18).expect("38 digits");
    let changes = changes.collect::<Decimal128Array>().with_precision_and_scale(24, 12).expect("24 digits");
    let doubles = runs.iter().map(|run| Some(run.value.rate.to_string().parse::<f64>().expect("a decimal")));
    vec![
        ("first_observed_time", times(runs.iter().map(|run| run.first_observed_time))),
        ("last_observed_time", times(runs.iter().map(|run| run.last_observed_time))),
        ("recorded_time", times(runs.iter().map(|run| run.recorded_time))),
        ("rate", Arc::new(rates)),
        ("rate_double", Arc::new(doubles.collect::<PrimitiveArray<Float64Type>>())),
        ("published_places", Arc::new(UInt8Array::from_iter_values(runs.iter().map(|run| run.value.rate.places())))),
        ("reported_change_percent", Arc::new(changes)),
        (
            "reported_change_places",
            Arc::new(runs.iter().map(|run| change(run).map(ReportedChange::places)).collect::<UInt8Array>()),
        ),
        (
            "reported_change_negative",
            Arc::new(runs.iter().map(|run| change(run).map(ReportedChange::is_negative)).collect::<BooleanArray>()),
        ),
        ("observation_count", Arc::new(UInt64Array::from_iter_values(runs.iter().map(|run| run.observation_count)))),
    ]
}

fn rates(rates: impl Iterator<Item = Rate>) -> ArrayRef {
    let units = rates.map(|rate| rate.mantissa().cast_signed() * 10_i128.pow(18 - u32::from(rate.places())));
    Arc::new(Decimal128Array::from_iter_values(units).with_precision_and_scale(38, 18).expect("38 digits"))
}

pub(crate) fn held_columns(held: &[HeldTick]) -> Vec<Named> {
    let runs: Vec<Run> = held.iter().map(|tick| Run::single(tick.observed_time, tick.value, tick.held_time)).collect();
    let values = run_columns(&runs.iter().collect::<Vec<_>>());
    let value = |name: &str| values.iter().find(|(other, _)| *other == name).cloned().expect("a column");
    let series: Vec<((String, String), ())> =
        held.iter().map(|tick| ((tick.series.pair.to_string(), tick.series.source.to_string()), ())).collect();
    let state = |tick: &HeldTick| {
        tick.decision.as_ref().map_or("HELD".to_owned(), |decision| format!("{:?}", decision.verdict).to_uppercase())
    };
    let decided = held.iter().map(|tick| tick.decision.as_ref().map(|decision| decision.decided_time.micros()));
    let notes = held.iter().map(|tick| Some(tick.decision.as_ref()?.note.as_ref()?.to_string()));
    let own: Vec<Named> = vec![
        ("id", Arc::new(UInt64Array::from_iter_values(held.iter().map(|tick| tick.id)))),
        ("observed_time", times(held.iter().map(|tick| tick.observed_time))),
        ("rate_in_force", rates(held.iter().map(|tick| tick.rate_in_force))),
        (
            "rate_in_force_places",
            Arc::new(UInt8Array::from_iter_values(held.iter().map(|tick| tick.rate_in_force.places()))),
        ),
        ("held_time", times(held.iter().map(|tick| tick.held_time))),
        ("state", Arc::new(StringArray::from_iter_values(held.iter().map(state)))),
        ("decided_time", Arc::new(decided.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
        ("note", Arc::new(notes.collect::<StringArray>())),
    ];
    let of_value =
        ["rate", "published_places", "reported_change_percent", "reported_change_places", "reported_change_negative"];
    [names(&series), own, of_value.map(value).to_vec()].concat()
}

/// Writes a Parquet file with these columns.
pub(crate) fn write(path: &Path, columns: Vec<Named>) {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let compression = Compression::ZSTD(ZstdLevel::try_new(3).expect("a level"));
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("a good disk");
    writer.close().expect("a good disk");
}
