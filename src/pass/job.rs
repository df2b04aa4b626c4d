//! One provider job: one question, one decision for each item that hangs on it, and its files brought home.
//!
//! No transaction is open here. What comes out is settled by the lane; dropped halfway, nothing was done but
//! perhaps an object written that no row names, which was noted before (`journal`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Pass;
use super::journal::LeaseUploadLog;
use super::room::{AnswerPlace, NoMore, Room};
use crate::clock::Timestamp;
use crate::egress::Hosts;
use crate::evidence::{Evidence, Source, Verdict};
use crate::policy::{self, Action, Decision, Pick, Reason, WaitBounds};
use crate::provider::{AnswerMemory, AskOutcome, Question};
use crate::recovery::{CopiedFile, CopyError, CopyRequest, ObjectKey, UploadLog};
use crate::report::Finding;
use crate::store::{Case, DbError, Settlement};

/// How long a copy at work may go on once the process was asked to stop.
const LAST_CALL: Duration = Duration::from_secs(20);

/// The claimed items of one provider job, or one item that needs no question.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) question: Option<Question>,
    pub(super) cases: Vec<Case>,
    /// It was in flight in two passes that died, and is retried alone.
    pub(super) is_suspect: bool,
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Done {
    /// Decided and, as far as it needs no transaction, carried out.
    Decided {
        settlements: Vec<Settlement>,
        /// What each question was answered with.
        verdicts: Vec<Verdict>,
    },
    /// The provider is left alone for now.
    NotAsked { cases: Vec<Case>, retry_in: Duration },
    /// The pass is ending.
    Stopped { cases: Vec<Case> },
}

impl Job {
    /// Sorts cases into jobs: one question a job, however many items hang on it.
    pub(super) fn group(cases: Vec<Case>, limits: &policy::PolicyOptions, now: Timestamp) -> Vec<Self> {
        let mut jobs = Vec::new();
        let mut by_key: BTreeMap<(String, String), usize> = BTreeMap::new();
        for case in cases {
            let job = case.facts.record.item.as_ref().and_then(|item| item.job.clone());
            let Some(job) = job.filter(|_| policy::needs_evidence(&case.facts, limits, now)) else {
                jobs.push(Self { question: None, cases: vec![case], is_suspect: false });
                continue;
            };
            let urgent = now >= case.facts.orphan.refund_by;
            let question = Question {
                provider: job.provider.clone(),
                job_id: job.job_id.clone(),
                model: case.facts.record.charge.model.clone(),
                items: case.facts.share.items,
                urgent,
            };
            let nth = *by_key.entry((job.provider, job.job_id)).or_insert_with(|| {
                jobs.push(Self { question: Some(question), cases: Vec::new(), is_suspect: false });
                jobs.len() - 1
            });
            if let Some(question) = &mut jobs[nth].question {
                question.urgent |= urgent;
            }
            jobs[nth].cases.push(case);
        }
        jobs
    }

    /// The one item of a job that has only one, to be asked about urgently: a person waits.
    pub(super) fn only(self) -> Option<(Option<Question>, Case)> {
        let question = self.question.map(|question| Question { urgent: true, ..question });
        let [case] = <[Case; 1]>::try_from(self.cases).ok()?;
        Some((question, case))
    }

    /// Asks, decides and carries out.
    pub(super) async fn run(self, pass: &Pass, room: &Room) -> Done {
        let Self { question, cases, is_suspect } = self;
        if pass.is_ending() {
            return Done::Stopped { cases };
        }
        if is_suspect && question.is_some() {
            match pass.parts.store.now().await {
                Err(_) => return Done::Stopped { cases },
                Ok(now) if is_over(&cases, pass, now) => return unasked(cases, pass, now),
                Ok(_) => {
                    // The last that the log says, should this end the process.
                    let items: Vec<String> =
                        cases.iter().map(|case| case.facts.orphan.item.to_string()).collect();
                    tracing::warn!(
                        "retrying alone what was in flight when passes died: {}",
                        items.join(", ")
                    );
                }
            }
        }
        let mut verdicts = Vec::new();
        // Held until the answer's files are copied and dropped.
        let answer = room.answer();
        let evidence = match &question {
            None => None,
            Some(question) => {
                let asked = tokio::select! {
                    asked = pass.parts.providers.ask_within(question, Some(&answer)) => asked,
                    () = pass.stop.wait() => return Done::Stopped { cases },
                };
                match asked {
                    AskOutcome::Answered(evidence) => {
                        verdicts.push(evidence.verdict);
                        answer.keep(evidence.file_bytes());
                        Some(evidence)
                    }
                    AskOutcome::NotAsked { retry_in } => return Done::NotAsked { cases, retry_in },
                }
            }
        };
        let Ok(now) = pass.parts.store.now().await else {
            return Done::Stopped { cases };
        };
        // Time is the database's: how long was asked is measured by one clock, whoever asks.
        let evidence = evidence.map(|evidence| Arc::new(Evidence { asked_at: now, ..evidence }));
        let mut settlements = Vec::with_capacity(cases.len());
        for case in cases {
            let decision = policy::decide(&case.facts, evidence.as_deref(), &pass.parts.rules.policy, now);
            let settlement = match decision.action {
                Action::Recover(pick) => {
                    let (question, verdicts) = (question.as_ref(), &mut verdicts);
                    let work = Recovery { pass, room, answer: Some(&answer), question, verdicts };
                    tokio::select! {
                        recovered = work.bring_home(&case, evidence.clone(), decision, pick) => match recovered {
                            Ok(settlement) => settlement,
                            Err(_) => return Done::Stopped { cases: with_rest(case, settlements) },
                        },
                        () = last_call(pass) => return Done::Stopped { cases: with_rest(case, settlements) },
                    }
                }
                Action::Refund | Action::Relink { .. } | Action::Wait | Action::Close | Action::Hold => {
                    pass.settlement(case, decision, evidence.clone(), now)
                }
            };
            settlements.push(settlement);
        }
        for settlement in &mut settlements {
            // It waits for its batch; what is in memory is counted no longer.
            if let Some(evidence) = &mut settlement.evidence
                && evidence.file_bytes() > 0
            {
                *evidence = Arc::new(evidence.without_files());
            }
        }
        Done::Decided { settlements, verdicts }
    }
}

/// Whether one of a suspect's items is past its time and was asked about often enough: then nothing
/// of it is asked again.
fn is_over(cases: &[Case], pass: &Pass, now: Timestamp) -> bool {
    cases.iter().any(|case| policy::without_asking(&case.facts, &pass.parts.rules.policy, now).is_some())
}

/// Decides upon a suspect without asking again, which may end the process. Items whose time is not
/// up wait for theirs.
fn unasked(cases: Vec<Case>, pass: &Pass, now: Timestamp) -> Done {
    let limits = &pass.parts.rules.policy;
    let decided = cases.into_iter().map(|case| {
        let decision = policy::without_asking(&case.facts, limits, now)
            .unwrap_or_else(|| policy::decide(&case.facts, None, limits, now));
        let detail = Some("not asked again: passes died while they retried it alone".to_owned());
        Settlement { detail, ..pass.settlement(case, decision, None, now) }
    });
    Done::Decided { settlements: decided.collect(), verdicts: Vec::new() }
}

/// A job is given back whole: its items share its outputs.
fn with_rest(case: Case, settlements: Vec<Settlement>) -> Vec<Case> {
    settlements.into_iter().map(|settlement| settlement.case).chain([case]).collect()
}

async fn last_call(pass: &Pass) {
    pass.stop.wait().await;
    tokio::time::sleep(LAST_CALL).await;
}

impl Pass {
    /// A decision with the time to look again, where it leaves the case open.
    pub(super) fn settlement(
        &self,
        case: Case,
        decision: Decision,
        evidence: Option<Arc<Evidence>>,
        now: Timestamp,
    ) -> Settlement {
        let expires_at = evidence
            .iter()
            .flat_map(|evidence| &evidence.outputs)
            .filter_map(|offer| offer.expires_at)
            .filter(|at| *at > now)
            .min();
        let retention = self
            .parts
            .providers
            .get(&case.facts.record.charge.provider)
            .and_then(|provider| provider.retention);
        let look_again =
            policy::next_check_at(&case.facts, &decision, WaitBounds { retention, expires_at }, now);
        Settlement { case, decision, evidence, copied: None, look_again, detail: None }
    }
}

/// Brings the file of one item home.
pub(super) struct Recovery<'a, 'r> {
    pub(super) pass: &'a Pass,
    pub(super) room: &'a Room,
    /// The memory of the answer; none: nobody counts.
    pub(super) answer: Option<&'a AnswerPlace<'r>>,
    pub(super) question: Option<&'a Question>,
    pub(super) verdicts: &'a mut Vec<Verdict>,
}

impl Recovery<'_, '_> {
    pub(super) async fn bring_home(
        self,
        case: &Case,
        mut evidence: Option<Arc<Evidence>>,
        mut decision: Decision,
        mut pick: Pick,
    ) -> Result<Settlement, DbError> {
        let journal = Arc::new(LeaseUploadLog::new(self.pass.parts.store.clone(), case));
        let mut result = self.copy(case, evidence.as_deref(), pick, &journal).await;
        if let Err(CopyError::Unauthorized { .. }) = &result {
            self.pass.parts.providers.download_refused(&case.facts.record.charge.provider).await;
        }
        // A link that ran out looks like a missing file, or like a refused key: ask for a fresh one first (rules 14, 15).
        let stale =
            matches!(&result, Err(CopyError::Gone { status: 404, .. } | CopyError::Unauthorized { .. }));
        let mut renewed = false;
        if let (true, Some(question)) = (stale, self.question)
            && let AskOutcome::Answered(fresh) = self.ask_again(question).await
        {
            self.verdicts.push(fresh.verdict);
            let now = self.pass.parts.store.now().await?;
            let again = policy::decide(&case.facts, Some(&fresh), &self.pass.parts.rules.policy, now);
            let fresh = Arc::new(Evidence { asked_at: now, ..fresh });
            match again.action {
                Action::Recover(fresh_pick) => {
                    result = self.copy(case, Some(&fresh), fresh_pick, &journal).await;
                    (evidence, decision, pick, renewed) = (Some(fresh), again, fresh_pick, true);
                }
                Action::Refund | Action::Close => {
                    return Ok(self.pass.settlement(case.clone(), again, Some(fresh), now));
                }
                // No fresh link, and no verdict either: whether the file is gone is not known (rule 15).
                Action::Relink { .. } | Action::Wait | Action::Hold => {}
            }
        }
        let now = self.pass.parts.store.now().await?;
        Ok(match result {
            Ok(copied) => Settlement {
                copied: Some(copied),
                ..self.pass.settlement(case.clone(), decision, evidence, now)
            },
            Err(error) => {
                let gone = matches!(error, CopyError::Gone { status, .. } if status != 404 || renewed);
                let completed =
                    evidence.as_ref().is_some_and(|evidence| evidence.verdict == Verdict::Succeeded);
                let decision = policy::after_recovery(&case.facts, completed, gone, now);
                let why = error.reason().map_or_else(String::new, |reason| format!(" ({reason})"));
                let detail = format!("{}{why}: {}", error.kind(), crate::report::chain(&error));
                tracing::warn!(item = %case.facts.orphan.item, ?pick, kind = error.kind(), "the copy failed: {detail}");
                Settlement {
                    detail: Some(detail),
                    ..self.pass.settlement(case.clone(), decision, evidence, now)
                }
            }
        })
    }

    /// Asks for a fresh link. Beside the files of the first answer the second may be short only:
    /// nothing is waited for while something is held.
    async fn ask_again(&self, question: &Question) -> AskOutcome {
        let memory = self.answer.map(|_| &NoMore as &dyn AnswerMemory);
        self.pass.parts.providers.ask_within(question, memory).await
    }

    async fn copy(
        &self,
        case: &Case,
        evidence: Option<&Evidence>,
        pick: Pick,
        journal: &Arc<LeaseUploadLog>,
    ) -> Result<CopiedFile, CopyError> {
        let offers = evidence.map_or(&[][..], |evidence| &evidence.outputs);
        match pick {
            Pick::Offer(nth) => self.copy_one(case, &offers[nth].source, journal).await,
            Pick::Unclaimed(nth) => {
                // Copied in order until the nth that is new by its hash; what is nobody's is thrown away again.
                let mut left = nth;
                let files = offers.iter().filter(|offer| offer.index.is_none());
                let mut last = Err(crate::recovery::NotOutput::NoFile.into());
                for offer in files.filter(|offer| !matches!(offer.source, Source::Failed { .. })) {
                    let copied = self.copy_one(case, &offer.source, journal).await?;
                    if !case.facts.share.stored.contains(&copied.sha256) {
                        if left == 0 {
                            return Ok(copied);
                        }
                        left -= 1;
                    }
                    self.pass.discard(case, &copied).await;
                    last = Err(crate::recovery::NotOutput::NoFile.into());
                }
                last
            }
        }
    }

    async fn copy_one(
        &self,
        case: &Case,
        source: &Source,
        journal: &Arc<LeaseUploadLog>,
    ) -> Result<CopiedFile, CopyError> {
        let model = &case.facts.record.charge.model;
        let provider = self.pass.parts.providers.get(&case.facts.record.charge.provider);
        let fetching = provider.map(|provider| provider.fetch_rules(model)).unwrap_or_default();
        let none = Hosts::default();
        let (allowed_hosts, key_hosts) =
            provider.map_or((&none, &none), |provider| (&provider.output_hosts, &provider.key_hosts));
        let auth = match (source, provider) {
            (Source::Url { auth: true, .. }, Some(provider)) => {
                // Without its key the download is refused by the provider, which says so better than we could.
                self.pass.parts.providers.download_headers(&provider.name).await.ok()
            }
            (Source::Url { .. } | Source::Inline { .. } | Source::Failed { .. }, _) => None,
        };
        let item = &case.facts.orphan.item;
        let key = ObjectKey::new(&item.charge_id, item.output_index, case.token);
        // What an answer holds covers the copying of its files, which then waits for nothing.
        let is_covered = self.answer.is_some_and(AnswerPlace::holds);
        let place = if is_covered { None } else { Some(self.room.enter().await) };
        loop {
            let request = CopyRequest {
                source,
                allowed_hosts,
                key_hosts,
                auth: auth.clone(),
                storage: &self.pass.parts.storage,
                key: &key,
                media: &fetching.kinds,
                max_bytes: fetching.max_bytes,
                time_budget: fetching.time_budget,
                memory: place.as_ref().map(|place| place as &dyn crate::recovery::MemoryBudget),
                upload_log: Arc::clone(journal) as Arc<dyn UploadLog>,
            };
            match (self.pass.parts.fetcher.copy(request).await, &place) {
                // Not held open meanwhile: waiting is no part of the file's time, and costs no connection.
                (Err(CopyError::NoMemory { bytes }), Some(place)) => place.wait_for(bytes).await,
                (done, _) => return done,
            }
        }
    }
}

/// What a person should look at about a case that is held, or that waits for something of ours to be mended.
pub(super) fn finding(settlement: &Settlement, decision: &Decision) -> Option<Finding> {
    let facts = &settlement.case.facts;
    let charge = &facts.record.charge;
    let said =
        || settlement.evidence.as_ref().and_then(|evidence| evidence.message.clone()).unwrap_or_default();
    let about_item = || format!("item {}", facts.orphan.item);
    let about_provider = || format!("provider {}", charge.provider);
    let (kind, about, detail) = match decision.reason {
        Reason::MissingHash => ("missing_hash", about_item(),
            "a file of its job is stored without a SHA-256 in stored_outputs, so which of the provider's files it is cannot be \
             told; held until sha256 of that row is set".to_owned()),
        Reason::ItemsMismatch => ("items_mismatch", format!("charge {}", charge.id), format!(
            "it drew {} and has {} items for {}; held until they add up",
            charge.drawn.total(), facts.record.items.count, facts.record.items.credits
        )),
        Reason::DuplicateJob => ("duplicate_job", about_item(),
            "another item claims the same output of the same job, or a charge of another account names the job; held until one \
             of them is corrected".to_owned()),
        Reason::CannotRelink => ("cannot_relink", about_item(), format!(
            "its output `{}` is stored in the wrong place, and the platform's stored_outputs does not let it be put back: \
             the UPDATE left it where it was; held until it does",
            settlement.case.misplaced().map_or("", |(output_id, ..)| output_id)
        )),
        Reason::NoBalance => ("no_balance", about_item(), format!(
            "account {} has not exactly one balance row for each bucket that the charge drew from; held until it has",
            charge.account_id
        )),
        Reason::NotPosted => ("not_posted", about_item(), settlement.detail.clone().unwrap_or_else(|| format!(
            "a refund to account {} was posted, and the platform's balances or ledger_entries do not show it; nothing was \
             written, and it is held until they do",
            charge.account_id
        ))),
        Reason::ChargeChanged => ("charge_changed", format!("charge {}", charge.id), format!(
            "its account ({}) or its draw ({} subscription, {} wallet) is another than when something was first made good for \
             it; held until a person has corrected the charge or refunded by hand",
            charge.account_id, charge.drawn.subscription, charge.drawn.wallet
        )),
        Reason::DebitsMismatch => ("debits_mismatch", format!("charge {}", charge.id), format!(
            "it drew {} credits, and the entries of ledger_entries that name it come to {}; held until both say the same",
            charge.drawn.total(), facts.record.debits.unwrap_or_default()
        )),
        Reason::AlreadyRefunded => ("already_refunded", about_item(),
            "the platform has refunded the charge without naming items, or more than this item leaves room for; \
             held for a person to settle".to_owned()),
        Reason::Unauthorized => ("key_refused", about_provider(), said()),
        Reason::UnknownProvider => ("unknown_provider", about_provider(), said()),
        Reason::Unreadable => ("unreadable", about_provider(), said()),
        Reason::RecoveryRetry => ("recovery_retry", about_item(), settlement.detail.clone().unwrap_or_default()),
        // Not for a person, or, of the brake and of what cannot be posted, in the report already.
        Reason::Brake | Reason::CannotPost | Reason::Delivered | Reason::Misattributed | Reason::NoProviderJob | Reason::MaybeNotSubmittedYet
        | Reason::OutputAvailable | Reason::ServerError | Reason::QueueTimeout | Reason::ContentSafety
        | Reason::MalformedResponse | Reason::ProviderError | Reason::CompletedAfterCancel | Reason::OutputExpired
        | Reason::MissingOutput | Reason::ProviderCancelled | Reason::ReportedFailed | Reason::MaybeNotVisibleYet
        | Reason::NeverReturned | Reason::StillRunning | Reason::TimedOut | Reason::Unreachable
        | Reason::RateLimited | Reason::Unconfirmed | Reason::RecoveryFailed | Reason::ByHand => return None,
    };
    Some(Finding { kind, about, detail })
}
