//! Runs a command that prints a key, without a shell, and limits its time and output.
//!
//! The environment of the command consists of [`PASSED`] and the variables that the provider file
//! lists. Otherwise it would see the keys of other providers and the password of the database. Its
//! standard output is the key. Its standard error is discarded, because it may contain secrets, and
//! errors do not contain its arguments.
//!
//! The command runs in its own process group. The whole group is killed when the command has ended,
//! when it exceeds the time limit, and when the caller is cancelled. A process that has left the
//! group survives, but is not waited for.

use std::ffi::OsString;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long a command may run.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The longest output of a command, in bytes. Tokens have a few KiB.
const OUTPUT_BYTES: u64 = 64 * 1024;

/// How long the output is still read after the command has ended. Only a process that left the
/// process group can keep the pipe open then.
const DRAIN_TIME: Duration = Duration::from_millis(200);
/// The environment variables that every command gets.
const PASSED: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];

/// Why a command gave no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// It could not be started.
    NotStarted(std::io::ErrorKind),
    /// It ended with this exit code; `None`: a signal ended it.
    Failed(Option<i32>),
    /// It took longer than 30 seconds.
    TimedOut,
    /// It printed more than 64 KiB.
    TooMuch,
    /// It printed nothing, or no UTF-8 text.
    NoKey,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(kind) => write!(f, "could not be started ({kind})"),
            Self::Failed(Some(code)) => write!(f, "ended with code {code}"),
            Self::Failed(None) => f.write_str("was ended by a signal"),
            Self::TimedOut => write!(f, "took longer than {} seconds", TIME_LIMIT.as_secs()),
            Self::TooMuch => write!(f, "printed more than {} KiB", OUTPUT_BYTES / 1024),
            Self::NoKey => f.write_str("printed no key"),
        }
    }
}

/// Selects the variables that a command gets.
fn passed(
    pass_env: &[String],
    all: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    all.filter(|(name, _)| {
        PASSED.iter().any(|passed| name == passed) || pass_env.iter().any(|passed| name == passed.as_str())
    })
}

/// Kills a process group when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Fails if the group has already ended.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs `argv` and returns its output without the whitespace around it. `pass_env`: the names of
/// additional environment variables.
pub(super) async fn run(argv: &[String], pass_env: &[String]) -> Result<String, CommandError> {
    run_within(argv, pass_env, TIME_LIMIT).await
}

async fn run_within(argv: &[String], pass_env: &[String], time: Duration) -> Result<String, CommandError> {
    let not_started = |error: std::io::Error| CommandError::NotStarted(error.kind());
    let (program, rest) = argv.split_first().ok_or(CommandError::NoKey)?;
    let mut child = Command::new(program)
        .args(rest)
        .env_clear()
        .envs(passed(pass_env, std::env::vars_os()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let mut stdout = child.stdout.take().ok_or(CommandError::NoKey)?.take(OUTPUT_BYTES + 1);
    let mut output = Vec::new();
    let ended = tokio::time::timeout(time, async {
        let status = tokio::select! {
            read = stdout.read_to_end(&mut output) => {
                read.map_err(not_started)?;
                if output.len() as u64 > OUTPUT_BYTES {
                    return Err(CommandError::TooMuch);
                }
                child.wait().await.map_err(not_started)?
            }
            status = child.wait() => status.map_err(not_started)?,
        };
        Ok(status)
    });
    let status = ended.await.unwrap_or(Err(CommandError::TimedOut))?;
    // A background process of the command may keep the pipe open.
    drop(group);
    if let Ok(read) = tokio::time::timeout(DRAIN_TIME, stdout.read_to_end(&mut output)).await {
        read.map_err(not_started)?;
    }
    if output.len() as u64 > OUTPUT_BYTES {
        return Err(CommandError::TooMuch);
    }
    if !status.success() {
        return Err(CommandError::Failed(status.code()));
    }
    let text = String::from_utf8(output).map_err(|_| CommandError::NoKey)?;
    let key = text.trim();
    if key.is_empty() { Err(CommandError::NoKey) } else { Ok(key.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, time: Duration) -> Result<String, CommandError> {
        run_within(&["/bin/sh", "-c", script].map(str::to_owned), &[], time).await
    }

    #[tokio::test]
    async fn the_output_of_a_command_is_the_key_and_every_failure_has_its_own_error() {
        for (script, output) in [
            ("echo ' token-1 '", Ok("token-1")),
            ("echo token-1; echo noise >&2", Ok("token-1")),
            ("cat", Err(CommandError::NoKey)),
            ("echo", Err(CommandError::NoKey)),
            ("printf '\\377'", Err(CommandError::NoKey)),
            ("echo token-1; exit 3", Err(CommandError::Failed(Some(3)))),
            ("kill -9 $$", Err(CommandError::Failed(None))),
            ("yes", Err(CommandError::TooMuch)),
        ] {
            assert_eq!(sh(script, TIME_LIMIT).await, output.map(str::to_owned), "{script}");
        }
        let none = run(&["/no/such/program".to_owned()], &[]).await;
        assert_eq!(none, Err(CommandError::NotStarted(std::io::ErrorKind::NotFound)));
        assert_eq!(run(&[], &[]).await, Err(CommandError::NoKey));
    }

    #[tokio::test]
    async fn a_command_that_exceeds_the_time_limit_is_aborted() {
        let gave = sh("exec sleep 1000", Duration::from_millis(100)).await;
        assert_eq!(gave, Err(CommandError::TimedOut));
    }

    /// Regression test: a command got every key and password in makegood's environment.
    #[tokio::test]
    async fn a_command_sees_only_the_variables_that_are_listed() {
        let all = ["PATH", "HOME", "FAL_KEY", "DATABASE_URL", "AWS_PROFILE", "PATHS"];
        let all = all.map(|name| (OsString::from(name), OsString::from("x")));
        let passed: Vec<_> =
            passed(&["AWS_PROFILE".to_owned()], all.into_iter()).map(|(name, _)| name).collect();
        assert_eq!(passed, ["PATH", "HOME", "AWS_PROFILE"]);
        let names = sh("env | cut -d= -f1 | tr '\\n' ' '", TIME_LIMIT).await.unwrap();
        let allowed = |name: &str| PASSED.contains(&name) || ["PWD", "OLDPWD", "SHLVL", "_"].contains(&name);
        assert!(names.split(' ').all(allowed), "{names}");
    }

    /// Regression test: a background process that kept the pipe open cost 30 seconds, and survived.
    #[tokio::test]
    async fn background_processes_of_a_command_are_killed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo token-1", pid.display());
        assert_eq!(sh(&script, TIME_LIMIT).await, Ok("token-1".to_owned()));
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        // It counts as dead if it is a zombie that its new parent has not reaped yet.
        let is_alive = || {
            rustix::process::test_kill_process(pid).is_ok()
                && !std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
                    .is_ok_and(|stat| stat.contains(") Z "))
        };
        while is_alive() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
