//! A scan races with another pass that makes good an item which the scan has just found
//! undelivered.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use makegood::store::{Over, Pace, Position, Scan};

use crate::world::{HOUR, Sql, World};

/// The item is found undelivered. Before the scan can open it, another pass opens it, puts its
/// output back and resolves it. It must stay resolved, because its output is in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_was_put_back_meanwhile_is_not_reopened() {
    let world = World::postgres().await;
    let Sql::Postgres(pool) = world.sql.clone() else { panic!("a PostgreSQL was asked for") };
    world.balance("ada", 0, 0).await;
    world.charge("crossed").job("ok-crossed").insert().await;
    let at = world.at(world.now());

    // The other pass, about to commit.
    let mut other: sqlx::pool::PoolConnection<sqlx::Postgres> = pool.acquire().await.unwrap();
    let other: &mut PgConnection = &mut other;
    let output = world.output_row(
        "back",
        Some(("crossed", 0)),
        ("replicate", "ok-crossed", 0),
        ("p-crossed", "n-crossed"),
    );
    let rows = format!(
        "BEGIN; {output};
         INSERT INTO makegood_orphans (charge_id, output_index, provider, charged_at, opened_at, opened_by, refund_by, window_ends_at,
                                       state, reason, due_at, urgent_at, resolved_at)
         VALUES ('crossed', 0, 'replicate', {at}, {at}, 'grace', {at}, {at}, 'relinked', 'misattributed', {at}, {at}, {at});
         INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at, decided_by)
         VALUES ('crossed', 0, 'relink', 'misattributed', 3, {at}, 'makegood');"
    );
    other.execute(sqlx::raw_sql(AssertSqlSafe(rows))).await.unwrap();

    let (parts, now) = (world.parts.clone(), world.now());
    let scan = tokio::spawn(async move { crate::world::detect(&parts, None, now).await });
    // It has found the item and waits with opening it.
    let waits = "SELECT count(*) AS v FROM pg_stat_activity WHERE application_name = 'makegood' AND wait_event_type = 'Lock'
                 AND datname = current_database()";
    while world.number(waits).await == 0 {
        assert!(!scan.is_finished(), "the scan did not meet the other pass");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.execute("COMMIT").await.unwrap();

    let report = scan.await.unwrap();
    assert_eq!((report.opened, report.reopened), (0, 0));
    assert_eq!(world.fate("crossed", 0).await, "relinked misattributed");
    let current =
        "SELECT kind AS v FROM makegood_resolutions WHERE charge_id = 'crossed' AND superseded_at IS NULL";
    assert_eq!(world.texts(current).await, ["relink"]);
}

/// The same on SQLite, where a scan finds without a lock and opens as the single writer. Nothing
/// shows that it waits for the write lock, so a second item proves it: one that was found
/// undelivered is opened, although its output is there by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_was_put_back_meanwhile_is_not_reopened_on_sqlite() {
    for wait in [50, 500, 5_000] {
        if crossed_on_sqlite(Duration::from_millis(wait)).await {
            return;
        }
    }
    panic!("the scan never met the other pass");
}

/// Gives the scan so long to find what it is to open. False: it had not found it yet.
async fn crossed_on_sqlite(wait: Duration) -> bool {
    let world = World::sqlite().await;
    world.balance("ada", 0, 0).await;
    for charge in ["crossed", "witness"] {
        world.charge(charge).job(&format!("ok-{charge}")).insert().await;
    }
    let at = world.at(world.now());
    let output = |charge: &str| {
        let (job, project, node) = (format!("ok-{charge}"), format!("p-{charge}"), format!("n-{charge}"));
        world.output_row(
            &format!("back-{charge}"),
            Some((charge, 0)),
            ("replicate", &job, 0),
            (&project, &node),
        )
    };
    let rows = format!(
        "BEGIN IMMEDIATE; {}; {};
         INSERT INTO makegood_orphans (charge_id, output_index, provider, charged_at, opened_at, opened_by, refund_by, window_ends_at,
                                       state, reason, due_at, urgent_at, resolved_at)
         VALUES ('crossed', 0, 'replicate', {at}, {at}, 'grace', {at}, {at}, 'relinked', 'misattributed', {at}, {at}, {at});
         INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at, decided_by)
         VALUES ('crossed', 0, 'relink', 'misattributed', 3, {at}, 'makegood');",
        output("crossed"),
        output("witness")
    );
    let mut other = SqliteConnection::connect(&world.database.url).await.unwrap();
    other.execute(sqlx::raw_sql(AssertSqlSafe(rows))).await.unwrap();

    let (parts, now) = (world.parts.clone(), world.now());
    let stretch = Scan {
        name: "grace",
        over: Over::ChargedAt,
        after: now - 24 * HOUR,
        until: now,
        grace_before: now,
        graces: Vec::new(),
        grace_ended_within: None,
    };
    let scan = tokio::spawn(async move {
        let dating = makegood::detect::dating(&parts.rules.detect, &parts.providers);
        let chunk = parts
            .store
            .scan_next(&stretch, &Position::before(stretch.after), &mut Pace::new(100))
            .await
            .unwrap();
        parts.store.open_found("grace", &chunk.items, now, &dating).await.unwrap()
    });
    tokio::time::sleep(wait).await;
    assert!(!scan.is_finished(), "it cannot write while another does");
    other.execute("COMMIT").await.unwrap();
    let found = scan.await.unwrap();
    assert_eq!(found.reopened, 0);
    assert_eq!(world.fate("crossed", 0).await, "relinked misattributed");
    let current =
        "SELECT kind AS v FROM makegood_resolutions WHERE charge_id = 'crossed' AND superseded_at IS NULL";
    assert_eq!(world.texts(current).await, ["relink"]);
    found.opened == 1
}
