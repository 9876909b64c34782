//! Flags of `serve` for followed publishers.
//!
//! **Invariant**: each source is followed at most once, and has at most one URL.

use super::ConfigError;
use crate::follow::{FeedUrl, FollowSettings, FollowedSource};

/// The flags for followed publishers. The doc comments are their help texts.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FollowArgs {
    /// Publishers that the server polls: timesca, nbkr, nbk, nbt, cbu and cbt. If this flag is given, the server polls
    /// only these publishers, whatever the configuration file says. May be repeated or comma-separated [default: the
    /// publishers with follow = true in the configuration file]
    #[arg(long, value_name = "SOURCE", env = "SILKRATE_FOLLOW", value_delimiter = ',',
          value_parser = FollowedSource::parse)]
    pub follow: Vec<FollowedSource>,

    /// Base URL of a mirror or a test server that is polled instead of the publisher, as in
    /// cbu=http://localhost:8000/cbu. May be repeated or comma-separated [default: the URL in the configuration file,
    /// else the publisher's own]
    #[arg(long, value_name = "SOURCE=URL", env = "SILKRATE_FEED_URL", value_delimiter = ',',
          value_parser = FeedUrl::parse)]
    pub feed_url: Vec<FeedUrl>,
}

impl FollowArgs {
    /// Converts the flags to settings. A source that is listed twice is followed once.
    ///
    /// # Errors
    /// Returns `ConfigError::Twice` if a source has two URLs.
    pub(super) fn settings(self) -> Result<FollowSettings, ConfigError> {
        let Self { follow: mut sources, feed_url: urls } = self;
        for (at, url) in urls.iter().enumerate() {
            if let Some(first) = urls[..at].iter().find(|first| first.source == url.source) {
                return Err(ConfigError::Twice {
                    flag: "--feed-url",
                    subject: format!("source {}", url.source),
                    first: first.base_url.clone(),
                    second: url.base_url.clone(),
                });
            }
        }
        sources.sort_unstable();
        sources.dedup();
        Ok(FollowSettings { sources, urls, ..FollowSettings::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_is_followed_once_and_at_one_url() {
        let url = |text: &str| FeedUrl::parse(text).unwrap();
        let (cbu, nbk) = (FollowedSource::Cbu, FollowedSource::Nbk);
        let args = FollowArgs { follow: vec![cbu, nbk, cbu], feed_url: vec![url("cbu=http://a"), url("nbt=http://b")] };
        let settings = args.settings().unwrap();
        assert_eq!(settings.sources, [nbk, cbu]);
        assert_eq!(settings.endpoint(cbu), ("http://a", crate::follow::AddressPolicy::Any));
        assert_eq!(settings.endpoint(nbk), ("https://nationalbank.kz", crate::follow::AddressPolicy::Public));
        let args = FollowArgs { follow: vec![], feed_url: vec![url("cbu=http://a"), url("cbu=http://b")] };
        assert_eq!(
            args.settings().unwrap_err().to_string(),
            "--feed-url is given twice for source cbu: once http://a, once http://b; give it once"
        );
    }
}
