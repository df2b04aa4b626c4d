//! `makegood brake`: how it stands, and its release by a person.

use super::output::OutputFormat;
use super::values::said;
use super::{Failure, Outcome};
use crate::config::Settings;

/// The brake, which stops refunds when too many at once suggest that something else is broken.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: BrakeCommand,
}

/// What to do with the brake.
#[derive(Debug, clap::Subcommand)]
pub enum BrakeCommand {
    /// Whether it is on, since when and why, and what it holds.
    Status {
        /// text or json; without it, text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
    /// Let go of what it holds. Look into the cause first; who and why are kept.
    Release {
        /// Who releases it.
        #[arg(long, value_name = "WHO", value_parser = said)]
        by: String,
        /// Why it is right to go on.
        #[arg(long, value_name = "WHY", value_parser = said)]
        reason: String,
    },
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "the body is to be filled")]
pub async fn run(_args: Args, _settings: Settings) -> Outcome {
    Err(Failure::from("TO FILL: brake"))
}
