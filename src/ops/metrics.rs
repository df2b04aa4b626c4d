//! Prometheus metrics: their names and labels, and their text format.
//!
//! A one-shot process loses its counters when it exits. So the metrics that alerts depend on are
//! [`MetricTotals`], read from the database at the end of a pass, and right in every mode.
//! [`ProcessMetrics`] adds what only this process knows: the duration of passes and of requests.
//! Names and labels are an interface: alerts depend on them. A series without labels exists from
//! the start, at zero.
//!
//! The daemon is scraped; a one-shot run pushes its metrics or writes a file (`deliver`). The
//! caller logs a failure as a warning: it does not fail the pass.

mod deliver;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::{
    Bucket as ProtoBucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{HistogramOpts, Registry, TextEncoder};

use crate::charge::{Bucket, Split};
use crate::clock::Timestamp;
use crate::provider::{Providers, RequestOutcome, RequestStats};
pub use crate::store::RESOLUTION_BUCKETS_SECONDS;
pub use deliver::{DeliveryError, push, write_textfile};

/// The media type of [`render`]'s text.
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// The most providers without a provider file that get a series of their own. Their names help to
/// find a misspelt one.
const MAX_UNKNOWN_PROVIDERS: usize = 20;
/// The label of all other unknown providers. No provider file can have this name.
const OTHER_PROVIDERS: &str = "(other)";

/// The metrics read from the database at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricTotals {
    /// Orphans by (state, provider).
    pub orphans: BTreeMap<(String, String), u64>,
    /// Time since the charge of the oldest open or held orphan; zero if there is none.
    pub oldest_orphan_age: Duration,
    /// Open or held orphans past their window (P24, orphans past the window raise an alert).
    pub orphans_past_window: u64,
    /// All refunds by (provider, reason).
    pub refunds: BTreeMap<(String, String), u64>,
    /// All refunded credits by bucket, in the smallest unit.
    pub refunded_credits: Split,
    /// All recoveries by (provider, kind).
    pub recoveries: BTreeMap<(String, String), u64>,
    /// Refunded items whose output was made after all, by (provider, kind).
    pub late_successes: BTreeMap<(String, String), u64>,
    /// All leftovers of killed copies that were removed from storage.
    pub swept: u64,
    /// Time from charge to refund or recovery.
    pub resolution: Resolution,
    /// When a pass last succeeded. `None`: never.
    pub last_success: Option<Timestamp>,
    /// Whether the brake is engaged.
    pub brake_engaged: bool,
    /// Accounts whose refunds are held by a limit per account.
    pub accounts_held: u64,
}

/// A histogram of the time from charge to refund or recovery, over all items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolution {
    /// Cumulative counts by upper bound in seconds. A missing bound has the count of the next
    /// smaller one.
    pub up_to_seconds: BTreeMap<u32, u64>,
    /// The sum of all times, in seconds.
    pub sum_seconds: f64,
    /// The number of items.
    pub count: u64,
}

/// Returns the request statistics and the circuit breaker's state of each provider.
pub type RequestStatsSource = dyn Fn() -> Vec<(RequestStats, Circuit)> + Send + Sync;

/// The metrics of this process. Clones share them.
#[derive(Clone)]
pub struct ProcessMetrics {
    registry: Registry,
    passes: prometheus::Histogram,
    asked: Arc<RequestStatsSource>,
}

impl std::fmt::Debug for ProcessMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessMetrics").finish_non_exhaustive()
    }
}

impl ProcessMetrics {
    /// Metrics at zero. `asked` is called for each rendering.
    ///
    /// # Errors
    /// The name or label of a metric is invalid. A test proves that they are valid.
    pub fn new(
        asked: impl Fn() -> Vec<(RequestStats, Circuit)> + Send + Sync + 'static,
    ) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let passes = prometheus::Histogram::with_opts(
            HistogramOpts::new("makegood_pass_duration_seconds", "How long passes of this process took.")
                .buckets(vec![0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0]),
        )?;
        registry.register(Box::new(passes.clone()))?;
        Ok(Self { registry, passes, asked: Arc::new(asked) })
    }

    /// Metrics of a process that asks these providers.
    ///
    /// # Errors
    /// As [`ProcessMetrics::new`].
    pub fn asking(providers: Arc<Providers>) -> prometheus::Result<Self> {
        Self::new(move || {
            let circuit =
                |name: &str| if providers.is_circuit_open(name) { Circuit::Open } else { Circuit::Closed };
            providers
                .request_stats()
                .into_iter()
                .map(|stats| (stats.clone(), circuit(&stats.provider)))
                .collect()
        })
    }

    /// Records the duration of a pass.
    pub fn observe_pass(&self, span: Duration) {
        self.passes.observe(span.as_secs_f64());
    }

    fn families(&self, asked: &[(RequestStats, Circuit)]) -> Vec<MetricFamily> {
        let requests = asked.iter().flat_map(|(stats, _)| {
            stats.outcomes.iter().map(|(outcome, requests)| {
                counter(&[("provider", &stats.provider), ("outcome", outcome.as_str())], count(*requests))
            })
        });
        let mut families = self.registry.gather();
        families.extend([
            family(
                "makegood_provider_requests_total",
                "Requests of this process to providers, by outcome.",
                MetricType::COUNTER,
                requests.collect(),
            ),
            family(
                "makegood_provider_unauthorized_total",
                "Times that a provider refused this process's key, or that the key was missing.",
                MetricType::COUNTER,
                asked
                    .iter()
                    .map(|(stats, _)| {
                        counter(
                            &[("provider", &stats.provider)],
                            count(stats.of(RequestOutcome::Unauthorized)),
                        )
                    })
                    .collect(),
            ),
            family(
                "makegood_provider_request_duration_seconds",
                "How long providers took to answer this process.",
                MetricType::HISTOGRAM,
                asked.iter().map(|(stats, _)| duration(stats)).collect(),
            ),
            family(
                "makegood_provider_circuit_open",
                "1 while the circuit breaker of the provider is open in this process.",
                MetricType::GAUGE,
                asked
                    .iter()
                    .map(|(stats, circuit)| gauge(&[("provider", &stats.provider)], circuit.value()))
                    .collect(),
            ),
        ]);
        families
    }
}

/// The state of a provider's circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// The provider fails; no requests are sent for a while.
    Open,
    /// Requests are sent.
    Closed,
}

impl Circuit {
    const fn value(self) -> f64 {
        match self {
            Self::Open => 1.0,
            Self::Closed => 0.0,
        }
    }
}

fn duration(stats: &RequestStats) -> Metric {
    let buckets = stats.duration_buckets.iter().map(|(end, up_to)| bucket(*end, *up_to)).collect();
    let mut metric = labelled(&[("provider", &stats.provider)]);
    metric.set_histogram(histogram(buckets, stats.duration_sum_secs, stats.duration_count));
    metric
}

/// Renders all metrics as Prometheus text, sorted by name. Without `totals`, only the metrics of
/// the process: before the database was read, zeros would be wrong.
///
/// # Errors
/// The encoder refuses a family. A test proves that it accepts all of them.
pub fn render(totals: Option<&MetricTotals>, process: &ProcessMetrics) -> prometheus::Result<String> {
    let asked = (process.asked)();
    let known = asked.iter().map(|(stats, _)| stats.provider.as_str()).collect();
    let mut families = totals.map(|totals| totals.bounded(&known).families()).unwrap_or_default();
    families.extend(process.families(&asked));
    // The encoder refuses a family without series.
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    TextEncoder::new().encode_to_string(&families)
}

impl MetricTotals {
    /// The same totals with a bounded number of series. Provider names come from the platform's
    /// rows, and each name would otherwise create series that exist for ever.
    fn bounded(&self, known: &BTreeSet<&str>) -> Self {
        let by_label = [&self.refunds, &self.recoveries, &self.late_successes];
        let names = self
            .orphans
            .keys()
            .map(|(_, provider)| provider)
            .chain(by_label.into_iter().flat_map(|counts| counts.keys().map(|(provider, _)| provider)));
        let unknown: BTreeSet<&str> =
            names.map(String::as_str).filter(|name| !known.contains(name)).collect();
        let folded: BTreeSet<&str> = unknown.into_iter().skip(MAX_UNKNOWN_PROVIDERS).collect();
        if folded.is_empty() {
            return self.clone();
        }
        let label = |name: &String| {
            if folded.contains(name.as_str()) { OTHER_PROVIDERS.to_owned() } else { name.clone() }
        };
        let by_provider = |counts: &Counts| add_up(counts, |(name, other)| (label(name), other.clone()));
        Self {
            orphans: add_up(&self.orphans, |(state, name)| (state.clone(), label(name))),
            refunds: by_provider(&self.refunds),
            recoveries: by_provider(&self.recoveries),
            late_successes: by_provider(&self.late_successes),
            ..self.clone()
        }
    }

    fn families(&self) -> Vec<MetricFamily> {
        let last_success = self.last_success.map_or(0.0, |at| seconds(at.micros()));
        let buckets = Bucket::ALL.map(|bucket| (bucket, self.refunded_credits.of(bucket)));
        vec![
            family(
                "makegood_orphans",
                "Charged items without a stored output, by state.",
                MetricType::GAUGE,
                by_two(["state", "provider"], &self.orphans, gauge),
            ),
            family(
                "makegood_oldest_orphan_age_seconds",
                "Time since the charge of the oldest open or held orphan, without those of held accounts; 0 if there is none.",
                MetricType::GAUGE,
                vec![gauge(&[], self.oldest_orphan_age.as_secs_f64())],
            ),
            family(
                "makegood_orphans_past_window",
                "Open or held orphans past their window, without those of held accounts.",
                MetricType::GAUGE,
                vec![gauge(&[], count(self.orphans_past_window))],
            ),
            family(
                "makegood_refunds_total",
                "Refunds made, by reason.",
                MetricType::COUNTER,
                by_two(["provider", "reason"], &self.refunds, counter),
            ),
            family(
                "makegood_refunded_credits_total",
                "Credits refunded, in the smallest unit.",
                MetricType::COUNTER,
                buckets
                    .iter()
                    .map(|(b, credits)| counter(&[("bucket", b.as_str())], whole(*credits)))
                    .collect(),
            ),
            family(
                "makegood_recoveries_total",
                "Outputs recovered from the provider or relinked to their item.",
                MetricType::COUNTER,
                by_two(["provider", "kind"], &self.recoveries, counter),
            ),
            family(
                "makegood_late_successes_total",
                "Refunded items whose output exists after all: never stored, or stored after the refund.",
                MetricType::COUNTER,
                by_two(["provider", "kind"], &self.late_successes, counter),
            ),
            family(
                "makegood_swept_total",
                "Leftovers of killed copies removed from the storage.",
                MetricType::COUNTER,
                vec![counter(&[], count(self.swept))],
            ),
            family(
                "makegood_resolution_seconds",
                "Time from the charge to its refund or recovery.",
                MetricType::HISTOGRAM,
                vec![self.resolution.metric()],
            ),
            family(
                "makegood_last_success_timestamp_seconds",
                "When a pass last succeeded, in seconds since 1970; 0 if never.",
                MetricType::GAUGE,
                vec![gauge(&[], last_success)],
            ),
            family(
                "makegood_brake_engaged",
                "1 while the brake holds refunds until a person releases them.",
                MetricType::GAUGE,
                vec![gauge(&[], if self.brake_engaged { 1.0 } else { 0.0 })],
            ),
            family(
                "makegood_accounts_held",
                "Accounts whose refunds are held by a limit per account and day.",
                MetricType::GAUGE,
                vec![gauge(&[], count(self.accounts_held))],
            ),
        ]
    }
}

type Counts = BTreeMap<(String, String), u64>;

/// The counts with new labels. Counts with the same new labels are added up.
fn add_up(counts: &Counts, relabel: impl Fn(&(String, String)) -> (String, String)) -> Counts {
    let mut sums = Counts::new();
    for (labels, number) in counts {
        *sums.entry(relabel(labels)).or_default() += number;
    }
    sums
}

impl Resolution {
    fn metric(&self) -> Metric {
        let buckets = RESOLUTION_BUCKETS_SECONDS
            .iter()
            .map(|end| {
                // Cumulative: a missing bound has the count of the next smaller one.
                let up_to = self.up_to_seconds.range(..=end).next_back().map_or(0, |(_, count)| *count);
                bucket(f64::from(*end), up_to)
            })
            .collect();
        let mut metric = Metric::default();
        metric.set_histogram(histogram(buckets, self.sum_seconds, self.count));
        metric
    }
}

fn bucket(end: f64, up_to: u64) -> ProtoBucket {
    let mut bucket = ProtoBucket::default();
    bucket.set_upper_bound(end);
    bucket.set_cumulative_count(up_to);
    bucket
}

fn histogram(buckets: Vec<ProtoBucket>, sum: f64, count: u64) -> Histogram {
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_sum(sum);
    histogram.set_sample_count(count);
    histogram
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn by_two(
    labels: [&str; 2],
    counts: &BTreeMap<(String, String), u64>,
    metric: fn(&[(&str, &str)], f64) -> Metric,
) -> Vec<Metric> {
    counts.iter().map(|((a, b), n)| metric(&[(labels[0], a), (labels[1], b)], count(*n))).collect()
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    metric
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other number; exact up to 2^53")]
const fn count(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other number; exact up to 2^53")]
const fn whole(value: i64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds since 1970 are exact in f64 until the year 2255"
)]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests;
