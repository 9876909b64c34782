//! Fan-out of the latest quotes of each commit to all watchers.
//!
//! **Invariants**: the writer wakes one task, independently of the number of watchers. A watcher sees latest quotes in
//! the order of their sequence, and always the newest ones, without a backlog. The channel of the watchers ends when
//! the server stops or when writing stops.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use crate::latest_quotes::LatestQuotes;

/// Forwards the latest quotes of each commit from the writer to the watchers.
#[derive(Debug)]
pub struct FanOut {
    written: watch::Receiver<Arc<LatestQuotes>>,
    latest_quotes_updates: watch::Sender<Arc<LatestQuotes>>,
}

impl FanOut {
    /// Returns the sender for the writer, the fan-out, and the receiver that is cloned for each watcher.
    pub(super) fn new(
        latest_quotes: &Arc<LatestQuotes>,
    ) -> (watch::Sender<Arc<LatestQuotes>>, Self, watch::Receiver<Arc<LatestQuotes>>) {
        let (writer, written) = watch::channel(Arc::clone(latest_quotes));
        let (latest_quotes_updates, watchers) = watch::channel(Arc::clone(latest_quotes));
        (writer, Self { written, latest_quotes_updates }, watchers)
    }

    /// Forwards latest quotes until `end` is ready or the writer drops its sender. Then the channel of all watchers
    /// ends.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        let forward = async {
            while self.written.changed().await.is_ok() {
                let latest_quotes = Arc::clone(&self.written.borrow_and_update());
                self.latest_quotes_updates.send_replace(latest_quotes);
            }
        };
        tokio::select! {
            () = forward => {}
            () = end => {}
        }
    }
}

/// Notifies the fan-out of new latest quotes. Does nothing if their commit was already sent, because a checkpoint
/// publishes the same commit again.
pub(super) fn notify(writer: &watch::Sender<Arc<LatestQuotes>>, latest_quotes: &Arc<LatestQuotes>) {
    writer.send_if_modified(|sent| {
        let is_new = sent.sequence != latest_quotes.sequence;
        if is_new {
            *sent = Arc::clone(latest_quotes);
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
    async fn each_watcher_sees_the_newest_quotes_once() {
        let (writer, fan_out, watchers) = FanOut::new(&latest_quotes(1));
        let (mut one, mut other) = (watchers.clone(), watchers);
        let forwarding = tokio::spawn(fan_out.run(pending()));
        notify(&writer, &latest_quotes(2));
        one.changed().await.unwrap();
        assert_eq!(one.borrow_and_update().sequence, 2);
        // A checkpoint publishes the same commit again, which wakes no watcher. The next commit wakes each watcher
        // once.
        notify(&writer, &latest_quotes(2));
        notify(&writer, &latest_quotes(3));
        one.changed().await.unwrap();
        assert_eq!(one.borrow_and_update().sequence, 3);
        other.changed().await.unwrap();
        assert_eq!(other.borrow_and_update().sequence, 3);
        assert!(!one.has_changed().unwrap() && !other.has_changed().unwrap());
        drop(writer);
        assert!(one.changed().await.is_err(), "watching ends with the writer");
        forwarding.await.unwrap();
    }

    #[tokio::test]
    async fn watching_ends_when_the_end_future_is_ready() {
        let (_writer, fan_out, mut watcher) = FanOut::new(&latest_quotes(1));
        fan_out.run(async {}).await;
        assert!(watcher.changed().await.is_err());
    }
}
