//! The role of docs/adopting.md, made by the SQL that stands there, can do all that a pass does, and no more.

use makegood::demo::simulator::Canned;
use serde_json::json;
use std::time::Duration;

use makegood::store::Store;

use crate::world::{HOUR, MINUTE, World};

const ADOPTING: &str = include_str!("../../../docs/adopting.md");

/// The SQL of the page that makes the role.
fn grants(role: &str) -> String {
    let from = ADOPTING.find("CREATE ROLE makegood").unwrap();
    let block = &ADOPTING[from..from + ADOPTING[from..].find("```").unwrap()];
    let block =
        block.replace("ROLE makegood LOGIN PASSWORD '…'", &format!("ROLE {role} LOGIN PASSWORD 'secret'"));
    block.replace("TO makegood;", &format!("TO {role};"))
}

#[tokio::test]
async fn the_role_of_the_page_can_do_all_that_a_pass_does_and_no_more() {
    let mut world = World::postgres().await;
    let role = format!("makegood_test_{}", std::process::id());
    let grants = grants(&role);
    assert!(grants.contains("makegood_late_questions") && !grants.contains("TO makegood"), "{grants}");
    world.run(&grants).await;
    let mut url = url::Url::parse(&world.database.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("secret")).unwrap();
    let store =
        Store::open(url.as_str(), 4, Duration::from_secs(30)).await.unwrap().with_clock(world.clock.clone());
    world.parts.store = store.clone();

    world.balance("ada", 0, 0).await;
    for (charge, job) in [
        ("refund", "failed-1"),
        ("recover", "ok-2"),
        ("relink", "failed-3"),
        ("wait", "running-4"),
        ("again", "unknown-5"),
    ] {
        world.charge(charge).job(job).insert().await;
    }
    world.store_output("out", None, ("replicate", "failed-3", 0), ("elsewhere", "there")).await;
    world.pass().await;
    world.simulator.set_answer(
        "unknown-5",
        Canned::json(200, &json!({"status": "succeeded", "output": ["https://replicate.delivery/x.png"]})),
    );
    world.run(&super::output(&world, "refund", "failed-1")).await;
    world.pass_time(16 * MINUTE);
    assert_eq!(world.pass().await.stored_late, 1);
    world.pass_time(6 * HOUR);
    assert_eq!(world.pass().await.late_successes, 1);
    for (charge, fate) in [
        ("refund", "refunded provider_error"),
        ("recover", "recovered output_available"),
        ("relink", "relinked misattributed"),
        ("wait", "open still_running"),
        ("again", "refunded never_returned"),
    ] {
        assert_eq!(world.fate(charge, 0).await, fate, "{charge}");
    }
    assert_eq!(store.missing_rights().await.unwrap(), Vec::new());
    world.books_balance().await;

    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(url.as_str()).await.unwrap();
    for sql in [
        "DELETE FROM stored_outputs",
        "DELETE FROM makegood_late_questions",
        "UPDATE makegood_late_successes SET provider = 'x'",
        "UPDATE charges SET wallet_credits = 0",
        "INSERT INTO balances VALUES ('eve', 'wallet', 1)",
        "SELECT makegood_store_output('x', 'refund', 0, 'u', 't', 1, 'h')",
    ] {
        let error = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{sql}: {error}");
    }
    drop(connection);
    store.close().await;
    world.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
