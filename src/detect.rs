//! Detection: finds charges without an output and opens orphans for them.
//!
//! Every charge is examined three times: when its grace ends, at 6 hours and at 20 hours. An output
//! that was linked wrongly later and a charge that was committed late are therefore found inside
//! the window. P14 (found by itself), P15 (made good within 24 hours). Items with `failed_at` have
//! a scan of their own without grace, which covers its whole overlap in every pass. P19 (refunded
//! within a minute or two).
//!
//! The cost follows new charges, not the size of the tables. A pass scans the few charges whose
//! grace has ended since the last pass (`fresh`), and counts the charges behind the saved
//! positions. A full look goes back to the saved position and scans the overlap again. It runs when
//! that count has changed, because a charge was committed late, and at least every
//! [`FULL_LOOK_EVERY`]. A charge that is committed late, within the overlap, is found within 10
//! minutes of its commit.
//!
//! A saved position never passes now - largest grace - overlap: everything that may still be
//! committed, or whose grace may still end, is after it. The position is saved after each chunk, so
//! a pass that is stopped or killed continues where it was. Charges inside their window are scanned
//! first, oldest first. Charges that were past it when a pass first reached them are the `backlog`,
//! which is scanned last.
//!
//! A row that the database rejects or cannot read gets no orphan. The position of the first such
//! row is saved, and everything since then is scanned again once an hour, until the rows are
//! corrected or too old.
//!
//! One process scans at a time (`turn`). The others settle the orphans that it opens, and then have
//! little left to scan.
//!
//! `plan` is pure; `store::scan` reads and writes. After a crash at most one chunk is scanned
//! again; opening an orphan is idempotent.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::charge::Charge;
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::provider::Providers;
use crate::report::{Finding, PassReport};
use crate::store::{DbError, Found, Lost, Pace, Position, Scan, Store};

mod plan;
mod turn;

pub use plan::FULL_LOOK_EVERY;
pub use turn::DetectionTurn;

use plan::{FRESH, Graces, Plan, REFUSED, REFUSED_FAILED, Saved, Saves, Stretch};

/// The time from opening to `refund_by` for an orphan that is opened late.
const LATE_DOUBT: Duration = Duration::from_hours(2);

/// The settings of detection.
#[derive(Clone, Debug)]
pub struct DetectRules {
    /// The grace of charges whose provider file names none.
    pub grace: Duration,
    /// The distance that a saved position keeps from charges that may still change.
    pub overlap: Duration,
    /// Charges before this time are ignored, unless a person asks for them. None, or a time more
    /// than `backlog_age` before the first pass: the limit is `backlog_age` before the first pass.
    pub start_at: Option<Timestamp>,
    /// The first pass ignores charges that are older than this, unless a person asks for them.
    pub backlog_age: Duration,
    /// How often a pass goes back to the saved positions and scans the overlap again.
    pub full_look_every: Duration,
    /// How to wait for another process that is scanning.
    pub turn: DetectionTurn,
    /// The number of charges in one statement.
    pub chunk: u32,
    /// From the charge to the end of the window: 24 hours (P15).
    pub window: Duration,
    /// The time between `refund_by` and the end of the window.
    pub margin: Duration,
    /// The length of a lease.
    pub lease: Duration,
}

impl DetectRules {
    /// The time of the oldest charge that is examined unless a person asks for older ones, if no
    /// saved position is older.
    fn oldest(&self, now: Timestamp) -> Timestamp {
        self.not_before_start(now - self.backlog_age)
    }

    fn not_before_start(&self, at: Timestamp) -> Timestamp {
        self.start_at.map_or(at, |start_at| at.max(start_at))
    }
}

/// The arguments of `makegood run --since`.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Examine charges from this time on again.
    pub from: Timestamp,
    /// Also open orphans for charges older than `backlog_age`.
    pub backlog: bool,
}

/// Receives the progress of detection, and may stop it.
pub trait DetectionObserver {
    /// Whether the pass is ending: no further chunk is started.
    fn is_ending(&self) -> bool;
    /// Called after a chunk with the number of charges or items examined, and the time reached.
    fn scanned(&self, looked_at: u64, up_to: Timestamp);
    /// Called when orphans of these providers were opened. An empty set: orphans of unknown
    /// providers have become due.
    fn opened(&self, providers: &BTreeSet<String>);
}

/// When the grace of a charge's provider and model ends: from then on a pass examines it if it has
/// no output. None: the charge is too old to be examined unless a person asks for it.
pub fn looked_at_from(
    rules: &DetectRules,
    providers: &Providers,
    charge: &Charge,
    now: Timestamp,
) -> Option<Timestamp> {
    let grace = Graces::new(rules.grace, providers).of(&charge.provider, &charge.model);
    (charge.charged_at >= rules.oldest(now)).then(|| charge.charged_at + grace)
}

/// How the times of a new orphan are computed.
pub fn dating(rules: &DetectRules, providers: &Providers) -> crate::store::Dating {
    crate::store::Dating {
        doubt: rules.window.saturating_sub(rules.margin),
        window: rules.window,
        late: LATE_DOUBT,
        retentions: providers.iter().filter_map(|each| Some((each.name.clone(), each.retention?))).collect(),
        lease: rules.lease,
    }
}

/// The detection of one pass.
#[derive(Clone, Copy, Debug)]
pub struct Detection<'a> {
    /// The database.
    pub store: &'a Store,
    /// The providers, with their graces and retentions.
    pub providers: &'a Providers,
    /// The settings.
    pub rules: &'a DetectRules,
    /// The request of a person, if there is one.
    pub since: Option<Since>,
    /// When the pass began, by the database's clock.
    pub now: Timestamp,
}

impl Detection<'_> {
    /// Scans all stretches and opens orphans, due from the beginning of the pass. Returns false if
    /// it was stopped before the end.
    ///
    /// # Errors
    /// The database failed. The saved positions stay.
    pub async fn run(
        &self,
        observer: &impl DetectionObserver,
        report: &mut PassReport,
    ) -> Result<bool, DbError> {
        let mut turn = self.wait_for_turn(observer).await?;
        // After an error the turn expires.
        let all = self.scan_all(observer, report, turn.as_mut()).await?;
        if let Some(turn) = turn {
            turn.end(self.store).await?;
        }
        Ok(all)
    }

    async fn scan_all(
        &self,
        observer: &impl DetectionObserver,
        report: &mut PassReport,
        mut turn: Option<&mut turn::HeldTurn>,
    ) -> Result<bool, DbError> {
        let plan = self.plan(report).await?;
        if let Some(backlog) = plan.late {
            // Save this before any position moves past these charges; otherwise a crash would skip
            // them.
            self.store.note_backlog(backlog, self.now).await?;
        }
        if plan.is_full {
            self.redate(observer, report).await?;
        }
        // Counted before the scan: a commit during the scan changes the number, and the next pass
        // scans again.
        let mut counted = Vec::new();
        for mark in plan.marks.iter() {
            counted.push((mark.name, self.store.count_charges(mark.cap, mark.until).await?));
        }
        let dating = dating(self.rules, self.providers);
        for stretch in &plan.stretches {
            if !self.scan(stretch, &dating, observer, report, turn.as_deref_mut()).await? {
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
                    self.store.count_undelivered(&scan, self.rules.chunk, || observer.is_ending()).await?;
                report.backlog = counted.unwrap_or_default();
                Ok(counted.is_some())
            }
        }
    }

    /// The stretches that this pass scans. Adds findings about a clock that was ahead and about
    /// charges in the future.
    ///
    /// # Errors
    /// The database failed.
    async fn plan(&self, report: &mut PassReport) -> Result<Plan, DbError> {
        let mut saved = Saved::read(&self.store.cursors().await?);
        for (name, cursor) in saved.looks().collect::<Vec<_>>() {
            if let Some(counted) = cursor.counted
                && self.store.count_charges(cursor.position, counted.until).await? != counted
            {
                saved.changed.push(name);
            }
        }
        add_clock_ahead(&saved, self.now, report);
        add_impossible_times(self.store, self.now, report).await?;
        Ok(plan::plan(self.rules, &self.graces(), &saved, self.since, self.now))
    }

    /// The scans of this pass, for a dry run.
    ///
    /// # Errors
    /// The database failed.
    pub async fn scans(&self, report: &mut PassReport) -> Result<Vec<Scan>, DbError> {
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

    /// Corrects orphans with times in the future. A pass that ran while the clock was ahead may
    /// have written them, and no saved position records that.
    async fn redate(
        &self,
        observer: &impl DetectionObserver,
        report: &mut PassReport,
    ) -> Result<(), DbError> {
        let dated = self.store.date_orphans_anew(self.now, &dating(self.rules, self.providers)).await?;
        if dated > 0 {
            // Their providers are not known.
            observer.opened(&BTreeSet::new());
            report.add_finding(Finding {
                kind: "clock_was_ahead",
                about: if dated == 1 { "1 open orphan".to_owned() } else { format!("{dated} open orphans") },
                detail: "had times in the future, because the database's clock was ahead for a while. They are due now instead \
                         of waiting until then"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// Scans one stretch chunk by chunk and saves the position after each. Returns false if it was
    /// stopped before the end.
    async fn scan(
        &self,
        stretch: &Stretch,
        dating: &crate::store::Dating,
        observer: &impl DetectionObserver,
        report: &mut PassReport,
        mut turn: Option<&mut turn::HeldTurn>,
    ) -> Result<bool, DbError> {
        let Stretch { scan, saves, completes_fresh } = stretch;
        let mut from = Position::before(scan.after);
        let mut pace = Pace::new(self.rules.chunk);
        let mut too_old: Option<(u64, String)> = None;
        let mut lost = Lost::default();
        let mut refused_after: Option<Timestamp> = None;
        loop {
            if observer.is_ending() {
                if let Saves::Tried(refused) = saves {
                    // The next pass continues from here, without waiting for another hour.
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
                    // Save this before the position moves on; otherwise a crash would skip these
                    // rows.
                    self.store.note_refused(refused_cursor(scan), from.at, self.now).await?;
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
                observer.opened(&found.providers);
            }
            observer.scanned(chunk.looked_at, up_to);
            add_found(found, report);
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        add_lost_outputs(&lost, report);
        match saves {
            Saves::Positions(_) => {
                if let Some((items, example)) = too_old {
                    add_failed_backlog(items, &example, report);
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

/// The name of the saved position for rows that this scan could not open.
const fn refused_cursor(scan: &Scan) -> &'static str {
    match scan.over {
        crate::store::Over::ChargedAt => REFUSED,
        crate::store::Over::FailedAt { .. } => REFUSED_FAILED,
    }
}

/// Counts what a chunk opened, and adds findings about rejected and unreadable rows.
pub fn add_found(found: Found, report: &mut PassReport) {
    report.opened += found.opened;
    report.reopened += found.reopened;
    for (item, why) in found.refused {
        report.add_finding(Finding {
            kind: "refused_row",
            about: format!("item {}", shortened(&item.to_string())),
            detail: format!(
                "the database rejected its orphan: {why}. Correct the row; makegood retries it within an hour"
            ),
        });
    }
    for (about, why) in found.unreadable {
        report.add_finding(Finding {
            kind: "unreadable_row",
            about: shortened(&about),
            detail: format!(
                "the database cannot read it, or a row that belongs to it: {why}. Correct the row; makegood reads it again within an hour"
            ),
        });
    }
}

/// Adds a finding about recovered outputs whose row the platform has removed.
pub fn add_lost_outputs(lost: &Lost, report: &mut PassReport) {
    if lost.items == 0 {
        return;
    }
    let examples: Vec<String> = lost.examples.iter().map(|item| shortened(&item.to_string())).collect();
    let more = if lost.items > lost.examples.len() as u64 { ", …" } else { "" };
    report.add_finding(Finding {
        kind: "lost_output",
        about: if lost.items == 1 { "1 item".to_owned() } else { format!("{} items", lost.items) },
        detail: format!(
            "makegood recovered or relinked the output, and stored_outputs no longer has it: {}{more}. It was \
             delivered, so nothing is refunded or recovered again. A deleted output keeps its row, with deleted_at set. \
             To insert the row again while the file exists: `makegood recover CHARGE/INDEX --by WHO --reason WHY`",
            examples.join(", ")
        ),
    });
}

/// The first 200 characters of an id.
fn shortened(id: &str) -> String {
    match id.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

fn add_clock_ahead(saved: &Saved, now: Timestamp, report: &mut PassReport) {
    if let Some(at) = saved.furthest().filter(|at| *at > now) {
        report.add_finding(Finding {
            kind: "clock_was_ahead",
            about: format!("a scan position of {at}"),
            detail: "is in the future, because the database's clock was ahead for a while. Charges that the scans may have \
                     skipped are scanned again"
                .to_owned(),
        });
    }
}

async fn add_impossible_times(store: &Store, now: Timestamp, report: &mut PassReport) -> Result<(), DbError> {
    for odd in store.odd_times().await? {
        report.add_finding(Finding {
            kind: "odd_time",
            about: format!("charge {}", odd.example),
            detail: format!("{}; no pass finds what has such a time", odd.told()),
        });
    }
    let ahead = store.charges_in_the_future(now + MAX_CLOCK_SKEW).await?;
    if let Some(first) = ahead.first() {
        let many = if ahead.len() > 100 { "more than 100".to_owned() } else { ahead.len().to_string() };
        report.add_finding(Finding {
            kind: "charged_in_the_future",
            about: format!("charge {first}"),
            detail: format!(
                "{many} charges have a charged_at in the future; they are examined when that time has come"
            ),
        });
    }
    Ok(())
}

/// Adds a finding about items that were recorded as failed recently, but whose charges are too old
/// to be made good unless a person asks for it.
pub fn add_failed_backlog(items: u64, example: &str, report: &mut PassReport) {
    report.add_finding(Finding {
        kind: "failed_backlog",
        about: format!("charge {}", shortened(example)),
        detail: format!(
            "{items} items were recorded as failed recently, but their charges are older than [detect] start_at or \
             backlog_age allow. They are refunded only on request: `makegood run --since T --backlog`"
        ),
    });
}

#[cfg(test)]
mod tests;
