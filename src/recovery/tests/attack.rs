//! Hostile servers: error pages, endless and oversized files, redirects, DNS rebinding, key theft.

use std::error::Error;
use std::io::Write;

use super::*;

#[tokio::test]
async fn error_pages_and_empty_files_are_refused() {
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
async fn endless_and_oversized_files_end_at_the_limit() {
    let world = World::new().await;
    let small = CopyLimits { max_bytes: 20 << 20, ..limits() };
    let url = world.at("/endless", Answer::Endless);
    let error = world.copy_with(small.clone(), &source(&url), None).await.unwrap_err();
    assert!(matches!(error, CopyError::TooLarge { max_bytes } if max_bytes == 20 << 20), "{error:?}");
    // 20 MiB, and the buffers on the way.
    let sent = world.pieces_sent.load(Ordering::SeqCst) * (64 << 10);
    assert!((20 << 20..60 << 20).contains(&sent), "{sent} bytes were sent");

    // A file that announces its size is refused before its body.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    let url = world.at("/says-so", Answer::SendAndHang(head));
    let error = world.copy_with(small, &source(&url), None).await.unwrap_err();
    assert_eq!(error.kind(), "too_large");

    // A file of exactly the limit is allowed.
    let exact = CopyLimits { max_bytes: PNG.len() as u64, ..limits() };
    let url = world.at("/exact", ok("", PNG));
    world.copy_with(exact, &source(&url), None).await.unwrap();
    assert_eq!(world.stored().len(), 1);
}

#[tokio::test]
async fn unrequested_compression_is_decoded_under_the_same_limit() {
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
    let small = CopyLimits { max_bytes: 10 << 20, ..limits() };
    let error = world.copy_with(small, &source(&url), None).await.unwrap_err();
    assert_eq!(error.kind(), "too_large");

    let cut = &gzip(PNG)[..20];
    let url = world.at("/cut", ok(header, cut));
    assert_eq!(not_an_output(world.copy(&url).await), NotOutput::Truncated);
    assert!(world.stored().is_empty());
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
        ("http://files.test:8443/a.png".to_owned(), UrlRefusal::Port),
        ("https://other.test/a.png".to_owned(), UrlRefusal::Port),
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
    // The error names the host of the redirect, not the first host.
    let url = world.at("/loop", moved(&world.url("elsewhere.test", "/a.png")));
    let told = world.copy(&url).await.unwrap_err().to_string();
    assert_eq!(
        told,
        format!("the URL of the file is refused: host_not_listed (elsewhere.test:{})", world.port)
    );
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
async fn addresses_are_checked_for_every_connection() {
    let world = World::new().await;
    let url = world.at("/a.png", ok("", PNG));
    // Loopback is refused by default, by name and by address.
    let strict = CopyLimits { allow_loopback: false, ..limits() };
    let loopback = UrlRefusal::Address(AddressRefusal::Loopback);
    assert_eq!(refused(world.copy_with(strict.clone(), &source(&url), None).await), loopback);
    let by_address = source(&world.url("127.0.0.1", "/a.png"));
    assert_eq!(refused(world.copy_with(strict, &by_address, None).await), loopback);
    assert!(world.requests().is_empty());

    // DNS rebinding: the second lookup returns a private address.
    world.name("rebind.test", &["127.0.0.1"]);
    world.name("rebind.test", &["192.168.0.1"]);
    let url = world.url("rebind.test", "/a.png");
    let fetcher = world.fetcher(limits());
    let listed = world.listed(&["rebind.test"]);
    let (storage, key) = (world.storage(), ObjectKey::new("ch", 0, 1));
    let source = source(&url);
    fetcher.copy(world.request(&source, &listed, &storage, &key)).await.unwrap();
    let second = fetcher.copy(world.request(&source, &listed, &storage, &ObjectKey::new("ch", 0, 2))).await;
    assert_eq!(refused(second), UrlRefusal::Address(AddressRefusal::Private));

    // A name without an address.
    world.name("inside.test", &[]);
    let error = world.copy(&world.url("inside.test", "/a.png")).await.unwrap_err();
    assert_eq!(error.kind(), "network");
}

#[tokio::test]
async fn addresses_of_the_system_resolver_are_checked_too() {
    let world = World::new().await;
    let url = world.url("localhost", "/a.png");
    let fetcher = Fetcher::new(CopyLimits::default()).unwrap();
    let (source, listed) = (source(&url), world.listed(&[]));
    let (storage, key) = (world.storage(), ObjectKey::new("ch", 0, 1));
    let copied = fetcher.copy(world.request(&source, &listed, &storage, &key)).await;
    assert_eq!(refused(copied), UrlRefusal::Address(AddressRefusal::Loopback));
    assert!(world.requests().is_empty());
}

#[tokio::test]
async fn the_providers_key_is_sent_to_listed_hosts_only() {
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
    // Whether each request of the chain has the key.
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
    // The key is not sent if the offer does not ask for it.
    world.requests.lock().unwrap().clear();
    world.copy_with(limits(), &source(&here("/a.png")), Some(auth.clone())).await.unwrap();
    assert!(!world.requests()[0].contains("sesame"));

    // The key is not sent unencrypted to another machine.
    let clear = Source::Url { url: world.url("files.test", "/a.png"), auth: true };
    world.requests.lock().unwrap().clear();
    assert_eq!(refused(world.copy_with(limits(), &clear, Some(auth.clone())).await), UrlRefusal::KeyInClear);
    // Nor to a host that is listed for files only, whether or not the key is available.
    let elsewhere = Source::Url { url: world.url("localhost", "/a.png"), auth: true };
    for auth in [Some(auth), None] {
        let refused = refused(world.copy_with(limits(), &elsewhere, auth).await);
        assert_eq!(refused, UrlRefusal::KeyHost);
    }
    assert!(world.requests().is_empty());
}

#[tokio::test]
async fn network_errors_do_not_contain_the_signature() {
    let world = World::new().await;
    // The port was released: nothing listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let cut = world.at("/cut-in-head", Answer::Send(b"HTTP/1.1 200".to_vec()));
    for url in [format!("http://127.0.0.1:{closed}/a"), cut, world.url("other.test", "/")] {
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
