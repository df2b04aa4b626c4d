//! Whether the database is as makegood needs it, for `makegood check`.
//!
//! Each contract relation is asked for its columns and for one row, whose values are read as a pass would read them:
//! a view with a column of the wrong type is found here and not at night. Writes nothing that stays.

use super::db::{DbError, Row, Statement, Value};
use super::{Store, first, statements};
use crate::clock::Timestamp;

type Read = fn(&Row, &'static str) -> Result<(), DbError>;

fn text(row: &Row, column: &'static str) -> Result<(), DbError> {
    row.text(column).map(drop)
}
fn maybe_text(row: &Row, column: &'static str) -> Result<(), DbError> {
    row.maybe_text(column).map(drop)
}
fn int(row: &Row, column: &'static str) -> Result<(), DbError> {
    row.int(column).map(drop)
}
fn maybe_int(row: &Row, column: &'static str) -> Result<(), DbError> {
    row.maybe_int(column).map(drop)
}
fn time(row: &Row, column: &'static str) -> Result<(), DbError> {
    row.time(column).map(drop)
}
fn maybe_time(row: &Row, column: &'static str) -> Result<(), DbError> {
    row.maybe_time(column).map(drop)
}

/// Its name, the statement that asks for it, and its columns.
type Relation = (&'static str, &'static Statement, &'static [(&'static str, Read)]);

/// The contract relations with their columns.
const RELATIONS: [Relation; 5] = [
    (
        "charges",
        statements::CONTRACT_CHARGES,
        &[
            ("id", text),
            ("account_id", text),
            ("project_id", maybe_text),
            ("node_id", maybe_text),
            ("provider", text),
            ("model", text),
            ("provider_job_id", maybe_text),
            ("charged_at", time),
            ("subscription_credits", int),
            ("wallet_credits", int),
            ("cancelled_at", maybe_time),
        ],
    ),
    (
        "charge_items",
        statements::CONTRACT_CHARGE_ITEMS,
        &[
            ("charge_id", text),
            ("output_index", int),
            ("credits", int),
            ("provider_job_id", maybe_text),
            ("provider_output_index", maybe_int),
            ("failed_at", maybe_time),
        ],
    ),
    (
        "stored_outputs",
        statements::CONTRACT_STORED_OUTPUTS,
        &[
            ("id", text),
            ("charge_id", maybe_text),
            ("output_index", maybe_int),
            ("provider", text),
            ("provider_job_id", text),
            ("provider_output_index", int),
            ("project_id", maybe_text),
            ("node_id", maybe_text),
            ("uri", maybe_text),
            ("content_type", maybe_text),
            ("size_bytes", maybe_int),
            ("sha256", maybe_text),
            ("stored_at", time),
            ("moved_at", maybe_time),
            ("deleted_at", maybe_time),
        ],
    ),
    ("balances", statements::CONTRACT_BALANCES, &[("account_id", text), ("bucket", text), ("credits", int)]),
    (
        "ledger_entries",
        statements::CONTRACT_LEDGER_ENTRIES,
        &[
            ("id", text),
            ("account_id", text),
            ("bucket", text),
            ("credits", int),
            ("kind", text),
            ("charge_id", text),
            ("output_index", maybe_int),
            ("refund_id", maybe_text),
            ("posted_at", time),
        ],
    ),
];

/// The relation that a platform need not have: only `explain` reads it.
const ACCOUNTS: Relation = ("accounts", statements::CONTRACT_ACCOUNTS, &[("id", text), ("kind", maybe_text)]);

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A table.
    Table,
    /// A view that writes through to its table by itself, or is only read.
    View,
    /// A view whose writes a trigger takes.
    ViewWithTrigger,
}

/// What kind of relations the contract relations are, where that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Behind `balances`.
    pub balances: Kind,
}

/// What two writers at once do to a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Both are kept: what was given is added to what is there.
    AddsUp,
    /// The second is refused: such a refund is held and tried again.
    Refuses,
    /// It does not move by itself: right where it is the sum of the ledger, whose entry raises it.
    IsNotMoved,
    /// One of them is lost: the trigger writes what it was told, not the difference.
    Loses,
    /// There is no row to try it on.
    Empty,
}

/// How an entry of the ledger fails to say what was refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unlinked {
    /// It names no charge.
    NoCharge,
    /// It names a charge that there is not.
    UnknownCharge,
    /// It names a charge and none of its items.
    NoItem,
}

/// Refunds of the platform's own that passes cannot see, or not in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnlinkedRefunds {
    /// What they lack.
    pub lack: Unlinked,
    /// How many, among the entries that were read.
    pub entries: i64,
    /// The ids of one or two of them.
    pub examples: Vec<String>,
}

/// Entries that are read of each kind: so many say whether a platform links its refunds.
pub const LEDGER_SAMPLE: i64 = 10_000;

impl Store {
    /// Refunds of the platform's own in the ledger that name no charge, a charge that there is not,
    /// or no item. Reads at most [`LEDGER_SAMPLE`] entries of each kind.
    pub async fn unlinked_refunds(&self) -> Result<Vec<UnlinkedRefunds>, DbError> {
        let rows = self.rows(statements::UNLINKED_REFUNDS, &[LEDGER_SAMPLE.into()]).await?;
        rows.iter()
            .map(|row| {
                let lack = match row.text("lack")?.as_str() {
                    "no_charge" => Unlinked::NoCharge,
                    "unknown_charge" => Unlinked::UnknownCharge,
                    _ => Unlinked::NoItem,
                };
                let mut examples = vec![row.text("first_example")?, row.text("last_example")?];
                examples.dedup();
                Ok(UnlinkedRefunds { lack, entries: row.int("entries")?, examples })
            })
            .collect()
    }

    /// Each contract relation with why it cannot be worked with, if so.
    pub async fn contract(&self) -> Vec<(&'static str, Result<(), DbError>)> {
        let mut found = Vec::new();
        for relation in RELATIONS {
            found.push((relation.0, self.try_relation(relation).await));
        }
        found
    }

    /// Why `accounts` cannot be read, if so. One that is not there, or that this role may not read, is
    /// no error: the platform need not have it.
    pub async fn accounts(&self) -> Result<(), DbError> {
        /// SQLSTATE `insufficient_privilege`.
        const NO_RIGHT: &str = "42501";
        match self.try_relation(ACCOUNTS).await {
            Err(error) if error.is_about_missing_tables() => Ok(()),
            Err(DbError::Statement { source, .. })
                if source.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref()
                    == Some(NO_RIGHT) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    async fn try_relation(&self, (_, statement, columns): Relation) -> Result<(), DbError> {
        let rows = self.rows(statement, &[]).await?;
        let row = rows.first();
        row.map_or(Ok(()), |row| columns.iter().try_for_each(|(column, read)| read(row, column)))
    }

    /// The newest of makegood's own migrations that the database has.
    pub async fn own_version(&self) -> Result<Option<i64>, DbError> {
        let rows = self.rows(statements::OWN_VERSION, &[]).await?;
        first(statements::OWN_VERSION, &rows)?.maybe_int("version")
    }

    /// What a pass needs and this role may not do: relation and right.
    pub async fn missing_rights(&self) -> Result<Vec<(String, String)>, DbError> {
        let rows = self.rows(statements::MISSING_RIGHTS, &[]).await?;
        rows.iter().map(|row| Ok((row.text("relation")?, row.text("needed")?))).collect()
    }

    /// What this role may do and a pass does not need, where it could raise balances: relation and
    /// right. Nothing on SQLite, which has no roles.
    pub async fn excess_rights(&self) -> Result<Vec<(String, String)>, DbError> {
        if !self.is_postgres() {
            return Ok(Vec::new());
        }
        let rows = self.rows(statements::EXCESS_RIGHTS, &[]).await?;
        rows.iter().map(|row| Ok((row.text("relation")?, row.text("excess")?))).collect()
    }

    /// Schemas on the search path in which others than their owner may create objects, with these
    /// roles. Nothing on SQLite.
    pub async fn open_schemas(&self) -> Result<Vec<(String, String)>, DbError> {
        if !self.is_postgres() {
            return Ok(Vec::new());
        }
        let rows = self.rows(statements::OPEN_SCHEMAS, &[]).await?;
        rows.iter().map(|row| Ok((row.text("schema")?, row.text("roles")?))).collect()
    }

    /// What kind of relations the contract relations are.
    pub async fn relation_kinds(&self) -> Result<Kinds, DbError> {
        let rows = self.rows(statements::RELATION_KINDS, &[]).await?;
        let row = first(statements::RELATION_KINDS, &rows)?;
        let kind = |kind: &str, triggers: i64| match (kind, triggers) {
            ("v", 1..) => Kind::ViewWithTrigger,
            ("v", _) => Kind::View,
            (_, _) => Kind::Table,
        };
        Ok(Kinds { balances: kind(&row.text("balances_kind")?, row.int("balances_triggers")?) })
    }

    /// Tries on one balance, in a transaction that is rolled back, what two writers at once do to it. Only says
    /// something where a trigger takes the writes: a table keeps both by itself.
    pub async fn prove_balance(&self) -> Result<Balance, DbError> {
        let rows = self.rows(statements::CONTRACT_BALANCES, &[]).await?;
        let Some(row) = rows.first() else {
            return Ok(Balance::Empty);
        };
        let values = [row.text("account_id")?.as_str().into(), row.text("bucket")?.as_str().into()];
        let (hit, moved) = if self.is_postgres() {
            let rows = self.rows(statements::TRY_BALANCE, &values).await?;
            let row = first(statements::TRY_BALANCE, &rows)?;
            (row.int("hit")?, row.int("moved")?)
        } else {
            self.try_balance(&values).await?
        };
        Ok(match (hit, moved) {
            (2, 2) => Balance::AddsUp,
            (0 | 1, 0 | 1) => Balance::Refuses,
            (2, 0) => Balance::IsNotMoved,
            (_, _) => Balance::Loses,
        })
    }

    /// Adds 1 twice to a balance in a transaction that is rolled back: how many rows were hit, and
    /// by how much the balance moved.
    async fn try_balance(&self, values: &[Value]) -> Result<(i64, i64), DbError> {
        let mut tx = self.db.begin().await?;
        let before = tx.rows(statements::BALANCE_NOW, values).await?;
        let hit = tx.rows(statements::BALANCE_TWICE, values).await?.len();
        let after = tx.rows(statements::BALANCE_NOW, values).await?;
        let before = first(statements::BALANCE_NOW, &before)?.int("credits")?;
        let after = first(statements::BALANCE_NOW, &after)?.int("credits")?;
        Ok((i64::try_from(hit).unwrap_or(i64::MAX), after.saturating_sub(before)))
    }

    /// Which providers charges name from `since` on, and how many.
    pub async fn recent_providers(&self, since: Timestamp) -> Result<Vec<(String, i64)>, DbError> {
        let rows = self.rows(statements::RECENT_PROVIDERS, &[since.into()]).await?;
        rows.iter().map(|row| Ok((row.text("provider")?, row.int("charges")?))).collect()
    }
}
