//! Erases what providers and people have written about cases, when a person orders it, and hashes
//! it when it is written.
//!
//! Evidence may hold prompts and personal data. By account or by age, the texts of answers, events
//! and reports of passes become null; what proves a refund stays, with the SHA-256 of each text.
//! What belongs to an open or held case is left: a person may need it to decide.
//!
//! It goes through the tables by their keys, a portion at a time, in flat memory. Each portion is a
//! transaction that also records in `makegood_erasures` who ordered it and how many rows it was. An
//! erasure that was interrupted is ordered again: what is erased is passed over. On PostgreSQL
//! `makegood_erase` does it, which the role of the passes cannot call; on SQLite these statements
//! do. Triggers refuse every other change of such a row.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::db::{DbError, Row, Tx, Value};
use super::{Store, first, statements, with_retries};
use crate::clock::Timestamp;

/// How many rows a portion looks at.
pub const ROWS: i64 = 1000;

/// Whose evidence is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// That of an account's charges.
    Account(String),
    /// All that was written before this time.
    OlderThan(Timestamp),
}

impl Whose {
    /// The tables that are gone through.
    const fn tables(&self) -> &'static [&'static str] {
        match self {
            Self::Account(_) => &["orphans"],
            Self::OlderThan(_) => &["answers", "events", "passes"],
        }
    }
}

/// What a person ordered.
#[derive(Clone, Debug)]
pub struct Erasing {
    /// Whose evidence.
    pub whose: Whose,
    /// Their name: kept.
    pub by: String,
    /// Their reason: kept.
    pub why: String,
    /// Only counts.
    pub dry_run: bool,
    /// How many rows a portion looks at: [`ROWS`].
    pub rows: i64,
}

/// Up to where an erasure has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Of the tables that are gone through, which one.
    pub table: usize,
    /// The key up to which it was.
    pub after_id: i64,
}

/// How many rows were erased, or left because their case is open or held. A dry run counts a row
/// again where two portions come to it, and no messages of providers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Answers of providers.
    pub answers: i64,
    /// Details of events.
    pub events: i64,
    /// Reports of passes.
    pub pass_reports: i64,
    /// Last messages of providers.
    pub provider_messages: i64,
    /// Answers that were left.
    pub left_answers: i64,
    /// Details of events that were left.
    pub left_events: i64,
}

impl Erased {
    /// Adds what another portion erased.
    pub const fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.events += other.events;
        self.pass_reports += other.pass_reports;
        self.provider_messages += other.provider_messages;
        self.left_answers += other.left_answers;
        self.left_events += other.left_events;
    }

    /// How many texts were erased.
    pub const fn total(&self) -> i64 {
        self.answers + self.events + self.pass_reports + self.provider_messages
    }

    /// How many were left.
    pub const fn left(&self) -> i64 {
        self.left_answers + self.left_events
    }
}

/// Who had a text erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedBy {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by_whom: String,
    /// Why.
    pub reason: String,
}

impl ErasedBy {
    /// Reads it from a row that was joined with its erasure.
    pub(super) fn read(row: &Row) -> Result<Option<Self>, DbError> {
        let Some(at) = row.maybe_time("erased_at")? else {
            return Ok(None);
        };
        Ok(Some(Self { at, by_whom: row.text("erased_by")?, reason: row.text("erased_for")? }))
    }
}

impl Store {
    /// Erases the portion after a place, the first after `Place::default()`, and returns the next
    /// place; none: that was all.
    ///
    /// # Errors
    /// The role may not call `makegood_erase`, or the database cannot be worked with. Of this
    /// portion nothing is erased.
    pub async fn erase_portion(
        &self,
        order: &Erasing,
        place: Place,
    ) -> Result<(Erased, Option<Place>), DbError> {
        let Some(table) = order.whose.tables().get(place.table) else {
            return Ok((Erased::default(), None));
        };
        let (erased, last_id) = if self.is_postgres() {
            self.erase_by_function(order, table, place.after_id).await?
        } else {
            with_retries!(self, self.erase_by_statements(order, table, place.after_id).await)?
        };
        let next = last_id.map_or_else(
            || Place { table: place.table + 1, after_id: 0 },
            |after_id| Place { after_id, ..place },
        );
        Ok((erased, Some(next)))
    }

    async fn erase_by_function(
        &self,
        order: &Erasing,
        table: &str,
        after_id: i64,
    ) -> Result<(Erased, Option<i64>), DbError> {
        let (account, age) = match &order.whose {
            Whose::Account(account) => (Some(account), None),
            Whose::OlderThan(age) => (None, Some(*age)),
        };
        let request = json!({
            "account_id": account, "older_than": self.db.maybe_time(age), "by": order.by, "reason": order.why,
            "dry_run": order.dry_run, "table": table, "after_id": after_id, "rows": order.rows,
        });
        let rows = self.rows(statements::ERASE, &[(&request).into()]).await?;
        let row = first(statements::ERASE, &rows)?;
        let erased = Erased {
            answers: row.int("answers")?,
            events: row.int("events")?,
            pass_reports: row.int("pass_reports")?,
            provider_messages: row.int("provider_messages")?,
            left_answers: row.int("left_answers")?,
            left_events: row.int("left_events")?,
        };
        Ok((erased, row.maybe_int("last_id")?))
    }

    /// As `makegood_erase` does on PostgreSQL.
    async fn erase_by_statements(
        &self,
        order: &Erasing,
        table: &str,
        after_id: i64,
    ) -> Result<(Erased, Option<i64>), DbError> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        let (mut answers, mut events, mut passes) = (Picked::default(), Picked::default(), Picked::default());
        let (last_id, age) = match &order.whose {
            Whose::OlderThan(age) => {
                let values = [after_id.into(), order.rows.into(), (*age).into()];
                let (statement, picked) = match table {
                    "answers" => (statements::ERASE_ANSWERS_BY_AGE, &mut answers),
                    "events" => (statements::ERASE_EVENTS_BY_AGE, &mut events),
                    _ => (statements::ERASE_PASSES_BY_AGE, &mut passes),
                };
                let rows = tx.rows(statement, &values).await?;
                *picked = Picked::read(&rows)?;
                (last_id(&rows)?, Some(*age))
            }
            Whose::Account(account) => {
                let values = [after_id.into(), order.rows.into(), account.into()];
                let rows = tx.rows(statements::ERASE_ORPHANS_OF_ACCOUNT, &values).await?;
                let (mut orphans, mut named) = (Vec::new(), vec![account.clone()]);
                for row in &rows {
                    if row.int("due")? == 1 {
                        orphans.push(row.int("id")?);
                        named.push(row.text("charge_id")?);
                    }
                }
                let (orphans, named) = (json!(orphans), json!(named));
                let of = [(&orphans).into()];
                events = Picked::read(&tx.rows(statements::ERASE_EVENTS_OF_ORPHANS, &of).await?)?;
                answers = Picked::read(&tx.rows(statements::ERASE_ANSWERS_OF_ORPHANS, &of).await?)?;
                let of = [(&orphans).into(), (&named).into()];
                passes = Picked::read(&tx.rows(statements::ERASE_PASSES_OF_ORPHANS, &of).await?)?;
                (last_id(&rows)?, None)
            }
        };
        let mut erased = Erased {
            answers: answers.count(),
            events: events.count(),
            pass_reports: passes.count(),
            provider_messages: 0,
            left_answers: answers.left,
            left_events: events.left,
        };
        if !order.dry_run {
            let values = [Value::MaybeTime(age), Value::json(&answers.due)];
            let messages = tx.rows(statements::ERASE_PROVIDER_MESSAGES, &values).await?;
            erased.provider_messages = i64::try_from(messages.len()).unwrap_or(i64::MAX);
            if erased.total() > 0 {
                let erasure = record(&mut tx, order, now, &erased).await?;
                for (statement, picked) in [
                    (statements::ERASE_ANSWERS, &answers),
                    (statements::ERASE_EVENTS, &events),
                    (statements::ERASE_PASSES, &passes),
                ] {
                    tx.rows(statement, &[Value::json(&picked.due), erasure.into()]).await?;
                }
            }
            tx.commit().await?;
        }
        Ok((erased, last_id))
    }
}

/// Writes who ordered it, and how much it is.
async fn record(tx: &mut Tx, order: &Erasing, now: Timestamp, erased: &Erased) -> Result<i64, DbError> {
    let (account, age) = match &order.whose {
        Whose::Account(account) => (Some(account.clone()), None),
        Whose::OlderThan(age) => (None, Some(*age)),
    };
    let values = [
        now.into(),
        (&order.by).into(),
        (&order.why).into(),
        Value::MaybeText(account),
        Value::MaybeTime(age),
        erased.answers.into(),
        erased.events.into(),
        erased.pass_reports.into(),
        erased.provider_messages.into(),
    ];
    let rows = tx.rows(statements::INSERT_ERASURE, &values).await?;
    first(statements::INSERT_ERASURE, &rows)?.int("id")
}

fn last_id(rows: &[Row]) -> Result<Option<i64>, DbError> {
    rows.last().map(|row| row.int("id")).transpose()
}

/// What is erased of one table, and how much is left.
#[derive(Debug, Default)]
struct Picked {
    due: Vec<i64>,
    left: i64,
}

impl Picked {
    fn read(rows: &[Row]) -> Result<Self, DbError> {
        let mut picked = Self::default();
        for row in rows {
            match (row.int("due")?, row.int("needed")?) {
                (1, 0) => picked.due.push(row.int("id")?),
                (1, _) => picked.left += 1,
                _ => {}
            }
        }
        Ok(picked)
    }

    fn count(&self) -> i64 {
        i64::try_from(self.due.len()).unwrap_or(i64::MAX)
    }
}

/// SHA-256 of a text in UTF-8, in hexadecimal digits.
pub(super) fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_the_text_alone() {
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
