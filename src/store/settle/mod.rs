//! The one transaction that moves money.
//!
//! For a batch of decisions, in this order: read the brake (if anything is to be refunded), lock
//! makegood's rows of the accounts, read how these stand with their own limits, lock its rows of
//! the charges, lock the orphans, lock the balances that are to get something; prove that each
//! lease is still ours and that what the platform has on record is still what was decided upon;
//! then write refunds, ledger entries, balances, relinked and recovered outputs, events, the
//! orphans' new state; read back what was posted (`read_back`); count; last, lock the brake and ask
//! it once more. All of it or nothing. The locks are always taken in this order and by key, so that
//! two processes cannot deadlock.
//!
//! A row that another session has locked delays only its own case (`locked`): accounts, charges and balances are locked
//! without waiting, what is busy is left out, and is settled afterwards in a transaction that waits: for other settles as long
//! as a statement may take, for the platform a short time.
//!
//! It never decides whether something is owed: see `policy`. It may only make less of a decision: hold a refund for
//! the brake, or give a case back because the world changed. Exactly once rests on unique keys: one current
//! resolution an item, one refund an item, ledger ids made of item and bucket.
//! Crash before commit: nothing happened. Crash after: the next claim finds the orphans resolved. Connection lost at the
//! commit: it is found out which of the two it was (`doubt`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::claim::Case;
use super::db::{DbError, Tries, Trouble, Tx, Value};
use super::scan::Dating;
use super::{Store, statements};
use crate::brake::{self, Brake};
use crate::charge::{Bucket, Charge, Split};
use crate::clock::Timestamp;
use crate::evidence::Evidence;
use crate::policy::{self, Action, Decision, Pick, Reason};
use crate::recovery::CopiedFile;

mod doubt;
mod locked;
mod posting;
mod read_back;
mod restore;
mod reversal;
#[cfg(test)]
mod tests;
mod trial;
mod writes;

use doubt::{InDoubt, Looked};
pub use locked::{Locked, Stuck};
pub use restore::LostOutput;
pub use reversal::{Reversal, Reversed, ReversedRefund};
pub use trial::Trial;
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
    pub copied: Option<CopiedFile>,
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

    /// Whether it was decided upon without the answer that it needs, because asking ends passes
    /// (`policy::without_asking`).
    fn is_unasked(&self) -> bool {
        self.evidence.is_none()
            && matches!(
                self.decision.reason,
                Reason::Unconfirmed | Reason::ReportedFailed | Reason::Unreachable
            )
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
    Failed {
        /// What the database said.
        why: String,
        /// A function of the platform's raised it: it concerns the account, unless others fare no
        /// better.
        raised: bool,
    },
    /// Another session holds a lock that it needs. Nothing was written for it.
    Busy(Locked),
}

/// What settles besides the decisions.
#[derive(Clone, Debug)]
pub struct SettleRules {
    /// What the brake watches.
    pub brake: brake::BrakeContext,
    /// How orphans are dated that are opened for items an output was taken from.
    pub dating: Dating,
    /// When the provider is asked again after a refund without proof.
    pub late: policy::late::LateTimes,
    /// When a case that was held for the brake is looked at again.
    pub held_for: Duration,
    /// Nothing that stays open is due before this.
    pub not_before: Option<Timestamp>,
    /// The pass.
    pub pass_id: Option<i64>,
    /// Who decided: `makegood`, or a person's name.
    pub decided_by: String,
    /// What this pass has waited for in vain.
    pub stuck: Stuck,
    /// Why no refund can be posted, if a trial has found so: they are held.
    pub cannot_post: Option<String>,
}

/// Tries of a transaction whose refunds the brake no longer admits when it is asked again. Each try that fails means that
/// others have refunded up to a limit, engaged the brake or released it; the next one reads that.
const BRAKE_TRIES: u32 = 5;

/// Attempts of a transaction whose balances another session has changed between two reads.
const SNAPSHOT_TRIES: u32 = 3;

/// For the timeout of locks: no other limit than that of the statement.
const AS_LONG_AS_A_STATEMENT: Duration = Duration::ZERO;

/// How a try meets the locks of others.
#[derive(Clone, Copy, Debug)]
struct Locking {
    /// Leave out accounts that another settle has locked. Otherwise it is waited for, as long as a statement may take.
    skip_ours: bool,
    /// Leave out charges and balances that another session has locked. Otherwise they are waited for.
    skip: bool,
    /// How long any one lock is waited for.
    timeout: Duration,
    /// Run under one snapshot and roll back, to check whether a difference persists.
    snapshot: bool,
    /// How often it is run again after a failure that passes by itself.
    again: Again,
}

/// How often a try is run again whose failure a function of the platform's raised. It may raise the
/// same for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// As often as any other.
    AsEver,
    /// Not after a time limit: each try costs that limit.
    NotAfterTimeouts,
    /// Never.
    Never,
}

impl Again {
    fn allows(self, failure: &Failure) -> bool {
        let Failure::Db(error) = failure else { return true };
        error.function().is_none()
            || match self {
                Self::AsEver => true,
                Self::NotAfterTimeouts => error.trouble() != Trouble::TimedOut,
                Self::Never => false,
            }
    }
}

/// Why a transaction was given up.
#[derive(Debug)]
enum Failure {
    Db(DbError),
    /// The brake does not admit under its lock what it had admitted before.
    Brake,
    /// A balance row is missing or there are several.
    Balance {
        account_id: String,
        bucket: Bucket,
        rows: usize,
    },
    /// A balance or the ledger does not show what was posted.
    NotPosted {
        what: String,
    },
    /// A try under one snapshot has posted what was owed, and was rolled back.
    Tried,
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
            Self::Brake
            | Self::Balance { .. }
            | Self::TooMuch { .. }
            | Self::NotPosted { .. }
            | Self::Tried
            | Self::Relink { .. }
            | Self::NotKept { .. } => Trouble::Other,
        }
    }

    /// Whether it concerns the database as a whole, so that settling one by one is of no use.
    fn is_of_the_database(&self) -> bool {
        matches!(self, Self::Db(error) if !error.is_about_a_row() && !error.may_be_about_a_row())
    }

    /// What it means for the one settlement that failed: its rows were refused, unless no other would fare better for certain.
    fn refused(self) -> Result<Outcome, DbError> {
        match self {
            Self::Db(error) if error.is_about_a_row() => Ok(Outcome::Refused(error.told())),
            Self::Db(error) if error.may_be_about_a_row() => {
                Ok(Outcome::Failed { why: error.told(), raised: error.function().is_some() })
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
            Self::Brake => {
                f.write_str("other processes have refunded, engaged or released the brake meanwhile")
            }
            Self::Balance { account_id, bucket, rows } => {
                write!(f, "{rows} balance rows instead of one for account `{account_id}`, bucket {bucket}")
            }
            Self::TooMuch { account_id, bucket } => {
                write!(
                    f,
                    "account `{account_id}`, bucket {bucket}, is to get more credits than a number can hold"
                )
            }
            Self::NotPosted { what } => {
                write!(f, "the refund was posted and does not show, so nothing was written: {what}")
            }
            Self::Tried => f.write_str("a try was rolled back"),
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
            Self::Brake
            | Self::Balance { .. }
            | Self::TooMuch { .. }
            | Self::NotPosted { .. }
            | Self::Tried
            | Self::Relink { .. }
            | Self::NotKept { .. } => None,
        }
    }
}

impl Store {
    /// Settles a batch; one outcome for each, in order.
    ///
    /// A row that the database refuses is settled apart from the others, so that it spoils nothing but itself. So is what
    /// another session has locked; and all waiting for locks together takes a few lock timeouts at most.
    ///
    /// # Errors
    /// The database cannot be worked with at all; nothing of the failing transaction stays.
    pub async fn settle(&self, batch: &[Settlement], rules: &SettleRules) -> Result<Vec<Outcome>, DbError> {
        locked::settle(self, batch, rules).await
    }

    /// What a settlement becomes that failed alone. What proves impossible at the last moment is held for a person: the balance
    /// row vanished or doubled between the decision and the posting (rule 16), the refund was posted and does not show (rule 16), or the output, found where it was decided upon in
    /// this transaction too, would not be put back (rule 3); then deciding again would come to the same for ever.
    async fn failed_alone(
        &self,
        settlement: &Settlement,
        rules: &SettleRules,
        locking: Locking,
        failure: Failure,
    ) -> Result<Outcome, Failure> {
        let decision = match &failure {
            Failure::Balance { .. } => policy::without_balance(),
            Failure::Relink { .. } => policy::cannot_relink(),
            Failure::NotPosted { .. } => policy::not_posted(),
            Failure::Db(_)
            | Failure::Brake
            | Failure::Tried
            | Failure::TooMuch { .. }
            | Failure::NotKept { .. } => {
                return Ok(failure.refused()?);
            }
        };
        let held = Settlement { decision, detail: Some(failure.to_string()), ..settlement.clone() };
        match self.settle_whole(&[&held], rules, locking).await {
            // One for each.
            Ok(mut outcomes) => Ok(outcomes.remove(0)),
            Err(failure) if failure.trouble() == Trouble::LockTimeout => Err(failure),
            Err(failure) => Ok(failure.refused()?),
        }
    }

    /// One transaction, run again where that may help. If its commit's answer was lost, the next try begins by looking
    /// whether it happened: then it was ours, and is told as it was.
    async fn settle_whole(
        &self,
        batch: &[&Settlement],
        rules: &SettleRules,
        locking: Locking,
    ) -> Result<Vec<Outcome>, Failure> {
        let (mut doubt, mut tries) = (None, Tries::new(self.patience));
        let (mut brake_tries, mut snapshots) = (0, 0);
        loop {
            let failure = match self.settle_at_once(batch, rules, locking, &mut doubt).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failure) => failure,
            };
            if matches!(failure, Failure::NotPosted { .. }) {
                snapshots += 1;
                if snapshots >= SNAPSHOT_TRIES || !self.is_another_sessions(batch, rules, locking).await {
                    return Err(failure);
                }
                continue;
            }
            match failure.trouble() {
                // The others need not wait for it.
                Trouble::LockTimeout => return Err(failure),
                _ if matches!(failure, Failure::Brake) => {
                    brake_tries += 1;
                    if brake_tries >= BRAKE_TRIES {
                        return Ok(vec![Outcome::Changed; batch.len()]);
                    }
                }
                trouble => {
                    let pause = tries.pause(trouble).filter(|_| locking.again.allows(&failure));
                    let Some(pause) = pause else { return Err(failure) };
                    super::tell_of_another_try(&failure, trouble);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Whether a difference between what was posted and what shows is gone under one snapshot: then another session has made it
    /// by committing in between. Nothing of this try stays.
    async fn is_another_sessions(
        &self,
        batch: &[&Settlement],
        rules: &SettleRules,
        locking: Locking,
    ) -> bool {
        if !self.is_postgres() {
            // One writer: there is no other session.
            return false;
        }
        let locking = Locking { snapshot: true, ..locking };
        let tried = self.settle_at_once(batch, rules, locking, &mut None).await;
        !matches!(tried, Err(Failure::NotPosted { .. }))
    }

    /// Looks whether a commit happened whose answer was lost. In a transaction of its own that locks nothing but the orphans:
    /// once it has them, the transaction in doubt is over.
    async fn look(
        &self,
        batch: &[&Settlement],
        doubt: &mut Option<InDoubt>,
    ) -> Result<Option<Vec<Outcome>>, DbError> {
        if doubt.is_none() {
            return Ok(None);
        }
        let mut tx = self.db.begin().await?;
        self.wait_for_locks(&mut tx, AS_LONG_AS_A_STATEMENT).await?;
        let leases = lock_orphans(&mut tx, batch).await?;
        let Some(before) = doubt.take() else { return Ok(None) };
        match before.look(batch, &leases) {
            Looked::Happened(outcomes) => Ok(Some(outcomes)),
            Looked::DidNot => Ok(None),
            Looked::CannotTell => Err(DbError::InDoubt),
        }
    }

    async fn settle_at_once(
        &self,
        batch: &[&Settlement],
        rules: &SettleRules,
        locking: Locking,
        doubt: &mut Option<InDoubt>,
    ) -> Result<Vec<Outcome>, Failure> {
        if let Some(outcomes) = self.look(batch, doubt).await? {
            return Ok(outcomes);
        }
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        if locking.snapshot {
            tx.one_snapshot().await?;
        }
        let wanted = refunds_wanted(batch);
        // What is held anyway counts for no limit and needs no balance.
        let count = if rules.cannot_post.is_some() { 0 } else { wanted.count };
        let mut brake = match count {
            0 => None,
            count => Some(self.read_brake(&mut tx, &rules.brake, now, (count, wanted.credits())).await?),
        };
        let mut busy: HashSet<Locked> = HashSet::new();
        self.lock_accounts(&mut tx, batch, &mut busy, locking.skip_ours).await?;
        if let Some(brake) = brake.as_mut().filter(|_| !rules.brake.overruled) {
            self.read_accounts(&mut tx, brake, &wanted.of_accounts, now).await?;
        }
        self.wait_for_locks(&mut tx, locking.timeout).await?;
        if locking.skip {
            busy.extend(busy_charges(&mut tx, batch, &busy).await?);
        }
        let mut seen = lock_charges(&mut tx, batch, &busy).await?;
        self.wait_for_locks(&mut tx, AS_LONG_AS_A_STATEMENT).await?;
        let leases = lock_orphans(&mut tx, batch).await?;
        self.wait_for_locks(&mut tx, locking.timeout).await?;
        if brake.as_ref().is_some_and(|brake| brake.held.all.is_none()) {
            busy.extend(lock_balances(&mut tx, batch, &busy, locking.skip).await?);
        }
        let ours = self.still_ours(&mut tx, batch, &leases, &busy).await?;

        let mut written = Written::new(self, now, rules);
        written.answers(&mut tx, batch, &ours).await?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for (settlement, standing) in batch.iter().zip(ours) {
            let outcome = match standing {
                Standing::Ours => Outcome::Settled(written.add(settlement, brake.as_mut(), &mut seen)),
                Standing::Changed => Outcome::Changed,
                Standing::Lost => Outcome::Lost,
                Standing::Busy(locked) => Outcome::Busy(locked),
            };
            outcomes.push(outcome);
        }
        written.write(&mut tx).await?;
        if locking.snapshot {
            return Err(Failure::Tried);
        }
        if let Some(brake) = &brake {
            self.hold_accounts(&mut tx, brake, now).await?;
        }
        if let Some(brake) = brake.filter(Brake::was_asked)
            && !self.confirm_brake(&mut tx, &rules.brake, now, &brake).await?
        {
            return Err(Failure::Brake);
        }
        match tx.commit().await {
            Ok(()) => Ok(outcomes),
            Err(error) if error.trouble().leaves_doubt() => {
                *doubt = Some(InDoubt(outcomes));
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Locks makegood's own rows of the accounts, so that whatever else is busy after that is busy by another session than a settle.
    /// Those that another settle has locked are added to what is busy.
    async fn lock_accounts(
        &self,
        tx: &mut Tx,
        batch: &[&Settlement],
        busy: &mut HashSet<Locked>,
        skip: bool,
    ) -> Result<(), DbError> {
        let mut accounts = locked::accounts(batch);
        if !self.is_postgres() || accounts.is_empty() {
            return Ok(());
        }
        self.wait_for_locks(tx, AS_LONG_AS_A_STATEMENT).await?;
        let statement = if skip { statements::TRY_LOCK_ACCOUNTS } else { statements::LOCK_ACCOUNTS };
        for row in tx.rows(statement, &[Value::json(&accounts)]).await? {
            accounts.remove(row.text("account_id")?.as_str());
        }
        busy.extend(accounts.into_iter().map(|account| Locked::Account { account_id: account.to_owned() }));
        Ok(())
    }

    /// Makes the rows that [`Store::lock_accounts`] locks, in a transaction of their own: nobody has to wait for new ones.
    async fn add_accounts(&self, batch: &[&Settlement]) -> Result<(), DbError> {
        let accounts = locked::accounts(batch);
        if self.is_postgres() && !accounts.is_empty() {
            self.rows(statements::ADD_ACCOUNTS, &[Value::json(&accounts)]).await?;
        }
        Ok(())
    }

    /// How long the statements that follow wait for a lock.
    async fn wait_for_locks(&self, tx: &mut Tx, timeout: Duration) -> Result<(), DbError> {
        if !self.is_postgres() {
            return Ok(());
        }
        let millis = if timeout.is_zero() { 0 } else { timeout.as_millis().max(1) };
        tx.rows(statements::LOCK_TIMEOUT, &[Value::Text(millis.to_string())]).await.map(drop)
    }

    /// Proves for each settlement that its lease is ours and its facts are as they were.
    async fn still_ours(
        &self,
        tx: &mut Tx,
        batch: &[&Settlement],
        leases: &HashMap<i64, Lease>,
        busy: &HashSet<Locked>,
    ) -> Result<Vec<Standing>, DbError> {
        let again = self.cases(tx, &ids(batch)).await?;
        let again: HashMap<i64, &Case> =
            again.cases.iter().map(|case| (case.facts.orphan.id, case)).collect();
        let standing = |settlement: &&Settlement| {
            let id = settlement.case.facts.orphan.id;
            if let Some(locked) = locked::busy(settlement, busy) {
                return Standing::Busy(locked.clone());
            }
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

/// What a batch is to give back, before anything of it is held.
struct RefundsWanted<'a> {
    count: u128,
    of_accounts: BTreeMap<&'a str, u128>,
}

impl RefundsWanted<'_> {
    fn credits(&self) -> u128 {
        self.of_accounts.values().sum()
    }
}

fn refunds_wanted<'a>(batch: &[&'a Settlement]) -> RefundsWanted<'a> {
    let mut wanted = RefundsWanted { count: 0, of_accounts: BTreeMap::new() };
    for settlement in batch.iter().filter(|each| each.decision.action == Action::Refund) {
        let record = &settlement.case.facts.record;
        let credits = record.item.as_ref().map_or(0, |item| u128::try_from(item.credits).unwrap_or(0));
        wanted.count += 1;
        *wanted.of_accounts.entry(record.charge.account_id.as_str()).or_default() += credits;
    }
    wanted
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

fn ids(batch: &[&Settlement]) -> Vec<i64> {
    let mut ids: Vec<i64> = batch.iter().map(|each| each.case.facts.orphan.id).collect();
    ids.sort_unstable();
    ids
}

/// Locks the orphans; the last lease of each.
async fn lock_orphans(tx: &mut Tx, batch: &[&Settlement]) -> Result<HashMap<i64, Lease>, DbError> {
    let mut leases = HashMap::new();
    for row in tx.rows(statements::LOCK_ORPHANS, &[Value::json(&ids(batch))]).await? {
        let lease = Lease {
            token: row.int("lease_token")?,
            leased: row.maybe_time("leased_until")?.is_some(),
            resolved: row.int("resolved")? == 1,
        };
        leases.insert(row.int("id")?, lease);
    }
    Ok(leases)
}

#[derive(Clone, PartialEq, Eq)]
enum Standing {
    Ours,
    Changed,
    Lost,
    /// Left out of this transaction.
    Busy(Locked),
}

/// Holds the balances that refunds go to. A platform that gives something back by itself changes the same rows: what it has
/// begun is waited for and then seen by the last look, and what it begins later waits for the end of this transaction.
/// With `skip` nothing is waited for; returns the accounts that another session has locked.
async fn lock_balances(
    tx: &mut Tx,
    batch: &[&Settlement],
    busy: &HashSet<Locked>,
    skip: bool,
) -> Result<Vec<Locked>, DbError> {
    let mut keys: BTreeSet<(&str, Bucket)> = BTreeSet::new();
    let refunds = batch.iter().filter(|each| each.decision.action == Action::Refund);
    for settlement in refunds.filter(|each| locked::busy(each, busy).is_none()) {
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
    let values = [(&Json::Array(list)).into()];
    if !skip {
        tx.rows(statements::LOCK_BALANCES, &values).await?;
        return Ok(Vec::new());
    }
    let rows = tx.rows(statements::TRY_LOCK_BALANCES, &values).await?;
    rows.iter().map(|row| Ok(Locked::Balances { account_id: row.text("account_id")? })).collect()
}

/// Locks makegood's rows of those charges that are there, and returns the ones that another session has locked.
async fn busy_charges(
    tx: &mut Tx,
    batch: &[&Settlement],
    busy: &HashSet<Locked>,
) -> Result<Vec<Locked>, DbError> {
    let charges: BTreeSet<&str> = batch
        .iter()
        .filter(|each| locked::needs_charge(each) && locked::busy(each, busy).is_none())
        .map(|each| each.case.facts.record.charge.id.as_str())
        .collect();
    if charges.is_empty() {
        return Ok(Vec::new());
    }
    let rows = tx.rows(statements::TRY_LOCK_CHARGES, &[Value::json(&charges)]).await?;
    rows.iter().map(|row| Ok(Locked::Charge { charge_id: row.text("charge_id")? })).collect()
}

/// A charge as makegood first saw it, and what it has refunded of it.
#[derive(Clone, Debug)]
struct Seen {
    account_id: String,
    drawn: Split,
    refunded: Split,
}

impl Seen {
    /// Whether account and draw are still the same.
    fn is(&self, charge: &Charge) -> bool {
        self.account_id == charge.account_id && self.drawn == charge.drawn.at_least_zero()
    }
}

/// Locks makegood's rows of the charges, and returns each as it was first seen.
async fn lock_charges(
    tx: &mut Tx,
    batch: &[&Settlement],
    busy: &HashSet<Locked>,
) -> Result<HashMap<String, Seen>, DbError> {
    let mut rows: BTreeMap<&str, Json> = BTreeMap::new();
    // A wait or a hold gives nothing and closes nothing: it need not wait for others either.
    let moves = batch.iter().filter(|each| locked::needs_charge(each));
    for settlement in moves.filter(|each| locked::busy(each, busy).is_none()) {
        let charge = &settlement.case.facts.record.charge;
        rows.insert(
            &charge.id,
            json!({
                "charge_id": charge.id, "account_id": charge.account_id,
                "subscription_drawn": charge.drawn.at_least_zero().subscription,
                "wallet_drawn": charge.drawn.at_least_zero().wallet,
            }),
        );
    }
    let mut seen = HashMap::new();
    if rows.is_empty() {
        return Ok(seen);
    }
    let list = Json::Array(rows.into_values().collect());
    for row in tx.rows(statements::LOCK_CHARGES, &[(&list).into()]).await? {
        let of = |subscription, wallet| -> Result<Split, DbError> {
            Ok(Split { subscription: row.int(subscription)?, wallet: row.int(wallet)? })
        };
        let each = Seen {
            account_id: row.text("account_id")?,
            drawn: of("subscription_drawn", "wallet_drawn")?,
            refunded: of("subscription_refunded", "wallet_refunded")?,
        };
        seen.insert(row.text("charge_id")?, each);
    }
    Ok(seen)
}
