//! Compares a folder of recorded answers with their expected readings, as a regression test of
//! provider files.
//!
//! The provider is not asked and nothing is written. A folder without cases, or an invalid case, is
//! wrong usage, because otherwise it would pass as a success. `provider::expect` reads and
//! compares; `would` computes the decisions.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ProviderTestArgs;
use super::would::{HostLists, decide, moments};
use crate::cli::Failure;
use crate::cli::output::{OutputFormat, print};
use crate::cli::parts::load_providers;
use crate::cli::words::{count, cut, plain};
use crate::config::Settings;
use crate::provider::{AnswerCase, Comparison, Difference, Providers};

/// The result of one case.
struct CaseResult {
    case: String,
    compared: Comparison,
    decisions: Vec<String>,
}

/// Reads all cases of a folder and prints the differences. Returns whether there are none.
pub(super) fn run(args: &ProviderTestArgs, dir: &Path, settings: &Settings) -> Result<bool, Failure> {
    let providers = load_providers(settings).map_err(Failure::usage)?;
    let mut results = Vec::new();
    for path in cases(dir)? {
        results.push(one(args, &path, settings, &providers)?);
    }
    let differing = results.iter().filter(|result| !result.compared.differences.is_empty()).count();
    print(&match OutputFormat::or_by_terminal(args.output) {
        OutputFormat::Text => text(args, &results, differing),
        OutputFormat::Json => as_json(args, dir, &results, differing).to_string(),
    })?;
    Ok(differing == 0)
}

/// The `.json` files of a folder, in order.
fn cases(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::usage(format!("could not read the cases in {} ({error})", dir.display()))
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(Failure::usage(format!(
            "{} contains no cases: each is a file that ends with `.json`. See docs/providers.md, \"Cases\"",
            dir.display()
        )));
    }
    Ok(paths)
}

fn one(
    args: &ProviderTestArgs,
    path: &Path,
    settings: &Settings,
    providers: &Providers,
) -> Result<CaseResult, Failure> {
    let wrong = |problem: String| Failure::usage(format!("case {}: {problem}", path.display()));
    let text =
        std::fs::read_to_string(path).map_err(|error| wrong(format!("could not be read ({error})")))?;
    let case = AnswerCase::parse(&text, path.parent().unwrap_or(Path::new("."))).map_err(wrong)?;
    let mut compared = providers.compare(&args.name, &case).map_err(Failure::usage)?.map_err(wrong)?;
    let question = case.question(&args.name);
    let args = ProviderTestArgs {
        job: Some(question.job_id),
        model: question.model,
        items: case.items(),
        ..args.clone()
    };
    let decisions = match (&compared.evidence, providers.get(&args.name)) {
        (Some(evidence), Some(provider)) => {
            let moments = moments(providers, &args, settings);
            decide(&args, settings, &HostLists::of(providers, &provider.name), evidence, &moments)
                .iter()
                .map(|would| would.fresh.action.as_str().to_owned())
                .collect()
        }
        _ => Vec::new(),
    };
    if let Some(expected) = case.decisions()
        && expected != decisions
    {
        compared.differences.push(Difference::new("decisions", json!(expected), json!(decisions)));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(CaseResult { case: name, compared, decisions })
}

fn text(args: &ProviderTestArgs, results: &[CaseResult], differing: usize) -> String {
    let mut lines = Vec::new();
    for result in results {
        let same = result.compared.differences.is_empty();
        lines.push(format!("{} {}", if same { "ok       " } else { "DIFFERENT" }, plain(&result.case)));
        for Difference { field, expected, read } in &result.compared.differences {
            lines.push(format!("  {}: expected {}", plain(field), in_words(expected)));
            lines.push(format!("  {}      read {}", " ".repeat(field.chars().count()), in_words(read)));
        }
    }
    let cases = count(results.len() as i128, "case", "cases");
    lines.push(match differing {
        0 => format!("All {cases} of {} are read as expected.", plain(&args.name)),
        _ => format!("{differing} of {cases} of {} are not read as expected.", plain(&args.name)),
    });
    lines.join("\n")
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        other => cut(&other.to_string(), 1000),
    }
}

fn as_json(args: &ProviderTestArgs, dir: &Path, results: &[CaseResult], differing: usize) -> Value {
    let each = results.iter().map(|result| {
        json!({
            "case": result.case,
            "same": result.compared.differences.is_empty(),
            "differences": result.compared.differences,
            "read": result.compared.read,
            "decisions": result.decisions,
        })
    });
    json!({
        "provider": args.name, "dir": dir.display().to_string(), "cases": results.len(), "differing": differing,
        "results": each.collect::<Vec<_>>(),
    })
}
