//! Selects the parts of a report that `/status` may show.
//!
//! The page has no login. Without `metrics.status_details` it shows counts, times, makegood's own
//! words, and the ids of items, charges and providers. It shows no account, no key, no message of a
//! provider or of the database, and no text that a person wrote. A new field of the report is
//! hidden until it is listed here.

use serde_json::{Value, json};

use crate::report::{Finding, PassReport, UnresolvedTotals};

/// The report as the page shows it. With `details`, the whole report.
pub fn shown(report: &PassReport, details: bool) -> Value {
    if details {
        return serde_json::to_value(report).unwrap_or_default();
    }
    let PassReport {
        pass_id,
        dry_run,
        started_at,
        finished_at,
        stopped_early,
        opened,
        reopened,
        backlog,
        claimed,
        outcomes,
        refunded_credits,
        recovered_bytes,
        asked_again,
        late_successes,
        stored_late,
        swept,
        questions,
        findings,
        findings_left_out,
        unresolved,
    } = report;
    let mut page = json!({
        "pass_id": pass_id,
        "dry_run": dry_run,
        "started_at": started_at,
        "finished_at": finished_at,
        "stopped_early": stopped_early,
        "opened": opened,
        "reopened": reopened,
        "backlog": backlog,
        "claimed": claimed,
        "outcomes": outcomes,
        "refunded_credits": refunded_credits,
        "recovered_bytes": recovered_bytes,
        "asked_again": asked_again,
        "late_successes": late_successes,
        "stored_late": stored_late,
        "swept": swept,
        "questions": questions,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_left_out": findings_left_out,
        "unresolved": standing(unresolved),
    });
    if !findings.is_empty() {
        page["details"] = "in the log; metrics.status_details = true shows them here".into();
    }
    page
}

fn finding(finding: &Finding) -> Value {
    let Finding { kind, about, detail: _ } = finding;
    let is_shown = ["item ", "charge ", "provider "].iter().any(|subject| about.starts_with(subject));
    if is_shown { json!({"kind": kind, "about": about}) } else { json!({"kind": kind}) }
}

fn standing(standing: &UnresolvedTotals) -> Value {
    let UnresolvedTotals {
        open,
        held,
        held_by_brake,
        held_for_accounts,
        accounts_held,
        accounts_newly_held,
        past_window,
        oldest_charged_at,
        brake,
        own_faults,
        providers,
    } = standing;
    json!({
        "open": open,
        "held": held,
        "held_by_brake": held_by_brake,
        "held_for_accounts": held_for_accounts,
        "accounts_held": accounts_held,
        "accounts_newly_held": accounts_newly_held,
        "past_window": past_window,
        "oldest_charged_at": oldest_charged_at,
        "brake": brake.is_some(),
        "own_faults": own_faults.is_some(),
        "providers": providers.keys().collect::<Vec<_>>(),
    })
}
