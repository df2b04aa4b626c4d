//! When to stop: too many refunds at once suggest that something else is broken.
//!
//! The brake is one row in the database, locked by every settle that refunds, so that the limits hold across
//! all processes at once. What is refunded in a rolling hour and day, and since the pass began, is counted from the
//! refunds themselves. Once a limit would be passed, the brake is on until a person releases it, or, where the
//! settings say so, until the condition is gone; only refunds are held, recoveries and closings go on. Who releases it
//! starts the count afresh; where it goes off by itself, what was refunded still counts.
//!
//! Refunds that rest on nothing but a fault of ours (a key refused, a provider file missing, an answer that our filter
//! cannot read, an output that is offered and that we cannot bring home) have a brake of their own, which is on and released
//! like the other. It holds them alone; everybody else's go on.
//!
//! This file judges; `store::settle` locks and writes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::evidence::{Doubt, Evidence, Verdict};
use crate::policy::Reason;

/// The rolling spans that are counted.
pub const HOUR: Duration = Duration::from_hours(1);
/// The longer of the two.
pub const DAY: Duration = Duration::from_hours(24);

/// How much may be refunded before the brake is pulled; zero: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Refunds since the pass began, by all processes.
    pub refunds_per_pass: u64,
    /// Refunds since the pass began for jobs of one provider.
    pub refunds_per_pass_per_provider: u64,
    /// Credits since the pass began, in the smallest unit.
    pub credits_per_pass: u64,
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
    /// Refunds in a day for jobs of one provider.
    pub refunds_per_day_per_provider: u64,
    /// Refunds in a day, in percent of the charges made in it.
    pub share_per_day: u64,
    /// Refunds in a day that rest on nothing but faults of ours.
    pub own_faults_per_day: u64,
}

/// What is watched in a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The limits.
    pub limits: Limits,
    /// When the pass began, if this is one.
    pub pass_began: Option<Timestamp>,
    /// Charges made in the day before it; none: not counted.
    pub charges: Option<u64>,
    /// A person lets these refunds through, whatever is held (P23). They count for those that come after.
    pub overruled: bool,
}

/// So many refunds a day are no sign of anything, whatever their share of the charges is.
pub const SHARE_FROM: u64 = 100;

/// What was refunded in the last hour and day, and since the pass began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Refunds since the pass began.
    pub pass_refunds: u64,
    /// Credits since the pass began.
    pub pass_credits: u64,
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
    const fn one(credits: u64) -> Self {
        Self {
            pass_refunds: 1,
            pass_credits: credits,
            hour_refunds: 1,
            hour_credits: credits,
            day_refunds: 1,
            day_credits: credits,
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            pass_refunds: self.pass_refunds.saturating_add(other.pass_refunds),
            pass_credits: self.pass_credits.saturating_add(other.pass_credits),
            hour_refunds: self.hour_refunds.saturating_add(other.hour_refunds),
            hour_credits: self.hour_credits.saturating_add(other.hour_credits),
            day_refunds: self.day_refunds.saturating_add(other.day_refunds),
            day_credits: self.day_credits.saturating_add(other.day_credits),
        }
    }
}

/// What the limits are held against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// What was refunded lately, per provider.
    pub per_provider: BTreeMap<String, Sums>,
    /// Charges made in the last day; none: not counted, as no limit asks for it.
    pub charges: Option<u64>,
    /// Refunds of the last day that rested on nothing but faults of ours.
    pub own_faults: u64,
}

/// Which refunds are held, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// All of them: the limit that was reached; none: the brake is off.
    pub all: Option<String>,
    /// Those that rest on nothing but faults of ours.
    pub own_faults: Option<String>,
}

/// The brake while it is locked: lets refunds through one by one and counts them.
#[derive(Clone, Debug)]
pub struct Brake {
    /// What it holds by now.
    pub held: Held,
    /// What it held when it was locked.
    before: Held,
    limits: Limits,
    counted: Counted,
}

/// Whether such a refund would rest on nothing but a fault of ours: then more of them say something about us, and nothing
/// about the provider. Either the output was offered all day long and we did not bring it home, or nobody could tell.
pub fn is_own_fault(reason: Reason, evidence: Option<&Evidence>) -> bool {
    let doubt_is_ours = match evidence.map(|evidence| evidence.verdict) {
        Some(Verdict::CouldNotTell(Doubt::Unauthorized | Doubt::UnknownProvider | Doubt::Unreadable)) => true,
        Some(
            Verdict::CouldNotTell(Doubt::Unreachable | Doubt::RateLimited)
            | Verdict::Queued
            | Verdict::Running
            | Verdict::Succeeded
            | Verdict::Failed
            | Verdict::Cancelled
            | Verdict::UnknownJob,
        )
        | None => false,
    };
    reason == Reason::RecoveryFailed || reason == Reason::Unconfirmed && doubt_is_ours
}

impl Brake {
    /// The brake as it stands: what it holds already, and what was counted.
    pub fn new(limits: Limits, held: Held, counted: Counted) -> Self {
        Self { before: held.clone(), held, limits, counted }
    }

    /// The brake under a person's hand: it holds nothing.
    pub fn overruled() -> Self {
        Self::new(Limits::default(), Held::default(), Counted::default())
    }

    /// What it holds since it was locked: that is still to be written down.
    pub fn pulled(self) -> Held {
        Held {
            all: self.held.all.filter(|_| self.before.all.is_none()),
            own_faults: self.held.own_faults.filter(|_| self.before.own_faults.is_none()),
        }
    }

    /// From when refunds count: so far back, but not what was let go before the last release.
    ///
    /// A release that lies ahead was written while the clock was wrong. It excuses nothing: until its time came, no refund
    /// would count, and the brake would stop nobody.
    pub fn since(now: Timestamp, span: Duration, released_at: Option<Timestamp>) -> Timestamp {
        let back = now - span;
        released_at.filter(|at| *at <= now).map_or(back, |at| at.max(back))
    }

    /// How far back a pass reaches. Began it ahead of now, the clock was put back in the middle of it: then an hour, since
    /// rather too much is counted than nothing.
    pub fn span_of_pass(now: Timestamp, began: Timestamp) -> Duration {
        if began > now { HOUR } else { now.since(began) }
    }

    /// Whether one more refund may go; if it would pass a limit, the brake is on from here.
    pub fn admit(&mut self, provider: &str, credits: i64, own_fault: bool) -> bool {
        if self.held.all.is_some() || own_fault && self.held.own_faults.is_some() {
            return false;
        }
        let limit = self.limits.own_faults_per_day;
        let own_faults = self.counted.own_faults.saturating_add(u64::from(own_fault));
        if own_fault && exceeds(own_faults, limit) {
            self.held.own_faults = Some(format!(
                "more than {limit} refunds in a day for nothing but faults of ours \
                 ([brake] max_own_fault_refunds_per_day); these alone are held"
            ));
            return false;
        }
        let one = Sums::one(u64::try_from(credits).unwrap_or(0));
        let own = self.of(provider).plus(one);
        if let Some(why) = self.broken_limit(provider, self.all().plus(one), own) {
            self.held.all = Some(why);
            return false;
        }
        self.counted.per_provider.insert(provider.to_owned(), own);
        self.counted.own_faults = own_faults;
        true
    }

    /// Whether nothing is left of what pulled it: all that counts is down to half of each limit, so that it does not
    /// come on again with the next refund.
    pub fn condition_is_gone(&self) -> bool {
        let twice = |sums: Sums| sums.plus(sums);
        let all = twice(self.all());
        let providers = self.counted.per_provider.keys().map(String::as_str).chain([""]);
        providers.into_iter().all(|name| self.broken_limit(name, all, twice(self.of(name))).is_none())
    }

    /// The same of refunds for faults of ours.
    pub const fn own_faults_are_gone(&self) -> bool {
        !exceeds(self.counted.own_faults.saturating_mul(2), self.limits.own_faults_per_day)
    }

    fn all(&self) -> Sums {
        self.counted.per_provider.values().fold(Sums::default(), |sum, each| sum.plus(*each))
    }

    fn of(&self, provider: &str) -> Sums {
        self.counted.per_provider.get(provider).copied().unwrap_or_default()
    }

    fn broken_limit(&self, provider: &str, all: Sums, own: Sums) -> Option<String> {
        let limits = &self.limits;
        let checks = [
            (limits.refunds_per_pass, all.pass_refunds, "refunds in a pass", "max_refunds_per_pass"),
            (limits.credits_per_pass, all.pass_credits, "credits in a pass", "max_credits_per_pass"),
            (limits.refunds_per_hour, all.hour_refunds, "refunds in an hour", "max_refunds_per_hour"),
            (limits.refunds_per_day, all.day_refunds, "refunds in a day", "max_refunds_per_day"),
            (limits.credits_per_hour, all.hour_credits, "credits in an hour", "max_credits_per_hour"),
            (limits.credits_per_day, all.day_credits, "credits in a day", "max_credits_per_day"),
        ];
        for (limit, would_be, what, key) in checks {
            if exceeds(would_be, limit) {
                return Some(format!("more than {limit} {what} ([brake] {key})"));
            }
        }
        let checks = [
            (limits.refunds_per_pass_per_provider, own.pass_refunds, "a pass", "pass"),
            (limits.refunds_per_hour_per_provider, own.hour_refunds, "an hour", "hour"),
            (limits.refunds_per_day_per_provider, own.day_refunds, "a day", "day"),
        ];
        for (limit, would_be, span, key) in checks {
            if exceeds(would_be, limit) {
                return Some(format!(
                    "more than {limit} refunds in {span} for {provider} ([brake] max_refunds_per_{key}_per_provider)"
                ));
            }
        }
        let (percent, charges) = (limits.share_per_day, self.counted.charges?);
        let share = u128::from(all.day_refunds) * 100 > u128::from(charges) * u128::from(percent);
        (percent > 0 && all.day_refunds > SHARE_FROM && share).then(|| {
            format!(
                "more than {percent} percent of a day's charges, {} refunds of {charges} \
                 ([brake] max_refund_share_per_day)",
                all.day_refunds
            )
        })
    }
}

/// Whether a limit that is set is passed.
const fn exceeds(would_be: u64, limit: u64) -> bool {
    limit > 0 && would_be > limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::FailureClass;

    fn on() -> Held {
        Held { all: Some("why".to_owned()), ..Held::default() }
    }

    fn brake(limits: Limits) -> Brake {
        Brake::new(limits, Held::default(), Counted::default())
    }

    #[test]
    fn p15_the_limit_itself_is_let_through_and_one_more_is_not() {
        let mut brake = brake(Limits { refunds_per_hour: 3, ..Limits::default() });
        assert_eq!([(); 5].map(|()| brake.admit("acme", 10, false)), [true, true, true, false, false]);
        assert_eq!(
            brake.held.all.as_deref(),
            Some("more than 3 refunds in an hour ([brake] max_refunds_per_hour)")
        );
    }

    #[test]
    fn every_limit_stops_by_itself() {
        let cases = [
            (Limits { refunds_per_pass: 1, ..Limits::default() }, "max_refunds_per_pass"),
            (Limits { credits_per_pass: 19, ..Limits::default() }, "max_credits_per_pass"),
            (Limits { refunds_per_day: 1, ..Limits::default() }, "max_refunds_per_day"),
            (Limits { credits_per_hour: 19, ..Limits::default() }, "max_credits_per_hour"),
            (Limits { credits_per_day: 19, ..Limits::default() }, "max_credits_per_day"),
            (
                Limits { refunds_per_pass_per_provider: 1, ..Limits::default() },
                "max_refunds_per_pass_per_provider",
            ),
            (
                Limits { refunds_per_hour_per_provider: 1, ..Limits::default() },
                "max_refunds_per_hour_per_provider",
            ),
            (
                Limits { refunds_per_day_per_provider: 1, ..Limits::default() },
                "max_refunds_per_day_per_provider",
            ),
        ];
        for (limits, key) in cases {
            let mut brake = brake(limits);
            assert!(brake.admit("acme", 10, false), "{key}");
            assert!(!brake.admit("acme", 10, false), "{key}");
            assert!(
                brake.held.all.as_deref().is_some_and(|why| why.contains(key)),
                "{key}: {:?}",
                brake.held.all
            );
            assert!(!brake.condition_is_gone(), "{key}");
        }
    }

    #[test]
    fn a_share_of_the_charges_counts_from_a_hundred_refunds_on() {
        let limits = Limits { share_per_day: 50, ..Limits::default() };
        let with = |charges| {
            Brake::new(limits, Held::default(), Counted { charges: Some(charges), ..Counted::default() })
        };
        let mut few = with(0);
        assert!((0..SHARE_FROM).all(|_| few.admit("acme", 1, false)), "a hundred are no sign of anything");
        assert!(!few.admit("acme", 1, false));
        assert!(few.held.all.unwrap().contains("50 percent of a day's charges, 101 refunds of 0"));
        let mut half = with(300);
        assert_eq!((0..400).filter(|_| half.admit("acme", 1, false)).count(), 150, "half of 300");
        let no_limit = Limits::default();
        let counted = Counted { charges: Some(300), ..Counted::default() };
        let mut unlimited = Brake::new(no_limit, Held::default(), counted);
        assert!((0..400).all(|_| unlimited.admit("acme", 1, false)), "no percent is no limit");
        let mut uncounted = brake(limits);
        assert!((0..400).all(|_| uncounted.admit("acme", 1, false)));
    }

    #[test]
    fn faults_of_ours_are_held_by_themselves_and_stop_nobody_else() {
        let mut brake = brake(Limits { own_faults_per_day: 2, ..Limits::default() });
        assert_eq!([(); 4].map(|()| brake.admit("acme", 1, true)), [true, true, false, false]);
        let why = brake.held.own_faults.clone().unwrap();
        assert!(
            why.starts_with("more than 2 refunds in a day") && why.contains("max_own_fault_refunds_per_day")
        );
        assert!(brake.admit("acme", 1, false) && brake.held.all.is_none());
    }

    #[test]
    fn faults_of_ours_stay_held_until_they_are_released_however_few_count_by_then() {
        let limits = Limits { own_faults_per_day: 2, ..Limits::default() };
        let held = Held { own_faults: Some("why".to_owned()), ..Held::default() };
        let mut brake = Brake::new(limits, held, Counted::default());
        assert!(!brake.admit("acme", 1, true));
        assert!(brake.admit("acme", 1, false));
    }

    #[test]
    fn only_what_was_not_held_before_is_to_be_written_down() {
        let limits = Limits { own_faults_per_day: 1, refunds_per_hour: 1, ..Limits::default() };
        let mut brake = Brake::new(limits, Held::default(), Counted::default());
        assert!(brake.admit("acme", 1, true));
        assert_eq!(brake.clone().pulled(), Held::default());
        assert!(!brake.admit("acme", 1, true) && !brake.admit("acme", 1, false));
        let pulled = brake.pulled();
        assert!(pulled.all.is_some() && pulled.own_faults.is_some());
        assert_eq!(Brake::new(limits, pulled, Counted::default()).pulled(), Held::default());
    }

    #[test]
    fn faults_of_ours_are_gone_at_half_of_their_limit() {
        let with = |own_faults, own_faults_per_day| {
            let limits = Limits { own_faults_per_day, ..Limits::default() };
            Brake::new(limits, on(), Counted { own_faults, ..Counted::default() }).own_faults_are_gone()
        };
        assert_eq!([0, 2, 3, 4].map(|own_faults| with(own_faults, 4)), [true, true, false, false]);
        assert!(with(1_000, 0), "no limit");
    }

    #[test]
    fn what_is_a_fault_of_ours_and_what_is_not() {
        let now = Timestamp::from_micros(0);
        for (doubt, ours) in [
            (Doubt::Unauthorized, true),
            (Doubt::UnknownProvider, true),
            (Doubt::Unreadable, true),
            (Doubt::Unreachable, false),
            (Doubt::RateLimited, false),
        ] {
            let evidence = Evidence::could_not_tell(doubt, "", now);
            assert_eq!(is_own_fault(Reason::Unconfirmed, Some(&evidence)), ours, "{doubt:?}");
            assert!(is_own_fault(Reason::RecoveryFailed, Some(&evidence)), "offered before, and never home");
            assert!(!is_own_fault(Reason::ReportedFailed, Some(&evidence)), "the platform's own word");
        }
        let mut failed = Evidence::could_not_tell(Doubt::Unreadable, "", now);
        (failed.verdict, failed.class) = (Verdict::Failed, Some(FailureClass::ServerError));
        assert!(!is_own_fault(Reason::Unconfirmed, Some(&failed)));
        assert!(!is_own_fault(Reason::Unconfirmed, None));
        assert!(!is_own_fault(Reason::ServerError, Some(&failed)));
    }

    #[test]
    fn the_condition_is_gone_when_all_is_down_to_half_of_each_limit() {
        let limits = Limits { refunds_per_hour: 8, refunds_per_hour_per_provider: 4, ..Limits::default() };
        let with = |hour_refunds| {
            let sums = Sums { hour_refunds, ..Sums::default() };
            let per_provider = BTreeMap::from([("acme".to_owned(), sums)]);
            Brake::new(limits, on(), Counted { per_provider, ..Counted::default() })
        };
        assert!(with(0).condition_is_gone() && with(2).condition_is_gone());
        assert!(!with(3).condition_is_gone(), "acme is still above half of its own limit");
        assert!(!with(5).condition_is_gone());
    }

    #[test]
    fn one_provider_at_its_limit_is_not_another_at_its() {
        let mut brake = brake(Limits { refunds_per_hour_per_provider: 1, ..Limits::default() });
        assert!(brake.admit("acme", 1, false) && brake.admit("other", 1, false));
        assert!(!brake.admit("other", 1, false));
        assert!(brake.held.all.unwrap().contains("1 refunds in an hour for other"));
    }

    #[test]
    fn what_was_let_go_before_the_release_no_longer_counts() {
        let now = Timestamp::from_micros(10_000_000_000);
        let released = now - Duration::from_mins(1);
        assert_eq!(Brake::since(now, HOUR, Some(released)), released);
        assert_eq!(Brake::since(now, HOUR, None), now - HOUR);
        assert_eq!(Brake::since(now, HOUR, Some(now - DAY)), now - HOUR);
        assert_eq!(Brake::since(now, HOUR, Some(now)), now);
    }

    #[test]
    fn p15_a_clock_that_was_put_back_excuses_nothing() {
        let now = Timestamp::from_micros(100 * 3_600_000_000);
        let ahead = now + 5 * HOUR;
        assert_eq!(Brake::since(now, DAY, Some(ahead)), now - DAY, "released while it was ahead");
        assert_eq!(Brake::span_of_pass(now, now - 2 * HOUR), 2 * HOUR);
        assert_eq!(Brake::span_of_pass(now, now), Duration::ZERO);
        assert_eq!(Brake::span_of_pass(now, ahead), HOUR, "begun while it was ahead");
    }

    #[test]
    fn without_limits_nothing_stops_it() {
        let mut brake = brake(Limits::default());
        assert!((0..10_000).all(|_| brake.admit("acme", 1_000_000, false)));
    }
}
