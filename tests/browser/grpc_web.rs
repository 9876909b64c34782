//! gRPC-Web as a real browser speaks it: from the built-in page's own origin, and from a page elsewhere.

use serde_json::json;

use crate::chromium::Browser;
use crate::support::{TestServer, tick};

/// Calls `GetLatestRates` of the server given, and says what the page may see of the answer: the HTTP status, whether
/// its text names the pair, and whether its trailers say that all is well.
const CALL: &str = "
    const [address, done] = arguments;
    const headers = { 'content-type': 'application/grpc-web+proto', 'x-grpc-web': '1' };
    const body = new Uint8Array(5);
    fetch(`http://${address}/silkrate.v1.RateService/GetLatestRates`, { method: 'POST', headers, body }).then(
        async (answer) => {
            const text = new TextDecoder().decode(await answer.arrayBuffer());
            done(`${answer.status} ${text.includes('KGS/USD')} ${text.includes('grpc-status:0')}`);
        },
        () => done('refused'),
    );";

/// What a page of `from` gets of a call to `to`.
async fn called(browser: &Browser, from: &TestServer, to: &TestServer) -> String {
    browser.client.goto(&format!("http://{}/", from.http_addr)).await.unwrap();
    let answer = browser.client.execute_async(CALL, vec![json!(to.addr.to_string())]).await.unwrap();
    answer.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_call_where_they_may_and_nowhere_else() {
    let Some(browser) = Browser::start().await else { return };
    // The built-in page has no script that speaks gRPC-Web and its policy allows none; whoever builds a page of his own
    // writes his own policy. What is tried here is what the server lets through.
    browser.devtools("Page.setBypassCSP", json!({ "enabled": true })).await;
    let elsewhere = TestServer::start(&[]).await;
    let strict = TestServer::start(&[]).await;
    let open = TestServer::start(&["--cors-origin", &format!("http://{}", elsewhere.http_addr)]).await;
    for server in [&strict, &open] {
        server.store(&[tick("KGS/USD", -1, "0.01144")]).await;
    }
    let answered = "200 true true";
    assert_eq!(called(&browser, &strict, &strict).await, answered, "the page's own origin");
    assert_eq!(called(&browser, &elsewhere, &open).await, answered, "an origin that is allowed");
    assert_eq!(called(&browser, &open, &open).await, answered, "the own origin beside others");
    assert_eq!(called(&browser, &elsewhere, &strict).await, "refused", "an origin that is not");
    drop(browser);
}
