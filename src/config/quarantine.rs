//! Flags of `serve` for the quarantine.
//!
//! **Invariant**: each source has at most one value: a factor, or `none`.

use std::collections::BTreeMap;

use super::value::subject;
use super::{ConfigError, ValueError, parse_source};
use crate::domain::{RatioThreshold, Source};

/// The value that turns the quarantine off.
const NONE: &str = "none";

/// The flags for the quarantine. The doc comments are their help texts.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct QuarantineArgs {
    /// Smallest ratio at which a tick is held: a number above 1 and at most 1000000, or none to hold no tick. The ratio
    /// is the rate of the tick divided by the rate in force at its observed time, or the reverse. Without SOURCE=, the
    /// value applies to every source that has no value of its own. May be repeated or comma-separated [default: 5]
    #[arg(long, value_name = "[SOURCE=]N", env = "SILKRATE_QUARANTINE_FACTOR", value_delimiter = ',',
          value_parser = SourceFactor::parse)]
    pub quarantine_factor: Vec<SourceFactor>,
}

/// A factor, or `none`, for one source or for all sources without a value of their own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceFactor {
    source: Option<Source>,
    factor: Option<RatioThreshold>,
}

impl SourceFactor {
    /// Parses a value such as `5`, `none`, `nbk=2.5` or `nbk=none`.
    ///
    /// # Errors
    /// Returns `ValueError::Domain` if the source or the factor is invalid.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let (source, factor) = match text.split_once('=') {
            Some((source, factor)) => (Some(parse_source(source)?), factor),
            None => (None, text),
        };
        Ok(Self { source, factor: parse_factor(factor)? })
    }
}

/// Parses a factor, or `none`.
pub(super) fn parse_factor(text: &str) -> Result<Option<RatioThreshold>, ValueError> {
    if text == NONE {
        return Ok(None);
    }
    RatioThreshold::parse(text).map(Some).map_err(|error| ValueError::Domain(error.to_string()))
}

impl QuarantineArgs {
    /// Returns the factors by source. The key `None` has the factor of all sources without a value of their own. A
    /// factor of `None` holds no tick.
    ///
    /// # Errors
    /// Returns `ConfigError::Twice` if a source has two values.
    pub(super) fn factors(self) -> Result<BTreeMap<Option<Source>, Option<RatioThreshold>>, ConfigError> {
        let mut seen: BTreeMap<Option<Source>, Option<RatioThreshold>> = BTreeMap::new();
        for SourceFactor { source, factor: second } in self.quarantine_factor {
            let subject = subject(source.as_ref());
            if let Some(first) = seen.insert(source, second) {
                let shown =
                    |factor: Option<RatioThreshold>| factor.map_or(NONE.to_owned(), |factor| factor.to_string());
                return Err(ConfigError::Twice {
                    flag: "--quarantine-factor",
                    subject,
                    first: shown(first),
                    second: shown(second),
                });
            }
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_at_most_one_factor() {
        let check = |given: &[&str], expect: Result<[Option<&str>; 2], &str>| {
            let parsed: Result<Vec<_>, _> = given.iter().map(|text| SourceFactor::parse(text)).collect();
            let rules = parsed.map_err(|error| error.to_string()).and_then(|quarantine_factor| {
                QuarantineArgs { quarantine_factor }.factors().map_err(|error| error.to_string())
            });
            match (rules, expect) {
                (Ok(rules), Ok(expect)) => {
                    let factor_of = |slug: Option<&str>| {
                        rules
                            .get(&slug.map(|slug| Source::parse(slug).unwrap()))
                            .map(|factor| factor.map_or("none".to_owned(), |factor| factor.to_string()))
                    };
                    assert_eq!(
                        [factor_of(Some("nbk")), factor_of(None)],
                        expect.map(|text| text.map(str::to_owned)),
                        "{given:?}"
                    );
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{given:?}: {error}"),
                (found, _) => panic!("{given:?}: {found:?}"),
            }
        };
        check(&[], Ok([None, None]));
        check(&["2.5"], Ok([None, Some("2.5")]));
        check(&["nbk=none"], Ok([Some("none"), None]));
        check(&["none", "nbk=10"], Ok([Some("10"), Some("none")]));
        check(&["1"], Err("must be above 1"));
        check(&["nbk=five"], Err("factor 'five' is not a plain decimal"));
        check(&["NBK=5"], Err("source 'NBK'"));
        check(&[""], Err("factor ''"));
        check(&["nbk=5", "nbk=none"], Err("given twice for source nbk: once 5, once none"));
        check(&["5", "5"], Err("given twice for sources without a value of their own"));
    }
}
