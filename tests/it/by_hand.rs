//! One item made good by hand (P23, support acts by hand), beside passes, the platform and other
//! people: one wins, and the others see it and say so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use makegood::brake::BrakeLimits;
use makegood::clock::Clock;
use makegood::pass::{Deed, Ended, Parts, Wanted, by_hand};
use makegood::policy::{Decision, Reason};
use makegood::provider::Providers;
use makegood::store::Outcome;
use object_store::aws::AmazonS3Builder;

use crate::late::{LEASE, REFUND, another, claim, detect, output, settle, settlement};
use crate::world::{HOUR, MINUTE, Sql, World, on_both, start};

const REFUND_IT: Deed = Deed::Refund { anyway: false };
const ANYWAY: Deed = Deed::Refund { anyway: true };

fn wanted(item: &str, deed: Deed) -> Wanted {
    let (by, why) = ("mia".to_owned(), "ticket 7".to_owned());
    Wanted { item: item.parse().unwrap(), deed, by, why, patience: Duration::ZERO }
}

async fn mia(world: &World, item: &str, deed: Deed) -> Ended {
    by_hand(&world.parts, &wanted(item, deed)).await.unwrap()
}

/// As `mia`, but retries until the lease is given back.
async fn patient(parts: &Parts, item: &str, deed: Deed) -> Ended {
    by_hand(parts, &Wanted { patience: Duration::from_mins(2), ..wanted(item, deed) }).await.unwrap()
}

fn done(ended: &Ended) -> (u8, &'static str, Reason) {
    let Ended::Done(Decision { action, reason, rule }) = ended else { panic!("{ended:?}") };
    (*rule, action.as_str(), *reason)
}

fn refused(ended: &Ended) -> (Reason, bool) {
    let Ended::Refused { table, may_overrule, .. } = ended else { panic!("{ended:?}") };
    (table.reason, *may_overrule)
}

/// Who decided about the current resolution of an item, by which rule, and whether an answer is
/// kept with it.
async fn decided(world: &World, charge: &str) -> String {
    world
        .texts(&format!(
            "SELECT decided_by || ' ' || rule || ' ' || CASE WHEN answer_id IS NULL THEN 'no answer' ELSE 'an answer' END AS v
             FROM makegood_resolutions WHERE charge_id = '{charge}' AND superseded_at IS NULL"
        ))
        .await
        .join(", ")
}

async fn last_detail(world: &World, charge: &str) -> String {
    let of_it =
        format!("SELECT detail AS v FROM makegood_orphan_events WHERE charge_id = '{charge}' ORDER BY id");
    world.texts(&of_it).await.pop().unwrap()
}

async fn leases(world: &World) -> i64 {
    world.number("SELECT count(*) AS v FROM makegood_orphans WHERE leased_until IS NOT NULL").await
}

on_both! {
    async fn p23_an_item_that_a_pass_would_refund_is_refunded_at_once_in_a_persons_name(world) {
        world.balance("ada", 0, 0).await;
        // Too young for a pass to look at.
        world.charge("c1").age(MINUTE).job("failed-1").insert().await;
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "-");

        let ended = mia(&world, "c1/0", REFUND_IT).await;
        assert_eq!(done(&ended), (6, "refund", Reason::ProviderError));
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert_eq!(decided(&world, "c1").await, "mia 6 an answer");
        assert_eq!(last_detail(&world, "c1").await, "0 to the subscription, 10 to the wallet; by hand, mia: ticket 7");
        assert_eq!(world.balance_of("ada").await, (0, 10));

        for deed in [REFUND_IT, ANYWAY, Deed::Recover] {
            assert!(matches!(mia(&world, "c1/0", deed).await, Ended::Resolved), "{deed:?}");
        }
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!((world.balance_of("ada").await, leases(&world).await), ((0, 10), 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p23_a_refund_against_the_table_needs_the_anyway_flag(world) {
        world.balance("ada", 0, 0).await;
        let cases = [("c1", "running-1", Reason::StillRunning), ("c2", "ok-2", Reason::OutputAvailable), ("c3", "down-3", Reason::Unreachable)];
        for (charge, job, table) in cases {
            world.charge(charge).job(job).insert().await;
            let before = world.all_rows().await;
            assert_eq!(refused(&mia(&world, &format!("{charge}/0"), REFUND_IT).await), (table, true));
            assert_eq!(world.all_rows().await, before, "{charge}");
            assert_eq!(done(&mia(&world, &format!("{charge}/0"), ANYWAY).await), (0, "refund", Reason::ByHand));
            assert_eq!(world.refunded(charge).await, (0, 10), "{charge}");
            assert_eq!(decided(&world, charge).await, "mia 0 an answer");
        }
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.balance_of("ada").await, (0, 30));
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_p10_p12_a_refund_that_is_not_owed_is_refused_in_any_case_and_leaves_no_trace(world) {
        world.balance("ada", 0, 0).await;
        world.charge("stored").job("ok-1").insert().await;
        world.store_output("o1", Some(("stored", 0)), ("replicate", "ok-1", 0), ("p-stored", "n-stored")).await;
        world.charge("refunded").job("failed-2").insert().await;
        world.run(&world.refund_row("refunded", Some(0), "wallet", 10)).await;
        world.charge("in-part").job("failed-3").insert().await;
        world.run(&world.refund_row("in-part", Some(0), "wallet", 4)).await;
        world.charge("odd").job("failed-4").drawn(0, 11).insert().await;
        world.charge("free").job("failed-5").drawn(0, 0).items(&[0]).insert().await;
        world.charge("no-balance").account("bob").job("failed-6").insert().await;
        for (charge, table) in [
            ("stored", Reason::Delivered),
            ("refunded", Reason::AlreadyRefunded),
            ("in-part", Reason::AlreadyRefunded),
            ("odd", Reason::ItemsMismatch),
        ] {
            let before = world.all_rows().await;
            for deed in [REFUND_IT, ANYWAY] {
                assert_eq!(refused(&mia(&world, &format!("{charge}/0"), deed).await), (table, false), "{charge}");
            }
            assert_eq!(world.all_rows().await, before, "{charge}");
        }
        let before = world.all_rows().await;
        for deed in [REFUND_IT, ANYWAY] {
            assert!(matches!(mia(&world, "free/0", deed).await, Ended::CostNothing));
        }
        assert_eq!(world.all_rows().await, before);
        for deed in [REFUND_IT, ANYWAY] {
            assert_eq!(refused(&mia(&world, "no-balance/0", deed).await), (Reason::NoBalance, false));
        }
        assert_eq!((world.number("SELECT count(*) AS v FROM makegood_refunds").await, leases(&world).await), (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    /// Four credits of the whole charge were refunded without naming an item. A person may decide
    /// that they were for another item, and never more goes back than was drawn.
    async fn p03_p23_a_refund_that_names_no_item_is_a_persons_to_judge_and_the_draw_stays_the_limit(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").drawn(0, 20).items(&[10, 10]).insert().await;
        world.run(&world.refund_row("c1", None, "wallet", 4)).await;
        assert_eq!(refused(&mia(&world, "c1/0", REFUND_IT).await), (Reason::AlreadyRefunded, true));
        assert_eq!(done(&mia(&world, "c1/0", ANYWAY).await), (0, "refund", Reason::ByHand));
        let Ended::Held(held) = mia(&world, "c1/1", ANYWAY).await else { panic!("14 of 20 are back") };
        assert_eq!(held.reason, Reason::AlreadyRefunded);
        assert_eq!((world.balance_of("ada").await, world.refunded("c1").await), ((0, 14), (0, 10)));
        world.books_balance().await;
    }
}

on_both! {
    async fn p23_a_live_lease_is_respected_and_a_dead_one_expires(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        detect(&world).await;
        let case = claim(&world).await.pop().unwrap();
        assert!(matches!(mia(&world, "c1/0", REFUND_IT).await, Ended::Busy));
        assert_eq!(world.refunded("c1").await, (0, 0));

        world.pass_time(LEASE + MINUTE);
        assert_eq!(done(&mia(&world, "c1/0", REFUND_IT).await), (6, "refund", Reason::ProviderError));
        let late = settle(&world.store, &world, settlement(&world, case, REFUND)).await;
        assert_eq!(late, Outcome::Lost, "the one that slept sees it");
        assert_eq!(world.balance_of("ada").await, (0, 10));
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_an_operator_a_pass_and_another_operator_at_once_refund_each_item_once(world) {
        world.balance("ada", 0, 0).await;
        for nth in 0..6 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).drawn(4, 16).items(&[10, 10]).insert().await;
        }
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(Parts { store: another(&world).await, ..world.parts.clone() });
        }
        let operator = |parts: Parts| async move {
            let mut told = Vec::new();
            for nth in 0..6 {
                for index in 0..2 {
                    told.push(patient(&parts, &format!("c{nth}/{index}"), REFUND_IT).await);
                }
            }
            told
        };
        let [a, b, passes] = <[Parts; 3]>::try_from(all).unwrap();
        let passing = async {
            makegood::pass::run(&passes, World::orders(), |_| {}).await.unwrap()
        };
        let (a, b, report) = tokio::join!(operator(a), operator(b), passing);
        let by_hand = a.iter().chain(&b).filter(|ended| matches!(ended, Ended::Done(_))).count();
        for ended in a.iter().chain(&b) {
            assert!(matches!(ended, Ended::Done(_) | Ended::Resolved), "{ended:?}");
        }
        assert_eq!(by_hand as u64 + report.total("refund"), 12, "{report:?}");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 12);
        assert_eq!(world.balance_of("ada").await, (24, 96));
        world.books_balance().await;
    }
}

on_both! {
    async fn p01_p20_actions_of_the_platform_while_the_provider_is_asked_are_seen(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.while_asked("failed-1", world.refund_row("c1", Some(0), "wallet", 10));
        let ended = patient(&world.parts, "c1/0", ANYWAY).await;
        assert_eq!(refused(&ended), (Reason::AlreadyRefunded, false));

        world.charge("c2").job("running-2").insert().await;
        world.while_asked("running-2", output(&world, "c2", "running-2"));
        let ended = patient(&world.parts, "c2/0", ANYWAY).await;
        assert_eq!(refused(&ended), (Reason::Delivered, false));

        assert_eq!(world.balance_of("ada").await, (0, 10), "the platform's own, and no second one");
        world.pass_time(HOUR);
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "closed already_refunded");
        assert_eq!(world.fate("c2", 0).await, "closed delivered");
        world.books_balance().await;
    }
}

on_both! {
    /// The platform submits it again while its provider is asked: the answer about the old job is
    /// no evidence about the new one.
    async fn p17_an_answer_about_another_job_refunds_nothing(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.while_asked("failed-1", "UPDATE charges SET provider_job_id = 'running-2' WHERE id = 'c1'".to_owned());
        let ended = patient(&world.parts, "c1/0", REFUND_IT).await;
        assert_eq!(refused(&ended), (Reason::StillRunning, true));
        assert_eq!((world.refunded("c1").await, world.simulator.asks("running-2")), ((0, 0), 1));
        world.books_balance().await;
    }
}

on_both! {
    async fn p15_p23_the_brake_holds_a_refund_by_hand_too_unless_it_is_overruled(world) {
        let mut world = world;
        world.parts.rules.brake = BrakeLimits { refunds_per_hour: 1, ..BrakeLimits::default() };
        world.balance("ada", 0, 0).await;
        for nth in 0..4 {
            world.charge(&format!("c{nth}")).job(&format!("failed-{nth}")).insert().await;
        }
        assert_eq!(done(&mia(&world, "c0/0", REFUND_IT).await).0, 6);
        // It counts: the next one is one too many.
        let Ended::Held(held) = mia(&world, "c1/0", REFUND_IT).await else { panic!("one in an hour") };
        assert_eq!((held.reason, world.fate("c1", 0).await.as_str()), (Reason::Brake, "held brake"));
        assert!(world.store.brake().await.unwrap().engaged_at.is_some());
        assert!(matches!(mia(&world, "c2/0", REFUND_IT).await, Ended::Held(_)));

        // The one that is insisted on, and no other; the brake stays on.
        assert_eq!(done(&mia(&world, "c1/0", ANYWAY).await), (6, "refund", Reason::ProviderError));
        world.pass().await;
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 2);
        assert!(world.store.brake().await.unwrap().engaged_at.is_some());
        world.books_balance().await;
    }
}

on_both! {
    async fn p16_p23_an_output_is_recovered_by_hand_also_where_the_platform_prefers_to_refund(world) {
        let mut world = world;
        world.parts.rules.policy.prefer_refund = true;
        world.balance("ada", 0, 0).await;
        world.charge("c1").age(MINUTE).job("ok-1").insert().await;
        let ended = mia(&world, "c1/0", Deed::Recover).await;
        assert_eq!(done(&ended), (5, "recover", Reason::OutputAvailable));
        assert_eq!(decided(&world, "c1").await, "mia 5 an answer");
        assert_eq!(last_detail(&world, "c1").await, "by hand, mia: ticket 7");
        let output = "SELECT project_id || ' ' || node_id AS v FROM stored_outputs WHERE charge_id = 'c1' AND output_index = 0";
        assert_eq!(world.texts(output).await, ["p-c1 n-c1"]);
        for deed in [Deed::Recover, ANYWAY] {
            assert!(matches!(mia(&world, "c1/0", deed).await, Ended::Resolved));
        }
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p13_p23_a_misplaced_output_is_put_back_by_hand_and_never_refunded(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        world.store_output("o1", None, ("replicate", "ok-1", 0), ("elsewhere", "n")).await;
        assert_eq!(refused(&mia(&world, "c1/0", ANYWAY).await), (Reason::Misattributed, false));
        assert_eq!(done(&mia(&world, "c1/0", Deed::Recover).await), (3, "relink", Reason::Misattributed));
        assert_eq!(world.fate("c1", 0).await, "relinked misattributed");
        world.books_balance().await;
    }
}

on_both! {
    async fn p23_a_file_that_cannot_be_recovered_is_reported_and_left_to_passes(world) {
        world.balance("ada", 0, 0).await;
        for (charge, job) in [("c1", "failed-1"), ("c2", "file-down-2"), ("c3", "gone-3")] {
            world.charge(charge).job(job).insert().await;
        }
        assert_eq!(refused(&mia(&world, "c1/0", Deed::Recover).await), (Reason::ProviderError, false));
        let Ended::NotCopied(why) = mia(&world, "c2/0", Deed::Recover).await else { panic!("503") };
        assert!(why.contains("503"), "{why}");
        let Ended::NotCopied(why) = mia(&world, "c3/0", Deed::Recover).await else { panic!("410") };
        assert!(why.contains("410"), "{why}");
        let resolved = "SELECT count(*) AS v FROM makegood_resolutions";
        assert_eq!((world.number(resolved).await, leases(&world).await), (0, 0));
        world.pass().await;
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert_eq!(world.fate("c2", 0).await, "open recovery_retry");
        assert_eq!(world.fate("c3", 0).await, "refunded output_expired");
        world.books_balance().await;
    }
}

on_both! {
    async fn p23_a_file_whose_row_is_rejected_is_deleted_and_reported(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("ok-1").insert().await;
        match &world.sql {
            Sql::Postgres(_) => world.run(
                "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'this project is frozen'; END $$;
                 CREATE TRIGGER watch BEFORE INSERT ON stored_outputs FOR EACH ROW EXECUTE FUNCTION watch();").await,
            Sql::Sqlite(_) => world.run(
                "CREATE TRIGGER watch BEFORE INSERT ON stored_outputs BEGIN SELECT RAISE(ABORT, 'this project is frozen'); END;").await,
        }
        let Ended::NotWritten(why) = mia(&world, "c1/0", Deed::Recover).await else { panic!("it is frozen") };
        assert!(why.contains("this project is frozen"), "{why}");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_uploads").await, 0, "nothing is left behind");
        assert_eq!((world.fate("c1", 0).await.as_str(), leases(&world).await), ("open ", 0));
        match &world.sql {
            Sql::Postgres(_) => world.run("DROP TRIGGER watch ON stored_outputs").await,
            Sql::Sqlite(_) => world.run("DROP TRIGGER watch").await,
        }
        assert_eq!(done(&mia(&world, "c1/0", Deed::Recover).await), (5, "recover", Reason::OutputAvailable));
        world.books_balance().await;
    }
}

on_both! {
    async fn p23_the_answer_that_is_kept_bears_the_databases_time(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        // A person whose machine is three hours ahead.
        let providers = Providers::load(Some(&world.folder.path().join("providers")), Clock::simulated(start() + 3 * HOUR));
        let parts = Parts { providers: Arc::new(providers.unwrap()), ..world.parts.clone() };
        patient(&parts, "c1/0", REFUND_IT).await;
        let at = world.at(world.now());
        assert_eq!(world.number(&format!("SELECT count(*) AS v FROM makegood_answers WHERE asked_at = {at}")).await, 1);
    }
}

on_both! {
    /// The file is missing, so the provider is asked again for a fresh link. By then the item is
    /// leased, so no pass claims it.
    async fn p23_the_lease_is_held_for_the_whole_of_a_refund_by_hand(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("lost-1").insert().await;
        let leased = format!("(SELECT count(*) FROM makegood_orphans WHERE leased_until > {})", world.at(world.now()));
        // In `accounts`, because makegood reads every other relation.
        world
            .whenever_asked(format!("INSERT INTO accounts SELECT 'asked ' || count(*) || ', leased ' || {leased}, 'user' FROM accounts"));
        assert!(matches!(mia(&world, "c1/0", Deed::Recover).await, Ended::NotCopied(_)));
        let asked = world.texts("SELECT id AS v FROM accounts WHERE id LIKE 'asked%' ORDER BY id").await;
        assert_eq!(asked, ["asked 1, leased 0", "asked 2, leased 1"], "to judge it, and while it is carried out");
    }
}

on_both! {
    async fn p23_a_charge_that_no_pass_would_look_at_any_more_can_still_be_made_good(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").age(24 * HOUR * 400).job("unknown-1").insert().await;
        world.charge("c2").age(24 * HOUR * 400).insert().await;
        world.pass().await;
        assert_eq!((world.fate("c1", 0).await, world.fate("c2", 0).await), ("-".to_owned(), "-".to_owned()));
        assert_eq!(done(&mia(&world, "c1/0", REFUND_IT).await), (11, "refund", Reason::NeverReturned));
        assert_eq!(done(&mia(&world, "c2/0", REFUND_IT).await), (4, "refund", Reason::NoProviderJob));
        assert_eq!(world.balance_of("ada").await, (0, 20));
        world.books_balance().await;
    }
}

on_both! {
    async fn a_row_that_cannot_be_read_is_reported_and_takes_no_lease(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.without_keys("charge_items").await;
        world.run("UPDATE charge_items SET credits = NULL").await;
        let Ended::Unreadable(why) = mia(&world, "c1/0", ANYWAY).await else { panic!("no credits") };
        assert!(why.contains("credits"), "{why}");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_orphans").await, 0);
    }
}

fn not_restored(ended: &Ended) -> &str {
    let Ended::NotRestored(why) = ended else { panic!("{ended:?}") };
    why
}

on_both! {
    /// The platform removes the row of what was recovered. The provider is not asked again: the
    /// file is in our storage.
    async fn p10_p22_p23_a_row_that_the_platform_has_removed_is_inserted_again_by_hand(world) {
        world.balance("ada", 0, 0).await;
        for nth in 1..=2 {
            world.charge(&format!("c{nth}")).job(&format!("ok-{nth}")).insert().await;
        }
        world.pass().await;
        let rows = "SELECT id || ' ' || charge_id || '/' || output_index || ' ' || provider_job_id || ' ' || provider_output_index || ' ' || project_id
                           || ' ' || node_id || ' ' || uri || ' ' || content_type || ' ' || size_bytes || ' ' || sha256 AS v
                    FROM stored_outputs ORDER BY id";
        let before = world.texts(rows).await;
        world.loses("charge_id = 'c1'").await;
        let asked = world.simulator.total_hits();
        let ended = mia(&world, "c1/0", Deed::Recover).await;
        assert!(matches!(&ended, Ended::Restored(lost) if lost.uri.is_some()), "{ended:?}");
        assert_eq!((world.texts(rows).await, world.simulator.total_hits()), (before.clone(), asked));
        assert_eq!(world.fate("c1", 0).await, "recovered output_available");
        assert_eq!(last_detail(&world, "c1").await, "its row was inserted again; by hand, mia: ticket 7");
        // Once.
        assert!(matches!(mia(&world, "c1/0", Deed::Recover).await, Ended::Resolved));
        assert_eq!(world.texts(rows).await, before);

        // Two people at once insert one row.
        world.loses("charge_id = 'c1'").await;
        let other = Parts { store: another(&world).await, ..world.parts.clone() };
        let (one, two) = tokio::join!(patient(&world.parts, "c1/0", Deed::Recover), patient(&other, "c1/0", Deed::Recover));
        let told = [&one, &two].map(|ended| matches!(ended, Ended::Restored(_)));
        assert!(told.contains(&true), "{one:?}, {two:?}");
        assert!([one, two].iter().all(|ended| matches!(ended, Ended::Restored(_) | Ended::Resolved)));
        assert_eq!(world.texts(rows).await, before);

        // Nothing is owed for it all the same: a refund is refused.
        world.loses("charge_id = 'c2'").await;
        assert!(matches!(mia(&world, "c2/0", ANYWAY).await, Ended::Resolved));
        assert_eq!(world.balance_of("ada").await, (0, 0));
        world.books_balance().await;
    }
}

on_both! {
    async fn p10_p23_a_row_is_not_inserted_again_where_its_file_is_gone_or_was_never_ours_and_it_is_said_why(world) {
        world.balance("ada", 0, 0).await;
        for nth in 1..=4 {
            world.charge(&format!("c{nth}")).job(&format!("ok-{nth}")).insert().await;
        }
        // Put back, not copied again.
        world.store_output("theirs", None, ("replicate", "ok-4", 0), ("p-c4", "n-c4")).await;
        world.pass().await;
        assert_eq!(world.fate("c4", 0).await, "relinked misattributed");
        let file = |charge: &str| world.folder.path().join(format!("outputs/{charge}/0/1.png"));
        std::fs::remove_file(file("c1")).unwrap();
        std::fs::write(file("c2"), b"another").unwrap();
        world.loses("charge_id IN ('c1', 'c2', 'c3', 'c4')").await;
        world.run("UPDATE charges SET provider_job_id = 'ok-9' WHERE id = 'c3'").await;
        let before = world.all_rows().await;
        for (item, says) in [
            ("c1/0", "outputs/c1/0/1.png is not in the storage any more"),
            ("c2/0", "has 7 bytes and not the"),
            ("c3/0", "another provider job than the platform names for it now"),
            ("c4/0", "only put the platform's own row back"),
        ] {
            let ended = mia(&world, item, Deed::Recover).await;
            assert!(not_restored(&ended).contains(says), "{item}: {ended:?}");
        }
        // Recovered into another storage than that of the settings.
        let elsewhere = makegood::recovery::ObjectStorage::s3(AmazonS3Builder::default(), "//bucket").unwrap();
        let parts = Parts { storage: Arc::new(elsewhere), ..world.parts.clone() };
        let ended = by_hand(&parts, &wanted("c2/0", Deed::Recover)).await.unwrap();
        assert!(not_restored(&ended).contains("is not in s3://bucket"), "{ended:?}");
        assert_eq!(world.all_rows().await, before, "nothing was written");
    }
}
