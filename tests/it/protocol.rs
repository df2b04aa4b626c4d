//! Claim, carry out, settle: a small model of the protocol, checked over every interleaving.
//!
//! Two workers, two items of one charge, and a platform that stores outputs and refunds by itself
//! at any moment. At every step each worker may die, be suspended past its lease, or lose the
//! answer to its commit, and a pass may sweep its files. The provider may answer anything, and
//! contradict itself. `docs/exactly-once.md` says which statement of the program is which step
//! here, why the program matches this model, and what is not in it.
//!
//! The search visits every reachable state (up to symmetry of workers and items). Each guard of the
//! protocol can be switched off. The search then finds the fault that the guard prevents, which
//! shows that it can.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod brake;
mod model;
mod search;

use model::Fault;
use search::search;

/// The guards of the protocol; each can be switched off.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Copy, Debug)]
struct Guards {
    /// Rows that are read after a claim count only if they have the token of that claim.
    claimed: bool,
    /// Settle proves that its token is the newest and its lease not over.
    token: bool,
    /// Settle reads the facts again and gives back what changed.
    facts: bool,
    /// From its check to its commit settle holds locks on charge and orphans.
    locks: bool,
    /// Resolutions have a unique key; a violation rolls the transaction back.
    keys: bool,
    /// A worker that lost the answer to a commit checks, under the locks of the next try, whether
    /// it happened.
    doubt: bool,
    /// A lease that ran out is ended before its file is swept.
    ended: bool,
}

const ALL: Guards =
    Guards { claimed: true, token: true, facts: true, locks: true, keys: true, doubt: true, ended: true };

const ANY: [Fault; 8] = [
    Fault::MadeGoodTwice,
    Fault::Unexplained,
    Fault::TwoHolders,
    Fault::MadeGoodWhatWasSeen,
    Fault::ToldWrong,
    Fault::ThrownAway,
    Fault::NamesNothing,
    Fault::KeyWasNeeded,
];

#[test]
fn p02_p16_every_item_is_made_good_once_in_every_interleaving_and_none_is_ever_stuck() {
    let searched = search(ALL, &ANY);
    assert!(searched.fault.is_none(), "{:?}", searched.fault);
    assert_eq!(searched.stuck, 0);
    // The figures of the model in the page. If the model changes, check the new figures and write
    // them there.
    assert_eq!((searched.states, searched.steps), (916_882, 7_337_861));
    let page = include_str!("../../docs/exactly-once.md");
    assert!(page.contains("(916,882 of them, 7,337,861 steps)"), "docs/exactly-once.md tells other figures");
}

/// The third guard, the unique keys, needs no search of its own: in the search above none ever
/// rejected anything.
#[test]
fn p02_neither_token_nor_locks_stand_alone_between_an_item_and_a_second_refund() {
    for guards in [Guards { token: false, ..ALL }, Guards { locks: false, ..ALL }] {
        let searched = search(guards, &[Fault::MadeGoodTwice, Fault::Unexplained]);
        assert!(searched.fault.is_none(), "{guards:?}: {:?}", searched.fault);
    }
}

#[test]
fn the_model_finds_the_fault_that_each_guard_is_there_for() {
    let mut found = Vec::new();
    for (guards, fault) in [
        (Guards { claimed: false, ..ALL }, Fault::TwoHolders),
        (Guards { claimed: false, ..ALL }, Fault::ThrownAway),
        (Guards { token: false, keys: false, ..ALL }, Fault::MadeGoodTwice),
        (Guards { token: false, keys: false, ..ALL }, Fault::Unexplained),
        (Guards { token: false, ..ALL }, Fault::KeyWasNeeded),
        (Guards { token: false, ..ALL }, Fault::NamesNothing),
        (Guards { locks: false, keys: false, ..ALL }, Fault::MadeGoodTwice),
        (Guards { locks: false, ..ALL }, Fault::KeyWasNeeded),
        (Guards { facts: false, ..ALL }, Fault::MadeGoodWhatWasSeen),
        (Guards { doubt: false, ..ALL }, Fault::ToldWrong),
        (Guards { doubt: false, ..ALL }, Fault::ThrownAway),
        (Guards { ended: false, ..ALL }, Fault::NamesNothing),
    ] {
        let story = search(guards, &[fault]).fault.unwrap_or_else(|| panic!("{guards:?} does no harm"));
        println!("{guards:?}\n{story:?}");
        found.push(story.what);
    }
    for fault in ANY {
        assert!(found.contains(&fault), "nothing shows that {fault:?} could be found");
    }
}
