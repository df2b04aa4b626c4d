//! Worlds of 48 hours, each drawn from a seed: the whole pipeline on SQLite or PostgreSQL, by a
//! clock that the test moves, with a simulated provider. Jobs fail, run for ever, answer nonsense
//! and lose their files. The platform stores late, in wrong places and twice, commits hours late,
//! adds items later and refunds by itself. Providers go down and contradict themselves. The clock
//! is wrong for hours. Workers run side by side, are suspended and die halfway.
//!
//! In every world, the books balance after every pass; every decision states what was true when it
//! was taken (`oracle`); and nothing is unresolved after its window unless the brake held it (P15,
//! made good within 24 hours). A failing world prints its seed and the history of the item. The
//! plan follows from the seed alone, and so does the order of workers that run at the same time
//! (`bench`). The order of the database's answers does not. `docs/testing.md` says how to run
//! thousands.

mod bench;
mod books;
mod database;
mod deeds;
mod job;
mod oracle;
mod plan;
mod stage;
mod tally;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use makegood::clock::Timestamp;

use database::Kind;
use plan::Plan;
use stage::Stage;
use tally::Tally;
use world::World;

const MINUTE: Duration = Duration::from_mins(1);
/// How often a long round prints its progress.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// So many worlds that fail, and no other is begun.
const ENOUGH: usize = 10;
/// Worlds with every test run: unoptimised, over a minute of one processor.
const SHORT: u64 = 12;
/// And on PostgreSQL, where a world costs more.
const SHORT_ON_POSTGRES: u64 = 3;
/// Stages at a time on PostgreSQL at most: each has up to a dozen connections, and the server has a
/// limit.
const MOST_STAGES: usize = 16;
/// Charges in an ordinary world, about.
const CHARGES: u64 = 11;
/// One world in this many is large: its batches are full, and its passes are long.
const LARGE_EVERY: u64 = 100;
/// Charges in a large one, about.
const LARGE: u64 = 200;
/// One world in this many is huge.
const HUGE_EVERY: u64 = 1_000;
/// Charges in a huge one, about: 1,250 to 3,750.
const HUGE: u64 = 2_500;

/// When every world begins.
fn start() -> Timestamp {
    Timestamp::parse("2026-03-01T00:00:00Z").unwrap()
}

/// The time of a minute of the plan.
fn at(minute: i64) -> Timestamp {
    let span = MINUTE * u32::try_from(minute.abs()).unwrap();
    if minute >= 0 { start() + span } else { start() - span }
}

/// Shared by several threads: the next seed, and the results so far.
struct Round {
    kind: Kind,
    next: AtomicU64,
    until: u64,
    tally: Mutex<(Tally, Instant)>,
    /// The seeds of the worlds that failed. Each has printed its history.
    failed: Mutex<Vec<u64>>,
    began: Instant,
}

impl Round {
    /// Worlds one after the other, as long as there are some. One that fails does not keep the
    /// others from being tried.
    async fn live(&self) {
        let mut stage = Stage::new(self.kind).await;
        loop {
            let seed = self.next.fetch_add(1, Ordering::SeqCst);
            if seed >= self.until || self.failed.lock().unwrap().len() >= ENOUGH {
                return;
            }
            let world = async { World::new(&stage, Plan::new(seed, charges(seed))).await.live().await };
            let Ok(lived) = AssertUnwindSafe(world).catch_unwind().await else {
                self.failed.lock().unwrap().push(seed);
                stage = Stage::new(self.kind).await;
                continue;
            };
            let mut tally = self.tally.lock().unwrap();
            tally.0.add(lived);
            if tally.1.elapsed() > TELL_EVERY {
                tally.1 = Instant::now();
                eprintln!("{}", tally.0.line(self.began.elapsed()));
            }
        }
    }
}

/// About how many charges the world of a seed has.
const fn charges(seed: u64) -> u64 {
    if seed.is_multiple_of(HUGE_EVERY) {
        HUGE
    } else if seed.is_multiple_of(LARGE_EVERY) {
        LARGE
    } else {
        CHARGES
    }
}

/// This many threads, each with a stage of its own and one world after the other.
fn on_threads(kind: Kind, threads: usize, first: u64, many: u64) -> Tally {
    let began = Instant::now();
    let round = Arc::new(Round {
        kind,
        next: AtomicU64::new(first),
        until: first + many,
        tally: Mutex::new((Tally::default(), began)),
        failed: Mutex::default(),
        began,
    });
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let round = Arc::clone(&round);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(round.live());
            })
        })
        .collect();
    for thread in threads {
        if let Err(why) = thread.join() {
            std::panic::resume_unwind(why);
        }
    }
    let mut tally = round.tally.lock().unwrap();
    eprintln!("from seed {first}: {}", tally.0.line(began.elapsed()));
    let failed = std::mem::take(&mut *round.failed.lock().unwrap());
    assert!(failed.is_empty(), "worlds {failed:?} failed: each tells its story above");
    std::mem::take(&mut tally.0)
}

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Always the same worlds, so that a change that breaks one is the change that did it.
#[test]
fn p15_every_world_ends_with_everybody_made_good() {
    let tally = match number_from("MAKEGOOD_TEST_SEED") {
        Some(seed) => on_threads(Kind::Sqlite, 1, seed, 1),
        None => on_threads(Kind::Sqlite, 4, 1, SHORT),
    };
    eprintln!("{tally}");
}

/// The same worlds on PostgreSQL, by the role that `docs/adopting.md` makes: there the database
/// posts the refunds.
#[test]
fn p15_every_world_on_postgres_ends_with_everybody_made_good() {
    let tally = match number_from("MAKEGOOD_TEST_SEED") {
        Some(seed) => on_threads(Kind::Postgres, 1, seed, 1),
        None => on_threads(Kind::Postgres, 2, 1, SHORT_ON_POSTGRES),
    };
    eprintln!("{tally}");
}

/// The largest kind alone, with its time and its memory: `docs/testing.md`.
#[test]
#[ignore = "minutes: a world of thousands of charges"]
fn p15_one_world_of_thousands_of_charges() {
    let tally = on_threads(Kind::Sqlite, 1, number_from("MAKEGOOD_TEST_SEED").unwrap_or(HUGE_EVERY), 1);
    eprintln!("{tally}");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    eprintln!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    assert!(tally.charges >= 1_000, "seed is a multiple of {HUGE_EVERY}");
}

/// As many as you like: `docs/testing.md`.
#[test]
#[ignore = "minutes to hours: scripts/simulate.sh runs it"]
fn many_worlds() {
    let first = number_from("MAKEGOOD_TEST_SEED").unwrap_or(1);
    let many = number_from("MAKEGOOD_TEST_WORLDS").unwrap_or(10_000);
    // A world waits for SQLite's threads much of its time: with two for each core, a quarter of it
    // was idle.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let tally = on_threads(Kind::Sqlite, 3 * cores, first, many);
    eprintln!("{tally}");
}

/// The same on PostgreSQL: `docs/testing.md`.
#[test]
#[ignore = "minutes to hours: scripts/simulate.sh --postgres runs it"]
fn many_worlds_on_postgres() {
    let first = number_from("MAKEGOOD_TEST_SEED").unwrap_or(1);
    let many = number_from("MAKEGOOD_TEST_WORLDS").unwrap_or(200);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let tally = on_threads(Kind::Postgres, (2 * cores).min(MOST_STAGES), first, many);
    eprintln!("{tally}");
}
