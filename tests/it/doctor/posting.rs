//! Trials of refunds and outputs: `makegood check` finds what the platform's views, triggers and
//! policies do wrong before the first night, and the trial leaves nothing behind.
//!
//! Each mistake is SQL over the reference schema, with the SQL that undoes it, so that one database
//! serves all of them.

use serde_json::Value;

use super::{check, told_of};
use crate::commands::World;
use crate::database::{ROLE, database, sqlite};

/// The expected finding of one check.
struct Mistake {
    what: &'static str,
    make: String,
    undo: &'static str,
    about: &'static str,
    says: &'static str,
    code: i32,
}

const NO_BALANCES: &str =
    "DROP VIEW balances; ALTER TABLE purse RENAME TO balances; DROP FUNCTION IF EXISTS odd()";
const NO_OUTPUTS: &str =
    "DROP VIEW stored_outputs; ALTER TABLE files RENAME TO stored_outputs; DROP FUNCTION IF EXISTS odd()";
const NO_LEDGER: &str = "DROP TRIGGER odd ON ledger_entries; DROP FUNCTION odd()";

/// `balances` as a view with a trigger.
fn balances(credits: &str, body: &str) -> String {
    format!(
        "ALTER TABLE balances RENAME TO purse;
         CREATE VIEW balances AS SELECT p.account_id, p.bucket, {credits} AS credits FROM purse p;
         CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN {body} END $$;
         CREATE TRIGGER odd INSTEAD OF UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION odd()"
    )
}

/// `stored_outputs` as a view with a trigger.
fn outputs(security: &str, body: &str) -> String {
    format!(
        "ALTER TABLE stored_outputs RENAME TO files; REVOKE ALL ON files FROM {ROLE};
         CREATE VIEW stored_outputs AS SELECT * FROM files UNION ALL SELECT * FROM files WHERE false;
         CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql {security} SET search_path = public AS $$ BEGIN {body} END $$;
         CREATE TRIGGER odd INSTEAD OF INSERT OR UPDATE ON stored_outputs FOR EACH ROW EXECUTE FUNCTION odd()"
    )
}

fn before_insert(body: &str) -> String {
    format!(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
         CREATE TRIGGER odd BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION odd()"
    )
}

const WRITES: &str = "IF TG_OP = 'INSERT' THEN INSERT INTO files SELECT NEW.*;
    ELSE UPDATE files SET charge_id = NEW.charge_id, output_index = NEW.output_index, project_id = NEW.project_id,
         node_id = NEW.node_id WHERE id = OLD.id; END IF; RETURN NEW;";
const ADDS: &str = "UPDATE purse SET credits = credits + (NEW.credits - OLD.credits)
                    WHERE account_id = OLD.account_id AND bucket = OLD.bucket;";
const POSTED: &str = "fail it failed: the refund was posted and does not show, so nothing was written: ";

fn balance_mistakes() -> Vec<Mistake> {
    let of = |what, make, about, says, code| Mistake { what, make, undo: NO_BALANCES, about, says, code };
    let key = "account_id = OLD.account_id AND bucket = OLD.bucket";
    let plus = "p.credits + 0";
    vec![
        of(
            "no trigger over a sum",
            "ALTER TABLE balances RENAME TO purse; CREATE VIEW balances AS
             SELECT account_id, bucket, sum(credits)::bigint AS credits FROM purse GROUP BY 1, 2"
                .to_owned(),
            "balances",
            "fail a view that takes no UPDATE: it has no INSTEAD OF UPDATE trigger, and is no simple view over one table",
            1,
        ),
        of(
            "a computed column",
            "ALTER TABLE balances RENAME TO purse; CREATE VIEW balances AS
             SELECT account_id, bucket, credits + 0 AS credits FROM purse"
                .to_owned(),
            "balances",
            "fail takes no UPDATE of credits: the view computes it",
            1,
        ),
        of(
            "it does nothing",
            balances(plus, "RETURN NEW;"),
            "trial refund",
            "6 credits are owed to account `u1`, bucket subscription, and its balance moved by 0",
            1,
        ),
        of(
            "another unit",
            balances(
                plus,
                &format!(
                    "UPDATE purse SET credits = credits + 100 * (NEW.credits - OLD.credits) WHERE {key}; RETURN NEW;"
                ),
            ),
            "trial refund",
            "6 credits are owed to account `u1`, bucket subscription, and its balance moved by 600",
            1,
        ),
        of(
            "it returns nothing",
            balances(plus, &format!("{ADDS} RETURN NULL;")),
            "trial refund",
            "fail it failed: 0 balance rows instead of one for account `u1`, bucket subscription",
            1,
        ),
        of(
            "it writes the new value",
            balances(plus, &format!("UPDATE purse SET credits = NEW.credits WHERE {key}; RETURN NEW;")),
            "balances",
            "fail a view whose trigger writes the new value: of two concurrent writes one is LOST",
            1,
        ),
        of(
            "it refuses an old value",
            balances(
                plus,
                &format!(
                    "UPDATE purse SET credits = NEW.credits WHERE {key} AND credits = OLD.credits;
                     IF FOUND THEN RETURN NEW; ELSE RETURN NULL; END IF;"
                ),
            ),
            "balances",
            "warn a view whose trigger rejects a write that is based on an old value: such refunds are held and retried",
            0,
        ),
        of(
            "it adds",
            balances(plus, &format!("{ADDS} RETURN NEW;")),
            "balances",
            "ok a view whose trigger adds the difference: two concurrent writers lose nothing",
            0,
        ),
        of(
            "the sum of the ledger",
            balances(
                "(SELECT coalesce(sum(l.credits), 0)::bigint FROM ledger_entries l
                  WHERE l.account_id = p.account_id AND l.bucket = p.bucket)",
                "RETURN NEW;",
            ),
            "balances",
            "ok a view that sums the ledger: two concurrent writers lose nothing",
            0,
        ),
    ]
}

fn ledger_mistakes() -> Vec<Mistake> {
    let of = |what, make, says| Mistake { what, make, undo: NO_LEDGER, about: "trial refund", says, code: 1 };
    vec![
        of(
            "the ledger drops it",
            before_insert("RETURN NULL;"),
            "ledger entry `makegood:done/0:subscription` was inserted, and the ledger does not show it",
        ),
        of(
            "the ledger counts cents",
            before_insert("NEW.credits := NEW.credits * 100; RETURN NEW;"),
            "ledger entry `makegood:done/0:subscription` was inserted as ",
        ),
        of(
            "the ledger refuses",
            before_insert("RAISE EXCEPTION 'no such kind: %', NEW.kind;"),
            "no such kind: refund",
        ),
        Mistake {
            what: "one account's entries are dropped",
            make: format!(
                "INSERT INTO charges VALUES ('hers', 'u2', 'p', 'n', 'replicate', 'm', 'j', now(), 6, 4, NULL);
                 INSERT INTO charge_items VALUES ('hers', 0, 10, NULL, NULL, NULL);
                 INSERT INTO balances VALUES ('u2', 'subscription', 0), ('u2', 'wallet', 0); {}",
                before_insert("IF NEW.account_id = 'u2' THEN RETURN NULL; END IF; RETURN NEW;")
            ),
            undo: "DROP TRIGGER odd ON ledger_entries; DROP FUNCTION odd(); DELETE FROM charges WHERE id = 'hers';
                   DELETE FROM charge_items WHERE charge_id = 'hers'; DELETE FROM balances WHERE account_id = 'u2'",
            about: "trial refund",
            says: "warn it failed for another account, and only for that one: the refund was posted and does not show, so nothing was \
                   written: ledger entry `makegood:hers/0:subscription` was inserted, and the ledger does not show it",
            code: 0,
        },
        Mistake {
            what: "the ledger is a view over two tables",
            make:
                "ALTER TABLE ledger_entries RENAME TO book; CREATE VIEW ledger_entries AS SELECT * FROM book
                   UNION ALL SELECT * FROM book WHERE false"
                    .to_owned(),
            undo: "DROP VIEW ledger_entries; ALTER TABLE book RENAME TO ledger_entries",
            about: "ledger_entries",
            says: "fail a view that takes no INSERT: it has no INSTEAD OF INSERT trigger, and is no simple view over one table",
            code: 1,
        },
    ]
}

fn output_mistakes() -> Vec<Mistake> {
    let of =
        |what, make, says, code| Mistake { what, make, undo: NO_OUTPUTS, about: "trial output", says, code };
    vec![
        of(
            "as it should be",
            outputs("SECURITY DEFINER", WRITES),
            "ok on charge `done`: written, read back and rolled back",
            0,
        ),
        of("without the owner's rights", outputs("", WRITES), "permission denied for table files", 1),
        of(
            "it does nothing",
            outputs("SECURITY DEFINER", "RETURN NEW;"),
            "fail it failed: the platform's stored_outputs took output `makegood:done/0:trial`, and does not show it where its item expects it",
            1,
        ),
        of(
            "it puts nothing back",
            outputs(
                "SECURITY DEFINER",
                "IF TG_OP = 'INSERT' THEN INSERT INTO files SELECT NEW.*; RETURN NEW; END IF; RETURN NULL;",
            ),
            "the platform's stored_outputs does not let output `makegood:done/0:trial` be put back: the UPDATE left it where it was",
            1,
        ),
    ]
}

fn policy_mistakes() -> Vec<Mistake> {
    let table =
        |table: &str, policy: &str| format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; {policy}");
    vec![
        Mistake {
            what: "charges are hidden",
            make: table("charges", ""),
            undo: "ALTER TABLE charges DISABLE ROW LEVEL SECURITY",
            about: "row security: charges",
            says: "fail row security of charges hides every row from this role, for which it has no policy: a hidden charge is never made good",
            code: 1,
        },
        Mistake {
            what: "refunds of tenants are hidden",
            make: table("ledger_entries", "CREATE POLICY tenant ON ledger_entries USING (account_id = current_setting('app.tenant', true));
                 INSERT INTO ledger_entries VALUES ('d', 'u1', 'wallet', 5, 'refund', 'failed-1', 0, NULL, now())"),
            undo: "DROP POLICY tenant ON ledger_entries; ALTER TABLE ledger_entries DISABLE ROW LEVEL SECURITY;
                   ALTER TABLE ledger_entries DISABLE TRIGGER USER; DELETE FROM ledger_entries; ALTER TABLE ledger_entries ENABLE TRIGGER USER",
            about: "row security: ledger_entries",
            says: "fail row security of ledger_entries hides rows: of 1 that its owner sees, this role sees 0: what a hidden refund of the platform's gave back is refunded once more",
            code: 1,
        },
        Mistake {
            what: "outputs are hidden beneath a view",
            make: format!("ALTER TABLE stored_outputs RENAME TO files; ALTER TABLE files ENABLE ROW LEVEL SECURITY;
                CREATE VIEW stored_outputs WITH (security_invoker = true) AS SELECT * FROM files;
                GRANT SELECT, INSERT, UPDATE ON files TO {ROLE}"),
            undo: "DROP VIEW stored_outputs; ALTER TABLE files RENAME TO stored_outputs; ALTER TABLE stored_outputs DISABLE ROW LEVEL SECURITY",
            about: "row security: stored_outputs",
            says: "fail row security of files hides every row from this role, for which it has no policy: an item whose output is hidden is refunded although it was delivered",
            code: 1,
        },
        Mistake {
            what: "a policy that depends on the row, and hides none by now",
            make: table("charges", "CREATE POLICY young ON charges USING (charged_at > '2020-01-01')"),
            undo: "DROP POLICY young ON charges; ALTER TABLE charges DISABLE ROW LEVEL SECURITY",
            about: "row security: charges",
            says: "warn row security of charges applies to this role, and hides none of 5 rows by now: a hidden charge is never made good",
            code: 0,
        },
    ]
}

/// All that a trial writes, and must not leave.
async fn left(world: &World) -> [i64; 6] {
    [
        world.number("SELECT CAST(count(*) AS bigint) FROM ledger_entries").await,
        world.number("SELECT CAST(count(*) AS bigint) FROM stored_outputs").await,
        world.number("SELECT CAST(count(*) AS bigint) FROM makegood_refunds").await,
        world.number("SELECT CAST(count(*) AS bigint) FROM makegood_resolutions").await,
        world.number("SELECT CAST(count(*) AS bigint) FROM makegood_charges").await,
        world.number("SELECT CAST(sum(credits) AS bigint) FROM balances").await,
    ]
}

/// Makes each mistake, has `check` find it, and undoes it.
async fn find_each(world: &World, mistakes: Vec<Mistake>) {
    let before = left(world).await;
    for Mistake { what, make, undo, about, says, code } in mistakes {
        world.execute(&make).await;
        world.grant().await;
        let (ended, told) = check(world).await;
        let found = told_of(&told, about);
        assert!(
            found.iter().any(|each| each == says || each.contains(says)),
            "{what}: {about} says {found:?}\n{told}"
        );
        assert_eq!(ended, Some(code), "{what}: {told}");
        world.execute(undo).await;
        assert_eq!(left(world).await, before, "{what}: something stayed");
    }
    world.grant().await;
    let (code, told) = check(world).await;
    assert_eq!(code, Some(0), "{told}");
    for about in ["trial refund", "trial output"] {
        assert_eq!(
            told_of(&told, about),
            ["ok on charge `done`: written, read back and rolled back"],
            "{told}"
        );
    }
}

#[tokio::test]
async fn balances_that_do_not_move_as_they_should_are_found_and_sums_of_the_ledger_are_right() {
    let world = World::new(database().await).await;
    // For the view that is a sum of it.
    world.execute("CREATE INDEX ON ledger_entries (account_id, bucket)").await;
    find_each(&world, balance_mistakes()).await;
}

#[tokio::test]
async fn a_ledger_and_outputs_that_change_inserted_rows_are_found() {
    let world = World::new(database().await).await;
    find_each(
        &world,
        [ledger_mistakes(), output_mistakes(), policy_mistakes()].into_iter().flatten().collect(),
    )
    .await;
}

#[tokio::test]
async fn without_rows_nothing_is_tried_but_the_rights_of_a_trigger() {
    let world = World::new(database().await).await;
    world
        .execute(
            "DELETE FROM charge_items; DELETE FROM charges; DELETE FROM stored_outputs; DELETE FROM balances",
        )
        .await;
    let (code, told) = check(&world).await;
    assert_eq!(code, Some(0), "{told}");
    for (about, says) in [
        (
            "trial refund",
            "warn could not try: among the newest charges is none that a refund could be tried on",
        ),
        ("trial output", "warn could not try: among the newest charges is none with a provider job"),
    ] {
        assert_eq!(told_of(&told, about), [says], "{told}");
    }
    world.execute(&outputs("", WRITES)).await;
    world.grant().await;
    let (code, told) = check(&world).await;
    assert_eq!(code, Some(1), "{told}");
    let advice = |told: &Value| {
        let checks = told["checks"].as_array().unwrap();
        checks.iter().find(|each| each["about"] == "trial output").unwrap()["advice"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        advice(&told),
        "it runs with the rights of this role: make the function of odd SECURITY DEFINER SET search_path = … \
         (docs/adopting.md, \"Over views\")"
    );
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_no_database_for_a_pass() {
    let world = World::new(database().await).await;
    world
        .execute("DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_read_only = on'; END $$")
        .await;
    let (code, told) = check(&world).await;
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(
        told_of(&told, "writes"),
        [
            "fail the database accepts no writes: this role's transactions are read-only (default_transaction_read_only)"
        ]
    );
}

#[tokio::test]
async fn on_sqlite_too_a_trial_finds_faulty_triggers_and_leaves_nothing() {
    let world = World::new(sqlite()).await;
    let before = left(&world).await;
    for (trigger, about, says) in [
        (
            "BEFORE INSERT ON ledger_entries BEGIN SELECT RAISE(IGNORE); END",
            "trial refund",
            format!("{POSTED}ledger entry `makegood:done/0:subscription` was inserted, and the ledger does not show it"),
        ),
        (
            "AFTER UPDATE ON balances WHEN NEW.credits - OLD.credits = 6 BEGIN
                 UPDATE balances SET credits = credits + 1 WHERE account_id = NEW.account_id AND bucket = NEW.bucket; END",
            "trial refund",
            format!("{POSTED}6 credits are owed to account `u1`, bucket subscription, and its balance moved by 7"),
        ),
        (
            "BEFORE INSERT ON stored_outputs BEGIN SELECT RAISE(IGNORE); END",
            "trial output",
            "fail it failed: the platform's stored_outputs took output `makegood:done/0:trial`, and does not show it where its item expects it".to_owned(),
        ),
    ] {
        world.execute(&format!("CREATE TRIGGER odd {trigger}")).await;
        let (code, told) = check(&world).await;
        assert_eq!((code, told_of(&told, about)), (Some(1), vec![says]), "{trigger}: {told}");
        world.execute("DROP TRIGGER odd").await;
        assert_eq!(left(&world).await, before, "{trigger}");
    }
    let (code, told) = check(&world).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told_of(&told, "trial refund"), ["ok on charge `done`: written, read back and rolled back"]);
}
