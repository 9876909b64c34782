//! The names of arguments in messages of the server, which names the fields of requests.

use super::Command;

/// Fields of requests, with the names of their arguments.
pub(super) type FlagNames = &'static [(&'static str, &'static str)];

/// The fields of requests whose arguments have other names.
const FLAGS: [(&str, &str); 24] = [
    ("pair", "PAIR"),
    ("pairs", "PAIR"),
    ("amount", "AMOUNT"),
    ("source", "--source"),
    ("leg_sources", "--leg-source"),
    ("start_time", "--from"),
    ("start_date", "--from"),
    ("end_time", "--to"),
    ("end_date", "--to"),
    ("time", "--at"),
    ("date", "--at"),
    ("time_zone", "--time-zone"),
    ("known_time", "--known-time"),
    ("decimal_places", "--decimal-places"),
    ("max_age", "--max-age"),
    ("last_days", "--days"),
    ("minimum_length", "--min"),
    ("sources", "--source"),
    ("interval", "--interval"),
    ("period", "--period"),
    ("window", "--over"),
    ("descending", "--desc"),
    ("include_baseline", "--baseline"),
    ("fill_empty", "--fill"),
];

/// The option for pairs of a command that also takes them as PAIR.
const PAIR_OPTION: &str = "--pair";
/// The sources of a comparison.
const COMPARED: (&str, &str) = ("sources", "--sources");

/// Phrases of messages that name a value of a request for which the command has a flag.
const PHRASES: [(&str, &str); 2] =
    [("contradicts source '", "contradicts --source '"), ("the conflict policy revise", "--revise")];

/// Returns the names of the arguments of a command that differ from [`FLAGS`].
pub(super) fn names_of(command: &Command) -> FlagNames {
    if let Command::Compare(args) = command {
        return if args.has_pair_option() { &[COMPARED, ("pair", PAIR_OPTION)] } else { &[COMPARED] };
    }
    let has_pair_option = matches!(command, Command::Export(args) if args.has_pair_option())
        || matches!(command, Command::Quarantine(args) if args.has_pair_option());
    if has_pair_option { &[("pairs", PAIR_OPTION)] } else { &[] }
}

/// Replaces phrases about requests by phrases with flags.
pub(super) fn with_flag_phrases(text: &str) -> String {
    PHRASES.iter().fold(text.to_owned(), |text, (phrase, flag)| text.replace(phrase, flag))
}

/// Replaces the names of request fields by those of their arguments: `pairs[0]: ...` becomes `PAIR: ...`. A name that is
/// also a word (`time`, `source`) counts as a field only at the start. `names` precede [`FLAGS`].
pub(super) fn with_flags(text: &str, names: FlagNames) -> String {
    let text = with_flag_phrases(text);
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        if name.is_empty() {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        rest = &rest[name.len()..];
        let is_field = name.contains('_') || (out.is_empty() && rest.starts_with([':', '[']));
        match names.iter().chain(&FLAGS).find(|(field, _)| *field == name).filter(|_| is_field) {
            Some((_, flag)) => {
                out.push_str(flag);
                let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                if let Some((_, after)) = index.filter(|(index, _)| index.bytes().all(|byte| byte.is_ascii_digit())) {
                    rest = after;
                }
            }
            None => out.push_str(name),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn fields_of_a_message_become_arguments() {
        let check = |text: &str, expect: &str| assert_eq!(with_flags(text, &[]), expect);
        check("pairs[0]: pair 'KGS/EUR' is not served", "PAIR: pair 'KGS/EUR' is not served");
        check("end_time: is before start_time; swap them", "--to: is before --from; swap them");
        check("leg_sources: has 3 entries", "--leg-source: has 3 entries");
        check("time: is after the time of the commit", "--at: is after the time of the commit");
        check("interval: gives about 100001 buckets", "--interval: gives about 100001 buckets");
        check("sources[0]: source 'A' is not a slug", "--source: source 'A' is not a slug");
        check("use a known_time at or after it", "use a --known-time at or after it");
        check(
            "leg_sources: 'x' contradicts source 'timesca'; give one of them",
            "--leg-source: 'x' contradicts --source 'timesca'; give one of them",
        );
        check("discard the tick, or use the conflict policy revise", "discard the tick, or use --revise");
        check("сом [1] time", "сом [1] time");
        check("page_size: is -1", "page_size: is -1");
    }

    #[test]
    fn fields_become_the_arguments_that_were_given() {
        let check = |line: &str, text: &str, expect: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(with_flags(text, names_of(&cli.command)), expect, "{line}");
        };
        let sources = "sources: has 1 of the two sources to compare";
        check("silkrate compare KGS/USD --sources nbkr", sources, "--sources: has 1 of the two sources to compare");
        check("silkrate compare KGS/USD --sources nbkr", "pair: x", "PAIR: x");
        check("silkrate compare --pair KGS/USD --sources nbkr", "pair: x", "--pair: x");
        check("silkrate export a.csv --pair EUR/USD", "pairs[0]: x", "--pair: x");
        check("silkrate export a.csv EUR/USD", "pairs[0]: x", "PAIR: x");
        check("silkrate quarantine list --pair EUR/USD", "pairs[0]: x", "--pair: x");
        check("silkrate quarantine list EUR/USD", "pairs[0]: x", "PAIR: x");
        check("silkrate quarantine discard --all --pair EUR/USD", "pairs[0]: x", "--pair: x");
        check("silkrate latest EUR/USD", "pairs[0]: x", "PAIR: x");
    }
}
