use super::super::samples::{HOUR, charged_at, facts};
use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn decision(action: Action, reason: Reason) -> Decision {
    Decision { action, reason, rule: 12 }
}

/// When an orphan that has waited often is looked at again, as seen from `now`.
fn looked_at(
    change: impl Fn(&mut Facts),
    decision: &Decision,
    patience: Patience,
    now: Timestamp,
) -> Timestamp {
    let mut facts = facts();
    facts.orphan.waits = 9;
    change(&mut facts);
    next_look(&facts, decision, patience, now)
}

/// What waits an hour comes back over the ten minutes before it, and not all at once.
fn spread_evenly(waits: impl Iterator<Item = Duration>) {
    let mut minutes = [0; 11];
    for wait in waits {
        assert!(wait > 50 * MINUTE && wait <= HOUR, "{wait:?}");
        minutes[usize::try_from(HOUR.saturating_sub(wait).as_secs() / 60).unwrap()] += 1;
    }
    assert!(minutes[..10].iter().all(|&count| (60..=140).contains(&count)), "{minutes:?}");
}

#[test]
fn jitter_shortens_by_up_to_a_sixth_and_spreads_orphans_and_their_waits_evenly() {
    spread_evenly((1..=1000).map(|id| shortened(HOUR, id, 9)));
    spread_evenly((1..=1000).map(|waits| shortened(HOUR, 7, waits)));
}

#[test]
fn p15_past_refund_by_the_questions_that_are_missing_are_asked_evenly() {
    let wait = decision(Action::Wait, Reason::StillRunning);
    let begun = facts().orphan.refund_by;
    let after = |questions, first: Option<Duration>, now: Timestamp| {
        let first = first.map(|before| now - before);
        let asked = |facts: &mut Facts| {
            facts.orphan.questions = questions;
            facts.orphan.first_asked_at = first;
        };
        looked_at(asked, &wait, Patience::default(), now).since(now)
    };
    // The first of three, half an hour before the last: the second lies in the middle.
    assert_eq!(after(0, None, begun), 15 * MINUTE);
    assert_eq!(after(1, Some(15 * MINUTE), begun + HOUR), 15 * MINUTE);
    assert_eq!(after(4, Some(20 * MINUTE), begun + HOUR), 10 * MINUTE);
    // Asked long ago: now, but not at once.
    assert_eq!(after(1, Some(9 * HOUR), begun + HOUR), MINUTE);
}

#[test]
fn p15_what_is_held_past_refund_by_waits_for_its_person_and_is_seen_within_the_hour_once_it_is_mended() {
    let hold = decision(Action::Hold, Reason::DuplicateJob);
    let now = facts().orphan.refund_by;
    let next = looked_at(|facts| facts.orphan.waits = 60, &hold, Patience::default(), now);
    assert!((50 * MINUTE..=HOUR).contains(&next.since(now)), "{next:?}");
}

#[test]
fn p15_a_file_is_looked_at_half_a_minute_before_it_goes_unless_the_brake_holds_it() {
    let now = charged_at() + 2 * HOUR;
    let until = |expires_at| Patience { retention: None, expires_at: Some(expires_at) };
    let wait = decision(Action::Wait, Reason::StillRunning);
    let at = |expires_at| looked_at(|_| {}, &wait, until(expires_at), now);
    assert_eq!(at(now + 10 * MINUTE), now + 10 * MINUTE - MINUTE / 2);
    assert_eq!(at(now + 2 * HOUR), at(now + 9 * HOUR), "no sooner than without it");
    // Never at once, or a pass would not end.
    assert_eq!(at(now + MINUTE), now + MINUTE / 2);
    assert_eq!(at(now + MINUTE / 4), now + MINUTE / 2);
    // What is gone does not hurry anybody.
    for gone in [now, now - HOUR] {
        assert_eq!(at(gone), at(now + 9 * HOUR));
    }
    let braked = decision(Action::Hold, Reason::Brake);
    let held = looked_at(|_| {}, &braked, until(now + 10 * MINUTE), now);
    let without = looked_at(|_| {}, &braked, Patience::default(), now);
    assert_eq!(held, without, "the brake is released by a person or the hour, not by a file");
}
