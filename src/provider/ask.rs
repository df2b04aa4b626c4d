//! Sends the requests of one question over HTTP: one request or a few (`max_requests`), each with
//! retries.
//!
//! The size and the duration of an answer are limited, redirects are not followed, and the key goes
//! only to the hosts that the provider file permits. Every outcome becomes evidence. Questions are
//! read-only and idempotent whatever their HTTP method, so repeating one is safe, and a crash
//! halfway leaves nothing behind. `admission` decides when a question may be asked; `reading`
//! interprets the answer.

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::body_decoder::BodyDecoder;
use super::circuit::CircuitEvent;
use super::file::Provider;
use super::limiter::RequestPermit;
use super::outgoing::{AuthContext, OutgoingRequest};
use super::reading::{HttpAnswer, QuestionError, Reading, Values};
use super::redact;
use super::request::{AuthChoice, Request};
use super::retry;
use super::stats::RequestOutcome;
use super::trace::TraceStep;
use super::{AskOutcome, Question};
use crate::clock::{Clock, Timestamp};
use crate::evidence::{Doubt, Evidence, Verdict};
use crate::http::{self, Client};

/// An answer must reserve memory only if it is longer than this.
pub const UNBUDGETED_BYTES: u64 = 256 << 10;

/// The memory reservation of one answer: for the files decoded from it, for its text while a filter
/// reads it, and for copying its files.
pub trait AnswerMemory: fmt::Debug + Send + Sync {
    /// Changes the reservation to this many bytes. Returns false if they are not available now.
    fn take(&self, bytes: u64) -> bool;

    /// Releases the reservation and waits for this many bytes. Returns false if they will never be
    /// available.
    fn wait_for(&self, bytes: u64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// A request without a complete answer.
struct RequestFailure {
    /// The answer was aborted because this much memory was not available.
    needs_memory: Option<u64>,
    doubt: Doubt,
    message: String,
    is_retryable: bool,
    status: Option<u16>,
}

/// One question in progress.
struct QuestionRun<'a> {
    provider: &'a Provider,
    client: &'a Client,
    question: &'a Question,
    values: &'a Values,
    clock: &'a Clock,
    /// The permit of the first request. Each further request waits for its own.
    permit: Option<RequestPermit<'a>>,
    /// The wait that the provider requested, if it is longer than a question may take.
    requested_wait: Option<Duration>,
    /// The filter had to be stopped.
    is_filter_stopped: bool,
    /// Collects every request that is sent.
    trace: Option<&'a mut Vec<TraceStep>>,
    /// Reserves memory for an answer longer than [`UNBUDGETED_BYTES`]. `None`: unlimited.
    memory: Option<&'a dyn AnswerMemory>,
}

impl Provider {
    /// Asks about one job, with all the requests that this takes.
    pub(super) async fn question(
        &self,
        question: &Question,
        clock: &Clock,
        trace: Option<&mut Vec<TraceStep>>,
        memory: Option<&dyn AnswerMemory>,
    ) -> AskOutcome {
        let doubt = |doubt, message: &str| {
            AskOutcome::Answered(Evidence::could_not_tell(doubt, message, clock.now()))
        };
        if let Err(retry_in) = self.admission.check(question.urgent) {
            self.stats.count(RequestOutcome::NotAsked, None);
            return AskOutcome::NotAsked { retry_in };
        }
        let (request, values) = match self.prepare(question).await {
            Ok(prepared) => prepared,
            Err(error) => {
                if matches!(error, QuestionError::Stopped(_)) {
                    self.admission.record_stopped_filter();
                }
                let message = format!("the job cannot be asked for: {}", error.message());
                return doubt(Doubt::Unreadable, &redact::message(&message, &[]));
            }
        };
        let client = match self.client() {
            Ok(client) => client,
            Err(message) => return doubt(Doubt::Unreachable, &message),
        };
        let (admission, permit) = match self.admission.admit(question.urgent).await {
            Ok(admitted) => admitted,
            Err(retry_in) => {
                self.stats.count(RequestOutcome::NotAsked, None);
                return AskOutcome::NotAsked { retry_in };
            }
        };
        let mut run = QuestionRun {
            provider: self,
            client,
            question,
            values: &values,
            clock,
            permit: Some(permit),
            requested_wait: None,
            is_filter_stopped: false,
            trace,
            memory,
        };
        let evidence = run.ask(request).await;
        let is_sent = evidence.answer.request.is_some();
        let is_unreachable = evidence.verdict == Verdict::CouldNotTell(Doubt::Unreachable);
        let event = match run.requested_wait {
            Some(wait) => CircuitEvent::Unreachable { wait },
            None if run.is_filter_stopped => CircuitEvent::FilterStopped,
            None if is_unreachable => CircuitEvent::Unreachable { wait: Duration::ZERO },
            None => CircuitEvent::Answered,
        };
        // Before the circuit changes: a listener for this change reads the reason from here.
        self.last.record(&evidence);
        admission.record(is_sent.then_some(event));
        if evidence.verdict == Verdict::CouldNotTell(Doubt::Unauthorized) {
            let message = evidence.message.as_deref().unwrap_or_default();
            tracing::error!(
                provider = self.name,
                message,
                "the provider rejected the key, or the key is missing"
            );
        }
        AskOutcome::Answered(evidence)
    }
}

impl QuestionRun<'_> {
    /// Sends `request` and all further requests that the filter asks for.
    async fn ask(&mut self, mut request: Request) -> Evidence {
        let provider = self.provider;
        let mut renewed = false;
        let mut step = 1;
        while step <= provider.ask.max_requests {
            let mut out = OutgoingRequest::new(&request, &provider.ask.headers);
            let auth = match request.key {
                AuthChoice::Ask => provider.auth.as_ref(),
                AuthChoice::Download => provider.download_auth(),
                AuthChoice::None => None,
            };
            let applied = match auth {
                None => None,
                Some(auth) => match auth.apply(&provider.auth_context(self.clock.now()), &mut out).await {
                    Ok(applied) => Some((auth, applied)),
                    Err(error) => {
                        provider.stats.count(RequestOutcome::Unauthorized, None);
                        let message = error.to_string();
                        return Evidence::could_not_tell(Doubt::Unauthorized, message, self.clock.now());
                    }
                },
            };
            let secrets = applied.as_ref().map(|(_, applied)| applied.secrets()).unwrap_or_default();
            match self.step(step, &request, &out, &secrets).await {
                Reading::Judged(mut evidence) => {
                    // A key from a command or token endpoint may expire early. Try once with a new
                    // one.
                    if let Some((auth, applied)) = &applied
                        && evidence.verdict == Verdict::CouldNotTell(Doubt::Unauthorized)
                        && !renewed
                        && auth.rejected(applied).await
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
        let message = provider.too_many_requests();
        let mut evidence = Evidence::could_not_tell(Doubt::Unreadable, message, self.clock.now());
        evidence.answer.request = Some(redact::clean(&request.to_string(), &[]));
        evidence
    }

    /// Sends one request, with retries, and reads its answer.
    async fn step(
        &mut self,
        step: usize,
        request: &Request,
        out: &OutgoingRequest,
        secrets: &[&str],
    ) -> Reading {
        let provider = self.provider;
        let mut tries = 0;
        // The memory that is reserved for the answer. It grows after an answer was aborted for lack
        // of memory.
        let mut reserved = UNBUDGETED_BYTES;
        loop {
            let permit = match self.permit.take() {
                Some(permit) => permit,
                None => provider.admission.permit().await,
            };
            let began = Instant::now();
            let received = provider.exchange(self.client, out, (self.memory, reserved)).await;
            let took = began.elapsed();
            drop(permit);
            // No connection and no slot is held during this wait.
            if let (Err(RequestFailure { needs_memory: Some(bytes), .. }), Some(memory)) =
                (&received, self.memory)
                && memory.wait_for(*bytes).await
            {
                reserved = *bytes;
                continue;
            }

            let now = self.clock.now();
            self.add_to_trace(step, (request, out), &received, secrets).await;
            let (reading, is_retryable, wait) = match &received {
                Ok(received) => {
                    let at = (step, &request.kept);
                    let result =
                        provider.reading(self.question, at, received, now, secrets, Ok(self.values)).await;
                    self.is_filter_stopped |= result.stopped.is_some();
                    let is_retryable = matches!(received.status, 429 | 502 | 503 | 504);
                    (result.reading, is_retryable, retry::retry_after(&received.headers, now))
                }
                Err(failure) => {
                    let message = redact::message(&failure.message, secrets);
                    let mut evidence = Evidence::could_not_tell(failure.doubt, message, now);
                    evidence.answer.status = failure.status;
                    (Reading::Judged(evidence), failure.is_retryable, None)
                }
            };
            let outcome = outcome(&reading);
            provider.stats.count(outcome, Some(took));
            // A verdict of the provider about the job is final, whatever HTTP status came with it.
            let is_unreachable = outcome == RequestOutcome::Unreachable;
            let is_rate_limited = outcome == RequestOutcome::RateLimited;
            if !(is_unreachable || is_rate_limited) {
                return reading;
            }
            self.requested_wait = wait.filter(|wait| retry::exceeds_max_wait(*wait));
            let is_retried = (is_retryable || is_rate_limited) && tries < provider.limits.retries;
            if !is_retried || provider.admission.is_circuit_open() {
                return reading;
            }
            let Some(wait) = retry::backoff(tries, wait) else { return reading };
            tries += 1;
            tokio::time::sleep(wait).await;
        }
    }
}

impl QuestionRun<'_> {
    /// Adds a request and its answer to the trace, if there is one.
    async fn add_to_trace(
        &mut self,
        step: usize,
        (request, out): (&Request, &OutgoingRequest),
        received: &Result<HttpAnswer, RequestFailure>,
        secrets: &[&str],
    ) {
        let Some(trace) = &mut self.trace else { return };
        let sent = request.display_as_sent(&out.url, secrets);
        trace.push(match received {
            Ok(received) => TraceStep {
                request: sent,
                status: Some(received.status),
                body_bytes: received.body_bytes(),
                filter_output: self
                    .provider
                    .filter_output(self.question, (step, &request.kept), received, secrets)
                    .await,
            },
            Err(failure) => TraceStep {
                request: sent,
                status: failure.status,
                body_bytes: 0,
                filter_output: Err(redact::message(&failure.message, secrets)),
            },
        });
    }
}

impl Provider {
    /// The message for a filter that asks for more than `ask.max_requests` requests.
    pub(super) fn too_many_requests(&self) -> String {
        let most = self.ask.max_requests;
        format!("after {most} requests, which is `ask.max_requests`, the filter still asks for another")
    }

    /// Sends one request and reads its answer up to the size limit. `reserved`: the memory that is
    /// reserved already.
    async fn exchange(
        &self,
        client: &Client,
        out: &OutgoingRequest,
        (memory, reserved): (Option<&dyn AnswerMemory>, u64),
    ) -> Result<HttpAnswer, RequestFailure> {
        let failed = |error: http::Error, status| {
            // Invalid compression is a fault of the answer. Everything else is a transport error.
            let is_unreadable = error.is_decompress();
            RequestFailure {
                needs_memory: None,
                doubt: if is_unreadable { Doubt::Unreadable } else { Doubt::Unreachable },
                // Not after a timeout: the next attempt would probably occupy the slot as long.
                is_retryable: !(is_unreadable || error.is_timeout() || matches!(error, http::Error::Flood)),
                message: self.describe(&error),
                status,
            }
        };
        let mut response = out.send(client).await.map_err(|error| failed(error, None))?;
        let status = response.status().as_u16();
        let aborted = |needs_memory, message| RequestFailure {
            needs_memory,
            doubt: Doubt::Unreadable,
            message,
            is_retryable: false,
            status: Some(status),
        };
        let too_long = || aborted(None, format!("the body is longer than {} bytes", self.max_body_bytes));
        let reserve = |bytes: u64| {
            if memory.is_none_or(|memory| memory.take(bytes)) {
                return Ok(bytes);
            }
            let message =
                format!("the answer needs {} MiB of memory, which is not available now", bytes >> 20);
            Err(aborted(Some(bytes), message))
        };
        let length = response.content_length();
        if length.is_some_and(|length| length > self.max_body_bytes as u64) {
            return Err(too_long());
        }
        let mut reserved = match length {
            Some(length) if length > UNBUDGETED_BYTES => reserve(BodyDecoder::expected_cost(length))?,
            // Keep what is reserved: if it were released now, the answer might have to wait for it
            // again.
            Some(_) | None => reserved,
        };
        let mut decoder = BodyDecoder::new(self.ask.answer);
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(error, Some(status)))? {
            if decoder.received() + chunk.len() > self.max_body_bytes {
                return Err(too_long());
            }
            decoder.push(&chunk);
            if let Some(message) = decoder.limit_error() {
                return Err(aborted(None, message));
            }
            let cost = decoder.cost();
            if cost > reserved {
                // Reserve twice the cost, so that a long answer is aborted and repeated only a few
                // times.
                reserved = reserve(cost.saturating_mul(2))?;
            }
        }
        if reserved > UNBUDGETED_BYTES
            && let Some(memory) = memory
        {
            // Cannot fail: this is less than what is reserved.
            memory.take(decoder.cost());
        }
        let (body, files) = decoder.finish();
        Ok(HttpAnswer { status, headers: std::mem::take(response.headers_mut()), body, files: Some(files) })
    }

    /// Describes a transport error with its cause and without the URL, which may contain a key.
    fn describe(&self, error: &http::Error) -> String {
        if error.is_timeout() {
            return if error.is_connect() {
                format!("no connection within {:?}", self.connect_timeout)
            } else if self.read_timeout < self.timeout {
                format!(
                    "no complete answer within {:?}, or no data for {:?}",
                    self.timeout, self.read_timeout
                )
            } else {
                format!("no complete answer within {:?}", self.timeout)
            };
        }
        let what = match error {
            http::Error::Body(_) | http::Error::Request(_) => "the connection was interrupted".to_owned(),
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
        // The last cause is the specific one, for example "connection refused".
        causes.pop().map_or_else(|| what.clone(), |last| format!("{what}: {last}"))
    }

    /// The context in which keys are read now.
    pub(super) fn auth_context(&self, now: Timestamp) -> AuthContext<'_> {
        AuthContext { provider: &self.name, now, client: self.client() }
    }

    /// Returns the HTTP client of this provider. No connection is shared with other providers.
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
                "could not create an HTTPS client (are CA certificates installed?): {}",
                self.describe(&error)
            )
        })?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// The outcome of a reading for the metrics.
fn outcome(reading: &Reading) -> RequestOutcome {
    let verdict = match reading {
        Reading::AskNext(_) => return RequestOutcome::Answered,
        Reading::Judged(evidence) => evidence.verdict,
    };
    match verdict {
        Verdict::Queued
        | Verdict::Running
        | Verdict::Succeeded
        | Verdict::Failed
        | Verdict::Cancelled
        | Verdict::UnknownJob => RequestOutcome::Answered,
        Verdict::CouldNotTell(Doubt::Unreachable) => RequestOutcome::Unreachable,
        Verdict::CouldNotTell(Doubt::RateLimited) => RequestOutcome::RateLimited,
        Verdict::CouldNotTell(Doubt::Unauthorized) => RequestOutcome::Unauthorized,
        // `UnknownProvider` cannot occur here: there is a provider file.
        Verdict::CouldNotTell(Doubt::Unreadable | Doubt::UnknownProvider) => RequestOutcome::Unreadable,
    }
}
