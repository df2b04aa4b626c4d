//! A world of 48 hours, drawn from a seed alone: charges and how their jobs end, the platform's own
//! actions and their times, outages, a clock that is wrong for some hours, and when makegood's
//! workers run and die.
//!
//! Times are minutes from the world's beginning. The same seed gives the same plan.

use makegood::pass::Deed;

use super::job::{Job, Says, Turn};
use crate::faults::plan::Dice;

/// The last charge is made this long before the end, so that every window closes.
const LAST_CHARGE: u64 = 22 * 60;
/// When the world ends. If its clocks are wrong, it ends later by as much.
const END: i64 = 48 * 60;
/// Longest time between two passes, in minutes. In production there is one every minute.
const GAP: u64 = 45;
/// And the shortest.
const SHORTEST_GAP: u64 = 8;
/// By how much the clock moves while workers run, in minutes: longer than a lease.
pub const LEAP: u64 = 16;

/// The most workers side by side.
pub const WORKERS: usize = 3;
/// By at most this many minutes their clocks are ahead or behind.
const ASTRAY: u64 = 4;

/// The latest commit that is still found, less the time by which the clock was ahead: the last scan
/// is at 20 hours and stays an hour behind.
const LATEST: i64 = 19 * 60;

/// Never.
pub const NEVER: i64 = i64::MAX;

/// The platform's action on one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    Nothing,
    Stores,
    StoresInTheWrongPlace,
    StoresLinkedToNothing,
    /// Linked to the first item of the charge before.
    StoresOnAnother,
    Refunds,
}

#[derive(Clone, Debug)]
pub struct Item {
    /// Which of the charge's jobs.
    pub job: usize,
    /// Which output of it.
    pub output: i64,
    pub own: Own,
    /// When it acts; and when it recorded the failure of the item.
    pub own_at: i64,
    pub failed_at: i64,
    /// When it removes the row of a recovered output.
    pub loses_at: i64,
}

#[derive(Clone, Debug)]
pub struct Charge {
    pub id: String,
    pub account: u64,
    pub provider: &'static str,
    /// Its time, when its row is committed, and when its items are.
    pub at: i64,
    pub committed: i64,
    pub items_at: i64,
    pub cancelled: i64,
    /// In hundredths.
    pub subscription: i64,
    /// Empty: it was never submitted.
    pub jobs: Vec<Job>,
    pub own_jobs: bool,
    pub items: Vec<Item>,
}

/// The fault of a worker in a pass. Its time is counted in rests: how often all its tasks waited
/// for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lives,
    /// Dies at this rest.
    Dies(u32),
    /// Is suspended at this rest, until all others have ended.
    Sleeps(u32),
}

/// One time at which workers run.
#[derive(Clone, Debug)]
pub struct Pass {
    pub at: i64,
    /// The fault of each worker.
    pub workers: Vec<Fate>,
    /// At which turn of theirs, all turns counted, the clock leaps past every lease while they are
    /// at work.
    pub leap: Option<u32>,
    /// One in this many of the platform's actions since the last pass happens while this pass asks
    /// about the item; zero: none.
    pub meanwhile: usize,
    /// An operator who makes an item good by hand meanwhile.
    pub operator: Option<Operator>,
}

/// An operator who makes one item good by hand.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    pub deed: Deed,
    /// Which item, of all or of those that wait: the index modulo their number.
    pub pick: u64,
    pub of_those_that_wait: bool,
    pub fate: Fate,
}

/// When a provider is of no use.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub provider: &'static str,
    pub from: i64,
    pub until: i64,
    pub trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is away.
    Away,
    /// It refuses our key.
    RefusesUs,
    /// It answers 429, with the time after which to ask again.
    TooOften,
}

/// The clock is wrong by this many minutes.
#[derive(Clone, Copy, Debug)]
pub struct Skew {
    pub from: i64,
    pub until: i64,
    pub minutes: i64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub charges: Vec<Charge>,
    pub passes: Vec<Pass>,
    pub outages: Vec<Outage>,
    pub skew: Option<Skew>,
    /// From when until when nothing can be written to the storage.
    pub full: Option<(i64, i64)>,
    /// Refunds in an hour before the brake engages; zero: no limit.
    pub brake: u64,
    /// A person releases the brake whenever it was on for this long; none: never.
    pub released_after: Option<i64>,
    /// The brake releases itself.
    pub release_when_gone: bool,
    /// Refunds in a day for faults of ours before they are held; zero: no limit.
    pub own_faults: u64,
    /// By how many minutes each worker's clock is ahead. The first one's is right, as far as the
    /// world's is.
    pub clocks: [i64; WORKERS],
}

/// Without a circuit breaker: its pause is real time, and a world's time is simulated.
const NO_BREAKER: &str = "circuit_opens_after = 1000000\n";
/// Providers: one that keeps files, one that drops them, and one with a circuit breaker of a short
/// pause.
pub const PROVIDERS: [(&str, &str, &str); 3] = [
    ("keeper", NO_BREAKER, ""),
    ("dropper", NO_BREAKER, "retention = \"2h\"\ngrace = \"10m\"\n"),
    ("breaker", "circuit_opens_after = 3\ncircuit_pause = \"2ms\"\n", ""),
];
/// How long the second keeps them, in minutes.
const RETENTION: i64 = 120;

impl Plan {
    /// A world of about this many charges, give or take half.
    pub fn new(seed: u64, charges: u64) -> Self {
        let mut dice = Dice::new(seed);
        let many = charges / 2 + dice.below(charges);
        let mut charges: Vec<Charge> = (0..many).map(|nth| charge(&mut dice, nth)).collect();
        let outages = (0..dice.below(3))
            .map(|_| {
                let from = number(&mut dice, 40 * 60);
                let until = from + 10 + number(&mut dice, 8 * 60);
                let trouble =
                    *dice.weighted(&[(50, Trouble::Away), (25, Trouble::RefusesUs), (25, Trouble::TooOften)]);
                Outage { provider: provider(&mut dice), from, until, trouble }
            })
            .collect();
        let skew = dice.percent(30).then(|| {
            let from = number(&mut dice, 24 * 60);
            let hours = number(&mut dice, 10) + 1;
            let minutes = if dice.percent(50) { hours * 60 } else { hours * -60 };
            Skew { from, until: from + 30 + number(&mut dice, 6 * 60), minutes }
        });
        let full = dice.percent(15).then(|| {
            let from = number(&mut dice, 40 * 60);
            (from, (from + 10 + number(&mut dice, 6 * 60)).min(END - 1))
        });
        for charge in &mut charges {
            let ahead = skew.map_or(0, |skew| skew.minutes.max(0));
            let most = (LATEST - ahead).max(60);
            charge.committed = charge.committed.min(charge.at + most);
            charge.items_at = charge.items_at.min(charge.at + most);
        }
        let mut clocks = [0; WORKERS];
        if dice.percent(20) {
            for clock in &mut clocks[1..] {
                *clock = number(&mut dice, 2 * ASTRAY + 1) - i64::try_from(ASTRAY).unwrap_or(0);
            }
        }
        let brake = if dice.percent(25) { 1 + dice.below(3) } else { 0 };
        let released_after = dice.percent(80).then(|| number(&mut dice, 90));
        let release_when_gone = dice.percent(20);
        let own_faults = if dice.percent(15) { 1 + dice.below(3) } else { 0 };
        let mut plan = Self {
            seed,
            charges,
            passes: Vec::new(),
            outages,
            skew,
            full,
            brake,
            released_after,
            release_when_gone,
            own_faults,
            clocks,
        };
        plan.passes = passes(&mut dice, plan.end());
        plan.operators();
        plan.losses();
        plan
    }

    /// The platform removes the recovered output of about every sixth item. Drawn from a generator
    /// of its own, like the operators.
    fn losses(&mut self) {
        let mut dice = Dice::new(self.seed ^ 0x105_7000);
        for charge in &mut self.charges {
            for item in &mut charge.items {
                let at = charge.at + *dice.weighted(&[(3, 90), (3, 330), (3, 900), (1, 1500)]);
                item.loses_at = if dice.percent(16) { at } else { NEVER };
            }
        }
    }

    /// Beside about every fifth pass an operator makes an item good by hand. If there is a brake,
    /// no operator overrules it, because the books check its limit. Drawn from a generator of its
    /// own, so that the rest of a world is the same without them.
    fn operators(&mut self) {
        let mut dice = Dice::new(self.seed ^ 0x0b9_4a2d);
        let limited = self.brake + self.own_faults > 0;
        let last = self.passes.len() - 1;
        for pass in &mut self.passes[..last] {
            let refund = Deed::Refund { anyway: dice.percent(30) && !limited };
            let operator = Operator {
                deed: *dice.weighted(&[(2, refund), (1, Deed::Recover)]),
                pick: dice.below(1 << 32),
                of_those_that_wait: dice.percent(85),
                fate: *dice.weighted(&[
                    (8, Fate::Lives),
                    (1, Fate::Dies(3)),
                    (1, Fate::Dies(12)),
                    (1, Fate::Sleeps(6)),
                ]),
            };
            pass.operator = dice.percent(20).then_some(operator);
        }
    }

    /// When the world ends: late enough that every window has closed by the wrongest clock too.
    pub fn end(&self) -> i64 {
        END + self.slack()
    }

    /// The fault of a provider at this minute.
    pub fn outage(&self, provider: &str, minute: i64) -> Option<&Outage> {
        self.outages
            .iter()
            .find(|each| each.provider == provider && (each.from..each.until).contains(&minute))
    }

    /// The answer at this minute about the job of an item; none: it has no job.
    pub fn says(&self, charge: &Charge, item: &Item, minute: i64) -> Option<Says> {
        Some(charge.jobs.get(item.job)?.says(minute, self.outage(charge.provider, minute)))
    }

    /// Whether nothing can be stored at this minute.
    pub fn is_full(&self, minute: i64) -> bool {
        self.full.is_some_and(|(from, until)| (from..until).contains(&minute))
    }

    /// The platform's planned action on an item.
    pub fn own(&self, nth: usize, item: &Item) -> Own {
        let mixed = !matches!(self.charges[nth].subscription, 0 | 100);
        match item.own {
            // From two buckets: only makegood knows how much is left of each.
            Own::Refunds if mixed => Own::Nothing,
            // There is no other one.
            Own::StoresOnAnother if nth == 0 => Own::Nothing,
            own => own,
        }
    }

    /// The wrong link of the next charge's output: when it is made, if this is the item that it is
    /// linked to.
    pub fn holds_anothers(&self, nth: usize, index: usize) -> Option<i64> {
        let next = self.charges.get(nth + 1).filter(|_| index == 0)?;
        let hung = next.items.iter().filter(|item| item.own == Own::StoresOnAnother);
        hung.map(|item| item.own_at).min()
    }

    /// Which kinds of faults it has, for the count of many worlds.
    pub fn kinds(&self) -> Vec<&'static str> {
        let items = || self.charges.iter().flat_map(|charge| &charge.items);
        let jobs = || self.charges.iter().flat_map(|charge| &charge.jobs);
        let own = |what: Own| items().any(|item| item.own == what);
        let troubles = |what: Trouble| self.outages.iter().any(|outage| outage.trouble == what);
        let fates = || self.passes.iter().flat_map(|pass| &pass.workers);
        [
            ("a provider that is away", troubles(Trouble::Away)),
            ("a provider that refuses our key", troubles(Trouble::RefusesUs)),
            ("a provider that is asked too often", troubles(Trouble::TooOften)),
            ("a provider that contradicts itself", jobs().any(|job| job.turn.is_some())),
            ("a circuit breaker", self.charges.iter().any(|charge| charge.provider == PROVIDERS[2].0)),
            ("workers whose clocks differ", self.clocks != [0; WORKERS]),
            ("a storage that takes nothing", self.full.is_some()),
            ("a clock that is ahead", self.skew.is_some_and(|skew| skew.minutes > 0)),
            ("a clock that is behind", self.skew.is_some_and(|skew| skew.minutes < 0)),
            ("a limit of refunds in an hour", self.brake > 0),
            ("a brake that nobody releases", self.brake > 0 && self.released_after.is_none()),
            ("a brake that goes off by itself", self.brake > 0 && self.release_when_gone),
            ("a limit of refunds for our own faults", self.own_faults > 0),
            ("charges committed an hour late or more", self.charges.iter().any(|c| c.committed >= c.at + 60)),
            ("items added after their charge", self.charges.iter().any(|c| c.items_at > c.committed)),
            ("charges that were never submitted", self.charges.iter().any(|c| c.jobs.is_empty())),
            ("charges with a job for each item", self.charges.iter().any(|c| c.own_jobs)),
            ("the user's cancelling", self.charges.iter().any(|c| c.cancelled < NEVER)),
            ("failures that the platform noted", items().any(|item| item.failed_at < NEVER)),
            ("jobs that never end", jobs().any(|job| job.done == NEVER)),
            ("files that expire", jobs().any(|job| job.gone < NEVER)),
            ("answers that nobody can read", jobs().any(|job| job.garbage > 0)),
            ("fewer outputs than were ordered", jobs().any(|job| job.offers.contains(&false))),
            ("outputs in the wrong place", own(Own::StoresInTheWrongPlace)),
            ("outputs linked to nothing", own(Own::StoresLinkedToNothing)),
            ("outputs linked to another's item", own(Own::StoresOnAnother)),
            ("refunds by the platform itself", own(Own::Refunds)),
            ("rows that the platform removes", items().any(|item| item.loses_at < NEVER)),
            ("deeds of the platform during a pass", self.passes.iter().any(|pass| pass.meanwhile > 0)),
            ("workers side by side", self.passes.iter().any(|pass| pass.workers.len() > 1)),
            ("leases that run out at work", self.passes.iter().any(|pass| pass.leap.is_some())),
            ("workers that die", fates().any(|fate| matches!(fate, Fate::Dies(_)))),
            ("workers that fall asleep", fates().any(|fate| matches!(fate, Fate::Sleeps(_)))),
            ("operators beside a pass", self.passes.iter().any(|pass| pass.operator.is_some())),
        ]
        .into_iter()
        .filter_map(|(kind, has)| has.then_some(kind))
        .collect()
    }

    /// The worker's clock at this minute.
    pub fn clock(&self, minute: i64) -> i64 {
        match self.skew {
            Some(skew) if (skew.from..skew.until).contains(&minute) => minute + skew.minutes,
            Some(_) | None => minute,
        }
    }

    /// By how much an end may be late because the clock was.
    pub fn slack(&self) -> i64 {
        self.skew.map_or(0, |skew| skew.minutes.abs()) + self.spread()
    }

    /// By how much two workers' clocks differ at most.
    pub fn spread(&self) -> i64 {
        let (first, last) = (self.clocks.iter().min(), self.clocks.iter().max());
        last.unwrap_or(&0) - first.unwrap_or(&0)
    }
}

impl Pass {
    /// Whether all workers survive it and are resumed, no lease expires, and no other worker has
    /// claimed an item.
    pub fn is_calm(&self) -> bool {
        self.leap.is_none() && self.operator.is_none() && self.workers.iter().all(|fate| *fate == Fate::Lives)
    }
}

/// When workers run, how many, and with which faults. Most worlds have a pass every half hour or
/// so, some every quarter.
fn passes(dice: &mut Dice, end: i64) -> Vec<Pass> {
    let (least, most) = if dice.percent(5) { (SHORTEST_GAP, 20) } else { (28, GAP) };
    let mut passes: Vec<Pass> = Vec::new();
    let mut at = 1 + number(dice, GAP);
    while at < end {
        let many = *dice.weighted(&[(13, 1), (5, 2), (2, 3)]);
        let mut workers: Vec<Fate> = (0..many).map(|_| fate(dice, many)).collect();
        // An item that is begun in the last two hours of a window needs a worker that survives to
        // end it.
        let troubled = passes.last().is_some_and(|last| !last.is_calm());
        if troubled {
            workers[0] = Fate::Lives;
        }
        let meanwhile = *dice.weighted(&[(60, 0), (20, 1), (20, 2)]);
        let leaps = many > 1 && dice.percent(30) && !troubled && at + i64::try_from(GAP).unwrap_or(0) < end;
        let leap = leaps.then(|| u32::try_from(dice.below(40)).unwrap_or(0));
        passes.push(Pass { at, workers, leap, meanwhile, operator: None });
        // The clock does not go back.
        let shortest = if leap.is_some() { LEAP + 2 } else { SHORTEST_GAP };
        let least = if dice.percent(8) { shortest } else { least.max(shortest) };
        at += i64::try_from(least + dice.below(most.max(least + 1) - least)).unwrap_or(0);
    }
    // The last one survives, and nothing happens beside it.
    passes.push(Pass { at: end, workers: vec![Fate::Lives], leap: None, meanwhile: 0, operator: None });
    passes
}

fn fate(dice: &mut Dice, many: i32) -> Fate {
    // Most passes find little to do: a few dozen rests. A full one has hundreds.
    let most = *dice.weighted(&[(3, 30), (2, 80), (1, 250)]);
    let rest = u32::try_from(dice.below(most)).unwrap_or(0);
    match dice.below(100) {
        0..17 => Fate::Dies(rest),
        17..30 if many > 1 => Fate::Sleeps(rest),
        _ => Fate::Lives,
    }
}

fn number(dice: &mut Dice, end: u64) -> i64 {
    i64::try_from(dice.below(end)).unwrap_or(0)
}

fn provider(dice: &mut Dice) -> &'static str {
    dice.weighted::<&'static str>(&[(54, PROVIDERS[0].0), (36, PROVIDERS[1].0), (10, PROVIDERS[2].0)])
}

fn charge(dice: &mut Dice, nth: u64) -> Charge {
    let at = number(dice, LAST_CHARGE);
    let provider = provider(dice);
    let committed = at + *dice.weighted(&[(75, 0), (12, 40), (7, 200), (3, 600), (3, 1000)]);
    let items_at = committed + *dice.weighted(&[(90, 0), (4, 20), (4, 100)]);
    let many = usize::try_from(*dice.weighted(&[(6, 1), (2, 2), (2, 4)])).unwrap_or(1);
    let own_jobs = many > 1 && dice.percent(30);
    let submitted = dice.percent(93);
    let jobs: Vec<Job> = if submitted {
        (0..if own_jobs { many } else { 1 })
            .map(|each| job(dice, &format!("j{nth}-{each}"), provider, at, if own_jobs { 1 } else { many }))
            .collect()
    } else {
        Vec::new()
    };
    let items = (0..many)
        .map(|each| {
            let job = if own_jobs { each } else { 0 };
            let made = jobs.get(job).is_some_and(|job| job.verdict == "succeeded" && job.done < NEVER);
            let own = if made {
                *dice.weighted(&[
                    (45, Own::Nothing),
                    (38, Own::Stores),
                    (4, Own::StoresInTheWrongPlace),
                    (4, Own::StoresLinkedToNothing),
                    (3, Own::StoresOnAnother),
                    (6, Own::Refunds),
                ])
            } else {
                *dice.weighted(&[(88, Own::Nothing), (12, Own::Refunds)])
            };
            let ready = jobs.get(job).map_or(at, |job| job.done.min(at + 1200)).max(items_at);
            Item {
                job,
                output: if own_jobs { 0 } else { i64::try_from(each).unwrap_or(0) },
                own,
                own_at: ready + *dice.weighted(&[(70, 2), (10, 50), (10, 300), (10, 900)]),
                failed_at: if dice.percent(6) { items_at + number(dice, 300) } else { NEVER },
                loses_at: NEVER,
            }
        })
        .collect();
    Charge {
        id: format!("c{nth}"),
        account: dice.below(4),
        provider,
        at,
        committed,
        items_at,
        cancelled: if dice.percent(7) { committed + number(dice, 120) } else { NEVER },
        subscription: *dice.weighted(&[(4, 0), (4, 100), (2, 37)]),
        jobs,
        own_jobs,
        items,
    }
}

fn job(dice: &mut Dice, id: &str, provider: &str, at: i64, outputs: usize) -> Job {
    let verdict = *dice.weighted(&[(62, "succeeded"), (22, "failed"), (6, "cancelled"), (10, "unknown_job")]);
    let takes = *dice.weighted(&[(60, 3), (15, 25), (10, 200), (6, 700), (4, 1310), (3, 2000), (5, NEVER)]);
    let done = if takes == NEVER { NEVER } else { at + takes };
    let whole = dice.percent(80);
    let turns = verdict == "succeeded" && done < NEVER && dice.percent(8);
    let turn = turns.then(|| {
        let after = *dice.weighted(&[(3, 5), (3, 30), (3, 90), (1, 300)]);
        let into = *dice.weighted(&[
            (3, Turn::FromFailed),
            (2, Turn::ToFailed),
            (2, Turn::ToUnknown),
            (2, Turn::ToOtherOutputs),
        ]);
        (done + after, into)
    });
    Job {
        id: id.to_owned(),
        visible: at + *dice.weighted(&[(85, 0), (15, 30)]),
        done,
        verdict,
        offers: (0..outputs).map(|_| whole || dice.percent(60)).collect(),
        gone: if provider == PROVIDERS[1].0 && done < NEVER { done + RETENTION } else { NEVER },
        garbage: if dice.percent(6) { at + number(dice, 30 * 60) } else { 0 },
        turn,
    }
}
