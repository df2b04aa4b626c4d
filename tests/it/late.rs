//! Events around the moment of settle: outputs stored while an orphan is being settled (P20, a late
//! output closes the case), jobs that turn out to have succeeded after their refund, and the
//! recovered output in its project (P16 recovered, P22 in the history).
//!
//! If two connections race, each order is forced by a lock; the test waits until it sees the other
//! connection wait for it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod asked_again;
mod in_settle;
mod joins;
mod reported;
mod rights;
mod stages;
mod store_output;

use std::sync::Arc;
use std::time::Duration;

use makegood::brake::BrakeContext;
use makegood::evidence::{Evidence, Source};
use makegood::policy::{self, Action, Decision, Reason};
use makegood::provider::{AskOutcome, Question};
use makegood::recovery::{CopiedFile, CopyRequest, ObjectKey};
use makegood::store::{Case, Outcome, SettleRules, Settlement, Store, Stuck};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::database::as_least_privileged;
use crate::s3::Notes;
use crate::world::{HOUR, World};

pub const LEASE: Duration = Duration::from_mins(15);
pub const REFUND: Decision = Decision { action: Action::Refund, reason: Reason::ProviderError, rule: 6 };

/// Opens orphans, as a pass begins.
pub async fn detect(world: &World) {
    crate::world::detect(&world.parts, None, world.now()).await;
}

/// A store of its own, as another process would have, with the rights that makegood asks for.
pub async fn another(world: &World) -> Store {
    let url = as_least_privileged(&world.database).await;
    // Far longer than any test holds a lock: it waits for it.
    let (statement, lock) = (Duration::from_mins(2), Duration::from_mins(1));
    let store = Store::open_waiting(&url, 4, statement, lock).await.unwrap();
    store.with_clock(world.clock.clone())
}

pub async fn claim(world: &World) -> Vec<Case> {
    world.store.queue_due("replicate", world.now(), 1_000).await.unwrap();
    let claimed = world.store.claim("replicate", world.now(), LEASE, 100).await.unwrap();
    assert!(claimed.unreadable.is_empty(), "{:?}", claimed.unreadable);
    claimed.cases
}

pub fn rules(world: &World) -> SettleRules {
    let parts = &world.parts;
    SettleRules {
        brake: BrakeContext::default(),
        dating: makegood::detect::dating(&parts.rules.detect, &parts.providers),
        late: parts.rules.late,
        held_for: HOUR,
        not_before: None,
        pass_id: None,
        decided_by: "makegood".to_owned(),
        stuck: Stuck::default(),
        cannot_post: None,
    }
}

pub fn settlement(world: &World, case: Case, decision: Decision) -> Settlement {
    Settlement { case, decision, evidence: None, copied: None, look_again: world.now() + HOUR, detail: None }
}

/// The provider's answer about a claimed item's job.
async fn ask(world: &World, case: &Case) -> Arc<Evidence> {
    let job = case.facts.record.item.as_ref().unwrap().job.clone().unwrap();
    let question = Question {
        provider: job.provider,
        job_id: job.job_id,
        model: case.facts.record.charge.model.clone(),
        items: case.facts.share.items,
        urgent: false,
    };
    match world.parts.providers.ask(&question).await {
        AskOutcome::Answered(evidence) => Arc::new(Evidence { asked_at: world.now(), ..evidence }),
        AskOutcome::NotAsked { .. } => panic!("nobody was asked"),
    }
}

fn decide(world: &World, case: &Case, evidence: &Evidence) -> Decision {
    policy::decide(&case.facts, Some(evidence), &world.parts.rules.policy, world.now())
}

/// Brings the first offered file home, as the pass would, and leaves it to be settled.
async fn copy(world: &World, case: &Case, evidence: &Evidence) -> CopiedFile {
    let item = &case.facts.orphan.item;
    let key = ObjectKey::new(&item.charge_id, item.output_index, case.token);
    let source: &Source = &evidence.outputs[0].source;
    let provider = world.parts.providers.get("replicate").unwrap();
    let request = CopyRequest {
        source,
        allowed_hosts: &provider.output_hosts,
        key_hosts: &provider.key_hosts,
        auth: None,
        storage: &world.parts.storage,
        key: &key,
        media: &[],
        max_bytes: None,
        time_budget: None,
        memory: None,
        upload_log: Arc::new(Notes::default()),
    };
    world.parts.fetcher.copy(request).await.unwrap()
}

pub async fn settle(store: &Store, world: &World, settlement: Settlement) -> Outcome {
    store.settle(&[settlement], &rules(world)).await.unwrap().remove(0)
}

/// Stores the output of item 0 of a charge whose job is `job`, as the platform would.
pub fn output(world: &World, charge: &str, job: &str) -> String {
    world.output_row(
        &format!("late-{charge}"),
        Some((charge, 0)),
        ("replicate", job, 0),
        (&format!("p-{charge}"), &format!("n-{charge}")),
    )
}

/// The record of a late success: kind, who noticed it, and the output or the answer's verdict.
async fn late_successes(world: &World) -> Vec<String> {
    world
        .texts(
            "SELECT l.charge_id || '/' || l.output_index || ' ' || l.kind || ' ' || l.noticed_by || ' ' || coalesce(l.stored_output_id, a.verdict) AS v
             FROM makegood_late_successes l LEFT JOIN makegood_answers a ON a.id = l.answer_id ORDER BY 1",
        )
        .await
}

async fn counted(world: &World, kind: &str) -> i64 {
    world
        .number(&format!(
            "SELECT sum(value) AS v FROM makegood_counters WHERE metric = 'late_successes' AND label_b = '{kind}'"
        ))
        .await
}

/// A connection to the world's PostgreSQL beside all pools.
pub async fn connection(world: &World) -> PgConnection {
    PgConnection::connect(&world.database.url).await.unwrap()
}

pub async fn on(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

async fn text(connection: &mut PgConnection, sql: &str) -> Result<String, sqlx::Error> {
    sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.map(|row| row.get(0))
}

/// Waits until a statement that holds `words` is seen to wait for a lock.
pub async fn seen_waiting(world: &World, words: &str) {
    let waiting = format!(
        "SELECT count(*) AS v FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%{words}%' AND pid <> pg_backend_pid()"
    );
    for _ in 0..3000 {
        if world.number(&waiting).await > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody waits for a lock with `{words}`");
}

/// The platform's own trigger waits for the advisory lock 4711, so settle stops between its last
/// check and its commit.
pub const WAIT_IN_LEDGER: &str = "
    CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$;
    CREATE TRIGGER wait_here BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION wait_here();";
