//! One charge, refunded item by item by makegood and by the platform in any order: `facts`, `policy` and `refund`
//! together, as settle puts them together.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::samples::{LIMITS, charged_at, facts, failed};
use super::super::{Action, decide};
use super::any::MINUTE;
use crate::charge::{Bucket, Charge, Item, ItemId, JobKey, Split};
use crate::evidence::FailureClass;
use crate::facts::{Around, Facts, JobItem, LedgerRefund, Rows};
use crate::refund::allocate;

/// Who gives back what, in the order in which it is committed.
#[derive(Clone, Debug)]
enum Step {
    /// makegood looks at this item, of which the provider says that it failed.
    Look(prop::sample::Index),
    /// The platform refunds this item, all or part of it or too much, wherever it likes.
    Platform(Option<prop::sample::Index>, Bucket, i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let buckets = prop::sample::select(Bucket::ALL.to_vec());
    // Rarely without an item: then all is held, and there is nothing more to see.
    let named = prop::option::weighted(0.9, any::<prop::sample::Index>());
    prop_oneof![
        3 => any::<prop::sample::Index>().prop_map(Step::Look),
        1 => (named, buckets, (-60..120_i64).prop_filter("gives or takes something", |credits| *credits != 0)).prop_map(|(item, bucket, credits)| Step::Platform(item, bucket, credits)),
    ]
}

struct World {
    charge: Charge,
    rows: Rows,
    ours: Split,
    theirs: Split,
}

impl World {
    /// A charge whose items are each bought from a job of its own.
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
        Facts::gather(self.charge.clone(), orphan, &Around::new(&self.rows))
    }

    /// What settle gives back for an item, if anything.
    fn look(&mut self, index: i64) -> Option<Split> {
        let facts = self.facts(index);
        let answer = failed(FailureClass::ServerError);
        let decision = decide(&facts, Some(&answer), &LIMITS, charged_at() + 20 * MINUTE);
        let item = facts.record.item.filter(|_| decision.action == Action::Refund)?;
        let already = self.ours.plus(facts.record.refunded_elsewhere.credits);
        allocate(item.credits, self.charge.drawn, already)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn p01_p03_in_any_order_no_item_is_given_back_twice_and_no_balance_gets_more_than_was_drawn_from_it(
        prices in prop::collection::vec(1..100_i64, 1..6), of_subscription in 0..=4_i64, steps in prop::collection::vec(any_step(), 1..16),
    ) {
        let subscription = prices.iter().sum::<i64>() * of_subscription / 4;
        let mut world = World::new(&prices, subscription);
        let drawn = world.charge.drawn;
        // What the platform gave, less what it took back, and whether we did; and what it gave for the charge without naming an item.
        let (mut theirs, mut ours, mut whole) = (vec![0; prices.len()], vec![false; prices.len()], 0);
        for step in steps {
            match step {
                Step::Platform(item, bucket, credits) => {
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
                // What is resolved is not looked at again; that it cannot be is the database's.
                Step::Look(item) if ours[item.index(prices.len())] => {}
                Step::Look(item) => {
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

    /// Left to makegood alone, all that failed comes back, to the last credit.
    #[test]
    fn p03_when_everything_failed_everything_comes_back(
        (prices, order) in prop::collection::vec(1..100_i64, 1..6)
            .prop_flat_map(|prices| { let order = (0..prices.len()).collect::<Vec<_>>(); (Just(prices), Just(order).prop_shuffle()) }),
        of_subscription in 0..=4_i64,
    ) {
        let mut world = World::new(&prices, prices.iter().sum::<i64>() * of_subscription / 4);
        for nth in order {
            let given = world.look(i64::try_from(nth).expect("at most five"));
            world.ours = world.ours.plus(given.expect("there is room for every item"));
        }
        prop_assert_eq!(world.ours, world.charge.drawn);
    }
}
