//! `makegood demo`: runs the real pipeline over one day of an example platform. Nothing has to be
//! installed.
//!
//! `directory` prepares the directory. `world` has the ordinary charges, `stories` the ones with a
//! fault and how each must end (`story`). `platform` writes them to the database, `night` simulates
//! the day with real passes, `check` compares the results with the expected endings, and `output`
//! prints them. `simulator` is the provider. The demo is no part of a real run and writes nothing
//! outside its directory. After a crash it is run again from the beginning.

mod check;
mod directory;
mod night;
mod output;
mod platform;
pub mod simulator;
mod stories;
mod story;
#[cfg(test)]
mod tests;
mod world;

use std::path::PathBuf;

use crate::clock::{Clock, Timestamp};
use crate::config::{ConfigError, LoadArgs, Settings};
use crate::store::{DbError, MigrateError, Store};

use check::EndState;
use directory::DemoDirectory;
use night::SECOND_EVENING;
pub use output::OutputStyle;
use platform::Platform;
use simulator::Simulator;

/// The default directory.
pub const DEFAULT_DIR: &str = "makegood-demo";

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The directory is not empty and has no marker of an earlier demo.
    #[error(
        "{} is not empty and was not created by an earlier demo, so nothing in it was touched; name another one with --dir",
        dir.display()
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// The path of the directory cannot be written into a settings file.
    #[error("the path {} is not valid UTF-8; name another directory with --dir", dir.display())]
    Path {
        /// The directory.
        dir: PathBuf,
    },
    /// A file or directory could not be created or removed.
    #[error("could not create or replace {}", path.display())]
    Files {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The simulated provider could not bind a port.
    #[error("the simulated provider could not listen on 127.0.0.1")]
    Listen(#[source] std::io::Error),
    /// The demo's own settings file is invalid.
    #[error("could not load the demo's own settings")]
    Settings(#[source] ConfigError),
    /// A part of the pipeline could not be set up.
    #[error("could not set up {what}")]
    SetUp {
        /// The part.
        what: &'static str,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tables could not be created.
    #[error("could not create the demo's tables")]
    Migrate(#[source] MigrateError),
    /// The example platform could not read or write its database.
    #[error("the example platform could not read or write its database")]
    Platform(#[source] DbError),
    /// A pass failed.
    #[error("a pass of makegood failed")]
    Pass(#[source] DbError),
    /// Some items did not end as expected.
    #[error("the demo did not end as expected:\n  - {}", .0.join("\n  - "))]
    Mismatches(Vec<String>),
}

/// The options of a demo.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The directory. Files of an earlier demo in it are replaced.
    pub dir: PathBuf,
    /// How headings are drawn.
    pub style: OutputStyle,
    /// How makegood is called here, for the commands to try next.
    pub program: String,
    /// A prefix of these commands that unsets variables which would override the demo's settings.
    pub before: String,
}

/// The result of a demo.
#[derive(Debug)]
pub struct DemoOutcome {
    /// The printed text.
    pub text: String,
    /// What did not end as expected. Empty if all is well.
    pub mismatches: Vec<String>,
}

/// Simulates the example day, ending now, and describes the result.
///
/// # Errors
/// See [`DemoError`]. Unexpected endings are returned in [`DemoOutcome`], so that the database can
/// be examined.
pub async fn run(options: &DemoOptions) -> Result<DemoOutcome, DemoError> {
    let directory = DemoDirectory::prepare(&options.dir)?;
    let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let simulator = Simulator::start(any_port).await.map_err(DemoError::Listen)?;
    directory.write_config()?;
    directory.write_providers(&simulator.base_url())?;
    let settings = Settings::load(&LoadArgs { file: Some(directory.config()), ..LoadArgs::default() })
        .map_err(DemoError::Settings)?;

    let url = directory.database_url()?;
    let tonight = first_evening();
    let clock = Clock::simulated(tonight);
    let database = &settings.database;
    let store = Store::open(&url, database.max_connections, database.statement_timeout)
        .await
        .map_err(DemoError::Platform)?
        .with_clock(clock.clone());
    store.migrate(true).await.map_err(DemoError::Migrate)?;
    let platform = Platform::open(&url, tonight).await.map_err(DemoError::Platform)?;

    let outcome =
        simulate_and_describe(options, &directory, &settings, &store, &platform, &simulator, &clock).await;
    platform.close().await;
    store.close().await;
    simulator.stop().await;
    outcome
}

async fn simulate_and_describe(
    options: &DemoOptions,
    directory: &DemoDirectory,
    settings: &Settings,
    store: &Store,
    platform: &Platform,
    simulator: &Simulator,
    clock: &Clock,
) -> Result<DemoOutcome, DemoError> {
    let (stories, ordinary) = (stories::all(), world::ordinary());
    let people = stories::accounts();
    let accounts: Vec<_> = people.iter().cloned().chain(world::crowd()).collect();
    let charges: Vec<_> = stories.iter().flat_map(|story| &story.charges).chain(&ordinary).cloned().collect();
    platform.add_accounts(&accounts).await.map_err(DemoError::Platform)?;

    let parts = night::parts(settings, store.clone(), clock)?;
    let day = night::simulate_day(&parts, platform, simulator, clock, &charges).await?;
    let findings = EndState::read(platform).await.map_err(DemoError::Platform)?;
    let mismatches = check::mismatches(&stories, &ordinary, &accounts, &findings, &day.reports);

    let style = options.style;
    let mut text = output::opening(charges.len(), accounts.len(), day.reports.len());
    text += &output::stories(style, &stories, &findings);
    text += &output::balances(style, &people, &day.balances_before, &findings.balances);
    text += &output::totals(style, &ordinary, &findings, &day.reports);
    if mismatches.is_empty() {
        text += &output::checked(stories.len());
        // Added after the check, because they belong to no story.
        let newcomers = stories::newcomers();
        platform.write_events(&newcomers, 0, SECOND_EVENING).await.map_err(DemoError::Platform)?;
        directory.write_next_steps()?;
        let program = output::quoted(&options.program);
        let dir = output::quoted(&directory.named.display().to_string());
        text += &output::next(style, &program, &options.before, &dir);
    }
    Ok(DemoOutcome { text, mismatches })
}

/// Minute zero, chosen so that the second evening is now and the commands to try next find recent
/// charges.
fn first_evening() -> Timestamp {
    const MINUTE: i64 = 60_000_000;
    let now = Clock::System.now().micros();
    Timestamp::from_micros(now - now.rem_euclid(MINUTE) - SECOND_EVENING * MINUTE)
}
