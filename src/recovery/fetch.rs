//! Fetch one file over HTTP and hand it to storage, piece by piece.
//!
//! The client follows no redirect, uses no cookies and sends no `Referer`: every hop is checked
//! here before it is dialled, and the provider's key goes to a host that is listed for it or
//! nowhere. With a proxy (`egress`) hosts, ports and schemes are checked here all the same; where a
//! name leads to is for the proxy. It asks for the file as it is; a server that compresses all the
//! same (`gzip`) is read
//! under the same cap, any other encoding is refused. A download that breaks is continued or begun anew
//! (`resume`); each try is a request like the first, with the same checks.

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

use super::address::{Guard, Lookup, Loopback, Refused, System};
use super::bucket::{self, Buckets};
use super::link::{self, UrlRefusal};
use super::resume::{Anchor, State, Tries, breaks_off};
use super::write::Writer;
use super::{Copied, CopyError, Errand, INLINE, Limits, Memory, NotOutput, TimeLimit, take_memory};
use crate::config::HttpUrl;
use crate::egress::Hosts;
use crate::evidence::Source;
use crate::http::{self, Client, Response};

/// For a connection to stand, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The download client could not be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not make the download client; does this machine have CA certificates (package ca-certificates)?"
)]
pub struct FetcherError(#[source] http::Error);

/// Copies files from providers into storage. Cheap to share; make one per process.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    limits: Limits,
    loopback: Loopback,
    buckets: Arc<Buckets>,
}

impl Fetcher {
    /// A fetcher that keeps to `limits`. rustls's process-wide provider must be installed.
    pub fn new(limits: Limits) -> Result<Self, FetcherError> {
        Self::through(limits, None)
    }

    /// The same; everything but this machine is fetched through `proxy`.
    pub fn through(limits: Limits, proxy: Option<&HttpUrl>) -> Result<Self, FetcherError> {
        Self::with_lookup(limits, proxy, Arc::new(System))
    }

    pub(super) fn with_lookup(
        limits: Limits,
        proxy: Option<&HttpUrl>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, FetcherError> {
        let loopback = if limits.allow_loopback { Loopback::Allowed } else { Loopback::Refused };
        let client = Client::new(http::Options {
            connect_timeout: CONNECT_TIMEOUT,
            // `limits` are kept to here: they are another for each file.
            read_timeout: None,
            timeout: None,
            proxy: proxy.cloned(),
            resolver: Some(Arc::new(Guard {
                lookup,
                loopback,
                // The one name beside this machine's that is looked up here then.
                proxy: proxy.and_then(|proxy| proxy.expose().host_str()).map(str::to_owned),
            })),
        })
        .map_err(FetcherError)?;
        Ok(Self { client, limits, loopback, buckets: Arc::new(Buckets::google(proxy.cloned())) })
    }

    /// Copies the file of an errand to where it belongs.
    pub async fn copy(&self, errand: Errand<'_>) -> Result<Copied, CopyError> {
        let limits = Limits {
            max_bytes: errand.max_bytes.unwrap_or(self.limits.max_bytes),
            time_budget: errand.time_budget.unwrap_or(self.limits.time_budget),
            ..self.limits.clone()
        };
        let Errand { source, allowed_hosts, key_hosts, auth, storage, key, kinds, memory, journal, .. } =
            errand;
        let mut writer = Writer::new(storage, key, journal, kinds, limits.max_bytes);
        let deadline = Instant::now() + limits.time_budget;
        let copied = timeout_at(deadline, async {
            let host = match source {
                Source::Url { url, auth: _ } if bucket::is_one(url) => {
                    self.buckets.download(url, allowed_hosts, memory, &limits, &mut writer).await?
                }
                Source::Url { url, auth: wanted } => {
                    let first = link::parse(url)?;
                    let (wants_key, limits) = (*wanted, &limits);
                    let asking = Asking { first, allowed_hosts, key_hosts, wants_key, auth, memory, limits };
                    self.download(&asking, &mut writer).await?
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
        .unwrap_or(Err(CopyError::TimedOut { what: TimeLimit::Budget }));
        // Outside the budget: cleaning up is not part of the copy.
        match &copied {
            Ok(_) => {}
            // Cut off wherever it was, perhaps in the middle of a write that goes on without us.
            Err(CopyError::TimedOut { what: TimeLimit::Budget }) => writer.abort_cut_off().await,
            Err(_) => writer.abort().await,
        }
        copied
    }

    /// Streams what is behind the URL into `writer`; returns the host that served it. A download that breaks once its file
    /// had begun is continued, or begun anew, a few times.
    async fn download(&self, asking: &Asking<'_>, writer: &mut Writer<'_>) -> Result<String, CopyError> {
        let mut tries = Tries::new(asking.limits);
        let mut state = State::default();
        loop {
            let error = match self.once(asking, &mut state, writer).await {
                Ok(host) => return Ok(host),
                Err(error) => error,
            };
            let Some(pause) =
                tries.after(writer.size(), &state).filter(|_| state.begun && breaks_off(&error))
            else {
                return Err(error);
            };
            tracing::debug!(
                error = &error as &dyn Error,
                bytes = writer.size(),
                continued = state.anchor.is_some(),
                "a download broke and is tried again"
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// One request, and as much of the file as comes of it.
    async fn once(
        &self,
        asking: &Asking<'_>,
        state: &mut State,
        writer: &mut Writer<'_>,
    ) -> Result<String, CopyError> {
        let limits = asking.limits;
        let from = writer.size();
        let range = state.anchor.as_ref().filter(|_| from > 0).map(|anchor| anchor.headers(from));
        let continuing = range.is_some();
        let Opened { mut response, url, host } = self.open(asking, range).await?;
        let status = response.status();
        let left = if continuing && status != StatusCode::OK {
            let anchor = state.anchor.take();
            let Some(anchor) = anchor.filter(|anchor| anchor.continues(&response, &url, from)) else {
                // Not what was asked for: next time from the beginning.
                return Err(CopyError::Http { host, status: status.as_u16() });
            };
            let left = anchor.length - from;
            state.anchor = Some(anchor);
            Some(left)
        } else {
            // The whole file, also where only the rest was asked for.
            if from > 0 {
                writer.restart().await;
            }
            // Whatever the client could decode is decoded and its header gone by now.
            let encoding = response.headers().get(CONTENT_ENCODING);
            if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
                return Err(NotOutput::Encoded.into());
            }
            let promised = response.content_length();
            if promised.is_some_and(|promised| promised > limits.max_bytes) {
                return Err(CopyError::TooLarge { max_bytes: limits.max_bytes });
            }
            take_memory(asking.memory, promised, limits)?;
            let content_type = response.headers().get(CONTENT_TYPE);
            writer.declare(content_type.and_then(|value| value.to_str().ok()).map(str::to_owned));
            state.begun = true;
            state.anchor = Anchor::of(&response, &url);
            promised
        };
        let before = writer.size();
        loop {
            let next = timeout(limits.stall, response.chunk()).await;
            let next = next.map_err(|_| CopyError::TimedOut { what: TimeLimit::Stall })?;
            match next.map_err(|error| classify(error, &host))? {
                Some(bytes) => writer.write(&bytes).await?,
                None => break,
            }
        }
        // HTTP/1 says so itself by breaking off; this is for every other way to come up short.
        if left.is_some_and(|left| left != writer.size() - before) {
            return Err(NotOutput::Truncated.into());
        }
        Ok(host)
    }

    /// Follows redirects to an answer that has a file, or, with `range`, the rest of one. Every check holds for every try.
    async fn open(&self, asking: &Asking<'_>, range: Option<HeaderMap>) -> Result<Opened, CopyError> {
        let first = &asking.first;
        let mut url = first.clone();
        // Once it has been left, the first host gets no key again.
        let mut with_key = asking.wants_key;
        for _ in 0..=asking.limits.max_redirects {
            let host = url.host_str().unwrap_or_default().to_owned();
            let refused = |reason| CopyError::Refused { host: Some(link::place(&url)), reason };
            link::check(&url, asking.allowed_hosts, self.loopback).map_err(refused)?;
            with_key &= link::same_origin(first, &url);
            let mut headers = HeaderMap::new();
            if with_key {
                link::check_key(&url, asking.key_hosts, self.loopback).map_err(refused)?;
                headers.extend(asking.auth.clone().unwrap_or_default());
            }
            headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            headers.extend(range.clone().unwrap_or_default());
            let sent = self.client.send(Method::GET, &url, headers, Bytes::new());
            let response = timeout(asking.limits.stall, sent)
                .await
                .map_err(|_| CopyError::TimedOut { what: TimeLimit::Stall })?
                .map_err(|error| classify(error, &host))?;
            match response.status() {
                StatusCode::OK => return Ok(Opened { response, url, host }),
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if range.is_some() => {
                    return Ok(Opened { response, url, host });
                }
                StatusCode::NO_CONTENT => return Err(NotOutput::Empty.into()),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = next_hop(&url, &response)?,
                status => return Err(refusal(status, host)),
            }
        }
        Err(UrlRefusal::TooManyRedirects.into())
    }
}

/// What does not change from try to try.
struct Asking<'a> {
    first: Url,
    allowed_hosts: &'a Hosts,
    key_hosts: &'a Hosts,
    wants_key: bool,
    auth: Option<HeaderMap>,
    memory: Option<&'a dyn Memory>,
    limits: &'a Limits,
}

/// An answer, and where it came from.
struct Opened {
    response: Response,
    url: Url,
    host: String,
}

fn next_hop(from: &Url, response: &Response) -> Result<Url, UrlRefusal> {
    let location = response.headers().get(LOCATION).ok_or(UrlRefusal::NotAUrl)?;
    link::redirect(from, std::str::from_utf8(location.as_bytes()).map_err(|_| UrlRefusal::NotAUrl)?)
}

/// What an answer without a file means.
fn refusal(status: StatusCode, host: String) -> CopyError {
    let code = status.as_u16();
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => CopyError::Gone { host, status: code },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CopyError::Unauthorized { host, status: code },
        _ => CopyError::Http { host, status: code },
    }
}

/// What the client's error means. The URL goes, since it may be signed.
fn classify(error: http::Error, host: &str) -> CopyError {
    // Before the body, a connection that ends early is a failed question, not a short file.
    let in_body = error.is_in_body();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(Refused(address)) = inner.downcast_ref() {
            return CopyError::Refused { host: Some(host.to_owned()), reason: UrlRefusal::Address(*address) };
        }
        if in_body && ends_early(inner) {
            return NotOutput::Truncated.into();
        }
        cause = inner.source();
    }
    if error.is_timeout() {
        return CopyError::TimedOut { what: TimeLimit::Stall };
    }
    if error.is_unpacking() {
        return NotOutput::Encoded.into();
    }
    CopyError::Network { host: host.to_owned(), source: Box::new(error) }
}

/// Whether this says that more was to come.
fn ends_early(error: &(dyn Error + 'static)) -> bool {
    let http = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message);
    let io = error.downcast_ref::<std::io::Error>();
    http || io.is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
}
