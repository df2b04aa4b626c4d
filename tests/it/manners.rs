//! A provider that hangs never delays another one: through the whole pipeline, with a provider that
//! accepts connections and never answers, and with one whose files never arrive.
//!
//! The tests measure no time. The others have to be done *while* the one still hangs, and it hangs
//! until the test ends it. For the figures of the same experiment on the built binary:
//! `cargo test -- --ignored --nocapture figures_of`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use makegood::demo::simulator::{Canned, Simulator, write_provider_files};
use makegood::pass;
use makegood::provider::Providers;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::binary::makegood;
use crate::world::{World, on_both};

const JOBS: i64 = 40;
/// Only a guard against waiting for ever.
const PATIENCE: Duration = Duration::from_mins(3);

/// Takes connections and never answers, until it is dropped.
struct Hanging {
    port: u16,
    taken: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Hanging {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let server = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                kept.push(stream);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { port, taken, server }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn charges(world: &World, provider: &str, jobs: i64) {
    for n in 0..jobs {
        let job = match provider {
            "veo-gemini" => format!("models/veo/operations/ok-{n}"),
            _ => format!("ok-{n}"),
        };
        world
            .charge(&format!("{provider}-{n}"))
            .provider(provider, "acme/still-life")
            .job(&job)
            .insert()
            .await;
    }
}

async fn count(world: &World, provider: &str, state: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) AS v FROM makegood_orphans WHERE charge_id LIKE '{provider}-%' AND state = '{state}'"
    );
    world.number(&sql).await
}

/// Waits until all of a provider's orphans are recovered.
async fn until_recovered(world: &World, provider: &str, jobs: i64) {
    let began = Instant::now();
    while count(world, provider, "recovered").await < jobs {
        assert!(began.elapsed() < PATIENCE, "{provider} waits for another provider");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Redirects a provider's questions to another address, with other limits.
fn turn(world: &mut World, provider: &str, port: u16, keys: &str) {
    let dir = world.folder.path().join("providers");
    let path = dir.join(format!("{provider}.toml"));
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text
        .lines()
        .filter(|line| !line.starts_with("max_concurrency"))
        .map(|line| line.replace(&world.simulator.base_url(), &format!("http://127.0.0.1:{port}")) + "\n")
        .collect::<String>()
        .replace("[provider]\n", &format!("[provider]\n{keys}"));
    std::fs::write(path, text).unwrap();
    world.parts.providers = Arc::new(Providers::load(Some(&dir), world.clock.clone()).unwrap());
}

on_both! {
    async fn p15_a_provider_that_never_answers_delays_no_other_and_costs_the_rest_no_attempt(world) {
        let mut world = world;
        let hanging = Hanging::start().await;
        turn(&mut world, "fal", hanging.port, "max_concurrency = 4\ncircuit_opens_after = 3\ntimeout = \"1h\"\nread_timeout = \"1h\"\n");
        for provider in ["replicate", "veo-gemini", "fal"] {
            charges(&world, provider, JOBS).await;
        }
        let (parts, orders) = (world.parts.clone(), World::orders());
        let pass = tokio::spawn(async move { pass::run(&parts, orders, |_| {}).await.unwrap() });
        until_recovered(&world, "replicate", JOBS).await;
        until_recovered(&world, "veo-gemini", JOBS).await;
        assert_eq!((count(&world, "fal", "open").await, hanging.taken()), (JOBS, 4), "four are asked, all wait");
        assert!(!pass.is_finished());

        // Its connections break: the questions under way fail, the circuit opens, and the rest is
        // not asked.
        drop(hanging);
        let report = pass.await.unwrap();
        assert_eq!(count(&world, "fal", "open").await, JOBS, "{report:?}");
        let waits = &report.outcomes["wait"];
        let (unreachable, left_alone) = (waits["unreachable"], waits["circuit_open"]);
        assert_eq!(unreachable + left_alone, u64::try_from(JOBS).unwrap(), "{report:?}");
        // The three that opened it, and those that held a slot meanwhile.
        assert!((4..=8).contains(&unreachable), "{report:?}");
        let unasked = world
            .number("SELECT count(*) AS v FROM makegood_orphans WHERE charge_id LIKE 'fal-%' AND questions = 0")
            .await;
        assert_eq!(u64::try_from(unasked).unwrap(), left_alone, "an open circuit costs no attempt");
        assert_eq!(report.total("refund"), 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_next_process_begins_with_one_question_if_the_circuit_was_open(world) {
        let mut world = world;
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = gone.local_addr().unwrap().port();
        drop(gone);
        charges(&world, "fal", JOBS).await;
        let down = "max_concurrency = 2\ncircuit_opens_after = 5\n";
        turn(&mut world, "fal", port, down);
        let opened = world.pass().await.outcomes["wait"].clone();
        assert!(opened["unreachable"] >= 5 && opened["circuit_open"] > 0, "{opened:?}");
        let until = "SELECT count(*) AS v FROM makegood_provider_state WHERE provider = 'fal' AND verdict = 'unreachable' \
                     AND message IS NOT NULL AND circuit_open_until > asked_at";
        assert_eq!(world.number(until).await, 1);

        // Another process, within the pause: not one question.
        let dir = world.folder.path().join("providers");
        let fresh = || Arc::new(Providers::load(Some(&dir), world.clock.clone()).unwrap());
        world.parts.providers = fresh();
        world.pass_time(Duration::from_secs(20));
        let within = world.pass().await;
        assert_eq!(within.outcomes.get("wait").and_then(|waits| waits.get("unreachable")), None, "{within:?}");
        // After the pause one question tries the provider, and all others wait for its answer.
        world.parts.providers = fresh();
        world.pass_time(Duration::from_hours(1));
        let tried = world.pass().await.outcomes["wait"].clone();
        assert_eq!(tried["unreachable"], 1, "{tried:?}");

        // It is back: one question finds that out, and the rest follows as soon as they are due
        // again.
        let text = std::fs::read_to_string(dir.join("fal.toml")).unwrap();
        let there = text.replace(&format!("http://127.0.0.1:{port}"), &world.simulator.base_url());
        std::fs::write(dir.join("fal.toml"), there).unwrap();
        world.parts.providers = fresh();
        for _ in 0..3 {
            world.pass_time(Duration::from_mins(30));
            world.pass().await;
        }
        assert_eq!(count(&world, "fal", "recovered").await, JOBS);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_provider_state WHERE circuit_open_until IS NULL").await, 1);
    }
}

on_both! {
    async fn p15_files_that_never_arrive_delay_no_other_files(world) {
        let mut world = world;
        world.parts.rules.copies = 2;
        let hanging = Hanging::start().await;
        for provider in ["replicate", "veo-gemini"] {
            charges(&world, provider, 6).await;
        }
        for n in 0..6 {
            let url = format!("http://127.0.0.1:{}/{n}.png", hanging.port);
            let body = serde_json::json!({"id": "j", "status": "succeeded", "output": url, "error": null});
            world.simulator.set_answer(&format!("ok-{n}"), Canned::json(200, &body));
        }
        // Veo's jobs end in the same words; they are asked for as they are.
        let veo = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        turn(&mut world, "veo-gemini", veo.address().port(), "");
        let (parts, orders) = (world.parts.clone(), World::orders());
        let stop = orders.stop.clone();
        let pass = tokio::spawn(async move { pass::run(&parts, orders, |_| {}).await.unwrap() });
        until_recovered(&world, "veo-gemini", 6).await;
        assert_eq!(count(&world, "replicate", "open").await, 6);
        assert!(!pass.is_finished());
        drop(hanging);
        stop.request();
        let report = pass.await.unwrap();
        assert_eq!((report.total("refund"), count(&world, "replicate", "open").await), (0, 6), "{report:?}");
    }
}

on_both! {
    async fn p15_files_without_memory_wait_for_it_and_all_are_recovered(world) {
        let mut world = world;
        // Less than the smallest file: one at a time, and all others ask again.
        (world.parts.rules.copies, world.parts.rules.memory) = (4, 1);
        for provider in ["replicate", "veo-gemini"] {
            charges(&world, provider, 12).await;
        }
        let report = world.pass().await;
        assert_eq!((report.total("recover"), report.total("wait")), (24, 0), "{report:?}");
        world.books_balance().await;
    }
}

on_both! {
    async fn a_refused_key_is_reported_at_once_and_is_no_verdict(world) {
        charges(&world, "replicate", 3).await;
        for n in 0..3 {
            // Words that would be a verdict, were it not for the status.
            let body = serde_json::json!({"id": "j", "status": "failed", "output": null, "error": "bad key"});
            world.simulator.set_answer(&format!("ok-{n}"), Canned::json([401, 403, 401][n], &body));
        }
        let report = world.pass().await;
        assert_eq!(report.outcomes["wait"]["unauthorized"], 3, "{report:?}");
        let told: Vec<_> = report.findings.iter().filter(|finding| finding.kind == "key_refused").collect();
        assert!(!told.is_empty() && told.iter().all(|finding| finding.about == "provider replicate"), "{report:?}");
        assert!(report.to_text().contains("key_refused provider replicate"), "{}", report.to_text());
        let stats = world.parts.providers.request_stats();
        let replicate = stats.iter().find(|stats| stats.provider == "replicate").unwrap();
        assert_eq!(replicate.of(makegood::provider::RequestOutcome::Unauthorized), 3);
    }
}

/// Jobs of two or three providers, one of which may hang, in one run of the built binary: the
/// duration of each.
async fn run_with(hanging: Option<&Hanging>, providers: &[&str]) -> Vec<(String, f64)> {
    const EACH: usize = 200;
    let directory = tempfile::tempdir().unwrap();
    let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let files = directory.path().join("providers");
    write_provider_files(&files, &simulator.base_url()).unwrap();
    if let Some(hanging) = hanging {
        let path = files.join("fal.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let port = format!("http://127.0.0.1:{}", hanging.port);
        std::fs::write(path, text.replace(&simulator.base_url(), &port)).unwrap();
    }
    let database = directory.path().join("m.db");
    let url = format!("sqlite://{}", database.display());
    let run = |arguments: &[&str]| {
        makegood(arguments)
            .within(directory.path())
            .env("DATABASE_URL", &url)
            .env("MAKEGOOD__PROVIDERS__DIR", &files.display().to_string())
            .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true")
    };
    let migrated = run(&["migrate", "--reference-schema"]).output().await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let at = (makegood::clock::Clock::System.now() - Duration::from_hours(2)).micros();
    let mut sql = "INSERT INTO accounts VALUES ('a', 'user');".to_owned();
    for provider in providers {
        for n in 0..EACH {
            let id = format!("{provider}-{n}");
            let job = if *provider == "veo-gemini" {
                format!("models/v/operations/ok-{n}")
            } else {
                format!("ok-{n}")
            };
            // Writing to a String cannot fail.
            let _ = write!(
                sql,
                "INSERT INTO charges VALUES ('{id}', 'a', 'p', 'n-{id}', '{provider}', 'acme/x', '{job}', {at}, 0, 1, NULL);
                 INSERT INTO charge_items VALUES ('{id}', 0, 1, NULL, NULL, NULL);"
            );
        }
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    let began = Instant::now();
    let began_at = makegood::clock::Clock::System.now().micros();
    let ended = run(&["run", "--output", "json"]).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut took = vec![("the run".to_owned(), began.elapsed().as_secs_f64())];
    for provider in providers {
        let sql = format!(
            "SELECT max(resolved_at), count(resolved_at) FROM makegood_orphans WHERE charge_id LIKE '{provider}-%'"
        );
        let row: (Option<i64>, i64) =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap();
        let last = row.0.map_or(f64::NAN, |at| {
            Duration::from_micros(u64::try_from(at - began_at).unwrap()).as_secs_f64()
        });
        took.push((format!("{provider}: {} of {EACH} resolved, the last after", row.1), last));
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures, of a release build best"]
async fn figures_of_the_hanging_provider() {
    for round in 1..=3 {
        for (what, took) in run_with(None, &["replicate", "veo-gemini"]).await {
            println!("round {round}, two alone:          {what} {took:.2} s");
        }
        let hanging = Hanging::start().await;
        for (what, took) in run_with(Some(&hanging), &["replicate", "veo-gemini", "fal"]).await {
            println!("round {round}, beside one that hangs: {what} {took:.2} s");
        }
        println!("round {round}: the one that hangs took {} connections", hanging.taken());
    }
}
