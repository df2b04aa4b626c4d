//! What counts as posted, without a database.

use serde_json::json;

use super::*;

const ADA: &str = "ada";

fn holds(credits: Option<i64>) -> Balances {
    credits.map(|credits| ((ADA.to_owned(), "wallet".to_owned()), credits)).into_iter().collect()
}

fn moved(owed: i128, before: Option<i64>, after: Option<i64>) -> Result<(), String> {
    let owed = BTreeMap::from([((ADA.to_owned(), Bucket::Wallet), owed)]);
    balances_moved(&owed, &holds(before), &holds(after)).map_err(|failure| failure.to_string())
}

#[test]
fn p03_a_balance_has_moved_by_exactly_what_was_owed_whatever_it_held() {
    for before in [-100, 0, 7, i64::MAX - 10] {
        assert_eq!(moved(10, Some(before), Some(before + 10)), Ok(()));
        assert_eq!(moved(-10, Some(before), Some(before - 10)), Ok(()), "a reversal");
        for after in [before, before + 9, before - 10] {
            let failure = moved(10, Some(before), Some(after)).unwrap_err();
            let by = format!(
                "10 credits are owed to account `ada`, bucket wallet, and its balance moved by {}",
                after - before
            );
            assert!(failure.ends_with(&by), "{failure}");
        }
    }
    // From one end of the range to the other: no number is cut off.
    assert_eq!(moved(i128::from(u64::MAX), Some(i64::MIN), Some(i64::MAX)), Ok(()));
    for (before, after) in [(None, Some(10)), (Some(0), None), (None, None)] {
        assert!(moved(10, before, after).is_err(), "{before:?} {after:?}: a missing or doubled balance");
    }
}

#[test]
fn p03_the_ledger_shows_each_entry_once_and_as_it_was_inserted() {
    let entry = json!({
        "account_id": ADA, "bucket": "wallet", "credits": 10, "charge_id": "c1", "output_index": 0,
    });
    let mut inserted = entry.clone();
    inserted["id"] = json!("e1");
    let shown = |rows: Vec<Json>| entries_show(&[inserted.clone()], &Shown::from([("e1".to_owned(), rows)]));
    assert!(shown(vec![entry.clone()]).is_ok());
    assert!(shown(vec![entry.clone(), entry.clone()]).is_err(), "twice");
    assert!(entries_show(&[inserted.clone()], &Shown::new()).is_err(), "not at all");
    for (key, value) in [
        ("account_id", json!("eve")),
        ("bucket", json!("subscription")),
        ("credits", json!(1_000)),
        ("charge_id", json!("c2")),
        ("output_index", json!(null)),
    ] {
        let mut other = entry.clone();
        other[key] = value;
        assert!(shown(vec![other]).is_err(), "another {key}");
    }
}
