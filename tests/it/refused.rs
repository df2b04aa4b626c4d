//! Settlements that the database rejects. A rejected row affects only itself, is reported, and is
//! made good once it was corrected.
//!
//! Settle tries a batch as a whole, and then the failed ones one by one (`store::settle`).

use std::collections::BTreeSet;

use makegood::pass;

use crate::world::{HOUR, MINUTE, Sql, World, on_both};

on_both! {
    async fn a_row_that_the_database_refuses_spoils_nothing_but_itself(world) {
        world.balance("ada", 0, 0).await;
        world.balance("eve", 0, 0).await;
        world.balance("ida", 0, 0).await;
        // Of eve's balance the platform's trigger leaves no row to be hit; of ida's it makes an
        // error.
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
        // And one whose id in the ledger is taken, by an entry that is in no balance.
        world.charge("e").job("failed-e").insert().await;
        world.opens_with("ada", "wallet", -1);
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

        // Once a person has corrected it, the next pass makes it good.
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

on_both! {
    async fn rows_that_the_database_refuses_fail_no_pass_though_there_is_nothing_else(world) {
        for account in ["ada", "eve"] {
            world.balance(account, 0, 0).await;
            world.charge(account).account(account).job(&format!("failed-{account}")).insert().await;
        }
        // With an SQLSTATE that is about rows: this alone shows that the database works, even if no
        // other row was settled.
        match &world.sql {
            Sql::Postgres(_) => world.run(
                "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'this account is frozen'; END $$;
                 CREATE TRIGGER watch BEFORE UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION watch();").await,
            Sql::Sqlite(_) => world.run(
                "CREATE TRIGGER watch BEFORE UPDATE ON balances BEGIN SELECT RAISE(ABORT, 'this account is frozen'); END;").await,
        }
        let report = world.pass().await;
        let refused: BTreeSet<&str> = report.findings.iter().filter(|each| each.kind == "refused_row").map(|each| each.about.as_str()).collect();
        assert_eq!(refused, ["item ada/0", "item eve/0"].into());
        assert_eq!([world.fate("ada", 0).await, world.fate("eve", 0).await], ["open ", "open "]);
        world.books_balance().await;
    }
}

/// A platform's trigger that raises a custom SQLSTATE for one account.
async fn frozen(world: &World, account: &str) {
    world
        .run(&format!(
            "CREATE FUNCTION say_no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.account_id LIKE '{account}' THEN RAISE EXCEPTION 'this account is frozen' USING ERRCODE = 'LB001'; END IF;
               RETURN NEW; END $$;
             CREATE TRIGGER say_no BEFORE UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION say_no();"
        ))
        .await;
}

#[tokio::test]
async fn an_unknown_sqlstate_affects_only_its_row() {
    let mut world = World::postgres().await;
    frozen(&world, "eve").await;
    for batch in [1, 10] {
        world.parts.rules.batch = batch;
        for account in ["eve", "ada"] {
            world.run(&format!("DELETE FROM balances WHERE account_id = '{account}'; DELETE FROM accounts WHERE id = '{account}'")).await;
            world.balance(account, 0, 0).await;
            world
                .charge(&format!("{account}-{batch}"))
                .account(account)
                .job(&format!("failed-{account}-{batch}"))
                .age(20 * MINUTE)
                .insert()
                .await;
        }
        let report = world.pass().await;
        assert_eq!(world.fate(&format!("ada-{batch}"), 0).await, "refunded provider_error");
        assert_eq!(world.fate(&format!("eve-{batch}"), 0).await, "open ");
        assert!(
            report
                .findings
                .iter()
                .any(|each| each.kind == "refused_row" && each.detail.contains("this account is frozen")),
            "{:?}",
            report.findings
        );
    }
    world.run("DROP TRIGGER say_no ON balances").await;
    world.pass_time(HOUR);
    world.pass().await;
    assert_eq!(world.balance_of("eve").await, (0, 20));
}

#[tokio::test]
async fn p05_an_answer_in_such_a_code_to_all_items_of_one_job_spoils_nothing_but_them() {
    let mut world = World::postgres().await;
    frozen(&world, "eve").await;
    // Alone in the first batch.
    world.parts.rules.batch = 1;
    for account in ["eve", "ada"] {
        world.balance(account, 0, 0).await;
    }
    world.charge("eve").account("eve").job("failed-1").items(&[5, 5]).age(30 * MINUTE).insert().await;
    world.charge("ada").job("failed-2").age(20 * MINUTE).insert().await;
    let report = world.pass().await;
    assert_eq!(world.fate("ada", 0).await, "refunded provider_error");
    assert_eq!(
        report.findings.iter().filter(|each| each.kind == "refused_row").count(),
        2,
        "{:?}",
        report.findings
    );
    assert_eq!([world.fate("eve", 0).await, world.fate("eve", 1).await], ["open ", "open "]);
    world.books_balance().await;
}

#[tokio::test]
async fn an_answer_in_such_a_code_to_everything_fails_the_pass() {
    let world = World::postgres().await;
    frozen(&world, "%").await;
    // Of two accounts, because a fault of one alone is that account's.
    for account in ["ada", "eve"] {
        world.balance(account, 0, 0).await;
    }
    for nth in 0..5 {
        let account = if nth == 0 { "eve" } else { "ada" };
        world.charge(&format!("c{nth}")).account(account).job(&format!("failed-{nth}")).insert().await;
    }
    let error = pass::run(&world.parts, World::orders(), |_| {}).await.unwrap_err();
    let told = makegood::report::chain(&error);
    assert!(told.contains("could be settled") && told.contains("this account is frozen"), "{told}");
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 0);
    world.run("DROP TRIGGER say_no ON balances").await;
    world.pass_time(HOUR);
    assert_eq!(world.pass().await.total("refund"), 5);
    world.books_balance().await;
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

/// A refund for ada, and one for eve, whose balance rejects it; `watch` watches the events that
/// record a hold.
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

/// A trigger that raises the code of a full disk affects only its row, also while rows are settled
/// one by one.
#[tokio::test]
async fn a_code_of_the_whole_database_in_a_trigger_spoils_nothing_but_its_row() {
    let full = "RAISE EXCEPTION 'no room' USING ERRCODE = '53100';";
    let world = while_a_hold_is_written(full).await;
    let report = world.pass().await;
    let told = |each: &makegood::report::Finding| {
        (each.kind, each.about.as_str()) == ("refused_row", "item b/0")
            && each.detail.contains("insert_events")
    };
    assert!(report.findings.iter().any(told), "{:?}", report.findings);
    assert_eq!(world.fate("a", 0).await, "refunded provider_error");
    assert_eq!(world.fate("b", 0).await, "open ");
    world.run("DROP TRIGGER watch ON makegood_orphan_events").await;
    world.pass_time(HOUR);
    world.pass().await;
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
    let report = world.pass().await;
    assert!(report.findings[0].detail.contains("no room"), "{report:?}");
    assert_eq!(world.fate("c1", 0).await, "open ");
    // Once with the batch and once alone. A try that still finds the locks of the one before begins
    // anew, once, and waits for them.
    let tried = world.number("SELECT last_value AS v FROM tried").await;
    assert!((2..=3).contains(&tried), "{tried}");
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
