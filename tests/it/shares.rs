//! Processes share a provider's limits through the database. Passes run side by side, each with
//! providers of its own, as two processes have them, against providers that count the concurrent
//! requests over real HTTP.
//!
//! The tests measure no time. A gate holds back every question until the test opens it; everything
//! else waits for rows in the database.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use makegood::demo::simulator::{Simulator, provider_files};
use makegood::pass::{self, Parts};
use makegood::provider::Providers;
use makegood::report::PassReport;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::world::{World, on_both};

const JOBS: i64 = 24;
/// Only a guard against waiting for ever.
const PATIENCE: Duration = Duration::from_mins(2);

/// How many questions are under way at all providers together.
#[derive(Default)]
struct Counted {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One process: its providers, and the provider that it alone asks.
struct Process {
    parts: Parts,
    _simulator: Simulator,
    /// A permit lets one question through.
    gate: Arc<Semaphore>,
    asked: Arc<AtomicUsize>,
}

impl Process {
    /// `keys`: the limits of `replicate` in its provider file.
    async fn new(world: &World, counted: &Arc<Counted>, keys: &str) -> Self {
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
        let (held, count, counted) = (Arc::clone(&gate), Arc::clone(&asked), Arc::clone(counted));
        simulator.on_ask(Arc::new(move |_| {
            let (gate, asked, counted) = (Arc::clone(&held), Arc::clone(&count), Arc::clone(&counted));
            Box::pin(async move {
                asked.fetch_add(1, Ordering::SeqCst);
                let now = counted.now.fetch_add(1, Ordering::SeqCst) + 1;
                counted.most.fetch_max(now, Ordering::SeqCst);
                // Held also if the client has given up: the provider still works on it.
                gate.acquire().await.unwrap().forget();
                counted.now.fetch_sub(1, Ordering::SeqCst);
            })
        }));
        let mut parts = world.parts.clone();
        parts.providers = providers(world, &simulator.base_url(), keys);
        Self { parts, _simulator: simulator, gate, asked }
    }

    fn pass(&self) -> JoinHandle<PassReport> {
        let parts = self.parts.clone();
        tokio::spawn(async move { pass::run(&parts, World::orders(), |_| {}).await.unwrap() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Its value in the database; -1: no row.
    async fn slots(&self, world: &World) -> i64 {
        for each in holdings(world).await {
            if each["holder"] == self.parts.providers.holder() {
                return each["slots"].as_i64().unwrap();
            }
        }
        -1
    }
}

fn providers(world: &World, base_url: &str, keys: &str) -> Arc<Providers> {
    let dir = tempfile::tempdir_in(world.folder.path()).unwrap();
    for (name, text) in provider_files(base_url) {
        let is_limit =
            |line: &&str| line.starts_with("max_concurrency") || line.starts_with("requests_per_second");
        let text = text.lines().filter(|line| !is_limit(line)).collect::<Vec<_>>().join("\n");
        let keys = format!("[provider]\nretries = 0\ntimeout = \"1h\"\nread_timeout = \"1h\"\n{keys}");
        std::fs::write(dir.path().join(format!("{name}.toml")), text.replace("[provider]\n", &keys)).unwrap();
    }
    Arc::new(Providers::load(Some(dir.path()), world.clock.clone()).unwrap())
}

async fn holdings(world: &World) -> Vec<serde_json::Value> {
    let sql = "SELECT holdings AS v FROM makegood_provider_shares WHERE provider = 'replicate'";
    let text = world.texts(sql).await.pop().unwrap_or_else(|| "[]".to_owned());
    serde_json::from_str(&text).unwrap()
}

async fn charges(world: &World) {
    for n in 0..JOBS {
        let (id, job) = (format!("replicate-{n}"), format!("ok-{n}"));
        world.charge(&id).provider("replicate", "acme/still-life").job(&job).insert().await;
    }
}

/// Waits until something is so.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn recovered_items(world: &World) -> i64 {
    world.number("SELECT count(*) AS v FROM makegood_orphans WHERE state = 'recovered'").await
}

on_both! {
    async fn two_processes_together_never_ask_more_at_once_than_one_may(world) {
        charges(&world).await;
        let (counted, keys) = (Arc::<Counted>::default(), "max_concurrency = 4\n");
        let mut first = Process::new(&world, &counted, keys).await;
        let mut second = Process::new(&world, &counted, keys).await;
        (first.parts.rules.batch, second.parts.rules.batch) = (4, 4);

        // A process alone takes everything.
        let one = first.pass();
        until("four questions of the first", async || first.asked() == 4).await;
        assert_eq!(first.slots(&world).await, 4);

        // A newcomer waits: all slots are taken, and the first one's questions are not broken off.
        let two = second.pass();
        until("the second records that it waits", async || second.slots(&world).await == 0).await;
        assert_eq!((first.slots(&world).await, second.asked()), (4, 0));

        let lowered = async || first.parts.providers.slots("replicate") == Some(2);
        until("the first has seen it, and begins no question beyond its part", lowered).await;

        // It gets a slot with each question that ends beyond the first one's part, and no more.
        for (let_through, left, part) in [(1, 3, 1), (1, 2, 2)] {
            first.gate.add_permits(let_through);
            until("the first holds less", async || first.slots(&world).await == left).await;
            until("the second holds more", async || second.slots(&world).await == part).await;
        }
        until("two questions of the second", async || second.asked() == 2).await;
        assert_eq!((first.asked(), counted.now.load(Ordering::SeqCst)), (4, 4));

        // The first goes on within its share, and every output is recovered.
        first.gate.add_permits(1);
        until("another question of the first", async || first.asked() == 5).await;
        for process in [&first, &second] {
            process.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        }
        let reports = [one.await.unwrap(), two.await.unwrap()];
        assert_eq!(reports.iter().map(|report| report.total("recover")).sum::<u64>(), 24, "{reports:?}");
        assert_eq!(counted.most.load(Ordering::SeqCst), 4, "the maximum is used, and never exceeded");
        assert_eq!(recovered_items(&world).await, JOBS);
        assert_eq!(holdings(&world).await, Vec::<serde_json::Value>::new(), "both have given it back");
        world.books_balance().await;
    }
}

on_both! {
    async fn the_share_of_a_dead_process_counts_until_its_lease_ends(world) {
        charges(&world).await;
        let (counted, keys) = (Arc::<Counted>::default(), "max_concurrency = 4\n");
        let mut dies = Process::new(&world, &counted, keys).await;
        let mut lives = Process::new(&world, &counted, keys).await;
        (dies.parts.rules.batch, lives.parts.rules.batch) = (4, 4);
        lives.gate.add_permits(Semaphore::MAX_PERMITS / 2);

        let dead = dies.pass();
        until("four questions", async || dies.asked() == 4).await;
        dead.abort();
        assert!(dead.await.unwrap_err().is_cancelled());

        // The clock stands still: the lease does not end.
        let pass = lives.pass();
        until("the living records that it waits", async || lives.slots(&world).await == 0).await;
        assert_eq!((dies.slots(&world).await, lives.asked()), (4, 0));
        world.pass_time(Duration::from_secs(11));
        let report = pass.await.unwrap();
        // The orphans of the dead one are still leased.
        assert_eq!(report.total("recover"), 20, "{report:?}");
        assert_eq!(dies.slots(&world).await, -1);
        world.books_balance().await;
    }
}

on_both! {
    async fn processes_beyond_the_number_of_slots_leave_the_provider_to_the_others(world) {
        charges(&world).await;
        let (counted, keys) = (Arc::<Counted>::default(), "max_concurrency = 1\n");
        let mut first = Process::new(&world, &counted, keys).await;
        let mut second = Process::new(&world, &counted, keys).await;
        first.parts.rules.batch = 1;
        second.parts.rules.sharing.tries = 3;
        let one = first.pass();
        until("a question of the first", async || first.asked() == 1).await;
        let report = second.pass().await.unwrap();
        assert!(report.findings.iter().any(|each| each.kind == "no_share"), "{report:?}");
        assert_eq!((report.claimed, second.asked()), (0, 0), "what it cannot ask about is not claimed");
        assert_eq!((first.slots(&world).await, second.slots(&world).await), (1, -1));
        first.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        assert_eq!(one.await.unwrap().total("recover"), 24);
    }
}

on_both! {
    async fn a_process_asks_no_provider_that_another_has_found_down(world) {
        charges(&world).await;
        let counted = Arc::<Counted>::default();
        let keys = "max_concurrency = 2\ncircuit_opens_after = 2\ncircuit_pause = \"1h\"\n";
        let mut waits = Process::new(&world, &counted, keys).await;
        waits.parts.rules.batch = 1;
        let waiting = waits.pass();
        until("one question", async || waits.asked() == 1).await;

        // The other process does not reach the provider.
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = gone.local_addr().unwrap().port();
        drop(gone);
        let mut finds = world.parts.clone();
        finds.providers = providers(&world, &format!("http://127.0.0.1:{port}"), keys);
        let report = pass::run(&finds, World::orders(), |_| {}).await.unwrap();
        assert_eq!(report.outcomes["wait"]["unreachable"], 2, "{report:?}");
        let learned = async || waits.parts.providers.is_circuit_open("replicate");
        until("the first has learned it, while its own question is under way", learned).await;
        assert_eq!(waits.asked(), 1);

        // An answer of its own that is later than the other's closes the circuit again.
        world.pass_time(Duration::from_mins(5));
        waits.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        waiting.await.unwrap();
        assert!(!waits.parts.providers.is_circuit_open("replicate"));
    }
}

on_both! {
    async fn holdings_that_cannot_be_read_are_replaced(world) {
        let nonsense = [("replicate", r#"{"holder": "x"}"#), ("fal", r#"[{"holder": "x", "slots": "many"}]"#)];
        for (provider, nonsense) in nonsense {
            world.charge(provider).provider(provider, "acme/still-life").job("ok-0").insert().await;
            world.run(&format!("INSERT INTO makegood_provider_shares VALUES ('{provider}', 7, '{nonsense}')")).await;
        }
        let report = world.pass().await;
        assert_eq!(report.total("recover"), 2, "{report:?}");
        let left = world.texts("SELECT holdings AS v FROM makegood_provider_shares").await;
        assert_eq!(left, ["[]", "[]"], "taken and given back");
        let since = "SELECT min(version) AS v FROM makegood_provider_shares";
        assert!(world.number(since).await >= 9, "each replaced at least twice");
    }
}
