//! A wrong refund that a person takes back (P23, support acts by hand): exactly its credits, once,
//! also beside concurrent sessions, and both records stay.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use makegood::charge::{Bucket, Split};
use makegood::detect::Since;
use makegood::pass::Orders;
use makegood::store::{Outcome, Reversal, Reversed, Store};

use crate::database::support_grants;
use crate::late::{REFUND, another, claim, connection, detect, on, output, seen_waiting, settle, settlement};
use crate::world::{HOUR, ItemRow, MINUTE, Sql, World, on_both};

/// Grants makegood's role the rights of `docs/adopting.md` for reversals.
async fn granted(world: &World) {
    if let Sql::Postgres(_) = &world.sql {
        world.run(&support_grants()).await;
    }
}

pub fn order(item: &str, anyway: bool) -> Reversal {
    let (by, why) = ("mia".to_owned(), "ticket 9".to_owned());
    Reversal { item: item.parse().unwrap(), by, why, anyway }
}

async fn reverse(store: &Store, item: &str) -> Reversed {
    store.reverse_refund(&order(item, false)).await.unwrap()
}

/// One refunded charge of ada's that drew 3 and 7; her balances are otherwise empty.
pub async fn refunded(world: &World) {
    granted(world).await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").drawn(3, 7).items(&[10]).job("failed-1").insert().await;
    world.pass().await;
    assert_eq!(
        (world.fate("c1", 0).await.as_str(), world.balance_of("ada").await),
        ("refunded provider_error", (3, 7))
    );
}

/// Ada spends of her wallet.
fn spent(credits: i64) -> String {
    format!(
        "UPDATE balances SET credits = credits - {credits} WHERE account_id = 'ada' AND bucket = 'wallet';
         INSERT INTO ledger_entries (id, account_id, bucket, credits, kind, charge_id, posted_at)
         SELECT 'spent-{credits}', 'ada', 'wallet', -{credits}, 'charge', 'later', charged_at FROM charges WHERE id = 'c1'"
    )
}

async fn reversals(world: &World) -> i64 {
    world.number("SELECT count(*) AS v FROM makegood_refund_reversals").await
}

on_both! {
    async fn p01_p21_p23_a_refund_is_taken_back_once_and_both_facts_stay(world) {
        refunded(&world).await;
        let kept = world.texts("SELECT id || subscription_credits || wallet_credits || reason AS v FROM makegood_refunds").await;
        let Reversed::Done(done) = reverse(&world.store, "c1/0").await else { panic!("it was refunded") };
        assert_eq!((done.credits, done.account_id.as_str()), (Split { subscription: 3, wallet: 7 }, "ada"));
        assert_eq!((world.balance_of("ada").await, world.refunded("c1").await), ((0, 0), (3, 7)), "the refund's row stays");
        assert_eq!(world.texts("SELECT id || subscription_credits || wallet_credits || reason AS v FROM makegood_refunds").await, kept);
        let entries = "SELECT id || ' ' || kind || ' ' || credits || ' ' || refund_id AS v FROM ledger_entries WHERE id LIKE 'makegood:%' ORDER BY id";
        let posted = world.texts(entries).await;
        assert_eq!(posted, [
            "makegood:c1/0:reversed:subscription refund -3 makegood:c1/0",
            "makegood:c1/0:reversed:wallet refund -7 makegood:c1/0",
            "makegood:c1/0:subscription refund 3 makegood:c1/0",
            "makegood:c1/0:wallet refund 7 makegood:c1/0",
        ]);
        let shown = world.texts("SELECT activity || ' ' || credits AS v FROM billing_activity WHERE charge_id = 'c1' AND activity LIKE 'refund%' ORDER BY 1").await;
        assert_eq!(shown, ["refund 10", "refund_reversed -10"]);
        let usage = "SELECT status AS v FROM usage_history WHERE billable";
        assert_eq!(world.texts(usage).await, ["refund_reversed"]);
        world.books_balance().await;

        // Run again, it reports the same. No pass refunds or recovers it any more.
        let before = world.all_rows().await;
        assert_eq!(reverse(&world.store, "c1/0").await, Reversed::Before(done));
        assert_eq!(world.all_rows().await, before);
        world.pass_time(4 * HOUR);
        let since = Since { from: world.now() - 24 * HOUR, backlog: false };
        let report = world.pass_with(Orders { since: Some(since), ..World::orders() }).await;
        assert_eq!((report.opened, report.reopened, report.claimed), (0, 0, 0), "{report:?}");
        assert_eq!(world.balance_of("ada").await, (0, 0));
        // The keys hold too.
        let second = "INSERT INTO makegood_refund_reversals SELECT 'other', refund_id, charge_id, output_index, account_id,
                      subscription_credits, wallet_credits, by_whom, reason, reversed_at FROM makegood_refund_reversals";
        for sql in [second, "UPDATE makegood_refund_reversals SET reason = 'x'", "DELETE FROM makegood_refund_reversals"] {
            assert!(world.try_run(sql).await.is_err(), "{sql}");
        }
        // An output that comes now is delivered, and billed.
        world.run(&output(&world, "c1", "failed-1")).await;
        assert_eq!(world.texts(usage).await, ["delivered"]);
        world.pass_time(HOUR);
        world.pass().await;
        world.books_balance().await;
    }
}

on_both! {
    async fn p03_p23_a_reversal_that_a_balance_does_not_cover_needs_the_anyway_flag(world) {
        refunded(&world).await;
        world.run(&spent(1)).await;
        let before = world.all_rows().await;
        let refused = reverse(&world.store, "c1/0").await;
        assert_eq!(refused, Reversed::NotCovered { account_id: "ada".to_owned(), bucket: Bucket::Wallet, balance: 6, credits: 7 });
        assert_eq!(world.all_rows().await, before, "of neither balance");
        let insisted = world.store.reverse_refund(&order("c1/0", true)).await.unwrap();
        assert!(matches!(insisted, Reversed::Done(_)), "{insisted:?}");
        assert_eq!(world.balance_of("ada").await, (0, -1));
        let told = world.texts("SELECT detail AS v FROM makegood_orphan_events WHERE kind = 'reversed'").await;
        assert_eq!(told, ["3 from the subscription, 7 from the wallet, which the balance did not cover; by hand, mia: ticket 9"]);
        world.books_balance().await;
    }
}

on_both! {
    async fn p23_only_makegoods_own_refunds_are_taken_back(world) {
        granted(&world).await;
        world.balance("ada", 0, 0).await;
        world.charge("ok").job("ok-1").insert().await;
        world.charge("theirs").job("failed-1").insert().await;
        world.run(&world.refund_row("theirs", Some(0), "wallet", 10)).await;
        world.pass().await;
        let before = world.all_rows().await;
        for item in ["ok/0", "theirs/0", "ok/7", "nobodys/0"] {
            assert_eq!(world.store.reverse_refund(&order(item, true)).await.unwrap(), Reversed::NotRefunded, "{item}");
        }
        assert_eq!(world.all_rows().await, before);
    }
}

on_both! {
    async fn p01_several_people_at_once_take_each_refund_back_once(world) {
        granted(&world).await;
        world.balance("ada", 0, 0).await;
        for nth in 0..6 {
            // From both balances, or from one of them.
            let (subscription, wallet) = [(4, 6), (0, 10), (10, 0)][nth % 3];
            let (id, job) = (format!("c{nth}"), format!("failed-{nth}"));
            let charge = world.charge(&id).drawn(subscription, wallet);
            charge.items(&[10]).job(&job).insert().await;
        }
        world.pass().await;
        assert_eq!(world.balance_of("ada").await, (28, 32));
        let stores = [another(&world).await, another(&world).await, another(&world).await];
        for nth in 0..6 {
            let item = format!("c{nth}/0");
            let [a, b, c] = [0, 1, 2].map(|who| reverse(&stores[who], &item));
            let told = tokio::join!(a, b, c);
            let done = [&told.0, &told.1, &told.2].map(|each| matches!(each, Reversed::Done(_)));
            assert_eq!(done.iter().filter(|done| **done).count(), 1, "{item}: {told:?}");
        }
        assert_eq!((world.balance_of("ada").await, reversals(&world).await), ((0, 0), 6));
        let entries = world.number("SELECT count(*) AS v FROM ledger_entries WHERE id LIKE '%:reversed:%'").await;
        assert_eq!(entries, 2 * (2 + 1 + 1), "none for a balance that was given nothing");
        world.books_balance().await;
    }
}

on_both! {
    /// One item's refund is taken back while another item of the same charge is refunded: one waits
    /// for the other, without a deadlock.
    async fn p03_a_reversal_and_a_settle_of_the_same_charge_cross(world) {
        granted(&world).await;
        world.balance("ada", 0, 0).await;
        let (one, two) = (another(&world).await, another(&world).await);
        for round in 0..6 {
            let charge = format!("c{round}");
            let items = (0..2).map(|nth| ItemRow { credits: 10, job: Some(format!("failed-{round}-{nth}")), index: Some(0), failed: None });
            world.charge(&charge).age(30 * MINUTE).drawn(7, 13).item_rows(items.collect()).insert().await;
            detect(&world).await;
            let mut cases = claim(&world).await;
            cases.sort_by_key(|case| case.facts.orphan.item.output_index);
            let (second, first) = (cases.pop().unwrap(), cases.pop().unwrap());
            assert_eq!(settle(&one, &world, settlement(&world, first, REFUND)).await, Outcome::Settled(REFUND));
            let item = format!("{charge}/0");
            let settling = settle(&two, &world, settlement(&world, second, REFUND));
            let (reversed, settled) = tokio::join!(reverse(&one, &item), settling);
            assert!(matches!(reversed, Reversed::Done(_)), "{reversed:?}");
            assert_eq!(settled, Outcome::Settled(REFUND));
            assert_eq!(world.refunded(&charge).await, (7, 13));
            world.books_balance().await;
        }
        assert_eq!(world.balance_of("ada").await, (0, 60), "of each charge, 3 and 7 went back to the one and 10 to the other");
    }
}

on_both! {
    /// Its last write is rejected: nothing of it stays, and it succeeds afterwards.
    async fn p01_a_reversal_that_breaks_off_before_its_commit_leaves_nothing(world) {
        refunded(&world).await;
        match &world.sql {
            Sql::Postgres(_) => world.run(
                "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'out of order'; END $$;
                 CREATE TRIGGER watch BEFORE INSERT ON makegood_orphan_events FOR EACH ROW EXECUTE FUNCTION watch();").await,
            Sql::Sqlite(_) => world.run(
                "CREATE TRIGGER watch BEFORE INSERT ON makegood_orphan_events BEGIN SELECT RAISE(ABORT, 'out of order'); END;").await,
        }
        let before = world.all_rows().await;
        let error = world.store.reverse_refund(&order("c1/0", true)).await.unwrap_err();
        assert!(makegood::report::chain(&error).contains("out of order"), "{error:?}");
        assert_eq!(world.all_rows().await, before);
        match &world.sql {
            Sql::Postgres(_) => world.run("DROP TRIGGER watch ON makegood_orphan_events").await,
            Sql::Sqlite(_) => world.run("DROP TRIGGER watch").await,
        }
        assert!(matches!(reverse(&world.store, "c1/0").await, Reversed::Done(_)));
        assert_eq!((world.balance_of("ada").await, reversals(&world).await), ((0, 0), 1));
        world.books_balance().await;
    }
}

#[tokio::test]
async fn p03_a_reversal_that_does_not_show_in_balance_or_ledger_is_not_written() {
    for (table, timing, body) in [
        ("balances", "BEFORE UPDATE", "RETURN OLD;"),
        ("balances", "BEFORE UPDATE", "NEW.credits := greatest(NEW.credits, 1); RETURN NEW;"),
        ("ledger_entries", "BEFORE INSERT", "RETURN NULL;"),
        ("ledger_entries", "BEFORE INSERT", "NEW.credits := abs(NEW.credits); RETURN NEW;"),
    ] {
        let world = World::postgres().await;
        refunded(&world).await;
        let trigger = format!(
            "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
             CREATE TRIGGER odd {timing} ON {table} FOR EACH ROW EXECUTE FUNCTION odd()"
        );
        world.run(&trigger).await;
        let before = world.all_rows().await;
        let told = world.store.reverse_refund(&order("c1/0", true)).await.unwrap();
        assert!(matches!(&told, Reversed::NotPosted(why) if !why.is_empty()), "{body}: {told:?}");
        assert_eq!(world.all_rows().await, before, "{body}");
        world.run(&format!("DROP TRIGGER odd ON {table}")).await;
        assert!(matches!(reverse(&world.store, "c1/0").await, Reversed::Done(_)));
        world.books_balance().await;
    }
}

/// A difference that is gone under one snapshot is another session's: the reversal is tried again,
/// but not for ever.
#[tokio::test]
async fn p03_a_reversal_is_tried_again_where_a_difference_is_gone_under_one_snapshot() {
    let once = "nextval('tries') = 1";
    let always = "current_setting('transaction_isolation') = 'read committed'";
    for (when, is_done) in [(once, true), (always, false)] {
        let world = World::postgres().await;
        refunded(&world).await;
        let trigger = format!(
            "CREATE SEQUENCE tries; GRANT USAGE ON SEQUENCE tries TO PUBLIC;
             CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.bucket = 'wallet' AND {when} THEN NEW.credits := NEW.credits + 5; END IF; RETURN NEW; END $$;
             CREATE TRIGGER odd BEFORE UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION odd()"
        );
        world.run(&trigger).await;
        let told = tokio::time::timeout(2 * MINUTE, reverse(&world.store, "c1/0")).await.expect("it ends");
        let balance = if is_done { (0, 0) } else { (3, 7) };
        assert_eq!(matches!(told, Reversed::Done(_)), is_done, "{when}: {told:?}");
        assert_eq!(matches!(told, Reversed::NotPosted(_)), !is_done, "{when}: {told:?}");
        assert_eq!((world.balance_of("ada").await, reversals(&world).await), (balance, i64::from(is_done)));
        world.books_balance().await;
    }
}

/// The platform locks the balance while it takes a charge from it: the reversal waits, and then
/// sees the remaining credits. Killed while it waits, it leaves nothing.
#[tokio::test]
async fn p03_a_reversal_waits_for_the_platforms_own_charge_and_then_sees_the_remaining_credits() {
    let world = World::postgres().await;
    refunded(&world).await;
    let store = another(&world).await;
    let mut platform = connection(&world).await;
    for killed in [true, false] {
        on(&mut platform, &format!("BEGIN; {}", spent(5))).await;
        let before = world.all_rows().await;
        let reversing = reverse(&store, "c1/0");
        if killed {
            tokio::select! {
                told = reversing => panic!("it waits: {told:?}"),
                () = seen_waiting(&world, "lock_balances") => {}
            }
            on(&mut platform, "ROLLBACK").await;
            assert_eq!(world.all_rows().await, before);
            continue;
        }
        let (told, ()) = tokio::join!(reversing, async {
            seen_waiting(&world, "lock_balances").await;
            on(&mut platform, "COMMIT").await;
        });
        assert!(matches!(told, Reversed::NotCovered { bucket: Bucket::Wallet, balance: 2, .. }), "{told:?}");
    }
    assert_eq!((world.balance_of("ada").await, reversals(&world).await), ((3, 2), 0));
    world.books_balance().await;
}

/// The rights of passes are not enough.
#[tokio::test]
async fn p23_the_role_of_passes_takes_nothing_back() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    world.pass().await;
    let before = world.all_rows().await;
    let error = world.store.reverse_refund(&order("c1/0", true)).await.unwrap_err();
    assert!(makegood::report::chain(&error).contains("permission denied"), "{error:?}");
    assert_eq!(world.all_rows().await, before);
}
