//! The body of an answer as a filter sees it: JSON, lines of JSON, XML or plain text, as
//! `ask.answer` says.
//!
//! Promise: whatever arrives, a value comes out, bounded like every JSON answer (`json`): at most
//! 128 levels and 20,000 values. A body of another kind than the file says is [`Unread`]: the
//! filter then sees its length and hash, and nothing that it could take for an answer. XML:
//! entities other than the five of XML itself and characters by number are refused, so that no
//! document can grow.

use jaq_json::Val;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};
use serde::{Deserialize, Serialize};

use super::json::{self, JsonError, VALUES_MAX};

/// How deep XML may be.
const LEVELS_MAX: usize = 128;

/// What the body of an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// JSON.
    #[default]
    Json,
    /// One JSON value in each line; the filter sees a list.
    Ndjson,
    /// XML; the filter sees the root element.
    Xml,
    /// Text; the filter sees it as it is.
    Text,
}

/// Why a body is not what the file says.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is something else: the filter sees its length and hash.
    Other(String),
    /// It has more values than any honest answer: no filter sees it.
    TooMany(String),
}

impl From<JsonError> for Unread {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::TooMany => Self::TooMany(error.to_string()),
            JsonError::Syntax(_) => Self::Other(error.to_string()),
        }
    }
}

fn too_many(what: &str) -> Unread {
    Unread::TooMany(format!("{what} of more than {VALUES_MAX} values"))
}

impl Shape {
    /// The body as a filter sees it.
    pub(super) fn parse(self, body: &[u8]) -> Result<Val, Unread> {
        match self {
            Self::Json => Ok(json::parse(body)?),
            Self::Ndjson => lines(body),
            Self::Xml => xml(body),
            Self::Text => match std::str::from_utf8(body) {
                Ok(text) => Ok(Val::from(text.to_owned())),
                Err(_) => Err(Unread::Other("no UTF-8 text".to_owned())),
            },
        }
    }
}

/// A list of the values, one of each line that is not empty.
fn lines(body: &[u8]) -> Result<Val, Unread> {
    let mut values = Vec::new();
    let mut count = 1;
    for line in body.split(|byte| *byte == b'\n') {
        if line.trim_ascii().is_empty() {
            continue;
        }
        count += json::values(line);
        if count > VALUES_MAX {
            return Err(too_many("NDJSON"));
        }
        values.push(json::parse(line)?);
    }
    Ok(values.into_iter().collect())
}

/// An element under way.
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Val>,
}

impl Element {
    fn new(start: &BytesStart<'_>) -> Result<Self, Unread> {
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| no_xml(&error))?;
            let name = utf8(attribute.key.as_ref())?;
            let raw = utf8(&attribute.value)?;
            let value = quick_xml::escape::unescape(&raw).map_err(|error| no_xml(&error))?;
            attributes.push((name, value.into_owned()));
        }
        Ok(Self { name: utf8(start.name().as_ref())?, attributes, text: String::new(), children: Vec::new() })
    }

    /// `{name, attributes, text, children}`.
    fn close(self) -> Val {
        let object = |entries: Vec<(String, Val)>| {
            Val::obj(entries.into_iter().map(|(key, value)| (Val::from(key), value)).collect())
        };
        let attributes = self.attributes.into_iter().map(|(name, value)| (name, Val::from(value))).collect();
        object(vec![
            ("name".to_owned(), Val::from(self.name)),
            ("attributes".to_owned(), object(attributes)),
            ("text".to_owned(), Val::from(self.text.trim().to_owned())),
            ("children".to_owned(), self.children.into_iter().collect()),
        ])
    }
}

fn utf8(bytes: &[u8]) -> Result<String, Unread> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Unread::Other("no XML in UTF-8".to_owned()))
}

fn no_xml(error: &impl std::fmt::Display) -> Unread {
    Unread::Other(format!("no XML: {error}"))
}

/// The root element.
fn xml(body: &[u8]) -> Result<Val, Unread> {
    let mut reader = Reader::from_reader(body);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut count = 0;
    loop {
        let event = reader.read_event().map_err(|error| no_xml(&error))?;
        let closed = match event {
            Event::Start(start) => {
                let element = Element::new(&start)?;
                // The element's own four values, and two for each attribute.
                count += 8 + 2 * element.attributes.len();
                open.push(element);
                None
            }
            Event::Empty(start) => {
                let element = Element::new(&start)?;
                count += 8 + 2 * element.attributes.len();
                Some(element)
            }
            Event::End(_) => open.pop(),
            Event::Text(text) => {
                let text = utf8(&text)?;
                match open.last_mut() {
                    Some(element) => element.text.push_str(&text),
                    None if text.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']).is_empty() => {}
                    None => return Err(no_xml(&"text outside of the root element")),
                }
                None
            }
            Event::CData(text) => {
                let text = utf8(&text)?;
                open.last_mut()
                    .ok_or_else(|| no_xml(&"text outside of the root element"))?
                    .text
                    .push_str(&text);
                None
            }
            Event::GeneralRef(name) => {
                let element = open.last_mut().ok_or_else(|| no_xml(&"text outside of the root element"))?;
                if let Some(character) = name.resolve_char_ref().map_err(|error| no_xml(&error))? {
                    element.text.push(character);
                } else {
                    let name = utf8(&name)?;
                    let text = resolve_xml_entity(&name).ok_or_else(|| no_xml(&"an entity of its own"))?;
                    element.text.push_str(text);
                }
                None
            }
            Event::Eof if open.is_empty() => return root.ok_or_else(|| no_xml(&"there is no element")),
            Event::Eof => return Err(no_xml(&"it ends in the middle of an element")),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => None,
        };
        if count > VALUES_MAX {
            return Err(too_many("XML"));
        }
        if open.len() > LEVELS_MAX {
            return Err(no_xml(&"more than 128 levels"));
        }
        let Some(element) = closed.map(Element::close) else { continue };
        match open.last_mut() {
            Some(parent) => parent.children.push(element),
            None if root.is_none() => root = Some(element),
            None => return Err(no_xml(&"more than one root element")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(shape: Shape, body: &str) -> Result<serde_json::Value, Unread> {
        shape.parse(body.as_bytes()).map(|value| json::to_json(&value).unwrap())
    }

    #[test]
    fn lines_of_json_are_a_list_and_a_line_that_is_cut_is_no_answer() {
        assert_eq!(read(Shape::Ndjson, "{\"a\":1}\r\n\n[2]\n").unwrap(), serde_json::json!([{"a": 1}, [2]]));
        assert_eq!(read(Shape::Ndjson, "").unwrap(), serde_json::json!([]));
        assert!(matches!(read(Shape::Ndjson, "{\"a\":1}\n{\"a\":"), Err(Unread::Other(_))));
        let many = "[1,2]\n".repeat(VALUES_MAX / 2);
        assert!(matches!(read(Shape::Ndjson, &many), Err(Unread::TooMany(_))));
    }

    #[test]
    fn xml_is_elements_with_attributes_text_and_children() {
        let read = |body: &str| read(Shape::Xml, body);
        assert_eq!(
            read("<?xml version=\"1.0\"?>\n<Job id='7' a=\"x&amp;y\"><State>done &lt;&#33;</State><File/><![CDATA[<b>]]></Job>\n")
                .unwrap(),
            serde_json::json!({"name": "Job", "attributes": {"id": "7", "a": "x&y"}, "text": "<b>", "children": [
                {"name": "State", "attributes": {}, "text": "done <!", "children": []},
                {"name": "File", "attributes": {}, "text": "", "children": []},
            ]})
        );
        for broken in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a>&own;</a>",
            "<a b=\"&own;\"/>",
            "{\"a\": 1}",
            "</a>",
            "<a/>text",
            "<a b='1' b='2'/>",
        ] {
            assert!(matches!(read(broken), Err(Unread::Other(_))), "{broken}: {:?}", read(broken));
        }
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
        assert!(matches!(read(bomb), Err(Unread::Other(_))));
        assert!(matches!(read(&format!("<a>{}</a>", "<b/>".repeat(5000))), Err(Unread::TooMany(_))));
        assert!(matches!(read(&"<a>".repeat(200)), Err(Unread::Other(_))));
    }

    #[test]
    fn text_is_itself() {
        assert_eq!(read(Shape::Text, "DONE 7\n").unwrap(), serde_json::json!("DONE 7\n"));
        assert!(matches!(Shape::Text.parse(b"\xff"), Err(Unread::Other(_))));
    }
}
