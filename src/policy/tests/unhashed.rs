//! Files without an index, one of which may be stored already under a row without a hash (rule 5).

use super::super::samples::{decided, evidence, facts, file, offering, spelled};
use crate::charge::Item;
use crate::evidence::{Doubt, Verdict};
use crate::facts::Facts;

/// An item of two, where one stored file has no hash.
fn unhashed() -> Facts {
    let mut facts = facts();
    facts.share.items = 2;
    facts.share.unhashed = 1;
    facts
}

fn reported_failed(mut facts: Facts) -> Facts {
    let at = facts.record.charge.charged_at;
    facts.record.item = facts.record.item.map(|item| Item { failed_at: Some(at), ..item });
    facts
}

#[test]
fn p06_what_may_be_stored_is_held_as_soon_as_another_rule_would_refund_it() {
    let told = |facts: &Facts, verdict| spelled(&decided(facts, &offering(verdict, vec![file(None)]), 2));
    let no_answer = Verdict::CouldNotTell(Doubt::Unreachable);
    // Nothing would refund it yet.
    assert_eq!(told(&unhashed(), no_answer), "wait unreachable");
    for (facts, verdict) in [
        (unhashed(), Verdict::UnknownJob),
        (reported_failed(unhashed()), no_answer),
        (unhashed(), Verdict::Succeeded),
    ] {
        assert_eq!(told(&facts, verdict), "hold missing_hash", "{verdict:?}");
    }
    // Without a file in the answer there is nothing that could be stored already.
    assert_eq!(spelled(&decided(&unhashed(), &evidence(Verdict::UnknownJob), 2)), "refund never_returned");
}
