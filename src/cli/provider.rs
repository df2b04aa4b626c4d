//! `makegood provider`: the provider files, and what an answer would mean.

mod expect;
pub(super) mod list;
mod reading;
mod would;

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
    /// All providers, shipped and of providers.dir: limits, retention, whether the API is closed
    /// and the key is there, and how each stood when a pass last left it.
    List {
        /// text or json; without it, text on a terminal and JSON elsewhere.
        #[arg(long, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
    /// What an answer means, step by step, and what would be decided: an answer at hand (--answer),
    /// or the provider's own about a job (--job), for which it is asked with its key; or whether a
    /// folder of kept answers is read as expected (--expect). Writes nothing.
    Test(Tried),
}

/// A provider file that is tried out.
#[derive(Clone, Debug, clap::Args)]
pub struct Tried {
    /// The provider's name.
    pub name: String,
    /// The body of an answer, or "-" for stdin: nobody is asked.
    #[arg(long = "answer", value_name = "FILE", required_unless_present_any = ["job", "expect"])]
    pub file: Option<PathBuf>,
    /// The HTTP status of that answer [default: 200].
    #[arg(long, requires = "file", value_parser = clap::value_parser!(u16).range(100..=599))]
    pub status: Option<u16>,
    /// A header of that answer, as NAME:VALUE. May be given several times.
    #[arg(long = "header", requires = "file", value_name = "NAME:VALUE", value_parser = reading::header)]
    pub headers: Vec<reading::Header>,
    /// Which request of a question that answer is to [default: 1]: 2 or more where the filter asks
    /// further.
    #[arg(long, requires = "file", value_parser = clap::value_parser!(u8).range(1..=20))]
    pub step: Option<u8>,
    /// What the filter kept of the answer before, as JSON [default: null].
    #[arg(long, requires = "step", value_name = "JSON", value_parser = reading::kept)]
    pub kept: Option<serde_json::Value>,
    /// A folder of kept answers, each with its expected reading: prints what differs, and exits
    /// with 1 if anything does. docs/providers.md says how a case is written. Nobody is asked.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "job", "model", "items"])]
    pub expect: Option<PathBuf>,
    /// The provider's id of the job. Without --answer, the provider is asked for it.
    #[arg(long, value_name = "ID")]
    pub job: Option<String>,
    /// The model, as charges name it: some requests are made of it.
    #[arg(long, default_value = "owner/model")]
    pub model: String,
    /// How many outputs are expected of the job.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub items: u16,
    /// text or json; without it, text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

impl Tried {
    /// The job, or one that stands for any.
    fn job_id(&self) -> String {
        self.job.clone().unwrap_or_else(|| "job-1".to_owned())
    }
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
pub async fn run(args: Args, settings: Settings) -> Outcome {
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
