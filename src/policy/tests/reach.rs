//! Counts what the generated cases reach. A property test proves nothing about a row of the table
//! that no case reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::super::{Action, Decision};
use super::any::{PolicyCase, case};

/// A row of the page: rule, decision, reason.
pub type Row = (u8, &'static str, &'static str);

/// The rows of the page that `table` prints.
pub static PAGE: LazyLock<BTreeSet<Row>> = LazyLock::new(|| {
    let lines = include_str!("../../policy.md").lines();
    let cells =
        lines.map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>());
    cells
        .filter_map(|cells| match cells[..] {
            [_, rule, _, action, reason, _] => Some((rule.parse().ok()?, action, reason)),
            _ => None,
        })
        .collect()
});

pub fn row(decision: &Decision) -> Row {
    (decision.rule, decision.action.as_str(), decision.reason.as_str())
}

/// Rows that only settle decides.
const DECIDED_BY_SETTLE: [Row; 5] = [
    (3, "hold", "cannot_relink"),
    (16, "hold", "brake"),
    (16, "hold", "cannot_post"),
    (16, "hold", "charge_changed"),
    (16, "hold", "not_posted"),
];

/// The same cases in every run.
static CASES: LazyLock<Vec<PolicyCase>> = LazyLock::new(|| {
    let mut runner = TestRunner::deterministic();
    let cases = case();
    (0..12_000).map(|_| cases.new_tree(&mut runner).expect("nothing is filtered").current()).collect()
});

#[test]
fn the_cases_reach_every_row_of_the_table_and_two_in_five_need_the_providers_answer() {
    let mut reached: BTreeMap<Row, usize> = BTreeMap::new();
    let (mut by_answer, mut refunds, mut waits) = (0, 0, 0);
    for case in CASES.iter() {
        let decision = case.decided();
        by_answer += usize::from((5..=13).contains(&decision.rule));
        refunds += usize::from(decision.action == Action::Refund);
        waits += usize::from(decision.action == Action::Wait);
        *reached.entry(row(&decision)).or_default() += 1;
        if matches!(decision.action, Action::Recover(_)) {
            for gone in [true, false] {
                *reached.entry(row(&case.copy_failed_at(gone, case.now))).or_default() += 1;
            }
        }
    }
    println!("{by_answer} by rules 5 to 13, {refunds} refunds, {waits} waits; {reached:#?}");
    for row in PAGE.iter().filter(|row| !DECIDED_BY_SETTLE.contains(row)) {
        let times = reached.get(row).copied().unwrap_or_default();
        assert!(times >= 10, "{row:?} was reached by {times} of the cases");
    }
    assert!(by_answer * 5 >= CASES.len() * 2, "{by_answer}");
    assert!(refunds * 5 >= CASES.len(), "{refunds}");
    assert!(waits * 10 >= CASES.len(), "{waits}");
}

#[test]
fn the_cases_lie_on_both_sides_of_every_limit_in_time_and_exactly_on_it() {
    let mut seen: BTreeMap<(&str, i64), usize> = BTreeMap::new();
    for case in CASES.iter() {
        let orphan = &case.facts.orphan;
        let charged_at = case.facts.record.charge.charged_at;
        let limits = [
            ("refund_by", Some(orphan.refund_by)),
            ("grace", Some(charged_at + case.options.unknown_job_grace)),
            ("half an hour of questions", orphan.first_asked_at.map(|first| first + super::any::MINUTE * 30)),
        ];
        for (what, limit) in limits {
            let aside = limit.map(|limit| case.now.micros() - limit.micros());
            if let Some(aside @ -1..=1) = aside {
                *seen.entry((what, aside)).or_default() += 1;
            }
        }
        if case.asked_enough() {
            *seen.entry(("asked enough, with questions", orphan.questions.min(3))).or_default() += 1;
        }
    }
    println!("{seen:#?}");
    for what in ["refund_by", "grace", "half an hour of questions"] {
        for aside in -1..=1 {
            let times = seen.get(&(what, aside)).copied().unwrap_or_default();
            assert!(times >= 20, "{aside} µs from {what}: {times} of the cases");
        }
    }
    assert!(seen.get(&("asked enough, with questions", 2)).is_some_and(|times| *times >= 100));
}
