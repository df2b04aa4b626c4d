//! The brake's row: locked by settle, shown to people, released by a person.

use std::collections::BTreeMap;

use super::db::{DbError, Tx};
use super::{Store, first, statements, with_retries};
use crate::brake::{Brake, DAY, HOUR, Limits, Sums};
use crate::clock::Timestamp;

/// When the brake was pulled or released.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BrakeEvent {
    /// When.
    pub at: Timestamp,
    /// `engaged` or `released`.
    pub kind: String,
    /// `makegood`, or a person.
    pub by_whom: String,
    /// Which limit was reached, or why it was right to go on.
    pub reason: String,
}

/// The brake as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrakeState {
    /// Since when it is on, if it is.
    pub engaged_at: Option<Timestamp>,
    /// Which limit was reached.
    pub reason: Option<String>,
    /// When it was last released.
    pub released_at: Option<Timestamp>,
}

impl Store {
    /// The brake as it stands.
    pub async fn brake(&self) -> Result<BrakeState, DbError> {
        let rows = self.rows(statements::BRAKE_STATE, &[]).await?;
        let row = first(statements::BRAKE_STATE, &rows)?;
        Ok(BrakeState {
            engaged_at: row.maybe_time("engaged_at")?,
            reason: row.maybe_text("reason")?,
            released_at: row.maybe_time("released_at")?,
        })
    }

    /// When the brake was pulled and released, newest first, at most `most`.
    pub async fn brake_events(&self, most: i64) -> Result<Vec<BrakeEvent>, DbError> {
        let rows = self.rows(statements::BRAKE_EVENTS, &[most.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(BrakeEvent {
                    at: row.time("at")?,
                    kind: row.text("kind")?,
                    by_whom: row.text("by_whom")?,
                    reason: row.text("reason")?,
                })
            })
            .collect()
    }

    /// Releases the brake and makes due what it held. Returns how many orphans that were, or none if it was off.
    pub async fn release_brake(&self, by: &str, reason: &str) -> Result<Option<u64>, DbError> {
        with_retries!(
            async {
                let now = self.now().await?;
                let mut tx = self.db.begin().await?;
                if tx.rows(statements::BRAKE_RELEASE, &[now.into()]).await?.is_empty() {
                    return Ok(None);
                }
                let freed = tx.rows(statements::BRAKE_FREE_ORPHANS, &[now.into()]).await?.len() as u64;
                let values = [now.into(), "released".into(), by.into(), reason.into()];
                tx.rows(statements::INSERT_BRAKE_EVENT, &values).await?;
                tx.commit().await?;
                Ok::<_, DbError>(Some(freed))
            }
            .await
        )
    }

    /// Locks the brake until the transaction ends.
    pub(super) async fn lock_brake(
        &self,
        tx: &mut Tx,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Brake, DbError> {
        let rows = tx.rows(statements::BRAKE_LOCK, &[]).await?;
        let row = first(statements::BRAKE_LOCK, &rows)?;
        let engaged = match row.maybe_time("engaged_at")? {
            Some(_) => Some(row.maybe_text("reason")?.unwrap_or_default()),
            None => None,
        };
        let mut per_provider = BTreeMap::new();
        if engaged.is_none() && limits != Limits::default() {
            let released_at = row.maybe_time("released_at")?;
            let hour = Brake::since(now, HOUR, released_at);
            // Counting a day costs a day's refunds: only where a limit asks for it.
            let by_day = limits.refunds_per_day > 0 || limits.credits_per_day > 0;
            let longest = if by_day { Brake::since(now, DAY, released_at) } else { hour };
            for row in tx.rows(statements::BRAKE_RECENT, &[hour.into(), longest.into()]).await? {
                let number = |column| row.int(column).map(|number| u64::try_from(number).unwrap_or(0));
                let sums = Sums {
                    hour_refunds: number("hour_refunds")?,
                    hour_credits: number("hour_credits")?,
                    day_refunds: number("day_refunds")?,
                    day_credits: number("day_credits")?,
                };
                per_provider.insert(row.text("provider")?, sums);
            }
        }
        Ok(Brake::new(limits, engaged, per_provider))
    }

    /// Pulls the brake, unless it is on already, and tells so.
    pub(super) async fn pull_brake(&self, tx: &mut Tx, why: &str, now: Timestamp) -> Result<(), DbError> {
        if !tx.rows(statements::BRAKE_ENGAGE, &[now.into(), why.into()]).await?.is_empty() {
            let values = [now.into(), "engaged".into(), "makegood".into(), why.into()];
            tx.rows(statements::INSERT_BRAKE_EVENT, &values).await?;
            tracing::error!(reason = why, "the brake is on: refunds are held until `makegood brake release`");
        }
        Ok(())
    }
}
