//! How each provider stood when a pass last left it: for people, and for the next process.
//!
//! Nothing that decides over money reads it. A crash leaves the state before; a lost row costs a few questions.

use std::time::Duration;

use super::db::{DbError, Value};
use super::{Store, statements};
use crate::clock::Timestamp;
use crate::provider::State;

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
    pub async fn note_provider_state(&self, provider: &str, state: &State) -> Result<(), DbError> {
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

    /// How long the circuit of a provider stays open, by the last process that asked it; zero: one question is to
    /// try it. None: it is asked as usual.
    pub async fn circuit_left(&self, provider: &str) -> Result<Option<Duration>, DbError> {
        let now = self.now().await?;
        let states = self.provider_states(Some(provider)).await?;
        // What was noted while the clock was ahead could close it for good.
        let state = states.first().filter(|state| state.noted_at <= now);
        let open_until = state.and_then(|state| state.circuit_open_until);
        Ok(open_until.map(|until| until.since(now)))
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
