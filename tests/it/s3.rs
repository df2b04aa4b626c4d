//! Recovery into S3, over real HTTP: the client is the real one, the bucket is that of `bucket`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use makegood::egress::{Hosts, List};
use makegood::evidence::Source;
use makegood::recovery::{
    CopiedFile, CopyError, CopyLimits, CopyRequest, Fetcher, NotOutput, ObjectKey, ObjectLocation,
    ObjectStorage, StorageError, UploadLog, UploadLogError,
};
use object_store::aws::AmazonS3Builder;
use sha2::{Digest, Sha256};

pub mod bucket;

use bucket::{Bucket, How, listen};

/// A storage on a bucket that is served.
pub async fn storage_on(bucket: &Bucket) -> ObjectStorage {
    let client = AmazonS3Builder::new()
        .with_endpoint(bucket.serve().await)
        .with_allow_http(true)
        .with_region("eu-central-1")
        .with_access_key_id("id")
        .with_secret_access_key("secret");
    ObjectStorage::s3(client, "//outputs/recovered").unwrap()
}

pub fn film(length: usize) -> Vec<u8> {
    let start = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41";
    // Every eight bytes contain their position, so that a missing or repeated piece is noticed.
    let mut film: Vec<u8> = (0..length.div_ceil(8)).flat_map(usize::to_le_bytes).collect();
    film.truncate(length);
    film[..start.len()].copy_from_slice(start);
    film
}

/// The upload records that were not removed: place, and the id of the upload.
#[derive(Debug, Default)]
pub struct Notes(Mutex<BTreeMap<i64, (ObjectLocation, Option<String>)>>);

impl UploadLog for Notes {
    fn record(&self, place: ObjectLocation) -> BoxFuture<'_, Result<i64, UploadLogError>> {
        let mut notes = self.0.lock().unwrap();
        let note = notes.keys().next_back().map_or(0, |last| last + 1);
        notes.insert(note, (place, None));
        Box::pin(std::future::ready(Ok(note)))
    }
    fn record_upload_id(&self, entry: i64, id: String) -> BoxFuture<'_, Result<(), UploadLogError>> {
        self.0.lock().unwrap().get_mut(&entry).unwrap().1 = Some(id);
        Box::pin(std::future::ready(Ok(())))
    }
    fn remove(&self, entry: i64) -> BoxFuture<'_, Result<(), UploadLogError>> {
        self.0.lock().unwrap().remove(&entry);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A provider with one file; recovers it as charge `a/b`, item 0, lease 7.
async fn recover(storage: &ObjectStorage, file: &Bytes) -> Result<CopiedFile, CopyError> {
    let served = file.clone();
    let port = listen(move |_| std::future::ready(Ok(Response::new(Full::new(served.clone()))))).await;
    recover_from(port, storage, &Arc::default()).await
}

async fn recover_from(
    port: u16,
    storage: &ObjectStorage,
    notes: &Arc<Notes>,
) -> Result<CopiedFile, CopyError> {
    let limits =
        CopyLimits { allow_loopback: true, retry_delay: Duration::from_millis(1), ..CopyLimits::default() };
    let fetcher = Fetcher::new(limits).unwrap();
    let source = Source::Url { url: format!("http://127.0.0.1:{port}/film?signature=x"), auth: false };
    let request = CopyRequest {
        source: &source,
        allowed_hosts: &Hosts::parse(List::Outputs, &["127.0.0.1"]).unwrap(),
        key_hosts: &Hosts::default(),
        auth: None,
        storage,
        key: &ObjectKey::new("a/b", 0, 7),
        media: &[],
        max_bytes: None,
        time_budget: None,
        memory: None,
        upload_log: Arc::clone(notes) as Arc<dyn UploadLog>,
    };
    fetcher.copy(request).await
}

/// The client encodes the `%` of the key once more for its URL.
const PATH: &str = "/outputs/recovered/a%252Fb/0/7.mp4";

#[tokio::test]
async fn p16_small_and_large_files_are_recovered_into_s3_with_their_type() {
    let bucket = Bucket::default();
    let storage = storage_on(&bucket).await;
    for length in [1 << 10, 17 << 20] {
        let file = Bytes::from(film(length));
        let copied = recover(&storage, &file).await.unwrap();
        assert_eq!(copied.uri, "s3://outputs/recovered/a%2Fb/0/7.mp4");
        assert_eq!(copied.sha256, hex::encode(Sha256::digest(&file)));
        assert_eq!(bucket.left(), (vec![(PATH.to_owned(), "video/mp4".to_owned())], 0));
        assert!(bucket.bytes(PATH) == file, "{length}");
        storage.delete(&copied.key).await.unwrap();
        assert_eq!(bucket.left(), (vec![], 0));
    }
    // The small one in one go, the large one in parts.
    assert_eq!(bucket.begun(), 1);
}

#[tokio::test]
async fn a_part_that_fails_once_is_sent_again_and_one_that_is_refused_ends_the_upload() {
    let bucket = Bucket::default();
    let storage = storage_on(&bucket).await;
    let file = Bytes::from(film(17 << 20));
    bucket.fail("PUT partNumber=2", 1, How::Status(StatusCode::SERVICE_UNAVAILABLE));
    let copied = recover(&storage, &file).await.unwrap();
    assert!(bucket.bytes(PATH) == file);
    storage.delete(&copied.key).await.unwrap();

    for step in ["POST uploads", "PUT partNumber=2", "PUT partNumber=3", "POST uploadId"] {
        bucket.fail(step, 1, How::Status(StatusCode::FORBIDDEN));
        let error = recover(&storage, &file).await.unwrap_err();
        assert!(matches!(error, CopyError::Storage(StorageError::Object { .. })), "{step}: {error:?}");
        assert!(bucket.all_failed(), "{step} was never tried");
        assert_eq!(bucket.left(), (vec![], 0), "{step}");
    }
}

#[tokio::test]
async fn a_download_that_breaks_leaves_no_upload_behind() {
    let bucket = Bucket::default();
    let storage = storage_on(&bucket).await;
    let page = Bytes::from_static(b"<!doctype html>");
    let error = recover(&storage, &page).await.unwrap_err();
    assert!(matches!(error, CopyError::NotAnOutput { why: NotOutput::Html }), "{error:?}");

    // Parts are under way when it breaks: an upload was begun, and is gone.
    let start = Bytes::from(film(17 << 20));
    let port = listen(move |_| {
        let pieces = [Ok(Frame::data(start.clone())), Err(std::io::Error::other("gone"))];
        std::future::ready(Ok(Response::new(StreamBody::new(stream::iter(pieces)))))
    })
    .await;
    let error = recover_from(port, &storage, &Arc::default()).await.unwrap_err();
    assert!(matches!(error, CopyError::NotAnOutput { why: NotOutput::Truncated }), "{error:?}");
    // Begun once for each try: a server that names no version has its file fetched anew.
    assert_eq!(bucket.begun(), 1 + CopyLimits::default().max_retries);
    assert_eq!(bucket.left(), (vec![], 0));
}

#[tokio::test]
async fn a_check_of_the_bucket_leaves_nothing_and_names_the_refused_operation() {
    let bucket = Bucket::default();
    let storage = storage_on(&bucket).await;
    assert!(storage.check().await.unwrap().starts_with("s3://outputs/recovered/"));
    for (step, action) in [("PUT", "write"), ("GET", "read"), ("DELETE", "delete")] {
        bucket.fail(step, 1, How::Status(StatusCode::FORBIDDEN));
        let error = storage.check().await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("could not {action} s3://")), "{error}");
    }
    // The object that could not be deleted that one time.
    assert_eq!(bucket.left().0.len(), 1);
}

#[tokio::test]
async fn an_upload_in_parts_is_noted_with_its_id_before_the_first_part_and_can_be_ended_by_another_process() {
    let bucket = Bucket::default();
    let storage = storage_on(&bucket).await;
    let notes = Arc::new(Notes::default());
    let file = Bytes::from(film(17 << 20));
    // Held at every step in turn; its worker dies there.
    for (step, upload) in [
        ("POST uploads", false),
        ("PUT partNumber=1", true),
        ("PUT partNumber=3", true),
        ("POST uploadId", true),
    ] {
        bucket.fail(step, 1, How::Hold);
        let served = file.clone();
        let port = listen(move |_| std::future::ready(Ok(Response::new(Full::new(served.clone()))))).await;
        let copy = recover_from(port, &storage, &notes);
        let copy = std::pin::pin!(copy);
        tokio::select! {
            done = copy => panic!("it cannot be done: {done:?}"),
            () = bucket.held() => {}
        }
        let first = notes.0.lock().unwrap().values().next().cloned().unwrap();
        assert_eq!(first.0.uri, "s3://outputs/recovered/a%2Fb/0/7.mp4", "{step}");
        assert_eq!((first.0.storage.as_str(), first.1.is_some()), ("s3://outputs", upload), "{step}");
        // Another process, from the upload record alone; and again, which is idempotent.
        for _ in 0..2 {
            storage_on(&bucket).await.clear(&first.0.path, first.1.as_deref(), false).await.unwrap();
        }
        bucket.mend();
        notes.0.lock().unwrap().clear();
    }
    assert_eq!(bucket.left(), (vec![], 0));
}

#[tokio::test]
async fn p16_storage_that_stumbles_costs_time_and_never_a_byte() {
    let bucket = Bucket::default();
    let storage = storage_on(&bucket).await;
    for length in [1 << 10, 17 << 20] {
        let file = Bytes::from(film(length));
        let steps: &[&'static str] = if length > 1 << 20 {
            &["POST uploads", "PUT partNumber=1", "PUT partNumber=2", "PUT partNumber=3", "POST uploadId"]
        } else {
            &["PUT "]
        };
        for step in steps {
            for (times, how) in [
                (2, How::Status(StatusCode::INTERNAL_SERVER_ERROR)),
                (2, How::SlowDown),
                (1, How::Reset),
                (1, How::Late(Duration::from_millis(50))),
            ] {
                bucket.fail(step, times, how);
                let notes = Arc::new(Notes::default());
                let served = file.clone();
                let port =
                    listen(move |_| std::future::ready(Ok(Response::new(Full::new(served.clone()))))).await;
                match recover_from(port, &storage, &notes).await {
                    Ok(copied) => {
                        assert_eq!(copied.sha256, hex::encode(Sha256::digest(&file)), "{step} {how:?}");
                        assert!(bucket.bytes(PATH) == file, "{step} {how:?}");
                        assert_eq!(notes.0.lock().unwrap().len(), 1);
                        storage.delete(&copied.key).await.unwrap();
                    }
                    // Aborted: then neither a part nor a record is left.
                    Err(error) => {
                        assert!(matches!(error, CopyError::Storage(_)), "{step} {how:?}: {error:?}");
                        assert!(notes.0.lock().unwrap().is_empty(), "{step} {how:?}");
                    }
                }
                assert!(bucket.all_failed(), "{step} {how:?} was never tried");
                bucket.mend();
                assert_eq!(bucket.left().0, vec![], "{step} {how:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_no_object_without_a_record() {
    let bucket = Bucket::default();
    let storage = storage_on(&bucket).await;
    let steps = [
        ("PUT ", 1 << 10, 1),
        ("POST uploadId", 17 << 20, 1),
        ("POST uploadId", 17 << 20, 20),
        ("PUT partNumber=2", 17 << 20, 1),
    ];
    for (step, length, times) in steps {
        bucket.mend();
        let notes = Arc::new(Notes::default());
        let file = Bytes::from(film(length));
        bucket.fail(step, times, How::Lost);
        let served = file.clone();
        let port = listen(move |_| std::future::ready(Ok(Response::new(Full::new(served.clone()))))).await;
        // A completed upload is unknown when it is asked for again: then the object itself is
        // looked for.
        let copied = recover_from(port, &storage, &notes).await.unwrap();
        assert!(bucket.bytes(PATH) == file, "{step}");
        storage.delete(&copied.key).await.unwrap();
        assert_eq!(bucket.left(), (vec![], 0), "{step}");
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_aborted_stays_on_record_and_is_removed_later() {
    let bucket = Bucket::default();
    let storage = storage_on(&bucket).await;
    let notes = Arc::new(Notes::default());
    let file = Bytes::from(film(17 << 20));
    bucket.fail("PUT partNumber=3", 1, How::Status(StatusCode::FORBIDDEN));
    bucket.fail("DELETE uploadId", 1, How::Status(StatusCode::FORBIDDEN));
    let served = file.clone();
    let port = listen(move |_| std::future::ready(Ok(Response::new(Full::new(served.clone()))))).await;
    recover_from(port, &storage, &notes).await.unwrap_err();
    assert_eq!(bucket.left().1, 1, "the parts are still there");
    let (place, id) = notes.0.lock().unwrap().values().next().cloned().unwrap();
    bucket.fail("DELETE uploadId", 1, How::Status(StatusCode::FORBIDDEN));
    let error = storage.clear(&place.path, id.as_deref(), false).await.unwrap_err();
    assert!(error.to_string().starts_with("could not abort s3://"), "{error}");
    storage.clear(&place.path, id.as_deref(), false).await.unwrap();
    assert_eq!(bucket.left(), (vec![], 0));
}
