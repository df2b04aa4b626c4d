//! The state of the daemon's loop: its phase, the last pass, and skipped firings.
//!
//! The loop writes it and the status pages read it. A running pass calls
//! [`Heartbeat::record_progress`], which distinguishes a long pass from a stuck one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassEnd {
    /// It finished, or stopped after a stop request.
    Done,
    /// It failed. The next pass tries again.
    Failed,
}

/// The phase of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the first wait.
    Starting,
    /// Waiting for the next firing.
    Waiting {
        /// The time of the firing.
        until: Timestamp,
    },
    /// A pass is running.
    Running {
        /// When it started.
        since: Timestamp,
        /// When it last reported progress.
        last_progress: Timestamp,
    },
    /// The loop has ended.
    Stopped,
}

/// A pass that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedPass {
    /// When it ended.
    pub ended_at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub end: PassEnd,
}

/// The state of the loop at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopStatus {
    /// The phase.
    pub phase: Phase,
    /// The last pass that has ended, if any.
    pub last: Option<CompletedPass>,
    /// Passes since the start.
    pub passes: u64,
    /// Consecutive failed passes.
    pub failed_in_a_row: u64,
    /// Firings that were skipped because a pass was still running.
    pub skipped: u64,
}

/// Shared by the loop, the pass and the status pages.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<LoopStatus>>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

impl Heartbeat {
    /// The state before the loop starts.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(LoopStatus {
            phase: Phase::Starting,
            last: None,
            passes: 0,
            failed_in_a_row: 0,
            skipped: 0,
        })))
    }

    /// The state now.
    pub fn status(&self) -> LoopStatus {
        *self.lock()
    }

    /// Records that the running pass made progress.
    pub fn record_progress(&self, now: Timestamp) {
        if let Phase::Running { last_progress, .. } = &mut self.lock().phase {
            *last_progress = now;
        }
    }

    pub(super) fn waiting(&self, until: Timestamp) {
        self.lock().phase = Phase::Waiting { until };
    }

    pub(super) fn running(&self, now: Timestamp) {
        self.lock().phase = Phase::Running { since: now, last_progress: now };
    }

    pub(super) fn ended(&self, last: CompletedPass) {
        let mut status = self.lock();
        status.last = Some(last);
        status.passes += 1;
        status.failed_in_a_row = match last.end {
            PassEnd::Done => 0,
            PassEnd::Failed => status.failed_in_a_row + 1,
        };
    }

    pub(super) fn skipped(&self, count: u64) {
        self.lock().skipped += count;
    }

    pub(super) fn stopped(&self) {
        self.lock().phase = Phase::Stopped;
    }

    fn lock(&self) -> MutexGuard<'_, LoopStatus> {
        // No code panics while the value is half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LoopStatus {
    /// Since when nothing has moved that should have, if that is longer than `patience` ago.
    pub fn stuck_since(&self, now: Timestamp, patience: Duration) -> Option<Timestamp> {
        let expected = match self.phase {
            Phase::Starting | Phase::Stopped => return None,
            Phase::Waiting { until } => until,
            Phase::Running { last_progress, .. } => last_progress,
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
    fn the_loop_is_stuck_without_a_wake_up_or_progress_for_the_timeout() {
        let patience = Duration::from_mins(1);
        let heartbeat = Heartbeat::new();
        let stuck = |now| heartbeat.status().stuck_since(at(now), patience);
        assert_eq!(stuck(10_000), None);
        heartbeat.waiting(at(100));
        assert_eq!((stuck(50), stuck(160), stuck(161)), (None, None, Some(at(100))));
        heartbeat.running(at(100));
        assert_eq!((stuck(160), stuck(161)), (None, Some(at(100))));
        heartbeat.record_progress(at(150));
        assert_eq!((stuck(210), stuck(211)), (None, Some(at(150))));
        heartbeat.stopped();
        assert_eq!(stuck(10_000), None);
    }
}
