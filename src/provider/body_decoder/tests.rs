//! Tests with bodies in pieces of every size: the text for the filter, the files, and strings that
//! are restored.

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use serde_json::{Value, json};

use super::*;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|nth| u8::try_from(nth * 7 % 251).unwrap()).collect()
}

/// Decodes a body in pieces of `size` bytes.
fn taken(body: &[u8], size: usize) -> (Value, InlineFiles) {
    let mut decoder = BodyDecoder::new(BodyFormat::Json);
    for piece in body.chunks(size) {
        decoder.push(piece);
    }
    assert_eq!(decoder.received(), body.len());
    let (text, files) = decoder.finish();
    (serde_json::from_slice(&text).unwrap(), files)
}

#[test]
fn long_base64_is_replaced_by_a_token_and_decoded_once() {
    for length in [LONG_BYTES, LONG_BYTES + 1, LONG_BYTES + 2, 3 * LONG_BYTES] {
        let file = bytes(length);
        let (padded, bare) = (BASE64_STANDARD.encode(&file), BASE64_STANDARD_NO_PAD.encode(&file));
        let escaped = padded.replace('/', "\\/");
        // The escaping of .NET.
        let coded = padded.replace('+', "\\u002B").replace('/', "\\u002f").replace('=', "\\u003D");
        let body = format!(
            r#"{{"a": "{padded}", "b\"": ["{bare}", "data:image\/png;base64,{escaped}", "{coded}"], "c": "{}", "d,e": "data:x,y"}}"#,
            &bare[..LONG_BYTES - 1]
        );
        for size in [1, 7, 4096, body.len()] {
            let (value, files) = taken(body.as_bytes(), size);
            let head = &bare[..HEAD_CHARS];
            let token = |nth: usize| format!("{head}~makegood-file-{nth}~");
            let expected = json!({
                "a": token(1),
                "b\"": [token(2), format!("data:image/png;base64,{}", token(3)), token(4)],
                "c": &bare[..LONG_BYTES - 1],
                "d,e": "data:x,y",
            });
            assert!(value == expected, "{length} in pieces of {size}");
            for nth in 1..=4 {
                assert!(files.get(&token(nth)).is_some_and(|found| *found == file), "{length} {nth}");
            }
            let hash = hex::encode(Sha256::digest(body.as_bytes()));
            assert_eq!(files.original, Some((body.len(), hash)), "length and hash of the original body");
        }
    }
}

#[test]
fn long_strings_that_are_not_base64_are_unchanged() {
    let long = BASE64_STANDARD_NO_PAD.encode(bytes(LONG_BYTES));
    for end in [
        "-",
        "_",
        " ",
        "é",
        ",",
        ":",
        "=a",
        "===",
        "a===",
        "=\\/",
        "\\n",
        "\\\\",
        "\\\"",
        "\\u0041",
        "\\u00e9",
        "\\u003d\\u003d\\u003d",
        "\\u003dA",
        "a",
        "ab=c",
        "\\/\\n",
        ", and data:x;base64,",
    ] {
        // The first group of four is complete.
        let body = format!(r#"{{"a": "{long}{end}", "b": 1}}"#);
        let expected: Value = serde_json::from_str(&body).unwrap();
        for size in [1, 5, 4096, body.len()] {
            let (value, files) = taken(body.as_bytes(), size);
            let is_base64 = BASE64.decode(expected["a"].as_str().unwrap()).is_ok();
            assert!(is_base64 || value == expected, "{end} in pieces of {size}");
            assert_eq!(is_base64, !files.files.is_empty(), "{end} in pieces of {size}");
        }
    }
}

#[test]
fn bodies_that_are_not_json_are_unchanged() {
    let long = BASE64_STANDARD.encode(bytes(LONG_BYTES));
    for (format, body) in [
        (BodyFormat::Json, format!("\u{89}PNG \"{long}\"")),
        (BodyFormat::Json, format!("\"{long}\"")),
        (BodyFormat::Text, format!("{{\"a\": \"{long}\"}}")),
        (BodyFormat::Xml, format!("<a b=\"{long}\"/>")),
    ] {
        let (text, files) = BodyDecoder::decode(format, body.as_bytes());
        assert!(text == body.as_bytes() && files.files.is_empty() && files.original.is_none());
    }
    let body = format!("{{\"a\": \"{long}\"}}\n{{\"a\": \"{long}\"}}");
    assert_eq!(BodyDecoder::decode(BodyFormat::Ndjson, body.as_bytes()).1.files.len(), 2);
}

#[test]
fn the_cost_counts_each_file_once_and_text_four_times() {
    let file = bytes(30 << 20);
    let body = format!("{{\"a\": \"{}\"}}", BASE64_STANDARD.encode(&file));
    let mut decoder = BodyDecoder::new(BodyFormat::Json);
    for piece in body.as_bytes().chunks(1 << 16) {
        decoder.push(piece);
    }
    let copying = crate::recovery::memory_bytes(30 << 20);
    assert!((file.len() as u64 + copying..file.len() as u64 + copying + 4096).contains(&decoder.cost()));
    let mut decoder = BodyDecoder::new(BodyFormat::Json);
    decoder.push(format!("{{\"a\": \"{}\"}}", "word ".repeat(1 << 16)).as_bytes());
    assert!(decoder.cost() >= 4 * (5 << 16));
}
