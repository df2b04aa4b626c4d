//! `makegood check`: checks configuration, database, contract relations, providers and storage.
//!
//! It makes one check after the other, as far as possible, and names a remedy for each fault. It
//! posts a refund and stores an output for a real charge, and rolls both back. It writes an object
//! to the storage and deletes it. It never shows a key or a password.

mod books;
mod connection;
mod database;
mod network;
mod posting;
mod rows;
mod settings;
mod state;
mod times;

use serde::Serialize;

use super::output::{OutputFormat, print};
use super::words::{count, plain};
use super::{CommandResult, Exit};
use crate::config::Settings;

/// Check configuration, database, contract relations, providers and storage, and name remedies.
///
/// Asks no provider. Exits with 0 if nothing fails, otherwise with 1. Warnings are for a person to
/// judge.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Also compare all refunds, ledger entries and balances. It reads all of them, which takes
    /// time; Ctrl-C stops it.
    #[arg(long)]
    pub books: bool,
    /// text or json. The default is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    /// Correct.
    Ok,
    /// It works, but a person should know.
    Warn,
    /// Passes cannot work, or a promise cannot be kept.
    Fail,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    grade: Grade,
    /// The subject of the check.
    about: String,
    /// The result.
    says: String,
    /// The remedy; empty: none is needed.
    advice: String,
}

/// All checks, in order.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, grade: Grade, about: &str, says: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Finding { grade, about: about.to_owned(), says: says.into(), advice: advice.into() });
    }

    fn ok(&mut self, about: &str, says: impl Into<String>) {
        self.add(Grade::Ok, about, says, "");
    }

    fn warn(&mut self, about: &str, says: impl Into<String>, advice: impl Into<String>) {
        self.add(Grade::Warn, about, says, advice);
    }

    fn fail(&mut self, about: &str, says: impl Into<String>, advice: impl Into<String>) {
        self.add(Grade::Fail, about, says, advice);
    }

    fn of(&self, grade: Grade) -> usize {
        self.0.iter().filter(|finding| finding.grade == grade).count()
    }
}

/// Runs the command.
///
/// # Errors
/// Stdout cannot be written. All other faults are part of the output.
pub async fn run(args: CheckArgs, settings: Settings) -> CommandResult {
    let mut found = Findings::default();
    // Invalid settings have ended the process with code 2 before.
    found.ok("settings", "valid");
    settings::check(&settings, &mut found);
    network::check(&settings, &mut found).await;
    let providers = settings::providers(&settings, &mut found);
    if let Some(store) = database::open(&settings, &mut found).await {
        if database::check(&store, &mut found).await {
            database::refunds(&store, &mut found).await;
            rows::check(&store, providers.as_ref(), &settings, &mut found).await;
            state::check(&store, providers.as_ref(), &mut found).await;
            if args.books {
                books::check(&store, &mut found).await;
            }
        }
        store.close().await;
    }
    settings::storage(&settings, &mut found).await;
    print(&match OutputFormat::or_by_terminal(args.output) {
        OutputFormat::Text => text(&found),
        OutputFormat::Json => {
            let failed = found.of(Grade::Fail);
            serde_json::json!({"ok": failed == 0, "failed": failed, "warned": found.of(Grade::Warn), "checks": found.0})
                .to_string()
        }
    })?;
    Ok(if found.of(Grade::Fail) == 0 { Exit::Done } else { Exit::Failed })
}

fn text(found: &Findings) -> String {
    let width = found.0.iter().map(|finding| finding.about.chars().count()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for finding in &found.0 {
        let grade = match finding.grade {
            Grade::Ok => "ok",
            Grade::Warn => "WARN",
            Grade::Fail => "FAIL",
        };
        lines.push(format!("{grade:<4}  {:<width$}  {}", plain(&finding.about), plain(&finding.says)));
        if !finding.advice.is_empty() {
            lines.push(format!("      {:<width$}  -> {}", "", plain(&finding.advice)));
        }
    }
    let (failed, warned) = (found.of(Grade::Fail), found.of(Grade::Warn));
    lines.push(String::new());
    lines.push(match (failed, warned) {
        (0, 0) => "All is well.".to_owned(),
        (0, warned) => format!("Works, with {}.", count(warned as i128, "warning", "warnings")),
        (failed, 0) => format!("{}.", count(failed as i128, "thing fails", "things fail")),
        (failed, warned) => format!(
            "{}, {}.",
            count(failed as i128, "thing fails", "things fail"),
            count(warned as i128, "warning", "warnings")
        ),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_shown_with_its_remedy() {
        let mut found = Findings::default();
        found.ok("settings", "valid");
        found.fail("contract: charges", "no such relation", "run `makegood migrate`");
        assert_eq!(
            text(&found),
            "ok    settings           valid\n\
             FAIL  contract: charges  no such relation\n\
             \x20                        -> run `makegood migrate`\n\
             \n\
             1 thing fails."
        );
        found.warn("x", "y", "");
        assert!(text(&found).ends_with("1 thing fails, 1 warning."));
    }
}
