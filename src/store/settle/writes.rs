//! What one settle writes: gathered decision by decision, written set by set.
//!
//! Nothing here proves anything: `settle` has locked and compared before. The order of the writes
//! follows what refers to what; refunds are posted by `posting`, counters come last. A failing
//! write rolls everything back. The brake comes after all of this: `settle` confirms it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::posting::Posting;
use super::{AS_LONG_AS_A_STATEMENT, Failure, Seen, SettleRules, Settlement, Standing};
use crate::brake::{Brake, RefundHold};
use crate::charge::{Bucket, Charge, ItemId, JobKey, Split};
use crate::clock::Timestamp;
use crate::evidence::{Evidence, FailureClass, Source};
use crate::policy::late::{self, Refunded};
use crate::policy::{self, Action, Decision, Reason};
use crate::refund;
use crate::store::db::{Db, DbError, Row, Statement, Tx, Value};
use crate::store::records::{AnswerRow, EventRow, Instant, OrphanRow, ResolutionRow, insert_events};
use crate::store::scan::{Opening, item_ids};
use crate::store::totals::RESOLUTION_BUCKETS_SECONDS;
use crate::store::{Store, statements};

/// What an account's own limits hold is looked at again so many times less often than what the
/// brake of all holds: a person releases it, and there may be hundreds of thousands.
const HELD_LONGER_FOR_AN_ACCOUNT: u32 = 24;

/// Everything that one transaction writes, gathered first and written set by set.
pub(super) struct Written<'a> {
    store: &'a Store,
    now: Timestamp,
    rules: &'a SettleRules,
    answer_ids: HashMap<AnswerKey, i64>,
    resolutions: Vec<ResolutionRow<'a>>,
    posting: Posting,
    outputs: Vec<Json>,
    uploads: Vec<Json>,
    relinks: Vec<Json>,
    taken_from: Vec<ItemId>,
    mended: BTreeSet<String>,
    recoveries: Vec<(ItemId, Json)>,
    late_questions: Vec<Json>,
    orphans: Vec<OrphanRow<'a>>,
    events: Vec<EventRow<'a>>,
    counts: BTreeMap<(&'static str, String, String), i64>,
}

impl<'a> Written<'a> {
    pub(super) fn new(store: &'a Store, now: Timestamp, rules: &'a SettleRules) -> Self {
        Self {
            store,
            now,
            rules,
            answer_ids: HashMap::new(),
            resolutions: Vec::new(),
            posting: Posting::default(),
            outputs: Vec::new(),
            uploads: Vec::new(),
            relinks: Vec::new(),
            taken_from: Vec::new(),
            mended: BTreeSet::new(),
            recoveries: Vec::new(),
            late_questions: Vec::new(),
            orphans: Vec::new(),
            events: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Keeps the answers, before anything refers to them.
    pub(super) async fn answers(
        &mut self,
        tx: &mut Tx,
        batch: &[&Settlement],
        ours: &[Standing],
    ) -> Result<(), DbError> {
        let settled = batch.iter().zip(ours).filter(|(_, standing)| **standing == Standing::Ours);
        let given = settled.filter_map(|(settlement, _)| answer_of(settlement));
        self.answer_ids = keep_answers(&self.store.db, tx, given).await?;
        Ok(())
    }

    /// Takes one settlement in and returns the decision as it will be carried out.
    pub(super) fn add(
        &mut self,
        settlement: &'a Settlement,
        brake: Option<&mut Brake>,
        seen: &mut HashMap<String, Seen>,
    ) -> Decision {
        let record = &settlement.case.facts.record;
        let mut decision = settlement.decision.clone();
        let (mut given, mut refusal) = (None, None);
        if decision.action == Action::Refund {
            let credits = record.item.as_ref().map_or(0, |item| item.credits);
            // Every charge that something is refunded of was locked.
            let charge = seen.get_mut(&record.charge.id).filter(|seen| seen.is(&record.charge));
            let already = charge.as_ref().map(|seen| seen.refunded.plus(record.refunded_elsewhere.credits));
            let split = already.map(|already| refund::allocate(credits, record.charge.drawn, already));
            if self.rules.cannot_post.is_some() {
                decision = policy::cannot_post();
            } else if let (Some(charge), Some(Some(split))) = (charge, split) {
                // Whoever refunds has read the brake.
                let judged = brake.map(|brake| {
                    let Charge { account_id, provider, .. } = &record.charge;
                    brake.judge(account_id, provider, credits, settlement.is_own_fault())
                });
                if judged == Some(Ok(())) {
                    charge.refunded = charge.refunded.plus(split);
                    given = Some(split);
                } else {
                    refusal = judged.and_then(Result::err);
                    decision = policy::braked();
                }
            } else if split.is_none() {
                decision = policy::charge_changed();
            } else {
                decision = policy::exceeds_draw();
            }
        }
        self.note_mended(settlement, &decision);
        match &decision.action {
            Action::Refund => self.refund(settlement, &decision, given.unwrap_or_default()),
            Action::Recover(_) => self.recover(settlement),
            Action::Relink { output_id } => self.relink(settlement, output_id),
            Action::Wait | Action::Close | Action::Hold => {}
        }
        self.orphan(settlement, &decision, given, refusal.as_ref());
        decision
    }

    fn answer_id(&self, settlement: &Settlement) -> Option<i64> {
        let (job, evidence) = answer_of(settlement)?;
        self.answer_ids.get(&answer_key(job, evidence)).copied()
    }

    fn count(&mut self, metric: &'static str, label_a: &str, label_b: &str, by: i64) {
        let count = self.counts.entry((metric, label_a.to_owned(), label_b.to_owned())).or_default();
        *count = count.saturating_add(by);
    }

    fn refund(&mut self, settlement: &Settlement, decision: &Decision, split: Split) {
        let item = &settlement.case.facts.orphan.item;
        let charge = &settlement.case.facts.record.charge;
        self.posting.add(item, charge, decision.reason.as_str(), split);
        for bucket in Bucket::ALL.into_iter().filter(|bucket| split.of(*bucket) > 0) {
            self.count("refunded_credits", bucket.as_str(), "", split.of(bucket));
        }
        self.count("refunds", &charge.provider, decision.reason.as_str(), 1);
        self.ask_again_later(settlement, decision);
    }

    /// A refund without proof is asked about again: nothing is taken back, but it is known then what was paid for.
    fn ask_again_later(&mut self, settlement: &Settlement, decision: &Decision) {
        let refunded = Refunded { at: self.now, last_asked_at: None };
        // Not where asking ends passes.
        let Some(due_at) = (late::without_proof(decision.reason) && !settlement.is_unasked())
            .then(|| late::next_question(refunded, self.rules.late))
            .flatten()
        else {
            return;
        };
        let facts = &settlement.case.facts;
        let item = &facts.orphan.item;
        let job = facts.record.item.as_ref().and_then(|item| item.job.as_ref());
        self.late_questions.push(json!({
            "orphan_id": facts.orphan.id, "charge_id": item.charge_id, "output_index": item.output_index,
            "provider": facts.record.charge.provider, "provider_job_id": job.map(|job| &job.job_id),
            "refunded_at": self.store.db.time(self.now), "due_at": self.store.db.time(due_at),
        }));
    }

    fn recover(&mut self, settlement: &Settlement) {
        let item = &settlement.case.facts.orphan.item;
        let charge = &settlement.case.facts.record.charge;
        let job = settlement.case.facts.record.item.as_ref().and_then(|item| item.job.as_ref());
        let (Some(copied), Some(job)) = (&settlement.copied, job) else {
            return;
        };
        let output_id = format!("makegood:{item}:{}", settlement.case.token);
        self.uploads.push(settlement.case.upload(copied.log_entry).json());
        self.outputs.push(json!({
            "id": output_id, "charge_id": item.charge_id, "output_index": item.output_index,
            "provider": job.provider, "provider_job_id": job.job_id, "provider_output_index": job.output_index,
            "project_id": charge.project_id, "node_id": charge.node_id, "uri": copied.uri,
            "content_type": copied.content_type, "size_bytes": copied.size_bytes, "sha256": copied.sha256,
            "stored_at": self.store.db.time(self.now),
        }));
        self.recoveries.push((
            item.clone(),
            json!({
                "charge_id": item.charge_id, "output_index": item.output_index, "kind": "recover",
                "provider": charge.provider, "stored_output_id": output_id, "uri": copied.uri,
                "size_bytes": copied.size_bytes, "sha256": copied.sha256, "content_type": copied.content_type,
                "declared_type": copied.declared, "source_host": copied.source_host,
                "recovered_at": self.store.db.time(self.now),
            }),
        ));
        self.count("recoveries", &charge.provider, "recover", 1);
    }

    fn relink(&mut self, settlement: &Settlement, output_id: &str) {
        let item = &settlement.case.facts.orphan.item;
        let charge = &settlement.case.facts.record.charge;
        let (from, moved) =
            settlement.case.misplaced().map_or((None, false), |(_, from, moved)| (from, moved));
        let (from_charge, from_index) =
            (from.map(|from| &from.charge_id), from.map(|from| from.output_index));
        self.relinks.push(json!({
            "id": output_id, "from_charge_id": from_charge, "from_output_index": from_index,
            "charge_id": item.charge_id, "output_index": item.output_index, "project_id": charge.project_id,
            "node_id": charge.node_id, "keep_place": i64::from(moved),
        }));
        self.taken_from.extend(from.filter(|from| *from != item).cloned());
        self.recoveries.push((
            item.clone(),
            json!({
                "charge_id": item.charge_id, "output_index": item.output_index, "kind": "relink",
                "provider": charge.provider, "stored_output_id": output_id, "from_charge_id": from_charge,
                "from_output_index": from_index, "recovered_at": self.store.db.time(self.now),
            }),
        ));
        self.count("recoveries", &charge.provider, "relink", 1);
    }

    /// The orphan's new state, its resolution and the event that tells of it.
    fn orphan(
        &mut self,
        settlement: &'a Settlement,
        decision: &Decision,
        given: Option<Split>,
        refusal: Option<&RefundHold>,
    ) {
        let held_account = refusal.and_then(|refusal| refusal.account.as_ref());
        let facts = &settlement.case.facts;
        let item = &facts.orphan.item;
        let charge = &facts.record.charge;
        let answer_id = self.answer_id(settlement);
        let db = &self.store.db;
        let (state, resolution) = match &decision.action {
            Action::Refund => ("refunded", Some("refund")),
            Action::Recover(_) => ("recovered", Some("recover")),
            Action::Relink { .. } => ("relinked", Some("relink")),
            Action::Close => ("closed", Some("close")),
            Action::Wait => ("open", None),
            Action::Hold => ("held", None),
        };
        let look_again = if held_account.is_some() {
            self.now + self.rules.held_for * HELD_LONGER_FOR_AN_ACCOUNT
        } else if matches!(decision.reason, Reason::Brake | Reason::CannotPost) {
            self.now + self.rules.held_for
        } else {
            settlement.look_again
        };
        let look_again = self.rules.not_before.map_or(look_again, |earliest| look_again.max(earliest));
        let expires_at = settlement.evidence.as_ref().and_then(|evidence| earliest_expiry(evidence));
        let job = facts.record.item.as_ref().and_then(|item| item.job.as_ref());
        let (now, instant) = (Instant::of(db, self.now), |at| Instant::of(db, at));
        self.orphans.push(OrphanRow {
            orphan_id: facts.orphan.id,
            state,
            reason: decision.reason.as_str(),
            due_at: resolution.is_none().then(|| instant(look_again)),
            expires_at: expires_at.map(instant),
            asked: u8::from(settlement.evidence.is_some()),
            asked_at: settlement.evidence.as_ref().map(|evidence| instant(evidence.asked_at)),
            waited: u8::from(resolution.is_none()),
            provider: &charge.provider,
            provider_job_id: job.map(|job| job.job_id.as_str()),
            resolved_at: resolution.map(|_| now),
            held_account: held_account.cloned(),
            unasked: u8::from(settlement.is_unasked()),
        });
        if let Some(kind) = resolution {
            self.resolutions.push(ResolutionRow {
                charge_id: &item.charge_id,
                output_index: item.output_index,
                kind,
                reason: decision.reason.as_str(),
                rule: decision.rule,
                resolved_at: now,
                decided_by: &self.rules.decided_by,
                answer_id,
                pass_id: self.rules.pass_id,
            });
        }
        // Held for the same reason as before is no news.
        let no_news =
            decision.action == Action::Hold && facts.orphan.held.as_deref() == Some(decision.reason.as_str());
        if !no_news {
            let given = given.map(|given| {
                format!("{} to the subscription, {} to the wallet", given.subscription, given.wallet)
            });
            let held_by = match decision.reason {
                Reason::CannotPost => self.rules.cannot_post.clone(),
                _ => refusal.map(|refusal| refusal.why.clone()),
            };
            let detail: Vec<String> =
                given.into_iter().chain(held_by).chain(settlement.detail.clone()).collect();
            let detail = (!detail.is_empty()).then(|| detail.join("; "));
            self.events.push(EventRow {
                reason: Some(decision.reason.as_str()),
                rule: Some(decision.rule),
                detail,
                answer_id,
                pass_id: self.rules.pass_id,
                lease_token: Some(settlement.case.token),
                ..EventRow::new(facts.orphan.id, item, now, decision.action.as_str())
            });
        }
        match decision.action {
            Action::Refund | Action::Recover(_) | Action::Relink { .. } => {
                let took = self.now.since(charge.charged_at);
                let bucket =
                    RESOLUTION_BUCKETS_SECONDS.iter().find(|bound| took.as_secs_f64() <= f64::from(**bound));
                let bucket = bucket.map_or_else(|| "+Inf".to_owned(), u32::to_string);
                self.count("resolution_seconds", &bucket, "", 1);
                self.count("resolution_microseconds", "", "", crate::clock::micros(took));
            }
            Action::Close | Action::Wait | Action::Hold => {}
        }
    }

    /// Writes it all, set by set.
    pub(super) async fn write(mut self, tx: &mut Tx) -> Result<(), Failure> {
        let mut resolution_ids: HashMap<ItemId, i64> = HashMap::new();
        for row in rows_of(tx, statements::INSERT_RESOLUTIONS, &self.resolutions).await? {
            let item = ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? };
            resolution_ids.insert(item, row.int("id")?);
        }
        let recoveries: Vec<Json> = std::mem::take(&mut self.recoveries)
            .into_iter()
            .map(|(item, mut row)| {
                row["resolution_id"] = json!(resolution_ids.get(&item));
                row
            })
            .collect();
        rows_of(tx, statements::INSERT_STORED_OUTPUTS, &self.outputs).await?;
        rows_of(tx, statements::FORGET_UPLOADS, &self.uploads).await?;
        self.put_back(tx).await?;
        rows_of(tx, statements::INSERT_RECOVERIES, &recoveries).await?;
        rows_of(tx, statements::INSERT_LATE_QUESTIONS, &self.late_questions).await?;
        rows_of(tx, statements::SETTLE_ORPHANS, &self.orphans).await?;
        insert_events(&self.store.db, tx, std::mem::take(&mut self.events)).await?;
        self.look_at_holders(tx).await?;
        self.look_at_mended(tx).await?;
        // Last of what the platform's relations get: deferred triggers fire in it.
        let before = self.posting.write(tx, self.store, self.now, &resolution_ids).await?;
        self.posting.check(tx, &before).await?;
        // From here on only rows of makegood's own are waited for, which another settle holds for its commit.
        self.store.wait_for_locks(tx, AS_LONG_AS_A_STATEMENT).await?;
        let counts = self.counts.iter().map(
            |((metric, a, b), value)| json!({"metric": metric, "label_a": a, "label_b": b, "value": value}),
        );
        rows_of(tx, statements::COUNT_UP, &counts.collect::<Vec<_>>()).await?;
        Ok(())
    }

    /// Puts outputs back, and looks whether all that was put back or brought home is where its item expects it: the
    /// platform's relation may be a view that has a mind of its own.
    async fn put_back(&self, tx: &mut Tx) -> Result<(), Failure> {
        let id_of = |row: &Json| row["id"].as_str().unwrap_or_default().to_owned();
        let mut moved = HashSet::new();
        for row in rows_of(tx, statements::RELINK_OUTPUTS, &self.relinks).await? {
            moved.insert(row.text("id")?);
        }
        if let Some(left) = self.relinks.iter().find(|row| !moved.contains(&id_of(row))) {
            return Err(Failure::Relink { output_id: id_of(left) });
        }
        let of_item =
            |row: &Json| json!({"charge_id": row["charge_id"], "output_index": row["output_index"]});
        let landed: Vec<Json> = self.outputs.iter().chain(&self.relinks).map(of_item).collect();
        let missing = rows_of(tx, statements::NOT_LANDED, &landed).await?;
        let Some(row) = missing.first() else {
            return Ok(());
        };
        let item = json!({"charge_id": row.text("charge_id")?, "output_index": row.int("output_index")?});
        if let Some(left) = self.relinks.iter().find(|row| of_item(row) == item) {
            return Err(Failure::Relink { output_id: id_of(left) });
        }
        let left = self.outputs.iter().find(|row| of_item(row) == item);
        Err(Failure::NotKept { output_id: left.map(id_of).unwrap_or_default() })
    }

    /// Items that an output was taken from are looked at again, unless they have their own by now (P13).
    async fn look_at_holders(&self, tx: &mut Tx) -> Result<(), DbError> {
        self.open_bare(tx, "taken_from", &self.taken_from).await
    }

    /// A charge whose items did not add up, and do now: its other items may have come after every look had passed it.
    fn note_mended(&mut self, settlement: &Settlement, decision: &Decision) {
        let mismatch = Reason::ItemsMismatch;
        let was_held = settlement.case.facts.orphan.held.as_deref() == Some(mismatch.as_str());
        let is_held = decision.reason == mismatch && decision.action == Action::Hold;
        if (was_held || decision.reason == mismatch) && !is_held {
            self.mended.insert(settlement.case.facts.record.charge.id.clone());
        }
    }

    /// So are all items of a charge that was mended: some may have come after every look over time had passed it (P14).
    async fn look_at_mended(&self, tx: &mut Tx) -> Result<(), DbError> {
        if self.mended.is_empty() {
            return Ok(());
        }
        let rows = tx.rows(statements::ITEMS_OF_CHARGES, &[Value::json(&self.mended)]).await?;
        self.open_bare(tx, "items_mended", &item_ids(&rows)?).await
    }

    /// Opens those of the items that are paid for, not delivered, and have no unresolved orphan.
    async fn open_bare(&self, tx: &mut Tx, by: &str, items: &[ItemId]) -> Result<(), DbError> {
        let list: Vec<Json> = items
            .iter()
            .map(|item| json!({"charge_id": item.charge_id, "output_index": item.output_index}))
            .collect();
        let bare = item_ids(&rows_of(tx, statements::FIND_LISTED, &list).await?)?;
        let (now, dating) = (self.now, &self.rules.dating);
        self.store.open_orphans(tx, &bare, &Opening { by, now, due_at: now, dating }).await?;
        Ok(())
    }
}

/// Which answer: a job's items may be decided upon by different ones, when it was asked again for a fresh link.
pub(in crate::store) type AnswerKey = (String, String, Timestamp, String);

pub(in crate::store) fn answer_key(job: &JobKey, evidence: &Evidence) -> AnswerKey {
    (job.provider.clone(), job.job_id.clone(), evidence.asked_at, evidence.verdict.as_str().to_owned())
}

fn answer_of(settlement: &Settlement) -> Option<(&JobKey, &Evidence)> {
    let item = settlement.case.facts.record.item.as_ref()?;
    item.job.as_ref().zip(settlement.evidence.as_deref())
}

/// Keeps answers, each once however many items it is about, and returns their ids.
pub(in crate::store) async fn keep_answers<'e>(
    db: &Db,
    tx: &mut Tx,
    given: impl Iterator<Item = (&'e JobKey, &'e Evidence)>,
) -> Result<HashMap<AnswerKey, i64>, DbError> {
    let mut rows: BTreeMap<AnswerKey, AnswerRow<'_>> = BTreeMap::new();
    for (job, evidence) in given {
        rows.entry(answer_key(job, evidence)).or_insert_with(|| answer_row(db, job, evidence));
    }
    let rows: Vec<AnswerRow<'_>> = rows.into_values().collect();
    let kept = rows_of(tx, statements::INSERT_ANSWERS, &rows).await?;
    let key = |row: &Row| -> Result<AnswerKey, DbError> {
        Ok((row.text("provider")?, row.text("provider_job_id")?, row.time("asked_at")?, row.text("verdict")?))
    };
    kept.iter().map(|row| Ok((key(row)?, row.int("id")?))).collect()
}

/// One answer about a job, as it is kept.
fn answer_row<'e>(db: &Db, job: &'e JobKey, evidence: &'e Evidence) -> AnswerRow<'e> {
    let row = AnswerRow {
        provider: &job.provider,
        provider_job_id: &job.job_id,
        asked_at: Instant::of(db, evidence.asked_at),
        verdict: evidence.verdict.as_str(),
        class: evidence.class.map(FailureClass::as_str),
        code: evidence.code.as_deref(),
        message: evidence.message.as_deref(),
        offered: evidence.outputs.len(),
        request: evidence.answer.request.as_deref(),
        http_status: evidence.answer.status,
        excerpt: evidence.answer.excerpt.as_ref().map(|text| text.replace('\0', "\u{fffd}")),
        content_sha256: None,
    };
    // PostgreSQL writes its own.
    let content_sha256 = if db.is_postgres() { None } else { row.content_hash() };
    AnswerRow { content_sha256, ..row }
}

/// Runs a statement on a batch; an empty batch needs no statement.
pub(super) async fn rows_of(
    tx: &mut Tx,
    statement: &'static Statement,
    batch: &[impl Serialize],
) -> Result<Vec<Row>, DbError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    tx.rows(statement, &[Value::json(&batch)]).await
}

/// When the first of the offered files goes.
pub(super) fn earliest_expiry(evidence: &Evidence) -> Option<Timestamp> {
    let files = evidence.outputs.iter().filter(|offer| !matches!(offer.source, Source::Failed { .. }));
    files.filter_map(|offer| offer.expires_at).min()
}
