//! What was asked of a provider since the process began: requests by outcome, and how long they took.
//!
//! Counted per HTTP request (a question may take several), except `not_asked`, which counts questions.
//! Every outcome is there from the beginning, at zero, so that a rate can be computed from the first one on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper borders of the histogram's buckets, in seconds.
pub const BUCKETS_SECS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer that says something about the job.
    Answered,
    /// No answer, or one from something in between.
    Unreachable,
    /// Asked too often.
    RateLimited,
    /// The key was refused or is missing.
    Unauthorized,
    /// An answer that no rule can read.
    Unreadable,
    /// Not sent, because the circuit is open.
    NotAsked,
}

impl Outcome {
    /// All of them, in the order of [`RequestStats::outcomes`].
    pub const ALL: [Self; 6] = [
        Self::Answered,
        Self::Unreachable,
        Self::RateLimited,
        Self::Unauthorized,
        Self::Unreadable,
        Self::NotAsked,
    ];

    /// As the metrics spell it.
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

/// One provider's counters at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestStats {
    /// Which provider.
    pub provider: String,
    /// How many requests ended how.
    pub outcomes: [(Outcome, u64); 6],
    /// How many requests took up to so many seconds, cumulatively, for each of [`BUCKETS_SECS`].
    pub duration_buckets: [(f64, u64); 9],
    /// How many requests were timed.
    pub duration_count: u64,
    /// How long they took together, in seconds.
    pub duration_sum_secs: f64,
}

impl RequestStats {
    /// How many requests ended like this.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().find(|(each, _)| *each == outcome).map_or(0, |(_, count)| *count)
    }
}

/// The counters themselves.
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
    pub(super) fn count(&self, outcome: Outcome, took: Option<Duration>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (counted, count) in Outcome::ALL.into_iter().zip(&mut counts.outcomes) {
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

    /// What was counted up to now.
    pub(super) fn snapshot(&self, provider: &str) -> RequestStats {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stats = RequestStats {
            provider: provider.to_owned(),
            outcomes: Outcome::ALL.map(|outcome| (outcome, 0)),
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
        stats.count(Outcome::Answered, Some(Duration::from_millis(80)));
        stats.count(Outcome::Answered, Some(Duration::from_secs(30)));
        stats.count(Outcome::NotAsked, None);
        let now = stats.snapshot("acme");
        assert_eq!(now.outcomes[0], (Outcome::Answered, 2));
        assert_eq!(now.outcomes[5], (Outcome::NotAsked, 1));
        assert_eq!(now.duration_buckets[0], (0.05, 0));
        assert_eq!(now.duration_buckets[8], (20.0, 1));
        assert_eq!((now.duration_count, now.duration_sum_secs), (2, 30.08));
    }
}
