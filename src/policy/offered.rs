//! Finds the file of one item in an answer about its job.

use super::Pick;
use crate::evidence::{Evidence, FailureClass, Source, Verdict};
use crate::facts::Facts;

/// The part of an answer that concerns one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// The answer offers the file.
    File(Pick),
    /// The item failed alone, or the answer names failures for outputs without an index.
    Failed(FailureClass),
    /// Files without an index, one of which may be stored already: which one is this item's cannot
    /// be told.
    Ambiguous,
    /// No file and no failure for this item.
    Nothing,
}

/// Finds the item's file in an answer.
///
/// A file with the item's index is the item's. Files without an index go to the items in order: by
/// rank if there is one for every item, otherwise to the items that still wait.
pub(super) fn offered(facts: &Facts, evidence: &Evidence) -> Offered {
    let Some(job) = facts.record.item.as_ref().and_then(|item| item.job.as_ref()) else {
        return Offered::Nothing;
    };
    let as_offered = |nth: usize| match &evidence.outputs[nth].source {
        Source::Url { .. } | Source::Inline { .. } => Offered::File(Pick::Offer(nth)),
        Source::Failed { class, .. } => Offered::Failed(*class),
    };
    // With an index: the provider says whose file it is.
    if let Some(nth) = evidence.outputs.iter().position(|offer| offer.index == Some(job.output_index)) {
        return as_offered(nth);
    }
    let unnamed = || evidence.outputs.iter().enumerate().filter(|(_, offer)| offer.index.is_none());
    let files: Vec<usize> = unnamed()
        .filter(|(_, offer)| !matches!(offer.source, Source::Failed { .. }))
        .map(|(nth, _)| nth)
        .collect();
    // Without indices, and one for every item: in order.
    let share = &facts.share;
    if files.len() >= share.items {
        return files.get(share.rank).map_or(Offered::Nothing, |nth| Offered::File(Pick::Offer(*nth)));
    }
    // A running job may still add files.
    if matches!(evidence.verdict, Verdict::Queued | Verdict::Running) {
        return Offered::Nothing;
    }
    // A file that is stored without a hash may be any of those offered. A copy could store the same
    // file twice; a refund could pay for an output that was delivered.
    if share.unhashed > 0 && !files.is_empty() {
        return Offered::Ambiguous;
    }
    // Fewer files than items: stored files are skipped, the others go to the waiting items in
    // order.
    if share.open_rank < files.len().saturating_sub(share.stored.len()) {
        return Offered::File(Pick::Unclaimed(share.open_rank));
    }
    unnamed()
        .find_map(|(_, offer)| match &offer.source {
            Source::Failed { class, .. } => Some(Offered::Failed(*class)),
            Source::Url { .. } | Source::Inline { .. } => None,
        })
        .unwrap_or(Offered::Nothing)
}
