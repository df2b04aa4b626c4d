//! Prints the decision table from `decide` and compares it with `policy.md`, which is the module's documentation.
//!
//! To write the page anew after a change that was meant: `MAKEGOOD_WRITE_POLICY=1 cargo test policy::table`.

use std::fmt::Write as _;

use super::samples::{asked_enough, copy_failed, decided, evidence, facts, failed, file, offering, spelled};
use super::{
    Decision, LIMITS_DOC, braked, cannot_post, cannot_relink, charge_changed, not_posted, without_room,
};
use crate::charge::{ItemId, WHOLE_CHARGE};
use crate::evidence::{Doubt, FailureClass, Verdict};
use crate::facts::{Delivery, Facts, Share};

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

/// What is known, and what `decide` makes of it. Ages are hours since the charge; 23 is past `refund_by`.
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
    let unhashed = with(|facts| facts.share = Share { items: 2, unhashed: 1, ..facts.share.clone() });
    let mut rows = vec![
        (
            "delivered: stored under this item, of its job, in its place or moved by a person; deleted later or not",
            decided(
                &with(|facts| facts.record.delivery = Delivery::Delivered { output_id: "o1".to_owned() }),
                &running,
                1,
            ),
        ),
        (
            "recovered or put back before, and the platform has removed the row since",
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
            "the platform refunded so much of the charge that there is no room left for this item",
            without_room(),
        ),
        (
            "its output is stored, but misplaced or linked elsewhere, and the holder has no claim to it",
            decided(&misplaced(false), &running, 1),
        ),
        ("the same, but the platform's `stored_outputs` does not let it be put back", cannot_relink()),
        (
            "its output is stored and linked to an item that has a claim to it too",
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
        ("the answer offers its file, the job has ended", decided(&facts(), &offer, 1)),
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
        ("failed: waited too long in the queue", FailureClass::QueueTimeout),
        ("failed: content safety", FailureClass::ContentSafety),
        ("failed: a malformed answer", FailureClass::MalformedResponse),
        ("failed: no reason given", FailureClass::ProviderError),
    ] {
        rows.push((what, decided(&facts(), &failed(class), 1)));
    }
    rows.extend([
        ("succeeded, its files are gone, the user had cancelled", decided(&cancelled, &gone, 1)),
        ("succeeded, its files are gone", decided(&facts(), &gone, 1)),
        ("succeeded, does not offer this item", decided(&facts(), &evidence(Verdict::Succeeded), 1)),
        ("cancelled at the provider", decided(&facts(), &evidence(Verdict::Cancelled), 1)),
        ("the platform recorded a failure, and none of the above", decided(&reported, &running, 0)),
        ("no such job, younger than `unknown_job_grace`", decided(&facts(), &unknown, 0)),
        ("no such job, older", decided(&facts(), &unknown, 1)),
        ("queued or running, before `refund_by`", decided(&facts(), &running, 21)),
        ("queued or running, after `refund_by`, asked enough", decided(&asked_enough(), &running, 23)),
        ("queued or running, after `refund_by`, not asked enough", decided(&facts(), &running, 23)),
    ]);
    for (what, doubt) in [
        ("could not tell: no answer, or a 5xx", Doubt::Unreachable),
        ("could not tell: asked too often", Doubt::RateLimited),
        ("could not tell: our key was refused", Doubt::Unauthorized),
        ("could not tell: no rule reads the answer", Doubt::Unreadable),
        ("could not tell: no file for this provider", Doubt::UnknownProvider),
    ] {
        rows.push((what, decided(&facts(), &evidence(Verdict::CouldNotTell(doubt)), 21)));
    }
    let doubt = evidence(Verdict::CouldNotTell(Doubt::Unreachable));
    rows.extend([
        ("could not tell, after `refund_by`, asked enough", decided(&asked_enough(), &doubt, 23)),
        ("could not tell, after `refund_by`, not asked enough", decided(&facts(), &doubt, 23)),
        (
            "recovery: the file of a completed job is gone, the user had cancelled",
            copy_failed(&cancelled, true, 1),
        ),
        (
            "recovery: the file is gone (410, or 404 after asking again for a fresh link)",
            copy_failed(&facts(), true, 1),
        ),
        ("recovery: anything else went wrong, before `refund_by`", copy_failed(&asked_enough(), false, 21)),
        (
            "recovery: anything else went wrong, after `refund_by`, asked enough",
            copy_failed(&asked_enough(), false, 23),
        ),
        ("a refund, but the brake is on", braked()),
        ("a refund, but a trial on the platform's relations has found that none can be posted", cannot_post()),
        ("a refund of a charge whose account or draw has changed since something was first made good for it", charge_changed()),
        ("a refund that was posted, and the balance or the ledger does not show it: nothing of it is kept", not_posted()),
        (
            "a refund, but a balance row is missing or there are several",
            decided(
                &with(|facts| facts.record.balance_rows.wallet = 2),
                &failed(FailureClass::ServerError),
                1,
            ),
        ),
        (
            "a refund, but the ledger's debits that name the charge do not add up to its draw",
            decided(&with(|facts| facts.record.debits = Some(-9)), &failed(FailureClass::ServerError), 1),
        ),
        (
            "the charge has no items, or they do not add up to what was drawn",
            decided(&with(|facts| facts.record.items.credits = 9), &failed(FailureClass::ServerError), 1),
        ),
        (
            "the charge had no items, its items have come since, and each has a case of its own",
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
    let mut page = LIMITS_DOC.to_owned();
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
fn the_page_is_what_decide_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy.md");
    if std::env::var_os("MAKEGOOD_WRITE_POLICY").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        written,
        page(),
        "src/policy.md is not what decide does; if the change is meant: MAKEGOOD_WRITE_POLICY=1 cargo test policy::table"
    );
}

#[test]
fn every_rule_and_every_reason_is_in_the_table() {
    let rows = rows();
    for number in 1..=16 {
        assert!(rows.iter().any(|(_, decision)| decision.rule == number), "rule {number} is in no row");
    }
    // `by_hand` is a person's word against it.
    for reason in super::Reason::ALL.iter().filter(|reason| **reason != super::Reason::ByHand) {
        assert!(rows.iter().any(|(_, decision)| decision.reason == *reason), "{reason} is in no row");
    }
}
