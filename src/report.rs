//! What a pass did: every claimed orphan lands in exactly one bucket.
//!
//! Log line, terminal table, status page and exit code are views of a [`Report`]. It counts what was settled, as it
//! was settled; what metrics and alerts rest on is read from the database instead (`ops::metrics`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::store::{BrakeState, HeldAccount, Unresolved};

/// The report of one pass.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The pass's row; none for a dry run, which leaves no row.
    pub pass_id: Option<i64>,
    /// Nothing was carried out.
    pub dry_run: bool,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// It ended before everything due was looked at: asked to stop, or out of time.
    pub stopped_early: bool,
    /// Orphans that scans opened. A settle may open others: of items that an output was taken from,
    /// and of a charge that was mended.
    pub opened: u64,
    /// Orphans that look undelivered again.
    pub reopened: u64,
    /// Undelivered items older than the backlog's age, only counted (`--backlog` opens them).
    pub backlog: u64,
    /// Orphans that were claimed: the sum of all buckets below.
    pub claimed: u64,
    /// What became of them: action, then reason, then how many.
    pub outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Credits given back, in the platform's smallest unit.
    pub refunded_credits: i64,
    /// Bytes brought home.
    pub recovered_bytes: u64,
    /// Questions asked again after a refund without proof.
    pub asked_again: u64,
    /// Refunded items that a provider now says it made, never stored: paid for and not delivered.
    pub late_successes: u64,
    /// Refunded items whose output was stored after the refund (P20).
    pub stored_late: u64,
    /// Copies that were killed, whose leftovers were removed from the storage.
    pub swept: u64,
    /// Questions asked, by provider and by what the answer said.
    pub questions: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// What a person should look at.
    pub findings: Vec<Finding>,
    /// Findings beyond the first hundred.
    pub findings_left_out: u64,
    /// What is open and held after the pass.
    pub unresolved: Standing,
}

/// What is open and held after a pass.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Standing {
    /// Waiting for an answer or a file.
    pub open: u64,
    /// Waiting for a person.
    pub held: u64,
    /// Held by the brake, of all or of one provider.
    pub held_by_brake: u64,
    /// Held by the limits of single accounts.
    pub held_for_accounts: u64,
    /// Accounts that are held by their own limits.
    pub accounts_held: u64,
    /// Those of them that this pass, or another one meanwhile, was the first to hold.
    pub accounts_newly_held: u64,
    /// Not made good within 24 hours (P24), but for what is held for an account.
    pub past_window: u64,
    /// When the oldest of them was charged.
    pub oldest_charged_at: Option<Timestamp>,
    /// Why the brake is on, if it is.
    pub brake: Option<String>,
    /// Why refunds are held that rest on nothing but faults of ours, if they are.
    pub own_faults: Option<String>,
    /// Providers whose refunds a person holds, and why.
    pub providers: BTreeMap<String, String>,
}

/// Something a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind: a reason's word (`brake`: an account is held by its own limits from this pass on),
    /// or `unreadable_row`, `refused_row`, `locked`, `charged_in_the_future`, `failed_backlog`,
    /// `clock_was_ahead`, `key_refused`, `dry_run_cut`, `no_share`, `lost_output`, `odd_time`,
    /// `cannot_post`, `poison`.
    pub kind: &'static str,
    /// What it is about.
    pub about: String,
    /// What is wrong and what to do.
    pub detail: String,
}

const FINDINGS_MAX: usize = 100;

impl Report {
    /// Puts one claimed orphan into its bucket.
    pub fn add(&mut self, action: &'static str, reason: &str) {
        self.claimed += 1;
        *self.outcomes.entry(action).or_default().entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts one question.
    pub fn asked(&mut self, provider: &str, verdict: &'static str) {
        *self.questions.entry(provider.to_owned()).or_default().entry(verdict).or_default() += 1;
    }

    /// Notes something a person should look at.
    pub fn find(&mut self, finding: Finding) {
        if self.findings.contains(&finding) {
            return;
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }

    /// How many orphans ended in one kind of action.
    pub fn total(&self, action: &str) -> u64 {
        self.outcomes.get(action).map_or(0, |reasons| reasons.values().sum())
    }

    /// Adds what another lane of the same pass did.
    pub fn merge(&mut self, other: Self) {
        self.opened += other.opened;
        self.reopened += other.reopened;
        self.backlog += other.backlog;
        self.claimed += other.claimed;
        for (action, reasons) in other.outcomes {
            for (reason, count) in reasons {
                *self.outcomes.entry(action).or_default().entry(reason).or_default() += count;
            }
        }
        for (provider, verdicts) in other.questions {
            for (verdict, count) in verdicts {
                *self.questions.entry(provider.clone()).or_default().entry(verdict).or_default() += count;
            }
        }
        self.refunded_credits = self.refunded_credits.saturating_add(other.refunded_credits);
        self.recovered_bytes += other.recovered_bytes;
        self.stopped_early |= other.stopped_early;
        self.findings_left_out += other.findings_left_out;
        for finding in other.findings {
            self.find(finding);
        }
    }

    /// Done, but not all is well: orphans are past their window or held by the brake, or this pass
    /// was the first to hold an account (exit code 3). An account that stays held is no news for
    /// the passes after that.
    pub const fn needs_a_person(&self) -> bool {
        let Standing { past_window, held_by_brake, accounts_newly_held, .. } = &self.unresolved;
        *past_window > 0 || *held_by_brake > 0 || *accounts_newly_held > 0
    }

    /// Notes the accounts that this pass was the first to hold.
    pub fn tell_of_held_accounts(&mut self, held: &[HeldAccount]) {
        self.unresolved.accounts_newly_held = held.len() as u64;
        for HeldAccount { account_id, reason, .. } in held {
            let detail = format!(
                "{reason}; look at a few with `makegood explain`, then `makegood brake release --account {account_id} \
                 --by WHO --reason WHY`, or raise the limit"
            );
            self.find(Finding { kind: "brake", about: format!("account {account_id}"), detail });
        }
    }

    /// One line for whoever collects logs, and one for each thing that a person should look at.
    pub fn log(&self, mode: &str) {
        let took = self.finished_at.zip(self.started_at).map(|(end, start)| end.since(start).as_secs_f64());
        for finding in &self.findings {
            tracing::warn!(kind = finding.kind, about = finding.about, "{}", finding.detail);
        }
        tracing::info!(
            mode,
            pass_id = self.pass_id,
            dry_run = self.dry_run,
            stopped_early = self.stopped_early,
            took_seconds = took,
            opened = self.opened,
            reopened = self.reopened,
            backlog = self.backlog,
            claimed = self.claimed,
            refunded = self.total("refund"),
            recovered = self.total("recover"),
            relinked = self.total("relink"),
            closed = self.total("close"),
            waiting = self.total("wait"),
            held = self.total("hold"),
            refunded_credits = self.refunded_credits,
            recovered_bytes = self.recovered_bytes,
            asked_again = self.asked_again,
            late_successes = self.late_successes,
            stored_late = self.stored_late,
            swept = self.swept,
            findings = self.findings.len() as u64 + self.findings_left_out,
            left_open = self.unresolved.open,
            left_held = self.unresolved.held,
            past_window = self.unresolved.past_window,
            brake = self.unresolved.brake,
            own_faults_held = self.unresolved.own_faults,
            accounts_held = self.unresolved.accounts_held,
            "pass done"
        );
    }

    /// For a person: a few lines, the important first.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let title = if self.dry_run { "Dry run: nothing was carried out." } else { "Pass done." };
        let title =
            if self.stopped_early { "Pass stopped early; the rest is for the next one." } else { title };
        let _ = writeln!(text, "{title}");
        let _ = writeln!(
            text,
            "  found      {} new orphans, {} that look undelivered again",
            self.opened, self.reopened
        );
        if self.backlog > 0 {
            let _ = writeln!(
                text,
                "  backlog    {} undelivered items are too old to be touched without --backlog",
                self.backlog
            );
        }
        let _ = writeln!(text, "  looked at  {} orphans", self.claimed);
        for (action, reasons) in &self.outcomes {
            let each: Vec<String> =
                reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            let _ = writeln!(text, "  {action:<10} {} ({})", self.total(action), each.join(", "));
        }
        if self.refunded_credits > 0 {
            let _ = writeln!(text, "  credits    {} given back", self.refunded_credits);
        }
        if self.recovered_bytes > 0 {
            let _ = writeln!(text, "  files      {} bytes brought home", self.recovered_bytes);
        }
        if self.swept > 0 {
            let _ = writeln!(text, "  swept      {} leftovers of copies that were killed", self.swept);
        }
        for (provider, verdicts) in &self.questions {
            let each: Vec<String> =
                verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
            let _ = writeln!(text, "  asked      {provider}: {}", each.join(", "));
        }
        if self.asked_again > 0 {
            let _ = writeln!(
                text,
                "  refunds    asked again about {} jobs that were refunded without proof",
                self.asked_again
            );
        }
        if self.late_successes + self.stored_late > 0 {
            let _ = writeln!(
                text,
                "  too late   {} refunded items turn out to have been made, {} more were stored after their refund: \
                 `makegood report` lists them",
                self.late_successes, self.stored_late
            );
        }
        let standing = &self.unresolved;
        let _ = writeln!(text, "  left       {} open, {} held", standing.open, standing.held);
        if standing.past_window > 0 {
            let _ = writeln!(
                text,
                "  LATE       {} orphans are past their window: `makegood report` lists them",
                standing.past_window
            );
        }
        if let Some(why) = &standing.brake {
            let _ = writeln!(
                text,
                "  BRAKE ON   {why}; {} refunds are held until `makegood brake release --by WHO --reason WHY`",
                standing.held_by_brake
            );
        } else if let Some(why) = &standing.own_faults {
            let _ = writeln!(
                text,
                "  BRAKE ON   {why}; {} are waiting: mend the cause, then `makegood brake release --by WHO --reason WHY`",
                standing.held_by_brake
            );
        }
        for (provider, why) in &standing.providers {
            let _ = writeln!(
                text,
                "  BRAKE ON   for {provider} alone: {why}; until `makegood brake release --provider {provider} --by WHO \
                 --reason WHY`"
            );
        }
        if standing.accounts_held > 0 {
            let _ = writeln!(
                text,
                "  accounts   {} held by limits of their own, with {} refunds: `makegood brake status` lists them",
                standing.accounts_held, standing.held_for_accounts
            );
        }
        for finding in &self.findings {
            let _ = writeln!(text, "  look at    {} {}: {}", finding.kind, finding.about, finding.detail);
        }
        if self.findings_left_out > 0 {
            let _ = writeln!(text, "             and {} more", self.findings_left_out);
        }
        text
    }
}

impl Standing {
    /// Adds up what the database says.
    pub fn new(unresolved: &[Unresolved], brake: &BrakeState) -> Self {
        let sum = |of: &dyn Fn(&Unresolved) -> bool| -> u64 {
            unresolved.iter().filter(|each| of(each)).map(|each| each.orphans).sum()
        };
        let accounts_held = brake.accounts_held;
        let brake = brake.held();
        let of_all = |each: &&Unresolved| !each.for_account;
        Self {
            open: sum(&|each| each.state == "open"),
            held: sum(&|each| each.state == "held"),
            held_by_brake: sum(&|each| each.state == "held" && each.reason == "brake" && !each.for_account),
            held_for_accounts: sum(&|each| each.for_account),
            accounts_held,
            accounts_newly_held: 0,
            past_window: unresolved.iter().filter(of_all).map(|each| each.past_window).sum(),
            oldest_charged_at: unresolved.iter().filter(of_all).map(|each| each.oldest_charged_at).min(),
            brake: brake.all,
            own_faults: brake.own_faults,
            providers: brake.providers,
        }
    }
}

/// An error and its causes, outermost first. Some libraries repeat the cause in the message; that is left out.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut told = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.iter().any(|earlier| earlier.contains(&text)) {
            told.push(text);
        }
        cause = error.source();
    }
    told
}

/// An error with its causes in one line, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    causes(error).join(": ")
}
