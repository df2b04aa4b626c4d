//! Tests of all kinds of keys, bodies and answers over real HTTP on loopback. No key may be in
//! anything that is stored or displayed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::shapes::{Arrived, Scripted, acme, ask};
use super::*;

/// Keys in files, for a provider file in which `KEY(name)` is replaced by the source of a key.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new(keys: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, key) in keys {
            std::fs::write(dir.path().join(name), key).unwrap();
        }
        Self(dir)
    }

    /// Creates a provider file with these sections.
    fn file(&self, auth: &str, ask: &str) -> String {
        let mut text =
            format!("[provider]\nname = \"acme\"\noutput_hosts = []\nretries = 0\n{auth}\n[ask]\n{ask}\n");
        while let Some((before, after)) = text.split_once("KEY(") {
            let (name, after) = after.split_once(')').unwrap();
            text = format!("{before}{{ file = {:?} }}{after}", self.0.path().join(name));
        }
        text
    }
}

const RUNNING: &str =
    "request = \"GET http://HOST/v1/{job}?v=2\"\nread = '{verdict: \"running\", message: (.body | tojson)}'";

/// Answers with all headers, the request line and the body of the request: the worst case for
/// secrets in answers.
fn echo(request: &Arrived) -> (u16, Value) {
    let headers: BTreeMap<&str, &str> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    (200, serde_json::json!({"line": request.line, "headers": headers, "text": request.text}))
}

/// Asks, and asserts that none of `secrets` is in the evidence or in the trace.
async fn ask_secretly(providers: &Providers, secrets: &[&str]) -> (Evidence, Vec<TraceStep>) {
    let (asked, steps) = providers.ask_with_trace(&question("acme", "j", "acme/model", 1)).await.unwrap();
    let AskOutcome::Answered(evidence) = asked else { panic!("not asked") };
    let shown = format!("{evidence:?} {steps:?} {providers:?}");
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
    (evidence, steps)
}

#[tokio::test]
async fn user_and_password_are_sent_in_one_header_and_either_may_be_missing() {
    let keys = Keys::new(&[("user", "me-1234"), ("password", "pw:5678")]);
    for (auth, sent) in [
        ("access_key = KEY(user)\nsecret = KEY(password)", "Basic bWUtMTIzNDpwdzo1Njc4"),
        ("access_key = KEY(user)", "Basic bWUtMTIzNDo="),
        ("secret = KEY(password)", "Basic OnB3OjU2Nzg="),
    ] {
        let scripted = Scripted::start(echo).await;
        let providers = acme(&keys.file(&format!("[auth]\nkind = \"basic\"\n{auth}"), RUNNING), &scripted);
        let secrets = ["me-1234", "pw:5678", &sent["Basic ".len()..]];
        let (evidence, _) = ask_secretly(&providers, &secrets).await;
        assert_eq!(evidence.verdict, Verdict::Running, "{evidence:?}");
        assert_eq!(scripted.arrived()[0].headers["authorization"], sent);
        // Downloads send them too.
        assert_eq!(providers.download_headers("acme").await.unwrap()["authorization"], sent);
    }
}

#[tokio::test]
async fn two_keys_are_sent_in_two_headers_and_a_missing_one_prevents_the_question() {
    let keys = Keys::new(&[("id", "app-1234"), ("key", "key-5678")]);
    let auth = "[auth]\nheader = \"x-app-id\"\nvalue = \"{secret}\"\nsecret = KEY(id)\n\
                [[auth.also]]\nheader = \"x-app-key\"\nvalue = \"Key {secret}\"\nsecret = KEY(key)";
    let scripted = Scripted::start(echo).await;
    let providers = acme(&keys.file(auth, RUNNING), &scripted);
    ask_secretly(&providers, &["app-1234", "key-5678"]).await;
    let headers = &scripted.arrived()[0].headers;
    assert_eq!(
        (&headers["x-app-id"], &headers["x-app-key"]),
        (&"app-1234".parse().unwrap(), &"Key key-5678".parse().unwrap())
    );
    std::fs::remove_file(keys.0.path().join("key")).unwrap();
    assert!(providers.get("acme").unwrap().secret_present().is_err());
    let evidence = ask(&providers, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unauthorized));
    assert_eq!(scripted.arrived().len(), 1);
}

#[tokio::test]
async fn a_key_in_the_query_is_sent_and_never_displayed() {
    let keys = Keys::new(&[("key", "k/1234+56")]);
    let file = keys.file("[auth]\nkind = \"query\"\nparameter = \"k\"\nsecret = KEY(key)", RUNNING);
    let scripted = Scripted::start(echo).await;
    let providers = acme(&file, &scripted);
    let secrets = ["k/1234+56", "k%2F1234%2B56"];
    let (evidence, steps) = ask_secretly(&providers, &secrets).await;
    assert_eq!(evidence.verdict, Verdict::Running, "{evidence:?}");
    assert_eq!(scripted.lines(), ["GET /v1/j?v=2&k=k%2F1234%2B56"]);
    assert!(steps[0].request.ends_with("/v1/j?v=2&k=[secret]"), "{steps:?}");
    assert!(evidence.answer.request.unwrap().ends_with("/v1/j?…"));
    // The connection fails: the error must not contain the URL.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = file.replace("HOST", &closed.to_string());
    let providers = Providers::new(
        BTreeMap::from([("acme".to_owned(), load_text("acme.toml", "acme", &text).unwrap())]),
        Clock::default(),
    );
    let (evidence, _) = ask_secretly(&providers, &secrets).await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    // A download cannot have a key in the query, so it gets none.
    assert!(providers.download_headers("acme").await.unwrap().is_empty());
    let offering = "request = \"GET http://HOST/v1/{job}\"\n\
                    read = '{verdict: \"succeeded\", outputs: [{url: \"https://cdn.example/0\", auth: true}]}'";
    let scripted = Scripted::start(echo).await;
    let providers = acme(
        &keys.file("[auth]\nkind = \"query\"\nparameter = \"k\"\nsecret = KEY(key)", offering),
        &scripted,
    );
    let evidence = ask(&providers, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreadable));
    assert!(evidence.message.unwrap().contains("[download.auth]"));
}

#[tokio::test]
async fn forms_are_sent_with_the_first_and_the_next_request_which_has_its_own_headers() {
    let scripted = Scripted::start(echo).await;
    let providers = acme(
        r#"
[provider]
name = "acme"
output_hosts = []
[ask]
request = "POST http://HOST/query"
form = '{id: .job, n: .items, full: true, tag: ["a b", "c&d"], none: null}'
read = '''
if .step == 1 then {verdict: "ask", request: "PUT http://HOST/link", form: {"a/b": "ü"}, headers: {"X-Trace": "t-1", accept: "text/plain"}}
elif .step == 2 then {verdict: "ask", request: "POST http://HOST/bad", headers: {"Host": "evil.example"}}
else {verdict: "running"} end
'''
"#
        .replace("http://HOST/link", "http://HOST/link?x=1")
        .as_str(),
        &scripted,
    );
    let evidence = ask(&providers, "a b").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreadable));
    assert!(evidence.message.unwrap().contains("may not set `host`"));
    let arrived = scripted.arrived();
    assert_eq!(scripted.lines(), ["POST /query", "PUT /link?x=1"]);
    assert_eq!(arrived[0].text, "full=true&id=a+b&n=1&tag=a+b&tag=c%26d");
    assert_eq!(arrived[1].text, "a%2Fb=%C3%BC");
    for request in &arrived {
        assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    }
    let headers = &arrived[1].headers;
    assert_eq!(
        (&headers["x-trace"], &headers["accept"]),
        (&"t-1".parse().unwrap(), &"text/plain".parse().unwrap())
    );
    assert_eq!(arrived[0].headers["accept"], "application/json");
}

#[tokio::test]
async fn answers_are_parsed_as_text_ndjson_or_xml_if_the_file_says_so() {
    for (answer, body, read, wrong) in [
        (
            "text",
            "DONE 7\n",
            r#"if .body | startswith("DONE ") then {verdict: "running"} else {verdict: "unreadable"} end"#,
            "ERROR",
        ),
        (
            "ndjson",
            "{\"event\":\"queued\"}\n{\"event\":\"busy\"}\n",
            r#"if (.body | last | .event) == "busy" then {verdict: "running"} else {verdict: "unreadable"} end"#,
            "{\"event\":\"busy\"}\n{\"event\":",
        ),
        (
            "xml",
            "<Result><Status code=\"2\">busy</Status></Result>",
            r#"(.body.children[] | select(.name == "Status")) as $status
               | if $status.text == "busy" and $status.attributes.code == "2" then {verdict: "running"} else {verdict: "unreadable"} end"#,
            "<Result><Status code=\"2\">busy</Status>",
        ),
    ] {
        for (body, verdict) in [(body, Verdict::Running), (wrong, Verdict::CouldNotTell(Doubt::Unreadable))] {
            let scripted = Scripted::start_with_text(move |_| (200, body.to_owned())).await;
            let providers = acme(
                &format!(
                    "[provider]\nname = \"acme\"\noutput_hosts = []\n[ask]\nrequest = \"GET http://HOST/{{job}}\"\n\
                     answer = \"{answer}\"\nread = '''{read}'''"
                ),
                &scripted,
            );
            assert_eq!(ask(&providers, "j").await.verdict, verdict, "{body}");
        }
    }
}

#[tokio::test]
async fn pages_are_read_up_to_max_requests() {
    let pages = |max: usize| {
        format!(
            r#"
[provider]
name = "acme"
output_hosts = ["cdn.acme.example"]
[ask]
request = "GET http://HOST/jobs/{{job}}/files"
max_requests = {max}
read = '''
((.kept // []) + [.body.files[]]) as $files
| if .body.next then {{verdict: "ask", request: "GET http://HOST/jobs/\(.job | @uri)/files?page=\(.body.next)", keep: $files}}
  else {{verdict: "succeeded", outputs: [$files[] | {{url: .}}]}} end
'''
"#
        )
    };
    for (max, outputs) in [(6, Some(6)), (5, None)] {
        let scripted = Scripted::start(|request| {
            let page: u64 = request.line.split_once("page=").map_or(1, |(_, page)| page.parse().unwrap());
            let next = (page < 6).then_some(page + 1);
            (
                200,
                serde_json::json!({"files": [format!("https://cdn.acme.example/{page}.png")], "next": next}),
            )
        })
        .await;
        let evidence = ask(&acme(&pages(max), &scripted), "j").await;
        assert_eq!(scripted.arrived().len(), max);
        if let Some(outputs) = outputs {
            assert_eq!((evidence.verdict, evidence.outputs.len()), (Verdict::Succeeded, outputs));
        } else {
            assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreadable));
            assert!(evidence.message.unwrap().contains("ask.max_requests"));
        }
    }
}

/// Starts a token endpoint at `/token`, and a provider that accepts only the latest token.
async fn with_tokens(expires_in: Value, refuse_first: bool) -> (Scripted, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given);
    let scripted = Scripted::start(move |request| {
        if request.line == "POST /token" {
            let nth = counted.fetch_add(1, Ordering::SeqCst) + 1;
            return (200, serde_json::json!({"access_token": format!("token-{nth}"), "token_type": "Bearer", "expires_in": expires_in}));
        }
        let sent = request.headers["authorization"].to_str().unwrap().to_owned();
        let refused = refuse_first && sent == "Bearer token-1";
        (if refused { 401 } else { 200 }, serde_json::json!({"sent": sent}))
    })
    .await;
    (scripted, given)
}

#[tokio::test]
async fn a_token_is_requested_once_until_it_expires_or_is_rejected() {
    let keys = Keys::new(&[("id", "client 1234"), ("key", "se/cret-5678")]);
    let auth = |more: &str| {
        format!(
            "[auth]\nkind = \"oauth2\"\ntoken_url = \"http://HOST/token\"\naccess_key = KEY(id)\nsecret = KEY(key)\n\
             scope = \"jobs.read files\"\n{more}"
        )
    };
    let secrets = ["client 1234", "se/cret-5678", "token-1", "token-2"];
    // Lifetimes: one hour, not specified, expired at once; and one that is rejected early.
    for (expires_in, refuse_first, tokens) in [
        (Value::from(3600), false, 1),
        (Value::Null, false, 1),
        (Value::from(0), false, 2),
        (Value::from("3600"), true, 2),
    ] {
        let (scripted, given) = with_tokens(expires_in.clone(), refuse_first).await;
        let providers = acme(&keys.file(&auth(""), RUNNING), &scripted);
        for _ in 0..2 {
            let (evidence, _) = ask_secretly(&providers, &secrets).await;
            assert_eq!(evidence.verdict, Verdict::Running, "{evidence:?}");
        }
        assert_eq!(given.load(Ordering::SeqCst), tokens, "{expires_in}");
        let token = &scripted.arrived()[0];
        assert_eq!(token.text, "grant_type=client_credentials&scope=jobs.read+files");
        assert_eq!(token.headers["content-type"], "application/x-www-form-urlencoded");
        // Both are form-encoded and joined: "client+1234:se%2Fcret-5678".
        assert_eq!(token.headers["authorization"], "Basic Y2xpZW50KzEyMzQ6c2UlMkZjcmV0LTU2Nzg=");
        assert_eq!(scripted.arrived()[1].headers["authorization"], "Bearer token-1");
    }
    let (scripted, _) = with_tokens(Value::from(60), false).await;
    let providers =
        acme(&keys.file(&auth("client_auth = \"body\"\naudience = \"jobs\""), RUNNING), &scripted);
    ask_secretly(&providers, &secrets).await;
    assert_eq!(
        scripted.arrived()[0].text,
        "grant_type=client_credentials&scope=jobs.read+files&audience=jobs&client_id=client+1234&client_secret=se%2Fcret-5678"
    );
    assert!(!scripted.arrived()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_failed_token_request_is_unauthorized_and_not_repeated_at_once() {
    let keys = Keys::new(&[("id", "client-1234"), ("key", "secret-5678")]);
    let file = keys.file(
        "[auth]\nkind = \"oauth2\"\ntoken_url = \"http://HOST/token\"\naccess_key = KEY(id)\nsecret = KEY(key)",
        RUNNING,
    );
    for (status, answer, says) in [
        (
            401,
            r#"{"error": "invalid_client", "error_description": "secret-5678 is private-words"}"#,
            "HTTP 401, invalid_client",
        ),
        (400, r#"{"error": "private-words"}"#, "HTTP 400"),
        (500, "private-words", "HTTP 500"),
        (200, r#"{"token": "private-words"}"#, "no `access_token`"),
        (200, r#"{"access_token": "private-words", "expires_in": "soon"}"#, "expires_in"),
        (200, r#"{"access_token": "private-\nwords"}"#, "cannot be sent in an HTTP header"),
        (302, "", "HTTP 302"),
    ] {
        let scripted = Scripted::start_with_text(move |_| (status, answer.to_owned())).await;
        let providers = acme(&file, &scripted);
        for _ in 0..2 {
            let (evidence, _) = ask_secretly(&providers, &["client-1234", "secret-5678", "private"]).await;
            assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unauthorized), "{evidence:?}");
            assert!(evidence.message.as_ref().is_some_and(|message| message.contains(says)), "{evidence:?}");
        }
        assert_eq!(scripted.lines(), ["POST /token"], "{answer}");
    }
}

#[tokio::test]
async fn signed_requests_contain_the_signature_and_never_the_secret() {
    let keys = Keys::new(&[("access", "AKID-1234"), ("secret", "secret-5678"), ("session", "session-9012")]);
    let post = "request = \"POST http://HOST/jobs/{job}?b=2&a=1\"\nbody = '{id: .job}'\nread = '{verdict: \"running\"}'\n\
                headers = { X-TC-Action = \"DescribeJob\", X-Amz-Target = \"Jobs.Get\" }";
    for (auth, start, signed) in [
        (
            "kind = \"aws_sigv4\"\nregion = \"eu-west-1\"\nservice = \"bedrock\"\nsession_token = KEY(session)",
            "AWS4-HMAC-SHA256 Credential=AKID-1234/",
            "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target",
        ),
        (
            "kind = \"tc3_hmac_sha256\"\nservice = \"vclm\"",
            "TC3-HMAC-SHA256 Credential=AKID-1234/",
            "SignedHeaders=content-type;host",
        ),
    ] {
        let scripted = Scripted::start(echo).await;
        let file =
            keys.file(&format!("[auth]\n{auth}\naccess_key = KEY(access)\nsecret = KEY(secret)"), post);
        let providers = acme(&file, &scripted);
        let (evidence, _) = ask_secretly(&providers, &["AKID-1234", "secret-5678", "session-9012"]).await;
        assert_eq!(evidence.verdict, Verdict::Running, "{evidence:?}");
        let arrived = scripted.arrived().remove(0);
        let sent = arrived.headers["authorization"].to_str().unwrap();
        assert!(sent.starts_with(start) && sent.contains(signed), "{sent}");
        assert_eq!(arrived.headers["host"], scripted.address.to_string().as_str());
        assert_eq!(arrived.headers.get_all("content-type").iter().count(), 1);
        assert!(!format!("{arrived:?}").contains("secret-5678"));
        // Each question is signed again. Within one second the signature is the same.
        let twice = ask(&providers, "other").await;
        assert_eq!(twice.verdict, Verdict::Running);
        assert_ne!(scripted.arrived()[1].headers["authorization"].to_str().unwrap(), sent);
    }
}

#[test]
fn keys_that_do_not_belong_to_the_kind_are_rejected_by_name() {
    let keys = Keys::new(&[]);
    for (auth, key, says) in [
        ("[auth]\nkind = \"basic\"", "auth.secret", "password"),
        (
            "[auth]\nkind = \"basic\"\nsecret = KEY(a)\nheader = \"x\"",
            "auth.header",
            "removed: kind = \"basic\"",
        ),
        ("[auth]\nkind = \"query\"\nsecret = KEY(a)", "auth.parameter", "a word"),
        ("[auth]\nkind = \"query\"\nparameter = \"a b\"\nsecret = KEY(a)", "auth.parameter", "a word"),
        (
            "[auth]\nkind = \"query\"\nparameter = \"a\"\nvalue = \"x\"\nsecret = KEY(a)",
            "auth.value",
            "{secret}",
        ),
        ("[auth]\nkind = \"query\"\nparameter = \"a\"", "auth.secret", "needs it"),
        ("[auth]\nkind = \"oauth2\"\nsecret = KEY(a)\naccess_key = KEY(b)", "auth.token_url", "https"),
        (
            "[auth]\nkind = \"oauth2\"\ntoken_url = \"http://a.example/t\"\nsecret = KEY(a)\naccess_key = KEY(b)",
            "auth.token_url",
            "https",
        ),
        (
            "[auth]\nkind = \"oauth2\"\ntoken_url = \"https://u:p@a.example/t\"\nsecret = KEY(a)\naccess_key = KEY(b)",
            "auth.token_url",
            "https",
        ),
        (
            "[auth]\nkind = \"oauth2\"\ntoken_url = \"https://a.example/t\"\nclient_auth = \"post\"\nsecret = KEY(a)",
            "auth.client_auth",
            "unknown word",
        ),
        (
            "[auth]\nkind = \"aws_sigv4\"\nsecret = KEY(a)\naccess_key = KEY(b)\nservice = \"s\"",
            "auth.region",
            "a word",
        ),
        (
            "[auth]\nkind = \"aws_sigv4\"\nsecret = KEY(a)\nregion = \"r\"\nservice = \"s\"",
            "auth.access_key",
            "needs it",
        ),
        (
            "[auth]\nkind = \"tc3_hmac_sha256\"\nsecret = KEY(a)\naccess_key = KEY(b)\nregion = \"r\"\nservice = \"s\"",
            "auth.region",
            "removed",
        ),
        (
            "[auth]\nheader = \"a\"\nvalue = \"{secret}\"\nsecret = KEY(a)\n[[auth.also]]\nheader = \"A\"\nvalue = \"{secret}\"\nsecret = KEY(b)",
            "auth.also[0]",
            "another header",
        ),
        (
            "[auth]\nheader = \"a\"\nvalue = \"{secret}\"\nsecret = KEY(a)\n[[auth.also]]\nkind = \"tc3_hmac_sha256\"\nservice = \"s\"\n\
             access_key = KEY(c)\nsecret = KEY(b)",
            "auth.also[0].kind",
            "cannot be combined",
        ),
        (
            "[download.auth]\nkind = \"query\"\nparameter = \"a\"\nsecret = KEY(a)",
            "download.auth.kind",
            "downloads cannot be signed",
        ),
    ] {
        let text =
            keys.file(auth, "request = \"GET https://acme.example/{job}\"\nread = '{verdict: \"running\"}'");
        let error = file::read(&text).unwrap_err();
        assert!(error.key == key && error.problem.contains(says), "{auth}: {error:?}");
    }
}
