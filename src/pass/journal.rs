//! Keeps the notes of one lease's copies in the database, and throws away files that nobody wants.

use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::BoxFuture;

use super::{Parts, Pass};
use crate::charge::ItemId;
use crate::recovery::{Copied, Journal, JournalError, Place};
use crate::store::{Case, Store, UploadKey};

/// The journal of one claimed orphan. Only the worker that holds the lease writes it, so it numbers its notes itself.
#[derive(Debug)]
pub(super) struct LeaseJournal {
    store: Store,
    item: ItemId,
    orphan_id: i64,
    lease_token: i64,
    next: AtomicI64,
}

impl LeaseJournal {
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

impl Journal for LeaseJournal {
    fn begin(&self, place: Place) -> BoxFuture<'_, Result<i64, JournalError>> {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let now = self.store.now().await?;
            self.store.begin_upload(self.key(nth), &self.item, &place, now).await?;
            Ok(nth)
        })
    }

    fn upload_id(&self, note: i64, id: String) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move { Ok(self.store.name_upload(self.key(note), &id).await?) })
    }

    fn forget(&self, note: i64) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move { Ok(self.store.forget_uploads(&[self.key(note)]).await?) })
    }
}

impl Pass {
    /// Removes a file that was brought home and is not wanted. Failing costs space, not credits, and the sweep's time.
    pub(super) async fn discard(&self, case: &Case, copied: &Copied) {
        if let Err(error) = self.throw_away(case, copied).await {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                "a file that is not wanted stays until it is swept"
            );
        }
    }

    /// Nothing brings a file back, so the database is asked once more, whatever this pass believes: what a row names stays.
    async fn throw_away(&self, case: &Case, copied: &Copied) -> Result<(), JournalError> {
        let Parts { store, storage, .. } = &self.parts;
        let item = &case.facts.orphan.item;
        if store.names(item, case.token, &copied.uri).await? {
            tracing::error!(%item, uri = copied.uri, "a file that a row names was to be thrown away; it stays");
            return Ok(());
        }
        storage.delete(&copied.key).await?;
        store.forget_uploads(&[case.upload(copied.note)]).await?;
        Ok(())
    }
}
