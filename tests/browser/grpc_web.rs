//! gRPC-Web calls of a real browser: from the origin of the built-in page, and from a page of another origin.

use serde_json::json;

use crate::chromium::Browser;
use crate::support::{TestServer, tick};

/// Calls `GetLatestRates` of a server and returns what the page can read of the response: the HTTP status, whether the
/// text contains the pair, and whether the trailers report success.
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

/// Returns the result of a call from a page of `from` to the server `to`.
async fn call_result(browser: &Browser, from: &TestServer, to: &TestServer) -> String {
    browser.client.goto(&format!("http://{}/", from.http_addr)).await.unwrap();
    let answer = browser.client.execute_async(CALL, vec![json!(to.addr.to_string())]).await.unwrap();
    answer.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn page_calls_succeed_only_from_allowed_origins() {
    let Some(browser) = Browser::start().await else { return };
    // The built-in page has no gRPC-Web script, and its policy forbids one. Other pages have other policies. So the
    // browser ignores the policy, and the test checks only the server.
    browser.devtools("Page.setBypassCSP", json!({ "enabled": true })).await;
    let elsewhere = TestServer::start(&[]).await;
    let strict = TestServer::start(&[]).await;
    let open = TestServer::start(&["--cors-origin", &format!("http://{}", elsewhere.http_addr)]).await;
    for server in [&strict, &open] {
        server.store(&[tick("KGS/USD", -1, "0.01144")]).await;
    }
    let success = "200 true true";
    assert_eq!(call_result(&browser, &strict, &strict).await, success, "the origin of the page itself");
    assert_eq!(call_result(&browser, &elsewhere, &open).await, success, "an origin that is allowed");
    assert_eq!(
        call_result(&browser, &open, &open).await,
        success,
        "the page's own origin, which the flag does not name"
    );
    assert_eq!(call_result(&browser, &elsewhere, &strict).await, "refused", "an origin that is not allowed");
    drop(browser);
}
