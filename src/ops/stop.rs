//! Graceful shutdown on SIGTERM or Ctrl-C.
//!
//! After the first signal no new work is started, work in progress is finished and leases are
//! released. The second signal exits at once. That is safe: the next pass repairs a crash at any
//! point.

use std::sync::Arc;

use tokio::sync::watch;

/// A stop signal that all clones share. It is set by [`Stop::request`] and never cleared.
#[derive(Clone, Debug)]
pub struct Stop {
    // The sender lives as long as any clone, so `wait` cannot fail because it was dropped.
    requested: Arc<watch::Sender<bool>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self { requested: Arc::new(watch::Sender::new(false)) }
    }

    /// A signal that SIGTERM or Ctrl-C sets. Needs a tokio runtime.
    ///
    /// # Errors
    /// The signal handlers could not be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = Self::new();
        let asked = stop.clone();
        tokio::spawn(async move {
            loop {
                let (name, number) = tokio::select! {
                    _ = terminate.recv() => ("SIGTERM", 15),
                    _ = interrupt.recv() => ("Ctrl-C", 2),
                };
                if asked.requested() {
                    tracing::warn!(signal = name, "second stop signal: exiting at once");
                    // The exit code that a shell reports for a process ended by a signal.
                    std::process::exit(128 + number);
                }
                tracing::info!(signal = name, "stop signal: finishing work in progress");
                asked.request();
            }
        });
        Ok(stop)
    }

    /// Requests a stop. Idempotent.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }

    /// Whether a stop was requested.
    pub fn requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Returns when a stop was requested.
    pub async fn wait(&self) {
        let mut receiver = self.requested.subscribe();
        // It fails only if the sender was dropped, and `self` holds the sender.
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_clones_see_the_signal_and_late_waiters_return_at_once() {
        let stop = Stop::new();
        let other = stop.clone();
        let waiting = tokio::spawn(async move { other.wait().await });
        assert!(!stop.requested());
        stop.request();
        waiting.await.unwrap();
        assert!(stop.clone().requested());
        stop.wait().await;
    }
}
