//! `GetLatestRates`: the answer that is asked for most, from memory.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::convert::{latest_rate, timestamp};
use crate::board::Board;
use crate::domain::Timestamp;
use crate::proto::v1;
use crate::query::{SeriesFilter, latest};

/// All rates of a board as messages.
struct Written {
    board: Arc<Board>,
    rates: Vec<v1::LatestRate>,
}

/// Answers polls. What a poll without conditions gets is written once a board: its digits do not change until the
/// next commit.
///
/// **Invariant**: the answer kept is that of the board it is kept with; another board never meets it.
#[derive(Default)]
pub(super) struct LatestAnswers {
    all: ArcSwapOption<Written>,
}

impl LatestAnswers {
    /// What `board` says, to one who saw `since_sequence`, it being `now`.
    pub(super) fn answer(
        &self,
        board: &Arc<Board>,
        filter: &SeriesFilter,
        since_sequence: u64,
        now: Timestamp,
    ) -> v1::GetLatestRatesResponse {
        let everything = filter.is_empty() && (since_sequence == 0 || since_sequence > board.sequence);
        let rates = if everything {
            self.all(board)
        } else {
            latest(board, filter, since_sequence).map(|quote| latest_rate(quote)).collect()
        };
        v1::GetLatestRatesResponse {
            rates,
            sequence: board.sequence,
            recorded_time: Some(timestamp(board.recorded_time)),
            server_time: Some(timestamp(now)),
            last_ingest_time: board.last_ingest_time.map(timestamp),
        }
    }

    fn all(&self, board: &Arc<Board>) -> Vec<v1::LatestRate> {
        if let Some(written) = self.all.load().as_ref().filter(|written| Arc::ptr_eq(&written.board, board)) {
            return written.rates.clone();
        }
        let rates: Vec<v1::LatestRate> = board.quotes.iter().map(|quote| latest_rate(quote)).collect();
        self.all.store(Some(Arc::new(Written { board: Arc::clone(board), rates: rates.clone() })));
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::latest_tests::quote;

    fn board(sequence: u64) -> Arc<Board> {
        Arc::new(Board {
            sequence,
            recorded_time: Timestamp::from_micros(5_000_000),
            last_ingest_time: Some(Timestamp::from_micros(4_000_000)),
            quotes: vec![quote("KGS/USD", "timesca", 3), quote("KZT/USD", "timesca", sequence)],
        })
    }

    #[test]
    fn the_kept_answer_equals_the_written_one() {
        let answers = LatestAnswers::default();
        let now = Timestamp::from_micros(6_000_000);
        let none = SeriesFilter::default();
        for board in [board(7), board(7), board(8)] {
            let slow: Vec<_> = board.quotes.iter().map(|quote| latest_rate(quote)).collect();
            for _ in 0..2 {
                let fast = answers.answer(&board, &none, 0, now);
                assert_eq!(fast.rates, slow);
                assert_eq!(fast.sequence, board.sequence);
            }
        }
    }

    #[test]
    fn a_poll_that_saw_it_all_gets_the_sequence_alone() {
        let answers = LatestAnswers::default();
        let now = Timestamp::from_micros(6_000_000);
        let count = |since| answers.answer(&board(7), &SeriesFilter::default(), since, now).rates.len();
        assert_eq!([0, 3, 7, 8].map(count), [2, 1, 0, 2]);
        let empty = answers.answer(&board(7), &SeriesFilter::default(), 7, now);
        assert_eq!(empty.sequence, 7);
        assert_eq!(empty.server_time.unwrap().seconds, 6);
        assert_eq!(empty.last_ingest_time.unwrap().seconds, 4);
    }
}
