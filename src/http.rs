//! HTTP to servers that nobody here controls: providers, and the hosts of their files.
//!
//! Promise: what a server sends costs as much as its answer is worth. A connection that brings more
//! than [`WITHOUT_ANSWER_BYTES`] without anything of an answer is closed ([`Error::Flood`]):
//! interim responses (`103`) without end, a head without end, chunks without data. Nothing that a
//! server sends holds a thread: every read is small, and whoever reads a body gives way between two
//! pieces. Redirects are not followed, nothing is stored between two requests but idle connections,
//! and errors name no URL, since it may be signed. HTTP/1.1 only. Left to the caller: how long a
//! body may be, and what it means.
//!
//! Not reqwest: its clients parse interim responses for as long as they arrive, inside one poll,
//! and have no place to count them. Eight such connections took both threads of a process, so that
//! no other provider was heard, no timeout ended and no signal was obeyed.

mod connect;
mod gate;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::bufread::GzipDecoder;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use reqwest::dns::Resolve;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, Entry, HeaderMap, HeaderValue, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout_at};
use tokio_util::io::StreamReader;
use url::Url;

use self::connect::Connector;
pub use self::gate::WITHOUT_ANSWER_BYTES;
use self::gate::{Flood, Gate};
use crate::config::HttpUrl;

/// Most of a head or a body's piece that is kept unread.
const BUFFER_BYTES: usize = 64 << 10;
/// How much is unpacked at once.
const PIECE_BYTES: usize = 32 << 10;
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Who asks, in `User-Agent`.
const USER: HeaderValue = HeaderValue::from_static(concat!("makegood/", env!("CARGO_PKG_VERSION")));

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a client keeps to.
#[derive(Clone)]
pub struct Options {
    /// For a connection to stand, TLS included.
    pub connect_timeout: Duration,
    /// For the head, and between two pieces of a body; none: no bound.
    pub read_timeout: Option<Duration>,
    /// For the whole exchange; none: no bound.
    pub timeout: Option<Duration>,
    /// What everything but this machine is reached through; none: nothing. Variables of the
    /// environment (`HTTPS_PROXY`, …) are not read.
    pub proxy: Option<HttpUrl>,
    /// Looks up host names; none: the system does.
    pub resolver: Option<Arc<dyn Resolve>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// A client with its connections. Cheap to share.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<Connector, Full<Bytes>>,
    connector: Connector,
    options: Options,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Why there is no answer, or not all of one. Never names the URL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no CA certificates, or no TLS provider.
    #[error("the client could not be made")]
    Made(#[source] BoxError),
    /// The URL is none that a request can be sent to.
    #[error("the URL cannot be asked")]
    Url(#[source] BoxError),
    /// No connection stood in time.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// No connection.
    #[error("could not connect")]
    Connect(#[source] legacy::Error),
    /// No answer, or nothing more of it, in time.
    #[error("no whole answer in time")]
    Timeout,
    /// More than [`WITHOUT_ANSWER_BYTES`] came.
    #[error(
        "more than {} KiB came without anything of an answer, such as interim responses (`103`) without end",
        WITHOUT_ANSWER_BYTES >> 10
    )]
    Flood,
    /// The exchange broke off before an answer.
    #[error("the exchange broke off")]
    Request(#[source] legacy::Error),
    /// The body broke off.
    #[error("the answer broke off")]
    Body(#[source] hyper::Error),
    /// The body is not compressed as it says.
    #[error("the answer could not be unpacked")]
    Unpacking(#[source] io::Error),
}

impl Error {
    /// Whether no answer, or no connection, came in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout(_) | Self::Timeout)
    }

    /// Whether there was no connection.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::ConnectTimeout(_) | Self::Connect(_))
    }

    /// Whether the body's compression is broken.
    pub fn is_unpacking(&self) -> bool {
        matches!(self, Self::Unpacking(_))
    }

    /// Whether the answer had begun.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Body(_) | Self::Unpacking(_))
    }

    fn of_request(error: legacy::Error, connect_timeout: Duration) -> Self {
        let is_late = |io: &io::Error| io.kind() == io::ErrorKind::TimedOut;
        match error.is_connect() {
            true if comes_of(&error, is_late) => Self::ConnectTimeout(connect_timeout),
            true => Self::Connect(error),
            false if comes_of(&error, is_flood) => Self::Flood,
            false => Self::Request(error),
        }
    }

    fn of_body(error: hyper::Error) -> Self {
        if comes_of(&error, is_flood) { Self::Flood } else { Self::Body(error) }
    }
}

fn is_flood(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Flood>)
}

/// Whether `error` comes of an error of the connection that `is_meant`.
fn comes_of(error: &dyn std::error::Error, is_meant: impl Fn(&io::Error) -> bool) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref().is_some_and(&is_meant) {
            return true;
        }
        cause = inner.source();
    }
    false
}

impl Client {
    /// A client that keeps to `options`. rustls's process-wide provider must be installed.
    pub fn new(options: Options) -> Result<Self, Error> {
        let connector = Connector::new(&options).map_err(Error::Made)?;
        let inner = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(BUFFER_BYTES)
            .build(connector.clone());
        Ok(Self { inner, connector, options })
    }

    /// Sends a request and waits for the head of its answer. A body in `gzip` is unpacked; others
    /// are asked for only if `headers` do so.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, Error> {
        let begun = Instant::now();
        let deadline = self.options.timeout.map(|timeout| begun + timeout);
        let uri: Uri = url.as_str().parse().map_err(|error| Error::Url(Box::new(error)))?;
        headers.entry(USER_AGENT).or_insert(USER);
        headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("gzip"));
        if let Some(key) = self.connector.proxy_key(&uri)
            && let Entry::Vacant(entry) = headers.entry(PROXY_AUTHORIZATION)
        {
            entry.insert(key);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let sent = self.inner.request(request);
        let sent = match soonest(deadline, self.options.read_timeout) {
            None => sent.await,
            Some(until) => timeout_at(until, sent).await.map_err(|_| Error::Timeout)?,
        };
        let sent = sent.map_err(|error| Error::of_request(error, self.options.connect_timeout))?;
        let (mut head, body) = sent.into_parts();
        let gate = head.extensions.remove::<Arc<Gate>>().unwrap_or_default();
        gate.answered();
        let length = body.size_hint().exact();
        let is_packed = head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| {
            let encoding = encoding.as_bytes();
            encoding.eq_ignore_ascii_case(b"gzip") || encoding.eq_ignore_ascii_case(b"x-gzip")
        });
        let (body, length) = if is_packed && length != Some(0) {
            head.headers.remove(CONTENT_ENCODING);
            head.headers.remove(CONTENT_LENGTH);
            let stream =
                body.into_data_stream().inspect_ok(move |_| gate.answered()).map_err(io::Error::other);
            let mut decoder = GzipDecoder::new(StreamReader::new(stream));
            decoder.multiple_members(true);
            (Body::Packed(Box::pin(decoder)), None)
        } else {
            (Body::Plain(body, gate), length)
        };
        Ok(Response {
            status: head.status,
            headers: head.headers,
            length,
            body,
            deadline,
            read_timeout: self.options.read_timeout,
        })
    }
}

/// The earlier of a deadline and of so long from now.
fn soonest(deadline: Option<Instant>, from_now: Option<Duration>) -> Option<Instant> {
    let from_now = from_now.map(|span| Instant::now() + span);
    match (deadline, from_now) {
        (Some(deadline), Some(from_now)) => Some(deadline.min(from_now)),
        (one, other) => one.or(other),
    }
}

/// An answer whose body is still to be read.
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    length: Option<u64>,
    body: Body,
    deadline: Option<Instant>,
    read_timeout: Option<Duration>,
}

enum Body {
    Plain(Incoming, Arc<Gate>),
    Packed(Pin<Box<dyn AsyncRead + Send>>),
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Response {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its headers, without those of a compression that is undone.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The same, to be taken out.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// How long the body is, where the answer says so and is not compressed.
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece of the body; none at its end. Gives way to others first, also where pieces
    /// are there already.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        tokio::task::consume_budget().await;
        match soonest(self.deadline, self.read_timeout) {
            None => self.body.next().await,
            Some(until) => timeout_at(until, self.body.next()).await.map_err(|_| Error::Timeout)?,
        }
    }
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Plain(body, gate) => loop {
                match body.frame().await.transpose().map_err(Error::of_body)?.map(Frame::into_data) {
                    None => return Ok(None),
                    Some(Ok(data)) => {
                        gate.answered();
                        return Ok(Some(data));
                    }
                    // Trailers.
                    Some(Err(_)) => {}
                }
            },
            Self::Packed(reader) => {
                let mut piece = BytesMut::with_capacity(PIECE_BYTES);
                match reader.read_buf(&mut piece).await {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(piece.freeze())),
                    Err(error) => {
                        Err(error.downcast::<hyper::Error>().map_or_else(Error::Unpacking, Error::of_body))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
