//! Answers that providers should not give, and providers that have no file.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use makegood::demo::simulator::Canned;
use makegood::provider::Providers;
use serde_json::json;

use crate::world::{HOUR, MINUTE, World, on_both};

use super::{finds, good_one, only_the_good_one_was_refunded};

/// Passes until `refund_by`: nothing is refunded before it, and everything by the end of the
/// window.
async fn waits_and_is_refunded_in_time(world: &World, charges: &[&str]) {
    world.pass_time(18 * HOUR);
    world.pass().await;
    only_the_good_one_was_refunded(world).await;
    for _ in 0..6 {
        world.pass_time(20 * MINUTE);
        world.pass().await;
    }
    for charge in charges {
        assert_eq!(world.fate(charge, 0).await, "refunded unconfirmed", "{charge}");
    }
    assert_eq!(
        world.number("SELECT count(*) AS v FROM makegood_orphans WHERE resolved_at > window_ends_at").await,
        0
    );
    world.books_balance().await;
}

on_both! {
    async fn p15_items_of_unknown_providers_wait_and_are_then_refunded(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let names = [("c0", "nobody"), ("c1", "Replicate"), ("c2", ""), ("c3", "../../etc/passwd"), ("c4", "replicate "), ("c5", "fal\nreplicate"), ("c6", "🦀")];
        for (charge, provider) in names {
            world.charge(charge).provider(provider, "m").job("ok-1").insert().await;
        }
        let report = world.pass().await;
        for (charge, provider) in names {
            assert_eq!(world.fate(charge, 0).await, "open unknown_provider", "{provider:?}");
            finds(&report, "unknown_provider", &format!("provider {provider}"));
        }
        waits_and_is_refunded_in_time(&world, &names.map(|(charge, _)| charge)).await;
    }
}

on_both! {
    async fn p15_answers_that_are_too_long_too_deep_or_no_answer_at_all_are_unreadable(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let jobs = [("huge", "huge-1"), ("deep", "deep-2"), ("garbage", "garbage-3"), ("novel", "novel-4"), ("empty-body", "e-5"), ("list", "l-6"), ("number", "n-7"), ("bytes", "b-8"), ("types", "t-9"), ("bomb", "z-10")];
        world.simulator.set_answer("e-5", Canned::new(200, ""));
        world.simulator.set_answer("l-6", Canned::json(200, &json!([[], {}])));
        world.simulator.set_answer("n-7", Canned::new(200, "1e999999"));
        world.simulator.set_answer("b-8", Canned::new(200, &b"\xff\xfe\x00{"[..]));
        world.simulator.set_answer("t-9", Canned::json(200, &json!({"status": ["succeeded"], "output": {"url": 7}, "error": {}})));
        world.simulator.set_answer("z-10", Canned::new(200, "{}").with("content-encoding", "gzip"));
        for (charge, job) in jobs {
            world.charge(charge).job(job).insert().await;
        }
        let report = world.pass().await;
        for (charge, _) in jobs {
            let fate = world.fate(charge, 0).await;
            assert!(fate == "open unreadable" || fate == "open unreachable", "{charge}: {fate}");
        }
        finds(&report, "unreadable", "provider replicate");
        waits_and_is_refunded_in_time(&world, &jobs.map(|(charge, _)| charge)).await;
    }
}

on_both! {
    async fn a_filter_that_fails_is_unreadable_and_reported(world) {
        let mut world = world;
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let files = world.folder.path().join("providers");
        let filters = [
            ("broken", r#"error("x")"#),
            ("silent", "empty"),
            ("wordless", "null"),
            ("novel", r#"{verdict: "splendid"}"#),
            ("extra", r#"{verdict: "failed", refund: true}"#),
            ("chatty", r#"{verdict: "ask", request: "GET http://127.0.0.1:1/x"}"#),
            ("nothing", r#"{verdict: "succeeded", outputs: [{index: -1, url: "x"}]}"#),
        ];
        for (name, read) in filters {
            let text = format!(
                "[provider]\nname = \"{name}\"\nretries = 0\noutput_hosts = [\"127.0.0.1\"]\n[ask]\nrequest = \"GET {}/replicate/v1/predictions/{{job}}\"\nread = '{read}'\n",
                world.simulator.base_url()
            );
            std::fs::write(files.join(format!("{name}.toml")), text).unwrap();
            world.charge(name).provider(name, "m").job("failed-1").insert().await;
        }
        world.parts.providers = Arc::new(Providers::load(Some(&files), world.clock.clone()).unwrap());
        let report = world.pass().await;
        for (name, _) in filters {
            let fate = world.fate(name, 0).await;
            assert!(fate == "open unreadable" || name == "chatty" && fate == "open unreachable", "{name}: {fate}");
        }
        finds(&report, "unreadable", "provider broken");
        let detail = &report.findings.iter().find(|each| each.about == "provider broken").unwrap().detail;
        assert!(detail.contains('x'), "{detail}");
        waits_and_is_refunded_in_time(&world, &filters.map(|(name, _)| name)).await;
    }
}

on_both! {
    async fn texts_of_a_provider_that_a_database_cannot_store_are_kept_as_far_as_possible(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let odd = "nul \u{0} bell \u{7} rtl \u{202e} quote ' \" \\ emoji 🦀 sep \u{2028} $1 {job}";
        let long = "x".repeat(1_000_000);
        for (charge, words) in [("odd", odd), ("long", &long)] {
            let job = format!("w-{charge}");
            world.charge(charge).job(&job).insert().await;
            world.simulator.set_answer(&job, Canned::json(200, &json!({"status": "failed", "output": null, "error": words})));
        }
        world.pass().await;
        for charge in ["odd", "long"] {
            assert_eq!(world.fate(charge, 0).await, "refunded provider_error");
        }
        let longest = world.number("SELECT max(length(message) + length(excerpt)) AS v FROM makegood_answers").await;
        assert!(longest < 10_000, "{longest}");
        assert!(world.texts("SELECT message AS v FROM makegood_answers").await.iter().any(|text| text.contains("emoji 🦀")));
        world.books_balance().await;
    }
}

on_both! {
    async fn bodies_that_are_no_files_are_not_stored(world) {
        good_one(&world).await;
        world.balance("ada", 0, 0).await;
        let base = world.simulator.base_url();
        let urls = [
            ("other-host", "http://localhost.evil.invalid/x.png".to_owned()),
            ("metadata", "http://169.254.169.254/latest/meta-data".to_owned()),
            ("scheme", "https://user:pass@[::1]:99999/".to_owned()),
            ("broken", format!("{base}/files/file-broken-1/0.png")),
        ];
        for (charge, url) in &urls {
            let job = format!("u-{charge}");
            world.charge(charge).job(&job).insert().await;
            world.simulator.set_answer(&job, Canned::json(200, &json!({"status": "succeeded", "output": url})));
        }
        let report = world.pass().await;
        for (charge, _) in &urls {
            assert_eq!(world.fate(charge, 0).await, "open recovery_retry", "{charge}");
            finds(&report, "recovery_retry", &format!("item {charge}/0"));
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 0);
        only_the_good_one_was_refunded(&world).await;
    }
}
