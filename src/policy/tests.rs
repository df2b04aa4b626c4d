//! Tests of what the table does not show: which item gets which file, how decisions change over
//! time, and how long waits are. The tests here are examples; `properties`, `sharing` and `refunds`
//! test generated cases.

use std::time::Duration;

use super::samples::{
    HOUR, OPTIONS, asked_enough, charged_at, copy_failed, decided, evidence, facts, failed, file, offering,
    spelled,
};
use super::{Action, Pick, PolicyOptions, Reason, WaitBounds, decide, next_check_at};
use crate::charge::WHOLE_CHARGE;
use crate::evidence::{Doubt, Evidence, FailureClass, Offer, Source, Verdict};
use crate::facts::{Delivery, Facts};

pub(super) mod any;
mod properties;
pub(super) mod reach;
mod refunds;
mod sharing;
mod unasked;
mod unhashed;

fn unnamed_failure(class: FailureClass) -> Offer {
    Offer { index: None, source: Source::Failed { class, message: None }, expires_at: None }
}

/// Item `rank` of a job with `items` items. `open_rank` items before it still wait, and `stored`
/// files of the job are stored.
fn sharing(items: usize, rank: usize, open_rank: usize, stored: usize) -> Facts {
    let mut facts = facts();
    facts.share.items = items;
    facts.share.rank = rank;
    facts.share.open_rank = open_rank;
    facts.share.stored = (0..stored).map(|nth| format!("hash{nth}")).collect();
    let job = facts.record.item.as_mut().and_then(|item| item.job.as_mut());
    job.unwrap().output_index = i64::try_from(rank).unwrap();
    facts
}

fn picked(facts: &Facts, evidence: &Evidence) -> Option<Pick> {
    match decided(facts, evidence, 1).action {
        Action::Recover(pick) => Some(pick),
        Action::Refund | Action::Relink { .. } | Action::Wait | Action::Close | Action::Hold => None,
    }
}

#[test]
fn p05_a_file_with_an_index_goes_to_that_item_in_any_order() {
    let answer = offering(Verdict::Succeeded, vec![file(Some(2)), file(Some(0))]);
    assert_eq!(picked(&sharing(3, 0, 0, 0), &answer), Some(Pick::Offer(1)));
    assert_eq!(picked(&sharing(3, 2, 2, 0), &answer), Some(Pick::Offer(0)));
    assert_eq!(spelled(&decided(&sharing(3, 1, 1, 0), &answer, 1)), "refund missing_output");
}

#[test]
fn p05_an_item_that_failed_alone_is_refunded_while_the_others_are_recovered() {
    let mut blocked = unnamed_failure(FailureClass::ContentSafety);
    blocked.index = Some(1);
    let answer = offering(Verdict::Succeeded, vec![file(Some(0)), blocked]);
    assert_eq!(picked(&sharing(2, 0, 0, 0), &answer), Some(Pick::Offer(0)));
    assert_eq!(spelled(&decided(&sharing(2, 1, 1, 0), &answer, 1)), "refund content_safety");
}

#[test]
fn p06_two_files_without_an_index_go_to_three_items_in_order_and_the_third_is_missing() {
    let answer = offering(Verdict::Succeeded, vec![file(None), file(None)]);
    assert_eq!(picked(&sharing(3, 0, 0, 0), &answer), Some(Pick::Unclaimed(0)));
    assert_eq!(picked(&sharing(3, 1, 1, 0), &answer), Some(Pick::Unclaimed(1)));
    assert_eq!(spelled(&decided(&sharing(3, 2, 2, 0), &answer, 1)), "refund missing_output");
}

#[test]
fn p06_a_file_that_is_stored_already_is_skipped() {
    // One of three items is stored. One of the two offered files is left for the first waiting
    // item.
    let answer = offering(Verdict::Succeeded, vec![file(None), file(None)]);
    assert_eq!(picked(&sharing(3, 1, 0, 1), &answer), Some(Pick::Unclaimed(0)));
    assert_eq!(spelled(&decided(&sharing(3, 2, 1, 1), &answer, 1)), "refund missing_output");
}

#[test]
fn failures_without_an_index_give_the_reason_for_the_missing_outputs() {
    let answer = offering(Verdict::Succeeded, vec![file(None), unnamed_failure(FailureClass::ContentSafety)]);
    assert_eq!(picked(&sharing(2, 0, 0, 0), &answer), Some(Pick::Unclaimed(0)));
    assert_eq!(spelled(&decided(&sharing(2, 1, 1, 0), &answer, 1)), "refund content_safety");
}

#[test]
fn files_without_an_index_go_by_rank_if_there_are_at_least_as_many_as_items() {
    let answer = offering(Verdict::Succeeded, vec![file(None), file(None), file(None)]);
    assert_eq!(picked(&sharing(2, 1, 0, 1), &answer), Some(Pick::Offer(1)));
}

#[test]
fn a_running_job_may_still_add_files() {
    let answer = offering(Verdict::Running, vec![file(None)]);
    assert_eq!(spelled(&decided(&sharing(2, 0, 0, 0), &answer, 1)), "wait still_running");
}

#[test]
fn p09_p16_a_file_that_a_failed_or_cancelled_job_offers_is_recovered() {
    for verdict in [Verdict::Failed, Verdict::Cancelled] {
        assert_eq!(picked(&facts(), &offering(verdict, vec![file(Some(0))])), Some(Pick::Offer(0)));
    }
}

#[test]
fn p16_prefer_refund_turns_a_recovery_into_a_refund() {
    let options = PolicyOptions { prefer_refund: true, ..OPTIONS };
    let answer = offering(Verdict::Succeeded, vec![file(Some(0))]);
    let decision = decide(&facts(), Some(&answer), &options, charged_at() + HOUR);
    assert_eq!(spelled(&decision), "refund output_available");
}

#[test]
fn p12_an_item_without_a_price_is_closed_instead_of_refunded() {
    let mut free = facts();
    free.record.item.as_mut().unwrap().credits = 0;
    free.record.items.credits = 0;
    free.record.charge.drawn.wallet = 0;
    let decision = decided(&free, &failed(FailureClass::ServerError), 1);
    assert_eq!((decision.action, decision.reason), (Action::Close, Reason::ServerError));
}

#[test]
fn p15_the_first_pass_after_an_outage_refunds_nothing_without_asking() {
    let doubt = evidence(Verdict::CouldNotTell(Doubt::Unreachable));
    let late = |questions, first_minutes_ago: u32| {
        let mut facts = facts();
        facts.orphan.questions = questions;
        facts.orphan.first_asked_at =
            Some(charged_at() + 23 * HOUR - first_minutes_ago * Duration::from_mins(1));
        decided(&facts, &doubt, 23).action
    };
    assert_eq!(late(0, 60), Action::Wait, "one question");
    assert_eq!(late(1, 60), Action::Wait, "two questions");
    assert_eq!(late(2, 29), Action::Wait, "three questions in 29 minutes");
    assert_eq!(late(2, 30), Action::Refund, "three questions in 30 minutes");
    assert_eq!(
        copy_failed(&facts(), false, 23).action,
        Action::Wait,
        "a failed copy needs the questions too"
    );
}

#[test]
fn a_charge_without_items_closes_once_its_items_were_added_and_sum_up_to_the_draw() {
    let mut whole = facts();
    whole.orphan.item.output_index = WHOLE_CHARGE;
    whole.record.item = None;
    let decided_now = |facts: &Facts| decide(facts, None, &OPTIONS, charged_at() + HOUR).action;
    assert_eq!(decided_now(&whole), Action::Close);
    whole.record.items = crate::facts::ItemsSum::default();
    assert_eq!(decided_now(&whole), Action::Hold);
}

#[test]
fn a_charge_without_items_is_inconsistent_even_if_it_drew_nothing() {
    let mut record = facts().record;
    assert!(super::adds_up(&record));
    (record.items, record.charge.drawn) =
        (crate::facts::ItemsSum::default(), crate::charge::Split::default());
    assert!(!super::adds_up(&record));
}

#[test]
fn p13_a_misplaced_output_is_relinked_unless_another_item_claims_it_too() {
    let mut facts = facts();
    facts.record.delivery =
        Delivery::Misplaced { output_id: "o1".to_owned(), linked_to: None, moved: false, claimed: false };
    assert!(!super::needs_evidence(&facts, &OPTIONS, charged_at() + HOUR), "no question is needed");
    let decided_now = |facts: &Facts| decide(facts, None, &OPTIONS, charged_at() + HOUR);
    assert_eq!(decided_now(&facts).action, Action::Relink { output_id: "o1".to_owned() });
    facts.record.rival = true;
    assert_eq!(
        (decided_now(&facts).action, decided_now(&facts).reason),
        (Action::Hold, Reason::DuplicateJob)
    );
    facts.record.rival = false;
    facts.record.delivery = Delivery::Missing;
    assert!(super::needs_evidence(&facts, &OPTIONS, charged_at() + HOUR));
}

#[test]
fn p11_a_cancelled_run_stays_paid_if_the_provider_completed_it_and_its_file_is_gone() {
    let mut cancelled = facts();
    cancelled.record.charge.cancelled_at = Some(charged_at());
    let now = charged_at() + HOUR;
    let gone = |completed| spelled(&super::after_recovery(&cancelled, completed, true, now));
    assert_eq!(gone(true), "close completed_after_cancel");
    assert_eq!(
        gone(false),
        "refund output_expired",
        "a run that was not completed is refunded, cancelled or not"
    );
}

#[test]
fn without_evidence_the_decision_is_to_wait() {
    let decision = decide(&asked_enough(), None, &OPTIONS, charged_at() + 30 * HOUR);
    assert_eq!(decision.action, Action::Wait);
}

#[test]
fn waits_double_up_to_an_hour_within_refund_by_a_third_of_retention_and_the_expiry() {
    let now = charged_at() + 2 * HOUR;
    let wait = decided(&facts(), &evidence(Verdict::Running), 2);
    let after = |waits, bounds: WaitBounds| {
        let mut facts = facts();
        facts.orphan.waits = waits;
        next_check_at(&facts, &wait, bounds, now).since(now)
    };
    let minute = Duration::from_mins(1);
    for (waits, longest) in
        [(0, minute), (1, 2 * minute), (5, 32 * minute), (6, HOUR), (60, HOUR), (i64::MAX, HOUR)]
    {
        let took = after(waits, WaitBounds::default());
        assert!(
            took <= longest && took >= longest * 4 / 5,
            "wait {waits} took {took:?}, not about {longest:?}"
        );
    }
    let hour_kept = WaitBounds { retention: Some(HOUR), expires_at: None };
    assert!(after(9, hour_kept) <= 20 * minute);
    let soon_gone = WaitBounds { retention: None, expires_at: Some(now + 5 * minute) };
    assert!(after(9, soon_gone) < 5 * minute);

    let near = charged_at() + 22 * HOUR - 10 * minute;
    let mut facts = facts();
    facts.orphan.waits = 9;
    assert_eq!(next_check_at(&facts, &wait, WaitBounds::default(), near), facts.orphan.refund_by);
}

#[test]
fn p15_missing_questions_are_asked_within_half_an_hour_past_refund_by() {
    let mut facts = facts();
    let doubt = evidence(Verdict::CouldNotTell(Doubt::Unreachable));
    let mut now = facts.orphan.refund_by;
    for _ in 0..10 {
        let decision = decide(&facts, Some(&doubt), &OPTIONS, now);
        if decision.action == Action::Refund {
            assert!(now.since(facts.orphan.refund_by) <= Duration::from_mins(31));
            return;
        }
        let next = next_check_at(&facts, &decision, WaitBounds::default(), now);
        facts.orphan.first_asked_at.get_or_insert(now);
        facts.orphan.questions += 1;
        facts.orphan.waits += 1;
        now = next;
    }
    panic!("never refunded");
}
