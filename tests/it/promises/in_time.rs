//! P15 (made good within 24 hours), and P24 (visible at once) if that failed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use makegood::brake::BrakeLimits;

use crate::world::{HOUR, MINUTE, World, on_both, start};

/// Passes every `minutes` until `hours` after the beginning of the world.
async fn passes_until(world: &World, hours: u32, minutes: u32) {
    while world.now() < start() + hours * HOUR {
        world.pass().await;
        world.pass_time(minutes * MINUTE);
    }
}

on_both! {
    async fn p15_an_undecided_item_is_refunded_inside_the_window_and_not_before_refund_by(world) {
        world.balance("ada", 0, 0).await;
        for (charge, job) in [("running", "running-1"), ("down", "down-2"), ("busy", "ratelimited-3"), ("refused", "unauthorized-4"), ("garbage", "garbage-5"), ("file", "file-down-6")] {
            world.charge(charge).job(job).age(HOUR).insert().await;
        }
        world.charge("nobody-knows").provider("nobody", "m").job("x").age(HOUR).insert().await;
        // Charged at 11:00: refund_by is 09:00 the next day.
        passes_until(&world, 21, 30).await;
        for (charge, reason) in [
            ("running", "still_running"), ("down", "unreachable"), ("busy", "rate_limited"), ("refused", "unauthorized"),
            ("garbage", "unreadable"), ("file", "recovery_retry"), ("nobody-knows", "unknown_provider"),
        ] {
            assert_eq!(world.fate(charge, 0).await, format!("open {reason}"));
        }
        assert_eq!(world.balance_of("ada").await, (0, 0));
        passes_until(&world, 22, 10).await;
        for (charge, reason) in [
            ("running", "timed_out"), ("down", "unconfirmed"), ("busy", "unconfirmed"), ("refused", "unconfirmed"),
            ("garbage", "unconfirmed"), ("file", "recovery_failed"), ("nobody-knows", "unconfirmed"),
        ] {
            assert_eq!(world.fate(charge, 0).await, format!("refunded {reason}"));
        }
        assert_eq!(world.balance_of("ada").await, (0, 70));
        let late = "SELECT o.charge_id AS v FROM makegood_orphans o WHERE o.resolved_at > o.window_ends_at";
        assert_eq!(world.texts(late).await, Vec::<String>::new());
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_a_file_that_is_offered_while_the_job_runs_is_taken_at_the_end(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("partial-1").drawn(0, 20).items(&[10, 10]).age(HOUR).insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "open still_running");
        passes_until(&world, 22, 30).await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        assert_eq!(world.fate("c1", 1).await, "refunded timed_out");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_a_first_look_after_an_outage_of_ours_refunds_nothing_unasked(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").age(HOUR).insert().await;
        world.charge("c2").job("failed-2").age(HOUR).insert().await;
        // Found, and then no pass ran for a day.
        world.simulator.set_answer("failed-2", makegood::demo::simulator::Canned::new(503, "down"));
        world.pass().await;
        world.pass_time(24 * HOUR);
        world.simulator.clear_answer("failed-2");
        world.pass().await;
        assert_eq!(world.fate("c2", 0).await, "refunded provider_error", "what is proven needs no patience");
        assert_eq!(world.fate("c1", 0).await, "open still_running", "the second question in a day");
        world.pass_time(15 * MINUTE);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded timed_out");
        assert_eq!(world.texts("SELECT questions AS v FROM makegood_orphans WHERE charge_id = 'c1'").await, ["3"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_p24_an_orphan_that_is_opened_late_has_two_hours_and_is_seen_as_late(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").age(23 * HOUR + 30 * MINUTE).insert().await;
        let report = world.pass().await;
        assert_eq!(report.unresolved.past_window, 0);
        assert!(!report.needs_a_person());
        passes_until(&world, 1, 15).await;
        let report = world.pass().await;
        assert_eq!(report.unresolved.past_window, 1, "{report:?}");
        assert!(report.needs_a_person());
        assert!(report.to_text().contains("LATE"));
        world.pass_time(59 * MINUTE);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "open still_running");
        world.pass_time(MINUTE);
        let report = world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded timed_out");
        assert_eq!(report.unresolved.past_window, 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_p24_the_brake_stops_refunds_until_a_person_releases_it(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_hour: 3, ..BrakeLimits::default() };
        world.balance("ada", 0, 0).await;
        for nth in 0..8 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        world.charge("fine").job("ok-1").insert().await;
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.total("hold"), report.total("recover")), (3, 5, 1), "{report:?}");
        assert_eq!(report.unresolved.held_by_brake, 5);
        assert!(report.needs_a_person());
        assert!(report.unresolved.brake.as_deref().is_some_and(|why| why.contains("max_refunds_per_hour")));
        // It stays on until a person releases it, and the orphans that it holds are visibly late.
        world.pass_time(22 * HOUR);
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.unresolved.past_window), (0, 5));
        assert_eq!(world.balance_of("ada").await, (0, 30));
        // Released, it counts afresh.
        assert_eq!(world.store.release_brake("grace", "looked into it").await.unwrap(), Some(5));
        // Refunds before the release no longer count; a refund a moment later does.
        world.pass_time(MINUTE);
        let report = world.pass().await;
        assert_eq!(report.total("refund"), 3);
        world.pass_time(MINUTE);
        assert_eq!(world.store.release_brake("grace", "once more").await.unwrap(), Some(2));
        world.pass_time(MINUTE);
        world.pass().await;
        assert_eq!(world.balance_of("ada").await, (0, 80));
        assert_eq!(world.store.release_brake("grace", "it is off").await.unwrap(), None);
        let events = world.texts("SELECT kind || ' ' || by_whom AS v FROM makegood_brake_events ORDER BY id").await;
        assert_eq!(events, ["engaged makegood", "released grace", "engaged makegood", "released grace"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p20_an_output_that_comes_while_the_brake_holds_closes_the_case(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { credits_per_day: 9, ..BrakeLimits::default() };
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "held brake");
        world.store_output("late", Some(("c1", 0)), ("replicate", "failed-1", 0), ("p-c1", "n-c1")).await;
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "closed delivered");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_brake_counts_a_pass_by_itself_and_goes_off_when_its_condition_is_gone(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_pass: 3, ..BrakeLimits::default() };
        // Several transactions at one instant: what the first refunds counts for the second.
        world.parts.rules.batch = 2;
        world.balance("ada", 0, 0).await;
        for nth in 0..8 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        assert_eq!(world.pass().await.total("refund"), 3);
        // By hand, unless the settings allow more, however many passes begin.
        world.pass_time(MINUTE);
        let report = world.pass().await;
        assert_eq!(report.total("refund"), 0);
        assert!(report.unresolved.brake.as_deref().is_some_and(|why| why.contains("max_refunds_per_pass")));
        world.parts.rules.release_when_gone = true;
        for expected in [3, 2] {
            world.pass_time(MINUTE);
            assert_eq!(world.pass().await.total("refund"), expected);
        }
        let by = world.texts("SELECT by_whom || ': ' || reason AS v FROM makegood_brake_events WHERE kind = 'released'").await;
        assert_eq!(by.len(), 2);
        assert!(by[0].starts_with("makegood: the condition is gone: more than 3 refunds in a pass"), "{by:?}");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_a_brake_by_the_hour_goes_off_after_the_hour_and_not_before(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_hour: 2, ..BrakeLimits::default() };
        world.parts.rules.release_when_gone = true;
        world.balance("ada", 0, 0).await;
        for nth in 0..3 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        assert_eq!(world.pass().await.total("refund"), 2);
        world.pass_time(59 * MINUTE);
        assert_eq!(world.pass().await.total("refund"), 0);
        world.pass_time(2 * MINUTE);
        assert_eq!(world.pass().await.total("refund"), 1);
        assert_eq!(world.pass().await.unresolved.brake, None);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_a_daily_limit_counts_refunds_older_than_an_hour_and_none_older_than_a_day(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_day: 3, ..BrakeLimits::default() };
        world.parts.rules.release_when_gone = true;
        world.balance("ada", 0, 0).await;
        for (hours, refunded, held) in [(0, 2, 0), (2, 1, 1), (23, 2, 1)] {
            world.pass_time(hours * HOUR);
            for nth in 0..2 {
                world.charge(&format!("c{hours}-{nth}")).job(&format!("failed-{hours}-{nth}")).insert().await;
            }
            let report = world.pass().await;
            assert_eq!((report.total("refund"), report.unresolved.held_by_brake), (refunded, held), "after {hours} h: {report:?}");
        }
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_a_brake_that_was_released_while_the_clock_was_ahead_still_counts(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_hour: 1, ..BrakeLimits::default() };
        // Each refund in a transaction of its own, so that it counts only if the sums are read.
        world.parts.rules.batch = 1;
        world.balance("ada", 0, 0).await;
        for nth in 0..3 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        world.run(&format!("UPDATE makegood_brake SET released_at = {}", world.at(world.now() + 5 * HOUR))).await;
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.unresolved.held_by_brake), (1, 2), "{report:?}");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_when_our_own_storage_makes_everything_look_lost_the_brake_stops_and_all_comes_right(world) {
        // 250 charges, all delivered, all expired at the provider. Then the platform's outputs
        // cannot be seen any more.
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { share_per_day: 50, ..BrakeLimits::default() };
        world.balance("ada", 0, 0).await;
        for nth in 0..250 {
            let (charge, job) = (format!("c{nth}"), format!("gone-{nth}"));
            world.charge(&charge).job(&job).insert().await;
        }
        let report = world.pass().await;
        assert_eq!(report.total("refund"), 125, "half of the day's charges, and no more: {:?}", report.outcomes);
        assert_eq!(report.unresolved.held_by_brake, 125);
        assert!(report.unresolved.brake.as_deref().is_some_and(|why| why.contains("max_refund_share_per_day")));
        // The outputs are visible again: the held cases close, with the brake still on.
        for nth in 0..250 {
            let (id, charge, job) = (format!("o{nth}"), format!("c{nth}"), format!("gone-{nth}"));
            world.store_output(&id, Some((&charge, 0)), ("replicate", &job, 0), (&format!("p-{charge}"), &format!("n-{charge}"))).await;
        }
        world.pass_time(2 * HOUR);
        let report = world.pass().await;
        assert_eq!((report.total("close"), report.total("refund")), (125, 0), "{:?}", report.outcomes);
        assert_eq!(report.unresolved.held_by_brake, 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_refunds_for_faults_of_ours_have_a_limit_of_their_own(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { own_faults_per_day: 2, ..BrakeLimits::default() };
        world.balance("ada", 0, 0).await;
        for nth in 0..6 {
            // The key is refused, all day long.
            world.charge(&format!("ours-{nth}")).job(&format!("unauthorized-{nth}")).insert().await;
        }
        for _ in 0..4 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        world.pass_time(19 * HOUR);
        world.charge("theirs").job("failed-1").insert().await;
        let report = world.pass().await;
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds WHERE reason = 'unconfirmed'").await, 2);
        assert_eq!((report.unresolved.held_by_brake, report.unresolved.brake.clone()), (4, None));
        assert!(report.needs_a_person() && report.to_text().contains("faults of ours"), "{}", report.to_text());
        // No other account is stopped.
        world.pass_time(HOUR / 2);
        world.pass().await;
        assert_eq!(world.fate("theirs", 0).await, "refunded provider_error");
        // Settled again, in a transaction that has refunded none itself: earlier refunds count.
        world.pass_time(HOUR);
        assert_eq!(world.pass().await.unresolved.held_by_brake, 4);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds WHERE reason = 'unconfirmed'").await, 2);
        // Released by hand: two more, and the rest again waits for a person.
        assert_eq!(world.store.release_brake("grace", "the key was mended").await.unwrap(), Some(4));
        world.pass_time(MINUTE);
        assert_eq!(world.pass().await.unresolved.held_by_brake, 2);
        world.books_balance().await;
    }
}
