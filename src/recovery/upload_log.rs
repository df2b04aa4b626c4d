//! Write-ahead log of uploads: records each object before it is written.
//!
//! A process can be killed at any byte, and a bucket does not list what was started in it. So a
//! copy records the object's location first, and the id of its multipart upload as soon as there is
//! one. The entry is removed when a row names the object, or when nothing of it is left in storage.
//! An entry that remains belongs to a killed copy: the sweep removes its object with
//! `ObjectStorage::clear`. The caller implements [`UploadLog`] (the store: one row for each entry).

use std::error::Error;
use std::fmt;

use futures_util::future::BoxFuture;

/// Where an object may have been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLocation {
    /// The storage's URL without its prefix: `file://`, `s3://bucket`.
    pub storage: String,
    /// The object's path in the storage, including the prefix.
    pub path: String,
    /// The object's URI, as in `stored_outputs`.
    pub uri: String,
}

/// Why an entry could not be written.
pub type UploadLogError = Box<dyn Error + Send + Sync>;

/// The upload log of one lease. Each method returns after its change is durable.
pub trait UploadLog: fmt::Debug + Send + Sync {
    /// Adds an entry for an object that will be written next. Returns the entry's number.
    fn record(&self, location: ObjectLocation) -> BoxFuture<'_, Result<i64, UploadLogError>>;

    /// Adds the store's id of the multipart upload to an entry.
    fn record_upload_id(&self, entry: i64, id: String) -> BoxFuture<'_, Result<(), UploadLogError>>;

    /// Removes the entry of an object of which nothing is left.
    fn remove(&self, entry: i64) -> BoxFuture<'_, Result<(), UploadLogError>>;
}
