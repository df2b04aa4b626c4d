//! Signs requests with HMAC-SHA256: AWS Signature Version 4 and Tencent Cloud's TC3-HMAC-SHA256.
//!
//! Both sign a canonical form of the request with a key that is derived from the secret for one day
//! and one service. The secret itself is never sent. A request is signed once, and its retries
//! within seconds reuse the signature.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use ring::{digest, hmac};

use super::super::outgoing::OutgoingRequest;
use crate::clock::Timestamp;

/// Encodes everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a path, whose slashes are kept.
const PATH: &AsciiSet = &ENCODED.remove(b'/');

/// The keys of a signature.
pub(super) struct SigningKeys<'a> {
    pub(super) access: &'a str,
    pub(super) secret: &'a str,
    /// The session token of temporary AWS credentials.
    pub(super) session: Option<&'a str>,
}

/// Signs a request to an AWS service. Returns false if a key is not permitted in a header.
pub(super) fn aws(
    out: &mut OutgoingRequest,
    keys: &SigningKeys<'_>,
    region: &str,
    service: &str,
    now: Timestamp,
) -> bool {
    let (date, time) = date_and_time(now);
    let body = hash(&out.body);
    let mut set = vec![("x-amz-date", time.clone())];
    // S3 also requires the hash of the body as a header, and its paths are encoded only once.
    let s3 = service == "s3";
    if s3 {
        set.push(("x-amz-content-sha256", body.clone()));
    }
    if let Some(session) = keys.session {
        set.push(("x-amz-security-token", session.to_owned()));
    }
    for (name, value) in set {
        let Ok(mut value) = HeaderValue::try_from(value) else { return false };
        value.set_sensitive(name == "x-amz-security-token");
        out.headers.insert(HeaderName::from_static(name), value);
    }
    let path = out.url.path();
    let path = if s3 { path.to_owned() } else { utf8_percent_encode(path, PATH).to_string() };
    let signed = |name: &HeaderName| *name == CONTENT_TYPE || name.as_str().starts_with("x-amz-");
    let (names, headers) = canonical_headers(out, signed);
    let canonical =
        format!("{}\n{path}\n{}\n{headers}\n{names}\n{body}", out.method, canonical_query(out.url.query()));
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(canonical.as_bytes()));
    let start = format!("AWS4{}", keys.secret);
    let signature = chained(&start, &[&date, region, service, "aws4_request", &text]);
    authorize(
        out,
        &format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            keys.access
        ),
    )
}

/// Signs a request to Tencent Cloud. Returns false if a key is not permitted in a header.
/// `X-TC-Action` and similar headers come from the provider file.
pub(super) fn tencent(
    out: &mut OutgoingRequest,
    keys: &SigningKeys<'_>,
    service: &str,
    now: Timestamp,
) -> bool {
    let (date, _) = date_and_time(now);
    let date = format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]);
    let seconds = now.micros().div_euclid(1_000_000).to_string();
    let Ok(value) = HeaderValue::try_from(&seconds) else { return false };
    out.headers.insert(HeaderName::from_static("x-tc-timestamp"), value);
    // The content type is signed and therefore required, also without a body.
    out.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/x-www-form-urlencoded"));
    let (names, headers) = canonical_headers(out, |name| *name == CONTENT_TYPE);
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        out.method,
        out.url.path(),
        out.url.query().unwrap_or_default(),
        hash(&out.body)
    );
    let scope = format!("{date}/{service}/tc3_request");
    let text = format!("TC3-HMAC-SHA256\n{seconds}\n{scope}\n{}", hash(canonical.as_bytes()));
    let signature = chained(&format!("TC3{}", keys.secret), &[&date, service, "tc3_request", &text]);
    authorize(
        out,
        &format!(
            "TC3-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            keys.access
        ),
    )
}

fn authorize(out: &mut OutgoingRequest, value: &str) -> bool {
    let Ok(mut value) = HeaderValue::try_from(value) else { return false };
    value.set_sensitive(true);
    out.headers.insert(AUTHORIZATION, value);
    true
}

/// Returns the names of the signed headers (always including the host), and one line for each.
fn canonical_headers(out: &OutgoingRequest, signed: impl Fn(&HeaderName) -> bool) -> (String, String) {
    let mut lines = vec![("host".to_owned(), out.host())];
    for name in out.headers.keys().filter(|name| signed(name)) {
        let values = out.headers.get_all(name).iter().map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        lines.push((name.as_str().to_owned(), values.collect::<Vec<_>>().join(",")));
    }
    lines.sort_unstable();
    let names: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
    let text = lines.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>().join("\n");
    (names.join(";"), format!("{text}\n"))
}

/// Returns the parameters in canonical encoding, sorted.
fn canonical_query(query: Option<&str>) -> String {
    let encoded = |text: &str| {
        let bytes: Vec<u8> = percent_decode_str(text).collect();
        percent_encoding::percent_encode(&bytes, ENCODED).to_string()
    };
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Computes HMACs over the texts. Each result is the key of the next one. Returns the last one in
/// hexadecimal.
fn chained(start: &str, texts: &[&str]) -> String {
    let mut key = start.as_bytes().to_vec();
    for text in texts {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
        key = tag.as_ref().to_vec();
    }
    hex::encode(key)
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Formats a time as `20150830` and as `20150830T123600Z`.
fn date_and_time(now: Timestamp) -> (String, String) {
    let text = now.to_string();
    let seconds = text.get(..19).unwrap_or_default().replace(['-', ':'], "");
    (seconds.get(..8).unwrap_or_default().to_owned(), format!("{seconds}Z"))
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use reqwest::header::HeaderMap;
    use url::Url;

    use super::*;

    const AWS: SigningKeys<'_> = SigningKeys {
        access: "AKIDEXAMPLE",
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        session: None,
    };

    fn out(method: Method, url: &str, content_type: Option<&str>, body: &str) -> OutgoingRequest {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
        }
        // This header is not signed.
        headers.insert("accept", "application/json".parse().unwrap());
        OutgoingRequest { method, url: Url::parse(url).unwrap(), headers, body: body.to_owned().into() }
    }

    /// Returns the signature and the names of the headers that it covers.
    fn signature(out: &OutgoingRequest) -> (String, String) {
        assert!(out.headers[AUTHORIZATION].is_sensitive());
        let text = out.headers[AUTHORIZATION].to_str().unwrap();
        let part = |name: &str| text.split_once(name).unwrap().1.split(',').next().unwrap().to_owned();
        (part("Signature="), part("SignedHeaders="))
    }

    #[test]
    fn aws_signatures_match_the_published_test_suite() {
        let at = Timestamp::parse("2015-08-30T12:36:00Z").unwrap();
        let host = "https://example.amazonaws.com";
        let get = |path: &str| out(Method::GET, &format!("{host}{path}"), None, "");
        let form = Some("application/x-www-form-urlencoded");
        for (name, mut out, signed, wanted) in [
            (
                "get-vanilla",
                get("/"),
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                get("/?Param2=value2&Param1=value1"),
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "post-vanilla",
                out(Method::POST, &format!("{host}/"), None, ""),
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                out(Method::POST, &format!("{host}/"), form, "Param1=value1"),
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            assert!(aws(&mut out, &AWS, "us-east-1", "service", at));
            assert_eq!(signature(&out), (wanted.to_owned(), signed.to_owned()), "{name}");
            assert_eq!(out.headers["x-amz-date"], "20150830T123600Z");
        }
        let mut out = get("/");
        assert!(aws(&mut out, &AWS, "us-east-1", "service", at));
        assert_eq!(
            out.headers[AUTHORIZATION],
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn s3_signatures_match_the_documentation() {
        // "Authenticating Requests: Using the Authorization Header", GET Bucket Lifecycle and List
        // Objects.
        let at = Timestamp::parse("2013-05-24T00:00:00Z").unwrap();
        let keys = SigningKeys {
            access: "AKIAIOSFODNN7EXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            session: None,
        };
        for (query, wanted) in [
            ("?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let mut out =
                out(Method::GET, &format!("https://examplebucket.s3.amazonaws.com/{query}"), None, "");
            assert!(aws(&mut out, &keys, "us-east-1", "s3", at));
            let signed = "host;x-amz-content-sha256;x-amz-date".to_owned();
            assert_eq!(signature(&out), (wanted.to_owned(), signed), "{query}");
        }
    }

    #[test]
    fn temporary_aws_credentials_send_and_sign_their_session_token() {
        let at = Timestamp::parse("2015-08-30T12:36:00Z").unwrap();
        let mut out = out(Method::GET, "https://example.amazonaws.com/", None, "");
        assert!(aws(
            &mut out,
            &SigningKeys { session: Some("a-session"), ..AWS },
            "us-east-1",
            "service",
            at
        ));
        assert_eq!(signature(&out).1, "host;x-amz-date;x-amz-security-token");
        assert_eq!(out.headers["x-amz-security-token"], "a-session");
        assert!(out.headers["x-amz-security-token"].is_sensitive());
    }

    #[test]
    fn tencent_signatures_match_the_documentation() {
        // The page "Signature v3", with the keys of its example.
        let body =
            r#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;
        let json = Some("application/json; charset=utf-8");
        let mut out = out(Method::POST, "https://cvm.tencentcloudapi.com/", json, body);
        let keys = SigningKeys {
            access: "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
            secret: "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
            session: None,
        };
        assert!(tencent(&mut out, &keys, "cvm", Timestamp::from_micros(1_551_113_065_000_000)));
        assert_eq!(
            out.headers[AUTHORIZATION],
            "TC3-HMAC-SHA256 Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2019-02-25/cvm/tc3_request, \
             SignedHeaders=content-type;host, Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"
        );
        assert_eq!(out.headers["x-tc-timestamp"], "1551113065");
    }
}
