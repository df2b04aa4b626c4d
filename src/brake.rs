//! When to stop: too many refunds at once suggest that something else is broken.
//!
//! The brake is one row in the database, locked by every settle that refunds, so that the limits hold across
//! all processes at once. What is refunded in a rolling hour and day is counted from the refunds themselves.
//! Once a limit would be passed, the brake is on until a person releases it; only refunds are held, recoveries
//! and closings go on. Releasing starts the count afresh. This file judges; `store::settle` locks and writes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;

/// The rolling spans that are counted.
pub const HOUR: Duration = Duration::from_hours(1);
/// The longer of the two.
pub const DAY: Duration = Duration::from_hours(24);

/// How much may be refunded before the brake is pulled; zero: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Refunds in an hour.
    pub refunds_per_hour: u64,
    /// Refunds in a day.
    pub refunds_per_day: u64,
    /// Credits in an hour, in the smallest unit.
    pub credits_per_hour: u64,
    /// Credits in a day, in the smallest unit.
    pub credits_per_day: u64,
    /// Refunds in an hour for jobs of one provider.
    pub refunds_per_hour_per_provider: u64,
}

/// What was refunded in the last hour and day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Refunds in the last hour.
    pub hour_refunds: u64,
    /// Credits in the last hour.
    pub hour_credits: u64,
    /// Refunds in the last day.
    pub day_refunds: u64,
    /// Credits in the last day.
    pub day_credits: u64,
}

impl Sums {
    const fn with(self, credits: u64) -> Self {
        Self {
            hour_refunds: self.hour_refunds.saturating_add(1),
            hour_credits: self.hour_credits.saturating_add(credits),
            day_refunds: self.day_refunds.saturating_add(1),
            day_credits: self.day_credits.saturating_add(credits),
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            hour_refunds: self.hour_refunds.saturating_add(other.hour_refunds),
            hour_credits: self.hour_credits.saturating_add(other.hour_credits),
            day_refunds: self.day_refunds.saturating_add(other.day_refunds),
            day_credits: self.day_credits.saturating_add(other.day_credits),
        }
    }
}

/// The brake while it is locked: lets refunds through one by one and counts them.
#[derive(Clone, Debug)]
pub struct Brake {
    /// Why it is on; none: it is off.
    pub engaged: Option<String>,
    limits: Limits,
    per_provider: BTreeMap<String, Sums>,
}

impl Brake {
    /// The brake as it stands: on for a reason or off, with what was refunded lately per provider.
    pub fn new(limits: Limits, engaged: Option<String>, per_provider: BTreeMap<String, Sums>) -> Self {
        Self { engaged, limits, per_provider }
    }

    /// From when refunds count: an hour or a day back, but not what was let go before the last release.
    pub fn since(now: Timestamp, span: Duration, released_at: Option<Timestamp>) -> Timestamp {
        (now - span).max(released_at.unwrap_or(now - span))
    }

    /// Whether one more refund may go; if it would pass a limit, the brake is on from here.
    pub fn admit(&mut self, provider: &str, credits: i64) -> bool {
        if self.engaged.is_some() {
            return false;
        }
        let credits = u64::try_from(credits).unwrap_or(0);
        let all = self.per_provider.values().fold(Sums::default(), |sum, each| sum.plus(*each)).with(credits);
        let own = self.per_provider.get(provider).copied().unwrap_or_default().with(credits);
        if let Some(why) = self.broken_limit(provider, all, own) {
            self.engaged = Some(why);
            return false;
        }
        self.per_provider.insert(provider.to_owned(), own);
        true
    }

    fn broken_limit(&self, provider: &str, all: Sums, own: Sums) -> Option<String> {
        let limits = &self.limits;
        let checks = [
            (limits.refunds_per_hour, all.hour_refunds, "refunds in an hour", "max_refunds_per_hour"),
            (limits.refunds_per_day, all.day_refunds, "refunds in a day", "max_refunds_per_day"),
            (limits.credits_per_hour, all.hour_credits, "credits in an hour", "max_credits_per_hour"),
            (limits.credits_per_day, all.day_credits, "credits in a day", "max_credits_per_day"),
        ];
        for (limit, would_be, what, key) in checks {
            if limit > 0 && would_be > limit {
                return Some(format!("more than {limit} {what} ([brake] {key})"));
            }
        }
        let limit = limits.refunds_per_hour_per_provider;
        (limit > 0 && own.hour_refunds > limit).then(|| {
            format!("more than {limit} refunds in an hour for {provider} ([brake] max_refunds_per_hour_per_provider)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brake(limits: Limits) -> Brake {
        Brake::new(limits, None, BTreeMap::new())
    }

    #[test]
    fn p15_the_limit_itself_is_let_through_and_one_more_is_not() {
        let mut brake = brake(Limits { refunds_per_hour: 3, ..Limits::default() });
        assert_eq!([(); 5].map(|()| brake.admit("acme", 10)), [true, true, true, false, false]);
        assert_eq!(
            brake.engaged.as_deref(),
            Some("more than 3 refunds in an hour ([brake] max_refunds_per_hour)")
        );
    }

    #[test]
    fn every_limit_stops_by_itself() {
        let cases = [
            (Limits { refunds_per_day: 1, ..Limits::default() }, "max_refunds_per_day"),
            (Limits { credits_per_hour: 19, ..Limits::default() }, "max_credits_per_hour"),
            (Limits { credits_per_day: 19, ..Limits::default() }, "max_credits_per_day"),
            (
                Limits { refunds_per_hour_per_provider: 1, ..Limits::default() },
                "max_refunds_per_hour_per_provider",
            ),
        ];
        for (limits, key) in cases {
            let mut brake = brake(limits);
            assert!(brake.admit("acme", 10), "{key}");
            assert!(!brake.admit("acme", 10), "{key}");
            assert!(
                brake.engaged.as_deref().is_some_and(|why| why.contains(key)),
                "{key}: {:?}",
                brake.engaged
            );
        }
    }

    #[test]
    fn one_provider_at_its_limit_is_not_another_at_its() {
        let mut brake = brake(Limits { refunds_per_hour_per_provider: 1, ..Limits::default() });
        assert!(brake.admit("acme", 1) && brake.admit("other", 1));
    }

    #[test]
    fn what_was_let_go_before_the_release_no_longer_counts() {
        let now = Timestamp::from_micros(10_000_000_000);
        let released = now - Duration::from_mins(1);
        assert_eq!(Brake::since(now, HOUR, Some(released)), released);
        assert_eq!(Brake::since(now, HOUR, None), now - HOUR);
        assert_eq!(Brake::since(now, HOUR, Some(now - DAY)), now - HOUR);
    }

    #[test]
    fn without_limits_nothing_stops_it() {
        let mut brake = brake(Limits::default());
        assert!((0..10_000).all(|_| brake.admit("acme", 1_000_000)));
    }
}
