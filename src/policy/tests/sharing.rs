//! Property tests of how a job's files are distributed over all its items: no file goes to two
//! items, and no file is left over while an item waits.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::samples::{OPTIONS, charged_at, facts, file, offering};
use super::super::{Action, Pick, decide};
use super::any::{MINUTE, any_end};
use crate::evidence::{Evidence, FailureClass, Offer, Source, Verdict};
use crate::facts::{Facts, JobShare};

/// The state of an item of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mate {
    /// The item waits for an output.
    Open,
    /// The item has one of the offered files.
    Stored,
    /// The item was refunded.
    Refunded,
}

fn any_mate() -> impl Strategy<Value = Mate> {
    prop_oneof![3 => Just(Mate::Open), 1 => Just(Mate::Stored), 1 => Just(Mate::Refunded)]
}

/// The rank and the facts of each open item of the job.
fn open_items(mates: &[Mate], stored: &[String]) -> Vec<(usize, Facts)> {
    let open = mates.iter().enumerate().filter(|(_, mate)| **mate == Mate::Open);
    open.enumerate()
        .map(|(open_rank, (rank, _))| {
            let mut facts = facts();
            facts.share =
                JobShare { items: mates.len(), rank, open_rank, stored: stored.to_vec(), unhashed: 0 };
            let job = facts.record.item.as_mut().and_then(|item| item.job.as_mut());
            job.expect("the sample has one").output_index = i64::try_from(rank).expect("a handful");
            (rank, facts)
        })
        .collect()
}

/// Outputs without an index: a file for each true, a failure for each false.
fn unnamed(files: &[bool]) -> Vec<Offer> {
    let failure = Source::Failed { class: FailureClass::ServerError, message: None };
    files
        .iter()
        .map(|is_file| if *is_file { file(None) } else { Offer { source: failure.clone(), ..file(None) } })
        .collect()
}

fn any_outputs() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(prop::bool::weighted(0.8), 0..10)
}

/// The positions of the files in the answer.
fn positions(outputs: &[bool]) -> Vec<usize> {
    outputs.iter().enumerate().filter(|(_, is_file)| **is_file).map(|(position, _)| position).collect()
}

fn action(facts: &Facts, answer: &Evidence) -> Action {
    decide(facts, Some(answer), &OPTIONS, charged_at() + 20 * MINUTE).action
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn p05_p06_files_without_an_index_go_one_to_an_item_and_the_remaining_items_are_refunded(
        mates in prop::collection::vec(any_mate(), 1..8), outputs in any_outputs(), verdict in any_end(),
        taken in prop::collection::vec(any::<prop::sample::Index>(), 8),
    ) {
        let answer = offering(verdict, unnamed(&outputs));
        let positions = positions(&outputs);
        let offered = positions.len();
        let complete = offered >= mates.len();
        // The stored files: of a complete list each item's own, otherwise any.
        let has_one = mates.iter().enumerate().filter(|(_, mate)| **mate == Mate::Stored).map(|(rank, _)| rank);
        let mut free: Vec<usize> = (0..offered).collect();
        let stored: BTreeSet<usize> = has_one
            .zip(taken)
            .filter_map(|(rank, any)| {
                if complete { Some(rank) } else { (!free.is_empty()).then(|| free.remove(any.index(free.len()))) }
            })
            .collect();
        let hashes: Vec<String> = stored.iter().map(|nth| format!("hash{nth}")).collect();
        let left: Vec<usize> = (0..offered).filter(|nth| !stored.contains(nth)).collect();

        let open = open_items(&mates, &hashes);
        let mut got = BTreeSet::new();
        for (rank, facts) in &open {
            let nth = match action(facts, &answer) {
                Action::Recover(Pick::Offer(position)) => positions.iter().position(|its| *its == position).expect("a file"),
                Action::Recover(Pick::Unclaimed(nth)) => left[nth],
                Action::Refund => continue,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(!complete || nth == *rank, "the files are complete, and {rank} gets {nth}");
            prop_assert!(!stored.contains(&nth) && got.insert(nth), "file {nth} goes to two items");
        }
        let expected = if complete { open.len() } else { open.len().min(left.len()) };
        prop_assert_eq!(got.len(), expected, "of {} items that wait", open.len());
    }

    #[test]
    fn p05_p06_files_with_an_index_go_only_to_that_item(
        mates in prop::collection::vec(any_mate(), 1..8), offered in prop::collection::btree_set(0..10_i64, 0..10), verdict in any_end(),
    ) {
        // In descending order of the index.
        let names: Vec<i64> = offered.iter().rev().copied().collect();
        let answer = offering(verdict, names.iter().map(|name| file(Some(*name))).collect());
        for (rank, facts) in open_items(&mates, &[]) {
            let own = names.iter().position(|name| usize::try_from(*name) == Ok(rank));
            let expected = own.map_or(Action::Refund, |nth| Action::Recover(Pick::Offer(nth)));
            prop_assert_eq!(action(&facts, &answer), expected);
        }
    }

    /// A running job may still add files, so a short list decides nothing. A complete one is used
    /// past `refund_by`.
    #[test]
    fn p06_nothing_is_refunded_or_recovered_from_the_short_list_of_a_running_job(
        mates in prop::collection::vec(any_mate(), 1..8), outputs in any_outputs(), queued in any::<bool>(), late in any::<bool>(),
    ) {
        let verdict = if queued { Verdict::Queued } else { Verdict::Running };
        let answer = offering(verdict, unnamed(&outputs));
        let positions = positions(&outputs);
        for (rank, facts) in open_items(&mates, &[]) {
            let now = if late { facts.orphan.refund_by } else { facts.orphan.refund_by - MINUTE };
            let taken = late && positions.len() >= mates.len();
            let expected = if taken { Action::Recover(Pick::Offer(positions[rank])) } else { Action::Wait };
            prop_assert_eq!(decide(&facts, Some(&answer), &OPTIONS, now).action, expected);
        }
    }
}
