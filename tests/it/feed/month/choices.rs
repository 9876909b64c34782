//! Which source answers each pair during the simulated month, and why it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use silkrate::domain::{CurrencySet, Pair, Source, Timestamp};
use silkrate::query::{Moment, RateAnswer, RateRequest, Reader};
use silkrate::store::View;
use tokio_util::sync::CancellationToken;

use crate::support;

/// Every pair of two currencies, without the inverses: an inverse has the same sources.
const PAIRS: [&str; 15] = [
    "KGS/USD", "KZT/USD", "TJS/USD", "TMT/USD", "UZS/USD", "KGS/KZT", "KGS/TJS", "KGS/TMT", "KGS/UZS", "KZT/TJS",
    "KZT/TMT", "KZT/UZS", "TJS/TMT", "TJS/UZS", "TMT/UZS",
];
/// The interval at which the answers are compared.
const STEP_US: i64 = 3_600 * Timestamp::SECOND_US;

/// Why another source answers than one step before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reason {
    /// A source of the earlier answer became stale.
    BecameStale,
    /// A source of the new answer was stale or had no rate before, and ranks higher.
    IsFreshAgain,
    /// All sources were fresh before and after, so a rate with another number of digits changed the order.
    OtherDigits,
}

/// A change of the sources of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Switch {
    pub(crate) time: Timestamp,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) reason: Reason,
}

/// Answers requests from a view, with the built-in settings.
fn reader(view: Arc<View>) -> Reader {
    let config = support::config(&tempfile::tempdir().unwrap(), &[]);
    let rules = config.store_options().state_rules.clone();
    let now = view.commit.recorded_time;
    Reader::new(view, now, Arc::new(rules), CancellationToken::new()).with_sources(&Arc::new(config.sources().clone()))
}

/// The rate of a pair at a time; none without a quote. With `sources`, the rate by these sources.
fn rate(reader: &Reader, pair: &str, sources: &[Source], time: Timestamp) -> Option<RateAnswer> {
    let request = RateRequest {
        pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(),
        source: None,
        leg_sources: sources.to_vec(),
        time: Some(Moment::At(time)),
        zone: None,
        max_age_us: None,
        known_time: None,
    };
    reader.rate(&request).ok().map(|answer| answer.body)
}

fn sources(answer: &RateAnswer) -> Vec<Source> {
    answer.legs.iter().map(|(series, _)| series.source.clone()).collect()
}

fn text(answer: &RateAnswer) -> String {
    let legs: Vec<String> = answer.legs.iter().map(|(series, _)| series.to_string()).collect();
    legs.join(" * ")
}

/// Returns the changes of the sources of each pair in `[begin, end)`.
pub(crate) fn switches(view: Arc<View>, begin: Timestamp, end: Timestamp) -> BTreeMap<&'static str, Vec<Switch>> {
    let reader = reader(view);
    let steps = end.micros_since(begin) / STEP_US;
    let of_pair = |pair: &'static str| {
        let mut found = Vec::new();
        let mut before: Option<RateAnswer> = None;
        for time in (0..steps).map(|step| begin.saturating_add_us(step * STEP_US)) {
            let Some(answer) = rate(&reader, pair, &[], time) else { continue };
            if let Some(before) = before.as_ref().filter(|before| text(before) != text(&answer)) {
                let is_fresh = |answer: Option<RateAnswer>| answer.is_some_and(|answer| !answer.is_stale);
                let earlier = time.saturating_add_us(-STEP_US);
                let reason = if !is_fresh(rate(&reader, pair, &sources(before), time)) {
                    Reason::BecameStale
                } else if !is_fresh(rate(&reader, pair, &sources(&answer), earlier)) {
                    Reason::IsFreshAgain
                } else {
                    Reason::OtherDigits
                };
                found.push(Switch { time, from: text(before), to: text(&answer), reason });
            }
            before = Some(answer);
        }
        (pair, found)
    };
    PAIRS.into_iter().map(of_pair).collect()
}
