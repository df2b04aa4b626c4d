//! The brake in a person's hand: engaged for all or for one provider, and released for one
//! provider.
//!
//! Both lock the row of the brake and commit. A settle locks the same row last and asks the brake
//! again: so no refund is committed once `makegood brake status` shows that it is held.

use std::collections::BTreeMap;

use super::{BrakeScope, Released, lock, note};
use crate::clock::Timestamp;
use crate::store::db::{DbError, Run, Statement};
use crate::store::{Store, statements, with_retries};

/// A provider whose refunds a person holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HeldProvider {
    /// Since when.
    pub engaged_at: Timestamp,
    /// Why.
    pub reason: String,
}

impl Store {
    /// Holds all refunds, or those of one provider, until a person releases them. False: they are
    /// held already.
    pub async fn engage_brake(
        &self,
        provider: Option<&str>,
        by: &str,
        reason: &str,
    ) -> Result<bool, DbError> {
        with_retries!(self, self.engage_by(provider, by, reason).await)
    }

    async fn engage_by(&self, provider: Option<&str>, by: &str, reason: &str) -> Result<bool, DbError> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        lock(&mut tx).await?;
        let why = format!("{by}: {reason}");
        let (rows, scope) = if let Some(provider) = provider {
            let values = [provider.into(), now.into(), why.as_str().into()];
            (tx.rows(statements::PROVIDER_ENGAGE, &values).await?, BrakeScope::Provider(provider))
        } else {
            let values = [now.into(), why.as_str().into()];
            (tx.rows(statements::BRAKE_ENGAGE, &values).await?, BrakeScope::All)
        };
        if rows.is_empty() {
            return Ok(false);
        }
        note(&mut tx, scope, "engaged", by, reason, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Releases the refunds of one provider, and makes due what was held. Returns how many that
    /// were, or none if there was nothing to release.
    pub async fn release_provider(
        &self,
        provider: &str,
        by: &str,
        reason: &str,
    ) -> Result<Option<Released>, DbError> {
        let was_held = with_retries!(self, self.let_provider_go_by(provider, by, reason).await)?;
        self.freed(was_held, statements::PROVIDER_FREE_ORPHANS, provider).await
    }

    async fn let_provider_go_by(&self, provider: &str, by: &str, reason: &str) -> Result<bool, DbError> {
        let now = self.now().await?;
        let mut tx = self.db.begin().await?;
        lock(&mut tx).await?;
        if tx.rows(statements::PROVIDER_RELEASE, &[provider.into(), now.into()]).await?.is_empty() {
            return Ok(false);
        }
        note(&mut tx, BrakeScope::Provider(provider), "released", by, reason, now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Makes due what was held of one account or provider. None: nothing was held.
    pub(super) async fn freed(
        &self,
        was_held: bool,
        statement: &'static Statement,
        whose: &str,
    ) -> Result<Option<Released>, DbError> {
        let freed = self.free_held_by(statement, &[whose.into()]).await?;
        Ok((was_held || freed > 0).then_some(freed))
    }
}

/// The providers whose refunds a person holds.
pub(super) async fn providers(run: &mut impl Run) -> Result<BTreeMap<String, HeldProvider>, DbError> {
    let rows = run.rows(statements::PROVIDER_BRAKES, &[]).await?;
    rows.iter()
        .map(|row| {
            let reason = row.maybe_text("reason")?.unwrap_or_default();
            Ok((row.text("provider")?, HeldProvider { engaged_at: row.time("engaged_at")?, reason }))
        })
        .collect()
}
