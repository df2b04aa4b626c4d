//! What was paid: charges, their items, and what the platform has on record about them.
//!
//! These are the platform's facts, as read through the contract relations. Nothing here decides
//! anything; `facts` puts them together for one orphan and `policy` judges.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The output index that stands for a charge as a whole: one that has no items to speak of.
pub const WHOLE_CHARGE: i64 = -1;

/// The balance that credits were drawn from, and go back to (P03).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// The quota that comes with a subscription. Refunded first.
    Subscription,
    /// Credits that were bought. Refunded second.
    Wallet,
}

impl Bucket {
    /// Both, in the order in which they are refunded.
    pub const ALL: [Self; 2] = [Self::Subscription, Self::Wallet];

    /// As the database, the logs and the metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscription => "subscription",
            Self::Wallet => "wallet",
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Credits per bucket, in the platform's smallest unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Credits of the subscription's quota.
    pub subscription: i64,
    /// Credits of the wallet.
    pub wallet: i64,
}

impl Split {
    /// Both buckets together: more than one number of a bucket can hold.
    pub fn total(self) -> i128 {
        i128::from(self.subscription) + i128::from(self.wallet)
    }

    /// The credits of one bucket.
    pub const fn of(self, bucket: Bucket) -> i64 {
        match bucket {
            Bucket::Subscription => self.subscription,
            Bucket::Wallet => self.wallet,
        }
    }

    /// Bucket by bucket; stops at the ends of the range.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            subscription: self.subscription.saturating_add(other.subscription),
            wallet: self.wallet.saturating_add(other.wallet),
        }
    }

    /// Nothing instead of less than nothing.
    #[must_use]
    pub fn at_least_zero(self) -> Self {
        Self { subscription: self.subscription.max(0), wallet: self.wallet.max(0) }
    }

    /// Adds to one bucket.
    pub const fn add(&mut self, bucket: Bucket, credits: i64) {
        match bucket {
            Bucket::Subscription => {
                self.subscription = self.subscription.saturating_add(credits);
            }
            Bucket::Wallet => self.wallet = self.wallet.saturating_add(credits),
        }
    }
}

/// One expected output of a charge, billed alone (P05). Written `CHARGE/INDEX`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId {
    /// The charge's id, as the platform spells it.
    pub charge_id: String,
    /// Which output of the charge; [`WHOLE_CHARGE`] for a charge without items.
    pub output_index: i64,
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.charge_id, self.output_index)
    }
}

/// A `CHARGE/INDEX` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not CHARGE/INDEX, for instance `ch_123/0`")]
pub struct BadItemId(String);

impl FromStr for ItemId {
    type Err = BadItemId;

    fn from_str(text: &str) -> Result<Self, BadItemId> {
        // The last slash: a platform's charge id may hold slashes of its own.
        let bad = || BadItemId(text.to_owned());
        let (charge_id, index) = text.rsplit_once('/').ok_or_else(bad)?;
        let output_index = index.parse().map_err(|_| bad())?;
        if charge_id.is_empty() {
            return Err(bad());
        }
        Ok(Self { charge_id: charge_id.to_owned(), output_index })
    }
}

/// Which output of which job at which provider: what an item was bought from and what a stored output came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// The provider's name, as its file under `config/providers` spells it.
    pub provider: String,
    /// The provider's id of the job.
    pub job_id: String,
    /// Which of the job's outputs, from 0.
    pub output_index: i64,
}

/// Credits taken from an account for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The platform's id of it.
    pub id: String,
    /// The user or workspace that paid, and gets the credits back (P07).
    pub account_id: String,
    /// The project that its outputs belong to; none where the platform has no projects.
    pub project_id: Option<String>,
    /// The place in the project that its outputs belong to; none where the platform has no places.
    pub node_id: Option<String>,
    /// Who was asked to make the outputs.
    pub provider: String,
    /// What was asked of the provider.
    pub model: String,
    /// When the credits were taken; the 24 hours begin here (P15).
    pub charged_at: Timestamp,
    /// What was taken from which balance.
    pub drawn: Split,
    /// When the user cancelled the run, if so (P11).
    pub cancelled_at: Option<Timestamp>,
}

/// One expected output of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub id: ItemId,
    /// What it cost, in the smallest unit.
    pub credits: i64,
    /// What it was bought from; none if no provider job is on record.
    pub job: Option<JobKey>,
    /// When the platform itself recorded that it failed (P19).
    pub failed_at: Option<Timestamp>,
}

/// An output that the platform has, or had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutput {
    /// The platform's id of it.
    pub id: String,
    /// The item it hangs on, if on any.
    pub item: Option<ItemId>,
    /// The job it came from.
    pub job: JobKey,
    /// The project it lies in, if any.
    pub project_id: Option<String>,
    /// The place in the project it lies at, if any.
    pub node_id: Option<String>,
    /// SHA-256 of the file in lower-case hexadecimal; none where the platform keeps none that could
    /// be compared.
    pub sha256: Option<String>,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When a person moved it, if so: then it stays where it was put (P13).
    pub moved_at: Option<Timestamp>,
    /// When it was deleted, if so: it stays paid (P10).
    pub deleted_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_id_reads_back_as_written_also_with_slashes_in_the_charge() {
        for text in ["ch_1/0", "a/b/12", "x/-1"] {
            assert_eq!(text.parse::<ItemId>().unwrap().to_string(), text);
        }
        for text in ["", "ch_1", "/0", "ch_1/", "ch_1/x", "ch_1/1.5"] {
            assert!(text.parse::<ItemId>().is_err(), "{text:?} was accepted");
        }
    }
}
