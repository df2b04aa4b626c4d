//! The newest charges as they are, for `makegood check`: what hangs on each, and what a pass would
//! judge it by.
//!
//! Reads a bounded sample by the index on the time of the charge, and gives up where that takes
//! longer than [`PATIENCE`]: a relation without an index must not keep a person waiting. Promise:
//! leaves no trace; what [`Store::look_at_charges`] opens is rolled back. Judging is
//! `cli::check`'s.

use std::time::Duration;

use super::claim::Case;
use super::db::{DbError, Row, Tx};
use super::scan::Dating;
use super::{Store, statements};
use crate::charge::{ItemId, Split, WHOLE_CHARGE};
use crate::clock::Timestamp;

/// How long one statement about the sample may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// One of the newest charges, with what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledCharge {
    /// The charge.
    pub id: String,
    /// Whose job; empty where the row names nobody.
    pub provider: String,
    /// When it was charged.
    pub charged_at: Timestamp,
    /// What it drew.
    pub drawn: Split,
    /// Whether the charge or one of its items names a provider job.
    pub has_job: bool,
    /// Rows in `charges` with its id.
    pub rows: i64,
    /// Its items.
    pub items: i64,
    /// How many of them have the `output_index` of another one, or none.
    pub items_twice: i64,
    /// What its items add up to.
    pub items_credits: i128,
    /// Rows in `balances` for the subscription of its account.
    pub subscription_rows: i64,
    /// Rows in `balances` for the wallet of its account.
    pub wallet_rows: i64,
    /// Outputs that hang on it.
    pub outputs: i64,
    /// How many of them have no hash.
    pub without_hash: i64,
    /// Outputs that are where one of its items expects them.
    pub delivered: i64,
    /// What the ledger says was taken for it; none: it names no debit.
    pub taken: Option<i128>,
}

/// How an item stands with makegood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The item.
    pub item: ItemId,
    /// `open`, `held`, `refunded`, …
    pub state: String,
    /// The reason of the last decision, if there was one.
    pub reason: Option<String>,
}

/// What a pass would judge one charge by.
#[derive(Debug)]
pub struct Looked {
    /// The charge.
    pub charge_id: String,
    /// Its items that makegood knows already.
    pub standing: Vec<Standing>,
    /// What is known about the items that are unresolved, or that no pass has come to yet.
    pub cases: Vec<Case>,
    /// Which of its rows cannot be read, and why.
    pub unreadable: Vec<String>,
}

impl Store {
    /// The newest charges, at most `most` of them, newest first.
    ///
    /// # Errors
    /// A relation cannot be read, or not within [`PATIENCE`].
    pub async fn newest_charges(&self, most: i64) -> Result<Vec<SampledCharge>, DbError> {
        let mut tx = self.sample().await?;
        let rows = tx.rows(statements::NEWEST_CHARGES, &[most.into()]).await?;
        rows.iter().map(read).collect()
    }

    /// What a pass would judge these charges by, whether it has come to them yet or not. Everything
    /// happens in one transaction that is rolled back.
    ///
    /// # Errors
    /// A relation cannot be read, or not within [`PATIENCE`].
    pub async fn look_at_charges(
        &self,
        charges: &[&str],
        now: Timestamp,
        dating: &Dating,
    ) -> Result<Vec<Looked>, DbError> {
        let mut tx = self.sample().await?;
        let mut looked = Vec::new();
        for charge_id in charges {
            let of = [(*charge_id).into()];
            let item = |output_index| ItemId { charge_id: (*charge_id).to_owned(), output_index };
            let mut standing = Vec::new();
            for row in tx.rows(statements::STORY_ORPHANS, &of).await? {
                standing.push(Standing {
                    item: item(row.int("output_index")?),
                    state: row.text("state")?,
                    reason: row.maybe_text("reason")?,
                });
            }
            let mut items: Vec<ItemId> = standing.iter().map(|each| each.item.clone()).collect();
            let mut new = Vec::new();
            for row in tx.rows(statements::STORY_ITEMS, &of).await? {
                // Without an index it is no item that a pass could find.
                let Some(index) = row.maybe_int("output_index")? else { continue };
                if !items.contains(&item(index)) {
                    items.push(item(index));
                    new.push(item(index));
                }
            }
            if items.is_empty() {
                items.push(item(WHOLE_CHARGE));
                new.push(item(WHOLE_CHARGE));
            }
            let (cases, unreadable) = self.judgeable(&mut tx, &items, &new, now, dating).await?;
            looked.push(Looked { charge_id: (*charge_id).to_owned(), standing, cases, unreadable });
        }
        Ok(looked)
    }

    /// A transaction whose statements are given up after [`PATIENCE`]. Not to be committed.
    async fn sample(&self) -> Result<Tx, DbError> {
        let mut tx = self.db.begin().await?;
        if self.is_postgres() {
            let patience = PATIENCE.as_millis().to_string();
            tx.rows(statements::SAMPLE_PATIENCE, &[patience.as_str().into()]).await?;
        }
        Ok(tx)
    }
}

fn read(row: &Row) -> Result<SampledCharge, DbError> {
    let lowest = row.maybe_int("lowest_taken")?;
    let taken = halves(row, "taken_high", "taken_low")?;
    Ok(SampledCharge {
        id: row.maybe_text("id")?.unwrap_or_default(),
        provider: row.maybe_text("provider")?.unwrap_or_default(),
        charged_at: row.time("charged_at")?,
        drawn: Split {
            subscription: row.maybe_int("subscription_credits")?.unwrap_or(0),
            wallet: row.maybe_int("wallet_credits")?.unwrap_or(0),
        },
        has_job: row.int("jobs")? > 0,
        rows: row.int("rows_of_id")?,
        items: row.int("items")?,
        items_twice: row.int("items_twice")?,
        items_credits: halves(row, "items_high", "items_low")?,
        subscription_rows: row.int("subscription_rows")?,
        wallet_rows: row.int("wallet_rows")?,
        outputs: row.int("outputs")?,
        without_hash: row.int("without_hash")?,
        delivered: row.int("delivered")?,
        // Entries above zero alone are gifts: passes do not hold them against the charge either.
        taken: lowest.filter(|lowest| *lowest < 0).map(|_| taken),
    })
}

/// A sum that travelled in halves.
pub(super) fn halves(row: &Row, high: &'static str, low: &'static str) -> Result<i128, DbError> {
    Ok((i128::from(row.int(high)?) << 32) + i128::from(row.int(low)?))
}
