//! The daemon: runs passes on the schedule and serves the status pages.
//!
//! Promise: the pages answer before the first pass and until the last one has ended. The address is
//! bound first, so that a second daemon with the same address fails at once. `ops::stop` handles
//! signals; the caller supplies the pass.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use super::metrics::{self, MetricTotals, ProcessMetrics};
use super::status::{self, PageCache, Pages, Readiness, ReadyCheck};
use super::stop::Stop;
use crate::clock::Clock;
use crate::schedule::{self, CronSchedule, Heartbeat, PassEnd, SchedulerTimer, TimerError};

/// If the database takes longer to answer, the daemon is not ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the result of a database check is reused.
const READY_CACHE_TIME: Duration = Duration::from_secs(1);

/// The result of one pass, for the pages.
#[derive(Clone, Debug)]
pub struct PassResult {
    /// How it ended.
    pub end: PassEnd,
    /// The totals in the database at its end. `None` keeps those of the pass before.
    pub totals: Option<MetricTotals>,
    /// Its report, without what the pages may not show. `None` keeps that of the pass before.
    pub report: Option<Value>,
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The address of the pages could not be bound.
    #[error("could not listen on {address}; check metrics.listen, and whether a daemon is running already")]
    Listen {
        /// `metrics.listen`.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The scheduler failed.
    #[error("could not run passes on the schedule")]
    Schedule(#[source] TimerError),
}

/// Binds the address of the pages.
///
/// # Errors
/// It is in use, or does not belong to this machine.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address).await.map_err(|source| DaemonError::Listen { address, source })
}

/// The parts of the daemon.
#[expect(missing_debug_implementations, reason = "it holds a closure and is built once")]
pub struct Daemon {
    /// When passes run.
    pub timetable: CronSchedule,
    /// The socket of the pages. `None`: no pages.
    pub listener: Option<TcpListener>,
    /// The stop signal.
    pub stop: Stop,
    /// The counters of this process.
    pub process: ProcessMetrics,
    /// The totals in the database at the start, so that `/metrics` is right before the first pass.
    pub totals: Option<MetricTotals>,
    /// Checks the database. Its errors contain no secrets.
    pub ready: Box<ReadyCheck>,
    /// Whether the pages show error messages of the database.
    pub status_details: bool,
    /// A pass without [`Heartbeat::record_progress`] for this long is reported as stuck.
    pub stall_timeout: Duration,
}

impl Daemon {
    /// Runs `pass` at each firing until a stop is requested. A pass receives the stop signal, and
    /// calls [`Heartbeat::record_progress`] on the heartbeat.
    ///
    /// # Errors
    /// The scheduler failed. A failed pass is not an error here.
    pub async fn run<P, F>(self, mut pass: P) -> Result<(), DaemonError>
    where
        P: FnMut(Stop, Heartbeat) -> F,
        F: Future<Output = PassResult>,
    {
        let heartbeat = Heartbeat::new();
        let totals = Arc::new(Mutex::new(self.totals));
        let report: Arc<Mutex<Option<Value>>> = Arc::default();
        let pages = Pages {
            heartbeat: heartbeat.clone(),
            clock: Clock::System,
            stall_timeout: self.stall_timeout,
            metrics: {
                let (totals, process) = (Arc::clone(&totals), self.process.clone());
                Box::new(move || metrics::render(read(&totals).as_ref(), &process).map_err(|e| e.to_string()))
            },
            ready: Readiness::new(self.ready, READY_TIMEOUT, READY_CACHE_TIME),
            details: self.status_details,
            report: {
                let report = Arc::clone(&report);
                Box::new(move || read(&report))
            },
            cache: PageCache::default(),
        };
        // The pages have a stop signal of their own: they are served until the last pass has ended.
        let end = Stop::new();
        let serving = self.listener.map(|listener| {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "answering /metrics, /healthz, /readyz and /status");
            }
            tokio::spawn(status::serve(listener, Arc::new(pages), end.clone()))
        });

        let mut timer = SchedulerTimer::start().await.map_err(DaemonError::Schedule)?;
        let one_pass = |stop: Stop| {
            let began = tokio::time::Instant::now();
            let ended = pass(stop, heartbeat.clone());
            let (totals, report, process) = (&totals, &report, &self.process);
            async move {
                let ended = ended.await;
                process.observe_pass(began.elapsed());
                replace(totals, ended.totals);
                replace(report, ended.report);
                ended.end
            }
        };
        let result =
            schedule::run(&self.timetable, &Clock::System, &mut timer, &self.stop, &heartbeat, one_pass)
                .await;
        timer.shut_down().await;
        end.request();
        if let Some(serving) = serving
            && let Err(error) = serving.await
        {
            tracing::warn!(%error, "the server of the status pages panicked");
        }
        result.map_err(DaemonError::Schedule)
    }
}

fn read<T: Clone>(cell: &Mutex<Option<T>>) -> Option<T> {
    // A value is always replaced as a whole, so a poisoned lock is harmless.
    cell.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn replace<T>(cell: &Mutex<Option<T>>, value: Option<T>) {
    if value.is_some() {
        *cell.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_pages_show_the_last_result_and_answer_during_the_next_pass() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = listen(address).await.unwrap_err();
        assert!(taken.to_string().contains(&format!("{address}; check metrics.listen")), "{taken}");

        let daemon = Daemon {
            timetable: CronSchedule::parse("* * * * * *", chrono_tz::UTC).unwrap(),
            listener: Some(listener),
            stop: Stop::new(),
            process: ProcessMetrics::new(Vec::new).unwrap(),
            totals: Some(MetricTotals { orphans_past_window: 3, ..MetricTotals::default() }),
            ready: Box::new(|| Box::pin(async { Ok(()) })),
            status_details: false,
            stall_timeout: Duration::from_mins(1),
        };
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut passes = 0;
        daemon
            .run(|stop, _pulse| {
                passes += 1;
                let (number, seen) = (passes, Arc::clone(&seen));
                async move {
                    let metrics = get(address, "/metrics").await;
                    let status = get(address, "/status").await;
                    seen.lock().unwrap().extend([metrics, status]);
                    if number == 2 {
                        stop.request();
                        let ready = get(address, "/readyz").await;
                        seen.lock().unwrap().push(ready);
                    }
                    let totals = MetricTotals { orphans_past_window: 7, ..MetricTotals::default() };
                    PassResult {
                        end: PassEnd::Done,
                        totals: Some(totals),
                        report: Some(json!({"claimed": 41})),
                    }
                }
            })
            .await
            .unwrap();
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 5);
        assert!(seen[0].contains("\nmakegood_orphans_past_window 3\n"), "{}", seen[0]);
        assert!(seen[1].contains("No pass has left a report yet."), "{}", seen[1]);
        assert!(seen[2].contains("\nmakegood_orphans_past_window 7\n"), "{}", seen[2]);
        assert!(seen[2].contains("\nmakegood_pass_duration_seconds_count 1\n"), "{}", seen[2]);
        assert!(seen[3].contains("claimed") && seen[3].contains("41"), "{}", seen[3]);
        assert!(seen[4].starts_with("HTTP/1.1 200 "), "{}", seen[4]);
        assert!(TcpStream::connect(address).await.is_err(), "still listening");
    }
}
