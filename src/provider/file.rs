//! A provider file: TOML as written, checked into a [`Provider`].
//!
//! Unknown keys, wrong units and impossible combinations are refused with the file, the key and what would
//! be right. Keys are not looked for here: a secret that is missing is the concern of the questions that
//! need it. What each key means stands in `docs/providers.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::answer::Shape;
use super::auth::{Auth, Download, WrittenAuth, WrittenDownload};
use super::closed::{Closed, WrittenClosed};
use super::fetching::{Fetchings, WrittenFetchings};
use super::filters::{Bounds, Program, Runner};
pub(super) use super::flaw::{Flaw, flaw};
use super::manners::{Limits, Manners};
use super::request::Template;
use super::secret::{SecretError, SecretSource};
use super::span::Span;
use super::state::LastAnswer;
use super::stats::Stats;
use crate::config::HttpUrl;
use crate::egress::{Hosts, List};

/// How much of an answer is read at most, unless the file says otherwise: 4 MiB, which no filter takes long to read.
const MAX_BODY_BYTES: usize = 4 << 20;

/// How many requests one question may take, unless the file says otherwise.
const MAX_REQUESTS: usize = 3;

/// A provider, as its file describes it.
pub struct Provider {
    /// As charges name it.
    pub name: String,
    /// When its API is shut down; none if nothing is known of that.
    pub closed: Option<Closed>,
    /// How long outputs are kept; none if the provider does not say.
    pub retention: Option<Duration>,
    /// How old a charge is before its job is asked for; none: the general setting.
    pub grace: Option<Duration>,
    /// What differs by model.
    pub models: BTreeMap<String, Model>,
    /// Where outputs may be fetched from.
    pub output_hosts: Hosts,
    /// Where the key of a download may go.
    pub key_hosts: Hosts,
    /// How it is treated: concurrency, rate, retries, circuit.
    pub limits: Limits,
    /// Time for a connection to be made.
    pub connect_timeout: Duration,
    /// Time in which something must arrive, again and again.
    pub read_timeout: Duration,
    /// Time for a whole answer.
    pub timeout: Duration,
    /// How much of an answer is read.
    pub max_body_bytes: usize,
    pub(super) auth: Option<Auth>,
    pub(super) download: Download,
    /// What may be fetched, by model.
    pub(super) fetchings: Fetchings,
    pub(super) ask: Ask,
    /// Where its filters run.
    pub(super) runner: Runner,
    pub(super) manners: Manners,
    pub(super) stats: Stats,
    pub(super) last: LastAnswer,
    /// What it is asked through.
    pub(super) proxy: Option<HttpUrl>,
    pub(super) client: std::sync::OnceLock<crate::http::Client>,
}

/// What differs by model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// How old a charge for it is before its job is asked for.
    pub grace: Duration,
}

/// How a provider is asked and its answers read.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) request: Template,
    /// What is sent with a POST or PUT, and whether it is a form.
    pub(super) body: Option<(Program, bool)>,
    pub(super) headers: HeaderMap,
    /// Values made from job and model before the first question.
    pub(super) lets: Vec<(String, Program)>,
    pub(super) read: Program,
    /// Whether the filter sees 429, 403, redirects and 5xx too; 401 is never a verdict on a job.
    pub(super) read_all: bool,
    /// What the body of an answer is.
    pub(super) answer: Shape,
    /// How many requests one question may take.
    pub(super) max_requests: usize,
}

impl Ask {
    /// All filters of the file.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        let body = self.body.iter().map(|(program, _)| program);
        self.lets.iter().map(|(_, program)| program).chain(body).chain([&self.read])
    }

    /// Whether all filters are the same, and run on the same answers.
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
    /// From now on its filters run in a worker.
    pub(super) fn run_filters_within(&mut self, bounds: &Bounds) {
        self.runner = Runner::worker(bounds, self.ask.programs(), self.max_body_bytes);
    }

    /// How old a charge for `model` is before its job is asked for; none: the general setting.
    pub fn grace_for(&self, model: &str) -> Option<Duration> {
        self.models.get(model).map(|model| model.grace).or(self.grace)
    }

    /// Whether its keys are there: the variables set, the files readable. True for a provider that needs
    /// none; a command is not run ([`super::Providers::try_keys`] does).
    pub fn secret_present(&self) -> Result<(), SecretError> {
        self.auths().try_for_each(|auth| auth.present(&self.name))
    }

    /// Where its key is looked for; none if it needs none.
    pub fn secret_source(&self) -> Option<&SecretSource> {
        self.auth.as_ref().and_then(Auth::source)
    }

    /// Its ways to authenticate: when asking, and when fetching files.
    pub(super) fn auths(&self) -> impl Iterator<Item = &Auth> {
        self.auth.iter().chain(&self.download.auth)
    }

    /// How the key of files is sent.
    pub(super) fn download_auth(&self) -> Option<&Auth> {
        self.download.auth.as_ref().or(self.auth.as_ref())
    }

    /// Whether a file that needs a key cannot be fetched, because the key is no header.
    pub(super) fn has_no_download_key(&self) -> bool {
        self.download_auth().is_some_and(|auth| !auth.is_headers_only())
    }

    /// How many requests one question may take.
    pub const fn max_requests(&self) -> usize {
        self.ask.max_requests
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    provider: WrittenProvider,
    #[serde(default)]
    models: BTreeMap<String, WrittenModel>,
    auth: Option<WrittenAuth>,
    #[serde(default)]
    download: WrittenDownload,
    #[serde(default)]
    recovery: WrittenFetchings,
    ask: WrittenAsk,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenProvider {
    name: String,
    closed: Option<WrittenClosed>,
    retention: Option<Span>,
    grace: Option<Span>,
    max_concurrency: Option<usize>,
    requests_per_second: Option<f64>,
    retries: Option<u32>,
    connect_timeout: Option<Span>,
    read_timeout: Option<Span>,
    timeout: Option<Span>,
    max_body_bytes: Option<usize>,
    circuit_opens_after: Option<u32>,
    circuit_pause: Option<Span>,
    output_hosts: Vec<String>,
    #[serde(default)]
    ask_hosts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenModel {
    grace: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAsk {
    request: String,
    body: Option<String>,
    form: Option<String>,
    #[serde(default)]
    answer: Shape,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, rename = "let")]
    lets: BTreeMap<String, String>,
    #[serde(default)]
    read_all: bool,
    max_requests: Option<usize>,
    read: String,
}

/// Reads and checks the text of a provider file, and tries its filters inside this process.
#[cfg(test)]
pub(super) fn read(text: &str) -> Result<Provider, Flaw> {
    tried(read_untried(text)?)
}

/// The same of a file that may replace a shipped one. With bounds, in a worker, where all its
/// filters run from now on. Filters that are those of the shipped file have had their trial.
pub(super) fn read_over(
    text: &str,
    shipped: Option<&Provider>,
    bounds: Option<&Bounds>,
) -> Result<Provider, Flaw> {
    let mut provider = read_untried(text)?;
    if let Some(bounds) = bounds {
        provider.run_filters_within(bounds);
    }
    if shipped.is_some_and(|shipped| shipped.ask.reads_like(&provider.ask)) {
        return Ok(provider);
    }
    tried(provider)
}

/// The provider, unless its filters do not pass their trial.
fn tried(provider: Provider) -> Result<Provider, Flaw> {
    match provider.now(provider.trial()) {
        Some(fault) => Err(fault),
        None => Ok(provider),
    }
}

/// The same without trying the filter.
pub(super) fn read_untried(text: &str) -> Result<Provider, Flaw> {
    let written: Written =
        toml::Deserializer::parse(text).map_err(|error| Flaw::of_toml(text, &error)).and_then(|toml| {
            serde_path_to_error::deserialize(toml)
                .map_err(|error| Flaw::of_shape(error.path().to_string(), error.inner().message()))
        })?;
    check(written)
}

fn check(written: Written) -> Result<Provider, Flaw> {
    let Written { provider: p, models, auth, download, recovery, ask } = written;

    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if p.name.is_empty() || p.name.len() > 64 || !p.name.chars().all(plain) {
        return flaw("provider.name", "1 to 64 of the characters a-z, 0-9 and `-`");
    }
    let grace = p.grace.map(|span| span.0);
    let retention = p.retention.map(|span| span.0);
    let models: BTreeMap<String, Model> =
        models.into_iter().map(|(name, model)| (name, Model { grace: model.grace.0 })).collect();
    if let Some(name) = models.keys().find(|name| name.contains('*')) {
        return flaw(
            format!("models.{name:?}"),
            "the exact name of a model: a `*` stands for nothing here, other than in `[recovery.models]`",
        );
    }
    if let Some(retention) = retention {
        let graces = models.iter().map(|(name, model)| (format!("models.{name:?}.grace"), model.grace));
        let graces = graces.chain(grace.map(|grace| ("provider.grace".to_owned(), grace)));
        for (key, grace) in graces {
            if grace > retention / 3 {
                return flaw(
                    key,
                    "at most a third of `provider.retention`, so that outputs are asked for in time",
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
            return flaw(key, "longer than nothing, for instance `20s`");
        }
    }
    let limits = Limits::default();
    let limits = Limits {
        max_concurrency: p.max_concurrency.unwrap_or(limits.max_concurrency),
        requests_per_second: p.requests_per_second.or(limits.requests_per_second),
        retries: p.retries.unwrap_or(limits.retries),
        circuit_opens_after: p.circuit_opens_after.unwrap_or(limits.circuit_opens_after),
        circuit_pause: p.circuit_pause.map_or(limits.circuit_pause, |span| span.0),
    };
    if !(1..=1000).contains(&limits.max_concurrency) {
        return flaw("provider.max_concurrency", "1 to 1000");
    }
    if limits.requests_per_second.is_some_and(|rate| !(0.001..=10_000.0).contains(&rate)) {
        return flaw("provider.requests_per_second", "0.001 to 10000");
    }
    if limits.retries > 10 {
        return flaw("provider.retries", "0 to 10");
    }
    if limits.circuit_opens_after == 0 {
        return flaw("provider.circuit_opens_after", "1 or more");
    }
    let max_body_bytes = p.max_body_bytes.unwrap_or(MAX_BODY_BYTES);
    if !(1024..=256 << 20).contains(&max_body_bytes) {
        return flaw("provider.max_body_bytes", "1024 to 268435456 (256 MiB)");
    }
    let hosts = |key: &str, list, written: &[String]| {
        Hosts::parse(list, written).or_else(|problem| flaw(key, problem))
    };
    let output_hosts = hosts("provider.output_hosts", List::Outputs, &p.output_hosts)?;
    let ask_hosts = hosts("provider.ask_hosts", List::Asked, &p.ask_hosts)?;
    let key_hosts = download.key_hosts.as_deref();
    let key_hosts = key_hosts.map(|written| hosts("download.key_hosts", List::Keys, written)).transpose()?;

    let ask = check_ask(&ask, ask_hosts)?;
    let auth = auth.map(|auth| auth.check("auth")).transpose()?;
    let download = download.check()?;
    if auth.is_some() && ask.request.is_plain_http() {
        return flaw("ask.request", "https, because a key is sent along");
    }
    Ok(Provider {
        name: p.name,
        closed: p.closed.map(WrittenClosed::check).transpose()?,
        retention,
        grace,
        models,
        output_hosts,
        // Where the file sends its key in any case.
        key_hosts: key_hosts.unwrap_or_else(|| ask.request.asked()),
        connect_timeout: p.connect_timeout.map_or(Duration::from_secs(5), |span| span.0),
        read_timeout: p.read_timeout.map_or(Duration::from_secs(15), |span| span.0),
        timeout: p.timeout.map_or(Duration::from_secs(20), |span| span.0),
        max_body_bytes,
        auth,
        download,
        fetchings: recovery.check()?,
        ask,
        runner: Runner::InProcess,
        manners: Manners::new(&limits),
        limits,
        stats: Stats::default(),
        last: LastAnswer::default(),
        proxy: None,
        client: std::sync::OnceLock::new(),
    })
}

/// Headers as written, checked.
pub(super) fn headers(section: &str, written: &BTreeMap<String, String>) -> Result<HeaderMap, Flaw> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let key = || format!("{section}.{name}");
        let Ok(header) = HeaderName::try_from(name) else {
            return flaw(key(), "a header's name");
        };
        if let Some(gap) = gap_in(value) {
            return flaw(
                key(),
                format!(
                    "without `{gap}`: nothing is filled in here. Gaps belong into `ask.request`, keys into `[auth]`"
                ),
            );
        }
        let Ok(value) = HeaderValue::try_from(value) else {
            return flaw(key(), "a header's value: printable characters on one line");
        };
        headers.insert(header, value);
    }
    Ok(headers)
}

/// The first `{word}` of a text.
fn gap_in(text: &str) -> Option<&str> {
    let start = text.find('{')?;
    let end = start + text[start..].find('}')?;
    let word = &text[start + 1..end];
    let is_gap = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-|".contains(c));
    is_gap.then_some(&text[start..=end])
}

fn check_ask(ask: &WrittenAsk, hosts: Hosts) -> Result<Ask, Flaw> {
    let headers = headers("ask.headers", &ask.headers)?;
    let mut lets = Vec::new();
    for (name, code) in &ask.lets {
        let key = || format!("ask.let.{name}");
        if ["job", "model"].contains(&name.as_str()) {
            return flaw(key(), "another name: `job` and `model` are given");
        }
        lets.push((name.clone(), compile(&key(), code)?));
    }
    let names: Vec<&str> = ["job", "model"].into_iter().chain(ask.lets.keys().map(String::as_str)).collect();
    let request = Template::parse(&ask.request, &names, hosts)
        .map_err(|problem| Flaw::new("ask.request", format!("must be a request: {problem}")))?;
    let body = match (&ask.body, &ask.form) {
        (None, None) => None,
        (Some(code), None) => Some((compile("ask.body", code)?, false)),
        (None, Some(code)) => Some((compile("ask.form", code)?, true)),
        (Some(_), Some(_)) => return flaw("ask.form", "left out, or `ask.body` is: only one is sent"),
    };
    if let Some((_, is_form)) = &body
        && !request.may_have_body()
    {
        let key = if *is_form { "ask.form" } else { "ask.body" };
        return flaw(key, "left out: only a POST or a PUT has a body");
    }
    let read = compile("ask.read", &ask.read)?;
    let max_requests = ask.max_requests.unwrap_or(MAX_REQUESTS);
    if !(1..=20).contains(&max_requests) {
        return flaw("ask.max_requests", "1 to 20");
    }
    Ok(Ask { request, body, headers, lets, read, read_all: ask.read_all, answer: ask.answer, max_requests })
}

fn compile(key: &str, code: &str) -> Result<Program, Flaw> {
    Program::compile(key, code).map_err(|problem| Flaw::of_filter(key, &problem))
}

#[cfg(test)]
mod tests;
