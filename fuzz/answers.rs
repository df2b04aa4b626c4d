//! From bytes to evidence, for every shipped provider: what must hold whatever a provider sends.
//!
//! Shared by the short round (`cargo test`), the long one (`cargo fuzz run answers`) and the measurements.
//! An input is two bytes and a body: the first byte chooses the HTTP status, the second the step, the number of
//! items and the headers, so that every input, however it was made, is some answer.

use std::path::Path;
use std::sync::LazyLock;

use makegood::clock::Clock;
use makegood::evidence::{Evidence, Verdict};
use makegood::provider::{Providers, Question, Reading, Received};

const STATUSES: [u16; 16] = [200, 202, 204, 301, 400, 401, 403, 404, 410, 418, 422, 425, 429, 500, 503, 599];

pub static PROVIDERS: LazyLock<Providers> =
    LazyLock::new(|| Providers::load(None, Clock::default()).expect("the shipped files are right"));

/// Reads an input as every provider's answer.
pub fn try_all(input: &[u8]) {
    let Some((choice, body)) = split(input) else { return };
    for name in PROVIDERS.names() {
        try_one(name, choice, body);
    }
}

/// The status's place and the flags, and the body.
pub fn split(input: &[u8]) -> Option<((u8, u8), &[u8])> {
    match input {
        [status, flags, body @ ..] => Some(((*status, *flags), body)),
        _ => None,
    }
}

/// An input made of an answer.
pub fn input(status: u16, step: usize, body: &[u8]) -> Vec<u8> {
    let status = STATUSES.iter().position(|known| *known == status).unwrap_or(0);
    let flags = u8::from(step > 1) | 1 << 1;
    [&[u8::try_from(status).unwrap_or(0), flags], body].concat()
}

pub fn question(provider: &str, items: usize) -> Question {
    Question {
        provider: provider.to_owned(),
        job_id: "projects/p/locations/us-central1/publishers/google/models/veo/operations/job-1".to_owned(),
        model: "text2video/v2/pro".to_owned(),
        items,
        urgent: false,
    }
}

pub fn try_one(provider: &str, (status, flags): (u8, u8), body: &[u8]) {
    let step = usize::from(flags & 1) + 1;
    let items = usize::from(flags >> 1 & 7);
    let mut received = Received {
        status: STATUSES[usize::from(status) % STATUSES.len()],
        headers: makegood_headers(flags),
        body: body.to_vec().into(),
    };
    if body.is_empty() {
        received.headers.clear();
    }
    let reading =
        PROVIDERS.read(&question(provider, items), step, &received).expect("it is a known provider");
    match reading {
        Reading::AskNext(request) => assert!(request.to_string().contains("://"), "{provider}: {request}"),
        Reading::Judged(evidence) => holds(provider, &received, &evidence),
    }
}

fn makegood_headers(flags: u8) -> reqwest::header::HeaderMap {
    let pairs: &[(&'static str, &'static str)] = match flags >> 4 & 3 {
        1 => &[("x-fal-request-id", "r-1"), ("content-type", "video/mp4")],
        2 => &[("x-fal-error-type", "request_timeout"), ("finish-reason", "CONTENT_FILTERED")],
        _ => &[],
    };
    let header = |(name, value): &(&'static str, &'static str)| {
        (reqwest::header::HeaderName::from_static(name), reqwest::header::HeaderValue::from_static(value))
    };
    pairs.iter().map(header).collect()
}

/// What is true of evidence, whatever it was made of.
fn holds(provider: &str, received: &Received, evidence: &Evidence) {
    let told = || format!("{provider} {} {evidence:?}", received.status);
    assert!(evidence.outputs.len() <= 1000, "{}", told());
    assert!(evidence.message.as_ref().is_none_or(|message| message.len() <= 510), "{}", told());
    assert!(evidence.code.as_ref().is_none_or(|code| code.len() <= 510), "{}", told());
    let excerpt = evidence.answer.excerpt.as_deref().unwrap_or_default();
    assert!(excerpt.len() <= 4200 && !excerpt.contains('\0'), "{}", told());
    assert_eq!(evidence.answer.status, Some(received.status), "{}", told());
    let mut indices: Vec<i64> = evidence.outputs.iter().filter_map(|offer| offer.index).collect();
    indices.sort_unstable();
    assert!(indices.windows(2).all(|pair| pair[0] != pair[1]), "{}", told());
    assert!(indices.first().is_none_or(|first| *first >= 0), "{}", told());
    match evidence.verdict {
        // A good answer that is no JSON at all says nothing about how a job ended badly.
        Verdict::Failed | Verdict::Cancelled | Verdict::UnknownJob => assert!(
            received.status != 200 || serde_json::from_slice::<serde_json::Value>(&received.body).is_ok(),
            "{}",
            told()
        ),
        Verdict::Queued | Verdict::Running | Verdict::Succeeded | Verdict::CouldNotTell(_) => {}
    }
    // 401 and 403 are about us. A provider whose filter sees them may know better, but only from words.
    if matches!(received.status, 401 | 403) && received.body.is_empty() {
        assert!(matches!(evidence.verdict, Verdict::CouldNotTell(_)), "{}", told());
    }
}

/// The examples of all providers as inputs, with a name for each.
pub fn examples(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut dirs: Vec<_> = list(data).into_iter().filter(|path| path.is_dir()).collect();
    dirs.sort();
    for dir in dirs {
        let mut files = list(&dir);
        files.sort();
        for file in files {
            let text = std::fs::read(&file).expect("an example can be read");
            let example: serde_json::Value = serde_json::from_slice(&text).expect("an example is JSON");
            let status =
                example["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
            let body = serde_json::to_vec(&example["body"]).expect("it was JSON before");
            let name = format!(
                "{}-{}",
                dir.file_name().unwrap_or_default().to_string_lossy(),
                file.file_stem().unwrap_or_default().to_string_lossy()
            );
            for step in [1, 2] {
                seeds.push((format!("{name}-{step}"), input(status, step, &body)));
            }
        }
    }
    seeds
}

/// The inputs that were worth keeping.
pub fn corpus(dir: &Path) -> Vec<Vec<u8>> {
    let mut files = list(dir);
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file of the corpus can be read")).collect()
}

fn list(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.expect("a folder can be listed").path()).collect()
}
