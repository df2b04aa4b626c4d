//! The content of each page, also over real HTTP.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::report::{Finding, PassReport};
use crate::schedule::{self, CronSchedule, Timer, TimerError};

struct Moves(Clock);

impl Timer for Moves {
    async fn wait_until(&mut self, at: Timestamp) -> Result<(), TimerError> {
        self.0.set(at);
        Ok(())
    }
}

/// Runs one pass through the real loop.
async fn one_pass(pages: &Pages, end: PassEnd) {
    let timetable = CronSchedule::parse("0 * * * * *", chrono_tz::UTC).unwrap();
    let stop = Stop::new();
    let mut timer = Moves(pages.clock.clone());
    schedule::run(&timetable, &pages.clock, &mut timer, &stop, &pages.heartbeat, |stop| async move {
        stop.request();
        end
    })
    .await
    .unwrap();
}

fn readiness<F>(kept: Duration, check: impl Fn() -> F + Send + Sync + 'static) -> Readiness
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    Readiness::new(Box::new(move || Box::pin(check())), Duration::from_mins(1), kept)
}

type Database = Arc<Mutex<Result<(), String>>>;

fn pages() -> (Pages, Database) {
    let database: Database = Arc::new(Mutex::new(Ok(())));
    let answer = Arc::clone(&database);
    let pages = Pages {
        heartbeat: Heartbeat::new(),
        clock: Clock::simulated(Timestamp::parse("2026-01-01T00:00:30Z").unwrap()),
        stall_timeout: Duration::from_mins(15),
        metrics: Box::new(|| Ok("makegood_brake_engaged 0\n".to_owned())),
        ready: readiness(Duration::ZERO, move || {
            let answer = answer.lock().unwrap().clone();
            async move { answer }
        }),
        details: true,
        report: Box::new(|| {
            Some(
                json!({"claimed": 3, "refunded": {"server_error": 2}, "late": [], "note": "a\nb", "list": [1, {"x": null}]}),
            )
        }),
        cache: PageCache::default(),
    };
    (pages, database)
}

async fn get(pages: &Pages, path: &str) -> (u16, String) {
    let page = pages.answer(&Method::GET, path).await;
    (page.status.as_u16(), String::from_utf8(page.body.to_vec()).unwrap())
}

fn page(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

#[tokio::test]
async fn readyz_fails_without_the_database_and_after_a_failed_pass() {
    let (mut pages, database) = pages();
    assert_eq!(get(&pages, "/readyz").await, page(200, "ready\n"));
    *database.lock().unwrap() = Err("the database refuses connections".to_owned());
    assert_eq!(get(&pages, "/readyz").await, page(503, "not ready: the database refuses connections\n"));
    pages.details = false;
    let told_to_all = "not ready: the database cannot be used; the log says why, and metrics.status_details = true shows it here\n";
    assert_eq!(get(&pages, "/readyz").await, page(503, told_to_all));
    *database.lock().unwrap() = Ok(());
    one_pass(&pages, PassEnd::Failed).await;
    assert_eq!(get(&pages, "/readyz").await, page(503, "not ready: the last pass failed\n"));
    one_pass(&pages, PassEnd::Failed).await;
    assert_eq!(get(&pages, "/readyz").await, page(503, "not ready: the last 2 passes failed\n"));
    // A failed pass is no reason for a restart.
    assert_eq!(get(&pages, "/healthz").await, page(200, "alive\n"));
    one_pass(&pages, PassEnd::Done).await;
    assert_eq!(get(&pages, "/readyz").await, page(200, "ready\n"));
}

#[tokio::test]
async fn readyz_fails_if_the_database_hangs() {
    let (mut pages, _) = pages();
    let never: Box<ReadyCheck> = Box::new(|| Box::pin(std::future::pending()));
    pages.ready = Readiness::new(never, Duration::from_millis(10), Duration::ZERO);
    assert_eq!(
        get(&pages, "/readyz").await,
        page(503, "not ready: the database did not answer within 10ms\n")
    );
}

#[tokio::test]
async fn pages_are_cached_and_rendered_again_after_a_pass() {
    let (mut pages, _) = pages();
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    pages.metrics = Box::new(move || Ok(count.fetch_add(1, Ordering::Relaxed).to_string()));
    let before = Instant::now();
    let (first, again) = (get(&pages, "/metrics").await, get(&pages, "/metrics").await);
    assert!(first == again || before.elapsed() >= CACHE_TIME, "{first:?} {again:?}");
    let made_before = made.load(Ordering::Relaxed);
    one_pass(&pages, PassEnd::Done).await;
    assert_eq!(get(&pages, "/metrics").await, page(200, &made_before.to_string()));
}

#[tokio::test]
async fn concurrent_readyz_requests_share_one_database_check() {
    let (mut pages, _) = pages();
    let asked = Arc::new(AtomicUsize::new(0));
    let may_answer = Arc::new(Notify::new());
    pages.ready = readiness(Duration::from_hours(1), {
        let (asked, may_answer) = (Arc::clone(&asked), Arc::clone(&may_answer));
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let may_answer = Arc::clone(&may_answer);
            async move {
                may_answer.notified().await;
                Err("no".to_owned())
            }
        }
    });
    // A client that disconnects does not end the check, and requests during the check start no
    // other one.
    assert!(get(&pages, "/readyz").now_or_never().is_none());
    let mut flood: Vec<_> = (0..1000).map(|_| Box::pin(get(&pages, "/readyz"))).collect();
    assert!(flood.iter_mut().all(|each| each.now_or_never().is_none()));
    may_answer.notify_one();
    for answer in futures_util::future::join_all(flood).await {
        assert_eq!(answer, page(503, "not ready: no\n"));
    }
    assert_eq!(get(&pages, "/readyz").await, page(503, "not ready: no\n"));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn the_status_page_shows_no_accounts_and_no_text_of_others() {
    let mut report = PassReport { claimed: 3, ..PassReport::default() };
    for (kind, about) in [
        ("key_refused", "provider fal"),
        ("missing_hash", "item ch_1/0"),
        ("charge_changed", "charge ch_2"),
        ("brake", "account u1@example.com"),
    ] {
        report.add_finding(Finding {
            kind,
            about: about.to_owned(),
            detail: "secret: u1@example.com".to_owned(),
        });
    }
    report.unresolved.brake = Some("secret: the brake".to_owned());
    report.unresolved.own_faults = Some("secret: faults".to_owned());
    report.unresolved.providers.insert("fal".to_owned(), "secret: mia@example.com".to_owned());
    let page = shown(&report, false);
    assert_eq!(
        page["findings"],
        json!([
            {"kind": "key_refused", "about": "provider fal"},
            {"kind": "missing_hash", "about": "item ch_1/0"},
            {"kind": "charge_changed", "about": "charge ch_2"},
            {"kind": "brake"},
        ])
    );
    let standing = &page["unresolved"];
    assert_eq!(
        [&standing["brake"], &standing["own_faults"], &standing["providers"]],
        [&json!(true), &json!(true), &json!(["fal"])]
    );
    let page = page.to_string();
    assert!(!page.contains("secret") && !page.contains("example.com"), "{page}");
    assert_eq!(shown(&report, true), serde_json::to_value(&report).unwrap());
}

#[tokio::test]
async fn healthz_fails_during_a_pass_without_progress() {
    let (pages, _) = pages();
    let timetable = CronSchedule::parse("0 * * * * *", chrono_tz::UTC).unwrap();
    let stop = Stop::new();
    let mut timer = Moves(pages.clock.clone());
    schedule::run(&timetable, &pages.clock, &mut timer, &stop, &pages.heartbeat, |stop| {
        let pages = &pages;
        async move {
            let at = |text| pages.clock.set(Timestamp::parse(text).unwrap());
            at("2026-01-01T00:16:00Z");
            assert_eq!(get(pages, "/healthz").await.0, 200);
            at("2026-01-01T00:16:01Z");
            assert_eq!(
                get(pages, "/healthz").await,
                page(503, "stuck: nothing has moved since 2026-01-01T00:01:00.000000Z\n")
            );
            pages.heartbeat.record_progress(pages.clock.now());
            assert_eq!(get(pages, "/healthz").await.0, 200);
            assert!(get(pages, "/status").await.1.contains("a pass since 2026-01-01T00:01:00Z (for 15m 1s)"));
            stop.request();
            PassEnd::Done
        }
    })
    .await
    .unwrap();
    assert_eq!(pages.heartbeat.status().failed_in_a_row, 0, "an assertion within the pass failed");
}

#[tokio::test]
async fn the_status_page_is_readable_text() {
    let (pages, _) = pages();
    one_pass(&pages, PassEnd::Done).await;
    let (status, body) = get(&pages, "/status").await;
    assert_eq!(status, 200);
    let body = body.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    assert_eq!(
        body,
        "makegood VERSION\n\n\
         now            2026-01-01T00:01:00Z\n\
         at work on     nothing: stopped\n\
         last pass      done, ended at 2026-01-01T00:01:00Z after 0s\n\
         passes         1 since the start, 0 firings skipped\n\n\
         The last pass's report\n\n\
         \x20 claimed                      3\n\
         \x20 list\n\
         \x20   -                            1\n\
         \x20   -\n\
         \x20     x                            null\n\
         \x20 note                         a\\nb\n\
         \x20 refunded\n\
         \x20   server_error                 2\n"
    );
}

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_pages_are_served_until_the_end_is_requested() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (pages, _) = pages();
    let end = Stop::new();
    let served = tokio::spawn(serve(listener, Arc::new(pages), end.clone()));

    let metrics = ask(address, "GET /metrics?x=1").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4\r\n"), "{metrics}");
    for header in ["cache-control: no-store\r\n", "x-content-type-options: nosniff\r\n"] {
        assert!(metrics.contains(header), "{metrics}");
    }
    assert!(metrics.ends_with("\r\n\r\nmakegood_brake_engaged 0\n"), "{metrics}");
    let head = ask(address, "HEAD /healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(ask(address, "POST /metrics").await.starts_with("HTTP/1.1 405 "));
    assert!(ask(address, "GET /../etc/passwd").await.starts_with("HTTP/1.1 404 "));

    // A client that never completes its request does not keep the process alive.
    let _idle = TcpStream::connect(address).await.unwrap();
    end.request();
    served.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
