//! `makegood check --books`: refunds, ledger and balances side by side.

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
async fn p01_the_books_show_what_was_lost_doubled_or_moved_by_hand() {
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
                "ok 2 refunds of makegood's: the ledger has exactly their entries",
                "ok 4 ledger entries of 2 charges: none of makegood's is without a refund, and no charge got back more than it drew",
                "ok 5 balances: each is what the ledger's entries add up to",
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
                &["fail 1 balance of 5 that the ledger does not add up to, although it does to all others: ada wallet holds 223, 777 less than its entries"][..],
                "UPDATE balances SET credits = credits + 777 WHERE account_id = 'ada'".to_owned(),
            ),
            (
                format!("UPDATE ledger_entries SET charge_id = 'failed-2' WHERE id = '{wallet}'"),
                &[
                    "fail 1 refund without an entry in the ledger for a bucket that it gave to: failed-1/0",
                    "fail 1 refund of an item that the platform has refunded, too: more went back than it cost: failed-2/0",
                    "fail 1 entry of the ledger with an id of makegood's, and without a refund of that id and charge: makegood:failed-1/0:wallet",
                    "fail 1 charge to which the ledger gives back more than they drew: failed-2 (drew 10, got back 14)",
                ],
                format!("UPDATE ledger_entries SET charge_id = 'failed-1' WHERE id = '{wallet}'"),
            ),
            (
                format!("UPDATE ledger_entries SET credits = 3 WHERE id = '{wallet}'"),
                &[
                    "fail 1 refund whose entries in the ledger do not add up to what it gave: failed-1/0",
                    "fail 1 balance of 5 that the ledger does not add up to, although it does to all others: u1 wallet holds 8, 1 more than its entries",
                ],
                format!("UPDATE ledger_entries SET credits = 4 WHERE id = '{wallet}'"),
            ),
            (
                entry("again", "u1", "wallet", 4, "failed-1", of_first),
                &[
                    "fail 1 refund with more than one entry in the ledger for a bucket: failed-1/0",
                    "fail 1 charge to which the ledger gives back more than they drew: failed-1 (drew 10, got back 14)",
                    "fail 1 balance of 5 that",
                ],
                "DELETE FROM ledger_entries WHERE id = 'again'".to_owned(),
            ),
            (
                entry("back", "u1", "wallet", -4, "failed-1", of_first),
                &["fail 1 refund that the ledger takes back, and that nobody has reversed: failed-1/0", "fail 1 balance of 5 that"],
                "DELETE FROM ledger_entries WHERE id = 'back'".to_owned(),
            ),
            (
                format!("UPDATE ledger_entries SET account_id = 'bob' WHERE id = '{wallet}'"),
                &["fail 1 refund whose entries in the ledger name another account, item or kind: failed-1/0", "fail 2 balances of 5 that"],
                format!("UPDATE ledger_entries SET account_id = 'u1' WHERE id = '{wallet}'"),
            ),
            (
                entry("theirs", "u1", "wallet", 10, "failed-1", "NULL")
                    + "; UPDATE balances SET credits = credits + 10 WHERE account_id = 'u1' AND bucket = 'wallet'",
                &[
                    "fail 1 refund of an item that the platform has refunded, too: more went back than it cost: failed-1/0",
                    "fail 1 charge to which the ledger gives back more than they drew: failed-1 (drew 10, got back 20)",
                ],
                "DELETE FROM ledger_entries WHERE id = 'theirs'; UPDATE balances SET credits = credits - 10 WHERE account_id = 'u1' AND bucket = 'wallet'".to_owned(),
            ),
            (
                entry("makegood:nothing/0:wallet", "bob", "wallet", 5, "stored", "'makegood:nothing/0'")
                    + "; UPDATE balances SET credits = credits + 5 WHERE account_id = 'bob'",
                &["fail 1 entry of the ledger with an id of makegood's, and without a refund of that id and charge: makegood:nothing/0:wallet"],
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

        // Most balances hold what the ledger never saw: nothing can be told of them, and that is
        // said.
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

/// Between two chunks it can be stopped, and then does not say that all is well.
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
            "ok 2 refunds of makegood's: the ledger has exactly their entries",
            "fail stopped before the end: what is said here covers only what was read by then",
        ]
    );
}
