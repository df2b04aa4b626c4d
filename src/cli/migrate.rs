//! `makegood migrate`: create or upgrade the tables.

use super::{Failure, Outcome};
use crate::config::Settings;

/// Create or upgrade makegood's own tables.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Create the contract relations (charges, ledger, balances …) as tables too.
    ///
    /// For trying out and for new platforms. A platform with a schema of its own provides views of these names instead.
    #[arg(long)]
    pub reference_schema: bool,
}

/// Runs the command.
///
/// # Errors
/// What ends the process.
#[expect(clippy::unused_async, reason = "the body is to be filled")]
pub async fn run(_args: Args, _settings: Settings) -> Outcome {
    Err(Failure::from("TO FILL: migrate"))
}
