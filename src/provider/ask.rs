//! Questions over HTTP: one question is up to three requests, each tried again where that may help.
//!
//! Promise: an answer's size and the time it may take are bounded, redirects are not followed, the key
//! goes only where the provider's file says, and every outcome is evidence. Questions only read, so that
//! asking again is harmless, and a crash halfway leaves nothing behind.
//! Left to others: `manners` says when; `reading` says what an answer means.

use std::time::Instant;

use bytes::BytesMut;
use reqwest::Client;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};

use super::Question;
use super::file::Provider;
use super::manners;
use super::reading::{Reading, Received};
use super::redact;
use super::request::Request;
use super::secret::Secret;
use super::stats::Outcome;
use crate::clock::Clock;
use crate::evidence::{Doubt, Evidence, Verdict};

/// How many requests one question may take.
const STEPS: usize = 3;

/// A request that brought no whole answer.
struct Trouble {
    doubt: Doubt,
    message: String,
    /// Whether sending it again may help.
    again: bool,
    status: Option<u16>,
}

impl Provider {
    /// Asks for one job, through all its steps.
    pub(super) async fn question(&self, question: &Question, clock: &Clock) -> Evidence {
        let doubt = |doubt, message: &str| Evidence::could_not_tell(doubt, message, clock.now());
        let mut request = match self.first_request(question) {
            Ok(request) => request,
            Err(problem) => {
                let message = redact::message(&format!("the job cannot be asked for: {problem}"), &[]);
                return doubt(Doubt::Unreadable, &message);
            }
        };
        let client = match self.client() {
            Ok(client) => client,
            Err(message) => return doubt(Doubt::Unreachable, &message),
        };
        let mut headers = self.ask.headers.clone();
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let secret = match &self.auth {
            None => None,
            Some(auth) => match auth.apply(&self.name, &mut headers) {
                Ok(secret) => Some(secret),
                Err(error) => {
                    self.stats.count(Outcome::Unauthorized, None);
                    return doubt(Doubt::Unauthorized, &error.to_string());
                }
            },
        };

        for step in 1..=STEPS {
            match self.step(client, question, step, &request, &headers, secret.as_ref(), clock).await {
                Reading::Judged(mut evidence) => {
                    evidence.answer.request = Some(redact::clean(
                        &request.to_string(),
                        &secret.iter().map(Secret::expose).collect::<Vec<_>>(),
                    ));
                    return evidence;
                }
                Reading::AskNext(next) => request = next,
            }
        }
        doubt(Doubt::Unreadable, &format!("after {STEPS} requests the filter still asks for another"))
    }

    /// One request and what its answer means, tried again where that may help.
    #[expect(clippy::too_many_arguments, reason = "all of it belongs to one request")]
    async fn step(
        &self,
        client: &Client,
        question: &Question,
        step: usize,
        request: &Request,
        headers: &HeaderMap,
        secret: Option<&Secret>,
        clock: &Clock,
    ) -> Reading {
        let secrets: Vec<&str> = secret.into_iter().map(Secret::expose).collect();
        let mut tries = 0;
        loop {
            let turn = self.manners.turn().await;
            let began = Instant::now();
            let received = self.exchange(client, request, headers).await;
            let took = began.elapsed();
            drop(turn);

            let (reading, again, wait) = match &received {
                Ok(received) => {
                    let reading = self.read(question, step, received, clock.now(), &secrets);
                    let again = matches!(received.status, 429 | 502 | 503 | 504);
                    (reading, again, manners::retry_after(&received.headers, clock.now()))
                }
                Err(trouble) => {
                    let message = redact::message(&trouble.message, &secrets);
                    let mut evidence = Evidence::could_not_tell(trouble.doubt, message, clock.now());
                    evidence.answer.status = trouble.status;
                    (Reading::Judged(evidence), trouble.again, None)
                }
            };
            self.stats.count(outcome(&reading), Some(took));
            // A provider's own verdict on the job is final, whatever status it came with.
            let nobody = matches!(outcome(&reading), Outcome::Unreachable | Outcome::RateLimited);
            if !(again && nobody && tries < self.limits.retries) {
                return reading;
            }
            let Some(wait) = manners::backoff(tries, wait) else { return reading };
            tries += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends one request and reads its answer up to the limit.
    async fn exchange(
        &self,
        client: &Client,
        request: &Request,
        headers: &HeaderMap,
    ) -> Result<Received, Trouble> {
        let broken = |error: reqwest::Error, status| {
            // Broken compression is the answer's own fault; everything else happened on the way.
            let unreadable = error.is_decode();
            Trouble {
                doubt: if unreadable { Doubt::Unreadable } else { Doubt::Unreachable },
                message: self.describe(error),
                again: !unreadable,
                status,
            }
        };
        let mut response = client
            .request(request.method.clone(), request.url.clone())
            .headers(headers.clone())
            .send()
            .await
            .map_err(|error| broken(error, None))?;
        let status = response.status().as_u16();
        let too_big = || Trouble {
            doubt: Doubt::Unreadable,
            message: format!("body over {} bytes", self.max_body_bytes),
            again: false,
            status: Some(status),
        };
        if response.content_length().is_some_and(|length| length > self.max_body_bytes as u64) {
            return Err(too_big());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(error, Some(status)))? {
            if body.len() + chunk.len() > self.max_body_bytes {
                return Err(too_big());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Received { status, headers: std::mem::take(response.headers_mut()), body: body.freeze() })
    }

    /// What went wrong, in words, with its causes and without the URL.
    fn describe(&self, error: reqwest::Error) -> String {
        if error.is_timeout() {
            return if error.is_connect() {
                format!("no connection within {:?}", self.connect_timeout)
            } else {
                format!("no whole answer within {:?}", self.timeout)
            };
        }
        let what = if error.is_connect() {
            "could not connect"
        } else if error.is_decode() {
            "the answer could not be unpacked"
        } else {
            "the exchange broke off"
        };
        let error = error.without_url();
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        // The last cause is the one that says something (“connection refused”).
        causes.pop().map_or_else(|| what.to_owned(), |last| format!("{what}: {last}"))
    }

    /// The client of this provider alone, so that no connection or limit is shared with others.
    fn client(&self) -> Result<&Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut builder = Client::builder()
            .user_agent(concat!("makegood/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .gzip(true)
            .connect_timeout(self.connect_timeout)
            .timeout(self.timeout);
        if self.ask.request.is_loopback() {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            format!(
                "no HTTPS client could be made (are CA certificates installed?): {}",
                self.describe(error)
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
