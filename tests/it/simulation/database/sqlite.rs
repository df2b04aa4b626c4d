//! A SQLite file with the reference schema, and its connections.

use std::path::Path;
use std::time::Duration;

use makegood::store::Store;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

use super::{NOTES, Sql, stores};

pub struct Sqlite {
    pub sql: Sql,
    /// Empties the database.
    broom: SqlitePool,
    empties: String,
}

impl Sqlite {
    pub async fn new(folder: &Path) -> (Self, Vec<Store>) {
        let file = folder.join("world.db");
        let stores = stores(&url(&file)).await;
        stores[0].migrate(true).await.unwrap();
        let broom = open(&file, false).await;
        sqlx::raw_sql(NOTES).execute(&broom).await.unwrap();
        let empties = empties(&broom, &folder.join("empty.db")).await;
        let sql = Sql::Sqlite(open(&file, true).await);
        (Self { sql, broom, empties }, stores)
    }

    pub async fn empty(&self) {
        sqlx::raw_sql(AssertSqlSafe(self.empties.clone())).execute(&self.broom).await.unwrap();
    }

    /// The next holder of the write lock comes after everything that was sent before.
    pub async fn all_is_written(&self) -> Result<(), String> {
        let locked = self.sql.run("BEGIN IMMEDIATE; COMMIT;").await;
        locked.map_err(|error| format!("somebody keeps the write lock: {error}"))
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

/// Keeps a copy of the database, and returns the SQL that restores it. The triggers that forbid
/// removal stay, and are disabled while that runs.
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
