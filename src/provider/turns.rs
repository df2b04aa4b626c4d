//! How many requests to one provider are under way at once, and how many begin in a second.
//!
//! Both limits can change while requests are under way, because processes share a provider's limits
//! (`shares`). A lower limit takes effect as requests end: none is broken off. [`Turns::held`]
//! counts them until then. A share is leased: once the lease has ended, no request begins until it
//! is renewed, as other processes may have taken the share meanwhile. Nothing here is stored; a
//! crash ends all requests with the process.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// The places for requests of one provider.
#[derive(Debug)]
pub(super) struct Turns {
    permits: Semaphore,
    slots: Mutex<Slots>,
    rate: Mutex<Rate>,
    /// Until when requests may begin. None: always, as nothing is shared.
    leased_until: watch::Sender<Option<Instant>>,
    /// Whether other processes have held all slots for too long to wait for one.
    left_to_others: watch::Sender<bool>,
    /// What applies where nothing is shared.
    max_concurrency: usize,
}

#[derive(Debug)]
struct Slots {
    limit: usize,
    /// Requests under way beyond the limit, since it was lowered.
    excess: usize,
}

#[derive(Debug)]
struct Rate {
    per_second: Option<f64>,
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
}

/// A request's place among those under way, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    /// None: never, as the semaphore is never closed.
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        // The permit goes back under the lock. Otherwise a limit lowered at the same moment could
        // miss it.
        let mut slots = self.turns.slots();
        if slots.excess > 0 {
            slots.excess -= 1;
            permit.forget();
        } else {
            drop(permit);
        }
    }
}

impl Turns {
    pub(super) fn new(max_concurrency: usize, per_second: Option<f64>) -> Self {
        Self {
            permits: Semaphore::new(max_concurrency),
            slots: Mutex::new(Slots { limit: max_concurrency, excess: 0 }),
            rate: Mutex::new(Rate {
                per_second,
                limiter: per_second.and_then(quota).map(RateLimiter::direct).map(Arc::new),
            }),
            leased_until: watch::Sender::new(None),
            left_to_others: watch::Sender::new(false),
            max_concurrency,
        }
    }

    /// Waits for a place, and then until the rate allows another request.
    pub(super) async fn take(&self) -> Turn<'_> {
        self.start(self.place().await).await
    }

    /// Waits for a place alone.
    pub(super) async fn place(&self) -> Turn<'_> {
        Turn { turns: self, permit: self.permits.acquire().await.ok() }
    }

    /// Waits until the rate allows another request. Where the lease has ended by then, the place is
    /// given up and waited for again: after a renewal there may be fewer places.
    pub(super) async fn start<'a>(&'a self, mut turn: Turn<'a>) -> Turn<'a> {
        loop {
            self.at_rate().await;
            if is_over(*self.leased_until.borrow()) {
                drop(turn);
                let mut lease = self.leased_until.subscribe();
                // An error would mean that the sender is gone, and `self` holds it.
                let _ = lease.wait_for(|until| !is_over(*until)).await;
                turn = self.place().await;
            } else {
                return turn;
            }
        }
    }

    async fn at_rate(&self) {
        let current = || self.rate().limiter.clone();
        let mut limiter = current();
        while let Some(waited_for) = limiter {
            waited_for.until_ready().await;
            limiter = current().filter(|now| !Arc::ptr_eq(now, &waited_for));
        }
    }

    /// Lowers the limits to these, where they are higher. Returns how many requests may be under
    /// way until those beyond the new limit have ended.
    pub(super) fn lower(&self, slots: usize, per_second: Option<f64>) -> usize {
        let mut now = self.slots();
        if slots < now.limit {
            self.set_slots(&mut now, slots);
        }
        drop(now);
        let is_lower = match (per_second, self.rate().per_second) {
            (Some(wanted), Some(per_second)) => wanted < per_second,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_lower {
            self.set_rate(per_second);
        }
        self.held()
    }

    /// Sets the limits.
    pub(super) fn set(&self, slots: usize, per_second: Option<f64>) {
        self.set_slots(&mut self.slots(), slots);
        self.set_rate(per_second);
        if slots > 0 {
            self.left_to_others.send_replace(false);
        }
    }

    /// Ends the wait of all requests, until there is a slot again.
    pub(super) fn leave_to_others(&self) {
        self.left_to_others.send_replace(true);
    }

    /// Whether no request waits for a slot now, because other processes hold all of them.
    pub(super) fn is_left_to_others(&self) -> bool {
        *self.left_to_others.borrow()
    }

    /// Returns once the requests are left to other processes.
    pub(super) async fn until_left_to_others(&self) {
        let mut left = self.left_to_others.subscribe();
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = left.wait_for(|left| *left).await;
    }

    /// Lets requests begin until then and no longer.
    pub(super) fn lease(&self, until: Instant) {
        self.leased_until.send_replace(Some(until));
    }

    /// For how long requests may still begin; none where nothing is leased.
    pub(super) fn leased_for(&self) -> Option<Duration> {
        let until = *self.leased_until.borrow();
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Back to all places without a lease. The rate stays: its burst may be used up.
    pub(super) fn unshare(&self) {
        self.set_slots(&mut self.slots(), self.max_concurrency);
        self.leased_until.send_replace(None);
        self.left_to_others.send_replace(false);
    }

    /// How many requests may be under way, but for those that a higher limit allowed.
    pub(super) fn limit(&self) -> usize {
        self.slots().limit
    }

    /// How many requests may be under way: the limit, and those beyond it that have not ended yet.
    pub(super) fn held(&self) -> usize {
        let slots = self.slots();
        slots.limit + slots.excess
    }

    fn set_slots(&self, slots: &mut Slots, limit: usize) {
        if limit > slots.limit {
            let more = limit - slots.limit;
            let under_way = more.min(slots.excess);
            slots.excess -= under_way;
            self.permits.add_permits(more - under_way);
        } else {
            let fewer = slots.limit - limit;
            slots.excess += fewer - self.permits.forget_permits(fewer);
        }
        slots.limit = limit;
    }

    fn set_rate(&self, per_second: Option<f64>) {
        let mut rate = self.rate();
        if rate.per_second == per_second {
            return;
        }
        rate.per_second = per_second;
        // It begins without a burst. Otherwise each change of the share would grant another one.
        rate.limiter = per_second.and_then(quota).map(|quota| {
            let limiter = RateLimiter::direct(quota);
            // A burst always fits into its own quota.
            let _ = limiter.check_n(quota.burst_size());
            Arc::new(limiter)
        });
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_over(leased_until: Option<Instant>) -> bool {
    leased_until.is_some_and(|until| Instant::now() >= until)
}

/// Requests per second as a quota: whole numbers may come in a burst of a second's worth.
fn quota(per_second: f64) -> Option<Quota> {
    let period = Duration::try_from_secs_f64(1.0 / per_second).ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the file's check bounds it")]
    let burst = NonZeroU32::new(per_second as u32).unwrap_or(NonZeroU32::MIN);
    Some(Quota::with_period(period)?.allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    /// Takes as many turns as there are.
    fn all(turns: &Turns) -> Vec<Turn<'_>> {
        std::iter::from_fn(|| turns.take().now_or_never()).collect()
    }

    #[test]
    fn a_rate_below_one_a_second_is_possible() {
        assert_eq!(quota(0.2).unwrap().replenish_interval(), Duration::from_secs(5));
        assert_eq!(quota(40.0).unwrap().burst_size().get(), 40);
    }

    #[test]
    fn a_lower_limit_counts_what_is_under_way_until_it_has_ended() {
        let turns = Turns::new(8, None);
        let mut under_way = all(&turns);
        assert_eq!(under_way.len(), 8);
        assert_eq!(turns.lower(3, None), 8, "all of them are under way");
        for held in (3..8).rev() {
            under_way.pop();
            assert_eq!(turns.held(), held);
            assert!(turns.take().now_or_never().is_none(), "{held} are under way, and 3 may be");
        }
        under_way.pop();
        assert_eq!(all(&turns).len(), 1);
        assert_eq!(turns.lower(5, None), 3, "it only lowers");
    }

    #[test]
    fn a_higher_limit_first_covers_what_is_under_way_beyond_the_old_one() {
        let turns = Turns::new(8, None);
        let under_way = all(&turns);
        turns.lower(2, None);
        turns.set(6, None);
        assert_eq!(turns.held(), 8);
        assert!(turns.take().now_or_never().is_none());
        turns.set(10, None);
        assert_eq!(all(&turns).len(), 2);
        drop(under_way);
        assert_eq!((all(&turns).len(), turns.held()), (10, 10));
        turns.set(0, None);
        assert_eq!((all(&turns).len(), turns.held()), (0, 0));
        turns.unshare();
        assert_eq!(all(&turns).len(), 8);
    }

    #[test]
    fn who_waits_gets_a_place_when_the_limit_rises_and_none_before() {
        let turns = Turns::new(4, None);
        turns.set(0, None);
        let mut waiting = Box::pin(turns.take());
        assert!(waiting.as_mut().now_or_never().is_none());
        turns.set(1, None);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn after_the_end_of_the_lease_no_request_begins_until_it_is_renewed() {
        let turns = Turns::new(4, None);
        turns.lease(Instant::now() + LONG);
        assert!(turns.take().now_or_never().is_some());
        turns.lease(Instant::now());
        let mut waiting = Box::pin(turns.take());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(turns.permits.available_permits(), 4, "it holds no place meanwhile");
        turns.set(0, None);
        turns.lease(Instant::now() + LONG);
        assert!(waiting.as_mut().now_or_never().is_none(), "the place went to another process");
        turns.set(1, None);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn who_waits_learns_that_the_provider_is_left_to_others_until_there_is_a_slot_again() {
        let turns = Turns::new(4, None);
        turns.set(0, None);
        assert!(turns.until_left_to_others().now_or_never().is_none());
        turns.leave_to_others();
        assert!(turns.is_left_to_others() && turns.until_left_to_others().now_or_never().is_some());
        turns.set(0, None);
        assert!(turns.is_left_to_others());
        turns.set(1, None);
        assert!(!turns.is_left_to_others() && turns.until_left_to_others().now_or_never().is_none());
        turns.leave_to_others();
        turns.unshare();
        assert!(!turns.is_left_to_others());
    }

    #[test]
    fn a_changed_rate_begins_without_a_burst_and_an_unchanged_one_goes_on() {
        let turns = Turns::new(100, Some(20.0));
        turns.set(100, Some(20.0));
        assert_eq!(turns.lower(100, Some(30.0)), 100, "30 a second is no lower limit");
        // A fast machine refills none meanwhile, a slow one a few.
        assert!(all(&turns).len() >= 20);
        let slow = Some(0.001);
        turns.lower(100, slow);
        assert_eq!(all(&turns).len(), 0);
        turns.set(100, None);
        assert_eq!(all(&turns).len(), 100);
    }

    #[test]
    fn who_waits_for_the_rate_waits_for_the_new_one_after_a_change() {
        let turns = Turns::new(4, Some(0.001));
        drop(turns.take().now_or_never());
        let mut waiting = Box::pin(turns.take());
        assert!(waiting.as_mut().now_or_never().is_none());
        turns.set(4, Some(0.002));
        assert!(turns.take().now_or_never().is_none());
    }
}
