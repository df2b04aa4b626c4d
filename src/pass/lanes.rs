//! Runs one lane for each provider that has something due, side by side.
//!
//! While detection goes on it reports whose orphans it has opened: a provider without a lane gets one, and a lane that is at
//! work is told to claim again. So nothing waits for the end of detection.
//! Leaves to others: what a lane does (`lane`). A lane that fails makes the others begin nothing new; its error is returned
//! once all have ended, and their reports are kept.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::lane::{self, Claims};
use super::room::Room;
use super::{Pass, Reporter};
use crate::report::PassReport;
use crate::store::DbError;

type Ended = (String, PassReport, Result<(), DbError>);

struct Lanes<'a> {
    pass: &'a Arc<Pass>,
    progress: &'a Reporter,
    tasks: JoinSet<Ended>,
    /// Of each lane at work, how to tell it that there is more to claim.
    at_work: HashMap<String, Arc<Notify>>,
    /// Told so while at work: claims once more should it have ended before it heard.
    again: HashSet<String>,
    /// Providers that have had a lane: each has its share of the memory.
    seen: HashSet<String>,
    /// For what needs more than a share: one at a time.
    large: Arc<Semaphore>,
}

/// Runs lanes until nothing is due and, where `opened` is given, detection has ended.
pub(super) async fn run(
    pass: &Arc<Pass>,
    mut opened: Option<UnboundedReceiver<BTreeSet<String>>>,
    report: &mut PassReport,
    progress: &Reporter,
) -> Result<(), DbError> {
    let mut lanes = Lanes {
        pass,
        progress,
        tasks: JoinSet::new(),
        at_work: HashMap::new(),
        again: HashSet::new(),
        seen: HashSet::new(),
        large: Arc::new(Semaphore::new(1)),
    };
    let mut failed = lanes.begin_due().await.err();
    loop {
        if failed.is_some() {
            // Detection and the other lanes begin nothing new.
            pass.failed.store(true, Ordering::Relaxed);
        }
        let is_detecting = opened.is_some();
        let heard = async {
            match &mut opened {
                Some(opened) => opened.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = lanes.tasks.join_next() => match ended {
                Ok((provider, lane_report, result)) => {
                    report.merge(lane_report);
                    failed = failed.or(result.err());
                    lanes.ended(&provider);
                }
                // A lane never panics by design; should one, let the process say so rather than go on half.
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
            providers = heard, if is_detecting => match providers {
                None => {
                    opened = None;
                    // Once more: orphans whose commit was in doubt were opened without a word.
                    let begun = lanes.begin_due().await;
                    failed = failed.or(begun.err());
                }
                Some(providers) => {
                    let begun = lanes.heard(providers).await;
                    failed = failed.or(begun.err());
                }
            },
            else => break,
        }
    }
    failed.map_or(Ok(()), Err)
}

impl Lanes<'_> {
    async fn begin_due(&mut self) -> Result<(), DbError> {
        let due = self.pass.parts.store.due_providers(self.pass.due_by).await?;
        self.begin(due);
        Ok(())
    }

    /// Orphans of these providers were opened. None named: waiting ones have become due, of whom is not known.
    async fn heard(&mut self, providers: BTreeSet<String>) -> Result<(), DbError> {
        if providers.is_empty() {
            for (provider, more) in &self.at_work {
                self.again.insert(provider.clone());
                more.notify_one();
            }
            return self.begin_due().await;
        }
        self.begin(providers.into_iter().collect());
        Ok(())
    }

    fn begin(&mut self, providers: Vec<String>) {
        if self.pass.is_ending() {
            return;
        }
        self.seen.extend(providers.iter().cloned());
        for provider in providers {
            match self.at_work.get(&provider) {
                Some(more) => {
                    more.notify_one();
                    self.again.insert(provider);
                }
                None => self.spawn(provider),
            }
        }
    }

    fn spawn(&mut self, provider: String) {
        let more = Arc::new(Notify::new());
        self.at_work.insert(provider.clone(), Arc::clone(&more));
        // Each provider has a room of its own, so that files that trickle delay no other provider's.
        let rules = &self.pass.parts.rules;
        let share = rules.memory / self.seen.len().max(1) as u64;
        let room = Arc::new(Room::new(rules.copies, share, Arc::clone(&self.large)));
        let (pass, progress) = (Arc::clone(self.pass), Arc::clone(self.progress));
        self.tasks.spawn(async move {
            let (report, result) = lane::run(pass, provider.clone(), room, more, progress, Claims::Due).await;
            (provider, report, result)
        });
    }

    fn ended(&mut self, provider: &str) {
        self.at_work.remove(provider);
        if self.again.remove(provider) && !self.pass.is_ending() {
            self.spawn(provider.to_owned());
        }
    }
}
