//! What happened in worlds, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

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
    /// Worlds by kind of trouble.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Items by how they were made good.
    pub ends: BTreeMap<String, u64>,
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
    }

    /// How far it has come, in one line.
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
        write!(f, "{:>8}  deeds of the platform", self.deeds)
    }
}
