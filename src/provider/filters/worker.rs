//! The worker: a process that only runs filters, so that one that does not end or eats memory can
//! be killed.
//!
//! It is makegood's own executable with the hidden command `filter-worker`. It has no environment,
//! no arguments and no files; it reads calls from its standard input and answers on its standard
//! output (`wire`). Promise: it sets its own limits before it reads anything of a provider's, so
//! that it ends without anybody's help: CPU time for each run (`RLIMIT_CPU`), memory
//! (`RLIMIT_DATA`; `RLIMIT_AS` with room for what is only reserved), no core file. It ends when its
//! standard input is closed, also in the middle of a run: when makegood dies, however it dies, no
//! worker is left. SIGTERM is ignored: a service manager sends it to all processes of a service,
//! and what is at hand is finished.

use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::super::filter::Filter;
use super::wire::{self, Hello};

/// The hidden command.
pub(super) const COMMAND: &str = "filter-worker";
/// Address space beyond the memory that may be used: the executable, libraries, and what an
/// allocator only reserves.
const RESERVED_BYTES: u64 = 1 << 30;
/// The stack of the thread that waits for the end of standard input.
const WATCH_STACK_BYTES: usize = 256 << 10;

/// Whether this process was started as a worker.
pub fn is_worker() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == COMMAND)
}

/// The whole life of a worker.
pub fn worker() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "makegood: `{COMMAND}` is for makegood itself, which starts it to run filters: {error}"
            );
            ExitCode::from(2)
        }
    }
}

fn serve() -> io::Result<()> {
    limit(Resource::Core, 0)?;
    // Where memory runs out for all, Linux ends a worker and not makegood. Elsewhere there is no
    // such file.
    let _written = std::fs::write("/proc/self/oom_score_adj", "1000");
    ignore_sigterm()?;
    let mut stdin = io::stdin().lock();
    let hello = wire::read_hello(&mut stdin)?;
    limit(Resource::Data, hello.memory_bytes)?;
    limit(Resource::As, hello.memory_bytes.saturating_add(RESERVED_BYTES))?;
    end_with_stdin()?;
    allow_cpu(&hello)?;
    let mut programs = BTreeMap::new();
    for (name, code) in &hello.programs {
        programs.insert(name.as_str(), Filter::compile(code).map_err(io::Error::other)?);
    }
    let mut stdout = BufWriter::new(io::stdout().lock());
    while let Some((program, call)) = wire::read_call(&mut stdin)? {
        let filter =
            programs.get(program.as_str()).ok_or_else(|| io::Error::other("there is no such filter"))?;
        allow_cpu(&hello)?;
        let told = wire::run(filter, call);
        wire::write_told(&mut stdout, &told, hello.told_bytes)?;
    }
    Ok(())
}

/// From now on so much more CPU time; what is beyond it ends the process with SIGXCPU.
fn allow_cpu(hello: &Hello) -> io::Result<()> {
    let used = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or(0);
    // The limit has whole seconds: one more for the one that is begun.
    let soft = used.saturating_add(1).saturating_add(hello.cpu_secs);
    // The hard limit stays, otherwise the next run could not have more.
    let hard = rustix::process::getrlimit(Resource::Cpu).maximum;
    let current = Some(hard.map_or(soft, |hard| soft.min(hard)));
    setrlimit(Resource::Cpu, Rlimit { current, maximum: hard })?;
    Ok(())
}

/// Lowers a limit for good.
fn limit(resource: Resource, bytes: u64) -> io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum;
    let limit = Some(hard.map_or(bytes, |hard| bytes.min(hard)));
    setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    Ok(())
}

/// Ends the process when the other end of standard input is closed, whatever a filter does
/// meanwhile.
fn end_with_stdin() -> io::Result<()> {
    let wait = || {
        let stdin = io::stdin();
        // Nothing is asked for, so this returns only when the other end is gone.
        let mut watched = [PollFd::new(&stdin, PollFlags::empty())];
        while poll(&mut watched, None) == Err(rustix::io::Errno::INTR) {}
        std::process::exit(0);
    };
    std::thread::Builder::new().stack_size(WATCH_STACK_BYTES).spawn(wait).map(drop)
}

/// A handler stays for the life of the process, also when its runtime is gone.
fn ignore_sigterm() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map(drop)
}
