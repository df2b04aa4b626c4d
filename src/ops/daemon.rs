//! The daemon: the loop, the scheduler and the pages put together.
//!
//! Promise: the pages answer before the first pass and until the last one has ended. The address is taken
//! first, so that a second daemon on the same one fails at once instead of working unseen. Which signals end
//! it is for `ops::stop`, what a pass does for the caller.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use super::metrics::{self, Process, Totals};
use super::status::{self, Kept, Pages, Readiness, Ready};
use super::stop::Stop;
use crate::clock::Clock;
use crate::schedule::{self, AlarmError, PassEnd, Pulse, SchedulerAlarm, Timetable};

/// A database that takes longer to answer is not ready.
const READY_PATIENCE: Duration = Duration::from_secs(5);
/// How long the result of a check of the database is good for.
const READY_KEPT: Duration = Duration::from_secs(1);

/// What a pass leaves behind for the pages.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub end: PassEnd,
    /// What the database knew at its end; none keeps what the pass before left.
    pub totals: Option<Totals>,
    /// Its report, as it may be shown; none keeps the one of the pass before.
    pub report: Option<Value>,
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The address of the pages is taken, or not ours.
    #[error("could not listen on {address}; check metrics.listen, and whether a daemon is running already")]
    Listen {
        /// As set.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The scheduler gave up.
    #[error("could not run passes on the schedule")]
    Schedule(#[source] AlarmError),
}

/// Takes the address of the pages.
///
/// # Errors
/// It is taken, or not ours.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address).await.map_err(|source| DaemonError::Listen { address, source })
}

/// Everything that the daemon is made of.
#[expect(missing_debug_implementations, reason = "it holds a closure and is built once")]
pub struct Daemon {
    /// When passes run.
    pub timetable: Timetable,
    /// Where the pages are, if anywhere.
    pub listener: Option<TcpListener>,
    /// Who asks to stop.
    pub stop: Stop,
    /// What this process counts.
    pub process: Process,
    /// What the database knew at the start, so that the pages are right before the first pass.
    pub totals: Option<Totals>,
    /// Whether the database answers; otherwise why not, without secrets.
    pub ready: Box<Ready>,
    /// Whether the pages show what the database said.
    pub status_details: bool,
    /// A pass that has not called [`Pulse::beat`] for this long is stuck.
    pub patience: Duration,
}

impl Daemon {
    /// Runs `pass` at each firing until somebody asks to stop. A pass gets the wish to stop, and the pulse to call
    /// [`Pulse::beat`] on as it gets on.
    ///
    /// # Errors
    /// The scheduler gave up. Passes that fail are no error here.
    pub async fn run<P, F>(self, mut pass: P) -> Result<(), DaemonError>
    where
        P: FnMut(Stop, Pulse) -> F,
        F: Future<Output = Ended>,
    {
        let pulse = Pulse::new();
        let totals = Arc::new(Mutex::new(self.totals));
        let report: Arc<Mutex<Option<Value>>> = Arc::default();
        let pages = Pages {
            pulse: pulse.clone(),
            clock: Clock::System,
            patience: self.patience,
            metrics: {
                let (totals, process) = (Arc::clone(&totals), self.process.clone());
                Box::new(move || metrics::render(held(&totals).as_ref(), &process).map_err(|e| e.to_string()))
            },
            ready: Readiness::new(self.ready, READY_PATIENCE, READY_KEPT),
            details: self.status_details,
            report: {
                let report = Arc::clone(&report);
                Box::new(move || held(&report))
            },
            kept: Kept::default(),
        };
        // The pages outlive the wish to stop: the last pass is watched to its end.
        let end = Stop::new();
        let serving = self.listener.map(|listener| {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "answering /metrics, /healthz, /readyz and /status");
            }
            tokio::spawn(status::serve(listener, Arc::new(pages), end.clone()))
        });

        let mut alarm = SchedulerAlarm::start().await.map_err(DaemonError::Schedule)?;
        let one_pass = |stop: Stop| {
            let began = tokio::time::Instant::now();
            let ended = pass(stop, pulse.clone());
            let (totals, report, process) = (&totals, &report, &self.process);
            async move {
                let ended = ended.await;
                process.pass_took(began.elapsed());
                keep(totals, ended.totals);
                keep(report, ended.report);
                ended.end
            }
        };
        let result =
            schedule::run(&self.timetable, &Clock::System, &mut alarm, &self.stop, &pulse, one_pass).await;
        alarm.end().await;
        end.request();
        if let Some(serving) = serving
            && let Err(error) = serving.await
        {
            tracing::warn!(%error, "the status pages ended badly");
        }
        result.map_err(DaemonError::Schedule)
    }
}

fn held<T: Clone>(cell: &Mutex<Option<T>>) -> Option<T> {
    // A value is replaced as a whole, so it is right also where somebody panicked.
    cell.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn keep<T>(cell: &Mutex<Option<T>>, value: Option<T>) {
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
    async fn the_pages_show_what_the_last_pass_left_and_answer_during_the_next() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = listen(address).await.unwrap_err();
        assert!(taken.to_string().contains(&format!("{address}; check metrics.listen")), "{taken}");

        let daemon = Daemon {
            timetable: Timetable::parse("* * * * * *", chrono_tz::UTC).unwrap(),
            listener: Some(listener),
            stop: Stop::new(),
            process: Process::new(Vec::new).unwrap(),
            totals: Some(Totals { orphans_past_window: 3, ..Totals::default() }),
            ready: Box::new(|| Box::pin(async { Ok(()) })),
            status_details: false,
            patience: Duration::from_mins(1),
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
                    let totals = Totals { orphans_past_window: 7, ..Totals::default() };
                    Ended { end: PassEnd::Done, totals: Some(totals), report: Some(json!({"claimed": 41})) }
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
