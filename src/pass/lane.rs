//! One provider's lane: claims its due orphans, hands each job to a task, and settles what comes back.
//!
//! Tasks run side by side as far as the provider's manners and the number of copies allow; while a batch is settled the
//! next answers gather, so batches grow with the load and nobody waits for a slow file. Leases of what is in flight
//! are kept alive on the side, however long a settle takes. When the pass is ending, what was not begun is given back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet};

use super::job::{Done, Job};
use super::leases::{self, InFlight};
use super::room::Room;
use super::share::Share;
use super::{Pass, Progress, Reporter};
use crate::evidence::{Doubt, Verdict};
use crate::policy::Action;
use crate::report::{Finding, PassReport};
use crate::store::{Case, Claimed, DbError, Locked, Outcome, Settlement, Suspects};

/// When an orphan whose rows cannot be read is looked at again.
const AFTER_BAD_ROWS: Duration = Duration::from_hours(1);
/// How often it is noted how the provider stands, while it is being asked; and once more at the end.
const NOTE_STATE_EVERY: Duration = Duration::from_secs(30);
/// Batches of waiting orphans that are put into the queue by one statement.
const QUEUED_AT_ONCE: u32 = 10;
/// When a case is tried again of which another session holds a lock.
const AFTER_LOCKED: Duration = Duration::from_mins(1);
/// When a case is decided again that keeps changing while it is looked at.
const AFTER_CHANGE: Duration = Duration::from_mins(1);

/// What was refused that may be everybody's trouble.
#[derive(Default)]
struct Failing {
    /// What the database said of the last.
    why: String,
    accounts: HashSet<String>,
    /// Something of it was not raised by a function of the platform's.
    is_unraised: bool,
}

impl Failing {
    /// What a function of the platform's raises for one account is that account's trouble.
    fn is_everybodys(&self) -> bool {
        self.is_unraised || self.accounts.len() > 1
    }
}

/// What a lane claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claims {
    /// Batches of what is due.
    Due,
    /// One job at a time of those that were in flight in two passes that died (`suspects`).
    Suspects(Suspects),
}

struct Lane {
    pass: Arc<Pass>,
    claims: Claims,
    provider: String,
    /// Where its copies wait for their turn, and for memory.
    room: Arc<Room>,
    progress: Reporter,
    report: PassReport,
    in_flight: Arc<InFlight>,
    /// Changed once while they were looked at.
    changed: HashSet<i64>,
    /// What was locked by other sessions and is told.
    locked: HashSet<String>,
    /// Something was settled, or refused for its own rows: the database can be worked with.
    works: bool,
    /// Why something was refused that may be everybody's trouble.
    failing: Option<Failing>,
    /// Something may be due that is not claimed yet.
    more: bool,
    /// Something may have become due that is not in the queue yet.
    unqueued: bool,

    /// Told when more was opened.
    opened: Arc<Notify>,
    tasks: JoinSet<()>,
    /// When it was last noted how the provider stands.
    noted: Instant,
    sender: mpsc::UnboundedSender<Done>,
}

/// Runs a provider's lane to its end. The report counts what was done, also where it failed in the middle.
pub(super) async fn run(
    pass: Arc<Pass>,
    provider: String,
    room: Arc<Room>,
    opened: Arc<Notify>,
    progress: Reporter,
    claims: Claims,
) -> (PassReport, Result<(), DbError>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut lane = Lane {
        pass,
        claims,
        provider,
        room,
        progress,
        report: PassReport::default(),
        in_flight: Arc::default(),
        changed: HashSet::new(),
        locked: HashSet::new(),
        works: false,
        failing: None,
        more: true,
        unqueued: true,
        opened,
        tasks: JoinSet::new(),
        noted: Instant::now(),
        sender,
    };
    let _keeper = leases::keep(&lane.pass.parts, &lane.in_flight);
    let mut share = None;
    let result = lane.work(receiver, &mut share).await;
    if result.is_err() {
        lane.tasks.shutdown().await;
        // The database may be gone altogether: then the leases run out by themselves.
        let _given_back = tokio::time::timeout(super::LAST_WORD, lane.give_back_all()).await;
        if let Some(share) = share {
            let _given_back = tokio::time::timeout(super::LAST_WORD, share.give_back()).await;
        }
    }
    (lane.report, result)
}

impl Lane {
    /// `share`: where the share of the provider's limits is held. It stays there after an error, until
    /// all tasks have ended.
    async fn work(
        &mut self,
        receiver: mpsc::UnboundedReceiver<Done>,
        share: &mut Option<Share>,
    ) -> Result<(), DbError> {
        *share = Share::take(&self.pass, &self.provider, self.pass.deadline).await?;
        if share.is_none() {
            self.find_no_share();
            return Ok(());
        }
        self.drive(receiver).await?;
        if self.is_left_to_others() {
            self.find_no_share();
        }
        let give_back = async {
            if let Some(share) = share.take() {
                share.give_back().await;
            }
        };
        let (noted, ()) = tokio::join!(self.note_state(), give_back);
        noted?;
        self.has_worked()
    }

    /// Whether other processes have held all slots for so long that nothing more is claimed.
    fn is_left_to_others(&self) -> bool {
        self.pass.parts.providers.has_given_up(&self.provider)
    }

    /// Other processes hold all slots, and work on the same orphans.
    fn find_no_share(&mut self) {
        if !self.pass.is_ending() {
            self.report.add_finding(Finding {
                kind: "no_share",
                about: format!("provider {}", self.provider),
                detail:
                    "other processes held all of its max_concurrency for a minute, so this pass left it to \
                         them; run fewer processes, or raise max_concurrency if the provider allows it"
                        .to_owned(),
            });
        }
    }

    /// One that is refused is told, and stands in nobody's way; where nothing else was settled, it says so of the database.
    fn has_worked(&self) -> Result<(), DbError> {
        match &self.failing {
            Some(failing) if !self.works && failing.is_everybodys() => {
                Err(DbError::NothingSettled { why: failing.why.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// For people, and for the next process.
    async fn note_state(&mut self) -> Result<(), DbError> {
        self.noted = Instant::now();
        match self.pass.parts.providers.state(&self.provider) {
            Some(state) => self.pass.parts.store.note_provider_state(&self.provider, &state).await,
            None => Ok(()),
        }
    }

    async fn drive(&mut self, mut receiver: mpsc::UnboundedReceiver<Done>) -> Result<(), DbError> {
        let batch = match self.claims {
            Claims::Due => self.pass.parts.rules.batch as usize,
            Claims::Suspects(_) => 1,
        };
        loop {
            // Claim ahead of what is in flight, so that the provider is never kept waiting for a settle.
            while self.more
                && !self.is_left_to_others()
                && self.in_flight.lock().len() < batch
                && !self.pass.is_ending()
            {
                self.more = self.claim().await?;
            }
            if self.in_flight.lock().is_empty() {
                return Ok(());
            }
            let mut done = Vec::new();
            tokio::select! {
                // The lane holds a sender itself: this ends only with something in `done`.
                _ = receiver.recv_many(&mut done, batch) => {}
                () = self.opened.notified() => {
                    (self.more, self.unqueued) = (true, true);
                    continue;
                }
                // A task that ended without a word.
                Some(ended) = self.tasks.join_next() => {
                    go_on_unless_panicked(ended);
                    self.forget_ended_tasks();
                    continue;
                }
            }
            self.forget_ended_tasks();
            self.take(done).await?;
            if self.noted.elapsed() >= NOTE_STATE_EVERY {
                self.note_state().await?;
            }
        }
    }

    /// Takes every task that has ended out of the set: left in it, it would keep its memory, and while one batch is settled up
    /// to another batch of them ends.
    fn forget_ended_tasks(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            go_on_unless_panicked(ended);
        }
    }

    /// Claims a batch and begins its jobs. False: nothing is due any more.
    async fn claim(&mut self) -> Result<bool, DbError> {
        let Pass { parts, due_by, .. } = &*self.pass;
        let is_suspect = self.claims != Claims::Due;
        self.unqueued &= !is_suspect;
        if self.unqueued {
            // All that is due, before the first of it is claimed: the earliest deadline comes first.
            let most = parts.rules.batch.saturating_mul(QUEUED_AT_ONCE);
            let queued = parts.store.queue_due(&self.provider, *due_by, most).await?;
            self.unqueued = queued >= u64::from(most);
        }
        let claimed = match self.claims {
            Claims::Due => {
                parts.store.claim(&self.provider, *due_by, parts.rules.lease, parts.rules.batch).await?
            }
            Claims::Suspects(which) => {
                parts.store.claim_suspect(&self.provider, *due_by, parts.rules.lease, which).await?
            }
        };
        let Claimed { cases, unreadable } = claimed;
        let any = !cases.is_empty() || !unreadable.is_empty() || self.unqueued;
        let now = parts.store.now().await?;
        let bad: Vec<(i64, i64)> = unreadable.iter().map(|each| (each.orphan_id, each.token)).collect();
        for each in unreadable {
            self.report.add_outcome("wait", "unreadable_row");
            self.report.add_finding(Finding {
                kind: "unreadable_row",
                about: format!("item {}", each.item),
                detail: format!("{}; mend the row, it is looked at again within the hour", each.why),
            });
        }
        self.pass.parts.store.release(&bad, Some((now + AFTER_BAD_ROWS).max(self.pass.not_before()))).await?;
        self.in_flight.lock().extend(cases.iter().map(|case| (case.facts.orphan.id, case.token)));
        for mut job in Job::group(cases, &self.pass.parts.rules.policy, now) {
            job.is_suspect = is_suspect;
            let (pass, sender) = (Arc::clone(&self.pass), self.sender.clone());
            let room = Arc::clone(&self.room);
            self.tasks.spawn(async move {
                let done = job.run(&pass, &room).await;
                // The lane is gone only when it failed: then nobody settles this.
                let _gone = sender.send(done);
            });
        }
        Ok(any)
    }

    async fn take(&mut self, done: Vec<Done>) -> Result<(), DbError> {
        let mut settlements = Vec::new();
        for done in done {
            match done {
                Done::Decided { settlements: decided, verdicts } => {
                    for verdict in verdicts {
                        self.report.add_question(&self.provider, verdict.as_str());
                    }
                    settlements.extend(decided);
                }
                Done::NotAsked { cases, retry_in } => {
                    let now = self.pass.parts.store.now().await?;
                    let why = if self.is_left_to_others() { "no_share" } else { "circuit_open" };
                    for case in &cases {
                        self.report.add_outcome("wait", why);
                        // Not past the end of doubt: then it is asked whatever the circuit says.
                        let at = (now + retry_in)
                            .min(case.facts.orphan.refund_by.max(now + Duration::from_secs(30)));
                        self.give_back(std::slice::from_ref(case), Some(at)).await?;
                    }
                }
                Done::Stopped { cases } => {
                    for _ in &cases {
                        self.report.add_outcome("given_back", "stopped");
                    }
                    self.give_back(&cases, None).await?;
                }
            }
        }
        // A batch may be larger than one transaction should be: a job's settlements stay together.
        while !settlements.is_empty() {
            let size = chunk_end(&settlements, self.pass.parts.rules.batch as usize);
            let rest = settlements.split_off(size);
            self.settle(std::mem::replace(&mut settlements, rest)).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, settlements: Vec<Settlement>) -> Result<(), DbError> {
        let outcomes = self.pass.parts.store.settle(&settlements, &self.pass.settle).await?;
        self.works |=
            outcomes.iter().any(|outcome| !matches!(outcome, Outcome::Failed { .. } | Outcome::Busy(_)));
        // One account's trouble is no trouble of the database's, however many of its items are refused.
        let accounts = settlements.iter().map(|each| &each.case.facts.record.charge.account_id);
        let many = accounts.collect::<HashSet<_>>().len() > 1;
        for (settlement, outcome) in settlements.iter().zip(outcomes) {
            self.in_flight.landed(settlement.case.facts.orphan.id, settlement.case.token);
            let kept = self.told(settlement, outcome).await?;
            if !kept && let Some(copied) = &settlement.copied {
                self.pass.discard(&settlement.case, copied).await;
            }
        }
        (self.progress)(Progress::Settled(settlements.len() as u64));
        // Not asked for all that is due first.
        if many { self.has_worked() } else { Ok(()) }
    }

    /// Counts one outcome. True: what was carried out is recorded.
    async fn told(&mut self, settlement: &Settlement, outcome: Outcome) -> Result<bool, DbError> {
        let orphan = &settlement.case.facts.orphan;
        match outcome {
            Outcome::Settled(decision) => {
                self.report.add_outcome(decision.action.as_str(), decision.reason.as_str());
                self.tell_of_key(settlement);
                match decision.action {
                    Action::Refund => {
                        let credits =
                            settlement.case.facts.record.item.as_ref().map_or(0, |item| item.credits);
                        self.report.refunded_credits = self.report.refunded_credits.saturating_add(credits);
                    }
                    Action::Recover(_) => {
                        let bytes = settlement.copied.as_ref().map_or(0, |copied| copied.size_bytes);
                        self.report.recovered_bytes += u64::try_from(bytes).unwrap_or(0);
                    }
                    Action::Hold | Action::Wait => self.find(settlement, &decision),
                    Action::Relink { .. } | Action::Close => {}
                }
                tracing::info!(
                    item = %orphan.item,
                    provider = self.provider,
                    action = decision.action.as_str(),
                    reason = decision.reason.as_str(),
                    rule = decision.rule,
                    "settled"
                );
                Ok(matches!(decision.action, Action::Recover(_)))
            }
            Outcome::Changed => {
                // Once more in this pass with fresh facts; what keeps changing waits for the next.
                let again = self.changed.insert(orphan.id);
                self.report.add_outcome("decide_again", "changed_meanwhile");
                let due_at =
                    if again { None } else { Some(self.pass.parts.store.now().await? + AFTER_CHANGE) };
                self.give_back(std::slice::from_ref(&settlement.case), due_at).await?;
                self.more |= again;
                Ok(false)
            }
            Outcome::Lost => {
                self.report.add_outcome("lost", "lease_ran_out");
                Ok(false)
            }
            Outcome::Busy(locked) => self.busy(settlement, &locked).await.map(|()| false),
            Outcome::Refused(why) => self.refused(settlement, why).await.map(|()| false),
            Outcome::Failed { why, raised } => {
                let account = settlement.case.facts.record.charge.account_id.clone();
                let failing = self.failing.get_or_insert_with(Failing::default);
                failing.why.clone_from(&why);
                failing.accounts.insert(account);
                failing.is_unraised |= !raised;
                self.refused(settlement, why).await.map(|()| false)
            }
        }
    }

    /// Postpones a case of which another session holds a lock. One finding an account or charge, however many cases wait for it.
    async fn busy(&mut self, settlement: &Settlement, locked: &Locked) -> Result<(), DbError> {
        self.report.add_outcome("wait", "locked");
        let about = locked.to_string();
        if self.locked.insert(about.clone()) {
            self.report.add_finding(Finding { kind: "locked", about, detail: locked.advice().to_owned() });
        }
        let now = self.pass.parts.store.now().await?;
        self.give_back(std::slice::from_ref(&settlement.case), Some(now + AFTER_LOCKED)).await
    }

    async fn refused(&mut self, settlement: &Settlement, why: String) -> Result<(), DbError> {
        self.report.add_outcome("wait", "refused_row");
        self.report.add_finding(Finding {
            kind: "refused_row",
            about: format!("item {}", settlement.case.facts.orphan.item),
            detail: format!("the database refused to settle it, nothing was written: {why}"),
        });
        let now = self.pass.parts.store.now().await?;
        self.give_back(std::slice::from_ref(&settlement.case), Some(now + AFTER_BAD_ROWS)).await
    }

    /// A refused key is ours to mend, whatever became of the item meanwhile.
    fn tell_of_key(&mut self, settlement: &Settlement) {
        let Some(evidence) = &settlement.evidence else { return };
        if evidence.verdict == Verdict::CouldNotTell(Doubt::Unauthorized) {
            self.report.add_finding(Finding {
                kind: "key_refused",
                about: format!("provider {}", self.provider),
                detail: evidence.message.clone().unwrap_or_default(),
            });
        }
    }

    /// What a person should look at: everything held, and what is ours to mend.
    fn find(&mut self, settlement: &Settlement, decision: &crate::policy::Decision) {
        if let Some(finding) = super::job::finding(settlement, decision) {
            self.report.add_finding(finding);
        }
    }

    async fn give_back(
        &mut self,
        cases: &[Case],
        due_at: Option<crate::clock::Timestamp>,
    ) -> Result<(), DbError> {
        let leases: Vec<(i64, i64)> = cases.iter().map(|case| (case.facts.orphan.id, case.token)).collect();
        for (id, token) in &leases {
            self.in_flight.landed(*id, *token);
        }
        let due_at = due_at.map(|at| at.max(self.pass.not_before()));
        self.pass.parts.store.release(&leases, due_at).await
    }

    async fn give_back_all(&mut self) -> Result<(), DbError> {
        let leases: Vec<(i64, i64)> = self.in_flight.lock().drain().collect();
        self.pass.parts.store.release(&leases, None).await
    }
}

/// A task never panics by design; should one, let the process say so. A task that was cancelled has nothing to say.
fn go_on_unless_panicked(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Where to cut a batch: near `size`, but not inside a job, whose items share its outputs.
fn chunk_end(settlements: &[Settlement], size: usize) -> usize {
    let job = |nth: usize| {
        let item = settlements[nth].case.facts.record.item.as_ref();
        item.and_then(|item| item.job.as_ref()).map(|job| job.job_id.as_str())
    };
    let mut end = size.min(settlements.len());
    while end < settlements.len() && job(end).is_some() && job(end) == job(end - 1) {
        end += 1;
    }
    end
}
