//! A session of the platform that holds a lock delays only the case that needs it. The pass ends
//! normally and reports it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use makegood::report::PassReport;
use makegood::store::{Case, Locked, Outcome, SettleRules, Settlement, Store};
use sqlx::PgConnection;

use crate::database::{as_least_privileged, database};
use crate::late::{
    REFUND, WAIT_IN_LEDGER, another, claim, connection, detect, on, rules, seen_waiting, settlement,
};
use crate::world::{MINUTE, World};

/// Three accounts, each with this many refunds due.
async fn three_accounts(each: usize) -> World {
    let world = World::postgres().await;
    due(&world, each).await;
    world
}

async fn due(world: &World, each: usize) {
    for account in ["ada", "eve", "ida"] {
        world.balance(account, 0, 0).await;
        for nth in 0..each {
            let (id, job) = (format!("{account}-{nth}"), format!("failed-{account}-{nth}"));
            world.charge(&id).account(account).job(&job).insert().await;
        }
    }
}

/// A session that has begun a transaction with this statement.
async fn holding(world: &World, sql: &str) -> PgConnection {
    let mut holder = connection(world).await;
    on(&mut holder, &format!("BEGIN; {sql}")).await;
    holder
}

/// One that waits for locks this long.
async fn store_of(world: &World, lock_timeout: Duration) -> Store {
    let url = as_least_privileged(&world.database).await;
    let store = Store::open_waiting(&url, 4, Duration::from_mins(2), lock_timeout).await.unwrap();
    store.with_clock(world.clock.clone())
}

fn locked(report: &PassReport) -> Vec<&str> {
    report.findings.iter().filter(|each| each.kind == "locked").map(|each| each.about.as_str()).collect()
}

/// The others were refunded, `about` is reported once, and its cases are refunded once the lock is
/// gone.
async fn only_its_own(world: &World, mut holder: PgConnection, about: &str, waiting: usize, all: usize) {
    let report = world.pass().await;
    assert_eq!(report.outcomes["wait"]["locked"], waiting as u64, "{report:?}");
    assert_eq!(report.total("refund"), (all - waiting) as u64, "{report:?}");
    assert_eq!(locked(&report), [about]);
    assert!(report.findings.iter().any(|each| each.detail.contains("database.lock_timeout")), "{report:?}");
    let leased = "SELECT count(*) AS v FROM makegood_orphans WHERE leased_until IS NOT NULL";
    assert_eq!(world.number(leased).await, 0, "given back");
    on(&mut holder, "ROLLBACK").await;
    world.pass_time(2 * MINUTE);
    let report = world.pass().await;
    assert_eq!((report.total("refund"), locked(&report).len()), (waiting as u64, 0), "{report:?}");
    world.books_balance().await;
}

#[tokio::test]
async fn a_locked_balance_delays_its_own_account_and_no_other() {
    let mut world = three_accounts(4).await;
    // In several batches, so that the account comes up again in the same pass.
    world.parts.rules.batch = 3;
    let holder = holding(&world, "SELECT FROM balances WHERE account_id = 'ada' FOR UPDATE").await;
    only_its_own(&world, holder, "account ada", 4, 12).await;
}

#[tokio::test]
async fn a_charge_that_is_being_stored_delays_its_own_case_and_no_other() {
    for there_before in [true, false] {
        let world = three_accounts(4).await;
        if there_before {
            world.run("INSERT INTO makegood_charges VALUES ('eve-2', 'eve', 0, 10)").await;
        }
        // Its row is locked, or new and not committed yet. Neither can be seen in advance.
        let call = "SELECT makegood_store_output(output_id => 'out', charge_id => 'eve-2', output_index => 0, uri => 's3://files/out',
                                                 content_type => 'image/png', size_bytes => 3, sha256 => NULL)";
        let holder = holding(&world, call).await;
        only_its_own(&world, holder, "charge eve-2", 1, 12).await;
    }
}

/// A view that lets its rows be locked, and one that does not: then the UPDATE itself waits.
#[tokio::test]
async fn a_locked_balance_behind_a_view_delays_its_own_account_and_no_other() {
    for (through, view) in [
        ("a plain view", "CREATE VIEW balances AS SELECT owner AS account_id, bucket, credits FROM purses"),
        (
            "a view that cannot be locked",
            "CREATE VIEW balances AS SELECT owner AS account_id, bucket, credits FROM purses GROUP BY owner, bucket, credits;
             CREATE FUNCTION add() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
               UPDATE purses p SET credits = p.credits + NEW.credits - OLD.credits WHERE p.owner = NEW.account_id AND p.bucket = NEW.bucket;
               RETURN NEW; END $$;
             CREATE TRIGGER add INSTEAD OF UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION add();",
        ),
    ] {
        let contract = include_str!("../../migrations/reference/postgres/0001_contract.sql");
        let schema = format!("{contract}; ALTER TABLE balances RENAME TO purses; ALTER TABLE purses RENAME account_id TO owner; {view}");
        let world = World::on(database().await, Some(&schema)).await;
        // Written past the view, which takes no INSERT.
        for account in ["ada", "eve", "ida"] {
            world.run(&format!("INSERT INTO accounts VALUES ('{account}', 'user'); INSERT INTO purses VALUES ('{account}', 'subscription', 0), ('{account}', 'wallet', 0)")).await;
            for nth in 0..4 {
                let (id, job) = (format!("{account}-{nth}"), format!("failed-{account}-{nth}"));
                world.charge(&id).account(account).job(&job).insert().await;
            }
        }
        let holder = holding(&world, "SELECT FROM purses WHERE owner = 'ida' FOR UPDATE").await;
        println!("{through}");
        only_its_own(&world, holder, "account ida", 4, 12).await;
    }
}

/// An output that is to be put back is locked. This cannot be seen in advance.
#[tokio::test]
async fn a_locked_output_delays_its_own_case_and_no_other() {
    let world = three_accounts(2).await;
    world.charge("x").job("ok-x").insert().await;
    world.store_output("stray", None, ("replicate", "ok-x", 0), ("elsewhere", "there")).await;
    let mut holder = holding(&world, "SELECT FROM stored_outputs WHERE id = 'stray' FOR UPDATE").await;
    let report = world.pass().await;
    assert_eq!((report.total("refund"), report.total("relink")), (6, 0), "{report:?}");
    assert_eq!(locked(&report), ["charge x"]);
    on(&mut holder, "ROLLBACK").await;
    world.pass_time(2 * MINUTE);
    assert_eq!(world.pass().await.total("relink"), 1);
    world.books_balance().await;
}

/// A pass waits for a lock only once.
#[tokio::test]
async fn a_lock_that_timed_out_is_not_waited_for_again_in_the_same_pass() {
    let world = three_accounts(2).await;
    let mut holder = holding(&world, "SELECT FROM balances WHERE account_id = 'ada' FOR UPDATE").await;
    detect(&world).await;
    let (adas, mut others): (Vec<_>, Vec<_>) =
        claim(&world).await.into_iter().partition(|case| case.facts.record.charge.account_id == "ada");
    let mut adas = adas.into_iter();
    let rules: SettleRules = rules(&world);
    let ada = Locked::Balances { account_id: "ada".to_owned() };
    let first = [settlement(&world, adas.next().unwrap(), REFUND)];
    let impatient = store_of(&world, Duration::from_millis(50)).await;
    assert_eq!(impatient.settle(&first, &rules).await.unwrap(), [Outcome::Busy(ada.clone())]);
    // It would wait for a minute.
    let patient = store_of(&world, Duration::from_mins(1)).await;
    let second = [adas.next().unwrap(), others.remove(0)].map(|case| settlement(&world, case, REFUND));
    let began = Instant::now();
    assert_eq!(
        patient.settle(&second, &rules).await.unwrap(),
        [Outcome::Busy(ada), Outcome::Settled(REFUND)]
    );
    assert!(began.elapsed() < Duration::from_secs(50));
    on(&mut holder, "ROLLBACK").await;
    world.books_balance().await;
}

/// A lock that is released in time: nothing is postponed, and the other cases did not wait for it.
#[tokio::test]
async fn a_locked_balance_is_waited_for_after_the_others_were_settled() {
    let world = three_accounts(2).await;
    let mut holder = holding(&world, "SELECT FROM balances WHERE account_id = 'ada' FOR UPDATE").await;
    detect(&world).await;
    let batch: Vec<_> =
        claim(&world).await.into_iter().map(|case| settlement(&world, case, REFUND)).collect();
    let (store, rules) = (another(&world).await, rules(&world));
    let (outcomes, ()) = tokio::join!(store.settle(&batch, &rules), async {
        seen_waiting(&world, "lock_balances").await;
        let refunds = "SELECT count(*) AS v FROM makegood_refunds";
        assert_eq!(world.number(refunds).await, 4, "committed before it waits");
        // Nor does it hold the brake.
        world.run("UPDATE makegood_brake SET reason = NULL").await;
        on(&mut holder, "ROLLBACK").await;
    });
    assert_eq!(outcomes.unwrap(), vec![Outcome::Settled(REFUND); 6]);
    world.books_balance().await;
}

/// Two settles need the same account, balance, or row behind a view that cannot be locked. The
/// second waits for the first far longer than for a session of the platform's, and settles its
/// other accounts meanwhile.
#[tokio::test]
async fn another_settle_is_no_locked_row_and_is_waited_for_to_its_end() {
    let world = three_accounts(2).await;
    world
        .run(
            &WAIT_IN_LEDGER
                .replace("PERFORM", "IF NEW.charge_id = 'ada-0' THEN PERFORM")
                .replace("; RETURN NEW", "; END IF; RETURN NEW"),
        )
        .await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    detect(&world).await;
    let (first, rest): (Vec<_>, Vec<_>) =
        claim(&world).await.into_iter().partition(|case| case.facts.orphan.item.charge_id == "ada-0");
    let batch = |cases: Vec<Case>| -> Vec<Settlement> {
        cases.into_iter().map(|case| settlement(&world, case, REFUND)).collect()
    };
    let (first, rest, rules) = (batch(first), batch(rest), rules(&world));
    let (patient, impatient) = (another(&world).await, store_of(&world, Duration::from_millis(1)).await);
    let (one, others, ()) = tokio::join!(
        patient.settle(&first, &rules),
        async {
            seen_waiting(&world, "post_refunds").await;
            impatient.settle(&rest, &rules).await
        },
        async {
            seen_waiting(&world, "lock_accounts").await;
            let refunds = "SELECT count(*) AS v FROM makegood_refunds";
            assert_eq!(world.number(refunds).await, 4, "those of the other accounts");
            on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
        }
    );
    assert_eq!(one.unwrap(), [Outcome::Settled(REFUND)]);
    assert_eq!(others.unwrap(), vec![Outcome::Settled(REFUND); 5]);
    world.run("DROP TRIGGER wait_here ON ledger_entries").await;
    world.books_balance().await;
}

/// One settle waits a bounded number of times, however many accounts are locked in a way that
/// cannot be seen in advance.
#[tokio::test]
async fn many_locks_cost_one_settle_a_bounded_number_of_tries() {
    let world = World::postgres().await;
    world
        .run(
            "CREATE SEQUENCE waited;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
               IF NEW.account_id LIKE 'locked%' THEN
                 PERFORM nextval('waited');
                 RAISE EXCEPTION 'a row of it is locked' USING ERRCODE = '55P03';
               END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION refuse();",
        )
        .await;
    for nth in 0..64 {
        let account = if nth == 17 { "free".to_owned() } else { format!("locked-{nth:02}") };
        world.balance(&account, 0, 0).await;
        world.charge(&format!("c{nth:02}")).account(&account).job(&format!("failed-{nth}")).insert().await;
    }
    detect(&world).await;
    let batch: Vec<_> =
        claim(&world).await.into_iter().map(|case| settlement(&world, case, REFUND)).collect();
    assert_eq!(batch.len(), 64);
    let outcomes = world.store.settle(&batch, &rules(&world)).await.unwrap();
    let busy = outcomes.iter().filter(|each| matches!(each, Outcome::Busy(_))).count();
    assert!(busy >= 63, "{outcomes:?}");
    let tries = world.number("SELECT last_value AS v FROM waited").await;
    // One by one it would be 128 and more.
    assert!((10..40).contains(&tries), "{tries} tries");
    assert_eq!(
        world.number("SELECT count(*) AS v FROM ledger_entries").await,
        64 - i64::try_from(busy).unwrap()
    );
    world.books_balance().await;
}

/// 55P03 is raised for one account every time: the pass goes on, and does not fail.
#[tokio::test]
async fn a_lock_that_never_goes_fails_no_pass() {
    let world = three_accounts(1).await;
    world
        .run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.account_id = 'eve' THEN RAISE EXCEPTION 'its row is locked' USING ERRCODE = '55P03'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION refuse();",
        )
        .await;
    for _ in 0..3 {
        let report = world.pass().await;
        assert_eq!(locked(&report), ["account eve"]);
        world.pass_time(2 * MINUTE);
    }
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 2);
    world.run("DROP TRIGGER refuse ON ledger_entries").await;
    assert_eq!(world.pass().await.total("refund"), 1);
    world.books_balance().await;
}
