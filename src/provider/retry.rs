//! When one request is sent again: the exponential backoff, and what `Retry-After` asks for.
//!
//! A wait of up to 5 seconds is made within the question. A longer one ends the question, and the
//! circuit breaker (`circuit`) then stops asking this provider for that long.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::clock::Timestamp;

/// The longest wait, requested by `Retry-After`, that is made within one question.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// The wait before the first retry. It doubles with each retry.
const BACKOFF: Duration = Duration::from_millis(500);

/// Whether the provider requests a longer wait than one question may take.
pub(super) fn exceeds_max_wait(wait: Duration) -> bool {
    wait > RETRY_AFTER_MAX
}

/// Reads the requested wait from the headers: `retry-after-ms`, or `Retry-After` in seconds or as
/// a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(secs) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(secs).ok();
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let at = Timestamp::from(chrono::DateTime::<chrono::Utc>::from(at));
    Some(at.since(now))
}

/// Returns the wait before retry number `tries + 1`, with jitter. Returns `None` if the provider
/// requests a longer wait than one question may take.
pub(super) fn backoff(tries: u32, asked_for: Option<Duration>) -> Option<Duration> {
    if asked_for.is_some_and(exceeds_max_wait) {
        return None;
    }
    let wait = BACKOFF.saturating_mul(1 << tries.min(6));
    // Jitter of up to half the wait, so that many workers do not retry at the same moment.
    let jitter = wait.mul_f64(0.5 * random());
    Some((wait + jitter).max(asked_for.unwrap_or_default() + jitter))
}

/// A random number from 0 to 1: every `RandomState` has its own random keys.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 40;
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    let random = bits as f64 / (1_u64 << 24) as f64;
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_milliseconds_seconds_and_as_a_date() {
        let now = Timestamp::parse("2026-05-04T09:12:00Z").unwrap();
        for (name, value, wait) in [
            ("retry-after", "3", Some(Duration::from_secs(3))),
            ("retry-after-ms", "250", Some(Duration::from_millis(250))),
            ("retry-after", "Mon, 04 May 2026 09:12:30 GMT", Some(Duration::from_secs(30))),
            ("retry-after", "Mon, 04 May 2026 09:11:00 GMT", Some(Duration::ZERO)),
            ("retry-after", "soon", None),
            ("retry-after", "-3", None),
            ("retry-after", "inf", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(retry_after(&headers, now), wait, "{name}: {value}");
        }
    }

    #[test]
    fn backoff_doubles_has_jitter_and_respects_retry_after_up_to_five_seconds() {
        for tries in 0..4 {
            let base = BACKOFF * (1 << tries);
            let wait = backoff(tries, None).unwrap();
            assert!(wait >= base && wait <= base + base / 2, "{tries}: {wait:?}");
        }
        assert!(backoff(0, Some(Duration::from_secs(3))).unwrap() >= Duration::from_secs(3));
        assert_eq!(backoff(0, Some(Duration::from_secs(6))), None);
    }
}
