//! Whether refunds can be posted at all: found out at the start of a pass, once an hour and on
//! every new version of makegood, by one process for all.
//!
//! Looks at the types of the contract relations, the writes that they take, the rights of this
//! role, what row security hides from it, and what comes of a trial refund. If one of them says
//! that every refund would fail or be wrong, refunds are held (`cannot_post`) until a later check
//! says otherwise; recoveries, relinks and closes go on. One account's trouble holds nobody else's
//! refunds: settle holds that case alone (`not_posted`). "Could not find out" holds nothing, and is
//! no failed pass: settle reads back what it posts.

use std::time::Duration;

use crate::report::{Finding, PassReport, chain};
use crate::store::{Balance, DbError, PostingCheck, Store, Trial};

/// How long a result counts.
const GOOD_FOR: Duration = Duration::from_hours(1);

/// A trial says something of all accounts once it has failed for so many, and worked for none.
const ACCOUNTS: usize = 2;

/// Rights that the posting of a refund needs, by what they are on.
const POSTING: [&str; 14] = [
    "balances",
    "charge_items",
    "charges",
    "ledger_entries",
    "makegood_accounts",
    "makegood_brake",
    "makegood_charges",
    "makegood_items",
    "makegood_lock_balances(jsonb)",
    "makegood_post_refunds(jsonb)",
    "makegood_refund_sums",
    "makegood_refunds",
    "makegood_resolutions",
    "makegood_try_lock_balances(jsonb)",
];

/// Why refunds are to be held in this pass, if they are. Adds a finding then.
pub(super) async fn cannot_post(store: &Store, report: &mut PassReport) -> Option<String> {
    match look(store).await {
        Ok(PostingCheck::CannotPost(why)) => {
            report.add_finding(Finding {
                kind: "cannot_post",
                about: "refunds".to_owned(),
                detail: format!(
                    "no refund can be posted, so that all are held: {why}; `makegood check` says more"
                ),
            });
            Some(why)
        }
        Ok(PostingCheck::Works | PostingCheck::Untried(_)) => None,
        Err(error) => {
            tracing::warn!("whether refunds can be posted could not be found out: {}", chain(&error));
            None
        }
    }
}

async fn look(store: &Store) -> Result<PostingCheck, DbError> {
    let now = store.now().await?;
    if !store.begin_posting_check(env!("CARGO_PKG_VERSION"), now, now - GOOD_FOR).await? {
        return store.posting_check().await;
    }
    let found = match find_out(store).await {
        Ok(found) => found,
        Err(error) => PostingCheck::Untried(chain(&error)),
    };
    match &found {
        PostingCheck::Works => tracing::debug!("a trial refund was posted as it should be"),
        PostingCheck::CannotPost(why) => tracing::error!(why, "no refund can be posted: all are held"),
        PostingCheck::Untried(why) => tracing::debug!(why, "no refund could be tried"),
    }
    store.end_posting_check(&found).await?;
    Ok(found)
}

/// Everything that says of all refunds whether they can be posted, the surest first.
async fn find_out(store: &Store) -> Result<PostingCheck, DbError> {
    let mut flaws = store.contract_columns().await?;
    // Only people read it.
    flaws.retain(|flaw| flaw.fails && flaw.relation != "accounts");
    if let Some(why) = all_of(flaws.into_iter().map(|flaw| flaw.says)) {
        return Ok(PostingCheck::CannotPost(why));
    }
    let missing = store.missing_rights().await?;
    let trial = missing.iter().any(|(relation, _)| relation == "makegood_try_refund(jsonb)");
    let missing = missing.into_iter().filter(|(relation, _)| POSTING.contains(&relation.as_str()));
    if let Some(why) = all_of(missing.map(|(relation, right)| format!("{right} on {relation}"))) {
        return Ok(PostingCheck::CannotPost(format!("this role may not {why}")));
    }
    if trial {
        let why =
            "this role may not EXECUTE makegood_try_refund(jsonb): docs/adopting.md, \"The database role\"";
        return Ok(PostingCheck::Untried(why.to_owned()));
    }
    let (mut flaws, _) = store.write_flaws().await?;
    flaws.retain(|flaw| flaw.relation != "stored_outputs");
    flaws.extend(store.hidden_rows().await?.into_iter().filter(|flaw| flaw.fails));
    if let Some(why) = all_of(flaws.into_iter().map(|flaw| format!("{}: {}", flaw.relation, flaw.says))) {
        return Ok(PostingCheck::CannotPost(why));
    }
    match store.try_refunds().await? {
        // One account's trouble, or rows that were refused: settle finds out, row by row.
        Trial::Fails { why, tried, refused, .. } if refused || tried < ACCOUNTS => {
            return Ok(PostingCheck::Untried(why));
        }
        Trial::Fails { why, .. } => {
            return Ok(PostingCheck::CannotPost(format!("a trial refund failed: {why}")));
        }
        Trial::CouldNotTry { why } => return Ok(PostingCheck::Untried(why)),
        Trial::Works { .. } => {}
    }
    Ok(match store.prove_balance().await? {
        Balance::Loses => PostingCheck::CannotPost(
            "balances is a view whose trigger writes the new value: of two writers at once one is lost"
                .to_owned(),
        ),
        // The trial has shown that one write is right.
        Balance::NoTrigger
        | Balance::AddsUp
        | Balance::Refuses
        | Balance::Unmoved
        | Balance::Wrong
        | Balance::Empty => PostingCheck::Works,
    })
}

fn all_of(says: impl Iterator<Item = String>) -> Option<String> {
    let says: Vec<String> = says.collect();
    (!says.is_empty()).then(|| says.join("; "))
}
