//! Checks that need no database: unusual settings, provider files, the storage.

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

/// The longest time between two passes that keeps P19 (a recorded failure is refunded within a
/// minute or two).
const MAX_GAP: Duration = Duration::from_mins(2);
/// The number of firings examined for the longest gap.
const FIRINGS: usize = 2000;

pub(super) fn check(settings: &Settings, found: &mut Findings) {
    if settings.recovery.allow_loopback {
        found.warn(
            "recovery",
            "allow_loopback is on: an answer can make makegood download from this machine",
            "only for tests; set recovery.allow_loopback = false",
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
        found.warn("brake", "no limit is set: nothing stops wrong refunds", "set limits in [brake]");
    }
    if settings.database.url.kind() == DatabaseKind::Postgres && settings.storage.url.scheme() == "file" {
        found.warn(
            "storage",
            "outputs are stored on this machine's disk",
            "correct if the platform and all workers share the disk; otherwise set storage.url to a bucket",
        );
    }
    match settings.schedule.timetable() {
        Ok(timetable) => {
            let gap = longest_gap(&timetable, Clock::System.now());
            if gap > MAX_GAP {
                found.warn(
                    "schedule",
                    format!("up to {} between two passes of the daemon", format_rounded(gap)),
                    "a failure on record is refunded within a minute or two only with a pass every minute",
                );
            }
        }
        Err(error) => found.fail("schedule", error.to_string(), "fix schedule.cron"),
    }
}

/// Checks the provider files, and whether the first question comes before outputs expire.
pub(super) fn providers(settings: &Settings, found: &mut Findings) -> Option<Providers> {
    match load_providers(settings) {
        Ok(providers) => {
            judge(&providers, settings, found);
            Some(providers)
        }
        Err(error) => {
            found.fail("provider files", chain(&error), "no pass can run until the file is fixed");
            None
        }
    }
}

fn judge(providers: &Providers, settings: &Settings, found: &mut Findings) {
    let names: Vec<&str> = providers.names().collect();
    let say = format!("{}: {}", count(names.len() as i128, "provider", "providers"), names.join(", "));
    found.ok("provider files", say);
    if let Some((name, budget)) = providers.time_budget_beyond(settings.pass.lease) {
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
                format!("its API is {}, and its key is still configured", closed.describe(now)),
                "stop selling it, and remove the key once no item waits for it",
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
        // Detection applies the same limit.
        let first_question = grace.min(retention / 3) + gap;
        if first_question > retention / 2 {
            found.warn(
                &format!("provider {}", provider.name),
                format!(
                    "keeps outputs for {}, and the first question may come {} after the charge",
                    format_rounded(retention),
                    format_rounded(first_question)
                ),
                "outputs may expire before the first question: shorten its grace, or run passes more often",
            );
        }
    }
}

/// Writes a small object, reads it back by its URI, and deletes it.
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
                "no pass can run: see docs/storage.md on what each service needs",
            );
        }
        Err(error) => found.fail(
            "storage",
            chain(&error),
            "outputs cannot be recovered: check storage.url and the credentials in the environment",
        ),
    }
}

/// The longest time between two consecutive firings of the near future.
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
        // The test binary cannot start filter workers, so this does not use `providers`.
        let dir = settings.providers.dir.as_deref();
        judge(&Providers::load(dir, Clock::System).unwrap(), settings, &mut found);
        let odd = found.0.iter().filter(|finding| finding.grade != Grade::Ok);
        odd.fold(String::new(), |text, finding| format!("{text}{}: {}\n", finding.about, finding.says))
    }

    #[test]
    fn the_defaults_cause_no_warning() {
        assert_eq!(told(&settings(&[])), "");
    }

    #[test]
    fn a_schedule_with_long_gaps_is_a_warning() {
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
    fn allow_loopback_is_a_warning() {
        let told = told(&settings(&[("recovery.allow_loopback", "true")]));
        assert!(told.starts_with("recovery: allow_loopback is on"), "{told}");
    }

    #[test]
    fn a_download_that_may_outlast_the_lease_is_a_failure() {
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
    fn a_closed_provider_with_a_key_is_a_warning() {
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
            "provider acme: its API is closed since 2026-09-24: sold, and its key is still configured\n"
        );
    }

    #[test]
    fn outputs_on_the_local_disk_are_a_warning_in_production_only() {
        let told = told(&settings(&[("database.url", "postgres://ada:hunter2@db/credits")]));
        assert!(told.contains("storage: outputs are stored on this machine's disk"), "{told}");
    }
}
