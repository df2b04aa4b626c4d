//! Leases due orphans and reads what is known about them.
//!
//! A claim raises each orphan's token and returns it; only who names the current one may settle it.
//! A dead worker's lease runs out and the next claim takes over. What has another token by the time
//! its facts are read is somebody else's, and is left out: no token has two holders, who would
//! write one object. Facts are read set-based, a handful of statements a batch, and put together by
//! the pure `facts`. A lease that ran out and was not given back means that its pass died: the next
//! claim counts it. What was in flight in two passes that died is a suspect, claimed by itself: one
//! job that ends every pass must not take the others with it. A row that cannot be read, by
//! makegood or by the database itself, costs its own orphan an hour and nobody else anything.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::db::{DbError, Row, Run, Statement, Value};
use super::{Store, UploadKey, statements};
use crate::charge::{Bucket, Charge, Item, ItemId, JobKey, Split, StoredOutput};
use crate::clock::Timestamp;
use crate::facts::{Delivery, Facts, JobItem, LedgerRefund, Orphan, RowIndex, Rows};
use crate::policy;

/// A claimed orphan with what is known about it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is known.
    pub facts: Facts,
    /// The lease's token.
    pub token: i64,
}

/// A batch of claimed orphans.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Those that can be judged, earliest deadline first.
    pub cases: Vec<Case>,
    /// Those whose rows cannot be read: id, token, item, and why.
    pub unreadable: Vec<Unreadable>,
}

/// An orphan whose rows cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Its row.
    pub orphan_id: i64,
    /// The lease's token.
    pub token: i64,
    /// The item it is about.
    pub item: ItemId,
    /// What is wrong with which row.
    pub why: String,
}

/// Which of the orphans that were in flight in two passes that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspects {
    /// Those that are decided upon without another question.
    AskedEnough,
    /// All that are due.
    Due,
}

/// An orphan that was in flight in two passes that died.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// Its item.
    pub item: ItemId,
    /// In how many.
    pub deaths: i64,
    /// When it is decided upon without another question, once it was asked often enough.
    pub refund_by: Timestamp,
}

impl Store {
    /// Which providers have something due that nobody has leased.
    pub async fn due_providers(&self, due_by: Timestamp) -> Result<Vec<String>, DbError> {
        let rows = self.rows(statements::DUE_PROVIDERS, &[due_by.into()]).await?;
        rows.iter().map(|row| row.text("provider")).collect()
    }

    /// Puts waiting orphans of one provider that are due into the queue, at most `most`. Returns how many.
    pub async fn queue_due(&self, provider: &str, due_by: Timestamp, most: u32) -> Result<u64, DbError> {
        let now = self.now().await?;
        let values = [provider.into(), due_by.into(), now.into(), i64::from(most).into()];
        Ok(self.rows(statements::QUEUE_DUE, &values).await?.len() as u64)
    }

    /// Leases up to `batch` due orphans of one provider, and all others of the same jobs.
    pub async fn claim(
        &self,
        provider: &str,
        due_by: Timestamp,
        lease: Duration,
        batch: u32,
    ) -> Result<Claimed, DbError> {
        loop {
            let now = self.now().await?;
            let values =
                [provider.into(), due_by.into(), now.into(), (now + lease).into(), i64::from(batch).into()];
            if let Some(claimed) = self.claim_by(statements::CLAIM, &values).await? {
                return Ok(claimed);
            }
        }
    }

    /// Leases one job of a provider that was in flight in two passes that died, with all of its
    /// orphans.
    pub async fn claim_suspect(
        &self,
        provider: &str,
        due_by: Timestamp,
        lease: Duration,
        which: Suspects,
    ) -> Result<Claimed, DbError> {
        loop {
            let now = self.now().await?;
            let values = [
                provider.into(),
                due_by.into(),
                now.into(),
                (now + lease).into(),
                i64::from(which == Suspects::AskedEnough).into(),
                policy::QUESTIONS_MIN.into(),
                (now - policy::QUESTIONS_SPAN).into(),
                (now + policy::MAX_WAIT).into(),
            ];
            if let Some(claimed) = self.claim_by(statements::CLAIM_SUSPECT, &values).await? {
                return Ok(claimed);
            }
        }
    }

    /// Whose jobs were in flight in two passes that died and are due.
    pub async fn suspect_providers(&self, due_by: Timestamp) -> Result<Vec<String>, DbError> {
        let now = self.now().await?;
        let rows = self.rows(statements::SUSPECT_PROVIDERS, &[due_by.into(), now.into()]).await?;
        rows.iter().map(|row| row.text("provider")).collect()
    }

    /// Unresolved orphans that were in flight in two passes that died, at most `most`.
    pub async fn suspects(&self, most: u32) -> Result<Vec<Suspect>, DbError> {
        let now = self.now().await?;
        let rows = self.rows(statements::SUSPECTS, &[now.into(), i64::from(most).into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Suspect {
                    item: ItemId {
                        charge_id: row.text("charge_id")?,
                        output_index: row.int("output_index")?,
                    },
                    deaths: row.int("deaths")?,
                    refund_by: row.time("refund_by")?,
                })
            })
            .collect()
    }

    /// Runs one statement that claims, and reads what is known about what it has claimed. None: all
    /// of it was claimed anew meanwhile.
    async fn claim_by(
        &self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Option<Claimed>, DbError> {
        let rows = self.rows(statement, values).await?;
        let tokens: HashMap<i64, i64> = rows
            .iter()
            .map(|row| Ok((row.int("id")?, row.int("lease_token")?)))
            .collect::<Result<_, DbError>>()?;
        if tokens.is_empty() {
            return Ok(Some(Claimed::default()));
        }
        let mut ids: Vec<i64> = tokens.keys().copied().collect();
        ids.sort_unstable();
        let mut claimed = self.cases_apart(&mut &*self, &ids).await?;
        // Who slept past its lease between the two statements reads the next one's token: that is
        // not ours to use.
        let ours = |id: i64, token: i64| tokens.get(&id) == Some(&token);
        claimed.cases.retain(|case| ours(case.facts.orphan.id, case.token));
        claimed.unreadable.retain(|each| ours(each.orphan_id, each.token));
        // All of it somebody else's by now says nothing about what else is due.
        let any = !claimed.cases.is_empty() || !claimed.unreadable.is_empty();
        Ok(any.then_some(claimed))
    }

    /// What is known about the listed orphans, as of now.
    pub(super) async fn cases(&self, run: &mut impl Run, ids: &[i64]) -> Result<Claimed, DbError> {
        let rows = run.rows(statements::ORPHAN_ROWS, &[Value::json(&ids)]).await?;
        let mut claimed = Claimed::default();
        let mut found = Vec::with_capacity(rows.len());
        let mut recovered = HashSet::new();
        for row in &rows {
            let (orphan_id, token) = (row.int("orphan_id")?, row.int("lease_token")?);
            let item = ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? };
            if row.int("was_recovered")? == 1 {
                recovered.insert(item.clone());
            }
            match read_orphan(row, item.clone()) {
                Ok((charge, orphan)) => found.push((charge, orphan, token)),
                Err(error) => {
                    let why = crate::report::chain(&error);
                    claimed.unreadable.push(Unreadable { orphan_id, token, item, why });
                }
            }
        }
        let (mut rows, unreadable) = self.rows_around(run, &found).await?;
        rows.recovered = recovered;
        let around = RowIndex::new(&rows);
        for (charge, orphan, token) in found {
            match unreadable.get(&charge.id) {
                None => claimed.cases.push(Case { facts: Facts::gather(charge, orphan, &around), token }),
                Some(why) => claimed.unreadable.push(Unreadable {
                    orphan_id: orphan.id,
                    token,
                    item: orphan.item,
                    why: why.clone(),
                }),
            }
        }
        Ok(claimed)
    }

    /// Gives claimed orphans back undecided; `due_at`: not before then.
    pub async fn release(&self, orphans: &[(i64, i64)], due_at: Option<Timestamp>) -> Result<(), DbError> {
        if orphans.is_empty() {
            return Ok(());
        }
        let due_at = self.db.maybe_time(due_at);
        let list = orphans
            .iter()
            .map(|(id, token)| json!({"orphan_id": id, "lease_token": token, "due_at": due_at}));
        let list = Json::Array(list.collect());
        self.rows(statements::RELEASE_LEASES, &[(&list).into()]).await?;
        Ok(())
    }

    /// Keeps leases that are still ours until `until`: a long copy is at work.
    pub async fn extend_leases(&self, orphans: &[(i64, i64)], lease: Duration) -> Result<(), DbError> {
        let until = self.now().await? + lease;
        let list = orphans.iter().map(|(id, token)| json!({"orphan_id": id, "lease_token": token}));
        let list = Json::Array(list.collect());
        self.rows(statements::EXTEND_LEASES, &[(&list).into(), until.into()]).await?;
        Ok(())
    }

    /// The rows around the orphans, and the charges of which a row cannot be read, with the reason.
    async fn rows_around(
        &self,
        run: &mut impl Run,
        found: &[(Charge, Orphan, i64)],
    ) -> Result<(Rows, HashMap<String, String>), DbError> {
        let charges: BTreeSet<&str> = found.iter().map(|(charge, ..)| charge.id.as_str()).collect();
        let accounts: BTreeSet<&str> = found.iter().map(|(charge, ..)| charge.account_id.as_str()).collect();
        // Their items need not be read a second time, by their job.
        let known: BTreeMap<&str, u8> = charges.iter().map(|charge| (*charge, 1)).collect();
        let known = Value::Text(json!(known).to_string());
        let (charges, accounts) = (json!(charges), json!(accounts));
        let mut rows = Rows::default();
        let mut bad = Bad::default();
        keep_items(&mut rows, &mut bad, &run.rows(statements::ITEMS_OF_CHARGES, &[(&charges).into()]).await?);

        let orphaned: BTreeSet<&ItemId> = found.iter().map(|(_, orphan, _)| &orphan.item).collect();
        let jobs: BTreeSet<(String, String)> = rows
            .items
            .values()
            .filter(|each| orphaned.contains(&each.item.id))
            .filter_map(|each| each.item.job.as_ref())
            .map(|job| (job.provider.clone(), job.job_id.clone()))
            .collect();
        let jobs = jobs.iter().map(|(provider, job_id)| json!({"provider": provider, "job_id": job_id}));
        let jobs = Json::Array(jobs.collect());
        let of_jobs = run.rows(statements::ITEMS_OF_JOBS, &[(&jobs).into(), known]).await?;
        keep_items(&mut rows, &mut bad, &of_jobs);

        let mut outputs: HashMap<String, StoredOutput> = HashMap::new();
        for (statement, list) in
            [(statements::OUTPUTS_OF_CHARGES, &charges), (statements::OUTPUTS_OF_JOBS, &jobs)]
        {
            let mut seen = HashSet::new();
            for row in run.rows(statement, &[list.into()]).await? {
                let read = read_output(&row).map_err(|error| crate::report::chain(&error));
                let once = read.and_then(|output| {
                    if seen.insert(output.id.clone()) {
                        Ok(output)
                    } else {
                        Err(format!("stored_outputs has two rows of `{}`", output.id))
                    }
                });
                match once {
                    Ok(output) => {
                        outputs.insert(output.id.clone(), output);
                    }
                    // Whose it might be: the item's that it hangs on and those of its job.
                    Err(why) => {
                        bad.add(
                            row.maybe_text("charge_id").ok().flatten(),
                            row.maybe_text("provider_job_id").ok().flatten(),
                            &why,
                        );
                    }
                }
            }
        }
        rows.outputs = outputs.into_values().collect();

        let mut taken = Taken::default();
        // The items that misplaced outputs hang on: have they a claim?
        let holders: BTreeSet<&str> = rows
            .outputs
            .iter()
            .filter_map(|output| output.item.as_ref())
            .filter(|item| !rows.items.contains_key(item))
            .map(|item| item.charge_id.as_str())
            .collect();
        if !holders.is_empty() {
            let holders = json!(holders);
            keep_items(
                &mut rows,
                &mut bad,
                &run.rows(statements::ITEMS_OF_CHARGES, &[(&holders).into()]).await?,
            );
        }
        for row in run.rows(statements::REFUNDS_OF_CHARGES, &[(&charges).into()]).await? {
            let charge_id = row.text("charge_id")?;
            let kept = if row.int("is_refund")? == 1 {
                read_refund(&row, &charge_id).map(|refund| rows.refunds.push(refund))
            } else {
                let credits = row.maybe_int("credits").map_err(|error| crate::report::chain(&error));
                credits.map(|credits| taken.add(&charge_id, credits.unwrap_or(0)))
            };
            if let Err(why) = kept {
                bad.add(Some(charge_id), None, &why);
            }
        }
        rows.debits = taken.debits();
        for row in run.rows(statements::BALANCE_ROWS, &[(&accounts).into()]).await? {
            // A bucket of the platform's that makegood knows nothing of is none of its business.
            if let Some(bucket) = row.maybe_text("bucket")?.as_deref().and_then(bucket) {
                rows.balance_rows.insert((row.text("account_id")?, bucket), row.int("rows")?);
            }
        }
        let bad = bad.charges(&rows);
        Ok((rows, bad))
    }
}

/// Entries of the ledger that name a charge and are no refunds.
#[derive(Debug, Default)]
struct Taken(HashMap<String, (i128, bool)>);

impl Taken {
    fn add(&mut self, charge_id: &str, credits: i64) {
        let (sum, any_below_zero) = self.0.entry(charge_id.to_owned()).or_default();
        *sum += i128::from(credits);
        *any_below_zero |= credits < 0;
    }

    /// The sum of each charge that something was taken for.
    fn debits(self) -> HashMap<String, i128> {
        let taken = self.0.into_iter().filter(|(_, (_, any_below_zero))| *any_below_zero);
        taken.map(|(charge_id, (sum, _))| (charge_id, sum)).collect()
    }
}

/// What cannot be read, and why.
#[derive(Debug, Default)]
struct Bad {
    charges: HashMap<String, String>,
    jobs: HashMap<String, String>,
}

impl Bad {
    /// A row that cannot be read hangs on this charge, and on this job.
    fn add(&mut self, charge_id: Option<String>, job_id: Option<String>, why: &str) {
        self.charges.extend(charge_id.map(|id| (id, why.to_owned())));
        self.jobs.extend(job_id.filter(|id| !id.is_empty()).map(|id| (id, why.to_owned())));
    }

    /// The charges that cannot be judged: those of the rows themselves; those of the jobs, since who shares a job's outputs is
    /// not known; and those whose output hangs on an item that may have a claim to it.
    fn charges(mut self, rows: &Rows) -> HashMap<String, String> {
        for output in &rows.outputs {
            let why = output.item.as_ref().and_then(|holder| self.charges.get(&holder.charge_id));
            if let Some(why) = why.cloned() {
                self.jobs.entry(output.job.job_id.clone()).or_insert(why);
            }
        }
        for each in rows.items.values() {
            if let Some(why) = each.item.job.as_ref().and_then(|job| self.jobs.get(&job.job_id)) {
                self.charges.entry(each.item.id.charge_id.clone()).or_insert_with(|| why.clone());
            }
        }
        self.charges
    }
}

fn bucket(word: &str) -> Option<Bucket> {
    Bucket::ALL.into_iter().find(|bucket| bucket.as_str() == word)
}

/// Keeps the items that can be read; of the others, notes what they hang on.
fn keep_items(rows: &mut Rows, bad: &mut Bad, read: &[Row]) {
    let mut seen = HashSet::new();
    for row in read {
        let why = match read_item(row) {
            Ok((id, item)) => {
                let twice = (!seen.insert(id.clone()))
                    .then(|| format!("charges or charge_items has two rows of item {id}"));
                let why = twice.or_else(|| white_space_around(&item));
                rows.items.insert(id, item);
                why
            }
            Err(error) => Some(crate::report::chain(&error)),
        };
        if let Some(why) = why {
            bad.add(row.text("charge_id").ok(), row.maybe_text("job_id").ok().flatten(), &why);
        }
    }
}

/// An id with white space around it names the job of the id without it, and no key of a database shows that: two accounts
/// could be given back for one job.
fn white_space_around(item: &JobItem) -> Option<String> {
    let job = item.item.job.as_ref()?;
    (job.job_id.trim() != job.job_id).then(|| {
        format!("the provider_job_id {:?} of item {} has white space around it", job.job_id, item.item.id)
    })
}

fn read_item(row: &Row) -> Result<(ItemId, JobItem), DbError> {
    let id = ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? };
    let job = match row.maybe_text("job_id")?.filter(|job_id| !job_id.is_empty()) {
        Some(job_id) => {
            let output_index = row.int("job_output_index")?;
            Some(JobKey { provider: row.text("provider")?, job_id, output_index })
        }
        None => None,
    };
    let item =
        Item { id: id.clone(), credits: row.int("credits")?, job, failed_at: row.maybe_time("failed_at")? };
    let account_id = row.text("account_id")?;
    Ok((id, JobItem { item, account_id, resolved: row.int("resolved")? == 1 }))
}

fn read_refund(row: &Row, charge_id: &str) -> Result<LedgerRefund, String> {
    let read = || -> Result<_, DbError> {
        Ok((row.maybe_int("output_index")?, row.text("bucket")?, row.int("credits")?))
    };
    let (output_index, word, credits) = read().map_err(|error| crate::report::chain(&error))?;
    let bucket = bucket(&word).ok_or_else(|| {
        format!("a refund of charge `{charge_id}` in ledger_entries names the unknown bucket `{word}`")
    })?;
    Ok(LedgerRefund { charge_id: charge_id.to_owned(), output_index, bucket, credits })
}

fn read_orphan(row: &Row, item: ItemId) -> Result<(Charge, Orphan), DbError> {
    let charge = Charge {
        id: row.text("found_charge")?,
        account_id: row.text("account_id")?,
        project_id: row.maybe_text("project_id")?,
        node_id: row.maybe_text("node_id")?,
        provider: row.text("provider")?,
        model: row.text("model")?,
        charged_at: row.time("charged_at")?,
        drawn: Split { subscription: row.int("subscription_credits")?, wallet: row.int("wallet_credits")? },
        cancelled_at: row.maybe_time("cancelled_at")?,
    };
    let held = (row.text("state")? == "held").then(|| row.maybe_text("reason")).transpose()?.flatten();
    let orphan = Orphan {
        id: row.int("orphan_id")?,
        item,
        opened_at: row.time("opened_at")?,
        refund_by: row.time("refund_by")?,
        questions: row.int("questions")?,
        first_asked_at: row.maybe_time("first_asked_at")?,
        waits: row.int("waits")?,
        held,
    };
    Ok((charge, orphan))
}

fn read_output(row: &Row) -> Result<StoredOutput, DbError> {
    let item = match (row.maybe_text("charge_id")?, row.maybe_int("output_index")?) {
        (Some(charge_id), Some(output_index)) => Some(ItemId { charge_id, output_index }),
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    Ok(StoredOutput {
        id: row.text("id")?,
        item,
        job: JobKey {
            provider: row.text("provider")?,
            job_id: row.text("provider_job_id")?,
            output_index: row.int("provider_output_index")?,
        },
        project_id: row.maybe_text("project_id")?,
        node_id: row.maybe_text("node_id")?,
        sha256: row.maybe_text("sha256")?.as_deref().and_then(sha256),
        stored_at: row.time("stored_at")?,
        moved_at: row.maybe_time("moved_at")?,
        deleted_at: row.maybe_time("deleted_at")?,
    })
}

/// A SHA-256 that can be compared with one of ours. A hash of another kind or spelling never equals
/// one of ours, so the file that it stands for would be taken for a new one.
fn sha256(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    (text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
}

impl Case {
    /// One of its lease's uploads.
    pub const fn upload(&self, nth: i64) -> UploadKey {
        UploadKey { orphan_id: self.facts.orphan.id, lease_token: self.token, nth }
    }

    /// The output that rule 3 would put back, with the link it has now.
    pub fn misplaced(&self) -> Option<(&str, Option<&ItemId>, bool)> {
        match &self.facts.record.delivery {
            Delivery::Misplaced { output_id, linked_to, moved, claimed: _ } => {
                Some((output_id, linked_to.as_ref(), *moved))
            }
            Delivery::Delivered { .. } | Delivery::Missing => None,
        }
    }
}
