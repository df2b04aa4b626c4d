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
use serde::Deserialize;
use serde_json::Value;
use url::{Origin, Url};

use super::hosts::{self, Hosts};

/// The longest value that is put into a URL, in bytes.
const VALUE_BYTES: usize = 2048;
/// The longest body of a request, in bytes.
const BODY_BYTES: usize = 64 * 1024;
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
    /// Sent as JSON.
    pub(super) body: Option<Value>,
    /// Which key goes with it.
    pub(super) key: Key,
    /// What the filter wants to see again beside the answer.
    pub(super) kept: Value,
    /// Whether its query may be a signature: it came out of an answer, or was stored.
    private_query: bool,
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
    pub(super) body: Option<Value>,
    pub(super) key: Key,
    pub(super) kept: Value,
}

impl Request {
    /// The JSON that is sent along, if any.
    pub const fn body(&self) -> Option<&Value> {
        self.body.as_ref()
    }

    /// The same request with a body; only a POST has one.
    pub(super) fn with_body(mut self, body: Option<Value>) -> Result<Self, String> {
        if body.is_some() && self.method != Method::POST {
            return Err(format!("a {} has no body", self.method));
        }
        if body.as_ref().is_some_and(|body| body.to_string().len() > BODY_BYTES) {
            return Err(format!("its body is longer than {BODY_BYTES} bytes"));
        }
        self.body = body;
        Ok(self)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        if self.private_query && url.query().is_some() {
            url.set_query(Some("..."));
        }
        write!(f, "{} {url}", self.method)?;
        match self.body.as_ref().map(Value::to_string) {
            Some(body) if body.len() > SHOWN_BYTES => write!(f, " (a body of {} bytes)", body.len()),
            Some(body) => write!(f, " {body}"),
            None => Ok(()),
        }
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
                self.hosts.check(&url)?;
                (url, true)
            }
        };
        Ok(Request {
            method: self.method.clone(),
            url,
            body: None,
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
            Target::Written { .. } | Target::Stored(_) => self.hosts.check(&url)?,
        }
        let NextStep { body, key, kept, .. } = next;
        Request { method, url, body: None, key, kept, private_query: true }.with_body(body)
    }

    /// Whether its questions may have a body.
    pub(super) fn is_post(&self) -> bool {
        self.method == Method::POST
    }

    /// Whether everything that is asked is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let first = match &self.target {
            Target::Written { origin, .. } => is_loopback(origin),
            Target::Stored(_) => true,
        };
        first && self.hosts.all_loopback()
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

fn is_loopback(origin: &Origin) -> bool {
    match origin {
        Origin::Tuple(_, host, _) => match host {
            url::Host::Domain(name) => name == "localhost",
            url::Host::Ipv4(ip) => ip.is_loopback(),
            url::Host::Ipv6(ip) => ip.is_loopback(),
        },
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
        Some((method, _)) => {
            Err(format!("`{method}` is not a method that can be asked with, only GET and POST are"))
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
mod tests {
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
    fn a_job_id_stays_one_segment_whatever_it_holds() {
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
    fn a_raw_job_id_keeps_its_slashes_and_never_leaves_its_path() {
        let template = "GET https://host/v1beta/{job|raw}";
        assert_eq!(
            url(template, "models/veo-3.1/operations/ab:12").unwrap(),
            "https://host/v1beta/models/veo-3.1/operations/ab:12"
        );
        assert_eq!(url(template, "a b/%2e%2e/ü").unwrap(), "https://host/v1beta/a%20b/%252e%252e/%C3%BC");
        for job in [
            "..",
            "a/../b",
            "a/./b",
            "/a",
            "a//b",
            "a/",
            "a?b",
            "a#b",
            "a\\b",
            "a\nb",
            "//evil.example/x",
            "",
        ] {
            assert!(url(template, job).is_err(), "{job:?} was asked");
        }
    }

    #[test]
    fn a_template_that_cannot_work_is_refused() {
        for (template, complaint) in [
            ("https://host/{job}", "a method and a URL"),
            ("PATCH https://host/{job}", "PATCH"),
            ("GET https://host/{jobb}", "`{jobb}` is unknown"),
            ("GET https://host/{job|rew}", "only `|raw`"),
            ("GET https://host/{job|url}", "stands alone"),
            ("GET {job|url}", "ask_hosts"),
            ("GET {jub|url}", "`{jub}` is unknown"),
            ("GET https://host/{job}#x", "`#`"),
            ("GET https://host/{job", "never closed"),
            ("GET https://{job}/x", "without gaps"),
            ("GET https://host.{job}/x/y/", "without gaps"),
            ("GET ftp://host/{job}", "ftp"),
            ("GET https://me:pw@host/{job}", "[auth]"),
            ("GET https://HOST/a/../{job}", "would be asked as"),
        ] {
            let error = Template::parse(template, &["job", "model"], Hosts::default()).unwrap_err();
            assert!(error.contains(complaint), "{template}: {error}");
        }
    }

    fn next(request: &str) -> NextStep {
        NextStep { request: request.to_owned(), body: None, key: Key::Ask, kept: Value::Null }
    }

    fn hosts(list: &[&str]) -> Hosts {
        Hosts::parse(&list.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_later_step_stays_where_the_provider_is_or_goes_to_a_listed_host() {
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
            "PUT https://host/",
        ] {
            assert!(alone.next_step(next(elsewhere)).is_err(), "{elsewhere} was taken");
        }
        let listed = Template::parse("GET https://host/{job}", &["job"], hosts(&["*.acme.example"])).unwrap();
        for fine in ["GET https://files.acme.example/r", "POST https://host/r"] {
            assert!(listed.next_step(next(fine)).is_ok(), "{fine} was refused");
        }
        for elsewhere in ["GET https://evil.example/", "GET http://files.acme.example/"] {
            assert!(listed.next_step(next(elsewhere)).is_err(), "{elsewhere} was taken");
        }
    }

    #[test]
    fn a_body_goes_with_a_post_and_is_bounded() {
        let template = Template::parse("POST https://host/ask", &["job"], Hosts::default()).unwrap();
        let request = template.fill(&BTreeMap::from([("job", "j")])).unwrap();
        let body = serde_json::json!({"ids": ["j"]});
        let sent = request.clone().with_body(Some(body.clone())).unwrap();
        assert_eq!(
            (sent.body(), sent.to_string().as_str()),
            (Some(&body), r#"POST https://host/ask {"ids":["j"]}"#)
        );
        let long = Value::from("x".repeat(1000));
        assert_eq!(
            request.clone().with_body(Some(long)).unwrap().to_string(),
            "POST https://host/ask (a body of 1002 bytes)"
        );
        assert!(request.with_body(Some(Value::from("x".repeat(70_000)))).is_err());
        let get = NextStep { body: Some(body), ..next("GET https://host/x") };
        assert!(template.next_step(get).unwrap_err().contains("no body"));
    }

    #[test]
    fn a_stored_url_goes_to_a_listed_host_or_nowhere() {
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
    fn no_job_id_can_change_where_is_asked() {
        let segment =
            Template::parse("GET https://host/v1/{job}/status", &["job"], Hosts::default()).unwrap();
        let raw =
            Template::parse("GET https://host/v1/{job|raw}/status", &["job"], Hosts::default()).unwrap();
        let tricky = prop_oneof![any::<String>(), "[./%?#\\\\ a:@]{0,12}"];
        let mut runner =
            TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
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
}
