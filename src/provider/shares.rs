//! A process's share of a provider's limits, so that all processes together keep to them.
//!
//! Every process that asks a provider holds some of its `max_concurrency` slots, and the same part
//! of its rate. The holdings stand in the database (`store`), under a lease, and are replaced as a
//! whole: a change that rests on old holdings is refused there. So the sum of the slots never
//! exceeds the maximum, and [`share`] is plain arithmetic. A process that dies keeps its slots
//! until its lease ends. `pass` takes, renews and gives back.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::file::Provider;
use super::manners::Limits;
use super::{Providers, State};
use crate::clock::Timestamp;

/// What one process holds of a provider's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    /// The process.
    pub holder: String,
    /// Requests that it may have under way at once. Zero: it waits.
    pub slots: usize,
    /// The provider's limit by its own provider file.
    pub max_concurrency: usize,
    /// Likewise.
    pub requests_per_second: Option<f64>,
    /// Afterwards the slots are free.
    pub leased_until: Timestamp,
}

impl Holding {
    /// Whether its slots are taken. A lease that ends later than one taken now was written while
    /// the clock was ahead.
    pub fn is_live(&self, now: Timestamp, lease: Duration) -> bool {
        now < self.leased_until && self.leased_until <= now + lease
    }
}

/// What one process may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Requests under way at once.
    pub slots: usize,
    /// Requests begun per second, if limited.
    pub requests_per_second: Option<f64>,
}

/// The share of a process beside the live holdings of `others`: an equal part of the slots, as far
/// as the others leave it. What is left over by the division goes to the first that ask. While
/// there are no fewer slots than processes, each has at least one. A process alone has all, unless
/// at least so many `processes` are expected. Where provider files differ, the smallest limits
/// apply to all.
pub fn share(limits: &Limits, others: &[Holding], processes: usize) -> Share {
    let maxima = others.iter().map(|other| other.max_concurrency);
    let max_concurrency = maxima.fold(limits.max_concurrency, usize::min);
    let rates = others.iter().filter_map(|other| other.requests_per_second).chain(limits.requests_per_second);
    let rate = rates.reduce(f64::min);
    let processes = processes.max(others.len() + 1);
    let (least, most) = (max_concurrency / processes, max_concurrency.div_ceil(processes));
    // Another that has less than its part yet will take it.
    let taken = others.iter().fold(0_usize, |sum, other| sum.saturating_add(other.slots.max(least)));
    let slots = most.min(max_concurrency.saturating_sub(taken));
    if slots == max_concurrency {
        return Share { slots, requests_per_second: rate };
    }
    #[expect(clippy::cast_precision_loss, reason = "the file's check bounds both")]
    let part = slots.max(1) as f64 / max_concurrency.max(1) as f64;
    Share { slots, requests_per_second: rate.map(|rate| rate * part) }
}

/// One provider's share while it is looked at and changed: no other lane of this process does so
/// meanwhile.
#[derive(Debug)]
pub struct Sharing<'a> {
    provider: &'a Provider,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

impl Sharing<'_> {
    /// The limits by this process's provider file.
    pub fn limits(&self) -> &Limits {
        &self.provider.limits
    }

    /// Lowers the limits to the share, where they are higher. Returns how many slots are held until
    /// the requests beyond it have ended.
    pub fn lower(&self, share: &Share) -> usize {
        self.provider.manners.turns.lower(share.slots, share.requests_per_second)
    }

    /// Sets the limits to the share, once the database has it.
    pub fn set(&self, share: &Share) {
        self.provider.manners.turns.set(share.slots, share.requests_per_second);
    }

    /// For how long requests may still begin, by this process's stopwatch; none before the first
    /// lease.
    pub fn leased_for(&self) -> Option<Duration> {
        self.provider.manners.turns.leased_for()
    }

    /// Lets requests begin until then and no longer.
    pub fn lease(&self, until: Instant) {
        self.provider.manners.turns.lease(until);
    }

    /// Has every request give up that waits for a slot or begins, until there is one again: other
    /// processes have held all slots for too long, or the lease cannot be renewed.
    pub fn leave_to_others(&self) {
        self.provider.manners.turns.leave_to_others();
    }

    /// One lane less uses the share. False: others do.
    pub fn leave(&self) -> bool {
        self.provider.leave()
    }
}

impl Provider {
    fn leave(&self) -> bool {
        let mut sharers = self.manners.sharers.lock().unwrap_or_else(PoisonError::into_inner);
        *sharers = sharers.saturating_sub(1);
        if *sharers == 0 {
            self.manners.turns.unshare();
        }
        *sharers == 0
    }
}

impl Providers {
    /// What this process is called among those that share a provider's limits.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// How many requests to a provider this process may have under way now; none without a provider
    /// file.
    pub fn slots(&self, name: &str) -> Option<usize> {
        self.get(name).map(|provider| provider.manners.turns.limit())
    }

    /// Whether this process asks nothing at present because other processes hold all slots.
    pub fn is_left_to_others(&self, name: &str) -> bool {
        self.get(name).is_some_and(|provider| provider.manners.turns.is_left_to_others())
    }

    /// One lane more uses the share of a provider. False: there is no provider file, so nothing is
    /// shared.
    pub fn join(&self, name: &str) -> bool {
        let Some(provider) = self.get(name) else { return false };
        *provider.manners.sharers.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        true
    }

    /// A lane that has joined is gone without having given the share back; the last one's lease
    /// ends by itself.
    pub fn leave(&self, name: &str) {
        if let Some(provider) = self.get(name) {
            provider.leave();
        }
    }

    /// Waits until no other lane of this process looks at the share, and keeps the others waiting.
    pub async fn sharing(&self, name: &str) -> Option<Sharing<'_>> {
        let provider = self.get(name)?;
        Some(Sharing { provider, _alone: provider.manners.sharing.lock().await })
    }

    /// Leaves a provider alone that another process has left alone at `asked_at`, unless this one
    /// was answered later. `left`: how long it is still left alone. Zero matters only to a process
    /// that has not asked yet: it sends one probe.
    pub fn learn_circuit(&self, name: &str, left: Duration, asked_ago: Duration) {
        let Some(provider) = self.get(name) else { return };
        let has_asked = provider.last.state(None).is_some();
        let knows_better = provider.manners.answered_ago().is_some_and(|ago| ago <= asked_ago);
        if provider.manners.circuit_open() || knows_better || (has_asked && left.is_zero()) {
            return;
        }
        provider.manners.leave_alone(left);
    }

    /// Returns how a provider stands each time when its circuit opens or closes.
    pub async fn circuit_turned(&self, name: &str) -> Option<State> {
        match self.get(name) {
            Some(provider) => provider.manners.circuit_turned().await,
            None => std::future::pending().await,
        }
        self.state(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn limits(max_concurrency: usize, requests_per_second: Option<f64>) -> Limits {
        Limits { max_concurrency, requests_per_second, ..Limits::default() }
    }

    fn holding(slots: usize, limits: &Limits) -> Holding {
        Holding {
            holder: "another".into(),
            slots,
            max_concurrency: limits.max_concurrency,
            requests_per_second: limits.requests_per_second,
            leased_until: Timestamp::from_micros(0),
        }
    }

    /// The slots of each process once none changes any more, where one comes after the other; and
    /// the most that were taken on the way.
    fn settle(limits: &[Limits]) -> (Vec<usize>, usize) {
        let mut slots = vec![0; limits.len()];
        let mut most = 0;
        for there in (1..=limits.len()).chain([limits.len(); 3]) {
            for nth in 0..there {
                let others: Vec<_> = (0..there)
                    .filter(|other| *other != nth)
                    .map(|other| holding(slots[other], &limits[other]))
                    .collect();
                slots[nth] = share(&limits[nth], &others, 1).slots;
                most = most.max(slots.iter().sum());
            }
        }
        (slots, most)
    }

    #[test]
    fn a_process_alone_has_everything() {
        let limits = limits(16, Some(40.0));
        assert_eq!(share(&limits, &[], 1), Share { slots: 16, requests_per_second: Some(40.0) });
        assert_eq!(share(&limits, &[], 3), Share { slots: 6, requests_per_second: Some(15.0) });
    }

    #[test]
    fn a_newcomer_gets_what_is_free_and_its_part_once_the_other_has_given_it_back() {
        let limits = limits(16, Some(40.0));
        assert_eq!(share(&limits, &[holding(16, &limits)], 1).slots, 0);
        let part = share(&limits, &[holding(0, &limits)], 1);
        assert_eq!(part, Share { slots: 8, requests_per_second: Some(20.0) });
        assert_eq!(share(&limits, &[holding(8, &limits)], 1), part);
        assert_eq!(share(&limits, &[holding(13, &limits)], 1).slots, 3);
    }

    #[test]
    fn any_number_of_processes_settles_on_equal_parts_and_never_exceeds_the_maximum() {
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
            let part = share(own, &[holding(2, other)], 1);
            assert_eq!(part, Share { slots: 2, requests_per_second: Some(5.0) });
        }
        let unlimited = share(&limits(4, None), &[holding(2, &small)], 1);
        assert_eq!(unlimited.requests_per_second, Some(5.0));
    }

    #[test]
    fn a_lease_counts_until_its_end_and_not_where_it_was_written_by_a_clock_that_was_ahead() {
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
