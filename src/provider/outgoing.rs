//! A request as it is sent, with its keys and signatures.
//!
//! A [`Request`] may be stored and displayed. `auth` adds keys to an [`OutgoingRequest`], which
//! must never be displayed, because its URL may contain a key.

use std::fmt;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use url::Url;

use super::request::Request;
use crate::clock::Timestamp;
use crate::http::{Client, Error, Response};

/// A request as it is sent.
#[derive(Clone)]
pub(super) struct OutgoingRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl fmt::Debug for OutgoingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutgoingRequest({} {})", self.method, self.url.path())
    }
}

impl OutgoingRequest {
    /// Creates a request of a question, without its keys. `fixed`: the headers of the provider
    /// file.
    pub(super) fn new(request: &Request, fixed: &HeaderMap) -> Self {
        let mut headers = fixed.clone();
        headers.extend(request.headers.clone());
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let mut body = Bytes::new();
        if let Some(payload) = &request.payload {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(payload.content_type()));
            body = payload.text().into();
        }
        Self { method: request.method.clone(), url: request.url.clone(), headers, body }
    }

    /// Creates a request that only collects the headers for the download of a file.
    pub(super) fn of_download(headers: HeaderMap) -> Option<Self> {
        let url = Url::parse("https://localhost/").ok()?;
        Some(Self { method: Method::GET, url, headers, body: Bytes::new() })
    }

    /// The value of the `Host` header.
    pub(super) fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Sends the request.
    pub(super) async fn send(&self, client: &Client) -> Result<Response, Error> {
        client.send(self.method.clone(), &self.url, self.headers.clone(), self.body.clone()).await
    }
}

/// The context in which keys are read.
pub(super) struct AuthContext<'a> {
    /// The name of the provider.
    pub(super) provider: &'a str,
    pub(super) now: Timestamp,
    /// The HTTP client of the provider, for token requests. The error says why there is none.
    pub(super) client: Result<&'a Client, String>,
}
