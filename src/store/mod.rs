//! The only room that knows sqlx: what is read, what is written, and in which transaction.
//!
//! `db` runs one statement on either database, `statements` lists them all, `migrations` makes the
//! tables. The rest follows a charge: `scan` finds and opens orphans, `claim` leases them and reads
//! the facts, `settle` is the one transaction that moves money, `late` is what becomes known after
//! it, `uploads` notes what may be left over in the storage, `brakes` keeps the brake, `totals`
//! counts for people and metrics, `provider_state` remembers who was not there, `shares` who asks
//! whom how much, `version` compares the tables with the binary, `erasure` hashes evidence and
//! erases it. For people alone are `story` (one charge), `review` (what was made good and what
//! waits), and for `makegood check` `contract` (whether all is as needed), `plans` (whether it can
//! be searched), `sample` (how the newest charges look), `times` (whether times are what they
//! should be) and `books` (whether refunds, ledger and balances add up). A crash anywhere leaves
//! what was committed; the next pass does the rest.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Timestamp};

mod books;
mod brakes;
mod by_hand;
mod checks;
mod claim;
mod contract;
pub mod db;
mod erasure;
mod late;
mod migrations;
mod plans;
mod provider_state;
mod records;
mod review;
mod sample;
mod scan;
mod settle;
mod shares;
mod statements;
mod story;
mod times;
mod totals;
mod turn;
mod uploads;
mod version;

pub use books::{BalanceBooks, ChargeBooks, EntryBooks, RefundBooks};
pub use brakes::{BrakeEvent, BrakeState, HeldAccount, HeldProvider, Released};
pub use by_hand::Taken;
pub use checks::PostingCheck;
pub use claim::{Case, Claimed, Suspect, Suspects};
pub use contract::{Balance, Flaw, LEDGER_SAMPLE, Unlinked, UnlinkedRefunds};
pub use db::{DbError, Encryption, Link, Opening, Refusal, Trouble, Waits, redacted};
pub use erasure::{Erased, ErasedBy, Erasing, Place, ROWS as ERASURE_ROWS, Whose};
pub use late::{
    LateCase, LateClaimed, LateNext, LateSettlement, LateSuccesses, LookedAtRefunds, RefundPosition,
};
pub use migrations::{MigrateError, OWN_VERSION};
pub use plans::{WholeRead, Why};
pub use provider_state::ProviderState;
pub use review::{LateEvidence, LateItem, LateProvider, MadeGood, MadeGoodItem, Waiting, WaitingItem};
pub use sample::{Looked, SampledCharge, Standing};
pub use scan::{
    Backlog, Chunk, Counted, Cursor, Cursors, Dating, Found, Grace, Lost, Over, Pace, Position, Preview,
    Refused, Scan,
};
pub use settle::{
    Locked, LostOutput, Outcome, Reversal, Reversed, ReversedRefund, SettleRules, Settlement, Stuck, Trial,
};
pub use shares::ProviderShares;
pub use story::{AnswerRow, EventRow, ItemRow, OrphanRow, OutputRow, ResolutionRow, ReversalRow, Story};
pub use times::{Fault, OddTimes};
pub use totals::{Counter, LastPass, RESOLUTION_BUCKETS_SECONDS, Unresolved};
pub use uploads::{Leftover, UploadKey};
pub use version::Tables;

use db::{Db, Row, Run, Statement, Tries, Value};

/// Runs a transaction again when another try may succeed: it lost a race, ran into a time limit, or lost its connection.
/// Each try begins afresh; nothing of a failed one stays, unless the connection broke at its commit. So what is run here does
/// no harm when it is done twice: it goes by keys and tokens, or counts, at worst, a pass or a sweep too many.
macro_rules! with_retries {
    ($store:expr, $attempt:expr) => {{
        let mut tries = crate::store::db::Tries::new($store.patience);
        loop {
            let pause = match $attempt {
                Ok(done) => break Ok(done),
                Err(error) => match tries.pause(error.trouble()) {
                    None => break Err(error),
                    Some(pause) => {
                        crate::store::tell_of_another_try(&error, error.trouble());
                        pause
                    }
                },
            };
            tokio::time::sleep(pause).await;
        }
    }};
}
use with_retries;

/// Races and short waits for a lock are everyday; the rest is for whoever looks after the database.
fn tell_of_another_try(error: &dyn std::error::Error, trouble: Trouble) {
    let why = crate::report::chain(error);
    if matches!(trouble, Trouble::Race | Trouble::LockTimeout) {
        tracing::debug!("run again: {why}");
    } else {
        tracing::warn!("the database: {why}; run again");
    }
}

/// The tables of one platform.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    clock: Option<Clock>,
    /// When the database was last asked for the time, and what it said.
    asked: Arc<Mutex<Option<(Instant, Timestamp)>>>,
    /// Uploads that are about to be noted.
    beginning: Arc<uploads::Beginning>,
    /// When charges were last counted for the brake, and how many.
    charges: Arc<Mutex<Option<(Timestamp, u64)>>>,
    /// When their average price was last read, and what it is.
    price: Arc<Mutex<Option<brakes::KnownPrice>>>,
    /// For so long a connection that is missing is waited for: as long as a statement may take.
    patience: Duration,
    /// For so long a settle waits for a lock of another session.
    lock_timeout: Duration,
}

impl Run for &Store {
    async fn rows(&mut self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError> {
        Store::rows(self, statement, values).await
    }
}

/// How long a lock of another session is waited for, where nothing else is set.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// For so long the database's last answer and our own stopwatch tell the time, before it is asked again.
const TIME_IS_GOOD_FOR: Duration = Duration::from_secs(5);

impl Store {
    /// Opens the database as [`Store::open_waiting`] does, with the default lock timeout.
    ///
    /// # Errors
    /// The address is unreadable or nobody answers there.
    pub async fn open(url: &str, max_connections: u32, statement_timeout: Duration) -> Result<Self, DbError> {
        Self::open_waiting(url, max_connections, statement_timeout, LOCK_TIMEOUT).await
    }

    /// Opens the database as the demo and tests need it: creates a SQLite file that is not there,
    /// and waits for a server as long as a statement may take.
    ///
    /// # Errors
    /// The address is unreadable or nobody answers there.
    pub async fn open_waiting(
        url: &str,
        max_connections: u32,
        statement_timeout: Duration,
        lock_timeout: Duration,
    ) -> Result<Self, DbError> {
        let (creates, waits) = (true, Waits::AsLongAsAStatement);
        Self::open_with(Opening { url, max_connections, statement_timeout, lock_timeout, creates, waits })
            .await
    }

    /// Opens the database. Time is the database's on PostgreSQL and the process's on SQLite. A lock
    /// timeout beyond half of the statement timeout counts as this half: otherwise the statement
    /// would be ended first.
    ///
    /// # Errors
    /// The address is unreadable, nobody answers there, or the file is not there.
    pub async fn open_with(opening: Opening<'_>) -> Result<Self, DbError> {
        let statement_timeout = opening.statement_timeout;
        let lock_timeout = opening.lock_timeout.min(statement_timeout / 2);
        let db = open_waiting_visibly(&Opening { lock_timeout, ..opening }).await?;
        let clock = (!db.is_postgres()).then_some(Clock::System);
        Ok(Self {
            db,
            clock,
            asked: Arc::default(),
            beginning: Arc::default(),
            charges: Arc::default(),
            price: Arc::default(),
            patience: statement_timeout,
            lock_timeout,
        })
    }

    /// The same tables with a clock of our own, and nothing remembered: for simulations, tests and the demo.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self {
            clock: Some(clock),
            asked: Arc::default(),
            beginning: Arc::default(),
            charges: Arc::default(),
            price: Arc::default(),
            ..self
        }
    }

    /// What time it is for all workers, to the microsecond: the database's last answer and the time since.
    pub async fn now(&self) -> Result<Timestamp, DbError> {
        if let Some(clock) = &self.clock {
            return Ok(clock.now());
        }
        // Poisoned by a panic in between, the pair is still a pair.
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, now)) = asked
            && when.elapsed() < TIME_IS_GOOD_FOR
        {
            return Ok(now + when.elapsed());
        }
        let rows = self.rows(statements::CLOCK, &[]).await?;
        let now = first(statements::CLOCK, &rows)?.time("now")?;
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), now));
        Ok(now)
    }

    /// How the statements reach PostgreSQL; none on SQLite.
    pub fn link(&self) -> Option<&Link> {
        self.db.link()
    }

    /// Whether this is the production store.
    pub const fn is_postgres(&self) -> bool {
        self.db.is_postgres()
    }

    /// Has the database read every statement there is, without running any. Returns how many.
    ///
    /// # Errors
    /// A relation or a column that a statement names is not there.
    pub async fn prepare_all(&self) -> Result<usize, DbError> {
        let mut read = 0;
        // The platform need not have `accounts`: nothing but `explain` reads it.
        let optional = [statements::CONTRACT_ACCOUNTS.name, statements::STORY_ACCOUNT.name];
        let needed = |statement: &&&Statement| !optional.contains(&statement.name);
        for statement in statements::ALL.iter().filter(|statement| self.db.runs(statement)).filter(needed) {
            self.db.prepare(statement).await?;
            read += 1;
        }
        Ok(read)
    }

    /// Closes all connections; open transactions are rolled back.
    pub async fn close(&self) {
        self.db.close().await;
    }

    async fn rows(&self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError> {
        with_retries!(self, self.db.rows(statement, values).await)
    }

    /// Runs a statement that reads all open orphans. It may use a bitmap scan: read by an index alone, in an order that is not
    /// that of the table, every orphan costs a block of its own.
    async fn bulk_rows(&self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError> {
        with_retries!(
            self,
            async {
                let mut tx = self.db.begin().await?;
                tx.allow_bitmap_scans().await?;
                let rows = tx.rows(statement, values).await?;
                tx.commit().await?;
                Ok::<_, DbError>(rows)
            }
            .await
        )
    }
}

/// Opens the database, and tries again while the server cannot be reached, as long as `opening`
/// says. Logs why it waits, at first and every half minute: a daemon that only waits looks like one
/// that works.
async fn open_waiting_visibly(opening: &Opening<'_>) -> Result<Db, DbError> {
    const TOLD_EVERY: Duration = Duration::from_secs(30);
    let patience = match opening.waits {
        Waits::No => return Db::open(opening).await,
        Waits::AsLongAsAStatement => opening.statement_timeout,
        Waits::Forever => Duration::MAX,
    };
    let began = Instant::now();
    let mut tries = Tries::new(patience);
    let mut told: Option<Instant> = None;
    loop {
        let error = match Db::open(opening).await {
            Ok(db) => {
                if told.is_some() {
                    tracing::info!("connected to the database after {} seconds", began.elapsed().as_secs());
                }
                return Ok(db);
            }
            Err(error) => error,
        };
        let pause = tries.pause(error.trouble()).filter(|_| error.trouble() == Trouble::Unreachable);
        let Some(pause) = pause else { return Err(error) };
        if told.is_none_or(|told| told.elapsed() > TOLD_EVERY) {
            told = Some(Instant::now());
            if opening.waits == Waits::Forever {
                tracing::warn!("{error} Waiting for the server.");
            } else {
                tracing::warn!("{error} Waiting for at most {} seconds.", patience.as_secs());
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// The row of a statement that always returns one.
fn first<'a>(statement: &'static Statement, rows: &'a [Row]) -> Result<&'a Row, DbError> {
    rows.first().ok_or(DbError::Statement { statement: statement.name, source: sqlx::Error::RowNotFound })
}
