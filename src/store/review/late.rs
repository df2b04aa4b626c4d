//! What was refunded and made after all, for whoever pays the providers: how much, and each with its evidence.

use serde::Serialize;

use super::whole;
use crate::clock::Timestamp;
use crate::store::db::{DbError, Row};
use crate::store::{ErasedBy, Store, statements};

/// Late successes of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LateProvider {
    /// Whose jobs.
    pub provider: String,
    /// How many refunded items turned out to have been made.
    pub items: i64,
    /// How many of them were never delivered: nothing is stored for them by now.
    pub never_delivered: i64,
    /// What was refunded for those, to subscriptions, in the smallest unit.
    pub subscription_credits: i64,
    /// And to wallets.
    pub wallet_credits: i64,
}

/// A refunded item that was made after all, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LateItem {
    /// The charge.
    pub charge_id: String,
    /// Which output of it.
    pub output_index: i64,
    /// Who was refunded.
    pub account_id: String,
    /// Whose job.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// The provider's id of the job, to claim it by.
    pub provider_job_id: Option<String>,
    /// When it was charged; none where the charge is gone.
    pub charged_at: Option<Timestamp>,
    /// Why it was refunded.
    pub refund_reason: String,
    /// When it was refunded.
    pub refunded_at: Timestamp,
    /// Given back to the subscription's quota, in the smallest unit.
    pub subscription_credits: i64,
    /// Given back to the wallet, in the smallest unit.
    pub wallet_credits: i64,
    /// When it was noticed that it succeeded.
    pub noticed_at: Timestamp,
    /// By what: `question`, `look` or `makegood_store_output`.
    pub noticed_by: String,
    /// The output that is stored for it by now; none: paid for at the provider and never delivered.
    pub stored_output_id: Option<String>,
    /// What the provider said when it was asked again.
    pub evidence: Option<LateEvidence>,
}

/// The provider's word that the job succeeded, as it was read and as it stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LateEvidence {
    /// The row of `makegood_answers`.
    pub answer_id: i64,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// What it said.
    pub verdict: String,
    /// What was asked.
    pub request: Option<String>,
    /// The answer's HTTP status.
    pub http_status: Option<i64>,
    /// The answer, cut and free of secrets.
    pub excerpt: Option<String>,
    /// Who had request and answer erased, if somebody did.
    pub erased: Option<ErasedBy>,
}

impl LateItem {
    /// `never_delivered` or `stored_late`.
    pub const fn status(&self) -> &'static str {
        if self.stored_output_id.is_some() { "stored_late" } else { "never_delivered" }
    }
}

impl Store {
    /// Late successes noticed from `since` on, by provider.
    pub async fn late_by_provider(&self, since: Timestamp) -> Result<Vec<LateProvider>, DbError> {
        let rows = self.rows(statements::REVIEW_LATE_PROVIDERS, &[since.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(LateProvider {
                    provider: row.text("provider")?,
                    items: row.int("items")?,
                    never_delivered: row.int("never_delivered")?,
                    subscription_credits: whole(row.int("subscription_high")?, row.int("subscription_low")?),
                    wallet_credits: whole(row.int("wallet_high")?, row.int("wallet_low")?),
                })
            })
            .collect()
    }

    /// Each late success noticed from `since` on and before `until`, by provider, at most `most`.
    pub async fn late_items(
        &self,
        since: Timestamp,
        until: Timestamp,
        most: i64,
    ) -> Result<Vec<LateItem>, DbError> {
        let rows = self.rows(statements::REVIEW_LATE, &[since.into(), until.into(), most.into()]).await?;
        rows.iter().map(read_item).collect()
    }
}

fn read_item(row: &Row) -> Result<LateItem, DbError> {
    let evidence = match row.maybe_int("answer_id")? {
        Some(answer_id) => Some(LateEvidence {
            answer_id,
            asked_at: row.time("asked_at")?,
            verdict: row.text("verdict")?,
            request: row.maybe_text("request")?,
            http_status: row.maybe_int("http_status")?,
            excerpt: row.maybe_text("excerpt")?,
            erased: ErasedBy::read(row)?,
        }),
        None => None,
    };
    Ok(LateItem {
        charge_id: row.text("charge_id")?,
        output_index: row.int("output_index")?,
        account_id: row.text("account_id")?,
        provider: row.text("provider")?,
        model: row.text("model")?,
        provider_job_id: row.maybe_text("provider_job_id")?,
        charged_at: row.maybe_time("charged_at")?,
        refund_reason: row.text("reason")?,
        refunded_at: row.time("refunded_at")?,
        subscription_credits: row.int("subscription_credits")?,
        wallet_credits: row.int("wallet_credits")?,
        noticed_at: row.time("noticed_at")?,
        noticed_by: row.text("noticed_by")?,
        stored_output_id: row.maybe_text("stored_output_id")?,
        evidence,
    })
}
