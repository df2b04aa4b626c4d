//! Copies that succeed are complete; copies that fail leave nothing and say why.

use super::*;

#[tokio::test]
async fn p16_a_file_is_copied_completely_with_its_hash_length_types_and_host() {
    let world = World::new().await;
    let url = world.at("/a.png", ok("content-type: Image/PNG; x=y\r\n", PNG));
    let copied = world.copy(&format!("{url}?signature=SECRET")).await.unwrap();
    let file = world.scratch.path().join("out/ch_1/0/7.png");
    assert_eq!(std::fs::read(&file).unwrap(), PNG);
    assert_eq!(world.stored(), std::slice::from_ref(&file));
    assert_eq!(
        copied,
        CopiedFile {
            key: ObjectKey::new("ch_1", 0, 7).with_extension("png"),
            log_entry: 0,
            uri: url::Url::from_file_path(&file).unwrap().to_string(),
            size_bytes: i64::try_from(PNG.len()).unwrap(),
            sha256: hex::encode(Sha256::digest(PNG)),
            content_type: "image/png".to_owned(),
            sniffed: Some("image/png".to_owned()),
            declared: Some("image/png".to_owned()),
            source_host: "files.test".to_owned(),
        }
    );
    // The same copy again, as after a crash before settle.
    let again = world.copy(&url).await.unwrap();
    assert_eq!(CopiedFile { log_entry: 0, ..again }, copied);
    assert_eq!(world.stored().len(), 1);
    // Both log entries stay until a row names the object.
    let open: Vec<_> = world.notes.open.lock().unwrap().values().cloned().collect();
    assert_eq!(open.len(), 2);
    assert_eq!((open[0].storage.as_str(), &open[0].uri, &open[1]), ("file://", &copied.uri, &open[0]));
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
async fn files_around_the_part_size_are_copied_completely() {
    const PART: usize = 8 << 20;
    let world = World::new().await;
    for length in [PART, PART + 1, 2 * PART + 12_345] {
        let body = noise(length);
        let url = world.at("/big", ok("", &body));
        let copied = world.copy(&url).await.unwrap();
        assert_eq!(copied.size_bytes, i64::try_from(length).unwrap());
        assert_eq!(copied.sha256, hex::encode(Sha256::digest(&body)), "{length}");
        assert!(std::fs::read(&world.stored()[0]).unwrap() == body, "{length}");
        assert_eq!(world.stored().len(), 1);
    }
}

#[tokio::test]
async fn a_truncated_body_is_refused_and_leaves_nothing() {
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
async fn each_error_status_maps_to_its_error() {
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
async fn stalled_and_slow_downloads_end_at_their_time_limits() {
    let world = World::new().await;
    let url = world.at("/before-head", Answer::SendAndHang(Vec::new()));
    let begun = whole("200 OK", "", 1 << 30, &noise(9 << 20));
    let midway = world.at("/midway", Answer::SendAndHang(begun));
    for url in [url, midway] {
        let limits = CopyLimits { stall_timeout: Duration::from_millis(200), ..limits() };
        let error = world.copy_with(limits, &source(&url), None).await.unwrap_err();
        assert!(matches!(error, CopyError::TimedOut { limit: TimeLimit::Stall }), "{error:?}");
    }
    // Never stalled for long, and never finished.
    let url = world.at("/trickle", Answer::Trickle);
    let limits = CopyLimits { time_budget: Duration::from_millis(300), ..limits() };
    let error = world.copy_with(limits, &source(&url), None).await.unwrap_err();
    assert!(matches!(error, CopyError::TimedOut { limit: TimeLimit::Budget }), "{error:?}");
    assert!(world.stored().is_empty(), "{:?}", world.stored());
}

#[tokio::test]
async fn p16_a_copy_that_times_out_keeps_its_log_entry_because_a_write_may_still_complete() {
    let world = World::new().await;
    let begun = whole("200 OK", "", 1 << 30, &noise(17 << 20));
    let url = world.at("/midway", Answer::SendAndHang(begun));
    let limits = CopyLimits { time_budget: Duration::from_millis(500), ..limits() };
    let error = world.copy_with(limits, &source(&url), None).await.unwrap_err();
    assert!(matches!(error, CopyError::TimedOut { limit: TimeLimit::Budget }), "{error:?}");
    assert!(world.stored().is_empty(), "{:?}", world.stored());
    assert_eq!(world.notes.open.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_failing_storage_is_reported_as_a_storage_error() {
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
async fn a_copy_that_is_dropped_halfway_leaves_only_its_log_entry() {
    let world = World::new().await;
    let begun = whole("200 OK", "", 1 << 30, &noise(17 << 20));
    let url = world.at("/midway", Answer::SendAndHang(begun));
    let source = source(&url);
    {
        let copy = world.copy_with(limits(), &source, None);
        tokio::pin!(copy);
        // Until a temporary file exists.
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
    // The clean-up runs in the background.
    let gone = async {
        while !world.stored().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), gone).await.unwrap();
    // A write in flight may still complete, so the log entry must stay for the sweep.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.notes.open.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn inline_files_are_stored_like_downloaded_ones() {
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
    assert_eq!(copied.sha256, hex::encode(Sha256::digest(&large)));
    world.storage().delete(&copied.key).await.unwrap();

    assert_eq!(not_an_output(world.copy_with(limits(), &inline(b"", None), None).await), NotOutput::Empty);
    let page = inline(b"<html>", None);
    assert_eq!(not_an_output(world.copy_with(limits(), &page, None).await), NotOutput::Html);
    let small = CopyLimits { max_bytes: 3, ..limits() };
    let error = world.copy_with(small, &inline(PNG, None), None).await.unwrap_err();
    assert_eq!(error.kind(), "too_large");
    let failed = Source::Failed { class: FailureClass::ServerError, message: None };
    assert_eq!(not_an_output(world.copy_with(limits(), &failed, None).await), NotOutput::NoFile);
    assert!(world.stored().is_empty());
}

#[tokio::test]
async fn objects_are_recorded_before_writing_and_the_entry_is_removed_after_a_clean_abort() {
    let world = World::new().await;
    let url = world.at("/a.png", ok("", PNG));
    let large = world.at("/large", ok("", &noise(17 << 20)));
    world.notes.fails.store(true, Ordering::SeqCst);
    for url in [&url, &large] {
        let error = world.copy(url).await.unwrap_err();
        assert_eq!(error.kind(), "journal", "{error:?}");
        assert!(world.stored().is_empty());
    }
    world.notes.fails.store(false, Ordering::SeqCst);
    // Refused before anything is written: not recorded either.
    let page = world.at("/page", ok("", b"<!doctype html>"));
    world.copy(&page).await.unwrap_err();
    assert!(world.notes.calls.lock().unwrap().is_empty());
    // Broken off halfway: recorded, aborted, and the entry removed.
    let cut = world.at("/cut", Answer::Send(whole("200 OK", "", 18 << 20, &noise(17 << 20))));
    let one = CopyLimits { max_retries: 0, ..limits() };
    world.copy_with(one, &source(&cut), None).await.unwrap_err();
    let calls = world.notes.calls.lock().unwrap().clone();
    assert!(calls.len() == 2 && calls[0].starts_with("record ") && calls[1] == "remove 0", "{calls:?}");
    assert!(world.notes.open.lock().unwrap().is_empty());
    assert!(world.stored().is_empty());
}

#[tokio::test]
async fn the_leftovers_of_a_killed_copy_are_cleared_and_a_named_object_stays() {
    let world = World::new().await;
    let directory = world.scratch.path().join("out/ch_1/0");
    std::fs::create_dir_all(&directory).unwrap();
    let location =
        world.storage().location(&world.storage().path(&ObjectKey::new("ch_1", 0, 7).with_extension("png")));
    let left = ["7.png", "7.png#1", "7.png#12"];
    let others = ["7.png#x", "7.png#", "77.png#1", "7.png1", "8.png", "8.png#1"];
    for named in [true, false] {
        for name in left.iter().chain(&others) {
            std::fs::write(directory.join(name), b"x").unwrap();
        }
        world.storage().clear(&location.path, None, named).await.unwrap();
        let mut names: Vec<_> =
            world.stored().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        names.sort();
        let mut expected: Vec<_> = others.iter().chain(left.iter().take(usize::from(named))).collect();
        expected.sort();
        assert_eq!(names, expected.into_iter().map(std::ffi::OsString::from).collect::<Vec<_>>());
    }
    // Idempotent, also for a path that never existed.
    world.storage().clear(&location.path, None, false).await.unwrap();
    world.storage().clear("no/such/place/1.png", None, false).await.unwrap();
}

/// Has no free memory, and records how much was requested.
#[derive(Debug, Default)]
struct NoneFree(Mutex<Vec<u64>>);

impl MemoryBudget for NoneFree {
    fn reserve(&self, bytes: u64) -> bool {
        self.0.lock().unwrap().push(bytes);
        false
    }
}

#[tokio::test]
async fn a_copy_reserves_memory_when_it_knows_the_size_and_leaves_nothing_without_memory() {
    let world = World::new().await;
    let (storage, key) = (world.storage(), ObjectKey::new("ch_1", 0, 7));
    let memory = NoneFree::default();
    let listed = world.listed(&["files.test"]);
    let silent = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], PNG].concat();
    for (path, answer) in [("/said", ok("", PNG)), ("/unsaid", Answer::Send(silent))] {
        let source = source(&world.at(path, answer));
        let request =
            CopyRequest { memory: Some(&memory), ..world.request(&source, &listed, &storage, &key) };
        let error = world.fetcher(limits()).copy(request).await.unwrap_err();
        assert_eq!(error.kind(), "no_memory", "{error:?}");
    }
    let most = memory_bytes(limits().max_bytes);
    assert_eq!(*memory.0.lock().unwrap(), [PNG.len() as u64, most]);
    assert_eq!(world.stored(), Vec::<std::path::PathBuf>::new());
}
