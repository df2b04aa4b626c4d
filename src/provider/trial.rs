//! The trial of a provider file: it is rejected if its filter would refund on an answer that says
//! nothing about a job.
//!
//! When a file is loaded, its filter reads several such answers: an empty object, null, an empty
//! list, text, a web page, XML and JSON with an unknown status word, each with HTTP 200 and 404. If
//! the filter reads one of them as `failed`, `cancelled`, `unknown_job`, or `succeeded` without
//! outputs, it would refund every charge as soon as the provider changes or moves its API. An
//! example is `if .body.state = "failed"` with one `=`: it is an assignment and always true.
//!
//! A filter that exceeds its bounds on one of these answers is rejected too. A filter that passes
//! the trial can still misread an answer; `makegood provider test` checks it with stored answers.

use reqwest::header::HeaderMap;

use super::Question;
use super::file::Provider;
use super::file_error::FileError;
use super::filters::FilterStopped;
use super::reading::{HttpAnswer, Reading};
use crate::evidence::Verdict;

/// Bodies that say nothing about a job, and their names for error messages.
const BODIES: [(&str, &str); 7] = [
    ("{}", "the body `{}`"),
    ("null", "the body `null`"),
    ("[]", "the body `[]`"),
    ("Service moved", "a body of plain text"),
    ("<!DOCTYPE html><html><body>Not Found</body></html>", "a web page"),
    (
        "<Job><Status>no-such-word</Status><State>no-such-word</State></Job>",
        "XML with an unknown status word",
    ),
    (
        r#"{"status":"no-such-word","state":"no-such-word","task_status":"no-such-word","code":987654321,
            "data":{"status":"no-such-word","state":"no-such-word","task_status":"no-such-word"}}"#,
        "an unknown status word",
    ),
];

impl Provider {
    /// Runs the filters on all answers of the trial. Returns an error for the first answer that
    /// would be refunded, or on which a filter exceeds its bounds.
    pub(super) async fn trial(&self) -> Option<FileError> {
        let question = Question {
            provider: self.name.clone(),
            job_id: "job-1".to_owned(),
            model: "owner/model".to_owned(),
            items: 1,
            urgent: false,
        };
        for status in [200, 404] {
            for (body, name) in BODIES {
                let received = HttpAnswer::new(status, HeaderMap::new(), body.as_bytes().to_vec().into());
                let reading = match self.read_for_trial(&question, &received).await {
                    Ok(reading) => reading,
                    Err(FilterStopped { filter: key, message, is_started }) => {
                        let problem = if is_started {
                            format!(
                                "must be a filter that terminates: given {name} with HTTP {status}, {message}"
                            )
                        } else {
                            format!(
                                "cannot be tested: {message}; makegood starts its own executable for this"
                            )
                        };
                        return Some(FileError::new(key, problem));
                    }
                };
                let Some(verdict) = refunding_verdict(&reading) else { continue };
                return Some(FileError::new(
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

/// Returns the verdict if it leads to a refund without another question.
fn refunding_verdict(reading: &Reading) -> Option<&'static str> {
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

    /// Returns the error of a file with this filter, if any.
    fn problem(filter: &str) -> Option<String> {
        let text = format!(
            "[provider]\nname = \"acme\"\noutput_hosts = []\n[ask]\n\
             request = \"GET https://acme.example/{{job}}\"\nread = '''{filter}'''"
        );
        file::read(&text).err().map(|error| {
            assert_eq!(error.key, "ask.read");
            error.problem
        })
    }

    #[test]
    fn a_filter_that_refunds_on_an_answer_that_says_nothing_is_rejected() {
        for (filter, body, verdict) in [
            // One `=` is an assignment, and its result is true.
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
                "unknown status word",
                "`failed`",
            ),
            (
                r#"if .status == 404 then {verdict: "unknown_job"} else {verdict: "unreadable"} end"#,
                "HTTP 404",
                "`unknown_job`",
            ),
        ] {
            let problem = problem(filter).unwrap_or_else(|| panic!("{filter} is accepted"));
            assert!(problem.contains(body) && problem.contains(verdict), "{filter}: {problem}");
        }
    }

    /// The shipped files are loaded without a trial.
    #[test]
    fn every_shipped_file_passes_its_trial() {
        for (name, text) in super::super::SHIPPED {
            let error = file::read(text).err().map(|error| error.problem);
            assert_eq!(error, None, "{name}");
        }
    }

    #[test]
    fn a_filter_that_requires_a_status_word_for_each_verdict_is_accepted() {
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
