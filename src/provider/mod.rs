//! Asks providers about jobs over HTTP and turns their answers into evidence.
//!
//! A provider is one file, `config/providers/<name>.toml`, and no Rust code: TOML says how to ask,
//! and a jq filter reads the answer. The shipped files are compiled into the binary. A file in
//! `[providers] dir` replaces the shipped file of the same name.
//!
//! [`Providers::ask`] always returns a value. If the answer cannot be determined for any reason
//! (no connection, a missing key, a provider without a file), the evidence says so with
//! `Verdict::CouldNotTell`; it is never a failure of the job. `policy` decides what follows, and
//! `recovery` downloads the files. Nothing here writes to a database or a file, so a crash halfway
//! leaves nothing behind.
//!
//! - `file`, `file_error`, `duration`, `fetch_rules`, `shutdown` and `trial` read and check a
//!   provider file.
//! - `request`, `hosts` and `outgoing` build a request and restrict its hosts.
//! - `ask` and `retry` send the requests of one question.
//! - `admission`, `circuit`, `limiter` and `shares` are the circuit breaker and the limits.
//! - `body_decoder`, `body` and `json` decode and parse the body of an answer.
//! - `filter` and `filters` compile filters, and run them in a separate process with bounds.
//! - `reading` and `filter_output` turn the HTTP status and the filter's output into evidence.
//! - `auth`, `secret`, `exec` and `redact` read keys, send them, and keep them out of all output.
//! - `stats`, `state`, `trace` and `expect` serve metrics, other processes and `provider test`.

mod admission;
mod ask;
mod auth;
mod body;
mod body_decoder;
mod circuit;
mod duration;
mod exec;
mod expect;
mod fetch_rules;
mod file;
mod file_error;
mod filter;
mod filter_output;
mod filters;
mod hosts;
mod json;
mod limiter;
mod outgoing;
mod reading;
mod redact;
mod request;
mod retry;
mod secret;
mod shares;
mod shutdown;
mod state;
mod stats;
mod trace;
mod trial;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

pub use self::admission::ProviderLimits;
pub use self::ask::{AnswerMemory, UNBUDGETED_BYTES};
pub use self::exec::CommandError;
pub use self::expect::{AnswerCase, Comparison, Difference};
pub use self::fetch_rules::FetchRules;
pub use self::file::{ModelSettings, Provider};
use self::file_error::FileError;
pub use self::filters::{FilterBounds, is_worker, worker};
use self::outgoing::OutgoingRequest;
pub use self::reading::{HttpAnswer, Reading};
pub use self::request::Request;
pub use self::secret::{Secret, SecretError, SecretSource};
pub use self::shares::{Holding, LimitShare, ShareGuard, compute_share};
pub use self::shutdown::ApiShutdown;
pub use self::state::ObservedState;
pub use self::stats::{BUCKETS_SECS, RequestOutcome, RequestStats};
pub use self::trace::TraceStep;
use crate::clock::Clock;
use crate::config::HttpUrl;
use crate::evidence::{Doubt, Evidence};

/// The provider files that are compiled into the binary, by name.
pub const SHIPPED: [(&str, &str); 13] = [
    ("bfl", include_str!("../../config/providers/bfl.toml")),
    ("elevenlabs-dubbing", include_str!("../../config/providers/elevenlabs-dubbing.toml")),
    ("fal", include_str!("../../config/providers/fal.toml")),
    ("heygen", include_str!("../../config/providers/heygen.toml")),
    ("kling", include_str!("../../config/providers/kling.toml")),
    ("minimax", include_str!("../../config/providers/minimax.toml")),
    ("openai-videos", include_str!("../../config/providers/openai-videos.toml")),
    ("replicate", include_str!("../../config/providers/replicate.toml")),
    ("runway", include_str!("../../config/providers/runway.toml")),
    ("stability", include_str!("../../config/providers/stability.toml")),
    ("sync", include_str!("../../config/providers/sync.toml")),
    ("veo-gemini", include_str!("../../config/providers/veo-gemini.toml")),
    ("veo-vertex", include_str!("../../config/providers/veo-vertex.toml")),
];

/// A query for the status of one provider job. Several items may belong to the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name of the provider, as in `charges.provider`.
    pub provider: String,
    /// The provider's id of the job. It comes from the platform and may contain any text.
    pub job_id: String,
    /// The model, as in `charges.model`.
    pub model: String,
    /// How many outputs the charges expect from the job.
    pub items: usize,
    /// The charge is past its `refund_by`: it is asked about even if the circuit is open.
    pub urgent: bool,
}

/// When to ask again after other processes held all slots of a provider for too long.
const NO_SLOT_RETRY_DELAY: Duration = Duration::from_mins(1);

/// The outcome of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum AskOutcome {
    /// The provider was asked, or the job cannot be asked for; then the evidence says why.
    Answered(Evidence),
    /// The circuit is open, or other processes hold all slots. It does not count as an attempt for
    /// the orphan.
    NotAsked {
        /// How long to wait before asking again.
        retry_in: Duration,
    },
}

/// All providers that have a provider file.
#[derive(Debug)]
pub struct Providers {
    by_name: BTreeMap<String, Provider>,
    clock: Clock,
    /// The name of this process among those that share a provider's limits.
    holder: String,
}

/// A provider file cannot be used, or there is none of that name.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The folder or a file in it cannot be read.
    #[error("could not read provider files from {}: check `providers.dir` and that makegood may read it", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A file has an invalid key or value.
    #[error("provider file {file}{}: `{key}`: {problem}", in_line(*line))]
    File {
        /// The name of the file.
        file: String,
        /// The line, from 1; `None` if it is unknown.
        line: Option<usize>,
        /// The key that is wrong.
        key: String,
        /// What the value must be, or the message of the parser.
        problem: String,
    },
    /// There is no file of that name.
    #[error("there is no provider `{name}`; known are {known}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
}

fn in_line(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

impl Providers {
    /// Loads the shipped files, and those in `dir` over them. The filters run inside this process,
    /// where a filter that does not terminate cannot be stopped. For tests, and for files that are
    /// known to be good.
    pub fn load(dir: Option<&Path>, clock: Clock) -> Result<Self, ProviderError> {
        Self::load_with(dir, clock, None)
    }

    /// Loads the same files; the filters run in worker processes. A worker is this executable,
    /// which must call [`worker`] if [`is_worker`] is true. A filter that exceeds its bounds is
    /// stopped, and a file in `dir` with such a filter is rejected.
    pub fn load_bounded(
        dir: Option<&Path>,
        clock: Clock,
        bounds: &FilterBounds,
    ) -> Result<Self, ProviderError> {
        Self::load_with(dir, clock, Some(bounds))
    }

    fn load_with(
        dir: Option<&Path>,
        clock: Clock,
        bounds: Option<&FilterBounds>,
    ) -> Result<Self, ProviderError> {
        let mut by_name = BTreeMap::new();
        for (name, text) in SHIPPED {
            // Without trial: a test has run it for every shipped file.
            let mut provider =
                named(&format!("{name}.toml (shipped)"), name, text, file::read_without_trial(text))?;
            if let Some(bounds) = bounds {
                provider.run_filters_within(bounds);
            }
            by_name.insert(name.to_owned(), provider);
        }
        if let Some(dir) = dir {
            let read = |path: &Path| {
                let path = path.to_owned();
                move |source| ProviderError::Read { path, source }
            };
            let mut paths = Vec::new();
            for entry in std::fs::read_dir(dir).map_err(read(dir))? {
                let path = entry.map_err(read(dir))?.path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    paths.push(path);
                }
            }
            paths.sort();
            for path in paths {
                let text = std::fs::read_to_string(&path).map_err(read(&path))?;
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let read = file::read_over(&text, by_name.get(&*stem), bounds);
                let provider = named(&path.display().to_string(), &stem, &text, read)?;
                by_name.insert(stem.to_string(), provider);
            }
        }
        Ok(Self::new(by_name, clock))
    }

    fn new(by_name: BTreeMap<String, Provider>, clock: Clock) -> Self {
        // Every `RandomState` has its own random keys, so the name is unique.
        let holder = format!("{}-{:016x}", std::process::id(), RandomState::new().hash_one(0_u8));
        Self { by_name, clock, holder }
    }

    /// Sends all questions through `proxy`.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Option<&HttpUrl>) -> Self {
        for provider in self.by_name.values_mut() {
            provider.proxy = proxy.cloned();
        }
        self
    }

    /// Returns the provider of that name.
    pub fn get(&self, name: &str) -> Option<&Provider> {
        self.by_name.get(name)
    }

    /// All providers, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.by_name.values()
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Asks about one job. The future may be dropped at any point; it leaves nothing behind.
    pub async fn ask(&self, question: &Question) -> AskOutcome {
        self.ask_within(question, None).await
    }

    /// Asks about one job. An answer that is longer than [`UNBUDGETED_BYTES`] must reserve
    /// `memory`.
    pub async fn ask_within(&self, question: &Question, memory: Option<&dyn AnswerMemory>) -> AskOutcome {
        let Some(provider) = self.get(&question.provider) else {
            let message = redact::message(&self.unknown(&question.provider).to_string(), &[]);
            return AskOutcome::Answered(Evidence::could_not_tell(
                Doubt::UnknownProvider,
                message,
                self.clock.now(),
            ));
        };
        tokio::select! {
            asked = provider.question(question, &self.clock, None, memory) => asked,
            () = provider.admission.limiter.until_given_up() => {
                provider.stats.count(stats::RequestOutcome::NotAsked, None);
                AskOutcome::NotAsked { retry_in: NO_SLOT_RETRY_DELAY }
            }
        }
    }

    /// Asks about one job, and also returns every request that was sent.
    pub async fn ask_with_trace(
        &self,
        question: &Question,
    ) -> Result<(AskOutcome, Vec<TraceStep>), ProviderError> {
        let provider = self.get(&question.provider).ok_or_else(|| self.unknown(&question.provider))?;
        let mut steps = Vec::new();
        let asked = provider.question(question, &self.clock, Some(&mut steps), None).await;
        Ok((asked, steps))
    }

    /// Reads a given answer; no request is sent. `step` counts from 1.
    pub fn read(
        &self,
        question: &Question,
        step: usize,
        received: &HttpAnswer,
    ) -> Result<Reading, ProviderError> {
        self.read_step(question, (step, &Value::Null), received)
    }

    /// Reads any answer of a question. `at`: its number, from 1, and the value that the filter kept
    /// from the answer before. If the filter asks for more than `ask.max_requests` requests, the
    /// evidence is unreadable.
    pub fn read_step(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &HttpAnswer,
    ) -> Result<Reading, ProviderError> {
        let provider = self.get(&question.provider).ok_or_else(|| self.unknown(&question.provider))?;
        let now = self.clock.now();
        Ok(match provider.read(question, at, received, now, &[]) {
            Reading::AskNext(_) if at.0 >= provider.max_requests() => Reading::Judged(
                Evidence::could_not_tell(Doubt::Unreadable, provider.too_many_requests(), now),
            ),
            reading => reading,
        })
    }

    /// Returns the filter's output for an answer as JSON. The inner error says why there is none.
    pub fn filter_output(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &HttpAnswer,
    ) -> Result<Result<String, String>, ProviderError> {
        let provider = self.get(&question.provider).ok_or_else(|| self.unknown(&question.provider))?;
        Ok(provider.filter_output_blocking(question, at, received, &[]))
    }

    /// Returns the first request of a question as it would be sent, without its key. The inner
    /// error says why the job cannot be asked for.
    pub fn first_request(&self, question: &Question) -> Result<Result<String, String>, ProviderError> {
        let provider = self.get(&question.provider).ok_or_else(|| self.unknown(&question.provider))?;
        Ok(provider.first_request(question).map(|request| TraceStep::display(&request)))
    }

    /// Returns the headers for the download of a file that needs this provider's key. The caller
    /// must send them only to a host in `key_hosts`.
    pub async fn download_headers(&self, name: &str) -> Result<HeaderMap, SecretError> {
        let Some(provider) = self.get(name) else { return Ok(HeaderMap::new()) };
        let headers = provider.download.headers.clone();
        match (provider.download_auth(), OutgoingRequest::of_download(headers.clone())) {
            (Some(auth), Some(mut out)) if auth.is_headers_only() => {
                auth.apply(&provider.auth_context(self.clock.now()), &mut out).await?;
                Ok(out.headers)
            }
            _ => Ok(headers),
        }
    }

    /// Reports that a download was rejected with 401 or 403. A key from a command or from a token
    /// endpoint is requested again next time.
    pub async fn download_refused(&self, name: &str) {
        if let Some(auth) = self.get(name).and_then(Provider::download_auth) {
            auth.latest_rejected().await;
        }
    }

    /// Reads all keys of a provider. It runs the commands and asks the token endpoints that give
    /// them.
    pub async fn try_keys(&self, name: &str) -> Result<(), SecretError> {
        let Some(provider) = self.get(name) else { return Ok(()) };
        for auth in provider.auths() {
            if let Some(mut out) = OutgoingRequest::of_download(HeaderMap::new()) {
                auth.apply(&provider.auth_context(self.clock.now()), &mut out).await?;
            }
        }
        Ok(())
    }

    /// Whether the circuit of this provider is open.
    pub fn is_circuit_open(&self, name: &str) -> bool {
        self.get(name).is_some_and(|provider| provider.admission.is_circuit_open())
    }

    /// Returns the last known state of a provider; `None` if this process has not asked it yet.
    pub fn state(&self, name: &str) -> Option<ObservedState> {
        let provider = self.get(name)?;
        provider.last.state(provider.admission.circuit_left())
    }

    /// Opens the circuit of a provider for this long. Zero: until a probe is answered.
    pub fn open_circuit(&self, name: &str, left: Duration) {
        if let Some(provider) = self.get(name) {
            provider.admission.open_circuit(left);
        }
    }

    /// Stops the idle filter workers. The next question starts a new one.
    pub async fn stop_idle_workers(&self) {
        for provider in self.iter() {
            provider.runner.stop_idle_worker().await;
        }
    }

    /// Returns the request counters of each provider since the process started.
    pub fn request_stats(&self) -> Vec<RequestStats> {
        self.iter().map(|provider| provider.stats.snapshot(&provider.name)).collect()
    }

    fn unknown(&self, name: &str) -> ProviderError {
        ProviderError::Unknown { name: name.to_owned(), known: self.names().collect::<Vec<_>>().join(", ") }
    }
}

#[cfg(test)]
fn load_text(file: &str, name: &str, text: &str) -> Result<Provider, ProviderError> {
    named(file, name, text, file::read(text))
}

/// Adds the name of the file to an error, and checks that `provider.name` is the name of the file.
fn named(
    file: &str,
    name: &str,
    text: &str,
    read: Result<Provider, FileError>,
) -> Result<Provider, ProviderError> {
    let error = |error: FileError| ProviderError::File {
        file: file.to_owned(),
        line: error.line_in(text),
        key: error.key,
        problem: error.problem,
    };
    let provider = read.map_err(error)?;
    if provider.name == name {
        Ok(provider)
    } else {
        let problem = format!("must be `{name}`, the name of the file");
        Err(error(FileError::new("provider.name", problem)))
    }
}

#[cfg(test)]
mod tests;
