//! Keys of providers: where they are found, and how they stay out of everything else.
//!
//! A secret is read when it is needed, not when settings are: a key that is missing or rotated concerns
//! the questions of one provider, never the others. What a command said is kept for its time to live; a
//! command that fails is not run again for half a minute, so that a night of questions does not become a
//! night of failing commands. A [`Secret`] prints as `[secret]`; the only ways out are a header marked
//! sensitive and the list of words that answers are cleaned of.
//! Left to others: `exec` runs commands, `auth` sends keys, `redact` cleans answers.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::exec::{self, CommandTrouble};
use super::span::Span;

/// The longest key, in bytes.
const KEY_BYTES: u64 = 64 * 1024;
/// How long a command that failed is left alone.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How long after a refusal has made a command run again, further refusals do not.
const AFTER_RENEWAL: Duration = Duration::from_mins(1);

/// Where a key is found.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum SecretSource {
    /// In an environment variable of this name.
    Env(String),
    /// In a file, read again each time, so that a rotated key is found; spaces around it do not count.
    File(PathBuf),
    /// On the standard output of a command.
    Command {
        /// The program and its arguments; no shell in between.
        argv: Vec<String>,
        /// The environment variables that it gets beside the usual ones.
        pass_env: Vec<String>,
        /// How long what it said is used.
        ttl: Duration,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "where the key is, for instance { env = \"NAME\" }")]
struct Written {
    env: Option<String>,
    file: Option<PathBuf>,
    command: Option<Vec<String>>,
    ttl: Option<Span>,
    pass_env: Option<Vec<String>>,
}

impl TryFrom<Written> for SecretSource {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { env, file, command, ttl, pass_env } = written;
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
                    Some(Span(ttl)) if !ttl.is_zero() => {
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
    // A command's arguments may be nobody's business.
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
    /// The command gave no key.
    #[error(
        "the command `{program}` for the key of provider `{provider}` {trouble}: run it by hand as makegood's user"
    )]
    Command {
        /// Whose key.
        provider: String,
        /// The command without its arguments.
        program: String,
        /// What happened.
        trouble: CommandTrouble,
    },
    /// The provider's token endpoint gave no token.
    #[error(
        "no token for provider `{provider}` from {host}: {trouble}. Check the client's id, its secret and `scope`"
    )]
    Token {
        /// Whose token.
        provider: String,
        /// Where it was asked for.
        host: String,
        /// What happened.
        trouble: String,
    },
    /// The key holds characters that no header may hold.
    #[error("the key of provider `{provider}` cannot be sent in an HTTP header: look for a break in it")]
    NotAHeader {
        /// Whose key.
        provider: String,
    },
}

/// A key and where it is found.
#[derive(Debug)]
pub(super) struct Held {
    source: SecretSource,
    kept: Kept<CommandTrouble>,
}

/// A key that something gave for a while: a command, or the provider's token endpoint. `T`: why it
/// gave none.
#[derive(Debug)]
pub(super) struct Kept<T> {
    said: Mutex<Said<T>>,
}

/// What was given last.
#[derive(Debug)]
struct Said<T> {
    /// How often it has been asked for.
    runs: u64,
    key: Option<(Secret, Instant)>,
    failed: Option<(T, Instant)>,
    renewed_at: Option<Instant>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { said: Mutex::new(Said { runs: 0, key: None, failed: None, renewed_at: None }) }
    }
}

impl<T: Clone> Kept<T> {
    /// The key that is kept, or else the one that `ask` gives, and for how long; and which run it
    /// comes from.
    pub(super) async fn get(
        &self,
        ask: impl Future<Output = Result<(Secret, Duration), T>>,
    ) -> Result<(Secret, u64), T> {
        // Held while the key is asked for: everybody waits for one run, nobody begins a second.
        let mut said = self.said.lock().await;
        let now = Instant::now();
        if let Some((secret, until)) = &said.key
            && now < *until
        {
            return Ok((secret.clone(), said.runs));
        }
        if let Some((trouble, until)) = &said.failed
            && now < *until
        {
            return Err(trouble.clone());
        }
        said.runs += 1;
        match ask.await {
            Ok((secret, ttl)) => {
                // From before the run: the key may be as old as that.
                said.key = Some((secret.clone(), now + ttl));
                said.failed = None;
                Ok((secret, said.runs))
            }
            Err(trouble) => {
                said.key = None;
                said.failed = Some((trouble.clone(), Instant::now() + AFTER_FAILURE));
                Err(trouble)
            }
        }
    }

    /// The key of run `run` was refused: whether the next [`Kept::get`] may bring another.
    pub(super) async fn refused(&self, run: u64) -> bool {
        let mut said = self.said.lock().await;
        if said.runs != run {
            return true;
        }
        let now = Instant::now();
        if said.renewed_at.is_some_and(|at| now < at + AFTER_RENEWAL) {
            return false;
        }
        said.renewed_at = Some(now);
        said.key = None;
        true
    }

    /// The run that the last key comes from.
    pub(super) async fn run(&self) -> u64 {
        self.said.lock().await.runs
    }
}

impl Held {
    pub(super) fn new(source: SecretSource) -> Self {
        Self { source, kept: Kept::default() }
    }

    pub(super) const fn source(&self) -> &SecretSource {
        &self.source
    }

    /// The key, and which run of a command it comes from.
    pub(super) async fn get(&self, provider: &str) -> Result<(Secret, u64), SecretError> {
        match &self.source {
            SecretSource::Env(_) | SecretSource::File(_) => self.read(provider).map(|secret| (secret, 0)),
            SecretSource::Command { argv, pass_env, ttl } => {
                let run = async { exec::run(argv, pass_env).await.map(|key| (Secret(key), *ttl)) };
                self.kept.get(run).await.map_err(|trouble| SecretError::Command {
                    provider: provider.to_owned(),
                    program: argv.first().cloned().unwrap_or_default(),
                    trouble,
                })
            }
        }
    }

    /// The key of run `run` was refused: whether the next [`Held::get`] may bring another.
    pub(super) async fn refused(&self, run: u64) -> bool {
        match &self.source {
            SecretSource::Env(_) | SecretSource::File(_) => false,
            SecretSource::Command { .. } => self.kept.refused(run).await,
        }
    }

    /// The run that the last key comes from.
    pub(super) async fn run(&self) -> u64 {
        self.kept.run().await
    }

    /// Reads what needs no command; for a command, an empty key.
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
                    .and_then(|file| file.take(KEY_BYTES).read_to_string(&mut text))
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

    /// A command that says how often it has been run.
    fn counting(dir: &tempfile::TempDir, then: &str) -> Held {
        let log = dir.path().join("runs");
        let script = format!("echo x >> {0}; {then} wc -l < {0}", log.display());
        let argv = ["/bin/sh".to_owned(), "-c".to_owned(), script].to_vec();
        Held::new(SecretSource::Command { argv, pass_env: Vec::new(), ttl: Duration::from_mins(50) })
    }

    fn runs(dir: &tempfile::TempDir) -> usize {
        std::fs::read_to_string(dir.path().join("runs")).unwrap_or_default().lines().count()
    }

    #[test]
    fn a_missing_key_says_where_to_put_it() {
        let held = Held::new(SecretSource::Env("MAKEGOOD_TEST_NO_SUCH_KEY".into()));
        let error = held.read("acme").unwrap_err();
        assert!(error.to_string().contains("MAKEGOOD_TEST_NO_SUCH_KEY"), "{error}");
    }

    #[tokio::test]
    async fn a_command_is_run_once_for_many_questions_and_again_when_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let held = counting(&dir, "");
        let asked = futures_util::future::join_all((0..8).map(|_| held.get("acme"))).await;
        for got in asked {
            assert_eq!(got.unwrap(), (Secret("1".into()), 1));
        }
        assert_eq!(runs(&dir), 1);
        // Its time is over.
        held.kept.said.lock().await.key.as_mut().unwrap().1 = Instant::now();
        assert_eq!(held.get("acme").await.unwrap(), (Secret("2".into()), 2));
    }

    #[tokio::test]
    async fn a_refused_key_makes_the_command_run_again_once() {
        let dir = tempfile::tempdir().unwrap();
        let held = counting(&dir, "");
        let (_, run) = held.get("acme").await.unwrap();
        assert!(held.refused(run).await);
        assert_eq!(held.get("acme").await.unwrap().1, 2);
        assert!(held.refused(run).await, "another question has brought a new key meanwhile");
        assert!(!held.refused(2).await, "the new key is refused too: running again would not help");
        held.get("acme").await.unwrap();
        assert_eq!(runs(&dir), 2);
    }

    #[tokio::test]
    async fn a_command_that_fails_is_left_alone_for_a_while_and_leaks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let held = counting(&dir, "echo my-stderr-secret >&2; exit 7;");
        for _ in 0..5 {
            let error = held.get("acme").await.unwrap_err();
            let text = format!("{error} {error:?} {held:?}");
            assert!(text.contains("ended with code 7") && text.contains("/bin/sh"), "{text}");
            assert!(!text.contains("stderr-secret"), "{text}");
        }
        assert_eq!(runs(&dir), 1);
    }
}
