//! What is refused, by which words, and what the defaults are.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    serve: ServeArgs,
}

fn source(name: &str) -> Source {
    Source::parse(name).unwrap()
}

/// The message that a person sees, or the configuration.
fn config(flags: &[&str]) -> Result<Config, String> {
    let args = Command::try_parse_from(["silkrate"].iter().chain(flags)).map_err(|error| {
        assert_eq!(error.exit_code(), 2, "{flags:?}");
        error.to_string()
    })?;
    Config::new(args.serve).map_err(|error| error.to_string())
}

#[test]
fn a_bad_value_is_refused_by_flag_value_and_remedy() {
    let check = |flags: &[&str], expect: &[&str]| {
        let message = config(flags).map(|_| ()).expect_err(&format!("{flags:?} were taken"));
        for part in flags.iter().chain(expect) {
            assert!(message.contains(part), "{flags:?}: no '{part}' in: {message}");
        }
    };
    check(&["--listen", "50051"], &["no address with a port; write one like 127.0.0.1:50051"]);
    check(&["--listen", "127.0.0.1:99999"], &["no address with a port"]);
    check(&["--http-listen", "8080"], &["no address with a port; write one like 127.0.0.1:8080", "or none"]);
    check(&["--http-listen", "off"], &["or none"]);
    check(&["--frankfurter-source", "NBKR"], &["not a slug"]);
    check(&["--load-source", "Timesca"], &["not a slug", "like timesca"]);
    check(&["--load-time", "yesterday"], &["no time; write RFC 3339"]);
    check(&["--load-time", "2025-13-01"], &["no time"]);
    check(&["--currency", "eur"], &["three upper-case letters"]);
    check(&["--currency", "QQQ"], &["not in ISO 4217"]);
    check(&["--collapse-window", "soon"], &["no duration; write one like 90s"]);
    check(&["--collapse-window", "0s"], &["outside 1s to"]);
    check(&["--collapse-window", "A=1h"], &["not a slug"]);
    check(&["--stale-limit", "nbk=367d"], &["outside 1s to"]);
    check(&["--stale-limit", "nbk=-1h"], &["no duration"]);
    check(&["--moving-window", "59s"], &["outside 1m to"]);
    check(&["--future-limit", "400d"], &["outside 0s to"]);
    check(&["--minimum-places", "nbk"], &["not SOURCE=N"]);
    check(&["--minimum-places", "nbk=19"], &["not SOURCE=N with N from 0 to 18"]);
    check(&["--queue-batches", "0"], &["1..=65536"]);
    check(&["--queue-batches", "65537"], &["1..=65536"]);
    check(&["--series-max", "0"], &["1..=100000"]);
    check(&["--reserve-mib", "5000"], &["0..=4096"]);
    check(&["--max-connections", "0"], &["1..=65536"]);
    check(&["--max-calls", "x"], &["invalid digit"]);
    check(&["--cors-origin", "dash.example.org"], &["no origin; write one like https://dash.example.org"]);
    check(&["--shutdown-grace", "11m"], &["outside 0s to 10m"]);
    check(&["--log-format", "xml"], &["human", "json"]);
    check(&["--log", "loud"], &["no level; write a level"]);
}

#[test]
fn a_setting_is_given_once_a_source() {
    let check = |flags: &[&str], expect: &str| {
        let message = config(flags).map(|_| ()).expect_err("taken");
        assert!(message.contains(expect), "{message}");
    };
    check(
        &["--collapse-window", "nbk=1h,nbk=2h"],
        "--collapse-window is given twice for source nbk: once 1h, once 2h; give it once",
    );
    check(&["--stale-limit", "1h", "--stale-limit", "1h"], "twice for all other sources");
    check(&["--minimum-places", "nbk=2", "--minimum-places", "nbk=3"], "twice for source nbk: once 2, once 3");
}

#[test]
fn defaults_are_those_of_the_help() {
    let config = config(&[]).unwrap();
    let open = config.store_options();
    assert_eq!(config.listen().to_string(), "127.0.0.1:50051");
    assert_eq!(config.http_listen(), HttpListen::At(SocketAddr::from(([127, 0, 0, 1], 8080))));
    assert_eq!(config.db(), Path::new("silkrate-data"));
    assert_eq!(open.collapse_window_default_us, Timestamp::HOUR_US);
    assert_eq!(open.collapse_windows_us.get(&source("nbkr")), Some(&(7 * Timestamp::DAY_US)));
    assert_eq!(open.state_rules.stale_limit_default_us, Timestamp::HOUR_US);
    assert_eq!(open.state_rules.stale_limits_us.get(&source("cbt")), Some(&(5 * Timestamp::DAY_US)));
    assert_eq!(open.state_rules.moving_window_us, Timestamp::DAY_US);
    assert_eq!(
        (config.queue_limits().batches_max, open.reserve_bytes, open.recollapse),
        (256, 64 * MEBIBYTE_BYTES, false)
    );
    assert_eq!(config.tick_rules().future_limit_us, TickRules::FUTURE_LIMIT_DEFAULT_US);
    assert_eq!(config.tick_rules().currencies, CurrencySet::central_asia());
    assert_eq!(config.load().source.as_str(), "timesca");
    assert_eq!(config.shutdown_grace(), Duration::from_secs(10));
}

#[test]
fn plain_http_can_be_turned_off() {
    let listen = |text: &str| config(&["--http-listen", text]).unwrap().http_listen();
    assert_eq!(listen("none"), HttpListen::Off);
    assert_eq!(listen("[::1]:0"), HttpListen::At("[::1]:0".parse().unwrap()));
}

#[test]
fn settings_by_source_leave_the_others_alone() {
    let config =
        config(&["--collapse-window", "nbk=3d,timesca=30m", "--collapse-window", "2h", "--minimum-places", "nbk=2"])
            .unwrap();
    let window = |name: &str| config.store_options().collapse_windows_us.get(&source(name)).copied();
    assert_eq!(config.store_options().collapse_window_default_us, 2 * Timestamp::HOUR_US);
    assert_eq!(window("nbk"), Some(3 * Timestamp::DAY_US));
    assert_eq!(window("timesca"), Some(Timestamp::HOUR_US / 2));
    assert_eq!(window("cbu"), Some(7 * Timestamp::DAY_US), "a bank keeps its own default");
    assert_eq!(config.tick_rules().minimum_places, BTreeMap::from([(Source::parse("nbk").unwrap(), 2)]));
}

#[test]
fn dates_stand_for_their_start() {
    let time = |text: &str| config(&["--load-time", text]).unwrap().load().observed_time.map(|t| t.to_string());
    assert_eq!(time("2025-12-08").as_deref(), Some("2025-12-08T00:00:00Z"));
    assert_eq!(time("2025-12-08T06:00:00+06:00").as_deref(), Some("2025-12-08T00:00:00Z"));
}
