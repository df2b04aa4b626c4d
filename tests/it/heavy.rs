//! Large answers with little memory: they are read one at a time. The others close their
//! connections and wait, another provider's charges are made good meanwhile, and every file is
//! recovered.
//!
//! The tests observe the order of events: the server completes no answer until all but one were
//! given up.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use makegood::pass;
use makegood::provider::Providers;

use crate::world::{World, on_both};

const ANSWERS: usize = 8;
const FILE_BYTES: usize = 3 << 20;

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    closed: AtomicUsize,
    /// Answers may be finished.
    is_released: AtomicBool,
}

/// A server whose answers contain a file each. It completes none before the test allows it. From
/// then on answers have no length, so each is given up once its memory need is known.
fn server() -> (u16, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Seen::default());
    let noted = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), Arc::clone(&noted));
            std::thread::spawn(move || {
                // The client may go at any time.
                while answer(&mut stream, &seen).is_ok() {}
                seen.closed.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (port, seen)
}

fn answer(stream: &mut TcpStream, seen: &Seen) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    // Another file for each job.
    let mut file = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", head.as_slice()].concat();
    file.resize(FILE_BYTES, 7);
    let body = format!("{{\"image\": \"data:image/png;base64,{}\"}}", BASE64_STANDARD.encode(&file));
    let is_released = || seen.is_released.load(Ordering::SeqCst);
    let is_sized = !is_released();
    if is_sized {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    }
    for (piece, bytes) in body.as_bytes().chunks(64 << 10).enumerate() {
        while piece == 8 && !is_released() {
            has_gone(stream)?;
        }
        if is_sized {
            stream.write_all(bytes)?;
        } else {
            write!(stream, "{:x}\r\n", bytes.len())?;
            stream.write_all(bytes)?;
            stream.write_all(b"\r\n")?;
        }
    }
    if is_sized { Ok(()) } else { stream.write_all(b"0\r\n\r\n") }
}

/// Waits a moment; an error once the client has closed the connection.
fn has_gone(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(5)))?;
    let peeked = stream.peek(&mut [0]);
    stream.set_read_timeout(None)?;
    match peeked {
        Ok(0) => Err(ErrorKind::ConnectionAborted.into()),
        Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(error),
        _ => Ok(()),
    }
}

/// Waits until it is so; only a guard against waiting for ever has a time.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(2), waited).await.is_ok(), "never: {what}");
}

on_both! {
    /// P15 (made good within 24 hours): no item fails for lack of memory.
    async fn p15_large_answers_wait_for_memory_and_delay_no_other_provider(world) {
        let mut world = world;
        let (port, seen) = server();
        let dir = world.folder.path().join("providers");
        let text = format!(
            "[provider]\nname = \"heavy\"\nretries = 0\nmax_concurrency = 8\nmax_body_bytes = 8388608\noutput_hosts = []\n\
             [ask]\nrequest = \"GET http://127.0.0.1:{port}/{{job}}\"\n\
             read = '{{verdict: \"succeeded\", outputs: [{{index: 0, base64: (.body.image | split(\",\")[1])}}]}}'\n"
        );
        std::fs::write(dir.join("heavy.toml"), text).unwrap();
        world.parts.providers = Arc::new(Providers::load(Some(&dir), world.clock.clone()).unwrap());
        // More than one answer takes, less than two do.
        world.parts.rules.memory = 8 << 20;
        world.balance("ada", 0, 0).await;
        let heavy: Vec<_> = (0..ANSWERS).map(|nth| format!("heavy-{nth}")).collect();
        for name in &heavy {
            world.charge(name).provider("heavy", "m").job(name).insert().await;
        }
        let well: Vec<_> = (0..5).map(|nth| format!("well-{nth}")).collect();
        for name in &well {
            world.charge(name).job(&format!("failed-{name}")).insert().await;
        }

        let parts = world.parts.clone();
        let running = tokio::spawn(async move { pass::run(&parts, World::orders(), |_| {}).await.unwrap() });
        until("all answers but one are let go", async || {
            seen.requests.load(Ordering::SeqCst) == ANSWERS && seen.closed.load(Ordering::SeqCst) == ANSWERS - 1
        })
        .await;
        until("the other provider's charges are settled", async || {
            for name in &well {
                if world.fate(name, 0).await != "refunded provider_error" {
                    return false;
                }
            }
            true
        })
        .await;
        for name in &heavy {
            assert_eq!(world.fate(name, 0).await.split(' ').next(), Some("open"), "{name}");
        }
        seen.is_released.store(true, Ordering::SeqCst);
        // An answer that has waited for its memory is read with it. Otherwise all eight are asked
        // for again and again.
        let report = tokio::time::timeout(Duration::from_mins(2), running).await.unwrap().unwrap();
        for name in &heavy {
            assert_eq!(world.fate(name, 0).await, "recovered output_available", "{name}");
        }
        assert_eq!(report.recovered_bytes, (ANSWERS * FILE_BYTES) as u64);
        let hashes = "SELECT count(DISTINCT sha256) AS v FROM stored_outputs";
        assert_eq!(world.number(hashes).await, i64::try_from(ANSWERS).unwrap());
        world.books_balance().await;
    }
}
