//! The charges of the example platform, as rows of the contract relations.
//!
//! Times are minutes before (negative) or after the first pass; `platform` converts them to
//! instants. The builder here can create any charge, valid or faulty; `stories` describes the
//! faults. Most charges are ordinary: their outputs were stored, and makegood must not touch them.

use crate::charge::{Bucket, Split};

use super::simulator;

/// An account with its balances at the beginning.
#[derive(Clone, Debug)]
pub struct ExampleAccount {
    /// Its id.
    pub id: String,
    /// `user` or `workspace`.
    pub kind: &'static str,
    /// Its balance rows. A missing bucket has no row.
    pub balances: Vec<(Bucket, i64)>,
}

/// A charge with all rows of the platform that belong to it.
#[derive(Clone, Debug)]
pub struct ExampleCharge {
    pub id: String,
    pub account: String,
    pub project: String,
    pub provider: &'static str,
    pub model: &'static str,
    pub job: Option<String>,
    pub charged_at: i64,
    pub drawn: Split,
    pub cancelled_at: Option<i64>,
    pub items: Vec<ExampleItem>,
    pub outputs: Vec<ExampleOutput>,
    pub refunds: Vec<ExampleRefund>,
}

/// One expected output of a charge.
#[derive(Clone, Debug)]
pub struct ExampleItem {
    pub credits: i64,
    /// The item's own job, if it has one.
    pub job: Option<String>,
    pub failed_at: Option<i64>,
}

/// An output that the platform has stored, deleted or not.
#[derive(Clone, Debug)]
pub struct ExampleOutput {
    pub id: String,
    /// The item it is linked to: charge and index.
    pub link: (String, usize),
    /// The job it came from, and its index there.
    pub from: (String, i64),
    pub provider: &'static str,
    pub project: String,
    pub node: String,
    pub stored_at: i64,
    pub moved_at: Option<i64>,
    pub deleted_at: Option<i64>,
}

/// A refund by the platform itself.
#[derive(Clone, Copy, Debug)]
pub struct ExampleRefund {
    /// The item that it names. `None`: the charge as a whole.
    pub item: Option<usize>,
    pub bucket: Bucket,
    pub credits: i64,
    pub at: i64,
}

/// How many minutes after the charge an ordinary output is stored: well within every grace period.
const STORED_AFTER: i64 = 3;

impl ExampleCharge {
    /// A charge with one item of 20 credits, drawn from the subscription. `fate` determines the
    /// job's result.
    pub fn new(id: &str, account: &str, provider: &'static str, fate: &str, charged_at: i64) -> Self {
        Self {
            id: id.to_owned(),
            account: account.to_owned(),
            project: format!("{account}-project"),
            provider,
            model: match provider {
                "fal" => "lumen/portrait",
                "veo-gemini" => "veo-3",
                _ => "lumen/still-life",
            },
            job: Some(simulator::job_id(provider, fate, id)),
            charged_at,
            drawn: Split { subscription: 20, wallet: 0 },
            cancelled_at: None,
            items: vec![ExampleItem { credits: 20, job: None, failed_at: None }],
            outputs: Vec::new(),
            refunds: Vec::new(),
        }
    }

    /// Sets `count` items of `credits` each.
    pub fn items(mut self, count: usize, credits: i64) -> Self {
        self.items = vec![ExampleItem { credits, job: None, failed_at: None }; count];
        self.drawn = Split { subscription: self.items.iter().map(|item| item.credits).sum(), wallet: 0 };
        self
    }

    /// Sets how much was drawn from each balance.
    pub const fn drawn(mut self, subscription: i64, wallet: i64) -> Self {
        self.drawn = Split { subscription, wallet };
        self
    }

    /// Gives every item its own job, with these fates.
    pub fn jobs_of_their_own(mut self, fates: &[&str]) -> Self {
        for (nth, (item, fate)) in self.items.iter_mut().zip(fates).enumerate() {
            item.job = Some(simulator::job_id(self.provider, fate, &format!("{}-{nth}", self.id)));
        }
        self.job = None;
        self
    }

    /// Sets the provider job.
    pub fn job(mut self, job: Option<&str>) -> Self {
        self.job = job.map(str::to_owned);
        self
    }

    /// The user cancelled it.
    pub const fn cancelled(mut self, at: i64) -> Self {
        self.cancelled_at = Some(at);
        self
    }

    /// The platform recorded that the first item failed.
    pub fn failed(mut self, at: i64) -> Self {
        for item in self.items.iter_mut().take(1) {
            item.failed_at = Some(at);
        }
        self
    }

    /// The platform refunded it itself.
    pub fn refunded(mut self, item: Option<usize>, bucket: Bucket, credits: i64, at: i64) -> Self {
        self.refunds.push(ExampleRefund { item, bucket, credits, at });
        self
    }

    /// The outputs of these items are stored and linked correctly.
    pub fn stored(mut self, items: &[usize]) -> Self {
        for nth in items {
            let output = self.output(*nth);
            self.outputs.push(output);
        }
        self
    }

    /// The output of the first item is stored with a fault.
    pub fn stored_as(mut self, change: impl FnOnce(&mut ExampleOutput)) -> Self {
        let mut output = self.output(0);
        change(&mut output);
        self.outputs.push(output);
        self
    }

    /// The output of one item as the platform would store it.
    pub fn output(&self, nth: usize) -> ExampleOutput {
        let own = self.items.get(nth).and_then(|item| item.job.clone());
        let index = if own.is_some() { 0 } else { i64::try_from(nth).unwrap_or(0) };
        ExampleOutput {
            id: format!("out-{}-{nth}", self.id),
            link: (self.id.clone(), nth),
            from: (own.or_else(|| self.job.clone()).unwrap_or_default(), index),
            provider: self.provider,
            project: self.project.clone(),
            node: self.node(),
            stored_at: self.charged_at + STORED_AFTER,
            moved_at: None,
            deleted_at: None,
        }
    }

    /// The project node that its outputs belong to.
    pub fn node(&self) -> String {
        format!("{}-node", self.id)
    }
}

/// How many ordinary charges there are.
const ORDINARY: i64 = 364;
/// How many accounts they belong to.
const CROWD: i64 = 40;
/// The minute of the first ordinary charge. One follows every five minutes until the next evening.
const ORDINARY_FROM: i64 = -420;

/// The accounts that are in no story.
pub fn crowd() -> Vec<ExampleAccount> {
    (0..CROWD)
        .map(|nth| ExampleAccount {
            id: crowd_id(nth),
            kind: "user",
            balances: vec![(Bucket::Subscription, 2000), (Bucket::Wallet, 500)],
        })
        .collect()
}

fn crowd_id(nth: i64) -> String {
    format!("user-{:02}", nth + 1)
}

/// Charges whose outputs were all stored, with one to four outputs each.
pub fn ordinary() -> Vec<ExampleCharge> {
    (0..ORDINARY)
        .map(|nth| {
            let (provider, fate, count, credits) = match nth % 6 {
                0 => ("replicate", "ok", 1, 20),
                1 => ("fal", "ok2", 2, 10),
                2 => ("veo-gemini", "ok", 1, 90),
                3 => ("fal", "ok", 1, 15),
                4 => ("replicate", "ok4", 4, 8),
                _ => ("fal", "ok-video", 1, 60),
            };
            let account = crowd_id(nth * 7 % CROWD);
            let charge = ExampleCharge::new(
                &format!("run-{nth:03}"),
                &account,
                provider,
                fate,
                ORDINARY_FROM + nth * 5,
            )
            .items(count, credits);
            let total = charge.drawn.subscription + charge.drawn.wallet;
            let charge = match nth % 3 {
                0 => charge,
                1 => charge.drawn(0, total),
                _ => charge.drawn(total - total / 4, total / 4),
            };
            charge.stored(&(0..count).collect::<Vec<_>>())
        })
        .collect()
}
