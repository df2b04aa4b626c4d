//! The dry run: detects, asks and decides like a pass, and leaves no trace.
//!
//! Detection runs in a transaction that is rolled back once the facts are read, so that even orphans that do not exist
//! yet are judged. Nothing is leased: workers go on as if nobody looked. It stops before carrying out.

use std::sync::Arc;

use futures_util::StreamExt as _;

use super::job::{self, Job};
use super::room::Room;
use super::{Orders, Parts};
use crate::detect;
use crate::policy::{self, Action};
use crate::provider::AskOutcome;
use crate::report::{Finding, PassReport, UnresolvedTotals};
use crate::store::{Claimed, DbError, Settlement};

/// More orphans than this are not judged in one dry run, so that memory stays flat.
const CASES_MAX: u32 = 10_000;
/// Questions under way at once, over all providers; each has limits of its own besides.
const QUESTIONS_AT_ONCE: usize = 64;

pub(super) async fn run(parts: &Parts, orders: &Orders) -> Result<PassReport, DbError> {
    let store = &parts.store;
    let now = store.now().await?;
    let mut report = PassReport { dry_run: true, started_at: Some(now), ..PassReport::default() };
    let rules = &parts.rules.detect;
    let detection = detect::Detection { store, providers: &parts.providers, rules, since: orders.since, now };
    let scans = detection.scans(&mut report).await?;
    let dating = detect::dating(rules, &parts.providers);
    let is_ending = || orders.stop.requested();
    let preview = store.preview(&scans, rules.chunk, &dating, now, CASES_MAX, is_ending).await?;
    if let Some((items, example)) = &preview.too_old {
        detect::add_failed_backlog(*items, example, &mut report);
    }
    detect::add_lost_outputs(&preview.lost, &mut report);
    detect::add_found(preview.found, &mut report);
    let Claimed { cases, unreadable } = preview.claimed;
    if cases.len() >= CASES_MAX as usize {
        report.add_finding(Finding {
            kind: "dry_run_cut",
            about: format!("{CASES_MAX} orphans"),
            detail: "only the most urgent ones were judged; a real run looks at all of them".to_owned(),
        });
    }
    for each in unreadable {
        report.add_outcome("wait", "unreadable_row");
        report.add_finding(Finding {
            kind: "unreadable_row",
            about: format!("item {}", each.item),
            detail: each.why,
        });
    }
    let jobs = Job::group(cases, &parts.rules.policy, now);
    let room = &Room::alone(QUESTIONS_AT_ONCE, parts.rules.memory);
    let mut asked = futures_util::stream::iter(jobs)
        .map(|job| async move {
            let place = room.answer();
            let answer = match &job.question {
                Some(question) => Some(parts.providers.ask_within(question, Some(&place)).await),
                None => None,
            };
            // Nothing is copied.
            let answer = answer.map(|asked| match asked {
                AskOutcome::Answered(evidence) => AskOutcome::Answered(evidence.without_files()),
                asked @ AskOutcome::NotAsked { .. } => asked,
            });
            (job, answer)
        })
        .buffer_unordered(QUESTIONS_AT_ONCE);
    while let Some((job, answer)) = asked.next().await {
        let evidence = match answer {
            Some(AskOutcome::NotAsked { .. }) => {
                for _ in &job.cases {
                    report.add_outcome("wait", "circuit_open");
                }
                continue;
            }
            Some(AskOutcome::Answered(evidence)) => {
                if let Some(question) = &job.question {
                    report.add_question(&question.provider, evidence.verdict.as_str());
                }
                Some(Arc::new(evidence))
            }
            None => None,
        };
        let now = store.now().await?;
        for case in job.cases {
            let decision = policy::decide(&case.facts, evidence.as_deref(), &parts.rules.policy, now);
            report.add_outcome(decision.action.as_str(), decision.reason.as_str());
            tracing::info!(
                item = %case.facts.orphan.item,
                action = decision.action.as_str(),
                reason = decision.reason.as_str(),
                rule = decision.rule,
                "would settle"
            );
            let settlement = Settlement {
                case,
                decision: decision.clone(),
                evidence: evidence.clone(),
                copied: None,
                look_again: now,
                detail: None,
            };
            // As a run would: what is closed needs nobody.
            if matches!(decision.action, Action::Hold | Action::Wait)
                && let Some(finding) = job::finding(&settlement, &decision)
            {
                report.add_finding(finding);
            }
        }
        if orders.stop.requested() {
            report.stopped_early = true;
            break;
        }
    }
    drop(asked);
    let now = store.now().await?;
    report.finished_at = Some(now);
    report.unresolved = UnresolvedTotals::new(&store.unresolved(now).await?, &store.brake().await?);
    Ok(report)
}
