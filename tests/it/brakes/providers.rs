//! A person holds the refunds of one provider and releases them. All others go on.

use makegood::brake::BrakeLimits;
use makegood::policy::{Action, Decision, Reason};
use makegood::store::Outcome;

use super::failing;
use crate::late::{
    REFUND, WAIT_IN_LEDGER, another, claim, connection, detect, on, rules, seen_waiting, settlement,
};
use crate::world::{World, on_both};

on_both! {
    async fn p15_a_brake_for_one_provider_holds_its_refunds_alone_until_it_is_released(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_day_per_account: 50, ..BrakeLimits::default() };
        world.balance("ada", 0, 0).await;
        failing(&world, "fal", &["a", "b"]).await;
        failing(&world, "replicate", &["c"]).await;
        let why = "its status page says that it loses jobs";
        assert!(world.store.engage_brake(Some("fal"), "ida", why).await.unwrap());
        assert!(!world.store.engage_brake(Some("fal"), "ida", why).await.unwrap(), "it is engaged already");
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.unresolved.held_by_brake), (1, 2), "{:?}", report.outcomes);
        assert_eq!(report.unresolved.providers["fal"], format!("ida: {why}"));
        assert!(report.unresolved.brake.is_none() && report.needs_a_person());
        let detail = world.texts("SELECT DISTINCT detail AS v FROM makegood_orphan_events WHERE kind = 'hold'").await;
        assert_eq!(detail, [format!("ida: {why}")]);
        assert_eq!(world.store.release_provider("replicate", "ida", "not that one").await.unwrap(), None);
        assert_eq!(world.store.release_provider("fal", "ida", "it is well").await.unwrap(), Some(2));
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.needs_a_person()), (2, false), "{:?}", report.outcomes);
        let events = world.texts("SELECT kind || ' ' || by_whom || ' ' || provider AS v FROM makegood_brake_events ORDER BY id").await;
        assert_eq!(events, ["engaged ida fal", "released ida fal"]);

        // The brake of all in a person's hand.
        assert!(world.store.engage_brake(None, "ida", "an import went wrong").await.unwrap());
        failing(&world, "replicate", &["d"]).await;
        assert_eq!(world.pass().await.unresolved.held_by_brake, 1);
        assert_eq!(world.store.release_brake("ida", "mended").await.unwrap(), Some(1));
        assert_eq!(world.pass().await.total("refund"), 1);
        world.books_balance().await;
    }
}

/// Once a person has engaged it, no refund is committed that was written before.
#[tokio::test]
async fn p15_a_provider_that_is_engaged_holds_refunds_that_are_about_to_commit() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    failing(&world, "replicate", &["a"]).await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    world.run(WAIT_IN_LEDGER).await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let store = another(&world).await;
    let (batch, rules) = ([settlement(&world, case, REFUND)], rules(&world));
    let (outcome, ()) = tokio::join!(store.settle(&batch, &rules), async {
        seen_waiting(&world, "post_refunds").await;
        assert!(world.store.engage_brake(Some("replicate"), "ida", "it loses jobs").await.unwrap());
        on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
    });
    let held = Decision { action: Action::Hold, reason: Reason::Brake, rule: 16 };
    assert_eq!(outcome.unwrap(), [Outcome::Settled(held)]);
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 0);
    world.books_balance().await;
}
