//! How passes are doing: when the last one succeeded, the brake, what is late, and keys of providers that are in use.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Findings;
use crate::cli::explain::{because, read_reason};
use crate::cli::provider::list::looked_for;
use crate::cli::words::{count, plain, relative};
use crate::clock::Timestamp;
use crate::policy::Reason;
use crate::provider::Providers;
use crate::report::chain;
use crate::store::{DbError, Store, Unresolved};

/// As the alert says.
const LATELY: Duration = Duration::from_mins(15);
/// A provider that charges name within this time is in use.
const IN_USE: Duration = Duration::from_hours(24);

pub(super) async fn check(store: &Store, providers: Option<&Providers>, found: &mut Findings) {
    if let Err(error) = look(store, providers, found).await {
        found.fail("state", chain(&error), "");
    }
}

async fn look(store: &Store, providers: Option<&Providers>, found: &mut Findings) -> Result<(), DbError> {
    let now = store.now().await?;
    last_success(store.last_success().await?, now, found);
    let brake = store.brake().await?;
    let held = brake.held();
    for (since, why) in [(brake.engaged_at, held.all), (brake.own_faults_at, held.own_faults)] {
        if let (Some(since), Some(why)) = (since, why) {
            found.warn(
                "brake",
                format!("ON since {}: {why}", relative(since, now)),
                "refunds are held; see `makegood brake status`",
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
    if late == 0 {
        found.ok("orphans", "none is late");
    } else {
        let are = if late == 1 { "is" } else { "are" };
        found.warn(
            "orphans",
            format!("{} {are} past the time promised", count(late, "item", "items")),
            "`makegood report` lists them with the reason of each",
        );
    }
    answers(&unresolved, found);
    if let Some(providers) = providers {
        let in_use: BTreeMap<String, i64> = store.recent_providers(now - IN_USE).await?.into_iter().collect();
        keys(providers, &in_use, found);
        closed(providers, &in_use, &unresolved, now, found);
    }
    Ok(())
}

fn last_success(at: Option<Timestamp>, now: Timestamp, found: &mut Findings) {
    match at {
        None => found.warn(
            "passes",
            "none has succeeded yet",
            "run one: `makegood run --dry-run` first, then `makegood run`",
        ),
        Some(at) if now.since(at) > LATELY => found.warn(
            "passes",
            format!("the last one that succeeded ended {}", relative(at, now)),
            "does the schedule run? see the log of the last pass",
        ),
        Some(at) => found.ok("passes", format!("the last one that succeeded ended {}", relative(at, now))),
    }
}

/// What the last questions came to, where that is for a person to mend.
fn answers(unresolved: &[Unresolved], found: &mut Findings) {
    for each in unresolved {
        let Some(reason) = read_reason(&each.reason) else { continue };
        let advice = match reason {
            Reason::Unauthorized => "mend the key; the next pass asks again",
            Reason::Unreachable | Reason::RateLimited => {
                "usually passes by itself; see the provider's status page"
            }
            Reason::Unreadable => {
                "its answers have changed: `makegood explain` shows one, `makegood provider test` reads it"
            }
            Reason::UnknownProvider => "add a provider file of that name to providers.dir",
            Reason::RecoveryRetry => "`makegood explain` says what went wrong",
            Reason::CannotRelink => {
                "the platform's stored_outputs refuses the UPDATE; `makegood explain` says of which output"
            }
            Reason::Delivered
            | Reason::AlreadyRefunded
            | Reason::Misattributed
            | Reason::DuplicateJob
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
            | Reason::Brake
            | Reason::NoBalance
            | Reason::NotPosted
            | Reason::CannotPost
            | Reason::ChargeChanged
            | Reason::DebitsMismatch
            | Reason::ItemsMismatch
            | Reason::MissingHash => continue,
        };
        found.warn(
            &format!("provider {}", plain(&each.provider)),
            format!("{} because {}", count(each.orphans, "item waits", "items wait"), because(reason)),
            advice,
        );
    }
}

fn keys(providers: &Providers, in_use: &BTreeMap<String, i64>, found: &mut Findings) {
    for provider in providers.iter() {
        let about = format!("key of {}", provider.name);
        let charges = in_use.get(&provider.name).copied().unwrap_or(0);
        match (looked_for(provider), provider.secret_present()) {
            (None, _) => found.ok(&about, "none needed"),
            (Some(place), Ok(())) => found.ok(&about, format!("present, from {place}")),
            (Some(_), Err(error)) if charges > 0 => found.fail(
                &about,
                chain(&error),
                format!("{} in the last 24 hours cannot be asked about", count(charges, "charge", "charges")),
            ),
            (Some(place), Err(_)) => {
                found.ok(&about, format!("not in {place}; no charge of the last 24 hours needs it"));
            }
        }
    }
    for (name, charges) in in_use.iter().filter(|(name, _)| providers.get(name).is_none()) {
        found.fail(
            &format!("provider {}", plain(name)),
            format!("no provider file, but {} of the last 24 hours", count(*charges, "charge", "charges")),
            "add a provider file of that name to providers.dir, or correct the charges",
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
                closed.told(now),
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

    #[test]
    fn a_missing_key_fails_only_where_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let file = "[provider]\nname = \"acme\"\noutput_hosts = []\n[auth]\nheader = \"x\"\nvalue = \"{secret}\"\n\
                    secret = { env = \"MAKEGOOD_TEST_NO_SUCH_KEY\" }\n\
                    [ask]\nrequest = \"GET https://acme.example/{job}\"\nread = '{verdict: \"running\"}'\n";
        std::fs::write(dir.path().join("acme.toml"), file).unwrap();
        let providers = Providers::load(Some(dir.path()), Clock::System).unwrap();
        let grade = |in_use: &[(&str, i64)], about: &str| {
            let mut found = Findings::default();
            keys(&providers, &in_use.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(), &mut found);
            found.0.iter().find(|finding| finding.about == about).map(|finding| finding.grade)
        };
        assert_eq!(grade(&[], "key of acme"), Some(Grade::Ok));
        assert_eq!(grade(&[("acme", 3)], "key of acme"), Some(Grade::Fail));
        assert_eq!(grade(&[("nobody", 1)], "provider nobody"), Some(Grade::Fail));
        assert_eq!(grade(&[], "provider nobody"), None);
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
    fn a_pass_that_is_long_ago_is_told() {
        let now = Timestamp::from_micros(1_764_000_000_000_000);
        let grade = |at| {
            let mut found = Findings::default();
            last_success(at, now, &mut found);
            found.0[0].grade
        };
        assert_eq!(grade(None), Grade::Warn);
        assert_eq!(grade(Some(now - Duration::from_mins(15))), Grade::Ok);
        assert_eq!(grade(Some(now - Duration::from_mins(16))), Grade::Warn);
    }
}
