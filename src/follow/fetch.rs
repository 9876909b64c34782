//! Fetching a body over HTTP: conditional, limited in time and size, and never led astray.
//!
//! A redirect is followed within the host that was asked and nowhere else, and a publisher's own address never leads
//! to a machine of the network that this one is in, whatever its DNS says. No compression is asked for, so that a body
//! is as large as what was sent; no proxy is used, since it would resolve names by itself.
//!
//! **Invariant**: a body is given whole or not at all. Every fetch ends within [`FetchLimits::total`].

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue};
use reqwest::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::address_policy::{AddressPolicy, is_public};
use crate::causes::causes;
use crate::domain::{Timestamp, truncate_for_display};

/// What this program calls itself to publishers.
const USER_AGENT: &str = concat!("silkrate/", env!("CARGO_PKG_VERSION"));
/// Redirects followed for one body.
const REDIRECTS_MAX: usize = 4;
/// Longest `ETag` or `Last-Modified` that is kept.
const VALIDATOR_BYTES_MAX: usize = 1_024;

/// How long a fetch may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchLimits {
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub read: Duration,
    /// In all, redirects included.
    pub total: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), read: Duration::from_secs(20), total: Duration::from_mins(1) }
    }
}

/// By what a publisher tells whether a body is still the one that was fetched before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let kept = |name: HeaderName| headers.get(name).filter(|value| value.len() <= VALIDATOR_BYTES_MAX).cloned();
        Self { etag: kept(ETAG), last_modified: kept(LAST_MODIFIED) }
    }

    fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    fn headers(&self) -> HeaderMap {
        let pairs = [(IF_NONE_MATCH, &self.etag), (IF_MODIFIED_SINCE, &self.last_modified)];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// What came of a fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// A body, whole, and what to ask with the next time.
    Body {
        /// Without what the transfer says of its encoding.
        bytes: Vec<u8>,
        /// Empty where the publisher gives none.
        validators: Validators,
    },
    /// The body is still the one that the validators are of.
    NotModified,
}

/// When a publisher wants to be asked again, as it says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryAfter {
    /// So long after its answer.
    Wait(Duration),
    /// At that time.
    At(Timestamp),
}

impl RetryAfter {
    /// Reads the header: a number of seconds, or a date in any of the three forms of RFC 9110; none if it is neither.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // More seconds than a number holds are as good as for ever; whoever waits has a limit.
            return Some(Self::Wait(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
        }
        let time = httpdate::parse_http_date(text).ok()?;
        Some(Self::At(DateTime::<Utc>::from(time).into()))
    }

    /// How long to wait from `now`, which is zero if the time has passed.
    pub fn wait_from(self, now: Timestamp) -> Duration {
        match self {
            Self::Wait(wait) => wait,
            Self::At(time) => {
                Duration::from_micros(u64::try_from(time.micros().saturating_sub(now.micros())).unwrap_or(0))
            }
        }
    }
}

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchError {
    /// What is needed for TLS is not here.
    #[error("cannot set up HTTP: {0}; are the system's root certificates installed?")]
    SetUp(String),
    /// No URL that can be fetched.
    #[error("'{0}' is no http or https URL with a host")]
    Url(String),
    /// The name resolves to nothing but addresses that no publisher has.
    #[error("{0} is at a private address, where no publisher is; check the DNS, or name the URL if a mirror is meant")]
    Private(String),
    /// A host that cannot show who it is, or speaks no TLS.
    #[error("cannot trust {host}: {problem}; check the URL, this machine's clock and its root certificates")]
    Tls {
        /// Whom.
        host: String,
        /// What TLS says.
        problem: String,
    },
    /// Nobody there, or a connection that broke before there was an answer.
    #[error("cannot reach {host}: {problem}")]
    Unreachable {
        /// Whom.
        host: String,
        /// The innermost cause.
        problem: String,
    },
    /// Nothing more came in time.
    #[error("{host} did not answer in time")]
    TimedOut {
        /// Who.
        host: String,
    },
    /// An answer that is neither a body nor `304` to a question with validators.
    #[error("{host} answered {status}")]
    Status {
        /// Who.
        host: String,
        /// With its reason.
        status: StatusCode,
        /// When it wants to be asked again, if it says so.
        retry_after: Option<RetryAfter>,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects to '{to}', which is not followed: {problem}")]
    Redirect {
        /// Who.
        host: String,
        /// Where, clipped.
        to: String,
        /// Why not.
        problem: &'static str,
    },
    /// More than is read.
    #[error("{host} sends more than {max_bytes} bytes; check the URL")]
    TooLarge {
        /// Who.
        host: String,
        /// Allowed.
        max_bytes: usize,
    },
    /// The body ended before it should have.
    #[error("the answer of {host} broke off: {problem}")]
    Cut {
        /// Who.
        host: String,
        /// The innermost cause.
        problem: String,
    },
}

/// What is to be made of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// There is nothing at that address, perhaps only today.
    Absent,
    /// Not reached, or not able to answer: ask again.
    Unreachable,
    /// Reached, and not willing; or what it sends cannot be wanted. Ask again, less often, and look at it.
    Refused,
}

impl FetchError {
    /// What is to be made of it.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Status { status, .. } if matches!(*status, StatusCode::NOT_FOUND | StatusCode::GONE) => {
                Trouble::Absent
            }
            Self::Status { status, .. } if status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT => {
                Trouble::Unreachable
            }
            Self::Tls { .. } | Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Cut { .. } | Self::SetUp(_) => {
                Trouble::Unreachable
            }
            Self::Url(_) | Self::Private(_) | Self::Status { .. } | Self::Redirect { .. } | Self::TooLarge { .. } => {
                Trouble::Refused
            }
        }
    }

    /// Whether there is nothing at that address.
    pub fn is_absence(&self) -> bool {
        self.trouble() == Trouble::Absent
    }

    /// Whether the same request may be answered when it is made again soon.
    pub fn may_pass(&self) -> bool {
        let is_too_many = matches!(self, Self::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS);
        !matches!(self, Self::SetUp(_) | Self::Tls { .. }) && (is_too_many || self.trouble() == Trouble::Unreachable)
    }

    /// When the publisher wants to be asked again, if it says so.
    pub fn retry_after(&self) -> Option<RetryAfter> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }
}

/// A client of one publisher.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    address_policy: AddressPolicy,
    limits: FetchLimits,
}

impl Fetcher {
    /// Makes a client. Reads the system's root certificates.
    ///
    /// # Errors
    /// `SetUp`.
    pub fn new(address_policy: AddressPolicy, limits: FetchLimits) -> Result<Self, FetchError> {
        // The first of the process stays; there is no other here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .no_proxy()
            .referer(false)
            .redirect(redirect::Policy::none())
            .connect_timeout(limits.connect)
            .read_timeout(limits.read);
        if address_policy == AddressPolicy::Public {
            builder = builder.dns_resolver(PublicOnly);
        }
        let client = builder.build().map_err(|error| FetchError::SetUp(innermost(&error)))?;
        Ok(Self { client, address_policy, limits })
    }

    /// Fetches `url`, of which at most `max_bytes` are read; with validators, only if it changed.
    ///
    /// # Errors
    /// Any [`FetchError`].
    pub async fn get(&self, url: &str, validators: &Validators, max_bytes: usize) -> Result<Fetched, FetchError> {
        let url = Url::parse(url)
            .ok()
            .filter(|parsed| self.may_ask(parsed))
            .ok_or_else(|| FetchError::Url(truncate_for_display(url)))?;
        let host = host_of(&url);
        let fetched = timeout(self.limits.total, self.get_within(url, &host, validators, max_bytes)).await;
        fetched.unwrap_or(Err(FetchError::TimedOut { host }))
    }

    /// Names are judged when they are resolved; a number is not resolved.
    fn may_ask(&self, url: &Url) -> bool {
        let is_number_inside = || host_number(url).is_some_and(|address| !is_public(address));
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && (self.address_policy == AddressPolicy::Any || !is_number_inside())
    }

    async fn get_within(
        &self,
        first: Url,
        host: &str,
        validators: &Validators,
        max_bytes: usize,
    ) -> Result<Fetched, FetchError> {
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let request = self.client.get(url.clone()).headers(validators.headers());
            let response = request.send().await.map_err(|error| unanswered(host, &error))?;
            let status = response.status();
            match status {
                StatusCode::OK => return body(response, host, max_bytes).await,
                StatusCode::NOT_MODIFIED if !validators.is_empty() => return Ok(Fetched::NotModified),
                _ if status.is_redirection() && response.headers().contains_key(LOCATION) => {
                    url = redirected(&first, &url, host, response.headers())?;
                }
                _ => {
                    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                    let retry_after = retry_after.and_then(RetryAfter::parse);
                    return Err(FetchError::Status { host: host.to_owned(), status, retry_after });
                }
            }
        }
        Err(FetchError::Redirect {
            host: host.to_owned(),
            to: truncate_for_display(url.as_str()),
            problem: "there are too many",
        })
    }
}

/// Where an answer leads, if that is the same host at the same port, or its port for TLS.
fn redirected(first: &Url, from: &Url, host: &str, headers: &HeaderMap) -> Result<Url, FetchError> {
    let to = headers.get(LOCATION).map(HeaderValue::as_bytes).map(String::from_utf8_lossy).unwrap_or_default();
    let refuse = |problem| FetchError::Redirect { host: host.to_owned(), to: truncate_for_display(&to), problem };
    let url = from.join(&to).map_err(|_| refuse("it is no URL"))?;
    let is_same = url.scheme() == first.scheme() && url.port_or_known_default() == first.port_or_known_default();
    let is_upgrade = (first.scheme(), url.scheme()) == ("http", "https") && first.port().or(url.port()).is_none();
    if url.host() != first.host() {
        return Err(refuse("it is another host"));
    }
    if !is_same && !is_upgrade {
        return Err(refuse("it is another port, or gives up TLS"));
    }
    Ok(url)
}

/// Reads a body piece by piece, and no further than it may be long.
async fn body(mut response: Response, host: &str, max_bytes: usize) -> Result<Fetched, FetchError> {
    let too_large = || FetchError::TooLarge { host: host.to_owned(), max_bytes };
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let validators = Validators::of(response.headers());
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| broken_off(host, &error))? {
        if bytes.len() + piece.len() > max_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Fetched::Body { bytes, validators })
}

fn unanswered(host: &str, error: &reqwest::Error) -> FetchError {
    let host = host.to_owned();
    if causes(error).any(<dyn Error>::is::<NotPublic>) {
        return FetchError::Private(host);
    }
    if error.is_timeout() {
        return FetchError::TimedOut { host };
    }
    if let Some(problem) = causes(error).find_map(tls_problem) {
        return FetchError::Tls { host, problem: tls_words(problem) };
    }
    FetchError::Unreachable { host, problem: innermost(error) }
}

fn broken_off(host: &str, error: &reqwest::Error) -> FetchError {
    let host = host.to_owned();
    if error.is_timeout() {
        return FetchError::TimedOut { host };
    }
    FetchError::Cut { host, problem: innermost(error) }
}

/// What TLS says, if `cause` carries that: I/O errors hide what they wrap from the chain of causes.
fn tls_problem<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = |error: &&'a (dyn Error + 'static)| {
        let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
        Some(inner as &(dyn Error + 'static))
    };
    std::iter::successors(Some(cause), wrapped).find_map(|error| error.downcast_ref())
}

/// In words that are not the host's own.
fn tls_words(problem: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    let certificate =
        if let rustls::Error::InvalidCertificate(certificate) = problem { Some(certificate) } else { None };
    let words = match certificate {
        Some(Bad::UnknownIssuer) => "its certificate is of no issuer known here",
        Some(Bad::Expired | Bad::ExpiredContext { .. }) => "its certificate has expired",
        Some(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => "its certificate is not valid yet",
        Some(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => "its certificate is for another name",
        _ => return truncate_for_display(&problem.to_string()),
    };
    words.to_owned()
}

/// The words at the bottom of a chain of errors. What a publisher has a say in is clipped and escaped.
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(|cause| truncate_for_display(&cause.to_string())).unwrap_or_default()
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn host_number(url: &Url) -> Option<std::net::IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolves names, and leaves out the addresses that are not of the public network.
struct PublicOnly;

/// All addresses of a name were left out.
#[derive(Debug, Error)]
#[error("no public address")]
struct NotPublic;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
            }
            let public: Vec<SocketAddr> = found.into_iter().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
