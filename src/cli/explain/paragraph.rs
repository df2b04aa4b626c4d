//! One item of a charge in one plain paragraph: what happened to it, why, and what comes next.

use std::time::Duration;

use super::meaning::{advice, because, because_waiting, read};
use crate::cli::words::{count, plain, relative, time, when};
use crate::clock::Timestamp;
use crate::duration::format_rounded;
use crate::policy::Reason;
use crate::store::{ItemRow, OrphanRow, OutputRow, ResolutionRow, ReversalRow, Story};

/// How an item stands whose refund was taken back.
pub(in crate::cli) const REVERSED: &str = "refunded, and the refund taken back";

fn current(story: &Story, index: i64) -> Option<&ResolutionRow> {
    story.resolutions.iter().rfind(|each| each.output_index == index && each.superseded_at.is_none())
}

fn reversal_of(story: &Story, index: i64) -> Option<&ReversalRow> {
    current(story, index)?.refund.as_ref()?.reversal.as_ref()
}

/// In a word or two.
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

/// What it means.
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

/// What the platform has removed of what was recovered or put back.
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
        " The platform has removed the row of {} from stored_outputs since: it was delivered and stays paid. `makegood recover` \
         inserts the row again while the file exists.",
        plain(&file.stored_output_id)
    )
}

/// What became known after a refund: who was asked again, and whether it was made after all.
fn since_the_refund(story: &Story, index: i64) -> String {
    let mut text = String::new();
    for event in story.events.iter().filter(|event| event.output_index == index) {
        let at = time(event.at);
        match event.kind.as_str() {
            "asked_again" => {
                // The verdict stays when the detail is erased.
                let answer = story.answers.iter().find(|answer| Some(answer.id) == event.answer_id);
                let said = event.detail.as_deref().or(answer.map(|answer| answer.verdict.as_str()));
                let said = said.map_or_else(|| "nothing".to_owned(), plain);
                let answer = event.answer_id.map_or_else(String::new, |id| format!(" (answer #{id})"));
                let asked = format!(" The provider was asked again on {at} and said: {said}{answer}.");
                text.push_str(&asked);
            }
            "late_success" => {
                text.push_str(
                    " So it was made, and paid for at the provider, and never delivered: it is reported to be claimed \
                     back. The refund stays.",
                );
            }
            "reversed" => {
                let what = event.detail.as_deref().map_or_else(|| "by hand".to_owned(), plain);
                let reversed = format!(
                    " The refund was taken back on {at}: {what}. It is billable again, and nothing more happens by itself."
                );
                text.push_str(&reversed);
            }
            "stored_late" => {
                let what = event.detail.as_deref().map_or_else(|| "its output came".to_owned(), plain);
                let late = format!(
                    " Too late, as noticed on {at}: {what}. Both stay: the output is kept and is not billed."
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
        return "It cost nothing, so nothing is owed for it.".to_owned();
    }
    if let Some(output) = output_of(story, index) {
        let deleted = output
            .deleted_at
            .map_or_else(String::new, |at| format!(" It was deleted on {}; it stays paid.", time(at)));
        return format!(
            "Its output {} is stored since {}. makegood had no need to look into it.{deleted}",
            plain(&output.id),
            time(output.stored_at)
        );
    }
    let age = now.since(story.charge.charged_at);
    let old = if age > Duration::from_hours(24) {
        " If it is older than detect.backlog_age, only `makegood run --since T --backlog` looks into it."
    } else {
        ""
    };
    format!(
        "No output of it is stored, and makegood has not come to it: it was charged {} and is looked into once its grace \
         is over, by the next pass.{old}",
        relative(story.charge.charged_at, now)
    )
}

/// Why, with the words that logs and metrics use.
fn why(orphan: &OrphanRow) -> (String, &'static str) {
    let Some(word) = orphan.reason.as_deref() else {
        return ("nobody has been asked yet".to_owned(), "");
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
            format!("{text} A pass, or a person, has it in hand just now, until {} at most.", time(until))
        }
        None if orphan.due_at <= now => format!("{text} The next pass looks at it."),
        None => format!("{text} It is looked at again at {}.", when(orphan.due_at, now)),
    };
    text = if orphan.refund_by > now {
        format!(
            "{text} The benefit of the doubt ends at {}: then it is refunded also without proof.",
            when(orphan.refund_by, now)
        )
    } else {
        format!(
            "{text} The benefit of the doubt ended at {}: it is refunded as soon as it was asked about three times over \
             half an hour.",
            when(orphan.refund_by, now)
        )
    };
    finish(text, orphan, advice, now)
}

fn held(orphan: &OrphanRow, now: Timestamp) -> String {
    let (why, advice) = why(orphan);
    let text =
        format!("It is held for a person: {why}. It is looked at again at {}.", when(orphan.due_at, now));
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
                "{} went back on {at}, {} to the subscription and {} to the wallet, because {rule}.",
                count(total, "credit", "credits"),
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
                "Its output was brought home on {at}, because {rule}. It is {} at {}{kind}{size}.",
                plain(&file.stored_output_id),
                plain(file.uri.as_deref().unwrap_or("an unknown place"))
            )
        }
        ("relink", _, Some(output)) => {
            let from = match (&output.from_charge_id, output.from_output_index) {
                (Some(charge), Some(index)) => format!("hung on {}/{index}", plain(charge)),
                (Some(_) | None, None) | (None, Some(_)) => "hung on no item".to_owned(),
            };
            format!(
                "Its output {} was put back where it belongs on {at}, because {rule}. Before, it {from}.",
                plain(&output.stored_output_id)
            )
        }
        ("close", _, _) => format!("It was closed without a refund on {at}, because {rule}."),
        (kind, _, _) => format!("It was settled on {at} by {}, because {rule}.", plain(kind)),
    }
}
