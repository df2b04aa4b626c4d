//! Finds charges without an output: which stretches of time a pass scans, in which order, and what it saves.
//!
//! Every charge is looked at three times: when its grace is over, at 6 hours and at 20 hours. So an output that was linked
//! wrongly later, and a charge that was committed late, are found inside the window (P14, P15). Items with `failed_at` have
//! a scan of their own without grace, which covers its whole overlap in every pass (P19).
//!
//! The cost follows what is new. A pass scans the charges that have come of age since the last one
//! (`fresh`), a few hundred, and counts the charges behind the saved positions. The full look goes
//! back to the saved position and scans the overlap again, for one look in a pass where that
//! suffices. It runs when that number has changed, because a charge was committed late, and at
//! least every [`FULL_LOOK_EVERY`]: a charge that is committed late, within the overlap, is found
//! within 10 minutes of its commit.
//!
//! A saved position never passes now - largest grace - overlap: whatever may still be committed or come of age lies behind it. It is
//! saved after each chunk, so a pass that is stopped or killed continues where it was. Charges inside their window are scanned
//! first, oldest first; those that were past it when a pass first came to them form the `backlog` and are scanned last.
//!
//! What the database refuses to open or cannot read is left without an orphan. The position of the
//! first such row is kept, and everything since then is scanned again once an hour, until the rows
//! are corrected or too old.
//!
//! One process scans at a time (`turn`). The others settle the orphans that it opens, and then have
//! little left to scan.
//!
//! `plan` is pure; `store::scan` reads and writes. A crash repeats at most one chunk, which opens nothing twice.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::charge::Charge;
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::provider::Providers;
use crate::report::{Finding, Report};
use crate::store::{DbError, Found, Lost, Pace, Position, Scan, Store};

mod plan;
mod turn;

pub use plan::FULL_LOOK_EVERY;
pub use turn::Turn;

use plan::{FRESH, Graces, Plan, REFUSED, REFUSED_FAILED, Saved, Saves, Stretch};

/// What an orphan gets that is opened late, from its opening to the end of doubt.
const LATE: Duration = Duration::from_hours(2);

/// How detection is set.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long a charge is left alone, where its provider's file names no grace.
    pub grace: Duration,
    /// How far a saved position stays behind what could still change.
    pub overlap: Duration,
    /// No charge before this is looked at, unless a person asks for it. None, or earlier than `backlog_age` before the first
    /// pass: from then on.
    pub start_at: Option<Timestamp>,
    /// The first pass leaves charges alone that are older than this, unless a person asks for them.
    pub backlog_age: Duration,
    /// How often a pass goes back to the saved positions, and so scans the overlap again.
    pub full_look_every: Duration,
    /// How long to wait for another process that scans.
    pub turn: Turn,
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
    /// The oldest charge that is looked at without a person's asking for it, where no position lies further back.
    fn oldest(&self, now: Timestamp) -> Timestamp {
        self.not_before_start(now - self.backlog_age)
    }

    fn not_before_start(&self, at: Timestamp) -> Timestamp {
        self.start_at.map_or(at, |start_at| at.max(start_at))
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

/// Who is told how detection proceeds, and may stop it.
pub trait Watch {
    /// Whether to begin no further chunk.
    fn is_ending(&self) -> bool;
    /// A chunk was scanned: so many charges or items, up to this time.
    fn scanned(&self, looked_at: u64, up_to: Timestamp);
    /// Orphans of these providers were opened. None named: orphans have become due, of whichever providers.
    fn opened(&self, providers: &BTreeSet<String>);
}

/// From when on a pass looks at a charge that has no output: the end of the grace of its provider
/// and model. None: it is older than what is looked at unless a person asks for it.
pub fn looked_at_from(
    rules: &Rules,
    providers: &Providers,
    charge: &Charge,
    now: Timestamp,
) -> Option<Timestamp> {
    let grace = Graces::new(rules.grace, providers).of(&charge.provider, &charge.model);
    (charge.charged_at >= rules.oldest(now)).then(|| charge.charged_at + grace)
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

/// One pass's detection.
#[derive(Clone, Copy, Debug)]
pub struct Detection<'a> {
    /// The tables.
    pub store: &'a Store,
    /// Whose graces and retentions count.
    pub providers: &'a Providers,
    /// How it is set.
    pub rules: &'a Rules,
    /// What a person asked for.
    pub since: Option<Since>,
    /// The beginning of the pass, by the database's clock.
    pub now: Timestamp,
}

impl Detection<'_> {
    /// Scans all stretches and opens orphans, due from the beginning of the pass. False: it was stopped before the end.
    ///
    /// # Errors
    /// The database cannot be worked with. Saved positions stay.
    pub async fn run(&self, watch: &impl Watch, report: &mut Report) -> Result<bool, DbError> {
        let mut turn = self.wait_for_turn(watch).await?;
        // After an error the turn ends by itself.
        let all = self.scan_all(watch, report, turn.as_mut()).await?;
        if let Some(turn) = turn {
            turn.end(self.store).await?;
        }
        Ok(all)
    }

    async fn scan_all(
        &self,
        watch: &impl Watch,
        report: &mut Report,
        mut turn: Option<&mut turn::Held>,
    ) -> Result<bool, DbError> {
        let plan = self.plan(report).await?;
        if let Some(backlog) = plan.late {
            // Before any position moves past these charges: otherwise a crash could lose them.
            self.store.note_backlog(backlog, self.now).await?;
        }
        if plan.is_full {
            self.redate(watch, report).await?;
        }
        // Counted before the scan: a commit during the scan changes the number, and the next pass
        // scans again.
        let mut counted = Vec::new();
        for mark in plan.marks.iter() {
            counted.push((mark.name, self.store.count_charges(mark.cap, mark.until).await?));
        }
        let dating = dating(self.rules, self.providers);
        for stretch in &plan.stretches {
            if !self.scan(stretch, &dating, watch, report, turn.as_deref_mut()).await? {
                return Ok(false);
            }
            if stretch.completes_fresh {
                for (name, counted) in counted.drain(..) {
                    self.store.note_count(name, counted).await?;
                }
            }
        }
        match self.since.and_then(|since| plan::counted_only(self.rules, &self.graces(), since, self.now)) {
            None => Ok(true),
            Some(scan) => {
                let counted =
                    self.store.count_undelivered(&scan, self.rules.chunk, || watch.is_ending()).await?;
                report.backlog = counted.unwrap_or_default();
                Ok(counted.is_some())
            }
        }
    }

    /// The stretches that this pass scans. Reports a clock that was ahead and charges in the future.
    ///
    /// # Errors
    /// The database cannot be worked with.
    async fn plan(&self, report: &mut Report) -> Result<Plan, DbError> {
        let mut saved = Saved::read(&self.store.cursors().await?);
        for (name, cursor) in saved.looks().collect::<Vec<_>>() {
            if let Some(counted) = cursor.counted
                && self.store.count_charges(cursor.position, counted.until).await? != counted
            {
                saved.changed.push(name);
            }
        }
        find_clock_ahead(&saved, self.now, report);
        find_impossible_times(self.store, self.now, report).await?;
        Ok(plan::plan(self.rules, &self.graces(), &saved, self.since, self.now))
    }

    /// The scans of this pass, for a dry run.
    ///
    /// # Errors
    /// The database cannot be worked with.
    pub async fn scans(&self, report: &mut Report) -> Result<Vec<Scan>, DbError> {
        let plan = self.plan(report).await?;
        if let Some(scan) =
            self.since.and_then(|since| plan::counted_only(self.rules, &self.graces(), since, self.now))
        {
            let counted = self.store.count_undelivered(&scan, self.rules.chunk, || false).await?;
            report.backlog = counted.unwrap_or_default();
        }
        Ok(plan.stretches.into_iter().map(|stretch| stretch.scan).collect())
    }

    fn graces(&self) -> Graces {
        Graces::new(self.rules.grace, self.providers)
    }

    /// Dates orphans again that bear times in the future: a pass that ran while the clock was ahead may have written them, and no
    /// position records that.
    async fn redate(&self, watch: &impl Watch, report: &mut Report) -> Result<(), DbError> {
        let dated = self.store.date_orphans_anew(self.now, &dating(self.rules, self.providers)).await?;
        if dated > 0 {
            // Of which providers is not known.
            watch.opened(&BTreeSet::new());
            report.find(Finding {
                kind: "clock_was_ahead",
                about: if dated == 1 { "1 open orphan".to_owned() } else { format!("{dated} open orphans") },
                detail: "had times in the future: the database's clock was ahead for a while. Those that would have waited until \
                         then are due now"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// Scans one stretch, chunk by chunk, and saves the position after each. False: it was stopped before the end.
    async fn scan(
        &self,
        stretch: &Stretch,
        dating: &crate::store::Dating,
        watch: &impl Watch,
        report: &mut Report,
        mut turn: Option<&mut turn::Held>,
    ) -> Result<bool, DbError> {
        let Stretch { scan, saves, completes_fresh } = stretch;
        let mut from = Position::before(scan.after);
        let mut pace = Pace::new(self.rules.chunk);
        let mut too_old: Option<(u64, String)> = None;
        let mut lost = Lost::default();
        let mut refused_after: Option<Timestamp> = None;
        loop {
            if watch.is_ending() {
                if let Saves::Tried(refused) = saves {
                    // What was refused is tried again from here, without waiting for another hour.
                    let up_to =
                        refused_after.unwrap_or(from.at).min(refused.tried_at - Duration::from_micros(1));
                    self.store
                        .tried_refused(scan.name, refused.after, up_to.max(refused.after), refused.tried_at)
                        .await?;
                }
                return Ok(false);
            }
            let chunk = self.store.scan_next(scan, &from, &mut pace).await?;
            self.store.hasten(&chunk.waiting, self.now).await?;
            let mut found = self.store.open_found(scan.name, &chunk.items, self.now, dating).await?;
            found.unreadable = chunk.unreadable;
            let next = chunk.next.clone();
            let up_to = next.as_ref().map_or(scan.until, |next| next.at);
            if !found.refused.is_empty() || !found.unreadable.is_empty() {
                refused_after = refused_after.or(Some(from.at));
                if matches!(saves, Saves::Positions(_)) {
                    // Before the position moves on: otherwise a crash in between would lose these rows.
                    self.store.note_refused(kept_as(scan), from.at, self.now).await?;
                }
            }
            if let Saves::Positions(marks) = saves {
                for (name, position) in marks.iter().filter_map(|mark| mark.reached(up_to)) {
                    self.store.advance_cursor(name, position, self.now).await?;
                }
            }
            if let Some(turn) = &mut turn {
                turn.renew(self.store).await?;
            }
            if let Some((items, example)) = chunk.too_old {
                too_old.get_or_insert((0, example)).0 += items;
            }
            lost.add(chunk.lost);
            if !chunk.waiting.is_empty() || found.opened + found.reopened > 0 {
                watch.opened(&found.providers);
            }
            watch.scanned(chunk.looked_at, up_to);
            tell(found, report);
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        find_lost(&lost, report);
        match saves {
            Saves::Positions(_) => {
                if let Some((items, example)) = too_old {
                    find_failed_backlog(items, &example, report);
                }
            }
            Saves::Tried(refused) => {
                let after = refused_after.unwrap_or(self.now);
                self.store.tried_refused(scan.name, refused.after, after, self.now).await?;
            }
            Saves::Nothing => {}
        }
        if *completes_fresh {
            self.store.advance_cursor(FRESH, self.now, self.now).await?;
        }
        Ok(true)
    }
}

/// The name under which it is kept what a scan could not open.
const fn kept_as(scan: &Scan) -> &'static str {
    match scan.over {
        crate::store::Over::ChargedAt => REFUSED,
        crate::store::Over::FailedAt { .. } => REFUSED_FAILED,
    }
}

/// Counts what was found, and reports what the database refused.
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
    for (about, why) in found.unreadable {
        report.find(Finding {
            kind: "unreadable_row",
            about: shortened(&about),
            detail: format!(
                "the database cannot read it, or a row that hangs on it: {why}; mend the row, it is looked at again within the hour"
            ),
        });
    }
}

/// Tells of recovered outputs whose row the platform has removed.
pub fn find_lost(lost: &Lost, report: &mut Report) {
    if lost.items == 0 {
        return;
    }
    let examples: Vec<String> = lost.examples.iter().map(|item| shortened(&item.to_string())).collect();
    let more = if lost.items > lost.examples.len() as u64 { ", …" } else { "" };
    report.find(Finding {
        kind: "lost_output",
        about: if lost.items == 1 { "1 item".to_owned() } else { format!("{} items", lost.items) },
        detail: format!(
            "makegood brought the output home or put it back, and stored_outputs does not show it any more: {}{more}. It was \
             delivered, so nothing is refunded or fetched again. Deleting an output sets deleted_at and keeps the row; \
             `makegood recover CHARGE/INDEX --by WHO --reason WHY` inserts the row again while the stored file exists",
            examples.join(", ")
        ),
    });
}

/// An id as a person can read it.
fn shortened(id: &str) -> String {
    match id.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

fn find_clock_ahead(saved: &Saved, now: Timestamp, report: &mut Report) {
    if let Some(at) = saved.furthest().filter(|at| *at > now) {
        report.find(Finding {
            kind: "clock_was_ahead",
            about: format!("a scan that has looked up to {at}"),
            detail: "which is in the future: the database's clock was ahead for a while. What the scans may have skipped is looked \
                     at again"
                .to_owned(),
        });
    }
}

async fn find_impossible_times(store: &Store, now: Timestamp, report: &mut Report) -> Result<(), DbError> {
    for odd in store.odd_times().await? {
        report.find(Finding {
            kind: "odd_time",
            about: format!("charge {}", odd.example),
            detail: format!("{}; no pass finds what has such a time", odd.told()),
        });
    }
    let ahead = store.charges_in_the_future(now + MAX_CLOCK_SKEW).await?;
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

/// Tells of items that were recorded as failed lately and whose charges are too old to be made good unasked.
pub fn find_failed_backlog(items: u64, example: &str, report: &mut Report) {
    report.find(Finding {
        kind: "failed_backlog",
        about: format!("charge {}", shortened(example)),
        detail: format!(
            "{items} items of charges from before [detect] start_at or backlog_age were recorded as failed lately; nothing is \
             given back for them unless a person asks: makegood run --since T --backlog"
        ),
    });
}

#[cfg(test)]
mod tests;
