//! `makegood check`: a doctor for configuration, database, contract, providers and storage.

use super::output::OutputFormat;
use super::{Failure, Outcome};
use crate::config::Settings;

/// Check configuration, database, contract relations, providers and storage, and say what to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// text or json; without it, text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "the body is to be filled")]
pub async fn run(_args: Args, _settings: Settings) -> Outcome {
    Err(Failure::from("TO FILL: check"))
}
