//! When to stop: too many refunds at once suggest that something else is broken.
//!
//! The brake is one row in the database. A settle that refunds first reads it without a lock and decides which refunds
//! the limits admit. After all its writes it locks the row, reads the sums again and repeats these decisions; it commits
//! only if they come out the same, and adds its refunds to the sums under this lock. So the limits hold across all
//! processes, and the row is locked only for the commit. The sums are kept per provider and minute: a rolling hour or day
//! counts up to a minute too much and never too little; a pass is counted exactly.
//!
//! Once a limit would be passed, the brake is on until a person releases it, or, where the settings say so, until the
//! condition is gone; only refunds are held, recoveries and closings go on. Who releases it sets the sums to zero; where it
//! goes off by itself, what was refunded still counts.
//!
//! Refunds that rest on nothing but a fault of ours (a key refused, a provider file missing, an answer that our filter
//! cannot read, an output that is offered and that we cannot bring home) have a brake of their own, which is on and released
//! like the other. It holds them alone; everybody else's go on.
//!
//! This file judges; `store::settle` locks and writes.

use std::collections::BTreeMap;
use std::sync::Arc;
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

impl Limits {
    /// How many charges of a day keep so many refunds within the share; none: the share does not matter, because there is
    /// no such limit or there are too few refunds.
    pub fn charges_needed(&self, day_refunds: u128) -> Option<u64> {
        if self.share_per_day == 0 || day_refunds <= u128::from(SHARE_FROM) {
            return None;
        }
        let needed = day_refunds.saturating_mul(100).div_ceil(u128::from(self.share_per_day));
        Some(u64::try_from(needed).unwrap_or(u64::MAX))
    }
}

/// What is watched in a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The limits.
    pub limits: Limits,
    /// When the pass began, if this is one.
    pub pass_began: Option<Timestamp>,
    /// What the sums from that minute on held when the pass began.
    pub baseline: Arc<Baseline>,
    /// A person lets these refunds through, whatever is held (P23). They count for those that come after.
    pub overruled: bool,
}

/// The sums from the first minute of a pass on, as they were when it began: they are not the pass's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// The last release of the brake before. A later one sets the sums to zero, and the baseline with them.
    pub released_at: Option<Timestamp>,
    /// Refunds and credits per provider.
    pub per_provider: BTreeMap<String, (u128, u128)>,
}

impl Watch {
    /// What to subtract from a provider's sums since the minute in which the pass began. Nothing after a release: it has set
    /// the sums to zero. Rather too much is counted than too little.
    pub fn baseline_of(
        &self,
        provider: &str,
        now: Timestamp,
        released_at: Option<Timestamp>,
    ) -> (u128, u128) {
        let Some(began) = self.pass_began else { return (0, 0) };
        let released = released_at != self.baseline.released_at || released_at.is_some_and(|at| at >= began);
        if released || began > now {
            return (0, 0);
        }
        self.baseline.per_provider.get(provider).copied().unwrap_or_default()
    }
}

/// So many refunds a day are no sign of anything, whatever their share of the charges is.
pub const SHARE_FROM: u64 = 100;

/// What was refunded in the last hour and day, and since the pass began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Refunds since the pass began.
    pub pass_refunds: u128,
    /// Credits since the pass began.
    pub pass_credits: u128,
    /// Refunds in the last hour.
    pub hour_refunds: u128,
    /// Credits in the last hour.
    pub hour_credits: u128,
    /// Refunds in the last day.
    pub day_refunds: u128,
    /// Credits in the last day.
    pub day_credits: u128,
}

impl Sums {
    const fn one(credits: u128) -> Self {
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
    /// At least so many charges were made in the last day. Counted only where the share of them may decide.
    pub charges: u64,
    /// Refunds of the last day that rested on nothing but faults of ours.
    pub own_faults: u128,
}

impl Counted {
    /// Refunds of the last day, of all providers.
    pub fn day_refunds(&self) -> u128 {
        self.per_provider.values().fold(0, |sum, each| sum.saturating_add(each.day_refunds))
    }
}

/// Which refunds are held, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// All of them: the limit that was reached; none: the brake is off.
    pub all: Option<String>,
    /// Those that rest on nothing but faults of ours.
    pub own_faults: Option<String>,
}

/// The brake as it was read: admits refunds one by one, counts them, and remembers what it said of each.
#[derive(Clone, Debug)]
pub struct Brake {
    /// What it holds by now.
    pub held: Held,
    /// What it held when it was read.
    before: Held,
    limits: Limits,
    counted: Counted,
    /// Its last release by a person.
    released_at: Option<Timestamp>,
    asked: Vec<Asked>,
}

/// A refund that the brake was asked about.
#[derive(Clone, Debug)]
struct Asked {
    provider: String,
    credits: i64,
    own_fault: bool,
    admitted: bool,
}

/// What a settle adds to the sums of one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Refunds.
    pub refunds: u64,
    /// Their credits.
    pub credits: u128,
    /// Those of them that rest on nothing but faults of ours.
    pub own_faults: u64,
}

/// The sums are kept by the minute, each minute of two days in a row of its own.
const MINUTE_MICROS: i64 = 60_000_000;
/// A row is written over when it is two days old. Twice the longest span that is counted, so that a clock that is ahead by
/// less than a day writes over nothing that still counts once it is right again.
const SLOTS: i64 = 2 * 24 * 60;

/// The beginning of the minute.
pub fn minute_of(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_sub(at.micros().rem_euclid(MINUTE_MICROS)))
}

/// Which row of its provider keeps the sums of the minute.
pub const fn slot_of(at: Timestamp) -> i64 {
    at.micros().div_euclid(MINUTE_MICROS).rem_euclid(SLOTS)
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
        Self { before: held.clone(), held, limits, counted, released_at: None, asked: Vec::new() }
    }

    /// With its last release by a person.
    #[must_use]
    pub fn released(self, at: Option<Timestamp>) -> Self {
        Self { released_at: at, ..self }
    }

    /// The brake under a person's hand: it holds nothing.
    pub fn overruled() -> Self {
        Self::new(Limits::default(), Held::default(), Counted::default())
    }

    /// What it holds since it was read: that is still to be written down.
    pub fn pulled(&self) -> Held {
        Held {
            all: self.held.all.clone().filter(|_| self.before.all.is_none()),
            own_faults: self.held.own_faults.clone().filter(|_| self.before.own_faults.is_none()),
        }
    }

    /// Whether any refund came before it.
    pub const fn was_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// How many charges were counted.
    pub const fn charges(&self) -> u64 {
        self.counted.charges
    }

    /// Asks the brake that is locked now about the same refunds. None: it does not say the same, because another process has
    /// refunded or engaged meanwhile, or a person has released it. Then nothing of this transaction may be committed: its
    /// refunds bear a time from before the release, after which counts start afresh.
    pub fn confirmed_by(&self, mut locked: Self) -> Option<Self> {
        if self.released_at != locked.released_at {
            return None;
        }
        let same = |each: &Asked| locked.admit(&each.provider, each.credits, each.own_fault) == each.admitted;
        self.asked.iter().all(same).then_some(locked)
    }

    /// What the admitted refunds add to the sums, per provider.
    pub fn added(&self) -> BTreeMap<&str, Added> {
        let mut added: BTreeMap<&str, Added> = BTreeMap::new();
        for each in self.asked.iter().filter(|each| each.admitted) {
            let sums = added.entry(&each.provider).or_default();
            sums.refunds += 1;
            sums.credits += u128::try_from(each.credits).unwrap_or(0);
            sums.own_faults += u64::from(each.own_fault);
        }
        added
    }

    /// From when refunds count: so far back, and from the beginning of that minute, since the sums are kept by the minute.
    pub fn since(now: Timestamp, span: Duration) -> Timestamp {
        minute_of(now - span)
    }

    /// How far back a pass reaches. Began it ahead of now, the clock was put back in the middle of it: then an hour, since
    /// rather too much is counted than nothing.
    pub fn span_of_pass(now: Timestamp, began: Timestamp) -> Duration {
        if began > now { HOUR } else { now.since(began) }
    }

    /// Whether one more refund may go; if it would pass a limit, the brake is on from here.
    pub fn admit(&mut self, provider: &str, credits: i64, own_fault: bool) -> bool {
        let admitted = self.lets_through(provider, credits, own_fault);
        self.asked.push(Asked { provider: provider.to_owned(), credits, own_fault, admitted });
        admitted
    }

    fn lets_through(&mut self, provider: &str, credits: i64, own_fault: bool) -> bool {
        if self.held.all.is_some() || own_fault && self.held.own_faults.is_some() {
            return false;
        }
        let limit = self.limits.own_faults_per_day;
        let own_faults = self.counted.own_faults.saturating_add(u128::from(own_fault));
        if own_fault && exceeds(own_faults, limit) {
            self.held.own_faults = Some(format!(
                "more than {limit} refunds in a day for nothing but faults of ours \
                 ([brake] max_own_fault_refunds_per_day); these alone are held"
            ));
            return false;
        }
        let one = Sums::one(u128::try_from(credits).unwrap_or(0));
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
        let (percent, charges) = (limits.share_per_day, self.counted.charges);
        let needed = limits.charges_needed(all.day_refunds)?;
        (charges < needed).then(|| {
            format!(
                "more than {percent} percent of a day's charges, {} refunds of {charges} \
                 ([brake] max_refund_share_per_day)",
                all.day_refunds
            )
        })
    }
}

/// The largest number that a row of the sums can hold. One that has come to it may stand for more: no limit above it could
/// be seen to be reached.
const MAX_SUM: u64 = i64::MAX as u64;

/// Whether a limit that is set is passed.
const fn exceeds(would_be: u128, limit: u64) -> bool {
    let limit = if limit > MAX_SUM { MAX_SUM } else { limit };
    limit > 0 && would_be > limit as u128
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
        let with = |charges| Brake::new(limits, Held::default(), Counted { charges, ..Counted::default() });
        let mut few = with(0);
        assert!((0..SHARE_FROM).all(|_| few.admit("acme", 1, false)), "a hundred are no sign of anything");
        assert!(!few.admit("acme", 1, false));
        assert!(few.held.all.unwrap().contains("50 percent of a day's charges, 101 refunds of 0"));
        let mut half = with(300);
        assert_eq!((0..400).filter(|_| half.admit("acme", 1, false)).count(), 150, "half of 300");
        let no_limit = Limits::default();
        let counted = Counted { charges: 300, ..Counted::default() };
        let mut unlimited = Brake::new(no_limit, Held::default(), counted);
        assert!((0..400).all(|_| unlimited.admit("acme", 1, false)), "no percent is no limit");
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
        assert_eq!(brake.pulled(), Held::default());
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
    fn charges_are_needed_only_where_their_number_decides() {
        let limits = Limits { share_per_day: 30, ..Limits::default() };
        assert_eq!(
            [0, 100, 101, 150].map(|refunds| limits.charges_needed(refunds)),
            [None, None, Some(337), Some(500)]
        );
        assert_eq!(Limits::default().charges_needed(1_000_000), None);
        assert_eq!(limits.charges_needed(u128::MAX), Some(u64::MAX));
        // One charge fewer than needed, and the same number of refunds is too large a share.
        let with = |charges| {
            let sums = Sums { day_refunds: 149, ..Sums::default() };
            let per_provider = BTreeMap::from([("acme".to_owned(), sums)]);
            Brake::new(limits, Held::default(), Counted { per_provider, charges, ..Counted::default() })
        };
        assert!(with(500).admit("acme", 1, false) && !with(499).admit("acme", 1, false));
    }

    #[test]
    fn p15_spans_begin_with_their_minute_and_a_clock_that_was_put_back_excuses_nothing() {
        let now = Timestamp::from_micros(100 * 3_600_000_000 + 59_999_999);
        assert_eq!(Brake::since(now, HOUR), Timestamp::from_micros(99 * 3_600_000_000));
        assert_eq!(Brake::since(now, Duration::ZERO), Timestamp::from_micros(100 * 3_600_000_000));
        let ahead = now + 5 * HOUR;
        assert_eq!(Brake::span_of_pass(now, now - 2 * HOUR), 2 * HOUR);
        assert_eq!(Brake::span_of_pass(now, now), Duration::ZERO);
        assert_eq!(Brake::span_of_pass(now, ahead), HOUR, "begun while it was ahead");
    }

    #[test]
    fn each_minute_of_two_days_has_a_slot_of_its_own() {
        let minute = |nth: i64| Timestamp::from_micros(nth * MINUTE_MICROS);
        assert_eq!([0, 1, 2879, 2880, -1].map(|nth| slot_of(minute(nth))), [0, 1, 2879, 0, 2879]);
        assert_eq!(slot_of(Timestamp::from_micros(MINUTE_MICROS - 1)), 0);
        assert_eq!(minute_of(Timestamp::from_micros(-1)), minute(-1));
        assert_eq!(minute_of(minute(7) + Duration::from_secs(59)), minute(7));
    }

    #[test]
    fn p15_the_baseline_of_a_pass_counts_until_the_brake_is_released() {
        let began = Timestamp::from_micros(10 * 3_600_000_000);
        let before = Some(began - HOUR);
        let watch = |released_at| Watch {
            pass_began: Some(began),
            baseline: Arc::new(Baseline {
                released_at,
                per_provider: BTreeMap::from([("acme".to_owned(), (3, 30))]),
            }),
            ..Watch::default()
        };
        let now = began + HOUR;
        assert_eq!(watch(None).baseline_of("acme", now, None), (3, 30));
        assert_eq!(watch(None).baseline_of("other", now, None), (0, 0));
        assert_eq!(watch(before).baseline_of("acme", now, before), (3, 30));
        assert_eq!(watch(before).baseline_of("acme", now, Some(began + HOUR)), (0, 0), "released since");
        assert_eq!(watch(Some(began)).baseline_of("acme", now, Some(began)), (0, 0), "in that moment");
        assert_eq!(watch(None).baseline_of("acme", began - HOUR, None), (0, 0), "the clock was put back");
        assert_eq!(Watch::default().baseline_of("acme", now, None), (0, 0));
    }

    #[test]
    fn p15_the_locked_brake_confirms_only_what_it_would_say_itself() {
        let limits = Limits { refunds_per_hour: 3, ..Limits::default() };
        let with = |hour_refunds, held: Option<&str>| {
            let per_provider =
                BTreeMap::from([("acme".to_owned(), Sums { hour_refunds, ..Sums::default() })]);
            let held = Held { all: held.map(str::to_owned), ..Held::default() };
            Brake::new(limits, held, Counted { per_provider, ..Counted::default() })
        };
        let mut two = with(0, None);
        assert!(two.admit("acme", 5, false) && two.admit("acme", 5, true));
        assert!(two.confirmed_by(with(1, None)).is_some(), "another's refund, and still within the limit");
        assert!(two.confirmed_by(with(2, None)).is_none(), "two of another's: four in all");
        assert!(two.confirmed_by(with(0, Some("engaged"))).is_none());
        assert!(two.confirmed_by(Brake::overruled()).is_some());
        let released = with(0, None).released(Some(Timestamp::from_micros(1)));
        assert!(two.confirmed_by(released).is_none(), "released meanwhile");
        assert_eq!(two.added()["acme"], Added { refunds: 2, credits: 10, own_faults: 1 });

        // Held by a brake that was released meanwhile: otherwise it would be engaged again for nothing.
        let mut held = with(3, None);
        assert!(!held.admit("acme", 5, false));
        assert!(held.confirmed_by(with(0, None)).is_none());
        let confirmed = held.confirmed_by(with(3, None)).unwrap();
        assert!(confirmed.pulled().all.is_some() && confirmed.added().is_empty());
        // Another has engaged it for the same limit: nothing is left to be written down.
        assert_eq!(held.confirmed_by(with(3, Some("engaged"))).unwrap().pulled(), Held::default());
    }

    #[test]
    fn p15_sums_at_the_end_of_the_range_count_as_a_limit_reached() {
        let one_at = |day_credits, credits_per_day| {
            let limits = Limits { credits_per_day, ..Limits::default() };
            let sums = Sums { day_credits, ..Sums::default() };
            let per_provider = BTreeMap::from([("acme".to_owned(), sums), ("other".to_owned(), sums)]);
            Brake::new(limits, Held::default(), Counted { per_provider, ..Counted::default() })
                .admit("acme", 1, false)
        };
        assert!(!one_at(u128::from(MAX_SUM), MAX_SUM) && !one_at(u128::from(MAX_SUM), u64::MAX));
        assert!(!one_at(u128::MAX, u64::MAX), "beyond the end of the widest number");
        assert!(one_at(1, 3) && !one_at(1, 2));
    }

    #[test]
    fn without_limits_nothing_stops_it() {
        let mut brake = brake(Limits::default());
        assert!((0..10_000).all(|_| brake.admit("acme", 1_000_000, false)));
    }
}
