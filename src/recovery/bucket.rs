//! Reads files that a provider stores in Google Cloud Storage: `gs://bucket/path`.
//!
//! They are read with makegood's own Google account (`GOOGLE_…` in the environment, or the
//! machine's service account), and an answer could name any bucket. Promise: only buckets in the
//! provider's `output_hosts` are read (`gs://name`, or `gs://*` for all that the account may read),
//! under the same limits as any other file.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Attribute, ClientOptions, Error, GetOptions, GetResult, ObjectStore, RetryConfig};
use tokio::time::timeout;

use super::link::{MAX_URL_BYTES, UrlRefusal};
use super::write::ObjectWriter;
use super::{CopyError, CopyLimits, MemoryBudget, NotOutput, TimeLimit, reserve_memory};
use crate::config::HttpUrl;
use crate::egress::{Hosts, proxied_bucket};

/// The most bucket clients in the cache.
const MAX_BUCKETS: usize = 64;
const SCHEME: &str = "gs://";

/// Whether this is a valid name of a bucket.
pub fn is_bucket_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    (3..=222).contains(&name.len()) && name.bytes().all(plain)
}

/// Whether this URL names an object in a bucket. All other URLs are downloaded over HTTP.
pub(super) fn is_bucket_url(url: &str) -> bool {
    url.starts_with(SCHEME)
}

/// Creates a client that reads a bucket.
pub(super) type OpenBucket = dyn Fn(&str) -> object_store::Result<Arc<dyn ObjectStore>> + Send + Sync;

/// A cache of bucket clients. Each client caches its access token.
pub(super) struct Buckets {
    open: Box<OpenBucket>,
    opened: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buckets")
    }
}

/// Checks that the URL names an object in a listed bucket.
pub(super) fn check(url: &str, listed: &Hosts) -> Result<(), UrlRefusal> {
    let (bucket, _) = parse(url)?;
    if listed.lists_bucket(bucket) { Ok(()) } else { Err(UrlRefusal::Host) }
}

impl Buckets {
    pub(super) fn new(open: Box<OpenBucket>) -> Self {
        Self { open, opened: Mutex::default() }
    }

    /// Google's buckets, with the credentials of the environment, through `proxy` if there is one.
    pub(super) fn google(proxy: Option<HttpUrl>) -> Self {
        Self::new(Box::new(move |bucket| {
            google(GoogleCloudStorageBuilder::from_env(), bucket, proxy.as_ref())
        }))
    }

    /// Streams the object at `url` into `writer`. Returns `gs://bucket` in place of a host.
    pub(super) async fn download(
        &self,
        url: &str,
        listed: &Hosts,
        memory: Option<&dyn MemoryBudget>,
        limits: &CopyLimits,
        writer: &mut ObjectWriter<'_>,
    ) -> Result<String, CopyError> {
        let (bucket, path) = parse(url)?;
        let host = format!("{SCHEME}{bucket}");
        check(url, listed).map_err(|reason| CopyError::Refused { host: Some(host.clone()), reason })?;
        let failed = |source| classify(source, &host);
        let store = self.bucket(bucket).map_err(failed)?;
        let stalled = |_| CopyError::TimedOut { limit: TimeLimit::Stall };
        let opened = store.get_opts(&path, GetOptions::default());
        let file = timeout(limits.stall_timeout, opened).await.map_err(stalled)?.map_err(failed)?;
        let size = file.meta.size;
        if size > limits.max_bytes {
            return Err(CopyError::TooLarge { max_bytes: limits.max_bytes });
        }
        reserve_memory(memory, Some(size), limits)?;
        writer.declare(content_type(&file));
        let mut pieces = file.into_stream();
        while let Some(piece) = timeout(limits.stall_timeout, pieces.next()).await.map_err(stalled)? {
            writer.write(&piece.map_err(failed)?).await?;
        }
        if writer.size() != size {
            return Err(NotOutput::Truncated.into());
        }
        Ok(host)
    }

    fn bucket(&self, name: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = opened.get(name) {
            return Ok(Arc::clone(store));
        }
        let store = (self.open)(name)?;
        // Answers choose the names, so the cache is bounded.
        if opened.len() >= MAX_BUCKETS {
            opened.clear();
        }
        opened.insert(name.to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

/// Creates a client for `bucket` with the credentials of `client`.
pub(super) fn google(
    client: GoogleCloudStorageBuilder,
    bucket: &str,
    proxy: Option<&HttpUrl>,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    // A large file takes longer than the client's default request timeout. `CopyLimits` bounds
    // stalls and the whole copy, and the pass bounds retries of the whole copy.
    let options = proxied_bucket(ClientOptions::new().with_timeout_disabled(), proxy);
    let retry = RetryConfig { max_retries: 2, ..RetryConfig::default() };
    let client = client.with_client_options(options).with_retry(retry).with_bucket_name(bucket);
    Ok(Arc::new(client.build()?))
}

fn content_type(file: &GetResult) -> Option<String> {
    file.attributes.get(&Attribute::ContentType).map(|value| value.to_string())
}

fn parse(url: &str) -> Result<(&str, Path), UrlRefusal> {
    if url.len() > MAX_URL_BYTES || url.contains(char::is_control) {
        return Err(UrlRefusal::NotAUrl);
    }
    let rest = url.strip_prefix(SCHEME).ok_or(UrlRefusal::Scheme)?;
    let (bucket, path) = rest.split_once('/').ok_or(UrlRefusal::NotAUrl)?;
    if bucket.contains('@') {
        return Err(UrlRefusal::UserInfo);
    }
    if !is_bucket_name(bucket) || path.is_empty() {
        return Err(UrlRefusal::NotAUrl);
    }
    // Object names may contain anything. Names with `..` or empty segments are refused.
    Path::parse(path).map(|path| (bucket, path)).map_err(|_| UrlRefusal::NotAUrl)
}

fn classify(error: Error, host: &str) -> CopyError {
    let host = host.to_owned();
    match error {
        Error::NotFound { .. } => CopyError::Gone { host, status: 404 },
        Error::PermissionDenied { .. } => CopyError::Unauthorized { host, status: 403 },
        Error::Unauthenticated { .. } => CopyError::Unauthorized { host, status: 401 },
        other => CopyError::Bucket { host, source: Box::new(other) },
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::{ObjectKey, ObjectStorage};
    use super::*;
    use crate::egress::List;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and the rest of a picture";

    async fn copy(
        buckets: &Buckets,
        url: &str,
        listed: &[&str],
        limits: &CopyLimits,
    ) -> Result<(String, u64), CopyError> {
        let scratch = tempfile::tempdir().unwrap();
        let storage = ObjectStorage::open("file:./out", scratch.path()).unwrap();
        let key = ObjectKey::new("ch_1", 0, 7);
        let listed = Hosts::parse(List::Outputs, listed).unwrap();
        let notes = Arc::new(super::super::tests::Notes::default());
        let mut writer = ObjectWriter::new(&storage, &key, notes, &[], limits.max_bytes);
        let host = buckets.download(url, &listed, None, limits, &mut writer).await?;
        Ok((host, writer.size()))
    }

    async fn buckets_with_a_picture() -> Buckets {
        let store = Arc::new(InMemory::new());
        store.put(&Path::parse("a b/0.png").unwrap(), PNG.into()).await.unwrap();
        Buckets::new(Box::new(move |bucket| {
            assert_eq!(bucket, "acme-videos", "a bucket that is not listed was opened");
            Ok(Arc::clone(&store) as Arc<dyn ObjectStore>)
        }))
    }

    #[tokio::test]
    async fn only_listed_buckets_are_opened() {
        let buckets = buckets_with_a_picture().await;
        let url = "gs://acme-videos/a b/0.png";
        let length = PNG.len() as u64;
        for listed in [["gs://acme-videos"], ["gs://*"]] {
            let copied = copy(&buckets, url, &listed, &CopyLimits::default()).await.unwrap();
            assert_eq!(copied, ("gs://acme-videos".to_owned(), length));
        }
        for listed in [&[][..], &["gs://acme"], &["acme-videos"]] {
            let refused = copy(&buckets, url, listed, &CopyLimits::default()).await.unwrap_err();
            assert!(matches!(refused, CopyError::Refused { reason: UrlRefusal::Host, .. }), "{refused:?}");
        }
        let gone = copy(&buckets, "gs://acme-videos/none.png", &["gs://*"], &CopyLimits::default()).await;
        assert!(matches!(gone, Err(CopyError::Gone { status: 404, .. })), "{gone:?}");
        let limits = CopyLimits { max_bytes: length - 1, ..CopyLimits::default() };
        let large = copy(&buckets, url, &["gs://*"], &limits).await;
        assert!(matches!(large, Err(CopyError::TooLarge { .. })), "{large:?}");
    }

    #[test]
    fn a_url_that_names_no_object_in_a_bucket_is_refused() {
        for (url, reason) in [
            ("gs://", UrlRefusal::NotAUrl),
            ("gs://bucket", UrlRefusal::NotAUrl),
            ("gs://bucket/", UrlRefusal::NotAUrl),
            ("gs:///path", UrlRefusal::NotAUrl),
            ("gs://ab/path", UrlRefusal::NotAUrl),
            ("gs://BUCKET/path", UrlRefusal::NotAUrl),
            ("gs://bucket:80/path", UrlRefusal::NotAUrl),
            ("gs://bucket/../other/path", UrlRefusal::NotAUrl),
            ("gs://bucket/a//b", UrlRefusal::NotAUrl),
            ("gs://bucket/a\nb", UrlRefusal::NotAUrl),
            ("gs://*/a", UrlRefusal::NotAUrl),
            ("gs://user@bucket/a", UrlRefusal::UserInfo),
            ("s3://bucket/a", UrlRefusal::Scheme),
        ] {
            assert_eq!(parse(url).map(drop), Err(reason), "{url:?}");
        }
        assert!(is_bucket_url("gs://bucket/a") && !is_bucket_url("https://gs://bucket/a"));
    }

    /// Downloads with Google's real client from a server that answers every request with `head`.
    async fn from_google(head: &'static str, body: &'static [u8]) -> Result<(String, u64), CopyError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 8192];
                let _ = stream.read(&mut request).await;
                let head = format!(
                    "HTTP/1.1 {head}\r\ncontent-length: {}\r\nlast-modified: Mon, 04 May 2026 09:12:30 GMT\r\n\
                     etag: \"1\"\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
            }
        });
        let account = serde_json::json!({
            "gcs_base_url": format!("http://{address}"), "disable_oauth": true, "client_email": "",
            "private_key": "", "private_key_id": "",
        });
        let buckets = Buckets::new(Box::new(move |bucket| {
            let client = GoogleCloudStorageBuilder::new().with_service_account_key(account.to_string());
            let options = ClientOptions::new().with_timeout_disabled().with_allow_http(true);
            let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
            let client = client.with_client_options(options).with_retry(retry).with_bucket_name(bucket);
            Ok(Arc::new(client.build()?))
        }));
        copy(&buckets, "gs://acme-videos/0.png", &["gs://*"], &CopyLimits::default()).await
    }

    #[tokio::test]
    async fn googles_error_responses_are_mapped_to_copy_errors() {
        let copied = from_google("200 OK\r\ncontent-type: image/png", PNG).await.unwrap();
        assert_eq!(copied.1, PNG.len() as u64);
        let error = |head| async move { from_google(head, b"no").await.unwrap_err() };
        assert!(matches!(error("404 Not Found").await, CopyError::Gone { status: 404, .. }));
        assert!(matches!(error("403 Forbidden").await, CopyError::Unauthorized { status: 403, .. }));
        assert!(matches!(error("401 Unauthorized").await, CopyError::Unauthorized { status: 401, .. }));
        assert!(matches!(error("500 Oops").await, CopyError::Bucket { .. }));
    }
}
