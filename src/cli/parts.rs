//! Opens everything that a command needs, from checked settings.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Settings;
use crate::duration::format_exact;
use crate::egress::ignored_variable;
use crate::pass::{Parts, Rules, copy_limits};
use crate::provider::{FilterBounds, ProviderError, Providers};
use crate::recovery::{Fetcher, ObjectStorage};
use crate::store::{DbError, OWN_VERSION, Opening, Store, Tables, Waits, redacted};

/// Opens the database of the settings. It must exist and answer at once, because a person waits for
/// the command.
pub async fn open_store(settings: &Settings) -> Result<Store, DbError> {
    Store::open_with(opening(settings, Waits::No)).await
}

/// Opens the database of the settings, and creates a missing SQLite file.
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

/// Opens the database of the settings for a command that uses makegood's tables. Their version must
/// be compatible with this binary.
///
/// # Errors
/// The database does not answer; or its tables are missing, too old or too new
/// ([`super::Exit::Usage`]).
pub async fn open_tables(settings: &Settings) -> Result<Store, super::Failure> {
    open_tables_waiting(settings, Waits::No).await
}

/// As [`open_tables`], but waits for an unreachable server as `waits` says.
async fn open_tables_waiting(settings: &Settings, waits: Waits) -> Result<Store, super::Failure> {
    let opened = Store::open_with(opening(settings, waits)).await;
    let store = opened.map_err(|error| open_failed(&error))?;
    let tables = store.tables().await.map_err(|error| read_failed(&error))?;
    let place = database_place(settings);
    let refused = match tables {
        Tables::Current => return Ok(store),
        Tables::Newer(version) => {
            tracing::warn!(
                "makegood's tables in {place} have version {version}, and this binary was made for version {OWN_VERSION}. \
                 It continues; upgrade makegood soon"
            );
            return Ok(store);
        }
        Tables::Missing => format!(
            "makegood's tables do not exist in {place}. Run `makegood migrate` first (with --reference-schema if the \
             platform has no relations of its own)"
        ),
        Tables::Older(version) => format!(
            "makegood's tables in {place} have version {version}, and this binary needs version {OWN_VERSION}. Nothing was \
             done; run `makegood migrate` first"
        ),
        Tables::TooNew { version, minimum } => format!(
            "makegood's tables in {place} have version {version}, which needs a binary made for version {minimum} or later; \
             this one was made for version {OWN_VERSION}. Nothing was done; upgrade makegood"
        ),
    };
    store.close().await;
    Err(super::Failure::usage(refused))
}

/// Loads the provider files of the settings.
pub fn load_providers(settings: &Settings) -> Result<Providers, ProviderError> {
    let bounds = FilterBounds {
        time: settings.providers.filter_time,
        memory: settings.providers.filter_memory,
        executable: None,
    };
    let providers = Providers::load_bounded(settings.providers.dir.as_deref(), Clock::System, &bounds)?;
    Ok(providers.with_proxy(settings.network.proxy.as_ref()))
}

/// The error message if the database could not be read.
pub fn read_failed(error: &DbError) -> super::Failure {
    if says_what_to_do(error) {
        return super::Failure::from(error.to_string());
    }
    let advice = error.trouble().advice().unwrap_or("`makegood check` says what is wrong");
    super::Failure::from(format!("could not read the database: {}; {advice}", crate::report::chain(error)))
}

/// The database of the settings, without a password.
pub fn database_place(settings: &Settings) -> String {
    redacted(settings.database.url.expose())
}

/// The error message if the database failed during a pass.
pub fn pass_failed(error: &DbError, place: &str) -> super::Failure {
    let advice = error.trouble().advice().map_or_else(String::new, |advice| format!("; {advice}"));
    super::Failure::from(format!(
        "the pass failed on the database {place}: {}{advice}; what was committed stays, and the next \
         pass does the rest",
        crate::report::chain(error)
    ))
}

/// Whether the error message names a remedy itself.
const fn says_what_to_do(error: &DbError) -> bool {
    matches!(error, DbError::Connect(_) | DbError::NoFile { .. })
}

/// The error message if the database could not be opened.
fn open_failed(error: &DbError) -> super::Failure {
    if says_what_to_do(error) {
        return super::Failure::from(error.to_string());
    }
    let advice = error.trouble().advice().unwrap_or("`makegood check` says what is wrong");
    super::Failure::from(format!("{}; {advice}; nothing was done", crate::report::chain(error)))
}

/// Opens everything that a pass needs. Waits for an unreachable database server as `waits` says.
///
/// # Errors
/// The database does not answer, its tables are not compatible with this binary, a provider file is
/// invalid, or the storage cannot be used. Each error says what to do.
pub async fn open_parts(settings: &Settings, waits: Waits) -> Result<Parts, super::Failure> {
    let providers = load_providers(settings)?;
    if let Some((name, budget)) = providers.time_budget_beyond(settings.pass.lease) {
        let (budget, lease) = (format_exact(budget), format_exact(settings.pass.lease));
        return Err(format!(
            "provider file {name}: `recovery.time_budget` is {budget}: expected less than pass.lease, which is {lease}"
        )
        .into());
    }
    // This does no I/O. An error means a wrong URL or environment variable, and a retry does not
    // help.
    let storage =
        ObjectStorage::open(settings.storage.url.as_str(), Path::new(".")).map_err(super::Failure::usage)?;
    if settings.network.proxy.is_none()
        && let Some(name) = ignored_variable()
    {
        tracing::warn!(
            "{name} is set in the environment and ignored: providers are asked without a proxy. If they need one, \
             set network.proxy"
        );
    }
    let fetcher = Fetcher::through(copy_limits(settings), settings.network.proxy.as_ref())?;
    let store = open_tables_waiting(settings, waits).await?;
    Ok(Parts {
        store,
        providers: Arc::new(providers),
        storage: Arc::new(storage),
        fetcher: Arc::new(fetcher),
        rules: Rules::new(settings),
    })
}
