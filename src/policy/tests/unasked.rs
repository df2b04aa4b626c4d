//! What is decided about a job whose questions have ended every pass (rules 10 and 13).

use super::super::samples::{HOUR, OPTIONS, asked_enough, charged_at, spelled};
use super::super::without_asking;
use crate::charge::Item;
use crate::facts::Facts;

/// Asked three times, each time by a pass that died.
fn asked_in_vain() -> Facts {
    let mut facts = asked_enough();
    facts.orphan.questions = 3;
    facts
}

fn told(facts: &Facts, hours: u32) -> Option<String> {
    without_asking(facts, &OPTIONS, charged_at() + hours * HOUR).map(|decision| spelled(&decision))
}

#[test]
fn p15_a_job_that_ends_every_pass_is_refunded_at_its_time_after_three_questions() {
    assert_eq!(told(&asked_in_vain(), 22).as_deref(), Some("refund unconfirmed"));
    let mut reported = asked_in_vain();
    reported.record.item = reported.record.item.map(|item| Item { failed_at: Some(charged_at()), ..item });
    assert_eq!(told(&reported, 22).as_deref(), Some("refund reported_failed"));

    assert_eq!(told(&asked_in_vain(), 21), None, "before its time it is asked again");
    assert_eq!(told(&asked_enough(), 22), None, "after two questions it is asked a third time");
    let mut asked_late = asked_in_vain();
    asked_late.orphan.first_asked_at = Some(charged_at() + 22 * HOUR);
    assert_eq!(told(&asked_late, 22), None, "its questions were too close together");
    let mut without_job = asked_in_vain();
    without_job.record.item = without_job.record.item.map(|item| Item { job: None, ..item });
    assert_eq!(told(&without_job, 22), None, "there is nothing to ask");
}
