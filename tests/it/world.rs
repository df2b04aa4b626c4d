//! A small platform for tests: a fresh database of either kind, a simulated provider over real
//! HTTP, a folder as storage, and a clock that the test moves. The test writes rows in plain SQL,
//! as a platform would, and reads the results the same way, not through makegood.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use makegood::clock::{Clock, Timestamp};
use makegood::config::{LoadArgs, Settings};
use makegood::demo::simulator::Simulator;
use makegood::detect::{Detection, DetectionObserver, Since};
use makegood::ops::stop::Stop;
use makegood::pass::{self, Orders, Parts, Rules};
use makegood::provider::Providers;
use makegood::recovery::{CopyLimits, Fetcher, ObjectStorage};
use makegood::report::PassReport;
use makegood::store::Store;
use sqlx::{AssertSqlSafe, PgPool, Row as _, SqlitePool};
use tempfile::TempDir;

use crate::database::{self, TestDatabase};

mod books;
mod charge;
pub use charge::{ChargeBuilder, ItemRow};

/// The database as the platform sees it.
#[derive(Clone)]
pub enum Sql {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

pub struct World {
    pub store: Store,
    pub sql: Sql,
    pub simulator: Simulator,
    pub clock: Clock,
    pub parts: Parts,
    pub folder: TempDir,
    pub database: TestDatabase,
    remembered: Mutex<books::Remembered>,
}

/// When every world begins.
pub fn start() -> Timestamp {
    Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
}

const TABLES: [&str; 28] = [
    "accounts",
    "charges",
    "charge_items",
    "stored_outputs",
    "balances",
    "ledger_entries",
    "makegood_accounts",
    "makegood_answers",
    "makegood_brake",
    "makegood_brake_events",
    "makegood_charges",
    "makegood_checks",
    "makegood_counters",
    "makegood_cursors",
    "makegood_erasures",
    "makegood_late_questions",
    "makegood_late_successes",
    "makegood_orphan_events",
    "makegood_orphans",
    "makegood_passes",
    "makegood_provider_brakes",
    "makegood_provider_shares",
    "makegood_provider_state",
    "makegood_recoveries",
    "makegood_refund_sums",
    "makegood_refunds",
    "makegood_resolutions",
    "makegood_uploads",
];

pub const MINUTE: Duration = Duration::from_mins(1);
pub const HOUR: Duration = Duration::from_hours(1);

impl Sql {
    async fn run(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres(pool) => sqlx::raw_sql(sql).execute(pool).await.map(drop),
            Self::Sqlite(pool) => sqlx::raw_sql(sql).execute(pool).await.map(drop),
        }
    }
}

impl World {
    pub async fn postgres() -> Self {
        Self::on(database::database().await, None).await
    }

    pub async fn sqlite() -> Self {
        Self::on(database::sqlite(), None).await
    }

    /// Over relations that the platform made itself by `schema`; `None`: the reference schema.
    pub async fn on(database: TestDatabase, schema: Option<&str>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::simulated(start());
        let owner = Store::open(&database.url, 1, Duration::from_secs(30)).await.unwrap();
        let sql = if database.url.starts_with("sqlite") {
            Sql::Sqlite(SqlitePool::connect(&database.url).await.unwrap())
        } else {
            Sql::Postgres(PgPool::connect(&database.url).await.unwrap())
        };
        if let Some(schema) = schema {
            sql.run(schema).await.unwrap();
        }
        owner.migrate(schema.is_none()).await.unwrap();
        owner.close().await;
        // From here on makegood may do what its documentation asks for, and the test what it likes.
        let url = database::as_least_privileged(&database).await;
        let store = Store::open(&url, 4, Duration::from_secs(30)).await.unwrap().with_clock(clock.clone());
        let folder = tempfile::tempdir().unwrap();
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let files = folder.path().join("providers");
        std::fs::create_dir(&files).unwrap();
        for (name, text) in makegood::demo::simulator::provider_files(&simulator.base_url()) {
            // Retrying is the provider room's own affair; here every answer counts.
            let text = text.replace("[provider]\n", "[provider]\nretries = 0\n");
            std::fs::write(files.join(format!("{name}.toml")), text).unwrap();
        }
        let args = LoadArgs { working_dir: folder.path().to_owned(), ..LoadArgs::default() };
        let settings = Settings::load(&args).unwrap();
        let limits = CopyLimits {
            allow_loopback: true,
            retry_delay: Duration::from_millis(1),
            ..pass::copy_limits(&settings)
        };
        let parts = Parts {
            store: store.clone(),
            providers: Arc::new(Providers::load(Some(&files), clock.clone()).unwrap()),
            storage: Arc::new(ObjectStorage::open("file:./outputs", folder.path()).unwrap()),
            fetcher: Arc::new(Fetcher::new(limits).unwrap()),
            rules: every_pass_looks_at_all(Rules::new(&settings)),
        };
        Self { store, sql, simulator, clock, parts, folder, database, remembered: Mutex::default() }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn pass_time(&self, span: Duration) {
        self.clock.set(self.now() + span);
    }

    /// One pass of everything that is due.
    pub async fn pass(&self) -> PassReport {
        self.pass_with(Self::orders()).await
    }

    pub async fn pass_with(&self, orders: Orders) -> PassReport {
        pass::run(&self.parts, orders, |_| {}).await.unwrap()
    }

    pub fn orders() -> Orders {
        Orders { mode: "run", dry_run: false, since: None, stop: Stop::new() }
    }

    /// Runs plain SQL; times are written with [`World::at`].
    pub async fn run(&self, sql: &str) {
        self.try_run(sql).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    }

    pub async fn try_run(&self, sql: &str) -> Result<(), sqlx::Error> {
        self.sql.run(sql).await
    }

    /// Runs `sql` while the first question about `job` is under way, before it is answered.
    pub fn while_asked(&self, job: &str, sql: String) {
        let (database, job) = (self.sql.clone(), job.to_owned());
        let once = Arc::new(std::sync::atomic::AtomicBool::new(false));
        self.simulator.on_ask(Arc::new(move |asked| {
            let (database, sql, once) = (database.clone(), sql.clone(), Arc::clone(&once));
            let meant = asked == job;
            Box::pin(async move {
                if meant && !once.swap(true, std::sync::atomic::Ordering::SeqCst) {
                    database.run(&sql).await.unwrap();
                }
            })
        }));
    }

    /// Runs `sql` while any question is under way.
    pub fn whenever_asked(&self, sql: String) {
        let database = self.sql.clone();
        self.simulator.on_ask(Arc::new(move |_| {
            let (database, sql) = (database.clone(), sql.clone());
            Box::pin(async move { database.run(&sql).await.unwrap() })
        }));
    }

    /// The first column of every row, as text; NULL is `-`.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(
            format!("SELECT CAST(x.v AS text) FROM ({sql}) AS x(v)").replace("AS x(v)", "AS x"),
        );
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        match &self.sql {
            Sql::Postgres(pool) => {
                let rows = sqlx::raw_sql(sql).fetch_all(pool).await.unwrap();
                rows.iter().map(|row| dash(row.get(0))).collect()
            }
            Sql::Sqlite(pool) => {
                let rows = sqlx::raw_sql(sql).fetch_all(pool).await.unwrap();
                rows.iter().map(|row| dash(row.get(0))).collect()
            }
        }
    }

    /// How the database would run a statement, a line a step.
    pub async fn plan(&self, sql: &str) -> Vec<String> {
        let (sql, column) = match &self.sql {
            Sql::Postgres(_) => (format!("EXPLAIN {sql}"), 0),
            Sql::Sqlite(_) => (format!("EXPLAIN QUERY PLAN {sql}"), 3),
        };
        let sql = AssertSqlSafe(sql);
        match &self.sql {
            Sql::Postgres(pool) => {
                sqlx::raw_sql(sql).fetch_all(pool).await.unwrap().iter().map(|row| row.get(column)).collect()
            }
            Sql::Sqlite(pool) => {
                sqlx::raw_sql(sql).fetch_all(pool).await.unwrap().iter().map(|row| row.get(column)).collect()
            }
        }
    }

    /// One number: a count or a sum; NULL is 0.
    pub async fn number(&self, sql: &str) -> i64 {
        self.texts(sql).await.first().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// An instant as a literal of this database.
    pub fn at(&self, at: Timestamp) -> String {
        match &self.sql {
            Sql::Postgres(_) => format!("timestamptz '{at}'"),
            Sql::Sqlite(_) => at.micros().to_string(),
        }
    }

    /// As if another pass had just tried a refund, with success: the next one does not within the
    /// hour.
    pub async fn just_tried(&self) {
        let (now, version) = (self.at(self.now()), env!("CARGO_PKG_VERSION"));
        let sql =
            format!("UPDATE makegood_checks SET checked_at = {now}, version = '{version}', result = 'ok'");
        self.run(&sql).await;
    }

    pub fn charge<'a>(&'a self, id: &'a str) -> ChargeBuilder<'a> {
        ChargeBuilder::new(self, id)
    }

    /// A balance row; `charge` does not create one.
    pub async fn balance(&self, account: &str, subscription: i64, wallet: i64) {
        self.run(&format!(
            "INSERT INTO accounts VALUES ('{account}', 'user');
             INSERT INTO balances VALUES ('{account}', 'subscription', {subscription}), ('{account}', 'wallet', {wallet});"
        ))
        .await;
        self.opens_with(account, "subscription", subscription);
        self.opens_with(account, "wallet", wallet);
    }

    pub async fn balance_of(&self, account: &str) -> (i64, i64) {
        let of = |bucket: &str| {
            format!(
                "SELECT credits AS v FROM balances WHERE account_id = '{account}' AND bucket = '{bucket}'"
            )
        };
        (self.number(&of("subscription")).await, self.number(&of("wallet")).await)
    }

    /// Stores an output as a platform would: linked to an item, in its place.
    pub async fn store_output(
        &self,
        id: &str,
        link: Option<(&str, i64)>,
        job: (&str, &str, i64),
        place: (&str, &str),
    ) {
        self.run(&self.output_row(id, link, job, place)).await;
    }

    /// The SQL of [`World::store_output`].
    pub fn output_row(
        &self,
        id: &str,
        link: Option<(&str, i64)>,
        job: (&str, &str, i64),
        place: (&str, &str),
    ) -> String {
        let (charge, index) = link.map_or(("NULL".to_owned(), "NULL".to_owned()), |(charge, index)| {
            (format!("'{charge}'"), index.to_string())
        });
        let at = self.at(self.now());
        let (provider, job_id, output) = job;
        let (project, node) = place;
        format!(
            "INSERT INTO stored_outputs (id, charge_id, output_index, provider, provider_job_id, provider_output_index,
                                         project_id, node_id, uri, content_type, size_bytes, sha256, stored_at)
             VALUES ('{id}', {charge}, {index}, '{provider}', '{job_id}', {output}, '{project}', '{node}',
                     'file:///x/{id}', 'image/png', 3, '{}', {at})",
            hex::encode(<sha2::Sha256 as sha2::Digest>::digest(id))
        )
    }

    /// The SQL of a refund by the platform itself; no index: for the whole charge.
    pub fn refund_row(&self, charge: &str, index: Option<i64>, bucket: &str, credits: i64) -> String {
        let named = index.map_or("NULL".to_owned(), |index| index.to_string());
        let at = self.at(self.now());
        format!(
            "INSERT INTO ledger_entries (id, account_id, bucket, credits, kind, charge_id, output_index, refund_id, posted_at)
             VALUES ('own-{charge}-{named}-{bucket}', 'ada', '{bucket}', {credits}, 'refund', '{charge}', {named}, NULL, {at});
             UPDATE balances SET credits = credits + {credits} WHERE account_id = 'ada' AND bucket = '{bucket}';"
        )
    }

    /// Makes a relation of the platform's anew without keys and constraints: real platforms lack
    /// some.
    pub async fn without_keys(&self, table: &str) {
        match &self.sql {
            Sql::Postgres(_) => {
                let constraints = self.texts(&format!("SELECT conname AS v FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype IN ('p', 'c')")).await;
                for name in constraints {
                    self.run(&format!("ALTER TABLE {table} DROP CONSTRAINT {name} CASCADE")).await;
                }
                let columns = self.texts(&format!("SELECT attname AS v FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND attnotnull")).await;
                for name in columns {
                    self.run(&format!("ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL")).await;
                }
            }
            Sql::Sqlite(_) => {
                self.run(&format!(
                    "PRAGMA legacy_alter_table = ON; CREATE TABLE loose AS SELECT * FROM {table}; DROP TABLE {table};
                     ALTER TABLE loose RENAME TO {table}; PRAGMA legacy_alter_table = OFF;"
                ))
                .await;
            }
        }
    }

    /// Runs `sql` against an append-only table of the platform's, with its trigger disabled.
    pub async fn unlocked(&self, table: &str, sql: &str) {
        if let Sql::Postgres(_) = &self.sql {
            self.run(&format!(
                "ALTER TABLE {table} DISABLE TRIGGER USER; {sql}; ALTER TABLE {table} ENABLE TRIGGER USER;"
            ))
            .await;
        } else {
            // Recreated without its keys, it has lost its triggers too.
            self.run(sql).await;
        }
    }

    /// Every row of every table, as text: to compare before and after.
    pub async fn all_rows(&self) -> Vec<(&'static str, Vec<String>)> {
        let mut all = Vec::new();
        for table in TABLES {
            let mut rows = match &self.sql {
                Sql::Postgres(_) => self.texts(&format!("SELECT row_to_json(t) AS v FROM {table} t")).await,
                Sql::Sqlite(_) => {
                    let columns = self
                        .texts(&format!("SELECT group_concat(name) AS v FROM pragma_table_info('{table}')"))
                        .await
                        .remove(0);
                    self.texts(&format!("SELECT json_array({columns}) AS v FROM {table}")).await
                }
            };
            rows.sort();
            all.push((table, rows));
        }
        all
    }

    /// `state reason` of an item's orphan; `-` if it has none.
    pub async fn fate(&self, charge: &str, index: i64) -> String {
        self.texts(&format!(
            "SELECT state || ' ' || coalesce(reason, '') AS v FROM makegood_orphans WHERE charge_id = '{charge}' AND output_index = {index}"
        ))
        .await
        .pop()
        .unwrap_or_else(|| "-".to_owned())
    }

    /// `(subscription, wallet)` that makegood gave back for a charge, by its own refunds.
    pub async fn refunded(&self, charge: &str) -> (i64, i64) {
        let of = |column: &str| {
            format!("SELECT sum({column}_credits) AS v FROM makegood_refunds WHERE charge_id = '{charge}'")
        };
        (self.number(&of("subscription")).await, self.number(&of("wallet")).await)
    }
}

/// One test, run on both databases: a function, and a module of its name with a test for each.
macro_rules! on_both {
    ($(#[$doc:meta])* async fn $name:ident($world:ident) $body:block) => {
        async fn $name($world: $crate::world::World) $body
        mod $name {
            $(#[$doc])*
            #[tokio::test]
            async fn on_postgres() { super::$name($crate::world::World::postgres().await).await }
            $(#[$doc])*
            #[tokio::test]
            async fn on_sqlite() { super::$name($crate::world::World::sqlite().await).await }
        }
    };
}
pub(crate) use on_both;

/// Watches detection and never stops it.
struct Unwatched;

impl DetectionObserver for Unwatched {
    fn is_ending(&self) -> bool {
        false
    }

    fn scanned(&self, _looked_at: u64, _up_to: Timestamp) {}

    fn opened(&self, _providers: &BTreeSet<String>) {}
}

/// Opens orphans like a pass that begins at `now`, and claims none.
pub async fn detect(parts: &Parts, since: Option<Since>, now: Timestamp) -> PassReport {
    let Parts { store, providers, rules, .. } = parts;
    let mut report = PassReport::default();
    let detection = Detection { store, providers, rules: &rules.detect, since, now };
    assert!(detection.run(&Unwatched, &mut report).await.unwrap(), "nobody stops it");
    report
}

/// A test inserts charges of any age between two passes at the same time, so each pass goes back to
/// the saved positions at once. `first_night` and the simulations test what happens between two
/// full scans.
fn every_pass_looks_at_all(mut rules: Rules) -> Rules {
    rules.detect.full_look_every = Duration::ZERO;
    // The clock stands still, so the detection lease of a dead process would never expire.
    rules.detect.turn.looks = 2;
    rules.detect.turn.look_every = Duration::from_millis(5);
    rules
}
