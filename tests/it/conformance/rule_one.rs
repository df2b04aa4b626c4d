//! Rule 1 ("delivered") exists twice, in SQL for detection and in Rust for decisions. Both must
//! agree on generated cases. The generator has a fixed seed, so the cases are always the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use makegood::facts::Delivery;

use crate::world::{HOUR, World, on_both};

const CASES: usize = 400;

/// Numbers that look random and are always the same (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// Charges of one or two items, and up to three outputs each that fit more or less.
fn rows(world: &World) -> String {
    let mut dice = Dice(0x5EED_CAFE);
    let at = world.at(world.now() - 3 * HOUR);
    let mut sql = String::new();
    for nth in 0..CASES {
        let job = |dice: &mut Dice| match dice.below(6) {
            0 => "NULL".to_owned(),
            1 => "''".to_owned(),
            which => format!("'job-{nth}-{}'", which % 2),
        };
        let provider = dice.of(&["replicate", "fal"]);
        let charge_job = job(&mut dice);
        let items = 1 + dice.below(2);
        writeln!(sql, "INSERT INTO charges VALUES ('c{nth}', 'ada', 'p', 'n', '{provider}', 'm', {charge_job}, {at}, 0, {}, NULL);", items * 10).unwrap();
        for index in 0..items {
            let item_job = if dice.below(2) == 0 { "NULL".to_owned() } else { job(&mut dice) };
            let job_index = dice.of(&["NULL", "NULL", "0", "1"]);
            writeln!(
                sql,
                "INSERT INTO charge_items VALUES ('c{nth}', {index}, 10, {item_job}, {job_index}, NULL);"
            )
            .unwrap();
            writeln!(
                sql,
                "INSERT INTO makegood_orphans (charge_id, output_index, provider, charged_at, opened_at, opened_by, refund_by, window_ends_at, state, due_at, urgent_at)
                 VALUES ('c{nth}', {index}, '{provider}', {at}, {at}, 'test', {at}, {at}, 'open', {at}, {at});"
            )
            .unwrap();
        }
        for output in 0..dice.below(4) {
            let link = match dice.below(5) {
                0 => "NULL, NULL".to_owned(),
                1 => format!("'c{nth}', NULL"),
                2 => format!("'c{}', 0", (nth + 1) % CASES),
                _ => format!("'c{nth}', {}", dice.below(2)),
            };
            let provider = if dice.below(6) == 0 { "fal" } else { provider };
            let job_id =
                if dice.below(8) == 0 { String::new() } else { format!("job-{nth}-{}", dice.below(2)) };
            let (project, node) =
                (dice.of(&["p", "p", "p", "elsewhere"]), dice.of(&["n", "n", "n", "there"]));
            let moved = if dice.below(4) == 0 { at.as_str() } else { "NULL" };
            let deleted = if dice.below(4) == 0 { at.as_str() } else { "NULL" };
            writeln!(
                sql,
                "INSERT INTO stored_outputs VALUES ('o{nth}-{output}', {link}, '{provider}', '{job_id}', {}, '{project}', '{node}', 'u', 't', 1, 'h', {at}, {moved}, {deleted});",
                dice.below(2)
            )
            .unwrap();
        }
    }
    sql
}

on_both! {
    async fn p10_p13_delivered_means_the_same_in_sql_and_in_rust(world) {
        world.run(&rows(&world)).await;
        let in_sql: BTreeSet<String> = world.texts("SELECT DISTINCT charge_id || '/' || output_index AS v FROM makegood_deliveries").await.into_iter().collect();
        let mut in_rust = BTreeSet::new();
        let mut judged = 0;
        for provider in ["replicate", "fal"] {
            let claimed = world.store.claim(provider, world.now(), HOUR, 10_000).await.unwrap();
            assert!(claimed.unreadable.is_empty(), "{:?}", claimed.unreadable);
            for case in claimed.cases {
                judged += 1;
                match case.facts.record.delivery {
                    Delivery::Delivered { .. } => {
                        in_rust.insert(case.facts.orphan.item.to_string());
                    }
                    Delivery::Misplaced { .. } | Delivery::Missing => {}
                }
            }
        }
        assert!(judged > CASES, "{judged}");
        assert!(in_rust.len() > 50 && in_rust.len() < judged - 50, "{} of {judged} delivered: the cases are lopsided", in_rust.len());
        let only_sql: Vec<_> = in_sql.difference(&in_rust).collect();
        let only_rust: Vec<_> = in_rust.difference(&in_sql).collect();
        assert!(only_sql.is_empty() && only_rust.is_empty(), "only in SQL: {only_sql:?}\nonly in Rust: {only_rust:?}");
    }
}
