//! What the provider says: the meaning of an answer, without its wire format.
//!
//! "Could not tell" is evidence too, never a failure: [`Verdict::CouldNotTell`] is a value like the
//! others, so that no caller can take an error of ours for a verdict on the job. `provider` makes
//! evidence from answers; `policy` judges it; `store` keeps it, so that every refund can be explained later.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// What is known about one provider job after one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// How the job stands.
    pub verdict: Verdict,
    /// What kind of failure, where the job failed.
    pub class: Option<FailureClass>,
    /// The provider's code for it, if any.
    pub code: Option<String>,
    /// The provider's words for it (or ours, where it could not be told), cut and free of secrets.
    pub message: Option<String>,
    /// The outputs that the answer names, in its order.
    pub outputs: Vec<Offer>,
    /// The job succeeded and its files are gone (P18).
    pub outputs_gone: bool,
    /// When the answer was there.
    pub asked_at: Timestamp,
    /// What was asked and answered, for people: kept with the orphan.
    pub answer: Answer,
}

impl Evidence {
    /// Nothing could be told, for `doubt`'s reason.
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
    /// How long the files are that stand in the answer itself.
    pub fn file_bytes(&self) -> u64 {
        let files = self.outputs.iter().map(|offer| match &offer.source {
            Source::Inline { bytes, .. } => bytes.len() as u64,
            Source::Url { .. } | Source::Failed { .. } => 0,
        });
        files.sum()
    }

    /// The same without these files, once they have been copied: evidence is kept until it is
    /// settled.
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

/// How a provider job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Accepted, not begun.
    Queued,
    /// Being worked on.
    Running,
    /// Done; says nothing yet about single outputs.
    Succeeded,
    /// Ended without success.
    Failed,
    /// Stopped at the provider, by whomever.
    Cancelled,
    /// The provider says that it knows no such job.
    UnknownJob,
    /// No verdict on the job.
    CouldNotTell(Doubt),
}

/// Why nothing could be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// No answer, or one from something in between (5xx).
    Unreachable,
    /// Asked too often.
    RateLimited,
    /// Our key was refused: ours to fix, never a verdict on the job.
    Unauthorized,
    /// An answer that no rule can read.
    Unreadable,
    /// There is no provider file of that name.
    UnknownProvider,
}

impl Verdict {
    /// As the database and the logs spell it.
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
    /// As the database, the logs and the metrics spell it.
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

/// The kinds of provider-side failure (P02).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The model's server broke.
    ServerError,
    /// It waited too long to begin.
    QueueTimeout,
    /// Refused for its content after the charge.
    ContentSafety,
    /// The provider answered its own protocol wrongly.
    MalformedResponse,
    /// The provider says failed and not why.
    ProviderError,
}

impl FailureClass {
    /// As provider files, the database and the logs spell it.
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
    /// Which output of the job it is, from 0; none where the provider does not say.
    pub index: Option<i64>,
    /// Where the file is, or why there is none.
    pub source: Source,
    /// When the provider will drop the file, if it says so.
    pub expires_at: Option<Timestamp>,
}

/// Where the file of an output is.
#[derive(Clone, PartialEq)]
pub enum Source {
    /// To be fetched from a URL; `auth`: with the provider's key.
    Url {
        /// As the provider gave it: hostile until checked.
        url: String,
        /// Whether the download needs the key.
        auth: bool,
    },
    /// In the answer itself.
    Inline {
        /// The file.
        bytes: Bytes,
        /// Its type, if the answer says so.
        content_type: Option<String>,
    },
    /// There is no file: this output failed alone (P05).
    Failed {
        /// What kind of failure.
        class: FailureClass,
        /// The provider's words for it.
        message: Option<String>,
    },
}

impl fmt::Debug for Source {
    // Neither files nor signed URLs belong in logs.
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

/// What was asked and what came back, cut and redacted: for support, a year later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Method and URL of the last request, without secrets.
    pub request: Option<String>,
    /// HTTP status of the last response.
    pub status: Option<u16>,
    /// The beginning of the last response's body as text, at most a few KiB.
    pub excerpt: Option<String>,
}
