//! Puts the parts of a pass together from checked settings.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Settings;
use crate::duration::format_exact;
use crate::egress::ignored_variable;
use crate::pass::{Parts, Rules, copy_limits};
use crate::provider::{Bounds, ProviderError, Providers};
use crate::recovery::{Fetcher, ObjectStorage};
use crate::store::{DbError, OWN_VERSION, Opening, Store, Tables, Waits, redacted};

/// Opens the database that the settings name. It must be there and answer at once: somebody waits
/// for the command.
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

/// Opens the database that the settings name, for a command that uses the tables: they must be of a
/// version that this binary can work with.
///
/// # Errors
/// The database does not answer, or its tables are missing, too old or too new
/// ([`super::Exit::Usage`]).
pub async fn open_tables(settings: &Settings) -> Result<Store, super::Failure> {
    open_tables_waiting(settings, Waits::No).await
}

/// As [`open_tables`]; a server that cannot be reached is waited for as `waits` says.
async fn open_tables_waiting(settings: &Settings, waits: Waits) -> Result<Store, super::Failure> {
    let opened = Store::open_with(opening(settings, waits)).await;
    let store = opened.map_err(|error| not_opened(&error))?;
    let tables = store.tables().await.map_err(|error| said_for_people(&error))?;
    let place = database_place(settings);
    let refused = match tables {
        Tables::Current => return Ok(store),
        Tables::Newer(version) => {
            tracing::warn!(
                "makegood's tables in {place} are of version {version}, and this binary was made for version {OWN_VERSION}: \
                 it goes on; use the newer makegood soon"
            );
            return Ok(store);
        }
        Tables::Missing => format!(
            "there are no tables of makegood's in {place}: run `makegood migrate` first (with --reference-schema where the \
             platform has no relations of its own)"
        ),
        Tables::Older(version) => format!(
            "makegood's tables in {place} are of version {version}, and this binary needs version {OWN_VERSION}: nothing was \
             begun; run `makegood migrate` first"
        ),
        Tables::TooNew { version, minimum } => format!(
            "makegood's tables in {place} are of version {version}, which only binaries made for version {minimum} or later \
             can work with; this one was made for version {OWN_VERSION}: nothing was begun; use a newer makegood"
        ),
    };
    store.close().await;
    Err(super::Failure::usage(refused))
}

/// The provider files that the settings name.
pub fn load_providers(settings: &Settings) -> Result<Providers, ProviderError> {
    let bounds = Bounds {
        time: settings.providers.filter_time,
        memory: settings.providers.filter_memory,
        executable: None,
    };
    let providers = Providers::load_bounded(settings.providers.dir.as_deref(), Clock::System, &bounds)?;
    Ok(providers.through(settings.network.proxy.as_ref()))
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

/// Everything that a pass works with. A server that cannot be reached is waited for as `waits`
/// says.
///
/// # Errors
/// The database does not answer, its tables are not of this binary's version, a provider
/// file is wrong, or the storage cannot be used: each says what to do.
pub async fn open_parts(settings: &Settings, waits: Waits) -> Result<Parts, super::Failure> {
    let providers = load_providers(settings)?;
    if let Some((name, budget)) = providers.too_patient(settings.pass.lease) {
        let (budget, lease) = (format_exact(budget), format_exact(settings.pass.lease));
        return Err(format!(
            "provider file {name}: `recovery.time_budget` is {budget}: it must be shorter than pass.lease, which is {lease}"
        )
        .into());
    }
    // Opening it touches nothing: what is wrong is the URL or a variable, and trying again does not
    // help.
    let storage =
        ObjectStorage::open(settings.storage.url.as_str(), Path::new(".")).map_err(super::Failure::usage)?;
    if settings.network.proxy.is_none()
        && let Some(name) = ignored_variable()
    {
        tracing::warn!(
            "{name} is set in the environment and ignored: providers are asked directly; if they can only be reached \
             through a proxy, set network.proxy"
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
