//! The rules by which the states of quotes are found, as the log and the store's own record have them.
//!
//! They stand behind a record. Records of earlier versions end before them, and earlier versions pass over what follows a
//! record.
//!
//! **Invariant**: replaying a commit finds the states that it had, whatever rules the store is opened with.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::keys;
use crate::domain::Source;
use crate::latest_quotes::StateRules;

/// Rules of states. All durations in microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "each says its unit")]
pub(super) struct RulesRecord {
    stale_limit_default_us: i64,
    /// By source.
    stale_limits_us: Vec<(String, i64)>,
    moving_window_us: i64,
}

impl RulesRecord {
    pub(super) fn new(rules: &StateRules) -> Self {
        let of_source = |(source, limit_us): (&Source, &i64)| (source.to_string(), *limit_us);
        Self {
            stale_limit_default_us: rules.stale_limit_default_us,
            stale_limits_us: rules.stale_limits_us.iter().map(of_source).collect(),
            moving_window_us: rules.moving_window_us,
        }
    }

    /// The rules again; `None` if they make no sense.
    pub(super) fn rules(&self) -> Option<StateRules> {
        let of_source = |(source, limit_us): &(String, i64)| Some((Source::parse(source).ok()?, *limit_us));
        Some(StateRules {
            stale_limit_default_us: self.stale_limit_default_us,
            stale_limits_us: self.stale_limits_us.iter().map(of_source).collect::<Option<BTreeMap<_, _>>>()?,
            moving_window_us: self.moving_window_us,
        })
    }
}

/// A record and the rules behind it.
///
/// # Errors
/// They cannot be encoded.
pub(super) fn encode_with<R: Serialize>(record: &R, rules: Option<&RulesRecord>) -> Result<Vec<u8>, StoreError> {
    let mut bytes = keys::encode(record)?;
    if let Some(rules) = rules {
        bytes.extend(keys::encode(rules)?);
    }
    Ok(bytes)
}

/// Both again; `None` if they do not decode.
pub(super) fn decode_with<R: DeserializeOwned>(bytes: &[u8]) -> Option<(R, Option<RulesRecord>)> {
    let (record, rest) = postcard::take_from_bytes(bytes).ok()?;
    let rules = if rest.is_empty() { None } else { Some(postcard::from_bytes(rest).ok()?) };
    Some((record, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_behind_a_record_or_do_not() {
        let rules = StateRules {
            stale_limit_default_us: 7,
            stale_limits_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), 8)]),
            moving_window_us: 9,
        };
        let record = RulesRecord::new(&rules);
        assert_eq!(record.rules(), Some(rules));
        for rules in [None, Some(record)] {
            let bytes = encode_with(&(1_u64, "text"), rules.as_ref()).unwrap();
            assert_eq!(decode_with::<(u64, String)>(&bytes), Some(((1, "text".to_owned()), rules)));
        }
        assert_eq!(decode_with::<(u64, String)>(&[1, 0, 0xFF]), None);
    }
}
