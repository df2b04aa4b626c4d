//! `makegood_store_output` against settle: two real connections, both orders, each forced by a
//! lock.

use makegood::store::Outcome;

use super::{
    REFUND, WAIT_IN_LEDGER, another, claim, connection, counted, detect, late_successes, on, seen_waiting,
    settle, settlement, text,
};
use crate::world::{HOUR, MINUTE, World};

/// The SHA-256 of "abc" (FIPS 180-2, appendix B.1).
const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// The call for item 0 of a charge, as a platform writes it.
fn call(id: &str, charge: &str) -> String {
    format!(
        "SELECT makegood_store_output(output_id => '{id}', charge_id => '{charge}', output_index => 0, uri => 's3://files/{id}',
                                      content_type => 'image/png', size_bytes => 3, sha256 => '{HASH}')"
    )
}

async fn one_claimed() -> (World, makegood::store::Case) {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    (world, case)
}

#[tokio::test]
async fn p20_a_refund_that_comes_second_waits_for_the_stored_output_and_is_not_given() {
    let (world, case) = one_claimed().await;
    let (mut platform, store) = (connection(&world).await, another(&world).await);
    on(&mut platform, "BEGIN").await;
    assert_eq!(text(&mut platform, &call("out", "c1")).await.unwrap(), "stored");
    // Not committed, so no other session sees it: without the lock the refund would be given.
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        seen_waiting(&world, "lock_charges").await;
        on(&mut platform, "COMMIT").await;
    });
    assert_eq!(outcome, Outcome::Changed);
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate("c1", 0).await, "closed delivered");
    assert_eq!(world.balance_of("ada").await, (0, 0));
    assert_eq!(late_successes(&world).await, Vec::<String>::new());
    world.books_balance().await;
}

#[tokio::test]
async fn p20_an_output_that_comes_second_waits_for_the_refund_and_is_stored_as_late() {
    let (world, case) = one_claimed().await;
    world.run(WAIT_IN_LEDGER).await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let (mut platform, store) = (connection(&world).await, another(&world).await);
    let call = call("out", "c1");
    let (outcome, said, ()) = tokio::join!(
        settle(&store, &world, settlement(&world, case, REFUND)),
        async {
            seen_waiting(&world, "post_refunds").await;
            text(&mut platform, &call).await.unwrap()
        },
        async {
            seen_waiting(&world, "makegood_store_output").await;
            on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
        }
    );
    assert_eq!((outcome, said.as_str()), (Outcome::Settled(REFUND), "stored_late"));
    world.run("DROP TRIGGER wait_here ON ledger_entries").await;
    assert_eq!(late_successes(&world).await, ["c1/0 stored_late makegood_store_output out"]);
    assert_eq!(counted(&world, "stored_late").await, 1);
    assert_eq!(
        world.texts("SELECT kind AS v FROM makegood_orphan_events ORDER BY id").await,
        ["opened", "refund", "stored_late"]
    );
    assert_eq!(
        world.texts("SELECT status || ' ' || billable AS v FROM usage_history").await,
        ["refunded false"]
    );
    assert_eq!(world.balance_of("ada").await, (0, 10));

    // No pass reports it a second time, and a second call changes nothing.
    for _ in 0..3 {
        world.pass_time(16 * MINUTE);
        assert_eq!(world.pass().await.stored_late, 0);
    }
    assert_eq!(text(&mut platform, &call).await.unwrap(), "already_there");
    assert_eq!(counted(&world, "stored_late").await, 1);
    assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 1);
    world.books_balance().await;
}

#[tokio::test]
async fn p20_a_recovery_and_the_platforms_own_output_never_both_land() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    for charge in ["first", "second"] {
        world.charge(charge).job(&format!("ok-{charge}")).insert().await;
    }
    // The platform comes first with one, and makegood with the other.
    let mut platform = connection(&world).await;
    assert_eq!(text(&mut platform, &call("out-first", "first")).await.unwrap(), "stored");
    world.pass().await;
    assert_eq!(text(&mut platform, &call("out-second", "second")).await.unwrap(), "already_there");
    let outputs = world
        .texts("SELECT charge_id || ' ' || split_part(id, ':', 1) AS v FROM stored_outputs ORDER BY 1")
        .await;
    assert_eq!(outputs, ["first out-first", "second makegood"]);
    world.books_balance().await;
}

#[tokio::test]
async fn an_output_that_is_rolled_back_was_never_stored_and_the_refund_goes_on() {
    let (world, case) = one_claimed().await;
    let (mut platform, store) = (connection(&world).await, another(&world).await);
    on(&mut platform, "BEGIN").await;
    assert_eq!(text(&mut platform, &call("out", "c1")).await.unwrap(), "stored");
    let (outcome, ()) = tokio::join!(settle(&store, &world, settlement(&world, case, REFUND)), async {
        seen_waiting(&world, "lock_charges").await;
        on(&mut platform, "ROLLBACK").await;
    });
    assert_eq!(outcome, Outcome::Settled(REFUND));
    assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 0);
    world.books_balance().await;
}

#[tokio::test]
async fn a_caller_whose_snapshot_is_older_than_the_refund_has_to_retry() {
    let (world, case) = one_claimed().await;
    let mut platform = connection(&world).await;
    on(&mut platform, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM charges").await;
    assert_eq!(
        settle(&world.store, &world, settlement(&world, case, REFUND)).await,
        Outcome::Settled(REFUND)
    );
    let error = text(&mut platform, &call("out", "c1")).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40001", "{error}");
    on(&mut platform, "ROLLBACK").await;
    assert_eq!(text(&mut platform, &call("out", "c1")).await.unwrap(), "stored_late");
}

#[tokio::test]
async fn an_output_is_stored_in_its_items_place_and_one_that_does_not_match_is_refused() {
    let world = World::postgres().await;
    world.charge("c1").job("failed-1").insert().await;
    world.charge("jobless").insert().await;
    let mut platform = connection(&world).await;
    assert_eq!(text(&mut platform, &call("out", "c1")).await.unwrap(), "stored");
    let row = world
        .texts("SELECT concat_ws(' ', charge_id, output_index, provider, provider_job_id, provider_output_index, project_id, node_id, uri, content_type, size_bytes, sha256) AS v FROM stored_outputs")
        .await;
    assert_eq!(row, [format!("c1 0 replicate failed-1 0 p-c1 n-c1 s3://files/out image/png 3 {HASH}")]);
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_deliveries WHERE charge_id = 'c1'").await, 1);

    for (sql, words) in [
        (call("x", "nobody"), "there is no item nobody/0"),
        (call("x", "jobless"), "has no provider job on record"),
        (
            call("x", "c1").replace("size_bytes => 3", "size_bytes => 3, provider_job_id => 'other'"),
            "was bought as output 0 of job failed-1",
        ),
        (
            call("x", "c1").replace("size_bytes => 3", "size_bytes => 3, provider_output_index => 2"),
            "was bought as output 0 of job failed-1",
        ),
    ] {
        let error = text(&mut platform, &sql).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let named =
        call("named", "jobless").replace("size_bytes => 3", "size_bytes => 3, provider_job_id => 'j-9'");
    assert_eq!(text(&mut platform, &named).await.unwrap(), "stored");
    assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 2);
}

#[tokio::test]
async fn p18_an_invalid_output_is_refused_by_argument_and_leaves_nothing() {
    let world = World::postgres().await;
    world.charge("c1").job("failed-1").insert().await;
    let mut platform = connection(&world).await;
    let good = call("out", "c1");
    let with = |argument: &str, value: &str| {
        let (before, after) = good.split_once(&format!("{argument} => ")).unwrap();
        let end = after.find([',', ')']).unwrap();
        format!("{before}{argument} => {value}{}", &after[end..])
    };
    for (argument, value, words) in [
        ("output_id", "'makegood:c1/0:1'", "output_id begins with `makegood:`"),
        ("output_id", "''", "output_id is empty"),
        ("uri", "'javascript:alert(document.cookie)'", "uri has a scheme that is not one of file, s3"),
        ("uri", "'JavaScript:alert(1)'", "uri has a scheme"),
        ("uri", "' javascript:alert(1)'", "uri has a scheme"),
        ("uri", "E'java\\nscript:alert(1)'", "uri is empty or holds a control character"),
        ("uri", "'data:text/html;base64,PHNjcmlwdD4='", "uri has a scheme"),
        ("uri", "'vbscript:x'", "uri has a scheme"),
        ("uri", "'httpsx:y'", "uri has a scheme"),
        ("uri", "''", "uri is empty"),
        ("size_bytes", "-5", "size_bytes is below zero"),
        ("sha256", "'abc'", "sha256 is not 64 hexadecimal digits"),
        ("sha256", "''", "sha256 is not"),
        ("sha256", "repeat('g', 64)", "sha256 is not"),
        ("sha256", "repeat('a', 65)", "sha256 is not"),
        ("sha256", "repeat('a', 64) || E'\\n'", "sha256 is not"),
    ] {
        let error = text(&mut platform, &with(argument, value)).await.unwrap_err();
        let words = format!("makegood_store_output: item c1/0: {words}");
        assert!(error.to_string().contains(&words), "{argument} {value}: {error}");
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "22023", "{argument} {value}");
    }
    assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 0);
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_charges").await, 0);
    // Values that a platform may well pass.
    for (argument, value) in [
        ("uri", "'https://cdn.example/a.png?v=1:2'"),
        ("uri", "'outputs/ch:1/a.png'"),
        ("uri", "'FILE:///srv/a.png'"),
        ("size_bytes", "NULL"),
        ("sha256", "NULL"),
        ("sha256", "repeat('A', 64)"),
    ] {
        on(&mut platform, "BEGIN").await;
        assert_eq!(
            text(&mut platform, &with(argument, value)).await.unwrap(),
            "stored",
            "{argument} {value}"
        );
        on(&mut platform, "ROLLBACK").await;
    }
}

#[tokio::test]
async fn only_granted_roles_may_call_it_and_no_table_of_the_caller_hides_makegoods() {
    let (world, case) = one_claimed().await;
    assert_eq!(
        settle(&world.store, &world, settlement(&world, case, REFUND)).await,
        Outcome::Settled(REFUND)
    );
    let role = format!("platform_{}", std::process::id());
    let mut platform = connection(&world).await;
    on(
        &mut platform,
        &format!("CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role}; SET ROLE {role}"),
    )
    .await;
    let error = text(&mut platform, &call("out", "c1")).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{error}");
    on(&mut platform, "RESET ROLE").await;
    on(&mut platform, &format!("GRANT EXECUTE ON FUNCTION makegood_store_output TO {role}; GRANT TEMPORARY ON DATABASE {} TO {role}; SET ROLE {role}", database(&world))).await;
    // A table that hides makegood's: if it were read, the refund would not be seen.
    on(&mut platform, "CREATE TEMPORARY TABLE makegood_refunds (id text, provider text, model text, charge_id text, output_index bigint)").await;
    assert_eq!(text(&mut platform, &call("out", "c1")).await.unwrap(), "stored_late");
    assert!(
        text(&mut platform, "SELECT id FROM makegood_late_successes").await.is_err(),
        "it can do nothing else"
    );
    on(&mut platform, &format!("RESET ROLE; REVOKE ALL ON FUNCTION makegood_store_output FROM {role}; REVOKE ALL ON SCHEMA public FROM {role}; REVOKE ALL ON DATABASE {} FROM {role}; DROP OWNED BY {role}; DROP ROLE {role}", database(&world))).await;
}

fn database(world: &World) -> String {
    world.database.url.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned()
}
