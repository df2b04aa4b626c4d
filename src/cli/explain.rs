//! `makegood explain`: the whole story of a charge.

use super::output::OutputFormat;
use super::{Failure, Outcome};
use crate::config::Settings;

/// The whole story of a charge: what was paid, seen, asked, decided and done.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The charge's id, or CHARGE/INDEX for one of its outputs.
    #[arg(value_name = "CHARGE[/INDEX]")]
    pub target: String,
    /// Ask the provider now, and say what would be decided. Changes nothing.
    #[arg(long)]
    pub ask: bool,
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
    Err(Failure::from("TO FILL: explain"))
}
