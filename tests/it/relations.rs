//! Optional parts of the contract: projects and nodes, hashes of outputs, `accounts`. And times
//! that cannot be right.

use serde_json::Value;

use crate::commands::worlds;
use crate::database::{ROLE, database, sqlite};
use crate::world::{HOUR, Sql, World, on_both};

on_both! {
    /// Before: a row without a project was unreadable, and an output without one was never
    /// delivered.
    async fn p13_null_is_the_same_place_as_null_and_another_place_than_any_other(world) {
        world.balance("ada", 0, 0).await;
        for charge in ["both-null", "half-null", "only-the-charge", "only-the-output", "failed", "recovered"] {
            let job = if charge == "recovered" { "ok-9".to_owned() } else { format!("failed-{charge}") };
            world.charge(charge).job(&job).insert().await;
            let own = if charge == "only-the-output" { "project_id = 'p', node_id = 'n'" } else { "project_id = NULL, node_id = NULL" };
            world.run(&format!("UPDATE charges SET {own} WHERE id = '{charge}'")).await;
            if !["failed", "recovered"].contains(&charge) {
                world.store_output(charge, Some((charge, 0)), ("replicate", &job, 0), ("p", "n")).await;
            }
        }
        world.run("UPDATE charges SET project_id = 'p' WHERE id = 'half-null'").await;
        world.run("UPDATE stored_outputs SET project_id = NULL, node_id = NULL WHERE id IN ('both-null', 'only-the-output')").await;
        world.run("UPDATE stored_outputs SET node_id = NULL WHERE id = 'half-null'").await;
        let report = world.pass().await;
        assert_eq!(report.findings, [], "{:?}", report.findings);
        for (charge, fate) in [
            ("both-null", "-"),
            ("half-null", "-"),
            ("only-the-charge", "closed misattributed"),
            ("only-the-output", "closed misattributed"),
            ("failed", "refunded provider_error"),
            ("recovered", "recovered output_available"),
        ] {
            let is = world.fate(charge, 0).await;
            assert!(is == fate || fate.ends_with("misattributed") && is.ends_with("misattributed"), "{charge}: {is}");
        }
        let places = "SELECT coalesce(charge_id, '') || ' ' || coalesce(project_id, '-') || ' ' || coalesce(node_id, '-') AS v FROM stored_outputs ORDER BY charge_id";
        assert_eq!(
            world.texts(places).await,
            ["both-null - -", "half-null p -", "only-the-charge - -", "only-the-output p n", "recovered - -"]
        );
        let delivered = "SELECT charge_id AS v FROM makegood_deliveries ORDER BY charge_id";
        assert_eq!(
            world.texts(delivered).await,
            ["both-null", "half-null", "only-the-charge", "only-the-output", "recovered"]
        );
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.balance_of("ada").await, (0, 10), "nothing is found anew");
        world.books_balance().await;
    }
}

on_both! {
    /// Once, the file that was stored already was copied a second time, for another item.
    async fn p06_a_stored_file_without_a_hash_holds_the_files_without_an_index_of_its_job(world) {
        world.balance("ada", 0, 0).await;
        let answer = |job: &str| format!("{}/replicate/v1/predictions/{job}", world.simulator.base_url());
        let first_file = async |job: &str| {
            let answer: Value = serde_json::from_slice(&reqwest::get(answer(job)).await.unwrap().bytes().await.unwrap()).unwrap();
            let file = reqwest::get(answer["output"][0].as_str().unwrap()).await.unwrap().bytes().await.unwrap();
            hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&file))
        };
        for (charge, hash) in [("null", "NULL"), ("empty", "''"), ("md5", "'900150983cd24fb0d6963f7d28e17f72'")] {
            let job = format!("two-of-three-{charge}");
            world.charge(charge).job(&job).drawn(0, 30).items(&[10, 10, 10]).insert().await;
            world.store_output(charge, Some((charge, 0)), ("replicate", &job, 0), (&format!("p-{charge}"), &format!("n-{charge}"))).await;
            world.run(&format!("UPDATE stored_outputs SET sha256 = {hash}, size_bytes = NULL WHERE id = '{charge}'")).await;
        }
        // Complete lists are taken in order, as ever, and indexed files by their index.
        world.charge("complete").job("ok-1").drawn(0, 10).insert().await;
        let report = world.pass().await;
        for charge in ["null", "empty", "md5"] {
            for item in [1, 2] {
                assert_eq!(world.fate(charge, item).await, "held missing_hash", "{charge}/{item}");
            }
        }
        assert_eq!(world.fate("complete", 0).await, "recovered output_available");
        let told = report.findings.iter().find(|each| each.kind == "missing_hash").unwrap();
        assert_eq!(
            told.detail,
            "a file of its job is stored without a SHA-256 in stored_outputs, so which of the provider's files it is cannot be told; \
             held until sha256 of that row is set"
        );
        assert_eq!(world.balance_of("ada").await, (0, 0));
        // Set, in capitals: the other file is recovered, and the item without one is refunded.
        for charge in ["null", "empty", "md5"] {
            let hash = first_file(&format!("two-of-three-{charge}")).await.to_uppercase();
            world.run(&format!("UPDATE stored_outputs SET sha256 = '{hash}' WHERE id = '{charge}'")).await;
        }
        world.pass_time(2 * HOUR);
        world.pass().await;
        for charge in ["null", "empty", "md5"] {
            assert_eq!(world.fate(charge, 1).await, "recovered output_available", "{charge}");
            assert_eq!(world.fate(charge, 2).await, "refunded missing_output", "{charge}");
            let files = format!("SELECT count(DISTINCT lower(sha256)) AS v FROM stored_outputs WHERE charge_id = '{charge}'");
            assert_eq!(world.number(&files).await, 2, "{charge}");
        }
        assert_eq!(world.balance_of("ada").await, (0, 30));
        world.books_balance().await;
    }
}

/// Before: `makegood check` failed, and so did migrate and explain.
#[tokio::test]
async fn a_platform_without_accounts_lacks_nothing() {
    for world in worlds().await {
        world.execute("DROP TABLE accounts").await;
        for arguments in [&["migrate"][..], &["check"], &["run"], &["explain", "failed-1"], &["report"]] {
            let mut command = world.makegood(arguments);
            if arguments == ["migrate"] {
                command = command.env("DATABASE_URL", world.owner_url());
            }
            let ended = command.output().await;
            let expected = if arguments == ["run"] { Some(3) } else { Some(0) };
            assert!(ended.code == Some(0) || ended.code == expected, "{arguments:?}: {ended:?}");
            if arguments[0] == "explain" {
                let told: Value = serde_json::from_str(&ended.stdout).unwrap();
                assert_eq!(told["charge"]["account_kind"], Value::Null, "{told}");
            }
        }
        assert_eq!(world.number("SELECT count(*) FROM makegood_refunds").await, 2);
        // A relation of that name with other columns is ignored.
        world.execute("CREATE TABLE accounts (number text, closed text)").await;
        if world.is_postgres() {
            world.execute(&format!("GRANT SELECT ON accounts TO {ROLE}")).await;
        }
        let ended = world.makegood(&["check"]).output().await;
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        let about = |each: &&Value| each["about"] == "contract: accounts";
        let accounts = told["checks"].as_array().unwrap().iter().find(about).unwrap();
        assert_eq!((ended.code, &accounts["grade"]), (Some(0), &Value::from("warn")), "{told}");
        let ended = world.makegood(&["explain", "failed-1"]).output().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

/// Findings about times of a pass, and of `makegood check` with their grade.
async fn told(world: &World) -> Vec<String> {
    let report = world.pass().await;
    let odd = report.findings.into_iter().filter(|each| each.kind == "odd_time");
    odd.map(|each| each.detail).collect()
}

/// 2026-03-01T09:00:00Z, three hours before the world begins.
const SECONDS: i64 = 1_772_355_600;

#[tokio::test]
async fn p15_charges_in_another_unit_than_microseconds_are_reported_with_what_to_write() {
    let world = World::sqlite().await;
    world.balance("ada", 0, 0).await;
    assert_eq!(told(&world).await, Vec::<String>::new());
    // Any type is stored where the table is the platform's own.
    world.without_keys("charges").await;
    let rest = "no pass finds what has such a time";
    for (value, says) in [
        (SECONDS.to_string(), "is in seconds instead of microseconds: write charged_at * 1000000"),
        (
            (SECONDS * 1_000).to_string(),
            "is in milliseconds instead of microseconds: write charged_at * 1000",
        ),
        (
            (SECONDS * 1_000_000_000).to_string(),
            "is in nanoseconds instead of microseconds: write charged_at / 1000",
        ),
        (format!("{SECONDS}.5"), "is in seconds instead of microseconds: write charged_at * 1000000"),
        (
            "'2026-03-01 09:00:00'".to_owned(),
            "is no whole number of microseconds: write CAST(unixepoch(charged_at, 'subsec') * 1000000 AS integer)",
        ),
        ("NULL".to_owned(), "is NULL: write the time at which it happened"),
    ] {
        world.run("DELETE FROM charges; DELETE FROM charge_items").await;
        world.charge("c1").job("failed-1").insert().await;
        world.charge("c2").job("failed-2").insert().await;
        world.run(&format!("UPDATE charges SET charged_at = {value}")).await;
        let [told] = &told(&world).await[..] else { panic!("{value}") };
        assert!(
            ["c1", "c2"]
                .iter()
                .any(|id| *told == format!("charges.charged_at of 2 rows ({id}) {says}; {rest}")),
            "{value}: {told}"
        );
        assert_eq!(world.fate("c1", 0).await, "-");
    }
    // The expressions are right.
    for (nth, (value, expression)) in [
        (SECONDS.to_string(), "charged_at * 1000000"),
        ((SECONDS * 1_000).to_string(), "charged_at * 1000"),
        ((SECONDS * 1_000_000_000).to_string(), "charged_at / 1000"),
        ("'2026-03-01 09:00:00'".to_owned(), "CAST(unixepoch(charged_at, 'subsec') * 1000000 AS integer)"),
    ]
    .into_iter()
    .enumerate()
    {
        world
            .run(&format!(
                "UPDATE charges SET charged_at = {value}; UPDATE charges SET charged_at = {expression}"
            ))
            .await;
        let at = world.number("SELECT charged_at AS v FROM charges WHERE id = 'c1'").await;
        assert_eq!(at, SECONDS * 1_000_000, "{nth}: {expression}");
    }
    // Old enough for the second look.
    world.pass_time(4 * HOUR);
    assert_eq!(told(&world).await, Vec::<String>::new());
    assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
    // Once, failures recorded in seconds were found by the ordinary scan alone, hours later.
    world.without_keys("charge_items").await;
    world.run(&format!("UPDATE charge_items SET failed_at = {SECONDS} WHERE charge_id = 'c2'")).await;
    assert_eq!(
        told(&world).await,
        [format!(
            "charge_items.failed_at of 1 row (c2) is in seconds instead of microseconds: write failed_at * 1000000; {rest}"
        )]
    );
}

#[tokio::test]
async fn p15_times_that_a_view_has_computed_wrongly_are_reported() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    for (value, says) in [
        (format!("to_timestamp({SECONDS} / 1000.0)"), "is before 2000, such as 1970-01-21T12:19:15"),
        (format!("to_timestamp({SECONDS}000)"), "is in 2100 or later, such as"),
        ("'infinity'".to_owned(), "is infinite: write the time at which it happened"),
        ("'-infinity'".to_owned(), "is infinite: write the time at which it happened"),
    ] {
        world.run(&format!("UPDATE charges SET charged_at = {value}")).await;
        let [told] = &told(&world).await[..] else { panic!("{value}") };
        assert!(told.starts_with(&format!("charges.charged_at of 1 row (c1) {says}")), "{value}: {told}");
        let expression = "to_timestamp() takes seconds, write to_timestamp(milliseconds / 1000.0)";
        assert!(told.contains(expression) || says.starts_with("is infinite"), "{told}");
        assert_eq!(world.fate("c1", 0).await, "-");
    }
}

#[tokio::test]
async fn the_doctor_fails_times_that_no_pass_can_come_to_and_warns_of_others() {
    for world in worlds().await {
        let (long_ago, words) = if world.is_postgres() {
            ("to_timestamp(1772355.6)", "is before 2000, such as 1970-01-21T")
        } else {
            ("1772355600", "is in seconds instead of microseconds")
        };
        let times = async || {
            let ended = world.makegood(&["check"]).output().await;
            let told: Value = serde_json::from_str(&ended.stdout).unwrap();
            let checks = told["checks"].as_array().unwrap().iter().filter(|each| each["about"] == "times");
            let told: Vec<(String, String)> = checks
                .map(|each| {
                    (each["grade"].as_str().unwrap().to_owned(), each["says"].as_str().unwrap().to_owned())
                })
                .collect();
            (ended.code, told)
        };
        let (code, told) = times().await;
        assert_eq!((code, told[0].0.as_str(), told.len()), (Some(0), "ok", 1), "{told:?}");
        world.execute(&format!("UPDATE charges SET charged_at = {long_ago} WHERE id = 'done'")).await;
        world.execute(&format!("UPDATE stored_outputs SET stored_at = {long_ago}")).await;
        let (code, told) = times().await;
        let [(fail, charged), (warn, stored)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((code, fail.as_str(), warn.as_str()), (Some(1), "fail", "warn"));
        assert!(charged.starts_with(&format!("charges.charged_at of 1 row (done) {words}")), "{charged}");
        assert!(stored.starts_with(&format!("stored_outputs.stored_at of 1 row (o2) {words}")), "{stored}");
    }
}

/// The reference schema of an older version is upgraded in place, with what the platform added to
/// it.
#[tokio::test]
async fn the_reference_schema_learns_of_null_and_keeps_the_platforms_triggers() {
    for database in [database().await, sqlite()] {
        let world = World::on(database, None).await;
        let add = match &world.sql {
            Sql::Postgres(_) => {
                "ALTER TABLE charges ALTER COLUMN node_id SET NOT NULL; DELETE FROM makegood_reference_migrations WHERE version = 2;
                 CREATE TABLE heard (id text); CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$
                   BEGIN INSERT INTO heard VALUES (NEW.id); RETURN NULL; END $$;
                 CREATE TRIGGER hear AFTER INSERT ON charges FOR EACH ROW EXECUTE FUNCTION hear()"
            }
            Sql::Sqlite(_) => {
                "PRAGMA writable_schema = ON;
                 UPDATE sqlite_schema SET sql = replace(sql, 'node_id              text', 'node_id              text NOT NULL') WHERE name = 'charges';
                 PRAGMA writable_schema = RESET; DELETE FROM makegood_reference_migrations WHERE version = 2;
                 CREATE TABLE heard (id text);
                 CREATE TRIGGER hear AFTER INSERT ON charges BEGIN INSERT INTO heard VALUES (NEW.id); END"
            }
        };
        world.run(add).await;
        world.charge("c1").job("failed-1").insert().await;
        assert!(world.try_run("UPDATE charges SET node_id = NULL").await.is_err());
        let owner = makegood::store::Store::open(&world.database.url, 1, HOUR).await.unwrap();
        owner.migrate(true).await.unwrap();
        owner.close().await;
        world.run("UPDATE charges SET node_id = NULL").await;
        world.charge("c2").job("failed-2").insert().await;
        assert_eq!(world.texts("SELECT id AS v FROM heard ORDER BY id").await, ["c1", "c2"]);
        if matches!(world.sql, Sql::Sqlite(_)) {
            assert_eq!(world.texts("SELECT integrity_check AS v FROM pragma_integrity_check").await, ["ok"]);
        }
    }
}
