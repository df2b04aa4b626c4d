//! Resumes or restarts a download that broke off.
//!
//! A download is resumed only if the result is certainly one version of one file. The first
//! response must give the length and a validator (a strong `ETag`, or a `Last-Modified` at least
//! one second older than `Date`). The retry requests the rest of exactly that version (`Range`,
//! `If-Range`). Its response must come from the same URL, repeat the validator or none, and begin
//! at the next byte. In every other case the download restarts, with a new hash and a new object.
//! Retries are few; the count is reset after progress.
//!
//! The state lives in memory, for one copy. After a crash another process starts from the
//! beginning.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use url::Url;

use super::{CopyError, CopyLimits, NotOutput, TimeLimit};
use crate::http::Response;

/// This many new bytes reset the retry count: a large file may break off often.
const PROGRESS_BYTES: u64 = 8 << 20;
/// The longest delay before a retry.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(8);

/// The state of a download between two attempts.
#[derive(Debug, Default)]
pub(super) struct DownloadState {
    /// A response had the file. A failure before that is not retried here; the next pass tries
    /// again.
    pub(super) has_begun: bool,
    /// How to resume. `None`: restart from the beginning.
    pub(super) resume_point: Option<ResumePoint>,
}

/// One version of one file, as identified by its server.
#[derive(Debug)]
pub(super) struct ResumePoint {
    /// The whole length in bytes.
    pub(super) length: u64,
    /// Host, port and path. The query may differ between attempts: it may hold a signature.
    address: (String, Option<u16>, String),
    header: HeaderName,
    version: HeaderValue,
}

impl ResumePoint {
    /// The version of this response; `None` if it cannot be resumed.
    pub(super) fn of(response: &Response, url: &Url) -> Option<Self> {
        // A decoded response has no length here: byte ranges would count encoded bytes.
        let length = response.content_length()?;
        let headers = response.headers();
        if headers.get(ACCEPT_RANGES).is_some_and(|ranges| ranges.as_bytes().eq_ignore_ascii_case(b"none")) {
            return None;
        }
        let (header, version) = version(headers)?;
        Some(Self { length, address: address(url), header, version })
    }

    /// The headers that request the rest of this version from byte `from` on.
    pub(super) fn headers(&self, from: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // Digits are always a valid header value.
        if let Ok(range) = HeaderValue::try_from(format!("bytes={from}-")) {
            headers.insert(RANGE, range);
        }
        headers.insert(IF_RANGE, self.version.clone());
        headers
    }

    /// Whether this response is the complete rest of the same version.
    pub(super) fn is_continued_by(&self, response: &Response, url: &Url, from: u64) -> bool {
        let headers = response.headers();
        let rest = self.length.checked_sub(from);
        let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let same_version =
            headers.get(&self.header).is_none_or(|version| version.as_bytes() == self.version.as_bytes());
        response.status() == StatusCode::PARTIAL_CONTENT
            && address(url) == self.address
            && same_version
            && !headers.contains_key(CONTENT_ENCODING)
            && rest
                .is_some_and(|rest| rest > 0 && response.content_length().is_none_or(|length| length == rest))
            && range.and_then(parse_range) == Some((from, self.length.saturating_sub(1), self.length))
    }
}

fn address(url: &Url) -> (String, Option<u16>, String) {
    (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default(), url.path().to_owned())
}

/// The validator of this version: a strong `ETag`, or a `Last-Modified` at least one second before
/// `Date`.
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

/// Parses `bytes 5-9/10` into first byte, last byte and length.
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

/// Whether a retry may succeed: the download broke off or the server is busy, and it was not
/// refused.
pub(super) const fn is_retryable(error: &CopyError) -> bool {
    match error {
        CopyError::Network { .. }
        | CopyError::NotAnOutput { why: NotOutput::Truncated }
        | CopyError::TimedOut { limit: TimeLimit::Stall } => true,
        // The server is busy or failing, or answered a range wrongly (206, 416): a retry may
        // succeed.
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
        | CopyError::TimedOut { limit: TimeLimit::Budget }
        | CopyError::Gone { .. }
        | CopyError::Refused { .. }
        | CopyError::TooLarge { .. }
        | CopyError::NoMemory { .. }
        | CopyError::Unauthorized { .. }
        | CopyError::Bucket { .. }
        | CopyError::Storage(_)
        | CopyError::UploadLog { .. } => false,
    }
}

/// Counts consecutive retries without progress, with exponential backoff.
pub(super) struct RetryBudget {
    max_retries: u32,
    left: u32,
    first_delay: Duration,
    delay: Duration,
    /// The number of bytes received when the count was last reset.
    high_water_mark: u64,
}

impl RetryBudget {
    pub(super) const fn new(limits: &CopyLimits) -> Self {
        Self {
            max_retries: limits.max_retries,
            left: limits.max_retries,
            first_delay: limits.retry_delay,
            delay: limits.retry_delay,
            high_water_mark: 0,
        }
    }

    /// The delay before the next attempt, after one that broke off at `size` bytes. `None`: give
    /// up.
    pub(super) fn next_delay(&mut self, size: u64, state: &DownloadState) -> Option<Duration> {
        // Only a resumable download makes progress. A restarted one could stop at the same byte for
        // ever.
        if state.resume_point.is_some() && size >= self.high_water_mark.saturating_add(PROGRESS_BYTES) {
            (self.left, self.delay, self.high_water_mark) = (self.max_retries, self.first_delay, size);
        }
        self.left = self.left.checked_sub(1)?;
        let delay = self.delay;
        self.delay = (delay * 2).min(MAX_RETRY_DELAY);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strong_validators_identify_a_version() {
        let table = [
            (&[("etag", "\"a\"")][..], Some("etag")),
            (&[("etag", "W/\"a\"")], None),
            (&[("etag", "a")], None),
            (&[("etag", "\"\"")], None),
            // A weak tag means that the date is not reliable either.
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
    fn content_ranges_are_parsed_strictly() {
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
    fn the_retry_count_is_reset_only_by_progress_of_a_resumable_download() {
        let limits =
            CopyLimits { max_retries: 2, retry_delay: Duration::from_millis(1), ..CopyLimits::default() };
        let resume_point = || ResumePoint {
            length: 1 << 40,
            address: (String::new(), None, String::new()),
            header: ETAG,
            version: HeaderValue::from_static("\"a\""),
        };
        let restarted = DownloadState::default();
        let resumed = DownloadState { has_begun: true, resume_point: Some(resume_point()) };
        let mut retries = RetryBudget::new(&limits);
        assert!(retries.next_delay(100 << 20, &restarted).is_some());
        assert!(retries.next_delay(200 << 20, &restarted).is_some());
        assert!(retries.next_delay(300 << 20, &restarted).is_none());
        let mut retries = RetryBudget::new(&limits);
        for step in 1..50 {
            assert!(retries.next_delay(step * PROGRESS_BYTES, &resumed).is_some(), "{step}");
        }
        assert!(retries.next_delay(50, &resumed).is_some());
        assert!(retries.next_delay(60 << 20, &resumed).is_none(), "reaching the same byte is no progress");
    }
}
