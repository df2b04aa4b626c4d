//! Settle reads back what it has posted before it commits. A trigger or a view of the platform's
//! that does something else leaves no refund behind that the customer did not get (P01 refunded
//! once, P03 to the balances that paid).

use crate::world::{HOUR, ItemRow, MINUTE, World, on_both};

/// Refunds, makegood's entries in the ledger, and ada's wallet.
async fn posted(world: &World) -> (i64, i64, i64) {
    (
        world.number("SELECT count(*) AS v FROM makegood_refunds").await,
        world.number("SELECT count(*) AS v FROM ledger_entries WHERE id LIKE 'makegood:%'").await,
        world.balance_of("ada").await.1,
    )
}

/// A trigger on a table of the platform's.
fn trigger(timing: &str, table: &str, body: &str) -> String {
    let kind = if timing.contains("CONSTRAINT") { "CONSTRAINT TRIGGER" } else { "TRIGGER" };
    let (when, deferred) = match timing {
        "CONSTRAINT AFTER UPDATE" => ("AFTER UPDATE", "DEFERRABLE INITIALLY DEFERRED"),
        when => (when, ""),
    };
    format!(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
         CREATE {kind} odd {when} ON {table} {deferred} FOR EACH ROW EXECUTE FUNCTION odd()"
    )
}

#[tokio::test]
async fn p01_p03_a_refund_that_does_not_show_in_balance_or_ledger_is_not_written_and_held() {
    for (what, table, trigger) in [
        ("nothing is added", "balances", trigger("BEFORE UPDATE", "balances", "RETURN OLD;")),
        (
            "another unit is added",
            "balances",
            trigger(
                "BEFORE UPDATE",
                "balances",
                "NEW.credits := OLD.credits + (NEW.credits - OLD.credits) * 1000000; RETURN NEW;",
            ),
        ),
        (
            "it is taken back at the commit",
            "balances",
            trigger(
                "CONSTRAINT AFTER UPDATE",
                "balances",
                "IF NEW.credits <> 0 THEN UPDATE balances SET credits = 0 WHERE account_id = NEW.account_id; END IF; RETURN NULL;",
            ),
        ),
        (
            "the entry is dropped",
            "ledger_entries",
            trigger("BEFORE INSERT", "ledger_entries", "RETURN NULL;"),
        ),
        (
            "the entry is in another unit",
            "ledger_entries",
            trigger("BEFORE INSERT", "ledger_entries", "NEW.credits := NEW.credits * 100; RETURN NEW;"),
        ),
        (
            "the entry is another account's",
            "ledger_entries",
            trigger("BEFORE INSERT", "ledger_entries", "NEW.account_id := 'eve'; RETURN NEW;"),
        ),
    ] {
        let world = World::postgres().await;
        world.balance("ada", 0, 0).await;
        world.balance("eve", 0, 0).await;
        // No trial runs within the hour, so each refund has to detect it.
        world.just_tried().await;
        world.run(&trigger).await;
        for nth in 0..3 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        // Needs no money, and is made good all the same.
        world.charge("ok").job("ok-1").insert().await;
        let report = world.pass().await;
        assert_eq!(world.fate("c0", 0).await, "held not_posted", "{what}: {report:?}");
        assert_eq!(posted(&world).await, (0, 0, 0), "{what}");
        assert_eq!(world.fate("ok", 0).await, "recovered output_available", "{what}");
        assert!(
            report.findings.iter().any(|each| each.kind == "not_posted" && each.about == "item c0/0"),
            "{report:?}"
        );
        let told =
            world.texts("SELECT detail AS v FROM makegood_orphan_events WHERE reason = 'not_posted'").await;
        assert_eq!(told.len(), 3, "{what}");
        assert!(told.iter().all(|detail| detail.contains("nothing was written")), "{told:?}");

        world.run(&format!("DROP TRIGGER odd ON {table}")).await;
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(posted(&world).await, (3, 3, 30), "{what}: mended, it is refunded by itself");
        world.books_balance().await;
    }
}

/// The trigger stands for another session that commits between the two reads: it adds once, and not
/// when the transaction is tried again.
#[tokio::test]
async fn p03_a_difference_that_is_gone_under_one_snapshot_holds_nothing() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.just_tried().await;
    world.run("CREATE SEQUENCE tries; GRANT USAGE ON SEQUENCE tries TO PUBLIC").await;
    let adds_once = "IF nextval('tries') = 1 THEN NEW.credits := NEW.credits + 5; END IF; RETURN NEW;";
    world.run(&trigger("BEFORE UPDATE", "balances", adds_once)).await;
    world.charge("c").job("failed-1").insert().await;
    let report = world.pass().await;
    assert_eq!(world.fate("c", 0).await, "refunded provider_error", "{report:?}");
    assert_eq!(posted(&world).await, (1, 1, 10));
    assert_eq!(world.number("SELECT last_value AS v FROM tries").await, 3, "posted, tried, posted again");
    world.books_balance().await;
}

/// The difference shows in transactions of the usual isolation, and not under one snapshot. Without
/// a limit of tries the settle would never end.
#[tokio::test]
async fn p03_a_difference_that_comes_back_with_every_try_is_held_after_a_few() {
    for (times, fate, credits) in [(2, "refunded provider_error", 10), (1_000, "held not_posted", 0)] {
        let world = World::postgres().await;
        world.balance("ada", 0, 0).await;
        world.just_tried().await;
        world.run("CREATE SEQUENCE tries; GRANT USAGE ON SEQUENCE tries TO PUBLIC").await;
        let adds_more = format!(
            "IF current_setting('transaction_isolation') = 'read committed' AND nextval('tries') <= {times} THEN
             NEW.credits := NEW.credits + 5; END IF; RETURN NEW;"
        );
        world.run(&trigger("BEFORE UPDATE", "balances", &adds_more)).await;
        world.charge("c").job("failed-1").insert().await;
        let report = tokio::time::timeout(2 * MINUTE, world.pass()).await.expect("it ends");
        assert_eq!(world.fate("c", 0).await, fate, "{times}: {report:?}");
        let many = i64::from(credits > 0);
        assert_eq!(posted(&world).await, (many, many, credits), "{times}");
    }
}

#[tokio::test]
async fn p03_a_balance_that_is_the_sum_of_the_ledger_is_right() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world
        .run(
            "ALTER TABLE balances RENAME TO accounts_and_buckets;
             CREATE VIEW balances AS
                 SELECT a.account_id, a.bucket,
                        coalesce((SELECT sum(l.credits) FROM ledger_entries l
                                  WHERE l.account_id = a.account_id AND l.bucket = a.bucket), 0)::bigint AS credits
                 FROM accounts_and_buckets a;
             CREATE FUNCTION sums() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER sums INSTEAD OF UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION sums();
             GRANT SELECT, UPDATE ON balances TO PUBLIC",
        )
        .await;
    let before = world.balance_of("ada").await.1;
    world.charge("c").job("failed-1").insert().await;
    let report = world.pass().await;
    assert_eq!(world.fate("c", 0).await, "refunded provider_error", "{report:?}");
    assert_eq!(world.balance_of("ada").await.1 - before, 10);
}

on_both! {
    async fn p03_a_charge_that_changes_after_its_first_refund_holds_the_rest(world) {
        for account in ["ada", "eve"] {
            world.balance(account, 0, 0).await;
        }
        let changes = [("moved", "account_id = 'eve'"), ("repriced", "wallet_credits = 1020")];
        for (charge, _) in changes {
            let item = |job: String| ItemRow { credits: 10, job: Some(job), index: None, failed: None };
            let items = vec![item(format!("failed-{charge}")), item(format!("running-{charge}"))];
            world.charge(charge).drawn(0, 20).item_rows(items).insert().await;
        }
        world.pass().await;
        for (charge, change) in changes {
            assert_eq!(world.fate(charge, 0).await, "refunded provider_error", "{charge}");
            world.run(&format!("UPDATE charges SET {change} WHERE id = '{charge}'")).await;
        }
        world.run("UPDATE charge_items SET credits = 1010 WHERE charge_id = 'repriced' AND output_index = 1").await;
        world.pass_time(20 * HOUR);
        let mut found = false;
        for _ in 0..5 {
            world.pass_time(HOUR / 4);
            let report = world.pass().await;
            found |= report.findings.iter().any(|each| each.kind == "charge_changed" && each.about == "charge moved");
        }
        assert!(found);
        for charge in ["moved", "repriced"] {
            assert_eq!(world.fate(charge, 1).await, "held charge_changed", "{charge}");
        }
        assert_eq!((world.balance_of("ada").await, world.balance_of("eve").await), ((0, 20), (0, 0)));
    }
}

on_both! {
    async fn p01_a_job_that_charges_of_two_accounts_name_is_held(world) {
        for account in ["ada", "eve"] {
            world.balance(account, 0, 0).await;
        }
        // Another output of the same job.
        let other = vec![ItemRow { credits: 10, job: Some("failed-1".into()), index: Some(1), failed: None }];
        world.charge("mine").job("failed-1").insert().await;
        world.charge("hers").account("eve").item_rows(other).insert().await;
        // One file without an item.
        let item = |index| vec![ItemRow { credits: 10, job: Some("ok-2".into()), index: Some(index), failed: None }];
        world.charge("file-mine").item_rows(item(0)).insert().await;
        world.charge("file-hers").account("eve").item_rows(item(1)).insert().await;
        let report = world.pass().await;
        for charge in ["mine", "hers", "file-mine", "file-hers"] {
            assert_eq!(world.fate(charge, 0).await, "held duplicate_job", "{charge} {report:?}");
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 0);
    }
}

on_both! {
    async fn p01_a_job_id_with_white_space_around_it_is_never_asked_about(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c").job("failed-1 ").insert().await;
        let report = world.pass().await;
        assert!(report.findings.iter().any(|each| each.kind == "unreadable_row" && each.detail.contains("white space")), "{report:?}");
        world.pass_time(23 * HOUR);
        world.pass().await;
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 0);
        world.run("UPDATE charges SET provider_job_id = 'failed-1'").await;
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.fate("c", 0).await, "refunded provider_error");
    }
}
