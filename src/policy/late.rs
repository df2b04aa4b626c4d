//! After a refund without proof: when the provider is asked again, and what its word then means.
//!
//! Nothing is ever taken back from a customer: what comes of a late question is knowledge, for whoever pays the provider.
//! Pure like all of `policy`: which rows are looked at is `store`'s, who asks and when a pass has time for it is `pass`'s.

use std::time::Duration;

use super::{Offered, Reason, offered};
use crate::clock::Timestamp;
use crate::evidence::{Evidence, Verdict};
use crate::facts::{Delivery, Facts};

/// An answer about a job counts for all its refunded items whose time comes within this: one question a job.
pub const ANSWER_SERVES: Duration = Duration::from_hours(1);
/// A provider that is left alone keeps a question open for this long after its last time, and no longer.
pub const PATIENCE: Duration = Duration::from_hours(7 * 24);

/// When the provider is asked again, counted from the refund.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The first time; none: only the last.
    pub first: Option<Duration>,
    /// The last time; none: only the first.
    pub last: Option<Duration>,
}

impl Times {
    fn after(self, refunded_at: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.first.into_iter().chain(self.last).map(move |span| refunded_at + span)
    }
}

/// How a refunded item stands with its late questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refunded {
    /// When it was refunded.
    pub at: Timestamp,
    /// When its job was last asked about since.
    pub last_asked_at: Option<Timestamp>,
}

/// What to do about a refunded item now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the provider.
    Ask,
    /// Nobody needs to be asked: the output has been stored meanwhile.
    Stored {
        /// Its id at the platform.
        output_id: String,
    },
    /// Nothing before then.
    NotYet(Timestamp),
    /// Nothing any more.
    End(End),
}

/// Why a refunded item is not asked about any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The provider says that it succeeded.
    Succeeded,
    /// Its output was stored.
    Stored,
    /// The provider says that it did not succeed.
    DidNot,
    /// Its times are over.
    AskedEnough,
    /// Another item claims the same output: whose success it would be, nobody can say.
    DuplicateJob,
    /// Its rows cannot be read any more.
    UnreadableRow,
}

impl End {
    /// As the database spells it.
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

/// What the provider's word means for one refunded item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Its output was made: paid for and never delivered.
    Succeeded,
    /// It was not made: the refund was right.
    DidNot,
    /// Neither is certain: ask at the next time.
    Open,
}

/// Whether a refund was given without the provider's word that it is owed.
pub const fn without_proof(reason: Reason) -> bool {
    match reason {
        Reason::Unconfirmed
        | Reason::TimedOut
        | Reason::NeverReturned
        | Reason::ReportedFailed
        | Reason::NoProviderJob
        | Reason::ByHand => true,
        Reason::Delivered
        | Reason::AlreadyRefunded
        | Reason::Misattributed
        | Reason::DuplicateJob
        | Reason::CannotRelink
        | Reason::MaybeNotSubmittedYet
        | Reason::OutputAvailable
        | Reason::ServerError
        | Reason::QueueTimeout
        | Reason::ContentSafety
        | Reason::MalformedResponse
        | Reason::ProviderError
        | Reason::CompletedAfterCancel
        | Reason::OutputExpired
        | Reason::MissingOutput
        | Reason::ProviderCancelled
        | Reason::MaybeNotVisibleYet
        | Reason::StillRunning
        | Reason::Unreachable
        | Reason::RateLimited
        | Reason::Unauthorized
        | Reason::Unreadable
        | Reason::UnknownProvider
        | Reason::RecoveryRetry
        | Reason::RecoveryFailed
        | Reason::Brake
        | Reason::NoBalance
        | Reason::NotPosted
        | Reason::CannotPost
        | Reason::ChargeChanged
        | Reason::DebitsMismatch
        | Reason::ItemsMismatch
        | Reason::MissingHash => false,
    }
}

/// When a refunded item is to be asked about next: the first of its times that no answer has served yet. None: never.
pub fn next_question(refunded: Refunded, times: Times) -> Option<Timestamp> {
    times
        .after(refunded.at)
        .find(|time| refunded.last_asked_at.is_none_or(|asked| *time > asked + ANSWER_SERVES))
}

/// What to do about a refunded item at `now`.
pub fn step(facts: &Facts, refunded: Refunded, times: Times, now: Timestamp) -> Step {
    let record = &facts.record;
    match &record.delivery {
        Delivery::Delivered { output_id } | Delivery::Misplaced { output_id, claimed: false, .. } => {
            return Step::Stored { output_id: output_id.clone() };
        }
        Delivery::Misplaced { claimed: true, .. } => return Step::End(End::DuplicateJob),
        Delivery::Missing => {}
    }
    if record.rival {
        return Step::End(End::DuplicateJob);
    }
    match next_question(refunded, times) {
        None => Step::End(End::AskedEnough),
        Some(at) if at > now => Step::NotYet(at),
        Some(_) if record.item.as_ref().is_some_and(|item| item.job.is_some()) => Step::Ask,
        // There is still no job on record to ask about: this time is over.
        Some(_) => after_doubt(Refunded { last_asked_at: Some(now), ..refunded }, times),
    }
}

/// What follows where nothing certain was said.
pub fn after_doubt(refunded: Refunded, times: Times) -> Step {
    next_question(refunded, times).map_or(Step::End(End::AskedEnough), Step::NotYet)
}

/// What follows where the provider was left alone: it costs no time, but it does not last for ever.
pub fn after_not_asked(refunded: Refunded, times: Times, retry_in: Duration, now: Timestamp) -> Step {
    let last = times.after(refunded.at).last();
    if last.is_none_or(|last| now >= last + PATIENCE) {
        Step::End(End::AskedEnough)
    } else {
        Step::NotYet(now + retry_in)
    }
}

/// What the provider's word means for one refunded item.
pub fn word(facts: &Facts, evidence: &Evidence) -> Word {
    let ended = match evidence.verdict {
        Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled => true,
        Verdict::Queued | Verdict::Running | Verdict::UnknownJob | Verdict::CouldNotTell(_) => false,
    };
    if !ended {
        return Word::Open;
    }
    match offered(facts, evidence) {
        Offered::File(_) => Word::Succeeded,
        // It was made, and its file is gone by now.
        Offered::Nothing if evidence.verdict == Verdict::Succeeded && evidence.outputs_gone => {
            Word::Succeeded
        }
        // Whether its file is among these is not known, so nothing is claimed from the provider.
        Offered::Untold => Word::Open,
        Offered::Failed(_) | Offered::Nothing => Word::DidNot,
    }
}

#[cfg(test)]
mod tests;
