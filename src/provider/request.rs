//! Builds requests from the template in the provider file and the id and model of a job.
//!
//! A job id comes from the platform and may contain any text. No id can change the path or the host
//! of a request: the URL is exactly what the template and the values say, or nothing is sent.
//!
//! - `{name}` is percent-encoded as one path segment.
//! - `{name|raw}` keeps its slashes, because the name of an operation is a path. It rejects `..`,
//!   empty segments, `?`, `#`, `\` and control characters, because they could change the path.
//! - `{name|url}` is a whole URL (a stored polling URL), and must go to one of `ask_hosts`.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use url::{Origin, Url, form_urlencoded};

use super::hosts;
use super::redact;
use crate::egress::{Hosts, is_loopback as is_loopback_host};

/// The longest value of a placeholder, in bytes.
const VALUE_BYTES: usize = 2048;
/// The longest body of a request, in bytes.
const BODY_BYTES: usize = 64 * 1024;
/// The longest value that a filter may keep for the next answer, in bytes of JSON.
const KEPT_BYTES: usize = 1024 * 1024;
/// The most headers that a filter may add to the next request.
const HEADERS: usize = 20;
/// Headers that a filter may not set: they decide where a request goes and where it ends, or they
/// hold a key.
const RESERVED_HEADERS: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "authorization",
    "proxy-authorization",
    "cookie",
];
/// The longest body that is displayed, in bytes.
const SHOWN_BYTES: usize = 500;

/// Encodes everything but the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Encodes the same, but keeps further characters that are permitted in a path segment.
const RAW: &AsciiSet = &SEGMENT.remove(b':').remove(b'@').remove(b'$').remove(b'+').remove(b'=').remove(b',');

/// One request to a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) payload: Option<Payload>,
    /// Headers in addition to those of the provider file.
    pub(super) headers: HeaderMap,
    /// Which key is sent with it.
    pub(super) key: AuthChoice,
    /// The value that the filter receives again with the answer, as `.kept`.
    pub(super) kept: Value,
    /// Whether the query may contain a signature: the URL comes from an answer or from the
    /// platform.
    private_query: bool,
}

/// The body of a POST or a PUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Json(Value),
    /// Encoded as `application/x-www-form-urlencoded`.
    Form(String),
}

impl Payload {
    /// Encodes an object as a form. Its values must be text, numbers, booleans, or lists of these.
    /// A name whose value is null is omitted.
    pub(super) fn form(fields: &Value) -> Result<Self, String> {
        let wrong = || "a form must be an object of texts, numbers, booleans, or lists of these".to_owned();
        let mut form = form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields.as_object().ok_or_else(wrong)? {
            let values = match value {
                Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            for value in values {
                match value {
                    Value::Null => {}
                    Value::String(text) => {
                        form.append_pair(name, text);
                    }
                    Value::Bool(_) | Value::Number(_) => {
                        form.append_pair(name, &value.to_string());
                    }
                    Value::Array(_) | Value::Object(_) => return Err(wrong()),
                }
            }
        }
        Ok(Self::Form(form.finish()))
    }

    pub(super) const fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Form(_) => "application/x-www-form-urlencoded",
        }
    }

    /// The text that is sent.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Json(body) => body.to_string(),
            Self::Form(form) => form.clone(),
        }
    }
}

/// Which key of the provider is sent with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AuthChoice {
    /// The key of questions: `[auth]`.
    #[default]
    Ask,
    /// The key of downloads: `[download.auth]`, or `[auth]` if there is none.
    Download,
    /// No key.
    None,
}

/// The next request that a filter asks for.
#[derive(Debug)]
pub(super) struct NextStep {
    pub(super) request: String,
    pub(super) payload: Option<Payload>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) key: AuthChoice,
    pub(super) kept: Value,
}

impl Request {
    /// The JSON body, if any.
    pub const fn body(&self) -> Option<&Value> {
        match &self.payload {
            Some(Payload::Json(body)) => Some(body),
            Some(Payload::Form(_)) | None => None,
        }
    }

    /// Adds a body. A GET cannot have one.
    pub(super) fn with_payload(mut self, payload: Option<Payload>) -> Result<Self, String> {
        if payload.is_some() && self.method == Method::GET {
            return Err(format!("a {} cannot have a body", self.method));
        }
        if payload.as_ref().is_some_and(|payload| payload.text().len() > BODY_BYTES) {
            return Err(format!("the body of the request is longer than {BODY_BYTES} bytes"));
        }
        self.payload = payload;
        Ok(self)
    }
}

impl Request {
    /// Formats the request for a person who tests a provider file: with its query, but without
    /// values that may be a key or a signature.
    pub(super) fn display(&self, secrets: &[&str]) -> String {
        self.display_as_sent(&self.url, secrets)
    }

    /// Formats the request with the URL that it was sent to, which may contain a key.
    pub(super) fn display_as_sent(&self, sent: &Url, secrets: &[&str]) -> String {
        let mut url = sent.clone();
        url.set_query(None);
        let mut text = redact::clean(&format!("{} {url}", self.method), secrets);
        if let Some(query) = sent.query() {
            text.push('?');
            text.push_str(&redact::query(query, self.private_query, secrets));
        }
        text.push_str(&redact::clean(&self.display_body(), secrets));
        text
    }

    fn display_body(&self) -> String {
        match self.payload.as_ref().map(Payload::text) {
            Some(body) if body.len() > SHOWN_BYTES => format!(" (a body of {} bytes)", body.len()),
            Some(body) => format!(" {body}"),
            None => String::new(),
        }
    }

    /// The whole request with its query. For comparison only: it may contain a signature and must
    /// not be displayed.
    pub(super) fn in_full(&self) -> String {
        let body = self.payload.as_ref().map_or_else(String::new, |payload| format!(" {}", payload.text()));
        format!("{} {}{body}", self.method, self.url)
    }

    /// The value that the filter receives again with the answer; null if it kept none.
    pub const fn kept(&self) -> &Value {
        &self.kept
    }
}

/// The form that is stored and logged: without a query that may contain a signature.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        if self.private_query && url.query().is_some() {
            url.set_query(Some("..."));
        }
        write!(f, "{} {url}{}", self.method, self.display_body())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({self})")
    }
}

/// A request with placeholders: `GET https://host/path/{job}`, or only one: `GET {job|url}`.
#[derive(Clone, Debug)]
pub(super) struct Template {
    method: Method,
    target: Target,
    /// The `ask_hosts`: further hosts for stored URLs and for next requests.
    hosts: Hosts,
}

#[derive(Clone, Debug)]
enum Target {
    Written {
        pieces: Vec<Piece>,
        /// Scheme, host and port.
        origin: Origin,
    },
    /// The value of this placeholder is the whole URL.
    Stored(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { name: String, raw: bool },
}

impl Template {
    /// Parses a template whose placeholders must be in `names`.
    pub(super) fn parse(text: &str, names: &[&str], hosts: Hosts) -> Result<Self, String> {
        let (method, text) = method_and_url(text)?;
        let known = |name: &str| {
            if names.contains(&name) {
                Ok(())
            } else {
                Err(format!("`{{{name}}}` is unknown; known are {}", names.join(", ")))
            }
        };
        let stored = text.strip_prefix('{').and_then(|text| text.strip_suffix("|url}"));
        if let Some(name) = stored {
            known(name)?;
            if hosts.is_empty() {
                return Err("a stored URL needs `ask_hosts`, the hosts that it may go to".into());
            }
            return Ok(Self { method, target: Target::Stored(name.to_owned()), hosts });
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or("a `{` is never closed")? + open;
            pieces.push(Piece::Text(rest[..open].to_owned()));
            let placeholder = &rest[open + 1..close];
            let (name, raw) = match placeholder.split_once('|') {
                None => (placeholder, false),
                Some((name, "raw")) => (name, true),
                Some((_, "url")) => {
                    return Err("`|url` must be the whole URL, as in `GET {job|url}`".into());
                }
                Some((_, other)) => {
                    return Err(format!("`|{other}` is unknown; use `|raw` or `|url`"));
                }
            };
            known(name)?;
            pieces.push(Piece::Value { name: name.to_owned(), raw });
            rest = &rest[close + 1..];
        }
        pieces.push(Piece::Text(rest.to_owned()));

        let sample: BTreeMap<&str, &str> = names.iter().map(|name| (*name, "x")).collect();
        let url = fill(&pieces, &sample)?;
        match url.scheme() {
            "https" | "http" => {}
            other => return Err(format!("the scheme must be https (or http), not `{other}`")),
        }
        hosts::plain(&url)?;
        match pieces.first() {
            // Otherwise a job id could choose the host.
            Some(Piece::Text(text)) if text.matches('/').count() >= 3 => {}
            _ => return Err("scheme and host must not contain placeholders".into()),
        }
        Ok(Self { method, target: Target::Written { pieces, origin: url.origin() }, hosts })
    }

    /// Replaces the placeholders.
    pub(super) fn fill(&self, values: &BTreeMap<&str, &str>) -> Result<Request, String> {
        let (url, private_query) = match &self.target {
            Target::Written { pieces, .. } => (fill(pieces, values)?, false),
            Target::Stored(name) => {
                let text = values.get(name.as_str()).copied().unwrap_or_default();
                let url = stored(name, text)?;
                hosts::check(&self.hosts, &url)?;
                (url, true)
            }
        };
        Ok(Request {
            method: self.method.clone(),
            url,
            payload: None,
            headers: HeaderMap::new(),
            key: AuthChoice::Ask,
            kept: Value::Null,
            private_query,
        })
    }

    /// Checks a request that a filter built from an answer. It must go to the host of the first
    /// request or to one of `ask_hosts`, because a key is sent with it.
    pub(super) fn next_step(&self, next: NextStep) -> Result<Request, String> {
        let (method, text) = method_and_url(&next.request)?;
        let url = Url::parse(text).map_err(|error| format!("not a URL ({error})"))?;
        match &self.target {
            Target::Written { origin, .. } if *origin == url.origin() => hosts::plain(&url)?,
            Target::Written { origin, .. } if self.hosts.is_empty() => {
                return Err(format!(
                    "it goes to {}, but only {} is permitted; to permit it, add its host to `ask_hosts`",
                    url.origin().ascii_serialization(),
                    origin.ascii_serialization()
                ));
            }
            Target::Written { .. } | Target::Stored(_) => hosts::check(&self.hosts, &url)?,
        }
        let NextStep { payload, headers, key, kept, .. } = next;
        let headers = step_headers(&headers)?;
        if kept.to_string().len() > KEPT_BYTES {
            return Err(format!("the value of `keep` is longer than {KEPT_BYTES} bytes"));
        }
        Request { method, url, payload: None, headers, key, kept, private_query: true }.with_payload(payload)
    }

    /// Whether the method permits a body.
    pub(super) fn may_have_body(&self) -> bool {
        self.method != Method::GET
    }

    /// All hosts that questions may go to.
    pub(super) fn asked(&self) -> Hosts {
        match &self.target {
            Target::Written { origin, .. } => Hosts::of_origin(origin).and(self.hosts.clone()),
            Target::Stored(_) => self.hosts.clone(),
        }
    }

    /// Whether questions go unencrypted to another machine.
    pub(super) fn is_plain_http(&self) -> bool {
        match &self.target {
            Target::Written { origin, .. } => {
                matches!(origin, Origin::Tuple(scheme, ..) if scheme == "http") && !is_loopback(origin)
            }
            // `hosts::check` requires https for every stored URL.
            Target::Stored(_) => false,
        }
    }
}

/// Checks the headers of a next request. They may contain text from an answer.
fn step_headers(written: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let (Ok(header), Ok(text)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err("one of its `headers` has an invalid name or value".to_owned());
        };
        if RESERVED_HEADERS.contains(&header.as_str()) {
            return Err(format!("its `headers` may not set `{header}`"));
        }
        headers.insert(header, text);
    }
    if headers.len() > HEADERS
        || written.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > VALUE_BYTES
    {
        return Err(format!(
            "it has more than {HEADERS} `headers`, or they are longer than {VALUE_BYTES} bytes"
        ));
    }
    Ok(headers)
}

fn is_loopback(origin: &Origin) -> bool {
    match origin {
        Origin::Tuple(_, host, _) => is_loopback_host(host),
        Origin::Opaque(_) => false,
    }
}

/// Parses a stored URL. The caller checks its host.
fn stored(name: &str, text: &str) -> Result<Url, String> {
    if text.is_empty() {
        return Err(format!("the {name} is empty"));
    }
    if text.len() > VALUE_BYTES {
        return Err(format!("the {name} is longer than {VALUE_BYTES} bytes"));
    }
    // The parser drops tabs and line ends, and takes a backslash for a slash.
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(format!("the {name} contains characters that are invalid in a URL"));
    }
    Url::parse(text).map_err(|error| format!("the {name} is not a URL ({error})"))
}

fn method_and_url(text: &str) -> Result<(Method, &str), String> {
    match text.trim().split_once(' ') {
        Some(("GET", url)) => Ok((Method::GET, url.trim())),
        Some(("POST", url)) => Ok((Method::POST, url.trim())),
        Some(("PUT", url)) => Ok((Method::PUT, url.trim())),
        Some((method, _)) => Err(format!("the method must be GET, POST or PUT, not `{method}`")),
        None => Err("it must be a method and a URL, for instance `GET https://host/{job}`".into()),
    }
}

fn fill(pieces: &[Piece], values: &BTreeMap<&str, &str>) -> Result<Url, String> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(fixed) => text.push_str(fixed),
            Piece::Value { name, raw } => {
                let value = values.get(name.as_str()).copied().unwrap_or_default();
                text.push_str(&encode(name, value, *raw)?);
            }
        }
    }
    let url = Url::parse(&text).map_err(|error| format!("`{text}` is not a URL ({error})"))?;
    // A URL parser normalizes dot segments, backslashes and more. The result would be another path.
    if url.as_str() != text {
        return Err(format!("`{text}` would be sent as `{url}`"));
    }
    Ok(url)
}

fn encode(name: &str, value: &str, raw: bool) -> Result<String, String> {
    if value.is_empty() {
        return Err(format!("the {name} is empty"));
    }
    if value.len() > VALUE_BYTES {
        return Err(format!("the {name} is longer than {VALUE_BYTES} bytes"));
    }
    if !raw {
        return match value {
            "." | ".." => Err(format!("the {name} `{value}` would change the path")),
            _ => Ok(utf8_percent_encode(value, SEGMENT).to_string()),
        };
    }
    if let Some(bad) = value.chars().find(|c| c.is_control() || matches!(c, '?' | '#' | '\\')) {
        return Err(format!("the {name} contains {bad:?}, which is not permitted in a path"));
    }
    let mut encoded = Vec::new();
    for segment in value.split('/') {
        match segment {
            "" => return Err(format!("the {name} begins or ends with a slash, or contains two in a row")),
            "." | ".." => {
                return Err(format!("the {name} contains `{segment}`, which would change the path"));
            }
            _ => encoded.push(utf8_percent_encode(segment, RAW).to_string()),
        }
    }
    Ok(encoded.join("/"))
}

#[cfg(test)]
mod tests;
