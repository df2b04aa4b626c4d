//! A PostgreSQL of the faults' own, which may be restarted at any moment.
//!
//! Unlike the other tests' server it tells of a commit only when that is written: a restart must not lose what was
//! confirmed. Nothing is flushed to the disk still, as the machine itself does not go down here.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::Mutex;

use crate::postgres::{self, Launched};

/// A guard against waiting for ever.
const TRIES: u32 = 600;

#[derive(Debug)]
pub struct Server {
    launched: Launched,
    one_at_a_time: Mutex<()>,
}

impl Server {
    /// A fresh one; says why there is none.
    pub async fn start() -> Self {
        let launched = tokio::task::spawn_blocking(|| postgres::launch().unwrap()).await.unwrap();
        let server = Self { launched, one_at_a_time: Mutex::new(()) };
        let pool = server.pool("postgres");
        run(&pool, "ALTER SYSTEM SET synchronous_commit = on").await;
        run(&pool, "SELECT pg_reload_conf()").await;
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

    /// Restarts it: `immediate` is a crash, otherwise (`fast`) it throws its clients out and ends in order.
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

/// Whether the statement may go through if it is sent once more: the server was restarted, or two waited for each other.
fn in_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("57P") || code.starts_with("08") || code == "40P01"),
        _ => false,
    }
}

/// Runs SQL of the test's own, which must be such that running it twice does no harm.
pub async fn run(pool: &PgPool, sql: &str) {
    lines(pool, sql).await;
}

/// The first column of every row as text, where there is one.
pub async fn lines(pool: &PgPool, sql: &str) -> Vec<String> {
    for _ in 0..TRIES {
        match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(pool).await {
            Ok(rows) => {
                return rows
                    .iter()
                    .filter_map(|row| row.try_get::<Option<String>, _>(0).ok())
                    .map(|text| text.unwrap_or_else(|| "NULL".to_owned()))
                    .collect();
            }
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
