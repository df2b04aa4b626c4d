//! What can go wrong with the storage.

/// What went wrong with the storage. Messages never hold credentials.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The URL of the settings is none that is understood.
    #[error(
        "the storage URL cannot be used: {why}; write file:./directory, file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    Url {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A variable of the environment would make the client fail, panic, or write to another place
    /// than the one that is recorded.
    #[error("the storage {root} cannot be used: the environment variable {variable} {why}")]
    Variable {
        /// The storage's URL without the prefix.
        root: String,
        /// Its name, as it is spelled in the environment.
        variable: String,
        /// What is wrong with it and what to write instead. Never its value.
        why: String,
    },
    /// The client could not be made, usually for lack of credentials.
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
        /// `write`, `read` or `delete`.
        action: &'static str,
        /// Which object.
        uri: String,
        /// The store's reason.
        #[source]
        source: Box<object_store::Error>,
    },
    /// An object lies in another storage than the one of the settings.
    #[error("{uri} does not lie in {root}, the storage of the settings")]
    Elsewhere {
        /// Which object.
        uri: String,
        /// The storage's URL without the prefix.
        root: String,
    },
    /// A symbolic link lies where an object, or a directory of objects, belongs.
    #[error(
        "could not {action} {uri}: {} is a symbolic link, and links in the storage are not followed; remove it",
        link.display()
    )]
    Link {
        /// `write`, `read` or `delete`.
        action: &'static str,
        /// Which object.
        uri: String,
        /// Where the link lies.
        link: std::path::PathBuf,
    },
    /// What was read back is not what was written.
    #[error("what was read back from {uri} is not what was written to it; is it one storage?")]
    Differs {
        /// Which object.
        uri: String,
    },
}
