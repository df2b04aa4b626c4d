//! Runs filters in worker processes, and stops a run that exceeds its bounds.
//!
//! jaq cannot be interrupted, and a thread cannot be stopped. So a filter that does not terminate
//! (`def f: f; f`), by itself or because of an answer (`[range(.body.count)]`), is stopped by
//! killing its process. Every provider has its own worker, which executes one run at a time, so
//! such a filter delays only the readings of its own provider.
//!
//! A run always ends within its bounds. If it exceeds them, the result is [`FilterStopped`] with
//! the filter and the bound, never a verdict, and the next run gets a new worker. If the caller is
//! cancelled, the worker is killed. Workers exit by themselves if this process crashes (`worker`).
//! [`Runner::InProcess`] runs filters without bounds; it is for tests, for the simulation with its
//! own clock, and for the demo with its own files.

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

pub(super) use self::wire::{FilterCall, FilterRun};
pub use self::worker::{is_worker, worker};
use super::body_decoder::TEXT_BYTES_MAX;
use super::filter::Filter;
use crate::duration::format_exact;

/// The wall-clock limit of a run, as a multiple of its CPU time limit. On a busy machine, a run may
/// have to wait for the CPU.
const WALL_FACTOR: u32 = 30;
/// How many copies of an answer fit into memory in addition to the setting.
const COPIES: u64 = 4;
/// How much longer than the answer the output of a filter may be, in bytes.
const EXTRA_OUTPUT_BYTES: usize = 64 << 10;
/// A body up to this length is written in one call with the header of its message.
const SMALL_BYTES: usize = 32 << 10;

/// The resource limits of one filter run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterBounds {
    /// The CPU time, in whole seconds: `providers.filter_time`.
    pub time: Duration,
    /// The memory in addition to the answer: `providers.filter_memory`.
    pub memory: u64,
    /// The makegood executable, which also is the worker. `None`: the executable of this process. A
    /// test binary is another executable.
    pub executable: Option<PathBuf>,
}

/// A filter of a provider file.
#[derive(Debug)]
pub(super) struct Program {
    /// The key in the file, for example `ask.read`.
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
    /// Compiles the filter of the key `name`.
    pub(super) fn compile(name: &str, code: &str) -> Result<Self, String> {
        Ok(Self { name: name.to_owned(), code: code.to_owned(), filter: Filter::compile(code)? })
    }
}

/// A filter run was stopped, or could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilterStopped {
    /// The key of the filter.
    pub(super) filter: String,
    /// The message for people, with the filter and the bound.
    pub(super) message: String,
    /// Whether the run was started.
    pub(super) is_started: bool,
}

/// Where a provider's filters run.
#[derive(Debug)]
pub(super) enum Runner {
    /// Inside this process. A filter that does not terminate cannot be stopped.
    InProcess,
    /// In a worker process, with bounds.
    Worker(Box<WorkerSlot>),
}

impl Runner {
    /// Creates a runner for the filters of one file. The memory limit does not count files inside
    /// an answer, because they are not sent to the worker (`body_decoder`).
    pub(super) fn worker<'a>(
        bounds: &FilterBounds,
        programs: impl Iterator<Item = &'a Program>,
        max_body_bytes: usize,
    ) -> Self {
        let programs = programs.map(|program| (program.name.clone(), program.code.clone())).collect();
        let text_bytes = max_body_bytes.min(TEXT_BYTES_MAX);
        let copies = COPIES.saturating_mul(text_bytes as u64);
        let handshake = wire::Handshake {
            programs,
            cpu_secs: bounds.time.as_secs().max(1),
            memory_bytes: bounds.memory.saturating_add(copies),
            max_output_bytes: text_bytes.saturating_add(EXTRA_OUTPUT_BYTES),
        };
        let executable = bounds.executable.clone();
        Self::Worker(Box::new(WorkerSlot { handshake, executable, idle: Mutex::default() }))
    }

    /// Runs a filter.
    pub(super) async fn run(&self, program: &Program, call: FilterCall) -> Result<FilterRun, FilterStopped> {
        match self {
            Self::InProcess => Ok(wire::run(&program.filter, call)),
            Self::Worker(workers) => workers.run(program, call).await,
        }
    }

    /// Kills the idle worker, if there is one. The next run starts a new one.
    pub(super) async fn stop_idle_worker(&self) {
        if let Self::Worker(workers) = self
            && let Some(mut worker) = workers.idle.lock().await.take()
        {
            // Fails if the worker has already exited.
            let _ended = worker.child.kill().await;
        }
    }

    /// Runs `work` to completion on a new thread with its own runtime, because the caller may be
    /// inside a runtime. For commands that read one answer, and for tests.
    pub(super) fn block_on<T: Send>(&self, work: impl Future<Output = T> + Send) -> io::Result<T> {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(async {
                let done = work.await;
                // The worker's pipes belong to this runtime and cannot be used after it.
                self.stop_idle_worker().await;
                done
            }))
        };
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// The worker of a provider, if one is running.
#[derive(Debug)]
pub(super) struct WorkerSlot {
    handshake: wire::Handshake,
    executable: Option<PathBuf>,
    /// The lock is held during a run, and the worker is taken out. So a run that is cancelled drops
    /// its worker, which kills it.
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

impl WorkerSlot {
    async fn run(&self, program: &Program, call: FilterCall) -> Result<FilterRun, FilterStopped> {
        let mut idle = self.idle.lock().await;
        loop {
            let mut worker = match idle.take() {
                Some(worker) => worker,
                None => Worker::start(self.executable.as_deref())
                    .map_err(|error| self.stopped(program, &StopCause::NotStarted(error)))?,
            };
            let time = Duration::from_secs(self.handshake.cpu_secs).saturating_mul(WALL_FACTOR);
            let cause =
                match tokio::time::timeout(time, worker.exchange(&self.handshake, program, &call)).await {
                    Ok(Ok(run)) => {
                        worker.is_new = false;
                        *idle = Some(worker);
                        return Ok(run);
                    }
                    Ok(Err(_broken)) => StopCause::Ended(worker.end().await),
                    Err(_elapsed) => {
                        // Fails if the worker has already exited.
                        let _killed = worker.child.kill().await;
                        StopCause::Timeout(time)
                    }
                };
            // A worker that was killed from outside between two runs is not the fault of this
            // filter: try again with a new one.
            if let StopCause::Ended(status) = &cause
                && !worker.is_new
                && !status.is_some_and(has_exceeded_bounds)
            {
                continue;
            }
            return Err(self.stopped(program, &cause));
        }
    }

    fn stopped(&self, program: &Program, cause: &StopCause) -> FilterStopped {
        let name = &program.name;
        let memory = self.handshake.memory_bytes >> 20;
        let message = match cause {
            StopCause::NotStarted(error) => {
                format!("the filter `{name}` was not run: its worker process could not be started ({error})")
            }
            StopCause::Timeout(time) => format!(
                "the filter `{name}` was stopped: it did not end within {}, {WALL_FACTOR} times `providers.filter_time`",
                format_exact(*time)
            ),
            StopCause::Ended(Some(status)) if status.signal() == Some(Signal::XCPU.as_raw()) => format!(
                "the filter `{name}` was stopped: it took more than {} of CPU time (`providers.filter_time`)",
                format_exact(Duration::from_secs(self.handshake.cpu_secs))
            ),
            StopCause::Ended(Some(status)) if has_exceeded_bounds(*status) => format!(
                "the filter `{name}` was stopped: it needed more than {memory} MiB of memory (`providers.filter_memory`) or \
                 recursed too deeply"
            ),
            StopCause::Ended(Some(status)) => {
                format!("the filter `{name}` was stopped: its worker process ended ({status})")
            }
            StopCause::Ended(None) => format!("the filter `{name}` was stopped: its worker process ended"),
        };
        let is_started = !matches!(cause, StopCause::NotStarted(_));
        FilterStopped { filter: name.clone(), message, is_started }
    }
}

/// Why a run was stopped.
enum StopCause {
    NotStarted(io::Error),
    /// It was killed after this time.
    Timeout(Duration),
    /// The worker process exited, or was killed from outside.
    Ended(Option<ExitStatus>),
}

/// Whether a worker was ended by what its filter did. Too much CPU time ends it with SIGXCPU; too
/// much memory or too deep recursion aborts it.
fn has_exceeded_bounds(status: ExitStatus) -> bool {
    let signals = [Signal::XCPU, Signal::ABORT, Signal::SEGV, Signal::BUS];
    status.signal().is_some_and(|signal| signals.iter().any(|bound| bound.as_raw() == signal))
}

impl Worker {
    fn start(executable: Option<&Path>) -> io::Result<Self> {
        let mut child = Command::new(executable.map_or_else(own_executable, |path| Ok(path.to_owned()))?)
            .arg(worker::COMMAND)
            .env_clear()
            // In its own process group: Ctrl-C must reach only makegood, which finishes its work.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let lost = || io::Error::other("it has no pipes");
        let (stdin, stdout) = (child.stdin.take().ok_or_else(lost)?, child.stdout.take().ok_or_else(lost)?);
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), is_new: true })
    }

    /// Executes one run. An error means that the worker has exited or sent an invalid message.
    async fn exchange(
        &mut self,
        handshake: &wire::Handshake,
        program: &Program,
        call: &FilterCall,
    ) -> io::Result<FilterRun> {
        let mut frame = if self.is_new { wire::message(handshake)? } else { Vec::new() };
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
        if length > handshake.max_output_bytes {
            return Err(io::Error::other("the answer of the worker is too long"));
        }
        let mut text = vec![0; length];
        self.stdout.read_exact(&mut text).await?;
        Ok(wire::read_run(&text))
    }

    /// Waits until the worker has exited, and kills it after one second.
    async fn end(&mut self) -> Option<ExitStatus> {
        // The broken pipe is noticed shortly before the process has exited. Wait for its status,
        // because its signal tells the cause.
        if let Ok(status) = tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await {
            return status.ok();
        }
        let _killed = self.child.start_kill();
        self.child.wait().await.ok()
    }
}

/// The executable of this process. On Linux, this path stays valid if the file has been replaced,
/// so that both processes have the same version.
fn own_executable() -> io::Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() { Ok(own) } else { std::env::current_exe() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_limit_counts_copies_of_the_text_of_an_answer_but_not_its_files() {
        let bounds = FilterBounds { time: Duration::from_secs(2), memory: 64 << 20, executable: None };
        for (max_body_bytes, mib) in [(4 << 20, 80), (16 << 20, 128), (256 << 20, 128)] {
            let Runner::Worker(workers) = Runner::worker(&bounds, std::iter::empty(), max_body_bytes) else {
                panic!("no worker");
            };
            assert_eq!(workers.handshake.memory_bytes, mib << 20, "{max_body_bytes}");
        }
    }
}
