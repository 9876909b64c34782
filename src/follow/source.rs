//! The publishers that can be followed, and what each is asked.
//!
//! **Invariant**: pure: which tables are asked for is a function of the source and the time.

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

/// A text that names no publisher to follow, or no URL of one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FollowedSourceError {
    /// No source known here.
    #[error("'{0}' cannot be followed; choose among timesca, nbkr, nbk, nbt, cbu and cbt")]
    Unknown(String),
    /// Not of the form of a source with its URL.
    #[error("'{0}' is not SOURCE=URL; write it like cbu=https://mirror.example.org/cbu")]
    NotUrl(String),
    /// A URL that must not be shown.
    #[error("{}", FeedUrlError::Secret)]
    Secret,
}

/// A URL at which no publisher is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FeedUrlError {
    /// Not of http or https, without a host, or with more than a path after that.
    #[error("it is no URL of http or https that ends with its path; write one like https://mirror.example.org/cbu")]
    NotUrl,
    /// Logs and lists of settings show URLs.
    #[error("it has a user or a password in it, which the log and 'silkrate sources' would show; leave those out")]
    Secret,
}

impl FollowedSource {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Timesca, Self::Nbkr, Self::Nbk, Self::Nbt, Self::Cbu, Self::Cbt];

    /// Reads a slug.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn parse(text: &str) -> Result<Self, FollowedSourceError> {
        let found = Self::ALL.into_iter().find(|source| source.name() == text);
        found.ok_or_else(|| FollowedSourceError::Unknown(truncate_for_display(text)))
    }

    /// Its slug.
    pub const fn name(self) -> &'static str {
        match self.bank_feeds().first() {
            Some(feed) => feed.source_name(),
            None => TICKER_NAME,
        }
    }

    /// The slug as a source.
    ///
    /// # Errors
    /// None as long as the slugs here are slugs, which a test shows.
    pub fn source(self) -> Result<Source, SourceError> {
        Source::parse(self.name())
    }

    /// Where it publishes.
    pub const fn base_url(self) -> &'static str {
        match self.bank_feeds().first() {
            Some(feed) => feed.base_url(),
            None => TICKER_BASE_URL,
        }
    }

    /// The tables that are followed; none of the ticker.
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

    /// The table that can be asked for past days; none of the ticker, and of a bank that has only its newest.
    pub fn by_date(self) -> Option<BankFeed> {
        self.bank_feeds().iter().copied().find(|feed| feed.is_by_date())
    }

    /// What to ask at `now`: of a table by date that of today and that of tomorrow, in the bank's zone.
    pub fn targets(self, now: Timestamp) -> Vec<FetchTarget> {
        if self.bank_feeds().is_empty() {
            return vec![FetchTarget::Ticker];
        }
        let mut targets = Vec::new();
        for feed in self.bank_feeds() {
            let today = feed.zone().local(now).date();
            targets.push(FetchTarget::Bank { request: BankRequest::new(*feed, today), is_ahead: false });
            if let Some(tomorrow) = today.succ_opt().filter(|_| feed.is_by_date()) {
                targets.push(FetchTarget::Bank { request: BankRequest::new(*feed, tomorrow), is_ahead: true });
            }
        }
        targets
    }

    /// The zone and the time of day of publication, in seconds; none of the ticker.
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

/// What is asked in one fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchTarget {
    /// The ticker page.
    Ticker,
    /// A bank's table.
    Bank {
        /// Which.
        request: BankRequest,
        /// Of tomorrow: that it is not there yet is as it should be.
        is_ahead: bool,
    },
}

impl FetchTarget {
    /// Where the answer is, under the publisher's base.
    pub fn url(self, base_url: &str) -> String {
        match self {
            Self::Ticker => format!("{}/", base_url.trim_end_matches('/')),
            Self::Bank { request, .. } => request.url(base_url),
        }
    }

    /// The longest answer that is read, in bytes.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Ticker => TickerPage::PAGE_BYTES_MAX,
            Self::Bank { request, .. } => request.body_bytes_max(),
        }
    }
}

/// A URL in place of a publisher's own: of a mirror, or of a test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedUrl {
    /// Whose.
    pub source: FollowedSource,
    /// Scheme, host, and what stands before the publisher's own path.
    pub base_url: String,
}

impl FeedUrl {
    /// Reads `SOURCE=URL`, with a URL of http or https.
    ///
    /// # Errors
    /// Any [`FollowedSourceError`].
    pub fn parse(text: &str) -> Result<Self, FollowedSourceError> {
        let bad = || FollowedSourceError::NotUrl(truncate_for_display(text));
        let (source, base_url) = text.split_once('=').ok_or_else(bad)?;
        Self::check(base_url).map_err(|error| match error {
            FeedUrlError::NotUrl => bad(),
            FeedUrlError::Secret => FollowedSourceError::Secret,
        })?;
        Ok(Self { source: FollowedSource::parse(source)?, base_url: base_url.to_owned() })
    }

    /// Whether publishers can be asked at a URL: of http or https, with a host, and with nothing in it that must not be
    /// shown.
    ///
    /// # Errors
    /// [`FeedUrlError`].
    pub fn check(base_url: &str) -> Result<(), FeedUrlError> {
        let url = reqwest::Url::parse(base_url).map_err(|_| FeedUrlError::NotUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FeedUrlError::Secret);
        }
        // What follows the path would end up in the middle of the URLs made of it.
        let is_base = url.has_host() && url.query().is_none() && url.fragment().is_none();
        if matches!(url.scheme(), "http" | "https") && is_base { Ok(()) } else { Err(FeedUrlError::NotUrl) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_slugs_and_read_back() {
        for source in FollowedSource::ALL {
            assert_eq!(source.source().unwrap().to_string(), source.name());
            assert_eq!(FollowedSource::parse(source.name()), Ok(source));
            assert!(source.base_url().starts_with("https://"), "{source}");
        }
        assert_eq!(
            FollowedSource::parse("ecb").unwrap_err().to_string(),
            "'ecb' cannot be followed; choose among timesca, nbkr, nbk, nbt, cbu and cbt"
        );
    }

    #[test]
    fn what_is_asked_follows_the_calendar_of_the_bank() {
        let check = |source: FollowedSource, now: &str, expect: &[&str]| {
            let urls = source.targets(Timestamp::parse(now).unwrap()).into_iter().map(|target| target.url("b"));
            assert_eq!(urls.collect::<Vec<_>>(), expect, "{source} at {now}");
        };
        check(FollowedSource::Timesca, "2026-05-18T20:00:00Z", &["b/"]);
        check(FollowedSource::Nbkr, "2026-05-18T20:00:00Z", &["b/XML/daily.xml", "b/XML/weekly.xml"]);
        // Tashkent is five hours ahead: a day ends at 19:00 UTC.
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
    fn urls_in_place_of_the_publishers() {
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
