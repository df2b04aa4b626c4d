//! Fates: the result of a simulated job, encoded in its id.
//!
//! `two-of-three-x17` is a job that returns two files of three. So the simulated provider needs no
//! state for any number of jobs, and the same id always gets the same answer.

/// The result of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Succeeded with some or all of its files.
    Files {
        /// The number of files offered.
        offered: usize,
        /// The number of files ordered.
        ordered: usize,
    },
    /// Succeeded with text in the answer (Replicate, fal), or with a video in the answer (Veo).
    Inline,
    /// Succeeded without any output.
    Empty,
    /// Failed with an error of the model's server.
    Failed,
    /// Refused for its content.
    Safety,
    /// Timed out in the queue (fal; Replicate answers `aborted`, Veo a deadline).
    QueueTimeout,
    /// Cancelled at the provider.
    Cancelled,
    /// Queued.
    Queued,
    /// Running.
    Running,
    /// Running, with the first file available (Replicate; the others answer as for running).
    Partial,
    /// The provider does not know the job.
    Unknown,
    /// Succeeded, and its files were removed (fal has no result any more, Veo's file answers 410).
    Expired,
    /// Succeeded; the file's URL answers with this status.
    FileStatus(u16),
    /// Succeeded; the file breaks off halfway.
    FileBroken,
    /// The question is answered with this status.
    Status(u16),
    /// The answer is not JSON.
    Garbage,
    /// The answer has an unknown status word.
    Novel,
    /// The question is never answered.
    Hang,
    /// An answer of 50 MB.
    Huge,
    /// An answer of JSON nested 100,000 deep.
    Deep,
}

/// All fates with their names and meanings. `ok` may be followed by a number, as in `ok3`.
pub const FATES: [(&str, Fate, &str); 28] = [
    ("ok", Fate::Files { offered: 1, ordered: 1 }, "succeeded with one file; ok2 to ok9: with 2 to 9 files"),
    ("two-of-three", Fate::Files { offered: 2, ordered: 3 }, "succeeded with two files of three"),
    ("one-failed", Fate::Files { offered: 3, ordered: 4 }, "succeeded with three files of four"),
    ("inline", Fate::Inline, "succeeded, the output is in the answer"),
    ("empty", Fate::Empty, "succeeded without any output"),
    ("failed", Fate::Failed, "failed: error of the model's server"),
    ("safety", Fate::Safety, "failed: refused for its content"),
    ("queue-timeout", Fate::QueueTimeout, "failed: queue timeout (fal; replicate: aborted; veo: deadline)"),
    ("cancelled", Fate::Cancelled, "cancelled at the provider"),
    ("queued", Fate::Queued, "queued (veo: running)"),
    ("running", Fate::Running, "running"),
    ("partial", Fate::Partial, "running, the first file is available (replicate)"),
    ("unknown", Fate::Unknown, "no such job"),
    ("expired", Fate::Expired, "succeeded, files removed (fal: no result; veo: the file answers 410)"),
    ("gone", Fate::FileStatus(410), "succeeded, the file answers 410"),
    ("lost", Fate::FileStatus(404), "succeeded, the file answers 404"),
    ("forbidden", Fate::FileStatus(403), "succeeded, the file answers 403"),
    ("file-down", Fate::FileStatus(503), "succeeded, the file answers 503"),
    ("file-broken", Fate::FileBroken, "succeeded, the file breaks off halfway"),
    ("down", Fate::Status(503), "the question is answered with 503"),
    ("unauthorized", Fate::Status(401), "the question is answered with 401"),
    ("ratelimited", Fate::Status(429), "the question is answered with 429, retry after a minute"),
    ("redirect", Fate::Status(302), "the question is answered with a redirect"),
    ("garbage", Fate::Garbage, "the answer is not JSON"),
    ("novel", Fate::Novel, "the answer has an unknown status word"),
    ("hang", Fate::Hang, "the question is never answered"),
    ("huge", Fate::Huge, "an answer of 50 MB"),
    ("deep", Fate::Deep, "an answer nested 100,000 deep"),
];

impl Fate {
    /// Reads the fate from a job id: the longest name that equals the id or precedes a `-` at its
    /// beginning.
    pub fn of(job: &str) -> Option<Self> {
        let spelled =
            |name: &str| job.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let named = FATES.iter().filter(|(name, _, _)| spelled(name)).max_by_key(|(name, _, _)| name.len());
        if let Some((_, fate, _)) = named {
            return Some(*fate);
        }
        (2..=9)
            .find(|count| spelled(&format!("ok{count}")))
            .map(|count| Self::Files { offered: count, ordered: count })
    }
}

/// The table of fates, for `--help`.
pub fn help() -> String {
    let table: Vec<String> =
        FATES.iter().map(|(name, _, meaning)| format!("  {name:<14} {meaning}\n")).collect();
    let mut text =
        String::from("The beginning of a job's id determines its result, for instance `ok2-anything`:\n");
    text.push_str(&table.concat());
    text.push_str(
        "Further words in the id: `video` makes the files videos, `size=N` makes them N bytes long.\n\
         Any other id is an unknown job.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_before_a_dash_determines_the_fate() {
        for (job, fate) in [
            ("ok", Some(Fate::Files { offered: 1, ordered: 1 })),
            ("ok-1", Some(Fate::Files { offered: 1, ordered: 1 })),
            ("ok3-1", Some(Fate::Files { offered: 3, ordered: 3 })),
            ("two-of-three-a-b", Some(Fate::Files { offered: 2, ordered: 3 })),
            ("file-broken-1", Some(Fate::FileBroken)),
            ("okay-1", None),
            ("ok0-1", None),
            ("", None),
        ] {
            assert_eq!(Fate::of(job), fate, "{job}");
        }
        for (name, fate, _) in FATES {
            assert_eq!(Fate::of(&format!("{name}-x")), Some(fate));
            assert!(help().contains(name));
        }
    }
}
