//! `makegood reverse-refund`: a person reverses a wrong refund, with name and reason stored. P23.
//!
//! The provider is not asked and the table is not consulted. The reversal takes back exactly what
//! the refund gave, at most once. Afterwards the item is neither refunded nor recovered
//! automatically.

use serde_json::json;

use super::by_hand::{After, item};
use super::output::{OutputFormat, print};
use super::parts::open_tables;
use super::values::{person_name, visible_text};
use super::words::{count, plain, time};
use super::{CommandResult, Exit, Failure};
use crate::charge::ItemId;
use crate::config::Settings;
use crate::store::{Reversal, Reversed, ReversedRefund};

/// Reverse a wrong refund, in your name.
///
/// Takes back exactly what makegood's refund of this output gave, from the same balances, at most
/// once. The refund stays on record beside its reversal. The output is billable again, and is
/// neither refunded nor recovered automatically afterwards. If a balance does not cover it, nothing
/// is taken unless you pass --anyway.
#[derive(Debug, clap::Args)]
pub struct ReverseRefundArgs {
    /// The output: the charge's id and the output's index. CHARGE alone if it has only one output.
    #[arg(value_name = "CHARGE/INDEX")]
    target: String,
    /// Your name, for the audit trail.
    #[arg(long, value_name = "WHO", value_parser = person_name)]
    by: String,
    /// The reason, for the audit trail, such as a ticket.
    #[arg(long, value_name = "WHY", value_parser = visible_text)]
    reason: String,
    /// Even if a balance does not cover it: the balance is negative afterwards.
    #[arg(long)]
    anyway: bool,
    /// text or json. The default is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

/// Runs the command.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: ReverseRefundArgs, settings: Settings) -> CommandResult {
    let format = OutputFormat::or_by_terminal(args.output);
    let store = open_tables(&settings).await?;
    let item = item(&store, &args.target).await?;
    let order = Reversal { item: item.clone(), by: args.by, why: args.reason, anyway: args.anyway };
    let reversed = store.reverse_refund(&order).await.map_err(|error| {
        let advice = error.trouble().advice().unwrap_or("`makegood check` says what is wrong");
        Failure::from(format!(
            "the refund of {} could not be reversed: {}; {advice}; it is done completely or not at all, and \
             `makegood explain` shows which",
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
        format!("The refund of {item} is reversed now. {}", after.text)
    } else {
        format!(
            "Nothing was changed: the refund of {item} was already reversed on {} by {}. {}",
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
            "{nothing}: the {bucket} balance of account {} is {balance}, less than {}; to reverse the refund all the same, run \
             the command again with --anyway",
            plain(account_id),
            count(*credits, "credit", "credits")
        ),
        Reversed::NotPosted(why) => format!(
            "{nothing}: the platform's balance or ledger did not change as posted: {}; everything was rolled back",
            plain(why)
        ),
        Reversed::NotRefunded | Reversed::Done(_) | Reversed::Before(_) => {
            format!("{nothing}: makegood has not refunded it; `makegood explain {item}` shows its history")
        }
    }
}
