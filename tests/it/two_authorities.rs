//! Two authorities over one item: makegood, and the platform with its people. One wins, and the
//! other sees it and reports it.
//!
//! Where the moment matters, each order is forced: on PostgreSQL by a lock that settle is seen to
//! wait for, on SQLite by its single writer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use makegood::demo::simulator::Canned;
use makegood::report::PassReport;
use makegood::store::{Case, Outcome};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use crate::late::{REFUND, another, claim, connection, detect, on, output, seen_waiting, settle, settlement};
use crate::world::{HOUR, ItemRow, MINUTE, Sql, World, on_both};

/// Settles a refund of the first item of `c1` while `sql` of the platform's commits after settle's
/// transaction has begun and before its last look.
async fn settled_while_the_platform(world: &World, sql: String) -> Outcome {
    Box::pin(settled_meanwhile(world, "c1", sql)).await
}

async fn settled_meanwhile(world: &World, charge: &str, sql: String) -> Outcome {
    detect(world).await;
    let first = |case: &Case| {
        let item = &case.facts.orphan.item;
        (item.charge_id.as_str(), item.output_index) == (charge, 0)
    };
    let case = claim(world).await.into_iter().find(first).unwrap();
    let store = another(world).await;
    let settling = settle(&store, world, settlement(world, case, REFUND));
    if let Sql::Postgres(_) = &world.sql {
        let mut holder = connection(world).await;
        on(&mut holder, &format!("BEGIN; INSERT INTO makegood_charges VALUES ('{charge}', 'ada', 0, 10)"))
            .await;
        let (outcome, ()) = tokio::join!(settling, async {
            seen_waiting(world, "lock_charges").await;
            world.run(&sql).await;
            on(&mut holder, "ROLLBACK").await;
        });
        return outcome;
    }
    let mut holder = SqliteConnection::connect(&world.database.url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let (outcome, ()) = tokio::join!(settling, async {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut holder).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    });
    outcome
}

/// The events of the item, oldest first.
async fn events(world: &World, charge: &str) -> Vec<String> {
    world
        .texts(&format!(
            "SELECT kind || ' ' || coalesce(reason, '') AS v FROM makegood_orphan_events WHERE charge_id = '{charge}' ORDER BY id"
        ))
        .await
}

on_both! {
    async fn p01_a_refund_by_an_operator_between_decision_and_settle_wins_and_is_reported(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        let by_hand = world.refund_row("c1", Some(0), "wallet", 10);
        assert_eq!(settled_while_the_platform(&world, by_hand).await, Outcome::Changed);
        assert_eq!(world.balance_of("ada").await, (0, 10), "the operator's, and no second one");
        world.pass_time(HOUR);
        let report = world.pass().await;
        assert_eq!((report.total("close"), report.total("refund")), (1, 0), "{report:?}");
        assert_eq!(world.fate("c1", 0).await, "closed already_refunded");
        assert_eq!(events(&world, "c1").await.last().unwrap(), "close already_refunded");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_a_refund_by_an_operator_of_the_whole_charge_in_that_moment_is_held_for_a_person(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        let by_hand = world.refund_row("c1", None, "wallet", 4);
        assert_eq!(settled_while_the_platform(&world, by_hand).await, Outcome::Changed);
        world.pass_time(HOUR);
        let report = world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "held already_refunded");
        assert!(report.findings.iter().any(|each| each.kind == "already_refunded"), "{:?}", report.findings);
        assert_eq!(world.balance_of("ada").await, (0, 4));
        world.books_balance().await;
    }
}

on_both! {
    /// Two buckets paid for two items. A refund of the platform between decision and settle counts:
    /// neither bucket gets more than was drawn from it, whichever the platform chose.
    async fn p01_p03_a_partial_refund_by_the_platform_in_that_moment_leaves_each_bucket_its_own_room(world) {
        world.balance("ada", 0, 0).await;
        // The platform's refund, its item and bucket; makegood's refund for the first item then,
        // and the result.
        for (nth, (theirs, ours, fate)) in [
            (&[(1, "subscription", 5)][..], (3, 7), "refunded provider_error"),
            (&[(1, "subscription", 8), (1, "wallet", 2)], (0, 10), "refunded provider_error"),
            (&[(1, "wallet", 10)], (8, 2), "refunded provider_error"),
            // More than that item cost: there is no room for the whole of the other.
            (&[(1, "wallet", 12)], (0, 0), "held already_refunded"),
            // Of this very item, and not the whole of it: a person decides about the rest.
            (&[(0, "subscription", 5)], (0, 0), "held already_refunded"),
        ].into_iter().enumerate() {
            let charge = format!("c{nth}");
            world.charge(&charge).age(30 * MINUTE).job(&format!("failed-{nth}")).drawn(8, 12).items(&[10, 10]).insert().await;
            let by_hand: String = theirs.iter().map(|(index, bucket, credits)| world.refund_row(&charge, Some(*index), bucket, *credits)).collect();
            let outcome = Box::pin(settled_meanwhile(&world, &charge, by_hand)).await;
            assert_eq!((outcome, world.refunded(&charge).await), (Outcome::Changed, (0, 0)), "{charge}");
            world.pass_time(HOUR);
            world.pass().await;
            assert_eq!(world.fate(&charge, 0).await, fate, "{charge}");
            let of_first = format!("SELECT subscription_credits || ' ' || wallet_credits AS v FROM makegood_refunds WHERE charge_id = '{charge}' AND output_index = 0");
            let of_first = world.texts(&of_first).await.pop().unwrap_or_else(|| "0 0".to_owned());
            assert_eq!(of_first, format!("{} {}", ours.0, ours.1), "{charge}");
            world.books_balance().await;
        }
    }
}

on_both! {
    async fn p20_a_webhook_that_stores_between_decision_and_settle_wins_and_is_reported(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        let webhook = output(&world, "c1", "failed-1");
        assert_eq!(settled_while_the_platform(&world, webhook).await, Outcome::Changed);
        world.pass_time(HOUR);
        let report = world.pass().await;
        assert_eq!((report.total("close"), report.total("refund")), (1, 0), "{report:?}");
        assert_eq!(events(&world, "c1").await.last().unwrap(), "close delivered");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

#[tokio::test]
async fn p01_a_refund_by_an_operator_that_is_under_way_is_waited_for_and_seen() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    detect(&world).await;
    let case = claim(&world).await.remove(0);
    let store = another(&world).await;
    let settling = settle(&store, &world, settlement(&world, case, REFUND));
    // Written before settle begins, and committed after its last look, did it not wait before that.
    let mut operator = connection(&world).await;
    on(&mut operator, &format!("BEGIN; {}", world.refund_row("c1", Some(0), "wallet", 10))).await;
    let (outcome, ()) = tokio::join!(Box::pin(settling), async {
        seen_waiting(&world, "_balances").await;
        on(&mut operator, "COMMIT").await;
    });
    assert_eq!(outcome, Outcome::Changed);
    assert_eq!(world.balance_of("ada").await, (0, 10), "the operator's, and no second one");
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate("c1", 0).await, "closed already_refunded");
    world.books_balance().await;
}

on_both! {
    /// Within one pass: the report says that it was decided again, with the result.
    async fn p01_a_pass_says_that_the_platform_was_first(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.while_asked("failed-1", world.refund_row("c1", Some(0), "wallet", 10));
        let report = world.pass().await;
        assert_eq!((report.total("decide_again"), report.total("close"), report.total("refund")), (1, 1, 0), "{report:?}");
        assert_eq!(events(&world, "c1").await.last().unwrap(), "close already_refunded");
    }
}

on_both! {
    /// The other way round: makegood was first. A platform that reads the ledger before it refunds
    /// sees it, and a file that a webhook stores afterwards is reported as stored late.
    async fn p20_the_platform_sees_that_makegood_was_first(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.pass().await;
        let seen = world.texts("SELECT kind || ' ' || credits AS v FROM ledger_entries WHERE charge_id = 'c1' AND output_index = 0").await;
        assert_eq!(seen, ["refund 10"]);
        world.run(&output(&world, "c1", "failed-1")).await;
        world.pass_time(16 * MINUTE);
        assert_eq!(world.pass().await.stored_late, 1);
        assert!(events(&world, "c1").await.iter().any(|each| each.starts_with("stored_late")));
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    /// Three items of one charge that drew 7 and 23, settled by three processes in the same moment,
    /// round after round.
    async fn p01_p08_items_of_one_charge_settled_by_three_processes_refund_exactly_the_draw(world) {
        world.balance("ada", 0, 0).await;
        let stores = [another(&world).await, another(&world).await, another(&world).await];
        for round in 0..8 {
            let charge = format!("c{round}");
            let items = (0..3).map(|nth| ItemRow { credits: 10, job: Some(format!("failed-{round}-{nth}")), index: Some(0), failed: None });
            world.charge(&charge).age(30 * MINUTE).drawn(7, 23).item_rows(items.collect()).insert().await;
            detect(&world).await;
            let mut cases = claim(&world).await;
            assert_eq!(cases.len(), 3);
            let mut next = || settlement(&world, cases.remove(0), REFUND);
            let (one, two, three) = (next(), next(), next());
            let outcomes = tokio::join!(settle(&stores[0], &world, one), settle(&stores[1], &world, two), settle(&stores[2], &world, three));
            // Another's refund of the same charge does not change what was decided about this item.
            let settled = Outcome::Settled(REFUND);
            assert_eq!(outcomes, (settled.clone(), settled.clone(), settled), "round {round}");
            assert_eq!(world.refunded(&charge).await, (7, 23), "round {round}");
        }
        assert_eq!(world.balance_of("ada").await, (56, 184));
        world.books_balance().await;
    }
}

/// A pass that scans everything of the last day again.
async fn look_again(world: &World) -> PassReport {
    let since = makegood::detect::Since { from: world.now() - 24 * HOUR, backlog: false };
    world.pass_with(makegood::pass::Orders { since: Some(since), ..World::orders() }).await
}

/// How all items ended, superseded ways too.
const ENDS: &str = "SELECT charge_id || ' ' || kind || ' ' || reason || CASE WHEN superseded_at IS NULL THEN '' ELSE ', superseded' END AS v
                    FROM makegood_resolutions ORDER BY charge_id, id";

on_both! {
    /// A recovery on record proves the delivery: `docs/exactly-once.md`, the claim. An output that
    /// the platform removes afterwards is reported, and neither fetched again nor refunded, even if
    /// the provider has dropped the file by now.
    async fn p10_p18_an_output_that_the_platform_removes_was_delivered_and_is_reported_and_not_refunded(world) {
        world.balance("ada", 0, 0).await;
        for (charge, job) in [("lost", "ok-1"), ("found", "ok-2"), ("deleted", "ok-3")] {
            world.charge(charge).job(job).insert().await;
        }
        assert_eq!(world.pass().await.total("recover"), 3);
        world.loses("charge_id IN ('lost', 'found')").await;
        world.run(&format!("UPDATE stored_outputs SET deleted_at = {}", world.at(world.now()))).await;
        let gone = serde_json::json!({"id": "ok-1", "status": "succeeded", "output": null, "error": null, "data_removed": true});
        world.simulator.set_answer("ok-1", Canned::json(200, &gone));
        let asked = world.simulator.total_hits();
        // The scan at six hours finds the missing output, and so does a person's.
        world.pass_time(4 * HOUR);
        let looks = [world.pass().await, look_again(&world).await];
        for report in looks {
            assert_eq!((report.opened, report.reopened, report.claimed), (0, 0, 0), "{report:?}");
            let told: Vec<_> = report.findings.iter().filter(|each| each.kind == "lost_output").collect();
            assert_eq!(told.len(), 1, "{report:?}");
            assert_eq!(told[0].about, "2 items");
            assert!(told[0].detail.contains("no longer has it: found/0, lost/0. It was delivered"), "{}", told[0].detail);
        }
        assert_eq!(world.simulator.total_hits(), asked, "nobody is asked about what was delivered");
        let ended = ["deleted", "found", "lost"].map(|charge| format!("{charge} recover output_available"));
        assert_eq!(world.texts(ENDS).await, ended);
        let billed = world.texts("SELECT charge_id || ' ' || status AS v FROM usage_history WHERE billable ORDER BY charge_id").await;
        assert_eq!(billed, ["deleted delivered", "found delivered", "lost delivered"]);
        assert_eq!(world.balance_of("ada").await, (0, 0));
        // Stored by the platform itself by now: there is nothing to report any more.
        world.run(&output(&world, "lost", "ok-1")).await;
        let report = look_again(&world).await;
        assert!(report.findings.iter().any(|each| each.kind == "lost_output" && each.about == "1 item"), "{report:?}");
        world.books_balance().await;
    }
}

on_both! {
    /// A case that an older version has reopened, or an output that is removed before it is put
    /// back: closed without a refund.
    async fn p10_a_recovered_output_that_is_lost_while_its_case_is_open_closes_the_case(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        world.charge("c2").job("ok-2").insert().await;
        assert_eq!(world.pass().await.total("recover"), 2);
        // The row of one is linked to no item, which opens its case, and is removed before the
        // decision.
        world.run("UPDATE stored_outputs SET charge_id = NULL, output_index = NULL WHERE charge_id = 'c1'").await;
        world.pass_time(4 * HOUR);
        detect(&world).await;
        assert_eq!(world.fate("c1", 0).await, "open ");
        world.loses("charge_id IS NULL").await;
        let gone = serde_json::json!({"id": "ok-1", "status": "failed", "output": null, "error": "E", "data_removed": false});
        world.simulator.set_answer("ok-1", Canned::json(200, &gone));
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "closed delivered");
        let ended = ["c1 recover output_available, superseded", "c1 close delivered", "c2 recover output_available"];
        assert_eq!(world.texts(ENDS).await, ended);
        // And stays so.
        let report = look_again(&world).await;
        assert_eq!((report.reopened, report.claimed), (0, 0), "{report:?}");
        assert!(report.findings.iter().any(|each| each.kind == "lost_output"), "{report:?}");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    /// A row that is linked elsewhere is not lost: it is put back, even if the provider has dropped
    /// the file (P13, P18).
    async fn p13_p18_a_recovered_output_that_hangs_on_another_item_is_put_back_and_not_refunded(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        world.charge("other").job("running-1").insert().await;
        assert_eq!(world.pass().await.total("recover"), 1);
        let gone = serde_json::json!({"id": "ok-1", "status": "succeeded", "output": null, "error": null, "data_removed": true});
        world.simulator.set_answer("ok-1", Canned::json(200, &gone));
        world.run("UPDATE stored_outputs SET charge_id = 'other', project_id = 'p-other', node_id = 'n-other'").await;
        world.pass_time(4 * HOUR);
        let report = world.pass().await;
        assert_eq!((report.reopened, report.total("relink")), (1, 1), "{report:?}");
        assert!(report.findings.iter().all(|each| each.kind != "lost_output"), "{report:?}");
        assert_eq!(world.fate("c1", 0).await, "relinked misattributed");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    /// The proof ends when makegood itself gives the output to the item that it belongs to: then
    /// the other item is owed again (P13, P18).
    async fn p13_p18_an_item_whose_recovered_output_turns_out_to_be_anothers_is_owed_again(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        assert_eq!(world.pass().await.total("recover"), 1);
        // The platform has mixed up two jobs, and corrects that.
        world.charge("c2").age(30 * MINUTE).job("ok-1").insert().await;
        world.run("UPDATE charges SET provider_job_id = 'failed-1' WHERE id = 'c1'").await;
        for _ in 0..2 {
            world.pass_time(MINUTE);
            world.pass().await;
        }
        assert_eq!(world.fate("c2", 0).await, "relinked misattributed");
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}
