//! Tests of the simulated provider with the real client, over real HTTP.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;

use super::*;
use crate::clock::Clock;
use crate::evidence::{Doubt, Evidence, FailureClass, Source, Verdict};
use crate::provider::{AskOutcome, Providers, Question, RequestOutcome};

struct World {
    simulator: Simulator,
    providers: Providers,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    world_with(|text| text).await
}

async fn world_with(change: impl Fn(String) -> String) -> World {
    // Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in provider_files(&simulator.base_url()) {
        std::fs::write(dir.path().join(format!("{name}.toml")), change(text)).unwrap();
    }
    let providers = Providers::load(Some(dir.path()), Clock::default()).unwrap();
    World { simulator, providers, _dir: dir }
}

fn question(provider: &str, fate: &str, items: usize) -> Question {
    Question {
        provider: provider.into(),
        job_id: job_id(provider, fate, "1"),
        model: "acme/still-life/dev".into(),
        items,
        urgent: false,
    }
}

impl World {
    async fn ask(&self, question: &Question) -> Evidence {
        match self.providers.ask(question).await {
            AskOutcome::Answered(evidence) => evidence,
            AskOutcome::NotAsked { retry_in } => panic!("not asked, again in {retry_in:?}"),
        }
    }

    async fn verdict(&self, provider: &str, fate: &str) -> Verdict {
        self.ask(&question(provider, fate, 1)).await.verdict
    }
}

const PROVIDERS: [&str; 3] = ["replicate", "fal", "veo-gemini"];

#[tokio::test]
async fn every_fate_gives_its_verdict_at_every_provider() {
    let world = world().await;
    let unreadable = Verdict::CouldNotTell(Doubt::Unreadable);
    for (fate, expected) in [
        ("ok", [Verdict::Succeeded; 3]),
        ("ok3", [Verdict::Succeeded; 3]),
        ("two-of-three", [Verdict::Succeeded; 3]),
        ("one-failed", [Verdict::Succeeded; 3]),
        ("inline", [Verdict::Succeeded; 3]),
        ("empty", [Verdict::Succeeded; 3]),
        ("failed", [Verdict::Failed; 3]),
        ("safety", [Verdict::Failed; 3]),
        ("queue-timeout", [Verdict::Cancelled, Verdict::Failed, Verdict::Failed]),
        ("cancelled", [Verdict::Cancelled; 3]),
        ("queued", [Verdict::Queued, Verdict::Queued, Verdict::Running]),
        ("running", [Verdict::Running; 3]),
        ("partial", [Verdict::Running; 3]),
        ("unknown", [Verdict::UnknownJob; 3]),
        ("no-such-fate", [Verdict::UnknownJob; 3]),
        ("expired", [Verdict::Succeeded, unreadable, Verdict::Succeeded]),
        ("gone", [Verdict::Succeeded; 3]),
        ("lost", [Verdict::Succeeded; 3]),
        ("forbidden", [Verdict::Succeeded; 3]),
        ("file-down", [Verdict::Succeeded; 3]),
        ("file-broken", [Verdict::Succeeded; 3]),
        ("down", [Verdict::CouldNotTell(Doubt::Unreachable); 3]),
        ("unauthorized", [Verdict::CouldNotTell(Doubt::Unauthorized); 3]),
        ("ratelimited", [Verdict::CouldNotTell(Doubt::RateLimited); 3]),
        ("redirect", [unreadable; 3]),
        ("garbage", [unreadable; 3]),
        ("novel", [unreadable; 3]),
        ("deep", [unreadable; 3]),
        ("huge", [unreadable; 3]),
    ] {
        for (provider, expected) in PROVIDERS.into_iter().zip(expected) {
            assert_eq!(world.verdict(provider, fate).await, expected, "{provider} {fate}");
        }
    }
    assert_eq!(world.simulator.asks("ok-1"), 1 + 2 + 1, "fal is asked for status and result");
    world.simulator.stop().await;
}

#[tokio::test]
async fn p05_p06_missing_outputs_of_a_batch_are_not_offered() {
    let world = world().await;
    for provider in PROVIDERS {
        let evidence = world.ask(&question(provider, "two-of-three", 3)).await;
        let files =
            evidence.outputs.iter().filter(|offer| matches!(offer.source, Source::Url { .. })).count();
        assert_eq!(files, 2, "{provider}");
        assert!(evidence.outputs.iter().all(|offer| offer.index.is_none()), "{provider}");
        let all = world.ask(&question(provider, "ok3", 3)).await;
        assert!(all.outputs.iter().map(|offer| offer.index).eq([Some(0), Some(1), Some(2)]), "{provider}");
    }
    let safety = world.ask(&question("fal", "safety", 1)).await;
    assert_eq!(safety.class, Some(FailureClass::ContentSafety));
}

#[tokio::test]
async fn offered_files_can_be_downloaded_and_have_their_declared_type() {
    let world = world().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (provider, fate, kind) in [
        ("replicate", "ok2", "image/png"),
        ("replicate", "ok-video", "video/mp4"),
        ("fal", "ok-size=300000", "image/png"),
        ("veo-gemini", "ok", "video/mp4"),
    ] {
        for offer in world.ask(&question(provider, fate, 1)).await.outputs {
            let Source::Url { url, .. } = offer.source else { panic!("{provider} {fate}") };
            let parsed = url::Url::parse(&url).unwrap();
            assert_eq!(world.providers.get(provider).unwrap().output_hosts.check(&parsed), Ok(()), "{url}");
            let answer = client.get(&url).send().await.unwrap();
            assert_eq!(answer.headers()["content-type"], kind);
            let announced = answer.content_length();
            let content = answer.bytes().await.unwrap();
            assert_eq!(announced, Some(content.len() as u64));
            assert_eq!(infer::get(&content).unwrap().mime_type(), kind, "{provider} {fate}");
            assert!(!fate.contains("size") || content.len() == 300_000);
        }
    }
    for (fate, status) in [("gone", 410), ("lost", 404), ("forbidden", 403), ("file-down", 503)] {
        let evidence = world.ask(&question("replicate", fate, 1)).await;
        let Source::Url { url, .. } = &evidence.outputs[0].source else { panic!("{fate}") };
        assert_eq!(client.get(url).send().await.unwrap().status(), status);
    }
    let evidence = world.ask(&question("fal", "file-broken", 1)).await;
    let Source::Url { url, .. } = &evidence.outputs[0].source else { panic!() };
    assert!(client.get(url).send().await.unwrap().bytes().await.is_err());
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_size_limit() {
    let world = world_with(|text| {
        text.replace("name = \"replicate\"", "name = \"replicate\"\nmax_body_bytes = 100000")
    })
    .await;
    let evidence = world.ask(&question("replicate", "huge", 1)).await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreadable));
    assert_eq!(evidence.message.as_deref(), Some("the body is longer than 100000 bytes"));
    assert_eq!(evidence.answer.status, Some(200));
}

#[tokio::test]
async fn a_job_id_with_dots_and_spaces_is_requested_unchanged() {
    let world = world().await;
    for job in ["../../files/ok-1", "a b/../c", "x?y#z", "ключ", "x/../ok-1", "%2e%2e"] {
        let question = Question { job_id: job.into(), ..question("replicate", "", 1) };
        let before = world.simulator.total_hits();
        let evidence = world.ask(&question).await;
        let path = format!("/replicate/v1/predictions/{}", utf8_percent_encode(job, NON_ALPHANUMERIC));
        let decoded = |path: &str| percent_decode_str(path).decode_utf8_lossy().into_owned();
        assert_eq!(world.simulator.total_hits(), before + 1);
        let asked = evidence.answer.request.unwrap();
        assert_eq!(
            decoded(asked.strip_prefix(&format!("GET {}", world.simulator.base_url())).unwrap()),
            decoded(&path)
        );
        assert_eq!(evidence.verdict, Verdict::UnknownJob, "{job}");
    }
    let before = world.simulator.total_hits();
    for job in ["", "..", "models/../x", "models//x", "a?b"] {
        let question = Question { job_id: job.into(), ..question("veo-gemini", "", 1) };
        let evidence = world.ask(&question).await;
        assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreadable), "{job}");
        assert!(evidence.message.unwrap().contains("cannot be asked for"));
    }
    assert_eq!(world.simulator.total_hits(), before, "nothing was sent");
}

#[tokio::test]
async fn a_provider_without_a_file_and_one_without_a_key_have_different_doubts() {
    let world = world_with(|text| {
        text.replace("[ask]", "[auth]\nheader = \"x-key\"\nvalue = \"{secret}\"\nsecret = { env = \"MAKEGOOD_TEST_NO_KEY\" }\n[ask]")
    })
    .await;
    assert_eq!(world.verdict("acme", "ok").await, Verdict::CouldNotTell(Doubt::UnknownProvider));
    let evidence = world.ask(&question("replicate", "ok", 1)).await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unauthorized));
    assert!(evidence.message.unwrap().contains("MAKEGOOD_TEST_NO_KEY"));
    assert_eq!(world.simulator.total_hits(), 0);
}

#[tokio::test]
async fn a_key_is_sent_and_never_stored() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "sk-very-secret\n").unwrap();
    let path = key.display().to_string();
    let world = world_with(move |text| {
        text.replace(
            "[ask]",
            &format!("[auth]\nheader = \"x-key\"\nvalue = \"Key {{secret}}\"\nsecret = {{ file = \"{path}\" }}\n[ask]"),
        )
    })
    .await;
    // The provider repeats the key in its answer, and so it appears in the filter's result.
    let body =
        serde_json::json!({"id": "j", "status": "failed", "output": null, "error": "bad key sk-very-secret"});
    world.simulator.set_answer("ok-1", Canned::json(200, &body));
    let evidence = world.ask(&question("replicate", "ok", 1)).await;
    assert_eq!(evidence.verdict, Verdict::Failed);
    assert!(!format!("{evidence:?}").contains("very-secret"), "{evidence:?}");
    assert!(evidence.message.unwrap().contains("[secret]"));
    let headers = world.providers.download_headers("replicate").await.unwrap();
    assert_eq!(headers["x-key"], "Key sk-very-secret");
}

#[tokio::test]
async fn the_circuit_breaker_stops_questions_except_urgent_ones() {
    let world = world().await;
    for _ in 0..5 {
        assert_eq!(world.verdict("fal", "down").await, Verdict::CouldNotTell(Doubt::Unreachable));
    }
    assert!(world.providers.is_circuit_open("fal") && !world.providers.is_circuit_open("replicate"));
    let before = world.simulator.total_hits();
    assert!(matches!(world.providers.ask(&question("fal", "ok", 1)).await, AskOutcome::NotAsked { .. }));
    assert_eq!(world.simulator.total_hits(), before);
    assert_eq!(world.verdict("replicate", "ok").await, Verdict::Succeeded, "others are not concerned");

    let urgent = Question { urgent: true, ..question("fal", "ok", 1) };
    assert_eq!(world.ask(&urgent).await.verdict, Verdict::Succeeded);
    assert!(!world.providers.is_circuit_open("fal"), "an answer closes it");

    let stats = world.providers.request_stats();
    let fal = stats.iter().find(|stats| stats.provider == "fal").unwrap();
    let count = |wanted| fal.outcomes.iter().find(|(outcome, _)| *outcome == wanted).unwrap().1;
    assert_eq!(
        (
            count(RequestOutcome::Unreachable),
            count(RequestOutcome::NotAsked),
            count(RequestOutcome::Answered)
        ),
        (5, 1, 2)
    );
    assert_eq!(fal.duration_count, 7);
}

#[tokio::test]
async fn only_retryable_failures_are_retried() {
    let world = world().await;
    for (status, retry_after, asks) in
        [(503, None, 3), (502, Some("0"), 3), (429, Some("60"), 1), (500, None, 1), (401, None, 1)]
    {
        let job = format!("x{status}-1");
        let headers =
            retry_after.map(|value| ("retry-after".to_owned(), value.to_owned())).into_iter().collect();
        world.simulator.set_answer(&job, Canned { status, headers, body: "{}".into() });
        world.ask(&Question { job_id: job.clone(), ..question("replicate", "", 1) }).await;
        assert_eq!(world.simulator.asks(&job), asks, "{status}");
    }
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let World { simulator, providers, _dir } =
        world_with(|text| text.replace("[provider]", "[provider]\nretries = 0")).await;
    simulator.stop().await;
    match providers.ask(&question("replicate", "ok", 1)).await {
        AskOutcome::Answered(evidence) => {
            assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
            let message = evidence.message.unwrap();
            assert!(message.starts_with("could not connect: "), "{message}");
        }
        AskOutcome::NotAsked { .. } => panic!("not asked"),
    }
}

#[tokio::test]
async fn a_provider_that_hangs_delays_no_other_provider() {
    let world =
        world_with(|text| text.replace("[provider]", "[provider]\nretries = 0\ntimeout = \"300ms\"")).await;
    let (hanging, other) = (question("replicate", "hang", 1), question("fal", "ok", 1));
    let other_first = async {
        let evidence = world.ask(&other).await;
        (evidence.verdict, world.simulator.asks("ok-1"))
    };
    let (hung, (verdict, asks)) = tokio::join!(world.ask(&hanging), other_first);
    assert_eq!(hung.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert_eq!(hung.message.as_deref(), Some("no complete answer within 300ms"));
    assert_eq!((verdict, asks), (Verdict::Succeeded, 2));
    world.simulator.stop().await;
}

#[tokio::test]
async fn the_limit_of_concurrent_requests_is_kept() {
    let world = world_with(|text| text.replace("max_concurrency = ", "max_concurrency = 3 # ")).await;
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let hook: AskHook = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        Arc::new(move |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            Box::pin(async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                now.fetch_sub(1, Ordering::SeqCst);
            })
        })
    };
    world.simulator.on_ask(hook);
    let question = question("replicate", "ok", 1);
    let all = futures_util::future::join_all((0..12).map(|_| world.ask(&question))).await;
    assert!(all.iter().all(|evidence| evidence.verdict == Verdict::Succeeded));
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn compressed_answers_are_limited_by_their_decompressed_size() {
    let unpack = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let world = world_with(|text| {
        text.replace("name = \"replicate\"", "name = \"replicate\"\nmax_body_bytes = 100000\nretries = 0")
    })
    .await;
    // {"id":"j","status":"starting","output":null}
    let small = unpack("H4sIAAAAAAACA6tWykxRslLKUtJRKi5JLCktBnKAjKKSzLx0oFh+aUlBaYmSVV5pTk4tAMhDfxIsAAAA");
    // A string of 300,000 spaces.
    let large = unpack(&format!(
        "H4sIAAAAAAACA+3BAQ0AMAgDMCvPZNwNOgje8UHadio/DwAA{}Dsks4W/1ceiTBAA=",
        "A".repeat(384)
    ));
    for (job, body, verdict, message) in [
        ("z-small", small, Verdict::Queued, None),
        (
            "z-large",
            large,
            Verdict::CouldNotTell(Doubt::Unreadable),
            Some("the body is longer than 100000 bytes"),
        ),
        (
            "z-not-gzip",
            b"{}".to_vec(),
            Verdict::CouldNotTell(Doubt::Unreadable),
            Some("could not be decompressed"),
        ),
    ] {
        world.simulator.set_answer(job, Canned::new(200, body).with("content-encoding", "gzip"));
        let question = Question { job_id: job.into(), ..question("replicate", "", 1) };
        let evidence = world.ask(&question).await;
        assert_eq!(evidence.verdict, verdict, "{job}: {:?}", evidence.message);
        if let Some(message) = message {
            assert!(evidence.message.as_deref().unwrap().contains(message), "{job}: {:?}", evidence.message);
        }
    }
}

#[tokio::test]
async fn the_limit_of_requests_per_second_is_kept() {
    let world =
        world_with(|text| text.replace("max_concurrency", "requests_per_second = 20\nmax_concurrency")).await;
    let question = question("replicate", "ok", 1);
    let began = std::time::Instant::now();
    let all = futures_util::future::join_all((0..26).map(|_| world.ask(&question))).await;
    assert!(all.iter().all(|evidence| evidence.verdict == Verdict::Succeeded));
    // A burst of one second's requests, then at most one every 50 ms.
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}
