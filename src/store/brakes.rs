//! The brake's row and the sums that its limits are held against: read and confirmed by settle, shown to people, released by
//! a person.
//!
//! The sums are written only under the lock of the brake's row. Settle takes this lock last, a release takes it first and
//! commits before it touches an orphan: so nothing is waited for under it. A release that dies after that commit leaves
//! orphans held: `makegood brake release` once more makes them due, and without it they are looked at again within an hour.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::db::{DbError, Row, Run, Statement, Tx, Value};
use super::{Store, first, statements, with_retries};
use crate::brake::{
    self, Baseline, Brake, BrakeContext, BrakeHolds, BrakeLimits, DAY, HOUR, Price, RefundCounts, Sums,
};
use crate::clock::Timestamp;

mod accounts;
mod by_hand;
#[cfg(test)]
mod tests;

pub use accounts::HeldAccount;
pub use by_hand::HeldProvider;

/// How long a count of the day's charges, or their average price, may be used again.
const CHARGES_GOOD_FOR: Duration = Duration::from_mins(5);

/// The most charges of a day that are counted: beyond, a share counts as one of so many.
const CHARGES_MOST: u64 = 1_000_000;

/// When the average price was read, and what it was.
pub(super) type KnownPrice = (Timestamp, Option<Price>);

/// How many orphans a release has made due.
pub type Released = u64;

/// Orphans that one statement makes due after a release.
const FREED_AT_ONCE: i64 = 5_000;

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
    /// The account that was held or released alone.
    pub account_id: Option<String>,
    /// The provider that was held or released alone.
    pub provider: Option<String>,
}

/// What is held or released.
#[derive(Clone, Copy, Debug)]
enum BrakeScope<'a> {
    /// All refunds, or those for faults of ours.
    All,
    /// Those of one account.
    Account(&'a str),
    /// Those of one provider.
    Provider(&'a str),
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
    /// The providers whose refunds a person holds.
    pub providers: BTreeMap<String, HeldProvider>,
    /// How many accounts are held by their own limits; counted for people and metrics only.
    pub accounts_held: u64,
}

impl BrakeState {
    /// What it holds.
    pub fn held(&self) -> BrakeHolds {
        let why = |at: Option<Timestamp>, reason: &Option<String>| {
            at.map(|_| reason.clone().unwrap_or_else(|| "no reason is on record".to_owned()))
        };
        BrakeHolds {
            all: why(self.engaged_at, &self.reason),
            own_faults: why(self.own_faults_at, &self.own_faults_reason),
            providers: self
                .providers
                .iter()
                .map(|(name, held)| (name.clone(), held.reason.clone()))
                .collect(),
        }
    }
}

/// Charges that the average price is read of.
const PRICED: i64 = 1_000;
/// So many charges are enough for an average price, where others cannot be read.
const PRICED_LEAST: i64 = 100;
/// How often older charges are read for it instead.
const PRICE_TRIES: u32 = 20;

/// What a charge costs on average: of the newest charges that can be read. Where a charge cannot be
/// read, those before it are taken if they are enough, and otherwise those after it: without a
/// price, limits of the brake would not be applied.
async fn average_price(run: &mut impl Run, now: Timestamp) -> Result<Option<Price>, DbError> {
    let (mut until, mut charges) = (now, PRICED);
    let mut best: Option<(i64, Price)> = None;
    let mut failed = None;
    let mut tries = 0;
    while tries < PRICE_TRIES {
        run.begin_part().await?;
        let skipped = match run.rows(statements::AVERAGE_PRICE, &[until.into(), charges.into()]).await {
            Ok(rows) => {
                run.end_part().await?;
                let row = first(statements::AVERAGE_PRICE, &rows)?;
                let of = u64::try_from(row.int("charges")?).unwrap_or(0);
                let price = Price::new(of, credits(row, "credits_high", "credits_low")?);
                if let Some(price) = price.filter(|_| best.is_none_or(|(of, _)| of < charges)) {
                    best = Some((charges, price));
                }
                if charges >= PRICED_LEAST {
                    break;
                }
                charges * 2
            }
            Err(error) if error.is_about_reading_a_row() => {
                run.undo_part().await?;
                failed = Some(error);
                if charges > 1 {
                    charges /= 2;
                    continue;
                }
                1
            }
            Err(error) => return Err(error),
        };
        tries += 1;
        let rows = run.rows(statements::CHARGE_BEHIND, &[until.into(), skipped.into()]).await?;
        let Some(row) = rows.first() else { break };
        let at = row.time("at")?;
        until = if at < until { at } else { until - Duration::from_micros(1) };
        charges = PRICED;
    }
    match (best, failed) {
        (Some((_, price)), _) => Ok(Some(price)),
        (None, None) => Ok(None),
        (None, Some(error)) => Err(error),
    }
}

impl Store {
    /// The brake as it stands.
    pub async fn brake(&self) -> Result<BrakeState, DbError> {
        let state = read(&mut &*self, statements::BRAKE_STATE).await?;
        Ok(BrakeState { accounts_held: self.held_accounts_count().await?, ..state })
    }

    /// Whether the database answers: one row of makegood's own is read by its key.
    pub async fn answers(&self) -> Result<(), DbError> {
        self.rows(statements::BRAKE_STATE, &[]).await.map(drop)
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
                    account_id: row.maybe_text("account_id")?,
                    provider: row.maybe_text("provider")?,
                })
            })
            .collect()
    }

    /// Releases the brake and makes due what it held. Returns how many orphans that were, or none if there was nothing to
    /// release. After a failure in between the brake is off: calling it again makes due what is still held.
    pub async fn release_brake(&self, by: &str, reason: &str) -> Result<Option<u64>, DbError> {
        let was_on = with_retries!(self, self.let_go_by(by, reason).await)?;
        let freed = self.free_held().await?;
        Ok((was_on || freed > 0).then_some(freed))
    }

    async fn let_go_by(&self, by: &str, reason: &str) -> Result<bool, DbError> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        if tx.rows(statements::BRAKE_RELEASE, &[now.into()]).await?.is_empty() {
            return Ok(false);
        }
        tx.rows(statements::ZERO_REFUND_SUMS, &[brake::minute_of(now).into()]).await?;
        note(&mut tx, BrakeScope::All, "released", by, reason, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Releases the brake if its condition is gone, and refunds for faults of ours if theirs is. Returns how many orphans that freed,
    /// or none if nothing was held or all of it has to stay.
    pub async fn release_brake_when_gone(&self, watch: &BrakeContext) -> Result<Option<u64>, DbError> {
        self.release_accounts_when_gone(watch).await?;
        let Some(why) = with_retries!(self, self.let_go_when_gone(watch).await)? else {
            return Ok(None);
        };
        let freed = self.free_held().await?;
        tracing::warn!(freed, why, "the brake lets go by itself: its condition is gone");
        Ok(Some(freed))
    }

    async fn let_go_when_gone(&self, watch: &BrakeContext) -> Result<Option<String>, DbError> {
        let now = self.now().await?;
        let price = self.price(&mut &*self, watch, now).await?;
        let mut tx = self.db.begin().await?;
        let state = lock(&mut tx).await?;
        let held = state.held();
        if held.all.is_none() && held.own_faults.is_none() {
            return Ok(None);
        }
        let mut counted = RefundCounts { price, ..count(&mut tx, watch, &state, now).await? };
        // As the condition is judged: at twice of what was refunded.
        let twice = [counted.day_refunds().saturating_mul(2), counted.day_credits().saturating_mul(2)];
        counted.charges = self.charges_that_decide(&mut tx, watch.limits, twice, price, now).await?;
        let brake = Brake::new(watch.limits, BrakeHolds::default(), counted);
        let gone = BrakeHolds {
            all: held.all.filter(|_| brake.condition_is_gone()),
            own_faults: held.own_faults.filter(|_| brake.own_faults_are_gone()),
            ..BrakeHolds::default()
        };
        if gone == BrakeHolds::default() {
            return Ok(None);
        }
        let which = [&gone.all, &gone.own_faults].map(|gone| i64::from(gone.is_some()).into());
        tx.rows(statements::BRAKE_LET_GO, &which).await?;
        let why = [gone.all, gone.own_faults].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let gone = format!("the condition is gone: {why}");
        note(&mut tx, BrakeScope::All, "released", "makegood", &gone, now).await?;
        tx.commit().await?;
        Ok(Some(why))
    }

    /// Makes due what the brake held, in portions. Each held orphan is met once, in the order of ids: one that is held again
    /// meanwhile, because a limit still applies, stays held.
    async fn free_held(&self) -> Result<Released, DbError> {
        self.free_held_by(statements::BRAKE_FREE_ORPHANS, &[]).await
    }

    /// The same by a statement whose first values say whose orphans.
    async fn free_held_by(
        &self,
        statement: &'static Statement,
        whose: &[Value],
    ) -> Result<Released, DbError> {
        let now = self.now().await?;
        let (mut freed, mut last) = (0, i64::MIN);
        loop {
            let mut values = whose.to_vec();
            values.extend([now.into(), last.into(), FREED_AT_ONCE.into()]);
            let rows = self.rows(statement, &values).await?;
            for row in &rows {
                last = last.max(row.int("id")?);
            }
            freed += rows.len() as u64;
            if rows.is_empty() {
                return Ok(freed);
            }
        }
    }

    /// What is watched in a pass that begins now: where its limits ask for it, what its first minute already holds.
    pub async fn watch(&self, limits: BrakeLimits, pass_began: Timestamp) -> Result<BrakeContext, DbError> {
        let mut watch = BrakeContext { limits, pass_began: Some(pass_began), ..BrakeContext::default() };
        if !by_pass(limits) {
            return Ok(watch);
        }
        // In this order: a release between the two changes the time that is held against this one, and the baseline is dropped.
        let released_at = self.brake().await?.released_at;
        let since: Value = brake::minute_of(pass_began).into();
        let mut per_provider = BTreeMap::new();
        for row in self.rows(statements::REFUND_SUMS, &vec![since; 4]).await? {
            let sums = sums(&row)?;
            per_provider.insert(row.text("provider")?, (sums.pass_refunds, sums.pass_credits));
        }
        watch.baseline = Arc::new(Baseline { released_at, per_provider });
        Ok(watch)
    }

    /// At least so many charges were made in the last day, counted up to somewhat more than are `needed`.
    async fn charges_of_day(&self, run: &mut impl Run, now: Timestamp, needed: u64) -> Result<u64, DbError> {
        let known = *self.charges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, charges)) = known
            && (at..at + CHARGES_GOOD_FOR).contains(&now)
            && charges >= needed
        {
            return Ok(charges);
        }
        // Twice, so that it need not be counted anew with every batch of refunds.
        let most = i64::try_from(needed.saturating_mul(2).min(CHARGES_MOST)).unwrap_or(i64::MAX);
        let rows =
            run.rows(statements::CHARGES_OF_DAY, &[(now - DAY).into(), now.into(), most.into()]).await?;
        let charges = first(statements::CHARGES_OF_DAY, &rows)?.int("charges")?;
        let charges = u64::try_from(charges).unwrap_or(0);
        *self.charges.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, charges));
        Ok(charges)
    }

    /// As many charges of the day as decide whether so many refunds and so many credits in a day
    /// are within their shares.
    async fn charges_that_decide(
        &self,
        run: &mut impl Run,
        limits: BrakeLimits,
        [refunds, credits]: [u128; 2],
        price: Option<Price>,
        now: Timestamp,
    ) -> Result<u64, DbError> {
        let needed = limits.charges_needed(refunds).max(limits.charges_needed_for_credits(credits, price));
        match needed {
            Some(needed) => self.charges_of_day(run, now, needed).await,
            None => Ok(0),
        }
    }

    /// What a charge costs on average, where a limit is measured by it.
    async fn price(
        &self,
        run: &mut impl Run,
        watch: &BrakeContext,
        now: Timestamp,
    ) -> Result<Option<Price>, DbError> {
        if !watch.limits.need_a_price() {
            return Ok(None);
        }
        let known = *self.price.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, price)) = known
            && (at..at + CHARGES_GOOD_FOR).contains(&now)
        {
            return Ok(price);
        }
        let price = average_price(run, now).await?;
        *self.price.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, price));
        Ok(price)
    }

    /// The brake as it stands, read without a lock. What it says of so many `refunds` and `credits`
    /// counts only once it is confirmed.
    pub(super) async fn read_brake(
        &self,
        tx: &mut Tx,
        watch: &BrakeContext,
        now: Timestamp,
        (refunds, credits): (u128, u128),
    ) -> Result<Brake, DbError> {
        if watch.overruled {
            return Ok(Brake::overruled());
        }
        let state = read(tx, statements::BRAKE_STATE).await?;
        let held = state.held();
        if held.all.is_some() {
            return Ok(Brake::new(watch.limits, held, RefundCounts::default()).released(state.released_at));
        }
        let price = self.price(tx, watch, now).await?;
        let mut counted = RefundCounts { price, ..count(tx, watch, &state, now).await? };
        let would_be =
            [counted.day_refunds().saturating_add(refunds), counted.day_credits().saturating_add(credits)];
        counted.charges = self.charges_that_decide(tx, watch.limits, would_be, price, now).await?;
        Ok(Brake::new(watch.limits, held, counted).released(state.released_at))
    }

    /// Locks the brake until the transaction ends and asks it about the same refunds once more. If it says the same, writes down
    /// whether it is engaged by them and adds them to the sums. False: another process has refunded, engaged or released
    /// meanwhile, and this transaction must not be committed.
    pub(super) async fn confirm_brake(
        &self,
        tx: &mut Tx,
        watch: &BrakeContext,
        now: Timestamp,
        brake: &Brake,
    ) -> Result<bool, DbError> {
        let state = lock(tx).await?;
        let locked = if watch.overruled {
            Brake::overruled()
        } else {
            let held = state.held();
            let mut counted = RefundCounts::default();
            if held.all.is_none() {
                counted = count(tx, watch, &state, now).await?;
                (counted.charges, counted.price) = (brake.charges(), brake.price());
            }
            Brake::new(watch.limits, held, counted).released(state.released_at)
        };
        let Some(confirmed) = brake.confirmed_by(locked) else {
            return Ok(false);
        };
        self.pull_brake(tx, &confirmed.newly_held(), now).await?;
        let minute = brake::minute_of(now);
        let added: Vec<Json> = confirmed
            .added()
            .into_iter()
            .map(|(provider, sums)| {
                json!({
                    "provider": provider, "slot": brake::slot_of(minute), "began_at": self.db.time(minute),
                    "refunds": sums.refunds, "credits": i64::try_from(sums.credits).unwrap_or(i64::MAX),
                    "own_faults": sums.own_faults,
                })
            })
            .collect();
        if !added.is_empty() {
            tx.rows(statements::ADD_REFUND_SUMS, &[Value::json(&added)]).await?;
        }
        Ok(true)
    }

    /// Pulls the brake for what it has come to hold, and tells so.
    async fn pull_brake(&self, tx: &mut Tx, pulled: &BrakeHolds, now: Timestamp) -> Result<(), DbError> {
        for (why, statement) in
            [(&pulled.all, statements::BRAKE_ENGAGE), (&pulled.own_faults, statements::BRAKE_HOLD_OWN_FAULTS)]
        {
            let Some(why) = why.as_deref() else { continue };
            if !tx.rows(statement, &[now.into(), why.into()]).await?.is_empty() {
                note(tx, BrakeScope::All, "engaged", "makegood", why, now).await?;
                tracing::error!(
                    reason = why,
                    "the brake is on: refunds are held; see `makegood brake status`"
                );
            }
        }
        Ok(())
    }
}

/// Keeps who engaged or released what, and why.
async fn note(
    tx: &mut Tx,
    scope: BrakeScope<'_>,
    kind: &str,
    by: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let (account, provider) = match scope {
        BrakeScope::All => (None, None),
        BrakeScope::Account(account) => (Some(account.to_owned()), None),
        BrakeScope::Provider(provider) => (None, Some(provider.to_owned())),
    };
    let scope = [Value::MaybeText(account), Value::MaybeText(provider)];
    let values = [now.into(), kind.into(), by.into(), reason.into()].into_iter().chain(scope);
    tx.rows(statements::INSERT_BRAKE_EVENT, &values.collect::<Vec<_>>()).await.map(drop)
}

async fn lock(tx: &mut Tx) -> Result<BrakeState, DbError> {
    read(tx, statements::BRAKE_LOCK).await
}

/// The brake and the providers that are held, by one of the statements that read its row.
async fn read(run: &mut impl Run, statement: &'static Statement) -> Result<BrakeState, DbError> {
    let rows = run.rows(statement, &[]).await?;
    let state = state(first(statement, &rows)?)?;
    Ok(BrakeState { providers: by_hand::providers(run).await?, ..state })
}

fn state(row: &Row) -> Result<BrakeState, DbError> {
    Ok(BrakeState {
        engaged_at: row.maybe_time("engaged_at")?,
        reason: row.maybe_text("reason")?,
        released_at: row.maybe_time("released_at")?,
        own_faults_at: row.maybe_time("own_faults_at")?,
        own_faults_reason: row.maybe_text("own_faults_reason")?,
        own_faults_released_at: row.maybe_time("own_faults_released_at")?,
        ..BrakeState::default()
    })
}

/// Whether a limit counts by the pass.
fn by_pass(limits: BrakeLimits) -> bool {
    [limits.refunds_per_pass, limits.credits_per_pass, limits.refunds_per_pass_per_provider] != [0; 3]
}

/// What the limits are held against; the charges apart.
async fn count(
    tx: &mut Tx,
    watch: &BrakeContext,
    state: &BrakeState,
    now: Timestamp,
) -> Result<RefundCounts, DbError> {
    let limits = watch.limits;
    let mut counted = RefundCounts::default();
    if limits == BrakeLimits::default() {
        return Ok(counted);
    }
    let hour = Brake::since(now, HOUR);
    let by_day = [
        limits.refunds_per_day,
        limits.credits_per_day,
        limits.refunds_per_day_per_provider,
        limits.share_per_day,
        limits.own_faults_per_day,
        limits.credit_share_per_day,
    ] != [0; 6];
    let day = if by_day { Brake::since(now, DAY) } else { hour };
    let began = watch.pass_began.filter(|_| by_pass(limits)).unwrap_or(now);
    let pass = Brake::since(now, Brake::span_of_pass(now, began));
    let earliest = hour.min(day).min(pass);
    let values = [hour.into(), day.into(), pass.into(), earliest.into()];
    for row in tx.rows(statements::REFUND_SUMS, &values).await? {
        let mut sums = sums(&row)?;
        let provider = row.text("provider")?;
        let (refunds, credits) = watch.baseline_of(&provider, now, state.released_at);
        sums.pass_refunds = sums.pass_refunds.saturating_sub(refunds);
        sums.pass_credits = sums.pass_credits.saturating_sub(credits);
        counted.own_faults += number(&row, "own_faults")?;
        counted.per_provider.insert(provider, sums);
    }
    Ok(counted)
}

fn sums(row: &Row) -> Result<Sums, DbError> {
    let credits = |high, low| credits(row, high, low);
    Ok(Sums {
        pass_refunds: number(row, "pass_refunds")?,
        pass_credits: credits("pass_credits_high", "pass_credits_low")?,
        hour_refunds: number(row, "hour_refunds")?,
        hour_credits: credits("hour_credits_high", "hour_credits_low")?,
        day_refunds: number(row, "day_refunds")?,
        day_credits: credits("day_credits_high", "day_credits_low")?,
    })
}

/// A sum that travelled in halves.
fn credits(row: &Row, high: &'static str, low: &'static str) -> Result<u128, DbError> {
    Ok((number(row, high)? << 32) + number(row, low)?)
}

/// A sum, which is never negative: the columns that are summed are not.
fn number(row: &Row, column: &'static str) -> Result<u128, DbError> {
    row.int(column).map(|number| u128::try_from(number).unwrap_or(0))
}
