//! The journal of uploads: what may be left over in the storage, noted before it is begun.
//!
//! One row an object that a copy is about to write. It goes in the transaction that names the object (`settle`), or when
//! the copy has cleaned up after itself; what stays belongs to a copy that was killed, and is what a sweep goes by
//! (`pass::sweep`, which also says when). Many copies that begin at once share one statement.

use std::mem;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

use super::db::DbError;
use super::{Store, first, statements};
use crate::charge::ItemId;
use crate::clock::Timestamp;
use crate::recovery::ObjectLocation;

/// One upload of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadKey {
    /// The orphan.
    pub orphan_id: i64,
    /// The lease's token.
    pub lease_token: i64,
    /// The lease's first, second, … upload.
    pub nth: i64,
}

impl UploadKey {
    /// As batches spell it.
    pub(super) fn json(self) -> Json {
        json!({"orphan_id": self.orphan_id, "lease_token": self.lease_token, "nth": self.nth})
    }
}

/// What a dead lease may have left.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// Its row.
    pub key: UploadKey,
    /// Where.
    pub path: String,
    /// The store's id of an upload in parts.
    pub upload_id: Option<String>,
    /// A row names the object: it stays.
    pub named: bool,
    /// Old enough to be removed for the last time.
    pub for_good: bool,
    /// Not removed before.
    pub found: bool,
}

/// Rows that wait for the one who writes them all: who comes while a statement is under way shares the next one.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    waiting: Mutex<Vec<(Json, oneshot::Sender<()>)>>,
    writing: tokio::sync::Mutex<()>,
}

impl Beginning {
    fn take(&self) -> Vec<(Json, oneshot::Sender<()>)> {
        // No holder leaves it half changed.
        mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, row: Json) -> oneshot::Receiver<()> {
        let (written, done) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((row, written));
        done
    }
}

impl Store {
    /// Notes where an object may soon be. Committed when it returns.
    pub async fn begin_upload(
        &self,
        key: UploadKey,
        item: &ItemId,
        place: &ObjectLocation,
        at: Timestamp,
    ) -> Result<(), DbError> {
        let mut row = key.json();
        for (column, value) in [
            ("charge_id", json!(item.charge_id)),
            ("output_index", json!(item.output_index)),
            ("storage", json!(place.storage)),
            ("path", json!(place.path)),
            ("uri", json!(place.uri)),
            ("begun_at", self.db.time(at)),
        ] {
            row[column] = value;
        }
        let mut done = self.beginning.add(row);
        loop {
            let _writing = self.beginning.writing.lock().await;
            match done.try_recv() {
                Ok(()) => return Ok(()),
                // Whoever took the row failed, or was dropped halfway: its copies are told, and those end.
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(DbError::Statement {
                        statement: statements::BEGIN_UPLOADS.name,
                        source: sqlx::Error::Io(std::io::Error::other(
                            "the statement it shared was not completed",
                        )),
                    });
                }
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let batch = self.beginning.take();
            let rows = Json::Array(batch.iter().map(|(row, _)| row.clone()).collect());
            self.rows(statements::BEGIN_UPLOADS, &[(&rows).into()]).await?;
            for (_, written) in batch {
                // Who does not listen any more was dropped; its row is for the sweep.
                let _gone = written.send(());
            }
        }
    }

    /// Notes the id that the storage gave an upload in parts.
    pub async fn name_upload(&self, key: UploadKey, id: &str) -> Result<(), DbError> {
        let values = [id.into(), key.orphan_id.into(), key.lease_token.into(), key.nth.into()];
        self.rows(statements::NAME_UPLOAD, &values).await.map(drop)
    }

    /// Nothing is left there that nobody names.
    pub async fn forget_uploads(&self, keys: &[UploadKey]) -> Result<(), DbError> {
        if keys.is_empty() {
            return Ok(());
        }
        let list = Json::Array(keys.iter().map(|key| key.json()).collect());
        self.rows(statements::FORGET_UPLOADS, &[(&list).into()]).await.map(drop)
    }

    /// Whether a row names the object that a lease wrote for an item.
    pub async fn names(&self, item: &ItemId, lease_token: i64, uri: &str) -> Result<bool, DbError> {
        let values =
            [item.charge_id.as_str().into(), item.output_index.into(), uri.into(), lease_token.into()];
        let rows = self.rows(statements::OBJECT_IS_NAMED, &values).await?;
        Ok(first(statements::OBJECT_IS_NAMED, &rows)?.int("named")? == 1)
    }

    /// Ends the leases that ran out while an object was being written, and returns what dead leases may have left in
    /// `storage`. `old`: what was begun before is removed for the last time.
    pub async fn leftovers(
        &self,
        storage: &str,
        old: Timestamp,
        at_most: u32,
    ) -> Result<Vec<Leftover>, DbError> {
        let now = self.now().await?;
        self.rows(statements::END_DEAD_LEASES, &[now.into()]).await?;
        let values = [storage.into(), old.into(), i64::from(at_most).into()];
        let rows = self.rows(statements::FIND_LEFTOVERS, &values).await?;
        rows.iter()
            .map(|row| {
                Ok(Leftover {
                    key: UploadKey {
                        orphan_id: row.int("orphan_id")?,
                        lease_token: row.int("lease_token")?,
                        nth: row.int("nth")?,
                    },
                    path: row.text("path")?,
                    upload_id: row.maybe_text("upload_id")?,
                    named: row.int("named")? == 1,
                    for_good: row.int("for_good")? == 1,
                    found: row.int("found")? == 1,
                })
            })
            .collect()
    }

    /// Keeps what a sweep tried: whether each is gone; and counts those that are gone for the first time.
    pub async fn mark_swept(&self, tried: &[(UploadKey, bool)], first: u64) -> Result<(), DbError> {
        if first > 0 {
            let value = i64::try_from(first).unwrap_or(i64::MAX);
            let count = json!([{"metric": "swept", "label_a": "", "label_b": "", "value": value}]);
            self.rows(statements::COUNT_UP, &[(&count).into()]).await?;
        }
        if tried.is_empty() {
            return Ok(());
        }
        let list = tried.iter().map(|(key, cleared)| {
            let mut row = key.json();
            row["cleared"] = json!(i64::from(*cleared));
            row
        });
        let list = Json::Array(list.collect());
        let now = self.now().await?;
        self.rows(statements::MARK_SWEPT, &[(&list).into(), now.into()]).await.map(drop)
    }
}
