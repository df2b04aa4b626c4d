//! Runs the workers of one pass, and perhaps an operator, in turns: on one thread, each with a
//! runtime of its own, of which one runs at a time. The seed decides which one, and for how long.
//! The others, with all their tasks, stand still meanwhile, as processes do that the operating
//! system does not run.
//!
//! Time is counted in rests: a worker rests when all its tasks wait, for the database, a provider
//! or a disk. So an event at the nth rest of a worker happens at about the same place on any
//! machine. The test does not control which of several answers comes first: SQLite answers from
//! threads of its own.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use makegood::ops::stop::Stop;
use makegood::pass::{self, Orders, Parts, Wanted};
use makegood::report::PassReport;
use makegood::store::DbError;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::plan::{Fate, WORKERS};
use crate::faults::plan::Dice;

/// The longest turn of a worker that waits for a lock of another one.
const LONGEST_TURN: Duration = Duration::from_millis(2);
/// After this many such turns in a row the suspended workers are resumed, because the others wait
/// for them.
const STUCK: u32 = 10;

/// One pass of several workers.
pub struct Shift {
    /// Each with its seat and its faults. A seat always belongs to the same worker, because its
    /// connections belong to the runtime there.
    pub runs: Vec<(usize, Parts, Work, Fate)>,
    /// Whose turn it is.
    pub dice: Dice,
    /// The events by turn.
    pub leap: Option<(u32, Box<dyn FnOnce() + Send>)>,
}

/// The task of a worker.
#[derive(Clone, Debug)]
pub enum Work {
    Pass,
    ByHand(Wanted),
}

/// The result.
#[derive(Debug)]
pub enum Did {
    #[expect(dead_code, reason = "shown where a world fails")]
    Pass(Box<PassReport>),
    ByHand(pass::Ended),
}

/// How a worker's pass, or an operator's errand, ended; none: it died.
pub type Ended = Option<Result<Did, DbError>>;

/// The bench. It ends when no more shifts can be sent.
pub struct Bench(mpsc::Sender<(Shift, oneshot::Sender<Vec<Ended>>)>);

impl Bench {
    pub fn new() -> Self {
        let (sender, shifts) = mpsc::channel::<(Shift, oneshot::Sender<Vec<Ended>>)>();
        std::thread::spawn(move || {
            let seats: Vec<Seat> = (0..=WORKERS).map(|_| Seat::new()).collect();
            for (shift, done) in shifts {
                // If a world has failed, the receiver is gone.
                let _ = done.send(work(&seats, shift));
            }
        });
        Self(sender)
    }

    /// A moment for what workers that have ended left to their runtimes, such as rolling back.
    pub async fn breathe(&self) {
        self.work(Shift { runs: Vec::new(), dice: Dice::new(0), leap: None }).await;
    }

    /// Until all have ended.
    pub async fn work(&self, shift: Shift) -> Vec<Ended> {
        let (done, ended) = oneshot::channel();
        self.0.send((shift, done)).unwrap();
        ended.await.unwrap()
    }
}

/// One worker's runtime.
struct Seat {
    runtime: Runtime,
    rests: Arc<Rests>,
}

/// How often it has rested, and at which rest its turn ends.
#[derive(Default)]
struct Rests {
    so_far: AtomicU32,
    until: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

impl Seat {
    fn new() -> Self {
        let rests = Arc::<Rests>::default();
        let counted = Arc::clone(&rests);
        let rest = move || {
            let rested = counted.so_far.fetch_add(1, Ordering::SeqCst) + 1;
            if rested >= counted.until.load(Ordering::SeqCst)
                && let Some(waker) = counted.waker.lock().unwrap().take()
            {
                waker.wake();
            }
        };
        let runtime = Builder::new_current_thread().enable_all().on_thread_park(rest).build().unwrap();
        Self { runtime, rests }
    }

    /// Lets it run until so often something that it waited for has come, and what followed from
    /// that is done. Returns how often it was: fewer, if that would take too long.
    fn turn(&self, rests: u32) -> u32 {
        let before = self.rests.so_far.load(Ordering::SeqCst);
        let rested = self.rested(rests);
        match self.runtime.block_on(async { tokio::time::timeout(LONGEST_TURN, rested).await }) {
            Ok(()) => rests,
            // The last thing that came was the end of its time.
            Err(_) => (self.rests.so_far.load(Ordering::SeqCst) - before).saturating_sub(2),
        }
    }

    /// Runs it until it has nothing left to do, however long that takes on a busy machine.
    /// Otherwise a lane that should be dropped would keep its transaction open until this seat's
    /// next turn, and all others would wait for it.
    fn run_dry(&self) {
        self.runtime.block_on(self.rested(0));
    }

    /// Ready when so often something that was waited for has come, and what followed from that is
    /// done.
    fn rested(&self, rests: u32) -> impl Future<Output = ()> {
        let Rests { so_far, until, waker } = &*self.rests;
        // The first rest is the one that it has not come back from yet.
        until.store(so_far.load(Ordering::SeqCst).saturating_add(rests + 1), Ordering::SeqCst);
        poll_fn(|context| {
            if so_far.load(Ordering::SeqCst) >= until.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            *waker.lock().unwrap() = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

/// A worker at work.
struct Run {
    nth: usize,
    seat: usize,
    handle: JoinHandle<Result<Did, DbError>>,
    fate: Fate,
    rested: u32,
}

fn work(seats: &[Seat], Shift { runs, mut dice, mut leap }: Shift) -> Vec<Ended> {
    let mut ended: Vec<Ended> = runs.iter().map(|_| None).collect();
    let mut at_work: Vec<Run> = Vec::new();
    for (nth, (seat, parts, work, fate)) in runs.into_iter().enumerate() {
        let run = async move {
            match work {
                Work::Pass => {
                    let orders = Orders { mode: "schedule", dry_run: false, since: None, stop: Stop::new() };
                    pass::run(&parts, orders, |_| {}).await.map(|report| Did::Pass(Box::new(report)))
                }
                Work::ByHand(wanted) => pass::by_hand(&parts, &wanted).await.map(Did::ByHand),
            }
        };
        at_work.push(Run { nth, seat, handle: seats[seat].runtime.spawn(run), fate, rested: 0 });
    }
    if at_work.is_empty() {
        // Tasks of the last shift get a moment to end.
        for seat in seats {
            seat.turn(1);
        }
    }
    let (mut turns, mut stuck) = (0, 0);
    while !at_work.is_empty() {
        if leap.as_ref().is_some_and(|(at, _)| turns >= *at)
            && let Some((_, leap)) = leap.take()
        {
            leap();
        }
        let asleep = |run: &Run| matches!(run.fate, Fate::Sleeps(at) if run.rested >= at);
        let mut awake: Vec<usize> = (0..at_work.len()).filter(|nth| !asleep(&at_work[*nth])).collect();
        if awake.is_empty() || stuck >= STUCK {
            awake = (0..at_work.len()).collect();
            for run in &mut at_work {
                run.fate = if asleep(run) { Fate::Lives } else { run.fate };
            }
        }
        let nth = awake[usize::try_from(dice.below(awake.len() as u64)).unwrap()];
        let run = &mut at_work[nth];
        let alone = awake.len() == 1 && run.fate == Fate::Lives && leap.is_none();
        let rests = if alone { 50 } else { *dice.weighted(&[(5, 1), (4, 2), (2, 5), (1, 15)]) };
        // An event at a rest must not be skipped.
        let rests = match run.fate {
            Fate::Lives => rests,
            Fate::Dies(at) | Fate::Sleeps(at) => rests.min(at.saturating_sub(run.rested).max(1)),
        };
        let rested = seats[run.seat].turn(rests);
        run.rested += rested;
        stuck = if rested > 0 { 0 } else { stuck + 1 };
        turns += 1;
        let dies = matches!(run.fate, Fate::Dies(at) if run.rested >= at);
        if dies || run.handle.is_finished() {
            let run = at_work.remove(nth);
            ended[run.nth] = end(&seats[run.seat], run.handle, dies);
        }
    }
    ended
}

/// The result. A worker that dies is dropped at its current await: its transaction is rolled back,
/// and its orphans stay leased.
fn end(seat: &Seat, handle: JoinHandle<Result<Did, DbError>>, dies: bool) -> Ended {
    if dies {
        handle.abort();
    }
    let ended = match seat.runtime.block_on(handle) {
        Ok(ended) => Some(ended),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    };
    // The tasks that it leaves end too, and its connections go back to where they belong.
    seat.run_dry();
    ended
}
