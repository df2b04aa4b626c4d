//! What people see: P21, P22 and P24.

use crate::world::{HOUR, MINUTE, World, on_both, start};

/// `activity credits minutes-since-the-world-began reason` of a charge, in order.
async fn activity(world: &World, charge: &str) -> Vec<String> {
    let began = world.at(start());
    let minutes = match &world.sql {
        crate::world::Sql::Postgres(_) => {
            format!("CAST(round(extract(epoch FROM at - {began}) / 60) AS integer)")
        }
        crate::world::Sql::Sqlite(_) => format!("CAST((at - {began}) / 60000000 AS integer)"),
    };
    world
        .texts(&format!(
            "SELECT activity || ' ' || credits || ' ' || {minutes} || ' ' || coalesce(reason, '') AS v
             FROM billing_activity WHERE charge_id = '{charge}' ORDER BY at, CASE activity WHEN 'deduction' THEN 0 WHEN 'failure_detected' THEN 1 ELSE 2 END"
        ))
        .await
}

on_both! {
    async fn p21_the_billing_activity_shows_deduction_detection_and_resolution(world) {
        world.balance("ada", 0, 0).await;
        world.charge("refunded").job("running-1").drawn(4, 6).insert().await;
        world.charge("recovered").job("ok-2").insert().await;
        world.charge("put-back").job("ok-3").insert().await;
        world.store_output("out", None, ("replicate", "ok-3", 0), ("p-put-back", "n-put-back")).await;
        world.charge("by-platform").job("running-4").insert().await;
        world.pass().await;
        world.pass_time(30 * MINUTE);
        world.simulator.set_answer("running-1", makegood::demo::simulator::Canned::json(200, &serde_json::json!({"status": "failed", "output": null, "error": "no"})));
        world.run(&world.refund_row("by-platform", Some(0), "wallet", 10)).await;
        world.pass().await;

        assert_eq!(activity(&world, "refunded").await, ["deduction -10 -180 ", "failure_detected 0 0 ", "refund 10 30 provider_error"]);
        assert_eq!(activity(&world, "recovered").await, ["deduction -10 -180 ", "failure_detected 0 0 ", "recovery 0 0 output_available"]);
        assert_eq!(activity(&world, "put-back").await, ["deduction -10 -180 ", "failure_detected 0 0 ", "output_put_back 0 0 misattributed"]);
        assert_eq!(activity(&world, "by-platform").await, ["deduction -10 -180 ", "failure_detected 0 0 ", "refund_by_platform 10 30 "]);
    }
}

on_both! {
    async fn p21_every_step_of_an_orphan_is_kept_with_the_providers_answer(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").insert().await;
        world.pass().await;
        world.simulator.set_answer("running-1", makegood::demo::simulator::Canned::json(200, &serde_json::json!({"status": "failed", "output": null, "error": "CUDA is sad"})));
        world.pass_time(HOUR);
        world.pass().await;
        let told = world.texts("SELECT e.kind || ' ' || coalesce(e.reason, '') || ' ' || coalesce(a.verdict, '') || ' ' || coalesce(a.message, '') AS v
                                FROM makegood_orphan_events e LEFT JOIN makegood_answers a ON a.id = e.answer_id ORDER BY e.id").await;
        assert_eq!(told, ["opened   ", "wait still_running running ", "refund provider_error failed CUDA is sad"]);
    }
}

on_both! {
    async fn p22_a_recovered_output_appears_in_the_history_of_the_account(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok2-1").drawn(0, 20).items(&[10, 10]).insert().await;
        let status = "SELECT output_index || ' ' || status AS v FROM usage_history WHERE account_id = 'ada' ORDER BY output_index";
        assert_eq!(world.texts(status).await, ["0 expected", "1 expected"]);
        world.pass().await;
        assert_eq!(world.texts(status).await, ["0 delivered", "1 delivered"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p24_an_orphan_that_is_not_resolved_in_a_day_is_visible_at_once(world) {
        // No balance row: held for a person, who does not act.
        world.charge("c1").job("failed-1").age(HOUR).insert().await;
        let report = world.pass().await;
        assert_eq!((report.unresolved.held, report.unresolved.past_window), (1, 0));
        assert!(!report.needs_a_person());
        world.pass_time(23 * HOUR);
        let report = world.pass().await;
        assert_eq!((report.unresolved.held, report.unresolved.past_window), (1, 1));
        assert!(report.needs_a_person());
        assert_eq!(report.unresolved.oldest_charged_at, Some(start() - HOUR));
        // Once corrected, the next pass makes it good.
        world.balance("ada", 0, 0).await;
        world.pass_time(24 * HOUR);
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.unresolved.past_window), (1, 0));
        world.books_balance().await;
    }
}
