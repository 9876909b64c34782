//! Backups in a directory: what a restored store answers, which blocks an increment has, and which backups are kept.

use silkrate::backup::{At, Catalog, prune, restore, verify};
use silkrate::clock::Clock as _;
use silkrate::domain::Timestamp;

use super::{Fixture, SECOND_US, directory, files, sequence};

#[tokio::test(flavor = "multi_thread")]
async fn restored_store_answers_as_the_original_did_at_the_commit() {
    let mut fixture = Fixture::start(1);
    let to = fixture.path("backup");
    let mut sequences = Vec::new();
    for _ in 0..4 {
        fixture.steps(6, 400).await;
        sequences.push(sequence(&fixture.back_up(&to).await));
    }
    let from = directory(&to);
    let verified = verify(&from, None, None, &mut |_, _| {}).await.unwrap();
    assert_eq!((verified.problems.len(), verified.backup_count), (0, 4));
    for sequence in &sequences {
        fixture.check_restore(&from, At::Sequence(*sequence), *sequence).await;
    }
    fixture.check_restore(&from, At::Newest, *sequences.last().unwrap()).await;
    // A time between two backups: without the frames of the log, the commits between them are not known.
    let second = fixture.views[&sequences[1]].commit.recorded_time;
    fixture.check_restore(&from, At::Time(second), sequences[1]).await;
    let db = fixture.path("nothing");
    let error = restore(&from, At::Sequence(sequences[1] + 1), None, &db, &mut |_, _| {}).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("these commits can be restored: ") && !db.exists(), "{text}");
    let later = At::Time(second.saturating_add_us(Timestamp::HOUR_US));
    assert!(restore(&from, later, None, &db, &mut |_, _| {}).await.is_err() && !db.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_store_is_backed_up_and_restored() {
    let mut fixture = Fixture::start(2);
    let to = fixture.path("backup");
    let written = fixture.back_up(&to).await;
    let expected = sequence(&written);
    fixture.check_restore(&directory(&to), At::Newest, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn increment_has_only_new_blocks() {
    let mut fixture = Fixture::start(3);
    let to = fixture.path("backup");
    fixture.steps(8, 2_000).await;
    let full = fixture.back_up(&to).await;
    assert_eq!((full.manifest.base_sequence, full.sent_blocks), (None, full.manifest.block_count));
    // Without a commit, no block is new.
    let repeated = fixture.back_up(&to).await;
    assert_eq!((repeated.manifest.base_sequence, repeated.sent_blocks), (Some(sequence(&full)), 0));
    fixture.steps(1, 5).await;
    let small = fixture.back_up(&to).await;
    // The blocks of the ticks, those that late ticks replace, and one of the list of commits.
    assert!((1..=20).contains(&small.sent_blocks), "{} blocks", small.sent_blocks);
    assert!(small.manifest.sent_bytes < full.manifest.sent_bytes);
    let blocks = |store: &silkrate::backup::Manifest| store.block_count;
    assert!(blocks(&small.manifest) >= blocks(&full.manifest));
    fixture.check_restore(&directory(&to), At::Newest, sequence(&small)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_increments_have_few_packs() {
    let mut fixture = Fixture::start(4);
    let to = fixture.path("backup");
    let mut packs = Vec::new();
    for _ in 0..70 {
        fixture.step(20).await;
        packs.push(fixture.back_up(&to).await.manifest.object_count() - 2);
    }
    let most = *packs.iter().max().unwrap();
    assert!(most <= 66, "{most} packs");
    let last = sequence(&fixture.back_up(&to).await);
    fixture.check_restore(&directory(&to), At::Newest, last).await;
    assert_eq!(verify(&directory(&to), None, None, &mut |_, _| {}).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_store_backs_up_beside_the_original_and_shares_no_blocks() {
    let mut fixture = Fixture::start(5);
    let to = fixture.path("backup");
    fixture.steps(4, 500).await;
    let first = fixture.back_up(&to).await;
    restore(&directory(&to), At::Newest, None, &fixture.path("restored"), &mut |_, _| {}).await.unwrap();
    // The original and the restored store diverge: both have other commits with the same sequences.
    fixture.steps(3, 500).await;
    let original = fixture.back_up(&to).await;
    fixture.close();
    let views = std::mem::take(&mut fixture.views);
    fixture.open("restored");
    fixture.steps(3, 500).await;
    let restored = fixture.back_up(&to).await;
    assert_eq!(restored.manifest.base_sequence, None, "a restored store has no base in the backups of the original");
    assert_ne!(restored.manifest.store_id, original.manifest.store_id);
    fixture.check_restore(&directory(&to), At::Newest, sequence(&restored)).await;
    let db = fixture.path("again");
    let store = Some(original.manifest.store_id);
    restore(&directory(&to), At::Newest, store, &db, &mut |_, _| {}).await.unwrap();
    fixture.close();
    fixture.views = views;
    fixture.check_store(&db, sequence(&original));
    assert_eq!(first.manifest.store_id, original.manifest.store_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_was_set_back_to_a_copy_is_backed_up_completely() {
    let mut fixture = Fixture::start(6);
    let to = fixture.path("backup");
    fixture.steps(3, 300).await;
    fixture.back_up(&to).await;
    fixture.close();
    // A view keeps the files of its store open.
    fixture.views.clear();
    copy(&fixture.path("db"), &fixture.path("copy"));
    fixture.open("db");
    fixture.steps(3, 300).await;
    fixture.back_up(&to).await;
    fixture.close();
    // The copy has the same id, and uses the same block ids for other blocks.
    fixture.open("copy");
    fixture.steps(4, 300).await;
    let written = fixture.back_up(&to).await;
    assert_eq!(written.manifest.base_sequence, None);
    let backups = Catalog::read(&directory(&to)).await.unwrap();
    assert_eq!(backups.backups().len(), 3);
    fixture.check_restore(&directory(&to), At::Newest, sequence(&written)).await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for name in files(from) {
        let target = to.join(&name);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&name), target).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_backups_and_then_their_objects_and_nothing_else() {
    let mut fixture = Fixture::start(7);
    let to = fixture.path("backup");
    let mut sequences = Vec::new();
    for _ in 0..6 {
        fixture.steps(2, 200).await;
        sequences.push(sequence(&fixture.back_up(&to).await));
        fixture.clock.advance_us(20 * 60 * SECOND_US);
    }
    let notes = [to.join("notes.txt"), to.join("packs/notes.txt")];
    for note in &notes {
        std::fs::write(note, "not an object").unwrap();
    }
    let before = files(&to).len();
    let (from, keep) = (directory(&to), "2h".parse().unwrap());
    let pruned = prune(&from, &keep, fixture.clock.now()).await.unwrap();
    let left: Vec<u64> = Catalog::read(&from).await.unwrap().backups().iter().map(|backup| backup.sequence).collect();
    assert_eq!((left.len(), left.last()), (2, sequences.last()), "{pruned:?}");
    // The files were written a moment ago. Another backup that is being written may need them.
    let later = silkrate::clock::Clock::now(&silkrate::clock::SystemClock).saturating_add_us(25 * Timestamp::HOUR_US);
    assert_eq!(files(&to).len() + 4, before);
    let pruned = prune(&from, &keep, later).await.unwrap();
    assert!(pruned.backup_count == 0 && pruned.object_count >= 4, "{pruned:?}");
    assert!(notes.iter().all(|note| note.exists()));
    assert_eq!(verify(&from, None, None, &mut |_, _| {}).await.unwrap().problems, []);
    for sequence in left {
        fixture.check_restore(&from, At::Sequence(sequence), sequence).await;
    }
}
