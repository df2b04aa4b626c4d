//! A platform's trigger may raise any SQLSTATE: that of a missing right, a lost connection, a full
//! disk, a serialization failure. Only the row for which it was raised is affected.

use std::collections::BTreeSet;

use crate::world::{HOUR, World, detect};

/// One of each class that a trigger may raise. `55P03` counts as a lock of another session, which
/// is reported as `locked`.
const CODES: [&str; 30] = [
    "42501", "42P01", "42703", "42883", "22021", "22003", "22P02", "23502", "23505", "23514", "21000",
    "25006", "25P03", "40001", "40P01", "44000", "53000", "53100", "53200", "53300", "54000", "55000",
    "57014", "57P01", "08006", "0A000", "P0001", "LB001", "XX000", "55P03",
];

/// A trigger that raises the SQLSTATE that the key of a row names: `x42501`.
async fn raises(world: &World, key: &str, on: &str) {
    let function = format!("raise_for_{}", on.replace(' ', "_").to_lowercase());
    world
        .run(&format!(
            "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.{key} ~ '^x[0-9A-Z]{{5}}$' THEN RAISE EXCEPTION 'not this row' USING ERRCODE = substr(NEW.{key}, 2); END IF;
               RETURN NEW; END $$;
             CREATE TRIGGER {function} BEFORE {on} FOR EACH ROW EXECUTE FUNCTION {function}();"
        ))
        .await;
}

/// The finding of each code: its kind, by its subject.
fn told(report: &makegood::report::PassReport) -> BTreeSet<(String, String)> {
    report.findings.iter().map(|each| (each.kind.to_owned(), each.about.clone())).collect()
}

fn expected(about: impl Fn(&str) -> (&'static str, String)) -> BTreeSet<(String, String)> {
    CODES.iter().map(|code| about(code)).map(|(kind, about)| (kind.to_owned(), about)).collect()
}

#[tokio::test]
async fn a_refund_that_a_trigger_refuses_waits_alone_whatever_the_code() {
    let world = World::postgres().await;
    raises(&world, "account_id", "UPDATE ON balances").await;
    let accounts: Vec<String> = CODES.iter().map(|code| format!("x{code}")).collect();
    // Some come before and some after those that are refused.
    for account in ["ada", "zoe"].into_iter().chain(accounts.iter().map(String::as_str)) {
        world.balance(account, 0, 0).await;
        world.charge(account).account(account).job(&format!("failed-{account}")).insert().await;
    }
    let report = world.pass().await;
    for account in ["ada", "zoe"] {
        assert_eq!(world.fate(account, 0).await, "refunded provider_error", "{account}");
        assert_eq!(world.balance_of(account).await, (0, 10));
    }
    for account in &accounts {
        assert_eq!(world.fate(account, 0).await, "open ", "{account}");
    }
    let all = expected(|code| match code {
        "55P03" => ("locked", "account x55P03".to_owned()),
        code => ("refused_row", format!("item x{code}/0")),
    });
    assert_eq!(told(&report), all);
    let named = "(in PL/pgSQL function raise_for_update_on_balances() line 2 at RAISE)";
    let refused = report.findings.iter().filter(|each| each.kind == "refused_row");
    assert!(refused.clone().all(|each| each.detail.contains(named)), "{:?}", report.findings);
    assert!(!refused.clone().any(|each| each.detail.contains("migrate")), "{:?}", report.findings);
    world.books_balance().await;

    world.run("DROP TRIGGER raise_for_update_on_balances ON balances").await;
    world.pass_time(HOUR);
    assert_eq!(world.pass().await.total("refund"), CODES.len() as u64);
    world.books_balance().await;
}

#[tokio::test]
async fn an_output_that_a_trigger_refuses_waits_alone_whatever_the_code() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    raises(&world, "charge_id", "INSERT OR UPDATE ON stored_outputs").await;
    // Each second one is recovered, and the others are put back.
    let mut charges = vec![("recovered".to_owned(), false), ("relinked".to_owned(), true)];
    charges.extend(CODES.iter().enumerate().map(|(nth, code)| (format!("x{code}"), nth % 2 == 0)));
    for (charge, is_stored) in &charges {
        let job = format!("ok-{charge}");
        world.charge(charge).job(&job).insert().await;
        if *is_stored {
            let place = (format!("p-{charge}"), format!("n-{charge}"));
            let id = format!("out-{charge}");
            world.store_output(&id, None, ("replicate", &job, 0), (&place.0, &place.1)).await;
        }
    }
    let report = world.pass().await;
    assert_eq!(world.fate("recovered", 0).await, "recovered output_available", "{report:?}");
    assert_eq!(world.fate("relinked", 0).await, "relinked misattributed");
    let all = expected(|code| match code {
        "55P03" => ("locked", "charge x55P03".to_owned()),
        code => ("refused_row", format!("item x{code}/0")),
    });
    assert_eq!(told(&report), all);
    world.run("DROP TRIGGER raise_for_insert_or_update_on_stored_outputs ON stored_outputs").await;
    world.pass_time(HOUR);
    let report = world.pass().await;
    assert_eq!(report.total("recover") + report.total("relink"), CODES.len() as u64, "{report:?}");
}

#[tokio::test]
async fn an_orphan_that_a_trigger_refuses_is_opened_later_whatever_the_code() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    raises(&world, "charge_id", "INSERT ON makegood_orphans").await;
    let charges: Vec<String> = CODES.iter().map(|code| format!("x{code}")).collect();
    for charge in ["good"].into_iter().chain(charges.iter().map(String::as_str)) {
        world.charge(charge).job(&format!("failed-{charge}")).insert().await;
    }
    let report = detect(&world.parts, None, world.now()).await;
    assert_eq!(told(&report), expected(|code| ("refused_row", format!("item x{code}/0"))));
    assert_eq!(world.texts("SELECT charge_id AS v FROM makegood_orphans").await, ["good"]);
    world.run("DROP TRIGGER raise_for_insert_on_makegood_orphans ON makegood_orphans").await;
    world.pass_time(HOUR);
    assert_eq!(world.pass().await.total("refund"), 1 + CODES.len() as u64);
    world.books_balance().await;
}
