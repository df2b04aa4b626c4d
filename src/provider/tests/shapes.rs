//! Tests of the ways to ask a provider, over real HTTP on loopback: by POST, in a list, at a stored
//! URL, and with several requests to several hosts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::StatusCode;
use tokio::net::TcpListener;

use super::*;
use crate::ops::http;

/// One request that the scripted provider received.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    /// The unchanged body.
    pub(super) text: String,
}

/// A provider that answers by a script and records the requests.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Scripted {
    pub(super) async fn start(
        answer: impl Fn(&Arrived) -> (u16, Value) + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start_with_text(move |request| {
            let (status, body) = answer(request);
            (status, body.to_string())
        })
        .await
    }

    /// Starts a provider whose answers are not JSON.
    pub(super) async fn start_with_text(
        answer: impl Fn(&Arrived) -> (u16, String) + Clone + Send + Sync + 'static,
    ) -> Self {
        // Fails if another test has already installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let handler = {
            let arrived = Arc::clone(&arrived);
            move |request: hyper::Request<hyper::body::Incoming>| {
                let (arrived, answer) = (Arc::clone(&arrived), answer.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let request = Arrived {
                        line: format!("{} {}", head.method, head.uri),
                        headers: head.headers,
                        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                        text: String::from_utf8_lossy(&body).into_owned(),
                    };
                    let (status, body) = answer(&request);
                    arrived.lock().unwrap().push(request);
                    http::answer(StatusCode::from_u16(status).unwrap(), "application/json", body)
                }
            }
        };
        tokio::spawn(http::serve(listener, handler, http::ServerLimits::NONE, std::future::pending()));
        Self { address, arrived }
    }

    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.arrived().into_iter().map(|request| request.line).collect()
    }
}

/// Loads the provider `acme` from the text of a file. `HOST` is replaced by the address of the
/// scripted provider.
pub(super) fn acme(text: &str, scripted: &Scripted) -> Providers {
    let text = text.replace("HOST", &scripted.address.to_string());
    let provider = load_text("acme.toml", "acme", &text).unwrap();
    Providers::new(BTreeMap::from([("acme".to_owned(), provider)]), Clock::default())
}

pub(super) async fn ask(providers: &Providers, job: &str) -> Evidence {
    match providers.ask(&question("acme", job, "acme/model", 1)).await {
        AskOutcome::Answered(evidence) => evidence,
        AskOutcome::NotAsked { retry_in } => panic!("not asked, again in {retry_in:?}"),
    }
}

#[tokio::test]
async fn a_job_can_be_asked_about_by_post_with_a_list() {
    let scripted = Scripted::start(|request| {
        let ids = request.body["ids"].as_array().cloned().unwrap_or_default();
        let other = serde_json::json!({"id": "somebody-else", "state": 9});
        let of = |id: Value| serde_json::json!({"id": id, "state": 2});
        (200, Value::Array([other].into_iter().chain(ids.into_iter().map(of)).collect()))
    })
    .await;
    // The statuses are integers, errors come with HTTP 200, and the question is a list.
    let providers = acme(
        r#"
[provider]
name = "acme"
output_hosts = []
[ask]
request = "POST http://HOST/v1/query"
body = '{ids: [.job], kind: .let.kind, n: .items}'
headers = { X-Version = "2024-11-06" }
read = '''
(.job as $job | .body | arrays | map(select(.id == $job)) | first) as $mine
| if $mine == null then {verdict: "unreadable", message: "my job is not in the list"}
  elif $mine.state == 2 then {verdict: "running"}
  else {verdict: "unreadable"} end
'''
[ask.let]
kind = '.model | split("/") | .[0]'
"#,
        &scripted,
    );
    let evidence = ask(&providers, "a/b \"c\"").await;
    assert_eq!(evidence.verdict, Verdict::Running, "{evidence:?}");
    let request = scripted.arrived().remove(0);
    assert_eq!(request.line, "POST /v1/query");
    assert_eq!(request.body, serde_json::json!({"ids": ["a/b \"c\""], "kind": "acme", "n": 1}));
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["x-version"], "2024-11-06");
    assert!(evidence.answer.request.unwrap().contains(r#"/v1/query {"ids":["#));
}

#[tokio::test]
async fn a_job_is_not_asked_about_if_its_body_filter_fails() {
    let scripted = Scripted::start(|_| (200, Value::Null)).await;
    let providers = acme(
        "[provider]\nname = \"acme\"\noutput_hosts = []\n[ask]\nrequest = \"POST http://HOST/q\"\n\
         body = '{operation: (.job | capture(\"^op/(?<name>[a-z]+)$\").name)}'\nread = '{verdict: \"running\"}'",
        &scripted,
    );
    assert_eq!(ask(&providers, "op/x").await.verdict, Verdict::Running);
    let evidence = ask(&providers, "something else").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreadable));
    assert!(evidence.message.unwrap().contains("ask.body"));
    assert_eq!(scripted.lines(), ["POST /q"]);
}

#[tokio::test]
async fn a_stored_url_is_used_unchanged_and_its_query_is_not_stored() {
    let scripted = Scripted::start(|_| (200, serde_json::json!({"status": "Pending"}))).await;
    let providers = acme(
        r#"
[provider]
name = "acme"
output_hosts = []
ask_hosts = ["127.0.0.1"]
[ask]
request = "GET {poll|url}"
read = 'if .body.status == "Pending" then {verdict: "queued"} else {verdict: "unreadable"} end'
[ask.let]
poll = 'if .job | startswith("http") then .job else "http://HOST/v1/get_result?id=\(.job | @uri)" end'
"#,
        &scripted,
    );
    let stored = format!("http://{}/v1/get_result?id=1&region=eu", scripted.address);
    let evidence = ask(&providers, &stored).await;
    assert_eq!(evidence.verdict, Verdict::Queued, "{evidence:?}");
    assert!(!format!("{evidence:?}").contains("region"), "{evidence:?}");
    ask(&providers, "a b").await;
    assert_eq!(scripted.lines(), ["GET /v1/get_result?id=1&region=eu", "GET /v1/get_result?id=a%20b"]);

    for elsewhere in ["https://evil.example/v1", "http://10.0.0.1/", "http://169.254.169.254/latest"] {
        let evidence = ask(&providers, elsewhere).await;
        assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreadable), "{elsewhere}");
        assert!(evidence.message.unwrap().contains("ask_hosts"), "{elsewhere}");
    }
    assert_eq!(scripted.arrived().len(), 2, "nothing was asked elsewhere");
}

#[tokio::test]
async fn a_next_request_may_be_a_post_to_another_host_without_the_key_and_gets_the_kept_value() {
    let second = Scripted::start(|request| {
        (200, serde_json::json!({"file": request.body["file"], "key": request.headers.contains_key("x-key")}))
    })
    .await;
    let next = format!("POST http://localhost:{}/files", second.address.port());
    let first = Scripted::start(move |_| {
        (200, serde_json::json!({"done": true, "file": 17, "width": 640, "next": next}))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "sk-secret").unwrap();
    let text = r#"
[provider]
name = "acme"
output_hosts = []
ask_hosts = ["localhost"]
[auth]
header = "x-key"
value = "{secret}"
secret = { file = "KEYFILE" }
[ask]
request = "GET http://HOST/v1/{job}"
read = '''
if .step == 1 then
  {verdict: "ask", request: .body.next, body: {file: .body.file}, auth: "none", keep: {width: .body.width}}
elif .kept.width == 640 and .body.file == 17 and .body.key == false then {verdict: "succeeded", outputs: []}
else {verdict: "unreadable", message: "kept \(.kept), got \(.body)"} end
'''
"#
    .replace("KEYFILE", &dir.path().join("key").display().to_string());
    let providers = acme(&text, &first);
    let evidence = ask(&providers, "j").await;
    assert_eq!(evidence.verdict, Verdict::Succeeded, "{evidence:?}");
    assert_eq!(first.arrived()[0].headers["x-key"], "sk-secret");
    assert_eq!(second.lines(), ["POST /files"]);
}

/// Creates a command that prints `token-1` the first time, `token-2` the second time, and so on.
fn counting_command(dir: &tempfile::TempDir) -> String {
    let log = dir.path().join("runs");
    format!(
        r#"{{ command = ["/bin/sh", "-c", "echo x >> {0}; echo token-$(($(wc -l < {0})))"], ttl = "50m" }}"#,
        log.display()
    )
}

fn with_key(secret: &str, rest: &str) -> String {
    format!(
        "[provider]\nname = \"acme\"\noutput_hosts = [\"127.0.0.1\"]\n[auth]\nheader = \"authorization\"\n\
         value = \"Bearer {{secret}}\"\nsecret = {secret}\n[ask]\nrequest = \"GET http://HOST/{{job}}\"\n{rest}"
    )
}

#[tokio::test]
async fn an_expired_key_is_renewed_once_and_a_401_is_never_a_verdict() {
    for (accepted, verdict, asked) in [
        ("Bearer token-2", Verdict::Running, 2),
        ("Bearer token-9", Verdict::CouldNotTell(Doubt::Unauthorized), 2),
    ] {
        let scripted = Scripted::start(move |request| {
            if request.headers["authorization"] == accepted {
                (200, serde_json::json!({"status": "running"}))
            } else {
                (401, serde_json::json!({"status": "failed", "seen": request.headers["authorization"].to_str().unwrap()}))
            }
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let file = with_key(&counting_command(&dir), "read = '{verdict: .body.status}'");
        let providers = acme(&file, &scripted);
        let evidence = ask(&providers, "j").await;
        assert_eq!(evidence.verdict, verdict, "{evidence:?}");
        assert_eq!(scripted.arrived().len(), asked);
        assert!(!format!("{evidence:?}").contains("token-"), "{evidence:?}");
        // Ask again: the key is cached, and the command is not run again for every 401.
        ask(&providers, "j").await;
        assert_eq!(std::fs::read_to_string(dir.path().join("runs")).unwrap().lines().count(), 2);
    }
}

#[tokio::test]
async fn if_the_command_for_the_key_fails_no_request_is_sent() {
    let scripted = Scripted::start(|_| (200, Value::Null)).await;
    let command =
        r#"{ command = ["/bin/sh", "-c", "echo private >&2; exit 4", "private-argument"], ttl = "1m" }"#;
    let providers = acme(&with_key(command, "read = '{verdict: \"running\"}'"), &scripted);
    let evidence = ask(&providers, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unauthorized));
    let message = evidence.message.unwrap();
    assert!(
        message.contains("/bin/sh") && message.contains("code 4") && !message.contains("private"),
        "{message}"
    );
    assert!(scripted.arrived().is_empty());
    assert!(providers.get("acme").unwrap().secret_present().is_ok(), "a command is not run to see");
    assert!(providers.try_keys("acme").await.is_err());
}

#[tokio::test]
async fn downloads_may_have_another_key_and_other_headers_than_questions() {
    let scripted = Scripted::start(|request| {
        (200, serde_json::json!({"key": request.headers.get("x-file-key").map(|key| key.to_str().unwrap())}))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    for (name, key) in [("ask", "ask-key"), ("file", "file-key")] {
        std::fs::write(dir.path().join(name), key).unwrap();
    }
    let file = with_key(
        "{ file = \"DIR/ask\" }",
        r#"
read = '''
if .step == 1 then {verdict: "ask", request: "GET http://HOST/result", auth: "download"}
else {verdict: "succeeded", message: .body.key, outputs: [
  {request: "GET http://127.0.0.1:1/v1/content?variant=video", index: 0}, {request: "GET http://127.0.0.1:1/open", auth: false}]} end
'''
[download]
headers = { Accept = "video/*", X-Version = "2" }
[download.auth]
header = "x-file-key"
value = "{secret}"
secret = { file = "DIR/file" }
"#,
    )
    .replace("DIR", &dir.path().display().to_string());
    let providers = acme(&file, &scripted);
    let evidence = ask(&providers, "j").await;
    assert_eq!(evidence.message.as_deref(), Some("[secret]"), "the second step went with the second key");
    let url = |path: &str, auth| Source::Url { url: format!("http://127.0.0.1:1/{path}"), auth };
    let sources: Vec<&Source> = evidence.outputs.iter().map(|offer| &offer.source).collect();
    assert_eq!(sources, [&url("v1/content?variant=video", true), &url("open", false)]);
    let headers = providers.download_headers("acme").await.unwrap();
    assert_eq!(headers["x-file-key"], "file-key");
    assert_eq!(
        (&headers["accept"], &headers["x-version"]),
        (&"video/*".parse().unwrap(), &"2".parse().unwrap())
    );
    assert!(!headers.contains_key("authorization"));
}
