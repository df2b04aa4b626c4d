//! One paragraph about one item of a charge: what happened to it, why, and what comes next.

use std::time::Duration;

use super::meaning::{advice, because, because_waiting, read};
use crate::cli::words::{count, plain, relative, time, when};
use crate::clock::Timestamp;
use crate::duration::format_rounded;
use crate::policy::Reason;
use crate::store::{ItemRow, OrphanRow, OutputRow, ResolutionRow, ReversalRow, Story};

/// The state of an item whose refund was reversed. The JSON output uses this text too.
pub(in crate::cli) const REVERSED: &str = "refunded, and the refund taken back";

fn current(story: &Story, index: i64) -> Option<&ResolutionRow> {
    story.resolutions.iter().rfind(|each| each.output_index == index && each.superseded_at.is_none())
}

fn reversal_of(story: &Story, index: i64) -> Option<&ReversalRow> {
    current(story, index)?.refund.as_ref()?.reversal.as_ref()
}

/// The state of an item. The JSON output uses these words too.
pub(in crate::cli) fn state(story: &Story, index: i64) -> &'static str {
    let orphan = story.orphans.iter().find(|orphan| orphan.output_index == index);
    match orphan.map(|orphan| orphan.state.as_str()) {
        Some("open") => "open",
        Some("held") => "held for a person",
        Some("refunded") if reversal_of(story, index).is_some() => REVERSED,
        Some("refunded") => "refunded",
        Some("recovered") => "recovered",
        Some("relinked") => "put back",
        Some("closed") => "closed",
        Some(_) => "in a state that this version does not know",
        None if output_of(story, index).is_some() => "stored",
        None => "not looked into",
    }
}

/// The paragraph.
pub(in crate::cli) fn write(story: &Story, index: i64, now: Timestamp) -> String {
    let item = story.items.iter().find(|item| item.output_index == index);
    let orphan = story.orphans.iter().find(|orphan| orphan.output_index == index);
    let Some(orphan) = orphan else {
        return not_looked_into(story, item, index, now);
    };
    let resolution = current(story, index);
    match (orphan.state.as_str(), resolution) {
        ("open", _) => open(orphan, now),
        ("held", _) => held(orphan, now),
        ("refunded", Some(resolution)) => resolved(resolution) + &since_the_refund(story, index),
        (_, Some(resolution)) => resolved(resolution) + &lost(story, index),
        (state, None) => format!("It is {state}, and no current resolution is on record."),
    }
}

/// A sentence about a recovered or relinked output whose row the platform has removed.
fn lost(story: &Story, index: i64) -> String {
    let of_item = |each: &&ResolutionRow| each.output_index == index;
    let Some(file) =
        story.resolutions.iter().filter(of_item).filter_map(|each| each.recovery.as_ref()).next_back()
    else {
        return String::new();
    };
    if output_of(story, index).is_some()
        || story.outputs.iter().any(|output| output.id == file.stored_output_id)
    {
        return String::new();
    }
    format!(
        " The platform has removed the row of {} from stored_outputs since. The output was delivered, so the item stays paid. \
         `makegood recover` inserts the row again while the file exists.",
        plain(&file.stored_output_id)
    )
}

/// Sentences about what happened after a refund: late questions, late outputs, a reversal.
fn since_the_refund(story: &Story, index: i64) -> String {
    let mut text = String::new();
    for event in story.events.iter().filter(|event| event.output_index == index) {
        let at = time(event.at);
        match event.kind.as_str() {
            "asked_again" => {
                // If the detail was erased, the verdict is still stored.
                let answer = story.answers.iter().find(|answer| Some(answer.id) == event.answer_id);
                let said = event.detail.as_deref().or(answer.map(|answer| answer.verdict.as_str()));
                let said = said.map_or_else(|| "nothing".to_owned(), plain);
                let answer = event.answer_id.map_or_else(String::new, |id| format!(" (answer #{id})"));
                let asked = format!(" The provider was asked again on {at} and said: {said}{answer}.");
                text.push_str(&asked);
            }
            "late_success" => {
                text.push_str(
                    " So the provider made and billed it, and it was never delivered: `makegood report` lists it to claim it \
                     back. The refund stays.",
                );
            }
            "reversed" => {
                let what = event.detail.as_deref().map_or_else(|| "by hand".to_owned(), plain);
                let reversed = format!(
                    " The refund was reversed on {at}: {what}. The item is billable again, and nothing more happens automatically."
                );
                text.push_str(&reversed);
            }
            "stored_late" => {
                let what = event.detail.as_deref().map_or_else(|| "its output was stored".to_owned(), plain);
                let late = format!(
                    " Too late, as found on {at}: {what}. Both stay: the output is kept and is not billed."
                );
                text.push_str(&late);
            }
            _ => {}
        }
    }
    text
}

fn output_of(story: &Story, index: i64) -> Option<&OutputRow> {
    let of_it = |output: &&OutputRow| {
        output.charge_id.as_deref() == Some(&story.charge.id) && output.output_index == Some(index)
    };
    story.outputs.iter().find(of_it)
}

fn not_looked_into(story: &Story, item: Option<&ItemRow>, index: i64, now: Timestamp) -> String {
    if item.is_some_and(|item| item.credits == 0) {
        return "It has no price, so nothing is owed for it.".to_owned();
    }
    if let Some(output) = output_of(story, index) {
        let deleted = output
            .deleted_at
            .map_or_else(String::new, |at| format!(" It was deleted on {}; it stays paid.", time(at)));
        return format!(
            "Its output {} was stored on {}. makegood had nothing to do.{deleted}",
            plain(&output.id),
            time(output.stored_at)
        );
    }
    let age = now.since(story.charge.charged_at);
    let old = if age > Duration::from_hours(24) {
        " If it is older than detect.backlog_age, only `makegood run --since T --backlog` examines it."
    } else {
        ""
    };
    format!(
        "No output of it is stored, and makegood has not examined it yet. It was charged {}; the first pass after its grace \
         examines it.{old}",
        relative(story.charge.charged_at, now)
    )
}

/// The cause and the reason's word, and the advice.
fn why(orphan: &OrphanRow) -> (String, &'static str) {
    let Some(word) = orphan.reason.as_deref() else {
        return ("the provider has not been asked yet".to_owned(), "");
    };
    match read(word) {
        Some(Reason::Brake) if orphan.state == "open" => {
            (because_waiting("open", Reason::Brake).to_owned(), "")
        }
        Some(reason) => (format!("{} ({word})", because(reason)), advice(reason)),
        None => (format!("of {}", plain(word)), ""),
    }
}

fn open(orphan: &OrphanRow, now: Timestamp) -> String {
    let (why, advice) = why(orphan);
    let mut text = format!("It is open: {why}.");
    if orphan.questions > 0 {
        let last =
            orphan.last_asked_at.map_or_else(String::new, |at| format!(", last {}", relative(at, now)));
        text = format!("{text} The provider was asked {}{last}.", count(orphan.questions, "time", "times"));
    }
    text = match orphan.leased_until.filter(|until| *until > now) {
        Some(until) => {
            format!("{text} A pass, or a command, holds a lease on it until {} at most.", time(until))
        }
        None if orphan.due_at <= now => format!("{text} The next pass examines it."),
        None => format!("{text} It is examined again at {}.", when(orphan.due_at, now)),
    };
    text = if orphan.refund_by > now {
        format!("{text} At {} it is refunded even without proof.", when(orphan.refund_by, now))
    } else {
        format!(
            "{text} Since {} it is refunded even without proof, as soon as the provider was asked three times over half \
             an hour.",
            when(orphan.refund_by, now)
        )
    };
    finish(text, orphan, advice, now)
}

fn held(orphan: &OrphanRow, now: Timestamp) -> String {
    let (why, advice) = why(orphan);
    let text =
        format!("It is held for a person: {why}. It is examined again at {}.", when(orphan.due_at, now));
    finish(text, orphan, advice, now)
}

fn finish(mut text: String, orphan: &OrphanRow, advice: &str, now: Timestamp) -> String {
    if orphan.window_ends_at <= now {
        text = format!(
            "{text} It is LATE: its window of {} ended at {}.",
            format_rounded(orphan.window_ends_at.since(orphan.charged_at)),
            when(orphan.window_ends_at, now)
        );
    }
    if advice.is_empty() { text } else { format!("{text} {advice}") }
}

fn resolved(resolution: &ResolutionRow) -> String {
    let word = &resolution.reason;
    let why = read(word).map_or("", because);
    let rule = format!(
        "{} (rule {}, {}), decided by {}",
        why,
        resolution.rule,
        plain(word),
        plain(&resolution.decided_by)
    );
    let at = time(resolution.resolved_at);
    match (resolution.kind.as_str(), &resolution.refund, &resolution.recovery) {
        ("refund", Some(refund), _) => {
            let total = refund.subscription_credits.saturating_add(refund.wallet_credits);
            format!(
                "{} refunded on {at}, {} to the subscription and {} to the wallet, because {rule}.",
                count(total, "credit was", "credits were"),
                refund.subscription_credits,
                refund.wallet_credits
            )
        }
        ("recover", _, Some(file)) => {
            let size = file
                .size_bytes
                .map_or_else(String::new, |size| format!(", {}", count(size, "byte", "bytes")));
            let kind =
                file.content_type.as_ref().map_or_else(String::new, |kind| format!(", {}", plain(kind)));
            format!(
                "Its output was recovered on {at}, because {rule}. It is {} at {}{kind}{size}.",
                plain(&file.stored_output_id),
                plain(file.uri.as_deref().unwrap_or("an unknown place"))
            )
        }
        ("relink", _, Some(output)) => {
            let from = match (&output.from_charge_id, output.from_output_index) {
                (Some(charge), Some(index)) => format!("was linked to {}/{index}", plain(charge)),
                (Some(_) | None, None) | (None, Some(_)) => "was linked to no item".to_owned(),
            };
            format!(
                "Its output {} was relinked on {at}, because {rule}. Before, it {from}.",
                plain(&output.stored_output_id)
            )
        }
        ("close", _, _) => format!("It was closed without a refund on {at}, because {rule}."),
        (kind, _, _) => format!("It was settled on {at} by {}, because {rule}.", plain(kind)),
    }
}
