//! Servers that send without end, over real sockets. The client has one thread and no timeout, so a
//! test that ends proves that the request ends and that the thread was not blocked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(Options {
        connect_timeout: Duration::from_secs(10),
        read_timeout: None,
        timeout: None,
        proxy: None,
        resolver: None,
    })
    .unwrap()
}

/// A server that calls `respond` for each request, in one thread for each connection.
fn server(respond: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            let (mut stream, respond) = (stream.unwrap(), respond.clone());
            std::thread::spawn(move || {
                while read_request(&mut stream) {
                    respond(&mut stream);
                }
            });
        }
    });
    (address, connections)
}

/// Reads the headers of a request. Returns false if the client disconnected.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// A server that sends `first`, then `again` until the client disconnects.
fn endless(first: &'static [u8], again: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let again = again.repeat((64 << 10) / again.len());
    server(move |stream| {
        let _gone = stream.write_all(first);
        while stream.write_all(&again).is_ok() {}
        let _gone = stream.shutdown(std::net::Shutdown::Both);
    })
}

/// The status and the length of the body. Stops reading after 64 KiB.
async fn ask(client: &Client, address: SocketAddr) -> Result<(u16, usize), Error> {
    let url = Url::parse(&format!("http://{address}/jobs/1")).unwrap();
    let mut answer = client.send(Method::GET, &url, HeaderMap::new(), Bytes::new()).await?;
    let mut length = 0;
    while let Some(piece) = answer.chunk().await? {
        length += piece.len();
        if length > 64 << 10 {
            break;
        }
    }
    Ok((answer.status().as_u16(), length))
}

#[tokio::test]
async fn endless_bytes_without_a_response_are_cut_off_and_do_not_block_other_requests() {
    let client = client();
    let healthy =
        server(|stream| stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap()).0;
    let ok = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (what, (hostile, _)) in [
        ("interim responses", endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")),
        (
            "large ones",
            endless(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload; as=style\r\n\r\n"),
        ),
        ("continues", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    ] {
        let all = futures_util::future::join_all((0..8).map(|_| ask(&client, hostile)));
        let (all, well) = tokio::join!(all, ask(&client, healthy));
        assert!(all.iter().all(|each| matches!(each, Err(Error::Flood))), "{what}: {all:?}");
        assert_eq!(well.unwrap(), (200, 2), "{what}");
    }
    for (what, (hostile, _)) in [
        ("a head of headers", endless(b"HTTP/1.1 200 OK\r\n", b"x-more: aaaaaaaaaaaaaaaaaaaaaaaa\r\n")),
        ("a header", endless(b"HTTP/1.1 200 OK\r\nx-more: ", b"a")),
        ("a status line", endless(b"HTTP/1.1 200 ", b"K")),
        ("empty lines", endless(b"", b"\r\n")),
        ("no HTTP", endless(b"", b"<html>")),
        ("a chunk's extension", endless(ok, b"1;a=b;c=d;e=f;")),
        ("trailers", endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n")),
        ("a chunk's size", endless(ok, b"0")),
    ] {
        let all = futures_util::future::join_all((0..8).map(|_| ask(&client, hostile)));
        let (all, well) = tokio::join!(all, ask(&client, healthy));
        assert!(all.iter().all(Result::is_err), "{what}: {all:?}");
        assert_eq!(well.unwrap(), (200, 2), "{what}");
    }
    for (what, (hostile, _)) in [
        ("a body", endless(b"HTTP/1.1 200 OK\r\n\r\n", b"a")),
        ("tiny chunks", endless(ok, b"1\r\na\r\n")),
        (
            "interim responses, then a body",
            endless(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"a"),
        ),
    ] {
        let all = futures_util::future::join_all((0..8).map(|_| ask(&client, hostile)));
        let (all, well) = tokio::join!(all, ask(&client, healthy));
        let is_whole =
            |each: &Result<(u16, usize), Error>| matches!(each, Ok((200, length)) if *length > 64 << 10);
        assert!(all.iter().all(is_whole), "{what}: {all:?}");
        assert_eq!(well.unwrap(), (200, 2), "{what}");
    }
}

#[tokio::test]
async fn the_flood_count_starts_again_with_each_response_of_a_connection() {
    let client = client();
    let (address, connections) = server(|stream| {
        let mut answer = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2000);
        answer.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n");
        answer.extend_from_slice(&b"a".repeat(300_000));
        let _gone = stream.write_all(&answer);
    });
    let url = Url::parse(&format!("http://{address}/")).unwrap();
    for _ in 0..20 {
        let mut answer = client.send(Method::GET, &url, HeaderMap::new(), Bytes::new()).await.unwrap();
        while answer.chunk().await.unwrap().is_some() {}
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    // Two responses at once, read late: what hyper reads ahead does not count as a flood.
    let sent = || client.send(Method::GET, &url, HeaderMap::new(), Bytes::new());
    let (first, second) = tokio::join!(sent(), sent());
    for answer in [first, second] {
        let mut answer = answer.unwrap();
        let mut length = 0;
        while let Some(piece) = answer.chunk().await.unwrap() {
            length += piece.len();
        }
        assert_eq!(length, 300_000);
    }
}
