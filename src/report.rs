//! The report of a pass: every claimed orphan is counted under exactly one outcome.
//!
//! The log line, the terminal output, the status page and the exit code are views of a
//! [`PassReport`]. It counts settlements when they are committed. Metrics and alerts do not use it:
//! they read the database (`ops::metrics`). The command `makegood report` reads the database too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::store::{BrakeState, HeldAccount, Unresolved};

/// The report of one pass.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PassReport {
    /// The id of the pass's row; none for a dry run, which has no row.
    pub pass_id: Option<i64>,
    /// It was a dry run: nothing was changed.
    pub dry_run: bool,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// It ended before everything due was examined: it was asked to stop, or ran out of time.
    pub stopped_early: bool,
    /// Orphans that scans opened. A settle may open others: of items that lost an output to a
    /// relink, and of a charge whose items were added.
    pub opened: u64,
    /// Resolved orphans that are undelivered again.
    pub reopened: u64,
    /// Undelivered items older than `[detect] backlog_age`. They are only counted; `--backlog`
    /// opens them.
    pub backlog: u64,
    /// Orphans that were claimed: the sum of all outcomes.
    pub claimed: u64,
    /// The number of claimed orphans by action and reason.
    pub outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Credits refunded, in the platform's smallest unit.
    pub refunded_credits: i64,
    /// Bytes of recovered files.
    pub recovered_bytes: u64,
    /// Late questions: asked again after a refund without proof.
    pub asked_again: u64,
    /// Refunded items that the provider now says it made. The provider is paid, nothing was
    /// delivered.
    pub late_successes: u64,
    /// Refunded items whose output was stored after the refund. P20 (outputs that arrive late).
    pub stored_late: u64,
    /// Killed copies whose partial files were removed from the storage.
    pub swept: u64,
    /// The number of questions by provider and verdict.
    pub questions: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Findings for a person.
    pub findings: Vec<Finding>,
    /// The number of findings beyond the first 100.
    pub findings_left_out: u64,
    /// The unresolved orphans after the pass.
    pub unresolved: UnresolvedTotals,
}

/// The number of orphans that are open or held after a pass.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UnresolvedTotals {
    /// Waiting for an answer or a file.
    pub open: u64,
    /// Waiting for a person.
    pub held: u64,
    /// Held by the brake: of all refunds, or of one provider.
    pub held_by_brake: u64,
    /// Held by the limits of their accounts.
    pub held_for_accounts: u64,
    /// The number of accounts that their own limits hold.
    pub accounts_held: u64,
    /// The accounts among them that were first held during this pass, by it or by another process.
    pub accounts_newly_held: u64,
    /// Not made good within 24 hours (P24). Orphans that are held for an account are not counted.
    pub past_window: u64,
    /// The charge time of the oldest unresolved orphan.
    pub oldest_charged_at: Option<Timestamp>,
    /// Why the brake is on, if it is.
    pub brake: Option<String>,
    /// Why refunds are held that were caused only by faults of ours, if they are.
    pub own_faults: Option<String>,
    /// The providers whose refunds a person holds, and why.
    pub providers: BTreeMap<String, String>,
}

/// Something that a person should examine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind: a reason's word (`brake`: this pass has held an account by its own limits), or
    /// `unreadable_row`, `refused_row`, `locked`, `charged_in_the_future`, `failed_backlog`,
    /// `clock_was_ahead`, `key_refused`, `dry_run_cut`, `no_share`, `lost_output`, `odd_time`,
    /// `cannot_post`, `poison`.
    pub kind: &'static str,
    /// The object concerned.
    pub about: String,
    /// The problem and the remedy.
    pub detail: String,
}

const FINDINGS_MAX: usize = 100;

impl PassReport {
    /// Counts the outcome of one claimed orphan.
    pub fn add_outcome(&mut self, action: &'static str, reason: &str) {
        self.claimed += 1;
        *self.outcomes.entry(action).or_default().entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts one question.
    pub fn add_question(&mut self, provider: &str, verdict: &'static str) {
        *self.questions.entry(provider.to_owned()).or_default().entry(verdict).or_default() += 1;
    }

    /// Adds a finding, unless the report has it already. Beyond 100 it only counts them.
    pub fn add_finding(&mut self, finding: Finding) {
        if self.findings.contains(&finding) {
            return;
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }

    /// The number of orphans with this action.
    pub fn total(&self, action: &str) -> u64 {
        self.outcomes.get(action).map_or(0, |reasons| reasons.values().sum())
    }

    /// Adds the report of another lane of the same pass.
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
            self.add_finding(finding);
        }
    }

    /// Whether the pass ends with exit code 3: orphans are past their window or held by the brake,
    /// or an account was held for the first time. An account that stays held does not count again.
    pub const fn needs_a_person(&self) -> bool {
        let UnresolvedTotals { past_window, held_by_brake, accounts_newly_held, .. } = &self.unresolved;
        *past_window > 0 || *held_by_brake > 0 || *accounts_newly_held > 0
    }

    /// Adds a finding for each account that was first held during this pass.
    pub fn add_held_accounts(&mut self, held: &[HeldAccount]) {
        self.unresolved.accounts_newly_held = held.len() as u64;
        for HeldAccount { account_id, reason, .. } in held {
            let detail = format!(
                "{reason}. Check a few of its cases with `makegood explain`, then run `makegood brake release --account {account_id} \
                 --by WHO --reason WHY`, or raise the limit"
            );
            self.add_finding(Finding { kind: "brake", about: format!("account {account_id}"), detail });
        }
    }

    /// Logs one line for the pass, and one for each finding.
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

    /// The report as text for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let title = if self.dry_run { "Dry run: nothing was changed." } else { "Pass done." };
        let title = if self.stopped_early { "Pass stopped early. The next pass continues." } else { title };
        let _ = writeln!(text, "{title}");
        let _ =
            writeln!(text, "  found      {} new orphans, {} undelivered again", self.opened, self.reopened);
        if self.backlog > 0 {
            let _ = writeln!(
                text,
                "  backlog    {} undelivered items are only counted: they are older than [detect] backlog_age (see --backlog)",
                self.backlog
            );
        }
        let _ = writeln!(text, "  examined   {} orphans", self.claimed);
        for (action, reasons) in &self.outcomes {
            let each: Vec<String> =
                reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            let _ = writeln!(text, "  {action:<10} {} ({})", self.total(action), each.join(", "));
        }
        if self.refunded_credits > 0 {
            let _ = writeln!(text, "  credits    {} refunded", self.refunded_credits);
        }
        if self.recovered_bytes > 0 {
            let _ = writeln!(text, "  files      {} bytes recovered", self.recovered_bytes);
        }
        if self.swept > 0 {
            let _ = writeln!(text, "  removed    partial files of {} killed copies", self.swept);
        }
        for (provider, verdicts) in &self.questions {
            let each: Vec<String> =
                verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
            let _ = writeln!(text, "  asked      {provider}: {}", each.join(", "));
        }
        if self.asked_again > 0 {
            let _ = writeln!(
                text,
                "  refunds    asked again about {} jobs refunded without proof",
                self.asked_again
            );
        }
        if self.late_successes + self.stored_late > 0 {
            let _ = writeln!(
                text,
                "  too late   {} refunded items were made after all, {} more were stored after their refund: \
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
                "  BRAKE ON   {why}; {} refunds are held: fix the cause, then run `makegood brake release --by WHO --reason WHY`",
                standing.held_by_brake
            );
        }
        for (provider, why) in &standing.providers {
            let _ = writeln!(
                text,
                "  BRAKE ON   for {provider} only: {why}; until `makegood brake release --provider {provider} --by WHO \
                 --reason WHY`"
            );
        }
        if standing.accounts_held > 0 {
            let _ = writeln!(
                text,
                "  accounts   {} held by their own limits, with {} refunds: `makegood brake status` lists them",
                standing.accounts_held, standing.held_for_accounts
            );
        }
        for finding in &self.findings {
            let _ = writeln!(text, "  check      {} {}: {}", finding.kind, finding.about, finding.detail);
        }
        if self.findings_left_out > 0 {
            let _ = writeln!(text, "             and {} more", self.findings_left_out);
        }
        text
    }
}

impl UnresolvedTotals {
    /// Sums up the unresolved orphans and the state of the brake.
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

/// The messages of an error and its causes, outermost first. Some libraries repeat the cause in
/// their message; a repetition is left out.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !messages.iter().any(|earlier| earlier.contains(&text)) {
            messages.push(text);
        }
        cause = error.source();
    }
    messages
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    causes(error).join(": ")
}
