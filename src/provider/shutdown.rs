//! The shutdown of a provider's API (`provider.closed`): the day and the reason.
//!
//! It is information for people: `provider list` and `check` display it. It does not change how
//! jobs are asked about, how answers are read, or how charges are decided.

use chrono::NaiveDate;
use serde::Deserialize;

use super::file_error::{FileError, invalid};
use crate::clock::Timestamp;

/// The longest reason, in bytes.
const WHY_BYTES: usize = 300;

/// When and why a provider shuts down its API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiShutdown {
    /// The day of the shutdown, in UTC.
    pub on: NaiveDate,
    /// The reason, in one line.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiShutdownToml {
    on: String,
    why: String,
}

impl ApiShutdownToml {
    pub(super) fn check(self) -> Result<ApiShutdown, FileError> {
        let Ok(on) = NaiveDate::parse_from_str(&self.on, "%Y-%m-%d") else {
            return invalid("provider.closed.on", format!("a day like `2026-09-24`, not `{}`", self.on));
        };
        let why = self.why.trim();
        if why.is_empty() || why.len() > WHY_BYTES || why.chars().any(char::is_control) {
            return invalid("provider.closed.why", format!("the reason, one line of 1 to {WHY_BYTES} bytes"));
        }
        Ok(ApiShutdown { on, why: why.to_owned() })
    }
}

impl ApiShutdown {
    /// Whether the day has been reached.
    pub fn has_happened(&self, now: Timestamp) -> bool {
        now.to_chrono().date_naive() >= self.on
    }

    /// Formats the day and the reason for people.
    pub fn describe(&self, now: Timestamp) -> String {
        let since = if self.has_happened(now) { "closed since" } else { "will be closed on" };
        format!("{since} {}: {}", self.on, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(on: &str, why: &str) -> Result<ApiShutdown, FileError> {
        ApiShutdownToml { on: on.into(), why: why.into() }.check()
    }

    #[test]
    fn the_api_is_closed_from_the_start_of_that_day() {
        let closed = written("2026-09-24", "shut down").unwrap();
        let at = |text| Timestamp::parse(text).unwrap();
        assert!(!closed.has_happened(at("2026-09-23T23:59:59Z")));
        assert!(closed.has_happened(at("2026-09-24T00:00:00Z")));
        assert_eq!(closed.describe(at("2026-09-23T00:00:00Z")), "will be closed on 2026-09-24: shut down");
        assert_eq!(closed.describe(at("2026-11-28T00:00:00Z")), "closed since 2026-09-24: shut down");
    }

    #[test]
    fn an_invalid_day_and_an_empty_reason_are_rejected() {
        for (on, why, key) in [
            ("2026-02-30", "x", "provider.closed.on"),
            ("24.09.2026", "x", "provider.closed.on"),
            ("2026-09-24T00:00:00Z", "x", "provider.closed.on"),
            ("2026-09-24", " ", "provider.closed.why"),
            ("2026-09-24", "two\nlines", "provider.closed.why"),
        ] {
            assert_eq!(written(on, why).unwrap_err().key, key, "{on} {why:?}");
        }
        assert_eq!(written("2026-09-24", &"x".repeat(301)).unwrap_err().key, "provider.closed.why");
    }
}
