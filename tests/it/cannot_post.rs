//! A pass tries a refund before it starts. While none can be posted, refunds are held and
//! everything else goes on. A fault of one account holds no other account's refunds.

use std::time::Duration;

use makegood::store::Trial;

use crate::database;
use crate::late::detect;
use crate::world::{HOUR, MINUTE, World, on_both};

/// The ledger drops what is inserted.
fn drops(world: &World) -> String {
    if world.store.is_postgres() {
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER odd BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION odd()"
            .to_owned()
    } else {
        "CREATE TRIGGER odd BEFORE INSERT ON ledger_entries BEGIN SELECT RAISE(IGNORE); END".to_owned()
    }
}

fn undo(world: &World) -> &'static str {
    if world.store.is_postgres() { "DROP TRIGGER odd ON ledger_entries" } else { "DROP TRIGGER odd" }
}

async fn checked(world: &World) -> String {
    world.texts("SELECT result AS v FROM makegood_checks WHERE name = 'posting'").await.remove(0)
}

on_both! {
    async fn p01_while_no_refund_can_be_posted_all_are_held_and_everything_else_goes_on(world) {
        for account in ["ada", "eve"] {
            world.balance(account, 0, 0).await;
        }
        for nth in 0..3 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        world.charge("hers").account("eve").job("failed-9").insert().await;
        world.charge("ok").job("ok-1").insert().await;
        world.run(&drops(&world)).await;
        let report = world.pass().await;
        for charge in ["c0", "c1", "c2", "hers"] {
            assert_eq!(world.fate(charge, 0).await, "held cannot_post", "{report:?}");
        }
        assert_eq!(world.fate("ok", 0).await, "recovered output_available", "{report:?}");
        let findings: Vec<_> = report.findings.iter().filter(|each| each.kind == "cannot_post").collect();
        let [finding] = findings[..] else { panic!("{report:?}") };
        assert_eq!(finding.about, "refunds");
        assert!(
            finding.detail.starts_with("no refund can be posted, so that all are held: a trial refund failed: ")
                && finding.detail.ends_with("and the ledger does not show it; `makegood check` says more"),
            "{finding:?}"
        );
        assert_eq!(checked(&world).await, "cannot_post");
        let told = world.texts("SELECT detail AS v FROM makegood_orphan_events WHERE reason = 'cannot_post'").await;
        assert_eq!(told.len(), 4);
        assert!(told.iter().all(|detail| detail.starts_with("a trial refund failed: ")), "{told:?}");

        // Known to the next pass without another trial.
        world.charge("c3").job("failed-3").age(Duration::ZERO).insert().await;
        world.pass_time(30 * MINUTE);
        let report = world.pass().await;
        assert_eq!(world.fate("c3", 0).await, "held cannot_post", "{report:?}");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 0);

        world.run(undo(&world)).await;
        world.pass_time(HOUR + MINUTE);
        let report = world.pass().await;
        for charge in ["c0", "c1", "c2", "c3", "hers"] {
            assert_eq!(world.fate(charge, 0).await, "refunded provider_error", "mended, it is refunded by itself: {report:?}");
        }
        assert_eq!(checked(&world).await, "ok");
        assert!(!report.findings.iter().any(|each| each.kind == "cannot_post"), "{report:?}");
        world.books_balance().await;
    }
}

/// A charge that has its output.
async fn delivered(world: &World) {
    world.charge("delivered").job("ok-1").age(MINUTE).insert().await;
    world.store_output("out", Some(("delivered", 0)), ("replicate", "ok-1", 0), ("p", "n")).await;
}

on_both! {
    /// An account without its balance rows is left out of the trial of a refund.
    async fn a_trial_takes_what_is_owed_then_what_is_not_delivered_and_the_newest_of_these(world) {
        for account in ["ada", "bob", "eve"] {
            world.balance(account, 0, 0).await;
        }
        // The other bucket of a charge needs no row.
        world.run("DELETE FROM balances WHERE account_id = 'bob' AND bucket = 'subscription'").await;
        delivered(&world).await;
        world.charge("poor").account("none").job("running-1").age(2 * MINUTE).insert().await;
        world.charge("waits").account("eve").drawn(4, 6).job("running-2").age(5 * MINUTE).insert().await;
        world.charge("owed").account("bob").job("running-3").age(3 * HOUR).insert().await;
        let works = |charge: &str| Trial::Works { charge_id: charge.to_owned(), failed_before: None };
        assert_eq!(world.store.try_refunds().await.unwrap(), works("waits"));
        assert_eq!(world.store.try_outputs().await.unwrap(), works("poor"));
        detect(&world).await;
        assert_eq!(world.store.try_refunds().await.unwrap(), works("owed"));
    }
}

on_both! {
    /// The platform may refuse a second output and a refund for a charge that has its output.
    async fn what_a_delivered_charge_is_refused_says_nothing_about_the_others(world) {
        world.balance("ada", 0, 0).await;
        world.balance("eve", 0, 0).await;
        delivered(&world).await;
        for table in ["ledger_entries", "stored_outputs"] {
            let refuses = if world.store.is_postgres() {
                format!(
                    "CREATE FUNCTION no_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
                     CREATE TRIGGER no BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no_{table}()"
                )
            } else {
                format!("CREATE TRIGGER no_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
            };
            world.run(&refuses).await;
        }
        for trial in [world.store.try_refunds().await.unwrap(), world.store.try_outputs().await.unwrap()] {
            assert!(matches!(trial, Trial::CouldNotTry { .. }), "{trial:?}");
        }
        world.charge("waits").account("eve").job("running-2").age(5 * MINUTE).insert().await;
        for trial in [world.store.try_refunds().await.unwrap(), world.store.try_outputs().await.unwrap()] {
            assert!(matches!(trial, Trial::Fails { tried: 1, refused: true, .. }), "{trial:?}");
        }
    }
}

on_both! {
    async fn a_platform_that_puts_an_output_elsewhere_fails_the_trial(world) {
        world.charge("c").job("running-1").insert().await;
        let works = Trial::Works { charge_id: "c".to_owned(), failed_before: None };
        assert_eq!(world.store.try_outputs().await.unwrap(), works);
        world
            .run(if world.store.is_postgres() {
                "CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   NEW.node_id := 'elsewhere'; RETURN NEW; END $$;
                 CREATE TRIGGER moves BEFORE INSERT ON stored_outputs FOR EACH ROW EXECUTE FUNCTION moves()"
            } else {
                "CREATE TRIGGER moves AFTER INSERT ON stored_outputs
                 BEGIN UPDATE stored_outputs SET node_id = 'elsewhere' WHERE id = NEW.id; END"
            })
            .await;
        let trial = world.store.try_outputs().await.unwrap();
        let says = "does not show it where its item expects it";
        assert!(matches!(&trial, Trial::Fails { why, .. } if why.contains(says)), "{trial:?}");
    }
}

#[tokio::test]
async fn an_output_is_found_by_its_id_where_the_platform_keeps_no_hash() {
    let world = World::postgres().await;
    world.charge("c").job("running-1").insert().await;
    world
        .run(
            "ALTER TABLE stored_outputs ALTER COLUMN sha256 DROP NOT NULL;
             CREATE FUNCTION no_hash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               NEW.sha256 := NULL; RETURN NEW; END $$;
             CREATE TRIGGER no_hash BEFORE INSERT ON stored_outputs FOR EACH ROW EXECUTE FUNCTION no_hash()",
        )
        .await;
    let works = Trial::Works { charge_id: "c".to_owned(), failed_before: None };
    assert_eq!(world.store.try_outputs().await.unwrap(), works);
}

/// The newest three charges are of an account whose refunds fail, so the trial uses charges of two
/// others.
#[tokio::test]
async fn p01_a_fault_of_one_account_holds_no_other_accounts_refunds() {
    let world = World::postgres().await;
    for account in ["ada", "eve"] {
        world.balance(account, 0, 0).await;
    }
    world
        .run(
            "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.account_id = 'eve' THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER odd BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION odd()",
        )
        .await;
    world.charge("mine").job("failed-1").age(3 * HOUR).insert().await;
    for nth in 0..3 {
        world
            .charge(&format!("hers-{nth}"))
            .account("eve")
            .job(&format!("failed-e{nth}"))
            .age(2 * HOUR)
            .insert()
            .await;
    }
    let report = world.pass().await;
    assert_eq!(world.fate("mine", 0).await, "refunded provider_error", "{report:?}");
    assert_eq!(world.fate("hers-0", 0).await, "held not_posted", "{report:?}");
    assert_eq!(checked(&world).await, "ok");
}

/// A pass a minute tries once an hour, and a new version at once.
#[tokio::test]
async fn a_refund_is_tried_once_an_hour_and_by_a_new_version() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    // A sequence counts what is rolled back, too.
    world
        .run(
            "CREATE SEQUENCE tries; GRANT USAGE ON SEQUENCE tries TO PUBLIC;
             CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('tries'); RETURN NEW; END $$;
             CREATE TRIGGER odd BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION odd()",
        )
        .await;
    world.charge("c").job("running-1").insert().await;
    let mut tries = Vec::new();
    for minutes in [0, 1, 58, 1, 1] {
        world.pass_time(Duration::from_mins(minutes));
        world.pass().await;
        tries.push(
            world.number("SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS v FROM tries").await,
        );
    }
    assert_eq!(tries, [1, 1, 1, 2, 2]);
    world.run("UPDATE makegood_checks SET version = '0.0.0'").await;
    world.pass().await;
    assert_eq!(world.number("SELECT last_value AS v FROM tries").await, 3);
    assert_eq!(world.number("SELECT count(*) AS v FROM ledger_entries").await, 0, "nothing was refunded");
}

/// During an upgrade the grants come after the migration: a pass that may not try refunds all the
/// same, and reads back what it posts.
#[tokio::test]
async fn a_pass_that_may_not_try_a_refund_holds_nothing() {
    for revoke in [
        "REVOKE EXECUTE ON FUNCTION makegood_try_refund(jsonb), makegood_sees() FROM",
        "REVOKE ALL ON makegood_checks FROM",
    ] {
        let world = World::postgres().await;
        world.balance("ada", 0, 0).await;
        world.charge("c").job("failed-1").insert().await;
        world.run(&format!("{revoke} {}", database::ROLE)).await;
        let report = world.pass().await;
        assert_eq!(world.fate("c", 0).await, "refunded provider_error", "{revoke}: {report:?}");
    }
}

/// Refunds are also held if they would be wrong: here row security hides the platform's own
/// refunds.
#[tokio::test]
async fn p01_refunds_are_held_while_row_security_hides_the_ledger() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c").job("failed-1").insert().await;
    world.run("ALTER TABLE ledger_entries ENABLE ROW LEVEL SECURITY").await;
    let report = world.pass().await;
    assert_eq!(world.fate("c", 0).await, "held cannot_post", "{report:?}");
    world.run("ALTER TABLE ledger_entries DISABLE ROW LEVEL SECURITY").await;
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.fate("c", 0).await, "refunded provider_error");
}

/// A platform may reject a refund that is not owed.
#[tokio::test]
async fn a_trial_that_the_platform_refuses_of_its_row_holds_nothing() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world
        .run(
            "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.charge_id = 'owed' THEN RETURN NEW; END IF;
                 RAISE EXCEPTION 'nothing is owed for %', NEW.charge_id; END $$;
             CREATE TRIGGER odd BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION odd()",
        )
        .await;
    world.charge("owed").job("failed-1").age(3 * HOUR).insert().await;
    world.charge("young").job("running-1").age(MINUTE).insert().await;
    let report = world.pass().await;
    assert_eq!(world.fate("owed", 0).await, "refunded provider_error", "{report:?}");
    assert_eq!(checked(&world).await, "untried");
}
