//! What becomes of a download that breaks: continued where it stopped, or begun anew.
//!
//! It is continued only where nothing else can come of it than the same file: its length was told, the server named the
//! version (a strong `ETag`, or a date that is old enough to tell versions apart), the rest was asked for under exactly
//! that version (`If-Range`), and the answer comes from the same place, says the same and begins at the next byte. In all
//! other cases it is begun anew, with a new hash and a new object. Tries are few, and counted afresh when one got on.
//!
//! Within one copy only: the hash so far and the parts sent live in memory. Another process starts from the beginning.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use url::Url;

use super::{CopyError, Limits, NotOutput, TimeLimit};
use crate::http::Response;

/// So much more of the file, and the tries are counted afresh: a large file may break often.
const GOT_ON_BYTES: u64 = 8 << 20;
/// The longest pause before a try.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// What is known of a download between two tries.
#[derive(Debug, Default)]
pub(super) struct State {
    /// An answer had the file. What fails before that is left to the next pass.
    pub(super) begun: bool,
    /// How to go on, where that can be.
    pub(super) anchor: Option<Anchor>,
}

/// One version of one file, named by its server.
#[derive(Debug)]
pub(super) struct Anchor {
    /// Its whole length in bytes.
    pub(super) length: u64,
    /// Where it came from: a signature may differ from try to try, the rest may not.
    place: (String, Option<u16>, String),
    header: HeaderName,
    version: HeaderValue,
}

impl Anchor {
    /// The version that this answer is of; none if it cannot be continued.
    pub(super) fn of(response: &Response, url: &Url) -> Option<Self> {
        // The client tells no length of what it has to decode: byte positions would be of another file.
        let length = response.content_length()?;
        let headers = response.headers();
        if headers.get(ACCEPT_RANGES).is_some_and(|ranges| ranges.as_bytes().eq_ignore_ascii_case(b"none")) {
            return None;
        }
        let (header, version) = version(headers)?;
        Some(Self { length, place: place(url), header, version })
    }

    /// Asks for the rest of this version from byte `from` on.
    pub(super) fn headers(&self, from: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // Digits are a header's value.
        if let Ok(range) = HeaderValue::try_from(format!("bytes={from}-")) {
            headers.insert(RANGE, range);
        }
        headers.insert(IF_RANGE, self.version.clone());
        headers
    }

    /// Whether this answer is the rest of the same version, all of it.
    pub(super) fn continues(&self, response: &Response, url: &Url, from: u64) -> bool {
        let headers = response.headers();
        let rest = self.length.checked_sub(from);
        let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let same_version =
            headers.get(&self.header).is_none_or(|version| version.as_bytes() == self.version.as_bytes());
        response.status() == StatusCode::PARTIAL_CONTENT
            && place(url) == self.place
            && same_version
            && !headers.contains_key(CONTENT_ENCODING)
            && rest
                .is_some_and(|rest| rest > 0 && response.content_length().is_none_or(|length| length == rest))
            && range.and_then(parse_range) == Some((from, self.length.saturating_sub(1), self.length))
    }
}

fn place(url: &Url) -> (String, Option<u16>, String) {
    (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default(), url.path().to_owned())
}

/// What tells this version from every other: a strong tag, or a date at least a second before the answer.
fn version(headers: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
    if let Some(tag) = headers.get(ETAG) {
        let bytes = tag.as_bytes();
        let strong = bytes.len() > 2 && bytes.starts_with(b"\"") && bytes.ends_with(b"\"");
        return strong.then(|| (ETAG, tag.clone()));
    }
    let date =
        |name| -> Option<SystemTime> { httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok() };
    let old_enough =
        date(DATE)?.duration_since(date(LAST_MODIFIED)?).is_ok_and(|age| age >= Duration::from_secs(1));
    let modified = headers.get(LAST_MODIFIED)?;
    old_enough.then(|| (LAST_MODIFIED, modified.clone()))
}

/// `bytes 5-9/10` as first, last and length.
fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, length) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |digits: &str| -> Option<u64> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let parsed = (number(first)?, number(last)?, number(length)?);
    unit.eq_ignore_ascii_case("bytes").then_some(parsed)
}

/// Whether this is a download that broke, and not one that was refused.
pub(super) const fn breaks_off(error: &CopyError) -> bool {
    match error {
        CopyError::Network { .. }
        | CopyError::NotAnOutput { why: NotOutput::Truncated }
        | CopyError::TimedOut { what: TimeLimit::Stall } => true,
        // Busy, failing, or no part of the file (206, 416): the next try may see better.
        CopyError::Http { status, .. } => matches!(*status, 206 | 408 | 416 | 425 | 429 | 500..=599),
        CopyError::NotAnOutput {
            why:
                NotOutput::NoFile
                | NotOutput::Empty
                | NotOutput::Html
                | NotOutput::Xml
                | NotOutput::Error
                | NotOutput::Encoded
                | NotOutput::WrongKind,
        }
        | CopyError::TimedOut { what: TimeLimit::Budget }
        | CopyError::Gone { .. }
        | CopyError::Refused { .. }
        | CopyError::TooLarge { .. }
        | CopyError::NoMemory { .. }
        | CopyError::Unauthorized { .. }
        | CopyError::Bucket { .. }
        | CopyError::Storage(_)
        | CopyError::Journal { .. } => false,
    }
}

/// Counts tries that got nowhere.
pub(super) struct Tries {
    most: u32,
    left: u32,
    first_pause: Duration,
    pause: Duration,
    /// The most bytes that any try reached when tries were last counted afresh.
    mark: u64,
}

impl Tries {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            most: limits.tries,
            left: limits.tries,
            first_pause: limits.pause,
            pause: limits.pause,
            mark: 0,
        }
    }

    /// After one that broke at `size` bytes: how long to wait before the next; none: enough.
    pub(super) fn after(&mut self, size: u64, state: &State) -> Option<Duration> {
        // Only what can be continued gets on: one begun anew would get as far again and again.
        if state.anchor.is_some() && size >= self.mark.saturating_add(GOT_ON_BYTES) {
            (self.left, self.pause, self.mark) = (self.most, self.first_pause, size);
        }
        self.left = self.left.checked_sub(1)?;
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tells_versions_apart_is_gone_by() {
        let table = [
            (&[("etag", "\"a\"")][..], Some("etag")),
            (&[("etag", "W/\"a\"")], None),
            (&[("etag", "a")], None),
            (&[("etag", "\"\"")], None),
            // A weak tag says that the date is no better.
            (
                &[
                    ("etag", "W/\"a\""),
                    ("last-modified", "Mon, 04 May 2026 09:12:30 GMT"),
                    ("date", "Mon, 04 May 2026 10:00:00 GMT"),
                ],
                None,
            ),
            (
                &[
                    ("last-modified", "Mon, 04 May 2026 09:12:30 GMT"),
                    ("date", "Mon, 04 May 2026 09:12:31 GMT"),
                ],
                Some("last-modified"),
            ),
            (
                &[
                    ("last-modified", "Mon, 04 May 2026 09:12:30 GMT"),
                    ("date", "Mon, 04 May 2026 09:12:30 GMT"),
                ],
                None,
            ),
            (&[("last-modified", "Mon, 04 May 2026 09:12:30 GMT")], None),
            (&[("last-modified", "yesterday"), ("date", "today")], None),
            (&[], None),
        ];
        for (written, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in written {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let found = version(&headers).map(|(name, _)| name.as_str().to_owned());
            assert_eq!(found.as_deref(), expected, "{written:?}");
        }
    }

    #[test]
    fn ranges_are_read_strictly() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, 9, 10)));
        for text in [
            "",
            "bytes",
            "bytes 5-9/*",
            "bytes */10",
            "bytes +5-9/10",
            "5-9/10",
            "items 5-9/10",
            "bytes 5-9",
            "bytes -5/10",
        ] {
            assert_eq!(parse_range(text), None, "{text:?}");
        }
    }

    #[test]
    fn tries_are_counted_afresh_only_when_a_continued_download_got_on() {
        let limits = Limits { tries: 2, pause: Duration::from_millis(1), ..Limits::default() };
        let anchor = || Anchor {
            length: 1 << 40,
            place: (String::new(), None, String::new()),
            header: ETAG,
            version: HeaderValue::from_static("\"a\""),
        };
        let (anew, continued) = (State::default(), State { begun: true, anchor: Some(anchor()) });
        let mut tries = Tries::new(&limits);
        assert!(tries.after(100 << 20, &anew).is_some());
        assert!(tries.after(200 << 20, &anew).is_some());
        assert!(tries.after(300 << 20, &anew).is_none());
        let mut tries = Tries::new(&limits);
        for step in 1..50 {
            assert!(tries.after(step * GOT_ON_BYTES, &continued).is_some(), "{step}");
        }
        assert!(tries.after(50, &continued).is_some());
        assert!(tries.after(60 << 20, &continued).is_none(), "as far as before is not further");
    }
}
