//! Encoding of the state rules (the rules that compute the states of quotes) in the log and in the meta record.
//!
//! The encoded rules are appended to a record: the limits, then the moving windows of single sources, then the stale
//! limits of single series. Records of earlier versions lack the last parts, or have no rules at all. Earlier versions
//! ignore the bytes that they do not know.
//!
//! **Invariant**: replaying a commit computes the same states as the original commit, even if the store is opened with
//! other rules.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::keys;
use crate::domain::{Pair, SeriesKey, Source};
use crate::latest_quotes::StateRules;

/// The encoded state rules. All durations are in microseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RulesRecord {
    limits: Limits,
    moving_windows_us: DurationsBySource,
    series_stale_limits_us: DurationsBySeries,
}

/// A duration of each of several sources.
type DurationsBySource = Vec<(String, i64)>;

/// A duration of each of several series: pair, source, duration.
type DurationsBySeries = Vec<(String, String, i64)>;

/// The first part of encoded rules.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "each name ends with its unit")]
struct Limits {
    stale_limit_default_us: i64,
    stale_limits_us: DurationsBySource,
    moving_window_default_us: i64,
}

impl RulesRecord {
    pub(super) fn new(rules: &StateRules) -> Self {
        let by_source = |durations: &BTreeMap<Source, i64>| {
            durations.iter().map(|(source, duration_us)| (source.to_string(), *duration_us)).collect()
        };
        let by_series =
            |(key, duration_us): (&SeriesKey, &i64)| (key.pair.to_string(), key.source.to_string(), *duration_us);
        Self {
            limits: Limits {
                stale_limit_default_us: rules.stale_limit_default_us,
                stale_limits_us: by_source(&rules.stale_limits_us),
                moving_window_default_us: rules.moving_window_default_us,
            },
            moving_windows_us: by_source(&rules.moving_windows_us),
            series_stale_limits_us: rules.series_stale_limits_us.iter().map(by_series).collect(),
        }
    }

    /// Decodes the rules. Returns `None` if they are invalid.
    pub(super) fn rules(&self) -> Option<StateRules> {
        let by_source = |durations: &DurationsBySource| {
            let durations = durations.iter();
            durations
                .map(|(source, duration_us)| Some((Source::parse(source).ok()?, *duration_us)))
                .collect::<Option<BTreeMap<_, _>>>()
        };
        let by_series = |(pair, source, duration_us): &(String, String, i64)| {
            let key = SeriesKey { pair: Pair::parse_iso(pair).ok()?, source: Source::parse(source).ok()? };
            Some((key, *duration_us))
        };
        Some(StateRules {
            stale_limit_default_us: self.limits.stale_limit_default_us,
            stale_limits_us: by_source(&self.limits.stale_limits_us)?,
            series_stale_limits_us: self.series_stale_limits_us.iter().map(by_series).collect::<Option<_>>()?,
            moving_window_default_us: self.limits.moving_window_default_us,
            moving_windows_us: by_source(&self.moving_windows_us)?,
        })
    }
}

/// Encodes a record, and after it the rules if there are any.
///
/// # Errors
/// Returns `Io` if the record or the rules cannot be encoded.
pub(super) fn encode_with_rules<R: Serialize>(record: &R, rules: Option<&RulesRecord>) -> Result<Vec<u8>, StoreError> {
    let mut bytes = keys::encode(record)?;
    if let Some(rules) = rules {
        bytes.extend(keys::encode(&rules.limits)?);
        bytes.extend(keys::encode(&rules.moving_windows_us)?);
        bytes.extend(keys::encode(&rules.series_stale_limits_us)?);
    }
    Ok(bytes)
}

/// Decodes a record and the rules after it. Returns the record, the rules and the bytes after the rules; `None` if the
/// record or the rules are invalid.
pub(super) fn decode_with_rules<R: DeserializeOwned>(bytes: &[u8]) -> Option<(R, Option<RulesRecord>, &[u8])> {
    let (record, rest) = postcard::take_from_bytes(bytes).ok()?;
    if rest.is_empty() {
        return Some((record, None, rest));
    }
    let (limits, rest) = postcard::take_from_bytes(rest).ok()?;
    let (moving_windows_us, rest) = take_or_default(rest)?;
    let (series_stale_limits_us, rest) = take_or_default(rest)?;
    Some((record, Some(RulesRecord { limits, moving_windows_us, series_stale_limits_us }), rest))
}

/// Decodes a part that a record of an earlier version lacks.
fn take_or_default<T: DeserializeOwned + Default>(bytes: &[u8]) -> Option<(T, &[u8])> {
    if bytes.is_empty() { Some((T::default(), bytes)) } else { postcard::take_from_bytes(bytes).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::series_key;

    #[test]
    fn record_with_optional_rules_round_trips() {
        let rules = StateRules {
            stale_limit_default_us: 7,
            stale_limits_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), 8)]),
            series_stale_limits_us: BTreeMap::from([(series_key("UZS/KGS", "nbkr").unwrap(), 11)]),
            moving_window_default_us: 9,
            moving_windows_us: BTreeMap::from([(Source::parse("cbu").unwrap(), 10)]),
        };
        let record = RulesRecord::new(&rules);
        assert_eq!(record.rules(), Some(rules));
        for rules in [None, Some(record)] {
            let mut bytes = encode_with_rules(&(1_u64, "text"), rules.as_ref()).unwrap();
            let rest: &[u8] = if rules.is_some() { &[7] } else { &[] };
            bytes.extend(rest);
            assert_eq!(decode_with_rules::<(u64, String)>(&bytes), Some(((1, "text".to_owned()), rules, rest)));
        }
        assert_eq!(decode_with_rules::<(u64, String)>(&[1, 0, 0xFF]), None);
    }

    #[test]
    fn rules_of_an_earlier_version_lack_the_last_parts() {
        let limits = Limits { stale_limit_default_us: 7, stale_limits_us: Vec::new(), moving_window_default_us: 9 };
        let first = [keys::encode(&1_u64).unwrap(), keys::encode(&limits).unwrap()].concat();
        let windows: DurationsBySource = vec![("cbu".to_owned(), 10)];
        let second = [first.clone(), keys::encode(&windows).unwrap()].concat();
        for (bytes, window_us) in [(first, 9), (second, 10)] {
            let (_, rules, rest) = decode_with_rules::<u64>(&bytes).unwrap();
            let rules = rules.and_then(|rules| rules.rules()).unwrap();
            assert_eq!(rules.moving_window_us(&Source::parse("cbu").unwrap()), window_us);
            assert_eq!((rules.series_stale_limits_us.len(), rest), (0, &[][..]));
        }
    }
}
