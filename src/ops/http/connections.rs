//! The open connections, ordered by their last activity (LRU).
//!
//! A connection becomes active when it is accepted and when it has sent the headers of a request.
//! If a new connection exceeds the limit, the least recently active one is closed: one that never
//! sends, never reads, or is idle. A client is always served unless more connections than the limit
//! become active between its request and its response.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All connections of one server.
pub(super) struct Connections {
    max: usize,
    open: Mutex<OpenConnections>,
}

#[derive(Default)]
struct OpenConnections {
    /// The number of the latest activity.
    activities: u64,
    /// The connections by the number of their last activity.
    by_activity: BTreeMap<u64, CancellationToken>,
}

impl OpenConnections {
    fn enter(&mut self, ended: CancellationToken) -> u64 {
        self.activities += 1;
        self.by_activity.insert(self.activities, ended);
        self.activities
    }
}

impl Connections {
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: Mutex::default() }
    }

    /// Adds a connection. Closes the least recently active one if the limit is reached.
    pub(super) fn enter(self: &Arc<Self>) -> ConnectionSlot {
        let ended = CancellationToken::new();
        let mut open = self.lock();
        if open.by_activity.len() >= self.max
            && let Some((_, oldest)) = open.by_activity.pop_first()
        {
            oldest.cancel();
        }
        let activity = AtomicU64::new(open.enter(ended.clone()));
        drop(open);
        ConnectionSlot { connections: Arc::clone(self), activity, ended }
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        // No code panics while the value is half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of one connection. Dropping it frees the slot.
pub(super) struct ConnectionSlot {
    connections: Arc<Connections>,
    /// The number of its last activity. Changed only under the lock.
    activity: AtomicU64,
    ended: CancellationToken,
}

impl ConnectionSlot {
    /// Moves the connection to the end of the order: it has sent the headers of a request.
    pub(super) fn mark_active(&self) {
        let mut open = self.connections.lock();
        // It is missing if it has just been closed.
        if let Some(ended) = open.by_activity.remove(&self.activity.load(Ordering::Relaxed)) {
            self.activity.store(open.enter(ended), Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Returns when the slot was given to another connection.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.connections.lock().by_activity.remove(&self.activity.load(Ordering::Relaxed));
    }
}
