//! Counters for the metrics of one provider since the process started: requests by outcome, and
//! their durations.
//!
//! They count HTTP requests (one question may take several), except `not_asked`, which counts
//! questions. Every outcome exists from the start with zero; otherwise Prometheus could not compute
//! a rate for its first occurrence.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets of the duration histogram, in seconds.
pub const BUCKETS_SECS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The answer states the status of the job, or leads to another request.
    Answered,
    /// No answer, or an error of a server or gateway.
    Unreachable,
    /// The provider's rate limit was exceeded.
    RateLimited,
    /// The key was rejected or is missing.
    Unauthorized,
    /// The answer could not be interpreted.
    Unreadable,
    /// Not sent: the circuit is open, or other processes hold all slots.
    NotAsked,
}

impl RequestOutcome {
    /// All outcomes, in the order of [`RequestStats::outcomes`].
    pub const ALL: [Self; 6] = [
        Self::Answered,
        Self::Unreachable,
        Self::RateLimited,
        Self::Unauthorized,
        Self::Unreadable,
        Self::NotAsked,
    ];

    /// The value of the metrics' label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::Unreadable => "unreadable",
            Self::NotAsked => "not_asked",
        }
    }
}

/// A snapshot of the counters of one provider.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestStats {
    /// The name of the provider.
    pub provider: String,
    /// The number of requests for each outcome.
    pub outcomes: [(RequestOutcome, u64); 6],
    /// The cumulative number of requests for each upper bound of [`BUCKETS_SECS`].
    pub duration_buckets: [(f64, u64); 9],
    /// The number of requests that were timed.
    pub duration_count: u64,
    /// The sum of their durations, in seconds.
    pub duration_sum_secs: f64,
}

impl RequestStats {
    /// The number of requests with this outcome.
    pub fn of(&self, outcome: RequestOutcome) -> u64 {
        self.outcomes.iter().find(|(each, _)| *each == outcome).map_or(0, |(_, count)| *count)
    }
}

/// The counters of one provider.
#[derive(Debug, Default)]
pub(super) struct Stats(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    outcomes: [u64; 6],
    buckets: [u64; 9],
    count: u64,
    sum: Duration,
}

impl Stats {
    /// Counts one request.
    pub(super) fn count(&self, outcome: RequestOutcome, took: Option<Duration>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (counted, count) in RequestOutcome::ALL.into_iter().zip(&mut counts.outcomes) {
            if counted == outcome {
                *count += 1;
            }
        }
        if let Some(took) = took {
            counts.count += 1;
            counts.sum += took;
            for (border, count) in BUCKETS_SECS.into_iter().zip(&mut counts.buckets) {
                if took.as_secs_f64() <= border {
                    *count += 1;
                }
            }
        }
    }

    /// Copies the counters.
    pub(super) fn snapshot(&self, provider: &str) -> RequestStats {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stats = RequestStats {
            provider: provider.to_owned(),
            outcomes: RequestOutcome::ALL.map(|outcome| (outcome, 0)),
            duration_buckets: BUCKETS_SECS.map(|border| (border, 0)),
            duration_count: counts.count,
            duration_sum_secs: counts.sum.as_secs_f64(),
        };
        for ((_, shown), count) in stats.outcomes.iter_mut().zip(counts.outcomes) {
            *shown = count;
        }
        for ((_, shown), count) in stats.duration_buckets.iter_mut().zip(counts.buckets) {
            *shown = count;
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_outcome_and_duration() {
        let stats = Stats::default();
        stats.count(RequestOutcome::Answered, Some(Duration::from_millis(80)));
        stats.count(RequestOutcome::Answered, Some(Duration::from_secs(30)));
        stats.count(RequestOutcome::NotAsked, None);
        let now = stats.snapshot("acme");
        assert_eq!(now.outcomes[0], (RequestOutcome::Answered, 2));
        assert_eq!(now.outcomes[5], (RequestOutcome::NotAsked, 1));
        assert_eq!(now.duration_buckets[0], (0.05, 0));
        assert_eq!(now.duration_buckets[8], (20.0, 1));
        assert_eq!((now.duration_count, now.duration_sum_secs), (2, 30.08));
    }
}
