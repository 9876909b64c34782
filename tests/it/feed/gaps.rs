//! Gaps and their reasons, over a real socket. A follower with a manual clock polls a publisher that fails for some
//! time, and the server is off for some time.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use silkrate::clock::ManualClock;
use silkrate::domain::Timestamp;
use silkrate::follow::{AddressPolicy, FetchLimits, Fetcher, FollowContext, FollowedSource, Follower, UserAgent};
use silkrate::ingest::Running;
use silkrate::metrics::FollowMetrics;
use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use tempfile::TempDir;
use tonic::Code;

use crate::publisher::{Publisher, Reply};
use crate::support;
use crate::support::{NOW, TestServer, assert_invalid, tick};
use crate::web;

/// A function from the path of a request to the reply.
type ReplyFn = fn(&str) -> Reply;

const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A publisher whose reply the test can change, and the directory of a store with the ticks of this publisher.
struct Scenario {
    publisher: Publisher,
    reply: Arc<Mutex<ReplyFn>>,
    source: FollowedSource,
    dir: TempDir,
}

impl Scenario {
    async fn new(source: FollowedSource) -> Self {
        let reply: Arc<Mutex<ReplyFn>> = Arc::new(Mutex::new(|_| Reply::ABSENT));
        let current = Arc::clone(&reply);
        let publisher = Publisher::start(move |path| (current.lock().unwrap())(path)).await;
        Self { publisher, reply, source, dir: tempfile::tempdir().unwrap() }
    }

    /// Runs a follower from `begin`. Each part is a reply and the time until which the publisher uses it.
    async fn follow(&self, begin: &str, parts: &[(ReplyFn, &str)]) {
        let clock = Arc::new(ManualClock::new(time(begin)));
        let config = support::config(&self.dir, &[]);
        let (options, limits) = (config.store_options().clone(), config.queue_limits());
        let (running, _fan_out) = Running::open(options, limits, Arc::clone(&clock) as _).unwrap();
        let context = FollowContext {
            audit: None,
            ingest: running.ingest().clone(),
            rules: Arc::default(),
            clock: Arc::clone(&clock) as _,
            metrics: FollowMetrics::default(),
            seed: 7,
        };
        let fetcher = Fetcher::new(AddressPolicy::Any, FetchLimits::default(), &UserAgent::default()).unwrap();
        let mut follower = Follower::new(self.source, &self.publisher.base_url, fetcher, context);
        for (reply, until) in parts {
            *self.reply.lock().unwrap() = *reply;
            while follower.next_poll() < time(until) {
                clock.set(follower.next_poll());
                follower.poll().await;
            }
        }
        drop(follower);
        running.close().unwrap();
    }

    /// Starts a server with the store, and with its clock at [`NOW`]. The server follows no source.
    async fn into_server(self) -> TestServer {
        TestServer::start_with_store(self.dir, &[]).await
    }
}

/// Replies with a ticker page of three cycles.
fn ticker(pairs: &[(&str, &str)]) -> Reply {
    let line = |(pair, rate): &(&str, &str)| format!("• {pair}/USD = {rate} 0%\n");
    let cycle: String = pairs.iter().map(line).collect();
    Reply::Body(cycle.repeat(3).into_bytes())
}

fn whole(_: &str) -> Reply {
    ticker(&[("KGS", "0.01144"), ("TMT", "0.28490")])
}

fn without_tmt(_: &str) -> Reply {
    ticker(&[("KGS", "0.01144")])
}

fn down(_: &str) -> Reply {
    Reply::Status("503 Service Unavailable", "")
}

async fn gaps(server: &TestServer, request: v1::ListGapsRequest) -> v1::ListGapsResponse {
    server.rates().list_gaps(request).await.unwrap().into_inner()
}

fn of_pair(pair: &str) -> v1::ListGapsRequest {
    v1::ListGapsRequest { pair: pair.to_owned(), ..Default::default() }
}

fn micros(time: Option<&prost_types::Timestamp>) -> i64 {
    time.map(|time| Timestamp::from_parts_exact(time.seconds, time.nanos).unwrap().micros()).unwrap()
}

fn minutes(length: Option<prost_types::Duration>) -> i64 {
    length.unwrap().seconds / 60
}

/// Returns pair, length in hours and reason of each gap.
fn hours_and_reasons(gaps: &[v1::Gap]) -> Vec<(&str, i64, v1::GapReason)> {
    gaps.iter().map(|gap| (gap.pair.as_str(), minutes(gap.length) / 60, gap.reason())).collect()
}

/// Checks that the stretches of a gap fill its time up to `now`, and that the lengths per reason add up.
#[track_caller]
fn assert_adds_up(gap: &v1::Gap, now: Timestamp) {
    let (start, end) = (micros(gap.start_time.as_ref()), micros(gap.end_time.as_ref()));
    let mut at = start;
    let mut sums = [0; 5];
    for stretch in &gap.stretches {
        assert_eq!(micros(stretch.start_time.as_ref()), at, "{gap:?}");
        at = micros(stretch.end_time.as_ref());
        sums[usize::try_from(stretch.reason).unwrap()] += at - micros(stretch.start_time.as_ref());
    }
    assert_eq!(at, end.min(now.micros()), "{gap:?}");
    let lengths =
        [gap.asked_silent_length, gap.refused_length, gap.unreachable_length, gap.not_asked_length].map(Option::unwrap);
    let lengths = lengths.map(|length| length.seconds * Timestamp::SECOND_US + i64::from(length.nanos) / 1_000);
    assert_eq!(lengths, sums[1..], "{gap:?}");
    assert_eq!(gap.reason, (1..5).max_by_key(|reason| sums[usize::try_from(*reason).unwrap()]).unwrap(), "{gap:?}");
}

/// Starts a server with two days of the ticker. The ticker is down for three hours, and then lacks TMT for two and a
/// half hours. After that, the server is off for a day.
async fn two_days() -> TestServer {
    let scenario = Scenario::new(FollowedSource::Timesca).await;
    let first = [
        (whole as ReplyFn, "2025-12-07T05:20:00Z"),
        (down, "2025-12-07T08:20:00Z"),
        (whole, "2025-12-07T09:00:00Z"),
        (without_tmt, "2025-12-07T11:30:00Z"),
        (whole, "2025-12-07T11:40:00Z"),
    ];
    scenario.follow("2025-12-07T05:00:00Z", &first).await;
    scenario.follow("2025-12-08T11:40:00Z", &[(whole, "2025-12-08T12:00:00Z")]).await;
    scenario.into_server().await
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_reason_distinguishes_silent_unreachable_and_not_asked() {
    use v1::GapReason::{AskedSilent, NotAsked, Unreachable};
    let server = two_days().await;
    let all = gaps(&server, v1::ListGapsRequest::default()).await;
    let expect = [
        ("KGS/USD", 3, Unreachable),
        ("KGS/USD", 24, NotAsked),
        ("TMT/USD", 3, Unreachable),
        ("TMT/USD", 2, AskedSilent),
        ("TMT/USD", 24, NotAsked),
    ];
    assert_eq!(hours_and_reasons(&all.gaps), expect);
    for gap in &all.gaps {
        assert_adds_up(gap, NOW);
        assert!(!gap.open && gap.source == "timesca");
        let outside = minutes(gap.length)
            - match gap.reason() {
                Unreachable => minutes(gap.unreachable_length),
                AskedSilent => minutes(gap.asked_silent_length),
                NotAsked | v1::GapReason::Refused | v1::GapReason::Unspecified => minutes(gap.not_asked_length),
            };
        // A poll covers the time until the next poll begins, or until three minutes after the next poll is due.
        assert!((0..=6).contains(&outside), "{gap:?}");
    }
    // Both pairs have the same stretches when the whole page is down.
    assert_eq!(all.gaps[0].stretches, all.gaps[2].stretches);

    // Polls in the log and polls in a checkpoint give the same gaps.
    let server = server.restart().await;
    assert_eq!(gaps(&server, v1::ListGapsRequest::default()).await.gaps, all.gaps);

    let of = async |request: v1::ListGapsRequest| hours_and_reasons(&gaps(&server, request).await.gaps).len();
    assert_eq!(of(of_pair("TMT/USD")).await, 3);
    let hours = |hours: i64| Some(prost_types::Duration { seconds: hours * 3_600, nanos: 0 });
    assert_eq!(of(v1::ListGapsRequest { minimum_length: hours(3), ..of_pair("TMT/USD") }).await, 2);
    assert_eq!(of(v1::ListGapsRequest { minimum_length: hours(24), ..of_pair("TMT/USD") }).await, 1);
    let at = |text: &str| {
        let (seconds, nanos) = time(text).to_parts();
        Some(prost_types::Timestamp { seconds, nanos })
    };
    let range =
        |start: &str, end: &str| v1::ListGapsRequest { start_time: at(start), end_time: at(end), ..of_pair("TMT/USD") };
    // A gap that overlaps the range is listed completely.
    assert_eq!(of(range("2025-12-07T06:00:00Z", "2025-12-07T10:00:00Z")).await, 2);
    assert_eq!(of(range("2025-12-07T06:00:00Z", "2025-12-07T07:00:00Z")).await, 1);
    assert_eq!(of(range("2025-12-07T08:50:00Z", "2025-12-07T08:55:00Z")).await, 0);
    assert_eq!(of(range("2025-12-07T10:00:00Z", "2025-12-07T10:00:00Z")).await, 0);
    assert_eq!(
        of(v1::ListGapsRequest { end_time: None, ..range("2025-12-07T10:00:00Z", "2025-12-08T00:00:00Z") }).await,
        2
    );

    let mut paged = Vec::new();
    let mut request = v1::ListGapsRequest { page_size: 1, ..Default::default() };
    for _ in 0..10 {
        let page = gaps(&server, request.clone()).await;
        assert_eq!(page.gaps.len(), 1);
        paged.extend(page.gaps);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all.gaps);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_gap_ends_now_and_plain_http_equals_grpc() {
    let server = two_days().await;
    // Two and a half hours later, without any poll.
    let now = NOW.saturating_add_us(150 * MINUTE_US);
    server.clock.set(now);
    let all = gaps(&server, of_pair("KGS/USD")).await;
    let open = all.gaps.last().unwrap();
    assert_eq!((all.gaps.len(), open.open, open.reason()), (3, true, v1::GapReason::NotAsked));
    assert_eq!(micros(open.end_time.as_ref()), now.micros());
    assert_adds_up(open, now);
    let page = gaps(&server, v1::ListGapsRequest { page_size: 2, ..of_pair("KGS/USD") }).await;
    server.clock.set(now.saturating_add_us(30 * MINUTE_US));
    let next = v1::ListGapsRequest { page_token: page.next_page_token, page_size: 2, ..of_pair("KGS/USD") };
    assert_eq!(gaps(&server, next).await.gaps, all.gaps[2..], "all pages of a list use one current time");

    server.clock.set(now);
    let json = web::get(server.http_addr, "/v1/gaps?pair=KGS/USD").await;
    assert_eq!(json.status, 200);
    let last = json.json()["gaps"][2].clone();
    assert_eq!((&last["open"], &last["reason"]), (&true.into(), &"NOT_ASKED".into()));
    assert_eq!(last["end_time"], "2025-12-08T14:30:00Z");
    let csv = web::get(server.http_addr, "/v1/gaps?format=csv&minimum_length=3h").await.csv();
    let cell = |row: usize, name: &str| csv[row].iter().find(|(other, _)| other == name).unwrap().1.clone();
    assert_eq!((csv.len(), cell(0, "reason"), cell(1, "reason")), (4, "UNREACHABLE".into(), "NOT_ASKED".into()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn later_pages_keep_the_source_of_the_first_page() {
    let server = two_days().await;
    let all = gaps(&server, of_pair("KGS/USD")).await.gaps;
    let first = gaps(&server, v1::ListGapsRequest { page_size: 1, ..of_pair("KGS/USD") }).await;
    // From now on a request without a source is ambiguous.
    let other = v1::Tick { source: "nbkr".to_owned(), ..tick("KGS/USD", -3_600, "0.01144") };
    server.store(&[other]).await;
    let next = v1::ListGapsRequest { page_token: first.next_page_token, ..of_pair("KGS/USD") };
    assert_eq!([first.gaps, gaps(&server, next).await.gaps].concat(), all);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_series_and_invalid_fields_are_refused() {
    let server = two_days().await;
    let refused = async |request: v1::ListGapsRequest| server.rates().list_gaps(request).await.unwrap_err();
    let status = refused(of_pair("UZS/USD")).await;
    assert_eq!(status.code(), Code::NotFound);
    let of_source = |source: &str| v1::ListGapsRequest { source: source.to_owned(), ..Default::default() };
    let status = refused(of_source("nbkr")).await;
    assert_eq!(
        (status.code(), status.message().contains("KGS/USD from timesca")),
        (Code::NotFound, true),
        "{status:?}"
    );
    assert_eq!(gaps(&server, of_source("timesca")).await.gaps.len(), 5);
    assert_invalid(&refused(of_source("NBKR")).await, "source", "is not a slug");
    let other = v1::ListGapsRequest {
        page_token: gaps(&server, v1::ListGapsRequest { page_size: 1, ..of_pair("KGS/USD") }).await.next_page_token,
        ..of_pair("TMT/USD")
    };
    assert_invalid(&refused(other).await, "page_token", "belongs to another request");
    server.stop().await;
}

/// Replies with a table of NBT for a day, but none on the 6th and 7th, a weekend.
fn banking_days(path: &str) -> Reply {
    let day = path.split("date=").nth(1).and_then(|rest| rest.get(..10)).unwrap();
    if ["2025-12-06", "2025-12-07"].contains(&day) {
        return Reply::ABSENT;
    }
    let entry =
        format!("<Valute><CharCode>USD</CharCode><Nominal>1</Nominal><Value>9.30{}</Value></Valute>", &day[8..]);
    Reply::Body(format!("<ValCurs Date='{day}'>{entry}</ValCurs>").into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn weekend_of_a_bank_is_silent_and_future_gap_has_no_reason() {
    let scenario = Scenario::new(FollowedSource::Nbt).await;
    scenario.follow("2025-12-04T00:00:00Z", &[(banking_days, "2025-12-08T12:00:00Z")]).await;
    let server = scenario.into_server().await;
    // The observed time of a bank's rate is the first instant of its day, 19:00 UTC. The collapse window is seven days.
    assert_eq!(gaps(&server, of_pair("USD/TJS")).await.gaps, []);
    let hours = |hours: i64| Some(prost_types::Duration { seconds: hours * 3_600, nanos: 0 });
    let weekend = gaps(&server, v1::ListGapsRequest { minimum_length: hours(24), ..of_pair("USD/TJS") }).await.gaps;
    assert_eq!(hours_and_reasons(&weekend), [("USD/TJS", 72, v1::GapReason::AskedSilent)]);
    assert_eq!(weekend[0].asked_silent_length, weekend[0].length);
    // Tomorrow's table is already stored, so the last gap is not open, and its reasons cover only the time up to now.
    let days = gaps(&server, v1::ListGapsRequest { minimum_length: hours(23), ..of_pair("USD/TJS") }).await.gaps;
    let last = days.last().unwrap();
    assert_eq!((last.open, micros(last.end_time.as_ref())), (false, time("2025-12-08T19:00:00Z").micros()));
    assert_adds_up(last, NOW);
    server.stop().await;
}

/// A server process with a store, and the address of the server. Dropping this value kills the process.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    /// Starts the program; it follows the ticker at `publisher`, if given.
    fn start(dir: &TempDir, publisher: Option<&Publisher>) -> Self {
        const MARK: &str = "serving on ";
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(["serve", "--reserve-mib", "0", "--http-listen", "none", "--listen", "127.0.0.1:0"]);
        command.arg("--db").arg(dir.path().join("db")).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(publisher) = publisher {
            command.args(["--follow", "timesca", "--feed-url", &format!("timesca={}", publisher.base_url)]);
        }
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let line = log.lines().map(Result::unwrap).find(|line| line.contains(MARK)).unwrap();
        let address = format!("http://{}", line.split(MARK).nth(1).unwrap());
        Self { child, address }
    }

    /// Returns the stretches of KGS/USD since its last observation.
    async fn stretches(&self) -> Vec<v1::GapStretch> {
        let Ok(mut rates) = RateServiceClient::connect(self.address.clone()).await else { return Vec::new() };
        let any_length = Some(prost_types::Duration { seconds: 0, nanos: 0 });
        let response = rates.list_gaps(v1::ListGapsRequest { minimum_length: any_length, ..of_pair("KGS/USD") }).await;
        // The series exists after the first poll.
        response.map(|response| response.into_inner().gaps.pop().unwrap_or_default().stretches).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poll_records_survive_a_kill() {
    let publisher = Publisher::start(whole).await;
    let dir = tempfile::tempdir().unwrap();
    let following = Program::start(&dir, Some(&publisher));
    let is_asked = |stretch: &v1::GapStretch| stretch.reason() == v1::GapReason::AskedSilent;
    let mut stretches = Vec::new();
    for _ in 0..400 {
        stretches = following.stretches().await;
        if stretches.iter().any(is_asked) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stretches.iter().all(is_asked), "{stretches:?}");
    drop(following);
    let again = Program::start(&dir, None).stretches().await;
    assert_eq!(
        again.iter().find(|stretch| is_asked(stretch)).map(|stretch| stretch.start_time),
        Some(stretches[0].start_time)
    );
}
