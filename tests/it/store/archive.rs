//! Decisions to archive sources: durable across kills and checkpoints, and part of the latest quotes.

use std::path::Path;

use silkrate::domain::{Note, Source, Timestamp};
use silkrate::store::{ArchiveRefusal, Store};

use crate::store::durable::{SECOND, key, now, open, value};

/// Stores a tick of each of the series of threads 0 and 1.
fn filled(directory: &Path) -> Store {
    let mut store = open(directory);
    let mut transaction = store.begin(now());
    for thread in 0..2 {
        let series = transaction.series(&key(thread, 0)).unwrap();
        // In the past, so that no commit becomes due by time alone.
        let time = now().saturating_add_us(-SECOND);
        transaction.upsert(series, time, value(0), false).unwrap();
    }
    transaction.commit().unwrap();
    store
}

/// Archives or unarchives a source. Returns whether that changed anything.
fn set(store: &mut Store, source: &Source, is_archived: bool) -> bool {
    let note = Note::parse("a misspelled name").unwrap();
    let mut transaction = store.begin(now());
    let is_changed = transaction.set_archived(source, is_archived, Some(note)).unwrap();
    assert_eq!(transaction.commit().unwrap().is_some(), is_changed, "only a change makes a commit");
    is_changed
}

/// Returns the sources of the latest quotes that are archived.
fn archived_quotes(store: &Store) -> Vec<String> {
    let quotes = store.view().latest_quotes.quotes.clone();
    quotes.iter().filter(|quote| quote.is_archived).map(|quote| quote.series.source.to_string()).collect()
}

#[test]
fn decisions_survive_kills_and_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (key(0, 0).source, key(1, 0).source);
    let mut store = filled(directory.path());
    let before = store.newest_commit();
    assert!(set(&mut store, &first, true));
    assert!(!set(&mut store, &first, true), "the source is already archived");
    assert_eq!(archived_quotes(&store), ["thread-0"]);
    let archived = store.newest_commit();
    assert_eq!(store.view().latest_quotes.quotes[0].changed_sequence, archived.sequence);
    assert_eq!(store.view().latest_quotes.quotes[1].changed_sequence, before.sequence);
    // A dropped store makes no checkpoint, like a killed process: the decision is in the log only.
    drop(store);
    let mut store = open(directory.path());
    assert_eq!((archived_quotes(&store), store.newest_commit()), (vec!["thread-0".to_owned()], archived));
    store.checkpoint().unwrap();
    // One decision is in sled, the next ones are in the log.
    assert!(set(&mut store, &second, true));
    assert!(set(&mut store, &first, false));
    drop(store);
    let mut store = open(directory.path());
    assert_eq!(archived_quotes(&store), ["thread-1"]);
    store.checkpoint().unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(archived_quotes(&store), ["thread-1"]);
    assert_eq!(store.verify().problems, Vec::<String>::new());
    let view = store.view();
    let at = |known: Timestamp| [&first, &second].map(|source| view.archived().is_archived(source, known));
    assert_eq!(at(before.recorded_time), [false, false]);
    assert_eq!(at(archived.recorded_time), [true, false]);
    assert_eq!(at(Timestamp::MAX), [false, true]);
    let notes: Vec<String> =
        view.archived().decisions().map(|decision| decision.note.clone().unwrap().to_string()).collect();
    assert_eq!(notes, ["a misspelled name"; 3]);
}

#[test]
fn source_without_a_series_cannot_be_archived() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = filled(directory.path());
    let wanted = Source::parse("tymesca").unwrap();
    let mut transaction = store.begin(now());
    let refused = transaction.set_archived(&wanted, true, None).unwrap_err();
    let available = vec![key(0, 0).source, key(1, 0).source];
    assert_eq!(refused, ArchiveRefusal::UnknownSource { wanted, available });
    assert_eq!(refused.to_string(), "no series has the source 'tymesca'; sources with series: thread-0, thread-1");
    assert_eq!(transaction.commit().unwrap(), None);
}
