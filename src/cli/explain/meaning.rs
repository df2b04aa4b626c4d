//! The meaning of a reason for people: the cause, and what a person can do about it.

use crate::policy::{Action, Reason};

/// No advice: a person has nothing to do.
const NOTHING: &str = "";

/// The reason with this word in the database.
pub fn read(word: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.as_str() == word)
}

/// The cause of a decision, as a clause after "because".
pub const fn because(reason: Reason) -> &'static str {
    meaning(reason).0
}

/// Advice for an item that waits or is held for this reason; empty: there is nothing to do.
pub const fn advice(reason: Reason) -> &'static str {
    meaning(reason).1
}

/// Cause and advice of each reason.
const fn meaning(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::Delivered => ("its output is stored where it belongs", NOTHING),
        Reason::AlreadyRefunded => (
            "the platform has refunded it itself",
            "Compare the ledger with the charge. Refund what is still owed: `makegood refund --anyway`, or in the ledger.",
        ),
        Reason::Misattributed => ("its output was stored, but linked to the wrong place", NOTHING),
        Reason::DuplicateJob => (
            "another item claims the same output of the same provider job",
            "Find out whose output it is and correct the other item, or refund this one: `makegood refund --anyway`.",
        ),
        Reason::CannotRelink => (
            "its output is stored in the wrong place, and the platform's stored_outputs rejects the relink",
            "Fix what rejects the UPDATE of `stored_outputs` (a trigger, a rule, a view), or relink the output by hand.",
        ),
        Reason::NoProviderJob => ("no provider job is on record: it was never submitted", NOTHING),
        Reason::MaybeNotSubmittedYet => {
            ("no provider job is on record yet, and it may still be submitted", NOTHING)
        }
        Reason::OutputAvailable => ("the provider finished it and still has the file", NOTHING),
        Reason::ServerError => ("the provider's server failed", NOTHING),
        Reason::QueueTimeout => ("it waited too long in the provider's queue", NOTHING),
        Reason::ContentSafety => ("the provider rejected it for its content after the charge", NOTHING),
        Reason::MalformedResponse => ("the provider's answer broke its own protocol", NOTHING),
        Reason::ProviderError => ("the provider says that it failed", NOTHING),
        Reason::CompletedAfterCancel => {
            ("the user cancelled it, the provider completed it all the same, and its files are gone", NOTHING)
        }
        Reason::OutputExpired => ("the provider finished it, but no longer has the file", NOTHING),
        Reason::MissingOutput => ("the provider finished the job without this output", NOTHING),
        Reason::ProviderCancelled => ("it was cancelled at the provider", NOTHING),
        Reason::ReportedFailed => ("the platform has recorded that it failed", NOTHING),
        Reason::MaybeNotVisibleYet => {
            ("the provider does not know the job, which may be too recent to be visible", NOTHING)
        }
        Reason::NeverReturned => ("the provider knows no such job", NOTHING),
        Reason::StillRunning => ("the provider says that it is still queued or running", NOTHING),
        Reason::TimedOut => ("the provider was still working on it at the end of the time allowed", NOTHING),
        Reason::Unreachable => (
            "the provider does not answer",
            "This is usually temporary. If it is not, see the provider's status page.",
        ),
        Reason::RateLimited => (
            "the provider's rate limit rejected the question",
            "This is usually temporary. If it is not, see the provider's status page.",
        ),
        Reason::Unauthorized => (
            "the provider rejected our API key",
            "Fix the API key (`makegood provider list` shows where it is read from).",
        ),
        Reason::Unreadable => (
            "the provider's answer cannot be read",
            "See the answer below and the provider's file (`makegood provider test` reads an answer again).",
        ),
        Reason::UnknownProvider => (
            "there is no provider file of that name",
            "Add a provider file of that name to `providers.dir`, or correct the charge.",
        ),
        Reason::Unconfirmed => ("no answer told its state until the end of the time allowed", NOTHING),
        Reason::RecoveryRetry => (
            "the provider offers the file, but the copy failed",
            "See the last event for the cause. If a rejected host or port is right, add it to `output_hosts` of the provider's file; if it needs the API key, to `key_hosts`. `makegood check` tests the storage.",
        ),
        Reason::RecoveryFailed => {
            ("the file could not be recovered until the end of the time allowed", NOTHING)
        }
        Reason::Brake => (
            "the brake is on: too many refunds came at once",
            "See `makegood brake status`. The refund is posted once the brake is released.",
        ),
        Reason::NoBalance => (
            "its account does not have exactly one balance for each bucket that paid",
            "Correct the platform's `balances`. Then it is refunded.",
        ),
        Reason::NotPosted => (
            "the refund was posted, and the platform's balance or ledger did not change by it",
            "Fix the trigger or view behind `balances` or `ledger_entries` that the finding names. Then it is refunded within an hour.",
        ),
        Reason::CannotPost => (
            "a trial refund on the platform's relations failed, so none is posted",
            "`makegood check` shows the cause. Once it is fixed, the refund is posted within two hours.",
        ),
        Reason::ChargeChanged => (
            "the charge's account or draw has changed since the first refund or recovery for it",
            "Correct the charge, or refund what is owed: `makegood refund --anyway`, or in the ledger.",
        ),
        Reason::DebitsMismatch => (
            "the ledger's debits for the charge differ from its draw",
            "Correct the charge or the ledger. Then it is refunded within an hour.",
        ),
        Reason::MissingHash => (
            "a file of its job is stored without a SHA-256, so which of the provider's files it is cannot be told",
            "Set `sha256` of the job's rows in `stored_outputs`; the next check decides. Or refund it: `makegood refund --anyway`.",
        ),
        Reason::ItemsMismatch => (
            "the charge has no items, or they do not sum up to its draw",
            "Correct the charge's items; makegood does not guess.",
        ),
        Reason::ByHand => ("a person ordered it against the table", NOTHING),
    }
}

/// Why an item waits. After a release of the brake, an item that it held is open until the next
/// pass decides about it.
pub fn because_waiting(state: &str, reason: Reason) -> &'static str {
    match (state, reason) {
        ("open", Reason::Brake) => "the brake held it and was released",
        (_, reason) => because(reason),
    }
}

/// The action of a pass, as a clause after "would".
pub const fn would(action: &Action) -> &'static str {
    match action {
        Action::Refund => "refund it",
        Action::Recover(_) => "recover its output",
        Action::Relink { .. } => "relink its stored output",
        Action::Wait => "wait and ask again",
        Action::Close => "close it without a refund",
        Action::Hold => "hold it for a person",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_word_and_has_a_meaning() {
        for reason in Reason::ALL {
            assert_eq!(read(reason.as_str()), Some(*reason));
            assert!(because(*reason).len() > 20 && !because(*reason).ends_with('.'), "{reason}");
            assert!(advice(*reason).is_empty() || advice(*reason).ends_with('.'), "{reason}");
        }
        assert_eq!(read("not_asked_yet"), None);
    }
}
