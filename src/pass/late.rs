//! After everything that is due: what has become known about refunds since.
//!
//! Two things, both for whoever pays the providers and neither for the customer, from whom nothing is taken back. Refunds
//! are looked at three times: has their output been stored after all (P20)? And where a refund was given without proof,
//! the provider is asked again: one question a job, under the provider's manners, never urgent.
//!
//! Promise: it never delays an orphan. It begins when the lanes have ended, asks a bounded number of questions of each
//! provider, and gives back what is not answered within its time. A crash leaves leases that run out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use super::share::Share;
use super::{Pass, Progress, Reporter};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::evidence::{Evidence, Verdict};
use crate::policy::late::{self, End, LateStep, LateVerdict, Refunded};
use crate::provider::{AskOutcome, Question};
use crate::report::{Finding, PassReport};
use crate::store::{
    Cursor, DbError, LateCase, LateNext, LateSettlement, LateSuccesses, Pace, RefundPosition,
};

/// When refunds are looked at for an output that was stored since, counted from the refund.
const LOOKS: [(&str, Duration); 3] = [
    ("stored_late_soon", Duration::from_mins(15)),
    ("stored_late_six_hours", Duration::from_hours(6)),
    ("stored_late_a_day", Duration::from_hours(24)),
];
/// A look begins so much before where the last one ended: a settle may take a while to commit.
const OVERLAP: Duration = Duration::from_mins(10);
/// How often a look is repeated.
const LOOK_EVERY: Duration = Duration::from_mins(5);
/// Refunds that one statement looks at.
const REFUNDS_AT_ONCE: u32 = 1_000;
/// Refunds that one pass looks at, for each of the three looks.
const REFUNDS_AT_MOST: u64 = 5_000;
/// Where the first look begins.
const FIRST_LOOK: Duration = Duration::from_hours(48);
/// The longest that late questions may keep a pass from ending.
pub(super) const BUDGET: Duration = Duration::from_secs(20);
/// Questions under way at once, for each provider; its own limits apply besides.
const AT_ONCE: usize = 16;
/// When a question is tried again that was not answered within the budget.
const AFTER_BUDGET: Duration = Duration::from_mins(5);

/// After so many passes in a row that died while they asked a question, it is not asked again:
/// nobody waits for its answer.
const TOO_MANY_DEATHS: i64 = 2;

/// What was learned from one provider.
#[derive(Default)]
struct Learned {
    verdicts: Vec<Verdict>,
    successes: LateSuccesses,
}

/// Looks and asks; the report counts what was new.
pub(super) async fn run(
    pass: &Arc<Pass>,
    pass_id: i64,
    report: &mut PassReport,
    progress: &Reporter,
) -> Result<(), DbError> {
    let now = pass.parts.store.now().await?;
    look(pass, pass_id, now, progress, report).await?;
    let until = Instant::now() + pass.parts.rules.late_budget;
    let until = pass.deadline.map_or(until, |deadline| until.min(deadline));
    let mut turns = JoinSet::new();
    for provider in pass.parts.store.late_providers(now).await? {
        let pass = Arc::clone(pass);
        turns.spawn(async move { (turn(&pass, pass_id, &provider, until).await, provider) });
    }
    let mut failed = None;
    while let Some(ended) = turns.join_next().await {
        progress(Progress::Worked);
        match ended {
            Ok((Ok(learned), provider)) => {
                for verdict in &learned.verdicts {
                    report.add_question(&provider, verdict.as_str());
                }
                report.asked_again += learned.verdicts.len() as u64;
                count(report, learned.successes);
            }
            Ok((Err(error), _)) => failed = Some(error),
            // Never by design, as in the lanes.
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn count(report: &mut PassReport, new: LateSuccesses) {
    report.late_successes += new.never_stored;
    report.stored_late += new.stored_late;
}

/// Looks at refunds three times each for an output that was stored since.
///
/// Nobody waits for it, so a look is repeated only every `LOOK_EVERY`, and one pass looks at `REFUNDS_AT_MOST` refunds for each:
/// after a night of many refunds the next passes share them.
async fn look(
    pass: &Pass,
    pass_id: i64,
    now: Timestamp,
    progress: &Reporter,
    report: &mut PassReport,
) -> Result<(), DbError> {
    let store = &pass.parts.store;
    let cursors = store.cursors().await?;
    for (name, age) in LOOKS {
        let until = now - age;
        let saved = cursors.cursor(name).filter(|saved| saved.position <= now);
        if saved.is_some_and(|saved| !is_look_due(saved, age, now)) {
            continue;
        }
        let after = saved.map_or(now - FIRST_LOOK, |saved| saved.position);
        let mut from = (after < until).then(|| RefundPosition::before(after));
        let mut looked_at = 0;
        let mut pace = Pace::new(REFUNDS_AT_ONCE);
        while let Some(position) = from.filter(|_| looked_at < REFUNDS_AT_MOST && !pass.is_ending()) {
            let looked = store.look_for_stored_late(&position, until, &mut pace, Some(pass_id)).await?;
            count(report, looked.successes);
            if let Some((item, why)) = looked.unreadable {
                let detail = format!("{why}; whether its output was stored after the refund is not known");
                report.add_finding(Finding { kind: "unreadable_row", about: format!("item {item}"), detail });
            }
            looked_at += looked.looked_at;
            let up_to = looked.next.as_ref().map_or(until, |next| next.at).min(until - OVERLAP);
            if up_to > after || looked.next.is_none() {
                store.advance_cursor(name, up_to, now).await?;
            }
            progress(Progress::Worked);
            from = looked.next;
        }
    }
    Ok(())
}

/// Whether a look is repeated: for what was committed late, or because the last one did not get to its end.
fn is_look_due(saved: Cursor, age: Duration, now: Timestamp) -> bool {
    let was_stopped = saved.position < saved.saved_at - age - OVERLAP;
    was_stopped || saved.saved_at > now + MAX_CLOCK_SKEW || now.since(saved.saved_at) >= LOOK_EVERY
}

/// One provider's turn: claims, asks one question a job, and settles what was answered in time.
async fn turn(pass: &Pass, pass_id: i64, provider: &str, until: Instant) -> Result<Learned, DbError> {
    let mut learned = Learned::default();
    if pass.is_ending() {
        return Ok(learned);
    }
    let store = &pass.parts.store;
    let claimed = store.claim_late(provider, pass.parts.rules.lease, pass.parts.rules.late_questions).await?;
    if claimed.unreadable > 0 {
        tracing::warn!(
            provider,
            items = claimed.unreadable,
            "the rows of refunded items cannot be read any more: they are not asked about"
        );
    }
    let now = store.now().await?;
    let times = pass.settle.late;
    let (mut settled, jobs) = sort(claimed.cases, times, now);
    let mut open: BTreeMap<usize, Vec<LateCase>> = BTreeMap::new();
    let mut questions = Vec::new();
    for (nth, (question, cases)) in jobs.into_iter().enumerate() {
        questions.push((nth, question));
        open.insert(nth, cases);
    }
    // Its tasks are dropped before it is given back.
    let share = if questions.is_empty() { None } else { Share::take(pass, provider, Some(until)).await? };
    if share.is_none() {
        // Nothing to ask, or no slot in time: then all is given back below.
        questions.clear();
    }
    let ask =
        |(nth, question): (usize, Question)| async move { (nth, pass.parts.providers.ask(&question).await) };
    let mut answers = futures_util::stream::iter(questions).map(ask).buffer_unordered(AT_ONCE);
    loop {
        let (nth, asked) = tokio::select! {
            answer = answers.next() => match answer {
                Some(answer) => answer,
                None => break,
            },
            () = tokio::time::sleep_until(until.into()) => break,
            () = pass.stop.wait() => break,
        };
        let cases = open.remove(&nth).unwrap_or_default();
        let now = store.now().await?;
        match asked {
            AskOutcome::Answered(evidence) => {
                learned.verdicts.push(evidence.verdict);
                settled.extend(answered(cases, Evidence { asked_at: now, ..evidence }, times));
            }
            AskOutcome::NotAsked { retry_in } => settled.extend(cases.into_iter().map(|each| {
                let next = late::after_not_asked(each.refunded, times, retry_in, now);
                not_asked(each, &next)
            })),
        }
    }
    drop(answers);
    if let Some(share) = share {
        share.give_back().await;
    }
    let again_at = store.now().await? + AFTER_BUDGET;
    for each in open.into_values().flatten() {
        settled.push(settlement(each, LateNext::GiveBack(Some(again_at))));
    }
    learned.successes = store.settle_late(&settled, Some(pass_id)).await?;
    Ok(learned)
}

type Jobs = Vec<(Question, Vec<LateCase>)>;

/// What can be settled without a question, and one question for each job that has one due.
fn sort(cases: Vec<LateCase>, times: late::LateTimes, now: Timestamp) -> (Vec<LateSettlement>, Jobs) {
    let mut settled = Vec::new();
    let mut jobs: BTreeMap<(String, String), (bool, Vec<LateCase>)> = BTreeMap::new();
    for each in cases {
        let job = each.case.facts.record.item.as_ref().and_then(|item| item.job.clone());
        if each.deaths >= TOO_MANY_DEATHS {
            tracing::warn!(
                item = %each.case.facts.orphan.item,
                "it is not asked about again after its refund: {} passes died while they did",
                each.deaths
            );
            settled.push(settlement(each, LateNext::End(End::AskedEnough)));
            continue;
        }
        match (late::next_step(&each.case.facts, each.refunded, times, now), job) {
            (LateStep::Stored { output_id }, _) => settled.push(LateSettlement {
                stored: Some(output_id),
                ..settlement(each, LateNext::End(End::Stored))
            }),
            (LateStep::End(end), _) => settled.push(settlement(each, LateNext::End(end))),
            // An answer for others of its job serves this one too.
            (step @ (LateStep::Ask | LateStep::NotYet(_)), Some(job)) => {
                let group = jobs.entry((job.provider, job.job_id)).or_default();
                group.0 |= step == LateStep::Ask;
                group.1.push(each);
            }
            (LateStep::NotYet(at), None) => settled.push(settlement(each, LateNext::At(at))),
            // Without a job nothing is ever to be asked.
            (LateStep::Ask, None) => settled.push(settlement(each, LateNext::End(End::AskedEnough))),
        }
    }
    let mut questions = Vec::new();
    for ((provider, job_id), (due, mut cases)) in jobs {
        if !due {
            for each in cases {
                let next = late::after_doubt(each.refunded, times);
                settled.push(not_asked(each, &next));
            }
            continue;
        }
        // A job's files without an index that are fewer than its items go to these in order.
        cases.sort_by_key(|each| each.case.facts.share.rank);
        for (nth, each) in cases.iter_mut().enumerate() {
            each.case.facts.share.open_rank += nth;
        }
        let facts = &cases[0].case.facts;
        let (model, items) = (facts.record.charge.model.clone(), facts.share.items);
        questions.push((Question { provider, job_id, model, items, urgent: false }, cases));
    }
    (settled, questions)
}

/// What an answer means for each refunded item of its job.
fn answered(cases: Vec<LateCase>, evidence: Evidence, times: late::LateTimes) -> Vec<LateSettlement> {
    let evidence = Arc::new(evidence);
    let meant = cases.into_iter().map(|each| {
        let next = match late::verdict(&each.case.facts, &evidence) {
            LateVerdict::Succeeded => LateStep::End(End::Succeeded),
            LateVerdict::DidNot => LateStep::End(End::DidNot),
            LateVerdict::Open => {
                late::after_doubt(Refunded { last_asked_at: Some(evidence.asked_at), ..each.refunded }, times)
            }
        };
        LateSettlement { evidence: Some(Arc::clone(&evidence)), ..not_asked(each, &next) }
    });
    meant.collect()
}

fn not_asked(each: LateCase, next: &LateStep) -> LateSettlement {
    let next = match next {
        LateStep::NotYet(at) => LateNext::At(*at),
        LateStep::End(end) => LateNext::End(*end),
        LateStep::Ask | LateStep::Stored { .. } => LateNext::GiveBack(None),
    };
    settlement(each, next)
}

fn settlement(late: LateCase, next: LateNext) -> LateSettlement {
    LateSettlement { late, evidence: None, stored: None, next }
}
