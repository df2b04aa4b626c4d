//! Shows how an answer is read, step by step: an answer from a file, or one that the provider gives
//! now.
//!
//! Nothing is written. No key and no signed URL is shown.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::ProviderTestArgs;
use super::would::{HostLists, Moments, OutputDecisions, decide, moments};
use crate::cli::explain::because;
use crate::cli::output::{OutputFormat, print};
use crate::cli::parts::load_providers;
use crate::cli::words::{count, cut, plain, table};
use crate::cli::{Failure, evidence};
use crate::config::Settings;
use crate::duration::format_rounded;
use crate::evidence::{Doubt, Evidence, Verdict};
use crate::policy::Decision;
use crate::provider::{AskOutcome, HttpAnswer, Providers, Question, Reading, TraceStep};
use crate::recovery::UrlRefusal;

/// A header of an answer.
#[derive(Clone, Debug)]
pub struct Header(HeaderName, HeaderValue);

/// Reads NAME:VALUE.
///
/// # Errors
/// The expected format.
pub fn header(text: &str) -> Result<Header, String> {
    let wrong = || "expected NAME:VALUE, for instance x-fal-request-id:1".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
    Ok(Header(name, HeaderValue::try_from(value.trim()).map_err(|_| wrong())?))
}

/// Reads what a filter kept.
///
/// # Errors
/// The expected format.
pub fn kept(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|_| "expected JSON, as the output of the previous step shows it".to_owned())
}

/// The result of the steps.
enum Meaning {
    Judged(Evidence),
    /// The filter needs another answer, and only one was given.
    AsksFurther {
        request: String,
        kept: Value,
    },
}

/// Everything that is shown.
struct Shown {
    /// The number of the first step.
    first: usize,
    steps: Vec<TraceStep>,
    meaning: Meaning,
    would: Vec<OutputDecisions>,
    moments: Moments,
    /// The answer exceeds `max_body_bytes`, so a pass would not read it.
    too_long: bool,
}

/// Reads the answer and prints the result. Returns false if the provider was asked and its answer
/// told nothing about the job.
pub(super) async fn run(args: &ProviderTestArgs, settings: &Settings) -> Result<bool, Failure> {
    let providers = load_providers(settings).map_err(Failure::usage)?;
    let question = Question {
        provider: args.name.clone(),
        job_id: args.job_id(),
        model: args.model.clone(),
        items: args.items.into(),
        urgent: false,
    };
    let shown = match &args.file {
        Some(file) => from_file(args, file, settings, &providers, &question)?,
        None => from_provider(args, settings, &providers, &question).await?,
    };
    print(&match OutputFormat::or_by_terminal(args.output) {
        OutputFormat::Text => text(args, &shown),
        OutputFormat::Json => as_json(args, &shown).to_string(),
    })?;
    Ok(args.file.is_some()
        || matches!(&shown.meaning, Meaning::Judged(answer) if !matches!(answer.verdict, Verdict::CouldNotTell(_))))
}

/// Reads an answer from a file.
fn from_file(
    args: &ProviderTestArgs,
    file: &Path,
    settings: &Settings,
    providers: &Providers,
    question: &Question,
) -> Result<Shown, Failure> {
    let headers: HeaderMap =
        args.headers.iter().map(|Header(name, value)| (name.clone(), value.clone())).collect();
    let received = HttpAnswer::new(args.status.unwrap_or(200), headers, read_body(file)?);
    let first = usize::from(args.step.unwrap_or(1));
    if let Some(provider) = providers.get(&args.name)
        && first > provider.max_requests()
    {
        return Err(Failure::usage(format!(
            "there is no step {first}: one question to {} takes at most {}. See `ask.max_requests` of its file",
            plain(&args.name),
            count(provider.max_requests() as i128, "request", "requests")
        )));
    }
    let carried = args.kept.clone().unwrap_or_default();
    let reading = providers.read_step(question, (first, &carried), &received).map_err(Failure::usage)?;
    let request = if first == 1 {
        let request = providers.first_request(question).map_err(Failure::usage)?;
        request.unwrap_or_else(|problem| format!("none: the job cannot be asked about: {problem}"))
    } else {
        format!("what the filter asked for in step {}; it kept {carried}", first - 1)
    };
    let step = TraceStep {
        request,
        status: Some(received.status),
        body_bytes: received.body.len(),
        filter_output: providers
            .filter_output(question, (first, &carried), &received)
            .map_err(Failure::usage)?,
    };
    let moments = moments(providers, args, settings);
    let (meaning, would) = match reading {
        Reading::Judged(answer) => {
            let would = decide(args, settings, &HostLists::of(providers, &args.name), &answer, &moments);
            (Meaning::Judged(answer), would)
        }
        Reading::AskNext(next) => {
            let (request, kept) = (TraceStep::display(&next), next.kept().clone());
            (Meaning::AsksFurther { request, kept }, Vec::new())
        }
    };
    let too_long =
        providers.get(&args.name).is_some_and(|provider| received.body.len() > provider.max_body_bytes);
    Ok(Shown { first, steps: vec![step], meaning, would, moments, too_long })
}

/// Asks the provider with its key, as a pass would.
async fn from_provider(
    args: &ProviderTestArgs,
    settings: &Settings,
    providers: &Providers,
    question: &Question,
) -> Result<Shown, Failure> {
    let (asked, steps) = providers.ask_with_trace(question).await.map_err(Failure::usage)?;
    let answer = match asked {
        AskOutcome::Answered(answer) => answer,
        // A new process starts with a closed circuit breaker, so this does not happen.
        AskOutcome::NotAsked { .. } => {
            return Err(Failure::from(format!("{} cannot be asked now", plain(&args.name))));
        }
    };
    let moments = moments(providers, args, settings);
    let would = decide(args, settings, &HostLists::of(providers, &args.name), &answer, &moments);
    Ok(Shown { first: 1, steps, meaning: Meaning::Judged(answer), would, moments, too_long: false })
}

fn read_body(file: &Path) -> Result<Bytes, Failure> {
    let read = if file.as_os_str() == "-" {
        let mut body = Vec::new();
        std::io::stdin().lock().read_to_end(&mut body).map(|_| body)
    } else {
        std::fs::read(file)
    };
    let failed =
        |error| Failure::usage(format!("could not read the answer from {} ({error})", file.display()));
    read.map(Bytes::from).map_err(failed)
}

fn text(args: &ProviderTestArgs, shown: &Shown) -> String {
    let mut lines = Vec::new();
    for (nth, step) in shown.steps.iter().enumerate() {
        lines.push(format!("Request {}: {}", shown.first + nth, plain(&step.request)));
        let bytes = count(step.body_bytes as i128, "byte", "bytes");
        match (step.status, &step.filter_output) {
            (None, why) => {
                let why = why.as_ref().err().map_or_else(String::new, |why| format!("; {}", plain(why)));
                lines.push(format!("  answer: none{why}"));
            }
            (Some(status), said) => {
                lines.push(format!("  answer: HTTP {status}, {bytes}"));
                lines.push(match said {
                    Ok(said) => format!("  filter: {}", cut(said, 2000)),
                    Err(why) => format!("  filter: nothing; {}", plain(why)),
                });
            }
        }
    }
    if shown.steps.is_empty() {
        lines.push("No request was sent.".to_owned());
    }
    if shown.too_long {
        lines.push("  LONGER than max_body_bytes: a pass could not read an answer of this length".to_owned());
    }
    lines.push(format!("Read by {}", plain(&args.name)));
    match &shown.meaning {
        Meaning::AsksFurther { request, kept } => {
            lines.push(format!("  it asks further: {}", plain(request)));
            let flag = if kept.is_null() { String::new() } else { format!(" --kept {}", quoted(kept)) };
            lines.push(format!("  Read the next answer with --step {}{flag}", shown.first + 1));
        }
        Meaning::Judged(answer) => {
            lines.extend(evidence::lines(answer).iter().map(|line| format!("  {line}")));
            if answer.verdict == Verdict::CouldNotTell(Doubt::Unauthorized) {
                lines.push("  The provider rejected our API key; this says nothing about the job. See [auth] of its file.".to_owned());
            }
            lines.push("Decisions for each output of the job".to_owned());
            lines.extend(decisions(shown));
        }
    }
    lines.join("\n")
}

/// A value quoted for a shell.
fn quoted(value: &Value) -> String {
    format!("'{}'", plain(&value.to_string()).replace('\'', "'\\''"))
}

fn decisions(shown: &Shown) -> Vec<String> {
    let spelled = |decision: &Decision| {
        format!("{} {} (rule {})", decision.action.as_str(), decision.reason, decision.rule)
    };
    let header = [
        "output",
        &format!("charged {} ago", format_rounded(shown.moments.fresh)),
        &format!("charged {} ago, asked 3 times", format_rounded(shown.moments.late)),
    ];
    let rows = shown
        .would
        .iter()
        .map(|each| vec![each.output.to_string(), spelled(&each.fresh), spelled(&each.late)]);
    let mut lines = vec![table(&header, &["output"], rows).trim_end().to_owned()];
    let mut reasons: Vec<_> =
        shown.would.iter().flat_map(|each| [each.fresh.reason, each.late.reason]).collect();
    reasons.sort_unstable();
    reasons.dedup();
    lines.extend(reasons.into_iter().map(|reason| format!("  {reason}: {}", because(reason))));
    for each in &shown.would {
        let Some((url, why)) = &each.refused else { continue };
        lines.push(format!("  output {}: a pass does not download {}: {why}", each.output, cut(url, 200)));
        lines.extend(remedy(*why).map(str::to_owned));
    }
    lines
}

/// The change of the provider file that would allow the download, if there is one.
const fn remedy(why: UrlRefusal) -> Option<&'static str> {
    match why {
        UrlRefusal::Host => {
            Some("    if that host is right, add it to `output_hosts` of the provider's file")
        }
        UrlRefusal::Port => {
            Some("    if that port is right, add `HOST:PORT` to `output_hosts` of the provider's file")
        }
        UrlRefusal::PlainHttp => Some(
            "    if the provider has no https there, add `http://HOST` to `output_hosts` of the provider's file",
        ),
        UrlRefusal::KeyHost => Some(
            "    if the key may go there, add the host to `key_hosts` of `[download]` in the provider's file",
        ),
        _ => None,
    }
}

fn as_json(args: &ProviderTestArgs, shown: &Shown) -> Value {
    let (answer, next, kept) = match &shown.meaning {
        Meaning::Judged(answer) => (Some(evidence::json(answer)), None, None),
        Meaning::AsksFurther { request, kept } => (None, Some(request), Some(kept)),
    };
    let steps = shown.steps.iter().enumerate().map(|(nth, step)| {
        json!({
            "step": shown.first + nth, "request": step.request, "status": step.status, "body_bytes": step.body_bytes,
            "filter_said": step.filter_output.as_ref().ok(), "filter_silent": step.filter_output.as_ref().err(),
        })
    });
    let decision = |decision: &Decision| json!({"action": decision.action.as_str(), "reason": decision.reason, "rule": decision.rule});
    let would = shown.would.iter().map(|each| {
        json!({
            "output_index": each.output, "fresh": decision(&each.fresh), "past_refund_by": decision(&each.late),
            "file_refused": each.refused.as_ref().map(|(_, why)| why.as_str()),
        })
    });
    json!({
        "provider": args.name, "asked": args.file.is_none(), "steps": steps.collect::<Vec<_>>(),
        "too_long": shown.too_long, "evidence": answer, "next_request": next, "next_kept": kept, "decisions": would.collect::<Vec<_>>(),
        "fresh_age_seconds": shown.moments.fresh.as_secs(), "past_refund_by_age_seconds": shown.moments.late.as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert!(header("x-fal-request-id: 1").is_ok());
        for text in ["x", "", "a b:1", "a:\n"] {
            assert_eq!(header(text).is_ok(), text == "a:\n", "{text:?}");
        }
    }
}
