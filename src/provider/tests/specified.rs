//! Regression tests with answers from the specifications of the providers. Each of them was once
//! read as a refund, or with fewer outputs than it offers.

use super::examples::{in_words, verdict};
use super::*;

/// Provider, model, items, HTTP status, body, verdict, files.
type Row = (&'static str, &'static str, usize, u16, Value, &'static str, &'static [&'static str]);

#[expect(clippy::too_many_lines, reason = "one answer after the other")]
fn rows() -> Vec<Row> {
    let task = |more: Value| {
        let mut task = serde_json::json!({"id": "j", "createdAt": "2026-05-04T09:12:00Z"});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    vec![
        // A wrong path, a retired model, a closed API.
        ("replicate", "a/b", 1, 404, serde_json::json!({"detail": "Not Found"}), "unreadable", &[]),
        ("fal", "fal-ai/flux", 1, 404, serde_json::json!({"detail": "Not Found"}), "unreadable", &[]),
        ("fal", "fal-ai/flux", 1, 404, serde_json::json!({"detail": "Request not found"}), "unknown", &[]),
        (
            "sync",
            "m",
            1,
            404,
            serde_json::json!({"message": "Cannot GET /v2/generate/j", "statusCode": 404}),
            "unreadable",
            &[],
        ),
        (
            "sync",
            "m",
            1,
            404,
            serde_json::json!({"message": ["Generation not found"], "statusCode": 404}),
            "unknown",
            &[],
        ),
        (
            "openai-videos",
            "sora-2",
            1,
            404,
            serde_json::json!({"error": {"message": "The Videos API has been shut down.", "type": "invalid_request_error", "param": null, "code": null}}),
            "unreadable",
            &[],
        ),
        (
            "veo-gemini",
            "veo-3",
            1,
            404,
            serde_json::json!({"error": {"code": 404, "message": "models/veo-3 is not found for API version v1beta", "status": "NOT_FOUND"}}),
            "unreadable",
            &[],
        ),
        (
            "runway",
            "gen4",
            1,
            404,
            serde_json::json!({"error": "This API version is no longer served"}),
            "unreadable",
            &[],
        ),
        (
            "heygen",
            "m",
            1,
            404,
            serde_json::json!({"error": {"code": "video_not_found", "message": "x"}}),
            "unknown",
            &[],
        ),
        (
            "heygen",
            "m",
            1,
            404,
            serde_json::json!({"error": {"code": "resource_not_found", "message": "x"}}),
            "unknown",
            &[],
        ),
        // An answer without a result is not a success without outputs.
        (
            "replicate",
            "a/b",
            1,
            200,
            serde_json::json!({"id": "j", "status": "succeeded", "output": null, "data_removed": false, "error": null}),
            "unreadable",
            &[],
        ),
        // The other variant of the schema.
        (
            "veo-vertex",
            "veo",
            2,
            200,
            serde_json::json!({"name": "n", "done": true, "response": {
                "generatedSamples": [{"video": {"uri": "gs://bucket/sample_0.mp4"}}], "raiMediaFilteredCount": 1}}),
            "succeeded",
            &["failed: content_safety", "gs://bucket/sample_0.mp4"],
        ),
        (
            "veo-vertex",
            "veo",
            2,
            200,
            serde_json::json!({"name": "n", "done": true, "response": {"raiMediaFilteredCount": 1}}),
            "unreadable",
            &[],
        ),
        // Captions are the second output of a lip-sync.
        (
            "heygen",
            "heygen/lipsync",
            2,
            200,
            serde_json::json!({"data": {"status": "completed", "video_url": "https://files.heygen.ai/v.mp4",
                                        "caption_url": "https://files.heygen.ai/c.ass"}}),
            "succeeded",
            &["https://files.heygen.ai/c.ass", "https://files.heygen.ai/v.mp4"],
        ),
        (
            "sync",
            "m",
            1,
            200,
            serde_json::json!({"status": "COMPLETED", "outputMediaUrl": "https://assets.sync.so/v.mp4"}),
            "succeeded",
            &["https://assets.sync.so/v.mp4"],
        ),
        // The finished nodes of a running workflow are offered, and failed nodes have their reason.
        (
            "runway",
            "workflow/poster",
            2,
            200,
            task(serde_json::json!({"status": "RUNNING", "output": {"a": ["https://cdn.example/a.png"]}})),
            "running",
            &["https://cdn.example/a.png"],
        ),
        (
            "runway",
            "workflow/poster",
            2,
            200,
            task(serde_json::json!({"status": "SUCCEEDED", "output": {"a": ["https://cdn.example/a.png"]},
                                    "nodeErrors": {"b": {"message": "refused", "code": "SAFETY.INPUT.TEXT"}}})),
            "succeeded",
            &["failed: content_safety", "https://cdn.example/a.png"],
        ),
        (
            "runway",
            "workflow/poster",
            2,
            200,
            task(serde_json::json!({"status": "SUCCEEDED", "output": {"a": ["https://cdn.example/a.png"]}})),
            "unreadable",
            &[],
        ),
        (
            "elevenlabs-dubbing",
            "m",
            1,
            200,
            serde_json::json!({"dubbing_id": "j", "status": "preparing"}),
            "queued",
            &[],
        ),
        (
            "elevenlabs-dubbing",
            "m",
            1,
            200,
            serde_json::json!({"dubbing_id": "j", "status": "queued"}),
            "queued",
            &[],
        ),
        (
            "elevenlabs-dubbing",
            "m",
            1,
            200,
            serde_json::json!({"dubbing_id": "j", "status": "cloning"}),
            "running",
            &[],
        ),
    ]
}

#[test]
fn answers_from_the_specifications_are_read_correctly() {
    for (provider, model, items, status, body, wanted, files) in rows() {
        let received = received(status, &BTreeMap::new(), &body);
        let job = match provider {
            "veo-vertex" => "projects/p/locations/global/publishers/google/models/veo/operations/o",
            _ => "j",
        };
        let reading = providers().read(&question(provider, job, model, items), 1, &received).unwrap();
        assert_eq!(verdict(&reading), wanted, "{provider} {body}: {reading:?}");
        let Reading::Judged(evidence) = &reading else { continue };
        let mut offered: Vec<String> = evidence.outputs.iter().map(|offer| in_words(&offer.source)).collect();
        offered.sort();
        assert_eq!(offered, files, "{provider} {body}");
    }
}

#[test]
fn a_thumbnail_in_an_answer_of_fal_is_not_an_output() {
    let body = serde_json::json!({
        "thumbnail": {"url": "https://v3.fal.media/t.png"}, "video": {"url": "https://v3.fal.media/v.mp4"}
    });
    let received = received(200, &BTreeMap::new(), &body);
    let reading = providers().read(&question("fal", "j", "fal-ai/kling", 1), 2, &received).unwrap();
    let Reading::Judged(evidence) = reading else { panic!("{reading:?}") };
    assert_eq!(
        evidence.outputs.iter().map(|offer| in_words(&offer.source)).collect::<Vec<_>>(),
        ["https://v3.fal.media/v.mp4"]
    );
}

#[test]
fn a_fal_endpoint_that_is_unknown_by_two_parts_is_asked_about_by_all_parts() {
    let wrong_path = received(404, &BTreeMap::new(), &serde_json::json!({"detail": "Not Found"}));
    let asked = question("fal", "id-1", "xai/grok-imagine-image/quality/edit", 1);
    let reading = providers().read(&asked, 1, &wrong_path).unwrap();
    let Reading::AskNext(next) = reading else { panic!("{reading:?}") };
    let status = "GET https://queue.fal.run/xai/grok-imagine-image/quality/edit/requests/id-1/status";
    assert_eq!(next.to_string(), status);
    let fal = providers().get("fal").unwrap();
    let read = |body: &Value| {
        let received = received(200, &BTreeMap::new(), body);
        fal.read(&asked, (2, &next.kept), &received, crate::clock::Timestamp::from_micros(0), &[])
    };
    assert_eq!(verdict(&read(&serde_json::json!({"status": "IN_QUEUE"}))), "queued");
    match read(&serde_json::json!({"status": "COMPLETED"})) {
        Reading::AskNext(result) => assert_eq!(result.to_string(), status.trim_end_matches("/status")),
        Reading::Judged(evidence) => panic!("{evidence:?}"),
    }
    // Unknown by both: this says nothing about the job.
    let at = (2, &next.kept);
    let again = fal.read(&asked, at, &wrong_path, crate::clock::Timestamp::from_micros(0), &[]);
    assert_eq!(verdict(&again), "unreadable");
}

#[test]
fn every_shipped_file_has_the_media_types_of_its_models() {
    for (name, text) in SHIPPED {
        assert!(text.contains("\nmakes = ["), "{name} does not say what its models make");
        assert!(!providers().get(name).unwrap().fetch_rules("any/model").kinds.is_empty(), "{name}");
    }
}

#[test]
fn kling_avatars_have_their_own_path() {
    let asked = question("kling", "j", "kling-v2/avatar/image2video", 1);
    let request = providers().get("kling").unwrap().first_request(&asked).unwrap();
    assert_eq!(request.to_string(), "GET https://api.klingai.com/v1/videos/avatar/image2video/j");
}
