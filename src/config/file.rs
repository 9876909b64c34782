//! The configuration file: its settings of sources, certificates and backups, in TOML.
//!
//! ```toml
//! [defaults]
//! stale_limit = "2h"
//!
//! [sources.nbkr]
//! preference = 1
//! ```
//!
//! **Invariant**: a file is accepted as a whole or refused as a whole. An error contains every problem, with line,
//! key, value and remedy.

mod backup;
mod certificates;
mod error;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use chrono::NaiveTime;
use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

pub use error::{FileError, FileProblem};
use settings::{
    COLLAPSE_WINDOW, FOLLOW, MINIMUM_PLACES, MOVING_WINDOW, PACE, PAIRS, PREFERENCE, PUBLICATION, QUARANTINE_FACTOR,
    STALE_LIMIT, URL, ZONE, setting_names,
};
pub use settings::{FILE_SETTINGS, FileSetting, SettingScope};

use super::quarantine::parse_factor;
use super::value::{
    LONGEST_DURATION, SHORTEST_DURATION, ValueError, parse_places, parse_preference, parse_time_of_day,
};
use crate::access::Grants;
use crate::analysis::Zone;
use crate::backup::BackupSettings;
use crate::domain::{Pair, RatioThreshold, Source, parse_duration, truncate_for_display};
use crate::follow::{FeedUrl, FollowedSource, Schedule};
use crate::sources::{Origin, Preferences, Setting};

/// Largest file that is read, in bytes. A thousand sources with all settings need a quarter of this.
pub const FILE_BYTES_MAX: usize = 1 << 20;

const DEFAULTS: &str = "defaults";
const SOURCES: &str = "sources";
const CERTIFICATES: &str = "certificates";
const BACKUP: &str = "backup";

const TABLES: &str = "the tables are [defaults], [sources.NAME], [certificates.\"SUBJECT\"] and [backup]";

/// The settings of a configuration file. A setting that the file does not have is `None`.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    /// The settings of `[defaults]`. They apply to each source that has no value of its own and no built-in value of
    /// its own.
    pub(super) defaults: FileDefaults,
    /// The settings of `[sources.NAME]`, by source.
    pub(super) sources: BTreeMap<Source, FileSource>,
    /// What the subjects of client certificates grant, of `[certificates."SUBJECT"]`.
    pub(super) certificates: BTreeMap<String, Grants>,
    /// The settings of `[backup]`.
    pub(super) backup: Option<BackupSettings>,
}

/// The settings of `[defaults]`.
#[derive(Debug, Default)]
pub(super) struct FileDefaults {
    pub(super) collapse_window: Option<Setting<Duration>>,
    pub(super) stale_limit: Option<Setting<Duration>>,
    pub(super) moving_window: Option<Setting<Duration>>,
    /// A factor of `None` holds no tick.
    pub(super) quarantine_factor: Option<Setting<Option<RatioThreshold>>>,
}

/// The settings of one `[sources.NAME]`.
#[derive(Debug, Default)]
pub(super) struct FileSource {
    pub(super) collapse_window: Option<Setting<Duration>>,
    pub(super) stale_limit: Option<Setting<Duration>>,
    /// The stale limits of `[sources.NAME.pairs."BASE/QUOTE"]`.
    pub(super) pair_stale_limits: BTreeMap<Pair, Setting<Duration>>,
    pub(super) moving_window: Option<Setting<Duration>>,
    pub(super) quarantine_factor: Option<Setting<Option<RatioThreshold>>>,
    pub(super) minimum_places: Option<Setting<u8>>,
    pub(super) preference: Option<Setting<u32>>,
    pub(super) zone: Option<Setting<Zone>>,
    /// The settings of polling; `None` for a source that cannot be followed.
    pub(super) feed: Option<FileFeed>,
}

/// The settings by which a publisher is polled.
#[derive(Debug)]
pub(super) struct FileFeed {
    /// The poll schedule, with built-in values for settings that the file does not have.
    pub(super) schedule: Schedule,
    /// The origin of the poll interval (`pace`).
    pub(super) pace_origin: Origin,
    /// The origin of the publication hour.
    pub(super) publication_origin: Origin,
    pub(super) follow: Option<Setting<bool>>,
    pub(super) url: Option<Setting<String>>,
}

impl FileFeed {
    /// Returns the built-in settings of a publisher that has no settings in the file.
    pub(super) fn built_in(publisher: FollowedSource) -> Self {
        let (pace_origin, publication_origin) = (Origin::Default, Origin::Default);
        Self { schedule: Schedule::of(publisher), pace_origin, publication_origin, follow: None, url: None }
    }
}

impl FileSettings {
    /// Reads the configuration file at `path`.
    ///
    /// # Errors
    /// `Read` if the file cannot be read; `TooLong` if it is too large; `NotText` if it is not UTF-8; `Problems` if it
    /// is not TOML or has unknown settings or invalid values.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let read_error = |problem: io::Error| FileError::Read { path: path.to_owned(), problem: problem.to_string() };
        let mut bytes = Vec::new();
        // Reading one more byte than allowed detects a file that is too large.
        let limit = FILE_BYTES_MAX as u64 + 1;
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(read_error)?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(FileError::TooLong { path: path.to_owned() });
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            FileError::NotText { path: path.to_owned(), line: FileParser::new(&before).line(before.len()) }
        })?;
        Self::parse(&text).map_err(|problems| FileError::Problems { path: path.to_owned(), problems })
    }

    /// Parses the text of a file. If the text is not TOML, the settings are not checked.
    fn parse(text: &str) -> Result<Self, Vec<FileProblem>> {
        let mut parser = FileParser::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().replace('\n', ", ");
            parser.refuse(at, format!("invalid TOML: {message}"));
        }
        let settings = if errors.is_empty() { parser.parse_document(document.get_ref()) } else { Self::default() };
        if parser.problems.is_empty() {
            return Ok(settings);
        }
        parser.problems.sort_unstable();
        Err(parser.problems)
    }
}

/// The text of a file, and the problems found so far.
struct FileParser<'a> {
    text: &'a str,
    /// Byte offsets of the line ends.
    line_ends: Vec<usize>,
    problems: Vec<FileProblem>,
}

impl<'a> FileParser<'a> {
    fn new(text: &'a str) -> Self {
        let line_ends = text.match_indices('\n').map(|(at, _)| at).collect();
        Self { text, line_ends, problems: Vec::new() }
    }

    /// Returns the line of the byte offset `at`, counted from 1.
    fn line(&self, at: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < at)
    }

    /// Adds a problem at the byte offset `at`.
    fn refuse(&mut self, at: usize, text: String) {
        self.problems.push(FileProblem { line: self.line(at), text });
    }

    /// Adds a problem with a value. The message shows the value unless it is a URL, which may contain a secret.
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

    /// Parses a value and records its line. If the value is invalid, adds a problem and returns `None`.
    fn parse_value<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, ValueError>,
    ) -> Option<Setting<T>> {
        match parse(value.get_ref()) {
            Ok(parsed) => Some(Setting { value: parsed, origin: Origin::File { line: self.line(value.span().start) } }),
            Err(problem) => {
                self.refuse_value(key, value, &problem);
                None
            }
        }
    }

    /// Returns a value as a table. If the value is not a table, adds a problem and returns `None`.
    fn expect_table<'t, 'i>(&mut self, key: &str, value: &'t Spanned<DeValue<'i>>) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let header = match key {
                SOURCES => "sources.NAME",
                CERTIFICATES => "certificates.\"SUBJECT\"",
                _ => key,
            };
            let problem = format!("it is not a table; write [{header}] above its settings");
            self.refuse_value(key, value, &problem);
        }
        table
    }

    /// Parses the whole file.
    fn parse_document(&mut self, document: &DeTable<'_>) -> FileSettings {
        let mut found = FileSettings::default();
        for (key, value) in document {
            match key.get_ref().as_ref() {
                DEFAULTS => {
                    if let Some(table) = self.expect_table(DEFAULTS, value) {
                        found.defaults = self.parse_defaults(table);
                    }
                }
                SOURCES => {
                    if let Some(table) = self.expect_table(SOURCES, value) {
                        found.sources = self.parse_sources(table);
                    }
                }
                CERTIFICATES => {
                    if let Some(table) = self.expect_table(CERTIFICATES, value) {
                        found.certificates = self.parse_certificates(table);
                    }
                }
                BACKUP => {
                    if let Some(table) = self.expect_table(BACKUP, value) {
                        found.backup = self.parse_backup(key.span().start, table);
                    }
                }
                other => self.refuse_key("", other, key.span(), TABLES),
            }
        }
        self.check_preferences(&found);
        found
    }

    /// Adds a problem with a key that `table` cannot have. `known` lists the keys that it can have.
    fn refuse_key(&mut self, table: &str, key: &str, span: Range<usize>, known: &str) {
        self.refuse(span.start, format!("{table}{}: unknown setting; {known}", truncate_for_display(key)));
    }

    /// Parses `[defaults]`.
    fn parse_defaults(&mut self, table: &DeTable<'_>) -> FileDefaults {
        let mut found = FileDefaults::default();
        for (key, value) in table {
            let path = format!("{DEFAULTS}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                COLLAPSE_WINDOW => found.collapse_window = self.parse_value(&path, value, duration),
                STALE_LIMIT => found.stale_limit = self.parse_value(&path, value, duration),
                MOVING_WINDOW => found.moving_window = self.parse_value(&path, value, duration),
                QUARANTINE_FACTOR => found.quarantine_factor = self.parse_value(&path, value, factor),
                other => {
                    let allowed = setting_names(|scope| scope == SettingScope::Any);
                    self.refuse_key("defaults.", other, key.span(), &format!("the settings are {allowed}"));
                }
            }
        }
        found
    }

    /// Parses every `[sources.NAME]`.
    fn parse_sources(&mut self, table: &DeTable<'_>) -> BTreeMap<Source, FileSource> {
        let mut found = BTreeMap::new();
        for (key, value) in table {
            let source = match Source::parse(key.get_ref()) {
                Ok(source) => source,
                Err(problem) => {
                    self.refuse(key.span().start, format!("{SOURCES}: {problem}"));
                    continue;
                }
            };
            if let Some(table) = self.expect_table(&format!("{SOURCES}.{source}"), value) {
                let settings = self.parse_source(&source, table);
                found.insert(source, settings);
            }
        }
        found
    }

    /// Parses one `[sources.NAME]`.
    fn parse_source(&mut self, source: &Source, table: &DeTable<'_>) -> FileSource {
        let mut found = FileSource::default();
        let mut feed = FollowedSource::parse(source.as_str()).map(FileFeed::built_in);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{SOURCES}.{source}.{name}");
            match name {
                COLLAPSE_WINDOW => found.collapse_window = self.parse_value(&path, value, duration),
                STALE_LIMIT => found.stale_limit = self.parse_value(&path, value, duration),
                MOVING_WINDOW => found.moving_window = self.parse_value(&path, value, duration),
                QUARANTINE_FACTOR => found.quarantine_factor = self.parse_value(&path, value, factor),
                MINIMUM_PLACES => found.minimum_places = self.parse_value(&path, value, |v| parse_places(integer(v))),
                PREFERENCE => found.preference = self.parse_value(&path, value, |v| parse_preference(integer(v))),
                ZONE => {
                    let parse = |v: &DeValue<'_>| {
                        Zone::parse(text(v)?).map_err(|problem| ValueError::Domain(problem.to_string()))
                    };
                    found.zone = self.parse_value(&path, value, parse);
                }
                PAIRS => {
                    if let Some(table) = self.expect_table(&path, value) {
                        found.pair_stale_limits = self.parse_pairs(&path, table);
                    }
                }
                PACE | PUBLICATION | URL | FOLLOW => match &mut feed {
                    Ok(feed) => self.parse_feed_setting(feed, name, &path, value),
                    Err(problem) => {
                        let problem = format!("{problem}, or remove this setting");
                        self.refuse_value(&path, value, &problem);
                    }
                },
                other => {
                    let known = format!("the settings are {}", setting_names(SettingScope::is_of_source));
                    self.refuse_key(&format!("{SOURCES}.{source}."), other, key.span(), &known);
                }
            }
        }
        FileSource { feed: feed.ok(), ..found }
    }

    /// Parses every `[sources.NAME.pairs."BASE/QUOTE"]`. `parent` is the path of the table.
    fn parse_pairs(&mut self, parent: &str, table: &DeTable<'_>) -> BTreeMap<Pair, Setting<Duration>> {
        let mut found = BTreeMap::new();
        for (key, value) in table {
            let pair = match Pair::parse_iso(key.get_ref()) {
                Ok(pair) => pair,
                Err(problem) => {
                    self.refuse(key.span().start, format!("{parent}: {problem}"));
                    continue;
                }
            };
            let path = format!("{parent}.\"{pair}\"");
            let Some(table) = self.expect_table(&path, value) else { continue };
            for (key, value) in table {
                let name = key.get_ref().as_ref();
                if name == STALE_LIMIT {
                    let limit = self.parse_value(&format!("{path}.{name}"), value, duration);
                    found.extend(limit.map(|limit| (pair, limit)));
                } else {
                    let known = format!("the only setting of a pair is {STALE_LIMIT}");
                    self.refuse_key(&format!("{path}."), name, key.span(), &known);
                }
            }
        }
        found
    }

    /// Parses one of the settings of polling.
    fn parse_feed_setting(&mut self, feed: &mut FileFeed, name: &str, path: &str, value: &Spanned<DeValue<'_>>) {
        let schedule = feed.schedule;
        let invalid = |problem: &dyn fmt::Display| ValueError::Domain(problem.to_string());
        match name {
            PACE => {
                let parse = |v: &DeValue<'_>| {
                    let poll_interval = parse_duration(text(v)?, Duration::ZERO, LONGEST_DURATION)?;
                    schedule.with_poll_interval(poll_interval).map_err(|problem| invalid(&problem))
                };
                if let Some(changed) = self.parse_value(path, value, parse) {
                    (feed.schedule, feed.pace_origin) = (changed.value, changed.origin);
                }
            }
            PUBLICATION => {
                let parse = |v: &DeValue<'_>| {
                    let hour: NaiveTime = parse_time_of_day(text(v)?)?;
                    schedule.with_publication(hour).map_err(|problem| invalid(&problem))
                };
                if let Some(changed) = self.parse_value(path, value, parse) {
                    (feed.schedule, feed.publication_origin) = (changed.value, changed.origin);
                }
            }
            URL => {
                let parse = |v: &DeValue<'_>| {
                    let url = text(v)?;
                    FeedUrl::check(url).map(|()| url.to_owned()).map_err(|problem| invalid(&problem))
                };
                feed.url = self.parse_value(path, value, parse);
            }
            _ => feed.follow = self.parse_value(path, value, |v| v.as_bool().ok_or(ValueError::Switch)),
        }
    }

    /// Refuses a preference that a source on an earlier line already has.
    fn check_preferences(&mut self, found: &FileSettings) {
        let given = found.sources.iter().filter_map(|(source, settings)| Some((source, settings.preference?)));
        // Sorted by line, so that the later of two equal preferences is refused.
        let mut by_line: Vec<_> = given.collect();
        by_line.sort_by_key(|(_, preference)| preference.origin);
        let pairs = by_line.iter().map(|(source, preference)| ((*source).clone(), preference.value));
        if let Err(problem) = Preferences::new(pairs) {
            let second = by_line.iter().find(|(source, _)| **source == problem.second);
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

fn duration(value: &DeValue<'_>) -> Result<Duration, ValueError> {
    Ok(parse_duration(text(value)?, SHORTEST_DURATION, LONGEST_DURATION)?)
}

/// Parses a number above 1, or `"none"`. A number is parsed from its digits, not through a float.
fn factor(value: &DeValue<'_>) -> Result<Option<RatioThreshold>, ValueError> {
    let number = value.as_float().map(DeFloat::as_str).or_else(|| value.as_integer().map(DeInteger::as_str));
    number.or_else(|| value.as_str()).ok_or(ValueError::RatioThreshold).and_then(parse_factor)
}

/// Returns a TOML integer; `None` if the value is not an integer or does not fit in 32 bits without a sign.
fn integer(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

#[cfg(test)]
mod tests;
