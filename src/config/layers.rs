//! The sources of settings: the built-in file, a file, the environment and flags. Each is checked
//! key by key before they are merged.
//!
//! The built-in file lists all keys and the type of each value. A source with another key or
//! another type is an error here, because the `config` crate would merge it silently: 7.9 becomes
//! 8, true becomes 1, and an unknown variable is ignored. Every value keeps its origin through the
//! merge, so that errors can name it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use config::{FileFormat, Map, Source, Value, ValueKind};

use super::{ConfigError, LOG_VARIABLE, Problem};

/// The built-in settings, with every key.
pub(super) const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// Variables of makegood that are not settings.
const OTHER_VARIABLES: [&str; 1] = [LOG_VARIABLE];

/// The values of one source, by section and key.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// Section -> key -> value with its origin.
    sections: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Layer {
    fn set(&mut self, key: &str, value: Value) {
        // Callers pass keys of the built-in file; all of them have a section.
        if let Some((section, name)) = key.split_once('.') {
            self.sections.entry(section.to_owned()).or_default().insert(name.to_owned(), value);
        }
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let section = |keys: &BTreeMap<String, Value>| {
            let keys: Map<String, Value> = keys.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            Value::new(None, keys)
        };
        Ok(self.sections.iter().map(|(name, keys)| (name.clone(), section(keys))).collect())
    }
}

/// All keys (`section.key`) with their built-in values.
pub(super) struct Known(BTreeMap<String, Value>);

impl Known {
    /// Reads the built-in file.
    pub(super) fn read() -> Result<Self, ConfigError> {
        let origin = "built-in default".to_owned();
        let mut known = BTreeMap::new();
        for (section, value) in parse(DEFAULT_TOML, Path::new("config/default.toml"))? {
            if let ValueKind::Table(keys) = value.kind {
                for (key, value) in keys {
                    known.insert(format!("{section}.{key}"), Value::new(Some(&origin), value.kind));
                }
            }
        }
        Ok(Self(known))
    }

    /// The built-in settings as the lowest layer.
    pub(super) fn layer(&self) -> Layer {
        let mut layer = Layer::default();
        for (key, value) in &self.0 {
            layer.set(key, value.clone());
        }
        layer
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The built-in value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Reads the file that `--config` names.
    pub(super) fn file(&self, path: &Path, problems: &mut Vec<Problem>) -> Result<Layer, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let origin = format!("file {}", path.display());
        let mut layer = Layer::default();
        for (section, value) in parse(&text, path)? {
            let is_section = self.0.keys().any(|k| k.split_once('.').is_some_and(|(s, _)| s == section));
            match value.kind {
                ValueKind::Table(keys) if is_section => {
                    for (key, value) in keys {
                        let key = format!("{section}.{key}");
                        match self.0.get(&key) {
                            None => problems.push(self.unknown(&key, &origin)),
                            Some(default) => match fits(&value.kind, &default.kind) {
                                Ok(()) => layer.set(&key, Value::new(Some(&origin), value.kind)),
                                Err(right) => problems.push(Problem::new(&key, Some(&value), &origin, right)),
                            },
                        }
                    }
                }
                _ if is_section => {
                    problems.push(Problem::new(
                        &section,
                        None,
                        &origin,
                        format!("expected a section: [{section}]"),
                    ));
                }
                _ => problems.push(self.unknown(&section, &origin)),
            }
        }
        Ok(layer)
    }

    /// Reads `MAKEGOOD__SECTION__KEY` and `DATABASE_URL`; a `MAKEGOOD_…` variable that names no key
    /// is an error.
    pub(super) fn environment(&self, env: &[(OsString, OsString)], problems: &mut Vec<Problem>) -> Layer {
        let mut layer = Layer::default();
        let mut database_url = None;
        for (name, value) in env {
            // A name that is not UTF-8 cannot be ours.
            let Some(name) = name.to_str() else { continue };
            let ours = name.to_ascii_uppercase().starts_with("MAKEGOOD_");
            if name != "DATABASE_URL" && (!ours || OTHER_VARIABLES.contains(&name)) {
                continue;
            }
            let origin = format!("environment variable {name}");
            let key = if name == "DATABASE_URL" {
                Some("database.url")
            } else {
                self.0.keys().map(String::as_str).find(|key| variable(key) == name)
            };
            let Some(text) = value.to_str() else {
                let key = key.unwrap_or(name);
                problems.push(Problem::new(key, None, &origin, "expected UTF-8 text".to_owned()));
                continue;
            };
            match key {
                None if is_service_link(name, text) => {}
                None => problems.push(self.unknown_variable(name)),
                Some("database.url") if text.is_empty() => problems.push(Problem::new(
                    "database.url",
                    Some(&Value::new(None, "")),
                    &origin,
                    "expected a URL that begins with \"sqlite://\" or \"postgres://\"; unset the variable to use \
                     another source"
                        .to_owned(),
                )),
                Some(key) => match self.read_text(key, text, &origin) {
                    Ok(value) if name == "DATABASE_URL" => database_url = Some(value),
                    Ok(value) => layer.set(key, value),
                    Err(problem) => problems.push(*problem),
                },
            }
        }
        if let Some(value) = database_url {
            layer.set("database.url", value);
        }
        layer
    }

    /// Reads flags, given as key and text.
    pub(super) fn flags(&self, flags: &[super::Flag], problems: &mut Vec<Problem>) -> Layer {
        let mut layer = Layer::default();
        for flag in flags {
            let origin = format!("flag {}", flag.name);
            if self.0.contains_key(flag.key) {
                match self.read_text(flag.key, &flag.value, &origin) {
                    Ok(value) => layer.set(flag.key, value),
                    Err(problem) => problems.push(*problem),
                }
            } else {
                problems.push(self.unknown(flag.key, &origin));
            }
        }
        layer
    }

    /// Reads text as the type of the key's built-in value.
    fn read_text(&self, key: &str, text: &str, origin: &str) -> Result<Value, Box<Problem>> {
        let kind = match self.0.get(key).map(|default| &default.kind) {
            Some(ValueKind::I64(_)) => text.parse().map(ValueKind::I64).map_err(|_| A_WHOLE_NUMBER),
            Some(ValueKind::Float(_)) => text.parse().map(ValueKind::Float).map_err(|_| A_NUMBER),
            Some(ValueKind::Boolean(_)) => text.parse().map(ValueKind::Boolean).map_err(|_| A_BOOLEAN),
            // Every other built-in value is text; a test of the built-in file checks that.
            Some(_) | None => Ok(ValueKind::String(text.to_owned())),
        };
        let origin = origin.to_owned();
        match kind {
            Ok(kind) => Ok(Value::new(Some(&origin), kind)),
            Err(right) => {
                Err(Box::new(Problem::new(key, Some(&Value::new(None, text)), &origin, right.to_owned())))
            }
        }
    }

    fn unknown(&self, key: &str, origin: &str) -> Problem {
        let same_name = |known: &&String| known.rsplit('.').next() == key.rsplit('.').next();
        let near = self.0.keys().find(same_name).or_else(|| nearest(key, self.0.keys()));
        let right = near.map_or_else(
            || "there is no such key; config/default.toml lists them all".to_owned(),
            |near| format!("there is no such key; did you mean `{near}`?"),
        );
        Problem::new(key, None, origin, right)
    }

    fn unknown_variable(&self, name: &str) -> Problem {
        let names: Vec<String> = self.0.keys().map(|key| variable(key)).collect();
        let right = nearest(&name.to_ascii_uppercase(), names.iter()).map_or_else(
            || "it names no key; settings are MAKEGOOD__SECTION__KEY with two underscores".to_owned(),
            |near| format!("it names no key; did you mean {near}?"),
        );
        Problem::new(name, None, "environment", right)
    }
}

const A_WHOLE_NUMBER: &str = "expected a whole number, without quotes, decimal point or unit";
const A_NUMBER: &str = "expected a number, for instance 0.5";
const A_BOOLEAN: &str = "expected true or false";

/// The environment variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("MAKEGOOD__{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Checks that a value has the type of the built-in one. The error says what is expected.
fn fits(value: &ValueKind, default: &ValueKind) -> Result<(), String> {
    let right = match (value, default) {
        (ValueKind::String(_), ValueKind::String(_))
        | (ValueKind::I64(_), ValueKind::I64(_))
        // A whole number converts to a float without loss.
        | (ValueKind::Float(_) | ValueKind::I64(_), ValueKind::Float(_))
        | (ValueKind::Boolean(_), ValueKind::Boolean(_)) => return Ok(()),
        (_, ValueKind::I64(_)) => A_WHOLE_NUMBER.to_owned(),
        (_, ValueKind::Float(_)) => A_NUMBER.to_owned(),
        (_, ValueKind::Boolean(_)) => A_BOOLEAN.to_owned(),
        (_, ValueKind::String(text)) => format!("expected text in quotes, for instance {text:?}"),
        (_, other) => format!("expected a value like {other}"),
    };
    Err(right)
}

/// Parses TOML. The error does not quote the file, because the line may hold a password.
fn parse(text: &str, path: &Path) -> Result<Map<String, Value>, ConfigError> {
    if let Err(e) = toml::from_str::<toml::Table>(text) {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        return Err(ConfigError::Syntax { path: path.to_owned(), line, message: e.message().to_owned() });
    }
    config::File::from_str(text, FileFormat::Toml).collect().map_err(ConfigError::Merge)
}

/// Whether Kubernetes has set the variable for a service. A service `makegood-metrics` adds
/// `MAKEGOOD_METRICS_SERVICE_HOST`, `MAKEGOOD_METRICS_PORT=tcp://…` and more to every pod; these
/// are not settings.
fn is_service_link(name: &str, value: &str) -> bool {
    if name.contains("__") {
        return false;
    }
    let numbered_port = name.rsplit_once("_PORT_").is_some_and(|(_, rest)| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|n| n.parse::<u16>().is_ok())
            && parts.next().is_some_and(|p| ["TCP", "UDP", "SCTP"].contains(&p))
    }) || ["_TCP_PORT", "_UDP_PORT", "_SCTP_PORT"].iter().any(|end| name.ends_with(end));
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || numbered_port
        || (name.ends_with("_PORT") && is_address)
}

/// The most similar name, if it is similar enough for a suggestion.
pub(crate) fn nearest<'a, S: AsRef<str> + ?Sized>(
    name: &str,
    names: impl Iterator<Item = &'a S>,
) -> Option<&'a S> {
    names
        .map(|candidate| (strsim::levenshtein(name, candidate.as_ref()), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= (name.len() / 4).max(2))
        .map(|(_, candidate)| candidate)
}
