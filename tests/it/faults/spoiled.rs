//! Shows that every check of the books can find a violation: puts one into a database, with the
//! triggers that would prevent it disabled, and runs the check.

use super::books::{ALWAYS, AT_THE_END, CALM};
use super::plan::{NewCharge, Plan, Size};
use super::server::{Server, lines};
use super::{World, platform, prepared};

const SIZE: Size = Size { steps: 0, workers: 1, runs: 0, charges: 0, to_the_end: false };

/// The corruption, by the check that has to find it.
const SPOILED: &[(&str, &str)] = &[
    (
        "items with two current resolutions",
        "DROP INDEX one_current_resolution_an_item;
         INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at, decided_by)
         SELECT charge_id, output_index, kind, reason, rule, resolved_at, decided_by FROM makegood_resolutions LIMIT 1",
    ),
    (
        "items refunded twice by makegood",
        "INSERT INTO ledger_entries SELECT 'twice', account_id, bucket, credits, kind, charge_id, output_index, refund_id, posted_at
         FROM ledger_entries WHERE refund_id IS NOT NULL LIMIT 1",
    ),
    (
        "charges of which makegood gave back more, in one bucket, than was drawn",
        "UPDATE ledger_entries SET credits = credits + 1000 WHERE refund_id IS NOT NULL",
    ),
    (
        "charges of which makegood and the platform together gave back more, in one bucket, than was drawn",
        "INSERT INTO ledger_entries SELECT 'own:more', account_id, bucket, 1 - credits, 'refund', charge_id, 0, NULL, posted_at
         FROM ledger_entries WHERE kind = 'charge' LIMIT 1",
    ),
    (BALANCES, "UPDATE balances SET credits = credits + 1"),
    (BALANCES, "DELETE FROM balances WHERE account_id = 'account-0'"),
    (BALANCES, "INSERT INTO balances VALUES ('nobody', 'wallet', 0)"),
    (BALANCES, "UPDATE ledger_entries SET account_id = 'nobody' WHERE refund_id IS NOT NULL"),
    (
        "refunds that the ledger does not show, per bucket, or shows on another account",
        "DELETE FROM ledger_entries WHERE refund_id IS NOT NULL",
    ),
    (ENTRIES, "UPDATE ledger_entries SET output_index = 77 WHERE refund_id IS NOT NULL"),
    (ENTRIES, "UPDATE ledger_entries SET charge_id = 'another' WHERE refund_id IS NOT NULL"),
    (ENTRIES, "UPDATE ledger_entries SET kind = 'gift' WHERE refund_id IS NOT NULL"),
    (ENTRIES, "UPDATE ledger_entries SET account_id = 'nobody' WHERE refund_id IS NOT NULL"),
    (ENTRIES, "UPDATE ledger_entries SET refund_id = NULL WHERE refund_id IS NOT NULL"),
    (ENTRIES, "UPDATE ledger_entries SET credits = credits - 1 WHERE refund_id IS NOT NULL"),
    (
        "entries of the platform's that are others than it made",
        "UPDATE ledger_entries SET credits = credits - 1 WHERE id LIKE 'taken:%'",
    ),
    (
        "charges whose row is not the sum of their refunds",
        "ALTER TABLE makegood_charges DROP CONSTRAINT never_more_refunded_than_drawn_wallet;
         UPDATE makegood_charges SET wallet_refunded = wallet_refunded + 1",
    ),
    ("items refunded by another sum than they cost", "UPDATE charge_items SET credits = credits + 1"),
    ("items refunded by another sum than they cost", "DELETE FROM charge_items"),
    (EVENTS, "DELETE FROM makegood_orphan_events WHERE kind = 'refund'"),
    (
        EVENTS,
        "INSERT INTO makegood_orphan_events (orphan_id, charge_id, output_index, at, kind)
         SELECT orphan_id, charge_id, output_index, at, kind FROM makegood_orphan_events WHERE kind = 'recover' LIMIT 1",
    ),
    (
        "orphans that do not stand as their current resolution says",
        "UPDATE makegood_orphans SET state = 'closed' WHERE state = 'refunded'",
    ),
    (
        "orphans without exactly one event of their opening",
        "DELETE FROM makegood_orphan_events WHERE kind = 'opened'",
    ),
    (
        "held orphans whose last event is no hold for the same reason",
        "UPDATE makegood_orphans SET state = 'held', reason = 'brake' WHERE state = 'open'",
    ),
    (
        "items that were not reopened exactly as often as a resolution of theirs was superseded",
        "UPDATE makegood_resolutions SET superseded_at = resolved_at",
    ),
    (BRAKE, "UPDATE makegood_brake SET engaged_at = clock_timestamp()"),
    (
        BRAKE,
        "INSERT INTO makegood_brake_events (at, kind, by_whom, reason) SELECT clock_timestamp(), kind, '-', '-'
         FROM (VALUES ('engaged'), ('released'), ('released')) AS x(kind)",
    ),
    (
        "items closed as completed after a cancel that nobody made",
        "UPDATE makegood_resolutions SET reason = 'completed_after_cancel'",
    ),
    (
        "refunds without a resolution, or resolutions by refund without one",
        "DELETE FROM makegood_resolutions WHERE kind = 'refund'",
    ),
    (
        "items that were brought home twice, or brought home and refunded",
        "INSERT INTO makegood_recoveries (resolution_id, charge_id, output_index, kind, provider, stored_output_id, recovered_at)
         SELECT -1, charge_id, output_index, 'recover', provider, '-', refunded_at FROM makegood_refunds LIMIT 1",
    ),
    (
        "recoveries without their stored output, or outputs of makegood's without a recovery",
        "DELETE FROM stored_outputs WHERE id LIKE 'makegood:%'",
    ),
    (
        SEEN,
        "INSERT INTO faults.visible
         SELECT charge_id, output_index, 'output', began - interval '1 second', began - interval '1 second', began - interval '1 microsecond'
         FROM faults.refunds LIMIT 1",
    ),
    (
        SEEN,
        "INSERT INTO faults.visible SELECT charge_id, output_index, 'refund', began - interval '9 seconds', began - interval '3 seconds', NULL
         FROM faults.refunds LIMIT 1",
    ),
    ("refunds that were not noted as they happened", "DELETE FROM faults.refunds"),
    (
        "refunds of items that the platform refunded under the balance's lock",
        "INSERT INTO faults.visible SELECT charge_id, output_index, 'given', began, began, began FROM faults.refunds LIMIT 1",
    ),
    (
        "refunds of items whose output makegood_store_output had taken in",
        "INSERT INTO faults.visible SELECT charge_id, output_index, 'kept', began, began, began FROM faults.refunds LIMIT 1",
    ),
    (
        "counters that are not the books'",
        "UPDATE makegood_counters SET value = value + 1 WHERE metric = 'refunds'",
    ),
    (
        "refunds beyond the brake's limit in some hour, counted from its last release",
        "INSERT INTO makegood_refunds SELECT id || nth, -nth, charge_id, 100 + nth, account_id, provider, model, subscription_credits, wallet_credits, reason, refunded_at
         FROM (SELECT * FROM makegood_refunds LIMIT 1) AS one, generate_series(1, 13) AS nth",
    ),
    (
        "refunds beyond the brake's limit of credits in some hour, counted from its last release",
        "UPDATE makegood_refunds SET wallet_credits = wallet_credits + 100",
    ),
    (
        "sums of the brake that hold less than was refunded since its last release",
        "INSERT INTO makegood_refunds SELECT id || nth, -nth, charge_id, 100 + nth, account_id, provider, model, subscription_credits, wallet_credits, reason,
                                             clock_timestamp()
         FROM (SELECT * FROM makegood_refunds LIMIT 1) AS one, generate_series(1, 20) AS nth",
    ),
    ("orphans that are leased", "UPDATE makegood_orphans SET leased_until = clock_timestamp()"),
    (
        "orphans that were due when the last pass began, and still are",
        "UPDATE makegood_orphans SET due_at = opened_at - interval '1 day'",
    ),
    (
        "items past their grace without an output, of which nothing is known",
        "DELETE FROM makegood_orphans; DELETE FROM stored_outputs; UPDATE charges SET charged_at = charged_at - interval '1 day'",
    ),
    (
        "items open past the end of their window",
        "UPDATE charges SET charged_at = charged_at - interval '1 day'; UPDATE makegood_orphans SET opened_at = opened_at - interval '1 day'",
    ),
    (
        "items that were opened late, and are open longer than passes need",
        "UPDATE charges SET charged_at = charged_at - interval '2 days'; UPDATE makegood_orphans SET opened_at = opened_at - interval '3 hours';
         INSERT INTO faults.calm SELECT clock_timestamp() - nth * interval '10 minutes' FROM generate_series(0, 4) AS nth",
    ),
    (
        "items that ended otherwise than their job's fate has it, and nobody touched them",
        "UPDATE faults.items SET want = 'relinked'",
    ),
    (
        "items that ended in neither an output nor a refund",
        "DELETE FROM stored_outputs; UPDATE makegood_orphans SET reason = 'completed_after_cancel'",
    ),
    ("items that ended in neither an output nor a refund", "DELETE FROM ledger_entries"),
    ("orphans that are open or held", "UPDATE makegood_orphans SET state = 'open', resolved_at = NULL"),
];

const BALANCES: &str =
    "balances that are not what they opened with and the ledger since, or were made or lost";
const ENTRIES: &str =
    "entries that are not the platform's and of no refund of ours: of its charge, item, account and sum";
const EVENTS: &str = "resolutions without exactly one event of their own, or events without a resolution";
const BRAKE: &str = "a brake that does not stand as its last event says, or whose events do not alternate";
const SEEN: &str = "refunds of items whose output or refund by the platform was to be seen before";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_the_books_can_find_something() {
    if !super::can_be_tried() {
        return;
    }
    prepared();
    let server = Server::start().await;
    // Under a brake, and by a clock that is right.
    let is_fit = |seed: &u64| !Plan::new(*seed, SIZE, &platform::weights()).wild;
    let seed = (6..).step_by(6).find(is_fit).unwrap();
    let world = World::new(&server, seed, SIZE).await;
    for kind in 0..platform::KINDS.len() {
        let new =
            NewCharge { kind, account: kind % 2, age: 30, subscription: 37, finished_after: 0, struck: None };
        world.answers.know(&platform::charge(&world.pool, format!("c{kind}"), 0, new).await);
    }
    world.calm().await;
    world.books_agree(&[ALWAYS, CALM]).await;
    for (page, sql) in [ALWAYS, CALM, AT_THE_END].into_iter().flatten() {
        let sql = world.page(sql);
        let before = lines(&world.pool, &sql).await;
        let spoils: Vec<&str> =
            SPOILED.iter().filter(|(about, _)| about == page).map(|(_, spoil)| *spoil).collect();
        assert!(!spoils.is_empty(), "nobody has seen it find anything: {page}");
        for spoil in spoils {
            // Triggers and foreign keys do not watch a replica.
            let spoiled =
                format!("BEGIN; SET LOCAL session_replication_role = replica; {spoil}; {sql}; ROLLBACK");
            let found = lines(&world.pool, &spoiled).await;
            assert!(found.len() > before.len(), "{page}: not found after {spoil}");
        }
    }
    let pages = [ALWAYS, CALM, AT_THE_END].concat();
    let unknown = SPOILED.iter().find(|(about, _)| !pages.iter().any(|(page, _)| page == about));
    assert!(unknown.is_none(), "there is no such page: {unknown:?}");
}

/// An unknown result must not count as none.
#[tokio::test]
#[should_panic(expected = "a row that cannot be told")]
async fn a_page_that_answers_in_numbers_is_no_page_that_finds_nothing() {
    let url = &crate::postgres::server().url;
    lines(&sqlx::PgPool::connect(url).await.unwrap(), "SELECT 1").await;
}
