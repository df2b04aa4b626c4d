use proptest::prelude::*;

use super::super::samples::{HOUR, charged_at, evidence, facts, failed, file, offering};
use super::super::tests::any::{NONE, any_verdict, case_of};
use super::*;
use crate::charge::ItemId;
use crate::evidence::{Doubt, FailureClass};

const TIMES: Times = Times { first: Some(Duration::from_hours(6)), last: Some(Duration::from_hours(24)) };

fn refunded(asked_after_hours: Option<u32>) -> Refunded {
    Refunded { at: charged_at(), last_asked_at: asked_after_hours.map(|hours| charged_at() + hours * HOUR) }
}

fn after(hours: u32) -> Timestamp {
    charged_at() + hours * HOUR
}

#[test]
fn it_is_asked_six_and_twenty_four_hours_after_the_refund_and_then_no_more() {
    assert_eq!(next_question(refunded(None), TIMES), Some(after(6)));
    assert_eq!(next_question(refunded(Some(6)), TIMES), Some(after(24)));
    assert_eq!(next_question(refunded(Some(24)), TIMES), None);
    assert_eq!(step(&facts(), refunded(None), TIMES, after(5)), Step::NotYet(after(6)));
    assert_eq!(step(&facts(), refunded(None), TIMES, after(6)), Step::Ask);
    assert_eq!(step(&facts(), refunded(Some(6)), TIMES, after(7)), Step::NotYet(after(24)));
    assert_eq!(step(&facts(), refunded(Some(6)), TIMES, after(24)), Step::Ask);
    assert_eq!(step(&facts(), refunded(Some(24)), TIMES, after(25)), Step::End(End::AskedEnough));
}

#[test]
fn a_time_that_was_missed_is_made_up_for_once_however_late() {
    assert_eq!(step(&facts(), refunded(None), TIMES, after(90)), Step::Ask);
    assert_eq!(after_doubt(refunded(Some(90)), TIMES), Step::End(End::AskedEnough));
}

#[test]
fn an_answer_serves_all_items_of_a_job_whose_time_comes_within_the_hour() {
    // Asked for another item at the fifth hour, at the sixth, and half a day before the last time.
    assert_eq!(next_question(refunded(Some(5)), TIMES), Some(after(24)));
    assert_eq!(next_question(refunded(Some(4)), TIMES), Some(after(6)));
    assert_eq!(next_question(refunded(Some(12)), TIMES), Some(after(24)));
    assert_eq!(next_question(refunded(Some(23)), TIMES), None);
}

#[test]
fn who_sets_no_time_is_never_asked() {
    assert_eq!(next_question(refunded(None), Times::default()), None);
    assert_eq!(step(&facts(), refunded(None), Times::default(), after(6)), Step::End(End::AskedEnough));
    let only_last = Times { first: None, ..TIMES };
    assert_eq!(next_question(refunded(None), only_last), Some(after(24)));
}

#[test]
fn a_provider_that_is_left_alone_costs_no_time_but_not_for_ever() {
    let retry = Duration::from_secs(40);
    assert_eq!(after_not_asked(refunded(None), TIMES, retry, after(6)), Step::NotYet(after(6) + retry));
    assert_eq!(after_not_asked(refunded(None), TIMES, retry, after(30)), Step::NotYet(after(30) + retry));
    let week_later = 24 + 7 * 24;
    assert_eq!(
        after_not_asked(refunded(None), TIMES, retry, after(week_later - 1)),
        Step::NotYet(after(week_later - 1) + retry)
    );
    assert_eq!(after_not_asked(refunded(None), TIMES, retry, after(week_later)), Step::End(End::AskedEnough));
}

/// Whoever reads the table goes by the words beside its column.
#[test]
fn each_end_is_spelled_as_the_migrations_say() {
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
fn without_a_job_on_record_there_is_nobody_to_ask_until_one_appears() {
    let mut jobless = facts();
    jobless.record.item.as_mut().unwrap().job = None;
    assert_eq!(step(&jobless, refunded(None), TIMES, after(6)), Step::NotYet(after(24)));
    assert_eq!(step(&jobless, refunded(Some(6)), TIMES, after(24)), Step::End(End::AskedEnough));
    assert_eq!(step(&facts(), refunded(Some(6)), TIMES, after(24)), Step::Ask, "it appeared meanwhile");
}

#[test]
fn p20_what_is_stored_by_then_needs_no_question() {
    let mut stored = facts();
    stored.record.delivery = Delivery::Delivered { output_id: "o1".to_owned() };
    let step_of = |facts: &Facts| step(facts, refunded(None), TIMES, after(1));
    assert_eq!(step_of(&stored), Step::Stored { output_id: "o1".to_owned() });
    let misplaced = |claimed| {
        let mut facts = facts();
        let linked_to = Some(ItemId { charge_id: "c2".to_owned(), output_index: 0 });
        facts.record.delivery =
            Delivery::Misplaced { output_id: "o2".to_owned(), linked_to, moved: false, claimed };
        facts
    };
    assert_eq!(step_of(&misplaced(false)), Step::Stored { output_id: "o2".to_owned() });
    assert_eq!(step_of(&misplaced(true)), Step::End(End::DuplicateJob));
    let mut rival = facts();
    rival.record.rival = true;
    assert_eq!(step_of(&rival), Step::End(End::DuplicateJob));
}

#[test]
fn a_late_success_is_an_output_that_was_made_for_this_very_item() {
    let mut gone = evidence(Verdict::Succeeded);
    gone.outputs_gone = true;
    for (answer, expected) in [
        (offering(Verdict::Succeeded, vec![file(Some(0))]), Word::Succeeded),
        (offering(Verdict::Succeeded, vec![file(None)]), Word::Succeeded),
        // A partial output is a success (P09).
        (offering(Verdict::Failed, vec![file(Some(0))]), Word::Succeeded),
        (gone, Word::Succeeded),
        (offering(Verdict::Succeeded, vec![file(Some(1))]), Word::DidNot),
        (evidence(Verdict::Succeeded), Word::DidNot),
        (failed(FailureClass::ServerError), Word::DidNot),
        (evidence(Verdict::Cancelled), Word::DidNot),
        (offering(Verdict::Running, vec![file(Some(0))]), Word::Open),
        (evidence(Verdict::Queued), Word::Open),
        (evidence(Verdict::UnknownJob), Word::Open),
        (evidence(Verdict::CouldNotTell(Doubt::Unreachable)), Word::Open),
        (evidence(Verdict::CouldNotTell(Doubt::Unauthorized)), Word::Open),
    ] {
        assert_eq!(word(&facts(), &answer), expected, "{answer:?}");
    }
}

#[test]
fn only_refunds_without_the_providers_word_are_asked_about_again() {
    let asked: Vec<&str> =
        Reason::ALL.iter().filter(|reason| without_proof(**reason)).map(|reason| reason.as_str()).collect();
    let without_proof =
        ["no_provider_job", "reported_failed", "never_returned", "timed_out", "unconfirmed", "by_hand"];
    assert_eq!(asked, without_proof);
}

/// What happens to a refunded item while somebody looks at it now and then.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// Asked if its time has come, and the answer leaves it open.
    Doubt,
    /// The same, but the provider is left alone for this many minutes.
    NotAsked(u32),
    /// The job was asked about for another of its items.
    Answered,
    /// The platform learns of the job.
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

fn any_times() -> impl Strategy<Value = Times> {
    // Also only one of them, none, and the last before the first: nothing here rests on their order.
    let span = || prop::option::weighted(0.8, (0..48_u64 * 60).prop_map(Duration::from_mins));
    (span(), span()).prop_map(|(first, last)| Times { first, last })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn questions_are_asked_in_their_time_are_bounded_and_come_to_an_end_whenever_somebody_looks(
        times in any_times(), jobless in prop::bool::weighted(0.2), looks in prop::collection::vec((0..600_u32, any_look()), 0..30),
    ) {
        let wanted: Vec<Timestamp> = times.first.into_iter().chain(times.last).map(|span| charged_at() + span).collect();
        let mut facts = facts();
        let job = facts.record.item.as_ref().and_then(|item| item.job.clone());
        if jobless {
            facts.record.item.as_mut().expect("the sample has one").job = None;
        }
        let (mut state, mut asked, mut ended, mut now) = (refunded(None), 0, false, charged_at());
        // A last look long after: what is asked about for ever costs money for ever.
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
            match step(&facts, state, times, now) {
                Step::Ask => {
                    prop_assert!(unserved(state).iter().any(|time| *time <= now), "too soon, or once too often");
                    match look {
                        Look::NotAsked(minutes) => {
                            let retry_in = minutes * Duration::from_mins(1);
                            let next = after_not_asked(state, times, retry_in, now);
                            let given_up = wanted.last().is_some_and(|last| now >= *last + Duration::from_hours(7 * 24));
                            prop_assert_eq!(next == Step::End(End::AskedEnough), given_up, "{:?}", next);
                            prop_assert!(given_up || next == Step::NotYet(now + retry_in));
                            ended = given_up;
                        }
                        Look::Doubt | Look::Answered | Look::JobAppears => {
                            asked += 1;
                            state.last_asked_at = Some(now);
                            ended = matches!(after_doubt(state, times), Step::End(_));
                            prop_assert_eq!(ended, unserved(state).is_empty());
                        }
                    }
                }
                Step::NotYet(at) => prop_assert!(at > now && unserved(state).contains(&at), "{at} is none of the times"),
                Step::End(end) => {
                    prop_assert_eq!(end, End::AskedEnough);
                    prop_assert!(!job_known || unserved(state).is_empty(), "its times are not over");
                    ended = true;
                }
                Step::Stored { .. } => prop_assert!(false, "nothing is stored"),
            }
            prop_assert!(asked <= wanted.len());
            if ended {
                break;
            }
        }
        prop_assert!(ended, "still open a week after the last time");
    }

    /// The late word and the decision that it would have been are read from one answer in one way.
    #[test]
    fn a_late_word_says_succeeded_exactly_where_an_answer_in_time_would_have_kept_the_item_paid(case in case_of(any_verdict(), NONE)) {
        let mut case = case;
        case.limits.prefer_refund = false;
        let decided = case.decided();
        let made = matches!(decided.rule, 5 | 7);
        let expected = match case.answer.verdict {
            // Whether its file is among these, nobody knows.
            _ if decided.reason == Reason::MissingHash => Word::Open,
            Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled if made => Word::Succeeded,
            Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled => Word::DidNot,
            Verdict::Queued | Verdict::Running | Verdict::UnknownJob | Verdict::CouldNotTell(_) => Word::Open,
        };
        prop_assert_eq!(word(&case.facts, &case.answer), expected);
    }
}
