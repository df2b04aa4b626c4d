//! Rows that a person corrects are made good, however late: also after every scan has passed the
//! charge (P14 found by itself, P15 within 24 hours, P24 visible).

use makegood::brake::BrakeLimits;

use crate::bad_input::finds;
use crate::world::{HOUR, MINUTE, on_both};

on_both! {
    async fn p14_items_that_come_after_every_look_has_passed_their_charge_are_made_good(world) {
        world.balance("ada", 0, 0).await;
        world.charge("none").job("failed-1").drawn(4, 6).items(&[]).insert().await;
        world.charge("two-of-three").job("failed-2").drawn(0, 30).items(&[10, 10]).insert().await;
        let mut late = 0;
        for _ in 0..30 {
            late = world.pass().await.unresolved.past_window;
            world.pass_time(HOUR);
        }
        assert_eq!(late, 3, "a person is called for");
        assert_eq!(world.fate("none", -1).await, "held items_mismatch");
        assert_eq!(world.fate("two-of-three", 0).await, "held items_mismatch");
        world.run("INSERT INTO charge_items VALUES ('none', 0, 10, NULL, NULL, NULL), ('two-of-three', 2, 10, NULL, NULL, NULL)").await;
        // Within the hour it is seen, and what it brings to light is due at once.
        world.pass().await;
        world.pass_time(MINUTE);
        let report = world.pass().await;
        assert_eq!(world.fate("none", -1).await, "closed items_mismatch");
        for (charge, index) in [("none", 0), ("two-of-three", 0), ("two-of-three", 1), ("two-of-three", 2)] {
            assert_eq!(world.fate(charge, index).await, "refunded provider_error", "{charge}/{index}");
        }
        assert_eq!(world.balance_of("ada").await, (4, 36));
        assert_eq!(report.unresolved.past_window, 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn p14_an_item_that_comes_so_late_is_not_forgotten_because_the_brake_holds_its_neighbours(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").drawn(0, 20).items(&[10]).insert().await;
        for _ in 0..30 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        assert_eq!(world.fate("c1", 0).await, "held items_mismatch");
        world.parts.rules.brake = BrakeLimits { refunds_per_hour: 1, ..BrakeLimits::default() };
        for charge in ["pays", "pulls"] {
            world.charge(charge).job(&format!("failed-{charge}")).age(HOUR).insert().await;
        }
        world.pass().await;
        assert!(world.store.brake().await.unwrap().engaged_at.is_some());
        world.run("INSERT INTO charge_items VALUES ('c1', 1, 10, NULL, NULL, NULL)").await;
        world.pass_time(HOUR);
        world.pass().await;
        world.pass_time(MINUTE);
        world.pass().await;
        assert_eq!([world.fate("c1", 0).await, world.fate("c1", 1).await], ["held brake", "held brake"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p14_items_that_come_so_late_are_found_though_no_pass_came_to_hold_their_charge(world) {
        world.balance("ada", 0, 0).await;
        world.charge("none").job("failed-1").drawn(0, 10).items(&[]).insert().await;
        // Every pass dies after its looks.
        for _ in 0..30 {
            let now = world.now();
            crate::world::detect(&world.parts, None, now).await;
            world.pass_time(HOUR);
        }
        assert_eq!(world.fate("none", -1).await, "open ");
        world.run("INSERT INTO charge_items VALUES ('none', 0, 10, NULL, NULL, NULL)").await;
        world.pass().await;
        world.pass_time(MINUTE);
        world.pass().await;
        assert_eq!([world.fate("none", -1).await, world.fate("none", 0).await], ["closed items_mismatch", "refunded provider_error"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p14_an_item_whose_orphan_was_rejected_is_retried_until_its_row_is_corrected(world) {
        world.without_keys("charges").await;
        world.balance("ada", 0, 0).await;
        // The position of a rejected row is the charge before it: the retry scans from there.
        let mut world = world;
        world.parts.rules.detect.chunk = 1;
        world.charge("early").job("failed-0").age(2 * HOUR).insert().await;
        world.charge("odd").job("failed-1").insert().await;
        world.run("UPDATE charges SET provider = NULL WHERE id = 'odd'").await;
        finds(&world.pass().await, "refused_row", "item odd/0");
        // Of a charge that no look at charges comes to any more, recorded as failed now.
        world.charge("odd-failed").job("failed-2").age(72 * HOUR).failed().insert().await;
        world.run("UPDATE charges SET provider = NULL WHERE id = 'odd-failed'").await;
        finds(&world.pass().await, "refused_row", "item odd-failed/0");
        for _ in 0..24 {
            world.charge(&format!("later-{}", world.now().micros())).job("failed-x").age(HOUR).insert().await;
            world.pass_time(HOUR);
            let report = world.pass().await;
            finds(&report, "refused_row", "item odd/0");
            finds(&report, "refused_row", "item odd-failed/0");
        }
        // The ordinary scans go on meanwhile. The retry costs one scan an hour.
        for name in ["failed", "grace", "six_hours", "twenty_hours"] {
            let looked_up_to = world.store.cursors().await.unwrap().cursor(name).unwrap().position;
            assert!(looked_up_to >= world.now() - 22 * HOUR, "{name}: {looked_up_to}");
        }
        world.run("UPDATE charges SET provider = 'replicate' WHERE id = 'odd'").await;
        world.pass_time(59 * MINUTE);
        assert_eq!(world.pass().await.opened, 0);
        world.pass_time(MINUTE);
        // One is corrected, and the other stays on record.
        finds(&world.pass().await, "refused_row", "item odd-failed/0");
        assert_eq!(world.fate("odd", 0).await, "refunded provider_error");
        world.run("UPDATE charges SET provider = 'replicate' WHERE id = 'odd-failed'").await;
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.fate("odd-failed", 0).await, "refunded provider_error");
        // Once no row is rejected any more, the retry scans nothing.
        for name in ["refused", "refused_failed"] {
            assert_eq!(world.store.cursors().await.unwrap().refused(name), None, "{name}");
        }
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_a_balance_row_that_is_corrected_days_later_gets_its_refund_within_the_hour(world) {
        world.charge("c1").account("new").job("failed-1").insert().await;
        for _ in 0..60 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        assert_eq!(world.fate("c1", 0).await, "held no_balance");
        world.pass().await;
        world.balance("new", 0, 0).await;
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.balance_of("new").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p05_an_output_that_the_platform_numbers_below_zero_is_an_item_like_another(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("unknown-1").insert().await;
        world.run("UPDATE charge_items SET output_index = -1").await;
        world.pass().await;
        assert_eq!(world.fate("c1", -1).await, "refunded never_returned");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}
