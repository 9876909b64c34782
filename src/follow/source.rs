//! Publishers that can be followed, and the fetch targets of each.
//!
//! **Invariant**: the fetch targets of a poll are a pure function of the source and the time.

use std::fmt;

use thiserror::Error;

use crate::analysis::Zone;
use crate::domain::{Source, SourceError, Timestamp, truncate_for_display};
use crate::feed::{BankFeed, BankRequest, TickerPage};

const TICKER_NAME: &str = "timesca";
const TICKER_BASE_URL: &str = "https://timesca.com";

/// A publisher that can be followed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FollowedSource {
    /// The ticker page of The Times of Central Asia.
    Timesca,
    /// National Bank of the Kyrgyz Republic.
    Nbkr,
    /// National Bank of Kazakhstan.
    Nbk,
    /// National Bank of Tajikistan.
    Nbt,
    /// Central Bank of the Republic of Uzbekistan.
    Cbu,
    /// Central Bank of Turkmenistan.
    Cbt,
}

/// Why a text cannot be parsed as a followed source, or as a followed source with its URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FollowedSourceError {
    /// The source is unknown.
    #[error("'{0}' cannot be followed; choose one of timesca, nbkr, nbk, nbt, cbu and cbt")]
    Unknown(String),
    /// The text does not have the form `SOURCE=URL`.
    #[error("'{0}' is not SOURCE=URL; write it like cbu=https://mirror.example.org/cbu")]
    NotUrl(String),
    /// The URL contains a secret and must not be displayed.
    #[error("{}", FeedUrlError::Secret)]
    Secret,
}

/// Why a URL cannot replace the URL of a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FeedUrlError {
    /// The scheme is not http or https, the host is missing, or the URL has a query or a fragment.
    #[error(
        "it is not an http or https URL, or it has a query or a fragment; write it like https://mirror.example.org/cbu"
    )]
    NotUrl,
    /// The URL has a user name or a password. Logs and lists of settings display URLs.
    #[error("it has a user name or a password, which the log and 'silkrate sources' would show; remove them")]
    Secret,
}

impl FollowedSource {
    /// Every publisher.
    pub const ALL: [Self; 6] = [Self::Timesca, Self::Nbkr, Self::Nbk, Self::Nbt, Self::Cbu, Self::Cbt];

    /// Parses the slug of a source.
    ///
    /// # Errors
    /// Returns `FollowedSourceError::Unknown` if no publisher has this slug.
    pub fn parse(text: &str) -> Result<Self, FollowedSourceError> {
        let found = Self::ALL.into_iter().find(|source| source.name() == text);
        found.ok_or_else(|| FollowedSourceError::Unknown(truncate_for_display(text)))
    }

    /// The slug of the source.
    pub const fn name(self) -> &'static str {
        match self.bank_feeds().first() {
            Some(feed) => feed.source_name(),
            None => TICKER_NAME,
        }
    }

    /// Returns the slug as a [`Source`].
    ///
    /// # Errors
    /// Never fails, because every slug of this module is valid; a test checks this.
    pub fn source(self) -> Result<Source, SourceError> {
        Source::parse(self.name())
    }

    /// The publisher's own base URL.
    pub const fn base_url(self) -> &'static str {
        match self.bank_feeds().first() {
            Some(feed) => feed.base_url(),
            None => TICKER_BASE_URL,
        }
    }

    /// The followed tables of a bank; empty for the ticker.
    pub const fn bank_feeds(self) -> &'static [BankFeed] {
        match self {
            Self::Timesca => &[],
            Self::Nbkr => &[BankFeed::NbkrDaily, BankFeed::NbkrWeekly],
            Self::Nbk => &[BankFeed::NbkByDate],
            Self::Nbt => &[BankFeed::Nbt],
            Self::Cbu => &[BankFeed::Cbu],
            Self::Cbt => &[BankFeed::Cbt],
        }
    }

    /// The feed that has tables of past days; `None` for the ticker, and for a bank that has only its newest table.
    pub fn by_date(self) -> Option<BankFeed> {
        self.bank_feeds().iter().copied().find(|feed| feed.is_by_date())
    }

    /// Returns the fetch targets of a poll at `now`. A feed that has tables of past days has two targets: the table of
    /// today and the table of tomorrow, in the bank's zone.
    pub fn targets(self, now: Timestamp) -> Vec<FetchTarget> {
        if self.bank_feeds().is_empty() {
            return vec![FetchTarget::Ticker];
        }
        let mut targets = Vec::new();
        for feed in self.bank_feeds() {
            let today = feed.zone().local(now).date();
            targets.push(FetchTarget::Bank { request: BankRequest::new(*feed, today), is_tomorrow: false });
            if let Some(tomorrow) = today.succ_opt().filter(|_| feed.is_by_date()) {
                targets.push(FetchTarget::Bank { request: BankRequest::new(*feed, tomorrow), is_tomorrow: true });
            }
        }
        targets
    }

    /// The time zone of the days of the source: the zone of the bank, and UTC for the ticker.
    pub fn zone(self) -> Zone {
        self.bank_feeds().first().map_or(Zone::UTC, |feed| feed.zone())
    }

    /// The bank's zone and its publication time, in seconds of the day; `None` for the ticker.
    pub(super) fn publication(self) -> Option<(Zone, u32)> {
        let feed = self.bank_feeds().first()?;
        Some((feed.zone(), chrono::Timelike::num_seconds_from_midnight(&feed.publication_time())))
    }
}

impl fmt::Display for FollowedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A page or a table that one fetch requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchTarget {
    /// The ticker page.
    Ticker,
    /// A bank's table.
    Bank {
        /// The requested table.
        request: BankRequest,
        /// True for the table of tomorrow, which the bank may not have published yet.
        is_tomorrow: bool,
    },
}

impl FetchTarget {
    /// Returns the URL of the target under a base URL.
    pub fn url(self, base_url: &str) -> String {
        match self {
            Self::Ticker => format!("{}/", base_url.trim_end_matches('/')),
            Self::Bank { request, .. } => request.url(base_url),
        }
    }

    /// The longest body accepted, in bytes.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Ticker => TickerPage::PAGE_BYTES_MAX,
            Self::Bank { request, .. } => request.body_bytes_max(),
        }
    }
}

/// A URL that replaces the publisher's own URL, for a mirror or a test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedUrl {
    /// The source that is fetched from the URL.
    pub source: FollowedSource,
    /// Scheme, host, and an optional prefix of the publisher's path.
    pub base_url: String,
}

impl FeedUrl {
    /// Parses `SOURCE=URL`, with an http or https URL.
    ///
    /// # Errors
    /// `NotUrl` if the text is not `SOURCE=URL`; `Secret` if the URL has a user name or a password; `Unknown` if the
    /// source cannot be followed.
    pub fn parse(text: &str) -> Result<Self, FollowedSourceError> {
        let not_url = || FollowedSourceError::NotUrl(truncate_for_display(text));
        let (source, base_url) = text.split_once('=').ok_or_else(not_url)?;
        Self::check(base_url).map_err(|error| match error {
            FeedUrlError::NotUrl => not_url(),
            FeedUrlError::Secret => FollowedSourceError::Secret,
        })?;
        Ok(Self { source: FollowedSource::parse(source)?, base_url: base_url.to_owned() })
    }

    /// Checks that a URL can replace the URL of a publisher: an http or https URL with a host, without a query, a
    /// fragment or a secret.
    ///
    /// # Errors
    /// `NotUrl` if the URL does not have this form; `Secret` if it has a user name or a password.
    pub fn check(base_url: &str) -> Result<(), FeedUrlError> {
        let url = reqwest::Url::parse(base_url).map_err(|_| FeedUrlError::NotUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FeedUrlError::Secret);
        }
        // The path of the feed is appended, so a query or a fragment would be in the middle of the URL.
        let is_base = url.has_host() && url.query().is_none() && url.fragment().is_none();
        if matches!(url.scheme(), "http" | "https") && is_base { Ok(()) } else { Err(FeedUrlError::NotUrl) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slug_is_a_valid_source_and_parses_back() {
        for source in FollowedSource::ALL {
            assert_eq!(source.source().unwrap().to_string(), source.name());
            assert_eq!(FollowedSource::parse(source.name()), Ok(source));
            assert!(source.base_url().starts_with("https://"), "{source}");
        }
        assert_eq!(
            FollowedSource::parse("ecb").unwrap_err().to_string(),
            "'ecb' cannot be followed; choose one of timesca, nbkr, nbk, nbt, cbu and cbt"
        );
    }

    #[test]
    fn fetch_targets_follow_the_calendar_of_the_bank() {
        let check = |source: FollowedSource, now: &str, expect: &[&str]| {
            let urls = source.targets(Timestamp::parse(now).unwrap()).into_iter().map(|target| target.url("b"));
            assert_eq!(urls.collect::<Vec<_>>(), expect, "{source} at {now}");
        };
        check(FollowedSource::Timesca, "2026-05-18T20:00:00Z", &["b/"]);
        check(FollowedSource::Nbkr, "2026-05-18T20:00:00Z", &["b/XML/daily.xml", "b/XML/weekly.xml"]);
        // Tashkent is UTC+5: its day ends at 19:00 UTC.
        let all = "b/en/arkhiv-kursov-valyut/json/all";
        let days = |first: &str, second: &str| [format!("{all}/{first}/"), format!("{all}/{second}/")];
        for (now, first, second) in [
            ("2026-05-18T18:59:59Z", "2026-05-18", "2026-05-19"),
            ("2026-05-18T19:00:00Z", "2026-05-19", "2026-05-20"),
            ("2026-12-31T12:00:00Z", "2026-12-31", "2027-01-01"),
        ] {
            check(FollowedSource::Cbu, now, &days(first, second).each_ref().map(String::as_str));
        }
    }

    #[test]
    fn feed_url_is_source_and_url_without_secret() {
        let check = |text: &str, expect: Option<(FollowedSource, &str)>| {
            let found = FeedUrl::parse(text).ok();
            assert_eq!(found.as_ref().map(|url| (url.source, url.base_url.as_str())), expect, "{text}");
        };
        check("cbu=http://127.0.0.1:8080", Some((FollowedSource::Cbu, "http://127.0.0.1:8080")));
        check("nbk=https://mirror.example.org/nbk/", Some((FollowedSource::Nbk, "https://mirror.example.org/nbk/")));
        for bad in
            ["cbu", "cbu=", "cbu=mirror", "ecb=http://a", "cbu=ftp://a", "cbu=http://a?b=c", "=http://a", "cbu=http://"]
        {
            check(bad, None);
        }
        for secret in ["cbu=https://me@a.org", "cbu=https://me:pass@a.org", "cbu=http://:pass@a?b=c"] {
            assert_eq!(FeedUrl::parse(secret), Err(FollowedSourceError::Secret), "{secret}");
        }
    }
}
