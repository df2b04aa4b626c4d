//! Leases the orphan of one item for a person, whether a pass has come to it yet or not.
//!
//! A claim like any other: it raises the token, and a person who is killed leaves a lease that runs out. What has no orphan yet
//! gets one in the same transaction, so that none is left behind that nobody has in hand.

use std::time::Duration;

use super::db::DbError;
use super::scan::{Dating, Opening};
use super::{Case, Store, statements, with_retries};
use crate::charge::ItemId;

/// What came of taking one item in hand.
#[derive(Debug)]
pub enum Taken {
    /// It is ours until the lease ends.
    Ours(Box<Case>),
    /// Its rows cannot be read, and why. It is not leased.
    Unreadable(String),
    /// Somebody has it in hand, or it is resolved by now.
    Not,
}

impl Store {
    /// Leases one item, and reads what is known about it.
    pub async fn take(&self, item: &ItemId, lease: Duration, dating: &Dating) -> Result<Taken, DbError> {
        with_retries!(self, self.take_at_once(item, lease, dating).await)
    }

    async fn take_at_once(&self, item: &ItemId, lease: Duration, dating: &Dating) -> Result<Taken, DbError> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        // What was resolved is not reopened: only an item that nobody has looked into gets an orphan here.
        let rows = tx.rows(statements::STORY_ORPHANS, &[(&item.charge_id).into()]).await?;
        let mut known = false;
        for row in &rows {
            known |= row.int("output_index")? == item.output_index;
        }
        if !known {
            let opening = Opening { by: "by_hand", now, due_at: now, dating };
            self.open_orphans(&mut tx, std::slice::from_ref(item), &opening).await?;
        }
        let values = [(&item.charge_id).into(), item.output_index.into(), now.into(), (now + lease).into()];
        let rows = tx.rows(statements::CLAIM_ITEM, &values).await?;
        let Some(row) = rows.first() else {
            return Ok(Taken::Not);
        };
        let mut claimed = self.cases_apart(&mut tx, &[row.int("id")?]).await?;
        match (claimed.cases.pop(), claimed.unreadable.pop()) {
            (Some(case), _) => {
                tx.commit().await?;
                Ok(Taken::Ours(Box::new(case)))
            }
            (None, Some(unreadable)) => Ok(Taken::Unreadable(unreadable.why)),
            // Its charge is gone.
            (None, None) => Ok(Taken::Not),
        }
    }
}
