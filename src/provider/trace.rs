//! The trace of a question, request by request, for a person who writes or tests a provider file.
//!
//! It contains no secret, and no value of a URL's query that may be a key or a signature. It is for
//! display only; no decision depends on it.

use super::request::Request;

/// One request of a question, and the filter's output for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceStep {
    /// Method and URL.
    pub request: String,
    /// The HTTP status; `None` if there was no answer.
    pub status: Option<u16>,
    /// The length of the body after decompression.
    pub body_bytes: usize,
    /// The beginning of the filter's output as JSON. The error says why there is none.
    pub filter_output: Result<String, String>,
}

impl TraceStep {
    /// Formats a request that has not been sent like [`TraceStep::request`].
    pub fn display(request: &Request) -> String {
        request.display(&[])
    }
}
