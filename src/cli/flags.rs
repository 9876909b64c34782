//! The names of arguments in messages of the server, which names the fields of requests.

/// The fields of requests whose arguments have other names.
const FLAGS: [(&str, &str); 17] = [
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
    ("min_length", "--min"),
];

/// Replaces the names of request fields by those of their arguments: `pairs[0]: ...` becomes `PAIR: ...`. A name that is
/// also a word (`time`, `source`) counts as a field only at the start.
pub(super) fn with_flags(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        if name.is_empty() {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        rest = &rest[name.len()..];
        let is_field = name.contains('_') || (out.is_empty() && rest.starts_with([':', '[']));
        match FLAGS.iter().find(|(field, _)| *field == name).filter(|_| is_field) {
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
    use super::*;

    #[test]
    fn fields_of_a_message_become_arguments() {
        let check = |text: &str, expect: &str| assert_eq!(with_flags(text), expect);
        check("pairs[0]: pair 'KGS/EUR' is not served", "PAIR: pair 'KGS/EUR' is not served");
        check("end_time: is before start_time; swap them", "--to: is before --from; swap them");
        check("leg_sources: has 3 entries", "--leg-source: has 3 entries");
        check("time: is after the time of the commit", "--at: is after the time of the commit");
        check("сом [1] time", "сом [1] time");
        check("page_size: is -1", "page_size: is -1");
    }
}
