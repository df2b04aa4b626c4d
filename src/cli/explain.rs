//! `makegood explain`: the whole history of a charge. It changes nothing, even with `--ask`.

mod meaning;
mod paragraph;
mod text;

use serde_json::{Value, json};

use super::output::{OutputFormat, print};
use super::parts::{load_providers, open_tables, read_failed};
use super::{CommandResult, Exit, Failure, evidence};
use crate::brake::BrakeHolds;
use crate::charge::{ItemId, WHOLE_CHARGE};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::detect;
use crate::pass::{Consulted, Rules, consult};
use crate::store::{DbError, Store, Story};
#[cfg(test)]
pub(super) use meaning::advice;
pub(super) use meaning::{because, because_waiting, read as read_reason, would};
pub(super) use paragraph::{REVERSED, state, write as meaning};

/// The whole history of a charge: what was paid, found, asked, decided and done.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The charge's id, or CHARGE/INDEX for one of its outputs.
    #[arg(value_name = "CHARGE[/INDEX]")]
    pub target: String,
    /// Ask the provider now, and show what would be decided. Changes nothing.
    #[arg(long)]
    pub ask: bool,
    /// text or json. The default is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// The provider's answer now, and what a pass would decide.
#[derive(Debug, Default)]
struct Now {
    consulted: Vec<Consulted>,
    /// Rows that cannot be read, and why.
    unreadable: Vec<String>,
    /// The holds of the brake.
    brake: BrakeHolds,
}

/// Runs the command.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: ExplainArgs, settings: Settings) -> CommandResult {
    let format = OutputFormat::or_by_terminal(args.output);
    let database = open_tables(&settings).await?;
    let (mut story, index) = find(&database, &args.target).await?;
    let now = database.now().await.map_err(|error| read_failed(&error))?;
    let asked = if args.ask { Some(ask(&database, &settings, &story, index, now).await?) } else { None };
    database.close().await;
    if let Some(index) = index {
        keep_only(&mut story, index);
    }
    print(&match format {
        OutputFormat::Text => text::render(&story, index, asked.as_ref(), now),
        OutputFormat::Json => as_json(&story, asked.as_ref(), now).to_string(),
    })?;
    Ok(Exit::Done)
}

/// Finds the charge that the argument names, and the index of the output if it names one.
pub(super) async fn find(database: &Store, target: &str) -> Result<(Story, Option<i64>), Failure> {
    let failed = |error: DbError| read_failed(&error);
    // A charge's id may contain slashes.
    if let Some(story) = database.story(target).await.map_err(failed)? {
        return Ok((story, None));
    }
    let item: Option<ItemId> = target.parse().ok();
    let story = match &item {
        Some(item) => database.story(&item.charge_id).await.map_err(failed)?,
        None => None,
    };
    let Some((item, story)) = item.zip(story) else {
        return Err(Failure::from(format!(
            "there is no charge `{target}`; expected CHARGE or CHARGE/INDEX with the platform's id"
        )));
    };
    let known = indices(&story);
    if !known.contains(&item.output_index) {
        let known: Vec<String> = known.iter().map(i64::to_string).collect();
        return Err(Failure::from(format!(
            "charge `{}` has no output {}; it has {}",
            item.charge_id,
            item.output_index,
            if known.is_empty() { "no items at all".to_owned() } else { known.join(", ") }
        )));
    }
    Ok((story, Some(item.output_index)))
}

/// The indices of a charge's items and orphans.
pub(super) fn indices(story: &Story) -> Vec<i64> {
    let items = story.items.iter().map(|item| item.output_index);
    let mut indices: Vec<i64> = items.chain(story.orphans.iter().map(|orphan| orphan.output_index)).collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

fn keep_only(story: &mut Story, index: i64) {
    story.items.retain(|each| each.output_index == index);
    story.orphans.retain(|each| each.output_index == index);
    story.events.retain(|each| each.output_index == index);
    story.resolutions.retain(|each| each.output_index == index);
    story.answers.retain(|answer| story.events.iter().any(|event| event.answer_id == Some(answer.id)));
    story.refunds_by_platform.retain(|each| each.output_index.is_none_or(|of| of == index));
}

async fn ask(
    database: &Store,
    settings: &Settings,
    story: &Story,
    index: Option<i64>,
    now: Timestamp,
) -> Result<Now, Failure> {
    let providers = load_providers(settings)?;
    let rules = Rules::new(settings);
    let mut items: Vec<i64> = story.items.iter().map(|item| item.output_index).collect();
    if items.is_empty() {
        items.push(WHOLE_CHARGE);
    }
    let items: Vec<ItemId> = items
        .into_iter()
        .filter(|item| index.is_none_or(|index| index == *item))
        .map(|output_index| ItemId { charge_id: story.charge.id.clone(), output_index })
        .collect();
    let dating = detect::dating(&rules.detect, &providers);
    let failed = |error: DbError| read_failed(&error);
    let (cases, unreadable) = database.look_at(&items, now, &dating).await.map_err(failed)?;
    let brake = database.brake().await.map_err(failed)?;
    Ok(Now { consulted: consult(&providers, &rules, cases, now).await, unreadable, brake: brake.held() })
}

fn as_json(story: &Story, asked: Option<&Now>, now: Timestamp) -> Value {
    let meanings = indices(story).into_iter().map(|index| {
        json!({"output_index": index, "state": paragraph::state(story, index), "text": paragraph::write(story, index, now)})
    });
    let asked = asked.map(|asked| {
        let consulted = asked.consulted.iter().map(|each| {
            json!({
                "output_index": each.case.facts.orphan.item.output_index,
                "evidence": each.evidence.as_deref().map(evidence::json),
                "decision": {
                    "action": each.decision.action.as_str(), "reason": each.decision.reason.as_str(),
                    "rule": each.decision.rule,
                },
            })
        });
        json!({"items": consulted.collect::<Vec<_>>(), "unreadable": asked.unreadable, "brake": asked.brake.all, "own_faults_brake": asked.brake.own_faults})
    });
    json!({"now": now, "meaning": meanings.collect::<Vec<_>>(), "story": story, "asked": asked})
}

#[cfg(test)]
mod tests;
