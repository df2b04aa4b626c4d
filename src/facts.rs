//! Everything that is known about one orphan: the platform's rows and makegood's own, joined.
//! Nothing is decided here.
//!
//! [`Facts::gather`] is pure. It is called twice for every orphan that money moves for: when the
//! orphan is claimed, and again in settle's transaction with freshly read rows. If the two
//! [`Record`]s differ, the platform's rows have changed meanwhile and the decision is taken again.
//!
//! Rule 1 (`delivered`) exists twice: here for single orphans, and as the view
//! `makegood_deliveries` for detection. A test compares the two.

use std::collections::{HashMap, HashSet};

use crate::charge::{Bucket, Charge, Item, ItemId, Split, StoredOutput};
use crate::clock::Timestamp;

/// The input of `policy`, apart from the provider's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The platform's rows. Settle requires that they have not changed since the decision.
    pub record: Record,
    /// The item's position among the items of its job. Settle compares it where the decision
    /// depends on it.
    pub share: JobShare,
    /// makegood's own row.
    pub orphan: Orphan,
}

/// The platform's rows about one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The charge.
    pub charge: Charge,
    /// The item; none for a charge without items.
    pub item: Option<Item>,
    /// The sum of all items of the charge.
    pub items: ItemsSum,
    /// Whether the item's output is stored, and where.
    pub delivery: Delivery,
    /// makegood recovered or relinked the output before, and has not given it to another item
    /// since. The item was delivered, even if the platform has removed the row. P10 (a deleted
    /// output stays paid).
    pub was_recovered: bool,
    /// The platform's own refunds.
    pub refunded_elsewhere: RefundedElsewhere,
    /// Another item claims the same output of the same job, or a charge of another account names
    /// the job.
    pub rival: bool,
    /// The number of balance rows for each bucket that the charge drew from. It must be 1.
    pub balance_rows: BalanceRows,
    /// The sum of the ledger's debits for the charge, a negative number; none if the ledger has no
    /// debits for it.
    pub debits: Option<i128>,
}

/// The number of items of a charge and the sum of their credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemsSum {
    /// The number of items.
    pub count: usize,
    /// The sum of their credits, in the smallest unit.
    pub credits: i128,
    /// At least one item has a negative price.
    pub negative: bool,
}

/// Where the output of an item is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In the item's project and node, or where a person moved it. Also if it was deleted since
    /// (rule 1; P10, P13).
    Delivered {
        /// The output's id at the platform.
        output_id: String,
    },
    /// In another project or node, or linked to another item or to none. Rule 3; P13 (a misplaced
    /// output is put back).
    Misplaced {
        /// The output's id at the platform.
        output_id: String,
        /// The item that it is linked to now.
        linked_to: Option<ItemId>,
        /// A person moved it: the link is corrected, its project and node stay.
        moved: bool,
        /// The item that it is linked to has a claim to it too.
        claimed: bool,
    },
    /// Nowhere.
    Missing,
}

/// The refunds in the ledger that makegood did not post.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefundedElsewhere {
    /// Refunds that name this item sum up to at least its price.
    pub item: bool,
    /// Refunds that name this item sum up to less than its price.
    pub part: bool,
    /// Refunds that name the charge but no item sum up to more than zero.
    pub whole_charge: bool,
    /// All refunds of the charge. P03 (never more than was drawn) counts them.
    pub credits: Split,
}

/// The number of rows in `balances` for each bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalanceRows {
    /// For the subscription's quota.
    pub subscription: i64,
    /// For the wallet.
    pub wallet: i64,
}

/// An item's position among the items of its job. It decides which file is the item's if the answer
/// gives no indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobShare {
    /// The number of items of the job.
    pub items: usize,
    /// This item's position among them, from 0, in order of their outputs.
    pub rank: usize,
    /// This item's position among those that still wait for an output, from 0.
    pub open_rank: usize,
    /// The SHA-256 of every file that is stored for the job.
    pub stored: Vec<String>,
    /// The number of files that are stored for the job without a SHA-256. Which of the provider's
    /// files they are cannot be told.
    pub unhashed: usize,
}

/// makegood's own row of an orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The row's id.
    pub id: i64,
    /// The item.
    pub item: ItemId,
    /// When it was found.
    pub opened_at: Timestamp,
    /// When makegood stops waiting for proof and refunds.
    pub refund_by: Timestamp,
    /// The number of questions asked about it so far.
    pub questions: i64,
    /// When the first question was answered, or failed.
    pub first_asked_at: Option<Timestamp>,
    /// The number of decisions to wait; each makes the next wait longer.
    pub waits: i64,
    /// Why it is held, if it is.
    pub held: Option<String>,
}

/// An item of a job, and whether it is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobItem {
    /// The item.
    pub item: Item,
    /// The account of its charge.
    pub account_id: String,
    /// It was refunded, recovered or closed, so it gets no output of the job any more.
    pub resolved: bool,
}

/// A refund in the ledger that makegood did not post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRefund {
    /// The charge that it names.
    pub charge_id: String,
    /// The item that it names, if any.
    pub output_index: Option<i64>,
    /// The bucket that got the credits.
    pub bucket: Bucket,
    /// The credits, in the smallest unit.
    pub credits: i64,
}

/// The rows of the contract relations for a batch of orphans, as `store` reads them.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The items of the orphans' charges, of their jobs, and of the charges that their outputs are
    /// linked to.
    pub items: HashMap<ItemId, JobItem>,
    /// The outputs of the orphans' charges and jobs.
    pub outputs: Vec<StoredOutput>,
    /// The refunds of the orphans' charges that makegood did not post.
    pub refunds: Vec<LedgerRefund>,
    /// The number of rows in `balances`, by account and bucket.
    pub balance_rows: HashMap<(String, Bucket), i64>,
    /// The sum of the debits of each charge for which the ledger has debits.
    pub debits: HashMap<String, i128>,
    /// The orphans' items that makegood recovered or relinked before.
    pub recovered: HashSet<ItemId>,
}

/// [`Rows`] with hash maps for every lookup. Built once for each batch.
#[derive(Debug, Default)]
pub struct RowIndex<'a> {
    rows: Option<&'a Rows>,
    items_by_charge: HashMap<&'a str, Vec<&'a JobItem>>,
    items_by_job: HashMap<(&'a str, &'a str), Vec<&'a JobItem>>,
    outputs_by_item: HashMap<&'a ItemId, Vec<&'a StoredOutput>>,
    outputs_by_job: HashMap<(&'a str, &'a str), Vec<&'a StoredOutput>>,
    refunds_by_charge: HashMap<&'a str, Vec<&'a LedgerRefund>>,
}

impl<'a> RowIndex<'a> {
    /// Indexes the rows of a batch.
    pub fn new(rows: &'a Rows) -> Self {
        let mut index = Self { rows: Some(rows), ..Self::default() };
        for each in rows.items.values() {
            index.items_by_charge.entry(&each.item.id.charge_id).or_default().push(each);
            if let Some(job) = &each.item.job {
                index.items_by_job.entry((&job.provider, &job.job_id)).or_default().push(each);
            }
        }
        for items in index.items_by_job.values_mut() {
            items.sort_by_key(|each| (each.item.job.as_ref().map(|job| job.output_index), &each.item.id));
        }
        for output in &rows.outputs {
            if let Some(item) = &output.item {
                index.outputs_by_item.entry(item).or_default().push(output);
            }
            let job = (output.job.provider.as_str(), output.job.job_id.as_str());
            index.outputs_by_job.entry(job).or_default().push(output);
        }
        for refund in &rows.refunds {
            index.refunds_by_charge.entry(&refund.charge_id).or_default().push(refund);
        }
        index
    }

    fn outputs_linked_to(&self, item: &ItemId) -> &[&'a StoredOutput] {
        self.outputs_by_item.get(item).map_or(&[], Vec::as_slice)
    }
}

/// Rule 1 for one output: it is linked to the item, comes from the item's job if the item names
/// one, and is in the charge's project and node or was moved by a person.
fn is_delivery(charge: &Charge, item: &Item, output: &StoredOutput) -> bool {
    let of_its_job = item.job.as_ref().is_none_or(|job| *job == output.job);
    let in_its_node = output.project_id == charge.project_id && output.node_id == charge.node_id;
    output.item.as_ref() == Some(&item.id) && of_its_job && (in_its_node || output.moved_at.is_some())
}

impl Facts {
    /// Joins the rows of one orphan.
    pub fn gather(charge: Charge, orphan: Orphan, index: &RowIndex<'_>) -> Self {
        let of_charge = index.items_by_charge.get(charge.id.as_str()).map_or(&[][..], Vec::as_slice);
        let items = of_charge.iter().fold(ItemsSum::default(), |sum, each| ItemsSum {
            count: sum.count + 1,
            credits: sum.credits + i128::from(each.item.credits),
            negative: sum.negative || each.item.credits < 0,
        });
        // The item is none for a whole charge, unless the platform uses that index for an output.
        let item = of_charge.iter().find(|each| each.item.id == orphan.item).map(|each| each.item.clone());
        let mates = item
            .as_ref()
            .and_then(|item| item.job.as_ref())
            .and_then(|job| index.items_by_job.get(&(job.provider.as_str(), job.job_id.as_str())))
            .map_or(&[][..], Vec::as_slice);

        let rival = item.as_ref().is_some_and(|item| {
            mates.iter().any(|mate| {
                mate.account_id != charge.account_id || (mate.item.job == item.job && mate.item.id != item.id)
            })
        });
        let record = Record {
            delivery: item.as_ref().map_or(Delivery::Missing, |item| delivery(&charge, item, index)),
            was_recovered: index.rows.is_some_and(|rows| rows.recovered.contains(&orphan.item)),
            rival,
            refunded_elsewhere: refunded_elsewhere(&charge, &orphan.item, item.as_ref(), index),
            balance_rows: BalanceRows {
                subscription: balance_rows(&charge, Bucket::Subscription, index),
                wallet: balance_rows(&charge, Bucket::Wallet, index),
            },
            items,
            item: item.clone(),
            debits: index.rows.and_then(|rows| rows.debits.get(&charge.id)).copied(),
            charge,
        };
        let share = job_share(&record, mates, index);
        Self { record, share, orphan }
    }
}

fn delivery(charge: &Charge, item: &Item, index: &RowIndex<'_>) -> Delivery {
    if let Some(output) =
        index.outputs_linked_to(&item.id).iter().find(|output| is_delivery(charge, item, output))
    {
        return Delivery::Delivered { output_id: output.id.clone() };
    }
    // Not delivered. Look for the file of this job and index elsewhere; without a job, by the link.
    let candidates: Vec<&StoredOutput> = match &item.job {
        Some(job) => {
            let of_job = index.outputs_by_job.get(&(job.provider.as_str(), job.job_id.as_str()));
            of_job.into_iter().flatten().copied().filter(|output| output.job == *job).collect()
        }
        None => index.outputs_linked_to(&item.id).to_vec(),
    };
    // The oldest output that is not deleted, so that the result does not depend on the rows' order.
    let kept = candidates.into_iter().filter(|output| output.deleted_at.is_none());
    let Some(output) = kept.min_by_key(|output| (output.stored_at, &output.id)) else {
        return Delivery::Missing;
    };
    let claimed = output.item.as_ref().filter(|holder| **holder != item.id).is_some_and(|holder| {
        // The other item has a claim unless it belongs to another job or does not exist.
        let held = index.rows.and_then(|rows| rows.items.get(holder));
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
    index: &RowIndex<'_>,
) -> RefundedElsewhere {
    let refunds = index.refunds_by_charge.get(charge.id.as_str());
    let mut sum = RefundedElsewhere::default();
    let (mut of_item, mut of_charge) = (0_i128, 0_i128);
    let (mut subscription, mut wallet) = (0_i128, 0_i128);
    for refund in refunds.into_iter().flatten() {
        match refund.output_index {
            Some(output_index) if output_index == id.output_index => of_item += i128::from(refund.credits),
            Some(_) => {}
            None => of_charge += i128::from(refund.credits),
        }
        *match refund.bucket {
            Bucket::Subscription => &mut subscription,
            Bucket::Wallet => &mut wallet,
        } += i128::from(refund.credits);
    }
    // A negative sum counts as 0: a platform that took back more than it refunded does not raise
    // the limit. A sum beyond i64 counts as i64::MAX, so nothing more can be refunded.
    let given = |credits: i128| i64::try_from(credits.max(0)).unwrap_or(i64::MAX);
    sum.credits = Split { subscription: given(subscription), wallet: given(wallet) };
    // A refund that the platform reversed again does not count.
    sum.whole_charge = of_charge > 0;
    if of_item > 0 {
        sum.item = item.is_none_or(|item| of_item >= i128::from(item.credits));
        sum.part = !sum.item;
    }
    sum
}

fn balance_rows(charge: &Charge, bucket: Bucket, index: &RowIndex<'_>) -> i64 {
    let rows = index.rows.and_then(|rows| rows.balance_rows.get(&(charge.account_id.clone(), bucket)));
    rows.copied().unwrap_or(0)
}

fn job_share(record: &Record, mates: &[&JobItem], index: &RowIndex<'_>) -> JobShare {
    let Some(Item { id, job: Some(job), .. }) = &record.item else {
        return JobShare::default();
    };
    // An item waits for an output if it is not resolved and no output of this job is linked to it.
    let waits = |mate: &JobItem| {
        let has_one = index
            .outputs_linked_to(&mate.item.id)
            .iter()
            .any(|output| output.job.provider == job.provider && output.job.job_id == job.job_id);
        !mate.resolved && !has_one
    };
    let rank = mates.iter().position(|mate| mate.item.id == *id).unwrap_or(0);
    let open_rank = mates.iter().take(rank).filter(|mate| waits(mate)).count();
    let of_job = index.outputs_by_job.get(&(job.provider.as_str(), job.job_id.as_str()));
    let hashes = || of_job.into_iter().flatten().map(|output| output.sha256.clone());
    let mut stored: Vec<String> = hashes().flatten().collect();
    stored.sort();
    let unhashed = hashes().filter(Option::is_none).count();
    JobShare { items: mates.len(), rank, open_rank, stored, unhashed }
}
