//! `backfill`: the tables of past days from a bank to the server.
//!
//! The command fetches and sends; the server takes in what comes as it takes in anything else. It is asked first which
//! days it has, so that a command that was stopped goes on where it was, and one that ended changes nothing when it
//! is run again.
//!
//! **Invariant**: a day is sent whole, in one request, and only if the bank's answer is the table of that day.

mod known_days;
mod progress;
mod report;

use std::time::Duration;

use chrono::{Days, NaiveDate};
use clap::Args;
use thiserror::Error;
use tokio::time::sleep;

use self::known_days::known_days;
use self::progress::Progress;
use self::report::{OtherDate, Report, print};
use super::client::Client;
use super::error::ErrorKind;
use super::{CliError, Outcome, Session};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{Currency, CurrencySet, Source, SourceError, Tick, Timestamp, parse_length};
use crate::feed::{BankError, BankFeed, BankRequest, BankRules, BankTable};
use crate::follow::{FeedUrl, FetchError, FetchLimits, Fetched, Fetcher, FollowSettings, FollowedSource, Validators};
use crate::proto::convert::timestamp;
use crate::proto::v1::{ConflictPolicy, IngestTicksRequest, ListSourcesRequest, SettingOrigin, Tick as TickMessage};

/// Most days walked by one command.
const DAYS_MAX: u64 = 20_000;
/// How often a day is asked for while the bank fails.
const TRIES_MAX: u32 = 4;
/// Longest wait that a bank can ask for before the command gives up.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

const EXAMPLES: &str = "\
Examples:
  silkrate backfill --source cbu --from 2017-01-01
  silkrate backfill --source nbk --from 2020-01-01 --to 2020-12-31 --pace 2s

Banks with tables by date are nbk, nbt, cbu and cbt; nbkr publishes only its
newest. Days that the server has are passed over, so that the same command
goes on where it was stopped; --again fetches them all the same. A day for
which the bank answers with another day's table is passed over and named.";

/// Arguments of `backfill`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BackfillArgs {
    /// Whose tables: nbk, nbt, cbu or cbt
    #[arg(long, value_name = "SOURCE", value_parser = FollowedSource::parse)]
    source: FollowedSource,
    /// The first day, by the calendar of the bank
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    from: NaiveDate,
    /// The last day, itself included; today by the calendar of the bank if left out
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    to: Option<NaiveDate>,
    /// Wait between two requests to the bank; 100ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = |text: &str| parse_length(text, Duration::from_millis(100), Duration::from_hours(1)))]
    pace: Duration,
    /// Where the bank is asked in place of its own address, as in cbu=https://mirror.example.org/cbu
    #[arg(long, value_name = "SOURCE=URL", env = "SILKRATE_FEED_URL", value_delimiter = ',', value_parser = FeedUrl::parse)]
    feed_url: Vec<FeedUrl>,
    /// A currency to take besides KGS, KZT, TJS, TMT, USD and UZS, which the server must serve; may be repeated
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = Currency::parse)]
    currency: Vec<Currency>,
    /// Fetch the days that the server has too
    #[arg(long)]
    again: bool,
    /// Replace what is stored where it differs; it stays readable as a revision
    #[arg(long)]
    revise: bool,
    /// Say what would happen, and store nothing
    #[arg(long)]
    dry_run: bool,
}

/// Why tables of past days cannot be had.
#[derive(Debug, Error)]
pub(super) enum BackfillError {
    /// Its addresses have no date.
    #[error(
        "{0} publishes only its newest table, at an address without a date; 'serve --follow {0}' collects from now on"
    )]
    NotByDate(FollowedSource),
    /// An empty or endless range.
    #[error("--from {from} --to {to} is no range of 1 to {max} days", max = DAYS_MAX)]
    Range {
        /// As given.
        from: NaiveDate,
        /// As given, or today.
        to: NaiveDate,
    },
    /// Before anything is taken in.
    #[error("--from {0} is before 1990, where nothing is taken in; begin later")]
    TooOld(NaiveDate),
    /// A bank that cannot be asked.
    #[error("{day}: {problem}; once that is over, the same command goes on from there")]
    Fetch {
        /// The day asked for.
        day: NaiveDate,
        /// The last try's.
        problem: FetchError,
    },
    /// HTTP cannot be set up.
    #[error(transparent)]
    SetUp(FetchError),
    /// A bank whose slug is none.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl From<BackfillError> for CliError {
    fn from(problem: BackfillError) -> Self {
        Self::new(if problem.is_usage() { ErrorKind::Usage } else { ErrorKind::Unreachable }, problem)
    }
}

impl BackfillError {
    /// Whether the arguments are to blame.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            Self::NotByDate(_) | Self::Range { .. } | Self::TooOld(_) => true,
            Self::Fetch { .. } | Self::SetUp(_) | Self::Source(_) => false,
        }
    }
}

fn parse_date(text: &str) -> Result<NaiveDate, String> {
    text.parse().map_err(|_| "it is no day of the calendar; write one like 2017-01-31".to_owned())
}

pub(super) async fn run(args: BackfillArgs, session: &Session) -> Result<Outcome, CliError> {
    let source = args.source;
    let feed = source.by_date().ok_or(BackfillError::NotByDate(source))?;
    let to = args.to.unwrap_or_else(|| feed.zone().local(SystemClock.now()).date());
    let days = days(args.from, to)?;
    let settings = FollowSettings { sources: vec![source], urls: args.feed_url, ..FollowSettings::default() };
    let (base_url, reach) = settings.place(source);
    let slug = source.source().map_err(BackfillError::from)?;
    let fetcher = Fetcher::new(reach, FetchLimits::default()).map_err(BackfillError::SetUp)?;
    let client = session.connect().await?;
    let bank = Bank {
        feed,
        minimum_places: minimum_places(&client, &slug).await?,
        source: slug,
        base_url: base_url.to_owned(),
        fetcher,
        pace: args.pace,
        served: CurrencySet::central_asia().with(args.currency),
    };
    let policy = if args.revise { ConflictPolicy::Revise } else { ConflictPolicy::Refuse };
    let known = if args.again { Vec::new() } else { known_days(&client, feed, args.from, to).await? };
    let mut walk =
        Walk { client, bank, policy, dry_run: args.dry_run, report: Report::new(source.name(), args.from, to) };
    let walked = walk.all(&days, &known).await;
    print(&walk.report, session, args.dry_run)?;
    walked?;
    Ok(if walk.report.is_clean() { Outcome::Done } else { Outcome::PartlyRefused })
}

/// Every day of the range, its last one included.
fn days(from: NaiveDate, to: NaiveDate) -> Result<Vec<NaiveDate>, BackfillError> {
    if from < Timestamp::OLDEST_OBSERVED.to_chrono().date_naive() {
        return Err(BackfillError::TooOld(from));
    }
    let count = u64::try_from((to - from).num_days() + 1).ok().filter(|count| (1..=DAYS_MAX).contains(count));
    let count = count.ok_or(BackfillError::Range { from, to })?;
    Ok((0..count).filter_map(|day| from.checked_add_days(Days::new(day))).collect())
}

/// A bank, and what is taken of its tables.
struct Bank {
    feed: BankFeed,
    source: Source,
    base_url: String,
    fetcher: Fetcher,
    pace: Duration,
    served: CurrencySet,
    /// As the server's settings have it; none where they leave that to the bank's reader.
    minimum_places: Option<u8>,
}

/// Places to which the server pads what it reads of `source` itself: the same table is to be the same rates, whoever
/// fetched it.
async fn minimum_places(client: &Client, source: &Source) -> Result<Option<u8>, CliError> {
    let request = client.request(ListSourcesRequest { sources: vec![source.to_string()] });
    let answer = client.answer(client.rates().list_sources(request)).await?;
    let set = answer
        .sources
        .iter()
        .find(|row| !matches!(row.minimum_places_origin(), SettingOrigin::Unspecified | SettingOrigin::Default));
    Ok(set.and_then(|row| row.minimum_places.try_into().ok()))
}

/// What a bank has for a day.
enum Found {
    Table(BankTable),
    /// Nothing.
    Absent,
    Unreadable(BankError),
}

impl Bank {
    /// Asks for a day, again where that may help.
    async fn table(&self, day: NaiveDate) -> Result<Found, BackfillError> {
        let request = BankRequest::new(self.feed, day);
        let url = request.url(&self.base_url);
        let mut tries = 1;
        loop {
            let problem = match self.fetcher.get(&url, &Validators::default(), request.body_bytes_max()).await {
                Ok(Fetched::Body { bytes, .. }) => return Ok(self.read(request, &bytes)),
                Ok(Fetched::NotModified) => return Ok(Found::Absent),
                Err(problem) => problem,
            };
            let asked = problem.retry_after().map(|after| after.wait_from(SystemClock.now()));
            // A bank that says when to come back may have the table then.
            if problem.is_absence() && (asked.is_none() || tries == TRIES_MAX) {
                return Ok(Found::Absent);
            }
            let asked = asked.unwrap_or_default();
            let may_pass = problem.is_absence() || problem.may_pass();
            if tries == TRIES_MAX || !may_pass || asked > RETRY_AFTER_MAX {
                return Err(BackfillError::Fetch { day, problem });
            }
            sleep(asked.max(self.pace * (1 << tries))).await;
            tries += 1;
        }
    }

    fn read(&self, request: BankRequest, body: &[u8]) -> Found {
        match request.read(body, &BankRules { served: &self.served, minimum_places: self.minimum_places }) {
            Ok(table) => Found::Table(table),
            Err(BankError::Empty | BankError::NoEntries) => Found::Absent,
            Err(problem) => Found::Unreadable(problem),
        }
    }
}

/// A command under way.
struct Walk {
    client: Client,
    bank: Bank,
    policy: ConflictPolicy,
    dry_run: bool,
    report: Report,
}

impl Walk {
    async fn all(&mut self, days: &[NaiveDate], known: &[NaiveDate]) -> Result<(), CliError> {
        let progress = Progress::new(days.len());
        let mut is_first = true;
        for day in days {
            if known.binary_search(day).is_ok() {
                self.report.known_day_count += 1;
            } else {
                if !std::mem::take(&mut is_first) {
                    sleep(self.bank.pace).await;
                }
                self.day(*day).await?;
            }
            progress.done(*day);
        }
        Ok(())
    }

    async fn day(&mut self, day: NaiveDate) -> Result<(), CliError> {
        let table = match self.bank.table(day).await? {
            Found::Table(table) => table,
            Found::Absent => {
                self.report.absent_day_count += 1;
                return Ok(());
            }
            Found::Unreadable(BankError::OtherDate { asked, found }) => {
                self.report.other_dates.push(OtherDate { asked, found });
                return Ok(());
            }
            Found::Unreadable(problem) => {
                self.report.unreadable_day_count += 1;
                self.report.remark(format!("{day}: {problem}"));
                return Ok(());
            }
        };
        self.report.table_count += 1;
        for refused in &table.refused {
            self.report.refused_count += 1;
            self.report.remark(format!("{day}: {refused}"));
        }
        let ticks: Vec<TickMessage> = table.ticks(&self.bank.source).map(|tick| message(&tick)).collect();
        if ticks.is_empty() {
            return Ok(());
        }
        let request = IngestTicksRequest { ticks, conflict_policy: self.policy.into(), validate_only: self.dry_run };
        let answer = self.client.answer(self.client.ingest().ingest_ticks(self.client.request(request))).await?;
        self.report.add(day, &answer);
        Ok(())
    }
}

fn message(tick: &Tick) -> TickMessage {
    TickMessage {
        pair: tick.series.pair.to_string(),
        source: tick.series.source.to_string(),
        observed_time: Some(timestamp(tick.observed_time)),
        rate: tick.value.rate.to_string(),
        reported_change_percent: tick.value.reported_change.map(|change| change.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_both_its_days() {
        let date = |text: &str| parse_date(text).unwrap();
        let check = |from: &str, to: &str, expect: Result<usize, &str>| match (days(date(from), date(to)), expect) {
            (Ok(days), Ok(count)) => assert_eq!((days.len(), days.last()), (count, Some(&date(to)))),
            (Err(error), Err(part)) => {
                assert!(error.is_usage() && error.to_string().contains(part), "{from} {to}: {error}");
            }
            (found, _) => panic!("{from} {to}: {found:?}"),
        };
        check("2024-02-28", "2024-03-01", Ok(3));
        check("2024-02-28", "2024-02-28", Ok(1));
        check("2024-02-28", "2024-02-27", Err("is no range of 1 to 20000 days"));
        check("1990-01-01", "2044-12-31", Err("is no range"));
        check("1989-12-31", "1990-01-01", Err("before 1990"));
    }
}
