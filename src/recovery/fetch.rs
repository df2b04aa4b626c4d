//! Downloads one file over HTTP and streams it into storage.
//!
//! The client follows no redirects by itself, stores no cookies and sends no `Referer`. Each
//! redirect is checked here before a connection is made, and the provider's key is sent only to
//! hosts listed for it. With an egress proxy, hosts, ports and schemes are still checked here, but
//! the proxy resolves the names and has to refuse private addresses. The request asks for no
//! compression. A response in `gzip` is decoded under the same size limit; any other content
//! encoding is refused. A download that breaks off is resumed or restarted (`resume`); each retry
//! passes the same checks.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
};
use reqwest::{Method, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::address::{GuardedResolver, Lookup, Loopback, RefusedAddress, SystemResolver};
use super::bucket::{self, Buckets};
use super::link::{self, UrlRefusal};
use super::resume::{DownloadState, ResumePoint, RetryBudget, is_retryable};
use super::write::ObjectWriter;
use super::{
    CopiedFile, CopyError, CopyLimits, CopyRequest, INLINE, MemoryBudget, NotOutput, TimeLimit,
    reserve_memory,
};
use crate::config::HttpUrl;
use crate::egress::Hosts;
use crate::evidence::Source;
use crate::http::{self, Client, Response};

/// The longest time to connect, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The download client could not be set up.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not set up the download client; does this machine have CA certificates (package ca-certificates)?"
)]
pub struct FetcherError(#[source] http::Error);

/// Copies files from providers into storage. Cheap to clone; create one per process.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    limits: CopyLimits,
    loopback: Loopback,
    buckets: Arc<Buckets>,
}

impl Fetcher {
    /// A fetcher with these limits. The process-wide rustls crypto provider must be installed.
    pub fn new(limits: CopyLimits) -> Result<Self, FetcherError> {
        Self::through(limits, None)
    }

    /// The same with an egress proxy for everything but loopback addresses.
    pub fn through(limits: CopyLimits, proxy: Option<&HttpUrl>) -> Result<Self, FetcherError> {
        Self::with_lookup(limits, proxy, Arc::new(SystemResolver))
    }

    pub(super) fn with_lookup(
        limits: CopyLimits,
        proxy: Option<&HttpUrl>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, FetcherError> {
        let loopback = if limits.allow_loopback { Loopback::Allowed } else { Loopback::Refused };
        let client = Client::new(http::Options {
            connect_timeout: CONNECT_TIMEOUT,
            // Each file has its own limits; they are enforced below.
            read_timeout: None,
            timeout: None,
            proxy: proxy.cloned(),
            resolver: Some(Arc::new(GuardedResolver {
                lookup,
                loopback,
                // With a proxy this is the only name resolved here, apart from `localhost`.
                proxy: proxy.and_then(|proxy| proxy.expose().host_str()).map(str::to_owned),
            })),
        })
        .map_err(FetcherError)?;
        Ok(Self { client, limits, loopback, buckets: Arc::new(Buckets::google(proxy.cloned())) })
    }

    /// Copies one file into storage.
    pub async fn copy(&self, request: CopyRequest<'_>) -> Result<CopiedFile, CopyError> {
        let limits = CopyLimits {
            max_bytes: request.max_bytes.unwrap_or(self.limits.max_bytes),
            time_budget: request.time_budget.unwrap_or(self.limits.time_budget),
            ..self.limits.clone()
        };
        let CopyRequest {
            source,
            allowed_hosts,
            key_hosts,
            auth,
            storage,
            key,
            media,
            memory,
            upload_log,
            ..
        } = request;
        let mut writer = ObjectWriter::new(storage, key, upload_log, media, limits.max_bytes);
        let deadline = Instant::now() + limits.time_budget;
        let copied = timeout_at(deadline, async {
            let host = match source {
                Source::Url { url, auth: _ } if bucket::is_bucket_url(url) => {
                    self.buckets.download(url, allowed_hosts, memory, &limits, &mut writer).await?
                }
                Source::Url { url, auth: wanted } => {
                    let first = link::parse(url)?;
                    let (wants_key, limits) = (*wanted, &limits);
                    let download =
                        DownloadRequest { first, allowed_hosts, key_hosts, wants_key, auth, memory, limits };
                    self.download(&download, &mut writer).await?
                }
                Source::Inline { bytes, content_type } => {
                    writer.declare(content_type.clone());
                    writer.write(bytes).await?;
                    INLINE.to_owned()
                }
                Source::Failed { .. } => return Err(NotOutput::NoFile.into()),
            };
            writer.finish(&host).await
        })
        .await
        .unwrap_or(Err(CopyError::TimedOut { limit: TimeLimit::Budget }));
        // Cleaning up does not count towards the time budget.
        match &copied {
            Ok(_) => {}
            // The copy was interrupted at any point, perhaps during a write that still completes in
            // the background.
            Err(CopyError::TimedOut { limit: TimeLimit::Budget }) => writer.abort_cut_off().await,
            Err(_) => writer.abort().await,
        }
        copied
    }

    /// Streams the file at the URL into `writer`. Returns the host that served it. Retries a
    /// download that breaks off after a response with the file; an earlier failure is left to the
    /// next pass.
    async fn download(
        &self,
        download: &DownloadRequest<'_>,
        writer: &mut ObjectWriter<'_>,
    ) -> Result<String, CopyError> {
        let mut retries = RetryBudget::new(download.limits);
        let mut state = DownloadState::default();
        loop {
            let error = match self.attempt(download, &mut state, writer).await {
                Ok(host) => return Ok(host),
                Err(error) => error,
            };
            let Some(delay) =
                retries.next_delay(writer.size(), &state).filter(|_| state.has_begun && is_retryable(&error))
            else {
                return Err(error);
            };
            tracing::debug!(
                error = &error as &dyn Error,
                bytes = writer.size(),
                resumable = state.resume_point.is_some(),
                "a download broke off and will be retried"
            );
            tokio::time::sleep(delay).await;
        }
    }

    /// Sends one request and writes what it returns.
    async fn attempt(
        &self,
        download: &DownloadRequest<'_>,
        state: &mut DownloadState,
        writer: &mut ObjectWriter<'_>,
    ) -> Result<String, CopyError> {
        let limits = download.limits;
        let from = writer.size();
        let range = state.resume_point.as_ref().filter(|_| from > 0).map(|point| point.headers(from));
        let is_resuming = range.is_some();
        let OpenResponse { mut response, url, host } = self.open(download, range).await?;
        let status = response.status();
        let left = if is_resuming && status != StatusCode::OK {
            let point = state.resume_point.take();
            let Some(point) = point.filter(|point| point.is_continued_by(&response, &url, from)) else {
                // Not the requested range: the next attempt starts from the beginning.
                return Err(CopyError::Http { host, status: status.as_u16() });
            };
            let left = point.length - from;
            state.resume_point = Some(point);
            Some(left)
        } else {
            // The whole file. A server may send it although a range was requested.
            if from > 0 {
                writer.restart().await;
            }
            // The client has already decoded gzip and removed the header.
            let encoding = response.headers().get(CONTENT_ENCODING);
            if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
                return Err(NotOutput::Encoded.into());
            }
            let announced = response.content_length();
            if announced.is_some_and(|announced| announced > limits.max_bytes) {
                return Err(CopyError::TooLarge { max_bytes: limits.max_bytes });
            }
            reserve_memory(download.memory, announced, limits)?;
            let content_type = response.headers().get(CONTENT_TYPE);
            writer.declare(content_type.and_then(|value| value.to_str().ok()).map(str::to_owned));
            state.has_begun = true;
            state.resume_point = ResumePoint::of(&response, &url);
            announced
        };
        let before = writer.size();
        loop {
            let next = timeout(limits.stall_timeout, response.chunk()).await;
            let next = next.map_err(|_| CopyError::TimedOut { limit: TimeLimit::Stall })?;
            match next.map_err(|error| classify(error, &host))? {
                Some(bytes) => writer.write(&bytes).await?,
                None => break,
            }
        }
        // The client reports most truncated bodies as an error; this catches all others.
        if left.is_some_and(|left| left != writer.size() - before) {
            return Err(NotOutput::Truncated.into());
        }
        Ok(host)
    }

    /// Follows redirects to a response with the file or, with `range`, the rest of it. Checks every
    /// URL.
    async fn open(
        &self,
        download: &DownloadRequest<'_>,
        range: Option<HeaderMap>,
    ) -> Result<OpenResponse, CopyError> {
        let first = &download.first;
        let mut url = first.clone();
        // After a redirect to another origin the key is not sent again, not even to the first host.
        let mut with_key = download.wants_key;
        for _ in 0..=download.limits.max_redirects {
            let host = url.host_str().unwrap_or_default().to_owned();
            let refused = |reason| CopyError::Refused { host: Some(link::host_and_port(&url)), reason };
            link::check(&url, download.allowed_hosts, self.loopback).map_err(refused)?;
            with_key &= link::same_origin(first, &url);
            let mut headers = HeaderMap::new();
            if with_key {
                link::check_key(&url, download.key_hosts, self.loopback).map_err(refused)?;
                headers.extend(download.auth.clone().unwrap_or_default());
            }
            headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            headers.extend(range.clone().unwrap_or_default());
            let sent = self.client.send(Method::GET, &url, headers, Bytes::new());
            let response = timeout(download.limits.stall_timeout, sent)
                .await
                .map_err(|_| CopyError::TimedOut { limit: TimeLimit::Stall })?
                .map_err(|error| classify(error, &host))?;
            match response.status() {
                StatusCode::OK => return Ok(OpenResponse { response, url, host }),
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if range.is_some() => {
                    return Ok(OpenResponse { response, url, host });
                }
                StatusCode::NO_CONTENT => return Err(NotOutput::Empty.into()),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = next_hop(&url, &response)?,
                status => return Err(status_error(status, host)),
            }
        }
        Err(UrlRefusal::TooManyRedirects.into())
    }
}

/// What is the same for all attempts of a download.
struct DownloadRequest<'a> {
    first: Url,
    allowed_hosts: &'a Hosts,
    key_hosts: &'a Hosts,
    wants_key: bool,
    auth: Option<HeaderMap>,
    memory: Option<&'a dyn MemoryBudget>,
    limits: &'a CopyLimits,
}

/// A response whose body is still to be read, and where it came from.
struct OpenResponse {
    response: Response,
    url: Url,
    host: String,
}

fn next_hop(from: &Url, response: &Response) -> Result<Url, UrlRefusal> {
    let location = response.headers().get(LOCATION).ok_or(UrlRefusal::NotAUrl)?;
    link::redirect(from, std::str::from_utf8(location.as_bytes()).map_err(|_| UrlRefusal::NotAUrl)?)
}

/// The error for a response without a file.
fn status_error(status: StatusCode, host: String) -> CopyError {
    let code = status.as_u16();
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => CopyError::Gone { host, status: code },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CopyError::Unauthorized { host, status: code },
        _ => CopyError::Http { host, status: code },
    }
}

/// Maps a client error to a [`CopyError`].
fn classify(error: http::Error, host: &str) -> CopyError {
    // A connection that ends before the body is a failed request, not a truncated file.
    let in_body = error.is_in_body();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(RefusedAddress(address)) = inner.downcast_ref() {
            return CopyError::Refused { host: Some(host.to_owned()), reason: UrlRefusal::Address(*address) };
        }
        if in_body && ends_early(inner) {
            return NotOutput::Truncated.into();
        }
        cause = inner.source();
    }
    if error.is_timeout() {
        return CopyError::TimedOut { limit: TimeLimit::Stall };
    }
    if error.is_decompress() {
        return NotOutput::Encoded.into();
    }
    CopyError::Network { host: host.to_owned(), source: Box::new(error) }
}

/// Whether the connection ended before the announced end of the body.
fn ends_early(error: &(dyn Error + 'static)) -> bool {
    let http = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message);
    let io = error.downcast_ref::<std::io::Error>();
    http || io.is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
}
