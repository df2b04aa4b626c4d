//! The turn to scan charges, as it stands in `makegood_cursors`. `detect::turn` says what it is
//! for.
//!
//! A crash leaves the row; the turn ends so long after its last renewal.

use std::time::Duration;

use super::db::DbError;
use super::{Store, statements};
use crate::clock::MAX_CLOCK_SKEW;

/// The name of the turn among the saved positions.
const NAME: &str = "detecting";

impl Store {
    /// Takes the turn. False: another process has it, and has renewed it within `lasts`.
    pub async fn take_detection_turn(&self, lasts: Duration) -> Result<bool, DbError> {
        let now = self.now().await?;
        let values = [now.into(), (now - lasts).into(), (now + MAX_CLOCK_SKEW).into()];
        Ok(!self.rows(statements::DETECTION_TURN_TAKE, &values).await?.is_empty())
    }

    /// Renews the turn.
    pub async fn renew_detection_turn(&self) -> Result<(), DbError> {
        let now = self.now().await?;
        self.advance_cursor(NAME, now, now).await
    }

    /// Ends the turn, so that another process can take it at once.
    pub async fn end_detection_turn(&self, lasts: Duration) -> Result<(), DbError> {
        let ended = self.now().await? - lasts;
        self.rows(statements::DETECTION_TURN_END, &[ended.into()]).await.map(drop)
    }
}
