//! A refund that a person asks for (P23): does the table agree, does it only advise against it, or is it never owed?
//!
//! Pure, like the table. A person may know what no provider says, so a wait, a recovery and a doubt whose output it is are
//! advice that can be overruled. What was delivered or refunded, what costs nothing, and what cannot be posted are not.

use super::{Action, Decision, Limits, Reason, decide, judgeable, payable, rule};
use crate::clock::Timestamp;
use crate::evidence::Evidence;
use crate::facts::{Delivery, Facts};

/// The rule that stands with what a person decided against the table.
pub const NO_RULE: u8 = 0;

/// What the table says to a refund by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// It refunds too: its own rule and reason stand.
    Agreed(Decision),
    /// It would do something else now. Who refunds all the same does so on their own word.
    Against {
        /// What the table would do.
        table: Decision,
        /// What is carried out on a person's word.
        overruled: Decision,
    },
    /// Nothing is to be given back, whoever says so: what the table says of it.
    Never(Decision),
}

/// Whether one item may be refunded because a person says so.
pub fn refund(facts: &Facts, evidence: Option<&Evidence>, limits: &Limits, now: Timestamp) -> Say {
    let table = decide(facts, evidence, limits, now);
    let refunded = facts.record.refunded_elsewhere;
    let may_overrule = match (&table.action, table.reason) {
        (Action::Refund, _) => return Say::Agreed(table),
        (Action::Wait | Action::Recover(_), _) => true,
        // It was delivered once, whoever claims the output now.
        (Action::Hold, Reason::DuplicateJob | Reason::MissingHash) => !facts.record.was_recovered,
        // A refund that names no item may have been for another one. One that names this item is finished where it was begun.
        (Action::Hold, Reason::AlreadyRefunded) => !refunded.part && !could_be_put_back(facts),
        (Action::Hold | Action::Close | Action::Relink { .. }, _) => false,
    };
    let overruled = payable(facts, rule(NO_RULE, Action::Refund, Reason::ByHand));
    if !may_overrule || judgeable(&facts.record).is_none() {
        Say::Never(table)
    } else if overruled.action == Action::Refund {
        Say::Against { table, overruled }
    } else {
        Say::Never(overruled)
    }
}

/// What the table says to a recovery by hand: as ever, also where the platform prefers to refund.
pub fn recover(facts: &Facts, evidence: Option<&Evidence>, limits: &Limits, now: Timestamp) -> Decision {
    decide(facts, evidence, &Limits { prefer_refund: false, ..*limits }, now)
}

/// Its output is stored, and nobody else has a claim to it: it is not lost (P13).
const fn could_be_put_back(facts: &Facts) -> bool {
    matches!(facts.record.delivery, Delivery::Misplaced { claimed: false, .. })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{HOUR, LIMITS, charged_at, evidence, facts, file};
    use super::*;
    use crate::evidence::{Doubt, FailureClass, Verdict};

    fn say(change: impl FnOnce(&mut Facts), answer: &Evidence) -> Say {
        let mut facts = facts();
        change(&mut facts);
        refund(&facts, Some(answer), &LIMITS, charged_at() + HOUR / 2)
    }

    fn against(reason: Reason) -> impl Fn(&Say) -> bool {
        move |say| {
            matches!(say, Say::Against { table, overruled } if table.reason == reason
            && *overruled == rule(0, Action::Refund, Reason::ByHand))
        }
    }

    fn never(reason: Reason) -> impl Fn(&Say) -> bool {
        move |say| matches!(say, Say::Never(decision) if decision.reason == reason)
    }

    #[test]
    fn p23_what_the_table_refunds_is_refunded_by_its_rule() {
        let failed = Evidence { class: Some(FailureClass::ServerError), ..evidence(Verdict::Failed) };
        let agreed = Say::Agreed(rule(6, Action::Refund, Reason::ServerError));
        assert_eq!(say(|_| {}, &failed), agreed);
    }

    #[test]
    fn p23_a_person_may_overrule_a_wait_a_recovery_and_a_doubt_whose_it_is() {
        let running = evidence(Verdict::Running);
        assert!(against(Reason::StillRunning)(&say(|_| {}, &running)));
        let unreachable = evidence(Verdict::CouldNotTell(Doubt::Unreachable));
        assert!(against(Reason::Unreachable)(&say(|_| {}, &unreachable)));
        let offered = Evidence { outputs: vec![file(Some(0))], ..evidence(Verdict::Succeeded) };
        assert!(against(Reason::OutputAvailable)(&say(|_| {}, &offered)));
        assert!(against(Reason::DuplicateJob)(&say(|facts| facts.record.rival = true, &running)));
        let whole = |facts: &mut Facts| facts.record.refunded_elsewhere.whole_charge = true;
        assert!(against(Reason::AlreadyRefunded)(&say(whole, &running)));
    }

    #[test]
    fn p01_p10_what_was_delivered_refunded_or_cannot_be_posted_is_nobodys_to_refund() {
        let answer = evidence(Verdict::Running);
        let delivered = |facts: &mut Facts| {
            facts.record.delivery = Delivery::Delivered { output_id: "o1".to_owned() };
        };
        assert!(never(Reason::Delivered)(&say(delivered, &answer)));
        let recovered = |facts: &mut Facts| facts.record.was_recovered = true;
        assert!(never(Reason::Delivered)(&say(recovered, &answer)));
        let recovered_and_claimed = |facts: &mut Facts| {
            recovered(facts);
            facts.record.delivery = Delivery::Misplaced {
                output_id: "o1".to_owned(),
                linked_to: None,
                moved: false,
                claimed: true,
            };
        };
        assert!(never(Reason::DuplicateJob)(&say(recovered_and_claimed, &answer)));
        assert!(never(Reason::AlreadyRefunded)(&say(
            |facts| facts.record.refunded_elsewhere.item = true,
            &answer
        )));
        assert!(never(Reason::AlreadyRefunded)(&say(
            |facts| facts.record.refunded_elsewhere.part = true,
            &answer
        )));
        let put_back = |facts: &mut Facts| {
            facts.record.delivery = Delivery::Misplaced {
                output_id: "o1".to_owned(),
                linked_to: None,
                moved: false,
                claimed: false,
            };
        };
        assert!(never(Reason::Misattributed)(&say(put_back, &answer)));
        let refunded_and_put_back = |facts: &mut Facts| {
            put_back(facts);
            facts.record.refunded_elsewhere.whole_charge = true;
        };
        assert!(never(Reason::AlreadyRefunded)(&say(refunded_and_put_back, &answer)));
        assert!(never(Reason::NoBalance)(&say(|facts| facts.record.balance_rows.wallet = 0, &answer)));
        assert!(never(Reason::ItemsMismatch)(&say(|facts| facts.record.items.credits = 11, &answer)));
        let refunded_and_odd = |facts: &mut Facts| {
            facts.record.items.credits = 11;
            facts.record.refunded_elsewhere.whole_charge = true;
        };
        assert!(never(Reason::AlreadyRefunded)(&say(refunded_and_odd, &answer)));
        let gone_and_cancelled = Evidence { outputs_gone: true, ..evidence(Verdict::Succeeded) };
        let cancelled = |facts: &mut Facts| facts.record.charge.cancelled_at = Some(charged_at());
        assert!(never(Reason::CompletedAfterCancel)(&say(cancelled, &gone_and_cancelled)));
    }

    #[test]
    fn p12_what_cost_nothing_gives_nothing_back() {
        let free = |facts: &mut Facts| {
            facts.record.item.iter_mut().for_each(|item| item.credits = 0);
            facts.record.items.credits = 0;
            facts.record.charge.drawn.wallet = 0;
        };
        let said = say(free, &evidence(Verdict::Running));
        assert!(matches!(&said, Say::Never(decision) if decision.action == Action::Close), "{said:?}");
    }

    #[test]
    fn p16_by_hand_the_file_is_brought_home_also_where_the_platform_prefers_to_refund() {
        let offered = Evidence { outputs: vec![file(Some(0))], ..evidence(Verdict::Succeeded) };
        let limits = Limits { prefer_refund: true, ..LIMITS };
        let now = charged_at() + HOUR;
        assert_eq!(decide(&facts(), Some(&offered), &limits, now).action, Action::Refund);
        assert!(matches!(recover(&facts(), Some(&offered), &limits, now).action, Action::Recover(_)));
    }
}
