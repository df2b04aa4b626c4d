//! How a provider wants its key: in which header, with which words around it, as it is or as a signed token.
//!
//! Questions and downloads may have keys of their own (`[auth]`, `[download.auth]`). A header with a key is
//! marked sensitive, and every word of the key is handed to whoever cleans answers.
//! A signed token (`jwt_hs256`) is made anew for each request: nothing of it is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use serde::Deserialize;

use super::file::{Flaw, flaw, headers};
use super::secret::{Held, Secret, SecretError, SecretSource};
use super::span::Span;
use crate::clock::Timestamp;

/// How long a signed token is good for, unless the file says otherwise.
const LIFETIME: Duration = Duration::from_mins(30);
/// How long before now a token becomes valid: clocks differ.
const NOT_BEFORE: Duration = Duration::from_secs(5);

/// `[auth]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAuth {
    #[serde(default)]
    kind: Kind,
    header: String,
    value: String,
    secret: SecretSource,
    access_key: Option<SecretSource>,
    lifetime: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The key as it is.
    #[default]
    Header,
    /// A token signed with HMAC-SHA256 (RFC 7519), from an access key and a secret key.
    JwtHs256,
}

impl WrittenAuth {
    pub(super) fn check(self, section: &str) -> Result<Auth, Flaw> {
        let key = |name: &str| format!("{section}.{name}");
        let Ok(header) = HeaderName::try_from(&self.header) else {
            return flaw(key("header"), "a header's name, for instance `Authorization`");
        };
        if self.value.matches("{secret}").count() != 1 || HeaderValue::try_from(&self.value).is_err() {
            return flaw(
                key("value"),
                "printable text with `{secret}` in it once, for instance `Bearer {secret}`",
            );
        }
        let token = match (self.kind, self.access_key, self.lifetime) {
            (Kind::Header, None, None) => None,
            (Kind::Header, Some(_), _) => {
                return flaw(key("access_key"), "left out, unless kind = \"jwt_hs256\"");
            }
            (Kind::Header, None, Some(_)) => {
                return flaw(key("lifetime"), "left out, unless kind = \"jwt_hs256\"");
            }
            (Kind::JwtHs256, None, _) => {
                return flaw(key("access_key"), "where the access key is, for instance { env = \"NAME\" }");
            }
            (Kind::JwtHs256, Some(issuer), lifetime) => {
                let lifetime = lifetime.map_or(LIFETIME, |span| span.0);
                if lifetime < Duration::from_mins(1) {
                    return flaw(key("lifetime"), "1m or more");
                }
                Some(Token { issuer: Held::new(issuer), lifetime })
            }
        };
        Ok(Auth { header, value: self.value, secret: Held::new(self.secret), token })
    }
}

/// `[download]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenDownload {
    #[serde(default)]
    headers: BTreeMap<String, String>,
    auth: Option<WrittenAuth>,
}

impl WrittenDownload {
    pub(super) fn check(self) -> Result<Download, Flaw> {
        Ok(Download {
            headers: headers("download.headers", &self.headers)?,
            auth: self.auth.map(|auth| auth.check("download.auth")).transpose()?,
        })
    }
}

/// What is sent along with the download of a file that needs the key.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) headers: HeaderMap,
    /// None: as when asking.
    pub(super) auth: Option<Auth>,
}

/// How a key is sent.
#[derive(Debug)]
pub(super) struct Auth {
    header: HeaderName,
    /// Holds `{secret}` once.
    value: String,
    secret: Held,
    token: Option<Token>,
}

/// What a signed token is made of, beside the secret key.
#[derive(Debug)]
struct Token {
    issuer: Held,
    lifetime: Duration,
}

/// A key that was put into a request.
#[derive(Debug)]
pub(super) struct Applied {
    words: Vec<Secret>,
    run: u64,
}

impl Applied {
    /// All that must not be kept of an answer that repeats it.
    pub(super) fn words(&self) -> Vec<&str> {
        self.words.iter().map(Secret::expose).collect()
    }
}

impl Auth {
    /// Reads the key and puts it into `headers`, replacing one of that name.
    pub(super) async fn apply(
        &self,
        provider: &str,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) -> Result<Applied, SecretError> {
        let (secret, run) = self.secret.get(provider).await?;
        let mut words = vec![secret];
        if let Some(token) = &self.token {
            let (issuer, _) = token.issuer.get(provider).await?;
            let signed = signed(issuer.expose(), words[0].expose(), now, token.lifetime);
            words.extend([issuer, Secret::new(signed)]);
        }
        // The last one is what is sent.
        let sent = words.last().map_or("", Secret::expose);
        let mut value = HeaderValue::try_from(self.value.replace("{secret}", sent))
            .map_err(|_| SecretError::NotAHeader { provider: provider.to_owned() })?;
        value.set_sensitive(true);
        headers.insert(self.header.clone(), value);
        Ok(Applied { words, run })
    }

    /// The provider has refused this key: whether asking again would bring another one.
    pub(super) async fn refused(&self, applied: &Applied) -> bool {
        self.secret.refused(applied.run).await
    }

    /// The provider has refused the key that was last given out.
    pub(super) async fn refused_now(&self) {
        self.secret.refused_now().await;
    }

    /// Whether the key is there, as far as that can be told without running anything.
    pub(super) fn present(&self, provider: &str) -> Result<(), SecretError> {
        let helds = [Some(&self.secret), self.token.as_ref().map(|token| &token.issuer)];
        helds.into_iter().flatten().try_for_each(|held| held.read(provider).map(drop))
    }

    /// Where the key is looked for.
    pub(super) const fn source(&self) -> &SecretSource {
        self.secret.source()
    }
}

/// A token as Kling's documentation words it: who, until when, from when.
fn signed(issuer: &str, secret: &str, now: Timestamp, lifetime: Duration) -> String {
    let secs = |at: Timestamp| at.micros().div_euclid(1_000_000);
    let claims = serde_json::json!({
        "iss": issuer,
        "exp": secs(now + lifetime),
        "nbf": secs(now - NOT_BEFORE),
    });
    jws_hs256(secret.as_bytes(), br#"{"alg":"HS256","typ":"JWT"}"#, claims.to_string().as_bytes())
}

/// Header and payload, signed (RFC 7515, compact serialization).
fn jws_hs256(key: &[u8], header: &[u8], payload: &[u8]) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> Auth {
        toml::from_str::<WrittenAuth>(text).unwrap().check("auth").unwrap()
    }

    const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

    #[tokio::test]
    async fn a_key_is_read_anew_each_time_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let auth = auth(&format!(
            "header = \"Authorization\"\nvalue = \"Bearer {{secret}}\"\nsecret = {{ file = {path:?} }}"
        ));
        for key in ["first-key", "second-key"] {
            std::fs::write(&path, format!("{key}\n")).unwrap();
            let mut headers = HeaderMap::new();
            let applied = auth.apply("acme", NOW, &mut headers).await.unwrap();
            assert_eq!(headers["authorization"].to_str().unwrap(), format!("Bearer {key}"));
            assert_eq!(applied.words(), [key]);
            let shown = format!("{applied:?} {auth:?} {:?}", headers["authorization"]);
            assert!(shown.contains("[secret]") && shown.contains("Sensitive"), "{shown}");
            assert!(!shown.contains("-key\""), "{shown}");
        }
        std::fs::write(&path, "two\nlines").unwrap();
        let error = auth.apply("acme", NOW, &mut HeaderMap::new()).await.unwrap_err();
        assert!(!error.to_string().contains("lines"), "{error}");
    }

    #[test]
    fn signatures_are_those_of_the_standards() {
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
        // The example that every page about these tokens shows.
        let known = jws_hs256(
            b"your-256-bit-secret",
            br#"{"alg":"HS256","typ":"JWT"}"#,
            br#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#,
        );
        assert!(known.ends_with(".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"), "{known}");
    }

    #[tokio::test]
    async fn a_token_says_who_and_until_when_and_both_its_keys_are_cleaned_out_of_answers() {
        let dir = tempfile::tempdir().unwrap();
        for (name, key) in [("access", "ak-1"), ("secret", "sk-1")] {
            std::fs::write(dir.path().join(name), key).unwrap();
        }
        let path = dir.path().display();
        let auth = auth(&format!(
            "kind = \"jwt_hs256\"\nheader = \"Authorization\"\nvalue = \"Bearer {{secret}}\"\n\
             access_key = {{ file = \"{path}/access\" }}\nsecret = {{ file = \"{path}/secret\" }}"
        ));
        let mut headers = HeaderMap::new();
        let applied = auth.apply("kling", NOW, &mut headers).await.unwrap();
        let sent = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
        assert_eq!(applied.words(), ["sk-1", "ak-1", sent]);
        let claims = sent.split('.').nth(1).unwrap();
        let claims: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert_eq!(claims, serde_json::json!({"iss": "ak-1", "exp": 1_764_001_800, "nbf": 1_763_999_995}));
        std::fs::remove_file(dir.path().join("access")).unwrap();
        assert!(auth.present("kling").is_err());
        assert!(auth.apply("kling", NOW, &mut headers).await.is_err());
    }
}
