//! Recovery into S3, over real HTTP: the client is the real one, the bucket is this file's.
//!
//! The bucket speaks as much of S3 as recovery uses, and is strict where S3 is: parts but the last
//! have 5 MiB at least, a completed upload names every part by its tag, an unknown upload is an
//! error. It can refuse or fail on request, which a real one cannot.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use makegood::evidence::Source;
use makegood::recovery::{
    Copied, CopyError, Errand, Fetcher, Journal, JournalError, Key, Limits, NotOutput, Place, Storage,
    StorageError,
};
use object_store::aws::AmazonS3Builder;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// What is in the bucket, and what is to go wrong.
#[derive(Default)]
struct Inside {
    /// Path to type and bytes.
    objects: BTreeMap<String, (String, Bytes)>,
    /// Upload id to path, type and parts by number.
    uploads: HashMap<String, (String, String, BTreeMap<u32, Bytes>)>,
    /// How many uploads were ever begun.
    begun: u32,
    /// Answers to give instead, for requests whose method and query begin so, each once.
    failures: Vec<(&'static str, StatusCode)>,
}

#[derive(Clone, Default)]
struct Bucket(Arc<Mutex<Inside>>);

impl Bucket {
    /// Serves the bucket on loopback, and a storage on it.
    async fn serve(&self) -> Storage {
        let bucket = self.clone();
        let port = listen(move |request| {
            let bucket = bucket.clone();
            async move { bucket.answer(request).await }
        })
        .await;
        let client = AmazonS3Builder::new()
            .with_endpoint(format!("http://127.0.0.1:{port}"))
            .with_allow_http(true)
            .with_region("eu-central-1")
            .with_access_key_id("id")
            .with_secret_access_key("secret");
        Storage::s3(client, "//outputs/recovered").unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let header = |name: &str| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        if !header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=id/") {
            return plain(StatusCode::FORBIDDEN, "not signed");
        }
        let body = body.collect().await.unwrap().to_bytes();
        let signed = header("x-amz-content-sha256");
        let small = body.len() < 1 << 16;
        if small && signed != "UNSIGNED-PAYLOAD" && signed != hex(&Sha256::digest(&body)) {
            return plain(StatusCode::BAD_REQUEST, "the body is not the one that was signed");
        }
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let values: HashMap<_, _> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k, v.to_owned()))
            .collect();
        let mut inside = self.0.lock().unwrap();
        let line = format!("{} {query}", head.method);
        if let Some(at) = inside.failures.iter().position(|(start, _)| line.starts_with(start)) {
            let (_, status) = inside.failures.remove(at);
            return plain(status, "as you wish");
        }
        let upload = values.get("uploadId").cloned().unwrap_or_default();
        let part: Option<u32> = values.get("partNumber").and_then(|number| number.parse().ok());
        match (head.method, upload.as_str(), part) {
            (Method::PUT, "", None) => {
                inside.objects.insert(path, (header("content-type"), body.clone()));
                tagged(&body, "")
            }
            (Method::POST, "", None) if query == "uploads" || query == "uploads=" => {
                inside.begun += 1;
                let id = format!("upload-{}", inside.begun);
                inside.uploads.insert(id.clone(), (path, header("content-type"), BTreeMap::new()));
                tagged(
                    b"",
                    &format!(
                        "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                    ),
                )
            }
            (Method::PUT, id, Some(number)) => match inside.uploads.get_mut(id) {
                Some((_, _, parts)) => {
                    let answer = tagged(&body, "");
                    parts.insert(number, body);
                    answer
                }
                None => plain(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            (Method::POST, id, None) => {
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
                let file = parts.values().fold(Vec::new(), |file, part| [&file, &part[..]].concat());
                inside.objects.insert(path, (content_type, file.into()));
                tagged(
                    b"",
                    "<CompleteMultipartUploadResult><ETag>\"done\"</ETag></CompleteMultipartUploadResult>",
                )
            }
            (Method::DELETE, "", None) => {
                inside.objects.remove(&path);
                plain(StatusCode::NO_CONTENT, "")
            }
            (Method::DELETE, id, None) => match inside.uploads.remove(id) {
                Some(_) => plain(StatusCode::NO_CONTENT, ""),
                None => plain(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            (Method::GET, "", None) => match inside.objects.get(&path) {
                Some((_, bytes)) => {
                    let mut answer = tagged(bytes, "");
                    answer
                        .headers_mut()
                        .insert("last-modified", "Mon, 24 Nov 2025 16:00:00 GMT".parse().unwrap());
                    *answer.body_mut() = Full::new(bytes.clone());
                    answer
                }
                None => plain(StatusCode::NOT_FOUND, "NoSuchKey"),
            },
            (method, ..) => plain(StatusCode::NOT_IMPLEMENTED, method.as_str()),
        }
    }

    fn fail(&self, start: &'static str, status: StatusCode) {
        self.0.lock().unwrap().failures.push((start, status));
    }

    /// Objects as path and type, and how many uploads are open.
    fn left(&self) -> (Vec<(String, String)>, usize) {
        let inside = self.0.lock().unwrap();
        let objects = inside.objects.iter().map(|(path, (kind, _))| (path.clone(), kind.clone())).collect();
        (objects, inside.uploads.len())
    }

    fn bytes(&self, path: &str) -> Bytes {
        self.0.lock().unwrap().objects[path].1.clone()
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
    hex(&Sha256::digest(known))[..32].to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Serves `answer` on a port of loopback until the test ends.
async fn listen<A, F, B>(answer: A) -> u16
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
                TokioIo::new(stream),
                hyper::service::service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                }),
            ));
        }
    });
    port
}

fn film(length: usize) -> Vec<u8> {
    let start = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41";
    // Every eight bytes say where they belong: no piece can go missing or come twice unseen.
    let mut film: Vec<u8> = (0..length.div_ceil(8)).flat_map(usize::to_le_bytes).collect();
    film.truncate(length);
    film[..start.len()].copy_from_slice(start);
    film
}

/// What was noted and not taken back: where, and the id of the upload.
#[derive(Debug, Default)]
struct Notes(Mutex<BTreeMap<i64, (Place, Option<String>)>>);

impl Journal for Notes {
    fn begin(&self, place: Place) -> BoxFuture<'_, Result<i64, JournalError>> {
        let mut notes = self.0.lock().unwrap();
        let note = notes.keys().next_back().map_or(0, |last| last + 1);
        notes.insert(note, (place, None));
        Box::pin(std::future::ready(Ok(note)))
    }
    fn upload_id(&self, note: i64, id: String) -> BoxFuture<'_, Result<(), JournalError>> {
        self.0.lock().unwrap().get_mut(&note).unwrap().1 = Some(id);
        Box::pin(std::future::ready(Ok(())))
    }
    fn forget(&self, note: i64) -> BoxFuture<'_, Result<(), JournalError>> {
        self.0.lock().unwrap().remove(&note);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A provider with one file; recovers it as charge `a/b`, item 0, lease 7.
async fn recover(storage: &Storage, file: &Bytes) -> Result<Copied, CopyError> {
    let served = file.clone();
    let port = listen(move |_| std::future::ready(Response::new(Full::new(served.clone())))).await;
    recover_from(port, storage, &Arc::default()).await
}

async fn recover_from(port: u16, storage: &Storage, notes: &Arc<Notes>) -> Result<Copied, CopyError> {
    let limits = Limits { allow_loopback: true, pause: Duration::from_millis(1), ..Limits::default() };
    let fetcher = Fetcher::new(limits).unwrap();
    let source = Source::Url { url: format!("http://127.0.0.1:{port}/film?signature=x"), auth: false };
    let errand = Errand {
        source: &source,
        allowed_hosts: &["127.0.0.1".to_owned()],
        auth: None,
        storage,
        key: &Key::new("a/b", 0, 7),
        kinds: &[],
        max_bytes: None,
        time_budget: None,
        journal: Arc::clone(notes) as Arc<dyn Journal>,
    };
    fetcher.copy(errand).await
}

/// The client encodes the `%` of the key once more for its URL.
const PATH: &str = "/outputs/recovered/a%252Fb/0/7.mp4";

#[tokio::test]
async fn p16_small_and_large_files_come_home_to_s3_with_their_type() {
    let bucket = Bucket::default();
    let storage = bucket.serve().await;
    for length in [1 << 10, 17 << 20] {
        let file = Bytes::from(film(length));
        let copied = recover(&storage, &file).await.unwrap();
        assert_eq!(copied.uri, "s3://outputs/recovered/a%2Fb/0/7.mp4");
        assert_eq!(copied.sha256, hex(&Sha256::digest(&file)));
        assert_eq!(bucket.left(), (vec![(PATH.to_owned(), "video/mp4".to_owned())], 0));
        assert!(bucket.bytes(PATH) == file, "{length}");
        storage.delete(&copied.key).await.unwrap();
        assert_eq!(bucket.left(), (vec![], 0));
    }
    // The small one in one go, the large one in parts.
    assert_eq!(bucket.0.lock().unwrap().begun, 1);
}

#[tokio::test]
async fn a_part_that_fails_once_is_sent_again_and_one_that_is_refused_ends_the_upload() {
    let bucket = Bucket::default();
    let storage = bucket.serve().await;
    let file = Bytes::from(film(17 << 20));
    bucket.fail("PUT partNumber=2", StatusCode::SERVICE_UNAVAILABLE);
    let copied = recover(&storage, &file).await.unwrap();
    assert!(bucket.bytes(PATH) == file);
    storage.delete(&copied.key).await.unwrap();

    for step in ["POST uploads", "PUT partNumber=2", "PUT partNumber=3", "POST uploadId"] {
        bucket.fail(step, StatusCode::FORBIDDEN);
        let error = recover(&storage, &file).await.unwrap_err();
        assert!(matches!(error, CopyError::Storage(StorageError::Object { .. })), "{step}: {error:?}");
        assert!(bucket.0.lock().unwrap().failures.is_empty(), "{step} was never tried");
        assert_eq!(bucket.left(), (vec![], 0), "{step}");
    }
}

#[tokio::test]
async fn a_download_that_breaks_leaves_no_upload_behind() {
    let bucket = Bucket::default();
    let storage = bucket.serve().await;
    let page = Bytes::from_static(b"<!doctype html>");
    let error = recover(&storage, &page).await.unwrap_err();
    assert!(matches!(error, CopyError::NotAnOutput { why: NotOutput::Html }), "{error:?}");

    // Parts are under way when it breaks: an upload was begun, and is gone.
    let start = Bytes::from(film(17 << 20));
    let port = listen(move |_| {
        let pieces = [Ok(Frame::data(start.clone())), Err(std::io::Error::other("gone"))];
        std::future::ready(Response::new(StreamBody::new(stream::iter(pieces))))
    })
    .await;
    let error = recover_from(port, &storage, &Arc::default()).await.unwrap_err();
    assert!(matches!(error, CopyError::NotAnOutput { why: NotOutput::Truncated }), "{error:?}");
    // Begun once for each try: a server that names no version has its file fetched anew.
    assert_eq!(bucket.0.lock().unwrap().begun, 1 + Limits::default().tries);
    assert_eq!(bucket.left(), (vec![], 0));
}

#[tokio::test]
async fn a_check_of_the_bucket_leaves_nothing_and_tells_what_is_refused() {
    let bucket = Bucket::default();
    let storage = bucket.serve().await;
    assert!(storage.check().await.unwrap().starts_with("s3://outputs/recovered/"));
    for (step, action) in [("PUT", "write"), ("GET", "read"), ("DELETE", "delete")] {
        bucket.fail(step, StatusCode::FORBIDDEN);
        let error = storage.check().await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("could not {action} s3://")), "{error}");
    }
    // What could not be deleted that one time.
    assert_eq!(bucket.left().0.len(), 1);
}
