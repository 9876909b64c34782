//! What `serve` is told of publishers to follow.
//!
//! **Invariant**: a source is followed once, and asked at one place.

use super::ConfigError;
use crate::follow::{FeedUrl, FollowSettings, FollowedSource};

/// Flags of following.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FollowArgs {
    /// Publishers to follow, each at its own pace: timesca, nbkr, nbk, nbt, cbu, cbt; may be repeated, or a list with
    /// commas
    #[arg(long, value_name = "SOURCE", env = "SILKRATE_FOLLOW", value_delimiter = ',',
          value_parser = FollowedSource::parse)]
    pub follow: Vec<FollowedSource>,

    /// Where a publisher is asked in place of its own address, for a mirror or a test, by its source; may be
    /// repeated, or a list with commas
    #[arg(long, value_name = "SOURCE=URL", env = "SILKRATE_FEED_URL", value_delimiter = ',',
          value_parser = FeedUrl::parse)]
    pub feed_url: Vec<FeedUrl>,
}

impl FollowArgs {
    /// Puts the flags together. To name a source twice asks for nothing more than to name it once.
    ///
    /// # Errors
    /// `Twice`, where a source has two URLs.
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
    fn a_source_is_followed_once_and_at_one_place() {
        let url = |text: &str| FeedUrl::parse(text).unwrap();
        let (cbu, nbk) = (FollowedSource::Cbu, FollowedSource::Nbk);
        let args = FollowArgs { follow: vec![cbu, nbk, cbu], feed_url: vec![url("cbu=http://a"), url("nbt=http://b")] };
        let settings = args.settings().unwrap();
        assert_eq!(settings.sources, [nbk, cbu]);
        assert_eq!(settings.place(cbu), ("http://a", crate::follow::AddressPolicy::Any));
        assert_eq!(settings.place(nbk), ("https://nationalbank.kz", crate::follow::AddressPolicy::Public));
        let args = FollowArgs { follow: vec![], feed_url: vec![url("cbu=http://a"), url("cbu=http://b")] };
        assert_eq!(
            args.settings().unwrap_err().to_string(),
            "--feed-url is given twice for source cbu: once http://a, once http://b; give it once"
        );
    }
}
