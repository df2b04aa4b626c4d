//! The database of a stage, SQLite or PostgreSQL, as the platform and the checks see it.
//!
//! Actions and checks are written once. Both databases show times as whole microseconds: SQLite
//! stores them so, and on PostgreSQL the schema `micros` has a view for each relation with times
//! (`micros.sql`). makegood itself never sees these views: its workers connect to the tables, as
//! the role of `docs/adopting.md`.

mod postgres;
mod sqlite;

use std::path::Path;
use std::time::Duration;

use makegood::store::Store;
use sqlx::{AssertSqlSafe, PgPool, Row as _, SqlitePool};

use super::plan::WORKERS;
use postgres::Postgres;
use sqlite::Sqlite;

/// Stores of a stage: the desk's, each worker's and the operator's.
const STORES: usize = WORKERS + 2;

/// Tables of the harness: rows that the platform has removed (`deeds`), and the last refund before
/// each release of the brake by a person.
const NOTES: &str =
    "CREATE TABLE lost_rows (id text NOT NULL, charge_id text NOT NULL, output_index integer NOT NULL);
     CREATE TABLE brake_releases (resolution_id bigint NOT NULL)";

/// On which database a world lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// One connection of the platform's and of the checks'. Times are microseconds.
#[derive(Clone)]
pub enum Sql {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Functions that have other names on PostgreSQL.
fn for_postgres(sql: &str) -> String {
    sql.replace("BEGIN IMMEDIATE", "BEGIN").replace("?1", "$1").replace("?2", "$2")
}

impl Sql {
    /// Runs any number of statements.
    pub async fn run(&self, sql: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(pool) => sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.map(drop),
            Self::Postgres(pool) => {
                sqlx::raw_sql(AssertSqlSafe(for_postgres(sql))).execute(pool).await.map(drop)
            }
        }
    }

    /// The first column of every row, with numbers for `?1` and `?2`. `often`: the statement stays
    /// prepared.
    pub async fn asked(
        &self,
        sql: &str,
        numbers: &[i64],
        often: bool,
    ) -> Result<Vec<Option<String>>, sqlx::Error> {
        macro_rules! lines {
            ($pool:expr, $sql:expr) => {{
                let mut query = sqlx::query(AssertSqlSafe($sql)).persistent(often);
                for number in numbers {
                    query = query.bind(*number);
                }
                let rows = query.fetch_all($pool).await?;
                rows.iter().map(|row| row.try_get(0)).collect()
            }};
        }
        match self {
            Self::Sqlite(pool) => lines!(pool, sql.to_owned()),
            Self::Postgres(pool) => lines!(pool, for_postgres(sql)),
        }
    }
}

/// The database, and how it is emptied.
pub enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Database {
    /// A migrated database, with its stores. The first is the desk's, the last the operator's.
    pub async fn new(kind: Kind, folder: &Path) -> (Self, Vec<Store>) {
        match kind {
            Kind::Sqlite => {
                let (database, stores) = Sqlite::new(folder).await;
                (Self::Sqlite(database), stores)
            }
            Kind::Postgres => {
                let (database, stores) = Postgres::new().await;
                (Self::Postgres(database), stores)
            }
        }
    }

    pub fn sql(&self) -> &Sql {
        match self {
            Self::Sqlite(database) => &database.sql,
            Self::Postgres(database) => &database.sql,
        }
    }

    /// As after `makegood migrate`.
    pub async fn empty(&self) {
        match self {
            Self::Sqlite(database) => database.empty().await,
            Self::Postgres(database) => database.empty().await,
        }
    }
}

/// Connections for the platform, each worker and the operator. A suspended worker must not run into
/// a timeout.
async fn stores(url: &str) -> Vec<Store> {
    let mut stores = Vec::new();
    for _ in 0..STORES {
        stores.push(Store::open(url, 2, Duration::from_mins(1)).await.unwrap());
    }
    stores
}
