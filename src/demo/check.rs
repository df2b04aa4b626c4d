//! Compares the result of the demo with the expected endings.
//!
//! The endings of the stories are written by hand. Besides these, sums of the same credits must be
//! equal in all relations, and recovered files must be on disk as recorded. Each mismatch is
//! reported as a sentence.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};
use url::Url;

use super::platform::{BalanceRow, CreditTotals, ItemStatus, Platform, RecoveredOutput};
use super::story::{DemoStory, Ending};
use super::world::{ExampleAccount, ExampleCharge};
use crate::charge::{ItemId, Split};
use crate::policy::Reason;
use crate::report::PassReport;
use crate::store::DbError;

/// Every orphan is made good within this time after the charge (P15).
const WINDOW: Duration = Duration::from_hours(24);
/// A failure that the platform recorded is refunded within this time (P19).
const ON_RECORD: Duration = Duration::from_mins(2);

/// The state of the database after the day.
#[derive(Debug)]
pub struct EndState {
    pub standings: BTreeMap<ItemId, ItemStatus>,
    pub balances: Vec<BalanceRow>,
    pub totals: CreditTotals,
    rules_used: Vec<i64>,
    incomplete_activity: Vec<ItemId>,
}

impl EndState {
    /// Reads the state.
    pub async fn read(platform: &Platform) -> Result<Self, DbError> {
        let standings = platform.standings().await?;
        Ok(Self {
            standings: standings.into_iter().map(|each| (each.item.clone(), each)).collect(),
            balances: platform.balances().await?,
            totals: platform.totals().await?,
            rules_used: platform.rules_used().await?,
            incomplete_activity: platform.incomplete_activity().await?,
        })
    }
}

/// How an item ended. `None`: in a way that is not an [`Ending`].
pub fn ending(standing: &ItemStatus) -> Option<Ending> {
    let Some((state, reason)) = &standing.orphan else { return Some(Ending::LeftAlone) };
    let reason = Reason::ALL.iter().copied().find(|known| known.as_str() == reason)?;
    Some(match (state.as_str(), standing.refund) {
        ("refunded", Some(split)) => Ending::Refunded(reason, split),
        ("recovered", None) if reason == Reason::OutputAvailable => Ending::Recovered,
        ("relinked", None) if reason == Reason::Misattributed => Ending::PutBack,
        ("closed", None) => Ending::Closed(reason),
        ("held", None) => Ending::Held(reason),
        ("open", None) => Ending::Waiting(reason),
        (_, Some(_) | None) => return None,
    })
}

/// All deviations from the expected result.
pub fn mismatches(
    stories: &[DemoStory],
    ordinary: &[ExampleCharge],
    accounts: &[ExampleAccount],
    findings: &EndState,
    reports: &[PassReport],
) -> Vec<String> {
    let mut wrong = Vec::new();
    endings(&mut wrong, stories, ordinary, findings);
    for standing in findings.standings.values() {
        one_item(&mut wrong, standing);
    }
    sums(&mut wrong, findings, reports);
    usage(&mut wrong, stories, findings);
    balances(&mut wrong, accounts, findings);
    if findings.rules_used != (1..=16).collect::<Vec<_>>() {
        wrong.push(format!("not all 16 rules were needed: only {:?}", findings.rules_used));
    }
    for item in &findings.incomplete_activity {
        wrong
            .push(format!("P21 {item}: its billing activity does not show all three steps with their times"));
    }
    wrong
}

fn endings(wrong: &mut Vec<String>, stories: &[DemoStory], ordinary: &[ExampleCharge], findings: &EndState) {
    let mut expected: BTreeMap<ItemId, (&str, Ending)> = BTreeMap::new();
    let of_stories =
        stories.iter().flat_map(|story| story.charges.iter().map(|charge| (story.promise, charge)));
    for (promise, charge) in of_stories.chain(ordinary.iter().map(|charge| ("ordinary", charge))) {
        for nth in 0..charge.items.len() {
            expected.insert(item_id(&charge.id, nth), (promise, Ending::LeftAlone));
        }
    }
    for story in stories {
        for (charge, index, ending) in &story.endings {
            let item = ItemId { charge_id: (*charge).to_owned(), output_index: *index };
            expected.insert(item, (story.promise, *ending));
        }
    }
    for (item, (promise, expected)) in &expected {
        match findings.standings.get(item).map(|standing| (ending(standing), standing)) {
            Some((Some(ended), _)) if ended == *expected => {}
            Some((Some(ended), _)) => {
                wrong.push(format!("{promise} {item}: should have ended {expected}, and ended {ended}"));
            }
            Some((None, standing)) => wrong.push(format!(
                "{promise} {item}: should have ended {expected}, and its state is {:?}",
                standing.orphan
            )),
            None => wrong.push(format!("{promise} {item}: should have ended {expected}, and does not exist")),
        }
    }
    for item in findings.standings.keys().filter(|item| !expected.contains_key(item)) {
        wrong.push(format!("{item}: no story expects it"));
    }
}

/// The id of one item of a charge.
pub fn item_id(charge: &str, nth: usize) -> ItemId {
    ItemId { charge_id: charge.to_owned(), output_index: i64::try_from(nth).unwrap_or(i64::MAX) }
}

fn one_item(wrong: &mut Vec<String>, standing: &ItemStatus) {
    let item = &standing.item;
    let made_good = standing.refund.is_some() || standing.recovery.is_some();
    if let Some(at) = standing.resolved_at {
        if at.since(standing.charged_at) > WINDOW {
            wrong.push(format!("P15 {item}: resolved later than 24 hours after the charge"));
        }
        if standing.failed_at.is_some_and(|failed_at| at.since(failed_at) > ON_RECORD) {
            wrong.push(format!("P19 {item}: refunded later than two minutes after its failure was recorded"));
        }
    }
    if let Some(split) = standing.refund {
        if standing.billable || standing.status != "refunded" {
            wrong.push(format!("P04 {item}: it is refunded, and still counts as billable usage"));
        }
        if split.total() != i128::from(standing.credits) {
            wrong.push(format!(
                "P03 {item}: it cost {}, and {} were refunded",
                standing.credits,
                split.total()
            ));
        }
    }
    if let Some(recovery) = &standing.recovery {
        if standing.status != "delivered" || !standing.billable {
            wrong.push(format!("P16 {item}: its output is not where it belongs"));
        }
        if recovery.kind == "recover"
            && let Err(why) = on_disk(recovery)
        {
            wrong.push(format!("P16 {item}: {why}"));
        }
    }
    let resolved = standing.resolved_at.is_some();
    let closed = standing.orphan.as_ref().is_some_and(|(state, _)| state == "closed");
    if resolved && !made_good && !closed {
        wrong.push(format!("{item}: resolved, with neither a refund nor an output"));
    }
}

/// Checks that a recovered file is on disk as recorded.
fn on_disk(recovery: &RecoveredOutput) -> Result<(), String> {
    let uri = recovery.uri.as_deref().unwrap_or_default();
    let path = Url::parse(uri).ok().and_then(|url| url.to_file_path().ok());
    let path = path.ok_or_else(|| format!("the recorded address {uri:?} is not that of a file"))?;
    let bytes =
        std::fs::read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if recovery.sha256.as_deref() == Some(hex::encode(Sha256::digest(&bytes)).as_str())
        && recovery.size_bytes == i64::try_from(bytes.len()).ok()
    {
        Ok(())
    } else {
        Err(format!("{} differs from its recorded hash or size", path.display()))
    }
}

fn sums(wrong: &mut Vec<String>, findings: &EndState, reports: &[PassReport]) {
    let totals = &findings.totals;
    let on_balances: i64 = findings.balances.iter().map(|balance| balance.given_back).sum();
    let in_reports: i64 = reports.iter().map(|report| report.refunded_credits).sum();
    let per_item: i128 =
        findings.standings.values().filter_map(|standing| standing.refund).map(Split::total).sum();
    for (place, sum) in [
        ("the ledger", i128::from(totals.in_ledger)),
        ("makegood's rows of the charges", i128::from(totals.on_charges)),
        ("the billing activity", i128::from(totals.in_activity)),
        ("the ledger entries of the balances", i128::from(on_balances)),
        ("the reports of the passes", i128::from(in_reports)),
        ("the stories", per_item),
    ] {
        if sum != i128::from(totals.refunded) {
            wrong.push(format!("{} credits were refunded, and {place} say {sum}", totals.refunded));
        }
    }
}

/// Billable usage is everything ordered, without what makegood or the platform refunded (P04,
/// refunded items are not billed as usage).
fn usage(wrong: &mut Vec<String>, stories: &[DemoStory], findings: &EndState) {
    let by_platform = |charge: &ExampleCharge| -> i64 {
        let named =
            |nth: usize| charge.refunds.iter().any(|refund| refund.item.is_none_or(|item| item == nth));
        charge.items.iter().enumerate().filter(|(nth, _)| named(*nth)).map(|(_, item)| item.credits).sum()
    };
    let by_platform: i64 = stories.iter().flat_map(|story| &story.charges).map(by_platform).sum();
    let totals = &findings.totals;
    let should_be = totals.ordered - totals.refunded - by_platform;
    if totals.billable != should_be {
        wrong.push(format!("P04: {} credits of usage are billable instead of {should_be}", totals.billable));
    }
}

/// Every balance equals its opening balance and the ledger entries since.
fn balances(wrong: &mut Vec<String>, accounts: &[ExampleAccount], findings: &EndState) {
    let opening: BTreeMap<(&str, &str), i64> = accounts
        .iter()
        .flat_map(|account| {
            account
                .balances
                .iter()
                .map(|(bucket, credits)| ((account.id.as_str(), bucket.as_str()), *credits))
        })
        .collect();
    for balance in &findings.balances {
        let began = opening.get(&(balance.account.as_str(), balance.bucket.as_str())).copied();
        let should_be = began.map(|began| began + balance.posted);
        if should_be != Some(balance.credits) {
            wrong.push(format!(
                "{}'s {} is {}, and the ledger says {should_be:?}",
                balance.account, balance.bucket, balance.credits
            ));
        }
    }
    if findings.balances.len() != opening.len() {
        wrong.push(format!("there were {} balances and are {}", opening.len(), findings.balances.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    const CHARGED: Timestamp = Timestamp::from_micros(1_750_000_000_000_000);

    /// Correctly refunded an hour after the charge.
    fn refunded() -> ItemStatus {
        ItemStatus {
            item: item_id("ch", 0),
            credits: 20,
            account: "ada".to_owned(),
            charged_at: CHARGED,
            failed_at: None,
            orphan: Some(("refunded".to_owned(), "server_error".to_owned())),
            resolved_at: Some(CHARGED + Duration::from_hours(1)),
            refund: Some(Split { subscription: 15, wallet: 5 }),
            status: "refunded".to_owned(),
            billable: false,
            recovery: None,
            message: None,
        }
    }

    fn recovered(uri: &str) -> ItemStatus {
        ItemStatus {
            orphan: Some(("recovered".to_owned(), "output_available".to_owned())),
            refund: None,
            status: "delivered".to_owned(),
            billable: true,
            recovery: Some(RecoveredOutput {
                kind: "recover".to_owned(),
                uri: Some(uri.to_owned()),
                sha256: Some(hex::encode(Sha256::digest("a file"))),
                content_type: None,
                size_bytes: Some(6),
                from_charge: None,
            }),
            ..refunded()
        }
    }

    fn wrong(standing: &ItemStatus) -> Vec<String> {
        let mut wrong = Vec::new();
        one_item(&mut wrong, standing);
        wrong
    }

    #[test]
    fn only_consistent_rows_are_mapped_to_an_ending() {
        let split = Split { subscription: 15, wallet: 5 };
        assert_eq!(ending(&refunded()), Some(Ending::Refunded(Reason::ServerError, split)));
        assert_eq!(ending(&recovered("")), Some(Ending::Recovered));
        assert_eq!(ending(&ItemStatus { orphan: None, ..refunded() }), Some(Ending::LeftAlone));
        let odd = |state: &str, reason: &str| Some((state.to_owned(), reason.to_owned()));
        assert_eq!(ending(&ItemStatus { refund: None, ..refunded() }), None, "refunded without a refund");
        assert_eq!(
            ending(&ItemStatus { orphan: odd("closed", "delivered"), ..refunded() }),
            None,
            "a refund too many"
        );
        assert_eq!(ending(&ItemStatus { orphan: odd("refunded", "moonphase"), ..refunded() }), None);
    }

    #[test]
    fn each_broken_promise_of_an_item_is_reported() {
        assert_eq!(wrong(&refunded()), [""; 0]);
        let late = Some(CHARGED + Duration::from_secs(86_401));
        for (standing, promise) in [
            (ItemStatus { billable: true, ..refunded() }, "P04"),
            (ItemStatus { credits: 21, ..refunded() }, "P03"),
            (ItemStatus { resolved_at: late, ..refunded() }, "P15"),
            (ItemStatus { failed_at: Some(CHARGED), ..refunded() }, "P19"),
        ] {
            let wrong = wrong(&standing);
            assert!(wrong.len() == 1 && wrong[0].starts_with(promise), "{promise}: {wrong:?}");
        }
    }

    #[test]
    fn a_recovered_file_is_checked_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0");
        let uri = Url::from_file_path(&path).unwrap().to_string();
        assert!(wrong(&recovered(&uri))[0].contains("cannot be read"));
        std::fs::write(&path, "a fool").unwrap();
        assert!(wrong(&recovered(&uri))[0].contains("differs from its recorded hash"));
        std::fs::write(&path, "a file").unwrap();
        assert_eq!(wrong(&recovered(&uri)), [""; 0]);
        assert!(wrong(&recovered("s3://elsewhere/0"))[0].contains("not that of a file"));
    }
}
