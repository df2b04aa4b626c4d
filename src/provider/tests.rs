//! Tests of the shipped provider files with example answers, and of everything that can go wrong
//! while asking.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::evidence::{FailureClass, Source, Verdict};

mod changed;
mod examples;
mod generated;
mod hostile;
mod invented;
mod keys;
mod shapes;
mod shipped;
mod slow;
mod specified;

#[derive(Deserialize)]
struct Index {
    examples: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    file: String,
    verdict: String,
    reason: Option<String>,
    output_pointers: Vec<String>,
}

#[derive(Deserialize)]
struct Example {
    request: ExampleRequest,
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[derive(Deserialize)]
struct ExampleRequest {
    method: String,
    path: String,
    body: Option<Value>,
}

fn index() -> Index {
    serde_json::from_str(include_str!("../../tests/data/provider-examples/index.json")).unwrap()
}

fn example(file: &str) -> Example {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/provider-examples").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns the names of all examples, `provider/case.json`.
fn files() -> Vec<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/provider-examples");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()) {
        if folder.is_dir() {
            for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                files.push(file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn received(status: u16, headers: &BTreeMap<String, String>, body: &Value) -> HttpAnswer {
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap()))
        .collect();
    // An example contains raw bytes as {"$base64": text}.
    let body = match body.get("$base64").and_then(Value::as_str) {
        Some(text) => BASE64_STANDARD.decode(text).unwrap(),
        None => serde_json::to_vec(body).unwrap(),
    };
    HttpAnswer::new(status, headers, body.into())
}

/// The shipped files, compiled once for all tests.
fn providers() -> &'static Providers {
    static SHIPPED_FILES: LazyLock<Providers> =
        LazyLock::new(|| Providers::load(None, Clock::default()).unwrap());
    &SHIPPED_FILES
}

fn question(provider: &str, job: &str, model: &str, items: usize) -> Question {
    Question { provider: provider.into(), job_id: job.into(), model: model.into(), items, urgent: false }
}

/// The question that an example answers.
struct ExampleQuestion {
    question: Question,
    step: usize,
    /// The example whose reading leads to this request, if it is not the first one.
    before: Option<&'static str>,
}

/// Returns the question that an example answers, derived from its path.
fn question_of(file: &str, example: &Example, items: usize) -> ExampleQuestion {
    let provider = file.split('/').next().unwrap();
    let path = example.request.path.as_str();
    let last = path.rsplit(['/', '=']).next().unwrap();
    let (job, model, before) = match provider {
        "replicate" => (last, "acme/still-life", None),
        "fal" => {
            let job = path.split("/requests/").nth(1).unwrap();
            match job.strip_suffix("/status") {
                Some(job) => (job, "fal-ai/flux/dev", None),
                None => (job, "fal-ai/flux/dev", Some("fal/completed-status.json")),
            }
        }
        "veo-gemini" => (path.strip_prefix("/v1beta/").unwrap(), "veo-3.1-generate-preview", None),
        "runway" if path.starts_with("/v1/workflow_invocations/") => (last, "workflow/poster", None),
        "runway" => (last, "gen4_turbo", None),
        "heygen" if path.starts_with("/v3/lipsyncs/") => (last, "heygen/lipsync", None),
        "minimax" if path.starts_with("/v1/files/") => {
            ("176843862716480", "MiniMax-Hailuo-02", Some("minimax/succeeded-single.json"))
        }
        "minimax" if path.starts_with("/v2/") => (last, "MiniMax-H3", None),
        "minimax" => (last, "MiniMax-Hailuo-02", None),
        "kling" if path.starts_with("/v1/images/") => (last, "kling-v2/images/generations", None),
        "kling" => (last, "kling-v2/videos/text2video", None),
        "veo-vertex" => {
            let operation = example.request.body.as_ref().and_then(|body| body["operationName"].as_str());
            (operation.unwrap(), "veo-3.1-generate-001", None)
        }
        "bfl" | "elevenlabs-dubbing" | "heygen" | "openai-videos" | "stability" | "sync" => {
            (last, "any/model", None)
        }
        other => panic!("no rule for {other}"),
    };
    let step = if before.is_some() { 2 } else { 1 };
    ExampleQuestion { question: question(provider, job, model, items), step, before }
}

/// Reads an example as the answer to the request that it contains.
fn read_example(file: &str, items: usize) -> (Example, Reading) {
    let example = example(file);
    let reading = read_as(file, &example, items);
    (example, reading)
}

/// Reads an answer as if it belonged to the question of `file`.
fn read_as(file: &str, example: &Example, items: usize) -> Reading {
    let asked = question_of(file, example, items);
    let received = received(example.status, &example.headers, &example.body);
    providers().read(&asked.question, asked.step, &received).unwrap()
}

fn judged(file: &str, items: usize) -> Evidence {
    match read_example(file, items).1 {
        Reading::Judged(evidence) => evidence,
        Reading::AskNext(request) => panic!("{file} asks for {request}"),
    }
}

fn indices(evidence: &Evidence) -> Vec<Option<i64>> {
    evidence.outputs.iter().map(|offer| offer.index).collect()
}

#[test]
fn p05_p06_outputs_carry_an_index_only_when_it_is_certain() {
    let three = judged("replicate/succeeded-multi.json", 3);
    assert_eq!(indices(&three), [Some(0), Some(1), Some(2)]);
    let of_four = judged("replicate/succeeded-multi.json", 4);
    assert_eq!(indices(&of_four), [None; 3]);
    let partial = judged("replicate/running-partial-output.json", 3);
    assert_eq!(indices(&partial), [Some(0)], "filled in order while it runs");
    let fal = judged("fal/succeeded-multi-result.json", 3);
    assert_eq!(indices(&fal), [None, None]);
    let veo = judged("veo-gemini/succeeded-multi.json", 2);
    assert_eq!(indices(&veo), [Some(0), Some(1)]);
}

#[test]
fn p02_outputs_that_veo_filters_are_content_safety_and_the_others_are_offered() {
    let evidence = judged("veo-gemini/succeeded-multi-one-filtered.json", 2);
    assert_eq!(evidence.verdict, Verdict::Succeeded);
    assert_eq!(indices(&evidence), [None, None]);
    assert!(matches!(&evidence.outputs[0].source, Source::Url { auth: true, .. }));
    match &evidence.outputs[1].source {
        Source::Failed { class, message } => {
            assert_eq!(*class, FailureClass::ContentSafety);
            assert_eq!(message.as_deref(), Some("one video held back"));
        }
        Source::Url { .. } | Source::Inline { .. } => panic!("{evidence:?}"),
    }
}

#[test]
fn p02_failures_carry_their_class() {
    for (file, class, code) in [
        ("replicate/failed.json", FailureClass::ProviderError, None),
        ("fal/completed-status-with-error.json", FailureClass::ServerError, Some("runner_disconnected")),
        ("fal/failed-request-error-result.json", FailureClass::QueueTimeout, Some("request_timeout")),
        ("fal/failed-result.json", FailureClass::ServerError, None),
        (
            "fal/failed-content-safety-result.json",
            FailureClass::ContentSafety,
            Some("content_policy_violation"),
        ),
        ("veo-gemini/failed.json", FailureClass::ServerError, Some("13")),
    ] {
        let evidence = judged(file, 1);
        assert_eq!((evidence.class, evidence.code.as_deref()), (Some(class), code), "{file}");
        assert!(evidence.message.is_some(), "{file}");
    }
}

#[test]
fn p18_files_that_replicate_has_removed_are_read_as_gone_not_as_missing() {
    let evidence = judged("replicate/succeeded-output-expired.json", 1);
    assert!(evidence.outputs_gone && evidence.outputs.is_empty());
    assert_eq!(evidence.verdict, Verdict::Succeeded);
}

#[test]
fn the_text_of_a_text_model_is_one_output() {
    let evidence = judged("replicate/succeeded-text-output.json", 1);
    assert_eq!(evidence.outputs.len(), 1);
    assert_eq!(evidence.outputs[0].index, Some(0));
    assert_eq!(
        evidence.outputs[0].source,
        Source::Inline {
            bytes: Bytes::from_static(b"The kettle sings."),
            content_type: Some("text/plain".into())
        }
    );
}

#[test]
fn fal_requests_use_two_parts_of_the_endpoint_or_three_in_two_namespaces() {
    let providers = providers();
    let fal = providers.get("fal").unwrap();
    for (model, path) in [
        ("fal-ai/flux/dev", "fal-ai/flux"),
        ("fal-ai/flux", "fal-ai/flux"),
        ("workflows/acme/shot/v2", "workflows/acme/shot"),
        ("comfy/acme/shot", "comfy/acme/shot"),
    ] {
        let request = fal.first_request(&question("fal", "id-1", model, 1)).unwrap();
        assert_eq!(request.to_string(), format!("GET https://queue.fal.run/{path}/requests/id-1/status"));
    }
    for model in ["", "../x", "a//b", "a/b?c"] {
        assert!(fal.first_request(&question("fal", "id-1", model, 1)).is_err(), "{model:?} was asked");
    }
    let body = serde_json::json!({"status": "COMPLETED"});
    let reading = providers.read(
        &question("fal", "a b", "fal-ai/flux/dev", 1),
        1,
        &received(200, &BTreeMap::new(), &body),
    );
    match reading.unwrap() {
        Reading::AskNext(request) => {
            assert_eq!(request.to_string(), "GET https://queue.fal.run/fal-ai/flux/requests/a%20b");
        }
        Reading::Judged(evidence) => panic!("{evidence:?}"),
    }
}

#[test]
fn errors_of_fals_gateway_are_distinguished_from_results() {
    let providers = providers();
    let question = question("fal", "id-1", "fal-ai/flux", 1);
    let from_fal = BTreeMap::from([("x-fal-request-id".to_owned(), "id-1".to_owned())]);
    let detail = serde_json::json!({"detail": "oops"});
    for (status, headers, verdict) in [
        (500, &from_fal, Verdict::Failed),
        (500, &BTreeMap::new(), Verdict::CouldNotTell(Doubt::Unreachable)),
        (502, &BTreeMap::new(), Verdict::CouldNotTell(Doubt::Unreachable)),
        (401, &from_fal, Verdict::CouldNotTell(Doubt::Unauthorized)),
        (429, &from_fal, Verdict::CouldNotTell(Doubt::RateLimited)),
        (404, &from_fal, Verdict::CouldNotTell(Doubt::Unreadable)),
        (418, &from_fal, Verdict::CouldNotTell(Doubt::Unreadable)),
    ] {
        match providers.read(&question, 2, &received(status, headers, &detail)).unwrap() {
            Reading::Judged(evidence) => assert_eq!(evidence.verdict, verdict, "{status} {headers:?}"),
            Reading::AskNext(request) => panic!("{request}"),
        }
    }
}

#[test]
fn files_in_the_folder_replace_shipped_ones_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = |name: &str| {
        format!(
            "[provider]\nname = \"{name}\"\noutput_hosts = []\n[ask]\nrequest = \"GET https://h/{{job}}\"\n\
             read = \"{{verdict: \\\"running\\\"}}\"\n"
        )
    };
    std::fs::write(dir.path().join("fal.toml"), text("fal")).unwrap();
    std::fs::write(dir.path().join("acme.toml"), text("acme")).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not a provider").unwrap();
    let providers = Providers::load(Some(dir.path()), Clock::default()).unwrap();
    let mut names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).chain(["acme"]).collect();
    names.sort_unstable();
    assert_eq!(providers.names().collect::<Vec<_>>(), names);
    assert_eq!(providers.get("fal").unwrap().retention, None);

    std::fs::write(dir.path().join("other.toml"), text("acme")).unwrap();
    let error = Providers::load(Some(dir.path()), Clock::default()).unwrap_err().to_string();
    assert!(error.contains("other.toml") && error.contains("provider.name"), "{error}");
    let error = Providers::load(Some(&dir.path().join("nowhere")), Clock::default()).unwrap_err();
    assert!(error.to_string().contains("providers.dir"), "{error}");
}
