//! Several windows of one browser with the page: they share one stream of live updates, and hidden windows have none.

use std::time::{Duration, Instant};

use fantoccini::wd::WindowHandle;
use silkrate::domain::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::chromium::Browser;
use crate::support::{TestServer, tick};

/// A browser allows six connections to a server, so ten windows with a stream each would not work.
const WINDOWS: usize = 10;
/// The longest time until a change is visible in every window.
const CHANGE_VISIBLE_MAX: Duration = Duration::from_secs(1);
/// The longest time for the number of streams to settle.
const SETTLE_MAX: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

const LIVE: &str = "return document.body.dataset.link === 'live'";
const LATE: &str = "return document.body.dataset.link === 'late'";

/// Keeps the time at which the page first shows a rate of KGS/USD. The script of the test is not fast enough to ask ten
/// windows within a second.
const NOTE_TIMES: &str = "
    window.shownAt = {};
    new MutationObserver(() => {
        for (const rate of document.querySelectorAll('#r-KGS-USD-timesca .rate, #chart .worth .rate'))
            window.shownAt[rate.textContent] ??= Date.now();
    }).observe(document.body, { subtree: true, childList: true, characterData: true });";

/// Returns the number of streams that are open at the server.
async fn streams(server: &TestServer) -> usize {
    let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: silkrate\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix("silkrate_live_streams ")).expect("the metric of streams");
    line.parse().unwrap()
}

/// Waits until the server has this number of streams.
async fn wait_for_streams(server: &TestServer, expect: usize, when: &str) {
    let begun = Instant::now();
    while streams(server).await != expect {
        let open = streams(server).await;
        assert!(begun.elapsed() < SETTLE_MAX, "{when}: {open} streams are open, not {expect}");
        sleep(POLL_INTERVAL).await;
    }
}

/// Stores a tick and returns the time at which it was sent, by the clock of the browser.
async fn store(browser: &Browser, server: &TestServer, seconds: i64, rate: &str) -> i64 {
    server.clock.advance_us(Timestamp::SECOND_US);
    let sent = browser.run("return Date.now()").await.as_i64().unwrap();
    server.store(&[tick("KGS/USD", seconds, rate)]).await;
    sent
}

/// Checks that every one of `windows` showed `rate` within [`CHANGE_VISIBLE_MAX`] after `sent`.
async fn check_shown(browser: &Browser, windows: &[WindowHandle], rate: &str, sent: i64) {
    for (at, window) in windows.iter().enumerate() {
        browser.switch(window).await;
        browser.wait(&format!("return Boolean(window.shownAt['{rate}'])")).await;
        let shown = browser.run(&format!("return window.shownAt['{rate}']")).await.as_i64().unwrap();
        println!("window {at} shows {rate} after {} ms", shown - sent);
        let delay = Duration::from_millis(u64::try_from(shown - sent).unwrap());
        assert!(delay < CHANGE_VISIBLE_MAX, "window {at} shows {rate} after {} ms", delay.as_millis());
        assert!(browser.run(LIVE).await.as_bool().unwrap(), "window {at} is not live");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_windows_share_one_stream() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let url = |path: &str| format!("http://{}{path}", server.http_addr);
    browser.client.goto(&url("/")).await.unwrap();
    let mut windows = vec![browser.client.window().await.unwrap()];
    while windows.len() < WINDOWS {
        let path = if windows.len().is_multiple_of(3) { "/pair/KGS/USD" } else { "/" };
        windows.push(browser.open(&url(path), false).await);
    }
    for window in &windows {
        browser.switch(window).await;
        browser.wait(LIVE).await;
        browser.run(NOTE_TIMES).await;
    }
    wait_for_streams(&server, 1, "ten windows").await;
    // The charts refresh after their first event. Later changes are not delayed by this.
    sleep(Duration::from_secs(2)).await;
    let sent = store(&browser, &server, 1, "0.01151").await;
    check_shown(&browser, &windows, "0.01151", sent).await;

    // The window with the stream is closed, and the next one opens a stream.
    browser.switch(&windows[0]).await;
    browser.client.close_window().await.unwrap();
    windows.remove(0);
    browser.switch(&windows[0]).await;
    wait_for_streams(&server, 1, "after the first window was closed").await;
    sleep(Duration::from_secs(2)).await;
    let sent = store(&browser, &server, 2, "0.01152").await;
    check_shown(&browser, &windows, "0.01152", sent).await;

    // The window with the stream is hidden, and another one takes over. The hidden window is not updated until it is
    // shown again.
    browser.switch(&windows[0]).await;
    browser.set_minimized(true).await;
    browser.wait("return document.visibilityState === 'hidden'").await;
    wait_for_streams(&server, 1, "after the first window was hidden").await;
    sleep(Duration::from_secs(2)).await;
    let sent = store(&browser, &server, 3, "0.01153").await;
    check_shown(&browser, &windows[1..], "0.01153", sent).await;
    browser.switch(&windows[0]).await;
    let shown = "return window.shownAt['0.01153'] === undefined";
    assert!(browser.run(shown).await.as_bool().unwrap(), "a hidden window must have no stream");

    // No window is visible: no stream is open.
    for window in &windows[1..] {
        browser.switch(window).await;
        browser.set_minimized(true).await;
        browser.wait("return document.visibilityState === 'hidden'").await;
    }
    wait_for_streams(&server, 0, "all windows are hidden").await;

    // A window that is shown again catches up.
    store(&browser, &server, 4, "0.01154").await;
    browser.switch(&windows[0]).await;
    browser.set_minimized(false).await;
    browser.wait("return Boolean(window.shownAt['0.01154'])").await;
    browser.wait(LIVE).await;
    wait_for_streams(&server, 1, "one window is visible").await;
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn window_without_locks_has_a_stream_of_its_own() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    // A page from another host without https has no locks.
    let script = "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })";
    let params = serde_json::json!({ "source": script });
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", params).await;
    browser.client.goto(&format!("http://{}/", server.http_addr)).await.unwrap();
    browser.wait(LIVE).await;
    assert!(browser.run("return navigator.locks === undefined").await.as_bool().unwrap());
    wait_for_streams(&server, 1, "a visible window").await;
    store(&browser, &server, 1, "0.01151").await;
    browser.wait("return document.querySelector('#r-KGS-USD-timesca .rate').textContent === '0.01151'").await;
    browser.set_minimized(true).await;
    wait_for_streams(&server, 0, "the window is hidden").await;
    browser.set_minimized(false).await;
    browser.wait(LIVE).await;
    wait_for_streams(&server, 1, "the window is visible again").await;
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn window_replaces_a_leader_that_does_not_respond() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let url = format!("http://{}/", server.http_addr);
    // A page of the same origin holds the lock and sends nothing.
    browser.client.goto(&url).await.unwrap();
    browser.wait(LIVE).await;
    let hold = "window.states = [];
        new MutationObserver(() => window.states.push(document.body.dataset.link))
            .observe(document.body, { attributeFilter: ['data-link'] });
        const name = `silkrate live ${document.querySelector('script').src}`;
        navigator.locks.request(name, { steal: true }, () => new Promise(() => {}));";
    browser.run(hold).await;
    wait_for_streams(&server, 0, "another holder has the lock").await;
    browser.wait("return window.states.includes('lost') && document.body.dataset.link === 'live'").await;
    wait_for_streams(&server, 1, "the window has taken the lock back").await;
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_that_cannot_be_updated_says_so() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    browser.client.goto(&format!("http://{}/pair/KGS/USD", server.http_addr)).await.unwrap();
    browser.wait(LIVE).await;
    // Requests of the page hang, while its stream continues.
    let hang = "window.realFetch = window.fetch;
        window.fetch = (address, { signal }) => new Promise((resolve, reject) =>
            signal.addEventListener('abort', () => reject(signal.reason)));";
    browser.run(hang).await;
    store(&browser, &server, 1, "0.01151").await;
    browser.wait(LATE).await;
    let text = browser.text("return document.getElementById('link').innerText").await;
    assert!(text.starts_with("The chart is not live. It shows the data as of 2025-12-08 12:00:0"), "{text}");
    assert_eq!(browser.text("return document.querySelector('.worth .rate').textContent").await, "0.01144");
    browser.run("window.fetch = window.realFetch").await;
    browser.wait(LIVE).await;
    assert_eq!(browser.text("return document.querySelector('.worth .rate').textContent").await, "0.01151");
    drop(browser);
    server.stop().await;
}
