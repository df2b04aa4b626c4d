//! The schema of a filter's output, and the conversion of each output of the job into an [`Offer`].
//!
//! An unknown key and a value of the wrong type are rejected. Otherwise a typo in a filter could be
//! read as something else than its author meant.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use url::Url;

use super::body_decoder::InlineFiles;
use super::file::Provider;
use super::hosts;
use super::redact;
use super::request::{AuthChoice, NextStep, Payload};
use crate::clock::Timestamp;
use crate::evidence::{FailureClass, Offer, Source};

/// The longest URL of an output, in bytes.
const MAX_URL_BYTES: usize = 16 * 1024;
/// Base64 with or without padding: providers use both.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The output of a filter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct FilterOutput {
    pub(super) verdict: String,
    pub(super) class: Option<FailureClass>,
    pub(super) code: Option<ProviderCode>,
    pub(super) message: Option<String>,
    pub(super) outputs: Option<Vec<OutputEntry>>,
    #[serde(default)]
    pub(super) outputs_gone: bool,
    /// With the verdict `ask`: the next request. The fields below belong to it: its body or form,
    /// its headers, the key to send, and a value that the filter receives again as `.kept`.
    pub(super) request: Option<String>,
    pub(super) body: Option<serde_json::Value>,
    pub(super) form: Option<serde_json::Value>,
    pub(super) headers: Option<BTreeMap<String, String>>,
    pub(super) auth: Option<AuthChoice>,
    pub(super) keep: Option<serde_json::Value>,
}

/// The provider's error code: some providers use words, others numbers.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be text or a whole number")]
pub(super) enum ProviderCode {
    Number(i64),
    Text(String),
}

impl FilterOutput {
    /// Returns the next request that the filter asks for.
    pub(super) fn next_step(self) -> Result<NextStep, String> {
        let payload = match (self.body, self.form) {
            (None, None) => None,
            (Some(body), None) => Some(Payload::Json(body)),
            (None, Some(form)) => Some(Payload::form(&form)?),
            (Some(_), Some(_)) => {
                return Err("the filter returned a `body` and a `form`: only one can be sent".to_owned());
            }
        };
        Ok(NextStep {
            request: self.request.ok_or("the filter returned `ask` without a `request`")?,
            payload,
            headers: self.headers.unwrap_or_default(),
            key: self.auth.unwrap_or_default(),
            kept: self.keep.unwrap_or_default(),
        })
    }

    /// Whether it contains a key that is only permitted with `ask`.
    pub(super) const fn has_next_step(&self) -> bool {
        self.request.is_some()
            || self.body.is_some()
            || self.form.is_some()
            || self.headers.is_some()
            || self.auth.is_some()
            || self.keep.is_some()
    }
}

impl ProviderCode {
    pub(super) fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// One entry of `outputs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct OutputEntry {
    index: Option<i64>,
    url: Option<String>,
    /// A request that returns the file itself: `GET https://…`, to one of `output_hosts`.
    request: Option<String>,
    auth: Option<bool>,
    base64: Option<String>,
    content_type: Option<String>,
    error: Option<String>,
    class: Option<FailureClass>,
    expires_at: Option<Expiry>,
}

/// RFC 3339 (UTC if no time zone is given), or seconds or milliseconds since 1970.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a time: text or a number")]
enum Expiry {
    Number(f64),
    Text(String),
}

/// Numbers from here on are milliseconds. As seconds, they would be after the year 5000.
const MILLISECONDS_FROM: f64 = 1e11;

impl Expiry {
    /// Returns the time, or `None` if it cannot be read. The file is fetched all the same.
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
                .filter(|at| STORABLE.contains(at)),
        }
    }
}

/// Times that every database can store. PostgreSQL has no year 0, and years after 9999 have another
/// text format.
const STORABLE: std::ops::Range<Timestamp> =
    Timestamp::from_micros(-62_135_596_800_000_000)..Timestamp::from_micros(253_402_300_800_000_000);

impl OutputEntry {
    /// Converts the entry into evidence. An error says why it is invalid.
    pub(super) fn offer(
        self,
        provider: &Provider,
        files: &InlineFiles,
        secrets: &[&str],
    ) -> Result<Offer, String> {
        if self.index.is_some_and(|index| index < 0) {
            return Err("the answer lists an output with a negative index".into());
        }
        let source = match (self.url, self.request, self.base64, self.error) {
            (Some(url), None, None, None) => {
                if url.len() > MAX_URL_BYTES {
                    return Err(format!("the URL of an output is longer than {MAX_URL_BYTES} bytes"));
                }
                Source::Url { url, auth: self.auth.unwrap_or(false) }
            }
            // The filter wrote this URL, so it is checked here: a mistake in the filter makes the
            // whole answer unreadable, instead of failing file by file.
            (None, Some(request), None, None) => {
                Source::Url { url: download_url(&request, provider)?, auth: self.auth.unwrap_or(true) }
            }
            (None, None, Some(text), None) => Source::Inline {
                bytes: match files.get(text.trim_ascii()) {
                    // It was decoded while the body arrived.
                    Some(file) => file.clone(),
                    None => BASE64
                        .decode(text.trim_ascii())
                        .map_err(|error| format!("an output is not valid base64: {error}"))?
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
            return Err(
                "the download of an output needs the key, but `[auth]` puts it into the URL or signs requests: \
                        add `[download.auth]`"
                    .into(),
            );
        }
        Ok(Offer { index: self.index, source, expires_at: self.expires_at.and_then(|expiry| expiry.at()) })
    }
}

/// Checks the `request` of an output and returns its URL.
fn download_url(request: &str, provider: &Provider) -> Result<String, String> {
    let url = request
        .strip_prefix("GET ")
        .ok_or("the `request` of an output must be `GET https://…`: files are fetched by GET only")?
        .trim();
    if url.len() > MAX_URL_BYTES {
        return Err(format!("the `request` of an output is longer than {MAX_URL_BYTES} bytes"));
    }
    let parsed =
        Url::parse(url).map_err(|error| format!("the `request` of an output is not a URL ({error})"))?;
    hosts::plain(&parsed)?;
    if provider.output_hosts.check(&parsed).is_err() {
        return Err(format!(
            "the `request` of an output goes to `{}`, which is not in `output_hosts`",
            parsed.origin().ascii_serialization()
        ));
    }
    Ok(url.to_owned())
}
