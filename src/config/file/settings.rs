//! The settings of the configuration file: names, values and effects.
//!
//! The parser, its error messages and `docs/CONFIGURATION.md` use this one list.

pub(super) const COLLAPSE_WINDOW: &str = "collapse_window";
pub(super) const STALE_LIMIT: &str = "stale_limit";
pub(super) const MOVING_WINDOW: &str = "moving_window";
pub(super) const QUARANTINE_FACTOR: &str = "quarantine_factor";
pub(super) const MINIMUM_PLACES: &str = "minimum_places";
pub(super) const ZONE: &str = "zone";
pub(super) const PREFERENCE: &str = "preference";
pub(super) const FOLLOW: &str = "follow";
pub(super) const PACE: &str = "pace";
pub(super) const PUBLICATION: &str = "publication";
pub(super) const URL: &str = "url";
pub(super) const PAIRS: &str = "pairs";
pub(super) const ROLE: &str = "role";
pub(super) const SOURCES_ALLOWED: &str = "sources";
pub(super) const REVISE: &str = "revise";
pub(super) const TO: &str = "to";
pub(super) const EVERY: &str = "every";
pub(super) const KEEP: &str = "keep";
pub(super) const LOG_EVERY: &str = "log_every";

/// Which tables of the file may hold a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SettingScope {
    /// `[defaults]` and `[sources.NAME]`.
    Any,
    /// `[sources.NAME]`.
    Source,
    /// `[sources.NAME]` of a publisher that the server can follow.
    Publisher,
    /// `[certificates."SUBJECT"]`.
    Certificate,
    /// `[backup]`.
    Backup,
}

impl SettingScope {
    /// Returns true if `[sources.NAME]` may hold the setting.
    pub(super) fn is_of_source(self) -> bool {
        !matches!(self, Self::Certificate | Self::Backup)
    }
}

/// A setting of the configuration file, as documents and error messages describe it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileSetting {
    /// Key in the file.
    pub name: &'static str,
    /// Type and range of the value.
    pub value: &'static str,
    /// Tables that may hold the setting.
    pub scope: SettingScope,
    /// Flag of `serve` with the same effect.
    pub flag: Option<&'static str>,
    /// Effect of the setting.
    pub effect: &'static str,
}

/// All settings of the configuration file, in the order in which documents and error messages list them.
pub const FILE_SETTINGS: [FileSetting; 19] = [
    FileSetting {
        name: COLLAPSE_WINDOW,
        value: "duration, 1s to 366d",
        scope: SettingScope::Any,
        flag: Some("--collapse-window"),
        effect: "Longest gap between two observations of one run. It is stored with each series: to change it for \
                 stored series, start once with `--recollapse`.",
    },
    FileSetting {
        name: STALE_LIMIT,
        value: "duration, 1s to 366d",
        scope: SettingScope::Any,
        flag: Some("--stale-limit"),
        effect: "Time from the last confirmation of a rate until the rate becomes stale.",
    },
    FileSetting {
        name: MOVING_WINDOW,
        value: "duration, 1s to 366d",
        scope: SettingScope::Any,
        flag: Some("--moving-window"),
        effect: "Time after a move during which a rate is moving.",
    },
    FileSetting {
        name: QUARANTINE_FACTOR,
        value: "number above 1, at most 1000000, or `\"none\"`",
        scope: SettingScope::Any,
        flag: Some("--quarantine-factor"),
        effect: "Smallest ratio at which a tick is held: its rate divided by the rate in force at its observed time, \
                 or the reverse. `\"none\"` holds no tick.",
    },
    FileSetting {
        name: MINIMUM_PLACES,
        value: "integer, 0 to 18",
        scope: SettingScope::Source,
        flag: Some("--minimum-places"),
        effect: "Smallest number of decimal places of the rates. A rate with fewer places is padded with zeros, for a \
                 source that drops trailing zeros.",
    },
    FileSetting {
        name: PREFERENCE,
        value: "integer, 1 to 1000",
        scope: SettingScope::Source,
        flag: None,
        effect: "Rank among the sources of a pair. If a request names no source, the source with the lowest rank \
                 answers. No two sources may have the same rank.",
    },
    FileSetting {
        name: ZONE,
        value: "IANA time zone, like `\"Asia/Bishkek\"`",
        scope: SettingScope::Source,
        flag: None,
        effect: "Time zone of the days of the source. A date in a request means a day in this zone.",
    },
    FileSetting {
        name: PAIRS,
        value: "tables `[sources.NAME.pairs.\"BASE/QUOTE\"]` with `stale_limit`",
        scope: SettingScope::Source,
        flag: None,
        effect: "Stale limits of single pairs, which precede the limit of the source. The pairs of the weekly table of \
                 `nbkr` have 9d, or the limit of the source if that is longer.",
    },
    FileSetting {
        name: FOLLOW,
        value: "`true` or `false`",
        scope: SettingScope::Publisher,
        flag: Some("--follow"),
        effect: "Whether the server polls the publisher. If `--follow` is given, the server polls exactly the \
                 publishers that the flag lists.",
    },
    FileSetting {
        name: PACE,
        value: "duration, 10s to 6h",
        scope: SettingScope::Publisher,
        flag: None,
        effect: "Interval between two polls outside the publication hours.",
    },
    FileSetting {
        name: PUBLICATION,
        value: "local time, `\"HH:MM\"`",
        scope: SettingScope::Publisher,
        flag: None,
        effect: "Publication hour in the time zone of the bank. The bank is polled every 10 minutes around it.",
    },
    FileSetting {
        name: URL,
        value: "URL without user or password",
        scope: SettingScope::Publisher,
        flag: Some("--feed-url"),
        effect: "Base URL that the server polls: the URL of the publisher or of a mirror.",
    },
    FileSetting {
        name: ROLE,
        value: "`\"read\"`, `\"ingest\"` or `\"admin\"`",
        scope: SettingScope::Certificate,
        flag: None,
        effect: "What a client with this certificate may do. The subject is the line that `openssl x509 -noout -subject \
                 -nameopt RFC2253` prints, without `subject=`.",
    },
    FileSetting {
        name: SOURCES_ALLOWED,
        value: "list of sources",
        scope: SettingScope::Certificate,
        flag: None,
        effect: "Sources whose ticks a client with the role `ingest` may send. Without this setting: any source.",
    },
    FileSetting {
        name: REVISE,
        value: "`true` or `false`",
        scope: SettingScope::Certificate,
        flag: None,
        effect: "Whether a client with the role `ingest` may replace stored rates.",
    },
    FileSetting {
        name: TO,
        value: "directory, or `\"s3://bucket/prefix\"`",
        scope: SettingScope::Backup,
        flag: None,
        effect: "Where the server backs up its store. Required in this table. The credentials of a bucket come from the \
                 environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and `AWS_ENDPOINT_URL` for \
                 another store than AWS.",
    },
    FileSetting {
        name: EVERY,
        value: "duration, 1s to 366d; without it 1h",
        scope: SettingScope::Backup,
        flag: None,
        effect: "Time from one backup to the next. A backup contains the blocks that are new since the last one.",
    },
    FileSetting {
        name: KEEP,
        value: "numbers of hours, days, weeks, months and years, like `\"24h,30d,12mo\"`",
        scope: SettingScope::Backup,
        flag: None,
        effect: "Which backups are kept: of each of the last 24 hours that have a backup the newest one, and likewise of \
                 days and months, in UTC. Without this setting, no backup is deleted.",
    },
    FileSetting {
        name: LOG_EVERY,
        value: "duration, 1s to 1h; without it 10s",
        scope: SettingScope::Backup,
        flag: None,
        effect: "Time from one archive of new commits to the next. After a loss of the machine, a restore lacks at most \
                 the commits of about this time.",
    },
];

/// Names of the settings that a table may hold, for an error message: `a, b and c`.
pub(super) fn setting_names(is_allowed: impl Fn(SettingScope) -> bool) -> String {
    let allowed = FILE_SETTINGS.iter().filter(|setting| is_allowed(setting.scope));
    let names: Vec<&str> = allowed.map(|setting| setting.name).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.join(""),
    }
}
