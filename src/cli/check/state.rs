//! How passes are doing: when the last one succeeded, the brake, what is late, and keys of
//! providers that are in use.
//!
//! Fails where a promise is being broken or credits are held now: no pass has succeeded lately, the
//! brake is on, items are past their time, a key is missing or refused, an item can never be opened
//! or posted. Warns of what can wait, and of an installation that is new. Each line ends with the
//! command to type next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Findings, Grade};
use crate::cli::explain::{because, read_reason};
use crate::cli::provider::list::looked_for;
use crate::cli::words::{count, plain, relative, time};
use crate::clock::Timestamp;
use crate::config::nearest;
use crate::policy::Reason;
use crate::provider::{Providers, SecretSource};
use crate::report::chain;
use crate::store::{DbError, Store, Unresolved};

/// As the alert says.
const LATELY: Duration = Duration::from_mins(15);
/// A provider that charges name within this time is in use.
const IN_USE: Duration = Duration::from_hours(24);
/// What a first pass finds late was late before makegood came. So long its late items are not ours.
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
                "`makegood brake status` says what it holds; once that is right, \
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
            format!("ON for {provider} alone since {}: {}", relative(held.engaged_at, now), held.reason),
            format!(
                "`makegood brake release --provider {provider} --by WHO --reason WHY` lets its refunds go"
            ),
        );
    }
    if brake.accounts_held > 0 {
        found.warn(
            "brake",
            format!(
                "{} held by limits of their own",
                count(i128::from(brake.accounts_held), "account is", "accounts are")
            ),
            "`makegood brake status` lists them",
        );
    }
    let unresolved = store.unresolved(now).await?;
    let late: u64 = unresolved.iter().filter(|each| !each.for_account).map(|each| each.past_window).sum();
    let is_new = first_pass.is_none_or(|began| now.since(began) < NEW);
    lateness(late, store.overdue(now - LATELY, now).await?, is_new, found);
    if let Some(after) = store.cursors().await?.first_refused() {
        found.fail(
            "refused rows",
            format!("since {} the database refuses to open orphans for some items: nothing is made good for them", time(after)),
            format!("`makegood run --dry-run --since {after}` names them (`refused_row`); mend the rows, they are tried again within the hour"),
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

/// When a pass last succeeded. On a new installation nobody has promised anything yet.
fn passes(last: Option<Timestamp>, first: Option<Timestamp>, now: Timestamp, found: &mut Findings) {
    const ABOUT: &str = "passes";
    match (last, first) {
        (Some(at), _) if now.since(at) > LATELY => found.fail(
            ABOUT,
            format!(
                "the last one that succeeded ended {}: nothing is made good meanwhile",
                relative(at, now)
            ),
            "`makegood run` does one now and says what fails; does the schedule run?",
        ),
        (Some(at), _) => found.ok(ABOUT, format!("the last one that succeeded ended {}", relative(at, now))),
        (None, Some(began)) if now.since(began) > LATELY => found.fail(
            ABOUT,
            format!("none has succeeded; the first began {}", relative(began, now)),
            "`makegood run` does one now and says what fails",
        ),
        (None, _) => found.warn(
            ABOUT,
            "none has succeeded yet",
            "run one: `makegood run --dry-run` first, then `makegood run`",
        ),
    }
}

/// What is not made good although its time is up: `late` is past its window, `overdue` inside it.
fn lateness(late: u64, overdue: u64, is_new: bool, found: &mut Findings) {
    const ABOUT: &str = "orphans";
    let are = |many: u64| if many == 1 { "is" } else { "are" };
    if late > 0 {
        let says = format!("{} {} past the time promised", count(late, "item", "items"), are(late));
        if is_new {
            found.warn(
                ABOUT,
                format!("{says}, found by a first pass that is less than 24h ago"),
                "`makegood report` lists them with the reason of each; passes go on making them good",
            );
        } else {
            found.fail(
                ABOUT,
                says,
                "`makegood report` lists them with the reason of each, `makegood explain CHARGE/INDEX` tells one",
            );
        }
    }
    if overdue > 0 {
        found.fail(
            ABOUT,
            format!("{} should have been refunded more than 15m ago", count(overdue, "item", "items")),
            "`makegood run` does a pass now; `makegood report` lists what is left, with the reason of each",
        );
    }
    if late == 0 && overdue == 0 {
        found.ok(ABOUT, "none is late");
    }
}

/// What the last questions came to, where that is for a person to mend.
fn answers(unresolved: &[Unresolved], found: &mut Findings) {
    for each in unresolved {
        let Some(reason) = read_reason(&each.reason) else { continue };
        let (grade, advice) = match reason {
            Reason::Unauthorized => (
                Grade::Fail,
                "`makegood provider list` says where the key is looked for; mend it there, the next pass asks again",
            ),
            Reason::UnknownProvider => (Grade::Fail, "add a provider file of that name to providers.dir"),
            Reason::NotPosted => (
                Grade::Fail,
                "mend the trigger or view behind `balances` or `ledger_entries`; `makegood explain CHARGE/INDEX` says which",
            ),
            Reason::CannotPost => (
                Grade::Fail,
                "see what this says of `posting`, `rights` and the relations; what is held is paid within the hour after it is mended",
            ),
            Reason::NoBalance => (
                Grade::Warn,
                "give the account one row in `balances` for each bucket; `makegood report` names the items",
            ),
            Reason::ChargeChanged
            | Reason::DebitsMismatch
            | Reason::ItemsMismatch
            | Reason::MissingHash
            | Reason::DuplicateJob
            | Reason::AlreadyRefunded => (
                Grade::Warn,
                "`makegood report` names them, `makegood explain CHARGE/INDEX` says what a person can do",
            ),
            Reason::Unreachable | Reason::RateLimited => {
                (Grade::Warn, "usually passes by itself; see the provider's status page")
            }
            Reason::Unreadable => (
                Grade::Warn,
                "its answers have changed: `makegood explain CHARGE/INDEX` shows one, `makegood provider test` reads it",
            ),
            Reason::RecoveryRetry => (Grade::Warn, "`makegood explain CHARGE/INDEX` says what went wrong"),
            Reason::CannotRelink => (
                Grade::Warn,
                "the platform's stored_outputs refuses the UPDATE; `makegood explain CHARGE/INDEX` says of which output",
            ),
            Reason::Delivered
            | Reason::Misattributed
            | Reason::NoProviderJob
            | Reason::MaybeNotSubmittedYet
            | Reason::OutputAvailable
            | Reason::ServerError
            | Reason::QueueTimeout
            | Reason::ContentSafety
            | Reason::MalformedResponse
            | Reason::ProviderError
            | Reason::CompletedAfterCancel
            | Reason::OutputExpired
            | Reason::MissingOutput
            | Reason::ProviderCancelled
            | Reason::ReportedFailed
            | Reason::MaybeNotVisibleYet
            | Reason::NeverReturned
            | Reason::StillRunning
            | Reason::TimedOut
            | Reason::Unconfirmed
            | Reason::RecoveryFailed
            | Reason::ByHand
            | Reason::Brake => continue,
        };
        found.add(
            grade,
            &format!("provider {}", plain(&each.provider)),
            format!("{} because {}", waits(each), because(reason)),
            advice,
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

/// Whether each provider's key is there. A command for one is run where charges need it: whether it
/// prints a key cannot be told otherwise.
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
        match (looked_for(provider), present) {
            (None, _) => found.ok(&about, "none needed"),
            (Some(place), Ok(())) if is_command && charges == 0 => {
                found.ok(&about, format!("not tried, from {place}; no charge of the last 24 hours needs it"));
            }
            (Some(place), Ok(())) => found.ok(&about, format!("present, from {place}")),
            (Some(_), Err(error)) if charges > 0 => found.fail(
                &about,
                chain(&error),
                format!(
                    "{} in the last 24 hours cannot be asked about: put the key there where passes run, and see \
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
                Some(near) => format!("let the charges say `{near}`, as its file does, or add a file of that name to providers.dir"),
                None => "add a provider file of that name to providers.dir, or correct the charges".to_owned(),
            },
        );
    }
}

/// Providers whose API is shut down, or will be, and that charges still name or cases still wait
/// for.
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
            "stop selling it: what it no longer answers waits, and is refunded when the time of the charge is up",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn a_missing_key_fails_only_where_it_is_needed() {
        // What the binary does at its start.
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
        // It said "present" of a command that it had never run.
        assert_eq!(grade(&[], "key of silent").await, Some(Grade::Ok));
        assert_eq!(grade(&[("silent", 3)], "key of silent").await, Some(Grade::Fail));
        assert_eq!(grade(&[("talks", 3)], "key of talks").await, Some(Grade::Ok));
        assert_eq!(grade(&[("nobody", 1)], "provider nobody").await, Some(Grade::Fail));
        assert_eq!(grade(&[], "provider nobody").await, None);
    }

    #[test]
    fn a_closed_provider_is_told_while_something_depends_on_it() {
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
    fn a_pass_that_is_long_ago_fails_and_a_new_installation_does_not() {
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
    fn what_is_late_fails_but_for_what_a_first_pass_finds() {
        let told = |late, overdue, is_new| {
            let mut found = Findings::default();
            lateness(late, overdue, is_new, &mut found);
            found.0.into_iter().map(|each| (each.grade, each.says)).collect::<Vec<_>>()
        };
        assert_eq!(told(0, 0, false), [(Grade::Ok, "none is late".to_owned())]);
        let says = "5 items are past the time promised".to_owned();
        assert_eq!(told(5, 0, false), [(Grade::Fail, says.clone())]);
        let first = format!("{says}, found by a first pass that is less than 24h ago");
        assert_eq!(told(5, 0, true), [(Grade::Warn, first)]);
        let overdue = "1 item should have been refunded more than 15m ago".to_owned();
        assert_eq!(told(0, 1, true), [(Grade::Fail, overdue)]);
    }

    #[tokio::test]
    async fn a_provider_that_is_nearly_spelled_right_is_named() {
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
