//! Reads back what a settle has posted, before it commits.
//!
//! The platform's `balances` and `ledger_entries` may be views, or have triggers. A trigger that
//! does nothing, counts in another unit or drops a row would leave a refund on record that no
//! customer has. So after all writes, deferred triggers included, each balance must have moved by
//! exactly what was owed to it, and the ledger must show exactly the entries that were inserted. A
//! balance that is the sum of the ledger passes: it is compared across both writes.
//!
//! A difference rolls the transaction back. On PostgreSQL it may come from another session that
//! committed in between, where a balance is a view whose row nobody can lock. So the batch is tried
//! once more under one snapshot, which shows no commits of others, and that try is rolled back in
//! any case. Only a difference that shows there too counts; the case is then held.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value as Json, json};

use super::Failure;
use crate::charge::Bucket;
use crate::store::db::{DbError, Tx, Value};
use crate::store::statements;

#[cfg(test)]
mod tests;

/// What balances held, by account and bucket. A balance that does not exist, or exists twice, is
/// not in it.
pub(super) type Balances = HashMap<(String, String), i64>;

/// Refunds that the ledger shows, by id.
pub(super) type Shown = HashMap<String, Vec<Json>>;

/// What the balances hold that refunds are owed to.
pub(super) async fn balances(
    tx: &mut Tx,
    owed: &BTreeMap<(String, Bucket), i128>,
) -> Result<Balances, DbError> {
    if owed.is_empty() {
        return Ok(Balances::new());
    }
    let keys = owed.keys().map(|(account, bucket)| json!({"account_id": account, "bucket": bucket.as_str()}));
    let rows = tx.rows(statements::BALANCES_NOW, &[(&Json::Array(keys.collect())).into()]).await?;
    let mut balances = Balances::new();
    for row in rows {
        if let Some(credits) = row.maybe_int("credits")? {
            balances.insert((row.text("account_id")?, row.text("bucket")?), credits);
        }
    }
    Ok(balances)
}

/// Compares what the balances and the ledger show with what was owed and inserted.
pub(super) async fn check(
    tx: &mut Tx,
    owed: &BTreeMap<(String, Bucket), i128>,
    entries: &[Json],
    before: &Balances,
) -> Result<(), Failure> {
    if owed.is_empty() && entries.is_empty() {
        return Ok(());
    }
    let after = balances(tx, owed).await?;
    balances_moved(owed, before, &after)?;
    let charges: BTreeSet<&str> = entries.iter().filter_map(|entry| entry["charge_id"].as_str()).collect();
    let mut shown: Shown = HashMap::new();
    for row in tx.rows(statements::ENTRIES_OF_CHARGES, &[Value::json(&charges)]).await? {
        let id = row.text("id")?;
        let entry = json!({
            "account_id": row.text("account_id")?, "bucket": row.text("bucket")?, "credits": row.int("credits")?,
            "charge_id": row.text("charge_id")?, "output_index": row.maybe_int("output_index")?,
        });
        shown.entry(id).or_default().push(entry);
    }
    entries_show(entries, &shown)
}

/// Each balance must have moved by exactly what was owed to it.
pub(super) fn balances_moved(
    owed: &BTreeMap<(String, Bucket), i128>,
    before: &Balances,
    after: &Balances,
) -> Result<(), Failure> {
    for ((account, bucket), owed) in owed {
        let key = (account.clone(), bucket.as_str().to_owned());
        let moved = match (before.get(&key), after.get(&key)) {
            (Some(before), Some(after)) => i128::from(*after) - i128::from(*before),
            _ => 0,
        };
        if moved != *owed {
            return Err(Failure::NotPosted {
                what: format!(
                    "{owed} credits are owed to account `{account}`, bucket {bucket}, and its balance moved by {moved}"
                ),
            });
        }
    }
    Ok(())
}

/// The ledger must show exactly the entries that were inserted.
pub(super) fn entries_show(entries: &[Json], shown: &Shown) -> Result<(), Failure> {
    for entry in entries {
        let id = entry["id"].as_str().unwrap_or_default();
        let wanted = json!({
            "account_id": entry["account_id"], "bucket": entry["bucket"], "credits": entry["credits"],
            "charge_id": entry["charge_id"], "output_index": entry["output_index"],
        });
        match shown.get(id).map(Vec::as_slice) {
            Some([shown]) if *shown == wanted => {}
            Some(shown) => {
                return Err(Failure::NotPosted {
                    what: format!(
                        "ledger entry `{id}` was inserted as {wanted}, and the ledger shows {}",
                        json!(shown)
                    ),
                });
            }
            None => {
                return Err(Failure::NotPosted {
                    what: format!("ledger entry `{id}` was inserted, and the ledger does not show it"),
                });
            }
        }
    }
    Ok(())
}
