//! Makes and upgrades the tables: makegood's own, and the reference schema for platforms that want it.
//!
//! The two sets have a history table each, so that neither collides with the platform's own migrations.
//! They run on a connection of their own that is closed afterwards: after a failure the lock would stay held.

use sqlx::migrate::{MigrateError as SqlxMigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection as _, SqlSafeStr as _};

use super::{DbError, Store, db::Db};

/// The tables could not be made or upgraded.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No connection.
    #[error("could not connect to the database to migrate it")]
    Connect(#[source] sqlx::Error),
    /// The lock that keeps two migrations apart belongs to a session, which a pooler does not keep.
    #[error(
        "could not migrate the database through the pooler at {place}. Run `makegood migrate` with the address of the \
         server itself in DATABASE_URL; all other commands may go through the pooler"
    )]
    Pooled {
        /// Where the pooler is.
        place: String,
    },
    /// A migration failed; it was rolled back.
    #[error("could not migrate {what}{advice}")]
    Migrate {
        /// Which set.
        what: &'static str,
        /// What to do.
        advice: &'static str,
        /// What the database said.
        #[source]
        source: SqlxMigrateError,
    },
    /// The tables are there, but a relation of the platform's is not as makegood needs it.
    #[error("makegood's own tables are there, but not all that it needs of the platform{advice}")]
    Contract {
        /// What to do.
        advice: &'static str,
        /// Which statement names what is not there.
        #[source]
        source: DbError,
    },
}

struct Set {
    what: &'static str,
    history: &'static str,
    advice: &'static str,
    postgres: &'static [(i64, &'static str, &'static str)],
    sqlite: &'static [(i64, &'static str, &'static str)],
}

const REFERENCE: Set = Set {
    what: "the reference schema",
    history: "makegood_reference_migrations",
    advice: ": if the platform has relations of these names already, leave out --reference-schema",
    postgres: &[(1, "contract", include_str!("../../migrations/reference/postgres/0001_contract.sql"))],
    sqlite: &[(1, "contract", include_str!("../../migrations/reference/sqlite/0001_contract.sql"))],
};

const OWN: Set = Set {
    what: "makegood's own tables",
    history: "makegood_migrations",
    advice: ": the contract relations (charges, charge_items, stored_outputs, balances, ledger_entries) must exist first, \
             as tables or views of the platform; `makegood migrate --reference-schema` makes them where there are none",
    postgres: &[
        (1, "makegood", include_str!("../../migrations/postgres/0001_makegood.sql")),
        (2, "uploads", include_str!("../../migrations/postgres/0002_uploads.sql")),
        (3, "late", include_str!("../../migrations/postgres/0003_late.sql")),
        (4, "provider_state", include_str!("../../migrations/postgres/0004_provider_state.sql")),
        (5, "lock_balances", include_str!("../../migrations/postgres/0005_lock_balances.sql")),
        (6, "own_faults", include_str!("../../migrations/postgres/0006_own_faults.sql")),
        (7, "size", include_str!("../../migrations/postgres/0007_size.sql")),
        (8, "refund_sums", include_str!("../../migrations/postgres/0008_refund_sums.sql")),
        (9, "provider_shares", include_str!("../../migrations/postgres/0009_provider_shares.sql")),
        (10, "account_limits", include_str!("../../migrations/postgres/0010_account_limits.sql")),
        (11, "proofs", include_str!("../../migrations/postgres/0011_proofs.sql")),
        (12, "posting", include_str!("../../migrations/postgres/0012_posting.sql")),
        (13, "pinned_names", include_str!("../../migrations/postgres/0013_pinned_names.sql")),
    ],
    sqlite: &[
        (1, "makegood", include_str!("../../migrations/sqlite/0001_makegood.sql")),
        (2, "uploads", include_str!("../../migrations/sqlite/0002_uploads.sql")),
        (3, "late", include_str!("../../migrations/sqlite/0003_late.sql")),
        (4, "provider_state", include_str!("../../migrations/sqlite/0004_provider_state.sql")),
        (5, "lock_balances", include_str!("../../migrations/sqlite/0005_lock_balances.sql")),
        (6, "own_faults", include_str!("../../migrations/sqlite/0006_own_faults.sql")),
        (7, "size", include_str!("../../migrations/sqlite/0007_size.sql")),
        (8, "refund_sums", include_str!("../../migrations/sqlite/0008_refund_sums.sql")),
        (9, "provider_shares", include_str!("../../migrations/sqlite/0009_provider_shares.sql")),
        (10, "account_limits", include_str!("../../migrations/sqlite/0010_account_limits.sql")),
        (11, "proofs", include_str!("../../migrations/sqlite/0011_proofs.sql")),
        (12, "posting", include_str!("../../migrations/sqlite/0012_posting.sql")),
        (13, "pinned_names", include_str!("../../migrations/sqlite/0013_pinned_names.sql")),
    ],
};

/// The newest of makegood's own migrations.
pub const OWN_VERSION: i64 = 13;

impl Set {
    fn migrator(&self, postgres: bool) -> Migrator {
        let migrations = if postgres { self.postgres } else { self.sqlite };
        let migrations = migrations.iter().map(|(version, name, sql)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
        });
        let mut migrator = Migrator::with_migrations(migrations.collect());
        migrator.dangerous_set_table_name(self.history);
        migrator
    }

    async fn run(&self, db: &Db) -> Result<(), MigrateError> {
        let failed = |source| MigrateError::Migrate { what: self.what, advice: self.advice, source };
        match db {
            Db::Postgres(server) if server.link().pooled => {
                Err(MigrateError::Pooled { place: server.link().place.clone() })
            }
            Db::Postgres(server) => {
                // A migration waits for the locks of what is at work, as long as a statement may take.
                let options = (*server.pool().connect_options()).clone().options([("lock_timeout", "0")]);
                let mut connection =
                    sqlx::PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
                let result = self.migrator(true).run_direct(None, &mut connection, false).await;
                // Closing gives the migration lock back; that it fails says nothing about the tables.
                let _closed = connection.close().await;
                result.map_err(failed)
            }
            Db::Sqlite(pool) => {
                // A database in memory has only the pool's connection; SQLite's lock ends with the transaction.
                let mut connection = pool.acquire().await.map_err(MigrateError::Connect)?;
                self.migrator(false).run_direct(None, &mut *connection, false).await.map_err(failed)
            }
        }
    }
}

impl Store {
    /// Makes or upgrades makegood's tables, with the reference schema before them if asked. Safe to repeat.
    ///
    /// # Errors
    /// A statement fails; that migration is rolled back and the ones before it stay.
    pub async fn migrate(&self, reference_schema: bool) -> Result<(), MigrateError> {
        if reference_schema {
            REFERENCE.run(&self.db).await?;
        }
        OWN.run(&self.db).await?;
        // SQLite makes views over nothing, and a column may be named by a statement alone.
        self.prepare_all().await.map_err(|source| MigrateError::Contract { advice: OWN.advice, source })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_databases_have_the_same_migrations_and_the_newest_is_the_one_that_is_checked_for() {
        for set in [&OWN, &REFERENCE] {
            let versions =
                |migrations: &[(i64, &str, &str)]| migrations.iter().map(|each| each.0).collect::<Vec<_>>();
            assert_eq!(versions(set.postgres), versions(set.sqlite));
        }
        assert_eq!(OWN.postgres.last().map(|each| each.0), Some(OWN_VERSION));
    }
}
