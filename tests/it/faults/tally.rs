//! What happened in a round, or in many: not what was planned, but what struck.

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
    /// Runs of a person who makes one item good by hand.
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
    /// Commits that happened, and whose answer the worker never heard.
    commits_unheard,
    /// Other messages that were carried out, and whose answer the worker never heard.
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
    /// Deeds of the platform about what a worker had in hand, while it was held up.
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
    /// Answers of the bucket that it was told to give instead of the right one.
    bucket_refused,
    /// Connections to the bucket that broke before an answer.
    bucket_broke_off,
    /// Questions that a provider which was away did not answer.
    away,
    /// Answers that contradict the one before about the same job.
    contradictions,
    /// What the platform did by itself about an item that makegood might have made good.
    deeds,
    photo_finishes,
    refunds,
    recoveries,
    /// Objects in the storage that no row names.
    unnamed,
}

impl Tally {
    /// What struck less than `least` times: a harness that does less than it says would not be
    /// noticed otherwise.
    pub fn lacks(&self, least: u64) -> Vec<&'static str> {
        // Bad luck of the platform's, which nobody wishes for; and what must not be.
        let by_chance = ["photo_finishes", "unnamed"];
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
fn what_never_struck_is_told() {
    let mut tally = Tally::default();
    assert!(tally.lacks(1).contains(&"slowed"));
    tally.slowed = 1;
    assert!(!tally.plus(tally).lacks(2).contains(&"slowed") && tally.lacks(2).contains(&"slowed"));
}
