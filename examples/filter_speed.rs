//! How long the shipped filters take for one answer: `cargo run --release --example filter_speed`.
//!
//! Reads every example answer again and again, as a pass would (JSON parsed, filter run, result
//! checked, excerpt cleaned), and prints for each provider its slowest answer; then answers that
//! are larger than any example. One thread, no network. Figures are the fastest of many short
//! rounds, so that other load counts little.

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use makegood::clock::Clock;
use makegood::provider::{HttpAnswer, Providers, Question};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// How often each answer is read in a round, and how many rounds there are.
const READS: u32 = 5;
const ROUNDS: usize = 100;

/// An answer to be read.
struct Answer {
    name: String,
    question: Question,
    step: usize,
    received: HttpAnswer,
}

fn main() -> Result<(), Box<dyn Error>> {
    let providers = Providers::load(None, Clock::default())?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/provider-examples");
    let mut slowest: BTreeMap<String, (Duration, String)> = BTreeMap::new();
    let mut count = 0;
    for folder in std::fs::read_dir(&root)? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&folder)? {
            let answer = example(&file?.path())?;
            let took = measure(&providers, &answer, READS, ROUNDS)?;
            count += 1;
            let provider = answer.question.provider.clone();
            let entry = slowest.entry(provider).or_default();
            *entry = std::mem::take(entry).max((took, answer.name));
        }
    }
    println!("{count} example answers, the slowest of each provider:");
    for (provider, (took, name)) in &slowest {
        println!("{:>10.1} us  {provider:<20} {name}", micros(*took));
    }
    if let Some((took, name)) = slowest.values().max() {
        println!("slowest: {:.1} us ({name})", micros(*took));
    }
    println!("larger ones:");
    for answer in large() {
        let took = measure(&providers, &answer, 1, 10)?;
        println!("{:>10.1} us  {}, {} bytes", micros(took), answer.name, answer.received.body.len());
    }
    Ok(())
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// The time for one reading, in the fastest round.
fn measure(
    providers: &Providers,
    answer: &Answer,
    reads: u32,
    rounds: usize,
) -> Result<Duration, Box<dyn Error>> {
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let began = Instant::now();
        for _ in 0..reads {
            black_box(providers.read(black_box(&answer.question), answer.step, &answer.received)?);
        }
        best = best.min(began.elapsed() / reads);
    }
    Ok(best)
}

/// An example, as the answer to a question of its provider.
fn example(path: &Path) -> Result<Answer, Box<dyn Error>> {
    let example: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let provider = part(path.parent().and_then(Path::file_name));
    let asked = example["request"]["path"].as_str().unwrap_or_default();
    let last = asked.rsplit(['/', '=']).next().unwrap_or_default();
    let (job, model) = match provider.as_str() {
        "veo-vertex" => (example["request"]["body"]["operationName"].as_str().unwrap_or_default(), "veo-3"),
        "veo-gemini" => (asked.trim_start_matches("/v1beta/"), "veo-3"),
        "runway" if asked.contains("workflow") => (last, "workflow"),
        "kling" => (last, "kling/text2video"),
        "minimax" => (last, "MiniMax-Hailuo-02"),
        _ => (last, "fal-ai/flux"),
    };
    let further = provider == "fal" && !asked.ends_with("/status") || asked.contains("/files/retrieve");
    let body = match example["body"]["$base64"].as_str() {
        Some(text) => BASE64_STANDARD.decode(text)?,
        None => serde_json::to_vec(&example["body"])?,
    };
    let mut headers = HeaderMap::new();
    for (name, value) in example["headers"].as_object().into_iter().flatten() {
        let name: reqwest::header::HeaderName = name.parse()?;
        headers.insert(name, value.as_str().unwrap_or_default().parse()?);
    }
    let status = u16::try_from(example["status"].as_u64().unwrap_or_default())?;
    Ok(Answer {
        name: format!("{provider}/{}", part(path.file_name())),
        question: question(&provider, job, model, 1),
        step: if further { 2 } else { 1 },
        received: HttpAnswer::new(status, headers, body.into()),
    })
}

fn question(provider: &str, job: &str, model: &str, items: usize) -> Question {
    Question { provider: provider.into(), job_id: job.into(), model: model.into(), items, urgent: false }
}

/// Answers larger than any example: the most outputs that one answer may name, and a file of 10 MB
/// inside the answer.
fn large() -> Vec<Answer> {
    let urls: Vec<String> = (0..1000).map(|n| format!("https://replicate.delivery/x/{n}.png")).collect();
    let images: Vec<Value> =
        urls.iter().map(|url| json!({"url": url, "width": 1024, "content_type": "image/png"})).collect();
    let file = BASE64_STANDARD.encode(vec![7; 10_000_000]);
    [
        (
            "replicate, 1000 outputs",
            "replicate",
            1,
            json!({"status": "succeeded", "output": urls, "data_removed": false}),
        ),
        ("fal, 1000 outputs", "fal", 2, json!({"images": images})),
        ("stability, a file of 10 MB", "stability", 1, json!({"result": file, "finish_reason": "SUCCESS"})),
    ]
    .map(|(name, provider, step, body)| Answer {
        name: name.to_owned(),
        question: question(provider, "job-1", "fal-ai/flux", 1000),
        step,
        received: HttpAnswer::new(200, HeaderMap::new(), Bytes::from(body.to_string())),
    })
    .into()
}
