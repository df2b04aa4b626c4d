//! A provider whose API has been shut down, or will be: the day and the reason, as its file says.
//!
//! Promise: it changes nothing in how answers are read and charges are decided. A closed API is
//! asked as before, what it answers is read by the same filter, and silence still waits for the
//! time of the charge. Left to others: `provider list` and `check` tell people.

use chrono::NaiveDate;
use serde::Deserialize;

use super::file::{Flaw, flaw};
use crate::clock::Timestamp;

/// The longest reason, in bytes.
const WHY_BYTES: usize = 300;

/// When and why a provider's API is shut down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The day from which the API answers no more, in UTC.
    pub on: NaiveDate,
    /// What the provider says of it, in one line.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenClosed {
    on: String,
    why: String,
}

impl WrittenClosed {
    pub(super) fn check(self) -> Result<Closed, Flaw> {
        let Ok(on) = NaiveDate::parse_from_str(&self.on, "%Y-%m-%d") else {
            return flaw("provider.closed.on", format!("a day like `2026-09-24`, not `{}`", self.on));
        };
        let why = self.why.trim();
        if why.is_empty() || why.len() > WHY_BYTES || why.chars().any(char::is_control) {
            return flaw("provider.closed.why", format!("the reason, in one line of 1 to {WHY_BYTES} bytes"));
        }
        Ok(Closed { on, why: why.to_owned() })
    }
}

impl Closed {
    /// Whether that day has come.
    pub fn has_happened(&self, now: Timestamp) -> bool {
        now.to_chrono().date_naive() >= self.on
    }

    /// The day and the reason, for people.
    pub fn told(&self, now: Timestamp) -> String {
        let since = if self.has_happened(now) { "closed since" } else { "will be closed on" };
        format!("{since} {}: {}", self.on, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(on: &str, why: &str) -> Result<Closed, Flaw> {
        WrittenClosed { on: on.into(), why: why.into() }.check()
    }

    #[test]
    fn the_day_itself_is_closed_and_the_day_before_is_not() {
        let closed = written("2026-09-24", "shut down").unwrap();
        let at = |text| Timestamp::parse(text).unwrap();
        assert!(!closed.has_happened(at("2026-09-23T23:59:59Z")));
        assert!(closed.has_happened(at("2026-09-24T00:00:00Z")));
        assert_eq!(closed.told(at("2026-09-23T00:00:00Z")), "will be closed on 2026-09-24: shut down");
        assert_eq!(closed.told(at("2026-11-28T00:00:00Z")), "closed since 2026-09-24: shut down");
    }

    #[test]
    fn a_day_that_is_none_and_a_reason_that_says_nothing_are_refused() {
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
