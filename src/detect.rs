//! What has no output: which stretches of time a pass looks at.
//!
//! Three cursors over `charged_at` see every charge three times: once its grace is over, at 6 hours and at 20 hours.
//! Each stays `overlap` behind what could still change for it, so that what was committed late, or linked wrongly
//! later, is found inside the window (P14, P15). Items with `failed_at` have a scan of their own without grace (P19).
//! What the database refuses to open has no orphan that would keep it in mind: where the first of it was met is noted, and
//! all since then is looked at again once an hour, until its rows are mended or too old.
//! The stretches are planned by pure functions; `store::scan` looks. A crash means looking at a stretch again.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::{SKEW, Timestamp};
use crate::provider::Providers;
use crate::report::{Finding, Report};
use crate::store::{DbError, Found, Grace, Over, Refused, Scan, Store};

/// When every charge is looked at again.
const LATER_LOOKS: [(&str, Duration); 2] =
    [("six_hours", Duration::from_hours(6)), ("twenty_hours", Duration::from_hours(20))];
/// How often it is tried again to open what the database refused: in time for whoever mends its rows, and no pass looks at days
/// of charges for the sake of one of them.
const REFUSED_AGAIN: Duration = Duration::from_hours(1);
/// So many old items that were recorded as failed are counted; beyond, it no longer matters how many they are.
const FAILED_BACKLOG_MAX: i64 = 10_000;
/// What an orphan gets that is opened late, from its opening to the end of doubt.
const LATE: Duration = Duration::from_hours(2);

/// How detection is set.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long a charge is left alone, where its provider's file names no grace.
    pub grace: Duration,
    /// How far a cursor stays behind what could still change.
    pub overlap: Duration,
    /// No charge before this is looked at, unless a person asks for it. None, or earlier than `backlog_age` before the first
    /// pass: from then on.
    pub start_at: Option<Timestamp>,
    /// The first pass leaves charges alone that are older than this, unless a person asks for them.
    pub backlog_age: Duration,
    /// Charges in one statement.
    pub chunk: u32,
    /// From the charge to the end of the window (P15: 24 h).
    pub window: Duration,
    /// How long before the window's end the benefit of the doubt ends.
    pub margin: Duration,
    /// How long an orphan is leased at once.
    pub lease: Duration,
}

impl Rules {
    /// The oldest charge that is looked at without a person's asking for it, where no cursor has been left behind by an outage.
    fn oldest(&self, now: Timestamp) -> Timestamp {
        let first = now - self.backlog_age;
        self.start_at.map_or(first, |start_at| start_at.max(first))
    }
}

/// Graces by provider and model, the smallest and the largest of all.
#[derive(Clone, Debug)]
pub struct Graces {
    default: Duration,
    special: Vec<(String, Option<String>, Duration)>,
}

impl Graces {
    /// The graces that are in force: a provider's own or the default, never above a third of its retention.
    pub fn new(default: Duration, providers: &Providers) -> Self {
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

    fn all(&self) -> impl Iterator<Item = Duration> {
        self.special.iter().map(|(_, _, grace)| *grace).chain([self.default])
    }

    fn smallest(&self) -> Duration {
        self.all().min().unwrap_or(self.default)
    }

    fn largest(&self) -> Duration {
        self.all().max().unwrap_or(self.default)
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
        Scan { name, over, after, until, grace_before: now - self.default, graces: self.before(now) }
    }
}

/// One stretch to look at, and what is noted afterwards.
#[derive(Clone, Debug)]
pub struct Look {
    /// The stretch.
    pub scan: Scan,
    /// What is noted afterwards.
    pub then: Then,
}

/// What is noted once a stretch was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The scan's cursor moves to here.
    Advance(Timestamp),
    /// What was refused, by its note from here on, was tried again.
    Tried(Timestamp),
    /// Nothing: a person asked for this look.
    Nothing,
}

/// By which name it is kept what a scan was refused.
const fn kept_as(over: Over) -> &'static str {
    match over {
        Over::ChargedAt => "refused",
        Over::FailedAt { .. } => "refused_failed",
    }
}

/// What `--since` asks for.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Look again from here.
    pub from: Timestamp,
    /// Also open what is older than the backlog's age.
    pub backlog: bool,
}

/// The looks of every pass, given where each cursor stands.
pub fn plan(
    rules: &Rules,
    graces: &Graces,
    cursor: impl Fn(&str) -> Option<Timestamp>,
    now: Timestamp,
) -> Vec<Look> {
    // One that lies ahead was moved by a clock that was: it says nothing about what was looked at.
    let begin = |name| {
        let at = cursor(name).filter(|at| *at <= now).unwrap_or(now - rules.backlog_age);
        rules.start_at.map_or(at, |start_at| at.max(start_at))
    };
    // A platform that records the failures of a year all at once is told so.
    let over = Over::FailedAt { charged_after: rules.oldest(now) };
    let mut looks = vec![
        Look {
            scan: Scan { over, ..graces.scan("failed", begin("failed"), now, now) },
            then: Then::Advance(now - rules.overlap),
        },
        Look {
            scan: graces.scan("grace", begin("grace"), now - graces.smallest(), now),
            then: Then::Advance(now - graces.largest() - rules.overlap),
        },
    ];
    for (name, age) in LATER_LOOKS {
        let until = now - age;
        looks.push(Look {
            scan: graces.scan(name, begin(name), until, now),
            then: Then::Advance(until - rules.overlap),
        });
    }
    looks
}

/// The look that tries again to open what was refused, if it is time for it.
fn plan_again(rules: &Rules, graces: &Graces, over: Over, refused: Refused, now: Timestamp) -> Option<Look> {
    // A try that is still to come was noted by a clock that was ahead.
    let due = refused.tried_at > now || now.since(refused.tried_at) >= REFUSED_AGAIN;
    let until = match over {
        Over::ChargedAt => now - graces.smallest(),
        Over::FailedAt { .. } => now,
    };
    let from = refused.after.max(rules.oldest(now));
    let scan = Scan { over, ..graces.scan(kept_as(over), from, until, now) };
    due.then_some(Look { scan, then: Then::Tried(refused.after) })
}

/// What `--since` adds: the stretch to open, and the one before it that is only counted.
pub fn plan_since(rules: &Rules, graces: &Graces, since: Since, now: Timestamp) -> (Look, Option<Scan>) {
    let oldest = rules.oldest(now);
    let until = now - graces.smallest();
    let from = if since.backlog { since.from } else { since.from.max(oldest) };
    let counted =
        (!since.backlog && since.from < oldest).then(|| graces.scan("since", since.from, oldest, now));
    (Look { scan: graces.scan("since", from, until, now), then: Then::Nothing }, counted)
}

/// How orphans are dated.
pub fn dating(rules: &Rules, providers: &Providers) -> crate::store::Dating {
    crate::store::Dating {
        doubt: rules.window.saturating_sub(rules.margin),
        window: rules.window,
        late: LATE,
        retentions: providers.iter().filter_map(|each| Some((each.name.clone(), each.retention?))).collect(),
        lease: rules.lease,
    }
}

/// The stretches that a pass at `now` looks at; tells the report what is too old to be opened, and what is odd.
pub async fn looks(
    store: &Store,
    providers: &Providers,
    rules: &Rules,
    since: Option<Since>,
    now: Timestamp,
    report: &mut Report,
) -> Result<Vec<Look>, DbError> {
    let graces = Graces::new(rules.grace, providers);
    let mut cursors = HashMap::new();
    for name in ["failed", "grace"].into_iter().chain(LATER_LOOKS.map(|(name, _)| name)) {
        cursors.insert(name, store.cursor(name).await?);
    }
    let furthest = cursors.values().flatten().max().copied().filter(|at| *at > now);
    if let Some(at) = furthest {
        report.find(Finding {
            kind: "clock_was_ahead",
            about: format!("a scan that has looked up to {at}"),
            detail: "which is still to come: the database's clock was ahead for a while. What the scans may have skipped is looked \
                     at again"
                .to_owned(),
        });
    }
    let mut looks = plan(rules, &graces, |name| cursors.get(name).copied().flatten(), now);
    for over in [Over::ChargedAt, Over::FailedAt { charged_after: rules.oldest(now) }] {
        let refused = store.refused(kept_as(over)).await?;
        looks.extend(refused.and_then(|refused| plan_again(rules, &graces, over, refused, now)));
    }
    if let Some(since) = since {
        let (look, counted) = plan_since(rules, &graces, since, now);
        looks.push(look);
        if let Some(scan) = counted {
            report.backlog = store.count_undelivered(&scan, rules.chunk).await?;
        }
    }
    looks.retain(|look| look.scan.after < look.scan.until);
    find_future_charges(store, now, report).await?;
    for look in looks.iter().filter(|look| matches!(look.then, Then::Advance(_))) {
        find_failed_backlog(store, &look.scan, report).await?;
    }
    Ok(looks)
}

/// Looks at all stretches and opens orphans.
pub async fn detect(
    store: &Store,
    providers: &Providers,
    rules: &Rules,
    since: Option<Since>,
    now: Timestamp,
    report: &mut Report,
) -> Result<(), DbError> {
    let dating = dating(rules, providers);
    let looks = looks(store, providers, rules, since, now, report).await?;
    // In every pass: what one wrote that was at work while the clock was ahead does not show in any cursor.
    let dated = store.date_orphans_anew(now, &dating).await?;
    if dated > 0 {
        report.find(Finding {
            kind: "clock_was_ahead",
            about: if dated == 1 { "1 open orphan".to_owned() } else { format!("{dated} open orphans") },
            detail: "bore times that are still to come: the database's clock was ahead for a while. What was put off until then is due now"
                .to_owned(),
        });
    }
    for look in looks {
        let Look { scan, then } = look;
        let found = store.scan(&scan, rules.chunk, &dating).await?;
        match then {
            Then::Advance(cursor) => {
                // Before the cursor moves on: it would be forgotten, should this pass die in between.
                if let Some(after) = found.refused_after {
                    store.note_refused(kept_as(scan.over), after, now).await?;
                }
                store.advance_cursor(scan.name, cursor, now).await?;
            }
            Then::Tried(before) => store.tried_refused(scan.name, before, found.refused_after, now).await?,
            Then::Nothing => {}
        }
        tell(found, report);
    }
    Ok(())
}

/// Counts what was found, and tells what the database would not take.
pub fn tell(found: Found, report: &mut Report) {
    report.opened += found.opened;
    report.reopened += found.reopened;
    for (item, why) in found.refused {
        report.find(Finding {
            kind: "refused_row",
            about: format!("item {}", shortened(&item.to_string())),
            detail: format!(
                "the database refused to open an orphan for it: {why}; mend the row, it is tried again within the hour"
            ),
        });
    }
}

/// An id as a person can read it.
fn shortened(id: &str) -> String {
    match id.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

async fn find_future_charges(store: &Store, now: Timestamp, report: &mut Report) -> Result<(), DbError> {
    let ahead = store.charges_in_the_future(now + SKEW).await?;
    if let Some(first) = ahead.first() {
        let many = if ahead.len() > 100 { "more than 100".to_owned() } else { ahead.len().to_string() };
        report.find(Finding {
            kind: "charged_in_the_future",
            about: format!("charge {first}"),
            detail: format!(
                "{many} charges have a charged_at that is still to come; they are looked at when it has come"
            ),
        });
    }
    Ok(())
}

/// How many items of a backlog are told, of which one more than the most was counted.
fn counted(items: u64) -> String {
    if items > FAILED_BACKLOG_MAX.unsigned_abs() {
        format!("more than {FAILED_BACKLOG_MAX}")
    } else {
        items.to_string()
    }
}

async fn find_failed_backlog(store: &Store, scan: &Scan, report: &mut Report) -> Result<(), DbError> {
    if let Some((items, example)) = store.failed_backlog(scan, FAILED_BACKLOG_MAX + 1).await? {
        let many = counted(items);
        report.find(Finding {
            kind: "failed_backlog",
            about: format!("charge {}", shortened(&example)),
            detail: format!(
                "{many} items of charges from before [detect] start_at or backlog_age were recorded as failed lately; nothing \
                 is given back for them unless a person asks: makegood run --since T --backlog"
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
