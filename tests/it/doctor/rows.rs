//! `makegood check` on the platform's rows: one mistake after the other, each undone again.

use serde_json::Value;

use super::{check, grade};
use crate::commands::{World, worlds};

/// This many valid charges of an account of its own, with items, outputs and jobs.
fn charges(world: &World, prefix: &str, many: u32, minutes: u64) -> String {
    let mut sql =
        format!("INSERT INTO balances VALUES ('{prefix}', 'subscription', 0), ('{prefix}', 'wallet', 0);");
    for nth in 0..many {
        let (id, at) = (format!("{prefix}-{nth:02}"), world.ago(minutes));
        let statements = format!(
            "INSERT INTO charges VALUES ('{id}', '{prefix}', 'p', 'n', 'replicate', 'm', 'job-{id}', {at}, 6, 4, NULL);\
             INSERT INTO charge_items VALUES ('{id}', 0, 10, NULL, NULL, NULL);\
             INSERT INTO stored_outputs VALUES ('o-{id}', '{id}', 0, 'replicate', 'job-{id}', 0, 'p', 'n', 'u', 't', 1, 'h', {at}, NULL, NULL);"
        );
        sql.push_str(&statements);
    }
    sql
}

/// The findings of one check, each after its grade.
fn lines(told: &Value, about: &str) -> String {
    super::told_of(told, about).join("\n")
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one mistake after the other, in one database")]
async fn the_doctor_finds_rows_by_which_a_pass_would_fail_or_refund_wrongly() {
    for world in worlds().await {
        let postgres = world.is_postgres();
        world.execute(&charges(&world, "ada", 20, 90)).await;
        let (code, well) = check(&world).await;
        assert_eq!(code, Some(0), "{well}");
        assert_eq!(lines(&well, "rows"), "ok nothing is wrong with the newest 25 charges");
        assert!(lines(&well, "charges").starts_with("ok the newest, `ada-19`, is of "), "{well}");
        assert!(lines(&well, "debits").starts_with("ok the ledger has none "), "{well}");

        let all = "charge_id LIKE 'ada%'";
        let some = "charge_id IN ('ada-00', 'ada-01', 'ada-02')";
        for (mistake, about, says, exit, undo) in [
            // One in a few charges: passes hold these.
            (
                format!("UPDATE charge_items SET credits = 9 WHERE {some}"),
                "charge_items",
                "warn 3 charges of the newest 25 with items that do not sum up to the draw: `ada-02`, `ada-01`, …",
                0,
                format!("UPDATE charge_items SET credits = 10 WHERE {some}"),
            ),
            // In most of them: the view is wrong.
            (
                format!("UPDATE charge_items SET credits = 9 WHERE {all}"),
                "charge_items",
                "fail 20 charges of the newest 25 with items that do not sum up to the draw",
                1,
                format!("UPDATE charge_items SET credits = 10 WHERE {all}"),
            ),
            (
                format!("DELETE FROM charge_items WHERE {all}"),
                "charge_items",
                "fail 20 charges of the newest 25 without any item",
                1,
                "INSERT INTO charge_items SELECT id, 0, 10, NULL, NULL, NULL FROM charges WHERE id LIKE 'ada%'".to_owned(),
            ),
            (
                "DELETE FROM balances WHERE account_id = 'ada' AND bucket = 'wallet'".to_owned(),
                "balances",
                "fail 20 charges of the newest 25 drew from a bucket of which its account has no balance: `ada-19`",
                1,
                "INSERT INTO balances VALUES ('ada', 'wallet', 0)".to_owned(),
            ),
            (
                "UPDATE charges SET provider_job_id = NULL WHERE id LIKE 'ada%'; UPDATE charges SET provider = 'fal' WHERE id LIKE 'ada%'; \
                 UPDATE stored_outputs SET node_id = 'q' WHERE id = 'o-ada-00'".to_owned(),
                "jobs",
                "fail none of the 20 charges of `fal` that are older than 1h names a provider_job_id: `ada-19`, `ada-18`, …; 1 has no output",
                1,
                "UPDATE charges SET provider_job_id = 'job-' || id, provider = 'replicate' WHERE id LIKE 'ada%'; \
                 UPDATE stored_outputs SET node_id = 'n'".to_owned(),
            ),
            (
                "UPDATE stored_outputs SET node_id = 'another'".to_owned(),
                "stored_outputs",
                "fail 25 of the 25 of the newest 25 charges that are past their grace without an output where it belongs: `ada-19`, `ada-18`, …; 21 have outputs",
                1,
                "UPDATE stored_outputs SET node_id = 'n'".to_owned(),
            ),
            (
                "UPDATE stored_outputs SET sha256 = '' WHERE id LIKE 'o-ada%'".to_owned(),
                "stored_outputs",
                "warn 20 charges of the newest 25 with an output without sha256: `ada-19`",
                0,
                "UPDATE stored_outputs SET sha256 = 'h' WHERE id LIKE 'o-ada%'".to_owned(),
            ),
            (
                "UPDATE charges SET provider = 'Replicate' WHERE id = 'ada-19'".to_owned(),
                "provider Replicate",
                "fail `Replicate` has no provider file, but 1 charge of the last 24 hours; did you mean `replicate`?",
                1,
                "UPDATE charges SET provider = 'replicate'".to_owned(),
            ),
            (
                format!("UPDATE charges SET charged_at = {} WHERE id = 'ada-19'", world.ahead(600)),
                "charges",
                "warn 1 charge of the newest 25 is in the future, the newest ",
                0,
                format!("UPDATE charges SET charged_at = {} WHERE id = 'ada-19'", world.ago(90)),
            ),
        ] {
            world.execute(&mistake).await;
            let (code, told) = check(&world).await;
            let found = lines(&told, about);
            assert!(found.lines().any(|line| line.starts_with(says)), "{mistake}: {found}\n{told}");
            assert_eq!(code, Some(exit), "{mistake}: {told}");
            assert_eq!(lines(&told, "rows"), if about.starts_with("provider") || about == "charges" { lines(&well, "rows") } else { String::new() });
            world.execute(&undo).await;
        }

        // The ledger has debits of three charges, and one of them is not what was drawn.
        let at = world.ago(90);
        let debits: String = [("ada-17", -10), ("ada-18", -10), ("ada-19", -7)]
            .map(|(id, credits)| format!("INSERT INTO ledger_entries VALUES ('d-{id}', 'ada', 'wallet', {credits}, 'usage', '{id}', NULL, NULL, {at});"))
            .concat();
        world.execute(&debits).await;
        let (code, told_of) = check(&world).await;
        assert_eq!(code, Some(0), "{told_of}");
        assert!(
            lines(&told_of, "debits").starts_with(
                "warn 1 charge of 3 that the ledger has debits of, which differ from the draw: `ada-19`"
            ),
            "{told_of}"
        );

        // No charge for a day: a new platform, or a view that shows something old.
        world.execute(&format!("UPDATE charges SET charged_at = {}", world.ago(3000))).await;
        let (_, told_of) = check(&world).await;
        assert!(
            lines(&told_of, "charges")
                .starts_with("warn none in the last 24 hours; the newest, `stored`, is of "),
            "{told_of}"
        );
        assert!(lines(&told_of, "charges").ends_with("(2d 2h ago)"), "{told_of}");
        world.execute("DELETE FROM charges").await;
        let (code, told_of) = check(&world).await;
        assert_eq!(
            (code, lines(&told_of, "charges").as_str()),
            (Some(0), "warn there is none with a time"),
            "{told_of}"
        );
        assert_eq!(grade(&told_of, "rows"), None);
        if postgres {
            two_rows_of_one_id(&world).await;
        }
    }
}

/// A view that joins a relation with several rows: neither a key nor a unique index prevents that.
async fn two_rows_of_one_id(world: &World) {
    world.execute(&charges(world, "bob", 3, 90)).await;
    world
        .execute(
            "ALTER TABLE charges DROP CONSTRAINT charges_pkey; CREATE INDEX ON charges (id); INSERT INTO charges SELECT * FROM charges WHERE id = 'bob-01';
             ALTER TABLE charge_items DROP CONSTRAINT charge_items_pkey; CREATE INDEX ON charge_items (charge_id, output_index);
             INSERT INTO charge_items SELECT * FROM charge_items WHERE charge_id = 'bob-02';
             ALTER TABLE balances DROP CONSTRAINT balances_pkey CASCADE; CREATE INDEX ON balances (account_id, bucket);
             INSERT INTO balances VALUES ('bob', 'wallet', 5)",
        )
        .await;
    let (code, told) = check(world).await;
    assert_eq!(code, Some(1), "{told}");
    let found = lines(&told, "charges");
    assert!(
        found.contains("fail 2 charges of the newest 4 in more than one row: `bob-01`, `bob-01`"),
        "{found}"
    );
    let found = lines(&told, "charge_items");
    assert!(
        found.contains(
            "fail 1 charge of the newest 4 with two items of one output_index, or with none: `bob-02`"
        ),
        "{found}"
    );
    let found = lines(&told, "balances");
    assert!(
        found
            .contains("fail 4 charges of the newest 4 of accounts with more than one balance for a bucket: "),
        "{found}"
    );
    let found = lines(&told, "newest charges");
    assert!(
        found.contains(
            "warn `bob-01` cannot be judged: charges or charge_items has two rows of item bob-01/0"
        ),
        "{found}"
    );
}

#[tokio::test]
async fn check_shows_the_newest_charges_as_makegood_reads_them() {
    for world in worlds().await {
        let at = |minutes| world.ago(minutes);
        let charge = |id: &str, job: &str, minutes: u64| {
            format!(
                "INSERT INTO charges VALUES ('{id}', 'u1', 'p', 'n', 'replicate', 'acme/still', {job}, {}, 6, 4, NULL);",
                at(minutes)
            )
        };
        let item = |id: &str, index: u32, credits: u32| {
            format!("INSERT INTO charge_items VALUES ('{id}', {index}, {credits}, NULL, NULL, NULL);")
        };
        let young = world.ago(1);
        world
            .execute(
                &[
                    charge("young", "'j1'", 1),
                    item("young", 0, 10),
                    charge("failed-at-once", "'j2'", 2),
                    format!("INSERT INTO charge_items VALUES ('failed-at-once', 0, 10, NULL, NULL, {young});"),
                    charge("no-job", "NULL", 110),
                    item("no-job", 0, 10),
                    charge("off", "'j3'", 111),
                    item("off", 0, 10),
                    item("off", 1, 0),
                    item("off", 2, 3),
                    charge("given-back", "'j4'", 112),
                    item("given-back", 0, 10),
                    format!("INSERT INTO ledger_entries VALUES ('g', 'u1', 'wallet', 10, 'refund', 'given-back', 0, NULL, {});", at(60)),
                ]
                .concat(),
            )
            .await;
        let before = world.number("SELECT count(*) FROM makegood_orphans").await;
        let (_, told_of) = check(&world).await;
        let found = lines(&told_of, "newest charges");
        for says in [
            "ok `young/0` is too young until ",
            "ok `failed-at-once/0` would be an orphan, because the platform has recorded that it failed: a pass would ask `replicate`",
            "ok `no-job/0` would be an orphan, because it has no output after its grace: a pass would refund it, because no provider job is on record: it was never submitted",
            "warn `off/0` would be an orphan, because it has no output after its grace: a pass would ",
            "; `off/1` has no price: nothing is owed for it; `off/2` ",
            "ok `given-back/0` was refunded by the platform itself",
            "ok `done/0` would be an orphan, because it has no output after its grace: a pass would ask `replicate`",
            "ok `stored/0` has its output",
        ] {
            assert!(found.contains(says), "{says}\n{found}");
        }
        assert_eq!(found.lines().count(), 10, "{found}");
        assert_eq!(world.number("SELECT count(*) FROM makegood_orphans").await, before, "it leaves no trace");

        world.run().await;
        let (_, told_of) = check(&world).await;
        let found = lines(&told_of, "newest charges");
        for says in [
            "ok `failed-1/0` was refunded by makegood, because the provider says that it failed",
            "ok `done/0` has its output",
            "`running/0` is an orphan (open): a pass would ask `replicate`",
        ] {
            assert!(found.contains(says), "{says}\n{found}");
        }
    }
}
