//! Fault injection: `makegood run` processes on a real PostgreSQL are killed, disconnected,
//! suspended and given contradictory answers, at moments drawn from a seed. Meanwhile the platform
//! charges, stores late and refunds by itself.
//!
//! Each worker has a proxy of its own between it and the database, so that a fault can strike at an
//! exact message: for instance, a worker dies after its COMMIT was carried out and before it gets
//! the answer. After the faults of a step, one pass runs undisturbed, and then SQL that shares
//! nothing with the program checks the books. The workers' own clocks are days away from the
//! database's, which moves while they work. In one plan of five it is wrong by hours for a while.
//! Workers connect as the role that `docs/adopting.md` creates.
//!
//! `MAKEGOOD_TEST_SEED` repeats a plan; `docs/testing.md` says how to run the long round.

mod answers;
mod asleep;
mod books;
mod crossing;
mod keep;
pub mod plan;
mod platform;
pub mod proxy;
mod server;
mod spoiled;
mod storage;
mod strike;
mod tally;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use makegood::demo::simulator::{Simulator, write_provider_files};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::binary::{Ended, Makegood, run_of};
use crate::postgres::{self, not_tried};
use crate::real_input::binary;
use answers::Answers;
use keep::Keep;
use plan::{Own, Plan, Size, Step, WRONG_HOURS};
use platform::{Made, OFFLINE};
use proxy::Proxy;
use server::{ROLE, Server, lines, number, role, run};
use storage::Storage;
use tally::Tally;

/// Small enough for `cargo test`.
const SHORT: Size = Size { steps: 3, workers: 3, runs: 2, charges: 10, to_the_end: false };
/// One round of the long test.
const LONG: Size = Size { steps: 20, workers: 4, runs: 3, charges: 16, to_the_end: true };

/// Small, so that a run settles often and leaves something for the others.
const BATCH: u32 = 4;
/// In minutes, and far longer than any run takes: leases expire because the database's clock is
/// moved.
const LEASE_MINUTES: i64 = 2;

/// A quarter of what the platform holds balances for.
const LOCK_MILLIS: u32 = 100;
/// The limit of credits, for each refund of the limit of refunds: items cost from 7 on, so that now
/// the one and now the other is reached first.
const CREDITS_A_REFUND: u32 = 8;

/// A faulty run has a short timeout for locks that a suspended one holds.
const IMPATIENT: (&str, &str) = ("MAKEGOOD__DATABASE__STATEMENT_TIMEOUT", "1s");

/// A database with a platform, and workers with a proxy each.
struct World<'a> {
    /// First, so that it is dropped while everything is still there.
    _keep: Keep<'a>,
    server: &'a Server,
    plan: Plan,
    brake: u32,
    simulator: Arc<Simulator>,
    answers: Arc<Answers>,
    folder: TempDir,
    storage: Storage,
    pool: PgPool,
    proxies: Vec<Proxy>,
    tally: Mutex<Tally>,
    told: Arc<Mutex<Vec<String>>>,
    /// Hashes of what the provider offers, by URL.
    offers: Mutex<HashMap<String, String>>,
    /// By charge.
    made: Mutex<HashMap<String, Made>>,
    /// The platform's actions when a job is asked for.
    struck: Struck,
    database: String,
}

type Struck = Arc<Mutex<HashMap<String, (Made, Own, usize)>>>;

impl<'a> World<'a> {
    async fn new(server: &'a Server, seed: u64, size: Size) -> Self {
        let plan = Plan::new(seed, size, &platform::weights());
        let database = format!("faults_{seed}");
        let admin = server.pool("postgres");
        run(&admin, &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await;
        run(&admin, &format!("CREATE DATABASE {database} TEMPLATE template0")).await;
        let folder = tempfile::tempdir().unwrap();
        let simulator = Arc::new(Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap());
        let providers = folder.path().join("providers");
        write_provider_files(&providers, &simulator.base_url()).unwrap();
        // Nothing listens on port 1.
        let offline = std::fs::read_to_string(providers.join("replicate.toml")).unwrap();
        let offline = offline
            .replace("name = \"replicate\"", "name = \"offline\"\nretries = 0")
            .replace(&simulator.base_url(), "http://127.0.0.1:1");
        std::fs::write(providers.join(format!("{OFFLINE}.toml")), offline).unwrap();
        let mut proxies = Vec::new();
        for _ in 0..size.workers {
            proxies.push(Proxy::start(server.socket()).await);
        }
        // One plan in three has a brake that engages now and then. It counts by the hour, so plans
        // whose clock is wrong by hours have none.
        let brake = if seed.is_multiple_of(3) && !plan.wild { 12 } else { 0 };
        let told = Arc::<Mutex<Vec<String>>>::default();
        let world = Self {
            _keep: Keep {
                server,
                database: database.clone(),
                folder: folder.path().to_owned(),
                told: Arc::clone(&told),
            },
            server,
            pool: server.pool(&database),
            plan,
            brake,
            answers: Arc::new(Answers::of(simulator.base_url())),
            simulator,
            storage: Storage::of(seed, folder.path()).await,
            folder,
            proxies,
            tally: Mutex::default(),
            told,
            offers: Mutex::default(),
            made: Mutex::default(),
            struck: Arc::default(),
            database,
        };
        world.settings();
        run(&world.pool, &platform::clock(&world.database, world.plan.skew)).await;
        // Connections that were made before do not use the test's clock.
        world.pool.close().await;
        let world = Self { pool: server.pool(&world.database), ..world };
        let migrate = ["migrate", "--reference-schema"];
        let migrated = world.makegood_as("postgres", &[], None, &migrate).output().await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        run(&world.pool, role().1).await;
        run(&world.pool, &platform::begin()).await;
        world.provider_answers();
        world
    }

    /// Before each answer the platform does what it does in this moment, and then it is settled
    /// what the answer is.
    fn provider_answers(&self) {
        let (pool, struck) = (self.pool.clone(), Arc::clone(&self.struck));
        let (simulator, answers) = (Arc::downgrade(&self.simulator), Arc::clone(&self.answers));
        self.simulator.on_ask(Arc::new(move |job| {
            let (pool, struck) = (pool.clone(), struck.lock().unwrap().remove(&job));
            let (simulator, answers) = (simulator.clone(), Arc::clone(&answers));
            Box::pin(async move {
                if let Some((made, what, item)) = struck {
                    platform::act(&pool, &made, what, item).await;
                }
                let Some(simulator) = simulator.upgrade() else { return };
                match answers.next(&job) {
                    Some(answer) => simulator.set_answer(&job, answer),
                    None => simulator.clear_answer(&job),
                }
            })
        }));
    }

    fn settings(&self) {
        let text = format!(
            "[database]\nmax_connections = 4\nlock_timeout = \"{LOCK_MILLIS}ms\"\n[providers]\ndir = \"providers\"\n\
             [recovery]\nallow_loopback = true\ntime_budget = \"60s\"\n\
             [pass]\nlease = \"{LEASE_MINUTES}m\"\nbatch = {BATCH}\n\
             [brake]\nmax_refunds_per_hour = {}\nmax_credits_per_hour = {}\nmax_refunds_per_day = 0\n\
             max_credit_share_per_day = 0\nmax_refunds_per_day_per_account = 0\nmax_credit_share_per_day_per_account = 0\n[log]\nlevel = \"warn\"\n",
            self.brake,
            self.brake * CREDITS_A_REFUND
        );
        std::fs::write(self.folder.path().join("makegood.toml"), text).unwrap();
    }

    /// The binary, through a worker's proxy or straight.
    fn makegood(&self, worker: Option<usize>, arguments: &[&str]) -> Makegood {
        self.makegood_by(&[], worker, arguments)
    }

    /// The same, run by another program.
    fn makegood_by(&self, prefix: &[&str], worker: Option<usize>, arguments: &[&str]) -> Makegood {
        self.makegood_as(ROLE, prefix, worker, arguments)
    }

    /// The same, as another role.
    fn makegood_as(
        &self,
        role: &str,
        prefix: &[&str],
        worker: Option<usize>,
        arguments: &[&str],
    ) -> Makegood {
        let database = &self.database;
        let url = if let Some(nth) = worker {
            let at = self.proxies[nth].address;
            format!("postgres://{role}@{at}/{database}?sslmode=disable&options[faults.worker]={nth}")
        } else {
            let socket = self.server.socket();
            let folder = socket.parent().unwrap().display();
            format!("postgres://{role}@localhost:5432/{database}?host={folder}")
        };
        let binary = binary();
        let command = [prefix, &[&binary, "--config", "makegood.toml"], arguments].concat();
        let run = run_of(command[0], &command[1..]).within(self.folder.path()).env("DATABASE_URL", &url);
        self.storage.given_to(run)
    }

    fn count(&self, what: impl FnOnce(&mut Tally)) {
        what(&mut self.tally.lock().unwrap());
    }

    fn tell(&self, line: String) {
        self.told.lock().unwrap().push(line);
    }

    /// One step of time: faults, then an undisturbed pass, then the checks.
    async fn step(&self, nth: usize, step: &Step, made: &mut Vec<Made>) {
        platform::leap(&self.pool, step.minutes).await;
        for (slot, new) in step.charges.iter().enumerate() {
            let charge = platform::charge(&self.pool, format!("c{nth}-{slot}"), nth, *new).await;
            self.answers.know(&charge);
            self.made.lock().unwrap().insert(charge.id.clone(), charge.clone());
            if let Some((what, item)) = new.struck {
                let mut struck = self.struck.lock().unwrap();
                struck.extend(charge.jobs.iter().map(|job| (job.clone(), (charge.clone(), what, item))));
            }
            made.push(charge);
            self.count(|tally| tally.charges += 1);
        }
        for (job, until) in made.iter().filter_map(|each| each.slow.as_ref()) {
            if *until == nth {
                self.answers.finished(job);
            }
        }
        self.answers.away(step.away);
        if let Some(provider) = step.away {
            platform::is_away(&self.pool, provider).await;
        }
        self.storage.stumble(step);
        let platform = async {
            for deed in &step.deeds {
                tokio::time::sleep(deed.after).await;
                let made = &made[made.len() - 1 - deed.back % made.len()];
                self.count(|tally| tally.holds += u64::from(matches!(deed.what, Own::HoldBalances)));
                platform::act(&self.pool, made, deed.what, deed.item).await;
            }
        };
        let storage = async {
            if step.storage_fails {
                tokio::time::sleep(step.storage_after).await;
                self.storage.fail();
            }
        };
        let failover = async {
            if let Some(failover) = step.failover {
                tokio::time::sleep(failover.after).await;
                self.tell(format!("step {nth}: the database is another, wrong by {} hours", failover.hours));
                platform::fail_over(&self.pool, failover.hours).await;
                self.server.restart(true).await;
                self.count(|tally| {
                    tally.failovers += 1;
                    tally.restarts += 1;
                    tally.crashes += 1;
                });
            }
        };
        let workers = step.workers.iter().enumerate().map(|(worker, runs)| async move {
            for mishap in runs {
                self.troubled(nth, worker, *mishap).await;
            }
        });
        tokio::join!(futures_util::future::join_all(workers), platform, storage, failover);
        self.storage.mend();
        self.calm().await;
        self.books_agree(&[books::ALWAYS, books::CALM]).await;
        self.files_are_there().await;
    }

    /// Undisturbed passes, once all leases of dead workers have expired. They repair everything.
    async fn calm(&self) {
        // The server may not have noticed yet that a client is gone.
        let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'makegood' AND datname = current_database()";
        let began = Instant::now();
        while number(&self.pool, others).await > 0 {
            assert!(began.elapsed() < Duration::from_mins(2), "connections of the dead stay open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..40 {
            platform::leap(&self.pool, LEASE_MINUTES + 1).await;
            let began_at = lines(&self.pool, "SELECT clock_timestamp()::text").await;
            let ended = self.makegood(Some(0), &["run"]).output().await;
            // 3: something waits for a person, the brake for instance.
            if !matches!(ended.code, Some(0 | 3)) {
                self.give_up(&format!("a pass that nothing disturbed ended like this: {ended:?}"));
            }
            let braked = "SELECT count(*) FROM makegood_brake WHERE engaged_at IS NOT NULL";
            if number(&self.pool, braked).await == 0 {
                run(&self.pool, &format!("INSERT INTO faults.calm VALUES ('{}')", began_at[0])).await;
                return;
            }
            let release = ["brake", "release", "--by", "the tests", "--reason", "that is the plan"];
            let released: Ended = self.makegood(None, &release).output().await;
            assert_eq!(released.code, Some(0), "{released:?}");
        }
        self.give_up("the brake is pulled again and again");
    }

    /// The history of one item, by the database's time.
    async fn story(&self, charge: &str, index: i64) -> String {
        let story = books::STORY.replace("$charge", charge).replace("$index", &index.to_string());
        format!("the story of {charge}/{index}:\n  {}", lines(&self.pool, &story).await.join("\n  "))
    }

    /// One of the books' statements, for this plan.
    fn page(&self, sql: &str) -> String {
        let slack = if self.plan.wild { 2 * WRONG_HOURS } else { 0 };
        sql.replace("$brake_credits", &(self.brake * CREDITS_A_REFUND).to_string())
            .replace("$brake", &self.brake.to_string())
            .replace("$slack", &format!("{slack} hours"))
            .replace("$wild", if self.plan.wild { "true" } else { "false" })
    }

    async fn books_agree(&self, pages: &[&[(&str, &str)]]) {
        for (what, sql) in pages.iter().copied().flatten() {
            let wrong = lines(&self.pool, &self.page(sql)).await;
            if let Some(first) = wrong.first() {
                let mut told =
                    format!("{} {what}:\n  {}", wrong.len(), wrong[..wrong.len().min(10)].join("\n  "));
                let item = first.split([' ', ':']).next().unwrap_or_default();
                let (charge, index) = item.split_once('/').unwrap_or((item, "0"));
                if let Ok(index) = index.parse() {
                    told = format!("{told}\n{}", self.story(charge, index).await);
                }
                self.give_up(&told);
            }
        }
    }

    /// The faults that took effect so far.
    fn tally(&self) -> Tally {
        let (away, contradictions) = self.answers.struck();
        let (bucket_refused, bucket_broke_off) = self.storage.struck();
        let tally = *self.tally.lock().unwrap();
        Tally { bucket_refused, bucket_broke_off, away, contradictions, ..tally }
    }

    /// Fails with everything that is needed to look into it.
    fn give_up(&self, why: &str) -> ! {
        let told = self.told.lock().unwrap().join("\n  ");
        panic!(
            "seed {} (MAKEGOOD_TEST_SEED={}): {why}\nwhat was done to the workers:\n  {told}\nso far: {}",
            self.plan.seed,
            self.plan.seed,
            self.tally()
        );
    }
}

/// One round from a seed.
async fn round(server: &Server, seed: u64, size: Size) -> Tally {
    let world = World::new(server, seed, size).await;
    let mut made = Vec::new();
    for (nth, step) in world.plan.steps.iter().enumerate() {
        world.step(nth, step, &mut made).await;
    }
    world.answers.away(None);
    if size.to_the_end {
        for (job, _) in made.iter().filter_map(|each| each.slow.as_ref()) {
            world.answers.finished(job);
        }
        platform::fail_over(&world.pool, 0).await;
        // In steps of less than an hour, as a schedule would have it at worst, until the last
        // window has closed: later where the clock has been wrong.
        let late = if world.plan.wild { 14 } else { 0 };
        for _ in 0..32 + late {
            platform::leap(&world.pool, 50).await;
            world.calm().await;
        }
        world.books_agree(&[books::ALWAYS, books::CALM, books::AT_THE_END]).await;
    }
    let unnamed = world.files_are_there().await;
    let count = async |sql| number(&world.pool, sql).await.unsigned_abs();
    let (deeds, unavoidable_races) =
        (count(books::UNLOCKED_ACTIONS).await, count(books::UNAVOIDABLE_RACES).await);
    // An unavoidable race is a matter of milliseconds. If it happens often, one side did not check.
    if unavoidable_races > 1 + deeds / 50 {
        world.give_up(&format!("{unavoidable_races} of {deeds} deeds of the platform crossed with a refund"));
    }
    let tally = Tally {
        refunds: count("SELECT count(*) FROM makegood_refunds").await,
        recoveries: count("SELECT count(*) FROM makegood_recoveries").await,
        unnamed,
        deeds,
        unavoidable_races,
        ..world.tally()
    };
    if std::env::var_os("MAKEGOOD_TEST_TELL").is_some() {
        eprintln!("  {}", world.told.lock().unwrap().join("\n  "));
    }
    world.pool.close().await;
    run(&server.pool("postgres"), &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", world.database)).await;
    tally
}

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) % 1_000_000_000
}

/// Whether a server can be started here. If PostgreSQL is not installed and no server is named,
/// starting it fails.
fn can_be_tried() -> bool {
    let there = std::env::var_os("MAKEGOOD_TEST_POSTGRES").is_none() || postgres::binaries().is_some();
    if !there {
        not_tried("a server elsewhere cannot be restarted, and there is no PostgreSQL here");
    }
    there
}

fn prepared() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_p05_p16_exactly_once_whatever_breaks() {
    if !can_be_tried() {
        return;
    }
    prepared();
    let server = Server::start().await;
    let seed = number_from("MAKEGOOD_TEST_SEED").unwrap_or_else(fresh_seed);
    eprintln!("MAKEGOOD_TEST_SEED={seed}");
    let tally = round(&server, seed, SHORT).await;
    eprintln!("{tally}");
}

/// Runs rounds until this many workers were killed and the server was restarted this often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "many minutes: scripts/faults.sh runs it"]
async fn the_long_round() {
    prepared();
    let server = Server::start().await;
    let kills = number_from("MAKEGOOD_TEST_KILLS").unwrap_or(1_000);
    let restarts = number_from("MAKEGOOD_TEST_RESTARTS").unwrap_or(100);
    let first = number_from("MAKEGOOD_TEST_SEED").unwrap_or_else(fresh_seed);
    let (mut all, began) = (Tally::default(), Instant::now());
    for seed in first.. {
        if all.kills >= kills && all.restarts >= restarts {
            break;
        }
        eprintln!("MAKEGOOD_TEST_SEED={seed}");
        let one = round(&server, seed, LONG).await;
        all = all.plus(one);
        eprintln!("after {} s: {all}", began.elapsed().as_secs());
    }
    let least = all.kills / 250;
    let lacks = all.lacks(least);
    assert!(lacks.is_empty(), "struck less than {least} times: {}", lacks.join(", "));
}
