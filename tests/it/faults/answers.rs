//! Answers of the provider that do not follow from the job alone: it takes long, is down, or
//! contradicts itself.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use makegood::demo::simulator::Canned;
use serde_json::{Value as Json, json};

use super::platform::{Made, OFFLINE};
use crate::real_input::seed::file_url;

/// How a provider contradicts itself about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Failed; succeeded; failed; …
    FailedOrNot,
    /// Succeeded, but the file cannot be had; unknown; succeeded; unknown; …
    ThereOrUnknown,
    /// Succeeded, but the file cannot be had; another file; the one of before; …
    AnotherFile,
}

/// The answer.
#[derive(Debug)]
pub struct Answers {
    /// Where the provider is.
    base: String,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// By job.
    providers: HashMap<String, &'static str>,
    lies: HashMap<String, Lie>,
    running: HashSet<String>,
    /// How often jobs were asked about that are lied about.
    asked: HashMap<String, u64>,
    away: Option<&'static str>,
    unanswered: u64,
    contradictions: u64,
}

impl Answers {
    /// Of the provider at this address.
    pub fn of(base: String) -> Self {
        Self { base, inside: Mutex::default() }
    }

    /// From now on the provider answers about this charge's jobs.
    pub fn know(&self, made: &Made) {
        if made.kind.provider() == OFFLINE {
            return;
        }
        let mut inside = self.inside.lock().unwrap();
        for job in &made.jobs {
            inside.providers.insert(job.clone(), made.kind.provider());
            if let Some(lie) = made.lie {
                inside.lies.insert(job.clone(), lie);
            }
        }
        inside.running.extend(made.slow.iter().map(|(job, _)| job.clone()));
    }

    /// A job that took long is finished.
    pub fn finished(&self, job: &str) {
        self.inside.lock().unwrap().running.remove(job);
    }

    /// Who is away from now on.
    pub fn away(&self, provider: Option<&'static str>) {
        self.inside.lock().unwrap().away = provider;
    }

    /// The number of questions without an answer, and of answers that contradicted the one before.
    pub fn struck(&self) -> (u64, u64) {
        let inside = self.inside.lock().unwrap();
        (inside.unanswered, inside.contradictions)
    }

    /// The answer about a job this time; none: as the plan has it.
    pub fn next(&self, job: &str) -> Option<Canned> {
        let mut inside = self.inside.lock().unwrap();
        if inside.away.is_some() && inside.providers.get(job).copied() == inside.away {
            inside.unanswered += 1;
            return Some(Canned::json(503, &json!({"detail": "away"})));
        }
        if inside.running.contains(job) {
            return Some(answer(job, "processing", &Json::Null));
        }
        let lie = *inside.lies.get(job)?;
        let asked = inside.asked.entry(job.to_owned()).or_default();
        let (first, odd) = (*asked == 0, *asked % 2 == 1);
        *asked += 1;
        inside.contradictions += u64::from(!first);
        let file = |nth| json!(file_url(&self.base, "replicate", job, nth));
        // A link of another job, whose file is never available.
        let nowhere = json!(file_url(&self.base, "replicate", &format!("file-down-{job}"), 0));
        Some(match (lie, first, odd) {
            (Lie::FailedOrNot, _, true) | (Lie::ThereOrUnknown, false, false) => {
                answer(job, "succeeded", &file(0))
            }
            (Lie::FailedOrNot, _, false) => answer(job, "failed", &Json::Null),
            (Lie::ThereOrUnknown | Lie::AnotherFile, true, _) => answer(job, "succeeded", &nowhere),
            (Lie::ThereOrUnknown, false, true) => {
                Canned::json(404, &json!({"detail": "not found", "status": 404}))
            }
            (Lie::AnotherFile, false, _) => answer(job, "succeeded", &file(i64::from(odd))),
        })
    }
}

/// In Replicate's format.
fn answer(job: &str, status: &str, output: &Json) -> Canned {
    let error = if status == "failed" { json!("CUDA out of memory") } else { Json::Null };
    let said = json!({"id": job, "model": "simulated", "status": status, "output": output, "error": error});
    Canned::json(200, &said)
}
