//! `makegood brake`: how it stands, and its release by a person.

use std::fmt::Write as _;

use serde_json::json;

use super::output::{OutputFormat, print};
use super::parts::{open_store, said_for_people};
use super::values::{said, who};
use super::words::{count, plain, table, time, when};
use super::{Exit, Outcome};
use crate::brake::Held;
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::store::{BrakeEvent, BrakeState, DbError, Waiting};

/// The brake, which stops refunds when too many at once suggest that something else is broken.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: BrakeCommand,
}

/// What to do with the brake.
#[derive(Debug, clap::Subcommand)]
pub enum BrakeCommand {
    /// Whether it is on, since when and why, and what it holds.
    Status {
        /// text or json; without it, text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
    /// Let go of what it holds. Look into the cause first; who and why are kept.
    Release {
        /// Who releases it.
        #[arg(long, value_name = "WHO", value_parser = who)]
        by: String,
        /// Why it is right to go on.
        #[arg(long, value_name = "WHY", value_parser = said)]
        reason: String,
        /// text or json; without it, text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
}

/// How much of the past is shown.
const EVENTS: i64 = 5;

/// Runs the command.
///
/// # Errors
/// What ends the process.
pub async fn run(args: Args, settings: Settings) -> Outcome {
    let store = open_store(&settings).await?;
    let failed = |error: DbError| said_for_people(&error);
    match args.command {
        BrakeCommand::Status { output } => {
            let now = store.now().await.map_err(failed)?;
            let brake = store.brake().await.map_err(failed)?;
            let mut held = store.waiting(now).await.map_err(failed)?;
            held.retain(|each| each.state == "held" && each.reason == "brake");
            let events = store.brake_events(EVENTS).await.map_err(failed)?;
            print(&match OutputFormat::or_by_terminal(output) {
                OutputFormat::Text => status(&brake, &held, &events, now),
                OutputFormat::Json => json!({
                    "now": now, "engaged": brake.engaged_at.is_some(), "engaged_at": brake.engaged_at,
                    "reason": brake.reason, "released_at": brake.released_at,
                    "own_faults_held_at": brake.own_faults_at, "own_faults_reason": brake.own_faults_reason,
                    "held": held, "events": events,
                })
                .to_string(),
            })?;
        }
        BrakeCommand::Release { by, reason, output } => {
            let freed = store.release_brake(&by, &reason).await.map_err(failed)?;
            if let Some(freed) = freed {
                tracing::warn!(by, reason, freed, "the brake was released");
            }
            print(&match OutputFormat::or_by_terminal(output) {
                OutputFormat::Text => match freed {
                    Some(freed) => format!(
                        "The brake is off. {} held by it, due now: the next pass decides again and pays what is owed.",
                        count(freed, "item was", "items were")
                    ),
                    None => "The brake was not on, and it held nothing. Nothing was changed.".to_owned(),
                },
                OutputFormat::Json => {
                    json!({"released": freed.is_some(), "freed": freed.unwrap_or(0)}).to_string()
                }
            })?;
        }
    }
    store.close().await;
    Ok(Exit::Done)
}

fn status(brake: &BrakeState, held: &[Waiting], events: &[BrakeEvent], now: Timestamp) -> String {
    let mut page = String::new();
    let mut line = |line: String| {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{line}");
    };
    let on = brake.held();
    if let (Some(since), Some(why)) = (brake.engaged_at, &on.all) {
        line(format!("THE BRAKE IS ON since {}.", when(since, now)));
        line(format!("  why   {}", plain(why)));
    }
    if let (Some(since), Some(why)) = (brake.own_faults_at, &on.own_faults) {
        line(format!("THE BRAKE IS ON FOR FAULTS OF OURS since {}.", when(since, now)));
        line(format!("  why   {}", plain(why)));
    }
    if on == Held::default() {
        line("The brake is off.".to_owned());
    }
    let items: i64 = held.iter().map(|each| each.items).sum();
    if items > 0 {
        let credits = held.iter().fold(0_i64, |sum, each| sum.saturating_add(each.credits));
        let late: i64 = held.iter().map(|each| each.past_window).sum();
        line(format!(
            "\nIt holds {} of {}; {late} past the time promised.",
            count(items, "refund", "refunds"),
            count(credits, "credit", "credits")
        ));
        let rows = held.iter().map(|each| {
            vec![
                each.provider.clone(),
                each.items.to_string(),
                each.credits.to_string(),
                each.past_window.to_string(),
                when(each.oldest_charged_at, now),
                each.example.clone(),
            ]
        });
        let header = ["provider", "refunds", "credits", "late", "oldest charge", "for instance"];
        line(table(&header, &["refunds", "credits", "late"], rows).trim_end().to_owned());
    }
    if on.own_faults.is_some() {
        line(
            "\nFaults of ours are: keys refused, provider files missing, answers that could not be read, outputs that are offered \
             and\ncould not be brought home. Mend those, then release: each is decided again, and asked about again."
                .to_owned(),
        );
    }
    if on != Held::default() || items > 0 {
        line("\nLook before you release:".to_owned());
        line(
            "  makegood run --dry-run                what would be decided, with nothing carried out"
                .to_owned(),
        );
        line("  makegood explain CHARGE/INDEX --ask   the story of one".to_owned());
        line("  makegood brake release --by WHO --reason WHY".to_owned());
    }
    if !events.is_empty() {
        line("\nLately".to_owned());
        let rows = events.iter().map(|event| {
            vec![time(event.at), event.kind.clone(), event.by_whom.clone(), event.reason.clone()]
        });
        line(table(&["time", "what", "by", "why"], &[], rows).trim_end().to_owned());
    }
    page.truncate(page.trim_end().len());
    page
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

    #[test]
    fn the_status_says_what_is_held_and_what_to_do() {
        let off = BrakeState::default();
        assert_eq!(status(&off, &[], &[], NOW), "The brake is off.");
        let on = BrakeState {
            engaged_at: Some(NOW - Duration::from_mins(5)),
            reason: Some("more than 3 refunds in an hour".to_owned()),
            ..BrakeState::default()
        };
        let held = Waiting {
            state: "held".to_owned(),
            provider: "fal".to_owned(),
            reason: "brake".to_owned(),
            items: 2,
            credits: 20,
            oldest_charged_at: NOW - Duration::from_hours(3),
            past_window: 0,
            example: "ch_1/0".to_owned(),
        };
        let event = BrakeEvent {
            at: NOW - Duration::from_mins(5),
            kind: "engaged".to_owned(),
            by_whom: "makegood".to_owned(),
            reason: "more than 3 refunds in an hour".to_owned(),
        };
        let page = status(&on, &[held], &[event], NOW);
        for says in [
            "THE BRAKE IS ON since 2025-11-24 15:55:00 (5m ago).\n  why   more than 3 refunds in an hour\n",
            "It holds 2 refunds of 20 credits; 0 past the time promised.",
            "  fal             2       20     0  2025-11-24 13:00:00 (3h ago)  ch_1/0",
            "makegood brake release --by WHO --reason WHY",
            "  2025-11-24 15:55:00  engaged  makegood  more than 3 refunds in an hour",
        ] {
            assert!(page.contains(says), "{says}\nis not in\n{page}");
        }
        let ours = BrakeState {
            own_faults_at: Some(NOW - Duration::from_mins(5)),
            own_faults_reason: Some("more than 100 refunds".to_owned()),
            ..BrakeState::default()
        };
        let page = status(&ours, &[], &[], NOW);
        assert!(page.starts_with("THE BRAKE IS ON FOR FAULTS OF OURS since 2025-11-24 15:55:00"), "{page}");
        assert!(
            page.contains("more than 100 refunds") && page.contains("Mend those, then release"),
            "{page}"
        );
        assert!(!page.contains("is off"), "{page}");
    }
}
