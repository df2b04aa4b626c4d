//! Reads and checks the settings.
//!
//! Nothing is changed before all settings are valid. An unknown key, a wrong unit, a value that
//! would have to be coerced, and an impossible combination are errors. Each error names the key,
//! the value, where it was written, and a correct value; all errors are reported at once. No error
//! and no Debug output shows a password.
//!
//! The sources, from the lowest to the highest precedence: the built-in `config/default.toml`, the
//! file of `--config`, the environment (`MAKEGOOD__SECTION__KEY`), `DATABASE_URL`, flags.
//! [`Settings::load`] reads only its arguments and the file that they name. `makegood check` tests
//! whether the database and the storage can be reached.

mod contradictions;
mod layers;
mod memory;
mod secret;
mod sections;
mod units;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use config::{Value, ValueKind};
use serde_json::Value as Json;

use layers::Known;
pub(crate) use layers::nearest;
pub use memory::share_of_limit;
pub use secret::{DatabaseKind, DatabaseUrl, HttpUrl, redact};
pub use sections::{
    BrakeSettings, DatabaseSettings, DetectSettings, LogFormat, LogLevel, LogSettings, MetricsSettings,
    NetworkSettings, PassSettings, Prefer, ProvidersSettings, RecoverySettings, Release, ScheduleSettings,
    Settings, StorageSettings, WindowSettings,
};
pub use units::{parse_size, parse_span};

/// The environment variable that filters the log by target. It overrides `log.level`.
pub const LOG_VARIABLE: &str = "MAKEGOOD_LOG";

/// A setting given as a flag.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag, such as `--database-url`.
    pub name: &'static str,
    /// The key that it sets, such as `database.url`.
    pub key: &'static str,
    /// The value as written.
    pub value: String,
}

/// The sources of settings. The default has none, so only the built-in settings apply.
#[derive(Clone, Default)]
pub struct LoadArgs {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// The environment, as `std::env::vars_os()` gives it.
    pub env: Vec<(OsString, OsString)>,
    /// Settings given as flags.
    pub flags: Vec<Flag>,
    /// The directory that relative storage paths are resolved against; empty: `/`.
    pub working_dir: PathBuf,
}

impl fmt::Debug for LoadArgs {
    // The environment contains secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadArgs")
            .field("file", &self.file)
            .field("working_dir", &self.working_dir)
            .finish_non_exhaustive()
    }
}

/// Why the settings were rejected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `--config` cannot be read.
    #[error("could not read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file of `--config` is not TOML.
    #[error("the configuration file {} is not valid TOML, at line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line of the error, from 1.
        line: usize,
        /// The problem. It never quotes the line, which may hold a password.
        message: String,
    },
    /// The layers cannot be merged.
    #[error("could not merge the settings")]
    Merge(#[source] config::ConfigError),
    /// At least one setting is invalid.
    #[error("the settings are invalid, nothing was changed:{}", list(.0))]
    Refused(Vec<Problem>),
}

/// One invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `section.key`, or an environment variable that names no key.
    pub key: String,
    /// The value as written, without secrets; none if it cannot be shown.
    pub value: Option<String>,
    /// Where it was written.
    pub origin: String,
    /// The problem, and a correct value.
    pub right: String,
}

impl Problem {
    fn new(key: &str, value: Option<&Value>, origin: &str, right: String) -> Self {
        let value = value.map(|value| show(key, &value.kind));
        Self { key: key.to_owned(), value, origin: origin.to_owned(), right }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin, right } = self;
        match value {
            Some(value) => write!(f, "`{key}` is {value} ({origin}): {right}"),
            None => write!(f, "`{key}` ({origin}): {right}"),
        }
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + "\n  " + &problem.to_string())
}

/// A value for an error message: shortened, escaped, and without anything that may be a secret.
fn show(key: &str, value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => {
            let is_url =
                ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
            if key == "database.url" && !text.is_empty() && !is_url {
                // It may be the bare password.
                return "(not shown)".to_owned();
            }
            let text = redact(text);
            let cut: String = text.chars().take(120).collect();
            let more = if cut.len() < text.len() { " (cut)" } else { "" };
            format!("{cut:?}{more}")
        }
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::Float(number) => format!("{number:?}"),
        ValueKind::Nil
        | ValueKind::Boolean(_)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_) => value.to_string(),
    }
}

impl Settings {
    /// Merges all layers and checks the result.
    ///
    /// # Errors
    /// See [`ConfigError`]. Nothing was changed.
    pub fn load(args: &LoadArgs) -> Result<Self, ConfigError> {
        let known = Known::read()?;
        let mut problems = Vec::new();
        let file = match &args.file {
            Some(path) => known.file(path, &mut problems)?,
            None => layers::Layer::default(),
        };
        let env = known.environment(&args.env, &mut problems);
        let flags = known.flags(&args.flags, &mut problems);
        let merged = config::Config::builder()
            .add_source(known.layer())
            .add_source(file)
            .add_source(env)
            .add_source(flags)
            .build()
            .map_err(ConfigError::Merge)?
            .cache;

        let mut json = to_json(&merged.kind);
        if let Some(Json::String(url)) = json.pointer_mut("/storage/url")
            && let Some(absolute) = values::absolute_storage(url, &args.working_dir)
        {
            *url = absolute;
        }
        let settings = read_all(json, &known, &merged, &mut problems);
        problems.extend(password_in_file(settings.as_ref(), &merged));
        if let (Some(settings), true) = (&settings, problems.is_empty()) {
            problems.extend(settings.contradictions().into_iter().map(|found| {
                let value = find(&merged, found.key);
                Problem::new(found.key, value, origin(value), found.right)
            }));
        }
        match settings {
            Some(settings) if problems.is_empty() => Ok(settings),
            Some(_) | None => Err(ConfigError::Refused(problems)),
        }
    }
}

/// Finds a proxy's password in a file.
fn password_in_file(settings: Option<&Settings>, merged: &Value) -> Option<Problem> {
    const KEY: &str = "network.proxy";
    let proxy = settings?.network.proxy.as_ref()?;
    let value = find(merged, KEY);
    let in_file = origin(value).starts_with("file ");
    let variable = layers::variable(KEY);
    (in_file && proxy.expose().password().is_some()).then(|| {
        let right = format!("a password must not be in a file; set the URL in {variable} instead");
        Problem::new(KEY, value, origin(value), right)
    })
}

/// Reads the merged settings. An invalid value is recorded and replaced by the built-in one, so
/// that all problems are found at once. After a replacement the result is used only to find more
/// problems.
fn read_all(mut json: Json, known: &Known, merged: &Value, problems: &mut Vec<Problem>) -> Option<Settings> {
    loop {
        let error = match serde_path_to_error::deserialize::<_, Settings>(json.clone()) {
            Ok(settings) => return Some(settings),
            Err(error) => error,
        };
        let key = error.path().to_string();
        let value = find(merged, &key);
        problems.push(Problem::new(&key, value, origin(value), expected(&error.into_inner().to_string())));
        let pointer = format!("/{}", key.replace('.', "/"));
        let default = known.value(&key).map(|default| to_json(&default.kind));
        match (json.pointer_mut(&pointer), default) {
            // A built-in value that is invalid would loop for ever.
            (Some(place), Some(default)) if *place != default => *place = default,
            _ => return None,
        }
    }
}

/// Keeps the part of a serde message that names the valid choices.
fn expected(message: &str) -> String {
    match message.split_once(", expected ") {
        Some((_, choices)) => format!("expected {}", choices.replace('`', "\"")),
        None => message.to_owned(),
    }
}

fn find<'a>(merged: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(merged, |value, part| match &value.kind {
        ValueKind::Table(table) => table.get(part),
        ValueKind::Nil
        | ValueKind::Boolean(_)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Float(_)
        | ValueKind::String(_)
        | ValueKind::Array(_) => None,
    })
}

fn origin(value: Option<&Value>) -> &str {
    value.and_then(Value::origin).unwrap_or("unknown origin")
}

/// The value for serde's strict reading; the `config` crate would coerce it.
fn to_json(value: &ValueKind) -> Json {
    match value {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(value) => (*value).into(),
        ValueKind::I64(value) => (*value).into(),
        ValueKind::U64(value) => (*value).into(),
        ValueKind::I128(value) => i64::try_from(*value).map_or(Json::Null, Into::into),
        ValueKind::U128(value) => u64::try_from(*value).map_or(Json::Null, Into::into),
        ValueKind::Float(value) => (*value).into(),
        ValueKind::String(value) => value.clone().into(),
        ValueKind::Table(table) => {
            Json::Object(table.iter().map(|(k, v)| (k.clone(), to_json(&v.kind))).collect())
        }
        ValueKind::Array(values) => values.iter().map(|value| to_json(&value.kind)).collect(),
    }
}

#[cfg(test)]
mod tests;
