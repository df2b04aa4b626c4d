//! Waking up at an instant, through tokio-cron-scheduler.
//!
//! The scheduler is only ever given one-shot jobs: its own cron jobs know no changes of clocks, overlap, and
//! are not waited for. It keeps whole seconds and looks every half second, so a firing comes up to a second
//! late and never early.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::clock::{Clock, Timestamp};

/// Something that can be waited for at an instant.
pub trait Alarm: Send {
    /// Returns at `at`, or at once if that has passed.
    fn wait_until(&mut self, at: Timestamp) -> impl Future<Output = Result<(), AlarmError>> + Send;
}

/// The scheduler did not take what it was given.
#[derive(Debug, thiserror::Error)]
pub enum AlarmError {
    /// It did not start.
    #[error("could not start the scheduler")]
    Start(#[source] JobSchedulerError),
    /// It did not take the job.
    #[error("could not schedule the pass at {at}")]
    Arm {
        /// When it was to run.
        at: Timestamp,
        /// Why not.
        #[source]
        source: JobSchedulerError,
    },
}

/// The scheduler of this process.
pub struct SchedulerAlarm {
    scheduler: JobScheduler,
    clock: Clock,
}

impl std::fmt::Debug for SchedulerAlarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerAlarm").finish_non_exhaustive()
    }
}

/// A scheduler that is this late has lost the job; then we wake up by ourselves.
const LATE: Duration = Duration::from_secs(5);

impl SchedulerAlarm {
    /// Starts a scheduler.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start() -> Result<Self, AlarmError> {
        let scheduler = JobScheduler::new().await.map_err(AlarmError::Start)?;
        scheduler.start().await.map_err(AlarmError::Start)?;
        Ok(Self { scheduler, clock: Clock::System })
    }

    /// Ends the scheduler. No job of it is running: [`Alarm::wait_until`] only wakes its caller.
    pub async fn end(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "could not end the scheduler");
        }
    }
}

impl Alarm for SchedulerAlarm {
    async fn wait_until(&mut self, at: Timestamp) -> Result<(), AlarmError> {
        let now = self.clock.now();
        if now >= at {
            return Ok(());
        }
        // Counted between whole seconds, as the scheduler does: cutting the span alone would fire early.
        let seconds = at.to_chrono().timestamp() - now.to_chrono().timestamp();
        let delay = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let arm = |source| AlarmError::Arm { at, source };
        let (fire, fired) = oneshot::channel();
        // The scheduler may call a job again before it has noted that it ran; only the first call counts.
        let fire = Arc::new(Mutex::new(Some(fire)));
        let job = Job::new_one_shot_async(delay, move |_, _| {
            let fire = fire.lock().unwrap_or_else(PoisonError::into_inner).take();
            Box::pin(async move {
                if let Some(fire) = fire {
                    // Nobody listens any more: the daemon is being stopped.
                    let _ = fire.send(());
                }
            })
        })
        .map_err(arm)?;
        self.scheduler.add(job).await.map_err(arm)?;
        tokio::select! {
            result = fired => {
                if result.is_err() {
                    tracing::warn!(%at, "the scheduler dropped the job");
                    tokio::time::sleep(at.since(self.clock.now())).await;
                }
            }
            () = tokio::time::sleep(delay + LATE) => {
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
    async fn the_scheduler_wakes_us_again_and_again_and_never_early() {
        let mut alarm = SchedulerAlarm::start().await.unwrap();
        let clock = Clock::System;
        for _ in 0..2 {
            let whole = clock.now().to_chrono().timestamp() + 1;
            let at = Timestamp::from_micros(whole * 1_000_000);
            alarm.wait_until(at).await.unwrap();
            assert!(clock.now() >= at, "woken up before {at}");
        }
        alarm.wait_until(Timestamp::from_micros(0)).await.unwrap();
        // A daemon arms a job a minute for months: what has fired must not pile up.
        let context = alarm.scheduler.context();
        while !context.metadata_storage.write().await.list_next_ticks().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        alarm.end().await;
    }
}
