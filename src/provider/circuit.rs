//! The circuit breaker of one provider: it stops asking a provider that is down, overloaded, or
//! whose answers make the filter exceed its limits.
//!
//! - It opens after `circuit_opens_after` questions in a row that got no answer. A `Retry-After`
//!   longer than a question may wait counts as no answer, and the pause is then as long as
//!   requested, up to 15 minutes. One such answer does not open it: it may concern one job only.
//! - It also opens after as many filter runs that had to be stopped (`filters`). These need not be
//!   in a row, because each costs its full time limit whatever the answers in between were.
//! - After the pause, one question is admitted as a probe. Its answer closes the circuit; without
//!   an answer the circuit opens again.
//! - Urgent questions (past their `refund_by`) are always admitted.
//!
//! It has no clock of its own: every method takes the time. Nothing is stored here; `store` keeps
//! the state for other processes, and `shares` passes theirs on.

use std::time::{Duration, Instant};

/// The longest pause that a provider can request. It may be mistaken, and the charge has 24 hours.
pub(super) const PAUSE_MAX: Duration = Duration::from_mins(15);

/// The outcome of a question, as far as the circuit breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CircuitEvent {
    /// The provider answered, whatever the answer says.
    Answered,
    /// No answer, or a request to wait.
    Unreachable {
        /// The requested wait; zero if none was requested.
        wait: Duration,
    },
    /// The provider answered, and the filter that read the answer had to be stopped.
    FilterStopped,
}

/// The state of the circuit breaker.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    opens_after: u32,
    pause: Duration,
    /// Questions in a row without an answer.
    failures: u32,
    /// Filter runs that were stopped since a probe last closed the circuit.
    filter_stops: u32,
    /// It was opened because of stopped filters. Only a probe closes it then.
    is_open_for_filters: bool,
    /// When the pause ends. `None`: the circuit is closed.
    pub(super) open_until: Option<Instant>,
    /// A probe is in flight.
    is_probing: bool,
    /// When a question was last answered.
    pub(super) answered_at: Option<Instant>,
}

impl CircuitBreaker {
    pub(super) const fn new(opens_after: u32, pause: Duration) -> Self {
        Self {
            opens_after,
            pause,
            failures: 0,
            filter_stops: 0,
            is_open_for_filters: false,
            open_until: None,
            is_probing: false,
            answered_at: None,
        }
    }

    /// Returns how long to wait before asking again if a question would be rejected now.
    pub(super) fn retry_delay(&self, urgent: bool, now: Instant) -> Option<Duration> {
        if urgent {
            return None;
        }
        let left = self.open_until?.saturating_duration_since(now);
        match (left.is_zero(), self.is_probing) {
            (false, _) => Some(left),
            // A probe is in flight, and how long it will take is unknown.
            (true, true) => Some(self.pause.min(Duration::from_secs(1))),
            (true, false) => None,
        }
    }

    /// Admits a question and returns whether it is the probe. The error is the time to wait before
    /// asking again.
    pub(super) fn admit(&mut self, urgent: bool, now: Instant) -> Result<bool, Duration> {
        if let Some(retry_in) = self.retry_delay(urgent, now) {
            return Err(retry_in);
        }
        let is_probe = self.open_until.is_some_and(|until| now >= until) && !self.is_probing;
        self.is_probing |= is_probe;
        Ok(is_probe)
    }

    /// Records that the probe was cancelled: another one may be admitted.
    pub(super) const fn cancel_probe(&mut self) {
        self.is_probing = false;
    }

    /// Records the outcome of a question. `is_probe`: as [`CircuitBreaker::admit`] returned it.
    pub(super) fn record(&mut self, is_probe: bool, event: CircuitEvent, now: Instant) {
        if is_probe {
            self.is_probing = false;
        }
        match event {
            CircuitEvent::Answered => {
                self.failures = 0;
                self.answered_at = Some(now);
                if is_probe || !self.is_open_for_filters {
                    self.open_until = None;
                }
                if is_probe {
                    (self.filter_stops, self.is_open_for_filters) = (0, false);
                }
            }
            CircuitEvent::FilterStopped => {
                self.failures = 0;
                self.answered_at = Some(now);
                self.filter_stops = self.filter_stops.saturating_add(1);
                let is_due = match self.open_until {
                    None => self.filter_stops >= self.opens_after,
                    Some(until) => is_probe || now >= until,
                };
                if is_due {
                    (self.open_until, self.is_open_for_filters) = (Some(now + self.pause), true);
                }
            }
            CircuitEvent::Unreachable { wait } => {
                self.failures = self.failures.saturating_add(1);
                let until = now + self.pause.max(wait.min(PAUSE_MAX));
                // A question that was in flight when the circuit opened, or an urgent one, does not
                // extend the pause. A failed probe does, and so does a requested wait.
                if is_probe || (self.open_until.is_none() && self.failures >= self.opens_after) {
                    self.open_until = Some(until);
                } else if self.open_until.is_some() && !wait.is_zero() {
                    self.open_until = self.open_until.max(Some(until));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);
    const UNREACHABLE: CircuitEvent = CircuitEvent::Unreachable { wait: Duration::ZERO };

    #[test]
    fn the_circuit_opens_after_five_failures_in_a_row_and_closes_after_a_successful_probe() {
        let start = Instant::now();
        let mut circuit = CircuitBreaker::new(5, PAUSE);
        for _ in 0..4 {
            circuit.record(false, UNREACHABLE, start);
        }
        circuit.record(false, CircuitEvent::Answered, start);
        for _ in 0..4 {
            circuit.record(false, UNREACHABLE, start);
        }
        assert_eq!(circuit.admit(false, start), Ok(false), "an answer resets the count of failures");
        circuit.record(false, UNREACHABLE, start);
        assert_eq!(circuit.admit(false, start + PAUSE / 3), Err(PAUSE / 3 * 2));
        assert_eq!(circuit.admit(true, start), Ok(false), "urgent questions are always admitted");

        let later = start + PAUSE;
        assert_eq!(circuit.admit(false, later), Ok(true), "the probe");
        assert!(circuit.admit(false, later).is_err(), "one probe at a time");
        circuit.record(true, UNREACHABLE, later);
        assert_eq!(circuit.admit(false, later), Err(PAUSE), "a failed probe opens it again");
        assert_eq!(circuit.admit(false, later + PAUSE), Ok(true));
        circuit.record(true, CircuitEvent::Answered, later + PAUSE);
        assert_eq!(circuit.admit(false, later + PAUSE), Ok(false));
    }

    #[test]
    fn repeated_retry_after_keeps_the_circuit_open_for_that_long_up_to_a_maximum() {
        let start = Instant::now();
        let retry_after = |secs| CircuitEvent::Unreachable { wait: Duration::from_secs(secs) };
        let mut circuit = CircuitBreaker::new(2, PAUSE);
        circuit.record(false, retry_after(600), start);
        assert_eq!(circuit.admit(false, start), Ok(false), "a single one may concern one job only");
        circuit.record(false, retry_after(60), start);
        assert_eq!(circuit.admit(false, start), Err(Duration::from_mins(1)));
        assert_eq!(circuit.admit(true, start), Ok(false), "urgent questions are always admitted");
        // Questions that were in flight: a longer wait extends the pause, a shorter one changes
        // nothing.
        circuit.record(false, retry_after(90), start);
        circuit.record(false, retry_after(10), start);
        circuit.record(false, UNREACHABLE, start);
        assert_eq!(circuit.admit(false, start), Err(Duration::from_secs(90)));
        circuit.record(false, retry_after(365 * 24 * 3600), start);
        assert_eq!(circuit.admit(false, start), Err(PAUSE_MAX), "the wait is capped");
        assert_eq!(circuit.admit(false, start + PAUSE_MAX), Ok(true), "then one probe is admitted");
        circuit.record(true, retry_after(120), start);
        assert_eq!(circuit.admit(false, start), Err(Duration::from_mins(2)));
        circuit.record(false, CircuitEvent::Answered, start);
        assert_eq!(circuit.admit(false, start), Ok(false));
    }

    #[test]
    fn the_circuit_opens_after_five_stopped_filters_and_only_a_probe_closes_it() {
        let start = Instant::now();
        let mut circuit = CircuitBreaker::new(5, PAUSE);
        for _ in 0..4 {
            circuit.record(false, CircuitEvent::FilterStopped, start);
            circuit.record(false, CircuitEvent::Answered, start);
        }
        assert_eq!(circuit.admit(false, start), Ok(false), "four are not enough");
        circuit.record(false, CircuitEvent::FilterStopped, start);
        assert_eq!(circuit.admit(false, start), Err(PAUSE), "answers in between do not reset this count");
        circuit.record(false, CircuitEvent::Answered, start);
        assert_eq!(
            circuit.admit(false, start),
            Err(PAUSE),
            "neither do answers to questions that were in flight"
        );

        let later = start + PAUSE;
        assert_eq!(circuit.admit(false, later), Ok(true), "the probe");
        circuit.record(true, CircuitEvent::FilterStopped, later);
        assert_eq!(circuit.admit(false, later), Err(PAUSE), "stopped again");
        let later = later + PAUSE;
        circuit.record(false, CircuitEvent::FilterStopped, later);
        assert_eq!(
            circuit.admit(false, later),
            Err(PAUSE),
            "also when it happens before the request is sent"
        );
        let later = later + PAUSE;
        assert_eq!(circuit.admit(false, later), Ok(true));
        circuit.record(true, CircuitEvent::Answered, later);
        assert_eq!(circuit.admit(false, later), Ok(false), "a successful probe closes it");
        circuit.record(false, CircuitEvent::FilterStopped, later);
        assert_eq!(circuit.admit(false, later), Ok(false), "the count was reset");
    }
}
