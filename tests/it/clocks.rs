//! The database's clock is wrong for a while: far ahead during one pass, or set back in the middle
//! of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use makegood::report::PassReport;

use crate::world::{HOUR, MINUTE, World, on_both};

/// The corrections after a fast clock, from the report.
fn put_right(report: &PassReport) -> Vec<&str> {
    let ahead = report.findings.iter().filter(|each| each.kind == "clock_was_ahead");
    ahead.map(|each| each.about.split(" of ").next().unwrap_or_default()).collect()
}

on_both! {
    async fn p14_p15_a_clock_that_was_a_month_ahead_for_one_pass_loses_nothing(world) {
        world.balance("ada", 0, 0).await;
        world.charge("waits").job("running-1").insert().await;
        world.pass().await;
        let now = world.now();
        world.clock.set(now + 30 * 24 * HOUR);
        // Found by the wrong time, and asked about by it.
        world.charge("found-then").job("running-2").age(30 * 24 * HOUR).insert().await;
        world.charge("down-then").job("down-3").age(30 * 24 * HOUR + 2 * HOUR).insert().await;
        world.pass_with(makegood::pass::Orders {
            since: Some(makegood::detect::Since { from: now - 24 * HOUR, backlog: true }),
            ..World::orders()
        }).await;
        assert_eq!(world.fate("found-then", 0).await, "open still_running");
        world.clock.set(now + MINUTE);
        world.charge("later").job("failed-4").age(30 * MINUTE).insert().await;
        let report = world.pass().await;
        assert_eq!(put_right(&report), ["a scan position", "3 open orphans"]);
        assert_eq!(world.fate("later", 0).await, "refunded provider_error", "the cursors did not skip it");
        assert_eq!(world.simulator.asks("running-2"), 2, "due at once, not in a month");
        let report = world.pass().await;
        assert!(report.findings.is_empty(), "told once: {:?}", report.findings);
        // And each in time, but not before its time.
        for _ in 0..43 {
            world.pass().await;
            world.pass_time(30 * MINUTE);
        }
        for (charge, fate) in [("waits", "refunded timed_out"), ("found-then", "open still_running"), ("down-then", "refunded unconfirmed")] {
            assert_eq!(world.fate(charge, 0).await, fate, "{charge}");
        }
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.fate("found-then", 0).await, "refunded timed_out");
        assert_eq!(world.balance_of("ada").await, (0, 40));
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_a_clock_that_leaps_ahead_in_the_middle_of_a_pass_puts_nothing_off(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..3 {
            world.charge(&format!("c{nth}")).job(&format!("running-{nth}")).insert().await;
        }
        let (clock, now, once) = (world.clock.clone(), world.now(), Arc::new(AtomicBool::new(false)));
        world.simulator.on_ask(Arc::new(move |_| {
            if !once.swap(true, Ordering::SeqCst) {
                clock.set(now + 30 * HOUR);
            }
            Box::pin(async {})
        }));
        world.pass().await;
        // A lease ends in the leap: a lane that claims again meanwhile may have asked twice.
        let asks = |world: &crate::world::World| {
            (0..3).map(|nth| world.simulator.asks(&format!("running-{nth}"))).collect::<Vec<_>>()
        };
        let before = asks(&world);
        world.clock.set(now + MINUTE);
        let report = world.pass().await;
        assert_eq!(put_right(&report), ["3 open orphans"], "no cursor tells of it: they were moved before");
        for (before, after) in before.iter().zip(asks(&world)) {
            assert_eq!(after, before + 1, "due at once, not in thirty hours");
        }
        let report = world.pass().await;
        assert!(report.findings.is_empty(), "told once: {:?}", report.findings);
        world.books_balance().await;
    }
}

on_both! {
    async fn an_orphan_opened_by_a_fast_clock_counts_no_question_when_it_is_redated(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").age(HOUR).insert().await;
        let now = world.now();
        let detect = async |at| {
            world.clock.set(at);
            crate::world::detect(&world.parts, None, at).await
        };
        detect(now + 30 * HOUR).await;
        let doubt_until = async |at| world.texts(&format!("SELECT charge_id AS v FROM makegood_orphans WHERE refund_by = {}", world.at(at))).await;
        assert_eq!(doubt_until(now + 32 * HOUR).await, ["c1"]);
        assert_eq!(put_right(&detect(now + MINUTE).await), ["a scan position", "1 open orphan"]);
        let asked = "SELECT count(*) AS v FROM makegood_orphans WHERE first_asked_at IS NOT NULL OR last_asked_at IS NOT NULL";
        assert_eq!(world.number(asked).await, 0, "three questions are still to be asked, over half an hour");
        assert_eq!(doubt_until(now - HOUR + 22 * HOUR).await, ["c1"]);
    }
}

on_both! {
    async fn a_lease_of_a_dead_worker_with_a_fast_clock_expires(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        let now = world.now();
        world.clock.set(now + 30 * 24 * HOUR);
        let since = makegood::detect::Since { from: now - 24 * HOUR, backlog: true };
        crate::world::detect(&world.parts, Some(since), world.now()).await;
        let claimed = world.store.claim("replicate", world.now(), 15 * MINUTE, 10).await.unwrap();
        assert_eq!(claimed.cases.len(), 1);
        world.clock.set(now + MINUTE);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        world.books_balance().await;
    }
}

on_both! {
    async fn a_clock_that_is_put_back_in_the_middle_of_a_pass_does_not_keep_it_going(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..3 {
            world.charge(&format!("c{nth}")).job(&format!("running-{nth}")).insert().await;
        }
        let (clock, back, once) = (world.clock.clone(), world.now() - 5 * HOUR, Arc::new(AtomicBool::new(false)));
        world.simulator.on_ask(Arc::new(move |_| {
            if !once.swap(true, Ordering::SeqCst) {
                clock.set(back);
            }
            Box::pin(async {})
        }));
        world.pass().await;
        for nth in 0..3 {
            assert_eq!(world.simulator.asks(&format!("running-{nth}")), 1, "{nth}");
            assert_eq!(world.fate(&format!("c{nth}"), 0).await, "open still_running");
        }
        world.books_balance().await;
    }
}
