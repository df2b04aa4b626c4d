//! Puts the parts of a pass together from checked settings.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Settings, show_span};
use crate::pass::{Parts, Rules, copy_limits};
use crate::provider::{ProviderError, Providers};
use crate::recovery::{Fetcher, Storage};
use crate::store::{DbError, Store};

/// Opens the database that the settings name.
pub async fn open_store(settings: &Settings) -> Result<Store, DbError> {
    let database = &settings.database;
    Store::open(database.url.expose(), database.max_connections, database.statement_timeout).await
}

/// The provider files that the settings name.
pub fn load_providers(settings: &Settings) -> Result<Providers, ProviderError> {
    Providers::load(settings.providers.dir.as_deref(), Clock::System)
}

/// What to tell a person when the database could not be read.
pub fn said_for_people(error: &DbError) -> super::Failure {
    let advice =
        if error.is_about_missing_tables() { MIGRATE } else { "; `makegood check` says what is wrong" };
    super::Failure::from(format!("could not read the database: {}{advice}", crate::report::chain(error)))
}

const MIGRATE: &str =
    "; run `makegood migrate` first (with --reference-schema where the platform has no relations of its own)";

/// What to tell a person when the database could not be worked with in the middle of a pass.
pub fn pass_failed(error: &DbError) -> super::Failure {
    let advice = if error.is_about_missing_tables() {
        MIGRATE
    } else {
        "; what was committed stays, and the next pass does the rest"
    };
    super::Failure::from(format!("the pass failed: {}{advice}", crate::report::chain(error)))
}

/// Everything that a pass works with.
///
/// # Errors
/// The database does not answer, a provider file is wrong, or the storage cannot be used: each says what to do.
pub async fn open_parts(settings: &Settings) -> Result<Parts, Box<dyn Error + Send + Sync>> {
    let providers = load_providers(settings)?;
    if let Some((name, budget)) = providers.too_patient(settings.pass.lease) {
        let (budget, lease) = (show_span(budget), show_span(settings.pass.lease));
        return Err(format!(
            "provider file {name}: `recovery.time_budget` is {budget}: it must be shorter than pass.lease, which is {lease}"
        )
        .into());
    }
    let storage = Storage::open(settings.storage.url.as_str(), Path::new("."))?;
    let fetcher = Fetcher::new(copy_limits(settings))?;
    let store = open_store(settings).await?;
    Ok(Parts {
        store,
        providers: Arc::new(providers),
        storage: Arc::new(storage),
        fetcher: Arc::new(fetcher),
        rules: Rules::new(settings),
    })
}
