//! Tests of every field of a filter's output, with valid and invalid values.

use super::*;
use crate::evidence::{FailureClass, Offer, Source};

const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

fn question() -> Question {
    Question { provider: "acme".into(), job_id: "j1".into(), model: "m".into(), items: 2, urgent: false }
}

fn read(filter: &str, status: u16, body: &[u8]) -> Reading {
    let received = HttpAnswer::new(status, HeaderMap::new(), Bytes::copy_from_slice(body));
    provider_reading(filter, false).read(&question(), (1, &Value::Null), &received, NOW, &["s3cret-key"])
}

fn judged(filter: &str, status: u16, body: &[u8]) -> Evidence {
    match read(filter, status, body) {
        Reading::Judged(evidence) => evidence,
        Reading::AskNext(request) => panic!("asks for {request}"),
    }
}

fn unreadable(filter: &str, body: &[u8]) -> String {
    let evidence = judged(filter, 200, body);
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreadable), "{filter}: {evidence:?}");
    assert_eq!(evidence.answer.status, Some(200));
    assert!(evidence.outputs.is_empty());
    evidence.message.unwrap()
}

#[test]
fn a_status_that_does_not_concern_the_job_decides_alone() {
    let failed = "{verdict: \"failed\"}";
    for (status, verdict) in [
        (200, Verdict::Failed),
        (404, Verdict::Failed),
        (302, Verdict::CouldNotTell(Doubt::Unreadable)),
        (401, Verdict::CouldNotTell(Doubt::Unauthorized)),
        (403, Verdict::CouldNotTell(Doubt::Unauthorized)),
        (429, Verdict::CouldNotTell(Doubt::RateLimited)),
        (500, Verdict::CouldNotTell(Doubt::Unreachable)),
        (599, Verdict::CouldNotTell(Doubt::Unreachable)),
    ] {
        assert_eq!(judged(failed, status, b"{}").verdict, verdict, "{status}");
    }
    let received = HttpAnswer::new(503, HeaderMap::new(), Bytes::new());
    match provider_reading(failed, true).read(&question(), (1, &Value::Null), &received, NOW, &[]) {
        Reading::Judged(evidence) => assert_eq!(evidence.verdict, Verdict::Failed),
        Reading::AskNext(request) => panic!("asks for {request}"),
    }
}

#[test]
fn a_failed_filter_and_invalid_output_are_unreadable() {
    for (filter, complaint) in [
        ("error(\"boom\")", "boom"),
        ("empty", "no output"),
        ("1", "output is invalid"),
        ("{}", "verdict"),
        ("{verdict: \"exploded\"}", "`exploded`"),
        ("{verdict: .body.status}", "output is invalid"),
        ("{verdict: \"failed\", class: \"bad_luck\"}", "bad_luck"),
        ("{verdict: \"failed\", clas: \"server_error\"}", "clas"),
        ("{verdict: \"succeeded\", outputs: {}}", "output is invalid"),
        ("{verdict: \"succeeded\", outputs: [{}]}", "exactly one"),
        ("{verdict: \"succeeded\", outputs: [{url: \"u\", base64: \"\"}]}", "exactly one"),
        ("{verdict: \"succeeded\", outputs: [{base64: \"%\"}]}", "not valid base64"),
        ("{verdict: \"succeeded\", outputs: [{url: \"u\", request: \"GET u\"}]}", "exactly one"),
        ("{verdict: \"succeeded\", outputs: [{request: \"POST https://cdn.acme.example/\"}]}", "GET only"),
        ("{verdict: \"succeeded\", outputs: [{request: \"GET /content\"}]}", "not a URL"),
        ("{verdict: \"succeeded\", outputs: [{request: \"GET https://evil.example/\"}]}", "output_hosts"),
        ("{verdict: \"succeeded\", outputs: [{request: \"GET https://u@cdn.acme.example/\"}]}", "user"),
        ("{verdict: \"succeeded\", outputs: [{index: -1, url: \"u\"}]}", "negative"),
        ("{verdict: \"succeeded\", outputs: [{index: 0, url: \"u\"}, {index: 0, url: \"v\"}]}", "twice"),
        ("{verdict: \"succeeded\", outputs: [range(2000) | {url: \"u\"}]}", "more than 1000"),
        ("{verdict: \"failed\", outputs_gone: true}", "outputs_gone"),
        ("{verdict: \"ask\"}", "without a `request`"),
        ("{verdict: \"ask\", request: \"GET https://evil.example/\"}", "https://evil.example"),
        ("{verdict: \"running\", request: \"GET https://acme.example/\"}", "other than `ask`"),
    ] {
        let message = unreadable(filter, br#"{"status": 3}"#);
        assert!(message.contains(complaint), "{filter}: {message}");
    }
}

#[test]
fn a_body_that_is_not_json_is_replaced_by_its_length_and_hash() {
    let filter = "if .body.bytes == 3 and (.body.sha256 | startswith(\"ba7816bf\")) \
                  then {verdict: \"running\"} else {verdict: \"unreadable\"} end";
    assert_eq!(judged(filter, 200, b"abc").verdict, Verdict::Running);
    for body in [b"\xff\xfe\x00".as_slice(), b"", b"{\"a\":", b"<html>502</html>"] {
        assert!(unreadable(filter, body).contains("not JSON"));
    }
}

#[test]
fn json_nested_nine_thousand_deep_is_unreadable() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!("{}1{}", open.repeat(9_000), close.repeat(9_000));
        let message = unreadable("{verdict: .body.status}", body.as_bytes());
        assert!(message.contains("recursion limit"), "{message}");
    }
}

#[test]
fn outputs_are_converted_with_all_their_fields() {
    let filter = r#"{verdict: "succeeded", code: 13, outputs: [
        {index: 1, url: "https://cdn/x?sig=1", auth: true, expires_at: 1764000000},
        {base64: "aGk", content_type: "text/plain", expires_at: "2026-05-04T09:12:00Z"},
        {index: 0, error: "flagged", class: "content_safety"},
        {request: "GET https://cdn.acme.example/content?variant=video"},
        {url: "https://cdn/y", expires_at: "tomorrow"}]}"#;
    let evidence = judged(filter, 200, b"{}");
    assert_eq!(evidence.code.as_deref(), Some("13"));
    assert_eq!(
        evidence.outputs,
        [
            Offer {
                index: Some(1),
                source: Source::Url { url: "https://cdn/x?sig=1".into(), auth: true },
                expires_at: Some(NOW),
            },
            Offer {
                index: None,
                source: Source::Inline {
                    bytes: Bytes::from_static(b"hi"),
                    content_type: Some("text/plain".into()),
                },
                expires_at: Some(Timestamp::parse("2026-05-04T09:12:00Z").unwrap()),
            },
            Offer {
                index: Some(0),
                source: Source::Failed {
                    class: FailureClass::ContentSafety,
                    message: Some("flagged".into()),
                },
                expires_at: None,
            },
            Offer {
                index: None,
                source: Source::Url {
                    url: "https://cdn.acme.example/content?variant=video".into(),
                    auth: true,
                },
                expires_at: None,
            },
            Offer {
                index: None,
                source: Source::Url { url: "https://cdn/y".into(), auth: false },
                expires_at: None,
            },
        ]
    );
}

#[test]
fn an_expiry_that_a_database_cannot_store_is_unknown() {
    for (text, known) in [
        ("0000-01-01T00:00:00Z", false),
        ("0001-01-01T00:00:00Z", true),
        ("9999-12-31T23:59:59Z", true),
        ("9999-12-31T23:59:59-01:00", false),
    ] {
        let filter = format!(
            r#"{{verdict: "succeeded", outputs: [{{index: 0, url: "https://cdn/x", expires_at: "{text}"}}]}}"#
        );
        let evidence = judged(&filter, 200, b"{}");
        assert_eq!(evidence.outputs[0].expires_at.is_some(), known, "{text}");
    }
}

#[test]
fn the_stored_excerpt_contains_no_secret_and_no_signature() {
    let body = br#"{"m":"key s3cret-key is bad","url":"https://cdn/x?sig=abc"}"#;
    let evidence = judged("{verdict: \"failed\", code: .body.m, message: .body.m}", 200, body);
    let kept = format!("{evidence:?}");
    assert!(!kept.contains("s3cret") && !kept.contains("sig=abc"), "{kept}");
    assert!(evidence.answer.excerpt.unwrap().contains("https://cdn/x?…"));
    let failing = unreadable("error(.body.m)", body);
    assert!(!failing.contains("s3cret"), "{failing}");
}

#[test]
fn the_filter_sees_headers_job_model_items_and_step() {
    let filter =
        r#"{verdict: "running", message: "\(.headers["x-a"]) \(.job) \(.model) \(.items) \(.step)"}"#;
    let mut headers = HeaderMap::new();
    headers.append("X-A", "1".parse().unwrap());
    headers.append("X-A", "2".parse().unwrap());
    let received = HttpAnswer::new(200, headers, Bytes::from_static(b"{}"));
    match provider_reading(filter, false).read(&question(), (2, &Value::Null), &received, NOW, &[]) {
        Reading::Judged(evidence) => assert_eq!(evidence.message.as_deref(), Some("1, 2 j1 m 2 2")),
        Reading::AskNext(request) => panic!("asks for {request}"),
    }
}

#[test]
fn an_expiry_may_be_in_milliseconds_or_without_a_time_zone() {
    for (written, wanted) in [
        ("1764000000", Some(NOW)),
        ("1764000000000", Some(NOW)),
        ("\"2025-11-24T16:00:00Z\"", Some(NOW)),
        ("\"2025-11-24T16:00:00\"", Some(NOW)),
        ("\"2025-11-24 16:00:00\"", Some(NOW)),
        ("\"tomorrow\"", None),
        ("-5", None),
        ("1e30", None),
    ] {
        let filter = format!(
            r#"{{verdict: "succeeded", outputs: [{{url: "https://cdn/x", expires_at: {written}}}]}}"#
        );
        let evidence = judged(&filter, 200, b"{}");
        assert_eq!(evidence.outputs[0].expires_at, wanted, "{written}");
    }
}

#[test]
fn p06_a_success_without_a_list_of_outputs_is_unreadable() {
    for (filter, verdict) in [
        (r#"{verdict: "succeeded"}"#, Verdict::CouldNotTell(Doubt::Unreadable)),
        (r#"{verdict: "succeeded", outputs: null}"#, Verdict::CouldNotTell(Doubt::Unreadable)),
        (
            r#"{verdict: "succeeded", outputs: ([.body.images, .body.flags] | transpose | map({url: .[0]}))}"#,
            Verdict::CouldNotTell(Doubt::Unreadable),
        ),
        (r#"{verdict: "succeeded", outputs: []}"#, Verdict::Succeeded),
        (r#"{verdict: "succeeded", outputs_gone: true}"#, Verdict::Succeeded),
    ] {
        assert_eq!(judged(filter, 200, b"{}").verdict, verdict, "{filter}");
    }
}
