//! Passes, and what people and metrics count: read from the database, so that they are right in every mode.
//!
//! Costs follow what is unresolved and the number of different labels, never the size of the tables.

use super::db::DbError;
use super::{Store, erasure, first, statements};
use crate::clock::Timestamp;

/// Upper ends of the buckets of `makegood_resolution_seconds`: what is promised within an hour (P01), within a few
/// hours and within 24 hours (P15) has an end of its own. Settle counts by them, `ops::metrics` shows them.
pub const RESOLUTION_BUCKETS_SECONDS: [u32; 12] =
    [120, 600, 1800, 3600, 7200, 14_400, 21_600, 43_200, 72_000, 79_200, 86_400, 172_800];

/// Unresolved orphans of one state, provider and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// `open` or `held`.
    pub state: String,
    /// The provider.
    pub provider: String,
    /// The reason of the last decision; `not_asked_yet` before the first.
    pub reason: String,
    /// How many.
    pub orphans: u64,
    /// When the oldest of them was charged.
    pub oldest_charged_at: Timestamp,
    /// How many of them are past their 24 hours (P24).
    pub past_window: u64,
    /// Whether the limits of one account hold these, and not the brake of all.
    pub for_account: bool,
}

/// A running total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `refunds` (provider, reason), `refunded_credits` (bucket), `recoveries` (provider, kind),
    /// `late_successes` (provider, kind), `swept`,
    /// `resolution_seconds` (upper bound, not cumulative), `resolution_microseconds` (their sum).
    pub metric: String,
    /// Its first label.
    pub label_a: String,
    /// Its second label.
    pub label_b: String,
    /// The total.
    pub value: u64,
}

/// The newest pass that ended.
#[derive(Clone, Debug)]
pub struct LastPass {
    /// Its row.
    pub id: i64,
    /// `run`, `schedule` or `by_hand`.
    pub mode: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// `done`, `failed` or `stopped`.
    pub outcome: String,
    /// Its report as JSON.
    pub report: String,
}

impl Store {
    /// Notes that a pass begins and returns its id.
    pub async fn begin_pass(&self, mode: &str) -> Result<(i64, Timestamp), DbError> {
        let now = self.now().await?;
        let rows = self.rows(statements::PASS_BEGIN, &[mode.into(), now.into()]).await?;
        Ok((first(statements::PASS_BEGIN, &rows)?.int("id")?, now))
    }

    /// Notes that a pass ended: `done`, `failed` or `stopped`.
    pub async fn finish_pass(
        &self,
        id: i64,
        at: Timestamp,
        outcome: &str,
        report: &str,
    ) -> Result<(), DbError> {
        let hash = erasure::hash(report);
        let values = [id.into(), at.into(), outcome.into(), report.into(), (&hash).into()];
        self.rows(statements::PASS_FINISH, &values).await?;
        Ok(())
    }

    /// When a pass last ended well.
    pub async fn last_success(&self) -> Result<Option<Timestamp>, DbError> {
        let rows = self.rows(statements::LAST_SUCCESS, &[]).await?;
        rows.first().map(|row| row.time("finished_at")).transpose()
    }

    /// When the first pass of this installation began. None: there was none yet.
    pub async fn first_pass(&self) -> Result<Option<Timestamp>, DbError> {
        let rows = self.rows(statements::FIRST_PASS, &[]).await?;
        rows.first().map(|row| row.time("started_at")).transpose()
    }

    /// How many items that are inside their window at `now`, and for which nobody's own limits are
    /// the reason, should have been refunded by `by`.
    pub async fn overdue(&self, by: Timestamp, now: Timestamp) -> Result<u64, DbError> {
        // A window ends at most a day after the time for a refund.
        let values = [by.into(), now.into(), (now + crate::brake::DAY).into()];
        let rows = self.rows(statements::OVERDUE, &values).await?;
        Ok(count(super::first(statements::OVERDUE, &rows)?.int("items")?))
    }

    /// The newest pass that ended.
    pub async fn last_pass(&self) -> Result<Option<LastPass>, DbError> {
        let rows = self.rows(statements::LAST_PASS, &[]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(LastPass {
            id: row.int("id")?,
            mode: row.text("mode")?,
            started_at: row.time("started_at")?,
            finished_at: row.time("finished_at")?,
            outcome: row.text("outcome")?,
            report: row.maybe_text("report")?.unwrap_or_default(),
        }))
    }

    /// What is open and held at `now`.
    pub async fn unresolved(&self, now: Timestamp) -> Result<Vec<Unresolved>, DbError> {
        let rows = self.bulk_rows(statements::UNRESOLVED, &[now.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Unresolved {
                    state: row.text("state")?,
                    provider: row.text("provider")?,
                    reason: row.text("reason")?,
                    orphans: count(row.int("orphans")?),
                    oldest_charged_at: row.time("oldest_charged_at")?,
                    past_window: count(row.int("past_window")?),
                    for_account: row.int("for_account")? == 1,
                })
            })
            .collect()
    }

    /// The running totals.
    pub async fn counters(&self) -> Result<Vec<Counter>, DbError> {
        let rows = self.rows(statements::COUNTERS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Counter {
                    metric: row.text("metric")?,
                    label_a: row.text("label_a")?,
                    label_b: row.text("label_b")?,
                    value: count(row.int("value")?),
                })
            })
            .collect()
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
