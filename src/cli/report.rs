//! `makegood report`: what was made good, what is open, what is late.

use super::values::Since;
use super::{Failure, Outcome};
use crate::config::Settings;

/// What was made good, what is open, what is late.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// From T on: RFC 3339, or a time span before now.
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

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "the body is to be filled")]
pub async fn run(_args: Args, _settings: Settings) -> Outcome {
    Err(Failure::from("TO FILL: report"))
}
