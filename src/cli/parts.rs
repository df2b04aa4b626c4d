//! Puts the parts of a pass together from checked settings.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Settings, show_span};
use crate::pass::{Parts, Rules, copy_limits};
use crate::provider::{Bounds, ProviderError, Providers};
use crate::recovery::{Fetcher, Storage};
use crate::store::{DbError, Opening, Store, Waits, redacted};

/// Opens the database that the settings name. It must be there and answer at once: somebody waits for the command.
pub async fn open_store(settings: &Settings) -> Result<Store, DbError> {
    Store::open_with(opening(settings, Waits::No)).await
}

/// Opens the database that the settings name, and creates a SQLite file that is not there.
pub async fn create_store(settings: &Settings) -> Result<Store, DbError> {
    Store::open_with(Opening { creates: true, ..opening(settings, Waits::No) }).await
}

fn opening(settings: &Settings, waits: Waits) -> Opening<'_> {
    let database = &settings.database;
    Opening {
        url: database.url.expose(),
        max_connections: database.max_connections,
        statement_timeout: database.statement_timeout,
        lock_timeout: database.lock_timeout,
        creates: false,
        waits,
    }
}

/// The provider files that the settings name.
pub fn load_providers(settings: &Settings) -> Result<Providers, ProviderError> {
    let bounds = Bounds {
        time: settings.providers.filter_time,
        memory: settings.providers.filter_memory,
        executable: None,
    };
    Providers::load_bounded(settings.providers.dir.as_deref(), Clock::System, &bounds)
}

/// What to tell a person when the database could not be read.
pub fn said_for_people(error: &DbError) -> super::Failure {
    if says_what_to_do(error) {
        return super::Failure::from(error.to_string());
    }
    let advice = error.trouble().advice().unwrap_or("`makegood check` says what is wrong");
    super::Failure::from(format!("could not read the database: {}; {advice}", crate::report::chain(error)))
}

/// The database that the settings name, as people may read it.
pub fn database_place(settings: &Settings) -> String {
    redacted(settings.database.url.expose())
}

/// What to tell a person when the database could not be worked with in the middle of a pass.
pub fn pass_failed(error: &DbError, place: &str) -> super::Failure {
    let advice = error.trouble().advice().map_or_else(String::new, |advice| format!("; {advice}"));
    super::Failure::from(format!(
        "the pass failed on the database {place}: {}{advice}; nothing is half done: what was committed stays, and the next \
         pass does the rest",
        crate::report::chain(error)
    ))
}

/// Errors of opening name their remedy themselves.
const fn says_what_to_do(error: &DbError) -> bool {
    matches!(error, DbError::Connect(_) | DbError::NoFile { .. })
}

/// What to tell a person when the database does not even let itself be opened.
fn not_opened(error: &DbError) -> super::Failure {
    if says_what_to_do(error) {
        return super::Failure::from(error.to_string());
    }
    let advice = error.trouble().advice().unwrap_or("`makegood check` says what is wrong");
    super::Failure::from(format!("{}; {advice}; nothing was begun", crate::report::chain(error)))
}

/// Everything that a pass works with. A server that cannot be reached is waited for as `waits` says.
///
/// # Errors
/// The database does not answer, a provider file is wrong, or the storage cannot be used: each says what to do.
pub async fn open_parts(settings: &Settings, waits: Waits) -> Result<Parts, super::Failure> {
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
    let store = Store::open_with(opening(settings, waits)).await.map_err(|error| not_opened(&error))?;
    Ok(Parts {
        store,
        providers: Arc::new(providers),
        storage: Arc::new(storage),
        fetcher: Arc::new(fetcher),
        rules: Rules::new(settings),
    })
}
