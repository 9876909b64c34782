//! Requests that name no source, at every interface: which source answers, for which day, and whether the answer is
//! stale. `tests/data/default-answers.txt` has the requests and the required answers, and describes its own format.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::value::RawValue;
use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use tonic::Status;

use crate::support::TestServer;
use crate::web;

const TABLE_FILE: &str = "tests/data/default-answers.txt";
const TABLE: &str = include_str!("../data/default-answers.txt");

/// Number of rows of the table. It changes only if a row is added or removed on purpose, and so do the other counts.
const ROWS: usize = 74;
/// Number of interfaces of all rows together. A row counts each of its interfaces once.
const ROWS_TIMES_INTERFACES: usize = 211;
/// Number of requests of all rows.
const REQUESTS: usize = 273;

/// The ticks of a store, the time of its server, and the questions to the server.
struct Case {
    name: String,
    now: Timestamp,
    ticks: Vec<v1::Tick>,
    /// Sources to archive after the ticks are stored.
    archived: Vec<String>,
    rows: Vec<Row>,
}

/// A question that has one answer at every interface.
struct Row {
    name: String,
    value: String,
    requests: Vec<Request>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Interface {
    Grpc,
    Http,
    Frankfurter,
    Cli,
    Page,
}

/// A request of a row.
struct Request {
    line: usize,
    interface: Interface,
    text: String,
    checks: Vec<Check>,
}

/// A comparison of one place of an answer.
struct Check {
    place: Place,
    test: Test,
}

#[derive(PartialEq, Eq, Debug)]
enum Place {
    /// The status code of gRPC, the status of HTTP, or the exit status of the command.
    Status,
    /// The body of the response, or the standard output of the command.
    Body,
    /// The standard error of the command.
    Stderr,
    /// The column with this name, in the first row of CSV.
    Csv(String),
    /// The value at this JSON pointer.
    Pointer(String),
}

#[derive(Debug)]
enum Test {
    Equals(String),
    Contains(String),
    Lacks(String),
}

/// What an interface answered.
struct Answer {
    status: String,
    body: String,
    stderr: String,
}

/// The text for a place that has no value.
const ABSENT: &str = "absent";

/// Parses the table.
///
/// # Errors
/// Returns a text that names the line and what is wrong with it.
fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if !line.trim().is_empty() && !line.starts_with('#') {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            add_line(&mut cases, at + 1, &cells).map_err(|problem| format!("line {}: {problem}: {line}", at + 1))?;
        }
    }
    for case in &cases {
        if case.ticks.is_empty() || case.rows.is_empty() {
            return Err(format!("case '{}' has no ticks or no rows", case.name));
        }
        if let Some(row) = case.rows.iter().find(|row| row.requests.is_empty()) {
            return Err(format!("row '{}' of case '{}' has no requests", row.name, case.name));
        }
    }
    Ok(cases)
}

fn add_line(cases: &mut Vec<Case>, line: usize, cells: &[&str]) -> Result<(), String> {
    match cells {
        ["case", name, now] => {
            let (name, now) = ((*name).to_owned(), parse_time(now)?);
            cases.push(Case { name, now, ticks: Vec::new(), archived: Vec::new(), rows: Vec::new() });
        }
        ["tick", pair, source, time, rate] => {
            let case = cases.last_mut().ok_or("no case precedes the tick")?;
            case.ticks.push(v1::Tick {
                pair: (*pair).to_owned(),
                source: (*source).to_owned(),
                observed_time: Some(proto_time(parse_time(time)?)),
                rate: (*rate).to_owned(),
                reported_change_percent: None,
            });
        }
        ["archive", source] => {
            let case = cases.last_mut().ok_or("no case precedes the archived source")?;
            case.archived.push((*source).to_owned());
        }
        ["row", name, value] => {
            let case = cases.last_mut().ok_or("no case precedes the row")?;
            case.rows.push(Row { name: (*name).to_owned(), value: (*value).to_owned(), requests: Vec::new() });
        }
        [interface, text, checks @ ..] if !checks.is_empty() => {
            let interface = Interface::parse(interface, text)?;
            let row = cases.last_mut().and_then(|case| case.rows.last_mut()).ok_or("no row precedes the request")?;
            let mut checks =
                checks.iter().map(|check| Check::parse(check, &row.value)).collect::<Result<Vec<_>, _>>()?;
            for (place, expected) in [(Place::Status, interface.success()), (Place::Stderr, "")] {
                if checks.iter().all(|check| check.place != place) {
                    checks.push(Check { place, test: Test::Equals(expected.to_owned()) });
                }
            }
            row.requests.push(Request { line, interface, text: (*text).to_owned(), checks });
        }
        _ => return Err("the line has too few or too many cells".to_owned()),
    }
    Ok(())
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).map_err(|problem| problem.to_string())
}

fn proto_time(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}

impl Interface {
    /// Parses the name of an interface, and checks the form of its request.
    fn parse(name: &str, request: &str) -> Result<Self, String> {
        match name {
            "grpc" => Ok(Self::Grpc),
            "http" if request.starts_with("/v1/") => Ok(Self::Http),
            "frankfurter" if request.starts_with("/frankfurter/") => Ok(Self::Frankfurter),
            "cli" => Ok(Self::Cli),
            "page" if request == "/" || request.starts_with("/pair/") => Ok(Self::Page),
            "http" | "frankfurter" | "page" => Err(format!("'{request}' is no path of {name}")),
            _ => Err(format!("'{name}' is not case, tick, archive, row, grpc, http, frankfurter, cli or page")),
        }
    }

    /// The status of a request that succeeds.
    const fn success(self) -> &'static str {
        match self {
            Self::Grpc => "Ok",
            Self::Http | Self::Frankfurter | Self::Page => "200",
            Self::Cli => "0",
        }
    }
}

impl Check {
    /// Parses a check such as `/rate`, `stderr ~ is stale` or `/stale = true`. Without an operator, the place has
    /// `value`.
    fn parse(text: &str, value: &str) -> Result<Self, String> {
        type MakeTest = fn(String) -> Test;
        const OPERATORS: [(&str, MakeTest); 3] =
            [(" = ", Test::Equals), (" ~ ", Test::Contains), (" !~ ", Test::Lacks)];
        let found = OPERATORS.iter().filter_map(|(operator, test)| {
            let (place, expected) = text.split_once(*operator)?;
            Some((place, test(expected.to_owned())))
        });
        // The first operator counts; the expected text may contain others.
        let first = found.min_by_key(|(place, _)| place.len());
        let (place, test) = first.unwrap_or_else(|| (text, Test::Equals(value.to_owned())));
        let place = match place.split_once(' ') {
            Some(("csv", column)) => Place::Csv(column.to_owned()),
            None if place == "status" => Place::Status,
            None if place == "body" => Place::Body,
            None if place == "stderr" => Place::Stderr,
            None if place.starts_with('/') => Place::Pointer(place.to_owned()),
            _ => return Err(format!("'{place}' is not a JSON pointer, csv COLUMN, body, stderr or status")),
        };
        Ok(Self { place, test })
    }

    /// Compares the place in an answer. Returns a description of the difference, or `None` if there is none.
    fn difference(&self, answer: &Answer) -> Option<String> {
        let found = answer.value(&self.place);
        let is_as_expected = match (&self.test, &found) {
            (Test::Equals(expected), found) => found.as_deref().unwrap_or(ABSENT) == expected,
            (Test::Contains(part), Some(found)) => found.contains(part),
            (Test::Lacks(part), Some(found)) => !found.contains(part),
            (Test::Contains(_) | Test::Lacks(_), None) => false,
        };
        let found = found.as_deref().unwrap_or(ABSENT);
        (!is_as_expected).then(|| format!("{:?} is '{found}', expected {:?}", self.place, self.test))
    }
}

impl Answer {
    fn of_grpc<T: Serialize>(response: Result<tonic::Response<T>, Status>) -> Self {
        let (status, body) = match response {
            // The JSON has the names of HTTP for fields and values.
            Ok(response) => (tonic::Code::Ok, serde_json::to_string(response.get_ref()).unwrap()),
            Err(status) => (status.code(), status.message().to_owned()),
        };
        Self { status: format!("{status:?}"), body, stderr: String::new() }
    }

    fn value(&self, place: &Place) -> Option<String> {
        match place {
            Place::Status => Some(self.status.clone()),
            Place::Body => Some(self.body.clone()),
            Place::Stderr => Some(self.stderr.clone()),
            Place::Csv(column) => {
                let row = web::rows(&self.body).into_iter().next()?;
                row.into_iter().find(|(name, _)| name == column).map(|(_, value)| value)
            }
            Place::Pointer(pointer) => value_at(&self.body, pointer),
        }
    }
}

/// Returns the value at a JSON pointer: the content of a string, and any other value as it is written, so that a number
/// keeps all its digits. `None` if there is no such value.
fn value_at(json: &str, pointer: &str) -> Option<String> {
    let mut value: Box<RawValue> = serde_json::from_str(json).ok()?;
    for name in pointer.split('/').skip(1) {
        let inner = value.get();
        value = if inner.starts_with('[') {
            let items: Vec<Box<RawValue>> = serde_json::from_str(inner).ok()?;
            items.into_iter().nth(name.parse().ok()?)?
        } else {
            let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(inner).ok()?;
            fields.remove(name)?
        };
    }
    let text = value.get();
    if text.starts_with('"') { serde_json::from_str(text).ok() } else { Some(text.to_owned()) }
}

/// The fields of a gRPC request, such as `pair=KGS/USD date=2026-11-26`.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let field = |field: &'a str| field.split_once('=').ok_or_else(|| format!("'{field}' is not NAME=VALUE"));
        Ok(Self(text.split_whitespace().map(field).collect::<Result<_, _>>()?))
    }

    /// Takes the text of a field. It is empty if the request has no such field.
    fn text(&mut self, name: &str) -> String {
        self.0.remove(name).unwrap_or_default().to_owned()
    }

    fn time(&mut self, name: &str) -> Result<Option<prost_types::Timestamp>, String> {
        self.0.remove(name).map(|text| parse_time(text).map(proto_time)).transpose()
    }

    fn period(&mut self) -> Result<i32, String> {
        let name = format!("CHANGE_PERIOD_{}", self.text("period"));
        v1::ChangePeriod::from_str_name(&name).map(i32::from).ok_or_else(|| format!("{name} is not a period"))
    }

    /// Checks that every field was taken.
    fn finish(self) -> Result<(), String> {
        self.0.keys().next().map_or(Ok(()), |name| Err(format!("this test cannot set the field '{name}'")))
    }
}

/// Sends a gRPC request such as `GetRate pair=KGS/USD`.
///
/// # Errors
/// Returns a description of what is wrong with the text.
async fn ask_grpc(server: &TestServer, text: &str) -> Result<Answer, String> {
    let (method, fields) = text.split_once(' ').ok_or("a gRPC request is a method and its fields")?;
    let mut fields = Fields::parse(fields)?;
    let mut rates = server.rates();
    let (pair, source, time_zone) = (fields.text("pair"), fields.text("source"), fields.text("time_zone"));
    Ok(match method {
        "GetRate" => {
            let (time, date) = (fields.time("time")?, fields.text("date"));
            let request = v1::GetRateRequest { pair, source, time, date, time_zone, ..Default::default() };
            fields.finish()?;
            Answer::of_grpc(rates.get_rate(request).await)
        }
        "Convert" => {
            let (amount, time, date) = (fields.text("amount"), fields.time("time")?, fields.text("date"));
            let request = v1::ConvertRequest { pair, amount, source, time, date, time_zone, ..Default::default() };
            fields.finish()?;
            Answer::of_grpc(rates.convert(request).await)
        }
        "GetChange" => {
            let request = v1::GetChangeRequest {
                pair,
                source,
                start_time: fields.time("start_time")?,
                end_time: fields.time("end_time")?,
                start_date: fields.text("start_date"),
                end_date: fields.text("end_date"),
                time_zone,
                ..Default::default()
            };
            fields.finish()?;
            Answer::of_grpc(rates.get_change(request).await)
        }
        "CompareSources" => {
            let request = v1::CompareSourcesRequest {
                pair,
                sources: fields.text("sources").split(',').map(str::to_owned).collect(),
                start_date: fields.text("start_date"),
                time_zone,
                ..Default::default()
            };
            fields.finish()?;
            Answer::of_grpc(rates.compare_sources(request).await)
        }
        "ListRuns" => {
            let request = v1::ListRunsRequest {
                pair,
                source,
                start_time: fields.time("start_time")?,
                end_time: fields.time("end_time")?,
                start_date: fields.text("start_date"),
                end_date: fields.text("end_date"),
                time_zone,
                ..Default::default()
            };
            fields.finish()?;
            Answer::of_grpc(rates.list_runs(request).await)
        }
        "ListChanges" => {
            let request = v1::ListChangesRequest {
                pair,
                source,
                period: fields.period()?,
                start_time: fields.time("start_time")?,
                end_time: fields.time("end_time")?,
                start_date: fields.text("start_date"),
                end_date: fields.text("end_date"),
                time_zone,
                ..Default::default()
            };
            fields.finish()?;
            Answer::of_grpc(rates.list_changes(request).await)
        }
        _ => return Err(format!("this test cannot call the method '{method}'")),
    })
}

async fn ask_http(server: &TestServer, target: &str) -> Answer {
    let response = web::get(server.http_addr, target).await;
    Answer { status: response.status.to_string(), body: response.body, stderr: String::new() }
}

async fn ask_cli(server: &TestServer, line: &str) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(line.split_whitespace()).env("SILKRATE_ENDPOINT", server.addr.to_string()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string());
    Answer { status, body: text(output.stdout), stderr: text(output.stderr) }
}

impl Case {
    /// Starts a server at the time of the case with the ticks of the case.
    async fn start(&self) -> TestServer {
        let server = TestServer::start(&[]).await;
        server.clock.set(self.now);
        let response = server.store(&self.ticks).await;
        assert_eq!(response.held_ticks, [], "case '{}' has ticks too far from the rate in force", self.name);
        for source in &self.archived {
            let request = v1::ArchiveSourceRequest { source: source.clone(), note: String::new() };
            server.ingest().archive_source(request).await.unwrap();
        }
        server
    }
}

impl Request {
    /// Sends the request. Returns a description of each difference between the answer and the table.
    async fn differences(&self, server: &TestServer) -> Vec<String> {
        let answer = match self.interface {
            Interface::Grpc => match ask_grpc(server, &self.text).await {
                Ok(answer) => answer,
                Err(problem) => return vec![format!("{TABLE_FILE}:{}: {problem}: {}", self.line, self.text)],
            },
            Interface::Http | Interface::Frankfurter | Interface::Page => ask_http(server, &self.text).await,
            Interface::Cli => ask_cli(server, &self.text).await,
        };
        let differences = self.checks.iter().filter_map(|check| check.difference(&answer));
        let describe = |difference: String| {
            let Answer { status, body, stderr } = &answer;
            let request = format!("{TABLE_FILE}:{}: {:?} {}", self.line, self.interface, self.text);
            format!("{request}\n    {difference}\n    status {status}, body {body}\n    stderr {stderr}")
        };
        differences.map(describe).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_source_equal_the_table_at_every_interface() {
    let cases = parse(TABLE).unwrap_or_else(|problem| panic!("{TABLE_FILE}: {problem}"));
    let (mut rows, mut rows_times_interfaces, mut requests) = (0, 0, 0);
    let mut differences = Vec::new();
    for case in &cases {
        let server = case.start().await;
        for row in &case.rows {
            for request in &row.requests {
                let found = request.differences(&server).await;
                differences.extend(found.iter().map(|text| format!("{}: {}: {text}", case.name, row.name)));
                requests += 1;
            }
            rows += 1;
            rows_times_interfaces +=
                row.requests.iter().map(|request| request.interface).collect::<BTreeSet<_>>().len();
        }
        server.stop().await;
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    assert_eq!((rows, rows_times_interfaces, requests), (ROWS, ROWS_TIMES_INTERFACES, REQUESTS));
}

#[test]
fn malformed_line_of_the_table_is_named() {
    let check = |text: &str, expect: &str| {
        let problem = parse(text).err().unwrap_or_default();
        assert!(problem.starts_with(expect) && problem.is_empty() == expect.is_empty(), "{text}: {problem}");
    };
    let (case, tick) = ("case | a | 2026-06-10T12:00:00Z", "tick | KGS/USD | timesca | 2026-06-10T10:00:00Z | 0.01140");
    let row = format!("# Comment\n\n{case}\n{tick}\nrow | b | 0.01140");
    check(&format!("{row}\ngrpc | GetRate pair=KGS/USD | /rate | /legs/1 = absent"), "");
    check(&format!("{row}\ncli | rate KGS/USD | stderr ~ is = stale | csv rate | status = 1"), "");
    check("case | a | yesterday", "line 1: time 'yesterday' is not RFC 3339");
    check(tick, "line 1: no case precedes the tick");
    check("row | b | 1", "line 1: no case precedes the row");
    check("archive | timesca", "line 1: no case precedes the archived source");
    check(&format!("{case}\ncli | rate KGS/USD | /rate"), "line 2: no row precedes the request");
    check(&format!("{row}\ncli | rate KGS/USD"), "line 6: the line has too few or too many cells");
    check(&format!("{row}\nrow | b"), "line 6: the line has too few or too many cells");
    check(&format!("{row}\nweb | / | /rate"), "line 6: 'web' is not case, tick, archive, row, grpc");
    check(&format!("{row}\npage | /v1/rate | body"), "line 6: '/v1/rate' is no path of page");
    check(&format!("{row}\nhttp | rate?pair=KGS/USD | /rate"), "line 6: 'rate?pair=KGS/USD' is no path of http");
    check(&format!("{row}\nhttp | /v1/rate | rate"), "line 6: 'rate' is not a JSON pointer");
    check(&format!("{case}\n{tick}"), "case 'a' has no ticks or no rows");
    check(&row, "row 'b' of case 'a' has no requests");
}

#[test]
fn json_pointer_returns_the_written_digits() {
    let check = |pointer: &str, expect: Option<&str>| {
        let json = r#"{"rates":{"2026-11-26":{"UZS":12000.00}},"sources":["cbu"],"stale":false,"time":null}"#;
        assert_eq!(value_at(json, pointer).as_deref(), expect, "{pointer}");
    };
    check("/rates/2026-11-26/UZS", Some("12000.00"));
    check("/rates/2026-11-26", Some(r#"{"UZS":12000.00}"#));
    check("/sources/0", Some("cbu"));
    check("/stale", Some("false"));
    check("/time", Some("null"));
    check("/sources/1", None);
    check("/rates/2026-11-27/UZS", None);
    check("/stale/0", None);
}
