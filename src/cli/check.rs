//! `makegood check`: a doctor for configuration, database, contract, providers and storage.
//!
//! Tries one thing after the other and goes on as far as it can; what is wrong comes with what to do about it.
//! A refund and an output are tried on a real charge, and rolled back. Leaves nothing behind but an
//! object in the storage that it deletes again. Never shows a key or a password.

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
use super::{Exit, Outcome};
use crate::config::Settings;

/// Check configuration, database, contract relations, providers and storage, and say what to do.
///
/// Asks no provider. Ends with 0 if nothing fails, else with 1; warnings are for a person to judge.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also compare refunds, ledger and balances, all of them. Takes as long as reading them does;
    /// Ctrl-C ends it.
    #[arg(long)]
    pub books: bool,
    /// text or json; without it, text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    /// As it should be.
    Ok,
    /// Works, but a person should know.
    Warn,
    /// Passes cannot work, or promises cannot be kept.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    grade: Grade,
    /// What was looked at.
    about: String,
    /// How it stands.
    says: String,
    /// What to do; empty: nothing.
    advice: String,
}

/// Everything that was looked at, in order.
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
/// Stdout cannot be written. What is wrong with the rest is what the command tells.
pub async fn run(args: Args, settings: Settings) -> Outcome {
    let mut found = Findings::default();
    // Settings that are refused never come here: they end the process with code 2 before.
    found.ok("settings", "understood");
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
    fn what_is_wrong_stands_with_what_to_do() {
        let mut found = Findings::default();
        found.ok("settings", "understood");
        found.fail("contract: charges", "no such relation", "run `makegood migrate`");
        assert_eq!(
            text(&found),
            "ok    settings           understood\n\
             FAIL  contract: charges  no such relation\n\
             \x20                        -> run `makegood migrate`\n\
             \n\
             1 thing fails."
        );
        found.warn("x", "y", "");
        assert!(text(&found).ends_with("1 thing fails, 1 warning."));
    }
}
