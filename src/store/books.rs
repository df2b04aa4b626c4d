//! Refunds, ledger and balances side by side, for `makegood check --books`.
//!
//! Reads everything, in chunks by key: each call returns the next chunk after a key, so that memory
//! stays flat and the caller can stop between two. Writes nothing. What does not add up is judged
//! by `cli::check::books`. A chunk is one statement, so refund, entries and balance are of one
//! moment.

use std::time::Duration;

use super::db::{DbError, Row};
use super::sample::halves;
use super::{Store, statements};
use crate::charge::{ItemId, Split};

/// Refunds in one chunk.
const REFUNDS: i64 = 1_000;
/// Ledger entries in one chunk.
const ENTRIES: i64 = 5_000;
/// Balances in one chunk. A ledger without an index on the account is read once for each.
const BALANCES: i64 = 50_000;
/// How long one read of the whole ledger may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// A refund of makegood's with the ledger's entries about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundBooks {
    /// The refund.
    pub id: String,
    /// What it was for.
    pub item: ItemId,
    /// Who got it.
    pub account_id: String,
    /// What it gave.
    pub gave: Split,
    /// Whether a person took it back.
    pub is_reversed: bool,
    /// Whether makegood's row of its charge and its resolution exist.
    pub has_origin: bool,
    /// What the item cost; none where it is gone.
    pub price: Option<i64>,
    /// The entries that bear its id, and the platform's own refunds of the same item.
    pub entries: Vec<EntryBooks>,
}

/// A ledger entry about a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBooks {
    /// Whether it bears the refund's id. Else it is a refund of the platform's own.
    pub is_ours: bool,
    /// Which bucket.
    pub bucket: String,
    /// How much; below zero was taken back.
    pub credits: i64,
    /// What kind.
    pub kind: String,
    /// Whose.
    pub account_id: String,
    /// Which output of the charge.
    pub output_index: Option<i64>,
}

/// A charge that the ledger names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeBooks {
    /// The charge.
    pub id: String,
    /// How many entries name it.
    pub entries: i64,
    /// How many of them bear an id of makegood's and belong to no refund of this charge.
    pub strays: i64,
    /// One of these.
    pub stray: Option<String>,
    /// What the ledger gives back for it.
    pub refunded: i128,
    /// What it drew; none: there is no such charge.
    pub drawn: Option<i128>,
}

/// A balance with what the ledger says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceBooks {
    /// Whose.
    pub account_id: String,
    /// Which bucket.
    pub bucket: String,
    /// What it holds.
    pub credits: i64,
    /// What the ledger's entries add up to; none: it has no entry.
    pub ledger: Option<i128>,
}

impl Store {
    /// The next refunds of makegood's after this id. None left: an empty list.
    pub async fn refund_books(&self, after: &str) -> Result<Vec<RefundBooks>, DbError> {
        let rows = self.rows(statements::BOOKS_REFUNDS, &[after.into(), REFUNDS.into()]).await?;
        let mut books: Vec<RefundBooks> = Vec::new();
        for row in &rows {
            let id = row.text("id")?;
            if books.last().is_none_or(|last| last.id != id) {
                books.push(read_refund(row, id)?);
            }
            // An entry without an id is an entry, too.
            if let (Some(entry), Some(last)) = (read_entry(row)?, books.last_mut()) {
                last.entries.push(entry);
            }
        }
        Ok(books)
    }

    /// The next charges after this one that the ledger names. None left: an empty list.
    pub async fn charge_books(&self, after: &str) -> Result<Vec<ChargeBooks>, DbError> {
        let rows = self.rows(statements::BOOKS_CHARGES, &[after.into(), ENTRIES.into()]).await?;
        rows.iter()
            .map(|row| {
                let drawn = row.maybe_int("subscription")?.zip(row.maybe_int("wallet")?);
                Ok(ChargeBooks {
                    id: row.text("charge_id")?,
                    entries: row.int("entries")?,
                    strays: row.int("strays")?,
                    stray: row.maybe_text("stray")?,
                    refunded: halves(row, "refunded_high", "refunded_low")?,
                    drawn: drawn.map(|(subscription, wallet)| Split { subscription, wallet }.total()),
                })
            })
            .collect()
    }

    /// The next balances after this account and bucket. None left: an empty list.
    pub async fn balance_books(&self, after: (&str, &str)) -> Result<Vec<BalanceBooks>, DbError> {
        let mut tx = self.db.begin().await?;
        if self.is_postgres() {
            let patience = PATIENCE.as_millis().to_string();
            tx.rows(statements::WHOLE_SCANS, &[patience.as_str().into()]).await?;
        }
        let values = [after.0.into(), after.1.into(), BALANCES.into()];
        let rows = tx.rows(statements::BOOKS_BALANCES, &values).await?;
        tx.commit().await?;
        rows.iter()
            .map(|row| {
                let ledger = row.maybe_int("entries")?.map(|_| halves(row, "ledger_high", "ledger_low"));
                Ok(BalanceBooks {
                    account_id: row.text("account_id")?,
                    bucket: row.text("bucket")?,
                    credits: row.int("credits")?,
                    ledger: ledger.transpose()?,
                })
            })
            .collect()
    }
}

fn read_refund(row: &Row, id: String) -> Result<RefundBooks, DbError> {
    Ok(RefundBooks {
        id,
        item: ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? },
        account_id: row.text("account_id")?,
        gave: Split { subscription: row.int("subscription_credits")?, wallet: row.int("wallet_credits")? },
        is_reversed: row.int("reversals")? > 0,
        has_origin: row.int("charges")? == 1 && row.int("resolutions")? == 1,
        price: row.maybe_int("price")?,
        entries: Vec::new(),
    })
}

/// The entry in a row; none where the ledger has none for this refund.
fn read_entry(row: &Row) -> Result<Option<EntryBooks>, DbError> {
    let (Some(bucket), Some(credits)) = (row.maybe_text("bucket")?, row.maybe_int("credits")?) else {
        return Ok(None);
    };
    Ok(Some(EntryBooks {
        is_ours: row.int("of_refund")? == 1,
        bucket,
        credits,
        kind: row.maybe_text("kind")?.unwrap_or_default(),
        account_id: row.maybe_text("entry_account")?.unwrap_or_default(),
        output_index: row.maybe_int("entry_index")?,
    }))
}
