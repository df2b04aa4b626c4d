//! The concurrency limit and the rate limit of one provider.
//!
//! Both limits can change while requests are in flight, because processes share a provider's limits
//! (`shares`). A lower limit never aborts a request: it takes effect as requests end, and
//! [`RequestLimiter::held`] counts the excess until then. A share is leased. After the lease has
//! expired, no request starts until the lease is renewed, because other processes may have taken
//! the share in the meantime. Nothing is stored here; if the process crashes, its requests end with
//! it.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// The limiter for the requests to one provider.
#[derive(Debug)]
pub(super) struct RequestLimiter {
    permits: Semaphore,
    slots: Mutex<Slots>,
    rate: Mutex<Rate>,
    /// When the lease on the share expires. `None`: the limits are not shared.
    leased_until: watch::Sender<Option<Instant>>,
    /// Waiting for a slot was given up, because other processes have held all of them for too long.
    has_given_up: watch::Sender<bool>,
    /// The concurrency limit while the limits are not shared.
    max_concurrency: usize,
}

#[derive(Debug)]
struct Slots {
    limit: usize,
    /// Requests in flight above the limit, since it was lowered.
    excess: usize,
}

#[derive(Debug)]
struct Rate {
    per_second: Option<f64>,
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
}

/// The permission for one request. It occupies a slot until it is dropped.
#[derive(Debug)]
pub(super) struct RequestPermit<'a> {
    limiter: &'a RequestLimiter,
    /// Always `Some`: the semaphore is never closed.
    slot: Option<SemaphorePermit<'a>>,
}

impl Drop for RequestPermit<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // Return the slot while holding the lock. Otherwise a limit that is lowered at the same
        // moment could miss it.
        let mut slots = self.limiter.slots();
        if slots.excess > 0 {
            slots.excess -= 1;
            slot.forget();
        } else {
            drop(slot);
        }
    }
}

impl RequestLimiter {
    pub(super) fn new(max_concurrency: usize, per_second: Option<f64>) -> Self {
        Self {
            permits: Semaphore::new(max_concurrency),
            slots: Mutex::new(Slots { limit: max_concurrency, excess: 0 }),
            rate: Mutex::new(Rate {
                per_second,
                limiter: per_second.and_then(quota).map(RateLimiter::direct).map(Arc::new),
            }),
            leased_until: watch::Sender::new(None),
            has_given_up: watch::Sender::new(false),
            max_concurrency,
        }
    }

    /// Waits for a slot and then for the rate limit.
    pub(super) async fn acquire(&self) -> RequestPermit<'_> {
        self.wait_for_rate(self.acquire_slot().await).await
    }

    /// Waits for a slot only.
    pub(super) async fn acquire_slot(&self) -> RequestPermit<'_> {
        RequestPermit { limiter: self, slot: self.permits.acquire().await.ok() }
    }

    /// Waits until the rate limit allows another request. If the lease has expired by then, it
    /// releases the slot and waits for the renewal and for a slot again: the renewed share may have
    /// fewer slots.
    pub(super) async fn wait_for_rate<'a>(&'a self, mut permit: RequestPermit<'a>) -> RequestPermit<'a> {
        loop {
            self.at_rate().await;
            if has_expired(*self.leased_until.borrow()) {
                drop(permit);
                let mut lease = self.leased_until.subscribe();
                // Cannot fail: `self` owns the sender.
                let _ = lease.wait_for(|until| !has_expired(*until)).await;
                permit = self.acquire_slot().await;
            } else {
                return permit;
            }
        }
    }

    /// Waits for the rate limit, and for the new one if it changes during the wait.
    async fn at_rate(&self) {
        let current = || self.rate().limiter.clone();
        let mut limiter = current();
        while let Some(waited_for) = limiter {
            waited_for.until_ready().await;
            limiter = current().filter(|now| !Arc::ptr_eq(now, &waited_for));
        }
    }

    /// Lowers the limits that are higher than these. Returns how many requests may be in flight
    /// until those above the new limit have ended.
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
            self.has_given_up.send_replace(false);
        }
    }

    /// Makes all requests stop waiting for a slot, until there is one again.
    pub(super) fn give_up(&self) {
        self.has_given_up.send_replace(true);
    }

    /// Whether waiting for a slot was given up, because other processes hold all of them.
    pub(super) fn has_given_up(&self) -> bool {
        *self.has_given_up.borrow()
    }

    /// Returns once waiting for a slot is given up.
    pub(super) async fn until_given_up(&self) {
        let mut given_up = self.has_given_up.subscribe();
        // Cannot fail: `self` owns the sender.
        let _ = given_up.wait_for(|given_up| *given_up).await;
    }

    /// Allows requests to start until then and no longer.
    pub(super) fn lease(&self, until: Instant) {
        self.leased_until.send_replace(Some(until));
    }

    /// For how long requests may still start; `None` if nothing is leased.
    pub(super) fn leased_for(&self) -> Option<Duration> {
        let until = *self.leased_until.borrow();
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Restores the full concurrency without a lease. The rate limit stays as it is, because its
    /// burst may be used up.
    pub(super) fn unshare(&self) {
        self.set_slots(&mut self.slots(), self.max_concurrency);
        self.leased_until.send_replace(None);
        self.has_given_up.send_replace(false);
    }

    /// The concurrency limit. More requests may still be in flight that an earlier limit allowed.
    pub(super) fn limit(&self) -> usize {
        self.slots().limit
    }

    /// The slots in use or available: the limit, plus the requests above it that have not ended.
    pub(super) fn held(&self) -> usize {
        let slots = self.slots();
        slots.limit + slots.excess
    }

    fn set_slots(&self, slots: &mut Slots, limit: usize) {
        if limit > slots.limit {
            let more = limit - slots.limit;
            let in_flight = more.min(slots.excess);
            slots.excess -= in_flight;
            self.permits.add_permits(more - in_flight);
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
        // Start without a burst. Otherwise each change of the share would grant another one.
        rate.limiter = per_second.and_then(quota).map(|quota| {
            let limiter = RateLimiter::direct(quota);
            // Cannot fail: the burst size always fits into its own quota.
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

fn has_expired(leased_until: Option<Instant>) -> bool {
    leased_until.is_some_and(|until| Instant::now() >= until)
}

/// Requests per second as a quota. The burst is the number of requests of one second, at least one.
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

    /// Acquires as many permits as are available.
    fn all(limiter: &RequestLimiter) -> Vec<RequestPermit<'_>> {
        std::iter::from_fn(|| limiter.acquire().now_or_never()).collect()
    }

    #[test]
    fn a_rate_below_one_a_second_is_possible() {
        assert_eq!(quota(0.2).unwrap().replenish_interval(), Duration::from_secs(5));
        assert_eq!(quota(40.0).unwrap().burst_size().get(), 40);
    }

    #[test]
    fn a_lower_limit_counts_requests_in_flight_until_they_have_ended() {
        let limiter = RequestLimiter::new(8, None);
        let mut in_flight = all(&limiter);
        assert_eq!(in_flight.len(), 8);
        assert_eq!(limiter.lower(3, None), 8, "all of them are in flight");
        for held in (3..8).rev() {
            in_flight.pop();
            assert_eq!(limiter.held(), held);
            assert!(limiter.acquire().now_or_never().is_none(), "{held} are in flight, and 3 may be");
        }
        in_flight.pop();
        assert_eq!(all(&limiter).len(), 1);
        assert_eq!(limiter.lower(5, None), 3, "it only lowers");
    }

    #[test]
    fn a_higher_limit_first_covers_the_requests_in_flight_above_the_old_one() {
        let limiter = RequestLimiter::new(8, None);
        let in_flight = all(&limiter);
        limiter.lower(2, None);
        limiter.set(6, None);
        assert_eq!(limiter.held(), 8);
        assert!(limiter.acquire().now_or_never().is_none());
        limiter.set(10, None);
        assert_eq!(all(&limiter).len(), 2);
        drop(in_flight);
        assert_eq!((all(&limiter).len(), limiter.held()), (10, 10));
        limiter.set(0, None);
        assert_eq!((all(&limiter).len(), limiter.held()), (0, 0));
        limiter.unshare();
        assert_eq!(all(&limiter).len(), 8);
    }

    #[test]
    fn a_waiting_request_gets_a_slot_when_the_limit_rises_and_not_before() {
        let limiter = RequestLimiter::new(4, None);
        limiter.set(0, None);
        let mut waiting = Box::pin(limiter.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        limiter.set(1, None);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn after_lease_expiry_no_request_starts_until_the_lease_is_renewed() {
        let limiter = RequestLimiter::new(4, None);
        limiter.lease(Instant::now() + LONG);
        assert!(limiter.acquire().now_or_never().is_some());
        limiter.lease(Instant::now());
        let mut waiting = Box::pin(limiter.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(limiter.permits.available_permits(), 4, "it holds no slot while it waits");
        limiter.set(0, None);
        limiter.lease(Instant::now() + LONG);
        assert!(waiting.as_mut().now_or_never().is_none(), "the slot went to another process");
        limiter.set(1, None);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn waiting_for_a_slot_is_given_up_until_there_is_a_slot_again() {
        let limiter = RequestLimiter::new(4, None);
        limiter.set(0, None);
        assert!(limiter.until_given_up().now_or_never().is_none());
        limiter.give_up();
        assert!(limiter.has_given_up() && limiter.until_given_up().now_or_never().is_some());
        limiter.set(0, None);
        assert!(limiter.has_given_up());
        limiter.set(1, None);
        assert!(!limiter.has_given_up() && limiter.until_given_up().now_or_never().is_none());
        limiter.give_up();
        limiter.unshare();
        assert!(!limiter.has_given_up());
    }

    #[test]
    fn a_changed_rate_starts_without_a_burst_and_an_unchanged_one_continues() {
        let limiter = RequestLimiter::new(100, Some(20.0));
        limiter.set(100, Some(20.0));
        assert_eq!(limiter.lower(100, Some(30.0)), 100, "30 a second is no lower limit");
        // A slow machine may have refilled a few in the meantime.
        assert!(all(&limiter).len() >= 20);
        let slow = Some(0.001);
        limiter.lower(100, slow);
        assert_eq!(all(&limiter).len(), 0);
        limiter.set(100, None);
        assert_eq!(all(&limiter).len(), 100);
    }

    #[test]
    fn a_request_that_waits_for_the_rate_waits_for_the_new_rate_after_a_change() {
        let limiter = RequestLimiter::new(4, Some(0.001));
        drop(limiter.acquire().now_or_never());
        let mut waiting = Box::pin(limiter.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        limiter.set(4, Some(0.002));
        assert!(limiter.acquire().now_or_never().is_none());
    }
}
