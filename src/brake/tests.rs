//! What the brake admits and what it holds.

use super::*;
use crate::evidence::FailureClass;

fn on() -> Held {
    Held { all: Some("why".to_owned()), ..Held::default() }
}

fn brake(limits: Limits) -> Brake {
    Brake::new(limits, Held::default(), Counted::default())
}

#[test]
fn p15_the_limit_itself_is_let_through_and_one_more_is_not() {
    let mut brake = brake(Limits { refunds_per_hour: 3, ..Limits::default() });
    assert_eq!([(); 5].map(|()| brake.admit("acme", 10, false)), [true, true, true, false, false]);
    assert_eq!(
        brake.held.all.as_deref(),
        Some("more than 3 refunds in an hour ([brake] max_refunds_per_hour)")
    );
}

#[test]
fn every_limit_stops_by_itself() {
    let cases = [
        (Limits { refunds_per_pass: 1, ..Limits::default() }, "max_refunds_per_pass"),
        (Limits { credits_per_pass: 19, ..Limits::default() }, "max_credits_per_pass"),
        (Limits { refunds_per_day: 1, ..Limits::default() }, "max_refunds_per_day"),
        (Limits { credits_per_hour: 19, ..Limits::default() }, "max_credits_per_hour"),
        (Limits { credits_per_day: 19, ..Limits::default() }, "max_credits_per_day"),
        (
            Limits { refunds_per_pass_per_provider: 1, ..Limits::default() },
            "max_refunds_per_pass_per_provider",
        ),
        (
            Limits { refunds_per_hour_per_provider: 1, ..Limits::default() },
            "max_refunds_per_hour_per_provider",
        ),
        (Limits { refunds_per_day_per_provider: 1, ..Limits::default() }, "max_refunds_per_day_per_provider"),
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
fn a_share_of_the_charges_counts_from_a_hundred_refunds_on() {
    let limits = Limits { share_per_day: 50, ..Limits::default() };
    let with = |charges| Brake::new(limits, Held::default(), Counted { charges, ..Counted::default() });
    let mut few = with(0);
    assert!((0..SHARE_FROM).all(|_| few.admit("acme", 1, false)), "a hundred are no sign of anything");
    assert!(!few.admit("acme", 1, false));
    assert!(few.held.all.unwrap().contains("50 percent of a day's charges, 101 refunds of 0"));
    let mut half = with(300);
    assert_eq!((0..400).filter(|_| half.admit("acme", 1, false)).count(), 150, "half of 300");
    let no_limit = Limits::default();
    let counted = Counted { charges: 300, ..Counted::default() };
    let mut unlimited = Brake::new(no_limit, Held::default(), counted);
    assert!((0..400).all(|_| unlimited.admit("acme", 1, false)), "no percent is no limit");
}

#[test]
fn faults_of_ours_are_held_by_themselves_and_stop_nobody_else() {
    let mut brake = brake(Limits { own_faults_per_day: 2, ..Limits::default() });
    assert_eq!([(); 4].map(|()| brake.admit("acme", 1, true)), [true, true, false, false]);
    let why = brake.held.own_faults.clone().unwrap();
    assert!(why.starts_with("more than 2 refunds in a day") && why.contains("max_own_fault_refunds_per_day"));
    assert!(brake.admit("acme", 1, false) && brake.held.all.is_none());
}

#[test]
fn faults_of_ours_stay_held_until_they_are_released_however_few_count_by_then() {
    let limits = Limits { own_faults_per_day: 2, ..Limits::default() };
    let held = Held { own_faults: Some("why".to_owned()), ..Held::default() };
    let mut brake = Brake::new(limits, held, Counted::default());
    assert!(!brake.admit("acme", 1, true));
    assert!(brake.admit("acme", 1, false));
}

#[test]
fn only_what_was_not_held_before_is_to_be_written_down() {
    let limits = Limits { own_faults_per_day: 1, refunds_per_hour: 1, ..Limits::default() };
    let mut brake = Brake::new(limits, Held::default(), Counted::default());
    assert!(brake.admit("acme", 1, true));
    assert_eq!(brake.pulled(), Held::default());
    assert!(!brake.admit("acme", 1, true) && !brake.admit("acme", 1, false));
    let pulled = brake.pulled();
    assert!(pulled.all.is_some() && pulled.own_faults.is_some());
    assert_eq!(Brake::new(limits, pulled, Counted::default()).pulled(), Held::default());
}

#[test]
fn faults_of_ours_are_gone_at_half_of_their_limit() {
    let with = |own_faults, own_faults_per_day| {
        let limits = Limits { own_faults_per_day, ..Limits::default() };
        Brake::new(limits, on(), Counted { own_faults, ..Counted::default() }).own_faults_are_gone()
    };
    assert_eq!([0, 2, 3, 4].map(|own_faults| with(own_faults, 4)), [true, true, false, false]);
    assert!(with(1_000, 0), "no limit");
}

#[test]
fn what_is_a_fault_of_ours_and_what_is_not() {
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
        assert!(is_own_fault(Reason::RecoveryFailed, Some(&evidence)), "offered before, and never home");
        assert!(!is_own_fault(Reason::ReportedFailed, Some(&evidence)), "the platform's own word");
    }
    let mut failed = Evidence::could_not_tell(Doubt::Unreadable, "", now);
    (failed.verdict, failed.class) = (Verdict::Failed, Some(FailureClass::ServerError));
    assert!(!is_own_fault(Reason::Unconfirmed, Some(&failed)));
    assert!(is_own_fault(Reason::Unconfirmed, None), "no pass lived to record an answer");
    assert!(!is_own_fault(Reason::ServerError, Some(&failed)));
}

#[test]
fn the_condition_is_gone_when_all_is_down_to_half_of_each_limit() {
    let limits = Limits { refunds_per_hour: 8, refunds_per_hour_per_provider: 4, ..Limits::default() };
    let with = |hour_refunds| {
        let sums = Sums { hour_refunds, ..Sums::default() };
        let per_provider = BTreeMap::from([("acme".to_owned(), sums)]);
        Brake::new(limits, on(), Counted { per_provider, ..Counted::default() })
    };
    assert!(with(0).condition_is_gone() && with(2).condition_is_gone());
    assert!(!with(3).condition_is_gone(), "acme is still above half of its own limit");
    assert!(!with(5).condition_is_gone());
}

#[test]
fn one_provider_at_its_limit_is_not_another_at_its() {
    let mut brake = brake(Limits { refunds_per_hour_per_provider: 1, ..Limits::default() });
    assert!(brake.admit("acme", 1, false) && brake.admit("other", 1, false));
    assert!(!brake.admit("other", 1, false));
    assert!(brake.held.all.unwrap().contains("1 refunds in an hour for other"));
}

#[test]
fn charges_are_needed_only_where_their_number_decides() {
    let limits = Limits { share_per_day: 30, ..Limits::default() };
    assert_eq!(
        [0, 100, 101, 150].map(|refunds| limits.charges_needed(refunds)),
        [None, None, Some(337), Some(500)]
    );
    assert_eq!(Limits::default().charges_needed(1_000_000), None);
    assert_eq!(limits.charges_needed(u128::MAX), Some(u64::MAX));
    // One charge fewer than needed, and the same number of refunds is too large a share.
    let with = |charges| {
        let sums = Sums { day_refunds: 149, ..Sums::default() };
        let per_provider = BTreeMap::from([("acme".to_owned(), sums)]);
        Brake::new(limits, Held::default(), Counted { per_provider, charges, ..Counted::default() })
    };
    assert!(with(500).admit("acme", 1, false) && !with(499).admit("acme", 1, false));
}

#[test]
fn p15_spans_begin_with_their_minute_and_a_clock_that_was_put_back_excuses_nothing() {
    let now = Timestamp::from_micros(100 * 3_600_000_000 + 59_999_999);
    assert_eq!(Brake::since(now, HOUR), Timestamp::from_micros(99 * 3_600_000_000));
    assert_eq!(Brake::since(now, Duration::ZERO), Timestamp::from_micros(100 * 3_600_000_000));
    let ahead = now + 5 * HOUR;
    assert_eq!(Brake::span_of_pass(now, now - 2 * HOUR), 2 * HOUR);
    assert_eq!(Brake::span_of_pass(now, now), Duration::ZERO);
    assert_eq!(Brake::span_of_pass(now, ahead), HOUR, "begun while it was ahead");
}

#[test]
fn each_minute_of_two_days_has_a_slot_of_its_own() {
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
    let watch = |released_at| Watch {
        pass_began: Some(began),
        baseline: Arc::new(Baseline {
            released_at,
            per_provider: BTreeMap::from([("acme".to_owned(), (3, 30))]),
        }),
        ..Watch::default()
    };
    let now = began + HOUR;
    assert_eq!(watch(None).baseline_of("acme", now, None), (3, 30));
    assert_eq!(watch(None).baseline_of("other", now, None), (0, 0));
    assert_eq!(watch(before).baseline_of("acme", now, before), (3, 30));
    assert_eq!(watch(before).baseline_of("acme", now, Some(began + HOUR)), (0, 0), "released since");
    assert_eq!(watch(Some(began)).baseline_of("acme", now, Some(began)), (0, 0), "in that moment");
    assert_eq!(watch(None).baseline_of("acme", began - HOUR, None), (0, 0), "the clock was put back");
    assert_eq!(Watch::default().baseline_of("acme", now, None), (0, 0));
}

#[test]
fn p15_the_locked_brake_confirms_only_what_it_would_say_itself() {
    let limits = Limits { refunds_per_hour: 3, ..Limits::default() };
    let with = |hour_refunds, held: Option<&str>| {
        let per_provider = BTreeMap::from([("acme".to_owned(), Sums { hour_refunds, ..Sums::default() })]);
        let held = Held { all: held.map(str::to_owned), ..Held::default() };
        Brake::new(limits, held, Counted { per_provider, ..Counted::default() })
    };
    let mut two = with(0, None);
    assert!(two.admit("acme", 5, false) && two.admit("acme", 5, true));
    assert!(two.confirmed_by(with(1, None)).is_some(), "another's refund, and still within the limit");
    assert!(two.confirmed_by(with(2, None)).is_none(), "two of another's: four in all");
    assert!(two.confirmed_by(with(0, Some("engaged"))).is_none());
    assert!(two.confirmed_by(Brake::overruled()).is_some());
    let released = with(0, None).released(Some(Timestamp::from_micros(1)));
    assert!(two.confirmed_by(released).is_none(), "released meanwhile");
    assert_eq!(two.added()["acme"], Added { refunds: 2, credits: 10, own_faults: 1 });

    // Held by a brake that was released meanwhile: otherwise it would be engaged again for nothing.
    let mut held = with(3, None);
    assert!(!held.admit("acme", 5, false));
    assert!(held.confirmed_by(with(0, None)).is_none());
    let confirmed = held.confirmed_by(with(3, None)).unwrap();
    assert!(confirmed.pulled().all.is_some() && confirmed.added().is_empty());
    // Another has engaged it for the same limit: nothing is left to be written down.
    assert_eq!(held.confirmed_by(with(3, Some("engaged"))).unwrap().pulled(), Held::default());
}

#[test]
fn p15_sums_at_the_end_of_the_range_count_as_a_limit_reached() {
    let one_at = |day_credits, credits_per_day| {
        let limits = Limits { credits_per_day, ..Limits::default() };
        let sums = Sums { day_credits, ..Sums::default() };
        let per_provider = BTreeMap::from([("acme".to_owned(), sums), ("other".to_owned(), sums)]);
        Brake::new(limits, Held::default(), Counted { per_provider, ..Counted::default() })
            .admit("acme", 1, false)
    };
    assert!(!one_at(u128::from(MAX_SUM), MAX_SUM) && !one_at(u128::from(MAX_SUM), u64::MAX));
    assert!(!one_at(u128::MAX, u64::MAX), "beyond the end of the widest number");
    assert!(one_at(1, 3) && !one_at(1, 2));
}

#[test]
fn the_days_credits_and_refunds_are_those_of_all_providers() {
    let sums = |day_refunds, day_credits| Sums { day_refunds, day_credits, ..Sums::default() };
    let per_provider = BTreeMap::from([("acme".to_owned(), sums(2, 30)), ("other".to_owned(), sums(3, 400))]);
    let counted = Counted { per_provider, ..Counted::default() };
    assert_eq!((counted.day_refunds(), counted.day_credits()), (5, 430));
    assert_eq!((Counted::default().day_refunds(), Counted::default().day_credits()), (0, 0));
}

#[test]
fn without_limits_nothing_stops_it() {
    let mut brake = brake(Limits::default());
    assert!((0..10_000).all(|_| brake.admit("acme", 1_000_000, false)));
}

fn with_account(limits: Limits, standing: AccountStanding, charges: u64, price: Option<Price>) -> Brake {
    let mut brake = Brake::new(limits, Held::default(), Counted { price, ..Counted::default() });
    brake.set_accounts(Accounts::new(BTreeMap::from([("mallory".to_owned(), standing)])), charges);
    brake
}

#[test]
fn p15_what_an_account_is_held_for_counts_for_nothing_else() {
    let limits = Limits {
        refunds_per_hour: 3,
        own_faults_per_day: 3,
        refunds_per_day_per_account: 2,
        ..Limits::default()
    };
    let mut brake = with_account(limits, AccountStanding::default(), 0, None);
    let judged = [(); 9].map(|()| brake.judge("mallory", "acme", 1, true).is_ok());
    assert_eq!(judged.iter().filter(|admitted| **admitted).count(), 2);
    assert_eq!((brake.held.all.as_ref(), brake.held.own_faults.as_ref()), (None, None));
    assert_eq!(brake.accounts().newly_held().keys().collect::<Vec<_>>(), ["mallory"]);
    assert!(brake.judge("ada", "acme", 1, true).is_ok(), "the third of all");
    let refused = brake.judge("ada", "acme", 1, false).unwrap_err();
    assert!(refused.account.is_none() && refused.why.contains("max_refunds_per_hour"), "{refused:?}");
    // What was said of the account needs no second look; the rest comes out the same.
    let confirmed = brake.confirmed_by(Brake::new(limits, Held::default(), Counted::default())).unwrap();
    assert_eq!(confirmed.added()["acme"].refunds, 3);
}

#[test]
fn p15_an_account_is_held_by_each_limit_of_its_own_and_stays_held() {
    let price = Price::new(10, 100);
    let standing = |refunds, credits| AccountStanding { held: None, refunds, credits };
    let per_day = Limits { refunds_per_day_per_account: 5, ..Limits::default() };
    let credits = Limits { credits_per_day_per_account: 100, ..Limits::default() };
    let share = Limits { credit_share_per_day_per_account: 10, ..Limits::default() };
    for (limits, before, charges, admitted) in [
        (per_day, standing(4, 0), 0, true),
        (per_day, standing(5, 0), 0, false),
        (credits, standing(0, 90), 0, true),
        (credits, standing(0, 91), 0, false),
        // 50 average charges of 10 credits are no sign of anything; 51 are 10 percent of 510.
        (share, standing(0, 490), 0, true),
        (share, standing(0, 491), 509, false),
        (share, standing(0, 491), 510, true),
        (share, standing(0, u128::MAX / 4), u64::MAX - 1, false),
        (Limits::default(), standing(1 << 40, u128::MAX / 4), 0, true),
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
    let mut brake = with_account(Limits::default(), held, 0, None);
    assert_eq!(brake.judge("mallory", "acme", 1, false).unwrap_err().why, "why");
    assert!(brake.accounts().newly_held().is_empty() && !brake.was_asked());
}

#[test]
fn p15_what_the_brake_of_all_holds_does_not_hold_the_account() {
    let limits = Limits { refunds_per_day_per_account: 1, ..Limits::default() };
    let mut brake = Brake::new(limits, on(), Counted::default());
    brake.set_accounts(Accounts::new(BTreeMap::from([("ada".to_owned(), AccountStanding::default())])), 0);
    for _ in 0..3 {
        assert_eq!(brake.judge("ada", "acme", 1, false).unwrap_err().account, None);
    }
    assert!(brake.accounts().newly_held().is_empty());
}

#[test]
fn p15_a_provider_that_a_person_holds_is_held_alone() {
    let held = Held { providers: [("acme".to_owned(), "ida: outage".to_owned())].into(), ..Held::default() };
    let mut brake = Brake::new(Limits::default(), held, Counted::default());
    assert_eq!(brake.judge("ada", "acme", 1, false).unwrap_err().why, "ida: outage");
    assert!(brake.judge("ada", "other", 1, false).is_ok());
    assert!(brake.confirmed_by(Brake::new(Limits::default(), Held::default(), Counted::default())).is_none());
}

#[test]
fn p15_credits_are_measured_by_what_charges_cost_on_average() {
    assert_eq!((Price::new(0, 0), Price::new(3, 0)), (None, None));
    let price = Price::new(4, 10).unwrap();
    assert_eq!([0, 1, 5, 6].map(|credits| price.worth(credits)), [0, 1, 2, 3]);
    assert_eq!(price.worth(u128::MAX), u128::MAX);
    let limits = Limits { credit_share_per_day: 50, ..Limits::default() };
    let with = |day_credits, charges| {
        let per_provider = BTreeMap::from([("acme".to_owned(), Sums { day_credits, ..Sums::default() })]);
        let counted = Counted { per_provider, charges, price: Price::new(1, 10), ..Counted::default() };
        Brake::new(limits, Held::default(), counted).admit("acme", 10, false)
    };
    assert!(with(990, 0), "worth 100 charges");
    assert!(!with(991, 201) && with(991, 202), "101 of 202");
    assert!(!with(u128::from(u64::MAX), 1_000_000));
    // Without a price nothing is measured; a day's sum that no column can hold is held all the
    // same.
    let per_provider =
        BTreeMap::from([("acme".to_owned(), Sums { day_credits: u128::from(MAX_SUM), ..Sums::default() })]);
    let mut brake = Brake::new(limits, Held::default(), Counted { per_provider, ..Counted::default() });
    assert!(brake.admit("acme", 0, false) && !brake.admit("acme", 1, false));
}

#[test]
fn what_is_read_of_accounts_and_prices_depends_on_the_limits_that_need_it() {
    let none = Limits::default();
    for (limits, accounts, price) in [
        (none, false, false),
        (Limits { refunds_per_day_per_account: 1, ..none }, true, false),
        (Limits { credits_per_day_per_account: 1, ..none }, true, false),
        (Limits { credit_share_per_day_per_account: 1, ..none }, true, true),
        (Limits { credit_share_per_day: 1, ..none }, false, true),
    ] {
        assert_eq!((limits.limit_accounts(), limits.need_a_price()), (accounts, price), "{limits:?}");
    }
}
