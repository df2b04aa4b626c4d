//! OAuth 2.0 client credentials (RFC 6749, section 4.4): requests a token with the client's id and
//! secret, and uses it until shortly before it expires.
//!
//! All questions that wait for a token share one request. A request that failed is not repeated for
//! 30 seconds. A rejected token is renewed at most once a minute. Errors contain only the HTTP
//! status and the error code of the RFC from the answer. Nothing is stored: each process requests
//! its own token.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::super::outgoing::{AuthContext, OutgoingRequest};
use super::super::secret::{Secret, SecretCache, SecretError, SecretReader};
use crate::http;

/// The longest answer of a token endpoint, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long before its expiry a token is no longer used, or a tenth of its lifetime if that is
/// less.
const MARGIN: Duration = Duration::from_mins(1);
/// The longest lifetime of a token. A longer `expires_in` is capped.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// The error codes of RFC 6749, section 5.2. Only these are repeated in errors.
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

/// A token endpoint, and the cache of its last token.
#[derive(Debug)]
pub(super) struct TokenSource {
    pub(super) url: Url,
    pub(super) client_id: SecretReader,
    pub(super) client_secret: SecretReader,
    pub(super) client_auth: ClientAuth,
    pub(super) scope: Option<String>,
    pub(super) audience: Option<String>,
    /// The lifetime of a token whose answer has no `expires_in`.
    pub(super) lifetime: Duration,
    pub(super) cache: SecretCache<String>,
}

impl TokenSource {
    /// Returns a token, the run that it comes from, and the client's id and secret, which must also
    /// be removed from answers.
    pub(super) async fn get(
        &self,
        context: &AuthContext<'_>,
    ) -> Result<(Secret, u64, [Secret; 2]), SecretError> {
        let (id, _) = self.client_id.get(context.provider).await?;
        let (secret, _) = self.client_secret.get(context.provider).await?;
        let got = self.cache.get(self.ask(context, &id, &secret)).await;
        match got {
            Ok((token, run)) => Ok((token, run, [id, secret])),
            Err(reason) => Err(SecretError::Token {
                provider: context.provider.to_owned(),
                host: self.url.host_str().unwrap_or_default().to_owned(),
                reason,
            }),
        }
    }

    async fn ask(
        &self,
        context: &AuthContext<'_>,
        id: &Secret,
        secret: &Secret,
    ) -> Result<(Secret, Duration), String> {
        let client = context.client.clone()?;
        let out = self.request(id.expose(), secret.expose())?;
        let (status, body) = exchange(client, &out).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !(200..300).contains(&status) {
            let code =
                answer["error"].as_str().and_then(|code| CODES.into_iter().find(|known| *known == code));
            return Err(format!("HTTP {status}{}", code.map(|code| format!(", {code}")).unwrap_or_default()));
        }
        let token = answer["access_token"].as_str().filter(|token| !token.is_empty());
        let token = token.ok_or("the answer has no `access_token`")?;
        let lifetime = match &answer["expires_in"] {
            Value::Null => self.lifetime,
            value => seconds(value).ok_or("its `expires_in` is not a number of seconds")?,
        };
        Ok((Secret::new(token.to_owned()), used_for(lifetime)))
    }

    fn request(&self, id: &str, secret: &str) -> Result<OutgoingRequest, String> {
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
                // RFC 6749, section 2.3.1: both are form-encoded before they are joined.
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
                let mut value = HeaderValue::try_from(format!("Basic {pair}"))
                    .map_err(|_| "the client's id or secret cannot be sent in a header")?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        Ok(OutgoingRequest {
            method: Method::POST,
            url: self.url.clone(),
            headers,
            body: form.finish().into(),
        })
    }
}

/// Reads `expires_in`, which some providers send as text.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// How long a token with this lifetime is used.
fn used_for(lifetime: Duration) -> Duration {
    let lifetime = lifetime.min(LIFETIME_MAX);
    lifetime.saturating_sub(MARGIN.min(lifetime / 10))
}

/// Sends the request and returns status and body. An error does not contain the URL.
async fn exchange(client: &http::Client, out: &OutgoingRequest) -> Result<(u16, Bytes), String> {
    let broken = |error: http::Error| {
        let what = if error.is_timeout() { "no answer in time" } else { "the connection was interrupted" };
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
    fn a_token_is_used_until_shortly_before_it_expires() {
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
