#![doc = include_str!("policy.md")]
//!
//! [`decide`] is the table above as a plain function: no clock, no pool, no await. Every choice that moves
//! money is made here or in [`after_recovery`]; what carries a decision out has none left. What is refunded
//! where is `refund`'s, whether the brake is on is `brake`'s.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::charge::{Bucket, Item, WHOLE_CHARGE};
use crate::clock::Timestamp;
use crate::evidence::{Doubt, Evidence, FailureClass, Source, Verdict};
use crate::facts::{Delivery, Facts, Record};

pub mod by_hand;
pub mod late;
mod waits;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

pub use waits::{LONGEST as LONGEST_WAIT, Patience, next_look};

/// Questions that must have been asked before a refund without proof.
pub const QUESTIONS_MIN: i64 = 3;
/// The time that those questions must span.
pub const QUESTIONS_SPAN: Duration = Duration::from_mins(30);

/// What the platform has chosen.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Younger than this, a job that nobody knows may still appear (rules 4 and 11).
    pub unknown_job_grace: Duration,
    /// Refund also where the file could be had (rule 5, `[recovery] prefer`).
    pub prefer_refund: bool,
}

/// What is to be done about an orphan, why, and by which rule of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The rule that matched, 1 to 16; 0 where a person decided against them all.
    pub rule: u8,
}

/// What is to be done about an orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the credits back.
    Refund,
    /// Bring the output home.
    Recover(Pick),
    /// Put a stored output back where it belongs.
    Relink {
        /// The output's id at the platform.
        output_id: String,
    },
    /// Look again later.
    Wait,
    /// Nothing is owed.
    Close,
    /// A person has to look.
    Hold,
}

/// Which of the offered files is the item's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// This one of [`Evidence::outputs`].
    Offer(usize),
    /// The nth of those offered that is not stored for the job yet: the provider does not say which is which.
    Unclaimed(usize),
}

impl Action {
    /// As the database, the logs and the metrics spell it.
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

/// Spells an enum once, for code, database, logs and metrics.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a decision was taken. Spelled alike in code, database, logs and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* #[serde(rename = $word)] $name,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As the database, the logs and the metrics spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

reasons! {
    /// The output is where it belongs.
    Delivered = "delivered",
    /// The platform has refunded it.
    AlreadyRefunded = "already_refunded",
    /// The output hung on another item, or on none.
    Misattributed = "misattributed",
    /// A file of its job is stored without a SHA-256, so which of those offered it is cannot be
    /// told.
    MissingHash = "missing_hash",
    /// Two items claim one output of one job.
    DuplicateJob = "duplicate_job",
    /// The platform does not let its output be put back.
    CannotRelink = "cannot_relink",
    /// It was never submitted (P02).
    NoProviderJob = "no_provider_job",
    /// It may be about to be submitted.
    MaybeNotSubmittedYet = "maybe_not_submitted_yet",
    /// The provider offers the file.
    OutputAvailable = "output_available",
    /// The model's server broke.
    ServerError = "server_error",
    /// It waited too long at the provider.
    QueueTimeout = "queue_timeout",
    /// It was refused for its content after the charge.
    ContentSafety = "content_safety",
    /// The provider answered its own protocol wrongly.
    MalformedResponse = "malformed_response",
    /// It failed, and the provider does not say why.
    ProviderError = "provider_error",
    /// The user cancelled, the provider completed it all the same, the files are gone (P11).
    CompletedAfterCancel = "completed_after_cancel",
    /// The provider has dropped the file (P18).
    OutputExpired = "output_expired",
    /// The job succeeded without this output.
    MissingOutput = "missing_output",
    /// It was cancelled at the provider.
    ProviderCancelled = "provider_cancelled",
    /// The platform recorded a failure (P19).
    ReportedFailed = "reported_failed",
    /// The provider may not show the job yet.
    MaybeNotVisibleYet = "maybe_not_visible_yet",
    /// The provider knows no such job (P17).
    NeverReturned = "never_returned",
    /// It is queued or running.
    StillRunning = "still_running",
    /// It was still queued or running at the end.
    TimedOut = "timed_out",
    /// No answer.
    Unreachable = "unreachable",
    /// Asked too often.
    RateLimited = "rate_limited",
    /// Our key was refused.
    Unauthorized = "unauthorized",
    /// No rule can read the answer.
    Unreadable = "unreadable",
    /// There is no file for the provider.
    UnknownProvider = "unknown_provider",
    /// Nothing could be told until the end.
    Unconfirmed = "unconfirmed",
    /// The copy failed and is tried again.
    RecoveryRetry = "recovery_retry",
    /// The copy failed until the end.
    RecoveryFailed = "recovery_failed",
    /// The brake is on.
    Brake = "brake",
    /// The balance row is missing or there are several.
    NoBalance = "no_balance",
    /// The refund was posted, and the platform's balance or ledger did not show it.
    NotPosted = "not_posted",
    /// A trial found that no refund can be posted: it was not tried.
    CannotPost = "cannot_post",
    /// The charge names another account or another draw than when something was first made good for it.
    ChargeChanged = "charge_changed",
    /// What the ledger says was taken for the charge does not add up to what was drawn.
    DebitsMismatch = "debits_mismatch",
    /// The charge has no items, or they do not add up to what was drawn.
    ItemsMismatch = "items_mismatch",
    /// A person decided so, against the table (P23).
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

/// The head of `policy.md`; the table below it is printed by a test.
#[cfg(test)]
const LIMITS_DOC: &str = "\
What is owed for one item: the first row that matches, except for rule 16: its rows on items that do not add up come right after
rule 3, and its others hold what a row above would refund. This page is printed from `decide` by a test.

- `refund_by` is 2 hours before the 24 hours end; for an orphan that was found late, 2 hours after it was found.
- \"Asked enough\": a refund without proof needs at least 3 questions over at least 30 minutes.
- A job that was in flight in two passes that died is retried alone. A try that ends the pass counts
  as a question. After `refund_by`, asked enough, it is decided as under rules 10 and 13 without
  another question.
- Nothing is given back for an item that cost nothing: where it would be refunded, it is closed.
- `[recovery] prefer = \"refund\"` turns the recovery of rule 5 into a refund.
- A job's files without an index that are fewer than its items: what is stored already (by hash) is nobody's, the
  others go to the items that still wait, in order; the rest of the items are `missing_output`. If one is stored
  without a SHA-256 in hexadecimal, nobody can tell which of the files it is: the items are held (`missing_hash`).
- What a person has refunded against this table (`makegood refund --anyway`) bears rule 0 and the reason `by_hand`.
";

const fn rule(rule: u8, action: Action, reason: Reason) -> Decision {
    Decision { action, reason, rule }
}

/// Whether the provider's word would change anything: the rules that come before it may settle the case alone.
pub fn needs_evidence(facts: &Facts, limits: &Limits, now: Timestamp) -> bool {
    decide_from_record(facts, limits, now).is_none()
}

/// The table: what is owed for one item, given what is known at `now`.
///
/// `evidence` is none where there was nobody to ask; rules 1 to 4 need none.
pub fn decide(facts: &Facts, evidence: Option<&Evidence>, limits: &Limits, now: Timestamp) -> Decision {
    let decision = decide_from_record(facts, limits, now).unwrap_or_else(|| match evidence {
        Some(evidence) => decide_from_evidence(facts, evidence, limits, now),
        // Nobody was asked although somebody should have been: that is "could not tell" and counts as no question.
        None => rule(13, Action::Wait, Reason::Unreachable),
    });
    payable(facts, decision)
}

/// The decision about a job that has ended every pass that asked about it, once its time is up and
/// it was asked often enough: as if the last answer had told nothing (rules 10 and 13). None: it is
/// to be asked.
///
/// The three questions are counted in `facts`: each was asked by a pass that died before it could
/// record the answer.
pub fn without_asking(facts: &Facts, limits: &Limits, now: Timestamp) -> Option<Decision> {
    if !needs_evidence(facts, limits, now)
        || facts.orphan.questions < QUESTIONS_MIN
        || !doubt_is_over(facts, now)
    {
        return None;
    }
    let nothing = Evidence::could_not_tell(Doubt::Unreadable, "", now);
    Some(decide(facts, Some(&nothing), limits, now))
}

/// Rule 16 for a refund that the brake does not let through; settle asks the brake while it holds its lock.
pub const fn braked() -> Decision {
    rule(16, Action::Hold, Reason::Brake)
}

/// Rule 16 for a refund whose balance row went missing, or was doubled, between the decision and the posting.
pub const fn without_balance() -> Decision {
    rule(16, Action::Hold, Reason::NoBalance)
}

/// Rule 16 for a refund that does not show in the balance or the ledger after it was posted: nothing of it was kept.
pub const fn not_posted() -> Decision {
    rule(16, Action::Hold, Reason::NotPosted)
}

/// Rule 16 for a refund while a trial has found that none can be posted, whichever account it is
/// for.
pub const fn cannot_post() -> Decision {
    rule(16, Action::Hold, Reason::CannotPost)
}

/// Rule 16 for a refund of a charge whose account or draw has changed since something was first made good for it.
pub const fn charge_changed() -> Decision {
    rule(16, Action::Hold, Reason::ChargeChanged)
}

/// Rule 2 for a refund that the platform's own refunds of the charge leave no room for: a person has to look.
pub const fn without_room() -> Decision {
    rule(2, Action::Hold, Reason::AlreadyRefunded)
}

/// Rule 3 for an output that the platform's relation does not let be put back: it is not lost, so nothing is refunded.
pub const fn cannot_relink() -> Decision {
    rule(3, Action::Hold, Reason::CannotRelink)
}

/// Rules 14 and 15: what is owed when the copy failed. `gone`: the provider says that the file is no more.
///
/// `completed`: the provider says that the job succeeded. Then a cancelled run stays paid, as under rule 7 (P11).
pub fn after_recovery(facts: &Facts, completed: bool, gone: bool, now: Timestamp) -> Decision {
    let cancelled = facts.record.charge.cancelled_at.is_some();
    let decision = if gone && completed && cancelled {
        rule(14, Action::Close, Reason::CompletedAfterCancel)
    } else if gone {
        rule(14, Action::Refund, Reason::OutputExpired)
    } else if doubt_is_over(facts, now) {
        rule(15, Action::Refund, Reason::RecoveryFailed)
    } else {
        rule(15, Action::Wait, Reason::RecoveryRetry)
    };
    payable(facts, decision)
}

/// A refund that can be paid: nothing is given for an item that cost nothing (P12), and rule 16 holds what has no
/// one balance to go to.
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

/// Rules 1 to 4, and the charges that cannot be judged at all.
fn decide_from_record(facts: &Facts, limits: &Limits, now: Timestamp) -> Option<Decision> {
    let record = &facts.record;
    match &record.delivery {
        Delivery::Delivered { .. } => return Some(rule(1, Action::Close, Reason::Delivered)),
        // The platform has removed the row of what was delivered (P10). A misplaced row is put back
        // below.
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
    // Two claims to one output, stored or not: nothing is fetched or refunded for either.
    if record.rival {
        return Some(rule(3, Action::Hold, Reason::DuplicateJob));
    }
    let Some(item) = judgeable(record) else {
        let its_items_came = facts.orphan.item.output_index == WHOLE_CHARGE && adds_up(record);
        let action = if its_items_came { Action::Close } else { Action::Hold };
        return Some(rule(16, action, Reason::ItemsMismatch));
    };
    if item.job.is_none() {
        let waited = now.since(record.charge.charged_at) >= limits.unknown_job_grace;
        return Some(if item.failed_at.is_some() || waited {
            rule(4, Action::Refund, Reason::NoProviderJob)
        } else {
            rule(4, Action::Wait, Reason::MaybeNotSubmittedYet)
        });
    }
    None
}

/// Rules 5 to 13.
fn decide_from_evidence(facts: &Facts, evidence: &Evidence, limits: &Limits, now: Timestamp) -> Decision {
    let reported_failed = facts.record.item.as_ref().is_some_and(|item| item.failed_at.is_some());
    let offered = offered(facts, evidence);
    let ended = match evidence.verdict {
        Verdict::Succeeded | Verdict::Failed | Verdict::Cancelled => true,
        Verdict::Queued | Verdict::Running | Verdict::UnknownJob | Verdict::CouldNotTell(_) => false,
    };
    if let Offered::File(pick) = offered
        && (ended || now >= facts.orphan.refund_by)
    {
        let action = if limits.prefer_refund { Action::Refund } else { Action::Recover(pick) };
        return rule(5, action, Reason::OutputAvailable);
    }
    // Also where another rule would refund: what is paid for may be stored already.
    let would_refund = reported_failed || evidence.verdict == Verdict::UnknownJob;
    if matches!(offered, Offered::Untold) && (ended || would_refund || now >= facts.orphan.refund_by) {
        return rule(5, Action::Hold, Reason::MissingHash);
    }
    // Of an answer that nobody could make sense of, no part proves a failure either.
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
            if now.since(facts.record.charge.charged_at) < limits.unknown_job_grace {
                rule(11, Action::Wait, Reason::MaybeNotVisibleYet)
            } else {
                rule(11, Action::Refund, Reason::NeverReturned)
            }
        }
        Verdict::Queued | Verdict::Running => {
            if doubt_is_over(facts, now) {
                rule(12, Action::Refund, Reason::TimedOut)
            } else {
                rule(12, Action::Wait, Reason::StillRunning)
            }
        }
        Verdict::CouldNotTell(doubt) => {
            if doubt_is_over(facts, now) {
                rule(13, Action::Refund, Reason::Unconfirmed)
            } else {
                rule(13, Action::Wait, doubt.into())
            }
        }
    }
}

/// Past `refund_by`, and asked often and long enough: a first look after an outage of ours refunds nothing unasked.
/// The question that was just answered counts.
fn doubt_is_over(facts: &Facts, now: Timestamp) -> bool {
    let orphan = &facts.orphan;
    let asked_long_enough = orphan.first_asked_at.is_some_and(|first| now.since(first) >= QUESTIONS_SPAN);
    now >= orphan.refund_by && orphan.questions + 1 >= QUESTIONS_MIN && asked_long_enough
}

/// What the answer says about this item's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    File(Pick),
    Failed(FailureClass),
    /// Files without an index, one of which may be stored already.
    Untold,
    Nothing,
}

fn offered(facts: &Facts, evidence: &Evidence) -> Offered {
    let Some(job) = facts.record.item.as_ref().and_then(|item| item.job.as_ref()) else {
        return Offered::Nothing;
    };
    let as_offered = |nth: usize| match &evidence.outputs[nth].source {
        Source::Url { .. } | Source::Inline { .. } => Offered::File(Pick::Offer(nth)),
        Source::Failed { class, .. } => Offered::Failed(*class),
    };
    // Named: the provider says which is which.
    if let Some(nth) = evidence.outputs.iter().position(|offer| offer.index == Some(job.output_index)) {
        return as_offered(nth);
    }
    let unnamed = || evidence.outputs.iter().enumerate().filter(|(_, offer)| offer.index.is_none());
    let files: Vec<usize> = unnamed()
        .filter(|(_, offer)| !matches!(offer.source, Source::Failed { .. }))
        .map(|(nth, _)| nth)
        .collect();
    // Unnamed and complete: in order.
    let share = &facts.share;
    if files.len() >= share.items {
        return files.get(share.rank).map_or(Offered::Nothing, |nth| Offered::File(Pick::Offer(*nth)));
    }
    // A job at work may still add to its list.
    if matches!(evidence.verdict, Verdict::Queued | Verdict::Running) {
        return Offered::Nothing;
    }
    // A stored file without a hash may be any of those that are offered. Copying one could bring
    // the same file home twice; refunding could pay for one that is there.
    if share.unhashed > 0 && !files.is_empty() {
        return Offered::Untold;
    }
    // Fewer than the items: what is stored already is nobody's, the rest goes to open items in order.
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

/// The item, if the charge can be judged: it has items, none below zero, and they add up to what was drawn.
fn judgeable(record: &Record) -> Option<&Item> {
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

/// Rule 16: every bucket that the charge drew from has exactly one balance row. Whether the ledger
/// says that as much was taken as the charge says. A ledger that has no debits of the charge says
/// nothing.
fn debits_add_up(record: &Record) -> bool {
    record.debits.is_none_or(|debits| debits == -record.charge.drawn.total())
}

fn balances_are_clear(record: &Record) -> bool {
    let rows = |bucket| match bucket {
        Bucket::Subscription => record.balance_rows.subscription,
        Bucket::Wallet => record.balance_rows.wallet,
    };
    Bucket::ALL.into_iter().all(|bucket| record.charge.drawn.of(bucket) <= 0 || rows(bucket) == 1)
}
