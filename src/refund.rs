//! Splits a refund over the balances that paid. P03 (never more to a balance than was drawn from
//! it).
//!
//! Pure arithmetic over the draw of a charge and the refunds so far, by makegood or by the
//! platform. `store::settle` posts the refund in one transaction; the database's CHECK constraints
//! enforce the same bounds.

use crate::charge::Split;

/// Splits `credits` of one item: first to the subscription's quota, then to the wallet.
///
/// Each bucket gets at most what the charge drew from it, less the refunds so far (`already`).
/// Returns none if not all of `credits` fits, or if `credits` is not positive.
pub fn allocate(credits: i64, drawn: Split, already: Split) -> Option<Split> {
    let room = |drawn: i64, already: i64| drawn.saturating_sub(already.max(0)).max(0);
    let subscription = credits.min(room(drawn.subscription, already.subscription)).max(0);
    let wallet = (credits - subscription).min(room(drawn.wallet, already.wallet)).max(0);
    let split = Split { subscription, wallet };
    (credits > 0 && split.total() == i128::from(credits)).then_some(split)
}

/// The id of an item's refund. It is derived from the item, so a second refund of the item would
/// violate the unique key.
pub fn refund_id(charge_id: &str, output_index: i64) -> String {
    format!("makegood:{charge_id}/{output_index}")
}

/// The id of a refund's reversal. It is derived from the refund, so a second reversal would violate
/// the unique key.
pub fn reversal_id(refund_id: &str) -> String {
    format!("{refund_id}:reversed")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::charge::Bucket;

    const fn split(subscription: i64, wallet: i64) -> Split {
        Split { subscription, wallet }
    }

    #[test]
    fn p03_the_subscription_is_refunded_first_then_the_wallet() {
        assert_eq!(allocate(10, split(6, 14), split(0, 0)), Some(split(6, 4)));
        assert_eq!(allocate(10, split(6, 14), split(6, 4)), Some(split(0, 10)));
        assert_eq!(allocate(5, split(0, 5), split(0, 0)), Some(split(0, 5)));
    }

    #[test]
    fn p03_never_more_than_was_drawn_even_if_the_platform_refunded_too_much() {
        assert_eq!(allocate(10, split(6, 4), split(9, 0)), None);
        assert_eq!(allocate(1, split(6, 4), split(6, 4)), None);
        assert_eq!(allocate(4, split(6, 4), split(9, 0)), Some(split(0, 4)));
    }

    #[test]
    fn p01_the_refund_id_is_derived_from_the_item() {
        assert_eq!(refund_id("c1", 2), "makegood:c1/2");
        assert_eq!(reversal_id(&refund_id("c1", 2)), "makegood:c1/2:reversed");
    }

    #[test]
    fn zero_or_negative_credits_are_not_refunded() {
        assert_eq!(allocate(0, split(5, 5), split(0, 0)), None);
        assert_eq!(allocate(-3, split(5, 5), split(0, 0)), None);
    }

    /// One refund of a charge, in the order of commits.
    #[derive(Clone, Debug)]
    enum Grant {
        /// makegood refunds an item of this price.
        Ours(i64),
        /// The platform refunds this many credits, to any bucket and even too many.
        Platforms(Bucket, i64),
    }

    fn any_grant() -> impl Strategy<Value = Grant> {
        let ours = prop_oneof![20 => 1..60_i64, 1 => -5..=0_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
        let theirs = prop_oneof![20 => 1..60_i64, 1 => Just(i64::MAX)];
        let bucket = prop::sample::select(Bucket::ALL.to_vec());
        prop_oneof![
            3 => ours.prop_map(Grant::Ours),
            1 => (bucket, theirs).prop_map(|(bucket, credits)| Grant::Platforms(bucket, credits)),
        ]
    }

    /// The draw of a charge and the refunds that follow. The items need not sum up to the draw.
    fn any_history() -> impl Strategy<Value = (Split, Vec<Grant>)> {
        let drawn = || prop_oneof![8 => 0..200_i64, 1 => Just(i64::MAX), 1 => -5..0_i64];
        let drawn = (drawn(), drawn()).prop_map(|(subscription, wallet)| split(subscription, wallet));
        (drawn, prop::collection::vec(any_grant(), 1..16))
    }

    /// The result of a grant of ours. The first test below counts them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum GrantResult {
        ToBoth,
        ToSubscription,
        ToWallet,
        NoRoom,
        NoRoomAfterThePlatformsRefunds,
        NothingToRefund,
    }

    /// Applies a history and checks every grant of ours against P03. It calculates in `i128`, so
    /// that the check itself cannot saturate.
    fn apply(drawn: Split, grants: &[Grant]) -> Result<Vec<GrantResult>, TestCaseError> {
        let wide = |split: Split, bucket| i128::from(split.of(bucket));
        let (mut ours, mut theirs) = (split(0, 0), split(0, 0));
        let mut results = Vec::new();
        for grant in grants {
            let credits = match grant {
                Grant::Platforms(bucket, credits) => {
                    theirs.add(*bucket, *credits);
                    continue;
                }
                Grant::Ours(credits) => *credits,
            };
            let room = |bucket| (wide(drawn, bucket) - wide(ours, bucket) - wide(theirs, bucket)).max(0);
            let room = Bucket::ALL.map(room);
            let Some(given) = allocate(credits, drawn, ours.plus(theirs)) else {
                prop_assert!(
                    credits <= 0 || room[0] + room[1] < i128::from(credits),
                    "{room:?} is room for {credits}"
                );
                let overdrawn = Bucket::ALL.into_iter().any(|bucket| theirs.of(bucket) > drawn.of(bucket));
                results.push(match (credits > 0, overdrawn) {
                    (false, _) => GrantResult::NothingToRefund,
                    (true, false) => GrantResult::NoRoom,
                    (true, true) => GrantResult::NoRoomAfterThePlatformsRefunds,
                });
                continue;
            };
            prop_assert!(credits > 0);
            prop_assert_eq!(
                i128::from(given.subscription) + i128::from(given.wallet),
                i128::from(credits),
                "all of it or nothing"
            );
            for (bucket, room) in Bucket::ALL.into_iter().zip(room) {
                prop_assert!(
                    (0..=room).contains(&wide(given, bucket)),
                    "{given:?} where there is room for {room} in {bucket}"
                );
            }
            prop_assert!(
                given.wallet == 0 || i128::from(given.subscription) == room[0],
                "the subscription comes first: {given:?}"
            );
            results.push(match (given.subscription > 0, given.wallet > 0) {
                (true, true) => GrantResult::ToBoth,
                (true, false) => GrantResult::ToSubscription,
                (false, _) => GrantResult::ToWallet,
            });
            ours = ours.plus(given);
            for bucket in Bucket::ALL {
                prop_assert!(ours.of(bucket) <= drawn.of(bucket).max(0), "{ours:?} of {drawn:?}");
            }
        }
        Ok(results)
    }

    #[test]
    fn the_histories_reach_every_result() {
        use GrantResult::{
            NoRoom, NoRoomAfterThePlatformsRefunds, NothingToRefund, ToBoth, ToSubscription, ToWallet,
        };

        let mut runner = TestRunner::deterministic();
        let mut times: BTreeMap<GrantResult, usize> = BTreeMap::new();
        for _ in 0..2000 {
            let (drawn, grants) = any_history().new_tree(&mut runner).expect("nothing is filtered").current();
            for result in apply(drawn, &grants).expect("the promises hold") {
                *times.entry(result).or_default() += 1;
            }
        }
        println!("{times:?}");
        for result in
            [ToBoth, ToSubscription, ToWallet, NoRoom, NoRoomAfterThePlatformsRefunds, NothingToRefund]
        {
            assert!(times.get(&result).is_some_and(|times| *times >= 200), "{result:?}: {times:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// The items need not sum up to the draw.
        #[test]
        fn p03_no_grant_of_ours_gives_a_balance_more_than_is_left_of_its_draw((drawn, grants) in any_history()) {
            apply(drawn, &grants)?;
        }

        /// A ledger may also take credits back, and more than it refunded: that does not raise the
        /// limit.
        #[test]
        fn p03_no_grant_is_more_than_was_drawn_whatever_the_ledger_says(
            credits in 1..400_i64, drawn in (0..200_i64, 0..200_i64), already in (-300..300_i64, -300..300_i64),
        ) {
            let (drawn, already) = (split(drawn.0, drawn.1), split(already.0, already.1));
            let given = allocate(credits, drawn, already).unwrap_or_default();
            prop_assert!(given.subscription <= drawn.subscription && given.wallet <= drawn.wallet, "{given:?}");
        }

        #[test]
        fn p03_refunds_of_all_items_in_any_order_sum_up_to_the_draw_of_each_bucket(
            items in prop::collection::vec(1i64..1000, 1..8), of_subscription in 0..=1000_i64,
        ) {
            let total: i64 = items.iter().sum();
            let subscription = total * of_subscription / 1000;
            let drawn = split(subscription, total - subscription);
            let mut back = split(0, 0);
            for credits in items {
                back = back.plus(allocate(credits, drawn, back).expect("there is room for every item"));
            }
            prop_assert_eq!(back, drawn);
        }
    }
}
