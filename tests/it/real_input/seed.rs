//! Fills a fresh PostgreSQL with charges of all kinds, set by set, so that fifty thousand take
//! seconds.
//!
//! The expected result of each item is written into the schema `real_input`, which makegood never
//! reads.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::kinds::{Job, Kind, NOTHING, Twist, WELL};

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub charges: usize,
    /// At least this many items become orphans.
    pub orphans: usize,
    /// Of which kinds the troubled charges are.
    pub troubled: &'static [Kind],
}

impl Size {
    /// Whole rounds of all troubled kinds, so that each partner has its partner.
    fn rounds(self) -> usize {
        self.orphans.div_ceil(self.troubled.iter().map(|kind| kind.weight * kind.orphans()).sum())
    }
}

fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn maybe(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), text)
}

/// One row of `real_input.kinds`.
fn kind_row(kind: &Kind, troubled: bool) -> String {
    let (fate, word) = match kind.job {
        Job::None | Job::Each(_) => (None, None),
        Job::One(fate) => (Some(fate), None),
        Job::Shared(fate, word) => (Some(fate), Some(word)),
    };
    let (stored, at, on) = match kind.twist {
        Twist::Stored(count) => (count, "its place", None),
        Twist::Deleted => (1, "deleted", None),
        Twist::Moved => (1, "moved", None),
        Twist::Unlinked => (1, "nothing", None),
        Twist::WrongPlace => (1, "wrong place", None),
        Twist::StoredOn(other) => (1, "another", Some(other)),
        Twist::Plain
        | Twist::Young
        | Twist::Future
        | Twist::Cancelled
        | Twist::Failed
        | Twist::Free
        | Twist::Mismatched
        | Twist::NoItems
        | Twist::NoBalance
        | Twist::RefundedFirst
        | Twist::RefundedWhole => (0, "nowhere", None),
    };
    let twist = match kind.twist {
        Twist::StoredOn(_) => "StoredOn".to_owned(),
        Twist::Stored(_) => "Stored".to_owned(),
        other => format!("{other:?}"),
    };
    format!(
        "({}, {troubled}, {}, {}, {}, {}, {}, {stored}, {}, {})",
        text(kind.name),
        text(kind.provider),
        text(kind.model()),
        maybe(fate),
        maybe(word),
        text(&twist),
        text(at),
        maybe(on)
    )
}

/// Rows of `real_input.kind_items`.
fn item_rows(kind: &Kind) -> Vec<String> {
    let row = |(nth, want): (usize, &&str)| {
        let index = if kind.twist == Twist::NoItems { "-1".to_owned() } else { nth.to_string() };
        let fate = match kind.job {
            Job::Each(fates) => Some(fates[nth]),
            Job::None | Job::One(_) | Job::Shared(..) => None,
        };
        format!("({}, {index}, {}, {})", text(kind.name), maybe(fate), text(want))
    };
    kind.wants.iter().enumerate().map(row).collect()
}

/// One row for each charge of a round: which kind it is of.
fn slot_rows(kinds: &[Kind], troubled: bool) -> Vec<String> {
    let names = kinds.iter().flat_map(|kind| std::iter::repeat_n(kind.name, kind.weight));
    names.enumerate().map(|(nth, name)| format!("({troubled}, {nth}, {})", text(name))).collect()
}

/// The whole world as SQL, to be run once on a migrated database.
pub fn sql(size: Size) -> String {
    let kinds_of_trouble = size.troubled;
    let kinds: Vec<String> = kinds_of_trouble
        .iter()
        .map(|kind| kind_row(kind, true))
        .chain(WELL.iter().map(|kind| kind_row(kind, false)))
        .collect();
    let items: Vec<String> = kinds_of_trouble.iter().chain(WELL).flat_map(item_rows).collect();
    let slots: Vec<String> = [slot_rows(kinds_of_trouble, true), slot_rows(WELL, false)].concat();
    let a_round: usize = kinds_of_trouble.iter().map(|kind| kind.weight).sum();
    let troubled = size.rounds() * a_round;
    assert!(troubled <= size.charges, "{size:?}: {troubled} troubled charges alone");
    include_str!("seed.sql")
        .replace("$kinds", &kinds.join(",\n"))
        .replace("$items", &items.join(",\n"))
        .replace("$slots", &slots.join(",\n"))
        .replace("$a_round", &a_round.to_string())
        .replace("$a_well_round", &WELL.iter().map(|kind| kind.weight).sum::<usize>().to_string())
        .replace("$troubled", &troubled.to_string())
        .replace("$charges", &size.charges.to_string())
        .replace("$nothing", NOTHING)
}

/// Where the simulated provider serves a job's nth file.
pub fn file_url(base: &str, provider: &str, job: &str, nth: i64) -> String {
    let job = job.rsplit('/').next().unwrap_or(job);
    let ending = if provider == "veo-gemini" || job.contains("video") { "mp4" } else { "png" };
    let size = job.split('-').find(|word| word.starts_with("size="));
    let size = size.map_or_else(String::new, |size| format!("?{size}"));
    format!("{base}/files/{}/{nth}.{ending}{size}", utf8_percent_encode(job, NON_ALPHANUMERIC))
}
