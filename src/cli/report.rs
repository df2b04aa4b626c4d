//! `makegood report`: what was made good, what is open, what is late, and what was refunded and made after all.

mod csv;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::output::{OutputFormat, print};
use super::parts::{open_tables, said_for_people};
use super::values::Since;
use super::{Exit, Failure, Outcome};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::store::{
    DbError, HeldAccount, HeldProvider, LateItem, LateProvider, MadeGood, Store, Waiting, WaitingItem,
};

/// What was made good, what is open, what is late.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What was made good from T on: RFC 3339, or a time span before now. What is open is listed however old it is.
    #[arg(long, value_name = "T", default_value = "24h")]
    pub since: Since,
    /// text, json or csv; without it, text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<ReportFormat>,
}

/// The shape of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Text,
    /// One object.
    Json,
    /// One line an item, with a header.
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

/// The most late items that are listed one by one; CSV has all of them.
const LATE: i64 = 100;
/// The most held accounts that are listed.
const ACCOUNTS: i64 = 20;
/// How much of the past is held in memory at once.
const SLICE: Duration = Duration::from_hours(1);
/// At most so many looks at the past, however long it is.
const SLICES_MAX: u32 = 1000;

/// What is told.
#[derive(Debug, Serialize)]
struct Review {
    now: Timestamp,
    since: Timestamp,
    /// When a pass last ended well.
    last_success: Option<Timestamp>,
    brake: Option<Engaged>,
    /// The same for refunds that rest on nothing but faults of ours.
    own_faults: Option<Engaged>,
    /// Providers whose refunds a person holds.
    providers: BTreeMap<String, HeldProvider>,
    /// How many accounts are held by limits of their own.
    accounts_held: u64,
    /// The newest of them.
    accounts: Vec<HeldAccount>,
    made_good: Vec<MadeGood>,
    waiting: Vec<Waiting>,
    /// How many are late: past the time within which they were promised to be made good.
    late_total: i64,
    /// The first hundred of them.
    late: Vec<WaitingItem>,
    /// Refunded items that were made after all, by provider: noticed since then.
    late_successes: Vec<LateProvider>,
    /// The first hundred of them, with the evidence to claim them back by.
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
/// What ends the process.
pub async fn run(args: Args, settings: Settings) -> Outcome {
    let format = args.output.unwrap_or_else(|| OutputFormat::or_by_terminal(None).into());
    let store = open_tables(&settings).await?;
    let failed = |error: DbError| said_for_people(&error);
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
        accounts: store.held_accounts(ACCOUNTS).await?,
        made_good: store.made_good(since).await?,
        late_total: waiting.iter().map(|each| each.past_window).sum(),
        waiting,
        late: store.waiting_items(now, LATE).await?,
        late_successes: store.late_by_provider(since).await?,
        late_success_items: store.late_items(since, Timestamp::from_micros(FAR), LATE).await?,
    })
}

/// One line an item: what was made good, slice by slice, then what was refunded and made after all, then all
/// that is open and held.
async fn lines(store: &Store, since: Timestamp, now: Timestamp) -> Result<(), Failure> {
    let failed = |error: DbError| said_for_people(&error);
    print(&csv::header())?;
    let slice = SLICE.max(now.since(since) / SLICES_MAX);
    let mut from = since;
    while from < now {
        let until = from + slice;
        let items = store.made_good_items(from, until).await.map_err(failed)?;
        print_lines(&items.iter().map(csv::made_good).collect::<Vec<_>>())?;
        from = until;
    }
    // Noticed by the database's clock, which may be ahead of this command's.
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

/// The year 9999: later than any window ends, and still a time that PostgreSQL knows.
const FAR: i64 = 253_370_764_800_000_000;
