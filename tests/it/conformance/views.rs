//! A platform whose tables differ from the contract provides views, on both databases.
//!
//! The views cannot be locked and do not accept `ON CONFLICT`; writes go through triggers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use makegood::demo::simulator::Canned;
use serde_json::json;

use crate::database;
use crate::world::{HOUR, MINUTE, World};

/// A run and its outputs as this platform keeps them. `time` is the type of an instant.
fn tables(time: &str) -> String {
    format!(
        "CREATE TABLE people (person text PRIMARY KEY, is_team boolean NOT NULL, quota bigint NOT NULL, purse bigint NOT NULL);
         CREATE TABLE runs (run text PRIMARY KEY, person text NOT NULL, board text NOT NULL, cell text NOT NULL, vendor text NOT NULL,
                            model text NOT NULL, ticket text, began {time} NOT NULL, from_quota bigint NOT NULL, from_purse bigint NOT NULL, stopped {time});
         CREATE TABLE shots (run text NOT NULL, nth bigint NOT NULL, price bigint NOT NULL, ticket text, broke {time}, PRIMARY KEY (run, nth));
         CREATE TABLE media (media text PRIMARY KEY, run text, nth bigint, vendor text NOT NULL, ticket text NOT NULL, ticket_nth bigint NOT NULL,
                             board text NOT NULL, cell text NOT NULL, place text NOT NULL, mime text NOT NULL, bytes bigint NOT NULL, hash text NOT NULL,
                             kept {time} NOT NULL, dragged {time}, binned {time});
         CREATE TABLE journal (entry text PRIMARY KEY, person text NOT NULL, purse boolean NOT NULL, amount bigint NOT NULL, why text NOT NULL,
                               run text NOT NULL, nth bigint, reference text, posted {time} NOT NULL);"
    )
}

/// The views. GROUP BY keeps PostgreSQL from locking through them or finding a key to conflict
/// with.
const VIEWS: &str = "
    CREATE VIEW accounts AS SELECT person AS id, CASE WHEN is_team THEN 'workspace' ELSE 'user' END AS kind FROM people;
    CREATE VIEW charges AS
      SELECT run AS id, person AS account_id, board AS project_id, cell AS node_id, vendor AS provider, model, ticket AS provider_job_id,
             began AS charged_at, from_quota AS subscription_credits, from_purse AS wallet_credits, stopped AS cancelled_at
      FROM runs GROUP BY run, person, board, cell, vendor, model, ticket, began, from_quota, from_purse, stopped;
    CREATE VIEW charge_items AS
      SELECT run AS charge_id, nth AS output_index, price AS credits, ticket AS provider_job_id, NULLIF(-1, -1) AS provider_output_index, broke AS failed_at
      FROM shots GROUP BY run, nth, price, ticket, broke;
    CREATE VIEW stored_outputs AS
      SELECT media AS id, run AS charge_id, nth AS output_index, vendor AS provider, ticket AS provider_job_id, ticket_nth AS provider_output_index,
             board AS project_id, cell AS node_id, place AS uri, mime AS content_type, bytes AS size_bytes, hash AS sha256, kept AS stored_at,
             dragged AS moved_at, binned AS deleted_at
      FROM media GROUP BY media, run, nth, vendor, ticket, ticket_nth, board, cell, place, mime, bytes, hash, kept, dragged, binned;
    CREATE VIEW balances AS
      SELECT account_id, bucket, credits
      FROM (SELECT person AS account_id, 'subscription' AS bucket, quota AS credits FROM people
            UNION ALL SELECT person, 'wallet', purse FROM people) AS both_pockets
      GROUP BY account_id, bucket, credits;
    CREATE VIEW ledger_entries AS
      SELECT entry AS id, person AS account_id, CASE WHEN purse THEN 'wallet' ELSE 'subscription' END AS bucket, amount AS credits,
             why AS kind, run AS charge_id, nth AS output_index, reference AS refund_id, posted AS posted_at
      FROM journal GROUP BY entry, person, purse, amount, why, run, nth, reference, posted;";

const POSTGRES_TRIGGERS: &str = "
    CREATE FUNCTION add_to_balance() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
      UPDATE people SET quota = quota + CASE NEW.bucket WHEN 'subscription' THEN NEW.credits - OLD.credits ELSE 0 END,
                        purse = purse + CASE NEW.bucket WHEN 'wallet' THEN NEW.credits - OLD.credits ELSE 0 END
      WHERE person = NEW.account_id;
      RETURN NEW; END $$;
    CREATE TRIGGER add_to_balance INSTEAD OF UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION add_to_balance();
    CREATE FUNCTION add_to_journal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
      INSERT INTO journal VALUES (NEW.id, NEW.account_id, NEW.bucket = 'wallet', NEW.credits, NEW.kind, NEW.charge_id, NEW.output_index, NEW.refund_id, NEW.posted_at);
      RETURN NEW; END $$;
    CREATE TRIGGER add_to_journal INSTEAD OF INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION add_to_journal();
    CREATE FUNCTION keep_media() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
      INSERT INTO media VALUES (NEW.id, NEW.charge_id, NEW.output_index, NEW.provider, NEW.provider_job_id, NEW.provider_output_index, NEW.project_id,
                                NEW.node_id, NEW.uri, NEW.content_type, NEW.size_bytes, NEW.sha256, NEW.stored_at, NEW.moved_at, NEW.deleted_at);
      RETURN NEW; END $$;
    CREATE TRIGGER keep_media INSTEAD OF INSERT ON stored_outputs FOR EACH ROW EXECUTE FUNCTION keep_media();
    CREATE FUNCTION put_back_media() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
      UPDATE media SET run = NEW.charge_id, nth = NEW.output_index, board = NEW.project_id, cell = NEW.node_id WHERE media = OLD.id;
      RETURN NEW; END $$;
    CREATE TRIGGER put_back_media INSTEAD OF UPDATE ON stored_outputs FOR EACH ROW EXECUTE FUNCTION put_back_media();";

const SQLITE_TRIGGERS: &str = "
    CREATE TRIGGER add_to_balance INSTEAD OF UPDATE ON balances BEGIN
      UPDATE people SET quota = quota + CASE NEW.bucket WHEN 'subscription' THEN NEW.credits - OLD.credits ELSE 0 END,
                        purse = purse + CASE NEW.bucket WHEN 'wallet' THEN NEW.credits - OLD.credits ELSE 0 END
      WHERE person = NEW.account_id; END;
    CREATE TRIGGER add_to_journal INSTEAD OF INSERT ON ledger_entries BEGIN
      INSERT INTO journal VALUES (NEW.id, NEW.account_id, NEW.bucket = 'wallet', NEW.credits, NEW.kind, NEW.charge_id, NEW.output_index, NEW.refund_id, NEW.posted_at); END;
    CREATE TRIGGER keep_media INSTEAD OF INSERT ON stored_outputs BEGIN
      INSERT INTO media VALUES (NEW.id, NEW.charge_id, NEW.output_index, NEW.provider, NEW.provider_job_id, NEW.provider_output_index, NEW.project_id,
                                NEW.node_id, NEW.uri, NEW.content_type, NEW.size_bytes, NEW.sha256, NEW.stored_at, NEW.moved_at, NEW.deleted_at); END;
    CREATE TRIGGER put_back_media INSTEAD OF UPDATE ON stored_outputs BEGIN
      UPDATE media SET run = NEW.charge_id, nth = NEW.output_index, board = NEW.project_id, cell = NEW.node_id WHERE media = OLD.id; END;";

/// One run of one shot at `ticket`, for 4 of the quota and 6 of the purse.
fn run(world: &World, run: &str, ticket: &str) -> String {
    let began = world.at(world.now() - 3 * HOUR);
    format!(
        "INSERT INTO runs VALUES ('{run}', 'ada', 'b-{run}', 'c-{run}', 'replicate', 'm', '{ticket}', {began}, 4, 6, NULL);
         INSERT INTO shots VALUES ('{run}', 0, 10, NULL, NULL);"
    )
}

async fn the_whole_way(world: World) {
    world.store.prepare_all().await.unwrap();
    world.run("INSERT INTO people VALUES ('ada', false, 100, 100)").await;
    // It includes the platform's own refunds.
    world.opens_with("ada", "subscription", 100 - 4);
    world.opens_with("ada", "wallet", 100 - 6);
    for (name, ticket) in [
        ("refund", "failed-1"),
        ("recover", "ok-2"),
        ("relink", "ok-3"),
        ("wait", "running-4"),
        ("close", "failed-5"),
        ("theirs", "failed-6"),
    ] {
        world.run(&run(&world, name, ticket)).await;
    }
    let now = world.at(world.now());
    world.run(&format!("INSERT INTO media VALUES ('m1', NULL, NULL, 'replicate', 'ok-3', 0, 'b-x', 'c-x', 'u', 't', 1, 'h', {now}, NULL, NULL)")).await;
    world
        .run(&format!(
            "INSERT INTO journal VALUES ('j1', 'ada', true, 6, 'refund', 'theirs', 0, NULL, {now}), ('j2', 'ada', false, 4, 'refund', 'theirs', 0, NULL, {now})"
        ))
        .await;
    world.while_asked("failed-5", format!("INSERT INTO media VALUES ('m2', 'close', 0, 'replicate', 'failed-5', 0, 'b-close', 'c-close', 'u', 't', 1, 'h', {now}, NULL, NULL)"));

    let report = world.pass().await;
    for (name, fate) in [
        ("refund", "refunded provider_error"),
        ("recover", "recovered output_available"),
        ("relink", "relinked misattributed"),
        ("wait", "open still_running"),
        ("close", "closed delivered"),
        ("theirs", "closed already_refunded"),
    ] {
        assert_eq!(world.fate(name, 0).await, fate, "{name}: {report:?}");
    }
    assert_eq!(world.texts("SELECT quota || ' ' || purse AS v FROM people").await, ["104 106"]);
    assert_eq!(
        world.texts("SELECT run || ' ' || board || ' ' || cell AS v FROM media WHERE media = 'm1'").await,
        ["relink b-relink c-relink"]
    );
    let kept = world
        .texts(
            "SELECT run || ' ' || nth || ' ' || board || ' ' || mime AS v FROM media WHERE ticket = 'ok-2'",
        )
        .await;
    assert_eq!(kept, ["recover 0 b-recover image/png"]);
    let entries = world.texts("SELECT CASE WHEN purse THEN 'purse ' ELSE 'quota ' END || amount || ' ' || reference AS v FROM journal WHERE run = 'refund' ORDER BY amount").await;
    assert_eq!(entries, ["quota 4 makegood:refund/0", "purse 6 makegood:refund/0"]);

    // Later: the waiting item fails; a person moves the outputs; a second pass finds nothing else
    // to do.
    world.simulator.set_answer(
        "running-4",
        Canned::json(200, &json!({"status": "failed", "output": null, "error": "no"})),
    );
    world.pass_time(HOUR + MINUTE);
    world.pass().await;
    assert_eq!(world.fate("wait", 0).await, "refunded provider_error");
    assert_eq!(world.texts("SELECT quota || ' ' || purse AS v FROM people").await, ["108 112"]);
    let statuses: BTreeSet<String> =
        world.texts("SELECT charge_id || ' ' || status AS v FROM usage_history").await.into_iter().collect();
    let expected = [
        "close delivered",
        "recover delivered",
        "refund refunded",
        "relink delivered",
        "theirs refunded",
        "wait refunded",
    ];
    assert_eq!(statuses, expected.into_iter().map(str::to_owned).collect());
    world.books_balance().await;
}

#[tokio::test]
async fn makegood_works_over_views_on_postgres() {
    let schema = format!("{}{VIEWS}{POSTGRES_TRIGGERS}", tables("timestamptz"));
    the_whole_way(World::on(database::database().await, Some(&schema)).await).await;
}

#[tokio::test]
async fn makegood_works_over_views_on_sqlite() {
    let schema = format!("{}{VIEWS}{SQLITE_TRIGGERS}", tables("integer"));
    the_whole_way(World::on(database::sqlite(), Some(&schema)).await).await;
}

#[tokio::test]
async fn postgres_can_neither_lock_these_views_nor_find_a_conflict_in_them() {
    // Shows that the test above would have failed if makegood needed either. (It tries to lock
    // balances, and goes on if it cannot.)
    let schema = format!("{}{VIEWS}{POSTGRES_TRIGGERS}", tables("timestamptz"));
    let world = World::on(database::database().await, Some(&schema)).await;
    for relation in ["charges", "charge_items", "stored_outputs", "balances", "ledger_entries"] {
        assert!(world.try_run(&format!("SELECT * FROM {relation} FOR UPDATE")).await.is_err(), "{relation}");
    }
    let conflict = "INSERT INTO ledger_entries SELECT * FROM ledger_entries ON CONFLICT (id) DO NOTHING";
    assert!(world.try_run(conflict).await.is_err());
}
