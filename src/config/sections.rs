//! The sections of the settings: what each key means once it is read, and which combinations are impossible.
//!
//! A value of its own is read by `units` and the types below; what two values say against each other is in
//! [`Settings::contradictions`]. Meaning, unit and default of every key stand in `config/default.toml`; a
//! test holds the two together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::secret::{DatabaseUrl, HttpUrl};
use super::units;
use crate::clock::Timestamp;
use crate::duration::format_exact;
use crate::schedule::CronSchedule;

/// The longest that a filter may be let run: a reading is part of a question, and a lease is for
/// those.
const FILTER_TIME_MAX: Duration = Duration::from_hours(1);
/// The least memory of a filter's worker: what it needs for itself, several times over.
const FILTER_MEMORY_MIN: u64 = 16 << 20;

/// Everything that can be set, checked. Made by [`Settings::load`](super::Settings::load).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the charges are.
    pub database: Database,
    /// What customers are promised.
    pub window: Window,
    /// What to look for.
    pub detect: Detect,
    /// Whom to ask.
    pub providers: Providers,
    /// By which way providers are reached.
    pub network: Network,
    /// Where outputs go.
    pub storage: Storage,
    /// How outputs are brought home.
    pub recovery: Recovery,
    /// What is asked after a refund.
    pub late: Late,
    /// How one pass works.
    pub pass: Pass,
    /// When to stop.
    pub brake: Brake,
    /// What is told to Prometheus.
    pub metrics: Metrics,
    /// When the daemon runs a pass.
    pub schedule: Schedule,
    /// What is told to operators.
    pub log: Log,
}

/// `[database]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Where it is.
    #[serde(deserialize_with = "database_url")]
    pub url: DatabaseUrl,
    /// Connections that this process may open.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 1000>")]
    pub max_connections: u32,
    /// Beyond this a statement is given up; a connection that is missing, or a locked file, is waited for as long.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub statement_timeout: Duration,
    /// How long a settle waits for a row that another session has locked, before it postpones that case.
    #[serde(deserialize_with = "units::span::<_, 1>")]
    pub lock_timeout: Duration,
}

/// `[window]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Within this time of the charge every orphan is made good (P15).
    #[serde(deserialize_with = "units::span::<_, 60_000>")]
    pub length: Duration,
    /// The benefit of the doubt ends this long before the end of the window.
    #[serde(deserialize_with = "units::span::<_, 0>")]
    pub margin: Duration,
}

/// `[detect]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detect {
    /// Charges younger than this are left alone, where the provider's file does not say otherwise.
    #[serde(deserialize_with = "units::span::<_, 0>")]
    pub grace: Duration,
    /// How far detection stays behind what could still change.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub overlap: Duration,
    /// No charge before this is looked at, unless a person asks for it. None, or earlier than `backlog_age` before the first
    /// pass: from then on.
    #[serde(deserialize_with = "units::instant_or_none")]
    pub start_at: Option<Timestamp>,
    /// How long an unknown job, or one never submitted, is given to appear.
    #[serde(deserialize_with = "units::span::<_, 0>")]
    pub unknown_job_grace: Duration,
    /// Charges looked at by one statement.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 100_000>")]
    pub chunk: u32,
    /// The first pass leaves charges alone that are older than this, unless a person asks for them.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub backlog_age: Duration,
}

/// `[providers]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Providers {
    /// A directory with more provider files.
    #[serde(deserialize_with = "units::path_or_none")]
    pub dir: Option<PathBuf>,
    /// CPU time of one reading by a filter.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub filter_time: Duration,
    /// Memory of one reading by a filter, beside the answer itself.
    #[serde(deserialize_with = "units::size")]
    pub filter_memory: u64,
}

/// `[network]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// What questions and downloads go through.
    #[serde(deserialize_with = "proxy")]
    pub proxy: Option<HttpUrl>,
}

/// `[storage]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Where outputs are stored: `file`, `s3`, `gs` or `az`. A `file` URL is absolute here: a relative path was
    /// resolved against the working directory.
    #[serde(deserialize_with = "storage_url")]
    pub url: Url,
}

/// `[recovery]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// A larger file is not fetched.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: u64,
    /// Whether files may be fetched from this machine.
    pub allow_loopback: bool,
    /// What to do with an orphan whose output can still be had.
    pub prefer: Prefer,
    /// Files fetched from one provider at the same time.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 1024>")]
    pub concurrency: usize,
    /// Memory for them, and for answers.
    #[serde(deserialize_with = "units::memory")]
    pub memory: u64,
    /// When what a killed copy left is removed for the last time.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub sweep_after: Duration,
    /// The longest that fetching one file may take.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub time_budget: Duration,
}

/// What to do with an orphan whose output can still be had (P16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// Bring the output home.
    Recover,
    /// Give the credits back all the same.
    Refund,
}

/// `[late]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Late {
    /// After a refund without proof the provider is asked again after this time; none: only the last time.
    #[serde(deserialize_with = "units::span_or_none")]
    pub first_question: Option<Duration>,
    /// And for the last time after this; none: only the first time.
    #[serde(deserialize_with = "units::span_or_none")]
    pub last_question: Option<Duration>,
    /// Questions of this kind that one pass asks of any one provider.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 10_000>")]
    pub questions_per_pass: u32,
}

/// `[pass]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    /// Orphans claimed and settled at once.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 10_000>")]
    pub batch: u32,
    /// How long a claimed orphan is its worker's.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub lease: Duration,
    /// Nothing new is begun after this; none: until nothing is due.
    #[serde(deserialize_with = "units::span_or_none")]
    pub max_duration: Option<Duration>,
}

/// `[brake]`; a limit of 0 is no limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brake {
    /// Refunds since the pass began, by all processes.
    #[serde(deserialize_with = "limit")]
    pub max_refunds_per_pass: u64,
    /// Refunds since the pass began for any one provider, by all processes.
    #[serde(deserialize_with = "limit")]
    pub max_refunds_per_pass_per_provider: u64,
    /// Credits refunded since the pass began, by all processes.
    #[serde(deserialize_with = "limit")]
    pub max_credits_per_pass: u64,
    /// Refunds in any hour.
    #[serde(deserialize_with = "limit")]
    pub max_refunds_per_hour: u64,
    /// Refunds in any 24 hours.
    #[serde(deserialize_with = "limit")]
    pub max_refunds_per_day: u64,
    /// Credits refunded in any hour.
    #[serde(deserialize_with = "limit")]
    pub max_credits_per_hour: u64,
    /// Credits refunded in any 24 hours.
    #[serde(deserialize_with = "limit")]
    pub max_credits_per_day: u64,
    /// Refunds in any hour for any one provider.
    #[serde(deserialize_with = "limit")]
    pub max_refunds_per_hour_per_provider: u64,
    /// Refunds in any 24 hours for any one provider.
    #[serde(deserialize_with = "limit")]
    pub max_refunds_per_day_per_provider: u64,
    /// Refunds in any 24 hours, in percent of the charges made in them.
    #[serde(deserialize_with = "units::whole::<_, _, 0, 100>")]
    pub max_refund_share_per_day: u64,
    /// Refunds in any 24 hours that rest on nothing but faults of ours.
    #[serde(deserialize_with = "limit")]
    pub max_own_fault_refunds_per_day: u64,
    /// Credits refunded in any 24 hours, in percent of what the charges made in them cost.
    #[serde(deserialize_with = "units::whole::<_, _, 0, 100>")]
    pub max_credit_share_per_day: u64,
    /// Refunds in any 24 hours for any one account; beyond it that account alone is held.
    #[serde(deserialize_with = "limit")]
    pub max_refunds_per_day_per_account: u64,
    /// Credits refunded in any 24 hours to any one account.
    #[serde(deserialize_with = "limit")]
    pub max_credits_per_day_per_account: u64,
    /// Credits refunded in any 24 hours to any one account, in percent of what the charges of all
    /// cost.
    #[serde(deserialize_with = "units::whole::<_, _, 0, 100>")]
    pub max_credit_share_per_day_per_account: u64,
    /// Who lets go again.
    pub release: Release,
}

/// Who releases the brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// A person.
    ByHand,
    /// A person, or makegood once all that counts is down to half of each limit.
    WhenGone,
}

/// `[metrics]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Where one-shot runs push.
    #[serde(deserialize_with = "pushgateway")]
    pub pushgateway: Option<HttpUrl>,
    /// The file that one-shot runs write.
    #[serde(deserialize_with = "textfile")]
    pub textfile: Option<PathBuf>,
    /// Where the daemon answers.
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
    /// Whether the daemon's pages show accounts and texts of others.
    pub status_details: bool,
    /// The job name of pushed metrics.
    #[serde(deserialize_with = "job")]
    pub job: String,
}

/// `[schedule]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Six cron fields, seconds first.
    pub cron: String,
    /// IANA name of the zone that the fields are read in.
    #[serde(deserialize_with = "time_zone")]
    pub time_zone: chrono_tz::Tz,
}

impl Schedule {
    /// The times of firing.
    ///
    /// # Errors
    /// The expression is wrong or never fires; not after [`Settings::load`](super::Settings::load).
    pub fn timetable(&self) -> Result<CronSchedule, crate::schedule::CronError> {
        CronSchedule::parse(&self.cron, self.time_zone)
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How much is told.
    pub level: LogLevel,
    /// How it is written.
    pub format: LogFormat,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// And what a person should look at.
    Warn,
    /// And what was done.
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Two values that cannot both be meant.
pub(super) struct Contradiction {
    /// The key to blame.
    pub key: &'static str,
    /// What would be right.
    pub right: String,
}

impl Settings {
    /// The combinations that could never work, or could never keep the promises.
    pub(super) fn contradictions(&self) -> Vec<Contradiction> {
        let mut found = Vec::new();
        let mut refuse = |wrong: bool, key, right: String| {
            if wrong {
                found.push(Contradiction { key, right });
            }
        };
        let length = self.window.length;
        let margin = self.window.margin;
        let show = format_exact;
        refuse(
            margin >= length,
            "window.margin",
            format!("it must be shorter than window.length, which is {}", show(length)),
        );
        refuse(
            self.detect.grace > length / 3,
            "detect.grace",
            format!(
                "at most a third of window.length ({}) leaves time to ask: at most {}",
                show(length),
                show(length / 3)
            ),
        );
        refuse(
            self.detect.overlap >= length,
            "detect.overlap",
            format!("it must be shorter than window.length, which is {}", show(length)),
        );
        refuse(
            margin < length && self.detect.unknown_job_grace > length.saturating_sub(margin),
            "detect.unknown_job_grace",
            format!(
                "it must end before the benefit of the doubt does: at most window.length - window.margin, which is {}",
                show(length.saturating_sub(margin))
            ),
        );
        let filter_time = self.providers.filter_time;
        refuse(
            filter_time.subsec_nanos() != 0 || filter_time > FILTER_TIME_MAX,
            "providers.filter_time",
            format!("whole seconds are wanted, at most {}", show(FILTER_TIME_MAX)),
        );
        refuse(
            self.providers.filter_memory < FILTER_MEMORY_MIN,
            "providers.filter_memory",
            format!(
                "a worker needs {} MiB to begin with: at least that much is wanted",
                FILTER_MEMORY_MIN >> 20
            ),
        );
        refuse(
            self.detect.backlog_age < length,
            "detect.backlog_age",
            format!(
                "charges within window.length ({}) are made good, not only reported: at least {0}",
                show(length)
            ),
        );
        refuse(
            self.recovery.time_budget >= self.pass.lease,
            "recovery.time_budget",
            format!("it must be shorter than pass.lease, which is {}", show(self.pass.lease)),
        );
        if let (Some(first), Some(last)) = (self.late.first_question, self.late.last_question) {
            refuse(
                last <= first,
                "late.last_question",
                format!("it must be later than late.first_question, which is {}", show(first)),
            );
        }
        refuse(
            self.recovery.sweep_after <= self.pass.lease,
            "recovery.sweep_after",
            format!("it must be longer than pass.lease, which is {}", show(self.pass.lease)),
        );
        for (key, day, hour) in [
            ("brake.max_refunds_per_day", self.brake.max_refunds_per_day, self.brake.max_refunds_per_hour),
            ("brake.max_credits_per_day", self.brake.max_credits_per_day, self.brake.max_credits_per_hour),
            (
                "brake.max_refunds_per_day_per_provider",
                self.brake.max_refunds_per_day_per_provider,
                self.brake.max_refunds_per_hour_per_provider,
            ),
        ] {
            refuse(
                day != 0 && day < hour,
                key,
                format!("it must not be below the limit per hour, which is {hour} (0: no limit)"),
            );
        }
        if let Err(e) = self.schedule.timetable() {
            refuse(true, "schedule.cron", e.to_string());
        }
        found
    }
}

fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    String::deserialize(d).map_err(|_| D::Error::custom("text is wanted"))
}

fn limit<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    // Sums of credits are i64 in the database.
    units::whole::<_, _, 0, { i64::MAX as u64 }>(d)
}

fn database_url<'de, D: Deserializer<'de>>(d: D) -> Result<DatabaseUrl, D::Error> {
    DatabaseUrl::parse(&text(d)?).map_err(D::Error::custom)
}

fn pushgateway<'de, D: Deserializer<'de>>(d: D) -> Result<Option<HttpUrl>, D::Error> {
    let text = text(d)?;
    if text.is_empty() { Ok(None) } else { HttpUrl::parse(&text).map(Some).map_err(D::Error::custom) }
}

fn proxy<'de, D: Deserializer<'de>>(d: D) -> Result<Option<HttpUrl>, D::Error> {
    let text = text(d)?;
    if text.is_empty() {
        return Ok(None);
    }
    let url = HttpUrl::parse(&text);
    url.ok().filter(|url| matches!(url.expose().path(), "" | "/")).map(Some).ok_or_else(|| {
        D::Error::custom("the URL of a proxy is wanted, for instance \"http://proxy.internal:3128\", or \"\"")
    })
}

fn textfile<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    let path = units::path_or_none(d)?;
    match &path {
        Some(path) if path.extension().is_none_or(|e| e != "prom") => Err(D::Error::custom(
            "a file name that ends in \".prom\" is wanted; node_exporter reads no other",
        )),
        Some(_) | None => Ok(path),
    }
}

fn listen<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = text(d)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        D::Error::custom(
            "an address and a port are wanted, for instance \"127.0.0.1:9464\" or \"[::]:9464\", or \"\"",
        )
    })
}

fn job<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let job = text(d)?;
    if ["", ".", ".."].contains(&job.trim()) {
        Err(D::Error::custom("a name is wanted, for instance \"makegood\""))
    } else {
        Ok(job)
    }
}

fn time_zone<'de, D: Deserializer<'de>>(d: D) -> Result<chrono_tz::Tz, D::Error> {
    text(d)?.parse().map_err(|_| {
        D::Error::custom("the name of an IANA time zone is wanted, for instance \"UTC\" or \"Europe/Berlin\"")
    })
}

fn storage_url<'de, D: Deserializer<'de>>(d: D) -> Result<Url, D::Error> {
    const HELP: &str = "\"file:./directory\", \"s3://bucket/prefix\", \"gs://bucket/prefix\" or \
                        \"az://container/prefix\" is wanted";
    let wrong = |why: &str| D::Error::custom(format!("{HELP}{why}"));
    let url = Url::parse(&text(d)?).map_err(|e| wrong(&format!(" ({e})")))?;
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(wrong("; credentials and options come from the environment, not from the URL"));
    }
    match url.scheme() {
        "file" if url.has_host() => {
            Err(wrong("; an absolute path has three slashes: \"file:///var/outputs\""))
        }
        "file" => Ok(url),
        "s3" | "gs" | "az" if url.host_str().is_some_and(|h| !h.is_empty()) => Ok(url),
        "s3" | "gs" | "az" => Err(wrong("; the bucket's name is missing")),
        _ => Err(wrong("")),
    }
}

/// Makes `file:DIR` absolute: `Url::parse` would read `file:./x` as `/x`, a directory that nobody meant.
///
/// Anything else is returned as it is, and judged by [`storage_url`] later.
pub(super) fn absolute_storage(text: &str, working_dir: &Path) -> Option<String> {
    let path = text.strip_prefix("file:")?;
    if path.starts_with('/') || path.is_empty() {
        return None;
    }
    let mut absolute = working_dir.to_path_buf();
    // `./` would stay in the path and show up in every stored output's address.
    absolute.extend(Path::new(path).components().filter(|c| !matches!(c, std::path::Component::CurDir)));
    Url::from_file_path(absolute).ok().map(Into::into)
}
