//! The example platform's charges, as rows of the contract relations and without a clock.
//!
//! Times are minutes before (negative) or after the evening's first pass; `platform` turns them into instants. A
//! charge is put together here as a platform would have written it, right or wrong; what is wrong with it on purpose
//! is said in `stories`. The ordinary charges, nearly all there are, went well: makegood must not touch them.

use crate::charge::{Bucket, Split};

use super::simulator;

/// An account with what it can spend when the example begins.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// `user` or `workspace`.
    pub kind: &'static str,
    /// Its balance rows; a bucket without one has none.
    pub balances: Vec<(Bucket, i64)>,
}

/// A charge with everything the platform has on record about it.
#[derive(Clone, Debug)]
pub struct Charge {
    pub id: String,
    pub account: String,
    pub project: String,
    pub provider: &'static str,
    pub model: &'static str,
    pub job: Option<String>,
    pub charged_at: i64,
    pub drawn: Split,
    pub cancelled_at: Option<i64>,
    pub items: Vec<Item>,
    pub outputs: Vec<Output>,
    pub refunds: Vec<Refund>,
}

/// One expected output of a charge.
#[derive(Clone, Debug)]
pub struct Item {
    pub credits: i64,
    /// A job of its own.
    pub job: Option<String>,
    pub failed_at: Option<i64>,
}

/// An output that the platform has, or had.
#[derive(Clone, Debug)]
pub struct Output {
    pub id: String,
    /// The item it hangs on.
    pub link: (String, usize),
    /// The job and the index that it came from.
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
pub struct Refund {
    /// The item that it names; none: the charge as a whole.
    pub item: Option<usize>,
    pub bucket: Bucket,
    pub credits: i64,
    pub at: i64,
}

/// How long after the charge an ordinary output is stored, in minutes: well before any grace ends.
const STORED_AFTER: i64 = 3;

impl Charge {
    /// One item of 20 credits, paid from the subscription; `fate` is what becomes of the job.
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
            items: vec![Item { credits: 20, job: None, failed_at: None }],
            outputs: Vec::new(),
            refunds: Vec::new(),
        }
    }

    /// So many items of so many credits each.
    pub fn items(mut self, count: usize, credits: i64) -> Self {
        self.items = vec![Item { credits, job: None, failed_at: None }; count];
        self.drawn = Split { subscription: self.items.iter().map(|item| item.credits).sum(), wallet: 0 };
        self
    }

    /// What was drawn from which balance.
    pub const fn drawn(mut self, subscription: i64, wallet: i64) -> Self {
        self.drawn = Split { subscription, wallet };
        self
    }

    /// Every item is a job of its own, with these fates.
    pub fn jobs_of_their_own(mut self, fates: &[&str]) -> Self {
        for (nth, (item, fate)) in self.items.iter_mut().zip(fates).enumerate() {
            item.job = Some(simulator::job_id(self.provider, fate, &format!("{}-{nth}", self.id)));
        }
        self.job = None;
        self
    }

    /// The job it was bought from.
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
        self.refunds.push(Refund { item, bucket, credits, at });
        self
    }

    /// The outputs of these items are stored, where they belong.
    pub fn stored(mut self, items: &[usize]) -> Self {
        for nth in items {
            let output = self.output(*nth);
            self.outputs.push(output);
        }
        self
    }

    /// The output of the first item is stored, but not as it should be.
    pub fn stored_as(mut self, change: impl FnOnce(&mut Output)) -> Self {
        let mut output = self.output(0);
        change(&mut output);
        self.outputs.push(output);
        self
    }

    /// The output of one item as the platform would store it.
    pub fn output(&self, nth: usize) -> Output {
        let own = self.items.get(nth).and_then(|item| item.job.clone());
        let index = if own.is_some() { 0 } else { i64::try_from(nth).unwrap_or(0) };
        Output {
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

    /// The place in the project that its outputs belong to.
    pub fn node(&self) -> String {
        format!("{}-node", self.id)
    }
}

/// How many ordinary charges there are.
const ORDINARY: i64 = 364;
/// How many people they come from.
const CROWD: i64 = 40;
/// When the first of them was made, in minutes; from then on one every five minutes until the next evening.
const ORDINARY_FROM: i64 = -420;

/// Everyone who is not in a story.
pub fn crowd() -> Vec<Account> {
    (0..CROWD)
        .map(|nth| Account {
            id: crowd_id(nth),
            kind: "user",
            balances: vec![(Bucket::Subscription, 2000), (Bucket::Wallet, 500)],
        })
        .collect()
}

fn crowd_id(nth: i64) -> String {
    format!("user-{:02}", nth + 1)
}

/// Charges that went well, one to four outputs each.
pub fn ordinary() -> Vec<Charge> {
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
            let charge =
                Charge::new(&format!("run-{nth:03}"), &account, provider, fate, ORDINARY_FROM + nth * 5)
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
