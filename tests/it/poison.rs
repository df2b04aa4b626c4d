//! One job that ends every pass that asks about it, on both databases, with the built binary.
//!
//! The simulated provider tells the test which job is asked about, and the test kills the process
//! before it answers. So each death happens with exactly these jobs in flight.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use makegood::clock::Clock;
use makegood::store::Suspects;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::binary::{Ended, Makegood, makegood};
use crate::database::as_least_privileged;
use crate::late::{LEASE, another, detect};
use crate::world::{HOUR, MINUTE, World, on_both};

/// The provider's treatment of a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// None is answered.
    None,
    /// All are, but for the one that kills.
    Innocents,
}

/// Tells which jobs are asked about.
fn overheard(world: &World, answers: &Arc<Mutex<Answers>>) -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    let answers = Arc::clone(answers);
    world.simulator.on_ask(Arc::new(move |job| {
        let holds = *answers.lock().unwrap() == Answers::None || job == "ok-kill";
        let _ = sender.send(job);
        Box::pin(async move {
            if holds {
                std::future::pending::<()>().await;
            }
        })
    }));
    receiver
}

async fn run(world: &World) -> Makegood {
    makegood(&["run", "--output", "json"])
        .within(world.folder.path())
        .env("DATABASE_URL", &as_least_privileged(&world.database).await)
        .env("MAKEGOOD__PROVIDERS__DIR", "providers")
        .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true")
        .env("MAKEGOOD__STORAGE__URL", "file:./outputs")
}

/// Runs a pass, and kills it once `until` jobs and the one that kills have been asked about.
/// Returns all, in order.
async fn killed(world: &World, asked: &mut UnboundedReceiver<String>, until: usize) -> Vec<String> {
    let mut run = run(world).await.start();
    let mut jobs = Vec::new();
    while jobs.len() < until || !jobs.iter().any(|job| job == "ok-kill") {
        let next = tokio::time::timeout(Duration::from_mins(2), asked.recv()).await;
        jobs.push(next.unwrap_or_else(|_| panic!("only asked about {jobs:?}, {run:?}")).unwrap());
    }
    run.kill();
    let ended = run.ended().await;
    assert_eq!(ended.code, None, "{ended:?}");
    // The leases expire: of the orphans, of the provider's limits, and of detection.
    let past = world.at(Clock::System.now() - Duration::from_secs(1));
    world
        .run(&format!("UPDATE makegood_orphans SET leased_until = {past} WHERE leased_until IS NOT NULL"))
        .await;
    world.run("UPDATE makegood_provider_shares SET version = version + 1, holdings = '[]'").await;
    world.run("DELETE FROM makegood_cursors WHERE name = 'detecting'").await;
    jobs
}

fn poisoned(ended: &Ended) -> Vec<(String, String)> {
    let report: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let findings = report["findings"].as_array().unwrap().iter().filter(|each| each["kind"] == "poison");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings.map(|each| (text(&each["about"]), text(&each["detail"]))).collect()
}

on_both! {
    async fn a_job_that_ends_every_pass_is_retried_alone_and_last_and_decided_at_its_time(world) {
        world.clock.set(Clock::System.now());
        world.balance("ada", 0, 0).await;
        // The most urgent of all.
        world.charge("kill").job("ok-kill").age(3 * HOUR).insert().await;
        for nth in 0..3 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).age(2 * HOUR).insert().await;
        }
        let answers = Arc::new(Mutex::new(Answers::None));
        let mut asked = overheard(&world, &answers);
        let number = async |sql: &str| world.number(sql).await;

        // Two passes die with all four in flight: each of them may be to blame.
        for _ in 0..2 {
            let jobs: BTreeSet<String> = killed(&world, &mut asked, 4).await.into_iter().collect();
            assert_eq!(jobs.len(), 4, "{jobs:?}");
        }
        // New orphans are made good before any suspect is asked about. Then the suspects are, one
        // by one.
        *answers.lock().unwrap() = Answers::Innocents;
        world.charge("new").job("failed-new").age(HOUR / 2).failed().insert().await;
        assert_eq!(killed(&world, &mut asked, 1).await, ["failed-new", "ok-kill"]);
        assert_eq!(world.fate("new", 0).await, "refunded provider_error");
        assert_eq!(number("SELECT count(*) AS v FROM makegood_orphans WHERE state = 'open'").await, 4);
        // It has ended one pass more than the others: now it is the last.
        assert_eq!(killed(&world, &mut asked, 1).await, ["failed-0", "failed-1", "failed-2", "ok-kill"]);
        assert_eq!(number("SELECT count(*) AS v FROM makegood_refunds").await, 4);
        assert_eq!(number("SELECT count(*) AS v FROM makegood_orphans WHERE deaths > 0").await, 1, "the innocent are cleared");

        // While its lease lasts, other passes end well and name it.
        let live = world.at(Clock::System.now() + HOUR);
        world.run(&format!("UPDATE makegood_orphans SET leased_until = {live} WHERE leased_until IS NOT NULL")).await;
        let ended = run(&world).await.output().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let named = poisoned(&ended);
        assert_eq!(named.len(), 1, "{ended:?}");
        assert_eq!(named[0].0, "item kill/0");
        assert!(named[0].1.starts_with("3 passes died while it was in flight; it is retried alone and last"), "{named:?}");
        let past = world.at(Clock::System.now() - Duration::from_secs(1));
        world.run(&format!("UPDATE makegood_orphans SET leased_until = {past} WHERE leased_until IS NOT NULL")).await;

        // `refund_by` has passed and it was asked about for an hour, but only twice: it is asked
        // once more.
        let (hour, over) = (world.at(Clock::System.now() - HOUR), world.at(Clock::System.now() - MINUTE));
        world.run(&format!("UPDATE makegood_orphans SET first_asked_at = {hour}, refund_by = {over} WHERE charge_id = 'kill'")).await;
        assert_eq!(killed(&world, &mut asked, 1).await, ["ok-kill"]);
        assert_eq!(number("SELECT questions AS v FROM makegood_orphans WHERE charge_id = 'kill'").await, 2);
        // Three questions without an answer: it is decided without a fourth, and no late question
        // follows.
        let asks = world.simulator.asks("ok-kill");
        let ended = run(&world).await.output().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(poisoned(&ended)[0].0, "item kill/0");
        assert_eq!(world.fate("kill", 0).await, "refunded unconfirmed");
        assert_eq!(world.simulator.asks("ok-kill"), asks);
        assert_eq!(number("SELECT questions AS v FROM makegood_orphans WHERE charge_id = 'kill'").await, 3);
        assert_eq!(number("SELECT count(*) AS v FROM makegood_late_questions").await, 0);
        assert_eq!(number("SELECT count(*) AS v FROM makegood_refunds").await, 5);
        world.books_balance().await;
        assert!(poisoned(&run(&world).await.output().await).is_empty());
    }
}

on_both! {
    async fn a_lease_that_is_not_given_back_counts_and_a_suspect_is_claimed_with_its_job_alone(world) {
        world.balance("ada", 0, 0).await;
        world.charge("a").job("failed-a").drawn(0, 20).items(&[10, 10]).insert().await;
        world.charge("b").job("failed-b").insert().await;
        detect(&world).await;
        let claim = async || {
            world.store.queue_due("replicate", world.now(), 1_000).await.unwrap();
            world.store.claim("replicate", world.now(), LEASE, 10).await.unwrap().cases
        };
        let alone = async |which| world.store.claim_suspect("replicate", world.now(), LEASE, which).await.unwrap().cases;
        let deaths = async || world.texts("SELECT charge_id || deaths AS v FROM makegood_orphans ORDER BY id").await;

        // A lease that was given back counts no death.
        let cases = claim().await;
        let leases: Vec<(i64, i64)> = cases.iter().map(|case| (case.facts.orphan.id, case.token)).collect();
        world.store.release(&leases, None).await.unwrap();
        assert_eq!(claim().await.len(), 3);
        assert_eq!(deaths().await, ["a0", "a0", "b0"]);
        world.pass_time(LEASE);
        assert!(alone(Suspects::Due).await.is_empty(), "one death proves nothing");
        let cases = claim().await;
        assert_eq!((cases.len(), deaths().await), (3, vec!["a1".to_owned(), "a1".to_owned(), "b1".to_owned()]));
        // One of its items was left by a copy that was killed: the sweep ends its lease, and counts
        // like a claim.
        let item = &cases[0];
        let begun = world.at(world.now());
        world.run(&format!(
            "INSERT INTO makegood_uploads (orphan_id, lease_token, nth, charge_id, output_index, storage, path, uri, begun_at) \
             VALUES ({}, {}, 0, 'a', 0, 'file:/x', 'x', 'file:/x/x', {begun})", item.facts.orphan.id, item.token
        )).await;
        world.pass_time(LEASE);
        world.store.leftovers("file:/x", world.now() - HOUR, 10).await.unwrap();
        assert_eq!(deaths().await, ["a2", "a1", "b1"]);
        // The one that has no lease any more does not let the others of its job in.
        assert!(claim().await.is_empty());
        assert_eq!(world.store.suspect_providers(world.now()).await.unwrap(), ["replicate"]);
        let named = world.store.suspects(10).await.unwrap();
        assert_eq!(named.iter().map(|each| each.deaths).collect::<Vec<_>>(), [2, 2, 2]);
        assert!(alone(Suspects::AskedEnough).await.is_empty());

        let mut jobs = BTreeSet::new();
        for _ in 0..2 {
            let cases = alone(Suspects::Due).await;
            let charges: BTreeSet<String> = cases.iter().map(|case| case.facts.orphan.item.charge_id.clone()).collect();
            assert_eq!(charges.len(), 1);
            assert!(alone(Suspects::AskedEnough).await.is_empty());
            jobs.insert((charges.into_iter().next().unwrap(), cases.len()));
        }
        assert_eq!(jobs, BTreeSet::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
        assert!(alone(Suspects::Due).await.is_empty() && claim().await.is_empty());
        let other = another(&world).await;
        assert!(other.claim("replicate", world.now(), LEASE, 10).await.unwrap().cases.is_empty());
    }
}

on_both! {
    async fn a_late_question_that_ends_two_passes_is_not_asked_again(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c").job("unknown-c").insert().await;
        world.pass_time(2 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("c", 0).await, "refunded never_returned");
        world.pass_time(7 * HOUR);
        for _ in 0..2 {
            assert_eq!(world.store.claim_late("replicate", LEASE, 10).await.unwrap().cases.len(), 1);
            world.pass_time(LEASE);
        }
        let asks = world.simulator.asks("unknown-c");
        world.pass().await;
        assert_eq!(world.simulator.asks("unknown-c"), asks);
        assert_eq!(world.texts("SELECT ended_because AS v FROM makegood_late_questions").await, ["asked_enough"]);
    }
}
