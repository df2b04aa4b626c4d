//! `makegood demo`: the main job on an example platform, with nothing to install.

use std::path::PathBuf;

use super::{Failure, Outcome};
use crate::config::Settings;

/// The main job on an example platform in one file, with nothing to install.
///
/// Takes nothing from the environment and needs no network.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the example platform is left for the next commands to try; its old contents are replaced.
    #[arg(long, value_name = "DIR", default_value = "makegood-demo")]
    pub dir: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "the body is to be filled")]
pub async fn run(_args: Args, _settings: Settings) -> Outcome {
    Err(Failure::from("TO FILL: demo"))
}
