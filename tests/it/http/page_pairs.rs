//! The arrangement of the latest rates on the page, and the charts of pairs, over HTTP.

use silkrate::proto::v1;

use super::page::{Events, HOUR_S, between, get, visible_text};
use crate::support::{TestServer, nineteen_series, tick, tick_from};

#[tokio::test]
async fn each_pair_has_one_row_with_the_rate_of_the_rule_of_choice() {
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    let page = get(&server, "/").await.body;
    let row = |pair: &str| {
        let row = between(&page, &format!("id=\"g-{}\"", pair.replace('/', "-")), "</tr>");
        visible_text(row.split_once('>').unwrap().1)
    };
    assert_eq!(page.matches("id=\"g-").count(), 12, "five currencies against USD and seven other pairs");
    // The rate that GetRate answers, as its source published it.
    for pair in ["KGS/USD", "KZT/USD", "TJS/USD", "TMT/USD", "UZS/USD"] {
        let request = v1::GetRateRequest { pair: pair.to_owned(), ..v1::GetRateRequest::default() };
        let answer = server.rates().get_rate(request).await.unwrap().into_inner();
        let leg = &answer.legs[0];
        let expect = format!("{} {} ", leg.pair, leg.source);
        assert!(row(pair).starts_with(&expect), "{pair}: {} is not {expect}", row(pair));
        assert!(row(pair).contains(&format!(" {} {}, published ", leg.rate, &leg.pair[4..])), "{}", row(pair));
    }
    // Published and derived digits have different labels.
    assert!(
        row("KGS/USD").contains("2 sources 87.4500 KGS, published 0.0114351 USD, derived Moving"),
        "{}",
        row("KGS/USD")
    );
    assert!(row("TJS/USD").contains("1 source 0.10899 USD, published 9.17515 TJS, derived"), "{}", row("TJS/USD"));
    // A pair of two banks is one row, with the pair as the bank publishes it.
    assert!(row("KGS/KZT").contains("2 sources"), "{}", row("KGS/KZT"));
    // Each row has a picture, which has a text for screen readers.
    assert_eq!(page.matches("<svg class=\"spark\"").count(), 12);
    assert!(row("KGS/USD").contains("87.2500 to 87.4500"), "{}", row("KGS/USD"));
    // All series are in the page, most of them in expansions that work without script.
    assert_eq!(page.matches("id=\"r-").count(), 19);
    let group = between(&page, "id=\"g-KGS-USD\"", "</tbody>");
    assert!(
        group.contains("<details class=\"more\"><summary") && group.contains("id=\"r-KGS-USD-timesca\""),
        "{group}"
    );
    assert!(group.contains("id=\"r-USD-KGS-nbkr\""), "{group}");
    // The rate of 2017 is below, in a collapsed section.
    let old = page.split_once("id=\"old\"").unwrap().1;
    assert!(old.starts_with("><summary>Show archived sources and series not confirmed for a month (1)"), "{old}");
    assert!(old.contains("id=\"r-USD-UZS-cbs\"") && old.matches("id=\"r-").count() == 1, "{old}");
    assert!(visible_text(between(&page, "id=\"r-UZS-USD-timesca\"", "</tbody>")).contains("UZS/USD timesca"));
    // The expansion of its pair names it and leads to it.
    assert!(row("UZS/USD").contains(" 2 of 3 sources"), "{}", row("UZS/USD"));
    let expanded = between(&page, "id=\"g-UZS-USD\"", "</tbody>");
    let note = "Sources of UZS/USD and USD/UZS. 1 more is archived or not confirmed for a month, below: USD/UZS cbs .";
    assert!(visible_text(expanded).contains(note), "{}", visible_text(expanded));
    assert!(expanded.contains("<a href=\"#r-USD-UZS-cbs\">"), "{expanded}");
    assert!(visible_text(&page).contains("All sources of KGS/USD and USD/KGS."), "{page}");
    // A change of the frame sends everything, another change only its rows.
    let mut events = Events::open(&server).await;
    let first = events.until("event: beat").await.unwrap();
    assert!(
        first.contains("\"all\":true,\"sections\":\"<div id=\\\"rates\\\"") && first.contains("g-KGS-USD"),
        "no sections"
    );
    server.clock.advance_us(1_000_000);
    server.store(&[tick("KGS/USD", 1, "0.01150")]).await;
    let next = events.until("event: beat").await.unwrap();
    assert!(next.contains("\"all\":false,\"rows\":[[\"r-KGS-USD-timesca\""), "{next}");
    // The chosen series did not change, and neither did other rows.
    assert!(!next.contains("g-KGS-USD") && !next.contains("g-KZT-USD"), "{next}");
    server.store(&[v1::Tick { source: "cbs".to_owned(), ..tick("USD/TJS", 0, "9.2000") }]).await;
    let next = events.until("event: beat").await.unwrap();
    assert!(next.contains("\"all\":true") && next.contains("r-USD-TJS-cbs"), "{next}");
    server.stop().await;
}

/// Returns the current choice of a group of controls.
fn current_choice(page: &str, label: &str) -> String {
    let group = between(page, &format!("aria-label=\"{label}\">"), "</div>");
    visible_text(&format!("<a {}", between(group, "aria-current=\"true\"", "</a>")))
}

#[tokio::test]
async fn old_data_is_shown_as_it_was() {
    let server = TestServer::start(&[]).await;
    let rates = [("KGS/USD", "0.01144"), ("KZT/USD", "0.00196"), ("TJS/USD", "0.10899")];
    server.store(&rates.map(|(pair, rate)| tick(pair, -60 * 24 * HOUR_S, rate))).await;
    // More than a month of data, with an observation a day. The stale limit is one hour.
    let ticks: Vec<v1::Tick> =
        (-150..-60).map(|day| tick("KGS/USD", day * 24 * HOUR_S + 60, &format!("0.0{}", 1_150 + day))).collect();
    server.store(&ticks).await;
    let line = "No rate is fresh: old or sample data up to 9 October 2025 .";
    let home = get(&server, "/").await.body;
    // One neutral line instead of an alarm, and the rates are not collapsed.
    assert!(visible_text(&home).contains(line), "{home}");
    assert!(!home.contains("id=\"quiet\"") && home.contains("class=\"none-fresh\""), "{home}");
    assert!(!home.contains("id=\"old\"") && home.matches("id=\"g-").count() == 3, "{home}");
    // The pictures span the data. No observation confirms their line.
    assert!(home.contains(">All data</th>") && !home.contains(">Last 30 days</th>"), "{home}");
    let picture = between(&home, "id=\"g-KGS-USD\"", "</svg>");
    let dotted = between(picture, "class=\"dotted\" d=\"", "\"");
    assert!(dotted.starts_with("M3 ") && dotted.matches('V').count() > 80, "{dotted}");

    // The chart spans the data as well, and not the months after it, in the same neutral manner.
    let page = get(&server, "/pair/KGS/USD").await.body;
    let text = visible_text(&page);
    assert!(
        text.contains(line) && text.contains("The chart ends after the last observation, 9 October 2025."),
        "{text}"
    );
    assert!(between(&page, "<section id=\"chart\"", ">").contains("class=\"none-fresh\""), "{page}");
    assert_eq!(
        (current_choice(&page, "Range").as_str(), current_choice(&page, "Until").as_str()),
        ("All", "Last observation")
    );
    let text = visible_text(&get(&server, "/pair/KGS/USD?range=30d").await.body);
    assert!(!text.contains("The chart ends after"), "an address with a range ends now: {text}");
    // One fresh rate: the others are old now, and a stale rate has the default range.
    server.store(&[tick("TMT/USD", 0, "0.28490")]).await;
    let home = get(&server, "/").await.body;
    assert!(!home.contains("No rate is fresh") && home.contains("not confirmed for a month (3)"), "{home}");
    assert!(home.contains(">Last 30 days</th>"), "{home}");
    let page = get(&server, "/pair/KGS/USD").await.body;
    assert!(!page.contains("No rate is fresh") && !page.contains("none-fresh"), "{page}");
    assert_eq!(
        (current_choice(&page, "Range").as_str(), current_choice(&page, "Until").as_str()),
        ("30 days", "Last observation")
    );
    server.stop().await;
}

#[tokio::test]
async fn data_without_a_fresh_rate_is_called_old_only_after_a_month() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -2 * HOUR_S, "0.01144")]).await;
    for path in ["/", "/pair/KGS/USD"] {
        let text = visible_text(&get(&server, path).await.body);
        assert!(text.contains("No rate is fresh: data up to 8 December 2025 ."), "{path}: {text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn rare_observations_are_marked_and_their_silences_are_not_hatched() {
    let server = TestServer::start(&[]).await;
    let days = |days: &[i64]| -> Vec<v1::Tick> {
        days.iter().map(|day| tick("KGS/USD", day * 24 * HOUR_S, &format!("0.0{}", 1_150 + day))).collect()
    };
    server.store(&days(&[-20, -14, -9, -4])).await;
    let page = get(&server, "/pair/KGS/USD?range=all&until=last").await.body;
    let chart = between(&page, "<svg class=\"chart wide\"", "</svg>");
    assert_eq!(between(chart, "class=\"marks\" d=\"", "\"").matches("h0").count(), 4, "{chart}");
    assert!(!chart.contains("url(#hatch-") && !chart.contains(">silent<"), "{chart}");
    // The line is dotted from the first observation to the end of the chart, and solid nowhere.
    let dotted = between(chart, "class=\"unconfirmed\" d=\"", "\"");
    assert_eq!((dotted.matches('M').count(), dotted.matches('V').count()), (1, 3), "{dotted}");
    assert_eq!(between(chart, "class=\"line\" d=\"", "\""), "");
    let legend = visible_text(between(&page, "class=\"legend\">", "</ul>"));
    assert_eq!(legend, "observation possible true rate last rate, not confirmed: no observation for over 1 h");
    let expect = "observations are marked, and the dotted line between them is not confirmed.";
    assert!(visible_text(&page).contains(expect), "{page}");
    // The start of a shorter range is no observation.
    let page = get(&server, "/pair/KGS/USD?range=7d").await.body;
    assert_eq!(between(&page, "class=\"marks\" d=\"", "\"").matches("h0").count(), 1, "{page}");
    // The marks of a cross are the observations of both legs.
    let legs = [-20, -14, -8].map(|day| tick("TJS/USD", day * 24 * HOUR_S, "0.10899"));
    server.store(&legs).await;
    let page = get(&server, "/pair/KGS/TJS?range=all&until=last").await.body;
    assert_eq!(between(&page, "class=\"marks\" d=\"", "\"").matches("h0").count(), 2, "{page}");
    let legend = visible_text(between(&page, "class=\"legend\">", "</ul>"));
    assert!(legend.starts_with("observation of both legs possible true rate"), "{legend}");
    // A feed that is silent for a part of the range only is hatched.
    let hours: Vec<v1::Tick> = (-96..-24).map(|hour| tick("KZT/USD", hour * HOUR_S, "0.00196")).collect();
    server.store(&hours).await;
    let page = get(&server, "/pair/KZT/USD?range=all&until=now").await.body;
    assert!(page.contains("url(#hatch-wide)") && !page.contains("class=\"marks\""), "{page}");
    server.stop().await;
}

#[tokio::test]
async fn every_spelling_of_a_pair_leads_to_its_address() {
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    for (path, location) in [
        ("/pair/kgs/usd?range=7d", "/pair/KGS/USD?range=7d"),
        ("/pair/USDKGS", "/pair/USD/KGS"),
        ("/pair/usdkgs?range=7d&with=nbkr", "/pair/USD/KGS?range=7d&with=nbkr"),
        ("/pair/usd-kgs", "/pair/USD/KGS"),
        ("/pair/USD-KGS", "/pair/USD/KGS"),
    ] {
        let page = get(&server, path).await;
        assert_eq!(page.status, 308, "{path}");
        // The head of a response is in lower case here.
        assert!(page.head.contains(&format!("location: {}\r\n", location.to_lowercase())), "{path}: {}", page.head);
        assert_eq!(get(&server, location).await.status, 200, "{location}");
    }
    for path in ["/pair/kgs/abc", "/pair/USDABC", "/pair/USD", "/pair/usd_kgs", "/pair/usdusd"] {
        let page = get(&server, path).await;
        assert!(page.status == 404 && page.body.contains("<main"), "{path}: {}", page.status);
    }
    server.stop().await;
}

/// Returns the links to CSV and the commands of a page.
fn downloads(page: &str) -> (Vec<String>, Vec<String>) {
    let part = between(page, "class=\"downloads\">", "</p>");
    let links = part.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&"));
    let commands = part.split("<code>").skip(1).map(|rest| visible_text(rest.split("</code>").next().unwrap()));
    (links.collect(), commands.collect())
}

#[tokio::test]
async fn csv_has_the_rates_that_the_chart_shows() {
    let server = TestServer::start(&[]).await;
    let nbkr = |hour: i64, rate: &str| v1::Tick { source: "nbkr".to_owned(), ..tick("USD/KGS", hour * HOUR_S, rate) };
    let ticks = [nbkr(-240, "87.1000"), nbkr(-100, "87.2000"), nbkr(-4, "87.3000"), tick("KGS/USD", -200, "0.01144")];
    server.store(&ticks).await;
    server.store(&[tick("KGS/USD", -300 * HOUR_S, "0.01140"), tick("KGS/USD", 0, "0.01145")]).await;
    let rates = async |link: &str| -> Vec<String> {
        let csv = get(&server, link).await;
        assert_eq!(csv.status, 200, "{link}: {}", csv.body);
        csv.body.lines().skip(1).map(|line| line.split(',').nth(2).unwrap().to_owned()).collect()
    };
    // The rate in force at the start of the range is included, and a rate at its end. Both lines have a link.
    let page = get(&server, "/pair/USD/KGS?source=nbkr&with=timesca&range=7d").await.body;
    let (links, commands) = downloads(&page);
    assert_eq!(links.len(), 2, "{links:?}");
    assert_eq!(rates(&links[0]).await, ["87.1000", "87.2000", "87.3000"]);
    assert_eq!(rates(&links[1]).await, ["0.01140", "0.01144", "0.01145"]);
    let text = visible_text(&page);
    assert!(text.contains("CSV of the rates of nbkr . CSV of the rates of timesca as published, KGS/USD ."), "{text}");
    // An export has the runs that begin in a range, so it starts with the run in force.
    assert_eq!(
        commands,
        [
            "silkrate export USD-KGS-nbkr.parquet --pair USD/KGS --source nbkr --from 2025-11-28T12:00:00Z \
             --to 2025-12-08T12:00:01Z",
            "silkrate export KGS-USD-timesca.parquet --pair KGS/USD --source timesca --from 2025-11-26T00:00:00Z \
             --to 2025-12-08T12:00:01Z",
        ]
    );
    // The text names the published direction of a chart in the other direction.
    let page = get(&server, "/pair/USD/KGS?source=nbkr&range=7d&invert=1").await.body;
    assert!(visible_text(&page).contains("CSV of the rates as published, USD/KGS ."), "{page}");
    assert!(visible_text(&page).contains("As Parquet, as published:"), "{page}");
    // Candles: the days of the chart are days in UTC, and the first begins before the range.
    let page = get(&server, "/pair/KGS/USD?source=nbkr&range=7d&candles=1d").await.body;
    let (links, commands) = downloads(&page);
    let csv = get(&server, &links[0]).await.body;
    let starts: Vec<&str> =
        csv.lines().skip(1).map(|line| line.split(',').find(|cell| cell.ends_with('Z')).unwrap()).collect();
    let shown = between(&page, "data-kind=\"candles\" data-points=\"", "\"").split(';').count();
    assert_eq!((starts.len(), starts[0]), (shown, "2025-12-04T00:00:00Z"), "{csv}");
    assert!(
        commands[0].contains("--shape candles --interval 1d --time-zone UTC --from 2025-12-01T00:00:00Z"),
        "{commands:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn pair_page_opens_with_the_rule_of_choice_and_links_to_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("silkrate.toml");
    std::fs::write(&config, "[sources.timesca]\npreference = 1\n").unwrap();
    let server = TestServer::start(&["--config", config.to_str().unwrap()]).await;
    server.store(&nineteen_series()).await;
    // The preferred source is stale, so the rule picks another one.
    server.clock.advance_us(3 * HOUR_S * 1_000_000);
    let page = get(&server, "/pair/KGS/USD").await.body;
    let text = visible_text(&page);
    assert!(text.contains("KGS/USD from nbkr") && text.contains("1 KGS = 0.0114351 USD"), "{text}");
    assert!(text.contains("Derived from USD/KGS 87.4500 of nbkr."), "{text}");
    let check_link = async |page: &str, expect: &str| {
        let link = between(page, "class=\"downloads\"><a href=\"", "\"").replace("&amp;", "&");
        assert!(link.starts_with(expect), "{link}");
        let csv = get(&server, &link).await;
        assert_eq!(csv.status, 200, "{link}: {}", csv.body);
        assert!(csv.head.contains("text/csv") && csv.body.lines().count() > 2, "{link}: {}", csv.body);
    };
    check_link(&page, "/v1/history?pair=USD/KGS&source=nbkr&start_time=2025-11-08T15:00:00Z").await;
    let candles = get(&server, "/pair/USD/KGS?source=nbkr&range=7d&candles=1d").await.body;
    check_link(&candles, "/v1/candles?pair=USD/KGS&source=nbkr&interval=1d&time_zone=UTC&start_time=").await;
    assert!(visible_text(&candles).contains("--shape candles --interval 1d"), "{candles}");
    // The page offers the crosses of its currency.
    assert_eq!(
        visible_text(between(&page, "aria-label=\"Other pairs\">", "</nav>")),
        "Other pairs: KGS/KZT KGS/TJS KGS/TMT KGS/UZS"
    );

    // A cross, with the digits of an answer.
    let cross = get(&server, "/pair/TJS/TMT?range=7d").await.body;
    let text = visible_text(&cross);
    let request = v1::GetRateRequest { pair: "TJS/TMT".to_owned(), ..v1::GetRateRequest::default() };
    let answer = server.rates().get_rate(request).await.unwrap().into_inner();
    assert_eq!(answer.derivation(), v1::Derivation::Cross);
    assert!(
        text.contains(&format!("1 TJS = {} TMT The true rate is between {}", answer.rate, answer.rate_low)),
        "{text}"
    );
    assert!(text.contains("Derived from TJS/USD 0.10899 of timesca and TMT/USD 0.28490 of timesca."), "{text}");
    assert!(text.contains("silent: a leg had no observation for over 1 h"), "{text}");
    assert!(between(&cross, "class=\"line\" d=\"", "\"").starts_with('M'), "{cross}");
    check_link(&cross, "/v1/candles?pair=TJS/TMT&leg_sources=timesca,timesca&interval=4h").await;
    assert_eq!(get(&server, "/pair/TJS/TMT?range=7d&candles=4h&invert=1").await.status, 200);
    // The legs keep their order in the address of the other direction.
    let both = get(&server, "/pair/KGS/KZT?source=timesca,nbk&invert=1").await.body;
    assert!(visible_text(&both).contains("KZT/KGS from nbk and timesca, through USD"), "{both}");
    assert!(between(&both, "aria-label=\"Direction\">", "</div>").contains("source=timesca,nbk"), "{both}");
    server.stop().await;
}

#[tokio::test]
async fn second_source_is_drawn_in_the_same_chart() {
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    let one = get(&server, "/pair/USD/KGS?source=nbkr&range=7d").await.body;
    assert!(!one.contains("line second"), "{one}");
    let page = get(&server, "/pair/USD/KGS?source=nbkr&with=timesca&range=7d").await.body;
    let text = visible_text(&page);
    assert_eq!(page.matches("class=\"line second\"").count(), 2, "one for wide and one for narrow screens");
    let legend = visible_text(between(&page, "class=\"legend\">", "</ul>"));
    assert!(legend.contains("nbkr, published") && legend.contains("timesca, derived"), "{legend}");
    assert!(text.contains("The second line is the rate from timesca."), "{text}");
    // Both lines have their digits for the readout, and an update of either refreshes the chart.
    let names: Vec<&str> = page.split("data-name=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(names, ["nbkr", "timesca"]);
    assert!(page.contains("data-rows=\"r-USD-KGS-nbkr r-KGS-USD-timesca\""), "{page}");
    // The other direction, candles, and a cross as the second line.
    for path in [
        "/pair/KGS/USD?source=nbkr&with=timesca&range=7d&invert=1",
        "/pair/USD/KGS?source=nbkr&with=timesca&range=7d&candles=1d",
        "/pair/KGS/KZT?source=nbk&with=timesca,timesca&range=7d",
        "/pair/KGS/KZT?source=nbk&with=timesca,timesca&range=all",
    ] {
        let page = get(&server, path).await;
        assert_eq!((page.status, page.body.matches("class=\"line second\"").count()), (200, 2), "{path}");
    }
    let missing = get(&server, "/pair/USD/KGS?with=cbu").await;
    assert_eq!(missing.status, 404, "{}", missing.body);
    // The legend explains the dotted line if the chart has one.
    let text = visible_text(&get(&server, "/pair/KGS/USD?source=timesca&range=7d").await.body);
    assert!(!text.contains("last rate before a silence"), "{text}");
    server.clock.advance_us(3 * HOUR_S * 1_000_000);
    let text = visible_text(&get(&server, "/pair/KGS/USD?source=timesca&range=7d").await.body);
    assert!(text.contains("last rate before a silence, not confirmed since"), "{text}");
    // A second source that is rarely observed has marks and a dotted line, which the legend explains.
    let ticks = [-300, -200, -100, -20].map(|day| tick_from("cbs", "USD/KGS", day * 24 * HOUR_S, "88.0"));
    server.store(&ticks).await;
    let page = get(&server, "/pair/USD/KGS?source=nbkr&with=cbs&range=1y").await.body;
    let chart = between(&page, "<svg class=\"chart wide\"", "</svg>");
    assert_eq!(between(chart, "class=\"marks second\" d=\"", "\"").matches("h0").count(), 4, "{chart}");
    let dotted = between(chart, "class=\"unconfirmed second\" d=\"", "\"");
    assert!(dotted.starts_with('M') && dotted.contains('H'), "{dotted}");
    let legend = visible_text(between(&page, "class=\"legend\">", "</ul>"));
    assert!(legend.contains("cbs, published: observation cbs, not confirmed: no observation for over 1 h"), "{legend}");
    server.stop().await;
}

#[tokio::test]
async fn page_of_a_strict_server_names_the_source_that_it_shows() {
    let server = TestServer::start(&["--strict"]).await;
    server.store(&nineteen_series()).await;
    // A request without a source is ambiguous on this server. The page shows all sources, and names each.
    assert_eq!(get(&server, "/v1/rate?pair=KGS/USD").await.status, 400);
    let home = get(&server, "/").await.body;
    let row = visible_text(between(&home, "id=\"g-KGS-USD\">", "</tr>"));
    assert!(row.starts_with("USD/KGS nbkr 2 sources 87.4500"), "{row}");
    let page = visible_text(&get(&server, "/pair/KGS/USD").await.body);
    assert!(page.contains("KGS/USD from nbkr"), "{page}");
    server.stop().await;
}
