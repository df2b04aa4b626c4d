//! What goes to stdout, and in which shape.
//!
//! A terminal gets tables, anything else gets one JSON object. A reader that goes away (`| head`) is no
//! error.

use std::io::{self, IsTerminal, Write};

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
