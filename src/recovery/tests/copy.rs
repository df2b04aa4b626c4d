//! What a copy owes: the whole file or nothing, told as what it is.

use super::*;

#[tokio::test]
async fn p16_a_file_comes_home_whole_with_its_hash_length_types_and_host() {
    let world = World::new().await;
    let url = world.at("/a.png", ok("content-type: Image/PNG; x=y\r\n", PNG));
    let copied = world.copy(&format!("{url}?signature=SECRET")).await.unwrap();
    let file = world.scratch.path().join("out/ch_1/0/7.png");
    assert_eq!(std::fs::read(&file).unwrap(), PNG);
    assert_eq!(world.stored(), std::slice::from_ref(&file));
    assert_eq!(
        copied,
        Copied {
            key: Key::new("ch_1", 0, 7).with_extension("png"),
            note: 0,
            uri: url::Url::from_file_path(&file).unwrap().to_string(),
            size_bytes: i64::try_from(PNG.len()).unwrap(),
            sha256: hex::encode(Sha256::digest(PNG)),
            content_type: "image/png".to_owned(),
            sniffed: Some("image/png".to_owned()),
            declared: Some("image/png".to_owned()),
            source_host: "files.test".to_owned(),
        }
    );
    // And the same again: what a worker does that died before it could settle.
    let again = world.copy(&url).await.unwrap();
    assert_eq!(Copied { note: 0, ..again }, copied);
    assert_eq!(world.stored().len(), 1);
    // Both are on record until somebody names them.
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
async fn files_around_the_size_of_a_part_come_home_whole() {
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
async fn p16_a_copy_that_is_cut_off_by_its_time_keeps_its_note_as_a_write_may_still_arrive() {
    let world = World::new().await;
    let begun = whole("200 OK", "", 1 << 30, &noise(17 << 20));
    let url = world.at("/midway", Answer::SendAndHang(begun));
    let limits = Limits { time_budget: Duration::from_millis(500), ..limits() };
    let error = world.copy_with(limits, &source(&url), None).await.unwrap_err();
    assert!(matches!(error, CopyError::TimedOut { what: TimeLimit::Budget }), "{error:?}");
    assert!(world.stored().is_empty(), "{:?}", world.stored());
    assert_eq!(world.notes.open.lock().unwrap().len(), 1);
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
async fn a_copy_that_is_dropped_halfway_leaves_nothing_but_its_note() {
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
    // The clean-up runs by itself.
    let gone = async {
        while !world.stored().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), gone).await.unwrap();
    // A write that was under way may still arrive: the sweep has to know of it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.notes.open.lock().unwrap().len(), 1);
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
    assert_eq!(copied.sha256, hex::encode(Sha256::digest(&large)));
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

#[tokio::test]
async fn nothing_is_written_that_could_not_be_noted_and_a_clean_end_takes_the_note_back() {
    let world = World::new().await;
    let url = world.at("/a.png", ok("", PNG));
    let large = world.at("/large", ok("", &noise(17 << 20)));
    world.notes.refuse.store(true, Ordering::SeqCst);
    for url in [&url, &large] {
        let error = world.copy(url).await.unwrap_err();
        assert_eq!(error.kind(), "journal", "{error:?}");
        assert!(world.stored().is_empty());
    }
    world.notes.refuse.store(false, Ordering::SeqCst);
    // Refused before the first byte: not even noted.
    let page = world.at("/page", ok("", b"<!doctype html>"));
    world.copy(&page).await.unwrap_err();
    assert!(world.notes.told.lock().unwrap().is_empty());
    // Broken in the middle: noted, and taken back.
    let cut = world.at("/cut", Answer::Send(whole("200 OK", "", 18 << 20, &noise(17 << 20))));
    let one = Limits { tries: 0, ..limits() };
    world.copy_with(one, &source(&cut), None).await.unwrap_err();
    let told = world.notes.told.lock().unwrap().clone();
    assert!(told.len() == 2 && told[0].starts_with("begin ") && told[1] == "forget 0", "{told:?}");
    assert!(world.notes.open.lock().unwrap().is_empty());
    assert!(world.stored().is_empty());
}

#[tokio::test]
async fn what_a_killed_copy_left_is_cleared_by_its_note_and_a_named_object_stays() {
    let world = World::new().await;
    let directory = world.scratch.path().join("out/ch_1/0");
    std::fs::create_dir_all(&directory).unwrap();
    let place = world.storage().place(&world.storage().path(&Key::new("ch_1", 0, 7).with_extension("png")));
    let left = ["7.png", "7.png#1", "7.png#12"];
    let others = ["7.png#x", "7.png#", "77.png#1", "7.png1", "8.png", "8.png#1"];
    for named in [true, false] {
        for name in left.iter().chain(&others) {
            std::fs::write(directory.join(name), b"x").unwrap();
        }
        world.storage().clear(&place.path, None, named).await.unwrap();
        let mut names: Vec<_> =
            world.stored().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        names.sort();
        let mut expected: Vec<_> = others.iter().chain(left.iter().take(usize::from(named))).collect();
        expected.sort();
        assert_eq!(names, expected.into_iter().map(std::ffi::OsString::from).collect::<Vec<_>>());
    }
    // Twice is as good as once, and so is what never was.
    world.storage().clear(&place.path, None, false).await.unwrap();
    world.storage().clear("no/such/place/1.png", None, false).await.unwrap();
}

/// Says how much was asked for, and gives nothing.
#[derive(Debug, Default)]
struct NoneFree(Mutex<Vec<u64>>);

impl Memory for NoneFree {
    fn take(&self, bytes: u64) -> bool {
        self.0.lock().unwrap().push(bytes);
        false
    }
}

#[tokio::test]
async fn a_file_asks_for_memory_once_it_says_its_size_and_leaves_nothing_where_there_is_none() {
    let world = World::new().await;
    let (storage, key) = (world.storage(), Key::new("ch_1", 0, 7));
    let memory = NoneFree::default();
    let listed = world.listed(&["files.test"]);
    let silent = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], PNG].concat();
    for (path, answer) in [("/said", ok("", PNG)), ("/unsaid", Answer::Send(silent))] {
        let source = source(&world.at(path, answer));
        let errand = Errand { memory: Some(&memory), ..world.errand(&source, &listed, &storage, &key) };
        let error = world.fetcher(limits()).copy(errand).await.unwrap_err();
        assert_eq!(error.kind(), "no_memory", "{error:?}");
    }
    let most = memory_bytes(limits().max_bytes);
    assert_eq!(*memory.0.lock().unwrap(), [PNG.len() as u64, most]);
    assert_eq!(world.stored(), Vec::<std::path::PathBuf>::new());
}
