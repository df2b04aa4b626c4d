//! Charges and their items, and the outputs that the platform has stored.
//!
//! These types hold the platform's rows as read through the contract relations. Nothing here
//! decides anything: `facts` joins the rows of one orphan, and `policy` decides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The output index of a charge as a whole: a charge without items.
pub const WHOLE_CHARGE: i64 = -1;

/// The balance that credits were drawn from and are refunded to. P03 (back to the balances that
/// paid).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// The quota of a subscription. Refunded first.
    Subscription,
    /// Credits that were bought. Refunded second.
    Wallet,
}

impl Bucket {
    /// Both buckets, in the order in which they are refunded.
    pub const ALL: [Self; 2] = [Self::Subscription, Self::Wallet];

    /// The word in the database, logs and metrics.
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

/// Credits of each bucket, in the platform's smallest unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Credits of the subscription's quota.
    pub subscription: i64,
    /// Credits of the wallet.
    pub wallet: i64,
}

impl Split {
    /// The sum of both buckets. It may exceed the range of one bucket.
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

    /// Adds bucket by bucket; saturates at the ends of the range.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            subscription: self.subscription.saturating_add(other.subscription),
            wallet: self.wallet.saturating_add(other.wallet),
        }
    }

    /// Replaces a negative number by zero in each bucket.
    #[must_use]
    pub fn at_least_zero(self) -> Self {
        Self { subscription: self.subscription.max(0), wallet: self.wallet.max(0) }
    }

    /// Adds to one bucket; saturates at the ends of the range.
    pub const fn add(&mut self, bucket: Bucket, credits: i64) {
        match bucket {
            Bucket::Subscription => {
                self.subscription = self.subscription.saturating_add(credits);
            }
            Bucket::Wallet => self.wallet = self.wallet.saturating_add(credits),
        }
    }
}

/// One expected output of a charge, written `CHARGE/INDEX`. P05 (billed and refunded alone).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId {
    /// The charge's id at the platform.
    pub charge_id: String,
    /// The index of the output in the charge; [`WHOLE_CHARGE`] for a charge without items.
    pub output_index: i64,
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.charge_id, self.output_index)
    }
}

/// A text that is not a `CHARGE/INDEX`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not CHARGE/INDEX, for instance `ch_123/0`")]
pub struct BadItemId(String);

impl FromStr for ItemId {
    type Err = BadItemId;

    fn from_str(text: &str) -> Result<Self, BadItemId> {
        // Split at the last slash: a charge's id may contain slashes.
        let bad = || BadItemId(text.to_owned());
        let (charge_id, index) = text.rsplit_once('/').ok_or_else(bad)?;
        let output_index = index.parse().map_err(|_| bad())?;
        if charge_id.is_empty() {
            return Err(bad());
        }
        Ok(Self { charge_id: charge_id.to_owned(), output_index })
    }
}

/// One output of one job at one provider. Items and stored outputs refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// The provider's name: the name of its file in `config/providers`.
    pub provider: String,
    /// The provider's id of the job.
    pub job_id: String,
    /// The index of the output in the job, from 0.
    pub output_index: i64,
}

/// Credits taken from an account for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Its id at the platform.
    pub id: String,
    /// The user or workspace that paid and gets refunds. P07 (a workspace's credits go back to it).
    pub account_id: String,
    /// The project that its outputs belong to; none if the platform has no projects.
    pub project_id: Option<String>,
    /// The node in the project that its outputs belong to; none if the platform has no nodes.
    pub node_id: Option<String>,
    /// The provider of its job.
    pub provider: String,
    /// The model of its job.
    pub model: String,
    /// When the credits were taken. The 24 hours of P15 (made good within 24 hours) begin here.
    pub charged_at: Timestamp,
    /// The credits taken from each balance.
    pub drawn: Split,
    /// When the user cancelled the run, if they did. P11 (cancelled runs).
    pub cancelled_at: Option<Timestamp>,
}

/// One expected output of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// Its price, in the smallest unit.
    pub credits: i64,
    /// The job's output that it pays for; none if no provider job is on record.
    pub job: Option<JobKey>,
    /// When the platform recorded that it failed, if it did. P19 (refunded within a minute or two).
    pub failed_at: Option<Timestamp>,
}

/// An output that the platform has stored. Its row stays if the output is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutput {
    /// Its id at the platform.
    pub id: String,
    /// The item that it is linked to, if any.
    pub item: Option<ItemId>,
    /// The job's output that it is.
    pub job: JobKey,
    /// The project that it is in, if any.
    pub project_id: Option<String>,
    /// The node in the project that it is at, if any.
    pub node_id: Option<String>,
    /// The SHA-256 of the file in lower-case hexadecimal; none if the platform keeps none that can
    /// be compared.
    pub sha256: Option<String>,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When a person moved it, if so. P13 (it stays where they put it).
    pub moved_at: Option<Timestamp>,
    /// When it was deleted, if so. P10 (it stays paid).
    pub deleted_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_id_reads_back_as_written_even_with_slashes_in_the_charge() {
        for text in ["ch_1/0", "a/b/12", "x/-1"] {
            assert_eq!(text.parse::<ItemId>().unwrap().to_string(), text);
        }
        for text in ["", "ch_1", "/0", "ch_1/", "ch_1/x", "ch_1/1.5"] {
            assert!(text.parse::<ItemId>().is_err(), "{text:?} was accepted");
        }
    }
}
