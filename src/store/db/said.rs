//! What the database said with an error: read by dialect, and told apart by what it concerns, one
//! row or the whole.
//!
//! A SQLSTATE is never read as a SQLite code, nor the other way round: both are short numbers. A
//! platform's trigger, view or function may answer with any SQLSTATE, also with those of a lost
//! connection, a full disk or a missing table. What comes from inside a function is therefore the
//! platform's answer to one row, whatever its code says, unless the server itself, and not the
//! function, says that it has no room or takes no writes. PostgreSQL names the function in the
//! context of the error. The server itself ends a connection with severity FATAL, which no function
//! can raise.

use sqlx::postgres::{PgDatabaseError, PgSeverity};
use sqlx::sqlite::SqliteError;

use super::{DbError, Trouble};

/// How PostgreSQL's context of an error begins where a function ran, after its translation:
/// "PL/pgSQL function …" in English, "PL/pgSQL-Funktion …" in German, "fonction PL/pgSQL …" in
/// French. Functions in SQL are seen in English only.
const FUNCTIONS: [&str; 2] = ["PL/", "SQL function"];

/// SQLSTATE classes of one row: 21 (a view's subquery finds two rows), 22 (data), 23 (constraints),
/// 44 (a view's check), 54 (too long for an index), P0 (a platform's trigger says no).
const ROW_CLASSES: [&str; 6] = ["21", "22", "23", "44", "54", "P0"];

impl DbError {
    /// PostgreSQL's error.
    pub(in crate::store) fn postgres(&self) -> Option<&PgDatabaseError> {
        postgres(self.sqlx()?)
    }

    /// The kind of SQLite's error: the low byte of its code. What is above it is the occasion.
    pub(super) fn sqlite_kind(&self) -> Option<i32> {
        let error = self.sqlx()?.as_database_error()?.try_downcast_ref::<SqliteError>()?;
        let code = sqlx::error::DatabaseError::code(error)?;
        code.parse::<i32>().ok().map(|code| code & 0xff)
    }

    /// The function of the platform's that the error came from, as PostgreSQL tells it: with its
    /// name and line.
    pub fn function(&self) -> Option<&str> {
        self.postgres().and_then(function)
    }

    /// Whether a function of the platform's raised it, and not the server while the function ran:
    /// the place in the server's source is that of a procedural language (`pl_exec.c`,
    /// `plpy_elog.c`).
    pub(super) fn is_raised_by_hand(&self) -> bool {
        let file = self.postgres().filter(|_| self.function().is_some()).and_then(PgDatabaseError::file);
        file.is_some_and(|file| file.rsplit('/').next().unwrap_or_default().starts_with("pl"))
    }

    /// What the error says, with its causes and the function that it came from, if any.
    pub fn told(&self) -> String {
        let mut told = crate::report::chain(self);
        // sqlx adds the line of the server's own source, which reads like one of the function.
        if let Some(line) = self.postgres().and_then(PgDatabaseError::line) {
            told = told.replace(&format!(" at line {line}"), "");
        }
        self.function().map_or_else(|| told.clone(), |function| format!("{told} (in {function})"))
    }

    /// The database answered, and its answer may concern one row or everything that is tried: a
    /// platform's trigger, view or row policy said no, or nothing here knows the answer.
    pub fn may_be_about_a_row(&self) -> bool {
        let answered = self.sqlx().is_some_and(|error| error.as_database_error().is_some());
        answered && (self.trouble() == Trouble::Other || self.function().is_some())
    }

    /// This role may not do what was asked, or a function of the platform's may not (SQLSTATE
    /// 42501).
    pub fn is_about_rights(&self) -> bool {
        self.postgres().is_some_and(|error| error.code() == "42501")
    }

    /// What was asked is not possible for any row: a right, relation, column or function is
    /// missing, or a view takes no writes (SQLSTATE classes 42 and 0A, and 55000).
    pub fn is_about_the_schema(&self) -> bool {
        self.postgres().is_some_and(|error| {
            let code = error.code();
            code.starts_with("42") || code.starts_with("0A") || code == "55000"
        })
    }

    /// A row broke a rule of the database: repeating does not help, leaving the row out does.
    pub fn is_about_a_row(&self) -> bool {
        match self {
            Self::Column { .. } | Self::UnreadableTime { .. } => true,
            // A platform's deferred constraint speaks at the commit.
            Self::Statement { .. } | Self::Transaction { .. } => match self.postgres() {
                Some(error) => ROW_CLASSES.iter().any(|class| error.code().starts_with(class)),
                // SQLITE_CONSTRAINT, SQLITE_TOOBIG, SQLITE_MISMATCH.
                None => self.sqlite_kind().is_some_and(|kind| matches!(kind, 18..=20)),
            },
            Self::Open { .. }
            | Self::Connect(_)
            | Self::NoFile { .. }
            | Self::InDoubt
            | Self::NothingSettled { .. } => false,
        }
    }
}

/// PostgreSQL's error, if it is one.
pub(in crate::store) fn postgres(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()
}

fn function(error: &PgDatabaseError) -> Option<&str> {
    error.r#where().filter(|_| error.severity() == PgSeverity::Error).and_then(of_the_platform)
}

/// The innermost function of the platform's in a context. makegood's own say nothing about a row:
/// they run for every batch.
fn of_the_platform(context: &str) -> Option<&str> {
    context.lines().find(|line| FUNCTIONS.iter().any(|mark| line.contains(mark)) && !is_of_makegood(line))
}

/// Whether the line names a function of makegood's, with or without its schema.
fn is_of_makegood(line: &str) -> bool {
    let name = |word: &str| {
        let (path, _) = word.split_once('(').unwrap_or((word, ""));
        path.rsplit('.').next().unwrap_or_default().trim_start_matches(['"', '«', '»', '„']).to_owned()
    };
    line.split_whitespace().any(|word| name(word).starts_with("makegood_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_function_is_told_from_makegoods_own() {
        let ours = "PL/pgSQL function makegood_post_refunds(jsonb) line 12 at SQL statement";
        let statement = "SQL statement \"UPDATE balances SET credits = credits + 1\"";
        let watch = "PL/pgSQL function watch() line 3 at RAISE";
        assert_eq!(of_the_platform(&format!("{watch}\n{statement}\n{ours}")), Some(watch));
        for own in [
            ours,
            "PL/pgSQL function public.makegood_post_refunds(jsonb) line 12 at SQL statement",
            "PL/pgSQL-Funktion makegood_post_refunds(jsonb) Zeile 12 bei SQL-Anweisung",
            "SQL function \"makegood_try_balance\" statement 1",
            "while updating tuple (0,1) in relation \"balances\"",
        ] {
            assert_eq!(of_the_platform(&format!("{statement}\n{own}")), None, "{own}");
        }
        for theirs in [
            "PL/pgSQL-Funktion audit.watch() Zeile 3 bei RAISE",
            "fonction PL/pgSQL watch(), ligne 3, à RAISE",
            "SQL function \"to_credits\" statement 1",
            "PL/pgSQL function sync_makegood_rows() line 3 at RAISE",
        ] {
            assert_eq!(of_the_platform(&format!("{theirs}\n{statement}\n{ours}")), Some(theirs));
        }
    }
}
