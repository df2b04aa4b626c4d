//! The text output of `explain`: the charge, each item with its paragraph and events, then the
//! evidence.

use std::fmt::Write as _;

use super::{Now, because, paragraph, would};
use crate::brake::is_own_fault;
use crate::charge::WHOLE_CHARGE;
use crate::cli::evidence;
use crate::cli::words::{count, cut, erased, plain, table, time, when};
use crate::clock::Timestamp;
use crate::policy::Action;
use crate::store::{AnswerRow, EventRow, Story};

/// The maximum length of an answer's excerpt. The JSON output has all of it.
const MAX_EXCERPT: usize = 600;

pub(super) fn render(story: &Story, index: Option<i64>, asked: Option<&Now>, now: Timestamp) -> String {
    let mut page = String::new();
    charge(&mut page, story, now);
    for index in super::indices(story) {
        item(&mut page, story, index, now);
    }
    if super::indices(story).is_empty() {
        page.push_str(
            "\nIt has no items. Once it is older than its grace, the next pass holds it for a person.\n",
        );
    }
    outputs(&mut page, story, index);
    refunds_by_platform(&mut page, story);
    if let Some(asked) = asked {
        asked_now(&mut page, asked);
    }
    answers(&mut page, &story.answers);
    page.truncate(page.trim_end().len());
    page
}

/// Writing to a string does not fail.
macro_rules! line {
    ($page:expr, $($words:tt)*) => {{ let _ = writeln!($page, $($words)*); }};
}

fn charge(page: &mut String, story: &Story, now: Timestamp) {
    let charge = &story.charge;
    let total = charge.subscription_credits.saturating_add(charge.wallet_credits);
    line!(page, "Charge {}", plain(&charge.id));
    line!(
        page,
        "  paid       {}: {} from the subscription, {} from the wallet of {} {}",
        count(total, "credit", "credits"),
        charge.subscription_credits,
        charge.wallet_credits,
        plain(charge.account_kind.as_deref().unwrap_or("account")),
        plain(&charge.account_id)
    );
    line!(page, "  charged    {}", when(charge.charged_at, now));
    line!(page, "  for        {} at {}", plain(&charge.model), plain(&charge.provider));
    line!(page, "  in         {}", place(charge.project_id.as_deref(), charge.node_id.as_deref()));
    let job = charge.provider_job_id.as_deref().map_or_else(|| "none on record".to_owned(), plain);
    line!(page, "  job        {job}");
    if let Some(at) = charge.cancelled_at {
        line!(page, "  cancelled  {} by the user", when(at, now));
    }
}

/// The project and node of outputs. A platform may have neither.
fn place(project: Option<&str>, node: Option<&str>) -> String {
    match (project, node) {
        (Some(project), Some(node)) => format!("project {}, node {}", plain(project), plain(node)),
        (Some(project), None) => format!("project {}", plain(project)),
        (None, Some(node)) => format!("node {}", plain(node)),
        (None, None) => "no project".to_owned(),
    }
}

fn item(page: &mut String, story: &Story, index: i64, now: Timestamp) {
    let name =
        if index == WHOLE_CHARGE { "The charge as a whole".to_owned() } else { format!("Output {index}") };
    line!(page, "\n{name}: {}", paragraph::state(story, index));
    if let Some(item) = story.items.iter().find(|item| item.output_index == index) {
        let job = match &item.provider_job_id {
            Some(job) if story.charge.provider_job_id.as_ref() == Some(job) => {
                format!(", output {} of the job", item.provider_output_index)
            }
            Some(job) => format!(", output {} of job {}", item.provider_output_index, plain(job)),
            None => String::new(),
        };
        let failed = item
            .failed_at
            .map_or_else(String::new, |at| format!(", recorded as failed by the platform at {}", time(at)));
        line!(page, "  {}{job}{failed}", count(item.credits, "credit", "credits"));
    }
    line!(page, "  {}", paragraph::write(story, index, now));
    let events: Vec<&EventRow> = story.events.iter().filter(|event| event.output_index == index).collect();
    if !events.is_empty() {
        page.push('\n');
        page.push_str(&table(
            &["time", "what", "reason", "rule", "answer", "detail"],
            &["rule", "answer"],
            events.into_iter().map(event),
        ));
    }
}

fn event(event: &EventRow) -> Vec<String> {
    let number = |number: Option<i64>| number.map_or_else(String::new, |number| number.to_string());
    vec![
        time(event.at),
        event.kind.clone(),
        event.reason.clone().unwrap_or_default(),
        number(event.rule),
        event.answer_id.map_or_else(String::new, |id| format!("#{id}")),
        event.erased.as_ref().map_or_else(|| cut(event.detail.as_deref().unwrap_or_default(), 120), erased),
    ]
}

fn outputs(page: &mut String, story: &Story, index: Option<i64>) {
    if story.outputs.is_empty() {
        return;
    }
    let other = if index.is_some() { " of the charge and of its jobs" } else { "" };
    line!(page, "\nStored outputs{other}");
    let rows = story.outputs.iter().map(|output| {
        let linked_to = match (&output.charge_id, output.output_index) {
            (Some(charge), Some(index)) => format!("{charge}/{index}"),
            (Some(charge), None) => charge.clone(),
            (None, _) => "no item".to_owned(),
        };
        let mut notes = Vec::new();
        if output.project_id != story.charge.project_id || output.node_id != story.charge.node_id {
            notes.push(format!("is in {}", place(output.project_id.as_deref(), output.node_id.as_deref())));
        }
        notes.extend(output.moved_at.map(|at| format!("moved by a person at {}", time(at))));
        notes.extend(output.deleted_at.map(|at| format!("deleted at {}", time(at))));
        vec![
            output.id.clone(),
            linked_to,
            format!("{} output {}", output.provider_job_id, output.provider_output_index),
            time(output.stored_at),
            notes.join("; "),
        ]
    });
    page.push_str(&table(&["id", "linked to", "made by job", "stored at", "note"], &[], rows));
}

fn refunds_by_platform(page: &mut String, story: &Story) {
    if story.refunds_by_platform.is_empty() {
        return;
    }
    line!(page, "\nRefunds by the platform itself");
    let rows = story.refunds_by_platform.iter().map(|refund| {
        vec![
            time(refund.posted_at),
            refund
                .output_index
                .map_or_else(|| "the whole charge".to_owned(), |index| format!("output {index}")),
            refund.credits.to_string(),
            refund.bucket.clone(),
            refund.id.clone(),
        ]
    });
    page.push_str(&table(&["time", "for", "credits", "to", "ledger entry"], &["credits"], rows));
}

fn asked_now(page: &mut String, asked: &Now) {
    line!(page, "\nAsked now. Nothing was changed");
    for why in &asked.unreadable {
        line!(page, "  A row cannot be read, so a pass would skip it for an hour: {}", plain(why));
    }
    if asked.consulted.is_empty() && asked.unreadable.is_empty() {
        line!(page, "  There is nothing to ask: a resolved item is not decided again.");
    }
    for each in &asked.consulted {
        let item = &each.case.facts.orphan.item;
        let name = if item.output_index == WHOLE_CHARGE {
            "The charge".to_owned()
        } else {
            format!("Output {}", item.output_index)
        };
        match &each.evidence {
            None => line!(page, "  {name}: no question is needed."),
            Some(answer) => {
                let lines = evidence::lines(answer);
                line!(page, "  {name}: {}", lines.join("; "));
                if let Some(request) = &answer.answer.request {
                    let status =
                        answer.answer.status.map_or_else(String::new, |status| format!(" answered {status}"));
                    line!(page, "    {}{status}", cut(request, 300));
                }
            }
        }
        let decision = &each.decision;
        line!(
            page,
            "    A pass would {}, because {} (rule {}, {}).",
            would(&decision.action),
            because(decision.reason),
            decision.rule,
            decision.reason
        );
        let own_fault = is_own_fault(decision.reason, each.evidence.as_deref());
        let of_provider = asked.brake.providers.get(&each.case.facts.record.charge.provider);
        let of_ours = asked.brake.own_faults.as_ref().filter(|_| own_fault);
        let held = asked.brake.all.as_ref().or(of_provider).or(of_ours);
        if let (Action::Refund, Some(why)) = (&decision.action, held) {
            line!(page, "    But the brake is on ({}): the refund would be held.", plain(why));
        }
    }
}

fn answers(page: &mut String, answers: &[AnswerRow]) {
    if answers.is_empty() {
        return;
    }
    line!(page, "\nAnswers of the provider");
    for answer in answers {
        let more = [answer.class.as_deref(), answer.code.as_deref()];
        let more = more.iter().flatten().fold(String::new(), |text, word| text + ", " + &cut(word, 80));
        let offered = if answer.offered > 0 {
            format!(", offers {}", count(answer.offered, "output", "outputs"))
        } else {
            String::new()
        };
        line!(page, "  #{} {} {}{more}{offered}", answer.id, time(answer.asked_at), plain(&answer.verdict));
        let status = answer.http_status.map_or_else(String::new, |status| format!(" answered {status}"));
        if let Some(by) = &answer.erased {
            let hash = answer.content_sha256.as_deref().unwrap_or("not on record");
            line!(page, "     {}{status}; SHA-256 of the erased text: {hash}", erased(by));
            continue;
        }
        let request = answer
            .request
            .as_deref()
            .map_or_else(|| "no request on record".to_owned(), |text| cut(text, 300));
        line!(page, "     {request}{status}");
        if let Some(message) = &answer.message {
            line!(page, "     says: {}", cut(message, 300));
        }
        if let Some(excerpt) = answer.excerpt.as_ref().filter(|excerpt| !excerpt.is_empty()) {
            line!(page, "     {}", cut(excerpt, MAX_EXCERPT));
        }
    }
}
