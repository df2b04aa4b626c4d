//! Late questions: after a refund without proof, the provider is asked again how the job ended.
//!
//! The refund is never reversed by the answer. It is recorded for whoever settles the provider's
//! invoice. This module is pure like the rest of `policy`: `store` selects the rows, and `pass`
//! decides when a pass has time to ask.

use std::time::Duration;

use super::{Offered, Reason, offered};
use crate::clock::Timestamp;
use crate::evidence::{Evidence, Verdict};
use crate::facts::{Delivery, Facts};

/// One answer about a job serves all its refunded items whose next question is due within this
/// time.
pub const ANSWER_VALID_FOR: Duration = Duration::from_hours(1);
/// The time after the last question for which a provider that cannot be asked keeps it open.
/// Then makegood gives up.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(7 * 24);

/// When the provider is asked again, counted from the refund.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LateTimes {
    /// The first question; none: there is only the last one.
    pub first: Option<Duration>,
    /// The last question; none: there is only the first one.
    pub last: Option<Duration>,
}

impl LateTimes {
    fn after(self, refunded_at: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.first.into_iter().chain(self.last).map(move |span| refunded_at + span)
    }
}

/// A refunded item and its last late question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refunded {
    /// When it was refunded.
    pub at: Timestamp,
    /// When its job was last asked about after the refund.
    pub last_asked_at: Option<Timestamp>,
}

/// The next step for a refunded item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LateStep {
    /// Ask the provider.
    Ask,
    /// No question is needed: the output has been stored meanwhile.
    Stored {
        /// The output's id at the platform.
        output_id: String,
    },
    /// Nothing is due before this time.
    NotYet(Timestamp),
    /// No more questions.
    End(End),
}

/// Why a refunded item is not asked about any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The provider says that the item succeeded.
    Succeeded,
    /// Its output was stored.
    Stored,
    /// The provider says that the item did not succeed.
    DidNot,
    /// Every question was asked, or the provider could not be asked for too long.
    AskedEnough,
    /// Another item claims the same output, so a success could not be attributed.
    DuplicateJob,
    /// The item's rows can no longer be read.
    UnreadableRow,
}

impl End {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Stored => "stored",
            Self::DidNot => "did_not",
            Self::AskedEnough => "asked_enough",
            Self::DuplicateJob => "duplicate_job",
            Self::UnreadableRow => "unreadable_row",
        }
    }
}

/// The meaning of a late answer for one refunded item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateVerdict {
    /// The output was made: the provider is owed for it, and it was never delivered.
    Succeeded,
    /// The output was not made: the refund was right.
    DidNot,
    /// The answer decides neither: ask at the next time.
    Open,
}

/// The reasons of refunds that were given without the provider's word that they are owed.
const WITHOUT_PROOF: [Reason; 6] = [
    Reason::NoProviderJob,
    Reason::ReportedFailed,
    Reason::NeverReturned,
    Reason::TimedOut,
    Reason::Unconfirmed,
    Reason::ByHand,
];

/// Whether a refund of this reason was given without the provider's word that it is owed.
pub fn without_proof(reason: Reason) -> bool {
    WITHOUT_PROOF.contains(&reason)
}

/// When to ask about a refunded item next: the first of its times that no answer has served. None:
/// there are no more questions.
pub fn next_question(refunded: Refunded, times: LateTimes) -> Option<Timestamp> {
    times
        .after(refunded.at)
        .find(|time| refunded.last_asked_at.is_none_or(|asked| *time > asked + ANSWER_VALID_FOR))
}

/// Decides the next step for a refunded item at `now`.
pub fn next_step(facts: &Facts, refunded: Refunded, times: LateTimes, now: Timestamp) -> LateStep {
    let record = &facts.record;
    match &record.delivery {
        Delivery::Delivered { output_id } | Delivery::Misplaced { output_id, claimed: false, .. } => {
            return LateStep::Stored { output_id: output_id.clone() };
        }
        Delivery::Misplaced { claimed: true, .. } => return LateStep::End(End::DuplicateJob),
        Delivery::Missing => {}
    }
    if record.rival {
        return LateStep::End(End::DuplicateJob);
    }
    match next_question(refunded, times) {
        None => LateStep::End(End::AskedEnough),
        Some(at) if at > now => LateStep::NotYet(at),
        Some(_) if record.item.as_ref().is_some_and(|item| item.job.is_some()) => LateStep::Ask,
        // No job is on record that could be asked about: skip this question.
        Some(_) => after_doubt(Refunded { last_asked_at: Some(now), ..refunded }, times),
    }
}

/// The next step after an answer that decided nothing.
pub fn after_doubt(refunded: Refunded, times: LateTimes) -> LateStep {
    next_question(refunded, times).map_or(LateStep::End(End::AskedEnough), LateStep::NotYet)
}

/// The next step if the provider could not be asked now (a rate limit or an open circuit breaker).
///
/// The question stays open, but not for ever: see [`GIVE_UP_AFTER`].
pub fn after_not_asked(refunded: Refunded, times: LateTimes, retry_in: Duration, now: Timestamp) -> LateStep {
    let last = times.after(refunded.at).last();
    if last.is_none_or(|last| now >= last + GIVE_UP_AFTER) {
        LateStep::End(End::AskedEnough)
    } else {
        LateStep::NotYet(now + retry_in)
    }
}

/// Reads a late answer for one refunded item.
pub fn verdict(facts: &Facts, evidence: &Evidence) -> LateVerdict {
    let ended = match evidence.verdict {
        Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled => true,
        Verdict::Queued | Verdict::Running | Verdict::UnknownJob | Verdict::CouldNotTell(_) => false,
    };
    if !ended {
        return LateVerdict::Open;
    }
    match offered(facts, evidence) {
        Offered::File(_) => LateVerdict::Succeeded,
        // It was made, and its file is gone by now.
        Offered::Nothing if evidence.verdict == Verdict::Succeeded && evidence.outputs_gone => {
            LateVerdict::Succeeded
        }
        // Whether the item's file is among these is unknown, so nothing is claimed from the
        // provider.
        Offered::Ambiguous => LateVerdict::Open,
        Offered::Failed(_) | Offered::Nothing => LateVerdict::DidNot,
    }
}

#[cfg(test)]
mod tests;
