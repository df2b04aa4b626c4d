//! Counts what happened in worlds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use makegood::pass::Ended;
use makegood::policy::{Action, Decision, Reason};

#[derive(Debug, Default)]
pub struct Tally {
    pub worlds: u64,
    pub charges: u64,
    pub items: u64,
    /// Passes, each worker's its own.
    pub passes: u64,
    pub died: u64,
    pub deeds: u64,
    /// Worlds in which makegood was stopped by a brake for a while.
    pub braked: u64,
    /// Worlds by kind of fault.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Items by how they were made good.
    pub ends: BTreeMap<String, u64>,
    /// The results of operators.
    pub by_hand: BTreeMap<&'static str, u64>,
}

/// How an operator's errand ended, in words.
pub const fn by_hand(ended: &Ended) -> &'static str {
    match ended {
        Ended::Done(Decision { action: Action::Refund, reason: Reason::ByHand, .. }) => {
            "refunded against the table"
        }
        Ended::Done(Decision { action: Action::Refund, .. }) => "refunded",
        Ended::Done(Decision { action: Action::Recover(_), .. }) => "brought an output home",
        Ended::Done(_) => "put an output back",
        Ended::Held(_) => "were held by the brake",
        Ended::Refused { .. } => "were refused by the table",
        Ended::Resolved => "came too late",
        Ended::Busy => "found a pass at it",
        Ended::CostNothing => "met an item that cost nothing",
        Ended::Restored(_) => "inserted a row again",
        Ended::NotRestored(_) => "could not insert a row again",
        Ended::NotCopied(_) => "could not bring it home",
        Ended::NotWritten(_) | Ended::Unreadable(_) => "met a row that nobody can read or write",
    }
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.charges += other.charges;
        self.items += other.items;
        self.passes += other.passes;
        self.died += other.died;
        self.deeds += other.deeds;
        self.braked += other.braked;
        for (kind, worlds) in other.kinds {
            *self.kinds.entry(kind).or_default() += worlds;
        }
        for (end, items) in other.ends {
            *self.ends.entry(end).or_default() += items;
        }
        for (end, many) in other.by_hand {
            *self.by_hand.entry(end).or_default() += many;
        }
    }

    /// The progress in one line.
    pub fn line(&self, elapsed: Duration) -> String {
        format!(
            "{} worlds, {} charges, {} items, {} passes, {} workers died, {:.1} s",
            self.worlds,
            self.charges,
            self.items,
            self.passes,
            self.died,
            elapsed.as_secs_f64()
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worlds with")?;
        for (kind, worlds) in &self.kinds {
            writeln!(f, "{worlds:>8}  {kind}")?;
        }
        writeln!(f, "{:>8}  something held by a brake", self.braked)?;
        writeln!(f, "items that ended as")?;
        for (end, items) in &self.ends {
            writeln!(f, "{items:>8}  {end}")?;
        }
        writeln!(f, "operators who")?;
        for (end, many) in &self.by_hand {
            writeln!(f, "{many:>8}  {end}")?;
        }
        write!(f, "{:>8}  deeds of the platform", self.deeds)
    }
}
