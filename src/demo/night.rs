//! Simulates one day of the example platform, from one evening to the next, with a simulated clock.
//!
//! The platform's events happen at their minute. In between, real passes run as in production, over
//! real HTTP and real files, on the database that both write. Minute zero is the first pass.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::DemoError;
use super::platform::{BalanceRow, Platform};
use super::simulator::{AskHook, Simulator};
use super::stories;
use super::world::{ExampleCharge, ExampleOutput};
use crate::clock::Clock;
use crate::config::Settings;
use crate::ops::stop::Stop;
use crate::pass::{self, Orders, Parts, Rules, copy_limits};
use crate::provider::Providers;
use crate::recovery::{self, Fetcher, ObjectStorage};
use crate::report::PassReport;
use crate::store::Store;

/// The last pass: 23 and a half hours after the first one.
pub const SECOND_EVENING: i64 = 1410;
/// The minute at which the provider of one story answers again.
pub const BACK_AGAIN: i64 = 360;
/// A minute before all events.
const BEGINNING: i64 = -100_000;

/// The minutes of the passes. In production a pass runs every minute and usually finds nothing due;
/// the demo has fewer, to take only seconds. The first refund without an answer is due after 21
/// hours.
const PASSES: [i64; 18] =
    [0, 1, 15, 30, 60, 180, 300, 420, 540, 660, 780, 900, 1020, 1140, 1260, 1320, 1380, SECOND_EVENING];

/// Builds the parts of a pass from the settings, with the demo's clock.
pub fn parts(settings: &Settings, store: Store, clock: &Clock) -> Result<Parts, DemoError> {
    let providers = Providers::load(settings.providers.dir.as_deref(), clock.clone())
        .map_err(|source| DemoError::SetUp { what: "the provider files", source: Box::new(source) })?;
    let storage = ObjectStorage::open(settings.storage.url.as_str(), Path::new("."))
        .map_err(|source| DemoError::SetUp { what: "the storage", source: Box::new(source) })?;
    // Delays between retries of a download are real time, so they are shortened.
    let limits = recovery::CopyLimits { retry_delay: Duration::from_millis(1), ..copy_limits(settings) };
    let fetcher = Fetcher::new(limits)
        .map_err(|source| DemoError::SetUp { what: "the download client", source: Box::new(source) })?;
    Ok(Parts {
        store,
        providers: Arc::new(providers),
        storage: Arc::new(storage),
        fetcher: Arc::new(fetcher),
        rules: Rules::new(settings),
    })
}

/// The results of the day that are not in the database.
#[derive(Debug)]
pub struct Day {
    /// The reports of all passes, in order.
    pub reports: Vec<PassReport>,
    /// All balances before the first pass.
    pub balances_before: Vec<BalanceRow>,
}

/// Runs the platform's events and the passes of the day.
pub async fn simulate_day(
    parts: &Parts,
    platform: &Platform,
    simulator: &Simulator,
    clock: &Clock,
    charges: &[ExampleCharge],
) -> Result<Day, DemoError> {
    stories::set_answers(simulator);
    if let Some(charge) = charges.iter().find(|charge| charge.id == stories::LATE_CHARGE) {
        simulator.on_ask(arrives_late(platform, charge));
    }
    let mut reports = Vec::new();
    platform.write_events(charges, BEGINNING, 0).await.map_err(DemoError::Platform)?;
    let balances_before = platform.balances().await.map_err(DemoError::Platform)?;
    let mut lived = 0;
    for minute in PASSES {
        platform.write_events(charges, lived, minute).await.map_err(DemoError::Platform)?;
        lived = minute;
        if minute >= BACK_AGAIN {
            stories::provider_comes_back(simulator);
        }
        clock.set(platform.at(minute));
        let orders = Orders { mode: "schedule", dry_run: false, since: None, stop: Stop::new() };
        reports.push(pass::run(parts, orders, |_| {}).await.map_err(DemoError::Pass)?);
    }
    Ok(Day { reports, balances_before })
}

/// Stores the output of a charge during the first request to its provider (P20: a
/// late output closes the case without a refund).
fn arrives_late(platform: &Platform, charge: &ExampleCharge) -> AskHook {
    let output = ExampleOutput { stored_at: 0, ..charge.output(0) };
    let (platform, arrived) = (platform.clone(), Arc::new(AtomicBool::new(false)));
    Arc::new(move |job| {
        let now = job == output.from.0 && !arrived.swap(true, Ordering::SeqCst);
        let (platform, output) = (platform.clone(), now.then(|| output.clone()));
        Box::pin(async move {
            if let Some(output) = output
                && let Err(error) = platform.store(&output).await
            {
                // The story then ends differently, and the demo's own check reports it.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the example platform could not store an output"
                );
            }
        })
    })
}
