//! A PostgreSQL for the fault tests, which may be restarted at any moment.
//!
//! Unlike the other tests' server it confirms a commit only when the operating system has it: a
//! restart must not lose a confirmed commit. It still does not flush to disk, because the machine
//! itself does not crash here. Workers connect as the role that `docs/adopting.md` creates, with no
//! other rights.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::Mutex;

use crate::postgres::{self, Launched};

/// The role of `docs/adopting.md`.
pub const ROLE: &str = "makegood";
/// A guard against waiting for ever.
const TRIES: u32 = 600;

#[derive(Debug)]
pub struct Server {
    launched: Launched,
    one_at_a_time: Mutex<()>,
}

impl Server {
    /// Starts a fresh server; the error says why it could not.
    pub async fn start() -> Self {
        let launched = tokio::task::spawn_blocking(|| postgres::launch().unwrap()).await.unwrap();
        let server = Self { launched, one_at_a_time: Mutex::new(()) };
        let pool = server.pool("postgres");
        run(&pool, "ALTER SYSTEM SET synchronous_commit = on").await;
        run(&pool, "SELECT pg_reload_conf()").await;
        run(&pool, role().0).await;
        server
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.launched.directory.join(".s.PGSQL.5432")
    }

    /// Connections of the test's own, past every proxy.
    pub fn pool(&self, database: &str) -> PgPool {
        let url = format!(
            "postgres://postgres@localhost:5432/{database}?host={}",
            self.launched.directory.display()
        );
        PgPoolOptions::new().max_connections(4).connect_lazy(&url).unwrap()
    }

    /// Dumps a database into a file, with the server's log beside it; returns what went wrong.
    /// Blocks the thread: for a test that is failing.
    pub fn keep(&self, database: &str, folder: &Path) -> std::io::Result<()> {
        let binaries = postgres::binaries().unwrap_or_default();
        let dump = std::fs::File::create(folder.join("database.sql"))?;
        let ended = std::process::Command::new(binaries.join("pg_dump"))
            .args(["--username=postgres", "--host"])
            .arg(&self.launched.directory)
            .arg(database)
            .stdout(dump)
            .status()?;
        std::fs::copy(self.launched.directory.join("server.log"), folder.join("server.log"))?;
        if ended.success() { Ok(()) } else { Err(std::io::Error::other(format!("pg_dump: {ended}"))) }
    }

    /// Restarts it: `immediate` is a crash, otherwise (`fast`) it throws its clients out and ends
    /// in order.
    pub async fn restart(&self, immediate: bool) {
        let _one = self.one_at_a_time.lock().await;
        let binaries = postgres::binaries().unwrap();
        let script = "exec \"$1/pg_ctl\" --pgdata=\"$2/data\" --log=\"$2/server.log\" --mode=\"$3\" --wait --timeout=120 restart";
        let mode = if immediate { "immediate" } else { "fast" };
        let mut shell = tokio::process::Command::from(postgres::shell());
        let ended = shell
            .args(["-c", script, "sh"])
            .arg(binaries)
            .arg(&self.launched.directory)
            .arg(mode)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .unwrap();
        assert!(ended.success(), "PostgreSQL could not be restarted ({mode}): {ended}");
    }
}

/// The SQL of `docs/adopting.md`: what makes the role `makegood`, once a server, and what lets it
/// into a migrated database.
pub fn role() -> (&'static str, &'static str) {
    let page = include_str!("../../../docs/adopting.md");
    let section = page.split("## The database role").nth(1).expect("the page has the section");
    let sql =
        section.split("```").nth(1).and_then(|block| block.strip_prefix("sql\n")).expect("with its SQL");
    let (make, let_in) = sql.split_once('\n').expect("first the role, then its rights");
    assert!(make.starts_with("CREATE ROLE makegood LOGIN") && !let_in.contains("CREATE ROLE"), "{sql}");
    (make, let_in)
}

/// Whether the statement may succeed if it is retried: the server was restarted, or there was a
/// deadlock.
fn in_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("57P") || code.starts_with("08") || code == "40P01"),
        _ => false,
    }
}

/// Runs SQL of the test's own, which must be idempotent.
pub async fn run(pool: &PgPool, sql: &str) {
    rows(pool, sql).await;
}

/// The first column of every row, which must be text.
pub async fn lines(pool: &PgPool, sql: &str) -> Vec<String> {
    let text = |row: &PgRow| match row.try_get::<Option<String>, _>(0) {
        Ok(text) => text.unwrap_or_else(|| "NULL".to_owned()),
        // Without it, every check of its kind would find nothing.
        Err(error) => panic!("a row that cannot be told: {error}\n{sql}"),
    };
    rows(pool, sql).await.iter().map(text).collect()
}

async fn rows(pool: &PgPool, sql: &str) -> Vec<PgRow> {
    for _ in 0..TRIES {
        match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(pool).await {
            Ok(rows) => return rows,
            Err(error) if in_passing(&error) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{sql}\n{error}"),
        }
    }
    panic!("the database does not come back; {sql}");
}

/// One number.
pub async fn number(pool: &PgPool, sql: &str) -> i64 {
    lines(pool, &format!("SELECT ({sql})::text")).await[0].parse().unwrap()
}
