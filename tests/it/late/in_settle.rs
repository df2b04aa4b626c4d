//! P20 (a late output closes the case) inside settle: the output is stored after settle has begun
//! and before its last look.

use makegood::store::Outcome;
use sqlx::{Connection as _, SqliteConnection};

use super::{REFUND, another, claim, connection, detect, on, output, seen_waiting, settle, settlement};
use crate::world::{HOUR, MINUTE, World};

#[tokio::test]
async fn p20_an_output_stored_between_settles_begin_and_its_last_check_wins_on_postgres() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    // Settle's first lock is taken by another, so that it has begun and cannot look yet.
    let mut holder = connection(&world).await;
    on(&mut holder, "BEGIN; INSERT INTO makegood_charges VALUES ('c1', 'ada', 0, 10)").await;
    let store = another(&world).await;
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        seen_waiting(&world, "lock_charges").await;
        world.run(&output(&world, "c1", "failed-1")).await;
        on(&mut holder, "ROLLBACK").await;
    });
    assert_eq!(outcome, Outcome::Changed);
    closed_without_a_refund(&world).await;
}

#[tokio::test]
async fn p20_an_output_stored_between_settles_begin_and_its_last_check_wins_on_sqlite() {
    let world = World::sqlite().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    // There is one writer: while this one is at work, settle cannot begin to look.
    let mut holder = SqliteConnection::connect(&world.database.url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let store = another(&world).await;
    let late = sqlx::AssertSqlSafe(output(&world, "c1", "failed-1"));
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        sqlx::raw_sql(late).execute(&mut holder).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    });
    assert_eq!(outcome, Outcome::Changed);
    closed_without_a_refund(&world).await;
}

async fn closed_without_a_refund(world: &World) {
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate("c1", 0).await, "closed delivered");
    assert_eq!(world.balance_of("ada").await, (0, 0));
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_late_successes").await, 0);
    world.books_balance().await;
}

#[tokio::test]
async fn p20_an_output_that_commits_between_the_last_check_and_the_commit_is_a_late_success() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    // Settle has looked for the last time, and now waits in the platform's own trigger.
    world.run(super::WAIT_IN_LEDGER).await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let store = another(&world).await;
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        seen_waiting(&world, "post_refunds").await;
        world.run(&output(&world, "c1", "failed-1")).await;
        on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
    });
    assert_eq!(outcome, Outcome::Settled(REFUND));
    world.run("DROP TRIGGER wait_here ON ledger_entries").await;
    world.pass_time(16 * MINUTE);
    assert_eq!(world.pass().await.stored_late, 1);
    world.pass_time(16 * MINUTE);
    assert_eq!(world.pass().await.stored_late, 0);
    assert_eq!(super::late_successes(&world).await, ["c1/0 stored_late look late-c1"]);
    assert_eq!(
        world.texts("SELECT status || ' ' || billable AS v FROM usage_history").await,
        ["refunded false"]
    );
    assert_eq!(world.balance_of("ada").await, (0, 10));
    world.books_balance().await;
}
