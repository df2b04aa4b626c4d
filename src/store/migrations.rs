//! Makes and upgrades the tables: makegood's own, and the reference schema for platforms that want it.
//!
//! The two sets have a history table each, so that neither collides with the platform's own
//! migrations. What one run adds to a set is one transaction: all of it or nothing. Before it, the
//! platform's relations are compared with what makegood needs.
//!
//! On PostgreSQL it runs on a connection of its own that is closed afterwards: after a failure the
//! lock would stay held. A migration that waits for a lock makes everybody wait who comes after it,
//! so it waits [`LOCK_WAIT`] at a time, gives up all that it has locked, and tries again,
//! [`LOCK_TRIES`] times. A statement may take [`STATEMENT_TIMEOUT`].
//!
//! A migration whose first line is `-- no-transaction` is one statement outside of a transaction:
//! `CREATE INDEX CONCURRENTLY`, for a table that may be large, so that nobody's writes wait for it.
//! Where it fails it leaves an invalid index behind, which the next run drops before it tries
//! again.

use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError as SqlxMigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _};

use super::{Store, db, db::Db};

mod wrong;

pub use wrong::MigrateError;

/// How long a migration waits for one lock. So long others may have to wait behind it.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// How often it tries, with [`LOCK_PAUSE`] in between, in which those who waited behind it go
/// first.
const LOCK_TRIES: u32 = 10;
/// The pause before it tries again.
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// How long a statement of a migration may take: an index of a large table takes longer than any
/// statement of a pass.
const STATEMENT_TIMEOUT: Duration = Duration::from_hours(1);

/// The first line of a migration that runs outside of a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

/// How long one statement waits for another process that migrates: shorter than `deadlock_timeout`,
/// which is a second.
const LOCK_TURN: Duration = Duration::from_millis(100);

/// Indexes of makegood's own that a `CREATE INDEX CONCURRENTLY` left unfinished.
const INVALID_INDEXES: &str = "
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class t ON t.oid = i.indrelid
    WHERE NOT i.indisvalid AND t.relkind = 'r' AND starts_with(t.relname, 'makegood_') AND starts_with(c.relname, 'makegood_')
      AND pg_table_is_visible(t.oid)";

struct Set {
    what: &'static str,
    history: &'static str,
    /// What to do where a name is taken.
    taken: &'static str,
    postgres: &'static [(i64, &'static str, &'static str)],
    sqlite: &'static [(i64, &'static str, &'static str)],
}

const REFERENCE: Set = Set {
    what: "the reference schema",
    history: "makegood_reference_migrations",
    taken: "if the platform has relations of these names already, leave out --reference-schema",
    postgres: &[
        (1, "contract", include_str!("../../migrations/reference/postgres/0001_contract.sql")),
        (
            2,
            "nullable_columns",
            include_str!("../../migrations/reference/postgres/0002_nullable_columns.sql"),
        ),
    ],
    sqlite: &[
        (1, "contract", include_str!("../../migrations/reference/sqlite/0001_contract.sql")),
        (2, "nullable_columns", include_str!("../../migrations/reference/sqlite/0002_nullable_columns.sql")),
    ],
};

const OWN: Set = Set {
    what: "makegood's own tables",
    history: "makegood_migrations",
    taken: "names that begin with makegood_ are makegood's: rename the platform's own",
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
        (14, "trial", include_str!("../../migrations/postgres/0014_trial.sql")),
        (15, "nullable_columns", include_str!("../../migrations/postgres/0015_nullable_columns.sql")),
        (16, "minimum_version", include_str!("../../migrations/postgres/0016_minimum_version.sql")),
        (17, "poison", include_str!("../../migrations/postgres/0017_poison.sql")),
        (18, "store_output", include_str!("../../migrations/postgres/0018_store_output.sql")),
        (19, "erasure", include_str!("../../migrations/postgres/0019_erasure.sql")),
        (20, "poison_index", include_str!("../../migrations/postgres/0020_poison_index.sql")),
        (21, "posting_by_key", include_str!("../../migrations/postgres/0021_posting_by_key.sql")),
        (22, "cheaper_rows", include_str!("../../migrations/postgres/0022_cheaper_rows.sql")),
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
        (14, "trial", include_str!("../../migrations/sqlite/0014_trial.sql")),
        (15, "nullable_columns", include_str!("../../migrations/sqlite/0015_nullable_columns.sql")),
        (16, "minimum_version", include_str!("../../migrations/sqlite/0016_minimum_version.sql")),
        (17, "poison", include_str!("../../migrations/sqlite/0017_poison.sql")),
        (18, "store_output", include_str!("../../migrations/sqlite/0018_store_output.sql")),
        (19, "erasure", include_str!("../../migrations/sqlite/0019_erasure.sql")),
        (20, "poison_index", include_str!("../../migrations/sqlite/0020_poison_index.sql")),
        (21, "posting_by_key", include_str!("../../migrations/sqlite/0021_posting_by_key.sql")),
        (22, "cheaper_rows", include_str!("../../migrations/sqlite/0022_cheaper_rows.sql")),
    ],
};

/// The newest of makegood's own migrations.
pub const OWN_VERSION: i64 = 22;

impl Set {
    const fn migrations(&self, postgres: bool) -> &'static [(i64, &'static str, &'static str)] {
        if postgres { self.postgres } else { self.sqlite }
    }

    /// The newest migration of the set.
    fn newest(&self, postgres: bool) -> i64 {
        self.migrations(postgres).last().map_or(0, |each| each.0)
    }

    /// The text of a migration.
    fn text(&self, version: i64, postgres: bool) -> &'static str {
        let found = self.migrations(postgres).iter().find(|each| each.0 == version);
        found.map_or("", |each| each.2)
    }

    fn migrator(&self, postgres: bool) -> Migrator {
        let migrations = self.migrations(postgres).iter().map(|(version, name, sql)| {
            let sql_str = (*sql).into_sql_str();
            let no_tx = sql.starts_with(NO_TRANSACTION);
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql_str, no_tx)
        });
        let mut migrator = Migrator::with_migrations(migrations.collect());
        migrator.dangerous_set_table_name(self.history);
        // Locked for all steps together.
        migrator.set_locking(false);
        migrator
    }

    /// The steps of a run: up to which version, and whether outside of a transaction.
    fn steps(&self, postgres: bool) -> Vec<(i64, bool)> {
        let mut steps: Vec<(i64, bool)> = Vec::new();
        for (version, _, sql) in self.migrations(postgres) {
            let alone = sql.starts_with(NO_TRANSACTION);
            match steps.last_mut() {
                Some((up_to, false)) if !alone => *up_to = *version,
                _ => steps.push((*version, alone)),
            }
        }
        steps
    }

    async fn run(&self, db: &Db) -> Result<(), MigrateError> {
        let postgres = db.is_postgres();
        let failed = |error| MigrateError::of_set(self, error, postgres);
        match db {
            Db::Postgres(server) if server.link().pooled => {
                Err(MigrateError::Pooled { place: server.link().place.clone() })
            }
            Db::Postgres(server) => {
                let options = (*server.pool().connect_options()).clone().options([
                    ("lock_timeout", "0".to_owned()),
                    ("statement_timeout", millis(STATEMENT_TIMEOUT)),
                ]);
                let mut connection =
                    PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
                let result = self.run_on(&mut connection).await;
                // Closing gives the migration lock back; that it fails says nothing about the tables.
                let _closed = connection.close().await;
                result.map_err(failed)
            }
            Db::Sqlite(pool) => {
                // A database in memory has only the pool's connection.
                let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(MigrateError::Connect)?;
                self.migrator(false).run_direct(None, &mut *tx, false).await.map_err(failed)?;
                tx.commit().await.map_err(|error| failed(error.into()))
            }
        }
    }

    /// Waits for another process that migrates, which keeps nobody else waiting, and then tries
    /// until the locks are free.
    async fn run_on(&self, connection: &mut PgConnection) -> Result<(), SqlxMigrateError> {
        // Asked for again and again: an index that is made concurrently waits for every statement
        // that has begun before it, and one that waits for this lock meanwhile would be a deadlock.
        set_lock_timeout(connection, LOCK_TURN).await?;
        while let Err(error) = connection.lock().await {
            if !is_lock_timeout(&error) {
                return Err(error);
            }
            tokio::time::sleep(LOCK_TURN).await;
        }
        let mut tries = 1;
        loop {
            match self.steps_on(connection).await {
                Err(error) if tries < LOCK_TRIES && is_lock_timeout(&error) => {
                    tracing::info!("a migration waits for a lock of another session: {error}");
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn steps_on(&self, connection: &mut PgConnection) -> Result<(), SqlxMigrateError> {
        let migrator = self.migrator(true);
        set_lock_timeout(connection, LOCK_WAIT).await?;
        for row in connection.fetch_all(sqlx::raw_sql(INVALID_INDEXES)).await? {
            let name: String = row.try_get("name")?;
            connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX {name}")))).await?;
        }
        for (up_to, alone) in self.steps(true) {
            if alone {
                // It waits for transactions, not for tables: nobody waits behind it.
                set_lock_timeout(connection, Duration::ZERO).await?;
                migrator.run_direct(Some(up_to), connection, false).await?;
                set_lock_timeout(connection, LOCK_WAIT).await?;
            } else {
                let mut tx = connection.begin().await?;
                migrator.run_direct(Some(up_to), &mut *tx, false).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

fn millis(span: Duration) -> String {
    span.as_millis().to_string()
}

async fn set_lock_timeout(connection: &mut PgConnection, timeout: Duration) -> Result<(), sqlx::Error> {
    let text = format!("SET lock_timeout = {}", millis(timeout));
    connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.map(drop)
}

fn is_lock_timeout(error: &SqlxMigrateError) -> bool {
    let (SqlxMigrateError::Execute(error) | SqlxMigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    db::postgres(error).is_some_and(|error| error.code() == "55P03")
}

impl Store {
    /// Makes or upgrades makegood's tables, with the reference schema before them if asked. Safe to repeat.
    ///
    /// # Errors
    /// The platform's relations are not as needed, or a statement fails. Nothing of that set was
    /// changed; the reference schema may have been made before.
    pub async fn migrate(&self, reference_schema: bool) -> Result<(), MigrateError> {
        if reference_schema {
            REFERENCE.run(&self.db).await?;
        }
        let flaws = self.contract_columns().await.map_err(|error| MigrateError::of_statement(&error))?;
        let wrong: Vec<String> = flaws
            .into_iter()
            .filter(|flaw| flaw.fails)
            .map(|flaw| format!("{}: {} ({})", flaw.relation, flaw.says, flaw.advice))
            .collect();
        if !wrong.is_empty() {
            return Err(MigrateError::Contract(wrong));
        }
        OWN.run(&self.db).await?;
        // A view may take no writes, SQLite makes views over nothing, and a column may be named by
        // a statement alone.
        self.prepare_all().await.map_err(|error| MigrateError::of_statement(&error))?;
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

    #[test]
    fn an_index_of_a_table_that_may_be_large_is_made_outside_of_a_transaction() {
        // Up to 13 they were not: what was run is not changed any more.
        for (version, name, sql) in OWN.postgres.iter().filter(|each| each.0 > 13) {
            let is_alone = sql.starts_with(NO_TRANSACTION);
            for line in sql.lines().filter(|line| line.starts_with("CREATE") && line.contains(" INDEX ")) {
                let table = line.split(" ON ").nth(1).and_then(|rest| rest.split_whitespace().next());
                let made_here = table.is_some_and(|table| sql.contains(&format!("CREATE TABLE {table} ")));
                assert!(made_here || is_alone && line.contains(" CONCURRENTLY "), "{version} {name}: {line}");
            }
            assert!(!is_alone || sql.matches(';').count() == 1, "{version} {name} is one statement");
        }
    }

    #[test]
    fn what_may_share_a_transaction_does() {
        let set = Set {
            postgres: &[
                (1, "one", "CREATE TABLE a (b int);"),
                (2, "two", "CREATE TABLE c (d int);"),
                (3, "three", "-- no-transaction\nCREATE INDEX CONCURRENTLY e ON a (b);"),
                (4, "four", "CREATE TABLE f (g int);"),
            ],
            ..OWN
        };
        assert_eq!(set.steps(true), [(2, false), (3, true), (4, false)]);
    }
}
