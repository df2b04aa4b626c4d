//! Good manners towards one provider: how many questions at once, how many a second, when to try again,
//! and when to leave it alone for a while.
//!
//! The circuit opens after several questions in a row found nobody, and then costs the others neither an
//! attempt nor a worker. After a pause one question is let through as a probe; its answer closes the
//! circuit or opens it again. Urgent questions (past their deadline) go through regardless. Nothing here
//! is shared between providers, so that one that hangs never delays another.
//! A crash forgets all of it; the next process begins with a closed circuit.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Timestamp;

/// The longest wait that a `Retry-After` may ask for before trying again at once; longer ones are left to
/// the next pass.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
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
    slots: Semaphore,
    rate: Option<DefaultDirectRateLimiter>,
    circuit: Mutex<Circuit>,
}

impl Manners {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            slots: Semaphore::new(limits.max_concurrency),
            rate: limits.requests_per_second.and_then(quota).map(RateLimiter::direct),
            circuit: Mutex::new(Circuit::new(limits.circuit_opens_after, limits.circuit_pause)),
        }
    }

    /// Waits for its turn; the permit is held while the request is under way.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so that a permit always comes.
        let permit = self.slots.acquire().await.ok();
        if let Some(rate) = &self.rate {
            rate.until_ready().await;
        }
        permit
    }

    /// Lets a question through the circuit, or says when to come again.
    pub(super) fn admit(&self, urgent: bool) -> Result<Admission<'_>, Duration> {
        let probe = self.circuit().admit(urgent, Instant::now())?;
        Ok(Admission { manners: self, probe, settled: false })
    }

    /// Whether questions are turned away now.
    pub(super) fn circuit_open(&self) -> bool {
        self.circuit().open_until.is_some()
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests per second as a quota: whole numbers may come in a burst of a second's worth.
fn quota(per_second: f64) -> Option<Quota> {
    let period = Duration::try_from_secs_f64(1.0 / per_second).ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the file's check bounds it")]
    let burst = NonZeroU32::new(per_second as u32).unwrap_or(NonZeroU32::MIN);
    Some(Quota::with_period(period)?.allow_burst(burst))
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
    /// What came of the question: whether anybody was there. None: nobody was asked.
    pub(super) fn settle(mut self, reached: Option<bool>) {
        if let Some(reached) = reached {
            self.settled = true;
            self.manners.circuit().settle(self.probe, reached, Instant::now());
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
    open_until: Option<Instant>,
    probing: bool,
}

impl Circuit {
    const fn new(opens_after: u32, pause: Duration) -> Self {
        Self { opens_after, pause, misses: 0, open_until: None, probing: false }
    }

    /// Whether the question is a probe; an error says when to come again.
    fn admit(&mut self, urgent: bool, now: Instant) -> Result<bool, Duration> {
        let Some(until) = self.open_until else { return Ok(false) };
        if now >= until && !self.probing {
            self.probing = true;
            return Ok(true);
        }
        if urgent {
            return Ok(false);
        }
        // While a probe is under way nobody knows how long it takes.
        let left = until.saturating_duration_since(now);
        Err(if left.is_zero() { self.pause.min(Duration::from_secs(1)) } else { left })
    }

    fn settle(&mut self, probe: bool, reached: bool, now: Instant) {
        if probe {
            self.probing = false;
        }
        if reached {
            self.misses = 0;
            self.open_until = None;
            return;
        }
        self.misses = self.misses.saturating_add(1);
        // What was under way when it opened, or urgent, does not prolong the pause; a failed probe does.
        if probe || (self.open_until.is_none() && self.misses >= self.opens_after) {
            self.open_until = Some(now + self.pause);
        }
    }
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
    if asked_for.is_some_and(|wait| wait > RETRY_AFTER_MAX) {
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

    #[test]
    fn the_circuit_opens_after_five_misses_in_a_row_and_closes_after_a_good_probe() {
        let start = Instant::now();
        let mut circuit = Circuit::new(5, PAUSE);
        for _ in 0..4 {
            circuit.settle(false, false, start);
        }
        circuit.settle(false, true, start);
        for _ in 0..4 {
            circuit.settle(false, false, start);
        }
        assert_eq!(circuit.admit(false, start), Ok(false), "an answer in between starts the count anew");
        circuit.settle(false, false, start);
        assert_eq!(circuit.admit(false, start + PAUSE / 3), Err(PAUSE / 3 * 2));
        assert_eq!(circuit.admit(true, start), Ok(false), "urgent questions go through");

        let later = start + PAUSE;
        assert_eq!(circuit.admit(false, later), Ok(true), "the probe");
        assert!(circuit.admit(false, later).is_err(), "one probe at a time");
        circuit.settle(true, false, later);
        assert_eq!(circuit.admit(false, later), Err(PAUSE), "a failed probe opens it again");
        assert_eq!(circuit.admit(false, later + PAUSE), Ok(true));
        circuit.settle(true, true, later + PAUSE);
        assert_eq!(circuit.admit(false, later + PAUSE), Ok(false));
    }

    #[test]
    fn a_probe_that_is_dropped_leaves_room_for_another() {
        let limits = Limits { circuit_opens_after: 1, circuit_pause: Duration::ZERO, ..Limits::default() };
        let manners = Manners::new(&limits);
        manners.admit(false).unwrap().settle(Some(false));
        assert!(manners.circuit_open());
        let probe = manners.admit(false).unwrap();
        assert!(manners.admit(false).is_err());
        drop(probe);
        manners.admit(false).unwrap().settle(None);
        manners.admit(false).unwrap().settle(Some(true));
        assert!(!manners.circuit_open());
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

    #[test]
    fn a_rate_below_one_a_second_is_possible() {
        assert_eq!(quota(0.2).unwrap().replenish_interval(), Duration::from_secs(5));
        assert_eq!(quota(40.0).unwrap().burst_size().get(), 40);
    }
}
