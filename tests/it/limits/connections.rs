//! Too few connections, and connections that break in the middle of a pass.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use makegood::store::{Outcome, Store};

use super::{all_made_good, alter_database, nothing_half_done, run, two_charges};
use crate::database::as_least_privileged;
use crate::late::{
    REFUND, WAIT_IN_LEDGER, another, claim, connection, detect, on, seen_waiting, settle, settlement,
};
use crate::world::{Sql, World, on_both};

const END_ALL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE application_name = 'makegood' AND datname = current_database()";

on_both! {
    async fn one_connection_is_enough_for_everything(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        for nth in 0..6 {
            let fate = ["ok", "failed", "unknown"][nth % 3];
            let provider = ["replicate", "fal"][nth % 2];
            let charge = format!("c{nth}");
            let job = format!("{fate}-{nth}");
            world.charge(&charge).provider(provider, "acme/still-life").job(&job).insert().await;
        }
        world.parts.rules.batch = 2;
        // Less than the time after which a connection that is missing counts as missing.
        let url = as_least_privileged(&world.database).await;
        world.parts.store = Store::open(&url, 1, Duration::from_secs(30)).await.unwrap().with_clock(world.clock.clone());
        let dry = makegood::pass::Orders { dry_run: true, ..World::orders() };
        assert_eq!(world.pass_with(dry).await.opened, 6);
        // One that waited for a second connection while it holds the first would fail once its
        // patience is at an end.
        let report = world.pass().await;
        assert_eq!(report.total("refund") + report.total("recover"), 6, "{report:?}");
        world.books_balance().await;
    }
}

/// The pool's own time limit, not the server's refusal: its one connection is at work for longer
/// than the pool waits.
#[tokio::test]
async fn a_connection_that_comes_free_after_the_pool_has_given_up_is_waited_for() {
    /// How long the pool waits before it fails with `PoolTimedOut`.
    const POOL_WAITS: Duration = Duration::from_secs(2);
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    world.charge("c2").job("failed-2").insert().await;
    detect(&world).await;
    let mut cases = claim(&world).await;
    world.run(WAIT_IN_LEDGER).await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let url = as_least_privileged(&world.database).await;
    // The lock is waited for to the end.
    let (statement, lock) = (Duration::from_mins(2), Duration::from_mins(1));
    let store = Store::open_waiting(&url, 1, statement, lock).await.unwrap().with_clock(world.clock.clone());
    let mut next = || settlement(&world, cases.remove(0), REFUND);
    let (one, other) = (next(), next());
    let outcomes = tokio::join!(settle(&store, &world, one), settle(&store, &world, other), async {
        seen_waiting(&world, "post_refunds").await;
        // The second of the two has been waiting for the connection all the time.
        tokio::time::sleep(POOL_WAITS + Duration::from_secs(1)).await;
        on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
    });
    assert_eq!((outcomes.0, outcomes.1), (Outcome::Settled(REFUND), Outcome::Settled(REFUND)));
    assert_eq!(world.balance_of("ada").await, (0, 20));
    world.books_balance().await;
}

/// Allows only this many connections beyond those that remain once makegood's are gone. They are
/// counted when the limit is set, because the test's own pool may open one for any statement.
async fn let_in(world: &World, more: u32) {
    let Sql::Postgres(pool) = &world.sql else { panic!("PostgreSQL is meant") };
    // All sessions count, not only makegood's: one that has just ended, such as the owner's after
    // its grants, counts for a moment, and then one more is admitted.
    let all = "SELECT count(*) AS v FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'";
    while world.number(all).await > i64::from(pool.size()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world
        .run(&format!(
            "DO $do$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT %s', current_database(),
             (SELECT count(*) + {more} FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend')); END $do$"
        ))
        .await;
}

#[tokio::test]
async fn a_server_that_admits_only_one_of_eight_connections_is_enough() {
    let world = World::postgres().await;
    two_charges(&world).await;
    for nth in 3..5 {
        let charge = format!("c{nth}");
        world.charge(&charge).provider("fal", "acme/still-life").job(&format!("ok-{nth}")).insert().await;
    }
    world.store.close().await;
    let url = as_least_privileged(&world.database).await;
    let_in(&world, 1).await;
    let ended = run(&world, &url).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 3);
    assert_eq!(world.balance_of("ada").await, (0, 10));
    world.books_balance().await;
}

#[tokio::test]
async fn a_server_at_its_connection_limit_ends_the_pass_with_an_error() {
    let world = World::postgres().await;
    two_charges(&world).await;
    world.store.close().await;
    let url = as_least_privileged(&world.database).await;
    let_in(&world, 0).await;
    let ended = run(&world, &url).env("MAKEGOOD__DATABASE__STATEMENT_TIMEOUT", "1s").output().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    let told: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("\"level\":\"ERROR\"")).collect();
    assert_eq!(told.len(), 1, "{ended:?}");
    assert!(
        told[0].contains("too many connections (too many connections for database")
            && !told[0].contains(":makegood@"),
        "{told:?}"
    );
    nothing_half_done(&world).await;
    alter_database(&world, "CONNECTION LIMIT -1").await;
    let ended = run(&world, &url).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    all_made_good(&world).await;
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_settle_is_tried_again() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    world.run(WAIT_IN_LEDGER).await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let store = another(&world).await;
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        for _ in 0..3 {
            seen_waiting(&world, "post_refunds").await;
            world.run(&format!("{END_ALL} AND wait_event_type = 'Lock'")).await;
        }
        on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
    });
    assert_eq!(outcome, Outcome::Settled(REFUND));
    assert_eq!(world.balance_of("ada").await, (0, 10));
    world.books_balance().await;
}

#[tokio::test]
async fn every_connection_may_break_while_a_provider_is_asked() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    world.charge("c2").job("ok-2").insert().await;
    world.while_asked("failed-1", END_ALL.to_owned());
    let report = world.pass().await;
    assert_eq!((report.total("refund"), report.total("recover")), (1, 1), "{report:?}");
    all_made_good(&world).await;
}

#[tokio::test]
async fn a_transaction_whose_future_was_dropped_is_rolled_back() {
    /// Shorter than what the database itself lets an idle transaction stay open.
    const PATIENCE: Duration = Duration::from_secs(20);
    let world = World::postgres().await;
    // One connection: the statement after it runs on the same. The database is not asked for the
    // time, so it waits alike each time.
    let store = Store::open(&world.database.url, 1, Duration::from_secs(30)).await.unwrap();
    let store = store.with_clock(world.clock.clone());
    let mut given_up = 0;
    // Once is not enough: a server that answers at once is not waited for. How often that is
    // depends on what else the machine does, so it is tried until enough were given up.
    for (tried, waits) in (1..=4).cycle().enumerate() {
        if tried >= 40 && given_up > 20 {
            break;
        }
        assert!(tried < 1000, "it waits for its connection, for BEGIN and for its statements: {given_up}");
        let mut release = Box::pin(store.release_brake("mia", "a test"));
        let mut waited = 0;
        let ended = poll_fn(|context| {
            if release.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            waited += 1;
            if waited == waits { Poll::Ready(false) } else { Poll::Pending }
        })
        .await;
        drop(release);
        store.last_success().await.unwrap();
        let open = "SELECT state || ': ' || query AS v FROM pg_stat_activity
                    WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        // It may still be running.
        let began = Instant::now();
        while let Some(session) = world.texts(open).await.pop() {
            assert!(began.elapsed() < PATIENCE, "dropped when it waited for the {waits}. time: {session}");
        }
        given_up += u32::from(!ended);
    }
}
