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
    (credits > 0 && split.total() == credits).then_some(split)
}

/// The refund's id: made of the item, so that a second one of the same item cannot exist anywhere.
pub fn refund_id(charge_id: &str, output_index: i64) -> String {
    format!("makegood:{charge_id}/{output_index}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
    }

    #[test]
    fn nothing_is_given_for_nothing() {
        assert_eq!(allocate(0, split(5, 5), split(0, 0)), None);
        assert_eq!(allocate(-3, split(5, 5), split(0, 0)), None);
    }

    proptest! {
        /// Whatever the order in which the items of a charge come back, the sum per bucket is what was drawn.
        #[test]
        fn p03_items_in_any_order_give_back_exactly_the_draw(
            items in prop::collection::vec(1i64..1000, 1..8), cut in 0.0f64..=1.0, order in any::<prop::sample::Index>(),
        ) {
            let total: i64 = items.iter().sum();
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a test's way to cut a sum in two")]
            let subscription = (total as f64 * cut) as i64;
            let drawn = split(subscription, total - subscription);
            let mut rotated = items.clone();
            rotated.rotate_left(order.index(items.len()));
            let mut back = split(0, 0);
            for credits in rotated {
                back = back.plus(allocate(credits, drawn, back).expect("there is room for every item"));
                prop_assert!(back.subscription <= drawn.subscription && back.wallet <= drawn.wallet);
            }
            prop_assert_eq!(back, drawn);
        }
    }
}
