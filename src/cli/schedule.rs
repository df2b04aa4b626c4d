//! `makegood schedule`: the daemon.

use super::{Exit, Outcome};
use crate::config::Settings;
use crate::ops::daemon::{Daemon, Ended, listen};
use crate::ops::metrics::Process;
use crate::ops::stop::Stop;
use crate::schedule::PassEnd;

/// Run passes on the cron schedule of schedule.cron, never two at once, and answer on metrics.listen.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until somebody asks to stop.
///
/// # Errors
/// What ends the process.
pub async fn run(_args: Args, settings: Settings) -> Outcome {
    let listener = match settings.metrics.listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let daemon = Daemon {
        timetable: settings.schedule.timetable()?,
        listener,
        stop: Stop::on_signals()?,
        process: Process::new()?,
        ready: Box::new(|| Box::pin(async { Err("TO FILL: ask the store".to_owned()) })),
        // A batch is done within its lease, or it is no longer ours.
        patience: settings.pass.lease,
    };
    daemon
        .run(|_stop, _pulse| async {
            tracing::error!("TO FILL: one pass");
            Ended { end: PassEnd::Failed, totals: None, report: None }
        })
        .await?;
    Ok(Exit::Done)
}
