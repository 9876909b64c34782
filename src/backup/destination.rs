//! Where backups are kept: a directory, or a bucket of an object store with the protocol of S3.
//!
//! **Invariant**: [`Destination::put`] returns after the object is durable. An object that appears is complete.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::bucket::Bucket;
use super::directory::Directory;
use super::error::BackupError;
use super::names::Listed;
use crate::domain::truncate_for_display;

const S3: &str = "s3://";

/// The place of backups, as given: `s3://bucket/prefix`, or a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// A directory.
    Directory(PathBuf),
    /// A bucket.
    Bucket {
        /// The name of the bucket.
        bucket: String,
        /// The prefix of all names, without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// Why a text is not a place of backups.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocationError {
    /// The text is empty.
    #[error("it is empty; write a directory, or s3://bucket/prefix")]
    Empty,
    /// The text has an unknown scheme.
    #[error("'{0}' is neither a directory nor s3://bucket/prefix")]
    Scheme(String),
    /// The name of the bucket is invalid.
    #[error("'{0}' has no valid bucket; write s3://bucket/prefix")]
    Bucket(String),
}

impl Location {
    /// Parses a directory or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// Returns why the text is not a place of backups.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let Some(path) = text.strip_prefix(S3) else {
            return match text {
                "" => Err(LocationError::Empty),
                _ if text.contains("://") => Err(LocationError::Scheme(truncate_for_display(text))),
                _ => Ok(Self::Directory(text.into())),
            };
        };
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_valid) {
            return Err(LocationError::Bucket(truncate_for_display(text)));
        }
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "{S3}{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "{S3}{bucket}/{prefix}"),
        }
    }
}

/// An open place of backups.
#[derive(Clone, Debug)]
pub struct Destination {
    location: Location,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory(Directory),
    Bucket(Bucket),
}

impl Destination {
    /// Opens a place of backups. Nothing is read or written yet.
    ///
    /// # Errors
    /// `Bucket` if the settings of the bucket in the environment are invalid.
    pub fn open(location: Location) -> Result<Self, BackupError> {
        let kind = match &location {
            Location::Directory(path) => Kind::Directory(Directory::new(path)),
            Location::Bucket { bucket, prefix } => Kind::Bucket(
                Bucket::open(bucket, prefix)
                    .map_err(|problem| BackupError::Bucket { destination: location.to_string(), problem })?,
            ),
        };
        Ok(Self { location, kind })
    }

    /// The place as given.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Describes an object for messages.
    pub(super) fn describe(&self, name: &str) -> String {
        format!("{}/{name}", self.location)
    }

    fn failed(&self, action: &'static str, name: &str, problem: String) -> BackupError {
        let is_bucket = matches!(self.kind, Kind::Bucket(_));
        BackupError::Object { action, object: self.describe(name), problem, is_bucket }
    }

    /// Writes an object. If it exists, it is replaced.
    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), BackupError> {
        let written = match &self.kind {
            Kind::Directory(directory) => directory.put(name, bytes).await,
            Kind::Bucket(bucket) => bucket.put(name, bytes).await,
        };
        written.map_err(|problem| self.failed("write", name, problem))
    }

    /// Reads an object.
    pub(super) async fn get(&self, name: &str) -> Result<Vec<u8>, BackupError> {
        let read = match &self.kind {
            Kind::Directory(directory) => directory.get(name).await,
            Kind::Bucket(bucket) => bucket.get(name).await,
        };
        match read {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(BackupError::Missing { object: self.describe(name) }),
            Err(problem) => Err(self.failed("read", name, problem)),
        }
    }

    /// Lists the objects in a folder and below it, sorted by name. A folder that does not exist has no objects.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Listed>, BackupError> {
        let listed = match &self.kind {
            Kind::Directory(directory) => directory.list(folder).await,
            Kind::Bucket(bucket) => bucket.list(folder).await,
        };
        let mut objects = listed.map_err(|problem| self.failed("list", folder, problem))?;
        objects.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(objects)
    }

    /// Deletes an object. A missing object is not an error.
    pub(super) async fn delete(&self, name: &str) -> Result<(), BackupError> {
        let deleted = match &self.kind {
            Kind::Directory(directory) => directory.delete(name).await,
            Kind::Bucket(bucket) => bucket.delete(name).await,
        };
        deleted.map_err(|problem| self.failed("delete", name, problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_a_directory_or_a_bucket() {
        let check = |text: &str, expect: Result<&str, &str>| match (Location::parse(text), expect) {
            (Ok(location), Ok(shown)) => assert_eq!(location.to_string(), shown),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("backups/silkrate", Ok("backups/silkrate"));
        check("s3://rates", Ok("s3://rates"));
        check("s3://rates/a/b/", Ok("s3://rates/a/b"));
        check("s3:///a", Err("has no valid bucket"));
        check("s3://user:secret@host/a", Err("has no valid bucket"));
        check("gs://rates/a", Err("neither a directory nor s3://"));
        check("", Err("it is empty"));
    }
}
