//! Compares the rendered text with one written by hand, and parses it strictly.

use super::*;
use crate::provider::{BUCKETS_SECS, RequestOutcome};

/// One answer after 0.2 seconds, and one that was asked too often after 70.
fn fal() -> (RequestStats, Circuit) {
    let stats = RequestStats {
        provider: "fal".to_owned(),
        outcomes: RequestOutcome::ALL.map(|outcome| match outcome {
            RequestOutcome::Answered | RequestOutcome::RateLimited => (outcome, 1),
            RequestOutcome::Unreachable
            | RequestOutcome::Unauthorized
            | RequestOutcome::Unreadable
            | RequestOutcome::NotAsked => (outcome, 0),
        }),
        duration_buckets: BUCKETS_SECS.map(|end| (end, u64::from(end >= 0.2))),
        duration_count: 2,
        duration_sum_secs: 70.2,
    };
    (stats, Circuit::Open)
}

fn quiet() -> ProcessMetrics {
    ProcessMetrics::new(Vec::new).unwrap()
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

fn totals() -> MetricTotals {
    MetricTotals {
        orphans: BTreeMap::from([(pair("open", "fal"), 2), (pair("held", "repl\"ic\\ate\n"), 1)]),
        oldest_orphan_age: Duration::from_millis(90_500),
        orphans_past_window: 1,
        refunds: BTreeMap::from([(pair("fal", "server_error"), 3)]),
        refunded_credits: Split { subscription: 120, wallet: 0 },
        recoveries: BTreeMap::from([(pair("veo", "recovered"), 4)]),
        late_successes: BTreeMap::from([(pair("fal", "never_stored"), 2)]),
        swept: 3,
        resolution: Resolution {
            up_to_seconds: BTreeMap::from([(600, 1), (3600, 3), (86_400, 4)]),
            sum_seconds: 12_345.5,
            count: 5,
        },
        last_success: Some(Timestamp::parse("2026-01-01T00:00:00.5Z").unwrap()),
        brake_engaged: true,
        accounts_held: 2,
    }
}

#[test]
fn the_text_equals_the_one_that_alerts_expect() {
    let process = ProcessMetrics::new(|| vec![fal()]).unwrap();
    process.observe_pass(Duration::from_millis(300));
    let text = render(Some(&totals()), &process).unwrap();
    assert_eq!(text, include_str!("expected.prom"));
}

#[test]
fn series_without_labels_start_at_zero() {
    let process = quiet();
    let samples = parse(&render(Some(&MetricTotals::default()), &process).unwrap());
    for name in [
        "makegood_oldest_orphan_age_seconds",
        "makegood_orphans_past_window",
        "makegood_refunded_credits_total{bucket=\"subscription\"}",
        "makegood_refunded_credits_total{bucket=\"wallet\"}",
        "makegood_resolution_seconds_count",
        "makegood_resolution_seconds_bucket{le=\"86400\"}",
        "makegood_resolution_seconds_bucket{le=\"+Inf\"}",
        "makegood_last_success_timestamp_seconds",
        "makegood_accounts_held",
        "makegood_brake_engaged",
        "makegood_swept_total",
        "makegood_pass_duration_seconds_count",
    ] {
        assert_eq!(samples.get(name), Some(&0.0), "{name}");
    }
    // Before the database was read.
    let samples = parse(&render(None, &process).unwrap());
    assert!(samples.keys().all(|name| name.starts_with("makegood_pass_duration_seconds")), "{samples:?}");
}

#[test]
fn buckets_are_cumulative_and_the_last_one_counts_all() {
    let samples = parse(&render(Some(&totals()), &quiet()).unwrap());
    let at = |le: &str| samples[&format!("makegood_resolution_seconds_bucket{{le=\"{le}\"}}")];
    let counts =
        [at("120"), at("600"), at("1800"), at("3600"), at("79200"), at("86400"), at("172800"), at("+Inf")];
    assert_eq!(counts.map(|count| format!("{count}")), ["0", "1", "1", "3", "3", "4", "4", "5"]);
}

/// Parses the text format strictly: every sample belongs to the preceding TYPE, no family or series
/// is repeated, labels are quoted and escaped, values are numbers.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families: Vec<(String, String)> = Vec::new();
    let mut help = None;
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap();
            assert!(!words.is_empty(), "{line}");
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(help.take().as_deref(), Some(name), "TYPE without HELP: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kind != "counter" || name.ends_with("_total"), "{line}");
            assert!(families.iter().all(|(known, _)| known != name), "twice: {line}");
            families.push((name.to_owned(), kind.to_owned()));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let (family, kind) = families.last().unwrap();
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|s| name == format!("{family}{s}")), "{line} under {family}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
            if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                check_labels(labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap());
            }
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite(), "{line}");
            assert_eq!(samples.insert(series.to_owned(), value), None, "twice: {line}");
        }
    }
    samples
}

/// `name="value",…` with `\\`, `\"` and `\n` escaped.
fn check_labels(labels: &str) {
    let mut rest = labels;
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{labels}");
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("the label's value has no end") {
                (at, '"') => break at,
                (_, '\\') => assert!(matches!(chars.next(), Some((_, '\\' | '"' | 'n'))), "{labels}"),
                (_, other) => assert!(other != '\n', "{labels}"),
            }
        };
        match after[end + 1..].strip_prefix(',') {
            Some(more) => rest = more,
            None => return assert_eq!(&after[end + 1..], "", "{labels}"),
        }
    }
}

#[test]
fn every_configured_provider_has_series_from_the_start() {
    let providers = Providers::load(None, crate::clock::Clock::System).unwrap();
    let samples = parse(&render(None, &ProcessMetrics::asking(Arc::new(providers)).unwrap()).unwrap());
    for provider in ["fal", "replicate", "veo-gemini"] {
        let answered =
            format!("makegood_provider_requests_total{{provider=\"{provider}\",outcome=\"answered\"}}");
        let circuit = format!("makegood_provider_circuit_open{{provider=\"{provider}\"}}");
        assert_eq!((samples.get(&answered), samples.get(&circuit)), (Some(&0.0), Some(&0.0)), "{samples:?}");
    }
}

/// Without the limit, 2,000 names made 2,504 lines.
#[test]
fn unknown_provider_names_create_a_bounded_number_of_series() {
    let mut totals = totals();
    for nth in 0..2_000 {
        totals.refunds.insert((format!("x{nth:04}"), "unconfirmed".to_owned()), 1);
        totals.orphans.insert(("open".to_owned(), format!("x{nth:04}")), 2);
    }
    let text = render(Some(&totals), &ProcessMetrics::new(|| vec![fal()]).unwrap()).unwrap();
    let sum = |name: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert!(text.lines().filter(|line| !line.starts_with('#')).count() < 150, "{text}");
    assert_eq!(sum("makegood_refunds_total"), 2_003);
    assert_eq!(sum("makegood_orphans{"), 4_003);
    assert!(
        text.contains("makegood_refunds_total{provider=\"(other)\",reason=\"unconfirmed\"} 198"),
        "{text}"
    );
}
