//! How the daemon is doing, for whoever asks: what it is at, how the last pass ended, what was skipped.
//!
//! The loop writes, the status pages read. A pass that works for long says so with [`Pulse::beat`], so that
//! working for long and being stuck can be told apart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// How one pass ended, as far as the schedule is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassEnd {
    /// It did what was due, or stopped when asked to.
    Done,
    /// It did not; the next one tries again.
    Failed,
}

/// What the daemon is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not yet at its first wait.
    Starting,
    /// Waiting for the next firing.
    Waiting {
        /// When that is.
        until: Timestamp,
    },
    /// In a pass.
    Running {
        /// Since when.
        since: Timestamp,
        /// When it last said that it gets on.
        beat: Timestamp,
    },
    /// Finished.
    Stopped,
}

/// The last pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPass {
    /// When it ended.
    pub ended_at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub end: PassEnd,
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// What the daemon is at.
    pub phase: Phase,
    /// The last pass, if there was one.
    pub last: Option<LastPass>,
    /// Passes since the start.
    pub passes: u64,
    /// Passes that failed since one last did not.
    pub failed_in_a_row: u64,
    /// Firings that were skipped because a pass was still running.
    pub skipped: u64,
}

/// Shared by the loop, the pass and the status pages.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Vitals>>);

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

impl Pulse {
    /// A daemon that has not begun.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Vitals {
            phase: Phase::Starting,
            last: None,
            passes: 0,
            failed_in_a_row: 0,
            skipped: 0,
        })))
    }

    /// How it stands.
    pub fn vitals(&self) -> Vitals {
        *self.lock()
    }

    /// A pass gets on.
    pub fn beat(&self, now: Timestamp) {
        if let Phase::Running { beat, .. } = &mut self.lock().phase {
            *beat = now;
        }
    }

    pub(super) fn waiting(&self, until: Timestamp) {
        self.lock().phase = Phase::Waiting { until };
    }

    pub(super) fn running(&self, now: Timestamp) {
        self.lock().phase = Phase::Running { since: now, beat: now };
    }

    pub(super) fn ended(&self, last: LastPass) {
        let mut vitals = self.lock();
        vitals.last = Some(last);
        vitals.passes += 1;
        vitals.failed_in_a_row = match last.end {
            PassEnd::Done => 0,
            PassEnd::Failed => vitals.failed_in_a_row + 1,
        };
    }

    pub(super) fn skipped(&self, count: u64) {
        self.lock().skipped += count;
    }

    pub(super) fn stopped(&self) {
        self.lock().phase = Phase::Stopped;
    }

    fn lock(&self) -> MutexGuard<'_, Vitals> {
        // Nothing that holds the lock can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vitals {
    /// Since when nothing has moved that should have, if that is longer than `patience` ago.
    pub fn stuck_since(&self, now: Timestamp, patience: Duration) -> Option<Timestamp> {
        let expected = match self.phase {
            Phase::Starting | Phase::Stopped => return None,
            Phase::Waiting { until } => until,
            Phase::Running { beat, .. } => beat,
        };
        (now.since(expected) > patience).then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn stuck_is_who_neither_wakes_up_nor_gets_on() {
        let patience = Duration::from_mins(1);
        let pulse = Pulse::new();
        let stuck = |now| pulse.vitals().stuck_since(at(now), patience);
        assert_eq!(stuck(10_000), None);
        pulse.waiting(at(100));
        assert_eq!((stuck(50), stuck(160), stuck(161)), (None, None, Some(at(100))));
        pulse.running(at(100));
        assert_eq!((stuck(160), stuck(161)), (None, Some(at(100))));
        pulse.beat(at(150));
        assert_eq!((stuck(210), stuck(211)), (None, Some(at(150))));
        pulse.stopped();
        assert_eq!(stuck(10_000), None);
    }
}
