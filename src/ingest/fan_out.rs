//! From the writer to all who wait for the next commit.
//!
//! **Invariants**: the writer wakes one task, however many watch; whoever watches sees latest quotes in order of their
//! sequence, and the newest one, never a backlog. The end of watching is the end of the channel: it comes with the
//! server's, or when writing has stopped.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use crate::latest_quotes::LatestQuotes;

/// Passes each new latest quotes on, from the writer to the watchers.
#[derive(Debug)]
pub struct FanOut {
    written: watch::Receiver<Arc<LatestQuotes>>,
    latest_quotes_updates: watch::Sender<Arc<LatestQuotes>>,
}

impl FanOut {
    /// The writer's end, what lies between, and the end that is copied for each watcher.
    pub(super) fn new(
        latest_quotes: &Arc<LatestQuotes>,
    ) -> (watch::Sender<Arc<LatestQuotes>>, Self, watch::Receiver<Arc<LatestQuotes>>) {
        let (writer, written) = watch::channel(Arc::clone(latest_quotes));
        let (latest_quotes_updates, watchers) = watch::channel(Arc::clone(latest_quotes));
        (writer, Self { written, latest_quotes_updates }, watchers)
    }

    /// Passes latest quotes on until `end`, or until the writer writes no more; then watching ends for all.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        let pass_on = async {
            while self.written.changed().await.is_ok() {
                let latest_quotes = Arc::clone(&self.written.borrow_and_update());
                self.latest_quotes_updates.send_replace(latest_quotes);
            }
        };
        tokio::select! {
            () = pass_on => {}
            () = end => {}
        }
    }
}

/// Tells of `latest_quotes`, unless it is of a commit that was told of: a checkpoint publishes the same again.
pub(super) fn tell(writer: &watch::Sender<Arc<LatestQuotes>>, latest_quotes: &Arc<LatestQuotes>) {
    writer.send_if_modified(|told| {
        let is_new = told.sequence != latest_quotes.sequence;
        if is_new {
            *told = Arc::clone(latest_quotes);
        }
        is_new
    });
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn latest_quotes(sequence: u64) -> Arc<LatestQuotes> {
        Arc::new(LatestQuotes { sequence, ..LatestQuotes::default() })
    }

    #[tokio::test]
    async fn watchers_see_the_newest_quotes_once() {
        let (writer, fan_out, watchers) = FanOut::new(&latest_quotes(1));
        let (mut one, mut other) = (watchers.clone(), watchers);
        let passing = tokio::spawn(fan_out.run(pending()));
        tell(&writer, &latest_quotes(2));
        one.changed().await.unwrap();
        assert_eq!(one.borrow_and_update().sequence, 2);
        // Published again by a checkpoint: nobody wakes. The next commit finds each of them once.
        tell(&writer, &latest_quotes(2));
        tell(&writer, &latest_quotes(3));
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
        let (_writer, fan_out, mut watcher) = FanOut::new(&latest_quotes(1));
        fan_out.run(async {}).await;
        assert!(watcher.changed().await.is_err());
    }
}
