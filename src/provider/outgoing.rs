//! A request as it goes out: all that a signature may cover.
//!
//! `request` says what is asked and may be shown; `auth` puts keys into an [`Outgoing`], which is
//! never shown: its URL may hold a key.

use std::fmt;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use url::Url;

use super::request::Request;
use crate::clock::Timestamp;
use crate::http::{Client, Error, Response};

/// A request with everything that is sent.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({} {})", self.method, self.url.path())
    }
}

impl Outgoing {
    /// A request of a question, without its keys; `fixed` are the headers of the provider's file.
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

    /// A request that only collects headers, for the download of a file.
    pub(super) fn of_download(headers: HeaderMap) -> Option<Self> {
        let url = Url::parse("https://localhost/").ok()?;
        Some(Self { method: Method::GET, url, headers, body: Bytes::new() })
    }

    /// The host as the `Host` header names it.
    pub(super) fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Sends it.
    pub(super) async fn send(&self, client: &Client) -> Result<Response, Error> {
        client.send(self.method.clone(), &self.url, self.headers.clone(), self.body.clone()).await
    }
}

/// Whose key is wanted, when, and what a token may be asked for with.
pub(super) struct Caller<'a> {
    /// The provider's name.
    pub(super) provider: &'a str,
    pub(super) now: Timestamp,
    /// The provider's HTTP client; an error says why there is none.
    pub(super) client: Result<&'a Client, String>,
}
