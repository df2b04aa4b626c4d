//! `makegood erase`: what providers and people have written about cases is set to null, by account
//! or by age, with name and reason kept.
//!
//! What proves a refund stays. It works in portions that are committed one by one, so it can be
//! interrupted at any moment: the same command goes on. What belongs to open and held cases is
//! left, and said to be.

use serde_json::json;

use super::output::{OutputFormat, print};
use super::parts::open_tables;
use super::values::{Since, said, who};
use super::words::{count, plain, time};
use super::{Exit, Failure, Outcome};
use crate::config::Settings;
use crate::store::{DbError, ERASURE_ROWS, Erased, Erasing, Place, Whose};

/// Erase what providers and people have written about cases, in your name.
///
/// Erases the texts of answers (code, message, request, excerpt), details of events, reports of
/// passes and the last messages of providers. What proves a refund stays: verdict, reason, rule,
/// amounts, accounts, times, ids, and a SHA-256 of each erased text. Nothing brings the texts back:
/// export first what you need (`explain` and `report`, with --output).
///
/// What belongs to open and held cases is left, and the exit code is 3. Interrupted, it goes on
/// when it is said again.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub struct Args {
    /// All that was written about this account's charges.
    #[arg(long, value_name = "ID", group = "whose")]
    account: Option<String>,
    /// All that was written before this: an instant (2026-01-31T06:00:00Z), or a time span before
    /// now (365d).
    #[arg(long, value_name = "TIME", group = "whose")]
    before: Option<Since>,
    /// Your name: it is kept.
    #[arg(long, value_name = "WHO", value_parser = who)]
    by: String,
    /// Why: it is kept too. The number of a request, for instance.
    #[arg(long, value_name = "WHY", value_parser = said)]
    reason: String,
    /// Count what would be erased, and erase nothing.
    #[arg(long)]
    dry_run: bool,
    /// text or json; without it, text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
pub async fn run(args: Args, settings: Settings) -> Outcome {
    let format = OutputFormat::or_by_terminal(args.output);
    let store = open_tables(&settings).await?;
    let now = store.now().await.map_err(|error| failed(&error, &Erased::default()))?;
    let whose = match (args.account, args.before) {
        (Some(account), _) => Whose::Account(account),
        (None, Some(before)) => Whose::OlderThan(before.at(now)),
        (None, None) => return Err(Failure::usage("--account or --before is wanted")),
    };
    if matches!(&whose, Whose::OlderThan(before) if *before > now) {
        store.close().await;
        return Err(Failure::usage(
            "--before lies in the future, so that it would erase all there is: nothing was erased",
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
                format!("Erased {all} {of}. What proves refunds stays.")
            }
        }
    };
    if erased.left() > 0 {
        let left = Erased { answers: erased.left_answers, events: erased.left_events, ..Erased::default() };
        let left = format!(
            " Left {} of cases that are open or held: a person may need them to decide. Say it again once they are resolved.",
            list(&left).join(" and ")
        );
        text.push_str(&left);
    }
    text
}

/// What there is of each kind.
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
        "run it as a role that may call makegood_erase (docs/erasure.md says which)"
    } else {
        error.trouble().advice().unwrap_or("`makegood check` says what is wrong")
    };
    let so_far = match erased.total() {
        0 => "nothing was erased".to_owned(),
        total => format!(
            "{} erased before, and recorded; say it again to go on",
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
    fn what_was_erased_and_what_was_left_is_said() {
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
             What proves refunds stays. Left 1 detail of events of cases that are open or held: a person may need them to \
             decide. Say it again once they are resolved."
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
