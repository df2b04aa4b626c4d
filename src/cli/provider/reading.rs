//! What one answer would mean: how it is read, step by step, and what would be decided on it. Asks nobody.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Answer;
use crate::charge::{Charge, Item, ItemId, JobKey, Split};
use crate::cli::explain::because;
use crate::cli::output::{OutputFormat, print};
use crate::cli::parts::load_providers;
use crate::cli::words::{count, plain, span, table};
use crate::cli::{Failure, evidence};
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::evidence::Evidence;
use crate::facts::{BalanceRows, Delivery, Facts, ItemsSum, Orphan, Record, RefundedElsewhere, Share};
use crate::pass::Rules;
use crate::policy::{self, Decision};
use crate::provider::{Provider, Providers, Question, Reading, Received};

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

/// The two moments for which a decision is shown.
struct Moments {
    /// The age of a charge whose grace has just ended.
    fresh: Duration,
    /// The age of a charge past its benefit of the doubt.
    late: Duration,
}

/// What one output of the job would come to.
struct Would {
    output: i64,
    fresh: Decision,
    late: Decision,
}

pub(super) fn run(args: &Answer, settings: &Settings) -> Result<(), Failure> {
    let providers = load_providers(settings).map_err(Failure::usage)?;
    let body = read_body(args)?;
    let question = Question {
        provider: args.name.clone(),
        job_id: args.job.clone(),
        model: args.model.clone(),
        items: args.items.into(),
        urgent: false,
    };
    let headers: HeaderMap =
        args.headers.iter().map(|Header(name, value)| (name.clone(), value.clone())).collect();
    let received = Received { status: args.status, headers, body };
    let reading = providers.read(&question, args.step.into(), &received).map_err(Failure::usage)?;
    let moments = moments(&providers, args, settings);
    let would = match &reading {
        Reading::Judged(answer) => decide(args, settings, answer, &moments),
        Reading::AskNext(_) => Vec::new(),
    };
    let too_long =
        providers.get(&args.name).is_some_and(|provider| received.body.len() > provider.max_body_bytes);
    print(&match OutputFormat::or_by_terminal(args.output) {
        OutputFormat::Text => text(args, &received, &reading, &would, &moments, too_long),
        OutputFormat::Json => as_json(args, &received, &reading, &would, &moments, too_long).to_string(),
    })?;
    Ok(())
}

fn read_body(args: &Answer) -> Result<Bytes, Failure> {
    let read = if args.file.as_os_str() == "-" {
        let mut body = Vec::new();
        std::io::stdin().lock().read_to_end(&mut body).map(|_| body)
    } else {
        std::fs::read(&args.file)
    };
    let failed =
        |error| Failure::usage(format!("could not read the answer from {} ({error})", args.file.display()));
    read.map(Bytes::from).map_err(failed)
}

fn moments(providers: &Providers, args: &Answer, settings: &Settings) -> Moments {
    let own = providers.get(&args.name).and_then(|provider: &Provider| provider.grace_for(&args.model));
    Moments {
        fresh: own.unwrap_or(settings.detect.grace),
        late: settings.window.length.saturating_sub(settings.window.margin),
    }
}

fn decide(args: &Answer, settings: &Settings, answer: &Evidence, moments: &Moments) -> Vec<Would> {
    let limits = Rules::new(settings).policy;
    let now = Clock::System.now();
    (0..i64::from(args.items))
        .map(|output| {
            let of_age =
                |age| policy::decide(&facts(args, settings, output, age, now), Some(answer), &limits, now);
            Would { output, fresh: of_age(moments.fresh), late: of_age(moments.late) }
        })
        .collect()
}

/// An item that nothing else is known about, charged `age` ago; past its time it was asked about often enough.
fn facts(args: &Answer, settings: &Settings, output: i64, age: Duration, now: Timestamp) -> Facts {
    let charged_at = now - age;
    let doubt = settings.window.length.saturating_sub(settings.window.margin);
    let items = usize::from(args.items);
    let rank = usize::try_from(output).unwrap_or(0);
    let credits = i64::from(args.items);
    let id = ItemId { charge_id: "example".to_owned(), output_index: output };
    let job = JobKey { provider: args.name.clone(), job_id: args.job.clone(), output_index: output };
    Facts {
        record: Record {
            charge: Charge {
                id: id.charge_id.clone(),
                account_id: String::new(),
                project_id: String::new(),
                node_id: String::new(),
                provider: args.name.clone(),
                model: args.model.clone(),
                charged_at,
                drawn: Split { subscription: credits, wallet: 0 },
                cancelled_at: None,
            },
            item: Some(Item { id: id.clone(), credits: 1, job: Some(job), failed_at: None }),
            items: ItemsSum { count: items, credits, negative: false },
            delivery: Delivery::Missing,
            refunded_elsewhere: RefundedElsewhere::default(),
            rival: false,
            balance_rows: BalanceRows { subscription: 1, wallet: 1 },
        },
        share: Share { items, rank, open_rank: rank, stored: Vec::new() },
        orphan: Orphan {
            id: 0,
            item: id,
            opened_at: charged_at,
            refund_by: charged_at + doubt,
            questions: policy::QUESTIONS_MIN,
            first_asked_at: Some(now - policy::QUESTIONS_SPAN),
            waits: 0,
            held: None,
        },
    }
}

fn text(
    args: &Answer,
    received: &Received,
    reading: &Reading,
    would: &[Would],
    moments: &Moments,
    too_long: bool,
) -> String {
    let kind = if serde_json::from_slice::<serde::de::IgnoredAny>(&received.body).is_ok() {
        "JSON"
    } else {
        "no JSON that can be read"
    };
    let mut lines = vec![
        format!("1. The answer to request {} of a question: HTTP {}", args.step, received.status),
        format!("   {} of {kind}", count(received.body.len() as i128, "byte", "bytes")),
    ];
    if too_long {
        lines.push("   LONGER than max_body_bytes: a real answer of this length is unreadable".to_owned());
    }
    lines.push(format!("2. As {} reads it", plain(&args.name)));
    match reading {
        Reading::AskNext(request) => {
            lines.push(format!("   it asks further: {}", plain(&request.to_string())));
            lines.push(format!("   What that answers is read with --step {}.", args.step + 1));
        }
        Reading::Judged(answer) => {
            lines.extend(evidence::lines(answer).iter().map(|line| format!("   {line}")));
            lines.push("3. What would be decided, for each output of the job".to_owned());
            let shown = |decision: &Decision| {
                format!("{} {} (rule {})", decision.action.as_str(), decision.reason, decision.rule)
            };
            let header = [
                "output",
                &format!("charged {} ago", span(moments.fresh)),
                &format!("charged {} ago, asked 3 times", span(moments.late)),
            ];
            let rows =
                would.iter().map(|each| vec![each.output.to_string(), shown(&each.fresh), shown(&each.late)]);
            lines.push(table(&header, &["output"], rows).trim_end().to_owned());
            let mut reasons: Vec<_> =
                would.iter().flat_map(|each| [each.fresh.reason, each.late.reason]).collect();
            reasons.sort_unstable();
            reasons.dedup();
            lines.extend(reasons.into_iter().map(|reason| format!("  {reason}: {}", because(reason))));
        }
    }
    lines.join("\n")
}

fn as_json(
    args: &Answer,
    received: &Received,
    reading: &Reading,
    would: &[Would],
    moments: &Moments,
    too_long: bool,
) -> Value {
    let (answer, next) = match reading {
        Reading::Judged(answer) => (Some(evidence::json(answer)), None),
        Reading::AskNext(request) => (None, Some(request.to_string())),
    };
    let decision = |decision: &Decision| json!({"action": decision.action.as_str(), "reason": decision.reason, "rule": decision.rule});
    let would = would.iter().map(|each| {
        json!({"output_index": each.output, "fresh": decision(&each.fresh), "past_refund_by": decision(&each.late)})
    });
    json!({
        "provider": args.name, "step": args.step, "status": received.status, "body_bytes": received.body.len(),
        "too_long": too_long, "evidence": answer, "next_request": next, "decisions": would.collect::<Vec<_>>(),
        "fresh_age_seconds": moments.fresh.as_secs(), "past_refund_by_age_seconds": moments.late.as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadArgs;
    use crate::evidence::{Doubt, Verdict};

    #[test]
    fn without_proof_the_two_moments_differ() {
        let settings = Settings::load(&LoadArgs::default()).unwrap();
        let args = Answer {
            name: "replicate".to_owned(),
            file: "-".into(),
            status: 200,
            headers: Vec::new(),
            model: "m".to_owned(),
            job: "j".to_owned(),
            items: 2,
            step: 1,
            output: None,
        };
        let moments = Moments { fresh: Duration::from_mins(10), late: Duration::from_hours(22) };
        let decided = |answer: &Evidence| {
            decide(&args, &settings, answer, &moments)
                .iter()
                .map(|each| (each.output, each.fresh.reason.as_str(), each.late.reason.as_str()))
                .collect::<Vec<_>>()
        };
        let mut answer = Evidence::could_not_tell(Doubt::Unreadable, "", Timestamp::from_micros(0));
        assert_eq!(decided(&answer), [(0, "unreadable", "unconfirmed"), (1, "unreadable", "unconfirmed")]);
        answer.verdict = Verdict::Running;
        assert_eq!(decided(&answer), [(0, "still_running", "timed_out"), (1, "still_running", "timed_out")]);
        answer.verdict = Verdict::UnknownJob;
        assert_eq!(decided(&answer)[0], (0, "maybe_not_visible_yet", "never_returned"));
        answer.verdict = Verdict::Failed;
        assert_eq!(decided(&answer)[1], (1, "provider_error", "provider_error"));
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert!(header("x-fal-request-id: 1").is_ok());
        for text in ["x", "", "a b:1", "a:\n"] {
            assert_eq!(header(text).is_ok(), text == "a:\n", "{text:?}");
        }
    }
}
