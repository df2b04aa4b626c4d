//! Good manners towards one provider: how many questions at once, how many a second, when to try again,
//! and when to leave it alone for a while.
//!
//! The circuit opens after several questions in a row found nobody, and then costs the others
//! neither an attempt nor a worker: also those that wait for their turn are turned away. After a
//! pause one question is let through as a probe; its answer closes the circuit or opens it again.
//! Asking for a long wait (`Retry-After`) counts like nobody being there, and the pause is then as
//! long as was asked for, within reason; one answer alone does not stop the rest, as it may be
//! about one job. Readings that had to be stopped (`filters`) open it too: as many in all, not in a
//! row, as each costs its time whatever the answers between say; then only a probe closes it.
//! Urgent questions (past their deadline) go through regardless. Nothing here is shared between
//! providers, so that one that hangs never delays another. Processes share the limits (`shares`),
//! and tell each other through the database when the circuit opens or closes. A crash forgets all
//! but this last: the next process begins with one probe rather than with as many questions in vain
//! as it takes.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::sync::Notify;

use super::turns::{Turn, Turns};
use crate::clock::Timestamp;

/// The longest wait that a `Retry-After` may ask for and a question still sits it out; for longer ones the
/// provider is left alone altogether.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// The longest that a provider is left alone because it asked for it: it may be mistaken, and 24 hours run.
const LEFT_ALONE_MAX: Duration = Duration::from_mins(15);
/// The first wait before trying again; doubles each time.
const BACKOFF: Duration = Duration::from_millis(500);

/// How one provider is treated.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Requests under way at once.
    pub max_concurrency: usize,
    /// Requests begun per second, if limited.
    pub requests_per_second: Option<f64>,
    /// How often a request that found nobody is sent again.
    pub retries: u32,
    /// How many questions in a row must find nobody for the circuit to open.
    pub circuit_opens_after: u32,
    /// How long the circuit stays open before a probe.
    pub circuit_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_concurrency: 16,
            requests_per_second: None,
            retries: 2,
            circuit_opens_after: 5,
            circuit_pause: Duration::from_secs(30),
        }
    }
}

/// The state behind the limits.
#[derive(Debug)]
pub(super) struct Manners {
    /// Concurrency and rate: all of the limits, or the share of this process.
    pub(super) turns: Turns,
    circuit: Mutex<Circuit>,
    /// Notified when the circuit opens or closes.
    circuit_turned: Notify,
    /// Held while the share is changed in the database.
    pub(super) sharing: tokio::sync::Mutex<()>,
    /// How many lanes of this process use the share.
    pub(super) sharers: Mutex<usize>,
}

impl Manners {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            turns: Turns::new(limits.max_concurrency, limits.requests_per_second),
            circuit: Mutex::new(Circuit::new(limits.circuit_opens_after, limits.circuit_pause)),
            circuit_turned: Notify::new(),
            sharing: tokio::sync::Mutex::default(),
            sharers: Mutex::default(),
        }
    }

    /// Lets a question begin: when a slot is free, unless the circuit is open or the provider asked to be
    /// left alone; then it says when to come again.
    pub(super) async fn begin(&self, urgent: bool) -> Result<(Admission<'_>, Turn<'_>), Duration> {
        // Nobody waits for a slot in vain.
        self.admits(urgent)?;
        let turn = self.turns.place().await;
        // What the questions before this one found may have opened the circuit meanwhile.
        let probe = self.circuit().admit(urgent, Instant::now())?;
        let admission = Admission { manners: self, probe, settled: false };
        Ok((admission, self.turns.start(turn).await))
    }

    /// Whether a question would be let begin now; an error says when to come again.
    pub(super) fn admits(&self, urgent: bool) -> Result<(), Duration> {
        self.circuit().refuses(urgent, Instant::now()).map_or(Ok(()), Err)
    }

    /// A filter had to be stopped before the question could begin.
    pub(super) fn filter_stopped(&self) {
        self.settle(false, Found::Endless);
    }

    fn settle(&self, probe: bool, found: Found) {
        let is_turned = {
            let mut circuit = self.circuit();
            let before = circuit.open_until;
            circuit.settle(probe, found, Instant::now());
            before != circuit.open_until
        };
        if is_turned {
            self.circuit_turned.notify_one();
        }
    }

    /// Waits for another turn of a question that has begun.
    pub(super) async fn turn(&self) -> Turn<'_> {
        self.turns.take().await
    }

    /// Whether questions are turned away now.
    pub(super) fn circuit_open(&self) -> bool {
        self.circuit().open_until.is_some()
    }

    /// How long questions are turned away; zero: until a probe has been answered. None: they are not.
    pub(super) fn circuit_left(&self) -> Option<Duration> {
        let until = self.circuit().open_until;
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// How long ago a question was answered; none if none was.
    pub(super) fn answered_ago(&self) -> Option<Duration> {
        self.circuit().answered_at.map(|at| at.elapsed())
    }

    /// Returns when the circuit has opened or closed since the last call.
    pub(super) async fn circuit_turned(&self) {
        self.circuit_turned.notified().await;
    }

    /// Opens the circuit for so long, as another process has left it.
    pub(super) fn leave_alone(&self, left: Duration) {
        self.circuit().open_until = Some(Instant::now() + left.min(LEFT_ALONE_MAX));
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a question found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An answer, whatever it says.
    Somebody,
    /// None, or the wish to be left alone for so long.
    Nobody {
        /// Zero: nothing was asked for.
        wait: Duration,
    },
    /// An answer whose reading had to be stopped.
    Endless,
}

/// A question that the circuit has let through. Dropped without a word (cancelled), it leaves the
/// circuit as it was.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    manners: &'a Manners,
    probe: bool,
    settled: bool,
}

impl Admission<'_> {
    /// What came of the question. None: nobody was asked.
    pub(super) fn settle(mut self, found: Option<Found>) {
        if let Some(found) = found {
            self.settled = true;
            self.manners.settle(self.probe, found);
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.probe && !self.settled {
            self.manners.circuit().probing = false;
        }
    }
}

/// The breaker, without a clock of its own.
#[derive(Debug)]
struct Circuit {
    opens_after: u32,
    pause: Duration,
    /// Questions in a row that found nobody.
    misses: u32,
    /// Readings that had to be stopped, since the circuit was last closed.
    stops: u32,
    /// It was opened for such readings: only a probe closes it.
    is_open_for_stops: bool,
    open_until: Option<Instant>,
    probing: bool,
    /// When a question was last answered.
    answered_at: Option<Instant>,
}

impl Circuit {
    const fn new(opens_after: u32, pause: Duration) -> Self {
        Self {
            opens_after,
            pause,
            misses: 0,
            stops: 0,
            is_open_for_stops: false,
            open_until: None,
            probing: false,
            answered_at: None,
        }
    }

    /// When to come again, if a question would be turned away.
    fn refuses(&self, urgent: bool, now: Instant) -> Option<Duration> {
        if urgent {
            return None;
        }
        let left = self.open_until?.saturating_duration_since(now);
        match (left.is_zero(), self.probing) {
            (false, _) => Some(left),
            // While a probe is under way nobody knows how long it takes.
            (true, true) => Some(self.pause.min(Duration::from_secs(1))),
            (true, false) => None,
        }
    }

    /// Whether the question is a probe; an error says when to come again.
    fn admit(&mut self, urgent: bool, now: Instant) -> Result<bool, Duration> {
        if let Some(retry_in) = self.refuses(urgent, now) {
            return Err(retry_in);
        }
        let probe = self.open_until.is_some_and(|until| now >= until) && !self.probing;
        self.probing |= probe;
        Ok(probe)
    }

    fn settle(&mut self, probe: bool, found: Found, now: Instant) {
        if probe {
            self.probing = false;
        }
        match found {
            Found::Somebody => {
                self.misses = 0;
                self.answered_at = Some(now);
                if probe || !self.is_open_for_stops {
                    self.open_until = None;
                }
                if probe {
                    (self.stops, self.is_open_for_stops) = (0, false);
                }
            }
            Found::Endless => {
                self.misses = 0;
                self.answered_at = Some(now);
                self.stops = self.stops.saturating_add(1);
                let is_due = match self.open_until {
                    None => self.stops >= self.opens_after,
                    Some(until) => probe || now >= until,
                };
                if is_due {
                    (self.open_until, self.is_open_for_stops) = (Some(now + self.pause), true);
                }
            }
            Found::Nobody { wait } => {
                self.misses = self.misses.saturating_add(1);
                let until = now + self.pause.max(wait.min(LEFT_ALONE_MAX));
                // What was under way when it opened, or urgent, does not prolong the pause by itself; a failed
                // probe does, and so does what the provider asks for.
                if probe || (self.open_until.is_none() && self.misses >= self.opens_after) {
                    self.open_until = Some(until);
                } else if self.open_until.is_some() && !wait.is_zero() {
                    self.open_until = self.open_until.max(Some(until));
                }
            }
        }
    }
}

/// Whether a provider asks for a longer wait than a question can sit out.
pub(super) fn too_long(wait: Duration) -> bool {
    wait > RETRY_AFTER_MAX
}

/// What a header says about when to come again: `retry-after-ms`, or `Retry-After` in seconds or as a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(secs) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(secs).ok();
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let at = Timestamp::from(chrono::DateTime::<chrono::Utc>::from(at));
    Some(at.since(now))
}

/// How long to wait before try number `tries + 1`, or none if the provider wants to be left alone longer
/// than a question may take.
pub(super) fn backoff(tries: u32, asked_for: Option<Duration>) -> Option<Duration> {
    if asked_for.is_some_and(too_long) {
        return None;
    }
    let wait = BACKOFF.saturating_mul(1 << tries.min(6));
    // Up to half more, so that many workers do not come back together.
    let jitter = wait.mul_f64(0.5 * random());
    Some((wait + jitter).max(asked_for.unwrap_or_default() + jitter))
}

/// Some number from 0 to 1; every `RandomState` has keys of its own.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 40;
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    let random = bits as f64 / (1_u64 << 24) as f64;
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);
    const NOBODY: Found = Found::Nobody { wait: Duration::ZERO };

    #[test]
    fn the_circuit_opens_after_five_misses_in_a_row_and_closes_after_a_good_probe() {
        let start = Instant::now();
        let mut circuit = Circuit::new(5, PAUSE);
        for _ in 0..4 {
            circuit.settle(false, NOBODY, start);
        }
        circuit.settle(false, Found::Somebody, start);
        for _ in 0..4 {
            circuit.settle(false, NOBODY, start);
        }
        assert_eq!(circuit.admit(false, start), Ok(false), "an answer in between starts the count anew");
        circuit.settle(false, NOBODY, start);
        assert_eq!(circuit.admit(false, start + PAUSE / 3), Err(PAUSE / 3 * 2));
        assert_eq!(circuit.admit(true, start), Ok(false), "urgent questions go through");

        let later = start + PAUSE;
        assert_eq!(circuit.admit(false, later), Ok(true), "the probe");
        assert!(circuit.admit(false, later).is_err(), "one probe at a time");
        circuit.settle(true, NOBODY, later);
        assert_eq!(circuit.admit(false, later), Err(PAUSE), "a failed probe opens it again");
        assert_eq!(circuit.admit(false, later + PAUSE), Ok(true));
        circuit.settle(true, Found::Somebody, later + PAUSE);
        assert_eq!(circuit.admit(false, later + PAUSE), Ok(false));
    }

    #[test]
    fn a_provider_that_asks_for_it_again_and_again_is_left_alone_as_long_within_reason() {
        let start = Instant::now();
        let wish = |secs| Found::Nobody { wait: Duration::from_secs(secs) };
        let mut circuit = Circuit::new(2, PAUSE);
        circuit.settle(false, wish(600), start);
        assert_eq!(circuit.admit(false, start), Ok(false), "once may be about one job");
        circuit.settle(false, wish(60), start);
        assert_eq!(circuit.admit(false, start), Err(Duration::from_mins(1)));
        assert_eq!(circuit.admit(true, start), Ok(false), "urgent questions go through");
        // Those that were under way: what is asked for prolongs, and nothing shortens but an answer.
        circuit.settle(false, wish(90), start);
        circuit.settle(false, wish(10), start);
        circuit.settle(false, NOBODY, start);
        assert_eq!(circuit.admit(false, start), Err(Duration::from_secs(90)));
        circuit.settle(false, wish(365 * 24 * 3600), start);
        assert_eq!(circuit.admit(false, start), Err(LEFT_ALONE_MAX), "a year is not waited for");
        assert_eq!(circuit.admit(false, start + LEFT_ALONE_MAX), Ok(true), "then a probe");
        circuit.settle(true, wish(120), start);
        assert_eq!(circuit.admit(false, start), Err(Duration::from_mins(2)));
        circuit.settle(false, Found::Somebody, start);
        assert_eq!(circuit.admit(false, start), Ok(false));
    }

    #[test]
    fn the_circuit_opens_after_five_stopped_readings_and_only_a_probe_closes_it() {
        let start = Instant::now();
        let mut circuit = Circuit::new(5, PAUSE);
        for _ in 0..4 {
            circuit.settle(false, Found::Endless, start);
            circuit.settle(false, Found::Somebody, start);
        }
        assert_eq!(circuit.admit(false, start), Ok(false), "four are not enough");
        circuit.settle(false, Found::Endless, start);
        assert_eq!(circuit.admit(false, start), Err(PAUSE), "the answers between do not count");
        circuit.settle(false, Found::Somebody, start);
        assert_eq!(circuit.admit(false, start), Err(PAUSE), "nor those that were under way");

        let later = start + PAUSE;
        assert_eq!(circuit.admit(false, later), Ok(true), "the probe");
        circuit.settle(true, Found::Endless, later);
        assert_eq!(circuit.admit(false, later), Err(PAUSE), "stopped again");
        let later = later + PAUSE;
        circuit.settle(false, Found::Endless, later);
        assert_eq!(circuit.admit(false, later), Err(PAUSE), "also before a question could begin");
        let later = later + PAUSE;
        assert_eq!(circuit.admit(false, later), Ok(true));
        circuit.settle(true, Found::Somebody, later);
        assert_eq!(circuit.admit(false, later), Ok(false), "a good probe closes it");
        circuit.settle(false, Found::Endless, later);
        assert_eq!(circuit.admit(false, later), Ok(false), "the count begins anew");
    }

    #[tokio::test]
    async fn a_probe_that_is_dropped_leaves_room_for_another() {
        let limits = Limits { circuit_opens_after: 1, circuit_pause: Duration::ZERO, ..Limits::default() };
        let manners = Manners::new(&limits);
        manners.begin(false).await.unwrap().0.settle(Some(NOBODY));
        assert!(manners.circuit_open());
        let probe = manners.begin(false).await.unwrap();
        assert!(manners.begin(false).await.is_err());
        drop(probe);
        manners.begin(false).await.unwrap().0.settle(None);
        manners.begin(false).await.unwrap().0.settle(Some(Found::Somebody));
        assert!(!manners.circuit_open());
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_is_turned_away_when_the_circuit_opens() {
        let limits = Limits { max_concurrency: 1, circuit_opens_after: 1, ..Limits::default() };
        let manners = Manners::new(&limits);
        let (admission, turn) = manners.begin(false).await.unwrap();
        let waiting = futures_util::future::join_all((0..100).map(|_| manners.begin(false)));
        let finding = async {
            admission.settle(Some(NOBODY));
            drop(turn);
        };
        let (waited, ()) = futures_util::future::join(waiting, finding).await;
        assert!(waited.iter().all(|begun| matches!(begun, Err(retry_in) if *retry_in > PAUSE / 2)));
    }

    #[test]
    fn retry_after_is_read_in_all_three_spellings() {
        let now = Timestamp::parse("2026-05-04T09:12:00Z").unwrap();
        for (name, value, wait) in [
            ("retry-after", "3", Some(Duration::from_secs(3))),
            ("retry-after-ms", "250", Some(Duration::from_millis(250))),
            ("retry-after", "Mon, 04 May 2026 09:12:30 GMT", Some(Duration::from_secs(30))),
            ("retry-after", "Mon, 04 May 2026 09:11:00 GMT", Some(Duration::ZERO)),
            ("retry-after", "soon", None),
            ("retry-after", "-3", None),
            ("retry-after", "inf", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(retry_after(&headers, now), wait, "{name}: {value}");
        }
    }

    #[test]
    fn waits_grow_carry_jitter_and_honour_what_was_asked_for_up_to_a_few_seconds() {
        for tries in 0..4 {
            let base = BACKOFF * (1 << tries);
            let wait = backoff(tries, None).unwrap();
            assert!(wait >= base && wait <= base + base / 2, "{tries}: {wait:?}");
        }
        assert!(backoff(0, Some(Duration::from_secs(3))).unwrap() >= Duration::from_secs(3));
        assert_eq!(backoff(0, Some(Duration::from_secs(6))), None);
    }
}
