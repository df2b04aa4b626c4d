//! The built binary behind an egress proxy: what it asks the proxy for, what it refuses before it
//! asks, and that `provider test` judges a URL as the pass does.
//!
//! The proxy stands for the whole internet: behind each tunnel it serves itself, with a certificate
//! for `*.acme.example` by the CA of `egress/`. The names exist nowhere else, so nothing can be
//! reached without the proxy.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world has failed")]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use crate::binary::{Makegood, makegood};
use crate::database::sqlite;

const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/egress/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("egress/server.pem");
const KEY: &[u8] = include_bytes!("egress/server.key.pem");
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and the rest of a picture";

/// The requests to the proxy, and those through its tunnels.
#[derive(Default)]
struct Seen {
    /// The first line of each request to the proxy itself, and whether it had the proxy's password.
    asked: Vec<(String, bool)>,
    /// Host and head of each request behind a tunnel.
    heads: Vec<(String, String)>,
}

type Answers = Arc<dyn Fn(&str, &str) -> String + Send + Sync>;

/// Reads up to the end of a head; empty: the other side has gone.
fn head_of(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return String::new();
        }
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn send(stream: &mut impl Write, status: &str, headers: &str, body: &[u8]) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
    // The client may have gone.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    let _ = stream.flush();
}

/// A proxy that answers for jobs as `jobs` decides by host and path.
fn proxy(jobs: Answers) -> (u16, Arc<Mutex<Seen>>) {
    let certificates = CertificateDer::pem_slice_iter(CERTIFICATE).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = Arc::new(tls.with_no_client_auth().with_single_cert(certificates, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let told = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (tls, told, jobs) = (Arc::clone(&tls), Arc::clone(&told), Arc::clone(&jobs));
            std::thread::spawn(move || tunnel(stream, tls, &told, &jobs));
        }
    });
    (port, seen)
}

fn tunnel(mut stream: TcpStream, tls: Arc<ServerConfig>, seen: &Mutex<Seen>, jobs: &Answers) {
    let head = head_of(&mut stream);
    // `check` connects and reports nothing.
    let Some(line) = head.lines().next().map(str::to_owned) else { return };
    // "me:sesame", as RFC 7617 encodes it.
    let known = head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6c2vzyw1l\r\n");
    seen.lock().unwrap().asked.push((line.clone(), known));
    if !line.starts_with("CONNECT ") {
        return send(&mut stream, "200 OK", "", PNG);
    }
    if line.contains("blocked.") {
        return send(&mut stream, "403 Forbidden", "", b"");
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    let head = head_of(&mut stream);
    let host = line.split([' ', ':']).nth(1).unwrap().to_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().heads.push((host.clone(), head.to_ascii_lowercase()));
    match path.as_str() {
        "/token" => {
            send(&mut stream, "200 OK", "", br#"{"access_token": "open-sesame", "expires_in": 3600}"#);
        }
        "/moved.png" => {
            send(&mut stream, "302 Found", "location: https://cdn.acme.example:8443/a.png\r\n", b"");
        }
        path if path.starts_with("/jobs/") => send(&mut stream, "200 OK", "", jobs(&host, path).as_bytes()),
        _ => send(&mut stream, "200 OK", "", PNG),
    }
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

const PROVIDER: &str = r#"[provider]
name = "acme"
retries = 0
output_hosts = ["cdn.acme.example", "api.acme.example", "blocked.acme.example", "http://plain.acme.example"]
[auth]
kind = "oauth2"
token_url = "https://auth.acme.example/token"
access_key = { env = "ACME_ID" }
secret = { env = "ACME_SECRET" }
[ask]
request = "GET https://api.acme.example/jobs/{job}"
read = '{verdict: "succeeded", outputs: [.body + {index: 0}]}'
"#;

/// Each job, its file, whether the file needs the key, and why it is refused; none: it is
/// recovered.
const JOBS: [(&str, &str, bool, Option<&str>); 10] = [
    ("good", "https://cdn.acme.example/good.png?sig=SIGNED", false, None),
    ("own", "https://api.acme.example/own.png", true, None),
    ("plain", "http://plain.acme.example/a.png", false, None),
    (
        "port",
        "https://cdn.acme.example:8443/a.png?sig=SIGNED",
        false,
        Some("port_not_listed (cdn.acme.example:8443)"),
    ),
    ("moved", "https://cdn.acme.example/moved.png", false, Some("port_not_listed (cdn.acme.example:8443)")),
    ("http", "http://cdn.acme.example/a.png", false, Some("plain_http_not_listed (cdn.acme.example)")),
    ("key", "https://cdn.acme.example/a.png", true, Some("key_host_not_listed (cdn.acme.example)")),
    ("clear", "http://plain.acme.example/a.png", true, Some("key_in_clear (plain.acme.example)")),
    ("private", "https://10.0.0.1/a.png", false, Some("private_address (10.0.0.1)")),
    (
        "blocked",
        "https://blocked.acme.example/a.png",
        false,
        Some("could not download the file from blocked.acme.example"),
    ),
];

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one world, in which every case is looked at from all sides")]
async fn p18_questions_and_files_go_through_the_proxy_to_listed_hosts_and_ports_and_keys_to_theirs() {
    let jobs: Answers = Arc::new(|_, path| {
        let (_, url, auth, _) = JOBS.iter().find(|job| path.ends_with(&format!("/{}", job.0))).unwrap();
        json!({"url": url, "auth": auth}).to_string()
    });
    let (port, seen) = proxy(jobs);
    let database = sqlite();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("providers")).unwrap();
    std::fs::write(folder.path().join("providers/acme.toml"), PROVIDER).unwrap();
    let command = |arguments: &[&str]| -> Makegood {
        makegood(arguments)
            .within(folder.path())
            .env("DATABASE_URL", &database.url)
            .env("MAKEGOOD__PROVIDERS__DIR", "providers")
            // By its name: the proxy is in our own network, from which no file is ever fetched.
            .env("MAKEGOOD__NETWORK__PROXY", &format!("http://me:sesame@localhost:{port}"))
            .env("SSL_CERT_FILE", CA)
            .env("ACME_ID", "id")
            .env("ACME_SECRET", "key-of-acme")
            // Neither is heeded.
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("NO_PROXY", "acme.example")
    };
    assert_eq!(command(&["migrate", "--reference-schema"]).output().await.code, Some(0));
    let mut sql =
        "INSERT INTO accounts VALUES ('u1', 'user'); INSERT INTO balances VALUES ('u1', 'wallet', 0);"
            .to_owned();
    let at = makegood::clock::Clock::System.now().micros() - 3_600_000_000;
    for (job, ..) in JOBS {
        let _ = write!(
            sql,
            "INSERT INTO charges VALUES ('{job}', 'u1', 'p', 'n', 'acme', 'm', '{job}', {at}, 0, 10, NULL);\
             INSERT INTO charge_items VALUES ('{job}', 0, 10, NULL, NULL, NULL);"
        );
    }
    let mut connection = SqliteConnection::connect(&database.url).await.unwrap();
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();

    let ended = command(&["run"]).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let events: Vec<(String, String)> = sqlx::query_as(
        "SELECT charge_id, kind || ' ' || coalesce(detail, '') FROM makegood_orphan_events WHERE kind <> 'opened'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for (job, url, auth, refused) in JOBS {
        let of_job: Vec<_> =
            events.iter().filter(|(charge, _)| charge == job).map(|(_, told)| told).collect();
        assert_eq!(of_job.len(), 1, "{job}: {events:?}");
        match refused {
            None => assert!(of_job[0].starts_with("recover"), "{job}: {of_job:?}"),
            Some(why) => {
                assert!(of_job[0].starts_with("wait ") && of_job[0].contains(why), "{job}: {of_job:?}");
            }
        }
        assert!(!of_job[0].contains("SIGNED") && !of_job[0].contains("sesame"), "{of_job:?}");
        // If no network is needed for it, `provider test` reports the same.
        if ["moved", "blocked"].contains(&job) {
            continue;
        }
        std::fs::write(folder.path().join("answer.json"), json!({"url": url, "auth": auth}).to_string())
            .unwrap();
        let tried = command(&["provider", "test", "acme", "--answer", "answer.json"]).output().await;
        let told: Value =
            serde_json::from_str(&tried.stdout).unwrap_or_else(|error| panic!("{error}: {tried:?}"));
        let word = refused.and_then(|why| why.split(' ').next());
        assert_eq!(told["decisions"][0]["file_refused"].as_str(), word, "{job}: {tried:?}");
    }

    {
        let seen = seen.lock().unwrap();
        assert!(seen.asked.iter().all(|(_, known)| *known), "{:?}", seen.asked);
        let mut asked: Vec<&str> = seen.asked.iter().map(|(line, _)| line.as_str()).collect();
        asked.sort_unstable();
        asked.dedup();
        let expected = [
            "CONNECT api.acme.example:443 HTTP/1.1",
            "CONNECT auth.acme.example:443 HTTP/1.1",
            "CONNECT blocked.acme.example:443 HTTP/1.1",
            "CONNECT cdn.acme.example:443 HTTP/1.1",
            "GET http://plain.acme.example/a.png HTTP/1.1",
        ];
        assert_eq!(asked, expected);
        // Only the host that is asked got the key.
        for (host, head) in &seen.heads {
            let with_key = head.contains("authorization: bearer open-sesame");
            assert_eq!(with_key, host == "api.acme.example", "{host}: {head}");
        }
        assert!(seen.heads.iter().any(|(_, head)| head.starts_with("get /own.png ")));
    }

    // `check` names the proxy without its password, and fails if it does not accept connections.
    let network = |ended: crate::binary::Ended| {
        assert!(!ended.stdout.contains("sesame"), "{ended:?}");
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        let checks = told["checks"].as_array().unwrap().clone();
        let found = checks.into_iter().find(|check| check["about"] == "network").unwrap();
        format!("{} {} -> {}", found["grade"].as_str().unwrap(), found["says"], found["advice"])
    };
    let told = network(command(&["check"]).output().await);
    let place = format!("http://me:***@localhost:{port}/");
    assert!(
        told.starts_with("ok ") && told.contains(&format!("go through {place}, which accepts")),
        "{told}"
    );
    let told =
        network(command(&["check"]).env("MAKEGOOD__NETWORK__PROXY", "http://127.0.0.1:1").output().await);
    assert!(
        told.starts_with("fail ") && told.contains("could not connect to the proxy http://127.0.0.1:1/"),
        "{told}"
    );
    let told = network(command(&["check"]).env("MAKEGOOD__NETWORK__PROXY", "").output().await);
    assert!(
        told.starts_with("warn ") && told.contains("HTTPS_PROXY is set in the environment and ignored"),
        "{told}"
    );
    // So does each pass, because nothing is due any more.
    let passed = command(&["run"]).env("MAKEGOOD__NETWORK__PROXY", "").output().await;
    assert_eq!(passed.code, Some(0), "{passed:?}");
    assert!(passed.stderr.contains("HTTPS_PROXY is set in the environment and ignored"), "{passed:?}");
}
