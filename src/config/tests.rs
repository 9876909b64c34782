//! Tests of the settings of `serve`: refused values and their messages, defaults, and precedence.

use std::collections::BTreeMap;

use clap::Parser;

use super::*;
use crate::domain::{Pair, SeriesKey};
use crate::follow::{AddressPolicy, FollowedSource, Schedule};
use crate::sources::{Setting, SourceSettings};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    serve: ServeArgs,
}

fn source(name: &str) -> Source {
    Source::parse(name).unwrap()
}

/// Parses flags to a configuration, or to the error message that the user sees.
fn config(flags: &[&str]) -> Result<Config, String> {
    let args = Command::try_parse_from(["silkrate"].iter().chain(flags)).map_err(|error| {
        assert_eq!(error.exit_code(), 2, "{flags:?}");
        error.to_string()
    })?;
    Config::new(args.serve).map_err(|error| error.to_string())
}

#[test]
fn invalid_value_is_refused_with_flag_value_and_remedy() {
    let check = |flags: &[&str], expect: &[&str]| {
        let message = config(flags).map(|_| ()).expect_err(&format!("{flags:?} were accepted"));
        for part in flags.iter().chain(expect) {
            assert!(message.contains(part), "{flags:?}: no '{part}' in: {message}");
        }
    };
    check(&["--listen", "50051"], &["not an address with a port; write one like 127.0.0.1:50051"]);
    check(&["--listen", "127.0.0.1:99999"], &["not an address with a port"]);
    check(&["--http-listen", "8080"], &["not an address with a port; write one like 127.0.0.1:8080", "or \"none\""]);
    check(&["--http-listen", "off"], &["or \"none\""]);
    check(&["--frankfurter-source", "NBKR"], &["not a slug"]);
    check(&["--load-source", "Timesca"], &["not a slug", "write one like timesca"]);
    check(&["--load-time", "yesterday"], &["not a time; write RFC 3339"]);
    check(&["--load-time", "2025-13-01"], &["not a time"]);
    check(&["--currency", "eur"], &["three upper-case letters"]);
    check(&["--currency", "QQQ"], &["not in ISO 4217"]);
    check(&["--collapse-window", "soon"], &["not a valid duration; write a count and a unit"]);
    check(&["--collapse-window", "0s"], &["outside 1s to"]);
    check(&["--collapse-window", "A=1h"], &["not a slug"]);
    check(&["--stale-limit", "nbk=367d"], &["outside 1s to"]);
    check(&["--stale-limit", "nbk=-1h"], &["not a valid duration"]);
    check(&["--moving-window", "500ms"], &["outside 1s to"]);
    check(&["--future-limit", "400d"], &["outside 0s to"]);
    check(&["--minimum-places", "nbk"], &["not SOURCE=N"]);
    check(&["--minimum-places", "nbk=19"], &["not SOURCE=N with N from 0 to 18"]);
    check(&["--queue-batches", "0"], &["1..=65536"]);
    check(&["--queue-batches", "65537"], &["1..=65536"]);
    check(&["--series-max", "0"], &["1..=100000"]);
    check(&["--reserve-mib", "5000"], &["0..=4096"]);
    check(&["--max-connections", "0"], &["1..=65536"]);
    check(&["--max-calls", "x"], &["invalid digit"]);
    check(&["--cors-origin", "dash.example.org"], &["not an origin; write one like https://dash.example.org"]);
    check(&["--shutdown-grace", "11m"], &["outside 0s to 10m"]);
    check(&["--log-format", "xml"], &["human", "json"]);
    check(&["--log", "loud"], &["'loud' is not a level; use a level"]);
}

#[test]
fn flag_with_two_values_for_one_source_is_refused() {
    let check = |flags: &[&str], expect: &str| {
        let message = config(flags).map(|_| ()).expect_err("accepted");
        assert!(message.contains(expect), "{message}");
    };
    check(
        &["--collapse-window", "nbk=1h,nbk=2h"],
        "--collapse-window is given twice for source nbk: once 1h, once 2h; give it once",
    );
    check(&["--stale-limit", "1h", "--stale-limit", "1h"], "twice for sources without a value of their own");
    check(&["--minimum-places", "nbk=2", "--minimum-places", "nbk=3"], "twice for source nbk: once 2, once 3");
}

#[test]
fn defaults_are_those_in_the_help_texts() {
    let config = config(&[]).unwrap();
    let open = config.store_options();
    assert_eq!(config.listen().to_string(), "127.0.0.1:50051");
    assert_eq!(config.http_listen(), HttpListen::At(SocketAddr::from(([127, 0, 0, 1], 8080))));
    assert_eq!(config.db(), Path::new("silkrate-data"));
    assert_eq!(open.collapse_window_default_us, Timestamp::HOUR_US);
    assert_eq!(open.collapse_windows_us.get(&source("nbkr")), Some(&(7 * Timestamp::DAY_US)));
    assert_eq!(open.state_rules.stale_limit_default_us, Timestamp::HOUR_US);
    assert_eq!(open.state_rules.stale_limits_us.get(&source("cbt")), Some(&(5 * Timestamp::DAY_US)));
    assert_eq!(open.state_rules.moving_window_default_us, Timestamp::DAY_US);
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
fn stale_limit_of_a_pair_precedes_that_of_its_source() {
    let check = |flags: &[&str], text: &str, expect: &[(&str, &str, i64)]| {
        let (file, path) = with_file(text);
        let config = config(&[flags, &["--config", &path]].concat()).unwrap();
        for (pair, slug, days) in expect {
            let key = SeriesKey { pair: Pair::parse_iso(pair).unwrap(), source: source(slug) };
            let limit_us = config.store_options().state_rules.stale_limit_us(&key);
            assert_eq!(limit_us, days * Timestamp::DAY_US, "{pair} of {slug}: {flags:?} {text}");
        }
        drop(file);
    };
    check(&[], "", &[("UZS/KGS", "nbkr", 9), ("EUR/KGS", "nbkr", 5), ("GBP/KGS", "nbkr", 9), ("UZS/KGS", "cbu", 5)]);
    // The built-in limit of the weekly table is never shorter than the limit of the source.
    check(&["--stale-limit", "nbkr=12d"], "", &[("UZS/KGS", "nbkr", 12), ("USD/KGS", "nbkr", 12)]);
    check(&["--stale-limit", "nbkr=3d"], "", &[("UZS/KGS", "nbkr", 9), ("USD/KGS", "nbkr", 3)]);
    let file =
        "[sources.nbkr.pairs.\"UZS/KGS\"]\nstale_limit = \"2d\"\n[sources.own.pairs.\"KGS/USD\"]\nstale_limit = \"3d\"";
    check(
        &["--stale-limit", "nbkr=12d"],
        file,
        &[("UZS/KGS", "nbkr", 2), ("TJS/KGS", "nbkr", 12), ("KGS/USD", "own", 3)],
    );
}

#[test]
fn http_listen_accepts_none() {
    let listen = |text: &str| config(&["--http-listen", text]).unwrap().http_listen();
    assert_eq!(listen("none"), HttpListen::Off);
    assert_eq!(listen("[::1]:0"), HttpListen::At("[::1]:0".parse().unwrap()));
}

#[test]
fn setting_of_one_source_does_not_change_others() {
    let config =
        config(&["--collapse-window", "nbk=3d,timesca=30m", "--collapse-window", "2h", "--minimum-places", "nbk=2"])
            .unwrap();
    let window = |name: &str| config.store_options().collapse_windows_us.get(&source(name)).copied();
    assert_eq!(config.store_options().collapse_window_default_us, 2 * Timestamp::HOUR_US);
    assert_eq!(window("nbk"), Some(3 * Timestamp::DAY_US));
    assert_eq!(window("timesca"), Some(Timestamp::HOUR_US / 2));
    assert_eq!(
        window("cbu"),
        Some(7 * Timestamp::DAY_US),
        "a flag without SOURCE= does not change a bank's built-in value"
    );
    assert_eq!(config.tick_rules().minimum_places, BTreeMap::from([(Source::parse("nbk").unwrap(), 2)]));
}

#[test]
fn date_means_its_start_in_utc() {
    let time = |text: &str| config(&["--load-time", text]).unwrap().load().observed_time.map(|t| t.to_string());
    assert_eq!(time("2025-12-08").as_deref(), Some("2025-12-08T00:00:00Z"));
    assert_eq!(time("2025-12-08T06:00:00+06:00").as_deref(), Some("2025-12-08T00:00:00Z"));
}

/// Writes a file with this text. Returns the file and its path.
fn with_file(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().display().to_string();
    (file, path)
}

#[test]
fn precedence_is_flag_then_file_then_built_in_value() {
    let (file, path) = with_file(
        "[defaults]\ncollapse_window = \"2h\"\n[sources.nbkr]\ncollapse_window = \"6d\"\n[sources.mine]\ncollapse_window = \"3h\"\n",
    );
    let (default, line) = (Origin::Default, |line| Origin::File { line });
    // For each source: the collapse window in hours, and its origin.
    let check = |flags: &[&str], expect: [(&str, i64, Origin); 4]| {
        let config = config(&[&["--config", path.as_str()], flags].concat()).unwrap();
        for (name, hours, origin) in expect {
            let window = config.sources().of(&source(name)).collapse_window_us;
            assert_eq!(window, Setting { value: hours * Timestamp::HOUR_US, origin }, "{flags:?}: {name}");
            let stored = config.store_options().collapse_windows_us.get(&source(name)).copied();
            let stored = stored.unwrap_or(config.store_options().collapse_window_default_us);
            assert_eq!(stored, window.value, "{flags:?}: {name}");
        }
    };
    check(&[], [("nbkr", 144, line(4)), ("cbu", 168, default), ("mine", 3, line(6)), ("other", 2, line(2))]);
    check(
        &["--collapse-window", "nbkr=5d,mine=4h"],
        [("nbkr", 120, Origin::Flag), ("cbu", 168, default), ("mine", 4, Origin::Flag), ("other", 2, line(2))],
    );
    // A value for one source takes precedence over a value for all sources.
    check(
        &["--collapse-window", "5h"],
        [("nbkr", 144, line(4)), ("cbu", 168, default), ("mine", 3, line(6)), ("other", 5, Origin::Flag)],
    );
    drop(file);
}

#[test]
fn follow_and_feed_url_flags_take_precedence_over_the_file() {
    let (file, path) = with_file(
        "[sources.nbkr]\nfollow = true\npace = \"30m\"\npublication = \"16:00\"\nurl = \"http://127.0.0.1:1/a\"\n[sources.cbu]\nfollow = true\n[sources.nbk]\nfollow = false\nurl = \"https://nationalbank.kz\"\n",
    );
    let follow = |flags: &[&str]| config(&[&["--config", path.as_str()], flags].concat()).unwrap().follow().clone();
    let settings = follow(&[]);
    assert_eq!(settings.sources, [FollowedSource::Nbkr, FollowedSource::Cbu]);
    assert_eq!(settings.endpoint(FollowedSource::Nbkr), ("http://127.0.0.1:1/a", AddressPolicy::Any));
    assert_eq!(settings.endpoint(FollowedSource::Cbu), ("https://cbu.uz", AddressPolicy::Public));
    // A file that repeats the publisher's own URL does not change the address policy.
    assert_eq!(settings.endpoint(FollowedSource::Nbk), ("https://nationalbank.kz", AddressPolicy::Public));
    let schedule = settings.schedule(FollowedSource::Nbkr);
    assert_eq!((schedule.poll_interval(), schedule.publication_s()), (Duration::from_mins(30), Some(16 * 3_600)));
    assert_eq!(settings.schedule(FollowedSource::Cbu), Schedule::of(FollowedSource::Cbu));
    let settings = follow(&["--follow", "nbk", "--feed-url", "nbkr=http://127.0.0.1:1/b"]);
    assert_eq!(settings.sources, [FollowedSource::Nbk], "only the sources of the flag are followed");
    assert_eq!(settings.endpoint(FollowedSource::Nbkr).0, "http://127.0.0.1:1/b");
    drop(file);
}

#[test]
fn frankfurter_source_is_set_by_its_flag_alone() {
    let source = |flags: &[&str]| config(flags).unwrap().frankfurter_source().map(ToString::to_string);
    assert_eq!(source(&[]), None);
    assert_eq!(source(&["--frankfurter-source", "nbt"]).as_deref(), Some("nbt"));
}

#[test]
fn problem_of_a_file_is_reported_with_its_path() {
    let (file, path) = with_file("[sources.nbkr]\npace = \"1s\"\n");
    let message = config(&["--config", &path]).map(|_| ()).unwrap_err();
    assert_eq!(
        message,
        format!("{path}:2: sources.nbkr.pace = \"1s\": it is outside 10s to 6h; choose a poll interval between them")
    );
    drop(file);
}

#[test]
fn describe_collapse_window_names_origin_and_remedy() {
    let (file, path) = with_file("[sources.nbkr]\ncollapse_window = \"6d\"\n");
    let describe = |flags: &[&str], name: &str| config(flags).unwrap().describe_collapse_window(&source(name));
    let with_config = ["--config", path.as_str()];
    assert_eq!(describe(&with_config, "nbkr"), format!("it is configured in {path}, line 2"));
    assert_eq!(
        describe(&with_config, "cbu"),
        format!("it is the built-in value; to change it, set collapse_window of [sources.cbu] in {path}")
    );
    assert_eq!(
        describe(&["--config", &path, "--collapse-window", "cbu=1d"], "cbu"),
        format!(
            "it is configured by --collapse-window, which takes precedence over collapse_window of [sources.cbu] in {path}"
        )
    );
    assert_eq!(
        describe(&[], "cbu"),
        "it is the built-in value; to change it, set collapse_window of [sources.cbu] in a file and pass that file to --config"
    );
    drop(file);
}

/// Returns the sample file with its commented settings enabled. These are the lines that begin with `#` and a
/// lower-case letter.
fn sample_with_all_settings() -> String {
    let text = include_str!("../../data/silkrate.toml");
    let enabled = |line: &str| {
        let setting = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        setting.unwrap_or(line).to_owned()
    };
    text.lines().map(enabled).collect::<Vec<_>>().join("\n")
}

#[test]
fn sample_file_has_the_built_in_values() {
    let built_in = config(&[]).unwrap();
    let (sample, path) = with_file(include_str!("../../data/silkrate.toml"));
    assert_eq!(config(&["--config", &path]).unwrap().sources(), built_in.sources());
    let (enabled, path) = with_file(&sample_with_all_settings());
    let configured = config(&["--config", &path]).unwrap();
    for name in built_in.sources().named() {
        let (found, expect) = (configured.sources().of(name), built_in.sources().of(name));
        let values = |settings: &SourceSettings| {
            let feed = settings.feed.clone().unwrap();
            let hour = feed.publication_s.map(|hour| hour.value);
            let durations = [settings.collapse_window_us, settings.stale_limit_us, feed.poll_interval_us];
            let durations_us = durations.map(|setting| setting.value);
            (durations_us, settings.minimum_places.value, hour, feed.url.value, feed.is_followed.value)
        };
        assert_eq!(values(found), values(expect), "{name}");
        let feed = found.feed.clone().unwrap();
        let mut origins =
            vec![found.collapse_window_us.origin, found.stale_limit_us.origin, found.minimum_places.origin];
        origins.extend([feed.poll_interval_us.origin, feed.url.origin, feed.is_followed.origin]);
        origins.extend(feed.publication_s.map(|hour| hour.origin));
        assert!(!origins.contains(&Origin::Default), "{name}: the sample file lacks a setting");
    }
    let (others, expect) = (configured.sources().others(), built_in.sources().others());
    assert_eq!(others.collapse_window_us.value, expect.collapse_window_us.value);
    assert_eq!(others.stale_limit_us.value, expect.stale_limit_us.value);
    assert!(others.stale_limit_us.origin != Origin::Default && others.collapse_window_us.origin != Origin::Default);
    drop((sample, enabled));
}
