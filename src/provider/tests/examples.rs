//! Reads every example answer with the shipped file of its provider, as the answer to the request
//! that the file sends.
//!
//! `index.json` came with the examples and contains the expected readings. `readings.json` adds
//! what the index cannot express: files whose URL is built from an answer, files inside an answer,
//! and the answers that are deliberately read in another way, with the reason.

use super::*;
use crate::evidence::Source;

/// The expected readings in addition to the index.
#[derive(Deserialize)]
pub(super) struct Readings {
    /// Answers that are read in another way than the index says.
    otherwise: BTreeMap<String, Otherwise>,
    /// Files to which no pointer into the answer exists.
    beyond_pointers: BTreeMap<String, Vec<String>>,
    /// Answers to a download. `recovery` reads them, not a filter.
    pub(super) downloads: BTreeMap<String, Download>,
}

#[derive(Deserialize)]
struct Otherwise {
    verdict: String,
    why: String,
}

#[derive(Deserialize)]
pub(super) struct Download {
    /// The example whose reading offers this download; `None` if it is never offered.
    offered_by: Option<String>,
    /// An example of the same job, whose reading must not offer it.
    not_offered_by: Option<String>,
    why: String,
}

pub(super) fn readings() -> Readings {
    serde_json::from_str(include_str!("../../../tests/data/provider-examples/readings.json")).unwrap()
}

/// Returns the verdict of a reading in the words of the index.
pub(super) fn verdict(reading: &Reading) -> &'static str {
    match reading {
        Reading::AskNext(_) => "ask_result",
        Reading::Judged(evidence) => match evidence.verdict {
            Verdict::UnknownJob => "unknown",
            Verdict::CouldNotTell(Doubt::RateLimited) => "retry_later",
            Verdict::Queued
            | Verdict::Running
            | Verdict::Succeeded
            | Verdict::Failed
            | Verdict::Cancelled
            | Verdict::CouldNotTell(_) => evidence.verdict.as_str(),
        },
    }
}

/// Describes a file that an answer offers in one line.
pub(super) fn in_words(source: &Source) -> String {
    match source {
        Source::Url { url, auth: true } => format!("{url} with the key"),
        Source::Url { url, auth: false } => url.clone(),
        Source::Inline { bytes, content_type } => {
            format!("{} bytes of {}", bytes.len(), content_type.as_deref().unwrap_or("unknown type"))
        }
        Source::Failed { class, .. } => format!("failed: {}", class.as_str()),
    }
}

#[test]
fn every_example_reads_as_its_index_expects() {
    let (index, readings) = (index(), readings());
    let listed: BTreeMap<&str, &Expected> =
        index.examples.iter().map(|expected| (expected.file.as_str(), expected)).collect();
    let on_disk = files();
    assert_eq!(listed.len(), on_disk.len(), "an example without an expectation, or the reverse");
    assert!(listed.len() >= 116, "only {} examples", listed.len());
    for file in
        readings.otherwise.keys().chain(readings.beyond_pointers.keys()).chain(readings.downloads.keys())
    {
        assert!(listed.contains_key(file.as_str()), "{file} in readings.json is no example");
    }

    let mut right = 0;
    let mut wrong = Vec::new();
    for file in &on_disk {
        let expected = listed.get(file.as_str()).unwrap_or_else(|| panic!("{file} is not in the index"));
        if readings.downloads.contains_key(file) {
            continue;
        }
        let (example, reading) = read_example(file, expected.output_pointers.len().max(1));
        let otherwise = readings.otherwise.get(file);
        let wanted = otherwise.map_or(expected.verdict.as_str(), |otherwise| {
            assert!(otherwise.verdict != expected.verdict && !otherwise.why.is_empty(), "{file}");
            otherwise.verdict.as_str()
        });
        if verdict(&reading) != wanted {
            wrong.push(format!("{file}: {wanted} expected, read as {reading:?}"));
            continue;
        }
        right += usize::from(otherwise.is_none());
        let Reading::Judged(evidence) = &reading else { continue };

        let mut offered: Vec<String> = evidence.outputs.iter().map(|offer| in_words(&offer.source)).collect();
        let at = |pointer: &String| {
            let url = example.body.pointer(pointer).and_then(Value::as_str).expect(pointer);
            // The index does not say which files need the key.
            let with_key = format!("{url} with the key");
            if offered.contains(&with_key) { with_key } else { url.to_owned() }
        };
        let mut wanted: Vec<String> = expected.output_pointers.iter().map(at).collect();
        wanted.extend(readings.beyond_pointers.get(file).into_iter().flatten().cloned());
        offered.sort();
        wanted.sort();
        if offered != wanted {
            wrong.push(format!("{file}: {wanted:?} expected, offered are {offered:?}"));
        }
        let safety = evidence.class == Some(FailureClass::ContentSafety);
        if otherwise.is_none() && safety != (expected.reason.as_deref() == Some("content_safety")) {
            wrong.push(format!("{file}: {:?} read as {:?}", expected.reason, evidence.class));
        }
        if evidence.verdict == Verdict::Failed && evidence.class.is_none() {
            wrong.push(format!("{file}: a failure without a class"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let read = on_disk.len() - readings.downloads.len();
    println!(
        "{right} of {} examples read as the index says; {} otherwise; {} are downloads",
        on_disk.len(),
        readings.otherwise.len(),
        readings.downloads.len()
    );
    assert_eq!(right + readings.otherwise.len(), read);
}

#[test]
fn every_request_equals_that_of_its_example() {
    let readings = readings();
    for file in files() {
        if readings.downloads.contains_key(&file) {
            continue;
        }
        let example = example(&file);
        let asked = question_of(&file, &example, 1);
        let wanted = format!("{} {}", example.request.method, example.request.path);
        if asked.step == 1 {
            let providers = providers();
            let provider = providers.get(&asked.question.provider).unwrap();
            let request = provider.first_request(&asked.question).unwrap();
            assert_eq!(line(&request), wanted, "{file}");
            assert_eq!(request.body(), example.request.body.as_ref(), "{file}");
        } else {
            let before = asked.before.expect("a further step comes after an answer");
            match read_example(before, 1).1 {
                // The example of another job: only the id differs.
                Reading::AskNext(request) => {
                    let same = |text: &str| text.rsplit_once(['/', '=']).map(|(start, _)| start.to_owned());
                    assert_eq!(same(&line(&request)), same(&wanted), "{file}");
                }
                Reading::Judged(evidence) => panic!("{before}: {evidence:?}"),
            }
        }
    }
}

#[test]
fn answers_to_downloads_belong_to_an_offered_file() {
    for (file, download) in readings().downloads {
        assert!(!download.why.is_empty(), "{file}");
        let example = example(&file);
        let offers = |by: &str| {
            let evidence = judged(by, 1);
            evidence.outputs.iter().any(|offer| match &offer.source {
                Source::Url { url, auth } => *auth && url.ends_with(&example.request.path),
                Source::Inline { .. } | Source::Failed { .. } => false,
            })
        };
        match (&download.offered_by, &download.not_offered_by) {
            (Some(by), None) => assert!(offers(by), "{file} is not offered by {by}"),
            (None, Some(by)) => assert!(!offers(by), "{file} is offered by {by}"),
            _ => panic!("{file}: one of the two"),
        }
    }
}

/// Returns method, path and query.
fn line(request: &Request) -> String {
    let url = &request.url;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{} {}{query}", request.method, url.path())
}
