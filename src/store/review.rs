//! What was made good, what is open and what is late, for `makegood report`.
//!
//! Only reads. Sums follow what was made good since a time and what is unresolved, never the size of the tables.

use serde::Serialize;

use super::db::DbError;
use super::{Store, statements};
use crate::clock::Timestamp;

mod late;

pub use late::{LateEvidence, LateItem, LateProvider};

/// What was made good in one way, for one provider and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MadeGood {
    /// Whose jobs.
    pub provider: String,
    /// `refund`, `recover`, `relink`, or `reverse`: a refund that was taken back, with its credits
    /// below zero.
    pub kind: String,
    /// Why.
    pub reason: String,
    /// How many items.
    pub items: i64,
    /// Given back to the subscription's quota, in the smallest unit.
    pub subscription_credits: i64,
    /// Given back to the wallet, in the smallest unit.
    pub wallet_credits: i64,
}

/// One item that was made good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MadeGoodItem {
    /// The charge.
    pub charge_id: String,
    /// Which output of it.
    pub output_index: i64,
    /// Who paid; none where the charge is gone.
    pub account_id: Option<String>,
    /// Whose job.
    pub provider: String,
    /// Which model.
    pub model: Option<String>,
    /// `refund`, `recover`, `relink`, or `reverse`: a refund that was taken back, with its credits
    /// below zero.
    pub kind: String,
    /// Why.
    pub reason: String,
    /// When it was charged.
    pub charged_at: Option<Timestamp>,
    /// When it was made good.
    pub at: Timestamp,
    /// Given back to the subscription's quota, in the smallest unit.
    pub subscription_credits: i64,
    /// Given back to the wallet, in the smallest unit.
    pub wallet_credits: i64,
}

/// What is open or held for one provider and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// `open` or `held`.
    pub state: String,
    /// Whose jobs.
    pub provider: String,
    /// The reason of the last decision; `not_asked_yet` before the first.
    pub reason: String,
    /// How many items.
    pub items: i64,
    /// What they cost, in the smallest unit.
    pub credits: i64,
    /// When the oldest of them was charged.
    pub oldest_charged_at: Timestamp,
    /// How many of them are past their window (P24).
    pub past_window: i64,
    /// One of them, as CHARGE/INDEX.
    pub example: String,
    /// Whether the limits of single accounts hold these.
    pub for_account: bool,
}

/// One item that is open or held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitingItem {
    /// The charge.
    pub charge_id: String,
    /// Which output of it.
    pub output_index: i64,
    /// Who paid; none where the charge is gone.
    pub account_id: Option<String>,
    /// Whose job.
    pub provider: String,
    /// Which model.
    pub model: Option<String>,
    /// `open` or `held`.
    pub state: String,
    /// The reason of the last decision; `not_asked_yet` before the first.
    pub reason: String,
    /// When it was charged.
    pub charged_at: Timestamp,
    /// When its window ends, or ended.
    pub window_ends_at: Timestamp,
    /// Questions asked about it so far.
    pub questions: i64,
    /// When it is looked at again.
    pub due_at: Timestamp,
    /// What it cost; none where the item is gone.
    pub credits: Option<i64>,
}

impl Store {
    /// What was made good from `since` on, by provider, way and reason.
    pub async fn made_good(&self, since: Timestamp) -> Result<Vec<MadeGood>, DbError> {
        let rows = self.rows(statements::REVIEW_MADE_GOOD, &[since.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(MadeGood {
                    provider: row.text("provider")?,
                    kind: row.text("kind")?,
                    reason: row.text("reason")?,
                    items: row.int("items")?,
                    subscription_credits: whole(row.int("subscription_high")?, row.int("subscription_low")?),
                    wallet_credits: whole(row.int("wallet_high")?, row.int("wallet_low")?),
                })
            })
            .collect()
    }

    /// Each item that was made good from `since` on and before `until`, oldest first.
    pub async fn made_good_items(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<MadeGoodItem>, DbError> {
        let rows = self.rows(statements::REVIEW_MADE_GOOD_ITEMS, &[since.into(), until.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(MadeGoodItem {
                    charge_id: row.text("charge_id")?,
                    output_index: row.int("output_index")?,
                    account_id: row.maybe_text("account_id")?,
                    provider: row.text("provider")?,
                    model: row.maybe_text("model")?,
                    kind: row.text("kind")?,
                    reason: row.text("reason")?,
                    charged_at: row.maybe_time("charged_at")?,
                    at: row.time("at")?,
                    subscription_credits: row.int("subscription_credits")?,
                    wallet_credits: row.int("wallet_credits")?,
                })
            })
            .collect()
    }

    /// What is open and held at `now`, by provider and reason.
    pub async fn waiting(&self, now: Timestamp) -> Result<Vec<Waiting>, DbError> {
        let rows = self.rows(statements::REVIEW_UNRESOLVED, &[now.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Waiting {
                    state: row.text("state")?,
                    provider: row.text("provider")?,
                    reason: row.text("reason")?,
                    items: row.int("items")?,
                    credits: whole(row.int("credits_high")?, row.int("credits_low")?),
                    oldest_charged_at: row.time("oldest_charged_at")?,
                    past_window: row.int("past_window")?,
                    example: row.text("example")?,
                    for_account: row.int("for_account")? == 1,
                })
            })
            .collect()
    }

    /// Open and held items whose window ends by `window_by`, oldest first, at most `most`.
    pub async fn waiting_items(&self, window_by: Timestamp, most: i64) -> Result<Vec<WaitingItem>, DbError> {
        let rows = self.rows(statements::REVIEW_UNRESOLVED_ITEMS, &[window_by.into(), most.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(WaitingItem {
                    charge_id: row.text("charge_id")?,
                    output_index: row.int("output_index")?,
                    account_id: row.maybe_text("account_id")?,
                    provider: row.text("provider")?,
                    model: row.maybe_text("model")?,
                    state: row.text("state")?,
                    reason: row.text("reason")?,
                    charged_at: row.time("charged_at")?,
                    window_ends_at: row.time("window_ends_at")?,
                    questions: row.int("questions")?,
                    due_at: row.time("due_at")?,
                    credits: row.maybe_int("credits")?,
                })
            })
            .collect()
    }
}

/// A sum that travelled in halves; stops at the ends of the range.
fn whole(high: i64, low: i64) -> i64 {
    let sum = (i128::from(high) << 32) + i128::from(low);
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_add_up_to_the_sum_and_stop_at_its_ends() {
        let halves = |numbers: &[i64]| {
            whole(numbers.iter().map(|n| n >> 32).sum(), numbers.iter().map(|n| n & 0xffff_ffff).sum())
        };
        for numbers in
            [&[0_i64][..], &[-1], &[-5, 3], &[i64::MAX], &[i64::MIN], &[1 << 40, (1 << 33) - 1, -7]]
        {
            assert_eq!(halves(numbers), numbers.iter().sum::<i64>(), "{numbers:?}");
        }
        assert_eq!(halves(&[i64::MAX, i64::MAX]), i64::MAX);
        assert_eq!(halves(&[i64::MIN, i64::MIN]), i64::MIN);
        assert_eq!(halves(&[i64::MAX, i64::MIN]), -1);
    }
}
