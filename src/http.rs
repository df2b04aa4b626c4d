//! HTTP client for untrusted servers: providers, and the hosts of their files.
//!
//! Promises: a server cannot waste resources with bytes that are not part of a response. A
//! connection that receives more than [`MAX_BYTES_WITHOUT_ANSWER`] of interim responses (`103`),
//! endless headers or chunks without data is closed ([`Error::Flood`]). No server can block a
//! thread: every read is small, and reading a body yields between two pieces. Redirects are not
//! followed, only idle connections are kept between requests, and errors never contain the URL,
//! which may be signed. HTTP/1.1 only. The caller limits the size of the body and interprets it.
//!
//! This is not reqwest, because its clients parse interim responses as long as they arrive, within
//! one poll, and offer no hook to count them. Eight such connections blocked both threads of a
//! process: no other provider was asked, no timeout fired and no signal was handled.

mod connect;
mod flood;

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
pub use self::flood::MAX_BYTES_WITHOUT_ANSWER;
use self::flood::{Flood, FloodCounter};
use crate::config::HttpUrl;

/// The largest read buffer for headers or a piece of a body.
const MAX_BUFFER_BYTES: usize = 64 << 10;
/// The size of a decompressed piece.
const PIECE_BYTES: usize = 32 << 10;
/// How long an idle connection is kept open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// The default `User-Agent`.
const DEFAULT_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("makegood/", env!("CARGO_PKG_VERSION")));

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The settings of a client.
#[derive(Clone)]
pub struct Options {
    /// Time limit to connect, including TLS.
    pub connect_timeout: Duration,
    /// Time limit for the response headers, and between two pieces of a body. `None`: no limit.
    pub read_timeout: Option<Duration>,
    /// Time limit of the whole request and response. `None`: no limit.
    pub timeout: Option<Duration>,
    /// The proxy for everything but loopback addresses. Environment variables (`HTTPS_PROXY`, …)
    /// are not read.
    pub proxy: Option<HttpUrl>,
    /// Resolves host names. `None`: the system's resolver.
    pub resolver: Option<Arc<dyn Resolve>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// A client with a pool of connections. Cheap to clone.
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

/// Why a response is missing or incomplete. Never contains the URL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// CA certificates or the TLS provider are missing.
    #[error("could not set up the HTTP client")]
    Setup(#[source] BoxError),
    /// The URL is not valid for a request.
    #[error("the URL is not valid for an HTTP request")]
    Url(#[source] BoxError),
    /// The connect timeout expired.
    #[error("could not connect within {0:?}")]
    ConnectTimeout(Duration),
    /// The connection failed.
    #[error("could not connect")]
    Connect(#[source] legacy::Error),
    /// The read timeout or the total timeout expired.
    #[error("the response was not complete in time")]
    Timeout,
    /// The server sent more than [`MAX_BYTES_WITHOUT_ANSWER`].
    #[error(
        "the server sent more than {} KiB that are not part of a response, such as endless interim responses (`103`)",
        MAX_BYTES_WITHOUT_ANSWER >> 10
    )]
    Flood,
    /// The connection failed before the response headers.
    #[error("the connection broke off before a response")]
    Request(#[source] legacy::Error),
    /// The connection failed in the body.
    #[error("the response broke off")]
    Body(#[source] hyper::Error),
    /// The body could not be decompressed.
    #[error("the response could not be decompressed")]
    Decompress(#[source] io::Error),
}

impl Error {
    /// Whether a timeout expired.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout(_) | Self::Timeout)
    }

    /// Whether no connection was made.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::ConnectTimeout(_) | Self::Connect(_))
    }

    /// Whether the body could not be decompressed.
    pub fn is_decompress(&self) -> bool {
        matches!(self, Self::Decompress(_))
    }

    /// Whether the response headers had arrived.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Body(_) | Self::Decompress(_))
    }

    fn of_request(error: legacy::Error, connect_timeout: Duration) -> Self {
        let is_late = |io: &io::Error| io.kind() == io::ErrorKind::TimedOut;
        match error.is_connect() {
            true if has_io_cause(&error, is_late) => Self::ConnectTimeout(connect_timeout),
            true => Self::Connect(error),
            false if has_io_cause(&error, is_flood) => Self::Flood,
            false => Self::Request(error),
        }
    }

    fn of_body(error: hyper::Error) -> Self {
        if has_io_cause(&error, is_flood) { Self::Flood } else { Self::Body(error) }
    }
}

fn is_flood(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Flood>)
}

/// Whether one of the causes of `error` is an I/O error that `matches`.
fn has_io_cause(error: &dyn std::error::Error, matches: impl Fn(&io::Error) -> bool) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref().is_some_and(&matches) {
            return true;
        }
        cause = inner.source();
    }
    false
}

impl Client {
    /// A client with these options. The process-wide rustls crypto provider must be installed.
    pub fn new(options: Options) -> Result<Self, Error> {
        let connector = Connector::new(&options).map_err(Error::Setup)?;
        let inner = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(MAX_BUFFER_BYTES)
            .build(connector.clone());
        Ok(Self { inner, connector, options })
    }

    /// Sends a request and returns when the response headers have arrived. A `gzip` body is
    /// decompressed while it is read. Other encodings are requested only if `headers` name them.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, Error> {
        let started = Instant::now();
        let deadline = self.options.timeout.map(|timeout| started + timeout);
        let uri: Uri = url.as_str().parse().map_err(|error| Error::Url(Box::new(error)))?;
        headers.entry(USER_AGENT).or_insert(DEFAULT_USER_AGENT);
        headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("gzip"));
        if let Some(authorization) = self.connector.proxy_authorization(&uri)
            && let Entry::Vacant(entry) = headers.entry(PROXY_AUTHORIZATION)
        {
            entry.insert(authorization);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let sent = self.inner.request(request);
        let sent = match earlier(deadline, self.options.read_timeout) {
            None => sent.await,
            Some(until) => timeout_at(until, sent).await.map_err(|_| Error::Timeout)?,
        };
        let sent = sent.map_err(|error| Error::of_request(error, self.options.connect_timeout))?;
        let (mut head, body) = sent.into_parts();
        let counter = head.extensions.remove::<Arc<FloodCounter>>().unwrap_or_default();
        counter.reset();
        let length = body.size_hint().exact();
        let is_gzip = head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| {
            let encoding = encoding.as_bytes();
            encoding.eq_ignore_ascii_case(b"gzip") || encoding.eq_ignore_ascii_case(b"x-gzip")
        });
        let (body, length) = if is_gzip && length != Some(0) {
            head.headers.remove(CONTENT_ENCODING);
            head.headers.remove(CONTENT_LENGTH);
            let stream =
                body.into_data_stream().inspect_ok(move |_| counter.reset()).map_err(io::Error::other);
            let mut decoder = GzipDecoder::new(StreamReader::new(stream));
            decoder.multiple_members(true);
            (Body::Gzip(Box::pin(decoder)), None)
        } else {
            (Body::Plain(body, counter), length)
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

/// The earlier of `deadline` and the end of `timeout` from now.
fn earlier(deadline: Option<Instant>, timeout: Option<Duration>) -> Option<Instant> {
    let timeout = timeout.map(|timeout| Instant::now() + timeout);
    match (deadline, timeout) {
        (Some(deadline), Some(timeout)) => Some(deadline.min(timeout)),
        (one, other) => one.or(other),
    }
}

/// A response whose body is still to be read.
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    length: Option<u64>,
    body: Body,
    deadline: Option<Instant>,
    read_timeout: Option<Duration>,
}

enum Body {
    Plain(Incoming, Arc<FloodCounter>),
    Gzip(Pin<Box<dyn AsyncRead + Send>>),
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

    /// Its headers. After decompression, without `Content-Encoding` and `Content-Length`.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its headers, mutable.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The announced length of the body. `None` if there is none, or if the body is decompressed.
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece of the body; `None` at its end. Yields to other tasks even if a piece is
    /// ready.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        tokio::task::consume_budget().await;
        match earlier(self.deadline, self.read_timeout) {
            None => self.body.next().await,
            Some(until) => timeout_at(until, self.body.next()).await.map_err(|_| Error::Timeout)?,
        }
    }
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Plain(body, counter) => loop {
                match body.frame().await.transpose().map_err(Error::of_body)?.map(Frame::into_data) {
                    None => return Ok(None),
                    Some(Ok(data)) => {
                        counter.reset();
                        return Ok(Some(data));
                    }
                    // Trailers.
                    Some(Err(_)) => {}
                }
            },
            Self::Gzip(reader) => {
                let mut piece = BytesMut::with_capacity(PIECE_BYTES);
                match reader.read_buf(&mut piece).await {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(piece.freeze())),
                    Err(error) => {
                        Err(error.downcast::<hyper::Error>().map_or_else(Error::Decompress, Error::of_body))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
