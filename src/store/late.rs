//! What becomes known after a refund: leases late questions, keeps their answers, and notes late successes.
//!
//! Promise: a question is one worker's at a time, a job's questions are never split, and a late success is told once an
//! item (a unique key says so). Nothing here takes anything back: the refund stays, whatever is learned.
//! What a question means is `policy::late`'s, when there is time for one is `pass`'s.
//! Crash before commit: nothing happened, the lease runs out. Crash after: the rows say how far it came.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::claim::Case;
use super::db::{DbError, Run, Tx, Value};
use super::records::{EventRow, Instant, insert_events};
use super::scan::Pace;
use super::settle::{answer_key, keep_answers};
use super::{Store, statements, with_retries};
use crate::charge::ItemId;
use crate::clock::Timestamp;
use crate::evidence::Evidence;
use crate::policy::late::{End, Refunded};
use crate::refund;

/// A leased late question about one refunded item.
#[derive(Clone, Debug)]
pub struct LateCase {
    /// What is known about the item.
    pub case: Case,
    /// When it was refunded, and asked about since.
    pub refunded: Refunded,
    /// The lease's token.
    pub token: i64,
    /// Passes in a row that died while they had leased it.
    pub deaths: i64,
}

/// Leased late questions.
#[derive(Debug, Default)]
pub struct LateClaimed {
    /// Those that can be asked.
    pub cases: Vec<LateCase>,
    /// How many were ended because their rows cannot be read any more.
    pub unreadable: u64,
}

/// A position in the order of refunds: by time, then by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundPosition {
    /// When it was refunded.
    pub at: Timestamp,
    id: String,
}

impl RefundPosition {
    /// Before all refunds of that time.
    pub const fn before(at: Timestamp) -> Self {
        Self { at, id: String::new() }
    }
}

/// Some refunds that were looked at.
#[derive(Clone, Debug, Default)]
pub struct LookedAtRefunds {
    /// How many.
    pub looked_at: u64,
    /// What was new.
    pub successes: LateSuccesses,
    /// The item of a refund around which a row cannot be read, and the reason.
    pub unreadable: Option<(ItemId, String)>,
    /// Where to go on. None: the end of the stretch is reached.
    pub next: Option<RefundPosition>,
}

/// How a late question goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LateNext {
    /// As it was: nobody came to it. Not before then, where a time is named.
    GiveBack(Option<Timestamp>),
    /// Not before then.
    At(Timestamp),
    /// No more.
    End(End),
}

/// What came of a late question.
#[derive(Clone, Debug)]
pub struct LateSettlement {
    /// Which.
    pub late: LateCase,
    /// The provider's word, where it was asked.
    pub evidence: Option<Arc<Evidence>>,
    /// The output that is there by now, where one is.
    pub stored: Option<String>,
    /// How it goes on.
    pub next: LateNext,
}

/// Late successes that were new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LateSuccesses {
    /// The provider says that it made the output, and the platform never stored it.
    pub never_stored: u64,
    /// The output was stored after the refund (P20).
    pub stored_late: u64,
}

/// Who noticed a late success.
#[derive(Clone, Copy, Debug)]
enum NoticedBy {
    Question,
    Look,
}

/// A refunded item whose job succeeded.
struct Success {
    orphan_id: i64,
    item: ItemId,
    provider: String,
    model: String,
    job_id: Option<String>,
    answer_id: Option<i64>,
    stored: Option<String>,
}

impl Store {
    /// Whose jobs are due to be asked about again.
    pub async fn late_providers(&self, now: Timestamp) -> Result<Vec<String>, DbError> {
        let rows = self.rows(statements::LATE_PROVIDERS, &[now.into()]).await?;
        rows.iter().map(|row| row.text("provider")).collect()
    }

    /// Leases up to `most` due late questions of one provider, and all others of the same jobs.
    pub async fn claim_late(
        &self,
        provider: &str,
        lease: Duration,
        most: u32,
    ) -> Result<LateClaimed, DbError> {
        let now = self.now().await?;
        let rows = with_retries!(
            self,
            async {
                let mut tx = self.db.begin().await?;
                tx.rows(statements::LATE_TURN, &[now.into()]).await?;
                self.note_late_jobs(&mut tx, provider, now).await?;
                let values = [provider.into(), now.into(), (now + lease).into(), i64::from(most).into()];
                let rows = tx.rows(statements::LATE_CLAIM, &values).await?;
                tx.commit().await?;
                Ok::<_, DbError>(rows)
            }
            .await
        )?;
        let mut leased = HashMap::new();
        for row in &rows {
            let refunded =
                Refunded { at: row.time("refunded_at")?, last_asked_at: row.maybe_time("last_asked_at")? };
            let deaths = row.int("deaths")?;
            leased.insert(row.int("orphan_id")?, (row.int("lease_token")?, refunded, deaths));
        }
        if leased.is_empty() {
            return Ok(LateClaimed::default());
        }
        let ids: Vec<i64> = leased.keys().copied().collect();
        let found = self.cases_apart(&mut &*self, &ids).await?;
        let mut claimed = LateClaimed::default();
        for case in found.cases {
            if let Some((token, refunded, deaths)) = leased.remove(&case.facts.orphan.id) {
                claimed.cases.push(LateCase { case, refunded, token, deaths });
            }
        }
        // What is left has rows that cannot be read: nobody waits for it, so that it is not worth coming back to.
        let mut list = Vec::new();
        for (orphan_id, (token, ..)) in &leased {
            list.push((*orphan_id, *token));
        }
        claimed.unreadable = self.end_unreadable(&list, now).await?;
        Ok(claimed)
    }

    /// Notes the jobs of items that were refunded without one. It reads the platform's rows: where
    /// one of them cannot be read, these questions wait until its own was ended.
    async fn note_late_jobs(&self, tx: &mut Tx, provider: &str, now: Timestamp) -> Result<(), DbError> {
        Run::begin_part(tx).await?;
        match tx.rows(statements::LATE_JOBS, &[provider.into(), now.into()]).await {
            Ok(_) => Run::end_part(tx).await,
            Err(error) if error.is_about_reading_a_row() => {
                tracing::warn!(provider, "late questions without a job wait: {}", error.told());
                Run::undo_part(tx).await
            }
            Err(error) => Err(error),
        }
    }

    async fn end_unreadable(&self, leased: &[(i64, i64)], now: Timestamp) -> Result<u64, DbError> {
        if leased.is_empty() {
            return Ok(0);
        }
        with_retries!(
            self,
            async {
                let mut tx = self.db.begin().await?;
                let ours = lock(&mut tx, leased).await?;
                let rows = leased.iter().filter(|(id, token)| ours.get(id) == Some(token)).map(|(id, _)| {
                    json!({
                        "orphan_id": id, "ended_at": self.db.time(now), "ended_because": End::UnreadableRow.as_str(),
                    })
                });
                let rows: Vec<Json> = rows.collect();
                let ended = rows.len() as u64;
                tx.rows(statements::LATE_SETTLE, &[(&Json::Array(rows)).into()]).await?;
                tx.commit().await?;
                Ok::<_, DbError>(ended)
            }
            .await
        )
    }

    /// Keeps what was said, notes late successes, and says how each question goes on: all of it or nothing.
    /// A question that is somebody else's by now is left out.
    pub async fn settle_late(
        &self,
        batch: &[LateSettlement],
        pass_id: Option<i64>,
    ) -> Result<LateSuccesses, DbError> {
        if batch.is_empty() {
            return Ok(LateSuccesses::default());
        }
        with_retries!(self, self.settle_late_at_once(batch, pass_id).await)
    }

    async fn settle_late_at_once(
        &self,
        batch: &[LateSettlement],
        pass_id: Option<i64>,
    ) -> Result<LateSuccesses, DbError> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        let leased: Vec<(i64, i64)> =
            batch.iter().map(|each| (each.late.case.facts.orphan.id, each.late.token)).collect();
        let ours = lock(&mut tx, &leased).await?;
        let ours = |each: &&LateSettlement| {
            ours.get(&each.late.case.facts.orphan.id).is_some_and(|token| *token == each.late.token)
        };
        let batch: Vec<&LateSettlement> = batch.iter().filter(ours).collect();
        let given = batch.iter().filter_map(|each| {
            let item = each.late.case.facts.record.item.as_ref()?;
            item.job.as_ref().zip(each.evidence.as_deref())
        });
        let answers = keep_answers(&self.db, &mut tx, given).await?;
        let (mut rows, mut events, mut successes) = (Vec::new(), Vec::new(), Vec::new());
        for each in batch {
            let facts = &each.late.case.facts;
            let (orphan_id, item) = (facts.orphan.id, &facts.orphan.item);
            let job = facts.record.item.as_ref().and_then(|item| item.job.as_ref());
            let answer_id = job
                .zip(each.evidence.as_deref())
                .and_then(|(job, evidence)| answers.get(&answer_key(job, evidence)).copied());
            let (due_at, end) = match &each.next {
                LateNext::GiveBack(due_at) => (*due_at, None),
                LateNext::At(due_at) => (Some(*due_at), None),
                LateNext::End(end) => (None, Some(*end)),
            };
            rows.push(json!({
                "orphan_id": orphan_id, "provider_job_id": job.map(|job| &job.job_id),
                "asked_at": self.db.maybe_time(each.evidence.as_ref().map(|evidence| evidence.asked_at)),
                "due_at": self.db.maybe_time(due_at),
                "ended_at": self.db.maybe_time(end.map(|_| now)), "ended_because": end.map(End::as_str),
            }));
            if let Some(evidence) = &each.evidence {
                events.push(EventRow {
                    detail: Some(evidence.verdict.as_str().to_owned()),
                    answer_id,
                    pass_id,
                    ..EventRow::new(orphan_id, item, Instant::of(&self.db, now), "asked_again")
                });
            }
            let succeeded = matches!(each.next, LateNext::End(End::Succeeded | End::Stored));
            if succeeded && (each.stored.is_some() || answer_id.is_some()) {
                successes.push(Success {
                    orphan_id,
                    item: item.clone(),
                    provider: facts.record.charge.provider.clone(),
                    model: facts.record.charge.model.clone(),
                    job_id: job.map(|job| job.job_id.clone()),
                    answer_id,
                    stored: each.stored.clone(),
                });
            }
        }
        insert_events(&self.db, &mut tx, events).await?;
        tx.rows(statements::LATE_SETTLE, &[(&Json::Array(rows)).into()]).await?;
        let new = self.note_successes(&mut tx, &successes, NoticedBy::Question, now, pass_id).await?;
        tx.commit().await?;
        Ok(new)
    }

    /// Looks at the next refunds of a stretch of time, as many as the pace says: has their output
    /// been stored since (P20)? Records what is new. One around which a row cannot be read is told,
    /// and the next look begins after it.
    pub async fn look_for_stored_late(
        &self,
        from: &RefundPosition,
        until: Timestamp,
        pace: &mut Pace,
        pass_id: Option<i64>,
    ) -> Result<LookedAtRefunds, DbError> {
        let (mut looked, found) = loop {
            let error = match self.stored_late(from, until, pace.rows()).await {
                Ok(found) => {
                    pace.succeeded();
                    break found;
                }
                Err(error) => error,
            };
            let Some(error) = pace.failed(error)? else { continue };
            let rows = self
                .rows(statements::NEXT_REFUND, &[from.at.into(), (&from.id).into(), until.into()])
                .await?;
            let Some(row) = rows.first() else { return Err(error) };
            let item = ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? };
            return Ok(LookedAtRefunds {
                looked_at: 1,
                unreadable: Some((item, error.told())),
                next: Some(RefundPosition { at: row.time("at")?, id: row.text("refund_id")? }),
                ..LookedAtRefunds::default()
            });
        };
        if found.is_empty() {
            return Ok(looked);
        }
        let now = self.now().await?;
        looked.successes = with_retries!(
            self,
            async {
                let mut tx = self.db.begin().await?;
                let new = self.note_successes(&mut tx, &found, NoticedBy::Look, now, pass_id).await?;
                tx.commit().await?;
                Ok::<_, DbError>(new)
            }
            .await
        )?;
        Ok(looked)
    }

    /// The next refunds, at most `at_most`, and those of them whose output has been stored since.
    async fn stored_late(
        &self,
        from: &RefundPosition,
        until: Timestamp,
        at_most: u32,
    ) -> Result<(LookedAtRefunds, Vec<Success>), DbError> {
        let mut found = Vec::new();
        let mut looked = LookedAtRefunds::default();
        let values = [from.at.into(), (&from.id).into(), until.into(), i64::from(at_most).into()];
        for row in self.rows(statements::FIND_STORED_LATE, &values).await? {
            if let Some(looked_at) = row.maybe_int("looked_at")? {
                looked.looked_at = looked_at.unsigned_abs();
                if looked.looked_at >= u64::from(at_most) {
                    looked.next = Some(RefundPosition { at: row.time("at")?, id: row.text("refund_id")? });
                }
                continue;
            }
            found.push(Success {
                orphan_id: row.int("orphan_id")?,
                item: ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? },
                provider: row.text("provider")?,
                model: row.text("model")?,
                job_id: row.maybe_text("provider_job_id")?,
                answer_id: None,
                stored: row.maybe_text("stored_output_id")?,
            });
        }
        Ok((looked, found))
    }

    /// Notes late successes, each with its event and counted, but for those that are known already.
    async fn note_successes(
        &self,
        tx: &mut Tx,
        found: &[Success],
        by: NoticedBy,
        now: Timestamp,
        pass_id: Option<i64>,
    ) -> Result<LateSuccesses, DbError> {
        let by = match by {
            NoticedBy::Question => "question",
            NoticedBy::Look => "look",
        };
        let mut new = LateSuccesses::default();
        if found.is_empty() {
            return Ok(new);
        }
        let rows = found.iter().map(|each| {
            let kind = if each.stored.is_some() { "stored_late" } else { "never_stored" };
            json!({
                "refund_id": refund::refund_id(&each.item.charge_id, each.item.output_index),
                "charge_id": each.item.charge_id, "output_index": each.item.output_index, "kind": kind,
                "provider": each.provider, "model": each.model, "provider_job_id": each.job_id,
                "noticed_at": self.db.time(now), "noticed_by": by, "answer_id": each.answer_id,
                "stored_output_id": each.stored,
            })
        });
        let rows = Json::Array(rows.collect());
        let by_item: HashMap<&ItemId, &Success> = found.iter().map(|each| (&each.item, each)).collect();
        let (mut events, mut counts) = (Vec::new(), BTreeMap::<(String, String), i64>::new());
        for row in tx.rows(statements::INSERT_LATE_SUCCESSES, &[(&rows).into()]).await? {
            let item = ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? };
            let kind = row.text("kind")?;
            *counts.entry((row.text("provider")?, kind.clone())).or_default() += 1;
            let Some(success) = by_item.get(&item) else { continue };
            let (event, detail) = if let Some(output_id) = &success.stored {
                new.stored_late += 1;
                ("stored_late", format!("output {output_id} was stored after the refund"))
            } else {
                new.never_stored += 1;
                ("late_success", "paid for at the provider and never delivered; the refund stays".to_owned())
            };
            events.push(EventRow {
                detail: Some(detail),
                answer_id: success.answer_id,
                pass_id,
                ..EventRow::new(success.orphan_id, &success.item, Instant::of(&self.db, now), event)
            });
        }
        if events.is_empty() {
            return Ok(new);
        }
        insert_events(&self.db, tx, events).await?;
        let counts = counts.iter().map(
            |((provider, kind), count)| json!({"metric": "late_successes", "label_a": provider, "label_b": kind, "value": count}),
        );
        tx.rows(statements::COUNT_UP, &[(&Json::Array(counts.collect())).into()]).await?;
        Ok(new)
    }
}

/// Locks leased questions; the token each has now.
async fn lock(tx: &mut Tx, leased: &[(i64, i64)]) -> Result<HashMap<i64, i64>, DbError> {
    let mut ids: Vec<i64> = leased.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    let rows = tx.rows(statements::LATE_LOCK, &[Value::json(&ids)]).await?;
    rows.iter().map(|row| Ok((row.int("orphan_id")?, row.int("lease_token")?))).collect()
}
