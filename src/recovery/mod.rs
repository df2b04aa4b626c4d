//! Bring the output home: copy one file from the provider into the platform's storage.
//!
//! Promise: what [`Fetcher::copy`] returns was stored whole, and its length and hash are those of the
//! stored bytes; what it refuses or fails at leaves no object behind, as far as storage still answers
//! then. Memory stays the same whatever the file's size. The URL is taken for hostile (`link`, `address`), and so is what it leads to
//! (`kind`, the caps of [`Limits`]).
//!
//! It never decides whether to recover and records nothing: `policy` does the one, settle the other.
//! No transaction is open meanwhile.
//!
//! A crash halfway leaves at most an object, a temporary file (`name#1`) or unfinished parts under a key that no row names and
//! no later lease uses. Its place was noted before it was begun (`journal`), and the sweep of a later pass removes it; that pass
//! copies again from the beginning under a key of its own. What broke within one copy is continued where it stopped (`resume`).

mod address;
mod bucket;
mod fetch;
mod journal;
mod key;
mod kind;
mod link;
mod resume;
mod storage;
#[cfg(test)]
mod tests;
mod upload;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::egress::Hosts;
use crate::evidence::Source;

pub use address::AddressRefusal;
pub use bucket::is_bucket;
pub use fetch::{Fetcher, FetcherError};
pub use journal::{Journal, JournalError, Place};
pub use key::Key;
pub use kind::Medium;
pub use link::UrlRefusal;
pub use storage::{Storage, StorageError};
pub use write::memory_bytes;

/// Why a pass would not fetch this file, as far as that shows without asking anybody. `listed` and
/// `key_hosts`: the provider's. A redirect, or the address of a name, may still be refused later.
pub fn refusal(
    source: &Source,
    listed: &Hosts,
    key_hosts: &Hosts,
    allow_loopback: bool,
) -> Option<UrlRefusal> {
    let Source::Url { url, auth } = source else { return None };
    if bucket::is_one(url) {
        return bucket::check(url, listed).err();
    }
    let loopback = if allow_loopback { address::Loopback::Allowed } else { address::Loopback::Refused };
    let checked = link::parse(url).and_then(|url| {
        link::check(&url, listed, loopback)?;
        if *auth { link::check_key(&url, key_hosts, loopback) } else { Ok(()) }
    });
    checked.err()
}

/// One file to be copied: from where, to where, and how far.
#[derive(Debug)]
pub struct Errand<'a> {
    /// Where it is.
    pub source: &'a Source,
    /// The provider's `output_hosts`.
    pub allowed_hosts: &'a Hosts,
    /// The provider's `key_hosts`.
    pub key_hosts: &'a Hosts,
    /// The provider's key: sent only if the source asks for it, to the first host, which must be
    /// one of `key_hosts`, and on redirects only as long as scheme, host and port stay the same.
    pub auth: Option<HeaderMap>,
    /// Where it goes.
    pub storage: &'a Storage,
    /// Its name there.
    pub key: &'a Key,
    /// What it may be; empty: anything.
    pub kinds: &'a [Medium],
    /// Instead of [`Limits::max_bytes`].
    pub max_bytes: Option<u64>,
    /// Instead of [`Limits::time_budget`].
    pub time_budget: Option<Duration>,
    /// Who gives out memory; none: as much as it takes.
    pub memory: Option<&'a dyn Memory>,
    /// Where it is noted what may be left over.
    pub journal: Arc<dyn Journal>,
}

/// Gives out memory to copies. A copy asks once its file answers and says how large it is: before that it holds none.
pub trait Memory: fmt::Debug + Send + Sync {
    /// Takes so many bytes for this copy, instead of what it has; false if they are not free now.
    fn take(&self, bytes: u64) -> bool;
}

/// Takes memory for a file that says its size, or does not.
fn take_memory(memory: Option<&dyn Memory>, size: Option<u64>, limits: &Limits) -> Result<(), CopyError> {
    let most = memory_bytes(limits.max_bytes);
    let bytes = size.map_or(most, |size| size.min(most));
    match memory {
        Some(memory) if !memory.take(bytes) => Err(CopyError::NoMemory { bytes }),
        Some(_) | None => Ok(()),
    }
}

/// How far a copy may go.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest file, in bytes, counted after decompression.
    pub max_bytes: u64,
    /// For the whole copy, from the first look-up of a name to the last byte stored.
    pub time_budget: Duration,
    /// For an answer to begin, and between one piece of the file and the next.
    pub stall: Duration,
    /// How many redirects are followed.
    pub max_redirects: usize,
    /// How often a download that breaks is tried again without getting on.
    pub tries: u32,
    /// Before the first of these tries; each further one waits twice as long.
    pub pause: Duration,
    /// Whether files may come from this machine: for the demo and for tests.
    pub allow_loopback: bool,
}

impl Default for Limits {
    /// 4 GiB in 15 minutes, 30 seconds without a byte, 5 redirects, 4 more tries, nothing from this machine.
    fn default() -> Self {
        Self {
            max_bytes: 4 << 30,
            time_budget: Duration::from_mins(15),
            stall: Duration::from_secs(30),
            max_redirects: 5,
            tries: 4,
            pause: Duration::from_millis(500),
            allow_loopback: false,
        }
    }
}

/// A file that is home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The object's key with its extension: to delete it, should settle not want it.
    pub key: Key,
    /// The number of its note in the journal: taken back when the object is named, or deleted.
    pub note: i64,
    /// Where it is: `file:///…`, `s3://bucket/…`.
    pub uri: String,
    /// Its length in bytes.
    pub size_bytes: i64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// The type to record.
    pub content_type: String,
    /// The type by its first bytes, where they tell.
    pub sniffed: Option<String>,
    /// The type by the provider's header, where there was one.
    pub declared: Option<String>,
    /// The host that served it; [`INLINE`] for a file that stood in the answer itself.
    pub source_host: String,
}

/// [`Copied::source_host`] of a file that stood in the provider's answer.
pub const INLINE: &str = "inline";

/// Why a file is not home. No object is left behind. Messages hold no URL beyond its host.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The provider no longer has it: 410, or 404 (which a fresh URL might cure).
    #[error("the file is gone: {host} answered {status}")]
    Gone {
        /// The host that said so.
        host: String,
        /// 404 or 410.
        status: u16,
    },
    /// The URL, or one that it redirects to, is not one that is followed.
    #[error("the URL of the file is refused: {reason}{}", in_brackets(host.as_deref()))]
    Refused {
        /// The host of the URL that is refused, where it has one.
        host: Option<String>,
        /// Why.
        reason: UrlRefusal,
    },
    /// What came is not a whole output.
    #[error("what came is not an output: {why}")]
    NotAnOutput {
        /// Why not.
        why: NotOutput,
    },
    /// It is larger than allowed.
    #[error("the file is larger than {max_bytes} bytes")]
    TooLarge {
        /// The cap.
        max_bytes: u64,
    },
    /// The file is there, and others have the memory for it: to be tried again once so much is free. Nothing was written.
    #[error("there is no memory for {bytes} bytes of the file now")]
    NoMemory {
        /// How much it needs.
        bytes: u64,
    },
    /// It took longer than allowed.
    #[error("the copy took too long: {what}")]
    TimedOut {
        /// Which limit ended it.
        what: TimeLimit,
    },
    /// The host wants credentials, or others: 401 or 403. A signed URL that ran out looks like this too.
    #[error("{host} refused access to the file with {status}")]
    Unauthorized {
        /// The host that said so.
        host: String,
        /// 401 or 403.
        status: u16,
    },
    /// Any other answer without a file.
    #[error("{host} answered {status} instead of the file")]
    Http {
        /// The host that said so.
        host: String,
        /// Its status.
        status: u16,
    },
    /// No answer, or one that broke off.
    #[error("could not read the file from {host}")]
    Network {
        /// The host that was asked.
        host: String,
        /// The client's reason, without the URL.
        #[source]
        source: Box<crate::http::Error>,
    },
    /// A bucket that could not be read.
    #[error(
        "could not read the file from {host}; makegood's own account needs to be able to read objects there"
    )]
    Bucket {
        /// The bucket: `gs://name`.
        host: String,
        /// The client's reason.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The platform's own storage.
    #[error("could not store the file")]
    Storage(#[source] StorageError),
    /// What may be left over could not be noted, so nothing was begun.
    #[error("could not note where the file is about to be stored")]
    Journal {
        /// Why not.
        #[source]
        source: JournalError,
    },
}

/// A host in brackets; a long one is cut.
fn in_brackets(host: Option<&str>) -> String {
    host.map_or_else(String::new, |host| format!(" ({})", host.chars().take(100).collect::<String>()))
}

impl CopyError {
    /// As events and logs spell it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Gone { .. } => "gone",
            Self::Refused { .. } => "refused",
            Self::NotAnOutput { .. } => "not_an_output",
            Self::TooLarge { .. } => "too_large",
            Self::NoMemory { .. } => "no_memory",
            Self::TimedOut { .. } => "timed_out",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Http { .. } => "http",
            Self::Network { .. } => "network",
            Self::Bucket { .. } => "bucket",
            Self::Storage(_) => "storage",
            Self::Journal { .. } => "journal",
        }
    }

    /// The finer reason, where there is one: why a URL was refused, why a file is no output.
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Refused { reason, .. } => Some(reason.as_str()),
            Self::NotAnOutput { why } => Some(why.as_str()),
            Self::TimedOut { what } => Some(what.as_str()),
            Self::Gone { .. }
            | Self::TooLarge { .. }
            | Self::NoMemory { .. }
            | Self::Unauthorized { .. }
            | Self::Http { .. }
            | Self::Network { .. }
            | Self::Bucket { .. }
            | Self::Storage(_)
            | Self::Journal { .. } => None,
        }
    }
}

impl From<StorageError> for CopyError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<NotOutput> for CopyError {
    fn from(why: NotOutput) -> Self {
        Self::NotAnOutput { why }
    }
}

impl From<UrlRefusal> for CopyError {
    fn from(reason: UrlRefusal) -> Self {
        Self::Refused { host: None, reason }
    }
}

/// Why what came is not a whole output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotOutput {
    /// The offer names no file.
    NoFile,
    /// Not one byte.
    Empty,
    /// A page for people, most likely an error.
    Html,
    /// An XML document, most likely a bucket's error.
    Xml,
    /// A JSON object that reports an error.
    Error,
    /// Less than its length promised.
    Truncated,
    /// Compressed in a way that was not asked for and is not understood.
    Encoded,
    /// Surely of another kind than the model makes: words instead of a film.
    WrongKind,
}

impl NotOutput {
    /// As events and logs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoFile => "no_file",
            Self::Empty => "empty",
            Self::Html => "html",
            Self::Xml => "xml",
            Self::Error => "error",
            Self::Truncated => "truncated",
            Self::Encoded => "encoded",
            Self::WrongKind => "wrong_kind",
        }
    }
}

impl fmt::Display for NotOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which limit ended a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeLimit {
    /// Nothing came for [`Limits::stall`].
    Stall,
    /// [`Limits::time_budget`] was used up.
    Budget,
}

impl TimeLimit {
    /// As events and logs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stall => "stalled",
            Self::Budget => "budget_used_up",
        }
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
