//! Generators of cases for the property tests: everything that the earlier stages may hand to
//! `policy`.
//!
//! A case without trouble is consistent: the items sum up to the draw, nothing is stored or
//! refunded, and the job is known. Most cases therefore reach the rules that need the provider's
//! answer (`reach` counts them). Each of [`TROUBLES`] occurs with the probability that the caller
//! gives, alone or with others. Times lie within two days of the charge, and often exactly on a
//! limit of a rule or a microsecond beside it.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::samples::{charged_at, evidence, facts, file};
use super::super::{Decision, PolicyOptions, WaitBounds, after_recovery, decide};
use crate::charge::{Split, WHOLE_CHARGE};
use crate::clock::Timestamp;
use crate::evidence::{Doubt, Evidence, FailureClass, Offer, Source, Verdict};
use crate::facts::{Delivery, Facts, ItemsSum, JobShare};

pub const MINUTE: Duration = Duration::from_mins(1);
/// The probability of each trouble in an ordinary case.
pub const SOME: f64 = 0.05;
/// The probability where a property is about the precedence of one trouble over the others.
pub const MANY: f64 = 0.3;
/// No trouble: only the provider's answer decides.
pub const NONE: f64 = 0.0;

/// All arguments of `decide` and `after_recovery`.
#[derive(Clone, Debug)]
pub struct PolicyCase {
    pub facts: Facts,
    pub answer: Evidence,
    pub options: PolicyOptions,
    pub now: Timestamp,
}

impl PolicyCase {
    pub fn decided(&self) -> Decision {
        self.decided_at(self.now)
    }

    pub fn decided_at(&self, now: Timestamp) -> Decision {
        decide(&self.facts, Some(&self.answer), &self.options, now)
    }

    pub fn copy_failed_at(&self, gone: bool, now: Timestamp) -> Decision {
        after_recovery(&self.facts, self.answer.verdict == Verdict::Succeeded, gone, now)
    }

    /// Whether a refund without proof may be given, written without the program's constants.
    pub fn asked_enough(&self) -> bool {
        let orphan = &self.facts.orphan;
        let since_first = orphan.first_asked_at.map(|first| self.now.since(first).as_secs());
        self.now >= orphan.refund_by && orphan.questions >= 2 && since_first >= Some(30 * 60)
    }

    pub fn cost_nothing(&self) -> bool {
        self.facts.record.item.as_ref().is_some_and(|item| item.credits == 0)
    }

    pub fn reported_failed(&self) -> bool {
        self.facts.record.item.as_ref().is_some_and(|item| item.failed_at.is_some())
    }

    pub fn past_grace(&self) -> bool {
        self.now.since(charged_at()) >= self.options.unknown_job_grace
    }
}

fn misplaced(claimed: bool) -> Delivery {
    Delivery::Misplaced { output_id: "o1".to_owned(), linked_to: None, moved: false, claimed }
}

/// The changes that make a case inconsistent or unusual.
const TROUBLES: &[fn(&mut Facts)] = &[
    |facts| facts.record.delivery = misplaced(false),
    |facts| facts.record.delivery = misplaced(true),
    |facts| facts.record.delivery = Delivery::Delivered { output_id: "o1".to_owned() },
    |facts| facts.record.was_recovered = true,
    |facts| facts.record.refunded_elsewhere.item = true,
    |facts| facts.record.refunded_elsewhere.part = true,
    |facts| facts.record.refunded_elsewhere.whole_charge = true,
    |facts| facts.record.rival = true,
    // The items do not sum up to the draw.
    |facts| facts.record.items.credits += 1,
    |facts| facts.record.items.credits -= 1,
    |facts| facts.record.items.negative = true,
    |facts| {
        facts.record.charge.drawn.wallet += facts.record.charge.drawn.subscription + 1;
        facts.record.charge.drawn.subscription = -1;
    },
    // The item has no price; the sum is kept.
    |facts| facts.record.item.iter_mut().for_each(|item| item.credits = 0),
    // The platform recorded no job; it recorded a failure.
    |facts| facts.record.item.iter_mut().for_each(|item| item.job = None),
    |facts| facts.record.item.iter_mut().for_each(|item| item.failed_at = Some(charged_at() + MINUTE)),
    // A balance row is missing; there are two.
    |facts| facts.record.balance_rows.wallet = 0,
    |facts| facts.record.balance_rows.subscription = 2,
    // The ledger has debits that equal the draw; that differ from it.
    |facts| facts.record.debits = Some(-facts.record.charge.drawn.total()),
    |facts| facts.record.debits = Some(1 - facts.record.charge.drawn.total()),
    // The item was removed; the charge has no items; items were added to a charge without any.
    |facts| facts.record.item = None,
    |facts| {
        (facts.record.item, facts.record.items) = (None, ItemsSum::default());
        facts.orphan.item.output_index = WHOLE_CHARGE;
    },
    |facts| {
        facts.record.item = None;
        facts.orphan.item.output_index = WHOLE_CHARGE;
    },
];

pub fn any_doubt() -> impl Strategy<Value = Verdict> {
    use Doubt::{RateLimited, Unauthorized, UnknownProvider, Unreachable, Unreadable};
    let doubts = [Unreachable, RateLimited, Unauthorized, Unreadable, UnknownProvider];
    prop::sample::select(doubts.map(Verdict::CouldNotTell).to_vec())
}

pub fn any_end() -> impl Strategy<Value = Verdict> {
    prop::sample::select(vec![Verdict::Succeeded, Verdict::Failed, Verdict::Cancelled])
}

pub fn any_verdict() -> impl Strategy<Value = Verdict> {
    let open = prop::sample::select(vec![Verdict::Queued, Verdict::Running, Verdict::UnknownJob]);
    // Ended jobs and their files have the most cases to distinguish.
    prop_oneof![4 => any_end(), 3 => open, 2 => any_doubt()]
}

fn any_class() -> impl Strategy<Value = FailureClass> {
    use FailureClass::{ContentSafety, MalformedResponse, ProviderError, QueueTimeout, ServerError};
    prop::sample::select(vec![ServerError, QueueTimeout, ContentSafety, MalformedResponse, ProviderError])
}

fn any_source() -> impl Strategy<Value = Source> {
    prop_oneof![
        6 => Just(file(None).source),
        1 => Just(Source::Inline { bytes: bytes::Bytes::from_static(b"png"), content_type: None }),
        2 => any_class().prop_map(|class| Source::Failed { class, message: None }),
    ]
}

fn offers(named: f64) -> impl Strategy<Value = Vec<Offer>> {
    let one = (prop::bool::weighted(named), 0..5_i64, any_source(), prop::option::of(0..600_u32));
    prop::collection::vec(one, 1..6).prop_map(|offers| {
        let mut outputs: Vec<Offer> = Vec::new();
        for (named, index, source, minutes) in offers {
            let index = named.then_some(index);
            // An answer that names an output twice is unreadable, so it does not reach `policy`.
            if index.is_none() || outputs.iter().all(|offer| offer.index != index) {
                let expires_at = minutes.map(|minutes| charged_at() + minutes * MINUTE);
                outputs.push(Offer { index, source, expires_at });
            }
        }
        outputs
    })
}

prop_compose! {
    pub fn answer(verdicts: impl Strategy<Value = Verdict>)(
        verdict in verdicts,
        class in prop::option::of(any_class()),
        outputs in prop_oneof![3 => Just(Vec::new()), 3 => offers(0.0), 3 => offers(1.0), 1 => offers(0.5)],
        gone in 0..5_u8,
    ) -> Evidence {
        let mut answer = evidence(verdict);
        // Only a job that succeeded has files that are gone; anything else is unreadable. Sometimes
        // the answer lists files all the same.
        answer.outputs_gone = verdict == Verdict::Succeeded && gone > 1;
        (answer.class, answer.outputs) = (class, if answer.outputs_gone && gone > 2 { Vec::new() } else { outputs });
        answer
    }
}

prop_compose! {
    /// An item of a charge with one to five items, and of a job with one to five items.
    fn paid()(
        prices in prop::collection::vec(1..500_i64, 1..6), nth in any::<Index>(), of_subscription in 0..=4_i64,
        mates in 1..6_usize, rank in any::<Index>(), open_before in any::<Index>(), stored in 0..4_usize,
        unhashed in prop_oneof![9 => Just(0_usize), 1 => Just(1)],
    ) -> Facts {
        let mut facts = facts();
        let nth = nth.index(prices.len());
        let total: i64 = prices.iter().sum();
        let subscription = total * of_subscription / 4;
        facts.record.charge.drawn = Split { subscription, wallet: total - subscription };
        facts.record.items = ItemsSum { count: prices.len(), credits: i128::from(total), negative: false };
        let rank = rank.index(mates);
        facts.share = JobShare {
            items: mates,
            rank,
            open_rank: open_before.index(rank + 1),
            stored: (0..stored).map(|nth| format!("hash{nth}")).collect(),
            unhashed,
        };
        let item = facts.record.item.as_mut().expect("the sample has one");
        item.credits = prices[nth];
        item.id.output_index = i64::try_from(nth).expect("at most five");
        facts.orphan.item = item.id.clone();
        item.job.as_mut().expect("the sample has one").output_index = i64::try_from(rank).expect("at most five");
        facts
    }
}

prop_compose! {
    /// An orphan found and asked about at any time: soon after the charge, or late with two hours
    /// left.
    fn asked()(
        mut facts in paid(), opened in prop_oneof![Just(15), 0..2880_u32], doubt in prop_oneof![Just(1320), 60..2880_u32],
        questions in prop_oneof![0..4_i64, 4..500_i64], waits in prop_oneof![0..12_i64, 12..200_i64, Just(i64::MAX)],
        first in prop_oneof![(0..60_u32).prop_map(Ok), (0..1440_u32).prop_map(Ok), (25..35_u32).prop_map(Err), Just(Err(30))],
        id in any::<i64>(),
    ) -> Facts {
        let orphan = &mut facts.orphan;
        (orphan.id, orphan.questions, orphan.waits) = (id, questions, waits);
        orphan.opened_at = charged_at() + opened * MINUTE;
        orphan.refund_by = (charged_at() + doubt * MINUTE).max(orphan.opened_at + 120 * MINUTE);
        // Counted from when it was found, or back from `refund_by`.
        orphan.first_asked_at = (questions > 0).then(|| match first {
            Ok(after) => orphan.opened_at + after * MINUTE,
            Err(before) => orphan.refund_by - before * MINUTE,
        });
        facts
    }
}

prop_compose! {
    pub fn options()(grace in prop_oneof![Just(60), 1..180_u64], prefer_refund in prop::bool::weighted(0.15)) -> PolicyOptions {
        PolicyOptions { unknown_job_grace: Duration::from_mins(grace), prefer_refund }
    }
}

prop_compose! {
    pub fn bounds()(retention in prop::option::of(1..2000_u64), expires in prop::option::of(0..2880_u32)) -> WaitBounds {
        WaitBounds {
            retention: retention.map(Duration::from_mins),
            expires_at: expires.map(|minutes| charged_at() + minutes * MINUTE),
        }
    }
}

/// Exactly at the boundary, or a microsecond or a minute before or after it.
fn beside(boundary: Timestamp, aside: usize) -> Timestamp {
    let micro = Duration::from_micros(1);
    [boundary, boundary - micro, boundary + micro, boundary - MINUTE, boundary + MINUTE][aside]
}

prop_compose! {
    /// A case in which each trouble has this probability, with one of the given verdicts.
    pub fn case_of(verdicts: impl Strategy<Value = Verdict>, trouble: f64)(
        mut facts in asked(), mut answer in answer(verdicts), options in options(), at in 0..2880_u32,
        boundary in 0..8_usize, aside in 0..5_usize, cancelled in prop::bool::weighted(0.15),
        troubles in prop::collection::vec(prop::bool::weighted(trouble), TROUBLES.len()),
    ) -> PolicyCase {
        for (change, _) in TROUBLES.iter().zip(troubles).filter(|(_, comes)| *comes) {
            change(&mut facts);
        }
        // Not one of the troubles: a cancellation matters only if the files are gone (P11).
        facts.record.charge.cancelled_at = cancelled.then(|| charged_at() + 2 * MINUTE);
        let orphan = &facts.orphan;
        let now = match boundary {
            0 | 1 => beside(orphan.refund_by, aside),
            2 => beside(charged_at() + options.unknown_job_grace, aside),
            3 => beside(orphan.first_asked_at.unwrap_or(orphan.opened_at) + 30 * MINUTE, aside),
            _ => charged_at() + at * MINUTE,
        };
        answer.asked_at = now;
        PolicyCase { facts, answer, options, now }
    }
}

/// Any case, with the ordinary probability of troubles.
pub fn case() -> impl Strategy<Value = PolicyCase> {
    case_of(any_verdict(), SOME)
}
