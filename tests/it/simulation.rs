//! Worlds of 48 hours, each drawn from a seed: the whole pipeline on SQLite, by a clock that is moved by hand, with a
//! simulated provider. Jobs fail, take for ever, answer rubbish and drop their files; the platform stores late, in
//! wrong places and twice, commits hours late, adds items later and refunds by itself; providers go away; the clock is
//! wrong for hours; workers run side by side and die halfway.
//!
//! Promised of every world: the books balance at any time, and P15: nothing is unresolved after its window unless the
//! brake held it. A failing world prints its seed and the story of the item. The plan follows from the seed alone; how
//! workers that run at the same time interleave does not, as SQLite works on threads of its own.
//! `docs/testing.md` says how to run thousands.

mod books;
mod plan;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use makegood::brake;
use makegood::clock::{Clock, Timestamp};
use makegood::config::{LoadArgs, Settings};
use makegood::demo::simulator::{Canned, Simulator};
use makegood::ops::stop::Stop;
use makegood::pass::{self, Orders, Parts, Rules};
use makegood::provider::Providers;
use makegood::recovery::{Fetcher, Limits, Storage};
use makegood::store::Store;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};
use tempfile::TempDir;

use plan::{Charge, END, Item, Own, PROVIDERS, Pass, Plan};

const MINUTE: Duration = Duration::from_mins(1);
const WINDOW: i64 = 24 * 60;

/// When every world begins.
fn start() -> Timestamp {
    Timestamp::parse("2026-03-01T00:00:00Z").unwrap()
}

fn at(minute: i64) -> Timestamp {
    if minute >= 0 {
        start() + MINUTE * u32::try_from(minute).unwrap()
    } else {
        start() - MINUTE * u32::try_from(-minute).unwrap()
    }
}

/// What worlds share that run one after the other: making it costs more than a world does.
struct Stage {
    clock: Clock,
    simulator: Simulator,
    providers: Arc<Providers>,
    fetcher: Arc<Fetcher>,
    rules: Rules,
    folder: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::simulated(start());
        // In memory, where there is such a place: a world that flushes to a disk waits for it most of its time.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let files = folder.path().join("providers");
        std::fs::create_dir(&files).unwrap();
        for (name, more) in PROVIDERS {
            // The breaker's pause is real time, and a world's is simulated: it is kept out of the way.
            let text = format!(
                "[provider]\nname = \"{name}\"\nretries = 0\ncircuit_opens_after = 1000000\noutput_hosts = []\n{more}\
                 [ask]\nrequest = \"GET {}/replicate/v1/predictions/{{job}}\"\nread = '.body'\n",
                simulator.base_url()
            );
            std::fs::write(files.join(format!("{name}.toml")), text).unwrap();
        }
        let settings =
            Settings::load(&LoadArgs { working_dir: folder.path().to_owned(), ..LoadArgs::default() })
                .unwrap();
        let stage = Self {
            providers: Arc::new(Providers::load(Some(&files), clock.clone()).unwrap()),
            fetcher: Arc::new(
                Fetcher::new(Limits { allow_loopback: true, ..pass::copy_limits(&settings) }).unwrap(),
            ),
            rules: Rules::new(&settings),
            clock,
            simulator,
            folder,
        };
        let empty = Store::open(&url(&stage.empty()), 1, MINUTE).await.unwrap();
        empty.migrate(true).await.unwrap();
        empty.close().await;
        stage
    }

    /// A database with tables and nothing in them, to be copied.
    fn empty(&self) -> PathBuf {
        self.folder.path().join("empty.db")
    }
}

fn url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

struct World<'a> {
    stage: &'a Stage,
    plan: Plan,
    folder: PathBuf,
    sql: SqlitePool,
    workers: Vec<Parts>,
    died: u64,
}

/// Something that the platform does, and when.
struct Deed {
    at: i64,
    sql: String,
}

impl<'a> World<'a> {
    async fn new(stage: &'a Stage, plan: Plan) -> Self {
        let folder = stage.folder.path().join(format!("world-{}", plan.seed));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("world.db");
        std::fs::copy(stage.empty(), &file).unwrap();
        stage.clock.set(at(0));
        let mut workers = Vec::new();
        let many = plan.passes.iter().map(|pass| pass.workers.len()).max().unwrap_or(1);
        for _ in 0..many {
            let store = Store::open(&url(&file), 2, MINUTE).await.unwrap().with_clock(stage.clock.clone());
            let brake = brake::Limits { refunds_per_hour: plan.brake, ..brake::Limits::default() };
            workers.push(Parts {
                store,
                providers: Arc::clone(&stage.providers),
                storage: Arc::new(Storage::open("file:./outputs", &folder).unwrap()),
                fetcher: Arc::clone(&stage.fetcher),
                rules: Rules { brake, batch: 8, ..stage.rules.clone() },
            });
        }
        let options: SqliteConnectOptions = url(&file).parse().unwrap();
        let options = options.busy_timeout(Duration::from_secs(30));
        let sql = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        Self { stage, plan, folder, sql, workers, died: 0 }
    }

    async fn run(&self, sql: &str) {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.sql).await;
        done.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    }

    async fn lines(&self, sql: &str) -> Vec<String> {
        let sql = sql.replace("$start", &start().micros().to_string());
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_all(&self.sql).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}\n{error}"));
        rows.iter().map(|row| row.get::<Option<String>, _>(0).unwrap_or_else(|| "NULL".to_owned())).collect()
    }

    /// Lives through the 48 hours.
    async fn live(&mut self) {
        self.run(
            "INSERT INTO accounts VALUES ('a0', 'user'), ('a1', 'user'), ('a2', 'workspace'), ('a3', 'user');
             INSERT INTO balances SELECT id, b.column1, 100000 FROM accounts, (VALUES ('subscription'), ('wallet')) AS b;",
        )
        .await;
        let mut deeds = deeds(&self.plan);
        deeds.sort_by_key(|deed| deed.at);
        let mut deeds = deeds.into_iter().peekable();
        let passes = std::mem::take(&mut self.plan.passes);
        let mut braked_since = None;
        for (nth, pass) in passes.iter().enumerate() {
            while let Some(deed) = deeds.next_if(|deed| deed.at <= pass.at) {
                self.run(&deed.sql).await;
            }
            self.stage.clock.set(at(self.plan.clock(pass.at)));
            self.answers(pass.at);
            self.passes(pass).await;
            let engaged = self.workers[0].store.brake().await.unwrap().engaged_at.is_some();
            braked_since = engaged.then(|| braked_since.unwrap_or(pass.at));
            if let (Some(since), Some(after)) = (braked_since, self.plan.released_after)
                && pass.at - since >= after
            {
                self.workers[0].store.release_brake("a person", "that is the plan").await.unwrap();
                braked_since = None;
            }
            self.nothing_is_overdue(pass.at).await;
            if nth.is_multiple_of(8) || pass.at == END {
                self.books_balance().await;
            }
        }
        self.files_are_there().await;
        for worker in &self.workers {
            worker.store.close().await;
        }
        self.sql.close().await;
        std::fs::remove_dir_all(&self.folder).unwrap();
    }

    /// What the providers say at this minute.
    fn answers(&self, minute: i64) {
        for charge in &self.plan.charges {
            let mut outages = self.plan.outages.iter();
            let down = outages
                .any(|each| each.provider == charge.provider && (each.from..each.until).contains(&minute));
            for job in &charge.jobs {
                let (status, body) = job.answer(minute, down);
                self.stage.simulator.set_answer(&job.id, Canned::json(status, &body));
            }
        }
    }

    /// Workers side by side; some die.
    async fn passes(&mut self, pass: &Pass) {
        let runs = pass.workers.iter().zip(&self.workers).map(|(dies, parts)| async move {
            let orders = Orders { mode: "schedule", dry_run: false, since: None, stop: Stop::new() };
            let run = Box::pin(pass::run(parts, orders, |_| {}));
            match dies {
                None => Some(run.await),
                // Dropped where it stands: what it has begun is rolled back, what it has claimed stays leased.
                Some(after) => tokio::time::timeout(Duration::from_micros(*after), run).await.ok(),
            }
        });
        for ended in futures_util::future::join_all(runs).await {
            match ended {
                None => self.died += 1,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.give_up(&format!("a pass failed: {}", makegood::report::chain(&error)), "").await;
                }
            }
        }
    }

    async fn nothing_is_overdue(&self, minute: i64) {
        let before = minute - WINDOW - self.plan.slack();
        if before <= 0 {
            return;
        }
        let wrong = self.lines(&books::OVERDUE.replace("$before", &at(before).micros().to_string())).await;
        if let Some(first) = wrong.first() {
            self.give_up(
                &format!("P15, at minute {minute}, {} overdue: {}", wrong.len(), wrong.join("; ")),
                first,
            )
            .await;
        }
    }

    async fn books_balance(&self) {
        let slack = self.plan.slack() * 60_000_000;
        for (what, sql) in books::ALWAYS {
            let sql =
                sql.replace("$brake", &self.plan.brake.to_string()).replace("$slack_us", &slack.to_string());
            let wrong = self.lines(&sql).await;
            if let Some(first) = wrong.first() {
                self.give_up(&format!("{} {what}: {}", wrong.len(), wrong.join("; ")), first).await;
            }
        }
    }

    async fn files_are_there(&self) {
        for line in self.lines("SELECT uri || ' ' || size_bytes || ' ' || provider_job_id || ' ' || provider_output_index FROM stored_outputs WHERE id LIKE 'makegood:%'").await {
            let words: Vec<&str> = line.split(' ').collect();
            let path = url::Url::parse(words[0]).unwrap().to_file_path().unwrap();
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            if there != format!("output {} of {}", words[3], words[2]) || there.len().to_string() != words[1] {
                self.give_up(&format!("{line}: the file says {there:?}"), "").await;
            }
        }
    }

    /// Fails with the seed, the world around, and the story of the item.
    async fn give_up(&self, why: &str, item: &str) -> ! {
        let plan = &self.plan;
        let item = item.split(' ').next().unwrap_or_default();
        let (charge, index) = item.split_once('/').unwrap_or((item, "0"));
        let mut told = format!(
            "MAKEGOOD_TEST_SEED={}: {why}\nthe clock: {:?}\noutages: {:?}\nbrake at {} an hour, released after {:?}\n",
            plan.seed, plan.skew, plan.outages, plan.brake, plan.released_after
        );
        if let Some(planned) = plan.charges.iter().find(|each| each.id == charge) {
            let more = format!("planned: {planned:#?}\n");
            told += &more;
        }
        let story = books::STORY.replace("$charge", charge).replace("$index", index);
        let more = format!(
            "what happened (minutes by makegood's clock):\n  {}",
            self.lines(&story).await.join("\n  ")
        );
        told += &more;
        panic!("{told}");
    }
}

/// Everything that the platform does, as SQL with its time.
fn deeds(plan: &Plan) -> Vec<Deed> {
    let mut deeds = Vec::new();
    let mut deed = |at: i64, sql: String| {
        if at <= END {
            deeds.push(Deed { at, sql });
        }
    };
    for (nth, charge) in plan.charges.iter().enumerate() {
        let Charge { id, provider, .. } = charge;
        let micros = |minute: i64| at(minute).micros();
        let total = i64::try_from(charge.items.len()).unwrap() * 20;
        let subscription = total * charge.subscription / 100;
        let job = |job: usize| charge.jobs.get(job).map_or("NULL".to_owned(), |job| format!("'{}'", job.id));
        let of_charge = if charge.own_jobs { "NULL".to_owned() } else { job(0) };
        let mut sql = format!(
            "BEGIN IMMEDIATE; INSERT INTO charges VALUES ('{id}', 'a{}', 'p-{id}', 'n-{id}', '{provider}', 'm', {of_charge}, {}, {subscription}, {}, NULL);",
            charge.account,
            micros(charge.at),
            total - subscription
        );
        for (bucket, credits) in [("subscription", subscription), ("wallet", total - subscription)] {
            let more = format!(
                "INSERT INTO ledger_entries VALUES ('taken:{id}:{bucket}', 'a{0}', '{bucket}', -{credits}, 'charge', '{id}', NULL, NULL, {1});
                 UPDATE balances SET credits = credits - {credits} WHERE account_id = 'a{0}' AND bucket = '{bucket}';",
                charge.account,
                micros(charge.at)
            );
            sql += &more;
        }
        deed(charge.committed, sql + "COMMIT;");
        let mut items = "BEGIN IMMEDIATE;".to_owned();
        for (index, item) in charge.items.iter().enumerate() {
            let own = if charge.own_jobs { job(item.job) } else { "NULL".to_owned() };
            let more = format!("INSERT INTO charge_items VALUES ('{id}', {index}, 20, {own}, NULL, NULL);");
            items += &more;
        }
        deed(charge.items_at, items + "COMMIT;");
        deed(
            charge.cancelled,
            format!(
                "UPDATE charges SET cancelled_at = {} WHERE id = '{id}'",
                micros(charge.cancelled.min(END))
            ),
        );
        for (index, item) in charge.items.iter().enumerate() {
            if item.failed_at <= END {
                let sql = format!(
                    "UPDATE charge_items SET failed_at = {} WHERE charge_id = '{id}' AND output_index = {index}",
                    micros(plan.clock(item.failed_at))
                );
                deed(item.failed_at, sql);
            }
            if let Some(sql) = own(plan, nth, index, item) {
                deed(item.own_at, sql);
            }
        }
    }
    deeds
}

/// What the platform does about one item by itself: as one that looks first whether that is still needed.
fn own(plan: &Plan, nth: usize, index: usize, item: &Item) -> Option<String> {
    let charge = &plan.charges[nth];
    let id = &charge.id;
    let now = at(plan.clock(item.own_at.min(END))).micros();
    let needed = format!(
        "NOT EXISTS (SELECT 1 FROM ledger_entries WHERE charge_id = '{id}' AND output_index = {index} AND kind = 'refund')
         AND NOT EXISTS (SELECT 1 FROM stored_outputs WHERE charge_id = '{id}' AND output_index = {index})"
    );
    let store = |link: &str, node: &str| {
        let job = charge.jobs.get(item.job)?;
        Some(format!(
            "INSERT INTO stored_outputs SELECT 'own:{id}:{index}', {link}, '{}', '{}', {}, 'p-{id}', '{node}', 'file:///own', 'image/png', 3,
                    'own-{id}-{index}', {now}, NULL, NULL WHERE {needed}",
            charge.provider, job.id, item.output
        ))
    };
    match item.own {
        Own::Nothing => None,
        Own::Stores => store(&format!("'{id}', {index}"), &format!("n-{id}")),
        Own::StoresInTheWrongPlace => store(&format!("'{id}', {index}"), "elsewhere"),
        Own::StoresLinkedToNothing => store("NULL, NULL", &format!("n-{id}")),
        Own::StoresOnAnother => {
            let other = &plan.charges[nth.checked_sub(1)?];
            store(&format!("'{}', 0", other.id), &format!("n-{}", other.id))
        }
        Own::Refunds => {
            // From the one bucket that all was drawn from: with two, only makegood knows what is left of each.
            let bucket = match charge.subscription {
                0 => "wallet",
                100 => "subscription",
                _ => return None,
            };
            Some(format!(
                "BEGIN IMMEDIATE;
                 UPDATE balances SET credits = credits + 20 WHERE account_id = 'a{0}' AND bucket = '{bucket}' AND {needed};
                 INSERT INTO ledger_entries SELECT 'own:{id}:{index}', 'a{0}', '{bucket}', 20, 'refund', '{id}', {index}, NULL, {now} WHERE {needed};
                 COMMIT;",
                charge.account
            ))
        }
    }
}

/// Worlds from `first` on, one after the other; how many workers died in them.
async fn worlds(next: &AtomicU64, until: u64, charges: u64) -> u64 {
    let stage = Stage::new().await;
    let mut died = 0;
    loop {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        if seed >= until {
            return died;
        }
        let mut world = World::new(&stage, Plan::new(seed, charges)).await;
        world.live().await;
        died += world.died;
    }
}

/// As many threads, each with a stage of its own and worlds one after the other.
fn on_threads(threads: usize, first: u64, many: u64, charges: u64) {
    let (next, began) = (Arc::new(AtomicU64::new(first)), Instant::now());
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let next = Arc::clone(&next);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(worlds(&next, first + many, charges))
            })
        })
        .collect();
    let mut died = 0;
    for thread in threads {
        match thread.join() {
            Ok(count) => died += count,
            Err(why) => std::panic::resume_unwind(why),
        }
    }
    eprintln!(
        "{many} worlds from seed {first}, {died} workers died in them, {} ms",
        began.elapsed().as_millis()
    );
}

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Always the same worlds, so that a change that breaks one is the change that did it.
#[test]
fn p15_every_world_ends_with_everybody_made_good() {
    match number_from("MAKEGOOD_TEST_SEED") {
        Some(seed) => on_threads(1, seed, 1, 12),
        None => on_threads(2, 1, 10, 12),
    }
}

/// As many as you like: `docs/testing.md`.
#[test]
#[ignore = "minutes to hours: scripts/simulate.sh runs it"]
fn many_worlds() {
    let first = number_from("MAKEGOOD_TEST_SEED").unwrap_or(1);
    let many = number_from("MAKEGOOD_TEST_WORLDS").unwrap_or(10_000);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    on_threads(threads, first, many, 12);
}
