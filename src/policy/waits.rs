//! Backoff: when to check an orphan again that is not resolved yet.
//!
//! Waits double from 1 minute up to 1 hour. A held orphan waits in the same way, so it is made good
//! within an hour of its correction. A wait never exceeds a third of the provider's output
//! retention and never passes `refund_by` or a known expiry of the output. Jitter only shortens a
//! wait, so it cannot break these bounds.

use std::time::Duration;

use super::{Action, Decision, QUESTIONS_MIN, QUESTIONS_SPAN, Reason};
use crate::clock::Timestamp;
use crate::facts::Facts;

const MIN_WAIT: Duration = Duration::from_mins(1);
/// The longest wait between two checks of an open case.
pub const MAX_WAIT: Duration = Duration::from_hours(1);

/// The bounds that the provider sets to a wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitBounds {
    /// How long the provider keeps outputs; none: without limit.
    pub retention: Option<Duration>,
    /// When the provider deletes this output, if it said so.
    pub expires_at: Option<Timestamp>,
}

/// When to check an orphan again that `decision` leaves open or held.
pub fn next_check_at(facts: &Facts, decision: &Decision, bounds: WaitBounds, now: Timestamp) -> Timestamp {
    let orphan = &facts.orphan;
    let doublings = u32::try_from(orphan.waits.clamp(0, 20)).unwrap_or(20);
    let mut wait = MIN_WAIT.saturating_mul(1 << doublings).min(MAX_WAIT);
    if let Some(retention) = bounds.retention {
        wait = wait.min(retention / 3);
    }
    let mut at = now + shortened(wait, orphan.id, orphan.waits);

    if now < orphan.refund_by {
        at = at.min(orphan.refund_by);
    } else if decision.action == Action::Wait {
        // A refund lacks only questions: ask them evenly spaced.
        let first = orphan.first_asked_at.unwrap_or(now);
        let answered = orphan.questions + 1;
        let step = if answered + 1 < QUESTIONS_MIN { QUESTIONS_SPAN / 2 } else { QUESTIONS_SPAN };
        at = at.min((first + step).max(now + MIN_WAIT));
    }
    if let Some(expires_at) = bounds.expires_at
        && decision.reason != Reason::Brake
        && expires_at > now
    {
        at = at.min(expires_at - Duration::from_secs(30));
    }
    // Never due at once: a pass ends only when nothing is due.
    at.max(now + MIN_WAIT / 2)
}

/// Shortens a wait by up to a sixth, spread evenly over orphans.
///
/// The same orphan and wait number always give the same result, so that simulations can be
/// repeated.
fn shortened(wait: Duration, orphan_id: i64, waits: i64) -> Duration {
    let mixed = (orphan_id.unsigned_abs() ^ waits.unsigned_abs().rotate_left(32))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(23);
    let sixths_of_thousand = u32::try_from(mixed % 1000).unwrap_or(0);
    wait.saturating_sub(wait / 6 * sixths_of_thousand / 1000)
}

#[cfg(test)]
mod tests;
