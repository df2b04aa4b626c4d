//! Formats the demo's result: the stories as tables, the balances, the sums, and commands to try
//! next.
//!
//! "What happened" is the text of the story. "What makegood found", "what it did" and "who got
//! what" are read from the database. Lines have at most 110 columns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width};

use super::check::{EndState, ending, item_id};
use super::platform::{BalanceRow, CreditTotals, ItemStatus};
use super::story::{Chapter, DemoStory, Ending};
use super::world::{ExampleAccount, ExampleCharge};
use crate::charge::{Bucket, ItemId, Split, WHOLE_CHARGE};
use crate::duration::format_rounded;
use crate::policy::Reason;
use crate::report::PassReport;

/// How headings are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStyle {
    /// On a terminal: with line-drawing characters.
    Terminal,
    /// Elsewhere: with dashes.
    Plain,
}

/// The longest line.
const COLUMNS: u16 = 110;
/// The widths of promise, what happened, what was found, what was done, who got what, each with two
/// columns of padding.
const STORY_WIDTHS: [u16; 5] = [5, 37, 26, 23, 19];

impl OutputStyle {
    fn heading(self, text: &str) -> String {
        let rule = match self {
            Self::Terminal => "\u{2500}",
            Self::Plain => "-",
        };
        let rest = usize::from(COLUMNS).saturating_sub(text.chars().count() + 4);
        format!("{rule}{rule} {text} {}", rule.repeat(rest))
    }
}

fn table(widths: &[u16]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    let widths = widths.iter().map(|width| ColumnConstraint::Absolute(Width::Fixed(*width)));
    // The header creates the columns; constraints apply only to existing ones.
    table.set_header(vec![""; widths.len()]);
    table.set_constraints(widths);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The introduction.
pub fn opening(charges: usize, accounts: usize, passes: usize) -> String {
    format!(
        "One day of an example platform: {charges} charges on {accounts} accounts, and {passes} passes of makegood from\n\
         one evening to the next. Provider and clock are simulated; requests, files, storage, database and decisions\n\
         are real.\n"
    )
}

/// All stories, by chapter.
pub fn stories(style: OutputStyle, stories: &[DemoStory], findings: &EndState) -> String {
    let mut text = String::new();
    for chapter in Chapter::ALL {
        let mut table = table(&STORY_WIDTHS);
        table.set_header(["", "what happened", "what makegood found", "what it did", "who got what"]);
        for story in stories.iter().filter(|story| story.chapter == chapter) {
            table.add_row(["", "", "", "", ""]);
            let ids: Vec<&str> = story.charges.iter().map(|charge| charge.id.as_str()).collect();
            let description = format!("{}\n({})", story.description, ids.join(", "));
            for (nth, [found, did, who]) in rows(story, findings).into_iter().enumerate() {
                let (promise, description) =
                    if nth == 0 { (story.promise, description.as_str()) } else { ("", "") };
                table.add_row([promise, description, &found, &did, &who]);
            }
        }
        let _ = write!(text, "\n{}\n{}", style.heading(chapter.title()), lines(&table));
    }
    text
}

/// The rows of a story. Items with the same result share a row.
fn rows(story: &DemoStory, findings: &EndState) -> Vec<[String; 3]> {
    let mut groups: Vec<([String; 3], Vec<String>)> = Vec::new();
    let items = story.charges.iter().flat_map(|charge| {
        let whole = charge
            .items
            .is_empty()
            .then(|| ItemId { charge_id: charge.id.clone(), output_index: WHOLE_CHARGE });
        (0..charge.items.len()).map(|nth| item_id(&charge.id, nth)).chain(whole)
    });
    let mut count = 0;
    for item in items {
        let Some(standing) = findings.standings.get(&item) else { continue };
        count += 1;
        let row = row(standing);
        let label = if story.charges.len() > 1 {
            // The ids of all charges in a story begin with its promise.
            item.charge_id.split_once('-').map_or("", |(_, name)| name).to_owned()
        } else {
            (item.output_index + 1).to_string()
        };
        match groups.iter_mut().find(|(known, _)| *known == row) {
            Some((_, labels)) => labels.push(label),
            None => groups.push((row, vec![label])),
        }
    }
    // Items that were left alone come last.
    groups.sort_by_key(|(row, _)| row[1] == LEFT_ALONE);
    let alike = groups.len() == 1;
    let labelled = |(mut row, mut labels): ([String; 3], Vec<String>)| {
        if !alike {
            labels.dedup();
            row[0] = format!("{}: {}", labels.join(", "), row[0]);
        } else if count > 1 && row[2] != NOTHING_MOVED {
            row[2] = format!("{} each", row[2]);
        }
        row
    };
    groups.into_iter().map(labelled).collect()
}

const LEFT_ALONE: &str = "left it alone";
const NOTHING_MOVED: &str = "-";

fn row(standing: &ItemStatus) -> [String; 3] {
    let Some(ending) = ending(standing) else {
        return [format!("{:?}", standing.orphan), String::new(), String::new()];
    };
    let after =
        standing.resolved_at.map(|at| format_rounded(at.since(standing.charged_at))).unwrap_or_default();
    let after = format!("after {after}");
    let (found, did) = match ending {
        Ending::LeftAlone if standing.credits == 0 => ("nothing was paid".to_owned(), LEFT_ALONE.to_owned()),
        Ending::LeftAlone => ("delivered".to_owned(), LEFT_ALONE.to_owned()),
        Ending::Refunded(why, _) => (found(why, standing), format!("refunded {after}")),
        Ending::Recovered => {
            (found(Reason::OutputAvailable, standing), format!("recovered {after} ({})", file(standing)))
        }
        Ending::PutBack => {
            let from = standing.recovery.as_ref().and_then(|recovery| recovery.from_charge.as_deref());
            let found = match from {
                Some(from) if from != standing.item.charge_id => format!("stored, but linked to {from}"),
                Some(_) | None => "stored, but in the wrong place".to_owned(),
            };
            (found, format!("put it back {after}"))
        }
        Ending::Closed(why) => (found(why, standing), "closed the case".to_owned()),
        Ending::Held(why) => (found(why, standing), "holds it for a person".to_owned()),
        Ending::Waiting(why) => (found(why, standing), "asks again later".to_owned()),
    };
    let who = standing.refund.map_or_else(|| NOTHING_MOVED.to_owned(), |split| who(&standing.account, split));
    [found, did, who]
}

fn who(account: &str, split: Split) -> String {
    let parts = Bucket::ALL.into_iter().filter(|bucket| split.of(*bucket) > 0);
    let parts: Vec<String> = parts.map(|bucket| format!("+{} {bucket}", split.of(bucket))).collect();
    format!("{account}\n{}", parts.join("\n"))
}

fn file(standing: &ItemStatus) -> String {
    let recovery = standing.recovery.as_ref();
    let kind = recovery.and_then(|recovery| recovery.content_type.as_deref()).unwrap_or("a file");
    let size = recovery.and_then(|recovery| recovery.size_bytes).unwrap_or(0);
    let kind = kind.split('/').next().unwrap_or_default();
    format!("{kind}, {size} bytes")
}

/// What makegood found, for a person, with the provider's message if it adds detail.
fn found(why: Reason, standing: &ItemStatus) -> String {
    let words = match why {
        Reason::Delivered => "stored meanwhile, where it belongs",
        Reason::AlreadyRefunded if standing.resolved_at.is_some() => "refunded already, by the platform",
        Reason::AlreadyRefunded => "a refund by the platform that names no item",
        Reason::Misattributed => "stored, but linked elsewhere",
        Reason::DuplicateJob => "two claims to one output",
        Reason::CannotRelink => "stored, but linked elsewhere, and it cannot be moved",
        Reason::NoProviderJob => "never submitted: no job on record",
        Reason::MaybeNotSubmittedYet => "no job on record yet",
        Reason::OutputAvailable => "finished, the file is offered",
        Reason::ServerError => "failed: server error",
        Reason::QueueTimeout => "failed: queue timeout",
        Reason::ContentSafety => "failed: content safety",
        Reason::MalformedResponse => "failed: malformed response",
        Reason::ProviderError => "failed",
        Reason::CompletedAfterCancel => "cancelled by the user, yet completed; file gone",
        Reason::OutputExpired => "finished, but the file is gone",
        Reason::MissingOutput => "finished, but without this output",
        Reason::ProviderCancelled => "cancelled at the provider",
        Reason::ReportedFailed => "a failure on record, no output",
        Reason::MaybeNotVisibleYet => "no such job yet",
        Reason::NeverReturned => "no such job",
        Reason::StillRunning => "still queued or running",
        Reason::TimedOut => "still running after 22 hours",
        Reason::Unreachable => "no answer",
        Reason::RateLimited => "rate limited",
        Reason::Unauthorized => "our key was refused",
        Reason::Unreadable => "an answer that cannot be read",
        Reason::UnknownProvider => "no provider file of that name",
        Reason::Unconfirmed => "no answer for 22 hours",
        Reason::RecoveryRetry => "the download failed",
        Reason::RecoveryFailed => "offered, but the download failed for 22 hours",
        Reason::Brake => "the brake is on",
        Reason::NoBalance => "no balance row to refund to",
        Reason::NotPosted => "the refund did not show",
        Reason::CannotPost => "no refund can be posted",
        Reason::ChargeChanged => "the charge has changed",
        Reason::DebitsMismatch => "charge and ledger do not agree",
        Reason::MissingHash => "a stored file of the job has no hash",
        Reason::ItemsMismatch => "items and charge do not agree",
        Reason::ByHand => "a person's word",
    };
    let said = match why {
        Reason::ServerError
        | Reason::QueueTimeout
        | Reason::ContentSafety
        | Reason::MalformedResponse
        | Reason::ProviderError
        | Reason::Unconfirmed => standing.message.as_deref(),
        Reason::Delivered
        | Reason::AlreadyRefunded
        | Reason::Misattributed
        | Reason::DuplicateJob
        | Reason::CannotRelink
        | Reason::NoProviderJob
        | Reason::MaybeNotSubmittedYet
        | Reason::OutputAvailable
        | Reason::CompletedAfterCancel
        | Reason::OutputExpired
        | Reason::MissingOutput
        | Reason::ProviderCancelled
        | Reason::ReportedFailed
        | Reason::MaybeNotVisibleYet
        | Reason::NeverReturned
        | Reason::StillRunning
        | Reason::TimedOut
        | Reason::Unreachable
        | Reason::RateLimited
        | Reason::Unauthorized
        | Reason::Unreadable
        | Reason::UnknownProvider
        | Reason::RecoveryRetry
        | Reason::RecoveryFailed
        | Reason::Brake
        | Reason::NoBalance
        | Reason::NotPosted
        | Reason::CannotPost
        | Reason::ChargeChanged
        | Reason::DebitsMismatch
        | Reason::ItemsMismatch
        | Reason::MissingHash
        | Reason::ByHand => None,
    };
    said.map_or_else(|| words.to_owned(), |said| format!("{words} (\"{said}\")"))
}

/// The balances of the stories' accounts, on both evenings.
pub fn balances(
    style: OutputStyle,
    accounts: &[ExampleAccount],
    before: &[BalanceRow],
    after: &[BalanceRow],
) -> String {
    let mut table = table(&[12, 15, 17, 16, 14, 18]);
    table.set_header([
        "account",
        "balance",
        "first evening",
        "charged since",
        "given back",
        "second evening",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.add_row(["", "", "", "", "", ""]);
    let known: BTreeSet<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
    let before: BTreeMap<(&str, &str), i64> = before
        .iter()
        .map(|balance| ((balance.account.as_str(), balance.bucket.as_str()), balance.credits))
        .collect();
    let mut last = "";
    for balance in after.iter().filter(|balance| known.contains(balance.account.as_str())) {
        let began = before.get(&(balance.account.as_str(), balance.bucket.as_str()));
        let account = if last == balance.account { "" } else { &balance.account };
        table.add_row([
            account,
            &balance.bucket,
            &began.map_or_else(String::new, i64::to_string),
            &signed(balance.since),
            &signed(balance.given_back),
            &balance.credits.to_string(),
        ]);
        last = &balance.account;
    }
    format!("\n{}\n{}", style.heading("The balances of those people, in credits"), lines(&table))
}

fn signed(credits: i64) -> String {
    if credits == 0 { NOTHING_MOVED.to_owned() } else { format!("{credits:+}") }
}

/// The totals.
pub fn totals(
    style: OutputStyle,
    ordinary: &[ExampleCharge],
    findings: &EndState,
    reports: &[PassReport],
) -> String {
    let totals = &findings.totals;
    let ended = |which: fn(Ending) -> bool| {
        findings.standings.values().filter_map(ending).filter(|each| which(*each)).count()
    };
    let refunded = ended(|ending| matches!(ending, Ending::Refunded(..)));
    let recovered = ended(|ending| ending == Ending::Recovered);
    let put_back = ended(|ending| ending == Ending::PutBack);
    let closed = ended(|ending| matches!(ending, Ending::Closed(_)));
    let held = ended(|ending| matches!(ending, Ending::Held(_)));
    let waiting = ended(|ending| matches!(ending, Ending::Waiting(_)));
    let asked: u64 =
        reports.iter().flat_map(|report| report.questions.values()).flat_map(|each| each.values()).sum();
    let bytes: u64 = reports.iter().map(|report| report.recovered_bytes).sum();
    let CreditTotals {
        charges,
        items,
        looked_into,
        refunded: credits,
        in_ledger,
        on_charges,
        ordered,
        billable,
        ..
    } = totals;
    format!(
        "\n{}\n\
         {charges} charges for {items} outputs. {} charges were ordinary, and none of them was touched.\n\
         {looked_into} outputs were examined, with {asked} questions to providers: {refunded} refunded, {recovered} recovered\n\
         ({bytes} bytes), {put_back} put back, {closed} closed, {held} held for a person, {waiting} waiting.\n\
         {credits} credits refunded = {in_ledger} in the ledger = {on_charges} on the charges, none of them twice.\n\
         Usage: {ordered} credits ordered, {billable} of them billable: refunds by makegood and by the platform itself\n\
         ({} credits) are not billable.\n",
        style.heading("The sums"),
        ordinary.len(),
        ordered - billable - credits,
    )
}

/// The result of the demo's own check if it succeeds.
pub fn checked(stories: usize) -> String {
    format!(
        "\nChecked: {stories} stories ended as promised, all 16 rules of the decision table were needed, sums agree\n\
         in all relations, every recovered file is on disk with its hash, and nothing took longer than 24 hours.\n"
    )
}

/// Quotes a word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The commands to try next. `program` is how makegood is called here. `before` is a prefix that
/// unsets variables which would override the demo's settings.
pub fn next(style: OutputStyle, program: &str, before: &str, dir: &str) -> String {
    let command = format!("{before}{program} --config {dir}/makegood.toml");
    let there = if dir == super::DEFAULT_DIR { String::new() } else { format!(" --dir {dir}") };
    format!(
        "\n{}\n\
         The whole story of one charge, and the day as a report:\n\
         \x20 {command} explain p06-two-of-three\n\
         \x20 {command} report --since 2d\n\
         What a provider's answer would mean, and whether all is set up well:\n\
         \x20 {command} \\\n\
         \x20   provider test replicate --answer {dir}/answer.json\n\
         \x20 {command} check\n\
         Three charges came in after the last pass. Let makegood look at them, with a provider to ask:\n\
         \x20 {program} simulate-provider &\n\
         \x20 {command} run --dry-run\n\
         \x20 {command} run\n\
         Everything is in {dir}: platform.db (SQLite), outputs/, providers/, makegood.toml.\n\
         The same day once more, from the beginning: {program} demo{there}\n",
        style.heading("Try next"),
    )
}
