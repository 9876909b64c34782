//! The text of an HTML page, as far as a ticker needs it.
//!
//! A tokenizer after the HTML standard's, without a tree: block elements end lines, other tags
//! part words, entities are decoded; comments, attributes, scripts, styles and templates are left
//! out. A tree would not serve: building one costs depth times tags, and formatting elements left
//! open multiply by the blocks that follow, so that a few megabytes cost minutes or all memory.
//!
//! **Invariant**: time and memory are linear in the page, the stack does not grow with nesting, and
//! a page cut off anywhere shows no text that the whole hides.

/// Elements whose content is no text of the page and ends only at their own end tag.
const RAW_ELEMENTS: [&str; 8] = ["script", "style", "title", "textarea", "iframe", "noembed", "noframes", "xmp"];

/// Elements that begin and end a line.
#[rustfmt::skip]
const BLOCK_ELEMENTS: [&str; 56] = [
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dialog", "dir",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "head", "header", "hgroup", "hr", "html", "legend", "li", "main", "marquee", "menu", "nav", "ol", "optgroup",
    "option", "p", "pre", "search", "section", "select", "summary", "table", "tbody", "template", "tfoot", "thead",
    "title", "tr", "ul", "video", "audio",
];

/// The entities that matter around a quote. Others are left as they are written: none of them
/// could be part of one.
#[rustfmt::skip]
const ENTITIES: [(&str, char); 32] = [
    ("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\''),
    ("nbsp", '\u{a0}'), ("ensp", '\u{2002}'), ("emsp", '\u{2003}'), ("numsp", '\u{2007}'), ("puncsp", '\u{2008}'),
    ("thinsp", '\u{2009}'), ("hairsp", '\u{200a}'), ("Tab", '\t'), ("NewLine", '\n'), ("shy", '\u{ad}'),
    ("minus", '\u{2212}'), ("ndash", '\u{2013}'), ("mdash", '\u{2014}'), ("hyphen", '\u{2010}'), ("plus", '+'),
    ("bull", '\u{2022}'), ("middot", '\u{b7}'), ("equals", '='), ("sol", '/'), ("period", '.'), ("comma", ','),
    ("percnt", '%'), ("lowbar", '_'), ("vert", '|'), ("ast", '*'), ("rsquo", '\u{2019}'), ("hellip", '\u{2026}'),
];

/// Longest entity looked at, from `&` to `;`.
const ENTITY_BYTES_MAX: usize = 12;

/// Whether the page is HTML: its first visible character opens a tag, a comment or a declaration.
///
/// The beginning alone decides, so that no article that quotes a tag turns a text into markup.
pub(super) fn is_html(page: &str) -> bool {
    let mut head = page.trim_start().chars();
    head.next() == Some('<') && head.next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '!' | '/' | '?'))
}

/// The text of an HTML page.
pub(super) fn html_text(html: &str) -> String {
    let mut reader = Reader { html, at: 0, text: Text::default(), pre_depth: 0, hidden_depth: 0, foreign_depth: 0 };
    while let Some(length) = html[reader.at..].find('<') {
        reader.push(reader.at + length);
        reader.markup();
    }
    reader.push(html.len());
    reader.text.0
}

struct Reader<'a> {
    html: &'a str,
    /// The first byte not yet read; the page's length at its end.
    at: usize,
    text: Text,
    /// How many `pre` are open, in which line ends count.
    pre_depth: u32,
    /// How many `template` are open, of which nothing is shown.
    hidden_depth: u32,
    /// How many `svg` and `math` are open, in which `<title/>` is whole.
    foreign_depth: u32,
}

impl<'a> Reader<'a> {
    /// Takes the text up to `end`.
    fn push(&mut self, end: usize) {
        if self.hidden_depth == 0 {
            self.text.push(&self.html[self.at..end], self.pre_depth > 0);
        }
        self.at = end;
    }

    /// Steps over what the `<` at `at` opens.
    fn markup(&mut self) {
        let rest = &self.html[self.at..];
        let (is_end, name_at) = if rest.starts_with("</") { (true, 2) } else { (false, 1) };
        let first = rest.as_bytes().get(name_at).copied();
        if let Some(comment) = rest.strip_prefix("<!--") {
            self.at = self.html.len() - after_comment(comment).len();
        } else if first.is_some_and(|byte| byte.is_ascii_alphabetic()) {
            self.tag(is_end, self.at + name_at);
        } else if first.is_some() && (is_end || matches!(first, Some(b'!' | b'?'))) {
            // A declaration, or what the standard calls a bogus comment.
            self.at = rest.find('>').map_or(self.html.len(), |end| self.at + end + 1);
        } else {
            // A `<` that opens nothing is text.
            self.push(self.at + 1);
        }
    }

    /// A tag whose name starts at `name_at`. One that the page's end breaks off is dropped.
    fn tag(&mut self, is_end: bool, name_at: usize) {
        let rest = &self.html[name_at..];
        let name_length = rest.find(is_name_end).unwrap_or(rest.len());
        let Some(length) = tag_length(&rest.as_bytes()[name_length..]) else {
            self.at = self.html.len();
            return;
        };
        let (name, end) = (&rest[..name_length], name_at + name_length + length);
        let is_closed = !is_end && self.html[..end].ends_with("/>");
        self.at = end;
        self.count_open(name, is_end, is_closed);
        if self.hidden_depth == 0 {
            self.part(name);
        }
        let is_whole = is_closed && self.foreign_depth > 0;
        if !is_end && !is_whole && RAW_ELEMENTS.iter().any(|raw| raw.eq_ignore_ascii_case(name)) {
            self.at = self.html.len() - after_raw(&self.html[end..], name).len();
        }
    }

    fn count_open(&mut self, name: &'a str, is_end: bool, is_closed: bool) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let depth = match name.len() {
            3 if is("pre") => &mut self.pre_depth,
            8 if is("template") => &mut self.hidden_depth,
            3 | 4 if is("svg") || is("math") => {
                if is_closed {
                    return;
                }
                &mut self.foreign_depth
            }
            _ => return,
        };
        *depth = if is_end { depth.saturating_sub(1) } else { depth.saturating_add(1) };
    }

    /// What a tag does to the text around it: a page that shows `<b>0.01</b><i>5%</i>` parts the
    /// two by style, so they are never joined.
    fn part(&mut self, name: &str) {
        if BLOCK_ELEMENTS.iter().any(|block| block.eq_ignore_ascii_case(name)) {
            self.text.end_line();
        } else if !name.eq_ignore_ascii_case("wbr") {
            self.text.space();
        }
    }
}

fn is_name_end(c: char) -> bool {
    c.is_ascii_whitespace() || matches!(c, '/' | '>')
}

/// What follows a comment, of which `<!--` is read.
fn after_comment(comment: &str) -> &str {
    if let Some(rest) = comment.strip_prefix('>').or_else(|| comment.strip_prefix("->")) {
        return rest;
    }
    let mut rest = comment;
    while let Some(dashes) = rest.find("--") {
        let end = &rest[dashes + 2..];
        if let Some(after) = end.strip_prefix('>').or_else(|| end.strip_prefix("!>")) {
            return after;
        }
        // One step only: in `--->` the second dash begins the end.
        rest = &rest[dashes + 1..];
    }
    ""
}

/// Bytes from the end of a tag's name to its end, if the page has it. A `>` in a quoted value is
/// part of the value.
fn tag_length(bytes: &[u8]) -> Option<usize> {
    enum State {
        BeforeName,
        Name,
        AfterName,
        BeforeValue,
        Unquoted,
        Quoted(u8),
    }
    let mut state = State::BeforeName;
    for (index, byte) in bytes.iter().enumerate() {
        state = match (state, *byte) {
            (State::Quoted(quote), byte) if byte == quote => State::BeforeName,
            (State::Quoted(quote), _) => State::Quoted(quote),
            (_, b'>') => return Some(index + 1),
            (State::BeforeValue, b'"' | b'\'') => State::Quoted(*byte),
            (State::BeforeValue, byte) if byte.is_ascii_whitespace() => State::BeforeValue,
            (State::Name | State::AfterName, b'=') => State::BeforeValue,
            (State::Name | State::AfterName, byte) if byte.is_ascii_whitespace() => State::AfterName,
            (State::Unquoted | State::BeforeName, byte) if byte.is_ascii_whitespace() => State::BeforeName,
            (State::Name | State::AfterName | State::BeforeName, b'/') => State::BeforeName,
            (State::BeforeValue | State::Unquoted, _) => State::Unquoted,
            (State::Name | State::AfterName | State::BeforeName, _) => State::Name,
        };
    }
    None
}

/// What follows the content of a raw element: its end tag, or nothing.
fn after_raw<'a>(content: &'a str, name: &str) -> &'a str {
    let is_script = name.eq_ignore_ascii_case("script");
    let opens = |tag: &str, head: &str| {
        let after = tag.strip_prefix(head)?.split_at_checked(name.len())?;
        (after.0.eq_ignore_ascii_case(name) && after.1.starts_with(is_name_end)).then_some(())
    };
    // In a script, `<!--` and then `<script` make the next `</script` no end of it: old pages hide
    // `document.write("<script ...></script>")` that way.
    let (mut in_comment, mut in_inner_script) = (false, false);
    let mut rest = content;
    while let Some(at) = rest.find(['<', '-']) {
        rest = &rest[at..];
        if is_script && rest.starts_with("-->") {
            (in_comment, in_inner_script) = (false, false);
        } else if is_script && !in_comment && rest.starts_with("<!--") {
            in_comment = true;
            // Its dashes may be those of `-->` too.
            rest = &rest[1..];
        } else if opens(rest, "</").is_some() {
            if !in_inner_script {
                return rest;
            }
            in_inner_script = false;
        } else if in_comment && opens(rest, "<").is_some() {
            in_inner_script = true;
        }
        rest = &rest[1..];
    }
    ""
}

/// Lines of text with single spaces.
#[derive(Default)]
struct Text(String);

impl Text {
    fn push(&mut self, html: &str, is_pre: bool) {
        let mut rest = html;
        while let Some(c) = rest.chars().next() {
            let (decoded, length) = if c == '&' { entity(rest) } else { None }.unwrap_or((c, c.len_utf8()));
            rest = &rest[length..];
            match decoded {
                '\n' if is_pre => self.end_line(),
                // Whatever ends a line of text does not end one of HTML.
                c if c.is_ascii_whitespace() || matches!(c, '\u{b}' | '\u{85}' | '\u{2028}' | '\u{2029}') => {
                    self.space();
                }
                c => self.0.push(c),
            }
        }
    }

    fn space(&mut self) {
        if !self.0.is_empty() && !self.0.ends_with([' ', '\n']) {
            self.0.push(' ');
        }
    }

    fn end_line(&mut self) {
        if self.0.ends_with(' ') {
            self.0.pop();
        }
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push('\n');
        }
    }
}

/// The character that an entity at the head of `text` stands for, and the entity's length.
fn entity(text: &str) -> Option<(char, usize)> {
    let length = 1 + text.bytes().take(ENTITY_BYTES_MAX).position(|byte| byte == b';')?;
    let name = &text[1..length - 1];
    let decoded = match name.strip_prefix('#') {
        None => ENTITIES.iter().find(|(known, _)| *known == name)?.1,
        Some(number) => {
            let (digits, radix) = match number.strip_prefix(['x', 'X']) {
                Some(hex) => (hex, 16),
                None => (number, 10),
            };
            if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
                return None;
            }
            let code = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
            char::from_u32(code).filter(|c| *c != '\0').unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    };
    Some((decoded, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scraper::Html;

    use super::*;

    #[test]
    fn html_begins_with_a_tag() {
        let check = |page: &str, expect: bool| assert_eq!(is_html(page), expect, "{page}");
        for page in ["<!DOCTYPE html>", "\n <html>", "<p", "</p>", "<!-- a -->", "<?xml version='1.0'?>"] {
            check(page, true);
        }
        for page in ["", "<", "< p>", "<3 <p>", "text <p>", "\u{2022} KGS/USD = 1 0%"] {
            check(page, false);
        }
    }

    #[test]
    fn text_of_markup() {
        let check = |html: &str, expect: &str| assert_eq!(html_text(html), expect, "{html}");
        check("<ul><li>a</li><li>b</li></ul>", "a\nb\n");
        check("a<br>b<BR/>c", "a\nb\nc");
        check("a\n  b\t c", "a b c");
        check("<pre>a\n  b</pre>\nc\nd", "a\nb\nc d");
        check("<b>0.01</b><i>5%</i>", "0.01 5% ");
        check("<td>a</td><td>b</td>", "a b ");
        check("KGS<!-- -->/<wbr>USD", "KGS/USD");
        check("a<!-->b<!--->c<!-- -- > --!>d<!-- > --->e", "abcde");
        check("a<!x>b<?y>c</ z>d</>e", "abcde");
        check("1 < 2 <3 <", "1 < 2 <3 <");
        check("<a title='>' href=\"x>y\" data-x=a'b>t</a>", "t ");
        check("<a title=\"never closed>text", "");
        check("a<b", "a");
        check("<script>x</scriptx></SCRIPT >a", "a");
        check("<script><!-- <script>x</script> y --></script>a", "a");
        check("<script><!-- x --></script>a", "a");
        check("<style>x</style a=b>a<title>x</title>b<textarea>x</textarea>c", "a\nb c");
        check("<script>never closed", "");
        check("<svg><title/><path d='x'/></svg>a", "a");
        check("<template><p>x<template>y</template>z</template>a", "a");
    }

    #[test]
    fn entities() {
        let check = |html: &str, expect: &str| assert_eq!(html_text(html), expect, "{html}");
        check("KGS&#47;USD &equals; 1&nbsp;&minus;0&percnt;", "KGS/USD = 1\u{a0}\u{2212}0%");
        check("&#x2212;&#X25;&#37;", "\u{2212}%%");
        check("&amp;#37;", "&#37;");
        check("&lt;b&gt;", "<b>");
        check("&#0;&#xD800;&#99999999999;", "\u{fffd}\u{fffd}&#99999999999;");
        check("&#37 & &; &#; &#x; &#+1; &eacute; &", "&#37 & &; &#; &#x; &#+1; &eacute; &");
        check("a&#10;&#x2028;b", "a b");
    }

    #[test]
    fn pages_made_to_hurt_take_linear_time() {
        let repeat = |piece: &str| piece.repeat(4 * 1024 * 1024 / piece.len());
        let attributes = (0..400_000).map(|index| format!(" a{index}")).collect::<Vec<_>>().concat();
        for page in [
            repeat("<div>"),
            repeat("<b><p>"),
            repeat("<table>"),
            repeat("</p>"),
            repeat("<!-"),
            repeat("<!--"),
            repeat("-->"),
            repeat("<script>"),
            repeat("<script><!--"),
            repeat("<svg>"),
            repeat("&"),
            repeat("<"),
            repeat("</"),
            repeat("<a '"),
            format!("<!--{}", repeat("--")),
            format!("<script>{}", repeat("</script")),
            format!("<a{attributes}>"),
        ] {
            // No clock is needed: steps that grow with the square of 4 MiB would take hours.
            assert!(html_text(&page).len() <= page.len(), "{}", &page[..20]);
        }
    }

    /// What a whole parser shows, spaces apart.
    fn reference(html: &str) -> String {
        let document = Html::parse_fragment(html);
        let is_raw = |name: &str| RAW_ELEMENTS.contains(&name);
        let texts = document.tree.nodes().filter_map(|node| node.value().as_text().map(|text| (node, text)));
        texts
            .filter(|(node, _)| {
                !node.ancestors().any(|above| above.value().as_element().is_some_and(|element| is_raw(element.name())))
            })
            .flat_map(|(_, text)| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<_>>())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_text_is_that_of_a_whole_parser(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "<div>", "</div>", "<span>", "</span>", "<!--", "-->", "--!>", "-", "!", "<!", "<?", "<", ">", "\"", "'",
                    "=", " ", "/", "a", "x", "\n", "</", "<a href=", "<a title=\"", "<i a='", "<script>", "</script>",
                    "<style>", "</style>", "<script", "&amp;", "&#37;", "&minus;", "&nbsp;", "1",
                ]),
                0..24,
            ),
        ) {
            let html = pieces.concat();
            let text: String = html_text(&html).chars().filter(|c| !c.is_whitespace()).collect();
            prop_assert_eq!(text, reference(&html), "{}", html);
        }

        #[test]
        fn anything_has_a_text(html in any::<String>(), soup in "[<>/!a-c&;#x0-9'\"= -]{0,64}") {
            html_text(&html);
            html_text(&soup);
        }
    }
}
