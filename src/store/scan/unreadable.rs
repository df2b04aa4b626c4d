//! Rows that the database cannot read, such as a view's row whose text is no number: found, named,
//! and left out.
//!
//! One such row fails the whole statement, and the error names no row. A chunk that fails is halved
//! until it is one row; that row is told by its key, which is read by a statement that reads
//! nothing else, and the next chunk begins after it. Chunks double again as they succeed. So a row
//! costs about twice the logarithm of the chunk in statements, and rows beside each other cost two
//! each. Cases whose facts cannot be read are halved the same way.
//!
//! What keeps a scan's position keeps where such a row was met: it is tried again like a row that
//! was refused. A crash repeats the chunk.

use super::{Chunk, Over, Position, Scan};
use crate::charge::ItemId;
use crate::store::claim::{Claimed, Unreadable};
use crate::store::db::{DbError, Run, Trouble, Value};
use crate::store::{Store, first, statements};

/// Rows that one stretch may leave out. Beyond, the relation as a whole is wrong, and the scan
/// fails.
const LEFT_OUT_MOST: u32 = 1_000;

/// How many rows the next statement reads.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    chunk: u32,
    rows: u32,
    left_out: u32,
}

impl Pace {
    /// At most so many at once.
    pub const fn new(chunk: u32) -> Self {
        let chunk = if chunk == 0 { 1 } else { chunk };
        Self { chunk, rows: chunk, left_out: 0 }
    }

    /// Rows to read now.
    pub const fn rows(self) -> u32 {
        self.rows
    }

    /// They could be read.
    pub fn succeeded(&mut self) {
        self.rows = self.rows.saturating_mul(2).min(self.chunk);
    }

    /// One of them could not. True: there is only one, and it is to be left out.
    ///
    /// # Errors
    /// The error itself, if it is not about a row, or if too many rows were left out.
    pub fn failed(&mut self, error: DbError) -> Result<Option<DbError>, DbError> {
        if !error.is_about_reading_a_row() || self.left_out >= LEFT_OUT_MOST {
            return Err(error);
        }
        if self.rows > 1 {
            self.rows /= 2;
            return Ok(None);
        }
        self.left_out += 1;
        Ok(Some(error))
    }
}

impl DbError {
    /// A row could not be read: a value of the wrong kind, or a function that a view calls says no.
    pub(in crate::store) fn is_about_reading_a_row(&self) -> bool {
        let raised = self.function().is_some();
        self.is_about_a_row()
            || raised && matches!(self.trouble(), Trouble::Other | Trouble::Raised | Trouble::Race)
    }
}

impl Store {
    /// Looks at the next rows of a stretch, as many as the pace says; opens nothing. A row that
    /// cannot be read is told, and the next chunk begins after it.
    pub async fn scan_next(&self, scan: &Scan, from: &Position, pace: &mut Pace) -> Result<Chunk, DbError> {
        self.scan_next_in(&mut &*self, scan, from, pace).await
    }

    pub(super) async fn scan_next_in(
        &self,
        run: &mut impl Run,
        scan: &Scan,
        from: &Position,
        pace: &mut Pace,
    ) -> Result<Chunk, DbError> {
        loop {
            run.begin_part().await?;
            let error = match self.scan_chunk_in(run, scan, from, pace.rows()).await {
                Ok(chunk) => {
                    run.end_part().await?;
                    pace.succeeded();
                    return Ok(chunk);
                }
                Err(error) => error,
            };
            let Some(error) = pace.failed(error)? else {
                run.undo_part().await?;
                continue;
            };
            run.undo_part().await?;
            let Some((next, about)) = next_row(run, scan, from).await? else { return Err(error) };
            let unreadable = vec![(about, error.told())];
            return Ok(Chunk { unreadable, looked_at: 1, next: Some(next), ..Chunk::default() });
        }
    }

    /// [`Store::cases`], each apart from the others where a row of one cannot be read.
    pub(in crate::store) async fn cases_apart(
        &self,
        run: &mut impl Run,
        ids: &[i64],
    ) -> Result<Claimed, DbError> {
        let mut claimed = Claimed::default();
        let mut parts = vec![ids];
        while let Some(part) = parts.pop() {
            run.begin_part().await?;
            let error = match self.cases(run, part).await {
                Ok(read) => {
                    run.end_part().await?;
                    claimed.cases.extend(read.cases);
                    claimed.unreadable.extend(read.unreadable);
                    continue;
                }
                Err(error) if error.is_about_reading_a_row() => error,
                Err(error) => return Err(error),
            };
            run.undo_part().await?;
            if let [id] = part {
                claimed.unreadable.push(unreadable(run, *id, error.told()).await?);
            } else {
                let (one, other) = part.split_at(part.len() / 2);
                parts.extend([other, one]);
            }
        }
        Ok(claimed)
    }
}

/// The first row after a position, by its key alone, and its name for people.
async fn next_row(
    run: &mut impl Run,
    scan: &Scan,
    from: &Position,
) -> Result<Option<(Position, String)>, DbError> {
    let mut values: Vec<Value> = vec![from.at.into(), (&from.charge_id).into()];
    let statement = match scan.over {
        Over::ChargedAt => statements::NEXT_CHARGE,
        Over::FailedAt { .. } => {
            values.push(from.output_index.into());
            statements::NEXT_FAILED_ITEM
        }
    };
    values.push(scan.until.into());
    let rows = run.rows(statement, &values).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (at, charge_id) = (row.time("at")?, row.text("charge_id")?);
    let (output_index, about) = match scan.over {
        Over::ChargedAt => (i64::MIN, format!("charge {charge_id}")),
        Over::FailedAt { .. } => {
            let item = ItemId { charge_id: charge_id.clone(), output_index: row.int("output_index")? };
            (item.output_index, format!("item {item}"))
        }
    };
    Ok(Some((Position { at, charge_id, output_index }, about)))
}

/// An orphan of which only makegood's own row was read.
async fn unreadable(run: &mut impl Run, id: i64, why: String) -> Result<Unreadable, DbError> {
    let rows = run.rows(statements::ORPHAN_ITEM, &[id.into()]).await?;
    let row = first(statements::ORPHAN_ITEM, &rows)?;
    let item = ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? };
    Ok(Unreadable { orphan_id: id, token: row.int("lease_token")?, item, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad() -> DbError {
        let source = sqlx::Error::RowNotFound;
        DbError::Column { statement: "find_undelivered", column: "credits", about: String::new(), source }
    }

    #[test]
    fn a_chunk_is_halved_down_to_the_row_and_doubles_again() {
        let mut pace = Pace::new(500);
        let mut halved = Vec::new();
        while pace.failed(bad()).unwrap().is_none() {
            halved.push(pace.rows());
        }
        assert_eq!(halved, [250, 125, 62, 31, 15, 7, 3, 1]);
        let doubled: Vec<u32> = (0..10).map(|_| (pace.succeeded(), pace.rows()).1).collect();
        assert_eq!(doubled, [2, 4, 8, 16, 32, 64, 128, 256, 500, 500]);
    }

    #[test]
    fn what_is_not_about_a_row_is_not_halved_and_rows_are_left_out_up_to_a_limit() {
        let mut pace = Pace::new(1);
        let lost = DbError::Statement { statement: "find_undelivered", source: sqlx::Error::PoolTimedOut };
        pace.failed(lost).unwrap_err();
        for nth in 0..LEFT_OUT_MOST {
            assert!(pace.failed(bad()).unwrap().is_some(), "{nth}");
        }
        pace.failed(bad()).unwrap_err();
    }
}
