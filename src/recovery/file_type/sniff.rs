//! Detects a type from the first bytes: signatures of binary files; text, JSON, XML and HTML.

use super::super::NotOutput;
use super::{HEAD_BYTES, SVG};

/// The type of a binary file, by its signature.
pub(super) fn signature(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"glTF") {
        return Some("model/gltf-binary");
    }
    let found = infer::get(head)?;
    (found.matcher_type() != infer::MatcherType::Text).then(|| found.mime_type())
}

/// The type of a text file.
///
/// # Errors
/// The file is a web page or an error document. If the model makes text (`is_page_wanted`), a page
/// is accepted; the error document of a bucket never is.
pub(super) fn text_type(
    head: &[u8],
    declared: Option<&str>,
    is_page_wanted: bool,
) -> Result<&'static str, NotOutput> {
    let (prolog, root) = root_element(head);
    let root = root.as_deref();
    let declared = declared.unwrap_or_default();
    // Some buckets omit the XML prolog.
    if matches!(root, Some("error" | "accessdenied" | "exception")) {
        return Err(NotOutput::Xml);
    }
    if is_page_wanted {
        return Ok(if head.starts_with(b"WEBVTT") { "text/vtt" } else { plain_or_json(head) });
    }
    match root {
        Some("svg") => return Ok(SVG),
        Some("html" | "head" | "body" | "script" | "title" | "style" | "iframe" | "meta") => {
            return Err(NotOutput::Html);
        }
        Some(_) | None => {}
    }
    if matches!(declared, "text/html" | "application/xhtml+xml") {
        return Err(NotOutput::Html);
    }
    // An XML document with a specific type (a 3D scene, a caption file) may be an output.
    let own_type = declared.ends_with("+xml") && !declared.starts_with("image/");
    if matches!(declared, "text/xml" | "application/xml") || (prolog && !own_type) {
        return Err(NotOutput::Xml);
    }
    Ok(match root {
        // Markup other than a page or an image.
        Some(_) => "text/xml",
        None if head.starts_with(b"WEBVTT") => "text/vtt",
        None => plain_or_json(head),
    })
}

/// `application/json` if the text begins with a valid JSON value, else `text/plain`.
fn plain_or_json(head: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(head);
    let mut parsed = serde_json::Deserializer::from_str(&text).into_iter::<serde::de::IgnoredAny>();
    let begins = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['));
    let is_json = begins
        && match parsed.next() {
            Some(Ok(_)) => true,
            // A longer document that is cut at the end of the head.
            Some(Err(error)) => error.is_eof() && head.len() >= HEAD_BYTES,
            None => false,
        };
    if is_json { "application/json" } else { "text/plain" }
}

/// Whether text has an XML prolog (`<?xml`), and the name of its root element in lower case without
/// its namespace prefix. Comments and a document type before the root are skipped. `<!doctype
/// html>` counts as root `html`; any other document type is ignored, as in browsers.
fn root_element(head: &[u8]) -> (bool, Option<String>) {
    let text = String::from_utf8_lossy(head);
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut prolog = false;
    // Each iteration removes something from the front, so the loop ends.
    loop {
        rest = rest.trim_start();
        let Some(inner) = rest.strip_prefix('<') else { return (prolog, None) };
        let end = if inner.starts_with('?') {
            prolog |= inner.get(1..4).is_some_and(|name| name.eq_ignore_ascii_case("xml"));
            "?>"
        } else if inner.starts_with("!--") {
            "-->"
        } else if let Some(declaration) = inner.strip_prefix('!') {
            let mut words = declaration.split(|c: char| c.is_whitespace() || c == '>');
            let doctype = words.next().is_some_and(|word| word.eq_ignore_ascii_case("doctype"));
            if doctype
                && words.find(|word| !word.is_empty()).is_some_and(|root| root.eq_ignore_ascii_case("html"))
            {
                return (prolog, Some("html".to_owned()));
            }
            ">"
        } else {
            let name: String =
                inner.chars().take_while(|c| c.is_alphanumeric() || matches!(c, ':' | '-' | '_')).collect();
            let local = name.rsplit(':').next().unwrap_or_default().to_ascii_lowercase();
            return (prolog, (!local.is_empty()).then_some(local));
        };
        match rest.find(end) {
            Some(at) => rest = &rest[at + end.len()..],
            None => return (prolog, None),
        }
    }
}

/// Whether this is text: UTF-8 (perhaps cut within a character) without control characters other
/// than white space.
pub(super) fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !head.iter().any(|&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c))
}
