//! `makegood demo`: the pipeline on an example platform, with nothing to install.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use super::output::print;
use super::{CommandResult, Exit, Failure};
use crate::config::Settings;
use crate::demo::{self, DemoError, DemoOptions, OutputStyle};

/// The pipeline on an example platform in one file, with nothing to install.
///
/// Ignores the environment and needs no network.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The directory of the example platform, for further commands. Files of an earlier demo are
    /// replaced.
    #[arg(long, value_name = "DIR", default_value = demo::DEFAULT_DIR)]
    pub dir: PathBuf,
}

/// A prefix for the suggested commands that unsets settings in the environment. Otherwise these
/// would override the demo's settings file, and the commands would use another database.
fn unset(names: impl Iterator<Item = OsString>) -> String {
    let settings = names.filter_map(|name| name.into_string().ok());
    let mut settings: Vec<String> =
        settings.filter(|name| name == "DATABASE_URL" || name.starts_with("MAKEGOOD__")).collect();
    settings.sort();
    if settings.is_empty() { String::new() } else { format!("env -u {} ", settings.join(" -u ")) }
}

/// Runs the command. It uses the demo's own settings, not those of the command line.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: DemoArgs, _settings: Settings) -> CommandResult {
    let orders = DemoOptions {
        dir: args.dir,
        style: if std::io::stdout().is_terminal() { OutputStyle::Terminal } else { OutputStyle::Plain },
        program: std::env::args_os()
            .next()
            .map_or_else(|| "makegood".to_owned(), |program| program.to_string_lossy().into_owned()),
        before: unset(std::env::vars_os().map(|(name, _)| name)),
    };
    let told = demo::run(&orders).await.map_err(|error| match error {
        DemoError::NotOurs { .. } | DemoError::Path { .. } => Failure::usage(error),
        DemoError::Files { .. }
        | DemoError::Listen(_)
        | DemoError::Settings(_)
        | DemoError::SetUp { .. }
        | DemoError::Migrate(_)
        | DemoError::Platform(_)
        | DemoError::Pass(_)
        | DemoError::Mismatches(_) => Failure::from(error),
    })?;
    print(told.text.trim_end())?;
    if told.mismatches.is_empty() {
        Ok(Exit::Done)
    } else {
        Err(DemoError::Mismatches(told.mismatches).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggested_commands_never_use_the_database_of_the_environment() {
        let names = |names: &[&str]| unset(names.iter().map(OsString::from));
        assert_eq!(names(&["PATH", "MAKEGOOD_LOG"]), "");
        let before = names(&["MAKEGOOD__DATABASE__URL", "PATH", "DATABASE_URL"]);
        assert_eq!(before, "env -u DATABASE_URL -u MAKEGOOD__DATABASE__URL ");
    }
}
