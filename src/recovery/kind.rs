//! Decides from its bytes under which type a file is stored, and which files are no output at all.
//!
//! A provider, or a model's text, can name any type. A file that a browser then runs as a page
//! could act for the platform's users (stored cross-site scripting). So the stored type comes from
//! the bytes and is one of [`PASSIVE`], which no browser runs. Everything else is stored as
//! [`UNKNOWN`]; that, and SVG, which may hold scripts, is served as an attachment
//! ([`is_attachment`]). A declared type only chooses between types that the bytes allow; it is
//! recorded beside the stored one.
//!
//! An error page with HTTP status 200 is not an output: HTML, XML such as a bucket's "access
//! denied", or a JSON object with `error`. Where a model makes text, HTML may be its output and is
//! stored as `text/plain`. A file that is certainly of another kind than the model makes is no
//! output either ([`Medium`]). Quality is never judged: a short film, or one with a watermark, is
//! an output (P09, what was made is delivered).

use serde::Deserialize;

use super::NotOutput;

/// What a model makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Medium {
    /// Still pictures.
    #[serde(rename = "image")]
    Image,
    /// Films, with or without sound.
    #[serde(rename = "video")]
    Video,
    /// Sound.
    #[serde(rename = "audio")]
    Audio,
    /// Scenes and meshes.
    #[serde(rename = "3d")]
    ThreeD,
    /// Words, captions, data.
    #[serde(rename = "text")]
    Text,
}

/// What a file of this type can be; none: anything (an archive, a type that nobody knows).
fn media(content_type: &str) -> Option<&'static [Medium]> {
    use Medium::{Audio, Image, Text, ThreeD, Video};
    match content_type {
        // They move, too.
        "image/gif" | "image/webp" | "image/apng" | "image/avif" => return Some(&[Image, Video]),
        // One container for films and for sound.
        "video/mp4" | "video/webm" | "video/quicktime" | "video/x-matroska" | "video/ogg" | "video/mpeg"
        | "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "audio/webm" | "audio/ogg" | "application/ogg" => {
            return Some(&[Video, Audio]);
        }
        // A mesh may be text.
        "application/json" => return Some(&[Text, ThreeD]),
        _ => {}
    }
    match content_type.split_once('/').map(|(kind, _)| kind) {
        Some("image") => Some(&[Image]),
        Some("video") => Some(&[Video]),
        Some("audio") => Some(&[Audio]),
        Some("model") => Some(&[ThreeD]),
        Some("text") => Some(&[Text, ThreeD]),
        Some(_) | None => None,
    }
}

/// Whether a file of this type can be one of `wanted`; nothing wanted: anything will do.
fn fits(content_type: &str, wanted: &[Medium]) -> bool {
    wanted.is_empty()
        || media(content_type).is_none_or(|can_be| can_be.iter().any(|medium| wanted.contains(medium)))
}

/// The type of a file that makegood does not know, or that a browser might run.
const UNKNOWN: &str = "application/octet-stream";

/// The type of an SVG image. It may hold scripts, which run when it is opened by itself.
const SVG: &str = "image/svg+xml";

/// Types under which a file may be stored: no browser runs any of them as a page or a script.
const PASSIVE: [&str; 45] = [
    "application/gzip",
    "application/json",
    "application/ogg",
    "application/zip",
    "audio/aac",
    "audio/aiff",
    "audio/amr",
    "audio/flac",
    "audio/m4a",
    "audio/midi",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/opus",
    "audio/wav",
    "audio/wave",
    "audio/webm",
    "audio/x-flac",
    "audio/x-m4a",
    "audio/x-wav",
    "image/apng",
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/heic",
    "image/heif",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/tiff",
    "image/vnd.adobe.photoshop",
    "image/webp",
    "model/3mf",
    "model/gltf-binary",
    "model/gltf+json",
    "model/vnd.usdz+zip",
    "text/plain",
    "text/vtt",
    "video/mp4",
    "video/mpeg",
    "video/ogg",
    "video/quicktime",
    "video/webm",
    "video/x-matroska",
    "video/x-msvideo",
];

/// Whether a file of this type is to be downloaded, never shown in place.
pub(super) fn is_attachment(content_type: &str) -> bool {
    !PASSIVE.contains(&content_type)
}

/// How much of a file is looked at.
pub(super) const HEAD_BYTES: usize = 8 * 1024;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The type to record and to store.
    pub(super) content_type: String,
    /// The type by the first bytes, where they tell.
    pub(super) sniffed: Option<String>,
    /// The type by the header, where it is one.
    pub(super) declared: Option<String>,
    /// For the object's name.
    pub(super) extension: &'static str,
}

/// Judges a file by its beginning (at least [`HEAD_BYTES`] of it, or all) and its declared type; `wanted`: what it may be.
pub(super) fn judge(file: &[u8], declared: Option<&str>, wanted: &[Medium]) -> Result<Kind, NotOutput> {
    let head = &file[..file.len().min(HEAD_BYTES)];
    if head.is_empty() {
        return Err(NotOutput::Empty);
    }
    if is_error_document(file) {
        return Err(NotOutput::Error);
    }
    let declared = declared.and_then(essence);
    let is_page_wanted = wanted == [Medium::Text]
        || wanted.contains(&Medium::Text) && declared.as_deref() == Some("text/plain");
    // Text may begin like a file of a short signature, such as `BM` of a bitmap. A PDF may be all
    // text.
    let sniffed = if head.starts_with(b"%PDF-") {
        Some("application/pdf")
    } else if is_text(head) {
        Some(text_type(head, declared.as_deref(), is_page_wanted)?)
    } else if let Some(binary) = signature(head) {
        Some(binary)
    } else {
        // A page in another encoding than UTF-8 is a page all the same.
        text_type(head, declared.as_deref(), is_page_wanted)?;
        None
    };
    let content_type = stored_type(sniffed, declared.as_deref());
    if !fits(if content_type == UNKNOWN { sniffed.unwrap_or(UNKNOWN) } else { content_type }, wanted) {
        return Err(NotOutput::WrongKind);
    }
    let extension = extension(content_type);
    let sniffed = sniffed.map(str::to_owned);
    Ok(Kind { content_type: content_type.to_owned(), sniffed, declared, extension })
}

/// Whether a file is a JSON object that reports an error: `{"error": "expired"}` with HTTP 200 is no output, also where a
/// model makes words. Only a short file is one.
fn is_error_document(file: &[u8]) -> bool {
    let text = file.trim_ascii();
    if file.len() >= HEAD_BYTES || !text.starts_with(b"{") {
        return false;
    }
    let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(text) else { return false };
    let says = |key: &str| {
        object
            .get(key)
            .is_some_and(|value| !matches!(value, serde_json::Value::Null | serde_json::Value::Bool(false)))
    };
    says("error") || says("errors")
}

/// A `Content-Type` without its parameters, in lower case; none if it is not one.
fn essence(header: &str) -> Option<String> {
    let essence = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let token =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let (kind, subtype) = essence.split_once('/')?;
    (essence.len() <= 100 && token(kind) && token(subtype)).then_some(essence)
}

/// The type of a file that is not text, by its first bytes.
fn signature(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"glTF") {
        return Some("model/gltf-binary");
    }
    let found = infer::get(head)?;
    (found.matcher_type() != infer::MatcherType::Text).then(|| found.mime_type())
}

/// The type of a file that is text.
///
/// Pages and error documents are no outputs. Where the model makes text (`is_page_wanted`), a page
/// may be what was asked for; a bucket's refusal never is.
fn text_type(head: &[u8], declared: Option<&str>, is_page_wanted: bool) -> Result<&'static str, NotOutput> {
    let (prolog, root) = root_element(head);
    let root = root.as_deref();
    let declared = declared.unwrap_or_default();
    // Some buckets leave the prolog out.
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
    // A document of a type of its own (a 3D scene, a caption file) may be XML and an output.
    let own_type = declared.ends_with("+xml") && !declared.starts_with("image/");
    if matches!(declared, "text/xml" | "application/xml") || (prolog && !own_type) {
        return Err(NotOutput::Xml);
    }
    Ok(match root {
        // Markup that is neither a page nor an image.
        Some(_) => "text/xml",
        None if head.starts_with(b"WEBVTT") => "text/vtt",
        None => plain_or_json(head),
    })
}

/// JSON if the text begins like it.
fn plain_or_json(head: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(head);
    let mut parsed = serde_json::Deserializer::from_str(&text).into_iter::<serde::de::IgnoredAny>();
    let begins = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['));
    let is_json = begins
        && match parsed.next() {
            Some(Ok(_)) => true,
            // Cut off where the head ends.
            Some(Err(error)) => error.is_eof() && head.len() >= HEAD_BYTES,
            None => false,
        };
    if is_json { "application/json" } else { "text/plain" }
}

/// Whether text begins like XML (`<?xml`), and the name of its root element in lower case without its
/// namespace. Comments and a document type may stand before; `<!doctype html>` counts as `html`. A
/// document type that names another element counts for nothing: browsers ignore it.
fn root_element(head: &[u8]) -> (bool, Option<String>) {
    let text = String::from_utf8_lossy(head);
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut prolog = false;
    // Each round takes something off the front, so it ends.
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

/// The type to store: the one of the bytes, or the declared one where that is a closer name for it.
fn stored_type<'a>(sniffed: Option<&'a str>, declared: Option<&'a str>) -> &'a str {
    let Some(sniffed) = sniffed else { return UNKNOWN };
    let subtype = |t: &'a str| t.split_once('/').map_or(t, |(_, subtype)| subtype);
    let is_closer = |declared: &'a str| match sniffed {
        "application/zip" => matches!(declared, "model/vnd.usdz+zip" | "model/3mf"),
        "application/json" => declared == "model/gltf+json",
        // Sound in a film's container.
        _ => subtype(sniffed) == subtype(declared),
    };
    match declared {
        Some(declared) if PASSIVE.contains(&declared) && is_closer(declared) => declared,
        _ if PASSIVE.contains(&sniffed) || sniffed == SVG => sniffed,
        Some(_) | None => UNKNOWN,
    }
}

/// Whether this can be read: UTF-8 (perhaps cut within a character), no control characters but white space.
fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !head.iter().any(|&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c))
}

/// A file name's ending for a type; `bin` for one that is not known.
fn extension(content_type: &str) -> &'static str {
    match content_type {
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/webp" => "webp",
        "image/gif" => "gif",
        "image/avif" => "avif",
        "image/heif" | "image/heic" => "heif",
        "image/bmp" => "bmp",
        "image/tiff" => "tif",
        "image/svg+xml" => "svg",
        "video/mp4" => "mp4",
        "video/webm" => "webm",
        "video/quicktime" => "mov",
        "video/x-matroska" => "mkv",
        "audio/mpeg" => "mp3",
        "audio/wav" | "audio/x-wav" | "audio/wave" => "wav",
        "audio/m4a" | "audio/mp4" | "audio/x-m4a" => "m4a",
        "audio/ogg" => "ogg",
        "audio/x-flac" | "audio/flac" => "flac",
        "audio/aac" => "aac",
        "model/gltf-binary" => "glb",
        "application/zip" => "zip",
        "application/gzip" => "gz",
        "application/pdf" => "pdf",
        "application/json" => "json",
        "text/plain" => "txt",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const MP4: &[u8] = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41";

    #[test]
    fn the_stored_type_follows_the_bytes() {
        let table: [(&[u8], Option<&str>, &str, &str); 20] = [
            (PNG, Some("image/png"), "image/png", "png"),
            (PNG, Some("application/octet-stream"), "image/png", "png"),
            (PNG, None, "image/png", "png"),
            (PNG, Some("image/jpeg"), "image/png", "png"),
            (PNG, Some("text/html"), "image/png", "png"),
            (MP4, Some("video/mp4; codecs=avc1"), "video/mp4", "mp4"),
            (MP4, Some("audio/mp4"), "audio/mp4", "m4a"),
            (MP4, Some("text/mp4"), "video/mp4", "mp4"),
            (b"glTF\x02\0\0\0", None, "model/gltf-binary", "glb"),
            (b"PK\x03\x04\x14\0\0\0", Some("model/vnd.usdz+zip"), "model/vnd.usdz+zip", "bin"),
            (b"<svg xmlns='x'/>", Some("image/svg+xml"), "image/svg+xml", "svg"),
            (b"<?xml version='1.0'?><!-- a --><svg:svg/>", None, "image/svg+xml", "svg"),
            (b"A plain answer", Some("text/plain"), "text/plain", "txt"),
            (b"A plain answer", None, "text/plain", "txt"),
            (b"BM stands for something", Some("text/plain"), "text/plain", "txt"),
            (b"no picture", Some("image/png"), "text/plain", "txt"),
            (b"{\"a\":1}", Some("Application/JSON;charset=utf-8"), "application/json", "json"),
            (b"{\"asset\":{}}", Some("model/gltf+json"), "model/gltf+json", "bin"),
            (b"WEBVTT\n\n00:01", Some("text/plain"), "text/vtt", "bin"),
            (b"\0\x01\x02", Some("not a type"), "application/octet-stream", "bin"),
        ];
        for (bytes, declared, content_type, extension) in table {
            let kind = judge(bytes, declared, &[]).unwrap();
            assert_eq!(
                (kind.content_type.as_str(), kind.extension),
                (content_type, extension),
                "{declared:?}"
            );
        }
    }

    /// Each was stored under a type that a browser runs.
    #[test]
    fn nothing_is_stored_under_a_type_that_a_browser_runs() {
        let files: [&[u8]; 12] = [
            b"<svg><script>alert(1)</script></svg>",
            b"<!doctype svg><html><script>alert(1)</script>",
            b"BM<script>alert(1)</script>",
            b"PK\x03\x04<script>alert(1)</script>",
            b"\x1f\x8b\x08<script>alert(1)</script>",
            b"GIF89a<script>alert(1)</script>",
            b"--b\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script>",
            b"{\"a\": \"<script>alert(1)</script>\"}",
            b"<x xmlns='http://www.w3.org/1999/xhtml'><script>alert(1)</script></x>",
            b"<\0s\0c\0r\0i\0p\0t\0>\0",
            b"%PDF-1.7 <script>alert(1)</script>",
            b"alert(1)",
        ];
        let types = [
            "text/html",
            "application/xhtml+xml",
            "multipart/x-mixed-replace",
            "image/svg+xml",
            "application/xml",
            "text/xml",
            "text/javascript",
            "application/javascript",
            "application/pdf",
            "application/mathml+xml",
            "application/rss+xml",
            "application/x-shockwave-flash",
            "text/cache-manifest",
            "image/vnd.x+xml",
            "model/vnd.collada+xml",
            "video/mp2t",
            "text/css",
        ];
        let mut stored = 0;
        for bytes in files {
            for declared in types.map(Some).into_iter().chain([None]) {
                for wanted in [&[][..], &[Medium::Image], &[Medium::Text], &[Medium::Image, Medium::Text]] {
                    let Ok(kind) = judge(bytes, declared, wanted) else { continue };
                    stored += 1;
                    assert!(
                        PASSIVE.contains(&kind.content_type.as_str()) || is_attachment(&kind.content_type),
                        "{kind:?}"
                    );
                    assert!(
                        PASSIVE.contains(&kind.content_type.as_str())
                            || [UNKNOWN, SVG].contains(&kind.content_type.as_str()),
                        "{kind:?}"
                    );
                }
            }
        }
        assert!(stored > 100, "{stored}");
        assert!(is_attachment(SVG) && is_attachment(UNKNOWN) && !is_attachment("image/png"));
    }

    #[test]
    fn a_page_is_text_where_the_model_makes_text_and_no_output_elsewhere() {
        let page: &[u8] = b"<html><p>The page that was asked for";
        let stored =
            |declared, wanted: &[Medium]| judge(page, declared, wanted).map(|kind| kind.content_type);
        for declared in [None, Some("text/html"), Some("text/plain")] {
            assert_eq!(stored(declared, &[Medium::Text]), Ok("text/plain".to_owned()), "{declared:?}");
            assert_eq!(stored(declared, &[Medium::Image]), Err(NotOutput::Html), "{declared:?}");
            assert_eq!(stored(declared, &[]), Err(NotOutput::Html), "{declared:?}");
        }
        // A provider whose models make both: its error page is no text output.
        let both = [Medium::Image, Medium::Text];
        assert_eq!(stored(Some("text/html"), &both), Err(NotOutput::Html));
        assert_eq!(stored(Some("text/plain"), &both), Ok("text/plain".to_owned()));
        let refusal = judge(b"<Error><Code>AccessDenied</Code></Error>", None, &[Medium::Text]);
        assert_eq!(refusal, Err(NotOutput::Xml));
    }

    #[test]
    fn error_pages_and_nothing_are_no_outputs() {
        let table: [(&[u8], Option<&str>, NotOutput); 15] = [
            (b"", Some("image/png"), NotOutput::Empty),
            (b"<!DOCTYPE html><html>", Some("image/png"), NotOutput::Html),
            (b"\xef\xbb\xbf\n  <!doctype HTML>", None, NotOutput::Html),
            (b"<HTML><body>502", None, NotOutput::Html),
            (b"<html><body>indispon\xedvel", None, NotOutput::Html),
            (b"<!-- busy --><html>", None, NotOutput::Html),
            (b"<?xml version='1.0'?><html xmlns='x'>", None, NotOutput::Html),
            (b"Sorry", Some("text/html; charset=utf-8"), NotOutput::Html),
            (b"Sorry", Some("application/xhtml+xml"), NotOutput::Html),
            (b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code>", None, NotOutput::Xml),
            (b"<Error><Code>NoSuchKey</Code></Error>", Some("video/mp4"), NotOutput::Xml),
            (b"<?xml version='1.0'?><Error/>", Some("model/vnd.collada+xml"), NotOutput::Xml),
            (b"<?xml version='1.0'?><anything/>", Some("image/png"), NotOutput::Xml),
            (b"<?xml version='1.0'?><!-- no end", None, NotOutput::Xml),
            (b"<ListBucketResult/>", Some("application/xml"), NotOutput::Xml),
        ];
        for (bytes, declared, why) in table {
            assert_eq!(judge(bytes, declared, &[]), Err(why), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(judge(b"<ListBucketResult/>", None, &[Medium::Image]), Err(NotOutput::WrongKind));
    }

    #[test]
    fn a_json_object_that_reports_an_error_is_no_output_whatever_the_model_makes() {
        let error: &[u8] = b" {\"error\":\"expired\"}\n";
        for wanted in [&[][..], &[Medium::Text], &[Medium::Image]] {
            for declared in [None, Some("application/json"), Some("image/png")] {
                assert_eq!(judge(error, declared, wanted), Err(NotOutput::Error), "{declared:?} {wanted:?}");
            }
        }
        assert_eq!(judge(b"{\"errors\":[\"busy\"]}", None, &[]), Err(NotOutput::Error));
        for output in
            [&b"{\"error\":null,\"text\":\"a\"}"[..], b"{\"text\":\"an error\"}", b"[{\"error\":1}]"]
        {
            assert!(judge(output, Some("application/json"), &[]).is_ok());
        }
    }

    #[test]
    fn xml_of_a_type_of_its_own_is_an_output_that_no_browser_opens() {
        let kind =
            judge(b"<?xml version='1.0'?><COLLADA/>", Some("model/vnd.collada+xml"), &[Medium::ThreeD])
                .unwrap();
        assert_eq!(kind.content_type, UNKNOWN);
        assert_eq!(kind.sniffed.as_deref(), Some("text/xml"));
        assert_eq!(kind.declared.as_deref(), Some("model/vnd.collada+xml"));
    }

    /// Bytes, declared type, what is wanted, and whether it fits.
    type Row<'a> = (&'a [u8], Option<&'a str>, &'a [Medium], bool);

    #[test]
    fn only_what_is_surely_of_another_kind_is_refused() {
        use Medium::{Audio, Image, Text, ThreeD, Video};
        let gif: &[u8] = b"GIF89a\x01\0\x01\0";
        let mp3: &[u8] = b"ID3\x03\0\0\0\0\0\0";
        let zip: &[u8] = b"PK\x03\x04\x14\0\0\0";
        let json: &[u8] = b"{\"caption\":\"a cat\"}";
        let table: [Row<'_>; 22] = [
            (PNG, None, &[], true),
            (PNG, None, &[Image], true),
            (PNG, None, &[Video], false),
            (PNG, Some("video/mp4"), &[Video], false),
            (PNG, None, &[Audio, Image], true),
            (PNG, None, &[ThreeD], false),
            (PNG, None, &[Text], false),
            (MP4, None, &[Video], true),
            (MP4, None, &[Image], false),
            (MP4, Some("audio/mp4"), &[Video], true),
            (MP4, None, &[Audio], true),
            (gif, None, &[Video], true),
            (mp3, None, &[Video], false),
            (mp3, None, &[Audio], true),
            (zip, None, &[Image], true),
            (b"\0\x01\x02", None, &[Video], true),
            (b"\0\x01\x02", Some("application/octet-stream"), &[Video], true),
            (json, Some("application/json"), &[Video], false),
            (json, Some("application/json"), &[Text], true),
            (b"v 0 0 0\nf 1 2 3", Some("text/plain"), &[ThreeD], true),
            (b"Please wait", Some("image/png"), &[Image], false),
            (b"glTF\x02\0\0\0", None, &[ThreeD], true),
        ];
        for (bytes, declared, wanted, fits) in table {
            let judged = judge(bytes, declared, wanted);
            assert_eq!(judged.is_ok(), fits, "{declared:?} {wanted:?} {judged:?}");
            assert!(fits || judged == Err(NotOutput::WrongKind));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_header_make_it_panic(
            start in prop_oneof![Just(""), Just("<?xml"), Just("<!"), Just("\0\0\0\x18ftyp"), Just("RIFF"), Just("PK\x03\x04")],
            bytes: Vec<u8>,
            declared in proptest::option::of("\\PC{0,30}"),
        ) {
            let file = [start.as_bytes(), &bytes].concat();
            if let Ok(kind) = judge(&file, declared.as_deref(), &[]) {
                let stored = kind.content_type.as_str();
                prop_assert!(PASSIVE.contains(&stored) || stored == SVG || stored == UNKNOWN);
            }
        }
    }
}
