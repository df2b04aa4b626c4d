//! The command line: one file per command.
//!
//! This file reads the arguments, loads and checks the settings, sets up the log, runs the command,
//! and turns its result into an exit code: 0 done; 1 the pass failed; 2 wrong usage or
//! configuration; 3 done, but orphans are past their window or held by the brake. An error is
//! printed once, with its causes, on stderr. Stdout has only the output of the command.

mod brake;
mod by_hand;
mod check;
mod demo;
mod erase;
mod evidence;
mod explain;
mod migrate;
mod output;
mod parts;
mod provider;
mod report;
mod reverse_refund;
mod run;
mod schedule;
mod simulate_provider;
mod values;
mod words;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

use crate::config::{ConfigError, Flag, LoadArgs, Settings};
use crate::ops::telemetry::{self, Style};
use crate::report::{causes, chain};

pub use output::{OutputFormat, print};
pub use values::SinceArg;

/// The exit code of the process. Schedulers and alerts depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The pass or the command failed. A retry may help.
    Failed,
    /// Wrong usage or configuration. A retry does not help.
    Usage,
    /// Done, but a person should act: orphans are past their window or held by the brake.
    Attention,
}

impl Exit {
    /// The number of the exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Attention => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// The result of a command.
pub type CommandResult = Result<Exit, Failure>;

/// An error that ends the process, with its exit code. Through `?` any error becomes one with
/// [`Exit::Failed`].
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// Wrong usage: [`Exit::Usage`].
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }

    /// The exit code.
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

impl std::fmt::Display for Failure {
    /// The error and its causes on one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&chain(self.error.as_ref()))
    }
}

// `Failure` is not an `Error`, so this does not overlap with `From<Failure>`.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, error: error.into() }
    }
}

#[expect(clippy::doc_markdown, reason = "clap prints these comments as they are")]
/// Every charge ends in an output or a refund, exactly once, within 24 hours.
///
/// makegood finds charges without a stored output, asks the provider about the job, and then
/// recovers the output or refunds the credits. To try it out with nothing to install: makegood demo
#[derive(Debug, Parser)]
#[command(name = "makegood", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// The settings, a TOML file. A setting that it leaves out keeps its default.
    ///
    /// Precedence, from low to high: built-in defaults, this file, the environment
    /// (MAKEGOOD__SECTION__KEY), DATABASE_URL, flags.
    #[arg(long, value_name = "FILE", global = true, help_heading = "For all commands")]
    config: Option<PathBuf>,
    /// The database: sqlite://FILE or postgres://user@host/name.
    ///
    /// Other users of the machine can read process arguments. Set a URL with a password in the
    /// environment variable DATABASE_URL instead.
    #[arg(long, value_name = "URL", global = true, help_heading = "For all commands")]
    database_url: Option<String>,
    /// Log more. Twice: log everything.
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = "For all commands")]
    verbose: u8,
    /// Log only what a person should examine.
    #[arg(short, long, global = true, help_heading = "For all commands", conflicts_with = "verbose")]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; \
                          3 done, but orphans are past their window or held by the brake, an account \
                          was held for the first time, or evidence of open cases was not erased.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Schedule(schedule::ScheduleArgs),
    Migrate(migrate::MigrateArgs),
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Refund(by_hand::RefundArgs),
    Recover(by_hand::RecoverArgs),
    ReverseRefund(reverse_refund::ReverseRefundArgs),
    Erase(erase::EraseArgs),
    Report(report::ReportArgs),
    Brake(brake::BrakeArgs),
    Provider(provider::ProviderArgs),
    SimulateProvider(simulate_provider::SimulateProviderArgs),
    Demo(demo::DemoArgs),
}

impl Command {
    /// Whether the command only tries makegood out. It then ignores the environment, so that it
    /// cannot reach a real database.
    const fn ignores_environment(&self) -> bool {
        match self {
            Self::Demo(_) | Self::SimulateProvider(_) => true,
            Self::Run(_)
            | Self::Schedule(_)
            | Self::Migrate(_)
            | Self::Check(_)
            | Self::Explain(_)
            | Self::Refund(_)
            | Self::Recover(_)
            | Self::ReverseRefund(_)
            | Self::Erase(_)
            | Self::Report(_)
            | Self::Brake(_)
            | Self::Provider(_) => false,
        }
    }
}

/// Runs the whole process, from the arguments to the exit code.
pub async fn main() -> ExitCode {
    // This must precede the first TLS client. An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Wrong usage exits here with code 2; --help and --version exit with 0.
    let cli = Cli::parse();
    let settings = match cli.settings() {
        Ok(settings) => settings,
        Err(error) => return print_failure(&Failure::usage(error), Style::Text),
    };
    let filter = std::env::var(crate::config::LOG_VARIABLE).ok();
    let style = match telemetry::init(&settings.log, filter.as_deref()) {
        Ok(style) => style,
        Err(error) => return print_failure(&Failure::usage(error), Style::Text),
    };
    match Box::pin(cli.command.run(settings)).await {
        Ok(exit) => exit.into(),
        Err(failure) => print_failure(&failure, style),
    }
}

impl Cli {
    fn settings(&self) -> Result<Settings, ConfigError> {
        let mut flags = Vec::new();
        if let Some(url) = &self.database_url {
            flags.push(Flag { name: "--database-url", key: "database.url", value: url.clone() });
        }
        let level = match (self.quiet, self.verbose) {
            (true, _) => Some(("--quiet", "warn")),
            // The demo prints its own output.
            (false, 0) if matches!(self.command, Command::Demo(_)) => Some(("the demo", "error")),
            (false, 0) => None,
            (false, 1) => Some(("--verbose", "debug")),
            (false, _) => Some(("--verbose", "trace")),
        };
        if let Some((name, level)) = level {
            flags.push(Flag { name, key: "log.level", value: level.to_owned() });
        }
        let no_environment = self.command.ignores_environment();
        Settings::load(&LoadArgs {
            file: self.config.clone(),
            env: if no_environment { Vec::new() } else { std::env::vars_os().collect() },
            flags,
            // Without a working directory only absolute storage paths work.
            working_dir: std::env::current_dir().unwrap_or_default(),
        })
    }
}

impl Command {
    async fn run(self, settings: Settings) -> CommandResult {
        match self {
            Self::Run(args) => run::run(args, settings).await,
            Self::Schedule(args) => schedule::run(args, settings).await,
            Self::Migrate(args) => migrate::run(args, settings).await,
            Self::Check(args) => check::run(args, settings).await,
            Self::Explain(args) => explain::run(args, settings).await,
            Self::Refund(args) => by_hand::refund(args, settings).await,
            Self::Recover(args) => by_hand::recover(args, settings).await,
            Self::ReverseRefund(args) => reverse_refund::run(args, settings).await,
            Self::Erase(args) => erase::run(args, settings).await,
            Self::Report(args) => report::run(args, settings).await,
            Self::Brake(args) => brake::run(args, settings).await,
            Self::Provider(args) => provider::run(args, settings).await,
            Self::SimulateProvider(args) => simulate_provider::run(args, settings).await,
            Self::Demo(args) => Box::pin(demo::run(args, settings)).await,
        }
    }
}

/// Prints an error once: as text, or as one line of the JSON log.
fn print_failure(failure: &Failure, style: Style) -> ExitCode {
    match style {
        Style::Text => eprintln!("makegood: {}", causes(failure.error.as_ref()).join("\n  because ")),
        Style::Json => tracing::error!(exit = failure.exit.code(), "{}", chain(failure.error.as_ref())),
    }
    failure.exit.into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layered {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    fn layered(texts: &[&'static str]) -> Layered {
        let (text, rest) = texts.split_first().unwrap();
        Layered { text, source: (!rest.is_empty()).then(|| Box::new(layered(rest))) }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_cause_is_printed_twice() {
        let error = layered(&[
            "could not ask",
            "send failed: connection refused",
            "connection refused",
            "os error 1",
        ]);
        assert_eq!(causes(&error), ["could not ask", "send failed: connection refused", "os error 1"]);
    }

    #[test]
    fn exit_codes_have_their_documented_numbers() {
        let codes = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Attention].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3]);
        assert_eq!(Failure::from("x").exit(), Exit::Failed);
        assert_eq!(Failure::usage("x").exit(), Exit::Usage);
    }

    #[test]
    fn the_demo_ignores_the_environment() {
        let demo = Cli::try_parse_from(["makegood", "demo"]).unwrap();
        assert!(demo.command.ignores_environment());
        let run = Cli::try_parse_from(["makegood", "run"]).unwrap();
        assert!(!run.command.ignores_environment());
    }

    #[test]
    fn flags_override_settings_and_are_checked_alike() {
        let cli =
            |args: &[&str]| Cli::try_parse_from([&["makegood", "demo"], args].concat()).unwrap().settings();
        let settings = cli(&["--database-url", "sqlite://x.db", "-v"]).unwrap();
        assert_eq!(settings.database.url.expose(), "sqlite://x.db");
        assert_eq!(settings.log.level, crate::config::LogLevel::Debug);
        let error = cli(&["--database-url", "mysql://x"]).unwrap_err().to_string();
        assert!(error.contains("(flag --database-url)"), "{error}");
        assert!(Cli::try_parse_from(["makegood", "demo", "-v", "-q"]).is_err());
    }
}
