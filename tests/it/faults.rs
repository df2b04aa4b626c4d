//! Whatever breaks: real `makegood run` processes on a real PostgreSQL, killed, cut off, paused and misled at moments
//! drawn from a seed, while the platform goes on charging, storing late and refunding by itself.
//!
//! Each worker has a proxy of its own between it and the database, so that a fault can strike at an exact message: a
//! worker dies after its COMMIT was carried out and before it hears so, for instance. After the troubled runs of a step
//! one pass is left alone, and then the books are checked by SQL that shares nothing with the program. The workers'
//! own clocks are days away from the database's throughout, and its clock leaps while they work.
//!
//! `MAKEGOOD_TEST_SEED` repeats a plan; `docs/testing.md` says how to run the long round.

mod books;
mod crossing;
pub mod plan;
mod platform;
pub mod proxy;
mod server;

use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use makegood::demo::simulator::{Canned, Simulator, write_provider_files};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use tempfile::TempDir;
use url::Url;

use crate::binary::{Ended, Makegood, Run, run_of};
use crate::postgres;
use crate::real_input::{binary, seed::file_url};
use plan::{Mishap, Moment, Own, Plan, Size, Step, Trouble};
use platform::{Made, OFFLINE};
use proxy::{Held, Proxy, Then};
use server::{Server, lines, number, run};

/// What `cargo test` can afford.
const SHORT: Size = Size { steps: 3, workers: 3, runs: 2, charges: 10, to_the_end: false };
/// One round of the long test.
const LONG: Size = Size { steps: 20, workers: 4, runs: 3, charges: 16, to_the_end: true };

/// Small, so that a run settles often and leaves something for the others.
const BATCH: u32 = 4;
/// In minutes, and far longer than any run takes: leases run out because the database's clock leaps.
const LEASE_MINUTES: i64 = 2;

/// A run in trouble soon gives up what waits for a lock that a sleeping one holds.
const IMPATIENT: (&str, &str) = ("MAKEGOOD__DATABASE__STATEMENT_TIMEOUT", "1s");

/// Runs a program that can write no more than 512 bytes into any file, and is told so instead of killed for it.
const FULL_DISK: [&str; 4] = ["sh", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"];

/// What happened in a round, or in many.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    runs: u64,
    kills: u64,
    answers_lost: u64,
    cuts: u64,
    pauses: u64,
    restarts: u64,
    crashes: u64,
    leaps: u64,
    failed: u64,
    charges: u64,
    refunds: i64,
    recoveries: i64,
    photo_finishes: i64,
    unnamed: u64,
    lost_leases: u64,
}

/// A database with a platform, and workers with a proxy each.
struct World<'a> {
    server: &'a Server,
    plan: Plan,
    brake: u32,
    simulator: Simulator,
    folder: TempDir,
    pool: PgPool,
    proxies: Vec<Proxy>,
    tally: Mutex<Tally>,
    told: Mutex<Vec<String>>,
    /// What the platform does when a job is asked for.
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
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let providers = folder.path().join("providers");
        write_provider_files(&providers, &simulator.base_url()).unwrap();
        // Nobody listens on port 1.
        let offline = std::fs::read_to_string(providers.join("replicate.toml")).unwrap();
        let offline = offline
            .replace("name = \"replicate\"", "name = \"offline\"\nretries = 0")
            .replace(&simulator.base_url(), "http://127.0.0.1:1");
        std::fs::write(providers.join(format!("{OFFLINE}.toml")), offline).unwrap();
        let mut proxies = Vec::new();
        for _ in 0..size.workers {
            proxies.push(Proxy::start(server.socket()).await);
        }
        // One plan in three runs under a brake that is pulled now and then.
        let brake = if seed.is_multiple_of(3) { 12 } else { 0 };
        let world = Self {
            server,
            pool: server.pool(&database),
            plan,
            brake,
            simulator,
            folder,
            proxies,
            tally: Mutex::default(),
            told: Mutex::default(),
            struck: Arc::default(),
            database,
        };
        world.settings();
        let migrated = world.makegood(None, &["migrate", "--reference-schema"]).output().await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        run(&world.pool, &platform::begin(&world.database, world.plan.skew)).await;
        // Connections made before know nothing of the clock.
        world.pool.close().await;
        let world = Self { pool: server.pool(&world.database), ..world };
        let (pool, struck) = (world.pool.clone(), Arc::clone(&world.struck));
        world.simulator.on_ask(Arc::new(move |job| {
            let (pool, struck) = (pool.clone(), struck.lock().unwrap().remove(&job));
            Box::pin(async move {
                if let Some((made, what, item)) = struck {
                    platform::act(&pool, &made, what, item).await;
                }
            })
        }));
        world
    }

    fn settings(&self) {
        let text = format!(
            "[database]\nmax_connections = 4\n[providers]\ndir = \"providers\"\n\
             [storage]\nurl = \"file:./outputs\"\n[recovery]\nallow_loopback = true\ntime_budget = \"60s\"\n\
             [pass]\nlease = \"{LEASE_MINUTES}m\"\nbatch = {BATCH}\n\
             [brake]\nmax_refunds_per_hour = {}\nmax_refunds_per_day = 0\n[log]\nlevel = \"warn\"\n",
            self.brake
        );
        std::fs::write(self.folder.path().join("makegood.toml"), text).unwrap();
    }

    /// The binary, through a worker's proxy or straight.
    fn makegood(&self, worker: Option<usize>, arguments: &[&str]) -> Makegood {
        self.makegood_by(&[], worker, arguments)
    }

    /// The same, run by another program.
    fn makegood_by(&self, prefix: &[&str], worker: Option<usize>, arguments: &[&str]) -> Makegood {
        let url = if let Some(nth) = worker {
            format!("postgres://postgres@{}/{}?sslmode=disable", self.proxies[nth].address, self.database)
        } else {
            let socket = self.server.socket();
            let folder = socket.parent().unwrap().display();
            format!("postgres://postgres@localhost:5432/{}?host={folder}", self.database)
        };
        let binary = binary();
        let command = [prefix, &[&binary, "--config", "makegood.toml"], arguments].concat();
        run_of(command[0], &command[1..]).within(self.folder.path()).env("DATABASE_URL", &url)
    }

    fn count(&self, what: impl FnOnce(&mut Tally)) {
        what(&mut self.tally.lock().unwrap());
    }

    fn tell(&self, line: String) {
        self.told.lock().unwrap().push(line);
    }

    /// One step of time: trouble, then calm, then the books.
    async fn step(&self, nth: usize, step: &Step, made: &mut Vec<Made>) {
        platform::leap(&self.pool, step.minutes).await;
        for (slot, new) in step.charges.iter().enumerate() {
            let charge = platform::charge(&self.pool, format!("c{nth}-{slot}"), nth, *new).await;
            if let Some((job, _)) = &charge.slow {
                let running =
                    serde_json::json!({"id": job, "status": "processing", "output": null, "error": null});
                self.simulator.set_answer(job, Canned::json(200, &running));
            }
            if let Some((what, item)) = new.struck {
                let mut struck = self.struck.lock().unwrap();
                struck.extend(charge.jobs.iter().map(|job| (job.clone(), (charge.clone(), what, item))));
            }
            made.push(charge);
            self.count(|tally| tally.charges += 1);
        }
        for (job, until) in made.iter().filter_map(|each| each.slow.as_ref()) {
            if *until == nth {
                self.simulator.clear_answer(job);
            }
        }
        let platform = async {
            for deed in &step.deeds {
                tokio::time::sleep(deed.after).await;
                let made = &made[made.len() - 1 - deed.back % made.len()];
                platform::act(&self.pool, made, deed.what, deed.item).await;
            }
        };
        let storage = async {
            if step.storage_fails {
                tokio::time::sleep(step.storage_after).await;
                self.break_storage();
            }
        };
        let workers = step.workers.iter().enumerate().map(|(worker, runs)| async move {
            for mishap in runs {
                self.troubled(nth, worker, *mishap).await;
            }
        });
        tokio::join!(futures_util::future::join_all(workers), platform, storage);
        self.mend_storage();
        self.calm().await;
        self.books_agree(&[books::ALWAYS, books::CALM]).await;
    }

    /// A pass that something happens to.
    async fn troubled(&self, step: usize, worker: usize, mishap: Mishap) {
        let proxy = &self.proxies[worker];
        let at = match mishap.moment {
            Moment::Message(_) | Moment::Commit(_) => Some(mishap.moment),
            Moment::After(_) => None,
        };
        let mut trap = proxy.begin(at);
        let prefix: &[&str] = if matches!(mishap.trouble, Trouble::Full) { &FULL_DISK } else { &[] };
        let mut run = self.makegood_by(prefix, Some(worker), &["run"]).env(IMPATIENT.0, IMPATIENT.1).start();
        self.count(|tally| tally.runs += 1);
        let held = match mishap.moment {
            Moment::After(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => Ok(None),
                    () = has_ended(&mut run) => Err(()),
                }
            }
            Moment::Message(_) | Moment::Commit(_) => {
                tokio::select! {
                    held = &mut trap => Ok(held.ok()),
                    () = has_ended(&mut run) => Err(()),
                }
            }
        };
        let began = Instant::now();
        let mut words = format!("step {step}, worker {worker}: {mishap}");
        match held {
            Ok(held) => words += &self.strike(worker, &mut run, held, mishap.trouble).await,
            Err(()) => words += ", not reached",
        }
        let ended = run.ended().await;
        self.count(|tally| {
            tally.kills += u64::from(ended.status.signal() == Some(9));
            tally.failed += u64::from(ended.code == Some(1));
            tally.lost_leases += u64::from(ended.stdout.contains("lease_ran_out"));
        });
        let more = format!("; it ended with {} after {} ms more", ended.status, began.elapsed().as_millis());
        words += &more;
        if ended.code == Some(1) {
            let more = format!(": {}", ended.stderr.lines().last().unwrap_or_default());
            words += &more;
        }
        self.tell(words);
        let as_it_should = matches!(ended.code, Some(0 | 1 | 3)) || ended.status.signal() == Some(9);
        if !as_it_should || ended.stderr.contains("panicked") {
            self.give_up(&format!("a worker ended like this: {ended:?}"));
        }
    }

    /// Does to a run what is to be done to it; says what came of it.
    async fn strike(&self, worker: usize, run: &mut Run, held: Option<Held>, trouble: Trouble) -> String {
        let proxy = &self.proxies[worker];
        match trouble {
            Trouble::None | Trouble::Full => go_on(held, Then::Forward),
            Trouble::Kill { heard } => {
                let mut lost = false;
                match held {
                    Some(held) if heard => {
                        lost = held.mute().await;
                        run.kill();
                    }
                    held => {
                        run.kill();
                        go_on(held, Then::Drop);
                    }
                }
                self.count(|tally| tally.answers_lost += u64::from(lost));
            }
            Trouble::Cut { heard } => {
                self.count(|tally| tally.cuts += 1);
                match held {
                    Some(held) if heard => {
                        let lost = held.mute().await;
                        self.count(|tally| tally.answers_lost += u64::from(lost));
                    }
                    Some(held) => held.go_on(Then::Drop),
                    None => proxy.cut(),
                }
            }
            Trouble::Pause { heard, minutes } => {
                let Some(id) = run.id() else { return String::new() };
                self.count(|tally| tally.pauses += 1);
                signal("STOP", id).await;
                let held = match held {
                    Some(held) if heard => {
                        held.go_on(Then::Forward);
                        None
                    }
                    held => held,
                };
                platform::leap(&self.pool, LEASE_MINUTES + minutes).await;
                // Others take over what it had in hand; what it has locked, they cannot.
                let other = self.makegood(None, &["run"]).env(IMPATIENT.0, IMPATIENT.1).output().await;
                go_on(held, Then::Forward);
                signal("CONT", id).await;
                return format!(", another pass meanwhile ended with {}", other.status);
            }
            Trouble::Restart { immediate } => {
                self.server.restart(immediate).await;
                self.count(|tally| {
                    tally.restarts += 1;
                    tally.crashes += u64::from(immediate);
                });
                go_on(held, Then::Forward);
            }
            Trouble::Leap { minutes } => {
                self.count(|tally| tally.leaps += 1);
                platform::leap(&self.pool, minutes).await;
                go_on(held, Then::Forward);
            }
            Trouble::Slow { by } => {
                proxy.slow(by);
                go_on(held, Then::Forward);
            }
        }
        String::new()
    }

    /// Passes that nothing happens to, once all leases of the dead have run out: they mend everything there is to mend.
    async fn calm(&self) {
        // A transaction of a client that is gone may not know it yet.
        let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'makegood' AND datname = current_database()";
        let began = Instant::now();
        while number(&self.pool, others).await > 0 {
            assert!(began.elapsed() < Duration::from_mins(2), "connections of the dead stay open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..40 {
            platform::leap(&self.pool, LEASE_MINUTES + 1).await;
            let ended = self.makegood(Some(0), &["run"]).output().await;
            // 3: something waits for a person, the brake for instance.
            if !matches!(ended.code, Some(0 | 3)) {
                self.give_up(&format!("a pass that nothing disturbed ended like this: {ended:?}"));
            }
            let braked = "SELECT count(*) FROM makegood_brake WHERE engaged_at IS NOT NULL";
            if number(&self.pool, braked).await == 0 {
                return;
            }
            let release = ["brake", "release", "--by", "the tests", "--reason", "that is the plan"];
            let released: Ended = self.makegood(None, &release).output().await;
            assert_eq!(released.code, Some(0), "{released:?}");
        }
        self.give_up("the brake is pulled again and again");
    }

    /// A file where its directory was: no file can be written, by root neither.
    fn break_storage(&self) {
        let (there, away) = (self.folder.path().join("outputs"), self.folder.path().join("outputs-away"));
        std::fs::create_dir_all(&there).unwrap();
        std::fs::rename(&there, &away).unwrap();
        // A worker may make the directory anew in between; then it writes there, and that is moved back below.
        let _there_again = std::fs::write(&there, "no directory");
    }

    fn mend_storage(&self) {
        let (there, away) = (self.folder.path().join("outputs"), self.folder.path().join("outputs-away"));
        if !away.exists() {
            return;
        }
        if there.is_dir() {
            for (from, to) in files_below(&there)
                .iter()
                .map(|file| (file.clone(), away.join(file.strip_prefix(&there).unwrap())))
            {
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::rename(from, to).unwrap();
            }
            std::fs::remove_dir_all(&there).unwrap();
        } else {
            std::fs::remove_file(&there).unwrap();
        }
        std::fs::rename(&away, &there).unwrap();
    }

    async fn books_agree(&self, pages: &[&[(&str, &str)]]) {
        for (what, sql) in pages.iter().copied().flatten() {
            let wrong = lines(&self.pool, &sql.replace("$brake", &self.brake.to_string())).await;
            if let Some(first) = wrong.first() {
                let mut told =
                    format!("{} {what}:\n  {}", wrong.len(), wrong[..wrong.len().min(10)].join("\n  "));
                let item = first.split([' ', ':']).next().unwrap_or_default();
                let (charge, index) = item.split_once('/').unwrap_or((item, "0"));
                if index.parse::<i64>().is_ok() {
                    let story = books::STORY.replace("$charge", charge).replace("$index", index);
                    let more = format!(
                        "\nthe story of {charge}/{index}:\n  {}",
                        lines(&self.pool, &story).await.join("\n  ")
                    );
                    told += &more;
                }
                self.give_up(&told);
            }
        }
    }

    /// Every recovered file is where its row says, whole, and the one that the provider offers for this item.
    async fn files_are_there(&self) {
        let sql = "SELECT concat_ws(' ', uri, sha256, size_bytes, provider, provider_job_id, provider_output_index, charge_id)
                   FROM stored_outputs WHERE id LIKE 'makegood:%'";
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (mut named, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        for line in lines(&self.pool, sql).await {
            let words: Vec<&str> = line.split(' ').collect();
            let path = Url::parse(words[0]).unwrap().to_file_path().unwrap();
            let Ok(bytes) = std::fs::read(&path) else {
                self.give_up(&format!("{line}: the file is not there"));
            };
            let hash = sha256(&bytes);
            if hash != words[1] || bytes.len().to_string() != words[2] {
                self.give_up(&format!("{line}: the file is another, {hash}, {} bytes", bytes.len()));
            }
            let nth: i64 = words[5].parse().unwrap();
            // Files that the provider does not number go in order to the items that still wait, and the platform
            // may have refunded an earlier one: any of the job's, but nobody else's.
            let any = words[4].starts_with("two-of-three");
            let mut is_offered = false;
            for nth in if any { 0..2 } else { nth..nth + 1 } {
                let url = file_url(&self.simulator.base_url(), words[3], words[4], nth);
                let offered = client.get(&url).send().await.unwrap().bytes().await.unwrap();
                is_offered |= sha256(&offered) == hash;
            }
            if !is_offered || !hashes.insert(hash) {
                self.give_up(&format!("{line}: not the file of this item, or another's too"));
            }
            named.insert(path);
        }
        let outputs = self.folder.path().canonicalize().unwrap().join("outputs");
        let unnamed = files_below(&outputs).iter().filter(|path| !named.contains(*path)).count();
        self.count(|tally| tally.unnamed += unnamed as u64);
    }

    /// Fails with everything that is needed to look into it.
    fn give_up(&self, why: &str) -> ! {
        let told = self.told.lock().unwrap().join("\n  ");
        panic!(
            "seed {} (MAKEGOOD_TEST_SEED={}): {why}\nwhat was done to the workers:\n  {told}",
            self.plan.seed, self.plan.seed
        );
    }
}

fn go_on(held: Option<Held>, then: Then) {
    if let Some(held) = held {
        held.go_on(then);
    }
}

async fn has_ended(run: &mut Run) {
    while !run.has_ended() {
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

async fn signal(name: &str, id: u32) {
    let id = id.to_string();
    let mut sent = tokio::process::Command::new("sh");
    sent.args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &id]).stderr(std::process::Stdio::null());
    // It may have ended in this very moment.
    let _ended = sent.status().await;
}

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        // Nothing was recovered yet.
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One round from a seed.
async fn round(server: &Server, seed: u64, size: Size) -> Tally {
    let world = World::new(server, seed, size).await;
    let mut made = Vec::new();
    for (nth, step) in world.plan.steps.iter().enumerate() {
        world.step(nth, step, &mut made).await;
    }
    if size.to_the_end {
        for (job, _) in made.iter().filter_map(|each| each.slow.as_ref()) {
            world.simulator.clear_answer(job);
        }
        // In steps of less than an hour, as a schedule would have it at worst, until the last window has closed.
        for _ in 0..32 {
            platform::leap(&world.pool, 50).await;
            world.calm().await;
        }
        world.books_agree(&[books::ALWAYS, books::CALM, books::AT_THE_END]).await;
    }
    world.files_are_there().await;
    let refunds = number(&world.pool, "SELECT count(*) FROM makegood_refunds").await;
    let recoveries = number(&world.pool, "SELECT count(*) FROM makegood_recoveries").await;
    let photo_finishes = number(&world.pool, books::PHOTO_FINISHES).await;
    if std::env::var_os("MAKEGOOD_TEST_TELL").is_some() {
        eprintln!("  {}", world.told.lock().unwrap().join("\n  "));
    }
    world.pool.close().await;
    run(&server.pool("postgres"), &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", world.database)).await;
    let tally = *world.tally.lock().unwrap();
    Tally { refunds, recoveries, photo_finishes, ..tally }
}

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) % 1_000_000_000
}

fn prepared() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_p05_p16_exactly_once_whatever_breaks() {
    if std::env::var_os("MAKEGOOD_TEST_POSTGRES").is_some() && postgres::binaries().is_none() {
        eprintln!("not tried: a server elsewhere cannot be restarted, and there is no PostgreSQL here");
        return;
    }
    prepared();
    let server = Server::start().await;
    let seed = number_from("MAKEGOOD_TEST_SEED").unwrap_or_else(fresh_seed);
    eprintln!("MAKEGOOD_TEST_SEED={seed}");
    let tally = round(&server, seed, SHORT).await;
    eprintln!("{tally:?}");
}

/// Round after round until so many workers were killed and the server was restarted so often.
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
        eprintln!("after {} s: {all:?}", began.elapsed().as_secs());
    }
}

impl Tally {
    const fn plus(self, other: Self) -> Self {
        Self {
            runs: self.runs + other.runs,
            kills: self.kills + other.kills,
            answers_lost: self.answers_lost + other.answers_lost,
            cuts: self.cuts + other.cuts,
            pauses: self.pauses + other.pauses,
            restarts: self.restarts + other.restarts,
            crashes: self.crashes + other.crashes,
            leaps: self.leaps + other.leaps,
            failed: self.failed + other.failed,
            charges: self.charges + other.charges,
            refunds: self.refunds + other.refunds,
            recoveries: self.recoveries + other.recoveries,
            photo_finishes: self.photo_finishes + other.photo_finishes,
            unnamed: self.unnamed + other.unnamed,
            lost_leases: self.lost_leases + other.lost_leases,
        }
    }
}
