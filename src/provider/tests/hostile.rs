//! Tests with invalid answers: broken, foreign and random ones. None may cause a panic, and none
//! may be read as a failure of the job.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Returns a job id in the format of the provider.
fn job_for(provider: &str) -> &'static str {
    match provider {
        "veo-vertex" => "projects/p/locations/us-central1/publishers/google/models/m/operations/o",
        _ => "job-1",
    }
}

#[test]
fn bytes_that_are_not_json_are_unreadable_for_every_provider() {
    let providers = providers();
    let deep = "[".repeat(100_000);
    for provider in providers.names() {
        for step in [1, 2] {
            for body in [b"\xff\xfe\xfd".as_slice(), b"", b"<html>", b"{", b"nul", deep.as_bytes()] {
                let received = HttpAnswer::new(200, HeaderMap::new(), Bytes::copy_from_slice(body));
                match providers
                    .read(&question(provider, job_for(provider), "a/text2video", 1), step, &received)
                    .unwrap()
                {
                    Reading::Judged(evidence) => assert_eq!(
                        evidence.verdict,
                        Verdict::CouldNotTell(Doubt::Unreadable),
                        "{provider} {step}: {evidence:?}"
                    ),
                    Reading::AskNext(request) => panic!("{provider}: {request}"),
                }
            }
        }
    }
}

#[test]
fn unexpected_answers_are_unreadable_and_never_a_failure() {
    let replicate = |change: Value| {
        let mut body = example("replicate/succeeded-single.json").body;
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        ("replicate", 1, 200, body)
    };
    let without_output = {
        let mut body = example("replicate/succeeded-single.json").body;
        body.as_object_mut().unwrap().remove("output");
        ("replicate", 1, 200, body)
    };
    let veo = |response: Value| {
        ("veo-gemini", 1, 200, serde_json::json!({"name": "n", "done": true, "response": response}))
    };
    for (provider, step, status, body) in [
        replicate(serde_json::json!({"status": "exploded"})),
        replicate(serde_json::json!({"status": null})),
        replicate(serde_json::json!({"status": 3})),
        replicate(serde_json::json!({"status": "succeeded", "output": null, "data_removed": null})),
        without_output,
        ("replicate", 1, 404, serde_json::json!({"title": "no"})),
        ("replicate", 1, 404, serde_json::json!("gone")),
        ("replicate", 1, 200, serde_json::json!([])),
        ("replicate", 1, 200, Value::Null),
        ("replicate", 1, 418, serde_json::json!({"status": "failed", "output": null})),
        ("fal", 1, 200, serde_json::json!({"status": "FAILED"})),
        ("fal", 1, 200, serde_json::json!({"status": null})),
        ("fal", 1, 200, serde_json::json!({"status": "COMPLETED", "error_type": "brand_new"})),
        ("fal", 1, 404, serde_json::json!({"detail": "Application 'flux' not found"})),
        ("fal", 1, 404, serde_json::json!({"detail": [1]})),
        ("fal", 2, 200, serde_json::json!({"images": null})),
        ("fal", 2, 200, serde_json::json!({})),
        ("fal", 2, 200, serde_json::json!([])),
        ("fal", 2, 500, serde_json::json!({"detail": "x", "error_type": "brand_new"})),
        ("veo-gemini", 1, 200, serde_json::json!({"done": false})),
        ("veo-gemini", 1, 200, serde_json::json!({"name": "n", "done": "yes"})),
        ("veo-gemini", 1, 200, serde_json::json!({"name": "n", "done": true})),
        ("veo-gemini", 1, 404, serde_json::json!({"error": "no"})),
        veo(Value::Null),
        veo(serde_json::json!({})),
        veo(serde_json::json!({"generateVideoResponse": {"generatedSamples": null}})),
        veo(serde_json::json!({"generateVideoResponse": {"generatedSamples": {"a": 1}}})),
        veo(serde_json::json!({"generateVideoResponse": {"generatedSamples": [{"video": null}]}})),
        veo(serde_json::json!({"generateVideoResponse": {"raiMediaFilteredCount": []}})),
        veo(serde_json::json!({"generateVideoResponse": {}})),
    ] {
        assert_unreadable(provider, step, status, &body);
    }
}

#[test]
fn status_words_fields_and_paths_that_changed_are_unreadable_and_never_a_failure() {
    for (provider, step, status, body) in [
        ("bfl", 1, 200, serde_json::json!({"status": "Melted"})),
        ("bfl", 1, 200, serde_json::json!({"status": "Ready", "result": null})),
        ("bfl", 1, 404, serde_json::json!({"detail": "Not Found"})),
        ("elevenlabs-dubbing", 1, 404, serde_json::json!({"detail": "Not Found"})),
        ("elevenlabs-dubbing", 1, 200, serde_json::json!({"dubbing_id": "j", "status": "dubbed"})),
        ("elevenlabs-dubbing", 1, 200, serde_json::json!({"dubbing_id": "j", "status": "complete"})),
        ("heygen", 1, 404, serde_json::json!({"error": {"code": "no_route"}})),
        ("heygen", 1, 200, serde_json::json!({"data": {"status": "completed", "video_url": null}})),
        ("heygen", 1, 200, serde_json::json!({"data": {"status": "done"}})),
        ("kling", 1, 200, serde_json::json!({"code": 0, "data": {"task_status": "succeeded"}})),
        ("kling", 1, 200, serde_json::json!({"code": 0, "data": {"task_status": "succeed"}})),
        ("kling", 1, 404, serde_json::json!({"error": "no route"})),
        ("kling", 1, 400, serde_json::json!({"code": 1201, "message": "bad parameter"})),
        ("minimax", 1, 200, serde_json::json!({"status": "Done", "base_resp": {"status_code": 0}})),
        ("minimax", 1, 200, serde_json::json!({"status": "Success", "base_resp": {"status_code": 0}})),
        (
            "minimax",
            1,
            200,
            serde_json::json!({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}),
        ),
        ("minimax", 1, 200, serde_json::json!({"base_resp": {"status_code": 1027, "status_msg": "x"}})),
        ("minimax", 1, 200, serde_json::json!({"task": {"status": "expired"}})),
        ("minimax", 2, 200, serde_json::json!({"file": null, "base_resp": {"status_code": 0}})),
        ("openai-videos", 1, 200, serde_json::json!({"object": "video", "status": "expired"})),
        (
            "openai-videos",
            1,
            404,
            serde_json::json!({"error": {"type": "invalid_request_error", "message": "Invalid URL (GET /v1/vid)"}}),
        ),
        ("runway", 1, 200, serde_json::json!({"status": "SUCCEEDED"})),
        ("runway", 1, 200, serde_json::json!({"status": "SUCCEEDED", "output": null})),
        ("runway", 1, 200, serde_json::json!({"status": "SUCCEEDED", "output": {}})),
        ("runway", 1, 200, serde_json::json!({"status": "PAUSED"})),
        ("stability", 1, 200, serde_json::json!({"finish_reason": "ERROR", "result": "AAAA"})),
        ("stability", 1, 200, serde_json::json!({"finish_reason": "SUCCESS"})),
        ("stability", 1, 202, serde_json::json!({"status": "lost"})),
        ("stability", 1, 404, serde_json::json!({"name": "no_route"})),
        ("sync", 1, 200, serde_json::json!({"status": "COMPLETED", "outputUrl": null})),
        ("sync", 1, 200, serde_json::json!({"status": "EXPIRED"})),
        ("sync", 1, 404, serde_json::json!({"error": "Cannot GET /v2"})),
        ("veo-vertex", 1, 200, serde_json::json!({"name": "n", "done": true, "response": {}})),
        ("veo-vertex", 1, 200, serde_json::json!({"name": "n", "done": true, "response": {"videos": [{}]}})),
        (
            "veo-vertex",
            1,
            404,
            serde_json::json!({"error": {"status": "NOT_FOUND", "message": "Publisher model was not found."}}),
        ),
    ] {
        assert_unreadable(provider, step, status, &body);
    }
}

/// Asserts that an answer is unreadable and that an excerpt of it is stored.
fn assert_unreadable(provider: &str, step: usize, status: u16, body: &Value) {
    let question = question(provider, job_for(provider), "fal-ai/flux/text2video", 1);
    match providers().read(&question, step, &received(status, &BTreeMap::new(), body)).unwrap() {
        Reading::Judged(evidence) => {
            assert_eq!(
                evidence.verdict,
                Verdict::CouldNotTell(Doubt::Unreadable),
                "{provider} {status} {body}: {evidence:?}"
            );
            assert!(evidence.answer.excerpt.is_some());
        }
        Reading::AskNext(request) => panic!("{provider} {body}: {request}"),
    }
}

/// Generates JSON of any shape that contains words for which the filters search.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "status",
        "output",
        "error",
        "data_removed",
        "detail",
        "error_type",
        "images",
        "url",
        "done",
        "name",
        "response",
        "generateVideoResponse",
        "generatedSamples",
        "raiMediaFilteredCount",
        "video",
        "uri",
        "succeeded",
        "failed",
        "processing",
        "COMPLETED",
        "IN_QUEUE",
        "data",
        "task",
        "base_resp",
        "status_code",
        "task_status",
        "result",
        "finish_reason",
        "FAILED",
        "SUCCEEDED",
        "CANCELLED",
        "completed",
        "Ready",
        "Task not found",
        "https://h/x",
        "data:a;base64,%%%",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(word.clone(), inner, 0..8).prop_map(|map| {
                Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

#[test]
fn random_answers_never_panic_and_only_known_status_words_are_verdicts() {
    let providers = providers();
    let names: Vec<String> = providers.names().map(str::to_owned).collect();
    let case = (prop::sample::select(names), 1..3_usize, 100..600_u16, any_json(), 0..5_usize);
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    runner
        .run(&case, |(name, step, status, body, items)| {
            let text = body.to_string();
            let question = question(&name, job_for(&name), "fal-ai/flux/text2video", items);
            let reading =
                providers.read(&question, step, &received(status, &BTreeMap::new(), &body)).unwrap();
            let Reading::Judged(evidence) = reading else { return Ok(()) };
            let says = |word: &str| text.contains(word);
            match evidence.verdict {
                Verdict::Failed => {
                    let words =
                        ["fail", "error", "detail", "rai", "Moderated", "REJECTED", "CONTENT_FILTERED"];
                    prop_assert!(words.iter().any(|word| says(word) || says(&word.to_uppercase())));
                }
                Verdict::Succeeded => prop_assert!(status == 200),
                Verdict::UnknownJob => {
                    prop_assert!(status == 404 || says("Task not found") || says("task_id"));
                }
                Verdict::Cancelled => {
                    prop_assert!(says("error") || says("cancel") || says("CANCEL") || says("aborted"));
                }
                Verdict::Queued | Verdict::Running | Verdict::CouldNotTell(_) => {}
            }
            Ok(())
        })
        .unwrap();
}

/// Returns the body with one value replaced, for every value and every replacement.
fn broken_bodies(body: &Value) -> Vec<(String, Value)> {
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    pointers(value, &format!("{at}/{index}"), found);
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    pointers(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    pointers(body, "", &mut found);
    let replacements = ["null", "true", "-1", "0.5", "\"\"", "\"word\"", "[]", "[null]", "{}"];
    let mut broken = Vec::new();
    for pointer in found {
        for replacement in replacements {
            let mut body = body.clone();
            *body.pointer_mut(&pointer).unwrap() = serde_json::from_str(replacement).unwrap();
            broken.push((format!("{pointer} = {replacement}"), body));
        }
    }
    broken
}

/// Returns the examples that are not a failure, a cancellation or an unknown job, each with its
/// question.
fn harmless() -> impl Iterator<Item = (String, Example, ExampleQuestion)> {
    let mut examples = index().examples;
    examples.retain(|expected| {
        ["queued", "running", "succeeded", "ask_result", "retry_later"].contains(&expected.verdict.as_str())
    });
    examples.into_iter().map(|expected| {
        let example = example(&expected.file);
        let asked = question_of(&expected.file, &example, expected.output_pointers.len().max(1));
        (expected.file, example, asked)
    })
}

#[test]
fn one_broken_field_never_makes_a_job_failed_cancelled_or_unknown() {
    let providers = providers();
    let mut tried = 0;
    for (file, example, asked) in harmless() {
        for (change, body) in broken_bodies(&example.body) {
            // This is a valid answer: an empty list with a filter count means that Veo filtered
            // all.
            if file.ends_with("one-filtered.json") && change.ends_with("generatedSamples = []") {
                continue;
            }
            tried += 1;
            let received = received(example.status, &example.headers, &body);
            let Reading::Judged(evidence) = providers.read(&asked.question, asked.step, &received).unwrap()
            else {
                continue;
            };
            assert!(
                !matches!(evidence.verdict, Verdict::Failed | Verdict::Cancelled | Verdict::UnknownJob),
                "{file} with {change}: {evidence:?}"
            );
        }
    }
    assert!(tried > 3000, "only {tried} tried");
}

/// Changes that result in valid answers, because each model has its own format or the value is
/// optional: the examples, and the beginning of the pointer.
const STILL_VALID: [(&str, &str); 6] = [
    ("replicate/", "/output"),
    ("fal/", "/"),
    ("runway/workflow", "/output = {}"),
    ("heygen/", "/data/captioned_video_url = null"),
    ("heygen/", "/data/subtitle_url = null"),
    ("sync/", "/segmentOutputUrl = null"),
];

#[test]
fn one_broken_field_never_makes_a_success_that_offers_less() {
    let providers = providers();
    let (mut tried, mut less) = (0, Vec::new());
    for (file, example, asked) in harmless() {
        let read = |body: &Value| {
            let received = received(example.status, &example.headers, body);
            match providers.read(&asked.question, asked.step, &received).unwrap() {
                Reading::Judged(evidence) if evidence.verdict == Verdict::Succeeded => {
                    Some((evidence.outputs.len(), evidence.outputs_gone))
                }
                Reading::Judged(_) | Reading::AskNext(_) => None,
            }
        };
        let Some((all, false)) = read(&example.body) else { continue };
        for (change, body) in broken_bodies(&example.body) {
            // An empty list is valid: it means that there are no outputs.
            let is_valid = change.ends_with(" = []")
                || STILL_VALID.iter().any(|(of, at)| file.starts_with(of) && change.starts_with(at));
            tried += 1;
            if let Some((offered, gone)) = read(&body)
                && (offered < all || gone)
                && !is_valid
            {
                less.push(format!("{file} with {change}: {offered} of {all}"));
            }
        }
    }
    assert!(less.is_empty(), "{}", less.join("\n"));
    assert!(tried > 1000, "only {tried} tried");
}
