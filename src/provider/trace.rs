//! A question told step by step, for a person who writes or tries out a provider file.
//!
//! Promise: what is told holds no secret, and of a URL's query no value that may be a key or a
//! signature. It is only told: nothing decides on it.

use super::request::Request;

/// One request of a question, and what the filter said of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Method and URL.
    pub request: String,
    /// HTTP status; none if no answer came.
    pub status: Option<u16>,
    /// How long the answer was, unpacked.
    pub body_bytes: usize,
    /// The filter's output as JSON, its beginning; an error says why there is none.
    pub said: Result<String, String>,
}

impl Step {
    /// A request that has not been sent, as a step shows it.
    pub fn shown(request: &Request) -> String {
        request.shown(&[])
    }
}
