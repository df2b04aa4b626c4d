//! `makegood schedule`: the daemon.

use std::sync::Arc;

use super::parts::{database_place, open_parts, pass_failed};
use super::{CommandResult, Exit};
use crate::clock::Clock;
use crate::config::Settings;
use crate::ops::daemon::{Daemon, PassResult, listen};
use crate::ops::metrics::ProcessMetrics;
use crate::ops::status::shown;
use crate::ops::stop::Stop;
use crate::ops::totals;
use crate::pass::{self, Orders, Parts};
use crate::report::chain;
use crate::schedule::{Heartbeat, PassEnd};
use crate::store::Waits;

/// Run passes on the cron schedule of schedule.cron, never two at once, and answer on
/// metrics.listen.
#[derive(Debug, clap::Args)]
pub struct ScheduleArgs {}

/// Runs until it is asked to stop.
///
/// # Errors
/// The error that ends the process.
pub async fn run(_args: ScheduleArgs, settings: Settings) -> CommandResult {
    let stop = Stop::on_signals()?;
    let listener = match settings.metrics.listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let parts = tokio::select! {
        biased;
        // It may be waiting for a database server that never answers.
        () = stop.wait() => return Ok(Exit::Done),
        parts = open_parts(&settings, Waits::Forever) => parts?,
    };
    let now = parts.store.now().await?;
    let place = database_place(&settings);
    let known = totals::totals(&parts.store, now).await.map_err(|error| pass_failed(&error, &place))?;
    let asked = parts.store.clone();
    let daemon = Daemon {
        timetable: settings.schedule.timetable()?,
        listener,
        stop,
        process: ProcessMetrics::asking(Arc::clone(&parts.providers))?,
        totals: Some(known),
        ready: Box::new(move || {
            let store = asked.clone();
            Box::pin(async move { store.answers().await.map_err(|error| chain(&error)) })
        }),
        status_details: settings.metrics.status_details,
        // A batch ends within its lease; after that, other processes may claim it.
        stall_timeout: settings.pass.lease,
    };
    let store = parts.store.clone();
    let details = settings.metrics.status_details;
    Box::pin(daemon.run(|stop, heartbeat| one_pass(parts.clone(), &place, details, stop, heartbeat))).await?;
    store.close().await;
    Ok(Exit::Done)
}

/// Runs one pass. An error is only logged; the next pass retries.
async fn one_pass(parts: Parts, place: &str, details: bool, stop: Stop, heartbeat: Heartbeat) -> PassResult {
    let orders = Orders { mode: "schedule", dry_run: false, since: None, stop };
    let result =
        pass::run(&parts, orders, move |_progressed| heartbeat.record_progress(Clock::System.now())).await;
    // Free the memory of filter workers between passes.
    parts.providers.stop_idle_workers().await;
    let known = async { totals::totals(&parts.store, parts.store.now().await?).await };
    let totals = known
        .await
        .inspect_err(|error| {
            tracing::warn!(
                "could not read the metrics from the database, the last ones stay: {}",
                chain(error)
            );
        })
        .ok();
    match result {
        Ok(report) => {
            report.log("schedule");
            PassResult { end: PassEnd::Done, totals, report: Some(shown(&report, details)) }
        }
        Err(error) => {
            tracing::error!("{}", pass_failed(&error, place));
            PassResult { end: PassEnd::Failed, totals, report: None }
        }
    }
}
