//! What the table does not show: how files are shared, how the rules hold over time, how long waits are.
//! Here by example; `properties`, `sharing` and `refunds` ask the same of any case.

use std::time::Duration;

use super::samples::{
    HOUR, LIMITS, asked_enough, charged_at, copy_failed, decided, evidence, facts, failed, file, offering,
    spelled,
};
use super::{Action, Limits, Patience, Pick, Reason, decide, next_look};
use crate::charge::WHOLE_CHARGE;
use crate::evidence::{Doubt, Evidence, FailureClass, Offer, Source, Verdict};
use crate::facts::{Delivery, Facts};

pub(super) mod any;
mod properties;
mod reach;
mod refunds;
mod sharing;
mod unasked;
mod unhashed;

fn unnamed_failure(class: FailureClass) -> Offer {
    Offer { index: None, source: Source::Failed { class, message: None }, expires_at: None }
}

/// Item `rank` of `items`, of which those before it that still wait number `open_rank` and `stored` files are taken.
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
fn p05_a_named_file_goes_to_the_item_of_that_name_in_any_order() {
    let answer = offering(Verdict::Succeeded, vec![file(Some(2)), file(Some(0))]);
    assert_eq!(picked(&sharing(3, 0, 0, 0), &answer), Some(Pick::Offer(1)));
    assert_eq!(picked(&sharing(3, 2, 2, 0), &answer), Some(Pick::Offer(0)));
    assert_eq!(spelled(&decided(&sharing(3, 1, 1, 0), &answer, 1)), "refund missing_output");
}

#[test]
fn p05_an_item_with_an_error_of_its_own_is_refunded_for_it_while_the_others_are_recovered() {
    let mut blocked = unnamed_failure(FailureClass::ContentSafety);
    blocked.index = Some(1);
    let answer = offering(Verdict::Succeeded, vec![file(Some(0)), blocked]);
    assert_eq!(picked(&sharing(2, 0, 0, 0), &answer), Some(Pick::Offer(0)));
    assert_eq!(spelled(&decided(&sharing(2, 1, 1, 0), &answer, 1)), "refund content_safety");
}

#[test]
fn p06_two_unnamed_files_of_three_go_to_items_in_order_and_the_third_is_missing() {
    let answer = offering(Verdict::Succeeded, vec![file(None), file(None)]);
    assert_eq!(picked(&sharing(3, 0, 0, 0), &answer), Some(Pick::Unclaimed(0)));
    assert_eq!(picked(&sharing(3, 1, 1, 0), &answer), Some(Pick::Unclaimed(1)));
    assert_eq!(spelled(&decided(&sharing(3, 2, 2, 0), &answer, 1)), "refund missing_output");
}

#[test]
fn p06_a_file_that_is_stored_already_is_nobodys() {
    // One of three is stored; of the two offered, one is left for the first item that waits.
    let answer = offering(Verdict::Succeeded, vec![file(None), file(None)]);
    assert_eq!(picked(&sharing(3, 1, 0, 1), &answer), Some(Pick::Unclaimed(0)));
    assert_eq!(spelled(&decided(&sharing(3, 2, 1, 1), &answer, 1)), "refund missing_output");
}

#[test]
fn unnamed_failures_say_why_the_rest_is_missing() {
    let answer = offering(Verdict::Succeeded, vec![file(None), unnamed_failure(FailureClass::ContentSafety)]);
    assert_eq!(picked(&sharing(2, 0, 0, 0), &answer), Some(Pick::Unclaimed(0)));
    assert_eq!(spelled(&decided(&sharing(2, 1, 1, 0), &answer, 1)), "refund content_safety");
}

#[test]
fn unnamed_files_of_a_complete_list_go_by_rank_and_more_than_asked_for_is_no_harm() {
    let answer = offering(Verdict::Succeeded, vec![file(None), file(None), file(None)]);
    assert_eq!(picked(&sharing(2, 1, 0, 1), &answer), Some(Pick::Offer(1)));
}

#[test]
fn a_job_at_work_may_still_add_to_its_list() {
    let answer = offering(Verdict::Running, vec![file(None)]);
    assert_eq!(spelled(&decided(&sharing(2, 0, 0, 0), &answer, 1)), "wait still_running");
}

#[test]
fn p09_p16_a_failed_or_cancelled_job_that_offers_the_file_all_the_same_is_recovered() {
    for verdict in [Verdict::Failed, Verdict::Cancelled] {
        assert_eq!(picked(&facts(), &offering(verdict, vec![file(Some(0))])), Some(Pick::Offer(0)));
    }
}

#[test]
fn p16_a_platform_may_prefer_the_refund() {
    let limits = Limits { prefer_refund: true, ..LIMITS };
    let answer = offering(Verdict::Succeeded, vec![file(Some(0))]);
    let decision = decide(&facts(), Some(&answer), &limits, charged_at() + HOUR);
    assert_eq!(spelled(&decision), "refund output_available");
}

#[test]
fn p12_nothing_is_given_back_for_an_item_that_cost_nothing() {
    let mut free = facts();
    free.record.item.as_mut().unwrap().credits = 0;
    free.record.items.credits = 0;
    free.record.charge.drawn.wallet = 0;
    let decision = decided(&free, &failed(FailureClass::ServerError), 1);
    assert_eq!((decision.action, decision.reason), (Action::Close, Reason::ServerError));
}

#[test]
fn p15_a_first_look_after_an_outage_of_ours_refunds_nothing_unasked() {
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
    assert_eq!(copy_failed(&facts(), false, 23).action, Action::Wait, "a copy that failed needs them too");
}

#[test]
fn a_charge_without_items_closes_once_they_came_and_add_up() {
    let mut whole = facts();
    whole.orphan.item.output_index = WHOLE_CHARGE;
    whole.record.item = None;
    let decided_now = |facts: &Facts| decide(facts, None, &LIMITS, charged_at() + HOUR).action;
    assert_eq!(decided_now(&whole), Action::Close);
    whole.record.items = crate::facts::ItemsSum::default();
    assert_eq!(decided_now(&whole), Action::Hold);
}

#[test]
fn a_charge_that_has_no_items_never_adds_up_even_if_it_drew_nothing() {
    let mut record = facts().record;
    assert!(super::adds_up(&record));
    (record.items, record.charge.drawn) =
        (crate::facts::ItemsSum::default(), crate::charge::Split::default());
    assert!(!super::adds_up(&record));
}

#[test]
fn p13_an_output_in_the_wrong_place_is_put_back_unless_another_item_claims_it_too() {
    let mut facts = facts();
    facts.record.delivery =
        Delivery::Misplaced { output_id: "o1".to_owned(), linked_to: None, moved: false, claimed: false };
    assert!(!super::needs_evidence(&facts, &LIMITS, charged_at() + HOUR), "nobody has to be asked");
    let decided_now = |facts: &Facts| decide(facts, None, &LIMITS, charged_at() + HOUR);
    assert_eq!(decided_now(&facts).action, Action::Relink { output_id: "o1".to_owned() });
    facts.record.rival = true;
    assert_eq!(
        (decided_now(&facts).action, decided_now(&facts).reason),
        (Action::Hold, Reason::DuplicateJob)
    );
    facts.record.rival = false;
    facts.record.delivery = Delivery::Missing;
    assert!(super::needs_evidence(&facts, &LIMITS, charged_at() + HOUR));
}

#[test]
fn p11_a_cancelled_run_stays_paid_when_the_provider_completed_it_and_its_file_is_gone() {
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
fn nobody_asked_is_a_wait_and_no_verdict() {
    let decision = decide(&asked_enough(), None, &LIMITS, charged_at() + 30 * HOUR);
    assert_eq!(decision.action, Action::Wait);
}

#[test]
fn waits_double_up_to_an_hour_and_never_pass_refund_by_a_third_of_retention_or_an_expiry() {
    let now = charged_at() + 2 * HOUR;
    let wait = decided(&facts(), &evidence(Verdict::Running), 2);
    let after = |waits, patience: Patience| {
        let mut facts = facts();
        facts.orphan.waits = waits;
        next_look(&facts, &wait, patience, now).since(now)
    };
    let minute = Duration::from_mins(1);
    for (waits, longest) in
        [(0, minute), (1, 2 * minute), (5, 32 * minute), (6, HOUR), (60, HOUR), (i64::MAX, HOUR)]
    {
        let took = after(waits, Patience::default());
        assert!(
            took <= longest && took >= longest * 4 / 5,
            "wait {waits} took {took:?}, not about {longest:?}"
        );
    }
    let hour_kept = Patience { retention: Some(HOUR), expires_at: None };
    assert!(after(9, hour_kept) <= 20 * minute);
    let soon_gone = Patience { retention: None, expires_at: Some(now + 5 * minute) };
    assert!(after(9, soon_gone) < 5 * minute);

    let near = charged_at() + 22 * HOUR - 10 * minute;
    let mut facts = facts();
    facts.orphan.waits = 9;
    assert_eq!(next_look(&facts, &wait, Patience::default(), near), facts.orphan.refund_by);
}

#[test]
fn p15_past_refund_by_the_missing_questions_are_asked_within_half_an_hour() {
    let mut facts = facts();
    let doubt = evidence(Verdict::CouldNotTell(Doubt::Unreachable));
    let mut now = facts.orphan.refund_by;
    for _ in 0..10 {
        let decision = decide(&facts, Some(&doubt), &LIMITS, now);
        if decision.action == Action::Refund {
            assert!(now.since(facts.orphan.refund_by) <= Duration::from_mins(31));
            return;
        }
        let next = next_look(&facts, &decision, Patience::default(), now);
        facts.orphan.first_asked_at.get_or_insert(now);
        facts.orphan.questions += 1;
        facts.orphan.waits += 1;
        now = next;
    }
    panic!("never refunded");
}
