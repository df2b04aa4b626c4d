//! What a pass would decide now about single items: asks and decides, and acts on nothing.
//!
//! For people who look into one charge. Nothing is leased, settled or kept; what is asked counts for no orphan.

use std::sync::Arc;

use super::Rules;
use super::job::Job;
use crate::clock::Timestamp;
use crate::evidence::Evidence;
use crate::policy::{self, Decision};
use crate::provider::{AskOutcome, Providers};
use crate::store::Case;

/// One item with what its provider says now, and what follows from it.
#[derive(Clone, Debug)]
pub struct Consulted {
    /// What is known.
    pub case: Case,
    /// The provider's word; none where nobody needs to be asked.
    pub evidence: Option<Arc<Evidence>>,
    /// What a pass would do now. The brake is not asked.
    pub decision: Decision,
}

/// Asks once for each job of the cases and decides about each. A circuit is closed in a process that has just begun,
/// and the questions are urgent, so that everybody is asked.
pub async fn consult(
    providers: &Providers,
    rules: &Rules,
    cases: Vec<Case>,
    now: Timestamp,
) -> Vec<Consulted> {
    let mut consulted = Vec::new();
    for Job { question, cases, .. } in Job::group(cases, &rules.policy, now) {
        let evidence = match question {
            None => None,
            Some(mut question) => {
                question.urgent = true;
                match providers.ask(&question).await {
                    AskOutcome::Answered(evidence) => Some(Arc::new(evidence.without_files())),
                    AskOutcome::NotAsked { .. } => None,
                }
            }
        };
        for case in cases {
            let decision = policy::decide(&case.facts, evidence.as_deref(), &rules.policy, now);
            consulted.push(Consulted { case, evidence: evidence.clone(), decision });
        }
    }
    consulted.sort_by_key(|each| each.case.facts.orphan.item.output_index);
    consulted
}
