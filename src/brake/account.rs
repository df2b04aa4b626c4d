//! Limits per account and day. They hold only that account's refunds.
//!
//! A settle locks makegood's row of each account (`makegood_accounts`) before it reads the
//! account's counts, and keeps the lock until its commit. The counts are therefore exact; they need
//! no second reading, unlike those of the whole brake. A refund that is held for an account counts
//! towards no other limit.

use std::collections::BTreeMap;

use super::{BrakeLimits, Price, charges_needed, exceeds};

/// Below this many average charges, an account's share of the day's credits is not checked.
///
/// It is half of [`super::SHARE_FROM`], so that one account alone cannot reach the share of the
/// whole brake.
pub const ACCOUNT_SHARE_FROM: u64 = 50;

/// An account's hold and counts, read under its lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountStanding {
    /// Why its refunds are held, if they are.
    pub held: Option<String>,
    /// Its refunds of the last day, since its last release by a person.
    pub refunds: u128,
    /// Their credits.
    pub credits: u128,
}

/// The accounts of one settle.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    standing: BTreeMap<String, AccountStanding>,
    newly_held: BTreeMap<String, String>,
}

impl Accounts {
    /// Accounts with what was read under their locks.
    pub fn new(standing: BTreeMap<String, AccountStanding>) -> Self {
        Self { standing, newly_held: BTreeMap::new() }
    }

    /// The accounts that this settle holds for the first time, and why.
    pub fn newly_held(&self) -> &BTreeMap<String, String> {
        &self.newly_held
    }

    /// Whether the account's refunds are held.
    pub fn is_held(&self, account: &str) -> bool {
        self.held(account).is_some()
    }

    /// Why the account's refunds are held already.
    pub(super) fn held(&self, account: &str) -> Option<&String> {
        self.standing.get(account)?.held.as_ref()
    }

    /// Holds the account if this refund would exceed a limit, and returns why.
    pub(super) fn hold_beyond(
        &mut self,
        account: &str,
        credits: u128,
        limits: &BrakeLimits,
        price: Option<Price>,
        charges: u64,
    ) -> Option<String> {
        let standing = self.standing.get(account)?;
        let (refunds, credits) = (standing.refunds + 1, standing.credits + credits);
        let broken = broken_limit(refunds, credits, limits, price, charges)?;
        let why = format!("account {account}: {broken}; only its refunds are held");
        self.newly_held.insert(account.to_owned(), why.clone());
        self.standing.entry(account.to_owned()).or_default().held = Some(why.clone());
        Some(why)
    }

    /// Counts an admitted refund.
    pub(super) fn count(&mut self, account: &str, credits: u128) {
        if let Some(standing) = self.standing.get_mut(account) {
            standing.refunds += 1;
            standing.credits += credits;
        }
    }

    /// The number of charges in a day that the account needs to stay within its share with these
    /// credits added.
    pub fn charges_needed(
        &self,
        account: &str,
        credits: u128,
        limits: &BrakeLimits,
        price: Option<Price>,
    ) -> Option<u64> {
        let standing = self.standing.get(account)?;
        let worth = price?.worth(standing.credits + credits);
        charges_needed(worth, limits.credit_share_per_day_per_account, ACCOUNT_SHARE_FROM)
    }
}

impl AccountStanding {
    /// Whether the cause of the hold is gone: every count is at most half of its limit.
    pub fn condition_is_gone(&self, limits: &BrakeLimits, price: Option<Price>, charges: u64) -> bool {
        broken_limit(self.refunds * 2, self.credits * 2, limits, price, charges).is_none()
    }
}

fn broken_limit(
    refunds: u128,
    credits: u128,
    limits: &BrakeLimits,
    price: Option<Price>,
    charges: u64,
) -> Option<String> {
    for (limit, would_be, what, key) in [
        (limits.refunds_per_day_per_account, refunds, "refunds", "max_refunds_per_day_per_account"),
        (limits.credits_per_day_per_account, credits, "credits", "max_credits_per_day_per_account"),
    ] {
        if exceeds(would_be, limit) {
            return Some(format!("more than {limit} {what} in a day ([brake] {key})"));
        }
    }
    let percent = limits.credit_share_per_day_per_account;
    let worth = price?.worth(credits);
    let needed = charges_needed(worth, percent, ACCOUNT_SHARE_FROM)?;
    (charges < needed).then(|| {
        format!(
            "{credits} credits in a day, the average price of {worth} charges, are more than {percent} \
             percent of the day's {charges} charges ([brake] max_credit_share_per_day_per_account)"
        )
    })
}
