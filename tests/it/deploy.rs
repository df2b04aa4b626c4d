//! `deploy/` and `docs/` are true: each alert links to a runbook that exists, the commands in a
//! runbook are valid, and the manifests have the settings that the pages promise. promtool tests
//! whether the alerts fire (`alerts_test.yaml`).

use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser as _;
use makegood::cli::Cli;
use makegood::clock::Clock;
use makegood::config::{LoadArgs, Settings, share_of_limit};
use makegood::provider::Providers;

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const ALERT_TESTS: &str = include_str!("../../deploy/prometheus/alerts_test.yaml");
const OPERATING: &str = include_str!("../../docs/operating.md");
const CRONJOB: &str = include_str!("../../deploy/kubernetes/cronjob.yaml");
const MIGRATE: &str = include_str!("../../deploy/kubernetes/migrate.yaml");

/// The value after `key: ` on each line that has it, without list dashes and indents.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    yaml.lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key)?.strip_prefix(": "))
        .collect()
}

/// The names under which the headings of a page are linked to.
fn anchors(markdown: &str) -> BTreeSet<String> {
    markdown
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#').trim().to_lowercase().replace([',', '.'], "").replace(' ', "-")
        })
        .collect()
}

#[test]
fn p24_each_alert_has_a_runbook_and_a_test() {
    let alerts = values(ALERTS, "alert");
    assert_eq!(
        alerts,
        [
            "MakegoodNoSuccessLately",
            "MakegoodOrphansPastWindow",
            "MakegoodBrakeEngaged",
            "MakegoodAccountHeld"
        ]
    );

    let headings = anchors(OPERATING);
    let runbooks: Vec<String> =
        alerts.iter().map(|alert| format!("docs/operating.md#{}", alert.to_lowercase())).collect();
    assert_eq!(values(ALERTS, "runbook_url"), runbooks);
    for alert in alerts {
        assert!(headings.contains(&alert.to_lowercase()), "docs/operating.md has no runbook for {alert}");
        assert!(
            ALERT_TESTS.contains(&format!("alertname: {alert}")),
            "alerts_test.yaml does not test {alert}"
        );
    }
}

#[test]
fn links_inside_the_operating_page_lead_somewhere() {
    let headings = anchors(OPERATING);
    let links: Vec<&str> = OPERATING
        .split("](#")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .collect();
    assert!(links.len() >= 5, "{links:?}");
    for link in links {
        assert!(headings.contains(link), "docs/operating.md links to #{link}, which is not there");
    }
}

#[test]
fn the_cronjob_never_runs_two_passes_and_gives_no_more_rights_than_needed() {
    for (key, value) in [
        ("concurrencyPolicy", "Forbid"),
        ("backoffLimit", "0"),
        ("restartPolicy", "Never"),
        ("runAsNonRoot", "true"),
        ("readOnlyRootFilesystem", "true"),
        ("allowPrivilegeEscalation", "false"),
        ("drop", "[ALL]"),
        // Wrong configuration; done, but a person is needed.
        ("values", "[2, 3]"),
    ] {
        assert_eq!(values(CRONJOB, key), [value], "{key}");
    }
}

/// Whether makegood accepts these arguments; it parses them and runs nothing.
#[track_caller]
fn assert_understood(arguments: &[&str]) {
    let line = std::iter::once("makegood").chain(arguments.iter().copied());
    if let Err(refused) = Cli::try_parse_from(line) {
        assert_eq!(refused.exit_code(), 0, "makegood does not understand {arguments:?}: {refused}");
    }
}

#[test]
fn the_manifests_call_makegood_as_it_wants_to_be_called() {
    for manifest in [CRONJOB, MIGRATE] {
        let [arguments] = values(manifest, "args")[..] else { panic!("one list of arguments is expected") };
        let arguments: Vec<String> = serde_json::from_str(arguments).unwrap();
        assert_understood(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// The commands on a page, as words: inline code, and each line of a fenced block, that begins with
/// `makegood` or `mg`.
fn commands(markdown: &str) -> Vec<Vec<String>> {
    let spans = markdown.split('`').skip(1).step_by(2);
    // A fenced block ends with a line feed and has a command per line. Inline code may be wrapped.
    let lines = spans.flat_map(|span| {
        if span.ends_with('\n') {
            span.lines().map(str::to_owned).collect()
        } else {
            vec![span.split_whitespace().collect::<Vec<_>>().join(" ")]
        }
    });
    lines
        .filter_map(|line| {
            let command = line.strip_prefix("makegood ").or_else(|| line.strip_prefix("mg "))?;
            Some(words(command.split('#').next().unwrap_or_default()))
        })
        .collect()
}

/// Splits like a shell, as far as the page needs it: at blanks, with double quotes.
fn words(code: &str) -> Vec<String> {
    code.split('"')
        .enumerate()
        .flat_map(|(part, text)| match part % 2 {
            0 => text.split_whitespace().collect(),
            _ => vec![text],
        })
        .map(|word| if word == "T" { "36h" } else { word }.to_owned())
        .collect()
}

/// The most memory that a pass with these settings and the shipped provider files takes, beside the
/// process itself. Measured: 60 MiB for a pass of a release build, 7 MiB for an idle filter worker.
#[test]
fn the_memory_limit_is_enough_for_the_shipped_settings() {
    const PROCESS_BYTES: u64 = 80 << 20;
    const WORKER_BYTES: u64 = 8 << 20;
    const COPY_BYTES: u64 = 24 << 20;
    let limits: Vec<&str> = values(CRONJOB, "memory");
    let limit = limits.last().unwrap().strip_suffix("Mi").unwrap().parse::<u64>().unwrap() << 20;
    let providers = Providers::load(None, Clock::System).unwrap();
    let shipped = providers.iter().count() as u64;
    // A decoded file is three quarters of its base64. Copying needs parts of it in addition.
    let largest = providers.iter().map(|provider| provider.max_body_bytes as u64 * 3 / 4 + COPY_BYTES).max();
    let shared = share_of_limit(Some(limit)).max(shipped * COPY_BYTES);
    let sum = PROCESS_BYTES + shipped * WORKER_BYTES + shared + largest.unwrap();
    assert!(sum <= limit, "{} of {} MiB", sum >> 20, limit >> 20);
    let sample = include_str!("../../deploy/kubernetes/makegood.toml");
    assert!(!sample.contains("memory"), "the sample leaves the memory to the default");
    assert!(include_str!("../../config/default.toml").contains("\nmemory = \"auto\"\n"));
}

#[test]
fn the_operating_page_names_commands_that_there_are() {
    let commands = commands(OPERATING);
    let names: BTreeSet<&str> = commands.iter().map(|words| words[0].as_str()).collect();
    for expected in ["brake", "check", "explain", "migrate", "report", "run", "schedule"] {
        assert!(names.contains(expected), "{expected} is missing among {names:?}");
    }
    for command in commands {
        assert_understood(&command.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn the_sample_settings_are_accepted() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes/makegood.toml");
    let loaded = Settings::load(&LoadArgs {
        file: Some(file),
        env: vec![("DATABASE_URL".into(), "postgres://makegood:secret@postgres.example.com/platform".into())],
        flags: Vec::new(),
        working_dir: "/".into(),
    });
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}
