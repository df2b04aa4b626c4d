//! Checks the platform's rows in a bounded sample of the newest charges, and shows how makegood
//! reads ten of them.
//!
//! It finds faults that would make a pass fail or refund wrongly: duplicate charge ids, items that
//! do not sum up to the draw, missing balances, missing jobs, outputs that never match. A fault in
//! most of the sample is a fault of the view: a failure. A fault of a few charges is a warning,
//! because passes hold such charges for a person. The newest charges are decided by the code of a
//! pass (`store::cases`, `facts`, `policy`), without asking providers. Only ids are shown. It reads
//! at most [`SAMPLE`] charges by index, whatever the size of the tables.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Findings, Grade};
use crate::cli::explain::{because, read_reason, would};
use crate::cli::words::{count, plain, time, when};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::config::Settings;
use crate::detect;
use crate::duration::format_rounded;
use crate::facts::{Delivery, Facts};
use crate::pass::Rules;
use crate::policy::{self, Action, Reason};
use crate::provider::Providers;
use crate::report::chain;
use crate::store::{DbError, Looked, SampledCharge, Standing, Store};

/// The number of charges in the sample.
const SAMPLE: i64 = 1_000;
/// The number of charges that are shown with their decision.
const SHOWN: usize = 10;
/// A smaller sample is too small for a failure.
const ENOUGH: usize = 10;
/// Without a charge for this long, the platform has stopped selling or its view is out of date.
const LATELY: Duration = Duration::from_hours(24);
/// A charge older than this names its job, if it was submitted.
const SUBMITTED: Duration = Duration::from_hours(1);

const PAID: &str = "balances";
const LINKED: &str = "docs/adopting.md, \"The contract relations\", says what each column must be";

/// Checks the newest charges.
pub(super) async fn check(
    store: &Store,
    providers: Option<&Providers>,
    settings: &Settings,
    found: &mut Findings,
) {
    if let Err(error) = look(store, providers, settings, found).await {
        found.warn(
            "rows",
            format!("the newest charges could not be read: {}", chain(&error)),
            "the lines about `contract` and `indexes` say which relation fails or lacks an index",
        );
    }
}

async fn look(
    store: &Store,
    providers: Option<&Providers>,
    settings: &Settings,
    found: &mut Findings,
) -> Result<(), DbError> {
    let now = store.now().await?;
    let sample = store.newest_charges(SAMPLE).await?;
    times(&sample, now, found);
    if sample.is_empty() {
        return Ok(());
    }
    let before = found.of(Grade::Warn) + found.of(Grade::Fail);
    shape(&sample, found);
    jobs(&sample, now, found);
    outputs(&sample, settings.detect.grace, now, found);
    if found.of(Grade::Warn) + found.of(Grade::Fail) == before {
        found.ok("rows", format!("nothing is wrong with the newest {}", charges(sample.len())));
    }
    debits(&sample, found);
    if let Some(providers) = providers {
        newest(store, providers, settings, &sample, now, found).await?;
    }
    Ok(())
}

fn charges(many: usize) -> String {
    count(many as i128, "charge", "charges")
}

/// The ids of the first two.
fn examples(of: &[&SampledCharge]) -> String {
    let ids: Vec<String> = of.iter().take(2).map(|each| format!("`{}`", plain(&each.id))).collect();
    let more = if of.len() > 2 { ", …" } else { "" };
    format!("{}{more}", ids.join(", "))
}

/// Checks whether there are recent charges, and whether their times are plausible.
fn times(sample: &[SampledCharge], now: Timestamp, found: &mut Findings) {
    const ABOUT: &str = "charges";
    let Some(newest) = sample.first() else {
        found.warn(
            ABOUT,
            "there is none with a time",
            "fine before the platform's first sale; else see whether the view `charges` shows what the platform writes",
        );
        return;
    };
    let ahead: Vec<&SampledCharge> =
        sample.iter().filter(|each| each.charged_at > now + MAX_CLOCK_SKEW).collect();
    if !ahead.is_empty() {
        let are = if ahead.len() == 1 { "is" } else { "are" };
        wrong(
            found,
            ABOUT,
            &ahead,
            sample.len(),
            &format!("{are} in the future, the newest {}", when(newest.charged_at, now)),
            "no pass looks at them before that time: see whether charged_at is converted with the right time zone",
        );
    } else if now.since(newest.charged_at) > LATELY {
        found.warn(
            ABOUT,
            format!("none in the last 24 hours; the newest, `{}`, is of {}", plain(&newest.id), when(newest.charged_at, now)),
            "if the platform sells, the view `charges` does not show what it writes, or converts charged_at wrongly",
        );
    } else {
        found.ok(
            ABOUT,
            format!("the newest, `{}`, is of {}", plain(&newest.id), when(newest.charged_at, now)),
        );
    }
}

/// A failure if most of the sample has the fault, because then the view is wrong; otherwise a
/// warning.
fn wrong(found: &mut Findings, about: &str, of: &[&SampledCharge], among: usize, says: &str, advice: &str) {
    if of.is_empty() {
        return;
    }
    let grade = if of.len() * 2 > among { Grade::Fail } else { Grade::Warn };
    found.add(
        grade,
        about,
        format!("{} of the newest {among} {says}: {}", charges(of.len()), examples(of)),
        advice,
    );
}

/// Checks whether each charge is one row with consistent items and balances.
fn shape(sample: &[SampledCharge], found: &mut Findings) {
    let which = |is: &dyn Fn(&SampledCharge) -> bool| -> Vec<&SampledCharge> {
        sample.iter().filter(|each| is(each)).collect()
    };
    let twice = which(&|each| each.rows > 1);
    if !twice.is_empty() {
        found.fail(
            "charges",
            format!("{} of the newest {} in more than one row: {}", charges(twice.len()), sample.len(), examples(&twice)),
            "no pass can tell which row is right, and refunds nothing for them: let `charges` have one row for each id",
        );
    }
    let same_item = which(&|each| each.items_twice > 0 && each.rows == 1);
    if !same_item.is_empty() {
        found.fail(
            "charge_items",
            format!(
                "{} of the newest {} with two items of one output_index, or with none: {}",
                charges(same_item.len()),
                sample.len(),
                examples(&same_item)
            ),
            "no pass can judge them: let `charge_items` have one row for each charge_id and output_index",
        );
    }
    let paid = |each: &SampledCharge| each.drawn.total() != 0;
    wrong(
        found,
        "charge_items",
        &which(&|each| each.items == 0 && paid(each)),
        sample.len(),
        "without any item",
        "an undelivered one is held as `items_mismatch`: let `charge_items` have a row for each expected output",
    );
    wrong(
        found,
        "charge_items",
        &which(&|each| each.items > 0 && each.items_credits != each.drawn.total() && each.rows == 1),
        sample.len(),
        "with items that do not sum up to the draw",
        "an undelivered one is held as `items_mismatch`: the credits of a charge's items must sum up to \
         subscription_credits + wallet_credits",
    );
    let rows = |each: &SampledCharge| {
        [(each.drawn.subscription, each.subscription_rows), (each.drawn.wallet, each.wallet_rows)]
            .into_iter()
            .filter(|(drawn, _)| *drawn > 0)
            .map(|(_, rows)| rows)
            .collect::<Vec<_>>()
    };
    let advice = "their refunds are held as `no_balance`: give each account exactly one row in `balances` for \
                  `subscription` and for `wallet`, spelled so";
    let missing = which(&|each| rows(each).contains(&0));
    wrong(
        found,
        PAID,
        &missing,
        sample.len(),
        "drew from a bucket of which its account has no balance",
        advice,
    );
    let doubled = which(&|each| rows(each).iter().any(|rows| *rows > 1));
    wrong(found, PAID, &doubled, sample.len(), "of accounts with more than one balance for a bucket", advice);
}

/// Checks whether charges name their jobs. Without a job, an undelivered charge is refunded without
/// a question.
fn jobs(sample: &[SampledCharge], now: Timestamp, found: &mut Findings) {
    let mut by_provider: BTreeMap<&str, Vec<&SampledCharge>> = BTreeMap::new();
    for each in sample.iter().filter(|each| now.since(each.charged_at) > SUBMITTED) {
        by_provider.entry(&each.provider).or_default().push(each);
    }
    for (provider, of) in by_provider {
        if of.iter().any(|each| each.has_job) {
            continue;
        }
        let undelivered = of.iter().filter(|each| each.delivered == 0).count();
        let grade = if of.len() >= ENOUGH && undelivered > 0 { Grade::Fail } else { Grade::Warn };
        found.add(
            grade,
            "jobs",
            format!(
                "none of the {} of `{}` that are older than 1h names a provider_job_id: {}; {} no output, which counts as \
                 never submitted and is refunded without a question",
                charges(of.len()),
                plain(provider),
                examples(&of),
                count(undelivered as i128, "has", "have"),
            ),
            "let provider_job_id be the provider's id of the job in `charges`, or in `charge_items` where items have jobs \
             of their own",
        );
    }
}

/// Checks whether outputs match their items and have hashes.
fn outputs(sample: &[SampledCharge], left_alone: Duration, now: Timestamp, found: &mut Findings) {
    const ABOUT: &str = "stored_outputs";
    let old: Vec<&SampledCharge> = sample
        .iter()
        .filter(|each| each.drawn.total() != 0 && now.since(each.charged_at) > left_alone)
        .collect();
    let undelivered: Vec<&SampledCharge> = old.iter().copied().filter(|each| each.delivered == 0).collect();
    if old.len() >= ENOUGH && undelivered.len() * 2 > old.len() {
        let linked = undelivered.iter().filter(|each| each.outputs > 0).count();
        let grade = if undelivered.len() == old.len() { Grade::Fail } else { Grade::Warn };
        found.add(
            grade,
            ABOUT,
            format!(
                "{} of the {} of the newest {} that are past their grace without an output where it belongs: {}; {} \
                 outputs that are of another job, index, project or node",
                undelivered.len(),
                old.len(),
                charges(sample.len()),
                examples(&undelivered),
                count(linked as i128, "has", "have"),
            ),
            format!("each would become an orphan: compare one of them with `makegood explain CHARGE`; {LINKED}"),
        );
    }
    let without: Vec<&SampledCharge> = sample.iter().filter(|each| each.without_hash > 0).collect();
    if !without.is_empty() {
        found.warn(
            ABOUT,
            format!("{} of the newest {} with an output without sha256: {}", charges(without.len()), sample.len(), examples(&without)),
            "of several outputs of one job makegood tells by the hash which it has already: let sha256 be that of the file",
        );
    }
}

/// Compares the debits with the draws, if the ledger has debits. They are optional.
fn debits(sample: &[SampledCharge], found: &mut Findings) {
    const ABOUT: &str = "debits";
    let known: Vec<&SampledCharge> = sample.iter().filter(|each| each.taken.is_some()).collect();
    if known.is_empty() {
        found.ok(
            ABOUT,
            "the ledger has none for the newest charges, so none are compared (debits are optional)",
        );
        return;
    }
    let off: Vec<&SampledCharge> =
        known.iter().copied().filter(|each| each.taken != Some(-each.drawn.total())).collect();
    if off.is_empty() {
        let says = format!(
            "the ledger has those of {} of the newest {}, and they equal the draws",
            known.len(),
            charges(sample.len())
        );
        found.ok(ABOUT, says);
    }
    if off.is_empty() {
        return;
    }
    // A few debits do not show how the platform writes them.
    let grade = if known.len() >= ENOUGH && off.len() * 2 > known.len() { Grade::Fail } else { Grade::Warn };
    found.add(
        grade,
        ABOUT,
        format!(
            "{} of {} that the ledger has debits of, which differ from the draw: {}",
            charges(off.len()),
            known.len(),
            examples(&off)
        ),
        "an undelivered one is held as `debits_mismatch`: docs/adopting.md, \"Debits\", says which entries count",
    );
}

/// Shows the decisions about the newest charges.
async fn newest(
    store: &Store,
    providers: &Providers,
    settings: &Settings,
    sample: &[SampledCharge],
    now: Timestamp,
    found: &mut Findings,
) -> Result<(), DbError> {
    let rules = Rules::new(settings);
    let mut ids: Vec<&str> = Vec::new();
    for each in sample {
        // Show a charge with two rows once.
        if !ids.contains(&each.id.as_str()) && ids.len() < SHOWN {
            ids.push(&each.id);
        }
    }
    let dating = detect::dating(&rules.detect, providers);
    for looked in store.look_at_charges(&ids, now, &dating).await? {
        let mut grade = Grade::Ok;
        let mut says: Vec<String> = Vec::new();
        for case in &looked.cases {
            let (is_odd, text) =
                understood(&case.facts, standing(&looked, &case.facts), providers, &rules, now);
            if is_odd {
                grade = Grade::Warn;
            }
            says.push(format!("`{}` {text}", plain(&case.facts.orphan.item.to_string())));
        }
        for each in &looked.standing {
            if let Some(text) = resolved(each) {
                says.push(format!("`{}` {text}", plain(&each.item.to_string())));
            }
        }
        for why in &looked.unreadable {
            grade = Grade::Warn;
            says.push(format!("`{}` cannot be judged: {why}", plain(&looked.charge_id)));
        }
        says.sort();
        found.add(grade, "newest charges", says.join("; "), "");
    }
    Ok(())
}

fn standing<'a>(looked: &'a Looked, facts: &Facts) -> Option<&'a Standing> {
    looked.standing.iter().find(|each| each.item == facts.orphan.item)
}

/// The outcome of a resolved item.
fn resolved(standing: &Standing) -> Option<String> {
    let because = standing.reason.as_deref().and_then(read_reason).map(because);
    let why = because.map_or_else(String::new, |because| format!(", because {because}"));
    match standing.state.as_str() {
        "open" | "held" => None,
        "refunded" => Some(format!("was refunded by makegood{why}")),
        "recovered" => Some("has its output: makegood recovered it".to_owned()),
        "relinked" => Some("has its output: makegood relinked it".to_owned()),
        "closed" if standing.reason.as_deref() == Some(Reason::Delivered.as_str()) => {
            Some("has its output".to_owned())
        }
        state => Some(format!("is {state}{why}")),
    }
}

/// The decision of a pass about an item now, without asking; and whether a person should examine
/// it.
fn understood(
    facts: &Facts,
    standing: Option<&Standing>,
    providers: &Providers,
    rules: &Rules,
    now: Timestamp,
) -> (bool, String) {
    let (record, charge) = (&facts.record, &facts.record.charge);
    if matches!(record.delivery, Delivery::Delivered { .. }) {
        return (false, "has its output".to_owned());
    }
    if record.item.as_ref().is_some_and(|item| item.credits == 0) {
        return (false, "has no price: nothing is owed for it".to_owned());
    }
    let has_failed = record.item.as_ref().is_some_and(|item| item.failed_at.is_some());
    let is_orphan = match standing {
        Some(standing) => format!("is an orphan ({})", standing.state),
        None => match detect::looked_at_from(&rules.detect, providers, charge, now) {
            None => {
                let age = format_rounded(rules.detect.backlog_age);
                return (
                    false,
                    format!(
                        "has no output, and is ignored: it is older than {age} (`[detect] backlog_age`) or `start_at`"
                    ),
                );
            }
            Some(from) if from > now && !has_failed => {
                return (false, format!("is too young until {}", time(from)));
            }
            Some(_) if has_failed => {
                "would be an orphan, because the platform has recorded that it failed".to_owned()
            }
            Some(_) => "would be an orphan, because it has no output after its grace".to_owned(),
        },
    };
    if policy::needs_evidence(facts, &rules.policy, now) {
        let provider = plain(&charge.provider);
        return match providers.get(&charge.provider) {
            Some(_) => (false, format!("{is_orphan}: a pass would ask `{provider}`")),
            None => (
                true,
                format!(
                    "{is_orphan}: it cannot be asked about, because {} (`{provider}`)",
                    because(Reason::UnknownProvider)
                ),
            ),
        };
    }
    let decision = policy::decide(facts, None, &rules.policy, now);
    if decision.reason == Reason::AlreadyRefunded && decision.action == Action::Close {
        return (false, "was refunded by the platform itself".to_owned());
    }
    let says = format!(
        "{is_orphan}: a pass would {}, because {}",
        would(&decision.action),
        because(decision.reason)
    );
    (decision.action == Action::Hold, says)
}
