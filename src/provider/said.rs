//! What a filter may say: its output in a fixed shape, and each output of the job made an [`Offer`].
//!
//! A key that is not known or a value of another kind is refused, so that a slip in a filter never reads
//! as something it did not mean.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use url::Url;

use super::file::Provider;
use super::hosts;
use super::intake::Files;
use super::redact;
use super::request::{Key, NextStep, Payload};
use crate::clock::Timestamp;
use crate::evidence::{FailureClass, Offer, Source};

/// The longest URL of an output, in bytes.
const URL_BYTES: usize = 16 * 1024;
/// Base64 as providers write it: with or without padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A filter's output, in its fixed shape.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct Said {
    pub(super) verdict: String,
    pub(super) class: Option<FailureClass>,
    pub(super) code: Option<Code>,
    pub(super) message: Option<String>,
    pub(super) outputs: Option<Vec<SaidOutput>>,
    #[serde(default)]
    pub(super) outputs_gone: bool,
    /// With the verdict `ask`: the next request, its body or form, its headers, which key goes with
    /// it, and what the filter wants to see again as `kept`.
    pub(super) request: Option<String>,
    pub(super) body: Option<serde_json::Value>,
    pub(super) form: Option<serde_json::Value>,
    pub(super) headers: Option<BTreeMap<String, String>>,
    pub(super) auth: Option<Key>,
    pub(super) keep: Option<serde_json::Value>,
}

/// Codes are words at some providers and numbers at others.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be text or a whole number")]
pub(super) enum Code {
    Number(i64),
    Text(String),
}

impl Said {
    /// The further request that it wants.
    pub(super) fn next_step(self) -> Result<NextStep, String> {
        let payload = match (self.body, self.form) {
            (None, None) => None,
            (Some(body), None) => Some(Payload::Json(body)),
            (None, Some(form)) => Some(Payload::form(&form)?),
            (Some(_), Some(_)) => {
                return Err("the filter gives a `body` and a `form`: only one is sent".to_owned());
            }
        };
        Ok(NextStep {
            request: self.request.ok_or("the filter asks for a further step without a `request`")?,
            payload,
            headers: self.headers.unwrap_or_default(),
            key: self.auth.unwrap_or_default(),
            kept: self.keep.unwrap_or_default(),
        })
    }

    /// Whether it says something that only `ask` may say.
    pub(super) const fn says_next_step(&self) -> bool {
        self.request.is_some()
            || self.body.is_some()
            || self.form.is_some()
            || self.headers.is_some()
            || self.auth.is_some()
            || self.keep.is_some()
    }
}

impl Code {
    pub(super) fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct SaidOutput {
    index: Option<i64>,
    url: Option<String>,
    /// A second path that streams the file: `GET https://…`, on one of `output_hosts`.
    request: Option<String>,
    auth: Option<bool>,
    base64: Option<String>,
    content_type: Option<String>,
    error: Option<String>,
    class: Option<FailureClass>,
    expires_at: Option<Expiry>,
}

/// RFC 3339, in UTC where no zone is named, or seconds or milliseconds since 1970.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a time: text or a number")]
enum Expiry {
    Number(f64),
    Text(String),
}

/// Numbers from here on are milliseconds: as seconds they would be a time after the year 5000.
const MILLISECONDS_FROM: f64 = 1e11;

impl Expiry {
    /// A time that cannot be read is no reason to leave the file: then it expires at an unknown time.
    fn at(&self) -> Option<Timestamp> {
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "saturates, and is checked against the range"
            )]
            Self::Number(number) => match number {
                0.0..MILLISECONDS_FROM => Some(Timestamp::from_micros((number * 1e6) as i64)),
                MILLISECONDS_FROM..1e14 => Some(Timestamp::from_micros((number * 1e3) as i64)),
                _ => None,
            },
            Self::Text(text) => Timestamp::parse(text)
                .or_else(|_| Timestamp::parse(&format!("{}Z", text.trim())))
                .ok()
                .filter(|at| WRITABLE.contains(at)),
        }
    }
}

/// Times that every database can keep: PostgreSQL knows no year 0, and what is past the year 9999 is spelled otherwise.
const WRITABLE: std::ops::Range<Timestamp> =
    Timestamp::from_micros(-62_135_596_800_000_000)..Timestamp::from_micros(253_402_300_800_000_000);

impl SaidOutput {
    /// The output as evidence, or what is wrong with it.
    pub(super) fn offer(self, provider: &Provider, files: &Files, secrets: &[&str]) -> Result<Offer, String> {
        if self.index.is_some_and(|index| index < 0) {
            return Err("the answer names an output with a negative index".into());
        }
        let source = match (self.url, self.request, self.base64, self.error) {
            (Some(url), None, None, None) => {
                if url.len() > URL_BYTES {
                    return Err(format!("the URL of an output is longer than {URL_BYTES} bytes"));
                }
                Source::Url { url, auth: self.auth.unwrap_or(false) }
            }
            // The filter's own words, not the answer's: a slip in it shows at once and not file by file.
            (None, Some(request), None, None) => {
                Source::Url { url: download(&request, provider)?, auth: self.auth.unwrap_or(true) }
            }
            (None, None, Some(text), None) => Source::Inline {
                bytes: match files.get(text.trim_ascii()) {
                    // Decoded as it came.
                    Some(file) => file.clone(),
                    None => BASE64
                        .decode(text.trim_ascii())
                        .map_err(|error| format!("an output is not base64: {error}"))?
                        .into(),
                },
                content_type: self.content_type.filter(|kind| {
                    kind.len() <= 100 && kind.chars().all(|c| c.is_ascii_graphic() || c == ' ')
                }),
            },
            (None, None, None, Some(error)) => Source::Failed {
                class: self.class.unwrap_or(FailureClass::ProviderError),
                message: Some(redact::message(&error, secrets)),
            },
            _ => return Err("an output needs exactly one of `url`, `request`, `base64` and `error`".into()),
        };
        if matches!(&source, Source::Url { auth: true, .. }) && provider.has_no_download_key() {
            return Err("the download of an output needs the key, and `[auth]` puts it into the URL or signs requests: give \
                        `[download.auth]`"
                .into());
        }
        Ok(Offer { index: self.index, source, expires_at: self.expires_at.and_then(|expiry| expiry.at()) })
    }
}

/// The URL of an output that is fetched by a request of its own.
fn download(request: &str, provider: &Provider) -> Result<String, String> {
    let url = request
        .strip_prefix("GET ")
        .ok_or("the `request` of an output must be `GET https://…`: files are fetched by GET only")?
        .trim();
    if url.len() > URL_BYTES {
        return Err(format!("the `request` of an output is longer than {URL_BYTES} bytes"));
    }
    let parsed =
        Url::parse(url).map_err(|error| format!("the `request` of an output is not a URL ({error})"))?;
    hosts::plain(&parsed)?;
    if provider.output_hosts.check(&parsed).is_err() {
        return Err(format!(
            "the `request` of an output goes to `{}`, which is not among `output_hosts`",
            parsed.origin().ascii_serialization()
        ));
    }
    Ok(url.to_owned())
}
