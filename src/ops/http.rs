//! A small HTTP/1 server: for the daemon's pages and for the simulated provider.
//!
//! Promise: headers are bounded in size and time, connections in number; after `shutdown` no request is
//! begun, those under way are finished, and what takes longer than a few seconds is cut off.
//! Left to others: what to answer. A handler never fails; what goes wrong is an answer too.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The largest request head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// The most headers of a request.
const HEADERS: usize = 64;
/// How long a connection may be silent before a request's whole head is there: a limit for pages that anybody may ask for.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// How long requests under way may take after `shutdown`.
const FAREWELL: Duration = Duration::from_secs(5);

/// The body of an answer, whole or streamed.
pub type Body = BoxBody<Bytes, Infallible>;

/// Serves `handler` on `listener` until `shutdown` comes true, then finishes what is under way. It hangs up on whoever is
/// silent for `head_time` before a request's head is whole, also between two requests.
pub async fn serve<H, F>(
    listener: TcpListener,
    handler: H,
    head_time: Duration,
    shutdown: impl Future<Output = ()>,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let cut_off = CancellationToken::new();
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            // Never closed, so that a slot always comes.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file handles, most often: others will end soon.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let handler = handler.clone();
        let (stop, cut_off) = (stop.clone(), cut_off.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(head_time)
                .max_buf_size(HEAD_BYTES)
                .max_headers(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = cut_off.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                // Clients hang up and talk nonsense: nothing for anybody to act upon.
                tracing::debug!(%error, "a connection ended badly");
            }
            drop(slot);
        });
    }
    drop(listener);
    stop.cancel();
    connections.close();
    if tokio::time::timeout(FAREWELL, connections.wait()).await.is_err() {
        cut_off.cancel();
        connections.wait().await;
    }
}

/// A whole answer.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A body that is sent piece by piece; its length is not announced.
pub fn streamed(chunks: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))))
}

/// A whole body.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;

    async fn raw(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may hang up before it has read all of a head that is too large.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_request_under_way_is_finished_and_none_is_begun_after_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, go_on, stop) =
            (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
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
        let server = tokio::spawn(serve(listener, handler, HEAD_TIME, stop.clone().cancelled_owned()));
        let client =
            tokio::spawn(async move { raw(address, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await });
        begun.notified().await;
        stop.cancel();
        go_on.notify_one();
        let got = client.await.unwrap();
        assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("/slow"), "{got}");
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let handler = |_: Request<Incoming>| async { answer(StatusCode::OK, "text/plain", "hello") };
        let server = tokio::spawn(serve(listener, handler, HEAD_TIME, stop.clone().cancelled_owned()));
        let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(100_000));
        assert!(!raw(address, huge.as_bytes()).await.contains("200 OK"));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100));
        assert!(!raw(address, many.as_bytes()).await.contains("200 OK"));
        let good = raw(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(good.contains("200 OK") && good.ends_with("hello"), "{good}");
        stop.cancel();
        server.await.unwrap();
    }
}
