//! Limits per account and day, which hold one account's refunds alone.
//!
//! A settle holds the lock of makegood's row of each account (`makegood_accounts`) from before it
//! reads these figures to its commit. So they are exact, and need no second look as those of the
//! whole brake do. What is held for an account counts towards no other limit.

use std::collections::BTreeMap;

use super::{Limits, Price, charges_needed, exceeds};

/// An account's refunds count for its share of the day's credits from so many average charges on.
/// Half of [`super::SHARE_FROM`], so that no account alone brings the whole brake to its share.
pub const ACCOUNT_SHARE_FROM: u64 = 50;

/// How an account stands, read under its lock.
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
    /// As they stand.
    pub fn new(standing: BTreeMap<String, AccountStanding>) -> Self {
        Self { standing, newly_held: BTreeMap::new() }
    }

    /// Those that this settle is the first to hold, and why.
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

    /// Holds the account if so many more credits would pass a limit, and returns why.
    pub(super) fn hold_beyond(
        &mut self,
        account: &str,
        credits: u128,
        limits: &Limits,
        price: Option<Price>,
        charges: u64,
    ) -> Option<String> {
        let standing = self.standing.get(account)?;
        let (refunds, credits) = (standing.refunds + 1, standing.credits + credits);
        let broken = broken_limit(refunds, credits, limits, price, charges)?;
        let why = format!("account {account}: {broken}; its refunds alone are held");
        self.newly_held.insert(account.to_owned(), why.clone());
        self.standing.entry(account.to_owned()).or_default().held = Some(why.clone());
        Some(why)
    }

    /// Counts a refund that was admitted.
    pub(super) fn count(&mut self, account: &str, credits: u128) {
        if let Some(standing) = self.standing.get_mut(account) {
            standing.refunds += 1;
            standing.credits += credits;
        }
    }

    /// How many charges of the day decide whether so many more credits of the account are within
    /// its share.
    pub fn charges_needed(
        &self,
        account: &str,
        credits: u128,
        limits: &Limits,
        price: Option<Price>,
    ) -> Option<u64> {
        let standing = self.standing.get(account)?;
        let worth = price?.worth(standing.credits + credits);
        charges_needed(worth, limits.credit_share_per_day_per_account, ACCOUNT_SHARE_FROM)
    }
}

impl AccountStanding {
    /// Whether nothing is left of what held it: what counts is down to half of each limit.
    pub fn condition_is_gone(&self, limits: &Limits, price: Option<Price>, charges: u64) -> bool {
        broken_limit(self.refunds * 2, self.credits * 2, limits, price, charges).is_none()
    }
}

fn broken_limit(
    refunds: u128,
    credits: u128,
    limits: &Limits,
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
            "{credits} credits in a day, as many as {worth} charges cost on average, are more than {percent} \
             percent of a day's {charges} charges ([brake] max_credit_share_per_day_per_account)"
        )
    })
}
