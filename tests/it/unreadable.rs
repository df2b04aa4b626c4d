//! One row that PostgreSQL cannot read, under a view that casts, affects only itself: it is found,
//! named, left out, and made good once it was corrected.

use std::collections::BTreeSet;
use std::time::Duration;

use makegood::pass::Orders;

use crate::commands;
use crate::database;
use crate::world::{HOUR, MINUTE, World};

/// The reference schema behind views, each with one column that is cast. A row whose key is in
/// `poisoned` has text there.
fn schema() -> String {
    let tables = include_str!("../../migrations/reference/postgres/0001_contract.sql");
    let bad = |relation: &str, key: &str, column: &str, kind: &str| {
        format!(
            "(CASE WHEN EXISTS (SELECT 1 FROM poisoned p WHERE p.relation = '{relation}' AND p.key = {key}) THEN 'abc'
              ELSE t.{column}::text END)::{kind} AS {column}"
        )
    };
    let charges = bad("charges", "t.id", "subscription_credits", "bigint");
    let items = bad("charge_items", "t.charge_id", "credits", "bigint");
    let outputs = bad("stored_outputs", "t.id", "moved_at", "timestamptz");
    let balances = bad("balances", "t.account_id", "credits", "bigint");
    let ledger = bad("ledger_entries", "t.id", "output_index", "bigint");
    format!(
        "{tables}
         CREATE TABLE poisoned (relation text, key text);
         ALTER TABLE charges RENAME TO raw_charges;
         ALTER TABLE charge_items RENAME TO raw_items;
         ALTER TABLE stored_outputs RENAME TO raw_outputs;
         ALTER TABLE balances RENAME TO raw_balances;
         ALTER TABLE ledger_entries RENAME TO raw_ledger;
         CREATE VIEW charges AS SELECT t.id, t.account_id, t.project_id, t.node_id, t.provider, t.model, t.provider_job_id,
           t.charged_at, {charges}, t.wallet_credits, t.cancelled_at FROM raw_charges t;
         CREATE VIEW charge_items AS SELECT t.charge_id, t.output_index, {items}, t.provider_job_id, t.provider_output_index,
           t.failed_at FROM raw_items t;
         CREATE VIEW stored_outputs AS SELECT t.id, t.charge_id, t.output_index, t.provider, t.provider_job_id,
           t.provider_output_index, t.project_id, t.node_id, t.uri, t.content_type, t.size_bytes, t.sha256, t.stored_at,
           {outputs}, t.deleted_at FROM raw_outputs t;
         CREATE VIEW balances AS SELECT t.account_id, t.bucket, {balances} FROM raw_balances t;
         CREATE VIEW ledger_entries AS SELECT t.id, t.account_id, t.bucket, t.credits, t.kind, t.charge_id, {ledger},
           t.refund_id, t.posted_at FROM raw_ledger t;
         CREATE FUNCTION add_balance() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
           UPDATE raw_balances SET credits = credits + (NEW.credits - OLD.credits)
           WHERE account_id = NEW.account_id AND bucket = NEW.bucket; RETURN NEW; END $$;
         CREATE TRIGGER add_balance INSTEAD OF UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION add_balance();
         CREATE FUNCTION add_entry() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
           INSERT INTO raw_ledger SELECT NEW.*; RETURN NEW; END $$;
         CREATE TRIGGER add_entry INSTEAD OF INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION add_entry();"
    )
}

/// A charge of an account of its own, as the platform writes it, behind its views.
async fn charge(world: &World, id: &str, age: Duration, failed: bool) {
    let at = world.at(world.now() - age);
    let failed_at = if failed { world.at(world.now() - MINUTE) } else { "NULL".to_owned() };
    world
        .run(&format!(
            "INSERT INTO accounts VALUES ('{id}', 'user');
             INSERT INTO raw_balances VALUES ('{id}', 'subscription', 0), ('{id}', 'wallet', 0);
             INSERT INTO raw_charges VALUES ('{id}', '{id}', 'p', 'n', 'replicate', 'm', 'failed-{id}', {at}, 4, 6, NULL);
             INSERT INTO raw_items VALUES ('{id}', 0, 10, NULL, NULL, {failed_at});"
        ))
        .await;
}

async fn world() -> World {
    let mut world = World::on(database::database().await, Some(&schema())).await;
    world.parts.rules.detect.chunk = 16;
    world
}

/// The findings about rows that cannot be read or were refused.
fn told(report: &makegood::report::PassReport) -> BTreeSet<(&str, &str)> {
    report.findings.iter().map(|each| (each.kind, each.about.as_str())).collect()
}

async fn refunded(world: &World) -> Vec<String> {
    world.texts("SELECT charge_id AS v FROM makegood_refunds ORDER BY charge_id").await
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_the_others_are_refunded() {
    let world = world().await;
    // Poisoned: two charges beside each other and one item in the scan by time, and one item in the
    // scan of failures.
    let ids: Vec<String> = (10..50).map(|nth| format!("c{nth}")).collect();
    for (nth, id) in (0..).zip(&ids) {
        charge(&world, id, 4 * HOUR + (40 - nth) * MINUTE, nth % 8 == 3).await;
    }
    world
        .run(
            "INSERT INTO poisoned VALUES ('charges', 'c20'), ('charges', 'c21'), ('charge_items', 'c30'), ('charge_items', 'c37')",
        )
        .await;
    let bad = ["c20", "c21", "c30", "c37"];
    let dry = world.pass_with(Orders { dry_run: true, ..World::orders() }).await;
    let report = world.pass().await;
    for report in [&dry, &report] {
        let found = told(report);
        for about in ["charge c20", "charge c21", "charge c30", "item c37/0"] {
            assert!(found.contains(&("unreadable_row", about)), "{about}: {found:?}");
        }
        let why = |each: &&makegood::report::Finding| each.about == "charge c20";
        let detail = &report.findings.iter().find(why).unwrap().detail;
        assert!(detail.contains("abc") && detail.contains("the row"), "{detail}");
        assert_eq!(report.total("refund"), 36, "{report:?}");
    }
    let good: Vec<&String> = ids.iter().filter(|id| !bad.contains(&id.as_str())).collect();
    assert_eq!(refunded(&world).await.iter().collect::<Vec<_>>(), good);

    // The saved positions are long past it, but it is scanned again within the hour, as a rejected
    // row.
    let mut world = world;
    world.parts.rules.detect.full_look_every = 48 * HOUR;
    world.run("DELETE FROM poisoned").await;
    world.pass_time(HOUR);
    assert_eq!(world.pass().await.total("refund"), 4);
    assert_eq!(refunded(&world).await, ids);
}

#[tokio::test]
async fn facts_that_cannot_be_read_cost_their_own_orphan_an_hour() {
    let world = world().await;
    for id in ["a", "b", "c", "d", "e", "f", "g"] {
        charge(&world, id, 4 * HOUR, false).await;
    }
    crate::late::detect(&world).await;
    // Found by now, so that it is the reading of the facts, or the settle, that comes upon each.
    let at = world.at(world.now());
    world
        .run(&format!(
            "INSERT INTO raw_outputs VALUES ('out', NULL, NULL, 'replicate', 'failed-c', 0, 'p', 'n', 'u', 't', 1, 'h', {at});
             INSERT INTO raw_ledger VALUES ('entry', 'd', 'wallet', -10, 'usage', 'd', 0, NULL, {at});
             INSERT INTO poisoned VALUES ('charges', 'a'), ('charge_items', 'b'), ('stored_outputs', 'out'),
                                         ('ledger_entries', 'entry'), ('balances', 'e');"
        ))
        .await;
    let report = world.pass().await;
    let expected = [
        ("unreadable_row", "item a/0"),
        ("unreadable_row", "item b/0"),
        ("unreadable_row", "item c/0"),
        ("unreadable_row", "item d/0"),
        ("unreadable_row", "item e/0"),
    ];
    let mut found = told(&report);
    found.retain(|(_, about)| about.starts_with("item"));
    assert_eq!(found, expected.into());
    assert_eq!(refunded(&world).await, ["f", "g"]);
    world.run("DELETE FROM poisoned").await;
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(refunded(&world).await, ["a", "b", "d", "e", "f", "g"]);
    assert_eq!(world.fate("c", 0).await, "relinked misattributed", "its output can be read now");
}

/// The brake measures by what charges cost on average, and looks for late outputs of what was
/// refunded: both read other rows.
#[tokio::test]
async fn reads_beside_the_cases_survive_such_a_row_too() {
    let world = world().await;
    for id in ["a", "b", "c"] {
        charge(&world, id, 4 * HOUR, false).await;
    }
    assert_eq!(world.pass().await.total("refund"), 3);
    // The newest charge, which the average price is read of first; and an output of one that was
    // refunded, in another place.
    charge(&world, "new", MINUTE, false).await;
    charge(&world, "d", 2 * MINUTE, false).await;
    let at = world.at(world.now());
    world
        .run(&format!(
            "INSERT INTO raw_outputs VALUES ('one', 'a', 0, 'replicate', 'failed-a', 0, 'q', 'n', 'u', 't', 1, 'h', {at}),
                                            ('two', 'c', 0, 'replicate', 'failed-c', 0, 'p', 'n', 'u', 't', 1, 'h', {at});
             INSERT INTO poisoned VALUES ('charges', 'new'), ('stored_outputs', 'one')"
        ))
        .await;
    world.pass_time(HOUR);
    let report = world.pass().await;
    assert_eq!((report.total("refund"), report.stored_late), (1, 1), "{report:?}");
    let found = told(&report);
    for about in ["charge new", "item a/0"] {
        assert!(found.contains(&("unreadable_row", about)), "{about}: {found:?}");
    }
}

/// Charges are found by these times, so nothing can be found while one of them cannot be read. The
/// pass fails, and names the charge.
#[tokio::test]
async fn a_time_that_charges_are_found_by_and_that_cannot_be_read_is_named() {
    let world = commands::World::new(database::database().await).await;
    world
        .execute(
            "INSERT INTO charges SELECT 'many-' || n, 'u1', 'p', 'n', 'replicate', 'm', 'j', now() - interval '30 days', 1, 0, NULL
               FROM generate_series(1, 9000) AS n;
             ALTER TABLE charges RENAME TO raw_charges;
             CREATE TABLE poisoned (id text);
             CREATE VIEW charges AS SELECT id, account_id, project_id, node_id, provider, model, provider_job_id,
               (CASE WHEN EXISTS (SELECT 1 FROM poisoned p WHERE p.id = c.id) THEN 'soon' ELSE c.charged_at::text END)::timestamptz AS charged_at,
               subscription_credits, wallet_credits,
               (CASE WHEN EXISTS (SELECT 1 FROM poisoned p WHERE p.id = 'cancelled ' || c.id) THEN 'soon'
                ELSE c.cancelled_at::text END)::timestamptz AS cancelled_at FROM raw_charges c;
             ALTER TABLE charge_items RENAME TO raw_items;
             CREATE VIEW charge_items AS SELECT charge_id, output_index, credits, provider_job_id, provider_output_index,
               (CASE WHEN EXISTS (SELECT 1 FROM poisoned p WHERE p.id = 'item of ' || i.charge_id) THEN 'soon'
                ELSE i.failed_at::text END)::timestamptz AS failed_at FROM raw_items i",
        )
        .await;
    world.grant().await;
    for (poisoned, column, charge) in [
        ("many-777", "charges.charged_at", "many-777"),
        ("stored", "charges.charged_at", "stored"),
        ("item of failed-1", "charge_items.failed_at", "failed-1"),
    ] {
        world.execute(&format!("INSERT INTO poisoned VALUES ('{poisoned}')")).await;
        let says = format!(
            "{column} of charge {charge} cannot be read, and charges are found by this time. Mend the row, or let the view give \
             NULL for it"
        );
        for arguments in [&["run"][..], &["run", "--dry-run"], &["check"]] {
            let ended = world.makegood(arguments).output().await;
            assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
            let told = format!("{}{}", ended.stdout, ended.stderr);
            assert!(told.contains(&says) && told.contains("soon"), "{arguments:?}: {told}");
        }
        world.execute("DELETE FROM poisoned").await;
    }
    // No charge is found by any other time: only people read these.
    world.execute("INSERT INTO poisoned VALUES ('cancelled stored')").await;
    let ended = world.makegood(&["check", "--output", "text"]).output().await;
    let times = ended.stdout.lines().find(|line| line.contains(" times ")).unwrap_or_default();
    assert!(times.starts_with("WARN") && times.contains("soon"), "{ended:?}");
    world.execute("DELETE FROM poisoned").await;

    // 3: one of the charges is past its window by now.
    let ended = world.run().await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(world.number("SELECT count(*) FROM makegood_refunds WHERE charge_id LIKE 'failed%'").await, 2);
}
