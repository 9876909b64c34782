//! Backups in a bucket with the protocol of S3.
//!
//! The settings come from the variables of AWS: credentials and region, `AWS_ENDPOINT_URL` for other stores, and
//! `AWS_ALLOW_HTTP=true` for one without TLS. Requests are repeated with backoff, up to a time limit.
//!
//! **Invariant**: a message names the request and the answer, and no credentials.

use std::future::Future;
use std::time::{Duration, Instant};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore as _, ObjectStoreExt as _, PutPayload, RetryConfig};
use tokio::time::sleep;
use tokio_stream::StreamExt as _;

use super::names::Listed;
use crate::backoff::Backoff;
use crate::causes::causes;

/// How often a request is repeated, and how long.
const RETRIES_MAX: usize = 8;
const RETRY_TIMEOUT: Duration = Duration::from_secs(90);
/// The wait before the first repetition, and the longest one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often an operation is attempted that the client does not repeat.
const ATTEMPTS_MAX: u32 = 5;
const BACKOFF: Backoff = Backoff { first: FIRST_WAIT, longest: LONGEST_WAIT };
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt may take.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// Longest part of an answer of the store that a message shows.
const MESSAGE_CHARS_MAX: usize = 500;

/// A bucket with backups under a prefix.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: String,
}

impl Bucket {
    /// Sets up the client. Sends no request.
    pub(super) fn open(bucket: &str, prefix: &str) -> Result<Self, String> {
        // The client takes its cryptography from the default of the process. Setting it again is refused, which is
        // harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: FIRST_WAIT, max_backoff: LONGEST_WAIT, base: 2.0 },
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        };
        // `from_env` reads AWS_ALLOW_HTTP into the options of the client, so they are not replaced but extended.
        let allows_http = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        let options = ClientOptions::new()
            .with_allow_http(allows_http)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT);
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_client_options(options)
            .build()
            .map_err(|error| message(&error))?;
        Ok(Self { store, prefix: prefix.to_owned() })
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.split('/').chain(name.split('/')).filter(|part| !part.is_empty()).collect()
    }

    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), String> {
        let payload = PutPayload::from(bytes);
        repeat(|| async { self.store.put(&self.path(name), payload.clone()).await.map(drop) }).await
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let read = || async {
            match self.store.get(&self.path(name)).await {
                Ok(found) => Ok(Some(found.bytes().await?.into())),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        repeat(read).await
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Listed>, String> {
        repeat(|| self.list_once(folder)).await
    }

    async fn list_once(&self, folder: &str) -> Result<Vec<Listed>, object_store::Error> {
        let root = self.path("");
        let mut objects = self.store.list(Some(&self.path(folder)));
        let mut found = Vec::new();
        while let Some(object) = objects.next().await {
            let object = object?;
            let parts = object.location.prefix_match(&root).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
            let name = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
            found.push(Listed { name, bytes: object.size, modified: object.last_modified.into() });
        }
        Ok(found)
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), String> {
        let delete = || async {
            match self.store.delete(&self.path(name)).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        };
        repeat(delete).await
    }
}

/// Repeats an operation that fails for a reason that may pass. The client repeats requests by itself, but not, for
/// example, after the body of a list was cut. After [`RETRY_TIMEOUT`] no further attempt begins.
async fn repeat<T, F: Future<Output = Result<T, object_store::Error>>>(operation: impl Fn() -> F) -> Result<T, String> {
    let begun = Instant::now();
    for failures in 1..=ATTEMPTS_MAX {
        match operation().await {
            Ok(done) => return Ok(done),
            Err(error @ object_store::Error::Generic { .. })
                if failures < ATTEMPTS_MAX && begun.elapsed() < RETRY_TIMEOUT =>
            {
                tracing::debug!("repeating a request: {}", message(&error));
                sleep(BACKOFF.wait_after(failures)).await;
            }
            Err(error) => return Err(message(&error)),
        }
    }
    Err("the requests failed".to_owned())
}

/// The message of an error with its innermost cause, on one line.
fn message(error: &object_store::Error) -> String {
    let whole = error.to_string().replace(['\n', '\r'], " ");
    let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let whole = if whole.contains(&cause) { whole } else { format!("{whole}: {cause}") };
    whole.chars().take(MESSAGE_CHARS_MAX).filter(|c| !c.is_control()).collect()
}
