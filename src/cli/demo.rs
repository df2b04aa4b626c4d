//! `makegood demo`: the main job on an example platform, with nothing to install.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use super::output::print;
use super::{Exit, Failure, Outcome};
use crate::config::Settings;
use crate::demo::{self, DemoError, DemoOptions, OutputStyle};

/// The main job on an example platform in one file, with nothing to install.
///
/// Takes nothing from the environment and needs no network.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the example platform is left for the next commands to try; what an earlier demo left is replaced.
    #[arg(long, value_name = "DIR", default_value = demo::DEFAULT_DIR)]
    pub dir: PathBuf,
}

/// What the commands to try next need before them: the environment would win over the settings file that the demo
/// leaves behind, and lead them to another database.
fn unset(names: impl Iterator<Item = OsString>) -> String {
    let settings = names.filter_map(|name| name.into_string().ok());
    let mut settings: Vec<String> =
        settings.filter(|name| name == "DATABASE_URL" || name.starts_with("MAKEGOOD__")).collect();
    settings.sort();
    if settings.is_empty() { String::new() } else { format!("env -u {} ", settings.join(" -u ")) }
}

/// Runs the command. The settings are the demo's own, so those of the command line do not matter.
///
/// # Errors
/// What ends the process.
pub async fn run(args: Args, _settings: Settings) -> Outcome {
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
    fn the_commands_to_try_next_never_reach_the_database_that_the_environment_names() {
        let names = |names: &[&str]| unset(names.iter().map(OsString::from));
        assert_eq!(names(&["PATH", "MAKEGOOD_LOG"]), "");
        let before = names(&["MAKEGOOD__DATABASE__URL", "PATH", "DATABASE_URL"]);
        assert_eq!(before, "env -u DATABASE_URL -u MAKEGOOD__DATABASE__URL ");
    }
}
