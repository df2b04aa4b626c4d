//! Limits per account and day: in every interleaving they hold that account alone, and the alert
//! ends by itself.

use std::collections::BTreeMap;

use makegood::brake::{BrakeContext, BrakeLimits};
use makegood::policy::{Action, Decision, Reason};
use makegood::store::{Outcome, SettleRules};

use crate::late::{
    REFUND, WAIT_IN_LEDGER, another, claim, connection, detect, on, rules, seen_waiting, settlement,
};
use crate::world::{HOUR, MINUTE, World, on_both};

const HELD: Decision = Decision { action: Action::Hold, reason: Reason::Brake, rule: 16 };

/// Charges of one credit that the platform itself recorded as failed, and that were never
/// submitted.
async fn failed(world: &World, account: &str, many: u32) {
    for nth in 0..many {
        let id = format!("{account}-{nth:04}");
        let charge = world.charge(&id).account(account).age(20 * MINUTE).drawn(0, 1).items(&[1]);
        charge.failed().insert().await;
    }
}

async fn refunds_of(world: &World, account: &str) -> i64 {
    world.number(&format!("SELECT count(*) AS v FROM makegood_refunds WHERE account_id = '{account}'")).await
}

on_both! {
    /// Such an account once paid nothing and engaged the brake for all accounts.
    async fn p15_one_account_with_hundreds_of_failing_jobs_is_held_alone(world) {
        let mut world = world;
        for account in ["mallory", "ada", "grace"] {
            world.balance(account, 0, 0).await;
        }
        failed(&world, "mallory", 300).await;
        for account in ["ada", "grace"] {
            failed(&world, account, 2).await;
        }
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.total("hold")), (54, 250), "{:?}", report.outcomes);
        assert_eq!(refunds_of(&world, "mallory").await, 50);
        let standing = &report.unresolved;
        assert_eq!((&standing.brake, standing.held_by_brake), (&None, 0), "the brake of all is off");
        assert_eq!((standing.accounts_held, standing.held_for_accounts), (1, 250));
        // The pass that held it first reports it, also by its exit code.
        assert!(report.needs_a_person());
        let told: Vec<_> = report.findings.iter().filter(|each| each.kind == "brake").collect();
        assert_eq!(told.len(), 1, "{:?}", report.findings);
        assert_eq!(told[0].about, "account mallory");
        for words in ["max_refunds_per_day_per_account", "more than 50 refunds", "brake release --account mallory"] {
            assert!(told[0].detail.contains(words), "{told:?}");
        }
        let events = world.texts("SELECT DISTINCT detail AS v FROM makegood_orphan_events WHERE kind = 'hold'").await;
        assert!(events.len() == 1 && events[0].contains("account mallory") && events[0].contains("per_account"), "{events:?}");

        // It stays held, also past its window: no later pass needs a person for it, and no alert
        // fires.
        for _ in 0..3 {
            world.pass_time(13 * HOUR);
            let report = world.pass().await;
            assert!(!report.needs_a_person() && report.findings.is_empty(), "{}", report.to_text());
            assert_eq!((report.unresolved.past_window, report.unresolved.held_for_accounts), (0, 250));
        }
        let totals = makegood::ops::totals::totals(&world.store, world.now()).await.unwrap();
        assert_eq!((totals.accounts_held, totals.brake_engaged, totals.orphans_past_window), (1, false, 0));
        // It does not burden every pass: an hour later none of its orphans is due.
        world.pass_time(HOUR);
        assert_eq!(world.pass().await.claimed, 0);

        // A release of the common brake does not release the account. Its own release requeues its
        // orphans and restarts its count.
        assert_eq!(world.store.release_brake("ida", "no").await.unwrap(), None);
        assert_eq!(world.store.release_account("mallory", "ida", "looked into it").await.unwrap(), Some(250));
        assert_eq!(world.store.release_account("mallory", "ida", "twice").await.unwrap(), None);
        world.pass().await;
        assert_eq!(refunds_of(&world, "mallory").await, 100);
        let events = world.texts("SELECT kind || ' ' || by_whom || ' ' || account_id AS v FROM makegood_brake_events ORDER BY id").await;
        assert_eq!(events, ["engaged makegood mallory", "released ida mallory", "engaged makegood mallory"]);
        world.parts.rules.brake = BrakeLimits::default();
        world.store.release_account("mallory", "ida", "all of it").await.unwrap();
        world.pass().await;
        assert_eq!(refunds_of(&world, "mallory").await, 300);
        let left = world.number("SELECT count(*) AS v FROM makegood_orphans WHERE held_account IS NOT NULL").await;
        assert_eq!(left, 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_an_accounts_limits_count_a_day_and_its_credits_too(world) {
        let mut world = world;
        for (limits, key, given) in [
            (BrakeLimits { refunds_per_day_per_account: 2, ..BrakeLimits::default() }, "max_refunds_per_day_per_account", 2),
            (BrakeLimits { credits_per_day_per_account: 25, ..BrakeLimits::default() }, "max_credits_per_day_per_account", 2),
        ] {
            // A transaction each, so that what counts is read each time.
            (world.parts.rules.brake, world.parts.rules.batch) = (limits, 1);
            let account = format!("of-{key}");
            world.balance(&account, 0, 0).await;
            for nth in 0..4 {
                world.charge(&format!("{key}-{nth}")).account(&account).failed().insert().await;
            }
            world.pass().await;
            assert_eq!(refunds_of(&world, &account).await, given, "{key}");
            let held = world.store.held_accounts(9).await.unwrap();
            assert!(held[0].reason.contains(key) && held[0].refunds == Some(2), "{held:?}");
            // A day later it is still held; released, what was given a day ago does not count.
            world.pass_time(25 * HOUR);
            world.pass().await;
            assert_eq!(refunds_of(&world, &account).await, given, "{key}");
            world.store.release_account(&account, "ida", "next").await.unwrap();
            world.pass().await;
            assert_eq!(refunds_of(&world, &account).await, 2 * given, "{key}");
        }
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_where_the_brake_goes_off_by_itself_a_held_account_does_too(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_day_per_account: 2, ..BrakeLimits::default() };
        world.parts.rules.release_when_gone = true;
        world.balance("mallory", 0, 0).await;
        failed(&world, "mallory", 5).await;
        for _ in 0..23 {
            world.pass().await;
            world.pass_time(HOUR);
        }
        assert_eq!(refunds_of(&world, "mallory").await, 2, "still within a day");
        world.pass_time(2 * HOUR);
        world.pass().await;
        assert_eq!(refunds_of(&world, "mallory").await, 4);
        world.books_balance().await;
    }
}

on_both! {
    /// A person may refund one item over it (P23), and that counts.
    async fn p15_p23_a_refund_over_a_held_account_counts_for_it(world) {
        world.balance("mallory", 0, 0).await;
        failed(&world, "mallory", 4).await;
        detect(&world).await;
        let mut cases = claim(&world).await;
        let limits = BrakeLimits { refunds_per_day_per_account: 2, ..BrakeLimits::default() };
        let of = |overruled| SettleRules { brake: BrakeContext { limits, overruled, ..BrakeContext::default() }, ..rules(&world) };
        let one = settlement(&world, cases.remove(0), REFUND);
        assert_eq!(world.store.settle(&[one], &of(true)).await.unwrap(), [Outcome::Settled(REFUND)]);
        let rest: Vec<_> = cases.into_iter().map(|case| settlement(&world, case, REFUND)).collect();
        let told = world.store.settle(&rest, &of(false)).await.unwrap();
        assert_eq!(told, [Outcome::Settled(REFUND), Outcome::Settled(HELD), Outcome::Settled(HELD)]);
        world.books_balance().await;
    }
}

on_both! {
    /// Three refunds of as much as a number can hold went out in one pass, and the sums stopped at
    /// the end of the range.
    async fn p15_a_price_in_a_wrong_unit_is_held_by_the_default_limits(world) {
        for account in ["a", "b", "c", "ordinary"] {
            world.balance(account, 0, 0).await;
        }
        for nth in 0..10 {
            world.charge(&format!("ordinary-{nth}")).account("ordinary").age(30 * MINUTE).failed().insert().await;
        }
        for account in ["a", "b", "c"] {
            let id = format!("wrong-{account}");
            let charge = world.charge(&id).account(account).age(20 * MINUTE);
            charge.drawn(0, i64::MAX).items(&[i64::MAX]).failed().insert().await;
        }
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.total("hold")), (10, 3), "{:?}", report.outcomes);
        assert_eq!(report.unresolved.accounts_held, 3);
        let held = world.store.held_accounts(9).await.unwrap();
        assert!(held.iter().all(|each| each.reason.contains("max_credit_share_per_day_per_account")), "{held:?}");
        assert_eq!(report.unresolved.brake, None);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_more_credits_than_a_number_can_hold_are_held_whatever_a_charge_costs(world) {
        let accounts = ["a", "b", "c"];
        for account in accounts {
            world.balance(account, 0, 0).await;
            // Everything that the platform sells costs the same: only the sum is unusual.
            let id = format!("dear-{account}");
            let charge = world.charge(&id).account(account).age(20 * MINUTE);
            charge.drawn(0, i64::MAX).items(&[i64::MAX]).failed().insert().await;
        }
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.total("hold")), (1, 2), "{:?}", report.outcomes);
        let why = report.unresolved.brake.clone().unwrap();
        assert!(why.starts_with(&format!("{} credits in a day", 2 * i128::from(i64::MAX))), "{why}");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_credits_of_all_accounts_are_held_beyond_half_of_the_price_of_the_days_charges(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { credit_share_per_day: 50, ..BrakeLimits::default() };
        world.parts.rules.batch = 1;
        // 260 charges of 2 credits and three of 100 that fail: 300 of 820 credits, or 97 of 263
        // average charges.
        for account in ["a", "b", "c", "d"] {
            world.balance(account, 0, 0).await;
        }
        for nth in 0..260 {
            let id = format!("small-{nth:03}");
            let charge = world.charge(&id).account("d").drawn(0, 2).items(&[2]);
            charge.age(2 * MINUTE).insert().await;
        }
        for account in ["a", "b", "c"] {
            let id = format!("large-{account}");
            let charge = world.charge(&id).account(account).age(20 * MINUTE);
            charge.drawn(0, 100).items(&[100]).failed().insert().await;
        }
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.total("hold")), (3, 0), "{:?}", report.outcomes);
        // From here on the day's charges are counted: 129 of 264 is within the half, 161 of 265 is
        // not.
        for (id, told) in [("large-d", (1, 0)), ("large-e", (0, 1))] {
            let charge = world.charge(id).account("d").age(20 * MINUTE);
            charge.drawn(0, 100).items(&[100]).failed().insert().await;
            let report = world.pass().await;
            assert_eq!((report.total("refund"), report.total("hold")), told, "{id}: {:?}", report.outcomes);
        }
        let why = world.store.brake().await.unwrap().reason.unwrap();
        assert!(why.contains("max_credit_share_per_day") && why.contains("500 credits in a day"), "{why}");
        // Its condition stands, so that it does not go off by itself.
        let watch = BrakeContext { limits: world.parts.rules.brake, ..BrakeContext::default() };
        assert_eq!(world.store.release_brake_when_gone(&watch).await.unwrap(), None);
    }
}

/// Two settles of one account. The second has decided nothing yet when the first is about to
/// commit.
#[tokio::test]
async fn p15_two_processes_refund_one_account_exactly_up_to_its_limit() {
    let world = World::postgres().await;
    world.balance("mallory", 0, 0).await;
    failed(&world, "mallory", 6).await;
    detect(&world).await;
    let mut cases = claim(&world).await;
    world.run(WAIT_IN_LEDGER).await;
    let mut holder = connection(&world).await;
    on(&mut holder, "SELECT pg_advisory_lock(4711)").await;
    let limits = BrakeLimits { refunds_per_day_per_account: 4, ..BrakeLimits::default() };
    let rules = SettleRules { brake: BrakeContext { limits, ..BrakeContext::default() }, ..rules(&world) };
    let (a, b) = (another(&world).await, another(&world).await);
    let batch = |cases: Vec<_>| -> Vec<_> {
        cases.into_iter().map(|case| settlement(&world, case, REFUND)).collect()
    };
    let (first, second) = (batch(cases.split_off(3)), batch(cases));
    let (first, second, ()) = tokio::join!(
        a.settle(&first, &rules),
        async {
            seen_waiting(&world, "post_refunds").await;
            b.settle(&second, &rules).await
        },
        async {
            seen_waiting(&world, "lock_accounts").await;
            on(&mut holder, "SELECT pg_advisory_unlock(4711)").await;
        }
    );
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in [first.unwrap(), second.unwrap()].iter().flatten() {
        let which = if *outcome == Outcome::Settled(REFUND) { "refunded" } else { "held" };
        assert!(which == "refunded" || *outcome == Outcome::Settled(HELD), "{outcome:?}");
        *told.entry(which).or_default() += 1;
    }
    assert_eq!(told, BTreeMap::from([("refunded", 4), ("held", 2)]));
    assert_eq!(refunds_of(&world, "mallory").await, 4);
    world.run("DROP TRIGGER wait_here ON ledger_entries").await;
    world.books_balance().await;
}
