//! Accounts that their own limits hold: read and held by settle, shown to people, released by a
//! person.
//!
//! All of it is written under the lock of makegood's row of the account (on SQLite: by the only
//! writer there is). A release commits before it touches an orphan; one that dies after that leaves
//! orphans held, which are looked at again within a day, or made due by the same release once more.

use std::collections::{BTreeMap, BTreeSet};

use super::{BrakeScope, Released, note};
use crate::brake::{AccountStanding, Accounts, Brake, BrakeContext, DAY};
use crate::clock::Timestamp;
use crate::store::db::{DbError, Row, Tx, Value};
use crate::store::{Store, first, statements, with_retries};

/// Held accounts that one pass tries to release by itself.
const RELEASED_AT_ONCE: i64 = 1_000;

/// An account whose own limits hold its refunds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HeldAccount {
    /// The account.
    pub account_id: String,
    /// Since when.
    pub held_at: Timestamp,
    /// Which limit was reached.
    pub reason: String,
    /// How many refunds are held, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refunds: Option<i64>,
}

impl Store {
    /// Accounts that their own limits hold, the newest first, at most `most`.
    pub async fn held_accounts(&self, most: i64) -> Result<Vec<HeldAccount>, DbError> {
        let rows = self.rows(statements::HELD_ACCOUNTS, &[most.into()]).await?;
        rows.iter().map(|row| held_account(row, Some(row.int("refunds")?))).collect()
    }

    /// Accounts that are held since `began` or later.
    pub async fn accounts_held_since(&self, began: Timestamp) -> Result<Vec<HeldAccount>, DbError> {
        let values = [began.into(), RELEASED_AT_ONCE.into()];
        let rows = self.rows(statements::ACCOUNTS_HELD_SINCE, &values).await?;
        rows.iter().map(|row| held_account(row, None)).collect()
    }

    /// Releases the refunds of one account, and makes due what was held. Returns how many that
    /// were, or none if there was nothing to release.
    pub async fn release_account(
        &self,
        account: &str,
        by: &str,
        reason: &str,
    ) -> Result<Option<Released>, DbError> {
        let was_held = with_retries!(self, self.let_account_go_by(account, by, reason).await)?;
        self.freed(was_held, statements::ACCOUNT_FREE_ORPHANS, account).await
    }

    async fn let_account_go_by(&self, account: &str, by: &str, reason: &str) -> Result<bool, DbError> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        let values = [account.into(), now.into(), (now - DAY).into()];
        if tx.rows(statements::ACCOUNT_RELEASE, &values).await?.is_empty() {
            return Ok(false);
        }
        note(&mut tx, BrakeScope::Account(account), "released", by, reason, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Releases the held accounts of whose refunds no more than half of each limit counts by now.
    pub(super) async fn release_accounts_when_gone(&self, watch: &BrakeContext) -> Result<(), DbError> {
        for held in self.accounts_held_since(Timestamp::from_micros(0)).await? {
            let account = held.account_id.as_str();
            let was_held = with_retries!(self, self.let_account_go_when_gone(account, watch).await)?;
            if was_held {
                self.freed(true, statements::ACCOUNT_FREE_ORPHANS, account).await?;
                tracing::warn!(account, "the account is released by itself: its condition is gone");
            }
        }
        Ok(())
    }

    async fn let_account_go_when_gone(&self, account: &str, watch: &BrakeContext) -> Result<bool, DbError> {
        let now = self.now().await?;
        let price = self.price(&mut &*self, watch, now).await?;
        let mut tx = self.db.begin().await?;
        // First, so that its row is locked and the refunds that were held for it are counted.
        if tx.rows(statements::ACCOUNT_LET_GO, &[account.into()]).await?.is_empty() {
            return Ok(false);
        }
        let standing = standing(&mut tx, &BTreeSet::from([account]), Brake::since(now, DAY)).await?;
        let Some(standing) = standing.get(account) else { return Ok(false) };
        // As the condition is judged: at twice of what was refunded.
        let doubled = AccountStanding { credits: standing.credits * 2, ..standing.clone() };
        let doubled = Accounts::new(BTreeMap::from([(account.to_owned(), doubled)]));
        let charges = match doubled.charges_needed(account, 0, &watch.limits, price) {
            Some(needed) => self.charges_of_day(&mut tx, now, needed).await?,
            None => 0,
        };
        if !standing.condition_is_gone(&watch.limits, price, charges) {
            return Ok(false);
        }
        let why = "the condition is gone";
        note(&mut tx, BrakeScope::Account(account), "released", "makegood", why, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Reads how the accounts stand that refunds of so many credits go to, and as many charges as
    /// decide about their share. The caller has locked makegood's row of each.
    pub(in crate::store) async fn read_accounts(
        &self,
        tx: &mut Tx,
        brake: &mut Brake,
        wanted: &BTreeMap<&str, u128>,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let accounts: BTreeSet<&str> = wanted.keys().copied().collect();
        let (limits, price) = (*brake.limits(), brake.price());
        // Without limits it matters only whether an account is held: no refund needs to be counted.
        let since = if limits.limit_accounts() { Brake::since(now, DAY) } else { now + DAY };
        let accounts = Accounts::new(standing(tx, &accounts, since).await?);
        let needed = wanted.iter().filter_map(|(account, credits)| {
            if accounts.is_held(account) {
                return None;
            }
            accounts.charges_needed(account, *credits, &limits, price)
        });
        let charges = match needed.max() {
            Some(needed) if needed > brake.charges() => self.charges_of_day(tx, now, needed).await?,
            _ => 0,
        };
        brake.set_accounts(accounts, charges);
        Ok(())
    }

    /// Writes down which accounts this settle is the first to hold.
    pub(in crate::store) async fn hold_accounts(
        &self,
        tx: &mut Tx,
        brake: &Brake,
        now: Timestamp,
    ) -> Result<(), DbError> {
        for (account, why) in brake.accounts().newly_held() {
            let values = [account.into(), now.into(), why.into()];
            if !tx.rows(statements::ACCOUNT_HOLD, &values).await?.is_empty() {
                note(tx, BrakeScope::Account(account), "engaged", "makegood", why, now).await?;
                tracing::warn!(account, reason = why, "the refunds of one account are held");
            }
        }
        Ok(())
    }

    /// How many accounts are held by their own limits.
    pub(super) async fn held_accounts_count(&self) -> Result<u64, DbError> {
        let rows = self.rows(statements::HELD_ACCOUNTS_COUNT, &[]).await?;
        let accounts = first(statements::HELD_ACCOUNTS_COUNT, &rows)?.int("accounts")?;
        Ok(u64::try_from(accounts).unwrap_or(0))
    }
}

/// How the accounts stand, with what was refunded to each from `since` on.
async fn standing(
    tx: &mut Tx,
    accounts: &BTreeSet<&str>,
    since: Timestamp,
) -> Result<BTreeMap<String, AccountStanding>, DbError> {
    let values = [Value::json(&accounts), since.into()];
    let rows = tx.rows(statements::ACCOUNT_SUMS, &values).await?;
    let read = |row: &Row| {
        let held = row.maybe_time("held_at")?.is_some();
        let why = row.maybe_text("held_reason")?;
        let standing = AccountStanding {
            held: held.then(|| why.unwrap_or_else(|| "no reason is on record".to_owned())),
            refunds: super::number(row, "refunds")?,
            credits: super::credits(row, "credits_high", "credits_low")?,
        };
        Ok((row.text("account_id")?, standing))
    };
    rows.iter().map(read).collect()
}

fn held_account(row: &Row, refunds: Option<i64>) -> Result<HeldAccount, DbError> {
    Ok(HeldAccount {
        account_id: row.text("account_id")?,
        held_at: row.time("held_at")?,
        reason: row.maybe_text("held_reason")?.unwrap_or_default(),
        refunds,
    })
}
