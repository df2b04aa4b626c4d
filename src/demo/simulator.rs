//! A simulated provider over real HTTP, for the demo and tests. It is stateless.
//!
//! It answers like Replicate (`/replicate/…`), the fal queue (`/fal/…`) and Veo on the Gemini API
//! (`/veo/…`), so the shipped provider files work with only the host changed. It serves its output
//! files under `/files/{job}/{n}`. The job id encodes the job's result: see [`FATES`]. Tests may
//! replace the answer of a job, and run a hook before a question is answered. It listens on
//! loopback, needs no key, and is no part of a real run.

mod dialect;
mod fate;
mod file;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::dialect::Canned;
use self::dialect::{Dialect, is_video};
pub use self::fate::{FATES, Fate, help as fates_help};
use self::file::File;
use crate::ops::http::{self, Body, ServerLimits};
use crate::provider::SHIPPED;

/// The size of a `huge` answer.
const HUGE_BYTES: usize = 50_000_000;
/// The most paths and jobs with a count of their own.
const MAX_PATHS: usize = 1_000_000;

/// Called with the job's id on each question, before the answer.
pub type AskHook = Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>;

/// A running simulated provider.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    stop: CancellationToken,
    hits: Mutex<Hits>,
    canned: Mutex<HashMap<String, Canned>>,
    hook: Mutex<Option<AskHook>>,
}

#[derive(Debug, Default)]
struct Hits {
    total: u64,
    paths: HashMap<String, u64>,
    jobs: HashMap<String, u64>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("hits", &lock(&self.hits).total).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Simulator {
    /// Listens on `address` (port 0: any free port) until it is stopped.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let handler = {
            let state = Arc::clone(&state);
            move |request| {
                let state = Arc::clone(&state);
                async move { state.respond(request, address).await }
            }
        };
        let server = tokio::spawn(http::serve(
            listener,
            handler,
            ServerLimits::NONE,
            state.stop.clone().cancelled_owned(),
        ));
        Ok(Self { address, state, server })
    }

    /// The address that it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base of its URLs, without a trailing slash.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the hook that is awaited before each answer.
    pub fn on_ask(&self, hook: AskHook) {
        *lock(&self.state.hook) = Some(hook);
    }

    /// Replaces the answer to all questions about `job`.
    pub fn set_answer(&self, job: &str, answer: Canned) {
        lock(&self.state.canned).insert(last_segment(job).to_owned(), answer);
    }

    /// Removes that answer: `job` is answered by its fate again.
    pub fn clear_answer(&self, job: &str) {
        lock(&self.state.canned).remove(last_segment(job));
    }

    /// The number of requests for this path, ignoring the query.
    pub fn hits(&self, path: &str) -> u64 {
        lock(&self.state.hits).paths.get(path).copied().unwrap_or(0)
    }

    /// The number of questions about this job. A finished job at fal takes two: status and result.
    pub fn asks(&self, job: &str) -> u64 {
        lock(&self.state.hits).jobs.get(last_segment(job)).copied().unwrap_or(0)
    }

    /// The number of all requests.
    pub fn total_hits(&self) -> u64 {
        lock(&self.state.hits).total
    }

    /// Stops after the requests in progress.
    pub async fn stop(self) {
        self.state.stop.cancel();
        // An error means that the server panicked, so it has stopped too.
        let _ = self.server.await;
    }

    /// Runs until `shutdown` completes, then stops.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.stop().await;
    }
}

impl State {
    async fn respond(&self, request: Request<Incoming>, address: SocketAddr) -> Response<Body> {
        let path = request.uri().path().to_owned();
        {
            let mut hits = lock(&self.hits);
            hits.total += 1;
            if hits.paths.len() < MAX_PATHS || hits.paths.contains_key(&path) {
                *hits.paths.entry(path.clone()).or_default() += 1;
            }
        }
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        }
        if let Some(rest) = path.strip_prefix("/files/") {
            return serve_file(rest, request.uri().query());
        }
        let Some((dialect, job)) = route(&path) else {
            return text(StatusCode::NOT_FOUND, "try /replicate/v1/predictions/ok-1");
        };
        {
            let mut hits = lock(&self.hits);
            if hits.jobs.len() < MAX_PATHS || hits.jobs.contains_key(last_segment(&job)) {
                *hits.jobs.entry(last_segment(&job).to_owned()).or_default() += 1;
            }
        }
        let hook = lock(&self.hook).clone();
        if let Some(hook) = hook {
            hook(job.clone()).await;
        }
        let canned = lock(&self.canned).get(last_segment(&job)).cloned();
        if let Some(canned) = canned {
            return whole(canned);
        }
        let named = if dialect == Dialect::Veo { last_segment(&job) } else { &job };
        let fate = Fate::of(named).unwrap_or(Fate::Unknown);
        if fate == Fate::Hang {
            self.stop.cancelled().await;
            return text(StatusCode::SERVICE_UNAVAILABLE, "stopping");
        }
        if fate == Fate::Huge {
            return huge();
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let base = host.map_or_else(|| format!("http://{address}"), |host| format!("http://{host}"));
        whole(dialect::answer(dialect, fate, &job, |n| file_url(&base, dialect, named, n)))
    }
}

/// The dialect and the job of a path.
fn route(path: &str) -> Option<(Dialect, String)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    if let Some(job) = path.strip_prefix("/replicate/v1/predictions/") {
        return Some((Dialect::Replicate, decode(job)?));
    }
    if let Some(rest) = path.strip_prefix("/fal/") {
        let (_, job) = rest.split_once("/requests/")?;
        return match job.strip_suffix("/status") {
            Some(job) => Some((Dialect::FalStatus, decode(job)?)),
            None => Some((Dialect::FalResult, decode(job)?)),
        };
    }
    path.strip_prefix("/veo/v1beta/").and_then(|name| Some((Dialect::Veo, decode(name)?)))
}

/// The part of a job id that encodes its fate. Veo's ids are paths.
fn last_segment(job: &str) -> &str {
    job.rsplit('/').next().unwrap_or(job)
}

fn file_url(base: &str, dialect: Dialect, job: &str, n: usize) -> String {
    let ending = if dialect == Dialect::Veo || is_video(job) { "mp4" } else { "png" };
    let size = job.split('-').find(|word| word.starts_with("size="));
    let query = size.map_or_else(String::new, |size| format!("?{size}"));
    format!("{base}/files/{}/{n}.{ending}{query}", utf8_percent_encode(job, NON_ALPHANUMERIC))
}

fn serve_file(path: &str, query: Option<&str>) -> Response<Body> {
    let job = path.split('/').next().unwrap_or_default();
    let job = percent_decode_str(job).decode_utf8_lossy();
    let size = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("size="))
        .and_then(|size| size.parse().ok());
    let file = File::at(path, size);
    let Some(fate) = Fate::of(&job).filter(|fate| dialect::files(*fate) > 0) else {
        return text(StatusCode::NOT_FOUND, "this job has no files");
    };
    if let Fate::FileStatus(status) = fate {
        return text(StatusCode::from_u16(status).unwrap_or(StatusCode::GONE), "simulated");
    }
    if fate == Fate::Expired {
        return text(StatusCode::GONE, "simulated");
    }
    let (body, length) = if fate == Fate::FileBroken {
        // The body is shorter than its announced length, so the connection breaks off. The pause
        // lets the first half be sent.
        let pause = stream::once(async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Bytes::new()
        });
        (http::streamed(file.chunks().chain(pause)), file.len() * 2)
    } else {
        (http::streamed(file.chunks()), file.len())
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    response
}

/// A long answer without an announced length.
fn huge() -> Response<Body> {
    let chunk = Bytes::from(vec![b' '; 50_000]);
    let pieces = (0..HUGE_BYTES / chunk.len()).map(move |_| chunk.clone());
    let mut response = Response::new(http::streamed(stream::iter(pieces)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn whole(canned: Canned) -> Response<Body> {
    let status = StatusCode::from_u16(canned.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = http::answer(status, "application/json", canned.body);
    for (name, value) in canned.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    http::answer(status, "text/plain", text)
}

/// The id of a simulated job in the provider's format. `rest` makes it unique.
pub fn job_id(provider: &str, fate: &str, rest: &str) -> String {
    match provider {
        "veo-gemini" => format!("models/veo-simulated/operations/{fate}-{rest}"),
        _ => format!("{fate}-{rest}"),
    }
}

/// The providers that it simulates.
const SIMULATED: [&str; 3] = ["fal", "replicate", "veo-gemini"];

/// The shipped files of these providers, changed to point to the simulated provider at `base_url`,
/// without a key and without a rate limit.
pub fn provider_files(base_url: &str) -> Vec<(String, String)> {
    let host =
        url::Url::parse(base_url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let simulated = SHIPPED.iter().filter(|(name, _)| SIMULATED.contains(name));
    simulated.map(|(name, text)| ((*name).to_owned(), pointing_to(text, base_url, &host))).collect()
}

fn pointing_to(shipped: &str, base_url: &str, host: &str) -> String {
    let mut text = format!("# The shipped file, changed to point to the simulated provider at {base_url}.\n");
    let mut in_auth = false;
    for line in shipped.lines() {
        if line.starts_with('[') {
            in_auth = line.starts_with("[auth]");
        }
        if in_auth || line.starts_with("requests_per_second") {
            continue;
        }
        if line.starts_with("ask_hosts") {
            text.push_str("ask_hosts = [\"");
            text.push_str(host);
            text.push_str("\"]\n");
            continue;
        }
        if let Some(list) = ["output_hosts", "key_hosts"].iter().find(|list| line.starts_with(**list)) {
            text.push_str(list);
            text.push_str(" = [\"");
            text.push_str(host);
            text.push_str("\"]\n");
            continue;
        }
        text.push_str(
            &line
                .replace("https://api.replicate.com", &format!("{base_url}/replicate"))
                .replace("https://queue.fal.run", &format!("{base_url}/fal"))
                .replace("https://generativelanguage.googleapis.com", &format!("{base_url}/veo")),
        );
        text.push('\n');
    }
    text
}

/// Writes [`provider_files`] into `dir`, which is created if it does not exist.
pub fn write_provider_files(dir: &Path, base_url: &str) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (name, text) in provider_files(base_url) {
        std::fs::write(dir.join(format!("{name}.toml")), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
