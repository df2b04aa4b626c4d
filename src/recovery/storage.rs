//! The platform's storage: a directory or a bucket, with a prefix, from the URL in the settings.
//!
//! Local disk, S3, Google Cloud Storage or Azure Blob Storage, through `object_store`. A local
//! write goes to a temporary file that is flushed to disk and renamed. Credentials and endpoints
//! come from the environment variables that each cloud's own tools read (`AWS_…`, `GOOGLE_…`,
//! `AZURE_…`), never from the URL. `environment` refuses variables that would make a client panic
//! or write to another place than the recorded URI.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, RetryConfig,
};
use url::Url;

use super::file_type::is_attachment;
use super::key::ObjectKey;
use super::upload::{Upload, ignore_not_found};
use super::upload_log::ObjectLocation;

mod environment;
mod error;
mod local;
mod location;
#[cfg(test)]
mod tests;

pub use error::StorageError;

/// The storage for recovered outputs.
#[derive(Clone)]
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    /// The same store, if its multipart uploads have ids.
    multipart: Option<Arc<dyn MultipartStore>>,
    prefix: Path,
    backend: Backend,
}

/// The kind of storage, for the operations that differ.
#[derive(Clone)]
enum Backend {
    /// A directory of this machine. It stores no content types.
    Local,
    /// A bucket. `root` is its URL without the prefix: `s3://bucket`.
    Bucket { root: String },
}

/// A store, and the same one again if its multipart uploads have ids.
type Clients = (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>);

/// How requests to a bucket are retried. If a bucket is down, the copy fails within 30 seconds and
/// the next pass retries it; with the client's default each step, cleaning up included, would take
/// three minutes.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

impl ObjectStorage {
    /// Opens the storage at `url`. A relative directory is relative to `working_dir`. Reads and
    /// writes nothing; the first write creates the directory.
    ///
    /// `file:` URLs are percent-decoded (`%20` is a space); bucket prefixes are not.
    pub fn open(url: &str, working_dir: &FilePath) -> Result<Self, StorageError> {
        let (scheme, rest) = url.split_once(':').ok_or(StorageError::Url { why: "it has no scheme" })?;
        match scheme {
            "file" => Self::local(&location::directory(rest, working_dir)?),
            "s3" | "gs" | "az" => {
                let (bucket, _) = location::bucket_and_prefix(rest)?;
                environment::check(scheme, bucket, std::env::vars_os())?;
                Self::from_environment(scheme, rest)
            }
            _ => Err(StorageError::Url { why: "its scheme is not one of file, s3, gs, az" }),
        }
    }

    fn from_environment(scheme: &str, rest: &str) -> Result<Self, StorageError> {
        match scheme {
            "s3" => Self::s3(AmazonS3Builder::from_env(), rest),
            "gs" => Self::bucket(scheme, rest, |bucket| {
                let client = GoogleCloudStorageBuilder::from_env().with_retry(retry());
                let store = Arc::new(client.with_bucket_name(bucket).build()?);
                Ok((store.clone(), Some(store)))
            }),
            // Azure has no upload ids, and deletes uncommitted blocks after a week.
            _ => Self::bucket("az", rest, |container| {
                let client = MicrosoftAzureBuilder::from_env().with_retry(retry());
                let store = client.with_container_name(container).build()?;
                Ok((Arc::new(store), None))
            }),
        }
    }

    /// Opens `//bucket/prefix` on S3 with the credentials and the endpoint of `client`.
    /// [`ObjectStorage::open`] takes these from the environment.
    pub fn s3(client: AmazonS3Builder, bucket_and_prefix: &str) -> Result<Self, StorageError> {
        Self::bucket("s3", bucket_and_prefix, |bucket| {
            // Objects are deleted one at a time, and not every S3 service supports bulk delete.
            let client = client.with_disable_bulk_delete(true).with_retry(retry());
            let store = Arc::new(client.with_bucket_name(bucket).build()?);
            Ok((store.clone(), Some(store)))
        })
    }

    fn local(directory: &FilePath) -> Result<Self, StorageError> {
        let prefix = Path::from_absolute_path(directory)
            .map_err(|_| StorageError::Url { why: "its directory has a part that no path can have" })?;
        if prefix.is_root() {
            return Err(StorageError::Url { why: "it is the root of the file system" });
        }
        // The store's own root is `/`: a deeper root would have to exist already.
        let store = Arc::new(LocalFileSystem::new().with_fsync(true));
        Ok(Self { store, multipart: None, prefix, backend: Backend::Local })
    }

    fn bucket(
        scheme: &str,
        rest: &str,
        open: impl FnOnce(&str) -> object_store::Result<Clients>,
    ) -> Result<Self, StorageError> {
        let (bucket, prefix) = location::bucket_and_prefix(rest)?;
        let root = format!("{scheme}://{bucket}");
        let (store, multipart) = open(bucket)
            .map_err(|source| StorageError::Open { root: root.clone(), source: Box::new(source) })?;
        Ok(Self { store, multipart, prefix, backend: Backend::Bucket { root } })
    }

    /// The URI of the object `key`, as recorded in `stored_outputs`: `file:///…` or `s3://…`.
    pub fn uri(&self, key: &ObjectKey) -> String {
        self.uri_of(&self.path(key))
    }

    /// Deletes the object `key`. Idempotent: a missing object is no error.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.delete_path(&self.path(key)).await
    }

    /// The size in bytes of the object at `uri`. `None`: it does not exist.
    ///
    /// # Errors
    /// The URI belongs to another storage, or this storage could not be read.
    pub async fn size_of(&self, uri: &str) -> Result<Option<u64>, StorageError> {
        let path = self.path_of(uri)?;
        self.refuse_links("read", &path).await?;
        match self.store.head(&path).await {
            Ok(object) => Ok(Some(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("read", &path, source)),
        }
    }

    /// The path of the object at `uri`.
    fn path_of(&self, uri: &str) -> Result<Path, StorageError> {
        let path = match &self.backend {
            Backend::Bucket { root } => {
                uri.strip_prefix(root.as_str()).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned)
            }
            Backend::Local => {
                let file = Url::parse(uri).ok().and_then(|url| url.to_file_path().ok());
                file.and_then(|file| file.to_str().map(|path| path.trim_start_matches('/').to_owned()))
            }
        };
        let elsewhere = || StorageError::Elsewhere { uri: uri.to_owned(), root: self.root() };
        let path = path.and_then(|path| Path::parse(path).ok()).ok_or_else(elsewhere)?;
        if self.uri_of(&path) == uri { Ok(path) } else { Err(elsewhere()) }
    }

    /// Writes a small object, reads it back by the URI that a recovery would record, and deletes
    /// it. Returns that URI.
    pub async fn check(&self) -> Result<String, StorageError> {
        // No charge has such a key: see `ObjectKey`. Random, so that concurrent checks do not
        // collide.
        let path = self.below(&format!("%2Dcheck/{:016x}", RandomState::new().build_hasher().finish()));
        let uri = self.uri_of(&path);
        let probe = Bytes::from_static(b"written by `makegood check` to test the storage");
        self.put(&path, probe.clone(), "text/plain").await?;
        let failed = |source| self.failed("read", &path, source);
        let read = match self.path_of(&uri) {
            Ok(path) => match self.refuse_links("read", &path).await {
                Ok(()) => async { self.store.get(&path).await?.bytes().await }.await.map_err(failed),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        // The probe is deleted in any case. A failure to read is reported before a failure to
        // delete.
        let deleted = self.delete_path(&path).await;
        if read? != probe {
            return Err(StorageError::Differs { uri });
        }
        deleted.map(|()| uri)
    }

    /// Writes an object with one request, atomically.
    pub(super) async fn put(
        &self,
        path: &Path,
        bytes: Bytes,
        content_type: &str,
    ) -> Result<(), StorageError> {
        let options = PutOptions { attributes: self.attributes(content_type), ..PutOptions::default() };
        self.refuse_links("write", path).await?;
        let put = self.store.put_opts(path, bytes.into(), options).await;
        put.map_err(|source| self.failed("write", path, source))?;
        self.refuse_links("write", path).await
    }

    /// Starts a multipart upload. The object exists only after [`ObjectStorage::complete`].
    pub(super) async fn start_upload(&self, path: &Path, content_type: &str) -> Result<Upload, StorageError> {
        let options = PutMultipartOptions {
            attributes: self.attributes(content_type),
            ..PutMultipartOptions::default()
        };
        self.refuse_links("write", path).await?;
        let upload = if let Some(store) = &self.multipart {
            let id = store.create_multipart_opts(path, options).await;
            id.map(|id| Upload::by_id(path.clone(), Arc::clone(store), id))
        } else {
            let handle = self.store.put_multipart_opts(path, options).await;
            handle.map(|handle| Upload::by_handle(path.clone(), handle))
        };
        upload.map_err(|source| self.failed("write", path, source))
    }

    /// Completes a multipart upload. If the response is lost, a retry fails with an unknown upload
    /// although the object exists. No other lease writes to this path, so an object of this size
    /// means success.
    pub(super) async fn complete(
        &self,
        upload: &mut Upload,
        path: &Path,
        size: u64,
    ) -> Result<(), StorageError> {
        self.refuse_links("write", path).await?;
        match upload.complete().await {
            Ok(()) => {}
            Err(_) if self.store.head(path).await.is_ok_and(|there| there.size == size) => {}
            Err(source) => return Err(self.failed("write", path, source)),
        }
        self.refuse_links("write", path).await
    }

    /// The location of the object at `path`, for the upload log.
    pub(super) fn location(&self, path: &Path) -> ObjectLocation {
        ObjectLocation { storage: self.root(), path: path.to_string(), uri: self.uri_of(path) }
    }

    /// The storage's URL without its prefix, as in the upload log: `file://`, `s3://bucket`.
    pub fn root(&self) -> String {
        match &self.backend {
            Backend::Bucket { root } => root.clone(),
            Backend::Local => "file://".to_owned(),
        }
    }

    /// Removes what a killed copy left at the path of a log entry: a multipart upload, temporary
    /// files and, unless a row names it (`is_named`), the object. Idempotent: what does not exist
    /// is no error.
    pub async fn clear(
        &self,
        path: &str,
        upload_id: Option<&str>,
        is_named: bool,
    ) -> Result<(), StorageError> {
        let path = Path::parse(path)
            .map_err(|_| StorageError::Url { why: "an entry of the upload log has an invalid path" })?;
        if let (Some(store), Some(id)) = (&self.multipart, upload_id) {
            let id = id.to_owned();
            let aborted = ignore_not_found(store.abort_multipart(&path, &id).await);
            aborted.map_err(|source| self.failed("abort", &path, source))?;
        }
        if let Backend::Local = self.backend {
            self.refuse_links("delete", &path).await?;
            let object = PathBuf::from(format!("/{path}"));
            let removed = tokio::task::spawn_blocking(move || local::remove_temporary(&object)).await;
            let removed = removed.unwrap_or_else(|join| Err(std::io::Error::other(join)));
            removed.map_err(|source| {
                let source =
                    object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(source) };
                self.failed("delete", &path, source)
            })?;
        }
        if is_named { Ok(()) } else { self.delete_path(&path).await }
    }

    /// The path of the object `key` in the store.
    pub(super) fn path(&self, key: &ObjectKey) -> Path {
        self.below(&key.to_string())
    }

    pub(super) fn failed(
        &self,
        action: &'static str,
        path: &Path,
        source: object_store::Error,
    ) -> StorageError {
        StorageError::Object { action, uri: self.uri_of(path), source: Box::new(source) }
    }

    pub(super) async fn delete_path(&self, path: &Path) -> Result<(), StorageError> {
        self.refuse_links("delete", path).await?;
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("delete", path, source)),
        }
    }

    /// Fails if a part of the path below the directory is a symbolic link. Does nothing for a
    /// bucket.
    async fn refuse_links(&self, action: &'static str, path: &Path) -> Result<(), StorageError> {
        let Backend::Local = self.backend else { return Ok(()) };
        let (root, object) = (PathBuf::from(format!("/{}", self.prefix)), PathBuf::from(format!("/{path}")));
        let looked = tokio::task::spawn_blocking(move || local::find_link(&root, &object)).await;
        match looked.unwrap_or_else(|join| Err(std::io::Error::other(join))) {
            Ok(None) => Ok(()),
            Ok(Some(link)) => Err(StorageError::Link { action, uri: self.uri_of(path), link }),
            Err(source) => {
                let source =
                    object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(source) };
                Err(self.failed(action, path, source))
            }
        }
    }

    /// A path below the prefix. `relative` is already encoded; joining it as a string would encode
    /// it again.
    fn below(&self, relative: &str) -> Path {
        relative.split('/').fold(self.prefix.clone(), |path, part| {
            match object_store::path::PathPart::parse(part) {
                Ok(part) => path.join(part),
                // Only for a segment with a control character or of dots only: an `ObjectKey` has
                // none.
                Err(_) => path.join(part),
            }
        })
    }

    fn attributes(&self, content_type: &str) -> Attributes {
        match self.backend {
            // The local store returns an error if attributes are set.
            Backend::Local => Attributes::new(),
            Backend::Bucket { .. } => {
                let mut attributes =
                    Attributes::from_iter([(Attribute::ContentType, content_type.to_owned())]);
                if is_attachment(content_type) {
                    attributes.insert(Attribute::ContentDisposition, "attachment".into());
                }
                attributes
            }
        }
    }

    fn uri_of(&self, path: &Path) -> String {
        match &self.backend {
            Backend::Bucket { root } => format!("{root}/{path}"),
            // A file name may contain `%2F`; in the URL its `%` is encoded again.
            Backend::Local => Url::from_file_path(format!("/{path}"))
                .map_or_else(|()| format!("file:///{path}"), String::from),
        }
    }
}

impl fmt::Debug for ObjectStorage {
    // The clients' own output is long and may contain credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStorage({})", self.uri_of(&self.prefix))
    }
}
