//! P16 (recovered) and P22 (in the history): a recovered output joins the project in the
//! transaction that closes its orphan, whatever crashes before.

use sha2::{Digest as _, Sha256};

use super::{LEASE, ask, claim, copy, decide, detect, settle, settlement};
use crate::world::{MINUTE, World, on_both};
use makegood::policy::Action;
use makegood::store::{Outcome, Settlement};

/// The file as the provider has it.
async fn served(world: &World, job: &str) -> Vec<u8> {
    let evidence = ask(world, &claim(world).await.remove(0)).await;
    let makegood::evidence::Source::Url { url, .. } = &evidence.outputs[0].source else {
        panic!("{job} offers no link")
    };
    reqwest::get(url.as_str()).await.unwrap().bytes().await.unwrap().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Every file below the storage's folder, whole.
fn files(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![std::fs::read(path).unwrap()] })
        .collect()
}

async fn is_joined(world: &World, file: &[u8]) {
    let (hash, size) = (hex(file), file.len());
    let output = world.texts("SELECT charge_id || ' ' || output_index || ' ' || provider || ' ' || provider_job_id || ' ' || provider_output_index || ' ' || project_id || ' ' || node_id AS v FROM stored_outputs").await;
    assert_eq!(output, ["c1 0 replicate ok-1 0 p-c1 n-c1"]);
    for table in ["stored_outputs", "makegood_recoveries"] {
        let kept = world
            .texts(&format!("SELECT sha256 || ' ' || size_bytes || ' ' || content_type AS v FROM {table}"))
            .await;
        assert_eq!(kept, [format!("{hash} {size} image/png")], "{table}");
    }
    let recovery = world.texts("SELECT v.source_host || ' ' || v.declared_type || ' ' || (v.uri = s.uri) || ' ' || (v.stored_output_id = s.id) AS v FROM makegood_recoveries v CROSS JOIN stored_outputs s").await;
    let yes = if world.store.is_postgres() { "true" } else { "1" };
    assert_eq!(recovery, [format!("127.0.0.1 image/png {yes} {yes}")]);
    // One transaction, one time.
    let times = world.texts("SELECT count(DISTINCT t.at) AS v FROM (SELECT stored_at AS at FROM stored_outputs UNION ALL SELECT recovered_at FROM makegood_recoveries
                             UNION ALL SELECT resolved_at FROM makegood_orphans UNION ALL SELECT resolved_at FROM makegood_resolutions
                             UNION ALL SELECT at FROM makegood_orphan_events WHERE kind = 'recover') AS t").await;
    assert_eq!(times, ["1"]);
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_deliveries WHERE charge_id = 'c1'").await, 1);
    assert_eq!(world.texts("SELECT status AS v FROM usage_history").await, ["delivered"]);
    assert_eq!(
        world.texts("SELECT activity AS v FROM billing_activity ORDER BY at, activity").await.last().unwrap(),
        "recovery"
    );
    // The file is where its row says.
    let uri = world.texts("SELECT uri AS v FROM stored_outputs").await.remove(0);
    let path = url::Url::parse(&uri).unwrap().to_file_path().unwrap();
    assert_eq!(hex(&std::fs::read(path).unwrap()), hash);
    world.books_balance().await;
}

on_both! {
    async fn p16_p22_a_recovered_output_is_in_its_project_with_hash_size_type_host_and_time(world) {
        world.charge("c1").job("ok-1").insert().await;
        detect(&world).await;
        let file = served(&world, "ok-1").await;
        world.pass_time(LEASE);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        is_joined(&world, &file).await;
        assert_eq!(files(&world.folder.path().join("outputs")), [file]);
    }
}

on_both! {
    async fn p16_p22_a_crash_between_copy_and_settle_leaves_nothing_half_joined(world) {
        world.charge("c1").job("ok-1").insert().await;
        detect(&world).await;
        let case = claim(&world).await.remove(0);
        let evidence = ask(&world, &case).await;
        let decision = decide(&world, &case, &evidence);
        assert!(matches!(decision.action, Action::Recover(_)));
        let copied = copy(&world, &case, &evidence).await;
        let file = std::fs::read(url::Url::parse(&copied.uri).unwrap().to_file_path().unwrap()).unwrap();
        // Here the worker dies: the file is stored, and no row names it.
        for table in ["stored_outputs", "makegood_recoveries", "makegood_resolutions"] {
            assert_eq!(world.number(&format!("SELECT count(*) AS v FROM {table}")).await, 0, "{table}");
        }
        assert_eq!(world.fate("c1", 0).await, "open ");
        world.pass_time(LEASE + MINUTE);
        world.pass().await;
        is_joined(&world, &file).await;
        // Not the dead worker's file, and not two: that one no row names, for the sweep.
        let uri = world.texts("SELECT uri AS v FROM stored_outputs").await.remove(0);
        assert_ne!(uri, copied.uri);
        // The dead worker was only slow, and comes back with what it brought.
        let late = Settlement { evidence: Some(evidence), copied: Some(copied), ..settlement(&world, case, decision) };
        assert_eq!(settle(&world.store, &world, late).await, Outcome::Lost);
        is_joined(&world, &file).await;
    }
}

#[tokio::test]
async fn p16_p22_a_settle_that_fails_in_the_middle_leaves_nothing_half_joined() {
    for world in [World::postgres().await, World::sqlite().await] {
        world.charge("c1").job("ok-1").insert().await;
        detect(&world).await;
        let file = served(&world, "ok-1").await;
        world.pass_time(LEASE);
        // The output's row is written, and then the transaction breaks.
        world
            .run(if world.store.is_postgres() {
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
                 CREATE TRIGGER no BEFORE INSERT ON makegood_recoveries FOR EACH ROW EXECUTE FUNCTION no();"
            } else {
                "CREATE TRIGGER no BEFORE INSERT ON makegood_recoveries BEGIN SELECT RAISE(ABORT, 'not now'); END;"
            })
            .await;
        let report = world.pass().await;
        assert!(report.findings.iter().any(|each| each.detail.contains("not now")), "{report:?}");
        for table in ["stored_outputs", "makegood_recoveries", "makegood_resolutions"] {
            assert_eq!(world.number(&format!("SELECT count(*) AS v FROM {table}")).await, 0, "{table}");
        }
        assert_eq!(
            files(&world.folder.path().join("outputs")),
            Vec::<Vec<u8>>::new(),
            "nobody's file is thrown away"
        );
        world
            .run(if world.store.is_postgres() {
                "DROP TRIGGER no ON makegood_recoveries"
            } else {
                "DROP TRIGGER no"
            })
            .await;
        world.pass_time(61 * MINUTE);
        world.pass().await;
        is_joined(&world, &file).await;
    }
}
