//! Tries a refund and an output on real charges, reads back what came of them as settle does, and
//! takes both back.
//!
//! For `makegood check` and for the start of a pass: a trigger or a view of the platform's that
//! fails, or does something else than it is told, is found before money is owed. A refund is posted
//! by the same statements as a real one: on PostgreSQL by the part of `makegood_post_refunds` that
//! writes, inside `makegood_try_refund`, which always ends its writes with an exception; on SQLite
//! in a transaction that is rolled back. An output is stored, put back and read with the rights of
//! the passes' role, in a transaction that is rolled back.
//!
//! One charge tells nothing about the others: up to three, of different accounts, are tried, and
//! only what fails for all of them counts. "Could not try" is never a failure: no charge, a lock of
//! another session, a lost connection, a database that takes no writes. Crash: the transaction is
//! rolled back. Cannot see: what a trigger does outside of the transaction, and what it does only
//! to other accounts.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value as Json, json};

use super::posting::{Posting, each_hit_once};
use super::{Failure, read_back};
use crate::charge::{Charge, ItemId, Split};
use crate::clock::Timestamp;
use crate::refund;
use crate::store::db::{DbError, Row, Trouble};
use crate::store::{Store, first, statements};

#[cfg(test)]
mod tests;

/// Accounts whose charges are tried.
const ACCOUNTS: usize = 3;

/// The hash of an output that nobody made.
const NO_OUTPUT: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It did what it was told, at last on this charge.
    Works {
        /// The charge.
        charge_id: String,
        /// Why it failed for the accounts that were tried before, if it did.
        failed_before: Option<String>,
    },
    /// It failed on every charge that was tried.
    Fails {
        /// On how many.
        tried: usize,
        /// Why, on one of them.
        why: String,
        /// A right is missing.
        of_rights: bool,
        /// On one of them at least the database refused a row, which says nothing about other rows.
        refused: bool,
    },
    /// It could not be tried.
    CouldNotTry {
        /// Why not.
        why: String,
    },
}

/// An item that something can be tried on.
#[derive(Clone, Debug)]
struct Candidate {
    item: ItemId,
    charge: Charge,
    credits: i64,
    job: Option<String>,
    job_output: i64,
    outputs: i64,
    /// Whether something is owed for it by now.
    orphans: i64,
    /// Exactly one balance row for each bucket that the charge drew from.
    has_balances: bool,
}

/// What one try came to.
enum Tried {
    Works,
    Fails { why: String, of_rights: bool, refused: bool },
    CouldNot { why: String },
}

impl From<Failure> for Tried {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Db(error) => Self::from(error),
            failure => Self::Fails { why: failure.to_string(), of_rights: false, refused: false },
        }
    }
}

impl From<DbError> for Tried {
    fn from(error: DbError) -> Self {
        let why = crate::report::chain(&error);
        match error.trouble() {
            Trouble::Race
            | Trouble::LockTimeout
            | Trouble::Locked
            | Trouble::TimedOut
            | Trouble::ConnectionLost
            | Trouble::NoConnection
            | Trouble::Unreachable
            | Trouble::ReadOnly
            | Trouble::Full => Self::CouldNot { why },
            Trouble::Raised => Self::Fails { why, of_rights: false, refused: true },
            Trouble::NoTables | Trouble::Other => {
                Self::Fails { why, of_rights: error.is_about_rights(), refused: !error.is_about_the_schema() }
            }
        }
    }
}

impl Store {
    /// Tries a refund on the newest charges of up to three accounts.
    ///
    /// # Errors
    /// The platform's charges cannot be read.
    pub async fn try_refunds(&self) -> Result<Trial, DbError> {
        let mut candidates = self.candidates().await?;
        // Without its one balance row a refund is held for its account alone (rule 16).
        candidates.retain(|each| split(each).is_some() && each.has_balances);
        // What is owed comes first, then what is not delivered.
        candidates.sort_by_key(|each| (each.orphans == 0, each.outputs > 0));
        let mut told = Told::new("among the newest charges is none that a refund could be tried on");
        for candidate in one_an_account(&candidates) {
            let tried = match self.try_refund(candidate).await {
                Ok(()) => Tried::Works,
                Err(failure) => match Tried::from(failure) {
                    Tried::Fails { why, refused: true, .. } if candidate.outputs > 0 => {
                        Tried::CouldNot { why }
                    }
                    tried => tried,
                },
            };
            if let Some(done) = told.add(candidate, tried) {
                return Ok(done);
            }
        }
        Ok(told.end())
    }

    /// Tries an output on the newest charges of up to three accounts. Without charges, on an item
    /// that is not there: what the platform then says is a failure only where it is about rights.
    ///
    /// # Errors
    /// The platform's charges cannot be read.
    pub async fn try_outputs(&self) -> Result<Trial, DbError> {
        let mut candidates = self.candidates().await?;
        candidates.retain(|each| each.job.is_some());
        // An item that has its output may refuse a second one, and rightly.
        candidates.sort_by_key(|each| each.outputs > 0);
        let mut told = Told::new("among the newest charges is none with a provider job");
        for candidate in one_an_account(&candidates) {
            let tried = match self.try_output(candidate).await {
                Ok(()) => Tried::Works,
                Err(failure) => match Tried::from(failure) {
                    Tried::Fails { why, of_rights: false, .. } if candidate.outputs > 0 => {
                        Tried::CouldNot { why }
                    }
                    tried => tried,
                },
            };
            if let Some(done) = told.add(candidate, tried) {
                return Ok(done);
            }
        }
        if told.tried == 0
            && let Err(failure) = self.try_output(&nobody()).await
            && let Tried::Fails { why, of_rights: true, .. } = Tried::from(failure)
        {
            return Ok(Trial::Fails { tried: 0, why, of_rights: true, refused: false });
        }
        Ok(told.end())
    }

    async fn candidates(&self) -> Result<Vec<Candidate>, DbError> {
        let rows = self.rows(statements::TRY_ITEMS, &[]).await?;
        // One row that cannot be read says nothing about the others: passes report it.
        let mut candidates: Vec<Candidate> = rows.iter().filter_map(|row| candidate(row).ok()).collect();
        candidates.sort_by_key(|each| std::cmp::Reverse(each.charge.charged_at));
        Ok(candidates)
    }

    async fn try_refund(&self, candidate: &Candidate) -> Result<(), Failure> {
        let Some(split) = split(candidate) else { return Ok(()) };
        let mut posting = Posting::default();
        posting.add(&candidate.item, &candidate.charge, "trial", split);
        if self.is_postgres() {
            let refund = json!({
                "charge_id": candidate.item.charge_id, "output_index": candidate.item.output_index,
                "subscription": split.subscription, "wallet": split.wallet,
            });
            let rows = self.db.rows(statements::TRY_REFUND, &[(&refund).into()]).await?;
            let seen = first(statements::TRY_REFUND, &rows)?.text("seen")?;
            let seen: Json = serde_json::from_str(&seen).unwrap_or_default();
            return posting.compare_tried(&seen);
        }
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        let tried = async {
            let charge = &candidate.charge;
            let list = json!([{
                "charge_id": charge.id, "account_id": charge.account_id,
                "subscription_drawn": charge.drawn.at_least_zero().subscription,
                "wallet_drawn": charge.drawn.at_least_zero().wallet,
            }]);
            tx.rows(statements::LOCK_CHARGES, &[(&list).into()]).await?;
            let item = json!([{
                "charge_id": candidate.item.charge_id, "output_index": candidate.item.output_index,
                "kind": "refund", "reason": "trial", "rule": 0,
                "resolved_at": self.db.time(now), "decided_by": "makegood",
            }]);
            tx.rows(statements::SUPERSEDE_RESOLUTIONS, &[(&item).into(), now.into()]).await?;
            let rows = tx.rows(statements::INSERT_RESOLUTIONS, &[(&item).into()]).await?;
            let id = first(statements::INSERT_RESOLUTIONS, &rows)?.int("id")?;
            let resolutions = HashMap::from([(candidate.item.clone(), id)]);
            let before = posting.write(&mut tx, self, now, &resolutions).await?;
            posting.check(&mut tx, &before).await
        }
        .await;
        tx.roll_back().await?;
        tried
    }

    /// Stores an output, puts it back where it is, and looks for it.
    async fn try_output(&self, candidate: &Candidate) -> Result<(), Failure> {
        let now = self.now().await?;
        let (item, charge) = (&candidate.item, &candidate.charge);
        let id = format!("makegood:{item}:trial");
        let output = json!([{
            "id": id, "charge_id": item.charge_id, "output_index": item.output_index, "provider": charge.provider,
            "provider_job_id": candidate.job, "provider_output_index": candidate.job_output,
            "project_id": charge.project_id, "node_id": charge.node_id, "uri": "file:///makegood/trial",
            "content_type": "application/octet-stream", "size_bytes": 1, "sha256": NO_OUTPUT,
            "stored_at": self.db.time(now),
            "from_charge_id": item.charge_id, "from_output_index": item.output_index, "keep_place": 0,
        }]);
        let charges = json!([item.charge_id]);
        let is_there = |row: &Row| -> Result<bool, DbError> {
            // A platform without hashes keeps the id, one with ids of its own the hash.
            let is_ours = match row.maybe_text("sha256")? {
                Some(sha256) => sha256 == NO_OUTPUT,
                None => row.text("id")? == id,
            };
            Ok(is_ours
                && row.maybe_text("charge_id")?.as_ref() == Some(&item.charge_id)
                && row.maybe_int("output_index")? == Some(item.output_index)
                && row.text("provider")? == charge.provider
                && Some(row.text("provider_job_id")?) == candidate.job
                && row.int("provider_output_index")? == candidate.job_output
                && row.maybe_text("project_id")? == charge.project_id
                && row.maybe_text("node_id")? == charge.node_id)
        };
        let mut tx = self.db.begin().await?;
        let tried = async {
            tx.rows(statements::INSERT_STORED_OUTPUTS, &[(&output).into()]).await?;
            tx.constraints_now().await?;
            let rows = tx.rows(statements::OUTPUTS_OF_CHARGES, &[(&charges).into()]).await?;
            let Some(stored) = rows.iter().find(|row| is_there(row).unwrap_or(false)) else {
                return Err(Failure::NotKept { output_id: id.clone() });
            };
            // The platform may have given it an id of its own.
            let mut put_back = output.clone();
            put_back[0]["id"] = json!(stored.text("id")?);
            let moved = tx.rows(statements::RELINK_OUTPUTS, &[(&put_back).into()]).await?;
            if moved.is_empty() {
                return Err(Failure::Relink { output_id: id.clone() });
            }
            tx.constraints_now().await?;
            Ok(())
        }
        .await;
        tx.roll_back().await?;
        tried
    }
}

impl Posting {
    /// Compares what `makegood_try_refund` has seen with what it was to post, as [`Posting::check`]
    /// does.
    fn compare_tried(&self, seen: &Json) -> Result<(), Failure> {
        let rows = |key: &str| seen[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let key =
            |row: &Json| Some((row["account_id"].as_str()?.to_owned(), row["bucket"].as_str()?.to_owned()));
        let mut hit = HashMap::new();
        for key in rows("hit").iter().filter_map(key) {
            *hit.entry(key).or_default() += 1;
        }
        each_hit_once(self.owed().keys(), &hit)?;
        let balances = |of: &str| -> read_back::Balances {
            rows(of).iter().filter_map(|row| Some((key(row)?, row["credits"].as_i64()?))).collect()
        };
        let mut shown: read_back::Shown = HashMap::new();
        for row in rows("entries") {
            let mut entry = row.clone();
            let id = entry.as_object_mut().and_then(|entry| entry.remove("id"));
            let id = id.as_ref().and_then(Json::as_str).unwrap_or_default().to_owned();
            shown.entry(id).or_default().push(entry);
        }
        read_back::balances_moved(self.owed(), &balances("before"), &balances("after"))?;
        read_back::entries_show(&self.entries(), &shown)
    }
}

/// What the tries of one trial came to so far.
struct Told {
    /// How many failed.
    tried: usize,
    failed: Option<(String, bool)>,
    refused: bool,
    could_not: String,
}

impl Told {
    fn new(could_not: &str) -> Self {
        Self { tried: 0, failed: None, refused: false, could_not: could_not.to_owned() }
    }

    /// One that works decides for all.
    fn add(&mut self, candidate: &Candidate, tried: Tried) -> Option<Trial> {
        match tried {
            Tried::Works => {
                let charge_id = candidate.item.charge_id.clone();
                return Some(Trial::Works {
                    charge_id,
                    failed_before: self.failed.take().map(|(why, _)| why),
                });
            }
            Tried::Fails { why, of_rights, refused } => {
                self.tried += 1;
                self.refused |= refused;
                // The surest of them is told.
                if !refused || self.failed.is_none() {
                    self.failed = Some((why, of_rights));
                }
            }
            Tried::CouldNot { why } => self.could_not = why,
        }
        None
    }

    fn end(self) -> Trial {
        match self.failed {
            Some((why, of_rights)) => {
                Trial::Fails { tried: self.tried, why, of_rights, refused: self.refused }
            }
            None => Trial::CouldNotTry { why: self.could_not },
        }
    }
}

/// The newest of each account, of so many accounts.
fn one_an_account(candidates: &[Candidate]) -> impl Iterator<Item = &Candidate> {
    let mut seen = BTreeSet::new();
    candidates.iter().filter(move |each| seen.insert(each.charge.account_id.clone())).take(ACCOUNTS)
}

fn split(candidate: &Candidate) -> Option<Split> {
    refund::allocate(candidate.credits, candidate.charge.drawn, Split::default())
}

fn candidate(row: &Row) -> Result<Candidate, DbError> {
    let drawn = Split { subscription: row.int("subscription_credits")?, wallet: row.int("wallet_credits")? };
    let has_balances = (drawn.subscription <= 0 || row.int("subscription_rows")? == 1)
        && (drawn.wallet <= 0 || row.int("wallet_rows")? == 1);
    Ok(Candidate {
        item: ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? },
        credits: row.int("credits")?,
        job: row.maybe_text("provider_job_id")?,
        job_output: row.int("provider_output_index")?,
        outputs: row.int("outputs")?,
        orphans: row.int("orphans")?,
        has_balances,
        charge: Charge {
            id: row.text("charge_id")?,
            account_id: row.text("account_id")?,
            project_id: row.maybe_text("project_id")?,
            node_id: row.maybe_text("node_id")?,
            provider: row.text("provider")?,
            model: row.text("model")?,
            charged_at: row.time("charged_at")?,
            drawn,
            cancelled_at: None,
        },
    })
}

/// An item that there is not.
fn nobody() -> Candidate {
    let word = || "makegood-trial".to_owned();
    Candidate {
        item: ItemId { charge_id: word(), output_index: 0 },
        credits: 1,
        job: Some(word()),
        job_output: 0,
        outputs: 0,
        orphans: 0,
        has_balances: false,
        charge: Charge {
            id: word(),
            account_id: word(),
            project_id: Some(word()),
            node_id: Some(word()),
            provider: word(),
            model: word(),
            charged_at: Timestamp::from_micros(0),
            drawn: Split::default(),
            cancelled_at: None,
        },
    }
}
