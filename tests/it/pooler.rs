//! makegood behind PgBouncer, in transaction mode and in session mode, and the error if that cannot
//! work.
//!
//! The pooler is Debian's (1.18), in front of the tests' PostgreSQL, with two server connections
//! for a database. The passes have more connections to the pooler, so that server connections are
//! shared.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world has failed")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use makegood::pass::{self, Parts};
use makegood::report::PassReport;
use makegood::store::Store;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use url::Url;

use crate::binary::makegood;
use crate::database::{ROLE, as_least_privileged, database};
use crate::postgres::{not_tried, server, shell};
use crate::world::World;

const SCRIPT: &str = include_str!("pgbouncer.sh");

/// A PgBouncer of the test's own: it goes with this value.
#[derive(Debug)]
pub struct Pooler {
    watchdog: Child,
    directory: PathBuf,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ended = self.watchdog.wait();
    }
}

impl Pooler {
    /// Starts PgBouncer in front of the tests' PostgreSQL, with these lines in its configuration;
    /// none if it is not installed.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(lines: &str) -> Option<Self> {
        let Some(binary) = binary() else {
            not_tried("no pgbouncer here (Debian: package pgbouncer)");
            return None;
        };
        let url = Url::parse(&server().url).unwrap();
        let host = url.query_pairs().find(|(name, _)| name == "host").map(|(_, host)| host.into_owned());
        let host = host.or_else(|| url.host_str().map(str::to_owned)).unwrap();
        let configuration = format!(
            "[databases]\n* = host={host} port={}\n[pgbouncer]\nunix_socket_dir = @dir@\nunix_socket_mode = 0777\nlisten_port = 6432\n\
             auth_type = trust\nauth_file = @dir@/users.txt\nmax_client_conn = 200\ndefault_pool_size = 2\nserver_round_robin = 1\n\
             client_tls_key_file = @dir@/server.key\nclient_tls_cert_file = @dir@/server.pem\n{lines}\n",
            url.port().unwrap_or(5432)
        );
        let password = url.password().unwrap_or_default();
        let users = format!("\"{}\" \"{password}\"\n\"{ROLE}\" \"makegood\"", url.username());
        let watchdog = shell()
            .args(["-c", SCRIPT, "pgbouncer.sh"])
            .arg(binary)
            .env("CONFIGURATION", configuration)
            .env("USERS", users)
            .env("KEY", include_str!("tls/server.key.pem"))
            .env("CERTIFICATE", include_str!("tls/server.pem"))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        // From here on the test runs with the value, even if the pooler does not start.
        let mut pooler = Self { watchdog, directory: PathBuf::new() };
        let words = BufReader::new(pooler.watchdog.stdout.take().unwrap());
        let mut said = String::new();
        for line in words.lines() {
            let line = line.unwrap();
            if let Some(directory) = line.strip_prefix("ready ") {
                pooler.directory = PathBuf::from(directory);
                return Some(pooler);
            }
            said.push_str(&line);
            said.push('\n');
        }
        panic!("PgBouncer does not start:\n{said}");
    }

    /// The address of a database through it.
    fn through(&self, url: &str) -> String {
        let mut url = Url::parse(url).unwrap();
        url.set_port(Some(6432)).unwrap();
        url.set_query(Some(&format!("host={}", self.directory.display())));
        url.into()
    }
}

fn binary() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // Debian's path, which is not in every user's PATH.
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join("pgbouncer"))
        .find(|file| Path::is_file(file))
}

/// A connection of the test's own through the pooler.
async fn client(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().unwrap();
    options.extra_float_digits(None).connect().await.unwrap()
}

/// Charges, of which every second is to be refunded and the others recovered.
async fn charges(world: &World, from: usize) {
    for nth in from..from + 8 {
        let fate = ["failed", "ok"][nth % 2];
        let (charge, job) = (format!("c{nth}"), format!("{fate}-{nth}"));
        world
            .charge(&charge)
            .provider(["replicate", "fal"][nth / 2 % 2], "acme/still-life")
            .age(Duration::from_mins(20))
            .job(&job)
            .insert()
            .await;
    }
}

/// Two workers at once, each with its own connections.
async fn two_passes(world: &World, stores: [&Store; 2]) -> [PassReport; 2] {
    let parts = stores.map(|store| Parts { store: store.clone(), ..world.parts.clone() });
    let (one, other) = tokio::join!(
        Box::pin(pass::run(&parts[0], World::orders(), |_| {})),
        Box::pin(pass::run(&parts[1], World::orders(), |_| {}))
    );
    [one.unwrap(), other.unwrap()]
}

/// Notes under which settings every ledger entry is written.
const NOTE_SETTINGS: &str = "
    CREATE TABLE seen (settings text NOT NULL);
    CREATE FUNCTION note_settings() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF current_setting('application_name') <> 'makegood' THEN RETURN NULL; END IF;
        INSERT INTO seen SELECT string_agg(current_setting(name), ' ' ORDER BY nr) FROM unnest(ARRAY['transaction_isolation',
            'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'enable_seqscan', 'enable_sort', 'jit',
            'makegood.adds_refund_sums']) WITH ORDINALITY AS wanted (name, nr);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_settings AFTER INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION note_settings();";

async fn passes_through(mode: &str, lines: &str) {
    let Some(pooler) = Pooler::start(&format!("pool_mode = {mode}\n{lines}")) else { return };
    // The driver has to look up an unknown type in between.
    let schema = include_str!("../../migrations/reference/postgres/0001_contract.sql");
    let schema = schema.lines().map(|line| {
        let is_project = line.trim_start().starts_with("project_id ");
        if is_project { line.replacen(" text ", " citext ", 1) } else { line.to_owned() }
    });
    let schema = format!("CREATE EXTENSION citext;\n{}", schema.collect::<Vec<_>>().join("\n"));
    assert_eq!(schema.matches(" citext ").count(), 2);
    let world = World::on(database().await, Some(&schema)).await;
    world.balance("ada", 0, 0).await;
    world.run(NOTE_SETTINGS).await;
    // The database's default is not what a pass needs.
    world
        .run("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$")
        .await;
    let url = pooler.through(&as_least_privileged(&world.database).await);
    let open = || async {
        let store =
            Store::open(&url, if mode == "session" { 1 } else { 4 }, Duration::from_secs(30)).await.unwrap();
        store.with_clock(world.clock.clone())
    };
    let (one, other) = (open().await, open().await);
    assert!(one.link().unwrap().pooled && other.link().unwrap().pooled);

    charges(&world, 0).await;
    let reports = Box::pin(two_passes(&world, [&one, &other])).await;
    let total =
        |reports: &[PassReport; 2], what| reports.iter().map(|report| report.total(what)).sum::<u64>();
    assert_eq!((total(&reports, "refund"), total(&reports, "recover")), (4, 4), "{mode}: {reports:?}");

    // The next statements meet other server connections.
    let end_all = format!(
        "SELECT pg_terminate_backend(pid)::text AS v FROM pg_stat_activity WHERE datname = current_database() AND usename = '{ROLE}'"
    );
    world.run(&end_all).await;
    charges(&world, 8).await;
    world.pass_time(Duration::from_mins(10));
    let reports = Box::pin(two_passes(&world, [&one, &other])).await;
    assert_eq!((total(&reports, "refund"), total(&reports, "recover")), (4, 4), "{mode}: {reports:?}");
    assert_eq!(world.balance_of("ada").await, (0, 80));
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 8);
    world.books_balance().await;
    assert_eq!(
        world.texts("SELECT DISTINCT settings AS v FROM seen").await,
        ["read committed 30s 500ms 1min off off off on"],
        "{mode}"
    );
    one.close().await;
    other.close().await;

    // A statement that sleeps is ended.
    world
        .run(&format!(
            "ALTER TABLE makegood_brake RENAME TO brake_kept;
             CREATE VIEW makegood_brake AS SELECT kept.* FROM brake_kept kept, pg_sleep(600);
             GRANT SELECT ON makegood_brake TO {ROLE}"
        ))
        .await;
    let impatient = Store::open(&url, 1, Duration::from_secs(1)).await.unwrap();
    let error = impatient.brake().await.unwrap_err();
    assert_eq!(error.trouble(), makegood::store::Trouble::TimedOut, "{mode}: {error:?}");
    impatient.close().await;
    world.run("DROP VIEW makegood_brake; ALTER TABLE brake_kept RENAME TO makegood_brake").await;

    // No setting stays with a server connection for its next user.
    let mut next = client(&url).await;
    for _ in 0..4 {
        let left = "SELECT current_setting('statement_timeout') || ' ' || current_setting('enable_seqscan') || ' ' ||
                    (SELECT count(*) FROM pg_prepared_statements WHERE statement NOT LIKE '%pg_prepared_statements%') AS v";
        let row = next.fetch_one(sqlx::raw_sql(left)).await.unwrap();
        assert_eq!(row.get::<String, _>("v"), "0 on 0", "{mode}");
    }
    next.close().await.unwrap();

    let ended = makegood(&["check"]).env("DATABASE_URL", &url).output().await;
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    for about in ["database", "connection", "pooler", "contract", "own tables", "indexes", "rights"] {
        let found = told["checks"].as_array().unwrap().iter().find(|check| check["about"] == about);
        assert_eq!(
            found.unwrap_or_else(|| panic!("{about}: {told}"))["grade"],
            "ok",
            "{mode} {about}: {told}"
        );
    }
    let ended =
        makegood(&["migrate"]).env("DATABASE_URL", &url).env("MAKEGOOD__LOG__FORMAT", "text").output().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let place = format!("{}/.s.PGSQL.6432", pooler.directory.display());
    let told = format!(
        "makegood: could not migrate the database through the pooler at {place}. Run `makegood migrate` with the address of the \
         server itself in DATABASE_URL; all other commands may go through the pooler"
    );
    assert_eq!(ended.stderr.trim(), told);
}

#[tokio::test]
async fn passes_go_through_a_pooler_in_transaction_mode() {
    Box::pin(passes_through("transaction", "")).await;
}

/// Here the pooler drops the options without an error.
#[tokio::test]
async fn passes_go_through_a_pooler_in_session_mode_that_drops_options() {
    Box::pin(passes_through("session", "ignore_startup_parameters = options,extra_float_digits")).await;
}

#[tokio::test]
async fn an_unsuitable_pooler_is_refused_with_what_to_do() {
    let Some(pooler) = Pooler::start("pool_mode = statement") else { return };
    let url = pooler.through(&server().url);
    for (url, why, remedy) in [
        (url.clone(), "the pooler allows no transactions", "Set `pool_mode = transaction` or `session`"),
        (
            format!("{url}&options=-csearch_path=app"),
            "the pooler refuses a parameter",
            "Take `options` out of `database.url`",
        ),
        (url.replace("/postgres?", "/nowhere?"), "there is no database `nowhere`", "or create the database."),
    ] {
        let ended = makegood(&["report"])
            .env("DATABASE_URL", &url)
            .env("MAKEGOOD__LOG__FORMAT", "text")
            .output()
            .await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(why) && ended.stderr.contains(remedy), "{why}: {ended:?}");
    }
}
