//! A provider file is refused when its filter would refund on an answer that says nothing about a job.
//!
//! Each filter reads a few such answers when the file is loaded: an empty object, null, an empty list,
//! text, a web page, and an object whose status word nobody knows, with HTTP 200 and with HTTP 404. A
//! filter that judges one of them as `failed`, `cancelled`, `succeeded` or `unknown_job` would refund
//! every charge on the day that the provider changes or moves its API. `if .body.state = "failed"`, with
//! one `=`, is such a filter: it assigns and is always true.
//!
//! This finds filters that are surely wrong. A filter that passes can still misread an answer of its
//! provider: `makegood provider test` reads kept answers.

use reqwest::header::HeaderMap;

use super::Question;
use super::file::Provider;
use super::reading::{Reading, Received};
use crate::evidence::Verdict;

/// Bodies that say nothing about a job, and how an error message calls them.
const BODIES: [(&str, &str); 6] = [
    ("{}", "the body `{}`"),
    ("null", "the body `null`"),
    ("[]", "the body `[]`"),
    ("Service moved", "a body of plain text"),
    ("<!DOCTYPE html><html><body>Not Found</body></html>", "a web page"),
    (
        r#"{"status":"no-such-word","state":"no-such-word","task_status":"no-such-word","code":987654321,
            "data":{"status":"no-such-word","state":"no-such-word","task_status":"no-such-word"}}"#,
        "a status word that nobody knows",
    ),
];

impl Provider {
    /// The first answer without a meaning that the filter would refund on, in words.
    pub(super) fn refunds_without_cause(&self) -> Option<String> {
        let question = Question {
            provider: self.name.clone(),
            job_id: "job-1".to_owned(),
            model: "owner/model".to_owned(),
            items: 1,
            urgent: false,
        };
        for status in [200, 404] {
            for (body, name) in BODIES {
                let received =
                    Received { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec().into() };
                let Some(verdict) = ending(&self.read_for_trial(&question, &received)) else { continue };
                return Some(format!(
                    "a filter that reads {name} with HTTP {status} as `unreadable`, not as `{verdict}`, which \
                     refunds: the answer says nothing about a job. Compare a status word with `==` before the \
                     verdict, and end with `else {{verdict: \"unreadable\"}} end`"
                ));
            }
        }
        None
    }
}

/// The verdict, if it ends in a refund without another question.
fn ending(reading: &Reading) -> Option<&'static str> {
    let Reading::Judged(evidence) = reading else { return None };
    match evidence.verdict {
        Verdict::Failed | Verdict::Cancelled | Verdict::UnknownJob => Some(evidence.verdict.as_str()),
        Verdict::Succeeded if evidence.outputs.is_empty() => Some(evidence.verdict.as_str()),
        Verdict::Succeeded | Verdict::Queued | Verdict::Running | Verdict::CouldNotTell(_) => None,
    }
}
