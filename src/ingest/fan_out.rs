//! From the writer to all who wait for the next commit.
//!
//! **Invariants**: the writer wakes one task, however many watch; whoever watches sees boards in order of their
//! sequence, and the newest one, never a backlog. The end of watching is the end of the channel: it comes with the
//! server's, or when writing has stopped.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use crate::board::Board;

/// Passes each new board on, from the writer to the watchers.
#[derive(Debug)]
pub struct FanOut {
    written: watch::Receiver<Arc<Board>>,
    boards: watch::Sender<Arc<Board>>,
}

impl FanOut {
    /// The writer's end, what lies between, and the end that is copied for each watcher.
    pub(super) fn new(board: &Arc<Board>) -> (watch::Sender<Arc<Board>>, Self, watch::Receiver<Arc<Board>>) {
        let (writer, written) = watch::channel(Arc::clone(board));
        let (boards, watchers) = watch::channel(Arc::clone(board));
        (writer, Self { written, boards }, watchers)
    }

    /// Passes boards on until `end`, or until the writer writes no more; then watching ends for all.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        let pass_on = async {
            while self.written.changed().await.is_ok() {
                let board = Arc::clone(&self.written.borrow_and_update());
                self.boards.send_replace(board);
            }
        };
        tokio::select! {
            () = pass_on => {}
            () = end => {}
        }
    }
}

/// Tells of `board`, unless it is of a commit that was told of: a checkpoint publishes the same again.
pub(super) fn tell(writer: &watch::Sender<Arc<Board>>, board: &Arc<Board>) {
    writer.send_if_modified(|told| {
        let is_new = told.sequence != board.sequence;
        if is_new {
            *told = Arc::clone(board);
        }
        is_new
    });
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn board(sequence: u64) -> Arc<Board> {
        Arc::new(Board { sequence, ..Board::default() })
    }

    #[tokio::test]
    async fn watchers_see_the_newest_board_once() {
        let (writer, fan_out, watchers) = FanOut::new(&board(1));
        let (mut one, mut other) = (watchers.clone(), watchers);
        let passing = tokio::spawn(fan_out.run(pending()));
        tell(&writer, &board(2));
        one.changed().await.unwrap();
        assert_eq!(one.borrow_and_update().sequence, 2);
        // Published again by a checkpoint: nobody wakes. The next commit finds each of them once.
        tell(&writer, &board(2));
        tell(&writer, &board(3));
        one.changed().await.unwrap();
        assert_eq!(one.borrow_and_update().sequence, 3);
        other.changed().await.unwrap();
        assert_eq!(other.borrow_and_update().sequence, 3);
        assert!(!one.has_changed().unwrap() && !other.has_changed().unwrap());
        drop(writer);
        assert!(one.changed().await.is_err(), "watching ends with the writer");
        passing.await.unwrap();
    }

    #[tokio::test]
    async fn watching_ends_when_told() {
        let (_writer, fan_out, mut watcher) = FanOut::new(&board(1));
        fan_out.run(async {}).await;
        assert!(watcher.changed().await.is_err());
    }
}
