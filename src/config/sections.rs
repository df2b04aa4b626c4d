//! The sections of the settings.
//!
//! `units` and `values` read and check each value; `contradictions` checks combinations.
//! `config/default.toml` documents the meaning, unit and default of every key. A test compares it
//! with these types.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::secret::{DatabaseUrl, HttpUrl};
use super::{units, values};
use crate::clock::Timestamp;
use crate::schedule::CronSchedule;

/// All settings, checked. Made by [`Settings::load`](super::Settings::load).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The database.
    pub database: DatabaseSettings,
    /// The time in which orphans are made good.
    pub window: WindowSettings,
    /// Which charges are examined, and when.
    pub detect: DetectSettings,
    /// Provider files and their filters.
    pub providers: ProvidersSettings,
    /// The proxy.
    pub network: NetworkSettings,
    /// Where outputs are stored.
    pub storage: StorageSettings,
    /// How outputs are recovered.
    pub recovery: RecoverySettings,
    /// Late questions: asked after a refund without proof.
    pub late: LateSettings,
    /// How a pass works.
    pub pass: PassSettings,
    /// The limits of refunds.
    pub brake: BrakeSettings,
    /// How metrics reach Prometheus.
    pub metrics: MetricsSettings,
    /// When the daemon starts a pass.
    pub schedule: ScheduleSettings,
    /// The log.
    pub log: LogSettings,
}

/// `[database]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// The URL of the database.
    #[serde(deserialize_with = "values::database_url")]
    pub url: DatabaseUrl,
    /// The maximum number of connections of this process.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 1000>")]
    pub max_connections: u32,
    /// The timeout of a statement, and of waiting for a connection or for a locked SQLite file.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub statement_timeout: Duration,
    /// How long a settle waits for a row lock. Then it postpones the case.
    #[serde(deserialize_with = "units::span::<_, 1>")]
    pub lock_timeout: Duration,
}

/// `[window]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSettings {
    /// The time from the charge in which every orphan is made good (P15).
    #[serde(deserialize_with = "units::span::<_, 60_000>")]
    pub length: Duration,
    /// The time between `refund_by` and the end of the window.
    #[serde(deserialize_with = "units::span::<_, 0>")]
    pub margin: Duration,
}

/// `[detect]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectSettings {
    /// Charges younger than this are not examined, unless the provider's file names another grace.
    #[serde(deserialize_with = "units::span::<_, 0>")]
    pub grace: Duration,
    /// The distance that saved positions keep from charges that may still change.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub overlap: Duration,
    /// Charges before this time are ignored, unless a person asks for them. None, or a time more
    /// than `backlog_age` before the first pass: the limit is `backlog_age` before the first pass.
    #[serde(deserialize_with = "units::instant_or_none")]
    pub start_at: Option<Timestamp>,
    /// How long to wait for an unknown job, or one not yet submitted, to appear.
    #[serde(deserialize_with = "units::span::<_, 0>")]
    pub unknown_job_grace: Duration,
    /// The number of charges that one statement examines.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 100_000>")]
    pub chunk: u32,
    /// The first pass ignores charges that are older than this, unless a person asks for them.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub backlog_age: Duration,
}

/// `[providers]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvidersSettings {
    /// A directory with additional provider files.
    #[serde(deserialize_with = "units::path_or_none")]
    pub dir: Option<PathBuf>,
    /// The limit of CPU time for a filter that reads one answer.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub filter_time: Duration,
    /// The limit of memory for a filter that reads one answer, without the answer itself.
    #[serde(deserialize_with = "units::size")]
    pub filter_memory: u64,
}

/// `[network]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// The HTTP proxy for questions and downloads.
    #[serde(deserialize_with = "values::proxy")]
    pub proxy: Option<HttpUrl>,
}

/// `[storage]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageSettings {
    /// Where outputs are stored: `file`, `s3`, `gs` or `az`. A relative `file` path has been
    /// resolved against the working directory.
    #[serde(deserialize_with = "values::storage_url")]
    pub url: Url,
}

/// `[recovery]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverySettings {
    /// The maximum size of a file. A larger one is not recovered.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: u64,
    /// Whether files may be downloaded from loopback addresses.
    pub allow_loopback: bool,
    /// Whether an output that is still offered is recovered or refunded.
    pub prefer: Prefer,
    /// The maximum number of concurrent downloads from one provider.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 1024>")]
    pub concurrency: usize,
    /// The memory for files and answers, in bytes.
    #[serde(deserialize_with = "units::memory")]
    pub memory: u64,
    /// When the partial files of a killed copy are removed for the last time.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub sweep_after: Duration,
    /// The time limit of one download.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub time_budget: Duration,
}

/// The preference if the provider still offers the output. P16 (recovered instead of refunded).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// Recover it.
    Recover,
    /// Refund all the same.
    Refund,
}

/// `[late]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LateSettings {
    /// The first question is asked this long after the refund; none: there is only the last one.
    #[serde(deserialize_with = "units::span_or_none")]
    pub first_question: Option<Duration>,
    /// The last question is asked this long after the refund; none: there is only the first one.
    #[serde(deserialize_with = "units::span_or_none")]
    pub last_question: Option<Duration>,
    /// The maximum number of these questions in one pass to one provider.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 10_000>")]
    pub questions_per_pass: u32,
}

/// `[pass]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassSettings {
    /// The number of orphans claimed and settled together.
    #[serde(deserialize_with = "units::whole::<_, _, 1, 10_000>")]
    pub batch: u32,
    /// The length of a lease on a claimed orphan.
    #[serde(deserialize_with = "units::span::<_, 1000>")]
    pub lease: Duration,
    /// After this time the pass starts nothing new; none: it runs until nothing is due.
    #[serde(deserialize_with = "units::span_or_none")]
    pub max_duration: Option<Duration>,
}

/// `[brake]`. A limit of 0 means: no limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrakeSettings {
    /// Refunds since the pass began, by all processes.
    #[serde(deserialize_with = "values::limit")]
    pub max_refunds_per_pass: u64,
    /// Refunds for one provider since the pass began, by all processes.
    #[serde(deserialize_with = "values::limit")]
    pub max_refunds_per_pass_per_provider: u64,
    /// Credits refunded since the pass began, by all processes.
    #[serde(deserialize_with = "values::limit")]
    pub max_credits_per_pass: u64,
    /// Refunds in any hour.
    #[serde(deserialize_with = "values::limit")]
    pub max_refunds_per_hour: u64,
    /// Refunds in any 24 hours.
    #[serde(deserialize_with = "values::limit")]
    pub max_refunds_per_day: u64,
    /// Credits refunded in any hour.
    #[serde(deserialize_with = "values::limit")]
    pub max_credits_per_hour: u64,
    /// Credits refunded in any 24 hours.
    #[serde(deserialize_with = "values::limit")]
    pub max_credits_per_day: u64,
    /// Refunds for one provider in any hour.
    #[serde(deserialize_with = "values::limit")]
    pub max_refunds_per_hour_per_provider: u64,
    /// Refunds for one provider in any 24 hours.
    #[serde(deserialize_with = "values::limit")]
    pub max_refunds_per_day_per_provider: u64,
    /// Refunds in any 24 hours, in percent of the charges of that time.
    #[serde(deserialize_with = "units::whole::<_, _, 0, 100>")]
    pub max_refund_share_per_day: u64,
    /// Refunds in any 24 hours caused only by faults of ours.
    #[serde(deserialize_with = "values::limit")]
    pub max_own_fault_refunds_per_day: u64,
    /// Credits refunded in any 24 hours, in percent of the charges of that time at their average
    /// price.
    #[serde(deserialize_with = "units::whole::<_, _, 0, 100>")]
    pub max_credit_share_per_day: u64,
    /// Refunds for one account in any 24 hours. Beyond it, only that account is held.
    #[serde(deserialize_with = "values::limit")]
    pub max_refunds_per_day_per_account: u64,
    /// Credits refunded to one account in any 24 hours.
    #[serde(deserialize_with = "values::limit")]
    pub max_credits_per_day_per_account: u64,
    /// Credits refunded to one account in any 24 hours, in percent of the charges of all accounts
    /// at their average price.
    #[serde(deserialize_with = "units::whole::<_, _, 0, 100>")]
    pub max_credit_share_per_day_per_account: u64,
    /// Who releases the brake.
    pub release: Release,
}

/// Who may release the brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// Only a person.
    ByHand,
    /// A person, or makegood once every sum is at most half of its limit.
    WhenGone,
}

/// `[metrics]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    /// The Pushgateway to which one-shot runs push.
    #[serde(deserialize_with = "values::pushgateway")]
    pub pushgateway: Option<HttpUrl>,
    /// The textfile that one-shot runs write.
    #[serde(deserialize_with = "values::textfile")]
    pub textfile: Option<PathBuf>,
    /// The address on which the daemon listens.
    #[serde(deserialize_with = "values::listen")]
    pub listen: Option<SocketAddr>,
    /// Whether the daemon's pages show account ids and texts from platform and providers.
    pub status_details: bool,
    /// The job name of pushed metrics.
    #[serde(deserialize_with = "values::job")]
    pub job: String,
}

/// `[schedule]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// A cron expression of six fields, seconds first.
    pub cron: String,
    /// The time zone of the expression, by its IANA name.
    #[serde(deserialize_with = "values::time_zone")]
    pub time_zone: chrono_tz::Tz,
}

impl ScheduleSettings {
    /// The times at which passes start.
    ///
    /// # Errors
    /// The expression is invalid or never fires. [`Settings::load`](super::Settings::load) has
    /// checked that.
    pub fn timetable(&self) -> Result<CronSchedule, crate::schedule::CronError> {
        CronSchedule::parse(&self.cron, self.time_zone)
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Which events are logged.
    pub level: LogLevel,
    /// The format.
    pub format: LogFormat,
}

/// Which events are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Failures.
    Error,
    /// Also what a person should examine.
    Warn,
    /// Also what was done.
    Info,
    /// Also why.
    Debug,
    /// Everything.
    Trace,
}

/// The format of the log.
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
