//! The states of the model, and the effect of each step on a state.

use super::Guards;

mod canonical;

pub const ITEMS: usize = 2;
pub const WORKERS: usize = 2;

/// How an item was made good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Refunded,
    Recovered,
    /// Delivered or refunded by the platform, so that nothing was owed.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    None,
    Alive,
    RunOut,
}

/// The database's rows of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    resolution: Option<Resolution>,
    lease: Lease,
    /// Refunds of ours. The unique key allows one.
    refunds: u8,
    /// Outputs of ours. One resolution allows one.
    recoveries: u8,
    /// How many of two actions the platform has done: stored an output, refunded. Either is a
    /// reason to close, neither is ever undone, and settle compares for equality, so their order
    /// makes no difference.
    elsewhere: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Undecided,
    Refund,
    Recover,
    Close,
    Wait,
}

impl Decision {
    /// The resolution that it makes; none: the item stays open.
    const fn ends_in(self) -> Option<Resolution> {
        match self {
            Self::Refund => Some(Resolution::Refunded),
            Self::Recover => Some(Resolution::Recovered),
            Self::Close => Some(Resolution::Closed),
            Self::Undecided | Self::Wait => None,
        }
    }
}

/// A worker's view of an item that it claimed, and the truth, whether the worker knows it or not.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and all combinations are walked"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// The lease token is still the newest: no worker has claimed the item since.
    newest: bool,
    /// The facts, as they were read.
    elsewhere: u8,
    decision: Decision,
    /// The check of the settling transaction found it leased by this worker and unchanged.
    stands: bool,
    /// That check stood in front of an output or a refund of the platform's.
    seen: bool,
    /// A transaction of this worker has ended the item, whether or not the worker got the answer.
    done: bool,
    /// A committed recovery names the object of this token.
    named: bool,
    /// The object of this token is gone.
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Tokens are raised; what was claimed is not read yet.
    Claimed,
    /// The facts are read, statement by statement, outside of a transaction.
    Read,
    /// The provider was asked and files are copied: nothing is visible to others, and no
    /// transaction is open.
    CarriedOut,
    /// In the settling transaction, after its check: rows are locked, nothing is visible to others
    /// yet.
    Checked,
    /// The answer to the commit was lost: it happened, or it did not.
    InDoubt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Work {
    stage: Stage,
    held: [Option<Held>; ITEMS],
}

/// States that must never occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An item was made good twice.
    MadeGoodTwice,
    /// An item was made good without a resolution, or the other way round.
    Unexplained,
    /// Two workers hold one token, and so write one object.
    TwoHolders,
    /// Refunded or recovered what settle's own check had seen delivered or refunded.
    MadeGoodWhatWasSeen,
    /// A worker reported another result of an item than it committed.
    ToldWrong,
    /// A worker threw a file away that a committed recovery names.
    ThrownAway,
    /// A recovery was committed whose file was gone.
    NamesNothing,
    /// A unique key had to refuse what settle was about to write.
    KeyWasNeeded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    items: [Item; ITEMS],
    workers: [Option<Work>; WORKERS],
    /// The violation of the last step.
    wrong: Option<Fault>,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Claim(usize, [bool; ITEMS]),
    Read(usize),
    AskDecideCarryOut(usize, [Decision; ITEMS]),
    Check(usize),
    Commit(usize),
    /// The connection breaks at the commit, which happened (true) or did not.
    CutOff(usize, bool),
    /// Looks whether that happened before it tries again: at the orphans in the batch's order,
    /// which may be any.
    Look(usize, [usize; ITEMS]),
    /// An item whose charge or account another session has locked is left out of the batch and
    /// postponed.
    LeaveOut(usize, usize),
    /// Killed, or its database connection is lost: uncommitted work is rolled back.
    Die(usize),
    RunOut(usize),
    /// A pass sweeps the file of a lease that is over: a worker's, of an item.
    Sweep(usize, usize),
    /// The platform stores an output of the item, or refunds it.
    Platform(usize),
}

/// The result of the check of a commit in doubt.
enum Looked {
    Happened,
    DidNot,
    CannotTell,
}

impl Item {
    const fn new() -> Self {
        Self { resolution: None, lease: Lease::None, refunds: 0, recoveries: 0, elsewhere: 0 }
    }
}

impl Held {
    const fn claimed() -> Self {
        Self {
            newest: true,
            elsewhere: 0,
            decision: Decision::Undecided,
            stands: false,
            seen: false,
            done: false,
            named: false,
            gone: false,
        }
    }

    /// Has brought a file home.
    fn has_file(self) -> bool {
        self.decision == Decision::Recover
    }
}

impl State {
    pub const fn start() -> Self {
        Self { items: [Item::new(); ITEMS], workers: [None; WORKERS], wrong: None }
    }

    /// Whether an open transaction has locked the item's row.
    fn locked(&self, item: usize, guards: Guards) -> bool {
        let holds = |work: &Work| work.stage == Stage::Checked && work.held[item].is_some();
        guards.locks && self.workers.iter().flatten().any(holds)
    }

    /// The charge's row is locked first: one settle of a charge at a time.
    fn charge_is_locked(&self, guards: Guards) -> bool {
        guards.locks && self.workers.iter().flatten().any(|work| work.stage == Stage::Checked)
    }

    /// Everything that can happen next.
    pub fn steps(&self, guards: Guards) -> Vec<Step> {
        let mut steps = Vec::new();
        for (nth, worker) in self.workers.iter().enumerate() {
            let Some(work) = worker else {
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
                continue;
            };
            steps.push(Step::Die(nth));
            match work.stage {
                Stage::Claimed => steps.push(Step::Read(nth)),
                Stage::Read => {
                    for first in choices(work.held[0]) {
                        for second in choices(work.held[1]) {
                            steps.push(Step::AskDecideCarryOut(nth, [*first, *second]));
                        }
                    }
                }
                Stage::CarriedOut => {
                    if !self.charge_is_locked(guards) {
                        steps.push(Step::Check(nth));
                    }
                    let both = work.held.iter().all(Option::is_some);
                    steps.extend((0..ITEMS).filter(|_| both).map(|item| Step::LeaveOut(nth, item)));
                }
                // It locks the orphans and nothing else.
                Stage::InDoubt
                    if (0..ITEMS).all(|item| work.held[item].is_none() || !self.locked(item, guards)) =>
                {
                    steps.push(Step::Look(nth, [0, 1]));
                    steps.push(Step::Look(nth, [1, 0]));
                }
                Stage::InDoubt => {}
                Stage::Checked => {
                    steps.extend([Step::Commit(nth), Step::CutOff(nth, true), Step::CutOff(nth, false)]);
                }
            }
            for item in 0..ITEMS {
                if self.may_be_swept(work, item, guards) {
                    steps.push(Step::Sweep(nth, item));
                }
            }
        }
        for (nth, item) in self.items.iter().enumerate() {
            if item.lease == Lease::Alive {
                steps.push(Step::RunOut(nth));
            }
            if item.elsewhere < 2 {
                steps.push(Step::Platform(nth));
            }
        }
        steps
    }

    /// An upload record whose lease has ended, and whose file no row names.
    fn may_be_swept(&self, work: &Work, item: usize, guards: Guards) -> bool {
        let Some(held) = &work.held[item] else { return false };
        let over = match self.items[item].lease {
            _ if !held.newest => true,
            Lease::None => true,
            // A locked row is left for the next time.
            Lease::RunOut => !self.locked(item, guards),
            Lease::Alive => false,
        };
        over && held.has_file() && !held.done && !held.named && !held.gone
    }

    pub fn after(&self, step: Step, guards: Guards) -> Self {
        let mut next = Self { wrong: None, ..*self };
        match step {
            Step::Claim(worker, which) => {
                let mut held = [None; ITEMS];
                for item in (0..ITEMS).filter(|item| which[*item]) {
                    next.items[item].lease = Lease::Alive;
                    held[item] = Some(Held::claimed());
                    // The token was raised: the holder of the one before has an outdated one.
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
                    // The token as it is in the row, whichever worker's it is.
                    read.newest = true;
                    read.elsewhere = row.elsewhere;
                }
                work.stage = Stage::Read;
            }),
            Step::AskDecideCarryOut(worker, decisions) => next.at_work(worker, |_, work| {
                for (held, decision) in work.held.iter_mut().zip(decisions) {
                    if let Some(held) = held {
                        held.decision = decision;
                    }
                }
                work.stage = Stage::CarriedOut;
            }),
            Step::Check(worker) => next.check(worker, guards),
            Step::Commit(worker) => {
                next = next.committed(worker, guards);
                // A row that a unique key rejects is reported as refused, for a person to examine.
                if next.wrong != Some(Fault::KeyWasNeeded) {
                    next.tell(worker);
                }
                next.workers[worker] = None;
            }
            Step::CutOff(worker, happened) => {
                if happened {
                    next = next.committed(worker, guards);
                }
                next.at_work(worker, |_, work| work.stage = Stage::InDoubt);
            }
            Step::LeaveOut(worker, item) => {
                next.tell_of(worker, item);
                next.at_work(worker, |_, work| work.held[item] = None);
            }
            Step::Look(worker, order) => match next.look(worker, order, guards) {
                Looked::Happened => {
                    next.tell(worker);
                    next.workers[worker] = None;
                }
                Looked::DidNot => next.at_work(worker, |_, work| {
                    for held in work.held.iter_mut().flatten() {
                        (held.stands, held.seen) = (false, false);
                    }
                    work.stage = Stage::CarriedOut;
                }),
                // The pass fails, and nothing is thrown away.
                Looked::CannotTell => next.workers[worker] = None,
            },
            Step::Die(worker) => next.workers[worker] = None,
            Step::RunOut(item) => next.items[item].lease = Lease::RunOut,
            Step::Sweep(worker, item) => {
                let newest = next.held(worker, item).is_some_and(|held| held.newest);
                if guards.ended && newest {
                    next.items[item].lease = Lease::None;
                }
                next.lose_file(worker, item);
            }
            Step::Platform(item) => next.items[item].elsewhere += 1,
        }
        next
    }

    fn held(&mut self, worker: usize, item: usize) -> Option<&mut Held> {
        self.workers[worker].as_mut()?.held[item].as_mut()
    }

    fn at_work(&mut self, worker: usize, change: impl FnOnce(&Self, &mut Work)) {
        let before = *self;
        if let Some(work) = &mut self.workers[worker] {
            change(&before, work);
        }
    }

    /// All workers that hold the same token of the item: this one only, as long as every guard is
    /// on.
    fn alike(&mut self, worker: usize, item: usize, change: impl Fn(&mut Held)) {
        let newest = self.held(worker, item).is_some_and(|held| held.newest);
        for other in 0..WORKERS {
            if let Some(held) = self.held(other, item)
                && (other == worker || (newest && held.newest))
            {
                change(held);
            }
        }
    }

    /// The object of a token is removed: a worker that has written it loses it.
    fn lose_file(&mut self, worker: usize, item: usize) {
        self.alike(worker, item, |held| held.gone = held.has_file());
    }

    /// The proof of settle, under its locks.
    fn check(&mut self, worker: usize, guards: Guards) {
        self.at_work(worker, |state, work| {
            for (held, row) in work.held.iter_mut().zip(&state.items) {
                let Some(held) = held else { continue };
                let alive = row.lease != Lease::None && row.resolution.is_none();
                let ours = !guards.token || (held.newest && alive);
                held.stands = ours && (held.elsewhere == row.elsewhere || !guards.facts);
                // The facts of the last look, whatever is decided on them.
                held.seen = held.stands && row.elsewhere > 0;
            }
            work.stage = Stage::Checked;
        });
    }

    /// The rows after the settling transaction; as they were, if a key forbids it.
    fn committed(&self, worker: usize, guards: Guards) -> Self {
        let mut next = *self;
        for item in 0..ITEMS {
            let Some(held) = self.workers[worker].and_then(|work| work.held[item]).filter(|held| held.stands)
            else {
                continue;
            };
            let row = &mut next.items[item];
            row.lease = Lease::None;
            let Some(resolution) = held.decision.ends_in() else { continue };
            if guards.keys && row.resolution.is_some() {
                // Commits all of it or nothing.
                return Self { wrong: Some(Fault::KeyWasNeeded), ..*self };
            }
            row.resolution = Some(resolution);
            match resolution {
                Resolution::Refunded => row.refunds += 1,
                Resolution::Recovered => row.recoveries += 1,
                Resolution::Closed => {}
            }
            if held.seen && resolution != Resolution::Closed {
                next.wrong = Some(Fault::MadeGoodWhatWasSeen);
            }
            if let Some(held) = next.held(worker, item) {
                held.done = true;
            }
            if resolution == Resolution::Recovered {
                if held.gone {
                    next.wrong = Some(Fault::NamesNothing);
                }
                next.alike(worker, item, |held| held.named = true);
            }
        }
        next
    }

    /// Whether a commit in doubt happened: `doubt.rs`, line by line.
    fn look(&self, worker: usize, order: [usize; ITEMS], guards: Guards) -> Looked {
        let mut waits_happened = false;
        for item in order {
            let Some(held) = self.workers[worker].and_then(|work| work.held[item]).filter(|held| held.stands)
            else {
                continue;
            };
            let row = &self.items[item];
            match (held.newest, held.decision.ends_in().is_some()) {
                _ if !guards.doubt => return Looked::DidNot,
                (true, true) if row.resolution.is_some() => return Looked::Happened,
                (true, true) => return Looked::DidNot,
                (false, true) => return Looked::CannotTell,
                (newest, false) => {
                    waits_happened |= newest && (row.lease == Lease::None || row.resolution.is_some());
                }
            }
        }
        if waits_happened { Looked::Happened } else { Looked::DidNot }
    }

    /// Each item is reported as its check found it. An item whose facts changed is given back, and
    /// its file is deleted.
    fn tell(&mut self, worker: usize) {
        for item in 0..ITEMS {
            self.tell_of(worker, item);
        }
    }

    fn tell_of(&mut self, worker: usize, item: usize) {
        let Some(held) = self.workers[worker].and_then(|work| work.held[item]) else { return };
        if held.decision.ends_in().is_some() && held.stands != held.done {
            self.wrong = Some(Fault::ToldWrong);
        }
        if held.stands {
            return;
        }
        if held.newest {
            self.items[item].lease = Lease::None;
        }
        if held.has_file() {
            if held.named {
                self.wrong = Some(Fault::ThrownAway);
            }
            self.lose_file(worker, item);
        }
    }

    /// The violations, of those that are searched for.
    pub fn fault(&self, asked: &[Fault]) -> Option<Fault> {
        let holders = |item: usize| {
            let newest = |work: &&Work| work.held[item].is_some_and(|held| held.newest);
            self.workers.iter().flatten().filter(newest).count()
        };
        let twice = |item: &Item| item.refunds + item.recoveries > 1;
        let unexplained = |item: &Item| {
            (item.refunds, item.recoveries)
                != match item.resolution {
                    Some(Resolution::Refunded) => (1, 0),
                    Some(Resolution::Recovered) => (0, 1),
                    Some(Resolution::Closed) | None => (0, 0),
                }
        };
        asked.iter().copied().find(|fault| match fault {
            Fault::MadeGoodTwice => self.items.iter().any(twice),
            Fault::Unexplained => self.items.iter().any(unexplained),
            Fault::TwoHolders => (0..ITEMS).any(|item| holders(item) > 1),
            Fault::MadeGoodWhatWasSeen
            | Fault::ToldWrong
            | Fault::ThrownAway
            | Fault::NamesNothing
            | Fault::KeyWasNeeded => self.wrong == Some(*fault),
        })
    }

    pub fn is_over(&self) -> bool {
        self.items.iter().all(|item| item.resolution.is_some())
    }
}

/// The possible decisions: delivered or refunded means close; otherwise the provider may have said
/// anything.
fn choices(held: Option<Held>) -> &'static [Decision] {
    match held {
        None => &[Decision::Undecided],
        Some(held) if held.elsewhere > 0 => &[Decision::Close],
        Some(_) => &[Decision::Refund, Decision::Recover, Decision::Wait],
    }
}
