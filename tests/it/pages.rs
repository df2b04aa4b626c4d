//! The daemon's pages, requested by hostile clients.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world has failed")]

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::binary::Run;
use crate::commands::World;
use crate::database::sqlite;

/// More than the daemon has ever allowed at once.
const CLIENTS: usize = 520;

/// Only a guard against waiting for ever.
const GUARD: Duration = Duration::from_mins(2);

async fn get(address: &str, path: &str) -> String {
    let answer = tokio::time::timeout(GUARD, async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    answer.await.unwrap_or_else(|_| panic!("{path} is not answered"))
}

/// `/status` once it shows a report: the log reports the end of a pass before the page does.
async fn reported(address: &str) -> String {
    let reported = async {
        loop {
            let status = get(address, "/status").await;
            if status.contains("The last pass's report") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(GUARD, reported).await.expect("/status shows a report")
}

/// A client that sends many requests and reads nothing, so that its answers fill all buffers.
async fn reads_nothing(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let many = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    // The server may end it before it has taken all of them.
    let _ = tokio::time::timeout(Duration::from_millis(20), stream.write_all(&many)).await;
    stream
}

#[tokio::test]
async fn clients_that_never_read_block_no_probe_and_the_pages_leak_nothing() {
    let world = World::new(sqlite()).await;
    // The brake is on, with its reason.
    let limit = ("MAKEGOOD__BRAKE__MAX_REFUNDS_PER_DAY_PER_PROVIDER", "1");
    let held = world.makegood(&["run"]).env(limit.0, limit.1).output().await;
    assert_eq!(held.code, Some(3), "{held:?}");
    let why = "more than 1 refunds in a day for replicate";
    let start = async |details: &str| {
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut daemon = world
            .makegood(&["schedule"])
            .env("MAKEGOOD__METRICS__LISTEN", &address)
            .env("MAKEGOOD__METRICS__STATUS_DETAILS", details)
            .env("MAKEGOOD__SCHEDULE__CRON", "* * * * * *")
            .start();
        daemon.says("\"pass done\"").await;
        (daemon, address)
    };
    let end = async |daemon: Run| {
        daemon.terminate().await;
        let ended = daemon.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    };

    let (daemon, address) = start("false").await;
    let status = reported(&address).await;
    assert!(status.contains("\r\nx-content-type-options: nosniff\r\n"), "{status}");
    assert!(status.contains("    brake                        true\n"), "{status}");
    assert!(!status.contains(why), "{status}");

    let mut hostile = Vec::new();
    for _ in 0..CLIENTS {
        hostile.push(reads_nothing(&address).await);
    }
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        let answer = get(&address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    end(daemon).await;
    drop(hostile);

    let (daemon, address) = start("true").await;
    let status = reported(&address).await;
    assert!(status.contains(why), "{status}");
    end(daemon).await;
}
