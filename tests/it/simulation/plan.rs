//! A world of 48 hours, drawn from a seed alone: charges with what becomes of their jobs, what the platform does by
//! itself and when, outages, a clock that is wrong for some hours, and when makegood's workers run and die.
//!
//! Times are minutes from the world's beginning. The same seed is the same plan.

use serde_json::{Value as Json, json};

use crate::faults::plan::Dice;

/// The last charge is made this long before the end, so that every window closes.
const LAST_CHARGE: u64 = 22 * 60;
/// When the world ends.
pub const END: i64 = 48 * 60;
/// Longest time between two passes, in minutes. In production there is one every minute.
const GAP: u64 = 45;
/// And the shortest.
const SHORTEST_GAP: u64 = 8;
/// By so much the clock leaps while workers are at work, in minutes: longer than a lease.
pub const LEAP: u64 = 16;

/// So late a row is still found, less what the clock was ahead: the last look is at 20 hours and stays an hour behind.
const LATEST: i64 = 19 * 60;

/// Never.
const NEVER: i64 = i64::MAX;

/// What becomes of a provider job.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: String,
    /// Known to the provider from then on.
    pub visible: i64,
    /// It has ended.
    pub done: i64,
    pub verdict: &'static str,
    /// Whether each of its outputs is offered.
    pub offers: Vec<bool>,
    /// Its files are dropped.
    pub gone: i64,
    /// Until then nobody can read what is answered about it.
    pub garbage: i64,
}

/// What the platform does to one item by itself.
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
    /// When it does so; and when it noted that the item failed.
    pub own_at: i64,
    pub failed_at: i64,
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

/// One time at which workers run.
#[derive(Clone, Debug)]
pub struct Pass {
    pub at: i64,
    /// For each worker, when it dies: in thousandths of the time that a pass takes in this world.
    pub workers: Vec<Option<u32>>,
    /// When the clock leaps past every lease while they are at work, in the same measure.
    pub leap: Option<u32>,
    /// Every so many of the platform's deeds since the pass before happen while this one asks about them; zero: none.
    pub meanwhile: usize,
}

/// When a provider is of no use.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub provider: &'static str,
    pub from: i64,
    pub until: i64,
    /// It refuses our key, instead of being away.
    pub refuses_us: bool,
}

/// The clock is wrong by so many minutes.
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
    /// Refunds in an hour before the brake is pulled; zero: no limit.
    pub brake: u64,
    /// A person releases the brake whenever it was on for so long; none: nobody does.
    pub released_after: Option<i64>,
    /// The brake goes off by itself.
    pub release_when_gone: bool,
    /// Refunds in a day for faults of ours, before such are held; zero: no limit.
    pub own_faults: u64,
}

/// Providers: one that keeps files, and one that drops them.
pub const PROVIDERS: [(&str, &str); 2] =
    [("keeper", ""), ("dropper", "retention = \"2h\"\ngrace = \"10m\"\n")];
/// How long the second keeps them, in minutes.
const RETENTION: i64 = 120;

impl Plan {
    pub fn new(seed: u64, charges: u64) -> Self {
        let mut dice = Dice::new(seed);
        let many = charges / 2 + dice.below(charges);
        let mut charges: Vec<Charge> = (0..many).map(|nth| charge(&mut dice, nth)).collect();
        let passes = passes(&mut dice);
        let outages = (0..dice.below(3))
            .map(|_| {
                let from = number(&mut dice, 40 * 60);
                let until = from + 10 + number(&mut dice, 8 * 60);
                Outage { provider: provider(&mut dice), from, until, refuses_us: dice.percent(30) }
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
        let brake = if dice.percent(25) { 1 + dice.below(3) } else { 0 };
        let released_after = dice.percent(80).then(|| number(&mut dice, 90));
        let release_when_gone = dice.percent(20);
        let own_faults = if dice.percent(15) { 1 + dice.below(3) } else { 0 };
        Self {
            seed,
            charges,
            passes,
            outages,
            skew,
            full,
            brake,
            released_after,
            release_when_gone,
            own_faults,
        }
    }

    /// Which kinds of trouble it has, for the count of many worlds.
    pub fn kinds(&self) -> Vec<&'static str> {
        let items = || self.charges.iter().flat_map(|charge| &charge.items);
        let jobs = || self.charges.iter().flat_map(|charge| &charge.jobs);
        let own = |what: Own| items().any(|item| item.own == what);
        [
            ("a provider that is away", self.outages.iter().any(|outage| !outage.refuses_us)),
            ("a provider that refuses our key", self.outages.iter().any(|outage| outage.refuses_us)),
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
            ("deeds of the platform during a pass", self.passes.iter().any(|pass| pass.meanwhile > 0)),
            ("workers side by side", self.passes.iter().any(|pass| pass.workers.len() > 1)),
            ("leases that run out at work", self.passes.iter().any(|pass| pass.leap.is_some())),
            ("workers that die", self.passes.iter().any(|pass| pass.workers.iter().any(Option::is_some))),
        ]
        .into_iter()
        .filter_map(|(kind, has)| has.then_some(kind))
        .collect()
    }

    /// What the worker's clock shows at this minute.
    pub fn clock(&self, minute: i64) -> i64 {
        match self.skew {
            Some(skew) if (skew.from..skew.until).contains(&minute) => minute + skew.minutes,
            Some(_) | None => minute,
        }
    }

    /// By how much an end may be late because the clock was.
    pub fn slack(&self) -> i64 {
        self.skew.map_or(0, |skew| skew.minutes.abs())
    }
}

/// When workers run, how many, and which die. Most worlds have a pass every half hour or so, some every quarter.
fn passes(dice: &mut Dice) -> Vec<Pass> {
    let (least, most) = if dice.percent(8) { (SHORTEST_GAP, 20) } else { (28, GAP) };
    let mut passes: Vec<Pass> = Vec::new();
    let mut at = 1 + number(dice, GAP);
    while at < END {
        let many = *dice.weighted(&[(7, 1), (2, 2), (1, 3)]);
        let mut workers: Vec<Option<u32>> = (0..many)
            .map(|_| dice.percent(20).then(|| u32::try_from(dice.below(1_200)).unwrap_or(0)))
            .collect();
        // Whatever is begun in the last two hours of a window must find somebody who lives to end it.
        let troubled =
            passes.last().is_some_and(|last| last.leap.is_some() || last.workers.iter().any(Option::is_some));
        if troubled {
            workers[0] = None;
        }
        let meanwhile = *dice.weighted(&[(60, 0), (20, 1), (20, 2)]);
        let leaps = many > 1 && dice.percent(30) && !troubled && at + i64::try_from(GAP).unwrap_or(0) < END;
        let leap = leaps.then(|| u32::try_from(dice.below(1_000)).unwrap_or(0));
        passes.push(Pass { at, workers, leap, meanwhile });
        // The clock does not go back.
        let shortest = if leap.is_some() { LEAP + 2 } else { SHORTEST_GAP };
        let least = if dice.percent(8) { shortest } else { least.max(shortest) };
        at += i64::try_from(least + dice.below(most.max(least + 1) - least)).unwrap_or(0);
    }
    // The last one lives, and nothing happens beside it.
    passes.push(Pass { at: END, workers: vec![None], leap: None, meanwhile: 0 });
    passes
}

fn number(dice: &mut Dice, end: u64) -> i64 {
    i64::try_from(dice.below(end)).unwrap_or(0)
}

fn provider(dice: &mut Dice) -> &'static str {
    PROVIDERS[usize::from(dice.percent(40))].0
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
    Job {
        id: id.to_owned(),
        visible: at + *dice.weighted(&[(85, 0), (15, 30)]),
        done,
        verdict,
        offers: (0..outputs).map(|_| whole || dice.percent(60)).collect(),
        gone: if provider == PROVIDERS[1].0 && done < NEVER { done + RETENTION } else { NEVER },
        garbage: if dice.percent(6) { at + number(dice, 30 * 60) } else { 0 },
    }
}

impl Job {
    /// What is answered about it: a status and what the filter is to say.
    pub fn answer(&self, minute: i64, outage: Option<&Outage>) -> (u16, Json) {
        if let Some(outage) = outage {
            return if outage.refuses_us {
                (401, json!("who are you"))
            } else {
                (503, json!("nobody is here"))
            };
        }
        if minute < self.garbage {
            return (200, json!("what is this"));
        }
        if minute < self.visible || self.verdict == "unknown_job" {
            return (200, json!({"verdict": "unknown_job"}));
        }
        if minute < self.done {
            return (200, json!({"verdict": "running"}));
        }
        if self.verdict != "succeeded" {
            return (200, json!({"verdict": self.verdict, "message": "as planned"}));
        }
        if minute >= self.gone {
            return (200, json!({"verdict": "succeeded", "outputs_gone": true}));
        }
        let outputs: Vec<Json> = self
            .offers
            .iter()
            .enumerate()
            .filter(|(_, offered)| **offered)
            .map(|(nth, _)| json!({"index": nth, "base64": base64(&format!("output {nth} of {}", self.id)), "content_type": "text/plain"}))
            .collect();
        (200, json!({"verdict": "succeeded", "outputs": outputs}))
    }
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for nth in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * nth) & 63) as usize];
            out.push(if nth <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}
