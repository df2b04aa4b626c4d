//! A small HTTP/1 server: for the daemon's pages and for the simulated provider.
//!
//! Promise: headers are bounded in size, connections in number, requests, idle time and lifetime
//! ([`Limits`]). A new connection is accepted at once, also over the limit: the connection that was
//! active longest ago is ended for it (`connections`). A client that does not take its answer is
//! disconnected (`stalls`). So clients that never read or never send cannot keep a probe out. After
//! `shutdown` no request is begun, those under way are finished, and what takes longer than a few
//! seconds is cut off. Left to others: what to answer. A handler never fails; what goes wrong is an
//! answer too.

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

use connections::{Connections, Place};
use stalls::WriteTimeout;

mod connections;
mod stalls;

/// The largest request head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// The most headers of a request.
const HEADERS: usize = 64;
/// How long a request under way may take after `shutdown`, or after its connection's lifetime.
const FAREWELL: Duration = Duration::from_secs(5);

/// As good as for ever; added to the time of day it does not overflow.
const A_YEAR: Duration = Duration::from_hours(365 * 24);

/// What one client may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest wait for a request's whole head, also between two requests of one connection.
    pub head_time: Duration,
    /// The longest wait for the client to take any more of an answer.
    pub write_time: Duration,
    /// The longest life of a connection.
    pub lifetime: Duration,
    /// Requests that one connection may send.
    pub requests: usize,
    /// Connections at once. For each one more, the one that was active longest ago is ended.
    pub connections: usize,
}

impl Limits {
    /// For pages that anybody may ask for. Far fewer connections than the 1024 files that a process
    /// may usually open: passes need theirs.
    pub const PAGES: Self = Self {
        head_time: Duration::from_secs(10),
        write_time: Duration::from_secs(5),
        lifetime: Duration::from_mins(1),
        requests: 100,
        connections: 256,
    };

    /// For clients that are trusted. One that was stopped for a while (a test, a debugger) finds
    /// its connection alive.
    pub const NONE: Self = Self {
        head_time: A_YEAR,
        write_time: A_YEAR,
        lifetime: A_YEAR,
        requests: usize::MAX,
        connections: usize::MAX,
    };
}

/// The body of an answer, whole or streamed.
pub type Body = BoxBody<Bytes, Infallible>;

/// Serves `handler` on `listener` until `shutdown` comes true, then finishes what is under way.
pub async fn serve<H, F>(
    listener: TcpListener,
    handler: H,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let connections = Arc::new(Connections::new(limits.connections));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
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
        let place = connections.enter();
        let (handler, stop) = (handler.clone(), stop.clone());
        tasks.spawn(async move {
            if let Some(stream) = converse(stream, handler, limits, &place, &stop).await {
                // A reset: the system keeps nothing for a client that does not read. The connection
                // ends either way.
                let _ = stream.set_zero_linger();
            }
        });
    }
    drop(listener);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Answers one client until it, its limits or the server end the connection. Returns the stream if
/// it was cut off.
async fn converse<S, H, F>(
    stream: S,
    handler: H,
    limits: Limits,
    place: &Place,
    stop: &CancellationToken,
) -> Option<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let requests = AtomicUsize::new(0);
    let service = service_fn(|request| {
        place.is_active();
        let before = requests.fetch_add(1, Ordering::Relaxed);
        let is_last = before + 1 >= limits.requests;
        let answer = handler(request);
        async move {
            if before > 0 {
                // One request a turn: whoever sends a hundred at once does not go before all
                // others.
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
        .header_read_timeout(limits.head_time)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream, limits.write_time)), service);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = place.is_ended() => None,
        () = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(limits.lifetime) => {}
            }
        } => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                ended = &mut connection => Some(ended),
                () = place.is_ended() => None,
                () = tokio::time::sleep(FAREWELL) => None,
            }
        }
    };
    if let Some(Err(error)) = &ended {
        // Clients hang up and talk nonsense: nothing for anybody to act upon.
        tracing::debug!(%error, "a connection ended badly");
    }
    let stream = connection.into_parts().io.into_inner();
    (ended.is_none() || stream.is_stalled()).then(|| stream.into_inner())
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
mod tests;
