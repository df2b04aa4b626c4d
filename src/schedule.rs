//! The daemon's loop: starts one pass at each firing of a cron schedule.
//!
//! Promises: passes of one process never overlap. A firing during a pass is skipped and counted,
//! not queued, because the running pass does its work. Changes to and from daylight saving time
//! neither lose nor repeat a firing. After a stop request no pass is started; the running pass sees
//! the request and is awaited. A pass that panics counts as failed, and the next one starts at its
//! time. Several daemons may run at once, because concurrent passes are safe.
//!
//! `pass` does the work, `ops::stop` requests the stop. The next pass repairs a crash.

mod cron;
mod heartbeat;
mod timer;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use crate::clock::{Clock, Timestamp};
use crate::ops::stop::Stop;
pub use cron::{CronError, CronSchedule};
pub use heartbeat::{CompletedPass, Heartbeat, LoopStatus, PassEnd, Phase};
pub use timer::{SchedulerTimer, Timer, TimerError};

/// The most skipped firings counted at once. They are counted one by one, which takes time.
const MAX_SKIPPED: u64 = 100_000;

/// If the clock is further than this before the last firing, it was set back.
const MAX_CLOCK_STEP_BACK: Duration = Duration::from_secs(30);

/// Runs a pass at each firing, until a stop is requested.
///
/// # Errors
/// The timer failed. A failed pass is not an error here.
pub async fn run<A, P, F>(
    cron: &CronSchedule,
    clock: &Clock,
    timer: &mut A,
    stop: &Stop,
    heartbeat: &Heartbeat,
    mut pass: P,
) -> Result<(), TimerError>
where
    A: Timer,
    P: FnMut(Stop) -> F,
    F: Future<Output = PassEnd>,
{
    let mut after = clock.now();
    while let Some(at) = cron.next_after(after) {
        heartbeat.waiting(at);
        tracing::debug!(%at, "waiting for the next pass");
        tokio::select! {
            // If a stop request and a firing come at the same time, the stop request wins.
            biased;
            () = stop.wait() => break,
            woken = timer.wait_until(at) => woken?,
        }
        let began = clock.now();
        heartbeat.running(began);
        let end = AssertUnwindSafe(pass(stop.clone())).catch_unwind().await.unwrap_or_else(|_| {
            // The panic hook has written the message to stderr.
            tracing::error!(firing = %at, "the pass panicked; the next pass tries again");
            PassEnd::Failed
        });
        let now = clock.now();
        heartbeat.ended(CompletedPass { ended_at: now, took: now.since(began), end });
        after = search_from(at, now);
        let skipped = cron.firings(at, now, MAX_SKIPPED);
        if skipped > 0 {
            heartbeat.skipped(skipped);
            tracing::warn!(
                skipped,
                took_seconds = now.since(began).as_secs(),
                "the pass took longer than the time between two firings; the firings in between were skipped"
            );
        }
        if stop.requested() {
            break;
        }
    }
    heartbeat.stopped();
    Ok(())
}

/// The instant after which the next firing is searched. The same firing never comes twice, unless
/// the clock was set back.
fn search_from(at: Timestamp, now: Timestamp) -> Timestamp {
    if at.since(now) > MAX_CLOCK_STEP_BACK {
        tracing::warn!(%now, firing = %at, "the clock was set back");
        return now;
    }
    at.max(now)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Waits by setting the simulated clock.
    struct Moves(Clock);

    impl Timer for Moves {
        async fn wait_until(&mut self, at: Timestamp) -> Result<(), TimerError> {
            self.0.set(at.max(self.0.now()));
            Ok(())
        }
    }

    struct World {
        timetable: CronSchedule,
        clock: Clock,
        stop: Stop,
        heartbeat: Heartbeat,
    }

    impl World {
        fn every_minute() -> Self {
            let start = Timestamp::parse("2026-01-01T00:00:30Z").unwrap();
            Self {
                timetable: CronSchedule::parse("0 * * * * *", chrono_tz::UTC).unwrap(),
                clock: Clock::simulated(start),
                stop: Stop::new(),
                heartbeat: Heartbeat::new(),
            }
        }

        /// Runs `count` passes. `pass` returns the duration and the end of each, by its number.
        async fn run(&self, count: usize, pass: impl Fn(usize) -> (Duration, PassEnd)) -> Vec<String> {
            let mut began = Vec::new();
            let mut timer = Moves(self.clock.clone());
            run(&self.timetable, &self.clock, &mut timer, &self.stop, &self.heartbeat, |stop| {
                let number = began.len();
                began.push(self.clock.now().to_chrono().format("%H:%M:%S").to_string());
                let (took, end) = pass(number);
                self.clock.set(self.clock.now() + took);
                if number + 1 == count {
                    stop.request();
                }
                async move { end }
            })
            .await
            .unwrap();
            began
        }
    }

    #[tokio::test]
    async fn a_firing_during_a_pass_is_skipped_and_counted() {
        let world = World::every_minute();
        let seconds = [10, 150, 0, 60];
        let began = world.run(4, |n| (Duration::from_secs(seconds[n]), PassEnd::Done)).await;
        // The pass of 00:02 runs until 00:04:30, so 00:03 and 00:04 are skipped. The pass of 00:06
        // ends at 00:07:00, so that firing is skipped too.
        assert_eq!(began, ["00:01:00", "00:02:00", "00:05:00", "00:06:00"]);
        let status = world.heartbeat.status();
        assert_eq!((status.passes, status.skipped, status.phase), (4, 3, Phase::Stopped));
    }

    #[tokio::test]
    async fn a_pass_that_fails_or_panics_is_followed_by_the_next() {
        let world = World::every_minute();
        let failing = world.run(2, |_| (Duration::ZERO, PassEnd::Failed)).await;
        assert_eq!(failing.len(), 2);
        assert_eq!(world.heartbeat.status().failed_in_a_row, 2);

        let world = World::every_minute();
        let mut timer = Moves(world.clock.clone());
        let mut passes = 0;
        run(&world.timetable, &world.clock, &mut timer, &world.stop, &world.heartbeat, |stop| {
            passes += 1;
            let number = passes;
            async move {
                assert!(number != 1, "the first pass panics");
                stop.request();
                PassEnd::Done
            }
        })
        .await
        .unwrap();
        assert_eq!((passes, world.heartbeat.status().failed_in_a_row), (2, 0));
    }

    #[tokio::test]
    async fn a_stop_request_prevents_the_next_pass_and_waits_for_the_running_one() {
        let world = World::every_minute();
        world.stop.request();
        assert_eq!(world.run(9, |_| (Duration::ZERO, PassEnd::Done)).await, Vec::<String>::new());

        let world = World::every_minute();
        let finished = Arc::new(AtomicUsize::new(0));
        let running = Arc::new(AtomicUsize::new(0));
        let mut timer = Moves(world.clock.clone());
        let ended = run(&world.timetable, &world.clock, &mut timer, &world.stop, &world.heartbeat, |stop| {
            let (finished, running) = (Arc::clone(&finished), Arc::clone(&running));
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two passes at once");
                let asker = stop.clone();
                tokio::spawn(async move { asker.request() });
                stop.wait().await;
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                finished.fetch_add(1, Ordering::SeqCst);
                PassEnd::Done
            }
        });
        ended.await.unwrap();
        assert_eq!(finished.load(Ordering::SeqCst), 1);
        assert_eq!(world.heartbeat.status().phase, Phase::Stopped);
    }

    #[test]
    fn the_same_firing_never_comes_twice_unless_the_clock_was_set_back() {
        let at = |text| Timestamp::parse(text).unwrap();
        let firing = at("2026-01-01T00:01:00Z");
        assert_eq!(search_from(firing, at("2026-01-01T00:00:59.9Z")), firing);
        assert_eq!(search_from(firing, at("2026-01-01T00:01:07Z")), at("2026-01-01T00:01:07Z"));
        assert_eq!(search_from(firing, at("2025-12-31T23:00:00Z")), at("2025-12-31T23:00:00Z"));
    }
}
