use proptest::prelude::*;

use super::super::samples::{HOUR, charged_at, evidence, facts, failed, file, offering};
use super::super::tests::any::{NONE, any_verdict, case_of};
use super::super::tests::reach::PAGE;
use super::*;
use crate::charge::ItemId;
use crate::evidence::{Doubt, FailureClass};

const TIMES: LateTimes =
    LateTimes { first: Some(Duration::from_hours(6)), last: Some(Duration::from_hours(24)) };

fn refunded(asked_after_hours: Option<u32>) -> Refunded {
    Refunded { at: charged_at(), last_asked_at: asked_after_hours.map(|hours| charged_at() + hours * HOUR) }
}

fn after(hours: u32) -> Timestamp {
    charged_at() + hours * HOUR
}

#[test]
fn questions_are_due_six_and_twenty_four_hours_after_the_refund_and_then_no_more() {
    assert_eq!(next_question(refunded(None), TIMES), Some(after(6)));
    assert_eq!(next_question(refunded(Some(6)), TIMES), Some(after(24)));
    assert_eq!(next_question(refunded(Some(24)), TIMES), None);
    assert_eq!(next_step(&facts(), refunded(None), TIMES, after(5)), LateStep::NotYet(after(6)));
    assert_eq!(next_step(&facts(), refunded(None), TIMES, after(6)), LateStep::Ask);
    assert_eq!(next_step(&facts(), refunded(Some(6)), TIMES, after(7)), LateStep::NotYet(after(24)));
    assert_eq!(next_step(&facts(), refunded(Some(6)), TIMES, after(24)), LateStep::Ask);
    assert_eq!(next_step(&facts(), refunded(Some(24)), TIMES, after(25)), LateStep::End(End::AskedEnough));
}

#[test]
fn missed_questions_are_made_up_for_by_one_however_late() {
    assert_eq!(next_step(&facts(), refunded(None), TIMES, after(90)), LateStep::Ask);
    assert_eq!(after_doubt(refunded(Some(90)), TIMES), LateStep::End(End::AskedEnough));
}

#[test]
fn an_answer_serves_all_items_of_the_job_that_are_due_within_the_hour() {
    // The job was asked about for another item before this one was due.
    assert_eq!(next_question(refunded(Some(5)), TIMES), Some(after(24)));
    assert_eq!(next_question(refunded(Some(4)), TIMES), Some(after(6)));
    assert_eq!(next_question(refunded(Some(12)), TIMES), Some(after(24)));
    assert_eq!(next_question(refunded(Some(23)), TIMES), None);
}

#[test]
fn without_configured_times_nothing_is_asked() {
    assert_eq!(next_question(refunded(None), LateTimes::default()), None);
    assert_eq!(
        next_step(&facts(), refunded(None), LateTimes::default(), after(6)),
        LateStep::End(End::AskedEnough)
    );
    let only_last = LateTimes { first: None, ..TIMES };
    assert_eq!(next_question(refunded(None), only_last), Some(after(24)));
}

#[test]
fn a_question_that_cannot_be_asked_stays_open_for_a_week_after_its_last_time() {
    let retry = Duration::from_secs(40);
    assert_eq!(after_not_asked(refunded(None), TIMES, retry, after(6)), LateStep::NotYet(after(6) + retry));
    assert_eq!(after_not_asked(refunded(None), TIMES, retry, after(30)), LateStep::NotYet(after(30) + retry));
    let week_later = 24 + 7 * 24;
    assert_eq!(
        after_not_asked(refunded(None), TIMES, retry, after(week_later - 1)),
        LateStep::NotYet(after(week_later - 1) + retry)
    );
    assert_eq!(
        after_not_asked(refunded(None), TIMES, retry, after(week_later)),
        LateStep::End(End::AskedEnough)
    );
}

/// The migrations list the words in a comment on the column.
#[test]
fn the_migrations_list_the_word_of_every_end() {
    let said = [
        include_str!("../../../migrations/postgres/0003_late.sql"),
        include_str!("../../../migrations/sqlite/0003_late.sql"),
    ];
    let ends =
        [End::Succeeded, End::Stored, End::DidNot, End::AskedEnough, End::DuplicateJob, End::UnreadableRow];
    let spelled = ends.map(End::as_str).join(", ");
    for text in said {
        assert!(text.contains(&spelled), "{spelled}");
    }
}

#[test]
fn without_a_job_on_record_nothing_is_asked_until_one_appears() {
    let mut jobless = facts();
    jobless.record.item.as_mut().unwrap().job = None;
    assert_eq!(next_step(&jobless, refunded(None), TIMES, after(6)), LateStep::NotYet(after(24)));
    assert_eq!(next_step(&jobless, refunded(Some(6)), TIMES, after(24)), LateStep::End(End::AskedEnough));
    assert_eq!(
        next_step(&facts(), refunded(Some(6)), TIMES, after(24)),
        LateStep::Ask,
        "a job appeared meanwhile"
    );
}

#[test]
fn p20_a_stored_output_needs_no_question() {
    let mut stored = facts();
    stored.record.delivery = Delivery::Delivered { output_id: "o1".to_owned() };
    let next_step_of = |facts: &Facts| next_step(facts, refunded(None), TIMES, after(1));
    assert_eq!(next_step_of(&stored), LateStep::Stored { output_id: "o1".to_owned() });
    let misplaced = |claimed| {
        let mut facts = facts();
        let linked_to = Some(ItemId { charge_id: "c2".to_owned(), output_index: 0 });
        facts.record.delivery =
            Delivery::Misplaced { output_id: "o2".to_owned(), linked_to, moved: false, claimed };
        facts
    };
    assert_eq!(next_step_of(&misplaced(false)), LateStep::Stored { output_id: "o2".to_owned() });
    assert_eq!(next_step_of(&misplaced(true)), LateStep::End(End::DuplicateJob));
    let mut rival = facts();
    rival.record.rival = true;
    assert_eq!(next_step_of(&rival), LateStep::End(End::DuplicateJob));
}

#[test]
fn a_late_success_is_an_output_that_was_made_for_this_item() {
    let mut gone = evidence(Verdict::Succeeded);
    gone.outputs_gone = true;
    for (answer, expected) in [
        (offering(Verdict::Succeeded, vec![file(Some(0))]), LateVerdict::Succeeded),
        (offering(Verdict::Succeeded, vec![file(None)]), LateVerdict::Succeeded),
        // A partial output is a success (P09).
        (offering(Verdict::Failed, vec![file(Some(0))]), LateVerdict::Succeeded),
        (gone, LateVerdict::Succeeded),
        (offering(Verdict::Succeeded, vec![file(Some(1))]), LateVerdict::DidNot),
        (evidence(Verdict::Succeeded), LateVerdict::DidNot),
        (failed(FailureClass::ServerError), LateVerdict::DidNot),
        (evidence(Verdict::Cancelled), LateVerdict::DidNot),
        (offering(Verdict::Running, vec![file(Some(0))]), LateVerdict::Open),
        (evidence(Verdict::Queued), LateVerdict::Open),
        (evidence(Verdict::UnknownJob), LateVerdict::Open),
        (evidence(Verdict::CouldNotTell(Doubt::Unreachable)), LateVerdict::Open),
        (evidence(Verdict::CouldNotTell(Doubt::Unauthorized)), LateVerdict::Open),
    ] {
        assert_eq!(verdict(&facts(), &answer), expected, "{answer:?}");
    }
}

#[test]
fn only_refunds_without_proof_are_asked_about_again() {
    let asked: Vec<&str> =
        Reason::ALL.iter().filter(|reason| without_proof(**reason)).map(|reason| reason.as_str()).collect();
    let without_proof =
        ["no_provider_job", "reported_failed", "never_returned", "timed_out", "unconfirmed", "by_hand"];
    assert_eq!(asked, without_proof);
}

/// The rules whose refunds rest on no answer of the provider: 4 and 10 to 13.
#[test]
fn refunds_without_proof_are_those_of_the_rules_without_a_verdict_of_the_provider() {
    for (rule, action, reason) in PAGE.iter().filter(|(_, action, _)| *action == "refund") {
        let is_listed = WITHOUT_PROOF.iter().any(|listed| listed.as_str() == *reason);
        assert_eq!(is_listed, matches!(rule, 4 | 10..=13), "rule {rule}: {action} {reason}");
    }
}

/// An event between two checks of a refunded item.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// Asked if it is due, and the answer decides nothing.
    Doubt,
    /// The provider cannot be asked for this many minutes.
    NotAsked(u32),
    /// The job was asked about for another of its items.
    Answered,
    /// The platform records a job.
    JobAppears,
}

fn any_look() -> impl Strategy<Value = Look> {
    prop_oneof![
        6 => Just(Look::Doubt),
        2 => (1..90_u32).prop_map(Look::NotAsked),
        1 => Just(Look::Answered),
        1 => Just(Look::JobAppears),
    ]
}

fn any_times() -> impl Strategy<Value = LateTimes> {
    // Includes only one of them, none, and the last before the first: nothing depends on their
    // order.
    let span = || prop::option::weighted(0.8, (0..48_u64 * 60).prop_map(Duration::from_mins));
    (span(), span()).prop_map(|(first, last)| LateTimes { first, last })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn questions_are_asked_when_due_are_bounded_and_end_however_often_the_item_is_looked_at(
        times in any_times(), jobless in prop::bool::weighted(0.2), looks in prop::collection::vec((0..600_u32, any_look()), 0..30),
    ) {
        let wanted: Vec<Timestamp> = times.first.into_iter().chain(times.last).map(|span| charged_at() + span).collect();
        let mut facts = facts();
        let job = facts.record.item.as_ref().and_then(|item| item.job.clone());
        if jobless {
            facts.record.item.as_mut().expect("the sample has one").job = None;
        }
        let (mut state, mut asked, mut ended, mut now) = (refunded(None), 0, false, charged_at());
        // A last look long after the last question: by then the item must have ended.
        let end = after(48 + 7 * 24 + 1);
        for (minutes, look) in looks.into_iter().map(|(minutes, look)| (Some(minutes), look)).chain([(None, Look::NotAsked(1)), (None, Look::Doubt)]) {
            now = minutes.map_or(end.max(now), |minutes| now + minutes * Duration::from_mins(1));
            match look {
                Look::Answered => state.last_asked_at = Some(now),
                Look::JobAppears => facts.record.item.as_mut().expect("the sample has one").job.clone_from(&job),
                Look::Doubt | Look::NotAsked(_) => {}
            }
            let unserved = |state: Refunded| {
                let later = |time: &Timestamp| state.last_asked_at.is_none_or(|last| *time > last + HOUR);
                wanted.iter().copied().filter(later).collect::<Vec<_>>()
            };
            let job_known = facts.record.item.as_ref().is_some_and(|item| item.job.is_some());
            match next_step(&facts, state, times, now) {
                LateStep::Ask => {
                    prop_assert!(unserved(state).iter().any(|time| *time <= now), "asked too soon or too often");
                    match look {
                        Look::NotAsked(minutes) => {
                            let retry_in = minutes * Duration::from_mins(1);
                            let next = after_not_asked(state, times, retry_in, now);
                            let given_up = wanted.last().is_some_and(|last| now >= *last + Duration::from_hours(7 * 24));
                            prop_assert_eq!(next == LateStep::End(End::AskedEnough), given_up, "{:?}", next);
                            prop_assert!(given_up || next == LateStep::NotYet(now + retry_in));
                            ended = given_up;
                        }
                        Look::Doubt | Look::Answered | Look::JobAppears => {
                            asked += 1;
                            state.last_asked_at = Some(now);
                            ended = matches!(after_doubt(state, times), LateStep::End(_));
                            prop_assert_eq!(ended, unserved(state).is_empty());
                        }
                    }
                }
                LateStep::NotYet(at) => prop_assert!(at > now && unserved(state).contains(&at), "{at} is none of the times"),
                LateStep::End(end) => {
                    prop_assert_eq!(end, End::AskedEnough);
                    prop_assert!(!job_known || unserved(state).is_empty(), "its times are not over");
                    ended = true;
                }
                LateStep::Stored { .. } => prop_assert!(false, "nothing is stored"),
            }
            prop_assert!(asked <= wanted.len());
            if ended {
                break;
            }
        }
        prop_assert!(ended, "still open a week after the last time");
    }

    /// A late verdict and a decision in time read the same answer alike.
    #[test]
    fn a_late_verdict_is_succeeded_exactly_where_an_answer_in_time_would_have_kept_the_item_paid(case in case_of(any_verdict(), NONE)) {
        let mut case = case;
        case.options.prefer_refund = false;
        let decided = case.decided();
        let made = matches!(decided.rule, 5 | 7);
        let expected = match case.answer.verdict {
            // Whether the item's file is among these is unknown.
            _ if decided.reason == Reason::MissingHash => LateVerdict::Open,
            Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled if made => LateVerdict::Succeeded,
            Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled => LateVerdict::DidNot,
            Verdict::Queued | Verdict::Running | Verdict::UnknownJob | Verdict::CouldNotTell(_) => LateVerdict::Open,
        };
        prop_assert_eq!(verdict(&case.facts, &case.answer), expected);
    }
}
