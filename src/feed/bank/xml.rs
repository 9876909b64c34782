//! Parser of XML to a small tree, with limits on everything that can grow.
//!
//! **Invariant**: a tree always represents a complete document. The parser expands only character references and the
//! five predefined entities of XML, so no text is longer than its source. A document type is refused without reading
//! it. Time and memory are linear in the length of the text.

use quick_xml::errors::{Error, SyntaxError};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::error::BankError;
use crate::domain::truncate_for_display;

/// Maximum depth of nested elements. Tables have three or four levels.
const DEPTH_MAX: usize = 16;
/// Maximum number of elements of a document. Tables have about 450.
const ELEMENTS_MAX: usize = 16_384;
/// Maximum length of a tag, in bytes. The check for duplicate attributes takes quadratic time in the number of
/// attributes.
const TAG_BYTES_MAX: usize = 4_096;

/// An element with its content.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    /// Names and values of the attributes.
    pub(super) attributes: Vec<(String, String)>,
    /// Text directly in the element, without the text of its children.
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// Returns the children with a name, in document order.
    pub(super) fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// Parses a document. Its root element must have the name `root`.
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
                return Err(if is_truncation(&error, rest) {
                    BankError::Truncated { within: truncate_for_display(rest) }
                } else {
                    malformed(start, error.to_string())
                });
            }
        };
        tree.add(&event, start, is_first)?;
        is_first = false;
    }
}

fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// Returns true if markup is invalid only because the text ends before the markup does.
fn is_truncation(error: &Error, rest: &str) -> bool {
    match error {
        Error::Syntax(SyntaxError::InvalidBangMarkup)
        | Error::IllFormed(_)
        | Error::Escape(_)
        | Error::InvalidAttr(_) => !rest.contains('>'),
        // All other syntax errors are about markup without an end.
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
    /// Open elements, from the root to the innermost one.
    open: Vec<Element>,
    /// Number of elements so far.
    elements: usize,
}

impl Tree {
    fn add(&mut self, event: &Event<'_>, at: usize, is_first: bool) -> Result<(), BankError> {
        match event {
            Event::Start(tag) => self.start(tag, at),
            Event::Empty(tag) => self.start(tag, at).map(|()| self.end()),
            // The reader has checked that the end tag matches the open element.
            Event::End(_) => {
                self.end();
                Ok(())
            }
            Event::Text(text) => self.text(&text.xml10_content(), at),
            Event::CData(text) => self.text(&text.xml10_content(), at),
            Event::GeneralRef(reference) => {
                let character = resolve(reference).ok_or_else(|| malformed(at, "unknown entity"))?;
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
            ("levels of nested elements", self.open.len() + 1, DEPTH_MAX),
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
            (None, None) => Err(BankError::Truncated { within: "the text before the root element".to_owned() }),
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

    /// Formats an element as `name[attribute=value](text;children)`.
    fn tree_text(element: &Element) -> String {
        let mut text = element.name.clone();
        for (name, value) in &element.attributes {
            text.extend(["[", name, "=", value, "]"]);
        }
        text.extend(["(", element.text.trim(), ";"]);
        text.extend(element.children.iter().map(tree_text));
        text + ")"
    }

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let answer = parse(text, "r").map_or_else(|error| error.to_string(), |root| tree_text(&root));
        assert!(answer.contains(expect), "{text}: {answer}");
    }

    #[test]
    fn document_is_parsed_to_tree() {
        check("<r/>", "r(;)");
        check(
            "<?xml version='1.0'?>\r\n<!-- a --><r a='1' b=\"2 &amp; 3\"><v>8<!-- -->7</v><w/></r>\n<!-- b -->",
            "r[a=1][b=2 & 3](;v(87;)w(;))",
        );
        check("<r>&#56;&#x37;&lt;<![CDATA[&x;]]></r>", "r(87<&x;;)");
        check("<r><?php echo ?></r>", "r(;)");
    }

    #[test]
    fn truncated_document_is_refused() {
        let whole = "<?xml version='1.0'?><r a='1'><v>87</v><![CDATA[x]]><!-- y --></r>";
        for end in whole.find("<r").unwrap()..whole.len() {
            let answer = parse(&whole[..end], "r");
            assert!(matches!(answer, Err(BankError::Truncated { .. })), "{end}: {answer:?}");
        }
        check("<r><v>87", "ends within <v>");
        check("<r><v>87</", "ends within </");
        check("<!-- only -->", "the text before the root element");
    }

    #[test]
    fn entities_never_expand() {
        let bomb = "<!DOCTYPE r [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;'>]><r>&b;</r>";
        check(bomb, "declares a document type");
        check("<!DOCTYPE r SYSTEM 'file:///etc/passwd'><r/>", "declares a document type");
        check("<r>&a;</r>", "unknown entity");
        check("<r a='&a;'/>", "malformed at byte 0");
        // A document type after the root's start tag is refused too.
        check("<r><!DOCTYPE r [<!ENTITY a 'b'>]>&a;</r>", "declares a document type");
    }

    #[test]
    fn malformed_document_is_refused() {
        check("<s/>", "the root element is <s> instead of <r>");
        check("<r/><r/>", "a second root");
        check("<r/>x", "text outside the root");
        check("<r></s></r>", "malformed at byte 3");
        check("<r a='1' a='2'/>", "malformed at byte 0");
        check("<r>a & b</r>", "malformed at byte");
        check("<r>&#0;</r>", "unknown entity");
        check("<r><?xml version='1.0'?></r>", "a second XML declaration");
    }

    #[test]
    fn document_beyond_a_limit_is_refused() {
        let nested = |depth: usize| format!("{}{}", "<r>".repeat(depth), "</r>".repeat(depth));
        check(&nested(DEPTH_MAX), "r(;");
        check(&nested(DEPTH_MAX + 1), "more than 16 levels of nested elements");
        check(&"<r>".repeat(100_000), "more than 16 levels of nested elements");
        check(&format!("<r>{}</r>", "<v/>".repeat(ELEMENTS_MAX)), "more than 16384 elements");
        check(&format!("<r a='{}'/>", "x".repeat(TAG_BYTES_MAX)), "more than 4096 bytes in a tag");
    }
}
