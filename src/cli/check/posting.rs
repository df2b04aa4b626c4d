//! Checks whether refunds can be posted and outputs stored: what the relations accept, what row
//! security hides, and a trial of each.

use std::collections::BTreeSet;

use super::{Findings, Grade};
use crate::report::chain;
use crate::store::{Balance, DbError, Store, Trial};

const VIEWS: &str = "docs/adopting.md, \"Over views\"";

/// Checks whether this connection may write.
pub(super) async fn takes_writes(store: &Store, found: &mut Findings) -> bool {
    match store.takes_no_writes().await {
        Ok(None) => true,
        Ok(Some(why)) => {
            found.fail(
                "writes",
                format!("the database accepts no writes: {why}"),
                "point database.url at the primary, or ALTER ROLE … SET default_transaction_read_only = off",
            );
            false
        }
        Err(error) => {
            found.warn("writes", format!("could not be checked: {}", chain(&error)), "");
            true
        }
    }
}

/// Checks relations and makes the trials. `may_try`: this connection may write and has the rights
/// of a pass.
pub(super) async fn check(store: &Store, may_try: bool, found: &mut Findings) {
    let (unwritable, invokers) = match look(store, may_try, found).await {
        Ok(looked) => looked,
        Err(error) => {
            found.warn("relations", format!("could not be described: {}", chain(&error)), "");
            (BTreeSet::new(), None)
        }
    };
    let cannot = |about: &str, found: &mut Findings| {
        found.warn(about, "could not try", "fix the failures above first, and check again");
    };
    if may_try && unwritable.is_disjoint(&BTreeSet::from(["balances", "ledger_entries"])) {
        refund(store, found).await;
    } else {
        cannot("trial refund", found);
    }
    if may_try && !unwritable.contains("stored_outputs") {
        output(store, invokers.as_deref(), found).await;
    } else {
        cannot("trial output", found);
    }
}

async fn refund(store: &Store, found: &mut Findings) {
    let tried = store.try_refunds().await;
    let advice = match &tried {
        Ok(Trial::Fails { refused: true, .. }) => {
            "fix it, unless the platform rightly rejects a refund of an item for which nothing is owed"
        }
        _ => {
            "fix the trigger, rule or view behind `balances` or `ledger_entries`: while passes find the same, they hold all \
             refunds (`cannot_post`)"
        }
    };
    let (works, fails) = (matches!(tried, Ok(Trial::Works { .. })), matches!(tried, Ok(Trial::Fails { .. })));
    trial("trial refund", tried, advice, found);
    match store.prove_balance().await {
        // The trial has reported this.
        Ok(Balance::Unmoved | Balance::Wrong) if fails => {}
        proved => balance(proved, works, found),
    }
}

async fn output(store: &Store, invokers: Option<&str>, found: &mut Findings) {
    let tried = store.try_outputs().await;
    let of_rights = matches!(tried, Ok(Trial::Fails { of_rights: true, .. }));
    let advice = match invokers {
        Some(triggers) if of_rights => format!(
            "it runs with the rights of this role: make the function of {triggers} SECURITY DEFINER SET search_path = … ({VIEWS})"
        ),
        _ => format!(
            "fix the trigger, rule or view behind `stored_outputs` ({VIEWS}); until then nothing is recovered"
        ),
    };
    if let (Some(triggers), Ok(Trial::CouldNotTry { .. })) = (invokers, &tried) {
        found.warn(
            "stored_outputs",
            format!(
                "the function of {triggers} is not SECURITY DEFINER: it runs with the rights of this role"
            ),
            format!("see that these are enough, or make it SECURITY DEFINER SET search_path = … ({VIEWS})"),
        );
    }
    trial("trial output", tried, &advice, found);
}

/// The relations that reject what a pass writes, and the triggers on `stored_outputs` that run with
/// this role's rights.
type Looked = (BTreeSet<&'static str>, Option<String>);

/// Reads the catalogue.
async fn look(store: &Store, has_rights: bool, found: &mut Findings) -> Result<Looked, DbError> {
    let (flaws, invokers) = store.write_flaws().await?;
    let unwritable = flaws.iter().map(|flaw| flaw.relation).collect();
    for flaw in flaws {
        found.fail(flaw.relation, flaw.says, flaw.advice);
    }
    // This counts the rows that the role may see, and calls a function that needs the right.
    if has_rights {
        let hidden = store.hidden_rows().await?;
        for flaw in hidden {
            let grade = if flaw.fails { Grade::Fail } else { Grade::Warn };
            found.add(grade, &format!("row security: {}", flaw.relation), flaw.says, flaw.advice);
        }
    }
    Ok((unwritable, invokers))
}

fn trial(about: &str, trial: Result<Trial, DbError>, advice: &str, found: &mut Findings) {
    match trial {
        Ok(Trial::Works { charge_id, failed_before }) => {
            found.ok(about, format!("on charge `{charge_id}`: written, read back and rolled back"));
            if let Some(why) = failed_before {
                let says = format!("it failed for another account, and only for that one: {why}");
                found.warn(about, says, "correct that account's rows; only its refunds are held");
            }
        }
        Ok(Trial::Fails { tried: 0 | 1, why, .. }) => found.fail(about, format!("it failed: {why}"), advice),
        Ok(Trial::Fails { tried, why, .. }) => {
            found.fail(about, format!("it failed for each of {tried} accounts: {why}"), advice);
        }
        Ok(Trial::CouldNotTry { why }) => {
            found.warn(about, format!("could not try: {why}"), "check again once there are charges of today");
        }
        Err(error) => found.warn(about, format!("could not try: {}", chain(&error)), ""),
    }
}

/// Reports what two concurrent writers do to a balance with a trigger. `works`: the trial refund
/// succeeded.
fn balance(proved: Result<Balance, DbError>, works: bool, found: &mut Findings) {
    const ABOUT: &str = "balances";
    match proved {
        Ok(Balance::NoTrigger) => {}
        Ok(Balance::AddsUp) => {
            found.ok(ABOUT, "a view whose trigger adds the difference: two concurrent writers lose nothing");
        }
        Ok(Balance::Unmoved) if works => {
            found.ok(ABOUT, "a view that sums the ledger: two concurrent writers lose nothing");
        }
        Ok(Balance::Unmoved) => found.warn(
            ABOUT,
            "a view that an UPDATE does not change: correct if it sums the ledger, and wrong otherwise",
            "check again once a refund could be tried",
        ),
        Ok(Balance::Refuses) => found.warn(
            ABOUT,
            "a view whose trigger rejects a write that is based on an old value: such refunds are held and retried",
            "let the trigger add the difference to the current row",
        ),
        Ok(Balance::Loses) => found.fail(
            ABOUT,
            "a view whose trigger writes the new value: of two concurrent writes one is LOST",
            "let the trigger add NEW.credits - OLD.credits to the current row",
        ),
        Ok(Balance::Wrong) => found.fail(
            ABOUT,
            "a view whose trigger changes the balance by another amount than is added",
            "let the trigger add NEW.credits - OLD.credits, in the unit that the view shows, and return NEW",
        ),
        Ok(Balance::Empty) => found.warn(
            ABOUT,
            "a view with a trigger but without a row to test it on",
            "check again once there is an account",
        ),
        Err(error) => found.fail(
            ABOUT,
            format!("could not try the view's trigger: {}", chain(&error)),
            "fix the view's trigger",
        ),
    }
}
