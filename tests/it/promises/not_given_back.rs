//! What is not given back: P09 to P13.

use makegood::demo::simulator::Canned;
use serde_json::json;

use crate::world::{HOUR, ItemRow, MINUTE, on_both};

on_both! {
    async fn p09_a_partial_output_of_a_job_that_failed_is_a_success(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("p-1").insert().await;
        let file = format!("{}/files/ok-1/0.png", world.simulator.base_url());
        world.simulator.set_answer("p-1", Canned::json(200, &json!({"status": "failed", "output": [file], "error": "stopped halfway"})));
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p09_an_output_stored_in_its_place_is_a_success_without_a_question(world) {
        world.balance("ada", 0, 0).await;
        // Whatever the provider would answer by now.
        world.charge("c1").job("failed-1").insert().await;
        world.store_output("out", Some(("c1", 0)), ("replicate", "failed-1", 0), ("p-c1", "n-c1")).await;
        let report = world.pass().await;
        assert_eq!((report.opened, report.claimed), (0, 0));
        assert_eq!(world.fate("c1", 0).await, "-");
        assert_eq!(world.simulator.total_hits(), 0);
    }
}

on_both! {
    async fn p10_an_output_that_was_deleted_later_stays_paid(world) {
        world.balance("ada", 0, 0).await;
        let now = world.at(world.now());
        world.charge("before").job("failed-1").insert().await;
        world.store_output("out-1", Some(("before", 0)), ("replicate", "failed-1", 0), ("p-before", "n-before")).await;
        world.run(&format!("UPDATE stored_outputs SET deleted_at = {now}")).await;
        // Deleted while the orphan is being looked into.
        world.charge("meanwhile").job("running-2").insert().await;
        // Deleted after it was recovered.
        world.charge("after").job("ok-3").insert().await;
        world.pass().await;
        assert_eq!(world.fate("before", 0).await, "-");
        assert_eq!(world.fate("meanwhile", 0).await, "open still_running");
        assert_eq!(world.fate("after", 0).await, "recovered output_available");

        world.store_output("out-2", Some(("meanwhile", 0)), ("replicate", "running-2", 0), ("p-meanwhile", "n-meanwhile")).await;
        world.run(&format!("UPDATE stored_outputs SET deleted_at = {now} WHERE deleted_at IS NULL")).await;
        for _ in 0..4 {
            world.pass_time(6 * HOUR);
            world.pass().await;
        }
        assert_eq!(world.fate("before", 0).await, "-");
        assert_eq!(world.fate("meanwhile", 0).await, "closed delivered");
        assert_eq!(world.fate("after", 0).await, "recovered output_available");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        assert_eq!(world.number("SELECT count(*) AS v FROM usage_history WHERE billable").await, 3);
        world.books_balance().await;
    }
}

on_both! {
    async fn p11_a_cancelled_run_that_was_completed_stays_paid_and_one_that_was_not_is_refunded(world) {
        world.balance("ada", 0, 0).await;
        for (charge, job) in [("kept", "ok-1"), ("too-late", "expired-2"), ("stopped", "cancelled-3"), ("broke", "failed-4"), ("unknown", "unknown-5"), ("running", "running-6")] {
            world.charge(charge).job(job).cancelled().insert().await;
        }
        world.charge("never-cancelled").job("expired-7").insert().await;
        world.pass().await;
        for (charge, fate) in [
            ("kept", "recovered output_available"),
            ("too-late", "closed completed_after_cancel"),
            ("stopped", "refunded provider_cancelled"),
            ("broke", "refunded provider_error"),
            ("unknown", "refunded never_returned"),
            ("running", "open still_running"),
            ("never-cancelled", "refunded output_expired"),
        ] {
            assert_eq!(world.fate(charge, 0).await, fate, "{charge}");
        }
        assert_eq!(world.balance_of("ada").await, (0, 40));
        world.books_balance().await;
    }
}

on_both! {
    async fn p12_a_run_that_was_never_charged_is_ignored(world) {
        world.balance("ada", 0, 0).await;
        world.charge("free").job("failed-1").drawn(0, 0).items(&[0]).insert().await;
        world.charge("free-and-failed").job("failed-2").drawn(0, 0).items(&[0]).failed().insert().await;
        world.charge("free-without-items").job("failed-3").drawn(0, 0).items(&[]).insert().await;
        let report = world.pass().await;
        assert_eq!((report.opened, report.claimed), (0, 0));
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans").await, 0);
        assert_eq!(world.simulator.total_hits(), 0);
    }
}

on_both! {
    async fn p13_a_three_way_mix_up_is_put_right_without_a_refund(world) {
        world.balance("ada", 0, 0).await;
        for (charge, holder) in [("a", "b"), ("b", "c"), ("c", "a")] {
            let job = format!("ok-{charge}");
            world.charge(charge).job(&job).insert().await;
            world.store_output(&format!("out-{charge}"), Some((holder, 0)), ("replicate", &job, 0), (&format!("p-{holder}"), &format!("n-{holder}"))).await;
        }
        let report = world.pass().await;
        assert_eq!(report.total("relink"), 3, "{report:?}");
        for charge in ["a", "b", "c"] {
            assert_eq!(world.fate(charge, 0).await, "relinked misattributed");
            let place = world.texts(&format!("SELECT charge_id || ' ' || project_id || ' ' || node_id AS v FROM stored_outputs WHERE id = 'out-{charge}'")).await;
            assert_eq!(place, [format!("{charge} p-{charge} n-{charge}")]);
        }
        assert_eq!(world.simulator.total_hits(), 0, "nothing had to be asked or downloaded");
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_an_output_that_a_person_moved_stays_where_it_was_put(world) {
        world.balance("ada", 0, 0).await;
        let now = world.at(world.now());
        world.charge("linked").job("failed-1").insert().await;
        world.store_output("out-1", Some(("linked", 0)), ("replicate", "failed-1", 0), ("elsewhere", "there")).await;
        world.charge("unlinked").job("failed-2").insert().await;
        world.store_output("out-2", None, ("replicate", "failed-2", 0), ("elsewhere", "there")).await;
        world.run(&format!("UPDATE stored_outputs SET moved_at = {now}")).await;
        let before = world.texts("SELECT id || project_id || node_id AS v FROM stored_outputs ORDER BY id").await;
        world.pass().await;
        assert_eq!(world.fate("linked", 0).await, "-", "it is where somebody wants it");
        assert_eq!(world.fate("unlinked", 0).await, "relinked misattributed", "the link is mended");
        assert_eq!(world.texts("SELECT id || project_id || node_id AS v FROM stored_outputs ORDER BY id").await, before);
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_an_output_in_the_wrong_place_or_on_no_item_is_put_back(world) {
        world.balance("ada", 0, 0).await;
        for (charge, link, place) in [
            ("wrong-node", Some(("wrong-node", 0)), ("p-wrong-node", "n-other")),
            ("wrong-project", Some(("wrong-project", 0)), ("p-other", "n-wrong-project")),
            ("unlinked", None, ("p-unlinked", "n-unlinked")),
            ("no-such-item", Some(("vanished", 7)), ("p-other", "n-other")),
        ] {
            let job = format!("failed-{charge}");
            world.charge(charge).job(&job).insert().await;
            world.store_output(&format!("out-{charge}"), link, ("replicate", &job, 0), place).await;
        }
        world.pass().await;
        for charge in ["wrong-node", "wrong-project", "unlinked", "no-such-item"] {
            assert_eq!(world.fate(charge, 0).await, "relinked misattributed", "{charge}");
            let row = world.texts(&format!("SELECT charge_id || ' ' || output_index || ' ' || project_id || ' ' || node_id AS v FROM stored_outputs WHERE id = 'out-{charge}'")).await;
            assert_eq!(row, [format!("{charge} 0 p-{charge} n-{charge}")]);
        }
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_an_output_with_half_a_link_is_put_back(world) {
        world.balance("ada", 0, 0).await;
        world.charge("a").job("failed-a").insert().await;
        world.charge("b").job("failed-b").insert().await;
        world.store_output("out-a", Some(("a", 0)), ("replicate", "failed-a", 0), ("p-a", "n-a")).await;
        world.store_output("out-b", Some(("b", 0)), ("replicate", "failed-b", 0), ("p-b", "n-b")).await;
        world.run("UPDATE stored_outputs SET charge_id = NULL WHERE id = 'out-a'").await;
        world.run("UPDATE stored_outputs SET output_index = NULL WHERE id = 'out-b'").await;
        world.pass().await;
        assert_eq!(world.fate("a", 0).await, "relinked misattributed");
        assert_eq!(world.fate("b", 0).await, "relinked misattributed");
        assert_eq!(world.texts("SELECT charge_id || '/' || output_index AS v FROM stored_outputs ORDER BY id").await, ["a/0", "b/0"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_the_holder_of_a_foreign_output_is_examined_in_the_same_pass(world) {
        world.balance("ada", 0, 0).await;
        world.charge("owner").job("ok-1").insert().await;
        // Looks delivered only because another item's output is linked to it; also younger than its
        // grace.
        world.charge("holder").job("failed-2").insert().await;
        world.store_output("out", Some(("holder", 0)), ("replicate", "ok-1", 0), ("p-holder", "n-holder")).await;
        world.pass().await;
        assert_eq!(world.fate("owner", 0).await, "relinked misattributed");
        assert_eq!(world.fate("holder", 0).await, "refunded provider_error");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_an_output_that_two_items_claim_is_held_for_a_person(world) {
        world.balance("ada", 0, 0).await;
        // Stored, and two charges name its job.
        world.charge("a").job("ok-1").insert().await;
        world.charge("b").job("ok-1").insert().await;
        world.store_output("out", Some(("a", 0)), ("replicate", "ok-1", 0), ("p-a", "n-a")).await;
        // Not stored, and two items of one charge name one output.
        let twin = || ItemRow { credits: 10, job: None, index: Some(0), failed: None };
        world.charge("c").job("failed-2").drawn(0, 20).item_rows(vec![twin(), twin()]).insert().await;
        let report = world.pass().await;
        assert_eq!(world.fate("a", 0).await, "-", "delivered");
        for (charge, index) in [("b", 0), ("c", 0), ("c", 1)] {
            assert_eq!(world.fate(charge, index).await, "held duplicate_job", "{charge}/{index}");
        }
        assert_eq!(report.findings.iter().filter(|each| each.kind == "duplicate_job").count(), 3);
        assert_eq!(world.simulator.total_hits(), 0);
        assert_eq!(world.balance_of("ada").await, (0, 0));

        // Once a person has corrected it, the next pass goes on.
        world.run("UPDATE charge_items SET provider_output_index = 1 WHERE charge_id = 'c' AND output_index = 1").await;
        world.pass_time(2 * MINUTE);
        world.pass().await;
        assert_eq!(world.fate("c", 0).await, "refunded provider_error");
        assert_eq!(world.fate("c", 1).await, "refunded provider_error");
        world.books_balance().await;
    }
}
