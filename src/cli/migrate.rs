//! `makegood migrate`: creates or upgrades the tables.

use super::output::print;
use super::parts::create_store;
use super::{CommandResult, Exit, Failure};
use crate::config::Settings;

/// Create or upgrade makegood's own tables.
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    /// Create the contract relations (charges, ledger, balances …) as tables too.
    ///
    /// For trying makegood out and for new platforms. A platform with a schema of its own provides
    /// views of these names instead.
    #[arg(long)]
    pub reference_schema: bool,
}

/// Runs the command.
///
/// # Errors
/// The error that ends the process.
pub async fn run(args: MigrateArgs, settings: Settings) -> CommandResult {
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
