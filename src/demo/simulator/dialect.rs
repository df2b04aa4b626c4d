//! The answers of three providers about a job: status, headers and body in the format of the real
//! ones.
//!
//! The formats are those of `tests/data/provider-examples`, which the shipped filters read.

use base64::Engine;
use bytes::Bytes;
use serde_json::{Value, json};

use super::fate::Fate;

/// An answer of the simulated provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canned {
    /// Its HTTP status.
    pub status: u16,
    /// Its headers, in addition to `content-type: application/json`.
    pub headers: Vec<(String, String)>,
    /// Its body: JSON or not, UTF-8 or not.
    pub body: Bytes,
}

impl Canned {
    /// An answer with any bytes.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, body.to_string())
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A provider and the kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Replicate,
    FalStatus,
    FalResult,
    Veo,
}

/// The answer for a fate. `Hang` and `Huge` are handled by the caller.
pub(super) fn answer(dialect: Dialect, fate: Fate, job: &str, url: impl Fn(usize) -> String) -> Canned {
    match fate {
        Fate::Status(status) => trouble(status),
        Fate::Garbage | Fate::Hang | Fate::Huge => Canned::new(200, "<html>not what you asked for</html>"),
        Fate::Deep => Canned::new(200, format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
        Fate::Files { .. }
        | Fate::Inline
        | Fate::Empty
        | Fate::Failed
        | Fate::Safety
        | Fate::QueueTimeout
        | Fate::Cancelled
        | Fate::Queued
        | Fate::Running
        | Fate::Partial
        | Fate::Unknown
        | Fate::Expired
        | Fate::FileStatus(_)
        | Fate::FileBroken
        | Fate::Novel => match dialect {
            Dialect::Replicate => replicate(fate, job, url),
            Dialect::FalStatus => fal_status(fate, job),
            Dialect::FalResult => fal_result(fate, job, url),
            Dialect::Veo => veo(fate, job, url),
        },
    }
}

fn trouble(status: u16) -> Canned {
    let canned = Canned::json(status, &json!({"detail": format!("simulated {status}")}));
    match status {
        429 | 503 => canned.with("retry-after", "60"),
        302 => canned.with("location", "https://elsewhere.invalid/"),
        _ => canned,
    }
}

/// The number of files that a fate offers.
pub(super) const fn files(fate: Fate) -> usize {
    match fate {
        Fate::Files { offered, .. } => offered,
        Fate::FileStatus(_) | Fate::FileBroken | Fate::Expired | Fate::Partial => 1,
        Fate::Inline
        | Fate::Empty
        | Fate::Failed
        | Fate::Safety
        | Fate::QueueTimeout
        | Fate::Cancelled
        | Fate::Queued
        | Fate::Running
        | Fate::Unknown
        | Fate::Status(_)
        | Fate::Garbage
        | Fate::Novel
        | Fate::Hang
        | Fate::Huge
        | Fate::Deep => 0,
    }
}

fn replicate(fate: Fate, job: &str, url: impl Fn(usize) -> String) -> Canned {
    let urls: Vec<String> = (0..files(fate)).map(url).collect();
    let (status, output, error, removed) = match fate {
        // Models with one file may return it without an array.
        Fate::Files { offered: 1, .. } | Fate::FileStatus(_) | Fate::FileBroken => {
            ("succeeded", json!(urls[0]), Value::Null, false)
        }
        Fate::Files { .. } => ("succeeded", json!(urls), Value::Null, false),
        Fate::Inline => ("succeeded", json!(["Words ", "about ", job]), Value::Null, false),
        Fate::Empty => ("succeeded", json!([]), Value::Null, false),
        Fate::Expired => ("succeeded", Value::Null, Value::Null, true),
        Fate::Failed => ("failed", Value::Null, json!("CUDA out of memory"), false),
        Fate::Safety => ("failed", Value::Null, json!("output was blocked by the safety checker"), false),
        Fate::QueueTimeout => ("aborted", Value::Null, Value::Null, false),
        Fate::Cancelled => ("canceled", Value::Null, Value::Null, false),
        Fate::Queued => ("starting", Value::Null, Value::Null, false),
        Fate::Running => ("processing", Value::Null, Value::Null, false),
        Fate::Partial => ("processing", json!(urls), Value::Null, false),
        Fate::Novel => ("pondering", Value::Null, Value::Null, false),
        Fate::Unknown | Fate::Status(_) | Fate::Garbage | Fate::Hang | Fate::Huge | Fate::Deep => {
            return Canned::json(404, &json!({"detail": "not found", "status": 404}));
        }
    };
    Canned::json(
        200,
        &json!({"id": job, "model": "simulated", "status": status, "output": output, "error": error,
                "data_removed": removed, "logs": "", "source": "api"}),
    )
}

fn fal_status(fate: Fate, job: &str) -> Canned {
    let (http, status) = match fate {
        Fate::Queued => (202, "IN_QUEUE"),
        Fate::Running | Fate::Partial => (202, "IN_PROGRESS"),
        Fate::Novel => (200, "PONDERING"),
        Fate::Unknown => return Canned::json(404, &json!({"detail": "Request not found"})),
        // At fal a failure is visible in the status or only in the result. This one is visible in
        // the status.
        Fate::Failed => {
            return Canned::json(
                200,
                &json!({"status": "COMPLETED", "request_id": job, "logs": [], "metrics": {},
                        "error": "Runner disconnected", "error_type": "runner_disconnected"}),
            );
        }
        Fate::Files { .. }
        | Fate::Inline
        | Fate::Empty
        | Fate::Safety
        | Fate::QueueTimeout
        | Fate::Cancelled
        | Fate::Expired
        | Fate::FileStatus(_)
        | Fate::FileBroken
        | Fate::Status(_)
        | Fate::Garbage
        | Fate::Hang
        | Fate::Huge
        | Fate::Deep => (200, "COMPLETED"),
    };
    Canned::json(http, &json!({"status": status, "request_id": job, "logs": [], "metrics": {}}))
}

fn fal_result(fate: Fate, job: &str, url: impl Fn(usize) -> String) -> Canned {
    let file = |n: usize| {
        let url = url(n);
        let kind = if is_video(&url) { "video/mp4" } else { "image/png" };
        json!({"url": url, "content_type": kind})
    };
    let canned = match fate {
        Fate::Files { .. } | Fate::FileStatus(_) | Fate::FileBroken => {
            let files: Vec<Value> = (0..files(fate)).map(file).collect();
            match files.as_slice() {
                [video] if is_video(job) => Canned::json(200, &json!({"video": video})),
                _ => Canned::json(200, &json!({"images": files, "seed": 41, "prompt": "simulated"})),
            }
        }
        Fate::Inline => Canned::json(200, &json!({"output": format!("Words about {job}")})),
        Fate::Empty => Canned::json(200, &json!({"images": [], "prompt": "simulated"})),
        Fate::Safety => Canned::json(
            422,
            &json!({"detail": [{"loc": ["body", "prompt"], "msg": "input was flagged",
                    "type": "content_policy_violation"}]}),
        ),
        Fate::QueueTimeout => queue_error(504, "startup_timeout", "Request timed out"),
        Fate::Cancelled => queue_error(499, "client_cancelled", "Request was cancelled"),
        Fate::Failed => queue_error(503, "runner_disconnected", "Runner disconnected"),
        Fate::Queued
        | Fate::Running
        | Fate::Partial
        | Fate::Unknown
        | Fate::Expired
        | Fate::Status(_)
        | Fate::Garbage
        | Fate::Novel
        | Fate::Hang
        | Fate::Huge
        | Fate::Deep => Canned::json(404, &json!({"detail": "Not Found"})),
    };
    canned.with("x-fal-request-id", job)
}

fn queue_error(status: u16, kind: &str, detail: &str) -> Canned {
    Canned::json(status, &json!({"detail": detail, "error_type": kind})).with("x-fal-error-type", kind)
}

fn veo(fate: Fate, job: &str, url: impl Fn(usize) -> String) -> Canned {
    let done =
        |response: Value| json!({"name": job, "done": true, "response": {"generateVideoResponse": response}});
    let error = |code: i32, message: &str| json!({"name": job, "done": true, "error": {"code": code, "message": message}});
    let samples = || (0..files(fate)).map(|n| json!({"video": {"uri": url(n)}})).collect::<Vec<_>>();
    let body = match fate {
        Fate::Files { offered, ordered } if offered < ordered => done(json!({
            "generatedSamples": samples(), "raiMediaFilteredCount": ordered - offered,
            "raiMediaFilteredReasons": ["held back by policy"]})),
        Fate::Files { .. } | Fate::FileStatus(_) | Fate::FileBroken | Fate::Expired => {
            done(json!({"generatedSamples": samples()}))
        }
        // The header of an MP4, with the job's id as its content.
        Fate::Inline => {
            let mut video = b"\0\0\0\x18ftypisom\0\0\x02\0isommp42".to_vec();
            video.extend_from_slice(job.as_bytes());
            let encoded = base64::engine::general_purpose::STANDARD.encode(video);
            done(json!({"generatedSamples": [{"video": {"encodedVideo": encoded}}]}))
        }
        Fate::Empty => done(json!({"generatedSamples": []})),
        Fate::Safety => done(
            // The most that can be ordered at once: a smaller count would explain only a part of
            // the missing videos.
            json!({"raiMediaFilteredCount": 4, "raiMediaFilteredReasons": ["prompt held back by policy"]}),
        ),
        Fate::Failed => error(13, "internal error"),
        Fate::QueueTimeout => error(4, "deadline exceeded"),
        Fate::Cancelled => error(1, "the operation was cancelled"),
        Fate::Queued | Fate::Running | Fate::Partial => json!({"name": job}),
        Fate::Novel => json!({"name": job, "done": "almost"}),
        Fate::Unknown | Fate::Status(_) | Fate::Garbage | Fate::Hang | Fate::Huge | Fate::Deep => {
            return Canned::json(
                404,
                &json!({"error": {"code": 404, "message": "Operation not found.", "status": "NOT_FOUND"}}),
            );
        }
    };
    Canned::json(200, &body)
}

/// Whether a path is that of a video file.
pub(super) fn is_mp4(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| ending == "mp4")
}

/// Whether a job or URL is about a video.
pub(super) fn is_video(text: &str) -> bool {
    text.contains("video") || is_mp4(text)
}
