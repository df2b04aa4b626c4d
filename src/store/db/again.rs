//! What a failure of the database means: whether the same transaction may succeed when it is run once more, how long to
//! go on trying, and what a person should do who finds a pass ended by it.
//!
//! Four kinds are worth repeating. A race that was lost (deadlock, serialization failure), and a
//! connection of a platform's trigger: a few times at once. A statement that ran into its time
//! limit: twice. A lock that another session holds: as long as a statement may take; only settle
//! does otherwise, which goes on with the others (`store::settle`). A connection that broke, or
//! that was not to be had, and a file that another holds: as long as a statement may take, since a
//! restart, or the connection limit, is over within seconds or not at all.

use std::time::{Duration, Instant};

use super::DbError;

/// Tries after the first for a race that was lost.
const RACES: u32 = 5;
/// Tries after the first for a statement that ran into its time limit: each costs that limit.
const TIMEOUTS: u32 = 2;
/// The pause before a lock is waited for again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is the matter with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Others were first: a deadlock, a serialization failure.
    Race,
    /// Another session held a lock for longer than it is waited for.
    LockTimeout,
    /// Another holds the file, and did for as long as SQLite itself waits for it.
    Locked,
    /// A statement took longer than it may.
    TimedOut,
    /// The connection is gone, and nobody knows what came of what was under way.
    ConnectionLost,
    /// A function of the platform's answered with the code of a connection: it may have one of its
    /// own.
    Raised,
    /// No connection was to be had: all are at work, or the server allows no more.
    NoConnection,
    /// The server cannot be reached now; the error says why.
    Unreachable,
    /// It takes no writes.
    ReadOnly,
    /// It has no room left.
    Full,
    /// The tables were never made, or lie elsewhere.
    NoTables,
    /// Anything else.
    Other,
}

impl DbError {
    /// What is the matter.
    pub fn trouble(&self) -> Trouble {
        if let Self::Connect(refusal) = self
            && refusal.may_pass()
        {
            return Trouble::Unreachable;
        }
        let Some(source) = self.sqlx() else { return Trouble::Other };
        match source {
            sqlx::Error::PoolTimedOut => return Trouble::NoConnection,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => return Trouble::ConnectionLost,
            _ => {}
        }
        if let Some(error) = self.postgres() {
            return of_sqlstate(error.code(), self.function().is_some(), self.is_raised_by_hand());
        }
        match self.sqlite_kind() {
            Some(5 | 6) => Trouble::Locked,
            Some(8) => Trouble::ReadOnly,
            Some(13) => Trouble::Full,
            Some(_) if source.to_string().contains("no such table") => Trouble::NoTables,
            Some(_) | None => Trouble::Other,
        }
    }

    /// A relation is not there: the tables were never made, or lie elsewhere.
    pub fn is_about_missing_tables(&self) -> bool {
        self.trouble() == Trouble::NoTables
    }
}

/// What a SQLSTATE means. Inside a function of the platform's it concerns one row: there is a
/// connection, or nothing could have been raised. A database that is full or takes no writes may
/// say so inside a function too; by hand, it is the row.
fn of_sqlstate(code: &str, in_function: bool, by_hand: bool) -> Trouble {
    match code {
        "40001" | "40P01" => Trouble::Race,
        "55P03" => Trouble::LockTimeout,
        "57014" => Trouble::TimedOut,
        // Thrown out, crashed, coming up or going down, or slept too long inside a transaction; no
        // room for a connection.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "53300" if in_function => Trouble::Raised,
        class if in_function && class.starts_with("08") => Trouble::Raised,
        "25006" if !by_hand => Trouble::ReadOnly,
        "53100" if !by_hand => Trouble::Full,
        _ if in_function => Trouble::Other,
        // Behind a pooler the driver looks a type up between a statement and its run, which makes
        // the server forget the statement. It knows the type from then on.
        "26000" => Trouble::Race,
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Trouble::ConnectionLost,
        "53300" => Trouble::NoConnection,
        "42P01" => Trouble::NoTables,
        class if class.starts_with("08") => Trouble::ConnectionLost,
        _ => Trouble::Other,
    }
}

impl Trouble {
    /// Whether what was sent may have been carried out although nobody heard so. A time limit, too: PostgreSQL may tell of one that
    /// struck just before a commit after it has committed.
    pub const fn leaves_doubt(self) -> bool {
        matches!(self, Self::ConnectionLost | Self::TimedOut)
    }

    /// What a person should do about it, as the end of a sentence; none: nothing in particular.
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Race => Some("others were first again and again: look for what holds locks for long"),
            Self::LockTimeout => Some(
                "another session held a lock for longer than database.lock_timeout, again and again: look for it in \
                 pg_stat_activity (pg_blocking_pids) and end its transaction",
            ),
            Self::Raised => Some(
                "a function of the platform's (a trigger, or one that a view calls) raised it, again and again: its name \
                 is in the database's log",
            ),
            Self::Locked => Some("another process holds the file for long: look for one that writes to it"),
            Self::TimedOut => Some(
                "a statement took longer than database.statement_timeout: look for locks held for long (pg_stat_activity) \
                 and for a database that has become slow",
            ),
            Self::ConnectionLost => {
                Some("the database went away or did not let us in: is it up, and reachable from here?")
            }
            Self::NoConnection => Some(
                "no connection was to be had: the database refuses more than it has room for (max_connections, or a limit of \
                 the role or the database), or all of database.max_connections were at work for too long",
            ),
            Self::ReadOnly => Some(
                "the database takes no writes: point database.url at the primary, or make it writable again \
                 (default_transaction_read_only, the file's and directory's rights, mode=ro)",
            ),
            Self::Full => Some("the database has no room left: free some, or give it more"),
            Self::NoTables => Some(
                "run `makegood migrate` first (with --reference-schema where the platform has no relations of its own)",
            ),
            Self::Unreachable | Self::Other => None,
        }
    }
}

/// How often a transaction was tried, and why.
#[derive(Debug)]
pub struct Tries {
    races: u32,
    timeouts: u32,
    lost: u32,
    /// For so long a connection, a file, or a lock is waited for, from when it was first missed.
    patience: Duration,
    missed: Option<Instant>,
    locked: Option<Instant>,
}

impl Tries {
    /// None yet.
    pub const fn new(patience: Duration) -> Self {
        Self { races: 0, timeouts: 0, lost: 0, patience, missed: None, locked: None }
    }

    /// How long to wait before the next try; none: it is no use.
    pub fn pause(&mut self, trouble: Trouble) -> Option<Duration> {
        match trouble {
            Trouble::Race | Trouble::Raised => {
                self.races += 1;
                (self.races <= RACES).then(|| Duration::from_millis(10 << self.races))
            }
            Trouble::TimedOut => {
                self.timeouts += 1;
                (self.timeouts <= TIMEOUTS).then_some(Duration::from_millis(20))
            }
            Trouble::LockTimeout => {
                let locked = *self.locked.get_or_insert_with(Instant::now);
                (locked.elapsed() < self.patience).then_some(LOCK_PAUSE)
            }
            Trouble::Locked | Trouble::ConnectionLost | Trouble::NoConnection | Trouble::Unreachable => {
                let missed = *self.missed.get_or_insert_with(Instant::now);
                self.lost += 1;
                let pause = Duration::from_millis(20 << self.lost.min(6)).min(PAUSE_MAX);
                (missed.elapsed() < self.patience).then_some(pause)
            }
            Trouble::ReadOnly | Trouble::Full | Trouble::NoTables | Trouble::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_hours(1);

    #[test]
    fn what_another_try_does_not_mend_is_not_tried_again() {
        for trouble in [Trouble::ReadOnly, Trouble::Full, Trouble::NoTables, Trouble::Other] {
            assert_eq!(Tries::new(PATIENCE).pause(trouble), None, "{trouble:?}");
        }
    }

    #[test]
    fn tries_come_to_an_end() {
        let mut tries = Tries::new(PATIENCE);
        let races = (0..100).filter(|_| tries.pause(Trouble::Race).is_some()).count();
        let timeouts = (0..100).filter(|_| tries.pause(Trouble::TimedOut).is_some()).count();
        assert_eq!((races, timeouts), (5, 2));
        assert!(tries.pause(Trouble::ConnectionLost).is_some(), "of its own");
        assert!(tries.pause(Trouble::Locked).is_some(), "a file is waited for like a connection");
        let mut impatient = Tries::new(Duration::ZERO);
        assert_eq!(impatient.pause(Trouble::ConnectionLost), None);
        assert_eq!(impatient.pause(Trouble::Locked), None);
        assert_eq!(impatient.pause(Trouble::NoConnection), None);
        assert!(
            (0..100).all(|_| tries.pause(Trouble::LockTimeout).is_some()),
            "as long as a statement may take"
        );
        assert_eq!(impatient.pause(Trouble::LockTimeout), None);
    }

    #[test]
    fn a_missing_connection_is_asked_for_at_most_once_a_second() {
        let mut tries = Tries::new(PATIENCE);
        let pauses: Vec<_> = (0..8).filter_map(|_| tries.pause(Trouble::NoConnection)).collect();
        assert_eq!(pauses.len(), 8);
        assert!(pauses.is_sorted() && pauses[7] == PAUSE_MAX, "{pauses:?}");
    }

    #[test]
    fn p16_what_may_have_been_committed_is_told_from_what_was_not() {
        for trouble in [Trouble::ConnectionLost, Trouble::TimedOut] {
            assert!(trouble.leaves_doubt(), "{trouble:?}");
        }
        for trouble in [
            Trouble::Race,
            Trouble::LockTimeout,
            Trouble::Locked,
            Trouble::Raised,
            Trouble::NoConnection,
            Trouble::Unreachable,
            Trouble::ReadOnly,
            Trouble::Full,
            Trouble::Other,
        ] {
            assert!(!trouble.leaves_doubt(), "{trouble:?} was rolled back for certain");
        }
    }

    #[test]
    fn each_failure_is_told_from_the_others() {
        let statement = |source| DbError::Statement { statement: "claim", source };
        assert_eq!(statement(sqlx::Error::PoolTimedOut).trouble(), Trouble::NoConnection);
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(statement(sqlx::Error::Io(reset)).trouble(), Trouble::ConnectionLost);
        assert_eq!(statement(sqlx::Error::RowNotFound).trouble(), Trouble::Other);
    }

    #[test]
    fn a_sqlstate_is_no_code_of_sqlite_and_a_functions_concerns_its_row() {
        // `& 0xff` these are SQLITE_BUSY, SQLITE_LOCKED, SQLITE_READONLY.
        for code in ["42501", "22021", "21000", "53000"] {
            assert_eq!(of_sqlstate(code, false, false), Trouble::Other, "{code}");
        }
        let told = [
            ("57P01", Trouble::ConnectionLost, Trouble::Raised),
            ("08006", Trouble::ConnectionLost, Trouble::Raised),
            ("53300", Trouble::NoConnection, Trouble::Raised),
            ("25006", Trouble::ReadOnly, Trouble::Other),
            ("53100", Trouble::Full, Trouble::Other),
            ("42P01", Trouble::NoTables, Trouble::Other),
            ("40P01", Trouble::Race, Trouble::Race),
            ("57014", Trouble::TimedOut, Trouble::TimedOut),
        ];
        for (code, outside, inside) in told {
            let of = |in_function| of_sqlstate(code, in_function, in_function);
            assert_eq!((of(false), of(true)), (outside, inside), "{code}");
        }
        assert_eq!(of_sqlstate("53100", true, false), Trouble::Full, "the trigger's own table has no room");
    }
}
