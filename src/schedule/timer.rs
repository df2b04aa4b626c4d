//! Waits until an instant, with a one-shot job of tokio-cron-scheduler.
//!
//! The scheduler's own cron jobs are not used: they do not handle daylight saving time, may
//! overlap, and cannot be awaited. The scheduler works with whole seconds and checks every half
//! second, so a firing is at most about a second late and never early.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::clock::{Clock, Timestamp};

/// Waits until an instant.
pub trait Timer: Send {
    /// Returns at `at`, or at once if `at` is in the past.
    fn wait_until(&mut self, at: Timestamp) -> impl Future<Output = Result<(), TimerError>> + Send;
}

/// Why the scheduler failed.
#[derive(Debug, thiserror::Error)]
pub enum TimerError {
    /// It did not start.
    #[error("could not start the scheduler")]
    Start(#[source] JobSchedulerError),
    /// It did not accept the job.
    #[error("could not schedule the pass at {at}")]
    AddJob {
        /// The firing.
        at: Timestamp,
        /// The scheduler's reason.
        #[source]
        source: JobSchedulerError,
    },
}

/// A [`Timer`] with a scheduler of its own.
pub struct SchedulerTimer {
    scheduler: JobScheduler,
    clock: Clock,
}

impl std::fmt::Debug for SchedulerTimer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerTimer").finish_non_exhaustive()
    }
}

/// If the scheduler has not fired this long after the instant, it has lost the job, and the wait
/// ends without it.
const MAX_LATENESS: Duration = Duration::from_secs(5);

impl SchedulerTimer {
    /// Starts a scheduler.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start() -> Result<Self, TimerError> {
        let scheduler = JobScheduler::new().await.map_err(TimerError::Start)?;
        scheduler.start().await.map_err(TimerError::Start)?;
        Ok(Self { scheduler, clock: Clock::System })
    }

    /// Shuts the scheduler down. No job is running: a job only wakes the caller of
    /// [`Timer::wait_until`].
    pub async fn shut_down(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "could not shut down the scheduler");
        }
    }
}

impl Timer for SchedulerTimer {
    async fn wait_until(&mut self, at: Timestamp) -> Result<(), TimerError> {
        let now = self.clock.now();
        if now >= at {
            return Ok(());
        }
        // The difference of whole seconds, as the scheduler computes it. Truncating the duration
        // would fire early.
        let seconds = at.to_chrono().timestamp() - now.to_chrono().timestamp();
        let delay = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let failed = |source| TimerError::AddJob { at, source };
        let (fire, fired) = oneshot::channel();
        // The scheduler may call a job again before it has recorded that the job ran. Only the
        // first call has an effect.
        let fire = Arc::new(Mutex::new(Some(fire)));
        let job = Job::new_one_shot_async(delay, move |_, _| {
            let fire = fire.lock().unwrap_or_else(PoisonError::into_inner).take();
            Box::pin(async move {
                if let Some(fire) = fire {
                    // It fails if the receiver was dropped: the daemon is stopping.
                    let _ = fire.send(());
                }
            })
        })
        .map_err(failed)?;
        self.scheduler.add(job).await.map_err(failed)?;
        tokio::select! {
            result = fired => {
                if result.is_err() {
                    tracing::warn!(%at, "the scheduler dropped the job");
                    tokio::time::sleep(at.since(self.clock.now())).await;
                }
            }
            () = tokio::time::sleep(delay + MAX_LATENESS) => {
                tracing::warn!(%at, "the scheduler did not fire in time");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_timer_can_be_used_again_and_never_returns_early() {
        let mut timer = SchedulerTimer::start().await.unwrap();
        let clock = Clock::System;
        for _ in 0..2 {
            let whole = clock.now().to_chrono().timestamp() + 1;
            let at = Timestamp::from_micros(whole * 1_000_000);
            timer.wait_until(at).await.unwrap();
            assert!(clock.now() >= at, "woken up before {at}");
        }
        timer.wait_until(Timestamp::from_micros(0)).await.unwrap();
        // A daemon adds a job each minute for months: finished jobs must not accumulate.
        let context = timer.scheduler.context();
        while !context.metadata_storage.write().await.list_next_ticks().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        timer.shut_down().await;
    }
}
