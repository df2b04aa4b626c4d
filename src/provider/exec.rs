//! Keys from a command: run without a shell, bounded in time and output.
//!
//! Promise: what it writes to its standard error goes nowhere (it may hold anything), what it writes to its
//! standard output is the key and nothing else sees it, and its arguments are not repeated in errors. One
//! that takes too long is killed; so is one that nobody waits for any more.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long a command may run.
const TIME: Duration = Duration::from_secs(30);
/// How much it may say, in bytes. Tokens run to a few KiB.
const OUTPUT_BYTES: u64 = 64 * 1024;

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

/// Runs `argv` and gives what it said, without the spaces around it.
pub(super) async fn run(argv: &[String]) -> Result<String, CommandTrouble> {
    run_within(argv, TIME).await
}

async fn run_within(argv: &[String], time: Duration) -> Result<String, CommandTrouble> {
    let not_started = |error: std::io::Error| CommandTrouble::NotStarted(error.kind());
    let (program, rest) = argv.split_first().ok_or(CommandTrouble::NoKey)?;
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)?;
    let mut stdout = child.stdout.take().ok_or(CommandTrouble::NoKey)?.take(OUTPUT_BYTES + 1);
    let ended = tokio::time::timeout(time, async {
        let mut said = Vec::new();
        stdout.read_to_end(&mut said).await.map_err(not_started)?;
        if said.len() as u64 > OUTPUT_BYTES {
            return Err(CommandTrouble::TooMuch);
        }
        let status = child.wait().await.map_err(not_started)?;
        if !status.success() {
            return Err(CommandTrouble::Failed(status.code()));
        }
        let text = String::from_utf8(said).map_err(|_| CommandTrouble::NoKey)?;
        let key = text.trim();
        if key.is_empty() { Err(CommandTrouble::NoKey) } else { Ok(key.to_owned()) }
    });
    // Dropped here, whatever is left of it is killed.
    ended.await.unwrap_or(Err(CommandTrouble::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, time: Duration) -> Result<String, CommandTrouble> {
        run_within(&["/bin/sh", "-c", script].map(str::to_owned), time).await
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
        let none = run(&["/no/such/program".to_owned()]).await;
        assert_eq!(none, Err(CommandTrouble::NotStarted(std::io::ErrorKind::NotFound)));
        assert_eq!(run(&[]).await, Err(CommandTrouble::NoKey));
    }

    #[tokio::test]
    async fn a_command_that_never_ends_is_given_up() {
        let gave = sh("exec sleep 1000", Duration::from_millis(100)).await;
        assert_eq!(gave, Err(CommandTrouble::TimedOut));
    }
}
