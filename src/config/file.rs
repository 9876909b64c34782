//! The configuration file: settings of sources, in TOML.
//!
//! ```toml
//! [defaults]
//! stale_limit = "2h"
//!
//! [sources.nbkr]
//! preference = 1
//! ```
//!
//! **Invariant**: a file is taken whole or not at all. All that is wrong with it is told at once, each by its line, key,
//! value and remedy.

mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::NaiveTime;
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use settings::{
    COLLAPSE_WINDOW, FOLLOW, MINIMUM_PLACES, PACE, PREFERENCE, PUBLICATION, QUARANTINE_FACTOR, STALE_LIMIT, URL,
    setting_names,
};
pub use settings::{FILE_SETTINGS, FileSetting, SettingScope};

use super::quarantine::parse_factor;
use super::value::{LENGTH_MIN, ValueError, YEAR, parse_places, parse_preference, parse_time_of_day};
use crate::domain::{RatioThreshold, Source, parse_length, truncate_for_display};
use crate::follow::{FeedUrl, FollowedSource, Schedule};
use crate::sources::{Origin, Preferences, Setting};

/// Longest file that is read: a thousand sources with all their settings have a quarter of it.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Problems of one file that are told; what follows from a mistake may be many.
const PROBLEMS_SHOWN_MAX: usize = 20;

const DEFAULTS: &str = "defaults";
const SOURCES: &str = "sources";
/// What a file says.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    /// Of sources that have none of their own, not even built in.
    pub(super) others: FileOthers,
    pub(super) sources: BTreeMap<Source, FileSource>,
}

/// What `[defaults]` says.
#[derive(Debug, Default)]
pub(super) struct FileOthers {
    pub(super) collapse_window: Option<Setting<Duration>>,
    pub(super) stale_limit: Option<Setting<Duration>>,
    /// A factor of none holds nothing.
    pub(super) quarantine_factor: Option<Setting<Option<RatioThreshold>>>,
}

/// What `[sources.NAME]` says.
#[derive(Debug, Default)]
pub(super) struct FileSource {
    pub(super) collapse_window: Option<Setting<Duration>>,
    pub(super) stale_limit: Option<Setting<Duration>>,
    pub(super) quarantine_factor: Option<Setting<Option<RatioThreshold>>>,
    pub(super) minimum_places: Option<Setting<u8>>,
    pub(super) preference: Option<Setting<u32>>,
    /// Of a source that can be followed.
    pub(super) feed: Option<FileFeed>,
}

/// How it says a source is to be followed.
#[derive(Debug)]
pub(super) struct FileFeed {
    /// With what is built in where the file says nothing.
    pub(super) schedule: Schedule,
    pub(super) pace: Origin,
    pub(super) publication: Origin,
    pub(super) follow: Option<Setting<bool>>,
    pub(super) url: Option<Setting<String>>,
}

impl FileFeed {
    /// Where it says nothing.
    pub(super) fn silent(of: FollowedSource) -> Self {
        let (pace, publication) = (Origin::Default, Origin::Default);
        Self { schedule: Schedule::of(of), pace, publication, follow: None, url: None }
    }
}

/// Why a configuration file is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FileError {
    /// It is not to be had.
    #[error("cannot read {}: {problem}; give --config the path of a file that can be read", path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// As the system says it.
        problem: String,
    },
    /// It is something else.
    #[error("{} has more than {FILE_BYTES_MAX} bytes, which no settings need; give --config the right file", path.display())]
    TooLong {
        /// As given.
        path: PathBuf,
    },
    /// It is no text.
    #[error("{}:{line}: it is not UTF-8 from here on; save it as UTF-8", path.display())]
    NotText {
        /// As given.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// It is no TOML, or says what it must not.
    #[error("{}", told(path, problems))]
    Problems {
        /// As given.
        path: PathBuf,
        /// In order of lines, at least one.
        problems: Vec<FileProblem>,
    },
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileProblem {
    /// Counted from 1.
    pub line: usize,
    /// Key, value and remedy.
    pub text: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

/// A line each.
fn told(path: &Path, problems: &[FileProblem]) -> String {
    let shown = problems.iter().take(PROBLEMS_SHOWN_MAX).map(|problem| format!("{}:{problem}", path.display()));
    let more = problems.len().saturating_sub(PROBLEMS_SHOWN_MAX);
    let more = (more > 0).then(|| format!("and {more} more"));
    shown.chain(more).collect::<Vec<_>>().join("\n")
}

impl FileSettings {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Any [`FileError`].
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let unread = |problem: io::Error| FileError::Read { path: path.to_owned(), problem: problem.to_string() };
        let mut bytes = Vec::new();
        // One byte more tells a file that is too long from one that is just not.
        let limit = FILE_BYTES_MAX as u64 + 1;
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unread)?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(FileError::TooLong { path: path.to_owned() });
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            FileError::NotText { path: path.to_owned(), line: Reading::new(&before).line(before.len()) }
        })?;
        Self::parse(&text).map_err(|problems| FileError::Problems { path: path.to_owned(), problems })
    }

    /// Reads the text of a file. Where that is no TOML, what it says is not looked at.
    fn parse(text: &str) -> Result<Self, Vec<FileProblem>> {
        let mut reading = Reading::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().replace('\n', ", ");
            reading.refuse(at, format!("it is no TOML: {message}"));
        }
        let found = if errors.is_empty() { reading.document(document.get_ref()) } else { Self::default() };
        if reading.problems.is_empty() {
            return Ok(found);
        }
        reading.problems.sort_unstable();
        Err(reading.problems)
    }
}

/// A file being read.
struct Reading<'a> {
    text: &'a str,
    /// Where lines end.
    ends: Vec<usize>,
    problems: Vec<FileProblem>,
}

impl<'a> Reading<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, ends: text.match_indices('\n').map(|(at, _)| at).collect(), problems: Vec::new() }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < at)
    }

    fn refuse(&mut self, at: usize, text: String) {
        self.problems.push(FileProblem { line: self.line(at), text });
    }

    /// Refuses a value, which is shown unless it may be a secret.
    fn refuse_value(&mut self, key: &str, value: &Spanned<DeValue<'_>>, problem: &impl fmt::Display) {
        let span = value.span();
        let is_secret = key.rsplit('.').next() == Some(URL);
        let shown = match value.get_ref().as_str() {
            _ if is_secret => String::new(),
            Some(text) => format!(" = \"{}\"", truncate_for_display(text)),
            None => {
                self.text.get(span.clone()).map_or(String::new(), |text| format!(" = {}", truncate_for_display(text)))
            }
        };
        self.refuse(span.start, format!("{key}{shown}: {problem}"));
    }

    fn value<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, ValueError>,
    ) -> Option<Setting<T>> {
        match read(value.get_ref()) {
            Ok(read) => Some(Setting { value: read, origin: Origin::File { line: self.line(value.span().start) } }),
            Err(problem) => {
                self.refuse_value(key, value, &problem);
                None
            }
        }
    }

    fn table<'t, 'i>(&mut self, key: &str, value: &'t Spanned<DeValue<'i>>) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let above = if key == SOURCES { "sources.NAME" } else { key };
            let problem = format!("it is no table; write [{above}] above its settings");
            self.refuse_value(key, value, &problem);
        }
        table
    }

    fn document(&mut self, document: &DeTable<'_>) -> FileSettings {
        let mut found = FileSettings::default();
        for (key, value) in document {
            match key.get_ref().as_ref() {
                DEFAULTS => {
                    if let Some(table) = self.table(DEFAULTS, value) {
                        found.others = self.others(table);
                    }
                }
                SOURCES => {
                    if let Some(table) = self.table(SOURCES, value) {
                        found.sources = self.sources(table);
                    }
                }
                other => self.unknown("", other, key.span(), "[defaults] and [sources.NAME]"),
            }
        }
        self.check_preferences(&found);
        found
    }

    fn unknown(&mut self, place: &str, key: &str, span: Range<usize>, there_are: &str) {
        self.refuse(
            span.start,
            format!("{place}{}: there is no such setting; there are {there_are}", truncate_for_display(key)),
        );
    }

    fn others(&mut self, table: &DeTable<'_>) -> FileOthers {
        let mut found = FileOthers::default();
        for (key, value) in table {
            let path = format!("{DEFAULTS}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                COLLAPSE_WINDOW => found.collapse_window = self.value(&path, value, length),
                STALE_LIMIT => found.stale_limit = self.value(&path, value, length),
                QUARANTINE_FACTOR => found.quarantine_factor = self.value(&path, value, factor),
                other => {
                    let allowed = setting_names(|scope| scope == SettingScope::Any);
                    self.unknown("defaults.", other, key.span(), &allowed);
                }
            }
        }
        found
    }

    fn sources(&mut self, table: &DeTable<'_>) -> BTreeMap<Source, FileSource> {
        let mut found = BTreeMap::new();
        for (key, value) in table {
            let source = match Source::parse(key.get_ref()) {
                Ok(source) => source,
                Err(problem) => {
                    self.refuse(key.span().start, format!("{SOURCES}: {problem}"));
                    continue;
                }
            };
            if let Some(table) = self.table(&format!("{SOURCES}.{source}"), value) {
                let settings = self.source(&source, table);
                found.insert(source, settings);
            }
        }
        found
    }

    fn source(&mut self, source: &Source, table: &DeTable<'_>) -> FileSource {
        let mut found = FileSource::default();
        let mut feed = FollowedSource::parse(source.as_str()).map(FileFeed::silent);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{SOURCES}.{source}.{name}");
            match name {
                COLLAPSE_WINDOW => found.collapse_window = self.value(&path, value, length),
                STALE_LIMIT => found.stale_limit = self.value(&path, value, length),
                QUARANTINE_FACTOR => found.quarantine_factor = self.value(&path, value, factor),
                MINIMUM_PLACES => found.minimum_places = self.value(&path, value, |v| parse_places(integer(v))),
                PREFERENCE => found.preference = self.value(&path, value, |v| parse_preference(integer(v))),
                PACE | PUBLICATION | URL | FOLLOW => match &mut feed {
                    Ok(feed) => self.feed(feed, name, &path, value),
                    Err(problem) => {
                        let problem = format!("{problem}; of others leave this out");
                        self.refuse_value(&path, value, &problem);
                    }
                },
                other => {
                    self.unknown(&format!("{SOURCES}.{source}."), other, key.span(), &setting_names(|_| true));
                }
            }
        }
        FileSource { feed: feed.ok(), ..found }
    }

    /// One of the settings of following.
    fn feed(&mut self, feed: &mut FileFeed, name: &str, path: &str, value: &Spanned<DeValue<'_>>) {
        let schedule = feed.schedule;
        let refused = |problem: &dyn fmt::Display| ValueError::Domain(problem.to_string());
        match name {
            PACE => {
                let read = |v: &DeValue<'_>| {
                    let poll_interval = parse_length(text(v)?, Duration::ZERO, YEAR)?;
                    schedule.with_poll_interval(poll_interval).map_err(|problem| refused(&problem))
                };
                if let Some(with_poll_interval) = self.value(path, value, read) {
                    (feed.schedule, feed.pace) = (with_poll_interval.value, with_poll_interval.origin);
                }
            }
            PUBLICATION => {
                let read = |v: &DeValue<'_>| {
                    let hour: NaiveTime = parse_time_of_day(text(v)?)?;
                    schedule.with_publication(hour).map_err(|problem| refused(&problem))
                };
                if let Some(with_hour) = self.value(path, value, read) {
                    (feed.schedule, feed.publication) = (with_hour.value, with_hour.origin);
                }
            }
            URL => {
                let read = |v: &DeValue<'_>| {
                    let url = text(v)?;
                    FeedUrl::check(url).map(|()| url.to_owned()).map_err(|problem| refused(&problem))
                };
                feed.url = self.value(path, value, read);
            }
            _ => feed.follow = self.value(path, value, |v| v.as_bool().ok_or(ValueError::Switch)),
        }
    }

    /// The second source in a place is told of, by its line.
    fn check_preferences(&mut self, found: &FileSettings) {
        let given = found.sources.iter().filter_map(|(source, settings)| Some((source, settings.preference?)));
        // Whoever comes first in the file was there first.
        let mut in_order: Vec<_> = given.collect();
        in_order.sort_by_key(|(_, preference)| preference.origin);
        let pairs = in_order.iter().map(|(source, preference)| ((*source).clone(), preference.value));
        if let Err(problem) = Preferences::new(pairs) {
            let second = in_order.iter().find(|(source, _)| **source == problem.second);
            if let Some((source, Setting { origin: Origin::File { line }, .. })) = second {
                let text = format!("{SOURCES}.{source}.preference: {problem}");
                self.problems.push(FileProblem { line: *line, text });
            }
        }
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, ValueError> {
    value.as_str().ok_or(ValueError::Quotes)
}

fn length(value: &DeValue<'_>) -> Result<Duration, ValueError> {
    Ok(parse_length(text(value)?, LENGTH_MIN, YEAR)?)
}

/// A number above 1, or "none" in quotes. A number is read by its digits.
fn factor(value: &DeValue<'_>) -> Result<Option<RatioThreshold>, ValueError> {
    let number = value.as_float().map(DeFloat::as_str).or_else(|| value.as_integer().map(DeInteger::as_str));
    number.or_else(|| value.as_str()).ok_or(ValueError::RatioThreshold).and_then(parse_factor)
}

/// A whole number; none where there is something else, or it is beyond all that is asked for.
fn integer(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

#[cfg(test)]
mod tests;
