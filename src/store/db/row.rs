//! One row of an answer, read by column name in either database.
//!
//! A value that cannot be read is an error that names its statement, column and row; never a zero, never a panic.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row as _, Type, TypeInfo as _, ValueRef as _};

use super::{DbError, Statement};
use crate::clock::Timestamp;

/// One row of an answer.
#[derive(Debug)]
pub struct Row {
    statement: &'static str,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

/// Reads a column in either database.
macro_rules! read {
    ($row:expr, $column:expr, $kind:ty) => {
        match &$row.inner {
            Inner::Postgres(row) => row.try_get::<$kind, _>($column),
            Inner::Sqlite(row) => row.try_get::<$kind, _>($column),
        }
        .map_err(|source| $row.unreadable($column, source))
    };
}

impl Row {
    pub(super) fn of_postgres(statement: &Statement, rows: Vec<PgRow>) -> Vec<Self> {
        let row = |row| Self { statement: statement.name, inner: Inner::Postgres(row) };
        rows.into_iter().map(row).collect()
    }

    pub(super) fn of_sqlite(statement: &Statement, rows: Vec<SqliteRow>) -> Vec<Self> {
        let row = |row| Self { statement: statement.name, inner: Inner::Sqlite(row) };
        rows.into_iter().map(row).collect()
    }

    /// Text that must be there.
    pub fn text(&self, column: &'static str) -> Result<String, DbError> {
        self.there(column, self.maybe_text(column)?)
    }

    /// Text that may be missing.
    pub fn maybe_text(&self, column: &'static str) -> Result<Option<String>, DbError> {
        read!(self, column, Option<String>)
    }

    /// A whole number that must be there.
    pub fn int(&self, column: &'static str) -> Result<i64, DbError> {
        self.there(column, self.maybe_int(column)?)
    }

    /// A whole number that may be missing.
    pub fn maybe_int(&self, column: &'static str) -> Result<Option<i64>, DbError> {
        read!(self, column, Option<i64>)
    }

    /// An instant that must be there.
    pub fn time(&self, column: &'static str) -> Result<Timestamp, DbError> {
        self.there(column, self.maybe_time(column)?)
    }

    /// An instant that may be missing.
    pub fn maybe_time(&self, column: &'static str) -> Result<Option<Timestamp>, DbError> {
        match &self.inner {
            Inner::Postgres(row) => postgres_time(row, column),
            Inner::Sqlite(row) => {
                row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_micros))
            }
        }
        .map_err(|source| self.unreadable(column, source))
    }

    /// SQLite's driver reads a missing value as zero or as empty text, so every value is read as one that may be missing.
    fn there<T>(&self, column: &'static str, value: Option<T>) -> Result<T, DbError> {
        value.ok_or_else(|| {
            let source = Box::new(sqlx::error::UnexpectedNullError);
            self.unreadable(column, sqlx::Error::ColumnDecode { index: column.to_owned(), source })
        })
    }

    fn unreadable(&self, column: &'static str, source: sqlx::Error) -> DbError {
        let id = |name: &str| match &self.inner {
            Inner::Postgres(row) => row.try_get::<String, _>(name).ok(),
            Inner::Sqlite(row) => row.try_get::<String, _>(name).ok(),
        };
        let about =
            id("charge_id").or_else(|| id("id")).map_or_else(String::new, |id| format!(" (of `{id}`)"));
        DbError::Column { statement: self.statement, column, about, source }
    }
}

/// Reads a `timestamptz` without sqlx's conversion, which panics on infinity and on years beyond 262 142.
fn postgres_time(row: &PgRow, column: &'static str) -> Result<Option<Timestamp>, sqlx::Error> {
    /// From 1970 to PostgreSQL's beginning of time, 2000, in microseconds.
    const UNTIL_2000: i64 = 946_684_800_000_000;
    let value = row.try_get_raw(column)?;
    let unreadable = |source| sqlx::Error::ColumnDecode { index: column.to_owned(), source };
    if value.is_null() {
        return Ok(None);
    }
    if !<chrono::DateTime<chrono::Utc> as Type<Postgres>>::compatible(&value.type_info()) {
        return Err(unreadable(format!("it is {} and not timestamptz", value.type_info().name()).into()));
    }
    let since_2000 = <i64 as Decode<Postgres>>::decode(value).map_err(unreadable)?;
    match since_2000.checked_add(UNTIL_2000) {
        Some(micros) if since_2000 != i64::MIN => Ok(Some(Timestamp::from_micros(micros))),
        Some(_) | None => Err(unreadable("it is infinite, or beyond all calendars".into())),
    }
}
