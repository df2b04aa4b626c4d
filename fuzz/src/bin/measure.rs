//! The cost of hostile answers:
//! `cargo run --release --no-default-features --bin measure`.
//!
//! Answers of hostile shapes, as large as each provider's file allows, read by its filter:
//! the slowest shape of each, and the most memory that the process has used. Real answers:
//! `cargo run --release --example filter_speed`.

use std::time::{Duration, Instant};

use makegood::provider::HttpAnswer;
use reqwest::header::HeaderMap;

#[path = "../../answers.rs"]
#[expect(dead_code, reason = "the other programs need the rest")]
mod answers;

fn main() {
    for provider in answers::PROVIDERS.iter() {
        let mut slowest = (Duration::ZERO, "", 0);
        for (shape, body) in (0..).map_while(|nth| shape(nth, provider.max_body_bytes)) {
            // One copy in memory, shared by all readings, as a real answer is.
            let body = bytes::Bytes::from(body);
            for (step, status) in [(1, 200), (2, 200), (1, 400)] {
                let received = HttpAnswer::new(status, HeaderMap::new(), body.clone());
                let question = answers::question(&provider.name, 1, 0);
                let began = Instant::now();
                let reading = answers::PROVIDERS.read(&question, step, &received);
                let took = began.elapsed();
                drop(reading);
                slowest = slowest.max((took, shape, step));
            }
        }
        let (took, shape, step) = slowest;
        println!(
            "{:>8.2} s  {:<18} up to {:>3} MiB, slowest: {shape}, step {step} ({} peak so far)",
            took.as_secs_f64(),
            provider.name,
            provider.max_body_bytes >> 20,
            peak()
        );
    }
}

/// Answers of this many bytes, or of as many values as are read; one at a time, as they are large.
fn shape(nth: usize, bytes: usize) -> Option<(&'static str, String)> {
    let repeated = |open: &str, one: &str, close: &str, most: usize| {
        let times = ((bytes - open.len() - close.len()) / one.len()).min(most);
        let mut text = open.to_owned() + &one.repeat(times);
        text.truncate(text.len() - usize::from(text.ends_with(',')));
        text + close
    };
    let all = usize::MAX;
    let image = "{\"url\":\"https://h/x\"},";
    let keys = || (0..9_900).map(|n| format!("\"k{n:09}\":1,")).collect::<String>();
    Some(match nth {
        0 => ("a list of lists", repeated("[", "[],", "]", all)),
        1 => ("9,900 lists", repeated("[", "[],", "]", 9_900)),
        2 => ("19,900 numbers", repeated("{\"status\":\"succeeded\",\"output\":[", "1,", "]}", 19_900)),
        3 => (
            "19,900 URLs",
            repeated("{\"status\":\"succeeded\",\"output\":[", "\"https://h/x\",", "]}", 19_900),
        ),
        4 => ("4,900 images", repeated("{\"status\":\"succeeded\",\"images\":[", image, "]}", 4_900)),
        5 => ("4,900 data", repeated("{\"code\":0,\"data\":[", image, "]}", 4_900)),
        6 => ("9,900 keys", format!("{{\"status\":\"failed\",{}\"z\":1}}", keys())),
        7 => (
            "a long word",
            repeated("{\"status\":\"failed\",\"output\":null,\"error\":\"", "nsf", "\"}", all),
        ),
        8 => (
            "a long message",
            repeated("{\"status\":\"failed\",\"error\":{\"message\":\"", "saf", "\"}}", all),
        ),
        9 => ("a long detail", repeated("{\"detail\":\"", "not ", "\"}", all)),
        10 => (
            "a long file",
            repeated("{\"status\":\"succeeded\",\"output\":\"data:image/png;base64,", "AAAA", "\"}", all),
        ),
        11 => ("no JSON", "x".repeat(bytes)),
        _ => return None,
    })
}

/// The most memory that this process has used, according to Linux.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}
