//! NULL where the contract forbids it. Over views, nothing in the database prevents it.

use crate::world::{HOUR, World, on_both};

use super::{finds, good_one, only_the_good_one_was_refunded};

/// Lets NULL into a relation.
async fn loosen(world: &World) {
    for table in ["charges", "charge_items", "stored_outputs", "balances", "ledger_entries"] {
        world.without_keys(table).await;
    }
}

on_both! {
    async fn a_null_in_a_charge_is_reported_and_stops_no_other(world) {
        loosen(&world).await;
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let columns = ["account_id", "provider", "model", "charged_at", "subscription_credits", "wallet_credits"];
        for column in columns {
            world.charge(column).job(&format!("failed-{column}")).drawn(5, 5).insert().await;
            world.run(&format!("UPDATE charges SET {column} = NULL WHERE id = '{column}'")).await;
        }
        world.charge("nameless").job("failed-nameless").insert().await;
        world.run("UPDATE charges SET id = NULL WHERE id = 'nameless'").await;
        let report = world.pass().await;
        for column in columns {
            // No scan over time finds a charge without a time. A finding of its own reports it.
            if column == "charged_at" {
                finds(&report, "odd_time", "charge charged_at");
            } else {
                let kind = if column == "provider" { "refused_row" } else { "unreadable_row" };
                finds(&report, kind, &format!("item {column}/0"));
            }
        }
        only_the_good_one_was_refunded(&world).await;
        // Mended, they are made good.
        world.run("UPDATE charges SET model = 'm', provider = 'replicate' WHERE id IN ('model', 'provider')").await;
        world.pass_time(4 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("model", 0).await, "refunded provider_error");
        assert_eq!(world.fate("provider", 0).await, "refunded provider_error");
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_an_output_is_not_taken_from_an_item_that_cannot_be_read(world) {
        loosen(&world).await;
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        world.charge("mine").job("ok-1").insert().await;
        world.charge("holder").job("ok-1").account("bob").insert().await;
        world.store_output("out", Some(("holder", 0)), ("replicate", "ok-1", 0), ("p-holder", "n-holder")).await;
        world.run("UPDATE charge_items SET credits = NULL WHERE charge_id = 'holder'").await;
        let report = world.pass().await;
        finds(&report, "unreadable_row", "item mine/0");
        assert_eq!(world.texts("SELECT charge_id || ' ' || project_id AS v FROM stored_outputs").await, ["holder p-holder"]);
        only_the_good_one_was_refunded(&world).await;
    }
}

on_both! {
    async fn a_null_in_an_item_is_reported_and_stops_no_other(world) {
        loosen(&world).await;
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        world.charge("credits").job("failed-1").insert().await;
        world.run("UPDATE charge_items SET credits = NULL WHERE charge_id = 'credits'").await;
        world.charge("index").job("failed-2").insert().await;
        world.run("UPDATE charge_items SET output_index = NULL WHERE charge_id = 'index'").await;
        world.charge("charge").job("failed-3").insert().await;
        world.run("UPDATE charge_items SET charge_id = NULL WHERE charge_id = 'charge'").await;
        world.charge("failed").job("failed-4").failed().insert().await;
        world.run("UPDATE charge_items SET output_index = NULL, credits = NULL WHERE charge_id = 'failed'").await;
        world.charge("one-of-two").job("failed-5").drawn(0, 20).items(&[10, 10]).insert().await;
        world.run("UPDATE charge_items SET credits = NULL WHERE charge_id = 'one-of-two' AND output_index = 1").await;
        let report = world.pass().await;
        finds(&report, "unreadable_row", "item credits/0");
        finds(&report, "unreadable_row", "item index/-1");
        finds(&report, "items_mismatch", "charge charge");
        finds(&report, "unreadable_row", "item failed/-1");
        finds(&report, "unreadable_row", "item one-of-two/0");
        finds(&report, "unreadable_row", "item one-of-two/1");
        only_the_good_one_was_refunded(&world).await;
    }
}

on_both! {
    async fn a_null_in_an_output_is_reported_and_stops_no_other(world) {
        loosen(&world).await;
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let columns = ["id", "provider", "provider_job_id", "provider_output_index", "stored_at"];
        for column in columns {
            let job = format!("failed-{column}");
            world.charge(column).job(&job).insert().await;
            // Lies in the wrong place, so that every column counts.
            world.store_output(column, Some((column, 0)), ("replicate", &job, 0), ("elsewhere", "there")).await;
            world.run(&format!("UPDATE stored_outputs SET {column} = NULL WHERE charge_id = '{column}'")).await;
        }
        let report = world.pass().await;
        for column in columns {
            finds(&report, "unreadable_row", &format!("item {column}/0"));
        }
        only_the_good_one_was_refunded(&world).await;
    }
}

on_both! {
    async fn a_null_in_the_ledger_or_a_balance_is_reported_and_stops_no_other(world) {
        loosen(&world).await;
        good_one(&world).await;
        for account in ["ada", "bucket", "credits", "null-balance"] {
            world.balance(account, 0, 0).await;
        }
        for (column, set) in [("bucket", "bucket = NULL"), ("credits", "credits = NULL")] {
            world.charge(column).job(&format!("failed-{column}")).insert().await;
            world.run(&world.refund_row(column, Some(0), "wallet", 5)).await;
            world.run("UPDATE balances SET credits = 0 WHERE account_id = 'ada'").await;
            world.unlocked("ledger_entries", &format!("UPDATE ledger_entries SET {set} WHERE charge_id = '{column}'")).await;
        }
        // NULL plus credits is NULL, so a refund would be lost.
        world.charge("null-balance").account("null-balance").job("failed-n").insert().await;
        world.run("UPDATE balances SET credits = NULL WHERE account_id = 'null-balance'").await;
        world.run("INSERT INTO balances VALUES (NULL, 'wallet', 3), ('ada', NULL, 4)").await;
        let report = world.pass().await;
        finds(&report, "unreadable_row", "item bucket/0");
        finds(&report, "unreadable_row", "item credits/0");
        assert_eq!(world.fate("null-balance", 0).await, "held no_balance", "{:?}", report.findings);
        only_the_good_one_was_refunded(&world).await;
    }
}
