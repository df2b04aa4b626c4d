//! The promises, one by one, through the whole pipeline on both databases.

use crate::world::{HOUR, ItemRow, MINUTE, World, on_both};

on_both! {
    async fn p01_p17_a_failed_job_is_refunded_once_however_often_we_look(world) {
        world.balance("ada", 0, 100).await;
        world.charge("c1").job("failed-1").insert().await;
        let report = world.pass().await;
        assert_eq!(report.total("refund"), 1, "{report:?}");
        world.pass().await;
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert_eq!(world.balance_of("ada").await, (0, 110));
        world.books_balance().await;
    }
}

on_both! {
    async fn p16_p22_a_finished_output_is_brought_home_to_its_project(world) {
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
    async fn p05_of_four_images_one_failed_means_three_paid_and_one_refunded(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("one-failed-1").drawn(15, 25).items(&[10, 10, 10, 10]).insert().await;
        world.pass().await;
        let fates = [world.fate("c1", 0).await, world.fate("c1", 1).await, world.fate("c1", 2).await, world.fate("c1", 3).await];
        assert_eq!(fates.iter().filter(|fate| fate.starts_with("recovered")).count(), 3, "{fates:?}");
        assert_eq!(fates.iter().filter(|fate| fate.starts_with("refunded")).count(), 1, "{fates:?}");
        assert_eq!(world.balance_of("ada").await, (10, 0));
        assert_eq!(world.number("SELECT credits AS v FROM billable_usage WHERE account_id = 'ada'").await, 30);
        world.books_balance().await;
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
    async fn p19_a_failure_that_the_platform_recorded_is_refunded_at_once(world) {
        world.balance("ada", 5, 5).await;
        world.charge("c1").job("running-1").age(2 * MINUTE).failed().drawn(4, 6).insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded reported_failed");
        assert_eq!(world.balance_of("ada").await, (9, 11));
        world.books_balance().await;
    }
}

on_both! {
    async fn p06_shots_with_jobs_of_their_own_stand_or_fall_alone(world) {
        world.balance("ada", 0, 0).await;
        let shot = |job: &str| ItemRow { credits: 10, job: Some(job.to_owned()), index: None, failed: None };
        world.charge("c1").drawn(0, 30).item_rows(vec![shot("ok-a"), shot("failed-b"), shot("running-c")]).insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        assert_eq!(world.fate("c1", 1).await, "refunded provider_error");
        assert_eq!(world.fate("c1", 2).await, "open still_running");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}
