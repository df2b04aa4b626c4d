//! Where filters run: in a worker process for each provider, which is killed when a run takes too
//! much.
//!
//! jaq cannot be interrupted, and a thread cannot be stopped, so a filter that loops (`def f: f;
//! f`) or that an answer makes loop (`[range(.body.count)]`) is stopped with its process. Each
//! provider has a worker of its own, begun with its first question and used by one run at a time: a
//! provider whose filter loops delays its own readings and nobody else's. Promise: a run ends
//! within its bounds. Passing them is [`Stopped`], which says which filter and which bound, and
//! never a verdict; the next run has a new worker. Dropped halfway (the pass is ending), the worker
//! is killed. Workers end by themselves when this process dies, however it dies (`worker`). Filters
//! run inside this process only where that was chosen ([`Runner::InProcess`]): for tests, the
//! simulation, which has a clock of its own, and the demo, whose files are its own.

mod wire;
mod worker;

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

pub(super) use self::wire::{Call, Told};
pub use self::worker::{is_worker, worker};
use super::filter::Filter;
use super::intake::TEXT_BYTES_MAX;
use crate::duration::format_exact;

/// How much longer than its CPU time a run may take: it gets none while the machine is busy with
/// others.
const WALL_FACTOR: u32 = 30;
/// How many copies of an answer a run may make, beside the memory of the setting.
const COPIES: u64 = 4;
/// What a filter may say beyond the answer's own length.
const SAID_BYTES: usize = 64 << 10;
/// Bodies up to this length are written together with what stands before them.
const SMALL_BYTES: usize = 32 << 10;

/// What one run of a filter may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// CPU time, in whole seconds: `providers.filter_time`.
    pub time: Duration,
    /// Memory beside the answer itself: `providers.filter_memory`.
    pub memory: u64,
    /// The makegood command, which is the worker; none: this process's own executable. Tests are
    /// another.
    pub executable: Option<PathBuf>,
}

/// A filter of a provider file.
#[derive(Debug)]
pub(super) struct Program {
    /// The key that it stands under, such as `ask.read`.
    pub(super) name: String,
    code: String,
    filter: Filter,
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.code) == (&other.name, &other.code)
    }
}

impl Program {
    /// Compiles the filter that stands under `name`, or says what is wrong with it.
    pub(super) fn compile(name: &str, code: &str) -> Result<Self, String> {
        Ok(Self { name: name.to_owned(), code: code.to_owned(), filter: Filter::compile(code)? })
    }
}

/// A run that was stopped, or that could not be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    /// The key of the filter.
    pub(super) filter: String,
    /// In words that name the filter and the bound.
    pub(super) why: String,
    /// Whether it was begun at all.
    pub(super) is_begun: bool,
}

/// Where a provider's filters run.
#[derive(Debug)]
pub(super) enum Runner {
    /// Inside this process: nothing stops a filter that does not end.
    InProcess,
    /// In a worker.
    Worker(Box<Workers>),
}

impl Runner {
    /// Workers of this executable for the filters of one file. Files in an answer never reach them
    /// (`intake`).
    pub(super) fn worker<'a>(
        bounds: &Bounds,
        programs: impl Iterator<Item = &'a Program>,
        max_body_bytes: usize,
    ) -> Self {
        let programs = programs.map(|program| (program.name.clone(), program.code.clone())).collect();
        let text_bytes = max_body_bytes.min(TEXT_BYTES_MAX);
        let copies = COPIES.saturating_mul(text_bytes as u64);
        let hello = wire::Hello {
            programs,
            cpu_secs: bounds.time.as_secs().max(1),
            memory_bytes: bounds.memory.saturating_add(copies),
            told_bytes: text_bytes.saturating_add(SAID_BYTES),
        };
        let executable = bounds.executable.clone();
        Self::Worker(Box::new(Workers { hello, executable, idle: Mutex::default() }))
    }

    /// Runs a filter.
    pub(super) async fn run(&self, program: &Program, call: Call) -> Result<Told, Stopped> {
        match self {
            Self::InProcess => Ok(wire::run(&program.filter, call)),
            Self::Worker(workers) => workers.run(program, call).await,
        }
    }

    /// Ends an idle worker; the next run begins one.
    pub(super) async fn rest(&self) {
        if let Self::Worker(workers) = self
            && let Some(mut worker) = workers.idle.lock().await.take()
        {
            // One that has ended by itself is as good.
            let _ended = worker.child.kill().await;
        }
    }

    /// Waits for `work` with this runner, without a runtime: for commands that read one answer, and
    /// for tests.
    pub(super) fn wait_for<T: Send>(&self, work: impl Future<Output = T> + Send) -> io::Result<T> {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(async {
                let done = work.await;
                // A worker belongs to the runtime that began it.
                self.rest().await;
                done
            }))
        };
        // Beside the caller, who may be inside a runtime.
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// The worker of a provider, if there is one.
#[derive(Debug)]
pub(super) struct Workers {
    hello: wire::Hello,
    executable: Option<PathBuf>,
    /// Held during a run; taken out of it meanwhile, so that a run that is dropped takes its worker
    /// with it.
    idle: Mutex<Option<Worker>>,
}

/// A worker with its pipes.
#[derive(Debug)]
struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    is_new: bool,
}

impl Workers {
    async fn run(&self, program: &Program, call: Call) -> Result<Told, Stopped> {
        let mut idle = self.idle.lock().await;
        loop {
            let mut worker = match idle.take() {
                Some(worker) => worker,
                None => Worker::start(self.executable.as_deref())
                    .map_err(|error| self.stopped(program, &Why::NotStarted(error)))?,
            };
            let time = Duration::from_secs(self.hello.cpu_secs).saturating_mul(WALL_FACTOR);
            let why = match tokio::time::timeout(time, worker.exchange(&self.hello, program, &call)).await {
                Ok(Ok(told)) => {
                    worker.is_new = false;
                    *idle = Some(worker);
                    return Ok(told);
                }
                Ok(Err(_broken)) => Why::Ended(worker.end().await),
                Err(_elapsed) => {
                    // One that has ended by itself meanwhile is as good.
                    let _killed = worker.child.kill().await;
                    Why::Wall(time)
                }
            };
            // One that somebody killed between two runs says nothing of this filter.
            if let Why::Ended(status) = &why
                && !worker.is_new
                && !status.is_some_and(passed_a_bound)
            {
                continue;
            }
            return Err(self.stopped(program, &why));
        }
    }

    fn stopped(&self, program: &Program, why: &Why) -> Stopped {
        let name = &program.name;
        let memory = self.hello.memory_bytes >> 20;
        let words = match why {
            Why::NotStarted(error) => {
                format!("the filter `{name}` was not run: its worker process could not be started ({error})")
            }
            Why::Wall(time) => format!(
                "the filter `{name}` was stopped: it did not end within {}, {WALL_FACTOR} times `providers.filter_time`",
                format_exact(*time)
            ),
            Why::Ended(Some(status)) if status.signal() == Some(Signal::XCPU.as_raw()) => format!(
                "the filter `{name}` was stopped: it took more than {} of CPU time (`providers.filter_time`)",
                format_exact(Duration::from_secs(self.hello.cpu_secs))
            ),
            Why::Ended(Some(status)) if passed_a_bound(*status) => format!(
                "the filter `{name}` was stopped: it wanted more than {memory} MiB of memory (`providers.filter_memory`) or \
                 recursed too deeply"
            ),
            Why::Ended(Some(status)) => {
                format!("the filter `{name}` was stopped: its worker process ended ({status})")
            }
            Why::Ended(None) => format!("the filter `{name}` was stopped: its worker process ended"),
        };
        Stopped { filter: name.clone(), why: words, is_begun: !matches!(why, Why::NotStarted(_)) }
    }
}

/// Why a run was stopped.
enum Why {
    NotStarted(io::Error),
    /// Killed after so long.
    Wall(Duration),
    /// Its process ended by itself, or somebody killed it.
    Ended(Option<ExitStatus>),
}

/// Whether a worker ended of what its filter did: CPU time, or memory and depth, which abort.
fn passed_a_bound(status: ExitStatus) -> bool {
    let signals = [Signal::XCPU, Signal::ABORT, Signal::SEGV, Signal::BUS];
    status.signal().is_some_and(|signal| signals.iter().any(|bound| bound.as_raw() == signal))
}

impl Worker {
    fn start(executable: Option<&Path>) -> io::Result<Self> {
        let mut child = Command::new(executable.map_or_else(own_executable, |path| Ok(path.to_owned()))?)
            .arg(worker::COMMAND)
            .env_clear()
            // Ctrl-C at the terminal is for makegood, which finishes what is at hand.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let lost = || io::Error::other("its pipes are lost");
        let (stdin, stdout) = (child.stdin.take().ok_or_else(lost)?, child.stdout.take().ok_or_else(lost)?);
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), is_new: true })
    }

    /// One run. An error: the worker has ended, or says what no worker says.
    async fn exchange(&mut self, hello: &wire::Hello, program: &Program, call: &Call) -> io::Result<Told> {
        let mut frame = if self.is_new { wire::message(hello)? } else { Vec::new() };
        frame.extend(wire::call(&program.name, call)?);
        let body = call.body.as_deref().unwrap_or_default();
        if body.len() <= SMALL_BYTES {
            frame.extend_from_slice(body);
            self.stdin.write_all(&frame).await?;
        } else {
            self.stdin.write_all(&frame).await?;
            self.stdin.write_all(body).await?;
        }
        self.stdin.flush().await?;
        let mut length = [0; 4];
        self.stdout.read_exact(&mut length).await?;
        let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
        if length > hello.told_bytes {
            return Err(io::Error::other("more than the worker may say"));
        }
        let mut text = vec![0; length];
        self.stdout.read_exact(&mut text).await?;
        Ok(wire::read_told(&text))
    }

    /// Kills it, if it has not ended by itself, and waits for its end.
    async fn end(&mut self) -> Option<ExitStatus> {
        // A broken pipe is seen a moment before the end of the process, whose signal says why.
        if let Ok(status) = tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await {
            return status.ok();
        }
        let _killed = self.child.start_kill();
        self.child.wait().await.ok()
    }
}

/// This executable. On Linux by a path that also holds when the file was replaced meanwhile, so
/// that both sides are of one version.
fn own_executable() -> io::Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() { Ok(own) } else { std::env::current_exe() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_may_take_copies_of_an_answers_text_and_not_of_the_files_in_it() {
        let bounds = Bounds { time: Duration::from_secs(2), memory: 64 << 20, executable: None };
        for (max_body_bytes, mib) in [(4 << 20, 80), (16 << 20, 128), (256 << 20, 128)] {
            let Runner::Worker(workers) = Runner::worker(&bounds, std::iter::empty(), max_body_bytes) else {
                panic!("no worker");
            };
            assert_eq!(workers.hello.memory_bytes, mib << 20, "{max_body_bytes}");
        }
    }
}
