//! Filters that loop or use too much memory, because of the provider's file or because of an
//! answer, with the built binary. The other provider's charges are settled meanwhile, the readings
//! are stopped, the pass obeys SIGTERM, and no process is left.
//!
//! The tests observe the order of events and no times. A filter that must not be stopped by its
//! bound has a bound of an hour, which no run here reaches.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;
use std::time::Duration;

use makegood::clock::Clock;
use makegood::demo::simulator::Canned;
use makegood::evidence::Verdict;
use makegood::provider::{AskOutcome, FilterBounds, Providers, Question};
use serde_json::json;

use crate::binary::{Makegood, Run, makegood};
use crate::database::as_least_privileged;
use crate::world::{World, on_both};

/// Reads what the answer's `state` asks for: loops, eats memory, recurses, or is content.
const READ: &str = r#"
def spin: spin;
def dig: 1 + dig;
if .body.state == "spin" then spin
elif .body.state == "count" then {verdict: "failed", message: ([range(.body.count)] | length | tostring)}
elif .body.state == "dig" then {verdict: "failed", message: (dig | tostring)}
elif .body.state == "double" then {verdict: "failed", message: (reduce range(.body.count) as $i ("x"; . + .))}
else {verdict: "unreadable"} end"#;

const HEALTHY: [&str; 3] = ["good-1", "good-2", "good-3"];
const SPINNING: [&str; 3] = ["spin-1", "spin-2", "spin-3"];
const EATING: [&str; 3] = ["count-1", "double-2", "dig-3"];

/// A provider file with this filter, which asks the simulator.
fn write_file(world: &World, name: &str, read: &str) -> PathBuf {
    let file = world.folder.path().join(format!("providers/{name}.toml"));
    let text = format!(
        "[provider]\nname = \"{name}\"\nretries = 0\noutput_hosts = []\n[ask]\n\
         request = \"GET {}/replicate/v1/predictions/{{job}}\"\nread = '''{read}'''\n",
        world.simulator.base_url()
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// Three charges of a healthy provider, three whose answers make a filter loop, and three whose
/// answers make one use too much memory.
async fn nine_charges(world: &World) {
    world.clock.set(Clock::System.now());
    world.balance("ada", 0, 0).await;
    for (provider, charges) in [("spins", SPINNING), ("eats", EATING)] {
        write_file(world, provider, READ);
        for charge in charges {
            let (state, _) = charge.split_once('-').unwrap();
            let answer = json!({"state": state, "count": 2_000_000_000});
            world.simulator.set_answer(charge, Canned::json(200, &answer));
            world.charge(charge).provider(provider, "m").job(charge).insert().await;
        }
    }
    for charge in HEALTHY {
        world.charge(charge).job(&format!("failed-{charge}")).insert().await;
    }
}

async fn run(world: &World, filter_time: &str) -> Makegood {
    makegood(&["run", "--output", "json"])
        .within(world.folder.path())
        .env("DATABASE_URL", &as_least_privileged(&world.database).await)
        .env("MAKEGOOD__PROVIDERS__DIR", "providers")
        .env("MAKEGOOD__PROVIDERS__FILTER_TIME", filter_time)
        .env("MAKEGOOD__STORAGE__URL", "file:./outputs")
}

/// Waits until it is so; only a guard against waiting for ever has a time.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(4), waited).await.is_ok(), "never: {what}");
}

/// The workers of a process that are alive, by process id.
fn workers_of(process: u32) -> Vec<u32> {
    let parent = format!("PPid:\t{process}");
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_ours = |id: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        status.lines().any(|line| line == parent) && command.ends_with("filter-worker\0") && !is_gone(*id)
    };
    processes.filter(is_ours).collect()
}

/// A zombie process holds nothing.
fn is_gone(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/status")).map_or(true, |status| status.contains("State:\tZ"))
}

/// CPU time of a process, in clock ticks.
fn ticks(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(11).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

async fn all_are(world: &World, charges: &[&str], fate: &str) -> bool {
    for charge in charges {
        if world.fate(charge, 0).await != fate {
            return false;
        }
    }
    true
}

/// A run that has settled everything but what loops, with the worker that loops.
async fn looping(world: &World) -> (Run, u32) {
    let run = run(world, "1h").await.start();
    until("the healthy provider's charges are settled", || {
        all_are(world, &HEALTHY, "refunded provider_error")
    })
    .await;
    until("what eats memory is stopped", || all_are(world, &EATING, "open unreadable")).await;
    until("an answer that makes the filter loop has come", async || world.simulator.asks("spin-1") > 0).await;
    until("a filter loops", async || workers_of(run.id().unwrap()).iter().any(|id| ticks(*id) > 20)).await;
    let worker = workers_of(run.id().unwrap()).into_iter().find(|id| ticks(*id) > 20).unwrap();
    (run, worker)
}

async fn messages(world: &World, charge: &str) -> String {
    let sql = format!(
        "SELECT message AS v FROM makegood_answers WHERE provider_job_id = '{charge}' AND message IS NOT NULL"
    );
    world.texts(&sql).await.join("\n")
}

on_both! {
    /// P15 (made good within 24 hours): also if the filter of another provider does not end.
    async fn p15_filters_that_never_end_delay_no_other_and_the_pass_obeys_sigterm(world) {
        nine_charges(&world).await;
        let (mut run_one, worker) = looping(&world).await;
        assert!(!run_one.has_ended(), "the filters never end");
        let answered = world.number("SELECT count(*) AS v FROM makegood_answers WHERE provider = 'spins'").await;
        assert_eq!(answered, 0, "nothing is known of what loops");
        assert_eq!(std::fs::read(format!("/proc/{worker}/environ")).unwrap(), b"", "no variable, no secret");

        run_one.terminate().await;
        let ended = run_one.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("\"stopped\":3"), "given back: {ended:?}");
        until("the worker is gone", async || is_gone(worker)).await;

        // With a bound that is passed: a safe wait, which names the filter and the bound.
        let ended = run(&world, "1s").await.output().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(all_are(&world, &SPINNING, "open unreadable").await, "{ended:?}");
        for charge in SPINNING {
            let message = messages(&world, charge).await;
            assert!(message.contains("`ask.read`") && message.contains("1s of CPU time (`providers.filter_time`)"), "{message}");
        }
        for charge in EATING {
            let message = messages(&world, charge).await;
            assert!(message.contains("`ask.read`") && message.contains("80 MiB of memory (`providers.filter_memory`)"), "{message}");
        }
        assert!(ended.stdout.contains("\"kind\":\"unreadable\""), "a finding: {ended:?}");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 3, "the healthy ones alone");
        world.books_balance().await;
    }
}

#[tokio::test]
async fn no_worker_outlives_a_process_that_is_killed_while_a_filter_loops() {
    let world = World::sqlite().await;
    nine_charges(&world).await;
    let (mut run, worker) = looping(&world).await;
    run.kill();
    run.ended().await;
    until("the worker is gone", async || is_gone(worker)).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_is_replaced_and_one_that_gets_sigterm_goes_on() {
    let world = World::sqlite().await;
    let bounds = FilterBounds {
        time: Duration::from_secs(5),
        memory: 64 << 20,
        executable: Some(env!("CARGO_BIN_EXE_makegood").into()),
    };
    let files = world.folder.path().join("providers");
    let providers = Providers::load_bounded(Some(&files), world.clock.clone(), &bounds).unwrap();
    let question = Question {
        provider: "replicate".to_owned(),
        job_id: "failed-1".to_owned(),
        model: "m".to_owned(),
        items: 1,
        urgent: false,
    };
    let only_worker = || {
        let workers = workers_of(std::process::id());
        assert_eq!(workers.len(), 1, "{workers:?}");
        workers[0]
    };
    let mut before = None;
    for (signal, is_replaced) in [(None, false), (Some("TERM"), false), (Some("KILL"), true)] {
        if let Some(signal) = signal {
            let status = std::process::Command::new("kill")
                .args([format!("-{signal}"), only_worker().to_string()])
                .status();
            assert!(status.unwrap().success(), "SIG{signal} could not be sent");
        }
        let asked = providers.ask(&question).await;
        assert!(
            matches!(&asked, AskOutcome::Answered(answer) if answer.verdict == Verdict::Failed),
            "SIG{}: {asked:?}",
            signal.unwrap_or_default()
        );
        let worker = only_worker();
        assert_eq!(before.is_some_and(|before| before != worker), is_replaced, "{signal:?}");
        before = Some(worker);
    }
    providers.stop_idle_workers().await;
    assert!(workers_of(std::process::id()).is_empty(), "idle ones are ended");
}

#[tokio::test]
async fn a_file_whose_filter_loops_is_refused_when_it_is_loaded() {
    for (key, file) in [
        ("ask.read", "read = 'def f: f; f'"),
        ("ask.read", "read = '[range(2000000000)] | {verdict: \"running\"}'"),
        ("ask.let.path", "read = '{verdict: \"running\"}'\nlet.path = 'def f: f; f'"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[provider]\nname = \"acme\"\noutput_hosts = []\n[ask]\nrequest = \"GET https://acme.example/{{job}}\"\n{file}\n"
        );
        std::fs::write(folder.path().join("acme.toml"), text).unwrap();
        let ended = makegood(&["provider", "test", "acme", "--answer", "-"])
            .env("MAKEGOOD__PROVIDERS__DIR", folder.path().to_str().unwrap())
            .env("MAKEGOOD__PROVIDERS__FILTER_TIME", "1s")
            .output()
            .await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let bound =
            if file.contains("range") { "`providers.filter_memory`" } else { "`providers.filter_time`" };
        for word in [
            "acme.toml",
            &format!("`{key}`: must be a filter that terminates"),
            "the body `{}` with HTTP 200",
            bound,
        ] {
            assert!(ended.stderr.contains(word), "{word}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn a_kept_answer_that_makes_a_filter_loop_is_shown_as_unreadable() {
    let world = World::sqlite().await;
    write_file(&world, "spins", READ);
    std::fs::write(world.folder.path().join("answer.json"), r#"{"state": "spin"}"#).unwrap();
    let ended = makegood(&["provider", "test", "spins", "--answer", "answer.json"])
        .within(world.folder.path())
        .env("MAKEGOOD__PROVIDERS__DIR", "providers")
        .env("MAKEGOOD__PROVIDERS__FILTER_TIME", "1s")
        .output()
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("unreadable") && ended.stdout.contains("providers.filter_time"),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("refund provider_error"), "{ended:?}");
}
