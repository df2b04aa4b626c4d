//! Questions to providers, and what their answers mean.
//!
//! A provider is a file (`config/providers/<name>.toml`) and no Rust: TOML says how to ask, a jq filter how
//! to read. Shipped files are inside the binary; files in `[providers] dir` replace those of the same name.
//! Promise: [`Providers::ask`] always comes back with a value. What could not be told, for whatever
//! reason (also a missing key, also a name without a file), is [`Verdict::CouldNotTell`] and says why.
//! Left to others: `policy` decides what follows; `recovery` fetches files. Nothing here writes anything,
//! so that a crash halfway means nothing.
//!
//! `file` a file, checked · `closed` when its API is shut down · `fetching` what of it is for
//! `recovery` · `request` its template, filled · `hosts` where else to · `ask` over HTTP ·
//! `manners` when · `turns` how many at once · `shares` what part of the limits is this process's ·
//! `filters` where filters run, and what they may use · `json`, `filter`, `said` and `reading` what
//! it means · `auth`, `secret`, `exec`, `redact` keys · `stats` and `state` what came of it so far
//! · `trace` a question told step by step.

mod answer;
mod ask;
mod auth;
mod closed;
mod exec;
mod expect;
mod fetching;
mod file;
mod filter;
mod filters;
mod flaw;
mod hosts;
mod intake;
mod json;
mod manners;
mod outgoing;
mod reading;
mod redact;
mod request;
mod said;
mod secret;
mod shares;
mod span;
mod state;
mod stats;
mod trace;
mod trial;
mod turns;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

pub use self::ask::{FREE_BYTES, Memory};
pub use self::closed::Closed;
pub use self::exec::CommandTrouble;
pub use self::expect::{Case, Compared, Difference};
pub use self::fetching::Fetching;
pub use self::file::{Model, Provider};
pub use self::filters::{Bounds, is_worker, worker};
pub use self::manners::Limits;
use self::outgoing::Outgoing;
pub use self::reading::{Reading, Received};
pub use self::request::Request;
pub use self::secret::{Secret, SecretError, SecretSource};
pub use self::shares::{Holding, Share, Sharing, share};
pub use self::state::State;
pub use self::stats::{BUCKETS_SECS, Outcome, RequestStats};
pub use self::trace::Step;
use crate::clock::Clock;
use crate::config::HttpUrl;
use crate::evidence::{Doubt, Evidence};

/// The files that the binary carries.
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

/// One provider job to be asked for, however many items hang on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which provider, as charges name it.
    pub provider: String,
    /// The provider's id of the job: the platform's text, may hold anything.
    pub job_id: String,
    /// What was asked of the provider, as charges name it.
    pub model: String,
    /// How many outputs are expected of the job.
    pub items: usize,
    /// Past its `refund_by`: an open circuit does not keep it from being asked.
    pub urgent: bool,
}

/// When to ask again where other processes held all slots of a provider.
const LEFT_TO_OTHERS: Duration = Duration::from_mins(1);

/// What came of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// The provider was asked (or cannot be: then the evidence says why).
    Answered(Evidence),
    /// The provider has been unreachable and is left alone for now, or other processes hold all of its
    /// slots: this costs the orphan no attempt.
    NotAsked {
        /// When to come again.
        retry_in: Duration,
    },
}

/// All providers that there is a file for.
#[derive(Debug)]
pub struct Providers {
    by_name: BTreeMap<String, Provider>,
    clock: Clock,
    /// What this process is called among those that share a provider's limits.
    holder: String,
}

/// A provider file that cannot be used, or a name without one.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The folder or a file in it cannot be read.
    #[error("could not read provider files from {}: check `providers.dir` and that makegood may read it", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file says something wrong.
    #[error("provider file {file}{}: `{key}`: {problem}", in_line(*line))]
    File {
        /// Which file.
        file: String,
        /// Which line of it, from 1; none where it cannot be told.
        line: Option<usize>,
        /// Which key in it.
        key: String,
        /// What would be right, or what the parser said.
        problem: String,
    },
    /// There is no file of that name.
    #[error("there is no provider `{name}`; known are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
}

fn in_line(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

impl Providers {
    /// The shipped files, and those in `dir` over them. Their filters run inside this process,
    /// where nothing stops one that does not end: for tests, and where all files are known to be
    /// good.
    pub fn load(dir: Option<&Path>, clock: Clock) -> Result<Self, ProviderError> {
        Self::load_with(dir, clock, None)
    }

    /// The same; filters run in worker processes of this executable, which must call [`worker`]
    /// where [`is_worker`] says so. One that passes its bounds is stopped: files in `dir` are
    /// refused for it.
    pub fn load_bounded(dir: Option<&Path>, clock: Clock, bounds: &Bounds) -> Result<Self, ProviderError> {
        Self::load_with(dir, clock, Some(bounds))
    }

    fn load_with(dir: Option<&Path>, clock: Clock, bounds: Option<&Bounds>) -> Result<Self, ProviderError> {
        let mut by_name = BTreeMap::new();
        for (name, text) in SHIPPED {
            // A test has tried their filters.
            let mut provider =
                named(&format!("{name}.toml (shipped)"), name, text, file::read_untried(text))?;
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
        // Every `RandomState` has keys of its own.
        let holder = format!("{}-{:016x}", std::process::id(), RandomState::new().hash_one(0_u8));
        Self { by_name, clock, holder }
    }

    /// From now on they are asked through `proxy`.
    #[must_use]
    pub fn through(mut self, proxy: Option<&HttpUrl>) -> Self {
        for provider in self.by_name.values_mut() {
            provider.proxy = proxy.cloned();
        }
        self
    }

    /// The provider of that name.
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

    /// Asks for one job. Dropped halfway, it leaves nothing behind.
    pub async fn ask(&self, question: &Question) -> Asked {
        self.ask_within(question, None).await
    }

    /// The same, with memory for an answer that is longer than [`FREE_BYTES`].
    pub async fn ask_within(&self, question: &Question, memory: Option<&dyn Memory>) -> Asked {
        let Some(provider) = self.get(&question.provider) else {
            let message = redact::message(&self.unknown(&question.provider).to_string(), &[]);
            return Asked::Answered(Evidence::could_not_tell(
                Doubt::UnknownProvider,
                message,
                self.clock.now(),
            ));
        };
        tokio::select! {
            asked = provider.question(question, &self.clock, None, memory) => asked,
            () = provider.manners.turns.until_left_to_others() => {
                provider.stats.count(stats::Outcome::NotAsked, None);
                Asked::NotAsked { retry_in: LEFT_TO_OTHERS }
            }
        }
    }

    /// Asks for one job, and tells every request that it took.
    pub async fn ask_and_tell(&self, question: &Question) -> Result<(Asked, Vec<Step>), ProviderError> {
        let provider = self.get(&question.provider).ok_or_else(|| self.unknown(&question.provider))?;
        let mut steps = Vec::new();
        let asked = provider.question(question, &self.clock, Some(&mut steps), None).await;
        Ok((asked, steps))
    }

    /// What an answer would mean, without asking anybody. `step` counts from 1.
    pub fn read(
        &self,
        question: &Question,
        step: usize,
        received: &Received,
    ) -> Result<Reading, ProviderError> {
        self.read_step(question, (step, &Value::Null), received)
    }

    /// The same for any answer of a question. `at`: which one it is, from 1, and what the filter
    /// kept of the one before. The last answer that `ask.max_requests` allows leads to no other.
    pub fn read_step(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
    ) -> Result<Reading, ProviderError> {
        let provider = self.get(&question.provider).ok_or_else(|| self.unknown(&question.provider))?;
        let now = self.clock.now();
        Ok(match provider.read(question, at, received, now, &[]) {
            Reading::AskNext(_) if at.0 >= provider.max_requests() => {
                Reading::Judged(Evidence::could_not_tell(Doubt::Unreadable, provider.asks_too_often(), now))
            }
            reading => reading,
        })
    }

    /// What the filter itself says of an answer, as JSON; the inner error says why it says nothing.
    pub fn spoken(
        &self,
        question: &Question,
        at: (usize, &Value),
        received: &Received,
    ) -> Result<Result<String, String>, ProviderError> {
        let provider = self.get(&question.provider).ok_or_else(|| self.unknown(&question.provider))?;
        Ok(provider.spoken(question, at, received, &[]))
    }

    /// The first request of a question as it would be sent, without its key; the inner error says what
    /// forbids it.
    pub fn first_request(&self, question: &Question) -> Result<Result<String, String>, ProviderError> {
        let provider = self.get(&question.provider).ok_or_else(|| self.unknown(&question.provider))?;
        Ok(provider.first_request(question).map(|request| Step::shown(&request)))
    }

    /// What is sent along with the download of a file that needs this provider's key. The caller sees to it
    /// that it goes to a host of the provider.
    pub async fn download_headers(&self, name: &str) -> Result<HeaderMap, SecretError> {
        let Some(provider) = self.get(name) else { return Ok(HeaderMap::new()) };
        let headers = provider.download.headers.clone();
        match (provider.download_auth(), Outgoing::of_download(headers.clone())) {
            (Some(auth), Some(mut out)) if auth.is_headers_only() => {
                auth.apply(&provider.caller(self.clock.now()), &mut out).await?;
                Ok(out.headers)
            }
            _ => Ok(headers),
        }
    }

    /// A download was refused with 401 or 403: a key that a command gave is asked for anew next time.
    pub async fn download_refused(&self, name: &str) {
        if let Some(auth) = self.get(name).and_then(Provider::download_auth) {
            auth.refused_now().await;
        }
    }

    /// Reads all keys of a provider, and runs what commands that takes.
    pub async fn try_keys(&self, name: &str) -> Result<(), SecretError> {
        let Some(provider) = self.get(name) else { return Ok(()) };
        for auth in provider.auths() {
            if let Some(mut out) = Outgoing::of_download(HeaderMap::new()) {
                auth.apply(&provider.caller(self.clock.now()), &mut out).await?;
            }
        }
        Ok(())
    }

    /// Whether questions to this provider are turned away now.
    pub fn circuit_open(&self, name: &str) -> bool {
        self.get(name).is_some_and(|provider| provider.manners.circuit_open())
    }

    /// How a provider stands; none if this process has not asked it yet.
    pub fn state(&self, name: &str) -> Option<State> {
        let provider = self.get(name)?;
        provider.last.state(provider.manners.circuit_left())
    }

    /// Leaves a provider alone for so long, as another process found nobody there; with zero, until one question
    /// has tried it.
    pub fn leave_alone(&self, name: &str, left: Duration) {
        if let Some(provider) = self.get(name) {
            provider.manners.leave_alone(left);
        }
    }

    /// Ends the workers that are idle; questions begin new ones.
    pub async fn rest(&self) {
        for provider in self.iter() {
            provider.runner.rest().await;
        }
    }

    /// What was asked of each provider since the process began.
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

/// What came of reading a file, if it calls its provider as it is called itself.
fn named(
    file: &str,
    name: &str,
    text: &str,
    read: Result<Provider, file::Flaw>,
) -> Result<Provider, ProviderError> {
    let error = |flaw: file::Flaw| ProviderError::File {
        file: file.to_owned(),
        line: flaw.line_in(text),
        key: flaw.key,
        problem: flaw.problem,
    };
    let provider = read.map_err(error)?;
    if provider.name == name {
        Ok(provider)
    } else {
        Err(error(file::Flaw::new("provider.name", format!("must be `{name}`, as the file is called"))))
    }
}

#[cfg(test)]
mod tests;
