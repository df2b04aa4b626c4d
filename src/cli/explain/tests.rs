//! Tests of the text output for each state of an item.

use std::time::Duration;

use super::*;
use crate::evidence::{Doubt, Evidence, FailureClass, Verdict};
use crate::policy::{Action, Decision, Reason, samples};
use crate::store::{Case, Story};

const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

fn ago(minutes: u64) -> Timestamp {
    NOW - Duration::from_mins(minutes)
}

/// A charge of 10 credits with one item, and the rows of `with`.
fn story(with: &[(&str, Value)]) -> Story {
    let mut story = json!({
        "charge": {
            "id": "ch_1", "account_id": "w1", "account_kind": "workspace", "project_id": "p", "node_id": "n",
            "provider": "fal", "model": "acme/video", "provider_job_id": "j1", "charged_at": ago(300),
            "subscription_credits": 6, "wallet_credits": 4, "cancelled_at": null,
        },
        "items": [{"output_index": 0, "credits": 10, "provider": "fal", "provider_job_id": "j1",
                   "provider_output_index": 0, "failed_at": null}],
        "outputs": [], "orphans": [], "events": [], "answers": [], "resolutions": [], "refunds_by_platform": [],
    });
    for (name, rows) in with {
        story[*name] = rows.clone();
    }
    serde_json::from_value(story).unwrap()
}

fn orphan(state: &str, reason: &str, window_ends_at: Timestamp) -> Value {
    json!([{
        "output_index": 0, "state": state, "reason": reason, "charged_at": ago(300), "opened_at": ago(280),
        "opened_by": "grace", "refund_by": NOW + Duration::from_hours(17), "window_ends_at": window_ends_at,
        "due_at": NOW + Duration::from_mins(9), "leased_until": null, "questions": 2, "first_asked_at": ago(200),
        "last_asked_at": ago(30), "waits": 2, "resolved_at": null,
    }])
}

fn resolution(kind: &str, reason: &str, more: (&str, Value)) -> Value {
    let mut row = json!({
        "id": 1, "output_index": 0, "kind": kind, "reason": reason, "rule": 6, "resolved_at": ago(10),
        "decided_by": "makegood", "answer_id": 3, "superseded_at": null, "refund": null, "recovery": null,
    });
    row[more.0] = more.1;
    json!([row])
}

/// Events after a refund: kind, detail and answer.
fn since_then(events: &[(&str, &str, i64)]) -> Value {
    let rows = events.iter().enumerate().map(|(nth, (kind, detail, answer))| {
        json!({"id": nth, "output_index": 0, "at": ago(9), "kind": kind, "reason": null, "rule": null, "detail": detail,
               "answer_id": (*answer > 0).then_some(answer), "pass_id": 1})
    });
    rows.collect()
}

#[test]
fn each_state_has_its_paragraph() {
    let later = NOW + Duration::from_hours(19);
    let refund = json!({"id": "r", "subscription_credits": 6, "wallet_credits": 4});
    let file = json!({"stored_output_id": "o1", "from_charge_id": "ch_9", "from_output_index": 2, "uri": "s3://b/k",
                      "size_bytes": 1, "sha256": null, "content_type": "video/mp4", "source_host": "cdn"});
    let stored = json!([{"id": "o1", "charge_id": "ch_1", "output_index": 0, "provider": "fal", "provider_job_id": "j1",
        "provider_output_index": 0, "project_id": "p", "node_id": "n", "uri": null, "content_type": null,
        "size_bytes": null, "stored_at": ago(60), "moved_at": null, "deleted_at": ago(5)}]);
    for (with, state, says) in [
        (vec![], "not looked into", "makegood has not examined it yet. It was charged 5h ago"),
        (vec![("outputs", stored)], "stored", "It was deleted on 2025-11-24 15:55:00; it stays paid."),
        (
            vec![("orphans", orphan("open", "still_running", later))],
            "open",
            "the provider says that it is still queued or running (still_running). The provider was asked 2 times, last 30m ago. \
             It is examined again at 2025-11-24 16:09:00 (in 9m).",
        ),
        (
            vec![("orphans", orphan("held", "no_balance", ago(1)))],
            "held for a person",
            "It is LATE: its window of 4h 59m ended at 2025-11-24 15:59:00 (1m ago). Correct the platform's `balances`",
        ),
        (
            vec![
                ("orphans", orphan("refunded", "server_error", later)),
                ("resolutions", resolution("refund", "server_error", ("refund", refund.clone()))),
            ],
            "refunded",
            "10 credits were refunded on 2025-11-24 15:50:00, 6 to the subscription and 4 to the wallet, because the \
             provider's server failed (rule 6, server_error), decided by makegood.",
        ),
        (
            vec![
                ("orphans", orphan("refunded", "unconfirmed", later)),
                ("resolutions", resolution("refund", "unconfirmed", ("refund", refund.clone()))),
                (
                    "events",
                    since_then(&[
                        ("asked_again", "unreachable", 4),
                        ("asked_again", "succeeded", 5),
                        ("late_success", "x", 5),
                    ]),
                ),
            ],
            "refunded",
            "The provider was asked again on 2025-11-24 15:51:00 and said: unreachable (answer #4). The provider was asked \
             again on 2025-11-24 15:51:00 and said: succeeded (answer #5). So the provider made and billed it, and it was \
             never delivered",
        ),
        (
            vec![
                ("orphans", orphan("refunded", "server_error", later)),
                ("resolutions", resolution("refund", "server_error", ("refund", refund.clone()))),
                ("events", since_then(&[("stored_late", "output o9 was stored after the refund", 0)])),
            ],
            "refunded",
            "Too late, as found on 2025-11-24 15:51:00: output o9 was stored after the refund. Both stay",
        ),
        (
            vec![
                ("orphans", orphan("recovered", "output_available", later)),
                ("resolutions", resolution("recover", "output_available", ("recovery", file.clone()))),
            ],
            "recovered",
            "It is o1 at s3://b/k, video/mp4, 1 byte.",
        ),
        (
            vec![
                ("orphans", orphan("relinked", "misattributed", later)),
                ("resolutions", resolution("relink", "misattributed", ("recovery", file))),
            ],
            "put back",
            "Before, it was linked to ch_9/2.",
        ),
        (
            vec![
                ("orphans", orphan("closed", "already_refunded", later)),
                ("resolutions", resolution("close", "already_refunded", ("refund", Value::Null))),
            ],
            "closed",
            "It was closed without a refund on 2025-11-24 15:50:00, because the platform has refunded it itself",
        ),
    ] {
        let story = story(&with);
        let page = text::render(&story, None, None, NOW);
        assert!(page.contains(&format!("\nOutput 0: {state}\n")), "{page}");
        assert!(page.contains(says), "{says}\nis not in\n{page}");
        assert_eq!(as_json(&story, None, NOW)["meaning"][0]["state"], state);
    }
}

#[test]
fn unknown_reasons_are_shown_and_hostile_text_is_escaped() {
    let story = story(&[("orphans", orphan("open", "moon_phase\u{1b}[2J", NOW + Duration::from_hours(1)))]);
    let page = text::render(&story, None, None, NOW);
    assert!(page.contains("of moon_phase\\u{1b}[2J"), "{page}");
    assert!(!page.contains('\u{1b}'), "{page}");
}

#[test]
fn one_output_is_shown_without_the_others() {
    let event = |index: i64, answer: i64| {
        json!({"id": index, "output_index": index, "at": ago(9), "kind": "wait", "reason": null, "rule": null, "detail": null,
               "answer_id": answer, "pass_id": 1})
    };
    let answer = |id: i64| {
        json!({"id": id, "provider": "fal", "provider_job_id": "j", "asked_at": ago(9), "verdict": "running", "class": null,
               "code": null, "message": null, "offered": 0, "request": "GET x", "http_status": 200, "excerpt": ""})
    };
    let item = |index: i64| {
        json!({"output_index": index, "credits": 5, "provider": "fal", "provider_job_id": null, "provider_output_index": 0,
               "failed_at": null})
    };
    let mut story = story(&[
        ("items", json!([item(0), item(1)])),
        ("events", json!([event(0, 7), event(1, 8)])),
        ("answers", json!([answer(7), answer(8)])),
    ]);
    keep_only(&mut story, 1);
    let page = text::render(&story, Some(1), None, NOW);
    assert!(page.contains("Output 1") && !page.contains("Output 0"), "{page}");
    assert!(page.contains("#8 ") && !page.contains("#7 "), "{page}");
}

#[test]
fn a_refund_that_the_brake_would_hold_is_marked() {
    let asked = |decision, evidence: Evidence, brake| {
        let case = Case { facts: samples::asked_enough(), token: 0 };
        let consulted = vec![Consulted { case, evidence: Some(evidence.into()), decision }];
        let asked = Now { consulted, unreadable: Vec::new(), brake };
        text::render(&story(&[]), None, Some(&asked), NOW)
    };
    let ours = samples::evidence(Verdict::CouldNotTell(Doubt::Unauthorized));
    let theirs = samples::failed(FailureClass::ServerError);
    let refund = |reason, rule| Decision { action: Action::Refund, reason, rule };
    let unconfirmed = refund(Reason::Unconfirmed, 13);
    let proven = refund(Reason::ServerError, 6);
    let own_faults = BrakeHolds { own_faults: Some("too many of ours".to_owned()), ..BrakeHolds::default() };
    let all = BrakeHolds { all: Some("too many".to_owned()), ..BrakeHolds::default() };

    let held = "But the brake is on (too many of ours): the refund would be held.";
    assert!(asked(unconfirmed.clone(), ours.clone(), own_faults.clone()).contains(held));
    assert!(!asked(proven.clone(), theirs.clone(), own_faults).contains("the brake"));
    assert!(asked(proven, theirs, all).contains("But the brake is on (too many): the refund would be held."));
    assert!(!asked(unconfirmed, ours, BrakeHolds::default()).contains("the brake"));
}
