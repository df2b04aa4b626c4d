//! The example platform: the main job on one day of a platform that does not exist, with nothing to install.
//!
//! `place` makes the directory, `world` the charges, `stories` those of which there is something to tell and how they
//! have to end (`story`); `platform` writes them, `night` lets a day pass with the real pipeline at work, `check`
//! compares, `tell` prints. `simulator` is the provider that is asked.
//! No part of a real run: it touches nothing outside its directory, and a crash halfway means running it again.

mod check;
mod night;
mod place;
mod platform;
pub mod simulator;
mod stories;
mod story;
mod tell;
#[cfg(test)]
mod tests;
mod world;

use std::path::PathBuf;

use crate::clock::{Clock, Timestamp};
use crate::config::{ConfigError, LoadArgs, Settings};
use crate::store::{DbError, MigrateError, Store};

use check::Findings;
use night::SECOND_EVENING;
use place::Place;
use platform::Platform;
use simulator::Simulator;
pub use tell::Look;

/// Where the demo lives unless told otherwise.
pub const DEFAULT_DIR: &str = "makegood-demo";

/// Why there was no demo, or not the one that was promised.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The directory is somebody else's.
    #[error(
        "{} is not empty and no demo made it, so nothing in it was touched; name another one with --dir",
        dir.display()
    )]
    NotOurs {
        /// Which directory.
        dir: PathBuf,
    },
    /// The directory's path cannot be written into a settings file.
    #[error("the path {} is not plain text; name another directory with --dir", dir.display())]
    Path {
        /// Which directory.
        dir: PathBuf,
    },
    /// A file or directory cannot be made.
    #[error("could not make {}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The simulated provider has nowhere to listen.
    #[error("the simulated provider could not listen on 127.0.0.1")]
    Listen(#[source] std::io::Error),
    /// The demo's own settings are refused.
    #[error("the demo's own settings are not understood")]
    Settings(#[source] ConfigError),
    /// A part of the pipeline could not be made.
    #[error("could not set up {what}")]
    SetUp {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tables could not be made.
    #[error("could not make the demo's tables")]
    Migrate(#[source] MigrateError),
    /// The example platform could not work with its database.
    #[error("the example platform could not work with its database")]
    Platform(#[source] DbError),
    /// makegood could not.
    #[error("a pass of makegood failed")]
    Pass(#[source] DbError),
    /// Not everything ended as promised.
    #[error("the demo did not end as promised:\n  - {}", .0.join("\n  - "))]
    Mismatches(Vec<String>),
}

/// What is asked of the demo.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Where it lives; what an earlier demo made there is replaced.
    pub dir: PathBuf,
    /// Where its words are read.
    pub look: Look,
    /// How makegood is called here, for the commands to try next.
    pub program: String,
    /// What must stand before these commands because the environment would win over the demo's settings.
    pub before: String,
}

/// What the demo has to say.
#[derive(Debug)]
pub struct Told {
    /// For a person.
    pub text: String,
    /// What did not end as promised; nothing if all is well.
    pub mismatches: Vec<String>,
}

/// Lives through the example day that ends now, and tells of it.
///
/// # Errors
/// See [`DemoError`]. What ended otherwise than promised is in [`Told`] instead, so that it can be looked at.
pub async fn run(orders: &Orders) -> Result<Told, DemoError> {
    let place = Place::prepare(&orders.dir)?;
    let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let simulator = Simulator::start(any_port).await.map_err(DemoError::Listen)?;
    place.write_config()?;
    place.write_providers(&simulator.base_url())?;
    let settings = Settings::load(&LoadArgs { file: Some(place.config()), ..LoadArgs::default() })
        .map_err(DemoError::Settings)?;

    let url = place.database_url()?;
    let tonight = first_evening();
    let clock = Clock::simulated(tonight);
    let database = &settings.database;
    let store = Store::open(&url, database.max_connections, database.statement_timeout)
        .await
        .map_err(DemoError::Platform)?
        .with_clock(clock.clone());
    store.migrate(true).await.map_err(DemoError::Migrate)?;
    let platform = Platform::open(&url, tonight).await.map_err(DemoError::Platform)?;

    let told = live_and_tell(orders, &place, &settings, &store, &platform, &simulator, &clock).await;
    platform.close().await;
    store.close().await;
    simulator.stop().await;
    told
}

async fn live_and_tell(
    orders: &Orders,
    place: &Place,
    settings: &Settings,
    store: &Store,
    platform: &Platform,
    simulator: &Simulator,
    clock: &Clock,
) -> Result<Told, DemoError> {
    let (stories, ordinary) = (stories::all(), world::ordinary());
    let people = stories::accounts();
    let accounts: Vec<_> = people.iter().cloned().chain(world::crowd()).collect();
    let charges: Vec<_> = stories.iter().flat_map(|story| &story.charges).chain(&ordinary).cloned().collect();
    platform.add_accounts(&accounts).await.map_err(DemoError::Platform)?;

    let parts = night::parts(settings, store.clone(), clock)?;
    let day = night::live_through(&parts, platform, simulator, clock, &charges).await?;
    let findings = Findings::read(platform).await.map_err(DemoError::Platform)?;
    let mismatches = check::mismatches(&stories, &ordinary, &accounts, &findings, &day.reports);

    let look = orders.look;
    let mut text = tell::opening(charges.len(), accounts.len(), day.reports.len());
    text += &tell::stories(look, &stories, &findings);
    text += &tell::balances(look, &people, &day.balances_before, &findings.balances);
    text += &tell::totals(look, &ordinary, &findings, &day.reports);
    if mismatches.is_empty() {
        text += &tell::checked(stories.len());
        // Only now: they are nobody's story yet.
        let newcomers = stories::newcomers();
        platform.live(&newcomers, 0, SECOND_EVENING).await.map_err(DemoError::Platform)?;
        place.leave_behind()?;
        let program = tell::quoted(&orders.program);
        let dir = tell::quoted(&place.named.display().to_string());
        text += &tell::next(look, &program, &orders.before, &dir);
    }
    Ok(Told { text, mismatches })
}

/// Minute zero: so that the second evening is now, for the commands to try next.
fn first_evening() -> Timestamp {
    const MINUTE: i64 = 60_000_000;
    let now = Clock::System.now().micros();
    Timestamp::from_micros(now - now.rem_euclid(MINUTE) - SECOND_EVENING * MINUTE)
}
