//! Tests of single shipped files beyond their examples: the endpoint for each model, classes of
//! failure, indices, expiry, and ids that cannot be asked about.

use super::*;
use crate::clock::Timestamp;

fn first(provider: &str, job: &str, model: &str) -> Result<String, String> {
    let asked = question(provider, job, model, 1);
    providers().get(provider).unwrap().first_request(&asked).map(|request| {
        let query = request.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{}{query}", request.url.host_str().unwrap_or_default(), request.url.path())
    })
}

#[test]
fn the_model_selects_the_endpoint() {
    let vertex = "projects/p-1/locations/europe-west4/publishers/google/models/veo-3/operations/o-1";
    let global = "projects/p-1/locations/global/publishers/google/models/veo-3/operations/o-1";
    for (provider, job, model, asked) in [
        ("runway", "j", "gen4_turbo", "api.dev.runwayml.com/v1/tasks/j"),
        ("runway", "j", "Workflow/poster", "api.dev.runwayml.com/v1/workflow_invocations/j"),
        ("heygen", "j", "avatar-iv", "api.heygen.com/v3/videos/j"),
        ("heygen", "j", "heygen/LipSync", "api.heygen.com/v3/lipsyncs/j"),
        ("heygen", "j", "lip-sync-v2", "api.heygen.com/v3/lipsyncs/j"),
        ("heygen", "j", "video-translation", "api.heygen.com/v3/video-translations/j"),
        ("minimax", "7", "MiniMax-Hailuo-2.3", "api.minimax.io/v1/query/video_generation?task_id=7"),
        ("minimax", "7", "minimax/video-01", "api.minimax.io/v1/query/video_generation?task_id=7"),
        ("minimax", "7", "MiniMax-H3", "api.minimax.io/v2/query/video_generation/7"),
        ("minimax", "7", "hailuo-03", "api.minimax.io/v2/query/video_generation/7"),
        ("minimax", "7", "anything-new", "api.minimax.io/v1/query/video_generation?task_id=7"),
        ("kling", "j", "kling-v2/text2video", "api.klingai.com/v1/videos/text2video/j"),
        ("kling", "j", "videos/multi-image2video", "api.klingai.com/v1/videos/multi-image2video/j"),
        ("kling", "j", "kling/lip-sync", "api.klingai.com/v1/videos/lip-sync/j"),
        ("kling", "j", "kling-v1-5/generations", "api.klingai.com/v1/images/generations/j"),
        ("bfl", "j", "flux", "api.bfl.ai/v1/get_result?id=j"),
        ("bfl", "https://api.eu.bfl.ai/v1/get_result?id=j", "flux", "api.eu.bfl.ai/v1/get_result?id=j"),
        (
            "veo-vertex",
            vertex,
            "any",
            "europe-west4-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west4/publishers/google/models/veo-3:fetchPredictOperation",
        ),
        (
            "veo-vertex",
            global,
            "any",
            "aiplatform.googleapis.com/v1/projects/p-1/locations/global/publishers/google/models/veo-3:fetchPredictOperation",
        ),
    ] {
        assert_eq!(first(provider, job, model).as_deref(), Ok(asked), "{provider} {model}");
    }
}

#[test]
fn a_job_without_a_valid_url_is_an_error_and_no_request_is_sent() {
    for (provider, job, model, complaint) in [
        ("kling", "j", "kling-v2-master", "names no kind"),
        ("minimax", "../x", "MiniMax-H3", "digits and letters"),
        ("bfl", "https://evil.example/v1/get_result?id=j", "flux", "ask_hosts"),
        ("bfl", "https://bfl.ai.evil.example/", "flux", "ask_hosts"),
        ("veo-vertex", "operations/o-1", "veo", "full name"),
        (
            "veo-vertex",
            "projects/p/locations/evil.example/publishers/google/models/m/operations/o",
            "veo",
            "full name",
        ),
        (
            "veo-vertex",
            "projects/p/locations/us-east5/publishers/google/models/a/../../x/operations/o",
            "veo",
            "full name",
        ),
    ] {
        let error = first(provider, job, model).unwrap_err();
        assert!(error.contains(complaint), "{provider} {job} {model}: {error}");
    }
}

#[test]
fn a_job_of_a_new_minimax_model_is_unknown_only_if_both_api_versions_say_so() {
    let gone = serde_json::json!({"base_resp": {"status_code": 2013, "status_msg": "invalid task_id"}});
    let read = |model: &str, step| {
        let asked = question("minimax", "7", model, 1);
        providers().read(&asked, step, &received(200, &BTreeMap::new(), &gone)).unwrap()
    };
    match read("anything-new", 1) {
        Reading::AskNext(request) => {
            assert_eq!(request.to_string(), "GET https://api.minimax.io/v2/query/video_generation/7");
        }
        Reading::Judged(evidence) => panic!("{evidence:?}"),
    }
    for (model, step) in [("anything-new", 2), ("MiniMax-H3", 1), ("MiniMax-Hailuo-02", 1)] {
        match read(model, step) {
            Reading::Judged(evidence) => assert_eq!(evidence.verdict, Verdict::UnknownJob, "{model} {step}"),
            Reading::AskNext(request) => panic!("{model} {step}: {request}"),
        }
    }
}

#[test]
fn p02_every_rejection_and_failure_of_the_examples_has_its_class_and_code() {
    use FailureClass::{ContentSafety, ProviderError, ServerError};
    for (file, class, code) in [
        ("bfl/failed.json", ServerError, Some("Error")),
        ("bfl/failed-content-safety.json", ContentSafety, Some("Content Moderated")),
        ("bfl/failed-content-safety-input.json", ContentSafety, Some("Request Moderated")),
        ("elevenlabs-dubbing/failed.json", ProviderError, None),
        ("elevenlabs-dubbing/failed-content-safety.json", ContentSafety, None),
        ("heygen/failed.json", ServerError, Some("internal_error")),
        ("heygen/failed-content-safety.json", ContentSafety, Some("MODERATION_REJECTED")),
        ("kling/failed.json", ProviderError, None),
        ("kling/failed-content-safety.json", ContentSafety, None),
        ("minimax/failed.json", ServerError, Some("1000")),
        ("minimax/failed-content-safety.json", ContentSafety, Some("1027")),
        ("openai-videos/failed.json", ProviderError, Some("video_generation_failed")),
        ("openai-videos/failed-content-safety.json", ContentSafety, Some("moderation_blocked")),
        ("runway/failed.json", ServerError, Some("INTERNAL.BAD_OUTPUT.CODE01")),
        ("runway/failed-no-code.json", ProviderError, None),
        ("runway/failed-content-safety-output.json", ContentSafety, Some("SAFETY.OUTPUT.VIDEO")),
        ("stability/failed-content-safety.json", ContentSafety, Some("CONTENT_FILTERED")),
        ("sync/failed.json", ProviderError, Some("generation_pipeline_failed")),
        ("sync/failed-content-safety.json", ContentSafety, Some("REJECTED")),
        ("veo-vertex/failed.json", ProviderError, Some("3")),
        ("veo-vertex/failed-content-safety.json", ContentSafety, None),
    ] {
        let evidence = judged(file, 1);
        assert_eq!((evidence.class, evidence.code.as_deref()), (Some(class), code), "{file}");
        assert!(evidence.message.is_some(), "{file}");
    }
}

#[test]
fn p05_outputs_have_an_index_if_the_answer_contains_it_or_all_outputs_are_there() {
    for (file, items, named) in [
        ("runway/succeeded-multi.json", 2, vec![Some(0), Some(1)]),
        ("runway/succeeded-multi.json", 3, vec![None, None]),
        ("runway/workflow-succeeded-nested-map.json", 3, vec![None; 3]),
        ("kling/succeeded-multi.json", 2, vec![Some(0), Some(1)]),
        // An image has its own index, also if other images are missing.
        ("kling/succeeded-multi.json", 4, vec![Some(0), Some(1)]),
        ("kling/succeeded-single.json", 1, vec![Some(0)]),
        ("heygen/succeeded-multi.json", 3, vec![Some(0), Some(1), Some(2)]),
        ("heygen/succeeded-multi.json", 1, vec![None; 3]),
        ("sync/succeeded-multi.json", 1, vec![None; 2]),
        ("elevenlabs-dubbing/succeeded-multi.json", 2, vec![Some(0), Some(1)]),
        ("veo-vertex/succeeded-multi.json", 2, vec![Some(0), Some(1)]),
        ("openai-videos/succeeded-single.json", 1, vec![Some(0)]),
        ("stability/succeeded-single.json", 1, vec![Some(0)]),
        ("minimax/succeeded-file-retrieve.json", 1, vec![Some(0)]),
    ] {
        assert_eq!(indices(&judged(file, items)), named, "{file} for {items}");
    }
}

#[test]
fn p18_the_expiry_of_a_file_is_read_if_the_answer_contains_it() {
    for (file, expires_at) in [
        ("bfl/succeeded-single.json", "2026-05-04T09:22:09Z"),
        ("heygen/succeeded-single.json", "2026-05-11T09:48:40Z"),
        ("openai-videos/succeeded-single.json", "2026-05-04T10:50:11Z"),
    ] {
        let evidence = judged(file, 1);
        let wanted = Timestamp::parse(expires_at).unwrap();
        assert_eq!(evidence.outputs[0].expires_at, Some(wanted), "{file}");
    }
}

#[test]
fn indices_of_kling_images_that_do_not_start_at_0_are_ignored() {
    let read = |numbers: [i64; 2], items| {
        let images = numbers.map(|n| serde_json::json!({"index": n, "url": format!("https://cdn/{n}")}));
        let data = serde_json::json!({"task_status": "succeed", "task_result": {"images": images}});
        let body = serde_json::json!({"code": 0, "data": data});
        let asked = question("kling", "j", "images/generations", items);
        match providers().read(&asked, 1, &received(200, &BTreeMap::new(), &body)).unwrap() {
            Reading::Judged(evidence) => indices(&evidence),
            Reading::AskNext(request) => panic!("{request}"),
        }
    };
    assert_eq!(read([2, 0], 4), [Some(2), Some(0)]);
    assert_eq!(read([1, 2], 2), [Some(0), Some(1)]);
    assert_eq!(read([1, 2], 4), [None, None]);
}
