//! Tests of the configuration file: accepted settings, and the error messages for invalid files.

use std::path::PathBuf;

use super::*;

/// Returns the problems of a file that is refused, one text for each.
fn problems(text: &str) -> Vec<String> {
    let problems = FileSettings::parse(text).map(|_| ()).expect_err(text);
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn problem_is_reported_with_line_key_value_and_remedy() {
    let check = |text: &str, expect: &str| assert_eq!(problems(text), [expect], "{text}");
    let in_nbkr = |setting: &str, expect: &str| check(&format!("[sources.nbkr]\n{setting}"), &format!("2: {expect}"));
    check(
        "collapse_window = \"1h\"",
        "1: collapse_window: unknown setting; the tables are [defaults], [sources.NAME], [certificates.\"SUBJECT\"] and [backup]",
    );
    check(
        "[source.nbkr]",
        "1: source: unknown setting; the tables are [defaults], [sources.NAME], [certificates.\"SUBJECT\"] and [backup]",
    );
    check("\n\nsources = 3", "3: sources = 3: it is not a table; write [sources.NAME] above its settings");
    check(
        "sources.nbkr = \"1h\"",
        "1: sources.nbkr = \"1h\": it is not a table; write [sources.nbkr] above its settings",
    );
    check(
        "[defaults]\npace = \"1h\"",
        "2: defaults.pace: unknown setting; the settings are collapse_window, stale_limit, moving_window and quarantine_factor",
    );
    check(
        "[sources.NBKR]",
        "1: sources: source 'NBKR' is not a slug of 1 to 32 characters from a-z, 0-9 and '-'; write one like timesca",
    );
    check(
        "[sources.nbkr.pairs.\"UZS/KGS\"]\nzone = \"UTC\"",
        "2: sources.nbkr.pairs.\"UZS/KGS\".zone: unknown setting; the only setting of a pair is stale_limit",
    );
    check(
        "[sources.nbkr.pairs.\"UZS/KGS\"]\nstale_limit = \"0s\"",
        "2: sources.nbkr.pairs.\"UZS/KGS\".stale_limit = \"0s\": it is outside 1s to 366d; choose a duration between them",
    );
    check(
        "[sources.nbkr.pairs.\"UZSKGS\"]",
        "1: sources.nbkr.pairs: pair 'UZSKGS' is not two currencies separated by a slash; write it like KGS/USD",
    );
    in_nbkr("pairs = 3", "sources.nbkr.pairs = 3: it is not a table; write [sources.nbkr.pairs] above its settings");
    in_nbkr(
        "colapse_window = \"1h\"",
        "sources.nbkr.colapse_window: unknown setting; the settings are collapse_window, stale_limit, moving_window, quarantine_factor, minimum_places, preference, zone, pairs, follow, pace, publication and url",
    );
    in_nbkr(
        "pace = 60",
        "sources.nbkr.pace = 60: it is not a string; write it in quotes, like \"90s\", \"1h\", \"16:00\" or \"https://a.org\"; a duration needs a unit",
    );
    let duration = "is not a valid duration; write a count and a unit, like 90s or 7d (s seconds, m minutes, h hours, d days, w weeks, mo months, y years)";
    in_nbkr("pace = \"60\"", &format!("sources.nbkr.pace = \"60\": '60' {duration}"));
    in_nbkr(
        "pace = \"9s\"",
        "sources.nbkr.pace = \"9s\": it is outside 10s to 6h; choose a poll interval between them",
    );
    in_nbkr(
        "pace = \"7h\"",
        "sources.nbkr.pace = \"7h\": it is outside 10s to 6h; choose a poll interval between them",
    );
    in_nbkr(
        "collapse_window = \"1 fortnight\"",
        &format!("sources.nbkr.collapse_window = \"1 fortnight\": '1 fortnight' {duration}"),
    );
    in_nbkr("stale_limit = \"-1h\"", &format!("sources.nbkr.stale_limit = \"-1h\": '-1h' {duration}"));
    in_nbkr(
        "stale_limit = \"367d\"",
        "sources.nbkr.stale_limit = \"367d\": it is outside 1s to 366d; choose a duration between them",
    );
    let hour = "it is not a time of day; write hours and minutes in the bank's time zone, like \"16:00\"";
    for bad in ["25:00", "16", "16:00:00", "4:00", "4 pm", ""] {
        in_nbkr(&format!("publication = \"{bad}\""), &format!("sources.nbkr.publication = \"{bad}\": {hour}"));
    }
    in_nbkr("follow = 1", "sources.nbkr.follow = 1: it is not a boolean; write true or false");
    let places = "it is not an integer from 0 to 18; write one like 2";
    for bad in ["19", "-1", "2.0", "\"2\"", "99999999999999999999"] {
        in_nbkr(&format!("minimum_places = {bad}"), &format!("sources.nbkr.minimum_places = {bad}: {places}"));
    }
    for (bad, problem) in [
        ("1", "factor '1' must be above 1 and at most 1000000; write one like 5 or 2.5"),
        ("-5", "factor '-5' is not a plain decimal"),
        ("nan", "factor 'nan' is not a plain decimal"),
        ("true", "it is not a factor; write a number above 1 like 5 or 2.5, or \"none\""),
        ("\"off\"", "factor 'off' is not a plain decimal"),
    ] {
        let found = problems(&format!("[sources.nbkr]\nquarantine_factor = {bad}"));
        let begins = format!("2: sources.nbkr.quarantine_factor = {bad}: {problem}");
        assert!(found.len() == 1 && found[0].starts_with(&begins), "{found:?}");
    }
    let rank = "it is not an integer from 1 to 1000; write 1 for the most preferred source";
    for bad in ["0", "-1", "1001", "1.5", "[1]"] {
        in_nbkr(&format!("preference = {bad}"), &format!("sources.nbkr.preference = {bad}: {rank}"));
    }
}

#[test]
fn quarantine_factor_is_an_exact_decimal_or_none() {
    let check = |text: &str, expect: Option<&str>| {
        let found = FileSettings::parse(&format!("[defaults]\nquarantine_factor = {text}")).unwrap();
        let factor = found.defaults.quarantine_factor.unwrap().value;
        assert_eq!(factor.map(|factor| factor.to_string()).as_deref(), expect, "{text}");
    };
    check("5", Some("5"));
    check("2.5", Some("2.5"));
    check("1_000", Some("1000"));
    check("\"2.50\"", Some("2.5"));
    check("\"none\"", None);
}

#[test]
fn polling_setting_is_refused_for_a_source_that_cannot_be_followed() {
    let check = |text: &str, expect: &str| assert_eq!(problems(text), [expect], "{text}");
    let unknown =
        "'ecb' cannot be followed; choose one of timesca, nbkr, nbk, nbt, cbu and cbt, or remove this setting";
    check("[sources.ecb]\npace = \"1h\"", &format!("2: sources.ecb.pace = \"1h\": {unknown}"));
    check("[sources.ecb]\nfollow = true", &format!("2: sources.ecb.follow = true: {unknown}"));
    check(
        "[sources.timesca]\npublication = \"16:00\"",
        "2: sources.timesca.publication = \"16:00\": the ticker changes all day and has no publication hour; remove this setting",
    );
    let settings =
        FileSettings::parse("[sources.ecb]\nstale_limit = \"2d\"\npreference = 3\nminimum_places = 4").unwrap();
    assert!(settings.sources.values().all(|source| source.feed.is_none() && source.preference.is_some()));
}

#[test]
fn refused_url_is_not_displayed() {
    let check = |url: &str, expect: &str| {
        let found = problems(&format!("[sources.cbu]\nurl = \"{url}\""));
        assert_eq!(found, [format!("2: sources.cbu.url: {expect}")], "{url}");
    };
    let secret = "it has a user name or a password, which the log and 'silkrate sources' would show; remove them";
    check("https://me:secret@a.org", secret);
    check("https://token@a.org/", secret);
    let not_url =
        "it is not an http or https URL, or it has a query or a fragment; write it like https://mirror.example.org/cbu";
    for bad in ["", "a.org", "ftp://a.org", "https://a.org?key=secret", "https://a.org#secret", "file:///etc/passwd"] {
        check(bad, not_url);
    }
}

#[test]
fn all_problems_are_listed_sorted_by_line() {
    let found =
        problems("[sources.nbkr]\npace = \"1s\"\nx = 1\n[defaults]\nstale_limit = 5\n[sources.cbu]\nfollow = 0");
    let keys: Vec<&str> = found.iter().filter_map(|problem| problem.split([' ']).nth(1)).collect();
    assert_eq!(keys, ["sources.nbkr.pace", "sources.nbkr.x:", "defaults.stale_limit", "sources.cbu.follow"]);
    // For a text that is not TOML, only the syntax errors are listed.
    assert_eq!(
        problems("[sources.nbkr]\npace = \"1s\"\npace = \"2h\"\n[x\n"),
        ["3: invalid TOML: duplicate key", "4: invalid TOML: unclosed table, expected `]`"]
    );
    assert_eq!(problems("[sources.cbu]\n[sources.cbu]"), ["2: invalid TOML: duplicate key"]);
    let many = (0..30).map(|number| format!("x{number} = 1")).collect::<Vec<_>>().join("\n");
    let error = FileError::Problems {
        path: PathBuf::from("a.toml"),
        problems: FileSettings::parse(&many).map(|_| ()).unwrap_err(),
    };
    let message = error.to_string();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!((lines.len(), lines[19].split(": ").next(), lines[20]), (21, Some("a.toml:20"), "and 10 more"));
}

#[test]
fn second_source_with_the_same_preference_is_refused() {
    // The later line of the file is refused, independent of the order of the names.
    assert_eq!(
        problems("[sources.timesca]\npreference = 1\n[sources.nbkr]\npreference = 2\n[sources.cbu]\npreference = 1"),
        [
            "6: sources.cbu.preference: sources timesca and cbu both have preference 1; give each source its own number, 1 for the most preferred"
        ]
    );
}

#[test]
fn settings_are_parsed_with_their_lines() {
    let text = "# mine\n[defaults]\nstale_limit = \"2h\"\n\n[sources.nbkr]\npreference = 1 # first\npace = '30m'\npublication = \"16:05\"\nfollow = true\nurl = \"http://127.0.0.1:8000/nbkr\"\nminimum_places = 0x4\n[sources.mine]\n";
    let found = FileSettings::parse(text).unwrap();
    let at = |line| Origin::File { line };
    assert_eq!(found.defaults.stale_limit, Some(Setting { value: Duration::from_hours(2), origin: at(3) }));
    assert!(found.defaults.collapse_window.is_none());
    let nbkr = &found.sources[&Source::parse("nbkr").unwrap()];
    assert_eq!(nbkr.preference, Some(Setting { value: 1, origin: at(6) }));
    assert_eq!(nbkr.minimum_places, Some(Setting { value: 4, origin: at(11) }));
    let feed = nbkr.feed.as_ref().unwrap();
    assert_eq!((feed.schedule.poll_interval(), feed.pace_origin), (Duration::from_mins(30), at(7)));
    assert_eq!((feed.schedule.publication_s(), feed.publication_origin), (Some(16 * 3_600 + 300), at(8)));
    assert_eq!(feed.follow, Some(Setting { value: true, origin: at(9) }));
    assert_eq!(feed.url.as_ref().map(|url| url.value.as_str()), Some("http://127.0.0.1:8000/nbkr"));
    assert!(found.sources.contains_key(&Source::parse("mine").unwrap()), "a table may be empty");
}

#[test]
fn unreadable_file_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, content: Option<&[u8]>, expect: &str| {
        let path = dir.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = FileSettings::read(&path).map(|_| ()).expect_err(name).to_string();
        let expect = expect.replace("PATH", &path.display().to_string());
        assert_eq!(error, expect);
    };
    let remedy = "give --config the path of a readable file";
    check("absent", None, &format!("cannot read PATH: No such file or directory (os error 2); {remedy}"));
    check("", None, &format!("cannot read PATH: Is a directory (os error 21); {remedy}"));
    check(
        "latin",
        Some(b"# a\n# caf\xe9\n"),
        "PATH:2: the file is not valid UTF-8 from this line on; save it as UTF-8",
    );
    let long = vec![b'#'; 10 << 20];
    check(
        "long",
        Some(&long),
        "PATH has more than 1048576 bytes, the limit of a configuration file; give --config the right file",
    );
    check("image", Some(b"\x89PNG\r\n"), "PATH:1: the file is not valid UTF-8 from this line on; save it as UTF-8");
    let largest = vec![b' '; FILE_BYTES_MAX];
    std::fs::write(dir.path().join("largest"), largest).unwrap();
    assert!(FileSettings::read(&dir.path().join("largest")).is_ok());
}

#[test]
fn any_text_is_parsed_or_refused_without_a_panic() {
    // Deep nesting does not overflow the stack, and a file with many mistakes is refused quickly.
    for text in
        ["[".repeat(100_000), "a.".repeat(100_000), format!("x = {}", "[".repeat(100_000)), "x=1\n".repeat(100_000)]
    {
        assert!(FileSettings::parse(&text).is_err());
    }
    // A prefix of the sample file is accepted, or refused with line numbers that exist in it.
    let sample = include_str!("../../../data/silkrate.toml").replace("\n#", "\n");
    for end in 0..=sample.len() {
        let cut = &sample[..end];
        let problems = FileSettings::parse(cut).err().unwrap_or_default();
        assert!(problems.iter().all(|problem| (1..=1 + cut.lines().count()).contains(&problem.line)), "{cut}");
    }
}
