//! The brake stops refunds: too many at once suggest that something else is broken.
//!
//! The brake's state is one row in the database. A settle first reads it without a lock and decides
//! which refunds the limits admit. After all its writes it locks the row, reads the sums again and
//! repeats these decisions. It commits only if they are the same, and adds its refunds to the sums
//! under this lock. The limits therefore hold across all processes, and the row is locked only for
//! the commit.
//!
//! If a refund would exceed a limit, the brake engages. It stays on until a person releases it or,
//! if the settings say so, until its cause is gone. Only refunds are held; recoveries and closings
//! continue. A release by a person resets the sums to zero; an automatic release does not.
//!
//! - Refunds that only a fault on our side has caused have a brake of their own: a rejected API
//!   key, a missing provider file, an answer that the filter cannot read, or an offered output that
//!   could not be recovered. It holds only these.
//! - Limits per account and day hold only that account (`account`).
//! - A person may hold a single provider.
//! - Limits on credits are measured in average charges (`price`).
//!
//! This module is pure: `store::settle` locks and writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::evidence::{Doubt, Evidence, Verdict};
use crate::policy::Reason;

pub mod account;
mod limits;
pub mod price;
mod sums;

pub use account::{AccountStanding, Accounts};
pub use limits::{BrakeLimits, SHARE_FROM};
use limits::{MAX_SUM, charges_needed, exceeds};
pub use price::Price;
pub use sums::{AddedSums, RefundCounts, Sums, minute_of, slot_of};

/// The shorter of the two rolling spans that are counted.
pub const HOUR: Duration = Duration::from_hours(1);
/// The longer of the two rolling spans that are counted.
pub const DAY: Duration = Duration::from_hours(24);

/// The context of a brake: the limits, the pass, and whether a person overrides it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrakeContext {
    /// The limits.
    pub limits: BrakeLimits,
    /// When the pass began; none outside of a pass.
    pub pass_began: Option<Timestamp>,
    /// The sums when the pass began.
    pub baseline: Arc<Baseline>,
    /// A person lets these refunds through, whatever is held. P23 (support can refund by hand).
    /// They still count for later refunds.
    pub overruled: bool,
}

/// The sums of the pass's first minute when it began. They are subtracted, because that minute's
/// row also holds earlier refunds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// The last release of the brake before. A later release resets the sums, and so the baseline.
    pub released_at: Option<Timestamp>,
    /// Refunds and credits per provider.
    pub per_provider: BTreeMap<String, (u128, u128)>,
}

impl BrakeContext {
    /// The amount to subtract from a provider's sums since the minute in which the pass began.
    ///
    /// It is zero after a release, which has reset the sums. In doubt too much is counted rather
    /// than too little.
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

/// Which refunds are held, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrakeHolds {
    /// Why all refunds are held; none: they are not.
    pub all: Option<String>,
    /// Why the refunds are held that only faults on our side have caused.
    pub own_faults: Option<String>,
    /// The providers whose refunds a person holds, and why.
    pub providers: BTreeMap<String, String>,
}

/// Why one refund is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundHold {
    /// The account, if its own limits hold it; none: another part of the brake does.
    pub account: Option<String>,
    /// The limit that was reached, or the reason that a person gave.
    pub why: String,
}

/// The brake as it was read. It admits refunds one by one, counts them, and remembers each answer.
#[derive(Clone, Debug)]
pub struct Brake {
    /// Its holds now.
    pub held: BrakeHolds,
    /// Its holds when it was read.
    before: BrakeHolds,
    limits: BrakeLimits,
    counted: RefundCounts,
    /// Its last release by a person.
    released_at: Option<Timestamp>,
    asked: Vec<Asked>,
    /// The accounts of the refunds.
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

/// Whether only a fault on our side has caused this refund. Many of these say nothing about the
/// provider.
///
/// Either the output was offered until `refund_by` and could not be recovered, or the answers could
/// not be read for a reason that is ours.
pub fn is_own_fault(reason: Reason, evidence: Option<&Evidence>) -> bool {
    let doubt_is_ours = match evidence.map(|evidence| evidence.verdict) {
        // None: the job was asked about, but every pass died before it recorded the answer.
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
    /// The brake with what it holds already and what was counted.
    pub fn new(limits: BrakeLimits, held: BrakeHolds, counted: RefundCounts) -> Self {
        let (before, accounts) = (held.clone(), Accounts::default());
        Self { before, held, limits, counted, released_at: None, asked: Vec::new(), accounts }
    }

    /// Sets its last release by a person.
    #[must_use]
    pub fn released(self, at: Option<Timestamp>) -> Self {
        Self { released_at: at, ..self }
    }

    /// Sets the accounts of the refunds, and a lower bound of the day's charges.
    pub fn set_accounts(&mut self, accounts: Accounts, charges: u64) {
        self.accounts = accounts;
        self.counted.charges = self.counted.charges.max(charges);
    }

    /// The accounts of the refunds.
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Its limits.
    pub const fn limits(&self) -> &BrakeLimits {
        &self.limits
    }

    /// The average price of a charge.
    pub const fn price(&self) -> Option<Price> {
        self.counted.price
    }

    /// A brake that a person overrides: it holds nothing.
    pub fn overruled() -> Self {
        Self::new(BrakeLimits::default(), BrakeHolds::default(), RefundCounts::default())
    }

    /// The holds that were added since it was read. The caller has to store them.
    pub fn newly_held(&self) -> BrakeHolds {
        BrakeHolds {
            all: self.held.all.clone().filter(|_| self.before.all.is_none()),
            own_faults: self.held.own_faults.clone().filter(|_| self.before.own_faults.is_none()),
            ..BrakeHolds::default()
        }
    }

    /// Whether it was asked about any refund.
    pub const fn was_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The number of charges counted.
    pub const fn charges(&self) -> u64 {
        self.counted.charges
    }

    /// Repeats the decisions with the brake's row locked and read again.
    ///
    /// None: a decision differs, because another process has refunded or engaged the brake
    /// meanwhile, or a person has released it. Then the transaction must be rolled back. Its
    /// refunds have a time from before a release, and only later refunds count after it.
    pub fn confirmed_by(&self, mut locked: Self) -> Option<Self> {
        if self.released_at != locked.released_at {
            return None;
        }
        let same = |each: &Asked| locked.admit(&each.provider, each.credits, each.own_fault) == each.admitted;
        self.asked.iter().all(same).then_some(locked)
    }

    /// The sums of the admitted refunds, for each provider.
    pub fn added(&self) -> BTreeMap<&str, AddedSums> {
        let mut added: BTreeMap<&str, AddedSums> = BTreeMap::new();
        for each in self.asked.iter().filter(|each| each.admitted) {
            let sums = added.entry(&each.provider).or_default();
            sums.refunds += 1;
            sums.credits += u128::try_from(each.credits).unwrap_or(0);
            sums.own_faults += u64::from(each.own_fault);
        }
        added
    }

    /// The time from which refunds count: `span` ago, rounded down to the minute.
    pub fn since(now: Timestamp, span: Duration) -> Timestamp {
        minute_of(now - span)
    }

    /// The time since the pass began. If it began in the future, the clock was set back during the
    /// pass: then an hour, because too much is safer than nothing.
    pub fn span_of_pass(now: Timestamp, began: Timestamp) -> Duration {
        if began > now { HOUR } else { now.since(began) }
    }

    /// Decides whether one more refund is admitted: first by the account's limits, then by all
    /// others. A refund that the account's limits hold counts towards no other limit.
    ///
    /// # Errors
    /// The refund is held.
    pub fn judge(
        &mut self,
        account: &str,
        provider: &str,
        credits: i64,
        own_fault: bool,
    ) -> Result<(), RefundHold> {
        let by_account = |why: &String| RefundHold { account: Some(account.to_owned()), why: why.clone() };
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
        Err(RefundHold { account: None, why })
    }

    /// Why refunds of this provider are held, if they are.
    fn holds(&self, provider: &str, own_fault: bool) -> Option<&String> {
        let own_faults = self.held.own_faults.as_ref().filter(|_| own_fault);
        self.held.all.as_ref().or_else(|| self.held.providers.get(provider)).or(own_faults)
    }

    /// Whether one more refund is admitted. If it would exceed a limit, the brake engages.
    pub fn admit(&mut self, provider: &str, credits: i64, own_fault: bool) -> bool {
        let admitted = self.is_admitted(provider, credits, own_fault);
        self.asked.push(Asked { provider: provider.to_owned(), credits, own_fault, admitted });
        admitted
    }

    fn is_admitted(&mut self, provider: &str, credits: i64, own_fault: bool) -> bool {
        if self.holds(provider, own_fault).is_some() {
            return false;
        }
        let limit = self.limits.own_faults_per_day;
        let own_faults = self.counted.own_faults.saturating_add(u128::from(own_fault));
        if own_fault && exceeds(own_faults, limit) {
            self.held.own_faults = Some(format!(
                "more than {limit} refunds in a day caused only by faults of ours \
                 ([brake] max_own_fault_refunds_per_day); only these are held"
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

    /// Whether its cause is gone: every sum is at most half of its limit. Otherwise the next refund
    /// could engage it again.
    pub fn condition_is_gone(&self) -> bool {
        let twice = |sums: Sums| sums.plus(sums);
        let all = twice(self.all());
        let providers = self.counted.per_provider.keys().map(String::as_str).chain([""]);
        providers.into_iter().all(|name| self.broken_limit(name, all, twice(self.of(name))).is_none())
    }

    /// The same for refunds that only faults on our side have caused.
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
                "more than {percent} percent of the day's charges: {} refunds of {charges} \
                 ([brake] max_refund_share_per_day)",
                all.day_refunds
            ));
        }
        // A larger sum could not be stored, whatever the limits are.
        if own.day_credits > u128::from(MAX_SUM) {
            return Some(format!(
                "{} credits in a day for {provider} are more than the database can store",
                own.day_credits
            ));
        }
        let (percent, price) = (limits.credit_share_per_day, self.counted.price);
        let needed = limits.charges_needed_for_credits(all.day_credits, price)?;
        (charges < needed).then(|| {
            format!(
                "{} credits in a day, the average price of {} charges, are more than {percent} percent of \
                 the day's {charges} charges ([brake] max_credit_share_per_day)",
                all.day_credits,
                price.map_or(0, |price| price.worth(all.day_credits))
            )
        })
    }
}

#[cfg(test)]
mod tests;
