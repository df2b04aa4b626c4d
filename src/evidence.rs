//! Evidence: the meaning of a provider's answer, without its wire format.
//!
//! "Could not tell" is evidence too, never a failure. [`Verdict::CouldNotTell`] is a value like the
//! others, so no caller can mistake an error of makegood for a verdict on the job. `provider` makes
//! evidence from answers, `policy` decides by it, and `store` keeps it, so that every refund can be
//! explained later.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The result of one question about one provider job.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The state of the job.
    pub verdict: Verdict,
    /// The kind of failure, if the job failed.
    pub class: Option<FailureClass>,
    /// The provider's error code, if any.
    pub code: Option<String>,
    /// The provider's message, shortened and without secrets. If the answer could not be read, why.
    pub message: Option<String>,
    /// The outputs that the answer names, in the answer's order.
    pub outputs: Vec<Offer>,
    /// The job succeeded and its files are gone. P18 (files are kept for a limited time).
    pub outputs_gone: bool,
    /// When the answer arrived.
    pub asked_at: Timestamp,
    /// The request and the response, kept with the orphan for people to read.
    pub answer: Answer,
}

impl Evidence {
    /// Evidence without a verdict on the job, because of `doubt`.
    pub fn could_not_tell(doubt: Doubt, message: impl Into<String>, asked_at: Timestamp) -> Self {
        Self {
            verdict: Verdict::CouldNotTell(doubt),
            class: None,
            code: None,
            message: Some(message.into()),
            outputs: Vec::new(),
            outputs_gone: false,
            asked_at,
            answer: Answer::default(),
        }
    }
}

impl Evidence {
    /// The size in bytes of the files inside the answer.
    pub fn file_bytes(&self) -> u64 {
        let files = self.outputs.iter().map(|offer| match &offer.source {
            Source::Inline { bytes, .. } => bytes.len() as u64,
            Source::Url { .. } | Source::Failed { .. } => 0,
        });
        files.sum()
    }

    /// The same evidence without the files inside the answer. Used once they were copied, so that
    /// they do not stay in memory until the evidence is settled.
    #[must_use]
    pub fn without_files(&self) -> Self {
        let mut evidence = self.clone();
        for offer in &mut evidence.outputs {
            if let Source::Inline { bytes, .. } = &mut offer.source {
                *bytes = Bytes::new();
            }
        }
        evidence
    }
}

/// The state of a provider job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Accepted, not started.
    Queued,
    /// Started, not ended.
    Running,
    /// Ended with success. Single outputs may still be missing.
    Succeeded,
    /// Ended without success.
    Failed,
    /// Cancelled at the provider, by anyone.
    Cancelled,
    /// The provider says that it knows no such job.
    UnknownJob,
    /// The answer tells nothing about the job.
    CouldNotTell(Doubt),
}

/// Why an answer tells nothing about the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// No answer, or HTTP 5xx.
    Unreachable,
    /// The provider's rate limit rejected the question.
    RateLimited,
    /// The provider rejected our API key. The operator has to fix it.
    Unauthorized,
    /// The provider file's filter cannot read the answer.
    Unreadable,
    /// There is no provider file of that name.
    UnknownProvider,
}

impl Verdict {
    /// The word in the database and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::UnknownJob => "unknown_job",
            Self::CouldNotTell(doubt) => doubt.as_str(),
        }
    }
}

impl Doubt {
    /// The word in the database, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::Unreadable => "unreadable",
            Self::UnknownProvider => "unknown_provider",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kinds of failure. P02 (provider-side failures) lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The model's server failed.
    ServerError,
    /// The job waited too long in the provider's queue.
    QueueTimeout,
    /// The provider rejected the content after the charge.
    ContentSafety,
    /// The provider's answer broke its own protocol.
    MalformedResponse,
    /// The provider says that the job failed, and not why.
    ProviderError,
}

impl FailureClass {
    /// The word in provider files, the database and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "server_error",
            Self::QueueTimeout => "queue_timeout",
            Self::ContentSafety => "content_safety",
            Self::MalformedResponse => "malformed_response",
            Self::ProviderError => "provider_error",
        }
    }
}

/// One output that an answer names.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Its index in the job, from 0; none if the provider gives none.
    pub index: Option<i64>,
    /// Where its file is, or why there is none.
    pub source: Source,
    /// When the provider will delete the file, if it says so.
    pub expires_at: Option<Timestamp>,
}

/// Where the file of an output is.
#[derive(Clone, PartialEq)]
pub enum Source {
    /// At a URL.
    Url {
        /// The URL as the provider gave it. It is untrusted until `egress` has checked it.
        url: String,
        /// Whether the download needs the provider's API key.
        auth: bool,
    },
    /// Inside the answer.
    Inline {
        /// The file.
        bytes: Bytes,
        /// Its content type, if the answer gives one.
        content_type: Option<String>,
    },
    /// There is no file: this output failed. P05 (each output is refunded alone).
    Failed {
        /// The kind of failure.
        class: FailureClass,
        /// The provider's message.
        message: Option<String>,
    },
}

impl fmt::Debug for Source {
    // Files and signed URLs must not appear in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, auth } => {
                let bare = url.split(['?', '#']).next().unwrap_or_default();
                write!(f, "Url({bare}, auth: {auth})")
            }
            Self::Inline { bytes, content_type } => {
                write!(f, "Inline({} bytes, {content_type:?})", bytes.len())
            }
            Self::Failed { class, message } => write!(f, "Failed({class:?}, {message:?})"),
        }
    }
}

/// The last request and its response, shortened and redacted. Support reads it up to a year later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Method and URL of the last request, without secrets.
    pub request: Option<String>,
    /// HTTP status of the last response.
    pub status: Option<u16>,
    /// The beginning of the last response's body, at most a few KiB.
    pub excerpt: Option<String>,
}
