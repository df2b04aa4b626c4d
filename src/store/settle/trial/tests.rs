//! What the tries of a trial come to, without a database.

use super::*;

fn candidate_of(account: &str, charge: &str) -> Candidate {
    let mut candidate = nobody();
    candidate.item.charge_id = charge.to_owned();
    candidate.charge.id = charge.to_owned();
    candidate.charge.account_id = account.to_owned();
    candidate.charge.drawn = Split { subscription: 3, wallet: 7 };
    candidate.credits = 10;
    candidate
}

fn fails(why: &str, refused: bool) -> Tried {
    Tried::Fails { why: why.to_owned(), of_rights: false, refused }
}

fn ended(tries: Vec<Tried>) -> Trial {
    let mut told = Told::new("none");
    for tried in tries {
        assert_eq!(told.add(&candidate_of("ada", "c1"), tried), None);
    }
    told.end()
}

#[test]
fn a_trial_fails_with_the_surest_of_its_failures() {
    let failed =
        |tried, why: &str, refused| Trial::Fails { tried, why: why.to_owned(), of_rights: false, refused };
    assert_eq!(ended(vec![fails("a", false)]), failed(1, "a", false));
    assert_eq!(ended(vec![fails("a", true), fails("b", false)]), failed(2, "b", true));
    assert_eq!(ended(vec![fails("a", false), fails("b", true)]), failed(2, "a", true));
    assert_eq!(ended(vec![fails("a", true), fails("b", true)]), failed(2, "a", true));
    assert_eq!(ended(vec![]), Trial::CouldNotTry { why: "none".to_owned() });
    let locked = Tried::CouldNot { why: "locked".to_owned() };
    assert_eq!(ended(vec![locked]), Trial::CouldNotTry { why: "locked".to_owned() });
}

#[test]
fn one_try_that_works_decides_for_all() {
    let mut told = Told::new("none");
    assert_eq!(told.add(&candidate_of("ada", "c1"), fails("a", false)), None);
    let works = told.add(&candidate_of("eve", "c2"), Tried::Works);
    let (charge_id, failed_before) = ("c2".to_owned(), Some("a".to_owned()));
    assert_eq!(works, Some(Trial::Works { charge_id, failed_before }));
}

#[test]
fn an_error_of_a_row_is_refused_and_one_of_the_moment_could_not_be_tried() {
    let source = sqlx::Error::ColumnNotFound("credits".to_owned());
    let (statement, column, about) = ("try_refund", "credits", String::new());
    let of_a_row = DbError::Column { statement, column, about, source };
    assert!(matches!(Tried::from(of_a_row), Tried::Fails { refused: true, of_rights: false, .. }));
    let lost = sqlx::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let lost = DbError::Transaction { what: "commit", source: lost };
    assert!(matches!(Tried::from(lost), Tried::CouldNot { .. }));
}

#[test]
fn a_trial_takes_one_charge_an_account_and_three_accounts() {
    let of = [("ada", "a1"), ("ada", "a2"), ("bob", "b1"), ("eve", "e1"), ("zoe", "z1")];
    let candidates = of.map(|(account, charge)| candidate_of(account, charge));
    let taken: Vec<&str> = one_an_account(&candidates).map(|each| each.charge.id.as_str()).collect();
    assert_eq!(taken, ["a1", "b1", "e1"]);
}

#[test]
fn a_trial_on_postgres_is_compared_as_a_refund_is() {
    let candidate = candidate_of("ada", "c1");
    let mut posting = Posting::default();
    posting.add(&candidate.item, &candidate.charge, "trial", split(&candidate).unwrap());
    let row = |bucket: &str, credits: i64| json!({"account_id": "ada", "bucket": bucket, "credits": credits});
    let entry = |bucket: &str, credits: i64| {
        json!({
            "id": format!("makegood:c1/0:{bucket}"), "account_id": "ada", "bucket": bucket, "credits": credits,
            "charge_id": "c1", "output_index": 0,
        })
    };
    let seen = json!({
        "hit": [row("subscription", 3), row("wallet", 7)],
        "before": [row("subscription", 5), row("wallet", 5)],
        "after": [row("subscription", 8), row("wallet", 12)],
        "entries": [entry("subscription", 3), entry("wallet", 7)],
    });
    assert!(posting.compare_tried(&seen).is_ok());
    for (key, other) in [
        ("hit", json!([row("wallet", 7)])),
        ("hit", json!([row("subscription", 3), row("wallet", 7), row("wallet", 7)])),
        ("after", json!([row("subscription", 8), row("wallet", 5)])),
        ("entries", json!([entry("subscription", 3)])),
        ("entries", json!([entry("subscription", 3), entry("wallet", 8)])),
    ] {
        let mut seen = seen.clone();
        seen[key] = other;
        assert!(posting.compare_tried(&seen).is_err(), "{key}: {seen}");
    }
}
