//! How each provider stood when a pass last left it: for people, and for the next process.
//!
//! Nothing that decides over money reads it. A crash leaves the state before; a lost row costs a few questions.

use super::db::{DbError, Value};
use super::{Store, statements};
use crate::clock::Timestamp;
use crate::provider::ObservedState;

/// How a provider stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderState {
    /// The provider.
    pub provider: String,
    /// When it was last asked.
    pub asked_at: Timestamp,
    /// What it said of a job, or why that could not be told.
    pub verdict: String,
    /// In its own words.
    pub message: Option<String>,
    /// Left alone until then; past: one question tries it. None: asked as usual.
    pub circuit_open_until: Option<Timestamp>,
    /// When this was written.
    pub noted_at: Timestamp,
}

impl Store {
    /// Notes how a provider stands, unless another process has asked it since.
    pub async fn note_provider_state(&self, provider: &str, state: &ObservedState) -> Result<(), DbError> {
        let now = self.now().await?;
        let open_until = state.circuit_open_for.map(|left| now + left);
        let values = [
            provider.into(),
            (now - state.asked_ago).into(),
            state.verdict.as_str().into(),
            Value::MaybeText(state.message.clone()),
            Value::MaybeTime(open_until),
            now.into(),
        ];
        self.rows(statements::NOTE_PROVIDER_STATE, &values).await?;
        Ok(())
    }

    /// All providers that were ever asked, or one of them.
    pub async fn provider_states(&self, provider: Option<&str>) -> Result<Vec<ProviderState>, DbError> {
        let one = Value::MaybeText(provider.map(str::to_owned));
        let rows = self.rows(statements::PROVIDER_STATES, &[one]).await?;
        rows.iter()
            .map(|row| {
                Ok(ProviderState {
                    provider: row.text("provider")?,
                    asked_at: row.time("asked_at")?,
                    verdict: row.text("verdict")?,
                    message: row.maybe_text("message")?,
                    circuit_open_until: row.maybe_time("circuit_open_until")?,
                    noted_at: row.time("noted_at")?,
                })
            })
            .collect()
    }
}
