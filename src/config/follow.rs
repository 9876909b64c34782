//! Flags of `serve` for followed publishers.
//!
//! **Invariant**: each source is followed at most once, and has at most one URL.

use super::ConfigError;
use crate::follow::{FeedUrl, FollowSettings, FollowedSource, UserAgent};

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

    /// User-Agent header of the polls. A publisher may ask for a contact address in it [default: silkrate/VERSION]
    #[arg(long, value_name = "TEXT", env = "SILKRATE_USER_AGENT", value_parser = UserAgent::parse)]
    pub user_agent: Option<UserAgent>,
}

impl FollowArgs {
    /// Converts the flags to settings. A source that is listed twice is followed once.
    ///
    /// # Errors
    /// Returns `ConfigError::Twice` if a source has two URLs.
    pub(super) fn settings(self) -> Result<FollowSettings, ConfigError> {
        let Self { follow: mut sources, feed_url: urls, user_agent } = self;
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
        let user_agent = user_agent.unwrap_or_default();
        Ok(FollowSettings { sources, urls, user_agent, ..FollowSettings::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_is_followed_once_and_at_one_url() {
        let url = |text: &str| FeedUrl::parse(text).unwrap();
        let (cbu, nbk) = (FollowedSource::Cbu, FollowedSource::Nbk);
        let args = FollowArgs {
            follow: vec![cbu, nbk, cbu],
            feed_url: vec![url("cbu=http://a"), url("nbt=http://b")],
            user_agent: None,
        };
        let settings = args.settings().unwrap();
        assert_eq!(settings.sources, [nbk, cbu]);
        assert_eq!(settings.endpoint(cbu), ("http://a", crate::follow::AddressPolicy::Any));
        assert_eq!(settings.endpoint(nbk), ("https://nationalbank.kz", crate::follow::AddressPolicy::Public));
        let args = FollowArgs { feed_url: vec![url("cbu=http://a"), url("cbu=http://b")], ..FollowArgs::default() };
        assert_eq!(
            args.settings().unwrap_err().to_string(),
            "--feed-url is given twice for source cbu: once http://a, once http://b; give it once"
        );
    }
}
