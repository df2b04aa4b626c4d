//! The whole story of one charge, for people: what was paid, what is stored, what was seen, asked, decided and done.
//!
//! Only reads. [`Store::look_at`] gathers the facts that a pass would judge by, in a transaction that is rolled back,
//! so that also a charge that no pass has come to yet can be judged.

use serde::{Deserialize, Serialize};

use super::claim::Case;
use super::db::{DbError, Row, Tx};
use super::scan::{Dating, Opening};
use super::{ErasedBy, Store, statements};
use crate::charge::ItemId;
use crate::clock::Timestamp;

/// Everything that is known about one charge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Story {
    /// What was paid.
    pub charge: ChargeRow,
    /// Its items, in order.
    pub items: Vec<ItemRow>,
    /// What is stored for it, oldest first.
    pub outputs: Vec<OutputRow>,
    /// How its items stand with makegood.
    pub orphans: Vec<OrphanRow>,
    /// What happened, in order.
    pub events: Vec<EventRow>,
    /// What providers said, in order.
    pub answers: Vec<AnswerRow>,
    /// How its items were made good, in order.
    pub resolutions: Vec<ResolutionRow>,
    /// Refunds in the ledger that are not makegood's.
    pub refunds_by_platform: Vec<PlatformRefund>,
}

/// A charge; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChargeRow {
    pub id: String,
    pub account_id: String,
    pub account_kind: Option<String>,
    pub project_id: Option<String>,
    pub node_id: Option<String>,
    pub provider: String,
    pub model: String,
    pub provider_job_id: Option<String>,
    pub charged_at: Timestamp,
    pub subscription_credits: i64,
    pub wallet_credits: i64,
    pub cancelled_at: Option<Timestamp>,
}

/// An item of it; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ItemRow {
    pub output_index: i64,
    pub credits: i64,
    pub provider: String,
    pub provider_job_id: Option<String>,
    pub provider_output_index: i64,
    pub failed_at: Option<Timestamp>,
}

/// A stored output; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutputRow {
    pub id: String,
    pub charge_id: Option<String>,
    pub output_index: Option<i64>,
    pub provider: String,
    pub provider_job_id: String,
    pub provider_output_index: i64,
    pub project_id: Option<String>,
    pub node_id: Option<String>,
    pub uri: Option<String>,
    pub content_type: Option<String>,
    pub size_bytes: Option<i64>,
    pub stored_at: Timestamp,
    pub moved_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
}

/// How an item stands with makegood; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrphanRow {
    pub output_index: i64,
    pub state: String,
    pub reason: Option<String>,
    pub charged_at: Timestamp,
    pub opened_at: Timestamp,
    pub opened_by: String,
    pub refund_by: Timestamp,
    pub window_ends_at: Timestamp,
    pub due_at: Timestamp,
    pub leased_until: Option<Timestamp>,
    pub questions: i64,
    pub first_asked_at: Option<Timestamp>,
    pub last_asked_at: Option<Timestamp>,
    pub waits: i64,
    pub resolved_at: Option<Timestamp>,
}

/// Something that happened to an item; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventRow {
    pub id: i64,
    pub output_index: i64,
    pub at: Timestamp,
    pub kind: String,
    pub reason: Option<String>,
    pub rule: Option<i64>,
    pub detail: Option<String>,
    pub answer_id: Option<i64>,
    pub pass_id: Option<i64>,
    pub content_sha256: Option<String>,
    /// Who had the detail erased, if somebody did.
    pub erased: Option<ErasedBy>,
}

/// What a provider said; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerRow {
    pub id: i64,
    pub provider: String,
    pub provider_job_id: String,
    pub asked_at: Timestamp,
    pub verdict: String,
    pub class: Option<String>,
    pub code: Option<String>,
    pub message: Option<String>,
    pub offered: i64,
    pub request: Option<String>,
    pub http_status: Option<i64>,
    pub excerpt: Option<String>,
    pub content_sha256: Option<String>,
    /// Who had code, message, request and excerpt erased, if somebody did.
    pub erased: Option<ErasedBy>,
}

/// How an item was made good; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolutionRow {
    pub id: i64,
    pub output_index: i64,
    pub kind: String,
    pub reason: String,
    pub rule: i64,
    pub resolved_at: Timestamp,
    pub decided_by: String,
    pub answer_id: Option<i64>,
    pub superseded_at: Option<Timestamp>,
    /// What was given back, for a refund.
    pub refund: Option<RefundRow>,
    /// What was brought home or put back, for a recovery.
    pub recovery: Option<RecoveryRow>,
}

/// What was given back; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefundRow {
    pub id: String,
    pub subscription_credits: i64,
    pub wallet_credits: i64,
    /// Who took it back, if somebody did.
    pub reversal: Option<ReversalRow>,
}

/// A refund that a person took back; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReversalRow {
    pub by_whom: String,
    pub reason: String,
    pub reversed_at: Timestamp,
}

/// What was brought home, or put back where it belongs; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoveryRow {
    pub stored_output_id: String,
    pub from_charge_id: Option<String>,
    pub from_output_index: Option<i64>,
    pub uri: Option<String>,
    pub size_bytes: Option<i64>,
    pub sha256: Option<String>,
    pub content_type: Option<String>,
    pub source_host: Option<String>,
}

/// A refund that the platform made itself; named as the columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlatformRefund {
    pub id: String,
    pub output_index: Option<i64>,
    pub bucket: String,
    pub credits: i64,
    pub refund_id: Option<String>,
    pub posted_at: Timestamp,
}

impl Store {
    /// Everything that is known about one charge; none: there is no such charge.
    pub async fn story(&self, charge_id: &str) -> Result<Option<Story>, DbError> {
        let of = [charge_id.into()];
        let rows = self.rows(statements::STORY_CHARGE, &of).await?;
        let Some(charge) = rows.first() else {
            return Ok(None);
        };
        let mut charge = read_charge(charge)?;
        charge.account_kind = self.account_kind(&charge.account_id).await?;
        Ok(Some(Story {
            charge,
            items: read_all(&self.rows(statements::STORY_ITEMS, &of).await?, read_item)?,
            outputs: read_all(&self.rows(statements::STORY_OUTPUTS, &of).await?, read_output)?,
            orphans: read_all(&self.rows(statements::STORY_ORPHANS, &of).await?, read_orphan)?,
            events: read_all(&self.rows(statements::STORY_EVENTS, &of).await?, read_event)?,
            answers: read_all(&self.rows(statements::STORY_ANSWERS, &of).await?, read_answer)?,
            resolutions: read_all(&self.rows(statements::STORY_RESOLUTIONS, &of).await?, read_resolution)?,
            refunds_by_platform: read_all(&self.rows(statements::STORY_REFUNDS, &of).await?, read_refund)?,
        }))
    }

    /// Whether a user or a workspace pays. None where the platform has no `accounts`, has another
    /// relation of that name, or does not show it to this role: nothing depends on it.
    async fn account_kind(&self, account_id: &str) -> Result<Option<String>, DbError> {
        let kind = match self.rows(statements::STORY_ACCOUNT, &[account_id.into()]).await {
            Ok(rows) => rows.first().map_or(Ok(None), |row| row.maybe_text("kind")),
            Err(error) => Err(error),
        };
        match kind {
            Err(error)
                if error.is_about_missing_tables()
                    || error.may_be_about_a_row()
                    || error.is_about_a_row() =>
            {
                Ok(None)
            }
            kind => kind,
        }
    }

    /// What a pass would judge these items of one charge by, whether it has come to them yet or not; those that are
    /// resolved are left out. Also says which of its rows cannot be read, and why. Leaves no trace.
    pub async fn look_at(
        &self,
        items: &[ItemId],
        now: Timestamp,
        dating: &Dating,
    ) -> Result<(Vec<Case>, Vec<String>), DbError> {
        let Some(first) = items.first() else {
            return Ok((Vec::new(), Vec::new()));
        };
        // Never committed: what is opened here is gone at the end.
        let mut tx = self.db.begin().await?;
        // Reopening would judge what is resolved: only those are opened that have no orphan at all.
        let rows = tx.rows(statements::STORY_ORPHANS, &[(&first.charge_id).into()]).await?;
        let have: Vec<i64> = rows.iter().map(|row| row.int("output_index")).collect::<Result<_, _>>()?;
        let new: Vec<ItemId> =
            items.iter().filter(|item| !have.contains(&item.output_index)).cloned().collect();
        self.judgeable(&mut tx, items, &new, now, dating).await
    }

    /// Opens orphans for the new items, and gathers what a pass would judge the unresolved items of
    /// this charge by. Not to be committed.
    pub(super) async fn judgeable(
        &self,
        tx: &mut Tx,
        items: &[ItemId],
        new: &[ItemId],
        now: Timestamp,
        dating: &Dating,
    ) -> Result<(Vec<Case>, Vec<String>), DbError> {
        let Some(first) = items.first() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let opening = Opening { by: "explain", now, due_at: now, dating };
        self.open_orphans(tx, new, &opening).await?;
        let mut ids = Vec::new();
        for row in tx.rows(statements::ORPHANS_OF_CHARGE, &[(&first.charge_id).into()]).await? {
            if matches!(row.text("state")?.as_str(), "open" | "held") {
                ids.push(row.int("id")?);
            }
        }
        let claimed = self.cases_apart(tx, &ids).await?;
        let cases = claimed.cases.into_iter().filter(|case| items.contains(&case.facts.orphan.item));
        Ok((cases.collect(), claimed.unreadable.into_iter().map(|each| each.why).collect()))
    }
}

fn read_all<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T, DbError>) -> Result<Vec<T>, DbError> {
    rows.iter().map(read).collect()
}

fn read_charge(row: &Row) -> Result<ChargeRow, DbError> {
    Ok(ChargeRow {
        id: row.text("id")?,
        account_id: row.text("account_id")?,
        account_kind: None,
        project_id: row.maybe_text("project_id")?,
        node_id: row.maybe_text("node_id")?,
        provider: row.text("provider")?,
        model: row.text("model")?,
        provider_job_id: row.maybe_text("provider_job_id")?,
        charged_at: row.time("charged_at")?,
        subscription_credits: row.int("subscription_credits")?,
        wallet_credits: row.int("wallet_credits")?,
        cancelled_at: row.maybe_time("cancelled_at")?,
    })
}

fn read_item(row: &Row) -> Result<ItemRow, DbError> {
    Ok(ItemRow {
        output_index: row.int("output_index")?,
        credits: row.int("credits")?,
        provider: row.text("provider")?,
        provider_job_id: row.maybe_text("provider_job_id")?,
        provider_output_index: row.int("provider_output_index")?,
        failed_at: row.maybe_time("failed_at")?,
    })
}

fn read_output(row: &Row) -> Result<OutputRow, DbError> {
    Ok(OutputRow {
        id: row.text("id")?,
        charge_id: row.maybe_text("charge_id")?,
        output_index: row.maybe_int("output_index")?,
        provider: row.text("provider")?,
        provider_job_id: row.text("provider_job_id")?,
        provider_output_index: row.int("provider_output_index")?,
        project_id: row.maybe_text("project_id")?,
        node_id: row.maybe_text("node_id")?,
        uri: row.maybe_text("uri")?,
        content_type: row.maybe_text("content_type")?,
        size_bytes: row.maybe_int("size_bytes")?,
        stored_at: row.time("stored_at")?,
        moved_at: row.maybe_time("moved_at")?,
        deleted_at: row.maybe_time("deleted_at")?,
    })
}

fn read_orphan(row: &Row) -> Result<OrphanRow, DbError> {
    Ok(OrphanRow {
        output_index: row.int("output_index")?,
        state: row.text("state")?,
        reason: row.maybe_text("reason")?,
        charged_at: row.time("charged_at")?,
        opened_at: row.time("opened_at")?,
        opened_by: row.text("opened_by")?,
        refund_by: row.time("refund_by")?,
        window_ends_at: row.time("window_ends_at")?,
        due_at: row.time("due_at")?,
        leased_until: row.maybe_time("leased_until")?,
        questions: row.int("questions")?,
        first_asked_at: row.maybe_time("first_asked_at")?,
        last_asked_at: row.maybe_time("last_asked_at")?,
        waits: row.int("waits")?,
        resolved_at: row.maybe_time("resolved_at")?,
    })
}

fn read_event(row: &Row) -> Result<EventRow, DbError> {
    Ok(EventRow {
        id: row.int("id")?,
        output_index: row.int("output_index")?,
        at: row.time("at")?,
        kind: row.text("kind")?,
        reason: row.maybe_text("reason")?,
        rule: row.maybe_int("rule")?,
        detail: row.maybe_text("detail")?,
        answer_id: row.maybe_int("answer_id")?,
        pass_id: row.maybe_int("pass_id")?,
        content_sha256: row.maybe_text("content_sha256")?,
        erased: ErasedBy::read(row)?,
    })
}

fn read_answer(row: &Row) -> Result<AnswerRow, DbError> {
    Ok(AnswerRow {
        id: row.int("id")?,
        provider: row.text("provider")?,
        provider_job_id: row.text("provider_job_id")?,
        asked_at: row.time("asked_at")?,
        verdict: row.text("verdict")?,
        class: row.maybe_text("class")?,
        code: row.maybe_text("code")?,
        message: row.maybe_text("message")?,
        offered: row.int("offered")?,
        request: row.maybe_text("request")?,
        http_status: row.maybe_int("http_status")?,
        excerpt: row.maybe_text("excerpt")?,
        content_sha256: row.maybe_text("content_sha256")?,
        erased: ErasedBy::read(row)?,
    })
}

fn read_resolution(row: &Row) -> Result<ResolutionRow, DbError> {
    let reversal = match row.maybe_time("reversed_at")? {
        Some(reversed_at) => Some(ReversalRow {
            by_whom: row.text("by_whom")?,
            reason: row.text("reversal_reason")?,
            reversed_at,
        }),
        None => None,
    };
    let refund = match row.maybe_text("refund_id")? {
        Some(id) => Some(RefundRow {
            reversal,
            id,
            subscription_credits: row.int("subscription_credits")?,
            wallet_credits: row.int("wallet_credits")?,
        }),
        None => None,
    };
    let recovery = match row.maybe_text("stored_output_id")? {
        Some(stored_output_id) => Some(RecoveryRow {
            stored_output_id,
            from_charge_id: row.maybe_text("from_charge_id")?,
            from_output_index: row.maybe_int("from_output_index")?,
            uri: row.maybe_text("uri")?,
            size_bytes: row.maybe_int("size_bytes")?,
            sha256: row.maybe_text("sha256")?,
            content_type: row.maybe_text("content_type")?,
            source_host: row.maybe_text("source_host")?,
        }),
        None => None,
    };
    Ok(ResolutionRow {
        id: row.int("id")?,
        output_index: row.int("output_index")?,
        kind: row.text("kind")?,
        reason: row.text("reason")?,
        rule: row.int("rule")?,
        resolved_at: row.time("resolved_at")?,
        decided_by: row.text("decided_by")?,
        answer_id: row.maybe_int("answer_id")?,
        superseded_at: row.maybe_time("superseded_at")?,
        refund,
        recovery,
    })
}

fn read_refund(row: &Row) -> Result<PlatformRefund, DbError> {
    Ok(PlatformRefund {
        id: row.text("id")?,
        output_index: row.maybe_int("output_index")?,
        bucket: row.text("bucket")?,
        credits: row.int("credits")?,
        refund_id: row.maybe_text("refund_id")?,
        posted_at: row.time("posted_at")?,
    })
}
