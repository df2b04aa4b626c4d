//! Failures that are retried: serialization failures, timeouts, and other transient errors.

use std::time::Duration;

use makegood::store::{Case, Outcome, Store};

use super::alter_database;
use crate::database::as_least_privileged;
use crate::late::{
    REFUND, WAIT_IN_LEDGER, another, claim, connection, detect, on, output, rules, seen_waiting, settle,
    settlement,
};
use crate::world::{HOUR, World};

/// The first entries into the ledger, as many as given, fail with this SQLSTATE.
async fn fails_first(world: &World, code: &str, times: u32) {
    fails_first_at(world, "INSERT ON ledger_entries", code, times).await;
}

/// The first rows of `deed`, as many as given, fail with this SQLSTATE. A sequence counts them,
/// because no rollback resets it.
async fn fails_first_at(world: &World, deed: &str, code: &str, times: u32) {
    let sql = format!(
        "CREATE SEQUENCE tried;
         CREATE FUNCTION fail_first() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
           IF nextval('tried') <= {times} THEN RAISE EXCEPTION 'as the test wants it' USING ERRCODE = '{code}'; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail_first BEFORE {deed} FOR EACH ROW EXECUTE FUNCTION fail_first();"
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
    // Only posted rows are counted.
    world.just_tried().await;
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
async fn a_transient_failure_is_retried_as_a_whole_transaction() {
    for (code, times) in
        [("40001", 3), ("40P01", 3), ("55P03", 1), ("57014", 2), ("57P01", 3), ("53300", 3), ("08006", 3)]
    {
        let world = one_refund_is_due().await;
        fails_first(&world, code, times).await;
        let report = world.pass().await;
        assert_eq!(tries(&world).await, i64::from(times) + 1, "{code}");
        assert_eq!((report.total("refund"), report.findings.len()), (1, 0), "{code}: {report:?}");
        refunded_once(&world).await;
    }
}

/// A trigger may raise a serialization failure every time. Its row is tried in the batch and alone,
/// then set aside, and the pass goes on.
#[tokio::test]
async fn an_error_that_a_trigger_raises_at_every_try_sets_its_row_aside_and_leaves_nothing_half_done() {
    // Tries together, and alone.
    for (code, together, alone) in
        [("40001", 6, 6), ("57P01", 6, 6), ("57014", 3, 1), ("53100", 1, 1), ("25006", 1, 1)]
    {
        let world = one_refund_is_due().await;
        fails_first(&world, code, 1000).await;
        let report = world.pass().await;
        let found: Vec<_> = report.findings.iter().map(|each| (each.kind, each.about.as_str())).collect();
        assert_eq!(found, [("refused_row", "item c1/0")], "{code}");
        let detail = &report.findings[0].detail;
        assert!(detail.contains("post_refunds") && detail.contains("function fail_first()"), "{detail}");
        // A try that still finds the locks of the one before begins anew, once, and waits for them.
        let tried = tries(&world).await;
        assert!((together + alone..=2 * together + alone).contains(&tried), "{code}: {tried}");
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
        assert_eq!(ended, ["done"], "{code}");
        world.run("DROP TRIGGER fail_first ON ledger_entries").await;
        world.pass_time(HOUR);
        world.pass().await;
        refunded_once(&world).await;
    }
}

/// A trigger that says so for every row: a few rows are tried as often as any other, and the rest
/// cost one try each, or none after a time limit.
#[tokio::test]
async fn what_a_trigger_says_of_every_row_costs_a_settle_a_bounded_number_of_tries() {
    for (code, least, most) in [("40001", 6 + 4 * 6 + 8, 60), ("57014", 3 + 4, 12)] {
        let world = one_refund_is_due().await;
        for nth in 2..=12 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        fails_first(&world, code, 1000).await;
        let report = world.pass().await;
        // Without the bound it would be 6 + 12 * 6, and 3 + 12.
        let tried = tries(&world).await;
        assert!((least..=most).contains(&tried), "{code}: {tried} {report:?}");
        world.run("DROP TRIGGER fail_first ON ledger_entries").await;
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.balance_of("ada").await, (0, 120), "{code}");
        world.books_balance().await;
    }
}

/// Others may be first wherever something is written: each row that the opening of an orphan
/// writes, up to its last statement.
#[tokio::test]
async fn p14_a_race_while_an_orphan_is_opened_opens_it_once_and_reports_it_once() {
    for deed in ["INSERT ON makegood_orphans", "INSERT ON makegood_orphan_events"] {
        for code in ["40001", "40P01"] {
            let world = one_refund_is_due().await;
            fails_first_at(&world, deed, code, 3).await;
            detect(&world).await;
            assert_eq!(tries(&world).await, 4, "{code} {deed}");
            // If half of it were done, the retry would find the orphan and report nothing.
            assert_eq!(
                world.texts("SELECT kind AS v FROM makegood_orphan_events").await,
                ["opened"],
                "{code} {deed}"
            );
            assert_eq!(world.fate("c1", 0).await, "open ", "{code} {deed}");
            let report = world.pass().await;
            assert_eq!((report.opened, report.total("refund")), (0, 1), "{code} {deed}: {report:?}");
            refunded_once(&world).await;
        }
    }
}

#[tokio::test]
async fn a_race_that_goes_on_for_ever_opens_nothing() {
    for deed in ["INSERT ON makegood_orphans", "INSERT ON makegood_orphan_events"] {
        let world = one_refund_is_due().await;
        fails_first_at(&world, deed, "40001", 1000).await;
        let report = world.pass().await;
        assert_eq!(
            report.findings.iter().map(|each| each.kind).collect::<Vec<_>>(),
            ["refused_row"],
            "{deed}"
        );
        // Six times, once to set it aside alone.
        assert_eq!(tries(&world).await, 6 + 2, "{deed}");
        for table in ["makegood_orphans", "makegood_orphan_events"] {
            assert_eq!(
                world.number(&format!("SELECT count(*) AS v FROM {table}")).await,
                0,
                "{deed}: {table}"
            );
        }
        let table = deed.trim_start_matches("INSERT ON ");
        world.run(&format!("DROP TRIGGER fail_first ON {table}")).await;
        world.pass_time(HOUR);
        world.pass().await;
        refunded_once(&world).await;
    }
}

#[tokio::test]
async fn a_race_while_orphans_are_claimed_costs_tries_and_raises_each_token_once() {
    for code in ["40001", "40P01"] {
        let world = one_refund_is_due().await;
        world.charge("c2").job("failed-2").insert().await;
        detect(&world).await;
        // Strikes at the first row, and then at the second, which leaves the first one raised if
        // not all of it is undone.
        fails_first_at(&world, "UPDATE OF lease_token ON makegood_orphans", code, 1).await;
        world.run("CREATE TRIGGER fail_later AFTER UPDATE OF lease_token ON makegood_orphans FOR EACH ROW WHEN (NEW.charge_id = 'c2') EXECUTE FUNCTION fail_first()").await;
        let cases = claim(&world).await;
        assert_eq!(cases.iter().map(|case| case.token).collect::<Vec<_>>(), [1, 1], "{code}");
        assert_eq!(world.texts("SELECT lease_token AS v FROM makegood_orphans").await, ["1", "1"], "{code}");
        assert!(tries(&world).await > 1, "{code}");
        let outcomes = settle_all(&world, cases).await;
        assert_eq!(outcomes, vec![Outcome::Settled(REFUND); 2], "{code}");
        world.books_balance().await;
    }
}

async fn settle_all(world: &World, cases: Vec<Case>) -> Vec<Outcome> {
    let batch: Vec<_> = cases.into_iter().map(|case| settlement(world, case, REFUND)).collect();
    world.store.settle(&batch, &rules(world)).await.unwrap()
}

/// One refund that the brake holds.
async fn one_refund_is_held() -> World {
    let world = one_refund_is_due().await;
    let on =
        format!("UPDATE makegood_brake SET engaged_at = {}, reason = 'by the test'", world.at(world.now()));
    world.run(&on).await;
    world.pass().await;
    assert_eq!(world.fate("c1", 0).await, "held brake");
    world
}

/// A release writes the brake and its event in one transaction, and then the held orphans.
const RELEASE: [&str; 2] = ["UPDATE ON makegood_brake", "INSERT ON makegood_brake_events"];
const FREE: &str = "UPDATE ON makegood_orphans";

#[tokio::test]
async fn a_race_while_the_brake_is_released_releases_it_once_and_requeues_held_orphans() {
    for deed in [RELEASE[0], RELEASE[1], FREE] {
        let world = one_refund_is_held().await;
        fails_first_at(&world, deed, "40P01", 3).await;
        // If half of it were done, the retry would find nothing to release and requeue no orphan.
        let freed = world.store.release_brake("eve", "it was the test").await.unwrap();
        assert_eq!((freed, tries(&world).await), (Some(1), 4), "{deed}");
        assert_eq!(
            world.texts("SELECT kind || ' ' || by_whom AS v FROM makegood_brake_events").await,
            ["released eve"],
            "{deed}"
        );
        world.pass().await;
        refunded_once(&world).await;
    }
}

#[tokio::test]
async fn a_race_that_goes_on_for_ever_leaves_the_brake_as_it_was() {
    for deed in RELEASE {
        let world = one_refund_is_held().await;
        let before = world.all_rows().await;
        fails_first_at(&world, deed, "40001", 1000).await;
        world.store.release_brake("eve", "it was the test").await.unwrap_err();
        assert_eq!(tries(&world).await, 6, "{deed}");
        assert_eq!(world.all_rows().await, before, "{deed}");
    }
}

/// It dies between the release and the requeueing: the brake is off, and a second release requeues
/// the rest.
#[tokio::test]
async fn a_release_that_fails_after_its_commit_is_made_whole_by_another_one() {
    let world = one_refund_is_held().await;
    fails_first_at(&world, FREE, "40001", 1000).await;
    world.store.release_brake("eve", "it was the test").await.unwrap_err();
    let brake = world.store.brake().await.unwrap();
    assert!(brake.engaged_at.is_none() && brake.released_at.is_some(), "{brake:?}");
    assert_eq!(world.fate("c1", 0).await, "held brake");
    world.run("DROP TRIGGER fail_first ON makegood_orphans").await;
    assert_eq!(world.store.release_brake("ida", "the rest").await.unwrap(), Some(1));
    let events = world.texts("SELECT kind || ' ' || by_whom AS v FROM makegood_brake_events").await;
    assert_eq!(events, ["released eve"], "it was off by then");
    world.pass().await;
    refunded_once(&world).await;
}

#[tokio::test]
async fn a_deadlock_with_the_platform_costs_a_retry_and_no_refund() {
    let world = one_refund_is_due().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    let mut platform = connection(&world).await;
    // The platform holds the balance and wants the orphan, in no hurry to call it a ring.
    on(&mut platform, "SET deadlock_timeout = '10min'; BEGIN; UPDATE balances SET credits = credits + 1")
        .await;
    let store = another(&world).await;
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        // Settle holds the orphan and wants the balance. The database ends its transaction, or this
        // would wait for ever.
        seen_waiting(&world, "_balances").await;
        let wants =
            "SELECT FROM makegood_orphans FOR UPDATE; UPDATE balances SET credits = credits - 1; COMMIT";
        on(&mut platform, wants).await;
    });
    assert_eq!(outcome, Outcome::Settled(REFUND));
    refunded_once(&world).await;
}

/// A lock delays the ledger entry until settle has tried twice.
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
    let url = as_least_privileged(&world.database).await;
    let (statement, lock) = (Duration::from_secs(30), Duration::from_millis(400));
    let impatient = Store::open_waiting(&url, 4, statement, lock).await.unwrap();
    while_the_ledger_is_held(&world, &impatient.with_clock(world.clock.clone())).await;
}

#[tokio::test]
async fn a_statement_timeout_is_tried_again() {
    let world = one_refund_is_due().await;
    fails_first(&world, "00000", 0).await;
    // The first entry into the ledger takes longer than a statement may; no lock is waited for.
    world
        .run(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN IF (SELECT last_value FROM tried) = 1 THEN PERFORM pg_sleep(600); END IF; RETURN NEW; END $$;
             CREATE TRIGGER later BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION dawdle();",
        )
        .await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    let url = as_least_privileged(&world.database).await;
    let impatient = Store::open(&url, 4, Duration::from_secs(2)).await.unwrap();
    let impatient = impatient.with_clock(world.clock.clone());
    assert_eq!(settle(&impatient, &world, settlement(&world, case, REFUND)).await, Outcome::Settled(REFUND));
    assert_eq!(tries(&world).await, 2);
    refunded_once(&world).await;
}

/// Settle's last look must see what was committed since its transaction began, whatever the
/// database's default is.
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
