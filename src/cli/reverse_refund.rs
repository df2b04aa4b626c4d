//! `makegood reverse-refund`: a wrong refund taken back, with name and reason kept (P23).
//!
//! Nobody is asked and nothing is decided: a person says that the refund was wrong. The database
//! takes back exactly what that refund gave, once. What follows for the item is the person's to
//! decide: it is neither refunded nor fetched again by itself.

use serde_json::json;

use super::by_hand::{After, item};
use super::output::{OutputFormat, print};
use super::parts::open_tables;
use super::values::{said, who};
use super::words::{count, plain, time};
use super::{Exit, Failure, Outcome};
use crate::charge::ItemId;
use crate::config::Settings;
use crate::store::{Reversal, Reversed, ReversedRefund};

/// Take a wrong refund back, in your name.
///
/// Takes back exactly what makegood's refund of this output gave, from the balances that got it,
/// once. The refund stays on record beside its reversal. The output is billable again, and is
/// neither refunded nor brought home by itself afterwards. Where a balance holds less than it is to
/// lose, nothing is taken, unless you insist.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: the charge's id and which of its outputs. CHARGE alone where it has only one.
    #[arg(value_name = "CHARGE/INDEX")]
    target: String,
    /// Your name: it is kept.
    #[arg(long, value_name = "WHO", value_parser = who)]
    by: String,
    /// Why: it is kept too. A ticket, for instance.
    #[arg(long, value_name = "WHY", value_parser = said)]
    reason: String,
    /// Also where a balance does not cover it: it is below zero afterwards.
    #[arg(long)]
    anyway: bool,
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
    let item = item(&store, &args.target).await?;
    let order = Reversal { item: item.clone(), by: args.by, why: args.reason, anyway: args.anyway };
    let reversed = store.reverse_refund(&order).await.map_err(|error| {
        let advice = error.trouble().advice().unwrap_or("`makegood check` says what is wrong");
        Failure::from(format!(
            "the refund of {} could not be taken back: {}; {advice}; nothing is half done: `makegood explain` says whether it \
             was carried out",
            plain(&item.to_string()),
            crate::report::chain(&error)
        ))
    })?;
    let after = After::read(&store, &item).await;
    store.close().await;
    let (done, is_new) = match &reversed {
        Reversed::Done(done) => (done, true),
        Reversed::Before(done) => (done, false),
        Reversed::NotRefunded | Reversed::NotCovered { .. } | Reversed::NotPosted(_) => {
            return Err(Failure::from(refusal(&item, &reversed)));
        }
    };
    print(&match format {
        OutputFormat::Text => headline(&item, done, is_new, &after),
        OutputFormat::Json => json!({
            "charge_id": item.charge_id, "output_index": item.output_index, "changed": is_new, "state": after.state,
            "reversal": {
                "refund_id": done.refund_id, "account_id": done.account_id,
                "subscription_credits": done.credits.subscription, "wallet_credits": done.credits.wallet,
                "by": done.by, "reason": done.why, "at": done.at,
            },
            "text": after.text,
        })
        .to_string(),
    })?;
    Ok(Exit::Done)
}

fn headline(item: &ItemId, done: &ReversedRefund, is_new: bool, after: &After) -> String {
    let item = plain(&item.to_string());
    if is_new {
        format!("The refund of {item} is taken back now. {}", after.text)
    } else {
        format!(
            "Nothing was changed: the refund of {item} was taken back on {} by {} already. {}",
            time(done.at),
            plain(&done.by),
            after.text
        )
    }
}

fn refusal(item: &ItemId, reversed: &Reversed) -> String {
    let item = plain(&item.to_string());
    let nothing = format!("nothing was taken back for {item}");
    match reversed {
        Reversed::NotCovered { account_id, bucket, balance, credits } => format!(
            "{nothing}: the {bucket} balance of account {} holds {balance} and is to lose {}; to take it all the same, say it \
             again with --anyway",
            plain(account_id),
            count(*credits, "credit", "credits")
        ),
        Reversed::NotPosted(why) => format!(
            "{nothing}: the balance or the ledger of the platform does not take it as it is posted: {}; nothing was written",
            plain(why)
        ),
        Reversed::NotRefunded | Reversed::Done(_) | Reversed::Before(_) => {
            format!(
                "{nothing}: makegood has not refunded it; `makegood explain {item}` tells what became of it"
            )
        }
    }
}
