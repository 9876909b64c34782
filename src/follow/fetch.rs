//! HTTP client for fetches: conditional requests, limits on time and size, and an address policy.
//!
//! The client follows redirects only within the requested host. With [`AddressPolicy::Public`] it never connects to a
//! private address, even if the DNS returns one. It asks for a body without content coding (`identity`), and
//! decodes gzip, deflate and br all the same, because a server may ignore that. A body in deflate may lack the zlib header
//! of RFC 9110, as some servers send it. It uses no proxy, because a proxy would
//! resolve names itself and bypass the address policy.
//!
//! **Invariant**: a body is returned completely or not at all. Every fetch ends within [`FetchLimits::total`].

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue};
use reqwest::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::address_policy::{AddressPolicy, is_public};
use super::content_coding::{Coding, DecodeError};
use super::user_agent::UserAgent;
use crate::causes::causes;
use crate::domain::{Timestamp, truncate_for_display};

/// Maximum number of redirects of one fetch.
const REDIRECTS_MAX: usize = 4;
/// Longest `ETag` or `Last-Modified` that is kept, in bytes.
const VALIDATOR_BYTES_MAX: usize = 1_024;

/// Timeouts of a fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchLimits {
    /// Timeout for the connection, including TLS.
    pub connect: Duration,
    /// Timeout between two chunks of the response.
    pub read: Duration,
    /// Timeout for the whole fetch, including redirects.
    pub total: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), read: Duration::from_secs(20), total: Duration::from_mins(1) }
    }
}

/// Validators of a body (`ETag` and `Last-Modified`), for conditional requests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let header = |name: HeaderName| headers.get(name).filter(|value| value.len() <= VALIDATOR_BYTES_MAX).cloned();
        Self { etag: header(ETAG), last_modified: header(LAST_MODIFIED) }
    }

    fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    fn headers(&self) -> HeaderMap {
        let pairs = [(IF_NONE_MATCH, &self.etag), (IF_MODIFIED_SINCE, &self.last_modified)];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// Result of a successful fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// A complete body, and the validators for the next conditional request.
    Body {
        /// The bytes of the body, without transfer coding.
        bytes: Vec<u8>,
        /// Validators of the body; empty if the publisher sends none.
        validators: Validators,
    },
    /// The body has not changed since the fetch that gave the validators.
    NotModified,
}

/// The value of a publisher's `Retry-After` header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryAfter {
    /// Wait this long after the response.
    Wait(Duration),
    /// Wait until this time.
    At(Timestamp),
}

impl RetryAfter {
    /// Parses the header: a number of seconds, or a date in one of the three formats of RFC 9110. Returns `None` for
    /// any other value.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // A number beyond `u64` becomes the longest duration. Callers limit the wait.
            return Some(Self::Wait(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
        }
        let time = httpdate::parse_http_date(text).ok()?;
        Some(Self::At(DateTime::<Utc>::from(time).into()))
    }

    /// Returns the wait from `now` on; zero if the time has passed.
    pub fn wait_from(self, now: Timestamp) -> Duration {
        match self {
            Self::Wait(wait) => wait,
            Self::At(time) => {
                Duration::from_micros(u64::try_from(time.micros().saturating_sub(now.micros())).unwrap_or(0))
            }
        }
    }
}

/// Why a fetch gives no body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchError {
    /// The HTTP client or its TLS cannot be set up.
    #[error("cannot set up HTTP: {0}; check that the system's root certificates are installed")]
    SetUp(String),
    /// The URL cannot be fetched.
    #[error("'{0}' is not an http or https URL with an allowed host")]
    Url(String),
    /// The host name resolves only to addresses that the address policy refuses.
    #[error(
        "{0} has only private addresses, but a publisher has a public address; check the DNS or set the URL of a mirror"
    )]
    Private(String),
    /// The host cannot prove its identity, or does not support TLS.
    #[error("cannot trust {host}: {problem}; check the URL, this machine's clock and its root certificates")]
    Tls {
        /// The requested host.
        host: String,
        /// The TLS error.
        problem: String,
    },
    /// The connection failed before there was a response.
    #[error("cannot reach {host}: {problem}")]
    Unreachable {
        /// The requested host.
        host: String,
        /// The innermost cause.
        problem: String,
    },
    /// A timeout of the fetch passed.
    #[error("{host} did not answer in time")]
    TimedOut {
        /// The requested host.
        host: String,
    },
    /// The status is neither `200` nor, for a conditional request, `304`.
    #[error("{host} answered {status}")]
    Status {
        /// The requested host.
        host: String,
        /// Status code, displayed with its reason phrase.
        status: StatusCode,
        /// The `Retry-After` header of the response, if it has a valid one.
        retry_after: Option<RetryAfter>,
    },
    /// The client does not follow a redirect.
    #[error("the redirect of {host} to '{to}' is not followed: {problem}")]
    Redirect {
        /// The requested host.
        host: String,
        /// Target of the redirect, truncated for display.
        to: String,
        /// Why the redirect is not followed.
        problem: &'static str,
    },
    /// The body has a content coding that the client cannot decode.
    #[error(
        "{host} sends a body in the content coding '{coding}', which is not supported; ask the publisher for another one"
    )]
    Coding {
        /// The requested host.
        host: String,
        /// The coding, truncated for display.
        coding: String,
    },
    /// The body is longer than the limit.
    #[error("{host} sends more than {max_bytes} bytes; check the URL")]
    TooLarge {
        /// The requested host.
        host: String,
        /// Longest body allowed, in bytes.
        max_bytes: usize,
    },
    /// The connection failed before the body was complete.
    #[error("the response of {host} is incomplete: {problem}")]
    Truncated {
        /// The requested host.
        host: String,
        /// The innermost cause.
        problem: String,
    },
}

/// Kind of a fetch error. The health of the feed and the decision to retry depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchErrorKind {
    /// There is no resource at the URL. A resource may appear later.
    NotFound,
    /// The publisher was not reached, or was not able to answer. A retry can succeed.
    Unreachable,
    /// The publisher refused the request, or its response is not acceptable. An operator should check the feed.
    Refused,
}

impl FetchError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> FetchErrorKind {
        match self {
            Self::Status { status, .. } if matches!(*status, StatusCode::NOT_FOUND | StatusCode::GONE) => {
                FetchErrorKind::NotFound
            }
            Self::Status { status, .. } if status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT => {
                FetchErrorKind::Unreachable
            }
            Self::Tls { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Truncated { .. }
            | Self::SetUp(_) => FetchErrorKind::Unreachable,
            Self::Url(_)
            | Self::Private(_)
            | Self::Status { .. }
            | Self::Redirect { .. }
            | Self::Coding { .. }
            | Self::TooLarge { .. } => FetchErrorKind::Refused,
        }
    }

    /// Returns true if there is no resource at the URL.
    pub fn is_not_found(&self) -> bool {
        self.kind() == FetchErrorKind::NotFound
    }

    /// Returns true if a retry of the same request can succeed soon.
    pub fn is_retryable(&self) -> bool {
        let is_too_many = matches!(self, Self::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS);
        !matches!(self, Self::SetUp(_) | Self::Tls { .. })
            && (is_too_many || self.kind() == FetchErrorKind::Unreachable)
    }

    /// Returns the `Retry-After` header of the response, if it has a valid one.
    pub fn retry_after(&self) -> Option<RetryAfter> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }
}

/// HTTP client for one publisher.
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
    /// Returns `FetchError::SetUp` if the client or its TLS cannot be set up.
    pub fn new(address_policy: AddressPolicy, limits: FetchLimits, user_agent: &UserAgent) -> Result<Self, FetchError> {
        // The call fails if the process already has a default provider. That provider can only be the crate `ring`, so
        // the failure is ignored.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(user_agent.header())
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]))
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

    /// Fetches `url` and reads a body of at most `max_bytes`. With validators the request is conditional.
    ///
    /// # Errors
    /// Returns a [`FetchError`], but never `SetUp`, if there is no complete body.
    pub async fn get(&self, url: &str, validators: &Validators, max_bytes: usize) -> Result<Fetched, FetchError> {
        let url = Url::parse(url)
            .ok()
            .filter(|parsed| self.is_allowed(parsed))
            .ok_or_else(|| FetchError::Url(truncate_for_display(url)))?;
        let host = host_of(&url);
        let fetched = timeout(self.limits.total, self.get_following_redirects(url, &host, validators, max_bytes)).await;
        fetched.unwrap_or(Err(FetchError::TimedOut { host }))
    }

    /// Checks scheme and host. If the host is an IP address, applies the address policy to it. The resolver applies the
    /// policy to host names.
    fn is_allowed(&self, url: &Url) -> bool {
        let is_private_address = || host_address(url).is_some_and(|address| !is_public(address));
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && (self.address_policy == AddressPolicy::Any || !is_private_address())
    }

    /// Fetches `first`, following redirects, without the total timeout.
    async fn get_following_redirects(
        &self,
        first: Url,
        host: &str,
        validators: &Validators,
        max_bytes: usize,
    ) -> Result<Fetched, FetchError> {
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let request = self.client.get(url.clone()).headers(validators.headers());
            let response = request.send().await.map_err(|error| request_error(host, &error))?;
            let status = response.status();
            match status {
                StatusCode::OK => return read_body(response, host, max_bytes).await,
                StatusCode::NOT_MODIFIED if !validators.is_empty() => return Ok(Fetched::NotModified),
                _ if status.is_redirection() && response.headers().contains_key(LOCATION) => {
                    url = redirect_target(&first, &url, host, response.headers())?;
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
            problem: "there are too many redirects",
        })
    }
}

/// Returns the target of a redirect. The target must have the same host. It must also have the same scheme and port, or
/// upgrade http on the default port to https on the default port.
fn redirect_target(first: &Url, from: &Url, host: &str, headers: &HeaderMap) -> Result<Url, FetchError> {
    let to = headers.get(LOCATION).map(HeaderValue::as_bytes).map(String::from_utf8_lossy).unwrap_or_default();
    let refuse = |problem| FetchError::Redirect { host: host.to_owned(), to: truncate_for_display(&to), problem };
    let url = from.join(&to).map_err(|_| refuse("the target is not a URL"))?;
    let is_same = url.scheme() == first.scheme() && url.port_or_known_default() == first.port_or_known_default();
    let is_upgrade = (first.scheme(), url.scheme()) == ("http", "https") && first.port().or(url.port()).is_none();
    if url.host() != first.host() {
        return Err(refuse("the target has another host"));
    }
    if !is_same && !is_upgrade {
        return Err(refuse("the target has another port, or no TLS"));
    }
    Ok(url)
}

/// Reads a body in chunks, up to the limit, which applies to the decoded body.
async fn read_body(mut response: Response, host: &str, max_bytes: usize) -> Result<Fetched, FetchError> {
    let too_large = || FetchError::TooLarge { host: host.to_owned(), max_bytes };
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    // reqwest decodes gzip and br, and removes the header of a coding that it has decoded.
    let coding = response.headers().get(CONTENT_ENCODING).map_or(Ok(Coding::Identity), Coding::parse);
    let coding = coding.map_err(|coding| FetchError::Coding { host: host.to_owned(), coding })?;
    let validators = Validators::of(response.headers());
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| body_error(host, &error))? {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    let bytes = coding.decode(bytes, max_bytes).map_err(|problem| match problem {
        DecodeError::TooLarge => too_large(),
        DecodeError::Damaged(problem) => FetchError::Truncated { host: host.to_owned(), problem },
    })?;
    Ok(Fetched::Body { bytes, validators })
}

/// Converts an error that occurred before the response.
fn request_error(host: &str, error: &reqwest::Error) -> FetchError {
    let host = host.to_owned();
    if causes(error).any(<dyn Error>::is::<NotPublic>) {
        return FetchError::Private(host);
    }
    if error.is_timeout() {
        return FetchError::TimedOut { host };
    }
    if let Some(problem) = causes(error).find_map(tls_problem) {
        return FetchError::Tls { host, problem: tls_message(problem) };
    }
    FetchError::Unreachable { host, problem: innermost(error) }
}

/// Converts an error that occurred while the body was read.
fn body_error(host: &str, error: &reqwest::Error) -> FetchError {
    let host = host.to_owned();
    if error.is_timeout() {
        return FetchError::TimedOut { host };
    }
    FetchError::Truncated { host, problem: innermost(error) }
}

/// Returns the TLS error in `cause`. The method `source` of an I/O error skips the error inside it, so this function
/// unwraps I/O errors itself.
fn tls_problem<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = |error: &&'a (dyn Error + 'static)| {
        let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
        Some(inner as &(dyn Error + 'static))
    };
    std::iter::successors(Some(cause), wrapped).find_map(|error| error.downcast_ref())
}

/// Returns a message for a TLS error. Common errors have a fixed message. The message of any other error is truncated
/// and escaped for display, because the host may control its text.
fn tls_message(problem: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    let certificate =
        if let rustls::Error::InvalidCertificate(certificate) = problem { Some(certificate) } else { None };
    let message = match certificate {
        Some(Bad::UnknownIssuer) => "its certificate has an unknown issuer",
        Some(Bad::Expired | Bad::ExpiredContext { .. }) => "its certificate has expired",
        Some(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => "its certificate is not valid yet",
        Some(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => "its certificate is for another name",
        _ => return truncate_for_display(&problem.to_string()),
    };
    message.to_owned()
}

/// Returns the message of the innermost cause, truncated and escaped for display, because the publisher may control it.
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(|cause| truncate_for_display(&cause.to_string())).unwrap_or_default()
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn host_address(url: &Url) -> Option<std::net::IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolver of host names that returns only public addresses.
struct PublicOnly;

/// The host name has addresses, but no public one.
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
