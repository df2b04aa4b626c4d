//! Tests with providers that hang, send data slowly, break connections, or request a wait.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::shapes::{Scripted, acme, ask};
use super::*;

/// Starts a provider that handles each connection with `handle` after it has read the request.
async fn slow_provider<F>(
    handle: impl Fn(TcpStream) -> F + Send + Sync + 'static,
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
            tokio::spawn(handle(stream));
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
async fn a_request_that_times_out_is_not_retried() {
    let (trickling, requests) = slow_provider(trickle, "timeout = \"300ms\"").await;
    let evidence = ask(&trickling, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert_eq!(evidence.message.as_deref(), Some("no complete answer within 300ms"));
    assert_eq!(requests.load(Ordering::SeqCst), 1, "not retried");

    let (hanging, requests) = slow_provider(hang, "timeout = \"1h\"\nread_timeout = \"100ms\"").await;
    let evidence = ask(&hanging, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert!(evidence.message.unwrap().contains("no data for 100ms"));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_broken_connection_is_retried_as_often_as_the_file_says() {
    let (breaking, requests) = slow_provider(|stream| async { drop(stream) }, "retries = 1").await;
    let evidence = ask(&breaking, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert_eq!(requests.load(Ordering::SeqCst), 2);

    // Also if it breaks in the middle of a body.
    let (breaking, requests) = slow_provider(half, "retries = 1").await;
    let evidence = ask(&breaking, "j").await;
    assert_eq!(evidence.verdict, Verdict::CouldNotTell(Doubt::Unreachable));
    assert!(evidence.message.unwrap().starts_with("the connection was interrupted"));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_long_retry_after_opens_the_circuit_and_a_short_one_is_waited_for() {
    let limited = |header: &'static str| {
        move |mut stream: TcpStream| async move {
            let answer =
                format!("HTTP/1.1 429 No\r\n{header}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    };
    for header in ["retry-after: 60", "retry-after-ms: 60000", "retry-after: Fri, 01 Jan 2100 00:00:00 GMT"] {
        let (providers, requests) = slow_provider(limited(header), "circuit_opens_after = 1").await;
        assert_eq!(ask(&providers, "j").await.verdict, Verdict::CouldNotTell(Doubt::RateLimited));
        match providers.ask(&question("acme", "k", "m", 1)).await {
            AskOutcome::NotAsked { retry_in } => {
                assert!(
                    retry_in > Duration::from_secs(50) && retry_in <= Duration::from_mins(15),
                    "{header}"
                );
            }
            AskOutcome::Answered(evidence) => {
                panic!("{header}: asked although the circuit is open: {evidence:?}")
            }
        }
        assert!(providers.is_circuit_open("acme"));
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{header}");
    }
    let (providers, requests) = slow_provider(limited("retry-after-ms: 20"), "retries = 1").await;
    let began = Instant::now();
    assert_eq!(ask(&providers, "j").await.verdict, Verdict::CouldNotTell(Doubt::RateLimited));
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!(!providers.is_circuit_open("acme"));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_rate_limit_error_with_http_200_is_retried() {
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
async fn a_large_answer_does_not_block_other_tasks() {
    // The only worker thread reads a large answer while a small one is requested.
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
