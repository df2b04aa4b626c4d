//! [`Reason`]: why a decision was taken.
//!
//! This is the only list of reasons. The database, the logs, the metrics and `policy.md` use the
//! words that stand here, so a renamed word needs a migration.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evidence::{Doubt, FailureClass};

/// Writes the enum, its list of all variants and its words from one list.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a decision was taken. The word is the same in the database, logs and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* #[serde(rename = $word)] $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word in the database, logs and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

reasons! {
    /// The output is stored where it belongs.
    Delivered = "delivered",
    /// The platform has refunded the item itself.
    AlreadyRefunded = "already_refunded",
    /// The output was linked to another item, or to none.
    Misattributed = "misattributed",
    /// A file of the job is stored without a SHA-256, so makegood cannot tell which of the offered
    /// files it is.
    MissingHash = "missing_hash",
    /// Two items claim the same output of the same job.
    DuplicateJob = "duplicate_job",
    /// The platform's relation does not let the output be relinked.
    CannotRelink = "cannot_relink",
    /// No provider job is on record: the run was never submitted. P02 (provider-side failures)
    /// covers it.
    NoProviderJob = "no_provider_job",
    /// No provider job is on record yet; the run may still be submitted.
    MaybeNotSubmittedYet = "maybe_not_submitted_yet",
    /// The provider offers the file.
    OutputAvailable = "output_available",
    /// The model's server failed.
    ServerError = "server_error",
    /// The job waited too long in the provider's queue.
    QueueTimeout = "queue_timeout",
    /// The provider rejected the content after the charge.
    ContentSafety = "content_safety",
    /// The provider's answer broke its own protocol.
    MalformedResponse = "malformed_response",
    /// The job failed, and the provider does not say why.
    ProviderError = "provider_error",
    /// The user cancelled the run, the provider completed it, and its files are gone: it stays paid
    /// (P11).
    CompletedAfterCancel = "completed_after_cancel",
    /// The provider no longer keeps the file. P18 (files are kept for a limited time).
    OutputExpired = "output_expired",
    /// The job succeeded without this output.
    MissingOutput = "missing_output",
    /// The job was cancelled at the provider.
    ProviderCancelled = "provider_cancelled",
    /// The platform recorded a failure. P19 (refunded within a minute or two).
    ReportedFailed = "reported_failed",
    /// The provider knows no such job, but may not show it yet.
    MaybeNotVisibleYet = "maybe_not_visible_yet",
    /// The provider knows no such job. P17 (never returned).
    NeverReturned = "never_returned",
    /// The job is queued or running.
    StillRunning = "still_running",
    /// The job was still queued or running at `refund_by`.
    TimedOut = "timed_out",
    /// The provider did not answer.
    Unreachable = "unreachable",
    /// The provider's rate limit rejected the question.
    RateLimited = "rate_limited",
    /// The provider rejected our API key.
    Unauthorized = "unauthorized",
    /// The provider file's filter cannot read the answer.
    Unreadable = "unreadable",
    /// There is no provider file of that name.
    UnknownProvider = "unknown_provider",
    /// Until `refund_by`, no answer told the job's state.
    Unconfirmed = "unconfirmed",
    /// The copy of the file failed and will be retried.
    RecoveryRetry = "recovery_retry",
    /// The copy of the file failed until `refund_by`.
    RecoveryFailed = "recovery_failed",
    /// The brake holds the refund.
    Brake = "brake",
    /// A balance row is missing, or there are several.
    NoBalance = "no_balance",
    /// The refund was posted, and the platform's balance or ledger did not change by it.
    NotPosted = "not_posted",
    /// A trial found that no refund can be posted, so none was attempted.
    CannotPost = "cannot_post",
    /// The charge's account or draw has changed since the first refund or recovery for it.
    ChargeChanged = "charge_changed",
    /// The ledger's debits for the charge differ from its draw.
    DebitsMismatch = "debits_mismatch",
    /// The charge has no items, or their credits do not sum up to its draw.
    ItemsMismatch = "items_mismatch",
    /// A person ordered it against the table. P23 (support can refund by hand).
    ByHand = "by_hand",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<FailureClass> for Reason {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::ServerError => Self::ServerError,
            FailureClass::QueueTimeout => Self::QueueTimeout,
            FailureClass::ContentSafety => Self::ContentSafety,
            FailureClass::MalformedResponse => Self::MalformedResponse,
            FailureClass::ProviderError => Self::ProviderError,
        }
    }
}

impl From<Doubt> for Reason {
    fn from(doubt: Doubt) -> Self {
        match doubt {
            Doubt::Unreachable => Self::Unreachable,
            Doubt::RateLimited => Self::RateLimited,
            Doubt::Unauthorized => Self::Unauthorized,
            Doubt::Unreadable => Self::Unreadable,
            Doubt::UnknownProvider => Self::UnknownProvider,
        }
    }
}
