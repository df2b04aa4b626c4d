//! Which writes the platform's relations take, which rows they hide, and what two writers at once
//! do to a balance.
//!
//! Read from the catalogue, so that it is found on empty tables too. Whether a trigger does what it
//! is told shows only when it is tried (`settle::trial`). Nothing here writes anything that stays:
//! the trial of a balance is rolled back in the database's own function, or in its transaction.

use std::collections::BTreeMap;

use super::{Flaw, flaw};
use crate::store::db::{DbError, Row, Value};
use crate::store::{Store, first, statements};

/// What two writers at once do to a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// No trigger stands in for the write: the database itself adds.
    NoTrigger,
    /// Both are kept: what was given is added to what is there.
    AddsUp,
    /// The second is refused: such a refund is held and tried again.
    Refuses,
    /// One of them is lost: the trigger writes what it was told, not the difference.
    Loses,
    /// The write moves nothing: right where the balance is the sum of the ledger, and wrong
    /// otherwise.
    Unmoved,
    /// It moves by something else than what was added, or says that it hit another row.
    Wrong,
    /// There is no row to try it on.
    Empty,
}

/// The triggers on `stored_outputs` whose functions run with the rights of the passes' role.
pub type Invokers = Option<String>;

impl Store {
    /// Why this connection may not write, if so.
    pub async fn takes_no_writes(&self) -> Result<Option<&'static str>, DbError> {
        if !self.is_postgres() {
            return Ok(None);
        }
        let rows = self.rows(statements::TAKES_WRITES, &[]).await?;
        let row = first(statements::TAKES_WRITES, &rows)?;
        Ok(if row.int("standby")? == 1 {
            Some("it is a standby, which takes no writes")
        } else if row.int("read_only")? == 1 {
            Some("this role's transactions are read-only (default_transaction_read_only)")
        } else {
            None
        })
    }

    /// Writes of a pass that the platform's relations do not take, and the triggers on
    /// `stored_outputs` that run with the rights of the passes' role. Nothing on SQLite, where a
    /// write has to be tried.
    pub async fn write_flaws(&self) -> Result<(Vec<Flaw>, Invokers), DbError> {
        let (mut flaws, mut invokers) = (Vec::new(), Invokers::None);
        if !self.is_postgres() {
            return Ok((flaws, invokers));
        }
        for row in self.rows(statements::DESCRIBE_WRITES, &[]).await? {
            let relation = match row.text("relation")?.as_str() {
                "balances" => "balances",
                "ledger_entries" => "ledger_entries",
                _ => "stored_outputs",
            };
            if relation == "stored_outputs" && invokers.is_none() {
                invokers = row.maybe_text("invokers")?;
            }
            flaws.extend(write_flaw(relation, &row)?);
        }
        Ok((flaws, invokers))
    }

    /// Rows of the platform's relations that row security hides from this role, or may hide.
    /// Nothing on SQLite, which has no roles.
    pub async fn hidden_rows(&self) -> Result<Vec<Flaw>, DbError> {
        if !self.is_postgres() {
            return Ok(Vec::new());
        }
        let rows = self.rows(statements::ROW_SECURITY, &[]).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let owner = self.rows(statements::OWNER_SEES, &[]).await?;
        let owner = owner.iter().map(|row| Ok((row.text("relation")?, row.int("seen")?)));
        let owner = owner.collect::<Result<BTreeMap<_, _>, DbError>>()?;
        rows.iter().map(|row| hidden(row, &owner)).collect()
    }

    /// Tries on one balance what two writers at once do to it, where a trigger takes the writes: a
    /// table keeps both by itself. Rolled back.
    pub async fn prove_balance(&self) -> Result<Balance, DbError> {
        let rows = self.rows(statements::RELATION_KINDS, &[]).await?;
        let kind = first(statements::RELATION_KINDS, &rows)?;
        if kind.text("balances_kind")? != "v" || kind.int("balances_triggers")? == 0 {
            return Ok(Balance::NoTrigger);
        }
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
            (2, 1) => Balance::Loses,
            (2, 0) => Balance::Unmoved,
            (0 | 1, 0 | 1) => Balance::Refuses,
            (_, _) => Balance::Wrong,
        })
    }

    /// Adds 1 twice to a balance in a transaction that is rolled back: how many rows were hit, and
    /// by how much the balance moved.
    async fn try_balance(&self, values: &[Value]) -> Result<(i64, i64), DbError> {
        let mut tx = self.db.begin().await?;
        let before = tx.rows(statements::BALANCE_NOW, values).await?;
        let hit = tx.rows(statements::BALANCE_TWICE, values).await?.len();
        let after = tx.rows(statements::BALANCE_NOW, values).await?;
        tx.roll_back().await?;
        let before = first(statements::BALANCE_NOW, &before)?.int("credits")?;
        let after = first(statements::BALANCE_NOW, &after)?.int("credits")?;
        Ok((i64::try_from(hit).unwrap_or(i64::MAX), after.saturating_sub(before)))
    }
}

fn write_flaw(relation: &'static str, row: &Row) -> Result<Option<Flaw>, DbError> {
    let event = row.text("event")?;
    let (kind, fixed) = (row.text("kind")?, row.maybe_text("fixed")?);
    let (instead, rules) = (row.int("instead")?, row.int("rules")?);
    let page = "docs/adopting.md, \"Over views\"";
    let trigger = format!(
        "CREATE TRIGGER … INSTEAD OF {event} ON {relation} FOR EACH ROW EXECUTE FUNCTION …, whose function does the \
         {event} on the table beneath and returns NEW ({page})"
    );
    Ok(match kind.as_str() {
        "v" if instead > 0 || rules > 0 => None,
        "v" if row.int("takes")? == 0 => {
            let says = format!(
                "a view that takes no {event}: it has no INSTEAD OF {event} trigger, and is no simple view over one table"
            );
            Some(flaw(relation, says, trigger))
        }
        "m" => Some(flaw(
            relation,
            format!("a materialized view, which takes no {event} and shows old rows"),
            format!("make it a view, or a table; {page}"),
        )),
        _ => fixed.map(|columns| {
            let is = if kind == "v" { "the view computes it" } else { "it is GENERATED ALWAYS" };
            flaw(
                relation,
                format!("takes no {event} of {columns}: {is}"),
                if kind == "v" { trigger } else { "make it a column that can be written".to_owned() },
            )
        }),
    })
}

/// What comes of rows that a pass cannot see.
fn consequence(relation: &str) -> (&'static str, &'static str) {
    match relation {
        "charges" => ("charges", "a hidden charge is never made good"),
        "charge_items" => ("charge_items", "a charge whose items are hidden is held"),
        "stored_outputs" => {
            ("stored_outputs", "an item whose output is hidden is refunded although it was delivered")
        }
        "ledger_entries" => {
            ("ledger_entries", "what a hidden refund of the platform's gave back is refunded once more")
        }
        _ => ("balances", "refunds to a hidden balance are held"),
    }
}

fn hidden(row: &Row, owner: &BTreeMap<String, i64>) -> Result<Flaw, DbError> {
    let (relation, comes) = consequence(&row.text("relation")?);
    let (behind, seen) = (row.text("behind")?, row.int("seen")?);
    let owner = owner.get(relation).copied().unwrap_or(0);
    let advice = format!(
        "let this role see every row: CREATE POLICY makegood_sees ON {behind} FOR SELECT TO … USING (true), or ALTER ROLE … BYPASSRLS"
    );
    let grade = |says: String, fails| Flaw { relation, says, advice: advice.clone(), fails };
    Ok(if row.text("sees")? == "nothing" {
        grade(
            format!(
                "row security of {behind} hides every row from this role, for which it has no policy: {comes}"
            ),
            true,
        )
    } else if owner > seen {
        grade(
            format!(
                "row security of {behind} hides rows: of {owner} that its owner sees, this role sees {seen}: {comes}"
            ),
            true,
        )
    } else if seen == 0 {
        grade(
            format!(
                "row security of {behind} may hide rows from this role: could not try, there is no row: {comes}"
            ),
            false,
        )
    } else {
        grade(
            format!(
                "row security of {behind} applies to this role, and hides none of {seen} rows by now: {comes}"
            ),
            false,
        )
    })
}
