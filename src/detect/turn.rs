//! Lets one process scan charges at a time. Otherwise processes that begin together would scan the
//! same charges and try to open the same orphans.
//!
//! This saves work and decides nothing. Opening an orphan is idempotent, so a process that scans
//! without the turn does no harm. A process renews its turn while it scans. After a crash the turn
//! ends [`Turn::lasts`] after its last renewal, and the next process scans. A process that waits
//! settles the orphans that the other one opens.
//!
//! The turn is the row `detecting` of `makegood_cursors`; its position is the time of the last
//! renewal. Times are the database's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Detection, Watch};
use crate::store::{DbError, Store};

/// How long a process waits for its turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// A turn ends so long after its last renewal.
    pub lasts: Duration,
    /// How often a process that waits looks again.
    pub look_every: Duration,
    /// After so many looks it scans without the turn.
    pub looks: u32,
}

impl Default for Turn {
    fn default() -> Self {
        // An hour of waiting for a process that scans for so long.
        Self { lasts: Duration::from_secs(3), look_every: Duration::from_millis(250), looks: 14_400 }
    }
}

/// The turn of this process, while it scans.
#[derive(Debug)]
pub(super) struct Held {
    turn: Turn,
    renewed: Instant,
}

impl Detection<'_> {
    /// Waits for the turn to scan. None: it scans without.
    pub(super) async fn wait_for_turn(&self, watch: &impl Watch) -> Result<Option<Held>, DbError> {
        let turn = self.rules.turn;
        for _ in 0..turn.looks {
            if watch.is_ending() {
                break;
            }
            if self.store.take_detection_turn(turn.lasts).await? {
                return Ok(Some(Held { turn, renewed: Instant::now() }));
            }
            // The other process opens orphans, of whichever providers.
            watch.opened(&BTreeSet::new());
            tokio::time::sleep(turn.look_every).await;
        }
        Ok(None)
    }
}

impl Held {
    /// Called after each chunk: renews the turn when a third of it is over.
    pub(super) async fn renew(&mut self, store: &Store) -> Result<(), DbError> {
        if self.renewed.elapsed() >= self.turn.lasts / 3 {
            store.renew_detection_turn().await?;
            self.renewed = Instant::now();
        }
        Ok(())
    }

    /// Lets the next process scan at once.
    pub(super) async fn end(self, store: &Store) -> Result<(), DbError> {
        store.end_detection_turn(self.turn.lasts).await
    }
}
