//! Runs the built binary as an operator does.
//!
//! Each run has a clean environment (only PATH, so that no `MAKEGOOD__…`, `DATABASE_URL` or `AWS_…`
//! of the developer's leaks in), an empty working directory unless one is given, and no terminal.
//! Dropping a [`Run`] kills its process, also when the test panics.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Only a guard against waiting for ever; no test passes or fails by how fast a run is.
const PATIENCE: Duration = Duration::from_mins(5);

/// A command line that is being put together.
#[derive(Debug)]
pub struct Makegood {
    command: Command,
    /// The working directory, unless one was given.
    directory: Option<TempDir>,
}

/// The binary with these arguments.
pub fn makegood(arguments: &[&str]) -> Makegood {
    run_of(env!("CARGO_BIN_EXE_makegood"), arguments)
}

/// Another program, run like the binary.
pub fn run_of(program: &str, arguments: &[&str]) -> Makegood {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Makegood { command, directory: Some(directory) }
}

impl Makegood {
    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in `directory` instead of an empty one.
    pub fn within(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self.directory = None;
        self
    }

    /// Starts it, for tests that talk to it or end it.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(mut self) -> Run {
        let mut child = self.command.spawn().expect("the program is there and can be run");
        let stdout = Collected::from(child.stdout.take().expect("asked for as a pipe"));
        let stderr = Collected::from(child.stderr.take().expect("asked for as a pipe"));
        Run { child, stdout, stderr, _directory: self.directory }
    }

    /// Runs it to its end.
    pub async fn output(self) -> Ended {
        self.start().ended().await
    }
}

/// A running binary.
#[derive(Debug)]
pub struct Run {
    child: Child,
    stdout: Collected,
    stderr: Collected,
    _directory: Option<TempDir>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// The exit status as the system reports it, signals included.
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Waits until `text` appears on standard output or standard error.
    ///
    /// # Panics
    /// The run ended without it, or printed nothing for a very long time.
    pub async fn says(&mut self, text: &str) {
        let seen = tokio::time::timeout(PATIENCE, async {
            loop {
                // Read before the streams, so that the last output is searched too.
                let complete = self.stdout.is_complete() && self.stderr.is_complete();
                let said = self.stdout.text().contains(text) || self.stderr.text().contains(text);
                if said || complete {
                    return said;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(seen.await == Ok(true), "the run never said {text:?}; {}", self.said());
    }

    /// Asks it to finish, as Kubernetes does: SIGTERM.
    pub async fn terminate(&self) {
        let Some(id) = self.child.id() else { return };
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &id.to_string()]).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "SIGTERM could not be sent");
    }

    /// Kills it with SIGKILL, as a lost machine does.
    pub fn kill(&mut self) {
        self.child.start_kill().expect("our own child can be killed");
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether the process has exited.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child can be asked").is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end.
    pub async fn ended(mut self) -> Ended {
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            panic!("the run does not end; {}", self.said());
        };
        let status = status.expect("our own child can be waited for");
        Ended {
            code: status.code(),
            status,
            stdout: self.stdout.whole().await,
            stderr: self.stderr.whole().await,
        }
    }

    /// For the message of a failing test.
    fn said(&self) -> String {
        format!("stdout: {:?}, stderr: {:?}", self.stdout.text(), self.stderr.text())
    }
}

/// The output of a stream so far, read by a thread so that a full pipe never blocks the run.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Collected {
    fn from(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                shared.lock().expect("no holder panics").extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn is_complete(&self) -> bool {
        self.reader.is_finished()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no holder panics")).into_owned()
    }

    async fn whole(&mut self) -> String {
        (&mut self.reader).await.expect("reading does not panic");
        self.text()
    }
}

#[tokio::test]
async fn the_binary_says_its_name_and_version() {
    let ended = makegood(&["--version"]).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, concat!("makegood ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(ended.stderr, "");
}

/// A shell in place of the binary, so that these tests are about the helper alone.
fn shell(script: &str) -> Makegood {
    run_of("sh", &["-c", script])
}

#[tokio::test]
async fn a_run_starts_in_an_empty_directory_with_a_clean_environment() {
    let script = "ls -A | wc -l; env | cut -d= -f1 | grep -vE '^(PATH|PWD|OLDPWD|SHLVL|_)$'";
    let ended = shell(script).env("DATABASE_URL", "sqlite://here.db").output().await;
    let words: Vec<&str> = ended.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "DATABASE_URL"], "{ended:?}");
}

#[tokio::test]
async fn a_run_starts_in_the_given_directory() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("marker"), "").unwrap();
    let ended = shell("ls -A").within(directory.path()).output().await;
    assert_eq!(ended.stdout, "marker\n");
}

#[tokio::test]
async fn a_run_can_be_listened_to_and_asked_to_finish() {
    let script = "trap 'echo bye; exit 3' TERM; echo up >&2; while :; do sleep 0.01; done";
    let mut run = shell(script).start();
    run.says("up").await;

    run.terminate().await;

    let ended = run.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(3), "bye\n", "up\n"));
}

#[tokio::test]
async fn a_run_can_be_killed_and_its_output_is_kept() {
    let mut run = shell("trap '' TERM; echo up; exec sleep 600").start();
    run.says("up").await;

    run.kill();

    let ended = run.ended().await;
    assert_eq!((ended.status.signal(), ended.code), (Some(9), None));
    assert_eq!(ended.stdout, "up\n");
}

#[tokio::test]
async fn more_output_than_a_pipe_holds_does_not_block_a_run() {
    let ended = shell("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2").output().await;
    assert_eq!((ended.code, ended.stdout.len(), ended.stderr.len()), (Some(0), 300_000, 300_000));
}
