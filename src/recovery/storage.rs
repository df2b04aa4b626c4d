//! The platform's storage: one place, one prefix, by the URL of the settings.
//!
//! Local disk, S3, Google Cloud Storage or Azure Blob Storage, all through `object_store`. A local
//! write is a temporary file, flushed to disk and renamed. Credentials and endpoints come from the
//! environment variables that each cloud's own tools read (`AWS_…`, `GOOGLE_…`, `AZURE_…`), never
//! from the URL; `environment` refuses those that the clients would panic over, or write elsewhere
//! by.

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

use super::journal::Place;
use super::key::Key;
use super::kind::is_attachment;
use super::upload::{Upload, gone};

mod environment;
mod error;
mod local;
mod location;

pub use error::StorageError;

/// Where recovered outputs go.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    /// The same store where it gives uploads in parts an id.
    multipart: Option<Arc<dyn MultipartStore>>,
    prefix: Path,
    place: Kind,
}

/// What kind of place it is, where that makes a difference.
#[derive(Clone)]
enum Kind {
    /// A directory of this machine. Keeps no content types.
    Local,
    /// A bucket; `root` is its URL without the prefix: `s3://bucket`.
    Bucket { root: String },
}

/// A store, and the same one where it gives uploads in parts an id.
type Opened = (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>);

/// How a request to a bucket is tried again. A bucket that is down fails a copy soon: the next pass tries it again, and nobody
/// waits three minutes for each step of it, cleaning up included.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

impl Storage {
    /// Opens the storage behind `url`; relative directories are below `working_dir`. Touches
    /// nothing yet: directories are made by the first write.
    ///
    /// In `file:` URLs `%20` is a space; bucket prefixes are taken as they are written.
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
            // Azure gives no ids, and its parts vanish by themselves after a week.
            _ => Self::bucket("az", rest, |container| {
                let client = MicrosoftAzureBuilder::from_env().with_retry(retry());
                let store = client.with_container_name(container).build()?;
                Ok((Arc::new(store), None))
            }),
        }
    }

    /// Opens `//bucket/prefix` on S3 with the credentials and the endpoint of `client`; [`Storage::open`]
    /// takes those from the environment.
    pub fn s3(client: AmazonS3Builder, bucket_and_prefix: &str) -> Result<Self, StorageError> {
        Self::bucket("s3", bucket_and_prefix, |bucket| {
            // One object at a time is deleted here, and not every S3 knows how to delete many.
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
        // The store's own root stays `/`: it would insist that a deeper one exists already.
        let store = Arc::new(LocalFileSystem::new().with_fsync(true));
        Ok(Self { store, multipart: None, prefix, place: Kind::Local })
    }

    fn bucket(
        scheme: &str,
        rest: &str,
        open: impl FnOnce(&str) -> object_store::Result<Opened>,
    ) -> Result<Self, StorageError> {
        let (bucket, prefix) = location::bucket_and_prefix(rest)?;
        let root = format!("{scheme}://{bucket}");
        let (store, multipart) = open(bucket)
            .map_err(|source| StorageError::Open { root: root.clone(), source: Box::new(source) })?;
        Ok(Self { store, multipart, prefix, place: Kind::Bucket { root } })
    }

    /// Where the object of `key` is, as recorded in the stored output: `file:///…` or `s3://…`.
    pub fn uri(&self, key: &Key) -> String {
        self.uri_of(&self.path(key))
    }

    /// Deletes the object of `key`; one that is not there is as good as deleted.
    pub async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.delete_path(&self.path(key)).await
    }

    /// How long the object is that a recovery named `uri`; none: it is not there any more.
    ///
    /// # Errors
    /// It lies in another storage than this one, or this one does not say.
    pub async fn size_of(&self, uri: &str) -> Result<Option<u64>, StorageError> {
        let path = self.path_of(uri)?;
        self.refuse_links("read", &path).await?;
        match self.store.head(&path).await {
            Ok(object) => Ok(Some(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("read", &path, source)),
        }
    }

    /// Where the object is that was recorded as `uri`.
    fn path_of(&self, uri: &str) -> Result<Path, StorageError> {
        let path = match &self.place {
            Kind::Bucket { root } => {
                uri.strip_prefix(root.as_str()).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned)
            }
            Kind::Local => {
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
        // No charge has this key: see `Key`. Random, so that several checks do not meet.
        let path = self.below(&format!("%2Dcheck/{:016x}", RandomState::new().build_hasher().finish()));
        let uri = self.uri_of(&path);
        let probe = Bytes::from_static(b"makegood was here to see whether it can write");
        self.put(&path, probe.clone(), "text/plain").await?;
        let failed = |source| self.failed("read", &path, source);
        let read = match self.path_of(&uri) {
            Ok(path) => match self.refuse_links("read", &path).await {
                Ok(()) => async { self.store.get(&path).await?.bytes().await }.await.map_err(failed),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        // The probe goes in any case; a failure to read is the first thing to tell.
        let deleted = self.delete_path(&path).await;
        if read? != probe {
            return Err(StorageError::Differs { uri });
        }
        deleted.map(|()| uri)
    }

    /// Writes an object in one go: there is all of it, or nothing.
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

    /// Begins to write an object in parts; it is there when the upload is completed, and not before.
    pub(super) async fn begin_parts(&self, path: &Path, content_type: &str) -> Result<Upload, StorageError> {
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

    /// Makes the object of an upload appear. The answer to that may be lost, and the upload unknown when it is asked for
    /// again; nobody else writes at this path, so an object of this size is the one.
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

    /// Where the object at `path` is, for the journal.
    pub(super) fn place(&self, path: &Path) -> Place {
        Place { storage: self.root(), path: path.to_string(), uri: self.uri_of(path) }
    }

    /// The storage without its prefix, as notes name it: `file://`, `s3://bucket`.
    pub fn root(&self) -> String {
        match &self.place {
            Kind::Bucket { root } => root.clone(),
            Kind::Local => "file://".to_owned(),
        }
    }

    /// Removes what a copy left at the path of a note: an upload in parts, temporary files, and, unless somebody names it,
    /// the object. What is not there is as good as removed.
    pub async fn clear(&self, path: &str, upload_id: Option<&str>, named: bool) -> Result<(), StorageError> {
        let path = Path::parse(path).map_err(|_| StorageError::Url { why: "a note's path is none" })?;
        if let (Some(store), Some(id)) = (&self.multipart, upload_id) {
            let id = id.to_owned();
            let aborted = gone(store.abort_multipart(&path, &id).await);
            aborted.map_err(|source| self.failed("abort", &path, source))?;
        }
        if let Kind::Local = self.place {
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
        if named { Ok(()) } else { self.delete_path(&path).await }
    }

    /// The object of `key`, as the store names it.
    pub(super) fn path(&self, key: &Key) -> Path {
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

    /// Fails where a symbolic link below the directory would lead somewhere else; a bucket has
    /// none.
    async fn refuse_links(&self, action: &'static str, path: &Path) -> Result<(), StorageError> {
        let Kind::Local = self.place else { return Ok(()) };
        let (root, object) = (PathBuf::from(format!("/{}", self.prefix)), PathBuf::from(format!("/{path}")));
        let looked = tokio::task::spawn_blocking(move || local::link_below(&root, &object)).await;
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

    /// `relative` is encoded already: parts joined as they are, since the store's `join` would encode again.
    fn below(&self, relative: &str) -> Path {
        relative.split('/').fold(self.prefix.clone(), |path, part| {
            match object_store::path::PathPart::parse(part) {
                Ok(part) => path.join(part),
                // A part with a slash, a control character, or one of dots: a `Key` has none.
                Err(_) => path.join(part),
            }
        })
    }

    fn attributes(&self, content_type: &str) -> Attributes {
        match self.place {
            // The local store refuses attributes.
            Kind::Local => Attributes::new(),
            Kind::Bucket { .. } => {
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
        match &self.place {
            Kind::Bucket { root } => format!("{root}/{path}"),
            // The file's name holds `%2F`, say: in a URL the `%` is encoded once more.
            Kind::Local => Url::from_file_path(format!("/{path}"))
                .map_or_else(|()| format!("file:///{path}"), String::from),
        }
    }
}

impl fmt::Debug for Storage {
    // The clients' own output is long and knows credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({})", self.uri_of(&self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_none_are_refused_without_repeating_what_they_hold() {
        for url in [
            "",
            "outputs",
            "http://bucket/prefix",
            "s3:bucket",
            "s3://",
            "s3:///prefix",
            "s3://KEY:SECRET@bucket/prefix",
            "s3://bucket?SECRET/prefix",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "gs://buck et/",
            "file:///",
        ] {
            let error = Storage::open(url, FilePath::new("/srv")).unwrap_err();
            assert!(matches!(error, StorageError::Url { .. }), "{url}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn uris_name_the_object_once_encoded() {
        let key = Key::new("a/b", 0, 7).with_extension("png");
        let local = Storage::open("file:./out put", FilePath::new("/srv")).unwrap();
        assert_eq!(local.uri(&key), "file:///srv/out%20put/a%252Fb/0/7.png");
        let file = Url::parse(&local.uri(&key)).unwrap().to_file_path().unwrap();
        assert_eq!(file, FilePath::new("/srv/out put/a%2Fb/0/7.png"));

        let bucket = |url| {
            Storage::bucket("s3", url, |_| Ok((Arc::new(object_store::memory::InMemory::new()), None)))
                .unwrap()
        };
        assert_eq!(bucket("//bucket/some/prefix/").uri(&key), "s3://bucket/some/prefix/a%2Fb/0/7.png");
        assert_eq!(bucket("//bucket").uri(&key), "s3://bucket/a%2Fb/0/7.png");
    }

    #[tokio::test]
    async fn a_check_leaves_nothing_behind_and_fails_where_nothing_can_be_written() {
        let scratch = tempfile::tempdir().unwrap();
        let storage = Storage::open("file:./out", scratch.path()).unwrap();
        storage.check().await.unwrap();
        let left: Vec<_> = files_below(scratch.path());
        assert!(left.is_empty(), "{left:?}");

        std::fs::write(scratch.path().join("file"), b"").unwrap();
        let blocked = Storage::open("file:./file/below", scratch.path()).unwrap();
        let error = blocked.check().await.unwrap_err();
        assert!(matches!(error, StorageError::Object { action: "write", .. }), "{error:?}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_as_good_as_deleted() {
        let scratch = tempfile::tempdir().unwrap();
        let storage = Storage::open("file:.", scratch.path()).unwrap();
        let key = Key::new("ch", 0, 1);
        storage.delete(&key).await.unwrap();
        storage.put(&storage.path(&key), Bytes::from_static(b"x"), "text/plain").await.unwrap();
        assert_eq!(files_below(scratch.path()).len(), 1);
        storage.delete(&key).await.unwrap();
        assert!(files_below(scratch.path()).is_empty());
    }

    #[tokio::test]
    async fn a_link_in_the_directory_leads_nowhere_and_the_directory_itself_may_be_one() {
        let scratch = tempfile::tempdir().unwrap();
        let (real, elsewhere) = (scratch.path().join("real"), scratch.path().join("elsewhere"));
        for directory in [&real, &elsewhere] {
            std::fs::create_dir_all(directory.join("0")).unwrap();
        }
        // The operator's own link is followed.
        std::os::unix::fs::symlink(&real, scratch.path().join("out")).unwrap();
        let storage = Storage::open("file:./out", scratch.path()).unwrap();
        storage.check().await.unwrap();
        let key = |charge: &str| Key::new(charge, 0, 7).with_extension("png");
        let put =
            async |key: &Key| storage.put(&storage.path(key), Bytes::from_static(b"x"), "image/png").await;
        put(&key("fine")).await.unwrap();
        assert!(real.join("fine/0/7.png").exists());

        // One where a charge's directory belongs, one where an index belongs, one where the file
        // belongs.
        std::fs::write(elsewhere.join("0/7.png"), b"not ours").unwrap();
        std::fs::write(elsewhere.join("0/7.png#1"), b"nor this").unwrap();
        std::os::unix::fs::symlink(&elsewhere, real.join("charge")).unwrap();
        for directory in ["index", "file/0"] {
            std::fs::create_dir_all(real.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink(elsewhere.join("0"), real.join("index/0")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("0/7.png"), real.join("file/0/7.png")).unwrap();
        for (charge, link) in
            [("charge", "out/charge"), ("index", "out/index/0"), ("file", "out/file/0/7.png")]
        {
            let (key, link) = (key(charge), scratch.path().join(link));
            let path = storage.path(&key);
            for (action, ended) in [
                ("write", put(&key).await),
                ("write", storage.begin_parts(&path, "image/png").await.map(drop)),
                ("read", storage.size_of(&storage.uri(&key)).await.map(drop)),
                ("delete", storage.delete(&key).await),
                ("delete", storage.clear(path.as_ref(), None, false).await),
            ] {
                let told = ended.unwrap_err().to_string();
                let expected = format!(
                    "could not {action} {}: {} is a symbolic link",
                    storage.uri(&key),
                    link.display()
                );
                assert!(told.starts_with(&expected), "{told}");
            }
        }
        // Recorded before the directory was moved: what makegood made of the path is looked at all
        // the same.
        let moved = Storage::open("file:./new", scratch.path()).unwrap();
        let told = moved.size_of(&storage.uri(&key("charge"))).await.unwrap_err();
        assert!(matches!(told, StorageError::Link { .. }), "{told}");
        assert_eq!(moved.size_of(&storage.uri(&key("fine"))).await.unwrap(), Some(1));
        assert_eq!(std::fs::read(elsewhere.join("0/7.png")).unwrap(), b"not ours");
        assert_eq!(files_below(&elsewhere).len(), 2, "nothing was written or deleted there");
    }

    /// Every file below `directory`, also those that a store would hide.
    fn files_below(directory: &FilePath) -> Vec<PathBuf> {
        super::super::tests::files_below(directory)
    }
}
