//! Fates: what becomes of a simulated job, spelled in its id.
//!
//! `two-of-three-x17` is the job `x17` that brings two files of three. So the simulated provider needs no
//! memory, a world of any size costs nothing, and the same id is always answered alike.

/// What becomes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Done: so many files of so many.
    Files {
        /// That there are.
        offered: usize,
        /// That were ordered.
        ordered: usize,
    },
    /// Done: words instead of a file (Replicate, fal), or a video inside the answer (Veo).
    Inline,
    /// Done, and nothing made.
    Empty,
    /// Ended by an error of the model's server.
    Failed,
    /// Refused for its content.
    Safety,
    /// Waited too long (fal only; Replicate says `aborted`, Veo a deadline).
    QueueTimeout,
    /// Stopped at the provider.
    Cancelled,
    /// Not begun.
    Queued,
    /// Being worked on.
    Running,
    /// Being worked on, with the first file there (Replicate; the others say running).
    Partial,
    /// No such job.
    Unknown,
    /// Done, and its files removed (Replicate; fal has dropped the result, Veo's file answers 410).
    Expired,
    /// Done; the file answers with this status.
    FileStatus(u16),
    /// Done; the file breaks off halfway.
    FileBroken,
    /// The answer is this status.
    Status(u16),
    /// The answer is no JSON.
    Garbage,
    /// The answer is a status word that nobody knows.
    Novel,
    /// No answer ever.
    Hang,
    /// An answer of 50 MB.
    Huge,
    /// An answer of JSON nested 100,000 deep.
    Deep,
}

/// Every fate with its name and what it means. `ok` also takes a number, as in `ok3`.
pub const FATES: [(&str, Fate, &str); 28] = [
    ("ok", Fate::Files { offered: 1, ordered: 1 }, "done, one file; ok2 to ok9: so many"),
    ("two-of-three", Fate::Files { offered: 2, ordered: 3 }, "done, two files of three"),
    ("one-failed", Fate::Files { offered: 3, ordered: 4 }, "done, three files of four"),
    ("inline", Fate::Inline, "done, the output inside the answer"),
    ("empty", Fate::Empty, "done, without any output"),
    ("failed", Fate::Failed, "the model's server broke"),
    ("safety", Fate::Safety, "refused for its content"),
    ("queue-timeout", Fate::QueueTimeout, "waited too long (fal; replicate: aborted; veo: deadline)"),
    ("cancelled", Fate::Cancelled, "stopped at the provider"),
    ("queued", Fate::Queued, "waits (veo: runs)"),
    ("running", Fate::Running, "runs"),
    ("partial", Fate::Partial, "runs, the first file is there (replicate)"),
    ("unknown", Fate::Unknown, "no such job"),
    ("expired", Fate::Expired, "done, files removed (fal: the result is gone; veo: the file answers 410)"),
    ("gone", Fate::FileStatus(410), "done, the file answers 410"),
    ("lost", Fate::FileStatus(404), "done, the file answers 404"),
    ("forbidden", Fate::FileStatus(403), "done, the file answers 403"),
    ("file-down", Fate::FileStatus(503), "done, the file answers 503"),
    ("file-broken", Fate::FileBroken, "done, the file breaks off halfway"),
    ("down", Fate::Status(503), "the answer is 503"),
    ("unauthorized", Fate::Status(401), "the answer is 401"),
    ("ratelimited", Fate::Status(429), "the answer is 429, to come again in a minute"),
    ("redirect", Fate::Status(302), "the answer is a redirect"),
    ("garbage", Fate::Garbage, "the answer is no JSON"),
    ("novel", Fate::Novel, "a status word that nobody knows"),
    ("hang", Fate::Hang, "no answer ever"),
    ("huge", Fate::Huge, "an answer of 50 MB"),
    ("deep", Fate::Deep, "an answer nested 100,000 deep"),
];

impl Fate {
    /// Reads the fate out of a job id: the longest name that the id is, or begins with before a `-`.
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

/// The table of fates, for people.
pub fn help() -> String {
    let table: Vec<String> =
        FATES.iter().map(|(name, _, meaning)| format!("  {name:<14} {meaning}\n")).collect();
    let mut text =
        String::from("A job's fate is spelled at the beginning of its id, for instance `ok2-anything`:\n");
    text.push_str(&table.concat());
    text.push_str(
        "Further words of the id: `video` makes the files videos, `size=N` makes them N bytes long.\n\
         Any other id is an unknown job.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_counts_and_only_before_a_dash() {
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
