//! One way to run a statement on either database.
//!
//! A [`Statement`] carries its text in both dialects; a [`Value`] is bound as each wants it; a [`Row`] is read
//! by column name and says which statement and column it stumbled on. All else in `store` is written once.
//! Batches travel as one JSON parameter, so that a statement is set-based in both dialects.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Executor as _, Postgres, Row as _, SqlSafeStr as _, Sqlite, Transaction};

use crate::clock::Timestamp;

mod again;
mod row;

pub use again::{Tries, Trouble};
use row::Inner;
pub use row::Row;

/// A connection that is not there after so long is asked for anew.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// For so long a connection is waited for that is about to come free.
const A_MOMENT: Duration = Duration::from_millis(20);

/// Every statement reads by key: nested loops over index scans, whatever the statistics say. A plan that was made while a table
/// was empty is kept by its connection, and a sequential scan in it would read the whole table a minute later; a bitmap scan, a
/// sort or a hash join reads all of a stretch where a LIMIT needs its beginning. Where a relation has no usable index PostgreSQL still
/// reads it whole, and `makegood check` says which index is missing.
const PLAN_SETTINGS: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
    ("max_parallel_workers_per_gather", "0"),
];

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
    /// Text, or a batch as JSON.
    Text(String),
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
        Self::Text(batch.to_string())
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
    /// The database could not be reached or opened.
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
    const fn sqlx(&self) -> Option<&sqlx::Error> {
        match self {
            Self::InDoubt | Self::NothingSettled { .. } => None,
            Self::Statement { source, .. }
            | Self::Column { source, .. }
            | Self::Transaction { source, .. }
            | Self::Open { source, .. } => Some(source),
        }
    }

    /// The database answered, and nothing here knows its answer: a platform's trigger, view or row policy may say so of one row,
    /// or the database of everything that is tried.
    pub fn may_be_about_a_row(&self) -> bool {
        self.trouble() == Trouble::Other
            && self.sqlx().is_some_and(|error| error.as_database_error().is_some())
    }

    /// Whether PostgreSQL gave the error such a code.
    fn has_sqlstate(&self, is: impl Fn(&str) -> bool) -> bool {
        let error = self.sqlx().and_then(sqlx::Error::as_database_error);
        error.and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code.len() == 5 && is(&code))
    }

    /// The role may not do what was asked, or a trigger of the platform's may not.
    pub fn is_about_rights(&self) -> bool {
        self.has_sqlstate(|code| code == "42501")
    }

    /// What was asked is not possible for any row: a right, relation, column or function is missing, or
    /// a view takes no writes (SQLSTATE classes 42 and 0A, and 55000).
    pub fn is_about_the_schema(&self) -> bool {
        self.has_sqlstate(|code| code.starts_with("42") || code.starts_with("0A") || code == "55000")
    }

    /// A row broke a rule of the database: repeating does not help, leaving the row out does.
    pub fn is_about_a_row(&self) -> bool {
        match self {
            Self::Column { .. } => true,
            // A platform's deferred constraint speaks at the commit.
            Self::Statement { source, .. } | Self::Transaction { source, .. } => {
                source.as_database_error().is_some_and(|error| {
                    let code = error.code().unwrap_or_default();
                    // SQLSTATE classes 22 (data), 23 (constraints), 44 (a view's check), 54 (too long for an index), P0 (a platform's
                    // trigger says no); SQLITE_CONSTRAINT and its kin, SQLITE_TOOBIG, SQLITE_MISMATCH.
                    code.len() == 5
                        && ["22", "23", "44", "54", "P0"].iter().any(|class| code.starts_with(class))
                        || code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 18..=20))
                })
            }
            Self::Open { .. } | Self::InDoubt | Self::NothingSettled { .. } => false,
        }
    }
}

/// A pool of connections to one of the two databases.
#[derive(Clone, Debug)]
pub enum Db {
    /// The production store.
    Postgres(PgPool),
    /// The embedded default.
    Sqlite(SqlitePool),
}

/// Begins a transaction in a task of its own, which goes on to the end when nobody waits for it any
/// more. What it has begun then is rolled back.
///
/// sqlx 0.9.0 does not know of a transaction before `BEGIN` is answered (its issue 4393). Dropped
/// earlier, such as by a time limit, the connection would go back to the pool with a transaction
/// open: whatever ran on it later would hold its locks, and would not be committed.
async fn begin_to_the_end(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    match tokio::spawn(async move { pool.begin().await }).await {
        Ok(begun) => begun,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        // The runtime ends, and this process with it.
        Err(_) => Err(sqlx::Error::PoolClosed),
    }
}

/// An open transaction; dropped without commit it is rolled back.
#[derive(Debug)]
pub enum Tx {
    /// On PostgreSQL, read committed: every statement sees what is committed by then.
    Postgres(Transaction<'static, Postgres>),
    /// On SQLite, the one writer there is (`BEGIN IMMEDIATE`).
    Sqlite(Transaction<'static, Sqlite>),
}

/// Binds the values in order.
macro_rules! bound {
    ($db:ty, $text:expr, $values:expr, $time:expr) => {{
        let mut query = sqlx::query::<$db>($text);
        for value in $values {
            query = match value {
                Value::Text(text) => query.bind(text.clone()),
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
    /// Opens a pool on `postgres://…` or `sqlite://…`; a SQLite file is made if it is not there.
    pub async fn open(
        url: &str,
        max_connections: u32,
        statement_timeout: Duration,
        lock_timeout: Duration,
    ) -> Result<Self, DbError> {
        let failed = |source| DbError::Open { url: redacted(url), source };
        if url.starts_with("sqlite:") {
            let options: SqliteConnectOptions = url.parse().map_err(failed)?;
            let in_memory = url.contains(":memory:") || url.contains("mode=memory");
            let options = options
                .create_if_missing(true)
                .foreign_keys(true)
                .journal_mode(if in_memory { SqliteJournalMode::Memory } else { SqliteJournalMode::Wal })
                // Money: a commit that was reported survives a power cut.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(30));
            // A database in memory lives as long as its one connection.
            let connections = if in_memory { 1 } else { max_connections };
            let pool = SqlitePoolOptions::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                // It is no server that may have gone: asking before each statement would only double the round trips.
                .test_before_acquire(false)
                .connect_with(options)
                .await
                .map_err(failed)?;
            return Ok(Self::Sqlite(pool));
        }
        let options: PgConnectOptions = url.parse().map_err(failed)?;
        let options = options.application_name("makegood").options([
            ("statement_timeout", statement_timeout.as_millis().to_string()),
            // Zero would be for ever.
            ("lock_timeout", lock_timeout.as_millis().max(1).to_string()),
            ("idle_in_transaction_session_timeout", "60000".to_owned()),
            ("timezone", "UTC".to_owned()),
            // Versions before 8 of the tables do not add their refunds to the sums of the brake: a trigger does it for them.
            ("makegood.adds_refund_sums", "on".to_owned()),
            // Whatever the database's own default is: settle looks once more after its locks, at what is committed by then.
            ("default_transaction_isolation", "read committed".to_owned()),
            // Batches are small and their plans are always the same: compiling them costs more than it saves.
            ("jit", "off".to_owned()),
        ]);
        let options = options.options(PLAN_SETTINGS);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            // Short, because who waits here for the server to allow one more does not see one of ours come free.
            .acquire_timeout(CONNECTION_TIMEOUT.min(statement_timeout))
            .connect_with(options);
        Ok(Self::Postgres(pool.await.map_err(failed)?))
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
            Self::Postgres(pool) => {
                one_may_come_free(pool).await;
                let query = bound!(Postgres, statement.postgres, values, Timestamp::to_chrono);
                let rows = pool.fetch_all(query).await.map_err(failed)?;
                Ok(rows
                    .into_iter()
                    .map(|row| Row { statement: statement.name, inner: Inner::Postgres(row) })
                    .collect())
            }
            Self::Sqlite(pool) => {
                let query = bound!(Sqlite, statement.sqlite, values, Timestamp::micros);
                let rows = pool.fetch_all(query).await.map_err(failed)?;
                Ok(rows
                    .into_iter()
                    .map(|row| Row { statement: statement.name, inner: Inner::Sqlite(row) })
                    .collect())
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
            Self::Postgres(pool) => {
                // Not by the protocol: the pool would keep it, with types of the server's choice instead of ours.
                let text =
                    format!("PREPARE makegood_reads AS {}\n; DEALLOCATE makegood_reads", statement.postgres);
                pool.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.map_err(failed).map(drop)
            }
            Self::Sqlite(pool) => {
                pool.prepare(statement.sqlite.into_sql_str()).await.map_err(failed).map(drop)
            }
        }
    }

    /// How the database would run each statement; nothing is run. PostgreSQL: a plan for all parameters,
    /// as JSON, where reading a whole table and joining whole relations are the last resort. SQLite: the
    /// steps, as a list of texts.
    pub async fn plans(&self, statements: &[&'static Statement]) -> Result<Vec<Json>, DbError> {
        let mut plans = Vec::new();
        match self {
            Self::Postgres(pool) => {
                let failed = |source| DbError::Transaction { what: "begin", source };
                let mut tx = pool.begin().await.map_err(failed)?;
                // Only for this transaction, which is rolled back.
                let settings =
                    "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off;
                                SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";
                tx.execute(sqlx::raw_sql(settings)).await.map_err(failed)?;
                for statement in statements {
                    let failed = |source| DbError::Statement { statement: statement.name, source };
                    let nulls = vec!["null"; parameters(statement.postgres)].join(", ");
                    let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
                    let text = format!(
                        "PREPARE makegood_explains AS {}\n; EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE makegood_explains{nulls};
                         DEALLOCATE makegood_explains",
                        statement.postgres
                    );
                    let rows = tx.fetch_all(sqlx::raw_sql(AssertSqlSafe(text))).await.map_err(failed)?;
                    let plan = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
                    // In the simple protocol JSON is text.
                    let plan: String = plan.try_get_unchecked(0).map_err(failed)?;
                    let plan: Json = serde_json::from_str(&plan)
                        .map_err(|error| failed(sqlx::Error::Decode(error.into())))?;
                    plans.push(plan[0]["Plan"].clone());
                }
            }
            Self::Sqlite(pool) => {
                for statement in statements {
                    let failed = |source| DbError::Statement { statement: statement.name, source };
                    let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.sqlite));
                    let rows = pool.fetch_all(sqlx::raw_sql(text)).await.map_err(failed)?;
                    let steps = rows.iter().map(|row| row.try_get::<String, _>("detail").map(Json::from));
                    plans.push(steps.collect::<Result<_, _>>().map_err(failed)?);
                }
            }
        }
        Ok(plans)
    }

    /// Begins a transaction that may write.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        let failed = |source| DbError::Transaction { what: "begin", source };
        match self {
            Self::Postgres(pool) => {
                one_may_come_free(pool).await;
                Ok(Tx::Postgres(begin_to_the_end(pool).await.map_err(failed)?))
            }
            Self::Sqlite(pool) => Ok(Tx::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?)),
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

/// How many parameters a statement has: the highest `$n` outside of its comments.
fn parameters(text: &str) -> usize {
    let code = text.lines().filter(|line| !line.starts_with("--"));
    let numbers = code.flat_map(|line| line.split('$').skip(1)).filter_map(|rest| {
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    numbers.max().unwrap_or(0)
}

/// Waits a moment for a connection that is just being given back, before one more is opened: where the server has no room
/// for that, opening takes until it is given up.
async fn one_may_come_free(pool: &PgPool) {
    let most = pool.options().get_max_connections();
    let began = Instant::now();
    while pool.num_idle() == 0 && (1..most).contains(&pool.size()) && began.elapsed() < A_MOMENT {
        tokio::time::sleep(Duration::from_millis(1)).await;
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
            Self::Postgres(tx) => {
                let query = bound!(Postgres, statement.postgres, values, Timestamp::to_chrono);
                let rows = tx.fetch_all(query).await.map_err(failed)?;
                Ok(rows
                    .into_iter()
                    .map(|row| Row { statement: statement.name, inner: Inner::Postgres(row) })
                    .collect())
            }
            Self::Sqlite(tx) => {
                let query = bound!(Sqlite, statement.sqlite, values, Timestamp::micros);
                let rows = tx.fetch_all(query).await.map_err(failed)?;
                Ok(rows
                    .into_iter()
                    .map(|row| Row { statement: statement.name, inner: Inner::Sqlite(row) })
                    .collect())
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
            Self::Postgres(_) => {
                self.command("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "take one snapshot for").await
            }
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// Ends the part; what it did stays if the transaction is committed.
    pub async fn end_part(&mut self) -> Result<(), DbError> {
        self.command("RELEASE SAVEPOINT part", "end a part of").await
    }

    /// Until the end of the transaction, see [`PLAN_SETTINGS`].
    pub async fn allow_bitmap_scans(&mut self) -> Result<(), DbError> {
        match self {
            Self::Postgres(_) => self.command("SET LOCAL enable_bitmapscan = on", "set up").await,
            Self::Sqlite(_) => Ok(()),
        }
    }

    async fn command(&mut self, text: &'static str, what: &'static str) -> Result<(), DbError> {
        let failed = |source| DbError::Transaction { what, source };
        match self {
            Self::Postgres(tx) => tx.execute(sqlx::raw_sql(text)).await.map_err(failed).map(drop),
            Self::Sqlite(tx) => tx.execute(sqlx::raw_sql(text)).await.map_err(failed).map(drop),
        }
    }

    /// Has deferred triggers and constraints of the platform fire now, and from here on at once.
    pub async fn constraints_now(&mut self) -> Result<(), DbError> {
        match self {
            Self::Postgres(_) => {
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
            Self::Postgres(tx) => tx.rollback().await.map_err(failed),
            Self::Sqlite(tx) => tx.rollback().await.map_err(failed),
        }
    }

    /// Makes it so.
    pub async fn commit(self) -> Result<(), DbError> {
        let failed = |source| DbError::Transaction { what: "commit", source };
        match self {
            Self::Postgres(tx) => tx.commit().await.map_err(failed),
            Self::Sqlite(tx) => tx.commit().await.map_err(failed),
        }
    }
}

/// What a statement can be run on: a pool or a transaction.
#[expect(async_fn_in_trait, reason = "used inside the crate only, never as a trait object")]
pub trait Run {
    /// Runs a statement and returns its rows.
    async fn rows(&mut self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError>;
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
