//! `makegood check`: what it finds, and that it leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world has failed")]

use std::path::Path;

use serde_json::Value;

use crate::binary::makegood;
use crate::commands::{World, worlds};
use crate::database::{database, sqlite};

/// The grade of one thing that `check` looks at.
fn grade<'a>(told: &'a Value, about: &str) -> Option<&'a str> {
    let checks = told["checks"].as_array().unwrap();
    checks.iter().find(|check| check["about"] == about).and_then(|check| check["grade"].as_str())
}

async fn check(world: &World) -> (Option<i32>, Value) {
    let ended = world.makegood(&["check"]).output().await;
    (ended.code, serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}")))
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_is_content_otherwise() {
    for world in worlds().await {
        world.run().await;
        let (code, told) = check(&world).await;
        assert_eq!(code, Some(0), "{told}");
        for about in [
            "settings",
            "database",
            "contract",
            "own tables",
            "charges by time",
            "rights",
            "passes",
            "brake",
            "storage",
        ] {
            let shared = about == "storage" && world.is_postgres();
            assert_eq!(grade(&told, about), Some(if shared { "warn" } else { "ok" }), "{about}: {told}");
        }
        assert_eq!(grade(&told, "recovery"), Some("warn"));
        assert_eq!(grade(&told, "orphans"), Some("warn"));

        world.execute("DROP INDEX charges_by_time; ALTER TABLE accounts RENAME COLUMN kind TO sort").await;
        let (code, told) = check(&world).await;
        assert_eq!(code, Some(1));
        assert_eq!(grade(&told, "contract: accounts"), Some("fail"), "{told}");
        world.execute("ALTER TABLE accounts RENAME COLUMN sort TO kind").await;
        assert_eq!(grade(&check(&world).await.1, "charges by time"), Some("warn"));
    }
}

#[tokio::test]
async fn the_doctor_does_not_make_what_is_not_there() {
    for database in [database().await, sqlite()] {
        let ended = makegood(&["check"]).env("DATABASE_URL", &database.url).output().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        if database.url.starts_with("postgres") {
            assert_eq!(grade(&told, "own tables"), Some("fail"));
            assert_eq!(grade(&told, "contract: charges"), Some("fail"));
        } else {
            assert_eq!(grade(&told, "database"), Some("fail"));
            assert!(!Path::new(database.url.strip_prefix("sqlite://").unwrap()).exists());
        }
    }
}

#[tokio::test]
async fn the_doctor_proves_the_trigger_of_a_balances_view() {
    let world = World::new(database().await).await;
    world
        .execute(
            "ALTER TABLE balances RENAME TO purse; CREATE VIEW balances AS SELECT account_id, bucket, credits + 0 AS credits FROM purse",
        )
        .await;
    world.grant().await;
    let with_trigger = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION write_purse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN {body} END $$;\
             DROP TRIGGER IF EXISTS write_purse ON balances;\
             CREATE TRIGGER write_purse INSTEAD OF UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION write_purse()"
        )
    };
    let key = "account_id = OLD.account_id AND bucket = OLD.bucket";
    for (body, expected) in [
        (
            format!(
                "UPDATE purse SET credits = credits + (NEW.credits - OLD.credits) WHERE {key}; RETURN NEW;"
            ),
            "ok",
        ),
        (format!("UPDATE purse SET credits = NEW.credits WHERE {key}; RETURN NEW;"), "fail"),
        (
            format!(
                "UPDATE purse SET credits = NEW.credits WHERE {key} AND credits = OLD.credits; \
                 IF FOUND THEN RETURN NEW; ELSE RETURN NULL; END IF;"
            ),
            "warn",
        ),
    ] {
        world.execute(&with_trigger(&body)).await;
        let (_, told) = check(&world).await;
        assert_eq!(grade(&told, "balances"), Some(expected), "{body}: {told}");
        assert_eq!(
            world.number("SELECT CAST(sum(credits) AS bigint) FROM purse").await,
            0,
            "it was rolled back"
        );
    }
}
