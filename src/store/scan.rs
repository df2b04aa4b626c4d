//! Finds items without an output and opens orphans for them, chunk by chunk.
//!
//! Which stretch of time to look at, and in which order, is decided by `detect`. One statement cuts a chunk of rows by LIMIT
//! and looks up what is known of each; orphans for what it finds are opened in one transaction, with an event each. The
//! caller saves its position afterwards. A crash in between repeats the chunk, which is idempotent: an item has one orphan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::db::{DbError, Run, Trouble, Tx, Value};
use super::records::{EventRow, Instant, insert_events};
use super::{Store, first, statements, with_retries};
use crate::charge::ItemId;
use crate::clock::{MAX_CLOCK_SKEW, Timestamp, micros};
use crate::policy::MAX_WAIT;

mod unreadable;

pub use unreadable::Pace;

/// One look at a stretch of `charged_at` (or of `failed_at`).
#[derive(Clone, Debug)]
pub struct Scan {
    /// Its name: kept with each orphan that it opens.
    pub name: &'static str,
    /// Which time it goes by.
    pub over: Over,
    /// Later than this.
    pub after: Timestamp,
    /// Up to and with this.
    pub until: Timestamp,
    /// Charged before this is older than the grace, where no provider or model has one of its own.
    pub grace_before: Timestamp,
    /// Graces of providers and models.
    pub graces: Vec<Grace>,
    /// Only charges whose own grace ended within this time. None: however long ago.
    pub grace_ended_within: Option<Duration>,
}

/// Which time a scan goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// When charges were made: items older than their grace.
    ChargedAt,
    /// When the platform recorded failures: items without grace (P19), of charges made after this.
    FailedAt {
        /// Older charges are a person's to ask for.
        charged_after: Timestamp,
    },
}

/// What fits a provider, or one model of it.
#[derive(Clone, Debug)]
pub struct Grace {
    /// Its name.
    pub provider: String,
    /// One model of it; none: all the others.
    pub model: Option<String>,
    /// Charged before this is older than the grace.
    pub before: Timestamp,
}

/// How the orphans that a scan opens are dated.
#[derive(Clone, Debug)]
pub struct Dating {
    /// From the charge to the end of doubt (`refund_by`).
    pub doubt: Duration,
    /// From the charge to the end of the window.
    pub window: Duration,
    /// What an orphan gets that is opened late.
    pub late: Duration,
    /// Providers that drop outputs, and after how long.
    pub retentions: Vec<(String, Duration)>,
    /// How long an orphan is leased at once.
    pub lease: Duration,
}

/// Orphans whose insert the database rejected. They are retried once an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first of it was met later than this.
    pub after: Timestamp,
    /// The last try.
    pub tried_at: Timestamp,
}

/// What a scan came upon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// New orphans.
    pub opened: u64,
    /// Old ones that look undelivered again.
    pub reopened: u64,
    /// Whose orphans these are.
    pub providers: BTreeSet<String>,
    /// Items for which the database would take no orphan, each with the reason: a person has to look.
    pub refused: Vec<(ItemId, String)>,
    /// Charges and items that could not be read, each with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// Items whose recovery proves the delivery (P10) and whose row the platform has removed since: not
/// opened again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub items: u64,
    /// The first of them.
    pub examples: Vec<ItemId>,
}

/// Examples of lost outputs that are named.
const LOST_EXAMPLES: usize = 5;

impl Lost {
    fn note(&mut self, item: ItemId) {
        self.add(Self { items: 1, examples: vec![item] });
    }

    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.items += other.items;
        let room = LOST_EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

impl Found {
    fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.reopened += other.reopened;
        self.providers.extend(other.providers);
        self.refused.extend(other.refused);
        self.unreadable.extend(other.unreadable);
    }
}

/// What a dry run goes by.
#[derive(Debug)]
pub struct Preview {
    /// What would be found.
    pub found: Found,
    /// Items whose failure was recorded and whose charges are too old, and one of these charges.
    pub too_old: Option<(u64, String)>,
    /// Recovered outputs whose row is gone.
    pub lost: Lost,
    /// What is known about everything due, found before or now. No lease was taken.
    pub claimed: super::Claimed,
}

/// A position in the order of a scan: the time it goes by, then the key of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// `charged_at` of the charge, or `failed_at` of the item.
    pub at: Timestamp,
    charge_id: String,
    output_index: i64,
}

impl Position {
    /// Before all rows of that time.
    pub const fn before(at: Timestamp) -> Self {
        Self { at, charge_id: String::new(), output_index: i64::MIN }
    }
}

/// One chunk of a scan.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Undelivered items without an orphan.
    pub items: Vec<ItemId>,
    /// Open orphans that wait although their failure has been recorded since (P19).
    pub waiting: Vec<i64>,
    /// Items that the scan leaves alone because their charges are too old, and one of these charges.
    pub too_old: Option<(u64, String)>,
    /// Recovered outputs whose row is gone.
    pub lost: Lost,
    /// Charges and items that cannot be read, each with the reason.
    pub unreadable: Vec<(String, String)>,
    /// Rows that were looked at.
    pub looked_at: u64,
    /// Where the next chunk begins. None: the end of the stretch is reached.
    pub next: Option<Position>,
}

/// Charges that were past their window when a pass first came to them, and are still to be scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Charged later than this.
    pub after: Timestamp,
    /// Charged at this time or before.
    pub until: Timestamp,
}

/// A saved position of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// All rows up to this time have been scanned.
    pub position: Timestamp,
    /// The beginning of the pass that saved it.
    pub saved_at: Timestamp,
    /// How many charges lay after the position, up to which time, before the last full look.
    pub counted: Option<Counted>,
}

/// How many charges a stretch of time held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Up to this time.
    pub until: Timestamp,
    /// How many, at most [`COUNTED_AT_MOST`].
    pub charges: i64,
}

/// Charges that are counted in one stretch; beyond, a charge that is committed late is found by the next full look only.
const COUNTED_AT_MOST: i64 = 50_000;

impl Store {
    /// All saved positions.
    pub async fn cursors(&self) -> Result<Cursors, DbError> {
        let mut rows = BTreeMap::new();
        for row in self.rows(statements::CURSORS, &[]).await? {
            let until = row.maybe_time("until")?;
            let counted = until.zip(row.maybe_int("charges")?);
            let cursor = Cursor {
                position: row.time("position")?,
                saved_at: row.time("updated_at")?,
                counted: counted.map(|(until, charges)| Counted { until, charges }),
            };
            rows.insert(row.text("name")?, (cursor, until));
        }
        Ok(Cursors(rows))
    }

    /// Counts the charges after a time and up to another, as far as the count goes.
    pub async fn count_charges(&self, after: Timestamp, until: Timestamp) -> Result<Counted, DbError> {
        let values = [after.into(), until.into(), COUNTED_AT_MOST.into()];
        let rows = self.rows(statements::COUNT_CHARGES, &values).await?;
        Ok(Counted { until, charges: first(statements::COUNT_CHARGES, &rows)?.int("charges")? })
    }

    /// Saves how many charges lie after a scan's position.
    pub async fn note_count(&self, name: &str, counted: Counted) -> Result<(), DbError> {
        let values = [name.into(), counted.until.into(), counted.charges.into()];
        self.rows(statements::CURSOR_COUNT, &values).await.map(drop)
    }

    /// Leaves these charges to the backlog; what is left of an earlier one is kept.
    pub async fn note_backlog(&self, backlog: Backlog, now: Timestamp) -> Result<(), DbError> {
        let values = [backlog.after.into(), backlog.until.into(), now.into()];
        self.rows(statements::BACKLOG_NOTE, &values).await.map(drop)
    }

    /// Saves how far a scan has come. A position never moves back, except from the future, where a clock that was ahead put it.
    pub async fn advance_cursor(&self, name: &str, to: Timestamp, now: Timestamp) -> Result<(), DbError> {
        self.rows(statements::CURSOR_ADVANCE, &[name.into(), to.into(), now.into()]).await?;
        Ok(())
    }

    /// Charges whose time is still to come, before 2100: at most 101 ids.
    pub async fn charges_in_the_future(&self, after: Timestamp) -> Result<Vec<String>, DbError> {
        let rows = self
            .rows(
                statements::CHARGES_IN_THE_FUTURE,
                &[after.into(), Timestamp::from_micros(super::times::LATEST).into()],
            )
            .await?;
        rows.iter().map(|row| row.text("id")).collect()
    }

    /// Dates open orphans anew that bear times still to come: the database's clock was ahead when they were written. How many
    /// they were.
    pub async fn date_orphans_anew(&self, now: Timestamp, dating: &Dating) -> Result<usize, DbError> {
        let values = [
            now.into(),
            (now + MAX_CLOCK_SKEW).into(),
            // Put off for longer, it does no harm to look earlier.
            (now + MAX_WAIT + MAX_CLOCK_SKEW).into(),
            (now + dating.lease + MAX_CLOCK_SKEW).into(),
            dating.doubt.into(),
            dating.late.into(),
            (now + crate::brake::DAY + MAX_CLOCK_SKEW).into(),
        ];
        Ok(self.bulk_rows(statements::DATE_ORPHANS_ANEW, &values).await?.len())
    }

    /// Keeps that a row after this position was refused.
    pub async fn note_refused(&self, name: &str, after: Timestamp, now: Timestamp) -> Result<(), DbError> {
        self.rows(statements::REFUSED_NOTE, &[name.into(), after.into(), now.into()]).await.map(drop)
    }

    /// Everything since `before` was tried again at `tried_at`; what is refused still lies after `after`.
    pub async fn tried_refused(
        &self,
        name: &str,
        before: Timestamp,
        after: Timestamp,
        tried_at: Timestamp,
    ) -> Result<(), DbError> {
        let values = [name.into(), before.into(), after.into(), tried_at.into()];
        self.rows(statements::REFUSED_TRIED, &values).await.map(drop)
    }

    /// Opens orphans for items that a chunk found, in one transaction. They are due from `due_at` on.
    pub async fn open_found(
        &self,
        by: &str,
        items: &[ItemId],
        due_at: Timestamp,
        dating: &Dating,
    ) -> Result<Found, DbError> {
        if items.is_empty() {
            return Ok(Found::default());
        }
        let now = self.now().await?;
        let opening = Opening { by, now, due_at: due_at.min(now), dating };
        let open = async |refuse: Refuse| {
            with_retries!(
                self,
                async {
                    let mut tx = self.db.begin().await?;
                    let found = self.open_in_parts(&mut tx, items, &opening, refuse).await?;
                    tx.commit().await?;
                    Ok::<_, DbError>(found)
                }
                .await
            )
        };
        match open(Refuse::ForGood).await {
            // A function of the platform's says at every try that a race was lost, or the like.
            Err(error) if error.function().is_some() => open(Refuse::Raised).await,
            opened => opened,
        }
    }

    /// Makes waiting orphans due whose failure has been recorded since they were last asked about (P19).
    pub async fn hasten(&self, orphans: &[i64], now: Timestamp) -> Result<(), DbError> {
        if orphans.is_empty() {
            return Ok(());
        }
        self.rows(statements::HASTEN_FAILED, &[Value::json(&orphans), now.into()]).await.map(drop)
    }

    /// How many items a stretch holds that would become orphans; opens none. None: it was stopped before the end.
    pub async fn count_undelivered(
        &self,
        scan: &Scan,
        chunk: u32,
        is_ending: impl Fn() -> bool,
    ) -> Result<Option<u64>, DbError> {
        let mut count = 0;
        let mut pace = Pace::new(chunk);
        let mut from = Some(Position::before(scan.after));
        while let Some(position) = from {
            if is_ending() {
                return Ok(None);
            }
            let looked = self.scan_next(scan, &position, &mut pace).await?;
            count += looked.items.len() as u64;
            from = looked.next;
        }
        Ok(Some(count))
    }

    /// What a pass would find and what is known about everything that is due by then, most urgent first and at most `limit`.
    /// Everything happens in one transaction that is rolled back.
    pub async fn preview(
        &self,
        scans: &[Scan],
        chunk: u32,
        dating: &Dating,
        due_by: Timestamp,
        limit: u32,
        is_ending: impl Fn() -> bool,
    ) -> Result<Preview, DbError> {
        let mut tx = self.db.begin().await?;
        let mut found = Found::default();
        let mut too_old: Option<(u64, String)> = None;
        let mut lost = Lost::default();
        for scan in scans {
            let opening = Opening { by: scan.name, now: due_by, due_at: due_by, dating };
            let mut pace = Pace::new(chunk);
            let mut from = Some(Position::before(scan.after));
            while let Some(position) = from.filter(|_| !is_ending()) {
                let looked = self.scan_next_in(&mut tx, scan, &position, &mut pace).await?;
                found.unreadable.extend(looked.unreadable);
                if !looked.waiting.is_empty() {
                    let values = [Value::json(&looked.waiting), due_by.into()];
                    tx.rows(statements::HASTEN_FAILED, &values).await?;
                }
                found.add(self.open_in_parts(&mut tx, &looked.items, &opening, Refuse::Raised).await?);
                if let Some((items, example)) = looked.too_old.filter(|_| scan.name == "failed") {
                    too_old.get_or_insert((0, example)).0 += items;
                }
                lost.add(looked.lost);
                from = looked.next;
            }
        }
        let rows = tx.rows(statements::DUE_ORPHANS, &[due_by.into(), i64::from(limit).into()]).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.int("id")).collect::<Result<_, _>>()?;
        let claimed = self.cases_apart(&mut tx, &ids).await?;
        Ok(Preview { found, too_old, lost, claimed })
    }

    /// Looks at the next chunk of a stretch, at most `chunk` rows; opens nothing.
    pub async fn scan_chunk(&self, scan: &Scan, from: &Position, chunk: u32) -> Result<Chunk, DbError> {
        self.scan_chunk_in(&mut &*self, scan, from, chunk).await
    }

    async fn scan_chunk_in(
        &self,
        run: &mut impl Run,
        scan: &Scan,
        from: &Position,
        chunk: u32,
    ) -> Result<Chunk, DbError> {
        let limit = i64::from(chunk.max(1));
        let rows = match scan.over {
            Over::FailedAt { charged_after } => {
                let values = [
                    from.at.into(),
                    (&from.charge_id).into(),
                    from.output_index.into(),
                    scan.until.into(),
                    charged_after.into(),
                    limit.into(),
                    // Of a scan of failures this is the time of the pass.
                    scan.until.into(),
                ];
                run.rows(statements::FIND_FAILED, &values).await?
            }
            Over::ChargedAt => {
                let graces = scan.graces.iter().map(|grace| {
                    json!({"provider": grace.provider, "model": grace.model, "before": self.db.time(grace.before)})
                });
                let values = [
                    from.at.into(),
                    (&from.charge_id).into(),
                    scan.until.into(),
                    limit.into(),
                    scan.grace_before.into(),
                    (&Json::Array(graces.collect())).into(),
                    scan.grace_ended_within.map_or(i64::MAX >> 8, micros).into(),
                ];
                run.rows(statements::FIND_UNDELIVERED, &values).await?
            }
        };
        read_chunk(scan, &rows, limit.unsigned_abs())
    }

    /// [`Store::open_orphans`], item by item where the database refuses one of them: it spoils nothing but itself.
    async fn open_in_parts(
        &self,
        tx: &mut Tx,
        items: &[ItemId],
        opening: &Opening<'_>,
        refuse: Refuse,
    ) -> Result<Found, DbError> {
        if items.is_empty() {
            return Ok(Found::default());
        }
        tx.begin_part().await?;
        let mut found = match self.open_orphans(tx, items, opening).await {
            Err(error) if refuse.takes(&error) => Found::default(),
            result => return result,
        };
        tx.undo_part().await?;
        for item in items {
            tx.begin_part().await?;
            match self.open_orphans(tx, std::slice::from_ref(item), opening).await {
                Ok(one) => found.add(one),
                Err(error) if refuse.takes(&error) => {
                    tx.undo_part().await?;
                    found.refused.push((item.clone(), error.told()));
                }
                Err(error) => return Err(error),
            }
            tx.end_part().await?;
        }
        Ok(found)
    }

    /// Opens an orphan for each item, or reopens the one it has, and tells so.
    pub(super) async fn open_orphans(
        &self,
        tx: &mut Tx,
        items: &[ItemId],
        opening: &Opening<'_>,
    ) -> Result<Found, DbError> {
        if items.is_empty() {
            return Ok(Found::default());
        }
        let Opening { by, now, due_at, dating } = *opening;
        let list = Json::Array(
            items
                .iter()
                .map(|id| json!({"charge_id": id.charge_id, "output_index": id.output_index}))
                .collect(),
        );
        let retentions = dating.retentions.iter();
        let retentions = Json::Array(
            retentions.map(|(name, span)| json!({"provider": name, "retention_us": micros(*span)})).collect(),
        );
        let late: Value = dating.late.into();
        let opened = tx
            .rows(
                statements::OPEN_ORPHANS,
                &[
                    (&list).into(),
                    now.into(),
                    by.into(),
                    dating.doubt.into(),
                    dating.window.into(),
                    late.clone(),
                    (&retentions).into(),
                    due_at.into(),
                ],
            )
            .await?;
        let reopened = if opened.len() < items.len() {
            tx.rows(statements::REOPEN_ORPHANS, &[(&list).into(), now.into(), late, due_at.into()]).await?
        } else {
            Vec::new()
        };
        if !reopened.is_empty() {
            let items = item_ids(&reopened)?;
            let list =
                items.iter().map(|id| json!({"charge_id": id.charge_id, "output_index": id.output_index}));
            let list = Json::Array(list.collect());
            tx.rows(statements::SUPERSEDE_RESOLUTIONS, &[(&list).into(), now.into()]).await?;
        }
        let mut orphans = Vec::new();
        let mut providers = BTreeSet::new();
        for (rows, kind) in [(&opened, "opened"), (&reopened, "reopened")] {
            for row in rows {
                providers.insert(row.text("provider")?);
                let item =
                    ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? };
                orphans.push((row.int("id")?, item, kind));
            }
        }
        let at = Instant::of(&self.db, now);
        let events = orphans.iter().map(|(id, item, kind)| EventRow {
            detail: Some(by.to_owned()),
            ..EventRow::new(*id, item, at, kind)
        });
        insert_events(&self.db, tx, events.collect()).await?;
        Ok(Found {
            opened: opened.len() as u64,
            reopened: reopened.len() as u64,
            providers,
            ..Found::default()
        })
    }
}

/// All saved positions.
#[derive(Clone, Debug, Default)]
pub struct Cursors(BTreeMap<String, (Cursor, Option<Timestamp>)>);

impl Cursors {
    /// The position saved under a name.
    pub fn cursor(&self, name: &str) -> Option<Cursor> {
        self.0.get(name).map(|(cursor, _)| *cursor)
    }

    /// What is left of the backlog.
    pub fn backlog(&self) -> Option<Backlog> {
        let (cursor, until) = self.0.get("backlog")?;
        let backlog = Backlog { after: cursor.position, until: (*until)? };
        (backlog.after < backlog.until).then_some(backlog)
    }

    /// The first time after which the database refused to open something that is not opened yet.
    pub fn first_refused(&self) -> Option<Timestamp> {
        let names = self.0.keys().filter(|name| name.starts_with("refused"));
        names.filter_map(|name| self.refused(name)).map(|refused| refused.after).min()
    }

    /// What is kept under a name of what the database refused to open. None: nothing, or it has been opened since.
    pub fn refused(&self, name: &str) -> Option<Refused> {
        let cursor = self.cursor(name)?;
        let refused = Refused { after: cursor.position, tried_at: cursor.saved_at };
        (refused.after < refused.tried_at).then_some(refused)
    }
}

/// How and why orphans are opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening<'a> {
    /// Which scan found them; kept with each.
    pub by: &'a str,
    pub now: Timestamp,
    /// They are due from then on.
    pub due_at: Timestamp,
    pub dating: &'a Dating,
}

/// Which errors leave an item without an orphan, instead of undoing what was done for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refuse {
    /// Those that another try does not mend.
    ForGood,
    /// All that a function of the platform's raises: it was tried often enough.
    Raised,
}

impl Refuse {
    fn takes(self, error: &DbError) -> bool {
        let raised = error.function().is_some();
        error.is_about_a_row() || raised && (self == Self::Raised || error.trouble() == Trouble::Other)
    }
}

/// Sorts the rows of a chunk: items, and the last one, which describes the chunk.
fn read_chunk(scan: &Scan, rows: &[super::Row], limit: u64) -> Result<Chunk, DbError> {
    let mut chunk = Chunk::default();
    let over_failures = matches!(scan.over, Over::FailedAt { .. });
    for row in rows {
        let charge_id = row.text("charge_id")?;
        let Some(looked_at) = row.maybe_int("looked_at")? else {
            if over_failures && let Some(orphan) = row.maybe_int("orphan_id")? {
                chunk.waiting.push(orphan);
                continue;
            }
            let item = ItemId { charge_id, output_index: row.int("output_index")? };
            if !over_failures && row.int("lost")? == 1 {
                chunk.lost.note(item);
            } else {
                chunk.items.push(item);
            }
            continue;
        };
        chunk.looked_at = looked_at.unsigned_abs();
        if over_failures && let Some(example) = row.maybe_text("example")? {
            chunk.too_old = Some((row.int("too_old")?.unsigned_abs(), example));
        }
        if chunk.looked_at >= limit {
            let output_index = row.maybe_int("output_index")?.unwrap_or(i64::MIN);
            chunk.next = Some(Position { at: row.time("at")?, charge_id, output_index });
        }
    }
    Ok(chunk)
}

pub(super) fn item_ids(rows: &[super::Row]) -> Result<Vec<ItemId>, DbError> {
    rows.iter()
        .map(|row| Ok(ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? }))
        .collect()
}
