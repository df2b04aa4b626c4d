//! P13 (a misplaced output is put back) in hard cases: chains and cycles of wrongly linked outputs
//! in every order, by two workers, and those that a person must decide.

use std::time::Duration;

use makegood::report::PassReport;
use makegood::store::Store;

use crate::world::{HOUR, ItemRow, MINUTE, Sql, World, on_both};

/// Every order in which three can come.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A charge `KEY-NAME` of the job `FATE-KEY-NAME`, old enough to be examined in the order of
/// `turn`.
async fn charge(world: &World, key: &str, name: &str, fate: &str, turn: usize) -> String {
    let id = format!("{key}-{name}");
    let age = 3 * HOUR + (2 - u32::try_from(turn).unwrap()) * 20 * MINUTE;
    world.charge(&id).job(&format!("{fate}-{id}")).age(age).insert().await;
    id
}

/// The output of `owner`, hung on `holder`, in its place.
async fn hang(world: &World, owner: &str, fate: &str, holder: &str) {
    let job = format!("{fate}-{owner}");
    let place = (format!("p-{holder}"), format!("n-{holder}"));
    world
        .store_output(
            &format!("out-{owner}"),
            Some((holder, 0)),
            ("replicate", &job, 0),
            (&place.0, &place.1),
        )
        .await;
}

async fn place(world: &World, output: &str) -> String {
    let sql = format!(
        "SELECT charge_id || ' ' || output_index || ' ' || project_id || ' ' || node_id AS v FROM stored_outputs WHERE id = '{output}'"
    );
    world.texts(&sql).await.remove(0)
}

/// It is linked to its own item, and in its place.
async fn is_home(world: &World, owner: &str) {
    assert_eq!(place(world, &format!("out-{owner}")).await, format!("{owner} 0 p-{owner} n-{owner}"));
}

/// As many passes as there are things due, one orphan at a time.
async fn one_by_one(world: &mut World) -> PassReport {
    world.parts.rules.batch = 1;
    world.pass().await
}

on_both! {
    async fn p13_a_cycle_of_three_comes_right_in_every_order(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        for (nth, order) in ORDERS.iter().enumerate() {
            let key = format!("o{nth}");
            let mut ids = Vec::new();
            for (name, turn) in NAMES.iter().zip(order) {
                ids.push(charge(&world, &key, name, "failed", *turn).await);
            }
            for (owner, holder) in [(0, 1), (1, 2), (2, 0)] {
                hang(&world, &ids[owner], "failed", &ids[holder]).await;
            }
        }
        let report = one_by_one(&mut world).await;
        assert_eq!(report.total("relink"), 18, "{report:?}");
        for nth in 0..ORDERS.len() {
            for name in NAMES {
                let id = format!("o{nth}-{name}");
                assert_eq!(world.fate(&id, 0).await, "relinked misattributed", "{id}");
                is_home(&world, &id).await;
            }
        }
        assert_eq!(world.simulator.total_hits(), 0, "nobody was asked, nothing was fetched");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_a_chain_leaves_only_its_last_item_without_an_output_in_every_order(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        // a's output is linked to b, b's to c; c's own was never made, or is still offered.
        for last in ["failed", "ok"] {
            for (nth, order) in ORDERS.iter().enumerate() {
                let key = format!("{last}{nth}");
                let mut ids = Vec::new();
                for ((name, turn), job) in NAMES.iter().zip(order).zip(["failed", "failed", last]) {
                    ids.push(charge(&world, &key, name, job, *turn).await);
                }
                hang(&world, &ids[0], "failed", &ids[1]).await;
                hang(&world, &ids[1], "failed", &ids[2]).await;
            }
        }
        one_by_one(&mut world).await;
        for (last, fate) in [("failed", "refunded provider_error"), ("ok", "recovered output_available")] {
            for nth in 0..ORDERS.len() {
                for name in ["a", "b"] {
                    let id = format!("{last}{nth}-{name}");
                    assert_eq!(world.fate(&id, 0).await, "relinked misattributed", "{id}");
                    is_home(&world, &id).await;
                }
                assert_eq!(world.fate(&format!("{last}{nth}-c"), 0).await, fate, "{last}{nth}");
            }
        }
        assert_eq!(world.balance_of("ada").await, (0, 60));
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_a_cycle_whose_links_looked_right_until_the_jobs_were_known_comes_right_whichever_is_seen_first(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        // Without jobs on record each has a linked output in its place, so it looks delivered.
        for first in NAMES {
            for name in NAMES {
                let age = if name == first { 5 * HOUR + 50 * MINUTE } else { 3 * HOUR };
                world.charge(&format!("{first}-{name}")).age(age).insert().await;
            }
            for (owner, holder) in [("a", "b"), ("b", "c"), ("c", "a")] {
                hang(&world, &format!("{first}-{owner}"), "failed", &format!("{first}-{holder}")).await;
            }
        }
        let report = one_by_one(&mut world).await;
        assert_eq!((report.opened, report.claimed), (0, 0));
        world.run("UPDATE charges SET provider_job_id = 'failed-' || id").await;
        // Only the oldest of each three is scanned again now. The others follow because an output
        // was taken from them.
        world.pass_time(20 * MINUTE);
        let report = one_by_one(&mut world).await;
        assert_eq!((report.opened, report.total("relink")), (3, 9), "{report:?}");
        for first in NAMES {
            for name in NAMES {
                is_home(&world, &format!("{first}-{name}")).await;
            }
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans WHERE opened_by = 'taken_from'").await, 6);
        assert_eq!(world.simulator.total_hits(), 0);
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

async fn outputs_change_places(mut world: World, at_once: bool) {
    world.balance("ada", 0, 0).await;
    let cases = [
        ("round", [1, 2, 0]),
        ("other-way-round", [2, 0, 1]),
        ("two-swap", [1, 0, 2]),
        ("ends-swap", [2, 1, 0]),
    ];
    for (charge, holders) in cases {
        world
            .charge(charge)
            .job(&format!("failed-{charge}"))
            .drawn(0, 30)
            .items(&[10, 10, 10])
            .insert()
            .await;
        for (index, holder) in holders.into_iter().enumerate() {
            let index = i64::try_from(index).unwrap();
            let id = format!("{charge}-{index}");
            world
                .store_output(
                    &id,
                    Some((charge, holder)),
                    ("replicate", &format!("failed-{charge}"), index),
                    (&format!("p-{charge}"), &format!("n-{charge}")),
                )
                .await;
        }
    }
    let report = if at_once { world.pass().await } else { one_by_one(&mut world).await };
    assert_eq!(report.total("relink"), 10, "{report:?}");
    for (charge, _) in cases {
        let places = world.texts(&format!("SELECT id || ' ' || output_index AS v FROM stored_outputs WHERE charge_id = '{charge}' ORDER BY id")).await;
        assert_eq!(places, [0, 1, 2].map(|index| format!("{charge}-{index} {index}")));
    }
    assert_eq!(world.simulator.total_hits(), 0);
    assert_eq!(
        world.number("SELECT count(*) AS v FROM usage_history WHERE status = 'delivered' AND billable").await,
        12
    );
    world.books_balance().await;
}

on_both! {
    async fn p13_the_outputs_of_one_job_that_hang_on_each_others_items_change_places_at_once(world) {
        outputs_change_places(world, true).await;
    }
}

on_both! {
    async fn p13_the_outputs_of_one_job_that_hang_on_each_others_items_change_places_one_by_one(world) {
        outputs_change_places(world, false).await;
    }
}

on_both! {
    async fn p13_two_workers_at_once_put_many_cycles_right(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        for nth in 0..12 {
            let key = format!("k{nth}");
            let order = ORDERS[nth % 6];
            let mut ids = Vec::new();
            for (name, turn) in NAMES.iter().zip(order) {
                ids.push(charge(&world, &key, name, "failed", turn).await);
            }
            for (owner, holder) in [(0, 1), (1, 2), (2, 0)] {
                hang(&world, &ids[owner], "failed", &ids[holder]).await;
            }
        }
        world.parts.rules.batch = 2;
        let mut other = world.parts.clone();
        other.store = Store::open(&world.database.url, 4, Duration::from_secs(30)).await.unwrap().with_clock(world.clock.clone());
        let (one, two) = tokio::join!(world.pass(), makegood::pass::run(&other, World::orders(), |_| {}));
        let two = two.unwrap();
        // One of them may have been in the other's way; what was given back is done by the next
        // pass.
        world.pass_time(2 * MINUTE);
        let rest = world.pass().await;
        assert_eq!(one.total("relink") + two.total("relink") + rest.total("relink"), 36, "{one:?}\n{two:?}\n{rest:?}");
        for nth in 0..12 {
            for name in NAMES {
                is_home(&world, &format!("k{nth}-{name}")).await;
            }
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_recoveries WHERE kind = 'relink'").await, 36);
        assert_eq!(world.simulator.total_hits(), 0);
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_an_output_that_a_person_moved_keeps_its_place_in_the_middle_of_a_cycle(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        for (nth, order) in ORDERS.iter().enumerate() {
            let key = format!("o{nth}");
            let mut ids = Vec::new();
            for (name, turn) in NAMES.iter().zip(order) {
                ids.push(charge(&world, &key, name, "failed", *turn).await);
            }
            for (owner, holder) in [(0, 1), (1, 2), (2, 0)] {
                hang(&world, &ids[owner], "failed", &ids[holder]).await;
            }
            let at = world.at(world.now());
            world.run(&format!("UPDATE stored_outputs SET project_id = 'hers', node_id = 'there', moved_at = {at} WHERE id = 'out-{key}-b'")).await;
        }
        one_by_one(&mut world).await;
        for nth in 0..ORDERS.len() {
            is_home(&world, &format!("o{nth}-a")).await;
            is_home(&world, &format!("o{nth}-c")).await;
            assert_eq!(place(&world, &format!("out-o{nth}-b")).await, format!("o{nth}-b 0 hers there"), "the link is mended, the place stays");
        }
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_two_charges_that_claim_one_job_are_held_whenever_the_second_appears(world) {
        world.balance("ada", 0, 0).await;
        // Side by side; the second while the first is waited for; after the first was recovered;
        // after it was refunded.
        for charge in ["both-1", "both-2"] {
            world.charge(charge).job("ok-both").insert().await;
        }
        world.charge("waits").job("running-waits").insert().await;
        world.charge("had").job("ok-had").insert().await;
        world.charge("paid").job("failed-paid").insert().await;
        world.pass().await;
        assert_eq!(world.simulator.asks("ok-both"), 0, "nobody is asked for what two claim");
        assert_eq!(world.fate("had", 0).await, "recovered output_available");
        assert_eq!(world.fate("paid", 0).await, "refunded provider_error");
        for (second, job) in [("waits-2", "running-waits"), ("had-2", "ok-had"), ("paid-2", "failed-paid")] {
            world.charge(second).job(job).insert().await;
        }
        let hits = world.simulator.total_hits();
        for _ in 0..30 {
            world.pass_time(HOUR);
            world.pass().await;
        }
        for charge in ["both-1", "both-2", "waits", "waits-2", "had-2", "paid-2"] {
            assert_eq!(world.fate(charge, 0).await, "held duplicate_job", "{charge}");
        }
        assert_eq!(world.simulator.total_hits(), hits, "nothing was asked or downloaded");
        assert_eq!(world.balance_of("ada").await, (0, 10), "the one that was paid before");
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 1);
        // Past their window they are seen as late (P24).
        assert_eq!(world.number(&format!("SELECT count(*) AS v FROM makegood_orphans WHERE state = 'held' AND window_ends_at <= {}", world.at(world.now()))).await, 6);
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_a_mix_up_with_an_item_that_has_a_claim_of_its_own_is_held_until_it_is_corrected(world) {
        world.balance("ada", 0, 0).await;
        world.charge("owner").job("ok-owner").insert().await;
        // No job on record: an output that is linked to it looks like its own.
        world.charge("holder").insert().await;
        hang(&world, "owner", "ok", "holder").await;
        world.pass().await;
        assert_eq!(world.fate("owner", 0).await, "held duplicate_job");
        assert_eq!(world.fate("holder", 0).await, "-");
        assert_eq!(world.simulator.total_hits(), 0);
        world.run("UPDATE charges SET provider_job_id = 'failed-holder' WHERE id = 'holder'").await;
        world.pass_time(HOUR);
        world.pass().await;
        is_home(&world, "owner").await;
        assert_eq!(world.fate("owner", 0).await, "relinked misattributed");
        assert_eq!(world.fate("holder", 0).await, "refunded provider_error");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

/// A platform whose `stored_outputs` accepts the UPDATE and does not change the row: once it
/// returns no row, once it returns it.
fn stubborn(world: &World, silent: bool) -> &'static str {
    match (&world.sql, silent) {
        (Sql::Postgres(_), true) => {
            "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.id = 'out-a' THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER stay BEFORE UPDATE ON stored_outputs FOR EACH ROW EXECUTE FUNCTION stay();"
        }
        (Sql::Postgres(_), false) => {
            "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.id = 'out-a' THEN RETURN OLD; END IF; RETURN NEW; END $$;
             CREATE TRIGGER stay BEFORE UPDATE ON stored_outputs FOR EACH ROW EXECUTE FUNCTION stay();"
        }
        (Sql::Sqlite(_), true) => {
            "CREATE TRIGGER stay BEFORE UPDATE ON stored_outputs WHEN OLD.id = 'out-a' BEGIN SELECT RAISE(IGNORE); END;"
        }
        (Sql::Sqlite(_), false) => {
            "CREATE TRIGGER stay AFTER UPDATE ON stored_outputs WHEN OLD.id = 'out-a'
             BEGIN UPDATE stored_outputs SET charge_id = OLD.charge_id, output_index = OLD.output_index, project_id = OLD.project_id, node_id = OLD.node_id WHERE id = OLD.id; END;"
        }
    }
}

async fn held_until_it_can_be_put_back(world: World, silent: bool) {
    world.balance("ada", 0, 0).await;
    world.run(stubborn(&world, silent)).await;
    // Of the same charge, another output that can be put back.
    let twin =
        |index| ItemRow { credits: 10, job: Some(format!("failed-{index}")), index: Some(0), failed: None };
    world.charge("c1").drawn(0, 20).item_rows(vec![twin(0), twin(1)]).insert().await;
    world.store_output("out-a", None, ("replicate", "failed-0", 0), ("p-c1", "n-c1")).await;
    world.store_output("out-b", None, ("replicate", "failed-1", 0), ("p-c1", "n-c1")).await;
    let report = world.pass().await;
    assert_eq!(world.fate("c1", 0).await, "held cannot_relink", "{report:?}");
    assert_eq!(world.fate("c1", 1).await, "relinked misattributed", "it holds up nothing else");
    assert_eq!(report.total("decide_again"), 0, "{report:?}");
    let finding = report.findings.iter().find(|each| each.kind == "cannot_relink").unwrap();
    assert!(finding.about == "item c1/0" && finding.detail.contains("output `out-a`"), "{finding:?}");
    // It is not lost, so it is never refunded; and it is reported once.
    for _ in 0..30 {
        world.pass_time(HOUR);
        world.pass().await;
    }
    assert_eq!(world.fate("c1", 0).await, "held cannot_relink");
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphan_events WHERE kind = 'hold'").await, 1);
    assert_eq!(world.balance_of("ada").await, (0, 0));
    // Once a person has corrected it, the next pass puts it back.
    world
        .run(match &world.sql {
            Sql::Postgres(_) => "DROP TRIGGER stay ON stored_outputs",
            Sql::Sqlite(_) => "DROP TRIGGER stay",
        })
        .await;
    world.pass_time(24 * HOUR);
    world.pass().await;
    assert_eq!(world.fate("c1", 0).await, "relinked misattributed");
    assert_eq!(
        world.texts("SELECT charge_id || '/' || output_index AS v FROM stored_outputs ORDER BY id").await,
        ["c1/0", "c1/1"]
    );
    world.books_balance().await;
}

on_both! {
    async fn p13_an_output_whose_update_hits_no_row_is_held_for_a_person(world) {
        held_until_it_can_be_put_back(world, true).await;
    }
}

on_both! {
    async fn p13_an_output_whose_update_changes_nothing_is_held_for_a_person(world) {
        held_until_it_can_be_put_back(world, false).await;
    }
}

on_both! {
    async fn p16_a_recovered_output_that_the_platform_does_not_keep_is_not_called_recovered(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        match &world.sql {
            Sql::Postgres(_) => world.run("CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
                CREATE TRIGGER drop_it BEFORE INSERT ON stored_outputs FOR EACH ROW EXECUTE FUNCTION drop_it();").await,
            Sql::Sqlite(_) => world.run("CREATE TRIGGER drop_it BEFORE INSERT ON stored_outputs BEGIN SELECT RAISE(IGNORE); END;").await,
        }
        let report = world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "open ");
        let told = "took output `makegood:c1/0:1`, and does not show it";
        assert!(report.findings.iter().any(|each| each.kind == "refused_row" && each.detail.contains(told)), "{:?}", report.findings);
        match &world.sql {
            Sql::Postgres(_) => world.run("DROP TRIGGER drop_it ON stored_outputs").await,
            Sql::Sqlite(_) => world.run("DROP TRIGGER drop_it").await,
        }
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        world.books_balance().await;
    }
}
