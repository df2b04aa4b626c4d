//! The brake's limits.

use super::Price;

/// How much may be refunded before the brake engages. Zero means: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrakeLimits {
    /// Refunds since the pass began, by all processes.
    pub refunds_per_pass: u64,
    /// Refunds of one provider's jobs since the pass began.
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
    /// Refunds of one provider's jobs in an hour.
    pub refunds_per_hour_per_provider: u64,
    /// Refunds of one provider's jobs in a day.
    pub refunds_per_day_per_provider: u64,
    /// Refunds in a day, in percent of the day's charges.
    pub share_per_day: u64,
    /// Refunds in a day that only faults on our side have caused.
    pub own_faults_per_day: u64,
    /// Credits in a day, in percent of the day's charges at their average price.
    pub credit_share_per_day: u64,
    /// Refunds of one account in a day.
    pub refunds_per_day_per_account: u64,
    /// Credits of one account in a day, in the smallest unit.
    pub credits_per_day_per_account: u64,
    /// Credits of one account in a day, in percent of the day's charges of all accounts at their
    /// average price.
    pub credit_share_per_day_per_account: u64,
}

impl BrakeLimits {
    /// The number of charges in a day that this many refunds need to stay within the share.
    ///
    /// None: the share cannot be exceeded, because there is no such limit or there are too few
    /// refunds.
    pub fn charges_needed(&self, day_refunds: u128) -> Option<u64> {
        charges_needed(day_refunds, self.share_per_day, SHARE_FROM)
    }

    /// The same for the credits of a day.
    pub fn charges_needed_for_credits(&self, day_credits: u128, price: Option<Price>) -> Option<u64> {
        charges_needed(price?.worth(day_credits), self.credit_share_per_day, SHARE_FROM)
    }

    /// Whether any limit per account is set.
    pub const fn limit_accounts(&self) -> bool {
        self.refunds_per_day_per_account > 0
            || self.credits_per_day_per_account > 0
            || self.credit_share_per_day_per_account > 0
    }

    /// Whether any limit depends on the average price.
    pub const fn need_a_price(&self) -> bool {
        self.credit_share_per_day > 0 || self.credit_share_per_day_per_account > 0
    }
}

/// The number of charges of which this many refunds are at most `percent`. None: there is no limit,
/// or there are no more refunds than `from`.
pub(super) fn charges_needed(refunds: u128, percent: u64, from: u64) -> Option<u64> {
    if percent == 0 || refunds <= u128::from(from) {
        return None;
    }
    // Saturates: no platform has that many charges.
    let needed = refunds.checked_mul(100).map(|needed| needed.div_ceil(u128::from(percent)));
    Some(needed.and_then(|needed| u64::try_from(needed).ok()).unwrap_or(u64::MAX))
}

/// Below this many refunds a day, their share of the charges means nothing.
pub const SHARE_FROM: u64 = 100;

/// The largest sum that a row can hold. A limit above it could never be seen to be reached, because
/// a row at this value may stand for more.
pub(super) const MAX_SUM: u64 = i64::MAX as u64;

/// Whether the limit is set and exceeded.
pub(super) const fn exceeds(would_be: u128, limit: u64) -> bool {
    let limit = if limit > MAX_SUM { MAX_SUM } else { limit };
    limit > 0 && would_be > limit as u128
}
