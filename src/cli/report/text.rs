//! The report as text: first what needs a person, then what is open, then what was made good.

use std::fmt::Write as _;

use super::Review;
use crate::cli::explain::{because_waiting, read_reason};
use crate::cli::words::{count, plain, relative, table, time, when};
use crate::clock::Timestamp;
use crate::duration::format_rounded;
use crate::store::{LateItem, MadeGood, Waiting};

/// Writing to a string does not fail.
macro_rules! line {
    ($page:expr, $($words:tt)*) => {{ let _ = writeln!($page, $($words)*); }};
}

pub(super) fn render(review: &Review) -> String {
    let mut page = String::new();
    let now = review.now;
    line!(page, "makegood report at {} UTC", time(now));
    match review.last_success {
        Some(at) => line!(page, "The last successful pass ended {}.", relative(at, now)),
        None => line!(page, "No pass has succeeded yet."),
    }
    for brake in [&review.brake, &review.own_faults].into_iter().flatten() {
        line!(page, "\nTHE BRAKE IS ON since {}: {}.", when(brake.since, now), plain(&brake.reason));
        line!(
            page,
            "Refunds are held. Examine the cause, then run: makegood brake release --by WHO --reason WHY"
        );
    }
    for (provider, held) in &review.providers {
        let (name, since) = (plain(provider), when(held.engaged_at, now));
        line!(page, "\nTHE BRAKE IS ON FOR {name} ONLY since {since}: {}.", plain(&held.reason));
        line!(
            page,
            "Examine the cause, then run: makegood brake release --provider {name} --by WHO --reason WHY"
        );
    }
    held_accounts(&mut page, review);
    late(&mut page, review);
    waiting(&mut page, &review.waiting, "held", "Held for a person", now);
    waiting(&mut page, &review.waiting, "open", "Open", now);
    made_good(&mut page, review);
    made_after_all(&mut page, review);
    page.truncate(page.trim_end().len());
    page
}

fn held_accounts(page: &mut String, review: &Review) {
    if review.accounts_held == 0 {
        return;
    }
    let accounts = count(i128::from(review.accounts_held), "account is", "accounts are");
    line!(page, "\n{accounts} held by their own limits; no other account is:");
    for held in &review.accounts {
        let (since, refunds) = (when(held.held_at, review.now), held.refunds.unwrap_or_default());
        line!(page, "  since {since}, {refunds} refunds: {}", plain(&held.reason));
    }
    line!(page, "Examine the cause, then run: makegood brake release --account ID --by WHO --reason WHY");
}

fn late(page: &mut String, review: &Review) {
    if review.late_total == 0 {
        line!(page, "\nNothing is late.");
        return;
    }
    let now = review.now;
    let are = if review.late_total == 1 { "is" } else { "are" };
    line!(page, "\nLATE: {} {are} past the window", count(review.late_total, "item", "items"));
    let rows = review.late.iter().map(|item| {
        vec![
            format!("{}/{}", item.charge_id, item.output_index),
            item.provider.clone(),
            item.model.clone().unwrap_or_default(),
            item.state.clone(),
            item.reason.clone(),
            format_rounded(now.since(item.charged_at)),
            item.questions.to_string(),
            if item.due_at <= now { "next pass".to_owned() } else { relative(item.due_at, now) },
        ]
    });
    let header = ["item", "provider", "model", "state", "reason", "charged ago", "asked", "next check"];
    page.push_str(&table(&header, &["charged ago", "asked"], rows));
    let shown = i64::try_from(review.late.len()).unwrap_or(i64::MAX);
    if review.late_total > shown {
        line!(page, "  and {} more: --output csv lists all of them", review.late_total - shown);
    }
    line!(page, "  For details: makegood explain CHARGE/INDEX --ask");
}

fn waiting(page: &mut String, all: &[Waiting], state: &str, title: &str, now: Timestamp) {
    let of_state: Vec<&Waiting> = all.iter().filter(|each| each.state == state).collect();
    let items: i64 = of_state.iter().map(|each| each.items).sum();
    if items == 0 {
        line!(page, "\n{title}: nothing.");
        return;
    }
    line!(page, "\n{title}: {}", count(items, "item", "items"));
    let rows = of_state.iter().map(|each| {
        vec![
            each.provider.clone(),
            each.reason.clone(),
            each.items.to_string(),
            each.credits.to_string(),
            each.past_window.to_string(),
            format_rounded(now.since(each.oldest_charged_at)),
            each.example.clone(),
        ]
    });
    let header = ["provider", "reason", "items", "credits", "late", "oldest", "for instance"];
    page.push_str(&table(&header, &["items", "credits", "late", "oldest"], rows));
    let mut reasons: Vec<&str> = of_state.iter().map(|each| each.reason.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let why = read_reason(reason).map_or("found, and the provider has not been asked yet", |reason| {
            because_waiting(state, reason)
        });
        line!(page, "  {}: {why}", plain(reason));
    }
}

fn made_good(page: &mut String, review: &Review) {
    let since = when(review.since, review.now);
    let all = &review.made_good;
    if all.is_empty() {
        line!(page, "\nMade good since {since}: nothing.");
        return;
    }
    let items =
        |kind: &str| -> i64 { all.iter().filter(|each| each.kind == kind).map(|each| each.items).sum() };
    let credits = |of: fn(&MadeGood) -> i64| -> i64 { all.iter().map(of).fold(0, i64::saturating_add) };
    let (subscription, wallet) =
        (credits(|each| each.subscription_credits), credits(|each| each.wallet_credits));
    line!(
        page,
        "\nMade good since {since}: {}, {} recovered, {} relinked{}",
        count(items("refund"), "refund", "refunds"),
        count(items("recover"), "output", "outputs"),
        items("relink"),
        match items("reverse") {
            0 => String::new(),
            reversed => format!("; {} reversed", count(reversed, "refund", "refunds")),
        }
    );
    let rows = all.iter().map(|each| {
        let credits = |credits: i64| {
            if matches!(each.kind.as_str(), "refund" | "reverse") {
                credits.to_string()
            } else {
                String::new()
            }
        };
        vec![
            each.provider.clone(),
            each.kind.clone(),
            each.reason.clone(),
            each.items.to_string(),
            credits(each.subscription_credits),
            credits(each.wallet_credits),
        ]
    });
    let total = vec![
        "all".to_owned(),
        String::new(),
        String::new(),
        all.iter().map(|each| each.items).sum::<i64>().to_string(),
        subscription.to_string(),
        wallet.to_string(),
    ];
    let header = ["provider", "how", "reason", "items", "to subscription", "to wallet"];
    page.push_str(&table(&header, &["items", "to subscription", "to wallet"], rows.chain([total])));
}

/// Items that were refunded but made after all. The customer keeps the refund, and the provider was
/// paid for an output that was not delivered.
fn made_after_all(page: &mut String, review: &Review) {
    let all = &review.late_successes;
    if all.is_empty() {
        return;
    }
    let since = when(review.since, review.now);
    let never: i64 = all.iter().map(|each| each.never_delivered).sum();
    let items: i64 = all.iter().map(|each| each.items).sum();
    line!(
        page,
        "\nRefunded but made after all, noticed since {since}: {}, {never} of them never delivered",
        count(items, "item", "items")
    );
    let rows = all.iter().map(|each| {
        vec![
            each.provider.clone(),
            each.never_delivered.to_string(),
            (each.items - each.never_delivered).to_string(),
            each.subscription_credits.to_string(),
            each.wallet_credits.to_string(),
        ]
    });
    let header = ["provider", "never delivered", "stored late", "refunded to subscription", "to wallet"];
    page.push_str(&table(&header, &header[1..], rows));
    let undelivered: Vec<&LateItem> =
        review.late_success_items.iter().filter(|each| each.stored_output_id.is_none()).collect();
    if undelivered.is_empty() {
        return;
    }
    line!(page, "  Paid for and never delivered, to be claimed from the provider:");
    let rows = undelivered.iter().map(|item| {
        let (asked, said) = item.evidence.as_ref().map_or_else(Default::default, |evidence| {
            let status = evidence.http_status.map_or_else(String::new, |status| format!(" ({status})"));
            (time(evidence.asked_at), format!("{}{status}, answer #{}", evidence.verdict, evidence.answer_id))
        });
        vec![
            item.provider.clone(),
            item.provider_job_id.clone().unwrap_or_default(),
            item.model.clone(),
            format!("{}/{}", item.charge_id, item.output_index),
            item.refund_reason.clone(),
            asked,
            said,
        ]
    });
    let header = ["provider", "job", "model", "item", "refunded as", "asked again", "said"];
    page.push_str(&table(&header, &[], rows));
    let shown = i64::try_from(undelivered.len()).unwrap_or(i64::MAX);
    if never > shown {
        line!(page, "  and {} more: --output csv lists all of them", never - shown);
    }
    line!(page, "  For the evidence: --output json or csv, and makegood explain CHARGE/INDEX");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Engaged;
    use super::*;
    use crate::store::{LateEvidence, LateProvider, WaitingItem};

    const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

    /// Three refunded items that were made after all, one of them with its evidence.
    fn after_all() -> (LateProvider, LateItem) {
        let after_all = LateProvider {
            provider: "fal".to_owned(),
            items: 3,
            never_delivered: 2,
            subscription_credits: 0,
            wallet_credits: 20,
        };
        let never_delivered = LateItem {
            charge_id: "ch_2".to_owned(),
            output_index: 1,
            account_id: "u".to_owned(),
            provider: "fal".to_owned(),
            model: "acme/video".to_owned(),
            provider_job_id: Some("job-7".to_owned()),
            charged_at: None,
            refund_reason: "unconfirmed".to_owned(),
            refunded_at: NOW - Duration::from_hours(7),
            subscription_credits: 0,
            wallet_credits: 10,
            noticed_at: NOW,
            noticed_by: "question".to_owned(),
            stored_output_id: None,
            evidence: Some(LateEvidence {
                answer_id: 12,
                asked_at: NOW,
                verdict: "succeeded".to_owned(),
                request: None,
                http_status: Some(200),
                excerpt: None,
                erased: None,
            }),
        };
        (after_all, never_delivered)
    }

    #[test]
    fn the_report_begins_with_what_needs_a_person() {
        let made = |kind: &str, reason: &str, subscription_credits, wallet_credits| MadeGood {
            provider: "fal".to_owned(),
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            items: 2,
            subscription_credits,
            wallet_credits,
        };
        let waits = |state: &str, reason: &str, past_window| Waiting {
            state: state.to_owned(),
            provider: "fal".to_owned(),
            reason: reason.to_owned(),
            items: 3,
            credits: 30,
            oldest_charged_at: NOW - Duration::from_hours(25),
            past_window,
            example: "ch_1/0".to_owned(),
            for_account: false,
        };
        let late = WaitingItem {
            charge_id: "ch_1".to_owned(),
            output_index: 0,
            account_id: None,
            provider: "fal".to_owned(),
            model: Some("acme/video".to_owned()),
            state: "held".to_owned(),
            reason: "brake".to_owned(),
            charged_at: NOW - Duration::from_hours(25),
            window_ends_at: NOW - Duration::from_hours(1),
            questions: 4,
            due_at: NOW,
            credits: Some(10),
        };
        let (after_all, never_delivered) = after_all();
        let review = Review {
            now: NOW,
            since: NOW - Duration::from_hours(24),
            last_success: Some(NOW - Duration::from_secs(61)),
            own_faults: None,
            providers: std::collections::BTreeMap::new(),
            accounts_held: 0,
            accounts: Vec::new(),
            brake: Some(Engaged { since: NOW - Duration::from_mins(5), reason: "more than 3".to_owned() }),
            made_good: vec![made("recover", "output_available", 0, 0), made("refund", "server_error", 12, 8)],
            waiting: vec![waits("open", "not_asked_yet", 0), waits("held", "brake", 2)],
            late_total: 2,
            late: vec![late],
            late_successes: vec![after_all],
            late_success_items: vec![never_delivered],
        };
        assert_eq!(
            render(&review),
            "makegood report at 2025-11-24 16:00:00 UTC\n\
             The last successful pass ended 1m 1s ago.\n\
             \n\
             THE BRAKE IS ON since 2025-11-24 15:55:00 (5m ago): more than 3.\n\
             Refunds are held. Examine the cause, then run: makegood brake release --by WHO --reason WHY\n\
             \n\
             LATE: 2 items are past the window\n\
             \x20 item    provider  model       state  reason  charged ago  asked  next check\n\
             \x20 ch_1/0  fal       acme/video  held   brake         1d 1h      4  next pass\n\
             \x20 and 1 more: --output csv lists all of them\n\
             \x20 For details: makegood explain CHARGE/INDEX --ask\n\
             \n\
             Held for a person: 3 items\n\
             \x20 provider  reason  items  credits  late  oldest  for instance\n\
             \x20 fal       brake       3       30     2   1d 1h  ch_1/0\n\
             \x20 brake: the brake is on: too many refunds came at once\n\
             \n\
             Open: 3 items\n\
             \x20 provider  reason         items  credits  late  oldest  for instance\n\
             \x20 fal       not_asked_yet      3       30     0   1d 1h  ch_1/0\n\
             \x20 not_asked_yet: found, and the provider has not been asked yet\n\
             \n\
             Made good since 2025-11-23 16:00:00 (1d ago): 2 refunds, 2 outputs recovered, 0 relinked\n\
             \x20 provider  how      reason            items  to subscription  to wallet\n\
             \x20 fal       recover  output_available      2\n\
             \x20 fal       refund   server_error          2               12          8\n\
             \x20 all                                      4               12          8\n\
             \n\
             Refunded but made after all, noticed since 2025-11-23 16:00:00 (1d ago): 3 items, 2 of them never delivered\n\
             \x20 provider  never delivered  stored late  refunded to subscription  to wallet\n\
             \x20 fal                     2            1                         0         20\n\
             \x20 Paid for and never delivered, to be claimed from the provider:\n\
             \x20 provider  job    model       item    refunded as  asked again          said\n\
             \x20 fal       job-7  acme/video  ch_2/1  unconfirmed  2025-11-24 16:00:00  succeeded (200), answer #12\n\
             \x20 and 1 more: --output csv lists all of them\n\
             \x20 For the evidence: --output json or csv, and makegood explain CHARGE/INDEX"
        );
    }
}
