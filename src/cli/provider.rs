//! `makegood provider`: lists the provider files, and tests how they read answers.

mod expect;
pub(super) mod list;
mod reading;
mod would;

use std::path::PathBuf;

use super::output::OutputFormat;
use super::{CommandResult, Exit};
use crate::config::Settings;

/// List the provider files, and test how they read answers.
#[derive(Debug, clap::Args)]
pub struct ProviderArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: ProviderCommand,
}

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum ProviderCommand {
    /// List all providers, shipped and in providers.dir: limits, retention, whether the API is
    /// closed and the key is present, and the state after the last pass.
    List {
        /// text or json. The default is text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
    /// Show how an answer is read, step by step, and what would be decided. The answer is a file
    /// (--answer), or the provider is asked for a job with its key (--job), or a folder of recorded
    /// answers is compared with expected readings (--expect). Writes nothing.
    Test(ProviderTestArgs),
}

/// The arguments of `makegood provider test`.
#[derive(Clone, Debug, clap::Args)]
pub struct ProviderTestArgs {
    /// The provider's name.
    pub name: String,
    /// The body of an answer, or "-" for stdin. The provider is not asked.
    #[arg(long = "answer", value_name = "FILE", required_unless_present_any = ["job", "expect"])]
    pub file: Option<PathBuf>,
    /// The HTTP status of that answer [default: 200].
    #[arg(long, requires = "file", value_parser = clap::value_parser!(u16).range(100..=599))]
    pub status: Option<u16>,
    /// A header of that answer, as NAME:VALUE. May be given several times.
    #[arg(long = "header", requires = "file", value_name = "NAME:VALUE", value_parser = reading::header)]
    pub headers: Vec<reading::Header>,
    /// The request of the question that the answer belongs to [default: 1]. It is 2 or more if the
    /// filter asks further.
    #[arg(long, requires = "file", value_parser = clap::value_parser!(u8).range(1..=20))]
    pub step: Option<u8>,
    /// What the filter kept of the previous answer, as JSON [default: null].
    #[arg(long, requires = "step", value_name = "JSON", value_parser = reading::kept)]
    pub kept: Option<serde_json::Value>,
    /// A folder of recorded answers, each with its expected reading. Prints the differences, and
    /// exits with 1 if there are any. docs/providers.md describes the format. The provider is not
    /// asked.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "job", "model", "items"])]
    pub expect: Option<PathBuf>,
    /// The provider's id of the job. Without --answer, the provider is asked about it.
    #[arg(long, value_name = "ID")]
    pub job: Option<String>,
    /// The model, as charges name it. Some requests contain it.
    #[arg(long, default_value = "owner/model")]
    pub model: String,
    /// The number of outputs that the job should have.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub items: u16,
    /// text or json. The default is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

impl ProviderTestArgs {
    /// The job's id, or an example.
    fn job_id(&self) -> String {
        self.job.clone().unwrap_or_else(|| "job-1".to_owned())
    }
}

/// Runs the command.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: ProviderArgs, settings: Settings) -> CommandResult {
    match args.command {
        ProviderCommand::List { output } => {
            list::run(OutputFormat::or_by_terminal(output), &settings).await?;
            Ok(Exit::Done)
        }
        ProviderCommand::Test(tried) => {
            let fine = match &tried.expect {
                Some(dir) => expect::run(&tried, dir, &settings)?,
                None => reading::run(&tried, &settings).await?,
            };
            Ok(if fine { Exit::Done } else { Exit::Failed })
        }
    }
}
