//! States that differ only in names: one of them represents all, with a number that is unique to
//! it.
//!
//! The search stores the numbers of the states that it has seen, so every field of a state has bits
//! of its own here.

use super::{Held, Item, State, Work};

impl Item {
    fn code(self) -> u32 {
        let resolution = self.resolution.map_or(0, |resolution| resolution as u32 + 1);
        let counts = u32::from(self.refunds) << 3 | u32::from(self.recoveries);
        resolution << 10 | (self.lease as u32) << 8 | counts << 2 | u32::from(self.elsewhere)
    }
}

impl Held {
    fn code(self) -> u32 {
        1 | u32::from(self.newest) << 1
            | u32::from(self.stands) << 2
            | u32::from(self.seen) << 3
            | u32::from(self.done) << 4
            | u32::from(self.named) << 5
            | u32::from(self.gone) << 6
            | u32::from(self.elsewhere) << 7
            | (self.decision as u32) << 9
    }
}

impl State {
    /// Workers and items are symmetric: one state represents all that differ only in which is
    /// which. Returns it with a unique number.
    pub fn canonical(mut self) -> (u128, Self) {
        let work = |work: &Option<Work>| match work {
            None => (0, 0, 0),
            Some(work) => {
                let held = |nth: usize| work.held[nth].map_or(0, Held::code);
                (work.stage as u32 + 1, held(0), held(1))
            }
        };
        let (one, other) = (work(&self.workers[0]), work(&self.workers[1]));
        let items = (self.items[0].code(), self.items[1].code());
        // 12 bits an item or what is held of one, 3 a stage.
        let straight = |(stage, first, second): (u32, u32, u32)| stage << 24 | first << 12 | second;
        let crossed = |(stage, first, second): (u32, u32, u32)| stage << 24 | second << 12 | first;
        let ordered = |one: u32, other: u32| (one.min(other), one.max(other), other < one);
        let as_is = (items.0 << 12 | items.1, ordered(straight(one), straight(other)));
        let swapped = (items.1 << 12 | items.0, ordered(crossed(one), crossed(other)));
        let (items, (first, second, workers)) = as_is.min(swapped);
        if swapped < as_is {
            self.items.swap(0, 1);
            self.workers.iter_mut().flatten().for_each(|work| work.held.swap(0, 1));
        }
        if workers {
            self.workers.swap(0, 1);
        }
        let wrong = self.wrong.map_or(0, |wrong| wrong as u128 + 1);
        (wrong << 78 | u128::from(items) << 54 | u128::from(first) << 27 | u128::from(second), self)
    }
}
