//! A database on the tests' PostgreSQL with the reference schema. makegood's workers connect as the
//! role of `docs/adopting.md`; the platform and the checks connect as the owner, through the views
//! of `micros.sql`.

use std::time::{Duration, Instant};

use makegood::store::Store;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

use super::{NOTES, Sql, stores};
use crate::database::{self, TestDatabase};

/// Until then everything that workers sent before they ended must have been carried out. Longer
/// than any of their timeouts.
const PATIENCE: Duration = Duration::from_secs(30);

const MICROS: &str = include_str!("micros.sql");

pub struct Postgres {
    pub sql: Sql,
    /// Empties the database, and looks what its sessions do.
    owner: PgPool,
    empties: String,
    /// Dropped last, with all connections that are left.
    _database: TestDatabase,
}

impl Postgres {
    pub async fn new() -> (Self, Vec<Store>) {
        let database = database::database().await;
        let migrates = Store::open(&database.url, 1, Duration::from_mins(1)).await.unwrap();
        migrates.migrate(true).await.unwrap();
        migrates.close().await;
        let url = database::as_least_privileged(&database).await;
        let owner = open(&database.url, "public").await;
        sqlx::raw_sql(NOTES).execute(&owner).await.unwrap();
        sqlx::raw_sql(MICROS).execute(&owner).await.unwrap();
        let empties = empties(&owner).await;
        let sql = Sql::Postgres(open(&database.url, "micros, public").await);
        (Self { sql, owner, empties, _database: database }, stores(&url).await)
    }

    pub async fn empty(&self) {
        sqlx::raw_sql(AssertSqlSafe(self.empties.clone())).execute(&self.owner).await.unwrap();
    }

    /// Waits until no session has a statement or a transaction open. `breathe` gives workers that
    /// have ended a moment to roll back.
    pub async fn all_is_written(&self, breathe: impl AsyncFn()) -> Result<(), String> {
        let busy = "SELECT pid || ' is ' || state || ': ' || query FROM pg_stat_activity
                    WHERE datname = current_database() AND backend_type = 'client backend' AND state <> 'idle'
                      AND pid <> pg_backend_pid()";
        let began = Instant::now();
        loop {
            let busy: Vec<String> = sqlx::query_scalar(busy).fetch_all(&self.owner).await.unwrap();
            match busy.first() {
                None => return Ok(()),
                Some(first) if began.elapsed() > PATIENCE => return Err(format!("session {first}")),
                Some(_) => breathe().await,
            }
        }
    }
}

/// One connection that finds relations in these schemas.
async fn open(url: &str, search_path: &str) -> PgPool {
    let options: PgConnectOptions = url.parse().unwrap();
    let options = options.options([("search_path", search_path.replace(' ', ""))]);
    let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    pool.test_before_acquire(false).connect_with(options).await.unwrap()
}

/// Keeps a copy of each table as it is, and returns the SQL that makes it so again, identities too.
/// Triggers and foreign keys stay, and are not asked meanwhile; that takes a superuser.
async fn empties(owner: &PgPool) -> String {
    let tables = "SELECT quote_ident(relname) FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(owner).await.unwrap();
    assert!(tables.len() > 20, "makegood's and the platform's: {tables:?}");
    let mut again = "BEGIN; SET LOCAL session_replication_role = replica;".to_owned();
    sqlx::raw_sql("CREATE SCHEMA before").execute(owner).await.unwrap();
    for table in tables {
        let copy = format!("CREATE TABLE before.{table} AS TABLE public.{table}");
        let copied = sqlx::raw_sql(AssertSqlSafe(copy)).execute(owner).await.unwrap().rows_affected();
        let removes = format!("DELETE FROM public.{table};");
        let restores =
            format!("INSERT INTO public.{table} OVERRIDING SYSTEM VALUE SELECT * FROM before.{table};");
        again.push_str(&removes);
        if copied > 0 {
            again.push_str(&restores);
        }
    }
    let identities = "SELECT format('SELECT setval(%L, %s, %L);', format('%I.%I', schemaname, sequencename),
                                    coalesce(last_value, start_value), last_value IS NOT NULL)
                      FROM pg_sequences WHERE schemaname = 'public'";
    for row in sqlx::query(identities).fetch_all(owner).await.unwrap() {
        again += row.get::<&str, _>(0);
    }
    again + "COMMIT;"
}

#[tokio::test]
async fn the_platform_and_makegood_see_the_same_microsecond() {
    let (postgres, stores) = Postgres::new().await;
    let sql = &postgres.sql;
    let charge =
        "INSERT INTO charges VALUES ('c', 'a', 'p', 'n', 'v', 'm', NULL, 1772323200123457, 1, 2, NULL);
                  UPDATE charges SET cancelled_at = 1772323200123458 WHERE id = 'c';
                  INSERT INTO charge_items VALUES ('c', 0, 3, NULL, NULL, NULL);
                  UPDATE charge_items SET failed_at = -1 WHERE charge_id = 'c' AND output_index = 0;";
    sql.run(charge).await.unwrap();
    let shown = "SELECT c.charged_at || ' ' || c.cancelled_at || ' ' || i.failed_at FROM charges c
                 JOIN charge_items i ON i.charge_id = c.id AND i.failed_at < ?1";
    assert_eq!(
        sql.asked(shown, &[0], true).await.unwrap(),
        [Some("1772323200123457 1772323200123458 -1".to_owned())]
    );
    let kept: String =
        sqlx::query_scalar("SELECT to_char(charged_at AT TIME ZONE 'UTC', 'HH24:MI:SS.US') FROM charges")
            .fetch_one(&postgres.owner)
            .await
            .unwrap();
    assert_eq!(kept, "00:00:00.123457");

    postgres.empty().await;
    assert_eq!(sql.asked("SELECT id FROM charges", &[], false).await.unwrap(), []);
    assert!(stores[0].brake().await.unwrap().engaged_at.is_none(), "the one row of the brake is there again");
}
