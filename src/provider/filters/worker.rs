//! The worker process, which only runs filters. A filter that does not terminate, or that uses too
//! much memory, can be killed with it.
//!
//! A worker is makegood's own executable with the hidden command `filter-worker`. It has no
//! environment, no further arguments and no files. It reads calls from its standard input and
//! answers on its standard output (`wire`).
//!
//! Before it reads anything from a provider, it sets its own resource limits: CPU time for each run
//! (`RLIMIT_CPU`), memory (`RLIMIT_DATA`, and `RLIMIT_AS` with a margin for reserved address
//! space), and no core file. It exits when its standard input is closed, also during a run; so no
//! worker survives if makegood crashes. It ignores SIGTERM, because a service manager sends it to
//! all processes of a service while makegood still finishes its work.

use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::super::filter::Filter;
use super::wire::{self, Handshake};

/// The hidden command.
pub(super) const COMMAND: &str = "filter-worker";
/// The address space in addition to the permitted memory: for the executable, the libraries, and
/// the reservations of the allocator.
const RESERVED_BYTES: u64 = 1 << 30;
/// The stack size of the thread that waits until standard input is closed.
const WATCH_STACK_BYTES: usize = 256 << 10;

/// Whether this process was started as a worker.
pub fn is_worker() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == COMMAND)
}

/// Runs a worker until its standard input is closed.
pub fn worker() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "makegood: the filter worker failed: {error}. `{COMMAND}` is internal; makegood itself starts it to run filters"
            );
            ExitCode::from(2)
        }
    }
}

fn serve() -> io::Result<()> {
    limit(Resource::Core, 0)?;
    // If the machine runs out of memory, Linux kills a worker first, not makegood. Other systems
    // have no such file.
    let _written = std::fs::write("/proc/self/oom_score_adj", "1000");
    ignore_sigterm()?;
    let mut stdin = io::stdin().lock();
    let handshake = wire::read_handshake(&mut stdin)?;
    limit(Resource::Data, handshake.memory_bytes)?;
    limit(Resource::As, handshake.memory_bytes.saturating_add(RESERVED_BYTES))?;
    end_with_stdin()?;
    allow_cpu(&handshake)?;
    let mut programs = BTreeMap::new();
    for (name, code) in &handshake.programs {
        programs.insert(name.as_str(), Filter::compile(code).map_err(io::Error::other)?);
    }
    let mut stdout = BufWriter::new(io::stdout().lock());
    while let Some((program, call)) = wire::read_call(&mut stdin)? {
        let filter =
            programs.get(program.as_str()).ok_or_else(|| io::Error::other("there is no such filter"))?;
        allow_cpu(&handshake)?;
        let run = wire::run(filter, call);
        wire::write_run(&mut stdout, &run, handshake.max_output_bytes)?;
    }
    Ok(())
}

/// Permits the CPU time of one more run. If it is exceeded, the process is killed by SIGXCPU.
fn allow_cpu(handshake: &Handshake) -> io::Result<()> {
    let used = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or(0);
    // The limit counts whole seconds, so add one for the second that has already started.
    let soft = used.saturating_add(1).saturating_add(handshake.cpu_secs);
    // Do not lower the hard limit: it could not be raised again for the next run.
    let hard = rustix::process::getrlimit(Resource::Cpu).maximum;
    let current = Some(hard.map_or(soft, |hard| soft.min(hard)));
    setrlimit(Resource::Cpu, Rlimit { current, maximum: hard })?;
    Ok(())
}

/// Lowers a resource limit permanently.
fn limit(resource: Resource, bytes: u64) -> io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum;
    let limit = Some(hard.map_or(bytes, |hard| bytes.min(hard)));
    setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    Ok(())
}

/// Exits the process when the other end of standard input is closed, also while a filter runs.
fn end_with_stdin() -> io::Result<()> {
    let wait = || {
        let stdin = io::stdin();
        // No events are requested, so this returns only when the other end is closed.
        let mut watched = [PollFd::new(&stdin, PollFlags::empty())];
        while poll(&mut watched, None) == Err(rustix::io::Errno::INTR) {}
        std::process::exit(0);
    };
    std::thread::Builder::new().stack_size(WATCH_STACK_BYTES).spawn(wait).map(drop)
}

/// Ignores SIGTERM. The handler remains after its runtime has been dropped.
fn ignore_sigterm() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map(drop)
}
