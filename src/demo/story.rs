//! A story: the promise that it shows, what happened, and how its items must end.

use std::fmt;

use super::world::ExampleCharge;
use crate::charge::Split;
use crate::policy::Reason;

/// The chapters, in the order in which they are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chapter {
    /// The generation failed; refunded.
    Failed,
    /// The result stayed unknown; refunded before the window ended.
    Late,
    /// The output exists; recovered or relinked.
    Found,
    /// Nothing is owed; not touched or closed.
    Kept,
    /// Not resolved when the demo ends.
    Open,
}

impl Chapter {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Failed, Self::Late, Self::Found, Self::Kept, Self::Open];

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Failed => "It failed: the credits are refunded",
            Self::Late => "It took too long: the credits are refunded within 24 hours",
            Self::Found => "The output exists: it is recovered, or put back where it belongs",
            Self::Kept => "Nothing is owed: what was delivered stays paid",
            Self::Open => "Not resolved yet: still within 24 hours, or waiting for a person",
        }
    }
}

/// How an item ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Never became an orphan.
    LeftAlone,
    /// Refunded, with the credits for each balance.
    Refunded(Reason, Split),
    /// The output was copied from the provider.
    Recovered,
    /// The stored output was linked to its item again.
    PutBack,
    /// Closed: nothing is owed.
    Closed(Reason),
    /// Held for a person.
    Held(Reason),
    /// Waiting for the next question.
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
            Self::Recovered => f.write_str("recovered"),
            Self::PutBack => f.write_str("put back"),
            Self::Closed(why) => write!(f, "closed ({why})"),
            Self::Held(why) => write!(f, "held ({why})"),
            Self::Waiting(why) => write!(f, "waiting ({why})"),
        }
    }
}

/// One story.
#[derive(Clone, Debug)]
pub struct DemoStory {
    /// The promise that it shows, `P01` to `P24`.
    pub promise: &'static str,
    /// Its chapter.
    pub chapter: Chapter,
    /// What happened, from the customer's point of view.
    pub description: &'static str,
    /// Its charges.
    pub charges: Vec<ExampleCharge>,
    /// The expected endings: charge, index (-1: the charge as a whole), ending. All other items
    /// must be left alone.
    pub endings: Vec<(&'static str, i64, Ending)>,
}

impl DemoStory {
    /// A story of one charge.
    pub fn of(
        promise: &'static str,
        chapter: Chapter,
        description: &'static str,
        charge: ExampleCharge,
    ) -> Self {
        Self { promise, chapter, description, charges: vec![charge], endings: Vec::new() }
    }

    /// Adds a charge.
    pub fn and(mut self, charge: ExampleCharge) -> Self {
        self.charges.push(charge);
        self
    }

    /// Adds the expected ending of an item.
    pub fn ends(mut self, charge: &'static str, index: i64, ending: Ending) -> Self {
        self.endings.push((charge, index, ending));
        self
    }
}
