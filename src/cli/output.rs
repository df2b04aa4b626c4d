//! Output on stdout: text on a terminal, one JSON object elsewhere. A closed pipe (`| head`) is not
//! an error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

use crate::pass;

/// The format of a command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Text for people.
    Text,
    /// One JSON object.
    Json,
}

impl OutputFormat {
    /// The requested format; by default text on a terminal and JSON elsewhere.
    pub fn or_by_terminal(asked: Option<Self>) -> Self {
        asked.unwrap_or_else(|| if io::stdout().is_terminal() { Self::Text } else { Self::Json })
    }
}

/// A line on a terminal that shows the progress of a pass. Elsewhere nothing is shown.
#[derive(Debug)]
pub struct ProgressLine {
    shown: bool,
    scanned: AtomicU64,
    settled: AtomicU64,
}

impl ProgressLine {
    /// Shows the line only if stdout and stderr are a terminal and the format is text.
    pub fn on_terminal(format: OutputFormat) -> Self {
        let shown = format == OutputFormat::Text && io::stdout().is_terminal() && io::stderr().is_terminal();
        Self { shown, scanned: AtomicU64::new(0), settled: AtomicU64::new(0) }
    }

    /// Updates the line.
    pub fn show(&self, progressed: pass::Progress) {
        let (rows, settled, up_to) = match progressed {
            pass::Progress::Scanned { rows, up_to } => (rows, 0, Some(up_to)),
            pass::Progress::Settled(settled) => (0, settled, None),
            pass::Progress::Worked => return,
        };
        let rows = self.scanned.fetch_add(rows, Ordering::Relaxed) + rows;
        let settled = self.settled.fetch_add(settled, Ordering::Relaxed) + settled;
        if self.shown {
            let up_to =
                up_to.map_or_else(String::new, |at| format!(", up to {}", at.to_chrono().format("%F %H:%M")));
            // A progress line that cannot be written is not an error.
            let _ = write!(
                io::stderr().lock(),
                "\r  {rows} charges scanned{up_to}, {settled} orphans settled \x1b[K"
            );
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        let any = [&self.scanned, &self.settled].map(|count| count.load(Ordering::Relaxed)) != [0; 2];
        if self.shown && any {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// Writes a line to stdout. `println!` would panic if the pipe was closed.
///
/// # Errors
/// Stdout cannot be written for another reason than a closed pipe.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written =
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
