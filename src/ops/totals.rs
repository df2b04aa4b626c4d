//! Reads the metrics that alerts depend on from the database, and delivers them after a one-shot
//! run.
//!
//! Promise: these figures come from the database, not from process counters, so they are right in
//! every mode and after a crash. If they cannot be read, no metrics are delivered: the values at
//! the Pushgateway become old, and the alert for that fires.

use std::collections::BTreeMap;

use super::metrics::{self, MetricTotals, ProcessMetrics};
use crate::brake::BrakeHolds;
use crate::charge::Bucket;
use crate::clock::Timestamp;
use crate::config::MetricsSettings;
use crate::store::{BrakeState, Counter, DbError, Store, Unresolved};

/// Reads the totals. The cost depends on the number of unresolved orphans, not on the size of the
/// tables.
pub async fn totals(store: &Store, now: Timestamp) -> Result<MetricTotals, DbError> {
    let unresolved = store.unresolved(now).await?;
    let counters = store.counters().await?;
    Ok(add_up(&unresolved, &counters, store.last_success().await?, &store.brake().await?, now))
}

/// Delivers the metrics of a one-shot run to the Pushgateway or the file in the settings. A failure
/// is logged as a warning and does not fail the run.
pub async fn deliver(settings: &MetricsSettings, store: &Store, process: &ProcessMetrics) {
    if settings.pushgateway.is_none() && settings.textfile.is_none() {
        return;
    }
    let read = async { totals(store, store.now().await?).await };
    let totals = match read.await {
        Ok(totals) => totals,
        Err(error) => {
            let error = crate::report::chain(&error);
            tracing::warn!(error, "no metrics delivered: the database could not be read");
            return;
        }
    };
    let text = match metrics::render(Some(&totals), process) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(%error, "no metrics delivered: they could not be encoded");
            return;
        }
    };
    let mut failed = Vec::new();
    if let Some(path) = &settings.textfile {
        failed.extend(metrics::write_textfile(path, &text).await.err());
    }
    if let Some(to) = &settings.pushgateway {
        failed.extend(metrics::push(to, &settings.job, text).await.err());
    }
    for error in failed {
        tracing::warn!("{}; the next pass delivers newer metrics", crate::report::chain(&error));
    }
}

fn add_up(
    unresolved: &[Unresolved],
    counters: &[Counter],
    last_success: Option<Timestamp>,
    brake: &BrakeState,
    now: Timestamp,
) -> MetricTotals {
    let brake_engaged = brake.held() != BrakeHolds::default();
    let accounts_held = brake.accounts_held;
    let mut totals = MetricTotals { last_success, brake_engaged, accounts_held, ..MetricTotals::default() };
    for each in unresolved {
        *totals.orphans.entry((each.state.clone(), each.provider.clone())).or_default() += each.orphans;
        if each.for_account {
            // Held by an account's own limit until a person releases it: `accounts_held` counts the
            // accounts, and these orphans do not raise the alerts for all.
            continue;
        }
        totals.orphans_past_window += each.past_window;
        // Also while released orphans have not been settled yet.
        totals.brake_engaged |= each.state == "held" && each.reason == "brake";
        totals.oldest_orphan_age = totals.oldest_orphan_age.max(now.since(each.oldest_charged_at));
    }
    let mut took: BTreeMap<u32, u64> = BTreeMap::new();
    for Counter { metric, label_a, label_b, value } in counters {
        let labels = || (label_a.clone(), label_b.clone());
        match metric.as_str() {
            "refunds" => *totals.refunds.entry(labels()).or_default() += value,
            "recoveries" => *totals.recoveries.entry(labels()).or_default() += value,
            "late_successes" => *totals.late_successes.entry(labels()).or_default() += value,
            "refunded_credits" => {
                if let Some(bucket) = Bucket::ALL.into_iter().find(|bucket| bucket.as_str() == label_a) {
                    totals.refunded_credits.add(bucket, i64::try_from(*value).unwrap_or(i64::MAX));
                }
            }
            "swept" => totals.swept += value,
            "resolution_seconds" => {
                totals.resolution.count += value;
                // The label of the last bucket is `+Inf`, which does not parse.
                if let Ok(end) = label_a.parse() {
                    *took.entry(end).or_default() += value;
                }
            }
            "resolution_microseconds" => totals.resolution.sum_seconds += seconds(*value),
            // A counter of a newer version that runs at the same time. That process delivers it.
            _ => {}
        }
    }
    totals.resolution.up_to_seconds = cumulative(&took);
    totals
}

fn cumulative(took: &BTreeMap<u32, u64>) -> BTreeMap<u32, u64> {
    let add = |sum: &mut u64, (end, count): (&u32, &u64)| {
        *sum += count;
        Some((*end, *sum))
    };
    took.iter().scan(0, add).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows no other number; exact up to 2^53 microseconds"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::charge::Split;
    use crate::ops::metrics::Resolution;

    fn unresolved(state: &str, provider: &str, reason: &str, orphans: u64, age_secs: u64) -> Unresolved {
        Unresolved {
            state: state.to_owned(),
            provider: provider.to_owned(),
            reason: reason.to_owned(),
            orphans,
            oldest_charged_at: NOW - Duration::from_secs(age_secs),
            past_window: u64::from(age_secs >= 86_400),
            for_account: false,
        }
    }

    fn counter(metric: &str, label_a: &str, label_b: &str, value: u64) -> Counter {
        Counter { metric: metric.to_owned(), label_a: label_a.to_owned(), label_b: label_b.to_owned(), value }
    }

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.to_owned(), b.to_owned())
    }

    const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

    #[test]
    fn counts_of_reasons_are_added_up_and_buckets_are_cumulative() {
        let unresolved = [
            unresolved("open", "fal", "still_running", 2, 600),
            unresolved("open", "fal", "unreachable", 3, 90_000),
            unresolved("held", "fal", "brake", 1, 7),
        ];
        let counters = [
            counter("refunds", "fal", "server_error", 4),
            counter("refunded_credits", "wallet", "", 120),
            counter("refunded_credits", "tokens", "", 7),
            counter("recoveries", "veo-gemini", "relink", 5),
            counter("resolution_seconds", "600", "", 2),
            counter("resolution_seconds", "120", "", 1),
            counter("resolution_seconds", "+Inf", "", 4),
            counter("resolution_microseconds", "", "", 2_500_000),
            counter("late_successes", "fal", "never_stored", 2),
            counter("swept", "", "", 6),
            counter("unheard_of", "", "", 1),
        ];
        let brake = BrakeState { engaged_at: Some(NOW), ..BrakeState::default() };
        let totals = add_up(&unresolved, &counters, Some(NOW), &brake, NOW);
        assert_eq!(
            totals,
            MetricTotals {
                orphans: BTreeMap::from([(pair("open", "fal"), 5), (pair("held", "fal"), 1)]),
                oldest_orphan_age: Duration::from_hours(25),
                orphans_past_window: 1,
                refunds: BTreeMap::from([(pair("fal", "server_error"), 4)]),
                refunded_credits: Split { subscription: 0, wallet: 120 },
                recoveries: BTreeMap::from([(pair("veo-gemini", "relink"), 5)]),
                late_successes: BTreeMap::from([(pair("fal", "never_stored"), 2)]),
                swept: 6,
                resolution: Resolution {
                    up_to_seconds: BTreeMap::from([(120, 1), (600, 3)]),
                    sum_seconds: 2.5,
                    count: 7,
                },
                last_success: Some(NOW),
                brake_engaged: true,
                accounts_held: 0,
            }
        );
    }

    #[test]
    fn p24_orphans_held_for_one_account_raise_no_alert() {
        let held = Unresolved { for_account: true, ..unresolved("held", "fal", "brake", 950, 90_000) };
        let brake = BrakeState { accounts_held: 1, ..BrakeState::default() };
        let totals = add_up(&[held], &[], Some(NOW), &brake, NOW);
        assert_eq!(totals.orphans, BTreeMap::from([(pair("held", "fal"), 950)]));
        assert_eq!((totals.orphans_past_window, totals.brake_engaged, totals.accounts_held), (0, false, 1));
        assert_eq!(totals.oldest_orphan_age, Duration::ZERO);
    }
}
