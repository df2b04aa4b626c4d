//! OAuth 2.0 client credentials (RFC 6749, section 4.4): a token is asked for with the client's id
//! and secret, and used until shortly before it expires.
//!
//! Promise: one request for all questions that wait for a token; one that fails is not repeated for
//! half a minute; a token that is refused is renewed once a minute. Nothing of the answer reaches
//! an error but the status and the error code of the RFC. Nothing is stored: another process asks
//! for a token of its own.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::super::outgoing::{Caller, Outgoing};
use super::super::secret::{Held, Kept, Secret, SecretError};
use crate::http;

/// The longest answer of a token endpoint, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long before its end a token is no longer used, unless that is more than a tenth of its life.
const MARGIN: Duration = Duration::from_mins(1);
/// The longest life of a token that is believed.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// The error codes of RFC 6749, section 5.2: words that may be repeated.
const CODES: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// How the client's id and secret are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientAuth {
    /// In an `Authorization: Basic` header.
    #[default]
    Basic,
    /// As `client_id` and `client_secret` in the form.
    Body,
}

/// Where tokens come from.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) url: Url,
    pub(super) client_id: Held,
    pub(super) client_secret: Held,
    pub(super) client_auth: ClientAuth,
    pub(super) scope: Option<String>,
    pub(super) audience: Option<String>,
    /// Of a token whose answer does not say how long it is good for.
    pub(super) lifetime: Duration,
    pub(super) kept: Kept<String>,
}

impl Tokens {
    /// A token and which request it comes from; and the client's id and secret, which no answer may
    /// repeat.
    pub(super) async fn get(&self, caller: &Caller<'_>) -> Result<(Secret, u64, [Secret; 2]), SecretError> {
        let (id, _) = self.client_id.get(caller.provider).await?;
        let (secret, _) = self.client_secret.get(caller.provider).await?;
        let got = self.kept.get(self.ask(caller, &id, &secret)).await;
        match got {
            Ok((token, run)) => Ok((token, run, [id, secret])),
            Err(trouble) => Err(SecretError::Token {
                provider: caller.provider.to_owned(),
                host: self.url.host_str().unwrap_or_default().to_owned(),
                trouble,
            }),
        }
    }

    async fn ask(
        &self,
        caller: &Caller<'_>,
        id: &Secret,
        secret: &Secret,
    ) -> Result<(Secret, Duration), String> {
        let client = caller.client.clone()?;
        let out = self.request(id.expose(), secret.expose())?;
        let (status, body) = exchange(client, &out).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !(200..300).contains(&status) {
            let code =
                answer["error"].as_str().and_then(|code| CODES.into_iter().find(|known| *known == code));
            return Err(format!("HTTP {status}{}", code.map(|code| format!(", {code}")).unwrap_or_default()));
        }
        let token = answer["access_token"].as_str().filter(|token| !token.is_empty());
        let token = token.ok_or("the answer holds no `access_token`")?;
        let lifetime = match &answer["expires_in"] {
            Value::Null => self.lifetime,
            said => seconds(said).ok_or("its `expires_in` is no number of seconds")?,
        };
        Ok((Secret::new(token.to_owned()), used_for(lifetime)))
    }

    fn request(&self, id: &str, secret: &str) -> Result<Outgoing, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", &self.scope), ("audience", &self.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        match self.client_auth {
            ClientAuth::Body => {
                form.append_pair("client_id", id).append_pair("client_secret", secret);
            }
            ClientAuth::Basic => {
                // Both are encoded like a form's values before they are joined (RFC 6749, section
                // 2.3.1).
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
                let mut value = HeaderValue::try_from(format!("Basic {pair}"))
                    .map_err(|_| "the client's id or secret cannot be sent in a header")?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        Ok(Outgoing { method: Method::POST, url: self.url.clone(), headers, body: form.finish().into() })
    }
}

/// `expires_in`, which some write as text.
fn seconds(said: &Value) -> Option<Duration> {
    let seconds = said.as_f64().or_else(|| said.as_str()?.trim().parse().ok())?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// How long a token of this lifetime is used.
fn used_for(lifetime: Duration) -> Duration {
    let lifetime = lifetime.min(LIFETIME_MAX);
    lifetime.saturating_sub(MARGIN.min(lifetime / 10))
}

/// Status and body; an error says what went wrong, without the URL.
async fn exchange(client: &http::Client, out: &Outgoing) -> Result<(u16, Bytes), String> {
    let broken = |error: http::Error| {
        let what = if error.is_timeout() { "no answer in time" } else { "the exchange broke off" };
        if error.is_connect() { "could not connect".to_owned() } else { what.to_owned() }
    };
    let mut response = out.send(client).await.map_err(broken)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(format!("the answer is longer than {ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status().as_u16(), body.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        for (said, used) in [
            (serde_json::json!(3600), Some(3540)),
            (serde_json::json!("3600"), Some(3540)),
            (serde_json::json!(100), Some(90)),
            (serde_json::json!(0), Some(0)),
            (serde_json::json!(1e300), None),
            (serde_json::json!(1e12), Some(86_340)),
            (serde_json::json!(-1), None),
            (serde_json::json!("soon"), None),
        ] {
            let got = seconds(&said).map(used_for);
            assert_eq!(got, used.map(Duration::from_secs), "{said}");
        }
    }
}
