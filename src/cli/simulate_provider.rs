//! `makegood simulate-provider`: a provider to try out against, over real HTTP.

use std::net::SocketAddr;

use super::{Failure, Outcome};
use crate::config::Settings;

/// A simulated provider over real HTTP, for trying out.
///
/// Takes nothing from the environment.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it answers, as ADDRESS:PORT.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465")]
    pub listen: SocketAddr,
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "the body is to be filled")]
pub async fn run(_args: Args, _settings: Settings) -> Outcome {
    Err(Failure::from("TO FILL: simulate_provider"))
}
