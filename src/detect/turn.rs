//! A turn lets one process scan charges at a time. Otherwise processes that begin together would
//! scan the same charges and try to open the same orphans.
//!
//! This saves work and decides nothing. Opening an orphan is idempotent, so a process that scans
//! without the turn does no harm. A process renews its turn while it scans. After a crash the turn
//! ends [`DetectionTurn::lasts`] after its last renewal, and the next process scans. A process that
//! waits settles the orphans that the other one opens.
//!
//! The turn is the row `detecting` of `makegood_cursors`; its position is the time of the last
//! renewal. Times are the database's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Detection, DetectionObserver};
use crate::store::{DbError, Store};

/// How long a turn lasts, and how long a process waits for it.
#[derive(Clone, Copy, Debug)]
pub struct DetectionTurn {
    /// The time from the last renewal of a turn to its expiry.
    pub lasts: Duration,
    /// How often a waiting process checks again.
    pub look_every: Duration,
    /// The number of checks after which a process scans without the turn.
    pub looks: u32,
}

impl Default for DetectionTurn {
    fn default() -> Self {
        // It waits up to an hour for a process that scans for that long.
        Self { lasts: Duration::from_secs(3), look_every: Duration::from_millis(250), looks: 14_400 }
    }
}

/// The turn that this process holds while it scans.
#[derive(Debug)]
pub(super) struct HeldTurn {
    turn: DetectionTurn,
    renewed: Instant,
}

impl Detection<'_> {
    /// Waits for the turn. None: scan without it.
    pub(super) async fn wait_for_turn(
        &self,
        observer: &impl DetectionObserver,
    ) -> Result<Option<HeldTurn>, DbError> {
        let turn = self.rules.turn;
        for _ in 0..turn.looks {
            if observer.is_ending() {
                break;
            }
            if self.store.take_detection_turn(turn.lasts).await? {
                return Ok(Some(HeldTurn { turn, renewed: Instant::now() }));
            }
            // The other process opens orphans of unknown providers.
            observer.opened(&BTreeSet::new());
            tokio::time::sleep(turn.look_every).await;
        }
        Ok(None)
    }
}

impl HeldTurn {
    /// Renews the turn when a third of it is over. Called after each chunk.
    pub(super) async fn renew(&mut self, store: &Store) -> Result<(), DbError> {
        if self.renewed.elapsed() >= self.turn.lasts / 3 {
            store.renew_detection_turn().await?;
            self.renewed = Instant::now();
        }
        Ok(())
    }

    /// Ends the turn, so that the next process can scan at once.
    pub(super) async fn end(self, store: &Store) -> Result<(), DbError> {
        store.end_detection_turn(self.turn.lasts).await
    }
}
