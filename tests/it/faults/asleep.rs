//! A worker that is suspended past its lease, at each message that it sends to the database in
//! turn, and resumed while another worker has the same orphans.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use makegood::pass;
use makegood::provider::Providers;
use makegood::store::Store;
use tokio::sync::Notify;

use super::plan::Moment;
use super::proxy::{Proxy, Then, before};
use crate::leftovers::stored;
use crate::world::{HOUR, World};

/// Longer than a lease.
const NAP: Duration = Duration::from_mins(20);
const SIDE_BY_SIDE: usize = 4;

/// A pass that is suspended at its `nth` message. Its leases expire; another pass claims, and asks
/// the provider. While that waits for the answer, the first is resumed and runs to its end; then
/// the other does. False: it had fewer messages.
async fn asleep_at(nth: u64, world: &mut World, proxy: &Proxy, url: &str) -> bool {
    let (refund, recover) = (format!("refund-{nth}"), format!("recover-{nth}"));
    let (failed, ok) = (format!("failed-{nth}"), format!("ok-{nth}"));
    // Charged after the last pass.
    world.pass_time(4 * HOUR);
    world.charge(&refund).job(&failed).insert().await;
    world.charge(&recover).job(&ok).insert().await;
    let given = world.balance_of("ada").await.1;
    let sleeper = Store::open(url, 4, Duration::from_secs(30)).await.unwrap();
    let other = std::mem::replace(&mut world.parts.store, sleeper.with_clock(world.clock.clone()));
    let trap = proxy.begin(Some(Moment::Message(nth)));
    let asleep = spawn(world);
    let held = tokio::select! {
        // First: a pass can end while a statement that it no longer waits for is held, and then
        // both are ready.
        biased;
        held = trap => held.unwrap(),
        () = over(&asleep) => {
            asleep.await.unwrap();
            world.parts.store = other;
            return false;
        }
    };
    world.pass_time(NAP);

    // A process of its own, which shares the provider's limits through the database only.
    let files = world.folder.path().join("providers");
    world.parts.store = other;
    world.parts.providers = Arc::new(Providers::load(Some(&files), world.clock.clone()).unwrap());
    let (asked, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&asked), Arc::clone(&answer));
    world.simulator.on_ask(Arc::new(move |job| {
        let (first, wait) = (job == ok && !tell.swap(true, Ordering::SeqCst), Arc::clone(&wait));
        Box::pin(async move {
            if first {
                wait.notified().await;
            }
        })
    }));
    let awake = spawn(world);
    // It waits for the answer, or for a lock of the suspended one, or it had nothing to do.
    let locked = "SELECT count(*) AS v FROM pg_stat_activity WHERE application_name = 'makegood' AND wait_event_type = 'Lock'
                  AND datname = current_database()";
    while !asked.load(Ordering::SeqCst) && !awake.is_finished() && world.number(locked).await == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Who asks from now on is not held up: it could be the first.
    asked.store(true, Ordering::SeqCst);
    held.go_on(Then::Forward);
    asleep.await.unwrap();
    answer.notify_one();
    awake.await.unwrap();

    // Left behind by a worker whose lease had expired.
    world.simulator.on_ask(Arc::new(|_| Box::pin(async {})));
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate(&refund, 0).await, "refunded provider_error", "{nth}");
    assert_eq!(world.fate(&recover, 0).await, "recovered output_available", "{nth}");
    assert_eq!(world.balance_of("ada").await.1, given + 10, "{nth}");
    // Every file that a row names is there, and no other.
    let named = world.texts("SELECT uri AS v FROM stored_outputs").await;
    let there: BTreeSet<String> = stored(world).into_iter().collect();
    let missing: Vec<&String> =
        named.iter().filter(|uri| !there.iter().any(|path| uri.ends_with(path))).collect();
    assert!(missing.is_empty() && named.len() == there.len(), "{nth}: {missing:?} of {there:?}");
    true
}

fn spawn(world: &World) -> tokio::task::JoinHandle<()> {
    let parts = world.parts.clone();
    tokio::spawn(async move {
        pass::run(&parts, World::orders(), |_| {}).await.unwrap();
    })
}

async fn over(pass: &tokio::task::JoinHandle<()>) {
    while !pass.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Between any two statements: also between the one that claims and the one that reads what was
/// claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_p16_a_worker_that_was_suspended_past_its_lease_at_any_moment_does_no_harm() {
    let next = AtomicU64::new(1);
    let lives = (0..SIDE_BY_SIDE).map(|_| async {
        let mut world = World::postgres().await;
        world.balance("ada", 0, 0).await;
        let (proxy, url) = before(&world).await?;
        loop {
            let nth = next.fetch_add(1, Ordering::SeqCst);
            if !asleep_at(nth, &mut world, &proxy, &url).await {
                return Some(nth);
            }
        }
    });
    let Some(fewer) = futures_util::future::join_all(lives).await.into_iter().min().flatten() else {
        return crate::postgres::not_tried("the server of MAKEGOOD_TEST_POSTGRES has no socket here");
    };
    eprintln!("asleep at each of {} messages", fewer - 1);
    assert!(fewer > 40, "{fewer}");
}
