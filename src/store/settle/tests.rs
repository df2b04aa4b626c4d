//! What settle tells apart without a database: whose fault a refund is, whose a lease is, and what a failure says.

use std::error::Error as _;

use super::writes::earliest_expiry;
use super::*;
use crate::evidence::{Doubt, FailureClass, Offer, Source, Verdict};
use crate::policy::Reason;
use crate::policy::samples::{HOUR, charged_at, evidence, facts, file, offering};

fn settlement(reason: Reason, verdict: Option<Verdict>) -> Settlement {
    Settlement {
        case: Case { facts: facts(), token: 1 },
        decision: Decision { action: Action::Refund, reason, rule: 12 },
        evidence: verdict.map(|verdict| Arc::new(evidence(verdict))),
        copied: None,
        look_again: charged_at(),
        detail: None,
    }
}

#[test]
fn a_refund_is_for_a_fault_of_ours_only_where_nothing_else_speaks_for_it() {
    let refused = Some(Verdict::CouldNotTell(Doubt::Unauthorized));
    assert!(settlement(Reason::Unconfirmed, refused).is_own_fault());
    assert!(
        !settlement(Reason::ReportedFailed, refused).is_own_fault(),
        "the platform's record speaks for it"
    );
    let away = Some(Verdict::CouldNotTell(Doubt::Unreachable));
    assert!(!settlement(Reason::Unconfirmed, away).is_own_fault());
    assert!(settlement(Reason::Unconfirmed, None).is_own_fault());
}

#[test]
fn a_lease_is_alive_until_it_is_ended_or_its_orphan_resolved() {
    let alive = |leased, resolved| Lease { token: 1, leased, resolved }.alive();
    assert!(alive(true, false));
    assert!(!alive(false, false));
    assert!(!alive(true, true));
    assert!(!alive(false, true));
}

#[test]
fn a_failure_names_what_it_is_about_and_keeps_its_cause() {
    let (account_id, output_id) = ("ada".to_owned(), "o1".to_owned());
    let failures = [
        (
            Failure::Balance { account_id: account_id.clone(), bucket: Bucket::Wallet, rows: 2 },
            "2 balance rows instead of one for account `ada`, bucket wallet",
        ),
        (
            Failure::TooMuch { account_id, bucket: Bucket::Subscription },
            "account `ada`, bucket subscription, is to get more credits than a number can hold",
        ),
        (
            Failure::Relink { output_id: output_id.clone() },
            "the platform's stored_outputs does not let output `o1` be put back: the UPDATE left it where it was",
        ),
        (
            Failure::NotKept { output_id },
            "the platform's stored_outputs took output `o1`, and does not show it where its item expects it",
        ),
    ];
    for (failure, text) in failures {
        assert_eq!(failure.to_string(), text);
        assert!(failure.source().is_none());
        assert!(matches!(failure.trouble(), Trouble::Other), "{text}: trying again helps nobody");
    }
    let lost = sqlx::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let failure = Failure::Db(DbError::Transaction { what: "commit", source: lost });
    assert_eq!(failure.to_string(), "could not commit a transaction");
    assert!(failure.source().is_some_and(|cause| cause.to_string().contains("reset")));
    assert!(failure.trouble().leaves_doubt());
}

#[test]
fn p15_an_orphan_is_as_urgent_as_the_first_of_its_files_that_goes() {
    let goes = |offer: Offer, hours: u32| Offer { expires_at: Some(charged_at() + hours * HOUR), ..offer };
    let no_file = Source::Failed { class: FailureClass::ContentSafety, message: None };
    let failed = Offer { index: None, source: no_file, expires_at: None };
    let earliest = |outputs| earliest_expiry(&offering(Verdict::Succeeded, outputs));
    assert_eq!(
        earliest(vec![
            goes(file(Some(0)), 5),
            goes(file(Some(1)), 3),
            file(Some(2)),
            goes(failed.clone(), 1)
        ]),
        Some(charged_at() + 3 * HOUR)
    );
    assert_eq!(earliest(vec![file(Some(0)), goes(failed, 1)]), None);
}

#[test]
fn a_failure_of_the_whole_database_is_no_rows() {
    let lost = sqlx::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let of_all = [DbError::InDoubt, DbError::Transaction { what: "commit", source: lost }];
    for error in of_all {
        assert!(Failure::Db(error).refused().is_err(), "no other settlement would fare better");
    }
    let source = sqlx::Error::Protocol("abc".to_owned());
    let (statement, column, about) = ("cases", "credits", String::new());
    let of_a_row = Failure::Db(DbError::Column { statement, column, about, source });
    assert!(matches!(of_a_row.refused(), Ok(Outcome::Refused(_))));
    assert!(matches!(Failure::Brake.refused(), Ok(Outcome::Refused(_))));
}

#[test]
fn p03_credits_go_to_exactly_one_balance_row() {
    let key = ("ada".to_owned(), Bucket::Wallet);
    let hit = |rows: Option<usize>| {
        let hit = rows.map(|rows| (("ada".to_owned(), "wallet".to_owned()), rows)).into_iter().collect();
        posting::each_hit_once([&key].into_iter(), &hit)
    };
    assert!(hit(Some(1)).is_ok());
    for (rows, told) in [(None, 0), (Some(0), 0), (Some(2), 2)] {
        let failure = hit(rows).unwrap_err();
        assert!(matches!(failure, Failure::Balance { rows, .. } if rows == told), "{failure}");
    }
}
