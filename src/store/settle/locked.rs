//! A lock of another session delays only its own case.
//!
//! A platform's transaction may hold a row of `balances`, or makegood's row of a charge (`makegood_store_output`), for as long
//! as it likes. So a batch is settled in these steps:
//!
//! 1. Everything whose rows are free, in one transaction that leaves out busy accounts, charges and balances.
//! 2. What another settle has locked (`makegood_accounts`), in one transaction that waits for it.
//! 3. Each busy account or charge in a transaction of its own, which waits for `database.lock_timeout`. What is still busy
//!    then is postponed ([`Outcome::Busy`]), and not waited for again in this pass ([`Stuck`]).
//! 4. A lock that cannot be seen beforehand (an uncommitted row, a trigger's own lock, balances that are a view) ends the
//!    transaction with SQLSTATE 55P03. The batch is halved until the case is found; its part of the batch waits only an
//!    eighth of the timeout for each lock then.
//!
//! All waiting of one settle is bounded by [`WAITS`], however many rows are locked. What is left then is postponed.
//!
//! A platform's trigger may answer for one row as if it had lost a race, or run into the statement
//! timeout, at every try. Such a row is settled alone like any other that is refused, and
//! [`WORN_OUT`] bounds what all of them cost.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Again, Failure, Locking, Outcome, SettleRules, Settlement};
use crate::policy::Action;
use crate::store::Store;
use crate::store::db::{DbError, Trouble};

/// Lock timeouts that one settle may wait in all.
const WAITS: u32 = 8;
/// While a batch is halved, a lock is waited for the timeout divided by this.
const HALVING: u32 = 8;

/// After so many settlements that failed alone, for a reason that passes by itself and that a
/// trigger gave, none is tried again in this settle; after so many that ran into the statement
/// timeout, none is tried alone at all.
const WORN_OUT: u32 = 4;

/// How long a lock is waited for once there is no more time to wait.
const AT_ONCE: Duration = Duration::from_millis(1);

/// What another session has locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Locked {
    /// Another settle of makegood's is at work on the account. It is waited for, so that this is nobody's outcome.
    Account {
        /// The account.
        account_id: String,
    },
    /// A balance of the account, or what the platform does when it changes.
    Balances {
        /// The account.
        account_id: String,
    },
    /// makegood's row of the charge, or another row that its case needs.
    Charge {
        /// The charge.
        charge_id: String,
    },
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { account_id } | Self::Balances { account_id } => write!(f, "account {account_id}"),
            Self::Charge { charge_id } => write!(f, "charge {charge_id}"),
        }
    }
}

impl Locked {
    /// What a person should know and do.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Account { .. } => "another settle is at work on it",
            Self::Balances { .. } => {
                "a row of balances is locked by another session for longer than database.lock_timeout; its refunds are tried \
                 again within two minutes: look for the session in pg_stat_activity and end its transaction"
            }
            Self::Charge { .. } => {
                "its row of makegood_charges, or of stored_outputs, is locked by another session for longer than \
                 database.lock_timeout; it is tried again within two minutes: look for the session in pg_stat_activity and \
                 end its transaction"
            }
        }
    }
}

/// What a pass has waited for in vain: its lanes do not wait for it again.
#[derive(Clone, Debug, Default)]
pub struct Stuck(Arc<Mutex<HashSet<Locked>>>);

impl Stuck {
    fn add(&self, locked: Locked) {
        // Poisoned by a panic in between, the set is still a set.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(locked);
    }

    fn holds(&self, settlement: &Settlement) -> Option<Locked> {
        busy(settlement, &self.0.lock().unwrap_or_else(PoisonError::into_inner)).cloned()
    }
}

/// Whether it makes something good or closes something, and so needs makegood's row of the charge.
pub(super) const fn needs_charge(settlement: &Settlement) -> bool {
    match settlement.decision.action {
        Action::Refund | Action::Recover(_) | Action::Relink { .. } | Action::Close => true,
        Action::Wait | Action::Hold => false,
    }
}

/// Which of the locked rows it needs, if any.
pub(super) fn busy<'a>(settlement: &Settlement, locked: &'a HashSet<Locked>) -> Option<&'a Locked> {
    if locked.is_empty() || !needs_charge(settlement) {
        return None;
    }
    let charge = &settlement.case.facts.record.charge;
    let account_id = || charge.account_id.clone();
    let refund = settlement.decision.action == Action::Refund;
    let balances = || refund.then(|| locked.get(&Locked::Balances { account_id: account_id() })).flatten();
    locked
        .get(&Locked::Account { account_id: account_id() })
        .or_else(|| locked.get(&Locked::Charge { charge_id: charge.id.clone() }))
        .or_else(balances)
}

/// The accounts of what makes something good or closes something.
pub(super) fn accounts<'a>(batch: &[&'a Settlement]) -> BTreeSet<&'a str> {
    let moving = batch.iter().filter(|each| needs_charge(each));
    moving.map(|each| each.case.facts.record.charge.account_id.as_str()).collect()
}

/// What is locked, as far as the statement that has waited for it tells.
fn locked_of(settlement: &Settlement, failure: &Failure) -> Locked {
    let charge = &settlement.case.facts.record.charge;
    let statement = match failure {
        Failure::Db(DbError::Statement { statement, .. }) => *statement,
        _ => "",
    };
    let money = ["lock_balances", "try_lock_balances", "post_refunds"];
    if settlement.decision.action == Action::Refund && money.contains(&statement) {
        Locked::Balances { account_id: charge.account_id.clone() }
    } else {
        Locked::Charge { charge_id: charge.id.clone() }
    }
}

/// Settlements that are tried in one transaction, by their place in the batch.
struct Piece {
    of: Vec<usize>,
    /// How long any one lock is waited for.
    timeout: Duration,
    /// It failed before together with others, or for the first time by itself.
    alone: bool,
    /// Other settles are waited for; otherwise what they have locked is left out.
    waits_for_ours: bool,
    /// This is waited for; otherwise what is busy is left out.
    waits_for: Option<Locked>,
}

struct Settling<'a> {
    store: &'a Store,
    batch: &'a [Settlement],
    rules: &'a SettleRules,
    outcomes: Vec<Option<Outcome>>,
    /// What was left out because another settle is at work on its account.
    ours: Vec<usize>,
    /// What else was left out, by what it needs.
    busy: BTreeMap<Locked, Vec<usize>>,
    /// What waiting for locks has cost at most.
    waited: Duration,
    /// Settlements that failed alone because a trigger said that they lost a race, or another thing
    /// that passes by itself.
    worn: u32,
    /// Settlements that ran into the statement timeout alone, in a trigger.
    slow: u32,
}

/// Settles a batch; one outcome for each, in order.
pub(super) async fn settle(
    store: &Store,
    batch: &[Settlement],
    rules: &SettleRules,
) -> Result<Vec<Outcome>, DbError> {
    let mut settling = Settling {
        store,
        batch,
        rules,
        outcomes: vec![None; batch.len()],
        ours: Vec::new(),
        busy: BTreeMap::new(),
        waited: Duration::ZERO,
        worn: 0,
        slow: 0,
    };
    store.add_accounts(&batch.iter().collect::<Vec<_>>()).await?;
    let mut pieces = vec![settling.piece((0..batch.len()).collect())];
    loop {
        while let Some(piece) = pieces.pop() {
            pieces.extend(settling.try_piece(piece).await?);
        }
        if !settling.ours.is_empty() {
            let ours = std::mem::take(&mut settling.ours);
            pieces.push(Piece { waits_for_ours: true, ..settling.piece(ours) });
            continue;
        }
        let Some((locked, group)) = settling.busy.pop_first() else { break };
        if settling.may_not_wait() {
            settling.postpone(&group, &locked);
            continue;
        }
        // The others may have become free by the time that this one has been waited for.
        let rest: Vec<usize> = std::mem::take(&mut settling.busy).into_values().flatten().collect();
        if !rest.is_empty() {
            pieces.push(settling.piece(rest));
        }
        settling.waited += store.lock_timeout;
        pieces.push(Piece { waits_for: Some(locked), ..settling.piece(group) });
    }
    // Every piece gives each of its settlements an outcome, or hands it on.
    let told = settling.outcomes.into_iter().zip(batch);
    Ok(told.map(|(outcome, each)| outcome.unwrap_or_else(|| not_tried(each))).collect())
}

fn not_tried(settlement: &Settlement) -> Outcome {
    Outcome::Busy(Locked::Charge { charge_id: settlement.case.facts.record.charge.id.clone() })
}

impl Settling<'_> {
    fn piece(&self, of: Vec<usize>) -> Piece {
        Piece { of, timeout: self.store.lock_timeout, alone: false, waits_for_ours: false, waits_for: None }
    }

    fn may_not_wait(&self) -> bool {
        self.waited >= self.store.lock_timeout * WAITS
    }

    fn postpone(&mut self, of: &[usize], locked: &Locked) {
        for nth in of {
            self.outcomes[*nth] = Some(Outcome::Busy(locked.clone()));
        }
    }

    /// Tries a piece. Returns what it falls into, last first.
    async fn try_piece(&mut self, mut piece: Piece) -> Result<Vec<Piece>, DbError> {
        let (batch, stuck) = (self.batch, &self.rules.stuck);
        let outcomes = &mut self.outcomes;
        piece.of.retain(|nth| match stuck.holds(&batch[*nth]) {
            None => true,
            Some(locked) => {
                outcomes[*nth] = Some(Outcome::Busy(locked));
                false
            }
        });
        if piece.of.is_empty() {
            return Ok(Vec::new());
        }
        if piece.alone && self.slow >= WORN_OUT {
            for nth in piece.of {
                self.outcomes[nth] = Some(not_tried(&batch[nth]));
            }
            return Ok(Vec::new());
        }
        let timeout = if self.may_not_wait() && piece.waits_for.is_none() { AT_ONCE } else { piece.timeout };
        let skip = piece.waits_for.is_none();
        let again = match (piece.alone, self.worn) {
            (false, _) => Again::AsEver,
            (true, ..WORN_OUT) => Again::NotAfterTimeouts,
            (true, _) => Again::Never,
        };
        let skip_ours = skip && !piece.waits_for_ours;
        let locking = Locking { skip_ours, skip, timeout, snapshot: false, again };
        let settlements: Vec<&Settlement> = piece.of.iter().map(|nth| &batch[*nth]).collect();
        let mut tried = self.store.settle_whole(&settlements, self.rules, locking).await;
        if let ([one], true, Err(failure)) = (settlements.as_slice(), piece.alone, &tried)
            && failure.trouble() != Trouble::LockTimeout
            && !failure.is_of_the_database()
            && let Err(failure) = tried
        {
            self.worn += u32::from(matches!(failure.trouble(), Trouble::Race | Trouble::Raised));
            self.slow += u32::from(failure.trouble() == Trouble::TimedOut);
            tried = self.store.failed_alone(one, self.rules, locking, failure).await.map(|told| vec![told]);
        }
        match tried {
            Ok(told) => {
                for (nth, outcome) in piece.of.iter().zip(told) {
                    match outcome {
                        Outcome::Busy(Locked::Account { .. }) => self.ours.push(*nth),
                        Outcome::Busy(locked) => self.busy.entry(locked).or_default().push(*nth),
                        outcome => self.outcomes[*nth] = Some(outcome),
                    }
                }
                Ok(Vec::new())
            }
            Err(failure) if failure.trouble() == Trouble::LockTimeout => Ok(self.timed_out(piece, &failure)),
            Err(Failure::Db(error))
                if piece.alone || !error.is_about_a_row() && !error.may_be_about_a_row() =>
            {
                Err(error)
            }
            Err(failure) => {
                tracing::debug!(error = &failure as &dyn std::error::Error, "settling one by one");
                // It waits for other settles: the transaction that failed may still hold its locks,
                // and what was left out for these would not be alone any more.
                let one = |nth: &usize| Piece { alone: true, waits_for_ours: true, ..self.piece(vec![*nth]) };
                Ok(piece.of.iter().rev().map(one).collect())
            }
        }
    }

    /// A lock was waited for in vain that could not be seen beforehand, or is no longer to be waited for.
    fn timed_out(&mut self, mut piece: Piece, failure: &Failure) -> Vec<Piece> {
        tracing::debug!(error = failure as &dyn std::error::Error, "another session holds a lock");
        if let Some(locked) = piece.waits_for {
            self.rules.stuck.add(locked.clone());
            self.postpone(&piece.of, &locked);
            return Vec::new();
        }
        self.waited += piece.timeout;
        if let [one] = piece.of[..] {
            let locked = locked_of(&self.batch[one], failure);
            if self.may_not_wait() {
                self.postpone(&piece.of, &locked);
                return Vec::new();
            }
            self.waited += self.store.lock_timeout;
            return vec![Piece { waits_for: Some(locked), ..self.piece(piece.of) }];
        }
        if self.may_not_wait() {
            for nth in piece.of {
                self.outcomes[nth] = Some(not_tried(&self.batch[nth]));
            }
            return Vec::new();
        }
        // By account and charge, so that what needs one row stays together.
        let batch = self.batch;
        piece.of.sort_by_key(|nth| {
            let item = &batch[*nth].case.facts.orphan.item;
            (&batch[*nth].case.facts.record.charge.account_id, &item.charge_id, item.output_index)
        });
        let rest = piece.of.split_off(piece.of.len().div_ceil(2));
        let timeout = self.store.lock_timeout / HALVING;
        [rest, piece.of].map(|of| Piece { timeout, ..self.piece(of) }).into()
    }
}
