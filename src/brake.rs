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
//! Limits per account and day hold that account alone (`account`), and a person may hold one
//! provider alone. Credits are measured by what charges cost on average (`price`).
//!
//! This file judges; `store::settle` locks and writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::evidence::{Doubt, Evidence, Verdict};
use crate::policy::Reason;

pub mod account;
pub mod price;

pub use account::{AccountStanding, Accounts};
pub use price::Price;

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
    /// Credits in a day, in percent of what the day's charges cost by their average.
    pub credit_share_per_day: u64,
    /// Refunds in a day of one account.
    pub refunds_per_day_per_account: u64,
    /// Credits in a day of one account, in the smallest unit.
    pub credits_per_day_per_account: u64,
    /// Credits in a day of one account, in percent of what the day's charges of all cost by their
    /// average.
    pub credit_share_per_day_per_account: u64,
}

impl Limits {
    /// How many charges of a day keep so many refunds within the share; none: the share does not matter, because there is
    /// no such limit or there are too few refunds.
    pub fn charges_needed(&self, day_refunds: u128) -> Option<u64> {
        charges_needed(day_refunds, self.share_per_day, SHARE_FROM)
    }

    /// The same for the credits of a day.
    pub fn charges_needed_for_credits(&self, day_credits: u128, price: Option<Price>) -> Option<u64> {
        charges_needed(price?.worth(day_credits), self.credit_share_per_day, SHARE_FROM)
    }

    /// Whether there is a limit per account.
    pub const fn limit_accounts(&self) -> bool {
        self.refunds_per_day_per_account > 0
            || self.credits_per_day_per_account > 0
            || self.credit_share_per_day_per_account > 0
    }

    /// Whether a limit is measured by the average price.
    pub const fn need_a_price(&self) -> bool {
        self.credit_share_per_day > 0 || self.credit_share_per_day_per_account > 0
    }
}

/// How many charges keep so many refunds within `percent` of them; none: no limit, or no more
/// refunds than `from`.
fn charges_needed(refunds: u128, percent: u64, from: u64) -> Option<u64> {
    if percent == 0 || refunds <= u128::from(from) {
        return None;
    }
    // More than a number can hold: more than any platform has.
    let needed = refunds.checked_mul(100).map(|needed| needed.div_ceil(u128::from(percent)));
    Some(needed.and_then(|needed| u64::try_from(needed).ok()).unwrap_or(u64::MAX))
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
    /// What a charge costs on average, where a limit is measured by it.
    pub price: Option<Price>,
}

impl Counted {
    /// Refunds of the last day, of all providers.
    pub fn day_refunds(&self) -> u128 {
        self.per_provider.values().fold(0, |sum, each| sum.saturating_add(each.day_refunds))
    }

    /// Credits of the last day, of all providers.
    pub fn day_credits(&self) -> u128 {
        self.per_provider.values().fold(0, |sum, each| sum.saturating_add(each.day_credits))
    }
}

/// Which refunds are held, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// All of them: the limit that was reached; none: the brake is off.
    pub all: Option<String>,
    /// Those that rest on nothing but faults of ours.
    pub own_faults: Option<String>,
    /// Those of one provider, which a person holds: why, by provider.
    pub providers: BTreeMap<String, String>,
}

/// Why a refund is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The account, if its limits hold it and not the brake of all.
    pub account: Option<String>,
    /// Which limit was reached, or what a person said.
    pub why: String,
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
    /// The accounts that it is asked about.
    accounts: Accounts,
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
        // None: it was asked, and no pass lived to record the answer.
        Some(Verdict::CouldNotTell(Doubt::Unauthorized | Doubt::UnknownProvider | Doubt::Unreadable))
        | None => true,
        Some(
            Verdict::CouldNotTell(Doubt::Unreachable | Doubt::RateLimited)
            | Verdict::Queued
            | Verdict::Running
            | Verdict::Succeeded
            | Verdict::Failed
            | Verdict::Cancelled
            | Verdict::UnknownJob,
        ) => false,
    };
    reason == Reason::RecoveryFailed || reason == Reason::Unconfirmed && doubt_is_ours
}

impl Brake {
    /// The brake as it stands: what it holds already, and what was counted.
    pub fn new(limits: Limits, held: Held, counted: Counted) -> Self {
        let (before, accounts) = (held.clone(), Accounts::default());
        Self { before, held, limits, counted, released_at: None, asked: Vec::new(), accounts }
    }

    /// With its last release by a person.
    #[must_use]
    pub fn released(self, at: Option<Timestamp>) -> Self {
        Self { released_at: at, ..self }
    }

    /// With the accounts that refunds go to, and at least so many charges of the day.
    pub fn set_accounts(&mut self, accounts: Accounts, charges: u64) {
        self.accounts = accounts;
        self.counted.charges = self.counted.charges.max(charges);
    }

    /// The accounts that it was asked about.
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The limits that it holds.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What a charge costs on average.
    pub const fn price(&self) -> Option<Price> {
        self.counted.price
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
            ..Held::default()
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

    /// Whether one more refund of an account may go: first by the account's own limits, then by
    /// those of all. What the account's limits hold counts for nothing else.
    ///
    /// # Errors
    /// Why it is held.
    pub fn judge(
        &mut self,
        account: &str,
        provider: &str,
        credits: i64,
        own_fault: bool,
    ) -> Result<(), Refusal> {
        let by_account = |why: &String| Refusal { account: Some(account.to_owned()), why: why.clone() };
        if let Some(why) = self.accounts.held(account) {
            return Err(by_account(why));
        }
        let given = u128::try_from(credits).unwrap_or(0);
        if self.holds(provider, own_fault).is_none() {
            let (price, charges) = (self.counted.price, self.counted.charges);
            let held = self.accounts.hold_beyond(account, given, &self.limits, price, charges);
            if let Some(why) = held {
                return Err(by_account(&why));
            }
        }
        if self.admit(provider, credits, own_fault) {
            self.accounts.count(account, given);
            return Ok(());
        }
        let why = self.holds(provider, own_fault).cloned().unwrap_or_default();
        Err(Refusal { account: None, why })
    }

    /// Why refunds of a provider are held, if they are.
    fn holds(&self, provider: &str, own_fault: bool) -> Option<&String> {
        let own_faults = self.held.own_faults.as_ref().filter(|_| own_fault);
        self.held.all.as_ref().or_else(|| self.held.providers.get(provider)).or(own_faults)
    }

    /// Whether one more refund may go; if it would pass a limit, the brake is on from here.
    pub fn admit(&mut self, provider: &str, credits: i64, own_fault: bool) -> bool {
        let admitted = self.lets_through(provider, credits, own_fault);
        self.asked.push(Asked { provider: provider.to_owned(), credits, own_fault, admitted });
        admitted
    }

    fn lets_through(&mut self, provider: &str, credits: i64, own_fault: bool) -> bool {
        if self.holds(provider, own_fault).is_some() {
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
        if limits.charges_needed(all.day_refunds).is_some_and(|needed| charges < needed) {
            return Some(format!(
                "more than {percent} percent of a day's charges, {} refunds of {charges} \
                 ([brake] max_refund_share_per_day)",
                all.day_refunds
            ));
        }
        // Beyond it the sums could not be kept, whatever the limits are.
        if own.day_credits > u128::from(MAX_SUM) {
            return Some(format!(
                "{} credits in a day for {provider} are more than a number of the database can hold",
                own.day_credits
            ));
        }
        let (percent, price) = (limits.credit_share_per_day, self.counted.price);
        let needed = limits.charges_needed_for_credits(all.day_credits, price)?;
        (charges < needed).then(|| {
            format!(
                "{} credits in a day, as many as {} charges cost on average, are more than {percent} percent of \
                 a day's {charges} charges ([brake] max_credit_share_per_day)",
                all.day_credits,
                price.map_or(0, |price| price.worth(all.day_credits))
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
mod tests;
