//! Which parts of a chart observations confirm, and which parts are silences.
//!
//! **Invariant**: every instant of a range is either confirmed or within a silence, and never both.

use crate::domain::Timestamp;
use crate::query::{DownsampledSeries, Silence};

/// If the silences of a chart cover more than this part of its range, in percent, then hatching them shows nothing. Such
/// a chart marks its observations instead.
const SPARSE_ABOVE_PERCENT: i128 = 80;

/// Returns true if silences cover almost all of the range.
pub(super) fn is_sparse(series: &DownsampledSeries) -> bool {
    let length = |from: Timestamp, until: Timestamp| i128::from(until.micros_since(from));
    let silent: i128 = series.silences.iter().map(|silence| length(silence.from, silence.until)).sum();
    silent * 100 > length(series.range.start(), series.range.end()) * SPARSE_ABOVE_PERCENT
}

/// Returns the parts of a time range outside the silences, which are sorted and do not overlap.
pub(super) fn confirmed(from: Timestamp, until: Timestamp, silences: &[Silence]) -> Vec<(Timestamp, Timestamp)> {
    let mut parts = Vec::new();
    let mut start = from;
    for silence in silences.iter().filter(|silence| silence.until > from && silence.from < until) {
        if silence.from > start {
            parts.push((start, silence.from));
        }
        start = silence.until;
    }
    if start < until {
        parts.push((start, until));
    }
    parts
}

/// Returns the parts of a time range within the silences, which are sorted and do not overlap.
pub(super) fn unconfirmed(from: Timestamp, until: Timestamp, silences: &[Silence]) -> Vec<(Timestamp, Timestamp)> {
    let overlapping = silences.iter().filter(|silence| silence.until > from && silence.from < until);
    overlapping.map(|silence| (silence.from.max(from), silence.until.min(until))).collect()
}

/// Returns the observations before and after each silence, in order. `starts_observed` is true if the range starts at an
/// observation: the start of a range may also cut a silence.
pub(super) fn observations(series: &DownsampledSeries, starts_observed: bool) -> Vec<Timestamp> {
    let (start, end) = (series.range.start(), series.range.end());
    let mut times = Vec::new();
    for silence in &series.silences {
        times.extend((silence.from > start || starts_observed).then_some(silence.from));
        times.extend((silence.until < end).then_some(silence.until));
    }
    times.dedup();
    times
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::query::{Derivation, Range};

    /// Returns a series from 0 to 100 without steps, with silences.
    pub(in crate::http::page) fn series(silences: &[(i64, i64)]) -> DownsampledSeries {
        let at = Timestamp::from_micros;
        DownsampledSeries {
            derivation: Derivation::Direct,
            legs: Vec::new(),
            range: Range::new(Some(at(0)), Some(at(100))).unwrap(),
            steps: Vec::new(),
            is_exact: false,
            move_count: 0,
            lowest: None,
            highest: None,
            silences: silences.iter().map(|(from, until)| Silence { from: at(*from), until: at(*until) }).collect(),
            stale_limits_us: Vec::new(),
        }
    }

    #[test]
    fn chart_is_sparse_if_silences_cover_more_than_four_fifths() {
        let check = |silences: &[(i64, i64)], expect: bool| assert_eq!(is_sparse(&series(silences)), expect);
        check(&[], false);
        check(&[(0, 40), (60, 100)], false);
        check(&[(0, 40), (59, 100)], true);
        check(&[(0, 100)], true);
    }

    #[test]
    fn range_is_divided_at_silences() {
        let check = |silences: &[(i64, i64)], expect: [&[(i64, i64)]; 2]| {
            let silences = series(silences).silences;
            let (from, until) = (Timestamp::from_micros(10), Timestamp::from_micros(90));
            let micros = |parts: Vec<(Timestamp, Timestamp)>| {
                parts.iter().map(|(from, until)| (from.micros(), until.micros())).collect::<Vec<_>>()
            };
            assert_eq!(micros(confirmed(from, until, &silences)), expect[0]);
            assert_eq!(micros(unconfirmed(from, until, &silences)), expect[1]);
        };
        check(&[], [&[(10, 90)], &[]]);
        check(&[(0, 5), (95, 100)], [&[(10, 90)], &[]]);
        check(&[(0, 20), (20, 50), (60, 100)], [&[(50, 60)], &[(10, 20), (20, 50), (60, 90)]]);
    }

    #[test]
    fn observations_are_at_the_ends_of_silences() {
        let check = |silences: &[(i64, i64)], starts_observed: bool, expect: &[i64]| {
            let times = observations(&series(silences), starts_observed);
            assert_eq!(times.iter().map(|time| time.micros()).collect::<Vec<_>>(), expect);
        };
        check(&[], true, &[]);
        check(&[(0, 30), (30, 70), (75, 100)], false, &[30, 70, 75]);
        check(&[(0, 30), (30, 70), (75, 100)], true, &[0, 30, 70, 75]);
    }
}
