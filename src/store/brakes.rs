//! The brake's row: locked by settle, shown to people, released by a person.

use super::db::{DbError, Row, Tx};
use super::{Store, first, statements, with_retries};
use crate::brake::{self, Brake, Counted, DAY, HOUR, Sums, Watch};
use crate::clock::Timestamp;

/// Beyond so many charges a day it no longer matters how many they are.
const CHARGES_COUNTED: i64 = 1_000_000;

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
        state(first(statements::BRAKE_STATE, &rows)?)
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

    /// Releases the brake and makes due what it held. Returns how many orphans that were, or none if there was nothing to
    /// release.
    pub async fn release_brake(&self, by: &str, reason: &str) -> Result<Option<u64>, DbError> {
        with_retries!(
            self,
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

    /// Releases the brake if its condition is gone. Returns how many orphans that freed, or none if it was off or has to stay on.
    pub async fn release_brake_when_gone(&self, watch: &Watch) -> Result<Option<u64>, DbError> {
        with_retries!(
            self,
            async {
                let now = self.now().await?;
                let mut tx = self.db.begin().await?;
                let state = lock(&mut tx).await?;
                let Some(why) = state.engaged_at.map(|_| state.reason.clone().unwrap_or_default()) else {
                    return Ok(None);
                };
                let counted = count(&mut tx, watch, &state, now, false).await?;
                if !Brake::new(watch.limits, None, counted).condition_is_gone() {
                    return Ok(None);
                }
                tx.rows(statements::BRAKE_RELEASE, &[now.into()]).await?;
                let freed = tx.rows(statements::BRAKE_FREE_ORPHANS, &[now.into()]).await?.len() as u64;
                let reason = format!("the condition is gone: {why}");
                let values = [now.into(), "released".into(), "makegood".into(), reason.as_str().into()];
                tx.rows(statements::INSERT_BRAKE_EVENT, &values).await?;
                tx.commit().await?;
                tracing::warn!(freed, why, "the brake is off again by itself: its condition is gone");
                Ok::<_, DbError>(Some(freed))
            }
            .await
        )
    }

    /// How many charges were made in the last day, if a limit asks for it.
    pub async fn charges_of_day(
        &self,
        limits: brake::Limits,
        now: Timestamp,
    ) -> Result<Option<u64>, DbError> {
        if limits.share_per_day == 0 {
            return Ok(None);
        }
        let values = [(now - DAY).into(), now.into(), CHARGES_COUNTED.into()];
        let rows = self.rows(statements::CHARGES_OF_DAY, &values).await?;
        Ok(u64::try_from(first(statements::CHARGES_OF_DAY, &rows)?.int("charges")?).ok())
    }

    /// Locks the brake until the transaction ends. `own_faults`: whether a refund for a fault of ours is to come.
    pub(super) async fn lock_brake(
        &self,
        tx: &mut Tx,
        watch: &Watch,
        now: Timestamp,
        own_faults: bool,
    ) -> Result<Brake, DbError> {
        let state = lock(tx).await?;
        let engaged = state.engaged_at.map(|_| state.reason.clone().unwrap_or_default());
        let counted = match engaged {
            None => count(tx, watch, &state, now, own_faults).await?,
            Some(_) => Counted::default(),
        };
        Ok(Brake::new(watch.limits, engaged, counted))
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

async fn lock(tx: &mut Tx) -> Result<BrakeState, DbError> {
    let rows = tx.rows(statements::BRAKE_LOCK, &[]).await?;
    state(first(statements::BRAKE_LOCK, &rows)?)
}

fn state(row: &Row) -> Result<BrakeState, DbError> {
    Ok(BrakeState {
        engaged_at: row.maybe_time("engaged_at")?,
        reason: row.maybe_text("reason")?,
        released_at: row.maybe_time("released_at")?,
    })
}

/// What the limits are held against. Counting a day costs a day's refunds: only where a limit asks for it.
async fn count(
    tx: &mut Tx,
    watch: &Watch,
    state: &BrakeState,
    now: Timestamp,
    own_faults: bool,
) -> Result<Counted, DbError> {
    let limits = watch.limits;
    let mut counted = Counted { charges: watch.charges, ..Counted::default() };
    if limits == brake::Limits::default() {
        return Ok(counted);
    }
    let hour = Brake::since(now, HOUR, state.released_at);
    let by_day = [limits.refunds_per_day, limits.credits_per_day, limits.share_per_day] != [0; 3];
    let day = if by_day { Brake::since(now, DAY, state.released_at) } else { hour };
    let by_pass = [limits.refunds_per_pass, limits.credits_per_pass] != [0; 2];
    let began = watch.pass_began.filter(|_| by_pass).unwrap_or(now);
    let pass = Brake::since(now, Brake::span_of_pass(now, began), state.released_at);
    let earliest = hour.min(day).min(pass);
    let values = [hour.into(), day.into(), pass.into(), earliest.into()];
    for row in tx.rows(statements::BRAKE_RECENT, &values).await? {
        let number = |column| row.int(column).map(|number| u64::try_from(number).unwrap_or(0));
        let sums = Sums {
            pass_refunds: number("pass_refunds")?,
            pass_credits: number("pass_credits")?,
            hour_refunds: number("hour_refunds")?,
            hour_credits: number("hour_credits")?,
            day_refunds: number("day_refunds")?,
            day_credits: number("day_credits")?,
        };
        counted.per_provider.insert(row.text("provider")?, sums);
    }
    if own_faults && limits.own_faults_per_day > 0 {
        let since = Brake::since(now, DAY, state.released_at);
        let rows = tx.rows(statements::BRAKE_OWN_FAULTS, &[since.into()]).await?;
        let refunds = first(statements::BRAKE_OWN_FAULTS, &rows)?.int("refunds")?;
        counted.own_faults = u64::try_from(refunds).unwrap_or(0);
    }
    Ok(counted)
}
