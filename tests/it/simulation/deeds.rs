//! The platform's own actions, as SQL: it charges, adds items, records failures, lets the user
//! cancel, stores, refunds, and removes rows of recovered outputs. It keeps the removed rows in
//! `lost_rows`, for the books.

use super::at;
use super::plan::{Charge, Item, Own, Plan};

/// Something that the platform does, and when.
pub struct Deed {
    pub at: i64,
    /// Which charge it is about: its place in the plan.
    pub charge: usize,
    /// `$now` is the time at which it is done.
    pub sql: String,
}

/// Everything that the platform does, as SQL with its time.
pub fn deeds(plan: &Plan) -> Vec<Deed> {
    let mut deeds = Vec::new();
    let end = plan.end();
    for (nth, charge) in plan.charges.iter().enumerate() {
        let Charge { id, provider, .. } = charge;
        let mut deed = |at: i64, sql: String| {
            if at <= end {
                deeds.push(Deed { at, charge: nth, sql });
            }
        };
        let micros = |minute: i64| at(minute).micros();
        let total = i64::try_from(charge.items.len()).unwrap() * 20;
        let subscription = total * charge.subscription / 100;
        let job = |job: usize| charge.jobs.get(job).map_or("NULL".to_owned(), |job| format!("'{}'", job.id));
        let of_charge = if charge.own_jobs { "NULL".to_owned() } else { job(0) };
        let mut sql = format!(
            "BEGIN IMMEDIATE; INSERT INTO charges VALUES ('{id}', 'a{}', 'p-{id}', 'n-{id}', '{provider}', 'm', {of_charge}, {}, {subscription}, {}, NULL);",
            charge.account,
            micros(charge.at),
            total - subscription
        );
        for (bucket, credits) in [("subscription", subscription), ("wallet", total - subscription)] {
            let more = format!(
                "INSERT INTO ledger_entries VALUES ('taken:{id}:{bucket}', 'a{0}', '{bucket}', -{credits}, 'charge', '{id}', NULL, NULL, {1});
                 UPDATE balances SET credits = credits - {credits} WHERE account_id = 'a{0}' AND bucket = '{bucket}';",
                charge.account,
                micros(charge.at)
            );
            sql += &more;
        }
        deed(charge.committed, sql + "COMMIT;");
        let mut items = "BEGIN IMMEDIATE;".to_owned();
        for (index, item) in charge.items.iter().enumerate() {
            let own = if charge.own_jobs { job(item.job) } else { "NULL".to_owned() };
            let more = format!("INSERT INTO charge_items VALUES ('{id}', {index}, 20, {own}, NULL, NULL);");
            items += &more;
        }
        deed(charge.items_at, items + "COMMIT;");
        deed(
            charge.cancelled,
            format!(
                "UPDATE charges SET cancelled_at = {} WHERE id = '{id}'",
                micros(charge.cancelled.min(end))
            ),
        );
        for (index, item) in charge.items.iter().enumerate() {
            if item.failed_at <= end {
                let sql = format!(
                    "UPDATE charge_items SET failed_at = $now WHERE charge_id = '{id}' AND output_index = {index}"
                );
                deed(item.failed_at, sql);
            }
            if item.loses_at <= end {
                let which = format!("id LIKE 'makegood:{id}/{index}:%'");
                let sql = format!(
                    "BEGIN IMMEDIATE; INSERT INTO lost_rows SELECT id, charge_id, output_index FROM stored_outputs WHERE {which};
                     DELETE FROM stored_outputs WHERE id IN (SELECT id FROM lost_rows); COMMIT;"
                );
                deed(item.loses_at, sql);
            }
            if let Some(sql) = own(plan, nth, index, item) {
                deed(item.own_at, sql);
            }
        }
    }
    deeds
}

/// The platform's action on one item: it checks first whether the action is still needed.
fn own(plan: &Plan, nth: usize, index: usize, item: &Item) -> Option<String> {
    let charge = &plan.charges[nth];
    let id = &charge.id;
    let needed = format!(
        "NOT EXISTS (SELECT 1 FROM ledger_entries WHERE charge_id = '{id}' AND output_index = {index} AND kind = 'refund')
         AND NOT EXISTS (SELECT 1 FROM stored_outputs WHERE charge_id = '{id}' AND output_index = {index})"
    );
    let store = |link: &str, node: &str| {
        let job = charge.jobs.get(item.job)?;
        Some(format!(
            "INSERT INTO stored_outputs SELECT 'own:{id}:{index}', {link}, '{}', '{}', {}, 'p-{id}', '{node}', 'file:///own', 'image/png', 3,
                    'own-{id}-{index}', $now, NULL, NULL WHERE {needed}",
            charge.provider, job.id, item.output
        ))
    };
    match plan.own(nth, item) {
        Own::Nothing => None,
        Own::Stores => store(&format!("'{id}', {index}"), &format!("n-{id}")),
        Own::StoresInTheWrongPlace => store(&format!("'{id}', {index}"), "elsewhere"),
        Own::StoresLinkedToNothing => store("NULL, NULL", &format!("n-{id}")),
        Own::StoresOnAnother => {
            let other = &plan.charges[nth - 1];
            store(&format!("'{}', 0", other.id), &format!("n-{}", other.id))
        }
        Own::Refunds => {
            let bucket = if charge.subscription == 0 { "wallet" } else { "subscription" };
            // The first write locks the balance, as settle does, before the platform looks whether
            // it is still needed.
            Some(format!(
                "BEGIN IMMEDIATE; UPDATE balances SET credits = credits WHERE account_id = 'a{0}' AND bucket = '{bucket}';
                 UPDATE balances SET credits = credits + 20 WHERE account_id = 'a{0}' AND bucket = '{bucket}' AND {needed};
                 INSERT INTO ledger_entries SELECT 'own:{id}:{index}', 'a{0}', '{bucket}', 20, 'refund', '{id}', {index}, NULL, $now WHERE {needed};
                 COMMIT;",
                charge.account
            ))
        }
    }
}
