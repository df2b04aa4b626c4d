//! The dry run decides as a run would, and leaves no row, no file and no lease.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use makegood::pass::Orders;
use makegood::report::PassReport;

use crate::world::{HOUR, MINUTE, World, on_both};

async fn dry(world: &World) -> PassReport {
    world.pass_with(Orders { dry_run: true, ..World::orders() }).await
}

/// Charges of all fates that a dry run can foresee.
async fn mixed(world: &World) {
    world.balance("ada", 50, 50).await;
    for nth in 0..2 {
        for fate in [
            "ok",
            "failed",
            "running",
            "unknown",
            "cancelled",
            "safety",
            "empty",
            "expired",
            "down",
            "garbage",
            "novel",
        ] {
            world.charge(&format!("{fate}-{nth}")).job(&format!("{fate}-x{nth}")).drawn(3, 7).insert().await;
            world
                .charge(&format!("fal-{fate}-{nth}"))
                .provider("fal", "acme/one")
                .job(&format!("{fate}-y{nth}"))
                .insert()
                .await;
        }
    }
    world.charge("three").job("two-of-three-1").drawn(0, 30).items(&[10, 10, 10]).insert().await;
    world.charge("misplaced").job("ok-m").insert().await;
    world.store_output("out", None, ("replicate", "ok-m", 0), ("p-misplaced", "n-misplaced")).await;
    world.charge("odd").job("failed-o").drawn(1, 1).insert().await;
    world.charge("no-items").job("failed-n").items(&[]).insert().await;
    world.charge("no-balance").account("eve").job("failed-e").insert().await;
    world.charge("nobody").provider("nobody", "m").job("x").insert().await;
    world.charge("own-refund").job("failed-r").insert().await;
    world.run(&world.refund_row("own-refund", Some(0), "wallet", 10)).await;
    world.charge("reported").age(2 * MINUTE).job("running-f").failed().insert().await;
}

fn folder(world: &World) -> Vec<String> {
    fn walk(path: &std::path::Path, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            all.push(path.display().to_string());
            if path.is_dir() {
                walk(&path, all);
            }
        }
    }
    let mut all = Vec::new();
    walk(world.folder.path(), &mut all);
    all.sort();
    all
}

on_both! {
    async fn it_decides_as_a_run_would_and_leaves_no_trace(world) {
        mixed(&world).await;
        let (rows, files) = (world.all_rows().await, folder(&world));
        let foreseen = dry(&world).await;
        assert_eq!(world.all_rows().await, rows, "no row was changed");
        assert_eq!(folder(&world), files, "no file was written");
        assert!(foreseen.dry_run && foreseen.pass_id.is_none());
        assert!(foreseen.opened > 30, "{foreseen:?}");
        assert_eq!(dry(&world).await.outcomes, foreseen.outcomes, "and again");

        let done = world.pass().await;
        assert_eq!(done.outcomes, foreseen.outcomes);
        assert_eq!((done.opened, done.reopened, done.claimed), (foreseen.opened, foreseen.reopened, foreseen.claimed));
        assert_eq!(done.questions, foreseen.questions);
        let sorted = |report: &PassReport| {
            let mut findings: Vec<String> = report.findings.iter().map(|each| format!("{each:?}")).collect();
            findings.sort();
            findings
        };
        assert_eq!(sorted(&done), sorted(&foreseen));
        world.books_balance().await;

        // With open orphans, waits and resolutions behind it, it still is of the same mind.
        world.pass_time(HOUR);
        world.run("UPDATE stored_outputs SET charge_id = NULL WHERE charge_id = 'ok-1'").await;
        world.pass_time(3 * HOUR);
        let rows = world.all_rows().await;
        let foreseen = dry(&world).await;
        assert_eq!(world.all_rows().await, rows);
        assert_eq!(foreseen.reopened, 1);
        let done = world.pass().await;
        assert_eq!(done.outcomes, foreseen.outcomes);
        world.books_balance().await;
    }
}

on_both! {
    async fn p19_it_sees_failures_that_were_recorded_while_it_waited(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("running-1").insert().await;
        for _ in 0..5 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        world.pass().await;
        world.run(&format!("UPDATE charge_items SET failed_at = {}", world.at(world.now()))).await;
        world.pass_time(MINUTE);
        let foreseen = dry(&world).await;
        assert_eq!(foreseen.total("refund"), 1, "{foreseen:?}");
        assert_eq!(world.pass().await.outcomes, foreseen.outcomes);
    }
}

on_both! {
    async fn it_does_not_disturb_a_worker_and_is_not_disturbed_by_one(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        dry(&world).await;
        world.while_asked("failed-1", "SELECT 1".to_owned());
        let (real, foreseen) = tokio::join!(world.pass(), dry(&world));
        assert_eq!(real.total("refund"), 1);
        assert!(foreseen.total("refund") <= 1);
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}
