//! What both databases must do alike: understand every statement, enforce the constraints on money,
//! and compute rule 1 as Rust does. In `conformance/views.rs`, makegood works over views of a
//! platform's own tables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rule_one;
mod views;

use makegood::report::chain;
use makegood::store::Store;
use std::time::Duration;

use crate::database;
use crate::world::{HOUR, Sql, World, on_both};

on_both! {
    async fn every_statement_is_understood(world) {
        let statements = world.store.prepare_all().await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert!(statements >= 50, "{statements}");
        world.run("ALTER TABLE charge_items RENAME COLUMN failed_at TO broke_at").await;
        // In a process of its own, because SQLite keeps statements that it has prepared.
        let fresh = Store::open(&world.database.url, 1, Duration::from_secs(30)).await.unwrap();
        let error = fresh.prepare_all().await.unwrap_err();
        assert!(chain(&error).contains("failed_at"), "a missing column is seen: {}", chain(&error));
        fresh.close().await;
    }
}

on_both! {
    async fn migrating_again_changes_nothing(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.pass().await;
        let before = world.all_rows().await;
        let owner = Store::open(&world.database.url, 1, Duration::from_secs(30)).await.unwrap();
        owner.migrate(true).await.unwrap();
        owner.migrate(false).await.unwrap();
        assert_eq!(world.all_rows().await, before);
    }
}

async fn migrate_without_contract(url: &str) {
    let store = Store::open(url, 2, Duration::from_secs(30)).await.unwrap();
    let error = store.migrate(false).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("charge_items") && text.contains("--reference-schema"), "{text}");
    // The failed attempt was rolled back. Once the relations exist, it succeeds.
    store.migrate(true).await.unwrap();
    store.prepare_all().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn migrating_without_the_contract_relations_says_what_to_do_on_postgres() {
    let database = database::database().await;
    migrate_without_contract(&database.url).await;
}

#[tokio::test]
async fn migrating_without_the_contract_relations_says_what_to_do_on_sqlite() {
    let database = database::sqlite();
    migrate_without_contract(&database.url).await;
}

#[tokio::test]
async fn two_processes_that_migrate_at_once_do_not_get_into_each_others_way() {
    let database = database::database().await;
    let migrate = || async {
        let store = Store::open(&database.url, 2, Duration::from_secs(30)).await.unwrap();
        store.migrate(true).await.unwrap();
        store.close().await;
    };
    tokio::join!(migrate(), migrate(), migrate());
}

/// One charge refunded, one recovered, one relinked, one closed, one held by the brake's release.
async fn settled(world: &World) {
    world.balance("ada", 0, 0).await;
    world.charge("refunded").job("failed-1").drawn(4, 16).items(&[10, 10]).insert().await;
    world.charge("recovered").job("ok-2").insert().await;
    world.charge("relinked").job("ok-3").insert().await;
    world.store_output("out", None, ("replicate", "ok-3", 0), ("p-relinked", "n-relinked")).await;
    world.charge("closed").job("expired-4").cancelled().insert().await;
    world.run(&format!("INSERT INTO makegood_brake_events (at, kind, by_whom, reason) VALUES ({}, 'released', 'grace', 'a test')", world.at(world.now()))).await;
    world.pass().await;
    for (charge, fate) in [
        ("refunded", "refunded provider_error"),
        ("recovered", "recovered output_available"),
        ("relinked", "relinked misattributed"),
        ("closed", "closed completed_after_cancel"),
    ] {
        assert_eq!(world.fate(charge, 0).await, fate);
    }
}

/// The statement is refused, and nothing changed.
async fn refused(world: &World, why: &str, sql: &str) {
    let before = world.all_rows().await;
    let error = world.try_run(sql).await.err().unwrap_or_else(|| panic!("accepted: {sql}"));
    let text = chain(&error);
    assert!(text.contains(why), "{sql}\nwas refused, but not for {why:?}: {text}");
    assert_eq!(world.all_rows().await, before, "{sql}");
}

on_both! {
    async fn p01_rows_about_money_cannot_be_changed_or_removed(world) {
        settled(&world).await;
        for table in ["makegood_refunds", "makegood_recoveries", "makegood_orphan_events", "makegood_answers", "makegood_brake_events", "ledger_entries"] {
            assert_ne!(world.number(&format!("SELECT count(*) AS v FROM {table}")).await, 0, "{table}");
            let column = world.texts(&match &world.sql {
                Sql::Postgres(_) => format!("SELECT column_name AS v FROM information_schema.columns WHERE table_name = '{table}' AND ordinal_position = 2"),
                Sql::Sqlite(_) => format!("SELECT name AS v FROM pragma_table_info('{table}') WHERE cid = 1"),
            }).await.remove(0);
            let why = format!("{table} is only ever added to");
            refused(&world, &why, &format!("UPDATE {table} SET {column} = {column}")).await;
            refused(&world, &why, &format!("DELETE FROM {table}")).await;
            match &world.sql {
                Sql::Postgres(_) => refused(&world, &why, &format!("TRUNCATE {table} CASCADE")).await,
                Sql::Sqlite(_) => {
                    refused(&world, &why, &format!("INSERT OR REPLACE INTO {table} SELECT * FROM {table} LIMIT 1")).await;
                    refused(&world, &why, &format!("REPLACE INTO {table} SELECT * FROM {table} LIMIT 1")).await;
                    refused(&world, &why, &format!("UPDATE OR REPLACE {table} SET {column} = {column}")).await;
                }
            }
        }
    }
}

on_both! {
    async fn p01_a_resolution_is_never_changed_and_a_refund_never_superseded(world) {
        settled(&world).await;
        let never = "a resolution is never";
        let at = world.at(world.now());
        for set in ["kind = 'close'", "reason = 'x'", "charge_id = 'x'", "output_index = 7", "rule = 1", "decided_by = 'x'", "answer_id = NULL", "pass_id = NULL", &format!("resolved_at = {at}, rule = 1")] {
            refused(&world, never, &format!("UPDATE makegood_resolutions SET {set} WHERE charge_id IN ('recovered', 'refunded')")).await;
        }
        refused(&world, never, &format!("UPDATE makegood_resolutions SET superseded_at = {at} WHERE kind = 'refund'")).await;
        refused(&world, never, &format!("UPDATE makegood_resolutions SET superseded_at = {at}, reason = 'x' WHERE charge_id = 'recovered'")).await;
        refused(&world, never, "DELETE FROM makegood_resolutions WHERE kind = 'close'").await;
        world.run(&format!("UPDATE makegood_resolutions SET superseded_at = {at} WHERE charge_id = 'recovered'")).await;
        refused(&world, never, "UPDATE makegood_resolutions SET superseded_at = NULL WHERE charge_id = 'recovered'").await;
    }
}

#[tokio::test]
async fn p01_resolutions_cannot_be_emptied_on_postgres() {
    let world = World::postgres().await;
    settled(&world).await;
    refused(&world, "only ever added to", "TRUNCATE makegood_resolutions CASCADE").await;
    refused(&world, "", "TRUNCATE makegood_resolutions").await;
}

on_both! {
    async fn p01_an_item_has_one_current_resolution_and_one_refund(world) {
        settled(&world).await;
        let at = world.at(world.now());
        let resolution = |charge: &str, index: i64, kind: &str| format!("INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at, decided_by) VALUES ('{charge}', {index}, '{kind}', 'x', 6, {at}, 'x')");
        let current = match &world.sql { Sql::Postgres(_) => "one_current_resolution_an_item", Sql::Sqlite(_) => "at most one current resolution" };
        refused(&world, current, &resolution("recovered", 0, "refund")).await;
        refused(&world, current, &resolution("refunded", 1, "close")).await;
        if matches!(world.sql, Sql::Sqlite(_)) {
            refused(&world, current, &resolution("refunded", 1, "close").replace("INSERT", "INSERT OR REPLACE")).await;
        }
        // A second refund is refused even with a resolution of its own.
        world.run(&resolution("elsewhere", 0, "refund")).await;
        let id = world.number("SELECT id AS v FROM makegood_resolutions WHERE charge_id = 'elsewhere'").await;
        let refund = |key: &str, charge: &str, index: i64, split: &str| format!("INSERT INTO makegood_refunds VALUES ('{key}', {id}, '{charge}', {index}, 'ada', 'p', 'm', {split}, 'x', {at})");
        let (one, some) = match &world.sql {
            Sql::Postgres(_) => ("one_refund_an_item", "a_refund_gives_something"),
            Sql::Sqlite(_) => ("a second row of one key", "a_refund_gives_something"),
        };
        refused(&world, one, &refund("other", "refunded", 0, "0, 5")).await;
        refused(&world, some, &refund("other", "recovered", 0, "0, 0")).await;
        refused(&world, "", &refund("other", "recovered", 0, "-5, 10")).await;
        // PostgreSQL has no foreign key here: the function that posts refuses it.
        match &world.sql {
            Sql::Postgres(_) => {
                let list = r#"[{"charge_id": "elsewhere", "output_index": 0, "subscription": 0, "wallet": 5}]"#;
                let post = format!("SELECT makegood_write_refunds('{list}')");
                refused(&world, "refuses 1 refunds: 0 have a charge", &post).await;
                world.charge("elsewhere").insert().await;
                refused(&world, "makegood_charges has 0 of them", &post).await;
            }
            Sql::Sqlite(_) => refused(&world, "FOREIGN KEY", &refund("other", "no such charge", 0, "0, 5")).await,
        }
        refused(&world, "", &refund("makegood:refunded/0", "recovered", 7, "0, 5")).await;
    }
}

on_both! {
    async fn p03_the_database_refuses_more_than_was_drawn(world) {
        settled(&world).await;
        assert_eq!(world.texts("SELECT subscription_refunded || ' ' || wallet_refunded AS v FROM makegood_charges WHERE charge_id = 'refunded'").await, ["4 16"]);
        let bound = "never_more_refunded_than_drawn";
        for bucket in ["subscription", "wallet"] {
            refused(&world, bound, &format!("UPDATE makegood_charges SET {bucket}_refunded = {bucket}_refunded + 1 WHERE charge_id = 'refunded'")).await;
            refused(&world, bound, &format!("UPDATE makegood_charges SET {bucket}_refunded = -1 WHERE charge_id = 'refunded'")).await;
            refused(&world, bound, &format!("UPDATE makegood_charges SET {bucket}_drawn = {bucket}_drawn - 1 WHERE charge_id = 'refunded'")).await;
        }
    }
}

on_both! {
    async fn a_second_orphan_of_an_item_and_a_state_of_no_meaning_are_refused(world) {
        settled(&world).await;
        refused(&world, "", "UPDATE makegood_orphans SET charge_id = 'refunded' WHERE charge_id = 'closed'").await;
        refused(&world, "resolved_or_not", "UPDATE makegood_orphans SET state = 'open' WHERE charge_id = 'closed'").await;
        refused(&world, "", "UPDATE makegood_orphans SET state = 'lost' WHERE charge_id = 'closed'").await;
        refused(&world, "", "INSERT INTO makegood_brake (id) VALUES (2)").await;
    }
}

on_both! {
    async fn p04_p21_the_views_for_people_add_up(world) {
        settled(&world).await;
        let by_charge = "SELECT charge_id || ' ' || count(*) || ' ' || sum(credits) AS v FROM billing_activity GROUP BY charge_id ORDER BY charge_id";
        // A deduction each; each orphan found; each refund; each recovery.
        assert_eq!(world.texts(by_charge).await, ["closed 2 -10", "recovered 3 -10", "refunded 5 0", "relinked 3 -10"]);
        let status = "SELECT charge_id || '/' || output_index || ' ' || status || ' ' || CASE WHEN billable THEN credits ELSE 0 END AS v FROM usage_history ORDER BY charge_id, output_index";
        assert_eq!(world.texts(status).await, ["closed/0 expected 10", "recovered/0 delivered 10", "refunded/0 refunded 0", "refunded/1 refunded 0", "relinked/0 delivered 10"]);
        assert_eq!(world.texts("SELECT account_id || ' ' || items || ' ' || credits AS v FROM billable_usage").await, ["ada 3 30"]);
    }
}

on_both! {
    async fn a_passs_row_records_how_it_ended(world) {
        world.pass().await;
        world.pass_time(HOUR);
        world.run("ALTER TABLE charge_items RENAME TO charge_things").await;
        let failed = makegood::pass::run(&world.parts, World::orders(), |_| {}).await;
        assert!(failed.is_err());
        let rows = world.texts("SELECT outcome AS v FROM makegood_passes ORDER BY id").await;
        assert_eq!(rows, ["done", "failed"]);
        assert_eq!(world.store.last_success().await.unwrap(), Some(crate::world::start()));
    }
}
