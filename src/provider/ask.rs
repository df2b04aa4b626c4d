//! Questions over HTTP: one question is one request or a few (`max_requests`), each tried again
//! where that may help.
//!
//! Promise: an answer's size and the time it may take are bounded, redirects are not followed, the key
//! goes only where the provider's file says, and every outcome is evidence. Questions only read, whatever
//! their method, so that asking again is harmless, and a crash halfway leaves nothing behind.
//! Left to others: `manners` says when; `reading` says what an answer means.

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::file::Provider;
use super::intake::Intake;
use super::manners::{self, Found};
use super::outgoing::{Caller, Outgoing};
use super::reading::{Hitch, Reading, Received, Values};
use super::redact;
use super::request::{Key, Request};
use super::stats::Outcome;
use super::trace::Step;
use super::turns::Turn;
use super::{Asked, Question};
use crate::clock::{Clock, Timestamp};
use crate::evidence::{Doubt, Evidence, Verdict};
use crate::http::{self, Client};

/// An answer takes none of the memory that is given out until it is longer than this.
pub const FREE_BYTES: u64 = 256 << 10;

/// Gives out memory to the answer of one question: for what was decoded out of it, for the rest
/// while a filter reads it, and for copying its files.
pub trait Memory: fmt::Debug + Send + Sync {
    /// Takes so many bytes, instead of what it has; false if they are not free now.
    fn take(&self, bytes: u64) -> bool;

    /// Gives back what it has and waits for so many bytes. False: there will be none.
    fn wait_for(&self, bytes: u64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// A request that brought no whole answer.
struct Trouble {
    /// It was let go for want of so much memory.
    wants: Option<u64>,
    doubt: Doubt,
    message: String,
    /// Whether sending it again may help.
    again: bool,
    status: Option<u16>,
}

/// One question under way.
struct Asking<'a> {
    provider: &'a Provider,
    client: &'a Client,
    question: &'a Question,
    values: &'a Values,
    clock: &'a Clock,
    /// For the first request; each further one waits for its own.
    turn: Option<Turn<'a>>,
    /// How long the provider asked to be left alone, if longer than the question could wait.
    leave_alone: Option<Duration>,
    /// The filter had to be stopped.
    is_stopped: bool,
    /// Every request sent, where somebody wants to know.
    trace: Option<&'a mut Vec<Step>>,
    /// For what is longer than [`FREE_BYTES`]; none: as much as it takes.
    memory: Option<&'a dyn Memory>,
}

impl Provider {
    /// Asks for one job, through all its steps.
    pub(super) async fn question(
        &self,
        question: &Question,
        clock: &Clock,
        trace: Option<&mut Vec<Step>>,
        memory: Option<&dyn Memory>,
    ) -> Asked {
        let doubt =
            |doubt, message: &str| Asked::Answered(Evidence::could_not_tell(doubt, message, clock.now()));
        if let Err(retry_in) = self.manners.admits(question.urgent) {
            self.stats.count(Outcome::NotAsked, None);
            return Asked::NotAsked { retry_in };
        }
        let (request, values) = match self.opening(question).await {
            Ok(opened) => opened,
            Err(hitch) => {
                if matches!(hitch, Hitch::Stopped(_)) {
                    self.manners.filter_stopped();
                }
                let message = format!("the job cannot be asked for: {}", hitch.words());
                return doubt(Doubt::Unreadable, &redact::message(&message, &[]));
            }
        };
        let client = match self.client() {
            Ok(client) => client,
            Err(message) => return doubt(Doubt::Unreachable, &message),
        };
        let (admission, turn) = match self.manners.begin(question.urgent).await {
            Ok(begun) => begun,
            Err(retry_in) => {
                self.stats.count(Outcome::NotAsked, None);
                return Asked::NotAsked { retry_in };
            }
        };
        let mut asking = Asking {
            provider: self,
            client,
            question,
            values: &values,
            clock,
            turn: Some(turn),
            leave_alone: None,
            is_stopped: false,
            trace,
            memory,
        };
        let evidence = asking.ask(request).await;
        let asked = evidence.answer.request.is_some();
        let unreachable = evidence.verdict == Verdict::CouldNotTell(Doubt::Unreachable);
        let found = match asking.leave_alone {
            Some(wait) => Found::Nobody { wait },
            None if asking.is_stopped => Found::Endless,
            None if unreachable => Found::Nobody { wait: Duration::ZERO },
            None => Found::Somebody,
        };
        // Noted first: whoever is told that the circuit has opened reads why.
        self.last.note(&evidence);
        admission.settle(asked.then_some(found));
        if evidence.verdict == Verdict::CouldNotTell(Doubt::Unauthorized) {
            let message = evidence.message.as_deref().unwrap_or_default();
            tracing::error!(provider = self.name, message, "the provider refused our key, or it is missing");
        }
        Asked::Answered(evidence)
    }
}

impl Asking<'_> {
    /// All steps of the question, beginning with `request`.
    async fn ask(&mut self, mut request: Request) -> Evidence {
        let provider = self.provider;
        let mut renewed = false;
        let mut step = 1;
        while step <= provider.ask.max_requests {
            let mut out = Outgoing::new(&request, &provider.ask.headers);
            let auth = match request.key {
                Key::Ask => provider.auth.as_ref(),
                Key::Download => provider.download_auth(),
                Key::None => None,
            };
            let applied = match auth {
                None => None,
                Some(auth) => match auth.apply(&provider.caller(self.clock.now()), &mut out).await {
                    Ok(applied) => Some((auth, applied)),
                    Err(error) => {
                        provider.stats.count(Outcome::Unauthorized, None);
                        let message = error.to_string();
                        return Evidence::could_not_tell(Doubt::Unauthorized, message, self.clock.now());
                    }
                },
            };
            let secrets = applied.as_ref().map(|(_, applied)| applied.words()).unwrap_or_default();
            match self.step(step, &request, &out, &secrets).await {
                Reading::Judged(mut evidence) => {
                    // A key that a command gave may have run out before its time: once, it is asked for another.
                    if let Some((auth, applied)) = &applied
                        && evidence.verdict == Verdict::CouldNotTell(Doubt::Unauthorized)
                        && !renewed
                        && auth.refused(applied).await
                    {
                        renewed = true;
                        continue;
                    }
                    evidence.answer.request = Some(redact::clean(&request.to_string(), &secrets));
                    return evidence;
                }
                Reading::AskNext(next) => {
                    request = next;
                    step += 1;
                }
            }
        }
        let message = provider.asks_too_often();
        let mut evidence = Evidence::could_not_tell(Doubt::Unreadable, message, self.clock.now());
        evidence.answer.request = Some(redact::clean(&request.to_string(), &[]));
        evidence
    }

    /// One request and what its answer means, tried again where that may help.
    async fn step(&mut self, step: usize, request: &Request, out: &Outgoing, secrets: &[&str]) -> Reading {
        let provider = self.provider;
        let mut tries = 0;
        // What the answer has been given since it was let go for want of it.
        let mut given = FREE_BYTES;
        loop {
            let turn = match self.turn.take() {
                Some(turn) => turn,
                None => provider.manners.turn().await,
            };
            let began = Instant::now();
            let received = provider.exchange(self.client, out, (self.memory, given)).await;
            let took = began.elapsed();
            drop(turn);
            // Neither a connection nor a place is held meanwhile.
            if let (Err(Trouble { wants: Some(bytes), .. }), Some(memory)) = (&received, self.memory)
                && memory.wait_for(*bytes).await
            {
                given = *bytes;
                continue;
            }

            let now = self.clock.now();
            self.note(step, (request, out), &received, secrets).await;
            let (reading, again, wait) = match &received {
                Ok(received) => {
                    let at = (step, &request.kept);
                    let heard =
                        provider.reading(self.question, at, received, now, secrets, Ok(self.values)).await;
                    self.is_stopped |= heard.stopped.is_some();
                    let again = matches!(received.status, 429 | 502 | 503 | 504);
                    (heard.reading, again, manners::retry_after(&received.headers, now))
                }
                Err(trouble) => {
                    let message = redact::message(&trouble.message, secrets);
                    let mut evidence = Evidence::could_not_tell(trouble.doubt, message, now);
                    evidence.answer.status = trouble.status;
                    (Reading::Judged(evidence), trouble.again, None)
                }
            };
            let outcome = outcome(&reading);
            provider.stats.count(outcome, Some(took));
            // A provider's own verdict on the job is final, whatever status it came with.
            let (nobody, too_often) = (outcome == Outcome::Unreachable, outcome == Outcome::RateLimited);
            if !(nobody || too_often) {
                return reading;
            }
            self.leave_alone = wait.filter(|wait| manners::too_long(*wait));
            let again = (again || too_often) && tries < provider.limits.retries;
            if !again || provider.manners.circuit_open() {
                return reading;
            }
            let Some(wait) = manners::backoff(tries, wait) else { return reading };
            tries += 1;
            tokio::time::sleep(wait).await;
        }
    }
}

impl Asking<'_> {
    /// For whoever follows the question.
    async fn note(
        &mut self,
        step: usize,
        (request, out): (&Request, &Outgoing),
        received: &Result<Received, Trouble>,
        secrets: &[&str],
    ) {
        let Some(trace) = &mut self.trace else { return };
        let sent = request.shown_at(&out.url, secrets);
        trace.push(match received {
            Ok(received) => Step {
                request: sent,
                status: Some(received.status),
                body_bytes: received.body_bytes(),
                said: self.provider.saying(self.question, (step, &request.kept), received, secrets).await,
            },
            Err(trouble) => Step {
                request: sent,
                status: trouble.status,
                body_bytes: 0,
                said: Err(redact::message(&trouble.message, secrets)),
            },
        });
    }
}

impl Provider {
    /// Why no further request is sent.
    pub(super) fn asks_too_often(&self) -> String {
        let most = self.ask.max_requests;
        format!("after {most} requests, which is `ask.max_requests`, the filter still asks for another")
    }

    /// Sends one request and reads its answer up to the limit, with so much memory given already.
    async fn exchange(
        &self,
        client: &Client,
        out: &Outgoing,
        (memory, given): (Option<&dyn Memory>, u64),
    ) -> Result<Received, Trouble> {
        let broken = |error: http::Error, status| {
            // Broken compression is the answer's own fault; everything else happened on the way.
            let unreadable = error.is_decompress();
            Trouble {
                wants: None,
                doubt: if unreadable { Doubt::Unreadable } else { Doubt::Unreachable },
                // One that hangs has had its time: asking again at once would only hold a place.
                again: !(unreadable || error.is_timeout() || matches!(error, http::Error::Flood)),
                message: self.describe(&error),
                status,
            }
        };
        let mut response = out.send(client).await.map_err(|error| broken(error, None))?;
        let status = response.status().as_u16();
        let refused = |wants, message| Trouble {
            wants,
            doubt: Doubt::Unreadable,
            message,
            again: false,
            status: Some(status),
        };
        let too_big = || refused(None, format!("body over {} bytes", self.max_body_bytes));
        let take = |bytes: u64| {
            if memory.is_none_or(|memory| memory.take(bytes)) {
                return Ok(bytes);
            }
            let needed = format!("its answer needs {} MiB of memory, which are not free now", bytes >> 20);
            Err(refused(Some(bytes), needed))
        };
        let length = response.content_length();
        if length.is_some_and(|length| length > self.max_body_bytes as u64) {
            return Err(too_big());
        }
        let mut taken = match length {
            Some(length) if length > FREE_BYTES => take(Intake::expected_cost(length))?,
            // Given back before its end is known, it would have to be waited for again.
            Some(_) | None => given,
        };
        let mut intake = Intake::new(self.ask.answer);
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(error, Some(status)))? {
            if intake.received() + chunk.len() > self.max_body_bytes {
                return Err(too_big());
            }
            intake.push(&chunk);
            if let Some(refusal) = intake.refusal() {
                return Err(refused(None, refusal));
            }
            let cost = intake.cost();
            if cost > taken {
                // Twice as much, so that an answer that is let go is asked for a few times at most.
                taken = take(cost.saturating_mul(2))?;
            }
        }
        if taken > FREE_BYTES
            && let Some(memory) = memory
        {
            // Less than it has.
            memory.take(intake.cost());
        }
        let (body, files) = intake.finish();
        Ok(Received { status, headers: std::mem::take(response.headers_mut()), body, files: Some(files) })
    }

    /// What went wrong, in words, with its causes and without the URL.
    fn describe(&self, error: &http::Error) -> String {
        if error.is_timeout() {
            return if error.is_connect() {
                format!("no connection within {:?}", self.connect_timeout)
            } else if self.read_timeout < self.timeout {
                format!("no whole answer within {:?}, or nothing for {:?}", self.timeout, self.read_timeout)
            } else {
                format!("no whole answer within {:?}", self.timeout)
            };
        }
        let what = match error {
            http::Error::Body(_) | http::Error::Request(_) => "the exchange broke off".to_owned(),
            http::Error::Connect(_) if self.proxy.is_some() => {
                "could not connect through `network.proxy`".to_owned()
            }
            error => error.to_string(),
        };
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        // The last cause is the one that says something (“connection refused”).
        causes.pop().map_or_else(|| what.clone(), |last| format!("{what}: {last}"))
    }

    /// Who asks for keys now.
    pub(super) fn caller(&self, now: Timestamp) -> Caller<'_> {
        Caller { provider: &self.name, now, client: self.client() }
    }

    /// The client of this provider alone, so that no connection or limit is shared with others.
    fn client(&self) -> Result<&Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(http::Options {
            connect_timeout: self.connect_timeout,
            read_timeout: Some(self.read_timeout),
            timeout: Some(self.timeout),
            proxy: self.proxy.clone(),
            resolver: None,
        })
        .map_err(|error| {
            format!(
                "no HTTPS client could be made (are CA certificates installed?): {}",
                self.describe(&error)
            )
        })?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// How the metrics count a reading.
fn outcome(reading: &Reading) -> Outcome {
    let verdict = match reading {
        Reading::AskNext(_) => return Outcome::Answered,
        Reading::Judged(evidence) => evidence.verdict,
    };
    match verdict {
        Verdict::Queued
        | Verdict::Running
        | Verdict::Succeeded
        | Verdict::Failed
        | Verdict::Cancelled
        | Verdict::UnknownJob => Outcome::Answered,
        Verdict::CouldNotTell(Doubt::Unreachable) => Outcome::Unreachable,
        Verdict::CouldNotTell(Doubt::RateLimited) => Outcome::RateLimited,
        Verdict::CouldNotTell(Doubt::Unauthorized) => Outcome::Unauthorized,
        // No reading is about a provider without a file.
        Verdict::CouldNotTell(Doubt::Unreadable | Doubt::UnknownProvider) => Outcome::Unreadable,
    }
}
