//! `backfill`: fetches a bank's tables of past days and sends them to the server.
//!
//! The server ingests these ticks like any others. The command first asks the server which days it has, and skips these
//! days. The same command therefore resumes an interrupted backfill, and changes nothing if the backfill is complete.
//!
//! **Invariant**: all rates of a day are sent in one request, and only if the bank returned the table of that day.

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
use crate::domain::{Currency, CurrencySet, Source, SourceError, Tick, Timestamp, parse_duration};
use crate::feed::{BankError, BankFeed, BankRequest, BankRules, BankTable};
use crate::follow::{
    FeedUrl, FetchError, FetchLimits, Fetched, Fetcher, FollowSettings, FollowedSource, UserAgent, Validators,
};
use crate::proto::convert::timestamp;
use crate::proto::v1::{ConflictPolicy, IngestTicksRequest, ListSourcesRequest, SettingOrigin, Tick as TickMessage};

/// Maximum number of days per command.
const DAYS_MAX: u64 = 20_000;
/// Maximum number of requests for one day.
const TRIES_MAX: u32 = 4;
/// Maximum `Retry-After` of a bank; the command fails if the bank asks for a longer wait.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

const EXAMPLES: &str = "\
Examples:
  silkrate backfill --source cbu --from 2017-01-01
  silkrate backfill --source nbk --from 2020-01-01 --to 2020-12-31 --pace 2s

nbk, nbt, cbu and cbt publish a table for each date; nbkr publishes only its
newest table. The command skips days that the server already has, so the same
command resumes after an interruption; with --again, it fetches these days too.
A day is skipped and reported if the bank returns the table of another day.";

/// Arguments of `backfill`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BackfillArgs {
    /// Bank to fetch from: nbk, nbt, cbu or cbt
    #[arg(long, value_name = "SOURCE", value_parser = FollowedSource::parse)]
    source: FollowedSource,
    /// First day, in the time zone of the bank
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    from: NaiveDate,
    /// Last day, inclusive, in the time zone of the bank; default today
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    to: Option<NaiveDate>,
    /// Time between two requests to the bank; 100ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = |text: &str| parse_duration(text, Duration::from_millis(100), Duration::from_hours(1)))]
    pace: Duration,
    /// Base URL to use instead of the bank's own, as in cbu=https://mirror.example.org/cbu
    #[arg(long, value_name = "SOURCE=URL", env = "SILKRATE_FEED_URL", value_delimiter = ',', value_parser = FeedUrl::parse)]
    feed_url: Vec<FeedUrl>,
    /// User-Agent header of the requests; default silkrate/VERSION
    #[arg(long, value_name = "TEXT", env = "SILKRATE_USER_AGENT", value_parser = UserAgent::parse)]
    user_agent: Option<UserAgent>,
    /// Currency to store besides KGS, KZT, TJS, TMT, USD and UZS; the server must serve it; may be repeated
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = Currency::parse)]
    currency: Vec<Currency>,
    /// Also fetch the days that the server already has
    #[arg(long)]
    again: bool,
    /// Replace stored rates that differ; the old rates stay readable as revisions
    #[arg(long)]
    revise: bool,
    /// Report what would be stored, without storing it
    #[arg(long)]
    dry_run: bool,
}

/// Why a backfill failed.
#[derive(Debug, Error)]
pub(super) enum BackfillError {
    /// The source has no tables by date.
    #[error(
        "{0} publishes only its newest table, at an address without a date; \
         to collect its tables from now on, use 'serve --follow {0}'"
    )]
    NotByDate(FollowedSource),
    /// The range is empty or too long.
    #[error("invalid range --from {from} --to {to}: it must have 1 to {max} days", max = DAYS_MAX)]
    Range {
        /// The first day.
        from: NaiveDate,
        /// The last day.
        to: NaiveDate,
    },
    /// The range begins before the oldest observed time that the server accepts.
    #[error("invalid --from {0}: the server refuses times before 1990; use a later day")]
    TooOld(NaiveDate),
    /// The table of a day could not be fetched.
    #[error("{day}: {problem}; to resume from that day, run the same command later")]
    Fetch {
        /// The requested day.
        day: NaiveDate,
        /// The error of the last attempt.
        problem: FetchError,
    },
    /// The HTTP client cannot be created.
    #[error(transparent)]
    SetUp(FetchError),
    /// The source slug of the bank is invalid.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl From<BackfillError> for CliError {
    fn from(problem: BackfillError) -> Self {
        Self::new(if problem.is_usage() { ErrorKind::Usage } else { ErrorKind::Unreachable }, problem)
    }
}

impl BackfillError {
    /// Returns true if the command line is wrong.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            Self::NotByDate(_) | Self::Range { .. } | Self::TooOld(_) => true,
            Self::Fetch { .. } | Self::SetUp(_) | Self::Source(_) => false,
        }
    }
}

fn parse_date(text: &str) -> Result<NaiveDate, String> {
    text.parse().map_err(|_| "not a calendar day; use a date like 2017-01-31".to_owned())
}

pub(super) async fn run(args: BackfillArgs, session: &Session) -> Result<Outcome, CliError> {
    let source = args.source;
    let feed = source.by_date().ok_or(BackfillError::NotByDate(source))?;
    let to = args.to.unwrap_or_else(|| feed.zone().local(SystemClock.now()).date());
    let days = days(args.from, to)?;
    let settings = FollowSettings { sources: vec![source], urls: args.feed_url, ..FollowSettings::default() };
    let (base_url, address_policy) = settings.endpoint(source);
    let slug = source.source().map_err(BackfillError::from)?;
    let fetcher = Fetcher::new(address_policy, FetchLimits::default(), &args.user_agent.unwrap_or_default())
        .map_err(BackfillError::SetUp)?;
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
    let report = Report::new(source.name(), args.from, to);
    let mut backfill = Backfill { client, bank, policy, dry_run: args.dry_run, report };
    let result = backfill.send_days(&days, &known).await;
    print(&backfill.report, session, args.dry_run)?;
    result?;
    Ok(if backfill.report.is_clean() { Outcome::Done } else { Outcome::PartlyRefused })
}

/// Returns every day of the range, both ends included.
fn days(from: NaiveDate, to: NaiveDate) -> Result<Vec<NaiveDate>, BackfillError> {
    if from < Timestamp::OLDEST_OBSERVED.to_chrono().date_naive() {
        return Err(BackfillError::TooOld(from));
    }
    let count = u64::try_from((to - from).num_days() + 1).ok().filter(|count| (1..=DAYS_MAX).contains(count));
    let count = count.ok_or(BackfillError::Range { from, to })?;
    Ok((0..count).filter_map(|day| from.checked_add_days(Days::new(day))).collect())
}

/// A bank and the settings for fetching and reading its tables.
struct Bank {
    feed: BankFeed,
    source: Source,
    base_url: String,
    fetcher: Fetcher,
    pace: Duration,
    served: CurrencySet,
    /// The server's minimum places for this source; `None` if the bank's parser decides.
    minimum_places: Option<u8>,
}

/// Asks the server for the minimum places of `source`, so that a table gives the same rates whether the server or this
/// command fetches it. Returns `None` if the setting has its default, with which the bank's parser decides.
async fn minimum_places(client: &Client, source: &Source) -> Result<Option<u8>, CliError> {
    let request = client.request(ListSourcesRequest { sources: vec![source.to_string()] });
    let answer = client.answer(client.rates().list_sources(request)).await?;
    let set = answer
        .sources
        .iter()
        .find(|row| !matches!(row.minimum_places_origin(), SettingOrigin::Unspecified | SettingOrigin::Default));
    Ok(set.and_then(|row| row.minimum_places.try_into().ok()))
}

/// The outcome of a request for a day.
enum BankAnswer {
    /// The bank returned the table of the day.
    Table(BankTable),
    /// The bank has no table for the day.
    Absent,
    /// The response cannot be read as the table of the day.
    Unreadable(BankError),
}

impl Bank {
    /// Fetches the table of a day. Retries temporary failures.
    async fn table(&self, day: NaiveDate) -> Result<BankAnswer, BackfillError> {
        let request = BankRequest::new(self.feed, day);
        let url = request.url(&self.base_url);
        let mut attempt = 1;
        loop {
            let problem = match self.fetcher.get(&url, &Validators::default(), request.body_bytes_max()).await {
                Ok(Fetched::Body { bytes, .. }) => return Ok(self.read(request, &bytes)),
                Ok(Fetched::NotModified) => return Ok(BankAnswer::Absent),
                Err(problem) => problem,
            };
            let retry_after = problem.retry_after().map(|after| after.wait_from(SystemClock.now()));
            // A bank that sends Retry-After may have the table later.
            if problem.is_not_found() && (retry_after.is_none() || attempt == TRIES_MAX) {
                return Ok(BankAnswer::Absent);
            }
            let retry_after = retry_after.unwrap_or_default();
            let is_retryable = problem.is_not_found() || problem.is_retryable();
            if attempt == TRIES_MAX || !is_retryable || retry_after > RETRY_AFTER_MAX {
                return Err(BackfillError::Fetch { day, problem });
            }
            sleep(retry_after.max(self.pace * (1 << attempt))).await;
            attempt += 1;
        }
    }

    fn read(&self, request: BankRequest, body: &[u8]) -> BankAnswer {
        match request.read(body, &BankRules { served: &self.served, minimum_places: self.minimum_places }) {
            Ok(table) => BankAnswer::Table(table),
            Err(BankError::Empty | BankError::NoEntries) => BankAnswer::Absent,
            Err(problem) => BankAnswer::Unreadable(problem),
        }
    }
}

/// A running backfill.
struct Backfill {
    client: Client,
    bank: Bank,
    policy: ConflictPolicy,
    dry_run: bool,
    report: Report,
}

impl Backfill {
    async fn send_days(&mut self, days: &[NaiveDate], known: &[NaiveDate]) -> Result<(), CliError> {
        let progress = Progress::new(days.len());
        let mut is_first = true;
        for day in days {
            if known.binary_search(day).is_ok() {
                self.report.known_day_count += 1;
            } else {
                if !std::mem::take(&mut is_first) {
                    sleep(self.bank.pace).await;
                }
                self.send_day(*day).await?;
            }
            progress.done(*day);
        }
        Ok(())
    }

    async fn send_day(&mut self, day: NaiveDate) -> Result<(), CliError> {
        let table = match self.bank.table(day).await? {
            BankAnswer::Table(table) => table,
            BankAnswer::Absent => {
                self.report.absent_day_count += 1;
                return Ok(());
            }
            BankAnswer::Unreadable(BankError::OtherDate { asked, found }) => {
                self.report.other_dates.push(OtherDate { asked, found });
                return Ok(());
            }
            BankAnswer::Unreadable(problem) => {
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
    fn range_of_days_includes_both_ends() {
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
        check("2024-02-28", "2024-02-27", Err("it must have 1 to 20000 days"));
        check("1990-01-01", "2044-12-31", Err("invalid range"));
        check("1989-12-31", "1990-01-01", Err("before 1990"));
    }
}
