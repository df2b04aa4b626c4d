#![doc = include_str!("policy.md")]
//!
//! [`decide`] is this table as a pure function: it reads no clock, does no I/O and does not wait.
//! Every choice that moves money is made here, in [`decide`] or [`after_recovery`]; the stages that
//! execute a decision choose nothing. `refund` splits a refund over the balances, and `brake`
//! decides whether refunds are held.

use std::time::Duration;

use crate::charge::{Bucket, Item, WHOLE_CHARGE};
use crate::clock::Timestamp;
use crate::evidence::{Doubt, Evidence, Verdict};
use crate::facts::{Delivery, Facts, Record};

pub mod by_hand;
mod holds;
pub mod late;
mod offered;
mod reason;
mod waits;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

pub use holds::{
    braked, cannot_post, cannot_relink, charge_changed, exceeds_draw, not_posted, without_balance,
};
use offered::{Offered, offered};
pub use reason::Reason;
pub use waits::{MAX_WAIT, WaitBounds, next_check_at};

/// The minimum number of questions before a refund without proof.
pub const QUESTIONS_MIN: i64 = 3;
/// The minimum time between the first and the last of these questions.
pub const QUESTIONS_SPAN: Duration = Duration::from_mins(30);

/// The settings that the policy depends on.
#[derive(Clone, Copy, Debug)]
pub struct PolicyOptions {
    /// A job that is unknown and younger than this may still appear (rules 4 and 11).
    pub unknown_job_grace: Duration,
    /// Refund even where the file could be recovered (rule 5, `[recovery] prefer`).
    pub prefer_refund: bool,
}

/// A decision about an orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The action.
    pub action: Action,
    /// The reason.
    pub reason: Reason,
    /// The rule that matched, 1 to 16; 0 if a person overrode the table.
    pub rule: u8,
}

/// An action on an orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Refund the credits.
    Refund,
    /// Copy the output from the provider into the platform's storage.
    Recover(Pick),
    /// Link a stored output to the item that it belongs to.
    Relink {
        /// The output's id at the platform.
        output_id: String,
    },
    /// Check again later.
    Wait,
    /// Close the case: nothing is owed.
    Close,
    /// Hold the case until a person has looked at it.
    Hold,
}

/// Which of the offered files is the item's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The file at this position of [`Evidence::outputs`].
    Offer(usize),
    /// The nth offered file that is not stored for the job yet. The provider gives no indices.
    Unclaimed(usize),
}

impl Action {
    /// The word in the database, logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Refund => "refund",
            Self::Recover(_) => "recover",
            Self::Relink { .. } => "relink",
            Self::Wait => "wait",
            Self::Close => "close",
            Self::Hold => "hold",
        }
    }
}

const fn rule(rule: u8, action: Action, reason: Reason) -> Decision {
    Decision { action, reason, rule }
}

/// Whether the provider has to be asked. Rules 1 to 4 and the check of the items may decide without
/// it.
pub fn needs_evidence(facts: &Facts, options: &PolicyOptions, now: Timestamp) -> bool {
    decide_from_record(facts, options, now).is_none()
}

/// Decides what is owed for one item, given what is known at `now`.
///
/// `evidence` is none if the provider was not asked. Rules 1 to 4 do not need it.
pub fn decide(
    facts: &Facts,
    evidence: Option<&Evidence>,
    options: &PolicyOptions,
    now: Timestamp,
) -> Decision {
    let decision = decide_from_record(facts, options, now).unwrap_or_else(|| match evidence {
        Some(evidence) => decide_from_evidence(facts, evidence, options, now),
        // The rules need an answer and the provider was not asked: "could not tell". It does not
        // count as a question.
        None => rule(13, Action::Wait, Reason::Unreachable),
    });
    payable(facts, decision)
}

/// Decides about a job whose questions have killed the passes that asked them, without asking
/// again.
///
/// Returns none before `refund_by`, or if the job was not asked about often enough: it is asked
/// again. Otherwise the decision is taken as if the last answer had been unreadable (rules 10 and
/// 13). `facts` counts the questions of passes that died before they could record an answer.
pub fn without_asking(facts: &Facts, options: &PolicyOptions, now: Timestamp) -> Option<Decision> {
    if !needs_evidence(facts, options, now)
        || facts.orphan.questions < QUESTIONS_MIN
        || !asked_enough(facts, now)
    {
        return None;
    }
    let nothing = Evidence::could_not_tell(Doubt::Unreadable, "", now);
    Some(decide(facts, Some(&nothing), options, now))
}

/// Rules 14 and 15: decides what is owed after the copy of the file failed.
///
/// `gone` means that the provider no longer has the file. `completed` means that the provider says
/// the job succeeded; then a run that the user cancelled stays paid, as under rule 7 (P11,
/// cancelled runs).
pub fn after_recovery(facts: &Facts, completed: bool, gone: bool, now: Timestamp) -> Decision {
    let cancelled = facts.record.charge.cancelled_at.is_some();
    let decision = if gone && completed && cancelled {
        rule(14, Action::Close, Reason::CompletedAfterCancel)
    } else if gone {
        rule(14, Action::Refund, Reason::OutputExpired)
    } else if asked_enough(facts, now) {
        rule(15, Action::Refund, Reason::RecoveryFailed)
    } else {
        rule(15, Action::Wait, Reason::RecoveryRetry)
    };
    payable(facts, decision)
}

/// Turns a refund that cannot be paid into another decision.
///
/// An item without a price is closed (P12, no charge and no refund). Rule 16 holds a refund without
/// exactly one balance row for each bucket, and one whose debits differ from the draw.
fn payable(facts: &Facts, decision: Decision) -> Decision {
    if decision.action != Action::Refund {
        return decision;
    }
    if facts.record.item.as_ref().is_some_and(|item| item.credits == 0) {
        return Decision { action: Action::Close, ..decision };
    }
    if !balances_are_clear(&facts.record) {
        return without_balance();
    }
    if !debits_add_up(&facts.record) {
        return rule(16, Action::Hold, Reason::DebitsMismatch);
    }
    decision
}

/// Rules 1 to 4, and the rows of rule 16 about items that do not add up.
fn decide_from_record(facts: &Facts, options: &PolicyOptions, now: Timestamp) -> Option<Decision> {
    let record = &facts.record;
    match &record.delivery {
        Delivery::Delivered { .. } => return Some(rule(1, Action::Close, Reason::Delivered)),
        // It was delivered and the platform removed the row (P10, deleted outputs stay paid). A
        // misplaced row is relinked below.
        Delivery::Missing if record.was_recovered => return Some(rule(1, Action::Close, Reason::Delivered)),
        Delivery::Misplaced { .. } | Delivery::Missing => {}
    }
    if record.refunded_elsewhere.item {
        return Some(rule(2, Action::Close, Reason::AlreadyRefunded));
    }
    if record.refunded_elsewhere.whole_charge || record.refunded_elsewhere.part {
        return Some(rule(2, Action::Hold, Reason::AlreadyRefunded));
    }
    match &record.delivery {
        Delivery::Misplaced { claimed: true, .. } => {
            return Some(rule(3, Action::Hold, Reason::DuplicateJob));
        }
        Delivery::Misplaced { output_id, claimed: false, .. } if !record.rival => {
            return Some(rule(3, Action::Relink { output_id: output_id.clone() }, Reason::Misattributed));
        }
        Delivery::Misplaced { .. } | Delivery::Delivered { .. } | Delivery::Missing => {}
    }
    // Two items claim the same output, stored or not: nothing is recovered or refunded for either.
    if record.rival {
        return Some(rule(3, Action::Hold, Reason::DuplicateJob));
    }
    let Some(item) = consistent_item(record) else {
        let items_were_added = facts.orphan.item.output_index == WHOLE_CHARGE && adds_up(record);
        let action = if items_were_added { Action::Close } else { Action::Hold };
        return Some(rule(16, action, Reason::ItemsMismatch));
    };
    if item.job.is_none() {
        let waited = now.since(record.charge.charged_at) >= options.unknown_job_grace;
        return Some(if item.failed_at.is_some() || waited {
            rule(4, Action::Refund, Reason::NoProviderJob)
        } else {
            rule(4, Action::Wait, Reason::MaybeNotSubmittedYet)
        });
    }
    None
}

/// Rules 5 to 13.
fn decide_from_evidence(
    facts: &Facts,
    evidence: &Evidence,
    options: &PolicyOptions,
    now: Timestamp,
) -> Decision {
    let reported_failed = facts.record.item.as_ref().is_some_and(|item| item.failed_at.is_some());
    let offered = offered(facts, evidence);
    let ended = match evidence.verdict {
        Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled => true,
        Verdict::Queued | Verdict::Running | Verdict::UnknownJob | Verdict::CouldNotTell(_) => false,
    };
    if let Offered::File(pick) = offered
        && (ended || now >= facts.orphan.refund_by)
    {
        let action = if options.prefer_refund { Action::Refund } else { Action::Recover(pick) };
        return rule(5, action, Reason::OutputAvailable);
    }
    // Before the rules that refund: the output that a refund would pay for may be stored already.
    let would_refund = reported_failed || evidence.verdict == Verdict::UnknownJob;
    if matches!(offered, Offered::Ambiguous) && (ended || would_refund || now >= facts.orphan.refund_by) {
        return rule(5, Action::Hold, Reason::MissingHash);
    }
    // An unreadable answer proves nothing, not even the failures that it names.
    if let (Offered::Failed(class), false) = (offered, matches!(evidence.verdict, Verdict::CouldNotTell(_))) {
        return rule(6, Action::Refund, class.into());
    }
    match evidence.verdict {
        Verdict::Failed => rule(6, Action::Refund, evidence.class.map_or(Reason::ProviderError, Into::into)),
        Verdict::Succeeded if evidence.outputs_gone => {
            if facts.record.charge.cancelled_at.is_some() {
                rule(7, Action::Close, Reason::CompletedAfterCancel)
            } else {
                rule(7, Action::Refund, Reason::OutputExpired)
            }
        }
        Verdict::Succeeded => rule(8, Action::Refund, Reason::MissingOutput),
        Verdict::Cancelled => rule(9, Action::Refund, Reason::ProviderCancelled),
        Verdict::UnknownJob | Verdict::Queued | Verdict::Running | Verdict::CouldNotTell(_)
            if reported_failed =>
        {
            rule(10, Action::Refund, Reason::ReportedFailed)
        }
        Verdict::UnknownJob => {
            if now.since(facts.record.charge.charged_at) < options.unknown_job_grace {
                rule(11, Action::Wait, Reason::MaybeNotVisibleYet)
            } else {
                rule(11, Action::Refund, Reason::NeverReturned)
            }
        }
        Verdict::Queued | Verdict::Running => {
            if asked_enough(facts, now) {
                rule(12, Action::Refund, Reason::TimedOut)
            } else {
                rule(12, Action::Wait, Reason::StillRunning)
            }
        }
        Verdict::CouldNotTell(doubt) => {
            if asked_enough(facts, now) {
                rule(13, Action::Refund, Reason::Unconfirmed)
            } else {
                rule(13, Action::Wait, doubt.into())
            }
        }
    }
}

/// Whether `now` is past `refund_by` and the job was asked about often enough, over a long enough
/// time. Otherwise the first pass after an outage of makegood would refund without having asked.
///
/// Counts the question that was just answered.
fn asked_enough(facts: &Facts, now: Timestamp) -> bool {
    let orphan = &facts.orphan;
    let asked_long_enough = orphan.first_asked_at.is_some_and(|first| now.since(first) >= QUESTIONS_SPAN);
    now >= orphan.refund_by && orphan.questions + 1 >= QUESTIONS_MIN && asked_long_enough
}

/// Returns the item if its charge is consistent: it has items, none has a negative price, and they
/// sum up to the draw.
fn consistent_item(record: &Record) -> Option<&Item> {
    record.item.as_ref().filter(|_| adds_up(record))
}

fn adds_up(record: &Record) -> bool {
    let drawn = record.charge.drawn;
    let items = record.items;
    items.count > 0
        && !items.negative
        && drawn.subscription >= 0
        && drawn.wallet >= 0
        && items.credits == drawn.total()
}

/// Whether the ledger's debits for the charge equal its draw. A ledger without debits for the
/// charge passes.
fn debits_add_up(record: &Record) -> bool {
    record.debits.is_none_or(|debits| debits == -record.charge.drawn.total())
}

/// Whether every bucket that the charge drew from has exactly one balance row.
fn balances_are_clear(record: &Record) -> bool {
    let rows = |bucket| match bucket {
        Bucket::Subscription => record.balance_rows.subscription,
        Bucket::Wallet => record.balance_rows.wallet,
    };
    Bucket::ALL.into_iter().all(|bucket| record.charge.drawn.of(bucket) <= 0 || rows(bucket) == 1)
}
