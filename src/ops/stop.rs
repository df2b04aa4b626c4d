//! The wish to stop: from a person at the terminal, or from whoever runs the process.
//!
//! The first SIGTERM or Ctrl-C is a wish: no new work is begun, what is at hand is finished, leases are
//! given back. The second one ends the process at once, which is safe: a crash anywhere is repaired by the
//! next pass.

use std::sync::Arc;

use tokio::sync::watch;

/// A wish to stop that everybody who holds a clone can see. Without [`Stop::request`] it never comes.
#[derive(Clone, Debug)]
pub struct Stop {
    // The sender lives as long as any clone does, so `wait` cannot end by its being dropped.
    requested: Arc<watch::Sender<bool>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// Nobody has asked to stop yet.
    pub fn new() -> Self {
        Self { requested: Arc::new(watch::Sender::new(false)) }
    }

    /// Asked for by SIGTERM or Ctrl-C. Needs a tokio runtime.
    ///
    /// # Errors
    /// The handlers cannot be set up.
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
                    tracing::warn!(signal = name, "asked to stop a second time: ending at once");
                    // As a shell reports a process that a signal ended.
                    std::process::exit(128 + number);
                }
                tracing::info!(signal = name, "asked to stop: finishing what is at hand");
                asked.request();
            }
        });
        Ok(stop)
    }

    /// Asks everybody to stop. Asking again changes nothing.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }

    /// Whether somebody has asked to stop.
    pub fn requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Returns when somebody has asked to stop.
    pub async fn wait(&self) {
        let mut receiver = self.requested.subscribe();
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_hears_it_also_those_who_ask_later() {
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
