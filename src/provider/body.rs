//! Parses the body of an answer for the filter: JSON, NDJSON, XML or plain text, as `ask.answer`
//! says.
//!
//! Every format has the limits of JSON (`json`): at most 128 levels and 20,000 values. If the body
//! has another format than the file says, the result is [`BodyError`]. The filter then sees only
//! its length and hash, which it cannot mistake for an answer. In XML, only the five predefined
//! entities and character references are permitted; otherwise entity expansion could exhaust the
//! memory.

use jaq_json::Val;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};
use serde::{Deserialize, Serialize};

use super::json::{self, JsonError, VALUES_MAX};

/// The deepest nesting of XML elements.
const LEVELS_MAX: usize = 128;

/// The format of the body of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BodyFormat {
    /// JSON.
    #[default]
    Json,
    /// One JSON value per line. The filter sees a list.
    Ndjson,
    /// XML. The filter sees the root element.
    Xml,
    /// Plain text. The filter sees a string.
    Text,
}

/// Why a body could not be parsed.
#[derive(Debug)]
pub(super) enum BodyError {
    /// It has another format. The filter sees its length and hash.
    WrongFormat(String),
    /// It has more values than any real answer. The filter is not run.
    TooManyValues(String),
}

impl From<JsonError> for BodyError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::TooMany => Self::TooManyValues(error.to_string()),
            JsonError::Syntax(_) => Self::WrongFormat(error.to_string()),
        }
    }
}

fn too_many(what: &str) -> BodyError {
    BodyError::TooManyValues(format!("{what} of more than {VALUES_MAX} values"))
}

impl BodyFormat {
    /// Parses the body into the value that the filter sees.
    pub(super) fn parse(self, body: &[u8]) -> Result<Val, BodyError> {
        match self {
            Self::Json => Ok(json::parse(body)?),
            Self::Ndjson => lines(body),
            Self::Xml => xml(body),
            Self::Text => match std::str::from_utf8(body) {
                Ok(text) => Ok(Val::from(text.to_owned())),
                Err(_) => Err(BodyError::WrongFormat("not UTF-8 text".to_owned())),
            },
        }
    }
}

/// Parses NDJSON into a list. Empty lines are skipped.
fn lines(body: &[u8]) -> Result<Val, BodyError> {
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

/// An element whose end has not been read yet.
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Val>,
}

impl Element {
    fn new(start: &BytesStart<'_>) -> Result<Self, BodyError> {
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

    /// Converts the element into `{name, attributes, text, children}`.
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

fn utf8(bytes: &[u8]) -> Result<String, BodyError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| BodyError::WrongFormat("not XML in UTF-8".to_owned()))
}

fn no_xml(error: &impl std::fmt::Display) -> BodyError {
    BodyError::WrongFormat(format!("not XML: {error}"))
}

/// Parses XML into its root element.
fn xml(body: &[u8]) -> Result<Val, BodyError> {
    let mut reader = Reader::from_reader(body);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut count = 0;
    loop {
        let event = reader.read_event().map_err(|error| no_xml(&error))?;
        let closed = match event {
            Event::Start(start) => {
                let element = Element::new(&start)?;
                // An element has four keys and four values, and two more for each attribute.
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
                    let text = resolve_xml_entity(&name).ok_or_else(|| no_xml(&"a custom entity"))?;
                    element.text.push_str(text);
                }
                None
            }
            Event::Eof if open.is_empty() => return root.ok_or_else(|| no_xml(&"it has no element")),
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

    fn read(format: BodyFormat, body: &str) -> Result<serde_json::Value, BodyError> {
        format.parse(body.as_bytes()).map(|value| json::to_json(&value).unwrap())
    }

    #[test]
    fn ndjson_is_a_list_and_a_truncated_line_is_the_wrong_format() {
        assert_eq!(
            read(BodyFormat::Ndjson, "{\"a\":1}\r\n\n[2]\n").unwrap(),
            serde_json::json!([{"a": 1}, [2]])
        );
        assert_eq!(read(BodyFormat::Ndjson, "").unwrap(), serde_json::json!([]));
        assert!(matches!(read(BodyFormat::Ndjson, "{\"a\":1}\n{\"a\":"), Err(BodyError::WrongFormat(_))));
        let many = "[1,2]\n".repeat(VALUES_MAX / 2);
        assert!(matches!(read(BodyFormat::Ndjson, &many), Err(BodyError::TooManyValues(_))));
    }

    #[test]
    fn xml_is_elements_with_attributes_text_and_children() {
        let read = |body: &str| read(BodyFormat::Xml, body);
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
            assert!(matches!(read(broken), Err(BodyError::WrongFormat(_))), "{broken}: {:?}", read(broken));
        }
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
        assert!(matches!(read(bomb), Err(BodyError::WrongFormat(_))));
        assert!(matches!(read(&format!("<a>{}</a>", "<b/>".repeat(5000))), Err(BodyError::TooManyValues(_))));
        assert!(matches!(read(&"<a>".repeat(200)), Err(BodyError::WrongFormat(_))));
    }

    #[test]
    fn text_is_a_string() {
        assert_eq!(read(BodyFormat::Text, "DONE 7\n").unwrap(), serde_json::json!("DONE 7\n"));
        assert!(matches!(BodyFormat::Text.parse(b"\xff"), Err(BodyError::WrongFormat(_))));
    }
}
