//! The built-in page in a real browser: live updates, stale feeds, lost connections, accessibility, and speed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use silkrate::domain::{Timestamp, relative_age};
use silkrate::proto::v1;

use crate::chromium::Browser;
use crate::support::{NOW, TestServer, tick, tick_from};

/// The longest time until a change is visible, on an otherwise idle machine.
const CHANGE_VISIBLE_MAX: Duration = Duration::from_secs(1);
/// The longest time from navigation to first paint, for the best of several loads.
const FIRST_PAINT_MS_MAX: f64 = 200.0;
const TRIES: usize = 5;

const HOUR_S: i64 = 3_600;

fn reported(change: &str, tick: v1::Tick) -> v1::Tick {
    v1::Tick { reported_change_percent: Some(change.to_owned()), ..tick }
}

/// Ticks of the five pairs of the ticker. Four pairs have a tick per hour over forty days, but none in twenty of these
/// hours. TMT has a tick per day over 200 days.
fn history() -> Vec<v1::Tick> {
    let mut ticks = Vec::new();
    for hour in (-40 * 24..=0_i64).filter(|hour| !(-60..-40).contains(hour)) {
        let kgs = format!("0.{:05}", 1_140 + hour.rem_euclid(7));
        let rates = [("KGS/USD", kgs.as_str()), ("KZT/USD", "0.00196"), ("TJS/USD", "0.10899"), ("UZS/USD", "0.00008")];
        ticks.extend(rates.map(|(pair, rate)| reported("-0", tick(pair, hour * HOUR_S, rate))));
    }
    ticks.extend((-200..=0).map(|day| reported("0", tick("TMT/USD", day * 24 * HOUR_S, "0.28490"))));
    ticks
}

fn rate_is(rate: &str) -> String {
    format!("return document.querySelector('#r-KGS-USD-timesca .rate').textContent === '{rate}'")
}

fn state_is(state: &str) -> String {
    format!("return document.querySelector('#r-KGS-USD-timesca .state').textContent === '{state}'")
}

const LIVE: &str = "return document.body.dataset.link === 'live'";
const LOST: &str = "return document.body.dataset.link === 'lost'";

/// Advances the clock of the server.
fn advance(server: &TestServer, seconds: i64) {
    server.clock.advance_us(seconds * Timestamp::SECOND_US);
}

#[tokio::test(flavor = "multi_thread")]
async fn table_updates_live_without_a_reload() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&["--stale-limit", "1h"]).await;
    server.store(&history()).await;
    browser.client.goto(&format!("http://{}/", server.http_addr)).await.unwrap();
    browser.wait(LIVE).await;
    browser.run("window.sameDocument = true").await;
    browser.wait(&state_is("Moving")).await;

    // A tick becomes visible quickly.
    let mut best = Duration::MAX;
    for (at, rate) in ["0.01151", "0.01152", "0.01153", "0.01154", "0.01155"].into_iter().enumerate() {
        let seconds = i64::try_from(at).unwrap() + 1;
        advance(&server, 1);
        let begun = Instant::now();
        server.store(&[tick("KGS/USD", seconds, rate)]).await;
        browser.wait(&rate_is(rate)).await;
        let delay = begun.elapsed();
        println!("from sending a tick to its display: {} ms", delay.as_millis());
        best = best.min(delay);
    }
    assert!(best < CHANGE_VISIBLE_MAX, "a change was visible after {} ms at best", best.as_millis());
    let marked = "return document.querySelector('#r-KGS-USD-timesca .changed') !== null";
    browser.wait(marked).await;
    browser
        .wait("return document.getElementById('announce').textContent.includes('KGS/USD from timesca is 0.01155')")
        .await;

    // A tick that changes rate and state: both are announced to screen readers.
    advance(&server, 1);
    server.store(&[tick("KZT/USD", 6, "0.00197")]).await;
    let both = "KZT/USD from timesca is 0.00197, was 0.00196, is now Moving";
    browser.wait(&format!("return document.getElementById('announce').textContent.includes('{both}')")).await;

    // One feed stops while others continue: the rate of the stopped feed becomes stale, the pegged rate does not.
    advance(&server, HOUR_S + 60);
    server.store(&[tick("KZT/USD", HOUR_S + 65, "0.00197"), tick("TMT/USD", HOUR_S + 65, "0.28490")]).await;
    browser.wait(&state_is("Stale")).await;
    let states = "return [...document.querySelectorAll('#usd .series .state')].map((state) => state.textContent)";
    assert_eq!(browser.run(states).await, json!(["Stale", "Moving", "Stale", "Pegged", "Stale"]));
    let stale = "return document.getElementById('r-KGS-USD-timesca').classList.contains('is-stale')";
    assert_eq!(browser.run(stale).await, Value::Bool(true));
    assert_eq!(browser.run("return document.getElementById('quiet').hidden").await, Value::Bool(true));

    // All feeds stop: a notice appears at the top.
    advance(&server, 2 * HOUR_S);
    browser.wait("return !document.getElementById('quiet').hidden").await;
    // The age of this tick is shown in seconds.
    server.store(&[tick("KZT/USD", 3 * HOUR_S + 60, "0.00197")]).await;
    browser.wait("return document.getElementById('quiet').hidden").await;

    // The server stops: the page reports that the data is old, and the displayed ages still increase.
    let paused = server.pause().await;
    browser.wait(LOST).await;
    // The states of all series are unknown while disconnected.
    assert_eq!(browser.run(states).await, json!(["Unknown", "Unknown", "Unknown", "Unknown", "Unknown"]));
    let meaning = "return getComputedStyle(document.querySelector('#r-TMT-USD-timesca .state + .sub')).visibility";
    assert_eq!(browser.text(meaning).await, "hidden");
    let notice = browser.text("return document.getElementById('link').innerText").await;
    assert!(notice.starts_with("Connection lost at 2025-12-08 15:0"), "{notice}");
    let age = "return document.querySelector('#r-KZT-USD-timesca td:last-child .age').textContent";
    let before = browser.text(age).await;
    browser.wait(&format!("{age} !== '{before}'")).await;

    // The server restarts with a new tick, and the page recovers without a reload.
    let server = paused.resume().await;
    server.store(&[tick("KGS/USD", 3 * HOUR_S + 60, "0.01160")]).await;
    browser.wait(LIVE).await;
    browser.wait(&rate_is("0.01160")).await;
    browser.wait(&state_is("Moving")).await;
    assert_eq!(browser.run(states).await, json!(["Moving", "Moving", "Stale", "Stale", "Stale"]));
    assert_eq!(browser.text(meaning).await, "visible");
    assert_eq!(browser.run("return window.sameDocument").await, Value::Bool(true), "the page was reloaded");
    drop(browser);
    server.stop().await;
}

/// Elements that extend beyond the right edge, without visually hidden elements and without the data table of a chart,
/// which scrolls.
const OVERFLOWING: &str = "
    const out = [...document.querySelectorAll('body *')].filter((element) =>
        !element.closest('.skip, .unseen, thead, svg, .plain') && element.getBoundingClientRect().right > innerWidth + 1);
    if (document.documentElement.scrollWidth > innerWidth) out.push(document.documentElement);
    return out.map((element) => `${element.tagName} ${element.className} ${element.textContent.slice(0, 40)}`)";

/// Problems of the page for users of screen readers.
const UNNAMED: &str = "
    const problems = [];
    const visible = (element) => element.checkVisibility();
    for (const control of document.querySelectorAll('a, button, input, select, textarea, summary, [role=button]'))
        if (visible(control) && !(control.getAttribute('aria-label') || control.textContent.trim()))
            problems.push(`no name: ${control.outerHTML}`);
    for (const image of document.querySelectorAll('[role=img], img')) {
        const ids = (image.getAttribute('aria-labelledby') ?? '').split(' ').filter(Boolean);
        if (!ids.length || !ids.every((id) => document.getElementById(id)?.textContent.trim()))
            problems.push(`no name: ${image.outerHTML.slice(0, 80)}`);
    }
    for (const group of document.querySelectorAll('nav, [role=group]'))
        if (!group.getAttribute('aria-label')) problems.push('a group without a name');
    for (const table of document.querySelectorAll('table'))
        if (!table.caption?.textContent.trim()) problems.push('a table without a caption');
    for (const heading of document.querySelectorAll('th'))
        if (!heading.scope) problems.push(`a heading without scope: ${heading.textContent}`);
    const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`duplicate id: ${id}`);
    if (!document.documentElement.lang) problems.push('no language');
    if (!document.title) problems.push('no title');
    for (const one of ['h1', 'main', 'header', 'footer'])
        if (document.querySelectorAll(one).length !== 1) problems.push(`not exactly one element ${one}`);
    if (document.querySelector('[tabindex]:not([tabindex=\"0\"]):not([tabindex=\"-1\"])'))
        problems.push('tabindex sets the tab order');
    if (document.querySelector('script:not([src]), style, [style], [onclick]')) problems.push('inline script or style');
    return problems";

/// Inverse rates with a smaller font than other text of the table. They must not be smaller, because local readers look
/// at them first.
const SMALL_INVERSE_RATES: &str = "
    const size = (element) => parseFloat(getComputedStyle(element).fontSize);
    return [...document.querySelectorAll('#rates tr[id]')].filter((row) =>
        !(size(row.querySelector('.turned')) >= size(row.querySelector('.state')))).map((row) => row.id)";

/// Text with a contrast below 4.5 to 1 against its background.
const LOW_CONTRAST: &str = "
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = (color) => {
        const [r, g, b] = color.map((value) => value / 255).map((value) =>
            value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = channels(getComputedStyle(at).backgroundColor);
            if (color.length < 4 || color[3] > 0.99) return color.slice(0, 3);
        }
        return [255, 255, 255];
    };
    const texts = [...document.querySelectorAll('body *')].filter((element) => element.checkVisibility() &&
        !element.closest('.unseen, noscript, .changed') &&
        [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
    return texts.map((element) => {
        const style = getComputedStyle(element);
        const drawn = element.closest('svg') && element.tagName === 'text' ? style.fill : style.color;
        const [one, other] = [luminance(channels(drawn).slice(0, 3)), luminance(ground(element.closest('svg')?.parentElement ?? element))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        return [contrast, `${contrast.toFixed(2)} ${element.tagName} ${element.getAttribute('class')} ${element.textContent.slice(0, 30)}`];
    }).filter(([contrast]) => contrast < 4.5).map(([, text]) => text)";

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_and_is_accessible() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&["--stale-limit", "timesca=6h"]).await;
    server.store(&history()).await;
    let bank = [-3, -2, -1, 0].map(|day| v1::Tick {
        source: "nbkr".to_owned(),
        ..tick("USD/KGS", day * 24 * HOUR_S, &format!("87.4{}00", day + 5))
    });
    server.store(&bank).await;
    let pages = [
        "/",
        "/pair/KGS/USD?range=7d",
        "/pair/KGS/USD?range=30d&invert=1&candles=1d",
        "/pair/UZS/USD?range=1d&invert=1",
        "/pair/TMT/USD?range=all",
        "/pair/KGS/KZT",
        "/pair/USD/KGS?range=30d&with=nbkr&candles=1d",
        "/pair/EUR/USD",
    ];
    for page in pages {
        browser.client.goto(&format!("http://{}{page}", server.http_addr)).await.unwrap();
        browser.wait(LIVE).await;
        // The rows of all series are checked, too.
        browser.run("document.querySelectorAll('#rates details').forEach((details) => details.open = true)").await;
        for (width, height) in [(1280, 800), (768, 1024), (360, 740)] {
            browser.resize(width, height).await;
            assert_eq!(
                browser.run(OVERFLOWING).await,
                json!([]),
                "{page} at {width} px has elements beyond the right edge"
            );
            if page == "/" && width < 1280 {
                let small = browser.run(SMALL_INVERSE_RATES).await;
                assert_eq!(
                    small,
                    json!([]),
                    "{page} at {width} px: inverse rates are smaller than the text around them"
                );
            }
            assert_eq!(browser.run(UNNAMED).await, json!([]), "{page} at {width} px");
            for scheme in ["light", "dark"] {
                let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
                browser.devtools("Emulation.setEmulatedMedia", features).await;
                assert_eq!(
                    browser.run(LOW_CONTRAST).await,
                    json!([]),
                    "{page} in {scheme} at {width} px has text of low contrast"
                );
            }
        }
    }
    let console_messages: Vec<String> =
        browser.console_messages().await.into_iter().filter(|message| !message.contains("/pair/EUR/USD")).collect();
    assert_eq!(console_messages, Vec::<String>::new());
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_paint_is_fast() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&history()).await;
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        browser.client.goto(&format!("http://{}/", server.http_addr)).await.unwrap();
        browser.wait("return performance.getEntriesByName('first-contentful-paint').length === 1").await;
        let paint = browser.run("return performance.getEntriesByName('first-contentful-paint')[0].startTime").await;
        let paint = paint.as_f64().unwrap();
        println!("first paint after {paint:.0} ms");
        best = best.min(paint);
    }
    assert!(best < FIRST_PAINT_MS_MAX, "the first paint took {best:.0} ms at best");
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_is_operable_by_keyboard_and_updates_live() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&history()).await;
    browser.client.goto(&format!("http://{}/pair/KGS/USD", server.http_addr)).await.unwrap();
    browser.wait(LIVE).await;
    browser.run("window.sameDocument = true").await;
    let line = "return document.querySelector('.chart.wide .line').getAttribute('d')";
    let path = browser.text(line).await;
    assert!(
        path.chars().all(|sign| "MHV .0123456789".contains(sign)),
        "the line must have only horizontal and vertical steps: {path}"
    );
    let silent = "return document.querySelectorAll('.chart.wide .unconfirmed').length";
    assert_eq!(browser.run(silent).await, json!(1), "the chart must show one silence");

    // The first tab stop is the link that skips the header.
    browser.press("body", "\u{e004}").await;
    assert_eq!(browser.text("return document.activeElement.className").await, "skip");
    // A range chosen by keyboard: no reload, a new address, and the focus stays.
    browser.press("a[href*='range=7d']", "\u{e007}").await;
    browser.wait("return location.search.includes('range=7d')").await;
    let present = "return document.querySelector('[aria-label=Range] [aria-current]').textContent";
    browser.wait(&format!("{present} === '7 days'")).await;
    assert_eq!(browser.text("return document.activeElement.textContent").await, "7 days");
    browser.press("a[href*='invert=1']", "\u{e007}").await;
    browser.wait("return document.querySelector('h1').textContent.startsWith('USD/KGS')").await;
    browser.client.back().await.unwrap();
    browser.wait("return document.querySelector('h1').textContent.startsWith('KGS/USD')").await;

    // A tick updates the displayed chart.
    advance(&server, 60);
    server.store(&[tick("KGS/USD", 60, "0.01171")]).await;
    browser.wait("return document.querySelector('.worth .rate').textContent === '0.01171'").await;
    assert_eq!(browser.run("return window.sameDocument").await, Value::Bool(true), "the page was reloaded");
    assert_eq!(browser.console_messages().await, Vec::<String>::new());
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ages_have_the_steps_of_the_command() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    browser.client.goto(&format!("http://{}/", server.http_addr)).await.unwrap();
    browser.wait(LIVE).await;
    // Times in the middle of a unit, so that the seconds that the test takes do not matter.
    let ages_s = [
        90,
        45 * 60 + 30,
        47 * HOUR_S + 1_800,
        49 * HOUR_S,
        59 * 24 * HOUR_S + 1_800,
        357 * 24 * HOUR_S,
        700 * 24 * HOUR_S,
        3_538 * 24 * HOUR_S,
        -(5 * HOUR_S + 1_800),
    ];
    let times: Vec<Timestamp> =
        ages_s.iter().map(|age_s| NOW.saturating_add_us(-age_s * Timestamp::SECOND_US)).collect();
    let since: Vec<i64> = times.iter().map(|time| time.micros() / 1_000).collect();
    let add = format!(
        "for (const since of {since:?}) {{
            const age = document.createElement('span');
            age.className = 'age probe';
            age.dataset.since = since;
            document.body.append(age);
        }}"
    );
    browser.run(&add).await;
    browser.wait("return [...document.querySelectorAll('.probe')].every((age) => age.textContent)").await;
    let shown = browser.run("return [...document.querySelectorAll('.probe')].map((age) => age.textContent)").await;
    let expect: Vec<String> = times.iter().map(|time| relative_age(*time, NOW)).collect();
    assert_eq!(expect[2..8], ["47 h ago", "2 d ago", "59 d ago", "11 mo ago", "22 mo ago", "9 y ago"]);
    assert_eq!(shown, json!(expect));
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn link_to_an_old_series_opens_its_section() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&[tick("UZS/USD", 0, "0.00008")]).await;
    server.store(&[tick_from("cbs", "USD/UZS", -3_000 * 24 * HOUR_S, "8100.00")]).await;
    browser.client.goto(&format!("http://{}/", server.http_addr)).await.unwrap();
    browser.wait(LIVE).await;
    browser.press("#g-UZS-USD summary", "\u{e007}").await;
    let is_shown = "return document.getElementById('r-USD-UZS-cbs').checkVisibility()";
    assert_eq!(browser.run(is_shown).await, json!(false));
    browser.press("#usd a[href='#r-USD-UZS-cbs']", "\u{e007}").await;
    browser.wait(is_shown).await;
    drop(browser);
    server.stop().await;
}
