//! What a story is: the promise it is about, what happened, and how its items have to end.

use std::fmt;

use super::world::Charge;
use crate::charge::Split;
use crate::policy::Reason;

/// What a story is about, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chapter {
    /// The provider failed.
    Failed,
    /// It could not be told for a long time.
    Late,
    /// The output exists.
    Found,
    /// Nothing is owed.
    Kept,
    /// Not settled when the demo ends.
    Open,
}

impl Chapter {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Failed, Self::Late, Self::Found, Self::Kept, Self::Open];

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Failed => "It failed: the credits go back",
            Self::Late => "It took too long: the credits go back before the day is over",
            Self::Found => "The output exists: it is brought home, or put back where it belongs",
            Self::Kept => "Nothing is owed: what was delivered stays paid",
            Self::Open => "Not settled yet: still within its day, or waiting for a person",
        }
    }
}

/// How an item ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Never looked into.
    LeftAlone,
    /// Credits given back, and to which balance.
    Refunded(Reason, Split),
    /// The output brought home.
    Recovered,
    /// The output put back where it belongs.
    PutBack,
    /// Nothing owed.
    Closed(Reason),
    /// Kept for a person.
    Held(Reason),
    /// To be looked at again.
    Waiting(Reason),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftAlone => f.write_str("left alone"),
            Self::Refunded(why, split) => write!(
                f,
                "refunded ({why}): {} to the subscription, {} to the wallet",
                split.subscription, split.wallet
            ),
            Self::Recovered => f.write_str("brought home"),
            Self::PutBack => f.write_str("put back"),
            Self::Closed(why) => write!(f, "closed ({why})"),
            Self::Held(why) => write!(f, "held ({why})"),
            Self::Waiting(why) => write!(f, "waiting ({why})"),
        }
    }
}

/// One story.
#[derive(Clone, Debug)]
pub struct Story {
    /// The promise it is about, `P01` to `P24`.
    pub promise: &'static str,
    /// Where it is told.
    pub chapter: Chapter,
    /// What happened, as the customer would tell it.
    pub told: &'static str,
    /// Its charges.
    pub charges: Vec<Charge>,
    /// How the items end that are looked into: charge, index (-1: the charge as a whole), ending.
    pub endings: Vec<(&'static str, i64, Ending)>,
}

impl Story {
    /// A story of one charge.
    pub fn of(promise: &'static str, chapter: Chapter, told: &'static str, charge: Charge) -> Self {
        Self { promise, chapter, told, charges: vec![charge], endings: Vec::new() }
    }

    /// Another charge of it.
    pub fn and(mut self, charge: Charge) -> Self {
        self.charges.push(charge);
        self
    }

    /// How one of its items ends.
    pub fn ends(mut self, charge: &'static str, index: i64, ending: Ending) -> Self {
        self.endings.push((charge, index, ending));
        self
    }
}
