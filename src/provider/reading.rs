//! Turns an answer into evidence: first by its HTTP status, then by the filter's output, which is
//! validated.
//!
//! Every answer yields a value. If an answer cannot be interpreted, for example because of an
//! unknown status word, the evidence is [`Doubt::Unreadable`] and never a failure of the job;
//! otherwise a change of the provider's API would refund charges. No network and no clock.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::FutureExt as _;
use jaq_json::Val;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Question;
use super::body::BodyFormat;
use super::body_decoder::{BodyDecoder, InlineFiles, LONG_BYTES};
use super::file::Provider;
use super::file_error;
use super::filter_output::FilterOutput;
use super::filters::{FilterCall, FilterRun, FilterStopped, Program, Runner};
use super::redact;
use super::request::{Payload, Request};
use crate::clock::Timestamp;
use crate::evidence::{Answer, Doubt, Evidence, Verdict};

/// The most outputs that one answer may list.
const MAX_OUTPUTS: usize = 1000;

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body after decompression.
    pub body: Bytes,
    /// The files that were decoded from the body while it arrived. `None`: the body is unchanged.
    pub(super) files: Option<InlineFiles>,
}

impl HttpAnswer {
    /// Creates an answer from a body as the provider sent it.
    pub fn new(status: u16, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, headers, body, files: None }
    }

    /// The length of the body before files were decoded from it.
    pub(super) fn body_bytes(&self) -> usize {
        let original = self.files.as_ref().and_then(|files| files.original.as_ref());
        original.map_or(self.body.len(), |(length, _)| *length)
    }

    /// Returns the body as the filter sees it, and the files that were decoded from it.
    fn decoded(&self, format: BodyFormat) -> (Bytes, InlineFiles) {
        match &self.files {
            Some(files) => (self.body.clone(), files.clone()),
            None if self.body.len() < LONG_BYTES => (self.body.clone(), InlineFiles::default()),
            None => BodyDecoder::decode(format, &self.body),
        }
    }
}

/// The interpretation of one answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// It states the status of the job, or that the status cannot be determined.
    Judged(Evidence),
    /// Another request is needed.
    AskNext(Request),
}

/// The values for the placeholders of the request, by name.
pub(super) type Values = BTreeMap<String, String>;

/// Why a question cannot be asked, or its answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QuestionError {
    /// A value is invalid, or a filter failed.
    Problem(String),
    /// A filter exceeded its bounds and was stopped.
    Stopped(FilterStopped),
}

impl QuestionError {
    /// The message for people.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Problem(message) | Self::Stopped(FilterStopped { message, .. }) => message,
        }
    }
}

impl From<String> for QuestionError {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

/// A reading, and the filter run that had to be stopped for it, if any.
pub(super) struct ReadingResult {
    pub(super) reading: Reading,
    pub(super) stopped: Option<FilterStopped>,
}

impl Provider {
    /// Runs filters to completion outside of an async context.
    pub(super) fn block_on<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        match &self.runner {
            Runner::InProcess => work.now_or_never().expect("filters inside this process never wait"),
            Runner::Worker(_) => self.runner.block_on(work).expect("a runtime of one thread can be created"),
        }
    }

    /// Computes the values for the placeholders of the request.
    async fn values(&self, question: &Question) -> Result<Values, QuestionError> {
        let mut values = BTreeMap::from([
            ("job".to_owned(), question.job_id.clone()),
            ("model".to_owned(), question.model.clone()),
        ]);
        for (name, program) in &self.ask.lets {
            match self.run_without_body(program, question_fields(question)).await? {
                Value::String(text) => values.insert(name.clone(), text),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(QuestionError::Problem(format!("`{}` returned no text", program.name)));
                }
            };
        }
        Ok(values)
    }

    /// Runs a filter that reads no answer: `[ask.let]`, `body` or `form`.
    async fn run_without_body(
        &self,
        program: &Program,
        input: Map<String, Value>,
    ) -> Result<Value, QuestionError> {
        let call = FilterCall { input, body: None, format: BodyFormat::default(), original: None };
        let run = self.runner.run(program, call).await.map_err(QuestionError::Stopped)?;
        run.output.map_err(|problem| QuestionError::Problem(format!("`{}`: {problem}", program.name)))
    }

    /// Builds the first request of a question, and the values for its placeholders. An error says
    /// why the job cannot be asked for.
    pub(super) async fn prepare(&self, question: &Question) -> Result<(Request, Values), QuestionError> {
        let values = self.values(question).await?;
        let payload = match &self.ask.body {
            None => None,
            Some((program, is_form)) => {
                let mut input = question_fields(question);
                input.insert("let".to_owned(), self.lets(&values));
                let body = self.run_without_body(program, input).await?;
                let payload = if *is_form { Payload::form(&body) } else { Ok(Payload::Json(body)) };
                Some(payload.map_err(|problem| format!("`{}`: {problem}", program.name))?)
            }
        };
        let by_name = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = self.ask.request.fill(&by_name)?.with_payload(payload)?;
        Ok((request, values))
    }

    /// Builds the first request of a question, outside of an async context.
    pub(super) fn first_request(&self, question: &Question) -> Result<Request, String> {
        let prepared = self.block_on(self.prepare(question));
        prepared.map(|(request, _)| request).map_err(|error| error.message().to_owned())
    }

    /// The values of `[ask.let]` as the filter sees them in `.let`.
    fn lets(&self, values: &Values) -> Value {
        let lets = self.ask.lets.iter();
        lets.filter_map(|(name, _)| Some((name.clone(), values.get(name)?.clone()))).collect()
    }

    /// Reads one answer, outside of an async context. `at`: the number of the answer, from 1, and
    /// the value that the filter kept from the answer before.
    pub(super) fn read(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &HttpAnswer,
        asked_at: Timestamp,
        secrets: &[&str],
    ) -> Reading {
        self.block_on(async {
            let values = self.values(question).await;
            self.reading(question, at, received, asked_at, secrets, values.as_ref()).await.reading
        })
    }

    /// Reads one answer that belongs to no job, for the trial of the filters.
    pub(super) async fn read_for_trial(
        &self,
        question: &Question,
        received: &HttpAnswer,
    ) -> Result<Reading, FilterStopped> {
        let values = match self.prepare(question).await {
            Ok((_, values)) => values,
            Err(QuestionError::Stopped(stopped)) => return Err(stopped),
            // The trial's model may be unknown to the filters of `[ask.let]`.
            Err(QuestionError::Problem(_)) => {
                self.ask.lets.iter().map(|(name, _)| (name.clone(), "trial".to_owned())).collect()
            }
        };
        let at = (1, &Value::Null);
        let now = Timestamp::from_micros(0);
        let result = self.reading(question, at, received, now, &[], Ok(&values)).await;
        result.stopped.map_or(Ok(result.reading), Err)
    }

    /// Reads one answer of a question whose placeholder values are known.
    pub(super) async fn reading(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &HttpAnswer,
        asked_at: Timestamp,
        secrets: &[&str],
        values: Result<&Values, &QuestionError>,
    ) -> ReadingResult {
        let doubt = |doubt, message: &str| {
            let mut evidence = Evidence::could_not_tell(doubt, redact::message(message, secrets), asked_at);
            evidence.answer = answer_record(received, secrets);
            Reading::Judged(evidence)
        };
        let result = |reading| ReadingResult { reading, stopped: None };
        if self.is_judged_by_status(received.status)
            && let Some((why, message)) = judge_status(received.status)
        {
            return result(doubt(why, &message));
        }
        let run = match values {
            Ok(values) => self.run_filter(question, at, received, values).await,
            Err(error) => Err(error.clone()),
        };
        let (run, files) = match run {
            Ok(run) => run,
            Err(error) => {
                let reading = doubt(Doubt::Unreadable, error.message());
                let stopped = match error {
                    QuestionError::Problem(_) => None,
                    QuestionError::Stopped(stopped) => Some(stopped),
                };
                return ReadingResult { reading, stopped };
            }
        };
        let reading = run
            .output
            .and_then(|output| {
                FilterOutput::deserialize(output).map_err(|error| {
                    let error = file_error::describe(&error.to_string(), "object");
                    format!("the filter's output is invalid: {error}")
                })
            })
            .and_then(|output| self.judge(output, &files, asked_at, secrets));
        result(match reading {
            Ok(Reading::Judged(mut evidence)) => {
                evidence.answer = answer_record(received, secrets);
                if evidence.verdict == Verdict::CouldNotTell(Doubt::Unreadable)
                    && let Some(error) = run.body_error
                {
                    let message = evidence.message.unwrap_or_default();
                    let message = format!("{message} (the body is {error})");
                    evidence.message = Some(redact::message(message.trim(), secrets));
                }
                Reading::Judged(evidence)
            }
            Ok(next @ Reading::AskNext(_)) => next,
            Err(problem) => match run.body_error {
                Some(error) => doubt(Doubt::Unreadable, &format!("{problem} (the body is {error})")),
                None => doubt(Doubt::Unreadable, &problem),
            },
        })
    }

    /// Returns the filter's output for an answer, as JSON with secrets removed. For display only.
    /// An error says why there is no output.
    pub(super) async fn filter_output(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &HttpAnswer,
        secrets: &[&str],
    ) -> Result<String, String> {
        if self.is_judged_by_status(received.status) {
            return Err("it is not run: the HTTP status alone decides".into());
        }
        let problem = |problem: &str| redact::message(problem, secrets);
        let values = self.values(question).await.map_err(|error| problem(error.message()))?;
        let run = self.run_filter(question, at, received, &values).await;
        let (run, _) = run.map_err(|error| problem(error.message()))?;
        run.output
            .map(|output| redact::excerpt(output.to_string().as_bytes(), secrets))
            .map_err(|why| problem(&why))
    }

    /// The same as [`Provider::filter_output`], outside of an async context.
    pub(super) fn filter_output_blocking(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &HttpAnswer,
        secrets: &[&str],
    ) -> Result<String, String> {
        self.block_on(self.filter_output(question, at, received, secrets))
    }

    /// Whether the HTTP status alone decides. 401 always concerns our key, whatever the body says.
    fn is_judged_by_status(&self, status: u16) -> bool {
        (!self.ask.read_all || status == 401) && judge_status(status).is_some()
    }

    async fn run_filter(
        &self,
        question: &Question,
        (step, carried): (usize, &Value),
        received: &HttpAnswer,
        values: &Values,
    ) -> Result<(FilterRun, InlineFiles), QuestionError> {
        let mut headers: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in &received.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.as_str())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(&value);
                })
                .or_insert_with(|| value.clone().into_owned());
        }
        let mut input = question_fields(question);
        for (key, value) in [
            ("status", Value::from(received.status)),
            ("headers", headers.into_iter().collect()),
            ("step", Value::from(step)),
            ("kept", carried.clone()),
            ("let", self.lets(values)),
        ] {
            input.insert(key.to_owned(), value);
        }
        let (body, files) = received.decoded(self.ask.answer);
        let original = files.original.clone();
        let call = FilterCall { input, body: Some(body), format: self.ask.answer, original };
        let run = self.runner.run(&self.ask.read, call).await.map_err(QuestionError::Stopped)?;
        Ok((run, files))
    }

    /// Validates the filter's output and turns it into a reading.
    fn judge(
        &self,
        output: FilterOutput,
        files: &InlineFiles,
        asked_at: Timestamp,
        secrets: &[&str],
    ) -> Result<Reading, String> {
        let verdict = match output.verdict.as_str() {
            "queued" => Verdict::Queued,
            "running" => Verdict::Running,
            "succeeded" => Verdict::Succeeded,
            "failed" => Verdict::Failed,
            "cancelled" => Verdict::Cancelled,
            "unknown_job" => Verdict::UnknownJob,
            "rate_limited" => Verdict::CouldNotTell(Doubt::RateLimited),
            "unauthorized" => Verdict::CouldNotTell(Doubt::Unauthorized),
            "unreachable" => Verdict::CouldNotTell(Doubt::Unreachable),
            "unreadable" => Verdict::CouldNotTell(Doubt::Unreadable),
            "ask" => {
                let next = output.next_step()?;
                return self
                    .ask
                    .request
                    .next_step(next)
                    .map(Reading::AskNext)
                    .map_err(|problem| format!("the next request cannot be sent: {problem}"));
            }
            other => return Err(format!("the filter returned an unknown verdict: `{other}`")),
        };
        if output.has_next_step() {
            return Err(
                "the filter returned `request`, `body`, `form`, `headers`, `auth` or `keep` with a verdict other than `ask`"
                    .into(),
            );
        }
        if output.outputs_gone && verdict != Verdict::Succeeded {
            return Err("the filter returned `outputs_gone` with a verdict other than `succeeded`".into());
        }
        // A list that is missing or null must not be read as empty, because that would refund.
        if output.outputs.is_none() && verdict == Verdict::Succeeded && !output.outputs_gone {
            return Err(
                "the filter returned `succeeded` without a list of `outputs`; if there are none, it must return \
                        `outputs: []`"
                    .into(),
            );
        }
        let outputs = output.outputs.unwrap_or_default();
        if outputs.len() > MAX_OUTPUTS {
            return Err(format!("the answer lists more than {MAX_OUTPUTS} outputs"));
        }
        let outputs = outputs
            .into_iter()
            .map(|output| output.offer(self, files, secrets))
            .collect::<Result<Vec<_>, _>>()?;
        let mut indices: Vec<i64> = outputs.iter().filter_map(|offer| offer.index).collect();
        indices.sort_unstable();
        if let Some([twice, _]) = indices.array_windows().find(|[one, next]| one == next) {
            return Err(format!("the answer lists output {twice} twice"));
        }
        Ok(Reading::Judged(Evidence {
            verdict,
            class: output.class,
            code: output.code.map(|code| redact::message(&code.text(), secrets)),
            message: output.message.map(|message| redact::message(&message, secrets)),
            outputs,
            outputs_gone: output.outputs_gone,
            asked_at,
            answer: Answer::default(),
        }))
    }
}

/// The fields of the question in the input of every filter.
fn question_fields(question: &Question) -> Map<String, Value> {
    Map::from_iter([
        ("job".to_owned(), Value::from(question.job_id.as_str())),
        ("model".to_owned(), Value::from(question.model.as_str())),
        ("items".to_owned(), Value::from(question.items)),
    ])
}

/// The part of an answer that is stored for support. The caller adds the request.
fn answer_record(received: &HttpAnswer, secrets: &[&str]) -> Answer {
    Answer {
        request: None,
        status: Some(received.status),
        excerpt: Some(redact::excerpt(&received.body, secrets)),
    }
}

/// Interprets an HTTP status that concerns the key, the rate limit or the transport, not the job.
fn judge_status(status: u16) -> Option<(Doubt, String)> {
    match status {
        401 | 403 => Some((Doubt::Unauthorized, format!("HTTP {status}: the provider rejected the key"))),
        429 => Some((Doubt::RateLimited, "HTTP 429: rate limit exceeded".into())),
        300..=399 => Some((
            Doubt::Unreadable,
            format!("HTTP {status}: a redirect, which is not followed for questions"),
        )),
        500..=599 => Some((Doubt::Unreachable, format!("HTTP {status}: server error of the provider"))),
        _ => None,
    }
}

/// The object that represents a body in another format than the file says.
pub(super) fn blob(length: usize, sha256: &str) -> Val {
    object([("bytes", Val::from(length)), ("sha256", string(sha256))])
}

pub(super) fn string(text: &str) -> Val {
    Val::from(text.to_owned())
}

fn object<const N: usize>(entries: [(&str, Val); N]) -> Val {
    Val::obj(entries.into_iter().map(|(key, value)| (string(key), value)).collect())
}

/// Creates a provider with this filter.
#[cfg(test)]
pub(super) fn provider_reading(filter: &str, read_all: bool) -> Provider {
    let text = format!(
        "[provider]\nname = \"acme\"\noutput_hosts = [\"cdn.acme.example\"]\n[ask]\nrequest = \"GET https://acme.example/{{job}}\"\n\
         read_all = {read_all}\nread = '''{filter}'''"
    );
    super::file::read_without_trial(&text).unwrap()
}

#[cfg(test)]
mod tests;
