//! Settings as written, checked.
//!
//! Promises: nothing is touched before everything that was set has been understood. An unknown key, a
//! wrong unit, a value that would have to be coerced, a combination that can never work: each is refused
//! with its key, its value, where it was written and what would be right, and all of them at once. No
//! error, and no Debug output of anything here, shows a password.
//!
//! From weakest to strongest: the built-in `config/default.toml`, the file of `--config`, the environment
//! (`MAKEGOOD__SECTION__KEY`), `DATABASE_URL`, flags. [`Settings::load`] reads nothing but its arguments
//! and the one file that they name. Whether a database or a bucket answers is for `makegood check` to say.

mod layers;
mod memory;
mod secret;
mod sections;
mod units;

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
    Brake, Database, Detect, Log, LogFormat, LogLevel, Metrics, Network, Pass, Prefer, Providers, Recovery,
    Release, Schedule, Settings, Storage, Window,
};
pub use units::{parse_size, parse_span};

/// A setting given as a flag.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag as people write it: `--database-url`.
    pub name: &'static str,
    /// The key that it sets: `database.url`.
    pub key: &'static str,
    /// Its value as written.
    pub value: String,
}

/// Where to look for settings. The default looks nowhere: it yields the built-in ones.
#[derive(Clone, Default)]
pub struct LoadArgs {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// The environment, as `std::env::vars_os()` gives it.
    pub env: Vec<(OsString, OsString)>,
    /// Settings given as flags.
    pub flags: Vec<Flag>,
    /// What relative storage paths are relative to; empty: they stay relative to `/`.
    pub working_dir: PathBuf,
}

impl fmt::Debug for LoadArgs {
    // The environment is full of secrets, ours and others'.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadArgs")
            .field("file", &self.file)
            .field("working_dir", &self.working_dir)
            .finish_non_exhaustive()
    }
}

/// Why the settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `--config` cannot be read.
    #[error("could not read the configuration file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file of `--config` is not TOML.
    #[error("the configuration file {} is not valid TOML, at line {line}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where it stops being TOML, from 1.
        line: usize,
        /// What was expected there; never what stands there.
        message: String,
    },
    /// The layers do not merge.
    #[error("could not merge the settings")]
    Merge(#[source] config::ConfigError),
    /// What was set is not right.
    #[error("the settings are refused, nothing was touched:{}", list(.0))]
    Refused(Vec<Problem>),
}

/// One setting that is not right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `section.key`, or the environment variable that names none.
    pub key: String,
    /// Its value as written, without secrets; none where there is no telling what it is.
    pub value: Option<String>,
    /// Where it was written.
    pub origin: String,
    /// What would be right.
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

/// A value for people: cut, escaped, and without what could be a secret.
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
    /// Merges all layers, and refuses what is not right in any of them.
    ///
    /// # Errors
    /// See [`ConfigError`]; nothing was touched.
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
            && let Some(absolute) = sections::absolute_storage(url, &args.working_dir)
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

/// A proxy's password that stands in a file.
fn password_in_file(settings: Option<&Settings>, merged: &Value) -> Option<Problem> {
    const KEY: &str = "network.proxy";
    let proxy = settings?.network.proxy.as_ref()?;
    let value = find(merged, KEY);
    let in_file = origin(value).starts_with("file ");
    let variable = layers::variable(KEY);
    (in_file && proxy.expose().password().is_some()).then(|| {
        let right = format!("a password is kept out of files: give the URL in {variable} instead");
        Problem::new(KEY, value, origin(value), right)
    })
}

/// Reads the merged settings. A value that is refused is noted and replaced by the built-in one, so that all
/// problems are found at once; the result of such a reading is only good for finding more.
fn read_all(mut json: Json, known: &Known, merged: &Value, problems: &mut Vec<Problem>) -> Option<Settings> {
    loop {
        let error = match serde_path_to_error::deserialize::<_, Settings>(json.clone()) {
            Ok(settings) => return Some(settings),
            Err(error) => error,
        };
        let key = error.path().to_string();
        let value = find(merged, &key);
        problems.push(Problem::new(&key, value, origin(value), wanted(&error.into_inner().to_string())));
        let pointer = format!("/{}", key.replace('.', "/"));
        let default = known.value(&key).map(|default| to_json(&default.kind));
        match (json.pointer_mut(&pointer), default) {
            // What is refused although it is built in would be refused for ever.
            (Some(place), Some(default)) if *place != default => *place = default,
            _ => return None,
        }
    }
}

/// serde's words for a choice say first what is wrong; people need what would be right.
fn wanted(message: &str) -> String {
    match message.split_once("expected ") {
        Some((_, choices)) => format!("{} is wanted", choices.replace('`', "\"")),
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

/// The same value for serde's strict reading; the `config` crate's own would coerce.
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
