//! Sets up logs: on stderr, as text on a terminal and as JSON elsewhere.
//!
//! Stdout is reserved for the output of commands. No part of the crate logs personal data or raw
//! bodies, so nothing is redacted here. Ids from platforms and providers are logged; their control
//! characters are escaped, so that an id cannot forge a log line.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use crate::config::{LOG_VARIABLE, LogFormat, LogLevel, LogSettings};

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `MAKEGOOD_LOG` is not a valid filter.
    #[error(
        "the environment variable {LOG_VARIABLE} is {text:?}: write a level, or targets with levels, for \
         instance \"debug\" or \"info,makegood::provider=debug\""
    )]
    Filter {
        /// Its value.
        text: String,
        /// The parser's reason.
        #[source]
        source: ParseError,
    },
    /// Logs were already set up.
    #[error("could not set up logs")]
    Init(#[source] TryInitError),
}

/// The format in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Sets up logs for the whole process. `filter` is the value of [`LOG_VARIABLE`], if it is set.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(log: &LogSettings, filter: Option<&str>) -> Result<Style, TelemetryError> {
    let targets = targets(log.level, filter)?;
    let is_terminal = std::io::stderr().is_terminal();
    let style = match (log.format, is_terminal) {
        (LogFormat::Text, _) | (LogFormat::Auto, true) => Style::Text,
        (LogFormat::Json, _) | (LogFormat::Auto, false) => Style::Json,
    };
    let layer = match style {
        Style::Text => fmt::layer()
            .with_writer(move || OneLine { to: io::stderr(), has_colours: is_terminal })
            .with_ansi(is_terminal)
            .with_target(false)
            .boxed(),
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

/// Writes each event on one line and escapes control characters. The formatter passes an event in
/// one call, with its line feed. JSON events are already escaped.
struct OneLine<W> {
    to: W,
    /// The formatter writes colours with ESC. It then escapes other ESC characters itself.
    has_colours: bool,
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = match event.strip_suffix(b"\n") {
            Some(line) => (line, "\n"),
            None => (event, ""),
        };
        let is_forbidden = |c: char| c.is_control() && !(c == '\u{1b}' && self.has_colours);
        match std::str::from_utf8(line) {
            Ok(text) if text.contains(is_forbidden) => {
                let shown = text
                    .chars()
                    .map(|c| if is_forbidden(c) { c.escape_unicode().to_string() } else { c.to_string() });
                self.to.write_all((shown.collect::<String>() + end).as_bytes())?;
            }
            Ok(_) | Err(_) => self.to.write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The log filter. Events of other crates are logged from `warn` on, unless the filter names them.
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
    fn the_level_applies_to_makegood_and_other_crates_log_from_warn_on() {
        let info = targets(LogLevel::Info, None).unwrap();
        assert!(info.would_enable("makegood::pass", &Level::INFO));
        assert!(!info.would_enable("makegood::pass", &Level::DEBUG));
        assert!(info.would_enable("sqlx", &Level::WARN));
        assert!(!info.would_enable("sqlx", &Level::INFO));
        let off = targets(LogLevel::Off, None).unwrap();
        assert!(!off.would_enable("makegood", &Level::ERROR));
        assert!(!off.would_enable("sqlx", &Level::ERROR));
    }

    /// Records what was written.
    struct PageCache(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl Write for PageCache {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_id_with_a_line_break_cannot_forge_a_log_line() {
        let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = std::sync::Arc::clone(&lines);
        let layer = fmt::layer()
            .with_writer(move || OneLine { to: PageCache(std::sync::Arc::clone(&kept)), has_colours: false })
            .with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(layer);
        let id = "ch_1\n2026-01-01T00:00:00Z ERROR all credits are gone\u{1b}[2J\r";
        tracing::subscriber::with_default(subscriber, || tracing::warn!(charge_id = %id, "refused"));
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && !text.contains('\r') && !text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn the_variable_replaces_the_level_and_an_invalid_one_is_refused() {
        let both = targets(LogLevel::Error, Some("info,makegood::provider=debug")).unwrap();
        assert!(both.would_enable("makegood::provider", &Level::DEBUG));
        assert!(both.would_enable("sqlx", &Level::INFO));
        assert!(!both.would_enable("makegood::pass", &Level::DEBUG));
        let error = targets(LogLevel::Info, Some("makegood=loud")).unwrap_err();
        assert!(error.to_string().contains("MAKEGOOD_LOG is \"makegood=loud\""), "{error}");
    }
}
