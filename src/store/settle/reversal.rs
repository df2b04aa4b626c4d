//! Takes a refund back, in a person's name: the one other transaction that moves money.
//!
//! It writes a row in `makegood_refund_reversals`, ledger entries with ids of their own, and lowers
//! each balance by exactly what the refund gave it; the refund's row, its resolution and the
//! orphan's state stay. It takes settle's locks in settle's order (account, charge, orphan,
//! balances), so that it cannot deadlock with a settle, and reads under them whether the refund was
//! reversed before and whether each balance covers it. What was posted is read back before the
//! commit, as in a settle.
//!
//! Never twice: the second one waits for the charge's row and then reads the first one's. Beneath
//! that stand the unique keys of the reversal and of its ledger entries. An item that was refunded
//! is never refunded again, reversed or not: `one_refund_an_item`. Crash before the commit: nothing
//! happened. Connection lost at the commit: the next try reads whether it happened.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{AS_LONG_AS_A_STATEMENT, Failure, SNAPSHOT_TRIES, posting, read_back};
use crate::charge::{Bucket, ItemId, Split};
use crate::clock::Timestamp;
use crate::refund;
use crate::store::db::{DbError, Row, Run, Tries, Tx, Value};
use crate::store::records::{EventRow, Instant, insert_events};
use crate::store::{Store, statements, tell_of_another_try};

/// Which refund a person takes back.
#[derive(Clone, Debug)]
pub struct Reversal {
    /// That of this item.
    pub item: ItemId,
    /// Their name: kept.
    pub by: String,
    /// Their reason: kept.
    pub why: String,
    /// Also where a balance holds less than it is to lose.
    pub anyway: bool,
}

/// A refund that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReversedRefund {
    /// The refund.
    pub refund_id: String,
    /// The account that it had gone to.
    pub account_id: String,
    /// What each of its balances lost again.
    pub credits: Split,
    /// Who took it back.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// How a reversal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reversed {
    /// The credits were taken back.
    Done(ReversedRefund),
    /// They had been before, by whom and why: nothing was done.
    Before(ReversedRefund),
    /// makegood has not refunded the item: nothing was done.
    NotRefunded,
    /// A balance holds less than it is to lose: nothing was done.
    NotCovered {
        /// Whose.
        account_id: String,
        /// Which.
        bucket: Bucket,
        /// What it holds.
        balance: i64,
        /// What it is to lose.
        credits: i64,
    },
    /// It was posted, and the platform's balance or ledger does not show it; or a balance row is
    /// missing or doubled. Nothing stays.
    NotPosted(String),
}

/// A refund as it stands.
struct Refund {
    id: String,
    account_id: String,
    credits: Split,
    drawn: Split,
    orphan_id: i64,
    reversed: Option<ReversedRefund>,
}

impl Refund {
    /// What each balance is to lose again, below zero.
    fn taken(&self) -> BTreeMap<(String, Bucket), i128> {
        let buckets = Bucket::ALL.into_iter().filter(|bucket| self.credits.of(*bucket) > 0);
        buckets
            .map(|bucket| ((self.account_id.clone(), bucket), -i128::from(self.credits.of(bucket))))
            .collect()
    }
}

impl Store {
    /// Takes one refund back, at most once.
    ///
    /// # Errors
    /// The database refuses it, another session holds a lock for too long, or it cannot be worked with. Nothing is half done.
    pub async fn reverse_refund(&self, order: &Reversal) -> Result<Reversed, DbError> {
        let at = self.now().await?;
        let (mut tries, mut snapshots, mut in_doubt) = (Tries::new(self.patience), 0, false);
        loop {
            let failure = match self.reverse_at_once(order, at, false).await {
                // This very one: its commit's answer was lost.
                Ok(Reversed::Before(reversed))
                    if in_doubt
                        && reversed.at == at
                        && reversed.by == order.by
                        && reversed.why == order.why =>
                {
                    return Ok(Reversed::Done(reversed));
                }
                Ok(reversed) => return Ok(reversed),
                Err(failure) => failure,
            };
            match failure {
                Failure::Db(error) => {
                    let trouble = error.trouble();
                    in_doubt |= trouble.leaves_doubt();
                    let Some(pause) = tries.pause(trouble) else { return Err(error) };
                    tell_of_another_try(&error, trouble);
                    tokio::time::sleep(pause).await;
                }
                // Another session may have committed in between, where a balance is a view: then it
                // does not show under one snapshot.
                Failure::NotPosted { what } => {
                    snapshots += 1;
                    if snapshots >= SNAPSHOT_TRIES || !self.is_postgres() {
                        return Ok(Reversed::NotPosted(what));
                    }
                    let under_snapshot = self.reverse_at_once(order, at, true).await;
                    if matches!(under_snapshot, Err(Failure::NotPosted { .. })) {
                        return Ok(Reversed::NotPosted(what));
                    }
                }
                failure => return Ok(Reversed::NotPosted(failure.to_string())),
            }
        }
    }

    /// One transaction. With `snapshot` it sees one snapshot and is rolled back.
    async fn reverse_at_once(
        &self,
        order: &Reversal,
        at: Timestamp,
        snapshot: bool,
    ) -> Result<Reversed, Failure> {
        // Accounts come before all else, so whose it is is read first; a refund's account never
        // changes.
        let Some(refund) = refund_of(&mut &*self, &order.item).await? else {
            return Ok(Reversed::NotRefunded);
        };
        let accounts = json!([refund.account_id]);
        if self.is_postgres() {
            self.rows(statements::ADD_ACCOUNTS, &[(&accounts).into()]).await?;
        }
        let mut tx = self.db.begin().await?;
        if snapshot {
            tx.one_snapshot().await?;
        }
        self.wait_for_locks(&mut tx, AS_LONG_AS_A_STATEMENT).await?;
        tx.rows(statements::LOCK_ACCOUNTS, &[(&accounts).into()]).await?;
        self.wait_for_locks(&mut tx, self.lock_timeout).await?;
        let charge = json!([{
            "charge_id": order.item.charge_id, "account_id": refund.account_id,
            "subscription_drawn": refund.drawn.subscription, "wallet_drawn": refund.drawn.wallet,
        }]);
        tx.rows(statements::LOCK_CHARGES, &[(&charge).into()]).await?;
        tx.rows(statements::LOCK_ORPHANS, &[(&json!([refund.orphan_id])).into()]).await?;
        let taken = refund.taken();
        let keys: Vec<_> = taken
            .keys()
            .map(|(account, bucket)| json!({"account_id": account, "bucket": bucket.as_str()}))
            .collect();
        tx.rows(statements::LOCK_BALANCES, &[Value::json(&keys)]).await?;

        // Under the locks: reversed by somebody else meanwhile?
        let Some(refund) = refund_of(&mut tx, &order.item).await? else {
            return Ok(Reversed::NotRefunded);
        };
        if let Some(reversed) = refund.reversed {
            return Ok(Reversed::Before(reversed));
        }
        let before = read_back::balances(&mut tx, &taken).await?;
        let mut is_covered = true;
        for (account_id, bucket) in taken.keys() {
            let credits = refund.credits.of(*bucket);
            // One that is missing, doubled or null is told by the posting.
            let Some(balance) = before.get(&(account_id.clone(), bucket.as_str().to_owned())) else {
                continue;
            };
            if *balance < credits {
                if !order.anyway {
                    let (account_id, balance) = (account_id.clone(), *balance);
                    return Ok(Reversed::NotCovered { account_id, bucket: *bucket, balance, credits });
                }
                is_covered = false;
            }
        }

        let reversed = self.post(&mut tx, order, refund, at, (&before, is_covered)).await?;
        if !snapshot {
            tx.commit().await?;
        }
        Ok(Reversed::Done(reversed))
    }

    /// Writes the reversal, its ledger entries, the balances and the event, and reads back what was
    /// posted.
    async fn post(
        &self,
        tx: &mut Tx,
        order: &Reversal,
        refund: Refund,
        at: Timestamp,
        (before, is_covered): (&read_back::Balances, bool),
    ) -> Result<ReversedRefund, Failure> {
        let taken = refund.taken();
        let reversed = ReversedRefund {
            refund_id: refund.id,
            account_id: refund.account_id,
            credits: refund.credits,
            by: order.by.clone(),
            why: order.why.clone(),
            at,
        };
        let item = &order.item;
        let id = refund::reversal_id(&reversed.refund_id);
        // The refund gave whole numbers above zero.
        let entry = |(account_id, bucket): &(String, Bucket)| {
            json!({
                "id": format!("{id}:{bucket}"), "account_id": account_id, "bucket": bucket.as_str(),
                "credits": -reversed.credits.of(*bucket), "kind": "refund", "charge_id": item.charge_id,
                "output_index": item.output_index, "refund_id": reversed.refund_id, "posted_at": self.db.time(at),
            })
        };
        let entries: Vec<Json> = taken.keys().map(entry).collect();
        let hit = if self.is_postgres() {
            let list = json!([{
                "refund_id": reversed.refund_id, "by_whom": order.by, "reason": order.why,
                "reversed_at": self.db.time(at),
            }]);
            posting::hit_by(&tx.rows(statements::POST_REVERSALS, &[(&list).into()]).await?)?
        } else {
            let row = json!([{
                "id": id, "refund_id": reversed.refund_id, "charge_id": item.charge_id,
                "output_index": item.output_index, "account_id": reversed.account_id,
                "subscription_credits": reversed.credits.subscription, "wallet_credits": reversed.credits.wallet,
                "by_whom": order.by, "reason": order.why, "reversed_at": self.db.time(at),
            }]);
            tx.rows(statements::INSERT_REVERSALS, &[(&row).into()]).await?;
            let list = json!(entries);
            tx.rows(statements::INSERT_LEDGER_ENTRIES, &[(&list).into()]).await?;
            posting::hit_by(&tx.rows(statements::ADD_TO_BALANCES, &[(&list).into()]).await?)?
        };
        posting::each_hit_once(taken.keys(), &hit)?;
        let uncovered = if is_covered { "" } else { ", which the balance did not cover" };
        let event = EventRow {
            detail: Some(format!(
                "{} from the subscription, {} from the wallet{uncovered}; by hand, {}: {}",
                reversed.credits.subscription, reversed.credits.wallet, order.by, order.why
            )),
            ..EventRow::new(refund.orphan_id, item, Instant::of(&self.db, at), "reversed")
        };
        insert_events(&self.db, tx, vec![event]).await?;
        read_back::check(tx, &taken, &entries, before).await?;
        Ok(reversed)
    }
}

async fn refund_of(run: &mut impl Run, item: &ItemId) -> Result<Option<Refund>, DbError> {
    let values = [(&item.charge_id).into(), item.output_index.into()];
    let rows = run.rows(statements::REFUND_OF_ITEM, &values).await?;
    rows.first().map(read).transpose()
}

fn read(row: &Row) -> Result<Refund, DbError> {
    let split = |subscription, wallet| -> Result<Split, DbError> {
        Ok(Split { subscription: row.int(subscription)?, wallet: row.int(wallet)? })
    };
    let (id, account_id) = (row.text("id")?, row.text("account_id")?);
    let credits = split("subscription_credits", "wallet_credits")?;
    let reversed = match row.maybe_time("reversed_at")? {
        Some(at) => Some(ReversedRefund {
            refund_id: id.clone(),
            account_id: account_id.clone(),
            credits,
            by: row.text("by_whom")?,
            why: row.text("reason")?,
            at,
        }),
        None => None,
    };
    let drawn = split("subscription_drawn", "wallet_drawn")?;
    Ok(Refund { id, account_id, credits, drawn, orphan_id: row.int("orphan_id")?, reversed })
}
