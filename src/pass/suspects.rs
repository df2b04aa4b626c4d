//! What was in flight in two passes that died, retried alone and last.
//!
//! One job may end every pass that asks about it: its answer or its file takes more memory than
//! there is, or meets an error of ours. Retried among others it would end each pass before they are
//! made good. So it is claimed by itself, after everything else of the pass, one job at a time in
//! the whole process, and of several suspects the one that has ended the most passes comes last:
//! innocent ones are settled, and cleared, before it.
//!
//! Each try that ends the process counts as a question that was asked and not answered. Once it is
//! past `refund_by` and asked often enough it is decided upon as every other that nobody could tell
//! about, without another question, and before anything else of a pass: it must not be late because
//! passes have no time left. Leaves to others: the claims (`store::claim`), the decision
//! (`policy::without_asking`). A crash here is what this is made for.

use std::sync::Arc;

use super::lane::{self, Claims};
use super::room::Room;
use super::{Pass, Reporter};
use crate::report::{Finding, PassReport};
use crate::store::{DbError, Suspects};

/// The most that one report names.
const NAMED: u32 = 20;

/// Decides upon those whose time is up, at the beginning of a pass.
pub(super) async fn decide(
    pass: &Arc<Pass>,
    report: &mut PassReport,
    progress: &Reporter,
) -> Result<(), DbError> {
    run(pass, Suspects::AskedEnough, report, progress).await
}

/// Names all of them, and retries those that are due, at the end of a pass.
pub(super) async fn retry(
    pass: &Arc<Pass>,
    report: &mut PassReport,
    progress: &Reporter,
) -> Result<(), DbError> {
    for suspect in pass.parts.store.suspects(NAMED).await? {
        report.add_finding(Finding {
            kind: "poison",
            about: format!("item {}", suspect.item),
            detail: format!(
                "{} passes died while it was in flight; it is retried alone and last, and once it was asked about often \
                 enough decided upon at {} without another question. See how those passes ended (out of memory?) and what \
                 `makegood explain` says of it",
                suspect.deaths, suspect.refund_by
            ),
        });
    }
    run(pass, Suspects::Due, report, progress).await
}

async fn run(
    pass: &Arc<Pass>,
    which: Suspects,
    report: &mut PassReport,
    progress: &Reporter,
) -> Result<(), DbError> {
    for provider in pass.parts.store.suspect_providers(pass.due_by).await? {
        if pass.is_ending() {
            break;
        }
        let rules = &pass.parts.rules;
        let room = Arc::new(Room::alone(rules.copies, rules.memory));
        let (done, result) = lane::run(
            Arc::clone(pass),
            provider,
            room,
            Arc::default(),
            Arc::clone(progress),
            Claims::Suspects(which),
        )
        .await;
        report.merge(done);
        result?;
    }
    Ok(())
}
