//! Admission control for one provider: whether a question may be asked now, and when.
//!
//! A question needs three things: a closed circuit (`circuit`), a free slot, and the rate limit
//! (`limiter`). While the circuit is open, questions are rejected; those that already wait for a
//! slot are rejected when they get it. A rejected question costs its orphan no attempt and no
//! worker. Every provider has its own instance, so a provider that hangs never delays another one.
//!
//! Concurrency and rate hold for all processes together (`shares`). If the process crashes, only
//! the state of the circuit survives, in the database. The next process then starts with one probe
//! instead of with `circuit_opens_after` questions to a provider that is down.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::circuit::{CircuitBreaker, CircuitEvent, PAUSE_MAX};
use super::limiter::{RequestLimiter, RequestPermit};

/// The limits of one provider, from its provider file.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderLimits {
    /// The most requests in flight at once.
    pub max_concurrency: usize,
    /// The most requests started per second; `None`: unlimited.
    pub requests_per_second: Option<f64>,
    /// How often a request without an answer is sent again.
    pub retries: u32,
    /// How many questions in a row without an answer open the circuit.
    pub circuit_opens_after: u32,
    /// How long the circuit stays open before a probe.
    pub circuit_pause: Duration,
}

impl Default for ProviderLimits {
    fn default() -> Self {
        Self {
            max_concurrency: 16,
            requests_per_second: None,
            retries: 2,
            circuit_opens_after: 5,
            circuit_pause: Duration::from_secs(30),
        }
    }
}

/// The state of the limits at run time.
#[derive(Debug)]
pub(super) struct AdmissionControl {
    /// Concurrency and rate: the full limits, or this process's share of them.
    pub(super) limiter: RequestLimiter,
    circuit: Mutex<CircuitBreaker>,
    /// Notified when the circuit opens or closes.
    circuit_changed: Notify,
    /// Locked while the share is changed in the database.
    pub(super) share_lock: tokio::sync::Mutex<()>,
    /// How many lanes of this process use the share.
    pub(super) share_users: Mutex<usize>,
}

impl AdmissionControl {
    pub(super) fn new(limits: &ProviderLimits) -> Self {
        Self {
            limiter: RequestLimiter::new(limits.max_concurrency, limits.requests_per_second),
            circuit: Mutex::new(CircuitBreaker::new(limits.circuit_opens_after, limits.circuit_pause)),
            circuit_changed: Notify::new(),
            share_lock: tokio::sync::Mutex::default(),
            share_users: Mutex::default(),
        }
    }

    /// Waits for a slot and for the rate limit, then admits the question. Rejects it if the circuit
    /// is open; the error is the time to wait before asking again.
    pub(super) async fn admit(&self, urgent: bool) -> Result<(Admission<'_>, RequestPermit<'_>), Duration> {
        self.check(urgent)?;
        let permit = self.limiter.acquire_slot().await;
        // Earlier questions may have opened the circuit during the wait.
        let is_probe = self.circuit().admit(urgent, Instant::now())?;
        let admission = Admission { control: self, is_probe, is_recorded: false };
        Ok((admission, self.limiter.wait_for_rate(permit).await))
    }

    /// Checks whether the circuit would admit a question now. The error is the time to wait before
    /// asking again.
    pub(super) fn check(&self, urgent: bool) -> Result<(), Duration> {
        self.circuit().retry_delay(urgent, Instant::now()).map_or(Ok(()), Err)
    }

    /// Records that a filter had to be stopped before the question could be asked.
    pub(super) fn record_stopped_filter(&self) {
        self.record(false, CircuitEvent::FilterStopped);
    }

    fn record(&self, is_probe: bool, event: CircuitEvent) {
        let has_changed = {
            let mut circuit = self.circuit();
            let before = circuit.open_until;
            circuit.record(is_probe, event, Instant::now());
            before != circuit.open_until
        };
        if has_changed {
            self.circuit_changed.notify_one();
        }
    }

    /// Waits for the permit of a further request of a question that was admitted.
    pub(super) async fn permit(&self) -> RequestPermit<'_> {
        self.limiter.acquire().await
    }

    /// Whether the circuit is open: questions that are not urgent are rejected.
    pub(super) fn is_circuit_open(&self) -> bool {
        self.circuit().open_until.is_some()
    }

    /// How long the circuit stays open. Zero: until a probe is answered. `None`: it is closed.
    pub(super) fn circuit_left(&self) -> Option<Duration> {
        let until = self.circuit().open_until;
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// How long ago a question was last answered; `None` if none was yet.
    pub(super) fn answered_ago(&self) -> Option<Duration> {
        self.circuit().answered_at.map(|at| at.elapsed())
    }

    /// Returns once the circuit has opened or closed since the last call.
    pub(super) async fn circuit_changed(&self) {
        self.circuit_changed.notified().await;
    }

    /// Opens the circuit for this long, as another process recorded it.
    pub(super) fn open_circuit(&self, left: Duration) {
        self.circuit().open_until = Some(Instant::now() + left.min(PAUSE_MAX));
    }

    fn circuit(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that the circuit breaker has admitted. If it is dropped without an outcome (the
/// question was cancelled), the circuit stays as it was and another probe may follow.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    control: &'a AdmissionControl,
    is_probe: bool,
    is_recorded: bool,
}

impl Admission<'_> {
    /// Records the outcome of the question. `None`: no request was sent.
    pub(super) fn record(mut self, event: Option<CircuitEvent>) {
        if let Some(event) = event {
            self.is_recorded = true;
            self.control.record(self.is_probe, event);
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.is_recorded {
            self.control.circuit().cancel_probe();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);
    const UNREACHABLE: CircuitEvent = CircuitEvent::Unreachable { wait: Duration::ZERO };

    #[tokio::test]
    async fn a_probe_that_is_cancelled_permits_another_probe() {
        let limits = ProviderLimits {
            circuit_opens_after: 1,
            circuit_pause: Duration::ZERO,
            ..ProviderLimits::default()
        };
        let control = AdmissionControl::new(&limits);
        control.admit(false).await.unwrap().0.record(Some(UNREACHABLE));
        assert!(control.is_circuit_open());
        let probe = control.admit(false).await.unwrap();
        assert!(control.admit(false).await.is_err());
        drop(probe);
        control.admit(false).await.unwrap().0.record(None);
        control.admit(false).await.unwrap().0.record(Some(CircuitEvent::Answered));
        assert!(!control.is_circuit_open());
    }

    #[tokio::test]
    async fn questions_that_wait_for_a_slot_are_rejected_when_the_circuit_opens() {
        let limits =
            ProviderLimits { max_concurrency: 1, circuit_opens_after: 1, ..ProviderLimits::default() };
        let control = AdmissionControl::new(&limits);
        let (admission, permit) = control.admit(false).await.unwrap();
        let waiting = futures_util::future::join_all((0..100).map(|_| control.admit(false)));
        let finding = async {
            admission.record(Some(UNREACHABLE));
            drop(permit);
        };
        let (waited, ()) = futures_util::future::join(waiting, finding).await;
        assert!(waited.iter().all(|begun| matches!(begun, Err(retry_in) if *retry_in > PAUSE / 2)));
    }
}
