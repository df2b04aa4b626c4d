//! Properties of every case, whichever rule decides it. `any` generates the cases; `reach` counts
//! which rows they reach.

use proptest::prelude::*;

use super::super::samples::file;
use super::super::{
    Action, Decision, Pick, Reason, WaitBounds, by_hand, decide, needs_evidence, next_check_at,
};
use super::any::{MANY, MINUTE, NONE, PolicyCase, SOME, any_doubt, any_verdict, bounds, case, case_of};
use super::reach::{PAGE, row};
use crate::charge::{Bucket, WHOLE_CHARGE};
use crate::clock::Timestamp;
use crate::evidence::{FailureClass, Offer, Source, Verdict};
use crate::facts::{Delivery, Facts, RefundedElsewhere};

/// Whether the decision is a row of the table, or one of the three that the page describes above
/// it.
fn in_the_table(case: &PolicyCase, decision: &Decision) -> bool {
    let (rule, action, reason) = row(decision);
    let items_were_added = case.facts.orphan.item.output_index == WHOLE_CHARGE;
    let owed = if case.cost_nothing() && action == "close" { "refund" } else { action };
    PAGE.contains(&(rule, action, reason))
        || PAGE.contains(&(rule, owed, reason))
        || (case.options.prefer_refund && (rule, owed, reason) == (5, "refund", "output_available"))
        || (items_were_added && (rule, action, reason) == (16, "close", "items_mismatch"))
}

/// Whether the items of the charge sum up to the draw, and the item is one of them.
fn adds_up(facts: &Facts) -> bool {
    let (drawn, items) = (facts.record.charge.drawn, facts.record.items);
    let below_zero = items.negative || drawn.subscription < 0 || drawn.wallet < 0;
    facts.record.item.is_some() && items.count > 0 && !below_zero && items.credits == drawn.total()
}

fn offers(case: &PolicyCase, wanted: impl Fn(&Source) -> bool) -> bool {
    case.answer.outputs.iter().any(|offer| wanted(&offer.source))
}

fn fails_with(case: &PolicyCase, class: FailureClass) -> bool {
    let of_the_item = |source: &Source| matches!(source, Source::Failed { class: its, .. } if *its == class);
    let of_the_job = case.answer.verdict == Verdict::Failed
        && case.answer.class.unwrap_or(FailureClass::ProviderError) == class;
    of_the_job || offers(case, of_the_item)
}

/// Whether the reason is true of the case.
fn is_true_of(reason: Reason, case: &PolicyCase) -> bool {
    let record = &case.facts.record;
    let (answer, verdict) = (&case.answer, case.answer.verdict);
    let job_known = record.item.as_ref().is_some_and(|item| item.job.is_some());
    let running = matches!(verdict, Verdict::Queued | Verdict::Running);
    match reason {
        Reason::Delivered => {
            matches!(record.delivery, Delivery::Delivered { .. })
                || (record.was_recovered && record.delivery == Delivery::Missing)
        }
        Reason::AlreadyRefunded => {
            let refunded = record.refunded_elsewhere;
            refunded.item || refunded.part || refunded.whole_charge
        }
        Reason::Misattributed => matches!(record.delivery, Delivery::Misplaced { claimed: false, .. }),
        Reason::DuplicateJob => {
            record.rival || matches!(record.delivery, Delivery::Misplaced { claimed: true, .. })
        }
        Reason::NoProviderJob => !job_known && (case.reported_failed() || case.past_grace()),
        Reason::MaybeNotSubmittedYet => !job_known && !case.reported_failed() && !case.past_grace(),
        Reason::OutputAvailable => offers(case, |source| !matches!(source, Source::Failed { .. })),
        Reason::ServerError => fails_with(case, FailureClass::ServerError),
        Reason::QueueTimeout => fails_with(case, FailureClass::QueueTimeout),
        Reason::ContentSafety => fails_with(case, FailureClass::ContentSafety),
        Reason::MalformedResponse => fails_with(case, FailureClass::MalformedResponse),
        Reason::ProviderError => fails_with(case, FailureClass::ProviderError),
        Reason::CompletedAfterCancel => answer.outputs_gone && record.charge.cancelled_at.is_some(),
        Reason::OutputExpired => answer.outputs_gone && record.charge.cancelled_at.is_none(),
        Reason::MissingOutput => verdict == Verdict::Succeeded && !answer.outputs_gone,
        Reason::ProviderCancelled => verdict == Verdict::Cancelled,
        Reason::ReportedFailed => case.reported_failed(),
        Reason::MaybeNotVisibleYet => verdict == Verdict::UnknownJob && !case.past_grace(),
        Reason::NeverReturned => verdict == Verdict::UnknownJob && case.past_grace(),
        Reason::StillRunning => running && !case.asked_enough(),
        Reason::TimedOut => running && case.asked_enough(),
        Reason::Unreachable
        | Reason::RateLimited
        | Reason::Unauthorized
        | Reason::Unreadable
        | Reason::UnknownProvider => verdict.as_str() == reason.as_str() && !case.asked_enough(),
        Reason::Unconfirmed => matches!(verdict, Verdict::CouldNotTell(_)) && case.asked_enough(),
        Reason::NoBalance => Bucket::ALL.into_iter().any(|bucket| {
            let rows = record.balance_rows;
            let rows = if bucket == Bucket::Wallet { rows.wallet } else { rows.subscription };
            record.charge.drawn.of(bucket) > 0 && rows != 1
        }),
        Reason::DebitsMismatch => record.debits.is_some_and(|debits| -debits != record.charge.drawn.total()),
        Reason::ItemsMismatch => !adds_up(&case.facts),
        Reason::MissingHash => {
            let files = answer.outputs.iter().filter(|offer| offer.index.is_none()).count();
            case.facts.share.unhashed > 0 && files > 0
        }
        // Given after a copy, by settle or by a person, never by `decide`.
        Reason::RecoveryRetry
        | Reason::RecoveryFailed
        | Reason::Brake
        | Reason::CannotRelink
        | Reason::NotPosted
        | Reason::CannotPost
        | Reason::ChargeChanged
        | Reason::ByHand => false,
    }
}

/// Rule 4 is the first rule that may refund, and it needs no answer.
fn without_job(mut case: PolicyCase) -> PolicyCase {
    case.facts.record.item.iter_mut().for_each(|item| item.job = None);
    case
}

/// Cases with few and with many other troubles, for properties about precedence.
fn among_others() -> impl Strategy<Value = PolicyCase> {
    let case = prop_oneof![case(), case_of(any_verdict(), MANY)];
    prop_oneof![case.clone(), case.prop_map(without_job)]
}

/// Whether nothing is refunded and nothing is recovered.
fn moves_nothing(decision: &Decision) -> bool {
    !matches!(decision.action, Action::Refund | Action::Recover(_))
}

/// The answer with a file of the case's own item inserted at any position.
fn offered_by_name(mut case: PolicyCase, nth: prop::sample::Index) -> (PolicyCase, usize) {
    let own = i64::try_from(case.facts.share.rank).expect("at most five");
    case.answer.outputs.retain(|offer| offer.index != Some(own));
    let nth = nth.index(case.answer.outputs.len() + 1);
    case.answer.outputs.insert(nth, file(Some(own)));
    (case, nth)
}

fn later(case: &PolicyCase, minutes: u32) -> Timestamp {
    case.now + minutes * MINUTE
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn p15_every_case_is_decided_by_a_row_of_the_table_with_a_true_reason(
        case in among_others(),
    ) {
        let decision = case.decided();
        prop_assert!(in_the_table(&case, &decision), "{decision:?}");
        prop_assert!(is_true_of(decision.reason, &case), "{decision:?}");
        if !matches!(decision.reason, Reason::NoBalance | Reason::DebitsMismatch) {
            prop_assert_eq!(needs_evidence(&case.facts, &case.options, case.now), (5..=13).contains(&decision.rule));
        }
        let unasked = decide(&case.facts, None, &case.options, case.now);
        prop_assert!(in_the_table(&case, &unasked), "{unasked:?}");
        for gone in [true, false] {
            let after = case.copy_failed_at(gone, case.now);
            prop_assert!(in_the_table(&case, &after), "{after:?}");
            prop_assert!(after.rule == if gone { 14 } else { 15 } || matches!(after.reason, Reason::NoBalance | Reason::DebitsMismatch), "{after:?}");
        }
    }

    #[test]
    fn p15_no_case_waits_past_refund_by_once_asked_enough(mut case in case(), late in 0..3000_u32) {
        let orphan = &mut case.facts.orphan;
        orphan.questions = orphan.questions.max(2);
        let first = *orphan.first_asked_at.get_or_insert(orphan.opened_at);
        let over = orphan.refund_by.max(first + 30 * MINUTE).max(case.facts.record.charge.charged_at + case.options.unknown_job_grace);
        let now = over + late * MINUTE;
        prop_assert_ne!(case.decided_at(now).action, Action::Wait);
        prop_assert_ne!(case.copy_failed_at(false, now).action, Action::Wait);
    }

    #[test]
    fn p15_the_next_check_is_in_the_future_and_within_all_bounds(case in case(), bounds in bounds()) {
        let decision = case.decided();
        let next = next_check_at(&case.facts, &decision, bounds, case.now);
        // Never due at once, otherwise a pass would not end. A bound may be missed by this much.
        let soonest = case.now + MINUTE / 2;
        prop_assert!(next >= soonest);
        let longest = if decision.action == Action::Hold { 24 * 60 } else { 60 };
        prop_assert!(next <= later(&case, longest));
        if let Some(retention) = bounds.retention {
            prop_assert!(next <= (case.now + retention / 3).max(soonest), "{next} is beyond a third of {retention:?}");
        }
        if case.now < case.facts.orphan.refund_by {
            prop_assert!(next <= case.facts.orphan.refund_by.max(soonest));
        }
        if let Some(expires_at) = bounds.expires_at && expires_at > case.now {
            prop_assert!(next <= (expires_at - MINUTE / 2).max(soonest), "{next} is too late for {expires_at}");
        }
    }

    /// The orphan is checked whenever it is due, and no answer can be read.
    #[test]
    fn p15_an_orphan_without_readable_answers_is_refunded_within_half_an_hour_of_refund_by(mut case in case_of(any_doubt(), NONE)) {
        case.answer.outputs.clear();
        let begun = case.now;
        let orphan = &mut case.facts.orphan;
        orphan.first_asked_at = orphan.first_asked_at.map(|first| first.min(begun));
        while case.decided().action == Action::Wait {
            let next = next_check_at(&case.facts, &case.decided(), WaitBounds::default(), case.now);
            let orphan = &mut case.facts.orphan;
            orphan.first_asked_at.get_or_insert(case.now);
            orphan.questions += 1;
            orphan.waits = orphan.waits.saturating_add(1);
            case.now = next;
            prop_assert!(next <= orphan.refund_by.max(begun) + 31 * MINUTE, "still waiting at {next}, after {orphan:?}");
        }
        prop_assert_eq!(row(&case.decided()), (13, "refund", "unconfirmed"));
    }

    /// A person may override the table, but not where nothing is owed or the refund cannot be
    /// posted.
    #[test]
    fn p01_p10_p23_a_person_cannot_refund_what_is_not_owed_or_cannot_be_posted(case in among_others()) {
        let table = case.decided();
        let record = &case.facts.record;
        match by_hand::refund(&case.facts, Some(&case.answer), &case.options, case.now) {
            by_hand::ManualRefund::Agreed(agreed) => prop_assert!(agreed == table && agreed.action == Action::Refund),
            by_hand::ManualRefund::Against { table: said, by_person } => {
                prop_assert_eq!(row(&by_person), (0, "refund", "by_hand"));
                prop_assert!(said == table && table.action != Action::Refund && table.action != Action::Close);
                let delivered = matches!(record.delivery, Delivery::Delivered { .. });
                prop_assert!(!record.refunded_elsewhere.item && !record.refunded_elsewhere.part);
                prop_assert!(adds_up(&case.facts) && !case.cost_nothing());
                prop_assert!(!is_true_of(Reason::NoBalance, &case));
                let relinkable = matches!(record.delivery, Delivery::Misplaced { claimed: false, .. }) && !record.rival;
                prop_assert!(!delivered && !relinkable);
            }
            by_hand::ManualRefund::Never(said) => {
                prop_assert!(table.action != Action::Refund && said.action != Action::Refund);
            }
        }
        // A manual recovery refunds nothing that the table would not refund, and recovers what is
        // offered.
        let recover = by_hand::recover(&case.facts, Some(&case.answer), &case.options, case.now);
        prop_assert!(recover == table || matches!(recover.action, Action::Recover(_)) && case.options.prefer_refund);
    }

    /// Time alone never reverses a refund, with one exception: past `refund_by`, the file that a
    /// running job offers is recovered.
    #[test]
    fn p01_a_refund_stays_a_refund_later_without_new_evidence(case in case(), minutes in 0..3000_u32) {
        let (now, then) = (case.decided(), case.decided_at(later(&case, minutes)));
        if now.action == Action::Refund {
            let fetched = matches!(then.action, Action::Recover(_)) && then.rule == 5;
            prop_assert!(then.action == Action::Refund || fetched, "{now:?}, then {then:?}");
        }
        if now.action != Action::Wait {
            prop_assert_ne!(then.action, Action::Wait, "{:?} before", now);
        }
        for gone in [true, false] {
            let (now, then) = (case.copy_failed_at(gone, case.now), case.copy_failed_at(gone, later(&case, minutes)));
            prop_assert!(now == then || now.action == Action::Wait, "{now:?}, then {then:?}");
        }
    }

    /// Not a microsecond and not a question sooner. Nothing else justifies a refund in these cases.
    #[test]
    fn p15_could_not_tell_is_a_refund_only_past_refund_by_and_after_three_questions_over_half_an_hour(
        mut case in case_of(prop_oneof![any_doubt(), Just(Verdict::Running), Just(Verdict::Queued)], NONE),
    ) {
        case.answer.outputs.clear();
        let expected = if case.asked_enough() { Action::Refund } else { Action::Wait };
        prop_assert_eq!(case.decided().action, expected.clone());
        prop_assert_eq!(case.copy_failed_at(false, case.now).action, expected);
        prop_assert_eq!(decide(&case.facts, None, &case.options, case.now).action, Action::Wait, "the provider was not asked");
    }

    /// The same with any trouble: only the platform's own record may justify an earlier refund
    /// (rules 4 and 10).
    #[test]
    fn p15_could_not_tell_refunds_early_only_what_the_platform_recorded_as_failed_or_never_submitted(
        case in case_of(any_doubt(), SOME),
    ) {
        let decision = case.decided();
        if decision.action == Action::Refund && !case.asked_enough() {
            let prefers = decision.rule == 5 && case.options.prefer_refund && case.now >= case.facts.orphan.refund_by;
            prop_assert!(decision.rule == 4 || case.reported_failed() || prefers, "{decision:?}");
        }
        let after = case.copy_failed_at(false, case.now);
        prop_assert!(after.action != Action::Refund || case.asked_enough(), "{after:?}");
    }

    #[test]
    fn p19_a_failure_that_the_platform_recorded_is_refunded_unless_the_provider_contradicts_it(
        mut case in case_of(prop_oneof![any_doubt(), Just(Verdict::Running), Just(Verdict::Queued), Just(Verdict::UnknownJob)], NONE),
        jobless in any::<bool>(),
    ) {
        case.answer.outputs.clear();
        let charged_at = case.facts.record.charge.charged_at;
        case.facts.record.item.as_mut().expect("there is no trouble").failed_at = Some(charged_at);
        let case = if jobless { without_job(case) } else { case };
        let decision = case.decided();
        prop_assert_eq!((decision.action, decision.rule), (Action::Refund, if jobless { 4 } else { 10 }));
    }

    #[test]
    fn p10_p20_a_delivered_item_is_closed_whatever_else_is_known(mut case in among_others()) {
        case.facts.record.delivery = Delivery::Delivered { output_id: "o1".to_owned() };
        prop_assert_eq!(row(&case.decided()), (1, "close", "delivered"));
        prop_assert!(!needs_evidence(&case.facts, &case.options, case.now));
    }

    #[test]
    fn p01_an_item_that_the_platform_refunded_is_never_refunded_or_recovered(
        mut case in among_others(), what in 0..3,
    ) {
        let refunded = &mut case.facts.record.refunded_elsewhere;
        match what {
            0 => refunded.whole_charge = true,
            1 => refunded.part = true,
            _ => refunded.item = true,
        }
        let decision = case.decided();
        prop_assert!(matches!(decision.action, Action::Close | Action::Hold), "{decision:?}");
        prop_assert!(decision.rule <= 2, "{decision:?}");
    }

    /// Whatever the provider answers now, even that the file is gone (P18), and whoever orders it.
    #[test]
    fn p10_p18_a_recovered_item_is_never_refunded_or_recovered_again(mut case in among_others()) {
        case.facts.record.was_recovered = true;
        let decision = case.decided();
        prop_assert!(moves_nothing(&decision) && decision.action != Action::Wait, "{decision:?}");
        let by_hand = by_hand::refund(&case.facts, Some(&case.answer), &case.options, case.now);
        if case.facts.record.refunded_elsewhere == RefundedElsewhere::default() {
            prop_assert!(matches!(by_hand, by_hand::ManualRefund::Never(_)), "{by_hand:?}");
        }
    }

    #[test]
    fn p13_an_output_that_is_stored_elsewhere_or_claimed_twice_is_never_refunded_or_recovered(
        mut case in among_others(), claimed in any::<bool>(), (stored, rival) in prop::sample::select(vec![(true, false), (true, true), (false, true)]),
    ) {
        let misplaced = Delivery::Misplaced { output_id: "o1".to_owned(), linked_to: None, moved: false, claimed };
        case.facts.record.rival = rival;
        case.facts.record.delivery = if stored { misplaced } else { Delivery::Missing };
        let decision = case.decided();
        prop_assert!(moves_nothing(&decision) && decision.action != Action::Wait, "{decision:?}");
        let relinked = matches!(decision.action, Action::Relink { .. });
        prop_assert!(!relinked || (stored && !claimed && !rival), "{decision:?}");
    }

    #[test]
    fn p03_an_inconsistent_charge_or_one_without_exactly_one_balance_row_is_never_refunded(case in among_others()) {
        let decisions = [case.decided(), case.copy_failed_at(true, case.now), case.copy_failed_at(false, case.now)];
        if !adds_up(&case.facts) {
            prop_assert!(moves_nothing(&decisions[0]), "{:?}", decisions[0]);
        }
        if is_true_of(Reason::NoBalance, &case) {
            prop_assert!(decisions.iter().all(|decision| decision.action != Action::Refund), "{decisions:?}");
        }
    }

    #[test]
    fn p12_an_item_without_a_price_is_never_refunded(mut case in case_of(any_verdict(), SOME)) {
        case.facts.record.item.iter_mut().for_each(|item| item.credits = 0);
        let decisions = [case.decided(), case.copy_failed_at(true, case.now), case.copy_failed_at(false, case.now)];
        let free = case.facts.record.item.is_some();
        prop_assert!(decisions.iter().all(|decision| !free || decision.action != Action::Refund), "{decisions:?}");
    }

    #[test]
    fn p09_p16_a_file_with_the_items_index_is_recovered_once_the_job_ended_or_past_refund_by(
        case in case_of(any_verdict(), NONE), nth in any::<prop::sample::Index>(), reported in any::<bool>(), cancelled in any::<bool>(),
    ) {
        let (mut case, nth) = offered_by_name(case, nth);
        let now = case.now;
        case.facts.record.charge.cancelled_at = cancelled.then_some(now);
        case.facts.record.item.as_mut().expect("there is no trouble").failed_at = reported.then_some(now);
        let decision = case.decided();
        let ended = matches!(case.answer.verdict, Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled);
        if ended || now >= case.facts.orphan.refund_by {
            let expected = if case.options.prefer_refund { Action::Refund } else { Action::Recover(Pick::Offer(nth)) };
            prop_assert_eq!((decision.action, decision.rule), (expected, 5));
        } else {
            prop_assert!((10..=13).contains(&decision.rule), "{decision:?}");
        }
    }

    #[test]
    fn p17_an_unknown_job_is_refunded_from_the_end_of_its_grace_on(
        mut case in case_of(Just(Verdict::UnknownJob), NONE), jobless in any::<bool>(),
    ) {
        case.answer.outputs.clear();
        let case = if jobless { without_job(case) } else { case };
        let expected = if case.past_grace() { Action::Refund } else { Action::Wait };
        let decision = case.decided();
        prop_assert_eq!((decision.action, decision.rule), (expected, if jobless { 4 } else { 11 }));
    }

    #[test]
    fn p05_an_output_with_the_index_of_another_item_changes_nothing_for_this_one(case in case(), other in 5..9_i64, fails in any::<bool>()) {
        let source = if fails {
            Source::Failed { class: FailureClass::ContentSafety, message: None }
        } else {
            file(None).source
        };
        let mut more = case.clone();
        more.answer.outputs.push(Offer { index: Some(other), source, expires_at: None });
        prop_assert_eq!(more.decided(), case.decided());
    }

    #[test]
    fn p11_a_cancellation_matters_only_for_a_completed_run_whose_files_are_gone(case in case(), gone in any::<bool>()) {
        let cancelled_at = |at: Option<Timestamp>| {
            let mut case = case.clone();
            case.facts.record.charge.cancelled_at = at;
            case
        };
        let (kept, cancelled) = (cancelled_at(None), cancelled_at(Some(case.now)));
        if kept.decided().rule == 7 || (kept.decided().rule == 16 && case.answer.outputs_gone) {
            prop_assert!(cancelled.decided().action != Action::Refund);
        } else {
            prop_assert_eq!(kept.decided(), cancelled.decided());
        }
        let (kept, cancelled) = (kept.copy_failed_at(gone, case.now), cancelled.copy_failed_at(gone, case.now));
        if gone && case.answer.verdict == Verdict::Succeeded {
            prop_assert_eq!(row(&cancelled), (14, "close", "completed_after_cancel"));
        } else {
            prop_assert_eq!(kept, cancelled);
        }
    }
}
