//! Who holds how much of each provider's limits: read, and replaced as a whole.
//!
//! A replacement names the version that it rests on and is refused where another process was
//! faster, so that no two processes are given one slot. Nothing that decides over money reads it.
//! After a crash the holdings of the dead process count until its lease ends.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::db::DbError;
use super::{Store, first, statements};
use crate::provider::Holding;

/// The holdings of one provider's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderShares {
    /// Raised with each change; 0: there is no row yet.
    pub version: i64,
    /// All that were recorded, also those whose lease has ended.
    pub holdings: Vec<Holding>,
    /// How long ago the process that last left the provider alone had asked it, and how long it
    /// still is to be left alone; zero: until one question has tried it. None: it is asked as
    /// usual.
    pub circuit: Option<(Duration, Duration)>,
}

impl Store {
    /// Who holds how much of a provider's limits, and whether it is left alone.
    pub async fn provider_shares(&self, provider: &str) -> Result<ProviderShares, DbError> {
        let now = self.now().await?;
        let rows = self.rows(statements::PROVIDER_SHARES, &[provider.into()]).await?;
        let row = first(statements::PROVIDER_SHARES, &rows)?;
        let holdings = row.maybe_text("holdings")?.unwrap_or_default();
        let (asked_at, noted_at) = (row.maybe_time("asked_at")?, row.maybe_time("noted_at")?);
        let circuit = match (asked_at, noted_at, row.maybe_time("circuit_open_until")?) {
            // A note from a time that is still to come could close the circuit for good.
            (Some(asked_at), Some(noted_at), Some(open_until)) if noted_at <= now => {
                Some((now.since(asked_at), open_until.since(now)))
            }
            (_, _, _) => None,
        };
        Ok(ProviderShares {
            version: row.maybe_int("version")?.unwrap_or(0),
            holdings: self.read_holdings(provider, &holdings),
            circuit,
        })
    }

    /// Replaces all holdings of a provider's limits. False: another process has replaced them since
    /// `version`.
    pub async fn replace_provider_shares(
        &self,
        provider: &str,
        version: i64,
        holdings: &[Holding],
    ) -> Result<bool, DbError> {
        let list: Vec<Json> = holdings
            .iter()
            .map(|each| {
                json!({
                    "holder": each.holder,
                    "slots": each.slots,
                    "max_concurrency": each.max_concurrency,
                    "requests_per_second": each.requests_per_second,
                    "leased_until": self.db.time(each.leased_until),
                })
            })
            .collect();
        let values = [provider.into(), version.into(), (&Json::Array(list)).into()];
        Ok(!self.rows(statements::REPLACE_PROVIDER_SHARES, &values).await?.is_empty())
    }

    /// What cannot be read counts as ended: the next change replaces it.
    fn read_holdings(&self, provider: &str, text: &str) -> Vec<Holding> {
        if text.is_empty() {
            return Vec::new();
        }
        let list: Vec<Json> = serde_json::from_str(text).unwrap_or_default();
        let read: Vec<Holding> = list.iter().filter_map(|each| self.read_holding(each)).collect();
        if read.len() < list.len() || (list.is_empty() && text != "[]") {
            tracing::warn!(provider, "makegood_provider_shares holds something unreadable; it is replaced");
        }
        read
    }

    fn read_holding(&self, json: &Json) -> Option<Holding> {
        let number = |key: &str| usize::try_from(json[key].as_u64()?).ok();
        Some(Holding {
            holder: json["holder"].as_str()?.to_owned(),
            slots: number("slots")?,
            max_concurrency: number("max_concurrency")?,
            requests_per_second: json["requests_per_second"].as_f64(),
            leased_until: self.db.read_time(&json["leased_until"])?,
        })
    }
}
