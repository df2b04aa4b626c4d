//! What worlds share that run one after the other, as making it costs more than a world does: the simulated provider, the
//! provider files, and a database with its connections, which is emptied before each.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use makegood::clock::Clock;
use makegood::config::{LoadArgs, Settings};
use makegood::demo::simulator::Simulator;
use makegood::pass::{self, Rules};
use makegood::provider::Providers;
use makegood::recovery::{Fetcher, Limits};
use makegood::store::Store;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::bench::Bench;
use super::plan::{PROVIDERS, WORKERS};
use super::start;

/// What one worker has for itself, as a process of its own would.
pub struct Kit {
    pub clock: Clock,
    pub providers: Arc<Providers>,
    pub store: Store,
}

pub struct Stage {
    /// The platform's.
    pub clock: Clock,
    pub simulator: Simulator,
    pub rules: Rules,
    pub folder: TempDir,
    /// The workers', and last the operator's.
    pub kits: Vec<Kit>,
    /// Files come inside the answers here: it has nothing to remember.
    pub fetcher: Arc<Fetcher>,
    pub bench: Bench,
    /// For whoever releases the brake.
    pub desk: Store,
    /// The platform's, and the checks'.
    pub sql: SqlitePool,
    /// What the platform does while a question about a job of that charge is under way, in order.
    pub beside: Arc<Mutex<Vec<(usize, String)>>>,
    /// What it has begun of that.
    begun: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Empties the database.
    broom: SqlitePool,
    empties: String,
}

impl Stage {
    pub async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::simulated(start());
        // In memory, where there is such a place: a world that flushes to a disk waits for it most of its time.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let files = folder.path().join("providers");
        std::fs::create_dir(&files).unwrap();
        for (name, breaker, more) in PROVIDERS {
            // A worker that stands still is not to run out of real time: by the world's clock none has passed.
            let text = format!(
                "[provider]\nname = \"{name}\"\nretries = 0\nconnect_timeout = \"1h\"\nread_timeout = \"1h\"\ntimeout = \"1h\"\n\
                 {breaker}output_hosts = []\n{more}\
                 [ask]\nrequest = \"GET {}/replicate/v1/predictions/{{job}}\"\nread = '.body'\n",
                simulator.base_url()
            );
            std::fs::write(files.join(format!("{name}.toml")), text).unwrap();
        }
        let settings =
            Settings::load(&LoadArgs { working_dir: folder.path().to_owned(), ..LoadArgs::default() })
                .unwrap();
        let file = folder.path().join("world.db");
        let limits = Limits { allow_loopback: true, ..pass::copy_limits(&settings) };
        let mut kits = Vec::new();
        let mut stores = stores(&file).await;
        let desk = stores.remove(0).with_clock(clock.clone());
        for store in stores {
            let clock = Clock::simulated(start());
            kits.push(Kit {
                store: store.with_clock(clock.clone()),
                providers: Arc::new(Providers::load(Some(&files), clock.clone()).unwrap()),
                clock,
            });
        }
        let broom = open(&file, false).await;
        // The platform's, see `deeds`.
        let lost = "CREATE TABLE lost_rows (id text NOT NULL, charge_id text NOT NULL, output_index integer NOT NULL)";
        sqlx::raw_sql(lost).execute(&broom).await.unwrap();
        let empties = empties(&broom, &folder.path().join("empty.db")).await;
        let sql = open(&file, true).await;
        let beside: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
        let begun: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (platform, deeds, doing) = (sql.clone(), Arc::clone(&beside), Arc::clone(&begun));
        let time = clock.clone();
        simulator.on_ask(Arc::new(move |job| {
            let due: Vec<(usize, String)> = {
                let mut deeds = deeds.lock().unwrap();
                deeds.extract_if(.., |(charge, _)| job.starts_with(&format!("j{charge}-"))).collect()
            };
            let (platform, now) = (platform.clone(), time.now().micros().to_string());
            let (done, is_done) = oneshot::channel();
            // Of its own: the question is dropped with the worker that asks and dies, and the platform does not stop between
            // its BEGIN and its COMMIT for that.
            doing.lock().unwrap().push(tokio::spawn(async move {
                for (_, sql) in due {
                    let sql = sql.replace("$now", &now);
                    let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&platform).await;
                    done.unwrap_or_else(|error| panic!("{sql}\n{error}"));
                }
                // Nobody may wait for it any more.
                let _ = done.send(());
            }));
            Box::pin(async move { is_done.await.unwrap_or_default() })
        }));
        Self {
            rules: Rules::new(&settings),
            clock,
            simulator,
            kits,
            fetcher: Arc::new(Fetcher::new(limits).unwrap()),
            bench: Bench::new(),
            desk,
            sql,
            beside,
            begun,
            broom,
            empties,
            folder,
        }
    }

    /// Waits until the platform has done what it has begun.
    pub async fn platform_is_done(&self) {
        let begun = std::mem::take(&mut *self.begun.lock().unwrap());
        for deed in begun {
            deed.await.unwrap();
        }
    }

    /// As after `makegood migrate`.
    pub async fn empty(&self) {
        sqlx::raw_sql(AssertSqlSafe(self.empties.clone())).execute(&self.broom).await.unwrap();
    }
}

fn url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

async fn open(file: &Path, foreign_keys: bool) -> SqlitePool {
    let options: SqliteConnectOptions = url(file).parse().unwrap();
    let options = options.busy_timeout(Duration::from_secs(30)).foreign_keys(foreign_keys);
    let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    pool.test_before_acquire(false).connect_with(options).await.unwrap()
}

/// Makes the tables, and connections to them for the desk, each worker and the operator.
async fn stores(file: &Path) -> Vec<Store> {
    let mut stores = Vec::new();
    for _ in 0..WORKERS + 2 {
        stores.push(Store::open(&url(file), 2, Duration::from_mins(1)).await.unwrap());
    }
    stores[0].migrate(true).await.unwrap();
    stores
}

/// Keeps a copy of the database as it is, and returns the SQL that makes it so again. The triggers that let nothing be
/// removed stay, and look away while that is done.
async fn empties(broom: &SqlitePool, copy: &Path) -> String {
    let run = async |sql: &str| sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(broom).await.unwrap();
    let texts = async |sql: &str| -> Vec<String> {
        run(sql).await.iter().map(|row| row.get::<String, _>(0)).collect()
    };
    run(&format!("VACUUM INTO '{}'", copy.display())).await;
    run(&format!("ATTACH '{}' AS before", copy.display())).await;
    run("CREATE TABLE emptying (now integer)").await;
    let guards =
        texts("SELECT sql FROM main.sqlite_master WHERE type = 'trigger' AND name LIKE '%never_removed'")
            .await;
    assert!(!guards.is_empty(), "the tables that are only ever added to have such triggers");
    for guard in guards {
        let name = guard.split_whitespace().nth(2).unwrap();
        let looks_away = guard.replacen("BEGIN", "WHEN NOT EXISTS (SELECT 1 FROM emptying) BEGIN", 1);
        assert!(looks_away != guard, "{guard}");
        run(&format!("DROP TRIGGER {name}; {looks_away}")).await;
    }
    let tables =
        texts("SELECT name FROM before.sqlite_master WHERE type = 'table' AND name <> 'sqlite_stat1'").await;
    let again: Vec<String> = tables
        .iter()
        .filter(|table| *table != "sqlite_sequence")
        .map(|table| {
            format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM before.{table};")
        })
        .collect();
    format!(
        "BEGIN IMMEDIATE; INSERT INTO emptying VALUES (1); {}
         DELETE FROM main.sqlite_sequence; INSERT INTO main.sqlite_sequence SELECT * FROM before.sqlite_sequence;
         DELETE FROM emptying; COMMIT;",
        again.join(" ")
    )
}
