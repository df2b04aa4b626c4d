//! Whether the database answers: one check at a time, whose result is kept for a moment.
//!
//! `/readyz` may be requested by anybody, any number of times, and a check uses a connection that
//! passes need. So whoever asks during a check waits for its result, and whoever asks shortly after
//! it gets the same one. A check goes on when those who asked have hung up: otherwise a client that
//! hangs up at once could start one after another.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::config::show_span;

/// Asks the database; otherwise why it does not answer, without secrets.
pub type Ready = dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// Whether the database answers.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Readiness {
    check: Box<Ready>,
    patience: Duration,
    kept: Duration,
    last: Mutex<Option<watch::Receiver<Option<Checked>>>>,
}

#[derive(Clone)]
struct Checked {
    at: Instant,
    result: Result<(), String>,
}

impl Readiness {
    /// A database that takes longer than `patience` is not ready. A result is good for as long as
    /// `kept`.
    pub fn new(check: Box<Ready>, patience: Duration, kept: Duration) -> Self {
        Self { check, patience, kept, last: Mutex::default() }
    }

    /// Whether the database answers; otherwise why not.
    pub(super) async fn now(&self) -> Result<(), String> {
        let mut check = self.current();
        match check.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(checked)) => checked.result.clone(),
            // A check never panics by design.
            Ok(None) | Err(_) => Err("the check of the database ended without a result".to_owned()),
        }
    }

    /// The check that is under way or was done a moment ago; else a new one.
    fn current(&self) -> watch::Receiver<Option<Checked>> {
        // A value is replaced as a whole, so it is right also where somebody panicked.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(check) = last.as_ref() {
            let is_good = match check.borrow().as_ref() {
                Some(checked) => checked.at.elapsed() < self.kept,
                None => check.has_changed().is_ok(),
            };
            if is_good {
                return check.clone();
            }
        }
        let failed_before = last
            .as_ref()
            .and_then(|check| check.borrow().as_ref().and_then(|checked| checked.result.clone().err()));
        let (sender, receiver) = watch::channel(None);
        let (answer, patience) = ((self.check)(), self.patience);
        tokio::spawn(async move {
            let result = timeout(patience, answer).await.unwrap_or_else(|_| {
                Err(format!("the database did not answer within {}", show_span(patience)))
            });
            if let Err(why) = &result
                && failed_before.as_ref() != Some(why)
            {
                tracing::warn!("not ready: {why}");
            }
            sender.send_replace(Some(Checked { at: Instant::now(), result }));
        });
        *last = Some(receiver.clone());
        receiver
    }
}
