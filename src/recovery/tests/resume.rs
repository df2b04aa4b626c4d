//! Downloads that break off: resumed if the result is certainly the same file, else restarted, a
//! limited number of times.

use super::*;

/// How a server responds to a range request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ranges {
    /// Sends the range.
    Honest,
    /// Sends the whole file.
    Ignored,
    /// Answers 416.
    Refused,
    /// Begins one byte too early, as its `Content-Range` says.
    TooEarly,
    /// Stops one byte before the end, as its `Content-Range` says.
    TooShort,
    /// Announces another length of the file.
    OtherLength,
    /// Sends the range with another `ETag`.
    OtherTag,
    /// Sends the range compressed.
    Compressed,
    /// Sends the range without `Content-Range`.
    Unsaid,
}

/// A file whose nth response breaks off after `breaks[nth]` bytes; later responses are complete.
fn breaking(
    body: &[u8],
    headers: &'static str,
    breaks: &'static [usize],
    ranges: Ranges,
    hang: bool,
) -> Answer {
    let body = Arc::new(body.to_vec());
    Answer::By(Arc::new(move |head, nth| {
        let from = head
            .split("range: bytes=")
            .nth(1)
            .and_then(|rest| rest.split('-').next())
            .and_then(|from| from.parse::<usize>().ok())
            .filter(|_| ranges != Ranges::Ignored);
        let total = body.len();
        let (line, extra, rest) = match from {
            None => ("200 OK", String::new(), &body[..]),
            Some(_) if ranges == Ranges::Refused => ("416 Range Not Satisfiable", String::new(), &body[..0]),
            Some(from) => {
                let (start, end, length) = match ranges {
                    Ranges::TooEarly => (from - 1, total, total),
                    Ranges::TooShort => (from, total - 1, total),
                    Ranges::OtherLength => (from, total, total + 1),
                    _ => (from, total, total),
                };
                let said = format!("content-range: bytes {start}-{}/{length}\r\n", end - 1);
                let said = match ranges {
                    Ranges::Unsaid => String::new(),
                    Ranges::OtherTag => format!("{said}etag: \"other\"\r\n"),
                    Ranges::Compressed => format!("{said}content-encoding: br\r\n"),
                    _ => said,
                };
                ("206 Partial Content", said, &body[start..end])
            }
        };
        let headers = if ranges == Ranges::OtherTag && from.is_some() { "" } else { headers };
        let mut answer = whole(line, &format!("{headers}{extra}"), rest.len(), rest);
        let broken = breaks.get(nth).copied().filter(|at| *at < rest.len());
        if let Some(at) = broken {
            answer.truncate(answer.len() - rest.len() + at);
        }
        (answer, hang && broken.is_some())
    }))
}

const TAGGED: &str = "etag: \"v1\"\r\naccept-ranges: bytes\r\n";
const DATED: &str = "last-modified: Mon, 04 May 2026 09:12:30 GMT\r\ndate: Mon, 04 May 2026 09:20:00 GMT\r\n";
const MIB: usize = 1 << 20;

fn sha(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

fn asked_for(head: &str) -> Option<&str> {
    head.split("range: bytes=").nth(1).and_then(|rest| rest.split('\r').next())
}

#[tokio::test]
async fn p16_a_download_that_breaks_off_is_resumed_where_it_stopped() {
    let world = World::new().await;
    let body = noise(20 * MIB);
    for (headers, version, hang) in [
        (TAGGED, "if-range: \"v1\"", false),
        (DATED, "if-range: mon, 04 may 2026 09:12:30 gmt", false),
        (TAGGED, "if-range: \"v1\"", true),
    ] {
        world.requests.lock().unwrap().clear();
        // In the middle of a part, just after one, and near the end.
        let url = world.at(
            "/film",
            breaking(&body, headers, &[5 * MIB, 3 * MIB + 1, 12 * MIB - 9], Ranges::Honest, hang),
        );
        let limits =
            CopyLimits { stall_timeout: Duration::from_millis(if hang { 300 } else { 30_000 }), ..limits() };
        let copied = world.copy_with(limits, &source(&url), None).await.unwrap();
        assert_eq!((copied.sha256.as_str(), copied.size_bytes), (sha(&body).as_str(), 20 << 20));
        assert!(std::fs::read(&world.stored()[0]).unwrap() == body);
        assert_eq!(world.stored().len(), 1);
        let requests = world.requests();
        let from: Vec<_> = requests.iter().map(|head| asked_for(head)).collect();
        assert_eq!(from.len(), 4);
        assert_eq!(from[0], None);
        // No byte is requested twice.
        let places: Vec<usize> =
            from[1..].iter().map(|from| from.unwrap().trim_end_matches('-').parse().unwrap()).collect();
        assert!(places.is_sorted() && places[0] > 0 && places[2] <= 20 * MIB - 8, "{places:?}");
        assert!(requests[1..].iter().all(|head| head.contains(version)), "{requests:?}");
        world.storage().delete(&copied.key).await.unwrap();
    }
}

#[tokio::test]
async fn p16_a_download_that_cannot_be_resumed_safely_is_restarted_with_the_right_hash() {
    let world = World::new().await;
    let body = noise(9 * MIB);
    for (name, headers, ranges) in [
        ("no version", "accept-ranges: bytes\r\n", Ranges::Honest),
        ("weak", "etag: W/\"v1\"\r\n", Ranges::Honest),
        (
            "too young a date",
            "last-modified: Mon, 04 May 2026 09:12:30 GMT\r\ndate: Mon, 04 May 2026 09:12:30 GMT\r\n",
            Ranges::Honest,
        ),
        ("says that it cannot", "etag: \"v1\"\r\naccept-ranges: none\r\n", Ranges::Honest),
        ("ignored", TAGGED, Ranges::Ignored),
        ("refused", TAGGED, Ranges::Refused),
        ("too early", TAGGED, Ranges::TooEarly),
        ("too short", TAGGED, Ranges::TooShort),
        ("another length", TAGGED, Ranges::OtherLength),
        ("another tag", TAGGED, Ranges::OtherTag),
        ("compressed", TAGGED, Ranges::Compressed),
        ("unsaid", TAGGED, Ranges::Unsaid),
    ] {
        let url = world.at("/film", breaking(&body, headers, &[8 * MIB + 3], ranges, false));
        world.requests.lock().unwrap().clear();
        let copied = world.copy(&url).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(copied.sha256, sha(&body), "{name}");
        assert!(std::fs::read(&world.stored()[0]).unwrap() == body, "{name}");
        assert_eq!(world.stored().len(), 1, "{name}");
        let last = world.requests().pop().unwrap();
        assert!(ranges == Ranges::Ignored || asked_for(&last).is_none(), "{name}: {last}");
        world.storage().delete(&copied.key).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_copied_in_its_new_version() {
    let world = World::new().await;
    let (old, new) = (noise(9 * MIB), PNG.to_vec());
    let (first, second) = (old.clone(), new.clone());
    let url = world.at(
        "/film",
        Answer::By(Arc::new(move |head, nth| {
            if nth == 0 {
                return (whole("200 OK", "etag: \"v1\"\r\n", first.len(), &first[..8 * MIB + 5]), false);
            }
            // If-Range does not match: the whole new version.
            assert!(head.contains("if-range: \"v1\""));
            (whole("200 OK", "etag: \"v2\"\r\ncontent-type: image/png\r\n", second.len(), &second), false)
        })),
    );
    let copied = world.copy(&url).await.unwrap();
    assert_eq!((copied.sha256, copied.content_type.as_str()), (sha(&new), "image/png"));
    // Nothing is left of the old version, which had another key, and its log entry is removed.
    assert_eq!(world.stored().len(), 1);
    assert_eq!(world.notes.open.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn retries_without_progress_are_limited() {
    let world = World::new().await;
    let body = noise(2 * MIB);
    for (headers, requests) in [("", 5), (TAGGED, 5)] {
        world.requests.lock().unwrap().clear();
        let body = body.clone();
        // Half of the file, and never more.
        let url = world.at(
            "/film",
            Answer::By(Arc::new(move |head, _| {
                if asked_for(head).is_some() {
                    return (
                        whole(
                            "206 Partial Content",
                            "content-range: bytes 1048576-2097151/2097152\r\n",
                            MIB,
                            b"",
                        ),
                        false,
                    );
                }
                (whole("200 OK", headers, body.len(), &body[..MIB]), false)
            })),
        );
        assert_eq!(not_an_output(world.copy(&url).await), NotOutput::Truncated);
        assert_eq!(world.requests().len(), requests, "{headers}");
        assert!(world.stored().is_empty());
    }
    // A server that never sent the file is not retried here; the next pass tries again.
    for answer in [status("503 Busy"), Answer::Send(Vec::new())] {
        world.requests.lock().unwrap().clear();
        let url = world.at("/down", answer);
        world.copy(&url).await.unwrap_err();
        assert_eq!(world.requests().len(), 1);
    }
}

#[tokio::test]
async fn every_check_of_the_first_request_applies_to_retries() {
    let world = World::new().await;
    let body = noise(MIB);
    let then = |second: Vec<u8>| {
        let first = whole("200 OK", TAGGED, body.len(), &body[..MIB / 2]);
        Answer::By(Arc::new(move |_, nth| (if nth == 0 { first.clone() } else { second.clone() }, false)))
    };
    let moved_to = |location: &str| whole("302 Found", &format!("location: {location}\r\n"), 0, b"");
    for (second, expected) in [
        (moved_to(&world.url("elsewhere.test", "/film")), "refused"),
        (moved_to("http://169.254.169.254/latest/"), "refused"),
        (moved_to("file:///etc/passwd"), "refused"),
        (whole("404 Not Found", "", 0, b""), "gone"),
        (whole("410 Gone", "", 0, b""), "gone"),
        (whole("403 Forbidden", "", 0, b""), "unauthorized"),
    ] {
        world.requests.lock().unwrap().clear();
        let url = world.at("/film", then(second));
        let error = world.copy(&url).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error:?}");
        assert_eq!(world.requests().len(), 2);
        assert!(world.stored().is_empty());
    }

    // The rest from another URL with the same tag is refused: it may be another file.
    let other = world.at("/other", breaking(&noise(MIB), TAGGED, &[], Ranges::Honest, false));
    let url = world.at("/film", then(moved_to(&other)));
    world.requests.lock().unwrap().clear();
    let copied = world.copy(&url).await.unwrap();
    assert_eq!(copied.sha256, sha(&body), "it happens to be the same one");
    let heads = world.requests();
    assert!(asked_for(&heads[2]).is_some() && asked_for(heads.last().unwrap()).is_none(), "{heads:?}");
    world.storage().delete(&copied.key).await.unwrap();

    // A name that resolves to a private address by then is refused.
    world.name("rebind.test", &["127.0.0.1"]);
    world.name("rebind.test", &["10.0.0.1"]);
    world.at("/film", breaking(&body, TAGGED, &[MIB / 2], Ranges::Honest, false));
    world.requests.lock().unwrap().clear();
    let error = world.copy(&world.url("rebind.test", "/film")).await.unwrap_err();
    assert_eq!(error.reason(), Some("private_address"), "{error:?}");

    // The key is sent to its own host in each attempt.
    let mut auth = HeaderMap::new();
    auth.insert("x-goog-api-key", HeaderValue::from_static("sesame"));
    world.requests.lock().unwrap().clear();
    world.at("/film", breaking(&body, TAGGED, &[MIB / 2], Ranges::Honest, false));
    let with_key = Source::Url { url: world.url("127.0.0.1", "/film"), auth: true };
    world.copy_with(limits(), &with_key, Some(auth)).await.unwrap();
    let got: Vec<_> = world.requests().iter().map(|head| head.contains("sesame")).collect();
    assert_eq!(got, [true, true]);
}

#[tokio::test]
async fn a_download_that_breaks_off_again_and_again_ends_at_the_time_budget() {
    let world = World::new().await;
    let body = noise(MIB);
    // One byte more each time: less progress than resets the retry count.
    let url =
        world.at("/film", breaking(&body, TAGGED, &[100, 1, 1, 1, 1, 1, 1, 1, 1], Ranges::Honest, false));
    assert_eq!(not_an_output(world.copy(&url).await), NotOutput::Truncated);
    assert_eq!(world.requests().len(), 5);
    let patient = CopyLimits {
        max_retries: 1_000_000,
        retry_delay: Duration::from_secs(1),
        time_budget: Duration::from_millis(200),
        ..limits()
    };
    let error = world.copy_with(patient, &source(&url), None).await.unwrap_err();
    assert!(matches!(error, CopyError::TimedOut { limit: TimeLimit::Budget }), "{error:?}");
}
