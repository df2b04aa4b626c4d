//! Charged, but no output: P14 and P16 to P20.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use makegood::demo::simulator::Canned;
use serde_json::json;

use crate::world::{HOUR, MINUTE, World, on_both};

on_both! {
    async fn p14_orphans_are_found_by_themselves_once_their_grace_is_over(world) {
        world.balance("ada", 0, 0).await;
        world.charge("fresh").job("failed-1").age(9 * MINUTE).insert().await;
        world.charge("old").job("failed-2").age(10 * MINUTE).insert().await;
        world.charge("default-grace").provider("veo-gemini", "m").job("models/m/operations/failed-3").age(14 * MINUTE).insert().await;
        world.pass().await;
        assert_eq!(world.fate("fresh", 0).await, "-");
        assert_eq!(world.fate("old", 0).await, "refunded provider_error");
        assert_eq!(world.fate("default-grace", 0).await, "-");
        world.pass_time(MINUTE);
        world.pass().await;
        assert_eq!(world.fate("fresh", 0).await, "refunded provider_error");
        assert_eq!(world.fate("default-grace", 0).await, "refunded server_error");
        world.books_balance().await;
    }
}

on_both! {
    async fn p14_a_charge_that_was_committed_late_is_found_inside_the_window(world) {
        world.balance("ada", 0, 0).await;
        world.pass().await;
        // By now the first look has passed 10:45, the second 05:00 and the third the day before.
        for (charge, age) in [("within-overlap", 70 * MINUTE), ("for-six", 3 * HOUR), ("for-twenty", 8 * HOUR)] {
            world.charge(charge).job(&format!("failed-{charge}")).age(age).insert().await;
        }
        world.pass_time(MINUTE);
        world.pass().await;
        assert_eq!(world.fate("within-overlap", 0).await, "refunded provider_error");
        assert_eq!(world.fate("for-six", 0).await, "-");
        world.pass_time(3 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("for-six", 0).await, "refunded provider_error");
        assert_eq!(world.fate("for-twenty", 0).await, "-");
        world.pass_time(9 * HOUR);
        let report = world.pass().await;
        assert_eq!(world.fate("for-twenty", 0).await, "refunded provider_error");
        assert_eq!(report.unresolved.past_window, 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn p14_an_output_that_is_taken_away_later_makes_an_orphan_again(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        world.store_output("out", Some(("c1", 0)), ("replicate", "ok-1", 0), ("p-c1", "n-c1")).await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "-");
        // Linked wrongly after the first scan: the scan at six hours finds it.
        world.run("UPDATE stored_outputs SET charge_id = NULL, output_index = NULL").await;
        world.pass_time(4 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "relinked misattributed");
        // Linked wrongly again: the scan at twenty hours reopens the closed case, and its history
        // stays.
        world.run("UPDATE stored_outputs SET charge_id = NULL, output_index = NULL").await;
        world.pass_time(14 * HOUR);
        let report = world.pass().await;
        assert_eq!(report.reopened, 1);
        assert_eq!(world.fate("c1", 0).await, "relinked misattributed");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_resolutions").await, 2);
        world.books_balance().await;
    }
}

on_both! {
    async fn p14_charges_from_before_the_backlog_are_only_counted(world) {
        world.balance("ada", 0, 0).await;
        world.charge("ancient").job("failed-1").age(20 * 24 * HOUR).insert().await;
        let since = |backlog| makegood::pass::Orders {
            since: Some(makegood::detect::Since { from: world.now() - 30 * 24 * HOUR, backlog }),
            ..World::orders()
        };
        let report = world.pass_with(since(false)).await;
        assert_eq!((report.backlog, report.opened), (1, 0));
        assert_eq!(world.fate("ancient", 0).await, "-");
        let report = world.pass_with(since(true)).await;
        assert_eq!((report.backlog, report.opened), (0, 1));
        assert_eq!(world.fate("ancient", 0).await, "refunded provider_error");
        world.books_balance().await;
    }
}

on_both! {
    async fn p16_p22_a_finished_output_is_recovered_into_its_project(world) {
        world.balance("ada", 0, 100).await;
        world.charge("c1").job("ok-1").insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        assert_eq!(world.balance_of("ada").await, (0, 100));
        let row = world.texts("SELECT project_id || ' ' || node_id || ' ' || charge_id || ' ' || output_index || ' ' || content_type AS v FROM stored_outputs").await;
        assert_eq!(row, ["p-c1 n-c1 c1 0 image/png"]);
        let uri = world.texts("SELECT uri AS v FROM stored_outputs").await.remove(0);
        let path = uri.strip_prefix("file://").unwrap();
        let bytes = std::fs::read(path).unwrap();
        let size = world.number("SELECT size_bytes AS v FROM stored_outputs").await;
        assert_eq!(bytes.len(), usize::try_from(size).unwrap());
        world.books_balance().await;
    }
}

on_both! {
    async fn p16_a_platform_may_choose_to_refund_all_the_same(world) {
        let mut world = world;
        world.parts.rules.policy.prefer_refund = true;
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded output_available");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn p17_a_job_that_the_provider_does_not_know_is_refunded_after_an_hour(world) {
        world.balance("ada", 0, 0).await;
        for (charge, provider, job) in [("r", "replicate", "unknown-1"), ("f", "fal", "unknown-1"), ("v", "veo-gemini", "models/m/operations/unknown-1")] {
            world.charge(charge).provider(provider, "acme/still-life").job(job).age(30 * MINUTE).insert().await;
        }
        world.pass().await;
        for charge in ["r", "f", "v"] {
            assert_eq!(world.fate(charge, 0).await, "open maybe_not_visible_yet");
        }
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.pass_time(31 * MINUTE);
        world.pass().await;
        for charge in ["r", "f", "v"] {
            assert_eq!(world.fate(charge, 0).await, "refunded never_returned");
        }
        assert_eq!(world.balance_of("ada").await, (0, 30));
        world.books_balance().await;
    }
}

on_both! {
    async fn p18_an_output_that_the_provider_has_dropped_is_refunded(world) {
        world.balance("ada", 0, 0).await;
        for (charge, job) in [("expired", "expired-1"), ("gone", "gone-2"), ("lost", "lost-3"), ("down", "file-down-4"), ("forbidden", "forbidden-5")] {
            world.charge(charge).job(job).insert().await;
        }
        world.pass().await;
        for (charge, fate) in [
            ("expired", "refunded output_expired"),
            ("gone", "refunded output_expired"),
            ("lost", "refunded output_expired"),
            ("down", "open recovery_retry"),
            ("forbidden", "open recovery_retry"),
        ] {
            assert_eq!(world.fate(charge, 0).await, fate, "{charge}");
        }
        assert_eq!(world.simulator.asks("gone-2"), 1, "410 is a word");
        assert_eq!(world.simulator.asks("lost-3"), 2, "a 404 may be a link that ran out: asked again for a fresh one");
        assert_eq!(world.simulator.asks("forbidden-5"), 2, "and so may a 403");
        assert_eq!(world.balance_of("ada").await, (0, 30));
        world.books_balance().await;
    }
}

on_both! {
    async fn p16_a_missing_file_is_not_gone_while_no_fresh_link_can_be_asked_for(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("lost-1").insert().await;
        // The first question is answered, the one for a fresh link is not.
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let world = std::sync::Arc::new(world);
        let weak = std::sync::Arc::downgrade(&world);
        world.simulator.on_ask(std::sync::Arc::new(move |_| {
            if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 && let Some(world) = weak.upgrade() {
                world.simulator.set_answer("lost-1", Canned::new(503, "down"));
            }
            Box::pin(async {})
        }));
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "open recovery_retry");
        world.simulator.clear_answer("lost-1");
        world.pass_time(2 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded output_expired", "asked again, and missing again");
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_a_refund_names_the_answer_that_it_rests_on_although_another_item_of_the_job_had_another(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("x-1").drawn(0, 20).items(&[10, 10]).insert().await;
        let file = |job: &str| format!("{}/files/{job}/0.png", world.simulator.base_url());
        world.simulator.set_answer("x-1", Canned::json(200, &json!({"status": "succeeded", "output": [file("ok-1"), file("lost-1")]})));
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let world = std::sync::Arc::new(world);
        let weak = std::sync::Arc::downgrade(&world);
        world.simulator.on_ask(std::sync::Arc::new(move |_| {
            if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 && let Some(world) = weak.upgrade() {
                world.simulator.set_answer("x-1", Canned::json(200, &json!({"status": "failed", "output": null, "error": "no"})));
            }
            Box::pin(async {})
        }));
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        assert_eq!(world.fate("c1", 1).await, "refunded provider_error");
        let rests_on = "SELECT r.output_index || ' ' || a.verdict AS v FROM makegood_resolutions r JOIN makegood_answers a ON a.id = r.answer_id ORDER BY r.output_index";
        assert_eq!(world.texts(rests_on).await, ["0 succeeded", "1 failed"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p18_a_link_that_ran_out_is_asked_for_again_and_the_file_is_recovered(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("x-1").insert().await;
        let answer = |file: &str| Canned::json(200, &json!({"status": "succeeded", "output": format!("{}/files/{file}/0.png", world.simulator.base_url())}));
        // The first link answers 404; the second answer, given after the first question, holds a
        // good one.
        world.simulator.set_answer("x-1", answer("lost-1"));
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let world = std::sync::Arc::new(world);
        let (weak, good) = (std::sync::Arc::downgrade(&world), Canned::json(200, &json!({"status": "succeeded", "output": format!("{}/files/ok-1/0.png", world.simulator.base_url())})));
        world.simulator.on_ask(std::sync::Arc::new(move |_| {
            if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 && let Some(world) = weak.upgrade() {
                world.simulator.set_answer("x-1", good.clone());
            }
            Box::pin(async {})
        }));
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        assert_eq!(world.simulator.asks("x-1"), 2);
        world.books_balance().await;
    }
}

on_both! {
    async fn p19_a_failure_that_the_platform_recorded_is_refunded_at_once(world) {
        world.balance("ada", 5, 5).await;
        world.charge("c1").job("running-1").age(2 * MINUTE).failed().drawn(4, 6).insert().await;
        world.charge("never-submitted").age(2 * MINUTE).failed().insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded reported_failed");
        assert_eq!(world.fate("never-submitted", 0).await, "refunded no_provider_job");
        assert_eq!(world.balance_of("ada").await, (9, 21));
        world.books_balance().await;
    }
}

on_both! {
    async fn p19_a_recorded_failure_is_no_reason_to_refund_a_stored_output(world) {
        world.balance("ada", 0, 0).await;
        world.charge("stored").job("failed-1").age(2 * MINUTE).failed().insert().await;
        world.store_output("out", Some(("stored", 0)), ("replicate", "failed-1", 0), ("p-stored", "n-stored")).await;
        world.charge("to-be-had").job("ok-2").age(2 * MINUTE).failed().insert().await;
        world.pass().await;
        assert_eq!(world.fate("stored", 0).await, "-");
        assert_eq!(world.fate("to-be-had", 0).await, "recovered output_available");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p19_a_failure_recorded_between_two_passes_is_found_by_the_next_however_old_the_charge(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").age(5 * MINUTE).insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "-");
        world.pass_time(MINUTE);
        world.run(&format!("UPDATE charge_items SET failed_at = {}", world.at(world.now()))).await;
        world.pass_time(MINUTE);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded reported_failed");
        world.books_balance().await;
    }
}

on_both! {
    async fn p19_a_failure_recorded_for_an_open_orphan_is_refunded_without_waiting_for_its_turn(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").insert().await;
        // Waited often enough that it is not due for long.
        for _ in 0..8 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "open still_running");
        world.run(&format!("UPDATE charge_items SET failed_at = {}", world.at(world.now()))).await;
        world.pass_time(2 * MINUTE);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded reported_failed");
        world.books_balance().await;
    }
}

on_both! {
    async fn p20_an_output_stored_while_we_ask_closes_the_case(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.while_asked("failed-1", world.output_row("late", Some(("c1", 0)), ("replicate", "failed-1", 0), ("p-c1", "n-c1")));
        let report = world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "closed delivered", "{report:?}");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p20_an_output_stored_while_we_copy_it_is_not_stored_twice(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        world.while_asked("ok-1", world.output_row("late", Some(("c1", 0)), ("replicate", "ok-1", 0), ("p-c1", "n-c1")));
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "closed delivered");
        assert_eq!(world.texts("SELECT id AS v FROM stored_outputs").await, ["late"]);
        let left: Vec<_> = files_under(&world.folder.path().join("outputs"));
        assert_eq!(left, Vec::<std::path::PathBuf>::new(), "our own copy is thrown away");
        world.books_balance().await;
    }
}

on_both! {
    async fn p20_an_output_that_comes_while_the_orphan_waits_closes_the_case(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("down-1").insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "open unreachable");
        world.store_output("late", Some(("c1", 0)), ("replicate", "down-1", 0), ("p-c1", "n-c1")).await;
        world.pass_time(2 * MINUTE);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "closed delivered");
        assert_eq!(world.simulator.asks("down-1"), 1, "nobody was asked again");
        world.books_balance().await;
    }
}

/// Every file under a folder; none if there is no folder.
fn files_under(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}
