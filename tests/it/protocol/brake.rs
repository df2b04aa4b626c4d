//! The brake across processes: a second small model, checked over every interleaving.
//!
//! Three workers settle batches of one or two refunds each under one limit, and a person releases
//! the brake twice. Each worker reads sum and brake without a lock and decides what is admitted,
//! writes, locks the brake, decides once more, and commits or begins again. At every step it may
//! die, or lose the answer to its commit. The first model has a settle without a brake, and this
//! one has only the brake. Both assume that a commit is all or nothing.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

const WORKERS: usize = 3;
const LIMIT: u8 = 3;
/// Refunds of one batch at most.
const BATCH: u8 = 2;
const RELEASES: u8 = 2;

/// The guards of the limit; each can be switched off.
#[derive(Clone, Copy, Debug)]
struct Guards {
    /// The decision without a lock is repeated under the lock before the commit.
    confirmed: bool,
    /// That a refund is held is confirmed too, not only that others are admitted.
    held_too: bool,
    /// From then to the commit the brake's row is locked.
    locked: bool,
}

const ALL: Guards = Guards { confirmed: true, held_too: true, locked: true };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    /// It has read the brake and written its refunds, which no other session sees.
    Written(Batch),
    /// It has locked the brake, and the same came out.
    Confirmed(Batch),
}

/// Refunds that were admitted and held, and whether this settle engages the brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Batch {
    admitted: u8,
    held: u8,
    engages: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Refunds that are committed, since the last release.
    refunded: u8,
    engaged: bool,
    released: u8,
    workers: [Worker; WORKERS],
    wrong: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// More was refunded than the limit allows.
    LimitExceeded,
    /// A refund was committed after the engaged brake was visible.
    RefundedWhileEngaged,
    /// Refunds are held, and no brake is engaged: they would not be examined for an hour.
    HeldByNobody,
}

const ANY: [Fault; 3] = [Fault::LimitExceeded, Fault::RefundedWhileEngaged, Fault::HeldByNobody];

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Reads sum and brake without a lock, decides, and writes.
    Write(usize, u8),
    /// Locks the brake and decides again.
    Confirm(usize),
    Commit(usize),
    /// Dies, or is cut off before its commit.
    Die(usize),
    /// A person releases the brake.
    Release,
}

/// The brake's decision on this many refunds.
const fn decide(refunded: u8, engaged: bool, wanted: u8) -> Batch {
    let room = if engaged { 0 } else { LIMIT.saturating_sub(refunded) };
    let admitted = if wanted < room { wanted } else { room };
    Batch { admitted, held: wanted - admitted, engages: !engaged && admitted < wanted }
}

impl State {
    const fn start() -> Self {
        Self { refunded: 0, engaged: false, released: 0, workers: [Worker::Idle; WORKERS], wrong: None }
    }

    fn is_locked(&self, guards: Guards) -> bool {
        guards.locked && self.workers.iter().any(|each| matches!(each, Worker::Confirmed(_)))
    }

    fn steps(&self, guards: Guards) -> Vec<Step> {
        let mut steps = Vec::new();
        for (nth, worker) in self.workers.iter().enumerate() {
            match worker {
                Worker::Idle => steps.extend((1..=BATCH).map(|wanted| Step::Write(nth, wanted))),
                Worker::Written(_) => {
                    steps.push(Step::Die(nth));
                    if !self.is_locked(guards) {
                        steps.push(Step::Confirm(nth));
                    }
                }
                Worker::Confirmed(_) => steps.extend([Step::Die(nth), Step::Commit(nth)]),
            }
        }
        if self.released < RELEASES && self.engaged && !self.is_locked(guards) {
            steps.push(Step::Release);
        }
        steps
    }

    fn after(mut self, step: Step, guards: Guards) -> Self {
        match step {
            Step::Write(worker, wanted) => {
                self.workers[worker] = Worker::Written(decide(self.refunded, self.engaged, wanted));
            }
            Step::Confirm(worker) => {
                let Worker::Written(batch) = self.workers[worker] else { return self };
                let now = decide(self.refunded, self.engaged, batch.admitted + batch.held);
                let same = if guards.held_too {
                    now.admitted == batch.admitted
                } else {
                    now.admitted >= batch.admitted
                };
                self.workers[worker] = match (guards.confirmed, same) {
                    (false, _) => Worker::Confirmed(batch),
                    // Held by one that was released meanwhile: without the guard it is not engaged
                    // again either.
                    (true, true) => Worker::Confirmed(Batch { engages: now.engages, ..batch }),
                    (true, false) => Worker::Idle,
                };
            }
            Step::Commit(worker) => {
                let Worker::Confirmed(batch) = self.workers[worker] else { return self };
                if batch.admitted > 0 && self.engaged {
                    self.wrong = Some(Fault::RefundedWhileEngaged);
                }
                self.refunded += batch.admitted;
                self.engaged |= batch.engages;
                if self.refunded > LIMIT {
                    self.wrong = Some(Fault::LimitExceeded);
                }
                if batch.held > 0 && !self.engaged {
                    self.wrong = Some(Fault::HeldByNobody);
                }
                self.workers[worker] = Worker::Idle;
            }
            Step::Die(worker) => self.workers[worker] = Worker::Idle,
            Step::Release => {
                (self.refunded, self.engaged) = (0, false);
                self.released += 1;
            }
        }
        // Workers are symmetric: one state represents all that differ only in which worker is
        // which.
        self.workers.sort_by_key(|worker| match worker {
            Worker::Idle => (0, 0, 0, false),
            Worker::Written(batch) => (1, batch.admitted, batch.held, batch.engages),
            Worker::Confirmed(batch) => (2, batch.admitted, batch.held, batch.engages),
        });
        self
    }
}

struct Searched {
    states: usize,
    steps: usize,
    /// The way to the first of the faults that are looked for.
    fault: Option<Vec<Step>>,
    /// States that were reached at the limit and engaged, with nothing under way.
    full: usize,
}

fn search(guards: Guards, asked: &[Fault]) -> Searched {
    let mut known: HashMap<State, usize> = HashMap::from([(State::start(), 0)]);
    let mut found: Vec<(State, Option<(usize, Step)>)> = vec![(State::start(), None)];
    let mut todo = VecDeque::from([0]);
    let (mut steps, mut full) = (0, 0);
    while let Some(at) = todo.pop_front() {
        let state = found[at].0;
        if state.wrong.is_some_and(|fault| asked.contains(&fault)) {
            let (mut way, mut back) = (Vec::new(), at);
            while let Some((before, step)) = found[back].1 {
                way.insert(0, step);
                back = before;
            }
            return Searched { states: found.len(), steps, fault: Some(way), full };
        }
        let idle = state.workers.iter().all(|worker| *worker == Worker::Idle);
        full += usize::from(idle && state.engaged && state.refunded == LIMIT);
        for step in state.steps(guards) {
            // A fault is reported once. The search goes on from there as if it were none, so that
            // it ends with all states.
            let next = State { wrong: None, ..state }.after(step, guards);
            if next.refunded > 3 * LIMIT {
                continue;
            }
            steps += 1;
            if let Entry::Vacant(new) = known.entry(next) {
                new.insert(found.len());
                todo.push_back(found.len());
                found.push((next, Some((at, step))));
            }
        }
    }
    Searched { states: found.len(), steps, fault: None, full }
}

#[test]
fn p15_no_interleaving_exceeds_the_limit_or_refunds_under_an_engaged_brake() {
    let searched = search(ALL, &ANY);
    assert!(searched.fault.is_none(), "{:?}", searched.fault);
    // The limit itself is reached, after every release.
    assert_eq!(searched.full, usize::from(RELEASES) + 1);
    assert_eq!((searched.states, searched.steps), (1_948, 10_340));
    let page = include_str!("../../../docs/exactly-once.md");
    assert!(page.contains("(1,948 states, 10,340 steps)"), "docs/exactly-once.md tells other figures");
}

#[test]
fn p15_the_model_of_the_brake_finds_the_fault_that_each_guard_is_there_for() {
    for (guards, fault) in [
        (Guards { confirmed: false, ..ALL }, Fault::LimitExceeded),
        (Guards { confirmed: false, ..ALL }, Fault::RefundedWhileEngaged),
        (Guards { locked: false, ..ALL }, Fault::LimitExceeded),
        (Guards { locked: false, ..ALL }, Fault::RefundedWhileEngaged),
        (Guards { confirmed: false, ..ALL }, Fault::HeldByNobody),
        (Guards { held_too: false, ..ALL }, Fault::HeldByNobody),
    ] {
        let way = search(guards, &[fault]).fault.unwrap_or_else(|| panic!("{guards:?} does no harm"));
        println!("{guards:?} {fault:?}\n{way:#?}");
    }
}
