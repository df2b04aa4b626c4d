//! Rows and answers that violate the contract, as real platforms and providers have them. Each ends
//! in a finding or in a wait by the rules. The valid charge beside it is refunded by the same pass,
//! and no money moves wrongly.

mod answers;
mod nulls;
mod words;

use makegood::report::PassReport;

use crate::world::{HOUR, ItemRow, MINUTE, Sql, World, on_both};

/// An account with one valid charge, beside the invalid rows.
pub async fn good_one(world: &World) {
    world.balance("bob", 0, 0).await;
    world.charge("good").account("bob").job("failed-good").insert().await;
}

/// Only the valid charge was refunded, and the books balance.
pub async fn only_the_good_one_was_refunded(world: &World) {
    assert_eq!(world.fate("good", 0).await, "refunded provider_error");
    assert_eq!(world.balance_of("bob").await, (0, 10));
    assert_eq!(world.texts("SELECT charge_id AS v FROM makegood_refunds").await, ["good"]);
    assert_eq!(
        world.number("SELECT count(*) AS v FROM makegood_orphans WHERE leased_until IS NOT NULL").await,
        0
    );
    world.books_balance().await;
}

/// Whether the report contains it.
#[track_caller]
pub fn finds(report: &PassReport, kind: &str, about: &str) {
    let found = report
        .findings
        .iter()
        .any(|each| each.kind == kind && each.about == about && !each.detail.is_empty());
    assert!(found, "no {kind} about {about}: {:#?}", report.findings);
}

on_both! {
    async fn items_that_do_not_add_up_are_held_and_reported(world) {
        good_one(&world).await;
        world.balance("ada", 100, 100).await;
        for (charge, drawn, items) in [
            ("too-much", (0, 10), &[10, 10][..]),
            ("too-little", (0, 30), &[10][..]),
            ("one-negative", (0, 10), &[20, -10][..]),
            ("negative", (0, -10), &[-10][..]),
            ("negative-draw", (-10, 20), &[10][..]),
            ("free-items", (0, 10), &[0, 0][..]),
            ("no-items", (4, 6), &[][..]),
            ("no-items-and-odd", (-5, 5), &[][..]),
        ] {
            world.charge(charge).job(&format!("failed-{charge}")).drawn(drawn.0, drawn.1).items(items).insert().await;
        }
        let report = world.pass().await;
        for charge in ["too-much", "too-little", "one-negative", "negative", "negative-draw", "free-items", "no-items", "no-items-and-odd"] {
            finds(&report, "items_mismatch", &format!("charge {charge}"));
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans WHERE reason <> 'items_mismatch' AND charge_id <> 'good'").await, 0);
        assert_eq!(world.balance_of("ada").await, (100, 100));
        only_the_good_one_was_refunded(&world).await;
        // The next pass that examines them reports them again. Once corrected, they are made good.
        world.run("UPDATE charges SET wallet_credits = 20 WHERE id = 'too-much'").await;
        world.pass_time(2 * HOUR);
        let report = world.pass().await;
        finds(&report, "items_mismatch", "charge too-little");
        assert_eq!(world.refunded("too-much").await, (0, 20));
        world.books_balance().await;
    }
}

on_both! {
    async fn free_items_of_a_paid_batch_are_left_alone(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").drawn(0, 10).items(&[0, 10, 0]).insert().await;
        world.pass().await;
        assert_eq!([world.fate("c1", 0).await, world.fate("c1", 1).await, world.fate("c1", 2).await], ["-", "refunded provider_error", "-"]);
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn items_that_are_written_after_their_charge_was_scanned_are_made_good(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").drawn(4, 6).items(&[]).insert().await;
        let report = world.pass().await;
        finds(&report, "items_mismatch", "charge c1");
        assert_eq!(world.fate("c1", -1).await, "held items_mismatch");
        only_the_good_one_was_refunded(&world).await;
        world.run("INSERT INTO charge_items VALUES ('c1', 0, 10, NULL, NULL, NULL)").await;
        world.pass_time(4 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("c1", -1).await, "closed items_mismatch", "the items speak for themselves");
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert_eq!(world.balance_of("ada").await, (4, 6));
        world.books_balance().await;
    }
}

on_both! {
    async fn a_missing_or_doubled_balance_row_holds_the_refund_until_it_is_corrected(world) {
        good_one(&world).await;
        world.without_keys("balances").await;
        world.run("INSERT INTO balances VALUES ('half', 'wallet', 0), ('double', 'wallet', 0), ('double', 'wallet', 0), ('double', 'subscription', 0)").await;
        world.charge("none").account("none").job("failed-1").insert().await;
        world.charge("half").account("half").job("failed-2").drawn(5, 5).insert().await;
        world.charge("double").account("double").job("failed-3").insert().await;
        // The doubled bucket is not the one that paid.
        world.charge("fine").account("double").job("running-4").drawn(10, 0).insert().await;
        let report = world.pass().await;
        for charge in ["none", "half", "double"] {
            assert_eq!(world.fate(charge, 0).await, "held no_balance");
            finds(&report, "no_balance", &format!("item {charge}/0"));
        }
        assert_eq!(world.number("SELECT sum(credits) AS v FROM balances WHERE account_id <> 'bob'").await, 0);
        only_the_good_one_was_refunded(&world).await;
        world.run("INSERT INTO balances VALUES ('none', 'wallet', 0), ('half', 'subscription', 0)").await;
        world.pass_time(2 * MINUTE);
        world.pass().await;
        assert_eq!((world.balance_of("none").await, world.balance_of("half").await), ((0, 10), (5, 5)));
        assert_eq!(world.fate("double", 0).await, "held no_balance");
        world.books_balance().await;
    }
}

on_both! {
    async fn buckets_of_the_platforms_own_are_none_of_our_business(world) {
        good_one(&world).await;
        world.without_keys("balances").await;
        world.without_keys("ledger_entries").await;
        world.balance("ada", 0, 0).await;
        world.run("INSERT INTO balances VALUES ('ada', 'gift card', 5), ('ada', 'gift card', 6)").await;
        world.charge("c1").job("failed-1").insert().await;
        // A refund to an unknown bucket cannot be compared with the draw, so the case is held.
        world.charge("c2").job("failed-2").insert().await;
        world.run(&format!("INSERT INTO ledger_entries VALUES ('x', 'ada', 'gift card', 3, 'refund', 'c2', 0, NULL, {})", world.at(world.now()))).await;
        world.opens_with("ada", "gift card", 5 + 6 - 3);
        let report = world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        finds(&report, "unreadable_row", "item c2/0");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn an_account_that_is_missing_still_gets_its_credits_back(world) {
        good_one(&world).await;
        world.run("INSERT INTO balances VALUES ('ghost', 'wallet', 0)").await;
        world.charge("c1").account("ghost").job("failed-1").insert().await;
        world.pass().await;
        assert_eq!(world.balance_of("ghost").await, (0, 10), "money follows charges.account_id");
        world.books_balance().await;
    }
}

on_both! {
    async fn charges_in_the_future_are_reported_and_examined_once_they_are_past(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.charge("c2").job("failed-2").failed().insert().await;
        world.run(&format!("UPDATE charges SET charged_at = {} WHERE id IN ('c1', 'c2')", world.at(world.now() + 2 * HOUR))).await;
        let report = world.pass().await;
        finds(&report, "charged_in_the_future", "charge c1");
        assert_eq!(world.fate("c1", 0).await, "-");
        assert_eq!(world.fate("c2", 0).await, "refunded provider_error", "a failure on record needs no grace");
        world.pass_time(2 * HOUR + 10 * MINUTE);
        let report = world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert!(!report.findings.iter().any(|each| each.kind == "charged_in_the_future"));
        world.books_balance().await;
    }
}

on_both! {
    async fn times_at_the_ends_of_the_range_stop_no_other_charge(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let (first, last) = match &world.sql {
            Sql::Postgres(_) => ("'-infinity'", "'infinity'"),
            Sql::Sqlite(_) => ("-9223372036854775808", "9223372036854775807"),
        };
        for (nth, column) in ["charged_at", "cancelled_at"].into_iter().enumerate() {
            for (end, value) in [("first", first), ("last", last)] {
                let charge = format!("{column}-{end}");
                world.charge(&charge).job(&format!("running-{nth}-{end}")).insert().await;
                world.run(&format!("UPDATE charges SET {column} = {value} WHERE id = '{charge}'")).await;
            }
        }
        for (end, value) in [("first", first), ("last", last)] {
            let charge = format!("failed-at-{end}");
            world.charge(&charge).job(&format!("running-f-{end}")).insert().await;
            world.run(&format!("UPDATE charge_items SET failed_at = {value} WHERE charge_id = '{charge}'")).await;
            let output = format!("stored-{end}");
            world.charge(&output).job(&format!("running-s-{end}")).insert().await;
            world.store_output(&output, Some((&output, 0)), ("replicate", "another job", 0), ("p", "n")).await;
            world.run(&format!("UPDATE stored_outputs SET stored_at = {value} WHERE id = '{output}'")).await;
        }
        world.pass().await;
        world.pass_time(7 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("good", 0).await, "refunded provider_error");
        assert_eq!(world.balance_of("bob").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn two_items_with_one_job_and_index_are_held(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        for charge in ["a", "b"] {
            world.charge(charge).job("ok-shared").insert().await;
        }
        let twin = || ItemRow { credits: 5, job: Some("failed-own".to_owned()), index: None, failed: None };
        world.charge("c").item_rows(vec![twin(), twin()]).insert().await;
        let report = world.pass().await;
        for item in ["a/0", "b/0", "c/0", "c/1"] {
            finds(&report, "duplicate_job", &format!("item {item}"));
        }
        only_the_good_one_was_refunded(&world).await;
    }
}

on_both! {
    async fn credits_at_the_end_of_the_range_neither_wrap_nor_stop_anybody(world) {
        world.balance("ada", 0, 0).await;
        world.balance("eve", 0, 0).await;
        for (charge, account) in [("a1", "ada"), ("a2", "ada"), ("e1", "eve")] {
            world.charge(charge).account(account).job(&format!("failed-{charge}")).drawn(0, i64::MAX).items(&[i64::MAX]).insert().await;
        }
        world.charge("both").job("failed-both").drawn(i64::MAX, i64::MAX).items(&[i64::MAX, i64::MAX]).insert().await;
        world.charge("least").job("failed-least").drawn(0, i64::MIN).items(&[i64::MIN]).insert().await;
        world.charge("bare").job("failed-bare").drawn(i64::MAX, i64::MAX).items(&[]).insert().await;
        let report = world.pass().await;
        // One fits into the sums of the brake. It holds the others, since their sum is no number
        // that the database can hold.
        let refunds = "SELECT account_id || ' ' || wallet_credits || ' ' || subscription_credits AS v FROM makegood_refunds";
        let refunded = world.texts(refunds).await;
        let (ada, eve) = (world.balance_of("ada").await, world.balance_of("eve").await);
        assert_eq!(refunded.len(), 1, "{report:?}");
        assert_eq!(i128::from(ada.0) + i128::from(ada.1) + i128::from(eve.1), i128::from(i64::MAX));
        let held = "SELECT count(*) AS v FROM makegood_orphans WHERE state = 'held' AND reason = 'brake'";
        assert_eq!(world.number(held).await, 4, "{report:?}");
        finds(&report, "items_mismatch", "charge least");
        finds(&report, "items_mismatch", "charge bare");
        // The next charge is held for the same cause, and is not lost.
        world.balance("bob", 0, 0).await;
        world.charge("good").account("bob").job("failed-good").age(30 * MINUTE).insert().await;
        world.pass().await;
        assert_eq!(world.fate("good", 0).await, "held brake");
    }
}

on_both! {
    async fn doubled_rows_are_reported_and_stop_no_other(world) {
        for table in ["charges", "charge_items", "stored_outputs"] {
            world.without_keys(table).await;
        }
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        world.charge("charge").job("failed-1").insert().await;
        world.charge("item").job("failed-2").insert().await;
        world.charge("output").job("failed-3").insert().await;
        world.store_output("out", None, ("replicate", "failed-3", 0), ("p-output", "n-output")).await;
        world.charge("fetched").job("ok-4").insert().await;
        world.run("INSERT INTO charges SELECT * FROM charges WHERE id IN ('charge', 'fetched')").await;
        world.run("INSERT INTO charge_items SELECT * FROM charge_items WHERE charge_id = 'item'").await;
        world.run("INSERT INTO stored_outputs SELECT * FROM stored_outputs").await;
        let report = world.pass().await;
        assert_eq!(world.fate("good", 0).await, "refunded provider_error");
        // It is never refunded twice. A person decides whether it is refunded once.
        for charge in ["charge", "item", "fetched"] {
            assert!(world.number(&format!("SELECT count(*) AS v FROM makegood_refunds WHERE charge_id = '{charge}'")).await <= 1);
        }
        finds(&report, "unreadable_row", "item charge/0");
        finds(&report, "unreadable_row", "item item/0");
        finds(&report, "unreadable_row", "item fetched/0");
        finds(&report, "unreadable_row", "item output/0");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}
