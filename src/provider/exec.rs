//! Runs a command that prints a key: without a shell, bounded in time and output.
//!
//! The command gets an environment of [`PASSED`] and the variables that the provider's file lists,
//! so that it sees no other provider's key and no password of the database. Its standard error is
//! discarded, because it may hold anything. Its standard output is the key; nothing else sees it,
//! and errors do not repeat its arguments.
//!
//! The command leads a process group of its own. The whole group is killed when the command has
//! ended, when it takes too long, and when nobody waits for the key any more. A process that has
//! left the group survives, but is not waited for.

use std::ffi::OsString;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long a command may run.
const TIME: Duration = Duration::from_secs(30);
/// How much it may say, in bytes. Tokens run to a few KiB.
const OUTPUT_BYTES: u64 = 64 * 1024;

/// How long the output is read after the command has ended. Only a process that it left behind, and
/// that is in no group of ours, still holds it open then.
const DRAIN_TIME: Duration = Duration::from_millis(200);
/// The environment variables that every command gets.
const PASSED: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];

/// Why a command gave no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandTrouble {
    /// It could not be started.
    NotStarted(std::io::ErrorKind),
    /// It ended with this code; none: a signal ended it.
    Failed(Option<i32>),
    /// It took longer than 30 seconds.
    TimedOut,
    /// It said more than 64 KiB.
    TooMuch,
    /// It said nothing, or what is no text.
    NoKey,
}

impl fmt::Display for CommandTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(kind) => write!(f, "could not be started ({kind})"),
            Self::Failed(Some(code)) => write!(f, "ended with code {code}"),
            Self::Failed(None) => f.write_str("was ended by a signal"),
            Self::TimedOut => write!(f, "took longer than {} seconds", TIME.as_secs()),
            Self::TooMuch => write!(f, "said more than {} KiB", OUTPUT_BYTES / 1024),
            Self::NoKey => f.write_str("said nothing that could be a key"),
        }
    }
}

/// The variables of `all` that a command gets.
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
            // Fails where nothing of the group is left.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs `argv` with the environment variables that `pass_env` names and gives what it printed,
/// without the spaces around it.
pub(super) async fn run(argv: &[String], pass_env: &[String]) -> Result<String, CommandTrouble> {
    run_within(argv, pass_env, TIME).await
}

async fn run_within(argv: &[String], pass_env: &[String], time: Duration) -> Result<String, CommandTrouble> {
    let not_started = |error: std::io::Error| CommandTrouble::NotStarted(error.kind());
    let (program, rest) = argv.split_first().ok_or(CommandTrouble::NoKey)?;
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
    let mut stdout = child.stdout.take().ok_or(CommandTrouble::NoKey)?.take(OUTPUT_BYTES + 1);
    let mut said = Vec::new();
    let ended = tokio::time::timeout(time, async {
        let status = tokio::select! {
            read = stdout.read_to_end(&mut said) => {
                read.map_err(not_started)?;
                if said.len() as u64 > OUTPUT_BYTES {
                    return Err(CommandTrouble::TooMuch);
                }
                child.wait().await.map_err(not_started)?
            }
            status = child.wait() => status.map_err(not_started)?,
        };
        Ok(status)
    });
    let status = ended.await.unwrap_or(Err(CommandTrouble::TimedOut))?;
    // What it left behind may hold the output open.
    drop(group);
    if let Ok(read) = tokio::time::timeout(DRAIN_TIME, stdout.read_to_end(&mut said)).await {
        read.map_err(not_started)?;
    }
    if said.len() as u64 > OUTPUT_BYTES {
        return Err(CommandTrouble::TooMuch);
    }
    if !status.success() {
        return Err(CommandTrouble::Failed(status.code()));
    }
    let text = String::from_utf8(said).map_err(|_| CommandTrouble::NoKey)?;
    let key = text.trim();
    if key.is_empty() { Err(CommandTrouble::NoKey) } else { Ok(key.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, time: Duration) -> Result<String, CommandTrouble> {
        run_within(&["/bin/sh", "-c", script].map(str::to_owned), &[], time).await
    }

    #[tokio::test]
    async fn what_a_command_says_is_the_key_and_every_way_to_say_none_has_its_name() {
        for (script, said) in [
            ("echo ' token-1 '", Ok("token-1")),
            ("echo token-1; echo noise >&2", Ok("token-1")),
            ("cat", Err(CommandTrouble::NoKey)),
            ("echo", Err(CommandTrouble::NoKey)),
            ("printf '\\377'", Err(CommandTrouble::NoKey)),
            ("echo token-1; exit 3", Err(CommandTrouble::Failed(Some(3)))),
            ("kill -9 $$", Err(CommandTrouble::Failed(None))),
            ("yes", Err(CommandTrouble::TooMuch)),
        ] {
            assert_eq!(sh(script, TIME).await, said.map(str::to_owned), "{script}");
        }
        let none = run(&["/no/such/program".to_owned()], &[]).await;
        assert_eq!(none, Err(CommandTrouble::NotStarted(std::io::ErrorKind::NotFound)));
        assert_eq!(run(&[], &[]).await, Err(CommandTrouble::NoKey));
    }

    #[tokio::test]
    async fn a_command_that_never_ends_is_given_up() {
        let gave = sh("exec sleep 1000", Duration::from_millis(100)).await;
        assert_eq!(gave, Err(CommandTrouble::TimedOut));
    }

    /// It got every key and password of makegood's environment.
    #[tokio::test]
    async fn a_command_sees_only_the_variables_that_are_listed() {
        let all = ["PATH", "HOME", "FAL_KEY", "DATABASE_URL", "AWS_PROFILE", "PATHS"];
        let all = all.map(|name| (OsString::from(name), OsString::from("x")));
        let passed: Vec<_> =
            passed(&["AWS_PROFILE".to_owned()], all.into_iter()).map(|(name, _)| name).collect();
        assert_eq!(passed, ["PATH", "HOME", "AWS_PROFILE"]);
        let names = sh("env | cut -d= -f1 | tr '\\n' ' '", TIME).await.unwrap();
        let allowed = |name: &str| PASSED.contains(&name) || ["PWD", "OLDPWD", "SHLVL", "_"].contains(&name);
        assert!(names.split(' ').all(allowed), "{names}");
    }

    /// One that held the output cost 30 seconds, and lived on.
    #[tokio::test]
    async fn what_a_command_leaves_behind_is_ended_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo token-1", pid.display());
        assert_eq!(sh(&script, TIME).await, Ok("token-1".to_owned()));
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        // Dead, though its new parent may not have collected it yet.
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
