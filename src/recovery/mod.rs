//! Copies one output file from the provider into the platform's storage.
//!
//! Promises: a file that [`Fetcher::copy`] returns is stored completely, and the returned length
//! and SHA-256 are those of the stored bytes. A copy that fails deletes what it wrote, if storage
//! still answers. Memory use does not depend on the size of the file. The URL is untrusted (`link`,
//! `address`), and so is the content (`file_type`, [`CopyLimits`]).
//!
//! `policy` decides whether to recover, and settle records the result. No transaction is open
//! during a copy.
//!
//! A copy that breaks off is resumed within the same process (`resume`). If the process is killed,
//! at most one object, one temporary file (`name#1`) or one unfinished multipart upload remains,
//! under a key that no row names and no later lease uses. Its location was recorded first
//! (`upload_log`), so the sweep of a later pass removes it. The next lease copies from the
//! beginning, under its own key.

mod address;
mod bucket;
mod fetch;
mod file_type;
mod key;
mod link;
mod resume;
mod storage;
#[cfg(test)]
mod tests;
mod upload;
mod upload_log;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::egress::Hosts;
use crate::evidence::Source;

pub use address::AddressRefusal;
pub use bucket::is_bucket_name;
pub use fetch::{Fetcher, FetcherError};
pub use file_type::Medium;
pub use key::ObjectKey;
pub use link::UrlRefusal;
pub use storage::{ObjectStorage, StorageError};
pub use upload_log::{ObjectLocation, UploadLog, UploadLogError};
pub use write::memory_bytes;

/// Why a pass would refuse this URL, as far as that can be decided without a request. `listed` and
/// `key_hosts` are the provider's host lists. A redirect, or the address that a name resolves to,
/// may still be refused during the copy.
pub fn refusal(
    source: &Source,
    listed: &Hosts,
    key_hosts: &Hosts,
    allow_loopback: bool,
) -> Option<UrlRefusal> {
    let Source::Url { url, auth } = source else { return None };
    if bucket::is_bucket_url(url) {
        return bucket::check(url, listed).err();
    }
    let loopback = if allow_loopback { address::Loopback::Allowed } else { address::Loopback::Refused };
    let checked = link::parse(url).and_then(|url| {
        link::check(&url, listed, loopback)?;
        if *auth { link::check_key(&url, key_hosts, loopback) } else { Ok(()) }
    });
    checked.err()
}

/// One file to copy: its source, its destination and its limits.
#[derive(Debug)]
pub struct CopyRequest<'a> {
    /// The file's URL, or its bytes.
    pub source: &'a Source,
    /// The provider's `output_hosts`.
    pub allowed_hosts: &'a Hosts,
    /// The provider's `key_hosts`.
    pub key_hosts: &'a Hosts,
    /// The provider's key. It is sent only if the source asks for it and the host is one of
    /// `key_hosts`. A redirect gets it only while scheme, host and port stay the same.
    pub auth: Option<HeaderMap>,
    /// The destination.
    pub storage: &'a ObjectStorage,
    /// The object's name in `storage`, without its extension.
    pub key: &'a ObjectKey,
    /// The media that the model makes. An empty list accepts any file.
    pub media: &'a [Medium],
    /// Replaces [`CopyLimits::max_bytes`].
    pub max_bytes: Option<u64>,
    /// Replaces [`CopyLimits::time_budget`].
    pub time_budget: Option<Duration>,
    /// Limits the memory of all copies together. `None`: no limit.
    pub memory: Option<&'a dyn MemoryBudget>,
    /// Records each object before it is written.
    pub upload_log: Arc<dyn UploadLog>,
}

/// The memory that all copies of a process share. A copy reserves its part when the response
/// headers announce the file's size, and holds none before that.
pub trait MemoryBudget: fmt::Debug + Send + Sync {
    /// Replaces this copy's reservation by one of `bytes`. Returns false if that much is not free
    /// now.
    fn reserve(&self, bytes: u64) -> bool;
}

/// Reserves memory for a file of `size` bytes. Without a size, for the largest file allowed.
fn reserve_memory(
    memory: Option<&dyn MemoryBudget>,
    size: Option<u64>,
    limits: &CopyLimits,
) -> Result<(), CopyError> {
    let most = memory_bytes(limits.max_bytes);
    let bytes = size.map_or(most, |size| size.min(most));
    match memory {
        Some(memory) if !memory.reserve(bytes) => Err(CopyError::NoMemory { bytes }),
        Some(_) | None => Ok(()),
    }
}

/// Limits of one copy.
#[derive(Clone, Debug)]
pub struct CopyLimits {
    /// The largest file, in bytes after decompression.
    pub max_bytes: u64,
    /// Time limit of the whole copy, from the first DNS lookup to the last byte stored.
    pub time_budget: Duration,
    /// The longest wait for the response headers, and between two pieces of the body.
    pub stall_timeout: Duration,
    /// How many redirects are followed.
    pub max_redirects: usize,
    /// How many consecutive retries without progress are made after a download broke off.
    pub max_retries: u32,
    /// Delay before the first retry. It doubles with each further one.
    pub retry_delay: Duration,
    /// Whether files may come from a loopback address. For the demo and tests only.
    pub allow_loopback: bool,
}

impl Default for CopyLimits {
    /// 4 GiB, 15 minutes, stall timeout 30 seconds, 5 redirects, 4 retries, no loopback.
    fn default() -> Self {
        Self {
            max_bytes: 4 << 30,
            time_budget: Duration::from_mins(15),
            stall_timeout: Duration::from_secs(30),
            max_redirects: 5,
            max_retries: 4,
            retry_delay: Duration::from_millis(500),
            allow_loopback: false,
        }
    }
}

/// A file that was copied into storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedFile {
    /// The object's key with its extension. Needed to delete the object if settle does not use it.
    pub key: ObjectKey,
    /// Its entry in the upload log. Removed when a row names the object, or after the object was
    /// deleted.
    pub log_entry: i64,
    /// Its URI: `file:///…`, `s3://bucket/…`.
    pub uri: String,
    /// Its length in bytes.
    pub size_bytes: i64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// The content type under which it is stored and recorded.
    pub content_type: String,
    /// The type detected from its first bytes, if any.
    pub sniffed: Option<String>,
    /// The type that the provider declared, if any.
    pub declared: Option<String>,
    /// The host that served it, or [`INLINE`].
    pub source_host: String,
}

/// [`CopiedFile::source_host`] of a file whose bytes were part of the provider's answer.
pub const INLINE: &str = "inline";

/// Why a file was not copied. Messages name the host but never the URL, which may be signed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The provider no longer has the file: 410, or 404. After a 404 a fresh URL may still work.
    #[error("the file is gone: {host} answered {status}")]
    Gone {
        /// The host that answered.
        host: String,
        /// 404 or 410.
        status: u16,
    },
    /// The URL, or a redirect from it, is not allowed.
    #[error("the URL of the file is refused: {reason}{}", in_brackets(host.as_deref()))]
    Refused {
        /// The host of the refused URL, if it has one.
        host: Option<String>,
        /// The rule that it breaks.
        reason: UrlRefusal,
    },
    /// The content is not a complete output.
    #[error("the downloaded file is not an output: {why}")]
    NotAnOutput {
        /// What is wrong with it.
        why: NotOutput,
    },
    /// The file is larger than [`CopyLimits::max_bytes`].
    #[error("the file is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// Other copies hold the memory that this one needs. Nothing was written. Retry when `bytes`
    /// are free.
    #[error("not enough free memory to copy the file: {bytes} bytes are needed")]
    NoMemory {
        /// How much it needs.
        bytes: u64,
    },
    /// A time limit expired.
    #[error("the copy took too long: {limit}")]
    TimedOut {
        /// Which limit.
        limit: TimeLimit,
    },
    /// 401 or 403. An expired signed URL is answered like this too.
    #[error("{host} refused access to the file with status {status}")]
    Unauthorized {
        /// The host that answered.
        host: String,
        /// 401 or 403.
        status: u16,
    },
    /// Any other status without a file.
    #[error("{host} answered with status {status} instead of the file")]
    Http {
        /// The host that answered.
        host: String,
        /// Its status.
        status: u16,
    },
    /// No response, or one that broke off.
    #[error("could not download the file from {host}")]
    Network {
        /// The host of the request.
        host: String,
        /// The client's reason, without the URL.
        #[source]
        source: Box<crate::http::Error>,
    },
    /// A provider's bucket could not be read.
    #[error(
        "could not read the file from {host}; give makegood's Google account the right to read objects there"
    )]
    Bucket {
        /// The bucket: `gs://name`.
        host: String,
        /// The client's reason.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The platform's storage failed.
    #[error("could not store the file")]
    Storage(#[source] StorageError),
    /// The object could not be recorded before writing it, so nothing was written.
    #[error("could not record where the file will be stored, so nothing was written")]
    UploadLog {
        /// The reason.
        #[source]
        source: UploadLogError,
    },
}

/// A host in brackets, cut after 100 characters.
fn in_brackets(host: Option<&str>) -> String {
    host.map_or_else(String::new, |host| format!(" ({})", host.chars().take(100).collect::<String>()))
}

impl CopyError {
    /// The stored word, as events and logs spell it.
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
            Self::UploadLog { .. } => "journal",
        }
    }

    /// The stored word for the detail, if there is one: which rule a URL breaks, why a file is not
    /// an output.
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Refused { reason, .. } => Some(reason.as_str()),
            Self::NotAnOutput { why } => Some(why.as_str()),
            Self::TimedOut { limit } => Some(limit.as_str()),
            Self::Gone { .. }
            | Self::TooLarge { .. }
            | Self::NoMemory { .. }
            | Self::Unauthorized { .. }
            | Self::Http { .. }
            | Self::Network { .. }
            | Self::Bucket { .. }
            | Self::Storage(_)
            | Self::UploadLog { .. } => None,
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

/// Why downloaded content is not a complete output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotOutput {
    /// The offer names no file.
    NoFile,
    /// The file has no bytes.
    Empty,
    /// An HTML page, most likely an error page.
    Html,
    /// An XML document, most likely a bucket's error.
    Xml,
    /// A JSON object that reports an error.
    Error,
    /// Shorter than its announced length.
    Truncated,
    /// A content encoding that was not requested and cannot be decoded.
    Encoded,
    /// Certainly not one of the media that the model makes, for example text instead of a video.
    WrongKind,
}

impl NotOutput {
    /// The stored word, as events and logs spell it.
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

/// The time limit that ended a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeLimit {
    /// No bytes arrived for [`CopyLimits::stall_timeout`].
    Stall,
    /// [`CopyLimits::time_budget`] expired.
    Budget,
}

impl TimeLimit {
    /// The stored word, as events and logs spell it.
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
