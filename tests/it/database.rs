//! A fresh, empty database of either kind for each test that asks for one.
//!
//! No two tests share a database, so they run side by side and in any order. Dropping a
//! [`TestDatabase`] drops its database. If that fails, the database ends with the server, or stays
//! behind as `makegood_test_…`.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use url::Url;

use crate::postgres;

/// An empty database that lives as long as this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its address, in the format of `[database] url`.
    pub url: String,
    keeper: Keeper,
}

#[derive(Debug)]
enum Keeper {
    Postgres {
        name: String,
    },
    Sqlite {
        _directory: TempDir,
    },
    /// The role that created it.
    Another,
}

impl TestDatabase {
    /// A database on another server, which goes with that.
    pub const fn elsewhere(url: String) -> Self {
        Self { url, keeper: Keeper::Another }
    }
}

/// A fresh database on the tests' PostgreSQL.
pub async fn database() -> TestDatabase {
    let name = fresh_name();
    administer(&format!("CREATE DATABASE {name} TEMPLATE template0"))
        .await
        .unwrap_or_else(|why| panic!("could not create the database {name}: {why}"));

    let mut url = Url::parse(&postgres::server().url).expect("the server was reached by this address");
    url.set_path(&name);
    TestDatabase { url: url.into(), keeper: Keeper::Postgres { name } }
}

/// A fresh SQLite file, not yet created, in a directory of its own.
pub fn sqlite() -> TestDatabase {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("makegood.db");
    TestDatabase {
        url: format!("sqlite://{}", file.display()),
        keeper: Keeper::Sqlite { _directory: directory },
    }
}

/// The role of the tests, the same for all databases of the server.
pub const ROLE: &str = "makegood_test_role";

/// Grants the role of `docs/adopting.md` its rights in a migrated database, and returns the address
/// by which it connects. So every test proves that these rights are enough. SQLite has no roles.
pub async fn as_least_privileged(database: &TestDatabase) -> String {
    as_least_privileged_in(database, "public").await
}

/// The same where the relations lie in another schema than `public`.
pub async fn as_least_privileged_in(database: &TestDatabase, schema: &str) -> String {
    if !database.url.starts_with("postgres") {
        return database.url.clone();
    }
    let mut owner = PgConnection::connect(&database.url).await.expect("the database was just made");
    owner
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "SET search_path = {schema}; {}",
            grants().replace("SCHEMA public", &format!("SCHEMA {schema}"))
        ))))
        .await
        .expect("the grants of docs/adopting.md hold");
    owner.close().await.expect("the owner leaves");
    let mut url = Url::parse(&database.url).expect("the server was reached by this address");
    url.set_username(ROLE).expect("it has a host");
    url.set_password(Some("makegood")).expect("it has a host");
    url.into()
}

/// The SQL of `docs/adopting.md`, for the role of the tests, which another test may have made
/// already.
pub fn grants() -> String {
    let page = include_str!("../../docs/adopting.md");
    let section = page.split("## The database role").nth(1).expect("the page has the section");
    let sql =
        section.split("```").nth(1).and_then(|block| block.strip_prefix("sql\n")).expect("with its SQL");
    let role = "CREATE ROLE makegood LOGIN PASSWORD '…';";
    assert!(sql.contains(role), "the role is made otherwise than the tests know: {sql}");
    let make = format!(
        "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD 'makegood'; \
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;"
    );
    sql.replace(role, &make).replace(" TO makegood;", &format!(" TO {ROLE};"))
}

/// The rights of those who may take refunds back, by the SQL of `docs/adopting.md`, for the role of
/// the tests.
pub fn support_grants() -> String {
    grants_of("makegood_support", ROLE)
}

/// The role of those who may erase evidence.
pub const ERASER: &str = "makegood_test_eraser";

/// Creates the role that may erase evidence, by the SQL of `docs/adopting.md`, and returns the
/// address by which it connects. SQLite has no roles.
pub async fn as_eraser(database: &TestDatabase) -> String {
    if !database.url.starts_with("postgres") {
        return database.url.clone();
    }
    let made = format!(
        "DO $$ BEGIN CREATE ROLE {ERASER} LOGIN PASSWORD 'makegood'; \
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$; {}",
        grants_of("makegood_erasure", ERASER)
    );
    let mut owner = PgConnection::connect(&database.url).await.expect("the database was just made");
    owner
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(made)))
        .await
        .expect("the grants of docs/adopting.md hold");
    owner.close().await.expect("the owner leaves");
    let mut url = Url::parse(&database.url).expect("the server was reached by this address");
    url.set_username(ERASER).expect("it has a host");
    url.set_password(Some("makegood")).expect("it has a host");
    url.into()
}

/// The rights that `docs/adopting.md` grants to one of its roles for people, for a role of the
/// tests.
fn grants_of(role: &str, to: &str) -> String {
    let page = include_str!("../../docs/adopting.md");
    let (_, block) = page.split_once(&format!("CREATE ROLE {role} ")).expect("the page has the role");
    let block = block.split("```").next().expect("the block ends");
    let grants: Vec<String> = block
        .lines()
        .filter(|line| line.starts_with("GRANT ") && !line.starts_with("GRANT makegood TO "))
        .map(|line| line.replace(&format!(" TO {role};"), &format!(" TO {to};")))
        .collect();
    assert!(
        !grants.is_empty() && grants.iter().all(|grant| grant.ends_with(&format!(" TO {to};"))),
        "{grants:?}"
    );
    grants.join("\n")
}

/// Unlike any other of this process, of one beside it, or left behind by an earlier one.
fn fresh_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().build_hasher().finish();
    format!("makegood_test_{}_{number}_{random:016x}", std::process::id())
}

/// Runs one statement beside all test databases.
async fn administer(statement: &str) -> Result<(), sqlx::Error> {
    let options: sqlx::postgres::PgConnectOptions = postgres::server().url.parse()?;
    let mut connection: PgConnection = options.connect().await?;
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await?;
    connection.close().await
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Keeper::Postgres { name } = &self.keeper else { return };
        let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        // Drop cannot await on the test's runtime, so a thread with its own runtime does.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(sqlx::Error::from).and_then(|runtime| runtime.block_on(administer(&statement)))
        })
        .join();
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!("the database {name} stays behind: {dropped:?}");
        }
    }
}

#[tokio::test]
async fn a_postgres_database_is_fresh_and_answers() {
    let (one, other) = tokio::join!(database(), database());
    assert_ne!(one.url, other.url);

    for url in [&one.url, &other.url] {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let answer: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut connection).await.unwrap();
        assert_eq!(answer, 1);
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname = 'public'")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(tables, 0);
        // Seen by the next round if both were one database.
        connection.execute("CREATE TABLE only_here (id int)").await.unwrap();
    }
}

#[tokio::test]
async fn a_postgres_database_is_gone_after_its_test_even_when_someone_is_connected() {
    let database = database().await;
    let url = database.url.clone();
    let _forgotten = PgConnection::connect(&url).await.unwrap();

    drop(database);

    let gone = PgConnection::connect(&url).await.unwrap_err();
    let code = gone.as_database_error().and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("3D000"), "{gone}");
}

#[tokio::test]
async fn an_sqlite_database_is_fresh_and_gone_after_its_test() {
    let (one, other) = (sqlite(), sqlite());
    assert_ne!(one.url, other.url);

    let options: sqlx::sqlite::SqliteConnectOptions = one.url.parse().unwrap();
    let mut connection = options.clone().create_if_missing(true).connect().await.unwrap();
    let answer: i64 = sqlx::query_scalar("SELECT 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(answer, 1);
    connection.close().await.unwrap();
    assert!(options.get_filename().exists());

    drop(one);
    assert!(!options.get_filename().exists());
}
