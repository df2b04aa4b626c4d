//! Claim, carry out, settle: a small model of the protocol, checked over every interleaving.
//!
//! Two workers, two items of one charge, and a platform that stores outputs and refunds by itself at any moment. Every
//! worker may die, be paused past its lease, or lose the answer to its commit, at every step; the provider may say
//! anything, and something else the next time. `docs/exactly-once.md` says which statement of the program is which
//! step here, and why the program is this model.
//!
//! Every state that can be reached (up to who is who) is looked at (breadth first, own code: besides what must never be, it is to be
//! shown that from *every* state a good end can still be reached, which needs the whole graph). Each guard of the
//! protocol can be switched off: that the model then finds the fault shows that it could find one.

use std::collections::{HashMap, VecDeque};
use std::fmt;

const ITEMS: usize = 2;
const WORKERS: usize = 2;
/// What the charge drew; an item is worth one credit.
const DRAWN: u8 = 2;

/// How an item was made good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Resolution {
    Refunded,
    Recovered,
    /// Delivered or refunded by the platform, so that nothing was owed.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Lease {
    None,
    Alive,
    RunOut,
}

/// What the database holds of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Item {
    resolution: Option<Resolution>,
    lease: Lease,
    /// Refunds of ours. The unique key allows one.
    refunds: u8,
    /// Outputs of ours. One resolution allows one.
    recoveries: u8,
    /// The platform stored an output.
    delivered: bool,
    /// The platform refunded it.
    refunded_elsewhere: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Decision {
    Undecided,
    Refund,
    Recover,
    Close,
    Wait,
}

/// What a worker knows of an item that it claimed.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and all combinations are walked"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Held {
    /// The lease token is still the newest: nobody has claimed the item since.
    newest: bool,
    /// The facts, as they were read.
    delivered: bool,
    refunded_elsewhere: bool,
    decision: Decision,
    /// The check of the settling transaction found it ours and unchanged.
    stands: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    /// Tokens are raised; what was claimed is not read yet.
    Claimed,
    /// The facts are read, statement by statement, outside of a transaction.
    Read,
    /// The provider was asked and files are copied: nothing that anybody else can see, and no transaction is open.
    CarriedOut,
    /// In the settling transaction, after its check: rows are locked, nothing is visible to others yet.
    Checked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Work {
    stage: Stage,
    held: [Option<Held>; ITEMS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct State {
    items: [Item; ITEMS],
    workers: [Option<Work>; WORKERS],
    /// `makegood_charges`: what was given back of the charge.
    given_back: u8,
    /// The balance, above what it was.
    balance: u8,
    /// A refund was written although the settle's own check had seen an output or a refund of the platform's.
    refunded_what_was_seen: bool,
}

/// What holds the protocol together; each can be switched off.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Copy, Debug)]
struct Guards {
    /// What is read after a claim counts only where it has the token of that claim.
    claimed: bool,
    /// Settle proves that its token is the newest.
    token: bool,
    /// Settle reads the facts again and gives back what changed.
    facts: bool,
    /// From its check to its commit settle holds locks on charge and orphans.
    locks: bool,
    /// Resolutions and refunds have unique keys; a violation rolls the transaction back.
    keys: bool,
}

const ALL: Guards = Guards { claimed: true, token: true, facts: true, locks: true, keys: true };

#[derive(Clone, Copy, Debug)]
enum Step {
    Claim(usize, [bool; ITEMS]),
    Read(usize),
    AskDecideCarryOut(usize, [Decision; ITEMS]),
    Check(usize),
    Commit(usize),
    /// Killed, or its connection or the database is gone: what was not committed never was.
    Die(usize),
    RunOut(usize),
    Deliver(usize),
    RefundElsewhere(usize),
}

impl Item {
    const fn new() -> Self {
        Self {
            resolution: None,
            lease: Lease::None,
            refunds: 0,
            recoveries: 0,
            delivered: false,
            refunded_elsewhere: false,
        }
    }
}

impl State {
    const fn start() -> Self {
        Self {
            items: [Item::new(); ITEMS],
            workers: [None; WORKERS],
            given_back: 0,
            balance: 0,
            refunded_what_was_seen: false,
        }
    }

    /// Whether somebody's open transaction has the item's row locked.
    fn locked(&self, item: usize, guards: Guards) -> bool {
        let holds = |work: &Work| work.stage == Stage::Checked && work.held[item].is_some();
        guards.locks && self.workers.iter().flatten().any(holds)
    }

    /// Everything that can happen next.
    fn steps(&self, guards: Guards) -> Vec<Step> {
        let mut steps = Vec::new();
        for (nth, worker) in self.workers.iter().enumerate() {
            match worker {
                None => {
                    let free = |item: usize| {
                        let row = &self.items[item];
                        row.resolution.is_none() && row.lease != Lease::Alive && !self.locked(item, guards)
                    };
                    // Any of those that are due: of one job or of several, in one batch or in two.
                    for which in [[true, false], [false, true], [true, true]] {
                        if (0..ITEMS).all(|item| !which[item] || free(item)) {
                            steps.push(Step::Claim(nth, which));
                        }
                    }
                }
                Some(work) => {
                    steps.push(Step::Die(nth));
                    match work.stage {
                        Stage::Claimed => steps.push(Step::Read(nth)),
                        Stage::Read => {
                            for first in choices(work.held[0]) {
                                for second in choices(work.held[1]) {
                                    steps.push(Step::AskDecideCarryOut(nth, [first, second]));
                                }
                            }
                        }
                        Stage::CarriedOut => {
                            // The charge's row is locked first: one settle of a charge at a time.
                            let busy = |work: &Work| work.stage == Stage::Checked;
                            if !(guards.locks && self.workers.iter().flatten().any(busy)) {
                                steps.push(Step::Check(nth));
                            }
                        }
                        Stage::Checked => steps.push(Step::Commit(nth)),
                    }
                }
            }
        }
        for (nth, item) in self.items.iter().enumerate() {
            if item.lease == Lease::Alive {
                steps.push(Step::RunOut(nth));
            }
            if !item.delivered {
                steps.push(Step::Deliver(nth));
            }
            if !item.refunded_elsewhere {
                steps.push(Step::RefundElsewhere(nth));
            }
        }
        steps
    }

    fn after(&self, step: Step, guards: Guards) -> Self {
        let mut next = *self;
        match step {
            Step::Claim(worker, which) => {
                let mut held = [None; ITEMS];
                for item in (0..ITEMS).filter(|item| which[*item]) {
                    let row = &mut next.items[item];
                    row.lease = Lease::Alive;
                    held[item] = Some(Held {
                        newest: true,
                        delivered: false,
                        refunded_elsewhere: false,
                        decision: Decision::Undecided,
                        stands: false,
                    });
                    // The token was raised: whoever held the one before holds an old one.
                    for other in next.workers.iter_mut().flatten() {
                        if let Some(held) = &mut other.held[item] {
                            held.newest = false;
                        }
                    }
                }
                next.workers[worker] = Some(Work { stage: Stage::Claimed, held });
            }
            Step::Read(worker) => next.at_work(worker, |state, work| {
                for (held, row) in work.held.iter_mut().zip(&state.items) {
                    let Some(read) = held else { continue };
                    if guards.claimed && !read.newest {
                        *held = None;
                        continue;
                    }
                    // The token stands in the row that is read: whoever's it is.
                    *read = Held {
                        newest: true,
                        delivered: row.delivered,
                        refunded_elsewhere: row.refunded_elsewhere,
                        ..*read
                    };
                }
                work.stage = Stage::Read;
            }),
            Step::AskDecideCarryOut(worker, decisions) => {
                next.at_work(worker, |_, work| {
                    for (held, decision) in work.held.iter_mut().zip(decisions) {
                        if let Some(held) = held {
                            held.decision = decision;
                        }
                    }
                    work.stage = Stage::CarriedOut;
                });
            }
            Step::Check(worker) => next.at_work(worker, |state, work| {
                for (held, row) in work.held.iter_mut().zip(&state.items) {
                    let Some(held) = held else { continue };
                    let ours = !guards.token || (held.newest && row.lease != Lease::None);
                    let same =
                        (held.delivered, held.refunded_elsewhere) == (row.delivered, row.refunded_elsewhere);
                    held.stands = ours && (same || !guards.facts);
                }
                work.stage = Stage::Checked;
            }),
            Step::Commit(worker) => {
                if let Some(work) = next.workers[worker].take() {
                    // All of it or nothing.
                    if let Some(committed) = next.committed(&work, guards) {
                        next = committed;
                    }
                }
            }
            Step::Die(worker) => next.workers[worker] = None,
            Step::RunOut(item) => next.items[item].lease = Lease::RunOut,
            Step::Deliver(item) => next.items[item].delivered = true,
            Step::RefundElsewhere(item) => next.items[item].refunded_elsewhere = true,
        }
        next
    }

    fn at_work(&mut self, worker: usize, change: impl FnOnce(&Self, &mut Work)) {
        let before = *self;
        if let Some(work) = &mut self.workers[worker] {
            change(&before, work);
        }
    }

    /// The rows after the settling transaction; none if a key forbids it.
    fn committed(&self, work: &Work, guards: Guards) -> Option<Self> {
        let mut next = *self;
        for (held, row) in work.held.iter().zip(&mut next.items) {
            let Some(held) = held else { continue };
            if !held.stands {
                // Changed: given back, if it is ours to give. Lost: nothing.
                if held.newest {
                    row.lease = Lease::None;
                }
                continue;
            }
            let resolution = match held.decision {
                Decision::Undecided | Decision::Wait => {
                    row.lease = Lease::None;
                    continue;
                }
                Decision::Refund => Resolution::Refunded,
                Decision::Recover => Resolution::Recovered,
                Decision::Close => Resolution::Closed,
            };
            if guards.keys && row.resolution.is_some() {
                return None;
            }
            match resolution {
                Resolution::Refunded => {
                    row.refunds += 1;
                    next.given_back += 1;
                    next.balance += 1;
                    // Seen by the check, or it would not stand with the guard on.
                    next.refunded_what_was_seen |= (row.delivered && held.delivered)
                        || (row.refunded_elsewhere && held.refunded_elsewhere)
                        || (!guards.facts && (row.delivered || row.refunded_elsewhere));
                }
                Resolution::Recovered => row.recoveries += 1,
                Resolution::Closed => {}
            }
            row.resolution = Some(resolution);
            row.lease = Lease::None;
        }
        (!guards.keys || next.given_back <= DRAWN).then_some(next)
    }

    /// What must never be.
    fn fault(&self) -> Option<&'static str> {
        let refunds: u8 = self.items.iter().map(|item| item.refunds).sum();
        let holders = |item: usize| {
            let newest = |work: &&Work| work.held[item].is_some_and(|held| held.newest);
            self.workers.iter().flatten().filter(newest).count()
        };
        let twice = |item: &Item| item.refunds + item.recoveries > 1;
        let unexplained = |item: &Item| {
            (item.refunds + item.recoveries > 0)
                != matches!(item.resolution, Some(Resolution::Refunded | Resolution::Recovered))
        };
        if self.items.iter().any(twice) {
            Some("an item was made good twice")
        } else if self.items.iter().any(unexplained) {
            Some("an item was made good without a resolution that says so, or the other way round")
        } else if refunds > DRAWN || self.given_back != refunds || self.balance != refunds {
            Some("the books do not balance")
        } else if (0..ITEMS).any(|item| holders(item) > 1) {
            Some("two workers hold one token, and so write one object")
        } else if self.refunded_what_was_seen {
            Some("refunded what the check had seen delivered or refunded")
        } else {
            None
        }
    }

    /// Workers are alike and items are alike: one state stands for all that differ only in who is who.
    fn canonical(mut self) -> Self {
        let swap_items = |mut state: Self| {
            state.items.swap(0, 1);
            state.workers.iter_mut().flatten().for_each(|work| work.held.swap(0, 1));
            state
        };
        let swap_workers = |mut state: Self| {
            state.workers.swap(0, 1);
            state
        };
        for other in [swap_items(self), swap_workers(self), swap_workers(swap_items(self))] {
            if other < self {
                self = other;
            }
        }
        self
    }

    fn is_over(&self) -> bool {
        self.items.iter().all(|item| item.resolution.is_some())
    }
}

/// What may be decided: delivered or refunded means close; else the provider may have said anything.
fn choices(held: Option<Held>) -> Vec<Decision> {
    match held {
        None => vec![Decision::Undecided],
        Some(held) if held.delivered || held.refunded_elsewhere => vec![Decision::Close],
        Some(_) => vec![Decision::Refund, Decision::Recover, Decision::Wait],
    }
}

/// How the search ended.
struct Searched {
    states: usize,
    steps: usize,
    /// The first fault with the way to it.
    fault: Option<Story>,
    /// States from which no good end can be reached any more.
    stuck: usize,
}

struct Story {
    what: &'static str,
    way: Vec<Step>,
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.what)?;
        self.way.iter().enumerate().try_for_each(|(nth, step)| writeln!(f, "{:>4}. {step:?}", nth + 1))
    }
}

fn search(guards: Guards) -> Searched {
    let mut known = HashMap::from([(State::start(), 0_usize)]);
    let mut states = vec![State::start()];
    let mut came_from: Vec<Option<(usize, Step)>> = vec![None];
    let mut leads_back: Vec<Vec<u32>> = vec![Vec::new()];
    let mut todo = VecDeque::from([0_usize]);
    let mut steps = 0;
    let mut fault = None;
    while let Some(at) = todo.pop_front() {
        let state = states[at];
        if let Some(what) = state.fault() {
            let mut way = Vec::new();
            let mut back = at;
            while let Some((before, step)) = came_from[back] {
                way.insert(0, step);
                back = before;
            }
            fault = Some(Story { what, way });
            break;
        }
        for step in state.steps(guards) {
            steps += 1;
            let next = state.after(step, guards).canonical();
            let to = *known.entry(next).or_insert_with(|| {
                states.push(next);
                came_from.push(Some((at, step)));
                leads_back.push(Vec::new());
                todo.push_back(states.len() - 1);
                states.len() - 1
            });
            leads_back[to].push(u32::try_from(at).unwrap());
        }
    }
    // Backwards from every good end.
    let mut good: Vec<bool> = states.iter().map(State::is_over).collect();
    let mut todo: Vec<usize> = (0..states.len()).filter(|at| good[*at]).collect();
    while let Some(at) = todo.pop() {
        for before in &leads_back[at] {
            let before = *before as usize;
            if !good[before] {
                good[before] = true;
                todo.push(before);
            }
        }
    }
    Searched { states: states.len(), steps, fault, stuck: good.iter().filter(|good| !**good).count() }
}

#[test]
fn p02_every_item_is_made_good_once_in_every_interleaving_and_none_is_ever_stuck() {
    let searched = search(ALL);
    println!("{} states, {} steps, {} stuck", searched.states, searched.steps, searched.stuck);
    assert!(searched.fault.is_none(), "{:?}", searched.fault);
    assert!(searched.states > 10_000, "only {} states: the model has become too small", searched.states);
    assert_eq!(searched.stuck, 0);
}

#[test]
fn p02_no_single_guard_stands_alone_between_an_item_and_a_second_refund() {
    for guards in
        [Guards { token: false, ..ALL }, Guards { locks: false, ..ALL }, Guards { keys: false, ..ALL }]
    {
        let searched = search(guards);
        assert!(searched.fault.is_none(), "{guards:?}: {:?}", searched.fault);
    }
}

#[test]
fn the_model_finds_the_fault_that_each_guard_is_there_for() {
    for (guards, expected) in [
        (Guards { claimed: false, ..ALL }, "two workers hold one token, and so write one object"),
        (Guards { token: false, keys: false, ..ALL }, "an item was made good twice"),
        (Guards { locks: false, keys: false, ..ALL }, "an item was made good twice"),
        (Guards { facts: false, ..ALL }, "refunded what the check had seen delivered or refunded"),
    ] {
        let story = search(guards).fault.unwrap_or_else(|| panic!("{guards:?} does no harm"));
        assert_eq!(story.what, expected, "{story:?}");
        assert!(!story.way.is_empty());
    }
}
