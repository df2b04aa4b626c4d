//! Bodies in pieces of every size: the filter's view, the files, and what is put back.

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use serde_json::{Value, json};

use super::*;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|nth| u8::try_from(nth * 7 % 251).unwrap()).collect()
}

/// The body in pieces of `size`.
fn taken(body: &[u8], size: usize) -> (Value, Files) {
    let mut intake = Intake::new(Shape::Json);
    for piece in body.chunks(size) {
        intake.push(piece);
    }
    assert_eq!(intake.received(), body.len());
    let (text, files) = intake.finish();
    (serde_json::from_slice(&text).unwrap(), files)
}

#[test]
fn long_base64_becomes_a_token_and_the_file_is_there_once() {
    for length in [LONG_BYTES, LONG_BYTES + 1, LONG_BYTES + 2, 3 * LONG_BYTES] {
        let file = bytes(length);
        let (padded, bare) = (BASE64_STANDARD.encode(&file), BASE64_STANDARD_NO_PAD.encode(&file));
        let escaped = padded.replace('/', "\\/");
        // As .NET writes it.
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
            assert_eq!(files.whole, Some((body.len(), hash)), "what the body was");
        }
    }
}

#[test]
fn what_is_no_base64_stays_as_it_was() {
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
        // The first group of four is whole.
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
fn nothing_is_taken_out_of_what_is_no_json() {
    let long = BASE64_STANDARD.encode(bytes(LONG_BYTES));
    for (shape, body) in [
        (Shape::Json, format!("\u{89}PNG \"{long}\"")),
        (Shape::Json, format!("\"{long}\"")),
        (Shape::Text, format!("{{\"a\": \"{long}\"}}")),
        (Shape::Xml, format!("<a b=\"{long}\"/>")),
    ] {
        let (text, files) = Intake::whole(shape, body.as_bytes());
        assert!(text == body.as_bytes() && files.files.is_empty() && files.whole.is_none());
    }
    let body = format!("{{\"a\": \"{long}\"}}\n{{\"a\": \"{long}\"}}");
    assert_eq!(Intake::whole(Shape::Ndjson, body.as_bytes()).1.files.len(), 2);
}

#[test]
fn a_file_costs_what_it_is_and_text_what_its_filter_takes() {
    let file = bytes(30 << 20);
    let body = format!("{{\"a\": \"{}\"}}", BASE64_STANDARD.encode(&file));
    let mut intake = Intake::new(Shape::Json);
    for piece in body.as_bytes().chunks(1 << 16) {
        intake.push(piece);
    }
    let copying = crate::recovery::memory_bytes(30 << 20);
    assert!((file.len() as u64 + copying..file.len() as u64 + copying + 4096).contains(&intake.cost()));
    let mut intake = Intake::new(Shape::Json);
    intake.push(format!("{{\"a\": \"{}\"}}", "word ".repeat(1 << 16)).as_bytes());
    assert!(intake.cost() >= 4 * (5 << 16));
}
