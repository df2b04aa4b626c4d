//! From bytes to evidence, for every shipped provider: what must hold for every answer.
//!
//! Shared by the short round (`cargo test`), the long one (`cargo fuzz run answers`) and the
//! measurements. An input is two bytes and a body: the first byte chooses the HTTP status, the
//! second the step, the number of items, the headers and the model, so that every input is an
//! answer.

use std::path::Path;
use std::sync::LazyLock;

use makegood::clock::Clock;
use makegood::evidence::{Evidence, Verdict};
use makegood::provider::{HttpAnswer, Providers, Question, Reading};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

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

/// The status's index, the flags, and the body.
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

/// Some providers have several endpoints, chosen by the model.
const MODELS: [&str; 4] =
    ["text2video/v2/pro", "generations/hailuo-03/workflow", "lip-sync/hailuo-02", "expand/translate/t2v-01"];

pub fn question(provider: &str, items: usize, model: usize) -> Question {
    let job_id = match provider {
        "veo-vertex" => "projects/p/locations/us-central1/publishers/google/models/m/operations/o",
        "veo-gemini" => "models/m/operations/o",
        _ => "job-1",
    };
    Question {
        provider: provider.to_owned(),
        job_id: job_id.to_owned(),
        model: MODELS[model % MODELS.len()].to_owned(),
        items,
        urgent: false,
    }
}

pub fn try_one(provider: &str, (status, flags): (u8, u8), body: &[u8]) -> Reading {
    let step = usize::from(flags & 1) + 1;
    let items = usize::from(flags >> 1 & 7);
    let received = HttpAnswer::new(
        STATUSES[usize::from(status) % STATUSES.len()],
        headers(flags >> 4 & 3),
        body.to_vec().into(),
    );
    let question = question(provider, items, usize::from(flags >> 6));
    let reading = PROVIDERS.read(&question, step, &received).expect("it is a known provider");
    match &reading {
        Reading::AskNext(request) => assert!(request.to_string().contains("://"), "{provider}: {request}"),
        Reading::Judged(evidence) => holds(provider, &received, evidence),
    }
    reading
}

/// Headers that some filters read.
fn headers(choice: u8) -> HeaderMap {
    let pairs = match choice {
        1 => [("x-fal-request-id", "r-1"), ("content-type", "video/mp4")],
        2 => [("x-fal-error-type", "request_timeout"), ("finish-reason", "CONTENT_FILTERED")],
        _ => return HeaderMap::new(),
    };
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect()
}

/// The invariants of evidence.
fn holds(provider: &str, received: &HttpAnswer, evidence: &Evidence) {
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
        // A successful answer that is no JSON, and whose header does not say JSON, states no
        // failure.
        Verdict::Failed | Verdict::Cancelled | Verdict::UnknownJob => assert!(
            received.status != 200
                || !received.headers.is_empty()
                || serde_json::from_slice::<serde_json::Value>(&received.body).is_ok(),
            "{}",
            told()
        ),
        Verdict::Queued | Verdict::Running | Verdict::Succeeded | Verdict::CouldNotTell(_) => {}
    }
    // 401 is about our key, whatever the body says.
    if received.status == 401 {
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

/// The inputs of the corpus.
pub fn corpus(dir: &Path) -> Vec<Vec<u8>> {
    // No folder: the corpus is empty.
    let mut files = if dir.exists() { list(dir) } else { Vec::new() };
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file of the corpus can be read")).collect()
}

fn list(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.expect("a folder can be listed").path()).collect()
}
