//! Joins the stages: one trip of all due orphans through the pipeline. The only room that knows them all.
//!
//! Detection and the lanes run side by side (`lanes`): orphans are claimed while others are still
//! being found. Each provider has a lane of its own (`lane`), so that a slow or broken one never
//! starves the others: it claims, and for each job a task (`job`) asks, decides and carries out;
//! what comes back is settled in batches. Then what has become known about refunds is recorded
//! (`late`), what was in flight when passes died is retried alone (`suspects`), and what killed
//! copies left in the storage is swept (`sweep`). A dry run (`preview`) takes the same way, leaves
//! no trace, and stops before carrying out.
//!
//! Promise: a pass ends when nothing is due that was due when it began, or that it opened itself; every claimed orphan is in
//! exactly one bucket of its report. It begins nothing new once it is asked to stop or its time is over: that is checked
//! between any two statements of detection and before every claim and question. It takes no hint about what changed: it
//! looks, decides, acts; the next pass is the retry.
//! A crash leaves leases that expire and at most objects that no row names, recorded before they were begun (`journal`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::brake;
use crate::clock::Timestamp;
use crate::config::{Prefer, Release, Settings};
use crate::detect::{self, Since};
use crate::ops::stop::Stop;
use crate::policy;
use crate::provider::Providers;
use crate::recovery::{self, Fetcher, ObjectStorage};
use crate::report::{PassReport, UnresolvedTotals};
use crate::store::{DbError, SettleRules, Store, Stuck};

mod by_hand;
mod consult;
mod job;
mod journal;
mod lane;
mod lanes;
mod late;
mod leases;
mod posting;
mod preview;
mod room;
mod share;
mod suspects;
mod sweep;

pub use by_hand::{Deed, Ended, Wanted, by_hand};
pub use consult::{Consulted, consult};
pub use share::Sharing;

/// How long to wait before re-checking an orphan held by the brake. An output that arrives late still closes it.
const HELD_FOR: Duration = Duration::from_hours(1);

/// Minimum delay before an orphan that this pass has examined is due again. Without it a pass might never finish.
const NOT_BEFORE: Duration = Duration::from_secs(1);

/// The longest that a pass which has failed keeps trying to leave word in the database that failed it.
const LAST_WORD: Duration = Duration::from_secs(5);

/// How far a failed pass looks for a time that cannot be read: a million charges. `makegood check`
/// reads all.
const NAMING_CHUNKS: u32 = 128;

/// What a pass works with; lives as long as the process.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The tables.
    pub store: Store,
    /// Whom to ask.
    pub providers: Arc<Providers>,
    /// Where files go.
    pub storage: Arc<ObjectStorage>,
    /// What fetches them.
    pub fetcher: Arc<Fetcher>,
    /// How it is set.
    pub rules: Rules,
}

/// How passes are set.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What to look for.
    pub detect: detect::DetectRules,
    /// What the platform has chosen.
    pub policy: policy::PolicyOptions,
    /// When to stop.
    pub brake: brake::BrakeLimits,
    /// Whether the brake goes off by itself once its condition is gone.
    pub release_when_gone: bool,
    /// Orphans claimed at once.
    pub batch: u32,
    /// How long a claim lasts.
    pub lease: Duration,
    /// How processes share a provider's limits.
    pub sharing: Sharing,
    /// Files fetched from one provider at the same time.
    pub copies: usize,
    /// Memory for the files of all providers, in bytes; each provider may have what one file needs in any case.
    pub memory: u64,
    /// When a provider is asked again after a refund without proof.
    pub late: policy::late::LateTimes,
    /// Such questions that one pass asks of any one provider.
    pub late_questions: u32,
    /// The longest that such questions may keep a pass from ending.
    pub late_budget: Duration,
    /// After so long what a killed copy left is removed for the last time.
    pub sweep_after: Duration,
    /// Nothing new is begun after this.
    pub max_duration: Option<Duration>,
}

impl Rules {
    /// As the settings say.
    pub fn new(settings: &Settings) -> Self {
        Self {
            detect: detect::DetectRules {
                grace: settings.detect.grace,
                overlap: settings.detect.overlap,
                start_at: settings.detect.start_at,
                backlog_age: settings.detect.backlog_age,
                full_look_every: detect::FULL_LOOK_EVERY,
                turn: detect::DetectionTurn::default(),
                chunk: settings.detect.chunk,
                window: settings.window.length,
                margin: settings.window.margin,
                lease: settings.pass.lease,
            },
            policy: policy::PolicyOptions {
                unknown_job_grace: settings.detect.unknown_job_grace,
                prefer_refund: settings.recovery.prefer == Prefer::Refund,
            },
            brake: brake::BrakeLimits {
                refunds_per_pass: settings.brake.max_refunds_per_pass,
                refunds_per_pass_per_provider: settings.brake.max_refunds_per_pass_per_provider,
                credits_per_pass: settings.brake.max_credits_per_pass,
                refunds_per_hour: settings.brake.max_refunds_per_hour,
                refunds_per_day: settings.brake.max_refunds_per_day,
                credits_per_hour: settings.brake.max_credits_per_hour,
                credits_per_day: settings.brake.max_credits_per_day,
                refunds_per_hour_per_provider: settings.brake.max_refunds_per_hour_per_provider,
                refunds_per_day_per_provider: settings.brake.max_refunds_per_day_per_provider,
                share_per_day: settings.brake.max_refund_share_per_day,
                own_faults_per_day: settings.brake.max_own_fault_refunds_per_day,
                credit_share_per_day: settings.brake.max_credit_share_per_day,
                refunds_per_day_per_account: settings.brake.max_refunds_per_day_per_account,
                credits_per_day_per_account: settings.brake.max_credits_per_day_per_account,
                credit_share_per_day_per_account: settings.brake.max_credit_share_per_day_per_account,
            },
            release_when_gone: settings.brake.release == Release::WhenGone,
            batch: settings.pass.batch,
            lease: settings.pass.lease,
            sharing: Sharing::within(settings.pass.lease),
            copies: settings.recovery.concurrency,
            late: policy::late::LateTimes {
                first: settings.late.first_question,
                last: settings.late.last_question,
            },
            late_questions: settings.late.questions_per_pass,
            late_budget: late::BUDGET,
            memory: settings.recovery.memory,
            sweep_after: settings.recovery.sweep_after,
            max_duration: settings.pass.max_duration,
        }
    }
}

/// The limits of one copy, as the settings say.
pub fn copy_limits(settings: &Settings) -> recovery::CopyLimits {
    recovery::CopyLimits {
        max_bytes: settings.recovery.max_bytes,
        time_budget: settings.recovery.time_budget,
        allow_loopback: settings.recovery.allow_loopback,
        ..recovery::CopyLimits::default()
    }
}

/// What one pass is asked to do.
#[derive(Clone, Debug)]
pub struct Orders {
    /// `run` or `schedule`.
    pub mode: &'static str,
    /// Stop before carrying out, and leave no trace.
    pub dry_run: bool,
    /// Look again at charges from here on.
    pub since: Option<Since>,
    /// The wish to stop.
    pub stop: Stop,
}

/// What the tasks of one pass share.
#[derive(Debug)]
struct Pass {
    parts: Parts,
    settle: SettleRules,
    due_by: Timestamp,
    deadline: Option<Instant>,
    stop: Stop,
    /// Detection or a lane has failed: the others begin nothing new.
    failed: AtomicBool,
}

impl Pass {
    /// Orphans that were examined are not due again in this pass, even if the clock was set back during it.
    fn not_before(&self) -> Timestamp {
        self.due_by + NOT_BEFORE
    }

    /// Whether to begin nothing new.
    fn is_ending(&self) -> bool {
        self.stop.requested()
            || self.failed.load(Ordering::Relaxed)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// How a pass proceeds, for people and for the health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many more charges or failed items were scanned, up to this time.
    Scanned {
        /// How many.
        rows: u64,
        /// The time of the last one.
        up_to: Timestamp,
    },
    /// So many more orphans were settled.
    Settled(u64),
    /// Something else was done.
    Worked,
}

/// Runs one pass. `progress` is told how it proceeds.
///
/// # Errors
/// The database cannot be worked with. What was committed stays; the pass's row says that it failed.
pub async fn run(
    parts: &Parts,
    orders: Orders,
    progress: impl Fn(Progress) + Send + Sync + 'static,
) -> Result<PassReport, DbError> {
    if orders.dry_run {
        let error = match preview::run(parts, &orders).await {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        return Err(parts.store.name_unreadable_time(error, NAMING_CHUNKS).await);
    }
    let (pass_id, started_at) = parts.store.begin_pass(orders.mode).await?;
    let mut report =
        PassReport { pass_id: Some(pass_id), started_at: Some(started_at), ..PassReport::default() };
    let stop = orders.stop.clone();
    let result = work(parts, orders, pass_id, started_at, &mut report, Arc::new(progress)).await;
    if result.is_ok() && !stop.requested() {
        // Last: nobody waits for it. What it cannot do is no failed pass.
        sweep::run(parts, &mut report).await;
    }
    let Err(error) = result else {
        return finish(&parts.store, pass_id, report).await;
    };
    let error = parts.store.name_unreadable_time(error, NAMING_CHUNKS).await;
    // Return this error. A failure to record the pass's status is only logged.
    let noted = tokio::time::timeout(LAST_WORD, note_end(&parts.store, pass_id, "failed", &mut report)).await;
    if !matches!(noted, Ok(Ok(()))) {
        tracing::warn!(pass_id, "the end of the pass could not be noted in the database");
    }
    Err(error)
}

/// Notes that a pass has ended well, and what it leaves.
async fn finish(store: &Store, pass_id: i64, mut report: PassReport) -> Result<PassReport, DbError> {
    report.unresolved =
        UnresolvedTotals::new(&store.unresolved(store.now().await?).await?, &store.brake().await?);
    if let Some(began) = report.started_at {
        report.add_held_accounts(&store.accounts_held_since(began).await?);
    }
    let outcome = if report.stopped_early { "stopped" } else { "done" };
    note_end(store, pass_id, outcome, &mut report).await.map(|()| report)
}

async fn note_end(
    store: &Store,
    pass_id: i64,
    outcome: &str,
    report: &mut PassReport,
) -> Result<(), DbError> {
    let finished_at = store.now().await?;
    report.finished_at = Some(finished_at);
    // A report is plain data: it always has a JSON form.
    let json = serde_json::to_string(report).unwrap_or_default();
    store.finish_pass(pass_id, finished_at, outcome, &json).await
}

type Reporter = Arc<dyn Fn(Progress) + Send + Sync>;

async fn work(
    parts: &Parts,
    orders: Orders,
    pass_id: i64,
    started_at: Timestamp,
    report: &mut PassReport,
    progress: Reporter,
) -> Result<(), DbError> {
    let store = &parts.store;
    let deadline = parts.rules.max_duration.and_then(|duration| Instant::now().checked_add(duration));
    // Before anything else: what is refunded from here on counts for the limits of the pass.
    let watch = store.watch(parts.rules.brake, started_at).await?;
    let stuck = Stuck::default();
    let cannot_post = posting::cannot_post(store, report).await;
    if parts.rules.release_when_gone {
        // What was refunded in the pass before does not count in this one.
        store.release_brake_when_gone(&watch).await?;
    }
    let new_pass = |due_by: Timestamp| {
        Arc::new(Pass {
            parts: parts.clone(),
            settle: SettleRules {
                brake: watch.clone(),
                dating: detect::dating(&parts.rules.detect, &parts.providers),
                late: parts.rules.late,
                held_for: HELD_FOR,
                not_before: Some(due_by + NOT_BEFORE),
                pass_id: Some(pass_id),
                decided_by: "makegood".to_owned(),
                stuck: stuck.clone(),
                cannot_post: cannot_post.clone(),
            },
            due_by,
            deadline,
            stop: orders.stop.clone(),
            failed: AtomicBool::new(false),
        })
    };
    let mut pass = new_pass(started_at);
    suspects::decide(&pass, report, &progress).await?;
    let mut known = bared(report);
    let all_scanned = detect_and_settle(&pass, orders.since, report, &progress).await?;
    loop {
        if pass.is_ending() {
            report.stopped_early = !all_scanned || !store.due_providers(pass.due_by).await?.is_empty();
            return Ok(());
        }
        // A settle may have opened orphans of other items: those are due now.
        if bared(report) == known {
            late::run(&pass, pass_id, report, &progress).await?;
            return suspects::retry(&pass, report, &progress).await;
        }
        known = bared(report);
        pass = new_pass(store.now().await?.max(started_at));
        lanes::run(&pass, None, report, &progress).await?;
    }
}

/// Settlements that may have opened orphans of other items: an output that was put back was taken from one, and a charge whose
/// items add up by now may have more of them.
fn bared(report: &PassReport) -> u64 {
    let mended = report.outcomes.get("close").and_then(|reasons| reasons.get("items_mismatch"));
    report.total("relink") + mended.copied().unwrap_or_default()
}

/// Detection and the lanes, side by side. Where one fails the other ends early. False: detection was stopped before its end.
async fn detect_and_settle(
    pass: &Arc<Pass>,
    since: Option<Since>,
    report: &mut PassReport,
    progress: &Reporter,
) -> Result<bool, DbError> {
    let (sender, opened) = tokio::sync::mpsc::unbounded_channel();
    let mut found = PassReport::default();
    let detecting = async {
        let Parts { store, providers, rules, .. } = &pass.parts;
        let detection = detect::Detection { store, providers, rules: &rules.detect, since, now: pass.due_by };
        let watch = Watch { pass, progress, opened: sender };
        let result = detection.run(&watch, &mut found).await;
        if result.is_err() {
            pass.failed.store(true, Ordering::Relaxed);
        }
        result
    };
    // The sender goes with detection: then the lanes know that nothing more will be opened.
    let (detected, settled) = tokio::join!(detecting, lanes::run(pass, Some(opened), report, progress));
    report.merge(found);
    // What a lane failed of is the cause where detection was only stopped by it.
    let all_scanned = detected?;
    settled.map(|()| all_scanned)
}

/// Tells the lanes and the person at the terminal how detection proceeds.
struct Watch<'a> {
    pass: &'a Pass,
    progress: &'a Reporter,
    opened: tokio::sync::mpsc::UnboundedSender<BTreeSet<String>>,
}

impl detect::DetectionObserver for Watch<'_> {
    fn is_ending(&self) -> bool {
        self.pass.is_ending()
    }

    fn scanned(&self, rows: u64, up_to: Timestamp) {
        (self.progress)(Progress::Scanned { rows, up_to });
    }

    fn opened(&self, providers: &BTreeSet<String>) {
        // The lanes are gone only when one of them failed: then this pass is ending.
        let _gone = self.opened.send(providers.clone());
    }
}
