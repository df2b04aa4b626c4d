//! What is known about one orphan: the platform's rows put together, nothing decided.
//!
//! [`Facts::gather`] is pure. It is called twice for every orphan that money moves for: when the orphan
//! is claimed, and again inside settle's transaction with rows read afresh. If the two [`Record`]s differ,
//! the world changed meanwhile and the decision is taken again. Rule 1 ("delivered") stands here for
//! single orphans and, set-based for detection, in the view `makegood_deliveries`; a test compares the two.

use std::collections::{HashMap, HashSet};

use crate::charge::{Bucket, Charge, Item, ItemId, Split, StoredOutput};
use crate::clock::Timestamp;

/// Everything that `policy` judges by, but for the provider's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the platform has on record: must be the same in settle as when it was decided upon.
    pub record: Record,
    /// How the item stands among the others of its job; settle compares it where the decision rests on it.
    pub share: Share,
    /// What makegood itself knows.
    pub orphan: Orphan,
}

/// What the platform has on record about one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was paid.
    pub charge: Charge,
    /// The item; none for a charge without items.
    pub item: Option<Item>,
    /// All items of the charge together.
    pub items: ItemsSum,
    /// Whether its output is stored, and where.
    pub delivery: Delivery,
    /// makegood brought its output home or put it back before, and has not given it to another item
    /// since: it was delivered, also where the platform has removed the row (P10).
    pub was_recovered: bool,
    /// What the platform has refunded itself.
    pub refunded_elsewhere: RefundedElsewhere,
    /// Another item claims the same output of the same job, or a charge of another account names the job.
    pub rival: bool,
    /// How many balance rows there are for each bucket that the charge drew from; exactly one is right.
    pub balance_rows: BalanceRows,
    /// What the ledger says was taken for the charge, below zero; none where it has no such
    /// entries.
    pub debits: Option<i128>,
}

/// How many items a charge has and what they cost together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemsSum {
    /// How many.
    pub count: usize,
    /// Their credits, in the smallest unit.
    pub credits: i128,
    /// At least one of them costs less than nothing.
    pub negative: bool,
}

/// Where the output of an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Where it belongs, or where a person put it; deleted since or not (rule 1, P10, P13).
    Delivered {
        /// Its id at the platform.
        output_id: String,
    },
    /// Stored, but linked elsewhere or lying elsewhere (rule 3, P13).
    Misplaced {
        /// Its id at the platform.
        output_id: String,
        /// The item it hangs on now.
        linked_to: Option<ItemId>,
        /// A person moved it: the link is mended, the place stays.
        moved: bool,
        /// The item it hangs on has a claim to it too.
        claimed: bool,
    },
    /// Not stored.
    Missing,
}

/// Refunds in the ledger that are not makegood's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefundedElsewhere {
    /// Those that name this item give back as much as it cost.
    pub item: bool,
    /// They give back something, and less than that.
    pub part: bool,
    /// Those that name the charge and no item give back something.
    pub whole_charge: bool,
    /// All of them together, for any item of the charge: they count towards the draw (P03).
    pub credits: Split,
}

/// Rows in `balances` per bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalanceRows {
    /// For the subscription's quota.
    pub subscription: i64,
    /// For the wallet.
    pub wallet: i64,
}

/// How an item stands among the items of its job, for answers that do not say which output is which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many items hang on the job.
    pub items: usize,
    /// Which of them this is, from 0, in order of their outputs.
    pub rank: usize,
    /// Which of those that still wait for an output this is, from 0.
    pub open_rank: usize,
    /// SHA-256 of the files that are stored for the job already: nobody's any more.
    pub stored: Vec<String>,
    /// How many more are stored without a SHA-256: which of the provider's files they are cannot be
    /// told.
    pub unhashed: usize,
}

/// What makegood itself knows about an orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its row.
    pub id: i64,
    /// Which item it is about.
    pub item: ItemId,
    /// When it was found.
    pub opened_at: Timestamp,
    /// When the benefit of the doubt ends.
    pub refund_by: Timestamp,
    /// Questions asked about it so far.
    pub questions: i64,
    /// When the first of them was answered (or could not be).
    pub first_asked_at: Option<Timestamp>,
    /// How often it was told to wait: the next wait is longer.
    pub waits: i64,
    /// The reason it is held for, if it is.
    pub held: Option<String>,
}

/// An item together with what became of it, as far as the sharing of a job's outputs needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobItem {
    /// The item.
    pub item: Item,
    /// The account of its charge.
    pub account_id: String,
    /// It was refunded, recovered or closed: no output is meant for it any more.
    pub resolved: bool,
}

/// A refund in the ledger that is not makegood's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRefund {
    /// The charge it names.
    pub charge_id: String,
    /// The item it names, if any.
    pub output_index: Option<i64>,
    /// Where the credits went.
    pub bucket: Bucket,
    /// How many.
    pub credits: i64,
}

/// Rows of the contract relations around a batch of orphans, as `store` reads them.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Items of the orphans' charges, of their jobs, and of the charges that their outputs hang on.
    pub items: HashMap<ItemId, JobItem>,
    /// Outputs of the orphans' charges and jobs.
    pub outputs: Vec<StoredOutput>,
    /// Refunds of the orphans' charges that are not ours.
    pub refunds: Vec<LedgerRefund>,
    /// How many rows `balances` has.
    pub balance_rows: HashMap<(String, Bucket), i64>,
    /// What was taken for charges of which the ledger has entries below zero.
    pub debits: HashMap<String, i128>,
    /// Orphaned items whose delivery a recovery proves.
    pub recovered: HashSet<ItemId>,
}

/// [`Rows`] sorted by what they are looked up by: built once a batch.
#[derive(Debug, Default)]
pub struct Around<'a> {
    rows: Option<&'a Rows>,
    items_by_charge: HashMap<&'a str, Vec<&'a JobItem>>,
    items_by_job: HashMap<(&'a str, &'a str), Vec<&'a JobItem>>,
    outputs_by_item: HashMap<&'a ItemId, Vec<&'a StoredOutput>>,
    outputs_by_job: HashMap<(&'a str, &'a str), Vec<&'a StoredOutput>>,
    refunds_by_charge: HashMap<&'a str, Vec<&'a LedgerRefund>>,
}

impl<'a> Around<'a> {
    /// Sorts the rows of a batch.
    pub fn new(rows: &'a Rows) -> Self {
        let mut around = Self { rows: Some(rows), ..Self::default() };
        for each in rows.items.values() {
            around.items_by_charge.entry(&each.item.id.charge_id).or_default().push(each);
            if let Some(job) = &each.item.job {
                around.items_by_job.entry((&job.provider, &job.job_id)).or_default().push(each);
            }
        }
        for items in around.items_by_job.values_mut() {
            items.sort_by_key(|each| (each.item.job.as_ref().map(|job| job.output_index), &each.item.id));
        }
        for output in &rows.outputs {
            if let Some(item) = &output.item {
                around.outputs_by_item.entry(item).or_default().push(output);
            }
            let job = (output.job.provider.as_str(), output.job.job_id.as_str());
            around.outputs_by_job.entry(job).or_default().push(output);
        }
        for refund in &rows.refunds {
            around.refunds_by_charge.entry(&refund.charge_id).or_default().push(refund);
        }
        around
    }

    fn outputs_on(&self, item: &ItemId) -> &[&'a StoredOutput] {
        self.outputs_by_item.get(item).map_or(&[], Vec::as_slice)
    }
}

/// Rule 1 for one output that hangs on the item: of its job where it names one, in its place or moved by a person.
fn is_delivery(charge: &Charge, item: &Item, output: &StoredOutput) -> bool {
    let of_its_job = item.job.as_ref().is_none_or(|job| *job == output.job);
    let in_its_place = output.project_id == charge.project_id && output.node_id == charge.node_id;
    output.item.as_ref() == Some(&item.id) && of_its_job && (in_its_place || output.moved_at.is_some())
}

impl Facts {
    /// Puts together what is known about one orphan.
    pub fn gather(charge: Charge, orphan: Orphan, around: &Around<'_>) -> Self {
        let of_charge = around.items_by_charge.get(charge.id.as_str()).map_or(&[][..], Vec::as_slice);
        let items = of_charge.iter().fold(ItemsSum::default(), |sum, each| ItemsSum {
            count: sum.count + 1,
            credits: sum.credits + i128::from(each.item.credits),
            negative: sum.negative || each.item.credits < 0,
        });
        // None also stands for a whole charge, unless the platform really numbers an output so.
        let item = of_charge.iter().find(|each| each.item.id == orphan.item).map(|each| each.item.clone());
        let mates = item
            .as_ref()
            .and_then(|item| item.job.as_ref())
            .and_then(|job| around.items_by_job.get(&(job.provider.as_str(), job.job_id.as_str())))
            .map_or(&[][..], Vec::as_slice);

        let rival = item.as_ref().is_some_and(|item| {
            mates.iter().any(|mate| {
                mate.account_id != charge.account_id || (mate.item.job == item.job && mate.item.id != item.id)
            })
        });
        let record = Record {
            delivery: item.as_ref().map_or(Delivery::Missing, |item| delivery(&charge, item, around)),
            was_recovered: around.rows.is_some_and(|rows| rows.recovered.contains(&orphan.item)),
            rival,
            refunded_elsewhere: refunded_elsewhere(&charge, &orphan.item, item.as_ref(), around),
            balance_rows: BalanceRows {
                subscription: balance_rows(&charge, Bucket::Subscription, around),
                wallet: balance_rows(&charge, Bucket::Wallet, around),
            },
            items,
            item: item.clone(),
            debits: around.rows.and_then(|rows| rows.debits.get(&charge.id)).copied(),
            charge,
        };
        let share = share(&record, mates, around);
        Self { record, share, orphan }
    }
}

fn delivery(charge: &Charge, item: &Item, around: &Around<'_>) -> Delivery {
    if let Some(output) = around.outputs_on(&item.id).iter().find(|output| is_delivery(charge, item, output))
    {
        return Delivery::Delivered { output_id: output.id.clone() };
    }
    // Not there: is the file of this job and index anywhere else? Without a job, only the link could tell.
    let candidates: Vec<&StoredOutput> = match &item.job {
        Some(job) => {
            let of_job = around.outputs_by_job.get(&(job.provider.as_str(), job.job_id.as_str()));
            of_job.into_iter().flatten().copied().filter(|output| output.job == *job).collect()
        }
        None => around.outputs_on(&item.id).to_vec(),
    };
    // The oldest that is still there: one answer, whatever order the rows came in.
    let kept = candidates.into_iter().filter(|output| output.deleted_at.is_none());
    let Some(output) = kept.min_by_key(|output| (output.stored_at, &output.id)) else {
        return Delivery::Missing;
    };
    let claimed = output.item.as_ref().filter(|holder| **holder != item.id).is_some_and(|holder| {
        // The holder has a claim unless it was bought from another job, or is no item at all.
        let held = around.rows.and_then(|rows| rows.items.get(holder));
        held.is_some_and(|held| held.item.job.as_ref().is_none_or(|job| *job == output.job))
    });
    Delivery::Misplaced {
        output_id: output.id.clone(),
        linked_to: output.item.clone(),
        moved: output.moved_at.is_some(),
        claimed,
    }
}

fn refunded_elsewhere(
    charge: &Charge,
    id: &ItemId,
    item: Option<&Item>,
    around: &Around<'_>,
) -> RefundedElsewhere {
    let refunds = around.refunds_by_charge.get(charge.id.as_str());
    let mut sum = RefundedElsewhere::default();
    let (mut of_item, mut of_charge) = (0_i128, 0_i128);
    let (mut subscription, mut wallet) = (0_i128, 0_i128);
    for refund in refunds.into_iter().flatten() {
        match refund.output_index {
            Some(index) if index == id.output_index => of_item += i128::from(refund.credits),
            Some(_) => {}
            None => of_charge += i128::from(refund.credits),
        }
        *match refund.bucket {
            Bucket::Subscription => &mut subscription,
            Bucket::Wallet => &mut wallet,
        } += i128::from(refund.credits);
    }
    // What the platform took back beyond what it gave makes no room for us. More than a number can hold leaves none.
    let given = |credits: i128| i64::try_from(credits.max(0)).unwrap_or(i64::MAX);
    sum.credits = Split { subscription: given(subscription), wallet: given(wallet) };
    // A refund that the platform has reversed itself is none.
    sum.whole_charge = of_charge > 0;
    if of_item > 0 {
        sum.item = item.is_none_or(|item| of_item >= i128::from(item.credits));
        sum.part = !sum.item;
    }
    sum
}

fn balance_rows(charge: &Charge, bucket: Bucket, around: &Around<'_>) -> i64 {
    let rows = around.rows.and_then(|rows| rows.balance_rows.get(&(charge.account_id.clone(), bucket)));
    rows.copied().unwrap_or(0)
}

fn share(record: &Record, mates: &[&JobItem], around: &Around<'_>) -> Share {
    let Some(Item { id, job: Some(job), .. }) = &record.item else {
        return Share::default();
    };
    // An item waits for an output if nothing was decided for it and nothing of this job hangs on it.
    let waits = |mate: &JobItem| {
        let has_one = around
            .outputs_on(&mate.item.id)
            .iter()
            .any(|output| output.job.provider == job.provider && output.job.job_id == job.job_id);
        !mate.resolved && !has_one
    };
    let rank = mates.iter().position(|mate| mate.item.id == *id).unwrap_or(0);
    let open_rank = mates.iter().take(rank).filter(|mate| waits(mate)).count();
    let of_job = around.outputs_by_job.get(&(job.provider.as_str(), job.job_id.as_str()));
    let hashes = || of_job.into_iter().flatten().map(|output| output.sha256.clone());
    let mut stored: Vec<String> = hashes().flatten().collect();
    stored.sort();
    let unhashed = hashes().filter(Option::is_none).count();
    Share { items: mates.len(), rank, open_rank, stored, unhashed }
}
