//! The state of a provider as this process last observed it: the last answer, and the circuit.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::evidence::{Evidence, Verdict};

/// The state of a provider as one process last observed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedState {
    /// How long ago the last question ended.
    pub asked_ago: Duration,
    /// What the provider said about that job, or why it could not be told.
    pub verdict: Verdict,
    /// The provider's message, with secrets removed.
    pub message: Option<String>,
    /// How long the circuit stays open. Zero: the next question is a probe. `None`: it is closed.
    pub circuit_open_for: Option<Duration>,
}

/// The outcome of the last question: when it ended, the verdict, and the message.
#[derive(Debug, Default)]
pub(super) struct LastAnswer(Mutex<Option<(Instant, Verdict, Option<String>)>>);

impl LastAnswer {
    pub(super) fn record(&self, evidence: &Evidence) {
        let last = (Instant::now(), evidence.verdict, evidence.message.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    pub(super) fn state(&self, circuit_open_for: Option<Duration>) -> Option<ObservedState> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(at, verdict, message)| ObservedState {
            asked_ago: at.elapsed(),
            verdict: *verdict,
            message: message.clone(),
            circuit_open_for,
        })
    }
}
