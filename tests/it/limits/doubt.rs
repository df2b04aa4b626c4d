//! The answer to every commit of a pass in turn is lost. Whether it was carried out or not, the
//! report says what happened.

use std::time::Duration;

use makegood::pass;
use makegood::store::{Reversed, Store};

use super::{all_made_good, two_charges};
use crate::faults::plan::Moment;
use crate::faults::proxy::{Then, before};
use crate::postgres::not_tried;
use crate::reversals::{order, refunded};
use crate::world::World;

/// Applies `then` to every commit of a pass in turn, one pass each, until one has fewer. Returns
/// how many there were; none: not tried.
async fn with_every_commit(then: Then) -> Option<u64> {
    let mut nth = 0;
    while with_the_commit(nth + 1, then).await? {
        nth += 1;
    }
    Some(nth)
}

/// A pass with `then` applied to its `nth` commit; false: it had fewer.
async fn with_the_commit(nth: u64, then: Then) -> Option<bool> {
    let mut world = World::postgres().await;
    two_charges(&world).await;
    let Some((proxy, url)) = before(&world).await else {
        not_tried("the server of MAKEGOOD_TEST_POSTGRES has no socket here");
        return None;
    };
    world.parts.store =
        Store::open(&url, 4, Duration::from_secs(30)).await.unwrap().with_clock(world.clock.clone());
    let trap = proxy.begin(Some(Moment::Commit(nth)));
    let parts = world.parts.clone();
    let pass = tokio::spawn(async move { pass::run(&parts, World::orders(), |_| {}).await });
    let mut reached = false;
    tokio::select! {
        held = trap => {
            reached = true;
            let held = held.unwrap();
            if then == Then::Mute {
                assert!(held.mute().await, "commit {nth} was carried out");
            } else {
                held.go_on(then);
            }
        }
        () = async { while !pass.is_finished() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    let report = pass.await.unwrap().unwrap();
    let told = (report.total("refund"), report.total("recover"), report.total("lost"));
    assert_eq!(told, (1, 1, 0), "commit {nth}, {then:?}: {report:?}");
    assert_eq!(report.refunded_credits, 10);
    all_made_good(&world).await;
    Some(reached)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_p16_a_commit_whose_answer_was_lost_is_reported_as_it_happened() {
    // One that opens, and one at least that settles.
    let commits = with_every_commit(Then::Mute).await;
    assert!(commits.is_none_or(|commits| commits >= 2), "{commits:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_p16_a_commit_that_never_arrived_is_made_again() {
    let commits = with_every_commit(Then::Drop).await;
    assert!(commits.is_none_or(|commits| commits >= 2), "{commits:?}");
}

/// A reversal (P23): carried out or not, it is told as done, and it is done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_p23_a_reversal_whose_commit_is_lost_is_told_as_done() {
    for then in [Then::Mute, Then::Drop] {
        let world = World::postgres().await;
        refunded(&world).await;
        let Some((proxy, url)) = before(&world).await else {
            return not_tried("the server of MAKEGOOD_TEST_POSTGRES has no socket here");
        };
        let store =
            Store::open(&url, 4, Duration::from_secs(30)).await.unwrap().with_clock(world.clock.clone());
        let trap = proxy.begin(Some(Moment::Commit(1)));
        let reversal = tokio::spawn(async move { store.reverse_refund(&order("c1/0", false)).await });
        let held = trap.await.unwrap();
        if then == Then::Mute {
            assert!(held.mute().await, "the commit was carried out");
        } else {
            held.go_on(then);
        }
        let told = reversal.await.unwrap().unwrap();
        assert!(matches!(told, Reversed::Done(_)), "{then:?}: {told:?}");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refund_reversals").await, 1);
        assert_eq!(world.balance_of("ada").await, (0, 0));
        // Another one is told that it was done before.
        let again = world.store.reverse_refund(&order("c1/0", false)).await.unwrap();
        assert!(matches!(again, Reversed::Before(_)), "{then:?}: {again:?}");
        world.books_balance().await;
    }
}
