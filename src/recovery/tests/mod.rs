//! End-to-end tests of copies from a file server on loopback into storage.
//!
//! The server is in this file. `copy` tests complete and failing copies, `attack` hostile servers,
//! `resume` downloads that break off. Names under `.test` are resolved by the tests' own resolver,
//! so redirects between hosts, names with private addresses and DNS rebinding are real lookups and
//! real connections.

use std::collections::HashMap;
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
use crate::egress::{Hosts, List};
use crate::evidence::{FailureClass, Source};

mod attack;
mod copy;
mod resume;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and the rest of a picture";

/// How the server responds to one path.
#[derive(Clone)]
enum Answer {
    /// Sends this and closes.
    Send(Vec<u8>),
    /// Sends this and then nothing, without closing.
    SendAndHang(Vec<u8>),
    /// Sends headers and then one byte every 5 ms, without end.
    Trickle,
    /// Sends headers and then pieces of 64 KiB without end, and counts them.
    Endless,
    /// Computes the response from the request and its number for this path, from 0: the bytes to
    /// send, and whether to keep the connection open afterwards.
    By(Arc<Answering>),
}

type Answering = dyn Fn(&str, usize) -> (Vec<u8>, bool) + Send + Sync;

/// An upload log in memory: the open entries, and all calls in order.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) open: Mutex<std::collections::BTreeMap<i64, ObjectLocation>>,
    pub(super) calls: Mutex<Vec<String>>,
    pub(super) fails: std::sync::atomic::AtomicBool,
}

impl Notes {
    fn call(&self, what: String) -> Result<(), UploadLogError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err("the database is down".into());
        }
        self.calls.lock().unwrap().push(what);
        Ok(())
    }
}

impl UploadLog for Notes {
    fn record(&self, location: ObjectLocation) -> BoxFuture<'_, Result<i64, UploadLogError>> {
        let entry = i64::try_from(self.calls.lock().unwrap().len()).unwrap();
        let called = self.call(format!("record {}", location.path));
        Box::pin(std::future::ready(called.map(|()| {
            self.open.lock().unwrap().insert(entry, location);
            entry
        })))
    }
    fn record_upload_id(&self, entry: i64, id: String) -> BoxFuture<'_, Result<(), UploadLogError>> {
        Box::pin(std::future::ready(self.call(format!("upload {entry} {id}"))))
    }
    fn remove(&self, entry: i64) -> BoxFuture<'_, Result<(), UploadLogError>> {
        let called = self.call(format!("remove {entry}"));
        if called.is_ok() {
            self.open.lock().unwrap().remove(&entry);
        }
        Box::pin(std::future::ready(called))
    }
}

/// `200 OK` with `headers` and a complete body.
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
    notes: Arc<Notes>,
    key_hosts: Hosts,
}

#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<String, Vec<Vec<IpAddr>>>>>);

impl Lookup for Names {
    fn lookup(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let mut names = self.0.lock().unwrap();
        let answer = match names.get_mut(&host) {
            // One answer for each lookup; the last one is repeated.
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
            None => Err(std::io::Error::other("no such name")),
        };
        Box::pin(std::future::ready(answer))
    }
}

impl World {
    async fn new() -> Self {
        // Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Self {
            port: listener.local_addr().unwrap().port(),
            routes: Arc::default(),
            requests: Arc::default(),
            pieces_sent: Arc::default(),
            names: Names::default(),
            notes: Arc::default(),
            key_hosts: Hosts::parse(List::Keys, &["127.0.0.1", "files.test"]).unwrap(),
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

    fn storage(&self) -> ObjectStorage {
        ObjectStorage::open("file:./out", self.scratch.path()).unwrap()
    }

    fn fetcher(&self, limits: CopyLimits) -> Fetcher {
        Fetcher::with_lookup(limits, None, Arc::new(self.names.clone())).unwrap()
    }

    async fn copy_with(
        &self,
        limits: CopyLimits,
        source: &Source,
        auth: Option<HeaderMap>,
    ) -> Result<CopiedFile, CopyError> {
        let listed = self.listed(&["files.test", "other.test", "inside.test", "rebind.test"]);
        let (storage, key) = (self.storage(), ObjectKey::new("ch_1", 0, 7));
        let request = CopyRequest { auth, ..self.request(source, &listed, &storage, &key) };
        self.fetcher(limits).copy(request).await
    }

    /// Loopback, and these names with the server's port and plain http.
    fn listed(&self, names: &[&str]) -> Hosts {
        let names = names.iter().map(|name| format!("http://{name}:{}", self.port));
        let names: Vec<_> = names.chain(["127.0.0.1".to_owned(), "localhost".to_owned()]).collect();
        Hosts::parse(List::Outputs, &names).unwrap()
    }

    fn request<'a>(
        &'a self,
        source: &'a Source,
        allowed_hosts: &'a Hosts,
        storage: &'a ObjectStorage,
        key: &'a ObjectKey,
    ) -> CopyRequest<'a> {
        CopyRequest {
            source,
            allowed_hosts,
            key_hosts: &self.key_hosts,
            auth: None,
            storage,
            key,
            media: &[],
            max_bytes: None,
            time_budget: None,
            memory: None,
            upload_log: Arc::clone(&self.notes) as Arc<dyn UploadLog>,
        }
    }

    async fn copy(&self, url: &str) -> Result<CopiedFile, CopyError> {
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
    let nth = {
        let mut requests = requests.lock().unwrap();
        requests.push(head.clone());
        requests.iter().filter(|head| head.split([' ', '?']).nth(1) == Some(&path)).count() - 1
    };
    let answer = routes.lock().unwrap().get(&path).cloned().unwrap_or_else(|| status("500 No Such Route"));
    // The client may disconnect at any time: several tests check that.
    match answer {
        Answer::Send(bytes) => {
            let _ = stream.write_all(&bytes).await;
        }
        Answer::SendAndHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            std::future::pending::<()>().await;
        }
        Answer::By(answer) => {
            let (bytes, hang) = answer(&head, nth);
            let _ = stream.write_all(&bytes).await;
            if hang {
                std::future::pending::<()>().await;
            }
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

/// Every file below `directory`, including temporary files that a store does not list.
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

fn limits() -> CopyLimits {
    CopyLimits { allow_loopback: true, retry_delay: Duration::from_millis(1), ..CopyLimits::default() }
}

fn source(url: &str) -> Source {
    Source::Url { url: url.to_owned(), auth: false }
}

fn refused(result: Result<CopiedFile, CopyError>) -> UrlRefusal {
    match result {
        Err(CopyError::Refused { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn not_an_output(result: Result<CopiedFile, CopyError>) -> NotOutput {
    match result {
        Err(CopyError::NotAnOutput { why }) => why,
        other => panic!("accepted as an output: {other:?}"),
    }
}

/// Pseudo-random bytes, so that a lost or repeated piece changes the file.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
