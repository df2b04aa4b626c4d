//! Inserts the row of a recovered output again that the platform has removed (P10, P22), for a
//! person.
//!
//! Everything that the row says comes from the recovery on record; the caller has seen that the
//! file is still in the storage. One transaction with settle's locks in settle's order, under which
//! it is proved once more that the row is gone. The row has the id that it had, so a second one of
//! it cannot exist. Nothing is paid, and the resolution stays as it is: an event tells. Crash
//! before the commit: nothing happened. Crash after: the row is there, and the next try finds
//! nothing to do.

use serde_json::json;

use super::AS_LONG_AS_A_STATEMENT;
use crate::charge::{ItemId, JobKey, Split};
use crate::store::db::{DbError, Row, Run};
use crate::store::records::{EventRow, Instant, insert_events};
use crate::store::{Store, statements, with_retries};

/// A recovered output whose row the platform has removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostOutput {
    /// Whose it is.
    pub item: ItemId,
    /// Its id at the platform.
    pub output_id: String,
    /// Where makegood stored its file; none where the row was the platform's own and makegood only
    /// put it back.
    pub uri: Option<String>,
    /// How long the file is.
    pub size_bytes: Option<i64>,
    /// The job that the item was bought from, as the platform says now.
    pub job: Option<JobKey>,
    /// The job whose file was brought home.
    pub recovered_job: Option<String>,
    /// A row of this id is there, and not where the item expects it: of another job, or deleted in
    /// another place.
    pub has_row: bool,
    sha256: Option<String>,
    content_type: Option<String>,
    account_id: String,
    project_id: Option<String>,
    node_id: Option<String>,
    drawn: Split,
    orphan_id: i64,
}

impl Store {
    /// What the platform has lost of one item; none: nothing.
    pub async fn lost_output(&self, item: &ItemId) -> Result<Option<LostOutput>, DbError> {
        with_retries!(self, lost(&mut &*self, item).await)
    }

    /// Inserts the row of a lost output again. False: it is not lost any more, and nothing was
    /// written.
    ///
    /// # Errors
    /// The database refuses the row, another session holds a lock for too long, or it cannot be worked with. Nothing is
    /// half done.
    pub async fn restore_output(&self, lost: &LostOutput, detail: &str) -> Result<bool, DbError> {
        if self.is_postgres() {
            self.rows(statements::ADD_ACCOUNTS, &[(&json!([lost.account_id])).into()]).await?;
        }
        with_retries!(self, self.restore_at_once(lost, detail).await)
    }

    async fn restore_at_once(&self, seen: &LostOutput, detail: &str) -> Result<bool, DbError> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        self.wait_for_locks(&mut tx, AS_LONG_AS_A_STATEMENT).await?;
        tx.rows(statements::LOCK_ACCOUNTS, &[(&json!([seen.account_id])).into()]).await?;
        self.wait_for_locks(&mut tx, self.lock_timeout).await?;
        let drawn = seen.drawn.at_least_zero();
        let charge = json!([{
            "charge_id": seen.item.charge_id, "account_id": seen.account_id,
            "subscription_drawn": drawn.subscription, "wallet_drawn": drawn.wallet,
        }]);
        tx.rows(statements::LOCK_CHARGES, &[(&charge).into()]).await?;
        tx.rows(statements::LOCK_ORPHANS, &[(&json!([seen.orphan_id])).into()]).await?;
        let (Some(lost), Some(job)) = (lost(&mut tx, &seen.item).await?, &seen.job) else {
            return Ok(false);
        };
        if lost != *seen {
            return Ok(false);
        }
        let item = json!({"charge_id": seen.item.charge_id, "output_index": seen.item.output_index});
        let output = json!([{
            "id": seen.output_id, "charge_id": seen.item.charge_id, "output_index": seen.item.output_index,
            "provider": job.provider, "provider_job_id": job.job_id, "provider_output_index": job.output_index,
            "project_id": seen.project_id, "node_id": seen.node_id, "uri": seen.uri,
            "content_type": seen.content_type, "size_bytes": seen.size_bytes, "sha256": seen.sha256,
            "stored_at": self.db.time(now),
        }]);
        tx.rows(statements::INSERT_STORED_OUTPUTS, &[(&output).into()]).await?;
        if !tx.rows(statements::NOT_LANDED, &[(&json!([item])).into()]).await?.is_empty() {
            return Err(DbError::Statement {
                statement: statements::INSERT_STORED_OUTPUTS.name,
                source: sqlx::Error::Protocol(
                    "the platform's stored_outputs took the row and does not show it where its item expects it".to_owned(),
                ),
            });
        }
        let event = EventRow {
            detail: Some(detail.to_owned()),
            ..EventRow::new(seen.orphan_id, &seen.item, Instant::of(&self.db, now), "restored")
        };
        insert_events(&self.db, &mut tx, vec![event]).await?;
        tx.commit().await?;
        Ok(true)
    }
}

async fn lost(run: &mut impl Run, item: &ItemId) -> Result<Option<LostOutput>, DbError> {
    let values = [(&item.charge_id).into(), item.output_index.into()];
    let rows = run.rows(statements::LOST_OUTPUT, &values).await?;
    rows.first().map(|row| read(row, item)).transpose()
}

fn read(row: &Row, item: &ItemId) -> Result<LostOutput, DbError> {
    let job = match row.maybe_text("provider_job_id")? {
        Some(job_id) => Some(JobKey {
            provider: row.text("provider")?,
            job_id,
            output_index: row.int("provider_output_index")?,
        }),
        None => None,
    };
    Ok(LostOutput {
        item: item.clone(),
        output_id: row.text("stored_output_id")?,
        uri: row.maybe_text("uri")?,
        size_bytes: row.maybe_int("size_bytes")?,
        job,
        recovered_job: row.maybe_text("recovered_job")?,
        has_row: row.int("has_row")? == 1,
        sha256: row.maybe_text("sha256")?,
        content_type: row.maybe_text("content_type")?,
        account_id: row.text("account_id")?,
        project_id: row.maybe_text("project_id")?,
        node_id: row.maybe_text("node_id")?,
        drawn: Split { subscription: row.int("subscription_credits")?, wallet: row.int("wallet_credits")? },
        orphan_id: row.int("orphan_id")?,
    })
}
