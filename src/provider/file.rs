//! Reads a provider file (TOML) and checks it into a [`Provider`].
//!
//! Unknown keys, wrong units and invalid combinations are rejected. The error names the file, the
//! line, the key, and what the value must be. Secrets are not read here: a missing secret affects
//! only the questions that need it. `docs/providers.md` documents every key.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::admission::{AdmissionControl, ProviderLimits};
use super::auth::{Auth, AuthToml, DownloadOptions, DownloadToml};
use super::body::BodyFormat;
use super::duration::DurationText;
use super::fetch_rules::{FetchRulesByModel, RecoveryToml};
use super::file_error::{FileError, invalid};
use super::filters::{FilterBounds, Program, Runner};
use super::request::Template;
use super::secret::{SecretError, SecretSource};
use super::shutdown::{ApiShutdown, ApiShutdownToml};
use super::state::LastAnswer;
use super::stats::Stats;
use crate::config::HttpUrl;
use crate::egress::{Hosts, List};

/// The default of `max_body_bytes`: 4 MiB, which a filter reads quickly.
const DEFAULT_MAX_BODY_BYTES: usize = 4 << 20;

/// The default of `ask.max_requests`.
const DEFAULT_MAX_REQUESTS: usize = 3;

/// A provider, as its file describes it.
pub struct Provider {
    /// The name, as in `charges.provider`.
    pub name: String,
    /// When the provider shuts down its API; `None` if nothing is known about it.
    pub closed: Option<ApiShutdown>,
    /// How long outputs can be downloaded; `None` if it is unknown.
    pub retention: Option<Duration>,
    /// The minimum age of a charge before its job is asked about; `None`: the general setting.
    pub grace: Option<Duration>,
    /// Settings that differ by model.
    pub models: BTreeMap<String, ModelSettings>,
    /// The hosts from which outputs may be downloaded.
    pub output_hosts: Hosts,
    /// The hosts to which the key may be sent with a download.
    pub key_hosts: Hosts,
    /// Concurrency, rate limit, retries and circuit breaker.
    pub limits: ProviderLimits,
    /// The timeout of connecting.
    pub connect_timeout: Duration,
    /// The longest time without receiving any data.
    pub read_timeout: Duration,
    /// The timeout of a complete answer.
    pub timeout: Duration,
    /// The longest body that is read.
    pub max_body_bytes: usize,
    pub(super) auth: Option<Auth>,
    pub(super) download: DownloadOptions,
    /// The rules for downloads, by model.
    pub(super) fetch_rules: FetchRulesByModel,
    pub(super) ask: Ask,
    /// Where the filters run.
    pub(super) runner: Runner,
    pub(super) admission: AdmissionControl,
    pub(super) stats: Stats,
    pub(super) last: LastAnswer,
    /// The HTTP proxy for questions.
    pub(super) proxy: Option<HttpUrl>,
    pub(super) client: std::sync::OnceLock<crate::http::Client>,
}

/// Settings that differ by model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSettings {
    /// The minimum age of a charge for this model before its job is asked about.
    pub grace: Duration,
}

/// How to ask the provider and how to read its answers: the section `[ask]`.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) request: Template,
    /// The filter that makes the body of a POST or PUT, and whether the body is a form.
    pub(super) body: Option<(Program, bool)>,
    pub(super) headers: HeaderMap,
    /// The filters of `[ask.let]`. They compute values from the job and model before the first
    /// request.
    pub(super) lets: Vec<(String, Program)>,
    pub(super) read: Program,
    /// Whether the filter also sees answers with 403, 429, 3xx and 5xx. It never sees a 401, which
    /// cannot be a verdict about a job.
    pub(super) read_all: bool,
    /// The format of the body.
    pub(super) answer: BodyFormat,
    /// The most requests of one question.
    pub(super) max_requests: usize,
}

impl Ask {
    /// Returns all filters of the file.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        let body = self.body.iter().map(|(program, _)| program);
        self.lets.iter().map(|(_, program)| program).chain(body).chain([&self.read])
    }

    /// Whether all filters are equal and read the same answers.
    fn reads_like(&self, other: &Self) -> bool {
        let on = |ask: &Self| (ask.read_all, ask.answer, ask.max_requests);
        on(self) == on(other) && self.programs().eq(other.programs())
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Provider {
    /// Makes the filters run in a worker process.
    pub(super) fn run_filters_within(&mut self, bounds: &FilterBounds) {
        self.runner = Runner::worker(bounds, self.ask.programs(), self.max_body_bytes);
    }

    /// The minimum age of a charge for `model` before its job is asked about; `None`: the general
    /// setting.
    pub fn grace_for(&self, model: &str) -> Option<Duration> {
        self.models.get(model).map(|model| model.grace).or(self.grace)
    }

    /// Checks that the keys exist: the environment variables are set and the files readable.
    /// Commands are not run; [`super::Providers::try_keys`] does that.
    pub fn secret_present(&self) -> Result<(), SecretError> {
        self.auths().try_for_each(|auth| auth.present(&self.name))
    }

    /// Where the key comes from; `None` if the provider needs none.
    pub fn secret_source(&self) -> Option<&SecretSource> {
        self.auth.as_ref().and_then(Auth::source)
    }

    /// The authentication of questions and of downloads.
    pub(super) fn auths(&self) -> impl Iterator<Item = &Auth> {
        self.auth.iter().chain(&self.download.auth)
    }

    /// The authentication of downloads.
    pub(super) fn download_auth(&self) -> Option<&Auth> {
        self.download.auth.as_ref().or(self.auth.as_ref())
    }

    /// Whether a file that needs the key cannot be downloaded, because the key cannot be sent in a
    /// header.
    pub(super) fn has_no_download_key(&self) -> bool {
        self.download_auth().is_some_and(|auth| !auth.is_headers_only())
    }

    /// The most requests of one question.
    pub const fn max_requests(&self) -> usize {
        self.ask.max_requests
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToml {
    provider: ProviderToml,
    #[serde(default)]
    models: BTreeMap<String, ModelToml>,
    auth: Option<AuthToml>,
    #[serde(default)]
    download: DownloadToml,
    #[serde(default)]
    recovery: RecoveryToml,
    ask: AskToml,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderToml {
    name: String,
    closed: Option<ApiShutdownToml>,
    retention: Option<DurationText>,
    grace: Option<DurationText>,
    max_concurrency: Option<usize>,
    requests_per_second: Option<f64>,
    retries: Option<u32>,
    connect_timeout: Option<DurationText>,
    read_timeout: Option<DurationText>,
    timeout: Option<DurationText>,
    max_body_bytes: Option<usize>,
    circuit_opens_after: Option<u32>,
    circuit_pause: Option<DurationText>,
    output_hosts: Vec<String>,
    #[serde(default)]
    ask_hosts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelToml {
    grace: DurationText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskToml {
    request: String,
    body: Option<String>,
    form: Option<String>,
    #[serde(default)]
    answer: BodyFormat,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, rename = "let")]
    lets: BTreeMap<String, String>,
    #[serde(default)]
    read_all: bool,
    max_requests: Option<usize>,
    read: String,
}

/// Reads and checks the text of a provider file, and runs the trial of its filters inside this
/// process.
#[cfg(test)]
pub(super) fn read(text: &str) -> Result<Provider, FileError> {
    with_trial(read_without_trial(text)?)
}

/// Reads and checks the text of a file that may replace a shipped one. With `bounds`, its filters
/// run in a worker process from now on. The trial is skipped if the filters are those of the
/// shipped file.
pub(super) fn read_over(
    text: &str,
    shipped: Option<&Provider>,
    bounds: Option<&FilterBounds>,
) -> Result<Provider, FileError> {
    let mut provider = read_without_trial(text)?;
    if let Some(bounds) = bounds {
        provider.run_filters_within(bounds);
    }
    if shipped.is_some_and(|shipped| shipped.ask.reads_like(&provider.ask)) {
        return Ok(provider);
    }
    with_trial(provider)
}

/// Runs the trial of the filters and returns the provider if they pass.
fn with_trial(provider: Provider) -> Result<Provider, FileError> {
    match provider.block_on(provider.trial()) {
        Some(error) => Err(error),
        None => Ok(provider),
    }
}

/// Reads and checks the text of a provider file without running its filters.
pub(super) fn read_without_trial(text: &str) -> Result<Provider, FileError> {
    let written: FileToml = toml::Deserializer::parse(text)
        .map_err(|error| FileError::of_toml(text, &error))
        .and_then(|toml| {
            serde_path_to_error::deserialize(toml)
                .map_err(|error| FileError::of_type(error.path().to_string(), error.inner().message()))
        })?;
    check(written)
}

fn check(written: FileToml) -> Result<Provider, FileError> {
    let FileToml { provider: p, models, auth, download, recovery, ask } = written;

    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if p.name.is_empty() || p.name.len() > 64 || !p.name.chars().all(plain) {
        return invalid("provider.name", "1 to 64 of the characters a-z, 0-9 and `-`");
    }
    let grace = p.grace.map(|span| span.0);
    let retention = p.retention.map(|span| span.0);
    let models: BTreeMap<String, ModelSettings> =
        models.into_iter().map(|(name, model)| (name, ModelSettings { grace: model.grace.0 })).collect();
    if let Some(name) = models.keys().find(|name| name.contains('*')) {
        return invalid(
            format!("models.{name:?}"),
            "the exact name of a model: `*` is a wildcard only in `[recovery.models]`",
        );
    }
    if let Some(retention) = retention {
        let graces = models.iter().map(|(name, model)| (format!("models.{name:?}.grace"), model.grace));
        let graces = graces.chain(grace.map(|grace| ("provider.grace".to_owned(), grace)));
        for (key, grace) in graces {
            if grace > retention / 3 {
                return invalid(
                    key,
                    "at most a third of `provider.retention`; otherwise outputs could be gone before they are recovered",
                );
            }
        }
    }
    for (key, span) in [
        ("provider.connect_timeout", &p.connect_timeout),
        ("provider.read_timeout", &p.read_timeout),
        ("provider.timeout", &p.timeout),
    ] {
        if span.as_ref().is_some_and(|span| span.0.is_zero()) {
            return invalid(key, "longer than zero, for instance `20s`");
        }
    }
    let limits = ProviderLimits::default();
    let limits = ProviderLimits {
        max_concurrency: p.max_concurrency.unwrap_or(limits.max_concurrency),
        requests_per_second: p.requests_per_second.or(limits.requests_per_second),
        retries: p.retries.unwrap_or(limits.retries),
        circuit_opens_after: p.circuit_opens_after.unwrap_or(limits.circuit_opens_after),
        circuit_pause: p.circuit_pause.map_or(limits.circuit_pause, |span| span.0),
    };
    if !(1..=1000).contains(&limits.max_concurrency) {
        return invalid("provider.max_concurrency", "1 to 1000");
    }
    if limits.requests_per_second.is_some_and(|rate| !(0.001..=10_000.0).contains(&rate)) {
        return invalid("provider.requests_per_second", "0.001 to 10000");
    }
    if limits.retries > 10 {
        return invalid("provider.retries", "0 to 10");
    }
    if limits.circuit_opens_after == 0 {
        return invalid("provider.circuit_opens_after", "1 or more");
    }
    let max_body_bytes = p.max_body_bytes.unwrap_or(DEFAULT_MAX_BODY_BYTES);
    if !(1024..=256 << 20).contains(&max_body_bytes) {
        return invalid("provider.max_body_bytes", "1024 to 268435456 (256 MiB)");
    }
    let hosts = |key: &str, list, written: &[String]| {
        Hosts::parse(list, written).or_else(|problem| invalid(key, problem))
    };
    let output_hosts = hosts("provider.output_hosts", List::Outputs, &p.output_hosts)?;
    let ask_hosts = hosts("provider.ask_hosts", List::Asked, &p.ask_hosts)?;
    let key_hosts = download.key_hosts.as_deref();
    let key_hosts = key_hosts.map(|written| hosts("download.key_hosts", List::Keys, written)).transpose()?;

    let ask = check_ask(&ask, ask_hosts)?;
    let auth = auth.map(|auth| auth.check("auth")).transpose()?;
    let download = download.check()?;
    if auth.is_some() && ask.request.is_plain_http() {
        return invalid("ask.request", "an https URL, because a key is sent with it");
    }
    Ok(Provider {
        name: p.name,
        closed: p.closed.map(ApiShutdownToml::check).transpose()?,
        retention,
        grace,
        models,
        output_hosts,
        // By default the hosts that receive the key with questions.
        key_hosts: key_hosts.unwrap_or_else(|| ask.request.asked()),
        connect_timeout: p.connect_timeout.map_or(Duration::from_secs(5), |span| span.0),
        read_timeout: p.read_timeout.map_or(Duration::from_secs(15), |span| span.0),
        timeout: p.timeout.map_or(Duration::from_secs(20), |span| span.0),
        max_body_bytes,
        auth,
        download,
        fetch_rules: recovery.check()?,
        ask,
        runner: Runner::InProcess,
        admission: AdmissionControl::new(&limits),
        limits,
        stats: Stats::default(),
        last: LastAnswer::default(),
        proxy: None,
        client: std::sync::OnceLock::new(),
    })
}

/// Checks the headers of a section.
pub(super) fn headers(section: &str, written: &BTreeMap<String, String>) -> Result<HeaderMap, FileError> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let key = || format!("{section}.{name}");
        let Ok(header) = HeaderName::try_from(name) else {
            return invalid(key(), "the name of a header");
        };
        if let Some(placeholder) = placeholder_in(value) {
            return invalid(
                key(),
                format!(
                    "without `{placeholder}`: placeholders are not replaced here. Use them in `ask.request`, and put keys into `[auth]`"
                ),
            );
        }
        let Ok(value) = HeaderValue::try_from(value) else {
            return invalid(key(), "the value of a header: printable characters on one line");
        };
        headers.insert(header, value);
    }
    Ok(headers)
}

/// Returns the first `{word}` of a text.
fn placeholder_in(text: &str) -> Option<&str> {
    let start = text.find('{')?;
    let end = start + text[start..].find('}')?;
    let word = &text[start + 1..end];
    let is_name = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-|".contains(c));
    is_name.then_some(&text[start..=end])
}

fn check_ask(ask: &AskToml, hosts: Hosts) -> Result<Ask, FileError> {
    let headers = headers("ask.headers", &ask.headers)?;
    let mut lets = Vec::new();
    for (name, code) in &ask.lets {
        let key = || format!("ask.let.{name}");
        if ["job", "model"].contains(&name.as_str()) {
            return invalid(key(), "another name: `job` and `model` are reserved");
        }
        lets.push((name.clone(), compile(&key(), code)?));
    }
    let names: Vec<&str> = ["job", "model"].into_iter().chain(ask.lets.keys().map(String::as_str)).collect();
    let request = Template::parse(&ask.request, &names, hosts)
        .map_err(|problem| FileError::new("ask.request", format!("must be a request: {problem}")))?;
    let body = match (&ask.body, &ask.form) {
        (None, None) => None,
        (Some(code), None) => Some((compile("ask.body", code)?, false)),
        (None, Some(code)) => Some((compile("ask.form", code)?, true)),
        (Some(_), Some(_)) => {
            return invalid("ask.form", "removed, or `ask.body` must be: a request has only one body");
        }
    };
    if let Some((_, is_form)) = &body
        && !request.may_have_body()
    {
        let key = if *is_form { "ask.form" } else { "ask.body" };
        return invalid(key, "removed: only a POST or a PUT has a body");
    }
    let read = compile("ask.read", &ask.read)?;
    let max_requests = ask.max_requests.unwrap_or(DEFAULT_MAX_REQUESTS);
    if !(1..=20).contains(&max_requests) {
        return invalid("ask.max_requests", "1 to 20");
    }
    Ok(Ask { request, body, headers, lets, read, read_all: ask.read_all, answer: ask.answer, max_requests })
}

fn compile(key: &str, code: &str) -> Result<Program, FileError> {
    Program::compile(key, code).map_err(|problem| FileError::of_filter(key, &problem))
}

#[cfg(test)]
mod tests;
