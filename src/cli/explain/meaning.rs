//! What a reason means, in words for a person: why something was decided, and what comes next.

use crate::policy::{Action, Reason};

/// A reason as the database spells it.
pub fn read(word: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.as_str() == word)
}

/// Why, as a clause that begins with "because" would.
pub const fn because(reason: Reason) -> &'static str {
    match reason {
        Reason::Delivered => "its output is stored where it belongs",
        Reason::AlreadyRefunded => "the platform has refunded it itself",
        Reason::Misattributed => "its output was stored, but hung in the wrong place",
        Reason::DuplicateJob => "another item claims the same output of the same provider job",
        Reason::CannotRelink => {
            "its output is stored in the wrong place, and the platform's stored_outputs does not let it be put back"
        }
        Reason::NoProviderJob => "no provider job is on record: it was never submitted",
        Reason::MaybeNotSubmittedYet => "no provider job is on record yet, and it may still be submitted",
        Reason::OutputAvailable => "the provider finished it and still has the file",
        Reason::ServerError => "the provider's server failed",
        Reason::QueueTimeout => "it waited too long in the provider's queue",
        Reason::ContentSafety => "the provider refused it for its content after it was charged",
        Reason::MalformedResponse => "the provider's own answer was broken",
        Reason::ProviderError => "the provider says that it failed",
        Reason::CompletedAfterCancel => {
            "the user cancelled it, the provider completed it all the same, and its files are gone"
        }
        Reason::OutputExpired => "the provider finished it, but has dropped the file",
        Reason::MissingOutput => "the provider finished the job without this output",
        Reason::ProviderCancelled => "it was cancelled at the provider",
        Reason::ReportedFailed => "the platform has recorded that it failed",
        Reason::MaybeNotVisibleYet => {
            "the provider does not know the job, which may be too young to be shown"
        }
        Reason::NeverReturned => "the provider knows no such job",
        Reason::StillRunning => "the provider says that it is still at work",
        Reason::TimedOut => "the provider was still at work on it when its time was up",
        Reason::Unreachable => "the provider does not answer",
        Reason::RateLimited => "the provider says that it is asked too often",
        Reason::Unauthorized => "the provider refused our key",
        Reason::Unreadable => "the provider's answer cannot be read",
        Reason::UnknownProvider => "there is no provider file of that name",
        Reason::Unconfirmed => "nothing could be told about it until its time was up",
        Reason::RecoveryRetry => "the provider offers the file, but bringing it home failed",
        Reason::RecoveryFailed => "the file could not be brought home until its time was up",
        Reason::Brake => "the brake is on: too many refunds came at once",
        Reason::NoBalance => "its account does not have exactly one balance for each bucket that paid",
        Reason::NotPosted => "the refund was posted, and the platform's balance or ledger did not show it",
        Reason::CannotPost => "a trial refund on the platform's relations failed, so that none is posted",
        Reason::ChargeChanged => {
            "the charge names another account or draw than when something was first made good for it"
        }
        Reason::DebitsMismatch => {
            "the entries of the ledger that name the charge do not add up to what it drew"
        }
        Reason::MissingHash => {
            "a file of its job is stored without a SHA-256, so which of the provider's files it is cannot be told"
        }
        Reason::ItemsMismatch => "the charge has no items, or they do not add up to what was drawn",
        Reason::ByHand => "a person said so against the table",
    }
}

/// Why an item waits. What the brake held is open again once it was released, until the next pass comes to it.
pub fn because_waiting(state: &str, reason: Reason) -> &'static str {
    match (state, reason) {
        ("open", Reason::Brake) => "the brake held it and was released",
        (_, reason) => because(reason),
    }
}

/// What a person can do about an item that waits or is held for this reason; empty: nothing.
pub const fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::DuplicateJob => {
            "Find out whose output it is and correct the other item, or refund this one: `makegood refund --anyway`."
        }
        Reason::CannotRelink => {
            "Mend what refuses the UPDATE of `stored_outputs` (a trigger, a rule, a view), or put the output back by hand."
        }
        Reason::AlreadyRefunded => {
            "Compare the ledger with the charge; a person decides, and refunds what is still owed: `makegood refund --anyway`, or in the ledger."
        }
        Reason::Unauthorized => {
            "Mend the provider's key (`makegood provider list` says where it is looked for)."
        }
        Reason::Unreadable => {
            "Look at the answer below and at the provider's file (`makegood provider test` reads an answer again)."
        }
        Reason::UnknownProvider => {
            "Add a provider file of that name to `providers.dir`, or correct the charge."
        }
        Reason::Unreachable | Reason::RateLimited => {
            "Usually passes by itself; see the provider's status page if it does not."
        }
        Reason::RecoveryRetry => {
            "The last event says what went wrong. A host or port that was refused belongs into `output_hosts` of the provider's file, if it is right, and one that the key was kept from into `key_hosts`; `makegood check` tries the storage."
        }
        Reason::Brake => "See `makegood brake status`. The refund is paid once the brake is released.",
        Reason::NoBalance => "Mend the platform's `balances`; it is refunded then.",
        Reason::NotPosted => {
            "Mend the trigger or view behind `balances` or `ledger_entries` that the finding names; it is refunded within the hour."
        }
        Reason::CannotPost => {
            "`makegood check` says what is wrong. Once it is mended, the refund is paid within two hours."
        }
        Reason::ChargeChanged => {
            "Correct the charge, or refund what is owed to whom: `makegood refund --anyway`, or in the ledger."
        }
        Reason::DebitsMismatch => {
            "Correct the charge or the ledger; it is refunded within the hour once both say the same."
        }
        Reason::MissingHash => {
            "Set `sha256` of the job's rows in `stored_outputs`; the next look decides. Or refund it: `makegood refund --anyway`."
        }
        Reason::ItemsMismatch => "Mend the charge's items; makegood does not guess.",
        Reason::Delivered
        | Reason::Misattributed
        | Reason::NoProviderJob
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
        | Reason::ReportedFailed
        | Reason::MaybeNotVisibleYet
        | Reason::NeverReturned
        | Reason::StillRunning
        | Reason::TimedOut
        | Reason::Unconfirmed
        | Reason::RecoveryFailed
        | Reason::ByHand => "",
    }
}

/// What a decision would do.
pub const fn would(action: &Action) -> &'static str {
    match action {
        Action::Refund => "refund it",
        Action::Recover(_) => "bring its output home",
        Action::Relink { .. } => "put its stored output back where it belongs",
        Action::Wait => "wait and ask again",
        Action::Close => "close it without a refund",
        Action::Hold => "hold it for a person",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_and_says_something() {
        for reason in Reason::ALL {
            assert_eq!(read(reason.as_str()), Some(*reason));
            assert!(because(*reason).len() > 20 && !because(*reason).ends_with('.'), "{reason}");
            assert!(advice(*reason).is_empty() || advice(*reason).ends_with('.'), "{reason}");
        }
        assert_eq!(read("not_asked_yet"), None);
    }
}
