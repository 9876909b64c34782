//! Gaps with their reasons, over a real socket: a feed is followed on a clock that is set, from a publisher that fails,
//! and a server that was off.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use silkrate::clock::ManualClock;
use silkrate::domain::Timestamp;
use silkrate::follow::{AddressPolicy, FetchLimits, Fetcher, FollowContext, FollowedSource, Follower};
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

/// What a publisher answers a path with.
type Answer = fn(&str) -> Reply;

const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A publisher that answers as it was last told to, and a store that takes in what it says while its server is on.
struct Stage {
    publisher: Publisher,
    reply: Arc<Mutex<Answer>>,
    source: FollowedSource,
    dir: TempDir,
}

impl Stage {
    async fn new(source: FollowedSource) -> Self {
        let reply: Arc<Mutex<Answer>> = Arc::new(Mutex::new(|_| Reply::ABSENT));
        let told = Arc::clone(&reply);
        let publisher = Publisher::start(move |path| (told.lock().unwrap())(path)).await;
        Self { publisher, reply, source, dir: tempfile::tempdir().unwrap() }
    }

    /// A server that is on from `begin`, and what the publisher answers until when.
    async fn on(&self, begin: &str, parts: &[(Answer, &str)]) {
        let clock = Arc::new(ManualClock::new(time(begin)));
        let config = support::config(&self.dir, &[]);
        let (options, limits) = (config.store_options().clone(), config.queue_limits());
        let (running, _fan_out) = Running::open(options, limits, Arc::clone(&clock) as _).unwrap();
        let context = FollowContext {
            ingest: running.ingest().clone(),
            rules: Arc::default(),
            clock: Arc::clone(&clock) as _,
            metrics: FollowMetrics::default(),
            seed: 7,
        };
        let fetcher = Fetcher::new(AddressPolicy::Any, FetchLimits::default()).unwrap();
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

    /// A server over the store, at [`NOW`], which polls no more.
    async fn served(self) -> TestServer {
        TestServer::start_over(self.dir, &[]).await
    }
}

/// A ticker page of three cycles.
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

/// Pair, hours, reason.
fn told(gaps: &[v1::Gap]) -> Vec<(&str, i64, v1::GapReason)> {
    gaps.iter().map(|gap| (gap.pair.as_str(), minutes(gap.length) / 60, gap.reason())).collect()
}

/// Stretches fill the time of their gap up to `now`, and add up to what is said of each reason.
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

/// Two days of the ticker: down for three hours, without TMT for two and a half, and its server off for a day.
async fn two_days() -> TestServer {
    let stage = Stage::new(FollowedSource::Timesca).await;
    let first = [
        (whole as Answer, "2025-12-07T05:20:00Z"),
        (down, "2025-12-07T08:20:00Z"),
        (whole, "2025-12-07T09:00:00Z"),
        (without_tmt, "2025-12-07T11:30:00Z"),
        (whole, "2025-12-07T11:40:00Z"),
    ];
    stage.on("2025-12-07T05:00:00Z", &first).await;
    stage.on("2025-12-08T11:40:00Z", &[(whole, "2025-12-08T12:00:00Z")]).await;
    stage.served().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_says_whether_the_feed_was_asked_and_what_it_said() {
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
    assert_eq!(told(&all.gaps), expect);
    for gap in &all.gaps {
        assert_adds_up(gap, NOW);
        assert!(!gap.open && gap.source == "timesca");
        let outside = minutes(gap.length)
            - match gap.reason() {
                Unreachable => minutes(gap.unreachable_length),
                AskedSilent => minutes(gap.asked_silent_length),
                NotAsked | v1::GapReason::Refused | v1::GapReason::Unspecified => minutes(gap.not_asked_length),
            };
        // The poll before a failure speaks until that; the one before the server went off as long as it was to.
        assert!((0..=6).contains(&outside), "{gap:?}");
    }
    // What was down for both says the same of both.
    assert_eq!(all.gaps[0].stretches, all.gaps[2].stretches);

    // As it was written to the log, and as a checkpoint left it.
    let server = server.restart().await;
    assert_eq!(gaps(&server, v1::ListGapsRequest::default()).await.gaps, all.gaps);

    let of = async |request: v1::ListGapsRequest| told(&gaps(&server, request).await.gaps).len();
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
    // A gap is told whole where it overlaps.
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
async fn an_open_gap_ends_now_and_plain_http_says_the_same() {
    let server = two_days().await;
    // Two and a half hours later, and nobody has polled since.
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
    assert_eq!(gaps(&server, next).await.gaps, all.gaps[2..], "the pages of a list have one now");

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
async fn a_list_goes_on_with_the_source_that_it_began_with() {
    let server = two_days().await;
    let all = gaps(&server, of_pair("KGS/USD")).await.gaps;
    let first = gaps(&server, v1::ListGapsRequest { page_size: 1, ..of_pair("KGS/USD") }).await;
    // From here on who names no source is asked to choose.
    let other = v1::Tick { source: "nbkr".to_owned(), ..tick("KGS/USD", -3_600, "0.01144") };
    server.store(&[other]).await;
    let next = v1::ListGapsRequest { page_token: first.next_page_token, ..of_pair("KGS/USD") };
    assert_eq!([first.gaps, gaps(&server, next).await.gaps].concat(), all);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
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

/// A table of NBT for a day; none on the 6th and the 7th, a weekend.
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
async fn a_bank_is_silent_over_its_weekend_and_tomorrow_has_no_reason_yet() {
    let stage = Stage::new(FollowedSource::Nbt).await;
    stage.on("2025-12-04T00:00:00Z", &[(banking_days, "2025-12-08T12:00:00Z")]).await;
    let server = stage.served().await;
    // Rates of a bank are dated at the first instant of its day, 19:00 UTC; a run bridges seven days of them.
    assert_eq!(gaps(&server, of_pair("USD/TJS")).await.gaps, []);
    let hours = |hours: i64| Some(prost_types::Duration { seconds: hours * 3_600, nanos: 0 });
    let weekend = gaps(&server, v1::ListGapsRequest { minimum_length: hours(24), ..of_pair("USD/TJS") }).await.gaps;
    assert_eq!(told(&weekend), [("USD/TJS", 72, v1::GapReason::AskedSilent)]);
    assert_eq!(weekend[0].asked_silent_length, weekend[0].length);
    // Tomorrow's table is known already: that gap is none that is open, and told of up to now.
    let days = gaps(&server, v1::ListGapsRequest { minimum_length: hours(23), ..of_pair("USD/TJS") }).await.gaps;
    let last = days.last().unwrap();
    assert_eq!((last.open, micros(last.end_time.as_ref())), (false, time("2025-12-08T19:00:00Z").micros()));
    assert_adds_up(last, NOW);
    server.stop().await;
}

/// The built program over a store, and where it serves; killed when dropped.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    /// Following the ticker at `publisher`, if there is one.
    fn start(dir: &TempDir, publisher: Option<&Publisher>) -> Self {
        const SAYS: &str = "serving on ";
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(["serve", "--reserve-mib", "0", "--http-listen", "none", "--listen", "127.0.0.1:0"]);
        command.arg("--db").arg(dir.path().join("db")).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(publisher) = publisher {
            command.args(["--follow", "timesca", "--feed-url", &format!("timesca={}", publisher.base_url)]);
        }
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let line = log.lines().map(Result::unwrap).find(|line| line.contains(SAYS)).unwrap();
        let address = format!("http://{}", line.split(SAYS).nth(1).unwrap());
        Self { child, address }
    }

    /// Of the dollar's rate of the som: everything since it was observed.
    async fn stretches(&self) -> Vec<v1::GapStretch> {
        let Ok(mut rates) = RateServiceClient::connect(self.address.clone()).await else { return Vec::new() };
        let every = Some(prost_types::Duration { seconds: 0, nanos: 0 });
        let answer = rates.list_gaps(v1::ListGapsRequest { minimum_length: every, ..of_pair("KGS/USD") }).await;
        // The series is there once its first poll has ended.
        answer.map(|answer| answer.into_inner().gaps.pop().unwrap_or_default().stretches).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_polls_found_outlives_a_kill() {
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
