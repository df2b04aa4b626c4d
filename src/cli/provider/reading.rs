//! What an answer means, step by step: one that is at hand, or one that the provider is asked for now.
//!
//! Nothing is written and nothing decided; no key, no signed URL is shown.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Tried;
use super::would::{Lists, Moments, Would, decide, moments};
use crate::cli::explain::because;
use crate::cli::output::{OutputFormat, print};
use crate::cli::parts::load_providers;
use crate::cli::words::{count, cut, plain, table};
use crate::cli::{Failure, evidence};
use crate::config::Settings;
use crate::duration::format_rounded;
use crate::evidence::{Doubt, Evidence, Verdict};
use crate::policy::Decision;
use crate::provider::{Asked, Providers, Question, Reading, Received, Step};
use crate::recovery::UrlRefusal;

/// A header of an answer.
#[derive(Clone, Debug)]
pub struct Header(HeaderName, HeaderValue);

/// Reads NAME:VALUE.
///
/// # Errors
/// What would be right.
pub fn header(text: &str) -> Result<Header, String> {
    let wrong = || "NAME:VALUE is wanted, for instance x-fal-request-id:1".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
    Ok(Header(name, HeaderValue::try_from(value.trim()).map_err(|_| wrong())?))
}

/// Reads what a filter kept.
///
/// # Errors
/// What would be right.
pub fn kept(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|_| "JSON is wanted, as the step before says it".to_owned())
}

/// What the steps came to.
enum Meaning {
    Judged(Evidence),
    /// The filter wants another answer, and only one was given.
    AsksFurther {
        request: String,
        kept: Value,
    },
}

/// All that is shown.
struct Told {
    /// The number of the first step.
    first: usize,
    steps: Vec<Step>,
    meaning: Meaning,
    would: Vec<Would>,
    moments: Moments,
    /// A real answer of this length would not be read.
    too_long: bool,
}

/// Reads, prints. False: the provider was asked and nothing could be told.
pub(super) async fn run(args: &Tried, settings: &Settings) -> Result<bool, Failure> {
    let providers = load_providers(settings).map_err(Failure::usage)?;
    let question = Question {
        provider: args.name.clone(),
        job_id: args.job_id(),
        model: args.model.clone(),
        items: args.items.into(),
        urgent: false,
    };
    let told = match &args.file {
        Some(file) => at_hand(args, file, settings, &providers, &question)?,
        None => asked_for(args, settings, &providers, &question).await?,
    };
    print(&match OutputFormat::or_by_terminal(args.output) {
        OutputFormat::Text => text(args, &told),
        OutputFormat::Json => as_json(args, &told).to_string(),
    })?;
    Ok(args.file.is_some()
        || matches!(&told.meaning, Meaning::Judged(answer) if !matches!(answer.verdict, Verdict::CouldNotTell(_))))
}

/// Asks nobody.
fn at_hand(
    args: &Tried,
    file: &Path,
    settings: &Settings,
    providers: &Providers,
    question: &Question,
) -> Result<Told, Failure> {
    let headers: HeaderMap =
        args.headers.iter().map(|Header(name, value)| (name.clone(), value.clone())).collect();
    let received = Received::new(args.status.unwrap_or(200), headers, read_body(file)?);
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
        request.unwrap_or_else(|problem| format!("none: the job cannot be asked for: {problem}"))
    } else {
        format!("what the filter asked for in step {}; it kept {carried}", first - 1)
    };
    let step = Step {
        request,
        status: Some(received.status),
        body_bytes: received.body.len(),
        said: providers.spoken(question, (first, &carried), &received).map_err(Failure::usage)?,
    };
    let moments = moments(providers, args, settings);
    let (meaning, would) = match reading {
        Reading::Judged(answer) => {
            let would = decide(args, settings, &Lists::of(providers, &args.name), &answer, &moments);
            (Meaning::Judged(answer), would)
        }
        Reading::AskNext(next) => {
            let (request, kept) = (Step::shown(&next), next.kept().clone());
            (Meaning::AsksFurther { request, kept }, Vec::new())
        }
    };
    let too_long =
        providers.get(&args.name).is_some_and(|provider| received.body.len() > provider.max_body_bytes);
    Ok(Told { first, steps: vec![step], meaning, would, moments, too_long })
}

/// Asks the provider, with its key, as a pass would.
async fn asked_for(
    args: &Tried,
    settings: &Settings,
    providers: &Providers,
    question: &Question,
) -> Result<Told, Failure> {
    let (asked, steps) = providers.ask_and_tell(question).await.map_err(Failure::usage)?;
    let answer = match asked {
        Asked::Answered(answer) => answer,
        // A circuit that was just made is closed.
        Asked::NotAsked { .. } => {
            return Err(Failure::from(format!("{} is left alone for now", plain(&args.name))));
        }
    };
    let moments = moments(providers, args, settings);
    let would = decide(args, settings, &Lists::of(providers, &args.name), &answer, &moments);
    Ok(Told { first: 1, steps, meaning: Meaning::Judged(answer), would, moments, too_long: false })
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

fn text(args: &Tried, told: &Told) -> String {
    let mut lines = Vec::new();
    for (nth, step) in told.steps.iter().enumerate() {
        lines.push(format!("Request {}: {}", told.first + nth, plain(&step.request)));
        let bytes = count(step.body_bytes as i128, "byte", "bytes");
        match (step.status, &step.said) {
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
    if told.steps.is_empty() {
        lines.push("No request was sent.".to_owned());
    }
    if told.too_long {
        lines.push("  LONGER than max_body_bytes: a real answer of this length is unreadable".to_owned());
    }
    lines.push(format!("As {} reads it", plain(&args.name)));
    match &told.meaning {
        Meaning::AsksFurther { request, kept } => {
            lines.push(format!("  it asks further: {}", plain(request)));
            let flag = if kept.is_null() { String::new() } else { format!(" --kept {}", quoted(kept)) };
            lines.push(format!("  What that answers is read with --step {}{flag}", told.first + 1));
        }
        Meaning::Judged(answer) => {
            lines.extend(evidence::lines(answer).iter().map(|line| format!("  {line}")));
            if answer.verdict == Verdict::CouldNotTell(Doubt::Unauthorized) {
                lines.push("  This is about our key, not about the job: see [auth] of its file.".to_owned());
            }
            lines.push("What would be decided, for each output of the job".to_owned());
            lines.extend(decisions(told));
        }
    }
    lines.join("\n")
}

/// A value as a shell takes it.
fn quoted(value: &Value) -> String {
    format!("'{}'", plain(&value.to_string()).replace('\'', "'\\''"))
}

fn decisions(told: &Told) -> Vec<String> {
    let shown = |decision: &Decision| {
        format!("{} {} (rule {})", decision.action.as_str(), decision.reason, decision.rule)
    };
    let header = [
        "output",
        &format!("charged {} ago", format_rounded(told.moments.fresh)),
        &format!("charged {} ago, asked 3 times", format_rounded(told.moments.late)),
    ];
    let rows =
        told.would.iter().map(|each| vec![each.output.to_string(), shown(&each.fresh), shown(&each.late)]);
    let mut lines = vec![table(&header, &["output"], rows).trim_end().to_owned()];
    let mut reasons: Vec<_> =
        told.would.iter().flat_map(|each| [each.fresh.reason, each.late.reason]).collect();
    reasons.sort_unstable();
    reasons.dedup();
    lines.extend(reasons.into_iter().map(|reason| format!("  {reason}: {}", because(reason))));
    for each in &told.would {
        let Some((url, why)) = &each.refused else { continue };
        lines.push(format!("  output {}: a pass does not fetch {}: {why}", each.output, cut(url, 200)));
        lines.extend(remedy(*why).map(str::to_owned));
    }
    lines
}

/// What would let the file be fetched, where that is for the provider's file to say.
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

fn as_json(args: &Tried, told: &Told) -> Value {
    let (answer, next, kept) = match &told.meaning {
        Meaning::Judged(answer) => (Some(evidence::json(answer)), None, None),
        Meaning::AsksFurther { request, kept } => (None, Some(request), Some(kept)),
    };
    let steps = told.steps.iter().enumerate().map(|(nth, step)| {
        json!({
            "step": told.first + nth, "request": step.request, "status": step.status, "body_bytes": step.body_bytes,
            "filter_said": step.said.as_ref().ok(), "filter_silent": step.said.as_ref().err(),
        })
    });
    let decision = |decision: &Decision| json!({"action": decision.action.as_str(), "reason": decision.reason, "rule": decision.rule});
    let would = told.would.iter().map(|each| {
        json!({
            "output_index": each.output, "fresh": decision(&each.fresh), "past_refund_by": decision(&each.late),
            "file_refused": each.refused.as_ref().map(|(_, why)| why.as_str()),
        })
    });
    json!({
        "provider": args.name, "asked": args.file.is_none(), "steps": steps.collect::<Vec<_>>(),
        "too_long": told.too_long, "evidence": answer, "next_request": next, "next_kept": kept, "decisions": would.collect::<Vec<_>>(),
        "fresh_age_seconds": told.moments.fresh.as_secs(), "past_refund_by_age_seconds": told.moments.late.as_secs(),
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
