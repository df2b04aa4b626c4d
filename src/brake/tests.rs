//! Tests of what the brake admits and what it holds.

use super::sums::MINUTE_MICROS;
use super::*;
use crate::evidence::FailureClass;

fn on() -> BrakeHolds {
    BrakeHolds { all: Some("why".to_owned()), ..BrakeHolds::default() }
}

fn brake(limits: BrakeLimits) -> Brake {
    Brake::new(limits, BrakeHolds::default(), RefundCounts::default())
}

#[test]
fn p15_refunds_up_to_the_limit_are_admitted_and_one_more_is_held() {
    let mut brake = brake(BrakeLimits { refunds_per_hour: 3, ..BrakeLimits::default() });
    assert_eq!([(); 5].map(|()| brake.admit("acme", 10, false)), [true, true, true, false, false]);
    assert_eq!(
        brake.held.all.as_deref(),
        Some("more than 3 refunds in an hour ([brake] max_refunds_per_hour)")
    );
}

#[test]
fn every_limit_engages_the_brake_alone() {
    let cases = [
        (BrakeLimits { refunds_per_pass: 1, ..BrakeLimits::default() }, "max_refunds_per_pass"),
        (BrakeLimits { credits_per_pass: 19, ..BrakeLimits::default() }, "max_credits_per_pass"),
        (BrakeLimits { refunds_per_day: 1, ..BrakeLimits::default() }, "max_refunds_per_day"),
        (BrakeLimits { credits_per_hour: 19, ..BrakeLimits::default() }, "max_credits_per_hour"),
        (BrakeLimits { credits_per_day: 19, ..BrakeLimits::default() }, "max_credits_per_day"),
        (
            BrakeLimits { refunds_per_pass_per_provider: 1, ..BrakeLimits::default() },
            "max_refunds_per_pass_per_provider",
        ),
        (
            BrakeLimits { refunds_per_hour_per_provider: 1, ..BrakeLimits::default() },
            "max_refunds_per_hour_per_provider",
        ),
        (
            BrakeLimits { refunds_per_day_per_provider: 1, ..BrakeLimits::default() },
            "max_refunds_per_day_per_provider",
        ),
    ];
    for (limits, key) in cases {
        let mut brake = brake(limits);
        assert!(brake.admit("acme", 10, false), "{key}");
        assert!(!brake.admit("acme", 10, false), "{key}");
        assert!(
            brake.held.all.as_deref().is_some_and(|why| why.contains(key)),
            "{key}: {:?}",
            brake.held.all
        );
        assert!(!brake.condition_is_gone(), "{key}");
    }
}

#[test]
fn the_share_of_charges_is_checked_above_a_hundred_refunds() {
    let limits = BrakeLimits { share_per_day: 50, ..BrakeLimits::default() };
    let with = |charges| {
        Brake::new(limits, BrakeHolds::default(), RefundCounts { charges, ..RefundCounts::default() })
    };
    let mut few = with(0);
    assert!(
        (0..SHARE_FROM).all(|_| few.admit("acme", 1, false)),
        "a hundred refunds are too few to judge by a share"
    );
    assert!(!few.admit("acme", 1, false));
    assert!(few.held.all.unwrap().contains("50 percent of the day's charges: 101 refunds of 0"));
    let mut half = with(300);
    assert_eq!((0..400).filter(|_| half.admit("acme", 1, false)).count(), 150, "half of 300");
    let no_limit = BrakeLimits::default();
    let counted = RefundCounts { charges: 300, ..RefundCounts::default() };
    let mut unlimited = Brake::new(no_limit, BrakeHolds::default(), counted);
    assert!((0..400).all(|_| unlimited.admit("acme", 1, false)), "0 percent is no limit");
}

#[test]
fn own_faults_are_held_alone() {
    let mut brake = brake(BrakeLimits { own_faults_per_day: 2, ..BrakeLimits::default() });
    assert_eq!([(); 4].map(|()| brake.admit("acme", 1, true)), [true, true, false, false]);
    let why = brake.held.own_faults.clone().unwrap();
    assert!(why.starts_with("more than 2 refunds in a day") && why.contains("max_own_fault_refunds_per_day"));
    assert!(brake.admit("acme", 1, false) && brake.held.all.is_none());
}

#[test]
fn own_faults_stay_held_until_they_are_released() {
    let limits = BrakeLimits { own_faults_per_day: 2, ..BrakeLimits::default() };
    let held = BrakeHolds { own_faults: Some("why".to_owned()), ..BrakeHolds::default() };
    let mut brake = Brake::new(limits, held, RefundCounts::default());
    assert!(!brake.admit("acme", 1, true));
    assert!(brake.admit("acme", 1, false));
}

#[test]
fn only_new_holds_have_to_be_stored() {
    let limits = BrakeLimits { own_faults_per_day: 1, refunds_per_hour: 1, ..BrakeLimits::default() };
    let mut brake = Brake::new(limits, BrakeHolds::default(), RefundCounts::default());
    assert!(brake.admit("acme", 1, true));
    assert_eq!(brake.newly_held(), BrakeHolds::default());
    assert!(!brake.admit("acme", 1, true) && !brake.admit("acme", 1, false));
    let pulled = brake.newly_held();
    assert!(pulled.all.is_some() && pulled.own_faults.is_some());
    assert_eq!(Brake::new(limits, pulled, RefundCounts::default()).newly_held(), BrakeHolds::default());
}

#[test]
fn the_cause_of_own_faults_is_gone_at_half_of_their_limit() {
    let with = |own_faults, own_faults_per_day| {
        let limits = BrakeLimits { own_faults_per_day, ..BrakeLimits::default() };
        Brake::new(limits, on(), RefundCounts { own_faults, ..RefundCounts::default() }).own_faults_are_gone()
    };
    assert_eq!([0, 2, 3, 4].map(|own_faults| with(own_faults, 4)), [true, true, false, false]);
    assert!(with(1_000, 0), "no limit");
}

#[test]
fn own_faults_are_told_from_faults_of_the_provider() {
    let now = Timestamp::from_micros(0);
    for (doubt, ours) in [
        (Doubt::Unauthorized, true),
        (Doubt::UnknownProvider, true),
        (Doubt::Unreadable, true),
        (Doubt::Unreachable, false),
        (Doubt::RateLimited, false),
    ] {
        let evidence = Evidence::could_not_tell(doubt, "", now);
        assert_eq!(is_own_fault(Reason::Unconfirmed, Some(&evidence)), ours, "{doubt:?}");
        assert!(is_own_fault(Reason::RecoveryFailed, Some(&evidence)), "offered before, and not recovered");
        assert!(!is_own_fault(Reason::ReportedFailed, Some(&evidence)), "the platform recorded the failure");
    }
    let mut failed = Evidence::could_not_tell(Doubt::Unreadable, "", now);
    (failed.verdict, failed.class) = (Verdict::Failed, Some(FailureClass::ServerError));
    assert!(!is_own_fault(Reason::Unconfirmed, Some(&failed)));
    assert!(is_own_fault(Reason::Unconfirmed, None), "every pass died before it recorded an answer");
    assert!(!is_own_fault(Reason::ServerError, Some(&failed)));
}

#[test]
fn the_cause_is_gone_when_every_sum_is_at_most_half_of_its_limit() {
    let limits =
        BrakeLimits { refunds_per_hour: 8, refunds_per_hour_per_provider: 4, ..BrakeLimits::default() };
    let with = |hour_refunds| {
        let sums = Sums { hour_refunds, ..Sums::default() };
        let per_provider = BTreeMap::from([("acme".to_owned(), sums)]);
        Brake::new(limits, on(), RefundCounts { per_provider, ..RefundCounts::default() })
    };
    assert!(with(0).condition_is_gone() && with(2).condition_is_gone());
    assert!(!with(3).condition_is_gone(), "acme is still above half of its own limit");
    assert!(!with(5).condition_is_gone());
}

#[test]
fn each_provider_is_counted_for_itself() {
    let mut brake = brake(BrakeLimits { refunds_per_hour_per_provider: 1, ..BrakeLimits::default() });
    assert!(brake.admit("acme", 1, false) && brake.admit("other", 1, false));
    assert!(!brake.admit("other", 1, false));
    assert!(brake.held.all.unwrap().contains("1 refunds in an hour for other"));
}

#[test]
fn charges_are_counted_only_if_their_number_decides() {
    let limits = BrakeLimits { share_per_day: 30, ..BrakeLimits::default() };
    assert_eq!(
        [0, 100, 101, 150].map(|refunds| limits.charges_needed(refunds)),
        [None, None, Some(337), Some(500)]
    );
    assert_eq!(BrakeLimits::default().charges_needed(1_000_000), None);
    assert_eq!(limits.charges_needed(u128::MAX), Some(u64::MAX));
    // With one charge fewer than needed, the same refunds exceed the share.
    let with = |charges| {
        let sums = Sums { day_refunds: 149, ..Sums::default() };
        let per_provider = BTreeMap::from([("acme".to_owned(), sums)]);
        Brake::new(
            limits,
            BrakeHolds::default(),
            RefundCounts { per_provider, charges, ..RefundCounts::default() },
        )
    };
    assert!(with(500).admit("acme", 1, false) && !with(499).admit("acme", 1, false));
}

#[test]
fn p15_spans_are_rounded_down_to_the_minute_and_a_clock_that_was_set_back_counts_an_hour() {
    let now = Timestamp::from_micros(100 * 3_600_000_000 + 59_999_999);
    assert_eq!(Brake::since(now, HOUR), Timestamp::from_micros(99 * 3_600_000_000));
    assert_eq!(Brake::since(now, Duration::ZERO), Timestamp::from_micros(100 * 3_600_000_000));
    let ahead = now + 5 * HOUR;
    assert_eq!(Brake::span_of_pass(now, now - 2 * HOUR), 2 * HOUR);
    assert_eq!(Brake::span_of_pass(now, now), Duration::ZERO);
    assert_eq!(Brake::span_of_pass(now, ahead), HOUR, "the pass began while the clock was ahead");
}

#[test]
fn each_minute_of_two_days_has_its_own_slot() {
    let minute = |nth: i64| Timestamp::from_micros(nth * MINUTE_MICROS);
    assert_eq!([0, 1, 2879, 2880, -1].map(|nth| slot_of(minute(nth))), [0, 1, 2879, 0, 2879]);
    assert_eq!(slot_of(Timestamp::from_micros(MINUTE_MICROS - 1)), 0);
    assert_eq!(minute_of(Timestamp::from_micros(-1)), minute(-1));
    assert_eq!(minute_of(minute(7) + Duration::from_secs(59)), minute(7));
}

#[test]
fn p15_the_baseline_of_a_pass_counts_until_the_brake_is_released() {
    let began = Timestamp::from_micros(10 * 3_600_000_000);
    let before = Some(began - HOUR);
    let watch = |released_at| BrakeContext {
        pass_began: Some(began),
        baseline: Arc::new(Baseline {
            released_at,
            per_provider: BTreeMap::from([("acme".to_owned(), (3, 30))]),
        }),
        ..BrakeContext::default()
    };
    let now = began + HOUR;
    assert_eq!(watch(None).baseline_of("acme", now, None), (3, 30));
    assert_eq!(watch(None).baseline_of("other", now, None), (0, 0));
    assert_eq!(watch(before).baseline_of("acme", now, before), (3, 30));
    assert_eq!(
        watch(before).baseline_of("acme", now, Some(began + HOUR)),
        (0, 0),
        "released after the pass began"
    );
    assert_eq!(
        watch(Some(began)).baseline_of("acme", now, Some(began)),
        (0, 0),
        "released when the pass began"
    );
    assert_eq!(watch(None).baseline_of("acme", began - HOUR, None), (0, 0), "the clock was set back");
    assert_eq!(BrakeContext::default().baseline_of("acme", now, None), (0, 0));
}

#[test]
fn p15_the_locked_brake_confirms_only_the_same_decisions() {
    let limits = BrakeLimits { refunds_per_hour: 3, ..BrakeLimits::default() };
    let with = |hour_refunds, held: Option<&str>| {
        let per_provider = BTreeMap::from([("acme".to_owned(), Sums { hour_refunds, ..Sums::default() })]);
        let held = BrakeHolds { all: held.map(str::to_owned), ..BrakeHolds::default() };
        Brake::new(limits, held, RefundCounts { per_provider, ..RefundCounts::default() })
    };
    let mut two = with(0, None);
    assert!(two.admit("acme", 5, false) && two.admit("acme", 5, true));
    assert!(
        two.confirmed_by(with(1, None)).is_some(),
        "another process refunded once: still within the limit"
    );
    assert!(two.confirmed_by(with(2, None)).is_none(), "another process refunded twice: four in all");
    assert!(two.confirmed_by(with(0, Some("engaged"))).is_none());
    assert!(two.confirmed_by(Brake::overruled()).is_some());
    let released = with(0, None).released(Some(Timestamp::from_micros(1)));
    assert!(two.confirmed_by(released).is_none(), "released meanwhile");
    assert_eq!(two.added()["acme"], AddedSums { refunds: 2, credits: 10, own_faults: 1 });

    // Held by a brake that was released meanwhile. Otherwise it would be engaged again without
    // cause.
    let mut held = with(3, None);
    assert!(!held.admit("acme", 5, false));
    assert!(held.confirmed_by(with(0, None)).is_none());
    let confirmed = held.confirmed_by(with(3, None)).unwrap();
    assert!(confirmed.newly_held().all.is_some() && confirmed.added().is_empty());
    // Another process has engaged it for the same limit: nothing has to be stored.
    assert_eq!(held.confirmed_by(with(3, Some("engaged"))).unwrap().newly_held(), BrakeHolds::default());
}

#[test]
fn p15_sums_at_the_end_of_the_range_count_as_a_limit_reached() {
    let one_at = |day_credits, credits_per_day| {
        let limits = BrakeLimits { credits_per_day, ..BrakeLimits::default() };
        let sums = Sums { day_credits, ..Sums::default() };
        let per_provider = BTreeMap::from([("acme".to_owned(), sums), ("other".to_owned(), sums)]);
        Brake::new(limits, BrakeHolds::default(), RefundCounts { per_provider, ..RefundCounts::default() })
            .admit("acme", 1, false)
    };
    assert!(!one_at(u128::from(MAX_SUM), MAX_SUM) && !one_at(u128::from(MAX_SUM), u64::MAX));
    assert!(!one_at(u128::MAX, u64::MAX), "beyond the range");
    assert!(one_at(1, 3) && !one_at(1, 2));
}

#[test]
fn the_days_credits_and_refunds_are_those_of_all_providers() {
    let sums = |day_refunds, day_credits| Sums { day_refunds, day_credits, ..Sums::default() };
    let per_provider = BTreeMap::from([("acme".to_owned(), sums(2, 30)), ("other".to_owned(), sums(3, 400))]);
    let counted = RefundCounts { per_provider, ..RefundCounts::default() };
    assert_eq!((counted.day_refunds(), counted.day_credits()), (5, 430));
    assert_eq!((RefundCounts::default().day_refunds(), RefundCounts::default().day_credits()), (0, 0));
}

#[test]
fn without_limits_everything_is_admitted() {
    let mut brake = brake(BrakeLimits::default());
    assert!((0..10_000).all(|_| brake.admit("acme", 1_000_000, false)));
}

fn with_account(limits: BrakeLimits, standing: AccountStanding, charges: u64, price: Option<Price>) -> Brake {
    let mut brake =
        Brake::new(limits, BrakeHolds::default(), RefundCounts { price, ..RefundCounts::default() });
    brake.set_accounts(Accounts::new(BTreeMap::from([("mallory".to_owned(), standing)])), charges);
    brake
}

#[test]
fn p15_a_refund_held_for_its_account_counts_towards_no_other_limit() {
    let limits = BrakeLimits {
        refunds_per_hour: 3,
        own_faults_per_day: 3,
        refunds_per_day_per_account: 2,
        ..BrakeLimits::default()
    };
    let mut brake = with_account(limits, AccountStanding::default(), 0, None);
    let judged = [(); 9].map(|()| brake.judge("mallory", "acme", 1, true).is_ok());
    assert_eq!(judged.iter().filter(|admitted| **admitted).count(), 2);
    assert_eq!((brake.held.all.as_ref(), brake.held.own_faults.as_ref()), (None, None));
    assert_eq!(brake.accounts().newly_held().keys().collect::<Vec<_>>(), ["mallory"]);
    assert!(brake.judge("ada", "acme", 1, true).is_ok(), "the third refund of all accounts");
    let refused = brake.judge("ada", "acme", 1, false).unwrap_err();
    assert!(refused.account.is_none() && refused.why.contains("max_refunds_per_hour"), "{refused:?}");
    // The decisions by account need no second reading; the others are the same.
    let confirmed =
        brake.confirmed_by(Brake::new(limits, BrakeHolds::default(), RefundCounts::default())).unwrap();
    assert_eq!(confirmed.added()["acme"].refunds, 3);
}

#[test]
fn p15_each_limit_per_account_holds_the_account_and_it_stays_held() {
    let price = Price::new(10, 100);
    let standing = |refunds, credits| AccountStanding { held: None, refunds, credits };
    let per_day = BrakeLimits { refunds_per_day_per_account: 5, ..BrakeLimits::default() };
    let credits = BrakeLimits { credits_per_day_per_account: 100, ..BrakeLimits::default() };
    let share = BrakeLimits { credit_share_per_day_per_account: 10, ..BrakeLimits::default() };
    for (limits, before, charges, admitted) in [
        (per_day, standing(4, 0), 0, true),
        (per_day, standing(5, 0), 0, false),
        (credits, standing(0, 90), 0, true),
        (credits, standing(0, 91), 0, false),
        // 50 average charges of 10 credits are too few to judge; 51 are 10 percent of 510.
        (share, standing(0, 490), 0, true),
        (share, standing(0, 491), 509, false),
        (share, standing(0, 491), 510, true),
        (share, standing(0, u128::MAX / 4), u64::MAX - 1, false),
        (BrakeLimits::default(), standing(1 << 40, u128::MAX / 4), 0, true),
    ] {
        let mut brake = with_account(limits, before.clone(), charges, price);
        let judged = brake.judge("mallory", "acme", 10, false);
        assert_eq!(judged.is_ok(), admitted, "{limits:?} {before:?} {charges}: {judged:?}");
        if let Err(refused) = judged {
            assert_eq!(refused.account.as_deref(), Some("mallory"));
            assert!(
                refused.why.contains("account mallory") && refused.why.contains("_account"),
                "{refused:?}"
            );
        }
    }
    let held = AccountStanding { held: Some("why".to_owned()), ..AccountStanding::default() };
    let mut brake = with_account(BrakeLimits::default(), held, 0, None);
    assert_eq!(brake.judge("mallory", "acme", 1, false).unwrap_err().why, "why");
    assert!(brake.accounts().newly_held().is_empty() && !brake.was_asked());
}

#[test]
fn p15_a_refund_that_the_brake_holds_does_not_hold_the_account() {
    let limits = BrakeLimits { refunds_per_day_per_account: 1, ..BrakeLimits::default() };
    let mut brake = Brake::new(limits, on(), RefundCounts::default());
    brake.set_accounts(Accounts::new(BTreeMap::from([("ada".to_owned(), AccountStanding::default())])), 0);
    for _ in 0..3 {
        assert_eq!(brake.judge("ada", "acme", 1, false).unwrap_err().account, None);
    }
    assert!(brake.accounts().newly_held().is_empty());
}

#[test]
fn p15_a_hold_of_one_provider_holds_no_other() {
    let held = BrakeHolds {
        providers: [("acme".to_owned(), "ida: outage".to_owned())].into(),
        ..BrakeHolds::default()
    };
    let mut brake = Brake::new(BrakeLimits::default(), held, RefundCounts::default());
    assert_eq!(brake.judge("ada", "acme", 1, false).unwrap_err().why, "ida: outage");
    assert!(brake.judge("ada", "other", 1, false).is_ok());
    assert!(
        brake
            .confirmed_by(Brake::new(BrakeLimits::default(), BrakeHolds::default(), RefundCounts::default()))
            .is_none()
    );
}

#[test]
fn p15_credits_are_measured_in_average_charges() {
    assert_eq!((Price::new(0, 0), Price::new(3, 0)), (None, None));
    let price = Price::new(4, 10).unwrap();
    assert_eq!([0, 1, 5, 6].map(|credits| price.worth(credits)), [0, 1, 2, 3]);
    assert_eq!(price.worth(u128::MAX), u128::MAX);
    let limits = BrakeLimits { credit_share_per_day: 50, ..BrakeLimits::default() };
    let with = |day_credits, charges| {
        let per_provider = BTreeMap::from([("acme".to_owned(), Sums { day_credits, ..Sums::default() })]);
        let counted =
            RefundCounts { per_provider, charges, price: Price::new(1, 10), ..RefundCounts::default() };
        Brake::new(limits, BrakeHolds::default(), counted).admit("acme", 10, false)
    };
    assert!(with(990, 0), "worth 100 charges");
    assert!(!with(991, 201) && with(991, 202), "101 of 202");
    assert!(!with(u128::from(u64::MAX), 1_000_000));
    // Without a price no share is checked. A day's sum that no column can store is held all the
    // same.
    let per_provider =
        BTreeMap::from([("acme".to_owned(), Sums { day_credits: u128::from(MAX_SUM), ..Sums::default() })]);
    let mut brake =
        Brake::new(limits, BrakeHolds::default(), RefundCounts { per_provider, ..RefundCounts::default() });
    assert!(brake.admit("acme", 0, false) && !brake.admit("acme", 1, false));
}

#[test]
fn accounts_and_prices_are_read_only_if_a_limit_needs_them() {
    let none = BrakeLimits::default();
    for (limits, accounts, price) in [
        (none, false, false),
        (BrakeLimits { refunds_per_day_per_account: 1, ..none }, true, false),
        (BrakeLimits { credits_per_day_per_account: 1, ..none }, true, false),
        (BrakeLimits { credit_share_per_day_per_account: 1, ..none }, true, true),
        (BrakeLimits { credit_share_per_day: 1, ..none }, false, true),
    ] {
        assert_eq!((limits.limit_accounts(), limits.need_a_price()), (accounts, price), "{limits:?}");
    }
}
