//! The sums of recent refunds that the brake compares with its limits.
//!
//! They are kept per provider and minute. A rolling hour or day therefore counts up to a minute too
//! much, and never too little.

use std::collections::BTreeMap;

use super::Price;
use crate::clock::Timestamp;

/// The refunds of the last hour, of the last day, and since the pass began.
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
    pub(super) const fn one(credits: u128) -> Self {
        Self {
            pass_refunds: 1,
            pass_credits: credits,
            hour_refunds: 1,
            hour_credits: credits,
            day_refunds: 1,
            day_credits: credits,
        }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
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

/// The counts that the limits are compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefundCounts {
    /// The recent refunds of each provider.
    pub per_provider: BTreeMap<String, Sums>,
    /// A lower bound of the charges of the last day. Counted only if a share of them is a limit.
    pub charges: u64,
    /// The refunds of the last day that only faults on our side have caused.
    pub own_faults: u128,
    /// The average price of a charge, if a limit depends on it.
    pub price: Option<Price>,
}

impl RefundCounts {
    /// The refunds of the last day of all providers.
    pub fn day_refunds(&self) -> u128 {
        self.per_provider.values().fold(0, |sum, each| sum.saturating_add(each.day_refunds))
    }

    /// The credits of the last day of all providers.
    pub fn day_credits(&self) -> u128 {
        self.per_provider.values().fold(0, |sum, each| sum.saturating_add(each.day_credits))
    }
}

/// The refunds that one settle adds to the sums of one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddedSums {
    /// Refunds.
    pub refunds: u64,
    /// Their credits.
    pub credits: u128,
    /// The refunds among them that only faults on our side have caused.
    pub own_faults: u64,
}

pub(super) const MINUTE_MICROS: i64 = 60_000_000;
/// The number of rows per provider, one for each minute of two days. A row is overwritten when it
/// is two days old: twice the longest span that is counted. A clock that is ahead by less than a
/// day therefore overwrites nothing that still counts once the clock is corrected.
const SLOTS: i64 = 2 * 24 * 60;

/// The beginning of the minute.
pub fn minute_of(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_sub(at.micros().rem_euclid(MINUTE_MICROS)))
}

/// The row of a provider that holds the sums of the minute.
pub const fn slot_of(at: Timestamp) -> i64 {
    at.micros().div_euclid(MINUTE_MICROS).rem_euclid(SLOTS)
}
