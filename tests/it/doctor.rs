//! `makegood check`: what it finds, and that it changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world has failed")]

mod books;
mod posting;
mod rows;
mod state;
mod types;

use std::path::Path;

use serde_json::Value;

use crate::binary::makegood;
use crate::commands::{World, worlds};
use crate::database::{ROLE, database, sqlite};

/// The grade of one check.
fn grade<'a>(told: &'a Value, about: &str) -> Option<&'a str> {
    let checks = told["checks"].as_array().unwrap();
    checks.iter().find(|check| check["about"] == about).and_then(|check| check["grade"].as_str())
}

/// The text and grade of one check; empty if there is none.
fn told_of(told: &Value, about: &str) -> Vec<String> {
    let checks = told["checks"].as_array().unwrap().iter().filter(|check| check["about"] == about);
    checks
        .map(|check| format!("{} {}", check["grade"].as_str().unwrap(), check["says"].as_str().unwrap()))
        .collect()
}

/// The advice of one check, as a whole.
fn advice(told: &Value, about: &str) -> String {
    let checks = told["checks"].as_array().unwrap().iter().filter(|check| check["about"] == about);
    checks.map(|check| check["advice"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

async fn check(world: &World) -> (Option<i32>, Value) {
    let ended = world.makegood(&["check"]).output().await;
    (ended.code, serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}")))
}

#[tokio::test]
async fn check_finds_each_mistake_and_nothing_else() {
    for world in worlds().await {
        world.run().await;
        let (code, told) = check(&world).await;
        assert_eq!(code, Some(0), "{told}");
        for about in [
            "settings",
            "database",
            "contract",
            "own tables",
            "indexes",
            "rights",
            "passes",
            "brake",
            "storage",
        ] {
            let shared = about == "storage" && world.is_postgres();
            assert_eq!(grade(&told, about), Some(if shared { "warn" } else { "ok" }), "{about}: {told}");
        }
        assert_eq!(grade(&told, "recovery"), Some("warn"));
        assert_eq!(grade(&told, "orphans"), Some("warn"));

        world
            .execute("DROP INDEX charges_by_time; ALTER TABLE balances RENAME COLUMN credits TO amount")
            .await;
        let (code, told) = check(&world).await;
        assert_eq!(code, Some(1));
        assert_eq!(grade(&told, "contract: balances"), Some("fail"), "{told}");
        world.execute("ALTER TABLE balances RENAME COLUMN amount TO credits").await;
        let (code, told) = check(&world).await;
        let (fails, grave) = if world.is_postgres() { (1, "fail") } else { (0, "warn") };
        assert_eq!((code, grade(&told, "indexes: charges")), (Some(fails), Some(grave)), "{told}");
    }
}

#[tokio::test]
async fn check_does_not_create_anything() {
    for database in [database().await, sqlite()] {
        let ended = makegood(&["check"]).env("DATABASE_URL", &database.url).output().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        if database.url.starts_with("postgres") {
            assert_eq!(grade(&told, "own tables"), Some("fail"));
            assert_eq!(grade(&told, "contract: charges"), Some("fail"));
        } else {
            assert_eq!(grade(&told, "database"), Some("fail"));
            assert!(!Path::new(database.url.strip_prefix("sqlite://").unwrap()).exists());
        }
    }
}

/// 20 of 20 such refunds were once paid twice, without a warning.
#[tokio::test]
async fn the_doctor_counts_refunds_of_the_platforms_own_that_name_no_charge_or_no_item() {
    for world in worlds().await {
        let entry = |id: &str, charge: &str, index: &str, credits: i64, refund: &str| {
            let at = if world.is_postgres() { "now()" } else { "1772366400000000" };
            format!(
                "INSERT INTO ledger_entries VALUES ('{id}', 'ada', 'wallet', {credits}, 'refund', {charge}, {index}, {refund}, {at});"
            )
        };
        let (_, told) = check(&world).await;
        assert_eq!(grade(&told, "refunds"), Some("ok"), "{told}");
        let mut sql = String::new();
        for nth in 0..20 {
            sql += &entry(&format!("run-{nth:02}"), "''", "NULL", 10, "NULL");
        }
        sql += &entry("of-another-id", "'no-such-charge'", "0", 10, "'r1'");
        sql += &entry("of-no-item", "'failed-1'", "NULL", 10, "NULL");
        // Linked refunds, and one that was taken back: both are right.
        sql += &entry("linked", "'failed-2'", "0", 10, "NULL");
        sql += &entry("taken-back", "''", "NULL", -10, "NULL");
        world.execute(&sql).await;
        let (code, told) = check(&world).await;
        assert_eq!(code, Some(0), "warnings: {told}");
        let says: Vec<&str> = told["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|each| each["about"] == "refunds" && each["grade"] == "warn")
            .map(|each| each["says"].as_str().unwrap())
            .collect();
        let [no_charge, no_item, unknown] = says[..] else { panic!("{says:?}") };
        assert!(
            no_charge.starts_with("20 refunds") && no_charge.contains("`run-00`, `run-19`"),
            "{no_charge}"
        );
        assert!(no_item.starts_with("1 refund of") && no_item.contains("`of-no-item`;"), "{no_item}");
        assert!(unknown.starts_with("1 refund of") && unknown.contains("`of-another-id`;"), "{unknown}");
    }
}

/// The findings about indexes: subject, what would be read, and the advice.
async fn indexes(world: &World) -> Vec<(String, String, String)> {
    let (code, told) = check(world).await;
    let checks = told["checks"].as_array().unwrap().clone();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let bad: Vec<_> = checks
        .iter()
        .filter(|check| check["about"].as_str().unwrap().starts_with("indexes:"))
        .map(|check| (text(check, "about"), text(check, "says"), text(check, "advice")))
        .collect();
    assert_eq!(grade(&told, "indexes").is_some(), bad.is_empty(), "{told}");
    if world.is_postgres() {
        assert_eq!(code, Some(i32::from(!bad.is_empty())), "{told}");
    }
    bad
}

#[tokio::test]
async fn the_doctor_names_each_index_that_is_missing_with_the_statements_that_need_it() {
    for world in worlds().await {
        assert_eq!(indexes(&world).await, [], "a small platform has all that it needs");
        // SQLite's keys cannot be dropped.
        let key = |table: &str| {
            let drop = format!("ALTER TABLE {table} DROP CONSTRAINT {table}_pkey CASCADE");
            if world.is_postgres() { drop } else { String::new() }
        };
        for (drop, again, relation, statement, index) in [
            (
                "DROP INDEX charges_by_time".to_owned(),
                "CREATE INDEX charges_by_time ON charges (charged_at, id)",
                "charges",
                "find_undelivered",
                "public.charges (charged_at, id)",
            ),
            (
                "DROP INDEX charges_by_job".to_owned(),
                "CREATE INDEX charges_by_job ON charges (provider_job_id, provider)",
                "charges",
                "items_of_jobs",
                "public.charges (provider_job_id)",
            ),
            (
                "DROP INDEX charge_items_by_job".to_owned(),
                "CREATE INDEX charge_items_by_job ON charge_items (provider_job_id)",
                "charge_items",
                "items_of_jobs",
                "public.charge_items (provider_job_id)",
            ),
            (
                "DROP INDEX charge_items_failed".to_owned(),
                "CREATE INDEX charge_items_failed ON charge_items (failed_at)",
                "charge_items",
                "find_failed",
                "public.charge_items (failed_at)",
            ),
            (
                "DROP INDEX stored_outputs_by_item".to_owned(),
                "CREATE INDEX stored_outputs_by_item ON stored_outputs (charge_id, output_index)",
                "stored_outputs",
                "outputs_of_charges",
                "public.stored_outputs (charge_id, output_index)",
            ),
            (
                "DROP INDEX stored_outputs_by_job".to_owned(),
                "CREATE INDEX stored_outputs_by_job ON stored_outputs (provider_job_id, provider)",
                "stored_outputs",
                "outputs_of_jobs",
                "public.stored_outputs (provider_job_id)",
            ),
            (
                "DROP INDEX ledger_entries_by_charge".to_owned(),
                "CREATE INDEX ledger_entries_by_charge ON ledger_entries (charge_id)",
                "ledger_entries",
                "refunds_of_charges",
                "public.ledger_entries (charge_id)",
            ),
            (
                key("charges"),
                "ALTER TABLE charges ADD PRIMARY KEY (id)",
                "charges",
                "orphan_rows",
                "public.charges (id)",
            ),
            (
                key("charge_items"),
                "ALTER TABLE charge_items ADD PRIMARY KEY (charge_id, output_index)",
                "charge_items",
                "items_of_charges",
                "public.charge_items (charge_id, output_index)",
            ),
            (
                key("balances"),
                "ALTER TABLE balances ADD PRIMARY KEY (account_id, bucket)",
                "balances",
                "balance_rows",
                "public.balances (account_id, bucket)",
            ),
        ] {
            if drop.is_empty() {
                continue;
            }
            world.execute(&drop).await;
            let found = indexes(&world).await;
            let [(about, says, advice)] = &found[..] else { panic!("{drop}: {found:?}") };
            assert_eq!(*about, format!("indexes: {relation}"), "{drop}");
            assert!(says.contains(&format!("`{statement}`")), "{drop}: {says}");
            if world.is_postgres() {
                assert!(
                    says.ends_with(&format!("would read the whole of public.{relation}")),
                    "{drop}: {says}"
                );
                assert!(
                    advice.ends_with(&format!("CREATE INDEX CONCURRENTLY ON {index}")),
                    "{drop}: {advice}"
                );
            }
            world.execute(again).await;
            assert_eq!(indexes(&world).await, [], "{again}");
        }
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one mistake after the other, in one database")]
async fn the_doctor_looks_through_views_and_at_tables_of_any_size() {
    let world = World::new(database().await).await;
    // Statistics of a large table, and then of one that has some rows.
    world
        .execute(
            "INSERT INTO charges SELECT 'x' || n, 'u1', 'p', 'n', 'replicate', 'm', 'j' || n, now() - n * interval '1 minute', 1, 0, NULL FROM generate_series(1, 3000) n;
             INSERT INTO charge_items SELECT 'x' || n, 0, 1, NULL, NULL, NULL FROM generate_series(1, 3000) n;
             INSERT INTO stored_outputs SELECT 's' || n, 'x' || n, 0, 'replicate', 'j' || n, 0, 'p', 'n', 'u', 't', 1, 'h', now(), NULL, NULL FROM generate_series(1, 3000) n;
             ANALYZE",
        )
        .await;
    assert_eq!(indexes(&world).await, []);

    // The platform's own runs: milliseconds, and an id that is a number.
    world
        .execute(
            "CREATE SCHEMA app; CREATE TABLE app.runs (nr bigint PRIMARY KEY, born_ms bigint NOT NULL, job varchar(80));
             ALTER TABLE charges RENAME TO old_charges;
             CREATE VIEW charges AS
               SELECT nr::text AS id, 'u1'::text AS account_id, 'p'::text AS project_id, 'n'::text AS node_id, 'replicate'::text AS provider,
                      'm'::text AS model, job::text AS provider_job_id, to_timestamp(born_ms / 1000.0) AS charged_at,
                      1::bigint AS subscription_credits, 0::bigint AS wallet_credits, NULL::timestamptz AS cancelled_at
               FROM app.runs",
        )
        .await;
    // makegood's views still name the table.
    world.execute("DO $$ DECLARE v record; BEGIN FOR v IN SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' AND definition LIKE '%old_charges%' LOOP
                   EXECUTE 'CREATE OR REPLACE VIEW ' || v.viewname || ' AS ' || replace(v.definition, 'old_charges', 'charges'); END LOOP; END $$").await;
    world.grant().await;
    let found = indexes(&world).await;
    let advice: Vec<&str> = found.iter().map(|(_, _, advice)| advice.split(": ").last().unwrap()).collect();
    assert!(
        found
            .iter()
            .all(|(_, says, _)| says.ends_with("would read the whole of app.runs (behind `charges`)")),
        "{found:?}"
    );
    assert_eq!(advice.len(), 3, "{found:?}");
    for index in &advice {
        assert!(index.contains(" ON app.runs ("), "{index}");
        world.execute(&index.replace(" CONCURRENTLY", "")).await;
    }
    assert_eq!(indexes(&world).await, [], "{advice:?}");

    // Each search by a key is pushed into a view that groups; a stretch of time is grouped whole,
    // for each chunk of it: 2.9 s instead of 40 ms over 150,000 charges.
    let runs = |columns: &str, from: &str| {
        format!(
            "CREATE OR REPLACE VIEW charges AS
               SELECT nr::text AS id, 'u1'::text AS account_id, 'p'::text AS project_id, 'n'::text AS node_id, 'replicate'::text AS provider,
                      'm'::text AS model, job::text AS provider_job_id, to_timestamp(born_ms / 1000.0) AS charged_at,
                      {columns}, 0::bigint AS wallet_credits, NULL::timestamptz AS cancelled_at
               FROM app.runs r {from}"
        )
    };
    world
        .execute(
            "CREATE TABLE app.shots (run bigint, nth bigint, price bigint, failed timestamptz, PRIMARY KEY (run, nth));
             CREATE INDEX ON app.shots ((run::text), nth); CREATE INDEX ON app.shots (failed)",
        )
        .await;
    world
        .execute(&runs(
            "sum(s.price)::bigint AS subscription_credits",
            "JOIN app.shots s ON s.run = r.nr GROUP BY r.nr",
        ))
        .await;
    let found = indexes(&world).await;
    let [(about, says, advice)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(about, "indexes: charges");
    assert!(
        says.starts_with("`find_undelivered`, ")
            && says.contains(" would read each stretch of time in ")
            && says.ends_with(
                "again for every chunk of it: the view groups or sorts before it returns the first charge"
            ),
        "{says}"
    );
    assert!(advice.contains("CROSS JOIN LATERAL (SELECT sum(…) … WHERE …)"), "{advice}");
    // The form to write.
    let sum = "CROSS JOIN LATERAL (SELECT sum(s.price) AS price FROM app.shots s WHERE s.run = r.nr) AS t";
    world.execute(&runs("coalesce(t.price, 0)::bigint AS subscription_credits", sum)).await;
    assert_eq!(indexes(&world).await, [], "{sum}");

    // Items that no table holds: numbered by generate_series they can be searched by the charge.
    let items = |columns: &str, from: &str| {
        format!(
            "ALTER VIEW IF EXISTS charge_items RENAME TO charge_items_before;
             CREATE VIEW charge_items AS
               SELECT r.nr::text AS charge_id, {columns} AS output_index, 1::bigint AS credits, NULL::text AS provider_job_id,
                      NULL::bigint AS provider_output_index, {from}"
        )
    };
    world
        .execute(
            "ALTER TABLE charge_items RENAME TO old_items;
             CREATE FUNCTION app.numbers() RETURNS TABLE (nr bigint, i bigint) LANGUAGE plpgsql STABLE AS
               $$ BEGIN RETURN QUERY SELECT r.nr, 0::bigint FROM app.runs r; END $$",
        )
        .await;
    for (columns, from, says) in [
        (
            "g.i::bigint",
            "NULL::timestamptz AS failed_at FROM app.runs r CROSS JOIN LATERAL generate_series(0, 1) AS g(i)",
            None,
        ),
        (
            "row_number() OVER (PARTITION BY r.nr) - 1",
            "NULL::timestamptz AS failed_at FROM app.runs r CROSS JOIN generate_series(1, 2)",
            Some(
                "what `charge_id` and `output_index` of `charge_items` come from; no index serves what an aggregate, a window function",
            ),
        ),
        (
            "g.i::bigint",
            "t.failed AS failed_at FROM app.runs r CROSS JOIN LATERAL generate_series(0, 1) AS g(i) \
             CROSS JOIN LATERAL (SELECT max(s.failed) AS failed FROM app.shots s WHERE s.run = r.nr AND s.nth = g.i) AS t",
            Some(
                "what `failed_at` of `charge_items` comes from; no index serves what an aggregate, a window function",
            ),
        ),
    ] {
        world.execute(&items(columns, from)).await;
        // makegood's views name what was renamed.
        world.execute(RENAMED).await;
        world.grant().await;
        let found = indexes(&world).await;
        let told = found.iter().any(|(_, _, advice)| says.is_some_and(|says| advice.contains(says)));
        assert_eq!((told, found.is_empty()), (says.is_some(), says.is_none()), "{from}: {found:?}");
        world.execute("DROP VIEW IF EXISTS charge_items_before").await;
    }
}

/// Lets makegood's views name `charge_items` again.
const RENAMED: &str = "DO $$ DECLARE v record; BEGIN FOR v IN SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' AND definition ~ '(old_items|charge_items_before)' LOOP
    EXECUTE 'CREATE OR REPLACE VIEW ' || v.viewname || ' AS ' || regexp_replace(v.definition, '(old_items|charge_items_before)', 'charge_items', 'g'); END LOOP; END $$";

#[tokio::test]
async fn the_doctor_warns_of_a_role_that_could_raise_balances_and_of_a_schema_that_is_open_to_others() {
    let world = World::new(database().await).await;
    let rights = async || {
        let (_, told) = check(&world).await;
        let checks = told["checks"].as_array().unwrap();
        let about = |check: &&Value| check["about"] == "rights" || check["about"] == "search path";
        let told = checks
            .iter()
            .filter(about)
            .map(|check| format!("{} {}", check["grade"].as_str().unwrap(), check["says"].as_str().unwrap()));
        told.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(rights().await, "ok enough for a pass, and no right to raise a balance");
    for (grant, says) in [
        (
            "GRANT UPDATE (credits) ON balances",
            "warn this role could raise balances by itself: UPDATE on balances",
        ),
        (
            "GRANT INSERT ON ledger_entries",
            "warn this role could raise balances by itself: INSERT on ledger_entries",
        ),
        (
            "GRANT EXECUTE ON FUNCTION makegood_erase(jsonb)",
            "warn this role could erase evidence by itself: EXECUTE on makegood_erase(jsonb); ok enough for a pass, and no right \
             to raise a balance",
        ),
        (
            "GRANT CREATE ON SCHEMA public",
            "ok enough for a pass, and no right to raise a balance; warn roles other than the owner may create objects in its schemas: makegood_test_role in schema `public`",
        ),
    ] {
        world.execute(&format!("{grant} TO {ROLE}")).await;
        assert_eq!(rights().await, says);
        world.execute(&format!("{} FROM {ROLE}", grant.replace("GRANT", "REVOKE"))).await;
    }
}
