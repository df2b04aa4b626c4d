//! Copies from a hostile file server on loopback into storage, end to end.
//!
//! Names under `.test` come from a resolver of the tests' own, so that redirects between hosts, names
//! that lead inside and names that change their mind are real look-ups and real connections.

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::address::{AddressRefusal, Lookup};
use super::*;
use crate::evidence::{FailureClass, Source};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and the rest of a picture";

/// What the server does with one path.
#[derive(Clone)]
enum Answer {
    /// Sends this and closes.
    Send(Vec<u8>),
    /// Sends this and then nothing, for ever.
    SendAndHang(Vec<u8>),
    /// Sends a head and then a byte now and then, for ever.
    Trickle,
    /// Sends a head and then 64 KiB pieces, for ever; counts them.
    Endless,
}

/// `200 OK` with `headers` and a body of the length it says.
fn ok(headers: &str, body: &[u8]) -> Answer {
    Answer::Send(whole("200 OK", headers, body.len(), body))
}

fn whole(status: &str, headers: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn status(status: &str) -> Answer {
    Answer::Send(whole(status, "", 4, b"oops"))
}

fn moved(location: &str) -> Answer {
    Answer::Send(whole("302 Found", &format!("location: {location}\r\n"), 0, b""))
}

/// A file server, a resolver and a storage directory.
struct World {
    port: u16,
    routes: Arc<Mutex<HashMap<String, Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
    pieces_sent: Arc<AtomicU64>,
    names: Names,
    scratch: tempfile::TempDir,
}

#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<String, Vec<Vec<IpAddr>>>>>);

impl Lookup for Names {
    fn lookup(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let mut names = self.0.lock().unwrap();
        let answer = match names.get_mut(&host) {
            // Answers in turn; the last one stays.
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
            None => Err(std::io::Error::other("no such name")),
        };
        Box::pin(std::future::ready(answer))
    }
}

impl World {
    async fn new() -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Self {
            port: listener.local_addr().unwrap().port(),
            routes: Arc::default(),
            requests: Arc::default(),
            pieces_sent: Arc::default(),
            names: Names::default(),
            scratch: tempfile::tempdir().unwrap(),
        };
        for name in ["files.test", "other.test", "elsewhere.test"] {
            world.name(name, &["127.0.0.1"]);
        }
        let (routes, requests) = (world.routes.clone(), world.requests.clone());
        let pieces_sent = world.pieces_sent.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (routes, requests) = (routes.clone(), requests.clone());
                tokio::spawn(serve(stream, routes, requests, pieces_sent.clone()));
            }
        });
        world
    }

    fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.names.0.lock().unwrap().entry(name.to_owned()).or_default().push(addresses);
    }

    fn at(&self, path: &str, answer: Answer) -> String {
        self.routes.lock().unwrap().insert(path.to_owned(), answer);
        self.url("files.test", path)
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port)
    }

    fn storage(&self) -> Storage {
        Storage::open("file:./out", self.scratch.path()).unwrap()
    }

    fn fetcher(&self, limits: Limits) -> Fetcher {
        Fetcher::with_lookup(limits, Arc::new(self.names.clone())).unwrap()
    }

    async fn copy_with(
        &self,
        limits: Limits,
        source: &Source,
        auth: Option<HeaderMap>,
    ) -> Result<Copied, CopyError> {
        let listed =
            ["files.test", "other.test", "inside.test", "rebind.test", "127.0.0.1"].map(str::to_owned);
        self.fetcher(limits).copy(source, &listed, auth, &self.storage(), &Key::new("ch_1", 0, 7)).await
    }

    async fn copy(&self, url: &str) -> Result<Copied, CopyError> {
        self.copy_with(limits(), &source(url), None).await
    }

    fn stored(&self) -> Vec<PathBuf> {
        files_below(self.scratch.path())
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    routes: Arc<Mutex<HashMap<String, Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
    pieces_sent: Arc<AtomicU64>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let path = head.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
    requests.lock().unwrap().push(head);
    let answer = routes.lock().unwrap().get(&path).cloned().unwrap_or_else(|| status("500 No Such Route"));
    // The client may go at any time: that is what several tests are about.
    match answer {
        Answer::Send(bytes) => {
            let _ = stream.write_all(&bytes).await;
        }
        Answer::SendAndHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            std::future::pending::<()>().await;
        }
        Answer::Trickle => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(b".").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Answer::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let piece = vec![7; 64 << 10];
            while stream.write_all(&piece).await.is_ok() {
                pieces_sent.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    let _ = stream.shutdown().await;
}

/// Every file below `directory`, also those that a store would hide.
pub(super) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn limits() -> Limits {
    Limits { allow_loopback: true, ..Limits::default() }
}

fn source(url: &str) -> Source {
    Source::Url { url: url.to_owned(), auth: false }
}

fn refused(result: Result<Copied, CopyError>) -> UrlRefusal {
    match result {
        Err(CopyError::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn not_an_output(result: Result<Copied, CopyError>) -> NotOutput {
    match result {
        Err(CopyError::NotAnOutput { why }) => why,
        other => panic!("taken for an output: {other:?}"),
    }
}

/// Bytes without a pattern that a lost or doubled piece could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

#[tokio::test]
async fn p16_a_file_comes_home_whole_with_its_hash_length_types_and_host() {
    let world = World::new().await;
    let url = world.at("/a.png", ok("content-type: Image/PNG; x=y\r\n", PNG));
    let copied = world.copy(&format!("{url}?signature=SECRET")).await.unwrap();
    let file = world.scratch.path().join("out/ch_1/0/7.png");
    assert_eq!(std::fs::read(&file).unwrap(), PNG);
    assert_eq!(world.stored(), [file.clone()]);
    assert_eq!(
        copied,
        Copied {
            key: Key::new("ch_1", 0, 7).with_extension("png"),
            uri: url::Url::from_file_path(&file).unwrap().to_string(),
            size_bytes: i64::try_from(PNG.len()).unwrap(),
            // printf '\x89PNG…' | sha256sum
            sha256: key::hex(&Sha256::digest(PNG)),
            content_type: "image/png".to_owned(),
            sniffed: Some("image/png".to_owned()),
            declared: Some("image/png".to_owned()),
            source_host: "files.test".to_owned(),
        }
    );
    // And the same again: what a worker does that died before it could settle.
    assert_eq!(world.copy(&url).await.unwrap(), copied);
    assert_eq!(world.stored().len(), 1);
    world.storage().delete(&copied.key).await.unwrap();
    assert!(world.stored().is_empty());
}

#[tokio::test]
async fn the_hash_is_sha_256_in_lower_case_hexadecimal() {
    let world = World::new().await;
    let url = world.at("/abc", ok("", b"abc"));
    let copied = world.copy(&url).await.unwrap();
    // FIPS 180-2, appendix B.1.
    assert_eq!(copied.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[tokio::test]
async fn files_around_the_size_of_a_part_come_home_whole() {
    const PART: usize = 8 << 20;
    let world = World::new().await;
    for length in [PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 12_345] {
        let body = noise(length);
        let url = world.at("/big", ok("", &body));
        let copied = world.copy(&url).await.unwrap();
        assert_eq!(copied.size_bytes, i64::try_from(length).unwrap());
        assert_eq!(copied.sha256, key::hex(&Sha256::digest(&body)), "{length}");
        assert!(std::fs::read(&world.stored()[0]).unwrap() == body, "{length}");
        assert_eq!(world.stored().len(), 1);
    }
}

#[tokio::test]
async fn a_truncated_body_is_no_output_and_leaves_nothing() {
    let world = World::new().await;
    let large = noise(20 << 20);
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\nonly this".to_vec();
    for (path, answer) in [
        ("/short", Answer::Send(whole("200 OK", "", PNG.len() + 1, PNG))),
        ("/short-large", Answer::Send(whole("200 OK", "", large.len() + 1, &large))),
        ("/short-chunk", Answer::Send(chunked)),
        ("/no-body", Answer::Send(whole("200 OK", "", 10, b""))),
    ] {
        let url = world.at(path, answer);
        assert_eq!(not_an_output(world.copy(&url).await), NotOutput::Truncated, "{path}");
        assert!(world.stored().is_empty(), "{path}: {:?}", world.stored());
    }
}

#[tokio::test]
async fn error_pages_and_empty_files_are_no_outputs() {
    let world = World::new().await;
    for (path, answer, why) in [
        ("/empty", ok("content-type: image/png\r\n", b""), NotOutput::Empty),
        ("/none", Answer::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), NotOutput::Empty),
        ("/page", ok("content-type: text/html\r\n", b"Sorry"), NotOutput::Html),
        ("/page-as-png", ok("content-type: image/png\r\n", b"<!DOCTYPE html><html>"), NotOutput::Html),
        (
            "/denied",
            ok("", b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>"),
            NotOutput::Xml,
        ),
        ("/denied2", ok("content-type: application/xml\r\n", b"<Error/>"), NotOutput::Xml),
        ("/br", ok("content-encoding: br\r\n", PNG), NotOutput::Encoded),
        ("/twice", ok("content-encoding: gzip, gzip\r\n", PNG), NotOutput::Encoded),
        ("/not-gzip", ok("content-encoding: gzip\r\n", PNG), NotOutput::Encoded),
    ] {
        let url = world.at(path, answer);
        assert_eq!(not_an_output(world.copy(&url).await), why, "{path}");
    }
    assert!(world.stored().is_empty());
}

#[tokio::test]
async fn every_refusing_status_has_its_meaning() {
    let world = World::new().await;
    for (line, kind) in [
        ("401 Unauthorized", "unauthorized"),
        ("403 Forbidden", "unauthorized"),
        ("404 Not Found", "gone"),
        ("410 Gone", "gone"),
        ("206 Partial Content", "http"),
        ("300 Multiple Choices", "http"),
        ("304 Not Modified", "http"),
        ("429 Too Many Requests", "http"),
        ("500 Oops", "http"),
        ("503 Oops", "http"),
    ] {
        let url = world.at("/status", status(line));
        let error = world.copy(&format!("{url}?signature=SECRET")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{line}");
        assert!(error.to_string().contains(&line[..3]) || line.starts_with("304"), "{error}");
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
    }
    assert!(world.stored().is_empty());
}

#[tokio::test]
async fn endless_streams_and_oversized_files_end_at_the_cap() {
    let world = World::new().await;
    let small = Limits { max_bytes: 20 << 20, ..limits() };
    let url = world.at("/endless", Answer::Endless);
    let error = world.copy_with(small.clone(), &source(&url), None).await.unwrap_err();
    assert!(matches!(error, CopyError::TooLarge { max_bytes } if max_bytes == 20 << 20), "{error:?}");
    // 20 MiB, and what buffers on the way can hold.
    let sent = world.pieces_sent.load(Ordering::SeqCst) * (64 << 10);
    assert!((20 << 20..60 << 20).contains(&sent), "{sent} bytes were sent");

    // One that says so itself is not even begun.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    let url = world.at("/says-so", Answer::SendAndHang(head));
    let error = world.copy_with(small, &source(&url), None).await.unwrap_err();
    assert_eq!(error.kind(), "too_large");

    // Exactly the cap is allowed.
    let exact = Limits { max_bytes: PNG.len() as u64, ..limits() };
    let url = world.at("/exact", ok("", PNG));
    world.copy_with(exact, &source(&url), None).await.unwrap();
    assert_eq!(world.stored().len(), 1);
}

#[tokio::test]
async fn compression_nobody_asked_for_is_read_under_the_same_cap() {
    let world = World::new().await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let header = "content-type: image/png\r\ncontent-encoding: gzip\r\n";
    let url = world.at("/honest", ok(header, &gzip(PNG)));
    let copied = world.copy(&url).await.unwrap();
    assert_eq!(std::fs::read(&world.stored()[0]).unwrap(), PNG);
    assert_eq!(copied.size_bytes, i64::try_from(PNG.len()).unwrap());
    assert!(world.requests()[0].contains("accept-encoding: identity"));
    world.storage().delete(&copied.key).await.unwrap();

    let bomb = gzip(&vec![0; 32 << 20]);
    assert!(bomb.len() < 64 << 10);
    let url = world.at("/bomb", ok(header, &bomb));
    let small = Limits { max_bytes: 10 << 20, ..limits() };
    let error = world.copy_with(small, &source(&url), None).await.unwrap_err();
    assert_eq!(error.kind(), "too_large");

    let cut = &gzip(PNG)[..20];
    let url = world.at("/cut", ok(header, cut));
    assert_eq!(not_an_output(world.copy(&url).await), NotOutput::Truncated);
    assert!(world.stored().is_empty());
}

#[tokio::test]
async fn silence_and_slowness_end_by_their_own_limits() {
    let world = World::new().await;
    let url = world.at("/before-head", Answer::SendAndHang(Vec::new()));
    let begun = whole("200 OK", "", 1 << 30, &noise(9 << 20));
    let midway = world.at("/midway", Answer::SendAndHang(begun));
    for url in [url, midway] {
        let limits = Limits { stall: Duration::from_millis(200), ..limits() };
        let error = world.copy_with(limits, &source(&url), None).await.unwrap_err();
        assert!(matches!(error, CopyError::TimedOut { what: TimeLimit::Stall }), "{error:?}");
    }
    // Never silent for long, and never done.
    let url = world.at("/trickle", Answer::Trickle);
    let limits = Limits { time_budget: Duration::from_millis(300), ..limits() };
    let error = world.copy_with(limits, &source(&url), None).await.unwrap_err();
    assert!(matches!(error, CopyError::TimedOut { what: TimeLimit::Budget }), "{error:?}");
    assert!(world.stored().is_empty(), "{:?}", world.stored());
}

#[tokio::test]
async fn redirects_are_followed_to_listed_hosts_only() {
    let world = World::new().await;
    let file = world.at("/a.png", ok("", PNG));
    let url = world.at("/relative", moved("a.png"));
    assert_eq!(world.copy(&url).await.unwrap().source_host, "files.test");
    let url = world.at("/other", moved(&world.url("other.test", "/a.png")));
    assert_eq!(world.copy(&url).await.unwrap().source_host, "other.test");
    assert!(world.requests().iter().all(|head| !head.contains("referer")));

    world.name("inside.test", &["10.0.0.1", "fd00::1"]);
    let table = [
        (world.url("elsewhere.test", "/a.png"), UrlRefusal::Host),
        ("http://10.1.2.3/".to_owned(), UrlRefusal::Address(AddressRefusal::Private)),
        ("http://[::ffff:127.0.0.1]/".to_owned(), UrlRefusal::Address(AddressRefusal::Translated)),
        ("http://169.254.169.254/latest/".to_owned(), UrlRefusal::Address(AddressRefusal::Metadata)),
        (world.url("inside.test", "/a.png"), UrlRefusal::Address(AddressRefusal::Private)),
        ("//2852039166/".to_owned(), UrlRefusal::Address(AddressRefusal::Metadata)),
        ("file:///etc/passwd".to_owned(), UrlRefusal::Scheme),
        ("http://user@files.test/".to_owned(), UrlRefusal::UserInfo),
        ("http://[".to_owned(), UrlRefusal::NotAUrl),
        ("/loop".to_owned(), UrlRefusal::TooManyRedirects),
    ];
    for (location, reason) in table {
        let url = world.at("/loop", moved(&location));
        assert_eq!(refused(world.copy(&url).await), reason, "{location}");
    }
    let url = world.at("/nowhere", Answer::Send(whole("302 Found", "", 0, b"")));
    assert_eq!(refused(world.copy(&url).await), UrlRefusal::NotAUrl);

    // Five are followed, six are not.
    for hop in 1..=6 {
        world.at(
            &format!("/hop{hop}"),
            moved(&if hop == 1 { file.clone() } else { format!("/hop{}", hop - 1) }),
        );
    }
    world.copy(&world.url("files.test", "/hop5")).await.unwrap();
    let six = world.copy(&world.url("files.test", "/hop6")).await;
    assert_eq!(refused(six), UrlRefusal::TooManyRedirects);
}

#[tokio::test]
async fn an_address_is_checked_at_every_dial() {
    let world = World::new().await;
    let url = world.at("/a.png", ok("", PNG));
    // This machine, without leave: by name and by address.
    let strict = Limits { allow_loopback: false, ..limits() };
    let loopback = UrlRefusal::Address(AddressRefusal::Loopback);
    assert_eq!(refused(world.copy_with(strict.clone(), &source(&url), None).await), loopback);
    let by_address = source(&world.url("127.0.0.1", "/a.png"));
    assert_eq!(refused(world.copy_with(strict, &by_address, None).await), loopback);
    assert!(world.requests().is_empty());

    // A name that changes its mind between two dials.
    world.name("rebind.test", &["127.0.0.1"]);
    world.name("rebind.test", &["192.168.0.1"]);
    let url = world.url("rebind.test", "/a.png");
    let fetcher = world.fetcher(limits());
    let listed = ["rebind.test".to_owned()];
    let (storage, key) = (world.storage(), Key::new("ch", 0, 1));
    fetcher.copy(&source(&url), &listed, None, &storage, &key).await.unwrap();
    let second = fetcher.copy(&source(&url), &listed, None, &storage, &Key::new("ch", 0, 2)).await;
    assert_eq!(refused(second), UrlRefusal::Address(AddressRefusal::Private));

    // A name that has none.
    world.name("inside.test", &[]);
    let error = world.copy(&world.url("inside.test", "/a.png")).await.unwrap_err();
    assert_eq!(error.kind(), "network");
}

#[tokio::test]
async fn the_system_resolver_is_guarded_too() {
    let world = World::new().await;
    let url = world.url("localhost", "/a.png");
    let fetcher = Fetcher::new(Limits::default()).unwrap();
    let copied = fetcher
        .copy(&source(&url), &["localhost".to_owned()], None, &world.storage(), &Key::new("ch", 0, 1))
        .await;
    assert_eq!(refused(copied), UrlRefusal::Address(AddressRefusal::Loopback));
    assert!(world.requests().is_empty());
}

#[tokio::test]
async fn the_providers_key_goes_to_its_own_host_or_nowhere() {
    let world = World::new().await;
    let mut auth = HeaderMap::new();
    auth.insert("x-goog-api-key", HeaderValue::from_static("sesame"));
    auth.insert("authorization", HeaderValue::from_static("Bearer sesame"));
    let here = |path: &str| world.url("127.0.0.1", path);
    world.at("/a.png", ok("", PNG));
    world.at("/same", moved("/a.png"));
    world.at("/away", moved(&world.url("other.test", "/a.png")));
    world.at("/there", moved(&world.url("other.test", "/and-back")));
    world.at("/and-back", moved(&here("/a.png")));
    let with_key = |path: &str| Source::Url { url: here(path), auth: true };
    // Who got the key, hop by hop.
    for (path, expected) in [
        ("/a.png", vec![true]),
        ("/same", vec![true, true]),
        ("/away", vec![true, false]),
        ("/there", vec![true, false, false]),
    ] {
        world.requests.lock().unwrap().clear();
        world.copy_with(limits(), &with_key(path), Some(auth.clone())).await.unwrap();
        let got: Vec<_> = world.requests().iter().map(|head| head.contains("sesame")).collect();
        assert_eq!(got, expected, "{path}");
    }
    // Not where the offer does not ask for it.
    world.requests.lock().unwrap().clear();
    world.copy_with(limits(), &source(&here("/a.png")), Some(auth.clone())).await.unwrap();
    assert!(!world.requests()[0].contains("sesame"));

    // Not to another host without encryption.
    let clear = Source::Url { url: world.url("files.test", "/a.png"), auth: true };
    world.requests.lock().unwrap().clear();
    assert_eq!(refused(world.copy_with(limits(), &clear, Some(auth)).await), UrlRefusal::KeyInClear);
    assert!(world.requests().is_empty());
}

#[tokio::test]
async fn errors_of_the_network_keep_the_signature_out() {
    let world = World::new().await;
    // Taken and given back: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let cut = world.at("/cut-in-head", Answer::Send(b"HTTP/1.1 200".to_vec()));
    for url in [format!("http://files.test:{closed}/a"), cut, world.url("other.test", "/")] {
        world.at("/", Answer::Send(Vec::new()));
        let error = world.copy(&format!("{url}?signature=SECRET")).await.unwrap_err();
        assert_eq!(error.kind(), "network", "{error:?}");
        let mut told = format!("{error:?}");
        let mut cause: Option<&dyn Error> = Some(&error);
        while let Some(inner) = cause {
            told.push_str(&inner.to_string());
            cause = inner.source();
        }
        assert!(!told.contains("SECRET"), "{told}");
    }
}

#[tokio::test]
async fn a_storage_that_refuses_is_told_as_such() {
    let world = World::new().await;
    std::fs::write(world.scratch.path().join("out"), b"a file where the directory should be").unwrap();
    for (path, body) in [("/small", PNG.to_vec()), ("/large", noise(9 << 20))] {
        let url = world.at(path, ok("", &body));
        let error = world.copy(&url).await.unwrap_err();
        assert!(
            matches!(error, CopyError::Storage(StorageError::Object { action: "write", .. })),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_copy_that_is_dropped_halfway_leaves_nothing() {
    let world = World::new().await;
    let begun = whole("200 OK", "", 1 << 30, &noise(17 << 20));
    let url = world.at("/midway", Answer::SendAndHang(begun));
    let source = source(&url);
    {
        let copy = world.copy_with(limits(), &source, None);
        tokio::pin!(copy);
        // Until there is something to leave behind.
        loop {
            tokio::select! {
                done = &mut copy => panic!("it cannot be done: {done:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            if !world.stored().is_empty() {
                break;
            }
        }
        assert!(world.stored()[0].to_string_lossy().ends_with("7.bin#1"), "{:?}", world.stored());
    }
    // The clean-up runs by itself; the test's own time limit is the only other way out.
    while !world.stored().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn files_in_the_answer_itself_are_stored_the_same_way() {
    let world = World::new().await;
    let inline = |bytes: &[u8], content_type: Option<&str>| Source::Inline {
        bytes: Bytes::copy_from_slice(bytes),
        content_type: content_type.map(str::to_owned),
    };
    let words = inline(b"What the model wrote.", Some("text/plain"));
    let copied = world.copy_with(limits(), &words, None).await.unwrap();
    assert_eq!((copied.content_type.as_str(), copied.source_host.as_str()), ("text/plain", INLINE));
    assert_eq!(std::fs::read(&world.stored()[0]).unwrap(), b"What the model wrote.");
    world.storage().delete(&copied.key).await.unwrap();

    let large = noise(20 << 20);
    let copied = world.copy_with(limits(), &inline(&large, None), None).await.unwrap();
    assert_eq!(copied.sha256, key::hex(&Sha256::digest(&large)));
    world.storage().delete(&copied.key).await.unwrap();

    assert_eq!(not_an_output(world.copy_with(limits(), &inline(b"", None), None).await), NotOutput::Empty);
    let page = inline(b"<html>", None);
    assert_eq!(not_an_output(world.copy_with(limits(), &page, None).await), NotOutput::Html);
    let small = Limits { max_bytes: 3, ..limits() };
    let error = world.copy_with(small, &inline(PNG, None), None).await.unwrap_err();
    assert_eq!(error.kind(), "too_large");
    let failed = Source::Failed { class: FailureClass::ServerError, message: None };
    assert_eq!(not_an_output(world.copy_with(limits(), &failed, None).await), NotOutput::NoFile);
    assert!(world.stored().is_empty());
}
