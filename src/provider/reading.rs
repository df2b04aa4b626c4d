//! Answers as evidence: what the HTTP status says by itself, then what the filter says, checked.
//!
//! Promise: whatever arrives, a value comes out. What no rule can read is [`Doubt::Unreadable`] and never
//! a failure of the job; a status word that no filter knows likewise. Pure: no network, no clock.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::FutureExt as _;
use jaq_json::Val;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Question;
use super::answer::Shape;
use super::file::Provider;
use super::filters::{Call, Program, Runner, Stopped, Told};
use super::flaw;
use super::intake::{Files, Intake, LONG_BYTES};
use super::redact;
use super::request::{Payload, Request};
use super::said::Said;
use crate::clock::Timestamp;
use crate::evidence::{Answer, Doubt, Evidence, Verdict};

/// The most outputs that one answer may name.
const OUTPUTS: usize = 1000;
/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its status code.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, decompressed.
    pub body: Bytes,
    /// The files that were decoded out of the body as it came; none: it is as the provider sent it.
    pub(super) files: Option<Files>,
}

impl Received {
    /// An answer at hand, as the provider sent it.
    pub fn new(status: u16, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, headers, body, files: None }
    }

    /// How long the body was as it came.
    pub(super) fn body_bytes(&self) -> usize {
        let whole = self.files.as_ref().and_then(|files| files.whole.as_ref());
        whole.map_or(self.body.len(), |(length, _)| *length)
    }

    /// The body as a filter sees it, and its files.
    fn opened(&self, shape: Shape) -> (Bytes, Files) {
        match &self.files {
            Some(files) => (self.body.clone(), files.clone()),
            None if self.body.len() < LONG_BYTES => (self.body.clone(), Files::default()),
            None => Intake::whole(shape, &self.body),
        }
    }
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// It says how the job stands, or that this cannot be told.
    Judged(Evidence),
    /// Another request decides.
    AskNext(Request),
}

/// Text for the gaps of the request, by name.
pub(super) type Values = BTreeMap<String, String>;

/// Why there is nothing to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hitch {
    /// What was said cannot be used.
    Problem(String),
    /// A filter passed its bounds.
    Stopped(Stopped),
}

impl Hitch {
    /// In words.
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Problem(words) | Self::Stopped(Stopped { why: words, .. }) => words,
        }
    }
}

impl From<String> for Hitch {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

/// A reading, and which filter had to be stopped for it.
pub(super) struct Heard {
    pub(super) reading: Reading,
    pub(super) stopped: Option<Stopped>,
}

impl Provider {
    /// Waits for what needs no waiting inside this process, and for a worker otherwise.
    pub(super) fn now<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        match &self.runner {
            Runner::InProcess => work.now_or_never().expect("nothing is waited for inside this process"),
            Runner::Worker(_) => self.runner.wait_for(work).expect("a runtime of one thread can be made"),
        }
    }

    /// What the gaps of the request are filled with.
    async fn values(&self, question: &Question) -> Result<Values, Hitch> {
        let mut values = BTreeMap::from([
            ("job".to_owned(), question.job_id.clone()),
            ("model".to_owned(), question.model.clone()),
        ]);
        for (name, program) in &self.ask.lets {
            match self.say(program, asked(question)).await? {
                Value::String(text) => values.insert(name.clone(), text),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(Hitch::Problem(format!("`{}` gave no text", program.name)));
                }
            };
        }
        Ok(values)
    }

    /// What a filter says that reads no answer.
    async fn say(&self, program: &Program, about: Map<String, Value>) -> Result<Value, Hitch> {
        let call = Call { about, body: None, shape: Shape::default(), whole: None };
        let told = self.runner.run(program, call).await.map_err(Hitch::Stopped)?;
        told.said.map_err(|problem| Hitch::Problem(format!("`{}`: {problem}", program.name)))
    }

    /// The first request of a question, and what its gaps are filled with; an error says what about
    /// the job id or model forbids it.
    pub(super) async fn opening(&self, question: &Question) -> Result<(Request, Values), Hitch> {
        let values = self.values(question).await?;
        let payload = match &self.ask.body {
            None => None,
            Some((program, is_form)) => {
                let mut about = asked(question);
                about.insert("let".to_owned(), self.lets(&values));
                let body = self.say(program, about).await?;
                let payload = if *is_form { Payload::form(&body) } else { Ok(Payload::Json(body)) };
                Some(payload.map_err(|problem| format!("`{}`: {problem}", program.name))?)
            }
        };
        let gaps = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = self.ask.request.fill(&gaps)?.with_payload(payload)?;
        Ok((request, values))
    }

    /// The first request alone, waited for.
    pub(super) fn first_request(&self, question: &Question) -> Result<Request, String> {
        self.now(self.opening(question)).map(|(request, _)| request).map_err(|hitch| hitch.words().to_owned())
    }

    /// The values of `[ask.let]` as a filter sees them.
    fn lets(&self, values: &Values) -> Value {
        let lets = self.ask.lets.iter();
        lets.filter_map(|(name, _)| Some((name.clone(), values.get(name)?.clone()))).collect()
    }

    /// Reads one answer. `step` counts from 1; `kept` is what the filter wanted to see again.
    pub(super) fn read(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
        asked_at: Timestamp,
        secrets: &[&str],
    ) -> Reading {
        self.now(async {
            let values = self.values(question).await;
            self.reading(question, at, received, asked_at, secrets, values.as_ref()).await.reading
        })
    }

    /// Reads one answer that belongs to no job, as a trial of the filters.
    pub(super) async fn read_for_trial(
        &self,
        question: &Question,
        received: &Received,
    ) -> Result<Reading, Stopped> {
        let values = match self.opening(question).await {
            Ok((_, values)) => values,
            Err(Hitch::Stopped(stopped)) => return Err(stopped),
            // A model that names no job of the provider's gives no values.
            Err(Hitch::Problem(_)) => {
                self.ask.lets.iter().map(|(name, _)| (name.clone(), "trial".to_owned())).collect()
            }
        };
        let at = (1, &Value::Null);
        let now = Timestamp::from_micros(0);
        let heard = self.reading(question, at, received, now, &[], Ok(&values)).await;
        heard.stopped.map_or(Ok(heard.reading), Err)
    }

    /// The same as [`Provider::read`], of a question whose values are known.
    pub(super) async fn reading(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
        asked_at: Timestamp,
        secrets: &[&str],
        values: Result<&Values, &Hitch>,
    ) -> Heard {
        let doubt = |doubt, message: &str| {
            let mut evidence = Evidence::could_not_tell(doubt, redact::message(message, secrets), asked_at);
            evidence.answer = kept(received, secrets);
            Reading::Judged(evidence)
        };
        let heard = |reading| Heard { reading, stopped: None };
        if self.is_about_us(received.status)
            && let Some((why, message)) = judge_status(received.status)
        {
            return heard(doubt(why, &message));
        }
        let told = match values {
            Ok(values) => self.run_filter(question, at, received, values).await,
            Err(hitch) => Err(hitch.clone()),
        };
        let (told, files) = match told {
            Ok(told) => told,
            Err(hitch) => {
                let reading = doubt(Doubt::Unreadable, hitch.words());
                let stopped = match hitch {
                    Hitch::Problem(_) => None,
                    Hitch::Stopped(stopped) => Some(stopped),
                };
                return Heard { reading, stopped };
            }
        };
        let said = told
            .said
            .and_then(|said| {
                Said::deserialize(said).map_err(|error| {
                    let error = flaw::in_words(&error.to_string(), "object");
                    format!("the filter's output is not understood: {error}")
                })
            })
            .and_then(|said| self.judge(said, &files, asked_at, secrets));
        heard(match said {
            Ok(Reading::Judged(mut evidence)) => {
                evidence.answer = kept(received, secrets);
                if evidence.verdict == Verdict::CouldNotTell(Doubt::Unreadable)
                    && let Some(error) = told.not_json
                {
                    let message = evidence.message.unwrap_or_default();
                    let message = format!("{message} (the body is {error})");
                    evidence.message = Some(redact::message(message.trim(), secrets));
                }
                Reading::Judged(evidence)
            }
            Ok(next @ Reading::AskNext(_)) => next,
            Err(problem) => match told.not_json {
                Some(error) => doubt(Doubt::Unreadable, &format!("{problem} (the body is {error})")),
                None => doubt(Doubt::Unreadable, &problem),
            },
        })
    }

    /// What the filter itself says of an answer, as JSON and cleaned: for people. An error says why it says
    /// nothing.
    pub(super) async fn saying(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
        secrets: &[&str],
    ) -> Result<String, String> {
        if self.is_about_us(received.status) {
            return Err("it is not run: the status alone says enough".into());
        }
        let problem = |problem: &str| redact::message(problem, secrets);
        let values = self.values(question).await.map_err(|hitch| problem(hitch.words()))?;
        let (told, _) =
            self.run_filter(question, at, received, &values).await.map_err(|hitch| problem(hitch.words()))?;
        told.said
            .map(|said| redact::excerpt(said.to_string().as_bytes(), secrets))
            .map_err(|why| problem(&why))
    }

    /// The same, waited for.
    pub(super) fn spoken(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
        secrets: &[&str],
    ) -> Result<String, String> {
        self.now(self.saying(question, at, received, secrets))
    }

    /// Whether the status alone decides. 401 is about our key, whatever else the answer says.
    fn is_about_us(&self, status: u16) -> bool {
        (!self.ask.read_all || status == 401) && judge_status(status).is_some()
    }

    async fn run_filter(
        &self,
        question: &Question,
        (step, carried): (usize, &Value),
        received: &Received,
        values: &Values,
    ) -> Result<(Told, Files), Hitch> {
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
        let mut about = asked(question);
        for (key, value) in [
            ("status", Value::from(received.status)),
            ("headers", headers.into_iter().collect()),
            ("step", Value::from(step)),
            ("kept", carried.clone()),
            ("let", self.lets(values)),
        ] {
            about.insert(key.to_owned(), value);
        }
        let (body, files) = received.opened(self.ask.answer);
        let call = Call { about, body: Some(body), shape: self.ask.answer, whole: files.whole.clone() };
        let told = self.runner.run(&self.ask.read, call).await.map_err(Hitch::Stopped)?;
        Ok((told, files))
    }

    fn judge(
        &self,
        said: Said,
        files: &Files,
        asked_at: Timestamp,
        secrets: &[&str],
    ) -> Result<Reading, String> {
        let verdict = match said.verdict.as_str() {
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
                let next = said.next_step()?;
                return self
                    .ask
                    .request
                    .next_step(next)
                    .map(Reading::AskNext)
                    .map_err(|problem| format!("the further step cannot be asked for: {problem}"));
            }
            other => return Err(format!("the filter gave a verdict that does not exist: `{other}`")),
        };
        if said.says_next_step() {
            return Err(
                "the filter gave `request`, `body`, `form`, `headers`, `auth` or `keep` beside a verdict"
                    .into(),
            );
        }
        if said.outputs_gone && verdict != Verdict::Succeeded {
            return Err("the filter says `outputs_gone` of a job that did not succeed".into());
        }
        // A list that is missing or null must not be read as empty: that would refund.
        if said.outputs.is_none() && verdict == Verdict::Succeeded && !said.outputs_gone {
            return Err(
                "the filter says `succeeded` and gives no list of `outputs`; without any it must say \
                        `outputs: []`"
                    .into(),
            );
        }
        let outputs = said.outputs.unwrap_or_default();
        if outputs.len() > OUTPUTS {
            return Err(format!("the answer names more than {OUTPUTS} outputs"));
        }
        let outputs = outputs
            .into_iter()
            .map(|output| output.offer(self, files, secrets))
            .collect::<Result<Vec<_>, _>>()?;
        let mut indices: Vec<i64> = outputs.iter().filter_map(|offer| offer.index).collect();
        indices.sort_unstable();
        if let Some([twice, _]) = indices.array_windows().find(|[one, next]| one == next) {
            return Err(format!("the answer names output {twice} twice"));
        }
        Ok(Reading::Judged(Evidence {
            verdict,
            class: said.class,
            code: said.code.map(|code| redact::message(&code.text(), secrets)),
            message: said.message.map(|message| redact::message(&message, secrets)),
            outputs,
            outputs_gone: said.outputs_gone,
            asked_at,
            answer: Answer::default(),
        }))
    }
}

/// What a filter is told of the question.
fn asked(question: &Question) -> Map<String, Value> {
    Map::from_iter([
        ("job".to_owned(), Value::from(question.job_id.as_str())),
        ("model".to_owned(), Value::from(question.model.as_str())),
        ("items".to_owned(), Value::from(question.items)),
    ])
}

/// What of an answer is kept for support. The caller adds the request.
fn kept(received: &Received, secrets: &[&str]) -> Answer {
    Answer {
        request: None,
        status: Some(received.status),
        excerpt: Some(redact::excerpt(&received.body, secrets)),
    }
}

/// What a status says about us and the way there, rather than about the job.
fn judge_status(status: u16) -> Option<(Doubt, String)> {
    match status {
        401 | 403 => Some((Doubt::Unauthorized, format!("HTTP {status}: the provider refused the key"))),
        429 => Some((Doubt::RateLimited, "HTTP 429: asked too often".into())),
        300..=399 => {
            Some((Doubt::Unreadable, format!("HTTP {status}: a redirect, which is not followed when asking")))
        }
        500..=599 => Some((Doubt::Unreachable, format!("HTTP {status}: the provider is in trouble"))),
        _ => None,
    }
}

/// What stands for a body that is no JSON.
pub(super) fn blob(length: usize, sha256: &str) -> Val {
    object([("bytes", Val::from(length)), ("sha256", string(sha256))])
}

pub(super) fn string(text: &str) -> Val {
    Val::from(text.to_owned())
}

fn object<const N: usize>(entries: [(&str, Val); N]) -> Val {
    Val::obj(entries.into_iter().map(|(key, value)| (string(key), value)).collect())
}

/// A provider with this filter.
#[cfg(test)]
pub(super) fn provider_reading(filter: &str, read_all: bool) -> Provider {
    let text = format!(
        "[provider]\nname = \"acme\"\noutput_hosts = [\"cdn.acme.example\"]\n[ask]\nrequest = \"GET https://acme.example/{{job}}\"\n\
         read_all = {read_all}\nread = '''{filter}'''"
    );
    super::file::read_untried(&text).unwrap()
}

#[cfg(test)]
mod tests;
