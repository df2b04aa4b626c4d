//! Where a copy notes what it may leave over, before it begins to.
//!
//! A process can be killed at any byte, and no bucket tells later what was begun in it. So each object is noted first, with
//! the id of its upload once there is one; the note goes when somebody names the object, or when nothing is left of it. Notes are kept
//! by whoever gives out the leases ([`Journal`]); `Storage::clear` removes what a note tells of.

use std::error::Error;
use std::fmt;

use futures_util::future::BoxFuture;

/// Where an object may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The storage without its prefix: `file://`, `s3://bucket`.
    pub storage: String,
    /// The object's path in it, as the store spells it.
    pub path: String,
    /// The object's address, as stored outputs name it.
    pub uri: String,
}

/// Why something could not be noted.
pub type JournalError = Box<dyn Error + Send + Sync>;

/// Keeps notes for one lease. What it returns from is on record, whatever happens next.
pub trait Journal: fmt::Debug + Send + Sync {
    /// An object is about to be written there. Returns the note's number.
    fn begin(&self, place: Place) -> BoxFuture<'_, Result<i64, JournalError>>;

    /// It is written in parts, and this is the store's id of the upload.
    fn upload_id(&self, note: i64, id: String) -> BoxFuture<'_, Result<(), JournalError>>;

    /// Nothing is left of it.
    fn forget(&self, note: i64) -> BoxFuture<'_, Result<(), JournalError>>;
}
