//! This process's share of a provider's limits, held in the database while a lane asks the
//! provider.
//!
//! A lane that is alone takes everything, with one round trip more than it would need for itself.
//! Each lane looks again every half second: whoever holds more than its equal part lowers its
//! limits, and reports less as its requests end; whoever holds less raises them once the database
//! has it. So a newcomer has its part within about a second, and what the database says is never
//! less than what is under way. A lane that finds nothing free records that it waits.
//!
//! A process that dies keeps its slots until its lease ends. One that was suspended for longer than
//! its lease begins no request before it has renewed the lease; requests that were under way are
//! not broken off. Where the database cannot be reached, no request begins after the end of the
//! lease. A lane that has lost all its slots for as long as it would have waited for the first one
//! leaves the provider to the others. Time is the database's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use super::Pass;
use crate::provider::{self, Holding, Providers};
use crate::store::{DbError, Store};

/// How often a change of the holdings is tried again that another process was faster than.
const RACES: usize = 10;

/// How processes share a provider's limits.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// How long the slots of a dead process count. A live one renews its lease after a third of it.
    pub lease: Duration,
    /// How soon a lane looks again after it has taken its share; doubled each time, up to
    /// `look_every`.
    pub first_look: Duration,
    /// How often a lane looks whether other processes came or went.
    pub look_every: Duration,
    /// How often a lane without a slot looks before it leaves the provider to the others and to the
    /// next pass.
    pub tries: u32,
    /// How many processes are expected at least: none takes more than its part of these.
    pub processes: usize,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            first_look: Duration::from_millis(100),
            look_every: Duration::from_millis(500),
            // About a minute.
            tries: 120,
            processes: 1,
        }
    }
}

/// A share, while it is held. Dropped without [`Share::give_back`], it counts until its lease ends.
#[derive(Debug)]
pub(super) struct Share {
    sharer: Option<Sharer>,
    keeper: Option<AbortOnDropHandle<()>>,
}

/// What it takes to look at a share and to change it.
#[derive(Clone, Debug)]
struct Sharer {
    store: Store,
    providers: Arc<Providers>,
    provider: String,
    times: Sharing,
}

impl Share {
    /// Waits for a share with at least one slot and keeps it alive. None: other processes held all
    /// slots for as long as a lane waits, the pass is ending, or it is `until`.
    pub(super) async fn take(
        pass: &Pass,
        provider: &str,
        until: Option<Instant>,
    ) -> Result<Option<Self>, DbError> {
        let providers = &pass.parts.providers;
        if !providers.join(provider) {
            // Without a provider file nobody is asked.
            return Ok(Some(Self { sharer: None, keeper: None }));
        }
        let sharer = Sharer {
            store: pass.parts.store.clone(),
            providers: Arc::clone(providers),
            provider: provider.to_owned(),
            times: pass.parts.rules.sharing,
        };
        // From here on the lane is counted until this is dropped.
        let mut share = Self { sharer: Some(sharer.clone()), keeper: None };
        let mut pause = sharer.times.first_look;
        let mut tries = 0;
        while sharer.look().await? == 0 {
            tries += 1;
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            if tries >= sharer.times.tries || is_late || pass.is_ending() {
                share.give_back().await;
                return Ok(None);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = pass.stop.wait() => {}
            }
            pause = sharer.times.after(pause);
        }
        share.keeper = Some(AbortOnDropHandle::new(tokio::spawn(sharer.keep())));
        Ok(Some(share))
    }

    /// Gives the share back, unless another lane of this process uses it. A failure is only logged:
    /// the lease ends by itself.
    pub(super) async fn give_back(mut self) {
        self.keeper = None;
        let Some(sharer) = self.sharer.clone() else { return };
        let Some(sharing) = sharer.providers.lock_share(&sharer.provider).await else { return };
        // Left below and not by the drop.
        self.sharer = None;
        if sharing.leave()
            && let Err(error) = sharer.remove().await
        {
            sharer.warn(&error, "the share of the provider's limits could not be given back; its lease ends");
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(sharer) = self.sharer.take() {
            sharer.providers.leave(&sharer.provider);
        }
    }
}

impl Sharing {
    /// Where the work of a dead process is taken over sooner, so are its slots.
    pub fn within(lease: Duration) -> Self {
        let usual = Self::default();
        Self { lease: usual.lease.min(lease), ..usual }
    }

    fn after(&self, pause: Duration) -> Duration {
        pause.saturating_mul(2).min(self.look_every)
    }
}

impl Sharer {
    /// Looks at the holdings, and takes, renews, lowers or raises the share. Returns its slots.
    async fn look(&self) -> Result<usize, DbError> {
        let Some(sharing) = self.providers.lock_share(&self.provider).await else { return Ok(0) };
        let (limits, holder) = (sharing.limits(), self.providers.holder());
        for _ in 0..RACES {
            // Before the database is asked for the time: the lease must not end later here than
            // there.
            let began = Instant::now();
            let now = self.store.now().await?;
            let found = self.store.provider_shares(&self.provider).await?;
            if let Some((asked_ago, left)) = found.circuit {
                self.providers.adopt_circuit(&self.provider, left, asked_ago);
            }
            let (own, others): (Vec<Holding>, Vec<Holding>) = found
                .holdings
                .into_iter()
                .filter(|each| each.is_live(now, self.times.lease))
                .partition(|each| each.holder == holder);
            let share = provider::compute_share(limits, &others, self.times.processes);
            // Lowered at once, and reported with the requests that are still under way.
            let wanted = Holding {
                holder: holder.to_owned(),
                slots: sharing.lower(&share).max(share.slots),
                max_concurrency: limits.max_concurrency,
                requests_per_second: limits.requests_per_second,
                leased_until: now + self.times.lease,
            };
            // By both clocks: the database's may stand still or be put back while the lease ends
            // here.
            let renew_at = self.times.lease * 2 / 3;
            let is_recorded = own.first().is_some_and(|own| {
                let leased_until = own.leased_until;
                *own == Holding { leased_until, ..wanted.clone() } && now + renew_at < leased_until
            }) && sharing.leased_for().is_some_and(|left| renew_at < left);
            if !is_recorded {
                let all: Vec<Holding> = others.into_iter().chain([wanted]).collect();
                if !self.store.replace_provider_shares(&self.provider, found.version, &all).await? {
                    continue;
                }
                sharing.lease(began + self.times.lease);
            }
            sharing.set(&share);
            return Ok(share.slots);
        }
        // Each time another process was faster. The next look goes on.
        Ok(0)
    }

    /// Removes the holding of this process.
    async fn remove(&self) -> Result<(), DbError> {
        for _ in 0..RACES {
            let now = self.store.now().await?;
            let mut found = self.store.provider_shares(&self.provider).await?;
            found
                .holdings
                .retain(|each| each.is_live(now, self.times.lease) && each.holder != self.providers.holder());
            if self.store.replace_provider_shares(&self.provider, found.version, &found.holdings).await? {
                break;
            }
        }
        Ok(())
    }

    /// Keeps the share alive, and tells the others at once when the circuit opens or closes.
    async fn keep(self) {
        let mut pause = self.times.first_look;
        let mut in_vain = 0;
        loop {
            let look_at = Instant::now() + pause;
            while let Ok(turned) =
                tokio::time::timeout_at(look_at.into(), self.providers.circuit_changed(&self.provider)).await
            {
                let Some(state) = turned else { continue };
                if let Err(error) = self.store.note_provider_state(&self.provider, &state).await {
                    self.warn(&error, "the state of the provider's circuit could not be noted");
                }
            }
            match self.look().await {
                Ok(0) => in_vain += 1,
                Ok(_) => in_vain = 0,
                // Should it fail until the lease ends, no request begins before it has been
                // renewed.
                Err(error) => {
                    in_vain += 1;
                    self.warn(&error, "the share of the provider's limits could not be renewed this time");
                }
            }
            if in_vain >= self.times.tries
                && let Some(sharing) = self.providers.lock_share(&self.provider).await
            {
                sharing.give_up();
            }
            pause = self.times.after(pause);
        }
    }

    fn warn(&self, error: &DbError, what: &str) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, provider = self.provider, "{what}");
    }
}
