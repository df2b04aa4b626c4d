//! Many workers on one database: who holds what, and what settle proves before it moves anything.
//!
//! These tests take the store's stages by hand, so that the world can change exactly between two of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use makegood::brake::{Limits, Watch};
use makegood::pass;
use makegood::policy::{Action, Decision, Pick, Reason};
use makegood::store::{Case, Outcome, SettleRules, Settlement, Store};

use crate::late::{LEASE, REFUND, another, detect, settlement};
use crate::world::{HOUR, ItemRow, MINUTE, Sql, World, on_both};

async fn claim(store: &Store, world: &World, batch: u32) -> Vec<Case> {
    let claimed = store.claim("replicate", world.now(), LEASE, batch).await.unwrap();
    assert!(claimed.unreadable.is_empty(), "{:?}", claimed.unreadable);
    claimed.cases
}

pub fn rules(world: &World, brake: Limits) -> SettleRules {
    let parts = &world.parts;
    SettleRules {
        brake: Watch { limits: brake, ..Watch::default() },
        dating: makegood::detect::dating(&parts.rules.detect, &parts.providers),
        late: parts.rules.late,
        held_for: HOUR,
        pass_id: None,
        decided_by: "makegood".to_owned(),
    }
}

/// Refunds all cases and says what came of each, by charge.
async fn refund(store: &Store, world: &World, cases: &[Case], brake: Limits) -> Vec<(String, Outcome)> {
    let batch: Vec<Settlement> = cases.iter().map(|case| settlement(world, case.clone(), REFUND)).collect();
    let outcomes = store.settle(&batch, &rules(world, brake)).await.unwrap();
    cases.iter().map(|case| case.facts.orphan.item.to_string()).zip(outcomes).collect()
}

fn settled() -> Outcome {
    Outcome::Settled(REFUND)
}

on_both! {
    async fn two_workers_never_hold_one_orphan_and_never_split_a_job(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..30 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).drawn(0, 30).items(&[10, 10, 10]).insert().await;
        }
        // A job that items of two charges hang on.
        for (charge, index) in [("x", 0), ("y", 1)] {
            let item = ItemRow { credits: 10, job: Some("failed-shared".to_owned()), index: Some(index), failed: None };
            world.charge(charge).item_rows(vec![item]).insert().await;
        }
        detect(&world).await;
        let one = |store: Store| {
            let world = &world;
            async move {
                let (mut mine, mut empty) = (Vec::new(), 0);
                // Empty-handed because another is at it: there may be more in a moment.
                while empty < 20 {
                    let cases = claim(&store, world, 7).await;
                    if cases.is_empty() {
                        empty += 1;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    } else {
                        mine.push(cases);
                    }
                }
                mine
            }
        };
        let (a, b, c) = (another(&world).await, another(&world).await, another(&world).await);
        let (a, b, c) = tokio::join!(one(a), one(b), one(c));
        let mut seen = BTreeSet::new();
        let mut jobs: BTreeMap<String, usize> = BTreeMap::new();
        for cases in a.iter().chain(&b).chain(&c) {
            let of_claim: BTreeSet<String> = cases.iter().map(|case| case.facts.record.item.as_ref().unwrap().job.as_ref().unwrap().job_id.clone()).collect();
            for job in of_claim {
                *jobs.entry(job).or_default() += 1;
            }
            for case in cases {
                assert_eq!(case.token, 1);
                assert!(seen.insert(case.facts.orphan.id), "{} was claimed twice", case.facts.orphan.item);
            }
        }
        assert_eq!(seen.len(), 92);
        assert_eq!(jobs.len(), 31);
        assert!(jobs.values().all(|claims| *claims == 1), "a job was split: {jobs:?}");
    }
}

on_both! {
    async fn a_lease_that_ran_out_goes_to_another_and_the_old_worker_has_lost(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let old = claim(&world.store, &world, 10).await;
        world.pass_time(Duration::from_secs(15 * 60 - 1));
        assert!(claim(&world.store, &world, 10).await.is_empty(), "still leased");
        world.pass_time(Duration::from_secs(1));
        let other = another(&world).await;
        let new = claim(&other, &world, 10).await;
        assert_eq!((old[0].token, new[0].token), (1, 2));
        // The old one comes to its senses: nothing of what it holds counts any more.
        world.store.release(&[(old[0].facts.orphan.id, old[0].token)], None).await.unwrap();
        world.store.extend_leases(&[(old[0].facts.orphan.id, old[0].token)], 10 * HOUR).await.unwrap();
        assert_eq!(refund(&world.store, &world, &old, Limits::default()).await, [("c1/0".to_owned(), Outcome::Lost)]);
        assert_eq!(world.balance_of("ada").await, (0, 0));
        assert_eq!(refund(&other, &world, &new, Limits::default()).await, [("c1/0".to_owned(), settled())]);
        assert_eq!(refund(&world.store, &world, &old, Limits::default()).await, [("c1/0".to_owned(), Outcome::Lost)]);
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn a_lease_that_is_kept_alive_does_not_run_out(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let held = claim(&world.store, &world, 10).await;
        for _ in 0..4 {
            world.pass_time(10 * MINUTE);
            world.store.extend_leases(&[(held[0].facts.orphan.id, held[0].token)], LEASE).await.unwrap();
            assert!(claim(&world.store, &world, 10).await.is_empty());
        }
        assert_eq!(refund(&world.store, &world, &held, Limits::default()).await, [("c1/0".to_owned(), settled())]);
    }
}

on_both! {
    async fn what_is_given_back_is_due_again_when_it_was_said_to_be(world) {
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let held = claim(&world.store, &world, 10).await;
        world.store.release(&[(held[0].facts.orphan.id, held[0].token)], None).await.unwrap();
        let again = claim(&world.store, &world, 10).await;
        assert_eq!(again[0].token, 2, "at once");
        world.store.release(&[(again[0].facts.orphan.id, again[0].token)], Some(world.now() + HOUR)).await.unwrap();
        assert!(claim(&world.store, &world, 10).await.is_empty());
        assert_eq!(refund(&world.store, &world, &again, Limits::default()).await, [("c1/0".to_owned(), Outcome::Lost)], "given back is given back");
        world.pass_time(HOUR);
        assert_eq!(claim(&world.store, &world, 10).await.len(), 1);
    }
}

on_both! {
    async fn p01_the_same_settlement_twice_is_one_refund(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let cases = claim(&world.store, &world, 10).await;
        let other = another(&world).await;
        let (one, two) = tokio::join!(
            refund(&world.store, &world, &cases, Limits::default()),
            refund(&other, &world, &cases, Limits::default())
        );
        let outcomes: BTreeSet<bool> = [&one, &two].iter().map(|each| each[0].1 == settled()).collect();
        assert_eq!(outcomes.len(), 2, "one of the two: {one:?} {two:?}");
        assert!([&one, &two].iter().any(|each| each[0].1 == Outcome::Lost), "{one:?} {two:?}");
        assert_eq!(refund(&world.store, &world, &cases, Limits::default()).await, [("c1/0".to_owned(), Outcome::Lost)]);
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p11_p20_whatever_changed_since_the_decision_is_decided_again(world) {
        world.balance("ada", 0, 0).await;
        let now = world.at(world.now());
        let output = |charge: &str, link| world.output_row(&format!("out-{charge}"), link, ("replicate", &format!("failed-{charge}"), 0), (&format!("p-{charge}"), &format!("n-{charge}")));
        let changes = [
            ("job", "UPDATE charges SET provider_job_id = 'other' WHERE id = 'job'".to_owned()),
            ("jobless", "UPDATE charges SET provider_job_id = NULL WHERE id = 'jobless'".to_owned()),
            ("own-job", "UPDATE charge_items SET provider_job_id = 'other' WHERE charge_id = 'own-job'".to_owned()),
            ("index", "UPDATE charge_items SET provider_output_index = 3 WHERE charge_id = 'index'".to_owned()),
            ("cancelled", format!("UPDATE charges SET cancelled_at = {now} WHERE id = 'cancelled'")),
            ("failed", format!("UPDATE charge_items SET failed_at = {now} WHERE charge_id = 'failed'")),
            ("price", "UPDATE charge_items SET credits = 11 WHERE charge_id = 'price'".to_owned()),
            ("draw", "UPDATE charges SET subscription_credits = 3, wallet_credits = 7 WHERE id = 'draw'".to_owned()),
            ("account", "UPDATE charges SET account_id = 'eve' WHERE id = 'account'".to_owned()),
            ("place", "UPDATE charges SET project_id = 'moved' WHERE id = 'place'".to_owned()),
            ("delivered", output("delivered", Some(("delivered", 0)))),
            ("stray", output("stray", None)),
            ("refunded", world.refund_row("refunded", Some(0), "wallet", 1)),
            ("refunded-whole", world.refund_row("refunded-whole", None, "wallet", 1)),
            ("more-items", "INSERT INTO charge_items VALUES ('more-items', 1, 10, NULL, NULL, NULL)".to_owned()),
            ("no-item", "DELETE FROM charge_items WHERE charge_id = 'no-item'".to_owned()),
            ("no-charge", "DELETE FROM charges WHERE id = 'no-charge'".to_owned()),
            ("rival", format!("INSERT INTO charges VALUES ('rival-2', 'ada', 'p', 'n', 'replicate', 'm', 'failed-rival', {now}, 0, 10, NULL); INSERT INTO charge_items VALUES ('rival-2', 0, 10, NULL, NULL, NULL)")),
        ];
        for (charge, _) in &changes {
            world.charge(charge).job(&format!("failed-{charge}")).insert().await;
        }
        world.charge("as-it-was").job("failed-as-it-was").insert().await;
        detect(&world).await;
        let cases = claim(&world.store, &world, 100).await;
        assert_eq!(cases.len(), changes.len() + 1);
        for (_, sql) in &changes {
            world.run(sql).await;
        }
        let before = world.number("SELECT count(*) AS v FROM ledger_entries").await;
        let outcomes: BTreeMap<String, Outcome> = refund(&world.store, &world, &cases, Limits::default()).await.into_iter().collect();
        for (charge, _) in &changes {
            assert_eq!(outcomes[&format!("{charge}/0")], Outcome::Changed, "{charge}");
        }
        assert_eq!(outcomes["as-it-was/0"], settled());
        assert_eq!(world.number("SELECT count(*) AS v FROM ledger_entries").await, before + 1);
        world.books_balance().await;
    }
}

on_both! {
    async fn p06_a_file_that_was_picked_by_its_place_among_others_is_picked_again_when_one_of_them_is_stored(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c").job("failed-c").drawn(0, 20).items(&[10, 10]).insert().await;
        detect(&world).await;
        let case = claim(&world.store, &world, 10).await.remove(1);
        world.store_output("first", Some(("c", 0)), ("replicate", "failed-c", 0), ("p-c", "n-c")).await;
        let settle = async |decision: Decision| {
            let batch = [settlement(&world, case.clone(), decision)];
            world.store.settle(&batch, &rules(&world, Limits::default())).await.unwrap().remove(0)
        };
        let by_place = Decision { action: Action::Recover(Pick::Unclaimed(1)), reason: Reason::OutputAvailable, rule: 5 };
        assert_eq!(settle(by_place).await, Outcome::Changed);
        // A refund rests on no file's place.
        assert_eq!(settle(REFUND).await, settled());
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_brakes_limit_holds_to_the_refund_across_two_processes(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..40 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        detect(&world).await;
        let limits = Limits { refunds_per_hour: 17, ..Limits::default() };
        let (one, two) = (another(&world).await, another(&world).await);
        let worker = |store: Store| {
            let world = &world;
            async move {
                let mut outcomes = Vec::new();
                loop {
                    let cases = claim(&store, world, 5).await;
                    if cases.is_empty() {
                        return outcomes;
                    }
                    outcomes.extend(refund(&store, world, &cases, limits).await);
                }
            }
        };
        let (one, two) = tokio::join!(worker(one), worker(two));
        let refunds = one.iter().chain(&two).filter(|(_, outcome)| *outcome == settled()).count();
        assert_eq!(refunds, 17);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 17);
        assert_eq!(world.balance_of("ada").await, (0, 170));
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans WHERE state = 'held' AND reason = 'brake'").await, 23);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_brake_events").await, 1, "pulled once");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_brakes_limit_of_a_pass_counts_what_the_pass_refunded_before_and_nothing_older(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..4 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        detect(&world).await;
        let pass_began = world.now() + 2 * MINUTE;
        let mut told = Vec::new();
        for _ in 0..4 {
            let case = claim(&world.store, &world, 1).await.remove(0);
            let watch = Watch {
                limits: Limits { refunds_per_pass: 2, ..Limits::default() },
                pass_began: Some(pass_began),
                ..Watch::default()
            };
            let rules = SettleRules { brake: watch, ..rules(&world, Limits::default()) };
            let outcomes = world.store.settle(&[settlement(&world, case, REFUND)], &rules).await.unwrap();
            told.push(outcomes[0] == settled());
            world.pass_time(2 * MINUTE);
        }
        // The first came before the pass: it does not count.
        assert_eq!(told, [true, true, true, false]);
        world.books_balance().await;
    }
}

on_both! {
    async fn a_row_that_the_database_refuses_spoils_nothing_but_itself(world) {
        world.balance("ada", 0, 0).await;
        world.balance("eve", 0, 0).await;
        world.balance("ida", 0, 0).await;
        // Of eve's balance the platform's trigger leaves no row to be hit; of ida's it makes an error.
        match &world.sql {
            Sql::Postgres(_) => world.run(
                "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   IF NEW.account_id = 'eve' THEN RETURN NULL; END IF;
                   IF NEW.account_id = 'ida' THEN RAISE EXCEPTION 'this account is frozen'; END IF;
                   RETURN NEW; END $$;
                 CREATE TRIGGER watch BEFORE UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION watch();").await,
            Sql::Sqlite(_) => world.run(
                "CREATE TRIGGER skip_eve BEFORE UPDATE ON balances WHEN NEW.account_id = 'eve' BEGIN SELECT RAISE(IGNORE); END;
                 CREATE TRIGGER stop_ida BEFORE UPDATE ON balances WHEN NEW.account_id = 'ida' BEGIN SELECT RAISE(ABORT, 'this account is frozen'); END;").await,
        }
        for (charge, account) in [("a", "ada"), ("b", "eve"), ("c", "ida"), ("d", "ada")] {
            world.charge(charge).account(account).job(&format!("failed-{charge}")).insert().await;
        }
        // And one whose id in the ledger is taken.
        world.charge("e").job("failed-e").insert().await;
        world.run(&format!("INSERT INTO ledger_entries VALUES ('makegood:e/0:wallet', 'ada', 'wallet', 1, 'bonus', 'e', NULL, NULL, {})", world.at(world.now()))).await;
        let report = world.pass().await;
        assert_eq!(world.fate("a", 0).await, "refunded provider_error");
        assert_eq!(world.fate("b", 0).await, "held no_balance");
        assert_eq!(world.fate("c", 0).await, "open ");
        assert_eq!(world.fate("d", 0).await, "refunded provider_error");
        assert_eq!(world.fate("e", 0).await, "open ");
        assert_eq!(world.balance_of("ada").await, (0, 20));
        let kinds: BTreeSet<(&str, &str)> = report.findings.iter().map(|each| (each.kind, each.about.as_str())).collect();
        assert_eq!(kinds, [("no_balance", "item b/0"), ("refused_row", "item c/0"), ("refused_row", "item e/0")].into());
        assert!(report.findings.iter().any(|each| each.detail.contains("this account is frozen")), "{:?}", report.findings);
        world.books_balance().await;

        // Mended by a person, it is made good by itself.
        match &world.sql {
            Sql::Postgres(_) => world.run("DROP TRIGGER watch ON balances").await,
            Sql::Sqlite(_) => world.run("DROP TRIGGER skip_eve; DROP TRIGGER stop_ida").await,
        }
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!((world.balance_of("eve").await, world.balance_of("ida").await), ((0, 10), (0, 10)));
        assert_eq!(world.fate("e", 0).await, "open ");
        world.books_balance().await;
    }
}

#[tokio::test]
async fn a_constraint_that_speaks_at_the_commit_spoils_nothing_but_its_row() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.balance("eve", 0, 0).await;
    world
        .run(
            "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.account_id = 'eve' THEN RAISE EXCEPTION 'no entry for eve'; END IF; RETURN NEW; END $$;
             CREATE CONSTRAINT TRIGGER audit AFTER INSERT ON ledger_entries DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION audit();",
        )
        .await;
    world.charge("a").job("failed-a").insert().await;
    world.charge("b").account("eve").job("failed-b").insert().await;
    let report = world.pass().await;
    assert_eq!(world.fate("a", 0).await, "refunded provider_error");
    assert_eq!(world.fate("b", 0).await, "open ");
    assert!(
        report
            .findings
            .iter()
            .any(|each| each.kind == "refused_row" && each.detail.contains("no entry for eve")),
        "{:?}",
        report.findings
    );
    assert_eq!((world.balance_of("ada").await, world.balance_of("eve").await), ((0, 10), (0, 0)));
    world.books_balance().await;
}

/// A refund for ada, and one for eve whose balance takes nothing; `watch` watches the events that tell of a hold.
async fn while_a_hold_is_written(watch: &str) -> World {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.balance("eve", 0, 0).await;
    let sql = format!(
        "CREATE FUNCTION skip_eve() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.account_id = 'eve' THEN RETURN NULL; END IF; RETURN NEW; END $$;
         CREATE TRIGGER skip_eve BEFORE UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION skip_eve();
         CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.kind = 'hold' THEN {watch} END IF; RETURN NEW; END $$;
         CREATE TRIGGER watch BEFORE INSERT ON makegood_orphan_events FOR EACH ROW EXECUTE FUNCTION watch();"
    );
    world.run(&sql).await;
    world.charge("a").job("failed-a").insert().await;
    world.charge("b").account("eve").job("failed-b").insert().await;
    world
}

#[tokio::test]
async fn a_hold_that_the_database_refuses_spoils_nothing_but_itself() {
    let world = while_a_hold_is_written("RAISE EXCEPTION 'no holds today';").await;
    let report = world.pass().await;
    assert_eq!(world.fate("a", 0).await, "refunded provider_error");
    assert_eq!(world.fate("b", 0).await, "open ");
    let told = |each: &makegood::report::Finding| {
        (each.kind, each.about.as_str()) == ("refused_row", "item b/0")
            && each.detail.contains("no holds today")
    };
    assert!(report.findings.iter().any(told), "{:?}", report.findings);
    world.run("DROP TRIGGER watch ON makegood_orphan_events").await;
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate("b", 0).await, "held no_balance");
    let why = "SELECT detail AS v FROM makegood_orphan_events WHERE kind = 'hold'";
    assert_eq!(world.texts(why).await, ["0 balance rows instead of one for account `eve`, bucket wallet"]);
    world.books_balance().await;
}

#[tokio::test]
async fn a_database_that_gives_out_while_rows_are_settled_one_by_one_ends_the_pass_and_keeps_what_was_settled()
 {
    let full = "RAISE EXCEPTION 'no room' USING ERRCODE = '53100';";
    let world = while_a_hold_is_written(full).await;
    let error = pass::run(&world.parts, World::orders(), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("insert_events"), "{error}");
    assert_eq!(world.fate("b", 0).await, "open ");
    world.run("DROP TRIGGER watch ON makegood_orphan_events").await;
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate("a", 0).await, "refunded provider_error");
    assert_eq!(world.fate("b", 0).await, "held no_balance");
    assert_eq!(world.balance_of("ada").await, (0, 10));
    world.books_balance().await;

    // The same where the first try is refused for its row, and every later one finds no room.
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    world
        .run(
            "CREATE SEQUENCE tried;
             CREATE FUNCTION give_out() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
               IF nextval('tried') = 1 THEN RAISE EXCEPTION 'this row'; END IF;
               RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER give_out BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION give_out();",
        )
        .await;
    let error = pass::run(&world.parts, World::orders(), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("insert_ledger_entries"), "{error}");
    assert_eq!(world.fate("c1", 0).await, "open ");
    assert_eq!(world.number("SELECT last_value AS v FROM tried").await, 2, "tried alone, once");
    world.run("DROP TRIGGER give_out ON ledger_entries").await;
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.balance_of("ada").await, (0, 10));
    world.books_balance().await;
}

on_both! {
    async fn a_balance_row_that_doubles_between_decision_and_settlement_holds_the_refund(world) {
        world.balance("ada", 0, 0).await;
        world.balance("eve", 0, 0).await;
        world.without_keys("balances").await;
        world.charge("a").job("failed-a").insert().await;
        world.charge("b").account("eve").job("failed-b").insert().await;
        world.while_asked("failed-a", "INSERT INTO balances VALUES ('ada', 'wallet', 0)".to_owned());
        let report = world.pass().await;
        assert_eq!(world.fate("a", 0).await, "held no_balance", "{report:?}");
        assert_eq!(world.fate("b", 0).await, "refunded provider_error");
        assert_eq!(world.texts("SELECT credits AS v FROM balances WHERE account_id = 'ada'").await, ["0", "0", "0"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_an_output_that_a_person_moves_while_we_put_it_back_stays_where_it_was_put(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.store_output("out", None, ("replicate", "failed-1", 0), ("elsewhere", "there")).await;
        detect(&world).await;
        let case = claim(&world.store, &world, 10).await.remove(0);
        let relink = Decision { action: Action::Relink { output_id: "out".to_owned() }, reason: Reason::Misattributed, rule: 3 };
        world.run(&format!("UPDATE stored_outputs SET project_id = 'mine', node_id = 'here', moved_at = {}", world.at(world.now()))).await;
        let outcome = world.store.settle(&[settlement(&world, case, relink)], &rules(&world, Limits::default())).await.unwrap();
        assert_eq!(outcome, [Outcome::Changed]);
        assert_eq!(world.texts("SELECT project_id || ' ' || node_id AS v FROM stored_outputs").await, ["mine here"]);
    }
}

on_both! {
    async fn a_pass_that_is_asked_to_stop_gives_back_what_it_has_not_begun(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..5 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        let orders = World::orders();
        orders.stop.request();
        let report = world.pass_with(orders).await;
        assert!(report.stopped_early);
        assert_eq!(report.total("refund"), 0);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans WHERE leased_until IS NOT NULL").await, 0);
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.stopped_early), (5, false));
        world.books_balance().await;
    }
}

on_both! {
    async fn two_passes_at_once_end_as_one_would(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..20 {
            let fate = ["ok", "failed", "unknown", "cancelled"][nth % 4];
            world.charge(&format!("c{nth}")).job(&format!("{fate}-{nth}")).insert().await;
        }
        world.charge("batch").job("two-of-three-b").drawn(0, 30).items(&[10, 10, 10]).insert().await;
        let (one, two) = tokio::join!(world.pass(), world.pass());
        assert_eq!(one.total("refund") + two.total("refund"), 16, "{one:?}\n{two:?}");
        assert_eq!(one.total("recover") + two.total("recover"), 7);
        assert_eq!(world.balance_of("ada").await, (0, 160));
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 7);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans WHERE resolved_at IS NULL").await, 0);
        world.books_balance().await;
    }
}
