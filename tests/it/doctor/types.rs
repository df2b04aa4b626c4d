//! Wrong columns are reported all at once, with the SQL to write, on empty tables and before
//! makegood's own tables exist.

use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{check, told_of};
use crate::binary::makegood;
use crate::commands::World;
use crate::database::{database, sqlite};

/// A platform that was not made for makegood, without rows.
const PLATFORM: &str = "
    CREATE TYPE provider_name AS ENUM ('fal');
    CREATE DOMAIN job_id AS varchar(80);
    CREATE TABLE accounts (id uuid, kind text);
    CREATE TABLE charges (id uuid, account_id bigint, project_id varchar(20), node_id text, provider provider_name,
        model text, provider_job_id job_id, charged_at timestamp, subscription_credits integer,
        wallet_credits numeric(12,2), cancelled_at text);
    CREATE TABLE charge_items (charge_id text, output_index smallint, credits bigint, provider_job_id text,
        provider_output_index integer);
    CREATE TABLE stored_outputs (id text, charge_id text, output_index bigint, provider text, provider_job_id text,
        provider_output_index bigint, project_id text, node_id text, uri text, content_type text, size_bytes bigint,
        sha256 text, stored_at bigint, moved_at date, deleted_at timestamptz);
    CREATE TABLE balances (account_id text, bucket character(12), credits money);";

#[tokio::test]
async fn wrong_types_of_all_relations_are_reported_at_once_with_the_cast_to_write() {
    let database = database().await;
    PgConnection::connect(&database.url).await.unwrap().execute(PLATFORM).await.unwrap();
    let ended = makegood(&["check"]).env("DATABASE_URL", &database.url).output().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let contract = |relation: &str| told_of(&told, &format!("contract: {relation}"));
    assert_eq!(
        contract("charges"),
        [
            "fail charges.id is `uuid`, makegood reads `text`",
            "fail charges.account_id is `bigint`, makegood reads `text`",
            "fail charges.provider is `provider_name`, makegood reads `text`",
            "fail charges.charged_at is `timestamp without time zone`, makegood reads `timestamptz`",
            "fail charges.subscription_credits is `integer`, makegood reads `bigint`",
            "fail charges.wallet_credits is `numeric(12,2)`, makegood reads `bigint`",
            "warn charges.cancelled_at is `text`, makegood reads `timestamptz`",
        ]
    );
    assert_eq!(
        contract("charge_items"),
        [
            "fail charge_items.output_index is `smallint`, makegood reads `bigint`",
            "fail charge_items has no column `failed_at`",
        ]
    );
    assert_eq!(
        contract("stored_outputs"),
        [
            "fail stored_outputs.stored_at is `bigint`, makegood reads `timestamptz`",
            "fail stored_outputs.moved_at is `date`, makegood reads `timestamptz`",
        ]
    );
    assert_eq!(
        contract("balances"),
        [
            "warn balances.bucket is `character(12)`, makegood expects `text`",
            "fail balances.credits is `money`, makegood reads `bigint`",
        ]
    );
    let nowhere = "fail there is no such relation where this role looks (its search path)";
    assert_eq!(contract("ledger_entries"), [nowhere]);
    for advice in [
        "let a view give `charged_at AT TIME ZONE 'UTC' AS charged_at`, if it means UTC",
        "let a view give `id::text AS id`",
        "let a view give `wallet_credits::bigint AS wallet_credits`, if it counts the smallest unit; \
         `(wallet_credits * 100)::bigint` if it counts whole ones and has two decimals",
        "let a view give `to_timestamp(stored_at / 1000.0) AS stored_at`, if it counts milliseconds since 1970",
        "add it, as `timestamptz`",
    ] {
        assert!(
            told["checks"].as_array().unwrap().iter().any(|each| each["advice"] == advice),
            "{advice}: {told}"
        );
    }
    for word in ["Rust", "i64", "Option<", "chrono", "sqlx"] {
        assert!(!ended.stdout.contains(word), "{word}: {ended:?}");
    }
}

#[tokio::test]
async fn on_sqlite_missing_columns_are_reported_at_once_and_values_are_read() {
    let world = World::new(sqlite()).await;
    world
        .execute(
            "ALTER TABLE accounts RENAME COLUMN kind TO sort; ALTER TABLE accounts RENAME COLUMN id TO nr;
             ALTER TABLE charges RENAME TO old; CREATE VIEW charges AS SELECT id, account_id, project_id, node_id, provider,
                 model, provider_job_id, '2026-03-01' AS charged_at, subscription_credits, wallet_credits, cancelled_at FROM old",
        )
        .await;
    let (code, told) = check(&world).await;
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(
        told_of(&told, "contract: accounts"),
        ["warn accounts has no column `id`", "warn accounts has no column `kind`"]
    );
    let [says] = &told_of(&told, "contract: charges")[..] else { panic!("{told}") };
    assert!(
        says.starts_with("fail charges.charged_at of `")
            && says.ends_with("` is not a whole number of microseconds since 1970"),
        "{says}"
    );
}
