//! The demo: the built binary, its output, and the database afterwards.
//!
//! The demo runs twice for all tests of this file. Each promise is then looked up by SQL, apart
//! from the demo's own check. A lock keeps other test processes out of the directory.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use makegood::demo::simulator::{Simulator, write_provider_files};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use tokio::sync::OnceCell;

use crate::binary::{Ended, makegood};

const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;

/// A demo that has been run twice in one directory.
struct Demo {
    dir: PathBuf,
    runs: [Ended; 2],
    /// Held until the process ends.
    _lock: File,
}

async fn demo() -> &'static Demo {
    static DEMO: OnceCell<Demo> = OnceCell::const_new();
    DEMO.get_or_init(|| async {
        let room = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let lock = File::create(room.join("demo.lock")).unwrap();
        lock.lock().unwrap();
        let home = room.join("demo");
        if home.exists() {
            std::fs::remove_dir_all(&home).unwrap();
        }
        std::fs::create_dir(&home).unwrap();
        let first = makegood(&["demo"]).within(&home).output().await;
        let second = makegood(&["demo"]).within(&home).output().await;
        Demo { dir: home.join("makegood-demo"), runs: [first, second], _lock: lock }
    })
    .await
}

async fn database() -> SqliteConnection {
    let file = demo().await.dir.join("platform.db");
    SqliteConnectOptions::new().filename(file).connect().await.unwrap()
}

/// Rows as lines, their columns divided by blanks; the statement makes one text of each row.
async fn lines(statement: &'static str) -> Vec<String> {
    sqlx::query_scalar(statement).fetch_all(&mut database().await).await.unwrap()
}

async fn number(statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(&mut database().await).await.unwrap()
}

/// All refunds by makegood of charges like this: item, subscription, wallet, reason.
async fn refunds(charge: &'static str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', charge_id || '/' || output_index, subscription_credits, wallet_credits, reason)
         FROM makegood_refunds WHERE charge_id LIKE $1 ORDER BY charge_id, output_index",
    )
    .bind(charge)
    .fetch_all(&mut database().await)
    .await
    .unwrap()
}

/// makegood's records about charges like this: item, state, reason.
async fn orphans(charge: &'static str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', charge_id || '/' || output_index, state, reason)
         FROM makegood_orphans WHERE charge_id LIKE $1 ORDER BY charge_id, output_index",
    )
    .bind(charge)
    .fetch_all(&mut database().await)
    .await
    .unwrap()
}

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn the_demo_ends_well_says_so_and_is_the_same_every_time() {
    let [first, second] = &demo().await.runs;
    for run in [first, second] {
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    }
    assert_eq!(first.stdout, second.stdout);
    assert!(first.stdout.contains("Checked: 43 stories ended as promised"));
}

#[tokio::test]
async fn every_promise_has_a_row_in_the_table_and_no_line_is_too_wide() {
    let text = &demo().await.runs[0].stdout;
    let told: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once("  ").map(|(word, _)| word))
        .filter(|word| word.len() == 3 && word.starts_with('P'))
        .collect();
    let promised: Vec<String> = (1..=20).map(|number| format!("P{number:02}")).collect();
    assert!(told.iter().copied().eq(promised.iter().map(String::as_str)), "{told:?}");
    // Lines with the binary's path are as long as that path.
    let binary = env!("CARGO_BIN_EXE_makegood");
    for line in text.lines().filter(|line| !line.contains(binary)) {
        assert!(line.chars().count() <= 110, "{line}");
        assert!(line.is_ascii(), "piped output is plain: {line}");
    }
}

#[tokio::test]
async fn ordinary_charges_are_not_touched() {
    assert_eq!(number("SELECT count(*) FROM charges WHERE id LIKE 'run-%'").await, 364);
    assert_eq!(orphans("run-%").await, NOTHING);
    assert_eq!(refunds("run-%").await, NOTHING);
    let delivered =
        "SELECT count(*) FROM usage_history WHERE charge_id LIKE 'run-%' AND status <> 'delivered'";
    assert_eq!(number(delivered).await, 0);
}

#[tokio::test]
async fn p01_a_failure_is_refunded_unasked_and_never_twice_beside_the_platforms_own_refund() {
    assert_eq!(refunds("p01-server-error").await, ["p01-server-error/0 20 0 server_error"]);
    assert_eq!(refunds("p01-given-back").await, NOTHING);
    assert_eq!(orphans("p01-given-back").await, ["p01-given-back/0 closed already_refunded"]);
    let back =
        "SELECT sum(credits) FROM ledger_entries WHERE charge_id = 'p01-given-back' AND kind = 'refund'";
    assert_eq!(number(back).await, 60);
    assert_eq!(refunds("p01-which-one").await, NOTHING);
}

#[tokio::test]
async fn p02_every_kind_of_failure_is_refunded_by_its_name() {
    let expected = [
        "p02-malformed/0 0 20 malformed_response",
        "p02-never-sent/0 20 0 no_provider_job",
        "p02-queue/0 60 0 queue_timeout",
        "p02-safety/0 25 0 content_safety",
    ];
    assert_eq!(refunds("p02-%").await, expected);
}

#[tokio::test]
async fn p03_credits_go_back_to_the_balances_that_paid_and_never_more_than_was_drawn() {
    let both = ["p03-two-balances/0 30 0 provider_error", "p03-two-balances/1 10 20 provider_error"];
    assert_eq!(refunds("p03-two-balances").await, both);
    // Began with 10, was charged 45 and 5, and got 45 back.
    assert_eq!(
        number("SELECT credits FROM balances WHERE account_id = 'emi' AND bucket = 'subscription'").await,
        5
    );
    let over = "SELECT count(*) FROM charges c WHERE
        (SELECT coalesce(sum(r.subscription_credits), 0) FROM makegood_refunds r WHERE r.charge_id = c.id) > c.subscription_credits
        OR (SELECT coalesce(sum(r.wallet_credits), 0) FROM makegood_refunds r WHERE r.charge_id = c.id) > c.wallet_credits";
    assert_eq!(number(over).await, 0);
    assert_eq!(refunds("p03-no-wallet").await, NOTHING);
    assert_eq!(orphans("p03-no-wallet").await, ["p03-no-wallet/0 held no_balance"]);
    assert_eq!(orphans("p03-sum-is-off").await.len(), 2);
}

#[tokio::test]
async fn p03_the_ledger_the_refunds_and_the_balances_agree() {
    let sum = number("SELECT sum(subscription_credits + wallet_credits) FROM makegood_refunds").await;
    assert_eq!(sum, 1055);
    assert_eq!(number("SELECT sum(credits) FROM ledger_entries WHERE refund_id IS NOT NULL").await, sum);
    // 2500 for each of the 40 accounts that are in no example, and the initial balances of the
    // others.
    let opening = 40 * 2500 + 800 + 550 + 1200 + 800 + 10 + 6000 + 50;
    // Finn's wallet has no row, so nothing was taken from it.
    let posted =
        "SELECT sum(credits) FROM ledger_entries WHERE NOT (account_id = 'finn' AND bucket = 'wallet')";
    assert_eq!(number("SELECT sum(credits) FROM balances").await, opening + number(posted).await);
}

#[tokio::test]
async fn p04_a_refunded_output_is_not_billable_and_all_others_are() {
    let not_billable = "SELECT count(*) FROM usage_history u
        WHERE u.billable = EXISTS (SELECT 1 FROM ledger_entries l WHERE l.kind = 'refund' AND l.charge_id = u.charge_id
                                   AND (l.output_index = u.output_index OR l.output_index IS NULL))";
    assert_eq!(number(not_billable).await, 0);
    let status = "SELECT status || ' ' || billable FROM usage_history WHERE charge_id = 'p04-usage'";
    assert_eq!(lines(status).await, ["refunded 0"]);
}

#[tokio::test]
async fn p05_of_four_pictures_one_is_refunded_and_three_stay_paid() {
    assert_eq!(refunds("p05-four").await, ["p05-four/2 20 0 missing_output"]);
    let billable =
        "SELECT output_index || ' ' || status FROM usage_history WHERE charge_id = 'p05-four' AND billable
                    ORDER BY output_index";
    assert_eq!(lines(billable).await, ["0 delivered", "1 delivered", "3 delivered"]);
}

#[tokio::test]
async fn p06_every_shot_is_billed_alone_in_one_job_or_in_several() {
    assert_eq!(refunds("p06-shot-by-shot").await, ["p06-shot-by-shot/1 0 50 server_error"]);
    assert_eq!(orphans("p06-shot-by-shot").await, ["p06-shot-by-shot/1 refunded server_error"]);
    assert_eq!(refunds("p06-two-of-three").await, ["p06-two-of-three/2 60 0 missing_output"]);
    let files = "SELECT count(DISTINCT sha256) FROM stored_outputs WHERE charge_id = 'p06-two-of-three'";
    assert_eq!(number(files).await, 2, "two shots, two files");
}

#[tokio::test]
async fn p07_a_workspace_gets_back_what_it_paid() {
    let entries = "SELECT l.account_id || ' ' || a.kind || ' ' || l.credits FROM ledger_entries l JOIN accounts a ON a.id = l.account_id
                   WHERE l.charge_id = 'p07-workspace' AND l.kind = 'refund'";
    assert_eq!(lines(entries).await, ["atelier workspace 100"]);
}

#[tokio::test]
async fn p08_a_retry_of_equal_amount_does_not_cancel_the_refund_of_the_first_try() {
    assert_eq!(refunds("p08-%").await, ["p08-first-try/0 20 0 server_error"]);
    assert_eq!(orphans("p08-retry").await, NOTHING);
}

#[tokio::test]
async fn p09_p10_p12_a_delivered_or_never_charged_item_is_left_alone() {
    for charge in ["p09-six-fingers", "p10-deleted", "p12-nothing"] {
        assert_eq!(orphans(charge).await, NOTHING, "{charge}");
        assert_eq!(refunds(charge).await, NOTHING, "{charge}");
    }
    let kept =
        "SELECT count(*) FROM stored_outputs WHERE charge_id = 'p10-deleted' AND deleted_at IS NOT NULL";
    assert_eq!(number(kept).await, 1);
}

#[tokio::test]
async fn p11_cancelled_is_paid_if_it_was_completed_and_refunded_if_not() {
    assert_eq!(refunds("p11-%").await, ["p11-stopped/0 60 0 provider_cancelled"]);
    let expected = [
        "p11-cancelled-done/0 recovered output_available",
        "p11-cancelled-gone/0 closed completed_after_cancel",
        "p11-stopped/0 refunded provider_cancelled",
    ];
    assert_eq!(orphans("p11-%").await, expected);
}

#[tokio::test]
async fn p13_a_misplaced_output_is_put_back_and_one_that_a_person_moved_stays() {
    assert_eq!(refunds("p13-%").await, NOTHING);
    let places = "SELECT id || ' ' || charge_id || ' ' || project_id FROM stored_outputs WHERE charge_id LIKE 'p13-%' ORDER BY id";
    let expected = [
        "out-p13-hers-0 p13-hers ada-project",
        "out-p13-mixup-a-0 p13-mixup-a atelier-project",
        "out-p13-mixup-b-0 p13-mixup-b atelier-project",
        "out-p13-mixup-c-0 p13-mixup-c atelier-project",
        "out-p13-moved-0 p13-moved chloe-portfolio",
        "out-p13-other-0 p13-other ada-project",
        "out-p13-wrong-project-0 p13-wrong-project emi-project",
    ];
    assert_eq!(lines(places).await, expected);
    let misplaced = "SELECT count(*) FROM stored_outputs s JOIN charges c ON c.id = s.charge_id
                     WHERE c.id LIKE 'p13-%' AND s.node_id <> c.id || '-node'";
    assert_eq!(number(misplaced).await, 0);
    assert_eq!(
        orphans("p13-twin-%").await,
        ["p13-twin-a/0 held duplicate_job", "p13-twin-b/0 held duplicate_job"]
    );
}

#[tokio::test]
async fn p14_an_orphan_is_found_by_the_recurring_job_alone() {
    let found = "SELECT output_index || ' ' || opened_by || ' ' || state FROM makegood_orphans
                 WHERE charge_id = 'p14-unnoticed' ORDER BY output_index";
    assert_eq!(lines(found).await, ["0 grace recovered", "1 grace recovered"]);
    assert_eq!(number("SELECT count(*) FROM makegood_resolutions WHERE decided_by <> 'makegood'").await, 0);
}

#[tokio::test]
async fn p15_every_orphan_is_made_good_within_24_hours_also_without_an_answer() {
    let late = "SELECT count(*) FROM makegood_orphans WHERE resolved_at > charged_at + 86400000000";
    assert_eq!(number(late).await, 0);
    let overdue = "SELECT count(*) FROM makegood_orphans
                   WHERE resolved_at IS NULL AND window_ends_at < (SELECT max(finished_at) FROM makegood_passes)";
    assert_eq!(number(overdue).await, 0);
    let expected = [
        "p15-broken-file/0 0 90 recovery_failed",
        "p15-provider-down/0 35 0 unconfirmed",
        "p15-timed-out/0 120 0 timed_out",
    ];
    assert_eq!(refunds("p15-%").await, expected);
    let earliest = "SELECT min(resolved_at - charged_at) FROM makegood_orphans WHERE charge_id LIKE 'p15-%' AND state = 'refunded'";
    assert!(number(earliest).await >= 22 * HOUR, "the benefit of the doubt lasts 22 hours");
    assert_eq!(
        number(
            "SELECT count(*) FROM makegood_orphans WHERE charge_id = 'p15-provider-down' AND questions >= 3"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn p16_p22_recovered_files_are_on_disk_and_in_the_project() {
    assert_eq!(refunds("p16-%").await, NOTHING);
    let home = "SELECT s.uri FROM makegood_recoveries v JOIN stored_outputs s ON s.id = v.stored_output_id
                JOIN charges c ON c.id = v.charge_id
                WHERE v.kind = 'recover' AND s.project_id = c.project_id AND s.node_id = c.id || '-node' AND s.size_bytes > 0";
    let uris = lines(home).await;
    assert_eq!(uris.len(), 8, "{uris:?}");
    for uri in uris {
        let path = url::Url::parse(&uri).unwrap().to_file_path().unwrap();
        assert!(path.starts_with(demo().await.dir.join("outputs")) && path.is_file(), "{uri}");
    }
    let words = "SELECT uri FROM stored_outputs WHERE charge_id = 'p16-words'";
    let path = url::Url::parse(&lines(words).await[0]).unwrap().to_file_path().unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "Words about inline-p16-words");
}

#[tokio::test]
async fn p17_a_job_that_never_ran_is_refunded() {
    assert_eq!(refunds("p17-%").await, ["p17-never-ran/0 0 30 never_returned"]);
}

#[tokio::test]
async fn p18_an_item_whose_file_is_gone_is_refunded() {
    let expected = ["p18-dead-link/0 90 0 output_expired", "p18-removed/0 20 0 output_expired"];
    assert_eq!(refunds("p18-%").await, expected);
}

#[tokio::test]
async fn p19_a_failure_on_record_is_refunded_within_two_minutes_of_being_recorded() {
    assert_eq!(refunds("p19-%").await, ["p19-on-record/0 0 20 reported_failed"]);
    let took = number(
        "SELECT r.refunded_at - i.failed_at FROM makegood_refunds r
         JOIN charge_items i ON i.charge_id = r.charge_id AND i.output_index = r.output_index WHERE r.charge_id = 'p19-on-record'",
    )
    .await;
    assert!((0..=2 * MINUTE).contains(&took), "{took} microseconds");
}

#[tokio::test]
async fn p20_an_output_that_arrives_while_it_is_asked_for_closes_the_case() {
    assert_eq!(refunds("p20-late").await, NOTHING);
    assert_eq!(orphans("p20-late").await, ["p20-late/0 closed delivered"]);
    // The platform's own output, which the question stored; makegood's copy was deleted again.
    assert_eq!(lines("SELECT id FROM stored_outputs WHERE charge_id = 'p20-late'").await, ["out-p20-late-0"]);
    let recovered = number("SELECT count(*) FROM makegood_recoveries WHERE kind = 'recover'").await;
    assert_eq!(files_in(&demo().await.dir.join("outputs")), recovered, "no file that no row names");
}

fn files_in(dir: &Path) -> i64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_in(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn p21_the_billing_activity_shows_deduction_detection_and_refund() {
    let activity = "SELECT activity || ' ' || credits FROM billing_activity WHERE charge_id = 'p01-server-error' ORDER BY at, credits";
    assert_eq!(lines(activity).await, ["deduction -20", "failure_detected 0", "refund 20"]);
}

#[tokio::test]
async fn a_directory_of_another_program_is_refused_with_code_2_and_unchanged() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("makegood-demo/outputs")).unwrap();
    let theirs = home.path().join("makegood-demo/outputs/thesis.txt");
    std::fs::write(&theirs, "years of work").unwrap();

    let ended = makegood(&["demo"]).within(home.path()).output().await;

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert!(ended.stderr.contains("nothing in it was touched"), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(theirs).unwrap(), "years of work");
}

#[tokio::test]
async fn the_kept_directory_works_and_has_open_orphans() {
    let home = tempfile::tempdir().unwrap();
    let ended = makegood(&["demo", "--dir", "a b"]).within(home.path()).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let dir = home.path().join("a b");
    // In place of `makegood simulate-provider`, whose port may be taken.
    let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    write_provider_files(&dir.join("providers"), &simulator.base_url()).unwrap();

    let arguments = ["--config", "a b/makegood.toml", "--quiet", "run"];
    let ended = makegood(&arguments).within(home.path()).output().await;

    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["opened"], 3, "{report}");
    assert_eq!(report["outcomes"]["refund"]["server_error"], 1, "{report}");
    assert_eq!(report["outcomes"]["recover"]["output_available"], 1, "{report}");
    assert!(report["outcomes"]["wait"]["still_running"].as_i64() >= Some(1), "{report}");
    assert!(std::fs::read_dir(dir.join("outputs/new-not-stored/0")).unwrap().count() == 1);
    simulator.stop().await;
}
