//! Which type a file is stored under, and which files are refused.

use proptest::prelude::*;

use super::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const MP4: &[u8] = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41";

#[test]
fn the_stored_type_is_derived_from_the_bytes() {
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
        let kind = classify(bytes, declared, &[]).unwrap();
        assert_eq!((kind.content_type.as_str(), kind.extension), (content_type, extension), "{declared:?}");
    }
}

/// Each of these was once stored under a type that a browser runs.
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
                let Ok(kind) = classify(bytes, declared, wanted) else { continue };
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
fn a_page_is_an_output_only_if_the_model_makes_text() {
    let page: &[u8] = b"<html><p>The page that was asked for";
    let stored = |declared, wanted: &[Medium]| classify(page, declared, wanted).map(|kind| kind.content_type);
    for declared in [None, Some("text/html"), Some("text/plain")] {
        assert_eq!(stored(declared, &[Medium::Text]), Ok("text/plain".to_owned()), "{declared:?}");
        assert_eq!(stored(declared, &[Medium::Image]), Err(NotOutput::Html), "{declared:?}");
        assert_eq!(stored(declared, &[]), Err(NotOutput::Html), "{declared:?}");
    }
    // A provider whose models make both: its error page is no text output.
    let both = [Medium::Image, Medium::Text];
    assert_eq!(stored(Some("text/html"), &both), Err(NotOutput::Html));
    assert_eq!(stored(Some("text/plain"), &both), Ok("text/plain".to_owned()));
    let refusal = classify(b"<Error><Code>AccessDenied</Code></Error>", None, &[Medium::Text]);
    assert_eq!(refusal, Err(NotOutput::Xml));
}

#[test]
fn error_pages_and_empty_files_are_refused() {
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
        assert_eq!(classify(bytes, declared, &[]), Err(why), "{:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(classify(b"<ListBucketResult/>", None, &[Medium::Image]), Err(NotOutput::WrongKind));
}

#[test]
fn a_json_object_that_reports_an_error_is_refused_for_all_media() {
    let error: &[u8] = b" {\"error\":\"expired\"}\n";
    for wanted in [&[][..], &[Medium::Text], &[Medium::Image]] {
        for declared in [None, Some("application/json"), Some("image/png")] {
            assert_eq!(classify(error, declared, wanted), Err(NotOutput::Error), "{declared:?} {wanted:?}");
        }
    }
    assert_eq!(classify(b"{\"errors\":[\"busy\"]}", None, &[]), Err(NotOutput::Error));
    for output in [&b"{\"error\":null,\"text\":\"a\"}"[..], b"{\"text\":\"an error\"}", b"[{\"error\":1}]"] {
        assert!(classify(output, Some("application/json"), &[]).is_ok());
    }
}

#[test]
fn xml_with_a_specific_type_is_stored_as_an_unknown_type() {
    let kind = classify(b"<?xml version='1.0'?><COLLADA/>", Some("model/vnd.collada+xml"), &[Medium::ThreeD])
        .unwrap();
    assert_eq!(kind.content_type, UNKNOWN);
    assert_eq!(kind.sniffed.as_deref(), Some("text/xml"));
    assert_eq!(kind.declared.as_deref(), Some("model/vnd.collada+xml"));
}

/// Bytes, declared type, the model's media, and whether the file fits them.
type Row<'a> = (&'a [u8], Option<&'a str>, &'a [Medium], bool);

#[test]
fn only_files_that_certainly_are_of_another_medium_are_refused() {
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
        let judged = classify(bytes, declared, wanted);
        assert_eq!(judged.is_ok(), fits, "{declared:?} {wanted:?} {judged:?}");
        assert!(fits || judged == Err(NotOutput::WrongKind));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_and_headers_never_panic(
        start in prop_oneof![Just(""), Just("<?xml"), Just("<!"), Just("\0\0\0\x18ftyp"), Just("RIFF"), Just("PK\x03\x04")],
        bytes: Vec<u8>,
        declared in proptest::option::of("\\PC{0,30}"),
    ) {
        let file = [start.as_bytes(), &bytes].concat();
        if let Ok(kind) = classify(&file, declared.as_deref(), &[]) {
            let stored = kind.content_type.as_str();
            prop_assert!(PASSIVE.contains(&stored) || stored == SVG || stored == UNKNOWN);
        }
    }
}
