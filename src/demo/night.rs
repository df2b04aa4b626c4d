//! One day of the example platform, from one evening to the next, on a clock that is moved by hand.
//!
//! What the platform does happens at its minute; between, makegood's passes run as they would in production: the
//! real pipeline, real HTTP, real files, and a database that both write. Minute zero is the first pass.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::DemoError;
use super::platform::{Balance, Platform};
use super::simulator::{Hook, Simulator};
use super::stories;
use super::world::{Charge, Output};
use crate::clock::Clock;
use crate::config::Settings;
use crate::ops::stop::Stop;
use crate::pass::{self, Orders, Parts, Rules, copy_limits};
use crate::provider::Providers;
use crate::recovery::{self, Fetcher, Storage};
use crate::report::PassReport;
use crate::store::Store;

/// The last pass: 23 and a half hours after the first one.
pub const SECOND_EVENING: i64 = 1410;
/// When the provider of one story is back.
pub const BACK_AGAIN: i64 = 360;
/// Long before anything happened.
const BEGINNING: i64 = -100_000;

/// The minutes of the passes. In production there is one every minute, and most of those find nothing due; a demo
/// that takes seconds has fewer. The first refund for lack of an answer is due at 21 hours.
const PASSES: [i64; 18] =
    [0, 1, 15, 30, 60, 180, 300, 420, 540, 660, 780, 900, 1020, 1140, 1260, 1320, 1380, SECOND_EVENING];

/// The parts of a pass, as the settings say, on the demo's clock.
pub fn parts(settings: &Settings, store: Store, clock: &Clock) -> Result<Parts, DemoError> {
    let providers = Providers::load(settings.providers.dir.as_deref(), clock.clone())
        .map_err(|source| DemoError::SetUp { what: "the provider files", source: Box::new(source) })?;
    let storage = Storage::open(settings.storage.url.as_str(), Path::new("."))
        .map_err(|source| DemoError::SetUp { what: "the storage", source: Box::new(source) })?;
    // The day passes by hand, and so would the pauses between two tries of a file that breaks off: in real time.
    let limits = recovery::Limits { pause: Duration::from_millis(1), ..copy_limits(settings) };
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

/// What the day leaves to tell, beside the database.
#[derive(Debug)]
pub struct Day {
    /// The reports of all passes, in order.
    pub reports: Vec<PassReport>,
    /// All balances, just before the first pass.
    pub balances_before: Vec<Balance>,
}

/// Lives through the day.
pub async fn live_through(
    parts: &Parts,
    platform: &Platform,
    simulator: &Simulator,
    clock: &Clock,
    charges: &[Charge],
) -> Result<Day, DemoError> {
    stories::arrange(simulator);
    if let Some(charge) = charges.iter().find(|charge| charge.id == stories::LATE_CHARGE) {
        simulator.on_ask(arrives_late(platform, charge));
    }
    let mut reports = Vec::new();
    platform.live(charges, BEGINNING, 0).await.map_err(DemoError::Platform)?;
    let balances_before = platform.balances().await.map_err(DemoError::Platform)?;
    let mut lived = 0;
    for minute in PASSES {
        platform.live(charges, lived, minute).await.map_err(DemoError::Platform)?;
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

/// Stores the output of a charge while its provider is being asked for it, the first time (P20).
fn arrives_late(platform: &Platform, charge: &Charge) -> Hook {
    let output = Output { stored_at: 0, ..charge.output(0) };
    let (platform, arrived) = (platform.clone(), Arc::new(AtomicBool::new(false)));
    Arc::new(move |job| {
        let now = job == output.from.0 && !arrived.swap(true, Ordering::SeqCst);
        let (platform, output) = (platform.clone(), now.then(|| output.clone()));
        Box::pin(async move {
            if let Some(output) = output
                && let Err(error) = platform.store(&output).await
            {
                // The story then ends otherwise than promised, which the demo's own check tells.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the example platform could not store an output"
                );
            }
        })
    })
}
