//! The brake's row: locked by settle, shown to people, released by a person.

use super::db::{DbError, Row, Tx};
use super::{Store, first, statements, with_retries};
use crate::brake::{self, Brake, Counted, DAY, HOUR, Held, Sums, Watch};
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
    /// When a person last released it.
    pub released_at: Option<Timestamp>,
    /// Since when refunds are held that rest on nothing but faults of ours, if they are.
    pub own_faults_at: Option<Timestamp>,
    /// Why these are held.
    pub own_faults_reason: Option<String>,
    /// When a person last released these.
    pub own_faults_released_at: Option<Timestamp>,
}

impl BrakeState {
    /// What it holds.
    pub fn held(&self) -> Held {
        let why = |at: Option<Timestamp>, reason: &Option<String>| {
            at.map(|_| reason.clone().unwrap_or_else(|| "no reason is on record".to_owned()))
        };
        Held {
            all: why(self.engaged_at, &self.reason),
            own_faults: why(self.own_faults_at, &self.own_faults_reason),
        }
    }
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
                let freed = free(&mut tx, by, reason, now).await?;
                tx.commit().await?;
                Ok::<_, DbError>(Some(freed))
            }
            .await
        )
    }

    /// Releases the brake if its condition is gone, and refunds for faults of ours if theirs is. Returns how many orphans that freed,
    /// or none if nothing was held or all of it has to stay.
    pub async fn release_brake_when_gone(&self, watch: &Watch) -> Result<Option<u64>, DbError> {
        with_retries!(
            self,
            async {
                let now = self.now().await?;
                let mut tx = self.db.begin().await?;
                let state = lock(&mut tx).await?;
                let held = state.held();
                if held == Held::default() {
                    return Ok(None);
                }
                let counted = count(&mut tx, watch, &state, now, held.own_faults.is_some()).await?;
                let brake = Brake::new(watch.limits, Held::default(), counted);
                let gone = Held {
                    all: held.all.filter(|_| brake.condition_is_gone()),
                    own_faults: held.own_faults.filter(|_| brake.own_faults_are_gone()),
                };
                if gone == Held::default() {
                    return Ok(None);
                }
                let which = [&gone.all, &gone.own_faults].map(|gone| i64::from(gone.is_some()).into());
                tx.rows(statements::BRAKE_LET_GO, &which).await?;
                let why = [gone.all, gone.own_faults].into_iter().flatten().collect::<Vec<_>>().join("; ");
                let freed = free(&mut tx, "makegood", &format!("the condition is gone: {why}"), now).await?;
                tx.commit().await?;
                tracing::warn!(freed, why, "the brake lets go by itself: its condition is gone");
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
        if watch.overruled {
            return Ok(Brake::overruled());
        }
        let held = state.held();
        let counted = if held.all.is_some() {
            Counted::default()
        } else {
            count(tx, watch, &state, now, own_faults && held.own_faults.is_none()).await?
        };
        Ok(Brake::new(watch.limits, held, counted))
    }

    /// Pulls the brake for what it has come to hold, and tells so.
    pub(super) async fn pull_brake(&self, tx: &mut Tx, pulled: &Held, now: Timestamp) -> Result<(), DbError> {
        for (why, statement) in
            [(&pulled.all, statements::BRAKE_ENGAGE), (&pulled.own_faults, statements::BRAKE_HOLD_OWN_FAULTS)]
        {
            let Some(why) = why.as_deref() else { continue };
            if !tx.rows(statement, &[now.into(), why.into()]).await?.is_empty() {
                let values = [now.into(), "engaged".into(), "makegood".into(), why.into()];
                tx.rows(statements::INSERT_BRAKE_EVENT, &values).await?;
                tracing::error!(
                    reason = why,
                    "the brake is on: refunds are held; see `makegood brake status`"
                );
            }
        }
        Ok(())
    }
}

/// Makes due what was held, and keeps who let go and why. What is still to be held finds that out by itself.
async fn free(tx: &mut Tx, by: &str, reason: &str, now: Timestamp) -> Result<u64, DbError> {
    let freed = tx.rows(statements::BRAKE_FREE_ORPHANS, &[now.into()]).await?.len() as u64;
    let values = [now.into(), "released".into(), by.into(), reason.into()];
    tx.rows(statements::INSERT_BRAKE_EVENT, &values).await?;
    Ok(freed)
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
        own_faults_at: row.maybe_time("own_faults_at")?,
        own_faults_reason: row.maybe_text("own_faults_reason")?,
        own_faults_released_at: row.maybe_time("own_faults_released_at")?,
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
    let by_day = [
        limits.refunds_per_day,
        limits.credits_per_day,
        limits.refunds_per_day_per_provider,
        limits.share_per_day,
    ] != [0; 4];
    let day = if by_day { Brake::since(now, DAY, state.released_at) } else { hour };
    let by_pass =
        [limits.refunds_per_pass, limits.credits_per_pass, limits.refunds_per_pass_per_provider] != [0; 3];
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
        let since = Brake::since(now, DAY, state.own_faults_released_at);
        let rows = tx.rows(statements::BRAKE_OWN_FAULTS, &[since.into()]).await?;
        let refunds = first(statements::BRAKE_OWN_FAULTS, &rows)?.int("refunds")?;
        counted.own_faults = u64::try_from(refunds).unwrap_or(0);
    }
    Ok(counted)
}
