//! Questions as requests: a template of the provider file, filled with a job's id and model.
//!
//! A job id is the platform's text and may hold anything. Promise: what is asked is exactly what the
//! template and the values say, or nothing is asked at all; no id can lead to another path or host.
//! `{name}` is percent-encoded as one segment; `{name|raw}` keeps its slashes (an operation's name is a
//! path) and refuses everything that could change the way: `..`, empty segments, `?`, `#`, control characters.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use url::{Origin, Url};

/// The longest value that is put into a URL, in bytes.
const VALUE_BYTES: usize = 2048;

/// All but the letters that RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, keeping what a path's segment may hold as it is.
const RAW: &AsciiSet = &SEGMENT.remove(b':').remove(b'@').remove(b'$').remove(b'+').remove(b'=').remove(b',');

/// One request to a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Whether a filter made it from an answer; its query may then be a signature.
    from_answer: bool,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        if self.from_answer && url.query().is_some() {
            url.set_query(Some("..."));
        }
        write!(f, "{} {url}", self.method)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({self})")
    }
}

/// A request with gaps: `GET https://host/path/{job}`.
#[derive(Clone, Debug)]
pub(super) struct Template {
    method: Method,
    pieces: Vec<Piece>,
    /// Where the provider is: no later step may go anywhere else.
    origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { name: String, raw: bool },
}

impl Template {
    /// Reads a template whose gaps are among `names`.
    pub(super) fn parse(text: &str, names: &[&str]) -> Result<Self, String> {
        let (method, text) = method_and_url(text)?;
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or("a `{` is never closed")? + open;
            pieces.push(Piece::Text(rest[..open].to_owned()));
            let gap = &rest[open + 1..close];
            let (name, raw) = match gap.split_once('|') {
                None => (gap, false),
                Some((name, "raw")) => (name, true),
                Some((_, other)) => return Err(format!("`|{other}` is unknown, only `|raw` is")),
            };
            if !names.contains(&name) {
                return Err(format!("`{{{name}}}` is unknown, known are {}", names.join(", ")));
            }
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
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL must not hold a user or password: use [auth]".into());
        }
        match pieces.first() {
            // Otherwise a job id could choose the host.
            Some(Piece::Text(text)) if text.matches('/').count() >= 3 => {}
            _ => return Err("scheme and host must be written out, without gaps".into()),
        }
        Ok(Self { method, pieces, origin: url.origin() })
    }

    /// Fills the gaps.
    pub(super) fn fill(&self, values: &BTreeMap<&str, &str>) -> Result<Request, String> {
        Ok(Request { method: self.method.clone(), url: fill(&self.pieces, values)?, from_answer: false })
    }

    /// Reads a request that a filter made from an answer. The key goes with it, so that it may only go
    /// where the first one went.
    pub(super) fn next_step(&self, text: &str) -> Result<Request, String> {
        let (method, text) = method_and_url(text)?;
        let url = Url::parse(text).map_err(|error| format!("not a URL ({error})"))?;
        if url.origin() != self.origin {
            return Err(format!(
                "it goes to {}, but this provider is asked at {} only",
                url.origin().ascii_serialization(),
                self.origin.ascii_serialization()
            ));
        }
        Ok(Request { method, url, from_answer: true })
    }

    /// Whether the provider is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        match &self.origin {
            Origin::Tuple(_, host, _) => match host {
                url::Host::Domain(name) => name == "localhost",
                url::Host::Ipv4(ip) => ip.is_loopback(),
                url::Host::Ipv6(ip) => ip.is_loopback(),
            },
            Origin::Opaque(_) => false,
        }
    }

    /// Whether questions travel unencrypted.
    pub(super) fn is_plain_http(&self) -> bool {
        matches!(&self.origin, Origin::Tuple(scheme, _, _) if scheme == "http")
    }
}

fn method_and_url(text: &str) -> Result<(Method, &str), String> {
    match text.trim().split_once(' ') {
        Some(("GET", url)) => Ok((Method::GET, url.trim())),
        Some((method, _)) => Err(format!("`{method}` is not a method that can be asked with, only GET is")),
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
        Template::parse(template, &["job", "model"])?.fill(&values).map(|request| request.url.to_string())
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
            ("GET https://host/{job", "never closed"),
            ("GET https://{job}/x", "without gaps"),
            ("GET https://host.{job}/x/y/", "without gaps"),
            ("GET ftp://host/{job}", "ftp"),
            ("GET https://me:pw@host/{job}", "[auth]"),
            ("GET https://HOST/a/../{job}", "would be asked as"),
        ] {
            let error = Template::parse(template, &["job", "model"]).unwrap_err();
            assert!(error.contains(complaint), "{template}: {error}");
        }
    }

    #[test]
    fn a_later_step_stays_where_the_provider_is() {
        let template = Template::parse("GET https://host/{job}", &["job"]).unwrap();
        let next = template.next_step("GET https://host/result?sig=1").unwrap();
        assert_eq!(next.to_string(), "GET https://host/result?...");
        for elsewhere in ["GET https://evil.example/", "GET http://host/", "GET https://host:8443/", "GET /x"]
        {
            assert!(template.next_step(elsewhere).is_err(), "{elsewhere} was taken");
        }
    }

    #[test]
    fn no_job_id_can_change_where_is_asked() {
        let segment = Template::parse("GET https://host/v1/{job}/status", &["job"]).unwrap();
        let raw = Template::parse("GET https://host/v1/{job|raw}/status", &["job"]).unwrap();
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
