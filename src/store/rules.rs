//! Encoding of the state rules (the rules that compute the states of quotes) in the log and in the meta record.
//!
//! The encoded rules are appended to a record: the limits, then the moving windows of single sources. Records of earlier
//! versions have no rules, or have limits alone. Earlier versions ignore the bytes that they do not know.
//!
//! **Invariant**: replaying a commit computes the same states as the original commit, even if the store is opened with
//! other rules.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::keys;
use crate::domain::Source;
use crate::latest_quotes::StateRules;

/// The encoded state rules. All durations are in microseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RulesRecord {
    limits: Limits,
    moving_windows_us: DurationsBySource,
}

/// A duration of each of several sources.
type DurationsBySource = Vec<(String, i64)>;

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
        Self {
            limits: Limits {
                stale_limit_default_us: rules.stale_limit_default_us,
                stale_limits_us: by_source(&rules.stale_limits_us),
                moving_window_default_us: rules.moving_window_default_us,
            },
            moving_windows_us: by_source(&rules.moving_windows_us),
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
        Some(StateRules {
            stale_limit_default_us: self.limits.stale_limit_default_us,
            stale_limits_us: by_source(&self.limits.stale_limits_us)?,
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
    }
    Ok(bytes)
}

/// Decodes a record and the rules after it. Returns `None` if they are invalid.
pub(super) fn decode_with_rules<R: DeserializeOwned>(bytes: &[u8]) -> Option<(R, Option<RulesRecord>)> {
    let (record, rest) = postcard::take_from_bytes(bytes).ok()?;
    if rest.is_empty() {
        return Some((record, None));
    }
    let (limits, rest) = postcard::take_from_bytes(rest).ok()?;
    let moving_windows_us = if rest.is_empty() { Vec::new() } else { postcard::from_bytes(rest).ok()? };
    Some((record, Some(RulesRecord { limits, moving_windows_us })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_with_optional_rules_round_trips() {
        let rules = StateRules {
            stale_limit_default_us: 7,
            stale_limits_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), 8)]),
            moving_window_default_us: 9,
            moving_windows_us: BTreeMap::from([(Source::parse("cbu").unwrap(), 10)]),
        };
        let record = RulesRecord::new(&rules);
        assert_eq!(record.rules(), Some(rules));
        for rules in [None, Some(record)] {
            let bytes = encode_with_rules(&(1_u64, "text"), rules.as_ref()).unwrap();
            assert_eq!(decode_with_rules::<(u64, String)>(&bytes), Some(((1, "text".to_owned()), rules)));
        }
        assert_eq!(decode_with_rules::<(u64, String)>(&[1, 0, 0xFF]), None);
    }

    #[test]
    fn rules_of_an_earlier_version_have_one_moving_window() {
        let limits = Limits { stale_limit_default_us: 7, stale_limits_us: Vec::new(), moving_window_default_us: 9 };
        let bytes = [keys::encode(&1_u64).unwrap(), keys::encode(&limits).unwrap()].concat();
        let (_, rules) = decode_with_rules::<u64>(&bytes).unwrap();
        let rules = rules.and_then(|rules| rules.rules()).unwrap();
        assert_eq!(rules.moving_window_us(&Source::parse("cbu").unwrap()), 9);
    }
}
