//! The sums per provider and minute that are compared with the limits.

use makegood::brake::BrakeLimits;
use makegood::policy::{Action, Decision, Reason};
use makegood::store::{Outcome, SettleRules};

use crate::late::{REFUND, claim, connection, detect, on, rules, settlement};
use crate::world::{HOUR, MINUTE, World, on_both};

const DAY: u32 = 24;

async fn charges(world: &World, ids: &[&str]) {
    super::failing(world, "replicate", ids).await;
}

/// Every row that counts something: provider, refunds, credits, own faults.
async fn sums(world: &World) -> Vec<String> {
    world
        .texts(
            "SELECT provider || ' ' || refunds || ' ' || credits || ' ' || own_faults AS v
             FROM makegood_refund_sums WHERE refunds + own_faults > 0 ORDER BY provider, began_at",
        )
        .await
}

/// Settles a refund for each of what is due, in one transaction.
async fn refund_all(world: &World, rules: &SettleRules) -> Vec<Outcome> {
    detect(world).await;
    let batch: Vec<_> = claim(world).await.into_iter().map(|case| settlement(world, case, REFUND)).collect();
    world.store.settle(&batch, rules).await.unwrap()
}

fn refunds(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|each| **each == Outcome::Settled(REFUND)).count()
}

on_both! {
    async fn p15_a_refund_counts_for_its_minute_and_its_provider_only(world) {
        world.balance("ada", 0, 0).await;
        super::failing(&world, "fal", &["a"]).await;
        charges(&world, &["b", "c"]).await;
        world.pass().await;
        world.pass_time(MINUTE);
        charges(&world, &["d"]).await;
        world.pass().await;
        assert_eq!(sums(&world).await, ["fal 1 10 0", "replicate 2 20 0", "replicate 1 10 0"]);
        // Two days later the row of that minute is written over: the table does not grow.
        world.pass_time(2 * DAY * HOUR);
        charges(&world, &["e"]).await;
        world.pass().await;
        assert_eq!(sums(&world).await, ["fal 1 10 0", "replicate 2 20 0", "replicate 1 10 0"]);
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refund_sums").await, 3);
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_a_refund_while_the_clock_was_ahead_counts_once_it_is_right_again(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        let right = world.now();
        // Two days ahead to the minute, so that both fall on one row.
        world.pass_time(2 * DAY * HOUR);
        charges(&world, &["a", "b"]).await;
        world.pass().await;
        world.clock.set(right);
        world.parts.rules.brake = BrakeLimits { refunds_per_hour: 3, ..BrakeLimits::default() };
        charges(&world, &["c", "d"]).await;
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.total("hold")), (1, 1), "{report:?}");
        assert_eq!(sums(&world).await, ["replicate 3 30 0"]);
        // A person's release starts the counts afresh, also of what is dated ahead.
        world.store.release_brake("grace", "the clock was wrong").await.unwrap();
        assert_eq!(sums(&world).await, Vec::<String>::new());
        world.pass_time(MINUTE);
        assert_eq!(world.pass().await.total("refund"), 1);
        let ahead = format!("SELECT count(*) AS v FROM makegood_refund_sums WHERE began_at > {}", world.at(world.now()));
        assert_eq!(world.number(&ahead).await, 0, "nor does it make later refunds count for longer");
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_the_limit_of_a_pass_counts_nothing_that_the_same_minute_held_before_it(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_pass: 2, credits_per_pass: 20, ..BrakeLimits::default() };
        world.balance("ada", 0, 0).await;
        for ids in [["a", "b"], ["c", "d"], ["e", "f"]] {
            charges(&world, &ids).await;
            let report = world.pass().await;
            assert_eq!(report.total("refund"), 2, "{ids:?}: {report:?}");
        }
        charges(&world, &["g", "h", "i"]).await;
        let report = world.pass().await;
        assert_eq!((report.total("refund"), report.total("hold")), (2, 1), "{report:?}");
        assert_eq!(sums(&world).await, ["replicate 8 80 0"], "all in one minute");
        world.books_balance().await;
    }
}

on_both! {
    /// The release sets the sums to zero. The refunds of the pass's first minute must not be
    /// subtracted a second time.
    async fn p15_a_release_in_the_middle_of_a_pass_admits_no_more_than_the_limit(world) {
        world.balance("ada", 0, 0).await;
        charges(&world, &["before"]).await;
        assert_eq!(refunds(&refund_all(&world, &rules(&world)).await), 1);
        let limits = BrakeLimits { refunds_per_pass: 2, ..BrakeLimits::default() };
        let watch = world.store.watch(limits, world.now()).await.unwrap();
        let rules = SettleRules { brake: watch, ..rules(&world) };
        charges(&world, &["a", "b", "c"]).await;
        assert_eq!(refunds(&refund_all(&world, &rules).await), 2);
        assert_eq!(world.store.release_brake("grace", "looked into it").await.unwrap(), Some(1));
        charges(&world, &["d", "e"]).await;
        // The one that was held, and two more; a transaction each, so that what counts is looked
        // up.
        detect(&world).await;
        let mut given = 0;
        for case in claim(&world).await {
            let outcomes = world.store.settle(&[settlement(&world, case, REFUND)], &rules).await.unwrap();
            given += refunds(&outcomes);
        }
        assert_eq!(given, 2);
        assert!(world.store.brake().await.unwrap().engaged_at.is_some());
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_sums_at_the_end_of_the_range_break_nothing_and_admit_nothing_more(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        let minute = world.at(world.now());
        let slot = makegood::brake::slot_of(world.now());
        for provider in ["fal", "replicate"] {
            world.run(&format!("INSERT INTO makegood_refund_sums VALUES ('{provider}', {slot}, {minute}, 1, {}, 0)", i64::MAX - 5)).await;
        }
        // Without any limit it is added to, up to the end.
        world.parts.rules.brake = BrakeLimits::default();
        charges(&world, &["a"]).await;
        assert_eq!(world.pass().await.total("refund"), 1);
        let last = "SELECT credits AS v FROM makegood_refund_sums WHERE provider = 'replicate'";
        assert_eq!(world.texts(last).await, [i64::MAX.to_string()]);
        for limit in [u64::MAX, i64::MAX.unsigned_abs(), 1] {
            world.parts.rules.brake = BrakeLimits { credits_per_hour: limit, ..BrakeLimits::default() };
            let id = format!("of-{limit}");
            charges(&world, &[&id]).await;
            let report = world.pass().await;
            assert_eq!((report.total("refund"), report.total("hold")), (0, 1), "{limit}: {report:?}");
            // Not by a person's release: that would set the sums to zero.
            world.run("UPDATE makegood_brake SET engaged_at = NULL, reason = NULL").await;
        }
        world.books_balance().await;
    }
}

on_both! {
    /// Refunds by a person over the brake (P23) are not held, and count for those that come after.
    async fn p15_p23_a_refund_that_a_person_admits_counts(world) {
        world.balance("ada", 0, 0).await;
        charges(&world, &["a"]).await;
        let mut by_hand = rules(&world);
        by_hand.brake.overruled = true;
        world.run(&format!("UPDATE makegood_brake SET engaged_at = {}, reason = 'by the test'", world.at(world.now()))).await;
        assert_eq!(refunds(&refund_all(&world, &by_hand).await), 1);
        assert_eq!(sums(&world).await, ["replicate 1 10 0"]);
        charges(&world, &["b"]).await;
        let held = Decision { action: Action::Hold, reason: Reason::Brake, rule: 16 };
        assert_eq!(refund_all(&world, &rules(&world)).await, [Outcome::Settled(held)]);
        world.books_balance().await;
    }
}

/// A pass of the previous version may still run after `makegood migrate`, and adds nothing to the
/// sums.
#[tokio::test]
async fn p15_refunds_of_an_older_version_count_too() {
    let mut world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    let mut older = connection(&world).await;
    let at = world.at(world.now());
    for (id, reason, verdict) in [
        ("x", "provider_error", "failed"),
        ("y", "unconfirmed", "unauthorized"),
        ("z", "recovery_failed", "succeeded"),
    ] {
        on(&mut older, &format!(
            "INSERT INTO makegood_charges VALUES ('{id}', 'ada', 0, 10, 0, 10);
             WITH a AS (INSERT INTO makegood_answers (provider, provider_job_id, asked_at, verdict, offered)
                        VALUES ('replicate', '{id}', {at}, '{verdict}', 0) RETURNING id)
             INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at, decided_by, answer_id)
             SELECT '{id}', 0, 'refund', '{reason}', 6, {at}, 'makegood', id FROM a;
             INSERT INTO makegood_refunds SELECT 'r-{id}', id, '{id}', 0, 'ada', 'replicate', 'm', 0, 10, '{reason}', {at}
             FROM makegood_resolutions WHERE charge_id = '{id}';"
        )).await;
    }
    assert_eq!(sums(&world).await, ["replicate 3 30 2"]);
    world.parts.rules.brake = BrakeLimits { refunds_per_hour: 4, ..BrakeLimits::default() };
    charges(&world, &["a", "b"]).await;
    let report = world.pass().await;
    assert_eq!((report.total("refund"), report.total("hold")), (1, 1), "{report:?}");
    assert_eq!(sums(&world).await, ["replicate 4 40 2"], "its own are added once");
}
