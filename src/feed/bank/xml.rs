//! XML as a small tree, with limits on all that can grow.
//!
//! **Invariant**: a tree is of a whole document. Nothing is expanded but character references and the five entities
//! of XML itself, so that no text is longer than its source; a document type is refused unread. Time and memory are
//! linear in the text.

use quick_xml::errors::{Error, SyntaxError};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::error::BankError;
use crate::domain::truncate_for_display;

/// Deepest nesting read; tables have three or four levels.
const DEPTH_MAX: usize = 16;
/// Most elements read; tables have some 450.
const ELEMENTS_MAX: usize = 16_384;
/// Longest tag read. Attributes are looked for twice over, which costs the square of their number.
const TAG_BYTES_MAX: usize = 4_096;

/// An element and all in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    /// All text directly in it.
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The children of a name, in order.
    pub(super) fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// Reads a document whose root is called `root`.
pub(super) fn parse(text: &str, root: &'static str) -> Result<Element, BankError> {
    let mut reader = Reader::from_str(text);
    let mut tree = Tree { expected: root, root: None, open: Vec::new(), elements: 0 };
    let mut is_first = true;
    loop {
        let start = offset(reader.buffer_position());
        let event = match reader.read_event() {
            Ok(Event::Eof) => return tree.finish(),
            Ok(event) => event,
            Err(error) => {
                let rest = text.get(start..).unwrap_or_default();
                return Err(if is_cut(&error, rest) {
                    BankError::Truncated { within: truncate_for_display(rest) }
                } else {
                    malformed(start, error.to_string())
                });
            }
        };
        tree.take(&event, start, is_first)?;
        is_first = false;
    }
}

fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// Whether a piece of markup is bad only because the text ends before it does.
fn is_cut(error: &Error, rest: &str) -> bool {
    match error {
        Error::Syntax(SyntaxError::InvalidBangMarkup)
        | Error::IllFormed(_)
        | Error::Escape(_)
        | Error::InvalidAttr(_) => !rest.contains('>'),
        // All others are of something that does not close before the end.
        Error::Syntax(_) => true,
        Error::Io(_) | Error::Encoding(_) | Error::Namespace(_) => false,
    }
}

fn malformed(offset: usize, problem: impl Into<String>) -> BankError {
    BankError::Malformed { offset, problem: problem.into() }
}

struct Tree {
    expected: &'static str,
    root: Option<Element>,
    /// From the root inwards.
    open: Vec<Element>,
    elements: usize,
}

impl Tree {
    fn take(&mut self, event: &Event<'_>, at: usize, is_first: bool) -> Result<(), BankError> {
        match event {
            Event::Start(tag) => self.start(tag, at),
            Event::Empty(tag) => self.start(tag, at).map(|()| self.end()),
            // The reader has compared its name.
            Event::End(_) => {
                self.end();
                Ok(())
            }
            Event::Text(text) => self.text(&text.xml10_content(), at),
            Event::CData(text) => self.text(&text.xml10_content(), at),
            Event::GeneralRef(reference) => {
                let character = resolve(reference).ok_or_else(|| malformed(at, "an entity that XML does not know"))?;
                self.text(character.encode_utf8(&mut [0; 4]), at)
            }
            Event::Decl(_) if is_first => Ok(()),
            Event::Decl(_) => Err(malformed(at, "a second XML declaration")),
            Event::DocType(_) => Err(BankError::DocumentType),
            Event::Comment(_) | Event::PI(_) | Event::Eof => Ok(()),
        }
    }

    fn start(&mut self, tag: &BytesStart<'_>, at: usize) -> Result<(), BankError> {
        self.elements += 1;
        for (what, found, max) in [
            ("bytes in a tag", tag.len(), TAG_BYTES_MAX),
            ("elements", self.elements, ELEMENTS_MAX),
            ("elements in one another", self.open.len() + 1, DEPTH_MAX),
        ] {
            if found > max {
                return Err(BankError::TooMuch { what, max });
            }
        }
        let name = tag.name().as_ref().to_owned();
        if self.root.is_some() {
            return Err(malformed(at, "a second root"));
        }
        if self.open.is_empty() && name != self.expected {
            return Err(BankError::WrongRoot { expected: self.expected, found: truncate_for_display(&name) });
        }
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| malformed(at, error.to_string()))?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_err(|error| malformed(at, error.to_string()))?;
            attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
        }
        self.open.push(Element { name, attributes, ..Element::default() });
        Ok(())
    }

    fn end(&mut self) {
        if let Some(element) = self.open.pop() {
            match self.open.last_mut() {
                Some(parent) => parent.children.push(element),
                None => self.root = Some(element),
            }
        }
    }

    fn text(&mut self, text: &str, at: usize) -> Result<(), BankError> {
        match self.open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err(malformed(at, "text outside the root")),
        }
        Ok(())
    }

    fn finish(self) -> Result<Element, BankError> {
        match (self.open.last(), self.root) {
            (Some(open), _) => Err(BankError::Truncated { within: format!("<{}>", truncate_for_display(&open.name)) }),
            (None, Some(root)) => Ok(root),
            (None, None) => Err(BankError::Truncated { within: "what stands before the table".to_owned() }),
        }
    }
}

fn resolve(reference: &BytesRef<'_>) -> Option<char> {
    match &**reference {
        "amp" => Some('&'),
        "apos" => Some('\''),
        "gt" => Some('>'),
        "lt" => Some('<'),
        "quot" => Some('"'),
        _ => reference.resolve_char_ref().ok().flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name[attribute=value](text;children)`
    fn shown(element: &Element) -> String {
        let mut shown = element.name.clone();
        for (name, value) in &element.attributes {
            shown.extend(["[", name, "=", value, "]"]);
        }
        shown.extend(["(", element.text.trim(), ";"]);
        shown.extend(element.children.iter().map(self::shown));
        shown + ")"
    }

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let answer = parse(text, "r").map_or_else(|error| error.to_string(), |root| shown(&root));
        assert!(answer.contains(expect), "{text}: {answer}");
    }

    #[test]
    fn whole_documents() {
        check("<r/>", "r(;)");
        check(
            "<?xml version='1.0'?>\r\n<!-- a --><r a='1' b=\"2 &amp; 3\"><v>8<!-- -->7</v><w/></r>\n<!-- b -->",
            "r[a=1][b=2 & 3](;v(87;)w(;))",
        );
        check("<r>&#56;&#x37;&lt;<![CDATA[&x;]]></r>", "r(87<&x;;)");
        check("<r><?php echo ?></r>", "r(;)");
    }

    #[test]
    fn what_is_cut_is_truncated() {
        let whole = "<?xml version='1.0'?><r a='1'><v>87</v><![CDATA[x]]><!-- y --></r>";
        for end in whole.find("<r").unwrap()..whole.len() {
            let answer = parse(&whole[..end], "r");
            assert!(matches!(answer, Err(BankError::Truncated { .. })), "{end}: {answer:?}");
        }
        check("<r><v>87", "ends within <v>");
        check("<r><v>87</", "ends within </");
        check("<!-- only -->", "what stands before the table");
    }

    #[test]
    fn entities_never_expand() {
        let bomb = "<!DOCTYPE r [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;'>]><r>&b;</r>";
        check(bomb, "declares a document type");
        check("<!DOCTYPE r SYSTEM 'file:///etc/passwd'><r/>", "declares a document type");
        check("<r>&a;</r>", "an entity that XML does not know");
        check("<r a='&a;'/>", "broken at byte 0");
        // Not even where the document type comes late, and refused too.
        check("<r><!DOCTYPE r [<!ENTITY a 'b'>]>&a;</r>", "declares a document type");
    }

    #[test]
    fn what_is_broken() {
        check("<s/>", "the root is <s>, and <r> was expected");
        check("<r/><r/>", "a second root");
        check("<r/>x", "text outside the root");
        check("<r></s></r>", "broken at byte 3");
        check("<r a='1' a='2'/>", "broken at byte 0");
        check("<r>a & b</r>", "broken at byte");
        check("<r>&#0;</r>", "an entity that XML does not know");
        check("<r><?xml version='1.0'?></r>", "a second XML declaration");
    }

    #[test]
    fn all_that_can_grow_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "<r>".repeat(depth), "</r>".repeat(depth));
        check(&nested(DEPTH_MAX), "r(;");
        check(&nested(DEPTH_MAX + 1), "over 16 elements in one another");
        check(&"<r>".repeat(100_000), "over 16 elements in one another");
        check(&format!("<r>{}</r>", "<v/>".repeat(ELEMENTS_MAX)), "over 16384 elements");
        check(&format!("<r a='{}'/>", "x".repeat(TAG_BYTES_MAX)), "over 4096 bytes in a tag");
    }
}
