//! One item made good by hand (P23): a person's refund or recovery, on the way that passes go.
//!
//! Look, ask, judge; then lease, judge again, carry out, settle. The lease keeps passes and other people out meanwhile, and settle
//! proves, as ever, that nothing has changed. So a person and a pass at one item are two workers: one wins, the other sees it
//! and says so. What is refused leaves no trace. Killed halfway, the lease runs out and the next pass does what it always does; a
//! file that was written by then is swept.

use std::sync::Arc;
use std::time::Duration;

use super::job::{Job, Recovery};
use super::leases::{self, InFlight};
use super::room::Room;
use super::{HELD_FOR, LAST_WORD, Parts, Pass};
use crate::brake::BrakeContext;
use crate::charge::ItemId;
use crate::clock::Timestamp;
use crate::detect;
use crate::evidence::Evidence;
use crate::facts::Facts;
use crate::ops::stop::Stop;
use crate::policy::by_hand::{self as policy, ManualRefund};
use crate::policy::{Action, Decision};
use crate::provider::{AskOutcome, Question};
use crate::store::{Case, DbError, LostOutput, Outcome, SettleRules, Stuck, Taken};

/// How long to wait before an item is tried again that somebody has in hand.
const AGAIN_IN: Duration = Duration::from_secs(1);

/// What a person wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// For this item.
    pub item: ItemId,
    /// What is to be done.
    pub deed: Deed,
    /// Their name: kept with the resolution.
    pub by: String,
    /// Their reason: kept with the event.
    pub why: String,
    /// How long to wait for whoever has the item in hand.
    pub patience: Duration,
}

/// What is to be done by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Give the credits back.
    Refund {
        /// Also where the table says otherwise, and whatever the brake holds.
        anyway: bool,
    },
    /// Bring the output home, or put it back where it belongs.
    Recover,
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// Carried out, by this decision.
    Done(Decision),
    /// Held at the last moment: the brake is on, the balance or the room for a refund is gone, the output cannot be put back.
    Held(Decision),
    /// Not done, since the table says something else.
    Refused {
        /// What it says.
        table: Decision,
        /// The provider's word, where it was asked.
        evidence: Option<Arc<Evidence>>,
        /// Whether a person may overrule it, with [`Deed::Refund`]'s `anyway`.
        may_overrule: bool,
    },
    /// It cost nothing, so nothing can be given back (P12).
    CostNothing,
    /// It has been made good, or closed, already: the story tells how.
    Resolved,
    /// It was brought home before, the platform had removed its row, and the row is there again.
    Restored(Box<LostOutput>),
    /// The same, but the row cannot be inserted again, and why.
    NotRestored(String),
    /// Somebody had it in hand all the time, or it kept changing.
    Busy,
    /// The file could not be brought home, and why.
    NotCopied(String),
    /// The database refused to settle it, and why. Nothing was written.
    NotWritten(String),
    /// A row cannot be read, and why.
    Unreadable(String),
}

/// How one try ended.
enum Try {
    Ended(Ended),
    /// Somebody was faster: look again.
    Again,
}

/// Makes one item good by hand, if it is owed.
///
/// # Errors
/// The database cannot be worked with. Nothing is half done.
pub async fn by_hand(parts: &Parts, wanted: &Wanted) -> Result<Ended, DbError> {
    let mut said = None;
    let mut so_far = Duration::ZERO;
    loop {
        if let Try::Ended(ended) = try_once(parts, wanted, &mut said).await? {
            return Ok(ended);
        }
        if so_far >= wanted.patience {
            return Ok(Ended::Busy);
        }
        tokio::time::sleep(AGAIN_IN).await;
        so_far += AGAIN_IN;
    }
}

/// `said`: the provider's word, which is asked for once, however often somebody else is faster, unless it is another job's by now.
async fn try_once(
    parts: &Parts,
    wanted: &Wanted,
    said: &mut Option<(Question, Arc<Evidence>)>,
) -> Result<Try, DbError> {
    let store = &parts.store;
    if wanted.deed == Deed::Recover
        && let Some(lost) = store.lost_output(&wanted.item).await?
    {
        return restore(parts, wanted, lost).await;
    }
    let now = store.now().await?;
    let dating = detect::dating(&parts.rules.detect, &parts.providers);
    let (cases, unreadable) = store.look_at(std::slice::from_ref(&wanted.item), now, &dating).await?;
    if let Some(why) = unreadable.into_iter().next() {
        return Ok(Try::Ended(Ended::Unreadable(why)));
    }
    // One case, so one job.
    let Some((question, seen)) = Job::group(cases, &parts.rules.policy, now).pop().and_then(Job::only) else {
        return Ok(Try::Ended(Ended::Resolved));
    };
    let cost_nothing = seen.facts.record.item.as_ref().is_some_and(|item| item.credits == 0);
    if cost_nothing && wanted.deed != Deed::Recover {
        return Ok(Try::Ended(Ended::CostNothing));
    }
    let evidence = match &question {
        Some(question) => word(parts, question, said).await?,
        None => None,
    };
    // Asked and judged before anything is leased or opened: what is refused leaves no trace.
    if let Err(refused) = judge(parts, wanted.deed, &seen.facts, evidence.as_ref(), store.now().await?) {
        return Ok(Try::Ended(refused));
    }
    let case = match store.take(&wanted.item, parts.rules.lease, &dating).await? {
        Taken::Ours(case) => *case,
        Taken::Unreadable(why) => return Ok(Try::Ended(Ended::Unreadable(why))),
        Taken::Not => return Ok(Try::Again),
    };
    let lease = (case.facts.orphan.id, case.token);
    let same = case.facts.record == seen.facts.record && case.facts.share == seen.facts.share;
    let in_flight = Arc::<InFlight>::default();
    in_flight.lock().insert(lease.0, lease.1);
    let keeper = leases::keep(parts, &in_flight);
    let ended =
        if same { in_hand(parts, wanted, case, question.as_ref(), evidence).await } else { Ok(Try::Again) };
    drop(keeper);
    // Settled, it has none any more, and this does nothing. Should the database be gone, it runs out by itself.
    let released = tokio::time::timeout(LAST_WORD, store.release(&[lease], None)).await;
    if !matches!(released, Ok(Ok(()))) {
        tracing::warn!(item = %wanted.item, "the lease could not be given back; it runs out by itself");
    }
    ended
}

/// Inserts the row of a recovered output again that the platform has removed, if the file is still
/// there.
async fn restore(parts: &Parts, wanted: &Wanted, lost: LostOutput) -> Result<Try, DbError> {
    if let Err(why) = is_restorable(parts, &lost).await {
        return Ok(Try::Ended(Ended::NotRestored(why)));
    }
    let detail = format!("its row was inserted again; by hand, {}: {}", wanted.by, wanted.why);
    Ok(match parts.store.restore_output(&lost, &detail).await {
        Ok(true) => {
            tracing::info!(item = %wanted.item, by = wanted.by, why = wanted.why, "restored by hand");
            Try::Ended(Ended::Restored(Box::new(lost)))
        }
        Ok(false) => Try::Again,
        Err(error) if error.is_about_a_row() || error.may_be_about_a_row() => {
            Try::Ended(Ended::NotWritten(crate::report::chain(&error)))
        }
        Err(error) => return Err(error),
    })
}

/// Whether the row can be inserted again; if not, why.
async fn is_restorable(parts: &Parts, lost: &LostOutput) -> Result<(), String> {
    let Some(uri) = &lost.uri else {
        return Err("makegood only put the platform's own row back and has no file of it".to_owned());
    };
    if lost.has_row {
        return Err(format!(
            "stored_outputs still has a row of `{}`, which is not where the item expects it: correct that row",
            lost.output_id
        ));
    }
    let job = lost.job.as_ref().map(|job| job.job_id.as_str());
    if job.is_none() || lost.recovered_job.as_deref().is_some_and(|recovered| job != Some(recovered)) {
        return Err(
            "it was recovered from another provider job than the platform names for it now".to_owned()
        );
    }
    let size = parts.storage.size_of(uri).await.map_err(|error| {
        format!("whether its file is still there cannot be told: {}", crate::report::chain(&error))
    })?;
    match (size, lost.size_bytes) {
        (None, _) => {
            Err(format!("its file {uri} is not in the storage any more, and nothing else can bring it back"))
        }
        (Some(size), Some(stored)) if u64::try_from(stored) != Ok(size) => {
            Err(format!("its file {uri} has {size} bytes and not the {stored} that were stored"))
        }
        (Some(_), _) => Ok(()),
    }
}

/// What the provider says to this question, by now or before; none: it was not asked.
async fn word(
    parts: &Parts,
    question: &Question,
    said: &mut Option<(Question, Arc<Evidence>)>,
) -> Result<Option<Arc<Evidence>>, DbError> {
    if let Some((asked, evidence)) = said
        && asked == question
    {
        return Ok(Some(Arc::clone(evidence)));
    }
    let AskOutcome::Answered(evidence) = parts.providers.ask(question).await else {
        return Ok(None);
    };
    let evidence = Arc::new(Evidence { asked_at: parts.store.now().await?, ..evidence });
    *said = Some((question.clone(), Arc::clone(&evidence)));
    Ok(Some(evidence))
}

/// What is done while nobody else has the item, and nothing has changed since it was looked at.
async fn in_hand(
    parts: &Parts,
    wanted: &Wanted,
    case: Case,
    question: Option<&Question>,
    evidence: Option<Arc<Evidence>>,
) -> Result<Try, DbError> {
    let now = parts.store.now().await?;
    let decision = match judge(parts, wanted.deed, &case.facts, evidence.as_ref(), now) {
        Ok(decision) => decision,
        Err(refused) => return Ok(Try::Ended(refused)),
    };
    let pass = pass(parts, wanted, now);
    let mut settlement = match decision.action {
        Action::Recover(pick) => {
            let room = Room::alone(1, parts.rules.memory);
            let verdicts = &mut Vec::new();
            let work = Recovery { pass: &pass, room: &room, answer: None, question, verdicts };
            work.bring_home(&case, evidence, decision, pick).await?
        }
        Action::Refund | Action::Relink { .. } | Action::Wait | Action::Close | Action::Hold => {
            pass.settlement(case, decision, evidence, now)
        }
    };
    if wanted.deed == Deed::Recover && !is_recovery(&settlement.decision) {
        // What follows from it is a pass's to decide.
        let why = settlement.detail.unwrap_or_else(|| settlement.decision.reason.to_string());
        return Ok(Try::Ended(Ended::NotCopied(why)));
    }
    settlement.detail = Some(format!("by hand, {}: {}", wanted.by, wanted.why));
    let outcome = parts.store.settle(std::slice::from_ref(&settlement), &pass.settle).await?.remove(0);
    let kept =
        matches!(&outcome, Outcome::Settled(decision) if matches!(decision.action, Action::Recover(_)));
    if !kept && let Some(copied) = &settlement.copied {
        pass.discard(&settlement.case, copied).await;
    }
    Ok(match outcome {
        Outcome::Settled(decision) if decision.action == Action::Hold => Try::Ended(Ended::Held(decision)),
        Outcome::Settled(decision) => {
            tracing::info!(
                item = %wanted.item, by = wanted.by, why = wanted.why,
                action = decision.action.as_str(), reason = decision.reason.as_str(), "settled by hand"
            );
            Try::Ended(Ended::Done(decision))
        }
        Outcome::Changed | Outcome::Lost => Try::Again,
        Outcome::Refused(why) | Outcome::Failed { why, .. } => Try::Ended(Ended::NotWritten(why)),
        Outcome::Busy(locked) => Try::Ended(Ended::NotWritten(format!("{locked}: {}", locked.advice()))),
    })
}

/// What is to be done, or why not.
fn judge(
    parts: &Parts,
    deed: Deed,
    facts: &Facts,
    evidence: Option<&Arc<Evidence>>,
    now: Timestamp,
) -> Result<Decision, Ended> {
    let (answer, limits) = (evidence.map(AsRef::as_ref), &parts.rules.policy);
    let refused = |table, may_overrule| Ended::Refused { table, evidence: evidence.cloned(), may_overrule };
    match deed {
        Deed::Refund { anyway } => match policy::refund(facts, answer, limits, now) {
            ManualRefund::Agreed(decision) => Ok(decision),
            ManualRefund::Against { by_person, .. } if anyway => Ok(by_person),
            ManualRefund::Against { table, .. } => Err(refused(table, true)),
            ManualRefund::Never(table) => Err(refused(table, false)),
        },
        Deed::Recover => {
            let decision = policy::recover(facts, answer, limits, now);
            if is_recovery(&decision) { Ok(decision) } else { Err(refused(decision, false)) }
        }
    }
}

const fn is_recovery(decision: &Decision) -> bool {
    matches!(decision.action, Action::Recover(_) | Action::Relink { .. })
}

/// The rules of a settle by hand: as in a pass, but in a person's name.
fn pass(parts: &Parts, wanted: &Wanted, now: Timestamp) -> Pass {
    Pass {
        failed: std::sync::atomic::AtomicBool::new(false),
        parts: parts.clone(),
        settle: SettleRules {
            brake: BrakeContext {
                limits: parts.rules.brake,
                pass_began: None,
                baseline: Arc::default(),
                overruled: wanted.deed == Deed::Refund { anyway: true },
            },
            dating: detect::dating(&parts.rules.detect, &parts.providers),
            late: parts.rules.late,
            held_for: HELD_FOR,
            not_before: None,
            pass_id: None,
            decided_by: wanted.by.clone(),
            stuck: Stuck::default(),
            // A person waits for the answer, and what is posted is read back in any case.
            cannot_post: None,
        },
        due_by: now,
        deadline: None,
        stop: Stop::new(),
    }
}
