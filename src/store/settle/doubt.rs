//! A commit whose answer was lost: did it happen?
//!
//! What it would have done is kept, and compared with the orphans before the next try, in a transaction of its own that locks
//! them: by then the old transaction is over, whichever way, since it held the same locks. Without this a settlement of our own
//! would look like somebody else's, and the file it names would be thrown away as one that nobody wants.

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
    pub(super) fn look(self, batch: &[&Settlement], leases: &HashMap<i64, Lease>) -> Looked {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::samples::{charged_at, facts};
    use crate::policy::{Action, Reason};
    use crate::store::Case;

    const OURS: i64 = 3;
    const REFUND: Decision = Decision { action: Action::Refund, reason: Reason::ProviderError, rule: 6 };
    const WAIT: Decision = Decision { action: Action::Wait, reason: Reason::StillRunning, rule: 12 };
    const HOLD: Decision = Decision { action: Action::Hold, reason: Reason::Brake, rule: 16 };
    const CLOSE: Decision = Decision { action: Action::Close, reason: Reason::Delivered, rule: 1 };

    /// An orphan as the next try finds it.
    const fn found(token: i64, leased: bool, resolved: bool) -> Lease {
        Lease { token, leased, resolved }
    }
    const SETTLED: Option<Lease> = Some(found(OURS, false, true));
    const UNTOUCHED: Option<Lease> = Some(found(OURS, true, false));
    const PUT_OFF: Option<Lease> = Some(found(OURS, false, false));
    const ANOTHERS: Option<Lease> = Some(found(OURS + 1, true, false));

    /// What is found out from what each settlement of a transaction would have become and its orphan as it is now.
    fn told(transaction: &[(Outcome, Option<Lease>)]) -> &'static str {
        let (mut batch, mut leases) = (Vec::new(), HashMap::new());
        for (id, (outcome, lease)) in (1..).zip(transaction) {
            let mut facts = facts();
            facts.orphan.id = id;
            let decision = if let Outcome::Settled(decision) = outcome { decision.clone() } else { REFUND };
            batch.push(Settlement {
                case: Case { facts, token: OURS },
                decision,
                evidence: None,
                copied: None,
                look_again: charged_at(),
                detail: None,
            });
            leases.extend(lease.map(|lease| (id, lease)));
        }
        let outcomes: Vec<Outcome> = transaction.iter().map(|(outcome, _)| outcome.clone()).collect();
        let batch: Vec<&Settlement> = batch.iter().collect();
        match InDoubt(outcomes.clone()).look(&batch, &leases) {
            Looked::Happened(same) => {
                assert_eq!(same, outcomes, "told as it was");
                "happened"
            }
            Looked::DidNot => "did not",
            Looked::CannotTell => "cannot tell",
        }
    }

    #[test]
    fn p01_what_ends_a_case_shows_by_its_orphan_whether_it_happened() {
        for decision in [REFUND, CLOSE] {
            let one = |lease| told(&[(Outcome::Settled(decision.clone()), lease)]);
            assert_eq!(one(SETTLED), "happened");
            assert_eq!(one(UNTOUCHED), "did not");
            assert_eq!(one(PUT_OFF), "did not", "given back by the sweep of dead leases, and not resolved");
            assert_eq!(one(ANOTHERS), "cannot tell");
            assert_eq!(one(Some(found(OURS + 1, false, true))), "cannot tell", "resolved, but by whom?");
            assert_eq!(one(None), "cannot tell");
        }
    }

    #[test]
    fn p01_what_puts_a_case_off_shows_by_the_lease_that_ended() {
        for decision in [WAIT, HOLD] {
            let one = |lease| told(&[(Outcome::Settled(decision.clone()), lease)]);
            assert_eq!(one(PUT_OFF), "happened");
            assert_eq!(one(SETTLED), "happened");
            assert_eq!(one(UNTOUCHED), "did not");
            assert_eq!(one(ANOTHERS), "did not", "claimed again, which tells nothing and matters to nobody");
        }
    }

    #[test]
    fn p01_one_row_that_tells_is_enough_for_all() {
        let wait = |lease| (Outcome::Settled(WAIT), lease);
        let refund = |lease| (Outcome::Settled(REFUND), lease);
        assert_eq!(told(&[wait(ANOTHERS), wait(PUT_OFF)]), "happened");
        assert_eq!(told(&[wait(PUT_OFF), wait(ANOTHERS)]), "happened");
        assert_eq!(told(&[wait(PUT_OFF), wait(PUT_OFF)]), "happened");
        assert_eq!(told(&[wait(ANOTHERS), refund(SETTLED)]), "happened");
        // The lease of the first ran out while the answer was waited for; that of the second did not.
        assert_eq!(told(&[wait(PUT_OFF), refund(UNTOUCHED)]), "did not");
    }

    #[test]
    fn what_was_not_to_be_settled_tells_nothing() {
        let nothing = [(Outcome::Changed, SETTLED), (Outcome::Lost, PUT_OFF)];
        assert_eq!(told(&nothing), "did not");
        let and_one = [nothing.as_slice(), &[(Outcome::Settled(REFUND), SETTLED)]].concat();
        assert_eq!(told(&and_one), "happened");
    }
}
