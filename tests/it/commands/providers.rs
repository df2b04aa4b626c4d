//! `provider test`, `provider list` and the simulated provider, from outside.

use super::*;

#[tokio::test]
async fn answers_are_read_and_providers_listed_without_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let answer = directory.path().join("answer.json");
    std::fs::write(
        &answer,
        r#"{"id": "a", "status": "succeeded", "output": ["https://replicate.delivery/0.png?sig=s3cret"]}"#,
    )
    .unwrap();
    let answer = answer.to_str().unwrap();
    let ended =
        makegood(&["provider", "test", "replicate", "--answer", answer, "--items", "2"]).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["evidence"]["verdict"], "succeeded");
    let fresh: Vec<&str> = told["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| each["fresh"]["reason"].as_str().unwrap())
        .collect();
    assert_eq!(fresh, ["output_available", "missing_output"]);
    assert!(!ended.stdout.contains("s3cret"), "{ended:?}");

    let text = makegood(&[
        "provider",
        "test",
        "replicate",
        "--answer",
        answer,
        "--status",
        "503",
        "--output",
        "text",
    ])
    .output()
    .await;
    assert!(text.stdout.contains("wait unreachable (rule 13)"), "{text:?}");
    assert!(text.stdout.contains("refund unconfirmed (rule 13)"), "{text:?}");

    for arguments in [["nobody", answer], ["fal", "/no/such/file"]] {
        let ended = makegood(&["provider", "test", arguments[0], "--answer", arguments[1]]).output().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }

    let listed = makegood(&["provider", "list"]).env("FAL_KEY", "s3cret").output().await;
    assert!(!listed.stdout.contains("s3cret"), "{listed:?}");
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let providers = listed["providers"].as_array().unwrap();
    assert_eq!(providers.len(), makegood::provider::SHIPPED.len());
    let with_key: Vec<&str> = providers
        .iter()
        .filter(|each| each["key_present"].as_bool().unwrap())
        .map(|each| each["name"].as_str().unwrap())
        .collect();
    let closed: Vec<(&str, &Value)> = providers
        .iter()
        .filter(|each| !each["closed"].is_null())
        .map(|each| (each["name"].as_str().unwrap(), &each["closed"]))
        .collect();
    let [("openai-videos", told)] = closed[..] else { panic!("{closed:?}") };
    assert_eq!((&told["on"], &told["has_happened"]), (&Value::from("2026-09-24"), &Value::from(true)));
    assert!(told["why"].as_str().unwrap().contains("Videos API"), "{told}");
    let text = makegood(&["provider", "list", "--output", "text"]).output().await.stdout;
    assert!(text.contains("openai-videos\n  API        closed since 2026-09-24: OpenAI"), "{text}");
    // The command is only run when the provider is asked, so `list` counts its key as present.
    assert_eq!(with_key, ["fal", "veo-vertex"]);
}

#[tokio::test]
async fn a_provider_is_asked_for_a_job_and_every_step_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut simulator = makegood(&["simulate-provider", "--listen", "127.0.0.1:0", "--dir", "here"])
        .within(directory.path())
        .start();
    simulator.says("The id of a job decides how it ends").await;
    let here = directory.path().join("here");
    let ask = |provider: &str, job: &str, format: &str| {
        makegood(&["provider", "test", provider, "--job", job, "--items", "2", "--output", format])
            .env("MAKEGOOD__PROVIDERS__DIR", here.to_str().unwrap())
            .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true")
            .env("REPLICATE_API_TOKEN", "s3cret-key")
            .env("FAL_KEY", "s3cret-key")
    };
    // fal answers in two steps: the state of the job, and then its result.
    let ended = ask("fal", "ok2-1", "json").output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let steps = told["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "{told}");
    for (step, said) in steps.iter().zip(["ask", "succeeded"]) {
        assert!(step["request"].as_str().unwrap().starts_with("GET http://127.0.0.1:"), "{told}");
        assert_eq!(step["status"], 200);
        let filter: Value = serde_json::from_str(step["filter_said"].as_str().unwrap()).unwrap();
        assert_eq!(filter["verdict"], said, "{told}");
    }
    assert_eq!(told["evidence"]["verdict"], "succeeded");
    assert_eq!(told["decisions"][1]["fresh"]["reason"], "output_available");

    // As a pass does, it refuses addresses of this machine unless the settings allow them.
    let refused =
        ask("fal", "ok2-1", "text").env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "false").output().await;
    assert!(refused.stdout.contains("a pass does not download http://127.0.0.1:"), "{refused:?}");
    assert!(
        refused.stdout.contains("recovery_retry") && !refused.stdout.contains("recover output"),
        "{refused:?}"
    );

    let text = ask("replicate", "failed-1", "text").output().await;
    assert_eq!(text.code, Some(0), "{text:?}");
    for piece in
        ["Request 1: GET http://127.0.0.1:", "answer: HTTP 200", "filter: {", "Read by replicate", "refund"]
    {
        assert!(text.stdout.contains(piece), "{piece}: {text:?}");
    }
    assert!(!text.stdout.contains("s3cret") && !ended.stdout.contains("s3cret"), "{text:?} {ended:?}");

    // Nothing answers: an error, and no success.
    simulator.terminate().await;
    simulator.ended().await;
    let silent = ask("replicate", "failed-1", "text").output().await;
    assert_eq!(silent.code, Some(1), "{silent:?}");
    assert!(silent.stdout.contains("answer: none") && silent.stdout.contains("unreachable"), "{silent:?}");

    for wrong in [vec![], vec!["--status", "404", "--job", "x"], vec!["--step", "2", "--job", "x"]] {
        let ended = makegood(&[vec!["provider", "test", "fal"], wrong.clone()].concat()).output().await;
        assert_eq!(ended.code, Some(2), "{wrong:?}: {ended:?}");
    }
}

#[tokio::test]
async fn providers_are_listed_with_how_the_last_pass_found_them() {
    for world in worlds().await {
        let list = |format: &str| world.makegood(&["provider", "list", "--output", format]);
        let before: Value = serde_json::from_str(&list("json").output().await.stdout).unwrap();
        let of = |listed: &Value| {
            let providers = listed["providers"].as_array().unwrap();
            providers.iter().find(|each| each["name"] == "replicate").unwrap().clone()
        };
        assert_eq!((&before["states_unknown"], &of(&before)["last_verdict"]), (&Value::Null, &Value::Null));
        world.makegood(&["run"]).output().await;
        let after: Value = serde_json::from_str(&list("json").output().await.stdout).unwrap();
        assert!(of(&after)["last_verdict"].is_string() && of(&after)["last_asked_at"].is_string(), "{after}");
        assert_eq!(of(&after)["circuit_open_until"], Value::Null);
        let text = list("text").output().await.stdout;
        assert!(text.contains("closed; opens after") && text.contains("never asked"), "{text}");
    }
}

#[tokio::test]
async fn the_simulated_provider_answers_until_it_is_asked_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let mut run = makegood(&["simulate-provider", "--listen", "127.0.0.1:0", "--dir", "here"])
        .within(directory.path())
        .start();
    run.says("The id of a job decides how it ends").await;
    let file = std::fs::read_to_string(directory.path().join("here/fal.toml")).unwrap();
    assert!(file.contains("GET http://127.0.0.1:"), "{file}");
    run.terminate().await;
    let ended = run.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = makegood(&["simulate-provider", "--listen", &address]).output().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let help = makegood(&["simulate-provider", "--help"]).output().await;
    assert!(help.stdout.contains("two-of-three"), "{help:?}");
}
