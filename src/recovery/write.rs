//! One object being written: bytes in, hash and length out, memory bounded.
//!
//! Up to one part of the file is kept in memory; that much is judged (`kind`) before anything is
//! sent. A file that fits is written in one go, a larger one in parts of equal size, a few at a time:
//! [`Writer::write`] waits while they are under way, and so the download waits too.
//!
//! An upload that is not finished is aborted: by [`Writer::abort`], or in the background if the
//! writer is dropped halfway. What a killed process leaves is hidden, or unnamed, until it is swept.

use bytes::{Bytes, BytesMut};
use object_store::MultipartUpload;
use object_store::path::Path;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::key::{Key, hex};
use super::kind::{self, Kind};
use super::storage::{Storage, StorageError};
use super::{Copied, CopyError};

/// Size of a part, and of what is kept before the first. Stores want 5 MiB at least.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes 10,000 parts: files that could need more get larger parts, as far as memory allows.
const PARTS_MAX: u64 = 10_000;
/// Ends files at 640 GB on S3, whatever the cap says.
const PART_BYTES_MAX: u64 = 64 << 20;
/// Parts under way at once; one more is being filled.
const PARTS_UNDER_WAY_MAX: usize = 2;

/// Writes one object.
pub(super) struct Writer<'a> {
    storage: &'a Storage,
    key: &'a Key,
    max_bytes: u64,
    part_bytes: usize,
    declared: Option<String>,
    /// The part being filled.
    part: BytesMut,
    begun: Option<Begun>,
    hash: Sha256,
    size: u64,
}

/// An object of which something may have been written.
struct Begun {
    key: Key,
    path: Path,
    kind: Kind,
    /// None for one that is written in one go, and for one that is complete.
    upload: Option<Box<dyn MultipartUpload>>,
    under_way: JoinSet<object_store::Result<()>>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(storage: &'a Storage, key: &'a Key, max_bytes: u64) -> Self {
        let part_bytes = max_bytes.div_ceil(PARTS_MAX).clamp(PART_BYTES, PART_BYTES_MAX);
        Self {
            storage,
            key,
            max_bytes,
            part_bytes: usize::try_from(part_bytes).unwrap_or(usize::MAX),
            declared: None,
            part: BytesMut::new(),
            begun: None,
            hash: Sha256::new(),
            size: 0,
        }
    }

    /// Says what the source calls the file's type. To be called before the first byte.
    pub(super) fn declare(&mut self, content_type: Option<String>) {
        self.declared = content_type;
    }

    /// How many bytes came so far.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes of the file.
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), CopyError> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.max_bytes {
            return Err(CopyError::TooLarge { max_bytes: self.max_bytes });
        }
        self.hash.update(bytes);
        while !bytes.is_empty() {
            // Only a full part that more bytes follow is sent: the last one may be all there is.
            if self.part.len() == self.part_bytes {
                self.send_part().await?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.part_bytes - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes what is left and makes the object appear.
    pub(super) async fn finish(&mut self, source_host: &str) -> Result<Copied, CopyError> {
        let uploading = self.begun.as_ref().is_some_and(|begun| begun.upload.is_some());
        if uploading {
            self.send_part().await?;
        }
        let storage = self.storage;
        let last = self.part.split().freeze();
        let begun = begin(&mut self.begun, storage, self.key, &last, self.declared.as_deref())?;
        match &mut begun.upload {
            Some(upload) => {
                while let Some(sent) = begun.under_way.join_next().await {
                    storage.written(&begun.path, sent)?;
                }
                let completed = upload.complete().await;
                completed.map_err(|source| storage.failed("write", &begun.path, source))?;
                begun.upload = None;
            }
            None => storage.put(&begun.path, last, &begun.kind.content_type).await?,
        }
        let Kind { content_type, sniffed, declared, extension: _ } = begun.kind.clone();
        let copied = Copied {
            key: begun.key.clone(),
            uri: storage.uri(&begun.key),
            size_bytes: i64::try_from(self.size).unwrap_or(i64::MAX),
            sha256: hex(&self.hash.finalize_reset()),
            content_type,
            sniffed,
            declared,
            source_host: source_host.to_owned(),
        };
        // Done: nothing is left to abort.
        self.begun = None;
        Ok(copied)
    }

    /// Takes back whatever was written. What fails here is left to the sweep.
    pub(super) async fn abort(mut self) {
        if let Some(begun) = self.begun.take() {
            abort(begun, self.storage).await;
        }
    }

    async fn send_part(&mut self) -> Result<(), CopyError> {
        let storage = self.storage;
        let part: Bytes = self.part.split().freeze();
        let begun = begin(&mut self.begun, storage, self.key, &part, self.declared.as_deref())?;
        let upload = match &mut begun.upload {
            Some(upload) => upload,
            None => begun.upload.insert(storage.put_parts(&begun.path, &begun.kind.content_type).await?),
        };
        while begun.under_way.len() >= PARTS_UNDER_WAY_MAX {
            let Some(sent) = begun.under_way.join_next().await else { break };
            storage.written(&begun.path, sent)?;
        }
        begun.under_way.spawn(upload.put_part(part.into()));
        // Otherwise it grows by doubling, and copies itself each time.
        self.part.reserve(self.part_bytes);
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let (Some(begun), Ok(runtime)) = (self.begun.take(), tokio::runtime::Handle::try_current()) {
            let storage = self.storage.clone();
            runtime.spawn(async move { abort(begun, &storage).await });
        }
    }
}

/// Judges the file by its first part, and so names the object; later parts change nothing.
fn begin<'a>(
    begun: &'a mut Option<Begun>,
    storage: &Storage,
    key: &Key,
    first: &[u8],
    declared: Option<&str>,
) -> Result<&'a mut Begun, CopyError> {
    if begun.is_none() {
        let kind = kind::judge(first, declared)?;
        let key = key.with_extension(kind.extension);
        let path = storage.path(&key);
        *begun = Some(Begun { key, path, kind, upload: None, under_way: JoinSet::new() });
    }
    // Just made, if it was not there.
    begun.as_mut().ok_or(CopyError::NotAnOutput { why: super::NotOutput::Empty })
}

async fn abort(mut begun: Begun, storage: &Storage) {
    begun.under_way.shutdown().await;
    let aborted = match &mut begun.upload {
        Some(upload) => upload.abort().await.map_err(|source| storage.failed("abort", &begun.path, source)),
        None => Ok(()),
    };
    // Also where the upload was complete, or the write done, and only its answer was lost. The key is
    // this lease's alone, so nobody else's object goes.
    let deleted = storage.delete_path(&begun.path).await;
    for error in [aborted, deleted].into_iter().filter_map(Result::err) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a broken copy left something behind; the next sweep removes it"
        );
    }
}

impl Storage {
    /// What became of one part.
    fn written(
        &self,
        path: &Path,
        sent: Result<object_store::Result<()>, tokio::task::JoinError>,
    ) -> Result<(), StorageError> {
        sent.unwrap_or_else(|source| Err(object_store::Error::JoinError { source }))
            .map_err(|source| self.failed("write", path, source))
    }
}
