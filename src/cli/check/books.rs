//! `makegood check --books`: compares all refunds, ledger entries and balances.
//!
//! It makes three scans, each in chunks by key with constant memory: makegood's refunds with their
//! ledger entries; the charges that the ledger names; the balances. A difference is a failure:
//! money was lost, refunded twice, or moved without an entry. Counts are exact, and the first
//! [`EXAMPLES`] of each fault are named. Balances are compared only if the ledger explains most of
//! them, because a ledger without purchases explains no balance. If Ctrl-C or SIGTERM stops it
//! between two chunks, it says so and fails, because the rest was not read. It writes nothing.

use std::io::{IsTerminal as _, Write as _};

use super::Findings;
use crate::charge::Bucket;
use crate::cli::words::{count, plain};
use crate::ops::stop::Stop;
use crate::report::chain;
use crate::store::{BalanceBooks, ChargeBooks, DbError, RefundBooks, Store};

/// The maximum number of examples of each fault.
const EXAMPLES: usize = 10;

const ABOUT: &str = "books";
const EXPLAIN: &str = "`makegood explain CHARGE/INDEX` shows what makegood did and when; compare it with the ledger, and \
                       correct the ledger by new entries";

/// Compares the books. An error while reading is a failure.
pub(super) async fn check(store: &Store, found: &mut Findings) {
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            found.fail(ABOUT, format!("could not listen for Ctrl-C: {error}"), "");
            return;
        }
    };
    let progress = ScanProgress::new();
    let read = async {
        Ok::<_, DbError>(
            refunds(store, &stop, &progress, found).await?
                && charges(store, &stop, &progress, found).await?
                && balances(store, &stop, &progress, found).await?,
        )
    };
    let done = read.await;
    progress.end();
    match done {
        Ok(true) => {}
        Ok(false) => found.fail(
            ABOUT,
            "stopped before the end: the results cover only what was read",
            "run `makegood check --books` again",
        ),
        Err(error) => found.fail(ABOUT, format!("could not be read to the end: {}", chain(&error)), ""),
    }
}

/// Shows the progress of a scan, on a terminal only.
struct ScanProgress(bool);

impl ScanProgress {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal())
    }

    fn tell(&self, what: &str, done: u64) {
        if self.0 {
            // A progress line that cannot be written is not an error.
            let _ = write!(std::io::stderr(), "\r\u{1b}[Kbooks: {done} {what}");
        }
    }

    fn end(&self) {
        if self.0 {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}

/// The number of rows with one fault, and the first of them.
#[derive(Debug, Default)]
struct Tally {
    many: u64,
    first: Vec<String>,
}

impl Tally {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.many += 1;
        if self.first.len() < EXAMPLES {
            self.first.push(plain(&example()));
        }
    }

    fn tell(&self, found: &mut Findings, one: &str, many: &str, says: &str, advice: &str) {
        if self.many == 0 {
            return;
        }
        let more = if self.many > self.first.len() as u64 { ", …" } else { "" };
        found.fail(
            ABOUT,
            format!("{} {says}: {}{more}", count(self.many, one, many), self.first.join(", ")),
            advice,
        );
    }
}

/// A fault of the ledger entries of a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// A bucket has no entry.
    Missing,
    /// A bucket has more than one.
    Doubled,
    /// The amount or the bucket differs.
    Differs,
    /// The account, item or kind differs.
    Misnamed,
    /// The refund was reversed, and the ledger does not take it back in full.
    NotTakenBack,
    /// The ledger takes it back, but it was not reversed.
    TakenBack,
    /// The platform has refunded the same item too.
    PaidTwice,
    /// Its charge or its resolution is missing in makegood's own tables.
    NoOrigin,
}

impl Fault {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Missing, "without a ledger entry for a bucket that was refunded"),
        (Self::Doubled, "with more than one ledger entry for a bucket"),
        (Self::Differs, "whose ledger entries do not sum up to its credits"),
        (Self::Misnamed, "whose ledger entries name another account, item or kind"),
        (Self::NotTakenBack, "that was reversed, but the ledger does not take it back in full"),
        (Self::TakenBack, "that the ledger takes back, but that was not reversed"),
        (Self::PaidTwice, "of an item that the platform has refunded too: more was refunded than its price"),
        (Self::NoOrigin, "whose row in makegood_charges or makegood_resolutions is missing"),
    ];
}

/// The faults of one refund, each once.
fn faults(refund: &RefundBooks) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (mut ours, mut theirs, mut known) = (0_i128, 0_i128, 0_i128);
    for entry in &refund.entries {
        let credits = i128::from(entry.credits);
        if entry.is_ours {
            ours += credits;
            if entry.account_id != refund.account_id
                || entry.kind != "refund"
                || entry.output_index != Some(refund.item.output_index)
            {
                faults.push(Fault::Misnamed);
            }
        } else {
            theirs += credits;
        }
    }
    for bucket in Bucket::ALL {
        let gave = i128::from(refund.gave.of(bucket));
        let of_bucket =
            refund.entries.iter().filter(|entry| entry.is_ours && entry.bucket == bucket.as_str());
        let (mut given, mut taken, mut entries) = (0_i128, 0_i128, 0_u64);
        for entry in of_bucket {
            if entry.credits < 0 {
                taken += i128::from(entry.credits);
            } else {
                given += i128::from(entry.credits);
                entries += 1;
            }
        }
        known += given + taken;
        faults.extend((gave > 0 && entries == 0).then_some(Fault::Missing));
        faults.extend((entries > 1).then_some(Fault::Doubled));
        faults
            .extend((entries <= 1 && given != gave && !(gave > 0 && entries == 0)).then_some(Fault::Differs));
        if refund.is_reversed {
            faults.extend((taken != -gave).then_some(Fault::NotTakenBack));
        } else {
            faults.extend((taken != 0).then_some(Fault::TakenBack));
        }
    }
    // Entries for a bucket that makegood does not know.
    faults.extend((known != ours).then_some(Fault::Differs));
    let left = if refund.is_reversed { 0 } else { refund.gave.total() };
    let too_much = refund.price.is_some_and(|price| left + theirs > i128::from(price));
    faults.extend((theirs > 0 && left > 0 && too_much).then_some(Fault::PaidTwice));
    faults.extend((!refund.has_origin).then_some(Fault::NoOrigin));
    faults.sort_unstable();
    faults.dedup();
    faults
}

/// Compares each refund of makegood with the ledger. Returns false if it was stopped.
async fn refunds(
    store: &Store,
    stop: &Stop,
    progress: &ScanProgress,
    found: &mut Findings,
) -> Result<bool, DbError> {
    let mut tallies = Fault::ALL.map(|_| Tally::default());
    let (mut many, mut after) = (0_u64, String::new());
    let mut all = true;
    loop {
        if stop.requested() {
            all = false;
            break;
        }
        let chunk = store.refund_books(&after).await?;
        let Some(last) = chunk.last() else { break };
        after.clone_from(&last.id);
        many += chunk.len() as u64;
        progress.tell("refunds", many);
        for refund in &chunk {
            for fault in faults(refund) {
                let nth = Fault::ALL.iter().position(|(each, _)| *each == fault);
                if let Some(tally) = nth.and_then(|nth| tallies.get_mut(nth)) {
                    tally.add(|| refund.item.to_string());
                }
            }
        }
    }
    for ((_, says), tally) in Fault::ALL.iter().zip(&tallies) {
        tally.tell(found, "refund", "refunds", says, EXPLAIN);
    }
    if tallies.iter().all(|tally| tally.many == 0) {
        found.ok(
            ABOUT,
            format!("{} of makegood: the ledger has exactly their entries", count(many, "refund", "refunds")),
        );
    }
    Ok(all)
}

/// Checks each charge that the ledger names: every entry of makegood belongs to a refund, and no
/// more was refunded than drawn. Returns false if it was stopped.
async fn charges(
    store: &Store,
    stop: &Stop,
    progress: &ScanProgress,
    found: &mut Findings,
) -> Result<bool, DbError> {
    let (mut strays, mut over) = (Tally::default(), Tally::default());
    let (mut many, mut entries, mut after) = (0_u64, 0_u64, String::new());
    let mut all = true;
    loop {
        if stop.requested() {
            all = false;
            break;
        }
        let chunk = store.charge_books(&after).await?;
        let Some(last) = chunk.last() else { break };
        after.clone_from(&last.id);
        many += chunk.len() as u64;
        for charge in &chunk {
            entries += charge.entries.unsigned_abs();
            if charge.strays > 0 {
                strays.add(|| charge.stray.clone().unwrap_or_default());
                strays.many += charge.strays.unsigned_abs() - 1;
            }
            if is_over(charge) {
                let drawn = charge.drawn.unwrap_or(0);
                over.add(|| format!("{} (drew {drawn}, refunded {})", charge.id, charge.refunded));
            }
        }
        progress.tell("ledger entries", entries);
    }
    strays.tell(
        found,
        "entry",
        "entries",
        "of the ledger with an id of makegood, but without a refund of that id and charge",
        "makegood has not written them, or their refund was removed: find out the cause, and correct the ledger by new entries",
    );
    over.tell(found, "charge", "charges", "for which the ledger refunds more than they drew", EXPLAIN);
    if strays.many == 0 && over.many == 0 {
        found.ok(
            ABOUT,
            format!(
                "{} of {}: every entry of makegood has its refund, and no charge was refunded more than it drew",
                count(entries, "ledger entry", "ledger entries"),
                count(many, "charge", "charges"),
            ),
        );
    }
    Ok(all)
}

fn is_over(charge: &ChargeBooks) -> bool {
    charge.drawn.is_some_and(|drawn| charge.refunded > drawn.max(0))
}

/// The comparison of balances with the ledger.
#[derive(Debug, Default)]
struct Balances {
    /// The balances that are not zero or have an entry. Others agree without proving anything.
    judged: u64,
    /// The balances among them that equal the sum of their entries.
    agree: u64,
    differ: Tally,
}

impl Balances {
    fn add(&mut self, balance: &BalanceBooks) {
        let credits = i128::from(balance.credits);
        if balance.ledger.is_none() && credits == 0 {
            return;
        }
        let ledger = balance.ledger.unwrap_or(0);
        self.judged += 1;
        if ledger == credits {
            self.agree += 1;
            return;
        }
        let (apart, how) =
            if credits < ledger { (ledger - credits, "less") } else { (credits - ledger, "more") };
        self.differ.add(|| {
            format!("{} {} is {credits}, {apart} {how} than its entries", balance.account_id, balance.bucket)
        });
    }

    fn tell(&self, found: &mut Findings) {
        let (judged, off) = (self.judged, self.judged - self.agree);
        if off == 0 {
            let says = format!(
                "{}: each equals the sum of its ledger entries",
                count(judged, "balance", "balances")
            );
            found.ok(ABOUT, says);
        } else if self.agree > off {
            let says = format!(
                "of {judged} unequal to the sum of the ledger entries, although all others are equal"
            );
            self.differ.tell(
                found,
                "balance",
                "balances",
                &says,
                "something moved them without an entry, or an entry did not move them: find out what, and correct the balance",
            );
        } else {
            found.warn(
                ABOUT,
                format!(
                    "could not judge balances: the ledger does not add up to them for {off} of {judged} (platforms whose \
                     ledger lacks purchases, grants or debits); that a balance moved without an entry cannot be told"
                ),
                "judged were the refunds and the ledger's entries only; to judge balances, let ledger_entries show every \
                 movement of a balance",
            );
        }
    }
}

/// Compares each balance with the ledger entries of its account and bucket. Returns false if it was
/// stopped.
async fn balances(
    store: &Store,
    stop: &Stop,
    progress: &ScanProgress,
    found: &mut Findings,
) -> Result<bool, DbError> {
    let mut balances = Balances::default();
    let (mut many, mut after) = (0_u64, (String::new(), String::new()));
    loop {
        if stop.requested() {
            // A part of the balances does not show whether the ledger explains most of them.
            return Ok(false);
        }
        let chunk = store.balance_books((&after.0, &after.1)).await?;
        let Some(last) = chunk.last() else { break };
        after = (last.account_id.clone(), last.bucket.clone());
        many += chunk.len() as u64;
        progress.tell("balances", many);
        for balance in &chunk {
            balances.add(balance);
        }
    }
    balances.tell(found);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::charge::{ItemId, Split};
    use crate::store::EntryBooks;

    fn refund(entries: &[(bool, &str, i64)]) -> RefundBooks {
        let entry = |(is_ours, bucket, credits): &(bool, &str, i64)| EntryBooks {
            is_ours: *is_ours,
            bucket: (*bucket).to_owned(),
            credits: *credits,
            kind: "refund".to_owned(),
            account_id: "ada".to_owned(),
            output_index: Some(0),
        };
        RefundBooks {
            id: "makegood:c/0".to_owned(),
            item: ItemId { charge_id: "c".to_owned(), output_index: 0 },
            account_id: "ada".to_owned(),
            gave: Split { subscription: 6, wallet: 4 },
            is_reversed: false,
            has_origin: true,
            price: Some(10),
            entries: entries.iter().map(entry).collect(),
        }
    }

    #[test]
    fn p01_every_difference_between_a_refund_and_the_ledger_is_found() {
        let (quota, wallet) = ((true, "subscription", 6), (true, "wallet", 4));
        for (entries, expected) in [
            (&[quota, wallet][..], &[][..]),
            (&[wallet], &[Fault::Missing]),
            (&[quota, wallet, wallet], &[Fault::Doubled]),
            (&[quota, (true, "wallet", 5)], &[Fault::Differs]),
            (&[quota, wallet, (true, "gifts", 5)], &[Fault::Differs]),
            (&[quota, wallet, (true, "wallet", -4)], &[Fault::TakenBack]),
            (&[quota, wallet, (false, "wallet", 10)], &[Fault::PaidTwice]),
            (&[quota, wallet, (false, "wallet", 10), (false, "wallet", -10)], &[]),
        ] {
            assert_eq!(faults(&refund(entries)), expected, "{entries:?}");
        }
        let mut misnamed = refund(&[quota, wallet]);
        misnamed.entries[0].account_id = "bob".to_owned();
        assert_eq!(faults(&misnamed), [Fault::Misnamed]);
        let without = RefundBooks { has_origin: false, ..refund(&[quota, wallet]) };
        assert_eq!(faults(&without), [Fault::NoOrigin]);
        let reversed = |entries| RefundBooks { is_reversed: true, ..refund(entries) };
        let back = [quota, wallet, (true, "subscription", -6), (true, "wallet", -4)];
        assert_eq!(faults(&reversed(&back)), []);
        assert_eq!(faults(&reversed(&back[..3])), [Fault::NotTakenBack]);
    }

    #[test]
    fn balances_are_judged_only_if_the_ledger_explains_most_of_them() {
        let balance = |credits, ledger| BalanceBooks {
            account_id: "ada".to_owned(),
            bucket: "wallet".to_owned(),
            credits,
            ledger,
        };
        let told = |list: &[(i64, Option<i128>)]| {
            let mut balances = Balances::default();
            for (credits, ledger) in list {
                balances.add(&balance(*credits, *ledger));
            }
            let mut found = Findings::default();
            balances.tell(&mut found);
            (found.0[0].grade, found.0[0].says.clone())
        };
        let (grade, says) = told(&[(5, Some(5)), (7, Some(7)), (0, None), (223, Some(1000))]);
        assert_eq!(grade, Grade::Fail);
        assert!(
            says.ends_with("all others are equal: ada wallet is 223, 777 less than its entries"),
            "{says}"
        );
        // Empty accounts prove nothing.
        let (grade, says) = told(&[(0, None), (0, None), (0, None), (5, Some(1)), (7, Some(7))]);
        assert_eq!(grade, Grade::Warn);
        assert!(says.contains("for 1 of 2 "), "{says}");
        assert_eq!(told(&[(5, Some(5)), (0, None)]).0, Grade::Ok);
    }
}
