//! `makegood schedule`: the daemon.

use super::{Failure, Outcome};
use crate::config::Settings;

/// Run passes on the cron schedule of schedule.cron, never two at once, and answer on metrics.listen.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "the body is to be filled")]
pub async fn run(_args: Args, _settings: Settings) -> Outcome {
    Err(Failure::from("TO FILL: schedule"))
}
