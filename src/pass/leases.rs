//! The leases that are held while work is under way, kept alive on the side.
//!
//! Not by whoever does the work: it may be waiting for a settle that waits for another process, and a lease that runs out
//! meanwhile is work done twice. Where the process dies they run out by themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::task::AbortOnDropHandle;

use super::Parts;

/// Claimed and not settled yet: orphan and token.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<i64, i64>>);

impl InFlight {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        // No holder leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> Vec<(i64, i64)> {
        self.lock().iter().map(|(id, token)| (*id, *token)).collect()
    }

    /// One is done with, unless it has been claimed anew meanwhile.
    pub(super) fn landed(&self, id: i64, token: i64) {
        let mut leases = self.lock();
        if leases.get(&id) == Some(&token) {
            leases.remove(&id);
        }
    }
}

/// Keeps the leases of what is in flight alive until it is dropped.
pub(super) fn keep(parts: &Parts, in_flight: &Arc<InFlight>) -> AbortOnDropHandle<()> {
    let (store, lease, in_flight) = (parts.store.clone(), parts.rules.lease, Arc::clone(in_flight));
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(lease / 3).await;
            let leases = in_flight.leases();
            if !leases.is_empty()
                && let Err(error) = store.extend_leases(&leases, lease).await
            {
                // Should they run out, others take over; should the database be gone, the settle says so.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "leases could not be kept this time"
                );
            }
        }
    }))
}
