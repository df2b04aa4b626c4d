//! Questions as requests: a template of the provider file, filled with a job's id and model.
//!
//! A job id is the platform's text and may hold anything. Promise: what is asked is exactly what the
//! template and the values say, or nothing is asked at all; no id can lead to another path or host.
//! `{name}` is percent-encoded as one segment; `{name|raw}` keeps its slashes (an operation's name is a
//! path) and refuses everything that could change the way: `..`, empty segments, `?`, `#`, control characters.
//! `{name|url}` is a whole URL (a stored polling URL) and goes to one of `ask_hosts` or nowhere.

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

/// The longest value that is put into a URL, in bytes.
const VALUE_BYTES: usize = 2048;
/// The longest body of a request, in bytes.
const BODY_BYTES: usize = 64 * 1024;
/// The most that a filter may keep from one step to the next, in bytes.
const KEPT_BYTES: usize = 1024 * 1024;
/// The most headers of a further step.
const HEADERS: usize = 20;
/// Headers that decide where a request goes and where it ends, or that hold a key.
const OURS: [&str; 10] = [
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
/// How much of a body is shown, in bytes.
const SHOWN_BYTES: usize = 500;

/// All but the letters that RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, keeping what a path's segment may hold as it is.
const RAW: &AsciiSet = &SEGMENT.remove(b':').remove(b'@').remove(b'$').remove(b'+').remove(b'=').remove(b',');

/// One request to a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) payload: Option<Payload>,
    /// Headers beside those of the provider's file.
    pub(super) headers: HeaderMap,
    /// Which key goes with it.
    pub(super) key: Key,
    /// What the filter wants to see again beside the answer.
    pub(super) kept: Value,
    /// Whether its query may be a signature: it came out of an answer, or was stored.
    private_query: bool,
}

/// What is sent with a POST or a PUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Json(Value),
    /// Encoded as `application/x-www-form-urlencoded`.
    Form(String),
}

impl Payload {
    /// A form of an object whose values are text, numbers, booleans, or lists of these; null leaves
    /// a name out.
    pub(super) fn form(fields: &Value) -> Result<Self, String> {
        let wrong = || "a form is an object of texts, numbers, booleans, or lists of these".to_owned();
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

    /// As it is sent.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Json(body) => body.to_string(),
            Self::Form(form) => form.clone(),
        }
    }
}

/// Which of a provider's keys goes with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Key {
    /// That of questions: `[auth]`.
    #[default]
    Ask,
    /// That of files: `[download.auth]`, or `[auth]` where there is none.
    Download,
    /// None: the URL is enough.
    None,
}

/// A further request, as a filter words it.
#[derive(Debug)]
pub(super) struct NextStep {
    pub(super) request: String,
    pub(super) payload: Option<Payload>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) key: Key,
    pub(super) kept: Value,
}

impl Request {
    /// The JSON that is sent along, if any.
    pub const fn body(&self) -> Option<&Value> {
        match &self.payload {
            Some(Payload::Json(body)) => Some(body),
            Some(Payload::Form(_)) | None => None,
        }
    }

    /// The same request with a body; a GET has none.
    pub(super) fn with_payload(mut self, payload: Option<Payload>) -> Result<Self, String> {
        if payload.is_some() && self.method == Method::GET {
            return Err(format!("a {} has no body", self.method));
        }
        if payload.as_ref().is_some_and(|payload| payload.text().len() > BODY_BYTES) {
            return Err(format!("its body is longer than {BODY_BYTES} bytes"));
        }
        self.payload = payload;
        Ok(self)
    }
}

impl Request {
    /// The request for a person who tries out a provider file: with its query, without what may be
    /// a key or a signature in it.
    pub(super) fn shown(&self, secrets: &[&str]) -> String {
        self.shown_at(&self.url, secrets)
    }

    /// The same of the URL that it was sent to, which may hold a key.
    pub(super) fn shown_at(&self, sent: &Url, secrets: &[&str]) -> String {
        let mut url = sent.clone();
        url.set_query(None);
        let mut text = redact::clean(&format!("{} {url}", self.method), secrets);
        if let Some(query) = sent.query() {
            text.push('?');
            text.push_str(&redact::query(query, self.private_query, secrets));
        }
        text.push_str(&redact::clean(&self.shown_body(), secrets));
        text
    }

    fn shown_body(&self) -> String {
        match self.payload.as_ref().map(Payload::text) {
            Some(body) if body.len() > SHOWN_BYTES => format!(" (a body of {} bytes)", body.len()),
            Some(body) => format!(" {body}"),
            None => String::new(),
        }
    }

    /// The whole request, with its query: only for comparing, never to be shown.
    pub(super) fn in_full(&self) -> String {
        let body = self.payload.as_ref().map_or_else(String::new, |payload| format!(" {}", payload.text()));
        format!("{} {}{body}", self.method, self.url)
    }

    /// What the filter wants to see again beside the answer; null for nothing.
    pub const fn kept(&self) -> &Value {
        &self.kept
    }
}

/// Without a query that may be a signature: what is stored and logged.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        if self.private_query && url.query().is_some() {
            url.set_query(Some("..."));
        }
        write!(f, "{} {url}{}", self.method, self.shown_body())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({self})")
    }
}

/// A request with gaps: `GET https://host/path/{job}`, or a gap alone: `GET {job|url}`.
#[derive(Clone, Debug)]
pub(super) struct Template {
    method: Method,
    target: Target,
    /// Where else it may go: stored URLs and further steps.
    hosts: Hosts,
}

#[derive(Clone, Debug)]
enum Target {
    Written {
        pieces: Vec<Piece>,
        /// Where the provider is.
        origin: Origin,
    },
    /// The value of this name is the whole URL.
    Stored(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { name: String, raw: bool },
}

impl Template {
    /// Reads a template whose gaps are among `names`.
    pub(super) fn parse(text: &str, names: &[&str], hosts: Hosts) -> Result<Self, String> {
        let (method, text) = method_and_url(text)?;
        let known = |name: &str| {
            if names.contains(&name) {
                Ok(())
            } else {
                Err(format!("`{{{name}}}` is unknown, known are {}", names.join(", ")))
            }
        };
        let stored = text.strip_prefix('{').and_then(|text| text.strip_suffix("|url}"));
        if let Some(name) = stored {
            known(name)?;
            if hosts.is_empty() {
                return Err("a stored URL needs `ask_hosts`: which hosts it may go to".into());
            }
            return Ok(Self { method, target: Target::Stored(name.to_owned()), hosts });
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or("a `{` is never closed")? + open;
            pieces.push(Piece::Text(rest[..open].to_owned()));
            let gap = &rest[open + 1..close];
            let (name, raw) = match gap.split_once('|') {
                None => (gap, false),
                Some((name, "raw")) => (name, true),
                Some((_, "url")) => return Err("`|url` stands alone, as in `GET {job|url}`".into()),
                Some((_, other)) => {
                    return Err(format!("`|{other}` is unknown, only `|raw` and `|url` are"));
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
            other => return Err(format!("`{other}` cannot be asked, only https (or http)")),
        }
        hosts::plain(&url)?;
        match pieces.first() {
            // Otherwise a job id could choose the host.
            Some(Piece::Text(text)) if text.matches('/').count() >= 3 => {}
            _ => return Err("scheme and host must be written out, without gaps".into()),
        }
        Ok(Self { method, target: Target::Written { pieces, origin: url.origin() }, hosts })
    }

    /// Fills the gaps.
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
            key: Key::Ask,
            kept: Value::Null,
            private_query,
        })
    }

    /// Reads a request that a filter made from an answer. A key goes with it, so that it may only go
    /// where the first one went, or to `ask_hosts`.
    pub(super) fn next_step(&self, next: NextStep) -> Result<Request, String> {
        let (method, text) = method_and_url(&next.request)?;
        let url = Url::parse(text).map_err(|error| format!("not a URL ({error})"))?;
        match &self.target {
            Target::Written { origin, .. } if *origin == url.origin() => hosts::plain(&url)?,
            Target::Written { origin, .. } if self.hosts.is_empty() => {
                return Err(format!(
                    "it goes to {}, but this provider is asked at {} only",
                    url.origin().ascii_serialization(),
                    origin.ascii_serialization()
                ));
            }
            Target::Written { .. } | Target::Stored(_) => hosts::check(&self.hosts, &url)?,
        }
        let NextStep { payload, headers, key, kept, .. } = next;
        let headers = step_headers(&headers)?;
        if kept.to_string().len() > KEPT_BYTES {
            return Err(format!("what it keeps is longer than {KEPT_BYTES} bytes"));
        }
        Request { method, url, payload: None, headers, key, kept, private_query: true }.with_payload(payload)
    }

    /// Whether its questions may have a body.
    pub(super) fn may_have_body(&self) -> bool {
        self.method != Method::GET
    }

    /// All hosts that are asked.
    pub(super) fn asked(&self) -> Hosts {
        match &self.target {
            Target::Written { origin, .. } => Hosts::of_origin(origin).and(self.hosts.clone()),
            Target::Stored(_) => self.hosts.clone(),
        }
    }

    /// Whether questions travel unencrypted to another machine than this.
    pub(super) fn is_plain_http(&self) -> bool {
        match &self.target {
            Target::Written { origin, .. } => {
                matches!(origin, Origin::Tuple(scheme, ..) if scheme == "http") && !is_loopback(origin)
            }
            // Stored URLs are held to https one by one.
            Target::Stored(_) => false,
        }
    }
}

/// The headers of a further step, which may hold words of an answer.
fn step_headers(written: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let (Ok(header), Ok(text)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err("one of its `headers` has a name or a value that no header has".to_owned());
        };
        if OURS.contains(&header.as_str()) {
            return Err(format!("its `headers` may not set `{header}`"));
        }
        headers.insert(header, text);
    }
    if headers.len() > HEADERS
        || written.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > VALUE_BYTES
    {
        return Err(format!("its `headers` are more than {HEADERS}, or longer than {VALUE_BYTES} bytes"));
    }
    Ok(headers)
}

fn is_loopback(origin: &Origin) -> bool {
    match origin {
        Origin::Tuple(_, host, _) => is_loopback_host(host),
        Origin::Opaque(_) => false,
    }
}

/// Reads a stored URL; what it goes to is checked by the caller.
fn stored(name: &str, text: &str) -> Result<Url, String> {
    if text.is_empty() {
        return Err(format!("the {name} is empty"));
    }
    if text.len() > VALUE_BYTES {
        return Err(format!("the {name} is longer than {VALUE_BYTES} bytes"));
    }
    // The parser drops tabs and line ends, and takes a backslash for a slash.
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(format!("the {name} holds characters that no URL has"));
    }
    Url::parse(text).map_err(|error| format!("the {name} is not a URL ({error})"))
}

fn method_and_url(text: &str) -> Result<(Method, &str), String> {
    match text.trim().split_once(' ') {
        Some(("GET", url)) => Ok((Method::GET, url.trim())),
        Some(("POST", url)) => Ok((Method::POST, url.trim())),
        Some(("PUT", url)) => Ok((Method::PUT, url.trim())),
        Some((method, _)) => {
            Err(format!("`{method}` is not a method that can be asked with, only GET, POST and PUT are"))
        }
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
    // A URL parser tidies up (dot segments, backslashes, …), and then asks for something else.
    if url.as_str() != text {
        return Err(format!("`{text}` would be asked as `{url}`"));
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
            "." | ".." => Err(format!("the {name} `{value}` would leave its path")),
            _ => Ok(utf8_percent_encode(value, SEGMENT).to_string()),
        };
    }
    if let Some(bad) = value.chars().find(|c| c.is_control() || matches!(c, '?' | '#' | '\\')) {
        return Err(format!("the {name} holds {bad:?}, which has no place in a path"));
    }
    let mut encoded = Vec::new();
    for segment in value.split('/') {
        match segment {
            "" => return Err(format!("the {name} begins or ends with a slash, or holds two in a row")),
            "." | ".." => return Err(format!("the {name} holds `{segment}`, which would leave its path")),
            _ => encoded.push(utf8_percent_encode(segment, RAW).to_string()),
        }
    }
    Ok(encoded.join("/"))
}

#[cfg(test)]
mod tests;
