//! How a provider stands, as this process found it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::evidence::{Evidence, Verdict};

/// How a provider stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How long ago the last question ended.
    pub asked_ago: Duration,
    /// What it said of the job, or why that could not be told.
    pub verdict: Verdict,
    /// In its own words, without secrets.
    pub message: Option<String>,
    /// How long it is left alone from now on; zero: one question tries it. None: it is asked as usual.
    pub circuit_open_for: Option<Duration>,
}

/// The last question that was asked.
#[derive(Debug, Default)]
pub(super) struct LastAnswer(Mutex<Option<(Instant, Verdict, Option<String>)>>);

impl LastAnswer {
    pub(super) fn note(&self, evidence: &Evidence) {
        let last = (Instant::now(), evidence.verdict, evidence.message.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    pub(super) fn state(&self, circuit_open_for: Option<Duration>) -> Option<State> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(at, verdict, message)| State {
            asked_ago: at.elapsed(),
            verdict: *verdict,
            message: message.clone(),
            circuit_open_for,
        })
    }
}
