//! One object being written: bytes in, hash and length out, memory bounded.
//!
//! Up to one part of the file is kept in memory; that much is judged (`kind`) before anything is
//! sent. A file that fits is written in one go, a larger one in parts of equal size, a few at a time:
//! [`Writer::write`] waits while they are under way, and so the download waits too.
//!
//! Before anything is written its place is noted (`journal`). An upload that is not finished is aborted and its note
//! taken back by [`Writer::abort`]. If its time was up or the writer is dropped halfway, it is aborted and the note stays: what
//! was under way may still arrive (a directory is written by threads that nothing stops, a bucket by a request that
//! has left), so the sweep looks once more. What a killed process leaves is on record in the same way.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use sha2::{Digest, Sha256};

use super::journal::Journal;
use super::key::Key;
use super::kind::{self, Kind, Medium};
use super::storage::Storage;
use super::upload::{PARTS_UNDER_WAY_MAX, Upload};
use super::{Copied, CopyError};

/// Size of a part, and of what is kept before the first. Stores want 5 MiB at least.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes 10,000 parts: files that could need more get larger parts, as far as memory allows.
const PARTS_MAX: u64 = 10_000;
/// Ends files at 640 GB on S3, whatever the cap says.
const PART_BYTES_MAX: u64 = 64 << 20;

/// Writes one object.
pub(super) struct Writer<'a> {
    storage: &'a Storage,
    key: &'a Key,
    journal: Arc<dyn Journal>,
    kinds: &'a [Medium],
    max_bytes: u64,
    part_bytes: usize,
    declared: Option<String>,
    /// The part being filled.
    part: BytesMut,
    begun: Option<Begun>,
    hash: Sha256,
    size: u64,
}

/// An object of which something may have been written, and which is noted.
struct Begun {
    key: Key,
    path: Path,
    kind: Kind,
    /// The number of its note in the journal.
    note: i64,
    /// None for one that is written in one go, and for one that is complete.
    upload: Option<Upload>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        storage: &'a Storage,
        key: &'a Key,
        journal: Arc<dyn Journal>,
        kinds: &'a [Medium],
        max_bytes: u64,
    ) -> Self {
        Self {
            storage,
            key,
            journal,
            kinds,
            max_bytes,
            part_bytes: usize::try_from(part_bytes(max_bytes)).unwrap_or(usize::MAX),
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
        let (storage, size) = (self.storage, self.size);
        let last = self.part.split().freeze();
        let begun = self.begin(&last).await?;
        match &mut begun.upload {
            Some(upload) => storage.complete(upload, &begun.path, size).await?,
            None => storage.put(&begun.path, last, &begun.kind.content_type).await?,
        }
        let Kind { content_type, sniffed, declared, extension: _ } = begun.kind.clone();
        let (key, note) = (begun.key.clone(), begun.note);
        let copied = Copied {
            uri: storage.uri(&key),
            key,
            note,
            size_bytes: i64::try_from(self.size).unwrap_or(i64::MAX),
            sha256: hex::encode(self.hash.finalize_reset()),
            content_type,
            sniffed,
            declared,
            source_host: source_host.to_owned(),
        };
        // Done: nothing is left to abort.
        self.begun = None;
        Ok(copied)
    }

    /// Forgets all that came and takes back whatever was written, to begin anew.
    pub(super) async fn restart(&mut self) {
        if let Some(begun) = self.begun.take() {
            abort_and_forget(begun, self.storage, &*self.journal).await;
        }
        self.part.clear();
        self.hash.reset();
        (self.size, self.declared) = (0, None);
    }

    /// Takes back whatever was written. What fails here is left to the sweep.
    pub(super) async fn abort(mut self) {
        if let Some(begun) = self.begun.take() {
            abort_and_forget(begun, self.storage, &*self.journal).await;
        }
    }

    /// The same for one whose last write was cut off: what was under way may still arrive, so the note stays for the sweep.
    pub(super) async fn abort_cut_off(mut self) {
        if let Some(begun) = self.begun.take() {
            abort(begun.upload, &begun.path, self.storage).await;
        }
    }

    async fn send_part(&mut self) -> Result<(), CopyError> {
        let storage = self.storage;
        let journal = Arc::clone(&self.journal);
        let part: Bytes = self.part.split().freeze();
        let begun = self.begin(&part).await?;
        if begun.upload.is_none() {
            let upload = storage.begin_parts(&begun.path, &begun.kind.content_type).await?;
            let id = upload.id().map(str::to_owned);
            // Kept first: should the note fail, it is aborted.
            begun.upload = Some(upload);
            if let Some(id) = id {
                journal.upload_id(begun.note, id).await.map_err(|source| CopyError::Journal { source })?;
            }
        }
        if let Some(upload) = &mut begun.upload {
            let sent = upload.send(part).await;
            sent.map_err(|source| storage.failed("write", &begun.path, source))?;
        }
        // Otherwise it grows by doubling, and copies itself each time.
        self.part.reserve(self.part_bytes);
        Ok(())
    }

    /// Judges the file by its first part, and so names the object; later parts change nothing. Noted before
    /// anything is written.
    async fn begin(&mut self, first: &[u8]) -> Result<&mut Begun, CopyError> {
        let begun = if let Some(begun) = self.begun.take() {
            begun
        } else {
            let kind = kind::judge(first, self.declared.as_deref(), self.kinds)?;
            let key = self.key.with_extension(kind.extension);
            let path = self.storage.path(&key);
            let note = self.journal.begin(self.storage.place(&path)).await;
            let note = note.map_err(|source| CopyError::Journal { source })?;
            Begun { key, path, kind, note, upload: None }
        };
        Ok(self.begun.insert(begun))
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let (Some(begun), Ok(runtime)) = (self.begun.take(), tokio::runtime::Handle::try_current()) {
            let storage = self.storage.clone();
            runtime.spawn(async move { abort(begun.upload, &begun.path, &storage).await });
        }
    }
}

/// For one whose last write has ended, well or badly. In a directory nothing of it arrives later; a bucket could still carry out
/// a request of which it never answered any try.
async fn abort_and_forget(begun: Begun, storage: &Storage, journal: &dyn Journal) {
    if abort(begun.upload, &begun.path, storage).await
        && let Err(error) = journal.forget(begun.note).await
    {
        tracing::debug!(%error, "the note of a copy that left nothing stays until the next sweep");
    }
}

/// True: nothing is left.
async fn abort(upload: Option<Upload>, path: &Path, storage: &Storage) -> bool {
    let aborted = match upload {
        Some(upload) => upload.abort().await.map_err(|source| storage.failed("abort", path, source)),
        None => Ok(()),
    };
    // Also where the upload was complete, or the write done, and only its answer was lost. The key is
    // this lease's alone, so nobody else's object goes.
    let deleted = storage.delete_path(path).await;
    let clean = aborted.is_ok() && deleted.is_ok();
    for error in [aborted, deleted].into_iter().filter_map(Result::err) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a broken copy left something behind; the next sweep removes it"
        );
    }
    clean
}

/// How large the parts of a file of at most `max_bytes` are.
const fn part_bytes(max_bytes: u64) -> u64 {
    let wanted = max_bytes.div_ceil(PARTS_MAX);
    if wanted < PART_BYTES {
        PART_BYTES
    } else if wanted > PART_BYTES_MAX {
        PART_BYTES_MAX
    } else {
        wanted
    }
}

/// The most memory that copying one file of at most `max_bytes` takes: the parts under way and the one being filled.
pub const fn memory_bytes(max_bytes: u64) -> u64 {
    let parts = part_bytes(max_bytes).saturating_mul(PARTS_UNDER_WAY_MAX as u64 + 1);
    if max_bytes < parts { max_bytes } else { parts }
}
