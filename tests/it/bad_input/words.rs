//! Ids with unusual characters: in URLs, files, JSON and keys.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use crate::world::{HOUR, Sql, World, on_both};

use super::{finds, good_one, only_the_good_one_was_refunded};

const ODD: [&str; 10] = [
    "../../../etc/passwd",
    "a b\tc\nd",
    "%2e%2e%2f{job}?x=1#y",
    "\" OR 1=1 --",
    "back\\slash\\u0000",
    "🦀 e\u{301} \u{202e}rtl\u{feff}",
    "[\"json\", {}]",
    "/absolute",
    ".",
    "CON",
];

/// A charge whose id and job are passed through JSON, so that no text needs quoting.
async fn insert(world: &World, charge: &str, provider: &str, job: &str) {
    let quote = |text: &str| text.replace('\'', "''");
    let (charge, job, at) = (quote(charge), quote(job), world.at(world.now() - 3 * HOUR));
    world
        .run(&format!(
            "INSERT INTO charges VALUES ('{charge}', 'ada', '{charge}', '{charge}', '{provider}', 'm', '{job}', {at}, 0, 10, NULL);
             INSERT INTO charge_items VALUES ('{charge}', 0, 10, NULL, NULL, NULL);"
        ))
        .await;
}

on_both! {
    async fn a_job_id_full_of_slashes_and_spaces_asks_about_no_other_job(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let job = "../../v1/predictions/failed-good and more";
        insert(&world, "c1", "replicate", job).await;
        insert(&world, "c2", "fal", job).await;
        insert(&world, "c3", "veo-gemini", "models/../../replicate/v1/predictions/failed-good").await;
        world.pass().await;
        // Percent-encoded it is one path segment, of an unknown job. A raw path with dots is not
        // requested.
        let encoded = "/replicate/v1/predictions/..%2F..%2Fv1%2Fpredictions%2Ffailed-good%20and%20more";
        assert_eq!(world.simulator.hits(encoded), 1);
        assert_eq!(world.simulator.hits("/replicate/v1/predictions/failed-good"), 1, "only for the good one");
        assert_eq!(world.fate("c1", 0).await, "refunded never_returned");
        assert_eq!(world.fate("c3", 0).await, "open unreadable");
        world.books_balance().await;
    }
}

on_both! {
    async fn p16_odd_ids_are_recovered_inside_the_storage(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        for (nth, odd) in ODD.into_iter().enumerate() {
            insert(&world, odd, "replicate", &format!("ok-{nth} {odd}")).await;
        }
        let report = world.pass().await;
        assert_eq!(report.total("recover"), 10, "{report:?}");
        let storage = world.folder.path().join("outputs").canonicalize().unwrap();
        for uri in world.texts("SELECT uri AS v FROM stored_outputs").await {
            let path = url::Url::parse(&uri).unwrap().to_file_path().unwrap();
            let path = Path::new(&path).canonicalize().unwrap_or_else(|error| panic!("{uri}: {error}"));
            assert!(path.starts_with(&storage), "{} lies outside", path.display());
        }
        let linked = world.texts("SELECT charge_id AS v FROM stored_outputs WHERE project_id = charge_id AND node_id = charge_id").await;
        assert_eq!(linked.len(), 10);
        only_the_good_one_was_refunded(&world).await;
    }
}

on_both! {
    async fn p01_odd_ids_are_refunded_once(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        for (nth, odd) in ODD.into_iter().enumerate() {
            insert(&world, odd, "replicate", &format!("failed-{nth} {odd}")).await;
        }
        world.pass().await;
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.balance_of("ada").await, (0, 100));
        world.books_balance().await;
    }
}

on_both! {
    async fn ids_longer_than_an_index_can_hold_are_reported_and_stop_no_other(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        // Not to be compressed: a key of PostgreSQL's holds 2,700 bytes.
        let mut word = 88_172_645_463_325_252_u64;
        let long: String = (0..6000).map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            char::from(b'!' + u8::try_from(word % 90).unwrap())
        }).filter(|c| *c != '\'' && *c != '\\').collect();
        if let Sql::Postgres(_) = &world.sql {
            world.run("DROP INDEX charges_by_job; DROP INDEX charges_by_time; DROP INDEX stored_outputs_by_job; DROP INDEX ledger_entries_by_charge").await;
            world.without_keys("charges").await;
            world.without_keys("charge_items").await;
        }
        insert(&world, "long-job", "replicate", &format!("failed-{long}")).await;
        insert(&world, &format!("long-{long}"), "replicate", "failed-short").await;
        insert(&world, "beside", "replicate", "failed-beside").await;
        let report = world.pass().await;
        assert_eq!(world.fate("beside", 0).await, "refunded provider_error");
        assert_eq!(world.fate("good", 0).await, "refunded provider_error");
        match &world.sql {
            Sql::Postgres(_) => {
                finds(&report, "refused_row", "item long-job/0");
                assert_eq!(world.balance_of("ada").await, (0, 10));
            }
            // SQLite accepts them; a URL that long is not requested.
            Sql::Sqlite(_) => {
                assert_eq!(world.fate("long-job", 0).await, "open unreadable");
                assert_eq!(world.balance_of("ada").await, (0, 20));
            }
        }
        world.books_balance().await;
    }
}

#[tokio::test]
async fn a_job_id_with_a_nul_in_it_stops_no_other_on_sqlite() {
    let world = World::sqlite().await;
    good_one(&world).await;
    world.balance("ada", 0, 0).await;
    insert(&world, "c1", "replicate", "failed-1").await;
    insert(&world, "c2", "replicate", "failed-2").await;
    world.run("UPDATE charges SET provider_job_id = 'failed-' || char(0) || 'x' WHERE id = 'c1'").await;
    world.run("UPDATE charges SET id = 'c' || char(0) || '2' WHERE id = 'c2'; UPDATE charge_items SET charge_id = 'c' || char(0) || '2' WHERE charge_id = 'c2'").await;
    world.pass().await;
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate("good", 0).await, "refunded provider_error");
    assert!(world.balance_of("ada").await.1 <= 20);
    world.books_balance().await;
}
