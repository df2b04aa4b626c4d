//! Rows that settle writes most often, as the batch statements read them: one type per table.
//!
//! A row borrows its text from the case and is written straight into the JSON text of its batch
//! ([`Value::json`](super::db::Value::json)). Built as a JSON value first, a row of eleven columns
//! cost thirty allocations, and a settle holds hundreds of rows. The fields are the columns that
//! the statement reads; a missing one would be a silent NULL.

use serde::{Serialize, Serializer};

use super::db::{Db, DbError, Run};
use super::erasure::hash;
use super::statements;
use crate::charge::ItemId;
use crate::clock::Timestamp;

/// An instant in a batch: text for PostgreSQL, microseconds since 1970 for SQLite.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instant {
    at: Timestamp,
    is_text: bool,
}

impl Instant {
    /// The instant as this database reads it.
    pub(super) const fn of(db: &Db, at: Timestamp) -> Self {
        Self { at, is_text: db.is_postgres() }
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_text {
            serializer.collect_str(&self.at)
        } else {
            serializer.serialize_i64(self.at.micros())
        }
    }
}

/// A row of `makegood_orphan_events`.
#[derive(Debug, Serialize)]
pub(super) struct EventRow<'a> {
    pub(super) orphan_id: i64,
    pub(super) charge_id: &'a str,
    pub(super) output_index: i64,
    pub(super) at: Instant,
    pub(super) kind: &'a str,
    pub(super) reason: Option<&'static str>,
    pub(super) rule: Option<u8>,
    /// For people.
    pub(super) detail: Option<String>,
    pub(super) answer_id: Option<i64>,
    pub(super) pass_id: Option<i64>,
    pub(super) lease_token: Option<i64>,
    /// SQLite only: PostgreSQL writes its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_sha256: Option<String>,
}

impl<'a> EventRow<'a> {
    /// What happened to an orphan, when; the rest is empty.
    pub(super) const fn new(orphan_id: i64, item: &'a ItemId, at: Instant, kind: &'a str) -> Self {
        Self {
            orphan_id,
            charge_id: item.charge_id.as_str(),
            output_index: item.output_index,
            at,
            kind,
            reason: None,
            rule: None,
            detail: None,
            answer_id: None,
            pass_id: None,
            lease_token: None,
            content_sha256: None,
        }
    }
}

/// Writes events, each with the hash of its detail.
///
/// # Errors
/// The database refuses them.
pub(super) async fn insert_events(
    db: &Db,
    run: &mut impl Run,
    mut events: Vec<EventRow<'_>>,
) -> Result<(), DbError> {
    if events.is_empty() {
        return Ok(());
    }
    if !db.is_postgres() {
        for event in &mut events {
            event.content_sha256 = event.detail.as_deref().map(hash);
        }
    }
    run.rows(statements::INSERT_EVENTS, &[super::db::Value::json(&events)]).await.map(drop)
}

/// A row of `makegood_answers`.
#[derive(Debug, Serialize)]
pub(super) struct AnswerRow<'a> {
    pub(super) provider: &'a str,
    pub(super) provider_job_id: &'a str,
    pub(super) asked_at: Instant,
    pub(super) verdict: &'static str,
    pub(super) class: Option<&'static str>,
    pub(super) code: Option<&'a str>,
    pub(super) message: Option<&'a str>,
    pub(super) offered: usize,
    pub(super) request: Option<&'a str>,
    pub(super) http_status: Option<u16>,
    /// Without NUL, which no database's text holds.
    pub(super) excerpt: Option<String>,
    /// SQLite only: PostgreSQL writes its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_sha256: Option<String>,
}

impl AnswerRow<'_> {
    /// The hash of what may be erased (`docs/erasure.md`); none: there is no text.
    pub(super) fn content_hash(&self) -> Option<String> {
        let texts = [self.code, self.message, self.request, self.excerpt.as_deref()];
        texts.iter().any(Option::is_some).then(|| hash(&json_array(&texts)))
    }
}

/// A JSON array as PostgreSQL's `json_build_array` spells it.
fn json_array(texts: &[Option<&str>]) -> String {
    let spelled = texts.iter().map(|text| serde_json::json!(text).to_string());
    format!("[{}]", spelled.collect::<Vec<_>>().join(", "))
}

/// A row of `makegood_resolutions`.
#[derive(Debug, Serialize)]
pub(super) struct ResolutionRow<'a> {
    pub(super) charge_id: &'a str,
    pub(super) output_index: i64,
    pub(super) kind: &'static str,
    pub(super) reason: &'static str,
    pub(super) rule: u8,
    pub(super) resolved_at: Instant,
    pub(super) decided_by: &'a str,
    pub(super) answer_id: Option<i64>,
    pub(super) pass_id: Option<i64>,
}

/// What becomes of an orphan (`settle_orphans.sql` says what each column does).
#[derive(Debug, Serialize)]
pub(super) struct OrphanRow<'a> {
    pub(super) orphan_id: i64,
    pub(super) state: &'static str,
    pub(super) reason: &'static str,
    pub(super) due_at: Option<Instant>,
    pub(super) expires_at: Option<Instant>,
    pub(super) asked: u8,
    pub(super) asked_at: Option<Instant>,
    pub(super) waited: u8,
    pub(super) provider: &'a str,
    pub(super) provider_job_id: Option<&'a str>,
    pub(super) resolved_at: Option<Instant>,
    pub(super) held_account: Option<String>,
    pub(super) unasked: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_an_answer_is_that_of_its_texts_as_postgresql_spells_them() {
        let empty = AnswerRow {
            provider: "p",
            provider_job_id: "j",
            asked_at: Instant { at: Timestamp::from_micros(0), is_text: true },
            verdict: "failed",
            class: None,
            code: None,
            message: None,
            offered: 0,
            request: None,
            http_status: None,
            excerpt: None,
            content_sha256: None,
        };
        assert_eq!(empty.content_hash(), None);
        let answer = AnswerRow { message: Some("a \"b\"\n"), excerpt: Some("ü".into()), ..empty };
        assert_eq!(answer.content_hash(), Some(hash("[null, \"a \\\"b\\\"\\n\", null, \"ü\"]")));
    }
}
