//! A small HTTP/1 server: for the daemon's pages and for the simulated provider.
//!
//! Promise: the size of headers is limited, and the number of connections, their requests, idle
//! time and lifetime ([`ServerLimits`]). A new connection is always accepted. Over the limit, the
//! least recently active connection is closed for it (`connections`). A client that does not read
//! its response is disconnected (`stalls`). So slow or idle clients cannot block a health probe.
//! After `shutdown` no new request is served; requests in progress have 5 seconds to finish. The
//! caller supplies the handler, which returns a response for errors too.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use connections::{ConnectionSlot, Connections};
use stalls::WriteTimeout;

mod connections;
mod stalls;

/// The largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The most headers of a request.
const MAX_HEADERS: usize = 64;
/// How long a request in progress may take after `shutdown`, or after the lifetime of its
/// connection.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Practically no limit, without overflow when added to the current time.
const ONE_YEAR: Duration = Duration::from_hours(365 * 24);

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// The longest wait for the headers of a request, including the idle time before it.
    pub header_timeout: Duration,
    /// The longest wait for the client to read more of a response.
    pub write_timeout: Duration,
    /// The longest lifetime of a connection.
    pub lifetime: Duration,
    /// The most requests of one connection.
    pub max_requests: usize,
    /// The most open connections. For a further one, the least recently active connection is
    /// closed.
    pub max_connections: usize,
}

impl ServerLimits {
    /// For pages that anybody may request. Far fewer connections than the usual limit of 1,024 open
    /// files, because passes need files too.
    pub const PAGES: Self = Self {
        header_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(5),
        lifetime: Duration::from_mins(1),
        max_requests: 100,
        max_connections: 256,
    };

    /// For trusted clients. The connection of a client that was paused (a test, a debugger) stays
    /// open.
    pub const NONE: Self = Self {
        header_timeout: ONE_YEAR,
        write_timeout: ONE_YEAR,
        lifetime: ONE_YEAR,
        max_requests: usize::MAX,
        max_connections: usize::MAX,
    };
}

/// The body of a response, complete or streamed.
pub type Body = BoxBody<Bytes, Infallible>;

/// Serves `handler` on `listener` until `shutdown` completes, then finishes the requests in
/// progress.
pub async fn serve<H, F>(
    listener: TcpListener,
    handler: H,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()>,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let connections = Arc::new(Connections::new(limits.max_connections));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Most often there are no free file descriptors: wait until a connection ends.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let slot = connections.enter();
        let (handler, stop) = (handler.clone(), stop.clone());
        tasks.spawn(async move {
            if let Some(stream) = serve_connection(stream, handler, limits, &slot, &stop).await {
                // Reset the connection, so that the system keeps no data for a client that does not
                // read. If this fails, the connection is closed normally.
                let _ = stream.set_zero_linger();
            }
        });
    }
    drop(listener);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection until the client, a limit or the shutdown ends it. Returns the stream if
/// it was cut off.
async fn serve_connection<S, H, F>(
    stream: S,
    handler: H,
    limits: ServerLimits,
    slot: &ConnectionSlot,
    stop: &CancellationToken,
) -> Option<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let requests = AtomicUsize::new(0);
    let service = service_fn(|request| {
        slot.mark_active();
        let before = requests.fetch_add(1, Ordering::Relaxed);
        let is_last = before + 1 >= limits.max_requests;
        let answer = handler(request);
        async move {
            if before > 0 {
                // Yield after each request, so that a client with many pipelined requests does not
                // delay others.
                tokio::task::yield_now().await;
            }
            let mut answer = answer.await;
            if is_last {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream, limits.write_timeout)), service);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = slot.ended() => None,
        () = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(limits.lifetime) => {}
            }
        } => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                ended = &mut connection => Some(ended),
                () = slot.ended() => None,
                () = tokio::time::sleep(SHUTDOWN_GRACE) => None,
            }
        }
    };
    if let Some(Err(error)) = &ended {
        // A client disconnected or sent an invalid request. There is nothing to act upon.
        tracing::debug!(%error, "a connection ended with an error");
    }
    let stream = connection.into_parts().io.into_inner();
    (ended.is_none() || stream.is_stalled()).then(|| stream.into_inner())
}

/// A complete response.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A streamed body without an announced length.
pub fn streamed(chunks: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))))
}

/// A complete body.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

#[cfg(test)]
mod tests;
