//! The connections that are open, in the order in which they were last active.
//!
//! A connection is active when it is accepted and when it has sent a request's whole head. Where
//! one too many enters, the one at the front is ended: one that never sends, never reads, or is
//! idle. An honest client is served unless the limit's number of other connections become active
//! between its request and its answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All connections of one server.
pub(super) struct Connections {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Activities so far.
    activities: u64,
    /// By the number of their last activity.
    by_activity: BTreeMap<u64, CancellationToken>,
}

impl Open {
    fn enter(&mut self, ended: CancellationToken) -> u64 {
        self.activities += 1;
        self.by_activity.insert(self.activities, ended);
        self.activities
    }
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    /// A new connection. Ends the one that was active longest ago if there would be too many.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let ended = CancellationToken::new();
        let mut open = self.lock();
        if open.by_activity.len() >= self.most
            && let Some((_, oldest)) = open.by_activity.pop_first()
        {
            oldest.cancel();
        }
        let activity = AtomicU64::new(open.enter(ended.clone()));
        drop(open);
        Place { connections: Arc::clone(self), activity, ended }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No holder leaves it half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, free again when it is dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    /// The number of its last activity; changes under the lock.
    activity: AtomicU64,
    ended: CancellationToken,
}

impl Place {
    /// It has sent a request's head: now all others were active longer ago.
    pub(super) fn is_active(&self) {
        let mut open = self.connections.lock();
        // None: it has just been ended.
        if let Some(ended) = open.by_activity.remove(&self.activity.load(Ordering::Relaxed)) {
            self.activity.store(open.enter(ended), Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Returns when its place was given to another connection.
    pub(super) async fn is_ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().by_activity.remove(&self.activity.load(Ordering::Relaxed));
    }
}
