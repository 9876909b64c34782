//! The text of an HTML page, as far as a ticker needs it.
//!
//! `html5gum` makes tokens of the markup, as the HTML standard says, without a tree. What is ours is
//! what they mean for a ticker: block elements end lines, other tags part words; comments,
//! attributes, scripts, styles and templates are left out. A tree would not serve: building one
//! costs depth times tags, and formatting elements left open multiply by the blocks that follow, so
//! that a few megabytes cost minutes or all memory.
//!
//! **Invariant**: time and memory are linear in the page, the stack does not grow with nesting, and
//! a page cut off anywhere shows no text that the whole hides.

use std::mem;

use html5gum::emitters::callback::{Callback, CallbackEmitter, CallbackEvent};
use html5gum::{Span, State, Tokenizer};

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

/// Bytes at the page's end among which an entity without its semicolon counts as broken off; longer
/// than any entity that could be part of a quote.
const BROKEN_ENTITY_BYTES_MAX: usize = 32;

/// Whether the page is HTML: its first visible character opens a tag, a comment or a declaration.
///
/// The beginning alone decides, so that no article that quotes a tag turns a text into markup.
pub(super) fn is_html(page: &str) -> bool {
    let mut head = page.trim_start().chars();
    head.next() == Some('<') && head.next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '!' | '/' | '?'))
}

/// The text of an HTML page.
pub(super) fn html_text(html: &str) -> String {
    let html = without_broken_entity(html);
    let mut reader = Reader::default();
    let mut tokenizer = Tokenizer::new_with_emitter(html, CallbackEmitter::new(Tokens::default()));
    while let Some(Ok(token)) = tokenizer.next() {
        if let Some(state) = reader.read(&token) {
            tokenizer.set_state(state);
        }
    }
    reader.text.0
}

/// The page without an entity that its end breaks off: `5&#37` may have been going to be `5&#375;`.
fn without_broken_entity(html: &str) -> &str {
    match html.rfind('&') {
        Some(at) if html.len() - at <= BROKEN_ENTITY_BYTES_MAX && !html[at..].contains(';') => {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '#';
            if html[at + 1..].chars().all(is_part) { &html[..at] } else { html }
        }
        _ => html,
    }
}

/// What of a page's markup is looked at.
enum Token {
    Text(String),
    /// A start tag; its name is in lower case.
    Start {
        name: String,
        is_closed: bool,
    },
    End {
        name: String,
    },
}

/// Turns the tokenizer's events into tokens. Attributes are passed over, however many there are.
#[derive(Default)]
struct Tokens {
    /// Name of the tag being read.
    open: String,
}

impl Callback<Token, ()> for Tokens {
    fn handle_event(&mut self, event: CallbackEvent<'_>, _: Span<()>) -> Option<Token> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match event {
            CallbackEvent::String { value } => Some(Token::Text(text(value))),
            CallbackEvent::OpenStartTag { name } => {
                self.open = text(name);
                None
            }
            CallbackEvent::CloseStartTag { self_closing } => {
                Some(Token::Start { name: mem::take(&mut self.open), is_closed: self_closing })
            }
            CallbackEvent::EndTag { name } => Some(Token::End { name: text(name) }),
            CallbackEvent::AttributeName { .. }
            | CallbackEvent::AttributeValue { .. }
            | CallbackEvent::Comment { .. }
            | CallbackEvent::Doctype { .. }
            | CallbackEvent::Error(_) => None,
        }
    }
}

#[derive(Default)]
struct Reader {
    text: Text,
    /// Whether a raw element is open; the tokenizer knows which.
    in_raw: bool,
    /// How many `pre` are open, in which line ends count.
    pre_depth: u32,
    /// How many `template` are open, of which nothing is shown.
    hidden_depth: u32,
    /// How many `svg` and `math` are open, in which `<title/>` is whole.
    foreign_depth: u32,
}

impl Reader {
    /// Takes in a token. Gives how to read on, where the tag says so.
    fn read(&mut self, token: &Token) -> Option<State> {
        match token {
            Token::Text(text) => {
                if !self.in_raw && self.hidden_depth == 0 {
                    self.text.push(text, self.pre_depth > 0);
                }
                None
            }
            Token::Start { name, is_closed } => {
                let is_foreign = matches!(name.as_str(), "svg" | "math");
                self.count_open(name, i32::from(!(is_foreign && *is_closed)));
                self.part(name);
                let state = raw_state(name).filter(|_| !(*is_closed && self.foreign_depth > 0));
                self.in_raw = state.is_some();
                state
            }
            Token::End { name } => {
                self.in_raw = false;
                self.count_open(name, -1);
                self.part(name);
                None
            }
        }
    }

    fn count_open(&mut self, name: &str, more: i32) {
        let depth = match name {
            "pre" => &mut self.pre_depth,
            "template" => &mut self.hidden_depth,
            "svg" | "math" => &mut self.foreign_depth,
            _ => return,
        };
        *depth = depth.saturating_add_signed(more);
    }

    /// What a tag does to the text around it: a page that shows `<b>0.01</b><i>5%</i>` parts the
    /// two by style, so they are never joined.
    fn part(&mut self, name: &str) {
        if self.hidden_depth > 0 {
            return;
        }
        if BLOCK_ELEMENTS.contains(&name) {
            self.text.end_line();
        } else if name != "wbr" {
            self.text.space();
        }
    }
}

/// How the content of a raw element is read.
fn raw_state(name: &str) -> Option<State> {
    match name {
        "script" => Some(State::ScriptData),
        "title" | "textarea" => Some(State::RcData),
        _ => RAW_ELEMENTS.contains(&name).then_some(State::RawText),
    }
}

/// Lines of text with single spaces.
#[derive(Default)]
struct Text(String);

impl Text {
    fn push(&mut self, text: &str, is_pre: bool) {
        for c in text.chars() {
            match c {
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
        check("&#0;&#xD800;&#99999999999;", "\u{fffd}\u{fffd}\u{fffd}");
        check("&#37 & &; &#; &#x; &#+1; &eacute; &nosuch; &.", "% & &; &#; &#x; &#+1; \u{e9} &nosuch; &.");
        check("a&#10;&#x2028;b", "a b");
    }

    #[test]
    fn an_entity_that_the_end_of_the_page_breaks_off_is_no_text() {
        let check = |html: &str, expect: &str| assert_eq!(html_text(html), expect, "{html}");
        check("5&#375;", "5\u{177}");
        check("5&#37", "5");
        check("5&min", "5");
        check("5&", "5");
        check("5&#37 ", "5% ");
        check("R&D <b>", "R&D ");
    }

    #[test]
    fn pages_made_to_hurt_take_linear_time() {
        let repeat = |piece: &str| piece.repeat(1024 * 1024 / piece.len());
        let attributes = (0..100_000).map(|index| format!(" a{index}")).collect::<Vec<_>>().concat();
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
            format!("</a{attributes}>"),
            format!("{}KGS{}", "<div>".repeat(100_000), "</div>".repeat(100_000)),
        ] {
            // No clock is needed: steps that grow with the square of 1 MiB would take hours.
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
                    "<style>", "</style>", "<script", "&amp;", "&#37;", "&minus;", "&nbsp;", "&#37", "&lt", "1",
                ]),
                0..24,
            ),
        ) {
            // Not an entity's beginning at the end: that is cut off here and read there.
            let html = pieces.concat() + " ";
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
