//! What is given back: P01 to P08.

use makegood::demo::simulator::Canned;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::world::{HOUR, ItemRow, MINUTE, on_both};

fn shot(job: &str) -> ItemRow {
    ItemRow { credits: 10, job: Some(job.to_owned()), index: None, failed: None }
}

on_both! {
    async fn p01_p17_a_failed_job_is_refunded_once_however_often_we_look(world) {
        world.balance("ada", 0, 100).await;
        world.charge("c1").job("failed-1").insert().await;
        let report = world.pass().await;
        assert_eq!(report.total("refund"), 1, "{report:?}");
        assert_eq!(report.refunded_credits, 10);
        world.pass().await;
        world.pass_time(HOUR);
        world.pass().await;
        world.pass_time(24 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert_eq!(world.balance_of("ada").await, (0, 110));
        assert_eq!(world.number("SELECT count(*) AS v FROM ledger_entries").await, 1);
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_a_refund_by_the_platform_is_never_repeated(world) {
        world.balance("ada", 0, 0).await;
        world.charge("one").job("failed-1").insert().await;
        world.charge("whole").job("failed-2").insert().await;
        world.run(&world.refund_row("one", Some(0), "wallet", 10)).await;
        world.run(&world.refund_row("whole", None, "wallet", 10)).await;
        let report = world.pass().await;
        assert_eq!(world.fate("one", 0).await, "closed already_refunded");
        assert_eq!(world.fate("whole", 0).await, "held already_refunded");
        assert!(report.findings.iter().any(|each| each.kind == "already_refunded" && each.about == "item whole/0"));
        assert_eq!(world.balance_of("ada").await, (0, 20));
        assert_eq!(world.simulator.total_hits(), 0, "there was nothing to ask");
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_a_refund_by_the_platform_while_we_ask_is_not_repeated(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.while_asked("failed-1", world.refund_row("c1", Some(0), "wallet", 10));
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "closed already_refunded");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p02_every_kind_of_failure_is_refunded_under_its_name(world) {
        world.balance("ada", 0, 0).await;
        for (charge, job) in [("server", "failed-1"), ("safety", "safety-1"), ("queue", "queue-timeout-1"), ("malformed", "m-1"), ("other", "o-1")] {
            world.charge(charge).provider("fal", "acme/still-life").job(job).insert().await;
        }
        let ended = |kind: &str| Canned::json(200, &json!({"status": "COMPLETED", "error": "it ended", "error_type": kind}));
        world.simulator.set_answer("m-1", ended("runner_incomplete_response"));
        world.simulator.set_answer("o-1", ended("bad_request"));
        // The platform's own orchestration failed: the job was never submitted.
        world.charge("unsubmitted").provider("fal", "acme/still-life").insert().await;
        world.charge("just-charged").provider("fal", "acme/still-life").age(30 * MINUTE).insert().await;
        world.pass().await;
        for (charge, fate) in [
            ("server", "refunded server_error"),
            ("safety", "refunded content_safety"),
            ("queue", "refunded queue_timeout"),
            ("malformed", "refunded malformed_response"),
            ("other", "refunded provider_error"),
            ("unsubmitted", "refunded no_provider_job"),
            ("just-charged", "open maybe_not_submitted_yet"),
        ] {
            assert_eq!(world.fate(charge, 0).await, fate);
        }
        assert_eq!(world.balance_of("ada").await, (0, 60));
        world.pass_time(31 * MINUTE);
        world.pass().await;
        assert_eq!(world.fate("just-charged", 0).await, "refunded no_provider_job");
        world.books_balance().await;
    }
}

on_both! {
    async fn p03_the_quota_is_filled_first_then_the_wallet(world) {
        world.balance("ada", -50, -5).await;
        world.charge("c1").drawn(6, 14).item_rows(vec![shot("failed-a"), shot("running-b")]).insert().await;
        world.pass().await;
        assert_eq!(world.refunded("c1").await, (6, 4));
        assert_eq!(world.balance_of("ada").await, (-44, -1), "a negative balance is filled up like any other");
        world.simulator.set_answer("running-b", Canned::json(200, &json!({"status": "failed", "output": null, "error": "no"})));
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.refunded("c1").await, (6, 14));
        assert_eq!(world.balance_of("ada").await, (-44, 9));
        world.books_balance().await;
    }
}

on_both! {
    async fn p03_the_platforms_refund_of_another_item_counts_towards_the_draw(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").drawn(6, 14).item_rows(vec![shot("failed-a"), shot("failed-b")]).insert().await;
        world.run(&world.refund_row("c1", Some(1), "subscription", 6)).await;
        world.run(&world.refund_row("c1", Some(1), "wallet", 4)).await;
        world.pass().await;
        assert_eq!(world.fate("c1", 1).await, "closed already_refunded");
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert_eq!(world.refunded("c1").await, (0, 10));
        assert_eq!(world.balance_of("ada").await, (6, 14), "the draw, to the credit");
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_a_partial_refund_of_the_platform_holds_the_item_and_one_that_it_took_back_is_no_refund(world) {
        world.balance("ada", 0, 0).await;
        world.charge("part").job("failed-a").insert().await;
        world.run(&world.refund_row("part", Some(0), "wallet", 3)).await;
        world.charge("reversed").job("failed-b").insert().await;
        world.run(&world.refund_row("reversed", Some(0), "wallet", 10)).await;
        world.run(&world.refund_row("reversed", Some(0), "wallet", -10).replace("'own-", "'back-")).await;
        world.charge("whole").job("failed-d").insert().await;
        world.run(&world.refund_row("whole", None, "wallet", 10)).await;
        world.run(&world.refund_row("whole", None, "wallet", -10).replace("'own-", "'back-")).await;
        world.charge("both").job("failed-c").drawn(4, 6).insert().await;
        world.run(&world.refund_row("both", Some(0), "subscription", 4)).await;
        world.run(&world.refund_row("both", Some(0), "wallet", 6)).await;
        let report = world.pass().await;
        assert_eq!(world.fate("part", 0).await, "held already_refunded");
        assert!(report.findings.iter().any(|each| each.kind == "already_refunded" && each.about == "item part/0"));
        assert_eq!(world.fate("reversed", 0).await, "refunded provider_error");
        assert_eq!(world.fate("whole", 0).await, "refunded provider_error");
        assert_eq!(world.fate("both", 0).await, "closed already_refunded");
        assert_eq!(world.balance_of("ada").await, (4, 29));
    }
}

on_both! {
    async fn p03_a_platform_that_gave_back_too_much_leaves_no_room_for_more(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").drawn(6, 14).item_rows(vec![shot("failed-a"), shot("failed-b")]).insert().await;
        world.run(&world.refund_row("c1", Some(1), "wallet", 14)).await;
        let report = world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "held already_refunded");
        assert!(report.findings.iter().any(|each| each.kind == "already_refunded"), "{:?}", report.findings);
        assert_eq!(world.balance_of("ada").await, (0, 14));
        world.books_balance().await;
    }
}

on_both! {
    async fn p04_a_refunded_output_is_not_billable(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").drawn(0, 30).item_rows(vec![shot("failed-a"), shot("ok-b"), shot("running-c")]).insert().await;
        world.charge("c2").job("running-d").insert().await;
        world.run(&world.refund_row("c2", Some(0), "wallet", 10)).await;
        world.pass().await;
        let history = world.texts("SELECT charge_id || '/' || output_index || ' ' || status || CASE WHEN billable THEN ' billable' ELSE '' END AS v FROM usage_history ORDER BY charge_id, output_index").await;
        assert_eq!(history, ["c1/0 refunded", "c1/1 delivered billable", "c1/2 being_looked_into billable", "c2/0 refunded"]);
        let total = world.texts("SELECT items || ' ' || credits AS v FROM billable_usage WHERE account_id = 'ada'").await;
        assert_eq!(total, ["2 20"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p05_of_four_images_one_failed_means_three_paid_and_one_refunded(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("one-failed-1").drawn(15, 25).items(&[10, 10, 10, 10]).insert().await;
        world.pass().await;
        let fates = [world.fate("c1", 0).await, world.fate("c1", 1).await, world.fate("c1", 2).await, world.fate("c1", 3).await];
        assert_eq!(fates.iter().filter(|fate| fate.starts_with("recovered")).count(), 3, "{fates:?}");
        assert_eq!(fates.iter().filter(|fate| fate.starts_with("refunded")).count(), 1, "{fates:?}");
        assert_eq!(world.balance_of("ada").await, (10, 0));
        assert_eq!(world.number("SELECT credits AS v FROM billable_usage WHERE account_id = 'ada'").await, 30);
        assert_eq!(world.number("SELECT count(DISTINCT sha256) AS v FROM stored_outputs").await, 3, "no file went to two items");
        assert_eq!(world.simulator.asks("one-failed-1"), 1, "one question a job, however many items hang on it");
        world.books_balance().await;
    }
}

on_both! {
    async fn p06_shots_with_jobs_of_their_own_stand_or_fall_alone(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").drawn(0, 30).item_rows(vec![shot("ok-a"), shot("failed-b"), shot("running-c")]).insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        assert_eq!(world.fate("c1", 1).await, "refunded provider_error");
        assert_eq!(world.fate("c1", 2).await, "open still_running");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p06_two_shots_of_three_are_kept_and_the_third_is_refunded(world) {
        world.balance("ada", 0, 0).await;
        let veo = "models/veo-simulated/operations/two-of-three-1";
        for (charge, provider, job) in [("r", "replicate", "two-of-three-1"), ("f", "fal", "two-of-three-1"), ("v", "veo-gemini", veo)] {
            world.charge(charge).provider(provider, "acme/shots").job(job).drawn(0, 30).items(&[10, 10, 10]).insert().await;
        }
        world.pass().await;
        for (charge, reason) in [("r", "missing_output"), ("f", "missing_output"), ("v", "content_safety")] {
            assert_eq!(world.fate(charge, 0).await, "recovered output_available", "{charge}");
            assert_eq!(world.fate(charge, 1).await, "recovered output_available", "{charge}");
            assert_eq!(world.fate(charge, 2).await, format!("refunded {reason}"), "{charge}");
            let files = format!("SELECT count(DISTINCT sha256) AS v FROM stored_outputs WHERE charge_id = '{charge}'");
            assert_eq!(world.number(&files).await, 2, "{charge}");
        }
        assert_eq!(world.balance_of("ada").await, (0, 30));
        world.books_balance().await;
    }
}

on_both! {
    async fn p06_of_two_shots_of_three_with_one_stored_already_only_the_other_is_recovered(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("two-of-three-1").drawn(0, 30).items(&[10, 10, 10]).insert().await;
        // The platform has stored the provider's first file itself.
        let asked = reqwest::get(format!("{}/replicate/v1/predictions/two-of-three-1", world.simulator.base_url())).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&asked.bytes().await.unwrap()).unwrap();
        let mut files = Vec::new();
        for url in answer["output"].as_array().unwrap() {
            let file = reqwest::get(url.as_str().unwrap()).await.unwrap().bytes().await.unwrap();
            let bytes: Vec<String> = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
            files.push(bytes.concat());
        }
        let row = world.output_row("own", Some(("c1", 0)), ("replicate", "two-of-three-1", 0), ("p-c1", "n-c1"));
        world.run(&format!("{row}; UPDATE stored_outputs SET sha256 = '{}'", files[0])).await;
        world.pass().await;
        assert_eq!(world.fate("c1", 1).await, "recovered output_available");
        let stored = world.texts("SELECT sha256 AS v FROM stored_outputs ORDER BY output_index").await;
        assert_eq!(stored, files, "the file that nobody has yet");
        assert_eq!(files.len(), 2);
        assert_eq!(world.fate("c1", 2).await, "refunded missing_output");
        assert_eq!(world.balance_of("ada").await, (0, 10));
    }
}

on_both! {
    async fn p07_a_workspaces_refund_goes_back_to_its_pool(world) {
        world.balance("ada", 1, 1).await;
        world.run("INSERT INTO accounts VALUES ('studio', 'workspace'); INSERT INTO balances VALUES ('studio', 'subscription', 0), ('studio', 'wallet', 0);").await;
        world.charge("c1").account("studio").job("failed-1").drawn(7, 3).insert().await;
        world.pass().await;
        assert_eq!(world.balance_of("studio").await, (7, 3));
        assert_eq!(world.balance_of("ada").await, (1, 1), "no person's balance was touched");
        assert_eq!(world.texts("SELECT DISTINCT account_id AS v FROM ledger_entries").await, ["studio"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p08_a_retry_with_equal_amounts_and_times_is_a_run_of_its_own(world) {
        world.balance("ada", 0, 0).await;
        for (charge, job) in [("first", "failed-1"), ("retry", "ok-2"), ("again", "failed-3")] {
            world.charge(charge).job(job).drawn(4, 6).insert().await;
        }
        world.run("UPDATE charges SET project_id = 'p', node_id = 'n'").await;
        world.pass().await;
        assert_eq!(world.fate("first", 0).await, "refunded provider_error");
        assert_eq!(world.fate("retry", 0).await, "recovered output_available");
        assert_eq!(world.fate("again", 0).await, "refunded provider_error");
        assert_eq!(world.balance_of("ada").await, (8, 12));
        let refunds = world.texts("SELECT charge_id AS v FROM makegood_refunds ORDER BY charge_id").await;
        assert_eq!(refunds, ["again", "first"]);
        world.books_balance().await;
    }
}
