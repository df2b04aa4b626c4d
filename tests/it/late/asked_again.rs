//! Late questions after a refund without proof: when, how often, by which process, and with what
//! result.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use makegood::demo::simulator::Canned;
use makegood::pass;
use makegood::policy::late::{End, LateTimes};
use makegood::provider::Providers;
use makegood::store::{LateNext, LateSettlement, LateSuccesses};
use serde_json::json;

use super::{LEASE, another, counted, late_successes};
use crate::world::{HOUR, ItemRow, MINUTE, World, on_both};

/// From now on the job has succeeded with this many files.
fn succeeds(world: &World, job: &str, files: usize) {
    let base = world.simulator.base_url();
    let files: Vec<String> = (0..files).map(|nth| format!("{base}/files/{job}/{nth}.png")).collect();
    world.simulator.set_answer(job, Canned::json(200, &json!({"status": "succeeded", "output": files})));
}

async fn ended(world: &World) -> Vec<String> {
    world
        .texts("SELECT charge_id || '/' || output_index || ' ' || asked || ' ' || coalesce(ended_because, 'open') AS v FROM makegood_late_questions ORDER BY 1")
        .await
}

/// A charge that is refunded by the first pass, because its provider does not know the job.
async fn refunded(world: &World, charge: &str) {
    world.charge(charge).job(&format!("unknown-{charge}")).insert().await;
}

on_both! {
    async fn a_job_that_succeeds_after_its_refund_is_noticed_once_and_nothing_is_taken_back(world) {
        world.balance("ada", 0, 0).await;
        refunded(&world, "never").await;
        world.charge("reported").job("running-reported").failed().insert().await;
        world.charge("jobless").insert().await;
        world.charge("proven").job("failed-proven").insert().await;
        world.pass().await;
        assert_eq!(world.balance_of("ada").await, (0, 40));
        assert_eq!(ended(&world).await, ["jobless/0 0 open", "never/0 0 open", "reported/0 0 open"], "what was proven is not asked about");

        for job in ["unknown-never", "running-reported", "late-submitted", "failed-proven"] {
            succeeds(&world, job, 1);
        }
        world.run("UPDATE charges SET provider_job_id = 'late-submitted' WHERE id = 'jobless'").await;
        let asks = |world: &World| ["unknown-never", "running-reported", "late-submitted", "failed-proven"].map(|job| world.simulator.asks(job));
        let before = asks(&world);
        world.pass_time(5 * HOUR + 59 * MINUTE);
        world.pass().await;
        assert_eq!(asks(&world), before, "not before its time");
        world.pass_time(2 * MINUTE);
        let report = world.pass().await;
        assert_eq!((report.asked_again, report.late_successes, report.stored_late), (3, 3, 0), "{report:?}");
        assert_eq!(asks(&world), [before[0] + 1, before[1] + 1, 1, before[3]]);
        for _ in 0..40 {
            world.pass_time(HOUR);
            assert_eq!(world.pass().await.asked_again, 0);
        }
        assert_eq!(late_successes(&world).await, ["jobless/0 never_stored question succeeded", "never/0 never_stored question succeeded", "reported/0 never_stored question succeeded"]);
        assert_eq!(ended(&world).await, ["jobless/0 1 succeeded", "never/0 1 succeeded", "reported/0 1 succeeded"]);
        assert_eq!(counted(&world, "never_stored").await, 3);
        // Nothing is taken back, nothing is fetched, and the item stays refunded.
        assert_eq!(world.balance_of("ada").await, (0, 40));
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 0);
        assert_eq!(world.number("SELECT count(*) AS v FROM usage_history WHERE status = 'refunded' AND NOT billable").await, 4);
        let story = world.texts("SELECT kind || ' ' || coalesce(detail, '') AS v FROM makegood_orphan_events WHERE charge_id = 'never' ORDER BY id").await;
        assert_eq!(story, ["opened grace", "refund 0 to the subscription, 10 to the wallet", "asked_again succeeded", "late_success paid for at the provider and never delivered; the refund stays"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn timed_out_and_unconfirmed_refunds_are_asked_about_again_too(world) {
        world.balance("ada", 0, 0).await;
        world.charge("timed-out").job("running-1").insert().await;
        world.charge("unconfirmed").job("odd-2").insert().await;
        world.simulator.set_answer("odd-2", Canned::json(200, &json!({"status": "phase_of_the_moon"})));
        for _ in 0..30 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        assert_eq!(world.fate("timed-out", 0).await, "refunded timed_out");
        assert_eq!(world.fate("unconfirmed", 0).await, "refunded unconfirmed");
        assert_eq!(ended(&world).await.len(), 2);
        succeeds(&world, "running-1", 1);
        for _ in 0..30 {
            world.pass_time(HOUR);
            world.pass().await;
        }
        assert_eq!(late_successes(&world).await, ["timed-out/0 never_stored question succeeded"]);
        let because = world.texts("SELECT ended_because AS v FROM makegood_late_questions WHERE charge_id = 'unconfirmed'").await;
        assert_eq!(because, ["asked_enough"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn without_a_certain_answer_the_provider_is_asked_at_both_times_and_then_no_more(world) {
        world.balance("ada", 0, 0).await;
        refunded(&world, "c1").await;
        world.pass().await;
        let mut asked = Vec::new();
        let before = world.simulator.asks("unknown-c1");
        for hour in 1..=60 {
            world.pass_time(HOUR);
            world.pass().await;
            if world.simulator.asks("unknown-c1") - before > asked.len() as u64 {
                asked.push(hour);
            }
        }
        assert_eq!(asked, [6, 24]);
        assert_eq!(ended(&world).await, ["c1/0 2 asked_enough"]);
        assert_eq!(late_successes(&world).await, Vec::<String>::new());
    }
}

on_both! {
    async fn a_certain_no_ends_it_at_once(world) {
        world.balance("ada", 0, 0).await;
        refunded(&world, "c1").await;
        world.pass().await;
        world.simulator.set_answer("unknown-c1", Canned::json(200, &json!({"status": "failed", "output": null, "error": "no"})));
        world.pass_time(6 * HOUR);
        assert_eq!(world.pass().await.asked_again, 1);
        assert_eq!(ended(&world).await, ["c1/0 1 did_not"]);
        world.pass_time(20 * HOUR);
        assert_eq!(world.pass().await.asked_again, 0);
    }
}

on_both! {
    async fn one_question_serves_a_job_and_each_item_gets_its_own_result(world) {
        world.balance("ada", 0, 0).await;
        // Three items of one job; the third was recorded as failed, and refunded, half an hour
        // later.
        world.charge("batch").job("running-batch").drawn(0, 30).items(&[10, 10, 10]).insert().await;
        let failed = |indices: &str| format!("UPDATE charge_items SET failed_at = {} WHERE output_index IN ({indices})", world.at(world.now()));
        world.run(&failed("0, 1")).await;
        world.pass().await;
        world.pass_time(30 * MINUTE);
        world.run(&failed("2")).await;
        world.pass().await;
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 3);
        // Two files of three, without saying whose.
        succeeds(&world, "running-batch", 2);
        let before = world.simulator.asks("running-batch");
        for _ in 0..4 {
            world.pass_time(3 * HOUR);
            world.pass().await;
        }
        assert_eq!(world.simulator.asks("running-batch"), before + 1);
        assert_eq!(ended(&world).await, ["batch/0 1 succeeded", "batch/1 1 succeeded", "batch/2 1 did_not"]);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_answers WHERE verdict = 'succeeded'").await, 1);
        world.books_balance().await;
    }
}

on_both! {
    async fn two_items_whose_job_appears_later_are_one_question(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").drawn(0, 20).item_rows(vec![
            ItemRow { credits: 10, job: None, index: Some(0), failed: None },
            ItemRow { credits: 10, job: None, index: Some(1), failed: None },
        ]).insert().await;
        world.pass().await;
        world.run("UPDATE charges SET provider_job_id = 'appeared'").await;
        succeeds(&world, "appeared", 2);
        world.pass_time(6 * HOUR);
        let report = world.pass().await;
        assert_eq!((report.asked_again, report.late_successes), (1, 2));
        assert_eq!(world.simulator.asks("appeared"), 1);
    }
}

on_both! {
    async fn an_output_that_is_stored_by_then_is_not_asked_about(world) {
        world.balance("ada", 0, 0).await;
        refunded(&world, "c1").await;
        world.pass().await;
        let asks = world.simulator.asks("unknown-c1");
        world.pass_time(5 * HOUR + 59 * MINUTE);
        world.run(&super::output(&world, "c1", "unknown-c1")).await;
        // As if no look had come to it: by the question alone.
        world.run(&format!("UPDATE makegood_late_questions SET due_at = {}", world.at(world.now()))).await;
        let claimed = world.store.claim_late("replicate", LEASE, 10).await.unwrap();
        let step = makegood::policy::late::next_step(&claimed.cases[0].case.facts, claimed.cases[0].refunded, world.parts.rules.late, world.now());
        assert_eq!(step, makegood::policy::late::LateStep::Stored { output_id: "late-c1".to_owned() });
        world.pass_time(LEASE);
        for _ in 0..3 {
            world.pass().await;
            world.pass_time(20 * MINUTE);
        }
        assert_eq!(world.simulator.asks("unknown-c1"), asks);
        assert_eq!(late_successes(&world).await.len(), 1);
        assert_eq!(counted(&world, "stored_late").await, 1);
        assert_eq!(ended(&world).await, ["c1/0 0 stored"]);
    }
}

on_both! {
    async fn two_workers_ask_once(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..10 {
            refunded(&world, &format!("c{nth}")).await;
        }
        world.pass().await;
        for nth in 0..10 {
            succeeds(&world, &format!("unknown-c{nth}"), 1);
        }
        world.pass_time(6 * HOUR);
        // While the first question is under way, a whole pass of another process comes and goes.
        let mut other = world.parts.clone();
        other.store = another(&world).await;
        let found = Arc::new(Mutex::new(None));
        let (once, seen) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), Arc::clone(&found));
        world.simulator.on_ask(Arc::new(move |_| {
            let (other, once, seen) = (other.clone(), Arc::clone(&once), Arc::clone(&seen));
            Box::pin(async move {
                if !once.swap(true, std::sync::atomic::Ordering::SeqCst) {
                    let report = pass::run(&other, World::orders(), |_| {}).await.unwrap();
                    *seen.lock().unwrap() = Some(report.asked_again);
                }
            })
        }));
        let report = world.pass().await;
        assert_eq!((report.asked_again, report.late_successes), (10, 10), "{report:?}");
        assert_eq!(*found.lock().unwrap(), Some(0), "the other found all of them taken");
        for nth in 0..10 {
            assert_eq!(world.simulator.asks(&format!("unknown-c{nth}")), 2, "once for the refund, once again");
        }
        assert_eq!(counted(&world, "never_stored").await, 10);
        world.books_balance().await;
    }
}

on_both! {
    async fn a_dead_worker_is_replaced_and_its_late_answer_is_rejected(world) {
        world.balance("ada", 0, 0).await;
        refunded(&world, "c1").await;
        world.pass().await;
        succeeds(&world, "unknown-c1", 1);
        world.pass_time(6 * HOUR);
        let old = world.store.claim_late("replicate", LEASE, 10).await.unwrap().cases.remove(0);
        assert_eq!(world.pass().await.asked_again, 0, "still leased");
        world.pass_time(LEASE);
        assert_eq!(world.pass().await.late_successes, 1);
        let evidence = super::ask(&world, &old.case).await;
        let late = LateSettlement { late: old, evidence: Some(evidence), stored: None, next: LateNext::End(End::Succeeded) };
        assert_eq!(world.store.settle_late(&[late.clone(), late], None).await.unwrap(), LateSuccesses::default());
        assert_eq!(late_successes(&world).await.len(), 1);
        assert_eq!(counted(&world, "never_stored").await, 1);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphan_events WHERE kind = 'asked_again'").await, 1);
    }
}

on_both! {
    async fn an_open_circuit_costs_no_question_and_due_orphans_come_first(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        refunded(&world, "late").await;
        world.pass().await;
        let asks = world.simulator.asks("unknown-late");
        world.pass_time(6 * HOUR);
        // In the same pass, questions about open orphans of the provider fail, so its circuit opens
        // before any late question.
        for nth in 0..8 {
            world.charge(&format!("open{nth}")).job(&format!("down-{nth}")).age(20 * MINUTE).insert().await;
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&order);
        world.simulator.on_ask(Arc::new(move |job| {
            seen.lock().unwrap().push(job.clone());
            Box::pin(async {})
        }));
        world.pass().await;
        assert_eq!(world.simulator.asks("unknown-late"), asks, "left alone");
        assert_eq!(ended(&world).await, ["late/0 0 open"]);
        // With the circuit closed again, it is asked after the open orphans.
        let files = world.folder.path().join("providers");
        world.parts.providers = Arc::new(Providers::load(Some(&files), world.clock.clone()).unwrap());
        for nth in 0..8 {
            world.simulator.set_answer(&format!("down-{nth}"), Canned::json(200, &json!({"status": "processing"})));
        }
        order.lock().unwrap().clear();
        world.pass_time(20 * MINUTE);
        assert_eq!(world.pass().await.asked_again, 1);
        let order = order.lock().unwrap().clone();
        assert!(order.len() > 1 && order.last().unwrap() == "unknown-late", "{order:?}");
        assert_eq!(ended(&world).await, ["late/0 1 open"]);
    }
}

on_both! {
    async fn a_pass_asks_so_many_and_leaves_the_rest_to_the_next(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        for nth in 0..5 {
            refunded(&world, &format!("c{nth}")).await;
        }
        world.pass().await;
        world.pass_time(6 * HOUR);
        world.parts.rules.late_questions = 2;
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push(world.pass().await.asked_again);
        }
        assert_eq!(asked, [2, 2, 1, 0]);
    }
}

on_both! {
    async fn a_provider_that_does_not_come_back_keeps_no_pass_from_ending_and_costs_no_question(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        refunded(&world, "hangs").await;
        world.pass().await;
        world.pass_time(6 * HOUR);
        // It never answers: however short the time or slow the machine, it comes to the same.
        world.simulator.on_ask(Arc::new(|_| Box::pin(std::future::pending())));
        world.parts.rules.late_budget = Duration::from_millis(300);
        assert_eq!(world.pass().await.asked_again, 0);
        assert_eq!(ended(&world).await, ["hangs/0 0 open"]);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_late_questions WHERE leased_until IS NOT NULL").await, 0, "given back");
        // Tried again later, and not at once: others come first.
        world.simulator.on_ask(Arc::new(|_| Box::pin(async {})));
        world.parts.rules.late_budget = HOUR;
        assert_eq!(world.pass().await.asked_again, 0);
        world.pass_time(5 * MINUTE);
        assert_eq!(world.pass().await.asked_again, 1);
    }
}

on_both! {
    async fn without_times_no_late_question_is_asked_and_removed_times_end_those_that_wait(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        refunded(&world, "before").await;
        world.pass().await;
        world.parts.rules.late = LateTimes::default();
        refunded(&world, "after").await;
        let asks = world.simulator.asks("unknown-before");
        for _ in 0..4 {
            world.pass_time(6 * HOUR);
            world.pass().await;
        }
        assert_eq!(world.fate("after", 0).await, "refunded never_returned");
        assert_eq!(ended(&world).await, ["before/0 0 asked_enough"]);
        assert_eq!(world.simulator.asks("unknown-before"), asks);
    }
}

on_both! {
    async fn the_database_accepts_a_late_success_once_and_never_removes_it(world) {
        world.balance("ada", 0, 0).await;
        refunded(&world, "c1").await;
        world.pass().await;
        succeeds(&world, "unknown-c1", 1);
        world.pass_time(6 * HOUR);
        world.pass().await;
        let again = "INSERT INTO makegood_late_successes (charge_id, output_index, refund_id, kind, provider, model, noticed_at, noticed_by, answer_id)
                     SELECT charge_id, output_index, refund_id, kind, provider, model, noticed_at, noticed_by, answer_id FROM makegood_late_successes";
        for sql in [again, "UPDATE makegood_late_successes SET provider = 'x'", "DELETE FROM makegood_late_successes"] {
            assert!(world.try_run(sql).await.is_err(), "{sql}");
        }
        assert_eq!(late_successes(&world).await.len(), 1);
    }
}

/// The statement's text, with its parameters filled in.
fn filled(sql: &str, values: &[&str]) -> String {
    let mut sql: String =
        sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n");
    for (nth, value) in values.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", nth + 1), value);
    }
    sql
}

on_both! {
    async fn its_cost_follows_the_open_questions_and_not_the_table(world) {
        world.balance("ada", 0, 0).await;
        refunded(&world, "c1").await;
        world.pass().await;
        // Years of refunds that are long done with.
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)";
        let at = world.at(world.now() - 1000 * HOUR);
        world.run(&format!(
            "INSERT INTO makegood_orphans (charge_id, output_index, provider, charged_at, opened_at, opened_by, refund_by, window_ends_at, state, due_at, urgent_at, resolved_at)
             {numbers} SELECT 'old-' || i, 0, 'replicate', {at}, {at}, 'grace', {at}, {at}, 'refunded', {at}, {at}, {at} FROM n;"
        )).await;
        world.run(&format!(
            "INSERT INTO makegood_late_questions (orphan_id, charge_id, output_index, provider, provider_job_id, refunded_at, due_at, ended_at, ended_because)
             SELECT id, charge_id, 0, 'replicate', 'job-' || id, {at}, {at}, {at}, 'asked_enough' FROM makegood_orphans WHERE charge_id LIKE 'old-%'; ANALYZE;"
        )).await;
        let (now, later) = (world.at(world.now() + 6 * HOUR), world.at(world.now() + 7 * HOUR));
        let (claim, jobs) = if world.store.is_postgres() {
            (
                include_str!("../../../src/store/postgres/late_claim.sql"),
                include_str!("../../../src/store/postgres/late_jobs.sql"),
            )
        } else {
            (
                include_str!("../../../src/store/sqlite/late_claim.sql"),
                include_str!("../../../src/store/sqlite/late_jobs.sql"),
            )
        };
        let claim = filled(claim, &["'replicate'", &now, &later, "64"]);
        let jobs = filled(jobs, &["'replicate'", &now]);
        let providers = filled(include_str!("../../../src/store/both/late_providers.sql"), &[&now]);
        for sql in [claim, jobs, providers] {
            let plan = world.plan(&sql).await;
            let whole = plan.iter().find(|line| line.contains("Seq Scan on makegood_late_questions") || line.contains("SCAN makegood_late_questions") && !line.contains("USING"));
            assert_eq!(whole, None, "{sql}\n{}", plan.join("\n"));
            assert!(plan.iter().any(|line| line.contains("makegood_late_questions_")), "{}", plan.join("\n"));
        }
    }
}

#[tokio::test]
async fn a_lease_that_is_over_while_another_settles_is_not_taken_twice_on_postgres() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    refunded(&world, "c1").await;
    world.pass().await;
    succeeds(&world, "unknown-c1", 1);
    world.pass_time(6 * HOUR);
    let slow = world.store.claim_late("replicate", LEASE, 10).await.unwrap().cases.remove(0);
    world.pass_time(LEASE + Duration::from_secs(1));
    // The slow one settles after all, and holds the row while another claims: the other waits, and
    // then finds it ended.
    let mut holder = super::connection(&world).await;
    super::on(&mut holder, "BEGIN; UPDATE makegood_late_questions SET ended_at = now(), ended_because = 'did_not', leased_until = NULL").await;
    let store = another(&world).await;
    let (claimed, ()) = tokio::join!(store.claim_late("replicate", LEASE, 10), async {
        super::seen_waiting(&world, "late_claim").await;
        super::on(&mut holder, "COMMIT").await;
    });
    assert!(claimed.unwrap().cases.is_empty());
    assert_eq!(slow.token, 1);
    assert_eq!(world.number("SELECT lease_token AS v FROM makegood_late_questions").await, 1);
}
