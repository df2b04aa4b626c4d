//! Checks the state of passes: the last success, the brake, late items, and the keys of providers
//! in use.
//!
//! A check fails if a promise is being broken or credits are held: no pass has succeeded recently,
//! the brake is on, items are past their window, a key is missing or rejected, or an item can never
//! be opened or posted. Faults that can wait, and a new installation, are warnings. Each line ends
//! with the command to type next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Findings, Grade};
use crate::cli::explain::{because, read_reason};
use crate::cli::provider::list::key_source;
use crate::cli::words::{count, plain, relative, time};
use crate::clock::Timestamp;
use crate::config::nearest;
use crate::policy::Reason;
use crate::provider::{Providers, SecretSource};
use crate::report::chain;
use crate::store::{DbError, Store, Unresolved};

/// The threshold of the alert on passes.
const RECENT: Duration = Duration::from_mins(15);
/// A provider is in use if a charge within this time names it.
const IN_USE: Duration = Duration::from_hours(24);
/// For this long after the first pass, late items may have been late before makegood was installed.
const NEW: Duration = Duration::from_hours(24);

pub(super) async fn check(store: &Store, providers: Option<&Providers>, found: &mut Findings) {
    if let Err(error) = look(store, providers, found).await {
        found.fail("state", chain(&error), "");
    }
}

async fn look(store: &Store, providers: Option<&Providers>, found: &mut Findings) -> Result<(), DbError> {
    let now = store.now().await?;
    let first_pass = store.first_pass().await?;
    passes(store.last_success().await?, first_pass, now, found);
    let brake = store.brake().await?;
    let held = brake.held();
    for (since, why) in [(brake.engaged_at, held.all), (brake.own_faults_at, held.own_faults)] {
        if let (Some(since), Some(why)) = (since, why) {
            found.fail(
                "brake",
                format!("ON since {}: {why}; refunds are held", relative(since, now)),
                "`makegood brake status` shows what it holds; once the cause is fixed, \
                 `makegood brake release --by WHO --reason WHY`",
            );
        }
    }
    if brake.engaged_at.is_none() && brake.own_faults_at.is_none() {
        found.ok("brake", "off");
    }
    for (provider, held) in &brake.providers {
        found.warn(
            "brake",
            format!("ON for {provider} only since {}: {}", relative(held.engaged_at, now), held.reason),
            format!("`makegood brake release --provider {provider} --by WHO --reason WHY` releases them"),
        );
    }
    if brake.accounts_held > 0 {
        found.warn(
            "brake",
            format!(
                "{} held by their own limits",
                count(i128::from(brake.accounts_held), "account is", "accounts are")
            ),
            "`makegood brake status` lists them",
        );
    }
    let unresolved = store.unresolved(now).await?;
    let late: u64 = unresolved.iter().filter(|each| !each.for_account).map(|each| each.past_window).sum();
    let is_new = first_pass.is_none_or(|began| now.since(began) < NEW);
    lateness(late, store.overdue(now - RECENT, now).await?, is_new, found);
    if let Some(after) = store.cursors().await?.first_refused() {
        found.fail(
            "refused rows",
            format!("since {} the database rejects the orphans of some items: these are not made good", time(after)),
            format!("`makegood run --dry-run --since {after}` names them (`refused_row`); correct the rows, and makegood retries them within an hour"),
        );
    }
    answers(&unresolved, found);
    if let Some(providers) = providers {
        let in_use: BTreeMap<String, i64> = store.recent_providers(now - IN_USE).await?.into_iter().collect();
        keys(providers, &in_use, found).await;
        closed(providers, &in_use, &unresolved, now, found);
    }
    Ok(())
}

/// Checks when a pass last succeeded. On a new installation this is only a warning.
fn passes(last: Option<Timestamp>, first: Option<Timestamp>, now: Timestamp, found: &mut Findings) {
    const ABOUT: &str = "passes";
    match (last, first) {
        (Some(at), _) if now.since(at) > RECENT => found.fail(
            ABOUT,
            format!("the last successful one ended {}: nothing has been made good since", relative(at, now)),
            "`makegood run` starts one now and shows what fails; is the schedule running?",
        ),
        (Some(at), _) => found.ok(ABOUT, format!("the last successful one ended {}", relative(at, now))),
        (None, Some(began)) if now.since(began) > RECENT => found.fail(
            ABOUT,
            format!("none has succeeded; the first began {}", relative(began, now)),
            "`makegood run` starts one now and shows what fails",
        ),
        (None, _) => found.warn(
            ABOUT,
            "none has succeeded yet",
            "start one: `makegood run --dry-run` first, then `makegood run`",
        ),
    }
}

/// Checks items that are not made good in time: `late` ones are past their window, `overdue` ones
/// past `refund_by`.
fn lateness(late: u64, overdue: u64, is_new: bool, found: &mut Findings) {
    const ABOUT: &str = "orphans";
    let are = |many: u64| if many == 1 { "is" } else { "are" };
    if late > 0 {
        let says = format!("{} {} past the window", count(late, "item", "items"), are(late));
        if is_new {
            found.warn(
                ABOUT,
                format!("{says}, found by the first pass, less than 24h ago"),
                "`makegood report` lists them with their reasons; passes continue to make them good",
            );
        } else {
            found.fail(
                ABOUT,
                says,
                "`makegood report` lists them with their reasons, `makegood explain CHARGE/INDEX` shows one",
            );
        }
    }
    if overdue > 0 {
        found.fail(
            ABOUT,
            format!("{} should have been refunded more than 15m ago", count(overdue, "item", "items")),
            "`makegood run` starts a pass now; `makegood report` lists the rest with their reasons",
        );
    }
    if late == 0 && overdue == 0 {
        found.ok(ABOUT, "none is late");
    }
}

/// Remedies for reasons that a person can do something about. Other reasons need none.
const REMEDIES: &[(&[Reason], Grade, &str)] = &[
    (
        &[Reason::Unauthorized],
        Grade::Fail,
        "`makegood provider list` shows where the key is read from; fix it there, and the next pass asks again",
    ),
    (&[Reason::UnknownProvider], Grade::Fail, "add a provider file of that name to providers.dir"),
    (
        &[Reason::NotPosted],
        Grade::Fail,
        "fix the trigger or view behind `balances` or `ledger_entries`; `makegood explain CHARGE/INDEX` names it",
    ),
    (
        &[Reason::CannotPost],
        Grade::Fail,
        "see the results for `posting`, `rights` and the relations; held refunds are posted within an hour of the fix",
    ),
    (
        &[Reason::NoBalance],
        Grade::Warn,
        "give the account one row in `balances` for each bucket; `makegood report` names the items",
    ),
    (
        &[
            Reason::ChargeChanged,
            Reason::DebitsMismatch,
            Reason::ItemsMismatch,
            Reason::MissingHash,
            Reason::DuplicateJob,
            Reason::AlreadyRefunded,
        ],
        Grade::Warn,
        "`makegood report` names them, `makegood explain CHARGE/INDEX` shows what a person can do",
    ),
    (
        &[Reason::Unreachable, Reason::RateLimited],
        Grade::Warn,
        "usually temporary; if not, see the provider's status page",
    ),
    (
        &[Reason::Unreadable],
        Grade::Warn,
        "its answers have changed: `makegood explain CHARGE/INDEX` shows one, `makegood provider test` reads it",
    ),
    (&[Reason::RecoveryRetry], Grade::Warn, "`makegood explain CHARGE/INDEX` shows the cause"),
    (
        &[Reason::CannotRelink],
        Grade::Warn,
        "the platform's stored_outputs rejects the UPDATE; `makegood explain CHARGE/INDEX` names the output",
    ),
];

/// Reports unresolved items whose reason a person can do something about.
fn answers(unresolved: &[Unresolved], found: &mut Findings) {
    for each in unresolved {
        let Some(reason) = read_reason(&each.reason) else { continue };
        let remedy = REMEDIES.iter().find(|(reasons, ..)| reasons.contains(&reason));
        let Some((_, grade, advice)) = remedy else { continue };
        found.add(
            *grade,
            &format!("provider {}", plain(&each.provider)),
            format!("{} because {}", waits(each), because(reason)),
            *advice,
        );
    }
}

fn waits(each: &Unresolved) -> String {
    if each.state == "held" {
        count(each.orphans, "item is held", "items are held")
    } else {
        count(each.orphans, "item waits", "items wait")
    }
}

/// Checks whether each provider's key is present. A command that prints a key is run if charges
/// need it, because otherwise it is unknown whether it works.
async fn keys(providers: &Providers, in_use: &BTreeMap<String, i64>, found: &mut Findings) {
    for provider in providers.iter() {
        let about = format!("key of {}", provider.name);
        let charges = in_use.get(&provider.name).copied().unwrap_or(0);
        let is_command = matches!(provider.secret_source(), Some(SecretSource::Command { .. }));
        let present = if is_command && charges > 0 {
            providers.try_keys(&provider.name).await
        } else {
            provider.secret_present()
        };
        match (key_source(provider), present) {
            (None, _) => found.ok(&about, "none needed"),
            (Some(place), Ok(())) if is_command && charges == 0 => {
                found
                    .ok(&about, format!("not tested, from {place}; no charge of the last 24 hours needs it"));
            }
            (Some(place), Ok(())) => found.ok(&about, format!("present, from {place}")),
            (Some(_), Err(error)) if charges > 0 => found.fail(
                &about,
                chain(&error),
                format!(
                    "{} in the last 24 hours cannot be asked about: set the key where passes run, and see \
                     `makegood provider list`",
                    count(charges, "charge", "charges")
                ),
            ),
            (Some(place), Err(_)) => {
                found.ok(&about, format!("not in {place}; no charge of the last 24 hours needs it"));
            }
        }
    }
    for (name, charges) in in_use.iter().filter(|(name, _)| providers.get(name).is_none()) {
        let near = nearest(&name.trim().to_lowercase(), providers.names());
        found.fail(
            &format!("provider {}", plain(name)),
            format!(
                "`{}` has no provider file, but {} of the last 24 hours{}",
                plain(name),
                count(*charges, "charge", "charges"),
                near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
            ),
            match near {
                Some(near) => {
                    format!("correct the charges to `{near}`, or add a file of that name to providers.dir")
                }
                None => {
                    "add a provider file of that name to providers.dir, or correct the charges".to_owned()
                }
            },
        );
    }
}

/// Checks for providers whose API is or will be shut down, but that charges name or items wait for.
fn closed(
    providers: &Providers,
    in_use: &BTreeMap<String, i64>,
    unresolved: &[Unresolved],
    now: Timestamp,
    found: &mut Findings,
) {
    for provider in providers.iter() {
        let Some(closed) = &provider.closed else { continue };
        let charges = in_use.get(&provider.name).copied().unwrap_or(0);
        let waiting: u64 =
            unresolved.iter().filter(|each| each.provider == provider.name).map(|each| each.orphans).sum();
        if charges == 0 && waiting == 0 {
            continue;
        }
        found.warn(
            &format!("provider {}", plain(&provider.name)),
            format!(
                "its API is {}; {} of the last 24 hours, {}",
                closed.describe(now),
                count(charges, "charge", "charges"),
                count(waiting, "item waits", "items wait"),
            ),
            "stop selling it: items that it no longer answers for wait, and are refunded at their refund_by",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::cli::explain::advice;
    use crate::clock::Clock;

    #[tokio::test]
    async fn a_missing_key_is_a_failure_only_if_charges_need_it() {
        // The binary does this at its start.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, secret: &str| {
            let text = format!(
                "[provider]\nname = \"{name}\"\noutput_hosts = []\n[auth]\nheader = \"x\"\nvalue = \"{{secret}}\"\n\
                 secret = {secret}\n\
                 [ask]\nrequest = \"GET https://acme.example/{{job}}\"\nread = '{{verdict: \"running\"}}'\n"
            );
            std::fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
        };
        file("acme", "{ env = \"MAKEGOOD_TEST_NO_SUCH_KEY\" }");
        file("silent", "{ command = [\"true\"], ttl = \"1h\" }");
        file("talks", "{ command = [\"echo\", \"key\"], ttl = \"1h\" }");
        let providers = Providers::load(Some(dir.path()), Clock::System).unwrap();
        let grade = async |in_use: &[(&str, i64)], about: &str| {
            let mut found = Findings::default();
            let in_use = in_use.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
            keys(&providers, &in_use, &mut found).await;
            found.0.iter().find(|finding| finding.about == about).map(|finding| finding.grade)
        };
        assert_eq!(grade(&[], "key of acme").await, Some(Grade::Ok));
        assert_eq!(grade(&[("acme", 3)], "key of acme").await, Some(Grade::Fail));
        // A command that never ran must not count as present.
        assert_eq!(grade(&[], "key of silent").await, Some(Grade::Ok));
        assert_eq!(grade(&[("silent", 3)], "key of silent").await, Some(Grade::Fail));
        assert_eq!(grade(&[("talks", 3)], "key of talks").await, Some(Grade::Ok));
        assert_eq!(grade(&[("nobody", 1)], "provider nobody").await, Some(Grade::Fail));
        assert_eq!(grade(&[], "provider nobody").await, None);
    }

    /// `explain` has advice for the same reasons. The brake has a check of its own.
    #[test]
    fn the_reasons_with_a_remedy_are_those_that_explain_has_advice_for() {
        for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::Brake) {
            let has_remedy = REMEDIES.iter().any(|(reasons, ..)| reasons.contains(reason));
            assert_eq!(has_remedy, !advice(*reason).is_empty(), "{reason}");
        }
    }

    #[test]
    fn a_closed_provider_is_a_warning_while_something_depends_on_it() {
        let providers = Providers::load(None, Clock::System).unwrap();
        let now = Timestamp::parse("2026-11-28T00:00:00Z").unwrap();
        let told = |charges: i64, waiting: u64| {
            let in_use = BTreeMap::from([("openai-videos".to_owned(), charges), ("fal".to_owned(), 9)]);
            let waits = Unresolved {
                state: "open".to_owned(),
                provider: "openai-videos".to_owned(),
                reason: "unreadable".to_owned(),
                orphans: waiting,
                oldest_charged_at: now,
                past_window: 0,
                for_account: false,
            };
            let mut found = Findings::default();
            closed(&providers, &in_use, &[waits], now, &mut found);
            found.0
        };
        assert!(told(0, 0).is_empty());
        for (charges, waiting, says) in [
            (3, 0, "3 charges of the last 24 hours, 0 items wait"),
            (0, 1, "0 charges of the last 24 hours, 1 item waits"),
        ] {
            let found = told(charges, waiting);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].grade, found[0].about.as_str()), (Grade::Warn, "provider openai-videos"));
            assert!(
                found[0].says.contains("closed since 2026-09-24") && found[0].says.contains(says),
                "{found:?}"
            );
        }
    }

    #[test]
    fn an_old_last_pass_is_a_failure_and_a_new_installation_is_not() {
        let now = Timestamp::from_micros(1_764_000_000_000_000);
        let ago = |minutes| Some(now - Duration::from_mins(minutes));
        let grade = |last, first| {
            let mut found = Findings::default();
            passes(last, first, now, &mut found);
            found.0[0].grade
        };
        assert_eq!(grade(None, None), Grade::Warn);
        assert_eq!(grade(None, ago(14)), Grade::Warn);
        assert_eq!(grade(None, ago(16)), Grade::Fail);
        assert_eq!(grade(ago(15), ago(900)), Grade::Ok);
        assert_eq!(grade(ago(16), ago(900)), Grade::Fail);
    }

    #[test]
    fn late_items_are_a_failure_except_those_of_a_first_pass() {
        let told = |late, overdue, is_new| {
            let mut found = Findings::default();
            lateness(late, overdue, is_new, &mut found);
            found.0.into_iter().map(|each| (each.grade, each.says)).collect::<Vec<_>>()
        };
        assert_eq!(told(0, 0, false), [(Grade::Ok, "none is late".to_owned())]);
        let says = "5 items are past the window".to_owned();
        assert_eq!(told(5, 0, false), [(Grade::Fail, says.clone())]);
        let first = format!("{says}, found by the first pass, less than 24h ago");
        assert_eq!(told(5, 0, true), [(Grade::Warn, first)]);
        let overdue = "1 item should have been refunded more than 15m ago".to_owned();
        assert_eq!(told(0, 1, true), [(Grade::Fail, overdue)]);
    }

    #[tokio::test]
    async fn a_similar_provider_name_is_suggested() {
        let providers = Providers::load(None, Clock::System).unwrap();
        for (name, near) in
            [("Replicate", Some("replicate")), ("REPLICATE ", Some("replicate")), ("acme", None)]
        {
            let mut found = Findings::default();
            keys(&providers, &BTreeMap::from([(name.to_owned(), 3)]), &mut found).await;
            let told = found.0.iter().find(|each| each.says.contains("has no provider file")).unwrap();
            assert_eq!(told.grade, Grade::Fail);
            let meant = near.map(|near| format!("did you mean `{near}`?"));
            assert_eq!(told.says.contains("did you mean"), near.is_some(), "{told:?}");
            assert!(meant.is_none_or(|meant| told.says.ends_with(&meant)), "{told:?}");
        }
    }
}
