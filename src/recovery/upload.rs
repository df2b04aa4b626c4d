//! One object being written in parts, a few at a time.
//!
//! Where the store gives an upload an id (S3, Google), it is driven by that id, so that it can be noted before the first
//! part and aborted later by another process. Local disk and Azure have none: there the store's own handle does the same;
//! what a killed process leaves is a temporary file `name#1` beside the object, or blocks that Azure drops after a week.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, MultipartUpload, Result};
use tokio::task::JoinSet;

/// Parts under way at once; one more is being filled.
pub(super) const PARTS_UNDER_WAY_MAX: usize = 2;

/// An upload that was begun and not completed.
pub(super) struct Upload {
    path: Path,
    way: Way,
    /// Parts handed over so far.
    parts: usize,
    /// What the store calls those that have arrived, by their number.
    arrived: BTreeMap<usize, PartId>,
    under_way: JoinSet<Result<Option<(usize, PartId)>>>,
}

enum Way {
    ById { store: Arc<dyn MultipartStore>, id: String },
    ByHandle(Box<dyn MultipartUpload>),
}

impl Upload {
    pub(super) fn by_id(path: Path, store: Arc<dyn MultipartStore>, id: String) -> Self {
        Self::new(path, Way::ById { store, id })
    }

    pub(super) fn by_handle(path: Path, handle: Box<dyn MultipartUpload>) -> Self {
        Self::new(path, Way::ByHandle(handle))
    }

    fn new(path: Path, way: Way) -> Self {
        Self { path, way, parts: 0, arrived: BTreeMap::new(), under_way: JoinSet::new() }
    }

    /// The store's id for it, where it has one.
    pub(super) fn id(&self) -> Option<&str> {
        match &self.way {
            Way::ById { id, .. } => Some(id),
            Way::ByHandle(_) => None,
        }
    }

    /// Sends the next part; waits while enough are under way.
    pub(super) async fn send(&mut self, part: Bytes) -> Result<()> {
        while self.under_way.len() >= PARTS_UNDER_WAY_MAX {
            self.one_arrives().await?;
        }
        let number = self.parts;
        self.parts += 1;
        match &mut self.way {
            Way::ById { store, id } => {
                let (store, path, id) = (Arc::clone(store), self.path.clone(), id.clone());
                self.under_way.spawn(async move {
                    let part = store.put_part(&path, &id, number, part.into()).await?;
                    Ok(Some((number, part)))
                });
            }
            Way::ByHandle(handle) => {
                let sent = handle.put_part(part.into());
                self.under_way.spawn(async move { sent.await.map(|()| None) });
            }
        }
        Ok(())
    }

    async fn one_arrives(&mut self) -> Result<()> {
        if let Some(sent) = self.under_way.join_next().await {
            let part = sent.unwrap_or_else(|source| Err(Error::JoinError { source }))?;
            self.arrived.extend(part);
        }
        Ok(())
    }

    /// Waits for all parts and makes the object appear.
    pub(super) async fn complete(&mut self) -> Result<()> {
        while !self.under_way.is_empty() {
            self.one_arrives().await?;
        }
        match &mut self.way {
            Way::ById { store, id } => {
                let parts = std::mem::take(&mut self.arrived).into_values().collect();
                store.complete_multipart(&self.path, id, parts).await.map(drop)
            }
            Way::ByHandle(handle) => handle.complete().await.map(drop),
        }
    }

    /// Takes back what was sent.
    pub(super) async fn abort(mut self) -> Result<()> {
        self.under_way.shutdown().await;
        match &mut self.way {
            Way::ById { store, id } => gone(store.abort_multipart(&self.path, id).await),
            Way::ByHandle(handle) => handle.abort().await,
        }
    }
}

/// What is not there is as good as removed.
pub(super) fn gone(result: Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
