//! `makegood migrate`: create or upgrade the tables.

use super::output::print;
use super::parts::create_store;
use super::{Exit, Failure, Outcome};
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
pub async fn run(args: Args, settings: Settings) -> Outcome {
    let store = create_store(&settings).await?;
    store.migrate(args.reference_schema).await.map_err(|error| {
        if error.is_about_the_binary() { Failure::usage(error) } else { Failure::from(error) }
    })?;
    store.close().await;
    let what = if args.reference_schema {
        "makegood's tables and the reference schema"
    } else {
        "makegood's tables"
    };
    print(&format!("{what} are up to date in {}", settings.database.url))?;
    Ok(Exit::Done)
}
