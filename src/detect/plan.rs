//! The plan of one pass: which stretches of time it scans, in which order, and which positions it
//! saves. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{DetectRules, Since};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::provider::Providers;
use crate::store::{Backlog, Cursor, Cursors, Grace, Over, Refused, Scan};

/// The saved position of the scan over recorded failures.
pub(super) const FAILED: &str = "failed";
/// The beginning of the last pass that examined all charges whose grace had ended by then.
pub(super) const FRESH: &str = "fresh";
/// The positions of the first rejected row, in the scans over charges and over recorded failures.
/// The database stores these names.
pub(super) const REFUSED: &str = "refused";
pub(super) const REFUSED_FAILED: &str = "refused_failed";

const GRACE: &str = "grace";
const SIX_HOURS: (&str, Duration) = ("six_hours", Duration::from_hours(6));
const TWENTY_HOURS: (&str, Duration) = ("twenty_hours", Duration::from_hours(20));

/// A look goes back to its saved position at least this often. With a pass every minute, a charge
/// that is committed late within the overlap is found within 10 minutes of its commit.
pub const FULL_LOOK_EVERY: Duration = Duration::from_mins(9);
/// One look in each pass goes back this much earlier. Otherwise all three looks would become due in
/// the same pass, which would scan three overlaps.
const FULL_LOOK_EARLY: Duration = Duration::from_mins(2);
/// How far every pass scans behind the charges whose grace has just ended. A charge that is
/// committed at most this late is found at once.
const MAX_COMMIT_DELAY: Duration = Duration::from_mins(1);
/// How often rejected rows are retried. A shorter time would make every pass scan days of charges
/// because of one row.
const RETRY_REFUSED_EVERY: Duration = Duration::from_hours(1);

/// The graces by provider and model.
#[derive(Clone, Debug)]
pub(super) struct Graces {
    pub(super) default: Duration,
    pub(super) special: Vec<(String, Option<String>, Duration)>,
}

impl Graces {
    /// The effective graces: a provider's own or the default, at most a third of its retention.
    pub(super) fn new(default: Duration, providers: &Providers) -> Self {
        let mut special = Vec::new();
        for provider in providers.iter() {
            let cap =
                |grace: Duration| provider.retention.map_or(grace, |retention| grace.min(retention / 3));
            let own = cap(provider.grace.unwrap_or(default));
            if own != default {
                special.push((provider.name.clone(), None, own));
            }
            for (model, limits) in &provider.models {
                special.push((provider.name.clone(), Some(model.clone()), cap(limits.grace)));
            }
        }
        Self { default, special }
    }

    /// The grace of a provider and model: the model's own, else the provider's, else the default.
    /// The statement `find_undelivered` computes the same.
    pub(super) fn of(&self, provider: &str, model: &str) -> Duration {
        let own = |of: Option<&str>| {
            let special = self.special.iter();
            special
                .filter(|(name, model, _)| name == provider && model.as_deref() == of)
                .map(|each| each.2)
                .max()
        };
        own(Some(model)).or_else(|| own(None)).unwrap_or(self.default)
    }

    /// All distinct graces.
    fn ages(&self) -> BTreeSet<Duration> {
        self.special.iter().map(|(_, _, grace)| *grace).chain([self.default]).collect()
    }

    fn smallest(&self) -> Duration {
        self.ages().first().copied().unwrap_or(self.default)
    }

    fn before(&self, now: Timestamp) -> Vec<Grace> {
        let special = self.special.iter();
        special
            .map(|(provider, model, grace)| Grace {
                provider: provider.clone(),
                model: model.clone(),
                before: now - *grace,
            })
            .collect()
    }

    fn scan(&self, name: &'static str, after: Timestamp, until: Timestamp, now: Timestamp) -> Scan {
        let over = Over::ChargedAt;
        let (grace_before, graces) = (now - self.default, self.before(now));
        Scan { name, over, after, until, grace_before, graces, grace_ended_within: None }
    }
}

/// One stretch of time to scan, and the positions to save.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) scan: Scan,
    pub(super) saves: Saves,
    /// After this stretch, all charges whose grace has ended have been examined.
    pub(super) completes_fresh: bool,
}

/// The positions that the scan of a stretch saves.
#[derive(Clone, Debug)]
pub(super) enum Saves {
    /// Positions, after each chunk.
    Positions(Arc<[Mark]>),
    /// The retry of rejected rows from here on.
    Tried(Refused),
    /// Nothing: a person asked for this scan.
    Nothing,
}

/// A saved position that moves with a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) name: &'static str,
    /// Where its scan begins.
    pub(super) from: Timestamp,
    /// The position never passes this.
    pub(super) cap: Timestamp,
    /// Where its scan ends.
    pub(super) until: Timestamp,
}

impl Mark {
    /// The position to save once everything from `from` up to this time has been scanned.
    pub(super) fn reached(&self, up_to: Timestamp) -> Option<(&'static str, Timestamp)> {
        let position = up_to.min(self.cap);
        (position > self.from).then_some((self.name, position))
    }
}

/// The positions that earlier passes saved.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved {
    pub(super) failed: Option<Cursor>,
    pub(super) grace: Option<Cursor>,
    pub(super) six_hours: Option<Cursor>,
    pub(super) twenty_hours: Option<Cursor>,
    pub(super) fresh: Option<Cursor>,
    pub(super) backlog: Option<Backlog>,
    pub(super) refused: Option<Refused>,
    pub(super) refused_failed: Option<Refused>,
    /// The looks behind whose position the number of charges has changed, because one was committed
    /// late.
    pub(super) changed: Vec<&'static str>,
}

impl Saved {
    /// The looks and their saved positions.
    pub(super) fn looks(&self) -> impl Iterator<Item = (&'static str, Cursor)> {
        let all = [(GRACE, self.grace), (SIX_HOURS.0, self.six_hours), (TWENTY_HOURS.0, self.twenty_hours)];
        all.into_iter().filter_map(|(name, saved)| Some((name, saved?)))
    }

    /// The latest position. It must be in the past, even with clock skew between processes.
    pub(super) fn furthest(&self) -> Option<Timestamp> {
        let cursors = [self.failed, self.grace, self.six_hours, self.twenty_hours];
        cursors.into_iter().flatten().map(|cursor| cursor.position).max()
    }

    pub(super) fn read(cursors: &Cursors) -> Self {
        Self {
            failed: cursors.cursor(FAILED),
            grace: cursors.cursor(GRACE),
            six_hours: cursors.cursor(SIX_HOURS.0),
            twenty_hours: cursors.cursor(TWENTY_HOURS.0),
            fresh: cursors.cursor(FRESH),
            backlog: cursors.backlog(),
            refused: cursors.refused(REFUSED),
            refused_failed: cursors.refused(REFUSED_FAILED),
            changed: Vec::new(),
        }
    }
}

/// The scans of one pass.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The stretches, in the order in which they are scanned.
    pub(super) stretches: Vec<Stretch>,
    /// Charges that this pass reaches for the first time and that are past their window. They are
    /// added to the backlog.
    pub(super) late: Option<Backlog>,
    /// At least one look goes back to its saved position.
    pub(super) is_full: bool,
    /// The positions of these looks.
    pub(super) marks: Arc<[Mark]>,
}

/// One of the three examinations of every charge.
struct Look {
    name: &'static str,
    last: Option<Cursor>,
    /// The distinct ages of charges at which it examines them.
    ages: BTreeSet<Duration>,
}

/// Plans a pass that begins now.
pub(super) fn plan(
    rules: &DetectRules,
    graces: &Graces,
    saved: &Saved,
    since: Option<Since>,
    now: Timestamp,
) -> Plan {
    let window_starts = now - rules.window;
    let fresh = saved.fresh.map(|fresh| fresh.position).filter(|at| *at <= now + MAX_CLOCK_SKEW);
    let looks = [
        Look { name: GRACE, last: saved.grace, ages: graces.ages() },
        Look { name: SIX_HOURS.0, last: saved.six_hours, ages: [SIX_HOURS.1].into() },
        Look { name: TWENTY_HOURS.0, last: saved.twenty_hours, ages: [TWENTY_HOURS.1].into() },
    ];
    let early = early_look(&looks, rules, now);
    let (mut spans, mut marks) = (Vec::new(), Vec::new());
    let mut grace_ended_within = None;
    let mut late_from: Option<Timestamp> = None;
    for Look { name, last, ages } in looks {
        let (Some(youngest), Some(oldest)) = (ages.first(), ages.last()) else { continue };
        let behind = *oldest + rules.overlap;
        // A position in the future was saved while the clock was ahead. It does not tell what was
        // scanned.
        let last = last.filter(|last| last.position <= now);
        match (last, fresh) {
            (Some(last), Some(fresh))
                if !is_full_look_due(rules, last, behind, now)
                    && !saved.changed.contains(&name)
                    && early != Some(name) =>
            {
                let behind = if name == GRACE { MAX_COMMIT_DELAY } else { Duration::ZERO };
                if name == GRACE {
                    grace_ended_within = Some(now.since(fresh) + behind);
                }
                let span = |age: &Duration| ((fresh - *age - behind).max(window_starts), now - *age);
                spans.extend(ages.iter().map(span));
            }
            _ => {
                let begin =
                    rules.not_before_start(last.map_or(now - rules.backlog_age, |last| last.position));
                if begin < window_starts {
                    late_from = Some(late_from.map_or(begin, |from| from.min(begin)));
                }
                let from = begin.max(window_starts);
                spans.push((from, now - *youngest));
                marks.push(Mark { name, from, cap: now - behind, until: now - *youngest });
            }
        }
    }
    let is_full = !marks.is_empty();
    let late = late_from.map(|after| Backlog { after, until: window_starts });

    let mut stretches = vec![failed_stretch(rules, graces, saved, now)];
    let marks: Arc<[Mark]> = marks.into();
    let named = named(merged(spans, rules.start_at), now);
    let count = named.len();
    stretches.extend(named.into_iter().enumerate().map(|(nth, (name, after, until))| Stretch {
        scan: Scan {
            // A charge with another grace is examined when that grace ends.
            grace_ended_within: grace_ended_within.filter(|_| name == GRACE),
            ..graces.scan(name, after, until, now)
        },
        saves: Saves::Positions(Arc::clone(&marks)),
        completes_fresh: nth + 1 == count,
    }));
    stretches.extend(since.map(|since| since_stretch(rules, graces, since, now)));
    stretches.extend(backlog_stretch(rules, graces, saved.backlog, late, now));
    let over_failures = Over::FailedAt { charged_after: rules.oldest(now) };
    for (over, refused) in [(Over::ChargedAt, saved.refused), (over_failures, saved.refused_failed)] {
        stretches.extend(refused.and_then(|refused| refused_stretch(rules, graces, over, refused, now)));
    }
    stretches.retain(|stretch| stretch.scan.after < stretch.scan.until);
    Plan { stretches, late, is_full, marks }
}

/// The look that goes back to its saved position a little earlier than it has to, if one does now.
fn early_look(looks: &[Look], rules: &DetectRules, now: Timestamp) -> Option<&'static str> {
    let every = rules.full_look_every.saturating_sub(FULL_LOOK_EARLY);
    let saved = looks.iter().filter_map(|look| Some((look.last?.saved_at, look.name)));
    let (saved_at, name) = saved.min_by_key(|(saved_at, _)| *saved_at)?;
    (now.since(saved_at) >= every).then_some(name)
}

/// Whether a look has to go back to its saved position: to scan the overlap again, or because the
/// last scan did not reach its end.
fn is_full_look_due(rules: &DetectRules, saved: Cursor, behind: Duration, now: Timestamp) -> bool {
    let was_ahead = saved.saved_at > now + MAX_CLOCK_SKEW;
    let was_stopped = saved.position < saved.saved_at - behind;
    was_ahead || was_stopped || now.since(saved.saved_at) >= rules.full_look_every
}

/// The scan of recorded failures. It covers the whole overlap in every pass (P19).
fn failed_stretch(rules: &DetectRules, graces: &Graces, saved: &Saved, now: Timestamp) -> Stretch {
    // A platform may record the failures of a year at once. Older charges only produce a finding.
    let over = Over::FailedAt { charged_after: rules.oldest(now) };
    let begin = saved.failed.map(|saved| saved.position).filter(|at| *at <= now);
    let from = rules.not_before_start(begin.unwrap_or(now - rules.backlog_age));
    let mark = Mark { name: FAILED, from, cap: now - rules.overlap, until: now };
    Stretch {
        scan: Scan { over, ..graces.scan(FAILED, from, now, now) },
        saves: Saves::Positions([mark].into()),
        completes_fresh: false,
    }
}

/// The rest of the backlog, and what this pass adds to it.
fn backlog_stretch(
    rules: &DetectRules,
    graces: &Graces,
    left: Option<Backlog>,
    added: Option<Backlog>,
    now: Timestamp,
) -> Option<Stretch> {
    let all = left.into_iter().chain(added);
    let backlog = all.reduce(|a, b| Backlog { after: a.after.min(b.after), until: a.until.max(b.until) })?;
    let from = rules.not_before_start(backlog.after);
    // A clock that was ahead may have written a later time.
    let until = backlog.until.min(now - rules.window);
    let mark = Mark { name: "backlog", from, cap: until, until };
    Some(Stretch {
        scan: graces.scan("backlog", from, until, now),
        saves: Saves::Positions([mark].into()),
        completes_fresh: false,
    })
}

/// Merges overlapping spans, sorts them, and cuts them at `start_at`.
fn merged(
    mut spans: Vec<(Timestamp, Timestamp)>,
    start_at: Option<Timestamp>,
) -> Vec<(Timestamp, Timestamp)> {
    spans.sort_unstable();
    let mut all: Vec<(Timestamp, Timestamp)> = Vec::new();
    for (after, until) in spans {
        let after = start_at.map_or(after, |start_at| after.max(start_at));
        match all.last_mut() {
            _ if after >= until => {}
            Some(last) if after <= last.1 => last.1 = last.1.max(until),
            Some(_) | None => all.push((after, until)),
        }
    }
    all
}

/// Cuts spans at the ages of the looks, and names each part by the latest look that its charges are
/// old enough for.
fn named(spans: Vec<(Timestamp, Timestamp)>, now: Timestamp) -> Vec<(&'static str, Timestamp, Timestamp)> {
    let (six, twenty) = (now - SIX_HOURS.1, now - TWENTY_HOURS.1);
    let mut parts = Vec::new();
    for (after, until) in spans {
        for (name, from, to) in [
            (TWENTY_HOURS.0, after, until.min(twenty)),
            (SIX_HOURS.0, after.max(twenty), until.min(six)),
            (GRACE, after.max(six), until),
        ] {
            if from < to {
                parts.push((name, from, to));
            }
        }
    }
    parts
}

/// The scan that retries rejected rows, if it is due.
pub(super) fn refused_stretch(
    rules: &DetectRules,
    graces: &Graces,
    over: Over,
    refused: Refused,
    now: Timestamp,
) -> Option<Stretch> {
    // A time in the future was saved by a clock that was ahead.
    let is_due = refused.tried_at > now || now.since(refused.tried_at) >= RETRY_REFUSED_EVERY;
    let (name, until) = match over {
        Over::ChargedAt => (REFUSED, now - graces.smallest()),
        Over::FailedAt { .. } => (REFUSED_FAILED, now),
    };
    let from = refused.after.max(rules.oldest(now));
    let scan = Scan { over, ..graces.scan(name, from, until, now) };
    is_due.then_some(Stretch { scan, saves: Saves::Tried(refused), completes_fresh: false })
}

/// The scan that a person asked for. It includes charges older than `backlog_age` only with
/// `--backlog`.
pub(super) fn since_stretch(rules: &DetectRules, graces: &Graces, since: Since, now: Timestamp) -> Stretch {
    let from = if since.backlog { since.from } else { since.from.max(rules.oldest(now)) };
    let scan = graces.scan("since", from, now - graces.smallest(), now);
    Stretch { scan, saves: Saves::Nothing, completes_fresh: false }
}

/// The part of the scan that a person asked for whose charges are only counted.
pub(super) fn counted_only(
    rules: &DetectRules,
    graces: &Graces,
    since: Since,
    now: Timestamp,
) -> Option<Scan> {
    let oldest = rules.oldest(now);
    (!since.backlog && since.from < oldest).then(|| graces.scan("since", since.from, oldest, now))
}
