//! Errors of the storage.

/// Why an operation of the storage failed. Messages never contain credentials.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// `storage.url` is not valid.
    #[error(
        "the storage URL cannot be used: {why}; write file:./directory, file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    Url {
        /// What is wrong with it.
        why: &'static str,
    },
    /// An environment variable would make the client fail, panic, or write to another place than
    /// the recorded URI.
    #[error("the storage {root} cannot be used: the environment variable {variable} {why}")]
    Variable {
        /// The storage's URL without the prefix.
        root: String,
        /// Its name.
        variable: String,
        /// What is wrong with it, and what to set instead. Never its value.
        why: String,
    },
    /// The client could not be created, usually because credentials are missing.
    #[error("could not open the storage {root}; check the environment variables that its client reads")]
    Open {
        /// The storage's URL without the prefix.
        root: String,
        /// The client's reason.
        #[source]
        source: Box<object_store::Error>,
    },
    /// An object could not be written, read or deleted.
    #[error("could not {action} {uri}")]
    Object {
        /// `write`, `read`, `delete` or `abort`.
        action: &'static str,
        /// The object.
        uri: String,
        /// The store's reason.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The object is in another storage than `storage.url`.
    #[error("{uri} is not in {root}, the storage of `storage.url`")]
    Elsewhere {
        /// The object.
        uri: String,
        /// The storage's URL without the prefix.
        root: String,
    },
    /// There is a symbolic link in place of an object or of its directory.
    #[error(
        "could not {action} {uri}: {} is a symbolic link, and links in the storage are not followed; remove it",
        link.display()
    )]
    Link {
        /// `write`, `read` or `delete`.
        action: &'static str,
        /// The object.
        uri: String,
        /// The path of the link.
        link: std::path::PathBuf,
    },
    /// The bytes read back differ from the bytes written.
    #[error(
        "the storage returned other bytes for {uri} than were written; do all requests reach the same storage?"
    )]
    Differs {
        /// The object.
        uri: String,
    },
}
