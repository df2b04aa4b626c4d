//! What can be told without the database: settings that are odd, provider files, the storage.

use std::path::Path;
use std::time::Duration;

use super::Findings;
use crate::cli::parts::load_providers;
use crate::cli::words::count;
use crate::clock::{Clock, Timestamp};
use crate::config::{DatabaseKind, Settings};
use crate::duration::format_rounded;
use crate::provider::Providers;
use crate::recovery::{ObjectStorage, StorageError};
use crate::report::chain;
use crate::schedule::CronSchedule;

/// Beyond this between two passes, a failure on record waits longer than a minute or two (P19).
const OFTEN_ENOUGH: Duration = Duration::from_mins(2);
/// So many firings are looked at for the longest time between two.
const FIRINGS: usize = 2000;

pub(super) fn check(settings: &Settings, found: &mut Findings) {
    if settings.recovery.allow_loopback {
        found.warn(
            "recovery",
            "allow_loopback is on: an answer may have files fetched from this machine",
            "for trying out and tests only; set recovery.allow_loopback = false",
        );
    }
    let brake = &settings.brake;
    let per_pass =
        [brake.max_refunds_per_pass, brake.max_credits_per_pass, brake.max_refunds_per_pass_per_provider];
    let per_hour =
        [brake.max_refunds_per_hour, brake.max_credits_per_hour, brake.max_refunds_per_hour_per_provider];
    let per_day = [
        brake.max_refunds_per_day,
        brake.max_credits_per_day,
        brake.max_refunds_per_day_per_provider,
        brake.max_refund_share_per_day,
    ];
    if per_pass.iter().chain(&per_hour).chain(&per_day).all(|limit| *limit == 0) {
        found.warn("brake", "no limit is set: nothing stops refunds that are wrong", "set limits in [brake]");
    }
    if settings.database.url.kind() == DatabaseKind::Postgres && settings.storage.url.scheme() == "file" {
        found.warn(
            "storage",
            "outputs are stored on this machine's disk",
            "right for a disk that the platform and all workers share; otherwise set storage.url to a bucket",
        );
    }
    match settings.schedule.timetable() {
        Ok(timetable) => {
            let gap = longest_gap(&timetable, Clock::System.now());
            if gap > OFTEN_ENOUGH {
                found.warn(
                    "schedule",
                    format!("up to {} between two passes of the daemon", format_rounded(gap)),
                    "a failure on record is refunded within a minute or two only with a pass every minute",
                );
            }
        }
        Err(error) => found.fail("schedule", error.to_string(), "mend schedule.cron"),
    }
}

/// The provider files, and whether outputs are asked for before they are dropped.
pub(super) fn providers(settings: &Settings, found: &mut Findings) -> Option<Providers> {
    match load_providers(settings) {
        Ok(providers) => {
            judge(&providers, settings, found);
            Some(providers)
        }
        Err(error) => {
            found.fail("provider files", chain(&error), "no pass can run until the file is mended");
            None
        }
    }
}

fn judge(providers: &Providers, settings: &Settings, found: &mut Findings) {
    let names: Vec<&str> = providers.names().collect();
    let say = format!("{}: {}", count(names.len() as i128, "provider", "providers"), names.join(", "));
    found.ok("provider files", say);
    if let Some((name, budget)) = providers.too_patient(settings.pass.lease) {
        found.fail(
            &format!("provider {name}"),
            format!(
                "its files may take {} each, and a lease is {}",
                format_rounded(budget),
                format_rounded(settings.pass.lease)
            ),
            "no pass can run: make recovery.time_budget in its file shorter, or pass.lease longer",
        );
    }
    let gap = settings
        .schedule
        .timetable()
        .map_or(Duration::ZERO, |timetable| longest_gap(&timetable, Clock::System.now()));
    let now = Clock::System.now();
    for provider in providers.iter() {
        let has_key = provider.secret_source().is_some() && provider.secret_present().is_ok();
        if let Some(closed) = provider.closed.as_ref().filter(|_| has_key) {
            found.warn(
                &format!("provider {}", provider.name),
                format!("its API is {}, and it is set up: its key is there", closed.told(now)),
                "sell it no more, and take the key away once nothing waits for it",
            );
        }
        let graces = provider
            .models
            .values()
            .map(|model| model.grace)
            .chain([provider.grace.unwrap_or(settings.detect.grace)]);
        let (Some(retention), Some(grace)) = (provider.retention, graces.max()) else {
            continue;
        };
        // As detection caps it.
        let first_question = grace.min(retention / 3) + gap;
        if first_question > retention / 2 {
            found.warn(
                &format!("provider {}", provider.name),
                format!(
                    "keeps outputs for {}, and the first question may come {} after the charge",
                    format_rounded(retention),
                    format_rounded(first_question)
                ),
                "outputs may be gone before they are asked for: shorten its grace, or run passes more often",
            );
        }
    }
}

/// Writes one small object, reads it back by the URI that would be recorded, and deletes it.
pub(super) async fn storage(settings: &Settings, found: &mut Findings) {
    let url = settings.storage.url.as_str();
    let tried = match ObjectStorage::open(url, Path::new(".")) {
        Ok(storage) => storage.check().await,
        Err(error) => Err(error),
    };
    match tried {
        Ok(uri) => found.ok(
            "storage",
            format!("an object was written to {url}, read back by its URI ({uri}) and deleted"),
        ),
        Err(error @ StorageError::Variable { .. }) => {
            found.fail(
                "storage",
                chain(&error),
                "no pass can run: docs/storage.md says what each service wants",
            );
        }
        Err(error) => found.fail(
            "storage",
            chain(&error),
            "outputs cannot be brought home: check storage.url and the credentials in the environment",
        ),
    }
}

/// The longest time between two of the next firings.
fn longest_gap(timetable: &CronSchedule, now: Timestamp) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last: Option<Timestamp> = None;
    let mut at = now;
    for _ in 0..FIRINGS {
        let Some(next) = timetable.next_after(at) else { break };
        longest = longest.max(last.map_or(Duration::ZERO, |last| next.since(last)));
        last = Some(next);
        at = next;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::config::{Flag, LoadArgs};

    fn settings(flags: &[(&'static str, &str)]) -> Settings {
        let flags = flags.iter().map(|(key, value)| Flag { name: "--x", key, value: (*value).to_owned() });
        Settings::load(&LoadArgs { flags: flags.collect(), ..LoadArgs::default() }).unwrap()
    }

    fn told(settings: &Settings) -> String {
        let mut found = Findings::default();
        check(settings, &mut found);
        // The workers of filters are the built command, which this is not.
        let dir = settings.providers.dir.as_deref();
        judge(&Providers::load(dir, Clock::System).unwrap(), settings, &mut found);
        let odd = found.0.iter().filter(|finding| finding.grade != Grade::Ok);
        odd.fold(String::new(), |text, finding| format!("{text}{}: {}\n", finding.about, finding.says))
    }

    #[test]
    fn the_defaults_are_nothing_to_warn_of() {
        assert_eq!(told(&settings(&[])), "");
    }

    #[test]
    fn a_schedule_that_comes_too_late_is_told() {
        let told = told(&settings(&[("schedule.cron", "0 0 */2 * * *")]));
        assert!(told.contains("schedule: up to 2h between two passes"), "{told}");
        assert!(
            told.contains(
                "provider fal: keeps outputs for 1h, and the first question may come 2h 10m after the charge"
            ),
            "{told}"
        );
    }

    #[test]
    fn fetching_from_this_machine_is_told() {
        let told = told(&settings(&[("recovery.allow_loopback", "true")]));
        assert!(told.starts_with("recovery: allow_loopback is on"), "{told}");
    }

    #[test]
    fn a_provider_file_that_waits_longer_than_a_lease_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = "[provider]\nname = \"acme\"\noutput_hosts = []\n[recovery.models.\"long/*\"]\ntime_budget = \"15m\"\n\
                    [ask]\nrequest = \"GET https://a.example/{job}\"\nread = '{verdict: \"running\"}'\n";
        std::fs::write(folder.path().join("acme.toml"), file).unwrap();
        let dir = folder.path().display().to_string();
        let with_lease = |lease| told(&settings(&[("providers.dir", &dir), ("pass.lease", lease)]));
        assert!(with_lease("15m").contains("provider acme: its files may take 15m each, and a lease is 15m"));
        assert_eq!(with_lease("16m"), "");
    }

    #[test]
    fn a_closed_provider_is_told_where_its_key_is() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        let file = format!(
            "[provider]\nname = \"acme\"\noutput_hosts = []\nclosed = {{ on = \"2026-09-24\", why = \"sold\" }}\n\
             [auth]\nheader = \"x\"\nvalue = \"{{secret}}\"\nsecret = {{ file = {:?} }}\n\
             [ask]\nrequest = \"GET https://a.example/{{job}}\"\nread = '{{verdict: \"running\"}}'\n",
            key.display().to_string(),
        );
        std::fs::write(folder.path().join("acme.toml"), file).unwrap();
        let dir = folder.path().display().to_string();
        assert_eq!(told(&settings(&[("providers.dir", &dir)])), "");
        std::fs::write(&key, "s3cret").unwrap();
        assert_eq!(
            told(&settings(&[("providers.dir", &dir)])),
            "provider acme: its API is closed since 2026-09-24: sold, and it is set up: its key is there\n"
        );
    }

    #[test]
    fn outputs_on_this_machine_are_told_in_production_only() {
        let told = told(&settings(&[("database.url", "postgres://ada:hunter2@db/credits")]));
        assert!(told.contains("storage: outputs are stored on this machine's disk"), "{told}");
    }
}
