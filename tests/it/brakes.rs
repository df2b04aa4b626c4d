//! The brake from outside: what it counts, what it holds, and who releases it. P15 (made good
//! within 24 hours) and P24 (visible if not).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod accounts;
mod providers;
mod side_by_side;
mod sums;

use makegood::brake::BrakeLimits;
use makegood::demo::simulator::Canned;

use crate::world::{HOUR, MINUTE, World, on_both};

async fn failing(world: &World, provider: &str, ids: &[&str]) {
    for id in ids {
        let job = format!("failed-{id}");
        world.charge(id).provider(provider, "acme/still-life").job(&job).age(20 * MINUTE).insert().await;
    }
}

on_both! {
    async fn p15_a_brake_that_goes_off_by_itself_still_pays_no_more_in_a_day_than_its_limit_per_day(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_hour: 2, refunds_per_day: 5, ..BrakeLimits::default() };
        world.parts.rules.release_when_gone = true;
        world.balance("ada", 0, 0).await;
        for nth in 0..20 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).age(MINUTE).failed().insert().await;
        }
        for _ in 0..24 {
            world.pass().await;
            world.pass_time(59 * MINUTE);
        }
        let refunds = world.number("SELECT count(*) AS v FROM makegood_refunds").await;
        // Twice two in an hour; then three more would have been half of the day's.
        assert!((2..=5).contains(&refunds), "{refunds} in a day");
        // A person's release starts the counts afresh.
        world.store.release_brake("grace", "looked into it").await.unwrap();
        world.pass().await;
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, refunds + 2);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_one_provider_at_its_limit_pulls_the_brake_and_another_below_it_does_not(world) {
        let mut world = world;
        for (limits, key) in [
            (BrakeLimits { refunds_per_pass_per_provider: 2, ..BrakeLimits::default() }, "max_refunds_per_pass_per_provider"),
            (BrakeLimits { refunds_per_hour_per_provider: 2, ..BrakeLimits::default() }, "max_refunds_per_hour_per_provider"),
            (BrakeLimits { refunds_per_day_per_provider: 2, ..BrakeLimits::default() }, "max_refunds_per_day_per_provider"),
        ] {
            // A transaction each, so that what counts is looked up.
            (world.parts.rules.brake, world.parts.rules.batch) = (limits, 1);
            world.run("DELETE FROM balances; DELETE FROM accounts").await;
            world.balance("ada", 0, 0).await;
            let id = |name: &str| format!("{name}-{key}");
            let ids = ["a", "b", "x", "y", "z"].map(id);
            failing(&world, "fal", &[&ids[0], &ids[1]]).await;
            world.pass().await;
            assert_eq!(world.store.brake().await.unwrap().reason, None, "{key}: two are the limit");
            failing(&world, "replicate", &[&ids[2], &ids[3], &ids[4]]).await;
            world.pass().await;
            let why = world.store.brake().await.unwrap().reason.unwrap();
            assert!(why.contains(key) && why.contains("for replicate"), "{why}");
            let refunds = format!("SELECT count(*) AS v FROM makegood_refunds WHERE charge_id LIKE '%-{key}'");
            assert_eq!(world.number(&refunds).await, 4, "{key}");
            world.store.release_brake("grace", "next").await.unwrap();
            world.parts.rules.brake = BrakeLimits::default();
            world.pass().await;
            world.pass_time(25 * HOUR);
        }
    }
}

on_both! {
    async fn p15_credits_pull_the_brake_by_the_pass_the_hour_and_the_day(world) {
        let mut world = world;
        for (limits, key) in [
            (BrakeLimits { credits_per_pass: 25, ..BrakeLimits::default() }, "max_credits_per_pass"),
            (BrakeLimits { credits_per_hour: 25, ..BrakeLimits::default() }, "max_credits_per_hour"),
            (BrakeLimits { credits_per_day: 25, ..BrakeLimits::default() }, "max_credits_per_day"),
        ] {
            (world.parts.rules.brake, world.parts.rules.batch) = (limits, 1);
            world.run("DELETE FROM balances; DELETE FROM accounts").await;
            world.balance("ada", 0, 0).await;
            let ids = ["x", "y", "z"].map(|name| format!("{name}-{key}"));
            failing(&world, "replicate", &[&ids[0], &ids[1], &ids[2]]).await;
            let report = world.pass().await;
            assert_eq!((report.total("refund"), report.refunded_credits), (2, 20), "{key}");
            assert!(report.unresolved.brake.is_some_and(|why| why.contains(key)), "{key}");
            world.store.release_brake("grace", "next").await.unwrap();
            world.parts.rules.brake = BrakeLimits::default();
            world.pass().await;
            world.pass_time(25 * HOUR);
        }
    }
}

/// Charges past `refund_by`, each with another fault of ours, and asked about enough.
async fn our_faults(world: &World) {
    world.balance("ada", 0, 0).await;
    world.charge("key").job("unauthorized-1").insert().await;
    world.charge("filter").job("garbage-2").insert().await;
    world.charge("nobody").provider("nobody", "m").job("x").insert().await;
    world.charge("storage").job("file-down-3").insert().await;
    for _ in 0..4 {
        world.pass().await;
        world.pass_time(HOUR);
    }
    world.pass_time(18 * HOUR);
}

on_both! {
    async fn p15_every_kind_of_fault_of_ours_counts_for_its_limit(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { own_faults_per_day: 3, ..BrakeLimits::default() };
        world.parts.rules.batch = 1;
        our_faults(&world).await;
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.unresolved.held_by_brake), (3, 1), "{:?}", report.outcomes);
        assert!(report.unresolved.own_faults.as_deref().is_some_and(|why| why.contains("max_own_fault_refunds_per_day")));
        assert_eq!(report.unresolved.brake, None);
        assert!(report.needs_a_person() && report.to_text().contains("faults of ours"), "{}", report.to_text());
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_refunds_for_our_own_faults_stay_held_a_day_later_until_a_person_releases_them(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { own_faults_per_day: 1, ..BrakeLimits::default() };
        our_faults(&world).await;
        world.charge("theirs").job("failed-1").insert().await;
        for _ in 0..60 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 2, "one of ours, and theirs");
        assert_eq!(world.fate("theirs", 0).await, "refunded provider_error");
        let brake = world.store.brake().await.unwrap();
        assert!(brake.own_faults_at.is_some() && brake.engaged_at.is_none(), "{brake:?}");
        assert_eq!(world.store.release_brake("grace", "the key was mended").await.unwrap(), Some(3));
        world.pass().await;
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 3, "one more, and held again");
        let events = world.texts("SELECT kind || ' ' || by_whom AS v FROM makegood_brake_events ORDER BY id").await;
        assert_eq!(events, ["engaged makegood", "released grace", "engaged makegood"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_refunds_for_our_own_faults_are_released_automatically_if_configured_and_in_batches(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { own_faults_per_day: 2, refunds_per_hour: 1, ..BrakeLimits::default() };
        world.parts.rules.release_when_gone = true;
        our_faults(&world).await;
        // The limit of all refunds is per hour, that of our own faults per day.
        for _ in 0..12 {
            world.pass().await;
            world.pass_time(61 * MINUTE);
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 2);
        for _ in 0..30 {
            world.pass().await;
            world.pass_time(61 * MINUTE);
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 4);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_p16_a_storage_that_takes_nothing_all_day_refunds_no_more_than_the_limit_of_our_faults(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { own_faults_per_day: 2, ..BrakeLimits::default() };
        world.balance("ada", 0, 0).await;
        for nth in 0..6 {
            world.charge(&format!("c{nth}")).job(&format!("ok-{nth}")).insert().await;
        }
        // There is a file in place of the directory.
        let outputs = world.folder.path().join("outputs");
        let _was_there = std::fs::remove_dir_all(&outputs);
        std::fs::write(&outputs, "in the way").unwrap();
        for _ in 0..24 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        assert_eq!(world.texts("SELECT reason || ' ' || count(*) AS v FROM makegood_refunds GROUP BY reason").await, ["recovery_failed 2"]);
        // Once corrected, the held items are recovered: an output that can still be fetched is not
        // refunded.
        std::fs::remove_file(&outputs).unwrap();
        std::fs::create_dir(&outputs).unwrap();
        world.pass_time(HOUR);
        let report = world.pass().await;
        assert_eq!((report.total("recover"), report.unresolved.held_by_brake), (4, 0), "{:?}", report.outcomes);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_first_night_on_an_old_table_refunds_no_year(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        // A year without outputs; and the platform has just recorded that all of it failed.
        for day in 0..360_u32 {
            let (id, job) = (format!("d{day}"), format!("failed-{day}"));
            world.charge(&id).job(&job).age(day * 24 * HOUR + 3 * HOUR).failed().insert().await;
        }
        world.parts.rules.detect.start_at = Some(world.now() - 48 * HOUR);
        let report = world.pass().await;
        assert_eq!((report.opened, report.total("refund")), (2, 2), "from start_at on");
        let told = report.findings.iter().find(|each| each.kind == "failed_backlog").unwrap();
        assert!(told.detail.starts_with("358 items"), "{told:?}");
        let since = |backlog| makegood::pass::Orders {
            since: Some(makegood::detect::Since { from: world.now() - 30 * 24 * HOUR, backlog }),
            ..World::orders()
        };
        let report = world.pass_with(since(false)).await;
        assert_eq!((report.opened, report.backlog), (0, 28), "counted, and left alone");
        world.parts.rules.detect.start_at = None;
        let report = world.pass().await;
        assert_eq!((report.opened, report.total("refund")), (5, 5), "without start_at, a week");
        world.parts.rules.brake = BrakeLimits { refunds_per_hour: 3, ..BrakeLimits::default() };
        world.store.release_brake("grace", "none").await.unwrap();
        world.pass_time(2 * HOUR);
        let orders = makegood::pass::Orders {
            since: Some(makegood::detect::Since { from: world.now() - 30 * 24 * HOUR, backlog: true }),
            ..World::orders()
        };
        let report = world.pass_with(orders).await;
        assert_eq!((report.total("refund"), report.total("hold")), (3, 20), "asked for, and within the limits");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_defaults_stop_an_outage_that_makes_everything_look_lost(world) {
        // Refunds of an ordinary day come first, so that they count. Then no output of the platform
        // is visible.
        assert!(world.parts.rules.brake.share_per_day == 50 && world.parts.rules.brake.refunds_per_hour == 1000);
        for account in 0..10 {
            world.balance(&format!("a{account}"), 0, 0).await;
        }
        for nth in 0..300 {
            let account = format!("a{}", nth % 10);
            world.charge(&format!("c{nth}")).account(&account).job(&format!("gone-{nth}")).insert().await;
        }
        let report = world.pass().await;
        assert_eq!(report.total("refund"), 150, "half of the day's charges: {:?}", report.outcomes);
        assert_eq!(report.unresolved.held_by_brake, 150);
        // Meanwhile recoveries go on, and cases whose output reappears are closed.
        world.charge("to-be-had").account("a0").job("ok-1").age(20 * MINUTE).insert().await;
        world.simulator.set_answer("gone-299", Canned::new(503, "down"));
        let report = world.pass().await;
        assert_eq!((report.total("recover"), report.total("refund")), (1, 0), "{:?}", report.outcomes);
        world.books_balance().await;
    }
}
