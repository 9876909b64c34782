//! Extraction of the text of a ticker page in HTML.
//!
//! `html5gum` splits the markup into tokens according to the HTML standard and builds no tree. This module decides what
//! the tokens mean for a ticker: block elements end lines, other tags separate words, and comments, attributes,
//! scripts, styles and templates give no text. A tree parser is not suitable. Its time grows with the nesting depth
//! times the number of tags. It also repeats each unclosed formatting element in all following blocks. A page of a few
//! megabytes can therefore take minutes, or use all memory.
//!
//! **Invariant**: time and memory are linear in the size of the page, and the stack does not grow with nesting. A
//! truncated page never gives text that the complete page hides.

use std::mem;

use html5gum::emitters::callback::{Callback, CallbackEmitter, CallbackEvent};
use html5gum::{Span, State, Tokenizer};

/// Raw elements: their content is not text of the page, and only their own end tag ends them.
const RAW_ELEMENTS: [&str; 8] = ["script", "style", "title", "textarea", "iframe", "noembed", "noframes", "xmp"];

/// Elements that start a new line of text at their start and at their end.
#[rustfmt::skip]
const BLOCK_ELEMENTS: [&str; 56] = [
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dialog", "dir",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "head", "header", "hgroup", "hr", "html", "legend", "li", "main", "marquee", "menu", "nav", "ol", "optgroup",
    "option", "p", "pre", "search", "section", "select", "summary", "table", "tbody", "template", "tfoot", "thead",
    "title", "tr", "ul", "video", "audio",
];

/// An entity without a semicolon counts as truncated if it begins at most this many bytes before the end of the page.
/// The limit is longer than every entity that can be part of a quote.
const BROKEN_ENTITY_BYTES_MAX: usize = 32;

/// Returns true if the page is HTML: its first visible character opens a tag, a comment or a declaration.
///
/// Only the beginning decides, so that a plain text with an HTML tag in an article stays plain text.
pub(super) fn is_html(page: &str) -> bool {
    let mut head = page.trim_start().chars();
    head.next() == Some('<') && head.next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '!' | '/' | '?'))
}

/// Returns the text of an HTML page.
pub(super) fn html_text(html: &str) -> String {
    let html = without_truncated_entity(html);
    let mut extractor = Extractor::default();
    let mut tokenizer = Tokenizer::new_with_emitter(html, CallbackEmitter::new(TagNames::default()));
    while let Some(Ok(token)) = tokenizer.next() {
        if let Some(state) = extractor.add(&token) {
            tokenizer.set_state(state);
        }
    }
    extractor.text.0
}

/// Removes an entity that the end of the page truncates: `5&#37` can be the beginning of `5&#375;`.
fn without_truncated_entity(html: &str) -> &str {
    match html.rfind('&') {
        Some(at) if html.len() - at <= BROKEN_ENTITY_BYTES_MAX && !html[at..].contains(';') => {
            let is_entity_char = |c: char| c.is_ascii_alphanumeric() || c == '#';
            if html[at + 1..].chars().all(is_entity_char) { &html[..at] } else { html }
        }
        _ => html,
    }
}

/// A token that matters for the text of a page.
enum Token {
    Text(String),
    /// A start tag, with its name in lower case. `is_closed` is true for `<name/>`.
    Start {
        name: String,
        is_closed: bool,
    },
    End {
        name: String,
    },
}

/// Converts events of the tokenizer to tokens. Skips attributes without storing them.
#[derive(Default)]
struct TagNames {
    /// Name of the start tag that the tokenizer is reading.
    open: String,
}

impl Callback<Token, ()> for TagNames {
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

/// Collects the text of tokens.
#[derive(Default)]
struct Extractor {
    text: Text,
    /// True inside a raw element. The tokenizer knows which element it is.
    in_raw: bool,
    /// Number of open `pre` elements, in which line ends are kept.
    pre_depth: u32,
    /// Number of open `template` elements, which give no text.
    hidden_depth: u32,
    /// Number of open `svg` and `math` elements, in which `<title/>` needs no end tag.
    foreign_depth: u32,
}

impl Extractor {
    /// Adds a token. Returns the state that the tokenizer must change to, if the tag requires it.
    fn add(&mut self, token: &Token) -> Option<State> {
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
                self.separate(name);
                let state = raw_state(name).filter(|_| !(*is_closed && self.foreign_depth > 0));
                self.in_raw = state.is_some();
                state
            }
            Token::End { name } => {
                self.in_raw = false;
                self.count_open(name, -1);
                self.separate(name);
                None
            }
        }
    }

    fn count_open(&mut self, name: &str, change: i32) {
        let depth = match name {
            "pre" => &mut self.pre_depth,
            "template" => &mut self.hidden_depth,
            "svg" | "math" => &mut self.foreign_depth,
            _ => return,
        };
        *depth = depth.saturating_add_signed(change);
    }

    /// Separates the text before and after a tag. In `<b>0.01</b><i>5%</i>` there is no space between the two numbers,
    /// but the extractor must not join them.
    fn separate(&mut self, name: &str) {
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

/// Returns the tokenizer state for the content of a raw element.
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
                // Outside `pre`, a line end in HTML is a space.
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
    fn page_is_html_if_it_begins_with_a_tag() {
        let check = |page: &str, expect: bool| assert_eq!(is_html(page), expect, "{page}");
        for page in ["<!DOCTYPE html>", "\n <html>", "<p", "</p>", "<!-- a -->", "<?xml version='1.0'?>"] {
            check(page, true);
        }
        for page in ["", "<", "< p>", "<3 <p>", "text <p>", "\u{2022} KGS/USD = 1 0%"] {
            check(page, false);
        }
    }

    #[test]
    fn block_tags_end_lines_and_other_tags_separate_words() {
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
    fn entities_are_decoded_once() {
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
    fn entity_truncated_by_the_end_of_the_page_is_removed() {
        let check = |html: &str, expect: &str| assert_eq!(html_text(html), expect, "{html}");
        check("5&#375;", "5\u{177}");
        check("5&#37", "5");
        check("5&min", "5");
        check("5&", "5");
        check("5&#37 ", "5% ");
        check("R&D <b>", "R&D ");
    }

    #[test]
    fn hostile_pages_take_linear_time() {
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
            // The test needs no clock: quadratic time for 1 MiB would take hours.
            assert!(html_text(&page).len() <= page.len(), "{}", &page[..20]);
        }
    }

    /// Returns the text that a complete HTML parser extracts, without white space.
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
        fn text_equals_that_of_a_complete_parser(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "<div>", "</div>", "<span>", "</span>", "<!--", "-->", "--!>", "-", "!", "<!", "<?", "<", ">", "\"", "'",
                    "=", " ", "/", "a", "x", "\n", "</", "<a href=", "<a title=\"", "<i a='", "<script>", "</script>",
                    "<style>", "</style>", "<script", "&amp;", "&#37;", "&minus;", "&nbsp;", "&#37", "&lt", "1",
                ]),
                0..24,
            ),
        ) {
            // The space at the end prevents a truncated entity: `html_text` removes it, the reference parser does not.
            let html = pieces.concat() + " ";
            let text: String = html_text(&html).chars().filter(|c| !c.is_whitespace()).collect();
            prop_assert_eq!(text, reference(&html), "{}", html);
        }

        #[test]
        fn any_input_is_accepted(html in any::<String>(), soup in "[<>/!a-c&;#x0-9'\"= -]{0,64}") {
            html_text(&html);
            html_text(&soup);
        }
    }
}
