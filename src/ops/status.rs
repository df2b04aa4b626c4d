//! The daemon's pages: `/metrics` for Prometheus, `/healthz` and `/readyz` for Kubernetes,
//! `/status` for people.
//!
//! `/healthz` fails only while the loop is stuck: then a restart helps. `/readyz` fails while the
//! database does not answer or after a failed pass: a restart does not help, a person may. All
//! pages are read-only. There is no login, so they show no account, no key and no text of others
//! unless a setting allows it (`shown`). Bind them to an address that only operators and Prometheus
//! can reach.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use super::http::{self, Body, ServerLimits};
use super::metrics::TEXT_FORMAT;
use super::stop::Stop;
use crate::clock::{Clock, Timestamp};
use crate::duration::format_rounded;
use crate::schedule::{Heartbeat, LoopStatus, PassEnd, Phase};

mod readiness;
mod shown;

pub use readiness::{Readiness, ReadyCheck};
pub use shown::shown;

/// How long `/metrics` and `/status` are reused, so that a flood of requests does not slow down a
/// pass.
const CACHE_TIME: Duration = Duration::from_secs(1);

/// When the page was rendered, after how many passes, and the page.
type CachedPage = Mutex<Option<(Instant, u64, Page)>>;

/// The last rendering of the pages that are expensive to render.
#[derive(Debug, Default)]
pub struct PageCache {
    metrics: CachedPage,
    status: CachedPage,
}

/// The sources of the pages.
pub struct Pages {
    /// The state of the loop.
    pub heartbeat: Heartbeat,
    /// The current time.
    pub clock: Clock,
    /// The loop is stuck after this long without progress. Longer than a batch may take.
    pub stall_timeout: Duration,
    /// Renders the metrics as text.
    pub metrics: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// Checks the database.
    pub ready: Readiness,
    /// Whether `/readyz` shows error messages of the database.
    pub details: bool,
    /// The report of the last pass, without what the page may not show.
    pub report: Box<dyn Fn() -> Option<Value> + Send + Sync>,
    /// The cached pages.
    pub cache: PageCache,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("heartbeat", &self.heartbeat).finish_non_exhaustive()
    }
}

/// The public message of `/readyz`. The log has the error message of the database.
const DATABASE_UNREADY: &str =
    "the database cannot be used; the log says why, and metrics.status_details = true shows it here";

/// A response page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: StatusCode,
    /// Media type.
    pub content_type: &'static str,
    /// The content.
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
            "/metrics" => self.cached(&self.cache.metrics, Self::metrics),
            "/healthz" => self.health(),
            "/readyz" => self.ready().await,
            "/" | "/status" => {
                self.cached(&self.cache.status, |pages| Page::text(StatusCode::OK, pages.status()))
            }
            _ => Page::text(StatusCode::NOT_FOUND, "there are /metrics, /healthz, /readyz and /status"),
        }
    }

    /// The cached page if it is recent and no pass has ended since; else a new one.
    fn cached(&self, cache: &CachedPage, make: impl FnOnce(&Self) -> Page) -> Page {
        let passes = self.heartbeat.status().passes;
        // A page is always replaced as a whole, so a poisoned lock is harmless.
        let mut cached = cache.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((at, since, page)) if *since == passes && at.elapsed() < CACHE_TIME => page.clone(),
            Some(_) | None => {
                let page = make(self);
                *cached = Some((Instant::now(), passes, page.clone()));
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
        match self.heartbeat.status().stuck_since(now, self.stall_timeout) {
            None => Page::text(StatusCode::OK, "alive"),
            Some(since) => {
                Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("stuck: nothing has moved since {since}"))
            }
        }
    }

    async fn ready(&self) -> Page {
        let unready = |why: String| Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}"));
        if let Err(why) = self.ready.result().await {
            return unready(if self.details { why } else { DATABASE_UNREADY.to_owned() });
        }
        match self.heartbeat.status().failed_in_a_row {
            0 => Page::text(StatusCode::OK, "ready"),
            1 => unready("the last pass failed".to_owned()),
            more => unready(format!("the last {more} passes failed")),
        }
    }

    /// The text of `/status`.
    fn status(&self) -> String {
        let now = self.clock.now();
        let status = self.heartbeat.status();
        let mut page = format!("makegood {}\n\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(page, "{name:<14} {value}");
        };
        line("now", whole_seconds(now));
        line("at work on", phase(&status, now));
        line("last pass", last_pass(&status));
        line("passes", format!("{} since the start, {} firings skipped", status.passes, status.skipped));
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

fn phase(status: &LoopStatus, now: Timestamp) -> String {
    match status.phase {
        Phase::Starting => "starting".to_owned(),
        Phase::Waiting { until } => {
            format!(
                "waiting for the next pass at {} (in {})",
                whole_seconds(until),
                format_rounded(until.since(now))
            )
        }
        Phase::Running { since, .. } => {
            format!("a pass since {} (for {})", whole_seconds(since), format_rounded(now.since(since)))
        }
        Phase::Stopped => "nothing: stopped".to_owned(),
    }
}

fn last_pass(status: &LoopStatus) -> String {
    let Some(last) = status.last else { return "none yet".to_owned() };
    let end = match last.end {
        PassEnd::Done => "done".to_owned(),
        PassEnd::Failed => format!("FAILED ({} in a row)", status.failed_in_a_row),
    };
    format!("{end}, ended at {} after {}", whole_seconds(last.ended_at), format_rounded(last.took))
}

fn whole_seconds(at: Timestamp) -> String {
    at.to_chrono().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Formats any JSON as an indented list.
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

/// Serves the pages on `listener` until `end` is requested, then finishes the requests in progress.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>, end: Stop) {
    let handler = move |request| respond(Arc::clone(&pages), request);
    http::serve(listener, handler, ServerLimits::PAGES, async move { end.wait().await }).await;
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
