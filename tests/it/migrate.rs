//! `migrate` says what is wrong with which relation, and leaves nothing half done. Every other
//! command compares the version of the tables with its own before it begins.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use makegood::report::chain;
use makegood::store::{MigrateError, OWN_VERSION, Store};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use crate::binary::makegood;
use crate::database::{self, ROLE, TestDatabase};

const REFERENCE: &str = include_str!("../../migrations/reference/postgres/0001_contract.sql");

async fn run(database: &TestDatabase, sql: &str) {
    let text = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    let ran = if database.url.starts_with("postgres") {
        PgConnection::connect(&database.url).await.unwrap().execute(text).await.map(drop)
    } else {
        SqliteConnection::connect(&database.url).await.unwrap().execute(text).await.map(drop)
    };
    ran.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

async fn number(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

async fn migrate(url: &str, reference_schema: bool) -> Result<(), MigrateError> {
    let store = Store::open(url, 2, Duration::from_secs(30)).await.unwrap();
    let migrated = store.migrate(reference_schema).await;
    store.close().await;
    migrated
}

/// A platform's schema that violates the contract, and the exact error of `migrate`. No table of
/// makegood's exists afterwards.
async fn refused(schema: &str, words: &[&str]) {
    let database = database::database().await;
    run(&database, schema).await;
    let told = chain(&migrate(&database.url, false).await.unwrap_err());
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
    assert!(!told.contains("Rust type"), "{told}");
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'makegood%'";
    assert_eq!(number(&mut connection, left).await, 0, "{told}");
}

#[tokio::test]
async fn missing_parts_of_the_platforms_relations_are_reported_at_once_and_nothing_is_created() {
    refused(
        "SELECT 1",
        &[
            "charges: there is no such relation where this role looks (its search path)",
            "ledger_entries: there is no such relation",
            "--reference-schema",
        ],
    )
    .await;
    let schema = format!(
        "{REFERENCE}
         ALTER TABLE charges ALTER COLUMN id TYPE uuid USING gen_random_uuid();
         ALTER TABLE charge_items RENAME COLUMN failed_at TO broke_at;
         DROP TABLE balances;"
    );
    let words = [
        "charges: charges.id is `uuid`, makegood reads `text` (let a view give `id::text AS id`)",
        "charge_items: charge_items has no column `failed_at` (add it, as `timestamptz`)",
        "balances: there is no such relation where this role looks",
        "nothing was changed",
    ];
    refused(&schema, &words).await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_keep_the_tables_from_being_made() {
    let database = database::database().await;
    let schema = format!(
        "{REFERENCE} ALTER TABLE balances RENAME TO raw; INSERT INTO raw VALUES ('ada', 'wallet', 0);
         CREATE VIEW balances AS SELECT account_id, bucket, (credits::text || 'abc')::bigint AS credits FROM raw;
         CREATE FUNCTION add() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER add INSTEAD OF UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION add();"
    );
    run(&database, &schema).await;
    migrate(&database.url, false).await.unwrap();
}

#[tokio::test]
async fn a_view_that_rejects_writes_is_reported_with_the_trigger_to_write() {
    let database = database::database().await;
    let schema = format!(
        "{REFERENCE} ALTER TABLE stored_outputs RENAME TO media;
         CREATE VIEW stored_outputs AS SELECT DISTINCT * FROM media;"
    );
    run(&database, &schema).await;
    let told = chain(&migrate(&database.url, false).await.unwrap_err());
    for word in [
        "makegood's own tables are up to date",
        "`insert_stored_outputs`",
        "INSTEAD OF INSERT ON stored_outputs",
    ] {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

#[tokio::test]
async fn a_role_that_may_not_create_gets_the_name_of_the_missing_right() {
    let database = database::database().await;
    let schema = format!(
        "{REFERENCE}
         DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD 'makegood';
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         GRANT SELECT ON charges, charge_items, stored_outputs, balances, ledger_entries TO {ROLE};"
    );
    run(&database, &schema).await;
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(ROLE).unwrap();
    url.set_password(Some("makegood")).unwrap();
    let told = chain(&migrate(url.as_str(), false).await.unwrap_err());
    for word in ["permission denied for schema public", "GRANT USAGE, CREATE ON SCHEMA"] {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

#[tokio::test]
async fn another_text_and_a_newer_version_are_distinguished_and_change_nothing() {
    let database = database::database().await;
    migrate(&database.url, true).await.unwrap();
    run(&database, "UPDATE makegood_migrations SET checksum = '\\x00' WHERE version = 7").await;
    let error = migrate(&database.url, false).await.unwrap_err();
    assert!(matches!(error, MigrateError::Changed { version: 7, .. }), "{error:?}");
    assert!(error.to_string().contains("its migration 7 was run with another text"), "{error}");
    assert!(error.is_about_the_binary());
    run(
        &database,
        "INSERT INTO makegood_migrations SELECT 99, 'newer', now(), true, checksum, 0 FROM makegood_migrations WHERE version = 1",
    )
    .await;
    let error = migrate(&database.url, false).await.unwrap_err();
    assert!(matches!(error, MigrateError::Newer { found: 99, known: OWN_VERSION, .. }), "{error:?}");
    assert!(error.is_about_the_binary());
}

#[tokio::test]
async fn an_index_that_was_left_unfinished_is_dropped() {
    let database = database::database().await;
    migrate(&database.url, true).await.unwrap();
    run(
        &database,
        "CREATE INDEX makegood_unfinished ON makegood_orphans (opened_by);
         CREATE INDEX platforms_own ON makegood_orphans (opened_by);
         UPDATE pg_index SET indisvalid = false
         WHERE indexrelid IN ('makegood_unfinished'::regclass, 'platforms_own'::regclass)",
    )
    .await;
    migrate(&database.url, false).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let of = "SELECT count(*) FROM pg_class WHERE relname = 'makegood_unfinished'";
    assert_eq!(number(&mut connection, of).await, 0);
    let of = "SELECT count(*) FROM pg_class WHERE relname = 'platforms_own'";
    assert_eq!(number(&mut connection, of).await, 1, "it is not makegood's");
}

/// All later statements wait behind a migration that waits for a lock, so it waits only briefly at
/// a time.
#[tokio::test]
async fn a_migration_that_waits_for_a_lock_gives_way_and_tries_again() {
    let database = database::database().await;
    migrate(&database.url, true).await.unwrap();
    let mut holder = PgConnection::connect(&database.url).await.unwrap();
    let mut watcher = PgConnection::connect(&database.url).await.unwrap();
    holder.execute("BEGIN; LOCK TABLE makegood_migrations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let (migrated, ()) = tokio::join!(migrate(&database.url, false), async {
        for expected in [1, 0, 1] {
            while number(&mut watcher, waiting).await != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        holder.execute("ROLLBACK").await.unwrap();
    });
    migrated.unwrap();
}

/// Runs a command that uses the tables.
async fn command(database: &TestDatabase, arguments: &[&str]) -> (Option<i32>, String) {
    let ended = makegood(arguments)
        .env("DATABASE_URL", &database.url)
        .env("MAKEGOOD__METRICS__LISTEN", "127.0.0.1:0")
        .output()
        .await;
    (ended.code, ended.stderr)
}

const COMMANDS: [&[&str]; 8] = [
    &["run"],
    &["schedule"],
    &["report"],
    &["explain", "x"],
    &["brake", "status"],
    &["refund", "x/0", "--by", "eve", "--reason", "test"],
    &["reverse-refund", "x/0", "--by", "eve", "--reason", "test"],
    &["erase", "--account", "x", "--by", "eve", "--reason", "test"],
];

async fn versions_are_compared(database: TestDatabase) {
    migrate(&database.url, true).await.unwrap();
    assert_eq!(command(&database, &["report"]).await.0, Some(0));
    // A newer version works, with a warning.
    let newer = format!(
        "INSERT INTO makegood_migrations (version, description, success, checksum, execution_time)
         SELECT 99, description, success, checksum, execution_time FROM makegood_migrations WHERE version = {OWN_VERSION}"
    );
    run(&database, &newer).await;
    for arguments in [&["report"][..], &["run"]] {
        let (code, told) = command(&database, arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {told}");
        assert!(told.contains("have version 99"), "{arguments:?}: {told}");
    }
    // Unless a migration forbids it.
    run(&database, "UPDATE makegood_minimum_version SET version = 90").await;
    for arguments in COMMANDS {
        let (code, told) = command(&database, arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {told}");
        assert!(told.contains("version 90 or later") && told.contains("upgrade makegood"), "{told}");
    }
    let (code, told) = command(&database, &["migrate"]).await;
    assert_eq!(code, Some(2), "{told}");
    // An older one does not.
    run(&database, &format!("DELETE FROM makegood_migrations WHERE version IN (99, {OWN_VERSION})")).await;
    for arguments in COMMANDS {
        let (code, told) = command(&database, arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {told}");
        let needed = format!("needs version {OWN_VERSION}");
        assert!(told.contains(&needed) && told.contains("run `makegood migrate` first"), "{told}");
    }
}

#[tokio::test]
async fn tables_of_another_version_are_reported_before_anything_is_begun_on_postgres() {
    versions_are_compared(database::database().await).await;
}

#[tokio::test]
async fn tables_of_another_version_are_reported_before_anything_is_begun_on_sqlite() {
    versions_are_compared(database::sqlite()).await;
}
