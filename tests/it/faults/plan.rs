//! Draws the faults and their moments from a seed alone: the same seed gives the same plan on any
//! machine.
//!
//! Only the plan repeats. The operating system decides which of several processes is first, so it
//! may take several tries to see a failure again.

use std::fmt;
use std::time::Duration;

use hyper::StatusCode;

use crate::s3::bucket::How;

/// Random numbers from a seed (splitmix64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 up to below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % if end == 0 { 1 } else { end }
    }

    /// True with this percentage.
    pub const fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of them, by weight.
    pub fn weighted<'a, T>(&mut self, choices: &'a [(u64, T)]) -> &'a T {
        let mut left = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return choice,
            }
        }
        &choices[0].1
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    fn millis(&mut self, end: u64) -> Duration {
        Duration::from_millis(self.below(end))
    }
}

/// How large a round is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Steps of time, each with faulty workers and an undisturbed pass after them.
    pub steps: usize,
    /// Faulty runs at once.
    pub workers: usize,
    /// Faulty runs of each worker, one after the other.
    pub runs: usize,
    /// Charges that the platform makes in each step.
    pub charges: usize,
    /// Whether the clock is moved at the end until every window has closed.
    pub to_the_end: bool,
}

/// When something happens to a run.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// At the nth message that it sends to the database.
    Message(u64),
    /// At its nth COMMIT.
    Commit(u64),
    /// This long after its start.
    After(Duration),
}

/// The fault of a run.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// Nothing.
    None,
    /// SIGKILL. `heard`: the message that it has just sent is carried out, and it never gets the
    /// answer.
    Kill { heard: bool },
    /// The connection breaks. `heard`: after the message was carried out, so that the answer is
    /// lost.
    Cut { heard: bool },
    /// SIGSTOP; then the database's clock is moved past its lease and another pass takes over; then
    /// SIGCONT.
    Pause { heard: bool, minutes: i64 },
    /// PostgreSQL is restarted: at once (`immediate`, as if it crashed) or after throwing out its
    /// clients. What the worker has just sent arrives when it is back; `on_its_way`: so long after
    /// the restart has begun, in the middle of it.
    Restart { immediate: bool, on_its_way: Option<Duration> },
    /// The database's clock leaps ahead while the run is at work; the worker's own stays.
    Leap { minutes: i64 },
    /// The platform acts, under the lock that settle takes, on one of the items that the worker has
    /// claimed.
    Cross { what: Own, pick: usize },
    /// Every message of the worker is delayed by this much.
    Slow { by: Duration },
    /// The disk is full: it can write at most this many blocks of 512 bytes into any file.
    Full { blocks: u64 },
}

/// One run of makegood and what happens to it.
#[derive(Clone, Copy, Debug)]
pub struct Mishap {
    pub moment: Moment,
    pub trouble: Trouble,
    /// The run is a person who makes one item good; none: a pass.
    pub by_hand: Option<ByHand>,
}

/// `makegood refund` or `makegood recover`.
#[derive(Clone, Copy, Debug)]
pub struct ByHand {
    pub command: &'static str,
    /// Which of the waiting items: the index modulo their number.
    pub pick: usize,
}

/// An action of the platform while workers run.
#[derive(Clone, Copy, Debug)]
pub struct Deed {
    /// How far back from the newest charge it is.
    pub back: usize,
    pub item: usize,
    pub what: Own,
    /// This long after the action before.
    pub after: Duration,
}

/// The platform's action.
#[derive(Clone, Copy, Debug)]
pub enum Own {
    /// Stores an output late.
    Store,
    /// The same by `makegood_store_output`, which takes the lock that settle takes.
    StoreUnderLock,
    /// Refunds an item itself.
    Refund,
    /// The same, but takes the balance's row before it looks whether makegood has refunded.
    RefundUnderLock,
    /// Records that an item failed.
    Fail,
    /// Notes that the user cancelled.
    Cancel,
    /// Holds the rows of an account's balances for longer than a settle waits for them.
    HoldBalances,
}

/// One charge that the platform makes.
#[derive(Clone, Copy, Debug)]
pub struct NewCharge {
    /// Which of the kinds.
    pub kind: usize,
    pub account: usize,
    /// How long ago, in minutes.
    pub age: i64,
    /// Which part of it was drawn from the subscription, in hundredths.
    pub subscription: i64,
    /// For long jobs: finished after this many steps.
    pub finished_after: usize,
    /// The platform's action at the moment of the first question to the provider, and its item.
    pub struck: Option<(Own, usize)>,
}

/// Requests to the bucket that go wrong, where the storage is one.
#[derive(Clone, Copy, Debug)]
pub struct BucketFault {
    /// How their method and query begin.
    pub at: &'static str,
    /// So many of them. Each is tried three times by the client.
    pub times: u32,
    pub how: How,
}

/// A failover to a server whose clock differs: from then on the database's time is wrong by this
/// many hours.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    pub after: Duration,
    pub hours: i64,
}

/// One step of time.
#[derive(Debug)]
pub struct Step {
    /// By how much the clock is moved at its beginning.
    pub minutes: i64,
    pub charges: Vec<NewCharge>,
    pub deeds: Vec<Deed>,
    /// For each worker, its runs.
    pub workers: Vec<Vec<Mishap>>,
    pub bucket_faults: Vec<BucketFault>,
    /// The storage cannot be written to while the workers are at work.
    pub storage_fails: bool,
    /// After this time it fails until the end of the step.
    pub storage_after: Duration,
    /// A provider that is down in this step, also in its undisturbed pass: in one step, or in some
    /// in a row.
    pub away: Option<&'static str>,
    pub failover: Option<Failover>,
}

/// A whole round.
#[derive(Debug)]
pub struct Plan {
    pub seed: u64,
    /// By how much the database's clock differs from the workers' at the beginning, in minutes.
    pub skew: i64,
    /// Whether the database's clock is sometimes wrong by hours, forward and back.
    pub wild: bool,
    pub steps: Vec<Step>,
}

/// In a wild plan the database's clock is never further than this from the right one.
pub const WRONG_HOURS: i64 = 5;
/// The greatest age, in minutes, of a charge that is committed late: the last scan is at 20 hours
/// and stays an hour behind.
const LATEST_WILD: i64 = (19 - 2 * WRONG_HOURS) * 60;

/// How many accounts there are. Few, so that settles meet at their balances.
pub const ACCOUNTS: usize = 5;

impl Plan {
    pub fn new(seed: u64, size: Size, kinds: &[(u64, usize)]) -> Self {
        let mut dice = Dice::new(seed);
        let skew = i64::try_from(dice.below(6000)).unwrap_or(0) - 3000;
        // By the seed, so that a long round of seeds in a row has some.
        let wild = seed.is_multiple_of(5);
        let mut steps: Vec<Step> = (0..size.steps).map(|_| step(&mut dice, size, kinds, seed)).collect();
        let mut away = None;
        for step in &mut steps {
            away = match away {
                Some(provider) if dice.percent(40) => Some(provider),
                // Who asks tries again after a while, and there is no time for that in a short
                // round.
                _ => (size.to_the_end && dice.percent(15))
                    .then(|| *dice.weighted(&[(2, "replicate"), (1, "fal"), (1, "veo-gemini")])),
            };
            step.away = away;
            if wild {
                // No promise covers a charge that is committed later than 20 hours after its time,
                // less the time by which the clock was ahead.
                for charge in &mut step.charges {
                    charge.age = charge.age.min(LATEST_WILD);
                }
            }
            if wild && dice.percent(40) {
                let hours = i64::try_from(dice.below(11)).unwrap_or(0) - WRONG_HOURS;
                step.failover = Some(Failover { after: dice.millis(600), hours });
            }
        }
        people(seed, &mut steps);
        holds(seed, &mut steps);
        Self { seed, skew, wild, steps }
    }
}

/// About every seventh run is a person's. Drawn from a generator of its own, so that the rest of a
/// plan is the same without them.
fn people(seed: u64, steps: &mut [Step]) {
    let mut dice = Dice::new(seed ^ 0x0b9_4a2d);
    for mishap in steps.iter_mut().flat_map(|step| &mut step.workers).flatten() {
        let person = ByHand {
            command: dice.weighted::<&'static str>(&[(2, "refund"), (1, "recover")]),
            pick: dice.index(1_000),
        };
        mishap.by_hand = dice.percent(15).then_some(person);
        // A pass has some sixty messages behind it when it has claimed something, a person a dozen.
        if let (Some(_), Moment::Message(at)) = (mishap.by_hand, mishap.moment) {
            mishap.moment = Moment::Message(1 + at / 3);
        }
    }
}

/// Sometimes the platform locks the balances of an account: of one that a worker has claimed, or of
/// any. Drawn from a generator of its own.
fn holds(seed: u64, steps: &mut [Step]) {
    let mut dice = Dice::new(seed ^ 0x10_c4ed);
    for step in steps {
        for deed in &mut step.deeds {
            if dice.percent(15) {
                deed.what = Own::HoldBalances;
            }
        }
        for mishap in step.workers.iter_mut().flatten() {
            if let Trouble::Cross { what, .. } = &mut mishap.trouble
                && dice.percent(40)
            {
                *what = Own::HoldBalances;
            }
        }
    }
}

/// Where the files of this seed go: to a bucket, or to a directory.
pub const fn to_a_bucket(seed: u64) -> bool {
    !seed.is_multiple_of(2)
}

fn step(dice: &mut Dice, size: Size, kinds: &[(u64, usize)], seed: u64) -> Step {
    let minutes =
        |dice: &mut Dice, from: u64, to: u64| i64::try_from(from + dice.below(to - from)).unwrap_or(1);
    let charges = (0..size.charges)
        .map(|_| NewCharge {
            kind: *dice.weighted(kinds),
            account: dice.index(ACCOUNTS),
            age: if dice.percent(80) { minutes(dice, 0, 60) } else { minutes(dice, 60, 19 * 60) },
            subscription: *dice.weighted(&[(4, 0), (4, 100), (2, 37)]),
            finished_after: dice.index(4),
            struck: dice.percent(35).then(|| {
                (
                    *dice.weighted(&[
                        (3, Own::Store),
                        (2, Own::StoreUnderLock),
                        (2, Own::Refund),
                        (2, Own::RefundUnderLock),
                    ]),
                    dice.index(4),
                )
            }),
        })
        .collect();
    let deeds = (0..size.charges / 2)
        .map(|_| Deed {
            back: dice.index(size.charges * 2),
            item: dice.index(4),
            what: *dice.weighted(&[
                (3, Own::Store),
                (2, Own::StoreUnderLock),
                (2, Own::Refund),
                (2, Own::RefundUnderLock),
                (2, Own::Fail),
                (1, Own::Cancel),
            ]),
            after: dice.millis(300),
        })
        .collect();
    let mut leaps = LEAPS;
    let workers =
        (0..size.workers).map(|_| (0..size.runs).map(|_| mishap(dice, &mut leaps, seed)).collect()).collect();
    Step {
        minutes: minutes(dice, 5, 40),
        charges,
        deeds,
        workers,
        bucket_faults: (0..dice.below(5)).map(|_| bucket_fault(dice)).collect(),
        storage_fails: dice.percent(15),
        storage_after: dice.millis(600),
        away: None,
        failover: None,
    }
}

fn bucket_fault(dice: &mut Dice) -> BucketFault {
    let late = dice.millis(1500);
    BucketFault {
        at: dice.weighted::<&'static str>(&[
            (4, "PUT "),
            (2, "PUT partNumber=1"),
            (2, "PUT partNumber=2"),
            (2, "POST uploads"),
            (3, "POST uploadId"),
            (2, "DELETE "),
        ]),
        times: u32::try_from(1 + dice.below(6)).unwrap_or(1),
        how: *dice.weighted(&[
            (3, How::Status(StatusCode::INTERNAL_SERVER_ERROR)),
            (1, How::Status(StatusCode::FORBIDDEN)),
            (3, How::SlowDown),
            (3, How::Reset),
            (4, How::Lost),
            (2, How::Late(late)),
        ]),
    }
}

/// By at most this many minutes for all moves of a step together. Otherwise the time without a
/// whole pass would be longer than in any schedule.
const LEAPS: i64 = 60;

fn mishap(dice: &mut Dice, leaps: &mut i64, seed: u64) -> Mishap {
    let moment = match dice.below(10) {
        0..5 => Moment::Commit(1 + dice.below(4)),
        // It has claimed something after some sixty messages.
        5..7 => Moment::Message(1 + dice.below(60)),
        7..9 => Moment::Message(60 + dice.below(90)),
        _ => Moment::After(dice.millis(800)),
    };
    let heard = dice.percent(50);
    let (ahead, part) = (i64::try_from(dice.below(45)).unwrap_or(0).min(*leaps), dice.below(40));
    let on_its_way = dice.percent(60).then(|| dice.millis(40));
    let by = Duration::from_millis(part);
    let what = *dice.weighted(&[(1, Own::StoreUnderLock), (2, Own::RefundUnderLock)]);
    let pick = dice.index(8);
    // A worker that writes to a bucket writes nothing to its disk, so it is slow instead.
    let full = if to_a_bucket(seed) { Trouble::Slow { by } } else { Trouble::Full { blocks: dice.below(2) } };
    let trouble = *dice.weighted(&[
        (54, Trouble::Kill { heard }),
        (16, Trouble::Cut { heard }),
        (8, Trouble::Pause { heard, minutes: ahead }),
        (5, Trouble::Restart { immediate: true, on_its_way }),
        (3, Trouble::Restart { immediate: false, on_its_way }),
        (4, Trouble::Leap { minutes: ahead }),
        (6, Trouble::Cross { what, pick }),
        (3, Trouble::Slow { by }),
        (5, full),
        (2, Trouble::None),
    ]);
    if matches!(trouble, Trouble::Pause { .. } | Trouble::Leap { .. }) {
        *leaps -= ahead;
    }
    Mishap { moment, trouble, by_hand: None }
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by_hand {
            None => write!(f, "{:?} at {:?}", self.trouble, self.moment),
            Some(by) => write!(f, "{:?} at {:?} of a {} by hand", self.trouble, self.moment, by.command),
        }
    }
}

#[test]
fn one_seed_is_one_plan() {
    let size = Size { steps: 5, workers: 3, runs: 2, charges: 9, to_the_end: false };
    let plan = |seed| format!("{:?}", Plan::new(seed, size, &[(1, 0), (2, 1)]).steps);
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}
