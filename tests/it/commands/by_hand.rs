//! `makegood refund` and `makegood recover`, as support runs them: exit codes, output, and what is
//! recorded.

use super::worlds;

const MIA: [&str; 4] = ["--by", "mia@example.com", "--reason", "ticket 812"];

#[tokio::test]
async fn p23_support_refunds_and_recovers_by_hand_and_name_and_reason_are_kept() {
    for world in worlds().await {
        let say = |command: &[&str]| world.makegood(&[command, &MIA].concat()).output();

        let refunded = world.json(&[&["refund", "failed-1/0"], &MIA[..]].concat()).await;
        assert_eq!((&refunded["changed"], &refunded["state"]), (&true.into(), &"refunded".into()));
        assert_eq!(refunded["decision"]["reason"], "provider_error");
        let again = world.json(&[&["refund", "failed-1"], &MIA[..]].concat()).await;
        assert_eq!((&again["changed"], &again["state"]), (&false.into(), &"refunded".into()));
        let page = world.text(&["explain", "failed-1"]).await;
        for says in [
            "decided by mia@example.com",
            "by hand, mia@example.com: ticket 812",
            "6      #1  6 to the subscription",
        ] {
            assert!(page.contains(says), "{says:?} is not in\n{page}");
        }

        let page = world.text(&[&["recover", "done/0"], &MIA[..]].concat()).await;
        assert!(page.starts_with("done/0 is recovered now. Its output was recovered on "), "{page}");
        let page = world.text(&[&["recover", "stored"], &MIA[..]].concat()).await;
        assert!(page.starts_with("Nothing was changed: stored/0 is stored already. "), "{page}");

        // Each error appears once, on standard error, with what to do.
        for (command, code, says) in [
            (
                &["refund", "running/0"][..],
                1,
                "the provider says that it is still queued or running (still_running)",
            ),
            (&["refund", "running/0"], 1, "to refund it all the same, run the command again with --anyway"),
            (
                &["refund", "stored/0", "--anyway"],
                1,
                "its output is stored where it belongs (delivered); a pass would close it",
            ),
            (
                &["refund", "done/0", "--anyway"],
                1,
                "nothing was refunded for done/0: it is recovered already.",
            ),
            (
                &["recover", "failed-2/0"],
                1,
                "nothing was recovered for failed-2/0: the provider says that it failed",
            ),
            (&["refund", "nope"], 1, "there is no charge `nope`"),
        ] {
            let ended = say(command).await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{command:?}: {ended:?}");
            assert!(ended.stderr.contains(says), "{command:?}: {ended:?}");
        }
        let anyway = world.json(&[&["refund", "running/0", "--anyway"], &MIA[..]].concat()).await;
        assert_eq!(
            (&anyway["decision"]["reason"], &anyway["decision"]["rule"]),
            (&"by_hand".into(), &0.into())
        );
        let credits = "SELECT CAST(sum(credits) AS bigint) FROM balances";
        assert_eq!(world.number(credits).await, 20);
        assert_eq!(world.run().await.code, Some(0), "the one that was late is refunded");
        assert_eq!(world.number(credits).await, 30);
    }
}

#[tokio::test]
async fn p23_a_refund_by_hand_needs_a_name_a_reason_and_one_output() {
    for world in worlds().await {
        world.execute("INSERT INTO charge_items VALUES ('failed-2', 1, 0, NULL, NULL, NULL)").await;
        for command in [
            &["refund", "failed-1/0"][..],
            &["refund", "failed-1/0", "--by", "mia"],
            &["refund", "failed-1/0", "--by", "mia", "--reason", " "],
            &["refund", "failed-1/0", "--by", "makegood", "--reason", "x"],
            &["recover", "done/0", "--by", "mia", "--reason", "x", "--anyway"],
            &["refund", "failed-2", "--by", "mia", "--reason", "x"],
        ] {
            let ended = world.makegood(command).output().await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{command:?}: {ended:?}");
        }
        assert_eq!(world.number("SELECT count(*) FROM makegood_orphans").await, 0);
    }
}

#[tokio::test]
async fn p23_a_refund_by_hand_that_the_brake_holds_ends_with_3_and_names_the_flag_that_overrules_it() {
    for world in worlds().await {
        let limited = |command: &[&str]| {
            world
                .makegood(&[command, &MIA, &["--output", "text"]].concat())
                .env("MAKEGOOD__BRAKE__MAX_REFUNDS_PER_HOUR", "1")
                .output()
        };
        assert_eq!(limited(&["refund", "failed-1/0"]).await.code, Some(0));
        let held = limited(&["refund", "failed-2/0"]).await;
        assert_eq!(held.code, Some(3), "{held:?}");
        assert!(
            held.stdout.starts_with(
                "Held: nothing was refunded for failed-2/0. It is held for a person: the brake is on"
            ),
            "{held:?}"
        );
        assert!(held.stdout.contains("run the command again with --anyway"), "{held:?}");
        let insisted = limited(&["refund", "failed-2/0", "--anyway"]).await;
        assert_eq!(insisted.code, Some(0), "{insisted:?}");
        assert_eq!(world.json(&["brake", "status"]).await["engaged"], true);
    }
}

#[tokio::test]
async fn p23_support_takes_a_wrong_refund_back_and_both_facts_are_shown() {
    for world in worlds().await {
        if world.is_postgres() {
            world.execute(&crate::database::support_grants()).await;
        }
        let say = |command: &[&str]| world.makegood(&[command, &MIA].concat()).output();
        let credits = "SELECT CAST(sum(credits) AS bigint) FROM balances";
        world.json(&[&["refund", "failed-1/0"], &MIA[..]].concat()).await;
        assert_eq!(world.number(credits).await, 10);
        // Spent meanwhile: two of the four in the wallet.
        world.execute("UPDATE balances SET credits = credits - 2 WHERE bucket = 'wallet'").await;
        for (command, says) in [
            (
                &["reverse-refund", "failed-1/0"][..],
                "nothing was taken back for failed-1/0: the wallet balance of account u1 is 2, less than 4 credits; to \
                 reverse the refund all the same, run the command again with --anyway",
            ),
            (
                &["reverse-refund", "stored"],
                "nothing was taken back for stored/0: makegood has not refunded it",
            ),
            (&["reverse-refund", "nope"], "there is no charge `nope`"),
        ] {
            let ended = say(command).await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{command:?}: {ended:?}");
            assert!(ended.stderr.contains(says), "{command:?}: {ended:?}");
        }
        let unnamed = world.makegood(&["reverse-refund", "failed-1/0", "--by", "mia"]).output().await;
        assert_eq!(unnamed.code, Some(2), "{unnamed:?}");
        assert_eq!(world.number(credits).await, 8, "nothing was taken so far");

        let reversed = world.json(&[&["reverse-refund", "failed-1", "--anyway"], &MIA[..]].concat()).await;
        assert_eq!(
            (&reversed["changed"], &reversed["state"]),
            (&true.into(), &"refunded, and the refund taken back".into())
        );
        let told = &reversed["reversal"];
        assert_eq!(
            (&told["subscription_credits"], &told["wallet_credits"]),
            (&6.into(), &4.into()),
            "{reversed}"
        );
        assert_eq!(
            (&told["by"], &told["reason"]),
            (&"mia@example.com".into(), &"ticket 812".into()),
            "{reversed}"
        );
        assert_eq!(world.number(credits).await, -2);
        let again = world.json(&[&["reverse-refund", "failed-1/0"], &MIA[..]].concat()).await;
        assert_eq!((&again["changed"], &again["reversal"]), (&false.into(), told));

        // The refund and its reversal, side by side.
        let page = world.text(&["explain", "failed-1"]).await;
        for says in [
            "Output 0: refunded, and the refund taken back",
            "10 credits were refunded on ",
            "The refund was reversed on ",
            "6 from the subscription, 4 from the wallet, which the balance did not cover; by hand, mia@example.com: ticket 812",
        ] {
            assert!(page.contains(says), "{says:?} is not in\n{page}");
        }
        let story = world.json(&["explain", "failed-1"]).await;
        assert_eq!(
            story["story"]["resolutions"][0]["refund"]["reversal"]["by_whom"], "mia@example.com",
            "{story}"
        );
        let report = world.json(&["report"]).await;
        let kinds: Vec<_> = report["made_good"]
            .as_array()
            .unwrap()
            .iter()
            .map(|each| (&each["kind"], &each["wallet_credits"]))
            .collect();
        assert!(
            kinds.contains(&(&"refund".into(), &4.into()))
                && kinds.contains(&(&"reverse".into(), &(-4).into())),
            "{report}"
        );
        let lines = world.makegood(&["report", "--output", "csv"]).output().await.stdout;
        assert!(
            lines
                .lines()
                .any(|line| line.starts_with("refund_reversed,failed-1,0,u1,") && line.contains(",-6,-4,")),
            "{lines}"
        );
        let page = world.text(&["report"]).await;
        assert!(page.contains("; 1 refund reversed"), "{page}");

        // Neither a person nor a pass refunds it again.
        let refused = say(&["refund", "failed-1/0", "--anyway"]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused.stderr.contains("an output is refunded at most once, and its refund was reversed"),
            "{refused:?}"
        );
        world.run().await;
        assert_eq!(
            world.number("SELECT count(*) FROM makegood_refunds WHERE charge_id = 'failed-1'").await,
            1
        );
        assert_eq!(world.number("SELECT count(*) FROM makegood_refund_reversals").await, 1);
    }
}

#[tokio::test]
async fn p10_p23_support_inserts_a_row_again_that_the_platform_has_removed() {
    for world in worlds().await {
        world.json(&[&["recover", "done/0"], &MIA[..]].concat()).await;
        let removed = "DELETE FROM stored_outputs WHERE charge_id = 'done'";
        world.execute(removed).await;
        let page = world.text(&["explain", "done"]).await;
        assert!(
            page.contains("The platform has removed the row of makegood:done/0:1 from stored_outputs since"),
            "{page}"
        );
        let page = world.text(&[&["recover", "done/0"], &MIA[..]].concat()).await;
        assert!(page.starts_with("done/0 was recovered before, and the platform had removed its row. Inserted again: makegood:done/0:1 at file:///"), "{page}");
        assert!(!page.contains("has removed the row"), "{page}");
        assert_eq!(
            world
                .number("SELECT count(*) FROM stored_outputs WHERE charge_id = 'done' AND output_index = 0")
                .await,
            1
        );

        world.execute(removed).await;
        let again = world.json(&[&["recover", "done/0"], &MIA[..]].concat()).await;
        assert_eq!((&again["changed"], &again["state"]), (&true.into(), &"recovered".into()));
        // The file is gone too: an error, and nothing changes.
        world.execute(removed).await;
        std::fs::remove_dir_all(world.path().join("makegood-outputs")).unwrap();
        let ended = world.makegood(&[&["recover", "done/0"], &MIA[..]].concat()).output().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("which cannot be inserted again: its file file:///"), "{ended:?}");
        assert!(ended.stderr.contains("is not in the storage any more"), "{ended:?}");
    }
}
