//! How an item may end, computed from the plan alone: every decision that makegood records must
//! state what was true when it was taken, and every item that can be decided must have been decided
//! by a certain pass.
//!
//! A provider's answer does not change during a pass, so each decision can be compared with the
//! answer that the plan has for its minute. An action of the platform may fall into the middle of a
//! pass: the state before it and the state after it are both right then.

use super::job::Says;
use super::plan::{Charge, Item, LEAP, NEVER, Own, PROVIDERS, Plan, Trouble};

/// From a charge to the end of doubt, and what an orphan has that was found late, in minutes.
const DOUBT: i64 = 22 * 60;
const LATE: i64 = 2 * 60;
/// An unknown job that is younger than this may still appear. In minutes.
const UNKNOWN: i64 = 60;
/// The longest grace of a charge, and how far a cursor stays behind, in minutes.
const GRACE: i64 = 15;
const OVERLAP: i64 = 60;
/// When a charge is scanned again, in minutes.
const LATER_LOOKS: [i64; 2] = [6 * 60, 20 * 60];
/// The longest wait between two questions, and the lease of a worker that died, in minutes.
const MAX_WAIT: i64 = 60;
const LEASE: i64 = 15;

/// A decision as makegood recorded it. Times are minutes of the world, by makegood's clock.
#[derive(Debug)]
pub struct Noted {
    /// The charge's place in the plan.
    pub charge: usize,
    pub index: i64,
    pub kind: String,
    pub reason: String,
    pub at: i64,
    pub opened_at: i64,
}

/// The pass in which it was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub minute: i64,
    /// All that the platform did up to then was done before the pass began.
    pub surely_done: i64,
}

impl Moment {
    const fn surely(self, deed: i64) -> bool {
        deed <= self.surely_done
    }

    const fn perhaps(self, deed: i64) -> bool {
        deed <= self.minute
    }
}

/// The fault of a decision, if there is one.
pub fn flaw(plan: &Plan, noted: &Noted, moment: Moment) -> Option<String> {
    let clock = plan.clock(moment.minute);
    let latest = clock + plan.spread() + i64::try_from(LEAP).unwrap();
    if !(clock - plan.spread()..=latest).contains(&noted.at) {
        return Some(format!("it is dated {}, and the clock shows {clock}", noted.at));
    }
    let charge = &plan.charges[noted.charge];
    let item = usize::try_from(noted.index).ok().map(|index| &charge.items[index]);
    let fits = match item {
        None => whole_charge_fits(charge, noted, moment),
        Some(item) => {
            if let Some(ours) = passed_over(plan, charge, item, noted, moment) {
                return Some(ours);
            }
            fits(plan, charge, item, noted, moment)
        }
    };
    let says = item.map(|item| plan.says(charge, item, moment.minute));
    (!fits).then(|| format!("the provider says {says:?}, which is no reason for it"))
}

/// A charge whose items have not come yet is held until they have.
fn whole_charge_fits(charge: &Charge, noted: &Noted, moment: Moment) -> bool {
    match (noted.kind.as_str(), noted.reason.as_str()) {
        ("hold", "items_mismatch") => !moment.surely(charge.items_at),
        ("close", "items_mismatch") => moment.perhaps(charge.items_at),
        _ => false,
    }
}

/// Its output was stored somewhere before the pass began, and it was refunded or fetched all the
/// same.
fn passed_over(plan: &Plan, charge: &Charge, item: &Item, noted: &Noted, moment: Moment) -> Option<String> {
    let stored = match plan.own(noted.charge, item) {
        Own::Stores | Own::StoresInTheWrongPlace | Own::StoresLinkedToNothing | Own::StoresOnAnother => true,
        Own::Nothing | Own::Refunds => false,
    };
    // An output that is linked to it already prevents the platform from storing.
    let index = usize::try_from(noted.index).unwrap();
    let hung_upon = plan.holds_anothers(noted.charge, index).is_some();
    // A person may have decided whose it is.
    let overruled = noted.reason == "by_hand" && is_claimed_twice(plan, noted.charge, item);
    let again = matches!(noted.kind.as_str(), "refund" | "recover") && !overruled;
    (stored && !hung_upon && moment.surely(item.own_at) && again).then(|| {
        format!("its output was stored at minute {} of charge {} by the platform", item.own_at, charge.id)
    })
}

/// Whether what was decided is what the plan had the provider, the storage and the platform do.
fn fits(plan: &Plan, charge: &Charge, item: &Item, noted: &Noted, moment: Moment) -> bool {
    let minute = moment.minute;
    let says = plan.says(charge, item, minute);
    let own = plan.own(noted.charge, item);
    let index = usize::try_from(noted.index).unwrap();
    let output = usize::try_from(item.output).unwrap();
    let holds = plan.holds_anothers(noted.charge, index).is_some_and(|at| moment.perhaps(at));
    let acted = moment.perhaps(item.own_at);
    let misplaced = acted
        && matches!(own, Own::StoresInTheWrongPlace | Own::StoresLinkedToNothing | Own::StoresOnAnother);
    let offered = says == Some(Says::Succeeded) && charge.jobs[item.job].offered(output, minute);
    let silent = matches!(says, Some(Says::InTrouble(_) | Says::Garbage));
    let doubt_is_over = noted.at >= (charge.at + DOUBT).max(found(plan, noted, moment) + LATE);
    let old = noted.at >= charge.at + UNKNOWN;
    // A leap may fall between deciding and settling.
    let was_young = noted.at - i64::try_from(LEAP).unwrap() < charge.at + UNKNOWN;
    let failed = moment.perhaps(item.failed_at);
    let trouble = |trouble| says == Some(Says::InTrouble(trouble));
    match (noted.kind.as_str(), noted.reason.as_str()) {
        ("close", "delivered") => (acted && own == Own::Stores) || misplaced || (holds && says.is_none()),
        ("close", "already_refunded") => acted && own == Own::Refunds,
        ("close", "completed_after_cancel") => says == Some(Says::Gone) && moment.perhaps(charge.cancelled),
        ("relink", "misattributed") => misplaced || (holds && says.is_none()),
        ("recover", "output_available") => offered && !plan.is_full(minute),
        ("refund", "no_provider_job") => says.is_none() && (old || failed),
        ("refund", "provider_error") => says == Some(Says::Failed),
        ("refund", "provider_cancelled") => says == Some(Says::Cancelled),
        ("refund", "output_expired") => says == Some(Says::Gone) && !moment.surely(charge.cancelled),
        ("refund", "missing_output") => says == Some(Says::Succeeded) && !offered,
        ("refund", "never_returned") => says == Some(Says::Unknown) && old,
        ("refund", "reported_failed") => {
            failed && (silent || matches!(says, Some(Says::Unknown | Says::Running)))
        }
        ("refund", "timed_out") => says == Some(Says::Running) && doubt_is_over,
        ("refund", "unconfirmed") => silent && doubt_is_over,
        ("refund", "recovery_failed") => offered && plan.is_full(minute) && doubt_is_over,
        // Against the table: where the table would wait, recover, or hold the item for a person.
        ("refund", "by_hand") => match says {
            _ if acted && is_claimed_twice(plan, noted.charge, item) => true,
            None | Some(Says::Unknown) => was_young,
            Some(Says::InTrouble(_) | Says::Garbage | Says::Running) => true,
            Some(Says::Succeeded) => offered,
            Some(Says::Failed | Says::Cancelled | Says::Gone) => false,
        },
        ("wait", "maybe_not_submitted_yet") => says.is_none() && was_young,
        ("wait", "maybe_not_visible_yet") => says == Some(Says::Unknown) && was_young,
        ("wait", "still_running") => says == Some(Says::Running),
        ("wait", "unreachable") => trouble(Trouble::Away),
        ("wait", "unauthorized") => trouble(Trouble::RefusesUs),
        ("wait", "rate_limited") => trouble(Trouble::TooOften),
        ("wait", "unreadable") => says == Some(Says::Garbage),
        ("wait", "recovery_retry") => offered && plan.is_full(minute),
        ("hold", "brake") => {
            let ours = is_own_fault(says) || (offered && plan.is_full(minute));
            plan.brake > 0 || (plan.own_faults > 0 && ours && doubt_is_over)
        }
        ("hold", "duplicate_job") => acted && is_claimed_twice(plan, noted.charge, item),
        _ => false,
    }
}

/// Since when it counts as found, at the earliest: what a clock opened that was ahead is dated anew
/// once the clock is right again.
fn found(plan: &Plan, noted: &Noted, moment: Moment) -> i64 {
    match plan.skew {
        Some(skew)
            if skew.minutes > 0
                && moment.minute >= skew.until
                && noted.opened_at >= skew.from + skew.minutes - plan.spread() =>
        {
            noted.opened_at.min(skew.until)
        }
        Some(_) | None => noted.opened_at,
    }
}

/// A refund that rests only on a fault of ours.
pub fn is_own_fault(says: Option<Says>) -> bool {
    matches!(says, Some(Says::InTrouble(Trouble::RefusesUs) | Says::Garbage))
}

/// Its output is linked to an item without a job, which may have a claim to it too.
pub fn is_claimed_twice(plan: &Plan, nth: usize, item: &Item) -> bool {
    plan.own(nth, item) == Own::StoresOnAnother && plan.charges[nth - 1].jobs.is_empty()
}

/// The minute of the pass after which an item must not be open any more, if the plan is certain
/// about it: makegood can find it, nothing is left to wait for, and a worker survived (P01, P14,
/// P16). Actions of the platform and wrong clocks are checked at the end of the window.
pub fn made_good_by(plan: &Plan, nth: usize, index: usize) -> Option<i64> {
    let charge = &plan.charges[nth];
    let item = &charge.items[index];
    let touched = plan.own(nth, item) != Own::Nothing || plan.holds_anothers(nth, index).is_some();
    if touched || plan.skew.is_some() {
        return None;
    }
    let spread = plan.spread();
    let leap = i64::try_from(LEAP).unwrap();
    let due = charge.committed.max(charge.items_at);
    // An action in the middle of a pass happens after the pass has looked, and its clock may have
    // moved.
    let next = plan.passes.iter().find(|pass| pass.at >= due);
    let there = next.filter(|pass| pass.meanwhile > 0).map_or(due, |pass| pass.at);
    let behind = |look: i64| charge.at + look + OVERLAP - spread - leap;
    let look = [GRACE, LATER_LOOKS[0], LATER_LOOKS[1]].into_iter().find(|look| there < behind(*look))?;
    let found = there.max(charge.at + look) + spread;
    let mut ready = NEVER;
    let mut lively = 0;
    // A breaker lets one question through, and has the others come again.
    let enough = if charge.provider == PROVIDERS[2].0 { 3 } else { 1 };
    let mut began_meanwhile = true;
    for pass in plan.passes.iter().filter(|pass| pass.at >= found) {
        // Rows that are committed during a pass are found by the next one.
        if std::mem::take(&mut began_meanwhile) && pass.meanwhile > 0 {
            continue;
        }
        if !is_clear(plan, charge, item, pass.at - spread) || !is_clear(plan, charge, item, pass.at) {
            (ready, lively) = (NEVER, 0);
            continue;
        }
        if ready == NEVER {
            ready = pass.at + MAX_WAIT + spread;
        }
        if !pass.is_calm() {
            // It may have claimed it by a clock that has leapt.
            ready = ready.max(pass.at + LEASE + leap + 1 + spread);
        } else if pass.at >= ready {
            lively += 1;
            if lively == enough {
                return Some(pass.at);
            }
        }
    }
    None
}

/// Whether at this minute nothing is left to wait for.
fn is_clear(plan: &Plan, charge: &Charge, item: &Item, minute: i64) -> bool {
    let refunded = plan.brake == 0;
    match plan.says(charge, item, minute) {
        None | Some(Says::Unknown) => refunded && minute >= charge.at + UNKNOWN,
        Some(Says::InTrouble(_) | Says::Garbage | Says::Running) => false,
        Some(Says::Failed | Says::Cancelled | Says::Gone) => refunded,
        Some(Says::Succeeded) => {
            let output = usize::try_from(item.output).unwrap();
            if charge.jobs[item.job].offered(output, minute) { !plan.is_full(minute) } else { refunded }
        }
    }
}
