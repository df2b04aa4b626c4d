//! `provider test --expect`, and `--step` for further answers, from outside.

use super::*;

const ACME: &str = r#"[provider]
name = "acme"
output_hosts = ["cdn.acme.example"]
[ask]
request = "GET https://api.acme.example/jobs?id={job}&api_key=s3cret"
max_requests = 2
read = '''
if .step == 2 and .kept.page == 1 then {verdict: "succeeded", outputs: [.body.files[] | {url: .}]}
elif .body.state == "done" then
  {verdict: "ask", request: "GET https://api.acme.example/files?job=\(.job | @uri)&signature=s3cret", keep: {page: 1}}
elif .body.state == "working" then {verdict: "running"}
elif .body.state == "more" then {verdict: "ask", request: "GET https://api.acme.example/more"}
else {verdict: "unreadable"} end
'''
"#;

/// Every key of the output, at any depth, except those inside the filter's own output.
fn keys(value: &Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert(key.clone());
                if key != "next_kept" && key != "expected" {
                    keys(value, found);
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                keys(value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn every_key_that_provider_test_prints_is_documented() {
    let files = Files::new();
    files.write("done.json", r#"{"state": "done"}"#);
    files.write(
        "files.json",
        r#"{"files": ["https://cdn.acme.example/0.png", "https://evil.example/1.png"]}"#,
    );
    files.write("cases/x.json", r#"{"status": 200, "expect": {"verdict": "running"}}"#);
    let page = include_str!("../../../docs/providers.md");
    for arguments in [
        vec!["--answer", "done.json"],
        vec!["--answer", "files.json", "--step", "2", "--kept", "{\"page\":1}", "--items", "2"],
        vec!["--expect", "cases"],
    ] {
        let ended = files.run(&arguments).output().await;
        let mut found = std::collections::BTreeSet::new();
        keys(&serde_json::from_str(&ended.stdout).unwrap(), &mut found);
        assert!(found.len() > 8, "{ended:?}");
        for key in found {
            assert!(page.contains(&format!("`{key}`")), "`{key}` is not in docs/providers.md");
        }
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("providers/acme.toml", ACME);
        files
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> crate::binary::Makegood {
        makegood(&[&["provider", "test", "acme"], arguments].concat())
            .within(self.0.path())
            .env("MAKEGOOD__PROVIDERS__DIR", "providers")
    }
}

#[tokio::test]
async fn kept_answers_are_held_against_their_expected_readings() {
    let files = Files::new();
    files.write(
        "cases/working.json",
        r#"{"status": 200, "body": {"state": "working"},
            "expect": {"verdict": "running", "request": "GET https://api.acme.example/jobs?id=job-1&api_key=s3cret",
                       "decisions": ["wait"]}}"#,
    );
    files.write("cases/files.txt", r#"{"files": ["https://cdn.acme.example/0.png?sig=s3cret"]}"#);
    files.write(
        "cases/done.json",
        r#"{"step": 2, "kept": {"page": 1}, "status": 200, "body_file": "files.txt",
            "expect": {"verdict": "succeeded", "outputs": [{"url": "https://cdn.acme.example/0.png?sig=s3cret"}],
                       "decisions": ["recover"]}}"#,
    );
    files.write(
        "cases/asks.json",
        r#"{"status": 200, "body": {"state": "done"},
            "expect": {"verdict": "ask", "next_kept": {"page": 1},
                       "next_request": "GET https://api.acme.example/files?job=job-1&signature=s3cret"}}"#,
    );
    let ended = files.run(&["--expect", "cases", "--output", "text"]).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("All 3 cases of acme are read as expected."), "{ended:?}");

    // An output that the case does not name, another verdict, and a signature that differs.
    for (name, of, from, to, field) in [
        (
            "unnamed.json",
            "done.json",
            "\"outputs\": [{\"url\": \"https://cdn.acme.example/0.png?sig=s3cret\"}],",
            "",
            "outputs[0]",
        ),
        ("verdict.json", "working.json", "running", "queued", "verdict"),
        (
            "signed.json",
            "done.json",
            "{\"url\": \"https://cdn.acme.example/0.png?sig=s3cret\"}",
            "{\"url\": \"https://cdn.acme.example/0.png?sig=s3cret2\"}",
            "outputs[0] (in a hidden part)",
        ),
        ("decided.json", "working.json", "\"wait\"", "\"refund\"", "decisions"),
    ] {
        let text = std::fs::read_to_string(files.0.path().join("cases").join(of)).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{name}");
        files.write(&format!("cases/{name}"), &changed);
        let ended = files.run(&["--expect", "cases"]).output().await;
        assert_eq!(ended.code, Some(1), "{name}: {ended:?}");
        assert!(!ended.stdout.contains("s3cret"), "{ended:?}");
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!((&told["cases"], &told["differing"]), (&Value::from(4), &Value::from(1)), "{told}");
        let result =
            told["results"].as_array().unwrap().iter().find(|result| result["case"] == name).unwrap();
        assert_eq!(
            (&result["same"], &result["differences"][0]["field"]),
            (&Value::Bool(false), &Value::from(field))
        );
        let text = files.run(&["--expect", "cases", "--output", "text"]).output().await;
        assert!(text.stdout.contains(&format!("DIFFERENT {name}")), "{text:?}");
        assert!(text.stdout.contains("1 of 4 cases of acme are not read as expected."), "{text:?}");
        assert!(!text.stdout.contains("s3cret"), "{text:?}");
        std::fs::remove_file(files.0.path().join("cases").join(name)).unwrap();
    }
}

#[tokio::test]
async fn a_case_with_a_slip_or_a_folder_without_cases_is_wrong_usage() {
    let files = Files::new();
    files.write("empty/notes.txt", "no case");
    for dir in ["empty", "nowhere"] {
        let ended = files.run(&["--expect", dir]).output().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
    for (case, says) in [
        (
            "{\n\"status\": \"200\", \"expect\": {\"verdict\": \"running\"}}",
            "line 2: `status`: must be a whole number",
        ),
        (
            "{\"status\": 200, \"expect\": {\"verdict\": \"runing\"}}",
            "`expect.verdict`: must be one of queued, running",
        ),
        (
            "{\"status\": 200, \"body\": 1, \"body_text\": \"x\", \"expect\": {\"verdict\": \"running\"}}",
            "given only once",
        ),
        (
            "{\"status\": 200, \"body_file\": \"none.txt\", \"expect\": {\"verdict\": \"running\"}}",
            "none.txt",
        ),
        (
            "{\"status\": 200, \"expect\": {\"verdict\": \"running\", \"classs\": null}}",
            "unknown field `classs`",
        ),
        ("{\"expect\": {\"verdict\": \"running\"}}", "`status`: is missing"),
        ("{\"status\": 200, \"step\": 3, \"expect\": {\"verdict\": \"running\"}}", "`step`: must be 1 to 2"),
        ("{\"status\": 200}", "the key `expect` is missing"),
        ("{\"status\": 200,\n]", "line 2"),
    ] {
        files.write("slips/slip.json", case);
        let ended = files.run(&["--expect", "slips"]).output().await;
        assert_eq!(ended.code, Some(2), "{case}: {ended:?}");
        let told = format!("{}{}", ended.stdout, ended.stderr).replace("\\\"", "\"");
        assert!(told.contains("slip.json") && told.contains(says), "{case}: {told}");
        for rust in ["u16", "struct", "variant", "CaseJson"] {
            assert!(!told.contains(rust), "{told}");
        }
    }
    files.write("cases/x.json", "{\"status\": 200, \"expect\": {\"verdict\": \"unreadable\"}}");
    for wrong in [vec!["--job", "x"], vec!["--answer", "cases/x.json"], vec!["--items", "2"]] {
        let ended = files.run(&[vec!["--expect", "cases"], wrong].concat()).output().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
}

#[tokio::test]
async fn a_step_names_the_flags_of_the_next_one_and_ends_where_a_pass_does() {
    let files = Files::new();
    files.write("done.json", r#"{"state": "done"}"#);
    files.write("files.json", r#"{"files": ["https://cdn.acme.example/0.png"]}"#);
    files.write("more.json", r#"{"state": "more"}"#);
    let first = files.run(&["--answer", "done.json", "--output", "text"]).output().await;
    for piece in [
        "Request 1: GET https://api.acme.example/jobs?id=job-1&api_key=[secret]",
        "it asks further: GET https://api.acme.example/files?job=job-1&signature=[secret]",
        "Read the next answer with --step 2 --kept '{\"page\":1}'",
    ] {
        assert!(first.stdout.contains(piece), "{piece}: {first:?}");
    }
    assert!(!first.stdout.contains("s3cret"), "{first:?}");

    let second = ["--answer", "files.json", "--step", "2"];
    let told =
        files.run(&[&second[..], &["--kept", "{\"page\":1}", "--output", "text"]].concat()).output().await;
    assert!(told.stdout.contains("recover output_available"), "{told:?}");
    assert!(told.stdout.contains("what the filter asked for in step 1; it kept {\"page\":1}"), "{told:?}");

    // No further step is promised where a pass takes none.
    let last = files.run(&["--answer", "more.json", "--step", "2", "--output", "text"]).output().await;
    assert!(last.stdout.contains("unreadable") && last.stdout.contains("ask.max_requests"), "{last:?}");
    assert!(!last.stdout.contains("--step"), "{last:?}");
    for wrong in [vec!["--step", "3"], vec!["--step", "2", "--kept", "{"], vec!["--kept", "1"]] {
        let ended = files.run(&[vec!["--answer", "more.json"], wrong].concat()).output().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
}
