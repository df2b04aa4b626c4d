//! Pinned plans: real passes over 200,000 charges. Afterwards every plan that PostgreSQL executed
//! is judged.
//!
//! A statement that is fast on a small table may read a whole large one. Its plan depends on
//! statistics that nobody controls: a table that was just loaded has none, and old ones describe
//! another table. So the same passes run under each of these, over the reference tables and over a
//! platform's views with casts and expressions. `auto_explain` logs each plan as it was executed;
//! `plans/judge.rs` says what is wrong with it. Every connection asks for generic plans, so that a
//! plan does not depend on the parameters.
//!
//! The rows (`plans/rows.sql`) are loaded once for each kind of platform; every variant works on a
//! copy.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use makegood::pass;
use makegood::report::{PassReport, chain};
use makegood::store::{DbError, Erased, Erasing, Over, Place, Scan, Store, Whose};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::database::{self, TestDatabase};
use crate::postgres::{self, Launched, not_tried};
use crate::world::{HOUR, MINUTE, World, start};
use judge::{CHUNK, Violation};

/// Orphans that are claimed and settled at once. Fewer than a chunk, so that one allowance does for
/// both.
const BATCH: u32 = 100;

/// The SQL of a platform: its relations, its indexes, its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Platform {
    /// The reference schema.
    Tables,
    /// Views with casts and expressions over tables of other types.
    Views,
}

/// The statistics that the planner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistics {
    /// Analyzed as they are.
    Fresh,
    /// Loaded and never analyzed, as in the first hours after a restore.
    Missing,
    /// Analyzed when there were thirty charges.
    Stale,
    /// Fresh ones, changed by hand: charges and orphans seem empty, and any value of a column seems
    /// to match half of the rows.
    Falsified,
}

#[derive(Clone, Copy, Debug)]
struct Variant {
    platform: Platform,
    statistics: Statistics,
}

impl Variant {
    /// All of them, or those whose name contains `MAKEGOOD_TEST_VARIANTS`.
    fn all() -> Vec<Self> {
        use Statistics::{Falsified, Fresh, Missing, Stale};
        let only = std::env::var("MAKEGOOD_TEST_VARIANTS").unwrap_or_default();
        let mut all = Vec::new();
        for platform in [Platform::Tables, Platform::Views] {
            for statistics in [Fresh, Missing, Stale, Falsified] {
                all.push(Self { platform, statistics });
            }
        }
        all.retain(|variant| variant.name().contains(&only));
        assert!(!all.is_empty(), "MAKEGOOD_TEST_VARIANTS={only}: no variant's name contains that");
        all
    }

    /// Of its database; the log names it.
    fn name(self) -> String {
        let Self { platform, statistics } = self;
        format!("{platform:?}_{statistics:?}").to_lowercase()
    }
}

/// A PostgreSQL of this test's own, that logs every plan of makegood's role.
struct Server(Launched);

impl Server {
    async fn start() -> Self {
        let server =
            Self(tokio::task::spawn_blocking(postgres::launch).await.unwrap().unwrap_or_else(|why| {
                panic!("no PostgreSQL of this test's own, which the plans need: {why}")
            }));
        let mut owner = PgConnection::connect(&server.url("postgres")).await.unwrap();
        let role = database::ROLE;
        let settings = [
            // Statistics are what each variant makes of them.
            "ALTER SYSTEM SET autovacuum = off",
            "ALTER SYSTEM SET log_line_prefix = '%d|'",
            "SELECT pg_reload_conf()",
            &format!("CREATE ROLE {role} LOGIN PASSWORD 'makegood'"),
            // Loaded here too, so that its settings are known.
            "LOAD 'auto_explain'",
            &format!("ALTER ROLE {role} SET session_preload_libraries = 'auto_explain'"),
            &format!("ALTER ROLE {role} SET auto_explain.log_min_duration = 0"),
            &format!("ALTER ROLE {role} SET auto_explain.log_analyze = on"),
            &format!("ALTER ROLE {role} SET auto_explain.log_buffers = on"),
            &format!("ALTER ROLE {role} SET auto_explain.log_timing = off"),
            &format!("ALTER ROLE {role} SET auto_explain.log_nested_statements = on"),
            &format!("ALTER ROLE {role} SET auto_explain.log_format = json"),
        ];
        for sql in settings {
            let done = owner.execute(AssertSqlSafe(sql.to_owned())).await;
            done.unwrap_or_else(|why| {
                panic!("{sql}: {why}. auto_explain is in Debian's package postgresql; other systems have a package `contrib`")
            });
        }
        server
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost:5432/{database}?host={}", self.0.directory.display())
    }

    async fn pool(&self, database: &str) -> PgPool {
        PgPool::connect(&self.url(database)).await.unwrap()
    }

    async fn administer(&self, sql: &str) {
        let mut owner = PgConnection::connect(&self.url("postgres")).await.unwrap();
        owner.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|why| panic!("{sql}: {why}"));
        owner.close().await.unwrap();
    }

    async fn copy(&self, template: &str, name: &str) {
        // Servers before 15 have only this way.
        let version: i32 = {
            let mut owner = PgConnection::connect(&self.url("postgres")).await.unwrap();
            let row = owner.fetch_one("SELECT current_setting('server_version_num')::int").await.unwrap();
            row.get(0)
        };
        let strategy = if version >= 150_000 { " STRATEGY file_copy" } else { "" };
        self.administer(&format!("CREATE DATABASE {name} TEMPLATE {template}{strategy}")).await;
    }

    /// The server's log.
    fn log(&self) -> std::fs::File {
        std::fs::File::open(self.0.directory.join("server.log")).unwrap()
    }
}

async fn run(pool: &PgPool, sql: &str) {
    let sql = sql.replace("$now", &start().to_string());
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(pool)
        .await
        .unwrap_or_else(|why| panic!("{sql}\n{why}"));
}

/// The tables, first with a few rows that are analyzed, then with all; the statistics stay those of
/// the few.
async fn load(server: &Server, platform: Platform) {
    let name = format!("{platform:?}").to_lowercase();
    server.administer(&format!("CREATE DATABASE {name} TEMPLATE template0")).await;
    let pool = server.pool(&name).await;
    let store = Store::open(&server.url(&name), 1, Duration::from_mins(1)).await.unwrap();
    if platform == Platform::Views {
        run(&pool, include_str!("plans/platform.sql")).await;
    }
    store.migrate(platform == Platform::Tables).await.unwrap();
    store.close().await;
    run(&pool, include_str!("plans/rows.sql")).await;
    let rows = match platform {
        Platform::Tables => include_str!("plans/tables.sql"),
        Platform::Views => include_str!("plans/views.sql"),
    };
    let rows = format!("{rows};\n{}", include_str!("plans/history.sql"));
    let few =
        rows.replace("seed.charges", "(SELECT * FROM seed.charges WHERE i % 20000 IN (4, 8, 9)) AS few");
    // As a restore does it: without triggers and foreign keys' checks.
    let quickly =
        |sql: &str| format!("SET session_replication_role = replica; {sql}; RESET session_replication_role");
    let emptied = "DO $$ DECLARE tables text; BEGIN
        SELECT string_agg(oid::regclass::text, ', ') INTO tables FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname NOT LIKE '%migrations' AND relname <> 'makegood_brake';
        EXECUTE 'TRUNCATE ' || tables || ' RESTART IDENTITY';
    END $$";
    run(&pool, &quickly(&few)).await;
    run(&pool, "ANALYZE").await;
    // Truncating a table resets its size in pg_class, and keeps its other statistics.
    let known = "CREATE TABLE seed.known AS SELECT oid, relpages, reltuples FROM pg_class WHERE relkind IN ('r', 'i')";
    run(&pool, known).await;
    run(&pool, &quickly(emptied)).await;
    if platform == Platform::Views {
        run(&pool, include_str!("plans/platform_indexes.sql")).await;
    }
    run(&pool, &quickly(&rows)).await;
    let remembered = "UPDATE pg_class c SET relpages = k.relpages, reltuples = k.reltuples FROM seed.known k WHERE k.oid = c.oid";
    run(&pool, remembered).await;
    run(&pool, "DROP TABLE seed.charges, seed.known").await;
    pool.close().await;
}

/// All relations in the schema `public`, for changing their statistics by hand.
const OURS: &str = "(SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)";

async fn know(pool: &PgPool, platform: Platform, statistics: Statistics) {
    let rows_known = match statistics {
        Statistics::Stale => 30,
        Statistics::Fresh => {
            run(pool, "ANALYZE").await;
            200_000
        }
        Statistics::Missing => {
            run(pool, &format!("DELETE FROM pg_statistic WHERE starelid IN {OURS}")).await;
            let never = "UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE relkind IN ('r', 'i')";
            run(pool, &format!("{never} AND oid IN {OURS}")).await;
            -1
        }
        Statistics::Falsified => {
            run(pool, "ANALYZE").await;
            run(pool, &format!("UPDATE pg_statistic SET stadistinct = 2 WHERE starelid IN {OURS}")).await;
            let empty = "UPDATE pg_class SET reltuples = 0 WHERE oid IN
                (SELECT to_regclass(n) FROM unnest(ARRAY['charges', 'runs', 'makegood_orphans']) n)";
            run(pool, empty).await;
            0
        }
    };
    let charges = match platform {
        Platform::Tables => "charges",
        Platform::Views => "runs",
    };
    let known = sqlx::query("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass($1)");
    let known: i64 = known.bind(charges).fetch_one(pool).await.unwrap().get(0);
    assert_eq!(known, rows_known, "{statistics:?}");
}

/// Writes into the server's log what is done next.
async fn mark(world: &World, what: &str) {
    world.run(&format!("DO $$ BEGIN RAISE LOG 'next: {what}'; END $$")).await;
}

/// One pass. A plan that is bad enough is cancelled by `statement_timeout`, and then the pass
/// fails.
async fn pass(world: &World, what: &str) -> Result<PassReport, String> {
    mark(world, what).await;
    let ended = pass::run(&world.parts, World::orders(), |_| {}).await;
    ended.map_err(|why| format!("the pass `{what}` failed: {}", chain(&why)))
}

/// The passes of one variant, on a database of its own that is dropped afterwards.
async fn try_out(server: &Server, variant: Variant) -> Result<(), String> {
    let name = variant.name();
    server.copy(&format!("{:?}", variant.platform).to_lowercase(), &name).await;
    let pool = server.pool(&name).await;
    know(&pool, variant.platform, variant.statistics).await;
    let mut world = World::on(TestDatabase::elsewhere(server.url(&name)), Some("")).await;
    world.parts.rules.detect.chunk = u32::try_from(CHUNK).unwrap();
    world.parts.rules.detect.backlog_age = 24 * HOUR;
    world.parts.rules.batch = BATCH;
    let tried = passes(&pool, &mut world, variant).await;
    world.store.close().await;
    pool.close().await;
    server.administer(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    tried.map_err(|why| format!("{name}: {why}"))
}

async fn passes(pool: &PgPool, world: &mut World, variant: Variant) -> Result<(), String> {
    let name = variant.name();
    let first = pass(world, "first night").await?;
    assert_eq!(first.opened, 320, "{name}: {first:?}");
    assert!(first.total("refund") >= 200 && first.total("recover") > 20, "{name}: {first:?}");
    world.pass_time(MINUTE);
    let idle = pass(world, "idle").await?;
    assert_eq!((idle.opened, idle.total("refund")), (0, 0), "{name}: {idle:?}");
    run(pool, &newcomers(variant.platform)).await;
    // In flight when passes died.
    let suspects = "UPDATE makegood_orphans SET deaths = 2, due_at = '$now' WHERE id IN
        (SELECT id FROM makegood_orphans WHERE state = 'open' ORDER BY id LIMIT 3)";
    run(pool, suspects).await;
    world.pass_time(MINUTE);
    let new = pass(world, "new charges").await?;
    assert_eq!(new.opened, 50, "{name}: {new:?}");
    // Also those waiting orphans whose failure is now recorded.
    assert!(new.total("refund") >= 60, "{name}: {new:?}");
    for (what, ago) in [("oldest end", 20 * 24 * HOUR), ("middle", 10 * 24 * HOUR)] {
        mark(world, what).await;
        look_at(world, ago).await.map_err(|why| format!("the look at the {what} failed: {}", chain(&why)))?;
    }
    erase(pool, world, &name).await?;
    bad_ones(world).await;
    Ok(())
}

/// Scans the eight hours that began this long ago, as a pass would.
async fn look_at(world: &World, ago: Duration) -> Result<(), DbError> {
    let after = world.now() - ago;
    let scan = Scan {
        name: "test",
        over: Over::ChargedAt,
        after,
        until: after + 8 * HOUR,
        grace_before: world.now(),
        graces: Vec::new(),
        grace_ended_within: None,
    };
    let undelivered = world.store.count_undelivered(&scan, world.parts.rules.detect.chunk, || false).await?;
    assert_eq!(undelivered, Some(0));
    Ok(())
}

/// Erases a portion of each kind in the middle of the tables, by account and then by age.
async fn erase(pool: &PgPool, world: &World, name: &str) -> Result<(), String> {
    mark(world, "erasure").await;
    run(pool, &format!("GRANT EXECUTE ON FUNCTION makegood_erase(jsonb) TO {}", database::ROLE)).await;
    let of_account = world.texts("SELECT account_id AS v FROM makegood_refunds WHERE charge_id IN (SELECT charge_id FROM makegood_orphans WHERE id = 2000)").await;
    for (whose, tables) in [(Whose::Account(of_account[0].clone()), 1), (Whose::OlderThan(world.now()), 3)] {
        let order = Erasing {
            whose,
            by: "mia".to_owned(),
            why: "plans".to_owned(),
            dry_run: false,
            rows: CHUNK.cast_signed(),
        };
        let mut erased = Erased::default();
        for table in 0..tables {
            let place = Place { table, after_id: 1900 };
            let (portion, _) = world.store.erase_portion(&order, place).await.map_err(|why| chain(&why))?;
            erased.add(&portion);
        }
        assert!(erased.total() > 0, "{name}: {order:?} {erased:?}");
    }
    Ok(())
}

fn newcomers(platform: Platform) -> String {
    let rows = match platform {
        Platform::Tables => include_str!("plans/newcomers_tables.sql"),
        Platform::Views => include_str!("plans/newcomers_views.sql"),
    };
    format!("BEGIN;\n{}{rows}COMMIT;", include_str!("plans/newcomers.sql"))
}

/// Statements of the test's own that the judge must reject, so that a judge that finds nothing is
/// noticed.
async fn bad_ones(world: &World) {
    mark(world, "bad ones").await;
    let mut url = url::Url::parse(&world.database.url).unwrap();
    url.set_username(database::ROLE).unwrap();
    let mut role = PgConnection::connect(url.as_str()).await.unwrap();
    for sql in [
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = auto",
        "-- bad_seq_scan: .\nSELECT count(*) FROM charges WHERE model = 'x'",
        "RESET ALL; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off",
        "-- bad_walk: .\nSELECT id FROM charges WHERE model = 'x' ORDER BY charged_at, id LIMIT 1",
        "-- bad_proportion: .\nSELECT count(*) FROM charge_items WHERE charge_id > ''",
    ] {
        sqlx::raw_sql(sql).execute(&mut role).await.unwrap();
    }
    role.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_of_a_pass_keeps_a_good_plan_with_any_statistics() {
    if postgres::binaries().is_none() {
        not_tried("the plans need a PostgreSQL of their own, installed here: its log is read");
        return;
    }
    let server = Server::start().await;
    tokio::join!(load(&server, Platform::Tables), load(&server, Platform::Views));
    let server = &server;
    let tried = stream::iter(Variant::all()).map(|variant| try_out(server, variant)).buffer_unordered(2);
    let failed: Vec<String> = tried.filter_map(async |tried| tried.err()).collect().await;

    let judged = judge::judge(server.log());
    for variant in Variant::all() {
        if failed.iter().any(|why| why.starts_with(&variant.name())) {
            continue;
        }
        let seen = &judged.statements[&variant.name()];
        for statement in [
            "find_undelivered",
            "find_failed",
            "claim",
            "claim_suspect",
            "suspects",
            "orphan_rows",
            "settle_orphans",
            "post_refunds",
            "unresolved",
        ] {
            assert!(seen.contains(statement), "{}: {statement} was not seen in {seen:?}", variant.name());
        }
    }
    let (bad, violations): (Vec<_>, Vec<_>) =
        judged.violations.into_iter().partition(|each| each.statement.starts_with("bad_"));
    for (statement, what) in [
        ("bad_seq_scan", "reads the whole table"),
        ("bad_walk", "walks the whole index"),
        ("bad_proportion", "blocks"),
        ("bad_proportion", "rows"),
    ] {
        let found = bad.iter().any(|each| each.statement == statement && each.what.contains(what));
        assert!(found, "the judge does not see that {statement} {what}: {bad:#?}");
    }
    assert!(violations.is_empty() && failed.is_empty(), "{}\n{}", failed.join("\n"), told(&violations));
}

/// One paragraph for each statement and fault: under which variants, the worst figure and its plan.
fn told(violations: &[Violation]) -> String {
    let mut alike: BTreeMap<(&str, &str), (BTreeSet<String>, &Violation)> = BTreeMap::new();
    for each in violations {
        let (seen, worst) =
            alike.entry((&each.statement, &each.what)).or_insert_with(|| (BTreeSet::new(), each));
        seen.insert(format!("{} ({})", each.variant, each.during));
        if each.figure > worst.figure {
            *worst = each;
        }
    }
    let all = alike.iter().map(|((statement, what), (seen, worst))| {
        let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
        format!(
            "{statement}: {what}, {} instead of at most {}\n  under {}\n{}",
            worst.figure,
            worst.allowed,
            seen.join(", "),
            worst.plan
        )
    });
    let paragraphs: Vec<String> = all.collect();
    format!("{} faults\n\n{}", paragraphs.len(), paragraphs.join("\n"))
}
