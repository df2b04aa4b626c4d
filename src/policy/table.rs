//! Prints the decision table from `decide` and compares it with `policy.md`, the module's
//! documentation.
//!
//! To rewrite the page after an intended change: `MAKEGOOD_WRITE_POLICY=1 cargo test
//! policy::table`.

use std::fmt::Write as _;

use super::samples::{asked_enough, copy_failed, decided, evidence, facts, failed, file, offering, spelled};
use super::{Decision, braked, cannot_post, cannot_relink, charge_changed, exceeds_draw, not_posted};
use crate::charge::{ItemId, WHOLE_CHARGE};
use crate::evidence::{Doubt, FailureClass, Verdict};
use crate::facts::{Delivery, Facts, JobShare};

/// The text above the table.
const PAGE_HEAD: &str = "\
The decision table: what is owed for one item. The first row that matches wins, except for rule 16:
its rows about items that do not add up are checked right after rule 3, and its other rows hold a
refund that a row above has decided. A test prints this page from `decide`.

- `refund_by` is 2 hours before the 24 hours end. For an orphan that was found late, it is 2 hours
  after it was found.
- \"Asked enough\" means at least 3 questions over at least 30 minutes. A refund without proof needs
  it.
- If two passes died while a job was in flight, the job is retried alone. An attempt that ends the
  pass counts as a question. After `refund_by`, once asked enough, the job is decided under rules 10
  and 13 without another question.
- An item without a price is closed where it would be refunded.
- `[recovery] prefer = \"refund\"` turns the recovery of rule 5 into a refund.
- A job may return files without an index, and fewer than it has items. Files that are stored
  already (compared by hash) are skipped. The others go to the waiting items in order; the remaining
  items are `missing_output`. If a file of the job is stored without a SHA-256 in hexadecimal,
  makegood cannot tell which of the files it is, and holds the items (`missing_hash`).
- A refund that a person orders against this table (`makegood refund --anyway`) has rule 0 and the
  reason `by_hand`.
";

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = facts();
    change(&mut facts);
    facts
}

fn misplaced(claimed: bool) -> Facts {
    with(|facts| {
        facts.record.delivery = Delivery::Misplaced {
            output_id: "o1".to_owned(),
            linked_to: Some(ItemId { charge_id: "c2".to_owned(), output_index: 0 }),
            moved: false,
            claimed,
        };
    })
}

/// The rows: what is known, and the decision. The last argument of `decided` is the time in hours
/// since the charge; 23 is past `refund_by`.
#[expect(clippy::too_many_lines, reason = "one row of the table after the other")]
fn rows() -> Vec<(&'static str, Decision)> {
    let running = evidence(Verdict::Running);
    let unknown = evidence(Verdict::UnknownJob);
    let offer = offering(Verdict::Succeeded, vec![file(Some(0))]);
    let mut gone = evidence(Verdict::Succeeded);
    gone.outputs_gone = true;
    let no_job = |failed: bool| {
        with(|facts| {
            let item = facts.record.item.as_mut().unwrap();
            item.job = None;
            item.failed_at = failed.then(super::samples::charged_at);
        })
    };
    let reported =
        with(|facts| facts.record.item.as_mut().unwrap().failed_at = Some(super::samples::charged_at()));
    let cancelled = with(|facts| facts.record.charge.cancelled_at = Some(super::samples::charged_at()));
    let unhashed = with(|facts| facts.share = JobShare { items: 2, unhashed: 1, ..facts.share.clone() });
    let mut rows = vec![
        (
            "delivered: an output of its job is stored under this item, in the charge's project and node or moved by a person; deleted later or not",
            decided(
                &with(|facts| facts.record.delivery = Delivery::Delivered { output_id: "o1".to_owned() }),
                &running,
                1,
            ),
        ),
        (
            "makegood recovered or relinked the output before, and the platform has removed its row since",
            decided(&with(|facts| facts.record.was_recovered = true), &offer, 1),
        ),
        (
            "the platform refunded this item itself",
            decided(&with(|facts| facts.record.refunded_elsewhere.item = true), &running, 1),
        ),
        (
            "the platform refunded a part of this item itself",
            decided(&with(|facts| facts.record.refunded_elsewhere.part = true), &running, 1),
        ),
        (
            "the platform refunded the whole charge, naming no item",
            decided(&with(|facts| facts.record.refunded_elsewhere.whole_charge = true), &running, 1),
        ),
        (
            "the platform refunded so much of the charge that this refund would exceed the draw",
            exceeds_draw(),
        ),
        (
            "its output is stored in the wrong place or linked to another item, and that item has no claim to it",
            decided(&misplaced(false), &running, 1),
        ),
        ("the same, but the platform's `stored_outputs` rejects the relink", cannot_relink()),
        (
            "its output is stored and linked to another item that has a claim to it too",
            decided(&misplaced(true), &running, 1),
        ),
        (
            "another item claims the same output of the same job, or a charge of another account names the job",
            decided(&with(|facts| facts.record.rival = true), &offer, 1),
        ),
        (
            "no provider job on record, and the platform recorded a failure",
            decided(&no_job(true), &running, 0),
        ),
        ("no provider job on record, younger than `unknown_job_grace`", decided(&no_job(false), &running, 0)),
        ("no provider job on record, older", decided(&no_job(false), &running, 1)),
        ("the job has ended and the answer offers its file", decided(&facts(), &offer, 1)),
        (
            "the answer offers its file while the job runs, before `refund_by`",
            decided(&facts(), &offering(Verdict::Running, vec![file(Some(0))]), 1),
        ),
        (
            "the answer offers its file while the job runs, after `refund_by`",
            decided(&facts(), &offering(Verdict::Running, vec![file(Some(0))]), 23),
        ),
        (
            "the answer offers files without an index, fewer than the items of the job, and a file of the job is stored without a SHA-256",
            decided(&unhashed, &offering(Verdict::Succeeded, vec![file(None)]), 1),
        ),
    ];
    for (what, class) in [
        ("failed: the model's server", FailureClass::ServerError),
        ("failed: too long in the provider's queue", FailureClass::QueueTimeout),
        ("failed: content safety", FailureClass::ContentSafety),
        ("failed: a malformed answer", FailureClass::MalformedResponse),
        ("failed: no reason given", FailureClass::ProviderError),
    ] {
        rows.push((what, decided(&facts(), &failed(class), 1)));
    }
    rows.extend([
        ("succeeded, its files are gone, and the user had cancelled", decided(&cancelled, &gone, 1)),
        ("succeeded, its files are gone", decided(&facts(), &gone, 1)),
        (
            "succeeded, and the answer does not offer this item",
            decided(&facts(), &evidence(Verdict::Succeeded), 1),
        ),
        ("cancelled at the provider", decided(&facts(), &evidence(Verdict::Cancelled), 1)),
        ("the platform recorded a failure, and no row above matches", decided(&reported, &running, 0)),
        ("no such job, younger than `unknown_job_grace`", decided(&facts(), &unknown, 0)),
        ("no such job, older", decided(&facts(), &unknown, 1)),
        ("queued or running, before `refund_by`", decided(&facts(), &running, 21)),
        ("queued or running, after `refund_by`, asked enough", decided(&asked_enough(), &running, 23)),
        ("queued or running, after `refund_by`, not asked enough", decided(&facts(), &running, 23)),
    ]);
    for (what, doubt) in [
        ("could not tell: no answer, or HTTP 5xx", Doubt::Unreachable),
        ("could not tell: the rate limit rejected the question", Doubt::RateLimited),
        ("could not tell: the provider rejected our API key", Doubt::Unauthorized),
        ("could not tell: the filter cannot read the answer", Doubt::Unreadable),
        ("could not tell: there is no provider file", Doubt::UnknownProvider),
    ] {
        rows.push((what, decided(&facts(), &evidence(Verdict::CouldNotTell(doubt)), 21)));
    }
    let doubt = evidence(Verdict::CouldNotTell(Doubt::Unreachable));
    rows.extend([
        ("could not tell, after `refund_by`, asked enough", decided(&asked_enough(), &doubt, 23)),
        ("could not tell, after `refund_by`, not asked enough", decided(&facts(), &doubt, 23)),
        (
            "recovery: the file of a completed job is gone, and the user had cancelled",
            copy_failed(&cancelled, true, 1),
        ),
        (
            "recovery: the file is gone (HTTP 410, or 404 with a fresh URL too)",
            copy_failed(&facts(), true, 1),
        ),
        ("recovery: the copy failed otherwise, before `refund_by`", copy_failed(&asked_enough(), false, 21)),
        (
            "recovery: the copy failed otherwise, after `refund_by`, asked enough",
            copy_failed(&asked_enough(), false, 23),
        ),
        ("a refund, but the brake holds it", braked()),
        ("a refund, but a trial found that the platform's relations accept no refund", cannot_post()),
        ("a refund, but the charge's account or draw has changed since the first refund or recovery for it", charge_changed()),
        ("a refund was posted and the balance or the ledger did not change by it: all of it was rolled back", not_posted()),
        (
            "a refund, but a balance row is missing or there are several",
            decided(
                &with(|facts| facts.record.balance_rows.wallet = 2),
                &failed(FailureClass::ServerError),
                1,
            ),
        ),
        (
            "a refund, but the ledger's debits for the charge differ from its draw",
            decided(&with(|facts| facts.record.debits = Some(-9)), &failed(FailureClass::ServerError), 1),
        ),
        (
            "the charge has no items, or they do not sum up to its draw",
            decided(&with(|facts| facts.record.items.credits = 9), &failed(FailureClass::ServerError), 1),
        ),
        (
            "the charge had no items; they were added since, and each has a case of its own",
            decided(
                &with(|facts| {
                    facts.orphan.item.output_index = WHOLE_CHARGE;
                    facts.record.item = None;
                }),
                &failed(FailureClass::ServerError),
                1,
            ),
        ),
    ]);
    rows
}

fn page() -> String {
    let mut page = PAGE_HEAD.to_owned();
    page.push_str("\n| # | what is known | decision | reason |\n|---|---|---|---|\n");
    for (what, decision) in rows() {
        let spelled = spelled(&decision);
        let (action, reason) = spelled.split_once(' ').unwrap();
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| {} | {what} | {action} | `{reason}` |", decision.rule);
    }
    page
}

#[test]
fn policy_md_matches_decide() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy.md");
    if std::env::var_os("MAKEGOOD_WRITE_POLICY").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        written,
        page(),
        "src/policy.md differs from decide. If the change is intended: MAKEGOOD_WRITE_POLICY=1 cargo test policy::table"
    );
}

#[test]
fn every_rule_and_every_reason_is_in_the_table() {
    let rows = rows();
    for number in 1..=16 {
        assert!(rows.iter().any(|(_, decision)| decision.rule == number), "rule {number} is in no row");
    }
    // `by_hand` is a person's decision against the table.
    for reason in super::Reason::ALL.iter().filter(|reason| **reason != super::Reason::ByHand) {
        assert!(rows.iter().any(|(_, decision)| decision.reason == *reason), "{reason} is in no row");
    }
}
