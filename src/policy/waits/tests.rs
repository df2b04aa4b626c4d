use super::super::samples::{HOUR, charged_at, facts};
use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn decision(action: Action, reason: Reason) -> Decision {
    Decision { action, reason, rule: 12 }
}

/// When an orphan that has waited nine times is checked again.
fn checked_at(
    change: impl Fn(&mut Facts),
    decision: &Decision,
    bounds: WaitBounds,
    now: Timestamp,
) -> Timestamp {
    let mut facts = facts();
    facts.orphan.waits = 9;
    change(&mut facts);
    next_check_at(&facts, decision, bounds, now)
}

/// Waits of an hour end spread over the ten minutes before it.
fn assert_spread_evenly(waits: impl Iterator<Item = Duration>) {
    let mut minutes = [0; 11];
    for wait in waits {
        assert!(wait > 50 * MINUTE && wait <= HOUR, "{wait:?}");
        minutes[usize::try_from(HOUR.saturating_sub(wait).as_secs() / 60).unwrap()] += 1;
    }
    assert!(minutes[..10].iter().all(|&count| (60..=140).contains(&count)), "{minutes:?}");
}

#[test]
fn jitter_shortens_by_up_to_a_sixth_and_spreads_orphans_and_their_waits_evenly() {
    assert_spread_evenly((1..=1000).map(|id| shortened(HOUR, id, 9)));
    assert_spread_evenly((1..=1000).map(|waits| shortened(HOUR, 7, waits)));
}

#[test]
fn p15_past_refund_by_missing_questions_are_spaced_evenly() {
    let wait = decision(Action::Wait, Reason::StillRunning);
    let begun = facts().orphan.refund_by;
    let after = |questions, first: Option<Duration>, now: Timestamp| {
        let first = first.map(|before| now - before);
        let asked = |facts: &mut Facts| {
            facts.orphan.questions = questions;
            facts.orphan.first_asked_at = first;
        };
        checked_at(asked, &wait, WaitBounds::default(), now).since(now)
    };
    // Three questions over half an hour: the second comes in the middle.
    assert_eq!(after(0, None, begun), 15 * MINUTE);
    assert_eq!(after(1, Some(15 * MINUTE), begun + HOUR), 15 * MINUTE);
    assert_eq!(after(4, Some(20 * MINUTE), begun + HOUR), 10 * MINUTE);
    // The first question was long ago: due after the minimum wait.
    assert_eq!(after(1, Some(9 * HOUR), begun + HOUR), MINUTE);
}

#[test]
fn p15_a_held_orphan_is_checked_at_least_every_hour_past_refund_by() {
    let hold = decision(Action::Hold, Reason::DuplicateJob);
    let now = facts().orphan.refund_by;
    let next = checked_at(|facts| facts.orphan.waits = 60, &hold, WaitBounds::default(), now);
    assert!((50 * MINUTE..=HOUR).contains(&next.since(now)), "{next:?}");
}

#[test]
fn p15_an_orphan_is_checked_half_a_minute_before_its_file_expires_unless_the_brake_holds_it() {
    let now = charged_at() + 2 * HOUR;
    let until = |expires_at| WaitBounds { retention: None, expires_at: Some(expires_at) };
    let wait = decision(Action::Wait, Reason::StillRunning);
    let at = |expires_at| checked_at(|_| {}, &wait, until(expires_at), now);
    assert_eq!(at(now + 10 * MINUTE), now + 10 * MINUTE - MINUTE / 2);
    assert_eq!(at(now + 2 * HOUR), at(now + 9 * HOUR), "no sooner than without it");
    // Never due at once, otherwise a pass would not end.
    assert_eq!(at(now + MINUTE), now + MINUTE / 2);
    assert_eq!(at(now + MINUTE / 4), now + MINUTE / 2);
    // A file that has already expired shortens no wait.
    for gone in [now, now - HOUR] {
        assert_eq!(at(gone), at(now + 9 * HOUR));
    }
    let braked = decision(Action::Hold, Reason::Brake);
    let held = checked_at(|_| {}, &braked, until(now + 10 * MINUTE), now);
    let without = checked_at(|_| {}, &braked, WaitBounds::default(), now);
    assert_eq!(held, without, "an expiring file does not release the brake");
}
