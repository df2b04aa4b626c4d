//! Opens the database: a SQLite file, or connections to PostgreSQL, directly or through a pooler.
//!
//! Every statement relies on settings of its session: time limits, read committed, plans that read
//! by key. A server takes them as startup options. A pooler such as PgBouncer refuses these, drops
//! them without a word, or hands the next transaction to another server connection. So they are
//! read back after the first connection. Where they were refused or dropped, makegood works as a
//! pooler allows: each transaction begins with its own settings, in the same message as `BEGIN`,
//! and no statement is kept under a name. That holds in transaction mode and in session mode alike,
//! so nobody has to say which of the two it is.
//!
//! Promises: a SQLite file is only created where that was asked for. A server that cannot be
//! reached is told in one attempt, with the reason (`refusal`). Settings that do not hold in either
//! way refuse the database: without time limits a pass might wait for ever.
//! Leaves to others: TLS and passwords (`tls`), whether to try again (`again`, `Store::open_with`).
//! A crash leaves nothing behind.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Postgres, Row as _, Transaction};

use super::refusal::{Refusal, Target};
use super::tls::{self, Encryption};
use super::{DbError, redacted};
use crate::store::statements::SETTINGS_IN_FORCE;

/// The pool gives up one attempt to get a connection after this time; the caller tries again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// The first connection, with the proof of its settings, may take this long.
const FIRST_CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is waited for that is just being given back.
const GIVEN_BACK_WITHIN: Duration = Duration::from_millis(20);

/// Every statement reads by key: nested loops over index scans, whatever the statistics say. A plan
/// that was made while a table was empty is kept by its connection, and a sequential scan in it
/// would read the whole table a minute later; a bitmap scan, a sort or a hash join reads all of a
/// stretch where a LIMIT needs its beginning. Where a relation has no usable index PostgreSQL still
/// reads it whole, and `makegood check` says which index is missing.
///
/// A plan is made once per connection, for all parameters. By default PostgreSQL plans the first
/// five executions on each connection for their parameters. These plans are all the same, and took
/// 3 % of the database's time for 20,000 items.
const PLAN_SETTINGS: [(&str, &str); 7] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// `postgres://…` or `sqlite://…`.
    pub url: &'a str,
    /// At most so many connections at once.
    pub max_connections: u32,
    /// The database ends a statement that takes longer.
    pub statement_timeout: Duration,
    /// The database ends a statement that waits longer for a lock.
    pub lock_timeout: Duration,
    /// Whether a SQLite file that is not there is created.
    pub creates: bool,
    /// How long a server that cannot be reached is waited for.
    pub waits: Waits,
}

/// How long a server that cannot be reached is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Not at all: a person is waiting for an answer.
    No,
    /// As long as a statement may take: a restart is over by then.
    AsLongAsAStatement,
    /// Until it can be reached: a daemon.
    Forever,
}

/// How the statements reach PostgreSQL.
#[derive(Clone, Debug)]
pub struct Link {
    /// Host and port, or the socket.
    pub place: String,
    /// Whether a pooler is in between: settings inside each transaction, no named statements.
    pub pooled: bool,
    /// Who could read and change what is sent.
    pub encryption: Encryption,
}

/// A pool of connections to PostgreSQL.
#[derive(Clone, Debug)]
pub struct Server {
    pool: PgPool,
    target: Arc<Target>,
    link: Arc<Link>,
    /// Behind a pooler: `BEGIN` and the settings of a transaction, as one message.
    begin: Option<Arc<str>>,
}

/// Opens a SQLite file.
pub(super) async fn sqlite(opening: &Opening<'_>) -> Result<SqlitePool, DbError> {
    let failed = |source| DbError::Open { url: redacted(opening.url), source };
    let options: SqliteConnectOptions = opening.url.parse().map_err(failed)?;
    let in_memory = opening.url.contains(":memory:") || opening.url.contains("mode=memory");
    if !in_memory && !opening.creates && !options.get_filename().exists() {
        return Err(DbError::NoFile { url: redacted(opening.url) });
    }
    let options = options
        .create_if_missing(opening.creates || in_memory)
        .foreign_keys(true)
        .journal_mode(if in_memory { SqliteJournalMode::Memory } else { SqliteJournalMode::Wal })
        // Money: a commit that was reported survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30));
    // A database in memory lives as long as its one connection.
    let connections = if in_memory { 1 } else { opening.max_connections };
    SqlitePoolOptions::new()
        .max_connections(connections)
        .idle_timeout(None)
        .max_lifetime(None)
        // It is no server that may have gone: asking before each statement would only double the
        // round trips.
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(failed)
}

impl Server {
    /// Connects once, to say at once what is wrong and to find out whether the settings hold.
    pub(super) async fn open(opening: &Opening<'_>) -> Result<Self, DbError> {
        let (options, encryption) = tls::options(opening.url)?;
        let target = Target::of(&options);
        let first = first_connection(&options, encryption, &target, opening);
        let pooled = match tokio::time::timeout(FIRST_CONNECTION_TIMEOUT, first).await {
            Ok(pooled) => pooled.map_err(|refusal| DbError::Connect(Box::new(refusal)))?,
            Err(_) => return Err(Refusal::no_answer(&target, FIRST_CONNECTION_TIMEOUT).into()),
        };
        let settings = settings(opening);
        let options = if pooled { behind_pooler(&options) } else { direct(&options, &settings) };
        let pool = PgPoolOptions::new()
            .max_connections(opening.max_connections)
            // Short, because whoever waits here for the server to allow one more does not see one
            // of ours come free.
            .acquire_timeout(CONNECTION_TIMEOUT.min(opening.statement_timeout))
            .connect_lazy_with(options);
        let link = Arc::new(Link { place: target.place.clone(), pooled, encryption });
        let begin = pooled.then(|| Arc::from(beginning(&settings)));
        Ok(Self { pool, target: Arc::new(target), link, begin })
    }

    /// The pool, for a statement of its own.
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How the statements reach the server.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Begins a transaction in a task of its own, which goes on to the end when nobody waits for it
    /// any more. What it has begun then is rolled back.
    ///
    /// sqlx 0.9.0 does not know of a transaction before `BEGIN` is answered (its issue 4393).
    /// Dropped earlier, such as by a time limit, the connection would go back to the pool with a
    /// transaction open: whatever ran on it later would hold its locks, and would not be committed.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, DbError> {
        self.wait_for_given_back().await;
        let (pool, first_message) = (self.pool.clone(), self.begin.clone());
        let begun = tokio::spawn(async move {
            match first_message {
                Some(text) => pool.begin_with(AssertSqlSafe(text)).await,
                None => pool.begin().await,
            }
        });
        let failed = |source| DbError::Transaction { what: "begin", source };
        match begun.await {
            Ok(Ok(tx)) => Ok(tx),
            Ok(Err(source)) => Err(self.explained(failed(source)).await),
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            // The runtime ends, and this process with it.
            Err(_) => Err(failed(sqlx::Error::PoolClosed)),
        }
    }

    /// Waits a moment for a connection that is just being given back, before one more is opened:
    /// where the server has no room for that, opening takes until it is given up.
    pub(super) async fn wait_for_given_back(&self) {
        let most = self.pool.options().get_max_connections();
        let began = Instant::now();
        while self.pool.num_idle() == 0
            && (1..most).contains(&self.pool.size())
            && began.elapsed() < GIVEN_BACK_WITHIN
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The pool only says that no connection was to be had. Connects once more, to say why:
    /// otherwise a server that is down looks like one that is full.
    pub(super) async fn explained(&self, error: DbError) -> DbError {
        if !matches!(error.sqlx(), Some(sqlx::Error::PoolTimedOut)) {
            return error;
        }
        let options = self.pool.connect_options();
        match tokio::time::timeout(CONNECTION_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => {
                // All of ours are at work. That closing fails says nothing.
                let _closed = connection.close().await;
                error
            }
            Ok(Err(source)) => Refusal::of(&source, &self.target).into(),
            Err(_) => Refusal::no_answer(&self.target, CONNECTION_TIMEOUT).into(),
        }
    }
}

/// What every statement relies on.
fn settings(opening: &Opening<'_>) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("statement_timeout", opening.statement_timeout.as_millis().to_string()),
        // Zero would be for ever.
        ("lock_timeout", opening.lock_timeout.as_millis().max(1).to_string()),
        ("idle_in_transaction_session_timeout", "60000".to_owned()),
        ("timezone", "UTC".to_owned()),
        // Versions before 8 of the tables do not add their refunds to the sums of the brake: a
        // trigger does it for them.
        ("makegood.adds_refund_sums", "on".to_owned()),
        // Whatever the database's own default is: settle looks once more after its locks, at what
        // is committed by then.
        (ISOLATION, "read committed".to_owned()),
        // Batches are small and their plans are always the same: compiling them costs more than it
        // saves.
        ("jit", "off".to_owned()),
    ];
    settings.extend(PLAN_SETTINGS.map(|(name, value)| (name, value.to_owned())));
    settings
}

const ISOLATION: &str = "default_transaction_isolation";

fn direct(options: &PgConnectOptions, settings: &[(&'static str, String)]) -> PgConnectOptions {
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
    options.clone().application_name("makegood").options(settings)
}

/// A pooler refuses what it does not know.
fn behind_pooler(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().application_name("makegood").extra_float_digits(None)
}

/// Begins a transaction with its settings. `SET LOCAL` takes no snapshot, so the isolation level
/// can still be changed after it ([`super::Tx::one_snapshot`]).
fn beginning(settings: &[(&'static str, String)]) -> String {
    let mut text = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
    for (name, value) in settings.iter().filter(|(name, _)| *name != ISOLATION) {
        // Writing into a String cannot fail.
        let _ = write!(text, "; SET LOCAL {name} = '{value}'");
    }
    text
}

/// Whether a pooler is in between. Both ways prove that the settings hold.
async fn first_connection(
    options: &PgConnectOptions,
    encryption: Encryption,
    target: &Target,
    opening: &Opening<'_>,
) -> Result<bool, Refusal> {
    if encryption == Encryption::MaybeNone
        && tls::asks_for_clear_password(options).await.map_err(|source| Refusal::of(&source, target))?
    {
        return Err(Refusal::clear_password(target));
    }
    let settings = settings(opening);
    let refused = |source: sqlx::Error| Refusal::of(&source, target);
    match direct(options, &settings).connect().await {
        Ok(mut connection) => {
            let dropped = not_in_force(&mut connection, &settings).await;
            let _closed = connection.close().await;
            if dropped.map_err(refused)?.is_empty() {
                return Ok(false);
            }
        }
        Err(source) if is_about_options(&source) => {}
        Err(source) => return Err(refused(source)),
    }
    let mut connection = behind_pooler(options).connect().await.map_err(refused)?;
    let proof = async {
        let mut tx = connection.begin_with(AssertSqlSafe(beginning(&settings))).await?;
        let inside = settings.iter().map(|(name, value)| match *name {
            ISOLATION => ("transaction_isolation", value.clone()),
            name => (name, value.clone()),
        });
        let dropped = not_in_force(&mut tx, &inside.collect::<Vec<_>>()).await?;
        tx.rollback().await?;
        Ok::<_, sqlx::Error>(dropped)
    };
    let dropped = proof.await;
    let _closed = connection.close().await;
    match dropped.map_err(refused)?.as_slice() {
        [] => Ok(true),
        dropped => Err(Refusal::settings_do_not_hold(target, dropped)),
    }
}

/// The names of the settings that have another value than they should.
async fn not_in_force(
    connection: &mut PgConnection,
    settings: &[(&'static str, String)],
) -> Result<Vec<&'static str>, sqlx::Error> {
    let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
    let query = sqlx::query(SETTINGS_IN_FORCE.postgres).persistent(false).bind(names.join(","));
    let mut held = Vec::new();
    for row in query.fetch_all(connection).await? {
        held.push((row.try_get::<String, _>("name")?, row.try_get::<Option<String>, _>("value")?));
    }
    let holds = |(name, value): &&(&'static str, String)| {
        held.iter().any(|(held, is)| held == name && is.as_ref() == Some(value))
    };
    Ok(settings.iter().filter(|setting| !holds(setting)).map(|(name, _)| *name).collect())
}

/// Whether the startup options were refused, and not the user or the database. PgBouncer and those
/// like it answer 08P01 (protocol violation), others 0A000 (feature not supported).
fn is_about_options(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| match error.code().as_deref() {
        Some("08P01") => error.message().contains("startup parameter"),
        Some("0A000") => true,
        _ => false,
    })
}
