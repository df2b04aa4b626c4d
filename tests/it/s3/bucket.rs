//! A bucket on loopback that speaks as much of S3 as recovery uses.
//!
//! It is as strict as S3: every part but the last has at least 5 MiB, a completed upload names
//! every part by its tag, and an unknown upload is an error. It fails on request, which a real one
//! does not: it rejects, is busy, is slow, drops connections before or after it has carried out the
//! request, or never answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    /// This answer instead.
    Status(StatusCode),
    /// 503, S3's answer when it is asked too often.
    SlowDown,
    /// The connection breaks while the body is under way.
    Reset,
    /// It is done, and the connection breaks before the answer.
    Lost,
    /// It is done, after a while.
    Late(Duration),
    /// Never answers and does nothing; notifies [`Bucket::held`].
    Hold,
}

const LAST_MODIFIED: &str = "Mon, 24 Nov 2025 16:00:00 GMT";

struct Object {
    content_type: String,
    sha256: String,
    length: usize,
    bytes: Bytes,
}

/// The content of the bucket, and its faults.
#[derive(Default)]
struct Inside {
    /// By path.
    objects: BTreeMap<String, Object>,
    /// Upload id to path, type and parts by number.
    uploads: HashMap<String, (String, String, BTreeMap<u32, Bytes>)>,
    /// How many uploads were ever begun.
    begun: u32,
    /// For requests whose method and query begin with this text: how many more times, and how.
    failures: Vec<(&'static str, u32, How)>,
    /// Paths that were written with `Content-Disposition: attachment`.
    attachments: BTreeSet<String>,
    /// Objects keep their hash, not their bytes.
    forgets: bool,
}

#[derive(Clone, Default)]
pub struct Bucket(Arc<Mutex<Inside>>, Arc<Notify>);

impl Bucket {
    /// One that keeps of each object only its hash: for experiments with more than fits into
    /// memory.
    pub fn forgetful() -> Self {
        let bucket = Self::default();
        bucket.0.lock().unwrap().forgets = true;
        bucket
    }

    /// Serves it on loopback; returns its endpoint.
    pub async fn serve(&self) -> String {
        let bucket = self.clone();
        let port = listen(move |request| {
            let bucket = bucket.clone();
            async move { bucket.answer(request).await }
        })
        .await;
        format!("http://127.0.0.1:{port}")
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (head, mut body) = request.into_parts();
        let header = |name: &str| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        if !header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=id/") {
            return Ok(plain(StatusCode::FORBIDDEN, "not signed"));
        }
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let how = self.failure(&format!("{} {query}", head.method));
        match how {
            Some(How::Reset) => {
                // Something of it arrives.
                let _some = body.frame().await;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(How::Hold) => {
                self.1.notify_one();
                std::future::pending::<()>().await;
            }
            Some(How::Late(after)) => tokio::time::sleep(after).await,
            Some(How::Status(_) | How::SlowDown | How::Lost) | None => {}
        }
        // The client may be killed in the middle.
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let signed = header("x-amz-content-sha256");
        let small = body.len() < 1 << 16;
        if small && signed != "UNSIGNED-PAYLOAD" && signed != hex::encode(Sha256::digest(&body)) {
            return Ok(plain(StatusCode::BAD_REQUEST, "the body is not the one that was signed"));
        }
        match how {
            Some(How::Status(status)) => return Ok(plain(status, "as you wish")),
            Some(How::SlowDown) => {
                let said =
                    "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
                return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, said));
            }
            Some(How::Reset | How::Lost | How::Late(_) | How::Hold) | None => {}
        }
        if header("content-disposition") == "attachment" {
            self.0.lock().unwrap().attachments.insert(path.clone());
        }
        let answer = self.done(&head.method, path, &query, header("content-type"), body);
        if how == Some(How::Lost) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(answer) }
    }

    fn failure(&self, line: &str) -> Option<How> {
        let mut inside = self.0.lock().unwrap();
        let at =
            inside.failures.iter().position(|(start, times, _)| *times > 0 && line.starts_with(start))?;
        let (_, times, how) = &mut inside.failures[at];
        *times -= 1;
        Some(*how)
    }

    fn done(
        &self,
        method: &Method,
        path: String,
        query: &str,
        content_type: String,
        body: Bytes,
    ) -> Response<Full<Bytes>> {
        let values: HashMap<_, _> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k, v.to_owned()))
            .collect();
        let upload = values.get("uploadId").cloned().unwrap_or_default();
        let part: Option<u32> = values.get("partNumber").and_then(|number| number.parse().ok());
        let mut inside = self.0.lock().unwrap();
        match (method, upload.as_str(), part) {
            (&Method::PUT, "", None) => {
                let answer = tagged(&body, "");
                inside.keep(path, content_type, &[body]);
                answer
            }
            (&Method::POST, "", None) if query == "uploads" || query == "uploads=" => {
                inside.begun += 1;
                let id = format!("upload-{}", inside.begun);
                inside.uploads.insert(id.clone(), (path, content_type, BTreeMap::new()));
                tagged(
                    b"",
                    &format!(
                        "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                    ),
                )
            }
            (&Method::PUT, id, Some(number)) => match inside.uploads.get_mut(id) {
                Some((_, _, parts)) => {
                    let answer = tagged(&body, "");
                    parts.insert(number, body);
                    answer
                }
                None => plain(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            (&Method::POST, id, None) => {
                let Some((path, content_type, parts)) = inside.uploads.remove(id) else {
                    return plain(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                let named = String::from_utf8(body.to_vec()).unwrap();
                let last = parts.len();
                let whole = parts.values().enumerate().all(|(at, part)| {
                    named.contains(&tag(part)) && (at + 1 == last || part.len() >= 5 << 20)
                });
                if !whole || named.matches("<Part>").count() != last {
                    return plain(StatusCode::BAD_REQUEST, "InvalidPart");
                }
                inside.keep(path, content_type, &parts.into_values().collect::<Vec<_>>());
                tagged(
                    b"",
                    "<CompleteMultipartUploadResult><ETag>\"done\"</ETag></CompleteMultipartUploadResult>",
                )
            }
            (&Method::DELETE, "", None) => {
                inside.objects.remove(&path);
                plain(StatusCode::NO_CONTENT, "")
            }
            (&Method::DELETE, id, None) => match inside.uploads.remove(id) {
                Some(_) => plain(StatusCode::NO_CONTENT, ""),
                None => plain(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            (&Method::GET, "", None) => match inside.objects.get(&path) {
                Some(object) => {
                    let mut answer = tagged(&object.bytes, "");
                    answer.headers_mut().insert("last-modified", LAST_MODIFIED.parse().unwrap());
                    *answer.body_mut() = Full::new(object.bytes.clone());
                    answer
                }
                None => plain(StatusCode::NOT_FOUND, "NoSuchKey"),
            },
            (&Method::HEAD, "", None) => match inside.objects.get(&path) {
                Some(object) => {
                    let mut answer = tagged(b"", "");
                    for (name, value) in
                        [("last-modified", LAST_MODIFIED), ("content-length", &object.length.to_string())]
                    {
                        answer.headers_mut().insert(name, value.parse().unwrap());
                    }
                    answer
                }
                None => plain(StatusCode::NOT_FOUND, ""),
            },
            (method, ..) => plain(StatusCode::NOT_IMPLEMENTED, method.as_str()),
        }
    }

    /// From now on this many requests whose method and query begin with `start` fail.
    pub fn fail(&self, start: &'static str, times: u32, how: How) {
        self.0.lock().unwrap().failures.push((start, times, how));
    }

    /// Nothing goes wrong any more.
    pub fn mend(&self) {
        self.0.lock().unwrap().failures.clear();
    }

    /// Whether everything that was to go wrong has.
    pub fn all_failed(&self) -> bool {
        self.0.lock().unwrap().failures.iter().all(|(_, times, _)| *times == 0)
    }

    /// Waits until a request is held.
    pub async fn held(&self) {
        self.1.notified().await;
    }

    /// How many uploads in parts were ever begun.
    pub fn begun(&self) -> u32 {
        self.0.lock().unwrap().begun
    }

    /// Objects as path and type, and how many uploads are open.
    pub fn left(&self) -> (Vec<(String, String)>, usize) {
        let inside = self.0.lock().unwrap();
        let objects = inside.objects.iter().map(|(path, object)| (path.clone(), object.content_type.clone()));
        (objects.collect(), inside.uploads.len())
    }

    /// Whether an object is to be downloaded and not shown.
    pub fn is_attachment(&self, path: &str) -> bool {
        self.0.lock().unwrap().attachments.contains(path)
    }

    /// The hash of every object, by path.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        let inside = self.0.lock().unwrap();
        inside.objects.iter().map(|(path, object)| (path.clone(), object.sha256.clone())).collect()
    }

    /// An object's bytes, if it is there.
    pub fn find(&self, path: &str) -> Option<Bytes> {
        self.0.lock().unwrap().objects.get(path).map(|object| object.bytes.clone())
    }

    pub fn bytes(&self, path: &str) -> Bytes {
        self.0.lock().unwrap().objects[path].bytes.clone()
    }
}

impl Inside {
    fn keep(&mut self, path: String, content_type: String, pieces: &[Bytes]) {
        let mut hash = Sha256::new();
        for piece in pieces {
            hash.update(piece);
        }
        let bytes = if self.forgets { Bytes::new() } else { pieces.concat().into() };
        let length = pieces.iter().map(Bytes::len).sum();
        self.objects
            .insert(path, Object { content_type, sha256: hex::encode(hash.finalize()), length, bytes });
    }
}

fn plain(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.to_owned().into())).unwrap()
}

fn tagged(of: &[u8], body: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .header("etag", format!("\"{}\"", tag(of)))
        .body(Full::new(body.to_owned().into()))
        .unwrap()
}

/// Tells parts apart, which is all that an S3 `ETag` promises.
fn tag(part: &[u8]) -> String {
    let ends = part.iter().take(64).chain(part.iter().rev().take(64));
    let known: Vec<u8> = part.len().to_le_bytes().iter().chain(ends).copied().collect();
    hex::encode(Sha256::digest(known))[..32].to_owned()
}

/// Serves `answer` on a port of loopback until the test ends; an error breaks the connection.
pub async fn listen<A, F, B>(answer: A) -> u16
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Response<B>>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(answer);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    port
}
