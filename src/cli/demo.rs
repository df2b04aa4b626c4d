//! `makegood demo`: the main job on an example platform, with nothing to install.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use super::output::print;
use super::{Exit, Failure, Outcome};
use crate::config::Settings;
use crate::demo::{self, DemoError, Look, Orders};

/// The main job on an example platform in one file, with nothing to install.
///
/// Takes nothing from the environment and needs no network.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the example platform is left for the next commands to try; what an earlier demo left is replaced.
    #[arg(long, value_name = "DIR", default_value = "makegood-demo")]
    pub dir: PathBuf,
}

/// The environment would win over the settings file that the demo leaves behind.
const DATABASE_URL: &str = "DATABASE_URL";

/// Runs the command. The settings are the demo's own, so those of the command line do not matter.
///
/// # Errors
/// What ends the process.
pub async fn run(args: Args, _settings: Settings) -> Outcome {
    let orders = Orders {
        dir: args.dir,
        look: if std::io::stdout().is_terminal() { Look::Terminal } else { Look::Plain },
        program: std::env::args().next().unwrap_or_else(|| "makegood".to_owned()),
        before: std::env::var_os(DATABASE_URL)
            .map_or_else(String::new, |_| format!("env -u {DATABASE_URL} ")),
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
