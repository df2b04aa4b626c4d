//! Whether this binary and the tables are made for each other: compared at the start of every
//! command that uses the tables.
//!
//! Tables of an older version lack columns that statements name. Tables of a newer version serve an
//! older binary, so that both can run during an upgrade, unless a migration says that they do not:
//! it sets the row of `makegood_minimum_version`. Reads only.

use super::{DbError, OWN_VERSION, Store, first, statements};

/// How makegood's own tables stand to this binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// Made for it.
    Current,
    /// They were never made, or lie elsewhere.
    Missing,
    /// Of this version; `makegood migrate` brings them up to date.
    Older(i64),
    /// Of this version, which a binary that knows [`OWN_VERSION`] may work with.
    Newer(i64),
    /// Of a version that only newer binaries may work with.
    TooNew {
        /// Their version.
        version: i64,
        /// The oldest that a binary must know.
        minimum: i64,
    },
}

impl Store {
    /// Compares the version of the tables with the one that this binary was made for.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn tables(&self) -> Result<Tables, DbError> {
        let version = match self.own_version().await {
            Ok(Some(version)) => version,
            Ok(None) => return Ok(Tables::Missing),
            Err(error) if error.is_about_missing_tables() => return Ok(Tables::Missing),
            Err(error) => return Err(error),
        };
        if version <= OWN_VERSION {
            return Ok(if version == OWN_VERSION { Tables::Current } else { Tables::Older(version) });
        }
        let rows = self.rows(statements::MINIMUM_VERSION, &[]).await?;
        let minimum = first(statements::MINIMUM_VERSION, &rows)?.maybe_int("version")?.unwrap_or(0);
        Ok(if minimum > OWN_VERSION { Tables::TooNew { version, minimum } } else { Tables::Newer(version) })
    }
}
