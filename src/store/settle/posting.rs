//! The refunds that one settle posts: refund, ledger entries and balances.
//!
//! PostgreSQL posts them in a function with its owner's rights (`makegood_post_refunds`, migration
//! 0012), which reads account, draw and price itself and refuses what the platform's rows do not
//! allow. So the role of the passes has no right to raise a balance. SQLite has no roles; there the
//! same rows are written set by set.
//!
//! Whatever is posted is read back (`read_back`) before the commit. Posting proves nothing else:
//! settle has locked and compared before. Crash: the transaction is rolled back, nothing was
//! posted.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value as Json, json};

use super::writes::rows_of;
use super::{Failure, read_back};
use crate::charge::{Bucket, Charge, ItemId, Split};
use crate::clock::Timestamp;
use crate::refund;
use crate::store::db::{DbError, Row, Tx};
use crate::store::{Store, statements};

/// The refunds of one settle.
#[derive(Debug, Default)]
pub(super) struct Posting {
    refunds: Vec<Refund>,
    /// Credits owed, by account and bucket.
    owed: BTreeMap<(String, Bucket), i128>,
}

#[derive(Debug)]
struct Refund {
    item: ItemId,
    account_id: String,
    provider: String,
    model: String,
    reason: &'static str,
    split: Split,
}

impl Refund {
    /// Its ledger entries, as they must show in the ledger afterwards.
    fn entries(&self) -> impl Iterator<Item = Json> {
        let id = refund::refund_id(&self.item.charge_id, self.item.output_index);
        Bucket::ALL.into_iter().filter(|bucket| self.split.of(*bucket) > 0).map(move |bucket| {
            json!({
                "id": format!("{id}:{bucket}"), "account_id": self.account_id, "bucket": bucket.as_str(),
                "credits": self.split.of(bucket), "kind": "refund", "charge_id": self.item.charge_id,
                "output_index": self.item.output_index, "refund_id": id,
            })
        })
    }
}

impl Posting {
    /// Takes in the refund of one item.
    pub(super) fn add(&mut self, item: &ItemId, charge: &Charge, reason: &'static str, split: Split) {
        for bucket in Bucket::ALL {
            let credits = split.of(bucket);
            if credits > 0 {
                *self.owed.entry((charge.account_id.clone(), bucket)).or_default() += i128::from(credits);
            }
        }
        self.refunds.push(Refund {
            item: item.clone(),
            account_id: charge.account_id.clone(),
            provider: charge.provider.clone(),
            model: charge.model.clone(),
            reason,
            split,
        });
    }

    /// Posts all of them. Their resolutions are written already: `resolutions` has the id of each.
    /// Returns what the balances held before, for [`Posting::check`].
    pub(super) async fn write(
        &self,
        tx: &mut Tx,
        store: &Store,
        now: Timestamp,
        resolutions: &HashMap<ItemId, i64>,
    ) -> Result<read_back::Balances, Failure> {
        let before = read_back::balances(tx, &self.owed).await?;
        let hit = if store.is_postgres() {
            self.write_by_function(tx).await?
        } else {
            self.write_set_by_set(tx, store, now, resolutions).await?
        };
        each_hit_once(self.owed.keys(), &hit)?;
        Ok(before)
    }

    /// Compares what the platform's relations show with what was posted.
    pub(super) async fn check(&self, tx: &mut Tx, before: &read_back::Balances) -> Result<(), Failure> {
        read_back::check(tx, &self.owed, &self.entries(), before).await
    }

    /// Credits owed, by account and bucket.
    pub(super) const fn owed(&self) -> &BTreeMap<(String, Bucket), i128> {
        &self.owed
    }

    /// The ledger entries, as they must show in the ledger afterwards.
    pub(super) fn entries(&self) -> Vec<Json> {
        self.refunds.iter().flat_map(Refund::entries).collect()
    }

    async fn write_by_function(&self, tx: &mut Tx) -> Result<Hit, Failure> {
        // More than a balance can hold all at once; one by one they may fit, or the database says
        // no.
        self.credits_owed()?;
        let refund = |each: &Refund| {
            json!({
                "charge_id": each.item.charge_id, "output_index": each.item.output_index,
                "subscription": each.split.subscription, "wallet": each.split.wallet,
            })
        };
        let list: Vec<Json> = self.refunds.iter().map(refund).collect();
        Ok(hit_by(&rows_of(tx, statements::POST_REFUNDS, &list).await?)?)
    }

    async fn write_set_by_set(
        &self,
        tx: &mut Tx,
        store: &Store,
        now: Timestamp,
        resolutions: &HashMap<ItemId, i64>,
    ) -> Result<Hit, Failure> {
        let at = store.db.time(now);
        let refund = |each: &Refund| {
            json!({
                "id": refund::refund_id(&each.item.charge_id, each.item.output_index),
                "resolution_id": resolutions.get(&each.item),
                "charge_id": each.item.charge_id, "output_index": each.item.output_index,
                "account_id": each.account_id, "provider": each.provider, "model": each.model,
                "subscription_credits": each.split.subscription, "wallet_credits": each.split.wallet,
                "reason": each.reason, "refunded_at": at,
            })
        };
        let refunds: Vec<Json> = self.refunds.iter().map(refund).collect();
        rows_of(tx, statements::INSERT_REFUNDS, &refunds).await?;
        let mut raised: BTreeMap<&str, Split> = BTreeMap::new();
        for each in &self.refunds {
            let sum = raised.entry(&each.item.charge_id).or_default();
            *sum = sum.plus(each.split);
        }
        let raised: Vec<Json> = raised
            .into_iter()
            .map(|(charge_id, split)| {
                json!({"charge_id": charge_id, "subscription": split.subscription, "wallet": split.wallet})
            })
            .collect();
        rows_of(tx, statements::RAISE_REFUNDED, &raised).await?;
        let mut entries = self.entries();
        for entry in &mut entries {
            entry["posted_at"] = at.clone();
        }
        rows_of(tx, statements::INSERT_LEDGER_ENTRIES, &entries).await?;
        Ok(hit_by(&rows_of(tx, statements::ADD_TO_BALANCES, &self.credits_owed()?).await?)?)
    }

    fn credits_owed(&self) -> Result<Vec<Json>, Failure> {
        self.owed
            .iter()
            .map(|((account_id, bucket), credits)| {
                let credits = i64::try_from(*credits)
                    .map_err(|_| Failure::TooMuch { account_id: account_id.clone(), bucket: *bucket })?;
                Ok(json!({"account_id": account_id, "bucket": bucket.as_str(), "credits": credits}))
            })
            .collect()
    }
}

/// How many balance rows were hit, by account and bucket.
pub(super) type Hit = HashMap<(String, String), usize>;

/// Counts the rows of a statement that returns one for each balance row.
pub(super) fn hit_by(rows: &[Row]) -> Result<Hit, DbError> {
    let mut hit = Hit::new();
    for row in rows {
        *hit.entry((row.text("account_id")?, row.text("bucket")?)).or_default() += 1;
    }
    Ok(hit)
}

/// Exactly one balance row must be hit for each account and bucket.
pub(super) fn each_hit_once<'k>(
    keys: impl Iterator<Item = &'k (String, Bucket)>,
    hit: &Hit,
) -> Result<(), Failure> {
    for (account_id, bucket) in keys {
        let rows = hit.get(&(account_id.clone(), bucket.as_str().to_owned())).copied().unwrap_or(0);
        if rows != 1 {
            return Err(Failure::Balance { account_id: account_id.clone(), bucket: *bucket, rows });
        }
    }
    Ok(())
}
