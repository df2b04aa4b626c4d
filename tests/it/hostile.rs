//! Hostile files through the whole pipeline, on a real database. Each attack ends in a wait, later
//! in a refund by the rules, and in an event with its reason. `src/recovery` tests each check in
//! detail.
//!
//! The provider is hostile: it answers each question with the URL in the row, and serves the files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use makegood::provider::Providers;
use makegood::recovery::{CopyLimits, Fetcher};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::leftovers::stored;
use crate::world::{HOUR, MINUTE, World, on_both};

/// The server's treatment of a file.
#[derive(Clone)]
pub enum Serve {
    /// Sends this and closes.
    Send(Vec<u8>),
    /// Sends this and is silent.
    Hang(Vec<u8>),
    /// A byte now and then, for ever.
    Trickle,
    /// As much as is taken, for ever.
    Endless,
}

pub fn whole(status: &str, headers: &str, body: &[u8]) -> Serve {
    sized(status, headers, body.len(), body)
}

fn sized(status: &str, headers: &str, length: usize, body: &[u8]) -> Serve {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
    Serve::Send([head.as_bytes(), body].concat())
}

fn moved(to: &str) -> Serve {
    whole("302 Found", &format!("location: {to}\r\n"), b"")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[derive(Clone, Default)]
pub struct Hostile(pub Arc<Mutex<BTreeMap<String, Serve>>>);

impl Hostile {
    pub async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hostile = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hostile.clone().serve(stream));
            }
        });
        port
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let served = self.0.lock().unwrap().get(&path).cloned();
        // The client may go at any time.
        match served.unwrap_or_else(|| whole("500 Oops", "", b"")) {
            Serve::Send(bytes) => {
                let _ = stream.write_all(&bytes).await;
            }
            Serve::Hang(bytes) => {
                let _ = stream.write_all(&bytes).await;
                std::future::pending::<()>().await;
            }
            Serve::Trickle => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while stream.write_all(b"\0").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Serve::Endless => {
                let piece = vec![7; 64 << 10];
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while stream.write_all(&piece).await.is_ok() {}
            }
        }
        let _ = stream.shutdown().await;
    }
}

/// A provider that says whatever the test's server says, with hosts that should never be listed.
fn provider(port: u16) -> String {
    format!(
        r#"[provider]
name = "mallory"
retries = 0
max_concurrency = 200
output_hosts = ["127.0.0.1", "localhost", "files.example.com", "*.cdn.example.com", "gs://listed", "10.0.0.1", "169.254.169.254"]
[recovery]
makes = ["image"]
max_bytes = "1MiB"
[recovery.models."*slow"]
time_budget = "1s"
[ask]
request = "GET http://127.0.0.1:{port}/jobs/{{job}}"
read = '{{verdict: "succeeded", outputs: [{{index: 0, url: .body.url}} + (.body | {{expires_at}} | map_values(values))]}}'
"#
    )
}

/// URLs that are not followed: `loopback` is refused here too.
const URLS: [(&str, &str); 45] = [
    ("/etc/passwd", "not_a_url"),
    ("//files.example.com/a.png", "not_a_url"),
    ("http://", "not_a_url"),
    ("http://files.exa mple.com/", "not_a_url"),
    ("http://[::1", "not_a_url"),
    ("http://256.256.256.256/", "not_a_url"),
    ("https://files.example.com/\r\nHost: evil.example", "not_a_url"),
    ("https://files.example.com\\@evil.example/", "not_a_url"),
    ("file:///etc/passwd", "scheme_not_allowed"),
    ("ftp://files.example.com/a.png", "scheme_not_allowed"),
    ("gopher://files.example.com/_GET", "scheme_not_allowed"),
    ("data:image/png;base64,AAAA", "scheme_not_allowed"),
    ("javascript:alert(1)", "scheme_not_allowed"),
    ("s3://bucket/object", "scheme_not_allowed"),
    ("unix:/run/docker.sock", "scheme_not_allowed"),
    ("https://user@files.example.com/", "user_info_in_url"),
    ("https://:password@files.example.com/", "user_info_in_url"),
    ("https://files.example.com@evil.example/", "user_info_in_url"),
    ("https://files.example.com:80@127.0.0.1/", "user_info_in_url"),
    ("gs://user@listed/a", "user_info_in_url"),
    ("https://evil.example/", "host_not_listed"),
    ("https://files.example.com.evil.example/", "host_not_listed"),
    ("https://cdn.example.com/", "host_not_listed"),
    ("https://evilcdn.example.com/", "host_not_listed"),
    ("https://files.example.com./", "host_not_listed"),
    ("https://metadata.google.internal/computeMetadata/v1/", "host_not_listed"),
    ("https://kubernetes.default.svc/", "host_not_listed"),
    ("gs://other/a.png", "host_not_listed"),
    ("gs://listed/../other/a.png", "not_a_url"),
    ("http://127.0.0.1/", "loopback_address"),
    ("http://localhost/", "loopback_address"),
    ("http://2130706433/", "loopback_address"),
    ("http://0x7f.1/", "loopback_address"),
    ("http://0177.0.0.1/", "loopback_address"),
    ("http://１２７.０.０.１/", "loopback_address"),
    ("http://[::1]/", "loopback_address"),
    ("http://[::ffff:127.0.0.1]/", "translated_address"),
    ("http://[64:ff9b::7f00:1]/", "translated_address"),
    ("http://0.0.0.0/", "unspecified_address"),
    ("http://169.254.169.254/latest/meta-data/", "metadata_address"),
    ("http://2852039166/", "metadata_address"),
    ("http://10.0.0.1/", "private_address"),
    ("http://[fd12:3456::1]/", "private_address"),
    ("http://[fe80::1]/", "link_local_address"),
    ("http://224.0.0.1/", "multicast_address"),
];

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and the rest of a picture";

/// Bodies that are no file, by the reason in the event.
fn files(port: u16) -> Vec<(&'static str, Serve, &'static str)> {
    let here = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 128 << 10);
    vec![
        ("to-metadata", moved("http://169.254.169.254/latest/"), "metadata_address"),
        ("to-private", moved("http://10.0.0.1/"), "private_address"),
        ("to-mapped", moved("http://[::ffff:10.0.0.1]/"), "translated_address"),
        ("to-decimal", moved("//2852039166/"), "metadata_address"),
        ("to-file", moved("file:///etc/passwd"), "scheme_not_allowed"),
        ("to-user", moved(&format!("http://user@127.0.0.1:{port}/")), "user_info_in_url"),
        ("to-elsewhere", moved("http://evil.example/"), "host_not_listed"),
        ("to-nowhere", whole("302 Found", "", b""), "not_a_url"),
        ("to-itself", moved(&here("/to-itself")), "too_many_redirects"),
        ("empty", whole("200 OK", "content-type: image/png\r\n", b""), "empty"),
        ("none", Serve::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), "empty"),
        ("page", whole("200 OK", "content-type: text/html\r\n", b"Sorry"), "html"),
        ("page-as-png", whole("200 OK", "content-type: image/png\r\n", b"<!doctype html><html>"), "html"),
        (
            "denied",
            whole("200 OK", "", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
            "xml",
        ),
        ("json", whole("200 OK", "content-type: application/json\r\n", b"{\"error\":\"busy\"}"), "error"),
        ("words-as-png", whole("200 OK", "content-type: image/png\r\n", b"try again later"), "wrong_kind"),
        (
            "a-song",
            whole("200 OK", "content-type: image/png\r\n", b"ID3\x03\0\0\0\0\0\0 and a song"),
            "wrong_kind",
        ),
        ("short", sized("200 OK", "", PNG.len() + 1, PNG), "truncated"),
        (
            "short-chunk",
            Serve::Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\nonly this".to_vec()),
            "truncated",
        ),
        ("short-gzip", whole("200 OK", "content-encoding: gzip\r\n", &gzip(PNG)[..20]), "truncated"),
        ("brotli", whole("200 OK", "content-encoding: br\r\n", PNG), "encoded"),
        ("gzip-twice", whole("200 OK", "content-encoding: gzip, gzip\r\n", PNG), "encoded"),
        ("no-gzip", whole("200 OK", "content-encoding: gzip\r\n", PNG), "encoded"),
        ("bomb", whole("200 OK", "content-encoding: gzip\r\n", &bomb), "too_large"),
        ("endless", Serve::Endless, "too_large"),
        (
            "says-huge",
            Serve::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec()),
            "too_large",
        ),
        ("silent", Serve::Hang(Vec::new()), "stalled"),
        ("half-a-head", Serve::Hang(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), "stalled"),
        (
            "half-a-file",
            Serve::Hang([b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", PNG].concat()),
            "stalled",
        ),
        ("trickle", Serve::Trickle, "budget_used_up"),
        ("part", whole("206 Partial Content", "content-range: bytes 0-4/900\r\n", b"12345"), "206"),
        ("no-http", Serve::Send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()), "network"),
        ("closed", Serve::Send(Vec::new()), "network"),
        (
            "two-lengths",
            Serve::Send(
                [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 99\r\n\r\n", PNG].concat(),
            ),
            "network",
        ),
        (
            "endless-head",
            whole("200 OK", &"x-padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(20_000), PNG),
            "network",
        ),
        ("teapot", whole("418 I'm a teapot", "", b"no"), "418"),
        ("forbidden", whole("403 Forbidden", "", b"no"), "unauthorized"),
    ]
}

/// A world with one charge for each attack; each job's answer names the row's URL.
async fn attacked(
    world: &mut World,
    rows: &[(String, String, &str)],
    hostile: &Hostile,
    port: u16,
    loopback: bool,
) {
    for (name, url, model) in rows {
        let body = serde_json::json!({"url": url}).to_string();
        let answer = whole("200 OK", "content-type: application/json\r\n", body.as_bytes());
        hostile.0.lock().unwrap().insert(format!("/jobs/{name}"), answer);
        world.charge(name).provider("mallory", model).job(name).age(HOUR).insert().await;
    }
    let dir = world.folder.path().join("providers");
    std::fs::write(dir.join("mallory.toml"), provider(port)).unwrap();
    world.parts.providers = Arc::new(Providers::load(Some(&dir), world.clock.clone()).unwrap());
    let limits = CopyLimits {
        allow_loopback: loopback,
        max_retries: 0,
        stall_timeout: Duration::from_secs(5),
        ..CopyLimits::default()
    };
    world.parts.fetcher = Arc::new(Fetcher::new(limits).unwrap());
    world.parts.rules.copies = 100;
}

/// The last event of each charge: what was done, and the detail.
pub async fn events(world: &World) -> BTreeMap<String, String> {
    let sql = "SELECT e.charge_id || '|' || e.kind || ' ' || coalesce(e.reason, '') || ': ' || coalesce(e.detail, '') AS v
               FROM makegood_orphan_events e ORDER BY e.id";
    let rows = world.texts(sql).await;
    rows.iter()
        .filter_map(|row| row.split_once('|'))
        .map(|(charge, told)| (charge.to_owned(), told.to_owned()))
        .collect()
}

/// Every row waits with its reason, and is refunded at `refund_by`. Nothing is stored and nothing
/// is left behind.
async fn end_as_the_rules_say(world: &World, expected: &[(String, &str)]) {
    let report = world.pass().await;
    assert_eq!(report.total("wait"), expected.len() as u64, "{report:?}");
    let told = events(world).await;
    let mut wrong = String::new();
    for (name, reason) in expected {
        let event = &told[name];
        if !event.starts_with("wait recovery_retry: ") || !event.contains(reason) || event.contains("SECRET")
        {
            let _ = writeln!(wrong, "{name}: {event}, and not for {reason}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    // Charged an hour ago: 21 hours later `refund_by` has passed, after three questions.
    for wait in [20 * HOUR, HOUR + MINUTE, 16 * MINUTE, 16 * MINUTE] {
        world.pass_time(wait);
        world.pass().await;
    }
    for (name, _) in expected {
        assert_eq!(world.fate(name, 0).await, "refunded recovery_failed", "{name}");
    }
    assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 0);
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_uploads").await, 0);
    assert_eq!(stored(world), Vec::<String>::new());
    assert_eq!(world.balance_of("ada").await, (0, 10 * i64::try_from(expected.len()).unwrap()));
    world.books_balance().await;
}

on_both! {
    async fn p18_hostile_urls_end_in_a_wait_and_a_refund_that_say_why(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        let hostile = Hostile::default();
        let port = hostile.start().await;
        let rows: Vec<_> = URLS.iter().enumerate().map(|(nth, (url, _))| (format!("url-{nth}"), (*url).to_owned(), "m")).collect();
        attacked(&mut world, &rows, &hostile, port, false).await;
        let expected: Vec<_> = rows.iter().zip(&URLS).map(|((name, ..), (_, reason))| (name.clone(), *reason)).collect();
        end_as_the_rules_say(&world, &expected).await;
    }
}

on_both! {
    async fn p18_hostile_servers_end_in_a_wait_and_a_refund_that_say_why(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        let hostile = Hostile::default();
        let port = hostile.start().await;
        let files = files(port);
        let mut rows = Vec::new();
        for (name, serve, _) in &files {
            let path = format!("/{name}?signature=SECRET");
            // The path, with and without its query: redirects name it bare.
            hostile.0.lock().unwrap().insert(path.clone(), serve.clone());
            hostile.0.lock().unwrap().insert(format!("/{name}"), serve.clone());
            rows.push(((*name).to_owned(), format!("http://127.0.0.1:{port}{path}"), if *name == "trickle" { "slow" } else { "m" }));
        }
        attacked(&mut world, &rows, &hostile, port, true).await;
        let expected: Vec<_> = files.iter().map(|(name, _, reason)| ((*name).to_owned(), *reason)).collect();
        end_as_the_rules_say(&world, &expected).await;
    }
}

on_both! {
    async fn p09_p18_a_valid_file_is_stored_and_a_missing_one_is_refunded_at_once(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        let hostile = Hostile::default();
        let port = hostile.start().await;
        let mut rows = Vec::new();
        for (name, serve) in [
            // Short, watermarked, without a type: still an output.
            ("tiny", whole("200 OK", "", PNG)),
            ("moving", whole("200 OK", "content-type: video/mp4\r\n", b"GIF89a\x01\0\x01\0 tiny")),
            ("unsaid", whole("200 OK", "", b"\0\x01\x02\x03")),
            ("gzip", whole("200 OK", "content-encoding: gzip\r\n", &gzip(PNG))),
            ("gone", whole("410 Gone", "", b"")),
            ("lost", whole("404 Not Found", "", b"")),
        ] {
            hostile.0.lock().unwrap().insert(format!("/{name}"), serve);
            rows.push((name.to_owned(), format!("http://127.0.0.1:{port}/{name}"), "m"));
        }
        attacked(&mut world, &rows, &hostile, port, true).await;
        world.pass().await;
        for name in ["tiny", "moving", "unsaid", "gzip"] {
            assert_eq!(world.fate(name, 0).await, "recovered output_available", "{name}");
        }
        for name in ["gone", "lost"] {
            assert_eq!(world.fate(name, 0).await, "refunded output_expired", "{name}");
        }
        assert_eq!(stored(&world).len(), 4);
        world.books_balance().await;
    }
}

on_both! {
    async fn p18_the_earlier_of_refund_by_and_expiry_comes_first_and_a_file_that_went_is_refunded_at_once(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        let hostile = Hostile::default();
        let port = hostile.start().await;
        let url = |name: &str| format!("http://127.0.0.1:{port}/{name}");
        let rows: Vec<_> = ["old", "expires", "expires-later"].map(|name| (name.to_owned(), url(name), "m")).into();
        attacked(&mut world, &rows, &hostile, port, true).await;
        // All three are down for now; two files have an end, which their answers name, in both
        // spellings.
        let soon = world.now() + 40 * MINUTE;
        let later = world.now() + 3 * HOUR;
        for (name, expires_at) in [("expires", serde_json::json!(soon.to_string())), ("expires-later", serde_json::json!(later.micros() / 1_000_000))] {
            let body = serde_json::json!({"url": url(name), "expires_at": expires_at}).to_string();
            hostile.0.lock().unwrap().insert(format!("/jobs/{name}"), whole("200 OK", "", body.as_bytes()));
        }
        // The one without an end is the oldest: it would be first by refund_by alone.
        world.run(&format!("UPDATE charges SET charged_at = {} WHERE id = 'old'", world.at(world.now() - 5 * HOUR))).await;
        world.pass().await;
        for (name, ..) in &rows {
            assert_eq!(world.fate(name, 0).await, "open recovery_retry", "{name}");
        }
        let order = "SELECT charge_id AS v FROM makegood_orphans ORDER BY urgent_at";
        assert_eq!(world.texts(order).await, ["expires", "expires-later", "old"]);
        let due = "SELECT count(*) AS v FROM makegood_orphans WHERE charge_id = 'expires' AND due_at < urgent_at";
        assert_eq!(world.number(due).await, 1, "it is looked at again before the file goes");
        // One at a time is claimed in this order.
        world.pass_time(2 * HOUR);
        for expected in ["expires", "expires-later", "old"] {
            world.store.queue_due("mallory", world.now(), 1_000).await.unwrap();
            let claimed = world.store.claim("mallory", world.now(), 15 * MINUTE, 1).await.unwrap();
            assert_eq!(claimed.cases[0].facts.orphan.item.charge_id, expected);
        }
        world.pass_time(16 * MINUTE);
        // Gone is gone, long before refund_by: the credits go back in this very pass.
        hostile.0.lock().unwrap().insert("/expires".to_owned(), whole("410 Gone", "", b""));
        hostile.0.lock().unwrap().insert("/expires-later".to_owned(), whole("200 OK", "", PNG));
        world.pass().await;
        assert_eq!(world.fate("expires", 0).await, "refunded output_expired");
        assert_eq!(world.fate("expires-later", 0).await, "recovered output_available");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}
