//! Writes one object with bounded memory, and computes its SHA-256 and length.
//!
//! The first part of a file stays in memory until its type is known (`file_type`). A file of one
//! part is written with one request; a larger one as a multipart upload with parts of equal size.
//! [`ObjectWriter::write`] waits while the most parts are in flight, so the download waits too
//! (backpressure).
//!
//! The object's location is recorded before anything is written (`upload_log`).
//! [`ObjectWriter::abort`] deletes what an unfinished upload wrote and removes its entry. After a
//! timeout, or if the writer is dropped, the upload is aborted but the entry stays: a write in
//! flight may still complete (on local disk in a thread that cannot be cancelled, in a bucket by a
//! request already sent), so the sweep checks again later. If the process is killed, the entry
//! stays in the same way.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use sha2::{Digest, Sha256};

use super::file_type::{self, FileType, Medium};
use super::key::ObjectKey;
use super::storage::ObjectStorage;
use super::upload::{MAX_PARTS_IN_FLIGHT, Upload};
use super::upload_log::UploadLog;
use super::{CopiedFile, CopyError};

/// Smallest size of a part. Stores require at least 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// S3 accepts at most 10,000 parts. Where files may need more, parts are larger.
const MAX_PARTS: u64 = 10_000;
/// Largest size of a part, to bound memory. It limits a file on S3 to 640 GB.
const MAX_PART_BYTES: u64 = 64 << 20;

/// Writes one object.
pub(super) struct ObjectWriter<'a> {
    storage: &'a ObjectStorage,
    key: &'a ObjectKey,
    upload_log: Arc<dyn UploadLog>,
    media: &'a [Medium],
    max_bytes: u64,
    part_bytes: usize,
    declared: Option<String>,
    /// The part that is being filled.
    part: BytesMut,
    started: Option<StartedObject>,
    hash: Sha256,
    size: u64,
}

/// An object that is recorded in the upload log and may have been written in part.
struct StartedObject {
    key: ObjectKey,
    path: Path,
    file_type: FileType,
    /// Its entry in the upload log.
    entry: i64,
    /// `None` for an object written with one request.
    upload: Option<Upload>,
}

impl<'a> ObjectWriter<'a> {
    pub(super) fn new(
        storage: &'a ObjectStorage,
        key: &'a ObjectKey,
        upload_log: Arc<dyn UploadLog>,
        media: &'a [Medium],
        max_bytes: u64,
    ) -> Self {
        Self {
            storage,
            key,
            upload_log,
            media,
            max_bytes,
            part_bytes: usize::try_from(part_bytes(max_bytes)).unwrap_or(usize::MAX),
            declared: None,
            part: BytesMut::new(),
            started: None,
            hash: Sha256::new(),
            size: 0,
        }
    }

    /// Sets the content type that the source declares. Must be called before the first byte.
    pub(super) fn declare(&mut self, content_type: Option<String>) {
        self.declared = content_type;
    }

    /// How many bytes were written so far.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Appends the next bytes of the file.
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), CopyError> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.max_bytes {
            return Err(CopyError::TooLarge { max_bytes: self.max_bytes });
        }
        self.hash.update(bytes);
        while !bytes.is_empty() {
            // A full part is sent only when more bytes follow: the last part may be the whole file.
            if self.part.len() == self.part_bytes {
                self.send_part().await?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.part_bytes - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes the last part and completes the object.
    pub(super) async fn finish(&mut self, source_host: &str) -> Result<CopiedFile, CopyError> {
        let uploading = self.started.as_ref().is_some_and(|object| object.upload.is_some());
        if uploading {
            self.send_part().await?;
        }
        let (storage, size) = (self.storage, self.size);
        let last = self.part.split().freeze();
        let object = self.start(&last).await?;
        match &mut object.upload {
            Some(upload) => storage.complete(upload, &object.path, size).await?,
            None => storage.put(&object.path, last, &object.file_type.content_type).await?,
        }
        let FileType { content_type, sniffed, declared, extension: _ } = object.file_type.clone();
        let (key, log_entry) = (object.key.clone(), object.entry);
        let copied = CopiedFile {
            uri: storage.uri(&key),
            key,
            log_entry,
            size_bytes: i64::try_from(self.size).unwrap_or(i64::MAX),
            sha256: hex::encode(self.hash.finalize_reset()),
            content_type,
            sniffed,
            declared,
            source_host: source_host.to_owned(),
        };
        // The object is complete; nothing is left to abort.
        self.started = None;
        Ok(copied)
    }

    /// Deletes everything written so far, to start again with the first byte.
    pub(super) async fn restart(&mut self) {
        if let Some(object) = self.started.take() {
            abort_and_forget(object, self.storage, &*self.upload_log).await;
        }
        self.part.clear();
        self.hash.reset();
        (self.size, self.declared) = (0, None);
    }

    /// Deletes everything written so far and removes the log entry. If that fails, the sweep does
    /// it later.
    pub(super) async fn abort(mut self) {
        if let Some(object) = self.started.take() {
            abort_and_forget(object, self.storage, &*self.upload_log).await;
        }
    }

    /// The same after a timeout. A write in flight may still complete, so the log entry stays for
    /// the sweep.
    pub(super) async fn abort_cut_off(mut self) {
        if let Some(object) = self.started.take() {
            abort(object.upload, &object.path, self.storage).await;
        }
    }

    async fn send_part(&mut self) -> Result<(), CopyError> {
        let storage = self.storage;
        let upload_log = Arc::clone(&self.upload_log);
        let part: Bytes = self.part.split().freeze();
        let object = self.start(&part).await?;
        if object.upload.is_none() {
            let upload = storage.start_upload(&object.path, &object.file_type.content_type).await?;
            let id = upload.id().map(str::to_owned);
            // Set before recording its id: if recording fails, the upload can still be aborted.
            object.upload = Some(upload);
            if let Some(id) = id {
                upload_log
                    .record_upload_id(object.entry, id)
                    .await
                    .map_err(|source| CopyError::UploadLog { source })?;
            }
        }
        if let Some(upload) = &mut object.upload {
            let sent = upload.send(part).await;
            sent.map_err(|source| storage.failed("write", &object.path, source))?;
        }
        // Without this the buffer would grow by doubling, with a copy each time.
        self.part.reserve(self.part_bytes);
        Ok(())
    }

    /// Classifies the file by its first part, which determines the object's extension, and records
    /// the object before anything is written. Later calls return the object already started.
    async fn start(&mut self, first: &[u8]) -> Result<&mut StartedObject, CopyError> {
        let object = if let Some(object) = self.started.take() {
            object
        } else {
            let file_type = file_type::classify(first, self.declared.as_deref(), self.media)?;
            let key = self.key.with_extension(file_type.extension);
            let path = self.storage.path(&key);
            let entry = self.upload_log.record(self.storage.location(&path)).await;
            let entry = entry.map_err(|source| CopyError::UploadLog { source })?;
            StartedObject { key, path, file_type, entry, upload: None }
        };
        Ok(self.started.insert(object))
    }
}

impl Drop for ObjectWriter<'_> {
    fn drop(&mut self) {
        if let (Some(object), Ok(runtime)) = (self.started.take(), tokio::runtime::Handle::try_current()) {
            let storage = self.storage.clone();
            runtime.spawn(async move { abort(object.upload, &object.path, &storage).await });
        }
    }
}

/// Deletes an object whose last write has returned, and removes its log entry. On local disk
/// nothing can appear afterwards. A bucket could still execute a request that it never answered.
async fn abort_and_forget(object: StartedObject, storage: &ObjectStorage, upload_log: &dyn UploadLog) {
    if abort(object.upload, &object.path, storage).await
        && let Err(error) = upload_log.remove(object.entry).await
    {
        tracing::debug!(%error, "could not remove the log entry of an aborted copy; the next sweep removes it");
    }
}

/// Aborts the upload and deletes the object. Returns true if nothing is left in storage.
async fn abort(upload: Option<Upload>, path: &Path, storage: &ObjectStorage) -> bool {
    let aborted = match upload {
        Some(upload) => upload.abort().await.map_err(|source| storage.failed("abort", path, source)),
        None => Ok(()),
    };
    // The object may exist although the write failed: its response may have been lost. No other
    // lease uses the key, so no other object is deleted.
    let deleted = storage.delete_path(path).await;
    let clean = aborted.is_ok() && deleted.is_ok();
    for error in [aborted, deleted].into_iter().filter_map(Result::err) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "could not delete what an aborted copy wrote; the next sweep removes it"
        );
    }
    clean
}

/// The part size for files of at most `max_bytes`.
const fn part_bytes(max_bytes: u64) -> u64 {
    let wanted = max_bytes.div_ceil(MAX_PARTS);
    if wanted < PART_BYTES {
        PART_BYTES
    } else if wanted > MAX_PART_BYTES {
        MAX_PART_BYTES
    } else {
        wanted
    }
}

/// The most memory that copying one file of at most `max_bytes` needs: the parts in flight and the
/// one being filled.
pub const fn memory_bytes(max_bytes: u64) -> u64 {
    let parts = part_bytes(max_bytes).saturating_mul(MAX_PARTS_IN_FLIGHT as u64 + 1);
    if max_bytes < parts { max_bytes } else { parts }
}
