//! Real input: the built binary on PostgreSQL, tens of thousands of charges of mixed kinds,
//! providers over real HTTP.
//!
//! `real_input/kinds.rs` lists the expected result of each charge, written by hand. Killed at
//! random moments, run twice at once, stopped by the brake or undisturbed: the end is the same, and
//! the books agree to the credit. `cargo test` runs a small size; `scripts/real-input.sh` runs
//! fifty thousand charges on a release build.

mod books;
mod figures;
mod kinds;
pub mod seed;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use makegood::demo::simulator::{Simulator, write_provider_files};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use tempfile::TempDir;
use url::Url;

use crate::binary::{Ended, Makegood, run_of};
use crate::database::{self, TestDatabase};
use seed::{Size, file_url};

/// Small enough for `cargo test`.
const SMALL: Size = Size { charges: 3_000, orphans: 570, troubled: kinds::TROUBLED };

/// How long a dead worker's leases last in these tests.
const LEASE: &str = "5s";

/// Lets every refund through.
const NO_BRAKE: &str = "max_refunds_per_hour = 0\nmax_refunds_per_day = 0\nmax_refund_share_per_day = 0\nmax_own_fault_refunds_per_day = 0\n\
                        max_credit_share_per_day = 0\nmax_refunds_per_day_per_account = 0\nmax_credit_share_per_day_per_account = 0";
/// Small enough that there is a between at which to kill, and something left for another to claim.
const SMALL_BATCH: u32 = 16;

struct World {
    simulator: Simulator,
    folder: TempDir,
    pool: PgPool,
    database: TestDatabase,
    /// The role as which makegood connects: the owner until the tables exist, then the role of the
    /// page.
    url: String,
}

impl World {
    async fn new(size: Size) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = database::database().await;
        let folder = tempfile::tempdir().unwrap();
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let providers = folder.path().join("providers");
        write_provider_files(&providers, &simulator.base_url()).unwrap();
        // Nothing listens on port 1.
        let offline = std::fs::read_to_string(providers.join("replicate.toml")).unwrap();
        let offline = offline
            .replace("name = \"replicate\"", "name = \"offline\"\nretries = 0")
            .replace(&simulator.base_url(), "http://127.0.0.1:1");
        std::fs::write(providers.join(format!("{}.toml", kinds::OFFLINE)), offline).unwrap();
        let pool = PgPool::connect(&database.url).await.unwrap();
        let url = database.url.clone();
        let mut world = Self { simulator, folder, pool, database, url };
        world.settings(NO_BRAKE, 256);
        let migrated = world.makegood(&["migrate", "--reference-schema"]).output().await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        world.url = database::as_least_privileged(&world.database).await;
        world.run(&seed::sql(size)).await;
        world.hash_stored_files().await;
        world
    }

    /// Writes the settings; `brake` is its section, `batch` how much is claimed and settled at
    /// once.
    fn settings(&self, brake: &str, batch: u32) {
        let text = format!(
            "[detect]\nunknown_job_grace = \"4h\"\n[providers]\ndir = \"providers\"\n[storage]\nurl = \"file:./outputs\"\n\
             [recovery]\nallow_loopback = true\ntime_budget = \"4s\"\n[pass]\nlease = \"{LEASE}\"\nbatch = {batch}\n\
             [brake]\n{brake}\n[log]\nlevel = \"warn\"\n"
        );
        std::fs::write(self.folder.path().join("makegood.toml"), text).unwrap();
    }

    fn makegood(&self, arguments: &[&str]) -> Makegood {
        let arguments = [&["--config", "makegood.toml"], arguments].concat();
        run_of(&binary(), &arguments).within(self.folder.path()).env("DATABASE_URL", &self.url)
    }

    /// One pass to its end.
    async fn pass(&self) -> Ended {
        self.makegood(&["run"]).output().await
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap();
    }

    async fn lines(&self, sql: &str) -> Vec<String> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&self.pool).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}\n{error}"));
        rows.iter().map(|row| row.get::<Option<String>, _>(0).unwrap_or_else(|| "NULL".to_owned())).collect()
    }

    async fn number(&self, sql: &str) -> i64 {
        self.lines(&format!("SELECT ({sql})::text")).await[0].parse().unwrap()
    }

    /// The only kind in which a stored file's hash matters: makegood must find out which of the
    /// job's files it is.
    async fn hash_stored_files(&self) {
        let rows = sqlx::query(
            "SELECT id, provider, provider_job_id FROM stored_outputs WHERE provider_job_id LIKE 'two-of-three-%'",
        );
        for row in rows.fetch_all(&self.pool).await.unwrap() {
            let (id, provider, job): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let hash = self.hash_at_provider(&provider, &job, 0).await;
            let update =
                sqlx::query("UPDATE stored_outputs SET sha256 = $1 WHERE id = $2").bind(hash).bind(id);
            update.execute(&self.pool).await.unwrap();
        }
    }

    async fn hash_at_provider(&self, provider: &str, job: &str, nth: i64) -> String {
        let url = file_url(&self.simulator.base_url(), provider, job, nth);
        let response = reqwest::Client::builder().no_proxy().build().unwrap().get(&url).send().await.unwrap();
        assert_eq!(response.status(), 200, "{url}");
        sha256(&response.bytes().await.unwrap())
    }

    async fn state(&self) -> Vec<String> {
        self.lines(books::STATE).await
    }

    /// Every item ended as its kind says, and ledger, balances, refunds, outputs, files and events
    /// agree.
    async fn books_agree(&self) {
        for (what, sql) in books::NONE {
            let wrong = self.lines(sql).await;
            assert!(
                wrong.is_empty(),
                "{} {what}, such as:\n{}",
                wrong.len(),
                wrong[..wrong.len().min(20)].join("\n")
            );
        }
        self.files_are_the_providers().await;
    }

    /// Each recovered file is on disk, whole, and the one that the provider offers for this item.
    async fn files_are_the_providers(&self) {
        let rows = sqlx::query(
            "SELECT s.uri, s.sha256, s.size_bytes, s.provider, s.provider_job_id, s.provider_output_index
             FROM stored_outputs s WHERE s.id LIKE 'makegood:%'",
        );
        let rows = rows.fetch_all(&self.pool).await.unwrap();
        assert_eq!(
            rows.len(),
            usize::try_from(
                self.number("SELECT count(*) FROM real_input.items WHERE want LIKE 'recovered %'").await
            )
            .unwrap()
        );
        let mut hashes = BTreeSet::new();
        for row in &rows {
            let (uri, hash, size): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
            let (provider, job, nth): (String, String, i64) = (row.get(3), row.get(4), row.get(5));
            let bytes = std::fs::read(path_of(&uri)).unwrap_or_else(|why| panic!("{uri}: {why}"));
            assert_eq!((sha256(&bytes), i64::try_from(bytes.len()).unwrap()), (hash.clone(), size), "{uri}");
            if job.contains("inline-") {
                assert!(bytes.ends_with(job.as_bytes()), "{uri} is not what was in the answer");
            } else {
                assert_eq!(
                    hash,
                    self.hash_at_provider(&provider, &job, nth).await,
                    "{uri} is not file {nth} of {job}"
                );
            }
            assert!(hashes.insert(hash), "{uri} is the file of two items");
        }
    }

    /// Files in the storage that no row names. Only a killed process may leave them.
    async fn unnamed_files(&self) -> Vec<PathBuf> {
        let named: BTreeSet<PathBuf> = self
            .lines("SELECT uri FROM stored_outputs WHERE id LIKE 'makegood:%'")
            .await
            .iter()
            .map(|uri| path_of(uri))
            .collect();
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().canonicalize().unwrap().join("outputs")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !named.contains(&path) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// Whether a worker, dead or alive, still holds anything.
    async fn leased(&self) -> i64 {
        self.number("SELECT count(*) FROM makegood_orphans WHERE leased_until IS NOT NULL").await
    }

    /// Waits until the leases of the dead have run out, by the database's clock.
    async fn outlive_the_dead(&self) {
        while self.number("SELECT count(*) FROM makegood_orphans WHERE leased_until > now()").await > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs passes until no orphan is leased, by a live worker or a dead one.
    async fn pass_until_nothing_is_held(&self) {
        loop {
            let ended = self.pass().await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            if self.leased().await == 0 {
                return;
            }
            self.outlive_the_dead().await;
        }
    }
}

fn path_of(uri: &str) -> PathBuf {
    Url::parse(uri).unwrap().to_file_path().unwrap_or_else(|()| panic!("{uri} is no file"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn report(ended: &Ended) -> Json {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|why| panic!("{why}: {ended:?}"))
}

/// Two end states, line by line.
fn assert_same(what: &str, one: &[String], other: &[String]) {
    let (one, other): (BTreeSet<_>, BTreeSet<_>) = (one.iter().collect(), other.iter().collect());
    let differ: Vec<String> = one
        .difference(&other)
        .map(|line| format!("- {line}"))
        .chain(other.difference(&one).map(|line| format!("+ {line}")))
        .collect();
    assert!(
        differ.is_empty(),
        "{what}: {} lines differ, such as:\n{}",
        differ.len(),
        differ[..differ.len().min(20)].join("\n")
    );
}

/// A seed for what is random here: printed, and taken from `MAKEGOOD_TEST_SEED` to try the same
/// again.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        let given = std::env::var("MAKEGOOD_TEST_SEED")
            .ok()
            .map(|text| text.parse().expect("MAKEGOOD_TEST_SEED is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        eprintln!("MAKEGOOD_TEST_SEED={seed}");
        Self(seed)
    }

    /// From 0 up to below `end` (splitmix64).
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_p15_every_charge_ends_as_expected_whichever_process_dies() {
    ends_alike(SMALL, 3).await;
}

/// Undisturbed, run twice, killed and restarted, two at once: the end is the same.
async fn ends_alike(size: Size, kills: u64) {
    let alone = World::new(size).await;
    let first = alone.pass().await;
    assert_eq!(first.code, Some(0), "{first:?}");
    alone.books_agree().await;
    assert_eq!(alone.unnamed_files().await, Vec::<PathBuf>::new());
    let orphans = alone.number("SELECT count(*) FROM makegood_orphans").await;
    assert!(orphans >= i64::try_from(size.orphans).unwrap(), "only {orphans} orphans");
    // A settle that takes an output from an item opens that item, unless a scan came to it first.
    // The report counts scans.
    let by_scans =
        "SELECT count(*) FROM makegood_orphans WHERE opened_by NOT IN ('taken_from', 'items_mended')";
    assert_eq!(report(&first)["opened"].as_i64(), Some(alone.number(by_scans).await));
    let state = alone.state().await;
    let ends = alone.number("SELECT count(*) FROM makegood_resolutions").await;

    let second = alone.pass().await;
    assert_eq!(second.code, Some(0), "{second:?}");
    assert_same("a second run", &state, &alone.state().await);
    alone.books_agree().await;
    assert_eq!(alone.unnamed_files().await, Vec::<PathBuf>::new());
    drop(alone);

    let killed = World::new(size).await;
    killed.settings(NO_BRAKE, SMALL_BATCH);
    let mut dice = Dice::new();
    for _ in 0..kills {
        kill_somewhere(&killed, ends, &mut dice).await;
        killed.outlive_the_dead().await;
    }
    killed.pass_until_nothing_is_held().await;
    assert_same("killed and begun again", &state, &killed.state().await);
    killed.books_agree().await;
    eprintln!("the killed left {} files that no row names", killed.unnamed_files().await.len());
    drop(killed);

    let shared = World::new(size).await;
    shared.settings(NO_BRAKE, SMALL_BATCH);
    let (one, other) = tokio::join!(shared.pass(), shared.pass());
    assert_eq!((one.code, other.code), (Some(0), Some(0)), "{one:?} {other:?}");
    eprintln!("two at once: {} and {} claims", report(&one)["claimed"], report(&other)["claimed"]);
    shared.pass_until_nothing_is_held().await;
    assert_same("two at once", &state, &shared.state().await);
    shared.books_agree().await;
    assert_eq!(shared.unnamed_files().await, Vec::<PathBuf>::new());
}

/// Starts a pass and kills it: one time in three after some milliseconds, otherwise a moment after
/// some of its items have ended.
async fn kill_somewhere(world: &World, ends: i64, dice: &mut Dice) {
    let ended = "SELECT count(*) FROM makegood_resolutions";
    let before = world.number(ended).await;
    let left = u64::try_from(ends - before).unwrap();
    let until = if dice.below(3) == 0 { before } else { before + i64::try_from(dice.below(left)).unwrap() };
    let moment = Duration::from_micros(dice.below(if until == before { 1_000_000 } else { 50_000 }));
    let mut run = world.makegood(&["run"]).start();
    while world.number(ended).await < until && !run.has_ended() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(moment).await;
    run.kill();
    let killed = run.ended().await;
    eprintln!(
        "killed between {until} and {} of {ends} ends ({:?}), {} orphans leased",
        world.number(ended).await,
        killed.status,
        world.leased().await
    );
}

/// The default brake admits a thousand refunds, reports it, and everything else goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brake_stops_at_exactly_a_thousand_refunds_and_recoveries_go_on() {
    let world = World::new(Size { charges: 1_000, orphans: 1_150, troubled: kinds::MOSTLY_REFUNDS }).await;
    // Nearly every charge of this world is refunded, and its accounts are few: by these limits it
    // would stop earlier.
    let brake = "max_refund_share_per_day = 0\nmax_credit_share_per_day = 0\nmax_refunds_per_day_per_account = 0\n\
                 max_credit_share_per_day_per_account = 0";
    world.settings(brake, 256);
    let due = world.number("SELECT count(*) FROM real_input.items WHERE want LIKE 'refunded %'").await;
    assert!(due > 1_000, "only {due} refunds are due");

    let ended = world.pass().await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("the brake is on"), "{}", ended.stderr);
    let report = report(&ended);
    assert_eq!(report["unresolved"]["held_by_brake"].as_i64(), Some(due - 1_000), "{report}");
    assert!(report["unresolved"]["brake"].as_str().is_some_and(|why| why.contains("1000")), "{report}");
    assert_eq!(world.number("SELECT count(*) FROM makegood_refunds").await, 1_000);
    assert_eq!(
        world.number("SELECT count(*) FROM makegood_orphans WHERE state = 'held' AND reason = 'brake'").await,
        due - 1_000
    );
    let others = "SELECT e.charge_id || '/' || e.output_index || ' ' || e.want || ' ' || o.state || ' ' || coalesce(o.reason, '-')
                  FROM real_input.expected e JOIN makegood_orphans o USING (charge_id, output_index)
                  WHERE e.want NOT LIKE 'refunded %' AND e.want <> 'open *' AND e.want <> o.state || ' ' || o.reason";
    assert_eq!(world.lines(others).await, Vec::<String>::new());
    world.files_are_the_providers().await;

    // A second run refunds nothing either, and still reports it.
    let again = world.pass().await;
    assert_eq!(again.code, Some(3), "{again:?}");
    assert_eq!(world.number("SELECT count(*) FROM makegood_refunds").await, 1_000);
}

/// The whole of it, with figures: `scripts/real-input.sh`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes on a release build: scripts/real-input.sh runs it"]
async fn at_full_size() {
    let number =
        |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let size = Size {
        charges: number("MAKEGOOD_TEST_CHARGES", 50_000),
        orphans: number("MAKEGOOD_TEST_ORPHANS", 5_000),
        troubled: kinds::TROUBLED,
    };
    if std::env::var_os("MAKEGOOD_TEST_FIGURES_ONLY").is_none() {
        ends_alike(size, 5).await;
    }
    figures::print(size).await;
}

/// The built binary, or the one that `MAKEGOOD_TEST_BINARY` names: to measure two builds by one
/// stick.
pub fn binary() -> String {
    std::env::var("MAKEGOOD_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_makegood").to_owned())
}
