//! Removes what killed copies left in the storage: objects, uploads in parts, temporary files.
//!
//! It goes by the journal (`makegood_uploads`), never by listing the storage, so its cost follows what is under way or left over.
//! The rule:
//!
//! 1. A note goes in the transaction that names its object, or when the copy has cleaned up. One that stays although its lease is
//!    over (ran out, given back, or claimed anew) is of a copy that ended without a word. A lease that ran out is ended for
//!    good first: its worker, should it only have been asleep, can settle nothing any more. So what no row names then is named by none later.
//! 2. What such a note tells of is removed at once, in the next pass that finds the lease over; the object only if neither a recovery nor a
//!    stored output names it, asked of the database after the lease has ended. The note stays.
//! 3. A day after it was begun (`recovery.sweep_after`) it is removed once more, with its note: for a worker that was asleep
//!    and wrote on after all, and for requests that arrived late.
//!
//! A lease that is alive is never touched. A crash halfway leaves the notes; removing twice is as good as once. A bounded
//! number is removed in each pass, in the order they were last tried, and what fails is tried again by the next one.
//! Not found by it: an upload in parts that was begun and whose id could not be noted any more. It has no parts, so it
//! costs nothing; a lifecycle rule of the bucket ends those (docs/operating.md).

use std::time::Duration;

use tokio::time::Instant;

use super::Parts;
use crate::recovery::StorageError;
use crate::report::{PassReport, chain};
use crate::store::DbError;

/// The most notes that one pass goes through.
const AT_MOST: u32 = 500;
/// Nothing is begun after this.
const TIME: Duration = Duration::from_secs(30);
/// After so many failures in one pass the storage is left alone until the next.
const FAILURES_MAX: usize = 5;

/// Sweeps, and tells the report how much. What goes wrong is a warning: a pass is not undone by it.
pub(super) async fn run(parts: &Parts, report: &mut PassReport) {
    match sweep(parts).await {
        Ok(swept) => {
            report.swept += swept.cleared;
            for error in &swept.failures {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "what a killed copy left could not be removed; the next pass tries again"
                );
            }
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "the storage was not swept; the next pass tries again");
        }
    }
}

#[derive(Default)]
struct Swept {
    cleared: u64,
    failures: Vec<StorageError>,
}

async fn sweep(parts: &Parts) -> Result<Swept, DbError> {
    let began = Instant::now();
    let store = &parts.store;
    let old = store.now().await? - parts.rules.sweep_after;
    let left = store.leftovers(&parts.storage.root(), old, AT_MOST).await?;
    let mut swept = Swept::default();
    let (mut forgotten, mut tried) = (Vec::new(), Vec::new());
    for each in left {
        if began.elapsed() > TIME || swept.failures.len() >= FAILURES_MAX {
            break;
        }
        let cleared = parts.storage.clear(&each.path, each.upload_id.as_deref(), each.named).await;
        swept.cleared += u64::from(cleared.is_ok() && each.found);
        match cleared {
            Ok(()) if each.for_good => forgotten.push(each.key),
            Ok(()) => tried.push((each.key, true)),
            Err(error) => {
                swept.failures.push(error);
                tried.push((each.key, false));
            }
        }
    }
    store.forget_uploads(&forgotten).await?;
    store.mark_swept(&tried, swept.cleared).await?;
    Ok(swept)
}
