//! Objects that a killed copy leaves in the storage are on record and are swept. An object that a
//! row names stays.
//!
//! Here the test puts the leftovers there itself, so that each case stands alone; `kills` kills the
//! built binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

use makegood::clock::Timestamp;
use makegood::recovery::ObjectLocation;
use makegood::store::UploadKey;

use crate::world::{HOUR, MINUTE, World, on_both};

/// Every file in the world's storage, also those that the object store hides.
pub fn stored(world: &World) -> Vec<String> {
    fn below(directory: PathBuf, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { below(path, found) } else { found.push(path) }
        }
    }
    let root = world.folder.path().join("outputs");
    let mut found = Vec::new();
    below(root.clone(), &mut found);
    let mut names: Vec<String> =
        found.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
    names.sort();
    names
}

async fn notes(world: &World) -> i64 {
    world.number("SELECT count(*) AS v FROM makegood_uploads").await
}

/// The upload record of the orphan of `charge`, as a killed worker left it, and the files `left`
/// beside its object.
async fn killed_copy(world: &World, charge: &str, token: i64, nth: i64, left: &[&str]) -> UploadKey {
    let orphan_id =
        world.number(&format!("SELECT id AS v FROM makegood_orphans WHERE charge_id = '{charge}'")).await;
    let key = UploadKey { orphan_id, lease_token: token, nth };
    let directory = world.folder.path().join(format!("outputs/{charge}/0"));
    std::fs::create_dir_all(&directory).unwrap();
    let object = directory.join(format!("{token}.png"));
    let place = ObjectLocation {
        storage: "file://".to_owned(),
        path: object.to_str().unwrap().trim_start_matches('/').to_owned(),
        uri: url::Url::from_file_path(&object).unwrap().to_string(),
    };
    let item = makegood::charge::ItemId { charge_id: charge.to_owned(), output_index: 0 };
    world.store.begin_upload(key, &item, &place, world.now()).await.unwrap();
    for name in left {
        std::fs::write(directory.join(name), b"left over").unwrap();
    }
    key
}

on_both! {
    async fn p16_a_recovery_leaves_its_object_and_no_note(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..20 {
            world.charge(&format!("c{nth}")).job(&format!("ok-{nth}")).insert().await;
        }
        // One that breaks halfway, one that is refused, one of a batch without indices.
        world.charge("broken").job("file-broken-1").insert().await;
        world.charge("gone").job("gone-1").insert().await;
        world.charge("batch").job("two-of-three-b").drawn(0, 30).items(&[10, 10, 10]).insert().await;
        let report = world.pass().await;
        assert_eq!(report.total("recover"), 22, "{report:?}");
        assert_eq!((notes(&world).await, report.swept), (0, 0));
        assert_eq!(stored(&world).len(), 22);
        world.books_balance().await;
    }
}

on_both! {
    async fn an_upload_of_a_live_lease_is_never_swept(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").insert().await;
        world.pass().await;
        // Claimed by another worker that is alive.
        let until = world.at(world.now() + 15 * MINUTE);
        world.run(&format!("UPDATE makegood_orphans SET lease_token = 9, leased_until = {until}")).await;
        killed_copy(&world, "c1", 9, 0, &["9.png", "9.png#1"]).await;
        for _ in 0..3 {
            let report = world.pass().await;
            assert_eq!((report.swept, stored(&world).len(), notes(&world).await), (0, 2, 1));
            world.pass_time(4 * MINUTE);
        }
        // It dies. Its lease runs out, and the next pass finds what it left.
        world.pass_time(4 * MINUTE);
        let report = world.pass().await;
        assert_eq!((report.swept, stored(&world)), (1, vec![]));
        assert!(report.to_text().contains("removed    partial files of 1 killed copies"), "{}", report.to_text());
        world.books_balance().await;
    }
}

on_both! {
    async fn leftovers_of_killed_copies_are_swept_by_the_next_pass_and_again_after_a_day(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").age(HOUR).insert().await;
        world.pass().await;
        // The token is higher by now: taken over, or given back.
        let now = world.number("SELECT lease_token AS v FROM makegood_orphans").await;
        killed_copy(&world, "c1", now - 1, 0, &["0.png", "0.png#1", "0.png#2"]).await;
        killed_copy(&world, "c1", now, 0, &["1.png#1"]).await;
        let report = world.pass().await;
        assert_eq!((report.swept, stored(&world), notes(&world).await), (2, vec![], 2));
        // A worker that was only suspended writes on.
        std::fs::write(world.folder.path().join("outputs/c1/0/0.png"), b"late").unwrap();
        let report = world.pass().await;
        assert_eq!((report.swept, stored(&world).len()), (0, 1), "not asked again and again");
        world.pass_time(23 * HOUR);
        world.pass().await;
        assert_eq!((stored(&world).len(), notes(&world).await), (1, 2));
        world.pass_time(HOUR);
        let report = world.pass().await;
        assert_eq!((report.swept, stored(&world), notes(&world).await), (0, vec![], 0), "removed before, and counted then");
        assert_eq!(world.number("SELECT value AS v FROM makegood_counters WHERE metric = 'swept'").await, 2);
    }
}

on_both! {
    async fn an_object_that_a_row_names_is_never_removed_whatever_notes_say(world) {
        world.balance("ada", 0, 0).await;
        for charge in ["c1", "c2"] {
            world.charge(charge).job(&format!("ok-{charge}")).insert().await;
        }
        world.pass().await;
        assert_eq!(stored(&world), ["c1/0/1.png", "c2/0/1.png"]);
        // Upload records of the same objects, as if another try of the same lease had left them.
        // The platform has removed the row of one (only makegood's own is left), and has changed
        // the place of the other in its row.
        killed_copy(&world, "c1", 1, 1, &["1.png#1"]).await;
        killed_copy(&world, "c2", 1, 7, &["1.png#1"]).await;
        world.run("DELETE FROM stored_outputs WHERE charge_id = 'c1'").await;
        world.run("UPDATE stored_outputs SET uri = 's3://elsewhere/1.png', charge_id = 'other' WHERE charge_id = 'c2'").await;
        for hours in [0, 25] {
            world.pass_time(hours * HOUR);
            world.pass().await;
            assert!(stored(&world).contains(&"c1/0/1.png".to_owned()) && stored(&world).contains(&"c2/0/1.png".to_owned()), "{:?}", stored(&world));
        }
        assert_eq!((stored(&world).iter().filter(|name| name.contains('#')).count(), notes(&world).await), (0, 0));
    }
}

on_both! {
    async fn notes_of_another_storage_are_left_alone(world) {
        world.charge("c1").job("running-1").insert().await;
        world.pass().await;
        let key = UploadKey { orphan_id: 1, lease_token: 0, nth: 0 };
        let item = makegood::charge::ItemId { charge_id: "c1".to_owned(), output_index: 0 };
        let place = ObjectLocation { storage: "s3://bucket".to_owned(), path: "c1/0/1.png".to_owned(), uri: "s3://bucket/c1/0/1.png".to_owned() };
        world.store.begin_upload(key, &item, &place, world.now()).await.unwrap();
        world.pass_time(48 * HOUR);
        let report = world.pass().await;
        assert_eq!((report.swept, notes(&world).await), (0, 1));
    }
}

on_both! {
    async fn a_lease_that_the_sweep_has_ended_can_settle_nothing(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        // A worker copies the file, and is suspended before it settles.
        crate::world::detect(&world.parts, None, world.now()).await;
        let claimed = world.store.claim("replicate", world.now(), 15 * MINUTE, 10).await.unwrap();
        let case = claimed.cases[0].clone();
        killed_copy(&world, "c1", case.token, 0, &["1.png"]).await;
        // No worker claims it: it is not due for an hour.
        let later = world.at(world.now() + HOUR);
        world.run(&format!("UPDATE makegood_orphans SET due_at = {later}")).await;
        world.pass_time(16 * MINUTE);
        let report = world.pass().await;
        assert_eq!((report.swept, stored(&world)), (1, vec![]));
        // It is resumed, keeps its lease, and settles a file that is gone.
        world.store.extend_leases(&[(case.facts.orphan.id, case.token)], 15 * MINUTE).await.unwrap();
        let copied = makegood::recovery::CopiedFile {
            key: makegood::recovery::ObjectKey::new("c1", 0, case.token),
            log_entry: 0,
            uri: "file:///gone.png".to_owned(),
            size_bytes: 9,
            sha256: "0".repeat(64),
            content_type: "image/png".to_owned(),
            sniffed: None,
            declared: None,
            source_host: "x".to_owned(),
        };
        let settlement = makegood::store::Settlement {
            case,
            decision: makegood::policy::Decision {
                action: makegood::policy::Action::Recover(makegood::policy::Pick::Offer(0)),
                reason: makegood::policy::Reason::OutputAvailable,
                rule: 5,
            },
            evidence: None,
            copied: Some(copied),
            look_again: world.now(),
            detail: None,
        };
        let rules = crate::leases::rules(&world, makegood::brake::BrakeLimits::default());
        let outcome = world.store.settle(&[settlement], &rules).await.unwrap();
        assert_eq!(outcome, [makegood::store::Outcome::Lost]);
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn a_storage_that_cannot_be_swept_costs_no_pass_and_hides_nothing_for_ever(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").insert().await;
        world.charge("c2").job("failed-2").insert().await;
        world.pass().await;
        let token = world.number("SELECT max(lease_token) AS v FROM makegood_orphans WHERE charge_id = 'c1'").await;
        for nth in 0..8 {
            killed_copy(&world, "c1", token, nth, &[]).await;
        }
        // There is a directory in place of the object, and it cannot be removed as an object.
        let blocked = world.folder.path().join(format!("outputs/c1/0/{token}.png"));
        std::fs::create_dir_all(blocked.join("full")).unwrap();
        let report = world.pass().await;
        assert_eq!((report.swept, notes(&world).await), (0, 8));
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_uploads WHERE tried_at IS NOT NULL").await, 5, "and then left alone");
        std::fs::remove_dir_all(&blocked).unwrap();
        let report = world.pass().await;
        assert_eq!(report.swept, 8);
    }
}

on_both! {
    async fn copies_that_begin_at_once_share_statements_and_all_are_on_record(world) {
        let place = |nth: i64| ObjectLocation { storage: "file://".to_owned(), path: format!("p/{nth}"), uri: format!("file:///p/{nth}") };
        let item = makegood::charge::ItemId { charge_id: "c".to_owned(), output_index: 0 };
        let at: Timestamp = world.now();
        let all = (0..200).map(|nth| {
            let (store, item) = (world.store.clone(), item.clone());
            async move { store.begin_upload(UploadKey { orphan_id: 1, lease_token: 1, nth }, &item, &place(nth), at).await }
        });
        for done in futures_util::future::join_all(all).await {
            done.unwrap();
        }
        assert_eq!(notes(&world).await, 200);
        // Sent again after a lost answer, an existing record is not changed.
        let again = UploadKey { orphan_id: 1, lease_token: 1, nth: 5 };
        world.store.begin_upload(again, &item, &place(5), at).await.unwrap();
        assert_eq!(notes(&world).await, 200);
        // A record that cannot be written fails, and later ones do not.
        world.run("ALTER TABLE makegood_uploads RENAME TO elsewhere").await;
        assert!(world.store.begin_upload(UploadKey { nth: 200, ..again }, &item, &place(200), at).await.is_err());
        world.run("ALTER TABLE elsewhere RENAME TO makegood_uploads").await;
        world.store.begin_upload(UploadKey { nth: 200, ..again }, &item, &place(200), at).await.unwrap();
        world.store.forget_uploads(&(0..=200).map(|nth| UploadKey { nth, ..again }).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(notes(&world).await, 0);
    }
}

/// A small file system of its own, unmounted in the end.
pub struct Small(PathBuf);

impl Small {
    /// None where this process may not mount.
    pub fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
            .arg(&at)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut filler =
            std::fs::OpenOptions::new().create(true).append(true).open(self.0.join("filler")).unwrap();
        let block = [0; 4096];
        while filler.write_all(&block).is_ok() {}
    }

    /// Makes room again.
    pub fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ended = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn p16_a_full_disk_leaves_nothing_half_done_and_the_file_is_recovered_once_there_is_space() {
    let mut world = World::sqlite().await;
    let Some(small) = Small::mount(world.folder.path().join("outputs")) else {
        crate::postgres::not_tried("a small file system can only be mounted by root");
        return;
    };
    // As `stored` finds them.
    world.parts.storage = std::sync::Arc::new(
        makegood::recovery::ObjectStorage::open("file:./outputs", world.folder.path()).unwrap(),
    );
    world.balance("ada", 0, 0).await;
    world.charge("parts").job("ok-1-size=20000000").insert().await;
    std::fs::write(small.0.join("others"), vec![0; 9 << 20]).unwrap();
    world.charge("whole").job("ok-2-size=5000000").insert().await;
    let report = world.pass().await;
    for charge in ["parts", "whole"] {
        assert_eq!(world.fate(charge, 0).await, "open recovery_retry", "{report:?}");
    }
    let told = world.texts("SELECT detail AS v FROM makegood_orphan_events WHERE kind = 'wait'").await;
    assert!(
        told.iter().all(|detail| detail.starts_with("storage: ") && detail.contains("No space left")),
        "{told:?}"
    );
    assert_eq!((stored(&world), notes(&world).await), (vec!["others".to_owned()], 0));
    drop(small);
    world.pass_time(HOUR);
    let report = world.pass().await;
    assert_eq!(report.total("recover"), 2, "{report:?}");
    assert_eq!((stored(&world).len(), notes(&world).await), (2, 0));
    world.books_balance().await;
}

on_both! {
    async fn p16_a_file_that_a_row_names_is_not_thrown_away_whatever_its_worker_believes(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        // As if another had settled under this lease: the worker finds that the world has changed,
        // and does not want its file.
        let row = world.output_row("makegood:c1/0:1", Some(("c1", 0)), ("replicate", "ok-1", 0), ("p-c1", "n-c1"));
        world.while_asked("ok-1", row);
        let report = world.pass().await;
        assert_eq!(report.total("decide_again"), 1, "{:?}", report.outcomes);
        assert_eq!(world.fate("c1", 0).await, "closed delivered");
        assert_eq!(stored(&world).len(), 1);
        // One that no row names goes.
        world.charge("c2").job("ok-2").age(20 * MINUTE).insert().await;
        world.while_asked("ok-2", world.output_row("theirs", Some(("c2", 0)), ("replicate", "ok-2", 0), ("p-c2", "n-c2")));
        world.pass().await;
        assert_eq!(world.fate("c2", 0).await, "closed delivered");
        assert_eq!(stored(&world).len(), 1);
    }
}
