//! `makegood check --books`: compares refunds, ledger and balances.

use std::time::Duration;

use serde_json::Value;
use sqlx::Executor as _;

use super::told_of;
use crate::commands::{World, worlds};
use crate::database::database;

async fn books(world: &World) -> (Option<i32>, Vec<String>) {
    let ended = world.makegood(&["check", "--books"]).output().await;
    let told: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended.code, told_of(&told, "books"))
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one mistake after the other, in one database")]
async fn p01_the_books_show_lost_doubled_and_manually_changed_entries() {
    for world in worlds().await {
        // A ledger that holds everything: three accounts that bought credits and spent some.
        let mut sql = String::new();
        let at = world.ago(600);
        for account in ["ada", "bob", "cy"] {
            let statements = format!(
                "INSERT INTO balances VALUES ('{account}', 'wallet', 1000);\
                 INSERT INTO ledger_entries VALUES ('buy-{account}', '{account}', 'wallet', 1000, 'purchase', '', NULL, NULL, {at});"
            );
            sql.push_str(&statements);
        }
        world.execute(&sql).await;
        world.run().await;
        // The charges of the world were drawn before its ledger began.
        let (code, well) = books(&world).await;
        assert_eq!(code, Some(0), "{well:?}");
        assert_eq!(
            well,
            [
                "ok 2 refunds of makegood: the ledger has exactly their entries",
                "ok 4 ledger entries of 2 charges: every entry of makegood has its refund, and no charge was refunded more than it drew",
                "ok 5 balances: each equals the sum of its ledger entries",
            ]
        );

        // By hand, past triggers that refuse it.
        let locked = |sql: &str| {
            if world.is_postgres() {
                format!(
                    "ALTER TABLE ledger_entries DISABLE TRIGGER USER; {sql}; ALTER TABLE ledger_entries ENABLE TRIGGER USER"
                )
            } else {
                format!(
                    "DROP TRIGGER IF EXISTS ledger_entries_never_changed; DROP TRIGGER IF EXISTS ledger_entries_never_removed; \
                     DROP TRIGGER IF EXISTS ledger_entries_never_replaced; {sql}"
                )
            }
        };
        let entry = |id: &str, account: &str, bucket: &str, credits: i64, charge: &str, refund: &str| {
            format!(
                "INSERT INTO ledger_entries VALUES ('{id}', '{account}', '{bucket}', {credits}, 'refund', '{charge}', 0, {refund}, {at})"
            )
        };
        let of_first = "'makegood:failed-1/0'";
        let wallet = "makegood:failed-1/0:wallet";
        for (mistake, says, undo) in [
            (
                "UPDATE balances SET credits = credits - 777 WHERE account_id = 'ada'".to_owned(),
                &["fail 1 balance of 5 unequal to the sum of the ledger entries, although all others are equal: ada wallet is 223, 777 less than its entries"][..],
                "UPDATE balances SET credits = credits + 777 WHERE account_id = 'ada'".to_owned(),
            ),
            (
                format!("UPDATE ledger_entries SET charge_id = 'failed-2' WHERE id = '{wallet}'"),
                &[
                    "fail 1 refund without a ledger entry for a bucket that was refunded: failed-1/0",
                    "fail 1 refund of an item that the platform has refunded too: more was refunded than its price: failed-2/0",
                    "fail 1 entry of the ledger with an id of makegood, but without a refund of that id and charge: makegood:failed-1/0:wallet",
                    "fail 1 charge for which the ledger refunds more than they drew: failed-2 (drew 10, refunded 14)",
                ],
                format!("UPDATE ledger_entries SET charge_id = 'failed-1' WHERE id = '{wallet}'"),
            ),
            (
                format!("UPDATE ledger_entries SET credits = 3 WHERE id = '{wallet}'"),
                &[
                    "fail 1 refund whose ledger entries do not sum up to its credits: failed-1/0",
                    "fail 1 balance of 5 unequal to the sum of the ledger entries, although all others are equal: u1 wallet is 8, 1 more than its entries",
                ],
                format!("UPDATE ledger_entries SET credits = 4 WHERE id = '{wallet}'"),
            ),
            (
                entry("again", "u1", "wallet", 4, "failed-1", of_first),
                &[
                    "fail 1 refund with more than one ledger entry for a bucket: failed-1/0",
                    "fail 1 charge for which the ledger refunds more than they drew: failed-1 (drew 10, refunded 14)",
                    "fail 1 balance of 5 unequal",
                ],
                "DELETE FROM ledger_entries WHERE id = 'again'".to_owned(),
            ),
            (
                entry("back", "u1", "wallet", -4, "failed-1", of_first),
                &["fail 1 refund that the ledger takes back, but that was not reversed: failed-1/0", "fail 1 balance of 5 unequal"],
                "DELETE FROM ledger_entries WHERE id = 'back'".to_owned(),
            ),
            (
                format!("UPDATE ledger_entries SET account_id = 'bob' WHERE id = '{wallet}'"),
                &["fail 1 refund whose ledger entries name another account, item or kind: failed-1/0", "fail 2 balances of 5 unequal"],
                format!("UPDATE ledger_entries SET account_id = 'u1' WHERE id = '{wallet}'"),
            ),
            (
                entry("theirs", "u1", "wallet", 10, "failed-1", "NULL")
                    + "; UPDATE balances SET credits = credits + 10 WHERE account_id = 'u1' AND bucket = 'wallet'",
                &[
                    "fail 1 refund of an item that the platform has refunded too: more was refunded than its price: failed-1/0",
                    "fail 1 charge for which the ledger refunds more than they drew: failed-1 (drew 10, refunded 20)",
                ],
                "DELETE FROM ledger_entries WHERE id = 'theirs'; UPDATE balances SET credits = credits - 10 WHERE account_id = 'u1' AND bucket = 'wallet'".to_owned(),
            ),
            (
                entry("makegood:nothing/0:wallet", "bob", "wallet", 5, "stored", "'makegood:nothing/0'")
                    + "; UPDATE balances SET credits = credits + 5 WHERE account_id = 'bob'",
                &["fail 1 entry of the ledger with an id of makegood, but without a refund of that id and charge: makegood:nothing/0:wallet"],
                "DELETE FROM ledger_entries WHERE id = 'makegood:nothing/0:wallet'; UPDATE balances SET credits = credits - 5 WHERE account_id = 'bob'".to_owned(),
            ),
        ] {
            world.execute(&locked(&mistake)).await;
            let (code, told) = books(&world).await;
            let failed: Vec<&String> = told.iter().filter(|line| line.starts_with("fail")).collect();
            assert_eq!((code, failed.len()), (Some(1), says.len()), "{mistake}: {told:?}");
            for (line, says) in failed.iter().zip(says) {
                assert!(line.starts_with(says), "{mistake}: {says}\n{told:?}");
            }
            world.execute(&locked(&undo)).await;
            assert_eq!(books(&world).await.1, well, "{undo}");
        }

        // PostgreSQL has no foreign key from a refund to its charge.
        if world.is_postgres() {
            world.execute("DELETE FROM makegood_charges WHERE charge_id = 'failed-1'").await;
            let (code, told) = books(&world).await;
            let says =
                "fail 1 refund whose row in makegood_charges or makegood_resolutions is missing: failed-1/0";
            assert!(code == Some(1) && told.iter().any(|line| line == says), "{told:?}");
            world.execute("INSERT INTO makegood_charges VALUES ('failed-1', 'u1', 6, 4, 6, 4)").await;
            assert_eq!(books(&world).await.1, well);
        }

        // A reversal that a person made is in the books, too.
        if !world.is_postgres() {
            let ended = world
                .makegood(&["reverse-refund", "failed-1/0", "--by", "ida", "--reason", "delivered"])
                .output()
                .await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            let (code, told) = books(&world).await;
            assert_eq!((code, told.iter().all(|line| line.starts_with("ok"))), (Some(0), true), "{told:?}");
        }

        // Most balances contain credits that are not in the ledger. They cannot be checked, and the
        // output says so.
        world.execute("UPDATE balances SET credits = credits + 50 WHERE bucket = 'wallet'").await;
        let (code, told) = books(&world).await;
        assert_eq!(code, Some(0), "{told:?}");
        assert!(
            told[2]
                .starts_with("warn could not judge balances: the ledger does not add up to them for 4 of 5 "),
            "{told:?}"
        );
    }
}

/// It can be stopped between two chunks, and then does not report success.
#[tokio::test]
async fn the_books_are_left_unread_when_asked_to_stop() {
    let world = World::new(database().await).await;
    world.run().await;
    // Only the books read this relation.
    let mut other = world.connect().await;
    other.execute("BEGIN; LOCK TABLE makegood_refund_reversals IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut run = world.makegood(&["check", "--books"]).start();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%books_refunds%' \
                 AND datname = current_database()";
    let waiting = async {
        while world.number(waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("it comes to the books");
    run.terminate().await;
    run.says("stop signal").await;
    other.execute("ROLLBACK").await.unwrap();
    let ended = run.ended().await;
    let told: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(ended.code, Some(1), "{told}");
    assert_eq!(
        told_of(&told, "books"),
        [
            "ok 2 refunds of makegood: the ledger has exactly their entries",
            "fail stopped before the end: the results cover only what was read",
        ]
    );
}
