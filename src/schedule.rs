//! When, one at a time: the daemon's loop.
//!
//! Promises: never two passes at once, in this process; a firing that comes while a pass is running is
//! skipped and counted, never queued, because the running pass finds what it would have found; changes of
//! clocks lose and double nothing. Several daemons side by side are safe, because passes are. When asked to
//! stop, no pass is begun, and the one at hand is told and waited for. A pass that panics has failed, and the
//! next one comes at its time.
//!
//! Leaves to others: what a pass does (`pass`), and who asks to stop (`ops::stop`). A crash halfway is the
//! pass's to repair.

mod alarm;
mod pulse;
mod timetable;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use crate::clock::{Clock, Timestamp};
use crate::ops::stop::Stop;
pub use alarm::{Alarm, AlarmError, SchedulerAlarm};
pub use pulse::{LastPass, PassEnd, Phase, Pulse, Vitals};
pub use timetable::{Timetable, TimetableError};

/// Skipped firings are counted one by one, but not for ever.
const MOST_SKIPPED: u64 = 100_000;

/// A clock that lies this far before the firing that has just come was set back.
const SET_BACK: Duration = Duration::from_secs(30);

/// Runs a pass at each firing, until somebody asks to stop.
///
/// # Errors
/// The alarm cannot be set. Passes that fail are no error here.
pub async fn run<A, P, F>(
    timetable: &Timetable,
    clock: &Clock,
    alarm: &mut A,
    stop: &Stop,
    pulse: &Pulse,
    mut pass: P,
) -> Result<(), AlarmError>
where
    A: Alarm,
    P: FnMut(Stop) -> F,
    F: Future<Output = PassEnd>,
{
    let mut after = clock.now();
    while let Some(at) = timetable.next_after(after) {
        pulse.waiting(at);
        tracing::debug!(%at, "waiting for the next pass");
        tokio::select! {
            // Somebody who asks to stop while a firing is due is heard first.
            biased;
            () = stop.wait() => break,
            woken = alarm.wait_until(at) => woken?,
        }
        let began = clock.now();
        pulse.running(began);
        let end = AssertUnwindSafe(pass(stop.clone())).catch_unwind().await.unwrap_or_else(|_| {
            // The panic's own message went to stderr through the panic hook.
            tracing::error!(firing = %at, "the pass panicked; the next one tries again");
            PassEnd::Failed
        });
        let now = clock.now();
        pulse.ended(LastPass { ended_at: now, took: now.since(began), end });
        after = next_from(at, now);
        let skipped = timetable.firings(at, now, MOST_SKIPPED);
        if skipped > 0 {
            pulse.skipped(skipped);
            tracing::warn!(
                skipped,
                took_seconds = now.since(began).as_secs(),
                "the pass took longer than the time between two firings; those in between are skipped"
            );
        }
        if stop.requested() {
            break;
        }
    }
    pulse.stopped();
    Ok(())
}

/// From when on to look for the next firing: never the same one again, unless the clock was set back.
fn next_from(at: Timestamp, now: Timestamp) -> Timestamp {
    if at.since(now) > SET_BACK {
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

    /// Sleeps by moving the clock.
    struct Moves(Clock);

    impl Alarm for Moves {
        async fn wait_until(&mut self, at: Timestamp) -> Result<(), AlarmError> {
            self.0.set(at.max(self.0.now()));
            Ok(())
        }
    }

    struct World {
        timetable: Timetable,
        clock: Clock,
        stop: Stop,
        pulse: Pulse,
    }

    impl World {
        fn every_minute() -> Self {
            let start = Timestamp::parse("2026-01-01T00:00:30Z").unwrap();
            Self {
                timetable: Timetable::parse("0 * * * * *", chrono_tz::UTC).unwrap(),
                clock: Clock::simulated(start),
                stop: Stop::new(),
                pulse: Pulse::new(),
            }
        }

        /// Runs `count` passes, each of which is given its number and takes as long as it says.
        async fn run(&self, count: usize, pass: impl Fn(usize) -> (Duration, PassEnd)) -> Vec<String> {
            let mut began = Vec::new();
            let mut alarm = Moves(self.clock.clone());
            run(&self.timetable, &self.clock, &mut alarm, &self.stop, &self.pulse, |stop| {
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
        // 00:02 takes until 00:04:30, so 00:03 and 00:04 are skipped. 00:06 ends at 00:07 sharp, which is one more.
        assert_eq!(began, ["00:01:00", "00:02:00", "00:05:00", "00:06:00"]);
        let vitals = world.pulse.vitals();
        assert_eq!((vitals.passes, vitals.skipped, vitals.phase), (4, 3, Phase::Stopped));
    }

    #[tokio::test]
    async fn a_pass_that_fails_or_panics_is_followed_by_the_next() {
        let world = World::every_minute();
        let failing = world.run(2, |_| (Duration::ZERO, PassEnd::Failed)).await;
        assert_eq!(failing.len(), 2);
        assert_eq!(world.pulse.vitals().failed_in_a_row, 2);

        let world = World::every_minute();
        let mut alarm = Moves(world.clock.clone());
        let mut passes = 0;
        run(&world.timetable, &world.clock, &mut alarm, &world.stop, &world.pulse, |stop| {
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
        assert_eq!((passes, world.pulse.vitals().failed_in_a_row), (2, 0));
    }

    #[tokio::test]
    async fn who_asks_to_stop_is_heard_before_a_pass_and_waits_for_the_one_at_hand() {
        let world = World::every_minute();
        world.stop.request();
        assert_eq!(world.run(9, |_| (Duration::ZERO, PassEnd::Done)).await, Vec::<String>::new());

        let world = World::every_minute();
        let finished = Arc::new(AtomicUsize::new(0));
        let running = Arc::new(AtomicUsize::new(0));
        let mut alarm = Moves(world.clock.clone());
        let ended = run(&world.timetable, &world.clock, &mut alarm, &world.stop, &world.pulse, |stop| {
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
        assert_eq!(world.pulse.vitals().phase, Phase::Stopped);
    }

    #[test]
    fn the_same_firing_never_comes_twice_unless_the_clock_was_set_back() {
        let at = |text| Timestamp::parse(text).unwrap();
        let firing = at("2026-01-01T00:01:00Z");
        assert_eq!(next_from(firing, at("2026-01-01T00:00:59.9Z")), firing);
        assert_eq!(next_from(firing, at("2026-01-01T00:01:07Z")), at("2026-01-01T00:01:07Z"));
        assert_eq!(next_from(firing, at("2025-12-31T23:00:00Z")), at("2025-12-31T23:00:00Z"));
    }
}
