//! Checks whether the database answers: one check at a time, with a cached result.
//!
//! Anybody may request `/readyz` at any rate, and a check uses a connection that passes need. So
//! requests during a check wait for its result, and requests shortly afterwards get the cached one.
//! A check continues after its clients have disconnected; otherwise a client that disconnects at
//! once could start one check after another.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::duration::format_exact;

/// Sends a query to the database. An error says why it failed, without secrets.
pub type ReadyCheck = dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// The cached result of the database check.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Readiness {
    check: Box<ReadyCheck>,
    check_timeout: Duration,
    cache_time: Duration,
    last: Mutex<Option<watch::Receiver<Option<Checked>>>>,
}

#[derive(Clone)]
struct Checked {
    at: Instant,
    result: Result<(), String>,
}

impl Readiness {
    /// A check fails after `check_timeout`. Its result is reused for `cache_time`.
    pub fn new(check: Box<ReadyCheck>, check_timeout: Duration, cache_time: Duration) -> Self {
        Self { check, check_timeout, cache_time, last: Mutex::default() }
    }

    /// The result of the current or a recent check.
    pub(super) async fn result(&self) -> Result<(), String> {
        let mut check = self.current();
        match check.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(checked)) => checked.result.clone(),
            // Only after a panic in the check.
            Ok(None) | Err(_) => Err("the check of the database ended without a result".to_owned()),
        }
    }

    /// The check in progress or a recent one; else a new one.
    fn current(&self) -> watch::Receiver<Option<Checked>> {
        // A value is always replaced as a whole, so a poisoned lock is harmless.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(check) = last.as_ref() {
            let is_good = match check.borrow().as_ref() {
                Some(checked) => checked.at.elapsed() < self.cache_time,
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
        let (answer, check_timeout) = ((self.check)(), self.check_timeout);
        tokio::spawn(async move {
            let result = timeout(check_timeout, answer).await.unwrap_or_else(|_| {
                Err(format!("the database did not answer within {}", format_exact(check_timeout)))
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
