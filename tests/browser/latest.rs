//! The table of latest rates and the readout of charts in a real browser: size, sorting, filter, expansion, and what a
//! live update changes.

use serde_json::json;
use silkrate::domain::Timestamp;
use silkrate::proto::v1;

use crate::chromium::Browser;
use crate::support::{TestServer, nineteen_series, tick, tick_from};

/// The greatest height of the page with nineteen series, in pixels, by the width of the window.
const HEIGHTS_MAX: [(u32, u64); 2] = [(1280, 900), (390, 2_500)];
const HOUR_S: i64 = 3_600;
const LIVE: &str = "return document.body.dataset.link === 'live'";

fn from(source: &str, pair: &str, hour: i64, rate: &str) -> v1::Tick {
    tick_from(source, pair, hour * HOUR_S, rate)
}

#[tokio::test(flavor = "multi_thread")]
async fn nineteen_series_fit_on_a_screen() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    browser.client.goto(&format!("http://{}/", server.http_addr)).await.unwrap();
    browser.wait(LIVE).await;
    for (width, height_max) in HEIGHTS_MAX {
        browser.resize(width, 800).await;
        let height = browser.run("return document.documentElement.scrollHeight").await.as_u64().unwrap();
        println!("the page with nineteen series is {height} px tall at {width} px");
        assert!(height < height_max, "{height} px at {width} px");
        assert_eq!(browser.run("return document.documentElement.scrollWidth <= innerWidth").await, json!(true));
        let table = "return [...document.querySelectorAll('.pairs')].every((table) =>
            table.parentElement.scrollWidth <= table.parentElement.clientWidth)";
        assert_eq!(browser.run(table).await, json!(true), "a table is wider than the page at {width} px");
        // The rate of 2017 is not visible, and the fresh rates are.
        let visible =
            "return ['r-USD-UZS-cbs', 'g-UZS-USD'].map((id) => document.getElementById(id).checkVisibility())";
        assert_eq!(browser.run(visible).await, json!([false, true]));
    }
    drop(browser);
    server.stop().await;
}

/// The pairs of the visible groups against USD, in their order.
const PAIRS: &str =
    "return [...document.querySelectorAll('#usd > tbody:not([hidden]) > tr > th a')].map((link) => link.textContent)";
/// The groups that are expanded and show their series.
const EXPANDED: &str = "return [...document.querySelectorAll('#rates tr.sources')]
    .filter((row) => row.checkVisibility()).map((row) => row.previousElementSibling.id)";

#[tokio::test(flavor = "multi_thread")]
async fn reader_sorts_filters_and_expands_and_live_updates_keep_it() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    browser.client.goto(&format!("http://{}/", server.http_addr)).await.unwrap();
    browser.wait(LIVE).await;
    let store = async |ticks: &[v1::Tick]| {
        server.clock.advance_us(Timestamp::SECOND_US);
        server.store(ticks).await;
    };

    // Sorted by pair at first, then by the rate, the other way round, and by keyboard.
    let sorted = "return document.querySelector('#usd th[aria-sort=ascending]')?.textContent ?? ''";
    assert_eq!(browser.text(sorted).await, "Pair");
    assert_eq!(browser.run(PAIRS).await, json!(["USD/KGS", "USD/KZT", "TJS/USD", "TMT/USD", "USD/UZS"]));
    browser.press("#usd th.direct button", "\u{e007}").await;
    assert_eq!(browser.text(sorted).await, "Rate");
    assert_eq!(browser.run(PAIRS).await, json!(["TJS/USD", "TMT/USD", "USD/KGS", "USD/KZT", "USD/UZS"]));
    browser.press("#usd th.direct button", "\u{e007}").await;
    assert_eq!(browser.run(PAIRS).await, json!(["USD/UZS", "USD/KZT", "USD/KGS", "TMT/USD", "TJS/USD"]));
    assert_eq!(browser.text("return document.activeElement.textContent").await, "Rate", "the focus stays");

    // A group is expanded by keyboard.
    assert_eq!(browser.run(EXPANDED).await, json!([]));
    browser.press("#g-TJS-USD summary", "\u{e007}").await;
    assert_eq!(browser.run(EXPANDED).await, json!(["g-TJS-USD"]));

    // A change marks only the cells that changed, and keeps order, expansion and focus.
    store(&[tick("TJS/USD", 1, "0.10950")]).await;
    browser.wait("return document.querySelector('#g-TJS-USD .rate').textContent === '0.10950'").await;
    let marked = browser
        .run(
            "return [...document.querySelectorAll('#rates .changed')].map((cell) =>
        `${cell.parentElement.id} ${cell.dataset.label}`)",
        )
        .await;
    let marked: Vec<&str> = marked.as_array().unwrap().iter().filter_map(|text| text.as_str()).collect();
    assert!(marked.contains(&"g-TJS-USD Rate") && marked.contains(&"g-TJS-USD Inverse"), "{marked:?}");
    assert!(marked.contains(&"r-TJS-USD-timesca Rate"), "{marked:?}");
    assert!(marked.iter().all(|cell| cell.contains("TJS-USD")), "{marked:?}");
    // The window of 30 days begins before the first quote, so its cell did not change.
    assert!(!marked.contains(&"g-TJS-USD 30 d") && !marked.contains(&"g-TJS-USD Pair"), "{marked:?}");
    assert_eq!(browser.text("return document.activeElement.parentElement.closest('tr').id").await, "g-TJS-USD");
    assert_eq!(browser.run(PAIRS).await, json!(["USD/UZS", "USD/KZT", "USD/KGS", "TMT/USD", "TJS/USD"]));
    // The order follows the rates.
    store(&[tick("TJS/USD", 2, "0.29000")]).await;
    browser.wait("return document.querySelector('#g-TJS-USD .rate').textContent === '0.29000'").await;
    assert_eq!(browser.run(PAIRS).await, json!(["USD/UZS", "USD/KZT", "USD/KGS", "TJS/USD", "TMT/USD"]));

    // The filter finds currencies by code and by name, and sources.
    let find = async |text: &str| {
        browser
            .run(&format!(
                "const filter = document.getElementById('filter'); filter.value = '{text}';
             filter.dispatchEvent(new Event('input', {{ bubbles: true }}))"
            ))
            .await;
        browser.run(PAIRS).await
    };
    assert_eq!(find("somoni").await, json!(["TJS/USD"]));
    assert_eq!(find("usd nbk").await, json!(["USD/KZT", "USD/KGS"]));
    let shown = "return document.getElementById('found').textContent";
    assert_eq!(find("kgs").await, json!(["USD/KGS"]));
    assert_eq!(browser.text(shown).await, "5 of 13");

    // A new pair changes the frame. The filter, the order and the expansion stay, and nothing else is marked.
    browser.run("window.sameDocument = true").await;
    store(&[from("cbs", "TMT/UZS", 0, "3424.00")]).await;
    browser.wait("return document.getElementById('r-TMT-UZS-cbs') !== null").await;
    assert_eq!(browser.text(shown).await, "5 of 14");
    assert_eq!(browser.run(PAIRS).await, json!(["USD/KGS"]));
    assert_eq!(find("").await, json!(["USD/UZS", "USD/KZT", "USD/KGS", "TJS/USD", "TMT/USD"]));
    assert_eq!(browser.run(EXPANDED).await, json!(["g-TJS-USD"]));
    assert_eq!(browser.run("return window.sameDocument").await, json!(true));

    // A reload keeps them as well.
    browser.client.refresh().await.unwrap();
    browser.wait(LIVE).await;
    assert_eq!(browser.run(PAIRS).await, json!(["USD/UZS", "USD/KZT", "USD/KGS", "TJS/USD", "TMT/USD"]));
    assert_eq!(browser.run(EXPANDED).await, json!(["g-TJS-USD"]));
    assert_eq!(browser.console_messages().await, Vec::<String>::new());
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_expand_without_script() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    browser.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    browser.client.goto(&format!("http://{}/", server.http_addr)).await.unwrap();
    let is_shown = "return document.getElementById('r-KGS-USD-timesca').checkVisibility()";
    assert_eq!(browser.run(is_shown).await, json!(false));
    assert_eq!(browser.run("return document.getElementById('tools').checkVisibility()").await, json!(false));
    browser.press("#g-KGS-USD summary", "\u{e007}").await;
    browser.wait(is_shown).await;
    assert_eq!(browser.text("return document.body.dataset.link ?? 'no script'").await, "no script");
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readout_shows_time_and_bounds_under_pointer_and_keys() {
    let Some(browser) = Browser::start().await else { return };
    let server = TestServer::start(&[]).await;
    let hours =
        [(-40, "0.01141"), (-39, "0.01141"), (-10, "0.01143"), (-9, "0.01143"), (-1, "0.01146"), (0, "0.01146")];
    server.store(&hours.map(|(hour, rate)| from("timesca", "KGS/USD", hour, rate))).await;
    server.store(&[from("nbkr", "USD/KGS", -30, "87.4000"), from("nbkr", "USD/KGS", -6, "87.5000")]).await;
    let url = |path: &str| format!("http://{}{path}", server.http_addr);
    browser.client.goto(&url("/pair/KGS/USD?source=timesca&range=7d&with=nbkr")).await.unwrap();
    browser.wait(LIVE).await;
    let readout = "return document.querySelector('.readout').textContent";
    assert!(browser.text(readout).await.starts_with("Point at the chart"));

    // The keyboard: the last point, the one before, the first.
    let (end, left, home, escape) = ("\u{e010}", "\u{e012}", "\u{e011}", "\u{e00c}");
    browser.press(".cursor", end).await;
    let expect = "2025-12-08 11:00:00 UTC: timesca 0.01146 (0.011455 to 0.011465); nbkr 0.0114286 (";
    let text = browser.text(readout).await;
    assert!(text.starts_with(expect), "{text}");
    assert_eq!(browser.text("return document.querySelector('.cursor').getAttribute('aria-valuetext')").await, text);
    assert_eq!(browser.run("return document.querySelectorAll('.chart.wide .crosspoint').length").await, json!(2));
    browser.press(".cursor", left).await;
    let text = browser.text(readout).await;
    assert!(text.starts_with("2025-12-08 06:00:00 UTC: timesca 0.01143 (0.011425 to 0.011435), silent"), "{text}");
    browser.press(".cursor", home).await;
    let text = browser.text(readout).await;
    assert!(text.starts_with("2025-12-06 20:00:00 UTC: timesca 0.01141 ") && text.ends_with("nbkr: no rate"), "{text}");

    // A refresh of the chart keeps the place and the focus.
    server.clock.advance_us(Timestamp::SECOND_US);
    server.store(&[tick("KGS/USD", 1, "0.01147")]).await;
    browser.wait("return document.querySelector('.worth .rate').textContent === '0.01147'").await;
    assert_eq!(browser.text(readout).await, text);
    assert_eq!(browser.text("return document.activeElement.className").await, "cursor");
    browser.press(".cursor", escape).await;
    assert!(browser.text(readout).await.starts_with("Point at the chart"));

    // The pointer.
    let at = "const box = document.querySelector('.cursor').getBoundingClientRect();
        return [box.left + box.width * 0.8, box.top + box.height * 0.5]";
    let at = browser.run(at).await;
    browser.run("document.activeElement.blur()").await;
    let moved = json!({ "type": "mouseMoved", "x": at[0], "y": at[1] });
    browser.devtools("Input.dispatchMouseEvent", moved).await;
    browser.wait("return document.querySelectorAll('.chart.wide .crosshair').length === 1").await;
    let text = browser.text(readout).await;
    assert!(text.contains(" UTC: timesca 0.01141 (") && text.contains("; nbkr 0.0114"), "{text}");
    let moved = json!({ "type": "mouseMoved", "x": 1, "y": 1 });
    browser.devtools("Input.dispatchMouseEvent", moved).await;
    browser.wait("return document.querySelectorAll('.crosshair').length === 0").await;

    // Candles, of which the last is unfinished.
    browser.client.goto(&url("/pair/KGS/USD?source=timesca&range=7d&candles=1d")).await.unwrap();
    browser.wait(LIVE).await;
    browser.press(".cursor", end).await;
    let text = browser.text(readout).await;
    assert_eq!(text, "2025-12-08 00:00:00 UTC: open 0.01141, high 0.01147, low 0.01141, close 0.01147, so far");
    let size = "const box = document.querySelector('.chart.wide .body.open').getBoundingClientRect();
        return box.width >= 5 && box.height >= 5";
    assert_eq!(browser.run(size).await, json!(true), "an unfinished candle must be legible");
    drop(browser);
    server.stop().await;
}
