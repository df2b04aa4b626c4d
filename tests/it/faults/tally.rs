//! Counts what happened in one round or in many: faults that took effect, not those that were
//! planned.

use std::fmt;

macro_rules! tally {
    ($($(#[$why:meta])* $name:ident),+ $(,)?) => {
        /// The figures.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Tally {
            $($(#[$why])* pub $name: u64,)+
        }

        impl Tally {
            /// Both together.
            pub const fn plus(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)+ }
            }

            fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

tally! {
    charges,
    runs,
    /// Passes that ended with code 1.
    failed,
    /// Runs in which a person makes one item good by hand.
    by_hand,
    /// Of these, those that ended with code 0: done, or done already.
    by_hand_done,
    kills,
    /// Kills of a worker with a transaction open.
    kills_in_transactions,
    /// Kills of a worker that had claimed something and had no transaction open.
    kills_with_leases,
    /// All other kills.
    kills_idle,
    /// Commits that happened, and whose answer the worker never got.
    commits_unheard,
    /// Other messages that were carried out, and whose answer the worker never got.
    others_unheard,
    cuts,
    pauses,
    /// Orphans that another pass took over from a worker that was paused.
    takeovers,
    /// Runs that found out that a lease of theirs had run out.
    lost_leases,
    restarts,
    /// Restarts without an orderly end.
    crashes,
    /// Restarts with a message of a worker on its way into them.
    met_on_its_way,
    /// Of these, those at which the message was a COMMIT.
    met_at_commit,
    leaps,
    /// Actions of the platform on a worker's items, while the worker was held up.
    crossed,
    /// Balances that the platform held for longer than a settle waits for them.
    holds,
    /// Runs that postponed something for it, or for another lock.
    postponed,
    /// Failovers to another clock.
    failovers,
    slowed,
    /// Copies that failed because the worker could write no more.
    disk_full,
    /// Copies that failed because the directory was not there.
    directory_gone,
    /// Injected error answers of the bucket.
    bucket_refused,
    /// Connections to the bucket that broke before an answer.
    bucket_broke_off,
    /// Questions that a provider which was away did not answer.
    away,
    /// Answers that contradict the one before about the same job.
    contradictions,
    /// Actions of the platform on an item that makegood might have made good.
    deeds,
    unavoidable_races,
    refunds,
    recoveries,
    /// Objects in the storage that no row names.
    unnamed,
}

impl Tally {
    /// Faults that took effect less than `least` times. Otherwise a harness that injects too few
    /// would not be noticed.
    pub fn lacks(&self, least: u64) -> Vec<&'static str> {
        // Unavoidable races of the platform's; and results that must not occur.
        let by_chance = ["unavoidable_races", "unnamed"];
        self.figures()
            .filter(|(name, many)| *many < least && !by_chance.contains(name))
            .map(|(name, _)| name)
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (name, many)) in self.figures().enumerate() {
            write!(f, "{}{} {many}", if nth == 0 { "" } else { ", " }, name.replace('_', " "))?;
        }
        Ok(())
    }
}

#[test]
fn a_fault_that_never_took_effect_is_reported() {
    let mut tally = Tally::default();
    assert!(tally.lacks(1).contains(&"slowed"));
    tally.slowed = 1;
    assert!(!tally.plus(tally).lacks(2).contains(&"slowed") && tally.lacks(2).contains(&"slowed"));
}
