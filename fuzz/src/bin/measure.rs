//! How long a reading takes: `cargo run --release --no-default-features --bin measure`.
//!
//! Each example by the filter it is an example for, then answers as large as they may be, of hostile shapes, by every
//! filter, with the memory that it took at most.

use std::path::Path;
use std::time::{Duration, Instant};

use makegood::provider::Received;
use reqwest::header::HeaderMap;

#[path = "../../answers.rs"]
#[expect(dead_code, reason = "the other programs need the rest")]
mod answers;

const ROUNDS: u32 = 2000;

fn main() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/provider-examples");
    let mut by_provider: Vec<(Duration, &str, String)> = Vec::new();
    for provider in answers::PROVIDERS.names() {
        let mut slowest: Option<(Duration, String)> = None;
        for (name, input) in
            answers::examples(&data).iter().filter(|(name, _)| name.starts_with(&format!("{provider}-")))
        {
            let (choice, body) = answers::split(input).expect("a seed has a head");
            let began = Instant::now();
            for _ in 0..ROUNDS {
                answers::try_one(provider, choice, body);
            }
            let each = began.elapsed() / ROUNDS;
            if slowest.as_ref().is_none_or(|(slow, _)| each > *slow) {
                slowest = Some((each, name.clone()));
            }
        }
        if let Some((each, name)) = slowest {
            by_provider.push((each, provider, name));
        }
    }
    by_provider.sort();
    println!("Slowest example of each provider, mean of {ROUNDS} readings:");
    for (each, provider, name) in by_provider {
        println!("{:>8.1} us  {provider:<18} {name}", each.as_secs_f64() * 1e6);
    }

    println!("\nAnswers as large as they may be, slowest provider of each shape:");
    const LARGE: usize = 16 << 20;
    let repeated = |open: &str, one: &str, close: &str| {
        let mut text = open.to_owned();
        while text.len() + one.len() + close.len() < LARGE {
            text.push_str(one);
        }
        text.truncate(text.len() - usize::from(text.ends_with(',')));
        text + close
    };
    for (shape, body) in [
        ("a list of lists", repeated("[", "[],", "]")),
        ("a list of numbers", repeated("{\"status\":\"succeeded\",\"output\":[", "1,", "]}")),
        ("a list of URLs", repeated("{\"status\":\"succeeded\",\"output\":[", "\"https://h/x\",", "]}")),
        ("a long word", repeated("{\"status\":\"failed\",\"output\":null,\"error\":\"", "nsf", "\"}")),
        ("a long list of images", repeated("{\"images\":[", "{\"url\":\"https://h/x\"},", "]}")),
        ("many keys", {
            let keys: String = (0..LARGE / 16).map(|n| format!("\"k{n:09}\":1,")).collect();
            format!("{{\"status\":\"failed\",{}\"z\":1}}", keys)
        }),
        ("no JSON", "x".repeat(LARGE)),
    ] {
        let mut slowest = (Duration::ZERO, "");
        for provider in answers::PROVIDERS.names() {
            for step in [1, 2] {
                let received = Received {
                    status: 200,
                    headers: HeaderMap::new(),
                    body: body.clone().into(),
                };
                let began = Instant::now();
                let reading = answers::PROVIDERS.read(&answers::question(provider, 1, 0), step, &received);
                let took = began.elapsed();
                drop(reading);
                slowest = slowest.max((took, provider));
            }
        }
        println!("{:>8.2} s   {shape:<22} {} ({} peak so far)", slowest.0.as_secs_f64(), slowest.1, peak());
    }
}

/// The most memory that this process has used, as Linux tells it.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}
