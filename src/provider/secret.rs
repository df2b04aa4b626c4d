//! Reads the keys of providers, and keeps them out of logs, errors and evidence.
//!
//! A secret is read when a question needs it and not when the settings are loaded. Therefore a
//! missing or rotated key affects only the questions of its provider. The output of a command is
//! cached for its `ttl`. A command that failed is not run again for 30 seconds; otherwise every
//! question of a night could run it once more. A [`Secret`] prints as `[secret]`. Its value is only
//! used in requests that are sent, and to remove it from answers. `exec` runs commands, `auth` sends
//! keys, `redact` removes them from text.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::duration::DurationText;
use super::exec::{self, CommandError};

/// The longest key, in bytes.
const MAX_KEY_BYTES: u64 = 64 * 1024;
/// How long a command or token request that failed is not repeated.
const FAILURE_RETRY_DELAY: Duration = Duration::from_secs(30);
/// The minimum time between two renewals because a key was rejected.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_mins(1);

/// Where a key comes from.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SecretSourceToml")]
pub enum SecretSource {
    /// An environment variable of this name.
    Env(String),
    /// A file. It is read again each time, so that a rotated key is found. Whitespace around the
    /// key is ignored.
    File(PathBuf),
    /// The standard output of a command.
    Command {
        /// The program and its arguments. It is run without a shell.
        argv: Vec<String>,
        /// The environment variables that it gets in addition to the usual ones.
        pass_env: Vec<String>,
        /// How long its output is used.
        ttl: Duration,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the source of the key, for instance { env = \"NAME\" }")]
struct SecretSourceToml {
    env: Option<String>,
    file: Option<PathBuf>,
    command: Option<Vec<String>>,
    ttl: Option<DurationText>,
    pass_env: Option<Vec<String>>,
}

impl TryFrom<SecretSourceToml> for SecretSource {
    type Error = &'static str;

    fn try_from(written: SecretSourceToml) -> Result<Self, Self::Error> {
        let SecretSourceToml { env, file, command, ttl, pass_env } = written;
        if ttl.is_some() && command.is_none() {
            return Err("`ttl` belongs to `command`: variables and files are read each time");
        }
        if pass_env.is_some() && command.is_none() {
            return Err("`pass_env` belongs to `command`: it names the variables that the command gets");
        }
        match (env, file, command) {
            (Some(variable), None, None) => Ok(Self::Env(variable)),
            (None, Some(path), None) => Ok(Self::File(path)),
            (None, None, Some(argv)) => {
                if argv.first().is_none_or(String::is_empty) {
                    return Err("`command` must begin with a program: [\"program\", \"argument\", …]");
                }
                match ttl {
                    Some(DurationText(ttl)) if !ttl.is_zero() => {
                        Ok(Self::Command { argv, pass_env: pass_env.unwrap_or_default(), ttl })
                    }
                    Some(_) | None => {
                        Err("`command` needs a `ttl`, how long its key is good for, for instance `50m`")
                    }
                }
            }
            _ => Err("must be exactly one of `env`, `file` and `command`"),
        }
    }
}

impl fmt::Display for SecretSource {
    // Without the arguments of a command: they may be confidential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(variable) => write!(f, "environment variable {variable}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Command { argv, .. } => {
                write!(f, "command {}", argv.first().map_or("", String::as_str))
            }
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSource({self})")
    }
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
    pub(super) fn new(value: String) -> Self {
        Self(value)
    }

    /// The value: for a header, a signature, or a search for it in text that must not contain it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// A key is missing or cannot be used. The message says where to put it and never contains it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or empty.
    #[error("the key of provider `{provider}` is not set: put it into the environment variable {variable}")]
    NotSet {
        /// The name of the provider.
        provider: String,
        /// The environment variable.
        variable: String,
    },
    /// The file cannot be read.
    #[error("the key of provider `{provider}` cannot be read from {}: make the file readable to makegood", path.display())]
    NotReadable {
        /// The name of the provider.
        provider: String,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("the key of provider `{provider}` in {} is empty: write the key into the file", path.display())]
    Empty {
        /// The name of the provider.
        provider: String,
        /// The file.
        path: PathBuf,
    },
    /// The command printed no key.
    #[error(
        "the command `{program}` for the key of provider `{provider}` {reason}: run it by hand as makegood's user"
    )]
    Command {
        /// The name of the provider.
        provider: String,
        /// The command without its arguments.
        program: String,
        /// Why there is no key.
        reason: CommandError,
    },
    /// The token endpoint returned no token.
    #[error(
        "no token for provider `{provider}` from {host}: {reason}. Check the client's id, its secret and `scope`"
    )]
    Token {
        /// The name of the provider.
        provider: String,
        /// The host of the token endpoint.
        host: String,
        /// Why there is no token.
        reason: String,
    },
    /// The key contains characters that are not permitted in a header.
    #[error("the key of provider `{provider}` cannot be sent in an HTTP header: check it for line breaks")]
    NotAHeader {
        /// The name of the provider.
        provider: String,
    },
}

/// Reads one key from its source. The output of a command is cached.
#[derive(Debug)]
pub(super) struct SecretReader {
    source: SecretSource,
    cache: SecretCache<CommandError>,
}

/// A cache for a key that expires: from a command, or from the provider's token endpoint. `T` is
/// the error if there is none.
#[derive(Debug)]
pub(super) struct SecretCache<T> {
    state: Mutex<CacheState<T>>,
}

/// The result of the last request for a key.
#[derive(Debug)]
struct CacheState<T> {
    /// How often a key was requested. It identifies the run that a key comes from.
    runs: u64,
    key: Option<(Secret, Instant)>,
    failed: Option<(T, Instant)>,
    renewed_at: Option<Instant>,
}

impl<T> Default for SecretCache<T> {
    fn default() -> Self {
        Self { state: Mutex::new(CacheState { runs: 0, key: None, failed: None, renewed_at: None }) }
    }
}

impl<T: Clone> SecretCache<T> {
    /// Returns the cached key, or else the one that `ask` returns with its lifetime. Also returns
    /// the run that it comes from.
    pub(super) async fn get(
        &self,
        ask: impl Future<Output = Result<(Secret, Duration), T>>,
    ) -> Result<(Secret, u64), T> {
        // The lock is held during `ask`, so that concurrent callers wait for the same run.
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some((secret, until)) = &state.key
            && now < *until
        {
            return Ok((secret.clone(), state.runs));
        }
        if let Some((reason, until)) = &state.failed
            && now < *until
        {
            return Err(reason.clone());
        }
        state.runs += 1;
        match ask.await {
            Ok((secret, ttl)) => {
                // The lifetime counts from the start of the run, because the key may be that old.
                state.key = Some((secret.clone(), now + ttl));
                state.failed = None;
                Ok((secret, state.runs))
            }
            Err(reason) => {
                state.key = None;
                state.failed = Some((reason.clone(), Instant::now() + FAILURE_RETRY_DELAY));
                Err(reason)
            }
        }
    }

    /// Reports that the provider rejected the key of `run`. Returns whether the next
    /// [`SecretCache::get`] may return another key.
    pub(super) async fn rejected(&self, run: u64) -> bool {
        let mut state = self.state.lock().await;
        if state.runs != run {
            return true;
        }
        let now = Instant::now();
        if state.renewed_at.is_some_and(|at| now < at + MIN_RENEWAL_INTERVAL) {
            return false;
        }
        state.renewed_at = Some(now);
        state.key = None;
        true
    }

    /// The run that the latest key comes from.
    pub(super) async fn run(&self) -> u64 {
        self.state.lock().await.runs
    }
}

impl SecretReader {
    pub(super) fn new(source: SecretSource) -> Self {
        Self { source, cache: SecretCache::default() }
    }

    pub(super) const fn source(&self) -> &SecretSource {
        &self.source
    }

    /// Returns the key, and the run of the command that it comes from.
    pub(super) async fn get(&self, provider: &str) -> Result<(Secret, u64), SecretError> {
        match &self.source {
            SecretSource::Env(_) | SecretSource::File(_) => self.read(provider).map(|secret| (secret, 0)),
            SecretSource::Command { argv, pass_env, ttl } => {
                let run = async { exec::run(argv, pass_env).await.map(|key| (Secret(key), *ttl)) };
                self.cache.get(run).await.map_err(|reason| SecretError::Command {
                    provider: provider.to_owned(),
                    program: argv.first().cloned().unwrap_or_default(),
                    reason,
                })
            }
        }
    }

    /// Reports that the provider rejected the key of `run`. Returns whether the next
    /// [`SecretReader::get`] may return another key.
    pub(super) async fn rejected(&self, run: u64) -> bool {
        match &self.source {
            SecretSource::Env(_) | SecretSource::File(_) => false,
            SecretSource::Command { .. } => self.cache.rejected(run).await,
        }
    }

    /// The run that the latest key comes from.
    pub(super) async fn run(&self) -> u64 {
        self.cache.run().await
    }

    /// Reads the key from the variable or file. Returns an empty key for a command, without running
    /// it.
    pub(super) fn read(&self, provider: &str) -> Result<Secret, SecretError> {
        match &self.source {
            SecretSource::Env(variable) => std::env::var(variable)
                .ok()
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
                .map(Secret)
                .ok_or_else(|| SecretError::NotSet {
                    provider: provider.to_owned(),
                    variable: variable.clone(),
                }),
            SecretSource::File(path) => {
                let mut text = String::new();
                std::fs::File::open(path)
                    .and_then(|file| file.take(MAX_KEY_BYTES).read_to_string(&mut text))
                    .map_err(|source| SecretError::NotReadable {
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
            SecretSource::Command { .. } => Ok(Secret(String::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a reader whose command prints how often it has been run.
    fn counting(dir: &tempfile::TempDir, then: &str) -> SecretReader {
        let log = dir.path().join("runs");
        let script = format!("echo x >> {0}; {then} wc -l < {0}", log.display());
        let argv = ["/bin/sh".to_owned(), "-c".to_owned(), script].to_vec();
        SecretReader::new(SecretSource::Command { argv, pass_env: Vec::new(), ttl: Duration::from_mins(50) })
    }

    fn runs(dir: &tempfile::TempDir) -> usize {
        std::fs::read_to_string(dir.path().join("runs")).unwrap_or_default().lines().count()
    }

    #[test]
    fn a_missing_key_says_where_to_put_it() {
        let reader = SecretReader::new(SecretSource::Env("MAKEGOOD_TEST_NO_SUCH_KEY".into()));
        let error = reader.read("acme").unwrap_err();
        assert!(error.to_string().contains("MAKEGOOD_TEST_NO_SUCH_KEY"), "{error}");
    }

    #[tokio::test]
    async fn a_command_is_run_once_for_many_questions_and_again_when_its_ttl_has_expired() {
        let dir = tempfile::tempdir().unwrap();
        let reader = counting(&dir, "");
        let asked = futures_util::future::join_all((0..8).map(|_| reader.get("acme"))).await;
        for got in asked {
            assert_eq!(got.unwrap(), (Secret("1".into()), 1));
        }
        assert_eq!(runs(&dir), 1);
        // Let the key expire.
        reader.cache.state.lock().await.key.as_mut().unwrap().1 = Instant::now();
        assert_eq!(reader.get("acme").await.unwrap(), (Secret("2".into()), 2));
    }

    #[tokio::test]
    async fn a_refused_key_makes_the_command_run_again_once() {
        let dir = tempfile::tempdir().unwrap();
        let reader = counting(&dir, "");
        let (_, run) = reader.get("acme").await.unwrap();
        assert!(reader.rejected(run).await);
        assert_eq!(reader.get("acme").await.unwrap().1, 2);
        assert!(reader.rejected(run).await, "another question has renewed the key in the meantime");
        assert!(!reader.rejected(2).await, "the new key is rejected too: another run would not help");
        reader.get("acme").await.unwrap();
        assert_eq!(runs(&dir), 2);
    }

    #[tokio::test]
    async fn a_command_that_failed_is_not_run_again_at_once_and_its_error_leaks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let reader = counting(&dir, "echo my-stderr-secret >&2; exit 7;");
        for _ in 0..5 {
            let error = reader.get("acme").await.unwrap_err();
            let text = format!("{error} {error:?} {reader:?}");
            assert!(text.contains("ended with code 7") && text.contains("/bin/sh"), "{text}");
            assert!(!text.contains("stderr-secret"), "{text}");
        }
        assert_eq!(runs(&dir), 1);
    }
}
