//! `makegood run`: one pass until nothing is due, then exit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::output::{OutputFormat, ProgressLine, print};
use super::parts::{database_place, open_parts, pass_failed};
use super::values::{SinceArg, positive_span};
use super::{CommandResult, Exit};
use crate::config::Settings;
use crate::detect;
use crate::ops::metrics::ProcessMetrics;
use crate::ops::stop::Stop;
use crate::ops::totals;
use crate::pass::{self, Orders};
use crate::store::Waits;

#[expect(clippy::doc_markdown, reason = "clap prints these comments as they are")]
/// One pass: make good every orphan that is due, then exit.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Ask and decide, but change nothing: no file, no credit, no row.
    #[arg(long)]
    pub dry_run: bool,
    /// Examine charges from T on again: RFC 3339, or a time span before now (36h).
    ///
    /// Charges older than detect.backlog_age are then only reported, unless --backlog is given.
    #[arg(long, value_name = "T")]
    pub since: Option<SinceArg>,
    /// With --since: make good old charges too, instead of only reporting them.
    #[arg(long, requires = "since")]
    pub backlog: bool,
    /// Start nothing new after D (90s, 10m), finish what was started, and exit. Overrides
    /// pass.max_duration.
    #[arg(long, value_name = "D", value_parser = positive_span)]
    pub max_duration: Option<Duration>,
    /// text or json. The default is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// Runs the command.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: RunArgs, settings: Settings) -> CommandResult {
    let format = OutputFormat::or_by_terminal(args.output);
    let mut parts = open_parts(&settings, Waits::AsLongAsAStatement).await?;
    if let Some(duration) = args.max_duration {
        parts.rules.max_duration = Some(duration);
    }
    let now = parts.store.now().await?;
    let orders = Orders {
        mode: "run",
        dry_run: args.dry_run,
        since: args.since.map(|since| detect::Since { from: since.at(now), backlog: args.backlog }),
        stop: Stop::on_signals()?,
    };
    let process = ProcessMetrics::asking(Arc::clone(&parts.providers))?;
    let progress = ProgressLine::on_terminal(format);
    let began = Instant::now();
    let result = Box::pin(pass::run(&parts, orders, move |progressed| progress.show(progressed))).await;
    process.observe_pass(began.elapsed());
    if !args.dry_run {
        totals::deliver(&settings.metrics, &parts.store, &process).await;
    }
    let report = result.map_err(|error| pass_failed(&error, &database_place(&settings)))?;
    report.log("run");
    print(&match format {
        OutputFormat::Text => report.to_text().trim_end().to_owned(),
        OutputFormat::Json => serde_json::to_string(&report)?,
    })?;
    parts.store.close().await;
    Ok(if report.needs_a_person() { Exit::Attention } else { Exit::Done })
}
