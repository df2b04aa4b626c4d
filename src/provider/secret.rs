//! Keys of providers: where they are found, and how they stay out of everything else.
//!
//! A secret is read when it is needed, not when settings are: a key that is missing or rotated
//! concerns the questions of one provider, never the others. A [`Secret`] prints as `[secret]`; the only
//! ways out are a header marked sensitive and the list of words that answers are cleaned of.
//! Left to others: `redact` cleans answers.

use std::fmt;
use std::path::PathBuf;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

/// Where a key is found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretSource {
    /// In an environment variable of this name.
    Env(String),
    /// In a file, read again each time, so that a rotated key is found; spaces around it do not count.
    File(PathBuf),
}

/// A key. Its value never reaches logs, errors or evidence.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Secret {
    /// The value: for a header, or for finding it in what must not hold it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// A key that is not there, or cannot be used. Says where to put it, never what it is.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or empty.
    #[error("the key of provider `{provider}` is not set: put it into the environment variable {variable}")]
    NotSet {
        /// Whose key.
        provider: String,
        /// Where it is looked for.
        variable: String,
    },
    /// The file cannot be read.
    #[error("the key of provider `{provider}` cannot be read from {}: make the file readable to makegood", path.display())]
    NotReadable {
        /// Whose key.
        provider: String,
        /// Where it is looked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("the key of provider `{provider}` in {} is empty: write the key into the file", path.display())]
    Empty {
        /// Whose key.
        provider: String,
        /// Where it is looked for.
        path: PathBuf,
    },
    /// The key holds characters that no header may hold.
    #[error("the key of provider `{provider}` cannot be sent in an HTTP header: look for a break in it")]
    NotAHeader {
        /// Whose key.
        provider: String,
    },
}

impl SecretSource {
    /// Reads the key.
    pub(super) fn read(&self, provider: &str) -> Result<Secret, SecretError> {
        match self {
            Self::Env(variable) => std::env::var(variable)
                .ok()
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
                .map(Secret)
                .ok_or_else(|| SecretError::NotSet {
                    provider: provider.to_owned(),
                    variable: variable.clone(),
                }),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| SecretError::NotReadable {
                    provider: provider.to_owned(),
                    path: path.clone(),
                    source,
                })?;
                let value = text.trim();
                if value.is_empty() {
                    return Err(SecretError::Empty { provider: provider.to_owned(), path: path.clone() });
                }
                Ok(Secret(value.to_owned()))
            }
        }
    }
}

/// How a provider wants its key: in which header, with which words around it.
#[derive(Clone, Debug)]
pub struct Auth {
    pub(super) header: HeaderName,
    /// Holds `{secret}` once.
    pub(super) value: String,
    pub(super) secret: SecretSource,
}

impl Auth {
    /// Reads the key and puts it into `headers`, replacing one of that name.
    pub(super) fn apply(&self, provider: &str, headers: &mut HeaderMap) -> Result<Secret, SecretError> {
        let secret = self.secret.read(provider)?;
        let mut value = HeaderValue::try_from(self.value.replace("{secret}", secret.expose()))
            .map_err(|_| SecretError::NotAHeader { provider: provider.to_owned() })?;
        value.set_sensitive(true);
        headers.insert(self.header.clone(), value);
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(secret: SecretSource) -> Auth {
        Auth { header: HeaderName::from_static("authorization"), value: "Bearer {secret}".into(), secret }
    }

    #[test]
    fn a_key_is_read_anew_each_time_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let auth = auth(SecretSource::File(path.clone()));
        for key in ["first-key", "second-key"] {
            std::fs::write(&path, format!("{key}\n")).unwrap();
            let mut headers = HeaderMap::new();
            let secret = auth.apply("acme", &mut headers).unwrap();
            assert_eq!(headers["authorization"].to_str().unwrap(), format!("Bearer {key}"));
            assert_eq!(format!("{secret:?} {:?}", headers["authorization"]), "[secret] Sensitive");
        }
    }

    #[test]
    fn a_missing_key_says_where_to_put_it() {
        let error = SecretSource::Env("MAKEGOOD_TEST_NO_SUCH_KEY".into()).read("acme").unwrap_err();
        assert!(error.to_string().contains("MAKEGOOD_TEST_NO_SUCH_KEY"), "{error}");
    }

    #[test]
    fn a_key_with_a_line_break_is_refused_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "two\nlines").unwrap();
        let error = auth(SecretSource::File(path)).apply("acme", &mut HeaderMap::new()).unwrap_err();
        assert!(!error.to_string().contains("lines"), "{error}");
    }
}
