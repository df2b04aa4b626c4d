//! How long to wait: when an orphan that is not resolved is looked at again.
//!
//! Waits double from 1 minute up to 1 hour (a held orphan's too: what a person mends is made good within the hour), never longer than a third of the provider's output retention,
//! never past `refund_by` or a known expiry of the output. Jitter only shortens, so that no promise is missed by it.

use std::time::Duration;

use super::{Action, Decision, QUESTIONS_MIN, QUESTIONS_SPAN, Reason};
use crate::clock::Timestamp;
use crate::facts::Facts;

const SHORTEST: Duration = Duration::from_mins(1);
/// The longest that a case that stays open is left alone.
pub const LONGEST: Duration = Duration::from_hours(1);

/// What bounds a wait besides the orphan itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// How long the provider keeps outputs, if it drops them.
    pub retention: Option<Duration>,
    /// When the provider drops this output, if it said so.
    pub expires_at: Option<Timestamp>,
}

/// When to look again at an orphan that `decision` leaves open or held.
pub fn next_look(facts: &Facts, decision: &Decision, patience: Patience, now: Timestamp) -> Timestamp {
    let orphan = &facts.orphan;
    let doublings = u32::try_from(orphan.waits.clamp(0, 20)).unwrap_or(20);
    let mut wait = SHORTEST.saturating_mul(1 << doublings).min(LONGEST);
    if let Some(retention) = patience.retention {
        wait = wait.min(retention / 3);
    }
    let mut at = now + shortened(wait, orphan.id, orphan.waits);

    if now < orphan.refund_by {
        at = at.min(orphan.refund_by);
    } else if decision.action == Action::Wait {
        // The benefit of the doubt is over but for the questions: ask them, evenly spaced, and no later.
        let first = orphan.first_asked_at.unwrap_or(now);
        let answered = orphan.questions + 1;
        let step = if answered + 1 < QUESTIONS_MIN { QUESTIONS_SPAN / 2 } else { QUESTIONS_SPAN };
        at = at.min((first + step).max(now + SHORTEST));
    }
    if let Some(expires_at) = patience.expires_at
        && decision.reason != Reason::Brake
        && expires_at > now
    {
        at = at.min(expires_at - Duration::from_secs(30));
    }
    // Never at once: a pass ends when nothing is due.
    at.max(now + SHORTEST / 2)
}

/// Up to a sixth shorter, by an even spread over orphans; the same for the same orphan and wait.
fn shortened(wait: Duration, orphan_id: i64, waits: i64) -> Duration {
    let mixed = (orphan_id.unsigned_abs() ^ waits.unsigned_abs().rotate_left(32))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(23);
    let sixths_of_thousand = u32::try_from(mixed % 1000).unwrap_or(0);
    wait.saturating_sub(wait / 6 * sixths_of_thousand / 1000)
}

#[cfg(test)]
mod tests;
