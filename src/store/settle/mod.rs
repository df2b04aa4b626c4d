//! The one transaction that moves money.
//!
//! For a batch of decisions, in this order: lock the brake (if anything is to be refunded), lock makegood's rows of
//! the charges, lock the orphans, lock the balances that are to get something; prove that each lease is still ours and
//! that what the platform has on record is still what was decided upon; then write refunds, ledger entries, balances,
//! relinked and recovered outputs, events and the orphans' new state. All of it or nothing. The locks are always taken in this order and by key, so that
//! two processes never wait for each other in a ring.
//!
//! It never decides whether something is owed: see `policy`. It may only make less of a decision: hold a refund for
//! the brake, or give a case back because the world changed. Exactly once rests on unique keys: one current
//! resolution an item, one refund an item, ledger ids made of item and bucket.
//! Crash before commit: nothing happened. Crash after: the next claim finds the orphans resolved. Connection lost at the
//! commit: it is found out which of the two it was (`doubt`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::claim::Case;
use super::db::{DbError, Trouble, Tx};
use super::scan::Dating;
use super::{Store, statements, with_retries};
use crate::brake::{self, Brake};
use crate::charge::{Bucket, Split};
use crate::clock::Timestamp;
use crate::evidence::Evidence;
use crate::policy::{self, Action, Decision, Pick};
use crate::recovery::Copied;

mod doubt;
#[cfg(test)]
mod tests;
mod writes;

use doubt::{InDoubt, Looked};
use writes::Written;
pub(super) use writes::{answer_key, keep_answers};

/// A decision about one claimed orphan, carried out as far as it needs no transaction.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The orphan and what was known when it was decided.
    pub case: Case,
    /// What is to be done.
    pub decision: Decision,
    /// The provider's word, where it was asked.
    pub evidence: Option<Arc<Evidence>>,
    /// The file that was brought home, for a recovery.
    pub copied: Option<Copied>,
    /// When to look again, where the case stays open or held.
    pub look_again: Timestamp,
    /// What else a person should know: why a copy failed, for instance.
    pub detail: Option<String>,
}

impl Settlement {
    /// Whether a refund would rest on nothing but a fault of ours.
    fn is_own_fault(&self) -> bool {
        brake::is_own_fault(self.decision.reason, self.evidence.as_deref())
    }
}

/// What became of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the decision as it was carried out (a refund may have become a hold).
    Settled(Decision),
    /// The world changed since it was decided upon: decide again.
    Changed,
    /// The lease is somebody else's by now.
    Lost,
    /// The database refused its rows: nothing was written for it, a person has to look.
    Refused(String),
    /// The database refused, and whether its rows are to blame shows by how others fare.
    Failed(String),
}

/// What settles besides the decisions.
#[derive(Clone, Debug)]
pub struct SettleRules {
    /// What the brake watches.
    pub brake: brake::Watch,
    /// How orphans are dated that are opened for items an output was taken from.
    pub dating: Dating,
    /// When the provider is asked again after a refund without proof.
    pub late: policy::late::Times,
    /// When a case that was held for the brake is looked at again.
    pub held_for: Duration,
    /// Nothing that stays open is due before this.
    pub not_before: Option<Timestamp>,
    /// The pass.
    pub pass_id: Option<i64>,
    /// Who decided: `makegood`, or a person's name.
    pub decided_by: String,
}

/// Why a transaction was given up.
#[derive(Debug)]
enum Failure {
    Db(DbError),
    /// A balance row is missing or there are several.
    Balance {
        account_id: String,
        bucket: Bucket,
        rows: usize,
    },
    /// A balance is to get more than a whole number can hold.
    TooMuch {
        account_id: String,
        bucket: Bucket,
    },
    /// An output that was to be put back did not move: somebody was here before, or the platform does not let it.
    Relink {
        output_id: String,
    },
    /// A recovered output was written, and is not there.
    NotKept {
        output_id: String,
    },
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl Failure {
    fn trouble(&self) -> Trouble {
        match self {
            Self::Db(error) => error.trouble(),
            Self::Balance { .. } | Self::TooMuch { .. } | Self::Relink { .. } | Self::NotKept { .. } => {
                Trouble::Other
            }
        }
    }

    /// What it means for the one settlement that failed: its rows were refused, unless no other would fare better for certain.
    fn refused(self) -> Result<Outcome, DbError> {
        match self {
            Self::Db(error) if error.is_about_a_row() => Ok(Outcome::Refused(crate::report::chain(&error))),
            Self::Db(error) if error.may_be_about_a_row() => {
                Ok(Outcome::Failed(crate::report::chain(&error)))
            }
            Self::Db(error) => Err(error),
            failure => Ok(Outcome::Refused(crate::report::chain(&failure))),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Db(error) => error.fmt(f),
            Self::Balance { account_id, bucket, rows } => {
                write!(f, "{rows} balance rows instead of one for account `{account_id}`, bucket {bucket}")
            }
            Self::TooMuch { account_id, bucket } => {
                write!(
                    f,
                    "account `{account_id}`, bucket {bucket}, is to get more credits than a number can hold"
                )
            }
            Self::Relink { output_id } => write!(
                f,
                "the platform's stored_outputs does not let output `{output_id}` be put back: the UPDATE left it where it was"
            ),
            Self::NotKept { output_id } => write!(
                f,
                "the platform's stored_outputs took output `{output_id}`, and does not show it where its item expects it"
            ),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Db(error) => error.source(),
            Self::Balance { .. } | Self::TooMuch { .. } | Self::Relink { .. } | Self::NotKept { .. } => None,
        }
    }
}

impl Store {
    /// Settles a batch; one outcome for each, in order.
    ///
    /// A row that the database refuses is settled apart from the others, so that it spoils nothing but itself.
    ///
    /// # Errors
    /// The database cannot be worked with at all; nothing of the failing transaction stays.
    pub async fn settle(&self, batch: &[Settlement], rules: &SettleRules) -> Result<Vec<Outcome>, DbError> {
        match self.settle_whole(batch, rules).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(Failure::Db(error)) if !error.is_about_a_row() && !error.may_be_about_a_row() => {
                return Err(error);
            }
            Err(failure) => {
                tracing::debug!(error = &failure as &dyn std::error::Error, "settling one by one");
            }
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for settlement in batch {
            outcomes.push(self.settle_alone(settlement, rules).await?);
        }
        Ok(outcomes)
    }

    /// Settles one. What proves impossible at the last moment is held for a person: the balance row vanished or doubled
    /// between the decision and the posting (rule 16), or the output, found where it was decided upon in this transaction
    /// too, would not be put back (rule 3); then deciding again would come to the same for ever.
    async fn settle_alone(&self, settlement: &Settlement, rules: &SettleRules) -> Result<Outcome, DbError> {
        let failure = match self.settle_one(settlement, rules).await {
            Ok(outcome) => return Ok(outcome),
            Err(failure) => failure,
        };
        let decision = match &failure {
            Failure::Balance { .. } => policy::without_balance(),
            Failure::Relink { .. } => policy::cannot_relink(),
            Failure::Db(_) | Failure::TooMuch { .. } | Failure::NotKept { .. } => return failure.refused(),
        };
        let held = Settlement { decision, detail: Some(failure.to_string()), ..settlement.clone() };
        self.settle_one(&held, rules).await.or_else(Failure::refused)
    }

    async fn settle_one(&self, settlement: &Settlement, rules: &SettleRules) -> Result<Outcome, Failure> {
        let mut outcomes = self.settle_whole(std::slice::from_ref(settlement), rules).await?;
        // One for each.
        Ok(outcomes.remove(0))
    }

    /// One transaction, run again where that may help. If its commit's answer was lost, the next try begins by looking
    /// whether it happened: then it was ours, and is told as it was.
    async fn settle_whole(&self, batch: &[Settlement], rules: &SettleRules) -> Result<Vec<Outcome>, Failure> {
        let mut doubt = None;
        with_retries!(self, self.settle_at_once(batch, rules, &mut doubt).await)
    }

    async fn settle_at_once(
        &self,
        batch: &[Settlement],
        rules: &SettleRules,
        doubt: &mut Option<InDoubt>,
    ) -> Result<Vec<Outcome>, Failure> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        let refund = |each: &Settlement| each.decision.action == Action::Refund;
        let mut brake = if batch.iter().any(refund) {
            let own_faults = batch.iter().any(Settlement::is_own_fault);
            Some(self.lock_brake(&mut tx, &rules.brake, now, own_faults).await?)
        } else {
            None
        };
        let mut refunded = lock_charges(&mut tx, batch).await?;
        let leases = lock_orphans(&mut tx, batch).await?;
        if let Some(before) = doubt.take() {
            // The locks are ours: whatever it was by now is over.
            match before.look(batch, &leases) {
                Looked::Happened(outcomes) => return Ok(outcomes),
                Looked::DidNot => {}
                Looked::CannotTell => return Err(DbError::InDoubt.into()),
            }
        }
        if brake.as_ref().is_some_and(|brake| brake.held.all.is_none()) {
            lock_balances(&mut tx, batch).await?;
        }
        let ours = self.still_ours(&mut tx, batch, &leases).await?;

        let mut written = Written::new(self, now, rules);
        written.answers(&mut tx, batch, &ours).await?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for (settlement, standing) in batch.iter().zip(ours) {
            let outcome = match standing {
                Standing::Ours => Outcome::Settled(written.add(settlement, brake.as_mut(), &mut refunded)),
                Standing::Changed => Outcome::Changed,
                Standing::Lost => Outcome::Lost,
            };
            outcomes.push(outcome);
        }
        written.write(&mut tx, brake.map(Brake::pulled).unwrap_or_default()).await?;
        match tx.commit().await {
            Ok(()) => Ok(outcomes),
            Err(error) if error.trouble().leaves_doubt() => {
                *doubt = Some(InDoubt(outcomes));
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Proves for each settlement that its lease is ours and its facts are as they were.
    async fn still_ours(
        &self,
        tx: &mut Tx,
        batch: &[Settlement],
        leases: &HashMap<i64, Lease>,
    ) -> Result<Vec<Standing>, DbError> {
        let again = self.cases(tx, &ids(batch)).await?;
        let again: HashMap<i64, &Case> =
            again.cases.iter().map(|case| (case.facts.orphan.id, case)).collect();
        let standing = |settlement: &Settlement| {
            let id = settlement.case.facts.orphan.id;
            if !leases.get(&id).is_some_and(|lease| lease.token == settlement.case.token && lease.alive()) {
                return Standing::Lost;
            }
            let before = &settlement.case.facts;
            let by_share = matches!(settlement.decision.action, Action::Recover(Pick::Unclaimed(_)));
            let same = again.get(&id).is_some_and(|now| {
                now.facts.record == before.record && (!by_share || now.facts.share == before.share)
            });
            if same { Standing::Ours } else { Standing::Changed }
        };
        Ok(batch.iter().map(standing).collect())
    }
}

/// The last lease of an orphan.
#[derive(Clone, Copy, Debug)]
struct Lease {
    token: i64,
    /// Not ended.
    leased: bool,
    /// The orphan is not open any more.
    resolved: bool,
}

impl Lease {
    const fn alive(self) -> bool {
        self.leased && !self.resolved
    }
}

fn ids(batch: &[Settlement]) -> Vec<i64> {
    let mut ids: Vec<i64> = batch.iter().map(|each| each.case.facts.orphan.id).collect();
    ids.sort_unstable();
    ids
}

/// Locks the orphans; the last lease of each.
async fn lock_orphans(tx: &mut Tx, batch: &[Settlement]) -> Result<HashMap<i64, Lease>, DbError> {
    let mut leases = HashMap::new();
    for row in tx.rows(statements::LOCK_ORPHANS, &[(&json!(ids(batch))).into()]).await? {
        let lease = Lease {
            token: row.int("lease_token")?,
            leased: row.maybe_time("leased_until")?.is_some(),
            resolved: row.int("resolved")? == 1,
        };
        leases.insert(row.int("id")?, lease);
    }
    Ok(leases)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Ours,
    Changed,
    Lost,
}

/// Holds the balances that refunds go to. A platform that gives something back by itself changes the same rows: what it has
/// begun is waited for and then seen by the last look, and what it begins later waits for the end of this transaction.
async fn lock_balances(tx: &mut Tx, batch: &[Settlement]) -> Result<(), DbError> {
    let mut keys: BTreeSet<(&str, Bucket)> = BTreeSet::new();
    for settlement in batch.iter().filter(|each| each.decision.action == Action::Refund) {
        let charge = &settlement.case.facts.record.charge;
        keys.extend(
            Bucket::ALL
                .into_iter()
                .filter(|bucket| charge.drawn.of(*bucket) > 0)
                .map(|bucket| (charge.account_id.as_str(), bucket)),
        );
    }
    let list = keys
        .into_iter()
        .map(|(account, bucket)| json!({"account_id": account, "bucket": bucket.as_str()}))
        .collect();
    tx.rows(statements::LOCK_BALANCES, &[(&Json::Array(list)).into()]).await.map(drop)
}

/// Locks makegood's rows of the charges and returns what makegood has refunded of each.
async fn lock_charges(tx: &mut Tx, batch: &[Settlement]) -> Result<HashMap<String, Split>, DbError> {
    let mut rows: BTreeMap<&str, Json> = BTreeMap::new();
    for settlement in batch {
        let charge = &settlement.case.facts.record.charge;
        // A wait or a hold gives nothing and closes nothing: it need not wait for others either.
        let moves = match settlement.decision.action {
            Action::Refund | Action::Recover(_) | Action::Relink { .. } | Action::Close => true,
            Action::Wait | Action::Hold => false,
        };
        if moves {
            rows.insert(&charge.id, json!({
                "charge_id": charge.id, "account_id": charge.account_id,
                "subscription_drawn": charge.drawn.subscription.max(0), "wallet_drawn": charge.drawn.wallet.max(0),
            }));
        }
    }
    let mut refunded = HashMap::new();
    if rows.is_empty() {
        return Ok(refunded);
    }
    let list = Json::Array(rows.into_values().collect());
    for row in tx.rows(statements::LOCK_CHARGES, &[(&list).into()]).await? {
        let split =
            Split { subscription: row.int("subscription_refunded")?, wallet: row.int("wallet_refunded")? };
        refunded.insert(row.text("charge_id")?, split);
    }
    Ok(refunded)
}
