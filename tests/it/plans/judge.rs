//! Reads the plans from a server's log and says what is wrong with them.
//!
//! A plan is judged by what it did, not by the planner's estimate:
//! - no sequential scan of a table of the platform's or of a growing one of makegood's, executed or
//!   not;
//! - no full scan of an index of these tables: a scan without a condition on the index that touches
//!   more than [`WALK`] rows. A partial index that holds few rows may be read as a whole;
//! - blocks and rows in proportion to the rows that the statement returns, writes or is given as a
//!   list, and to [`CHUNK`] charges or orphans.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use serde_json::Value as Json;

/// Charges in one statement of a scan.
pub const CHUNK: u64 = 200;

/// The most rows that a scan without a condition on its index may touch.
const WALK: u64 = 2 * CHUNK;

/// The most blocks for each row that a statement is about. An index of 200,000 rows has three
/// levels; a charge is looked up with its items, outputs and orphan, by up to three ways each: 4
/// blocks, times 10.
const BLOCKS_A_ROW: u64 = 40;

/// The most rows touched for each row that a statement is about.
const ROWS_A_ROW: u64 = 20;

/// Blocks that any statement may touch in addition: catalogues, the visibility map, a counter.
const ANYWAY: u64 = 200;

/// Tables of makegood's that stay small. Any other counts as growing, also one that is made after
/// this was written.
const SMALL: [&str; 11] = [
    "makegood_brake",
    "makegood_brake_events",
    "makegood_checks",
    "makegood_counters",
    "makegood_cursors",
    "makegood_migrations",
    "makegood_minimum_version",
    "makegood_provider_brakes",
    "makegood_provider_shares",
    "makegood_provider_state",
    // A row for each provider and minute of the day.
    "makegood_refund_sums",
];

/// Statements that read all open orphans: the counts that metrics and the status page show, and the
/// correction after a clock that was ahead, once in a full look. Their cost follows what is open,
/// by design; a walk through the index of open orphans is right.
const OPEN: [&str; 2] = ["unresolved", "date_orphans_anew"];

/// The platform's tables, in the reference schema and behind the views of `platform.sql`.
const PLATFORM: [&str; 12] = [
    "accounts",
    "balances",
    "charge_items",
    "charges",
    "ledger_entries",
    "stored_outputs",
    "journal",
    "media",
    "people",
    "runs",
    "shots",
    "wallets",
];

/// One statement that did what it must not.
#[derive(Debug)]
pub struct Violation {
    /// The name of its file; of a statement inside a function or a foreign key's check, its
    /// beginning.
    pub statement: String,
    /// The database, named after the variant.
    pub variant: String,
    /// Which pass.
    pub during: String,
    /// The fault.
    pub what: String,
    /// How much it was.
    pub figure: u64,
    /// How much would have been right.
    pub allowed: u64,
    /// Its plan, a line a node.
    pub plan: String,
}

/// The content of a log.
#[derive(Debug, Default)]
pub struct Judged {
    /// By database: which statements were seen.
    pub statements: BTreeMap<String, BTreeSet<String>>,
    /// The fault that was found.
    pub violations: Vec<Violation>,
}

/// Judges every plan in the log. Its lines begin with `database|`; the lines of one message after
/// the first, with a tab.
pub fn judge(log: File) -> Judged {
    let mut judged = Judged::default();
    let mut during = BTreeMap::new();
    let mut plan = String::new();
    let mut database = String::new();
    for line in BufReader::new(log).lines() {
        let line = line.unwrap();
        if let Some(more) = line.strip_prefix('\t') {
            if !plan.is_empty() {
                plan.push_str(more);
                plan.push('\n');
            }
            continue;
        }
        finish(&mut judged, &database, &during, &mut plan);
        let Some((of, message)) = line.split_once('|') else { continue };
        of.clone_into(&mut database);
        if message.starts_with("LOG:  duration: ") && message.ends_with("plan:") {
            plan.push('\n');
        } else if let Some(next) = message.strip_prefix("LOG:  next: ") {
            during.insert(database.clone(), next.to_owned());
        }
    }
    finish(&mut judged, &database, &during, &mut plan);
    judged
}

fn finish(judged: &mut Judged, database: &str, during: &BTreeMap<String, String>, plan: &mut String) {
    if plan.is_empty() {
        return;
    }
    let parsed: Json = serde_json::from_str(plan).unwrap_or_else(|why| panic!("{why}: {plan}"));
    plan.clear();
    let text = parsed["Query Text"].as_str().unwrap();
    // The triggers of the platform's views.
    if text.contains("/* the platform's */") {
        return;
    }
    let statement = text.strip_prefix("-- ").and_then(|rest| rest.split_once(':')).map_or_else(
        || text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(120).collect(),
        |(name, _)| name.to_owned(),
    );
    judged.statements.entry(database.to_owned()).or_default().insert(statement.clone());
    for (what, figure, allowed) in faults(&statement, &parsed["Plan"]) {
        judged.violations.push(Violation {
            statement: statement.clone(),
            variant: database.to_owned(),
            during: during.get(database).cloned().unwrap_or_default(),
            what,
            figure,
            allowed,
            plan: lines(&parsed["Plan"], 1),
        });
    }
}

/// A fault of a plan: its measure, and the limit.
fn faults(statement: &str, root: &Json) -> Vec<(String, u64, u64)> {
    let mut faults = Vec::new();
    let (mut about, mut touched) = (CHUNK + rows(root), 0);
    each_node(root, &mut |node| {
        let kind = node["Node Type"].as_str().unwrap();
        match kind {
            // A list of the statement's, or rows to write.
            "Function Scan" => about += rows(node),
            "ModifyTable" => about += children(node).map(rows).sum::<u64>(),
            _ => {}
        }
        if node["Subplan Name"] == "CTE chunk" {
            about += rows(node).saturating_sub(CHUNK);
        }
        let Some(relation) = guarded(node) else { return };
        // The rows of a bitmap are those of the index scans below it.
        if kind != "Bitmap Heap Scan" {
            touched += rows_touched(node);
        }
        if OPEN.contains(&statement) && kind != "Seq Scan" {
            about += rows_touched(node);
            return;
        }
        match kind {
            "Seq Scan" | "Sample Scan" => {
                faults.push((format!("reads the whole table {relation}"), rows_touched(node), 0));
            }
            "Index Scan" | "Index Only Scan" | "Bitmap Index Scan"
                if node["Index Cond"].is_null() && rows_touched(node) > WALK =>
            {
                let index = node["Index Name"].as_str().unwrap_or_default();
                faults.push((format!("walks the whole index {index}"), rows_touched(node), WALK));
            }
            _ => {}
        }
    });
    let blocks = number(root, "Shared Hit Blocks") + number(root, "Shared Read Blocks");
    let (most_blocks, most_rows) = (BLOCKS_A_ROW * about + ANYWAY, ROWS_A_ROW * about + ANYWAY);
    if blocks > most_blocks {
        faults.push(("touches blocks out of proportion".to_owned(), blocks, most_blocks));
    }
    if touched > most_rows {
        faults.push(("touches rows out of proportion".to_owned(), touched, most_rows));
    }
    faults
}

/// The table that a node reads, or whose index it reads, if it must not be read completely.
fn guarded(node: &Json) -> Option<String> {
    let name = node["Relation Name"].as_str().or_else(|| node["Index Name"].as_str())?;
    let is_index_only = node["Relation Name"].is_null();
    let of = |table: &str| {
        name == table || is_index_only && name.strip_prefix(table).is_some_and(|rest| rest.starts_with('_'))
    };
    if SMALL.iter().any(|table| of(table)) {
        return None;
    }
    (name.starts_with("makegood_") || PLATFORM.iter().any(|table| of(table))).then(|| name.to_owned())
}

/// Rows that a node has read, in all its loops.
fn rows_touched(node: &Json) -> u64 {
    let removed = number(node, "Rows Removed by Filter") + number(node, "Rows Removed by Index Recheck");
    (number(node, "Actual Rows") + removed) * number(node, "Actual Loops")
}

/// Rows of a node, once.
fn rows(node: &Json) -> u64 {
    if number(node, "Actual Loops") == 0 { 0 } else { number(node, "Actual Rows") }
}

fn number(node: &Json, key: &str) -> u64 {
    // Newer servers give the rows of a loop as a fraction.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count is no more than 2^53 and not negative"
    )]
    node[key].as_f64().map_or(0, |number| number.round() as u64)
}

fn children(node: &Json) -> impl Iterator<Item = &Json> {
    node["Plans"].as_array().into_iter().flatten()
}

fn each_node(node: &Json, look: &mut impl FnMut(&Json)) {
    look(node);
    for child in children(node) {
        each_node(child, look);
    }
}

/// A plan for people.
fn lines(node: &Json, depth: usize) -> String {
    let text = |key: &str| node[key].as_str();
    let mut line = "  ".repeat(depth);
    line.push_str(text("Node Type").unwrap_or_default());
    for (before, key) in
        [(" ", "Relation Name"), (" by ", "Index Name"), (", cond ", "Index Cond"), (", filter ", "Filter")]
    {
        if let Some(value) = text(key) {
            line.push_str(before);
            line.extend(value.chars().take(160));
        }
    }
    let blocks = number(node, "Shared Hit Blocks") + number(node, "Shared Read Blocks");
    // Writing to a String cannot fail.
    let _ = writeln!(
        line,
        ": {} rows and {} removed, {} times, {blocks} blocks",
        number(node, "Actual Rows"),
        number(node, "Rows Removed by Filter"),
        number(node, "Actual Loops")
    );
    for child in children(node) {
        line.push_str(&lines(child, depth + 1));
    }
    line
}
