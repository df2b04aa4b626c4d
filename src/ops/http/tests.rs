//! The limits of one client, and that others are still served.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;

async fn raw(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close the connection before it has read all of too large headers.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn after_shutdown_requests_in_progress_finish_and_no_new_one_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (begun, go_on, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
    let handler = {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        move |request: Request<Incoming>| {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            async move {
                begun.notify_one();
                go_on.notified().await;
                answer(StatusCode::OK, "text/plain", request.uri().path().to_owned())
            }
        }
    };
    let server = tokio::spawn(serve(listener, handler, ServerLimits::PAGES, stop.clone().cancelled_owned()));
    let client = tokio::spawn(async move { raw(address, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await });
    begun.notified().await;
    stop.cancel();
    go_on.notify_one();
    let got = client.await.unwrap();
    assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("/slow"), "{got}");
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn too_large_headers_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let handler = |_: Request<Incoming>| async { answer(StatusCode::OK, "text/plain", "hello") };
    let server = tokio::spawn(serve(listener, handler, ServerLimits::PAGES, stop.clone().cancelled_owned()));
    let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    assert!(!raw(address, huge.as_bytes()).await.contains("200 OK"));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100));
    assert!(!raw(address, many.as_bytes()).await.contains("200 OK"));
    let good = raw(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(good.contains("200 OK") && good.ends_with("hello"), "{good}");
    stop.cancel();
    server.await.unwrap();
}

/// Fails a test that would otherwise hang. No test depends on the duration.
async fn ends<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(2), what).await.expect("it does not end")
}

/// A response larger than the system's buffers for a client that does not read.
fn endless() -> Response<Body> {
    let chunk = Bytes::from(vec![b'x'; 1 << 16]);
    Response::new(streamed(futures_util::stream::repeat(chunk)))
}

#[tokio::test]
async fn clients_that_never_read_or_never_send_do_not_block_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (asked, mut comes) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |request: Request<Incoming>| {
        let asked = asked.clone();
        async move {
            let _ = asked.send(());
            if request.uri().path() == "/endless" {
                endless()
            } else {
                answer(StatusCode::OK, "text/plain", "alive")
            }
        }
    };
    // No connection ends because of a time limit.
    let limits = ServerLimits { max_connections: 8, ..ServerLimits::NONE };
    let server = tokio::spawn(serve(listener, handler, limits, stop.clone().cancelled_owned()));
    let probe = || raw(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

    let mut hostile = Vec::new();
    for _ in 0..8 {
        let mut reads_nothing = TcpStream::connect(address).await.unwrap();
        reads_nothing.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        ends(comes.recv()).await.unwrap();
        hostile.push(reads_nothing);
    }
    let got = ends(probe()).await;
    assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("alive"), "{got}");
    for _ in 0..8 {
        let mut sends_nothing_whole = TcpStream::connect(address).await.unwrap();
        sends_nothing_whole.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        hostile.push(sends_nothing_whole);
    }
    for _ in 0..20 {
        let got = ends(probe()).await;
        assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("alive"), "{got}");
    }
    // The least recently active connections were closed. Data already sent may still arrive.
    for ended in &mut hostile[..8] {
        let _ = ends(ended.read_to_end(&mut Vec::new())).await;
    }
    drop(hostile);
    ends(async {
        stop.cancel();
        server.await.unwrap();
    })
    .await;
}

#[test]
fn the_least_recently_active_connection_is_closed_for_a_new_one() {
    let connections = Arc::new(Connections::new(2));
    let (first, second) = (connections.enter(), connections.enter());
    first.mark_active();
    let third = connections.enter();
    assert_eq!([&first, &second, &third].map(ConnectionSlot::has_ended), [false, true, false]);
    // A closed connection cannot become active again, and frees no second slot.
    second.mark_active();
    drop(second);
    drop(third);
    let fourth = connections.enter();
    assert!(!first.has_ended());
    let _fifth = connections.enter();
    assert_eq!([first, fourth].map(|slot| slot.has_ended()), [true, false]);
}

/// Serves one client over a pipe with a buffer of 64 bytes.
async fn serve_connection_with<F: Future>(
    limits: ServerLimits,
    client: impl FnOnce(DuplexStream) -> F,
) -> (Option<DuplexStream>, F::Output) {
    let (ours, theirs) = tokio::io::duplex(64);
    let handler = |request: Request<Incoming>| async move {
        if request.uri().path() == "/endless" {
            endless()
        } else {
            answer(StatusCode::OK, "text/plain", "alive")
        }
    };
    let slot = Arc::new(Connections::new(1)).enter();
    let stop = CancellationToken::new();
    ends(async { tokio::join!(serve_connection(ours, handler, limits, &slot, &stop), client(theirs)) }).await
}

#[tokio::test]
async fn connections_end_at_the_write_timeout_the_lifetime_and_the_request_limit() {
    const SOON: Duration = Duration::from_millis(10);

    let takes_nothing = async |mut client: DuplexStream| {
        client.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        client
    };
    let (cut_off, _client) =
        serve_connection_with(ServerLimits { write_timeout: SOON, ..ServerLimits::NONE }, takes_nothing)
            .await;
    assert!(cut_off.is_some(), "it ended well");

    let says_nothing = async |client: DuplexStream| client;
    let (_, _client) =
        serve_connection_with(ServerLimits { lifetime: SOON, ..ServerLimits::NONE }, says_nothing).await;
    let (_, _client) =
        serve_connection_with(ServerLimits { header_timeout: SOON, ..ServerLimits::NONE }, says_nothing)
            .await;

    let asks_often = async |mut client: DuplexStream| {
        let mut got = Vec::new();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let (mut read, mut write) = tokio::io::split(&mut client);
        let asked = async {
            // The server closes the connection before it has read all of them.
            let _ = write.write_all(&request.repeat(5)).await;
        };
        let ((), read) = tokio::join!(asked, read.read_to_end(&mut got));
        read.unwrap();
        String::from_utf8(got).unwrap()
    };
    let (_, got) =
        serve_connection_with(ServerLimits { max_requests: 3, ..ServerLimits::NONE }, asks_often).await;
    assert_eq!(got.matches("HTTP/1.1 200 OK").count(), 3, "{got}");
    assert_eq!(got.matches("connection: close").count(), 1, "{got}");
}
