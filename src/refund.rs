//! Give the credits back: which balance gets how much (P03).
//!
//! Pure arithmetic over what a charge drew and what has gone back already, by makegood or by the platform.
//! Posting it is `store::settle`'s, in one transaction; the database's CHECKs hold the same bounds.

use crate::charge::Split;

/// How `credits` of one item go back: the subscription's quota first, then the wallet, and to neither more than
/// the charge drew from it less what `already` went back. None if that leaves too little room for the whole of it.
pub fn allocate(credits: i64, drawn: Split, already: Split) -> Option<Split> {
    let room = |drawn: i64, already: i64| drawn.saturating_sub(already.max(0)).max(0);
    let subscription = credits.min(room(drawn.subscription, already.subscription)).max(0);
    let wallet = (credits - subscription).min(room(drawn.wallet, already.wallet)).max(0);
    let split = Split { subscription, wallet };
    (credits > 0 && split.total() == i128::from(credits)).then_some(split)
}

/// The refund's id: made of the item, so that a second one of the same item cannot exist anywhere.
pub fn refund_id(charge_id: &str, output_index: i64) -> String {
    format!("makegood:{charge_id}/{output_index}")
}

/// The id of the reversal of a refund: made of it, so that a second one cannot exist anywhere.
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
    fn p03_the_subscription_gets_its_share_first_then_the_wallet() {
        assert_eq!(allocate(10, split(6, 14), split(0, 0)), Some(split(6, 4)));
        assert_eq!(allocate(10, split(6, 14), split(6, 4)), Some(split(0, 10)));
        assert_eq!(allocate(5, split(0, 5), split(0, 0)), Some(split(0, 5)));
    }

    #[test]
    fn p03_never_more_than_was_drawn_even_if_the_platform_gave_too_much() {
        assert_eq!(allocate(10, split(6, 4), split(9, 0)), None);
        assert_eq!(allocate(1, split(6, 4), split(6, 4)), None);
        assert_eq!(allocate(4, split(6, 4), split(9, 0)), Some(split(0, 4)));
    }

    #[test]
    fn p01_a_refunds_id_is_its_items() {
        assert_eq!(refund_id("c1", 2), "makegood:c1/2");
        assert_eq!(reversal_id(&refund_id("c1", 2)), "makegood:c1/2:reversed");
    }

    #[test]
    fn nothing_is_given_for_nothing() {
        assert_eq!(allocate(0, split(5, 5), split(0, 0)), None);
        assert_eq!(allocate(-3, split(5, 5), split(0, 0)), None);
    }

    /// Credits that go back on one charge, in the order in which it is committed.
    #[derive(Clone, Debug)]
    enum Grant {
        /// makegood is to refund an item of this much.
        Ours(i64),
        /// The platform gives this much, wherever and however much it likes.
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

    /// What a charge drew, and what is then given back on it; the items need not add up to the draw.
    fn any_story() -> impl Strategy<Value = (Split, Vec<Grant>)> {
        let drawn = || prop_oneof![8 => 0..200_i64, 1 => Just(i64::MAX), 1 => -5..0_i64];
        let drawn = (drawn(), drawn()).prop_map(|(subscription, wallet)| split(subscription, wallet));
        (drawn, prop::collection::vec(any_grant(), 1..16))
    }

    /// What came of a grant of ours, for `the_stories_…` to count.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Came {
        OfBoth,
        OfTheSubscription,
        OfTheWallet,
        NoRoom,
        NoRoomForThePlatformGaveTooMuch,
        NothingToGive,
    }

    /// Lives through a story and holds every grant of ours against the promises. By wider numbers than the program's,
    /// so that nothing here can stop short of the truth.
    fn live(drawn: Split, grants: &[Grant]) -> Result<Vec<Came>, TestCaseError> {
        let wide = |split: Split, bucket| i128::from(split.of(bucket));
        let (mut ours, mut theirs) = (split(0, 0), split(0, 0));
        let mut came = Vec::new();
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
                came.push(match (credits > 0, overdrawn) {
                    (false, _) => Came::NothingToGive,
                    (true, false) => Came::NoRoom,
                    (true, true) => Came::NoRoomForThePlatformGaveTooMuch,
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
            came.push(match (given.subscription > 0, given.wallet > 0) {
                (true, true) => Came::OfBoth,
                (true, false) => Came::OfTheSubscription,
                (false, _) => Came::OfTheWallet,
            });
            ours = ours.plus(given);
            for bucket in Bucket::ALL {
                prop_assert!(ours.of(bucket) <= drawn.of(bucket).max(0), "{ours:?} of {drawn:?}");
            }
        }
        Ok(came)
    }

    #[test]
    fn the_stories_end_in_every_way_that_there_is() {
        use Came::{
            NoRoom, NoRoomForThePlatformGaveTooMuch, NothingToGive, OfBoth, OfTheSubscription, OfTheWallet,
        };

        let mut runner = TestRunner::deterministic();
        let mut times: BTreeMap<Came, usize> = BTreeMap::new();
        for _ in 0..2000 {
            let (drawn, grants) = any_story().new_tree(&mut runner).expect("nothing is filtered").current();
            for came in live(drawn, &grants).expect("the promises hold") {
                *times.entry(came).or_default() += 1;
            }
        }
        println!("{times:?}");
        for came in
            [OfBoth, OfTheSubscription, OfTheWallet, NoRoom, NoRoomForThePlatformGaveTooMuch, NothingToGive]
        {
            assert!(times.get(&came).is_some_and(|times| *times >= 200), "{came:?}: {times:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever was given before and by whom, and whether or not the items add up to the draw.
        #[test]
        fn p03_no_grant_of_ours_gives_a_balance_more_than_is_left_of_its_draw((drawn, grants) in any_story()) {
            live(drawn, &grants)?;
        }

        /// A ledger may also take back, and more than it gave: that makes no room beyond the draw.
        #[test]
        fn p03_no_grant_is_more_than_was_drawn_whatever_the_ledger_says(
            credits in 1..400_i64, drawn in (0..200_i64, 0..200_i64), already in (-300..300_i64, -300..300_i64),
        ) {
            let (drawn, already) = (split(drawn.0, drawn.1), split(already.0, already.1));
            let given = allocate(credits, drawn, already).unwrap_or_default();
            prop_assert!(given.subscription <= drawn.subscription && given.wallet <= drawn.wallet, "{given:?}");
        }

        /// Whatever the order in which the items of a charge come back, the sum per bucket is what was drawn.
        #[test]
        fn p03_items_in_any_order_give_back_exactly_the_draw(
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
