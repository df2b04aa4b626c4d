//! The parts that consecutive worlds share, because creating them costs more than a world: the
//! simulated provider, the provider files, and a database with its connections, which is emptied
//! before each world.

use std::path::Path;
use std::sync::{Arc, Mutex};

use makegood::clock::Clock;
use makegood::config::{LoadArgs, Settings};
use makegood::demo::simulator::Simulator;
use makegood::pass::{self, Rules};
use makegood::provider::Providers;
use makegood::recovery::{CopyLimits, Fetcher};
use makegood::store::Store;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::bench::Bench;
use super::database::{Database, Kind, Sql};
use super::plan::PROVIDERS;
use super::start;

/// The state of one worker, as a process of its own would have it.
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
    /// Files come inside the answers here, so it has nothing to record.
    pub fetcher: Arc<Fetcher>,
    pub bench: Bench,
    /// For the person who releases the brake.
    pub desk: Store,
    database: Database,
    /// The platform's actions while a question about a job of that charge is under way, in order.
    pub beside: Arc<Mutex<Vec<(usize, String)>>>,
    /// The actions that it has begun.
    begun: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Stage {
    pub async fn new(kind: Kind) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::simulated(start());
        // In memory, if there is such a place: otherwise a world would mostly wait for its disk.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let files = folder.path().join("providers");
        std::fs::create_dir(&files).unwrap();
        for (name, breaker, more) in PROVIDERS {
            // A suspended worker must not time out by real time: by the world's clock none has
            // passed.
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
        let limits = CopyLimits { allow_loopback: true, ..pass::copy_limits(&settings) };
        let mut kits = Vec::new();
        let (database, mut stores) = Database::new(kind, folder.path()).await;
        let desk = stores.remove(0).with_clock(clock.clone());
        for store in stores {
            let clock = Clock::simulated(start());
            kits.push(Kit {
                store: store.with_clock(clock.clone()),
                providers: Arc::new(Providers::load(Some(&files), clock.clone()).unwrap()),
                clock,
            });
        }
        let beside: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
        let begun: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (platform, deeds, doing) = (database.sql().clone(), Arc::clone(&beside), Arc::clone(&begun));
        let time = clock.clone();
        simulator.on_ask(Arc::new(move |job| {
            let due: Vec<(usize, String)> = {
                let mut deeds = deeds.lock().unwrap();
                deeds.extract_if(.., |(charge, _)| job.starts_with(&format!("j{charge}-"))).collect()
            };
            let (platform, now) = (platform.clone(), time.now().micros().to_string());
            let (done, is_done) = oneshot::channel();
            // Of its own: the question is dropped with the worker that asks and dies, and the
            // platform does not stop between its BEGIN and its COMMIT for that.
            doing.lock().unwrap().push(tokio::spawn(async move {
                for (_, sql) in due {
                    let sql = sql.replace("$now", &now);
                    platform.run(&sql).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
                }
                // The receiver may be gone.
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
            database,
            beside,
            begun,
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
        self.database.empty().await;
    }

    /// The platform's connection, and the checks'.
    pub fn sql(&self) -> &Sql {
        self.database.sql()
    }

    pub const fn is_on_postgres(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// Waits until the database has carried out what workers sent before they died: their last
    /// commit may be among it. After that everything that this pass has done is there to be judged.
    pub async fn all_is_written(&self) -> Result<(), String> {
        match &self.database {
            Database::Sqlite(database) => database.all_is_written().await,
            Database::Postgres(database) => {
                database.all_is_written(async || self.bench.breathe().await).await
            }
        }
    }
}
