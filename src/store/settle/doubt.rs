//! A commit whose answer was lost: did it happen?
//!
//! What it would have done is kept, and compared with the orphans once the next try has locked them: by then the old
//! transaction is over, whichever way, since it held the same locks. Without this a settlement of our own would look like
//! somebody else's, and the file it names would be thrown away as one that nobody wants.

use std::collections::HashMap;

use super::{Lease, Outcome, Settlement};
use crate::policy::{Action, Decision};

/// What the transaction would have done.
#[derive(Debug)]
pub(super) struct InDoubt(pub(super) Vec<Outcome>);

/// What was found out.
#[derive(Debug)]
pub(super) enum Looked {
    /// It happened, as it was decided.
    Happened(Vec<Outcome>),
    /// It did not, or it matters to nobody.
    DidNot,
    /// The orphan has been through other hands since.
    CannotTell,
}

/// Whether the decision ends the case, so that a settled orphan shows it.
const fn ends(decision: &Decision) -> bool {
    match decision.action {
        Action::Refund | Action::Recover(_) | Action::Relink { .. } | Action::Close => true,
        Action::Wait | Action::Hold => false,
    }
}

impl InDoubt {
    /// Compares with the leases of the orphans, which are locked. The transaction was all or nothing, so one row tells.
    pub(super) fn look(self, batch: &[Settlement], leases: &HashMap<i64, Lease>) -> Looked {
        let mut waits_happened = false;
        for (settlement, outcome) in batch.iter().zip(&self.0) {
            let Outcome::Settled(decision) = outcome else { continue };
            let lease = leases.get(&settlement.case.facts.orphan.id);
            let ours = lease.filter(|lease| lease.token == settlement.case.token);
            match (ours, ends(decision)) {
                (Some(lease), true) if lease.resolved => return Looked::Happened(self.0),
                (Some(_), true) => return Looked::DidNot,
                (None, true) => return Looked::CannotTell,
                // Told to wait, it may have been claimed again since: then nothing is known by it.
                (ours, false) => waits_happened |= ours.is_some_and(|lease| !lease.alive()),
            }
        }
        if waits_happened { Looked::Happened(self.0) } else { Looked::DidNot }
    }
}
