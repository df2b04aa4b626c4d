//! A provider file is refused when its filter would refund on an answer that says nothing about a
//! job.
//!
//! Each filter reads a few such answers when the file is loaded: an empty object, null, an empty
//! list, text, a web page, and an object whose status word nobody knows, with HTTP 200 and with
//! HTTP 404. A filter that judges one of them as `failed`, `cancelled`, `succeeded` or
//! `unknown_job` would refund every charge on the day that the provider changes or moves its API.
//! `if .body.state = "failed"`, with one `=`, is such a filter: it assigns and is always true.
//!
//! Filters that do not end, or that want too much memory, are found here too: they are refused with
//! the bound that they passed.
//!
//! This finds filters that are surely wrong. A filter that passes can still misread an answer of
//! its provider: `makegood provider test` reads kept answers.

use reqwest::header::HeaderMap;

use super::Question;
use super::file::{Flaw, Provider};
use super::filters::Stopped;
use super::reading::{Reading, Received};
use crate::evidence::Verdict;

/// Bodies that say nothing about a job, and how an error message calls them.
const BODIES: [(&str, &str); 7] = [
    ("{}", "the body `{}`"),
    ("null", "the body `null`"),
    ("[]", "the body `[]`"),
    ("Service moved", "a body of plain text"),
    ("<!DOCTYPE html><html><body>Not Found</body></html>", "a web page"),
    (
        "<Job><Status>no-such-word</Status><State>no-such-word</State></Job>",
        "XML of a status word that nobody knows",
    ),
    (
        r#"{"status":"no-such-word","state":"no-such-word","task_status":"no-such-word","code":987654321,
            "data":{"status":"no-such-word","state":"no-such-word","task_status":"no-such-word"}}"#,
        "a status word that nobody knows",
    ),
];

impl Provider {
    /// What is wrong with the filters: the first answer without a meaning that would be refunded,
    /// or that passes the bounds of a reading.
    pub(super) async fn trial(&self) -> Option<Flaw> {
        let question = Question {
            provider: self.name.clone(),
            job_id: "job-1".to_owned(),
            model: "owner/model".to_owned(),
            items: 1,
            urgent: false,
        };
        for status in [200, 404] {
            for (body, name) in BODIES {
                let received = Received::new(status, HeaderMap::new(), body.as_bytes().to_vec().into());
                let reading = match self.read_for_trial(&question, &received).await {
                    Ok(reading) => reading,
                    Err(Stopped { filter: key, why, is_begun }) => {
                        let problem = if is_begun {
                            format!("must be a filter that ends: given {name} with HTTP {status}, {why}")
                        } else {
                            format!("cannot be tried: {why}; makegood starts its own executable for this")
                        };
                        return Some(Flaw::new(key, problem));
                    }
                };
                let Some(verdict) = ending(&reading) else { continue };
                return Some(Flaw::new(
                    "ask.read",
                    format!(
                        "must be a filter that reads {name} with HTTP {status} as `unreadable`, not as `{verdict}`, \
                         which refunds: the answer says nothing about a job. Compare a status word with `==` before \
                         the verdict, and end with `else {{verdict: \"unreadable\"}} end`"
                    ),
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

#[cfg(test)]
mod tests {
    use super::super::file;

    /// What is said against a file with this filter.
    fn problem(filter: &str) -> Option<String> {
        let text = format!(
            "[provider]\nname = \"acme\"\noutput_hosts = []\n[ask]\n\
             request = \"GET https://acme.example/{{job}}\"\nread = '''{filter}'''"
        );
        file::read(&text).err().map(|flaw| {
            assert_eq!(flaw.key, "ask.read");
            flaw.problem
        })
    }

    #[test]
    fn a_filter_that_refunds_on_an_answer_that_says_nothing_is_refused() {
        for (filter, body, verdict) in [
            // One `=`: it assigns, and what it gives is true.
            (
                r#"if .body.state = "failed" then {verdict: "failed"} else {verdict: "running"} end"#,
                "`{}`",
                "`failed`",
            ),
            (
                r#"if .body.state == "busy" then {verdict: "running"} else {verdict: "failed"} end"#,
                "`{}`",
                "`failed`",
            ),
            (
                r#"if .body | type == "array" then {verdict: "cancelled"} else {verdict: "unreadable"} end"#,
                "`[]`",
                "`cancelled`",
            ),
            (r#"{verdict: "succeeded", outputs: [.body.images[]? | {url: .}]}"#, "`{}`", "`succeeded`"),
            (
                r#"if .body.bytes != null then {verdict: "failed"} else {verdict: "unreadable"} end"#,
                "plain text",
                "`failed`",
            ),
            (
                r#"if .body.status? | . == null or . == "busy" then {verdict: "running"} else {verdict: "failed"} end"#,
                "nobody knows",
                "`failed`",
            ),
            (
                r#"if .status == 404 then {verdict: "unknown_job"} else {verdict: "unreadable"} end"#,
                "HTTP 404",
                "`unknown_job`",
            ),
        ] {
            let problem = problem(filter).unwrap_or_else(|| panic!("{filter} is taken"));
            assert!(problem.contains(body) && problem.contains(verdict), "{filter}: {problem}");
        }
    }

    /// They are not tried again when they are loaded.
    #[test]
    fn every_shipped_file_passes_its_trial() {
        for (name, text) in super::super::SHIPPED {
            let flaw = file::read(text).err().map(|flaw| flaw.problem);
            assert_eq!(flaw, None, "{name}");
        }
    }

    #[test]
    fn a_filter_that_wants_a_word_before_it_judges_is_taken() {
        for filter in [
            r#"if .status == 404 and .body.error == "no such job" then {verdict: "unknown_job"}
               elif .body.state == "failed" then {verdict: "failed"}
               elif .body.state == "done" then {verdict: "succeeded", outputs: [.body.images[] | {url: .}]}
               else {verdict: "unreadable"} end"#,
            r#"{verdict: "running"}"#,
            "error(\"nothing is understood\")",
        ] {
            assert_eq!(problem(filter), None, "{filter}");
        }
    }
}
