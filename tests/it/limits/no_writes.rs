//! A database that is read-only or full, before a pass or in the middle of it.

use std::sync::Arc;

use super::{all_made_good, alter_database, nothing_half_done, run, two_charges};
use crate::binary::Ended;
use crate::database::{as_least_privileged, sqlite};
use crate::leftovers::Small;
use crate::postgres::not_tried;
use crate::world::World;

/// It failed with one line that says where, and what to do.
fn failed(ended: &Ended, place: &str, why: &str, advice: &str) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    let told: Vec<&str> =
        ended.stderr.lines().filter(|line| line.contains("the pass failed on the database")).collect();
    assert_eq!(told.len(), 1, "{ended:?}");
    for words in [place, why, advice, "the next pass does the rest"] {
        assert!(told[0].contains(words), "no `{words}` in {}", told[0]);
    }
    assert!(!told[0].contains(":makegood@"), "the password: {}", told[0]);
}

#[tokio::test]
async fn a_read_only_postgres_ends_the_pass_and_is_made_up_for() {
    let world = World::postgres().await;
    two_charges(&world).await;
    let url = as_least_privileged(&world.database).await;
    alter_database(&world, "SET default_transaction_read_only = on").await;
    let ended = run(&world, &url).output().await;
    failed(
        &ended,
        "postgres://makegood_test_role:***@",
        "cannot execute INSERT in a read-only transaction",
        "takes no writes",
    );
    nothing_half_done(&world).await;
    assert_eq!(world.simulator.total_hits(), 0);
    alter_database(&world, "RESET default_transaction_read_only").await;
    let ended = run(&world, &url).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    all_made_good(&world).await;
}

#[tokio::test]
async fn a_read_only_sqlite_file_ends_the_pass_and_is_made_up_for() {
    let world = World::sqlite().await;
    two_charges(&world).await;
    let ended = run(&world, &format!("{}?mode=ro", world.database.url)).output().await;
    failed(&ended, "sqlite:", "readonly database", "takes no writes");
    nothing_half_done(&world).await;
    let ended = run(&world, &world.database.url).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    all_made_good(&world).await;
}

/// It becomes read-only, as in a failover, after the file was copied and before it is settled.
#[tokio::test]
async fn a_postgres_that_stops_taking_writes_in_the_middle_ends_the_pass_and_nothing_is_half_done() {
    let world = World::postgres().await;
    two_charges(&world).await;
    let url = as_least_privileged(&world.database).await;
    // The statement that fires it is let through, and the next one of the transaction is not.
    world
        .run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM set_config('transaction_read_only', 'on', true); RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON makegood_resolutions FOR EACH ROW EXECUTE FUNCTION refuse();",
        )
        .await;
    let ended = run(&world, &url).output().await;
    failed(&ended, "postgres://", "in a read-only transaction", "takes no writes");
    nothing_half_done(&world).await;
    world.run("DROP TRIGGER refuse ON makegood_resolutions").await;
    let ended = run(&world, &url).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    all_made_good(&world).await;
}

/// The real thing: the ledger and the platform's outputs lie on a disk that is full. Both do,
/// because what needs only a disk with room is rightly made good.
#[tokio::test]
async fn a_full_disk_under_postgres_ends_the_pass_and_is_made_up_for() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let Some(small) = Small::mount(folder.path().join("disk")) else {
        not_tried("a small file system can only be mounted by root");
        return;
    };
    if std::env::var_os("MAKEGOOD_TEST_POSTGRES").is_some() {
        not_tried("the server is elsewhere");
        return;
    }
    let disk = small.path().display().to_string();
    let script = "chmod 755 \"$2\" && mkdir \"$1/space\" && chown postgres \"$1/space\"";
    let made = std::process::Command::new("sh").args(["-c", script, "sh", &disk]).arg(folder.path()).status();
    assert!(made.unwrap().success());
    let world = World::postgres().await;
    two_charges(&world).await;
    let url = as_least_privileged(&world.database).await;
    let space = format!("full_{}", std::process::id());
    world.run(&format!("CREATE TABLESPACE {space} LOCATION '{disk}/space'")).await;
    let move_to = async |space: &str| {
        for table in ["ledger_entries", "stored_outputs"] {
            world.run(&format!("ALTER TABLE {table} SET TABLESPACE {space}")).await;
        }
    };
    move_to(&space).await;
    small.fill();
    let ended = run(&world, &url).output().await;
    // Before anything can fail: a server with a table space that is gone does not stay well.
    small.make_room();
    move_to("pg_default").await;
    world.run(&format!("DROP TABLESPACE {space}")).await;
    failed(&ended, "postgres://", "No space left on device", "has no room left");
    nothing_half_done(&world).await;
    let ended = run(&world, &url).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    all_made_good(&world).await;
}

#[tokio::test]
async fn a_full_disk_under_sqlite_ends_the_pass_and_is_made_up_for() {
    for in_the_middle in [false, true] {
        let database = sqlite();
        let file = database.url.trim_start_matches("sqlite://").to_owned();
        let folder = std::path::Path::new(&file).parent().unwrap().to_owned();
        let Some(small) = Small::mount(folder) else {
            not_tried("a small file system can only be mounted by root");
            return;
        };
        let small = Arc::new(small);
        let world = World::on(database, None).await;
        two_charges(&world).await;
        // New rows must not fit into pages that exist already.
        world.run("PRAGMA wal_checkpoint(TRUNCATE)").await;
        if in_the_middle {
            let filled = Arc::clone(&small);
            world.simulator.on_ask(Arc::new(move |_| {
                filled.fill();
                Box::pin(std::future::ready(()))
            }));
        } else {
            small.fill();
        }
        let ended = run(&world, &world.database.url).output().await;
        failed(&ended, "sqlite:", "full", "has no room left");
        nothing_half_done(&world).await;
        world.simulator.on_ask(Arc::new(|_| Box::pin(std::future::ready(()))));
        small.make_room();
        // Its leases could not be given back: they run out.
        world.run("UPDATE makegood_orphans SET leased_until = 1 WHERE leased_until IS NOT NULL").await;
        let ended = run(&world, &world.database.url).output().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        all_made_good(&world).await;
        // The directory of the database can be removed only once nothing is mounted there.
        let folder = small.path().to_owned();
        drop((world, small));
        std::fs::remove_dir(folder).unwrap();
    }
}
