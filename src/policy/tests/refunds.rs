//! Property tests of `facts`, `policy` and `refund` together, joined as settle joins them. makegood
//! and the platform refund the items of one charge in any order.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::samples::{OPTIONS, charged_at, facts, failed};
use super::super::{Action, decide};
use super::any::MINUTE;
use crate::charge::{Bucket, Charge, Item, ItemId, JobKey, Split};
use crate::evidence::FailureClass;
use crate::facts::{Facts, JobItem, LedgerRefund, RowIndex, Rows};
use crate::refund::allocate;

/// One refund, in the order of commits.
#[derive(Clone, Debug)]
enum RefundStep {
    /// makegood decides about this item; the provider says that it failed.
    Look(prop::sample::Index),
    /// The platform refunds this item: in part, in full or too much, to any bucket.
    Platform(Option<prop::sample::Index>, Bucket, i64),
}

fn any_step() -> impl Strategy<Value = RefundStep> {
    let buckets = prop::sample::select(Bucket::ALL.to_vec());
    // Rarely without an item, because then everything is held.
    let named = prop::option::weighted(0.9, any::<prop::sample::Index>());
    prop_oneof![
        3 => any::<prop::sample::Index>().prop_map(RefundStep::Look),
        1 => (named, buckets, (-60..120_i64).prop_filter("gives or takes something", |credits| *credits != 0)).prop_map(|(item, bucket, credits)| RefundStep::Platform(item, bucket, credits)),
    ]
}

struct World {
    charge: Charge,
    rows: Rows,
    ours: Split,
    theirs: Split,
}

impl World {
    /// A charge whose items each have a job of their own.
    fn new(prices: &[i64], subscription: i64) -> Self {
        let mut charge = facts().record.charge;
        charge.drawn = Split { subscription, wallet: prices.iter().sum::<i64>() - subscription };
        let item = |(index, credits): (i64, &i64)| {
            let id = ItemId { charge_id: charge.id.clone(), output_index: index };
            let job = JobKey { provider: "acme".to_owned(), job_id: format!("j{index}"), output_index: 0 };
            let item = Item { id: id.clone(), credits: *credits, job: Some(job), failed_at: None };
            (id, JobItem { item, account_id: charge.account_id.clone(), resolved: false })
        };
        let balance_rows: HashMap<_, _> =
            Bucket::ALL.map(|bucket| ((charge.account_id.clone(), bucket), 1)).into();
        let items = (0..).zip(prices).map(item).collect();
        let rows = Rows { items, balance_rows, ..Rows::default() };
        Self { charge, rows, ours: Split::default(), theirs: Split::default() }
    }

    fn facts(&self, index: i64) -> Facts {
        let mut orphan = facts().orphan;
        orphan.item.output_index = index;
        Facts::gather(self.charge.clone(), orphan, &RowIndex::new(&self.rows))
    }

    /// The refund that settle would post for an item, if any.
    fn look(&mut self, index: i64) -> Option<Split> {
        let facts = self.facts(index);
        let answer = failed(FailureClass::ServerError);
        let decision = decide(&facts, Some(&answer), &OPTIONS, charged_at() + 20 * MINUTE);
        let item = facts.record.item.filter(|_| decision.action == Action::Refund)?;
        let already = self.ours.plus(facts.record.refunded_elsewhere.credits);
        allocate(item.credits, self.charge.drawn, already)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn p01_p03_in_any_order_no_item_is_refunded_twice_and_no_balance_gets_more_than_was_drawn_from_it(
        prices in prop::collection::vec(1..100_i64, 1..6), of_subscription in 0..=4_i64, steps in prop::collection::vec(any_step(), 1..16),
    ) {
        let subscription = prices.iter().sum::<i64>() * of_subscription / 4;
        let mut world = World::new(&prices, subscription);
        let drawn = world.charge.drawn;
        // Per item: the platform's net refund, and whether makegood refunded. And what the platform
        // refunded for the whole charge.
        let (mut theirs, mut ours, mut whole) = (vec![0; prices.len()], vec![false; prices.len()], 0);
        for step in steps {
            match step {
                RefundStep::Platform(item, bucket, credits) => {
                    let item = item.map(|item| item.index(prices.len()));
                    match item {
                        Some(nth) => theirs[nth] += credits,
                        None => whole += credits,
                    }
                    let output_index = item.map(|nth| i64::try_from(nth).expect("at most five"));
                    let charge_id = world.charge.id.clone();
                    world.rows.refunds.push(LedgerRefund { charge_id, output_index, bucket, credits });
                    world.theirs.add(bucket, credits);
                }
                // A resolved item is not decided again; the database enforces that.
                RefundStep::Look(item) if ours[item.index(prices.len())] => {}
                RefundStep::Look(item) => {
                    let nth = item.index(prices.len());
                    let index = i64::try_from(nth).expect("at most five");
                    let theirs_net = Split { subscription: world.theirs.subscription.max(0), wallet: world.theirs.wallet.max(0) };
                    let already = world.ours.plus(theirs_net);
                    let room = |bucket| (drawn.of(bucket) - already.of(bucket)).max(0);
                    let fits = room(Bucket::Subscription) + room(Bucket::Wallet) >= prices[nth];
                    let given = world.look(index);
                    prop_assert_eq!(given.is_some(), theirs[nth] <= 0 && whole <= 0 && fits, "item {}", nth);
                    let given = given.unwrap_or_default();
                    for bucket in Bucket::ALL {
                        prop_assert!((0..=room(bucket)).contains(&given.of(bucket)), "{given:?} of {already:?} in {drawn:?}");
                    }
                    world.ours = world.ours.plus(given);
                    ours[nth] = given.total() > 0;
                    prop_assert!(!ours[nth] || given.total() == i128::from(prices[nth]));
                }
            }
        }
        for bucket in Bucket::ALL {
            prop_assert!(world.ours.of(bucket) <= drawn.of(bucket));
        }
    }

    #[test]
    fn p03_if_every_item_failed_the_whole_draw_is_refunded(
        (prices, order) in prop::collection::vec(1..100_i64, 1..6)
            .prop_flat_map(|prices| { let order = (0..prices.len()).collect::<Vec<_>>(); (Just(prices), Just(order).prop_shuffle()) }),
        of_subscription in 0..=4_i64,
    ) {
        let mut world = World::new(&prices, prices.iter().sum::<i64>() * of_subscription / 4);
        for nth in order {
            let given = world.look(i64::try_from(nth).expect("at most five"));
            world.ours = world.ours.plus(given.expect("every item fits into the draw"));
        }
        prop_assert_eq!(world.ours, world.charge.drawn);
    }
}
