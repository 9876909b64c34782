//! Backups while the store goes on: late ticks, slices and checkpoints replace the blocks that a backup has yet to read.

use std::time::{Duration, Instant};

use silkrate::backup::{At, Piece, Writer, produce};
use silkrate::clock::Clock as _;
use silkrate::store::CheckpointLimits;

use super::{Fixture, back_up, directory, sequence};

/// Limits that make a checkpoint or a slice follow almost every commit.
const SMALL: CheckpointLimits =
    CheckpointLimits { log_bytes: 4 << 10, head_items: 500, mutable_segments: 2, sealed_blocks: 4 };

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_late_ticks_replace_are_kept_until_the_backup_has_read_them() {
    let mut fixture = Fixture::start_with(20, |options| options.checkpoint = SMALL);
    fixture.steps(20, 500).await;
    // The fixture itself must not keep the blocks.
    fixture.views.clear();
    let source = fixture.ingest().backup_point().await.unwrap().open().unwrap();
    let before: Vec<u64> = source.records().blocks().iter().map(silkrate::store::IndexedBlock::id).collect();
    for _ in 0..30 {
        fixture.step(500).await;
        fixture.views.clear();
    }
    let after = fixture.ingest().backup_point().await.unwrap().open().unwrap();
    let replaced = before.iter().filter(|id| after.records().block(**id).is_none()).count();
    assert!(replaced > 10, "only {replaced} of {} blocks were replaced", before.len());
    for block in source.records().blocks() {
        source.read(block).unwrap_or_else(|error| panic!("block {}: {error}", block.id()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_under_ingest_is_one_commit() {
    let mut fixture = Fixture::start_with(21, |options| options.checkpoint = SMALL);
    let to = fixture.path("backup");
    fixture.steps(5, 1_000).await;
    let mut sequences = Vec::new();
    for _ in 0..4 {
        let (ingest, target, now) = (fixture.ingest().clone(), directory(&to), fixture.clock.now());
        let backing_up = tokio::spawn(async move { back_up(&ingest, &target, now).await.unwrap() });
        while !backing_up.is_finished() {
            fixture.step(100).await;
        }
        fixture.clock.advance_us(super::SECOND_US);
        sequences.push(sequence(&backing_up.await.unwrap()));
    }
    assert!(sequences.is_sorted(), "{sequences:?}");
    for sequence in sequences {
        fixture.check_restore(&directory(&to), At::Sequence(sequence), sequence).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_points_at_the_same_time_are_both_complete() {
    let mut fixture = Fixture::start(22);
    let (one, other) = (fixture.path("one"), fixture.path("other"));
    fixture.steps(5, 500).await;
    let now = fixture.clock.now();
    let (to_one, to_other) = (directory(&one), directory(&other));
    let (first, second) =
        tokio::join!(back_up(fixture.ingest(), &to_one, now), back_up(fixture.ingest(), &to_other, now));
    for (to, written) in [(one, first), (other, second)] {
        let expected = sequence(&written.unwrap());
        fixture.check_restore(&directory(&to), At::Newest, expected).await;
    }
}

/// Sends the pieces of a stream to a writer, which breaks after some messages with blocks. Returns the number of blocks that
/// the server announced.
async fn stream(fixture: &Fixture, writer: &mut Writer, block_pieces_max: usize) -> u64 {
    let source = fixture.ingest().backup_point().await.unwrap().open().unwrap();
    let mut pieces = Vec::new();
    produce(&source, &writer.bases(), &mut |piece| {
        pieces.push(piece);
        true
    })
    .unwrap();
    let (mut announced, mut block_pieces) = (0, 0);
    for piece in pieces {
        match &piece {
            Piece::Header(header) => announced = header.block_count,
            Piece::Blocks(blocks) => {
                // The pieces of this small store would have all blocks.
                for block in blocks.iter().take(block_pieces_max - block_pieces) {
                    block_pieces += 1;
                    writer.accept(Piece::Blocks(vec![block.clone()])).await.unwrap();
                }
                if block_pieces == block_pieces_max {
                    return announced;
                }
                continue;
            }
            Piece::Records(_) | Piece::End(_) => {}
        }
        writer.accept(piece).await.unwrap();
    }
    announced
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_stream_is_continued_at_a_later_commit_with_the_blocks_that_it_lacks() {
    let mut fixture = Fixture::start(24);
    let to = fixture.path("backup");
    fixture.steps(4, 2_000).await;
    fixture.back_up(&to).await;
    fixture.steps(4, 2_000).await;
    let mut writer = Writer::begin(directory(&to), fixture.clock.now()).await.unwrap();
    let first = stream(&fixture, &mut writer, 5).await;
    assert!(first > 10, "{first} blocks");
    assert!(writer.resume().await.unwrap());
    // Without a commit in between, exactly the other blocks follow.
    assert_eq!(stream(&fixture, &mut writer, 3).await, first - 5);
    assert!(writer.resume().await.unwrap());
    assert!(!writer.resume().await.unwrap(), "nothing was written since then");
    fixture.steps(1, 10).await;
    stream(&fixture, &mut writer, usize::MAX).await;
    let written = writer.finish().await.unwrap();
    fixture.check_restore(&directory(&to), At::Newest, sequence(&written)).await;
    let verified = silkrate::backup::verify(&directory(&to), None, None, &mut |_, _| {}).await.unwrap();
    assert_eq!(verified.problems, []);
}

/// Prints how long the writer is held for a backup of a larger store. `SILKRATE_TEST_BACKUP_STEPS` makes it larger.
#[tokio::test(flavor = "multi_thread")]
async fn writer_is_held_only_while_it_reads_small_records() {
    let mut fixture = Fixture::start(23);
    let steps = std::env::var("SILKRATE_TEST_BACKUP_STEPS").map_or(4, |steps| steps.parse().unwrap());
    for _ in 0..steps {
        fixture.step(50_000).await;
        fixture.views.clear();
    }
    // The first point makes a checkpoint of all changes; the second one only reads.
    drop(fixture.ingest().backup_point().await.unwrap());
    let began = Instant::now();
    let point = fixture.ingest().backup_point().await.unwrap();
    let held = began.elapsed();
    let source = point.open().unwrap();
    let (records, blocks) = (source.records().record_count(), source.records().blocks().len());
    println!("{records} records of {blocks} blocks: the writer was held {held:?}");
    assert!(held < Duration::from_secs(5), "{held:?}");
}
