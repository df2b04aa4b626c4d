//! What stands in `deploy/` and `docs/` is true: each alert leads to a runbook that is there, and the
//! manifests keep what they promise. Whether the rules fire is promtool's to test (`alerts_test.yaml`).

use std::collections::BTreeSet;

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const ALERT_TESTS: &str = include_str!("../../deploy/prometheus/alerts_test.yaml");
const OPERATING: &str = include_str!("../../docs/operating.md");
const CRONJOB: &str = include_str!("../../deploy/kubernetes/cronjob.yaml");
const SETTINGS: &str = include_str!("../../deploy/kubernetes/makegood.toml");

/// What follows `key: ` on each line that has it, list dashes and indents aside.
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
    assert_eq!(alerts, ["MakegoodNoSuccessLately", "MakegoodOrphansPastWindow", "MakegoodBrakeEngaged"]);

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

#[test]
fn the_sample_settings_are_toml() {
    let settings: toml::Table = SETTINGS.parse().unwrap();
    assert_eq!(settings.keys().collect::<Vec<_>>(), ["metrics", "storage"]);
}
