//! The share of a provider's limits that one process may use, so that all processes together stay
//! within the limits.
//!
//! Every process that asks a provider holds some of its `max_concurrency` slots, and the same
//! fraction of its rate limit. The holdings are leased and stored in the database (`store`). They
//! are replaced as a whole with optimistic locking: a change that is based on outdated holdings is
//! rejected there. Therefore the sum of the slots never exceeds the maximum, and [`compute_share`]
//! is plain arithmetic. If a process crashes, its slots are free again when its lease expires.
//! `pass` acquires, renews and returns the share.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::admission::ProviderLimits;
use super::file::Provider;
use super::{ObservedState, Providers};
use crate::clock::Timestamp;

/// The part of a provider's limits that one process holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    /// The name of the process.
    pub holder: String,
    /// How many requests it may have in flight at once. Zero: it waits for slots.
    pub slots: usize,
    /// The concurrency limit in the provider file of that process.
    pub max_concurrency: usize,
    /// The rate limit in the provider file of that process.
    pub requests_per_second: Option<f64>,
    /// When the lease expires and the slots are free.
    pub leased_until: Timestamp,
}

impl Holding {
    /// Whether its slots are in use. A lease that expires later than one acquired now was written
    /// while the clock was ahead, and does not count.
    pub fn is_live(&self, now: Timestamp, lease: Duration) -> bool {
        now < self.leased_until && self.leased_until <= now + lease
    }
}

/// The part of a provider's limits that one process may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitShare {
    /// The most requests in flight at once.
    pub slots: usize,
    /// The most requests started per second; `None`: unlimited.
    pub requests_per_second: Option<f64>,
}

/// Computes the share of one process, given the live holdings of the `others`.
///
/// It is an equal part of the slots, or less while the others still hold more than their part. The
/// remainder of the division goes to the processes that ask first. If there are at least as many
/// slots as processes, each process gets at least one. A process that is alone gets all of them,
/// unless `processes` says that more are expected. If the provider files of the processes differ,
/// the smallest limits apply to all.
pub fn compute_share(limits: &ProviderLimits, others: &[Holding], processes: usize) -> LimitShare {
    let maxima = others.iter().map(|other| other.max_concurrency);
    let max_concurrency = maxima.fold(limits.max_concurrency, usize::min);
    let rates = others.iter().filter_map(|other| other.requests_per_second).chain(limits.requests_per_second);
    let rate = rates.reduce(f64::min);
    let processes = processes.max(others.len() + 1);
    let (least, most) = (max_concurrency / processes, max_concurrency.div_ceil(processes));
    // Reserve the part of a process that still has less than its part.
    let taken = others.iter().fold(0_usize, |sum, other| sum.saturating_add(other.slots.max(least)));
    let slots = most.min(max_concurrency.saturating_sub(taken));
    if slots == max_concurrency {
        return LimitShare { slots, requests_per_second: rate };
    }
    #[expect(clippy::cast_precision_loss, reason = "the file's check bounds both")]
    let part = slots.max(1) as f64 / max_concurrency.max(1) as f64;
    LimitShare { slots, requests_per_second: rate.map(|rate| rate * part) }
}

/// Exclusive access to this process's share of one provider. Other lanes wait until it is dropped.
#[derive(Debug)]
pub struct ShareGuard<'a> {
    provider: &'a Provider,
    _lock: tokio::sync::MutexGuard<'a, ()>,
}

impl ShareGuard<'_> {
    /// The limits in this process's provider file.
    pub fn limits(&self) -> &ProviderLimits {
        &self.provider.limits
    }

    /// Lowers the limits that are higher than the share. Returns how many slots are in use until
    /// the requests above the share have ended.
    pub fn lower(&self, share: &LimitShare) -> usize {
        self.provider.admission.limiter.lower(share.slots, share.requests_per_second)
    }

    /// Sets the limits to the share. To be called once the share is stored in the database.
    pub fn set(&self, share: &LimitShare) {
        self.provider.admission.limiter.set(share.slots, share.requests_per_second);
    }

    /// For how long requests may still start, by this process's monotonic clock; `None` before the
    /// first lease.
    pub fn leased_for(&self) -> Option<Duration> {
        self.provider.admission.limiter.leased_for()
    }

    /// Allows requests to start until then and no longer.
    pub fn lease(&self, until: Instant) {
        self.provider.admission.limiter.lease(until);
    }

    /// Makes every request that needs a slot give up, until there is one again: other processes
    /// have held all slots for too long, or the lease could not be renewed.
    pub fn give_up(&self) {
        self.provider.admission.limiter.give_up();
    }

    /// Counts one lane less that uses the share. Returns whether it was the last one.
    pub fn leave(&self) -> bool {
        self.provider.leave()
    }
}

impl Provider {
    fn leave(&self) -> bool {
        let mut users = self.admission.share_users.lock().unwrap_or_else(PoisonError::into_inner);
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.admission.limiter.unshare();
        }
        *users == 0
    }
}

impl Providers {
    /// The name of this process among those that share a provider's limits.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// How many requests to a provider this process may have in flight now; `None` if there is no
    /// provider file.
    pub fn slots(&self, name: &str) -> Option<usize> {
        self.get(name).map(|provider| provider.admission.limiter.limit())
    }

    /// Whether this process has given up waiting for a slot, because other processes hold all of
    /// them.
    pub fn has_given_up(&self, name: &str) -> bool {
        self.get(name).is_some_and(|provider| provider.admission.limiter.has_given_up())
    }

    /// Counts one more lane that uses the share of a provider. Returns false if there is no
    /// provider file: then nothing is shared.
    pub fn join(&self, name: &str) -> bool {
        let Some(provider) = self.get(name) else { return false };
        *provider.admission.share_users.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        true
    }

    /// Counts one lane less that ended without returning the share. After the last one, the lease
    /// expires.
    pub fn leave(&self, name: &str) {
        if let Some(provider) = self.get(name) {
            provider.leave();
        }
    }

    /// Waits for exclusive access to the share of a provider. Returns `None` if there is no
    /// provider file.
    pub async fn lock_share(&self, name: &str) -> Option<ShareGuard<'_>> {
        let provider = self.get(name)?;
        Some(ShareGuard { provider, _lock: provider.admission.share_lock.lock().await })
    }

    /// Opens the circuit of a provider because another process has opened its own.
    ///
    /// `left`: how long that circuit stays open. `asked_ago`: how long ago that process last asked.
    /// Nothing changes if this process was answered since then. Zero in `left` matters only to a
    /// process that has not asked yet: it sends one probe.
    pub fn adopt_circuit(&self, name: &str, left: Duration, asked_ago: Duration) {
        let Some(provider) = self.get(name) else { return };
        let has_asked = provider.last.state(None).is_some();
        let knows_better = provider.admission.answered_ago().is_some_and(|ago| ago <= asked_ago);
        if provider.admission.is_circuit_open() || knows_better || (has_asked && left.is_zero()) {
            return;
        }
        provider.admission.open_circuit(left);
    }

    /// Waits until the circuit of a provider opens or closes, and returns the provider's state.
    pub async fn circuit_changed(&self, name: &str) -> Option<ObservedState> {
        match self.get(name) {
            Some(provider) => provider.admission.circuit_changed().await,
            None => std::future::pending().await,
        }
        self.state(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn limits(max_concurrency: usize, requests_per_second: Option<f64>) -> ProviderLimits {
        ProviderLimits { max_concurrency, requests_per_second, ..ProviderLimits::default() }
    }

    fn holding(slots: usize, limits: &ProviderLimits) -> Holding {
        Holding {
            holder: "another".into(),
            slots,
            max_concurrency: limits.max_concurrency,
            requests_per_second: limits.requests_per_second,
            leased_until: Timestamp::from_micros(0),
        }
    }

    /// Starts the processes one after the other. Returns the final slots of each, and the most
    /// slots that were in use at any time.
    fn settle(limits: &[ProviderLimits]) -> (Vec<usize>, usize) {
        let mut slots = vec![0; limits.len()];
        let mut most = 0;
        for there in (1..=limits.len()).chain([limits.len(); 3]) {
            for nth in 0..there {
                let others: Vec<_> = (0..there)
                    .filter(|other| *other != nth)
                    .map(|other| holding(slots[other], &limits[other]))
                    .collect();
                slots[nth] = compute_share(&limits[nth], &others, 1).slots;
                most = most.max(slots.iter().sum());
            }
        }
        (slots, most)
    }

    #[test]
    fn a_process_that_is_alone_gets_all_slots_unless_more_processes_are_expected() {
        let limits = limits(16, Some(40.0));
        assert_eq!(compute_share(&limits, &[], 1), LimitShare { slots: 16, requests_per_second: Some(40.0) });
        assert_eq!(compute_share(&limits, &[], 3), LimitShare { slots: 6, requests_per_second: Some(15.0) });
    }

    #[test]
    fn a_new_process_gets_the_free_slots_and_its_part_once_the_other_has_returned_it() {
        let limits = limits(16, Some(40.0));
        assert_eq!(compute_share(&limits, &[holding(16, &limits)], 1).slots, 0);
        let part = compute_share(&limits, &[holding(0, &limits)], 1);
        assert_eq!(part, LimitShare { slots: 8, requests_per_second: Some(20.0) });
        assert_eq!(compute_share(&limits, &[holding(8, &limits)], 1), part);
        assert_eq!(compute_share(&limits, &[holding(13, &limits)], 1).slots, 3);
    }

    #[test]
    fn any_number_of_processes_converges_to_equal_parts_and_never_exceeds_the_maximum() {
        for max in 1..=20 {
            for processes in 1..=24 {
                let (slots, most) = settle(&vec![limits(max, None); processes]);
                assert!(most <= max, "{max} {processes}: {most}");
                assert_eq!(slots.iter().sum::<usize>(), max, "{max} {processes}: nothing is left over");
                let equal = max / processes..=max.div_ceil(processes);
                assert!(slots.iter().all(|slots| equal.contains(slots)), "{slots:?} of {max}");
            }
        }
    }

    #[test]
    fn the_smallest_limits_apply_to_all() {
        let (large, small) = (limits(16, Some(40.0)), limits(4, Some(10.0)));
        let (slots, most) = settle(&[large.clone(), small.clone()]);
        assert_eq!((slots, most), (vec![2, 2], 16), "alone it had all of its own limit");
        for (own, other) in [(&large, &small), (&small, &large)] {
            let part = compute_share(own, &[holding(2, other)], 1);
            assert_eq!(part, LimitShare { slots: 2, requests_per_second: Some(5.0) });
        }
        let unlimited = compute_share(&limits(4, None), &[holding(2, &small)], 1);
        assert_eq!(unlimited.requests_per_second, Some(5.0));
    }

    #[test]
    fn a_lease_counts_until_it_expires_but_not_if_the_clock_was_ahead_when_it_was_written() {
        let now = Timestamp::from_micros(1_764_000_000_000_000);
        let until = |leased_until| Holding { leased_until, ..holding(1, &limits(1, None)) };
        for (leased_until, live) in [
            (now, false),
            (now - LEASE, false),
            (now + Duration::from_micros(1), true),
            (now + LEASE, true),
            (now + LEASE * 2, false),
        ] {
            assert_eq!(until(leased_until).is_live(now, LEASE), live, "{leased_until}");
        }
    }
}
