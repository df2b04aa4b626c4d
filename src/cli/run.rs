//! `makegood run`: one pass until nothing is due, then exit.

use std::time::Duration;

use super::output::OutputFormat;
use super::values::{Since, positive_span};
use super::{Failure, Outcome};
use crate::config::Settings;

#[expect(clippy::doc_markdown, reason = "clap prints these comments as they are")]
/// One pass: make good every orphan that is due, then exit.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ask and decide, but change nothing: no file, no credit, no row.
    #[arg(long)]
    pub dry_run: bool,
    /// Look again at charges from T on: RFC 3339, or a time span before now (36h).
    ///
    /// Charges older than detect.backlog_age are then only reported, unless --backlog is given.
    #[arg(long, value_name = "T")]
    pub since: Option<Since>,
    /// With --since: make good old charges too, instead of only reporting them.
    #[arg(long, requires = "since")]
    pub backlog: bool,
    /// Begin nothing new after D (90s, 10m), finish what is at hand, and exit. Wins over pass.max_duration.
    #[arg(long, value_name = "D", value_parser = positive_span)]
    pub max_duration: Option<Duration>,
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
    Err(Failure::from("TO FILL: run"))
}
