//! What is tried again: races, time limits, and what a database refuses for a moment.

use std::time::Duration;

use makegood::pass;
use makegood::store::{Outcome, Store};

use super::alter_database;
use crate::late::{
    REFUND, WAIT_IN_LEDGER, another, claim, connection, detect, on, output, seen_waiting, settle, settlement,
};
use crate::world::World;

/// The first so many entries into the ledger fail with this SQLSTATE; a sequence counts, which no rollback takes back.
async fn fails_first(world: &World, code: &str, times: u32) {
    let sql = format!(
        "CREATE SEQUENCE tried;
         CREATE FUNCTION fail_first() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
           IF nextval('tried') <= {times} THEN RAISE EXCEPTION 'as the test wants it' USING ERRCODE = '{code}'; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail_first BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION fail_first();"
    );
    world.run(&sql).await;
}

async fn tries(world: &World) -> i64 {
    world.number("SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS v FROM tried").await
}

async fn one_refund_is_due() -> World {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    world
}

/// It is refunded, once, with one event.
async fn refunded_once(world: &World) {
    assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
    assert_eq!(world.balance_of("ada").await, (0, 10));
    assert_eq!(
        world.number("SELECT count(*) AS v FROM makegood_orphan_events WHERE kind = 'refund'").await,
        1
    );
    world.books_balance().await;
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again_as_a_whole_transaction() {
    for (code, times) in
        [("40001", 3), ("40P01", 3), ("55P03", 3), ("57014", 2), ("57P01", 3), ("53300", 3), ("08006", 3)]
    {
        let world = one_refund_is_due().await;
        fails_first(&world, code, times).await;
        let report = world.pass().await;
        assert_eq!(tries(&world).await, i64::from(times) + 1, "{code}");
        assert_eq!((report.total("refund"), report.findings.len()), (1, 0), "{code}: {report:?}");
        refunded_once(&world).await;
    }
}

#[tokio::test]
async fn what_does_not_pass_ends_the_pass_and_leaves_nothing_half_done() {
    for (code, tried) in [("40001", 6), ("57014", 3), ("53100", 1), ("25006", 1)] {
        let world = one_refund_is_due().await;
        fails_first(&world, code, 1000).await;
        let error = pass::run(&world.parts, World::orders(), |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("insert_ledger_entries"), "{error}");
        assert_eq!(tries(&world).await, tried, "{code}");
        assert_eq!(world.fate("c1", 0).await, "open ", "{code}");
        let leased = "SELECT count(*) AS v FROM makegood_orphans WHERE leased_until IS NOT NULL OR resolved_at IS NOT NULL";
        assert_eq!(world.number(leased).await, 0, "{code}: given back");
        for table in ["makegood_refunds", "ledger_entries", "makegood_resolutions"] {
            assert_eq!(
                world.number(&format!("SELECT count(*) AS v FROM {table}")).await,
                0,
                "{code} {table}"
            );
        }
        let ended = world.texts("SELECT outcome AS v FROM makegood_passes").await;
        assert_eq!(ended, ["failed"], "{code}");
        world.run("DROP TRIGGER fail_first ON ledger_entries").await;
        world.pass().await;
        refunded_once(&world).await;
    }
}

#[tokio::test]
async fn a_deadlock_with_the_platform_costs_a_try_and_no_refund() {
    let world = one_refund_is_due().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    let mut platform = connection(&world).await;
    // The platform holds the balance and wants the orphan, in no hurry to call it a ring.
    on(&mut platform, "SET deadlock_timeout = '10min'; BEGIN; UPDATE balances SET credits = credits + 1")
        .await;
    let store = another(&world).await;
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        // Settle holds the orphan and wants the balance. The database ends its transaction, or this would wait for ever.
        seen_waiting(&world, "_balances").await;
        let wants =
            "SELECT FROM makegood_orphans FOR UPDATE; UPDATE balances SET credits = credits - 1; COMMIT";
        on(&mut platform, wants).await;
    });
    assert_eq!(outcome, Outcome::Settled(REFUND));
    refunded_once(&world).await;
}

/// Somebody holds up the entry into the ledger until settle has tried twice.
async fn while_the_ledger_is_held(world: &World, store: &Store) {
    fails_first(world, "00000", 0).await;
    world.run(WAIT_IN_LEDGER).await;
    detect(world).await;
    let case = claim(world).await.remove(0);
    let mut holder = connection(world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let (outcome, ()) = tokio::join!(settle(store, world, settlement(world, case, REFUND)), async {
        while tries(world).await < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
    });
    assert_eq!(outcome, Outcome::Settled(REFUND));
    refunded_once(world).await;
}

#[tokio::test]
async fn a_lock_timeout_is_tried_again() {
    let world = one_refund_is_due().await;
    alter_database(&world, "SET lock_timeout = ''400ms''").await;
    while_the_ledger_is_held(&world, &another(&world).await).await;
}

#[tokio::test]
async fn a_statement_timeout_is_tried_again() {
    let world = one_refund_is_due().await;
    let impatient = Store::open(&world.database.url, 4, Duration::from_secs(2)).await.unwrap();
    while_the_ledger_is_held(&world, &impatient.with_clock(world.clock.clone())).await;
}

/// Settle's last look must see what was committed since its transaction began, whatever the database's default is.
#[tokio::test]
async fn p20_the_last_look_is_the_last_also_where_repeatable_read_is_the_default() {
    let world = one_refund_is_due().await;
    alter_database(&world, "SET default_transaction_isolation = ''repeatable read''").await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    let mut holder = connection(&world).await;
    on(&mut holder, "BEGIN; INSERT INTO makegood_charges VALUES ('c1', 'ada', 0, 10)").await;
    let store = another(&world).await;
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        seen_waiting(&world, "lock_charges").await;
        world.run(&output(&world, "c1", "failed-1")).await;
        on(&mut holder, "ROLLBACK").await;
    });
    assert_eq!(outcome, Outcome::Changed);
    assert_eq!(world.balance_of("ada").await, (0, 0));
}
