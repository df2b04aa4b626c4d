//! Whether refunds can be posted, as a pass last found out, for all processes.
//!
//! One row. The process that takes on a check notes so first, so that a hundred passes that begin
//! at once check once; the others go by the last result meanwhile. Crash in between: the last
//! result stays for the hour. Who checks what is for `pass::posting`.

use crate::clock::Timestamp;
use crate::store::db::DbError;
use crate::store::{Store, statements};

/// What was found out about posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostingCheck {
    /// Refunds can be posted.
    Works,
    /// They cannot: what is wrong.
    CannotPost(String),
    /// It could not be found out: why not. Refunds go on, since settle reads back what it posts.
    Untried(String),
}

impl Store {
    /// Takes on a check, unless this version has made one since `too_old`.
    pub async fn begin_posting_check(
        &self,
        version: &str,
        now: Timestamp,
        too_old: Timestamp,
    ) -> Result<bool, DbError> {
        let values = [now.into(), version.into(), too_old.into()];
        Ok(!self.rows(statements::CHECK_BEGIN, &values).await?.is_empty())
    }

    /// Keeps what a check has found out.
    pub async fn end_posting_check(&self, found: &PostingCheck) -> Result<(), DbError> {
        let (result, detail) = match found {
            PostingCheck::Works => ("ok", None),
            PostingCheck::CannotPost(why) => ("cannot_post", Some(why)),
            PostingCheck::Untried(why) => ("untried", Some(why)),
        };
        let detail = super::db::Value::MaybeText(detail.map(|detail| detail.replace('\0', "\u{fffd}")));
        self.rows(statements::CHECK_END, &[result.into(), detail]).await.map(drop)
    }

    /// What the last check has found out.
    pub async fn posting_check(&self) -> Result<PostingCheck, DbError> {
        let rows = self.rows(statements::CHECK_RESULT, &[]).await?;
        let Some(row) = rows.first() else {
            return Ok(PostingCheck::Untried("no check is on record".to_owned()));
        };
        let detail = row.maybe_text("detail")?.unwrap_or_default();
        Ok(match row.text("result")?.as_str() {
            "ok" => PostingCheck::Works,
            "cannot_post" => PostingCheck::CannotPost(detail),
            _ => PostingCheck::Untried(detail),
        })
    }
}
