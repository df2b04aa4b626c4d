//! Logs: on stderr, as text on a terminal and as JSON elsewhere.
//!
//! Stdout stays free for what a command was asked for. Nothing personal and no raw bodies are logged
//! anywhere in the crate, so there is nothing to filter here.

use std::io::IsTerminal;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFormat, LogLevel};

/// The environment variable that says more exactly than `log.level` what is logged.
pub const FILTER_VARIABLE: &str = "MAKEGOOD_LOG";

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `MAKEGOOD_LOG` cannot be read.
    #[error(
        "the environment variable {FILTER_VARIABLE} is {text:?}: a level or targets with levels are wanted, for \
         instance \"debug\" or \"info,makegood::provider=debug\""
    )]
    Filter {
        /// As written.
        text: String,
        /// What the parser says.
        #[source]
        source: ParseError,
    },
    /// Logs were set up before.
    #[error("could not set up logs")]
    Init(#[source] TryInitError),
}

/// How logs are written, once that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Sets up logs for the whole process. `filter` is the value of [`FILTER_VARIABLE`], if it is set.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(log: &Log, filter: Option<&str>) -> Result<Style, TelemetryError> {
    let targets = targets(log.level, filter)?;
    let is_terminal = std::io::stderr().is_terminal();
    let style = match (log.format, is_terminal) {
        (LogFormat::Text, _) | (LogFormat::Auto, true) => Style::Text,
        (LogFormat::Json, _) | (LogFormat::Auto, false) => Style::Json,
    };
    let layer = match style {
        Style::Text => {
            fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal).with_target(false).boxed()
        }
        Style::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .try_init()
        .map_err(TelemetryError::Init)?;
    Ok(style)
}

/// What is logged. Other crates only speak up from `warn` on, unless they are named.
fn targets(level: LogLevel, filter: Option<&str>) -> Result<Targets, TelemetryError> {
    use tracing_subscriber::filter::LevelFilter;
    if let Some(text) = filter {
        return text.parse().map_err(|source| TelemetryError::Filter { text: text.to_owned(), source });
    }
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Ok(Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("makegood", level))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_level_is_ours_and_others_speak_up_from_warn_on() {
        let info = targets(LogLevel::Info, None).unwrap();
        assert!(info.would_enable("makegood::pass", &Level::INFO));
        assert!(!info.would_enable("makegood::pass", &Level::DEBUG));
        assert!(info.would_enable("sqlx", &Level::WARN));
        assert!(!info.would_enable("sqlx", &Level::INFO));
        let off = targets(LogLevel::Off, None).unwrap();
        assert!(!off.would_enable("makegood", &Level::ERROR));
        assert!(!off.would_enable("sqlx", &Level::ERROR));
    }

    #[test]
    fn the_variable_wins_and_is_refused_when_it_cannot_be_read() {
        let both = targets(LogLevel::Error, Some("info,makegood::provider=debug")).unwrap();
        assert!(both.would_enable("makegood::provider", &Level::DEBUG));
        assert!(both.would_enable("sqlx", &Level::INFO));
        assert!(!both.would_enable("makegood::pass", &Level::DEBUG));
        let error = targets(LogLevel::Info, Some("makegood=loud")).unwrap_err();
        assert!(error.to_string().contains("MAKEGOOD_LOG is \"makegood=loud\""), "{error}");
    }
}
