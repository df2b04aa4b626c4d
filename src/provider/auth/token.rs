//! Signs JSON Web Tokens with HMAC-SHA256 (`jwt_hs256`, RFC 7519). Each request gets a new token.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::clock::Timestamp;

/// The claim `nbf` is this long before now, because the provider's clock may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Creates a token with the claims `iss`, `exp` and `nbf`, as Kling documents them.
pub(super) fn signed(issuer: &str, secret: &str, now: Timestamp, lifetime: Duration) -> String {
    let secs = |at: Timestamp| at.micros().div_euclid(1_000_000);
    let claims = serde_json::json!({
        "iss": issuer,
        "exp": secs(now + lifetime),
        "nbf": secs(now - CLOCK_SKEW),
    });
    jws_hs256(secret.as_bytes(), br#"{"alg":"HS256","typ":"JWT"}"#, claims.to_string().as_bytes())
}

/// Signs header and payload (RFC 7515, compact serialization).
fn jws_hs256(key: &[u8], header: &[u8], payload: &[u8]) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_match_the_examples_of_rfc_7515_and_of_jwt_io() {
        // RFC 7515, appendix A.1, with its line breaks.
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let rfc = jws_hs256(
            &key,
            b"{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}",
            b"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}",
        );
        assert_eq!(
            rfc,
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
             Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
        // The example of jwt.io.
        let known = jws_hs256(
            b"your-256-bit-secret",
            br#"{"alg":"HS256","typ":"JWT"}"#,
            br#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#,
        );
        assert!(known.ends_with(".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"), "{known}");
    }
}
