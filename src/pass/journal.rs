//! Keeps the notes of one lease's copies in the database, and throws away files that nobody wants.

use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::BoxFuture;

use super::{Parts, Pass};
use crate::charge::ItemId;
use crate::recovery::{CopiedFile, ObjectLocation, UploadLog, UploadLogError};
use crate::store::{Case, Store, UploadKey};

/// The journal of one claimed orphan. Only the worker that holds the lease writes it, so it numbers its notes itself.
#[derive(Debug)]
pub(super) struct LeaseUploadLog {
    store: Store,
    item: ItemId,
    orphan_id: i64,
    lease_token: i64,
    next: AtomicI64,
}

impl LeaseUploadLog {
    pub(super) fn new(store: Store, case: &Case) -> Self {
        let orphan = &case.facts.orphan;
        Self {
            store,
            item: orphan.item.clone(),
            orphan_id: orphan.id,
            lease_token: case.token,
            next: AtomicI64::new(0),
        }
    }

    const fn key(&self, nth: i64) -> UploadKey {
        UploadKey { orphan_id: self.orphan_id, lease_token: self.lease_token, nth }
    }
}

impl UploadLog for LeaseUploadLog {
    fn record(&self, location: ObjectLocation) -> BoxFuture<'_, Result<i64, UploadLogError>> {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let now = self.store.now().await?;
            self.store.begin_upload(self.key(nth), &self.item, &location, now).await?;
            Ok(nth)
        })
    }

    fn record_upload_id(&self, entry: i64, id: String) -> BoxFuture<'_, Result<(), UploadLogError>> {
        Box::pin(async move { Ok(self.store.name_upload(self.key(entry), &id).await?) })
    }

    fn remove(&self, entry: i64) -> BoxFuture<'_, Result<(), UploadLogError>> {
        Box::pin(async move { Ok(self.store.forget_uploads(&[self.key(entry)]).await?) })
    }
}

impl Pass {
    /// Removes a file that was brought home and is not wanted. Failing costs space, not credits, and the sweep's time.
    pub(super) async fn discard(&self, case: &Case, copied: &CopiedFile) {
        if let Err(error) = self.throw_away(case, copied).await {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                "a file that is not wanted stays until it is swept"
            );
        }
    }

    /// Nothing brings a file back, so the database is asked once more, whatever this pass believes: what a row names stays.
    async fn throw_away(&self, case: &Case, copied: &CopiedFile) -> Result<(), UploadLogError> {
        let Parts { store, storage, .. } = &self.parts;
        let item = &case.facts.orphan.item;
        if store.names(item, case.token, &copied.uri).await? {
            tracing::error!(%item, uri = copied.uri, "a file that a row names was to be thrown away; it stays");
            return Ok(());
        }
        storage.delete(&copied.key).await?;
        store.forget_uploads(&[case.upload(copied.log_entry)]).await?;
        Ok(())
    }
}
