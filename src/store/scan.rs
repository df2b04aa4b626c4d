//! Finds items without an output and opens orphans for them: chunk by chunk, one set-based statement each.
//!
//! Which stretch of time to look at is `detect`'s to say. A chunk is found, opened and told (an event each) in one
//! transaction; the cursor moves afterwards, so a crash in between only means looking again, which opens nothing twice.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::db::{DbError, Run, Tx, Value};
use super::{Store, first, statements, with_retries};
use crate::charge::ItemId;
use crate::clock::{SKEW, Timestamp, micros};
use crate::policy::LONGEST_WAIT;

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

/// What the database refused to open, of which it is tried again and again whether it would by now.
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
    /// Items for which the database would take no orphan, each with the reason: a person has to look.
    pub refused: Vec<(ItemId, String)>,
    /// The first of these was met later than this.
    pub refused_after: Option<Timestamp>,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.reopened += other.reopened;
        self.refused.extend(other.refused);
        self.refused_after = [self.refused_after, other.refused_after].into_iter().flatten().min();
    }
}

/// What a dry run goes by.
#[derive(Debug)]
pub struct Preview {
    /// What would be found.
    pub found: Found,
    /// What is known about everything due, found before or now. No lease was taken.
    pub claimed: super::Claimed,
}

/// A place in the order of charges: by time, then by id. No id: after all charges of that time.
#[derive(Clone, Debug)]
struct Place {
    at: Timestamp,
    id: Option<String>,
}

impl Place {
    fn begin(scan: &Scan) -> Self {
        Self { at: scan.after, id: Some(String::new()) }
    }
}

impl Store {
    /// How far a scan has looked.
    pub async fn cursor(&self, name: &str) -> Result<Option<Timestamp>, DbError> {
        let rows = self.rows(statements::CURSOR_POSITION, &[name.into()]).await?;
        rows.first().map(|row| row.time("position")).transpose()
    }

    /// Notes how far a scan has looked; it never moves back.
    pub async fn advance_cursor(&self, name: &str, to: Timestamp, now: Timestamp) -> Result<(), DbError> {
        self.rows(statements::CURSOR_ADVANCE, &[name.into(), to.into(), now.into()]).await?;
        Ok(())
    }

    /// Charges whose time is still to come: at most 101 ids.
    pub async fn charges_in_the_future(&self, after: Timestamp) -> Result<Vec<String>, DbError> {
        let rows = self.rows(statements::CHARGES_IN_THE_FUTURE, &[after.into()]).await?;
        rows.iter().map(|row| row.text("id")).collect()
    }

    /// Dates open orphans anew that bear times still to come: the database's clock was ahead when they were written. How many
    /// they were.
    pub async fn date_orphans_anew(&self, now: Timestamp, dating: &Dating) -> Result<usize, DbError> {
        let values = [
            now.into(),
            (now + SKEW).into(),
            // Put off for longer, it does no harm to look earlier.
            (now + LONGEST_WAIT + SKEW).into(),
            (now + dating.lease + SKEW).into(),
            dating.doubt.into(),
            dating.late.into(),
        ];
        Ok(self.rows(statements::DATE_ORPHANS_ANEW, &values).await?.len())
    }

    /// What is kept by this name of what the database refused to open. None: nothing, or it has been opened since.
    pub async fn refused(&self, name: &str) -> Result<Option<Refused>, DbError> {
        let rows = self.rows(statements::CURSOR_POSITION, &[name.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let refused = Refused { after: row.time("position")?, tried_at: row.time("updated_at")? };
        Ok((refused.after < refused.tried_at).then_some(refused))
    }

    /// Keeps in mind that something was refused that was met later than this.
    pub async fn note_refused(&self, name: &str, after: Timestamp, now: Timestamp) -> Result<(), DbError> {
        self.rows(statements::REFUSED_NOTE, &[name.into(), after.into(), now.into()]).await.map(drop)
    }

    /// All since `before` was looked at again; `after`: what is refused still was met later than this.
    pub async fn tried_refused(
        &self,
        name: &str,
        before: Timestamp,
        after: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let values = [name.into(), before.into(), after.unwrap_or(now).into(), now.into()];
        self.rows(statements::REFUSED_TRIED, &values).await.map(drop)
    }

    /// Looks at one stretch in chunks of `chunk` charges and opens orphans, a transaction each.
    pub async fn scan(&self, scan: &Scan, chunk: u32, dating: &Dating) -> Result<Found, DbError> {
        let mut found = Found::default();
        if matches!(scan.over, Over::FailedAt { .. }) {
            hasten_failed(&mut &*self, scan).await?;
        }
        let mut from = Place::begin(scan);
        while let Some(last) = chunk_end(&mut &*self, &from, scan, chunk).await? {
            // Most chunks hold nothing new: look first, and open a transaction only for what was found.
            let items = self.undelivered(&mut &*self, scan, &from, &last).await?;
            if !items.is_empty() {
                let now = self.now().await?;
                let opened = with_retries!(
                    self,
                    async {
                        let mut tx = self.db.begin().await?;
                        let mut found = self.open_in_parts(&mut tx, scan.name, &items, now, dating).await?;
                        tx.commit().await?;
                        found.refused_after = (!found.refused.is_empty()).then_some(from.at);
                        Ok::<_, DbError>(found)
                    }
                    .await
                )?;
                found.add(opened);
            }
            from = last;
        }
        Ok(found)
    }

    /// How many items a stretch holds that would become orphans; opens none.
    pub async fn count_undelivered(&self, scan: &Scan, chunk: u32) -> Result<u64, DbError> {
        let mut count = 0;
        let mut from = Place::begin(scan);
        while let Some(last) = chunk_end(&mut &*self, &from, scan, chunk).await? {
            count += self.undelivered(&mut &*self, scan, &from, &last).await?.len() as u64;
            from = last;
        }
        Ok(count)
    }

    /// How many items of charges that are too old for it a scan of recorded failures leaves alone, counted up to `at_most`, and
    /// one of the charges.
    pub async fn failed_backlog(&self, scan: &Scan, at_most: i64) -> Result<Option<(u64, String)>, DbError> {
        let Over::FailedAt { charged_after } = scan.over else {
            return Ok(None);
        };
        let values = [scan.after.into(), scan.until.into(), charged_after.into(), at_most.into()];
        let rows = self.rows(statements::FAILED_BACKLOG, &values).await?;
        let row = first(statements::FAILED_BACKLOG, &rows)?;
        let items = u64::try_from(row.int("items")?).unwrap_or(0);
        Ok(row.maybe_text("example")?.map(|example| (items, example)))
    }

    /// What a pass would find and what is known about everything that is due by then, most urgent first and at most `limit`.
    /// Everything happens in one transaction that is rolled back.
    pub async fn preview(
        &self,
        looks: &[crate::detect::Look],
        chunk: u32,
        dating: &Dating,
        due_by: Timestamp,
        limit: u32,
    ) -> Result<Preview, DbError> {
        let mut tx = self.db.begin().await?;
        let mut found = Found::default();
        for look in looks {
            if matches!(look.scan.over, Over::FailedAt { .. }) {
                hasten_failed(&mut tx, &look.scan).await?;
            }
            let mut from = Place::begin(&look.scan);
            while let Some(last) = chunk_end(&mut tx, &from, &look.scan, chunk).await? {
                let items = self.undelivered(&mut tx, &look.scan, &from, &last).await?;
                found.add(self.open_in_parts(&mut tx, look.scan.name, &items, due_by, dating).await?);
                from = last;
            }
        }
        let rows = tx.rows(statements::DUE_ORPHANS, &[due_by.into(), i64::from(limit).into()]).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.int("id")).collect::<Result<_, _>>()?;
        let claimed = self.cases(&mut tx, &ids).await?;
        Ok(Preview { found, claimed })
    }

    async fn undelivered(
        &self,
        run: &mut impl Run,
        scan: &Scan,
        from: &Place,
        last: &Place,
    ) -> Result<Vec<ItemId>, DbError> {
        if let Over::FailedAt { charged_after } = scan.over {
            let values = [from.at.into(), last.at.into(), charged_after.into()];
            return item_ids(&run.rows(statements::FIND_FAILED, &values).await?);
        }
        let graces: Vec<Json> = scan
            .graces
            .iter()
            .map(|grace| json!({"provider": grace.provider, "model": grace.model, "before": self.db.time(grace.before)}))
            .collect();
        let values = [
            from.at.into(),
            Value::MaybeText(from.id.clone()),
            last.at.into(),
            Value::MaybeText(last.id.clone()),
            scan.grace_before.into(),
            (&Json::Array(graces)).into(),
        ];
        item_ids(&run.rows(statements::FIND_UNDELIVERED, &values).await?)
    }

    /// [`Store::open_orphans`], item by item where the database refuses one of them: it spoils nothing but itself.
    async fn open_in_parts(
        &self,
        tx: &mut Tx,
        by: &str,
        items: &[ItemId],
        now: Timestamp,
        dating: &Dating,
    ) -> Result<Found, DbError> {
        if items.is_empty() {
            return Ok(Found::default());
        }
        tx.begin_part().await?;
        let mut found = match self.open_orphans(tx, by, items, now, dating).await {
            Err(error) if error.is_about_a_row() => Found::default(),
            result => return result,
        };
        tx.undo_part().await?;
        for item in items {
            tx.begin_part().await?;
            match self.open_orphans(tx, by, std::slice::from_ref(item), now, dating).await {
                Ok(one) => found.add(one),
                Err(error) if error.is_about_a_row() => {
                    tx.undo_part().await?;
                    found.refused.push((item.clone(), crate::report::chain(&error)));
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
        by: &str,
        items: &[ItemId],
        now: Timestamp,
        dating: &Dating,
    ) -> Result<Found, DbError> {
        if items.is_empty() {
            return Ok(Found::default());
        }
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
                ],
            )
            .await?;
        let reopened = if opened.len() < items.len() {
            tx.rows(statements::REOPEN_ORPHANS, &[(&list).into(), now.into(), late]).await?
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
        let mut events = Vec::new();
        for (rows, kind) in [(&opened, "opened"), (&reopened, "reopened")] {
            for row in rows {
                events.push(json!({
                    "orphan_id": row.int("id")?, "charge_id": row.text("charge_id")?,
                    "output_index": row.int("output_index")?, "at": self.db.time(now), "kind": kind, "detail": by,
                }));
            }
        }
        if !events.is_empty() {
            tx.rows(statements::INSERT_EVENTS, &[(&Json::Array(events)).into()]).await?;
        }
        Ok(Found { opened: opened.len() as u64, reopened: reopened.len() as u64, ..Found::default() })
    }
}

/// Where the chunk after `from` ends; none: there is nothing after it.
async fn chunk_end(
    run: &mut impl Run,
    from: &Place,
    scan: &Scan,
    chunk: u32,
) -> Result<Option<Place>, DbError> {
    let Some(from_id) = &from.id else {
        return Ok(None);
    };
    // The whole rest. Recorded failures are few: one chunk.
    let rest = Place { at: scan.until, id: None };
    if matches!(scan.over, Over::FailedAt { .. }) {
        return Ok(Some(rest));
    }
    let offset = i64::from(chunk.max(1)) - 1;
    let values = [from.at.into(), from_id.into(), scan.until.into(), offset.into()];
    let rows = run.rows(statements::CHUNK_END, &values).await?;
    Ok(Some(match rows.first() {
        Some(row) => Place { at: row.time("charged_at")?, id: Some(row.text("id")?) },
        None => rest,
    }))
}

/// What was told to wait before its failure was recorded waits no longer (P19).
async fn hasten_failed(run: &mut impl Run, scan: &Scan) -> Result<(), DbError> {
    let values = [scan.after.into(), scan.until.into(), scan.until.into()];
    run.rows(statements::HASTEN_FAILED, &values).await.map(drop)
}

pub(super) fn item_ids(rows: &[super::Row]) -> Result<Vec<ItemId>, DbError> {
    rows.iter()
        .map(|row| Ok(ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? }))
        .collect()
}
