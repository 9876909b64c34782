//! Retention: which backups are kept, such as `24h,30d,12mo`.
//!
//! Of each of the last 24 hours that have a backup the newest one is kept, likewise of each of the last 30 days, and of
//! each of the last 12 months. Hours, days and months are those of the taken time, in UTC.
//!
//! **Invariant**: the newest backup is always kept.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use thiserror::Error;

use crate::domain::{Timestamp, truncate_for_display};

/// Largest number of periods of one length.
const PERIODS_MAX: u32 = 10_000;

/// A rule of retention.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keep(Vec<(u32, Period)>);

/// The length of a period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

const PERIODS: [(&str, Period); 5] =
    [("h", Period::Hour), ("d", Period::Day), ("w", Period::Week), ("mo", Period::Month), ("y", Period::Year)];

impl Period {
    /// The period that contains a time. Equal texts mean the same period.
    fn of(self, time: DateTime<Utc>) -> String {
        let format = match self {
            Self::Hour => "%Y-%m-%d %H",
            Self::Day => "%Y-%m-%d",
            Self::Week => "%G-%V",
            Self::Month => "%Y-%m",
            Self::Year => "%Y",
        };
        time.format(format).to_string()
    }
}

/// Why a text is not a rule of retention.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeepError {
    /// A part is not a number with a unit.
    #[error("'{0}' is not a number of hours, days, weeks, months or years; write the rule like 24h,30d,12mo")]
    Part(String),
    /// A number is out of range.
    #[error("'{0}' is not from 1 to {PERIODS_MAX}; write the rule like 24h,30d,12mo")]
    Count(String),
    /// A unit is given twice.
    #[error("'{0}' repeats a unit; give each unit once, like 24h,30d,12mo")]
    Twice(String),
}

impl FromStr for Keep {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Self, KeepError> {
        let mut rules: Vec<(u32, Period)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let shown = || truncate_for_display(part);
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = part.split_at(digits);
            let period = PERIODS.iter().find(|(name, _)| *name == unit).filter(|_| digits > 0);
            let (_, period) = period.ok_or_else(|| KeepError::Part(shown()))?;
            let count = number.parse().ok().filter(|count| (1..=PERIODS_MAX).contains(count));
            let count = count.ok_or_else(|| KeepError::Count(shown()))?;
            if rules.iter().any(|(_, other)| other == period) {
                return Err(KeepError::Twice(shown()));
            }
            rules.push((count, *period));
        }
        Ok(Self(rules))
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (count, period)) in self.0.iter().enumerate() {
            let unit = PERIODS.iter().find(|(_, other)| other == period).map_or("", |(name, _)| name);
            write!(f, "{}{count}{unit}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl Keep {
    /// Returns which backups are kept, given the times at which they were taken: one bool for each.
    pub(super) fn kept(&self, taken: &[Timestamp]) -> Vec<bool> {
        let mut newest_first: Vec<usize> = (0..taken.len()).collect();
        newest_first.sort_by_key(|at| std::cmp::Reverse((taken[*at], *at)));
        let mut kept = vec![false; taken.len()];
        if let Some(newest) = newest_first.first() {
            kept[*newest] = true;
        }
        for (count, period) in &self.0 {
            let mut seen = BTreeSet::new();
            for at in &newest_first {
                if seen.len() == usize::try_from(*count).unwrap_or(usize::MAX) {
                    break;
                }
                // The newest of its period comes first.
                if seen.insert(period.of(taken[*at].to_chrono())) {
                    kept[*at] = true;
                }
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: &str, times: &[&str], expect: &[&str]) {
        let taken: Vec<Timestamp> = times.iter().map(|time| Timestamp::parse_rfc3339(time).unwrap()).collect();
        let kept = rule.parse::<Keep>().unwrap().kept(&taken);
        let found: Vec<_> = times.iter().zip(kept).filter_map(|(time, kept)| kept.then_some(*time)).collect();
        assert_eq!(found, expect, "{rule}");
    }

    #[test]
    fn newest_backup_of_each_period_is_kept() {
        let times = [
            "2026-10-31T23:59:59Z",
            "2026-11-01T00:00:00Z",
            "2026-11-30T10:00:00Z",
            "2026-11-30T10:59:00Z",
            "2026-11-30T12:10:00Z",
            "2026-11-30T12:20:00Z",
        ];
        check("1h", &times, &[times[5]]);
        check("2h", &times, &[times[3], times[5]]);
        check("24h", &times, &[times[0], times[1], times[3], times[5]]);
        check("2d", &times, &[times[1], times[5]]);
        check("12mo", &times, &[times[0], times[5]]);
        check("1h,3d", &times, &[times[0], times[1], times[5]]);
        check("1y", &times, &[times[5]]);
        check("1w", &times, &[times[5]]);
        check("24h", &[], &[]);
    }

    #[test]
    fn hours_without_a_backup_do_not_count() {
        check(
            "2h",
            &["2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"],
            &["2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"],
        );
    }

    #[test]
    fn rule_is_parsed_or_refused_with_reason() {
        let check = |text: &str, expect: Result<&str, &str>| match (text.parse::<Keep>(), expect) {
            (Ok(keep), Ok(shown)) => assert_eq!(keep.to_string(), shown),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("24h,30d,12mo", Ok("24h,30d,12mo"));
        check("1w, 2y", Ok("1w,2y"));
        for bad in ["", "24", "h", "24m", "24h,", "-1h"] {
            check(bad, Err("write the rule like 24h,30d,12mo"));
        }
        check("0h", Err("'0h' is not from 1 to 10000"));
        check("99999999999h", Err("is not from 1 to 10000"));
        check("1h,2h", Err("'2h' repeats a unit"));
    }
}
