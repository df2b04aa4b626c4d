//! The brake across processes, on PostgreSQL: the limits hold to the refund, and no settle waits
//! for another.
//!
//! Each order is forced: a trigger of the platform's stops a settle between its writes, and the
//! test waits until it sees it there.

use std::collections::BTreeSet;

use makegood::brake::{BrakeContext, BrakeLimits};
use makegood::policy::{Action, Decision, Reason};
use makegood::store::{Case, Outcome, SettleRules, Store};

use crate::late::{
    REFUND, WAIT_IN_LEDGER, another, claim, connection, detect, on, rules, seen_waiting, settlement,
};
use crate::world::World;

const HELD: Decision = Decision { action: Action::Hold, reason: Reason::Brake, rule: 16 };

async fn settle(store: &Store, world: &World, cases: Vec<Case>, limits: BrakeLimits) -> Vec<Outcome> {
    let batch: Vec<_> = cases.into_iter().map(|case| settlement(world, case, REFUND)).collect();
    let rules = SettleRules { brake: BrakeContext { limits, ..BrakeContext::default() }, ..rules(world) };
    store.settle(&batch, &rules).await.unwrap()
}

fn refunds(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|each| **each == Outcome::Settled(REFUND)).count()
}

/// Waits until this many statements that contain `words` wait for a lock.
async fn all_seen_waiting(world: &World, words: &str, many: i64) {
    let waiting = format!(
        "SELECT count(*) AS v FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%{words}%' AND pid <> pg_backend_pid()"
    );
    for _ in 0..3000 {
        if world.number(&waiting).await >= many {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not {many} wait for a lock with `{words}`");
}

/// A world with this many claimed refunds, each of an account and a charge of its own.
async fn due(many: usize) -> (World, Vec<Case>) {
    let world = World::postgres().await;
    for nth in 0..many {
        let account = format!("a{nth}");
        world.balance(&account, 0, 0).await;
        world.charge(&format!("c{nth:02}")).account(&account).job(&format!("failed-{nth}")).insert().await;
    }
    detect(&world).await;
    let cases = claim(&world).await;
    assert_eq!(cases.len(), many);
    (world, cases)
}

/// Four settles have read the brake and written their refunds before any of them commits: together
/// they would refund twice what the limit allows.
#[tokio::test]
async fn p15_four_processes_at_once_end_exactly_at_the_limit() {
    for (limits, most) in [
        (BrakeLimits { refunds_per_hour: 11, ..BrakeLimits::default() }, 11),
        (BrakeLimits { credits_per_day: 119, ..BrakeLimits::default() }, 11),
        (BrakeLimits { refunds_per_day_per_provider: 5, ..BrakeLimits::default() }, 5),
        (BrakeLimits { refunds_per_hour: 20, refunds_per_day: 13, ..BrakeLimits::default() }, 13),
    ] {
        let (world, mut cases) = due(24).await;
        world.run(WAIT_IN_LEDGER).await;
        let mut holder = connection(&world).await;
        on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
        let stores =
            [another(&world).await, another(&world).await, another(&world).await, another(&world).await];
        let mut six = || cases.split_off(cases.len() - 6);
        let (a, b, c, d) = (six(), six(), six(), six());
        // Five pass the first reading in each of them, where the limit is five.
        let (a, b, c, d, ()) = tokio::join!(
            settle(&stores[0], &world, a, limits),
            settle(&stores[1], &world, b, limits),
            settle(&stores[2], &world, c, limits),
            settle(&stores[3], &world, d, limits),
            async {
                all_seen_waiting(&world, "post_refunds", 4).await;
                on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
            }
        );
        let all = [a, b, c, d].concat();
        assert_eq!(refunds(&all), most, "{limits:?}: {all:?}");
        assert_eq!(all.iter().filter(|each| **each == Outcome::Settled(HELD)).count(), 24 - most);
        let count = |table: &str| format!("SELECT count(*) AS v FROM {table}");
        assert_eq!(world.number(&count("makegood_refunds")).await, i64::try_from(most).unwrap());
        assert_eq!(
            world.number("SELECT sum(refunds) AS v FROM makegood_refund_sums").await,
            i64::try_from(most).unwrap()
        );
        assert_eq!(world.number(&count("makegood_brake_events")).await, 1, "engaged once");
        world.run("DROP TRIGGER wait_here ON ledger_entries").await;
        world.books_balance().await;
    }
}

#[tokio::test]
async fn p15_a_brake_that_another_process_engages_holds_refunds_that_are_about_to_commit() {
    let (world, mut cases) = due(3).await;
    let (first, last) = (cases.remove(0), cases.remove(0));
    let once = BrakeLimits { refunds_per_hour: 1, ..BrakeLimits::default() };
    assert_eq!(refunds(&settle(&world.store, &world, vec![first], once).await), 1);
    world.run(WAIT_IN_LEDGER).await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let (a, b) = (another(&world).await, another(&world).await);
    let (outcome, ()) = tokio::join!(
        // It has no limits of its own, and has written its refund when the other one engages the
        // brake.
        settle(&b, &world, vec![last], BrakeLimits::default()),
        async {
            seen_waiting(&world, "post_refunds").await;
            assert_eq!(settle(&a, &world, cases, once).await, [Outcome::Settled(HELD)]);
            assert!(world.store.brake().await.unwrap().engaged_at.is_some(), "everybody can see it");
            on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
        }
    );
    assert_eq!(outcome, [Outcome::Settled(HELD)]);
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 1);
    assert_eq!(world.number("SELECT count(*) AS v FROM ledger_entries").await, 1);
    world.books_balance().await;
}

/// The release must not hold the brake while it waits for an orphan that the settle has locked: the
/// settle takes the brake last.
#[tokio::test]
async fn p15_a_release_and_a_settle_do_not_wait_for_each_other() {
    let (world, mut cases) = due(2).await;
    let held = cases.remove(0);
    let (id, token) = (held.facts.orphan.id, held.token);
    // Both are held, and the brake is on; one is being refunded by a person over the brake.
    world.store.release(&[(id, token)], None).await.unwrap();
    world
        .run(&format!(
            "UPDATE makegood_orphans SET state = 'held', reason = 'brake'; UPDATE makegood_brake SET engaged_at = {}, reason = 'by the test'",
            world.at(world.now())
        ))
        .await;
    world.run(WAIT_IN_LEDGER).await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let (a, b) = (another(&world).await, another(&world).await);
    let batch = [settlement(&world, cases.remove(0), REFUND)];
    let mut by_hand = rules(&world);
    by_hand.brake.overruled = true;
    let (outcome, freed, ()) = tokio::join!(
        a.settle(&batch, &by_hand),
        async {
            seen_waiting(&world, "post_refunds").await;
            b.release_brake("grace", "looked into it").await.unwrap()
        },
        async {
            // The release is committed, and waits for the orphan that the settle holds.
            seen_waiting(&world, "brake_free_orphans").await;
            assert_eq!(world.store.brake().await.unwrap().engaged_at, None);
            on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
        }
    );
    assert_eq!((outcome.unwrap(), freed), (vec![Outcome::Settled(REFUND)], Some(1)));
    let states: BTreeSet<String> =
        world.texts("SELECT state AS v FROM makegood_orphans").await.into_iter().collect();
    assert_eq!(states, ["open".to_owned(), "refunded".to_owned()].into());
    world.books_balance().await;
}

/// A settle that is about to hold its refunds when a person releases the brake: they are not left
/// held for an hour.
#[tokio::test]
async fn p15_a_refund_that_is_about_to_be_held_when_the_brake_is_released_is_given() {
    let (world, cases) = due(1).await;
    let on_at =
        format!("UPDATE makegood_brake SET engaged_at = {}, reason = 'by the test'", world.at(world.now()));
    world.run(&on_at).await;
    world
        .run(
            "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$;
             CREATE TRIGGER wait_here BEFORE INSERT ON makegood_orphan_events FOR EACH ROW EXECUTE FUNCTION wait_here();",
        )
        .await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let store = another(&world).await;
    let (outcome, ()) = tokio::join!(settle(&store, &world, cases, BrakeLimits::default()), async {
        seen_waiting(&world, "insert_events").await;
        assert_eq!(world.store.release_brake("grace", "looked into it").await.unwrap(), Some(0));
        on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
    });
    assert_eq!(outcome, [Outcome::Settled(REFUND)]);
    world.books_balance().await;
}

/// One settle waits for the platform; another one, of other accounts, begins and ends meanwhile.
#[tokio::test]
async fn p15_a_settle_that_waits_holds_up_no_other_one() {
    let (world, mut cases) = due(2).await;
    world
        .run(
            &WAIT_IN_LEDGER
                .replace("PERFORM", "IF NEW.account_id = 'a0' THEN PERFORM")
                .replace("; RETURN NEW", "; END IF; RETURN NEW"),
        )
        .await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let (a, b) = (another(&world).await, another(&world).await);
    let limits = BrakeLimits { refunds_per_hour: 2, ..BrakeLimits::default() };
    cases.sort_by_key(|case| case.facts.orphan.id);
    let other = vec![cases.remove(1)];
    let (first, ()) = tokio::join!(settle(&a, &world, cases, limits), async {
        seen_waiting(&world, "post_refunds").await;
        assert_eq!(refunds(&settle(&b, &world, other, limits).await), 1);
        on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
    });
    assert_eq!(refunds(&first), 1);
    world.run("DROP TRIGGER wait_here ON ledger_entries").await;
    world.books_balance().await;
}
