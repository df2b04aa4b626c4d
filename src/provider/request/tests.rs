//! Tests of templates with valid and hostile job ids.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

fn url(template: &str, job: &str) -> Result<String, String> {
    let values = BTreeMap::from([("job", job), ("model", "m")]);
    Template::parse(template, &["job", "model"], Hosts::default())?
        .fill(&values)
        .map(|request| request.url.to_string())
}

#[test]
fn a_job_id_is_always_one_path_segment() {
    for (job, asked) in [
        ("abc-1_2.3~", "abc-1_2.3~"),
        ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"),
        ("a b", "a%20b"),
        ("a?b=c&d#e", "a%3Fb%3Dc%26d%23e"),
        ("a%2e%2e", "a%252e%252e"),
        ("ключ/🦀", "%D0%BA%D0%BB%D1%8E%D1%87%2F%F0%9F%A6%80"),
        ("a\nb\0", "a%0Ab%00"),
        ("%2e%2e", "%252e%252e"),
    ] {
        assert_eq!(url("GET https://host/v1/{job}", job).unwrap(), format!("https://host/v1/{asked}"));
    }
    for job in ["", ".", "..", &"x".repeat(5000)] {
        assert!(url("GET https://host/v1/{job}", job).is_err(), "{job:?} was asked");
    }
}

#[test]
fn a_raw_job_id_keeps_its_slashes_and_cannot_change_the_path() {
    let template = "GET https://host/v1beta/{job|raw}";
    assert_eq!(
        url(template, "models/veo-3.1/operations/ab:12").unwrap(),
        "https://host/v1beta/models/veo-3.1/operations/ab:12"
    );
    assert_eq!(url(template, "a b/%2e%2e/ü").unwrap(), "https://host/v1beta/a%20b/%252e%252e/%C3%BC");
    for job in
        ["..", "a/../b", "a/./b", "/a", "a//b", "a/", "a?b", "a#b", "a\\b", "a\nb", "//evil.example/x", ""]
    {
        assert!(url(template, job).is_err(), "{job:?} was asked");
    }
}

#[test]
fn an_invalid_template_is_rejected() {
    for (template, complaint) in [
        ("https://host/{job}", "a method and a URL"),
        ("PATCH https://host/{job}", "PATCH"),
        ("GET https://host/{jobb}", "`{jobb}` is unknown"),
        ("GET https://host/{job|rew}", "use `|raw`"),
        ("GET https://host/{job|url}", "must be the whole URL"),
        ("GET {job|url}", "ask_hosts"),
        ("GET {jub|url}", "`{jub}` is unknown"),
        ("GET https://host/{job}#x", "`#`"),
        ("GET https://host/{job", "never closed"),
        ("GET https://{job}/x", "must not contain placeholders"),
        ("GET https://host.{job}/x/y/", "must not contain placeholders"),
        ("GET ftp://host/{job}", "ftp"),
        ("GET https://me:pw@host/{job}", "[auth]"),
        ("GET https://HOST/a/../{job}", "would be sent as"),
    ] {
        let error = Template::parse(template, &["job", "model"], Hosts::default()).unwrap_err();
        assert!(error.contains(complaint), "{template}: {error}");
    }
}

fn next(request: &str) -> NextStep {
    NextStep {
        request: request.to_owned(),
        payload: None,
        headers: BTreeMap::new(),
        key: AuthChoice::Ask,
        kept: Value::Null,
    }
}

fn hosts(list: &[&str]) -> Hosts {
    Hosts::parse(crate::egress::List::Asked, list).unwrap()
}

#[test]
fn a_next_request_goes_to_the_same_origin_or_to_a_listed_host() {
    let alone = Template::parse("GET https://host/{job}", &["job"], Hosts::default()).unwrap();
    let step = alone.next_step(next("GET https://host/result?sig=1")).unwrap();
    assert_eq!(step.to_string(), "GET https://host/result?...");
    for elsewhere in [
        "GET https://evil.example/",
        "GET http://host/",
        "GET https://host:8443/",
        "GET /x",
        "GET https://user@host/x",
        "GET https://files.acme.example/",
        "DELETE https://host/",
    ] {
        assert!(alone.next_step(next(elsewhere)).is_err(), "{elsewhere} was accepted");
    }
    let listed = Template::parse("GET https://host/{job}", &["job"], hosts(&["*.acme.example"])).unwrap();
    for fine in ["GET https://files.acme.example/r", "POST https://host/r"] {
        assert!(listed.next_step(next(fine)).is_ok(), "{fine} was rejected");
    }
    for elsewhere in ["GET https://evil.example/", "GET http://files.acme.example/"] {
        assert!(listed.next_step(next(elsewhere)).is_err(), "{elsewhere} was accepted");
    }
}

#[test]
fn only_a_post_has_a_body_and_its_length_is_limited() {
    let template = Template::parse("POST https://host/ask", &["job"], Hosts::default()).unwrap();
    let request = template.fill(&BTreeMap::from([("job", "j")])).unwrap();
    let body = serde_json::json!({"ids": ["j"]});
    let sent = request.clone().with_payload(Some(Payload::Json(body.clone()))).unwrap();
    assert_eq!(
        (sent.body(), sent.to_string().as_str()),
        (Some(&body), r#"POST https://host/ask {"ids":["j"]}"#)
    );
    let long = Value::from("x".repeat(1000));
    assert_eq!(
        request.clone().with_payload(Some(Payload::Json(long))).unwrap().to_string(),
        "POST https://host/ask (a body of 1002 bytes)"
    );
    assert!(request.with_payload(Some(Payload::Json(Value::from("x".repeat(70_000))))).is_err());
    let get = NextStep { payload: Some(Payload::Json(body)), ..next("GET https://host/x") };
    assert!(template.next_step(get).unwrap_err().contains("cannot have a body"));
}

#[test]
fn a_stored_url_must_go_to_a_listed_host() {
    let template = Template::parse("GET {job|url}", &["job"], hosts(&["*.bfl.ai"])).unwrap();
    let fill = |job: &str| template.fill(&BTreeMap::from([("job", job)]));
    let request = fill("https://api.us.bfl.ai/v1/get_result?id=1&sig=abc").unwrap();
    assert_eq!(request.url.as_str(), "https://api.us.bfl.ai/v1/get_result?id=1&sig=abc");
    assert_eq!(request.to_string(), "GET https://api.us.bfl.ai/v1/get_result?...");
    let long = format!("https://api.bfl.ai/{}", "x".repeat(3000));
    for job in [
        "",
        "abc-1",
        "/v1/get_result",
        "//api.bfl.ai/x",
        "https://evil.example/x",
        "https://api.bfl.ai@evil.example/",
        "https://evil.example\\@api.bfl.ai/",
        "https://user:pw@api.bfl.ai/",
        "https://api.bfl.ai:22/",
        "https://api.bfl.ai/#x",
        "http://api.bfl.ai/",
        "https://169.254.169.254/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://api.bfl.ai/\nx",
        "https://api.bfl.ai/ x",
        "ht\ttps://api.bfl.ai/",
        "file:///etc/passwd",
        &long,
    ] {
        assert!(fill(job).is_err(), "{job:?} was asked");
    }
    assert!(template.next_step(next("GET https://api.eu.bfl.ai/x")).is_ok());
    assert!(template.next_step(next("GET https://evil.example/x")).is_err());
}

#[test]
fn no_job_id_can_change_host_path_or_query() {
    let segment = Template::parse("GET https://host/v1/{job}/status", &["job"], Hosts::default()).unwrap();
    let raw = Template::parse("GET https://host/v1/{job|raw}/status", &["job"], Hosts::default()).unwrap();
    let tricky = prop_oneof![any::<String>(), "[./%?#\\\\ a:@]{0,12}"];
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    runner
        .run(&tricky, |job| {
            for template in [&segment, &raw] {
                let Ok(request) = template.fill(&BTreeMap::from([("job", job.as_str())])) else {
                    continue;
                };
                let path = request.url.path();
                let asked = path.strip_prefix("/v1/").and_then(|path| path.strip_suffix("/status"));
                let asked = percent_encoding::percent_decode_str(asked.unwrap()).decode_utf8().unwrap();
                prop_assert_eq!(asked, job.as_str());
                prop_assert_eq!(request.url.host_str(), Some("host"));
                prop_assert!(request.url.query().is_none() && request.url.fragment().is_none());
            }
            Ok(())
        })
        .unwrap();
}
