//! P20 (a late output closes the case): an output that is visible to settle's last check wins,
//! whatever was decided before.
//!
//! The test runs the stages of the pipeline one by one, and stores the output between two of them.

use super::{ask, claim, copy, decide, detect, output, rules, settle, settlement};
use crate::world::{HOUR, MINUTE, on_both};
use makegood::policy::{Action, Reason};
use makegood::store::{Outcome, Settlement};

/// The stage of the pipeline at which the output is stored; a refund copies nothing.
const POINTS: [&str; 4] = ["claimed", "asked", "decided", "copied"];
const POINTS_OF_A_REFUND: [&str; 3] = ["claimed", "asked", "decided"];

on_both! {
    async fn p20_an_output_stored_at_any_point_before_the_last_check_wins_over_a_refund(world) {
        world.balance("ada", 0, 0).await;
        for point in POINTS_OF_A_REFUND {
            world.charge(point).job(&format!("failed-{point}")).insert().await;
        }
        detect(&world).await;
        let cases = claim(&world).await;
        assert_eq!(cases.len(), POINTS_OF_A_REFUND.len());
        for case in cases {
            let point = case.facts.orphan.item.charge_id.clone();
            let stored = output(&world, &point, &format!("failed-{point}"));
            if point == "claimed" {
                world.run(&stored).await;
            }
            let evidence = ask(&world, &case).await;
            if point == "asked" {
                world.run(&stored).await;
            }
            let decision = decide(&world, &case, &evidence);
            assert_eq!((&decision.action, decision.reason), (&Action::Refund, Reason::ProviderError), "{point}: the record was read before");
            if point == "decided" {
                world.run(&stored).await;
            }
            let settled = Settlement { evidence: Some(evidence), ..settlement(&world, case, decision) };
            assert_eq!(settle(&world.store, &world, settled).await, Outcome::Changed, "{point}");
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM ledger_entries").await, 0);
        world.pass_time(HOUR);
        world.pass().await;
        for point in POINTS_OF_A_REFUND {
            assert_eq!(world.fate(point, 0).await, "closed delivered", "{point}");
        }
        assert_eq!(world.balance_of("ada").await, (0, 0));
        assert_eq!(world.number("SELECT count(*) AS v FROM usage_history WHERE status = 'delivered' AND billable").await, 3);
        world.books_balance().await;
    }
}

on_both! {
    async fn p20_an_output_stored_at_any_point_before_the_last_check_wins_over_a_recovery(world) {
        world.balance("ada", 0, 0).await;
        for point in POINTS {
            world.charge(point).job(&format!("ok-{point}")).insert().await;
        }
        detect(&world).await;
        for case in claim(&world).await {
            let point = case.facts.orphan.item.charge_id.clone();
            let stored = output(&world, &point, &format!("ok-{point}"));
            if point == "claimed" {
                world.run(&stored).await;
            }
            let evidence = ask(&world, &case).await;
            if point == "asked" {
                world.run(&stored).await;
            }
            let decision = decide(&world, &case, &evidence);
            assert!(matches!(decision.action, Action::Recover(_)), "{point}");
            if point == "decided" {
                world.run(&stored).await;
            }
            let copied = copy(&world, &case, &evidence).await;
            if point == "copied" {
                world.run(&stored).await;
            }
            let settled =
                Settlement { evidence: Some(evidence), copied: Some(copied), ..settlement(&world, case, decision) };
            let outcome = world.store.settle(&[settled], &rules(&world)).await.unwrap();
            assert_eq!(outcome, [Outcome::Changed], "{point}");
        }
        world.pass_time(HOUR);
        world.pass().await;
        for point in POINTS {
            assert_eq!(world.fate(point, 0).await, "closed delivered", "{point}");
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 4, "none is stored twice");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_recoveries").await, 0);
        world.books_balance().await;
    }
}

on_both! {
    async fn p20_an_output_that_commits_after_the_refund_is_a_late_success_reported_once_and_nothing_is_taken_back(world) {
        world.balance("ada", 0, 0).await;
        world.charge("c1").job("failed-1").insert().await;
        world.charge("unlinked").job("failed-2").insert().await;
        world.charge("never").job("failed-3").insert().await;
        world.pass().await;
        assert_eq!(world.balance_of("ada").await, (0, 30));
        world.run(&output(&world, "c1", "failed-1")).await;
        world.store_output("stray", None, ("replicate", "failed-2", 0), ("elsewhere", "there")).await;
        world.pass_time(16 * MINUTE);
        let report = world.pass().await;
        assert_eq!((report.stored_late, report.late_successes), (2, 0), "{report:?}");
        for _ in 0..30 {
            world.pass_time(HOUR);
            let report = world.pass().await;
            assert_eq!(report.stored_late, 0, "told once");
        }
        assert_eq!(super::late_successes(&world).await, ["c1/0 stored_late look late-c1", "unlinked/0 stored_late look stray"]);
        assert_eq!(super::counted(&world, "stored_late").await, 2);
        let events = world.texts("SELECT charge_id || ' ' || detail AS v FROM makegood_orphan_events WHERE kind = 'stored_late' ORDER BY 1").await;
        assert_eq!(events, ["c1 output late-c1 was stored after the refund", "unlinked output stray was stored after the refund"]);
        // Both facts are kept.
        assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
        assert_eq!(world.texts("SELECT charge_id AS v FROM stored_outputs WHERE id = 'late-c1' AND deleted_at IS NULL").await, ["c1"]);
        assert_eq!(world.number("SELECT count(*) AS v FROM usage_history WHERE billable").await, 0);
        assert_eq!(world.balance_of("ada").await, (0, 30), "nothing is taken back");
        world.books_balance().await;
    }
}
