//! Providers without manners: that hang, trickle, or ask to be left alone.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::shapes::{Scripted, acme, ask};
use super::*;

/// A provider whose connections are treated by `treat` after the request's head has come.
async fn rude<F>(
    treat: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    keys: &str,
) -> (Providers, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            tokio::spawn(treat(stream));
        }
    });
    let text = format!(
        "[provider]\nname = \"acme\"\noutput_hosts = []\n{keys}\n[ask]\nrequest = \"GET http://{address}/{{job}}\"\n\
         read = '{{verdict: \"running\"}}'"
    );
    let provider = load_text("acme.toml", "acme", &text).unwrap();
    let providers = Providers::new(BTreeMap::from([("acme".to_owned(), provider)]), Clock::default());
    (providers, requests)
}

async fn trickle(mut stream: TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
    while stream.write_all(b" ").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn hang(mut stream: TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await;
    std::future::pending::<()>().await;
}

async fn half(mut stream: TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\": ").await;
}

#[tokio::test]
async fn bytes_that_trickle_and_bytes_that_stop_are_given_up_and_not_asked_for_again_at_once() {
    let (trickling, requests) = rude(trickle, "timeout = \"300ms\"").await;
    let evidence = ask(&trickling, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert_eq!(evidence.message.as_deref(), Some("no whole answer within 300ms"));
    assert_eq!(requests.load(Ordering::SeqCst), 1, "it had its time");

    let (hanging, requests) = rude(hang, "timeout = \"1h\"\nread_timeout = \"100ms\"").await;
    let evidence = ask(&hanging, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert!(evidence.message.unwrap().contains("nothing for 100ms"));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_and_no_more_often_than_the_file_says() {
    let (breaking, requests) = rude(|stream| async { drop(stream) }, "retries = 1").await;
    let evidence = ask(&breaking, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert_eq!(requests.load(Ordering::SeqCst), 2);

    // In the middle of a body too.
    let (breaking, requests) = rude(half, "retries = 1").await;
    let evidence = ask(&breaking, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert!(evidence.message.unwrap().starts_with("the exchange broke off"));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_provider_that_asks_for_a_long_wait_is_left_alone_and_a_short_one_is_sat_out() {
    let limited = |header: &'static str| {
        move |mut stream: TcpStream| async move {
            let answer =
                format!("HTTP/1.1 429 No\r\n{header}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    };
    for header in ["retry-after: 60", "retry-after-ms: 60000", "retry-after: Fri, 01 Jan 2100 00:00:00 GMT"] {
        let (providers, requests) = rude(limited(header), "circuit_opens_after = 1").await;
        assert_eq!(ask(&providers, "j").await.verdict, Verdict::CouldNotTell(Doubt::RateLimited));
        match providers.ask(&question("acme", "k", "m", 1)).await {
            Asked::NotAsked { retry_in } => {
                assert!(
                    retry_in > Duration::from_secs(50) && retry_in <= Duration::from_mins(15),
                    "{header}"
                );
            }
            Asked::Answered(evidence) => panic!("{header}: asked all the same: {evidence:?}"),
        }
        assert!(providers.circuit_open("acme"));
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{header}");
    }
    let (providers, requests) = rude(limited("retry-after-ms: 20"), "retries = 1").await;
    let began = Instant::now();
    assert_eq!(ask(&providers, "j").await.verdict, Verdict::CouldNotTell(Doubt::RateLimited));
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!(!providers.circuit_open("acme"));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn too_often_said_inside_a_good_answer_is_tried_again_too() {
    let scripted = Scripted::start(|_| (200, serde_json::json!({"code": 1002}))).await;
    let providers = acme(
        "[provider]\nname = \"acme\"\noutput_hosts = []\nretries = 1\n[ask]\nrequest = \"GET http://HOST/{job}\"\n\
         read = 'if .body.code == 1002 then {verdict: \"rate_limited\"} else {verdict: \"unreadable\"} end'",
        &scripted,
    );
    assert_eq!(ask(&providers, "j").await.verdict, Verdict::CouldNotTell(Doubt::RateLimited));
    assert_eq!(scripted.arrived().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_large_answer_is_read_beside_the_other_tasks() {
    // The only worker reads a large answer while a small one is asked for: both come back.
    let large = Value::from("x".repeat(1_000_000));
    let scripted = Scripted::start(move |request| {
        (200, if request.line.contains("large") { large.clone() } else { Value::Null })
    })
    .await;
    let providers = acme(
        "[provider]\nname = \"acme\"\noutput_hosts = []\n[ask]\nrequest = \"GET http://HOST/{job}\"\n\
         read = '{verdict: \"running\"}'",
        &scripted,
    );
    let (large, small) = futures_util::future::join(ask(&providers, "large"), ask(&providers, "small")).await;
    assert_eq!((large.verdict, small.verdict), (Verdict::Running, Verdict::Running));
}
