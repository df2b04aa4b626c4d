//! Times of the platform's that cannot be meant: before 2000, from 2100 on, infinite, missing, or
//! in another unit than microseconds; and those that a view cannot compute.
//!
//! Every scan is a stretch of time, so a charge of such a time is in none and nothing is ever due.
//! This is the only place that sees it. Each search reads at most [`MOST`] rows by the index on the
//! time. Only reads.

use std::collections::BTreeMap;

use super::db::{DbError, Row, Statement};
use super::{Store, first, statements};
use crate::clock::Timestamp;

/// Rows that each search returns at most. As many as this stand for more.
pub const MOST: usize = 101;
/// 2000-01-01, in microseconds: no platform charged for a generation before.
const EARLIEST: i64 = 946_684_800_000_000;
/// 2100-01-01, in microseconds.
pub(super) const LATEST: i64 = 4_102_444_800_000_000;

/// Charges whose times one statement reads, to find one that cannot be read.
const CHUNK: i64 = 8_192;
/// The times that charges are found by, and the statements that read them.
const TIMES: [(&str, &Statement); 2] = [
    ("charges.charged_at", statements::READ_CHARGE_TIMES),
    ("charge_items.failed_at", statements::READ_FAILURE_TIMES),
];

/// What is wrong with a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SQLite: seconds since 1970.
    Seconds,
    /// SQLite: milliseconds since 1970.
    Milliseconds,
    /// SQLite: nanoseconds since 1970.
    Nanoseconds,
    /// SQLite: text, or anything else that is no whole number.
    NoNumber,
    /// PostgreSQL: `infinity` or `-infinity`.
    Infinite,
    /// NULL where there must be a time.
    Missing,
    /// Before 2000.
    LongAgo,
    /// In 2100 or later.
    FarAhead,
}

/// Times of one column with one fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddTimes {
    /// `relation.column`.
    pub column: String,
    /// What is wrong with them.
    pub fault: Fault,
    /// How many were found; [`MOST`] or more: there may be more.
    pub rows: usize,
    /// The id of one of their rows, or of its charge.
    pub example: String,
    /// Its time, if it is one.
    pub at: Option<Timestamp>,
}

impl OddTimes {
    /// What is wrong and what to write instead.
    pub fn told(&self) -> String {
        let many = if self.rows >= MOST { "more than 100".to_owned() } else { self.rows.to_string() };
        let rows = if self.rows == 1 { "row" } else { "rows" };
        let (column, example) = (&self.column, &self.example);
        let name = column.rsplit('.').next().unwrap_or(column);
        let day = self.at.map_or_else(String::new, |at| format!(", such as {at}"));
        let what = match self.fault {
            Fault::Seconds => format!("is in seconds instead of microseconds: write {name} * 1000000"),
            Fault::Milliseconds => format!("is in milliseconds instead of microseconds: write {name} * 1000"),
            Fault::Nanoseconds => format!("is in nanoseconds instead of microseconds: write {name} / 1000"),
            Fault::NoNumber => format!(
                "is no whole number of microseconds: write CAST(unixepoch({name}, 'subsec') * 1000000 AS integer)"
            ),
            Fault::Infinite => "is infinite: write the time at which it happened".to_owned(),
            Fault::Missing => "is NULL: write the time at which it happened".to_owned(),
            Fault::LongAgo => format!(
                "is before 2000{day}: to_timestamp() takes seconds, write to_timestamp(milliseconds / 1000.0)"
            ),
            Fault::FarAhead => format!(
                "is in 2100 or later{day}: to_timestamp() takes seconds, write to_timestamp(milliseconds / 1000.0)"
            ),
        };
        format!("{column} of {many} {rows} ({example}) {what}")
    }
}

impl Store {
    /// Times by which passes look for what is due (`charges.charged_at`, `charge_items.failed_at`)
    /// and that no pass can come to.
    pub async fn odd_times(&self) -> Result<Vec<OddTimes>, DbError> {
        self.odd(statements::ODD_TIMES).await
    }

    /// The same of all other times, in a sample of 1,000 rows a relation: people read these.
    pub async fn odd_times_shown(&self) -> Result<Vec<OddTimes>, DbError> {
        self.odd(statements::ODD_TIMES_SHOWN).await
    }

    /// Adds to an error which charge has a time that could not be read, where that is the cause.
    ///
    /// While a view cannot compute one row's time there is no index on it, so each search by time
    /// reads this row and fails. Reads charges in the order of their ids, at most `chunks` times
    /// [`CHUNK`].
    pub async fn name_unreadable_time(&self, error: DbError, chunks: u32) -> DbError {
        if !error.is_about_reading_a_row() {
            return error;
        }
        match self.unreadable_time(chunks).await {
            Ok(Some((column, charge_id))) => {
                DbError::UnreadableTime { column, charge_id, source: Box::new(error) }
            }
            // The error itself says what else is wrong.
            Ok(None) | Err(_) => error,
        }
    }

    async fn unreadable_time(&self, chunks: u32) -> Result<Option<(&'static str, String)>, DbError> {
        let mut after = String::new();
        for _ in 0..chunks {
            let Some(until) = self.charges_up_to(&after, CHUNK).await? else { return Ok(None) };
            for (column, statement) in TIMES {
                if !self.times_are_readable(statement, &after, &until).await? {
                    let charge_id = self.first_unreadable(statement, after, until).await?;
                    return Ok(Some((column, charge_id)));
                }
            }
            after = until;
        }
        Ok(None)
    }

    /// Halves a chunk until one charge is left.
    async fn first_unreadable(
        &self,
        statement: &'static Statement,
        mut after: String,
        mut until: String,
    ) -> Result<String, DbError> {
        let mut charges = CHUNK;
        while charges > 1 {
            charges -= charges / 2;
            // None: the rest was deleted meanwhile.
            let Some(middle) = self.charges_up_to(&after, charges).await? else { break };
            if self.times_are_readable(statement, &after, &middle).await? {
                after = middle;
            } else {
                until = middle;
            }
        }
        Ok(until)
    }

    async fn charges_up_to(&self, after: &str, charges: i64) -> Result<Option<String>, DbError> {
        let statement = statements::CHARGES_UP_TO;
        let rows = self.rows(statement, &[after.into(), charges.into()]).await?;
        first(statement, &rows)?.maybe_text("id")
    }

    async fn times_are_readable(
        &self,
        statement: &'static Statement,
        after: &str,
        until: &str,
    ) -> Result<bool, DbError> {
        match self.rows(statement, &[after.into(), until.into()]).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_about_reading_a_row() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn odd(&self, statement: &'static Statement) -> Result<Vec<OddTimes>, DbError> {
        let values = [Timestamp::from_micros(EARLIEST).into(), Timestamp::from_micros(LATEST).into()];
        let mut found: BTreeMap<(String, Fault), OddTimes> = BTreeMap::new();
        for row in self.rows(statement, &values).await? {
            let (column, fault, at) = read(&row)?;
            let each = found.entry((column.clone(), fault)).or_insert_with(|| OddTimes {
                column,
                fault,
                rows: 0,
                example: row.maybe_text("charge_id").ok().flatten().unwrap_or_default(),
                at,
            });
            each.rows += 1;
        }
        Ok(found.into_values().collect())
    }
}

fn read(row: &Row) -> Result<(String, Fault, Option<Timestamp>), DbError> {
    let at = row.maybe_int("at")?;
    let fault = fault(&row.text("shape")?, at);
    let is_time = matches!(fault, Fault::LongAgo | Fault::FarAhead);
    Ok((row.text("place")?, fault, at.filter(|_| is_time).map(Timestamp::from_micros)))
}

/// `shape`: SQLite's type of the value; `time` or `infinite` on PostgreSQL, where a unit cannot be
/// told from a time any more.
fn fault(shape: &str, at: Option<i64>) -> Fault {
    match (shape, at) {
        ("null", _) => Fault::Missing,
        ("infinite", _) => Fault::Infinite,
        ("integer" | "real", Some(100_000_000..100_000_000_000)) => Fault::Seconds,
        ("integer" | "real", Some(100_000_000_000..100_000_000_000_000)) => Fault::Milliseconds,
        ("integer" | "real", Some(100_000_000_000_000_000..)) => Fault::Nanoseconds,
        ("integer" | "real" | "time", Some(at)) if at < EARLIEST => Fault::LongAgo,
        ("integer" | "real" | "time", Some(_)) => Fault::FarAhead,
        (_, _) => Fault::NoNumber,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_told_by_the_size_of_the_number() {
        // 2026-03-01T12:00:00Z
        let seconds = 1_772_366_400_i64;
        for (shape, at, expected) in [
            ("integer", Some(seconds), Fault::Seconds),
            ("real", Some(seconds), Fault::Seconds),
            ("integer", Some(seconds * 1_000), Fault::Milliseconds),
            ("integer", Some(seconds * 1_000_000_000), Fault::Nanoseconds),
            ("integer", Some(0), Fault::LongAgo),
            ("integer", Some(-1), Fault::LongAgo),
            ("integer", Some(LATEST), Fault::FarAhead),
            ("text", None, Fault::NoNumber),
            ("null", None, Fault::Missing),
            ("time", Some(seconds * 1_000), Fault::LongAgo),
            ("time", Some(seconds * 1_000_000_000), Fault::FarAhead),
            ("infinite", None, Fault::Infinite),
        ] {
            assert_eq!(fault(shape, at), expected, "{shape} {at:?}");
        }
    }
}
