//! Two authorities over one item: makegood, and the platform with its people. One wins, the other sees it and says so.
//!
//! Where the moment counts, each order is forced: on PostgreSQL by a lock that settle is seen to wait for, on SQLite by the
//! one writer there is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use makegood::store::Outcome;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use crate::late::{REFUND, another, claim, connection, detect, on, output, seen_waiting, settle, settlement};
use crate::world::{HOUR, ItemRow, MINUTE, Sql, World, on_both};

/// Settles a refund of `c1` while `sql` of the platform's commits after settle's transaction has begun and before its last look.
async fn settled_while_the_platform(world: &World, sql: String) -> Outcome {
    Box::pin(settled_meanwhile(world, sql)).await
}

async fn settled_meanwhile(world: &World, sql: String) -> Outcome {
    detect(world).await;
    let case = claim(world).await.remove(0);
    let store = another(world).await;
    let settling = settle(&store, world, settlement(world, case, REFUND));
    if let Sql::Postgres(_) = &world.sql {
        let mut holder = connection(world).await;
        on(&mut holder, "BEGIN; INSERT INTO makegood_charges VALUES ('c1', 'ada', 0, 10)").await;
        let (outcome, ()) = tokio::join!(settling, async {
            seen_waiting(world, "lock_charges").await;
            world.run(&sql).await;
            on(&mut holder, "ROLLBACK").await;
        });
        return outcome;
    }
    let mut holder = SqliteConnection::connect(&world.database.url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let (outcome, ()) = tokio::join!(settling, async {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut holder).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    });
    outcome
}

/// What was told of the item, oldest first.
async fn events(world: &World, charge: &str) -> Vec<String> {
    world
        .texts(&format!(
            "SELECT kind || ' ' || coalesce(reason, '') AS v FROM makegood_orphan_events WHERE charge_id = '{charge}' ORDER BY id"
        ))
        .await
}

on_both! {
    async fn p01_a_refund_by_an_operator_between_decision_and_settle_wins_and_is_told(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        let by_hand = world.refund_row("c1", Some(0), "wallet", 10);
        assert_eq!(settled_while_the_platform(&world, by_hand).await, Outcome::Changed);
        assert_eq!(world.balance_of("ada").await, (0, 10), "the operator's, and no second one");
        world.pass_time(HOUR);
        let report = world.pass().await;
        assert_eq!((report.total("close"), report.total("refund")), (1, 0), "{report:?}");
        assert_eq!(world.fate("c1", 0).await, "closed already_refunded");
        assert_eq!(events(&world, "c1").await.last().unwrap(), "close already_refunded");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_a_refund_by_an_operator_of_the_whole_charge_in_that_moment_is_held_for_a_person(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        let by_hand = world.refund_row("c1", None, "wallet", 4);
        assert_eq!(settled_while_the_platform(&world, by_hand).await, Outcome::Changed);
        world.pass_time(HOUR);
        let report = world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "held already_refunded");
        assert!(report.findings.iter().any(|each| each.kind == "already_refunded"), "{:?}", report.findings);
        assert_eq!(world.balance_of("ada").await, (0, 4));
        world.books_balance().await;
    }
}

on_both! {
    async fn p20_a_webhook_that_stores_between_decision_and_settle_wins_and_is_told(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        let webhook = output(&world, "c1", "failed-1");
        assert_eq!(settled_while_the_platform(&world, webhook).await, Outcome::Changed);
        world.pass_time(HOUR);
        let report = world.pass().await;
        assert_eq!((report.total("close"), report.total("refund")), (1, 0), "{report:?}");
        assert_eq!(events(&world, "c1").await.last().unwrap(), "close delivered");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

#[tokio::test]
async fn p01_a_refund_by_an_operator_that_is_under_way_is_waited_for_and_seen() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    let store = another(&world).await;
    let settling = settle(&store, &world, settlement(&world, case, REFUND));
    // Written before settle begins, and committed after its last look, did it not wait before that.
    let mut operator = connection(&world).await;
    on(&mut operator, &format!("BEGIN; {}", world.refund_row("c1", Some(0), "wallet", 10))).await;
    let (outcome, ()) = tokio::join!(Box::pin(settling), async {
        seen_waiting(&world, "_balances").await;
        on(&mut operator, "COMMIT").await;
    });
    assert_eq!(outcome, Outcome::Changed);
    assert_eq!(world.balance_of("ada").await, (0, 10), "the operator's, and no second one");
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate("c1", 0).await, "closed already_refunded");
    world.books_balance().await;
}

on_both! {
    /// Within one pass: the report says that it was decided again, and what came of it.
    async fn p01_a_pass_says_that_the_platform_was_first(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.while_asked("failed-1", world.refund_row("c1", Some(0), "wallet", 10));
        let report = world.pass().await;
        assert_eq!((report.total("decide_again"), report.total("close"), report.total("refund")), (1, 1, 0), "{report:?}");
        assert_eq!(events(&world, "c1").await.last().unwrap(), "close already_refunded");
    }
}

on_both! {
    /// The other way round: makegood was first. Whoever looks before refunding sees it in the ledger, and the file that a
    /// webhook stores afterwards is told as stored late.
    async fn p20_the_platform_sees_that_makegood_was_first(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.pass().await;
        let seen = world.texts("SELECT kind || ' ' || credits AS v FROM ledger_entries WHERE charge_id = 'c1' AND output_index = 0").await;
        assert_eq!(seen, ["refund 10"]);
        world.run(&output(&world, "c1", "failed-1")).await;
        world.pass_time(16 * MINUTE);
        assert_eq!(world.pass().await.stored_late, 1);
        assert!(events(&world, "c1").await.iter().any(|each| each.starts_with("stored_late")));
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    /// Three items of one charge that drew 7 and 23, settled by three processes in the same moment, round after round.
    async fn p01_p08_items_of_one_charge_settled_by_three_processes_give_back_what_was_drawn(world) {
        world.balance("ada", 0, 0).await;
        let stores = [another(&world).await, another(&world).await, another(&world).await];
        for round in 0..8 {
            let charge = format!("c{round}");
            let items = (0..3).map(|nth| ItemRow { credits: 10, job: Some(format!("failed-{round}-{nth}")), index: Some(0), failed: None });
            world.charge(&charge).age(30 * MINUTE).drawn(7, 23).item_rows(items.collect()).insert().await;
            detect(&world).await;
            let mut cases = claim(&world).await;
            assert_eq!(cases.len(), 3);
            let mut next = || settlement(&world, cases.remove(0), REFUND);
            let (one, two, three) = (next(), next(), next());
            let outcomes = tokio::join!(settle(&stores[0], &world, one), settle(&stores[1], &world, two), settle(&stores[2], &world, three));
            // Another's refund of the same charge does not change what was decided about this item.
            let settled = Outcome::Settled(REFUND);
            assert_eq!(outcomes, (settled.clone(), settled.clone(), settled), "round {round}");
            assert_eq!(world.refunded(&charge).await, (7, 23), "round {round}");
        }
        assert_eq!(world.balance_of("ada").await, (56, 184));
        world.books_balance().await;
    }
}
