//! `makegood provider`: the provider files, and what an answer would mean.

use std::path::PathBuf;

use super::output::OutputFormat;
use super::{Failure, Outcome};
use crate::config::Settings;

/// Provider files: which there are, and what an answer would mean.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: ProviderCommand,
}

/// What to do with provider files.
#[derive(Debug, clap::Subcommand)]
pub enum ProviderCommand {
    /// All providers, shipped and of providers.dir.
    List {
        /// text or json; without it, text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
    /// What an answer would mean. Asks nobody.
    Test {
        /// The provider's name.
        name: String,
        /// The answer's body, or "-" for stdin.
        #[arg(long, value_name = "FILE")]
        answer: PathBuf,
        /// The answer's HTTP status.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(100..=599))]
        status: u16,
        /// text or json; without it, text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "the body is to be filled")]
pub async fn run(_args: Args, _settings: Settings) -> Outcome {
    Err(Failure::from("TO FILL: provider"))
}
