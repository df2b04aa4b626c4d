//! Refunds and recoveries that a person orders. P23 (support can restore credits by hand).
//!
//! Pure, like the table. A person may know more than the provider says, so they can override a
//! wait, a recovery, and a hold over whose output it is. They cannot override a delivery, a refund
//! that was already given, an item without a price, or a refund that cannot be posted.

use super::{Action, Decision, PolicyOptions, Reason, consistent_item, decide, payable, rule};
use crate::clock::Timestamp;
use crate::evidence::Evidence;
use crate::facts::{Delivery, Facts};

/// The rule number of a refund that a person ordered against the table.
pub const NO_RULE: u8 = 0;

/// The table's answer to a refund that a person orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManualRefund {
    /// The table refunds too, with its own rule and reason.
    Agreed(Decision),
    /// The table would do something else. The person may override it.
    Against {
        /// The table's decision.
        table: Decision,
        /// The decision if the person overrides the table.
        by_person: Decision,
    },
    /// Nothing can be refunded, whoever orders it: the table's decision, or why it cannot be
    /// posted.
    Never(Decision),
}

/// Decides whether one item may be refunded because a person orders it.
pub fn refund(
    facts: &Facts,
    evidence: Option<&Evidence>,
    options: &PolicyOptions,
    now: Timestamp,
) -> ManualRefund {
    let table = decide(facts, evidence, options, now);
    let refunded = facts.record.refunded_elsewhere;
    let may_override = match (&table.action, table.reason) {
        (Action::Refund, _) => return ManualRefund::Agreed(table),
        (Action::Wait | Action::Recover(_), _) => true,
        // A recovered item was delivered once, whoever claims the output now.
        (Action::Hold, Reason::DuplicateJob | Reason::MissingHash) => !facts.record.was_recovered,
        // The platform's refund names no item, so it may have been for another one. A partial
        // refund names this item; the platform has to complete it.
        (Action::Hold, Reason::AlreadyRefunded) => !refunded.part && !can_be_relinked(facts),
        (Action::Hold | Action::Close | Action::Relink { .. }, _) => false,
    };
    let by_person = payable(facts, rule(NO_RULE, Action::Refund, Reason::ByHand));
    if !may_override || consistent_item(&facts.record).is_none() {
        ManualRefund::Never(table)
    } else if by_person.action == Action::Refund {
        ManualRefund::Against { table, by_person }
    } else {
        ManualRefund::Never(by_person)
    }
}

/// Decides on a recovery that a person orders: as the table does, but `prefer = "refund"` is
/// ignored.
pub fn recover(
    facts: &Facts,
    evidence: Option<&Evidence>,
    options: &PolicyOptions,
    now: Timestamp,
) -> Decision {
    decide(facts, evidence, &PolicyOptions { prefer_refund: false, ..*options }, now)
}

/// Whether the output is stored and no other item has a claim to it. P13 (a misplaced output is put
/// back, not refunded).
const fn can_be_relinked(facts: &Facts) -> bool {
    matches!(facts.record.delivery, Delivery::Misplaced { claimed: false, .. })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{HOUR, OPTIONS, charged_at, evidence, facts, file};
    use super::*;
    use crate::evidence::{Doubt, FailureClass, Verdict};

    fn refund_of(change: impl FnOnce(&mut Facts), answer: &Evidence) -> ManualRefund {
        let mut facts = facts();
        change(&mut facts);
        refund(&facts, Some(answer), &OPTIONS, charged_at() + HOUR / 2)
    }

    fn against(reason: Reason) -> impl Fn(&ManualRefund) -> bool {
        move |refund| {
            matches!(refund, ManualRefund::Against { table, by_person } if table.reason == reason
            && *by_person == rule(0, Action::Refund, Reason::ByHand))
        }
    }

    fn never(reason: Reason) -> impl Fn(&ManualRefund) -> bool {
        move |refund| matches!(refund, ManualRefund::Never(decision) if decision.reason == reason)
    }

    #[test]
    fn p23_a_manual_refund_that_the_table_agrees_with_keeps_its_rule() {
        let failed = Evidence { class: Some(FailureClass::ServerError), ..evidence(Verdict::Failed) };
        let agreed = ManualRefund::Agreed(rule(6, Action::Refund, Reason::ServerError));
        assert_eq!(refund_of(|_| {}, &failed), agreed);
    }

    #[test]
    fn p23_a_person_may_override_a_wait_a_recovery_and_a_disputed_output() {
        let running = evidence(Verdict::Running);
        assert!(against(Reason::StillRunning)(&refund_of(|_| {}, &running)));
        let unreachable = evidence(Verdict::CouldNotTell(Doubt::Unreachable));
        assert!(against(Reason::Unreachable)(&refund_of(|_| {}, &unreachable)));
        let offered = Evidence { outputs: vec![file(Some(0))], ..evidence(Verdict::Succeeded) };
        assert!(against(Reason::OutputAvailable)(&refund_of(|_| {}, &offered)));
        assert!(against(Reason::DuplicateJob)(&refund_of(|facts| facts.record.rival = true, &running)));
        let whole = |facts: &mut Facts| facts.record.refunded_elsewhere.whole_charge = true;
        assert!(against(Reason::AlreadyRefunded)(&refund_of(whole, &running)));
    }

    #[test]
    fn p01_p10_a_person_cannot_refund_what_was_delivered_refunded_or_cannot_be_posted() {
        let answer = evidence(Verdict::Running);
        let delivered = |facts: &mut Facts| {
            facts.record.delivery = Delivery::Delivered { output_id: "o1".to_owned() };
        };
        assert!(never(Reason::Delivered)(&refund_of(delivered, &answer)));
        let recovered = |facts: &mut Facts| facts.record.was_recovered = true;
        assert!(never(Reason::Delivered)(&refund_of(recovered, &answer)));
        let recovered_and_claimed = |facts: &mut Facts| {
            recovered(facts);
            facts.record.delivery = Delivery::Misplaced {
                output_id: "o1".to_owned(),
                linked_to: None,
                moved: false,
                claimed: true,
            };
        };
        assert!(never(Reason::DuplicateJob)(&refund_of(recovered_and_claimed, &answer)));
        assert!(never(Reason::AlreadyRefunded)(&refund_of(
            |facts| facts.record.refunded_elsewhere.item = true,
            &answer
        )));
        assert!(never(Reason::AlreadyRefunded)(&refund_of(
            |facts| facts.record.refunded_elsewhere.part = true,
            &answer
        )));
        let relinkable = |facts: &mut Facts| {
            facts.record.delivery = Delivery::Misplaced {
                output_id: "o1".to_owned(),
                linked_to: None,
                moved: false,
                claimed: false,
            };
        };
        assert!(never(Reason::Misattributed)(&refund_of(relinkable, &answer)));
        let refunded_and_relinkable = |facts: &mut Facts| {
            relinkable(facts);
            facts.record.refunded_elsewhere.whole_charge = true;
        };
        assert!(never(Reason::AlreadyRefunded)(&refund_of(refunded_and_relinkable, &answer)));
        assert!(never(Reason::NoBalance)(&refund_of(|facts| facts.record.balance_rows.wallet = 0, &answer)));
        assert!(never(Reason::ItemsMismatch)(&refund_of(|facts| facts.record.items.credits = 11, &answer)));
        let refunded_and_inconsistent = |facts: &mut Facts| {
            facts.record.items.credits = 11;
            facts.record.refunded_elsewhere.whole_charge = true;
        };
        assert!(never(Reason::AlreadyRefunded)(&refund_of(refunded_and_inconsistent, &answer)));
        let gone_and_cancelled = Evidence { outputs_gone: true, ..evidence(Verdict::Succeeded) };
        let cancelled = |facts: &mut Facts| facts.record.charge.cancelled_at = Some(charged_at());
        assert!(never(Reason::CompletedAfterCancel)(&refund_of(cancelled, &gone_and_cancelled)));
    }

    #[test]
    fn p12_an_item_without_a_price_is_closed() {
        let without_price = |facts: &mut Facts| {
            facts.record.item.iter_mut().for_each(|item| item.credits = 0);
            facts.record.items.credits = 0;
            facts.record.charge.drawn.wallet = 0;
        };
        let refund = refund_of(without_price, &evidence(Verdict::Running));
        assert!(
            matches!(&refund, ManualRefund::Never(decision) if decision.action == Action::Close),
            "{refund:?}"
        );
    }

    #[test]
    fn p16_a_manual_recovery_ignores_prefer_refund() {
        let offered = Evidence { outputs: vec![file(Some(0))], ..evidence(Verdict::Succeeded) };
        let options = PolicyOptions { prefer_refund: true, ..OPTIONS };
        let now = charged_at() + HOUR;
        assert_eq!(decide(&facts(), Some(&offered), &options, now).action, Action::Refund);
        assert!(matches!(recover(&facts(), Some(&offered), &options, now).action, Action::Recover(_)));
    }
}
