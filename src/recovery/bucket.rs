//! Files that a provider leaves in a bucket of Google Cloud Storage: `gs://bucket/path`.
//!
//! They are read with makegood's own rights (`GOOGLE_…` in the environment, or the machine's own account),
//! and an answer could name any bucket. Promise: only buckets of the provider's list are read
//! (`gs://name`, or `gs://*` for all that the account may read), under the same limits as any other file.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Attribute, ClientOptions, Error, GetOptions, GetResult, ObjectStore, RetryConfig};
use tokio::time::timeout;

use super::link::{LENGTH_MAX, UrlRefusal};
use super::write::Writer;
use super::{CopyError, Limits, Memory, NotOutput, TimeLimit, take_memory};
use crate::config::HttpUrl;
use crate::egress::{Hosts, proxied_bucket};

/// How many buckets are remembered.
const BUCKETS_MAX: usize = 64;
const SCHEME: &str = "gs://";

/// Whether a bucket can be called that.
pub fn is_bucket(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    (3..=222).contains(&name.len()) && name.bytes().all(plain)
}

/// Whether this is the URL of a file in a bucket, and not one to be fetched over HTTP.
pub(super) fn is_one(url: &str) -> bool {
    url.starts_with(SCHEME)
}

/// Opens a bucket for reading.
pub(super) type Open = dyn Fn(&str) -> object_store::Result<Arc<dyn ObjectStore>> + Send + Sync;

/// Buckets that were opened: each keeps its token while it is good.
pub(super) struct Buckets {
    open: Box<Open>,
    opened: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buckets")
    }
}

/// Whether the URL names a file in a bucket that is listed.
pub(super) fn check(url: &str, listed: &Hosts) -> Result<(), UrlRefusal> {
    let (bucket, _) = parse(url)?;
    if listed.lists_bucket(bucket) { Ok(()) } else { Err(UrlRefusal::Host) }
}

impl Buckets {
    pub(super) fn new(open: Box<Open>) -> Self {
        Self { open, opened: Mutex::default() }
    }

    /// Google's, with the credentials of the environment, through `proxy` where there is one.
    pub(super) fn google(proxy: Option<HttpUrl>) -> Self {
        Self::new(Box::new(move |bucket| {
            google(GoogleCloudStorageBuilder::from_env(), bucket, proxy.as_ref())
        }))
    }

    /// Streams the file at `url` into `writer`; returns what stands for its host.
    pub(super) async fn download(
        &self,
        url: &str,
        listed: &Hosts,
        memory: Option<&dyn Memory>,
        limits: &Limits,
        writer: &mut Writer<'_>,
    ) -> Result<String, CopyError> {
        let (bucket, path) = parse(url)?;
        let host = format!("{SCHEME}{bucket}");
        check(url, listed).map_err(|reason| CopyError::Refused { host: Some(host.clone()), reason })?;
        let failed = |source| classify(source, &host);
        let store = self.bucket(bucket).map_err(failed)?;
        let stalled = |_| CopyError::TimedOut { what: TimeLimit::Stall };
        let opened = store.get_opts(&path, GetOptions::default());
        let file = timeout(limits.stall, opened).await.map_err(stalled)?.map_err(failed)?;
        let size = file.meta.size;
        if size > limits.max_bytes {
            return Err(CopyError::TooLarge { max_bytes: limits.max_bytes });
        }
        take_memory(memory, Some(size), limits)?;
        writer.declare(content_type(&file));
        let mut pieces = file.into_stream();
        while let Some(piece) = timeout(limits.stall, pieces.next()).await.map_err(stalled)? {
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
        // Answers choose the names: what they can fill is bounded.
        if opened.len() >= BUCKETS_MAX {
            opened.clear();
        }
        opened.insert(name.to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

/// Opens `bucket` at Google with the credentials of `client`.
pub(super) fn google(
    client: GoogleCloudStorageBuilder,
    bucket: &str,
    proxy: Option<&HttpUrl>,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    // A large file takes longer than one request is given by default; stalls and the whole copy are
    // bounded by the limits, and tries of the whole copy by the pass.
    let options = proxied_bucket(ClientOptions::new().with_timeout_disabled(), proxy);
    let retry = RetryConfig { max_retries: 2, ..RetryConfig::default() };
    let client = client.with_client_options(options).with_retry(retry).with_bucket_name(bucket);
    Ok(Arc::new(client.build()?))
}

fn content_type(file: &GetResult) -> Option<String> {
    file.attributes.get(&Attribute::ContentType).map(|value| value.to_string())
}

fn parse(url: &str) -> Result<(&str, Path), UrlRefusal> {
    if url.len() > LENGTH_MAX || url.contains(char::is_control) {
        return Err(UrlRefusal::NotAUrl);
    }
    let rest = url.strip_prefix(SCHEME).ok_or(UrlRefusal::Scheme)?;
    let (bucket, path) = rest.split_once('/').ok_or(UrlRefusal::NotAUrl)?;
    if bucket.contains('@') {
        return Err(UrlRefusal::UserInfo);
    }
    if !is_bucket(bucket) || path.is_empty() {
        return Err(UrlRefusal::NotAUrl);
    }
    // Object names may hold anything; those with `..` or empty parts are left alone.
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

    use super::super::{Key, Storage};
    use super::*;
    use crate::egress::List;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and the rest of a picture";

    async fn copy(
        buckets: &Buckets,
        url: &str,
        listed: &[&str],
        limits: &Limits,
    ) -> Result<(String, u64), CopyError> {
        let scratch = tempfile::tempdir().unwrap();
        let storage = Storage::open("file:./out", scratch.path()).unwrap();
        let key = Key::new("ch_1", 0, 7);
        let listed = Hosts::parse(List::Outputs, listed).unwrap();
        let notes = Arc::new(super::super::tests::Notes::default());
        let mut writer = Writer::new(&storage, &key, notes, &[], limits.max_bytes);
        let host = buckets.download(url, &listed, None, limits, &mut writer).await?;
        Ok((host, writer.size()))
    }

    async fn with_a_picture() -> Buckets {
        let store = Arc::new(InMemory::new());
        store.put(&Path::parse("a b/0.png").unwrap(), PNG.into()).await.unwrap();
        Buckets::new(Box::new(move |bucket| {
            assert_eq!(bucket, "acme-videos", "a bucket that is not listed was opened");
            Ok(Arc::clone(&store) as Arc<dyn ObjectStore>)
        }))
    }

    #[tokio::test]
    async fn a_file_of_a_listed_bucket_is_read_and_no_other_bucket_is_opened() {
        let buckets = with_a_picture().await;
        let url = "gs://acme-videos/a b/0.png";
        let length = PNG.len() as u64;
        for listed in [["gs://acme-videos"], ["gs://*"]] {
            let copied = copy(&buckets, url, &listed, &Limits::default()).await.unwrap();
            assert_eq!(copied, ("gs://acme-videos".to_owned(), length));
        }
        for listed in [&[][..], &["gs://acme"], &["acme-videos"]] {
            let refused = copy(&buckets, url, listed, &Limits::default()).await.unwrap_err();
            assert!(matches!(refused, CopyError::Refused { reason: UrlRefusal::Host, .. }), "{refused:?}");
        }
        let gone = copy(&buckets, "gs://acme-videos/none.png", &["gs://*"], &Limits::default()).await;
        assert!(matches!(gone, Err(CopyError::Gone { status: 404, .. })), "{gone:?}");
        let limits = Limits { max_bytes: length - 1, ..Limits::default() };
        let large = copy(&buckets, url, &["gs://*"], &limits).await;
        assert!(matches!(large, Err(CopyError::TooLarge { .. })), "{large:?}");
    }

    #[test]
    fn a_url_that_names_no_file_of_a_bucket_is_refused() {
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
        assert!(is_one("gs://bucket/a") && !is_one("https://gs://bucket/a"));
    }

    /// Google's real client against a server that answers `head` to everything.
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
        copy(&buckets, "gs://acme-videos/0.png", &["gs://*"], &Limits::default()).await
    }

    #[tokio::test]
    async fn googles_own_answers_are_told_apart() {
        let copied = from_google("200 OK\r\ncontent-type: image/png", PNG).await.unwrap();
        assert_eq!(copied.1, PNG.len() as u64);
        let error = |head| async move { from_google(head, b"no").await.unwrap_err() };
        assert!(matches!(error("404 Not Found").await, CopyError::Gone { status: 404, .. }));
        assert!(matches!(error("403 Forbidden").await, CopyError::Unauthorized { status: 403, .. }));
        assert!(matches!(error("401 Unauthorized").await, CopyError::Unauthorized { status: 401, .. }));
        assert!(matches!(error("500 Oops").await, CopyError::Bucket { .. }));
    }
}
