//! Test cases for a provider file: `makegood provider test NAME --expect DIR`.
//!
//! A case is one JSON file with a status, headers, a body, and the expected reading. Everything
//! that decides about money is compared: the verdict, the class, every output and the next request.
//! If a case omits one of these, it expects that there is none, so an unexpected output is always a
//! difference. `code`, `message` and `request` are compared only if the case contains them. An
//! invalid case is an error and never counts as passed. No request is sent and nothing is written.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::file_error;
use super::redact;
use super::request::Request;
use super::{HttpAnswer, ProviderError, Providers, Question, Reading};
use crate::evidence::{Doubt, Evidence, FailureClass, Offer, Source, Verdict};

/// One stored answer and its expected reading.
#[derive(Clone, Debug)]
pub struct AnswerCase {
    written: CaseJson,
    body: Bytes,
    headers: HeaderMap,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseJson {
    #[serde(default = "job")]
    job: String,
    #[serde(default = "model")]
    model: String,
    #[serde(default = "one")]
    items: u16,
    #[serde(default = "one")]
    step: u16,
    #[serde(default)]
    kept: Value,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "present")]
    body: Option<Value>,
    body_text: Option<String>,
    body_base64: Option<String>,
    body_file: Option<String>,
    expect: Expected,
}

/// The expected reading.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: String,
    class: Option<FailureClass>,
    code: Option<String>,
    /// A part of the message.
    message: Option<String>,
    #[serde(default)]
    outputs: Vec<Output>,
    #[serde(default)]
    outputs_gone: bool,
    /// The first request of the question.
    request: Option<String>,
    next_request: Option<String>,
    #[serde(default)]
    next_kept: Value,
    /// The decision for each output of a charge whose grace has just ended. The command compares
    /// it.
    decisions: Option<Vec<String>>,
}

/// One output, expected or read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Output {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Whether the download needs the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    auth: bool,
    /// The length of a file inside the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    inline_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// The class of failure if only this output failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<FailureClass>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

fn job() -> String {
    "job-1".to_owned()
}

fn model() -> String {
    "owner/model".to_owned()
}

const fn one() -> u16 {
    1
}

/// Deserializes `null` as a body, which differs from no body.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The result of a case.
#[derive(Debug)]
pub struct Comparison {
    /// Where the reading differs from the expected one.
    pub differences: Vec<Difference>,
    /// The reading, in the format of `expect`.
    pub read: Value,
    /// The evidence; `None` if the filter asks for another request.
    pub evidence: Option<Evidence>,
}

/// One difference. It contains no key and no signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key of `expect`.
    pub field: String,
    /// The value in the case.
    pub expected: Value,
    /// The value that was read.
    pub read: Value,
}

impl Difference {
    /// Creates a difference, without queries that may contain signatures.
    pub fn new(field: impl Into<String>, expected: Value, read: Value) -> Self {
        let (expected, read) = (displayable(expected), displayable(read));
        let field = field.into();
        // The values may differ only in the part that is removed.
        let field = if expected == read { format!("{field} (in a hidden part)") } else { field };
        Self { field, expected, read }
    }
}

impl AnswerCase {
    /// Reads a case. `folder`: the folder of a `body_file`. An error contains the line and the
    /// expected value.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let wrong = |key: &str, right: &str| Err(format!("`{key}`: must be {right}"));
        let mut json = serde_json::Deserializer::from_str(text);
        let written: CaseJson = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (key, inner) = (error.path().to_string(), error.inner());
            let message = inner.to_string();
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
            let key = if key == "." { String::new() } else { format!("`{key}`: ") };
            format!("line {}: {key}{}", inner.line(), file_error::describe(message, "object"))
        })?;
        json.end().map_err(|error| format!("line {}: unexpected text after the case", error.line()))?;
        if written.status.is_some_and(|status| !(100..=599).contains(&status)) {
            return wrong("status", "an HTTP status, 100 to 599");
        }
        if !(1..=1000).contains(&written.items) {
            return wrong("items", "1 to 1000");
        }
        if written.step == 0 {
            return wrong("step", "1 or more");
        }
        if !VERDICTS.contains(&written.expect.verdict.as_str()) {
            return wrong("expect.verdict", &format!("one of {}", VERDICTS.join(", ")));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &written.headers {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => headers.append(name, value),
                _ => return wrong(&format!("headers.{name}"), "the name and the value of a header"),
            };
        }
        let body = match (&written.body, &written.body_text, &written.body_base64, &written.body_file) {
            (None, None, None, None) => Vec::new(),
            (Some(body), None, None, None) => body.to_string().into_bytes(),
            (None, Some(text), None, None) => text.clone().into_bytes(),
            (None, None, Some(text), None) => match BASE64_STANDARD.decode(text) {
                Ok(body) => body,
                Err(_) => return wrong("body_base64", "base64"),
            },
            (None, None, None, Some(name)) => {
                let path = folder.join(name);
                std::fs::read(&path)
                    .map_err(|error| format!("`body_file`: could not read {} ({error})", path.display()))?
            }
            _ => {
                return wrong(
                    "body",
                    "given only once: one of `body`, `body_text`, `body_base64`, `body_file`",
                );
            }
        };
        Ok(Self { written, body: body.into(), headers })
    }

    /// The question that the answer belongs to.
    pub fn question(&self, provider: &str) -> Question {
        Question {
            provider: provider.to_owned(),
            job_id: self.written.job.clone(),
            model: self.written.model.clone(),
            items: self.written.items.into(),
            urgent: false,
        }
    }

    /// How many outputs the charges expect from the job.
    pub const fn items(&self) -> u16 {
        self.written.items
    }

    /// The expected decision for each output, if the case contains them.
    pub fn decisions(&self) -> Option<&[String]> {
        self.written.expect.decisions.as_deref()
    }
}

impl Providers {
    /// Reads the answer of a case like a pass would, and compares the reading. The inner error says
    /// why the case is invalid for this provider.
    pub fn compare(
        &self,
        name: &str,
        case: &AnswerCase,
    ) -> Result<Result<Comparison, String>, ProviderError> {
        let question = case.question(name);
        let provider = self.get(name).ok_or_else(|| self.unknown(name))?;
        let (step, expect) = (usize::from(case.written.step), &case.written.expect);
        if step > provider.max_requests() {
            let most = provider.max_requests();
            return Ok(Err(format!(
                "`step`: must be 1 to {most}, which is `ask.max_requests` of the provider"
            )));
        }
        let first = provider.first_request(&question);
        let reading = match (case.written.status, &first) {
            (None, Ok(_)) => return Ok(Err("`status`: is missing, but the job can be asked for".to_owned())),
            (None, Err(problem)) => {
                let message = format!("the job cannot be asked for: {problem}");
                Reading::Judged(Evidence::could_not_tell(Doubt::Unreadable, message, self.clock.now()))
            }
            (Some(status), _) => {
                let received = HttpAnswer::new(status, case.headers.clone(), case.body.clone());
                self.read_step(&question, (step, &case.written.kept), &received)?
            }
        };
        let mut found = Vec::new();
        let mut differ = |field: String, expected: Value, read: Value| {
            if expected != read {
                found.push(Difference::new(field, expected, read));
            }
        };
        let read = read(&reading);
        differ("verdict".to_owned(), json!(expect.verdict), read["verdict"].clone());
        differ("class".to_owned(), json!(expect.class.map(FailureClass::as_str)), read["class"].clone());
        if expect.code.is_some() {
            differ("code".to_owned(), json!(expect.code), read["code"].clone());
        }
        if let Some(part) = &expect.message {
            let whole = read["message"].as_str().unwrap_or_default();
            if !whole.contains(part.as_str()) {
                differ("message".to_owned(), json!(part), read["message"].clone());
            }
        }
        differ("outputs_gone".to_owned(), json!(expect.outputs_gone), read["outputs_gone"].clone());
        let outputs = read["outputs"].as_array().cloned().unwrap_or_default();
        for nth in 0..outputs.len().max(expect.outputs.len()) {
            let expected = expect.outputs.get(nth).map_or(Value::Null, |output| json!(output));
            differ(format!("outputs[{nth}]"), expected, outputs.get(nth).cloned().unwrap_or_default());
        }
        differ("next_request".to_owned(), json!(expect.next_request), read["next_request"].clone());
        differ("next_kept".to_owned(), expect.next_kept.clone(), read["next_kept"].clone());
        if let Some(request) = &expect.request {
            let first = first.as_ref().map_or_else(|problem| format!("none: {problem}"), Request::in_full);
            differ("request".to_owned(), json!(request), json!(first));
        }
        let evidence = match reading {
            Reading::Judged(evidence) => Some(evidence),
            Reading::AskNext(_) => None,
        };
        Ok(Ok(Comparison { differences: found, read: displayable(read), evidence }))
    }
}

/// Converts a reading to the format of `expect`.
fn read(reading: &Reading) -> Value {
    match reading {
        Reading::AskNext(request) => json!({
            "verdict": "ask", "class": null, "code": null, "message": null, "outputs": [], "outputs_gone": false,
            "next_request": request.in_full(), "next_kept": request.kept(),
        }),
        Reading::Judged(evidence) => json!({
            "verdict": evidence.verdict.as_str(),
            "class": evidence.class.map(FailureClass::as_str),
            "code": evidence.code,
            "message": evidence.message,
            "outputs": evidence.outputs.iter().map(output).collect::<Vec<_>>(),
            "outputs_gone": evidence.outputs_gone,
            "next_request": null, "next_kept": null,
        }),
    }
}

fn output(offer: &Offer) -> Output {
    let mut output = Output {
        index: offer.index,
        expires_at: offer.expires_at.map(|at| at.to_string()),
        ..Output::default()
    };
    match &offer.source {
        Source::Url { url, auth } => (output.url, output.auth) = (Some(url.clone()), *auth),
        Source::Inline { bytes, content_type } => {
            (output.inline_bytes, output.content_type) = (Some(bytes.len()), content_type.clone());
        }
        Source::Failed { class, .. } => output.failed = Some(*class),
    }
    output
}

/// Removes the queries of URLs that may contain signatures from a value.
fn displayable(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(match text.split_once('?') {
            // A request or a URL: `redact::query` removes long and confidential parameters.
            Some((start, query)) if start.contains("://") => {
                let (query, rest) = query.split_once(' ').unwrap_or((query, ""));
                let rest =
                    if rest.is_empty() { String::new() } else { format!(" {}", redact::clean(rest, &[])) };
                format!("{}?{}{rest}", redact::clean(start, &[]), redact::query(query, true, &[]))
            }
            _ => redact::clean(&text, &[]),
        }),
        Value::Array(list) => list.into_iter().map(displayable).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, displayable(value))).collect(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}

/// The permitted values of `expect.verdict`.
const VERDICTS: [&str; 11] = [
    Verdict::Queued.as_str(),
    Verdict::Running.as_str(),
    Verdict::Succeeded.as_str(),
    Verdict::Failed.as_str(),
    Verdict::Cancelled.as_str(),
    Verdict::UnknownJob.as_str(),
    Verdict::CouldNotTell(Doubt::RateLimited).as_str(),
    Verdict::CouldNotTell(Doubt::Unauthorized).as_str(),
    Verdict::CouldNotTell(Doubt::Unreachable).as_str(),
    Verdict::CouldNotTell(Doubt::Unreadable).as_str(),
    "ask",
];
