//! `makegood provider`: the provider files, and what an answer would mean.

pub(super) mod list;
mod reading;

use std::path::PathBuf;

use super::output::OutputFormat;
use super::{Exit, Outcome};
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
    /// What an answer would mean, and what would be decided. Asks nobody.
    Test(Answer),
}

/// An answer to be read.
#[derive(Debug, clap::Args)]
pub struct Answer {
    /// The provider's name.
    pub name: String,
    /// The answer's body, or "-" for stdin.
    #[arg(long = "answer", value_name = "FILE")]
    pub file: PathBuf,
    /// The answer's HTTP status.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(100..=599))]
    pub status: u16,
    /// A header of the answer, as NAME:VALUE. May be given several times.
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = reading::header)]
    pub headers: Vec<reading::Header>,
    /// The model, as charges name it: some requests are made of it.
    #[arg(long, default_value = "owner/model")]
    pub model: String,
    /// The provider's id of the job.
    #[arg(long, default_value = "job-1")]
    pub job: String,
    /// How many outputs are expected of the job.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub items: u16,
    /// Which request of a question this answers: 2 or 3 where the filter asks for more.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub step: u8,
    /// text or json; without it, text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "commands are called alike")]
pub async fn run(args: Args, settings: Settings) -> Outcome {
    match args.command {
        ProviderCommand::List { output } => list::run(OutputFormat::or_by_terminal(output), &settings)?,
        ProviderCommand::Test(answer) => reading::run(&answer, &settings)?,
    }
    Ok(Exit::Done)
}
