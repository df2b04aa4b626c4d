//! `makegood report`: what was made good, what is open or late, and what was refunded but made
//! after all. It reads the database; the report of a single pass is `crate::report`.

mod csv;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::output::{OutputFormat, print};
use super::parts::{open_tables, read_failed};
use super::values::SinceArg;
use super::{CommandResult, Exit, Failure};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::store::{
    DbError, HeldAccount, HeldProvider, LateItem, LateProvider, MadeGood, Store, Waiting, WaitingItem,
};

/// Report what was made good, what is open, and what is late.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Report what was made good from T on: RFC 3339, or a time span before now. Open items are
    /// listed whatever their age.
    #[arg(long, value_name = "T", default_value = "24h")]
    pub since: SinceArg,
    /// text, json or csv. The default is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<ReportFormat>,
}

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// Text for people.
    Text,
    /// One JSON object.
    Json,
    /// CSV: a header, then one line per item.
    Csv,
}

impl From<OutputFormat> for ReportFormat {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Text => Self::Text,
            OutputFormat::Json => Self::Json,
        }
    }
}

/// The maximum number of late items listed. CSV has all of them.
const MAX_LATE: i64 = 100;
/// The maximum number of held accounts listed.
const MAX_ACCOUNTS: i64 = 20;
/// The span of time that is held in memory at once.
const SLICE: Duration = Duration::from_hours(1);
/// The maximum number of slices, however long the time is.
const SLICES_MAX: u32 = 1000;

/// The content of the report.
#[derive(Debug, Serialize)]
struct Review {
    now: Timestamp,
    since: Timestamp,
    /// When a pass last succeeded.
    last_success: Option<Timestamp>,
    brake: Option<Engaged>,
    /// The brake on refunds caused only by faults of ours.
    own_faults: Option<Engaged>,
    /// Providers whose refunds a person holds.
    providers: BTreeMap<String, HeldProvider>,
    /// The number of accounts held by their own limits.
    accounts_held: u64,
    /// The most recent of them.
    accounts: Vec<HeldAccount>,
    made_good: Vec<MadeGood>,
    waiting: Vec<Waiting>,
    /// The number of items past their window.
    late_total: i64,
    /// The first hundred of them.
    late: Vec<WaitingItem>,
    /// Refunded items that were made after all, by provider, noticed since `since`.
    late_successes: Vec<LateProvider>,
    /// The first hundred of them, with the evidence for a claim against the provider.
    late_success_items: Vec<LateItem>,
}

/// The brake while it is on.
#[derive(Debug, Serialize)]
struct Engaged {
    since: Timestamp,
    reason: String,
}

/// Runs the command.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: ReportArgs, settings: Settings) -> CommandResult {
    let format = args.output.unwrap_or_else(|| OutputFormat::or_by_terminal(None).into());
    let store = open_tables(&settings).await?;
    let failed = |error: DbError| read_failed(&error);
    let now = store.now().await.map_err(failed)?;
    let since = args.since.at(now);
    match format {
        ReportFormat::Text => print(&text::render(&read(&store, since, now).await.map_err(failed)?))?,
        ReportFormat::Json => {
            print(&serde_json::to_string(&read(&store, since, now).await.map_err(failed)?)?)?;
        }
        ReportFormat::Csv => lines(&store, since, now).await?,
    }
    store.close().await;
    Ok(Exit::Done)
}

async fn read(store: &Store, since: Timestamp, now: Timestamp) -> Result<Review, DbError> {
    let waiting = store.waiting(now).await?;
    let brake = store.brake().await?;
    let held = brake.held();
    let engaged = |since: Option<Timestamp>, why: Option<String>| {
        since.zip(why).map(|(since, reason)| Engaged { since, reason })
    };
    Ok(Review {
        now,
        since,
        last_success: store.last_success().await?,
        brake: engaged(brake.engaged_at, held.all),
        own_faults: engaged(brake.own_faults_at, held.own_faults),
        providers: brake.providers,
        accounts_held: brake.accounts_held,
        accounts: store.held_accounts(MAX_ACCOUNTS).await?,
        made_good: store.made_good(since).await?,
        late_total: waiting.iter().map(|each| each.past_window).sum(),
        waiting,
        late: store.waiting_items(now, MAX_LATE).await?,
        late_successes: store.late_by_provider(since).await?,
        late_success_items: store.late_items(since, Timestamp::from_micros(FAR), MAX_LATE).await?,
    })
}

/// Prints one line per item: first what was made good, in slices; then what was refunded but made
/// after all; then everything that is open or held.
async fn lines(store: &Store, since: Timestamp, now: Timestamp) -> Result<(), Failure> {
    let failed = |error: DbError| read_failed(&error);
    print(&csv::header())?;
    let slice = SLICE.max(now.since(since) / SLICES_MAX);
    let mut from = since;
    while from < now {
        let until = from + slice;
        let items = store.made_good_items(from, until).await.map_err(failed)?;
        print_lines(&items.iter().map(csv::made_good).collect::<Vec<_>>())?;
        from = until;
    }
    // `noticed_at` is the database's time, which may be ahead of `now`; the last slice is
    // open-ended.
    let mut from = since;
    while from < now {
        let until = if from + slice < now { from + slice } else { Timestamp::from_micros(FAR) };
        let items = store.late_items(from, until, i64::MAX).await.map_err(failed)?;
        print_lines(&items.iter().map(csv::late_success).collect::<Vec<_>>())?;
        from = until;
    }
    let waiting = store.waiting_items(Timestamp::from_micros(FAR), i64::MAX).await.map_err(failed)?;
    print_lines(&waiting.iter().map(|item| csv::waiting(item, now)).collect::<Vec<_>>())
}

fn print_lines(lines: &[String]) -> Result<(), Failure> {
    if !lines.is_empty() {
        print(&lines.join("\n"))?;
    }
    Ok(())
}

/// The year 9999: after the end of any window, and within PostgreSQL's range.
const FAR: i64 = 253_370_764_800_000_000;
