//! The daemon's pages: `/metrics` for Prometheus, `/healthz` and `/readyz` for Kubernetes, `/status` for people.
//!
//! `/healthz` fails when the loop is stuck, and only then: a restart would help. `/readyz` fails
//! when the database does not answer or the last pass failed: a restart would not help, a person
//! may. Everything is read only. There is no login, so the pages show no account, no key and no
//! text of others unless a setting allows it (`shown`); still, bind them where only operators and
//! Prometheus reach them.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use super::http::{self, Body, Limits};
use super::metrics::TEXT_FORMAT;
use super::stop::Stop;
use crate::clock::{Clock, Timestamp};
use crate::schedule::{PassEnd, Phase, Pulse, Vitals};

mod readiness;
mod shown;

pub use readiness::{Readiness, Ready};
pub use shown::shown;

/// How long a page is good for that costs more to make than to send. A flood of requests costs a
/// pass little of its time then.
const KEPT: Duration = Duration::from_secs(1);

/// When it was made, after how many passes, and the page.
type KeptPage = Mutex<Option<(Instant, u64, Page)>>;

/// The pages that cost something to make, as they were made last.
#[derive(Debug, Default)]
pub struct Kept {
    metrics: KeptPage,
    status: KeptPage,
}

/// Where the pages take what they show from.
pub struct Pages {
    /// How the loop is doing.
    pub pulse: Pulse,
    /// What time it is.
    pub clock: Clock,
    /// The loop is stuck when nothing moved for this long: longer than a batch may take.
    pub patience: Duration,
    /// The metrics as text, or why there are none.
    pub metrics: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// Whether the database answers.
    pub ready: Readiness,
    /// Whether `/readyz` shows what the database said.
    pub details: bool,
    /// The report of the last pass, as it may be shown.
    pub report: Box<dyn Fn() -> Option<Value> + Send + Sync>,
    /// What was made a moment ago.
    pub kept: Kept,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("pulse", &self.pulse).finish_non_exhaustive()
    }
}

/// What everybody may know; the log says what the database said.
const DATABASE_UNREADY: &str =
    "the database cannot be used; the log says why, and metrics.status_details = true shows it here";

/// One page as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: StatusCode,
    /// Media type.
    pub content_type: &'static str,
    /// The page.
    pub body: Bytes,
}

impl Page {
    fn text(status: StatusCode, body: impl Into<String>) -> Self {
        let mut body = body.into();
        body.push('\n');
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

impl Pages {
    /// The page at a path.
    pub async fn answer(&self, method: &Method, path: &str) -> Page {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered");
        }
        match path {
            "/metrics" => self.kept(&self.kept.metrics, Self::metrics),
            "/healthz" => self.health(),
            "/readyz" => self.ready().await,
            "/" | "/status" => {
                self.kept(&self.kept.status, |pages| Page::text(StatusCode::OK, pages.status()))
            }
            _ => Page::text(StatusCode::NOT_FOUND, "there are /metrics, /healthz, /readyz and /status"),
        }
    }

    /// The page as it was made a moment ago and since the last pass, or made now.
    fn kept(&self, kept: &KeptPage, make: impl FnOnce(&Self) -> Page) -> Page {
        let passes = self.pulse.vitals().passes;
        // A page is replaced as a whole, so it is right also where somebody panicked.
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((at, since, page)) if *since == passes && at.elapsed() < KEPT => page.clone(),
            Some(_) | None => {
                let page = make(self);
                *kept = Some((Instant::now(), passes, page.clone()));
                page
            }
        }
    }

    fn metrics(&self) -> Page {
        match (self.metrics)() {
            Ok(body) => Page { status: StatusCode::OK, content_type: TEXT_FORMAT, body: body.into() },
            Err(why) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("no metrics: {why}")),
        }
    }

    fn health(&self) -> Page {
        let now = self.clock.now();
        match self.pulse.vitals().stuck_since(now, self.patience) {
            None => Page::text(StatusCode::OK, "alive"),
            Some(since) => {
                Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("stuck: nothing has moved since {since}"))
            }
        }
    }

    async fn ready(&self) -> Page {
        let unready = |why: String| Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}"));
        if let Err(why) = self.ready.now().await {
            return unready(if self.details { why } else { DATABASE_UNREADY.to_owned() });
        }
        match self.pulse.vitals().failed_in_a_row {
            0 => Page::text(StatusCode::OK, "ready"),
            1 => unready("the last pass failed".to_owned()),
            more => unready(format!("the last {more} passes failed")),
        }
    }

    /// For people.
    fn status(&self) -> String {
        let now = self.clock.now();
        let vitals = self.pulse.vitals();
        let mut page = format!("makegood {}\n\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(page, "{name:<14} {value}");
        };
        line("now", whole_seconds(now));
        line("at work on", phase(&vitals, now));
        line("last pass", last_pass(&vitals));
        line("passes", format!("{} since the start, {} firings skipped", vitals.passes, vitals.skipped));
        page.push('\n');
        match (self.report)() {
            None => page.push_str("No pass has left a report yet."),
            Some(report) => {
                page.push_str("The last pass's report\n\n");
                outline(&report, 1, &mut page);
                page.truncate(page.trim_end().len());
            }
        }
        page
    }
}

fn phase(vitals: &Vitals, now: Timestamp) -> String {
    match vitals.phase {
        Phase::Starting => "starting".to_owned(),
        Phase::Waiting { until } => {
            format!("waiting for the next pass at {} (in {})", whole_seconds(until), rough(until.since(now)))
        }
        Phase::Running { since, .. } => {
            format!("a pass since {} (for {})", whole_seconds(since), rough(now.since(since)))
        }
        Phase::Stopped => "nothing: stopped".to_owned(),
    }
}

fn last_pass(vitals: &Vitals) -> String {
    let Some(last) = vitals.last else { return "none yet".to_owned() };
    let end = match last.end {
        PassEnd::Done => "done".to_owned(),
        PassEnd::Failed => format!("FAILED ({} in a row)", vitals.failed_in_a_row),
    };
    format!("{end}, ended at {} after {}", whole_seconds(last.ended_at), rough(last.took))
}

/// A span as people say it: whole seconds from ten on.
fn rough(span: Duration) -> String {
    if span < Duration::from_secs(10) {
        format!("{:.1}s", span.as_secs_f64())
    } else if span < Duration::from_mins(2) {
        format!("{}s", span.as_secs())
    } else {
        format!("{}m {}s", span.as_secs() / 60, span.as_secs() % 60)
    }
}

fn whole_seconds(at: Timestamp) -> String {
    at.to_chrono().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// JSON as an indented list: readable, whatever is in it.
fn outline(value: &Value, depth: usize, page: &mut String) {
    let indent = "  ".repeat(depth);
    let mut entry = |name: &str, value: &Value| match value {
        Value::Object(inner) if inner.is_empty() => {}
        Value::Array(inner) if inner.is_empty() => {}
        Value::Object(_) | Value::Array(_) => {
            let _ = writeln!(page, "{indent}{name}");
            outline(value, depth + 1, page);
        }
        Value::String(text) => {
            let _ = writeln!(page, "{indent}{name:<28} {}", text.escape_debug());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let _ = writeln!(page, "{indent}{name:<28} {value}");
        }
    };
    match value {
        Value::Object(entries) => entries.iter().for_each(|(name, value)| entry(name, value)),
        Value::Array(entries) => entries.iter().for_each(|value| entry("-", value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => entry("", value),
    }
}

/// Answers on `listener` until `end` is requested; what is being answered then is finished.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>, end: Stop) {
    let handler = move |request| respond(Arc::clone(&pages), request);
    http::serve(listener, handler, Limits::PAGES, async move { end.wait().await }).await;
}

async fn respond(pages: Arc<Pages>, request: Request<Incoming>) -> Response<Body> {
    let page = pages.answer(request.method(), request.uri().path()).await;
    let mut response = http::answer(page.status, page.content_type, page.body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if page.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests;
