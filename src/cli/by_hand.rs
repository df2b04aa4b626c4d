//! `makegood refund` and `makegood recover`: one item made good by hand, with name and reason kept (P23).
//!
//! They go a pass's way for one item, at once: the same question, the same table, the same settle. What the table would not do
//! is refused and explained; only a refund can be insisted on, with `--anyway`.

use std::time::Duration;

use serde_json::json;

use super::explain::{REVERSED, because, find, indices, meaning, state, would};
use super::output::{OutputFormat, print};
use super::parts::open_parts;
use super::values::{positive_span, said, who};
use super::words::{cut, plain};
use super::{Exit, Failure, Outcome};
use crate::charge::{ItemId, WHOLE_CHARGE};
use crate::config::Settings;
use crate::duration::format_rounded;
use crate::evidence::Evidence;
use crate::pass::{Deed, Ended, Wanted, by_hand};
use crate::policy::{Action, Decision, Reason};
use crate::store::{DbError, Store, Waits};

/// Give the credits of one output back, in your name.
///
/// Asks the provider first. Where a pass would refund now, it is done at once. Where it would rather wait, bring the output
/// home or hold it, this is said and nothing is given back, unless you insist. What is delivered or refunded already is never
/// refunded.
#[derive(Debug, clap::Args)]
pub struct RefundArgs {
    /// What is to be made good, and in whose name.
    #[command(flatten)]
    order: Order,
    /// On your own word: also where a pass would not refund now, and also while the brake is on.
    #[arg(long)]
    anyway: bool,
}

/// Bring one output home, or put it back where it belongs, in your name.
///
/// Asks the provider first. Brings it home also where recovery.prefer says to refund. Whatever else
/// follows from the answer is left to the next pass. Where makegood brought it home before and the
/// platform has removed its row since, the row is inserted again, if the file is still in the
/// storage.
#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    /// What is to be made good, and in whose name.
    #[command(flatten)]
    order: Order,
}

/// What both have in common.
#[derive(Debug, clap::Args)]
struct Order {
    /// The output: the charge's id and which of its outputs. CHARGE alone where it has only one.
    #[arg(value_name = "CHARGE/INDEX")]
    target: String,
    /// Your name: it is kept.
    #[arg(long, value_name = "WHO", value_parser = who)]
    by: String,
    /// Why: it is kept too. A ticket, for instance.
    #[arg(long, value_name = "WHY", value_parser = said)]
    reason: String,
    /// How long to wait for a pass, or somebody else, that has it in hand.
    #[arg(long, value_name = "D", default_value = "30s", value_parser = positive_span)]
    wait: Duration,
    /// text or json; without it, text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

/// Runs `makegood refund`.
///
/// # Errors
/// What ends the process.
pub async fn refund(args: RefundArgs, settings: Settings) -> Outcome {
    run(args.order, Deed::Refund { anyway: args.anyway }, settings).await
}

/// Runs `makegood recover`.
///
/// # Errors
/// What ends the process.
pub async fn recover(args: RecoverArgs, settings: Settings) -> Outcome {
    run(args.order, Deed::Recover, settings).await
}

async fn run(order: Order, deed: Deed, settings: Settings) -> Outcome {
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

/// The one item that is meant.
pub(super) async fn item(database: &Store, target: &str) -> Result<ItemId, Failure> {
    let (story, index) = find(database, target).await?;
    let index = match (index, indices(&story).as_slice()) {
        (Some(index), _) => index,
        (None, [only]) => *only,
        // Nothing can be refunded by item then, which is said with the reason.
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

/// How the item stands now.
pub(super) struct After {
    pub(super) state: &'static str,
    pub(super) text: String,
}

impl After {
    /// Not to be told how it stands makes nothing undone.
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
                text: format!("How it stands could not be read: {}.", crate::report::chain(&error)),
            },
        }
    }
}

/// What is wanted and is so already is done.
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

/// What was done, or is so already, and how the item stands.
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
                Reason::Brake => " To give back this one all the same, say it again with --anyway.",
                _ => "",
            };
            format!("Held: {} for {item}. {text}{insist}", nothing(wanted.deed))
        }
        Ended::Restored(lost) => format!(
            "{item} was recovered before, and the platform had removed its row: {} at {} is in stored_outputs again. {text}",
            plain(&lost.output_id),
            plain(lost.uri.as_deref().unwrap_or("an unknown place"))
        ),
        _ => format!("Nothing was changed: {item} is {} already. {text}", after.state),
    }
}

const fn nothing(deed: Deed) -> &'static str {
    match deed {
        Deed::Refund { .. } => "nothing was given back",
        Deed::Recover => "nothing was brought home",
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
            let why = format!("{why} ({}){}", table.reason, words(evidence.as_deref()));
            let next = match (wanted.deed, &table.action) {
                (Deed::Refund { .. }, Action::Recover(_)) if *may_overrule => {
                    "`makegood recover` brings it home; to give it back all the same, say it again with --anyway".to_owned()
                }
                (Deed::Refund { .. }, action) if *may_overrule => {
                    format!("a pass would {}; to give it back all the same, say it again with --anyway", would(action))
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
                "{nothing}: an output is refunded at most once, and its refund was taken back. {}",
                after.text
            )
        }
        Ended::Resolved => format!("{nothing}: it is {} already. {}", after.state, after.text),
        Ended::Busy => format!(
            "{nothing}: a pass, or somebody else, has it in hand, and did not let go of it for {}; look again with \
             `makegood explain {item}`",
            format_rounded(wanted.patience)
        ),
        Ended::NotCopied(why) => format!("{nothing}: {}; passes go on by themselves", plain(why)),
        Ended::NotRestored(why) => format!(
            "{nothing}: it was recovered before, and the platform has removed its row, which cannot be inserted again: {}",
            plain(why)
        ),
        Ended::NotWritten(why) => {
            format!("{nothing}: the database refused to settle it, nothing was written: {}", plain(why))
        }
        Ended::Unreadable(why) => format!("{nothing}: {}; mend the row", plain(why)),
        Ended::Done(_) | Ended::Held(_) | Ended::Restored(_) => headline(wanted, ended, after),
    }
}

/// The provider's own words.
fn words(evidence: Option<&Evidence>) -> String {
    let said = evidence.and_then(|evidence| evidence.message.as_deref());
    said.map_or_else(String::new, |said| format!(", in its words: {}", cut(said, 200)))
}

fn failed(wanted: &Wanted, error: &DbError) -> Failure {
    let advice = error.trouble().advice().unwrap_or("`makegood check` says what is wrong");
    Failure::from(format!(
        "{} could not be made good by hand: {}; {advice}; nothing is half done: `makegood explain` says whether it was \
         carried out",
        plain(&wanted.item.to_string()),
        crate::report::chain(error)
    ))
}
