//! Copies from a hostile file server on loopback into storage, end to end. The server stands here;
//! `copy` tests what a copy owes, `attack` what a server may try.
//!
//! Names under `.test` come from a resolver of the tests' own, so that redirects between hosts, names
//! that lead inside and names that change their mind are real look-ups and real connections.

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
    /// Whatever this makes of the request, which is the path's nth, from 0: the bytes to send, and whether to hang then.
    By(Arc<Answering>),
}

type Answering = dyn Fn(&str, usize) -> (Vec<u8>, bool) + Send + Sync;

/// What was noted and not taken back, and everything that happened, in order.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) open: Mutex<std::collections::BTreeMap<i64, Place>>,
    pub(super) told: Mutex<Vec<String>>,
    pub(super) refuse: std::sync::atomic::AtomicBool,
}

impl Notes {
    fn tell(&self, what: String) -> Result<(), JournalError> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err("the database is away".into());
        }
        self.told.lock().unwrap().push(what);
        Ok(())
    }
}

impl Journal for Notes {
    fn begin(&self, place: Place) -> BoxFuture<'_, Result<i64, JournalError>> {
        let note = i64::try_from(self.told.lock().unwrap().len()).unwrap();
        let told = self.tell(format!("begin {}", place.path));
        Box::pin(std::future::ready(told.map(|()| {
            self.open.lock().unwrap().insert(note, place);
            note
        })))
    }
    fn upload_id(&self, note: i64, id: String) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(std::future::ready(self.tell(format!("upload {note} {id}"))))
    }
    fn forget(&self, note: i64) -> BoxFuture<'_, Result<(), JournalError>> {
        let told = self.tell(format!("forget {note}"));
        if told.is_ok() {
            self.open.lock().unwrap().remove(&note);
        }
        Box::pin(std::future::ready(told))
    }
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
    notes: Arc<Notes>,
    key_hosts: Hosts,
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

    fn storage(&self) -> Storage {
        Storage::open("file:./out", self.scratch.path()).unwrap()
    }

    fn fetcher(&self, limits: Limits) -> Fetcher {
        Fetcher::with_lookup(limits, None, Arc::new(self.names.clone())).unwrap()
    }

    async fn copy_with(
        &self,
        limits: Limits,
        source: &Source,
        auth: Option<HeaderMap>,
    ) -> Result<Copied, CopyError> {
        let listed = self.listed(&["files.test", "other.test", "inside.test", "rebind.test"]);
        let (storage, key) = (self.storage(), Key::new("ch_1", 0, 7));
        let errand = Errand { auth, ..self.errand(source, &listed, &storage, &key) };
        self.fetcher(limits).copy(errand).await
    }

    /// This machine, and these names at the server's port, where it speaks plain http.
    fn listed(&self, names: &[&str]) -> Hosts {
        let names = names.iter().map(|name| format!("http://{name}:{}", self.port));
        let names: Vec<_> = names.chain(["127.0.0.1".to_owned(), "localhost".to_owned()]).collect();
        Hosts::parse(List::Outputs, &names).unwrap()
    }

    fn errand<'a>(
        &'a self,
        source: &'a Source,
        allowed_hosts: &'a Hosts,
        storage: &'a Storage,
        key: &'a Key,
    ) -> Errand<'a> {
        Errand {
            source,
            allowed_hosts,
            key_hosts: &self.key_hosts,
            auth: None,
            storage,
            key,
            kinds: &[],
            max_bytes: None,
            time_budget: None,
            memory: None,
            journal: Arc::clone(&self.notes) as Arc<dyn Journal>,
        }
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
    let nth = {
        let mut requests = requests.lock().unwrap();
        requests.push(head.clone());
        requests.iter().filter(|head| head.split([' ', '?']).nth(1) == Some(&path)).count() - 1
    };
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
    Limits { allow_loopback: true, pause: Duration::from_millis(1), ..Limits::default() }
}

fn source(url: &str) -> Source {
    Source::Url { url: url.to_owned(), auth: false }
}

fn refused(result: Result<Copied, CopyError>) -> UrlRefusal {
    match result {
        Err(CopyError::Refused { reason, .. }) => reason,
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
