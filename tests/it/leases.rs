//! Many workers on one database: who holds which lease, and what settle checks before it moves
//! money.
//!
//! These tests run the store's stages one by one, so that rows can change exactly between two of
//! them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use makegood::brake::{BrakeContext, BrakeLimits};
use makegood::policy::{Action, Decision, Pick, Reason};
use makegood::store::{Case, Outcome, SettleRules, Settlement, Store, Stuck};

use crate::late::{LEASE, REFUND, another, detect, settlement};
use crate::world::{HOUR, ItemRow, MINUTE, World, on_both};

async fn claim(store: &Store, world: &World, batch: u32) -> Vec<Case> {
    store.queue_due("replicate", world.now(), 1_000).await.unwrap();
    let claimed = store.claim("replicate", world.now(), LEASE, batch).await.unwrap();
    assert!(claimed.unreadable.is_empty(), "{:?}", claimed.unreadable);
    claimed.cases
}

pub fn rules(world: &World, brake: BrakeLimits) -> SettleRules {
    let parts = &world.parts;
    SettleRules {
        brake: BrakeContext { limits: brake, ..BrakeContext::default() },
        dating: makegood::detect::dating(&parts.rules.detect, &parts.providers),
        late: parts.rules.late,
        held_for: HOUR,
        not_before: None,
        pass_id: None,
        decided_by: "makegood".to_owned(),
        stuck: Stuck::default(),
        cannot_post: None,
    }
}

/// Refunds all cases and returns the result of each, by charge.
async fn refund(store: &Store, world: &World, cases: &[Case], brake: BrakeLimits) -> Vec<(String, Outcome)> {
    let batch: Vec<Settlement> = cases.iter().map(|case| settlement(world, case.clone(), REFUND)).collect();
    let outcomes = store.settle(&batch, &rules(world, brake)).await.unwrap();
    cases.iter().map(|case| case.facts.orphan.item.to_string()).zip(outcomes).collect()
}

fn settled() -> Outcome {
    Outcome::Settled(REFUND)
}

on_both! {
    async fn two_workers_never_hold_one_orphan_and_never_split_a_job(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..30 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).drawn(0, 30).items(&[10, 10, 10]).insert().await;
        }
        // A job of items of two charges.
        for (charge, index) in [("x", 0), ("y", 1)] {
            let item = ItemRow { credits: 10, job: Some("failed-shared".to_owned()), index: Some(index), failed: None };
            world.charge(charge).item_rows(vec![item]).insert().await;
        }
        detect(&world).await;
        let one = |store: Store| {
            let world = &world;
            async move {
                let (mut mine, mut empty) = (Vec::new(), 0);
                // It got nothing because another worker claims: there may be more in a moment.
                while empty < 20 {
                    let cases = claim(&store, world, 7).await;
                    if cases.is_empty() {
                        empty += 1;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    } else {
                        mine.push(cases);
                    }
                }
                mine
            }
        };
        let (a, b, c) = (another(&world).await, another(&world).await, another(&world).await);
        let (a, b, c) = tokio::join!(one(a), one(b), one(c));
        let mut seen = BTreeSet::new();
        let mut jobs: BTreeMap<String, usize> = BTreeMap::new();
        for cases in a.iter().chain(&b).chain(&c) {
            let of_claim: BTreeSet<String> = cases.iter().map(|case| case.facts.record.item.as_ref().unwrap().job.as_ref().unwrap().job_id.clone()).collect();
            for job in of_claim {
                *jobs.entry(job).or_default() += 1;
            }
            for case in cases {
                assert_eq!(case.token, 1);
                assert!(seen.insert(case.facts.orphan.id), "{} was claimed twice", case.facts.orphan.item);
            }
        }
        assert_eq!(seen.len(), 92);
        assert_eq!(jobs.len(), 31);
        assert!(jobs.values().all(|claims| *claims == 1), "a job was split: {jobs:?}");
    }
}

on_both! {
    async fn a_lease_that_ran_out_goes_to_another_and_the_old_worker_has_lost(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let old = claim(&world.store, &world, 10).await;
        world.pass_time(Duration::from_secs(15 * 60 - 1));
        assert!(claim(&world.store, &world, 10).await.is_empty(), "still leased");
        world.pass_time(Duration::from_secs(1));
        let other = another(&world).await;
        let new = claim(&other, &world, 10).await;
        assert_eq!((old[0].token, new[0].token), (1, 2));
        // The old worker is resumed: none of its leases is valid any more.
        world.store.release(&[(old[0].facts.orphan.id, old[0].token)], None).await.unwrap();
        world.store.extend_leases(&[(old[0].facts.orphan.id, old[0].token)], 10 * HOUR).await.unwrap();
        assert_eq!(refund(&world.store, &world, &old, BrakeLimits::default()).await, [("c1/0".to_owned(), Outcome::Lost)]);
        assert_eq!(world.balance_of("ada").await, (0, 0));
        assert_eq!(refund(&other, &world, &new, BrakeLimits::default()).await, [("c1/0".to_owned(), settled())]);
        assert_eq!(refund(&world.store, &world, &old, BrakeLimits::default()).await, [("c1/0".to_owned(), Outcome::Lost)]);
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn a_lease_that_is_kept_alive_does_not_run_out(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let held = claim(&world.store, &world, 10).await;
        for _ in 0..4 {
            world.pass_time(10 * MINUTE);
            world.store.extend_leases(&[(held[0].facts.orphan.id, held[0].token)], LEASE).await.unwrap();
            assert!(claim(&world.store, &world, 10).await.is_empty());
        }
        assert_eq!(refund(&world.store, &world, &held, BrakeLimits::default()).await, [("c1/0".to_owned(), settled())]);
    }
}

on_both! {
    async fn a_released_lease_is_due_again_at_the_time_it_was_given(world) {
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let held = claim(&world.store, &world, 10).await;
        world.store.release(&[(held[0].facts.orphan.id, held[0].token)], None).await.unwrap();
        let again = claim(&world.store, &world, 10).await;
        assert_eq!(again[0].token, 2, "at once");
        world.store.release(&[(again[0].facts.orphan.id, again[0].token)], Some(world.now() + HOUR)).await.unwrap();
        assert!(claim(&world.store, &world, 10).await.is_empty());
        assert_eq!(refund(&world.store, &world, &again, BrakeLimits::default()).await, [("c1/0".to_owned(), Outcome::Lost)], "given back is given back");
        world.pass_time(HOUR);
        assert_eq!(claim(&world.store, &world, 10).await.len(), 1);
    }
}

on_both! {
    async fn p01_the_same_settlement_twice_is_one_refund(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let cases = claim(&world.store, &world, 10).await;
        let other = another(&world).await;
        let (one, two) = tokio::join!(
            refund(&world.store, &world, &cases, BrakeLimits::default()),
            refund(&other, &world, &cases, BrakeLimits::default())
        );
        let outcomes: BTreeSet<bool> = [&one, &two].iter().map(|each| each[0].1 == settled()).collect();
        assert_eq!(outcomes.len(), 2, "one of the two: {one:?} {two:?}");
        assert!([&one, &two].iter().any(|each| each[0].1 == Outcome::Lost), "{one:?} {two:?}");
        assert_eq!(refund(&world.store, &world, &cases, BrakeLimits::default()).await, [("c1/0".to_owned(), Outcome::Lost)]);
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p11_p20_whatever_changed_since_the_decision_is_decided_again(world) {
        world.balance("ada", 0, 0).await;
        let now = world.at(world.now());
        let output = |charge: &str, link| world.output_row(&format!("out-{charge}"), link, ("replicate", &format!("failed-{charge}"), 0), (&format!("p-{charge}"), &format!("n-{charge}")));
        let changes = [
            ("job", "UPDATE charges SET provider_job_id = 'other' WHERE id = 'job'".to_owned()),
            ("jobless", "UPDATE charges SET provider_job_id = NULL WHERE id = 'jobless'".to_owned()),
            ("own-job", "UPDATE charge_items SET provider_job_id = 'other' WHERE charge_id = 'own-job'".to_owned()),
            ("index", "UPDATE charge_items SET provider_output_index = 3 WHERE charge_id = 'index'".to_owned()),
            ("cancelled", format!("UPDATE charges SET cancelled_at = {now} WHERE id = 'cancelled'")),
            ("failed", format!("UPDATE charge_items SET failed_at = {now} WHERE charge_id = 'failed'")),
            ("price", "UPDATE charge_items SET credits = 11 WHERE charge_id = 'price'".to_owned()),
            ("draw", "UPDATE charges SET subscription_credits = 3, wallet_credits = 7 WHERE id = 'draw'".to_owned()),
            ("account", "UPDATE charges SET account_id = 'eve' WHERE id = 'account'".to_owned()),
            ("place", "UPDATE charges SET project_id = 'moved' WHERE id = 'place'".to_owned()),
            ("delivered", output("delivered", Some(("delivered", 0)))),
            ("stray", output("stray", None)),
            ("refunded", world.refund_row("refunded", Some(0), "wallet", 1)),
            ("refunded-whole", world.refund_row("refunded-whole", None, "wallet", 1)),
            ("more-items", "INSERT INTO charge_items VALUES ('more-items', 1, 10, NULL, NULL, NULL)".to_owned()),
            ("no-item", "DELETE FROM charge_items WHERE charge_id = 'no-item'".to_owned()),
            ("no-charge", "DELETE FROM charges WHERE id = 'no-charge'".to_owned()),
            ("rival", format!("INSERT INTO charges VALUES ('rival-2', 'ada', 'p', 'n', 'replicate', 'm', 'failed-rival', {now}, 0, 10, NULL); INSERT INTO charge_items VALUES ('rival-2', 0, 10, NULL, NULL, NULL)")),
        ];
        for (charge, _) in &changes {
            world.charge(charge).job(&format!("failed-{charge}")).insert().await;
        }
        world.charge("as-it-was").job("failed-as-it-was").insert().await;
        detect(&world).await;
        let cases = claim(&world.store, &world, 100).await;
        assert_eq!(cases.len(), changes.len() + 1);
        for (_, sql) in &changes {
            world.run(sql).await;
        }
        let before = world.number("SELECT count(*) AS v FROM ledger_entries").await;
        let outcomes: BTreeMap<String, Outcome> = refund(&world.store, &world, &cases, BrakeLimits::default()).await.into_iter().collect();
        for (charge, _) in &changes {
            assert_eq!(outcomes[&format!("{charge}/0")], Outcome::Changed, "{charge}");
        }
        assert_eq!(outcomes["as-it-was/0"], settled());
        assert_eq!(world.number("SELECT count(*) AS v FROM ledger_entries").await, before + 1);
        world.books_balance().await;
    }
}

on_both! {
    async fn p06_a_file_that_was_picked_by_its_place_among_others_is_picked_again_when_one_of_them_is_stored(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c").job("failed-c").drawn(0, 20).items(&[10, 10]).insert().await;
        detect(&world).await;
        let case = claim(&world.store, &world, 10).await.remove(1);
        world.store_output("first", Some(("c", 0)), ("replicate", "failed-c", 0), ("p-c", "n-c")).await;
        let settle = async |decision: Decision| {
            let batch = [settlement(&world, case.clone(), decision)];
            world.store.settle(&batch, &rules(&world, BrakeLimits::default())).await.unwrap().remove(0)
        };
        let by_place = Decision { action: Action::Recover(Pick::Unclaimed(1)), reason: Reason::OutputAvailable, rule: 5 };
        assert_eq!(settle(by_place).await, Outcome::Changed);
        // A refund rests on no file's place.
        assert_eq!(settle(REFUND).await, settled());
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_brakes_limit_holds_to_the_refund_across_two_processes(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..40 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        detect(&world).await;
        let limits = BrakeLimits { refunds_per_hour: 17, ..BrakeLimits::default() };
        let (one, two) = (another(&world).await, another(&world).await);
        let worker = |store: Store| {
            let world = &world;
            async move {
                let mut outcomes = Vec::new();
                loop {
                    let cases = claim(&store, world, 5).await;
                    if cases.is_empty() {
                        return outcomes;
                    }
                    outcomes.extend(refund(&store, world, &cases, limits).await);
                }
            }
        };
        let (one, two) = tokio::join!(worker(one), worker(two));
        let refunds = one.iter().chain(&two).filter(|(_, outcome)| *outcome == settled()).count();
        assert_eq!(refunds, 17);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 17);
        assert_eq!(world.balance_of("ada").await, (0, 170));
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans WHERE state = 'held' AND reason = 'brake'").await, 23);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_brake_events").await, 1, "pulled once");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_brakes_limit_of_a_pass_counts_earlier_refunds_of_the_pass_and_none_older(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..4 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        detect(&world).await;
        let pass_began = world.now() + 2 * MINUTE;
        let mut told = Vec::new();
        for _ in 0..4 {
            let case = claim(&world.store, &world, 1).await.remove(0);
            let watch = BrakeContext {
                limits: BrakeLimits { refunds_per_pass: 2, ..BrakeLimits::default() },
                pass_began: Some(pass_began),
                ..BrakeContext::default()
            };
            let rules = SettleRules { brake: watch, ..rules(&world, BrakeLimits::default()) };
            let outcomes = world.store.settle(&[settlement(&world, case, REFUND)], &rules).await.unwrap();
            told.push(outcomes[0] == settled());
            world.pass_time(2 * MINUTE);
        }
        // The first came before the pass: it does not count.
        assert_eq!(told, [true, true, true, false]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_an_output_that_a_person_moves_while_we_put_it_back_stays_where_it_was_put(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.store_output("out", None, ("replicate", "failed-1", 0), ("elsewhere", "there")).await;
        detect(&world).await;
        let case = claim(&world.store, &world, 10).await.remove(0);
        let relink = Decision { action: Action::Relink { output_id: "out".to_owned() }, reason: Reason::Misattributed, rule: 3 };
        world.run(&format!("UPDATE stored_outputs SET project_id = 'mine', node_id = 'here', moved_at = {}", world.at(world.now()))).await;
        let outcome = world.store.settle(&[settlement(&world, case, relink)], &rules(&world, BrakeLimits::default())).await.unwrap();
        assert_eq!(outcome, [Outcome::Changed]);
        assert_eq!(world.texts("SELECT project_id || ' ' || node_id AS v FROM stored_outputs").await, ["mine here"]);
    }
}

on_both! {
    async fn a_pass_that_is_asked_to_stop_gives_back_what_it_has_not_begun(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..5 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        let orders = World::orders();
        orders.stop.request();
        let report = world.pass_with(orders).await;
        assert!(report.stopped_early);
        assert_eq!(report.total("refund"), 0);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans WHERE leased_until IS NOT NULL").await, 0);
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.stopped_early), (5, false));
        world.books_balance().await;
    }
}

on_both! {
    async fn two_passes_at_once_end_as_one_would(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..20 {
            let fate = ["ok", "failed", "unknown", "cancelled"][nth % 4];
            world.charge(&format!("c{nth}")).job(&format!("{fate}-{nth}")).insert().await;
        }
        world.charge("batch").job("two-of-three-b").drawn(0, 30).items(&[10, 10, 10]).insert().await;
        let (one, two) = tokio::join!(world.pass(), world.pass());
        assert_eq!(one.total("refund") + two.total("refund"), 16, "{one:?}\n{two:?}");
        assert_eq!(one.total("recover") + two.total("recover"), 7);
        assert_eq!(world.balance_of("ada").await, (0, 160));
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 7);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans WHERE resolved_at IS NULL").await, 0);
        world.books_balance().await;
    }
}
