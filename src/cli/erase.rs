//! `makegood erase`: sets texts of providers and people to null, by account or by age, with name
//! and reason stored.
//!
//! The proof of a refund stays. The work is committed in portions, so it can be interrupted at any
//! moment; the same command then continues. Texts of open and held cases stay, and the output
//! counts them.

use serde_json::json;

use super::output::{OutputFormat, print};
use super::parts::open_tables;
use super::values::{SinceArg, person_name, visible_text};
use super::words::{count, plain, time};
use super::{CommandResult, Exit, Failure};
use crate::config::Settings;
use crate::store::{DbError, ERASURE_ROWS, Erased, Erasing, Place, Whose};

/// Erase texts of providers and people, in your name.
///
/// Erases the texts of answers (code, message, request, excerpt), details of events, reports of
/// passes and the last messages of providers. The proof of a refund stays: verdict, reason, rule,
/// amounts, accounts, times, ids, and a SHA-256 of each erased text. The texts cannot be restored:
/// export first what you need (`explain` and `report`, with --output).
///
/// Texts of open and held cases stay, and the exit code is then 3. If it is interrupted, run the
/// same command again to continue.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub struct EraseArgs {
    /// Erase all texts about this account's charges.
    #[arg(long, value_name = "ID", group = "whose")]
    account: Option<String>,
    /// Erase all texts from before this time: an instant (2026-01-31T06:00:00Z), or a time span
    /// before now (365d).
    #[arg(long, value_name = "TIME", group = "whose")]
    before: Option<SinceArg>,
    /// Your name, for the audit trail.
    #[arg(long, value_name = "WHO", value_parser = person_name)]
    by: String,
    /// The reason, for the audit trail, such as the number of a request.
    #[arg(long, value_name = "WHY", value_parser = visible_text)]
    reason: String,
    /// Only count what would be erased.
    #[arg(long)]
    dry_run: bool,
    /// text or json. The default is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

/// Runs the command.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: EraseArgs, settings: Settings) -> CommandResult {
    let format = OutputFormat::or_by_terminal(args.output);
    let store = open_tables(&settings).await?;
    let now = store.now().await.map_err(|error| failed(&error, &Erased::default()))?;
    let whose = match (args.account, args.before) {
        (Some(account), _) => Whose::Account(account),
        (None, Some(before)) => Whose::OlderThan(before.at(now)),
        (None, None) => return Err(Failure::usage("expected --account or --before")),
    };
    if matches!(&whose, Whose::OlderThan(before) if *before > now) {
        store.close().await;
        return Err(Failure::usage(
            "--before is in the future and would erase everything; nothing was erased",
        ));
    }
    let order = Erasing { whose, by: args.by, why: args.reason, dry_run: args.dry_run, rows: ERASURE_ROWS };
    let mut erased = Erased::default();
    let mut place = Some(Place::default());
    while let Some(at) = place {
        let (portion, next) =
            store.erase_portion(&order, at).await.map_err(|error| failed(&error, &erased))?;
        erased.add(&portion);
        place = next;
    }
    store.close().await;
    let (account, before) = match &order.whose {
        Whose::Account(account) => (Some(account), None),
        Whose::OlderThan(before) => (None, Some(before)),
    };
    let text = headline(&order, &erased);
    print(&match format {
        OutputFormat::Text => text,
        OutputFormat::Json => json!({
            "dry_run": order.dry_run, "account_id": account, "before": before, "by": order.by, "reason": order.why,
            "erased": {
                "answers": erased.answers, "events": erased.events, "pass_reports": erased.pass_reports,
                "provider_messages": erased.provider_messages,
            },
            "left": {"answers": erased.left_answers, "events": erased.left_events},
            "text": text,
        })
        .to_string(),
    })?;
    Ok(if erased.left() > 0 { Exit::Attention } else { Exit::Done })
}

fn headline(order: &Erasing, erased: &Erased) -> String {
    let of = match &order.whose {
        Whose::Account(account) => format!("of account {}", plain(account)),
        Whose::OlderThan(before) => format!("from before {}", time(*before)),
    };
    let mut all = list(erased);
    let mut text = match all.pop() {
        None if order.dry_run => format!("There is nothing to erase {of}."),
        None => format!("Nothing was erased {of}: there is nothing to erase."),
        Some(last) => {
            let all = if all.is_empty() { last } else { format!("{} and {last}", all.join(", ")) };
            if order.dry_run {
                format!("Would erase up to {all} {of}. Nothing was changed.")
            } else {
                format!("Erased {all} {of}. The proof of refunds stays.")
            }
        }
    };
    if erased.left() > 0 {
        let left = Erased { answers: erased.left_answers, events: erased.left_events, ..Erased::default() };
        let left = format!(
            " Left {} of open or held cases, because a person may need them to decide. Run it again once they are resolved.",
            list(&left).join(" and ")
        );
        text.push_str(&left);
    }
    text
}

/// The counts of each kind, as text.
fn list(erased: &Erased) -> Vec<String> {
    let kinds = [
        (erased.answers, "answer of providers", "answers of providers"),
        (erased.events, "detail of events", "details of events"),
        (erased.pass_reports, "report of passes", "reports of passes"),
        (erased.provider_messages, "last message of a provider", "last messages of providers"),
    ];
    kinds.into_iter().filter(|kind| kind.0 > 0).map(|(number, one, many)| count(number, one, many)).collect()
}

fn failed(error: &DbError, erased: &Erased) -> Failure {
    let advice = if error.is_about_rights() {
        "run it as a role that may call makegood_erase (see docs/erasure.md)"
    } else {
        error.trouble().advice().unwrap_or("`makegood check` says what is wrong")
    };
    let so_far = match erased.total() {
        0 => "nothing was erased".to_owned(),
        total => format!(
            "{} erased and recorded before the failure; run it again to continue",
            count(total, "text was", "texts were")
        ),
    };
    Failure::from(format!("could not erase: {}; {advice}; {so_far}", crate::report::chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn the_headline_counts_what_was_erased_and_what_was_left() {
        let before = Whose::OlderThan(Timestamp::parse("2026-01-31T06:00:00Z").unwrap());
        let order = |whose: &Whose, dry_run| Erasing {
            whose: whose.clone(),
            by: "mia".to_owned(),
            why: "x".to_owned(),
            dry_run,
            rows: 1,
        };
        let some = Erased { answers: 1, events: 2, pass_reports: 3, left_events: 1, ..Erased::default() };
        assert_eq!(
            headline(&order(&before, false), &some),
            "Erased 1 answer of providers, 2 details of events and 3 reports of passes from before 2026-01-31 06:00:00. \
             The proof of refunds stays. Left 1 detail of events of open or held cases, because a person may need them to \
             decide. Run it again once they are resolved."
        );
        let account = Whose::Account("u\u{1b}1".to_owned());
        assert_eq!(
            headline(&order(&account, true), &Erased { answers: 4, ..Erased::default() }),
            "Would erase up to 4 answers of providers of account u\\u{1b}1. Nothing was changed."
        );
        assert_eq!(
            headline(&order(&account, false), &Erased::default()),
            "Nothing was erased of account u\\u{1b}1: there is nothing to erase."
        );
    }
}
