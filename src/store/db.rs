//! One way to run a statement on either database.
//!
//! A [`Statement`] carries its text in both dialects; a [`Value`] is bound as each wants it; a [`Row`] is read
//! by column name and says which statement and column it stumbled on. All else in `store` is written once.
//! Batches travel as one JSON parameter, so that a statement is set-based in both dialects.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value as Json, json};
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Executor as _, Postgres, SqlSafeStr as _, Sqlite, Transaction};

use crate::clock::Timestamp;

mod again;
mod connect;
#[cfg(debug_assertions)]
mod keys;
mod plans;
mod refusal;
mod row;
mod said;
mod tls;

pub use again::{Tries, Trouble};
pub use connect::{Link, Opening, Server, Waits};
pub use refusal::Refusal;
pub use row::Row;
pub(super) use said::postgres;
pub use tls::Encryption;

/// One SQL statement in both dialects.
#[derive(Debug)]
pub struct Statement {
    /// The name of its file.
    pub name: &'static str,
    /// For PostgreSQL; empty where only SQLite runs it.
    pub postgres: &'static str,
    /// For SQLite; empty where only PostgreSQL runs it.
    pub sqlite: &'static str,
}

/// A parameter.
#[derive(Clone, Debug)]
pub enum Value {
    /// Text.
    Text(String),
    /// A batch: a JSON list of objects or of ids. Its keys are compared with those that the statement
    /// reads (`keys`).
    Json(String),
    /// Text that may be missing.
    MaybeText(Option<String>),
    /// A whole number.
    Int(i64),
    /// An instant: `timestamptz`, or microseconds.
    Time(Timestamp),
    /// An instant that may be missing.
    MaybeTime(Option<Timestamp>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<Timestamp> for Value {
    fn from(at: Timestamp) -> Self {
        Self::Time(at)
    }
}
impl From<Duration> for Value {
    fn from(span: Duration) -> Self {
        Self::Int(crate::clock::micros(span))
    }
}
impl From<&Json> for Value {
    fn from(batch: &Json) -> Self {
        Self::json(batch)
    }
}

impl Value {
    /// A batch as one JSON text, written without a copy of it in between.
    ///
    /// # Panics
    /// A key of a map is no text, which no statement reads.
    pub fn json(batch: &(impl Serialize + ?Sized)) -> Self {
        Self::Json(serde_json::to_string(batch).expect("texts, numbers, lists and rows are always JSON"))
    }
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The statement failed.
    #[error("the statement `{statement}` failed")]
    Statement {
        /// Its file's name.
        statement: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// A value could not be read.
    #[error("`{statement}` returned a row whose column `{column}` cannot be read{about}")]
    Column {
        /// The statement's file's name.
        statement: &'static str,
        /// The column.
        column: &'static str,
        /// Which row, if that could be read.
        about: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A transaction could not begin or end.
    #[error("could not {what} a transaction")]
    Transaction {
        /// Begin, commit.
        what: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// The answer to a commit was lost, and what it was about has been through other hands since.
    #[error("the answer to a commit was lost, and whether it happened cannot be found out any more")]
    InDoubt,
    /// All that was tried in a row was refused, for a reason that is nobody's row.
    #[error("nothing of what was due could be settled: {why}")]
    NothingSettled {
        /// What the database said of the last.
        why: String,
    },
    /// A time that charges are found by cannot be read, so that no pass finds any.
    #[error(
        "{column} of charge {charge_id} cannot be read, and charges are found by this time. Mend the row, or let the \
         view give NULL for it"
    )]
    UnreadableTime {
        /// `relation.column`.
        column: &'static str,
        /// Its charge.
        charge_id: String,
        /// The statement that failed of it.
        #[source]
        source: Box<DbError>,
    },
    /// No connection to PostgreSQL could be made.
    #[error(transparent)]
    Connect(Box<Refusal>),
    /// There is no such SQLite file, and it was not to be created.
    #[error(
        "could not open the database {url}: there is no such file. Check `database.url`; `makegood migrate` creates it."
    )]
    NoFile {
        /// Its address.
        url: String,
    },
    /// The database could not be opened.
    #[error("could not open the database {url}")]
    Open {
        /// Its address without the password.
        url: String,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
}

impl DbError {
    fn sqlx(&self) -> Option<&sqlx::Error> {
        match self {
            Self::UnreadableTime { source, .. } => source.sqlx(),
            Self::InDoubt | Self::NothingSettled { .. } | Self::Connect(_) | Self::NoFile { .. } => None,
            Self::Statement { source, .. }
            | Self::Column { source, .. }
            | Self::Transaction { source, .. }
            | Self::Open { source, .. } => Some(source),
        }
    }
}

/// A pool of connections to one of the two databases.
#[derive(Clone, Debug)]
pub enum Db {
    /// The production store.
    Postgres(Server),
    /// The embedded default.
    Sqlite(SqlitePool),
}

/// An open transaction; dropped without commit it is rolled back.
#[derive(Debug)]
pub enum Tx {
    /// On PostgreSQL, read committed: every statement sees what is committed by then.
    Postgres {
        /// The transaction.
        tx: Transaction<'static, Postgres>,
        /// Whether its statements may be kept under a name: not behind a pooler.
        keeps_statements: bool,
    },
    /// On SQLite, the one writer there is (`BEGIN IMMEDIATE`).
    Sqlite(Transaction<'static, Sqlite>),
}

/// Binds the values in order.
macro_rules! bound {
    ($db:ty, $statement:expr, $text:expr, $values:expr, $time:expr) => {{
        #[cfg(debug_assertions)]
        keys::check($statement, $text, $values);
        let mut query = sqlx::query::<$db>($text);
        for value in $values {
            query = match value {
                Value::Text(text) | Value::Json(text) => query.bind(text.clone()),
                Value::MaybeText(text) => query.bind(text.clone()),
                Value::Int(number) => query.bind(*number),
                Value::Time(at) => query.bind($time(*at)),
                Value::MaybeTime(at) => query.bind(at.map($time)),
            };
        }
        query
    }};
}

impl Db {
    /// Opens the database.
    pub async fn open(opening: &Opening<'_>) -> Result<Self, DbError> {
        if opening.url.starts_with("sqlite:") {
            Box::pin(connect::sqlite(opening)).await.map(Self::Sqlite)
        } else {
            Box::pin(Server::open(opening)).await.map(Self::Postgres)
        }
    }

    /// Whether this is PostgreSQL.
    pub const fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// An instant inside a JSON batch.
    pub fn time(&self, at: Timestamp) -> Json {
        match self {
            Self::Postgres(_) => json!(at.to_string()),
            Self::Sqlite(_) => json!(at.micros()),
        }
    }

    /// Reads an instant that [`Db::time`] has written.
    pub fn read_time(&self, json: &Json) -> Option<Timestamp> {
        match self {
            Self::Postgres(_) => Timestamp::parse(json.as_str()?).ok(),
            Self::Sqlite(_) => json.as_i64().map(Timestamp::from_micros),
        }
    }

    /// An instant that may be missing inside a JSON batch.
    pub fn maybe_time(&self, at: Option<Timestamp>) -> Json {
        at.map_or(Json::Null, |at| self.time(at))
    }

    /// Runs a statement outside of a transaction and returns its rows.
    pub async fn rows(&self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError> {
        let failed = |source| DbError::Statement { statement: statement.name, source };
        match self {
            // Its settings are those of a transaction.
            Self::Postgres(server) if server.link().pooled => {
                let mut tx = self.begin().await?;
                let rows = tx.rows(statement, values).await?;
                tx.commit().await?;
                Ok(rows)
            }
            Self::Postgres(server) => {
                server.wait_for_given_back().await;
                let query = bound!(Postgres, statement, statement.postgres, values, Timestamp::to_chrono);
                match server.pool().fetch_all(query).await {
                    Ok(rows) => Ok(Row::of_postgres(statement, rows)),
                    Err(source) => Err(server.explained(failed(source)).await),
                }
            }
            Self::Sqlite(pool) => {
                let query = bound!(Sqlite, statement, statement.sqlite, values, Timestamp::micros);
                let rows = pool.fetch_all(query).await.map_err(failed)?;
                Ok(Row::of_sqlite(statement, rows))
            }
        }
    }

    /// Whether this database ever runs the statement.
    pub const fn runs(&self, statement: &Statement) -> bool {
        let text = if self.is_postgres() { statement.postgres } else { statement.sqlite };
        !text.is_empty()
    }

    /// Has the database read a statement, without running it: every relation and column it names must be there.
    pub async fn prepare(&self, statement: &'static Statement) -> Result<(), DbError> {
        let failed = |source| DbError::Statement { statement: statement.name, source };
        match self {
            Self::Postgres(server) => {
                // Not by the protocol: the pool would keep it, with types of the server's choice instead of ours.
                let text =
                    format!("PREPARE makegood_reads AS {}\n; DEALLOCATE makegood_reads", statement.postgres);
                let text = sqlx::raw_sql(AssertSqlSafe(text));
                if server.link().pooled {
                    let mut tx = server.begin().await?;
                    tx.execute(text).await.map_err(failed)?;
                    return tx.commit().await.map_err(failed);
                }
                match server.pool().execute(text).await {
                    Ok(_) => Ok(()),
                    Err(source) => Err(server.explained(failed(source)).await),
                }
            }
            Self::Sqlite(pool) => {
                pool.prepare(statement.sqlite.into_sql_str()).await.map_err(failed).map(drop)
            }
        }
    }

    /// Begins a transaction that may write.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        match self {
            Self::Postgres(server) => {
                Ok(Tx::Postgres { tx: server.begin().await?, keeps_statements: !server.link().pooled })
            }
            Self::Sqlite(pool) => match pool.begin_with("BEGIN IMMEDIATE").await {
                Ok(tx) => Ok(Tx::Sqlite(tx)),
                Err(source) => Err(DbError::Transaction { what: "begin", source }),
            },
        }
    }

    /// How the statements reach PostgreSQL; none on SQLite.
    pub fn link(&self) -> Option<&Link> {
        match self {
            Self::Postgres(server) => Some(server.link()),
            Self::Sqlite(_) => None,
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match self {
            Self::Postgres(server) => server.pool().close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

impl Tx {
    /// Runs a statement and returns its rows.
    pub async fn rows(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Vec<Row>, DbError> {
        let failed = |source| DbError::Statement { statement: statement.name, source };
        match self {
            Self::Postgres { tx, keeps_statements } => {
                let query = bound!(Postgres, statement, statement.postgres, values, Timestamp::to_chrono);
                let query = query.persistent(*keeps_statements);
                let rows = tx.fetch_all(query).await.map_err(failed)?;
                Ok(Row::of_postgres(statement, rows))
            }
            Self::Sqlite(tx) => {
                let query = bound!(Sqlite, statement, statement.sqlite, values, Timestamp::micros);
                let rows = tx.fetch_all(query).await.map_err(failed)?;
                Ok(Row::of_sqlite(statement, rows))
            }
        }
    }

    /// Marks where [`Tx::undo_part`] goes back to.
    pub async fn begin_part(&mut self) -> Result<(), DbError> {
        self.command("SAVEPOINT part", "begin a part of").await
    }

    /// Takes back what was done since [`Tx::begin_part`], also where a statement failed. The part stays open.
    pub async fn undo_part(&mut self) -> Result<(), DbError> {
        self.command("ROLLBACK TO SAVEPOINT part", "undo a part of").await
    }

    /// As its first statement: the transaction sees what was committed before it, and nothing that is committed meanwhile.
    pub async fn one_snapshot(&mut self) -> Result<(), DbError> {
        match self {
            Self::Postgres { .. } => {
                self.command("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "take one snapshot for").await
            }
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// Ends the part; what it did stays if the transaction is committed.
    pub async fn end_part(&mut self) -> Result<(), DbError> {
        self.command("RELEASE SAVEPOINT part", "end a part of").await
    }

    /// Until the end of the transaction, see `connect::PLAN_SETTINGS`.
    pub async fn allow_bitmap_scans(&mut self) -> Result<(), DbError> {
        match self {
            Self::Postgres { .. } => self.command("SET LOCAL enable_bitmapscan = on", "set up").await,
            Self::Sqlite(_) => Ok(()),
        }
    }

    async fn command(&mut self, text: &'static str, what: &'static str) -> Result<(), DbError> {
        let failed = |source| DbError::Transaction { what, source };
        match self {
            Self::Postgres { tx, .. } => tx.execute(sqlx::raw_sql(text)).await.map_err(failed).map(drop),
            Self::Sqlite(tx) => tx.execute(sqlx::raw_sql(text)).await.map_err(failed).map(drop),
        }
    }

    /// Has deferred triggers and constraints of the platform fire now, and from here on at once.
    pub async fn constraints_now(&mut self) -> Result<(), DbError> {
        match self {
            Self::Postgres { .. } => {
                self.command("SET CONSTRAINTS ALL IMMEDIATE", "check the constraints of").await
            }
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// Takes all of it back, at once: a transaction that is only dropped holds its locks until its
    /// connection is used again.
    pub async fn roll_back(self) -> Result<(), DbError> {
        let failed = |source| DbError::Transaction { what: "roll back", source };
        match self {
            Self::Postgres { tx, .. } => tx.rollback().await.map_err(failed),
            Self::Sqlite(tx) => tx.rollback().await.map_err(failed),
        }
    }

    /// Makes it so.
    pub async fn commit(self) -> Result<(), DbError> {
        let failed = |source| DbError::Transaction { what: "commit", source };
        match self {
            Self::Postgres { tx, .. } => tx.commit().await.map_err(failed),
            Self::Sqlite(tx) => tx.commit().await.map_err(failed),
        }
    }
}

/// What a statement can be run on: a pool or a transaction.
#[expect(async_fn_in_trait, reason = "used inside the crate only, never as a trait object")]
pub trait Run {
    /// Runs a statement and returns its rows.
    async fn rows(&mut self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError>;

    /// See [`Tx::begin_part`]. Outside of a transaction a statement that fails undoes itself.
    async fn begin_part(&mut self) -> Result<(), DbError> {
        Ok(())
    }

    /// See [`Tx::undo_part`], and ends the part.
    async fn undo_part(&mut self) -> Result<(), DbError> {
        Ok(())
    }

    /// See [`Tx::end_part`].
    async fn end_part(&mut self) -> Result<(), DbError> {
        Ok(())
    }
}

impl Run for &Db {
    async fn rows(&mut self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError> {
        Db::rows(self, statement, values).await
    }
}

impl Run for Tx {
    async fn rows(&mut self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError> {
        Tx::rows(self, statement, values).await
    }

    async fn begin_part(&mut self) -> Result<(), DbError> {
        Tx::begin_part(self).await
    }

    async fn undo_part(&mut self) -> Result<(), DbError> {
        Tx::undo_part(self).await?;
        Tx::end_part(self).await
    }

    async fn end_part(&mut self) -> Result<(), DbError> {
        Tx::end_part(self).await
    }
}

/// A database address without its password.
pub fn redacted(url: &str) -> String {
    url::Url::parse(url).map_or_else(
        |_| url.split('@').next_back().unwrap_or_default().to_owned(),
        |mut url| {
            if url.password().is_some() && url.set_password(Some("***")).is_err() {
                return "(address not shown: its password cannot be taken out)".to_owned();
            }
            url.set_query(None);
            url.to_string()
        },
    )
}
