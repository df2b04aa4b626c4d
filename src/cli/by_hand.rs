//! `makegood refund` and `makegood recover`: a person makes one item good, with name and reason
//! stored. P23 (support can recover or refund by hand).
//!
//! They take one item through the steps of a pass: the same question, the same table, the same
//! settle. If the table decides otherwise, they fail and explain why. `--anyway` overrides the
//! table for a refund only.

use std::time::Duration;

use serde_json::json;

use super::explain::{REVERSED, because, find, indices, meaning, state, would};
use super::output::{OutputFormat, print};
use super::parts::open_parts;
use super::values::{person_name, positive_span, visible_text};
use super::words::{cut, plain};
use super::{CommandResult, Exit, Failure};
use crate::charge::{ItemId, WHOLE_CHARGE};
use crate::config::Settings;
use crate::duration::format_rounded;
use crate::evidence::Evidence;
use crate::pass::{Deed, Ended, Wanted, by_hand};
use crate::policy::{Action, Decision, Reason};
use crate::store::{DbError, Store, Waits};

/// Refund one output, in your name.
///
/// Asks the provider first. If a pass would refund it now, it is refunded at once. If a pass would
/// wait, recover the output or hold it, nothing is refunded unless you pass --anyway. An output
/// that was delivered or refunded already is never refunded.
#[derive(Debug, clap::Args)]
pub struct RefundArgs {
    /// The item, and in whose name.
    #[command(flatten)]
    order: Order,
    /// Override the table and the brake: refund even if a pass would not do so now.
    #[arg(long)]
    anyway: bool,
}

/// Recover one output, or put it back where it belongs, in your name.
///
/// Asks the provider first. Ignores recovery.prefer. Anything else that follows from the answer is
/// left to the next pass. If makegood recovered the output before and the platform has removed its
/// row, the row is inserted again while the file is still in the storage.
#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    /// The item, and in whose name.
    #[command(flatten)]
    order: Order,
}

/// The arguments of both commands.
#[derive(Debug, clap::Args)]
struct Order {
    /// The output: the charge's id and the output's index. CHARGE alone if it has only one output.
    #[arg(value_name = "CHARGE/INDEX")]
    target: String,
    /// Your name, for the audit trail.
    #[arg(long, value_name = "WHO", value_parser = person_name)]
    by: String,
    /// The reason, for the audit trail, such as a ticket.
    #[arg(long, value_name = "WHY", value_parser = visible_text)]
    reason: String,
    /// How long to wait for a pass, or another command, that holds the lease on it.
    #[arg(long, value_name = "D", default_value = "30s", value_parser = positive_span)]
    wait: Duration,
    /// text or json. The default is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

/// Runs `makegood refund`.
///
/// # Errors
/// The error that ends the process.
pub async fn refund(args: RefundArgs, settings: Settings) -> CommandResult {
    run(args.order, Deed::Refund { anyway: args.anyway }, settings).await
}

/// Runs `makegood recover`.
///
/// # Errors
/// The error that ends the process.
pub async fn recover(args: RecoverArgs, settings: Settings) -> CommandResult {
    run(args.order, Deed::Recover, settings).await
}

async fn run(order: Order, deed: Deed, settings: Settings) -> CommandResult {
    let format = OutputFormat::or_by_terminal(order.output);
    let parts = open_parts(&settings, Waits::No).await?;
    let item = item(&parts.store, &order.target).await?;
    let wanted = Wanted { item: item.clone(), deed, by: order.by, why: order.reason, patience: order.wait };
    let ended = Box::pin(by_hand(&parts, &wanted)).await.map_err(|error| failed(&wanted, &error))?;
    let after = After::read(&parts.store, &item).await;
    parts.store.close().await;
    let exit = exit(deed, &ended, after.state);
    if exit == Exit::Failed {
        return Err(Failure::from(refusal(&wanted, &ended, &after)));
    }
    print(&match format {
        OutputFormat::Text => headline(&wanted, &ended, &after),
        OutputFormat::Json => json!({
            "charge_id": item.charge_id, "output_index": item.output_index, "changed": matches!(ended, Ended::Done(_) | Ended::Restored(_)),
            "state": after.state, "decision": decided(&ended).map(|decision| json!({
                "action": decision.action.as_str(), "reason": decision.reason.as_str(), "rule": decision.rule,
            })),
            "text": after.text,
        })
        .to_string(),
    })?;
    Ok(exit)
}

/// The one item that the argument names.
pub(super) async fn item(database: &Store, target: &str) -> Result<ItemId, Failure> {
    let (story, index) = find(database, target).await?;
    let index = match (index, indices(&story).as_slice()) {
        (Some(index), _) => index,
        (None, [only]) => *only,
        // Then nothing can be refunded by item; the error explains that.
        (None, []) => WHOLE_CHARGE,
        (None, several) => {
            let several: Vec<String> = several.iter().map(i64::to_string).collect();
            return Err(Failure::usage(format!(
                "charge `{}` has outputs {}: say which one, as CHARGE/INDEX",
                plain(&story.charge.id),
                several.join(", ")
            )));
        }
    };
    Ok(ItemId { charge_id: story.charge.id, output_index: index })
}

/// The item's state afterwards.
pub(super) struct After {
    pub(super) state: &'static str,
    pub(super) text: String,
}

impl After {
    /// Reads the state. A failure to read it does not undo anything, so it is only reported.
    pub(super) async fn read(database: &Store, item: &ItemId) -> Self {
        let read = async {
            let now = database.now().await?;
            let story = database.story(&item.charge_id).await?;
            Ok::<_, DbError>(story.map(|story| Self {
                state: state(&story, item.output_index),
                text: meaning(&story, item.output_index, now),
            }))
        };
        match read.await {
            Ok(Some(after)) => after,
            Ok(None) => Self { state: "gone", text: "Its charge is gone.".to_owned() },
            Err(error) => Self {
                state: "not to be read",
                text: format!("Its state could not be read: {}.", crate::report::chain(&error)),
            },
        }
    }
}

/// The exit code. If the item is already in the requested state, that is success.
fn exit(deed: Deed, ended: &Ended, state: &str) -> Exit {
    match ended {
        Ended::Done(_) | Ended::Restored(_) => Exit::Done,
        Ended::Held(_) => Exit::Attention,
        Ended::Resolved if deed == Deed::Recover && matches!(state, "recovered" | "put back") => Exit::Done,
        Ended::Resolved if deed != Deed::Recover && state == "refunded" => Exit::Done,
        Ended::Refused { table, .. } if deed == Deed::Recover && table.reason == Reason::Delivered => {
            Exit::Done
        }
        Ended::Refused { .. }
        | Ended::CostNothing
        | Ended::Resolved
        | Ended::Busy
        | Ended::NotCopied(_)
        | Ended::NotRestored(_)
        | Ended::NotWritten(_)
        | Ended::Unreadable(_) => Exit::Failed,
    }
}

const fn decided(ended: &Ended) -> Option<&Decision> {
    match ended {
        Ended::Done(decision) | Ended::Held(decision) | Ended::Refused { table: decision, .. } => {
            Some(decision)
        }
        Ended::CostNothing
        | Ended::Resolved
        | Ended::Busy
        | Ended::Restored(_)
        | Ended::NotRestored(_)
        | Ended::NotCopied(_)
        | Ended::NotWritten(_)
        | Ended::Unreadable(_) => None,
    }
}

/// The result, done now or before, and the item's state.
fn headline(wanted: &Wanted, ended: &Ended, after: &After) -> String {
    let item = plain(&wanted.item.to_string());
    let text = &after.text;
    match ended {
        Ended::Done(decision) => {
            let done = match decision.action {
                Action::Recover(_) => "recovered",
                Action::Relink { .. } => "put back",
                Action::Refund | Action::Wait | Action::Close | Action::Hold => "refunded",
            };
            format!("{item} is {done} now. {text}")
        }
        Ended::Held(decision) => {
            let insist = match decision.reason {
                Reason::Brake => " To refund it all the same, run the command again with --anyway.",
                _ => "",
            };
            format!("Held: {} for {item}. {text}{insist}", nothing(wanted.deed))
        }
        Ended::Restored(lost) => format!(
            "{item} was recovered before, and the platform had removed its row. Inserted again: {} at {} is in stored_outputs. {text}",
            plain(&lost.output_id),
            plain(lost.uri.as_deref().unwrap_or("an unknown place"))
        ),
        _ => format!("Nothing was changed: {item} is {} already. {text}", after.state),
    }
}

const fn nothing(deed: Deed) -> &'static str {
    match deed {
        Deed::Refund { .. } => "nothing was refunded",
        Deed::Recover => "nothing was recovered",
    }
}

/// Why nothing was done, and what to do.
fn refusal(wanted: &Wanted, ended: &Ended, after: &After) -> String {
    let item = plain(&wanted.item.to_string());
    let nothing = format!("{} for {item}", nothing(wanted.deed));
    match ended {
        Ended::Refused { table, evidence, may_overrule } => {
            let why = match table.reason {
                Reason::AlreadyRefunded if *may_overrule => {
                    "the platform has refunded something of its charge, naming no output"
                }
                reason => because(reason),
            };
            let why = format!("{why} ({}){}", table.reason, provider_message(evidence.as_deref()));
            let next = match (wanted.deed, &table.action) {
                (Deed::Refund { .. }, Action::Recover(_)) if *may_overrule => {
                    "`makegood recover` recovers it; to refund it all the same, run the command again with --anyway".to_owned()
                }
                (Deed::Refund { .. }, action) if *may_overrule => {
                    format!("a pass would {}; to refund it all the same, run the command again with --anyway", would(action))
                }
                (Deed::Refund { .. }, Action::Relink { .. }) => {
                    "it is not lost: `makegood recover`, or the next pass, puts it back".to_owned()
                }
                (_, action) => format!("a pass would {}", would(action)),
            };
            format!("{nothing}: {why}; {next}")
        }
        Ended::CostNothing => format!("{nothing}: it cost nothing"),
        Ended::Resolved if after.state == REVERSED => {
            format!(
                "{nothing}: an output is refunded at most once, and its refund was reversed. {}",
                after.text
            )
        }
        Ended::Resolved => format!("{nothing}: it is {} already. {}", after.state, after.text),
        Ended::Busy => format!(
            "{nothing}: a pass, or another command, has held the lease on it for {}; check again with \
             `makegood explain {item}`",
            format_rounded(wanted.patience)
        ),
        Ended::NotCopied(why) => format!("{nothing}: {}; the next passes retry it", plain(why)),
        Ended::NotRestored(why) => format!(
            "{nothing}: it was recovered before, and the platform has removed its row, which cannot be inserted again: {}",
            plain(why)
        ),
        Ended::NotWritten(why) => {
            format!("{nothing}: the database rejected it, so nothing was written: {}", plain(why))
        }
        Ended::Unreadable(why) => format!("{nothing}: {}; correct the row", plain(why)),
        Ended::Done(_) | Ended::Held(_) | Ended::Restored(_) => headline(wanted, ended, after),
    }
}

/// The provider's message.
fn provider_message(evidence: Option<&Evidence>) -> String {
    let said = evidence.and_then(|evidence| evidence.message.as_deref());
    said.map_or_else(String::new, |said| format!(", the provider says: {}", cut(said, 200)))
}

fn failed(wanted: &Wanted, error: &DbError) -> Failure {
    let advice = error.trouble().advice().unwrap_or("`makegood check` says what is wrong");
    Failure::from(format!(
        "{} could not be made good: {}; {advice}; it is done completely or not at all, and `makegood explain` \
         shows which",
        plain(&wanted.item.to_string()),
        crate::report::chain(error)
    ))
}
