//! Encoding of the state rules (the rules that compute the states of quotes) in the log and in the meta record.
//!
//! The encoded rules are appended to a record. Records of earlier versions have no rules, and earlier versions ignore
//! bytes after a record.
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "each name ends with its unit")]
pub(super) struct RulesRecord {
    stale_limit_default_us: i64,
    /// Stale limits of single sources.
    stale_limits_us: Vec<(String, i64)>,
    moving_window_us: i64,
}

impl RulesRecord {
    pub(super) fn new(rules: &StateRules) -> Self {
        let limit_of_source = |(source, limit_us): (&Source, &i64)| (source.to_string(), *limit_us);
        Self {
            stale_limit_default_us: rules.stale_limit_default_us,
            stale_limits_us: rules.stale_limits_us.iter().map(limit_of_source).collect(),
            moving_window_us: rules.moving_window_us,
        }
    }

    /// Decodes the rules. Returns `None` if they are invalid.
    pub(super) fn rules(&self) -> Option<StateRules> {
        let limit_of_source = |(source, limit_us): &(String, i64)| Some((Source::parse(source).ok()?, *limit_us));
        Some(StateRules {
            stale_limit_default_us: self.stale_limit_default_us,
            stale_limits_us: self.stale_limits_us.iter().map(limit_of_source).collect::<Option<BTreeMap<_, _>>>()?,
            moving_window_us: self.moving_window_us,
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
        bytes.extend(keys::encode(rules)?);
    }
    Ok(bytes)
}

/// Decodes a record and the rules after it. Returns `None` if they are invalid.
pub(super) fn decode_with_rules<R: DeserializeOwned>(bytes: &[u8]) -> Option<(R, Option<RulesRecord>)> {
    let (record, rest) = postcard::take_from_bytes(bytes).ok()?;
    let rules = if rest.is_empty() { None } else { Some(postcard::from_bytes(rest).ok()?) };
    Some((record, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_with_optional_rules_round_trips() {
        let rules = StateRules {
            stale_limit_default_us: 7,
            stale_limits_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), 8)]),
            moving_window_us: 9,
        };
        let record = RulesRecord::new(&rules);
        assert_eq!(record.rules(), Some(rules));
        for rules in [None, Some(record)] {
            let bytes = encode_with_rules(&(1_u64, "text"), rules.as_ref()).unwrap();
            assert_eq!(decode_with_rules::<(u64, String)>(&bytes), Some(((1, "text".to_owned()), rules)));
        }
        assert_eq!(decode_with_rules::<(u64, String)>(&[1, 0, 0xFF]), None);
    }
}
