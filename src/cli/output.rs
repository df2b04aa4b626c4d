//! What goes to stdout, and in which shape.
//!
//! A terminal gets tables, anything else gets one JSON object. A reader that goes away (`| head`) is no
//! error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

/// The shape of what a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// One object.
    Json,
}

impl OutputFormat {
    /// What was asked for; otherwise text on a terminal and JSON elsewhere.
    pub fn or_by_terminal(asked: Option<Self>) -> Self {
        asked.unwrap_or_else(|| if io::stdout().is_terminal() { Self::Text } else { Self::Json })
    }
}

/// A line on a terminal that counts while a pass is at work; nothing anywhere else.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    settled: AtomicU64,
}

impl Progress {
    /// Shown only where a person reads along.
    pub fn on_terminal(format: OutputFormat) -> Self {
        let shown = format == OutputFormat::Text && io::stdout().is_terminal() && io::stderr().is_terminal();
        Self { shown, settled: AtomicU64::new(0) }
    }

    /// So many more are settled.
    pub fn add(&self, settled: u64) {
        let total = self.settled.fetch_add(settled, Ordering::Relaxed) + settled;
        if self.shown {
            // Nobody needs to know that a progress line could not be written.
            let _ = write!(io::stderr().lock(), "\r  {total} orphans looked at ");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.settled.load(Ordering::Relaxed) > 0 {
            let _ = write!(io::stderr().lock(), "\r{:40}\r", "");
        }
    }
}

/// Writes to stdout, with a line end. `println!` would panic when the reader has gone away.
///
/// # Errors
/// Stdout cannot be written, for another reason than that.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written =
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
