//! Facts and answers for tests: an ordinary orphan. A test changes only what it is about.

use std::time::Duration;

use super::{Decision, PolicyOptions, after_recovery, decide};
use crate::charge::{Charge, Item, ItemId, JobKey, Split};
use crate::clock::Timestamp;
use crate::evidence::{Doubt, Evidence, FailureClass, Offer, Source, Verdict};
use crate::facts::{BalanceRows, Delivery, Facts, ItemsSum, JobShare, Orphan, Record, RefundedElsewhere};

pub const HOUR: Duration = Duration::from_hours(1);
pub const OPTIONS: PolicyOptions = PolicyOptions { unknown_job_grace: HOUR, prefer_refund: false };

pub fn charged_at() -> Timestamp {
    Timestamp::parse("2026-03-01T00:00:00Z").unwrap()
}

/// One item of ten credits from the wallet, with a provider job, found 15 minutes after the charge.
/// The provider has not been asked yet.
pub fn facts() -> Facts {
    let id = ItemId { charge_id: "c1".to_owned(), output_index: 0 };
    let job = JobKey { provider: "acme".to_owned(), job_id: "j1".to_owned(), output_index: 0 };
    Facts {
        record: Record {
            charge: Charge {
                id: "c1".to_owned(),
                account_id: "ada".to_owned(),
                project_id: Some("p".to_owned()),
                node_id: Some("n".to_owned()),
                provider: "acme".to_owned(),
                model: "acme/still".to_owned(),
                charged_at: charged_at(),
                drawn: Split { subscription: 0, wallet: 10 },
                cancelled_at: None,
            },
            item: Some(Item { id: id.clone(), credits: 10, job: Some(job), failed_at: None }),
            items: ItemsSum { count: 1, credits: 10, negative: false },
            delivery: Delivery::Missing,
            was_recovered: false,
            refunded_elsewhere: RefundedElsewhere::default(),
            rival: false,
            balance_rows: BalanceRows { subscription: 1, wallet: 1 },
            debits: None,
        },
        share: JobShare { items: 1, rank: 0, open_rank: 0, stored: Vec::new(), unhashed: 0 },
        orphan: Orphan {
            id: 7,
            item: id,
            opened_at: charged_at() + HOUR / 4,
            refund_by: charged_at() + 22 * HOUR,
            questions: 0,
            first_asked_at: None,
            waits: 0,
            held: None,
        },
    }
}

/// The same orphan, asked about often enough for a refund without proof.
pub fn asked_enough() -> Facts {
    let mut facts = facts();
    facts.orphan.questions = 2;
    facts.orphan.first_asked_at = Some(charged_at() + HOUR);
    facts
}

pub fn evidence(verdict: Verdict) -> Evidence {
    let mut evidence = Evidence::could_not_tell(Doubt::Unreachable, "", charged_at());
    evidence.verdict = verdict;
    evidence
}

pub fn failed(class: FailureClass) -> Evidence {
    let mut evidence = evidence(Verdict::Failed);
    evidence.class = Some(class);
    evidence
}

pub fn file(index: Option<i64>) -> Offer {
    let source = Source::Url { url: "https://files.acme.example/x.png".to_owned(), auth: false };
    Offer { index, source, expires_at: None }
}

pub fn offering(verdict: Verdict, outputs: Vec<Offer>) -> Evidence {
    let mut evidence = evidence(verdict);
    evidence.outputs = outputs;
    evidence
}

/// The decision this many hours after the charge.
pub fn decided(facts: &Facts, evidence: &Evidence, hours: u32) -> Decision {
    decide(facts, Some(evidence), &OPTIONS, charged_at() + hours * HOUR)
}

/// The decision after a failed copy of a completed job's file.
pub fn copy_failed(facts: &Facts, gone: bool, hours: u32) -> Decision {
    after_recovery(facts, true, gone, charged_at() + hours * HOUR)
}

/// Action and reason as the table writes them, such as `refund server_error`.
pub fn spelled(decision: &Decision) -> String {
    format!("{} {}", decision.action.as_str(), decision.reason)
}
