//! Detects a file's type from its bytes, and refuses files that are not an output.
//!
//! A provider can declare any type, and a page that a browser runs could act for the platform's
//! users (stored cross-site scripting). So the stored type is derived from the bytes and is one of
//! [`PASSIVE`], which no browser runs as a page or script. SVG, which may contain scripts, and all
//! other types ([`UNKNOWN`]) are stored as attachments ([`is_attachment`]). The declared type only
//! chooses between types that the bytes allow; it is recorded separately.
//!
//! An error page with HTTP status 200 is not an output: HTML, XML such as a bucket's "access
//! denied", or a JSON object with `error`. If the model makes text, HTML may be its output and is
//! stored as `text/plain`. A file that certainly is not one of the model's media ([`Medium`]) is
//! refused too. Quality is not checked: a short or watermarked video is an output (P09: poor
//! quality is a success).

use super::NotOutput;
use media::fits;
use sniff::{is_text, signature, text_type};

mod media;
mod sniff;
#[cfg(test)]
mod tests;

pub use media::Medium;

/// The stored type of files that are not recognized or that a browser might run.
const UNKNOWN: &str = "application/octet-stream";

/// The type of an SVG image. It may contain scripts, which run if a browser opens it as a document.
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

/// Whether a file of this type is stored with `Content-Disposition: attachment`.
pub(super) fn is_attachment(content_type: &str) -> bool {
    !PASSIVE.contains(&content_type)
}

/// How many bytes at the beginning of a file are examined.
pub(super) const HEAD_BYTES: usize = 8 * 1024;

/// The detected type of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileType {
    /// The content type to store and to record.
    pub(super) content_type: String,
    /// The type detected from the first bytes, if any.
    pub(super) sniffed: Option<String>,
    /// The type that the provider declared, if it is valid.
    pub(super) declared: Option<String>,
    /// The extension of the object's key.
    pub(super) extension: &'static str,
}

/// Detects the type of a file from its beginning (at least [`HEAD_BYTES`], or the whole file) and
/// its declared type. `wanted` are the media that the model makes; an empty list accepts any.
///
/// # Errors
/// The file is not an output.
pub(super) fn classify(
    file: &[u8],
    declared: Option<&str>,
    wanted: &[Medium],
) -> Result<FileType, NotOutput> {
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
    // Text is checked before signatures: it may begin with a short signature, such as `BM` of a
    // bitmap. PDF comes before text, because a PDF may consist of text only.
    let sniffed = if head.starts_with(b"%PDF-") {
        Some("application/pdf")
    } else if is_text(head) {
        Some(text_type(head, declared.as_deref(), is_page_wanted)?)
    } else if let Some(binary) = signature(head) {
        Some(binary)
    } else {
        // Also refuses pages in an encoding other than UTF-8.
        text_type(head, declared.as_deref(), is_page_wanted)?;
        None
    };
    let content_type = stored_type(sniffed, declared.as_deref());
    if !fits(if content_type == UNKNOWN { sniffed.unwrap_or(UNKNOWN) } else { content_type }, wanted) {
        return Err(NotOutput::WrongKind);
    }
    let extension = extension(content_type);
    let sniffed = sniffed.map(str::to_owned);
    Ok(FileType { content_type: content_type.to_owned(), sniffed, declared, extension })
}

/// Whether a file is a JSON object that reports an error, such as `{"error": "expired"}` with HTTP
/// 200. Only files shorter than [`HEAD_BYTES`] are checked.
fn is_error_document(file: &[u8]) -> bool {
    let text = file.trim_ascii();
    if file.len() >= HEAD_BYTES || !text.starts_with(b"{") {
        return false;
    }
    let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(text) else { return false };
    let has = |key: &str| {
        object
            .get(key)
            .is_some_and(|value| !matches!(value, serde_json::Value::Null | serde_json::Value::Bool(false)))
    };
    has("error") || has("errors")
}

/// A `Content-Type` without its parameters, in lower case. `None` if it is invalid.
fn essence(header: &str) -> Option<String> {
    let essence = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let token =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let (kind, subtype) = essence.split_once('/')?;
    (essence.len() <= 100 && token(kind) && token(subtype)).then_some(essence)
}

/// The type to store: the detected one, or the declared one if that is a more exact name for it.
fn stored_type<'a>(sniffed: Option<&'a str>, declared: Option<&'a str>) -> &'a str {
    let Some(sniffed) = sniffed else { return UNKNOWN };
    let subtype = |t: &'a str| t.split_once('/').map_or(t, |(_, subtype)| subtype);
    let is_closer = |declared: &'a str| match sniffed {
        "application/zip" => matches!(declared, "model/vnd.usdz+zip" | "model/3mf"),
        "application/json" => declared == "model/gltf+json",
        // The same container with audio only, for example `audio/mp4`.
        _ => subtype(sniffed) == subtype(declared),
    };
    match declared {
        Some(declared) if PASSIVE.contains(&declared) && is_closer(declared) => declared,
        _ if PASSIVE.contains(&sniffed) || sniffed == SVG => sniffed,
        Some(_) | None => UNKNOWN,
    }
}

/// The file name extension of a type, or `bin`.
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
