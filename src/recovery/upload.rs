//! A multipart upload of one object, with at most two parts in flight.
//!
//! S3 and Google give an upload an id. It is recorded before the first part, so that another
//! process can abort the upload later. Local disk and Azure have no id, so the store's own handle
//! is used. If the process is killed, local disk keeps a temporary file `name#1` beside the object,
//! and Azure deletes the uncommitted blocks after a week.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, MultipartUpload, Result};
use tokio::task::JoinSet;

/// The most parts in flight at once. One more is being filled.
pub(super) const MAX_PARTS_IN_FLIGHT: usize = 2;

/// An upload that was started and not completed.
pub(super) struct Upload {
    path: Path,
    handle: Handle,
    /// The number of parts sent so far.
    parts: usize,
    /// The store's ids of the completed parts, by part number.
    completed: BTreeMap<usize, PartId>,
    in_flight: JoinSet<Result<Option<(usize, PartId)>>>,
}

enum Handle {
    ById { store: Arc<dyn MultipartStore>, id: String },
    ByStore(Box<dyn MultipartUpload>),
}

impl Upload {
    pub(super) fn by_id(path: Path, store: Arc<dyn MultipartStore>, id: String) -> Self {
        Self::new(path, Handle::ById { store, id })
    }

    pub(super) fn by_handle(path: Path, handle: Box<dyn MultipartUpload>) -> Self {
        Self::new(path, Handle::ByStore(handle))
    }

    fn new(path: Path, handle: Handle) -> Self {
        Self { path, handle, parts: 0, completed: BTreeMap::new(), in_flight: JoinSet::new() }
    }

    /// The store's id of the upload, if the store has such ids.
    pub(super) fn id(&self) -> Option<&str> {
        match &self.handle {
            Handle::ById { id, .. } => Some(id),
            Handle::ByStore(_) => None,
        }
    }

    /// Sends the next part. Waits while [`MAX_PARTS_IN_FLIGHT`] are in flight.
    pub(super) async fn send(&mut self, part: Bytes) -> Result<()> {
        while self.in_flight.len() >= MAX_PARTS_IN_FLIGHT {
            self.await_one_part().await?;
        }
        let number = self.parts;
        self.parts += 1;
        match &mut self.handle {
            Handle::ById { store, id } => {
                let (store, path, id) = (Arc::clone(store), self.path.clone(), id.clone());
                self.in_flight.spawn(async move {
                    let part = store.put_part(&path, &id, number, part.into()).await?;
                    Ok(Some((number, part)))
                });
            }
            Handle::ByStore(handle) => {
                let sent = handle.put_part(part.into());
                self.in_flight.spawn(async move { sent.await.map(|()| None) });
            }
        }
        Ok(())
    }

    async fn await_one_part(&mut self) -> Result<()> {
        if let Some(sent) = self.in_flight.join_next().await {
            let part = sent.unwrap_or_else(|source| Err(Error::JoinError { source }))?;
            self.completed.extend(part);
        }
        Ok(())
    }

    /// Waits for all parts and completes the upload. Only then does the object exist.
    pub(super) async fn complete(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.await_one_part().await?;
        }
        match &mut self.handle {
            Handle::ById { store, id } => {
                let parts = std::mem::take(&mut self.completed).into_values().collect();
                store.complete_multipart(&self.path, id, parts).await.map(drop)
            }
            Handle::ByStore(handle) => handle.complete().await.map(drop),
        }
    }

    /// Cancels the parts in flight and aborts the upload.
    pub(super) async fn abort(mut self) -> Result<()> {
        self.in_flight.shutdown().await;
        match &mut self.handle {
            Handle::ById { store, id } => ignore_not_found(store.abort_multipart(&self.path, id).await),
            Handle::ByStore(handle) => handle.abort().await,
        }
    }
}

/// Treats "not found" as success, so that removing twice is idempotent.
pub(super) fn ignore_not_found(result: Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
