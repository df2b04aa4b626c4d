//! `makegood brake`: its status, and how a person engages and releases it for all refunds, one
//! provider or one account.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::output::{OutputFormat, print};
use super::parts::{load_providers, open_tables, read_failed};
use super::values::{person_name, visible_text};
use super::words::{count, plain, table, time, when};
use super::{CommandResult, Exit};
use crate::brake::BrakeHolds;
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::store::{BrakeEvent, BrakeState, DbError, HeldAccount, Store, Waiting};

/// The brake, which holds refunds if too many at once suggest that something else is broken.
#[derive(Debug, clap::Args)]
pub struct BrakeArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: BrakeCommand,
}

/// The subcommands of `makegood brake`.
#[derive(Debug, clap::Subcommand)]
pub enum BrakeCommand {
    /// Whether it is on, since when and why, and what it holds.
    Status {
        /// text or json. The default is text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
    /// Hold all refunds, or those of one provider, until a person releases them. Outputs are still
    /// recovered.
    Engage {
        /// Only refunds for jobs of this provider.
        #[arg(long, value_name = "NAME", value_parser = visible_text)]
        provider: Option<String>,
        /// Who engages it.
        #[arg(long, value_name = "WHO", value_parser = person_name)]
        by: String,
        /// Why refunds must wait, for the audit trail.
        #[arg(long, value_name = "WHY", value_parser = visible_text)]
        reason: String,
        /// text or json. The default is text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
    /// Release the refunds that it holds. Examine the cause first.
    ///
    /// Without --account and --provider it releases the brake on all refunds. Accounts and
    /// providers that have a hold of their own stay held.
    Release {
        /// Only this account, which its limits per day hold. Its counts restart at zero.
        #[arg(long, value_name = "ID", value_parser = visible_text, conflicts_with = "provider")]
        account: Option<String>,
        /// Only refunds for jobs of this provider.
        #[arg(long, value_name = "NAME", value_parser = visible_text)]
        provider: Option<String>,
        /// Who releases it.
        #[arg(long, value_name = "WHO", value_parser = person_name)]
        by: String,
        /// Why refunds may continue, for the audit trail.
        #[arg(long, value_name = "WHY", value_parser = visible_text)]
        reason: String,
        /// text or json. The default is text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
}

/// A provider counts as known if a charge within this time names it.
const KNOWN_WITHIN: Duration = Duration::from_hours(24);
/// The maximum number of held accounts listed.
const MAX_ACCOUNTS: i64 = 20;
/// The maximum number of events listed.
const MAX_EVENTS: i64 = 5;

/// Runs the command.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: BrakeArgs, settings: Settings) -> CommandResult {
    let store = open_tables(&settings).await?;
    let failed = |error: DbError| read_failed(&error);
    match args.command {
        BrakeCommand::Status { output } => {
            let now = store.now().await.map_err(failed)?;
            let brake = store.brake().await.map_err(failed)?;
            let mut held = store.waiting(now).await.map_err(failed)?;
            held.retain(|each| each.state == "held" && each.reason == "brake");
            let events = store.brake_events(MAX_EVENTS).await.map_err(failed)?;
            let accounts = store.held_accounts(MAX_ACCOUNTS).await.map_err(failed)?;
            print(&match OutputFormat::or_by_terminal(output) {
                OutputFormat::Text => status(&Shown { brake, held, accounts, events }, now),
                OutputFormat::Json => json!({
                    "now": now, "engaged": brake.engaged_at.is_some(), "engaged_at": brake.engaged_at,
                    "reason": brake.reason, "released_at": brake.released_at,
                    "own_faults_held_at": brake.own_faults_at, "own_faults_reason": brake.own_faults_reason,
                    "providers": brake.providers, "accounts_held": brake.accounts_held, "accounts": accounts,
                    "held": held, "events": events,
                })
                .to_string(),
            })?;
        }
        BrakeCommand::Engage { provider, by, reason, output } => {
            let unknown = match &provider {
                Some(name) => is_unknown(&store, &settings, name).await.map_err(failed)?,
                None => false,
            };
            let engaged = store.engage_brake(provider.as_deref(), &by, &reason).await.map_err(failed)?;
            if engaged {
                tracing::warn!(by, reason, provider, "the brake was engaged");
            }
            print(&match OutputFormat::or_by_terminal(output) {
                OutputFormat::Text => was_engaged(provider.as_deref(), engaged, unknown),
                OutputFormat::Json => {
                    json!({"engaged": engaged, "provider": provider, "unknown_provider": unknown}).to_string()
                }
            })?;
        }
        BrakeCommand::Release { account, provider, by, reason, output } => {
            let freed = match (&account, &provider) {
                (Some(account), _) => store.release_account(account, &by, &reason).await,
                (None, Some(provider)) => store.release_provider(provider, &by, &reason).await,
                (None, None) => store.release_brake(&by, &reason).await,
            };
            let freed = freed.map_err(failed)?;
            if let Some(freed) = freed {
                tracing::warn!(by, reason, freed, account, provider, "the brake was released");
            }
            let whose = match (&account, &provider) {
                (Some(account), _) => format!("The brake of account {}", plain(account)),
                (None, Some(provider)) => format!("The brake of provider {}", plain(provider)),
                (None, None) => "The brake".to_owned(),
            };
            print(&match OutputFormat::or_by_terminal(output) {
                OutputFormat::Text => match freed {
                    Some(freed) => format!(
                        "{whose} is off. {} held by it and due now: the next pass decides again and refunds what is owed.",
                        count(freed, "item was", "items were")
                    ),
                    None => format!("{whose} was not on, and it held nothing. Nothing was changed."),
                },
                OutputFormat::Json => json!({
                    "released": freed.is_some(), "freed": freed.unwrap_or(0), "account": account, "provider": provider,
                })
                .to_string(),
            })?;
        }
    }
    store.close().await;
    Ok(Exit::Done)
}

/// Whether neither a provider file nor a charge of the last day names the provider.
async fn is_unknown(store: &Store, settings: &Settings, name: &str) -> Result<bool, DbError> {
    if load_providers(settings).is_ok_and(|providers| providers.get(name).is_some()) {
        return Ok(false);
    }
    let now = store.now().await?;
    Ok(!store.recent_providers(now - KNOWN_WITHIN).await?.iter().any(|(known, _)| known == name))
}

fn was_engaged(provider: Option<&str>, engaged: bool, unknown: bool) -> String {
    let (whose, how) = match provider {
        Some(name) => {
            let name = plain(name);
            (format!("Refunds for jobs of {name}"), format!("makegood brake release --provider {name}"))
        }
        None => ("All refunds".to_owned(), "makegood brake release".to_owned()),
    };
    let mut text = if engaged {
        format!("{whose} are held from now on, in every process, until `{how} --by WHO --reason WHY`.")
    } else {
        format!("{whose} are held already. Nothing was changed.")
    };
    if unknown {
        text.push_str(
            " No provider file and no charge of the last 24 hours names this provider: check its spelling.",
        );
    }
    text
}

/// The data of `status`.
struct Shown {
    brake: BrakeState,
    held: Vec<Waiting>,
    accounts: Vec<HeldAccount>,
    events: Vec<BrakeEvent>,
}

fn status(Shown { brake, held, accounts, events }: &Shown, now: Timestamp) -> String {
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
    for (provider, why) in &brake.providers {
        let name = plain(provider);
        line(format!("THE BRAKE IS ON FOR {name} ONLY since {}.", when(why.engaged_at, now)));
        line(format!("  why   {}", plain(&why.reason)));
        line(format!("  then  makegood brake release --provider {name} --by WHO --reason WHY"));
    }
    if on == BrakeHolds::default() {
        line("The brake is off.".to_owned());
    }
    if brake.accounts_held > 0 {
        line(format!(
            "\n{} held by their own limits; no other account is.",
            count(i128::from(brake.accounts_held), "account is", "accounts are")
        ));
        let rows = accounts.iter().map(|each| {
            let refunds = each.refunds.unwrap_or_default().to_string();
            vec![each.account_id.clone(), refunds, when(each.held_at, now), each.reason.clone()]
        });
        line(table(&["account", "refunds", "since", "why"], &["refunds"], rows).trim_end().to_owned());
        line("  makegood brake release --account ID --by WHO --reason WHY".to_owned());
    }
    let held: Vec<&Waiting> = held.iter().filter(|each| !each.for_account).collect();
    let items: i64 = held.iter().map(|each| each.items).sum();
    if items > 0 {
        let credits = held.iter().fold(0_i64, |sum, each| sum.saturating_add(each.credits));
        let late: i64 = held.iter().map(|each| each.past_window).sum();
        line(format!(
            "\nIt holds {} of {}; {late} past their window.",
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
            "\nFaults of ours are: rejected API keys, missing provider files, answers that could not be read, and offered outputs\n\
             that could not be recovered. Fix them, then release: each item is asked about and decided again."
                .to_owned(),
        );
    }
    if on != BrakeHolds::default() || items > 0 {
        line("\nBefore you release it:".to_owned());
        line("  makegood run --dry-run                what would be decided; changes nothing".to_owned());
        line("  makegood explain CHARGE/INDEX --ask   the history of one item".to_owned());
        line("  makegood brake release --by WHO --reason WHY".to_owned());
    }
    if !events.is_empty() {
        line("\nRecent events".to_owned());
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
    use super::*;
    use crate::store::HeldProvider;

    const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

    #[test]
    fn the_status_shows_what_is_held_and_what_to_do() {
        let off = BrakeState::default();
        let shown =
            |brake: BrakeState| Shown { brake, held: Vec::new(), accounts: Vec::new(), events: Vec::new() };
        assert_eq!(status(&shown(off), NOW), "The brake is off.");
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
            for_account: false,
        };
        let event = BrakeEvent {
            at: NOW - Duration::from_mins(5),
            kind: "engaged".to_owned(),
            by_whom: "makegood".to_owned(),
            reason: "more than 3 refunds in an hour".to_owned(),
            account_id: None,
            provider: None,
        };
        let page = status(&Shown { held: vec![held], events: vec![event], ..shown(on) }, NOW);
        for says in [
            "THE BRAKE IS ON since 2025-11-24 15:55:00 (5m ago).\n  why   more than 3 refunds in an hour\n",
            "It holds 2 refunds of 20 credits; 0 past their window.",
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
        let page = status(&shown(ours), NOW);
        assert!(page.starts_with("THE BRAKE IS ON FOR FAULTS OF OURS since 2025-11-24 15:55:00"), "{page}");
        assert!(page.contains("more than 100 refunds") && page.contains("Fix them, then release"), "{page}");
        assert!(!page.contains("is off"), "{page}");
    }

    #[test]
    fn the_status_names_held_accounts_and_providers() {
        let since = NOW - Duration::from_mins(5);
        let fal = HeldProvider { engaged_at: since, reason: "ida: outage".to_owned() };
        let brake = BrakeState {
            providers: [("fal".to_owned(), fal)].into(),
            accounts_held: 1,
            ..BrakeState::default()
        };
        let mallory = HeldAccount {
            account_id: "mallory".to_owned(),
            held_at: since,
            reason: "more than 50 refunds in a day".to_owned(),
            refunds: Some(950),
        };
        let page =
            status(&Shown { brake, held: Vec::new(), accounts: vec![mallory], events: Vec::new() }, NOW);
        for says in [
            "THE BRAKE IS ON FOR fal ONLY since 2025-11-24 15:55:00 (5m ago).\n  why   ida: outage\n",
            "makegood brake release --provider fal --by WHO",
            "1 account is held by their own limits; no other account is.",
            "  mallory      950  2025-11-24 15:55:00 (5m ago)  more than 50 refunds in a day",
            "makegood brake release --account ID --by WHO",
        ] {
            assert!(page.contains(says), "{says}\nis not in\n{page}");
        }
        assert!(!page.contains("is off"), "{page}");
    }
}
