//! `makegood check` on the state of an installation: what fails, what is a warning, and which
//! command it names.

use super::{advice, check, told_of};
use crate::commands::worlds;

#[tokio::test]
async fn the_doctor_fails_where_a_promise_is_broken_or_credits_are_held() {
    for world in worlds().await {
        // Nothing has run yet: the first night's order begins with a check.
        let (code, told) = check(&world).await;
        assert_eq!(
            (code, told_of(&told, "passes")),
            (Some(0), vec!["warn none has succeeded yet".to_owned()]),
            "{told}"
        );

        world.run().await;
        let (code, told) = check(&world).await;
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(
            told_of(&told, "orphans"),
            ["warn 1 item is past the window, found by the first pass, less than 24h ago"]
        );
        let by = if world.is_postgres() { "interval '2 days'" } else { "172800000000" };
        let at = |minutes| world.ago(minutes);
        for (mistake, about, says, command, undo) in [
            (
                format!("UPDATE makegood_passes SET started_at = started_at - {by}"),
                "orphans",
                "fail 1 item is past the window".to_owned(),
                "`makegood report` lists them",
                format!("UPDATE makegood_passes SET started_at = started_at + {by}"),
            ),
            (
                format!("UPDATE makegood_orphans SET refund_by = {}, window_ends_at = {} WHERE state = 'open'", at(16), world.ahead(100)),
                "orphans",
                "fail 1 item should have been refunded more than 15m ago".to_owned(),
                "`makegood run` starts a pass now",
                format!("UPDATE makegood_orphans SET refund_by = {}, window_ends_at = {} WHERE state = 'open'", world.ahead(100), at(60)),
            ),
            (
                format!("UPDATE makegood_passes SET finished_at = {}", at(20)),
                "passes",
                "fail the last successful one ended 20m ".to_owned(),
                "`makegood run` starts one now and shows what fails",
                format!("UPDATE makegood_passes SET finished_at = {}", at(0)),
            ),
            (
                format!("UPDATE makegood_passes SET outcome = 'failed', started_at = {}", at(20)),
                "passes",
                "fail none has succeeded; the first began 20m ".to_owned(),
                "`makegood run` starts one now and shows what fails",
                format!("UPDATE makegood_passes SET outcome = 'done', started_at = {}", at(0)),
            ),
            (
                format!("UPDATE makegood_brake SET engaged_at = {}, reason = 'by hand'", at(5)),
                "brake",
                "fail ON since 5m ".to_owned(),
                "`makegood brake status` shows what it holds; once the cause is fixed, `makegood brake release --by WHO --reason WHY`",
                "UPDATE makegood_brake SET engaged_at = NULL, reason = NULL".to_owned(),
            ),
            (
                "UPDATE makegood_orphans SET reason = 'unauthorized' WHERE state = 'open'".to_owned(),
                "provider replicate",
                "fail 1 item waits because the provider rejected our API key".to_owned(),
                "`makegood provider list` shows where the key is read from",
                "UPDATE makegood_orphans SET reason = 'still_running' WHERE state = 'open'".to_owned(),
            ),
            (
                "UPDATE makegood_orphans SET reason = 'unreadable' WHERE state = 'open'".to_owned(),
                "provider replicate",
                "warn 1 item waits because the provider's answer cannot be read".to_owned(),
                "`makegood explain CHARGE/INDEX` shows one, `makegood provider test` reads it",
                "UPDATE makegood_orphans SET reason = 'still_running' WHERE state = 'open'".to_owned(),
            ),
            (
                "UPDATE makegood_orphans SET state = 'held', reason = 'not_posted' WHERE state = 'open'".to_owned(),
                "provider replicate",
                "fail 1 item is held because the refund was posted, and the platform's balance or ledger did not change by it".to_owned(),
                "`makegood explain CHARGE/INDEX` names it",
                "UPDATE makegood_orphans SET state = 'open', reason = 'still_running' WHERE state = 'held'".to_owned(),
            ),
            (
                "UPDATE makegood_orphans SET state = 'held', reason = 'no_balance' WHERE state = 'open'".to_owned(),
                "provider replicate",
                "warn 1 item is held because its account does not have exactly one balance".to_owned(),
                "`makegood report` names the items",
                "UPDATE makegood_orphans SET state = 'open', reason = 'still_running' WHERE state = 'held'".to_owned(),
            ),
            (
                format!("INSERT INTO makegood_cursors (name, position, updated_at) VALUES ('refused', {}, {})", at(30), at(5)),
                "refused rows",
                "fail since ".to_owned(),
                "`makegood run --dry-run --since ",
                "DELETE FROM makegood_cursors WHERE name = 'refused'".to_owned(),
            ),
        ] {
            world.execute(&mistake).await;
            let (code, told) = check(&world).await;
            let found = told_of(&told, about);
            assert!(found.iter().any(|line| line.starts_with(&says)), "{mistake}: {found:?}\n{told}");
            assert!(advice(&told, about).contains(command), "{mistake}: {told}");
            assert_eq!(code, Some(i32::from(says.starts_with("fail"))), "{mistake}: {told}");
            world.execute(&undo).await;
        }
    }
}
