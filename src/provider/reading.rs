//! Answers as evidence: what the HTTP status says by itself, then what the filter says, checked.
//!
//! Promise: whatever arrives, a value comes out. What no rule can read is [`Doubt::Unreadable`] and never
//! a failure of the job; a status word that no filter knows likewise. Pure: no network, no clock.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use jaq_json::Val;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Question;
use super::answer::Unread;
use super::file::Provider;
use super::flaw;
use super::json;
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
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// It says how the job stands, or that this cannot be told.
    Judged(Evidence),
    /// Another request decides.
    AskNext(Request),
}

impl Provider {
    /// What the gaps of the request are filled with.
    fn values(&self, question: &Question) -> Result<BTreeMap<String, String>, String> {
        let mut values = BTreeMap::from([
            ("job".to_owned(), question.job_id.clone()),
            ("model".to_owned(), question.model.clone()),
        ]);
        for (name, filter) in &self.ask.lets {
            let input = Val::obj(asked(question).collect());
            match filter.first(input).map_err(|problem| format!("`ask.let.{name}`: {problem}"))? {
                Val::TStr(text) => {
                    let text = String::from_utf8(text.to_vec())
                        .map_err(|_| format!("`ask.let.{name}` gave text that is not UTF-8"))?;
                    values.insert(name.clone(), text);
                }
                Val::Null | Val::Bool(_) | Val::Num(_) | Val::BStr(_) | Val::Arr(_) | Val::Obj(_) => {
                    return Err(format!("`ask.let.{name}` gave no text"));
                }
            }
        }
        Ok(values)
    }

    /// The first request of a question; an error says what about the job id or model forbids it.
    pub(super) fn first_request(&self, question: &Question) -> Result<Request, String> {
        let values = self.values(question)?;
        let payload = match &self.ask.body {
            None => None,
            Some((filter, is_form)) => {
                let input = asked(question).chain([(string("let"), self.lets(&values))]);
                let body = filter.first(Val::obj(input.collect())).and_then(|body| json::to_json(&body));
                let payload = body
                    .and_then(|body| if *is_form { Payload::form(&body) } else { Ok(Payload::Json(body)) });
                let key = if *is_form { "form" } else { "body" };
                Some(payload.map_err(|problem| format!("`ask.{key}`: {problem}"))?)
            }
        };
        let values = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.ask.request.fill(&values)?.with_payload(payload)
    }

    /// The values of `[ask.let]` as a filter sees them.
    fn lets(&self, values: &BTreeMap<String, String>) -> Val {
        let lets = self.ask.lets.iter();
        Val::obj(lets.filter_map(|(name, _)| Some((string(name), string(values.get(name)?)))).collect())
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
        self.read_with(question, at, received, asked_at, secrets, self.values(question))
    }

    /// Reads one answer that belongs to no job, as a trial of the filter.
    pub(super) fn read_for_trial(&self, question: &Question, received: &Received) -> Reading {
        // A model that names no job of the provider's gives no values.
        let values = self.values(question).unwrap_or_else(|_| {
            self.ask.lets.iter().map(|(name, _)| (name.clone(), "trial".to_owned())).collect()
        });
        self.read_with(question, (1, &Value::Null), received, Timestamp::from_micros(0), &[], Ok(values))
    }

    fn read_with(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
        asked_at: Timestamp,
        secrets: &[&str],
        values: Result<BTreeMap<String, String>, String>,
    ) -> Reading {
        let doubt = |doubt, message: &str| {
            let mut evidence = Evidence::could_not_tell(doubt, redact::message(message, secrets), asked_at);
            evidence.answer = kept(received, secrets);
            Reading::Judged(evidence)
        };
        if self.is_about_us(received.status)
            && let Some((why, message)) = judge_status(received.status)
        {
            return doubt(why, &message);
        }
        let (body, no_json) = match self.ask.answer.parse(&received.body) {
            Ok(body) => (body, None),
            // Not even as a file: it is no answer that anybody would send.
            Err(Unread::TooMany(error)) => {
                return doubt(Doubt::Unreadable, &format!("the body is {error}"));
            }
            Err(Unread::Other(error)) => (blob(&received.body), Some(error)),
        };
        let said = values
            .and_then(|values| self.run_filter(question, at, received, body, &values))
            .and_then(|said| {
                Said::deserialize(said).map_err(|error| {
                    let error = flaw::in_words(&error.to_string(), "object");
                    format!("the filter's output is not understood: {error}")
                })
            })
            .and_then(|said| self.judge(said, asked_at, secrets));
        match said {
            Ok(Reading::Judged(mut evidence)) => {
                evidence.answer = kept(received, secrets);
                if evidence.verdict == Verdict::CouldNotTell(Doubt::Unreadable)
                    && let Some(error) = no_json
                {
                    let message = evidence.message.unwrap_or_default();
                    let message = format!("{message} (the body is {error})");
                    evidence.message = Some(redact::message(message.trim(), secrets));
                }
                Reading::Judged(evidence)
            }
            Ok(next @ Reading::AskNext(_)) => next,
            Err(problem) => match no_json {
                Some(error) => doubt(Doubt::Unreadable, &format!("{problem} (the body is {error})")),
                None => doubt(Doubt::Unreadable, &problem),
            },
        }
    }

    /// What the filter itself says of an answer, as JSON and cleaned: for people. An error says why it says
    /// nothing.
    pub(super) fn spoken(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
        secrets: &[&str],
    ) -> Result<String, String> {
        if self.is_about_us(received.status) {
            return Err("it is not run: the status alone says enough".into());
        }
        let body = match self.ask.answer.parse(&received.body) {
            Ok(body) => body,
            Err(Unread::TooMany(error)) => return Err(format!("it is not run: the body is {error}")),
            Err(Unread::Other(_)) => blob(&received.body),
        };
        let values = self.values(question).map_err(|problem| redact::message(&problem, secrets))?;
        let said = self.run_filter(question, at, received, body, &values);
        said.map(|said| redact::excerpt(said.to_string().as_bytes(), secrets))
            .map_err(|problem| redact::message(&problem, secrets))
    }

    /// Whether the status alone decides. 401 is about our key, whatever else the answer says.
    fn is_about_us(&self, status: u16) -> bool {
        (!self.ask.read_all || status == 401) && judge_status(status).is_some()
    }

    fn run_filter(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
        body: Val,
        values: &BTreeMap<String, String>,
    ) -> Result<Value, String> {
        let input = self.filter_input(question, at, received, body, values)?;
        self.ask.read.first(input).and_then(|output| json::to_json(&output))
    }

    fn filter_input(
        &self,
        question: &Question,
        (step, carried): (usize, &Value),
        received: &Received,
        body: Val,
        values: &BTreeMap<String, String>,
    ) -> Result<Val, String> {
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
        let headers = Val::obj(headers.iter().map(|(name, value)| (string(name), string(value))).collect());
        let carried = Val::deserialize(carried).map_err(|error| format!("what was kept is lost: {error}"))?;
        let answer = [
            ("status", Val::from(usize::from(received.status))),
            ("headers", headers),
            ("body", body),
            ("step", Val::from(step)),
            ("kept", carried),
            ("let", self.lets(values)),
        ];
        let answer = answer.into_iter().map(|(key, value)| (string(key), value));
        Ok(Val::obj(asked(question).chain(answer).collect()))
    }

    fn judge(&self, said: Said, asked_at: Timestamp, secrets: &[&str]) -> Result<Reading, String> {
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
        let outputs =
            outputs.into_iter().map(|output| output.offer(self, secrets)).collect::<Result<Vec<_>, _>>()?;
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
fn asked(question: &Question) -> impl Iterator<Item = (Val, Val)> {
    [
        (string("job"), string(&question.job_id)),
        (string("model"), string(&question.model)),
        (string("items"), Val::from(question.items)),
    ]
    .into_iter()
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
fn blob(body: &[u8]) -> Val {
    let hash = Sha256::digest(body).iter().fold(String::new(), |mut hash, byte| {
        // Writing into a string cannot fail.
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    object([("bytes", Val::from(body.len())), ("sha256", string(&hash))])
}

fn string(text: &str) -> Val {
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
