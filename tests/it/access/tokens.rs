//! Calls with tokens: what each role may do, sources, revisions, expiry and revocation.

use silkrate::access::needs::{METHODS, Need, ROUTES};
use silkrate::access::{Grants, Role};
use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::service::Interceptor as _;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use super::{Bearer, TIMEOUT, Tokens, bound_to, eventually, grants};
use crate::support::{NOW, TestServer, tick, tick_from};
use crate::web::get_with;

async fn start(tokens: &Tokens, flags: &[&str]) -> TestServer {
    let path = tokens.path().display().to_string();
    TestServer::start(&[&["--tokens", path.as_str()], flags].concat()).await
}

fn ingest(server: &TestServer, secret: &str) -> IngestServiceClient<InterceptedService<Channel, Bearer>> {
    IngestServiceClient::with_interceptor(server.channel.clone(), Bearer::new(secret))
}

fn rates(server: &TestServer, secret: &str) -> RateServiceClient<InterceptedService<Channel, Bearer>> {
    RateServiceClient::with_interceptor(server.channel.clone(), Bearer::new(secret))
}

/// Calls a method with an empty message. Returns the code of an error that comes before the first response.
async fn call(server: &TestServer, method: &str, secret: Option<&str>) -> Option<Code> {
    let mut request = Request::new(());
    if let Some(secret) = secret {
        request = Bearer::new(secret).call(request).unwrap();
    }
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    let path: PathAndQuery = format!("/{method}").parse().unwrap();
    let called = grpc.server_streaming(request, path, ProstCodec::<(), ()>::default());
    timeout(TIMEOUT, called).await.expect("an answer in time").err().map(|status| status.code())
}

/// The table is stated twice, so that a mistake in one place is noticed: here by what needs more than `read`, or nothing.
#[test]
fn changes_need_ingest_or_admin_and_only_health_and_login_need_nothing() {
    let needs = |need: Need, table: &[(&'static str, Need)]| -> Vec<&'static str> {
        table
            .iter()
            .filter(|(_, other)| *other == need)
            .map(|(name, _)| name.rsplit("Service/").next().unwrap())
            .collect()
    };
    let admin = ["StreamBackup", "ArchiveSource", "DiscardQuarantine", "ReleaseQuarantine", "UnarchiveSource"];
    assert_eq!(needs(Need::Role(Role::Admin), &METHODS), admin);
    assert_eq!(needs(Need::Role(Role::Ingest), &METHODS), ["IngestPage", "IngestTicks", "StreamTicks"]);
    assert_eq!(needs(Need::Nothing, &METHODS), ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"]);
    assert_eq!(needs(Need::Nothing, &ROUTES), ["/assets/{name}", "/healthz", "/login", "/logout", "/readyz"]);
    assert_eq!(ROUTES.iter().filter(|(_, need)| *need == Need::Role(Role::Read)).count(), ROUTES.len() - 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_is_allowed_to_its_roles_and_refused_to_others() {
    let (tokens, secrets) = Tokens::of_roles();
    let server = start(&tokens, &[]).await;
    for (method, need) in METHODS {
        let anonymous = call(&server, method, None).await;
        let expect = if need == Need::Nothing { None } else { Some(Code::Unauthenticated) };
        assert_eq!(anonymous, expect, "{method} without token");
        for (role, secret) in Role::ALL.into_iter().zip(&secrets) {
            let found = call(&server, method, Some(secret)).await;
            let is_refused = matches!(found, Some(Code::PermissionDenied | Code::Unauthenticated));
            let is_allowed = match need {
                Need::Nothing => true,
                Need::Role(needed) => role >= needed,
            };
            assert_eq!(is_refused, !is_allowed, "{method} with the role {role}: {found:?}");
            assert!(is_allowed || found == Some(Code::PermissionDenied), "{method} with the role {role}: {found:?}");
        }
    }
    assert_eq!(call(&server, "some.Other/Method", None).await, Some(Code::Unauthenticated));
    assert_eq!(call(&server, "some.Other/Method", Some(&secrets[0])).await, Some(Code::Unimplemented));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_is_allowed_to_its_roles_and_refused_to_others() {
    let (tokens, secrets) = Tokens::of_roles();
    let server = start(&tokens, &[]).await;
    for (route, need) in ROUTES {
        let path = route.replace("{base}/{quote}", "KGS/USD").replace("{spelling}", "KGSUSD").replace("{name}", "x");
        let path = path.replace("{what}", "latest");
        let anonymous = get_with(server.http_addr, &path, &[]).await;
        assert_eq!(anonymous.status == 401, need != Need::Nothing, "{path}: {anonymous:?}");
        if need != Need::Nothing {
            assert_eq!(anonymous.header("www-authenticate"), Some("Bearer realm=\"silkrate\""), "{path}");
        }
        for secret in &secrets {
            let allowed = get_with(server.http_addr, &path, &[("authorization", &format!("Bearer {secret}"))]).await;
            assert!(![401, 403].contains(&allowed.status), "{path}: {allowed:?}");
        }
    }
    assert_eq!(get_with(server.http_addr, "/nothing", &[]).await.status, 401);
    let wrong = get_with(server.http_addr, "/v1/latest", &[("authorization", "Bearer silkrate_wrong")]).await;
    assert_eq!((wrong.status, &wrong.json()["code"]), (401, &"UNAUTHENTICATED".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_without_tokens_allows_everything_and_public_read_only_reads() {
    let open = TestServer::start(&[]).await;
    let public = TestServer::start(&["--public-read"]).await;
    for (method, need) in METHODS {
        let found = call(&open, method, None).await;
        assert!(!matches!(found, Some(Code::PermissionDenied | Code::Unauthenticated)), "{method}: {found:?}");
        let found = call(&public, method, None).await;
        let is_read = matches!(need, Need::Nothing | Need::Role(Role::Read));
        assert_eq!(found == Some(Code::Unauthenticated), !is_read, "{method}: {found:?}");
    }
    assert_eq!(get_with(public.http_addr, "/metrics", &[]).await.status, 200);
}

fn batch(ticks: Vec<v1::Tick>, policy: v1::ConflictPolicy) -> v1::IngestTicksRequest {
    v1::IngestTicksRequest { ticks, conflict_policy: policy.into(), ..Default::default() }
}

fn assert_refused(status: &Status, part: &str) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(status.message().contains(part), "no '{part}' in: {}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_token_sends_only_its_sources_and_revises_only_with_permission() {
    use v1::ConflictPolicy::{Refuse, Revise};
    let mut tokens = Tokens::new();
    let nbkr = tokens.add("nbkr", bound_to("nbkr"), None);
    let reviser = tokens.add("reviser", Grants { revise: true, ..bound_to("nbkr") }, None);
    let server = start(&tokens, &[]).await;
    let own = || tick_from("nbkr", "USD/KGS", -60, "87.4500");
    let stored = ingest(&server, &nbkr).ingest_ticks(batch(vec![own()], Refuse)).await.unwrap().into_inner();
    assert_eq!(stored.summary.unwrap().new_run_count, 1);
    // One tick of another source refuses the whole batch.
    let mixed = vec![tick_from("nbkr", "USD/KGS", -30, "87.4600"), tick("KGS/USD", -60, "0.01144")];
    let status = ingest(&server, &nbkr).ingest_ticks(batch(mixed.clone(), Refuse)).await.unwrap_err();
    assert_refused(&status, "the token 'nbkr' may send ticks of nbkr, and not of timesca");
    // A stream ends at such a batch; the batches before it are stored.
    let ticks = |ticks| v1::StreamTicksRequest {
        batch: Some(v1::stream_ticks_request::Batch::Ticks(v1::TickBatch { ticks })),
        ..Default::default()
    };
    let later = tick_from("nbkr", "USD/KGS", -20, "87.4700");
    let batches = tokio_stream::iter([ticks(vec![later]), ticks(mixed)]);
    let mut answers = ingest(&server, &nbkr).stream_ticks(batches).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().batch_index, 0);
    assert_refused(&answers.next().await.unwrap().unwrap_err(), "not of timesca");
    let page =
        v1::IngestPageRequest { content: "USD/KGS 87.4".into(), source: "timesca".to_owned(), ..Default::default() };
    assert_refused(&ingest(&server, &nbkr).ingest_page(page).await.unwrap_err(), "not of timesca");
    // Revisions.
    let other = || tick_from("nbkr", "USD/KGS", -60, "87.4999");
    let status = ingest(&server, &nbkr).ingest_ticks(batch(vec![other()], Revise)).await.unwrap_err();
    assert_refused(&status, "the token 'nbkr' may not replace stored rates");
    let revised = ingest(&server, &reviser).ingest_ticks(batch(vec![other()], Revise)).await.unwrap().into_inner();
    assert_eq!(revised.summary.unwrap().revised_count, 1);
    let series = rates(&server, &nbkr).list_series(v1::ListSeriesRequest::default()).await.unwrap().into_inner().series;
    assert_eq!(series.iter().map(|series| series.source.as_str()).collect::<Vec<_>>(), ["nbkr"]);
    let counted = get_with(server.http_addr, "/metrics", &[("authorization", &format!("Bearer {nbkr}"))]).await.body;
    for line in ["{reason=\"source\"} 3", "{reason=\"revise\"} 1"] {
        assert!(counted.contains(&format!("silkrate_access_refusals_total{line}")), "{line}: {counted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_token_is_refused_and_its_open_streams_end() {
    let (mut tokens, [read, ingest_secret, _]) = Tokens::of_roles();
    let server = start(&tokens, &[]).await;
    let request = || v1::WatchLatestRatesRequest::default();
    let mut watch = rates(&server, &read).watch_latest_rates(request()).await.unwrap().into_inner();
    let mut kept = rates(&server, &ingest_secret).watch_latest_rates(request()).await.unwrap().into_inner();
    watch.next().await.unwrap().unwrap();
    kept.next().await.unwrap().unwrap();
    tokens.revoke("read");
    let ended = timeout(TIMEOUT, async {
        while watch.message().await?.is_some() {}
        Ok::<_, Status>(())
    });
    let status = ended.await.expect("the watch ends").unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains("was revoked or changed"), "{status:?}");
    let status = rates(&server, &read).list_series(v1::ListSeriesRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // The stream of the other token goes on, over the same connection.
    let request = batch(vec![tick("KGS/USD", -60, "0.01144")], v1::ConflictPolicy::Refuse);
    let sequence = ingest(&server, &ingest_secret).ingest_ticks(request).await.unwrap().into_inner().sequence;
    let seen = timeout(TIMEOUT, kept.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(seen.sequence, sequence);
}

#[tokio::test(flavor = "multi_thread")]
async fn call_whose_body_is_held_back_ends_with_its_token() {
    let (mut tokens, [_, ingest_secret, _]) = Tokens::of_roles();
    let server = start(&tokens, &[]).await;
    // The body ends when the sender is dropped, which is after the call.
    let (_body, held_back) = tokio::sync::mpsc::channel::<v1::IngestTicksRequest>(1);
    let request = Bearer::new(&ingest_secret).call(Request::new(())).unwrap();
    let request = request.map(|()| tokio_stream::wrappers::ReceiverStream::new(held_back));
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/silkrate.v1.IngestService/IngestTicks");
    let codec = ProstCodec::<v1::IngestTicksRequest, v1::IngestTicksResponse>::default();
    let call = tokio::spawn(async move { grpc.client_streaming(request, path, codec).await.map(|_| ()) });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!call.is_finished(), "the server waits for the body");
    tokens.revoke("ingest");
    let status = timeout(TIMEOUT, call).await.expect("the call ends").unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_token_is_refused_and_its_open_streams_end() {
    let mut tokens = Tokens::new();
    let secret = tokens.add("brief", grants(Role::Read), Some(NOW.saturating_add_us(Timestamp::HOUR_US)));
    let server = start(&tokens, &[]).await;
    let mut watch =
        rates(&server, &secret).watch_latest_rates(v1::WatchLatestRatesRequest::default()).await.unwrap().into_inner();
    watch.next().await.unwrap().unwrap();
    server.clock.advance_us(Timestamp::HOUR_US);
    let status = rates(&server, &secret).list_series(v1::ListSeriesRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("the token 'brief' has expired"), "{status:?}");
    let status = timeout(TIMEOUT, async {
        while watch.message().await?.is_some() {}
        Ok::<_, Status>(())
    })
    .await
    .unwrap();
    assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn added_token_is_accepted_while_the_server_runs() {
    let mut tokens = Tokens::new();
    let server = start(&tokens, &[]).await;
    let secret = tokens.add("late", grants(Role::Read), None);
    eventually("a call with the new token", async || {
        rates(&server, &secret).list_series(v1::ListSeriesRequest::default()).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempts_are_limited_per_address_with_a_retry_delay() {
    let (tokens, [read, ..]) = Tokens::of_roles();
    let server = start(&tokens, &[]).await;
    let attempt =
        async || rates(&server, "silkrate_wrong").list_series(v1::ListSeriesRequest::default()).await.unwrap_err();
    for _ in 0..10 {
        assert_eq!(attempt().await.code(), Code::Unauthenticated);
    }
    let limited = attempt().await;
    assert_eq!(limited.code(), Code::ResourceExhausted, "{limited:?}");
    let delay = limited.get_error_details().retry_info().and_then(|info| info.retry_delay);
    assert_eq!(delay, Some(std::time::Duration::from_secs(6)));
    let over_http = get_with(server.http_addr, "/v1/latest", &[("authorization", "Bearer silkrate_wrong")]).await;
    assert_eq!((over_http.status, over_http.header("retry-after")), (429, Some("6")), "{over_http:?}");
    // Valid tokens of the same address are not limited.
    rates(&server, &read).list_series(v1::ListSeriesRequest::default()).await.unwrap();
    server.clock.advance_us(6 * Timestamp::SECOND_US);
    assert_eq!(attempt().await.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn client_beyond_its_calls_waits_and_other_clients_do_not() {
    let mut tokens = Tokens::new();
    let [busy, calm] = ["busy", "calm"].map(|name| tokens.add(name, grants(Role::Read), None));
    let server = start(&tokens, &["--client-calls", "5"]).await;
    let list = async |secret: &str| rates(&server, secret).list_series(v1::ListSeriesRequest::default()).await;
    for _ in 0..5 {
        list(&busy).await.unwrap();
    }
    let limited = list(&busy).await.unwrap_err();
    assert_eq!(limited.code(), Code::ResourceExhausted, "{limited:?}");
    assert!(limited.message().contains("the token 'busy' made more than 5 calls in a second"), "{limited:?}");
    let delay = limited.get_error_details().retry_info().and_then(|info| info.retry_delay);
    assert_eq!(delay, Some(std::time::Duration::from_millis(200)));
    let over_http = get_with(server.http_addr, "/v1/latest", &[("authorization", &format!("Bearer {busy}"))]).await;
    assert_eq!((over_http.status, over_http.header("retry-after")), (429, Some("1")), "{over_http:?}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get_with(server.http_addr, path, &[]).await.status, 200, "{path}");
    }
    list(&calm).await.unwrap();
    server.clock.advance_us(200_000);
    list(&busy).await.unwrap();
    assert_eq!(list(&busy).await.unwrap_err().code(), Code::ResourceExhausted);
    let metrics = get_with(server.http_addr, "/metrics", &[("authorization", &format!("Bearer {calm}"))]).await;
    assert!(metrics.body.contains("reason=\"too_many_calls\"} 3"), "{}", metrics.body);
}

#[tokio::test]
async fn anonymous_calls_are_limited_by_address() {
    let server = start(&Tokens::new(), &["--client-calls", "3", "--public-read"]).await;
    for _ in 0..3 {
        assert_eq!(call(&server, "silkrate.v1.RateService/ListSeries", None).await, None);
    }
    assert_eq!(call(&server, "silkrate.v1.RateService/ListSeries", None).await, Some(Code::ResourceExhausted));
}

#[tokio::test]
async fn calls_of_an_open_server_are_limited_by_address_if_a_limit_is_given() {
    let server = TestServer::start(&["--client-calls", "3"]).await;
    for _ in 0..3 {
        assert_eq!(call(&server, "silkrate.v1.RateService/ListSeries", None).await, None);
    }
    assert_eq!(call(&server, "silkrate.v1.RateService/ListSeries", None).await, Some(Code::ResourceExhausted));
    assert_eq!(get_with(server.http_addr, "/v1/latest", &[]).await.status, 429);
    assert_eq!(call(&server, "grpc.health.v1.Health/Check", None).await, None);
}
